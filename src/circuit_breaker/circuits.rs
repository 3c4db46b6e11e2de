use std::{fmt, hash::Hash, marker::PhantomData, num::NonZeroUsize, sync::Arc};

use super::{
    BreakerPolicy, CircuitOpen, Handle, Observer, State,
    shared::{Lane, Lanes},
};
use crate::{
    keyed::{DEFAULT_KEYS, Keyed},
    telemetry::Observers,
};

/// Which circuit a request belongs to: [`Everyone`]'s or one [`Per`] key. Sealed.
pub trait Circuits<Req>: sealed::Sealed {
    #[doc(hidden)]
    fn is_gated(&self) -> bool;
    #[doc(hidden)]
    fn pick(&self, request: &Req) -> Arc<Lane>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Everyone {}
    impl<F, K> Sealed for super::Per<F, K> {}
}

/// One circuit for all requests.
#[derive(Clone, Debug)]
pub struct Everyone {
    policy: BreakerPolicy,
    lanes: Lanes,
}

impl Everyone {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self { policy, lanes: Lanes::new(policy) }
    }

    pub(super) fn handle(&self) -> Handle {
        Handle::new(self.lanes.mine().clone())
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.lanes.mine().shared().observe(observer);
    }

    pub(super) fn per<F, K: Eq + Hash>(self, key: F) -> Per<F, K> {
        let observers = Observers::<dyn KeyObserver<K>>::default();
        for observer in self.lanes.mine().shared().observers().iter() {
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
    #[inline]
    fn is_gated(&self) -> bool {
        self.lanes.is_gated()
    }

    #[inline]
    fn pick(&self, _: &Req) -> Arc<Lane> {
        self.lanes.mine().clone()
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
    circuits: Keyed<K, Lane>,
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

    pub(super) fn lane(&self, key: K) -> Arc<Lane> {
        let Store { policy, circuits, observers } = &*self.store;
        // Most keys are known: they are looked up without being copied.
        if let Some(lane) = circuits.get(&key) {
            return lane;
        }
        let named = Named { key: key.clone(), observers: observers.clone() };
        let make = || {
            let lane = Lane::single(*policy);
            lane.shared().observe(Arc::new(named));
            lane
        };
        circuits.get_or_insert_with(key, |lane| lane.shared().is_forgettable(), make)
    }
}

impl<F, K, Req> Circuits<Req> for Per<F, K>
where
    F: Fn(&Req) -> K,
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    // Which circuit it will be is known with the request only.
    fn is_gated(&self) -> bool {
        false
    }

    fn pick(&self, request: &Req) -> Arc<Lane> {
        self.lane((self.key)(request))
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
