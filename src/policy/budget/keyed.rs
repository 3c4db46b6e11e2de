use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc};

use tokio::time::Instant;

use super::{Budget, LocalBudget};
use crate::keyed::{DEFAULT_KEYS, Keyed};

/// A budget for each key, told by a function of the request: a host, a model. Made by [`Budget::per`].
///
/// A key whose budget saw neither a success nor a retry within its window may be forgotten, which changes nothing. **Keys for which there is no room
/// share one budget among them**, so that inventing keys buys no retries beyond the reserves of those that are kept.
///
/// Clones share everything. A look-up takes the lock of one shard of the keys for a moment.
#[must_use]
pub struct KeyedBudget<F, K> {
    key: F,
    budgets: Arc<Keyed<K, Budget>>,
    others: Budget,
}

impl<F: Clone, K> Clone for KeyedBudget<F, K> {
    fn clone(&self) -> Self {
        Self { key: self.key.clone(), budgets: self.budgets.clone(), others: self.others.clone() }
    }
}

impl Budget {
    /// A budget like this one for each key, for calls that go to more than one server or quota.
    ///
    /// ```
    /// use tokio::time::Instant;
    /// use tower_tenacity::policy::budget::Budget;
    ///
    /// struct Ask { model: &'static str }
    ///
    /// let budgets = Budget::standard().per(|ask: &Ask| ask.model);
    /// let now = Instant::now();
    ///
    /// let small = budgets.of(&Ask { model: "small" }, || now);
    /// while let Some(withdrawal) = small.withdraw(now) {
    ///     withdrawal.spend();
    /// }
    /// // That one is empty, for everybody; another is not.
    /// assert_eq!(budgets.of(&Ask { model: "small" }, || now).available(now), 0);
    /// assert_eq!(budgets.of(&Ask { model: "large" }, || now).available(now), 2);
    /// ```
    pub fn per<Req: ?Sized, K, F>(self, key: F) -> KeyedBudget<F, K>
    where
        F: Fn(&Req) -> K,
        K: Eq + Hash,
    {
        KeyedBudget { key, budgets: Arc::new(Keyed::new(DEFAULT_KEYS)), others: self }
    }
}

impl<F, K: Eq + Hash> KeyedBudget<F, K> {
    /// How many keys have a budget of their own, at some 2 kB each. Default: 1024.
    ///
    /// The answer knows no key yet.
    pub fn max_keys(self, keys: NonZeroUsize) -> Self {
        Self { budgets: Arc::new(Keyed::new(keys)), ..self }
    }

    /// The budget that pays for a request. `now` is asked for when there is no room for a new key, to see which can go.
    pub fn of<Req: ?Sized>(&self, request: &Req, now: impl FnOnce() -> Instant) -> Budget
    where
        F: Fn(&Req) -> K,
    {
        self.find(request, now, Budget::clone)
    }

    /// The budget of a key, if it has one of its own: for whoever shows it.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<Budget> {
        self.budgets.get(key).map(|budget| Budget::clone(&budget))
    }

    /// As [`of`](Self::of), for one call.
    pub(crate) fn local<Req: ?Sized>(&self, request: &Req, now: impl FnOnce() -> Instant) -> LocalBudget
    where
        F: Fn(&Req) -> K,
    {
        self.find(request, now, Budget::local)
    }

    fn find<Req: ?Sized, T>(&self, request: &Req, now: impl FnOnce() -> Instant, handle: impl FnOnce(&Budget) -> T) -> T
    where
        F: Fn(&Req) -> K,
    {
        let (mut now, mut moment) = (Some(now), None);
        let mut idle = |budget: &Budget| {
            if let Some(now) = now.take() {
                moment = Some(now());
            }
            moment.is_some_and(|now| budget.is_forgettable(now))
        };
        let found = self.budgets.get_or_insert_with((self.key)(request), &mut idle, || self.others.sibling());
        // Held here and nowhere else: there was no room for it.
        if Arc::strong_count(&found) == 1 { handle(&self.others) } else { handle(&found) }
    }
}

impl<F, K: Eq + Hash> fmt::Debug for KeyedBudget<F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys may be secrets.
        f.debug_struct("KeyedBudget")
            .field("keys", &self.budgets.len())
            .field("each", &self.others)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::time::Duration;

    use super::{super::Taken, *};

    const WINDOW: Duration = Duration::from_secs(60);

    fn few(keys: usize) -> KeyedBudget<fn(&u32) -> u32, u32> {
        Budget::standard().per((|key| *key) as fn(&u32) -> u32).max_keys(NonZeroUsize::new(keys).unwrap())
    }

    #[test]
    fn keys_do_not_share_and_clones_do() {
        let now = Instant::now();
        let budgets = few(8);
        budgets.of(&1, || now).withdraw(now).unwrap().spend();
        budgets.clone().of(&1, || now).withdraw(now).unwrap().spend();
        assert_eq!(budgets.of(&1, || now).available(now), 0);
        assert_eq!(budgets.of(&2, || now).available(now), 2);
        assert_eq!(format!("{:?}", budgets.budgets), "Keyed { len: 2, .. }");
        assert_eq!(budgets.get(&1).map(|budget| budget.available(now)), Some(0));
        assert!(budgets.get(&3).is_none() && budgets.budgets.len() == 2, "and a look makes none");
        (0..100).for_each(|_| budgets.of(&2, || now).deposit(|| now));
        assert_eq!((budgets.of(&1, || now).available(now), budgets.of(&2, || now).available(now)), (0, 7));
    }

    #[test]
    fn keys_without_room_share_one_budget() {
        let now = Instant::now();
        let budgets = few(4);
        for key in 0..4 {
            budgets.of(&key, || now).withdraw(now).unwrap().spend();
        }
        let allowed = (4..1000).filter(|key| budgets.of(key, || now).withdraw(now).map(|w| w.spend()).is_some());
        assert_eq!(allowed.count(), 2);
        // Those that have a place are not touched.
        assert_eq!(budgets.of(&3, || now).available(now), 1);
        // They go when they are as good as new, and are asked about once.
        let later = now + 2 * WINDOW;
        let mut asked = 0;
        let newcomer = budgets.of(&4, || {
            asked += 1;
            later
        });
        newcomer.withdraw(later).unwrap().spend();
        assert_eq!((asked, budgets.of(&4, || later).available(later)), (1, 1));
    }

    #[test]
    fn a_budget_in_use_is_not_forgotten() {
        let now = Instant::now();
        let budgets = few(1);
        let (call, kept) = (budgets.local(&1, || now), budgets.of(&1, || now));
        // Another key has to share; were it let in, two budgets of the first key could be in force.
        let of_others = |key| {
            let before = budgets.others.available(now);
            let withdrawal = budgets.of(&key, || now).withdraw(now);
            assert!(withdrawal.is_some());
            budgets.others.available(now) < before
        };
        assert!(of_others(2));
        drop(kept);
        assert!(of_others(2));
        Taken::of(&call, now).unwrap().spend();
        drop(call);
        assert!(of_others(2));
        assert_eq!(budgets.of(&1, || now).available(now), 1);
        // Nor one with successes to its name, gathered ones included.
        let later = now + 2 * WINDOW;
        (0..100).for_each(|_| budgets.of(&1, || later).deposit(|| later));
        assert!(of_others(2));
        let much_later = later + 2 * WINDOW;
        let third = budgets.of(&3, || much_later);
        third.withdraw(much_later).unwrap().spend();
        assert_eq!(budgets.of(&3, || much_later).available(much_later), 1);
    }
}
