use std::{fmt, marker::PhantomData};

use super::{Class, Classify, ErrorChain, Or};
use crate::{circuit_breaker::CircuitOpen, cooldown::CoolingDown};

/// Calls that a [circuit](crate::circuit_breaker) or a [cool-down](crate::cooldown) refused; no opinion on others.
///
/// A policy around one of these layers has to know them, before its other classifier, or it tries again what is refused again. The ready-made
/// policies for HTTP, gRPC and Gemini do.
///
/// * An open circuit: [never sent](Class::Unsent), and to be tried again when the next probe is due. As nothing was sent, it does not matter
///   whether the request may be carried out twice.
/// * A cool-down: [throttled](Class::Throttled) for as long as is left, or [permanent](Class::Permanent) where the quota is used up or the
///   deadline of the call has passed.
///
/// The retry waits for that long, or gives up at once if that is past its deadline or longer than its
/// [longest pause](crate::RetryPolicy::max_server_delay). **Where callers should rather hear of it at once**, take refusals for permanent:
/// `classify::permanent_if(classify::error_type::<CircuitOpen, _>())` before the rest.
///
/// The error may be any [`Error`](std::error::Error), or a boxed one as those layers return it; the parameter is always inferred.
///
/// ```
/// use std::time::Duration;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use tower_tenacity::{RetryLayer, RetryPolicy, classify, wait};
/// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
/// let policy = RetryPolicy::new()
///     .wait(wait::fixed(Duration::from_millis(100)))
///     .classify(classify::refusals().or(classify::retry_if(classify::error_message("down"))));
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
pub const fn refusals<M>() -> Refusals<M> {
    Refusals { marker: PhantomData }
}

/// Finds the calls that a layer of this crate refused; made by [`refusals`].
pub struct Refusals<M> {
    marker: PhantomData<fn() -> M>,
}

impl<M> Refusals<M> {
    /// Asks another classifier where this one has no opinion.
    #[must_use]
    pub const fn or<C>(self, other: C) -> Or<Self, C> {
        Or::new(self, other)
    }
}

impl<Res, M, E: ErrorChain<M>> Classify<Res, E> for Refusals<M> {
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        let error = outcome.as_ref().err()?.outermost();
        let open = CircuitOpen::find(error).map(CircuitOpen::class);
        open.or_else(|| CoolingDown::find(error).map(CoolingDown::class))
    }

    #[inline]
    fn ignores(&self, _: &Res) -> bool {
        true
    }
}

impl<M> Clone for Refusals<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Refusals<M> {}

impl<M> fmt::Debug for Refusals<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refusals")
    }
}
