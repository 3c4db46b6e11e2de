//! Decisions only: when to give up, how long to wait, what an outcome means.
//!
//! Nothing in here performs I/O, sleeps or reads a clock: the time and the randomness are arguments,
//! so a decision can be tested, replayed and simulated without waiting for it.
//!
//! A [`RetryPolicy`] is put together from three small values, each of which can be replaced:
//!
//! | question | trait | ready-made |
//! |---|---|---|
//! | when to give up | [`Stop`](stop::Stop) | [`stop`] |
//! | how long to wait | [`Wait`](wait::Wait) | [`wait`] |
//! | what an outcome means | [`Classify`](classify::Classify) | [`classify`] |
//!
//! ```
//! use std::time::Duration;
//! use tower_tenacity::{RetryPolicy, classify, stop, wait};
//!
//! # #[derive(Debug)] enum MyError { Busy, Gone }
//! let policy = RetryPolicy::new()
//!     .stop(stop::after_attempt(5) | stop::before_delay(Duration::from_secs(60)))
//!     .wait(wait::exponential().max(Duration::from_secs(10)).full_jitter())
//!     .classify(classify::retry_if(|outcome: &Result<_, MyError>| matches!(outcome, Err(MyError::Busy))));
//! # fn check<P: tower_tenacity::Policy<(), (), MyError>>(_: &P) {} check(&policy);
//! ```
//!
//! Whatever those cannot say is said by implementing [`Policy`], or by a closure: [`policy_fn`].

mod attempt;
mod boxed;
pub mod budget;
mod call_options;
pub mod classify;
mod from_fn;
#[cfg(feature = "http")]
pub mod grpc;
pub mod hooks;
#[cfg(feature = "http")]
pub mod http;
pub mod keep;
mod nanos;
mod random;
mod retry_policy;
pub mod stop;
pub mod wait;

use std::{
    task::{Context, Poll},
    time::Duration,
};

pub use attempt::Attempt;
pub use boxed::BoxPolicy;
pub use call_options::CallOptions;
pub use from_fn::{PolicyFn, policy_fn};
pub use keep::Keep;
pub(crate) use nanos::Nanos;
pub use random::Random;
pub use retry_policy::RetryPolicy;

/// Decides, after every attempt, whether there is another one.
///
/// The value inside a [`RetryLayer`](crate::RetryLayer) is a template: each call works on a copy of its own, made by
/// [`begin`](Policy::begin), so `&mut self` is the state of one call and two calls never see each other's. What
/// calls are meant to share belongs behind an `Arc` in the policy.
///
/// Only [`decide`](Policy::decide) and the way a request is [kept](Keep) have to be written; the
/// other methods default to doing nothing.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Decision, Policy, StopReason, keep::Cloned};
///
/// #[derive(Clone)]
/// struct Thrice;
///
/// impl<Req: Clone, Res, E> Policy<Req, Res, E> for Thrice {
///     type Keep = Cloned;
///     fn keep(&self) -> Cloned { Cloned }
///     fn decide(&mut self, attempt: &Attempt, _: Option<&mut Req>, outcome: &mut Result<Res, E>) -> Decision {
///         match outcome {
///             Ok(_) => Decision::Return,
///             Err(_) if attempt.number() < 3 => Decision::Retry { after: Duration::from_millis(50) },
///             Err(_) => Decision::GiveUp(StopReason::Exhausted),
///         }
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no policy for requests `{Req}`, responses `{Res}` and errors `{E}`",
    label = "no policy for these requests, responses and errors",
    note = "every part of a `RetryPolicy` has to fit these types, and so have the closures among its hooks; \
            end it with `.boxed::<Req, Res, E>()` to be told which part does not",
    note = "requests that are not `Clone` need another way of being kept: `.keep(…)`"
)]
pub trait Policy<Req, Res, E> {
    /// How a request is kept for later attempts; [`keep::Cloned`] unless there is a better way.
    type Keep: Keep<Req>;

    /// The way this policy keeps a request. Asked for the first attempt if it may be followed by another, when a retry was decided, and
    /// when it is made.
    fn keep(&self) -> Self::Keep;

    /// What to do now that `attempt` ended with `outcome`.
    ///
    /// `kept` is what later attempts will be made from and may be changed here; it is `None` when there is
    /// nothing to retry with, and a [`Decision::Retry`] then ends the call as
    /// [`StopReason::NotReplayable`]. A delay of zero starts the next attempt without touching a timer.
    fn decide(
        &mut self,
        attempt: &Attempt,
        kept: Option<&mut <Self::Keep as Keep<Req>>::Kept>,
        outcome: &mut Result<Res, E>,
    ) -> Decision;

    /// Whether `response` is what the caller wanted, told without a look at anything else: it is then handed back, and
    /// [`decide`](Policy::decide) is not called. `false`, the default, leaves it to `decide`, which has to know such a
    /// response as well.
    ///
    /// Most calls succeed at the first attempt; a policy that says so here spares them the rest.
    fn accepts(&mut self, response: &Res) -> bool {
        let _ = response;
        false
    }

    /// The policy of one call: a clone, unless settings come with the request or a call shares with its service what
    /// two services do not share.
    fn begin(&self, request: &Req) -> Self
    where
        Self: Clone,
    {
        let _ = request;
        self.clone()
    }

    /// Whether an attempt could follow attempt `number` (counted from 1). When it answers `false`, neither the
    /// request nor the service is copied for that attempt.
    fn may_retry(&self, number: u32) -> bool {
        let _ = number;
        true
    }

    /// Called right before each attempt, the first included, with the request that is about to be sent.
    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Req) {
        let _ = (attempt, request);
    }

    /// Reads on in a response that will not be handed back, before the wait for the next attempt starts; the
    /// response is dropped once this is ready, or when the deadline of a [detailed](crate::RetryLayer::detailed)
    /// call passes. HTTP policies empty a failed response's body here, so that its connection can be used again.
    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        let _ = (response, cx);
        Poll::Ready(())
    }

    /// The retry that was decided after `attempt` cannot be made, as what is [kept](Keep::take_over) cannot be sent again after all: the call ends
    /// with `outcome`, as [`StopReason::NotReplayable`].
    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<Res, E>) {
        let _ = (attempt, outcome);
    }

    /// The service could not be made ready for another attempt, which ends the call with `error`.
    fn not_ready(&mut self, attempt: &Attempt, error: &E) {
        let _ = (attempt, error);
    }

    /// The deadline cut `attempt` short, or passed before it could be made. This happens only in a
    /// [detailed](crate::RetryLayer::detailed) layer, which has an error to say it with.
    fn timed_out(&mut self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// How long the whole call may take, attempts and waits together; `None` for no limit.
    fn timeout(&self) -> Option<Duration> {
        None
    }

    /// Whether [`decide`](Policy::decide) looks at elapsed time. A policy that does not is spared the reading
    /// of the clock: [`Attempt::elapsed`] is zero for it.
    fn is_timed(&self) -> bool {
        true
    }
}

/// What a [`Policy`] makes of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The outcome is what the caller wanted: hand it back.
    Return,
    /// Try again after a pause, which may be zero.
    Retry {
        /// The pause between this attempt and the next.
        after: Duration,
    },
    /// The outcome is a failure and there will be no further attempt: hand it back, and say why.
    GiveUp(StopReason),
}

/// Why a call that failed was not tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopReason {
    /// The failure is of a kind that another attempt does not cure.
    Permanent,
    /// The failure could be retried, but the stop condition was met.
    Exhausted,
    /// The wait for another attempt would have ended at or past the deadline, or the deadline cut an attempt short.
    Deadline,
    /// The server asked for a longer pause than the policy, or the time left, allows.
    ServerDelay {
        /// What the server asked for.
        asked: Duration,
    },
    /// Nothing was sent, and nothing is to be for longer than the policy, or the time left, allows: a circuit is open.
    HeldBack {
        /// For how long.
        delay: Duration,
    },
    /// The request could not be kept for another attempt, or what was kept of it cannot be sent again.
    NotReplayable,
    /// The server may have seen the request, which must not be carried out twice.
    NotIdempotent,
    /// The retries of all callers together have used up their [`budget`].
    Budget,
    /// The service could not be made ready for another attempt.
    NotReady,
    /// A custom policy's own reason.
    Other(&'static str),
}

impl StopReason {
    /// One word for events and metrics, in snake case; that of [`Other`](Self::Other) is its text.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Permanent => "permanent",
            Self::Exhausted => "exhausted",
            Self::Deadline => "deadline",
            Self::ServerDelay { .. } => "server_delay",
            Self::HeldBack { .. } => "held_back",
            Self::NotReplayable => "not_replayable",
            Self::NotIdempotent => "not_idempotent",
            Self::Budget => "budget",
            Self::NotReady => "not_ready",
            Self::Other(reason) => reason,
        }
    }
}

impl std::fmt::Display for StopReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ServerDelay { asked } => {
                return write!(
                    f,
                    "the server asks for a pause of {:?}, which is too long",
                    crate::error::rounded(*asked)
                );
            }
            Self::HeldBack { delay } => {
                return write!(
                    f,
                    "no attempt is to be made for {:?}, which is too long",
                    crate::error::rounded(*delay)
                );
            }
            Self::Permanent => "the failure is permanent",
            Self::Exhausted => "the attempts are exhausted",
            Self::Deadline => "out of time",
            Self::NotReplayable => "the request cannot be sent again",
            Self::NotIdempotent => "the request must not be carried out twice",
            Self::Budget => "the retry budget is used up",
            Self::NotReady => "the service did not become ready again",
            Self::Other(reason) => reason,
        })
    }
}
