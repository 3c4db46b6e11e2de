use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::{
    NotRepeatable, RepeatBody,
    frames::Frames,
    shared::{Found, Part, Shared, Whole},
};

type BoxError = Box<dyn Error + Send + Sync>;

/// A streaming body that can be sent again: what one attempt reads of it, up to a cap, is kept for the later ones.
///
/// Until it is [kept](RepeatBody::keep), as a retry does with it, it only passes on what it wraps. See the
/// [module](crate::body) for which bodies can be sent twice and what that costs.
///
/// The body inside has to be `Unpin`, as those of axum, hyper, tonic and http-body-util are, because it moves from one
/// attempt to the next; a body that is not becomes so in a `Box::pin`. Its data may be of any type: `Bytes` are
/// shared, other data is converted once. Its error comes out as it is, as a boxed error.
///
/// ```
/// use axum::body::{Body, HttpBody, to_bytes};
/// use tower_tenacity::body::{RepeatBody, ReplayBody};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), axum::Error> {
/// let (first, kept) = ReplayBody::new(Body::from("hello"), 1024).keep();
/// assert_eq!(to_bytes(Body::new(first), 1024).await?, "hello");
///
/// let kept = kept.unwrap();
/// assert_eq!(ReplayBody::<Body>::check(&kept), Ok(()));
/// let (second, _) = ReplayBody::again(kept, true);
/// assert_eq!(second.size_hint().exact(), Some(5));
/// assert_eq!(to_bytes(Body::new(second), 1024).await?, "hello");
/// # Ok(())
/// # }
/// ```
pub struct ReplayBody<B> {
    state: State<B>,
}

/// What is kept of a [`ReplayBody`] while an attempt sends it.
pub struct KeptBody<B> {
    // `None` for a body that is empty.
    kept: Option<Kept<B>>,
}

struct Kept<B> {
    shared: Arc<Shared<B>>,
    // The first frame to send: a body that was read in part before it was kept begins there.
    start: usize,
}

// Passing -> Recording when it is kept; Waiting -> Recording or Replaying in later attempts; Ended after all of them.
enum State<B> {
    // Goes by, and nothing is kept of it; `None` if nothing may be.
    Passing { body: B, cap: Option<u64> },
    // What was read before is sent again; the rest is read, and recorded.
    Recording(Recording<B>),
    // An earlier attempt holds it.
    Waiting { shared: Arc<Shared<B>>, number: usize, start: usize },
    // It was read to its end; there is at least one more frame to send.
    Replaying { shared: Arc<Shared<B>>, at: Position },
    Refused(NotRepeatable),
    Ended,
}

struct Recording<B> {
    part: Part<B>,
    at: Position,
    number: usize,
    shared: Arc<Shared<B>>,
}

#[derive(Clone, Copy)]
struct Position {
    // The next frame to send.
    next: usize,
    // How many bytes are left in the frames from there on.
    left: u64,
}

impl Position {
    fn new(frames: &Frames, next: usize) -> Self {
        Self { next, left: frames.len_from(next) }
    }

    fn pass(&mut self, data: &Bytes) {
        self.next += 1;
        self.left = self.left.saturating_sub(data.len() as u64);
    }
}

impl<B> ReplayBody<B> {
    /// Keeps up to `cap` bytes of `body`, trailers and the handles to its frames not counted. A body of which more was
    /// read is streamed on, but never sent again. Linkerd's cap is 64 KiB.
    ///
    /// With a cap of 0 only bodies without data can be sent again.
    #[must_use]
    pub const fn new(body: B, cap: usize) -> Self {
        Self { state: State::Passing { body, cap: Some(cap as u64) } }
    }

    // What is to be sent of a body that another attempt does not hold.
    fn found(found: Found<B>, shared: Arc<Shared<B>>, number: usize, start: usize) -> State<B> {
        match found {
            Found::Whole => State::replaying(shared, start),
            Found::Part(part) => {
                let at = Position::new(&part.frames, start);
                State::Recording(Recording { part, at, number, shared })
            }
            Found::Refused(reason) => State::Refused(reason),
            Found::Held => State::Waiting { shared, number, start },
        }
    }

    // The state, which the caller replaces, if only by the end.
    fn leave(&mut self) -> State<B> {
        mem::replace(&mut self.state, State::Ended)
    }
}

impl<B> State<B> {
    fn replaying(shared: Arc<Shared<B>>, start: usize) -> Self {
        let at = shared.whole().map(|whole| (Position::new(&whole.frames, start), whole.has_more(start)));
        match at {
            Some((at, true)) => Self::Replaying { shared, at },
            _ => Self::Ended,
        }
    }
}

impl Whole {
    // The trailers come behind the last frame.
    fn has_more(&self, next: usize) -> bool {
        let all = self.frames.count() + usize::from(self.trailers.is_some());
        next < all
    }
}

impl<B> Recording<B> {
    // Nobody is left who could send the body again.
    fn is_alone(&self) -> bool {
        Arc::strong_count(&self.shared) == 1
    }

    fn is_replaying(&self) -> bool {
        self.at.next < self.part.frames.count()
    }

    // A frame that was read before. Whoever is alone need not keep it.
    #[inline]
    fn replay(&mut self) -> Option<Bytes> {
        if !self.is_replaying() {
            return None;
        }
        let data = if self.is_alone() {
            self.part.frames.take(self.at.next)
        } else {
            self.part.frames.get(self.at.next).cloned()
        }?;
        self.at.pass(&data);
        Some(data)
    }

    fn give_back(mut self) {
        if !self.is_alone() {
            self.part.frames.settle();
            self.shared.give_back(self.part);
        }
    }

    fn finish(mut self, trailers: Option<HeaderMap>) {
        if !self.is_alone() {
            self.part.frames.settle();
            self.shared.finish(Whole { frames: self.part.frames, trailers });
        }
    }

    // The body, to be streamed on without being kept.
    fn refuse(self, reason: NotRepeatable) -> B {
        self.shared.refuse(reason);
        self.part.body
    }
}

impl<B> Body for ReplayBody<B>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let this = &mut *self;
        loop {
            match &mut this.state {
                State::Passing { body, .. } => {
                    return Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
                        Some(Ok(frame)) => Some(Ok(into_bytes(frame))),
                        other => {
                            this.state = State::Ended;
                            other.and_then(Result::err).map(|error| Err(error.into()))
                        }
                    });
                }
                State::Recording(recording) => {
                    if recording.shared.is_superseded(recording.number) {
                        if let State::Recording(recording) = this.leave() {
                            recording.give_back();
                        }
                        return Poll::Ready(Some(Err(TakenOver.into())));
                    }
                    if let Some(data) = recording.replay() {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    if recording.is_alone() {
                        if let State::Recording(Recording { part, shared, .. }) = this.leave() {
                            this.state = State::Passing { body: part.body, cap: Some(shared.cap) };
                        }
                        continue;
                    }
                    let frame = match ready!(Pin::new(&mut recording.part.body).poll_frame(cx)) {
                        Some(Ok(frame)) => into_bytes(frame),
                        other => return Poll::Ready(this.end(other.and_then(Result::err))),
                    };
                    match recording.record(&frame) {
                        Recorded::Kept => {}
                        recorded => this.stop(recorded, &frame),
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                State::Waiting { shared, number, start } => {
                    let (number, start) = (*number, *start);
                    if shared.is_superseded(number) {
                        this.state = State::Ended;
                        return Poll::Ready(Some(Err(TakenOver.into())));
                    }
                    let found = shared.take(Some(cx));
                    if let Found::Held = found {
                        return Poll::Pending;
                    }
                    let shared = shared.clone();
                    this.state = Self::found(found, shared, number, start);
                }
                State::Replaying { shared, at } => {
                    let frame = replay(shared, at);
                    if !shared.whole().is_some_and(|whole| whole.has_more(at.next)) {
                        this.state = State::Ended;
                    }
                    return Poll::Ready(frame.map(Ok));
                }
                State::Refused(reason) => {
                    let reason = *reason;
                    this.state = State::Ended;
                    return Poll::Ready(Some(Err(reason.into())));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Passing { body, .. } => body.is_end_stream(),
            State::Recording(recording) => !recording.is_replaying() && recording.part.body.is_end_stream(),
            State::Waiting { .. } | State::Replaying { .. } | State::Refused(_) => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Passing { body, .. } => body.size_hint(),
            State::Recording(recording) => plus(recording.part.body.size_hint(), recording.at.left),
            // Nothing is known of what an earlier attempt has left, but all of it was kept from the start.
            State::Waiting { shared, start: 0, .. } => shared.hint,
            State::Waiting { .. } | State::Refused(_) => SizeHint::default(),
            State::Replaying { at, .. } => SizeHint::with_exact(at.left),
            State::Ended => SizeHint::with_exact(0),
        }
    }
}

// Out of the way of the many frames that are kept; each is called in the state of recording.
impl<B> ReplayBody<B> {
    // The body has no more, or failed.
    #[cold]
    fn end<E: Into<BoxError>>(&mut self, error: Option<E>) -> Option<Result<Frame<Bytes>, BoxError>> {
        let State::Recording(recording) = self.leave() else { return None };
        match error {
            None => {
                recording.finish(None);
                None
            }
            Some(error) => {
                drop(recording.refuse(NotRepeatable::Failed));
                Some(Err(error.into()))
            }
        }
    }

    // The frame is the last one, or the first that is too much.
    #[cold]
    fn stop(&mut self, recorded: Recorded, frame: &Frame<Bytes>) {
        let State::Recording(recording) = self.leave() else { return };
        match recorded {
            Recorded::Last => recording.finish(frame.trailers_ref().cloned()),
            _ => self.state = State::Passing { body: recording.refuse(NotRepeatable::TooLong), cap: None },
        }
    }
}

// What became of a frame that was read.
#[derive(Clone, Copy)]
enum Recorded {
    Kept,
    Last,
    TooMuch,
}

impl<B: Body> Recording<B> {
    #[inline]
    fn record(&mut self, frame: &Frame<Bytes>) -> Recorded {
        let Some(data) = frame.data_ref() else {
            // There are no other frames than trailers today; one that cannot be kept is like one too many.
            return if frame.is_trailers() { Recorded::Last } else { Recorded::TooMuch };
        };
        if data.len() as u64 > self.shared.cap.saturating_sub(self.part.frames.len()) {
            return Recorded::TooMuch;
        }
        if !data.is_empty() {
            self.part.frames.push(data);
            self.at.next = self.part.frames.count();
        }
        if self.part.body.is_end_stream() { Recorded::Last } else { Recorded::Kept }
    }
}

// The next frame of a body that was read to its end.
fn replay<B>(shared: &mut Arc<Shared<B>>, at: &mut Position) -> Option<Frame<Bytes>> {
    // Whoever is alone need not keep what it sends.
    let (data, trailers) = match Arc::get_mut(shared).map(Shared::whole_mut) {
        Some(Some(whole)) => (whole.frames.take(at.next), whole.trailers.take_if(|_| at.next >= whole.frames.count())),
        Some(None) => (None, None),
        None => {
            let whole = shared.whole()?;
            let data = whole.frames.get(at.next).cloned();
            (data, whole.trailers.as_ref().filter(|_| at.next >= whole.frames.count()).cloned())
        }
    };
    match (data, trailers) {
        (Some(data), _) => {
            at.pass(&data);
            Some(Frame::data(data))
        }
        (None, Some(trailers)) => {
            at.next += 1;
            Some(Frame::trailers(trailers))
        }
        (None, None) => None,
    }
}

// Shares `Bytes`; converts other data.
#[inline]
fn into_bytes<D: Buf>(frame: Frame<D>) -> Frame<Bytes> {
    frame.map_data(|mut data| data.copy_to_bytes(data.remaining()))
}

fn plus(hint: SizeHint, more: u64) -> SizeHint {
    let mut sum = SizeHint::new();
    // No length at all is better than a wrong one, whatever the body claims.
    let lower = hint.lower().saturating_add(more);
    sum.set_lower(lower);
    if let Some(upper) = hint.upper().and_then(|upper| upper.checked_add(more)) {
        sum.set_upper(upper.max(lower));
    }
    sum
}

impl<B: Body> RepeatBody for ReplayBody<B> {
    type Kept = KeptBody<B>;

    fn keep(mut self) -> (Self, Option<KeptBody<B>>) {
        let (state, kept) = match self.leave() {
            State::Ended => (State::Ended, Some(KeptBody { kept: None })),
            State::Passing { body, .. } if body.is_end_stream() => (State::Ended, Some(KeptBody { kept: None })),
            State::Passing { body, cap: Some(cap) } if body.size_hint().lower() <= cap => {
                let shared = Arc::new(Shared::new(cap, body.size_hint()));
                let kept = KeptBody::new(&shared, 0);
                let part = Part { frames: Frames::default(), body };
                (State::Recording(Recording { part, at: Position { next: 0, left: 0 }, number: 0, shared }), Some(kept))
            }
            // Retries around retries share what was read.
            State::Recording(mut recording) => {
                recording.part.frames.settle();
                if recording.at.left == 0 {
                    recording.at.next = recording.part.frames.count();
                }
                let kept = KeptBody::new(&recording.shared, recording.at.next);
                (State::Recording(recording), Some(kept))
            }
            State::Waiting { shared, number, start } => {
                let kept = KeptBody::new(&shared, start);
                (State::Waiting { shared, number, start }, Some(kept))
            }
            State::Replaying { shared, at } => {
                let kept = KeptBody::new(&shared, at.next);
                (State::Replaying { shared, at }, Some(kept))
            }
            state @ (State::Passing { .. } | State::Refused(_)) => (state, None),
        };
        self.state = state;
        (self, kept)
    }

    fn check(kept: &KeptBody<B>) -> Result<(), NotRepeatable> {
        kept.kept.as_ref().map_or(Ok(()), |kept| kept.shared.check())
    }

    fn again(kept: KeptBody<B>, last: bool) -> (Self, Option<KeptBody<B>>) {
        let Some(Kept { shared, start }) = &kept.kept else {
            return (Self { state: State::Ended }, (!last).then_some(kept));
        };
        let number = shared.begin();
        let state = Self::found(shared.take(None), shared.clone(), number, *start);
        (Self { state }, (!last).then_some(kept))
    }
}

impl<B> KeptBody<B> {
    fn new(shared: &Arc<Shared<B>>, start: usize) -> Self {
        Self { kept: Some(Kept { shared: shared.clone(), start }) }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        if let State::Recording(recording) = self.leave() {
            recording.give_back();
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Passing { .. } => "passing",
            State::Recording(recording) if recording.is_replaying() => "replaying",
            State::Recording(_) => "recording",
            State::Waiting { .. } => "waiting",
            State::Replaying { .. } => "replaying",
            State::Refused(_) => "refused",
            State::Ended => "ended",
        };
        f.debug_struct("ReplayBody").field("state", &state).finish_non_exhaustive()
    }
}

impl<B> fmt::Debug for KeptBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let check = self.kept.as_ref().map_or(Ok(()), |kept| kept.shared.check());
        f.debug_struct("KeptBody").field("check", &check).finish_non_exhaustive()
    }
}

// What an attempt that was given up is told when it reads on.
#[derive(Debug)]
struct TakenOver;

impl fmt::Display for TakenOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a later attempt has taken over the body")
    }
}

impl Error for TakenOver {}
