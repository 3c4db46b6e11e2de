//! Successes on their way into the window.
//!
//! A shared write and a clock reading for each success would cost more than all the rest of a call. So they are gathered: each
//! thread has a lane, a word in a cache line of its own, and brings sixteen successes at a time. They are credited to the
//! slot in which the sixteen before them were brought, hence never to a later one than they belong to.
//!
//! Only where traffic is dense, that is, where sixteen come within one slot; elsewhere each success reads the clock and goes
//! straight into the window, and none grows old in a lane. When a withdrawal is about to be refused, it first
//! [collects](Lane::collect) what lies in the lanes.

#[cfg(all(test, loom))]
use loom::sync::atomic::{AtomicU64, Ordering::*};
#[cfg(not(all(test, loom)))]
use std::sync::atomic::{AtomicU64, Ordering::*};

use super::window::{Stamped, Window};

/// How many successes are brought at a time.
pub(super) const BATCH: u64 = if cfg!(all(test, loom)) { 2 } else { 16 };

// The word is a slot and a count. Below `BATCH`, so many successes in a row fell into that slot, all of them credited. From
// `BATCH` on, what is beyond it waits to be credited to that slot.
#[repr(align(128))]
pub(super) struct Lane(AtomicU64);

impl Lane {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes in a success. The time is asked for once in sixteen times where traffic is dense.
    #[inline]
    pub(super) fn deposit(&self, window: &Window, now: impl FnOnce() -> u64) {
        let word = self.0.load(Relaxed);
        let count = Stamped::unpack(word).count;
        // Within a batch nothing but the count changes. Whoever interferes is met again below.
        let within = (BATCH..2 * BATCH - 1).contains(&count);
        if !(within && self.0.compare_exchange(word, word + 1, AcqRel, Relaxed).is_ok()) {
            self.bring(window, now());
        }
    }

    #[cold]
    #[inline(never)]
    fn bring(&self, window: &Window, now: u64) {
        let mut word = self.0.load(Relaxed);
        loop {
            let Stamped { slot, count } = Stamped::unpack(word);
            let (next, credit) = match count {
                alone if alone < BATCH => {
                    let count = if slot == now { count + 1 } else { 1 };
                    (Stamped { slot: now, count }, Some((now, 1)))
                }
                within if within < 2 * BATCH - 1 => (Stamped { slot, count: count + 1 }, None),
                _ => {
                    // Dense, if it took no longer than a slot; there may be a border in it.
                    let count = if now <= slot + 1 { BATCH } else { 1 };
                    (Stamped { slot: now, count }, Some((slot, BATCH)))
                }
            };
            match self.0.compare_exchange_weak(word, next.pack(), AcqRel, Relaxed) {
                Ok(_) => return credit.into_iter().for_each(|(slot, successes)| window.earn(slot, successes)),
                Err(other) => word = other,
            }
        }
    }

    /// Brings into the window what waits here; whether there was anything.
    pub(super) fn collect(&self, window: &Window) -> bool {
        let mut word = self.0.load(Acquire);
        loop {
            let Stamped { slot, count } = Stamped::unpack(word);
            if count <= BATCH {
                return false;
            }
            // The next success has a look at the clock and finds the lane as dense as before, or not.
            let next = Stamped { slot, count: BATCH - 1 };
            match self.0.compare_exchange_weak(word, next.pack(), AcqRel, Acquire) {
                Ok(_) => {
                    window.earn(slot, count - BATCH);
                    return true;
                }
                Err(other) => word = other,
            }
        }
    }

    /// How many wait here, and since which slot.
    pub(super) fn waiting(&self) -> Stamped {
        let word = Stamped::unpack(self.0.load(Acquire));
        Stamped { count: word.count.saturating_sub(BATCH), ..word }
    }
}
