//! Values by key, shared by everybody who asks for the same key, bounded in number.
//!
//! Cool-down, circuit breaker and budget keep one state per host, model or quota, told by a function of the request. Such
//! a key may come from outside, so that there is no end to its variety. What is kept here:
//!
//! * Never more values than the bound, whatever the keys.
//! * One value per key: as long as anybody holds the `Arc` of a key, and as long as its value is not idle, the same key
//!   gives the same value.
//! * Room for a new key is made by letting go the idle value that was asked for least recently. **Where none is idle, the
//!   newcomer gets a value of its own that nobody shares and nobody remembers.** To let the oldest go instead would mean that
//!   with one key more than the bound, asked for in turn, every state is forgotten just before it is needed; that two
//!   states of one key could be in force at once (two probes, two counts); and that a stranger who invents keys could
//!   wipe out the cool-downs of everybody else. This way, as many keys as fit stay fully protected, and calls of the
//!   others pass as they would without the layer until a place is free.
//!
//! A look-up takes the lock of one shard for the time it takes to find an entry; nothing but a value that has to be made
//! (and then, in a full shard, its at most 64 entries to be looked through) is done under it. Which shard a key
//! belongs to depends on a random seed, so nobody can aim at one.

use std::{
    collections::{HashMap, hash_map::RandomState},
    fmt,
    hash::{BuildHasher, Hash},
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{Ordering::Acquire, fence},
    },
};

/// How many keys are kept unless the owner says otherwise. With the states of this crate that is a few hundred kilobytes.
pub(crate) const DEFAULT_KEYS: NonZeroUsize = NonZeroUsize::new(1024).unwrap();

// Few enough to be looked through under a lock.
const PER_SHARD: usize = 64;
// Enough for any number of cores, and for 65,536 keys before shards grow larger.
const MOST_SHARDS: usize = 1024;

/// Values by key; see the [module](self).
pub(crate) struct Keyed<K, V> {
    shards: Box<[Shard<K, V>]>,
    picker: RandomState,
}

// A cache line (or two, on the machines that fetch pairs) for each lock.
#[repr(align(128))]
struct Shard<K, V> {
    bound: usize,
    entries: Mutex<Entries<K, V>>,
}

struct Entries<K, V> {
    by_key: HashMap<K, Entry<V>>,
    // Counts the look-ups: when an entry was last asked for, without a clock.
    lookups: u64,
}

struct Entry<V> {
    value: Arc<V>,
    asked: u64,
}

impl<K: Eq + Hash, V> Keyed<K, V> {
    /// Keeps at most `bound` values. They are spread over the shards by chance, so some keys may be asked to leave a little
    /// before that; up to 127 keys there is one shard, and the bound is exact.
    pub(crate) fn new(bound: NonZeroUsize) -> Self {
        let bound = bound.get();
        let shards = (bound / PER_SHARD).clamp(1, MOST_SHARDS);
        let shard = |index: usize| Shard {
            bound: bound / shards + usize::from(index < bound % shards),
            entries: Mutex::new(Entries { by_key: HashMap::new(), lookups: 0 }),
        };
        Self { shards: (0..shards).map(shard).collect(), picker: RandomState::new() }
    }

    /// The value of `key`, made by `make` if there is none.
    ///
    /// `idle` says of a value that forgetting it changes nothing: it is as good as new. It is asked only about values that nobody
    /// holds. Both closures run under a lock: they must be short, and must not come back here.
    pub(crate) fn get_or_insert_with(
        &self,
        key: K,
        mut idle: impl FnMut(&V) -> bool,
        make: impl FnOnce() -> V,
    ) -> Arc<V> {
        let shard = self.shard(&key);
        let mut entries = shard.lock();
        if let Some(value) = entries.find(&key) {
            return value;
        }
        let full = entries.by_key.len() >= shard.bound;
        let value = Arc::new(make());
        let evicted = match full {
            true => entries.evict(|entry| is_sole(&entry.value) && idle(&entry.value)),
            false => None,
        };
        if !full || evicted.is_some() {
            let asked = entries.lookups;
            entries.by_key.insert(key, Entry { value: value.clone(), asked });
        }
        drop(entries);
        // Whoever hears of its end may come back here.
        drop(evicted);
        value
    }

    /// The value of `key`, if there is one.
    pub(crate) fn get(&self, key: &K) -> Option<Arc<V>> {
        self.shard(key).lock().find(key)
    }

    /// All keys with their values, in no order, shard by shard.
    pub(crate) fn all(&self) -> Vec<(K, Arc<V>)>
    where
        K: Clone,
    {
        let mut all = Vec::new();
        for shard in &self.shards {
            all.extend(shard.lock().by_key.iter().map(|(key, entry)| (key.clone(), entry.value.clone())));
        }
        all
    }

    /// Lets go the values that nobody holds and `keep` does not want. It is asked under a lock.
    pub(crate) fn retain(&self, mut keep: impl FnMut(&V) -> bool) {
        for shard in &self.shards {
            shard.lock().by_key.retain(|_, entry| !is_sole(&entry.value) || keep(&entry.value));
        }
    }

    /// How many values are kept.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().by_key.len()).sum()
    }

    fn shard(&self, key: &K) -> &Shard<K, V> {
        let hash = u128::from(self.picker.hash_one(key));
        // The product's upper half is below the number of shards.
        &self.shards[((hash * self.shards.len() as u128) >> 64) as usize]
    }
}

impl<K, V> Shard<K, V> {
    // A key or closure that panicked has changed nothing: entries are put in whole and taken out whole.
    fn lock(&self) -> MutexGuard<'_, Entries<K, V>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Eq + Hash, V> Entries<K, V> {
    fn find(&mut self, key: &K) -> Option<Arc<V>> {
        self.lookups += 1;
        let entry = self.by_key.get_mut(key)?;
        entry.asked = self.lookups;
        Some(entry.value.clone())
    }

    // Takes out the least recently asked for of the entries that may go, if there is one.
    fn evict(&mut self, mut may_go: impl FnMut(&Entry<V>) -> bool) -> Option<Arc<V>> {
        let oldest = self.by_key.values().filter(|entry| may_go(entry)).min_by_key(|entry| entry.asked)?;
        let (value, asked) = (oldest.value.clone(), oldest.asked);
        // No two look-ups have the same number.
        self.by_key.retain(|_, entry| entry.asked != asked);
        Some(value)
    }
}

/// Whether this is the only handle; if so, with all that was done through others in sight.
pub(crate) fn is_sole<T: ?Sized>(handle: &Arc<T>) -> bool {
    let sole = Arc::strong_count(handle) == 1;
    fence(Acquire);
    sole
}

impl<K: Eq + Hash, V> fmt::Debug for Keyed<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys may be secrets.
        f.debug_struct("Keyed").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashSet,
        sync::{
            Weak,
            atomic::{AtomicBool, Ordering::SeqCst},
        },
    };

    use proptest::prelude::*;

    use super::*;

    fn keyed<V>(bound: usize) -> Keyed<u32, V> {
        Keyed::new(NonZeroUsize::new(bound).unwrap())
    }

    fn fresh(keyed: &Keyed<u32, u32>, key: u32) -> Arc<u32> {
        keyed.get_or_insert_with(key, |_| true, || key)
    }

    #[test]
    fn the_same_key_gives_the_same_value() {
        let keyed = keyed(8);
        let value = fresh(&keyed, 1);
        assert!(Arc::ptr_eq(&value, &fresh(&keyed, 1)));
        assert!(Arc::ptr_eq(&value, &keyed.get(&1).unwrap()));
        assert!(!Arc::ptr_eq(&value, &fresh(&keyed, 2)));
        assert!(keyed.get(&3).is_none());
        assert_eq!(keyed.len(), 2);
        let mut all: Vec<_> = keyed.all().into_iter().map(|(key, value)| (key, *value)).collect();
        all.sort_unstable();
        assert_eq!(all, [(1, 1), (2, 2)]);
    }

    #[test]
    fn the_idle_value_asked_for_least_recently_goes() {
        let keyed = keyed(3);
        for key in [1, 2, 3, 1] {
            fresh(&keyed, key);
        }
        // 2 is older than 3, and 1 was asked for again.
        fresh(&keyed, 4);
        assert!(keyed.get(&2).is_none());
        for key in [1, 3, 4] {
            assert!(keyed.get(&key).is_some(), "{key}");
        }
        // The oldest is not idle: the next one goes.
        keyed.get_or_insert_with(5, |value| *value != 1, || 5);
        assert!(keyed.get(&3).is_none());
        assert!(keyed.get(&1).is_some());
    }

    #[test]
    fn what_is_held_stays_and_is_not_even_asked() {
        let keyed = keyed(2);
        let held = fresh(&keyed, 1);
        fresh(&keyed, 2);
        keyed.get_or_insert_with(3, |value| *value != 1 || panic!("held"), || 3);
        assert!(keyed.get(&2).is_none());
        assert!(Arc::ptr_eq(&held, &keyed.get(&1).unwrap()));
    }

    #[test]
    fn where_none_is_idle_the_newcomer_gets_a_value_of_its_own() {
        let keyed = keyed(2);
        let old = [1, 2].map(|key| fresh(&keyed, key));
        let newcomer = keyed.get_or_insert_with(3, |_| true, || 3);
        assert_eq!((*newcomer, Arc::strong_count(&newcomer), keyed.len()), (3, 1, 2));
        assert!(keyed.get(&3).is_none());
        drop(old);
        keyed.get_or_insert_with(4, |_| false, || 4);
        assert!(keyed.get(&4).is_none());
        // A place is free again.
        fresh(&keyed, 3);
        assert!(keyed.get(&3).is_some());
    }

    #[test]
    fn what_nobody_wants_or_holds_is_let_go() {
        let keyed = keyed(8);
        let _held = fresh(&keyed, 1);
        for key in [2, 3, 4] {
            fresh(&keyed, key);
        }
        keyed.retain(|value| *value == 3);
        assert_eq!([1, 2, 3, 4].map(|key| keyed.get(&key).is_some()), [true, false, true, false]);
    }

    #[test]
    fn no_variety_of_keys_takes_more_memory() {
        for bound in [1, 2, 63, 64, 127, 128, 1000, 1024] {
            let keyed = keyed(bound);
            let values: Vec<Weak<u32>> = (0..6000).map(|key| Arc::downgrade(&fresh(&keyed, key))).collect();
            let alive = values.iter().filter(|value| value.strong_count() > 0).count();
            assert_eq!(alive, keyed.len());
            assert_eq!(alive, bound, "so many keys fill every shard");
        }
    }

    #[test]
    fn an_endless_bound_reserves_nothing() {
        let keyed = keyed(usize::MAX);
        assert_eq!(keyed.shards.len(), MOST_SHARDS);
        assert_eq!(*fresh(&keyed, 1), 1);
    }

    #[test]
    fn keys_are_spread_over_the_shards() {
        let keyed = keyed(1024);
        for key in 0..512 {
            fresh(&keyed, key);
        }
        // Half full: next to nobody had to leave, however the seed fell.
        assert!(keyed.len() >= 500, "{}", keyed.len());
    }

    #[test]
    fn a_panic_in_a_closure_leaves_the_rest_in_order() {
        let keyed = Arc::new(keyed(1));
        fresh(&keyed, 1);
        let other = keyed.clone();
        assert!(std::thread::spawn(move || other.get_or_insert_with(2, |_| panic!("idle?"), || 2)).join().is_err());
        let other = keyed.clone();
        assert!(std::thread::spawn(move || other.get_or_insert_with(2, |_| true, || panic!("made"))).join().is_err());
        assert_eq!((*fresh(&keyed, 1), keyed.len()), (1, 1));
        assert_eq!((*fresh(&keyed, 3), keyed.len()), (3, 1));
    }

    #[test]
    fn threads_that_ask_for_one_key_share_one_value() {
        let keyed = keyed::<AtomicBool>(4);
        let first = std::thread::scope(|scope| {
            let ask = || {
                (0..200)
                    .filter(|key| !keyed.get_or_insert_with(key % 4, |_| true, AtomicBool::default).swap(true, SeqCst))
                    .count()
            };
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(first, 4, "each value is new to one thread only");
    }

    proptest! {
        #[test]
        fn never_above_the_bound_and_one_value_per_key(
            bound in 1usize..200,
            script in prop::collection::vec((0u32..300, any::<bool>(), any::<bool>()), 1..400),
        ) {
            // Each step asks for a key and then holds the value, or lets go what was held of it.
            let keyed = keyed::<AtomicBool>(bound);
            let mut held: HashMap<u32, Arc<AtomicBool>> = HashMap::new();
            let mut unshared = HashSet::new();
            for (key, hold, busy) in script {
                let value = keyed.get_or_insert_with(key, |value| !value.load(SeqCst), AtomicBool::default);
                prop_assert!(keyed.len() <= bound);
                let shared = keyed.get(&key);
                if let Some(before) = held.get(&key).filter(|_| !unshared.contains(&key)) {
                    prop_assert!(Arc::ptr_eq(before, &value), "held, and yet another");
                }
                if let Some(shared) = &shared {
                    prop_assert!(Arc::ptr_eq(shared, &value));
                    value.store(busy, SeqCst);
                }
                if hold {
                    if shared.is_some() { unshared.remove(&key); } else { unshared.insert(key); }
                    held.insert(key, value);
                } else {
                    held.remove(&key);
                    unshared.remove(&key);
                }
            }
        }
    }
}
