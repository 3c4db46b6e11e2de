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
    #[repr(C)]
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
        story: M::Story,
        progress: Progress,
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
    #[inline(always)]
    fn pause(mut self: Pin<&mut Self>, after: Duration) {
        if after.is_zero() {
            self.set(Self::Readying);
        } else {
            self.wait(after);
        }
    }

    #[inline(never)]
    fn wait(mut self: Pin<&mut Self>, after: Duration) {
        self.set(Self::Waiting { delay: sleep(after) });
    }
}

// What the first attempt is made by, and a service for the later ones.
pub(super) trait Source<S: Service<Req>, Req> {
    fn call(&mut self, request: Req) -> S::Future;
    fn spare(self) -> S;
}

// What another attempt is made from. While it is there, another attempt is possible.
struct Spare<K, S> {
    kept: K,
    service: S,
}

// How far the call has come. Most calls are answered by their first attempt: nothing is written down for those.
enum Progress {
    /// The first attempt is under way and did not have to wait so far.
    First,
    Further {
        number: u32,
        waited: Nanos,
        clock: Clock,
    },
}

// Most policies do not look at the time: no clock is read for them.
#[derive(Clone, Copy)]
enum Clock {
    Unneeded,
    Started(Instant),
}

const FIRST: Attempt = Attempt::new(1);

impl Progress {
    fn number(&self) -> u32 {
        match self {
            Self::First => 1,
            Self::Further { number, .. } => *number,
        }
    }

    fn started(&self) -> Option<Instant> {
        match self {
            Self::Further { clock: Clock::Started(started), .. } => Some(*started),
            _ => None,
        }
    }

    // When the call first has to wait.
    #[cold]
    #[inline(never)]
    fn start(&mut self, timed: bool) {
        let clock = if timed { Clock::Started(Instant::now()) } else { Clock::Unneeded };
        *self = Self::Further { number: 1, waited: Nanos::ZERO, clock };
    }

    // At the end of an attempt that is followed by another.
    #[inline]
    fn failed(&mut self, after: Duration, timed: bool) {
        let after = if after.is_zero() { Nanos::ZERO } else { Nanos::new(after) };
        match self {
            Self::First => {
                let clock = if timed { Clock::Started(Instant::now()) } else { Clock::Unneeded };
                *self = Self::Further { number: 1, waited: after, clock };
            }
            Self::Further { waited, .. } => *waited = waited.saturating_add(after),
        }
    }

    fn next(&mut self) -> u32 {
        match self {
            Self::First => 1,
            Self::Further { number, .. } => {
                *number = number.saturating_add(1);
                *number
            }
        }
    }

    // Reads the clock only where the call has been timed before. Inlined, it costs next to nothing where nobody looks.
    #[inline(always)]
    fn attempt(&self, timeout: Option<Duration>) -> Attempt {
        match *self {
            Self::First => FIRST.with_time_left(timeout),
            Self::Further { number, waited, clock } => {
                let attempt = Attempt::new(number).with_waited_nanos(waited);
                match clock {
                    Clock::Started(started) => {
                        let now = Instant::now();
                        let elapsed = now.saturating_duration_since(started);
                        let time_left = timeout.map(|limit| limit.saturating_sub(elapsed));
                        attempt.with_now(now).with_elapsed(elapsed).with_time_left(time_left)
                    }
                    Clock::Unneeded => attempt.with_time_left(timeout),
                }
            }
        }
    }
}

impl<P, S, Req, M> ResponseFuture<P, S, Req, M>
where
    P: Policy<Req, S::Response, S::Error>,
    S: Service<Req>,
    M: Mode<S::Response, S::Error>,
{
    #[inline]
    pub(super) fn start(policy: &P, request: Req, mut source: impl Source<S, Req>) -> Self
    where
        P: Clone,
    {
        let mut policy = policy.begin(&request);
        // Not taken apart: a request is large, and moved as often as it gets a name.
        let mut first = if policy.may_retry(1) { policy.keep().first(request) } else { (request, None) };
        policy.before_attempt(&FIRST.with_time_left(policy.timeout()), &mut first.0);
        let attempt = source.call(first.0);
        Self {
            policy,
            spare: match first.1 {
                Some(kept) => Some(Spare { kept, service: source.spare() }),
                None => None,
            },
            state: State::Calling { attempt },
            limit: M::Limit::default(),
            progress: Progress::First,
            story: M::Story::default(),
            request: PhantomData,
        }
    }

    // All that is not the making of an attempt: what follows one that was not accepted as it is, up to the start of the
    // next one or the end of the call. Ready with nothing when there is an attempt to poll. In one piece, as what is known
    // at the top (no clock, no pause) makes most of the rest go away.
    #[inline(never)]
    fn proceed(
        self: Pin<&mut Self>,
        outcome: Option<Result<S::Response, S::Error>>,
        exhausted: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<S::Response, M::Error>>> {
        let mut this = self.project();
        if let Some(mut outcome) = outcome {
            let attempt = this.progress.attempt(this.policy.timeout());
            let kept = this.spare.as_mut().map(|spare| &mut spare.kept);
            let after = match this.policy.decide(&attempt, kept, &mut outcome) {
                Decision::Return => return Poll::Ready(Some(M::finish(this.story, &attempt, None, outcome))),
                Decision::GiveUp(reason) => {
                    return Poll::Ready(Some(M::finish(this.story, &attempt, Some(reason), outcome)));
                }
                Decision::Retry { after } => after,
            };
            if !this.spare.as_mut().is_some_and(|spare| this.policy.keep().take_over(&mut spare.kept)) {
                this.policy.not_replayable(&attempt, &outcome);
                let reason = Some(StopReason::NotReplayable);
                return Poll::Ready(Some(M::finish(this.story, &attempt, reason, outcome)));
            }
            this.progress.failed(after, M::TIMED || this.policy.is_timed());
            // The finished attempt and its outcome are gone before the wait begins.
            match outcome {
                Ok(mut response) => {
                    if this.policy.poll_drain(&mut response, cx).is_pending() {
                        this.state.set(State::Draining { response, after });
                        M::discard(this.story, &attempt, after, None);
                        return Poll::Pending;
                    }
                    drop(response);
                    this.state.as_mut().pause(after);
                    M::discard(this.story, &attempt, after, None);
                }
                Err(error) => {
                    this.state.as_mut().pause(after);
                    M::discard(this.story, &attempt, after, Some(error));
                }
            }
        }
        // One after the other, as far as the call has not come yet.
        if let StateProj::Draining { response, after } = this.state.as_mut().project() {
            ready!(this.policy.poll_drain(response, cx));
            let after = *after;
            this.state.as_mut().pause(after);
        }
        if let StateProj::Waiting { delay } = this.state.as_mut().project() {
            // A policy of one's own may wait for longer than its timeout allows.
            ready!(delay.poll(cx));
            this.state.set(State::Readying);
        }
        if exhausted {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let Some(spare) = this.spare.as_mut() else {
            // Only a call with a spare comes here, and it leaves with one or calling.
            unreachable!("a retry has something to be made from");
        };
        // Nobody may have run for longer than the pause was to last.
        if M::TIMED && this.progress.attempt(this.policy.timeout()).time_left() == Some(Duration::ZERO) {
            return Poll::Pending;
        }
        let ready = ready!(spare.service.poll_ready(cx));
        let number = this.progress.next();
        let attempt = this.progress.attempt(this.policy.timeout());
        if let Err(error) = ready {
            this.policy.not_ready(&attempt, &error);
            let reason = Some(StopReason::NotReady);
            return Poll::Ready(Some(M::finish(this.story, &attempt, reason, Err(error))));
        }
        let Some(Spare { kept, mut service }) = this.spare.take() else {
            unreachable!("it was there a moment ago");
        };
        let last = !this.policy.may_retry(number);
        let (mut request, kept) = this.policy.keep().again(kept, last);
        this.policy.before_attempt(&attempt, &mut request);
        this.state.set(State::Calling { attempt: service.call(request) });
        *this.spare = kept.map(|kept| Spare { kept, service });
        Poll::Ready(None)
    }

    // While nothing else is ready, only the limit can end the call.
    #[inline]
    fn poll_limit(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<S::Response, M::Error>> {
        if !M::TIMED {
            return Poll::Pending;
        }
        let mut this = self.project();
        let Some(timeout) = this.policy.timeout() else { return Poll::Pending };
        // A mode with a limit is timed, so the clock was read when the call first had to wait.
        let Some(started) = this.progress.started() else { return Poll::Pending };
        ready!(this.limit.as_mut().poll_passed(started, timeout, cx));
        let attempt = this.progress.attempt(Some(timeout));
        this.policy.timed_out(&attempt);
        this.state.set(State::Readying);
        *this.spare = None;
        Poll::Ready(M::expire(this.story, &attempt))
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
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut attempts = 0;
        loop {
            let this = self.as_mut().project();
            let mut outcome = None;
            if let StateProj::Calling { attempt } = this.state.project() {
                let Poll::Ready(ended) = attempt.poll(cx) else {
                    if matches!(this.progress, Progress::First) {
                        this.progress.start(M::TIMED || this.policy.is_timed());
                    }
                    return self.poll_limit(cx);
                };
                if matches!(&ended, Ok(response) if this.policy.accepts(response)) {
                    // A success has no story, so that any attempt will do.
                    return Poll::Ready(M::finish(this.story, &FIRST, None, ended));
                }
                outcome = Some(ended);
            }
            match self.as_mut().proceed(outcome, attempts == ATTEMPTS_PER_POLL, cx) {
                Poll::Ready(None) => attempts += 1,
                Poll::Ready(Some(outcome)) => return Poll::Ready(outcome),
                Poll::Pending => return self.poll_limit(cx),
            }
        }
    }
}

impl<P, S, Req, M> fmt::Debug for ResponseFuture<P, S, Req, M>
where
    P: Policy<Req, S::Response, S::Error>,
    S: Service<Req>,
    M: Mode<S::Response, S::Error>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Calling { .. } => "calling",
            State::Draining { .. } => "draining",
            State::Waiting { .. } => "waiting",
            State::Readying => "readying",
        };
        f.debug_struct("ResponseFuture")
            .field("attempt", &self.progress.number())
            .field("state", &state)
            .finish_non_exhaustive()
    }
}
