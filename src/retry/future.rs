use std::{
    fmt,
    future::Future,
    marker::PhantomData,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};
use tower_service::Service;

use super::{
    Plain,
    mode::{Limit, Mode},
};
use crate::policy::{Attempt, Decision, Keep, Nanos, Policy, StopReason};

// A service that fails at once under a policy that neither waits nor stops would never leave `poll`.
const ATTEMPTS_PER_POLL: u32 = 32;

type Kept<P, Req, Res, E> = <<P as Policy<Req, Res, E>>::Keep as Keep<Req>>::Kept;

pin_project! {
    /// The future of a call to a [`Retry`](super::Retry) service.
    ///
    /// Nothing in it is boxed; the timer shares its place with the attempt. Dropping it cancels the call.
    // The bounds stand on the struct, as in tower's own retry: what is kept is named by the policy.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<P, S, Req, M = Plain>
    where
        P: Policy<Req, S::Response, S::Error>,
        S: Service<Req>,
        M: Mode<S::Response, S::Error>,
    {
        #[pin]
        state: State<S::Future, S::Response>,
        #[pin]
        limit: M::Limit,
        spare: Option<Spare<Kept<P, Req, S::Response, S::Error>, S>>,
        policy: P,
        progress: Progress,
        story: M::Story,
        request: PhantomData<fn() -> Req>,
    }
}

pin_project! {
    // Calling -> (Draining ->) Waiting -> Readying -> Calling, until the policy hands the outcome back.
    #[project = StateProj]
    enum State<F, Res> {
        Calling { #[pin] attempt: F },
        Draining { response: Res, after: Duration },
        Waiting { #[pin] delay: Sleep },
        Readying,
    }
}

impl<F, Res> State<F, Res> {
    // No timer for a pause of zero.
    fn pause(after: Duration) -> Self {
        if after.is_zero() { Self::Readying } else { Self::Waiting { delay: sleep(after) } }
    }
}

// What another attempt is made from. While it is there, another attempt is possible.
struct Spare<K, S> {
    kept: K,
    service: S,
}

struct Progress {
    number: u32,
    waited: Nanos,
    clock: Clock,
}

// A call that is answered at once reads no clock, and neither does one whose policy does not look at the time.
#[derive(Clone, Copy)]
enum Clock {
    Unread,
    Unneeded,
    Started(Instant),
}

impl Clock {
    // When the call first has to wait, or fails.
    #[cold]
    fn start(&mut self, timed: bool) {
        *self = if timed { Self::Started(Instant::now()) } else { Self::Unneeded };
    }
}

impl Progress {
    // Reads the clock only where the call has been timed before. Inlined, it costs next to nothing where nobody looks.
    #[inline(always)]
    fn attempt(&self, timeout: Option<Duration>) -> Attempt {
        let attempt = Attempt::new(self.number).with_waited_nanos(self.waited);
        match self.clock {
            Clock::Started(started) => timed(attempt, started, timeout),
            _ if timeout.is_some() => attempt.with_time_left(timeout),
            _ => attempt,
        }
    }
}

#[cold]
#[inline(never)]
fn timed(attempt: Attempt, started: Instant, timeout: Option<Duration>) -> Attempt {
    let now = Instant::now();
    let elapsed = now.saturating_duration_since(started);
    let time_left = timeout.map(|timeout| timeout.saturating_sub(elapsed));
    attempt.with_now(now).with_elapsed(elapsed).with_time_left(time_left)
}

impl<P, S, Req, M> ResponseFuture<P, S, Req, M>
where
    P: Policy<Req, S::Response, S::Error>,
    S: Service<Req>,
    M: Mode<S::Response, S::Error>,
{
    // `call` makes the first attempt and, if asked to, hands over the service for the later ones.
    #[inline]
    pub(super) fn start(policy: &P, request: Req, call: impl FnOnce(Req, bool) -> (S::Future, Option<S>)) -> Self
    where
        P: Clone,
    {
        let mut policy = policy.begin(&request);
        let progress = Progress { number: 1, waited: Nanos::ZERO, clock: Clock::Unread };
        let (mut request, kept) = if policy.may_retry(1) { policy.keep().first(request) } else { (request, None) };
        policy.before_attempt(&Attempt::new(1).with_time_left(policy.timeout()), &mut request);
        let (attempt, service) = call(request, kept.is_some());
        Self {
            state: State::Calling { attempt },
            limit: M::Limit::default(),
            spare: match (kept, service) {
                (Some(kept), Some(service)) => Some(Spare { kept, service }),
                _ => None,
            },
            policy,
            progress,
            story: M::Story::default(),
            request: PhantomData,
        }
    }
}

impl<P, S, Req, M> Future for ResponseFuture<P, S, Req, M>
where
    P: Policy<Req, S::Response, S::Error>,
    S: Service<Req>,
    M: Mode<S::Response, S::Error>,
{
    type Output = Result<S::Response, M::Error>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut attempts = 0;
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { attempt } => {
                    let Poll::Ready(mut outcome) = attempt.poll(cx) else {
                        if matches!(this.progress.clock, Clock::Unread) {
                            this.progress.clock.start(M::TIMED || this.policy.is_timed());
                        }
                        break;
                    };
                    let attempt = this.progress.attempt(this.policy.timeout());
                    let kept = this.spare.as_mut().map(|spare| &mut spare.kept);
                    let after = match this.policy.decide(&attempt, kept, &mut outcome) {
                        Decision::Return => return Poll::Ready(M::finish(this.story, &attempt, None, outcome)),
                        Decision::GiveUp(reason) => {
                            return Poll::Ready(M::finish(this.story, &attempt, Some(reason), outcome));
                        }
                        Decision::Retry { .. }
                            if !this.spare.as_ref().is_some_and(|spare| {
                                this.policy.keep().is_repeatable(&spare.kept, outcome.is_ok())
                            }) =>
                        {
                            let reason = Some(StopReason::NotReplayable);
                            return Poll::Ready(M::finish(this.story, &attempt, reason, outcome));
                        }
                        Decision::Retry { after } => after,
                    };
                    if matches!(this.progress.clock, Clock::Unread) {
                        this.progress.clock.start(M::TIMED || this.policy.is_timed());
                    }
                    this.progress.waited = this.progress.waited.saturating_add(Nanos::new(after));
                    // The finished attempt and its outcome are gone before the wait begins.
                    let outcome = match outcome {
                        Ok(mut response) => {
                            if this.policy.poll_drain(&mut response, cx).is_pending() {
                                this.state.set(State::Draining { response, after });
                                M::discard(this.story, &attempt, after, None);
                                break;
                            }
                            None
                        }
                        Err(error) => Some(error),
                    };
                    this.state.set(State::pause(after));
                    M::discard(this.story, &attempt, after, outcome);
                }
                StateProj::Draining { response, after } => {
                    let Poll::Ready(()) = this.policy.poll_drain(response, cx) else { break };
                    let pause = State::pause(*after);
                    this.state.set(pause);
                }
                StateProj::Waiting { delay } => {
                    // A policy of one's own may wait for longer than its timeout allows.
                    let Poll::Ready(()) = delay.poll(cx) else { break };
                    this.state.set(State::Readying);
                }
                StateProj::Readying => {
                    if attempts == ATTEMPTS_PER_POLL {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    let Some(spare) = this.spare.as_mut() else {
                        // Only a call with a spare comes here, and it leaves with one or calling.
                        unreachable!("a retry has something to be made from");
                    };
                    // Nobody may have run for longer than the pause was to last.
                    if M::TIMED && this.progress.attempt(this.policy.timeout()).time_left() == Some(Duration::ZERO) {
                        break;
                    }
                    let Poll::Ready(ready) = spare.service.poll_ready(cx) else { break };
                    this.progress.number = this.progress.number.saturating_add(1);
                    let attempt = this.progress.attempt(this.policy.timeout());
                    if let Err(error) = ready {
                        this.policy.not_ready(&attempt, &error);
                        let reason = Some(StopReason::NotReady);
                        return Poll::Ready(M::finish(this.story, &attempt, reason, Err(error)));
                    }
                    let Some(Spare { kept, mut service }) = this.spare.take() else {
                        unreachable!("it was there a moment ago");
                    };
                    let last = !this.policy.may_retry(attempt.number());
                    let (mut request, kept) = this.policy.keep().again(kept, last);
                    this.policy.before_attempt(&attempt, &mut request);
                    this.state.set(State::Calling { attempt: service.call(request) });
                    *this.spare = kept.map(|kept| Spare { kept, service });
                    attempts += 1;
                }
            }
        }
        // Pending: only the limit can end the call now.
        let Some(timeout) = this.policy.timeout().filter(|_| M::TIMED) else { return Poll::Pending };
        // A mode with a limit is timed, so the clock was read when the call first had to wait.
        let Clock::Started(started) = this.progress.clock else { return Poll::Pending };
        ready!(this.limit.as_mut().poll_passed(started, timeout, cx));
        let attempt = this.progress.attempt(Some(timeout));
        this.policy.timed_out(&attempt);
        this.state.set(State::Readying);
        *this.spare = None;
        Poll::Ready(M::expire(this.story, &attempt))
    }
}

impl<P, S, Req, M> fmt::Debug for ResponseFuture<P, S, Req, M>
where
    P: Policy<Req, S::Response, S::Error>,
    S: Service<Req>,
    M: Mode<S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Calling { .. } => "calling",
            State::Draining { .. } => "draining",
            State::Waiting { .. } => "waiting",
            State::Readying => "readying",
        };
        f.debug_struct("ResponseFuture")
            .field("attempt", &self.progress.number)
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
