//! How many of the latest calls failed: of the last N, or of those of the last T seconds.
//!
//! A window is told the time and costs the same however long nothing happened. Successes come in batches, of which only
//! the moments of the batch before and of this one are known. A window of time takes them to have come evenly in between.

use std::time::Duration;

use tokio::time::Instant;

/// How finely a window of time forgets: the oldest tenth at a time.
const SLOTS: usize = 10;

/// Which calls are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Span {
    /// The last so many; never zero.
    Calls(u32),
    /// Those of so long; never zero.
    Time(Duration),
}

/// What is known about the calls in a window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failed: u64,
    pub(super) slow: u64,
}

/// A single call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

impl Counts {
    fn add(&mut self, mark: Mark) {
        self.calls += 1;
        self.failed += u64::from(mark.failed);
        self.slow += u64::from(mark.slow);
    }

    fn subtract(&mut self, other: Self) {
        self.calls -= other.calls;
        self.failed -= other.failed;
        self.slow -= other.slow;
    }
}

/// The latest calls; see [`Span`] for which.
// There is one for each circuit, behind an `Arc` of its own.
#[allow(clippy::large_enum_variant)]
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "the larger one is the usual one, and there is one for each circuit")]
pub(super) enum Window {
    Calls(CallWindow),
    Time(TimeWindow),
}

impl Window {
    pub(super) fn new(span: Span) -> Self {
        match span {
            Span::Calls(length) => Self::Calls(CallWindow::new(length)),
            Span::Time(length) => Self::Time(TimeWindow::new(length)),
        }
    }

    /// A call that just ended.
    pub(super) fn push(&mut self, mark: Mark, now: Instant) {
        match self {
            Self::Calls(window) => window.push(mark),
            Self::Time(window) => window.push(mark, now),
        }
    }

    /// Calls that ended well since the window was last told the time.
    pub(super) fn successes(&mut self, number: u64, now: Instant) {
        match self {
            Self::Calls(window) => window.successes(number),
            Self::Time(window) => window.successes(number, now),
        }
    }

    pub(super) fn counts(&self) -> Counts {
        match self {
            Self::Calls(window) => window.counts,
            Self::Time(window) => window.counts,
        }
    }

    /// Forgets all calls.
    pub(super) fn clear(&mut self) {
        match self {
            Self::Calls(window) => {
                window.ring.clear();
                window.oldest = 0;
                window.counts = Counts::default();
            }
            Self::Time(window) => {
                window.slots = Default::default();
                window.counts = Counts::default();
            }
        }
    }
}

/// The last N calls: a ring of a byte each, as long as there were calls and never longer than N.
#[derive(Debug)]
pub(super) struct CallWindow {
    length: u32,
    ring: Vec<u8>,
    oldest: usize,
    counts: Counts,
}

fn pack(mark: Mark) -> u8 {
    u8::from(mark.failed) | u8::from(mark.slow) << 1
}

fn unpack(mark: u8) -> Counts {
    Counts { calls: 1, failed: u64::from(mark & 1), slow: u64::from(mark >> 1) }
}

impl CallWindow {
    const fn new(length: u32) -> Self {
        Self { length, ring: Vec::new(), oldest: 0, counts: Counts { calls: 0, failed: 0, slow: 0 } }
    }

    fn push(&mut self, mark: Mark) {
        if self.ring.len() < self.length as usize {
            self.ring.push(pack(mark));
        } else if let Some(oldest) = self.ring.get_mut(self.oldest) {
            self.counts.subtract(unpack(std::mem::replace(oldest, pack(mark))));
            self.oldest = (self.oldest + 1) % self.length as usize;
        }
        self.counts.add(mark);
    }

    fn successes(&mut self, number: u64) {
        if self.ring.len() == self.length as usize && self.counts.failed == 0 && self.counts.slow == 0 {
            // One success takes the place of another.
            return;
        }
        for _ in 0..number.min(u64::from(self.length)) {
            self.push(Mark::default());
        }
    }
}

/// The calls of the last T: ten slots of a tenth each, the newest of which is still being filled. What is in the window
/// is therefore no older than T, and nothing that is younger than nine tenths of T is missing.
#[derive(Debug)]
pub(super) struct TimeWindow {
    /// In nanoseconds; a window of 5,845 years is as good as any longer one.
    width: u64,
    /// When slot 0 began: the first time that was told.
    start: Option<Instant>,
    /// The slot of the latest time that was told. It never goes back, whatever the clock does.
    current: u64,
    slots: [Counts; SLOTS],
    counts: Counts,
}

impl TimeWindow {
    fn new(length: Duration) -> Self {
        let width = u64::try_from(length.as_nanos() / SLOTS as u128).unwrap_or(u64::MAX).max(1);
        Self { width, start: None, current: 0, slots: Default::default(), counts: Counts::default() }
    }

    fn push(&mut self, mark: Mark, now: Instant) {
        self.advance(now);
        self.add(self.current, mark);
    }

    fn successes(&mut self, number: u64, now: Instant) {
        let from = self.current;
        self.advance(now);
        if from == self.current {
            self.slots[(from % SLOTS as u64) as usize].calls += number;
            self.counts.calls += number;
            return;
        }
        // The slot of number `i` (counted from zero) of so many that came evenly.
        let between = u128::from(self.current - from) + 1;
        let slot = |i: u64| {
            let passed = (2 * u128::from(i) + 1) * between / (2 * u128::from(number));
            from + u64::try_from(passed).unwrap_or(u64::MAX)
        };
        for i in 0..number {
            self.add(slot(i), Mark::default());
        }
    }

    fn add(&mut self, slot: u64, mark: Mark) {
        if self.current.saturating_sub(slot) < SLOTS as u64 {
            self.slots[(slot % SLOTS as u64) as usize].add(mark);
            self.counts.add(mark);
        }
    }

    // Forgets the slots that are too old now: all of them at most, however long it has been.
    fn advance(&mut self, now: Instant) {
        let start = *self.start.get_or_insert(now);
        let passed = now.saturating_duration_since(start);
        let slot = u64::try_from(passed.as_nanos()).unwrap_or(u64::MAX) / self.width;
        for _ in 0..slot.saturating_sub(self.current).min(SLOTS as u64) {
            self.current += 1;
            let oldest = &mut self.slots[(self.current % SLOTS as u64) as usize];
            self.counts.subtract(std::mem::take(oldest));
        }
        self.current = self.current.max(slot);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GOOD: Mark = Mark { failed: false, slow: false };
    const BAD: Mark = Mark { failed: true, slow: false };
    const SLOW: Mark = Mark { failed: false, slow: true };

    fn counts(calls: u64, failed: u64, slow: u64) -> Counts {
        Counts { calls, failed, slow }
    }

    #[test]
    fn the_oldest_of_n_calls_makes_room() {
        let now = Instant::now();
        let mut window = Window::new(Span::Calls(3));
        for (mark, expected) in [
            (BAD, counts(1, 1, 0)),
            (SLOW, counts(2, 1, 1)),
            (GOOD, counts(3, 1, 1)),
            (GOOD, counts(3, 0, 1)),
            (Mark { failed: true, slow: true }, counts(3, 1, 1)),
        ] {
            window.push(mark, now);
            assert_eq!(window.counts(), expected);
        }
        window.successes(1_000_000_000_000, now);
        assert_eq!(window.counts(), counts(3, 0, 0));
        window.push(BAD, now);
        window.clear();
        assert_eq!(window.counts(), counts(0, 0, 0));
        window.push(BAD, now);
        assert_eq!(window.counts(), counts(1, 1, 0));
    }

    #[test]
    fn a_window_of_time_forgets_a_tenth_at_a_time() {
        let start = Instant::now();
        let mut window = Window::new(Span::Time(10 * SECOND));
        window.push(BAD, start);
        window.push(SLOW, start + SECOND);
        window.successes(0, start + SECOND * 10 - Duration::from_nanos(1));
        assert_eq!(window.counts(), counts(2, 1, 1));
        window.successes(0, start + SECOND * 10);
        assert_eq!(window.counts(), counts(1, 0, 1));
        window.successes(0, start + SECOND * 11);
        assert_eq!(window.counts(), counts(0, 0, 0));
    }

    #[test]
    fn successes_found_late_came_evenly() {
        let start = Instant::now();
        let mut window = Window::new(Span::Time(10 * SECOND));
        window.push(GOOD, start);
        // One a second for the last 40 s: ten of them are young enough, and one a second of those gets too old.
        window.successes(40, start + 39 * SECOND);
        for left in (0..=10).rev() {
            assert_eq!(window.counts(), counts(left, 0, 0));
            window.successes(0, start + (50 - left as u32) * SECOND);
        }
    }

    #[test]
    fn the_price_does_not_depend_on_how_long_nothing_happened() {
        let start = Instant::now();
        let mut window = Window::new(Span::Time(Duration::from_nanos(10)));
        // A walk over every slot in between would take years.
        for year in 1..=50 {
            window.push(BAD, start + year * Duration::from_secs(365 * 24 * 3600));
            assert_eq!(window.counts(), counts(1, 1, 0));
        }
    }

    #[test]
    fn a_clock_that_goes_back_loses_nothing() {
        let start = Instant::now() + Duration::from_secs(7200);
        let mut window = Window::new(Span::Time(10 * SECOND));
        window.push(BAD, start);
        window.push(BAD, start - Duration::from_secs(3600));
        window.successes(2, start - Duration::from_secs(7200));
        assert_eq!(window.counts(), counts(4, 2, 0));
        window.successes(0, start + SECOND * 10);
        assert_eq!(window.counts(), counts(0, 0, 0));
    }

    #[test]
    fn spans_of_any_length_work() {
        let start = Instant::now();
        for length in [Duration::from_nanos(1), Duration::MAX] {
            let mut window = Window::new(Span::Time(length));
            window.push(BAD, start);
            window.successes(3, start);
            assert_eq!(window.counts(), counts(4, 1, 0));
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(bool, bool),
        Successes(u64),
    }

    fn script() -> impl Strategy<Value = Vec<(i64, Step)>> {
        let pause = prop_oneof![6 => 0i64..300, 2 => 300i64..5000, 1 => 5000i64..10_000_000, 1 => -2000i64..0];
        let step = prop_oneof![
            (any::<bool>(), any::<bool>()).prop_map(|(failed, slow)| Step::Push(failed, slow)),
            (0u64..50).prop_map(Step::Successes),
        ];
        prop::collection::vec((pause, step), 1..120)
    }

    fn sum(marks: impl Iterator<Item = Mark>) -> Counts {
        let mut counts = Counts::default();
        marks.for_each(|mark| counts.add(mark));
        counts
    }

    proptest! {
        #[test]
        fn a_window_of_calls_counts_as_a_list_does(length in 1u32..60, script in script()) {
            let now = Instant::now();
            let mut window = Window::new(Span::Calls(length));
            let mut list = VecDeque::new();
            for (_, step) in script {
                match step {
                    Step::Push(failed, slow) => {
                        window.push(Mark { failed, slow }, now);
                        list.push_back(Mark { failed, slow });
                    }
                    Step::Successes(number) => {
                        window.successes(number, now);
                        list.extend((0..number).map(|_| GOOD));
                    }
                }
                let skip = list.len().saturating_sub(length as usize);
                prop_assert_eq!(window.counts(), sum(list.iter().skip(skip).copied()));
            }
        }

        #[test]
        fn a_window_of_time_counts_as_a_list_does(script in script()) {
            // Milliseconds; the window is one second, a slot 100 ms.
            let start = Instant::now() + Duration::from_secs(1 << 20);
            let mut window = Window::new(Span::Time(SECOND));
            let mut list: Vec<(u64, Mark)> = Vec::new();
            let (mut clock, mut seen, mut first) = (0i64, 0u64, None);
            for (pause, step) in script {
                clock = (clock + pause).max(-1_000_000);
                let now = if clock < 0 {
                    start - Duration::from_millis(clock.unsigned_abs())
                } else {
                    start + Duration::from_millis(clock.unsigned_abs())
                };
                let since = *first.get_or_insert(clock);
                let slot = seen.max(u64::try_from((clock - since) / 100).unwrap_or(0));
                match step {
                    Step::Push(failed, slow) => {
                        window.push(Mark { failed, slow }, now);
                        list.push((slot, Mark { failed, slow }));
                    }
                    Step::Successes(number) => {
                        window.successes(number, now);
                        // In the middles of so many equal parts of the slots since the last look.
                        let span = (slot - seen + 1) as f64;
                        let middle = |i: u64| ((i as f64 + 0.5) / number as f64 * span + 1e-9) as u64;
                        list.extend((0..number).map(|i| (seen + middle(i), GOOD)));
                    }
                }
                seen = slot;
                let young = list.iter().filter(|(at, _)| at + 10 > slot).map(|(_, mark)| *mark);
                prop_assert_eq!(window.counts(), sum(young));
            }
        }
    }
}
