use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{
    NotRepeatable, RepeatBody,
    frames::Frames,
    shared::{Begun, Part, Shared, Slot, Whole, Word},
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

// Passing -> Recording when it is kept; later attempts are Recording or Replaying; Ended after all of them.
enum State<B> {
    // Goes by, and nothing is kept of it; `None` if nothing may be.
    Passing { body: B, cap: Option<u64> },
    // What was read before is sent again; the rest is read, and recorded, until a later attempt takes over.
    Recording(Recording<B>),
    // It was read to its end; there is at least one more frame to send.
    Replaying { shared: Arc<Shared<B>>, at: Position },
    Ended,
}

struct Recording<B> {
    shared: Arc<Shared<B>>,
    reader: Reader,
}

struct Reader {
    number: u32,
    // The word this attempt has seen, `NONE` at first. As long as it stays the same, nothing is new but what it reads itself.
    known: Word,
    at: Position,
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

    // The state, which the caller replaces, if only by the end.
    fn leave(&mut self) -> State<B> {
        mem::replace(&mut self.state, State::Ended)
    }
}

impl<B> State<B> {
    // For an attempt that is counted among those who may send the body.
    fn replaying(shared: Arc<Shared<B>>, start: usize) -> Self {
        let at = match &*shared.lock_whole() {
            Slot::Whole(whole) if whole.has_more(start) => Some(Position::new(&whole.frames, start)),
            _ => None,
        };
        if let Some(at) = at {
            return Self::Replaying { shared, at };
        }
        shared.release();
        Self::Ended
    }
}

// What an attempt finds when it looks again.
enum Found<B> {
    // The body is there, to be read on.
    Body,
    // So it is, and the attempt before waits for it.
    Waiting(Waker),
    // There is nobody left who could send it again.
    Alone(Part<B>),
    Whole,
    Refused(NotRepeatable),
    TakenOver,
}

impl Reader {
    #[cold]
    fn look<B>(&mut self, shared: &Shared<B>, slot: &mut Slot<B>) -> Found<B> {
        let word = shared.word();
        if word.number() != self.number {
            return Found::TakenOver;
        }
        let part = match slot {
            Slot::Part(part) => part,
            Slot::Whole(_) => return Found::Whole,
            Slot::Refused(reason) => return Found::Refused(*reason),
            Slot::Gone => return Found::TakenOver,
        };
        let mut waiting = None;
        if self.known == Word::NONE {
            waiting = part.waiting.take();
            part.frames.settle();
            self.at = Position::new(&part.frames, self.at.next);
        }
        self.known = word;
        if word.is_alone() && self.at.next == part.frames.count() {
            if let Slot::Part(part) = mem::replace(slot, Slot::Gone) {
                return Found::Alone(part);
            }
        }
        waiting.map_or(Found::Body, Found::Waiting)
    }

    // A frame that was read before. Whoever is alone need not keep it.
    fn replay(&mut self, frames: &mut Frames) -> Bytes {
        let alone = self.known.is_alone();
        let data = if alone { frames.take(self.at.next) } else { frames.get(self.at.next).cloned() };
        let data = data.unwrap_or_default();
        self.at.pass(&data);
        if alone && self.at.next == frames.count() {
            // From here on the body is for nobody else.
            self.known = Word::NONE;
        }
        data
    }
}

impl<B> Recording<B> {
    // Where a retry inside of this attempt begins; `None` if it does not, because a later attempt has taken over, or is about to.
    fn start(&mut self) -> Option<usize> {
        let Reader { number, known, at } = &mut self.reader;
        if *known != Word::NONE {
            // Only an attempt on another thread that finds itself taken over can be busy with it now.
            let mut slot = self.shared.try_lock()?;
            match &mut *slot {
                Slot::Part(part) if self.shared.word().number() == *number => {
                    part.frames.settle();
                    if at.left == 0 {
                        at.next = part.frames.count();
                    }
                }
                _ => return None,
            }
        }
        (self.shared.word().number() == *number).then_some(at.next)
    }

    fn size_hint(&self) -> SizeHint
    where
        B: Body,
    {
        let Reader { number, known, at } = &self.reader;
        // What is true while somebody is busy with it need not be true for long.
        let Some(mut slot) = self.shared.try_lock() else { return SizeHint::default() };
        match &mut *slot {
            _ if self.shared.word().number() != *number => SizeHint::default(),
            Slot::Part(part) if *known == Word::NONE => {
                part.frames.settle();
                plus(part.body.size_hint(), part.frames.len_from(at.next))
            }
            Slot::Part(part) => plus(part.body.size_hint(), at.left),
            Slot::Whole(whole) => SizeHint::with_exact(whole.frames.len_from(at.next)),
            Slot::Refused(_) | Slot::Gone => SizeHint::default(),
        }
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
                        Some(Ok(frame)) => Some(Ok(frame.map_data(into_bytes))),
                        other => {
                            this.state = State::Ended;
                            other.and_then(Result::err).map(|error| Err(error.into()))
                        }
                    });
                }
                State::Recording(Recording { shared, reader }) => {
                    let Some(mut slot) = shared.try_lock() else {
                        // Busy for as long as one poll takes, which is no time to sleep for.
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    };
                    if shared.word() != reader.known {
                        let found = reader.look(shared, &mut slot);
                        drop(slot);
                        if let Some(error) = this.turn(found) {
                            return Poll::Ready(Some(Err(error)));
                        }
                        continue;
                    }
                    let Slot::Part(part) = &mut *slot else { unreachable!("the word would be another") };
                    if reader.at.next < part.frames.count() {
                        return Poll::Ready(Some(Ok(Frame::data(reader.replay(&mut part.frames)))));
                    }
                    let frame = match Pin::new(&mut part.body).poll_frame(cx) {
                        Poll::Ready(Some(Ok(frame))) => frame,
                        Poll::Ready(None) => {
                            shared.finish(reader.number, slot, None);
                            this.state = State::Ended;
                            return Poll::Ready(None);
                        }
                        Poll::Ready(Some(Err(error))) => {
                            drop(shared.refuse(reader.number, slot, NotRepeatable::Failed));
                            this.state = State::Ended;
                            return Poll::Ready(Some(Err(error.into())));
                        }
                        Poll::Pending => {
                            part.wait(cx);
                            return Poll::Pending;
                        }
                    };
                    let data = match frame.into_data() {
                        Ok(data) => into_bytes(data),
                        Err(frame) => {
                            let frame = frame.map_data(into_bytes);
                            if let Some(trailers) = frame.trailers_ref() {
                                shared.finish(reader.number, slot, Some(trailers));
                                this.state = State::Ended;
                            } else {
                                // There are no other frames than trailers today; one that cannot be kept is like one too many.
                                let part = shared.refuse(reader.number, slot, NotRepeatable::TooLong);
                                this.pass(part);
                            }
                            return Poll::Ready(Some(Ok(frame)));
                        }
                    };
                    if data.len() as u64 > shared.cap.saturating_sub(part.frames.len()) {
                        let part = shared.refuse(reader.number, slot, NotRepeatable::TooLong);
                        this.pass(part);
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                    if !data.is_empty() {
                        part.frames.push(&data);
                        reader.at.next = part.frames.count();
                    }
                    if part.body.is_end_stream() {
                        shared.finish(reader.number, slot, None);
                        this.state = State::Ended;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                State::Replaying { shared, at } => {
                    let mut slot = shared.lock_whole();
                    let Slot::Whole(whole) = &mut *slot else {
                        unreachable!("it stays whole while somebody may send it")
                    };
                    let frame = replay(whole, at, shared.word().is_alone());
                    let more = whole.has_more(at.next);
                    drop(slot);
                    if !more {
                        shared.release();
                        this.state = State::Ended;
                    }
                    return Poll::Ready(frame.map(Ok));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Passing { body, .. } => body.is_end_stream(),
            // The body was asked after each frame, and before the first one. What ends in between says so when it is polled.
            State::Recording(_) | State::Replaying { .. } => false,
            State::Ended => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Passing { body, .. } => body.size_hint(),
            State::Recording(recording) => recording.size_hint(),
            State::Replaying { at, .. } => SizeHint::with_exact(at.left),
            State::Ended => SizeHint::with_exact(0),
        }
    }
}

impl<B> ReplayBody<B> {
    // What follows from what was found: another state, or an error that ends the attempt.
    #[cold]
    fn turn(&mut self, found: Found<B>) -> Option<BoxError> {
        let found = match found {
            Found::Body => return None,
            Found::Waiting(waiting) => {
                waiting.wake();
                return None;
            }
            found => found,
        };
        let State::Recording(Recording { shared, reader }) = self.leave() else { return None };
        match found {
            Found::Alone(part) => self.state = State::Passing { body: part.body, cap: Some(shared.cap) },
            Found::Whole if shared.stay(reader.number) => self.state = State::replaying(shared, reader.at.next),
            Found::Refused(reason) => {
                shared.leave(reader.number);
                return Some(reason.into());
            }
            _ => {
                shared.leave(reader.number);
                return Some(TakenOver.into());
            }
        }
        None
    }

    // From here on nothing is kept.
    #[cold]
    fn pass(&mut self, part: Option<Part<B>>) {
        self.state = part.map_or(State::Ended, |part| State::Passing { body: part.body, cap: None });
    }
}

// The next frame of a body that was read to its end. Whoever is alone need not keep what it sends.
fn replay(whole: &mut Whole, at: &mut Position, alone: bool) -> Option<Frame<Bytes>> {
    let data = if alone { whole.frames.take(at.next) } else { whole.frames.get(at.next).cloned() };
    if let Some(data) = data {
        at.pass(&data);
        return Some(Frame::data(data));
    }
    at.next += 1;
    let trailers = if alone { whole.trailers.take() } else { whole.trailers.clone() };
    trailers.map(Frame::trailers)
}

// Shares `Bytes`; converts other data.
#[inline]
fn into_bytes<D: Buf>(mut data: D) -> Bytes {
    data.copy_to_bytes(data.remaining())
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
                let shared = Arc::new(Shared::new(cap, body));
                let reader = Reader { number: 0, known: shared.word(), at: Position { next: 0, left: 0 } };
                let kept = KeptBody::new(shared.clone(), 0);
                (State::Recording(Recording { shared, reader }), Some(kept))
            }
            // Retries around retries share what was read.
            State::Recording(mut recording) => {
                let kept = recording.start().map(|start| KeptBody::another(&recording.shared, start));
                (State::Recording(recording), kept)
            }
            State::Replaying { shared, at } => {
                let kept = KeptBody::another(&shared, at.next);
                (State::Replaying { shared, at }, Some(kept))
            }
            state @ State::Passing { .. } => (state, None),
        };
        self.state = state;
        (self, kept)
    }

    fn check(kept: &KeptBody<B>) -> Result<(), NotRepeatable> {
        kept.kept.as_ref().map_or(Ok(()), |kept| kept.shared.check())
    }

    fn again(mut kept: KeptBody<B>, last: bool) -> (Self, Option<KeptBody<B>>) {
        let Some(Kept { shared, start }) = kept.kept.take() else {
            return (Self { state: State::Ended }, (!last).then_some(kept));
        };
        let begun = shared.begin(last);
        let kept = (!last).then(|| KeptBody::new(shared.clone(), start));
        let state = match begun {
            Begun::Reading(number) => {
                let at = Position { next: start, left: 0 };
                State::Recording(Recording { shared, reader: Reader { number, known: Word::NONE, at } })
            }
            Begun::Whole => State::replaying(shared, start),
        };
        (Self { state }, kept)
    }
}

impl<B> KeptBody<B> {
    // For one who is counted already.
    fn new(shared: Arc<Shared<B>>, start: usize) -> Self {
        Self { kept: Some(Kept { shared, start }) }
    }

    fn another(shared: &Arc<Shared<B>>, start: usize) -> Self {
        shared.hold();
        Self::new(shared.clone(), start)
    }
}

impl<B> Drop for KeptBody<B> {
    fn drop(&mut self) {
        if let Some(kept) = &self.kept {
            kept.shared.release();
        }
    }
}

impl<B> Drop for ReplayBody<B> {
    fn drop(&mut self) {
        match &self.state {
            State::Recording(Recording { shared, reader }) => shared.leave(reader.number),
            State::Replaying { shared, .. } => shared.release(),
            State::Passing { .. } | State::Ended => {}
        }
    }
}

impl<B> fmt::Debug for ReplayBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Passing { .. } => "passing",
            State::Recording(Recording { reader, .. }) if reader.at.left == 0 => "recording",
            State::Recording(_) | State::Replaying { .. } => "replaying",
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
