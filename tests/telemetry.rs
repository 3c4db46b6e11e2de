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
use tower::{ServiceExt, service_fn};
use tower_tenacity::{
    CallOptions, Retry, RetryLayer, RetryPolicy, StopReason,
    classify::{self, Class},
    policy::budget::Budget,
    telemetry::{Metrics, SpanLayer},
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
        Err('u') => Class::Unsent,
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
