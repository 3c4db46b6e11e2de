use std::sync::Arc;

use tower_layer::Layer;

use super::{BreakerPolicy, CircuitBreaker, Handle, State, circuits::Single};
use crate::policy::classify::Errors;

/// Guards services with one circuit, or with one for each key; see the [module](crate::circuit_breaker).
///
/// The circuit belongs to the layer: all services made from it or from its clones share it.
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C = Errors, K = Single> {
    classify: C,
    circuits: K,
}

impl CircuitBreakerLayer {
    /// One circuit, in which every error is a failure.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { classify: Errors, circuits: Single::new(policy) }
    }
}

impl<C, K> CircuitBreakerLayer<C, K> {
    /// What an outcome means; takes whatever a [retry policy](crate::RetryPolicy::classify) takes. Default: every error is
    /// transient.
    ///
    /// | class | for the circuit |
    /// |---|---|
    /// | transient, never sent | a failure |
    /// | success, permanent | a success: the service answered, and knew what it could not do |
    /// | throttled | nothing: it says how much the caller sends, not how well the service is. A probe that is throttled gives its permit to the next call |
    ///
    /// Where the classifier has no opinion, `Ok` is a success and `Err` is permanent.
    ///
    /// ```
    /// use tower_tenacity::{circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, classify};
    ///
    /// let failed = classify::retry_if(classify::on_response(|status: &u16| *status >= 500));
    /// let layer = CircuitBreakerLayer::new(BreakerPolicy::new()).classify(failed.or(classify::errors()));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn classify<C2>(self, classify: C2) -> CircuitBreakerLayer<C2, K> {
        CircuitBreakerLayer { classify, circuits: self.circuits }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// A look at the circuit, and a hand on it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.circuits.handle()
    }

    /// Calls `f(from, to)` whenever the circuit changes its state. Listeners add up.
    ///
    /// It is called by whoever caused the change, often in the middle of a poll, so it should be quick. It may
    /// use a [`Handle`]. When two changes follow each other closely in two threads, the later one may be told first.
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    /// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, State};
    ///
    /// let log = Arc::new(Mutex::new(Vec::new()));
    /// let seen = log.clone();
    /// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new())
    ///     .on_transition(move |from, to| seen.lock().unwrap().push((from, to)));
    /// breaker.handle().force_open();
    /// assert_eq!(*log.lock().unwrap(), [(State::Closed, State::ForcedOpen)]);
    /// ```
    #[must_use]
    pub fn on_transition<F>(self, f: F) -> Self
    where
        F: Fn(State, State) + Send + Sync + 'static,
    {
        self.circuits.listen(Arc::new(f));
        self
    }
}

impl<C: Clone, K: Clone, S> Layer<S> for CircuitBreakerLayer<C, K> {
    type Service = CircuitBreaker<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::with_circuits(inner, self.classify.clone(), self.circuits.clone())
    }
}
