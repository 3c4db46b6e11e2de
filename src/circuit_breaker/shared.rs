//! One circuit among many threads.
//!
//! While a circuit is closed and calls succeed, nobody writes to what others read:
//!
//! * Whether calls flow is told by one word, the [`Era`]. It is written at a transition only, under the lock.
//! * Successes are counted by each thread for itself, in a word that only it writes to, as far as there are [places](crate::threads). Each failure, each
//!   look at the state and each 64th success of a thread (unless somebody is at it) moves them all into the window, under the lock and *before*
//!   anything is decided. **So nothing is ever decided without all successes that came before it.** What the delay
//!   costs is the moment of a success: in a window of time, those found together are taken to have
//!   come evenly since the last time somebody looked.
//!
//! Every change of state passes through [`Shared::transact`], and is reported there after the lock was released. Every refusal passes
//! through [`Shared::admit`].

use std::{
    collections::VecDeque,
    fmt,
    ops::Deref,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError, TryLockError,
        atomic::{AtomicU32, AtomicUsize, Ordering},
    },
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
    threads::{Padded, Place},
};

/// How many successes of a thread wait for the window.
const BATCH: u32 = 64;

/// A circuit and what its threads need to share it.
pub struct Shared {
    era: AtomicUsize,
    /// For slow calls, which alone need the clock.
    slow_after: Option<Duration>,
    /// What the start of a timed call is counted from.
    made: Instant,
    /// All successes there ever were, wrapping around, by the thread that saw them; the first place is for those without one of their own.
    successes: Box<[Padded<AtomicU32>]>,
    // Apart from what is only read.
    counted: Padded<Mutex<Counted>>,
    observers: Observers<dyn Observer>,
    untold: Mutex<Untold>,
}

/// Changes that nobody was told of yet, in order, and whether somebody is about to.
#[derive(Default)]
struct Untold {
    changes: VecDeque<(State, State)>,
    telling: bool,
}

/// The circuit, and how many of the successes of each thread it has seen.
struct Counted {
    circuit: Circuit,
    seen: Box<[u32]>,
}

impl Shared {
    /// With so many places for threads to count in, and at least one.
    pub(super) fn new(policy: BreakerPolicy, places: usize) -> Self {
        let circuit = Circuit::new(policy);
        Self {
            era: AtomicUsize::new(circuit.era().bits()),
            slow_after: policy.slow.map(|slow| slow.after),
            made: Instant::now(),
            successes: (0..places).map(|_| Padded::default()).collect(),
            counted: Padded(Mutex::new(Counted { circuit, seen: vec![0; places].into() })),
            observers: Observers::default(),
            untold: Mutex::default(),
        }
    }

    /// Lets a call pass, or refuses it. Where [calls flow](Era::is_gated) there is no need to ask.
    #[cold]
    pub(super) fn admit<H: Deref<Target = Self>>(hold: H) -> Result<Permit<H>, CircuitOpen> {
        let era = hold.era();
        if !era.is_gated() {
            return Ok(Permit::new(hold, era));
        }
        match hold.transact(|circuit, now, _| circuit.admit(now)) {
            Ok(era) => Ok(Permit::new(hold, era)),
            Err(refusal) => Err(hold.refused(CircuitOpen::new(refusal))),
        }
    }

    #[inline]
    fn count_success(&self, era: Era) {
        // What belongs to an era that is over counts no more, save by a thread that is held up right here.
        if self.era() != era {
            return;
        }
        let successes = match Place::among(&self.successes) {
            Place::Own(Padded(counter)) => {
                let successes = counter.load(Ordering::Relaxed).wrapping_add(1);
                counter.store(successes, Ordering::Release);
                successes
            }
            Place::Shared(Padded(counter)) => counter.fetch_add(1, Ordering::AcqRel).wrapping_add(1),
        };
        if successes % BATCH == 0 {
            self.settle();
        }
    }

    #[inline]
    pub(super) fn era(&self) -> Era {
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
        let mut counted = self.counted.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Read under the lock, so that one step is never earlier than the last.
        let now = self.gather(&mut counted);
        let circuit = &mut counted.circuit;
        let before = circuit.state();
        let answer = step(circuit, now, &mut Random::from_thread());
        let after = circuit.state();
        self.era.store(circuit.era().bits(), Ordering::Release);
        if before != after {
            // In the order in which they happen.
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).changes.push_back((before, after));
        }
        drop(counted);
        if before != after {
            self.report();
        }
        answer
    }

    // Moves the successes into the window, if nobody else is just about to.
    #[cold]
    fn settle(&self) {
        let mut counted = match self.counted.0.try_lock() {
            Ok(counted) => counted,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return,
        };
        self.gather(&mut counted);
    }

    fn gather(&self, counted: &mut Counted) -> Instant {
        let mut successes = 0;
        for (Padded(counter), seen) in self.successes.iter().zip(&mut counted.seen) {
            let all = counter.load(Ordering::Acquire);
            successes += u64::from(all.wrapping_sub(*seen));
            *seen = all;
        }
        let now = Instant::now();
        counted.circuit.successes(successes, now);
        now
    }

    // One thread tells at a time, in order and under no lock; what happens meanwhile, in a listener too, is told by it, also if a
    // listener panics.
    fn report(&self) {
        let mut panicked = None;
        loop {
            let mut untold = self.untold.lock().unwrap_or_else(PoisonError::into_inner);
            if untold.telling {
                break;
            }
            let Some((from, to)) = untold.changes.pop_front() else { break };
            untold.telling = true;
            drop(untold);
            let told = panic::catch_unwind(AssertUnwindSafe(|| {
                telemetry::breaker(from.as_str(), to.as_str());
                self.observers().iter().for_each(|observer| observer.changed(from, to));
            }));
            self.untold.lock().unwrap_or_else(PoisonError::into_inner).telling = false;
            panicked = panicked.or(told.err());
        }
        if let Some(panicked) = panicked {
            panic::resume_unwind(panicked);
        }
    }

    fn refused(&self, error: CircuitOpen) -> CircuitOpen {
        telemetry::breaker_refused(error.state().as_str(), error.retry_after());
        self.observers().iter().for_each(|observer| observer.refused(&error));
        error
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.counted.0.get_mut().unwrap_or_else(PoisonError::into_inner).circuit.state();
        self.observers().iter().for_each(|observer| observer.gone(state));
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
pub(super) struct Permit<H: Deref<Target = Shared>> {
    /// `None` once it is of no more use.
    hold: Option<H>,
    era: Era,
    /// In nanoseconds since the circuit was made; zero if nobody wants to know.
    started: u64,
}

impl<H: Deref<Target = Shared>> Permit<H> {
    #[inline]
    pub(super) fn new(hold: H, era: Era) -> Self {
        let started = if hold.slow_after.is_some() { hold.age() } else { 0 };
        Self { hold: Some(hold), era, started }
    }

    pub(super) const fn none() -> Self {
        Self { hold: None, era: Era::from_bits(0), started: 0 }
    }

    /// The call ended well.
    #[inline]
    pub(super) fn succeed(&mut self) {
        match self.hold.take() {
            Some(hold) if self.started == 0 && self.era.flows() => hold.count_success(self.era),
            Some(hold) => self.tell(&hold, Class::Success),
            None => {}
        }
    }

    /// The call ended with an outcome of this class.
    pub(super) fn finish(&mut self, class: Class) {
        if let Some(hold) = self.hold.take() {
            self.tell(&hold, class);
        }
    }

    /// The call was never sent, and nobody waited for it in vain.
    pub(super) fn give_back(&mut self) {
        if let Some(hold) = self.hold.take() {
            if self.era.is_gated() {
                hold.transact(|circuit, _, _| circuit.release(self.era));
            }
        }
    }

    #[cold]
    #[inline(never)]
    fn tell(&self, hold: &Shared, class: Class) {
        if self.era.is_unwatched() {
            return;
        }
        let slow = self.started != 0 && hold.is_slow(self.started);
        let failed = match class {
            Class::Transient { .. } | Class::Unsent { .. } => true,
            Class::Success | Class::Permanent if !slow && self.era.flows() => return hold.count_success(self.era),
            Class::Success | Class::Permanent => false,
            // Says nothing about the service's health, neither way.
            Class::Throttled { .. } if self.era.flows() => return,
            Class::Throttled { .. } => return hold.transact(|circuit, _, _| circuit.release(self.era)),
        };
        hold.transact(|circuit, now, random| circuit.record(self.era, Mark { failed, slow }, now, random));
    }

    #[cold]
    #[inline(never)]
    fn abandon(&self, hold: &Shared) {
        if self.started != 0 && hold.is_slow(self.started) {
            // Whoever gave up waiting learned that much.
            self.tell(hold, Class::Success);
        } else if self.era.is_gated() {
            hold.transact(|circuit, now, _| circuit.abandon(self.era, now));
        }
    }
}

impl<H: Deref<Target = Shared>> Drop for Permit<H> {
    #[inline]
    fn drop(&mut self) {
        if let Some(hold) = self.hold.take() {
            self.abandon(&hold);
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
    use crate::threads::places;

    fn shared(policy: BreakerPolicy) -> Arc<Shared> {
        Arc::new(Shared::new(policy, places()))
    }

    fn admit(shared: &Arc<Shared>) -> Result<Permit<Arc<Shared>>, CircuitOpen> {
        Shared::admit(shared.clone())
    }

    fn call(shared: &Arc<Shared>, class: Class) {
        admit(shared).unwrap().finish(class);
    }

    fn look(shared: &Shared) -> (State, Counts) {
        let (state, counts, _) = shared.look();
        (state, counts)
    }

    fn counts(calls: u64, failed: u64) -> Counts {
        Counts { calls, failed, slow: 0 }
    }

    #[test]
    fn nothing_is_decided_without_the_successes_before_it() {
        // Fewer successes than make a batch; one more failure would be half.
        let shared = shared(BreakerPolicy::new().window_calls(100).unwrap());
        for _ in 0..30 {
            call(&shared, Class::Success);
        }
        for failed in 1..30 {
            call(&shared, Class::transient());
            assert_eq!(look(&shared), (State::Closed, counts(30 + failed, failed)));
        }
        call(&shared, Class::transient());
        assert_eq!(look(&shared), (State::Open, counts(60, 30)));
    }

    #[test]
    fn each_class_counts_as_it_should() {
        let shared = shared(BreakerPolicy::new());
        for (class, expected) in [
            (Class::Success, counts(1, 0)),
            (Class::Permanent, counts(2, 0)),
            (Class::transient(), counts(3, 1)),
            (Class::unsent(), counts(4, 2)),
            (Class::throttled(None), counts(4, 2)),
        ] {
            call(&shared, class);
            assert_eq!(look(&shared).1, expected, "{class:?}");
        }
        drop(admit(&shared).unwrap());
        assert_eq!(look(&shared).1, counts(4, 2), "dropped");
    }

    #[test]
    fn every_call_of_every_thread_is_counted_once() {
        const CALLS: u64 = 20_000;
        let shared = shared(BreakerPolicy::new().without_failure_rate().window_calls(1_000_000).unwrap());
        thread::scope(|scope| {
            for thread in 0..8 {
                let shared = shared.clone();
                scope.spawn(move || {
                    for number in 0..CALLS {
                        // Some fail all the time, so that lanes are emptied while others fill them.
                        let failed = number % 10 == thread;
                        call(&shared, if failed { Class::transient() } else { Class::Success });
                    }
                });
            }
        });
        assert_eq!(look(&shared).1, counts(8 * CALLS, 8 * CALLS / 10));
    }

    #[test]
    fn a_batch_goes_into_the_window_without_anybody_asking() {
        let shared = shared(BreakerPolicy::new().window_calls(1000).unwrap());
        for _ in 0..BATCH * 3 + 1 {
            call(&shared, Class::Success);
        }
        let counts = shared.counted.0.lock().unwrap().circuit.counts();
        assert_eq!(counts.calls, u64::from(BATCH * 3));
    }

    #[test]
    fn what_ends_in_another_era_counts_no_more() {
        let shared = shared(BreakerPolicy::new());
        let [mut early, mut late] = [0, 1].map(|_| admit(&shared).unwrap());
        shared.force(Some(Force::Open));
        early.finish(Class::Success);
        shared.force(None);
        late.finish(Class::transient());
        assert_eq!(look(&shared), (State::Closed, Counts::default()));
    }

    // In real time: a millisecond open, a handful of probes, many threads that let some of them go unused.
    #[test]
    fn never_more_probes_than_allowed_however_many_threads_ask() {
        const PROBES: u32 = 3;
        let policy = BreakerPolicy::new().consecutive_failures(1).and_then(|policy| policy.probes(PROBES));
        let policy = policy.and_then(|policy| policy.open_time(Duration::from_millis(1))).unwrap();
        let policy = policy.max_open_time(Duration::from_millis(1));
        let shared = shared(policy);
        let log = Arc::new(Mutex::new(Vec::new()));
        let seen = log.clone();
        let log_changes = OnTransition(move |from, to| seen.lock().unwrap().push((from, to)));
        shared.observe(Arc::new(log_changes));

        // Permits that are out or used up, by the round they belong to.
        let taken: Mutex<HashMap<usize, u32>> = Mutex::default();
        let (probes, too_many) = (AtomicU64::new(0), AtomicBool::new(false));
        let end = Instant::now() + Duration::from_millis(400);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (shared, taken, probes, too_many) = (shared.clone(), &taken, &probes, &too_many);
                scope.spawn(move || {
                    let mut random = fastrand::Rng::with_seed(thread);
                    while Instant::now() < end {
                        let Ok(mut permit) = admit(&shared) else { continue };
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
        assert!(log.windows(2).all(|pair| pair[0].1 == pair[1].0), "told in order");
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
        let shared = shared(BreakerPolicy::new());
        shared.observe(Arc::new(OnTransition(|_, _| panic!("told"))));
        let other = shared.clone();
        assert!(thread::spawn(move || other.force(Some(Force::Open))).join().is_err());
        assert_eq!(look(&shared).0, State::ForcedOpen);
        assert!(admit(&shared).is_err());
    }
}
