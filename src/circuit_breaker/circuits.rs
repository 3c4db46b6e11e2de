use std::{
    fmt,
    hash::Hash,
    marker::PhantomData,
    num::NonZeroUsize,
    sync::{Arc, Mutex, PoisonError},
};

use super::{
    BreakerPolicy, Handle, State,
    shared::{Lane, Lanes, Listener},
};
use crate::keyed::{DEFAULT_KEYS, Keyed};

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

    pub(super) fn listen(&self, listener: Listener) {
        self.lanes.mine().shared().listen(listener);
    }

    pub(super) fn per<F, K: Eq + Hash>(self, key: F) -> Per<F, K> {
        let listeners = self.lanes.mine().shared().listeners();
        let listeners = listeners
            .into_iter()
            .map(|listener| -> KeyListener<K> { Arc::new(move |_: &K, from, to| listener(from, to)) });
        Per {
            key,
            store: Arc::new(Store {
                policy: self.policy,
                circuits: Keyed::new(DEFAULT_KEYS),
                listeners: Arc::new(Mutex::new(listeners.collect())),
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

type KeyListener<K> = Arc<dyn Fn(&K, State, State) + Send + Sync>;
type KeyListeners<K> = Arc<Mutex<Vec<KeyListener<K>>>>;

struct Store<K> {
    policy: BreakerPolicy,
    circuits: Keyed<K, Lane>,
    listeners: KeyListeners<K>,
}

impl<F, K> Per<F, K>
where
    K: Clone + Eq + Hash + Send + Sync + 'static,
{
    pub(super) fn max_keys(self, keys: NonZeroUsize) -> Self {
        let Store { policy, ref listeners, .. } = *self.store;
        let store = Arc::new(Store { policy, circuits: Keyed::new(keys), listeners: listeners.clone() });
        Self { store, ..self }
    }

    pub(super) fn listen(&self, listener: KeyListener<K>) {
        lock(&self.store.listeners).push(listener);
    }

    pub(super) fn len(&self) -> usize {
        self.store.circuits.len()
    }

    pub(super) fn lane(&self, key: K) -> Arc<Lane> {
        let Store { policy, circuits, listeners } = &*self.store;
        // Most keys are known: they are looked up without being copied.
        if let Some(lane) = circuits.get(&key) {
            return lane;
        }
        let (named, listeners) = (key.clone(), listeners.clone());
        let make = || {
            let lane = Lane::single(*policy);
            lane.shared().listen(Arc::new(move |from, to| {
                let listeners = lock(&listeners).clone();
                listeners.iter().for_each(|listener| listener(&named, from, to));
            }));
            lane
        };
        circuits.get_or_insert_with(key, |lane| lane.shared().is_forgettable(), make)
    }
}

fn lock<K>(listeners: &KeyListeners<K>) -> std::sync::MutexGuard<'_, Vec<KeyListener<K>>> {
    listeners.lock().unwrap_or_else(PoisonError::into_inner)
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
