//! One circuit among many threads.
//!
//! While a circuit is closed and calls succeed, nobody writes to what others read:
//!
//! * Whether calls flow is told by one word, the [`Era`]. It is written at a transition only, under the lock.
//! * Successes are counted in lanes, of which each thread has one of its own as far as there are cores. Each failure, each
//!   look at the state and each 64th success of a lane moves them all into the window, under the lock and *before*
//!   anything is decided. **So nothing is ever decided without all successes that came before it.** What the delay
//!   costs is the moment of a success: in a window of time, those found together are taken to have
//!   come evenly since the last time somebody looked.
//! * A call holds the lane it began in. The reference count is the lane's own, too.
//!
//! Every change of state passes through [`Shared::transact`], and is reported there after the lock was released. Every refusal passes
//! through [`Lane::ask`].

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
    thread::available_parallelism,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    CircuitOpen, Observer, State,
    policy::BreakerPolicy,
    state::{Circuit, Era, Force},
    window::{Counts, Mark},
};
use crate::{
    policy::{Random, classify::Class},
    telemetry::{self, Observers},
};

/// How many successes wait in a lane for the window.
const BATCH: u32 = 64;

/// More would only be more to look through.
const MOST_LANES: usize = 64;

/// A circuit and what its threads need to share it.
pub(super) struct Shared {
    era: AtomicUsize,
    /// For slow calls, which alone need the clock.
    slow_after: Option<Duration>,
    /// What the start of a timed call is counted from.
    made: Instant,
    successes: Box<[Padded<AtomicU32>]>,
    // Apart from what is only read.
    circuit: Padded<Mutex<Circuit>>,
    observers: Observers<dyn Observer>,
}

// A cache line of its own (or two, on the machines that fetch pairs).
#[derive(Default)]
#[repr(align(128))]
struct Padded<T>(T);

/// A circuit as one thread sees it.
#[repr(align(128))]
pub struct Lane {
    shared: Arc<Shared>,
    index: usize,
}

/// All lanes of a circuit.
#[derive(Clone)]
pub(super) struct Lanes(Arc<[Arc<Lane>]>);

impl Lanes {
    pub(super) fn new(policy: BreakerPolicy) -> Self {
        let count = cores().next_power_of_two().min(MOST_LANES);
        let shared = Arc::new(Shared::new(policy, count));
        Self((0..count).map(|index| Arc::new(Lane { shared: shared.clone(), index })).collect())
    }

    /// The lane of this thread.
    #[inline]
    pub(super) fn mine(&self) -> &Arc<Lane> {
        // The number of lanes is a power of two.
        &self.0[thread_number() & (self.0.len() - 1)]
    }

    /// Whether a call made now would pass without asking.
    #[inline]
    pub(super) fn is_gated(&self) -> bool {
        self.0[0].shared.era().is_gated()
    }
}

fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| available_parallelism().map_or(1, usize::from))
}

#[inline]
fn thread_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static NUMBER: usize = NEXT.fetch_add(1, Ordering::Relaxed));
    // A thread that is about to end has none any more.
    NUMBER.try_with(|number| *number).unwrap_or(0)
}

impl Lane {
    /// A circuit with one lane only, for those that are many.
    pub(super) fn single(policy: BreakerPolicy) -> Self {
        Self { shared: Arc::new(Shared::new(policy, 1)), index: 0 }
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Lets a call pass, or refuses it.
    #[inline]
    pub(super) fn admit(self: Arc<Self>) -> Result<Permit, CircuitOpen> {
        let era = self.shared.era();
        if era.is_gated() {
            return self.ask();
        }
        if era.is_unwatched() {
            return Ok(Permit::unwatched());
        }
        Ok(Permit::new(self, era))
    }

    #[cold]
    fn ask(self: Arc<Self>) -> Result<Permit, CircuitOpen> {
        match self.shared.transact(|circuit, now, _| circuit.admit(now)) {
            Ok(era) if era.is_unwatched() => Ok(Permit::unwatched()),
            Ok(era) => Ok(Permit::new(self, era)),
            Err(refusal) => Err(self.shared.refused(CircuitOpen::new(refusal))),
        }
    }

    #[inline]
    fn count_success(&self, era: Era) {
        // What belongs to an era that is over counts no more.
        if self.shared.era() == era && self.shared.successes[self.index].0.fetch_add(1, Ordering::Relaxed) >= BATCH - 1
        {
            self.shared.settle();
        }
    }
}

impl Shared {
    fn new(policy: BreakerPolicy, lanes: usize) -> Self {
        let circuit = Circuit::new(policy);
        Self {
            era: AtomicUsize::new(circuit.era().bits()),
            slow_after: policy.slow.map(|slow| slow.after),
            made: Instant::now(),
            successes: (0..lanes).map(|_| Padded::default()).collect(),
            circuit: Padded(Mutex::new(circuit)),
            observers: Observers::default(),
        }
    }

    #[inline]
    fn era(&self) -> Era {
        Era::from_bits(self.era.load(Ordering::Acquire))
    }

    pub(super) fn observe(&self, observer: Arc<dyn Observer>) {
        self.observers.add(observer);
    }

    pub(super) fn observers(&self) -> Arc<[Arc<dyn Observer>]> {
        self.observers.all()
    }

    pub(super) fn force(&self, force: Option<Force>) {
        self.transact(|circuit, _, _| circuit.force(force));
    }

    /// The state, what is counted, and how long until the next probe.
    pub(super) fn look(&self) -> (State, Counts, Option<Duration>) {
        self.transact(|circuit, now, _| (circuit.state(), circuit.counts(), circuit.until_probe(now)))
    }

    /// Whether a new circuit would do as well. Asked where nobody holds this one.
    pub(super) fn is_forgettable(&self) -> bool {
        self.era().is_closed() || self.transact(|circuit, now, _| circuit.is_forgettable(now))
    }

    /// Takes a step: the one place where a circuit changes.
    fn transact<T>(&self, step: impl FnOnce(&mut Circuit, Instant, &mut Random) -> T) -> T {
        // Plain numbers, in order at every moment at which something could panic.
        let mut circuit = self.circuit.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that one step is never earlier than the last.
        let now = self.gather(&mut circuit);
        let before = circuit.state();
        let answer = step(&mut circuit, now, &mut Random::from_thread());
        let after = circuit.state();
        self.era.store(circuit.era().bits(), Ordering::Release);
        drop(circuit);
        if before != after {
            self.report(before, after);
        }
        answer
    }

    // Moves the successes into the window, if nobody else is just about to.
    #[cold]
    fn settle(&self) {
        let mut circuit = match self.circuit.0.try_lock() {
            Ok(circuit) => circuit,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.gather(&mut circuit);
    }

    fn gather(&self, circuit: &mut MutexGuard<'_, Circuit>) -> Instant {
        let counted = |lane: &Padded<AtomicU32>| match lane.0.load(Ordering::Relaxed) {
            0 => 0,
            _ => u64::from(lane.0.swap(0, Ordering::Relaxed)),
        };
        let successes = self.successes.iter().map(counted).sum();
        let now = Instant::now();
        circuit.successes(successes, now);
        now
    }

    fn report(&self, from: State, to: State) {
        telemetry::breaker(from.as_str(), to.as_str());
        self.observers().iter().for_each(|observer| observer.changed(from, to));
    }

    fn refused(&self, error: CircuitOpen) -> CircuitOpen {
        telemetry::breaker_refused(error.state().as_str(), error.retry_after());
        self.observers().iter().for_each(|observer| observer.refused(&error));
        error
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.circuit.0.get_mut().unwrap_or_else(PoisonError::into_inner).state();
        self.observers().iter().for_each(|observer| observer.gone(state));
    }
}

impl fmt::Debug for Lane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.shared.fmt(f)
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[0].shared.fmt(f)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (state, counts, until_probe) = self.look();
        f.debug_struct("Circuit")
            .field("state", &state)
            .field("counts", &counts)
            .field("until_probe", &until_probe)
            .finish_non_exhaustive()
    }
}

/// The right to make one call. What becomes of it is told by [`finish`](Self::finish); dropped before that, it goes back.
pub(super) struct Permit {
    /// `None` once it is of no more use.
    lane: Option<Arc<Lane>>,
    era: Era,
    /// In nanoseconds since the circuit was made; zero if nobody wants to know.
    started: u64,
}

impl Permit {
    #[inline]
    fn new(lane: Arc<Lane>, era: Era) -> Self {
        let started = if lane.shared.slow_after.is_some() { lane.shared.age() } else { 0 };
        Self { lane: Some(lane), era, started }
    }

    pub(super) const fn unwatched() -> Self {
        Self { lane: None, era: Era::from_bits(0), started: 0 }
    }

    /// The call ended with an outcome of this class.
    #[inline]
    pub(super) fn finish(&mut self, class: Class) {
        let Some(lane) = self.lane.take() else { return };
        let slow = self.started != 0 && lane.shared.is_slow(self.started);
        if matches!(class, Class::Success | Class::Permanent) && !slow && self.era.flows() {
            lane.count_success(self.era);
        } else {
            self.tell(&lane, class, slow);
        }
    }

    #[cold]
    fn tell(&self, lane: &Lane, class: Class, slow: bool) {
        let failed = match class {
            Class::Transient { .. } | Class::Unsent { .. } => true,
            Class::Success | Class::Permanent => false,
            // Says nothing about the service's health, neither way.
            Class::Throttled { .. } if self.era.flows() => return,
            Class::Throttled { .. } => return lane.shared.transact(|circuit, _, _| circuit.release(self.era)),
        };
        lane.shared.transact(|circuit, now, random| circuit.record(self.era, Mark { failed, slow }, now, random));
    }
}

impl Drop for Permit {
    #[inline]
    fn drop(&mut self) {
        if let Some(lane) = self.lane.take() {
            self.abandon(&lane);
        }
    }
}

impl Permit {
    #[cold]
    #[inline(never)]
    fn abandon(&self, lane: &Lane) {
        if self.started != 0 && lane.shared.is_slow(self.started) {
            // Whoever gave up waiting learned that much.
            self.tell(lane, Class::Success, true);
        } else if !self.era.flows() {
            lane.shared.transact(|circuit, now, _| circuit.abandon(self.era, now));
        }
    }
}

impl Shared {
    fn age(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn is_slow(&self, started: u64) -> bool {
        self.slow_after.is_some_and(|after| u128::from(self.age().saturating_sub(started)) >= after.as_nanos())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        thread,
    };

    use super::{super::observer::OnTransition, *};

    fn lanes(policy: BreakerPolicy) -> Lanes {
        Lanes::new(policy)
    }

    fn call(lanes: &Lanes, class: Class) {
        lanes.mine().clone().admit().unwrap().finish(class);
    }

    fn look(lanes: &Lanes) -> (State, Counts) {
        let (state, counts, _) = lanes.mine().shared().look();
        (state, counts)
    }

    fn counts(calls: u64, failed: u64) -> Counts {
        Counts { calls, failed, slow: 0 }
    }

    #[test]
    fn nothing_is_decided_without_the_successes_before_it() {
        // Fewer successes than make a batch; one more failure would be half.
        let lanes = lanes(BreakerPolicy::new().window_calls(100).unwrap());
        for _ in 0..30 {
            call(&lanes, Class::Success);
        }
        for failed in 1..30 {
            call(&lanes, Class::transient());
            assert_eq!(look(&lanes), (State::Closed, counts(30 + failed, failed)));
        }
        call(&lanes, Class::transient());
        assert_eq!(look(&lanes), (State::Open, counts(60, 30)));
    }

    #[test]
    fn each_class_counts_as_it_should() {
        let lanes = lanes(BreakerPolicy::new());
        for (class, expected) in [
            (Class::Success, counts(1, 0)),
            (Class::Permanent, counts(2, 0)),
            (Class::transient(), counts(3, 1)),
            (Class::unsent(), counts(4, 2)),
            (Class::throttled(None), counts(4, 2)),
        ] {
            call(&lanes, class);
            assert_eq!(look(&lanes).1, expected, "{class:?}");
        }
        drop(lanes.mine().clone().admit().unwrap());
        assert_eq!(look(&lanes).1, counts(4, 2), "dropped");
    }

    #[test]
    fn every_call_of_every_thread_is_counted_once() {
        const CALLS: u64 = 20_000;
        let lanes = lanes(BreakerPolicy::new().without_failure_rate().window_calls(1_000_000).unwrap());
        thread::scope(|scope| {
            for thread in 0..8 {
                let lanes = lanes.clone();
                scope.spawn(move || {
                    for number in 0..CALLS {
                        // Some fail all the time, so that lanes are emptied while others fill them.
                        let failed = number % 10 == thread;
                        call(&lanes, if failed { Class::transient() } else { Class::Success });
                    }
                });
            }
        });
        assert_eq!(look(&lanes).1, counts(8 * CALLS, 8 * CALLS / 10));
    }

    #[test]
    fn a_batch_goes_into_the_window_without_anybody_asking() {
        let lanes = lanes(BreakerPolicy::new().window_calls(1000).unwrap());
        for _ in 0..BATCH * 3 + 1 {
            call(&lanes, Class::Success);
        }
        let counts = lanes.mine().shared.circuit.0.lock().unwrap().counts();
        assert_eq!(counts.calls, u64::from(BATCH * 3));
    }

    #[test]
    fn what_ends_in_another_era_counts_no_more() {
        let lanes = lanes(BreakerPolicy::new());
        let [mut early, mut late] = [0, 1].map(|_| lanes.mine().clone().admit().unwrap());
        let shared = lanes.mine().shared();
        shared.force(Some(Force::Open));
        early.finish(Class::Success);
        shared.force(None);
        late.finish(Class::transient());
        assert_eq!(look(&lanes), (State::Closed, Counts::default()));
    }

    // In real time: a millisecond open, a handful of probes, many threads that let some of them go unused.
    #[test]
    fn never_more_probes_than_allowed_however_many_threads_ask() {
        const PROBES: u32 = 3;
        let policy = BreakerPolicy::new().consecutive_failures(1).and_then(|policy| policy.probes(PROBES));
        let policy = policy.and_then(|policy| policy.open_time(Duration::from_millis(1))).unwrap();
        let policy = policy.max_open_time(Duration::from_millis(1));
        let lanes = lanes(policy);
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        let log_changes = OnTransition(move |from, to| seen.lock().unwrap().push((from, to)));
        lanes.mine().shared().observe(Arc::new(log_changes));

        // Permits that are out or used up, by the round they belong to.
        let taken: Mutex<HashMap<usize, u32>> = Mutex::default();
        let (probes, too_many) = (AtomicU64::new(0), AtomicBool::new(false));
        let end = Instant::now() + Duration::from_millis(400);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (lanes, taken, probes, too_many) = (lanes.clone(), &taken, &probes, &too_many);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    while Instant::now() < end {
                        let Ok(mut permit) = lanes.mine().clone().admit() else { continue };
                        let fate = random.u8(..);
                        if permit.era.is_gated() {
                            probes.fetch_add(1, SeqCst);
                            let mut taken = taken.lock().unwrap();
                            let count = taken.entry(permit.era.bits()).or_default();
                            *count += 1;
                            too_many.fetch_or(*count > PROBES, SeqCst);
                            // Given back before it is given to another.
                            *count -= u32::from(fate < 80);
                        }
                        match fate {
                            0..80 => drop(permit),
                            80..100 => permit.finish(Class::transient()),
                            _ => permit.finish(Class::Success),
                        }
                    }
                });
            }
        });
        assert!(!too_many.load(SeqCst));
        assert!(probes.load(SeqCst) > 50, "{probes:?}");
        let log = log.lock().unwrap();
        for step in [
            (State::Closed, State::Open),
            (State::Open, State::HalfOpen),
            (State::HalfOpen, State::Closed),
            (State::HalfOpen, State::Open),
        ] {
            assert!(log.contains(&step), "{step:?} in {} changes", log.len());
        }
    }

    #[test]
    fn a_listener_that_panics_leaves_the_circuit_in_order() {
        let lanes = lanes(BreakerPolicy::new());
        lanes.mine().shared().observe(Arc::new(OnTransition(|_, _| panic!("told"))));
        let other = lanes.clone();
        assert!(thread::spawn(move || other.mine().shared().force(Some(Force::Open))).join().is_err());
        assert_eq!(look(&lanes).0, State::ForcedOpen);
        assert!(lanes.mine().clone().admit().is_err());
    }

    #[test]
    fn each_thread_has_a_lane_of_its_own_as_far_as_there_are_cores() {
        let lanes = lanes(BreakerPolicy::new());
        let count = lanes.0.len();
        assert!(count.is_power_of_two() && count >= cores().min(MOST_LANES));
        // Threads that are numbered one after the other.
        let first = thread_number();
        let others: Vec<_> =
            (0..8).map(|_| thread::spawn(thread_number)).map(|thread| thread.join().unwrap()).collect();
        assert_eq!(thread_number(), first);
        assert!(others.iter().all(|number| *number != first));
    }
}
