//! Retries for any [tower](https://docs.rs/tower) service, and typed, validated answers from Google Gemini on top of them.
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, stop, wait};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let policy = RetryPolicy::new()
//!     .stop(stop::after_attempt(3) | stop::before_delay(Duration::from_secs(60)))
//!     .wait(wait::exponential().multiplier(Duration::from_secs(2)).max(Duration::from_secs(100)));
//! let service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(policy))
//!     .service(service_fn(|job: &'static str| async move { Ok::<_, std::io::Error>(job.len()) }));
//! assert_eq!(service.oneshot("job").await.unwrap(), 3);
//! # }
//! ```
//!
//! # Where to go from here
//!
//! * [`retry`]: the middleware, what can be relied on, and where it belongs in a stack.
//! * [`policy`]: the decisions. [`RetryPolicy`] is put together from [`stop`], [`wait`] and
//!   [`classify`](mod@classify); [`Policy`] is the trait behind it; [`hooks`] let one watch and change.
//! * [`circuit_breaker`] and [`cooldown`]: layers that protect the server, and the caller, from what retries cannot cure.
//! * [`timeout`]: a limit for each attempt, never more than the time left.
//! * [`telemetry`]: what is reported about all that, and under which names.
//! * [`guide`]: where the layer goes in a stack, what may be sent twice, which numbers to choose.
#![cfg_attr(feature = "gemini", doc = "* [`gemini`]: a Gemini client as a tower service, and its ready-made policy.")]
#![cfg_attr(feature = "extract", doc = "* [`extract`]: from a Rust type to a validated value of that type.")]
#![cfg_attr(feature = "testing", doc = "* [`testing`]: a Gemini stand-in on loopback and a scripted service.")]
//!
//! # Features
//!
//! | feature | adds |
//! |---|---|
//! | none | `retry`, `policy`, `timeout`, `circuit_breaker`, `cooldown` and `telemetry` |
//! | `http` (default) | `policy::http`, `policy::grpc` and `body`: retries of HTTP and gRPC calls |
//! | `gemini` | `gemini`: `generateContent` over hyper and rustls, or over any HTTP service |
//! | `extract` | `extract`: typed, checked answers; brings `gemini` |
//! | `metrics` | `telemetry::Metrics`: counters, gauges and histograms through the `metrics` facade |
//! | `testing` | `testing`: what you test your own stack with |
#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::unwrap_used))]

#[cfg(feature = "http")]
pub mod body;
pub mod circuit_breaker;
pub mod cooldown;
mod error;
#[cfg(feature = "extract")]
pub mod extract;
#[cfg(feature = "gemini")]
pub mod gemini;
pub mod guide;
pub mod hold;
mod keyed;
pub mod policy;
pub mod retry;
pub mod telemetry;
#[cfg(feature = "testing")]
pub mod testing;
mod threads;
pub mod timeout;

pub use error::BoxError;
pub use policy::{
    Attempt, BoxPolicy, CallOptions, Decision, Keep, Policy, Random, RetryPolicy, StopReason, classify, hooks, keep,
    policy_fn, stop, wait,
};
pub use retry::{Retry, RetryError, RetryLayer};

#[cfg(all(doctest, feature = "extract", feature = "testing"))]
#[doc = include_str!("../README.md")]
struct Readme;
