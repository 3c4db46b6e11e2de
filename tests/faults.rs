//! The whole stack against a server that breaks: outages, stalls, restarts, throttling, clocks that jump, callers that leave.
//!
//! A script says what happens; whatever it says, no call is lost, deadlines and the budget are kept, everything recovers and
//! nothing stays behind. The scripts are the same in every run. For more, or for others:
//!
//! ```text
//! PROPTEST_CASES=5000 PROPTEST_RNG_SEED=7 cargo test --all-features --test faults
//! ```

#[cfg(feature = "metrics")]
#[path = "common/counted.rs"]
mod counted;
#[path = "common/property.rs"]
mod property;
#[path = "common/unreliable.rs"]
mod unreliable;

use std::{
    ops::Range,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use proptest::{prelude::*, test_runner::TestCaseError};
use tokio::{
    sync::Semaphore,
    task::JoinHandle,
    time::{Instant, advance, sleep},
};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, limit::GlobalConcurrencyLimitLayer, util::BoxCloneService,
};
use tower_tenacity::{
    Attempt, CallOptions, RetryLayer, RetryPolicy, StopReason,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, Handle, State},
    classify::{self, Class},
    cooldown::{CooldownLayer, CoolingDown},
    hooks::{Delay, Observer},
    policy::budget::Budget,
    stop,
    timeout::{self, AttemptTimeout, AttemptTimeoutLayer, Deadline, TimedOut},
    wait,
};
use unreliable::{Ask, Fault, Mood, Server};

// One step of a script. The simpler ones come first: scripts shrink towards them.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// Time passes; everybody is woken when it is due.
    Pass { millis: u32 },
    /// So many callers at once.
    Call { callers: usize },
    /// A caller that finds the service ready and calls some time later.
    Dawdle { millis: u32 },
    /// What the server does with those who come from now on.
    Server(Mood),
    /// What the server was working on is lost.
    Restart,
    /// The caller of one of the calls under way leaves.
    Leave { caller: usize },
    /// The clock jumps: nobody runs in between.
    Jump { seconds: u32 },
}

fn mood() -> impl Strategy<Value = Mood> {
    let seconds = prop_oneof![4 => 1_u32..20, 2 => 20_u32..600, 1 => Just(LONG_HINT)];
    prop_oneof![
        3 => Just(Mood::Fine),
        2 => (1_u32..3_000).prop_map(|millis| Mood::Slow { millis }),
        2 => Just(Mood::Stalled),
        2 => Just(Mood::Down),
        2 => Just(Mood::Failing),
        3 => prop::option::of(seconds).prop_map(|seconds| Mood::Throttling { seconds }),
        1 => (1_u32..600).prop_map(|seconds| Mood::UsedUp { seconds }),
        1 => Just(Mood::Refusing),
        1 => Just(Mood::Unready),
        1 => Just(Mood::Busy),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => pause(),
        6 => call(),
        2 => (1_u32..5_000).prop_map(|millis| Step::Dawdle { millis }),
        4 => mood().prop_map(Step::Server),
        1 => Just(Step::Restart),
        2 => any::<usize>().prop_map(|caller| Step::Leave { caller }),
        1 => (1_u32..10_000).prop_map(|seconds| Step::Jump { seconds }),
    ]
}

fn call() -> impl Strategy<Value = Step> {
    (1_usize..7).prop_map(|callers| Step::Call { callers })
}

fn pause() -> impl Strategy<Value = Step> {
    prop_oneof![4 => 1_u32..500, 2 => 500_u32..20_000].prop_map(|millis| Step::Pass { millis })
}

/// Steps of any kind, and moods of the server that somebody meets.
fn script(length: Range<usize>) -> impl Strategy<Value = Vec<Step>> {
    let episode = (mood(), call(), pause()).prop_map(|(mood, call, pause)| vec![Step::Server(mood), call, pause]);
    let some = prop_oneof![2 => step().prop_map(|step| vec![step]), 1 => episode];
    prop::collection::vec(some, length).prop_map(|steps| steps.concat())
}

/// More than a quota is believed to be closed for.
const LONG_HINT: u32 = 100_000;
const RATIO: f64 = 0.2;
const WINDOW: Duration = Duration::from_secs(30);
const ATTEMPT_LIMIT: Duration = Duration::from_secs(2);
/// A timer fires up to this much late.
const GRAIN: Duration = Duration::from_millis(1);
/// By now whatever was in force is over: no hint that is believed is longer, and neither are open times and windows.
const LONG_AFTER: Duration = Duration::from_secs(700);

/// How the stack is set up.
#[derive(Clone, Copy, Debug)]
struct Setup {
    /// How long a call may take.
    limit: Duration,
    permits: usize,
    /// Retries that need no success.
    reserve: u32,
    /// Failures in a row that open the circuit.
    failures: u32,
}

impl Setup {
    const USUAL: Self = Self { limit: Duration::from_secs(8), permits: 4, reserve: 3, failures: 4 };
}

fn setup() -> impl Strategy<Value = Setup> {
    let limit = (1_u64..60).prop_map(Duration::from_secs);
    (limit, 1_usize..8, 0_u32..20, 1_u32..40).prop_map(|(limit, permits, reserve, failures)| Setup {
        limit,
        permits,
        reserve,
        failures,
    })
}

// What is wrong with the stack on purpose, to see that somebody notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    None,
    /// No error of the retry layer's own, so nothing to end a call with in time. The one flaw that is a way to use it.
    Plain,
    NoBudget,
    /// The breaker never closes again.
    StuckBreaker,
    /// A call that is dropped keeps its permit.
    KeptPermit,
    /// A call that is dropped is not told of.
    SilentDrop,
    /// The server is never well again.
    Incurable,
}

/// What happened, as the observers of all calls saw it.
#[derive(Clone, Debug, Default)]
struct Record {
    made: usize,
    succeeded: usize,
    failed: usize,
    dropped: usize,
    endless: usize,
    attempts: usize,
    successes: Vec<Instant>,
    // When the retries were decided that were sent.
    retries: Vec<Instant>,
    // By how much attempts were begun past the deadline.
    late: Vec<Duration>,
    // Pauses that would have ended at or past the deadline.
    overlong: Vec<Duration>,
}

// Sees one call, as a policy is copied for each of them; the template sees none.
struct Witness {
    record: Arc<Mutex<Record>>,
    begun: AtomicU32,
    ended: AtomicU32,
    decided: Mutex<Option<Instant>>,
    silent: bool,
}

impl Witness {
    fn new(record: Arc<Mutex<Record>>, silent: bool) -> Self {
        Self { record, begun: AtomicU32::new(0), ended: AtomicU32::new(0), decided: Mutex::new(None), silent }
    }

    fn end(&self, note: impl FnOnce(&mut Record)) {
        self.ended.fetch_add(1, SeqCst);
        note(&mut self.record.lock().unwrap());
    }
}

impl Clone for Witness {
    fn clone(&self) -> Self {
        Self::new(self.record.clone(), self.silent)
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        let mut record = self.record.lock().unwrap();
        match (*self.begun.get_mut(), *self.ended.get_mut()) {
            (0, 0) | (_, 1) => {}
            (_, 0) if self.silent => {}
            (_, 0) => record.dropped += 1,
            _ => record.endless += 1,
        }
    }
}

impl Observer<(), BoxError> for Witness {
    fn before_attempt(&self, attempt: &Attempt) {
        self.begun.fetch_add(1, SeqCst);
        let mut record = self.record.lock().unwrap();
        record.attempts += 1;
        if attempt.number() > 1 {
            record.retries.extend(self.decided.lock().unwrap().take());
        }
    }

    fn before_sleep(&self, attempt: &Attempt, _: &Result<(), BoxError>, delay: &Delay) {
        if attempt.time_left().is_none_or(|left| delay.duration() >= left) {
            self.record.lock().unwrap().overlong.push(delay.duration());
        }
        *self.decided.lock().unwrap() = Some(Instant::now());
    }

    fn gave_up(&self, _: &Attempt, _: &Result<(), BoxError>, _: StopReason) {
        self.end(|record| record.failed += 1);
    }

    fn not_ready(&self, _: &Attempt, _: &BoxError) {
        self.end(|record| record.failed += 1);
    }

    fn timed_out(&self, _: &Attempt) {
        self.end(|record| record.failed += 1);
    }

    fn succeeded(&self, _: &Attempt, _: &Result<(), BoxError>) {
        self.end(|record| {
            record.succeeded += 1;
            record.successes.push(Instant::now());
        });
    }
}

fn class(outcome: &Result<(), BoxError>) -> Option<Class> {
    let error = outcome.as_ref().err()?;
    if let Some(refused) = CoolingDown::find(&**error) {
        return Some(refused.class());
    }
    if error.is::<TimedOut>() {
        return Some(Class::transient());
    }
    Some(match error.downcast_ref::<Fault>()? {
        Fault::Disconnected => Class::unsent(),
        Fault::Failed => Class::transient(),
        Fault::Throttled { retry_after } => Class::throttled(*retry_after),
        Fault::UsedUp { .. } | Fault::Wrong => Class::Permanent,
    })
}

fn used_up(outcome: &Result<(), BoxError>) -> Option<Duration> {
    match outcome.as_ref().err()?.downcast_ref()? {
        Fault::UsedUp { span } => Some(*span),
        _ => None,
    }
}

type Stack = BoxCloneService<Ask, (), BoxError>;

/// The server without a limit of concurrency, with the errors of the stack.
fn unlimited(server: &Server) -> AttemptTimeout<Server, timeout::NoDeadline> {
    AttemptTimeoutLayer::new(ATTEMPT_LIMIT).layer(server.clone())
}

/// A stack, what is around it, and what was seen of it.
struct World {
    server: Server,
    permits: Arc<Semaphore>,
    budget: Budget,
    breaker: Handle,
    cooling: Box<dyn Fn() -> Option<Instant>>,
    stack: Stack,
    // Nothing but the breaker or the cool-down of the stack around the server.
    behind_breaker: Stack,
    behind_cooldown: Stack,
    record: Arc<Mutex<Record>>,
    trace: Arc<()>,
    // Callers that wait for the service to be ready, or for their answer.
    callers: Vec<JoinHandle<Option<Ended>>>,
    ended: Vec<Ended>,
    left: usize,
    panicked: usize,
    jumps: Vec<(Instant, Instant)>,
    dawdlers: Arc<AtomicUsize>,
    // Moments at which more permits were out than there was use for.
    idle_permits: Vec<Instant>,
    setup: Setup,
    flaw: Flaw,
    #[cfg(feature = "metrics")]
    counted: counted::Counted,
}

/// A call that was not dropped.
#[derive(Clone, Copy, Debug)]
struct Ended {
    at: Instant,
    deadline: Instant,
    good: bool,
}

/// Somebody who found the service ready and has not called yet.
struct Dawdler(Arc<AtomicUsize>);

impl Dawdler {
    fn new(count: Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, SeqCst);
        Self(count)
    }
}

impl Drop for Dawdler {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl World {
    fn new(setup: Setup, flaw: Flaw) -> Self {
        let server = Server::new();
        let permits = Arc::new(Semaphore::new(setup.permits));
        let budget = Budget::new(RATIO).unwrap().window(WINDOW).unwrap().reserve(setup.reserve);
        let record = Arc::<Mutex<Record>>::default();

        let breaker = BreakerPolicy::new().consecutive_failures(setup.failures).unwrap().seed(1);
        let breaker = CircuitBreakerLayer::new(breaker).classify(classify::by(class).or(classify::errors()));
        let cooldown = CooldownLayer::new(classify::by(class))
            .backoff(wait::floored_jitter().seed(2))
            .exhausted_if(used_up)
            .deadline(|ask: &Ask| Some(ask.deadline));
        let late = record.clone();
        let policy = RetryPolicy::new()
            .stop(stop::after_attempt(5))
            .wait(wait::floored_jitter().seed(3))
            .classify(classify::refusals().or(classify::by(class)))
            .per_request(|ask: &Ask| CallOptions::new().deadline(ask.deadline))
            .before_attempt(move |_: &Attempt, ask: &mut Ask| {
                let past = Instant::now().saturating_duration_since(ask.deadline.moment());
                if !past.is_zero() {
                    late.lock().unwrap().late.push(past);
                }
            })
            .observe(Witness::new(record.clone(), flaw == Flaw::SilentDrop));
        #[cfg(feature = "metrics")]
        let policy = policy.observe(tower_tenacity::telemetry::Metrics::new("faults").budget(&budget));
        let bottomless = || Budget::new(1.0).unwrap().reserve(u32::MAX);
        let policy = policy.budget(if flaw == Flaw::NoBudget { bottomless() } else { budget.clone() });

        let handle = breaker.handle();
        if flaw == Flaw::StuckBreaker {
            handle.force_open();
        }
        let behind_breaker = ServiceBuilder::new().boxed_clone().layer(breaker.clone()).service(unlimited(&server));
        let behind_cooldown = ServiceBuilder::new().boxed_clone().layer(cooldown.clone()).service(unlimited(&server));
        let inner = ServiceBuilder::new()
            .layer(cooldown.clone())
            .layer(breaker)
            .layer(AttemptTimeoutLayer::new(ATTEMPT_LIMIT).deadline(|ask: &Ask| Some(ask.deadline)))
            .layer(GlobalConcurrencyLimitLayer::with_semaphore(permits.clone()))
            .service(server.clone());
        let retry = RetryLayer::new(policy);
        let stack = if flaw == Flaw::Plain {
            ServiceBuilder::new().boxed_clone().layer(retry).service(inner)
        } else {
            ServiceBuilder::new()
                .boxed_clone()
                .map_err(|error: tower_tenacity::RetryError<BoxError>| BoxError::from(error.erase()))
                .layer(retry.detailed())
                .service(inner)
        };
        Self {
            server,
            permits,
            budget,
            breaker: handle,
            cooling: Box::new(move || cooldown.cooling_until()),
            stack,
            behind_breaker,
            behind_cooldown,
            record,
            trace: Arc::default(),
            callers: Vec::new(),
            ended: Vec::new(),
            left: 0,
            panicked: 0,
            jumps: Vec::new(),
            dawdlers: Arc::default(),
            idle_permits: Vec::new(),
            setup,
            flaw,
            #[cfg(feature = "metrics")]
            counted: counted::Counted::default(),
        }
    }

    fn call(&self, dawdle: Duration) -> JoinHandle<Option<Ended>> {
        let (mut stack, record, trace) = (self.stack.clone(), self.record.clone(), self.trace.clone());
        let (limit, dawdlers) = (self.setup.limit, self.dawdlers.clone());
        tokio::spawn(async move {
            // A caller that finds the service unready makes no call.
            let ready = stack.ready().await.ok()?;
            if !dawdle.is_zero() {
                let _dawdler = Dawdler::new(dawdlers);
                sleep(dawdle).await;
            }
            let deadline = Deadline::after(limit);
            record.lock().unwrap().made += 1;
            let good = ready.call(Ask { deadline, trace }).await.is_ok();
            Some(Ended { at: Instant::now(), deadline: deadline.moment(), good })
        })
    }

    async fn play(&mut self, script: &[Step]) {
        for step in script {
            match *step {
                Step::Pass { millis } => sleep(Duration::from_millis(millis.into())).await,
                Step::Call { callers } => {
                    for _ in 0..callers {
                        let caller = self.call(Duration::ZERO);
                        self.callers.push(caller);
                    }
                }
                Step::Dawdle { millis } => {
                    let caller = self.call(Duration::from_millis(millis.into()));
                    self.callers.push(caller);
                }
                Step::Server(mood) => self.server.set(mood),
                Step::Restart => self.server.restart(),
                Step::Leave { caller } => self.leave(caller),
                Step::Jump { seconds } => {
                    let from = Instant::now();
                    advance(Duration::from_secs(seconds.into())).await;
                    self.jumps.push((from, Instant::now()));
                }
            }
            // Whoever can go on does so.
            sleep(GRAIN).await;
            self.collect().await;
            // Whoever waits for a busy server has a permit to wait with, and so has who found it ready and did not call yet.
            let out = self.setup.permits - self.permits.available_permits().min(self.setup.permits);
            let used = self.server.under_way() + self.dawdlers.load(SeqCst);
            if self.server.mood() != Mood::Busy && out > used {
                self.idle_permits.push(Instant::now());
            }
        }
    }

    fn leave(&mut self, caller: usize) {
        if !self.callers.is_empty() {
            let caller = caller % self.callers.len();
            if self.flaw == Flaw::KeptPermit {
                self.permits.forget_permits(1);
            }
            self.callers[caller].abort();
        }
    }

    async fn collect(&mut self) {
        for caller in std::mem::take(&mut self.callers) {
            if !caller.is_finished() {
                self.callers.push(caller);
                continue;
            }
            match caller.await {
                Ok(ended) => self.ended.extend(ended),
                Err(error) if error.is_cancelled() => self.left += 1,
                Err(_) => self.panicked += 1,
            }
        }
    }

    /// The faults are over, and all calls that are under way end.
    async fn calm(&mut self) {
        if self.flaw != Flaw::Incurable {
            self.server.set(Mood::Fine);
        }
        self.server.restart();
        sleep(LONG_AFTER).await;
        self.collect().await;
    }

    /// By when a call has to end that was to end by `moment`: at once when the clock jumps over that.
    fn allowed(&self, moment: Instant) -> Instant {
        let latest = moment + GRAIN;
        let landed = self.jumps.iter().filter(|(from, to)| *from <= latest && latest < *to).map(|(_, to)| *to);
        landed.max().map_or(latest, |to| to + GRAIN)
    }
}

type Verdict = Result<(), TestCaseError>;

/// Every future ends, and every call in exactly one outcome.
async fn no_call_is_lost(world: &mut World) -> Verdict {
    world.calm().await;
    let record = world.record.lock().unwrap().clone();
    prop_assert_eq!(world.panicked, 0, "a call panicked");
    prop_assert_eq!(world.callers.len(), 0, "callers still wait");
    prop_assert_eq!(record.endless, 0, "a call ended twice");
    prop_assert_eq!(record.succeeded + record.failed + record.dropped, record.made, "{:?}", record);
    let good = world.ended.iter().filter(|call| call.good).count();
    prop_assert_eq!((record.succeeded, record.failed), (good, world.ended.len() - good));
    // Who leaves before the service is ready has not called.
    prop_assert!(record.dropped <= world.left);
    #[cfg(feature = "metrics")]
    {
        let counted = &world.counted;
        prop_assert_eq!(counted.sum("calls_total"), record.made);
        prop_assert_eq!(counted.get("calls_total faults success"), record.succeeded);
        prop_assert_eq!(counted.get("calls_total faults dropped"), record.dropped);
        prop_assert_eq!(counted.sum("attempts_total"), record.attempts);
    }
    Ok(())
}

/// No attempt takes longer than it may, and no pause is begun that is too long.
async fn attempts_are_cut(world: &mut World) -> Verdict {
    world.calm().await;
    let overlong = world.record.lock().unwrap().overlong.clone();
    prop_assert!(overlong.is_empty(), "pauses of {:?} are too long", overlong);
    for arrival in world.server.arrivals() {
        let limit = arrival.deadline.max(arrival.at).min(arrival.at + ATTEMPT_LIMIT);
        let Some(gone) = arrival.gone else { return Err(TestCaseError::fail("an attempt is still under way")) };
        prop_assert!(gone <= world.allowed(limit), "an attempt took {:?}", gone - arrival.at);
    }
    Ok(())
}

/// No call ends past its deadline, and no attempt begins past it.
async fn the_deadline_is_kept(world: &mut World) -> Verdict {
    attempts_are_cut(world).await?;
    for call in &world.ended {
        prop_assert!(call.at <= world.allowed(call.deadline), "{:?} late", call.at - call.deadline);
    }
    let late = world.record.lock().unwrap().late.clone();
    prop_assert!(late.is_empty(), "begun past the deadline: {:?}", late);
    for arrival in world.server.arrivals() {
        let late = arrival.at.saturating_duration_since(arrival.deadline);
        prop_assert!(arrival.at <= world.allowed(arrival.deadline), "arrived {:?} late", late);
    }
    Ok(())
}

/// In any window, no more retries than the successes in it pay for, and the reserve.
async fn the_budget_is_kept(world: &mut World) -> Verdict {
    world.calm().await;
    let record = world.record.lock().unwrap().clone();
    prop_assert!(record.attempts - record.retries.len() == record.made);
    for end in &record.retries {
        let within = |moment: &&Instant| **moment <= *end && end.duration_since(**moment) < WINDOW;
        let retries = record.retries.iter().filter(within).count();
        let successes = record.successes.iter().filter(within).count();
        let bound = (successes as f64 * RATIO).floor() as usize + world.setup.reserve as usize;
        prop_assert!(retries <= bound, "{} retries, {} successes", retries, successes);
    }
    Ok(())
}

/// Long after the faults every call succeeds at its first attempt.
async fn all_is_well_in_the_end(world: &mut World) -> Verdict {
    world.calm().await;
    // As many as the breaker sends probes, and more.
    for _ in 0..5 {
        let before = world.server.arrivals().len();
        let call = world.call(Duration::ZERO);
        sleep(GRAIN).await;
        prop_assert!(call.is_finished(), "a call hangs");
        let ended = call.await.map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(ended.is_some_and(|call| call.good), "a call fails");
        prop_assert_eq!(world.server.arrivals().len() - before, 1);
    }
    prop_assert_eq!(world.breaker.state(), State::Closed);
    prop_assert_eq!((world.cooling)(), None);
    Ok(())
}

/// Permits, retries, requests and attempts are given back, whether calls end or are dropped.
async fn nothing_stays_behind(world: &mut World) -> Verdict {
    prop_assert!(world.idle_permits.is_empty(), "permits were held and not used");
    // Most of them leave, wherever they are.
    for caller in 0..world.callers.len() {
        if caller % 4 > 0 {
            world.leave(caller);
        }
    }
    world.calm().await;
    prop_assert_eq!(world.permits.available_permits(), world.setup.permits);
    prop_assert_eq!(world.server.under_way(), 0);
    prop_assert_eq!(Arc::strong_count(&world.trace), 1, "a request is still kept");
    prop_assert_eq!(world.budget.available(Instant::now()), u64::from(world.setup.reserve));
    Ok(())
}

/// What a future comes to without waiting.
fn now<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

/// As soon as all callers are gone, nobody is held back for them.
async fn who_leaves_is_not_waited_for(world: &mut World) -> Verdict {
    prop_assert!(world.idle_permits.is_empty(), "permits were held and not used");
    (0..world.callers.len()).for_each(|caller| world.leave(caller));
    sleep(GRAIN).await;
    prop_assert_eq!(world.permits.available_permits(), world.setup.permits);
    prop_assert_eq!(world.server.under_way(), 0);
    prop_assert_eq!(Arc::strong_count(&world.trace), 1, "a request is still kept");

    let moment = Instant::now();
    let retries = world.record.lock().unwrap().retries.clone();
    // The window moves in steps of a fiftieth.
    let recent = retries.iter().filter(|retry| moment.duration_since(**retry) < WINDOW + WINDOW / 25).count();
    let least = (world.setup.reserve as usize).saturating_sub(recent);
    let available = world.budget.available(moment);
    prop_assert!(available >= least as u64, "{} of {} retries are left", available, least);

    world.server.set(Mood::Fine);
    let ask = || Ask { deadline: Deadline::after(LONG_AFTER), trace: Arc::default() };
    if (world.cooling)().is_none() {
        let answer = now(world.behind_cooldown.ready().await.unwrap().call(ask()));
        prop_assert!(matches!(answer, Some(Ok(()))), "the cool-down holds a call back: {:?}", answer);
    }
    if world.breaker.state() != State::Open {
        let answer = now(world.behind_breaker.ready().await.unwrap().call(ask()));
        prop_assert!(matches!(answer, Some(Ok(()))), "the breaker holds a call back: {:?}", answer);
    }
    Ok(())
}

/// Plays `script` to a stack with `flaw` and asks `property`.
fn check<F>(setup: Setup, script: &[Step], flaw: Flaw, property: F) -> Verdict
where
    F: AsyncFnOnce(&mut World) -> Verdict,
{
    #[cfg(feature = "metrics")]
    let counted = counted::Counted::default();
    #[cfg(feature = "metrics")]
    let _here = metrics::set_default_local_recorder(&counted);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut world = World::new(setup, flaw);
        #[cfg(feature = "metrics")]
        world.counted.clone_from(&counted);
        world.play(script).await;
        property(&mut world).await
    })
}

/// That a property holds is worth something only if a stack which lacks it is found out.
#[test]
fn every_property_notices_a_stack_that_lacks_it() {
    let call = |callers| Step::Call { callers };
    let (down, jump, leave) = (Step::Server(Mood::Down), Step::Jump { seconds: 8 }, Step::Leave { caller: 0 });
    let (stalled, busy) = (Step::Server(Mood::Stalled), Step::Server(Mood::Busy));

    check(Setup::USUAL, &[stalled, call(1), leave], Flaw::SilentDrop, no_call_is_lost).unwrap_err();
    check(Setup::USUAL, &[busy, call(1)], Flaw::Incurable, no_call_is_lost).unwrap_err();
    check(Setup::USUAL, &[down, call(1), jump], Flaw::Plain, the_deadline_is_kept).unwrap_err();
    check(Setup::USUAL, &[down, call(6)], Flaw::NoBudget, the_budget_is_kept).unwrap_err();
    check(Setup::USUAL, &[], Flaw::StuckBreaker, all_is_well_in_the_end).unwrap_err();
    check(Setup::USUAL, &[down], Flaw::Incurable, all_is_well_in_the_end).unwrap_err();
    check(Setup::USUAL, &[stalled, call(2), leave], Flaw::KeptPermit, nothing_stays_behind).unwrap_err();
    check(Setup::USUAL, &[busy, call(1)], Flaw::Incurable, nothing_stays_behind).unwrap_err();

    let all = [stalled, call(2), leave, down, call(6), jump, busy, call(1)];
    check(Setup::USUAL, &all, Flaw::None, no_call_is_lost).unwrap();
    check(Setup::USUAL, &all, Flaw::None, the_deadline_is_kept).unwrap();
    check(Setup::USUAL, &all, Flaw::None, the_budget_is_kept).unwrap();
    check(Setup::USUAL, &all, Flaw::None, all_is_well_in_the_end).unwrap();
    check(Setup::USUAL, &all, Flaw::None, nothing_stays_behind).unwrap();
}

/// The smallest script that found it: the clock jumps past the deadline during the pause after a failure.
#[test]
fn no_attempt_is_begun_when_the_clock_jumps_past_the_deadline() {
    let script = [Step::Server(Mood::Down), Step::Call { callers: 1 }, Step::Jump { seconds: 8 }];
    check(Setup::USUAL, &script, Flaw::None, the_deadline_is_kept).unwrap();
    check(Setup::USUAL, &script, Flaw::None, no_call_is_lost).unwrap();
}

/// A circuit opens between a caller's readiness and its call, which then waits for the next probe, without its permit.
#[test]
fn a_call_that_waits_for_a_probe_holds_no_permit() {
    let setup = Setup { limit: Duration::from_secs(60), failures: 1, ..Setup::USUAL };
    let script = [
        Step::Dawdle { millis: 50 },
        Step::Server(Mood::Down),
        Step::Call { callers: 1 },
        Step::Pass { millis: 100 },
        Step::Pass { millis: 100 },
    ];
    check(setup, &script, Flaw::None, nothing_stays_behind).unwrap();
}

proptest! {
    #![proptest_config(property::config(96))]

    #[test]
    fn no_call_is_ever_lost(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::None, no_call_is_lost)?;
    }

    #[test]
    fn deadlines_are_kept(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::None, the_deadline_is_kept)?;
    }

    #[test]
    fn the_bound_of_the_budget_is_kept(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::None, the_budget_is_kept)?;
    }

    #[test]
    fn breaker_and_cool_down_recover(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::None, all_is_well_in_the_end)?;
    }

    #[test]
    fn nothing_is_left_of_calls_that_are_over(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::None, nothing_stays_behind)?;
    }

    #[test]
    fn nobody_waits_for_those_who_left(setup in setup(), script in script(1..12)) {
        check(setup, &script, Flaw::None, who_leaves_is_not_waited_for)?;
    }

    #[test]
    fn a_plain_stack_loses_and_keeps_nothing_either(setup in setup(), script in script(1..40)) {
        check(setup, &script, Flaw::Plain, no_call_is_lost)?;
        check(setup, &script, Flaw::Plain, attempts_are_cut)?;
        check(setup, &script, Flaw::Plain, nothing_stays_behind)?;
        check(setup, &script, Flaw::Plain, all_is_well_in_the_end)?;
        check(setup, &script, Flaw::Plain, who_leaves_is_not_waited_for)?;
    }
}
