//! Closed → open → half-open, as a plain struct that is told the time.
//!
//! What it promises:
//!
//! * In half-open, at most [`probes`](BreakerPolicy::probes) permits are out or used up. One that comes back
//!   unused is given to the next call. Those that neither come back nor are used for as long as the circuit had been
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
    /// When permits were last given out, and how long they are waited for.
    since: Instant,
    patience: Duration,
    /// How many permits are left to be given.
    permits: u32,
    outcomes: Counts,
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
                Phase::HalfOpen(probing) => now.saturating_duration_since(probing.since) >= probing.patience,
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
            });
        }
        let Phase::HalfOpen(probing) = &mut self.phase else { return Ok(self.era) };
        probing.since = probing.since.min(now);
        if probing.permits == 0 {
            if now.saturating_duration_since(probing.since) < probing.patience {
                return Err(Refusal { state: State::HalfOpen, retry_after: None });
            }
            // Not one of them came back in all that time.
            self.era = self.era.next(Era::GATED);
            probing.since = now;
            probing.permits = missing(&self.policy, probing);
        }
        probing.permits -= 1;
        Ok(self.era)
    }

    /// A call that was let through in `era` ended without telling anything about the service.
    pub(super) fn release(&mut self, era: Era) {
        if let Phase::HalfOpen(probing) = &mut self.phase
            && era == self.era
            && self.force.is_none()
        {
            probing.permits = (probing.permits + 1).min(missing(&self.policy, probing));
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
