use std::time::Duration;

use tokio::time::Instant;

use super::window::Stamped;

/// Turns moments into numbers of slots.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    birth: Instant,
    // Nanoseconds in a slot; never zero.
    slot: u64,
}

impl Clock {
    pub(super) fn new(birth: Instant, window: Duration, slots: u64) -> Self {
        let nanos = u64::try_from(window.as_nanos()).unwrap_or(u64::MAX);
        // Rounded up: fewer slots than asked for must not pass for a whole window.
        Self { birth, slot: nanos.div_ceil(slots).max(1) }
    }

    /// The slot of a moment; 0 if it is long before the birth, [`Stamped::MAX_SLOT`] if it is beyond counting.
    pub(super) fn slot(&self, now: Instant) -> u64 {
        match now.checked_duration_since(self.birth) {
            Some(age) => Stamped::BIRTH.saturating_add(self.slots(age)).min(Stamped::MAX_SLOT),
            None => (Stamped::BIRTH - 1).saturating_sub(self.slots(self.birth.duration_since(now))),
        }
    }

    fn slots(&self, time: Duration) -> u64 {
        u64::try_from(time.as_nanos()).map_or(u64::MAX, |nanos| nanos / self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_from_birth() {
        let birth = Instant::now();
        let clock = Clock::new(birth, Duration::from_secs(60), 50);
        let slot = |millis| clock.slot(birth + Duration::from_millis(millis));
        assert_eq!([0, 1199, 1200, 60_000].map(|millis| slot(millis) - Stamped::BIRTH), [0, 0, 1, 50]);
        let late = Clock::new(birth + Duration::from_secs(100 * 86_400), Duration::from_secs(60), 50);
        let before = |millis| late.slot(late.birth - Duration::from_millis(millis));
        assert_eq!([1, 1199, 1200].map(|millis| Stamped::BIRTH - before(millis)), [1, 1, 2]);
        assert_eq!(late.slot(birth), 0);
        assert_eq!(clock.slot(birth + Duration::from_secs(600 * 365 * 86_400)), Stamped::MAX_SLOT);
    }

    #[test]
    fn slots_are_never_shorter_than_their_share_of_the_window() {
        let clock = Clock::new(Instant::now(), Duration::from_nanos(1_000_000_001), 50);
        assert_eq!(clock.slot, 20_000_001);
        assert_eq!(Clock::new(Instant::now(), Duration::MAX, 50).slot, u64::MAX / 50 + 1);
    }
}
