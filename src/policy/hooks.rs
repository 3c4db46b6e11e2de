//! What a [`RetryPolicy`](super::RetryPolicy) calls on its way: to be seen, and to change what is sent.
//!
//! Per failed attempt the order is tenacity's: `after_attempt`, then the wait and the stop condition are
//! worked out, then `before_sleep`, the pause, and `before_attempt` of the next one. `after_attempt`
//! runs for every failure that is retryable by kind, also for the last one; `gave_up` and `succeeded` end the story.
//!
//! One of them is a closure passed to [`RetryPolicy`](super::RetryPolicy), with the types of its arguments written;
//! several are an [`Observer`]:
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//! use tower_tenacity::{Attempt, RetryPolicy, wait};
//! use tower_tenacity::hooks::{Delay, Observer};
//!
//! #[derive(Clone, Default)]
//! struct Log(Arc<Mutex<Vec<String>>>);
//!
//! impl<Res, E: std::fmt::Display> Observer<Res, E> for Log {
//!     fn before_sleep(&self, attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay) {
//!         let why = outcome.as_ref().err().map(ToString::to_string).unwrap_or_default();
//!         self.0.lock().unwrap().push(format!("{}: {why}, again in {:?}", attempt.number(), delay.duration()));
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let log = Log::default();
//! let policy = RetryPolicy::new().wait(wait::fixed(Duration::from_secs(1))).observe(log.clone());
//! let answer = policy.run(|attempt| async move {
//!     if attempt.number() < 3 { Err("busy") } else { Ok(42) }
//! }).await;
//! assert_eq!(answer, Ok(42));
//! assert_eq!(*log.0.lock().unwrap(), ["1: busy, again in 1s", "2: busy, again in 1s"]);
//! # }
//! ```

use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use super::{Attempt, CallOptions, StopReason, classify::Class};

/// The pause before the next attempt, and who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    duration: Duration,
    hint: Option<Duration>,
    class: Class,
}

impl Delay {
    pub(crate) const fn new(duration: Duration, hint: Option<Duration>, class: Class) -> Self {
        Self { duration, hint, class }
    }

    /// What the failure was that made the pause necessary.
    #[must_use]
    pub const fn class(&self) -> Class {
        self.class
    }

    /// How long the pause is.
    #[must_use]
    pub const fn duration(&self) -> Duration {
        self.duration
    }

    /// What the server asked for, if the pause was dictated by it. The pause is never shorter than this.
    #[must_use]
    pub const fn server_hint(&self) -> Option<Duration> {
        self.hint
    }
}

/// Watches calls without changing them: a log, a counter, a record of what happened.
///
/// Every method does nothing by default. Each call ends in exactly one of `succeeded`, `gave_up`, `not_ready` and
/// `timed_out`, unless its future is dropped.
pub trait Observer<Res, E> {
    /// An attempt is about to be made.
    fn before_attempt(&self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// An attempt ended in a failure that is retryable by kind.
    fn after_attempt(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        let _ = (attempt, outcome);
    }

    /// There will be another attempt, after `delay`, which may be zero.
    fn before_sleep(&self, attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay) {
        let _ = (attempt, outcome, delay);
    }

    /// The call ends with the failure `outcome`.
    fn gave_up(&self, attempt: &Attempt, outcome: &Result<Res, E>, reason: StopReason) {
        let _ = (attempt, outcome, reason);
    }

    /// The call ends because the service could not be made ready for `attempt`.
    fn not_ready(&self, attempt: &Attempt, error: &E) {
        let _ = (attempt, error);
    }

    /// The call ends because its deadline passed during `attempt`; only in a
    /// [detailed](crate::RetryLayer::detailed) layer.
    fn timed_out(&self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// The call ends with a success.
    fn succeeded(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        let _ = (attempt, outcome);
    }
}

/// All that a policy calls on its way. Users implement [`Observer`] or pass closures to
/// [`RetryPolicy`](super::RetryPolicy); this trait is what those are put together by.
pub trait Hooks<Req, Kept, Res, E> {
    /// Settings that come with the request.
    fn options(&self, request: &Req, options: &mut CallOptions) {
        let _ = (request, options);
    }

    /// Changes the request that is about to be sent.
    fn before_attempt(&self, attempt: &Attempt, request: &mut Req) {
        let _ = (attempt, request);
    }

    /// Changes what later attempts are made from, in the light of a failure.
    fn amend(&self, attempt: &Attempt, kept: &mut Kept, outcome: &Result<Res, E>) {
        let _ = (attempt, kept, outcome);
    }

    /// See [`Observer::after_attempt`].
    fn after_attempt(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        let _ = (attempt, outcome);
    }

    /// See [`Observer::before_sleep`].
    fn before_sleep(&self, attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay) {
        let _ = (attempt, outcome, delay);
    }

    /// See [`Observer::gave_up`].
    fn gave_up(&self, attempt: &Attempt, outcome: &Result<Res, E>, reason: StopReason) {
        let _ = (attempt, outcome, reason);
    }

    /// See [`Policy::poll_drain`](super::Policy::poll_drain). Asked until all hooks are ready for the same poll: where a later one is
    /// not, this may be asked again after it was ready.
    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        let _ = (response, cx);
        Poll::Ready(())
    }

    /// See [`Observer::not_ready`].
    fn not_ready(&self, attempt: &Attempt, error: &E) {
        let _ = (attempt, error);
    }

    /// See [`Observer::timed_out`].
    fn timed_out(&self, attempt: &Attempt) {
        let _ = attempt;
    }

    /// See [`Observer::succeeded`].
    fn succeeded(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        let _ = (attempt, outcome);
    }

    /// Whether any of them looks at the time.
    fn is_timed(&self) -> bool {
        true
    }

    /// Whether any of them is to be told of successes.
    fn sees_success(&self) -> bool {
        true
    }
}

/// No hooks.
impl<Req, Kept, Res, E> Hooks<Req, Kept, Res, E> for () {
    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}

/// The left hooks, then the right ones.
impl<A, B, Req, Kept, Res, E> Hooks<Req, Kept, Res, E> for (A, B)
where
    A: Hooks<Req, Kept, Res, E>,
    B: Hooks<Req, Kept, Res, E>,
{
    #[inline]
    fn options(&self, request: &Req, options: &mut CallOptions) {
        self.0.options(request, options);
        self.1.options(request, options);
    }

    #[inline]
    fn before_attempt(&self, attempt: &Attempt, request: &mut Req) {
        self.0.before_attempt(attempt, request);
        self.1.before_attempt(attempt, request);
    }

    fn amend(&self, attempt: &Attempt, kept: &mut Kept, outcome: &Result<Res, E>) {
        self.0.amend(attempt, kept, outcome);
        self.1.amend(attempt, kept, outcome);
    }

    fn after_attempt(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.0.after_attempt(attempt, outcome);
        self.1.after_attempt(attempt, outcome);
    }

    fn before_sleep(&self, attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay) {
        self.0.before_sleep(attempt, outcome, delay);
        self.1.before_sleep(attempt, outcome, delay);
    }

    fn gave_up(&self, attempt: &Attempt, outcome: &Result<Res, E>, reason: StopReason) {
        self.0.gave_up(attempt, outcome, reason);
        self.1.gave_up(attempt, outcome, reason);
    }

    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        std::task::ready!(self.0.poll_drain(response, cx));
        self.1.poll_drain(response, cx)
    }

    fn not_ready(&self, attempt: &Attempt, error: &E) {
        self.0.not_ready(attempt, error);
        self.1.not_ready(attempt, error);
    }

    fn timed_out(&self, attempt: &Attempt) {
        self.0.timed_out(attempt);
        self.1.timed_out(attempt);
    }

    fn succeeded(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.0.succeeded(attempt, outcome);
        self.1.succeeded(attempt, outcome);
    }

    fn is_timed(&self) -> bool {
        self.0.is_timed() || self.1.is_timed()
    }

    fn sees_success(&self) -> bool {
        self.0.sees_success() || self.1.sees_success()
    }
}

/// An [`Observer`] among the hooks; see [`RetryPolicy::observe`](super::RetryPolicy::observe).
#[derive(Clone, Copy, Debug)]
pub struct Observed<O>(pub(super) O);

impl<O, Req, Kept, Res, E> Hooks<Req, Kept, Res, E> for Observed<O>
where
    O: Observer<Res, E>,
{
    fn before_attempt(&self, attempt: &Attempt, _: &mut Req) {
        self.0.before_attempt(attempt);
    }

    fn after_attempt(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.0.after_attempt(attempt, outcome);
    }

    fn before_sleep(&self, attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay) {
        self.0.before_sleep(attempt, outcome, delay);
    }

    fn gave_up(&self, attempt: &Attempt, outcome: &Result<Res, E>, reason: StopReason) {
        self.0.gave_up(attempt, outcome, reason);
    }

    fn not_ready(&self, attempt: &Attempt, error: &E) {
        self.0.not_ready(attempt, error);
    }

    fn timed_out(&self, attempt: &Attempt) {
        self.0.timed_out(attempt);
    }

    fn succeeded(&self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.0.succeeded(attempt, outcome);
    }
}

// One closure as one hook: the type, its `Debug`, and the method it stands for.
macro_rules! closure_hook {
    ($(#[$doc:meta])* $name:ident, $bound:path, fn $method:ident($($arg:ident: $ty:ty),*)) => {
        $(#[$doc])*
        #[derive(Clone, Copy)]
        pub struct $name<F>(pub(super) F);

        impl<F> fmt::Debug for $name<F> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&std::any::type_name::<F>()).finish()
            }
        }

        impl<F, Req, Kept, Res, E> Hooks<Req, Kept, Res, E> for $name<F>
        where
            F: $bound,
        {
            fn $method(&self, $($arg: $ty),*) {
                (self.0)($($arg),*);
            }

            fn sees_success(&self) -> bool {
                false
            }
        }
    };
}

closure_hook!(
    /// See [`RetryPolicy::before_attempt`](super::RetryPolicy::before_attempt).
    BeforeAttempt, Fn(&Attempt, &mut Req),
    fn before_attempt(attempt: &Attempt, request: &mut Req)
);
closure_hook!(
    /// See [`RetryPolicy::amend`](super::RetryPolicy::amend).
    Amend, Fn(&Attempt, &mut Kept, &Result<Res, E>),
    fn amend(attempt: &Attempt, kept: &mut Kept, outcome: &Result<Res, E>)
);
closure_hook!(
    /// See [`RetryPolicy::after_attempt`](super::RetryPolicy::after_attempt).
    AfterAttempt, Fn(&Attempt, &Result<Res, E>),
    fn after_attempt(attempt: &Attempt, outcome: &Result<Res, E>)
);
closure_hook!(
    /// See [`RetryPolicy::before_sleep`](super::RetryPolicy::before_sleep).
    BeforeSleep, Fn(&Attempt, &Result<Res, E>, &Delay),
    fn before_sleep(attempt: &Attempt, outcome: &Result<Res, E>, delay: &Delay)
);
closure_hook!(
    /// See [`RetryPolicy::on_give_up`](super::RetryPolicy::on_give_up).
    OnGiveUp, Fn(&Attempt, &Result<Res, E>, StopReason),
    fn gave_up(attempt: &Attempt, outcome: &Result<Res, E>, reason: StopReason)
);

/// See [`RetryPolicy::per_request`](super::RetryPolicy::per_request).
#[derive(Clone, Copy)]
pub struct PerRequest<F>(pub(super) F);

impl<F> fmt::Debug for PerRequest<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PerRequest").field(&std::any::type_name::<F>()).finish()
    }
}

impl<F, Req, Kept, Res, E> Hooks<Req, Kept, Res, E> for PerRequest<F>
where
    F: Fn(&Req) -> CallOptions,
{
    fn options(&self, request: &Req, options: &mut CallOptions) {
        options.overlay((self.0)(request));
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}
