//! The circuit breaker around services: who passes, what is held, what comes back (laws 5, 6, 17).

mod common;

use std::{
    cell::Cell,
    future::{Future, pending, ready},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use allocation_counter::measure;
use common::Strict;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy, StopReason,
    circuit_breaker::{self, BreakerPolicy, CircuitBreaker, CircuitBreakerLayer, CircuitOpen, Everyone, Handle, State},
    classify::{self, Class},
    timeout::{AttemptTimeoutLayer, Deadline, TimedOut},
    wait,
};

const SECOND: Duration = Duration::from_secs(1);
const MILLI: Duration = Duration::from_millis(1);

/// Opens with one failure.
fn touchy() -> BreakerPolicy {
    BreakerPolicy::new().consecutive_failures(1).unwrap()
}

fn refusal<T: std::fmt::Debug>(outcome: Result<T, BoxError>) -> CircuitOpen {
    *CircuitOpen::find(&*outcome.expect_err("refused")).expect("by the circuit")
}

async fn until_probe(handle: &Handle) {
    let left = handle.status().until_probe().expect("open");
    sleep(left).await;
}

#[tokio::test(start_paused = true)]
async fn while_closed_each_call_is_one_readiness_and_one_call_of_the_same_instance() {
    let inner = Strict::failing(0);
    let counts = inner.counts.clone();
    let mut service = CircuitBreaker::new(touchy(), inner);
    for call_number in 1..=100 {
        assert_eq!(call(&mut service, ()).await.unwrap(), call_number);
    }
    assert_eq!(counts.get(), (100, 100, 0));
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_refuses_without_touching_the_service_and_says_when_to_come_back() {
    let inner = Strict::failing(1);
    let counts = inner.counts.clone();
    let mut service = CircuitBreaker::new(touchy(), inner);
    assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "failure 1");
    let begun = Instant::now();
    let first = refusal(call(&mut service, ()).await);
    let wait = first.retry_after().unwrap();
    assert!((5 * SECOND..=10 * SECOND).contains(&wait));
    assert_eq!(first.state(), State::Open);
    advance(SECOND).await;
    assert_eq!(refusal(call(&mut service, ()).await).retry_after(), Some(wait - SECOND));
    assert_eq!(counts.get(), (1, 1, 0));
    // The first call after that time is a probe, on an instance that was made ready for it.
    tokio::time::sleep_until(begun + wait).await;
    assert_eq!(call(&mut service, ()).await.unwrap(), 2);
    assert_eq!(counts.get(), (2, 2, 1));
}

#[tokio::test(start_paused = true)]
async fn probes_decide_and_a_closed_circuit_uses_its_own_instance_again() {
    let inner = Strict::failing(2);
    let counts = inner.counts.clone();
    let mut service = CircuitBreaker::new(touchy().probes(2).unwrap(), inner);
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    until_probe(&handle).await;
    assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "failure 2");
    assert_eq!(handle.state(), State::Open);
    until_probe(&handle).await;
    call(&mut service, ()).await.unwrap();
    assert_eq!(handle.state(), State::HalfOpen);
    call(&mut service, ()).await.unwrap();
    assert_eq!(handle.state(), State::Closed);
    let clones = counts.get().2;
    call(&mut service, ()).await.unwrap();
    assert_eq!(counts.get(), (5, 5, clones));
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_waits_for_the_probe() {
    let policy = RetryPolicy::new().wait(wait::fixed(MILLI)).classify(classify::refusals().or(classify::errors()));
    let breaker = CircuitBreakerLayer::new(touchy().probes(1).unwrap());
    let inner = Strict::failing(1);
    let counts = inner.counts.clone();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(breaker.clone()).service(inner);
    let begun = Instant::now();
    assert_eq!(service.oneshot(()).await.unwrap(), 2);
    // Failed, refused a millisecond later, and a probe once that was due: not earlier, and at most a tenth later.
    assert_eq!(counts.get().1, 2);
    assert!((5 * SECOND..=11 * SECOND + 2 * MILLI).contains(&begun.elapsed()), "{:?}", begun.elapsed());
    assert_eq!(breaker.handle().state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_retry_outside_gives_up_at_once_where_the_probe_is_past_its_deadline() {
    let policy = RetryPolicy::new()
        .wait(wait::fixed(MILLI))
        .timeout(4 * SECOND)
        .classify(classify::refusals().or(classify::errors()));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy).detailed())
        .layer(CircuitBreakerLayer::new(touchy()))
        .service(Strict::failing(1));
    let begun = Instant::now();
    let error = service.oneshot(()).await.unwrap_err();
    assert!(begun.elapsed() <= 2 * MILLI);
    let open = CircuitOpen::find(&**error.last().unwrap()).unwrap();
    assert_eq!((error.attempts(), error.reason()), (2, StopReason::HeldBack { delay: open.retry_after().unwrap() }));
}

#[test]
fn the_refusal_is_found_below_others_and_was_never_sent() {
    use classify::Classify;

    async fn refused() -> BoxError {
        let mut service = CircuitBreaker::new(touchy(), Strict::failing(0));
        service.handle().force_open();
        call(&mut service, ()).await.unwrap_err()
    }
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let unsent = Some(Class::Unsent { retry_after: None });
    let boxed: Result<(), BoxError> = Err(runtime.block_on(refused()));
    assert_eq!(classify::refusals().classify(&boxed), unsent);
    let wrapped: Result<(), io::Error> = Err(io::Error::other(runtime.block_on(refused())));
    assert_eq!(classify::refusals().classify(&wrapped), unsent);
    let other: Result<(), BoxError> = Err("other".into());
    assert_eq!(classify::refusals().classify(&other), None);
    assert_eq!(classify::refusals().classify(&Ok::<_, BoxError>(())), None);
    assert_eq!(refusal(boxed).to_string(), "the circuit is forced open");
}

/// A service behind one permit, and a way to see whether it is free.
fn limited() -> tower::limit::ConcurrencyLimit<Strict> {
    ServiceBuilder::new().concurrency_limit(1).service(Strict::failing(0))
}

async fn is_free<S: Service<(), Error: std::fmt::Debug>>(mut service: S) -> bool {
    timeout(SECOND, service.ready()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_gives_back_the_permit_that_readiness_took() {
    let inner = limited();
    let mut service = CircuitBreaker::new(touchy(), inner.clone());
    // Ready while closed, called while open, and then never again.
    make_ready(&mut service).await;
    assert!(!is_free(inner.clone()).await);
    service.handle().force_open();
    refusal(service.call(()).await);
    assert!(is_free(inner.clone()).await);
    // So does a service that is only asked whether it is ready.
    service.handle().reset();
    make_ready(&mut service).await;
    service.handle().force_open();
    assert!(!is_free(inner.clone()).await);
    make_ready(&mut service).await;
    assert!(is_free(inner).await);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_gives_back_its_place_in_a_queue() {
    let inner = limited();
    let mut holder = inner.clone();
    make_ready(&mut holder).await;
    let mut service = CircuitBreaker::new(touchy(), inner.clone());
    // It stands in the queue for the permit when the circuit opens.
    assert!(poll_ready(&mut service).is_pending());
    service.handle().force_open();
    refusal(call(&mut service, ()).await);
    holder.call(()).await.unwrap();
    assert!(is_free(inner).await, "the permit did not go to an instance that nobody will call");
}

#[tokio::test(start_paused = true)]
async fn a_clone_is_not_starved_by_the_refused_calls_of_another() {
    let breaker = CircuitBreakerLayer::new(touchy().probes(1).unwrap());
    let inner = ServiceBuilder::new().concurrency_limit(1).service(Strict::failing(1));
    let mut a = breaker.layer(inner.clone());
    let mut b = breaker.layer(inner);
    make_ready(&mut a).await;
    // Its permit is with `a` so far.
    assert!(poll_ready(&mut b).is_pending());
    a.call(()).await.unwrap_err();
    assert_eq!(breaker.handle().state(), State::Open);
    refusal(call(&mut a, ()).await);
    refusal(call(&mut b, ()).await);
    until_probe(&breaker.handle()).await;
    // Neither holds the permit, so that the probe of either gets it.
    for (service, answer) in [(&mut b, 2), (&mut a, 3)] {
        let called = timeout(SECOND, call(service, ())).await.expect("starved");
        assert_eq!(called.unwrap(), answer);
    }
    assert_eq!(call(&mut b, ()).await.unwrap(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_of_a_keyed_breaker_gives_back_its_permit_too() {
    let breaker = CircuitBreakerLayer::new(touchy()).per(|(): &()| 7);
    let inner = limited();
    let mut service = breaker.layer(inner.clone());
    breaker.handle(7).force_open();
    let handle = breaker.handle(7);
    refusal(call(&mut service, ()).await);
    assert!(is_free(inner).await);
    drop(handle);
}

#[tokio::test(start_paused = true)]
async fn an_open_circuit_does_not_wait_for_a_service_that_is_stuck() {
    let inner = limited();
    let mut holder = inner.clone();
    make_ready(&mut holder).await;
    let mut service = CircuitBreaker::new(touchy(), inner);
    service.handle().force_open();
    let mut refused = pin!(call(&mut service, ()));
    assert!(poll_once(refused.as_mut()).is_ready());
}

#[tokio::test(start_paused = true)]
async fn calls_pass_through_a_buffer_and_load_shed() {
    let breaker = CircuitBreakerLayer::new(touchy().probes(1).unwrap());
    let inner = ServiceBuilder::new().buffer::<()>(1).service(Strict::failing(1));
    let mut service = breaker.layer(inner);
    call(&mut service, ()).await.unwrap_err();
    refusal(call(&mut service, ()).await);
    until_probe(&breaker.handle()).await;
    for _ in 0..5 {
        call(&mut service, ()).await.unwrap();
    }
    // What the shed refuses counts as a failure, by default.
    let inner = ServiceBuilder::new().load_shed().concurrency_limit(1).service(Strict::failing(0));
    let mut holder = inner.clone();
    make_ready(&mut holder).await;
    let mut service = CircuitBreaker::new(touchy(), inner);
    let error = call(&mut service, ()).await.unwrap_err();
    assert!(error.is::<tower::load_shed::error::Overloaded>(), "{error}");
    refusal(call(&mut service, ()).await);
}

/// What becomes of a probe that never tells: half-open must not be stuck.
async fn after_a_lost_probe(lose: impl AsyncFn(&mut CircuitBreaker<Mute>)) {
    let mute = Mute::default();
    let mut service = CircuitBreaker::new(touchy().probes(1).unwrap(), mute.clone());
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    for _ in 0..3 {
        until_probe(&handle).await;
        mute.0.store(1, SeqCst);
        lose(&mut service).await;
        assert_eq!(handle.state(), State::HalfOpen);
        // The next call gets the permit; it fails, and so it goes on.
        mute.0.store(0, SeqCst);
        assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "failed");
        assert_eq!(handle.state(), State::Open);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_that_leave_a_hanging_service_are_let_through_ever_less_often() {
    let mute = Mute::default();
    let mut service = CircuitBreaker::new(touchy().probes(1).unwrap(), mute.clone());
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    mute.0.store(1, SeqCst);
    let open = handle.status().until_probe().unwrap();
    sleep(open).await;
    timeout(MILLI, call(&mut service, ())).await.unwrap_err();
    for part in [64, 32, 16, 8, 4, 4] {
        timeout(MILLI, call(&mut service, ())).await.unwrap_err();
        let refused = refusal(call(&mut service, ()).await);
        assert_eq!((refused.state(), refused.retry_after()), (State::HalfOpen, Some(open / part)));
        sleep(open / part).await;
    }
    // Well or not, an answer counts.
    mute.0.store(0, SeqCst);
    assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "failed");
    assert_eq!(handle.state(), State::Open);
}

/// Fails (0), never answers (1), panics when called (2) or when polled (3).
#[derive(Clone, Default)]
struct Mute(Arc<AtomicU32>);

impl Service<()> for Mute {
    type Response = ();
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<(), BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        match self.0.load(SeqCst) {
            0 => Box::pin(ready(Err("failed".into()))),
            1 => Box::pin(pending()),
            2 => panic!("in call"),
            _ => Box::pin(async { panic!("in poll") }),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_its_permit_back() {
    after_a_lost_probe(async |service| {
        timeout(SECOND, call(service, ())).await.unwrap_err();
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_never_polled_gives_its_permit_back() {
    after_a_lost_probe(async |service| {
        drop(service.ready().await.unwrap().call(()));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_panics_gives_its_permit_back() {
    for how in [2, 3] {
        after_a_lost_probe(async |service| {
            service.get_ref().0.store(how, SeqCst);
            let mut probe = Box::pin(call(service, ()));
            catch_unwind(AssertUnwindSafe(|| poll_once(probe.as_mut()))).unwrap_err();
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_kept_for_ever_is_replaced_after_a_while() {
    let mut service = CircuitBreaker::new(touchy().probes(1).unwrap(), Mute::default());
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    let open = handle.status().until_probe().unwrap();
    sleep(open).await;
    let kept = service.ready().await.unwrap().call(());
    let refused = refusal(call(&mut service, ()).await);
    assert_eq!((refused.state(), refused.retry_after()), (State::HalfOpen, None));
    sleep(open - MILLI).await;
    refusal(call(&mut service, ()).await);
    sleep(2 * MILLI).await;
    assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "failed");
    drop(kept);
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn never_more_calls_at_once_than_probes_while_it_is_half_open() {
    let running = Arc::new(AtomicU32::new(0));
    let most = Arc::new(AtomicU32::new(0));
    let failing = Arc::new(AtomicU32::new(1));
    let inner = {
        let (running, most, failing) = (running.clone(), most.clone(), failing.clone());
        service_fn(move |(): ()| {
            let (running, most, failing) = (running.clone(), most.clone(), failing.clone());
            async move {
                if failing.load(SeqCst) > 0 {
                    return Err("down");
                }
                most.fetch_max(running.fetch_add(1, SeqCst) + 1, SeqCst);
                sleep(SECOND).await;
                running.fetch_sub(1, SeqCst);
                Ok(())
            }
        })
    };
    let breaker = CircuitBreakerLayer::new(touchy().probes(3).unwrap());
    let service = breaker.layer(inner);
    service.clone().oneshot(()).await.unwrap_err();
    failing.store(0, SeqCst);
    until_probe(&breaker.handle()).await;
    let calls: Vec<_> = (0..1000).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    let mut passed = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(()) => passed += 1,
            refused => assert_eq!(refusal(refused).state(), State::HalfOpen),
        }
    }
    assert_eq!((passed, most.load(SeqCst), breaker.handle().state()), (3, 3, State::Closed));
    // And now they all pass.
    let calls: Vec<_> = (0..1000).map(|_| tokio::spawn(service.clone().oneshot(()))).collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }
    assert_eq!(most.load(SeqCst), 1000);
}

#[tokio::test(start_paused = true)]
async fn what_counts_is_said_by_any_classifier() {
    let class = classify::by(|outcome: &Result<u16, io::Error>| match outcome {
        Ok(429) => Some(Class::throttled(None)),
        Ok(404) => Some(Class::Permanent),
        Ok(500..) => Some(Class::transient()),
        Err(_) => Some(Class::unsent()),
        Ok(_) => None,
    });
    let layer = CircuitBreakerLayer::new(BreakerPolicy::new()).classify(class);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|status: u16| {
        ready(if status == 0 { Err(io::Error::other("refused")) } else { Ok(status) })
    }));
    for (status, calls, failures) in
        [(200, 1, 0), (404, 2, 0), (429, 2, 0), (429, 2, 0), (503, 3, 1), (0, 4, 2), (200, 5, 2)]
    {
        let _ = call(&mut service, status).await;
        let seen = handle.status();
        assert_eq!((seen.calls(), seen.failures()), (calls, failures), "{status}");
    }
    assert_eq!(handle.status().failure_rate(), Some(0.4));
    // A retry policy takes the very same classifier.
    RetryLayer::new(RetryPolicy::new().classify(class)).layer(service).into_inner();
}

#[tokio::test(start_paused = true)]
async fn a_storm_of_429s_opens_nothing_and_a_throttled_probe_decides_nothing() {
    let throttled = classify::throttled_if(classify::on_response(|status: &u16| *status == 429));
    let layer = CircuitBreakerLayer::new(touchy().probes(1).unwrap()).classify(throttled.or(classify::errors()));
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|status: u16| ready(if status == 0 { Err("down") } else { Ok(status) })));
    for _ in 0..100 {
        assert_eq!(call(&mut service, 429).await.unwrap(), 429);
    }
    assert_eq!((handle.state(), handle.status().calls()), (State::Closed, 0));
    call(&mut service, 0).await.unwrap_err();
    until_probe(&handle).await;
    for _ in 0..100 {
        assert_eq!(call(&mut service, 429).await.unwrap(), 429);
        assert_eq!(handle.state(), State::HalfOpen);
    }
    call(&mut service, 200).await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn slow_calls_open_it_finished_or_given_up() {
    let policy = BreakerPolicy::new().minimum_calls(4).unwrap().slow_calls(SECOND, 0.5).unwrap().probes(1).unwrap();
    let layer = CircuitBreakerLayer::new(policy);
    let handle = layer.handle();
    let mut service = layer.layer(service_fn(|time: Duration| async move {
        sleep(time).await;
        Ok::<_, io::Error>(())
    }));
    for time in [SECOND - MILLI, SECOND - MILLI, SECOND] {
        call(&mut service, time).await.unwrap();
    }
    timeout(SECOND / 2, call(&mut service, SECOND)).await.unwrap_err();
    assert_eq!((handle.status().calls(), handle.status().slow_calls()), (3, 1), "given up early: not counted");
    timeout(2 * SECOND, call(&mut service, 10 * SECOND)).await.unwrap_err();
    assert_eq!((handle.state(), handle.status().slow_call_rate()), (State::Open, Some(0.5)));
    // A probe that is given up after so long has told what there was to know.
    until_probe(&handle).await;
    timeout(2 * SECOND, call(&mut service, 10 * SECOND)).await.unwrap_err();
    assert_eq!(handle.state(), State::Open);
    until_probe(&handle).await;
    call(&mut service, MILLI).await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn all_services_of_a_layer_and_of_its_clones_share_the_circuit() {
    let layer = CircuitBreakerLayer::new(touchy());
    let handle = layer.handle();
    let mut first = layer.layer(Strict::failing(1));
    let mut others = [layer.layer(Strict::failing(0)), layer.clone().layer(Strict::failing(0)), first.clone()];
    call(&mut first, ()).await.unwrap_err();
    for other in &mut others {
        refusal(call(other, ()).await);
        assert_eq!(other.handle().state(), State::Open);
    }
    handle.reset();
    for other in &mut others[..2] {
        call(other, ()).await.unwrap();
    }
    // A breaker of its own is another matter.
    call(&mut CircuitBreaker::new(touchy(), Strict::failing(0)), ()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn successes_of_many_clones_count_at_once() {
    // Clones that make one call each, as most are used.
    let layer = CircuitBreakerLayer::new(BreakerPolicy::new());
    let service = layer.layer(service_fn(|good: bool| ready(if good { Ok(()) } else { Err("down") })));
    for _ in 0..30 {
        service.clone().oneshot(true).await.unwrap();
    }
    for _ in 0..29 {
        service.clone().oneshot(false).await.unwrap_err();
    }
    assert_eq!((layer.handle().state(), layer.handle().status().calls()), (State::Closed, 59));
    service.clone().oneshot(false).await.unwrap_err();
    assert_eq!(layer.handle().state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn every_transition_is_told_in_order() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let seen = log.clone();
    let layer = CircuitBreakerLayer::new(touchy().probes(1).unwrap());
    let handle = layer.handle();
    let looked = handle.clone();
    let layer = layer.on_transition(move |from, to| {
        // The circuit is not locked: it can be asked.
        assert_eq!(looked.state(), to);
        seen.lock().unwrap().push((from, to));
    });
    let mut service = layer.layer(Strict::failing(2));
    call(&mut service, ()).await.unwrap_err();
    refusal(call(&mut service, ()).await);
    for _ in 0..2 {
        until_probe(&handle).await;
        let _ = call(&mut service, ()).await;
    }
    handle.force_open();
    handle.force_closed();
    handle.disable();
    handle.reset();
    handle.reset();
    use State::{Closed, Disabled, ForcedClosed, ForcedOpen, HalfOpen, Open};
    let states = [Closed, Open, HalfOpen, Open, HalfOpen, Closed, ForcedOpen, ForcedClosed, Disabled, Closed];
    let expected: Vec<_> = states.windows(2).map(|pair| (pair[0], pair[1])).collect();
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn forced_states_hold_for_every_clone() {
    let layer = CircuitBreakerLayer::new(touchy());
    let handle = layer.handle();
    let failing = || layer.layer(Strict::failing(u32::MAX));
    handle.force_closed();
    for _ in 0..50 {
        assert_eq!(failing().oneshot(()).await.unwrap_err().to_string(), "failure 1");
    }
    assert_eq!((handle.state(), handle.status().failures()), (State::ForcedClosed, 50));
    handle.disable();
    for _ in 0..50 {
        assert_eq!(failing().oneshot(()).await.unwrap_err().to_string(), "failure 1");
    }
    assert_eq!((handle.state(), handle.status().calls()), (State::Disabled, 0));
    handle.force_open();
    advance(Duration::from_secs(1_000_000)).await;
    assert_eq!(refusal(failing().oneshot(()).await).retry_after(), None);
    handle.reset();
    assert_eq!(failing().oneshot(()).await.unwrap_err().to_string(), "failure 1");
    assert_eq!(handle.state(), State::Open);
}

/// Not ready any more after so many calls.
#[derive(Clone)]
struct Closing(Arc<AtomicU32>);

impl Service<()> for Closing {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        Poll::Ready(left.map(drop).map_err(|_| "closed".into()))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Err("failed".into()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_readiness_error_is_returned_and_that_of_a_probe_counts() {
    let mut service = CircuitBreaker::new(touchy(), Closing(Arc::new(AtomicU32::new(0))));
    for _ in 0..3 {
        assert_eq!(service.ready().await.err().unwrap().to_string(), "closed");
    }
    assert_eq!(service.handle().state(), State::Closed);

    let mut service = CircuitBreaker::new(touchy(), Closing(Arc::new(AtomicU32::new(1))));
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    until_probe(&handle).await;
    assert_eq!(call(&mut service, ()).await.unwrap_err().to_string(), "closed");
    assert_eq!(handle.state(), State::Open);
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_while_it_gets_ready_leaves_no_trace() {
    let inner = limited();
    let mut holder = inner.clone();
    let mut service = CircuitBreaker::new(touchy().probes(1).unwrap(), Switch::new(inner.clone()));
    let handle = service.handle();
    call(&mut service, ()).await.unwrap_err();
    service.get_ref().on();
    make_ready(&mut holder).await;
    until_probe(&handle).await;
    timeout(SECOND, call(&mut service, ())).await.unwrap_err();
    drop(holder);
    assert!(is_free(inner).await);
    call(&mut service, ()).await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_too_late_say_nothing_of_the_service() {
    let answers = Arc::new(AtomicU32::new(0));
    let seen = answers.clone();
    let mut service = ServiceBuilder::new()
        .layer(CircuitBreakerLayer::new(touchy().probes(1).unwrap()))
        .layer(AttemptTimeoutLayer::new(SECOND).deadline(|deadline: &Deadline| Some(*deadline)))
        .service(service_fn(move |_: Deadline| {
            let seen = seen.clone();
            async move {
                if seen.fetch_add(1, SeqCst) == 0 {
                    pending::<()>().await;
                }
                Ok::<_, BoxError>(())
            }
        }));
    let handle = service.handle();
    let late = Deadline::after(Duration::ZERO);
    let in_time = || Deadline::after(10 * SECOND);
    for _ in 0..100 {
        assert!(call(&mut service, late).await.unwrap_err().is::<TimedOut>());
    }
    assert_eq!((handle.state(), answers.load(SeqCst)), (State::Closed, 0));
    // What was begun and took too long is a failure.
    assert!(call(&mut service, in_time()).await.unwrap_err().is::<TimedOut>());
    assert_eq!(handle.state(), State::Open);
    // Nor is it a probe that passed or failed.
    until_probe(&handle).await;
    assert!(call(&mut service, late).await.unwrap_err().is::<TimedOut>());
    assert_eq!((handle.state(), answers.load(SeqCst)), (State::HalfOpen, 1));
    call(&mut service, in_time()).await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn callers_that_come_too_late_are_neither_dropped_probes_nor_slow_calls() {
    let down = Mutex::new(false);
    let stack = |policy| {
        ServiceBuilder::new()
            .layer(CircuitBreakerLayer::new(policy))
            .layer(AttemptTimeoutLayer::new(60 * SECOND).deadline(|deadline: &Deadline| Some(*deadline)))
            .service(service_fn(|_: Deadline| {
                ready(if *down.lock().unwrap() { Err(BoxError::from("down")) } else { Ok(()) })
            }))
    };
    let mut service = stack(touchy());
    let handle = service.handle();
    let long = || Deadline::after(1000 * SECOND);
    *down.lock().unwrap() = true;
    call(&mut service, long()).await.unwrap_err();
    *down.lock().unwrap() = false;
    until_probe(&handle).await;
    // A queue of requests that have expired.
    for _ in 0..8 {
        assert!(call(&mut service, Deadline::after(Duration::ZERO)).await.unwrap_err().is::<TimedOut>());
    }
    assert_eq!(handle.state(), State::HalfOpen);
    call(&mut service, long()).await.unwrap();

    let mut service = stack(BreakerPolicy::new().minimum_calls(1).unwrap().slow_calls(SECOND, 0.5).unwrap());
    let late = service.ready().await.unwrap().call(Deadline::after(SECOND));
    // Its task gets no turn for so long.
    sleep(2 * SECOND).await;
    assert!(late.await.unwrap_err().is::<TimedOut>());
    assert_eq!((service.handle().state(), service.handle().status().calls()), (State::Closed, 0));
}

#[test]
fn a_listener_that_panics_loses_no_later_change() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let breaker = CircuitBreakerLayer::new(BreakerPolicy::new());
    let (handle, seen, first) = (breaker.handle(), log.clone(), AtomicU32::new(1));
    let breaker =
        breaker.on_transition(move |from, to| seen.lock().unwrap().push((from, to))).on_transition(move |_, _| {
            if first.swap(0, SeqCst) == 1 {
                // As another thread may meanwhile.
                handle.force_closed();
                panic!("told");
            }
        });
    let handle = breaker.handle();
    assert!(catch_unwind(AssertUnwindSafe(|| handle.force_open())).is_err());
    assert_eq!(handle.state(), State::ForcedClosed);
    assert_eq!(*log.lock().unwrap(), [(State::Closed, State::ForcedOpen), (State::ForcedOpen, State::ForcedClosed)]);
}

/// Fails until it is switched on.
#[derive(Clone)]
struct Switch<S>(S, Arc<AtomicU32>);

impl<S> Switch<S> {
    fn new(inner: S) -> Self {
        Self(inner, Arc::default())
    }
    fn on(&self) {
        self.1.store(1, SeqCst);
    }
}

impl<S: Service<(), Response: 'static, Error: Into<BoxError>, Future: 'static>> Service<()> for Switch<S> {
    type Response = S::Response;
    type Error = BoxError;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<S::Response, BoxError>>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.1.load(SeqCst) == 0 { Poll::Ready(Ok(())) } else { self.0.poll_ready(cx).map_err(Into::into) }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        if self.1.load(SeqCst) == 0 {
            return Box::pin(ready(Err("off".into())));
        }
        let answer = self.0.call(());
        Box::pin(async { answer.await.map_err(Into::into) })
    }
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_circuit_of_its_own() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let (seen, plain) = (log.clone(), log.clone());
    let layer = CircuitBreakerLayer::new(touchy())
        .on_transition(move |from, to| plain.lock().unwrap().push(format!("{from} to {to}")))
        .per(|host: &&'static str| *host)
        .on_transition(move |host, from, to| seen.lock().unwrap().push(format!("{host}: {from} to {to}")));
    let mut service =
        layer.layer(service_fn(|host: &'static str| ready(if host == "down" { Err("no answer") } else { Ok(host) })));
    call(&mut service, "down").await.unwrap_err();
    assert_eq!(call(&mut service, "up").await.unwrap(), "up");
    refusal(call(&mut service, "down").await);
    refusal(call(&mut service.clone(), "down").await);
    refusal(call(&mut layer.layer(service_fn(|host| ready(Ok::<&str, BoxError>(host)))), "down").await);
    assert_eq!((layer.handle("down").state(), layer.handle("up").state()), (State::Open, State::Closed));
    assert_eq!(layer.keys(), 2);
    until_probe(&layer.handle("down")).await;
    call(&mut service, "down").await.unwrap_err();
    let steps = ["closed to open", "open to half-open", "half-open to open"];
    let expected: Vec<_> = steps.iter().flat_map(|step| [step.to_string(), format!("down: {step}")]).collect();
    assert_eq!(*log.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn keys_are_bounded_and_closed_circuits_make_room_first() {
    let layer = CircuitBreakerLayer::new(touchy()).per(|(key, _): &(u32, bool)| *key).max_keys(3.try_into().unwrap());
    let mut service = layer.layer(service_fn(|(_, good): (u32, bool)| ready(if good { Ok(()) } else { Err("down") })));
    call(&mut service, (0, false)).await.unwrap_err();
    call(&mut service, (1, false)).await.unwrap_err();
    for key in 2..10_000 {
        call(&mut service, (key, true)).await.unwrap();
        assert!(layer.keys() <= 3);
    }
    for key in [0, 1] {
        refusal(call(&mut service, (key, true)).await);
    }
    // A third one opens: there is no room for a fourth, which passes as if there was no breaker.
    call(&mut service, (2, false)).await.unwrap_err();
    for _ in 0..3 {
        assert_eq!(call(&mut service, (3, false)).await.unwrap_err().to_string(), "down");
    }
    // Long after their time was up they make room as well.
    sleep(Duration::from_secs(20)).await;
    call(&mut service, (3, false)).await.unwrap_err();
    refusal(call(&mut service, (3, false)).await);
    assert_eq!(layer.keys(), 3);
}

#[tokio::test(start_paused = true)]
async fn probes_of_a_keyed_circuit_are_bounded_too() {
    let layer = CircuitBreakerLayer::new(touchy().probes(1).unwrap()).per(|key: &u32| *key);
    let handle = layer.handle(1);
    let up = Arc::new(AtomicU32::new(0));
    let seen = up.clone();
    let inner = service_fn(move |_: u32| {
        let up = seen.load(SeqCst) > 0;
        async move {
            if !up {
                return Err("down");
            }
            sleep(SECOND).await;
            Ok(())
        }
    });
    let service = layer.layer(inner);
    service.clone().oneshot(1).await.unwrap_err();
    up.store(1, SeqCst);
    until_probe(&handle).await;
    let mut probe = pin!(service.clone().oneshot(1));
    assert!(poll_once(probe.as_mut()).is_pending());
    assert_eq!(refusal(service.clone().oneshot(1).await).state(), State::HalfOpen);
    service.clone().oneshot(2).await.unwrap();
    probe.await.unwrap();
    assert_eq!(handle.state(), State::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_leaked_circuit_is_the_same_circuit() {
    let layer = CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(1).unwrap());
    let before = layer.handle();
    let counted = layer.layer(Strict::failing(0));
    let leaked = layer.leak();
    let service = leaked.layer(Strict::failing(1));
    assert!(service.clone().oneshot(()).await.is_err());
    assert_eq!((leaked.handle().state(), before.state()), (State::Open, State::Open));
    assert_eq!(refusal(service.oneshot(()).await).state(), State::Open);
    assert_eq!(refusal(counted.oneshot(()).await).state(), State::Open);
    before.reset();
    assert_eq!(leaked.handle().state(), State::Closed);
}

#[test]
fn a_call_that_passes_allocates_nothing() {
    let mut service = CircuitBreaker::new(BreakerPolicy::new(), Strict::failing(0));
    let mut once = || {
        assert!(poll_ready(&mut service).is_ready());
        assert!(poll_once(pin!(service.call(()))).is_ready());
    };
    // What is called again has a count of its own from then on.
    (0..2).for_each(|_| once());
    let allocated = measure(|| (0..1000).for_each(|_| once()));
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn the_future_is_that_of_the_service_and_a_little_more() {
    type Call = circuit_breaker::ResponseFuture<u64, u64, [u64; 20], classify::Errors>;
    // What it is doing, the permit of three words, and nothing for what only a probe needs.
    assert_eq!(size_of::<Call>(), 20 * 8 + 8 + 24);
}

#[tokio::test]
async fn a_runtime_is_not_needed_to_make_one_and_a_send_service_gives_a_send_breaker() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    fn sync<T: Sync>(_: &T) {}
    struct Client {
        // Named without the trouble of inference.
        service: CircuitBreaker<Strict>,
        layer: CircuitBreakerLayer<classify::Errors, Everyone>,
    }
    let layer = CircuitBreakerLayer::new(touchy());
    let client = send(Client { service: layer.layer(Strict::failing(0)), layer });
    sync(&client);
    sync(&client.layer.handle());
    let unsync: Cell<u32> = Cell::new(1);
    // The request need be neither `Sync` nor `Clone`.
    let future = send(client.service.oneshot(unsync));
    assert_eq!(future.await.unwrap(), 1);
    let keyed = CircuitBreakerLayer::new(touchy()).per(|key: &u64| *key);
    sync(&keyed);
    sync(&send(keyed.layer(Strict::failing(0))));
}

#[tokio::test]
async fn what_is_not_send_works_as_well() {
    let calls = Rc::new(Cell::new(0));
    let seen = calls.clone();
    let inner = service_fn(move |request: Rc<u32>| {
        let calls = seen.clone();
        async move {
            calls.set(calls.get() + *request);
            Ok::<_, BoxError>(calls)
        }
    });
    let mut service = CircuitBreaker::new(touchy(), inner);
    assert_eq!(call(&mut service, Rc::new(3)).await.unwrap().get(), 3);
}

#[tokio::test]
async fn values_say_something_about_themselves() {
    let layer = CircuitBreakerLayer::new(touchy());
    let service = layer.layer(Strict::failing(0));
    for text in [format!("{layer:?}"), format!("{service:?}"), format!("{:?}", layer.handle())] {
        assert!(text.contains("Closed"), "{text}");
    }
    let keyed = layer.per(|key: &String| key.clone());
    let _handle = keyed.handle("secret".to_owned());
    assert!(!format!("{keyed:?}").contains("secret"));
}

async fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

async fn make_ready<S: Service<(), Error: std::fmt::Debug>>(service: &mut S) {
    service.ready().await.unwrap();
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn poll_ready<S: Service<()>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    service.poll_ready(&mut Context::from_waker(Waker::noop()))
}
