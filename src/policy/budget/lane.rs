//! Successes on their way into the window.
//!
//! A shared write and a clock reading for each success would cost more than all the rest of a call. So they are gathered: each
//! thread counts in a lane of its own, which nobody else writes to, and brings sixteen successes at a time. They are credited to the
//! slot in which the sixteen before them were brought, hence never to a later one than they belong to.
//!
//! Only where traffic is dense, that is, where sixteen come within one slot; elsewhere each success reads the clock and goes
//! straight into the window, and none grows old in a lane. When a withdrawal is about to be refused, it first
//! [collects](Lane::collect) what lies in the lanes.
//!
//! # Why none is counted twice
//!
//! `earned` only grows, and by one for each success at most. `brought` says how many of them are in the window, and whoever
//! brings some moves it, by an exchange that succeeds once, from one number to a later one that `earned` has reached. What lies
//! between the two is theirs to credit.

use super::atomic::*;
use super::window::{Stamped, Window};

/// How many successes are brought at a time.
pub(super) const BATCH: u64 = if cfg!(all(test, interleavings)) { 2 } else { 16 };

#[repr(align(128))]
pub(super) struct Lane {
    /// All successes there ever were.
    earned: StoredU64,
    /// The number of the success that looks at the clock next, or an earlier one.
    due: StoredU64,
    /// How many successes in a row, before they were dense, fell into the slot of `brought`.
    run: StoredU64,
    /// How many of the successes are in the window (modulo [`Stamped::MAX_COUNT`] and one), and the slot in which the latest were
    /// brought by one who looked at the clock.
    brought: AtomicU64,
}

impl Lane {
    pub(super) fn new() -> Self {
        let zero = || StoredU64::new(0);
        let birth = Stamped { slot: Stamped::BIRTH, count: 0 };
        Self { earned: zero(), due: zero(), run: zero(), brought: AtomicU64::new(birth.pack()) }
    }

    /// Takes in a success, where no other thread does. The time is asked for once in sixteen times where traffic is dense.
    #[inline]
    pub(super) fn deposit(&self, window: &Window, now: impl FnOnce() -> u64) {
        let earned = self.earned.load(Relaxed) + 1;
        self.earned.store(earned, Release);
        if earned >= self.due.load(Relaxed) {
            self.bring(earned, window, now());
        }
    }

    /// The same, where other threads may.
    #[inline(never)]
    pub(super) fn deposit_among_others(&self, window: &Window, now: impl FnOnce() -> u64) {
        let earned = self.earned.fetch_add(1, AcqRel) + 1;
        if earned >= self.due.load(Relaxed) {
            self.bring(earned, window, now());
        }
    }

    // Who is due. Where several threads share a lane, `due` and `run` may be off by a few, which only changes who looks at the
    // clock.
    #[cold]
    #[inline(never)]
    fn bring(&self, earned: u64, window: &Window, now: u64) {
        let dense = self.run.load(Relaxed) >= BATCH;
        let mut word = self.brought.load(Acquire);
        loop {
            let Stamped { slot, count } = Stamped::unpack(word);
            let more = pending(earned, count);
            if more == 0 {
                // Somebody has brought this one already, and knows better since when others wait.
                return;
            }
            // This one has just come. Of the others no more is known than that they came after the latest were brought.
            let fresh = 1;
            let next = Stamped { slot: now, count: (count + more) & Stamped::MAX_COUNT };
            match self.brought.compare_exchange_weak(word, next.pack(), AcqRel, Acquire) {
                Ok(_) => {
                    let older = if slot < now { more - fresh } else { 0 };
                    window.earn(slot, older);
                    window.earn(now, more - older);
                    // Dense, if it took no longer than a slot; there may be a border in it.
                    let run = match dense {
                        true if now <= slot + 1 => BATCH,
                        false if now == slot => self.run.load(Relaxed) + 1,
                        _ => 1,
                    };
                    self.run.store(run, Relaxed);
                    self.due.store(earned + if run >= BATCH { BATCH } else { 1 }, Relaxed);
                    return;
                }
                Err(other) => word = other,
            }
        }
    }

    /// Brings into the window what waits here, and says how many.
    pub(super) fn collect(&self, window: &Window) -> u64 {
        let mut word = self.brought.load(Acquire);
        loop {
            let Stamped { slot, count } = Stamped::unpack(word);
            let more = pending(self.earned.load(Acquire), count);
            if more == 0 {
                return 0;
            }
            let next = Stamped { slot, count: (count + more) & Stamped::MAX_COUNT };
            match self.brought.compare_exchange_weak(word, next.pack(), AcqRel, Acquire) {
                Ok(_) => {
                    window.earn(slot, more);
                    // The next success has a look at the clock, and finds the lane as dense as before, or not.
                    self.due.store(0, Relaxed);
                    return more;
                }
                Err(other) => word = other,
            }
        }
    }

    /// How many wait here, and since which slot.
    pub(super) fn waiting(&self) -> Stamped {
        let Stamped { slot, count } = Stamped::unpack(self.brought.load(Acquire));
        Stamped { slot, count: pending(self.earned.load(Acquire), count) }
    }
}

// How many of those earned are not among those brought. None, if others brought more meanwhile than this look at `earned` saw.
const fn pending(earned: u64, brought: u64) -> u64 {
    let ahead = earned.wrapping_sub(brought) & Stamped::MAX_COUNT;
    if ahead > Stamped::MAX_COUNT / 2 { 0 } else { ahead }
}
