//! What is reported: events by name and field, spans, and metrics whose sums agree (law 29).
#![cfg(feature = "metrics")]

use std::{
    collections::BTreeMap,
    fmt,
    future::pending,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use metrics::{Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    CallOptions, Retry, RetryLayer, RetryPolicy, StopReason,
    circuit_breaker::{self, BreakerPolicy, CircuitBreakerLayer},
    classify::{self, Class},
    cooldown::{self, CooldownLayer},
    policy::budget::Budget,
    telemetry::{BreakerMetrics, CooldownMetrics, Metrics, SpanLayer},
    wait,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
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

/// The request says how it goes: what comes of each attempt, in letters.
fn service() -> impl tower::Service<&'static str, Response = (), Error = char, Future: Send> + Clone {
    let calls = Arc::new(Mutex::new(BTreeMap::<&str, usize>::new()));
    service_fn(move |script: &'static str| {
        let mut calls = calls.lock().unwrap();
        let call = calls.entry(script).or_default();
        let letter = script.chars().nth(*call).expect("an attempt that was not expected");
        *call += 1;
        async move {
            match letter {
                '.' => Ok(()),
                'w' => pending().await,
                letter => Err(letter),
            }
        }
    })
}

fn class(outcome: &Result<(), char>) -> Class {
    match outcome {
        Ok(()) => Class::Success,
        Err('t') => Class::throttled(Some(Duration::from_secs(2))),
        Err('l') => Class::throttled(Some(Duration::from_secs(2000))),
        Err('u') => Class::unsent(),
        Err('p') => Class::Permanent,
        Err(_) => Class::transient(),
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

/// Events and spans as lines.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<String>>>, Arc<Mutex<Vec<u64>>>);

struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() != "message" {
            *self.0 += &format!(" {}={value:?}", field.name());
        }
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        metadata.target() == "tower_tenacity"
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        let mut line = format!("span {}", attributes.metadata().name());
        attributes.record(&mut Fields(&mut line));
        let mut lines = self.0.lock().unwrap();
        lines.push(line);
        span::Id::from_u64(lines.len() as u64)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}
    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let level = *event.metadata().level();
        let level = if level == Level::WARN { "warn" } else { "debug" };
        let mut line = format!("{level} {}", event.metadata().name());
        event.record(&mut Fields(&mut line));
        line += &format!(" in {:?}", self.1.lock().unwrap());
        self.0.lock().unwrap().push(line);
    }

    fn enter(&self, span: &span::Id) {
        self.1.lock().unwrap().push(span.into_u64());
    }

    fn exit(&self, _: &span::Id) {
        self.1.lock().unwrap().pop();
    }
}

#[tokio::test(start_paused = true)]
async fn events_have_fixed_names_and_fields_and_stand_in_the_span_of_their_call() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let policy = RetryPolicy::new().wait(wait::fixed(Duration::from_secs(1))).classify(classify::by(class));
    let stack = tower::ServiceBuilder::new()
        .layer(SpanLayer::call("test"))
        .layer(RetryLayer::new(policy))
        .layer(SpanLayer::attempt("test"))
        .service(service());
    stack.clone().oneshot("xt.").await.unwrap();
    let seen = std::mem::take(&mut *lines.0.lock().unwrap());
    // The server's delay is spread out a little.
    let delay = seen[4].split("delay_ms=").nth(1).unwrap().split(' ').next().unwrap();
    assert!((2000..=2200).contains(&delay.parse().unwrap()), "{seen:?}");
    assert_eq!(
        seen,
        [
            "span call name=\"test\"",
            "span attempt name=\"test\"",
            "debug retry attempt=1 class=\"transient\" delay_ms=1000 in [1]",
            "span attempt name=\"test\"",
            &format!("debug retry attempt=2 class=\"throttled\" delay_ms={delay} server_delay_ms=2000 in [1]"),
            "span attempt name=\"test\"",
        ]
    );
    stack.clone().oneshot("xxx").await.unwrap_err();
    stack.oneshot("p").await.unwrap_err();
    let seen = std::mem::take(&mut *lines.0.lock().unwrap());
    let ends: Vec<_> = seen.iter().filter(|line| line.contains("gave_up")).collect();
    assert_eq!(
        ends,
        [
            "warn gave_up attempt=3 reason=\"exhausted\" waited_ms=2000 in [1]",
            "debug gave_up attempt=1 reason=\"permanent\" waited_ms=0 in [8]",
        ]
    );
    assert_eq!(StopReason::ServerDelay { asked: Duration::ZERO }.name(), "server_delay");
}

/// A service that answers as it is told.
fn answering() -> impl Service<&'static str, Response = (), Error = BoxError, Future: Send> + Clone {
    service_fn(|answer: &'static str| async move {
        tokio::task::yield_now().await;
        match answer {
            "fine" => Ok(()),
            answer => Err(BoxError::from(answer)),
        }
    })
}

fn meaning(outcome: &Result<(), BoxError>) -> Class {
    let Err(error) = outcome else { return Class::Success };
    match &*error.to_string() {
        "429" => Class::throttled(None),
        "429 for 10 s" => Class::throttled(Some(Duration::from_secs(10))),
        "429 for 20 s" => Class::throttled(Some(Duration::from_secs(20))),
        _ => Class::transient(),
    }
}

fn used_up(outcome: &Result<(), BoxError>) -> Option<Duration> {
    matches!(outcome, Err(error) if error.to_string() == "out").then_some(Duration::from_secs(900))
}

async fn call<S>(service: &mut S, answer: &'static str) -> Result<(), BoxError>
where
    S: Service<&'static str, Response = (), Error = BoxError>,
{
    service.ready().await?.call(answer).await
}

#[tokio::test(start_paused = true)]
async fn breakers_and_cooldowns_tell_what_they_do_and_no_key() {
    let lines = Lines::default();
    let _guard = tracing::subscriber::set_default(lines.clone());
    let take = || std::mem::take(&mut *lines.0.lock().unwrap());

    let policy = BreakerPolicy::new().consecutive_failures(1).and_then(|policy| policy.probes(1)).unwrap();
    let layer = CircuitBreakerLayer::new(policy.seed(1)).per(|_: &&'static str| "secret");
    let mut breaker = ServiceBuilder::new().layer(layer.clone()).service(answering());
    call(&mut breaker, "down").await.unwrap_err();
    call(&mut breaker, "fine").await.unwrap_err();
    let left = layer.handle("secret").status().until_probe().unwrap().as_millis();
    tokio::time::sleep(Duration::from_secs(10)).await;
    call(&mut breaker, "fine").await.unwrap();
    layer.handle("secret").force_open();
    call(&mut breaker, "fine").await.unwrap_err();
    assert_eq!(
        take(),
        [
            "warn breaker from=\"closed\" to=\"open\" in []",
            &format!("debug breaker_refused state=\"open\" delay_ms={left} in []"),
            "warn breaker from=\"open\" to=\"half-open\" in []",
            "warn breaker from=\"half-open\" to=\"closed\" in []",
            "warn breaker from=\"closed\" to=\"forced open\" in []",
            "debug breaker_refused state=\"forced open\" in []",
        ]
    );

    let layer = CooldownLayer::new(classify::by(meaning)).exhausted_if(used_up).per(|_: &&'static str| "secret");
    let mut cooldown = ServiceBuilder::new().layer(layer.max_wait(Duration::from_secs(30))).service(answering());
    // Under way together: the later moment counts.
    let both = ["429 for 10 s", "429 for 20 s"].map(|answer| cooldown.call(answer));
    for throttled in both {
        throttled.await.unwrap_err();
    }
    call(&mut cooldown, "fine").await.unwrap();
    call(&mut cooldown, "out").await.unwrap_err();
    call(&mut cooldown, "fine").await.unwrap_err();
    assert_eq!(
        take(),
        [
            "warn cooldown delay_ms=10000 exhausted=false in []",
            "debug cooldown delay_ms=20000 exhausted=false in []",
            "debug cooldown_wait delay_ms=20000 in []",
            "warn cooldown delay_ms=900000 exhausted=true in []",
            "debug cooldown_refused delay_ms=900000 exhausted=true in []",
        ]
    );
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
    let sent = Arc::new(AtomicU64::new(0));
    let seen = sent.clone();
    // Half of the calls fail, one in ten is throttled, and the last ones find the quota used up.
    let server = service_fn(move |call: u64| {
        seen.fetch_add(1, SeqCst);
        async move {
            tokio::time::sleep(Duration::from_millis(5)).await;
            match call % 10 {
                0 => Err::<(), _>(BoxError::from("429 for 10 s")),
                1..=4 => Err(BoxError::from("down")),
                _ if call > 190 => Err(BoxError::from("out")),
                _ => Ok(()),
            }
        }
    });
    let told = |outcome: &Result<(), BoxError>| outcome.as_ref().err().and_then(|error| cooldown::class_of(&**error));
    let policy = RetryPolicy::new()
        .wait(wait::fixed(Duration::from_millis(100)))
        .classify(circuit_breaker::classify().or(classify::by(told)).or(classify::by(meaning)))
        .observe(Metrics::new("test"));
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(
            CooldownLayer::new(classify::by(meaning))
                .exhausted_if(used_up)
                .max_wait(Duration::from_secs(9))
                .observe(CooldownMetrics::new("test")),
        )
        .layer(
            CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(4).unwrap())
                .classify(classify::by(meaning))
                .observe(BreakerMetrics::new("test")),
        )
        .service(server);
    let local = tokio::task::LocalSet::new();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
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

    let sum = |series: &str| counted.sum(series);
    assert_eq!(sum("calls_total"), 200);
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
