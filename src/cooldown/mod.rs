//! One caller's 429 holds back everyone who shares the quota.
//!
//! A rate limit is not the misfortune of one call. Whoever else calls in the same minute is refused as well, finds out for
//! itself, waits by itself, and comes back together with all the others. A [`CooldownLayer`] keeps one moment for all of
//! them: the first 429 sets it, nobody calls before it, and after it they come one by one.
//!
//! In a simulation of a quota of 60 calls a minute, with bursts of three times as many and one process of many tasks, three attempts that
//! wait as the server asks were refused 126 to 234 times in half an hour; with this layer it was 7 to 9 times. All calls were answered either
//! way, but refused calls cost attempts, and with some servers they count against other limits. With twenty processes, each of which has to
//! find out for itself, it was 76 to 118 times (three runs; `tests/simulation/layers.rs`).
//!
#![doc = include_str!("../guide/cooldown.svg")]
//!
//! ```
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{classify::{self, Class}, cooldown::CooldownLayer};
//!
//! # #[derive(Debug)]
//! struct TooMany { retry_after: Duration }
//! # impl std::fmt::Display for TooMany {
//! #     fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("429") }
//! # }
//! # impl std::error::Error for TooMany {}
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let throttled = classify::by(|outcome: &Result<u32, TooMany>| match outcome {
//!     Ok(_) => Class::Success,
//!     Err(refused) => Class::throttled(Some(refused.retry_after)),
//! });
//! # let calls = std::sync::atomic::AtomicU32::new(0);
//! # let calls = &calls;
//! let service = ServiceBuilder::new()
//!     .layer(CooldownLayer::new(throttled))
//!     .service(service_fn(|number: u32| async move {
//!         // Refuses its first call.
//! #       let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//! #       if call == 0 { return Err(TooMany { retry_after: Duration::from_secs(40) }); }
//!         Ok(number)
//!     }));
//!
//! let begun = Instant::now();
//! assert!(service.clone().oneshot(1).await.is_err());
//! // Somebody else, who never saw the 429, waits as the server asked, and a little more.
//! assert_eq!(service.oneshot(2).await.unwrap(), 2);
//! assert!(begun.elapsed() >= Duration::from_secs(40) && begun.elapsed() <= Duration::from_secs(45));
//! # }
//! ```
//!
//! # Where it belongs in a stack
//!
//! ```text
//! caller
//!   └─ RetryLayer            sees the 429 too, and waits as long as the server asks
//!       └─ CooldownLayer             holds back the calls of everybody else meanwhile
//!           └─ CircuitBreakerLayer
//!               └─ a timeout per attempt
//!                   └─ the client
//! ```
//!
//! Below the retry layer, with the same classifier: each attempt asks here. The one that was refused has waited in the retry layer when it
//! comes back, finds the moment past and is not held again. Above a timeout per attempt, which would otherwise run
//! while the call is held. One layer value is one quota: every service made from it, and from its clones, shares it.
//!
//! # Who waits how long
//!
//! | | until when | who goes then |
//! |---|---|---|
//! | throttled, and the server says for how long (`d`) | `d` from then, never earlier | everybody who waits, each at a moment drawn from the `d / 10` after it |
//! | throttled, and it does not say | our guess: [`backoff`](CooldownLayer::backoff), by the number of throttlings in a row | one, the probe; when it is let in, everybody, each at a moment drawn from the time the guess was, at most 5 s |
//! | [used up](CooldownLayer::exhausted_if) for long | as told by a function of the failure | nobody waits: calls fail at once. After it a probe, as above |
//!
//! * Of several moments the latest counts, and one that a server named goes before a guess. A delay of zero says nothing; one of
//!   more than a day is not believed. Both are taken for none.
//! * Calls that come after the moment pass at once. They are not a herd.
//! * Calls that were under way together when the first of them was refused count as one: the guess does not grow for each.
//! * A probe that is throttled makes the next guess longer. Any other answer lets the others pass. One that is dropped, panics, comes
//!   back from an open circuit or an attempt timeout without time left, or whose own request body failed, hands on its role; for one that
//!   is not answered within 5 s another goes, as refusals come quickly and answers may take minutes.
//! * Nobody waits longer than [`max_wait`](CooldownLayer::max_wait), 300 s, or up to its own
//!   [`deadline`](CooldownLayer::deadline). A call that would have to is refused at once; with
//!   [`fail_fast`](CooldownLayer::fail_fast) every call is that would have to wait at all. One that comes out of its wait past its
//!   deadline, as when the clock jumps, is refused too.
//! * A cool-down that nobody comes back to is forgotten a minute after its moment.
//!
//! # Quotas
//!
//! [`per`](CooldownLayer::per) tells calls apart by a function of the request, so that one tenant's limit holds back nobody
//! else:
//!
//! ```
//! use std::time::Duration;
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{classify::{self, Class}, cooldown::{CooldownLayer, CoolingDown}};
//!
//! struct Job { tenant: &'static str }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let layer = CooldownLayer::new(classify::throttled_if(classify::on_error(|error: &BoxError| error.to_string() == "429")))
//!     .per(|job: &Job| job.tenant)
//!     .fail_fast();
//! let service = ServiceBuilder::new().layer(layer.clone()).service(service_fn(|job: Job| async move {
//!     if job.tenant == "greedy" { Err(BoxError::from("429")) } else { Ok("done") }
//! }));
//!
//! let greedy = || service.clone().oneshot(Job { tenant: "greedy" });
//! assert_eq!(greedy().await.unwrap_err().to_string(), "429");
//! assert!(greedy().await.unwrap_err().is::<CoolingDown>());
//! assert!(layer.cooling_until(&"greedy").is_some());
//! assert_eq!(service.clone().oneshot(Job { tenant: "modest" }).await.unwrap(), "done");
//! # }
//! ```
//!
//! # Errors
//!
//! Errors are boxed: those of the service inside, unchanged, and [`CoolingDown`] for a call that was not made. The ready-made policies for
//! HTTP, gRPC and Gemini know what that means: permanent where a quota is used up or the deadline has passed, else throttled for as long as is
//! left. Any other has to be told, by [`classify::refusals`](crate::classify::refusals) before its own classifier.
//!
//! # What can be relied on
//!
//! * While nothing is in force a call reads one word that is shared. It writes nothing shared, allocates nothing, reads no
//!   clock, and takes no lock. The service is cloned only for a call that is held or refused.
//! * Nothing waits or fails in `poll_ready`. A call that is held drops the instance that was made ready, with its permit or its
//!   place in a queue, and makes another one ready after the wait: a concurrency limit below is free meanwhile.
//! * A call that is dropped at any point leaves nothing behind: neither a place in a queue nor the role of going first.
//! * With however many keys, at most [`max_keys`](CooldownLayer::max_keys) are remembered.
//!
//! # Panics
//!
//! When a call has to wait, outside of a tokio runtime with time enabled.

mod error;
mod future;
mod gate;
mod layer;
mod observer;
mod service;
mod store;
mod terms;

pub use error::CoolingDown;
pub use future::ResponseFuture;
pub use layer::{CooldownLayer, LeakedCooldownLayer};
pub use observer::Observer;
pub use service::Cooldown;
pub use terms::{Everyone, Exhausted, NeverExhausted, Per, Scope, Terms};
