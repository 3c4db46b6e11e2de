//! What is reported about calls, and under which names.
//!
//! # Events
//!
//! Policies, breakers and cool-downs report through [`tracing`](https://docs.rs/tracing), target `tower_tenacity`. Without a
//! subscriber that costs a comparison where something went wrong, and nothing where all is well. No request, no response, no error text and
//! no key of a caller's is in an event.
//!
//! | event | level | fields | when |
//! |---|---|---|---|
//! | `retry` | debug | `attempt`, `class`, `delay_ms`, `server_delay_ms` | another attempt was decided |
//! | `gave_up` | warn; debug for `permanent` | `attempt`, `reason`, `waited_ms` | a call ends with a failure; `reason` is [`StopReason::name`], `waited_ms` what its pauses add up to |
//! | `breaker` | warn | `from`, `to` | a circuit changed its state; the names are those of [`State::as_str`] |
//! | `breaker_refused` | debug | `state`, `delay_ms` | a circuit refused a call; `delay_ms` until the next probe, if that depends on time alone |
//! | `cooldown` | warn; debug where one in force is made longer | `delay_ms`, `exhausted` | callers of a quota are held back from now on |
//! | `cooldown_wait` | debug | `delay_ms` | a call waits for its quota, which is closed for that long |
//! | `cooldown_refused` | debug | `delay_ms`, `exhausted` | a call is refused, as its quota is closed for that long |
//!
//! `attempt` counts from 1 and is the one that just ended. `server_delay_ms` is there when the server asked for it.
//!
//! # Spans
//!
//! A [`SpanLayer`] outside of the retry layer gives each call a span, in which the events of the call are found; one inside of it gives each attempt
//! a span, in which what the client below reports is found.
#![cfg_attr(
    feature = "metrics",
    doc = "
# Metrics

[`Metrics`] observes a policy and counts through the [`metrics`](https://docs.rs/metrics) facade, with the label `policy`:

| series | kind | labels | counts |
|---|---|---|---|
| `tower_tenacity_calls_total` | counter | `outcome`: `success`, `dropped`, or a [`StopReason::name`] | calls, each in exactly one outcome |
| `tower_tenacity_attempts_total` | counter | | attempts, the first of each call included |
| `tower_tenacity_retries_total` | counter | `class`: `transient`, `unsent`, `throttled` | attempts decided after the first |
| `tower_tenacity_retries_suppressed_total` | counter | `reason`: a [`StopReason::name`] | failures that could have been retried by their kind, and were not |
| `tower_tenacity_retry_delay_seconds` | histogram | | pauses between attempts |
| `tower_tenacity_budget_balance` | gauge | | retries that the budget would pay for now; none of budgets per key |

[`BreakerMetrics`] observes a circuit breaker, with the label `breaker`, and [`CooldownMetrics`] a cool-down, with the label `cooldown`. Labels
are names that you choose, never keys:

| series | kind | counts |
|---|---|---|
| `tower_tenacity_breaker_state` | gauge | 0 while calls flow, 0.5 half-open, 1 open; of many circuits the worst |
| `tower_tenacity_breaker_refused_total` | counter | calls refused |
| `tower_tenacity_cooldown_waits_total` | counter | calls held back |
| `tower_tenacity_cooldown_wait_seconds` | histogram | how long each of them was held, until it was made, refused or dropped |
| `tower_tenacity_cooldown_refused_total` | counter | calls refused, at once or after they were held |
| `tower_tenacity_cooldown_exhausted_total` | counter | how often a quota was found to be used up |

Nobody counts who does not ask for it, as here for a whole stack:

```
use tower::{ServiceBuilder, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy, circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, classify, cooldown::CooldownLayer,
    telemetry::{BreakerMetrics, CooldownMetrics, Metrics},
};

# #[tokio::main(flavor = \"current_thread\", start_paused = true)] async fn main() {
# use tower::ServiceExt;
let throttled = classify::throttled_if(classify::error_message_contains(\"429\"));
let policy = RetryPolicy::new().classify(classify::refusals().or(throttled).or(classify::errors()));
let service = ServiceBuilder::new()
    .layer(RetryLayer::new(policy.observe(Metrics::new(\"prices\"))))
    .layer(CooldownLayer::new(throttled).observe(CooldownMetrics::new(\"prices\")))
    .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).observe(BreakerMetrics::new(\"prices\")))
    .service(service_fn(|item: u32| async move { Ok::<_, std::io::Error>(item * 2) }));
assert_eq!(service.oneshot(21).await.unwrap(), 42);
# }
```
"
)]
//!
//! [`StopReason::name`]: crate::StopReason::name
//! [`State::as_str`]: crate::circuit_breaker::State::as_str

mod events;
#[cfg(feature = "metrics")]
mod metrics;
mod observers;
mod span;

#[cfg(feature = "metrics")]
pub use self::metrics::{BreakerMetrics, CooldownMetrics, Metrics};
pub(crate) use events::*;
pub(crate) use observers::Observers;
pub use span::{Span, SpanFuture, SpanLayer};
