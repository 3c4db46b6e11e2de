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
//! | `breaker` | warn | `from`, `to` | a circuit breaker changed its state |
//! | `cooldown` | warn | `delay_ms`, `exhausted` | callers of a quota are held back from now on |
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
| `tower_tenacity_budget_balance` | gauge | | retries that the budget would pay for now |
"
)]
//!
//! [`StopReason::name`]: crate::StopReason::name

mod events;
#[cfg(feature = "metrics")]
mod metrics;
mod span;

#[cfg(feature = "metrics")]
pub use self::metrics::Metrics;
pub(crate) use events::{gave_up, retry};
pub use span::{Span, SpanFuture, SpanLayer};
