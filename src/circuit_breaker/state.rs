//! Closed → open → half-open, as a plain struct that is told the time.
//!
//! What it promises:
//!
//! * In half-open, at most [`probes`](BreakerPolicy::probes) permits are out or used up. One that comes back
//!   unused is given to the next call, after a pause if its call and too many before it were dropped. Those that neither come back nor are used for as long as the circuit had been
//!   open are given up for lost and replaced, so that half-open always goes on; their outcomes still count if they come.
//! * What was let through before a circuit opened or closed says nothing about it afterwards.
//! * Only a failure or a slow call opens a circuit, never a success.
//! * A clock that goes back makes nothing last longer than it would have from that moment on.

use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::{
    policy::BreakerPolicy,
    window::{Counts, Mark, Window},
};
use crate::policy::Random;

/// Dropped probes beyond the first few are followed by a pause: this part of the open time at first, and twice as much each
/// time, up to a quarter of it. A caller who leaves early tells less than one who saw a failure, so a service that is well again
/// is found out sooner than after a failed probe; but where every caller leaves, the service hangs, and each probe costs one of
/// them its patience.
const FIRST_PAUSE: u32 = 64;
const DOUBLINGS: u32 = 4;

/// What a circuit does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum State {
    /// Calls flow, and are counted.
    Closed,
    /// Calls are refused until it is time for the next probe.
    Open,
    /// A few calls are let through as probes, the others are refused.
    HalfOpen,
    /// Calls are refused until somebody says otherwise.
    ForcedOpen,
    /// Calls flow and are counted, and nothing opens the circuit until somebody says otherwise.
    ForcedClosed,
    /// Calls flow and nobody looks, until somebody says otherwise.
    Disabled,
}

impl State {
    /// The state in lower case, as a label: `closed`, `half-open`, …
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
            Self::ForcedOpen => "forced open",
            Self::ForcedClosed => "forced closed",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Who decides about the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Force {
    Open,
    Closed,
    Disabled,
}

/// Which stretch of a circuit's life a call belongs to: what was let through then counts then only. In its lower two
/// bits, what a call has to do; the rest is a number that is never the same again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Era(usize);

impl Era {
    const FLOWS: usize = 0;
    const FLOWS_BY_FORCE: usize = 1;
    const UNWATCHED: usize = 2;
    const GATED: usize = 3;

    pub(super) const fn from_bits(bits: usize) -> Self {
        Self(bits)
    }

    pub(super) const fn bits(self) -> usize {
        self.0
    }

    const fn kind(self) -> usize {
        self.0 & 3
    }

    /// Whether calls pass without being asked about, and their outcomes count.
    pub(super) const fn flows(self) -> bool {
        matches!(self.kind(), Self::FLOWS | Self::FLOWS_BY_FORCE)
    }

    /// Whether calls pass and nobody looks.
    pub(super) const fn is_unwatched(self) -> bool {
        self.kind() == Self::UNWATCHED
    }

    /// Whether every call has to ask.
    pub(super) const fn is_gated(self) -> bool {
        self.kind() == Self::GATED
    }

    /// Whether the circuit is closed of its own accord.
    pub(super) const fn is_closed(self) -> bool {
        self.kind() == Self::FLOWS
    }

    const fn next(self, kind: usize) -> Self {
        Self((self.0 | 3).wrapping_add(1) | kind)
    }

    // How many eras later than `first` it is.
    const fn since(self, first: Self) -> usize {
        (self.0 >> 2).wrapping_sub(first.0 >> 2) & (usize::MAX >> 2)
    }
}

/// A call that has to wait, and for how long if that is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) state: State,
    pub(super) retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    /// `since` it was last opened; `None` if it never was.
    Closed {
        since: Option<Instant>,
    },
    Open {
        since: Instant,
        length: Duration,
    },
    HalfOpen(Probing),
}

#[derive(Clone, Copy, Debug)]
struct Probing {
    /// The era it began with.
    first: Era,
    /// When a permit was last given out, and how long they are waited for.
    since: Instant,
    patience: Duration,
    /// How many permits are left to be given.
    permits: u32,
    outcomes: Counts,
    /// How many probes in a row were dropped, when the last of them was, and how long nobody passes after it.
    dropped: u32,
    dropped_at: Instant,
    pause: Duration,
}

/// One circuit; see the [module](self).
#[derive(Debug)]
pub(super) struct Circuit {
    policy: BreakerPolicy,
    phase: Phase,
    force: Option<Force>,
    era: Era,
    window: Window,
    /// Failures without a success in between.
    consecutive: u32,
    /// How often it opened, and how often of these in a row without having been well for long.
    opened: u64,
    grown: u32,
    last_open: Duration,
}

impl Circuit {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        Self {
            policy,
            phase: Phase::Closed { since: None },
            force: None,
            era: Era(Era::FLOWS),
            window: Window::new(policy.span),
            consecutive: 0,
            opened: 0,
            grown: 0,
            last_open: Duration::ZERO,
        }
    }

    pub(super) const fn state(&self) -> State {
        match (self.force, self.phase) {
            (Some(Force::Open), _) => State::ForcedOpen,
            (Some(Force::Closed), _) => State::ForcedClosed,
            (Some(Force::Disabled), _) => State::Disabled,
            (None, Phase::Closed { .. }) => State::Closed,
            (None, Phase::Open { .. }) => State::Open,
            (None, Phase::HalfOpen(_)) => State::HalfOpen,
        }
    }

    pub(super) const fn era(&self) -> Era {
        self.era
    }

    pub(super) fn counts(&self) -> Counts {
        self.window.counts()
    }

    /// How long until calls are let through again, if the time is what keeps them.
    pub(super) fn until_probe(&self, now: Instant) -> Option<Duration> {
        match (self.force, self.phase) {
            (None, Phase::Open { since, length }) => Some(length.saturating_sub(now.saturating_duration_since(since))),
            _ => None,
        }
    }

    /// Whether a new circuit would do as well: it is closed, or has been left alone for long after its time was up. Asked
    /// where nobody holds a permit.
    pub(super) fn is_forgettable(&self, now: Instant) -> bool {
        self.force.is_none()
            && match self.phase {
                Phase::Closed { .. } => true,
                Phase::Open { since, length } => now.saturating_duration_since(since) >= length.saturating_mul(2),
                Phase::HalfOpen(probing) => {
                    now.saturating_duration_since(probing.since.max(probing.dropped_at)) >= probing.patience
                }
            }
    }

    /// Whether a call may pass, and the era its outcome belongs to.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Era, Refusal> {
        if self.force.is_some() {
            let refusal = Refusal { state: State::ForcedOpen, retry_after: None };
            return if self.era.is_gated() { Err(refusal) } else { Ok(self.era) };
        }
        if let Phase::Open { since, length } = &mut self.phase {
            // Only if the clock went back.
            *since = (*since).min(now);
            let left = length.saturating_sub(now.saturating_duration_since(*since));
            if !left.is_zero() {
                return Err(Refusal { state: State::Open, retry_after: Some(left) });
            }
            let patience = *length;
            self.era = self.era.next(Era::GATED);
            self.consecutive = 0;
            self.phase = Phase::HalfOpen(Probing {
                first: self.era,
                since: now,
                patience,
                permits: self.policy.probes,
                outcomes: Counts::default(),
                dropped: 0,
                dropped_at: now,
                pause: Duration::ZERO,
            });
        }
        let Phase::HalfOpen(probing) = &mut self.phase else { return Ok(self.era) };
        probing.since = probing.since.min(now);
        probing.dropped_at = probing.dropped_at.min(now);
        let left = probing.pause.saturating_sub(now.saturating_duration_since(probing.dropped_at));
        if !left.is_zero() {
            return Err(Refusal { state: State::HalfOpen, retry_after: Some(left) });
        }
        if probing.permits == 0 {
            if now.saturating_duration_since(probing.since) < probing.patience {
                return Err(Refusal { state: State::HalfOpen, retry_after: None });
            }
            // Not one of them came back in all that time.
            self.era = self.era.next(Era::GATED);
            probing.permits = missing(&self.policy, probing);
        }
        probing.permits -= 1;
        probing.since = now;
        Ok(self.era)
    }

    /// A call that was let through in `era` ended without telling anything about the service.
    pub(super) fn release(&mut self, era: Era) {
        match &mut self.phase {
            Phase::HalfOpen(probing) if era == self.era && self.force.is_none() => {
                probing.permits = (probing.permits + 1).min(missing(&self.policy, probing));
            }
            _ => {}
        }
    }

    /// The same of a call that was dropped: nobody waited for its outcome.
    pub(super) fn abandon(&mut self, era: Era, now: Instant) {
        self.release(era);
        match &mut self.phase {
            Phase::HalfOpen(probing) if era == self.era && self.force.is_none() => {
                probing.dropped = probing.dropped.saturating_add(1);
                probing.dropped_at = now;
                // As many as are let through together may leave together.
                if let Some(doublings) = probing.dropped.checked_sub(self.policy.probes.saturating_add(1)) {
                    probing.pause = probing.patience / (FIRST_PAUSE >> doublings.min(DOUBLINGS));
                }
            }
            _ => {}
        }
    }

    /// So many calls that were let through while the circuit was closed ended well and fast since it was last told.
    pub(super) fn successes(&mut self, number: u64, now: Instant) {
        // Also with none: the window learns the time.
        let number = if matches!(self.phase, Phase::Closed { .. }) && self.era.flows() { number } else { 0 };
        self.window.successes(number, now);
        if number > 0 {
            self.consecutive = 0;
        }
    }

    /// A call that was let through in `era` ended.
    pub(super) fn record(&mut self, era: Era, mark: Mark, now: Instant, random: &mut Random) {
        match &mut self.phase {
            Phase::Closed { .. } if era == self.era && era.flows() => {
                self.window.push(mark, now);
                self.consecutive = self.in_a_row(mark);
                if self.force.is_none() && self.is_too_bad(self.window.counts(), mark, self.policy.minimum()) {
                    self.open(now, random);
                }
            }
            Phase::HalfOpen(probing)
                if self.force.is_none() && self.era.since(probing.first) >= era.since(probing.first) =>
            {
                let outcomes = &mut probing.outcomes;
                outcomes.calls += 1;
                outcomes.failed += u64::from(mark.failed);
                outcomes.slow += u64::from(mark.slow);
                let outcomes = *outcomes;
                (probing.dropped, probing.pause) = (0, Duration::ZERO);
                probing.permits = probing.permits.min(missing(&self.policy, probing));
                self.consecutive = self.in_a_row(mark);
                // Of all probes, those that are still out included: if that is too much, nothing can help it any more.
                let probes = u64::from(self.policy.probes);
                let at_best = Counts { calls: probes.max(outcomes.calls), ..outcomes };
                let failed_at_all = mark.failed && self.policy.failure_rate.is_none();
                if failed_at_all || self.is_too_bad(at_best, mark, 0) {
                    self.open(now, random);
                } else if outcomes.calls >= probes {
                    self.close(now);
                }
            }
            _ => {}
        }
    }

    /// Takes the decision away from the circuit, or gives it back; either way it starts with nothing counted.
    pub(super) fn force(&mut self, force: Option<Force>) {
        self.force = force;
        self.phase = Phase::Closed { since: None };
        self.era = self.era.next(match force {
            None => Era::FLOWS,
            Some(Force::Closed) => Era::FLOWS_BY_FORCE,
            Some(Force::Disabled) => Era::UNWATCHED,
            Some(Force::Open) => Era::GATED,
        });
        self.window.clear();
        self.consecutive = 0;
        self.grown = 0;
    }

    // What is slow and did not fail is neither a failure in a row nor the end of one: it may have been given up.
    const fn in_a_row(&self, mark: Mark) -> u32 {
        match mark {
            Mark { failed: true, .. } => self.consecutive.saturating_add(1),
            Mark { slow: true, .. } => self.consecutive,
            _ => 0,
        }
    }

    // Whether a call like `mark`, now among the counted, is one too many.
    fn is_too_bad(&self, counts: Counts, mark: Mark, minimum: u32) -> bool {
        // A division of whole numbers gives the float that is nearest to the rate, which is what the literal is.
        let reaches =
            |bad: u64, rate: f64| counts.calls >= u64::from(minimum) && bad as f64 / counts.calls as f64 >= rate;
        let consecutive = self.policy.consecutive.is_some_and(|limit| self.consecutive >= limit.get());
        mark.failed && (consecutive || self.policy.failure_rate.is_some_and(|rate| reaches(counts.failed, rate)))
            || mark.slow && self.policy.slow.is_some_and(|slow| reaches(counts.slow, slow.rate))
    }

    fn open(&mut self, now: Instant, random: &mut Random) {
        let well = match self.phase {
            // A circuit that closed is well once it has been closed for as long as it had been open.
            Phase::Closed { since } => since.is_none_or(|since| now.saturating_duration_since(since) >= self.last_open),
            _ => false,
        };
        self.grown = if well { 0 } else { self.grown.saturating_add(1) };
        let length = self.policy.open_for(self.opened, self.grown, random);
        self.opened = self.opened.wrapping_add(1);
        self.last_open = length;
        self.era = self.era.next(Era::GATED);
        self.phase = Phase::Open { since: now, length };
    }

    fn close(&mut self, now: Instant) {
        self.era = self.era.next(Era::FLOWS);
        self.phase = Phase::Closed { since: Some(now) };
        self.window.clear();
        self.consecutive = 0;
    }
}

// How many probes are still to be answered.
fn missing(policy: &BreakerPolicy, probing: &Probing) -> u32 {
    policy.probes.saturating_sub(u32::try_from(probing.outcomes.calls).unwrap_or(u32::MAX)).max(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GOOD: Mark = Mark { failed: false, slow: false };
    const BAD: Mark = Mark { failed: true, slow: false };
    const SLOW: Mark = Mark { failed: false, slow: true };

    /// A circuit and its clock.
    struct Bench {
        circuit: Circuit,
        now: Instant,
    }

    impl Bench {
        fn new(policy: BreakerPolicy) -> Self {
            Self { circuit: Circuit::new(policy), now: Instant::now() + Duration::from_secs(1 << 20) }
        }

        fn admit(&mut self) -> Result<Era, Refusal> {
            self.circuit.admit(self.now)
        }

        fn permits(&mut self) -> Vec<Era> {
            std::iter::from_fn(|| self.admit().ok()).take(100).collect()
        }

        fn record(&mut self, era: Era, mark: Mark) {
            self.circuit.record(era, mark, self.now, &mut Random::from_thread());
        }

        fn call(&mut self, mark: Mark) -> State {
            let era = self.admit().expect("let through");
            self.record(era, mark);
            self.circuit.state()
        }

        fn calls(&mut self, number: usize, mark: Mark) -> State {
            for _ in 0..number {
                self.call(mark);
            }
            self.circuit.state()
        }

        fn left(&self) -> Duration {
            self.circuit.until_probe(self.now).expect("open")
        }

        fn pass(&mut self, time: Duration) {
            self.now += time;
        }

        fn pass_until_probe(&mut self) {
            let left = self.left();
            self.now += left;
        }
    }

    fn policy() -> BreakerPolicy {
        BreakerPolicy::new()
    }

    /// Opens with one failure.
    fn touchy() -> BreakerPolicy {
        policy().consecutive_failures(1).unwrap()
    }

    #[test]
    fn opens_at_the_failure_rate_and_not_below() {
        let mut bench = Bench::new(policy());
        bench.circuit.successes(60, bench.now);
        assert_eq!(bench.calls(59, BAD), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn a_literal_rate_is_reached_exactly() {
        for (rate, failures) in [(0.1, 3), (0.3, 9), (0.7, 21), (1.0, 30)] {
            let mut bench = Bench::new(policy().failure_rate(rate).unwrap().minimum_calls(30).unwrap());
            bench.circuit.successes(30 - failures, bench.now);
            assert_eq!(bench.calls(failures as usize - 1, BAD), State::Closed, "{rate}");
            assert_eq!(bench.call(BAD), State::Open, "{rate}");
        }
    }

    #[test]
    fn opens_at_no_rate_before_there_are_enough_calls() {
        let mut bench = Bench::new(policy());
        assert_eq!(bench.calls(19, BAD), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn a_success_never_opens_it() {
        // The 20th call makes it 15 of 20, but it is a success.
        let mut bench = Bench::new(policy());
        assert_eq!(bench.calls(15, BAD), State::Closed);
        assert_eq!(bench.calls(5, GOOD), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
        let mut zero = Bench::new(policy().failure_rate(0.0).unwrap());
        assert_eq!(zero.calls(100, GOOD), State::Closed);
        assert_eq!(zero.call(BAD), State::Open);
    }

    #[test]
    fn failures_out_of_the_window_are_forgotten() {
        let mut bench = Bench::new(policy());
        assert_eq!(bench.calls(19, BAD), State::Closed);
        bench.pass(10 * SECOND);
        assert_eq!(bench.calls(19, BAD), State::Closed);
        let mut bench = Bench::new(policy().window_calls(25).unwrap());
        assert_eq!(bench.calls(12, BAD), State::Closed);
        bench.circuit.successes(13, bench.now);
        // Each new failure drives an old one out.
        assert_eq!(bench.calls(12, BAD), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn opens_after_so_many_failures_in_a_row() {
        let mut bench = Bench::new(policy().without_failure_rate().consecutive_failures(3).unwrap());
        for _ in 0..50 {
            assert_eq!(bench.calls(2, BAD), State::Closed);
            bench.circuit.successes(1, bench.now);
        }
        assert_eq!(bench.calls(2, BAD), State::Closed);
        bench.circuit.successes(0, bench.now);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn opens_at_the_rate_of_slow_calls() {
        let mut bench = Bench::new(policy().without_failure_rate().slow_calls(SECOND, 0.5).unwrap());
        assert_eq!(bench.calls(40, BAD), State::Closed);
        assert_eq!(bench.calls(39, SLOW), State::Closed);
        assert_eq!(bench.call(SLOW), State::Open);
        // What is both is counted as both.
        let mut both = Bench::new(policy().slow_calls(SECOND, 1.0).unwrap());
        assert_eq!(both.calls(20, Mark { failed: true, slow: true }), State::Open);
        assert_eq!(both.circuit.counts(), Counts { calls: 20, failed: 20, slow: 20 });
    }

    #[test]
    fn a_slow_success_neither_ends_a_row_of_failures_nor_lengthens_it() {
        let mut bench = Bench::new(policy().consecutive_failures(3).unwrap().slow_calls(SECOND, 1.0).unwrap());
        assert_eq!(bench.calls(2, BAD), State::Closed);
        assert_eq!(bench.calls(5, SLOW), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn refuses_until_the_probe_is_due_and_says_when() {
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        let left = bench.left();
        assert!((5 * SECOND..=10 * SECOND).contains(&left), "{left:?}");
        for passed in [Duration::ZERO, SECOND, left - SECOND - Duration::from_nanos(1)] {
            bench.pass(passed);
            let left = bench.left();
            assert_eq!(bench.admit(), Err(Refusal { state: State::Open, retry_after: Some(left) }));
        }
        assert_eq!(bench.left(), Duration::from_nanos(1));
        bench.pass(Duration::from_nanos(1));
        assert!(bench.admit().is_ok());
        assert_eq!((bench.circuit.state(), bench.circuit.until_probe(bench.now)), (State::HalfOpen, None));
    }

    #[test]
    fn lets_as_many_probes_through_as_it_says_and_closes_when_they_are_good() {
        for probes in [1, 3, 10] {
            let mut bench = Bench::new(touchy().probes(probes).unwrap());
            bench.call(BAD);
            bench.pass_until_probe();
            let permits = bench.permits();
            assert_eq!(permits.len(), probes as usize);
            assert_eq!(bench.admit(), Err(Refusal { state: State::HalfOpen, retry_after: None }));
            for (answered, era) in permits.into_iter().enumerate() {
                assert_eq!(bench.circuit.state(), State::HalfOpen, "{answered} of {probes}");
                bench.record(era, GOOD);
                assert!(answered + 1 == probes as usize || bench.admit().is_err(), "used up, not given back");
            }
            assert_eq!(bench.circuit.state(), State::Closed);
            assert_eq!(bench.circuit.counts(), Counts::default());
        }
    }

    #[test]
    fn opens_again_as_soon_as_the_probes_cannot_be_good_enough() {
        // Of ten, half are too many: it is decided with the fifth failure, whatever the others say.
        let mut bench = Bench::new(policy().probes(10).unwrap());
        bench.calls(20, BAD);
        bench.pass_until_probe();
        assert_eq!(bench.calls(4, BAD), State::HalfOpen);
        assert_eq!(bench.calls(5, GOOD), State::HalfOpen);
        assert_eq!(bench.call(BAD), State::Open);
        // And with four it closes.
        bench.pass_until_probe();
        assert_eq!(bench.calls(4, BAD), State::HalfOpen);
        assert_eq!(bench.calls(6, GOOD), State::Closed);
    }

    #[test]
    fn without_a_rate_one_failed_probe_opens_it_again() {
        let mut bench = Bench::new(policy().without_failure_rate().consecutive_failures(5).unwrap());
        bench.calls(5, BAD);
        bench.pass_until_probe();
        assert_eq!(bench.calls(2, GOOD), State::HalfOpen);
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn slow_probes_and_probes_that_fail_in_a_row_open_it_again() {
        let mut slow = Bench::new(policy().slow_calls(SECOND, 0.6).unwrap());
        slow.calls(20, SLOW);
        slow.pass_until_probe();
        assert_eq!(slow.call(SLOW), State::HalfOpen);
        assert_eq!(slow.call(SLOW), State::Open);
        let mut row = Bench::new(policy().probes(100).unwrap().consecutive_failures(2).unwrap());
        row.calls(2, BAD);
        row.pass_until_probe();
        assert_eq!(row.call(BAD), State::HalfOpen, "the failures before do not count");
        assert_eq!(row.call(GOOD), State::HalfOpen);
        assert_eq!(row.call(BAD), State::HalfOpen);
        assert_eq!(row.call(BAD), State::Open);
    }

    #[test]
    fn a_permit_that_comes_back_unused_goes_to_the_next_call() {
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        bench.pass_until_probe();
        for _ in 0..100 {
            let permits = bench.permits();
            assert_eq!(permits.len(), 3);
            permits.into_iter().for_each(|era| bench.circuit.release(era));
        }
        assert_eq!(bench.call(GOOD), State::HalfOpen);
        assert_eq!(bench.permits().len(), 2);
    }

    #[test]
    fn dropped_probes_are_followed_by_a_pause_that_grows_until_one_is_answered() {
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        let open = bench.left();
        bench.pass(open);
        for part in [64, 32, 16, 8, 4, 4, 4] {
            if part == 64 {
                // The first three are nothing to speak of.
                bench.permits().into_iter().for_each(|era| bench.circuit.abandon(era, bench.now));
            }
            let dropped = bench.admit().unwrap();
            bench.circuit.abandon(dropped, bench.now);
            let pause = open / part;
            let refusal = Refusal { state: State::HalfOpen, retry_after: Some(pause) };
            assert_eq!(bench.admit(), Err(refusal), "{part}");
            bench.pass(pause - Duration::from_nanos(1));
            assert!(bench.admit().is_err(), "{part}");
            bench.pass(Duration::from_nanos(1));
        }
        // An answer, good or bad, is worth more than all that was dropped.
        let probes = bench.permits();
        assert_eq!(probes.len(), 3);
        bench.circuit.abandon(probes[0], bench.now);
        assert!(bench.admit().is_err());
        bench.record(probes[1], GOOD);
        assert!(bench.admit().is_ok());
        bench.record(probes[2], GOOD);
        assert_eq!(bench.circuit.state(), State::HalfOpen);
        // Nothing of it is left in the next half-open.
        bench.record(probes[0], BAD);
        bench.pass_until_probe();
        bench.permits().into_iter().for_each(|era| bench.circuit.abandon(era, bench.now));
        assert_eq!(bench.permits().len(), 3);
    }

    #[test]
    fn a_pause_is_not_for_what_is_over_and_ends_when_the_clock_jumps() {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut bench = Bench::new(touchy());
        let closed = bench.admit().unwrap();
        bench.record(closed, BAD);
        let open = bench.left();
        bench.circuit.abandon(closed, bench.now);
        bench.pass(open);
        for _ in 0..100 {
            bench.circuit.abandon(closed, bench.now);
        }
        // No dropped call of an era that is over, and no refused one, is a dropped probe.
        assert_eq!(bench.permits().len(), 3);
        bench.pass(open);
        let late = bench.circuit.era();
        assert_eq!(bench.permits().len(), 3);
        for _ in 0..100 {
            bench.circuit.abandon(late, bench.now);
        }
        assert!(bench.admit().is_err());
        assert_eq!(bench.permits().len(), 0);

        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        bench.pass_until_probe();
        for _ in 0..4 {
            let dropped = bench.admit().unwrap();
            bench.circuit.abandon(dropped, bench.now);
        }
        // An hour back: as long as it was to be, from then on.
        bench.now -= HOUR;
        let left = bench.admit().unwrap_err().retry_after.unwrap();
        bench.pass(left);
        assert!(bench.admit().is_ok());
        // A 429 is an answer, though it tells nothing.
        let throttled = bench.admit().unwrap();
        bench.circuit.release(throttled);
        assert!(bench.admit().is_ok());
    }

    #[test]
    fn permits_that_are_lost_are_replaced_and_their_outcomes_still_count() {
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        let open = bench.left();
        bench.pass(open);
        let lost = bench.permits();
        bench.pass(open - Duration::from_nanos(1));
        assert!(bench.admit().is_err());
        bench.pass(Duration::from_nanos(1));
        let new = bench.permits();
        assert_eq!((lost.len(), new.len()), (3, 3));
        // The lost ones give nothing back, since it has been given already.
        lost.iter().for_each(|era| bench.circuit.release(*era));
        assert!(bench.admit().is_err());
        bench.record(lost[0], GOOD);
        bench.record(new[0], GOOD);
        assert_eq!(bench.circuit.state(), State::HalfOpen);
        bench.circuit.release(new[1]);
        assert_eq!(bench.permits().len(), 1, "two are answered, so one is missing");
        bench.record(lost[1], GOOD);
        assert_eq!(bench.circuit.state(), State::Closed);
        bench.record(new[2], BAD);
        assert_eq!(bench.circuit.state(), State::Closed, "late, and no business of this era");
    }

    #[test]
    fn a_permit_is_not_lost_before_its_time_however_long_half_open_lasts() {
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        let open = bench.left();
        bench.pass(open);
        let dropped = bench.admit().unwrap();
        bench.pass(open);
        bench.circuit.release(dropped);
        assert_eq!(bench.permits().len(), 3, "and not three more at once");
        bench.pass(open - Duration::from_nanos(1));
        assert!(bench.admit().is_err());
        bench.pass(Duration::from_nanos(1));
        assert_eq!(bench.permits().len(), 3);
    }

    #[test]
    fn calls_from_before_a_transition_do_not_count_after_it() {
        let mut bench = Bench::new(touchy());
        let closed = bench.admit().unwrap();
        bench.record(closed, BAD);
        let left = bench.left();
        bench.record(closed, BAD);
        assert_eq!(bench.left(), left);
        bench.pass_until_probe();
        let probes = bench.permits();
        // No probe: neither does it use up a permit nor is it one that comes back.
        bench.record(closed, BAD);
        bench.circuit.release(closed);
        assert!(bench.admit().is_err());
        assert_eq!(bench.circuit.state(), State::HalfOpen);
        probes.iter().for_each(|era| bench.record(*era, GOOD));
        assert_eq!(bench.circuit.state(), State::Closed);
        bench.record(closed, BAD);
        bench.record(probes[0], BAD);
        bench.circuit.release(probes[0]);
        assert_eq!((bench.circuit.state(), bench.circuit.counts().calls), (State::Closed, 0));
        assert_eq!(bench.call(BAD), State::Open);
    }

    #[test]
    fn the_open_time_grows_while_it_does_not_get_well() {
        // With a seed, a length tells the ceiling it was drawn under.
        let policy = touchy().seed(5);
        let ceiling = |opened: u64, length: Duration| {
            (0..8).find(|grown| policy.open_for(opened, *grown, &mut Random::from_thread()) == length)
        };
        let mut bench = Bench::new(policy);
        bench.call(BAD);
        assert_eq!(ceiling(0, bench.left()), Some(0));
        // Failed probes.
        for opened in 1..=2 {
            bench.pass_until_probe();
            bench.call(BAD);
            assert_eq!(bench.call_refused(), State::Open);
            assert_eq!(ceiling(opened, bench.left()), Some(opened as u32));
        }
        // Closed, but not for as long as it had been open.
        let open = bench.left();
        bench.pass_until_probe();
        bench.calls(3, GOOD);
        bench.pass(open - Duration::from_nanos(1));
        bench.call(BAD);
        assert_eq!(ceiling(3, bench.left()), Some(3));
        // Closed for long enough.
        let open = bench.left();
        bench.pass_until_probe();
        bench.calls(3, GOOD);
        bench.pass(open);
        bench.call(BAD);
        assert_eq!(ceiling(4, bench.left()), Some(0));
    }

    impl Bench {
        fn call_refused(&mut self) -> State {
            self.admit().expect_err("refused").state
        }
    }

    #[test]
    fn forced_states_hold_until_they_are_taken_back() {
        let mut bench = Bench::new(touchy());
        let before = bench.admit().unwrap();

        bench.circuit.force(Some(Force::Open));
        bench.pass(1000 * SECOND);
        assert_eq!(bench.admit(), Err(Refusal { state: State::ForcedOpen, retry_after: None }));
        bench.record(before, GOOD);
        assert_eq!(bench.circuit.state(), State::ForcedOpen);

        bench.circuit.force(Some(Force::Closed));
        assert_eq!(bench.calls(100, BAD), State::ForcedClosed);
        bench.circuit.successes(100, bench.now);
        assert_eq!(bench.circuit.counts(), Counts { calls: 200, failed: 100, slow: 0 });

        bench.circuit.force(Some(Force::Disabled));
        assert_eq!(bench.calls(100, BAD), State::Disabled);
        bench.circuit.successes(100, bench.now);
        assert_eq!(bench.circuit.counts(), Counts::default());

        bench.circuit.force(None);
        assert_eq!(bench.calls(100, GOOD), State::Closed);
        assert_eq!(bench.call(BAD), State::Open);
        bench.circuit.force(None);
        assert_eq!(bench.call(GOOD), State::Closed);
    }

    #[test]
    fn a_clock_that_jumps_neither_panics_nor_keeps_it_open() {
        const HOUR: Duration = Duration::from_secs(3600);
        let mut bench = Bench::new(touchy());
        bench.call(BAD);
        let open = bench.left();
        // An hour back: it waits as long as it was to, from then on.
        bench.now -= HOUR;
        assert_eq!(bench.admit().unwrap_err().retry_after, Some(open));
        bench.pass(open);
        let probes = bench.permits();
        assert_eq!(probes.len(), 3);
        // And so it is for lost probes.
        bench.now -= HOUR;
        assert!(bench.admit().is_err());
        bench.pass(open);
        assert_eq!(bench.permits().len(), 3);
        bench.now -= HOUR;
        probes.into_iter().for_each(|era| bench.record(era, GOOD));
        bench.now += 24 * 365 * HOUR;
        assert_eq!(bench.call(BAD), State::Open);
        bench.now += 24 * 365 * HOUR;
        assert!(bench.admit().is_ok());
    }

    #[test]
    fn only_what_is_over_is_forgotten() {
        let mut bench = Bench::new(touchy());
        assert!(bench.circuit.is_forgettable(bench.now));
        bench.call(BAD);
        let open = bench.left();
        assert!(!bench.circuit.is_forgettable(bench.now + open));
        assert!(bench.circuit.is_forgettable(bench.now + 2 * open));
        bench.pass(open);
        bench.admit().unwrap();
        assert!(!bench.circuit.is_forgettable(bench.now));
        assert!(bench.circuit.is_forgettable(bench.now + open));
        for force in [Force::Open, Force::Closed, Force::Disabled] {
            bench.circuit.force(Some(force));
            assert!(!bench.circuit.is_forgettable(bench.now + 1000 * open), "{force:?}");
        }
    }

    #[test]
    fn eras_are_told_apart_also_where_they_begin_anew() {
        let last = Era(usize::MAX & !3 | Era::GATED);
        let next = last.next(Era::FLOWS);
        assert_eq!((next.bits(), next.since(last), last.since(last)), (Era::FLOWS, 1, 0));
        assert!(last.since(next) > 1 << 20);
        let (mut era, mut seen) = (Era(0), std::collections::HashSet::new());
        for kind in [0, 1, 2, 3, 3, 2, 1, 0, 0] {
            assert!(seen.insert(era.bits()));
            era = era.next(kind);
            assert_eq!(era.kind(), kind);
        }
    }

    /// The share of calls that succeed where each that gets through fails with probability `failing`: 100 a second
    /// for ten minutes.
    fn succeeding(failing: f64) -> f64 {
        let mut random = fastrand::Rng::with_seed(1);
        let mut bench = Bench::new(policy().seed(1));
        let mut succeeded = 0;
        for _ in 0..60_000 {
            bench.pass(SECOND / 100);
            if let Ok(era) = bench.admit() {
                let failed = random.f64() < failing;
                succeeded += u32::from(!failed);
                bench.record(era, Mark { failed, slow: false });
            }
        }
        f64::from(succeeded) / 60_000.0
    }

    // The figures of the module's documentation.
    #[test]
    fn a_partial_failure_is_made_a_total_one() {
        for (failing, least, most) in
            [(0.1, 0.895, 0.905), (0.3, 0.69, 0.71), (0.4, 0.59, 0.61), (0.5, 0.0, 0.01), (0.75, 0.0, 0.01)]
        {
            let share = succeeding(failing);
            assert!((least..=most).contains(&share), "{failing}: {share}");
        }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Pass(u64),
        Admit,
        Finish(usize, Option<(bool, bool)>),
        Drop(usize),
        Successes(u64),
        Force(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => (0u64..8000).prop_map(Step::Pass),
            1 => (0u64..100_000).prop_map(Step::Pass),
            8 => Just(Step::Admit),
            8 => (any::<usize>(), prop::option::weighted(0.8, any::<(bool, bool)>()))
                .prop_map(|(which, mark)| Step::Finish(which, mark)),
            4 => any::<usize>().prop_map(Step::Drop),
            1 => (0u64..20).prop_map(Step::Successes),
            1 => (0u8..30).prop_map(Step::Force),
        ];
        prop::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn probes_are_bounded_and_no_state_is_for_ever(probes in 1u32..6, steps in steps()) {
            let policy = policy().minimum_calls(4).unwrap().consecutive_failures(3).unwrap().probes(probes).unwrap();
            let mut bench = Bench::new(policy.slow_calls(SECOND, 0.7).unwrap());
            let mut out: Vec<Era> = Vec::new();
            for step in steps {
                match step {
                    Step::Pass(millis) => bench.pass(Duration::from_millis(millis)),
                    Step::Admit => out.extend(bench.admit()),
                    Step::Finish(_, _) | Step::Drop(_) if out.is_empty() => {}
                    Step::Drop(which) => {
                        let era = out.swap_remove(which % out.len());
                        bench.circuit.abandon(era, bench.now);
                    }
                    Step::Finish(which, mark) => {
                        let era = out.swap_remove(which % out.len());
                        match mark {
                            Some((failed, slow)) => bench.record(era, Mark { failed, slow }),
                            None => bench.circuit.release(era),
                        }
                    }
                    Step::Successes(number) => bench.circuit.successes(number, bench.now),
                    Step::Force(0) => bench.circuit.force(Some(Force::Open)),
                    Step::Force(1) => bench.circuit.force(Some(Force::Closed)),
                    Step::Force(2) => bench.circuit.force(Some(Force::Disabled)),
                    Step::Force(3..12) => bench.circuit.force(None),
                    Step::Force(_) => {}
                }
                if bench.circuit.state() == State::HalfOpen {
                    // Those of one round; the ones that were given up for lost are of another era.
                    let of_this_round = out.iter().filter(|era| **era == bench.circuit.era()).count();
                    prop_assert!(of_this_round <= probes as usize);
                }
            }
            // Whatever is still out and never comes back: calls get through again, by time alone.
            if !matches!(bench.circuit.state(), State::ForcedOpen) {
                bench.pass(Duration::from_secs(60));
                prop_assert!(bench.admit().is_ok());
            }
        }

        // However soon callers leave, and however many of them there are.
        #[test]
        fn a_service_that_hangs_is_asked_ever_less_often_and_at_last_every_quarter_of_the_open_time(
            callers in 1usize..6,
            stays in prop::collection::vec(1u64..3000, 1..400),
            probes in 1u32..6,
        ) {
            let mut bench = Bench::new(touchy().probes(probes).unwrap());
            bench.call(BAD);
            let open = bench.left();
            bench.pass(open);
            let begun = bench.now;
            let (mut out, mut asked) = (Vec::new(), 0);
            for stay in stays {
                while out.len() < callers {
                    let Ok(era) = bench.admit() else { break };
                    asked += 1;
                    out.push(era);
                }
                bench.pass(Duration::from_millis(stay));
                if let Some(era) = out.pop() {
                    bench.circuit.abandon(era, bench.now);
                }
            }
            let (passed, probes) = (bench.now - begun, u128::from(probes));
            let quarters = passed.as_nanos() / (open / 4).as_nanos() + 1;
            // The first ones, those of the growing pauses, and then as many as are let through at once; lost ones come on top.
            prop_assert!(asked <= probes + (5 + quarters) * probes + quarters / 4 * probes, "{} in {:?}", asked, passed);
            out.into_iter().for_each(|era| bench.circuit.abandon(era, bench.now));
            bench.pass(open / 4);
            for _ in 0..probes {
                prop_assert_eq!(bench.circuit.state(), State::HalfOpen);
                bench.call(GOOD);
            }
            prop_assert_eq!(bench.circuit.state(), State::Closed);
        }
    }
}
