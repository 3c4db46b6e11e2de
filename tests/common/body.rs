//! Bodies that give what they are told to, and a reader that counts nothing on their manners.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::VecDeque,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

/// What a body gives at one poll.
#[derive(Clone, Debug)]
pub enum Step {
    Data(Bytes),
    Trailers(HeaderMap),
    Pending,
    Fail(&'static str),
}

pub fn data(data: impl Into<Vec<u8>>) -> Step {
    Step::Data(Bytes::from(data.into()))
}

pub fn trailers() -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("checksum"), http::HeaderValue::from_static("abc"))])
}

/// Gives its steps one by one. By default it claims nothing about its length or end.
#[derive(Debug, Default)]
pub struct Steps {
    steps: VecDeque<Step>,
    hint: Option<Hint>,
    ends: Ends,
    polls: Arc<AtomicUsize>,
    alive: Alive,
}

#[derive(Clone, Copy, Debug)]
pub enum Hint {
    Honest,
    Lie { lower: u64, upper: Option<u64> },
}

#[derive(Clone, Copy, Debug, Default)]
pub enum Ends {
    #[default]
    Unknown,
    Honest,
    Always,
}

impl Steps {
    pub fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        Self { steps: steps.into_iter().collect(), ..Self::default() }
    }

    pub fn hint(mut self, hint: Hint) -> Self {
        self.hint = Some(hint);
        self
    }

    pub fn ends(mut self, ends: Ends) -> Self {
        self.ends = ends;
        self
    }

    pub fn polls(&self) -> Arc<AtomicUsize> {
        self.polls.clone()
    }

    /// Counts what is left of the body: 1 until it is dropped.
    pub fn alive(&self) -> Arc<AtomicUsize> {
        self.alive.0.clone()
    }
}

impl Body for Steps {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        self.polls.fetch_add(1, SeqCst);
        Poll::Ready(match self.steps.pop_front() {
            None => None,
            Some(Step::Data(data)) => Some(Ok(Frame::data(data))),
            Some(Step::Trailers(trailers)) => Some(Ok(Frame::trailers(trailers))),
            Some(Step::Fail(why)) => Some(Err(std::io::Error::other(why))),
            Some(Step::Pending) => {
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        match self.ends {
            Ends::Unknown => false,
            Ends::Honest => self.steps.is_empty(),
            Ends::Always => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self.hint {
            None => SizeHint::new(),
            Some(Hint::Honest) => SizeHint::with_exact(
                self.steps.iter().map(|step| if let Step::Data(data) = step { data.len() as u64 } else { 0 }).sum(),
            ),
            Some(Hint::Lie { lower, upper }) => {
                let mut hint = SizeHint::new();
                hint.set_lower(lower);
                if let Some(upper) = upper {
                    hint.set_upper(upper);
                }
                hint
            }
        }
    }
}

/// One while it is there.
#[derive(Debug)]
pub struct Alive(Arc<AtomicUsize>);

impl Default for Alive {
    fn default() -> Self {
        Self(Arc::new(AtomicUsize::new(1)))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Frames that can be counted as long as anybody holds on to them.
pub fn tracked(length: usize) -> (Step, Arc<AtomicUsize>) {
    struct Owner(Vec<u8>, #[expect(dead_code)] Alive);
    impl AsRef<[u8]> for Owner {
        fn as_ref(&self) -> &[u8] {
            &self.0
        }
    }
    let alive = Alive::default();
    let count = alive.0.clone();
    (Step::Data(Bytes::from_owner(Owner(vec![b'.'; length], alive))), count)
}

/// A waker that counts.
#[derive(Debug, Default)]
pub struct Wakes(AtomicUsize);

impl Wakes {
    pub fn new() -> (Arc<Self>, Waker) {
        let wakes = Arc::new(Self::default());
        (wakes.clone(), Waker::from(wakes))
    }

    pub fn count(&self) -> usize {
        self.0.load(SeqCst)
    }
}

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

/// What a body gives.
pub type Given<B> = Option<Result<Frame<<B as Body>::Data>, <B as Body>::Error>>;

/// One poll, by nobody in particular.
pub fn poll<B: Body + Unpin>(body: &mut B) -> Poll<Given<B>> {
    Pin::new(body).poll_frame(&mut Context::from_waker(Waker::noop()))
}

/// The next frame of a body that has one, however often it has to be asked.
pub fn next<B: Body + Unpin>(body: &mut B) -> Given<B> {
    for _ in 0..1000 {
        if let Poll::Ready(frame) = poll(body) {
            return frame;
        }
    }
    panic!("the body never has another frame")
}

/// The next frame's data.
pub fn next_data<B: Body<Data = Bytes, Error: std::fmt::Debug> + Unpin>(body: &mut B) -> Bytes {
    next(body).expect("there is a frame").expect("it did not fail").into_data().expect("it is data")
}

/// All that a body has, asked for by a reader that does as it is told: it believes `is_end_stream`.
pub fn read<B: Body<Data = Bytes> + Unpin>(body: B) -> Result<(Vec<Bytes>, Option<HeaderMap>), B::Error> {
    let mut body = pin!(body);
    let (mut data, mut trailers) = (Vec::new(), None);
    while !body.is_end_stream() {
        let Some(frame) = next(&mut body) else { break };
        match frame?.into_data() {
            Ok(bytes) => data.push(bytes),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((data, trailers))
}
