//! What is counted, and that the sums agree (law 29).
#![cfg(feature = "metrics")]

#[path = "common/telemetry.rs"]
mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use common::{answering, call, class, meaning, service, used_up};
use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    CallOptions, Retry, RetryLayer, RetryPolicy,
    circuit_breaker::{self, BreakerPolicy, CircuitBreakerLayer},
    classify,
    cooldown::CooldownLayer,
    policy::budget::Budget,
    telemetry::{BreakerMetrics, CooldownMetrics, Metrics},
    wait,
};

/// Everything that was counted: `name{label=value,…}`.
#[derive(Clone, Default)]
struct Counted {
    numbers: Arc<Mutex<BTreeMap<String, Arc<AtomicU64>>>>,
    delays: Arc<Delays>,
}

#[derive(Default)]
struct Delays(Mutex<Vec<f64>>);

impl HistogramFn for Delays {
    fn record(&self, value: f64) {
        self.0.lock().unwrap().push(value);
    }
}

impl Counted {
    fn number(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> = key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{}{{{}}}", key.name(), labels.join(","));
        self.numbers.lock().unwrap().entry(name).or_default().clone()
    }

    /// Everything above zero.
    fn seen(&self) -> Vec<(String, u64)> {
        let numbers = self.numbers.lock().unwrap();
        let seen = numbers.iter().map(|(name, number)| (name.replace("tower_tenacity_", ""), number.load(SeqCst)));
        seen.filter(|(_, number)| *number > 0).collect()
    }

    /// The gauge of this name and label.
    fn gauge(&self, name: &str) -> f64 {
        let number = self.numbers.lock().unwrap()[&format!("tower_tenacity_{name}")].load(SeqCst);
        f64::from_bits(number)
    }

    fn names(&self) -> Vec<String> {
        self.numbers.lock().unwrap().keys().cloned().collect()
    }

    fn sum(&self, series: &str) -> u64 {
        self.seen().iter().filter(|(name, _)| name.starts_with(series)).map(|(_, number)| number).sum()
    }
}

impl Recorder for Counted {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.number(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.number(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.delays.clone())
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_ends_in_exactly_one_outcome_and_the_sums_agree() {
    let counted = Counted::default();
    let recorder = metrics::set_default_local_recorder(&counted);
    let policy = RetryPolicy::new()
        .wait(wait::fixed(Duration::from_secs(1)))
        .classify(classify::by(class))
        .per_request(|script: &&str| match script.contains('0') {
            true => CallOptions::new().idempotent(false),
            false => CallOptions::new(),
        })
        .observe(Metrics::new("test"));
    let service = Retry::new(policy.clone(), service());
    for (script, fine) in [(".", true), ("x.", true), ("xu.", true), ("t.", true), ("xxx", false), ("p", false)] {
        assert_eq!(service.clone().oneshot(script).await.is_ok(), fine, "{script}");
    }
    assert!(service.clone().oneshot("l").await.is_err(), "2000 s are too long");
    assert!(service.clone().oneshot("x0").await.is_err(), "must not be repeated");
    // Dropped in its second attempt.
    let dropped = tokio::time::timeout(Duration::from_secs(5), service.clone().oneshot("xw")).await;
    assert!(dropped.is_err());
    // Made and never polled; an attempt is under way from the call on.
    let mut called = service.clone();
    drop(tower::Service::call(called.ready().await.unwrap(), "w"));
    drop((service, called, policy));

    let expected = [
        ("attempts_total{policy=test}", 17),
        ("calls_total{policy=test,outcome=dropped}", 2),
        ("calls_total{policy=test,outcome=exhausted}", 1),
        ("calls_total{policy=test,outcome=not_idempotent}", 1),
        ("calls_total{policy=test,outcome=permanent}", 1),
        ("calls_total{policy=test,outcome=server_delay}", 1),
        ("calls_total{policy=test,outcome=success}", 4),
        ("retries_suppressed_total{policy=test,reason=exhausted}", 1),
        ("retries_suppressed_total{policy=test,reason=not_idempotent}", 1),
        ("retries_suppressed_total{policy=test,reason=server_delay}", 1),
        ("retries_total{policy=test,class=throttled}", 1),
        ("retries_total{policy=test,class=transient}", 5),
        ("retries_total{policy=test,class=unsent}", 1),
    ];
    assert_eq!(counted.seen(), expected.map(|(name, number)| (name.to_owned(), number)));
    assert_eq!(counted.sum("calls_total"), 10);
    assert_eq!(counted.sum("attempts_total"), counted.sum("calls_total") + counted.sum("retries_total"));
    assert_eq!(counted.delays.0.lock().unwrap().len() as u64, counted.sum("retries_total"));
    drop(recorder);
}

#[tokio::test(start_paused = true)]
async fn the_budget_is_shown_when_it_is_used() {
    let counted = Counted::default();
    let _recorder = metrics::set_default_local_recorder(&counted);
    let budget = Budget::standard();
    let policy = RetryPolicy::new().wait(wait::none()).budget(budget.clone());
    let policy = policy.observe(Metrics::new("test").budget(&budget));
    let failing = service_fn(|(): ()| async { Err::<(), _>("down") });
    for _ in 0..3 {
        Retry::new(policy.clone(), failing).oneshot(()).await.unwrap_err();
    }
    // A reserve of two, and no successes to pay for more.
    assert_eq!(counted.sum("retries_total"), 2);
    assert_eq!(counted.sum("retries_suppressed_total{policy=test,reason=budget}"), 2);
    assert_eq!(counted.sum("budget_balance"), 0, "what it shows is bits of a float, and zero is zero");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_breaker_is_shown_and_its_refusals_are_counted() {
    let counted = Counted::default();
    let _recorder = metrics::set_default_local_recorder(&counted);
    let state = || counted.gauge("breaker_state{breaker=test}");
    let policy = BreakerPolicy::new().consecutive_failures(1).and_then(|policy| policy.probes(2)).unwrap();
    let metrics = BreakerMetrics::new("test");
    assert_eq!(
        counted.names(),
        ["breaker_refused_total", "breaker_state"].map(|name| format!("tower_tenacity_{name}{{breaker=test}}"))
    );
    let layer = CircuitBreakerLayer::new(policy).observe(metrics.clone());
    let mut service = ServiceBuilder::new().layer(layer.clone()).service(answering());
    assert_eq!(state(), 0.0);
    call(&mut service, "down").await.unwrap_err();
    assert_eq!(state(), 1.0);
    for _ in 0..3 {
        call(&mut service, "fine").await.unwrap_err();
    }
    assert_eq!(counted.sum("breaker_refused_total{breaker=test}"), 3);
    tokio::time::sleep(Duration::from_secs(10)).await;
    call(&mut service, "fine").await.unwrap();
    assert_eq!(state(), 0.5);
    call(&mut service, "fine").await.unwrap();
    assert_eq!(state(), 0.0);
    layer.handle().force_open();
    assert_eq!(state(), 1.0);
    layer.handle().disable();
    assert_eq!(state(), 0.0);

    // Many circuits under one name: the worst of them, and none that is gone.
    let keyed = CircuitBreakerLayer::new(policy).observe(metrics).per(|answer: &&'static str| *answer);
    let mut service = ServiceBuilder::new().layer(keyed.clone()).service(answering());
    call(&mut service, "down").await.unwrap_err();
    call(&mut service, "broken").await.unwrap_err();
    call(&mut service, "fine").await.unwrap();
    assert_eq!(state(), 1.0);
    keyed.handle("down").reset();
    assert_eq!(state(), 1.0);
    drop((service, keyed));
    assert_eq!(state(), 0.0);
    assert_eq!(counted.names().len(), 2, "no series for a key");
}

#[tokio::test(start_paused = true)]
async fn every_attempt_of_a_stack_is_sent_or_refused_once() {
    let counted = Counted::default();
    let _recorder = metrics::set_default_local_recorder(&counted);
    const LAST: u64 = 200;
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    // Of ten calls four fail and one is throttled; a last one finds the quota used up.
    let server = service_fn(move |call: u64| {
        seen.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match call % 10 {
                _ if call == LAST => Err(BoxError::from("out")),
                0 => Err::<(), _>(BoxError::from("429 for 10 s")),
                1..=4 => Err(BoxError::from("down")),
                _ => Ok(()),
            }
        }
    });
    let policy = RetryPolicy::new()
        .wait(wait::fixed(Duration::from_millis(100)))
        .classify(classify::refusals().or(classify::by(meaning)))
        .observe(Metrics::new("test"));
    let breaker = CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(4).unwrap())
        .classify(classify::by(meaning))
        .observe(BreakerMetrics::new("test"));
    let circuit = breaker.handle();
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(
            CooldownLayer::new(classify::by(meaning))
                .exhausted_if(used_up)
                .max_wait(Duration::from_secs(9))
                .observe(CooldownMetrics::new("test")),
        )
        .layer(breaker)
        .service(server);
    let local = tokio::task::LocalSet::new();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..LAST {
        let stack = stack.clone();
        calls.spawn_local_on(
            async move {
                tokio::time::sleep(Duration::from_millis(number * 300)).await;
                stack.oneshot(number).await.is_ok()
            },
            &local,
        );
    }
    let outcomes = local.run_until(calls.join_all()).await;
    let fine = outcomes.into_iter().filter(|fine| *fine).count() as u64;
    tokio::time::sleep(Duration::from_secs(100)).await;
    circuit.force_open();
    stack.clone().oneshot(LAST).await.unwrap_err();
    circuit.reset();
    stack.oneshot(LAST).await.unwrap_err();

    let sum = |series: &str| counted.sum(series);
    assert_eq!(sum("calls_total"), LAST + 2);
    assert_eq!(sum("calls_total{policy=test,outcome=success}"), fine);
    assert_eq!(sum("attempts_total"), sum("calls_total") + sum("retries_total"));
    let refused = sum("breaker_refused_total") + sum("cooldown_refused_total");
    assert_eq!(sum("attempts_total"), sent.load(SeqCst) + refused);
    // All of it happened.
    for series in [
        "breaker_refused_total",
        "cooldown_refused_total",
        "cooldown_waits_total",
        "retries_total{policy=test,class=throttled}",
    ] {
        assert!(sum(series) > 0, "{series}: {:?}", counted.seen());
    }
    assert_eq!(sum("cooldown_exhausted_total"), 1);
    // The delays of retries, and how long each call was held.
    let held = counted.delays.0.lock().unwrap().len() as u64 - sum("retries_total");
    assert_eq!(held, sum("cooldown_waits_total"));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_held_ends_its_wait_however_it_ends() {
    let counted = Counted::default();
    let _recorder = metrics::set_default_local_recorder(&counted);
    let layer = CooldownLayer::new(classify::by(meaning)).observe(CooldownMetrics::new("test"));
    let mut service = ServiceBuilder::new().layer(layer.per(|_: &&'static str| 1)).service(answering());
    call(&mut service, "429 for 10 s").await.unwrap_err();
    let dropped = tokio::time::timeout(Duration::from_secs(4), call(&mut service, "fine")).await;
    assert!(dropped.is_err());
    call(&mut service, "fine").await.unwrap();
    let held = counted.delays.0.lock().unwrap().clone();
    assert_eq!(counted.sum("cooldown_waits_total{cooldown=test}"), 2);
    assert!((3.9..4.1).contains(&held[0]) && (5.9..7.1).contains(&held[1]) && held.len() == 2, "{held:?}");
}

#[tokio::test(start_paused = true)]
async fn the_state_of_a_breaker_is_right_also_where_a_listener_changes_it() {
    let counted = Counted::default();
    let _recorder = metrics::set_default_local_recorder(&counted);
    let layer = CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(1).unwrap());
    let handle = layer.handle();
    let other = handle.clone();
    let layer = layer
        .on_transition(move |_, to| {
            if to == circuit_breaker::State::Open {
                other.force_closed();
            }
        })
        .observe(BreakerMetrics::new("b"));
    let mut service = layer.layer(service_fn(|()| async { Err::<(), _>("down") }));
    service.ready().await.unwrap().call(()).await.unwrap_err();
    assert_eq!(handle.state(), circuit_breaker::State::ForcedClosed);
    assert_eq!(counted.gauge("breaker_state{breaker=b}"), 0.0);
}
