use std::{
    error::Error,
    fmt, mem,
    pin::Pin,
    sync::{Arc, MutexGuard},
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};

use super::{
    NotRepeatable, RepeatBody,
    frames::Frames,
    shared::{Begun, Part, Shared, Slot, Word},
};
use crate::BoxError;

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
    Replaying { shared: Arc<Shared<B>>, at: Position, exact: bool },
    Ended,
}

struct Recording<B> {
    shared: Arc<Shared<B>>,
    reader: Reader,
}

struct Reader {
    number: u32,
    // The word as it was when this attempt looked and had nothing more to repeat, `NONE` before that. As long as it stays the
    // same, nothing is new but what it reads itself.
    known: Word,
    // What there is to repeat; `None` until it looks for the first time.
    at: Option<Position>,
    start: usize,
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
    // From here on nothing is kept.
    fn passing(part: Part<B>) -> Self {
        Self::Passing { body: part.body, cap: None }
    }

    // For an attempt that is counted among those who may send the body.
    fn replaying(shared: Arc<Shared<B>>, start: usize) -> Self {
        let at = match &*shared.lock_whole() {
            Slot::Whole(whole) => {
                let at = whole.has_more(start).then(|| Position::new(&whole.frames, start));
                at.map(|at| (at, shared.exact || whole.trailers.is_none()))
            }
            _ => unreachable!("it stays whole while somebody may send it"),
        };
        if let Some((at, exact)) = at {
            return Self::Replaying { shared, at, exact };
        }
        shared.release();
        Self::Ended
    }
}

// What an attempt finds when it looks again.
enum Found<B> {
    // Nothing that was read before, so that the body is to be read on.
    Nothing,
    // The attempt before, which waits for the body.
    Waiting(Waker),
    // A frame that was read before.
    Frame(Bytes),
    // Nobody who could send the body again.
    Alone(Part<B>),
    Whole,
    Refused(NotRepeatable),
    TakenOver,
}

impl Reader {
    fn new(number: u32, start: usize) -> Self {
        Self { number, known: Word::NONE, at: None, start }
    }

    // It has all to itself, and nothing was read before.
    fn first<B>(shared: &Shared<B>) -> Self {
        Self { known: shared.word(), at: Some(Position { next: 0, left: 0 }), ..Self::new(0, 0) }
    }

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
        let Some(at) = &mut self.at else {
            part.frames.settle();
            self.at = Some(Position::new(&part.frames, self.start));
            return part.waiting.take().map_or_else(|| self.look(shared, slot), Found::Waiting);
        };
        if at.left > 0 {
            // Whoever is alone need not keep it.
            let data = if word.is_alone() { part.frames.take(at.next) } else { part.frames.get(at.next).cloned() };
            let data = data.unwrap_or_default();
            at.pass(&data);
            return Found::Frame(data);
        }
        if word.is_alone() {
            if let Slot::Part(part) = mem::replace(slot, Slot::Gone) {
                return Found::Alone(part);
            }
        }
        self.known = word;
        Found::Nothing
    }
}

impl<B> Recording<B> {
    // Where a retry inside of this attempt begins; `None` if it does not, because a later attempt has taken over, or is about to.
    fn start(&self) -> Option<usize> {
        let Reader { number, at, start, .. } = &self.reader;
        let Some(at) = at else { return (self.shared.word().number() == *number).then_some(*start) };
        // Only an attempt on another thread that finds itself taken over can be busy with it now.
        let mut slot = self.shared.try_lock()?;
        match &mut *slot {
            Slot::Part(part) if self.shared.word().number() == *number => {
                part.frames.settle();
                Some(if at.left == 0 { part.frames.count() } else { at.next })
            }
            _ => None,
        }
    }

    fn size_hint(&self) -> SizeHint
    where
        B: Body,
    {
        let Reader { number, at, start, .. } = &self.reader;
        // What is true while somebody is busy with it need not be true for long.
        let Some(mut slot) = self.shared.try_lock() else { return SizeHint::default() };
        match &mut *slot {
            _ if self.shared.word().number() != *number => SizeHint::default(),
            Slot::Part(part) => {
                let left = at.as_ref().map(|at| at.left).unwrap_or_else(|| {
                    part.frames.settle();
                    part.frames.len_from(*start)
                });
                plus(part.body.size_hint(), left)
            }
            Slot::Whole(whole) => length(whole.frames.len_from(*start), self.shared.exact || whole.trailers.is_none()),
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
        self.read_on(cx, Self::poll_other)
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
            State::Replaying { at, exact, .. } => length(at.left, *exact),
            State::Ended => SizeHint::with_exact(0),
        }
    }
}

type Given<D, E> = Poll<Option<Result<Frame<D>, E>>>;

impl<B> ReplayBody<B>
where
    B: Body<Error: Into<BoxError>> + Unpin,
{
    // Reads on in a body that is kept, unless something else is to be done. It is part of its callers, so that a frame goes
    // straight from the body to whoever reads.
    #[inline(always)]
    fn read_on(
        &mut self,
        cx: &mut Context<'_>,
        or_else: impl FnOnce(&mut Self, &mut Context<'_>) -> Given<Bytes, BoxError>,
    ) -> Given<Bytes, BoxError> {
        let State::Recording(Recording { shared, reader }) = &mut self.state else { return or_else(self, cx) };
        let Some(mut slot) = shared.lock_at_once() else { return or_else(self, cx) };
        if shared.word() != reader.known {
            drop(slot);
            return or_else(self, cx);
        }
        let Slot::Part(part) = &mut *slot else { unreachable!("the word would be another") };
        let other = match Pin::new(&mut part.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) => {
                    let data = into_bytes(data);
                    if !part.frames.push(&data) {
                        let part = shared.refuse(reader.number, slot, NotRepeatable::TooLong);
                        self.turn(part.map(State::passing));
                    } else if part.body.is_end_stream() {
                        shared.finish(reader.number, slot, None);
                        self.turn(Some(State::Ended));
                    }
                    return Poll::Ready(Some(Ok(Frame::data(data))));
                }
                Err(frame) => Poll::Ready(Some(Ok(frame))),
            },
            other => other,
        };
        let (given, next) = stop(shared, reader.number, slot, other, cx);
        self.turn(next);
        given
    }

    // What is out of the way of the many frames that are kept.
    #[inline(never)]
    fn poll_other(&mut self, cx: &mut Context<'_>) -> Given<Bytes, BoxError> {
        loop {
            match &mut self.state {
                State::Passing { body, .. } => {
                    return Poll::Ready(match ready!(Pin::new(body).poll_frame(cx)) {
                        Some(Ok(frame)) => Some(Ok(frame.map_data(into_bytes))),
                        other => {
                            self.state = State::Ended;
                            other.and_then(Result::err).map(|error| Err(error.into()))
                        }
                    });
                }
                State::Recording(Recording { shared, reader }) => {
                    let Some(mut slot) = shared.try_lock() else { return busy(cx) };
                    let found = reader.look(shared, &mut slot);
                    drop(slot);
                    match found {
                        Found::Frame(data) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                        Found::Nothing => return self.read_on(cx, |_, cx| busy(cx)),
                        Found::Waiting(waiting) => waiting.wake(),
                        found => {
                            if let Err(error) = self.move_on(found) {
                                return Poll::Ready(Some(Err(error)));
                            }
                        }
                    }
                }
                State::Replaying { shared, at, .. } => {
                    let mut slot = shared.lock_whole();
                    let Slot::Whole(whole) = &mut *slot else {
                        unreachable!("it stays whole while somebody may send it")
                    };
                    // Whoever is alone need not keep what it sends.
                    let alone = shared.word().is_alone();
                    let frames = &mut whole.frames;
                    let data = if alone { frames.take(at.next) } else { frames.get(at.next).cloned() };
                    let frame = match data {
                        Some(data) => {
                            at.pass(&data);
                            Frame::data(data)
                        }
                        None => {
                            at.next += 1;
                            let trailers = if alone { whole.trailers.take() } else { whole.trailers.clone() };
                            Frame::trailers(trailers.unwrap_or_default())
                        }
                    };
                    if !whole.has_more(at.next) {
                        drop(slot);
                        shared.release();
                        self.state = State::Ended;
                    }
                    return Poll::Ready(Some(Ok(frame)));
                }
                State::Ended => return Poll::Ready(None),
            }
        }
    }
}

impl<B> ReplayBody<B> {
    // Out of the state of recording, by what was found.
    #[cold]
    fn move_on(&mut self, found: Found<B>) -> Result<(), BoxError> {
        let State::Recording(Recording { shared, reader }) = self.leave() else { return Ok(()) };
        let error = match found {
            Found::Alone(part) => {
                self.state = State::Passing { body: part.body, cap: Some(shared.cap) };
                return Ok(());
            }
            Found::Whole => {
                self.state = State::replaying(shared, reader.start);
                return Ok(());
            }
            Found::Refused(reason) => reason.into(),
            _ => TakenOver.into(),
        };
        shared.leave(reader.number);
        Err(error)
    }

    #[cold]
    fn turn(&mut self, next: Option<State<B>>) {
        if let Some(next) = next {
            self.state = next;
        }
    }
}

// Somebody else has it for as long as one poll takes, which is no time to sleep for.
#[cold]
fn busy<T>(cx: &Context<'_>) -> Poll<T> {
    cx.waker().wake_by_ref();
    Poll::Pending
}

// What becomes of a body that has given no data.
#[cold]
fn stop<B>(
    shared: &Shared<B>,
    number: u32,
    mut slot: MutexGuard<'_, Slot<B>>,
    given: Given<B::Data, B::Error>,
    cx: &Context<'_>,
) -> (Given<Bytes, BoxError>, Option<State<B>>)
where
    B: Body<Error: Into<BoxError>>,
{
    let (given, next) = match given {
        Poll::Pending => {
            if let Slot::Part(part) = &mut *slot {
                part.wait(cx);
            }
            return (Poll::Pending, None);
        }
        Poll::Ready(None) => {
            shared.finish(number, slot, None);
            (None, State::Ended)
        }
        Poll::Ready(Some(Err(error))) => {
            drop(shared.refuse(number, slot, NotRepeatable::Failed));
            (Some(Err(error.into())), State::Ended)
        }
        Poll::Ready(Some(Ok(frame))) => {
            let frame = frame.map_data(into_bytes);
            let next = match frame.trailers_ref() {
                Some(trailers) => {
                    shared.finish(number, slot, Some(trailers));
                    State::Ended
                }
                // There are no other frames than trailers today; one that cannot be kept is like one too many.
                None => shared.refuse(number, slot, NotRepeatable::TooLong).map_or(State::Ended, State::passing),
            };
            (Some(Ok(frame)), next)
        }
    };
    (Poll::Ready(given), Some(next))
}

// Shares `Bytes`; converts other data.
#[inline]
fn into_bytes<D: Buf>(mut data: D) -> Bytes {
    data.copy_to_bytes(data.remaining())
}

// HTTP/1 sends no trailers with a body whose length is known: one that did not say its length keeps it to itself.
fn length(left: u64, exact: bool) -> SizeHint {
    if exact { SizeHint::with_exact(left) } else { plus(SizeHint::new(), left) }
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
                let exact = body.size_hint().exact().is_some();
                let shared = Arc::new(Shared::new(cap, body, exact));
                let reader = Reader::first(&shared);
                let kept = KeptBody::new(shared.clone(), 0);
                (State::Recording(Recording { shared, reader }), Some(kept))
            }
            // Retries around retries share what was read.
            State::Recording(recording) => {
                let kept = recording.start().map(|start| KeptBody::another(&recording.shared, start));
                (State::Recording(recording), kept)
            }
            State::Replaying { shared, at, exact } => {
                let kept = KeptBody::another(&shared, at.next);
                (State::Replaying { shared, at, exact }, Some(kept))
            }
            state @ State::Passing { .. } => (state, None),
        };
        self.state = state;
        (self, kept)
    }

    fn check(kept: &KeptBody<B>) -> Result<(), NotRepeatable> {
        kept.kept.as_ref().map_or(Ok(()), |kept| kept.shared.check())
    }

    fn take_over(kept: &mut KeptBody<B>) -> Result<(), NotRepeatable> {
        kept.kept.as_ref().map_or(Ok(()), |kept| kept.shared.take_over())
    }

    fn again(mut kept: KeptBody<B>, last: bool) -> (Self, Option<KeptBody<B>>) {
        let Some(Kept { shared, start }) = kept.kept.take() else {
            return (Self { state: State::Ended }, (!last).then_some(kept));
        };
        let begun = shared.begin(last);
        let kept = (!last).then(|| KeptBody::new(shared.clone(), start));
        let state = match begun {
            Begun::Reading(number) => State::Recording(Recording { shared, reader: Reader::new(number, start) }),
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
            State::Recording(Recording { reader, .. }) if reader.at.is_none_or(|at| at.left == 0) => "recording",
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
