use std::{fmt, marker::PhantomData};

use super::CircuitOpen;
use crate::policy::classify::{Class, Classify, ErrorChain, Or};

/// Calls that a circuit refused were [never sent](Class::Unsent) and may be tried again when the next probe is due; no
/// opinion on others.
///
/// For the policy of a retry layer around the breaker, before its other classifier. As nothing was sent, it does not matter
/// whether the request may be carried out twice. The retry waits until the probe is due, or gives up at once if that is
/// past its deadline. The error may be any [`Error`](std::error::Error), or a boxed one as the breaker returns it; the
/// parameter is always inferred.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_tenacity::{RetryLayer, RetryPolicy, classify, wait};
/// use tower_tenacity::circuit_breaker::{self, BreakerPolicy, CircuitBreakerLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let policy = RetryPolicy::new()
///     .wait(wait::fixed(Duration::from_millis(100)))
///     .classify(circuit_breaker::classify().or(classify::retry_if(classify::error_message("down"))));
/// # let begun = tokio::time::Instant::now();
/// let service = ServiceBuilder::new()
///     .layer(RetryLayer::new(policy))
///     .layer(CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(1)?))
///     // Down for the first second.
///     .service(service_fn(move |_: ()| async move {
/// #       if begun.elapsed().as_secs() > 0 { return Ok("up") }
///         Err("down")
///     }));
/// // Down, refused 100 ms later, and then tried again when the probe is due.
/// assert_eq!(service.oneshot(()).await?, "up");
/// # assert!(begun.elapsed().as_secs() >= 5);
/// # Ok(()) }
/// ```
#[must_use]
pub const fn classify<M>() -> Classifier<M> {
    Classifier { marker: PhantomData }
}

/// Finds the calls that a circuit refused; made by [`classify`].
pub struct Classifier<M> {
    marker: PhantomData<fn() -> M>,
}

impl<M> Classifier<M> {
    /// Asks another classifier where this one has no opinion.
    #[must_use]
    pub const fn or<C>(self, other: C) -> Or<Self, C> {
        Or::new(self, other)
    }
}

impl<Res, M, E: ErrorChain<M>> Classify<Res, E> for Classifier<M> {
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        CircuitOpen::find(outcome.as_ref().err()?.outermost()).map(CircuitOpen::class)
    }

    #[inline]
    fn ignores(&self, _: &Res) -> bool {
        true
    }
}

impl<M> Clone for Classifier<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Classifier<M> {}

impl<M> fmt::Debug for Classifier<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Classifier")
    }
}
