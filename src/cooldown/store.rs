//! Where "not before" lives: in the memory of this process, one [`Gate`] per quota.
//!
//! This is the seam for a store that many machines share: what the service asks of it is [`Store::quiet`], [`Store::enter`],
//! [`Cell::look`] and [`Store::report`], and every wait, refusal, closing and opening passes through [`Link::note`].
//!
//! * A call made while nothing is in force reads one word, and writes nothing: [`Word`].
//! * The word is changed under the lock of the gate it speaks of, so it counts exactly the gates in force.
//! * A gate in force is never let go while its time is not over, or while anybody waits at it.

use std::{
    collections::BTreeMap,
    fmt,
    hash::Hash,
    num::NonZeroUsize,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Waker,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    CoolingDown, Observer,
    gate::{Change, Entry, Gate, Hold, Look, Report, Why, believed},
};
use crate::{
    keyed::Keyed,
    telemetry::{self, Observers},
};

const HALF: u32 = usize::BITS / 2;

/// How many gates are in force (lower half) and how often one was closed (upper half, wrapping), in one word. The count of
/// closings tells calls that began before one from those that began after it, without a clock.
#[derive(Debug, Default)]
struct Word(AtomicUsize);

/// What the word was when a call passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen(usize);

impl Word {
    // Relaxed: what the word speaks of is behind locks, and a call that is told a moment late is one under way.
    #[inline]
    fn seen(&self) -> Seen {
        Seen(self.0.load(Relaxed))
    }

    fn enter(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    fn leave(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    // The upper half wraps around by itself.
    fn close(&self) -> Seen {
        Seen(self.0.fetch_add(1 << HALF, Relaxed).wrapping_add(1 << HALF))
    }
}

impl Seen {
    const fn is_quiet(self) -> bool {
        self.0 & ((1 << HALF) - 1) == 0
    }

    // Whether this was seen before that closing, and not after it.
    const fn is_before(self, closing: Self) -> bool {
        let ahead = (closing.0 >> HALF).wrapping_sub(self.0 >> HALF) & ((1 << HALF) - 1);
        ahead != 0 && ahead < 1 << (HALF - 1)
    }
}

/// What happens to calls and quotas, to be told and counted; see [`Link::note`].
#[derive(Clone, Copy, Debug)]
enum Event<'a> {
    /// Calls are held from now on, or for longer: that is not `anew`.
    Closed { delay: Duration, exhausted: bool, anew: bool },
    /// Calls pass again.
    Opened,
    /// A call goes first.
    Probe,
    /// A call waits, as its quota is closed for that long.
    Wait(Duration),
    /// A call has waited that long.
    Waited(Duration),
    /// A call is refused.
    Refusal(&'a CoolingDown),
}

#[derive(Debug, Default)]
struct Counts {
    closings: AtomicUsize,
    openings: AtomicUsize,
    probes: AtomicUsize,
    waits: AtomicUsize,
    refusals: AtomicUsize,
}

/// All gates of one layer.
pub struct Store<K> {
    link: Arc<Link>,
    gates: Keyed<K, Cell>,
    epoch: Instant,
    // In seconds after `epoch`.
    next_sweep: AtomicUsize,
}

// What a gate and its store have in common.
#[derive(Debug, Default)]
struct Link {
    word: Word,
    counts: Counts,
    observers: Arc<Observers<dyn Observer>>,
}

/// One gate, and those who wait at it.
#[derive(Debug)]
pub(super) struct Cell {
    link: Arc<Link>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    gate: Gate,
    // Whether the word counts this gate.
    counted: bool,
    // What the word was when the gate was last closed.
    closed: Option<Seen>,
    waiting: BTreeMap<u64, Waker>,
    tickets: u64,
}

/// A call that passed, and what it saw; the default has not passed yet.
#[derive(Debug, Default)]
pub(super) struct Pass {
    seen: Seen,
    // Boxed, as few calls are watched and all have room for this.
    watch: Option<Box<Watch>>,
}

// A call that the gate watches. Dropped without a report, it gives back the role of going first.
#[derive(Debug)]
struct Watch {
    cell: Arc<Cell>,
    entry: Entry,
    seen: Seen,
}

impl Pass {
    /// Whether the gate wants to be told of a success.
    #[inline]
    pub(super) const fn is_watched(&self) -> bool {
        self.watch.is_some()
    }

    /// Whether the gate wants to be told of this. A call that passed freely has news only if it was throttled.
    pub(super) const fn has_news(&self, report: Report) -> bool {
        self.is_watched() || !matches!(report, Report::Passed | Report::Unknown)
    }
}

impl<K: Eq + Hash> Store<K> {
    pub(super) fn new(keys: NonZeroUsize, observers: Arc<Observers<dyn Observer>>) -> Self {
        // The lower half of the word has to be able to count them.
        let keys = keys.min(NonZeroUsize::new((1 << HALF) - 1).unwrap_or(keys));
        let link = Arc::new(Link { observers, ..Link::default() });
        Self { link, gates: Keyed::new(keys), epoch: Instant::now(), next_sweep: AtomicUsize::new(0) }
    }

    /// The pass of a call while nothing is in force for anybody: one look at one word.
    #[inline]
    pub(super) fn quiet(&self) -> Option<Pass> {
        let seen = self.link.word.seen();
        seen.is_quiet().then_some(Pass { seen, watch: None })
    }

    /// A call to be made now, while something is in force for somebody. If it is held, the gate says until when.
    pub(super) fn enter(&self, key: &K, now: Instant) -> Result<Pass, (Arc<Cell>, Hold)> {
        let seen = self.link.word.seen();
        let pass = match self.gates.get(key) {
            Some(cell) => cell.enter(now).map_err(|hold| (cell, hold))?,
            None => Pass { seen, watch: None },
        };
        if pass.watch.is_none() {
            // Nothing is in force for this key: for which is it?
            self.sweep(now);
        }
        Ok(pass)
    }

    /// A call ended. `backoff` is asked for our guess at the n-th throttling in a row, under no lock, if there is need of one.
    pub(super) fn report(
        &self,
        key: K,
        mut pass: Pass,
        report: Report,
        now: Instant,
        backoff: impl FnOnce(u32) -> Duration,
    ) {
        let watch = pass.watch.take();
        let (cell, entry) = match &watch {
            Some(watch) => (watch.cell.clone(), watch.entry),
            None => {
                let make = || Cell::new(self.link.clone());
                (self.gates.get_or_insert_with(key, |cell| cell.is_idle(now), make), Entry::Free)
            }
        };
        let streak = match report {
            Report::Throttled(hint) if believed(hint).is_none() => cell.lock().next_streak(pass.seen, now),
            _ => None,
        };
        let guess = streak.map_or(Duration::ZERO, backoff);
        cell.change(now, |inner| {
            // Who is stale by now was not told the streak, or needs no guess any more.
            let stale = inner.is_stale(pass.seen);
            inner.gate.report(report, entry, stale, now, guess)
        });
        // The role is given back only now, when it has no effect any more.
        drop(watch);
    }

    /// Before which moment nobody passes, if there is one ahead.
    pub(super) fn until(&self, key: &K, now: Instant) -> Option<Instant> {
        self.gates.get(key)?.lock().gate.until(now)
    }

    /// A call is refused.
    pub(super) fn refused(&self, error: &CoolingDown) {
        self.link.note(Event::Refusal(error));
    }

    /// A call waits.
    pub(super) fn waits(&self, hold: &Hold, now: Instant) {
        self.link.note(Event::Wait(hold.left(now)));
    }

    // Lets go what is over and was never asked about again, so that one key that is gone does not keep the word from being
    // quiet. At most once a second.
    fn sweep(&self, now: Instant) {
        let second = usize::try_from(now.saturating_duration_since(self.epoch).as_secs()).unwrap_or(usize::MAX);
        let next = self.next_sweep.load(Relaxed);
        let after = second.saturating_add(1);
        if second >= next && self.next_sweep.compare_exchange(next, after, Relaxed, Relaxed).is_ok() {
            self.gates.retain(|cell| !cell.is_idle(now));
        }
    }
}

impl Link {
    /// The one place where everything that is worth telling passes. All of it is out of the way of calls that pass freely.
    #[cold]
    fn note(&self, event: Event<'_>) {
        let counts = &self.counts;
        match event {
            Event::Closed { delay, exhausted, anew } => {
                counts.closings.fetch_add(1, Relaxed);
                telemetry::cooldown(delay, exhausted, anew);
                if anew {
                    self.tell(|observer| observer.closed(delay, exhausted));
                }
            }
            Event::Opened => {
                counts.openings.fetch_add(1, Relaxed);
            }
            Event::Probe => {
                counts.probes.fetch_add(1, Relaxed);
            }
            Event::Wait(delay) => {
                counts.waits.fetch_add(1, Relaxed);
                telemetry::cooldown_wait(delay);
                self.tell(|observer| observer.waits(delay));
            }
            Event::Waited(time) => self.tell(|observer| observer.waited(time)),
            Event::Refusal(error) => {
                counts.refusals.fetch_add(1, Relaxed);
                telemetry::cooldown_refused(error.retry_after(), error.is_exhausted());
                self.tell(|observer| observer.refused(error));
            }
        }
    }

    fn tell(&self, what: impl Fn(&dyn Observer)) {
        self.observers.all().iter().for_each(|observer| what(&**observer));
    }
}

impl Cell {
    fn new(link: Arc<Link>) -> Self {
        let inner = Inner { gate: Gate::new(), counted: false, closed: None, waiting: BTreeMap::new(), tickets: 0 };
        Self { link, inner: Mutex::new(inner) }
    }

    // No code of others runs under this lock: nothing panics, and nothing comes back here.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_idle(&self, now: Instant) -> bool {
        self.lock().gate.is_idle(now)
    }

    /// A call that is made now unless it is held.
    pub(super) fn enter(self: &Arc<Self>, now: Instant) -> Result<Pass, Hold> {
        let mut inner = self.lock();
        let entry = inner.gate.enter(now);
        self.count(&mut inner);
        let entry = entry?;
        let seen = self.link.word.seen();
        drop(inner);
        if let Entry::Probe(_) = entry {
            self.link.note(Event::Probe);
        }
        let watch = (entry != Entry::Free).then(|| Box::new(Watch { cell: self.clone(), entry, seen }));
        Ok(Pass { seen, watch })
    }

    /// A look at the gate by a call that waits. If it is held, its task is woken when something changes.
    pub(super) fn look(&self, now: Instant, ticket: &mut Option<u64>, waker: &Waker) -> Look {
        let waker = waker.clone();
        let mut inner = self.lock();
        let look = inner.gate.look(now);
        let replaced = if matches!(look, Look::Hold(_)) {
            let ticket = *ticket.get_or_insert_with(|| {
                inner.tickets += 1;
                inner.tickets
            });
            inner.waiting.insert(ticket, waker)
        } else {
            ticket.take().and_then(|ticket| inner.waiting.remove(&ticket))
        };
        drop(inner);
        // A waker may be the last trace of a task, and so may run any code when it is dropped: not under the lock.
        drop(replaced);
        look
    }

    /// Whether nothing has changed since the look that gave this ticket.
    pub(super) fn is_waiting(&self, ticket: u64, waker: &Waker) -> bool {
        match self.lock().waiting.get(&ticket) {
            Some(known) if known.will_wake(waker) => return true,
            Some(_) => {}
            None => return false,
        }
        let mut other = waker.clone();
        // Woken in between, it looks again.
        let waiting = self.lock().waiting.get_mut(&ticket).map(|known| std::mem::swap(known, &mut other)).is_some();
        drop(other);
        waiting
    }

    /// A call that waited is gone.
    pub(super) fn forget(&self, ticket: u64) {
        let waker = self.lock().waiting.remove(&ticket);
        drop(waker);
    }

    /// A call that came at `since` waits no more.
    pub(super) fn waited(&self, since: Instant) {
        self.link.note(Event::Waited(since.elapsed()));
    }

    fn abandoned(&self, probe: u32, seen: Seen, now: Instant) {
        self.change(now, |inner| {
            let stale = inner.is_stale(seen);
            inner.gate.abandoned(probe, stale, now)
        });
    }

    // Keeps the word in step with the gate.
    fn count(&self, inner: &mut Inner) {
        match (inner.counted, inner.gate.in_force()) {
            (false, true) => self.link.word.enter(),
            (true, false) => self.link.word.leave(),
            _ => return,
        }
        inner.counted = !inner.counted;
    }

    fn change(&self, now: Instant, f: impl FnOnce(&mut Inner) -> Change) {
        let mut inner = self.lock();
        let change = f(&mut inner);
        self.count(&mut inner);
        if change == Change::Closed {
            inner.closed = Some(self.link.word.close());
        }
        let woken = match change {
            // Who sleeps until a moment that was moved on finds out when it wakes.
            // Who keeps its distance from the others goes on to do so.
            Change::None | Change::Extended | Change::Over => BTreeMap::new(),
            Change::Closed | Change::Due | Change::Opened => std::mem::take(&mut inner.waiting),
        };
        let closed = inner.gate.closed(now);
        drop(inner);
        woken.into_values().for_each(Waker::wake);
        match (change, closed) {
            (Change::Closed | Change::Extended, Some((delay, why))) => {
                let (exhausted, anew) = (why == Why::Exhausted, change == Change::Closed);
                self.link.note(Event::Closed { delay, exhausted, anew });
            }
            (Change::Opened | Change::Over, _) => self.link.note(Event::Opened),
            _ => {}
        }
    }
}

impl Inner {
    fn next_streak(&self, seen: Seen, now: Instant) -> Option<u32> {
        (!self.is_stale(seen)).then(|| self.gate.next_streak(now))
    }

    fn is_stale(&self, seen: Seen) -> bool {
        self.closed.is_some_and(|closed| seen.is_before(closed))
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        if inner.counted {
            self.link.word.leave();
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Entry::Probe(probe) = self.entry {
            self.cell.abandoned(probe, self.seen, Instant::now());
        }
    }
}

impl<K: Eq + Hash> fmt::Debug for Store<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { closings, openings, probes, waits, refusals } = &self.link.counts;
        f.debug_struct("Store")
            .field("quotas", &self.gates.len())
            .field("closings", closings)
            .field("openings", openings)
            .field("probes", probes)
            .field("waits", waits)
            .field("refusals", refusals)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn store(keys: usize) -> Store<u32> {
        Store::new(NonZeroUsize::new(keys).unwrap(), Arc::default())
    }

    fn pass(store: &Store<u32>, key: u32, now: Instant) -> Option<Pass> {
        store.quiet().or_else(|| store.enter(&key, now).ok())
    }

    fn report(store: &Store<u32>, key: u32, pass: Pass, report: Report, now: Instant) {
        if pass.has_news(report) {
            store.report(key, pass, report, now, |streak| SECOND * streak);
        }
    }

    #[test]
    fn calls_that_began_before_a_closing_are_told_from_later_ones_for_ever() {
        let word = Word(AtomicUsize::new(usize::MAX << HALF));
        let before = word.seen();
        let closing = word.close();
        assert!(before.is_before(closing), "also where the count wraps around");
        assert!(!closing.is_before(closing) && !closing.is_before(before));
        assert!(closing.is_quiet());
        word.enter();
        assert!(!word.seen().is_quiet() && !word.seen().is_before(closing));
        word.leave();
        assert!(word.seen().is_quiet());
    }

    #[test]
    fn one_key_in_force_makes_others_look_but_holds_none_of_them() {
        let (store, now) = (store(8), Instant::now());
        report(&store, 1, pass(&store, 1, now).unwrap(), Report::Throttled(Some(SECOND)), now);
        assert!(store.quiet().is_none());
        assert!(store.enter(&1, now).is_err());
        assert!(!store.enter(&2, now).unwrap().is_watched());
        assert_eq!((store.until(&1, now), store.until(&2, now)), (Some(now + SECOND), None));
        // Its first success makes the store quiet.
        let one = store.enter(&1, now + SECOND).unwrap();
        assert!(one.is_watched());
        report(&store, 1, one, Report::Passed, now + SECOND);
        assert!(store.quiet().is_some());
    }

    #[test]
    fn a_key_that_is_gone_does_not_keep_others_looking() {
        let (store, now) = (store(8), Instant::now());
        report(&store, 1, pass(&store, 1, now).unwrap(), Report::Throttled(Some(SECOND)), now);
        assert!(pass(&store, 2, now + 60 * SECOND).is_some() && store.quiet().is_none());
        assert!(pass(&store, 2, now + 61 * SECOND).is_some() && store.quiet().is_some());
        assert_eq!(store.gates.len(), 0);
    }

    #[test]
    fn a_guess_that_panics_leaves_the_count_right() {
        let (store, now) = (Arc::new(store(8)), Instant::now());
        report(&store, 1, pass(&store, 1, now).unwrap(), Report::Throttled(Some(SECOND)), now);
        let one = store.enter(&1, now + SECOND).unwrap();
        let other = store.clone();
        let panicked = std::thread::spawn(move || {
            other.report(1, one, Report::Throttled(None), now + 1000 * SECOND, |_| panic!("no guess"));
        });
        assert!(panicked.join().is_err());
        assert!(pass(&store, 1, now + 1000 * SECOND).is_some());
        assert!(store.quiet().is_some());
    }

    #[test]
    fn everything_that_happens_is_counted() {
        let (store, now) = (store(8), Instant::now());
        report(&store, 1, pass(&store, 1, now).unwrap(), Report::Throttled(None), now);
        let probe = pass(&store, 1, now + SECOND).unwrap();
        let hold = Hold::Probed { lease: now, window: SECOND };
        store.waits(&hold, now);
        store.refused(&CoolingDown::new(now, now, false));
        report(&store, 1, probe, Report::Passed, now + SECOND);
        let shown = format!("{store:?}");
        assert!(shown.contains("closings: 1, openings: 1, probes: 1, waits: 1, refusals: 1"), "{shown}");
    }

    #[derive(Clone, Copy, Debug)]
    enum Op {
        Enter(u32),
        Report(usize, Report),
        Drop(usize),
        Later(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let reports = prop_oneof![
            Just(Report::Passed),
            Just(Report::Unknown),
            Just(Report::Throttled(None)),
            Just(Report::Throttled(Some(3 * SECOND))),
            Just(Report::Exhausted(5 * SECOND)),
        ];
        let op = prop_oneof![
            4 => (0u32..6).prop_map(Op::Enter),
            4 => (any::<usize>(), reports).prop_map(|(which, report)| Op::Report(which, report)),
            1 => any::<usize>().prop_map(Op::Drop),
            2 => (0u64..100).prop_map(Op::Later),
        ];
        prop::collection::vec(op, 1..200)
    }

    proptest! {
        #[test]
        fn the_word_counts_the_gates_in_force_and_is_quiet_in_the_end(ops in ops(), bound in 1usize..5) {
            let store = store(bound);
            let mut now = Instant::now();
            let mut passes: Vec<(u32, Pass)> = Vec::new();
            for op in ops {
                match op {
                    Op::Enter(key) => passes.extend(pass(&store, key, now).map(|pass| (key, pass))),
                    Op::Report(which, what) if !passes.is_empty() => {
                        let (key, pass) = passes.swap_remove(which % passes.len());
                        report(&store, key, pass, what, now);
                    }
                    Op::Drop(which) if !passes.is_empty() => drop(passes.swap_remove(which % passes.len())),
                    Op::Later(seconds) => now += SECOND * seconds as u32,
                    _ => {}
                }
                let in_force = (0..6).filter_map(|key| store.gates.get(&key)).filter(|cell| cell.lock().gate.in_force());
                let counted = store.link.word.seen().0 & ((1 << HALF) - 1);
                prop_assert_eq!(in_force.count(), counted);
                prop_assert!(store.gates.len() <= bound);
            }
            passes.clear();
            now += 3600 * SECOND;
            prop_assert!(store.quiet().or_else(|| store.enter(&99, now).ok()).is_some());
            prop_assert!(store.quiet().is_some());
        }
    }
}
