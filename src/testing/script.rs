//! A tower service that plays a script.

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

/// A service that answers each call with the next step of a script, and remembers the calls.
///
/// Clones share the script and the log, so one clone goes into the stack and another is asked afterwards. Each
/// instance keeps its own readiness: a clone starts un-ready, as the contract of [`Service`] says.
///
/// ```
/// use std::time::Duration;
/// use tower::ServiceExt;
/// use tower_tenacity::testing::{Script, Step};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let script = Script::new([
///     Step::Respond(Err("busy")),
///     Step::After(Duration::from_secs(3), Ok("slow")),
///     Step::Hang,
/// ]);
/// assert_eq!(script.clone().oneshot("a").await, Err("busy"));
/// assert_eq!(script.clone().oneshot("b").await, Ok("slow"));
/// let hanging = script.clone().oneshot("c");
/// assert!(tokio::time::timeout(Duration::from_secs(60), hanging).await.is_err());
///
/// assert_eq!(script.calls(), 3);
/// assert_eq!(script.requests(), ["a", "b", "c"]);
/// # }
/// ```
///
/// # Panics
///
/// A call panics when the instance was not polled ready for it, and when the script is used up.
pub struct Script<Req, Res, E> {
    shared: Arc<Mutex<Shared<Req, Res, E>>>,
    ready: bool,
}

/// What a [`Script`] does with one call.
///
/// An outcome converts into [`Step::Respond`], so a script of plain outcomes needs no steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step<Res, E> {
    /// Respond, at once or after the script's [latency](Script::latency).
    Respond(Result<Res, E>),
    /// Respond after this long, whatever the script's latency.
    After(Duration, Result<Res, E>),
    /// Never respond.
    Hang,
}

impl<Res, E> From<Result<Res, E>> for Step<Res, E> {
    fn from(outcome: Result<Res, E>) -> Self {
        Self::Respond(outcome)
    }
}

struct Shared<Req, Res, E> {
    steps: VecDeque<Step<Res, E>>,
    latency: Duration,
    unready: Vec<(usize, E)>,
    // Kept beside `requests`, which can be taken out.
    times: Vec<Instant>,
    requests: Vec<Req>,
    readied: usize,
}

impl<Req, Res, E> Script<Req, Res, E> {
    /// A service that answers with these outcomes or [`Step`]s, in this order.
    pub fn new<I>(steps: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Step<Res, E>>,
    {
        let shared = Shared {
            steps: steps.into_iter().map(Into::into).collect(),
            latency: Duration::ZERO,
            unready: Vec::new(),
            times: Vec::new(),
            requests: Vec::new(),
            readied: 0,
        };
        Self { shared: Arc::new(Mutex::new(shared)), ready: false }
    }

    /// How long every [`Step::Respond`] takes, for all clones; zero by default.
    #[must_use]
    pub fn latency(self, latency: Duration) -> Self {
        self.lock().latency = latency;
        self
    }

    /// Makes readiness fail once, with `error`, when `calls` calls have been made (0: the very first readiness).
    ///
    /// Whichever clone is polled first meets the failure; after it the service can become ready again. Several
    /// failures can be scripted.
    ///
    /// ```
    /// use tower::{Service, ServiceExt};
    /// use tower_tenacity::testing::Script;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let mut script = Script::<_, (), _>::new([Err("busy")]).fail_ready_after(1, "gone");
    /// assert_eq!(script.ready().await.unwrap().call("a").await, Err("busy"));
    /// assert_eq!(script.ready().await.err(), Some("gone"));
    /// # }
    /// ```
    #[must_use]
    pub fn fail_ready_after(self, calls: usize, error: E) -> Self {
        self.lock().unready.push((calls, error));
        self
    }

    /// How many calls were made.
    pub fn calls(&self) -> usize {
        self.lock().times.len()
    }

    /// When each call was made.
    pub fn call_times(&self) -> Vec<Instant> {
        self.lock().times.clone()
    }

    /// The time between each call and the next.
    ///
    /// Steps that answer at once leave only the delays that were waited between attempts; a latency is included.
    pub fn delays(&self) -> Vec<Duration> {
        self.lock().times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    /// A copy of the requests of all calls, in the order of the calls.
    pub fn requests(&self) -> Vec<Req>
    where
        Req: Clone,
    {
        self.lock().requests.clone()
    }

    /// Takes the requests out of the log, for requests that are not [`Clone`]. The other logs stay.
    pub fn take_requests(&self) -> Vec<Req> {
        std::mem::take(&mut self.lock().requests)
    }

    /// How many steps have not been played yet.
    pub fn remaining(&self) -> usize {
        self.lock().steps.len()
    }

    /// How many instances are ready at this moment: polled ready, and since then neither called nor dropped.
    ///
    /// A layer that holds a readied instance while it waits keeps a permit from others; here it shows as
    /// a number above zero.
    pub fn readied(&self) -> usize {
        self.lock().readied
    }

    fn lock(&self) -> MutexGuard<'_, Shared<Req, Res, E>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Req, Res, E> Service<Req> for Script<Req, Res, E> {
    type Response = Res;
    type Error = E;
    type Future = ScriptFuture<Res, E>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        let mut shared = self.lock();
        let calls = shared.times.len();
        if let Some(due) = shared.unready.iter().position(|(after, _)| *after <= calls) {
            return Poll::Ready(Err(shared.unready.remove(due).1));
        }
        if !self.ready {
            shared.readied += 1;
        }
        drop(shared);
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        assert!(self.ready, "called before ready: this instance of the script was not polled ready for the call");
        self.ready = false;
        let mut shared = self.lock();
        shared.readied -= 1;
        shared.times.push(Instant::now());
        shared.requests.push(request);
        let (step, latency, calls) = (shared.steps.pop_front(), shared.latency, shared.times.len());
        drop(shared);

        let (after, outcome) = match step {
            Some(Step::Respond(outcome)) => (latency, Some(outcome)),
            Some(Step::After(after, outcome)) => (after, Some(outcome)),
            Some(Step::Hang) => (Duration::ZERO, None),
            None => panic!("script exhausted: call {calls} has no step, the script had {}", calls - 1),
        };
        let state = match outcome {
            None => State::Hanging,
            Some(_) if after.is_zero() => State::Answering,
            Some(_) => State::Sleeping { delay: sleep(after) },
        };
        ScriptFuture { state, outcome }
    }
}

impl<Req, Res, E> Clone for Script<Req, Res, E> {
    fn clone(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), ready: false }
    }
}

impl<Req, Res, E> Drop for Script<Req, Res, E> {
    fn drop(&mut self) {
        if self.ready {
            self.lock().readied -= 1;
        }
    }
}

impl<Req, Res, E> fmt::Debug for Script<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (calls, remaining) = (self.calls(), self.remaining());
        f.debug_struct("Script")
            .field("calls", &calls)
            .field("remaining", &remaining)
            .field("ready", &self.ready)
            .finish()
    }
}

pin_project! {
    /// The answer of a [`Script`] to one call.
    #[must_use = "futures do nothing unless polled"]
    pub struct ScriptFuture<Res, E> {
        #[pin]
        state: State,
        outcome: Option<Result<Res, E>>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State {
        Answering,
        Sleeping { #[pin] delay: Sleep },
        Hanging,
    }
}

impl<Res, E> Future for ScriptFuture<Res, E> {
    type Output = Result<Res, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.state.project() {
            StateProj::Hanging => return Poll::Pending,
            StateProj::Sleeping { delay } => ready!(delay.poll(cx)),
            StateProj::Answering => {}
        }
        Poll::Ready(this.outcome.take().expect("a future is not polled after it has finished"))
    }
}

impl<Res, E> fmt::Debug for ScriptFuture<Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptFuture").finish_non_exhaustive()
    }
}
