//! The words of a budget, which the [interleavings](super::interleavings) watch.

#[cfg(not(all(test, interleavings)))]
pub(super) use std::sync::atomic::{AtomicU64, AtomicU64 as StoredU64, Ordering::*};

#[cfg(all(test, interleavings))]
pub(super) use watched::*;

#[cfg(all(test, interleavings))]
mod watched {
    use std::cell::Cell;

    /// A word that is stored to, and not only exchanged. Loads of it are never taken for writes: loom would let them put back what
    /// they read in place of a store that came later.
    pub(crate) use loom::sync::atomic::AtomicU64 as StoredU64;
    pub(crate) use loom::sync::atomic::Ordering::{self, *};

    thread_local! {
        /// Whether a load is taken for a write, so that what comes before and after it is tried both ways.
        ///
        /// loom remembers one last access of each word. Where a thread looks before it writes, that look hides the race
        /// between the write and the looks of others, and only what a load may read is tried, not all orders of the steps.
        /// With loads taken for writes it is the other way round.
        pub(crate) static ALL_ORDERS: Cell<bool> = const { Cell::new(false) };
    }

    pub(crate) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub(crate) fn new(value: u64) -> Self {
            Self(loom::sync::atomic::AtomicU64::new(value))
        }

        pub(crate) fn load(&self, order: Ordering) -> u64 {
            if ALL_ORDERS.get() { self.0.fetch_add(0, AcqRel) } else { self.0.load(order) }
        }

        pub(crate) fn compare_exchange(&self, old: u64, new: u64, ok: Ordering, err: Ordering) -> Result<u64, u64> {
            self.0.compare_exchange(old, new, ok, err)
        }

        pub(crate) fn compare_exchange_weak(
            &self,
            old: u64,
            new: u64,
            ok: Ordering,
            err: Ordering,
        ) -> Result<u64, u64> {
            self.0.compare_exchange_weak(old, new, ok, err)
        }
    }
}
