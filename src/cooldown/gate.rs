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
use crate::{policy::Random, timeout::Deadline};

/// How long a probe goes alone. A refusal comes at once, so a probe that is still under way after this long has most
/// likely been let in, and is only slow: models think for minutes.
const PROBE_LEASE: Duration = Duration::from_secs(5);

/// How long past its moment a cool-down is remembered if nobody comes to see whether it is over. Quotas are
/// counted per minute.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);

/// Longer delays are not believed, but taken for none: one absurd header must not close a quota for a year.
const LONGEST_HINT: Duration = Duration::from_secs(24 * 60 * 60);

// A timer fires up to a millisecond late.
const TIMER_GRAIN: Duration = Duration::from_millis(1);

/// The delay a server asks for, if it is one to go by.
pub(super) fn believed(hint: Option<Duration>) -> Option<Duration> {
    hint.filter(|span| !span.is_zero() && *span <= LONGEST_HINT)
}

/// `delay` after `now`, or a moment nobody lives to see.
pub(super) fn after(now: Instant, delay: Duration) -> Instant {
    // As far as timers of tokio reach.
    now + delay.min(Duration::from_secs(86_400 * 365 * 30))
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

impl Hold {
    /// How long from now until something may change.
    pub(super) fn left(&self, now: Instant) -> Duration {
        match *self {
            Self::NotBefore { until: moment, .. } | Self::Probed { lease: moment, .. } => {
                moment.saturating_duration_since(now)
            }
        }
    }
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

    /// For how long from now it is closed, and why.
    pub(super) fn closed(&self, now: Instant) -> Option<(Duration, Why)> {
        match self.phase {
            Phase::Closed { until, why, .. } => Some((until.saturating_duration_since(now), why)),
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

    /// How many throttlings in a row another one would make.
    pub(super) fn next_streak(&self, now: Instant) -> u32 {
        if self.is_idle(now) { 1 } else { self.streak.saturating_add(1) }
    }

    /// A call ended. `stale` means that it began before the gate was last closed, `entry` is how it passed, and
    /// `guess` is how long to wait where the server does not say.
    pub(super) fn report(
        &mut self,
        report: Report,
        entry: Entry,
        stale: bool,
        now: Instant,
        guess: Duration,
    ) -> Change {
        self.forget(now);
        match report {
            Report::Exhausted(span) => self.close(now, span, Why::Exhausted),
            Report::Throttled(hint) => {
                if !stale {
                    self.streak = self.next_streak(now);
                }
                match believed(hint) {
                    Some(span) => self.close(now, span, Why::Told),
                    None if stale => Change::None,
                    None => self.close(now, guess, Why::Guessed),
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
    deadline: Option<Instant>,
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
    pub(super) fn new(now: Instant, max_wait: Duration, deadline: Option<Deadline>) -> Self {
        let latest = after(now, max_wait);
        // The deadline itself is too late.
        let deadline = deadline.map(|deadline| deadline.moment());
        let before = deadline.map(|deadline| deadline.checked_sub(TIMER_GRAIN).unwrap_or(now));
        Self { latest: before.map_or(latest, |before| latest.min(before)), deadline, owed: None, drawn: None }
    }

    /// The refusal of a call whose deadline has passed while it waited: nobody woke it in time, or its service was long in
    /// getting ready.
    pub(super) fn late(&self, now: Instant) -> Option<CoolingDown> {
        self.deadline.is_some_and(|deadline| deadline <= now).then(|| CoolingDown::new(now, now, false))
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

    // A moment drawn from the window that begins at `from`, as far as this call can use it.
    fn spread(&self, from: Instant, window: Duration, random: &mut Random) -> Instant {
        let window = window.min(self.latest.saturating_duration_since(from));
        after(from, random.between(Duration::ZERO, window))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn told(seconds: u64) -> Report {
        Report::Throttled(Some(Duration::from_secs(seconds)))
    }

    // A gate in a test: reports are of calls that passed freely and saw the last closing, and a guess is `streak` seconds.
    struct Told {
        gate: Gate,
        now: Instant,
    }

    impl Told {
        fn new() -> Self {
            Self { gate: Gate::new(), now: Instant::now() }
        }

        fn at(&self, seconds: u64) -> Instant {
            self.now + Duration::from_secs(seconds)
        }

        fn throttled_before(&mut self, streak: u32) {
            self.gate.phase = Phase::Recovering { since: self.now };
            self.gate.streak = streak;
        }

        fn report(&mut self, seconds: u64, report: Report) -> Change {
            self.report_as(seconds, report, Entry::Free, false)
        }

        fn report_as(&mut self, seconds: u64, report: Report, entry: Entry, stale: bool) -> Change {
            let now = self.at(seconds);
            let guess = SECOND.saturating_mul(self.gate.next_streak(now));
            self.gate.report(report, entry, stale, now, guess)
        }

        fn enter(&mut self, seconds: u64) -> Result<Entry, Hold> {
            let now = self.at(seconds);
            self.gate.enter(now)
        }

        fn until(&self, seconds: u64) -> Option<Instant> {
            self.gate.until(self.at(seconds))
        }
    }

    fn not_before(gate: &Told, until: u64, window: Duration, why: Why) -> Result<Entry, Hold> {
        Err(Hold::NotBefore { until: gate.at(until), window, why })
    }

    #[test]
    fn a_moment_that_was_told_is_kept_and_the_first_success_ends_it() {
        let mut gate = Told::new();
        assert_eq!(gate.enter(0), Ok(Entry::Free));
        assert_eq!(gate.report(0, told(10)), Change::Closed);
        assert_eq!(gate.enter(9), not_before(&gate, 10, SECOND, Why::Told));
        assert!(gate.gate.in_force());
        assert_eq!(gate.enter(10), Ok(Entry::Watched));
        assert_eq!(gate.enter(11), Ok(Entry::Watched));
        assert_eq!(gate.report_as(11, Report::Unknown, Entry::Watched, false), Change::None);
        assert!(gate.gate.in_force());
        assert_eq!(gate.report_as(11, Report::Passed, Entry::Watched, false), Change::Over);
        assert_eq!((gate.enter(11), gate.gate.in_force()), (Ok(Entry::Free), false));
    }

    #[test]
    fn only_a_later_moment_changes_one_that_was_told() {
        let mut gate = Told::new();
        gate.report(0, told(10));
        assert_eq!(gate.report_as(1, told(5), Entry::Free, true), Change::None);
        assert_eq!(gate.report_as(1, Report::Throttled(None), Entry::Free, true), Change::None);
        assert_eq!(gate.report(1, Report::Throttled(None)), Change::None, "a guess gives way");
        assert_eq!(gate.until(1), Some(gate.at(10)));
        assert_eq!(gate.report_as(1, told(20), Entry::Free, true), Change::Extended);
        assert_eq!(gate.enter(1), not_before(&gate, 21, 2 * SECOND, Why::Told));
    }

    #[test]
    fn a_guess_gives_way_to_the_servers_word_even_if_that_is_sooner() {
        let mut gate = Told::new();
        gate.throttled_before(9);
        assert_eq!(gate.report(0, Report::Throttled(None)), Change::Closed);
        assert_eq!(gate.enter(0), not_before(&gate, 10, PROBE_LEASE, Why::Guessed));
        assert_eq!(gate.report_as(1, told(2), Entry::Free, true), Change::Closed);
        assert_eq!(gate.until(1), Some(gate.at(3)));
    }

    #[test]
    fn an_exhausted_quota_stays_so_for_the_longer_of_both() {
        let mut gate = Told::new();
        gate.report(0, told(100));
        assert_eq!(gate.report_as(1, Report::Exhausted(10 * SECOND), Entry::Free, true), Change::Closed);
        assert_eq!(gate.enter(1), not_before(&gate, 100, PROBE_LEASE, Why::Exhausted));
        assert_eq!(gate.report_as(1, told(200), Entry::Free, true), Change::Extended);
        assert_eq!(gate.enter(1), not_before(&gate, 201, PROBE_LEASE, Why::Exhausted));
        assert_eq!(gate.enter(201), Ok(Entry::Probe(1)));
    }

    #[test]
    fn what_is_over_has_no_say_in_what_comes_next() {
        let mut gate = Told::new();
        gate.report(0, Report::Exhausted(10 * SECOND));
        assert_eq!(gate.report_as(20, told(5), Entry::Free, true), Change::Closed);
        assert_eq!(gate.enter(20), not_before(&gate, 25, SECOND / 2, Why::Told));
    }

    #[test]
    fn the_end_of_time_is_no_edge() {
        let now = Instant::now();
        let (mut least, mut most) = (0, u64::MAX);
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            match now.checked_add(Duration::from_secs(middle)) {
                Some(_) => least = middle,
                None => most = middle,
            }
        }
        for span in [Duration::from_secs(least - 1), Duration::from_secs(most), Duration::MAX] {
            assert!(after(after(now, span), FORGOTTEN_AFTER) > now);
        }
    }

    #[test]
    fn after_a_guess_one_goes_first() {
        let mut gate = Told::new();
        gate.report(0, Report::Throttled(None));
        assert_eq!(gate.gate.look(gate.at(1)), Look::Due);
        assert_eq!(gate.enter(1), Ok(Entry::Probe(1)));
        assert_eq!(gate.enter(2), Err(Hold::Probed { lease: gate.at(6), window: SECOND }));
        // Another call's answer says nothing about the probe; the probe's own lets everybody pass.
        assert_eq!(gate.report_as(2, Report::Unknown, Entry::Watched, false), Change::None);
        assert_eq!(gate.report_as(2, Report::Passed, Entry::Watched, true), Change::None);
        assert_eq!(gate.report_as(2, Report::Passed, Entry::Probe(1), false), Change::Opened);
        assert_eq!(gate.gate.streak, 0);
        assert_eq!(gate.enter(2), Ok(Entry::Free));
    }

    #[test]
    fn throttlings_in_a_row_make_the_guess_grow_but_those_under_way_together_count_once() {
        let mut gate = Told::new();
        gate.report(0, Report::Throttled(None));
        for _ in 0..10 {
            assert_eq!(gate.report_as(0, Report::Throttled(None), Entry::Free, true), Change::None);
        }
        assert_eq!(gate.until(0), Some(gate.at(1)));
        assert_eq!(gate.enter(1), Ok(Entry::Probe(1)));
        assert_eq!(gate.report_as(1, Report::Throttled(None), Entry::Probe(1), false), Change::Closed);
        assert_eq!(gate.until(1), Some(gate.at(3)));
        // An answer that tells nothing opens the gate, but the count goes on.
        assert_eq!(gate.enter(3), Ok(Entry::Probe(2)));
        assert_eq!(gate.report_as(3, Report::Unknown, Entry::Probe(2), false), Change::Opened);
        assert_eq!(gate.enter(3), Ok(Entry::Watched));
        gate.report_as(3, Report::Throttled(None), Entry::Watched, false);
        assert_eq!(gate.until(3), Some(gate.at(6)));
        gate.gate.streak = u32::MAX;
        gate.report_as(6, Report::Throttled(None), Entry::Watched, false);
        assert_eq!(gate.gate.streak, u32::MAX);
    }

    #[test]
    fn a_probe_that_is_given_up_or_takes_too_long_is_followed_by_another() {
        let mut gate = Told::new();
        gate.report(0, Report::Throttled(None));
        assert_eq!(gate.enter(1), Ok(Entry::Probe(1)));
        let now = gate.at(2);
        assert_eq!(gate.gate.abandoned(1, true, now), Change::None, "from before the last closing");
        assert_eq!(gate.gate.abandoned(1, false, now), Change::Due);
        assert_eq!(gate.gate.abandoned(1, false, now), Change::None);
        assert_eq!(gate.enter(2), Ok(Entry::Probe(2)));
        assert_eq!(gate.gate.abandoned(1, false, now), Change::None, "no longer its role");
        assert_eq!(gate.enter(6), Err(Hold::Probed { lease: gate.at(7), window: SECOND }));
        assert_eq!(gate.enter(7), Ok(Entry::Probe(3)));
        // Whichever of them is answered first.
        assert_eq!(gate.report_as(7, Report::Passed, Entry::Probe(2), false), Change::Opened);
    }

    #[test]
    fn what_nobody_asks_about_is_forgotten() {
        for report in [told(10), Report::Throttled(None), Report::Exhausted(10 * SECOND)] {
            let mut gate = Told::new();
            gate.throttled_before(9);
            gate.report(0, report);
            assert!(!gate.gate.is_idle(gate.at(69)));
            assert!(gate.gate.is_idle(gate.at(70)));
            assert_eq!(gate.enter(70), Ok(Entry::Free));
            gate.report(70, Report::Throttled(None));
            assert_eq!(gate.until(70), Some(gate.at(71)), "the count begins anew");
        }
    }

    #[test]
    fn odd_delays_end_nothing() {
        let mut gate = Told::new();
        for odd in [Duration::ZERO, LONGEST_HINT + Duration::from_nanos(1), Duration::MAX] {
            gate.gate = Gate::new();
            gate.report(0, Report::Throttled(Some(odd)));
            assert_eq!(gate.until(0), Some(gate.at(1)), "{odd:?}");
        }
        gate.gate = Gate::new();
        gate.report(0, Report::Throttled(Some(LONGEST_HINT)));
        assert_eq!(gate.until(0), Some(gate.at(86_400)));
        gate.gate = Gate::new();
        gate.report(0, Report::Exhausted(Duration::MAX));
        assert!(gate.until(0) > Some(gate.at(86_400 * 365 * 29)));
        // A clock that goes backwards only makes calls wait for longer.
        let before = gate.now.checked_sub(SECOND).expect("the machine has been up for a second");
        assert!(gate.gate.enter(before).is_err());
        assert!(!gate.gate.is_idle(before));
    }

    #[test]
    fn a_waiting_call_keeps_its_distance_and_its_limit() {
        let now = Instant::now();
        let at = |seconds: u64| now + Duration::from_secs(seconds);
        let random = &mut Random::seeded(7);
        let hold = |until, why| Look::Hold(Hold::NotBefore { until: at(until), window: SECOND, why });

        let mut waiter = Waiter::new(now, 30 * SECOND, None);
        let Step::Sleep(moment) = waiter.step(hold(10, Why::Told), now, random) else { panic!("held") };
        assert!(moment >= at(10) && moment <= at(11));
        // The gate opened before its turn came: it goes on to wait.
        assert_eq!(waiter.step(Look::Open, at(10), random), Step::Sleep(moment));
        assert_eq!(waiter.step(Look::Open, moment, random), Step::Proceed);

        // For a guess there is no distance to keep, but to the probe there is.
        assert_eq!(waiter.step(hold(20, Why::Guessed), at(11), random), Step::Sleep(at(20)));
        assert_eq!(waiter.step(Look::Due, at(20), random), Step::Proceed);
        let probed = Look::Hold(Hold::Probed { lease: at(25), window: SECOND });
        assert_eq!(waiter.step(probed, at(20), random), Step::Sleep(at(25)));
        let Step::Sleep(moment) = waiter.step(Look::Open, at(22), random) else { panic!("let go, but not at once") };
        assert!(moment > at(22) && moment <= at(23));
        assert_eq!(waiter.step(Look::Open, moment, random), Step::Proceed);

        // The last moment it may go is 30 s.
        assert_eq!(waiter.step(hold(30, Why::Told), at(29), random), Step::Sleep(at(30)));
        let late = Look::Hold(Hold::Probed { lease: at(33), window: SECOND });
        assert_eq!(waiter.step(late, at(29), random), Step::Sleep(at(30)));
        assert_eq!(waiter.step(late, at(30), random), Step::Refuse(CoolingDown::new(at(30), at(33), false)));
        let refused = Step::Refuse(CoolingDown::new(at(11), at(31), false));
        assert_eq!(waiter.step(hold(31, Why::Told), at(11), random), refused);
        let exhausted = Step::Refuse(CoolingDown::new(at(11), at(12), true));
        assert_eq!(waiter.step(hold(12, Why::Exhausted), at(11), random), exhausted);
    }

    #[test]
    fn the_earlier_of_patience_and_deadline_is_the_limit() {
        let now = Instant::now();
        let at = |ms: u64| now + Duration::from_millis(ms);
        let latest =
            |max_wait, deadline: Option<u64>| Waiter::new(now, max_wait, deadline.map(at).map(Deadline::at)).latest;
        assert_eq!(latest(SECOND, None), at(1000));
        assert_eq!(latest(SECOND, Some(5000)), at(1000));
        assert_eq!(latest(SECOND, Some(500)), at(499), "at the deadline it is too late");
        assert!(latest(Duration::MAX, None) > now + Duration::from_secs(86_400 * 365));
    }

    proptest! {
        #[test]
        fn no_release_is_before_the_moment_or_after_the_limit(
            span in 1u64..100_000_000,
            patience in 0u64..200_000_000,
            seed in any::<u64>(),
        ) {
            let now = Instant::now();
            let (span, patience) = (Duration::from_micros(span), Duration::from_micros(patience));
            let mut gate = Gate::new();
            gate.report(Report::Throttled(Some(span)), Entry::Free, false, now, Duration::ZERO);
            let mut waiter = Waiter::new(now, patience, None);
            match waiter.step(gate.look(now), now, &mut Random::seeded(seed)) {
                Step::Sleep(moment) => {
                    prop_assert!(moment >= now + span && moment <= now + span + span / 10 && moment <= now + patience);
                }
                Step::Refuse(error) => prop_assert!(span > patience && error.retry_after() == span),
                Step::Proceed => prop_assert!(false, "held"),
            }
        }
    }
}
