//! When calls of one quota may pass: a plain struct that is told the time.
//!
//! ```text
//!                 429 with a delay                    the moment is there
//!   Open ──────────────────────────────► Closed(told) ───────────────────► Recovering
//!    ▲ ▲                                   ▲                                 │    │
//!    │ └───────────────── not throttled ───│─────────────────────────────────┘    │ 429
//!    │                                     └──────────────────────────────────────┘
//!    │            429 without one, or a quota used up          one goes first
//!    │ Open ──────────────────────────────► Closed(guessed) ──────────────► Probing ──► Closed, for longer
//!    └──────────────────────────────────────── not throttled ──────────────────┘
//! ```
//!
//! * A moment named by a server is never moved forward; a guess of ours gives way to it.
//! * Of the calls that were under way together when the first of them was throttled, only that one counts: the others tell
//!   nothing new, save a later moment.
//! * Nobody waits for a probe that may never end: it goes first for [`PROBE_LEASE`], then the next one does.
//! * Nothing is in force for ever: what nobody asked about for [`FORGOTTEN_AFTER`] past its moment is as good as open.

use std::time::Duration;

use tokio::time::Instant;

use super::error::CoolingDown;
use crate::policy::Random;

/// How long a probe goes alone. A refusal comes at once, so a probe that is still under way after this long has most
/// likely been let in, and is only slow: models think for minutes.
pub(super) const PROBE_LEASE: Duration = Duration::from_secs(5);

/// How long past its moment a cool-down is remembered if nobody comes to see whether it is over. Quotas are
/// counted per minute.
pub(super) const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Longer delays are not believed, but taken for none: one absurd header must not close a quota for a year.
pub(super) const LONGEST_HINT: Duration = Duration::from_secs(24 * 60 * 60);

// A timer fires up to a millisecond late.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// `delay` after `now`, or a moment nobody lives to see.
pub(super) fn after(now: Instant, delay: Duration) -> Instant {
    // As far as timers of tokio reach.
    now.checked_add(delay).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365 * 30))
}

/// Whether calls of one quota may pass. See the [module](self).
#[derive(Debug)]
pub(super) struct Gate {
    phase: Phase,
    // Throttlings without a success in between.
    streak: u32,
    // The number of the latest probe.
    probe: u32,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Phase {
    // As if nothing had ever happened.
    Open,
    // Nobody passes. `span` is how long the server, or we, wanted to wait in all.
    Closed { until: Instant, span: Duration, why: Why },
    // One is on its way to see; `span` is how long was waited before.
    Probing { lease: Instant, span: Duration },
    // Open, but no success was seen yet.
    Recovering { since: Instant },
}

/// Why the gate is closed, the weakest reason first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Why {
    /// Calls were throttled, and how long to wait is our guess.
    Guessed,
    /// The server said for how long.
    Told,
    /// A quota is used up that will not be back soon.
    Exhausted,
}

/// What keeps a call from passing.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Hold {
    /// Nobody passes before this moment; `window` is over how long those who wait for it are let go.
    NotBefore { until: Instant, window: Duration, why: Why },
    /// A probe is on its way; this late another one goes.
    Probed { lease: Instant, window: Duration },
}

/// What a look at the gate tells.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Look {
    Hold(Hold),
    /// Whoever enters now goes first.
    Due,
    Open,
}

/// How a call passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    /// Nothing is in force.
    Free,
    /// The first success ends the cool-down.
    Watched,
    /// It goes first, with this number, and others wait for what becomes of it.
    Probe(u32),
}

/// How the outcome of a call bears on the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Report {
    /// The quota let it through.
    Passed,
    /// Nothing can be told: a lost connection, an overloaded server.
    Unknown,
    /// Too many calls; not before that long from now, if the server said so.
    Throttled(Option<Duration>),
    /// Used up for that long.
    Exhausted(Duration),
}

/// What became of the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    None,
    /// It is closed, and was not before, or for another reason.
    Closed,
    /// It stays closed for longer.
    Extended,
    /// Another call may go first.
    Due,
    /// Those who wait for a probe may pass.
    Opened,
    /// Calls pass already, and now the first of them succeeded.
    Over,
}

impl Gate {
    pub(super) const fn new() -> Self {
        Self { phase: Phase::Open, streak: 0, probe: 0 }
    }

    /// Whether a call has to look here before it is made.
    pub(super) fn in_force(&self) -> bool {
        self.phase != Phase::Open
    }

    /// Whether nothing would change if this were forgotten.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let moment = match self.phase {
            Phase::Open => return true,
            Phase::Closed { until, .. } => until,
            Phase::Probing { lease, .. } => lease,
            Phase::Recovering { since } => since,
        };
        now >= after(moment, FORGOTTEN_AFTER)
    }

    /// Before which moment nobody passes, if there is one ahead.
    pub(super) fn until(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::Closed { until, .. } if until > now => Some(until),
            _ => None,
        }
    }

    pub(super) fn look(&self, now: Instant) -> Look {
        match self.phase {
            Phase::Closed { until, span, why } if until > now => {
                let window = if why == Why::Told { span / 10 } else { probed_window(span) };
                Look::Hold(Hold::NotBefore { until, window, why })
            }
            Phase::Probing { lease, span } if lease > now => {
                Look::Hold(Hold::Probed { lease, window: probed_window(span) })
            }
            Phase::Closed { why: Why::Told, .. } | Phase::Open | Phase::Recovering { .. } => Look::Open,
            Phase::Closed { .. } | Phase::Probing { .. } if self.is_idle(now) => Look::Open,
            Phase::Closed { .. } | Phase::Probing { .. } => Look::Due,
        }
    }

    /// A call that is made now unless it is held.
    pub(super) fn enter(&mut self, now: Instant) -> Result<Entry, Hold> {
        self.forget(now);
        match (self.look(now), self.phase) {
            (Look::Hold(hold), _) => Err(hold),
            (Look::Due, Phase::Closed { span, .. } | Phase::Probing { span, .. }) => {
                self.phase = Phase::Probing { lease: after(now, PROBE_LEASE), span };
                self.probe = self.probe.wrapping_add(1);
                Ok(Entry::Probe(self.probe))
            }
            (_, Phase::Open) => Ok(Entry::Free),
            _ => {
                self.phase = Phase::Recovering { since: now };
                Ok(Entry::Watched)
            }
        }
    }

    /// A call ended. `stale` means that it began before the gate was last closed, `entry` is how it passed, and
    /// `backoff` is asked for our guess at the n-th throttling in a row.
    pub(super) fn report(
        &mut self,
        report: Report,
        entry: Entry,
        stale: bool,
        now: Instant,
        backoff: impl FnOnce(u32) -> Duration,
    ) -> Change {
        self.forget(now);
        match report {
            Report::Exhausted(span) => self.close(now, span, Why::Exhausted),
            Report::Throttled(hint) => {
                if !stale {
                    self.streak = self.streak.saturating_add(1);
                }
                match hint {
                    Some(span) if !span.is_zero() && span <= LONGEST_HINT => self.close(now, span, Why::Told),
                    _ if stale => Change::None,
                    _ => self.close(now, backoff(self.streak), Why::Guessed),
                }
            }
            _ if stale => Change::None,
            Report::Passed => self.passed(),
            Report::Unknown => match entry {
                Entry::Probe(probe) if self.is_probed_by(probe) => {
                    self.phase = Phase::Recovering { since: now };
                    Change::Opened
                }
                _ => Change::None,
            },
        }
    }

    /// The probe with this number will never report.
    pub(super) fn abandoned(&mut self, probe: u32, stale: bool, now: Instant) -> Change {
        match self.phase {
            Phase::Probing { span, .. } if !stale && self.is_probed_by(probe) => {
                self.phase = Phase::Closed { until: now, span, why: Why::Guessed };
                Change::Due
            }
            _ => Change::None,
        }
    }

    fn is_probed_by(&self, probe: u32) -> bool {
        matches!(self.phase, Phase::Probing { .. }) && self.probe == probe
    }

    fn forget(&mut self, now: Instant) {
        if self.is_idle(now) {
            self.phase = Phase::Open;
            self.streak = 0;
        }
    }

    fn passed(&mut self) -> Change {
        let change = match self.phase {
            Phase::Probing { .. } => Change::Opened,
            Phase::Recovering { .. } => Change::Over,
            Phase::Open | Phase::Closed { .. } => return Change::None,
        };
        *self = Self { phase: Phase::Open, streak: 0, ..*self };
        change
    }

    fn close(&mut self, now: Instant, span: Duration, why: Why) -> Change {
        let until = after(now, span);
        let closed = match self.phase {
            Phase::Closed { until: current, .. } if current <= now => None,
            Phase::Closed { until, span, why } => Some((until, span, why)),
            _ => None,
        };
        let (change, phase) = match closed {
            None => (Change::Closed, Phase::Closed { until, span, why }),
            Some((_, _, Why::Guessed)) if why == Why::Told => (Change::Closed, Phase::Closed { until, span, why }),
            Some((current, old_span, old_why)) => {
                let why = why.max(old_why);
                let (until, span) = if until > current { (until, span) } else { (current, old_span) };
                let change = match () {
                    () if why > old_why => Change::Closed,
                    () if until > current => Change::Extended,
                    () => Change::None,
                };
                (change, Phase::Closed { until, span, why })
            }
        };
        self.phase = phase;
        change
    }
}

// Nobody knows how much the server takes, so those who waited for a probe follow over as long as was waited before it.
fn probed_window(span: Duration) -> Duration {
    span.min(PROBE_LEASE)
}

/// A call that waits: how long it may, and whether it still has to keep its distance from the others.
#[derive(Debug)]
pub(super) struct Waiter {
    latest: Instant,
    // It waits for a probe, and will be one of those let go over this window.
    owed: Option<Duration>,
    // It passes at this moment, unless the gate says otherwise by then.
    drawn: Option<Instant>,
}

/// What a waiting call does next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// Look again at this moment.
    Sleep(Instant),
    Proceed,
    Refuse(CoolingDown),
}

impl Waiter {
    /// For a call that came at `now`, waits no longer than `max_wait` and has to be done by `deadline`.
    pub(super) fn new(now: Instant, max_wait: Duration, deadline: Option<Instant>) -> Self {
        let latest = after(now, max_wait);
        // The deadline itself is too late.
        let deadline = deadline.map(|deadline| deadline.checked_sub(TIMER_GRAIN).unwrap_or(now));
        Self { latest: deadline.map_or(latest, |deadline| latest.min(deadline)), owed: None, drawn: None }
    }

    /// What to do in the light of a look at the gate.
    pub(super) fn step(&mut self, look: Look, now: Instant, random: &mut Random) -> Step {
        match look {
            Look::Due => Step::Proceed,
            Look::Open => {
                if let Some(window) = self.owed.take() {
                    self.drawn = Some(self.spread(now, window, random));
                }
                // The others are on their way: keep the distance to them.
                match self.drawn {
                    Some(moment) if moment > now => Step::Sleep(moment),
                    _ => Step::Proceed,
                }
            }
            Look::Hold(hold) => self.held(hold, now, random),
        }
    }

    /// Whether a call that is held has to give up at once.
    pub(super) fn refused(&self, hold: &Hold, now: Instant) -> Option<CoolingDown> {
        let (moment, too_late, exhausted) = match *hold {
            Hold::NotBefore { until, why, .. } => (until, until > self.latest, why == Why::Exhausted),
            Hold::Probed { lease, .. } => (lease, now >= self.latest, false),
        };
        (too_late || exhausted).then(|| CoolingDown::new(now, moment, exhausted))
    }

    fn held(&mut self, hold: Hold, now: Instant, random: &mut Random) -> Step {
        if let Some(error) = self.refused(&hold, now) {
            return Step::Refuse(error);
        }
        let (moment, owed) = match hold {
            Hold::NotBefore { until, window, why: Why::Told } => (self.spread(until, window, random), None),
            Hold::NotBefore { until: moment, window, .. } | Hold::Probed { lease: moment, window } => {
                (moment.min(self.latest), Some(window))
            }
        };
        self.owed = owed;
        self.drawn = owed.is_none().then_some(moment);
        Step::Sleep(moment)
    }

    // A moment drawn from the window that begins at `from`, never later than this call can use.
    fn spread(&self, from: Instant, window: Duration, random: &mut Random) -> Instant {
        after(from, random.between(Duration::ZERO, window)).min(self.latest)
    }
}
