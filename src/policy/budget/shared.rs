//! The state of a budget, and what it is held by.

use std::{fmt, sync::Arc};

use tokio::time::Instant;

use super::{AT_ONCE, SLOTS, clock::Clock, lane::Lane, settings::Settings, window::Window};
use crate::{keyed::is_sole, threads::Place};

/// A hold for one call. Its reference count is shared with the calls of one thread (or few) and not with those of all.
#[derive(Clone)]
pub struct LocalBudget(Arc<Local>);

// The reference count alone in its cache lines, whatever stands beside it in memory.
#[repr(align(128))]
struct Local {
    shared: Arc<Shared>,
}

impl LocalBudget {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self(Arc::new(Local { shared }))
    }

    /// Whether no call and no withdrawal holds this one.
    pub(super) fn is_sole(&self) -> bool {
        is_sole(&self.0)
    }
}

/// What a call, and whatever it takes out, holds its budget by.
pub trait Hold: Clone {
    fn shared(&self) -> &Shared;
}

impl Hold for LocalBudget {
    #[inline]
    fn shared(&self) -> &Shared {
        &self.0.shared
    }
}

/// Of a budget that somebody else holds, or that is never let go.
impl Hold for &Shared {
    #[inline]
    fn shared(&self) -> &Shared {
        self
    }
}

/// All that there is to a budget. Whoever holds it finds the lane of its thread.
pub struct Shared {
    pub(super) settings: Settings,
    pub(super) clock: Clock,
    window: Window,
    lanes: Box<[Lane]>,
}

impl Shared {
    pub(super) fn new(settings: Settings, birth: Instant, lanes: usize) -> Self {
        Self {
            settings,
            clock: Clock::new(birth, settings.window(), SLOTS),
            window: Window::new(settings, SLOTS, AT_ONCE),
            lanes: (0..lanes).map(|_| Lane::new()).collect(),
        }
    }

    #[inline]
    pub(super) fn deposit(&self, now: impl FnOnce() -> Instant) {
        let now = || self.clock.slot(now());
        match Place::among(&self.lanes) {
            Place::Own(lane) => lane.deposit(&self.window, now),
            Place::Shared(lane) => lane.deposit_among_others(&self.window, now),
        }
    }

    pub(super) fn withdraw(&self, now: Instant) -> Option<u64> {
        let now = self.clock.slot(now);
        self.window.withdraw(now).or_else(|| {
            let brought: u64 = self.lanes.iter().map(|lane| lane.collect(&self.window)).sum();
            if brought > 0 { self.window.withdraw(now) } else { None }
        })
    }

    pub(super) fn available(&self, now: Instant) -> u64 {
        let now = self.clock.slot(now);
        self.window.available(now, self.waiting(now))
    }

    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let now = self.clock.slot(now);
        self.waiting(now) == 0 && self.window.is_idle(now)
    }

    // How many successes in the lanes would count now.
    fn waiting(&self, now: u64) -> u64 {
        let waiting = self.lanes.iter().map(Lane::waiting);
        // Neither those that are too old nor those of a time that is not yet.
        let counts = waiting.filter(|waiting| (now.saturating_sub(SLOTS) + 1..=now).contains(&waiting.slot));
        counts.map(|waiting| waiting.count).sum()
    }
}

/// A retry taken out of a budget, by whatever holds that. Dropped before it is spent, it is given back.
pub(super) struct Taken<L: Hold> {
    pub(super) local: L,
    // `SPENT` once there is nothing to give back.
    pub(super) slot: u64,
}

const SPENT: u64 = u64::MAX;

impl<L: Hold> Taken<L> {
    pub(super) fn of(local: &L, now: Instant) -> Option<Self> {
        let slot = local.shared().withdraw(now)?;
        Some(Self { local: local.clone(), slot })
    }

    pub(super) fn spend(mut self) {
        self.slot = SPENT;
    }
}

impl<L: Hold> Drop for Taken<L> {
    fn drop(&mut self) {
        if self.slot != SPENT {
            self.local.shared().window.refund(self.slot);
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.settings.describe(&mut f.debug_struct("Budget"))
    }
}

impl fmt::Debug for LocalBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared().fmt(f)
    }
}
