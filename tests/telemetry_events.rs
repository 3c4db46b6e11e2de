//! What is reported as events and spans, by name and field (law 29). Apart from other tests: whether anybody listens to an event is
//! kept for the whole process, and they do not listen.

#[path = "common/telemetry.rs"]
mod common;

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::{answering, call, class, meaning, service, used_up};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_tenacity::{
    RetryLayer, RetryPolicy, StopReason,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer},
    classify,
    cooldown::CooldownLayer,
    telemetry::SpanLayer,
    wait,
};
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};

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
    assert_eq!(StopReason::HeldBack { delay: Duration::ZERO }.name(), "held_back");
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
