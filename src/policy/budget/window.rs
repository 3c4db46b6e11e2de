//! What was earned and spent of late, without a lock.
//!
//! Time comes as the number of a slot; a window is a ring of them. With `earned = ratio · successes in e−n+1 ..= e`, a retry is allowed in
//! slot `e` of a window of `n` slots, of which half may be spent within `m`, iff
//!
//! ```text
//! withdrawals in e−n ..= e  −  those refunded  +  1   <=   earned      +  reserve
//! withdrawals in e−m ..= e  −  those refunded  +  1   <=   earned / 2  +  reserve
//! ```
//!
//! The slots on the left cover the length of `n` or `m` slots and up to one slot more, those on the right its length
//! or up to one slot less, wherever in slot `e` the moment lies. Granularity makes the budget stricter, never looser.
//!
//! # Why it is never exceeded
//!
//! There is one word, `state`, that says in which slot the budget is and how many withdrawals there were since its birth, and one
//! step that allows a retry: the exchange of `(e, total)` for `(e, total + 1)`. It succeeds only if nobody was allowed
//! one since the word was read, so the left side cannot grow between look and leap. What else is read only
//! errs to the safe side, however old it is:
//!
//! * `earned` and `refunded` only grow, slot by slot, until a newer slot takes their place.
//! * The withdrawals of the slots from `b` on, for either line, are `total` less what it was when `b` began. `began` keeps that for every
//!   slot in which there was a withdrawal: **it is written before the first exchange in its slot**, and by whoever comes first,
//!   with the total that the state had on entering the slot, which cannot change until it is written. A slot without the mark
//!   saw no withdrawal, and the next one with a mark began with the same total.
//! * Who sees a total also sees the marks of all withdrawals in it: a mark is released before, and acquired by, the
//!   exchange that builds on it, and every write of the state is such an exchange.
//!
//! A thread that stops at any point holds up nobody: others finish the mark, or advance the slot, themselves.

use super::atomic::*;
use super::settings::Settings;

/// A slot's number and a count, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamped {
    pub(super) slot: u64,
    pub(super) count: u64,
}

impl Stamped {
    const COUNT_BITS: u32 = 28;
    /// 268 million in one slot; what goes beyond it is not counted in our favour.
    pub(super) const MAX_COUNT: u64 = (1 << Self::COUNT_BITS) - 1;
    /// The slot in which a budget is born. Slot 0 never counts for anything, being further back than any window reaches.
    pub(super) const BIRTH: u64 = 1 << 20;
    /// 43 years of the shortest slots.
    pub(super) const MAX_SLOT: u64 = (1 << (64 - Self::COUNT_BITS)) - 1;

    #[inline]
    pub(super) const fn pack(self) -> u64 {
        (self.slot << Self::COUNT_BITS) | self.count
    }

    #[inline]
    pub(super) const fn unpack(word: u64) -> Self {
        Self { slot: word >> Self::COUNT_BITS, count: word & Self::MAX_COUNT }
    }
}

/// The sliding window of one budget.
pub(super) struct Window {
    settings: Settings,
    // How many slots make up the window.
    slots: u64,
    // Within how many of them no more than half may be spent.
    at_once: u64,
    // The slot of the latest withdrawal, and how many withdrawals there were in all, refunded or not; wraps around.
    state: AtomicU64,
    ring: Box<[Slot]>,
}

// Three stamped counts. A stamp that is too old means that nothing is known of the slot.
struct Slot {
    // `state`'s total on entering this slot.
    began: AtomicU64,
    earned: AtomicU64,
    refunded: AtomicU64,
}

impl Window {
    pub(super) fn new(settings: Settings, slots: u64, at_once: u64) -> Self {
        // Withdrawals are counted in one slot more than the window has; beyond that there is no need to keep any.
        let ring = (slots + 1).next_power_of_two();
        let slot = || Slot { began: AtomicU64::new(0), earned: AtomicU64::new(0), refunded: AtomicU64::new(0) };
        let state = Stamped { slot: Stamped::BIRTH, count: 0 };
        let ring = (0..ring).map(|_| slot()).collect();
        Self { settings, slots, at_once, state: AtomicU64::new(state.pack()), ring }
    }

    /// Credits successes to a slot, unless it has left the window for good.
    pub(super) fn earn(&self, slot: u64, successes: u64) {
        if successes > 0 {
            add(&self.at(slot).earned, slot, successes);
        }
    }

    /// Allows a retry in this slot, or in the one of the latest withdrawal if time went backwards. Answers the slot
    /// in which it counts.
    pub(super) fn withdraw(&self, now: u64) -> Option<u64> {
        loop {
            let word = self.state.load(Acquire);
            let mut state = Stamped::unpack(word);
            let slot = state.slot.max(now);
            if slot >= Stamped::MAX_SLOT || !self.allows(state, slot) {
                return None;
            }
            if state.slot < slot {
                state.slot = slot;
                if self.state.compare_exchange(word, state.pack(), AcqRel, Acquire).is_err() {
                    continue;
                }
            }
            self.mark(state);
            let next = Stamped { slot, count: (state.count + 1) & Stamped::MAX_COUNT };
            if self.state.compare_exchange(state.pack(), next.pack(), AcqRel, Acquire).is_ok() {
                return Some(slot);
            }
        }
    }

    /// Takes back a withdrawal that counted in this slot.
    pub(super) fn refund(&self, slot: u64) {
        add(&self.at(slot).refunded, slot, 1);
    }

    /// How many retries would be allowed now if that many more successes were credited to now.
    pub(super) fn available(&self, now: u64, more: u64) -> u64 {
        let state = Stamped::unpack(self.state.load(Acquire));
        let slot = state.slot.max(now);
        self.left(&self.sum(state, slot), more)
    }

    /// Whether forgetting it changes nothing: neither withdrawals nor successes in sight.
    pub(super) fn is_idle(&self, now: u64) -> bool {
        let state = Stamped::unpack(self.state.load(Acquire));
        let sum = self.sum(state, state.slot.max(now));
        sum.earned == 0 && sum.all.withdrawn == 0
    }

    fn at(&self, slot: u64) -> &Slot {
        // The length is a power of two, and fits.
        &self.ring[slot as usize & (self.ring.len() - 1)]
    }

    // Makes sure that the total a slot began with is known before it grows.
    fn mark(&self, state: Stamped) {
        let began = &self.at(state.slot).began;
        let word = began.load(Acquire);
        if Stamped::unpack(word).slot < state.slot {
            // Somebody else may be first: they write the same, or the budget has moved on.
            let _ = began.compare_exchange(word, state.pack(), AcqRel, Acquire);
        }
    }

    fn allows(&self, state: Stamped, slot: u64) -> bool {
        self.left(&self.sum(state, slot), 0) > 0
    }

    // How many retries are left if that many more successes were credited.
    fn left(&self, sum: &Sum, more: u64) -> u64 {
        let (all, at_once) = self.settings.allowances(sum.earned + more);
        all.saturating_sub(sum.all.spent()).min(at_once.saturating_sub(sum.at_once.spent()))
    }

    // What counts in `slot`, which is not before the state's.
    fn sum(&self, state: Stamped, slot: u64) -> Sum {
        let oldest = slot.saturating_sub(self.slots);
        let mut sum = Sum {
            earned: 0,
            all: Spending::since(oldest),
            at_once: Spending::since(slot.saturating_sub(self.at_once)),
        };
        for kept in &self.ring {
            let earned = Stamped::unpack(kept.earned.load(Acquire));
            if oldest < earned.slot && earned.slot <= slot {
                sum.earned += earned.count;
            }
            let refunded = Stamped::unpack(kept.refunded.load(Acquire));
            if refunded.slot <= slot {
                sum.all.refund(refunded);
                sum.at_once.refund(refunded);
            }
            let began = Stamped::unpack(kept.began.load(Acquire));
            if began.slot <= state.slot {
                sum.all.begin(began, state);
                sum.at_once.begin(began, state);
            }
        }
        sum
    }
}

struct Sum {
    earned: u64,
    all: Spending,
    at_once: Spending,
}

// The withdrawals since some slot.
struct Spending {
    oldest: u64,
    // The oldest slot in which there was a withdrawal.
    first: u64,
    withdrawn: u64,
    refunded: u64,
}

impl Spending {
    const fn since(oldest: u64) -> Self {
        Self { oldest, first: u64::MAX, withdrawn: 0, refunded: 0 }
    }

    fn begin(&mut self, began: Stamped, state: Stamped) {
        if self.oldest <= began.slot && began.slot < self.first {
            self.first = began.slot;
            self.withdrawn = state.count.wrapping_sub(began.count) & Stamped::MAX_COUNT;
        }
    }

    fn refund(&mut self, refunded: Stamped) {
        if self.oldest <= refunded.slot {
            self.refunded += refunded.count;
        }
    }

    fn spent(&self) -> u64 {
        if self.withdrawn == Stamped::MAX_COUNT {
            // Another one, and they could not be told from none at all.
            return u64::MAX;
        }
        // Refunds of withdrawals that were allowed after the state was read may be among those seen.
        self.withdrawn.saturating_sub(self.refunded)
    }
}

// Adds to the count of a slot. An older slot gives way; a newer one means that this one has left the window.
fn add(cell: &AtomicU64, slot: u64, more: u64) {
    let mut word = cell.load(Relaxed);
    loop {
        let kept = Stamped::unpack(word);
        let before = match kept.slot {
            newer if newer > slot => return,
            same if same == slot => kept.count,
            _ => 0,
        };
        let next = Stamped { slot, count: (before + more).min(Stamped::MAX_COUNT) };
        match cell.compare_exchange_weak(word, next.pack(), AcqRel, Relaxed) {
            Ok(_) => return,
            Err(other) => word = other,
        }
    }
}
