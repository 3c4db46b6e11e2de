use std::{fmt, hash::Hash, marker::PhantomData, num::NonZeroUsize, ops::Deref, sync::Arc};

use super::{BreakerPolicy, CircuitOpen, Handle, Observer, State, shared::Shared};
use crate::{
    hold::{Counted, Counting, Hold, Leaked},
    keyed::{DEFAULT_KEYS, Keyed},
    telemetry::Observers,
    threads::places,
};

/// Which circuit a request belongs to: [`Everyone`]'s, [leaked](super::CircuitBreakerLayer::leak) or not, or one [`Per`] key. Sealed.
pub trait Circuits<Req>: sealed::Sealed {
    /// What a call holds its circuit by.
    #[doc(hidden)]
    type Hold: Deref<Target = Shared>;
    #[doc(hidden)]
    fn is_gated(&self) -> bool;
    #[doc(hidden)]
    fn pick(&mut self, request: &Req) -> Self::Hold;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Everyone {}
    impl Sealed for super::LeakedCircuit {}
    impl<F, K> Sealed for super::Per<F, K> {}
}

/// One circuit for all requests.
#[derive(Clone, Debug)]
pub struct Everyone {
    policy: BreakerPolicy,
    circuit: Counted<Shared>,
}

/// One circuit for all requests, which lives as long as the program; made by [`leak`](super::CircuitBreakerLayer::leak).
#[derive(Clone, Copy, Debug)]
pub struct LeakedCircuit(Leaked<Arc<Shared>>);

impl Everyone {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, circuit: Counted::new(Arc::new(Shared::new(policy, places()))) }
    }

    pub(super) fn handle(&self) -> Handle {
        Handle::new(self.circuit.shared().clone())
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.circuit.get().observe(observer);
    }

    pub(super) fn leak(self) -> LeakedCircuit {
        LeakedCircuit(Leaked::new(self.circuit.shared().clone()))
    }

    pub(super) fn per<F, K: Eq + Hash>(self, key: F) -> Per<F, K> {
        let observers = Observers::<dyn KeyObserver<K>>::default();
        for observer in self.circuit.get().observers().iter() {
            observers.add(Arc::new(Keyless(observer.clone())));
        }
        Per {
            key,
            store: Arc::new(Store {
                policy: self.policy,
                circuits: Keyed::new(DEFAULT_KEYS),
                observers: Arc::new(observers),
            }),
            marker: PhantomData,
        }
    }
}

impl<Req> Circuits<Req> for Everyone {
    type Hold = Counting<Shared>;

    #[inline]
    fn is_gated(&self) -> bool {
        self.circuit.get().era().is_gated()
    }

    #[inline]
    fn pick(&mut self, _: &Req) -> Counting<Shared> {
        self.circuit.call()
    }
}

impl LeakedCircuit {
    pub(super) fn handle(&self) -> Handle {
        Handle::new(Arc::clone(&self.0))
    }
}

impl<Req> Circuits<Req> for LeakedCircuit {
    type Hold = &'static Shared;

    #[inline]
    fn is_gated(&self) -> bool {
        self.0.era().is_gated()
    }

    #[inline]
    fn pick(&mut self, _: &Req) -> &'static Shared {
        self.0.for_good()
    }
}

/// A circuit of its own for each key.
pub struct Per<F, K> {
    key: F,
    store: Arc<Store<K>>,
    marker: PhantomData<fn() -> K>,
}

struct Store<K> {
    policy: BreakerPolicy,
    circuits: Keyed<K, Shared>,
    observers: Arc<Observers<dyn KeyObserver<K>>>,
}

/// An [`Observer`] of many circuits.
trait KeyObserver<K>: Send + Sync {
    fn changed(&self, key: &K, from: State, to: State);
    fn refused(&self, _: &CircuitOpen) {}
    fn gone(&self, _: State) {}
}

// One that is not told the key.
struct Keyless(Arc<dyn Observer>);

impl<K> KeyObserver<K> for Keyless {
    fn changed(&self, _: &K, from: State, to: State) {
        self.0.changed(from, to);
    }

    fn refused(&self, error: &CircuitOpen) {
        self.0.refused(error);
    }

    fn gone(&self, state: State) {
        self.0.gone(state);
    }
}

struct OnKeyTransition<F>(F);

impl<K, F: Fn(&K, State, State) + Send + Sync> KeyObserver<K> for OnKeyTransition<F> {
    fn changed(&self, key: &K, from: State, to: State) {
        (self.0)(key, from, to);
    }
}

// What the circuit of one key tells, with the key to it.
struct Named<K> {
    key: K,
    observers: Arc<Observers<dyn KeyObserver<K>>>,
}

impl<K: Send + Sync> Observer for Named<K> {
    fn changed(&self, from: State, to: State) {
        self.observers.all().iter().for_each(|observer| observer.changed(&self.key, from, to));
    }

    fn refused(&self, error: &CircuitOpen) {
        self.observers.all().iter().for_each(|observer| observer.refused(error));
    }

    fn gone(&self, state: State) {
        self.observers.all().iter().for_each(|observer| observer.gone(state));
    }
}

impl<F, K> Per<F, K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    pub(super) fn max_keys(self, keys: NonZeroUsize) -> Self {
        let Store { policy, ref observers, .. } = *self.store;
        let store = Arc::new(Store { policy, circuits: Keyed::new(keys), observers: observers.clone() });
        Self { store, ..self }
    }

    pub(super) fn listen(&self, listener: impl Fn(&K, State, State) + Send + Sync + 'static) {
        self.store.observers.add(Arc::new(OnKeyTransition(listener)));
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.store.observers.add(Arc::new(Keyless(observer)));
    }

    pub(super) fn len(&self) -> usize {
        self.store.circuits.len()
    }

    pub(super) fn handles(&self) -> Vec<(K, Handle)> {
        self.store.circuits.all().into_iter().map(|(key, circuit)| (key, Handle::new(circuit))).collect()
    }

    pub(super) fn circuit(&self, key: K) -> Arc<Shared> {
        let Store { policy, circuits, observers } = &*self.store;
        // Most keys are known: they are looked up without being copied.
        if let Some(circuit) = circuits.get(&key) {
            return circuit;
        }
        let named = Named { key: key.clone(), observers: observers.clone() };
        let make = || {
            // One place for all threads to count in: there may be many circuits.
            let circuit = Shared::new(*policy, 1);
            circuit.observe(Arc::new(named));
            circuit
        };
        circuits.get_or_insert_with(key, Shared::is_forgettable, make)
    }
}

impl<F, K, Req> Circuits<Req> for Per<F, K>
where
    F: Fn(&Req) -> K,
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    type Hold = Arc<Shared>;

    // Which circuit it will be is known with the request only.
    fn is_gated(&self) -> bool {
        false
    }

    fn pick(&mut self, request: &Req) -> Arc<Shared> {
        self.circuit((self.key)(request))
    }
}

impl<F: Clone, K> Clone for Per<F, K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), store: self.store.clone(), marker: PhantomData }
    }
}

impl<F, K: Eq + Hash> fmt::Debug for Per<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys may be secrets.
        f.debug_struct("Per").field("keys", &self.store.circuits.len()).finish_non_exhaustive()
    }
}
