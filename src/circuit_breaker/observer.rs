use super::{CircuitOpen, State};

/// Is told what circuits do, without the keys they have; see [`observe`](super::CircuitBreakerLayer::observe).
///
/// Every method does nothing by default. They are called by whoever caused what they tell, often in the middle of a poll, so
/// they should be quick. No lock is held meanwhile: they may use a [`Handle`](super::Handle).
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicU32, Ordering::Relaxed}};
/// use tower::{BoxError, Service, ServiceExt, service_fn};
/// use tower_layer::Layer;
/// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, CircuitOpen, Observer};
///
/// #[derive(Clone, Default)]
/// struct Refusals(Arc<AtomicU32>);
///
/// impl Observer for Refusals {
///     fn refused(&self, _: &CircuitOpen) {
///         self.0.fetch_add(1, Relaxed);
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let refusals = Refusals::default();
/// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new()).observe(refusals.clone());
/// breaker.handle().force_open();
/// let mut service = breaker.layer(service_fn(|_: ()| async { Ok::<_, BoxError>(()) }));
/// service.ready().await?.call(()).await.unwrap_err();
/// assert_eq!(refusals.0.load(Relaxed), 1);
/// # Ok(()) }
/// ```
pub trait Observer: Send + Sync {
    /// A circuit changed its state. Changes are told in the order in which they happen, one after the other; one that happens while another is
    /// told, by whoever tells of that.
    fn changed(&self, from: State, to: State) {
        let _ = (from, to);
    }

    /// A call was refused.
    fn refused(&self, error: &CircuitOpen) {
        let _ = error;
    }

    /// A circuit is gone that was in this state: nobody uses it any more, or its [key](super::CircuitBreakerLayer::per) was
    /// forgotten.
    fn gone(&self, state: State) {
        let _ = state;
    }
}

/// A closure that is told of changes.
pub(super) struct OnTransition<F>(pub(super) F);

impl<F: Fn(State, State) + Send + Sync> Observer for OnTransition<F> {
    fn changed(&self, from: State, to: State) {
        (self.0)(from, to);
    }
}
