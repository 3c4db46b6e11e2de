use std::{hash::Hash, num::NonZeroUsize, sync::Arc};

use tower_layer::Layer;

use super::{
    BreakerPolicy, CircuitBreaker, Everyone, Handle, LeakedCircuit, Observer, Per, State, observer::OnTransition,
};
use crate::policy::classify::Errors;

/// Guards services with one circuit, or with one for each key; see the [module](crate::circuit_breaker).
///
/// The circuit belongs to the layer: all services made from it or from its clones share it.
#[derive(Clone, Debug)]
pub struct CircuitBreakerLayer<C = Errors, K = Everyone> {
    classify: C,
    circuits: K,
}

impl CircuitBreakerLayer {
    /// One circuit, in which every error is a failure.
    #[must_use]
    pub fn new(policy: BreakerPolicy) -> Self {
        Self { classify: Errors, circuits: Everyone::new(policy) }
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
    /// An HTTP request whose own body failed, as that of a client who leaves in the middle of an upload, counts as dropped.
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
    /// It is called by whoever caused the change, often in the middle of a poll, so it should be quick; or, where another change is being
    /// told, by whoever tells of that, so that each comes in its turn. It may use a [`Handle`].
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
        self.circuits.observe(Arc::new(OnTransition(f)));
        self
    }

    /// Tells `observer` what the circuit does: [`BreakerMetrics`](crate::telemetry), or your own [`Observer`].
    /// Observers add up. Set before the first call, it sees everything.
    #[must_use]
    pub fn observe<O: Observer + 'static>(self, observer: O) -> Self {
        self.circuits.observe(Arc::new(observer));
        self
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Gives each key a circuit of its own: by host, model, tenant. The closure's argument has its type written. Default:
    /// one circuit for all.
    ///
    /// The key is made for every call, and its circuit is looked up under a short lock. At most 1024 circuits are kept
    /// ([`max_keys`](CircuitBreakerLayer::max_keys)). Room for a new one is made by forgetting the one that was asked for least
    /// recently among those that are closed, or whose time to stay open has passed twice. Where there is none,
    /// calls with a new key pass as they would without this layer. Circuits that are in force, have a call under way or
    /// a [`Handle`] are never given up for a newcomer: a stranger who makes up keys could otherwise close them all.
    ///
    /// [Listeners](Self::on_transition) and [observers](Self::observe) stay; a handle from before this setting is left to others.
    ///
    /// ```
    /// use tower::{BoxError, Service, ServiceExt, service_fn};
    /// use tower_layer::Layer;
    /// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, State};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
    /// struct Job { host: &'static str }
    ///
    /// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(1)?).per(|job: &Job| job.host);
    /// let mut service = breaker.layer(service_fn(|job: Job| async move {
    ///     if job.host == "up" { Ok("done") } else { Err("no answer") }
    /// }));
    /// service.ready().await?.call(Job { host: "down" }).await.unwrap_err();
    /// service.ready().await?.call(Job { host: "up" }).await?;
    /// assert_eq!(breaker.handle("down").state(), State::Open);
    /// assert_eq!(breaker.handle("up").state(), State::Closed);
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn per<Req, K, F>(self, key: F) -> CircuitBreakerLayer<C, Per<F, K>>
    where
        F: Fn(&Req) -> K,
        K: Clone + Eq + Hash + Send + Sync + 'static,
    {
        CircuitBreakerLayer { classify: self.classify, circuits: self.circuits.per(key) }
    }
}

impl<C> CircuitBreakerLayer<C> {
    /// Lets the circuit live as long as the program, so that calls need not count who holds it; see [`hold`](crate::hold). It stays the same circuit:
    /// layers, services and handles from before share it. Default: it goes with the last layer, service, handle and call.
    #[must_use]
    pub fn leak(self) -> CircuitBreakerLayer<C, LeakedCircuit> {
        CircuitBreakerLayer { classify: self.classify, circuits: self.circuits.leak() }
    }
}

impl<C> CircuitBreakerLayer<C, LeakedCircuit> {
    /// A look at the circuit, and a hand on it.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.circuits.handle()
    }
}

impl<C, F, K> CircuitBreakerLayer<C, Per<F, K>>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    /// A look at the circuit of `key`, and a hand on it. It is made if there is none, and kept at least as long as the handle. Where there is
    /// no room for another [key](Self::max_keys), it is one that no call uses.
    #[must_use]
    pub fn handle(&self, key: K) -> Handle {
        Handle::new(self.circuits.circuit(key))
    }

    /// The circuits that there are, each with its key, in no order: for whoever shows them.
    ///
    /// ```
    /// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, State};
    ///
    /// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new()).per(|url: &(&'static str, u16)| url.0);
    /// breaker.handle("example.com").force_open();
    /// for (host, handle) in breaker.handles() {
    ///     assert_eq!((host, handle.state()), ("example.com", State::ForcedOpen));
    /// }
    /// ```
    #[must_use]
    pub fn handles(&self) -> Vec<(K, Handle)> {
        self.circuits.handles()
    }

    /// How many keys have a circuit.
    #[must_use]
    pub fn keys(&self) -> usize {
        self.circuits.len()
    }

    /// How many keys can have a circuit. Default: 1024; [`per`](CircuitBreakerLayer::per) says what happens beyond. The
    /// circuits that there are before this setting are left to others.
    #[must_use]
    pub fn max_keys(self, keys: NonZeroUsize) -> Self {
        Self { classify: self.classify, circuits: self.circuits.max_keys(keys) }
    }

    /// Calls `f(key, from, to)` whenever the circuit of a key changes its state. Listeners add up.
    ///
    /// It is called by whoever caused the change, often in the middle of a poll, so it should be quick; or, where another change is being
    /// told, by whoever tells of that, so that each comes in its turn. It may use a [`Handle`].
    #[must_use]
    pub fn on_transition<L>(self, f: L) -> Self
    where
        L: Fn(&K, State, State) + Send + Sync + 'static,
    {
        self.circuits.listen(f);
        self
    }

    /// Tells `observer` what the circuits of all keys do: [`BreakerMetrics`](crate::telemetry), or your own [`Observer`].
    /// Observers add up. Set before the first call, it sees everything.
    #[must_use]
    pub fn observe<O: Observer + 'static>(self, observer: O) -> Self {
        self.circuits.observe(Arc::new(observer));
        self
    }
}

impl<C: Clone, K: Clone, S> Layer<S> for CircuitBreakerLayer<C, K> {
    type Service = CircuitBreaker<S, C, K>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::with_circuits(inner, self.classify.clone(), self.circuits.clone())
    }
}
