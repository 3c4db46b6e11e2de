use std::{
    future::Future,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{Plain, ResponseFuture, future::Source};
use crate::policy::{Attempt, Decision, Keep, Policy, RetryPolicy};

/// Calls `f(attempt)` until `policy` is content with the outcome: retries for code that is no service.
///
/// The policy is one for requests of type [`Attempt`]; every [`RetryPolicy`] and
/// [`BoxPolicy`](crate::BoxPolicy) is.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// use tower_tenacity::RetryPolicy;
///
/// let row = tower_tenacity::retry::run(RetryPolicy::new(), |attempt| async move {
///     if attempt.number() < 3 { Err("connection reset") } else { Ok("row") }
/// }).await;
/// assert_eq!(row, Ok("row"));
/// # }
/// ```
///
/// # Errors
/// The last error of `f`, unchanged.
///
/// # Panics
/// When a wait is due outside of a tokio runtime with time enabled.
pub async fn run<P, F, Fut, T, E>(policy: P, f: F) -> Result<T, E>
where
    P: Policy<Attempt, T, E> + Clone,
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    ResponseFuture::<_, _, _, Plain>::start(&Numbered(policy), Attempt::new(1), Attempts(f)).await
}

impl<S, W, C, H, K, B> RetryPolicy<S, W, C, H, K, B> {
    /// Calls `f(attempt)` until this policy is content with the outcome: retries for code that is no service.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// use tower_tenacity::RetryPolicy;
    ///
    /// let row = RetryPolicy::new().run(|attempt| async move {
    ///     if attempt.number() < 3 { Err("connection reset") } else { Ok("row") }
    /// }).await;
    /// assert_eq!(row, Ok("row"));
    /// # }
    /// ```
    ///
    /// # Errors
    /// The last error of `f`, unchanged.
    ///
    /// # Panics
    /// When a wait is due outside of a tokio runtime with time enabled.
    pub fn run<F, Fut, T, E>(&self, f: F) -> impl Future<Output = Result<T, E>> + use<S, W, C, H, K, B, F, Fut, T, E>
    where
        Self: Policy<Attempt, T, E> + Clone,
        F: FnMut(Attempt) -> Fut,
        Fut: Future<Output = Result<T, E>>,
    {
        run(self.clone(), f)
    }
}

// The closure as a service that is always ready.
struct Attempts<F>(F);

impl<F, Fut, T, E> Service<Attempt> for Attempts<F>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Response = T;
    type Error = E;
    type Future = Fut;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, attempt: Attempt) -> Fut {
        (self.0)(attempt)
    }
}

impl<F, Fut, T, E> Source<Self, Attempt> for Attempts<F>
where
    F: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    fn call(&mut self, attempt: Attempt) -> Fut {
        (self.0)(attempt)
    }

    fn spare(self) -> Self {
        self
    }
}

// Makes the request of each attempt say which one it is.
#[derive(Clone)]
struct Numbered<P>(P);

impl<P, T, E> Policy<Attempt, T, E> for Numbered<P>
where
    P: Policy<Attempt, T, E> + Clone,
{
    type Keep = P::Keep;

    fn keep(&self) -> P::Keep {
        self.0.keep()
    }

    fn decide(
        &mut self,
        attempt: &Attempt,
        kept: Option<&mut <P::Keep as Keep<Attempt>>::Kept>,
        outcome: &mut Result<T, E>,
    ) -> Decision {
        self.0.decide(attempt, kept, outcome)
    }

    fn accepts(&mut self, response: &T) -> bool {
        self.0.accepts(response)
    }

    fn begin(&self, request: &Attempt) -> Self {
        Self(self.0.begin(request))
    }

    fn poll_drain(&mut self, response: &mut T, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_drain(response, cx)
    }

    fn may_retry(&self, number: u32) -> bool {
        self.0.may_retry(number)
    }

    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Attempt) {
        *request = *attempt;
        self.0.before_attempt(attempt, request);
    }

    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<T, E>) {
        self.0.not_replayable(attempt, outcome);
    }

    fn not_ready(&mut self, attempt: &Attempt, error: &E) {
        self.0.not_ready(attempt, error);
    }

    fn timed_out(&mut self, attempt: &Attempt) {
        self.0.timed_out(attempt);
    }

    fn timeout(&self) -> Option<Duration> {
        self.0.timeout()
    }

    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }
}
