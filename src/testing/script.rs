use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

/// What a [`Script`] does with one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<Res, E> {
    /// Answers at once.
    Respond(Result<Res, E>),
    /// Answers after a while.
    After(Duration, Result<Res, E>),
    /// Never answers.
    Hang,
    /// Fails in `poll_ready`, before there is a call.
    NotReady(E),
}

impl<Res, E> From<Result<Res, E>> for Step<Res, E> {
    fn from(outcome: Result<Res, E>) -> Self {
        Self::Respond(outcome)
    }
}

/// A service that plays a list of outcomes and records what it was asked, and when. Clones share script and record.
///
/// It holds its callers to the contract of [`Service`]: each call needs a `poll_ready` of its own on the very instance that is
/// called, and a clone starts out unready.
pub struct Script<Req, Res, E> {
    shared: Arc<Mutex<Shared<Req, Res, E>>>,
    ready: bool,
}

struct Shared<Req, Res, E> {
    steps: VecDeque<Step<Res, E>>,
    calls: Vec<(Instant, Req)>,
}

impl<Req, Res, E> Script<Req, Res, E> {
    /// Plays `steps`, one per call; a plain `Result` is a step that answers at once.
    pub fn new<I>(steps: I) -> Self
    where
        I: IntoIterator<Item: Into<Step<Res, E>>>,
    {
        let steps = steps.into_iter().map(Into::into).collect();
        Self { shared: Arc::new(Mutex::new(Shared { steps, calls: Vec::new() })), ready: false }
    }

    fn lock(&self) -> MutexGuard<'_, Shared<Req, Res, E>> {
        // A panic in a test must not hide what was recorded before it.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls were made.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.lock().calls.len()
    }

    /// The requests, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Req>
    where
        Req: Clone,
    {
        self.lock().calls.iter().map(|(_, request)| request.clone()).collect()
    }

    /// When each call was made.
    #[must_use]
    pub fn call_times(&self) -> Vec<Instant> {
        self.lock().calls.iter().map(|(at, _)| *at).collect()
    }

    /// The time between one call and the next. With outcomes that come at once and time paused, these are the delays
    /// that the policy above chose.
    #[must_use]
    pub fn delays(&self) -> Vec<Duration> {
        self.call_times().windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// How many steps have not been played.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.lock().steps.len()
    }
}

impl<Req, Res, E> Clone for Script<Req, Res, E> {
    fn clone(&self) -> Self {
        Self { shared: self.shared.clone(), ready: false }
    }
}

impl<Req, Res, E> fmt::Debug for Script<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Script").field("calls", &self.calls()).field("remaining", &self.remaining()).finish()
    }
}

/// # Panics
/// In `call`, when the instance was not polled ready, or when the script has no step left.
impl<Req, Res, E> Service<Req> for Script<Req, Res, E> {
    type Response = Res;
    type Error = E;
    type Future = ScriptFuture<Res, E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        let mut shared = self.lock();
        if matches!(shared.steps.front(), Some(Step::NotReady(_))) {
            if let Some(Step::NotReady(error)) = shared.steps.pop_front() {
                return Poll::Ready(Err(error));
            }
        }
        drop(shared);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "the service was called without having been polled ready");
        let mut shared = self.lock();
        shared.calls.push((Instant::now(), request));
        let calls = shared.calls.len();
        let (delay, outcome) = match shared.steps.pop_front() {
            Some(Step::Respond(outcome)) => (None, Some(outcome)),
            Some(Step::After(delay, outcome)) => (Some(sleep(delay)), Some(outcome)),
            Some(Step::Hang) => (None, None),
            Some(Step::NotReady(error)) => (None, Some(Err(error))),
            None => panic!("the script has no step left for call {calls}"),
        };
        ScriptFuture { delay, outcome }
    }
}

pin_project! {
    /// The future of a call to a [`Script`].
    #[must_use = "futures do nothing unless polled"]
    pub struct ScriptFuture<Res, E> {
        #[pin]
        delay: Option<Sleep>,
        outcome: Option<Result<Res, E>>,
    }
}

impl<Res, E> Future for ScriptFuture<Res, E> {
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some(delay) = this.delay.as_pin_mut() {
            ready!(delay.poll(cx));
        }
        this.outcome.take().map_or(Poll::Pending, Poll::Ready)
    }
}

impl<Res, E> fmt::Debug for ScriptFuture<Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptFuture").finish_non_exhaustive()
    }
}
