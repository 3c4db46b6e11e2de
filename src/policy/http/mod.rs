//! Retries of HTTP calls: what a status means, what may be repeated, which delays a server asks for.
//!
//! [`RetryPolicy::http`](crate::RetryPolicy::http) has all of it, for any client or server of [`http::Request`]s:
//!
//! ```
//! use http::{Method, Request, Response, StatusCode};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, policy::budget::Budget};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # let calls = std::cell::Cell::new(0);
//! # let calls = &calls;
//! // Nothing succeeds here, so that nothing would pay for retries beyond the reserve of two.
//! let policy = RetryPolicy::http().budget(Budget::standard().reserve(10));
//! let mut client = ServiceBuilder::new()
//!     .layer(RetryLayer::new(policy))
//!     .service(service_fn(|_: Request<String>| async {
//!         // Never up.
//! #       calls.set(calls.get() + 1);
//!         Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).body(String::new())
//!     }));
//!
//! let response = client.ready().await.unwrap().call(Request::put("/items/7").body("seven".into()).unwrap()).await;
//! assert_eq!(response.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
//! # assert_eq!(calls.take(), 3); // three attempts
//!
//! // The server may have taken this order: it is not sent again.
//! let response = client.ready().await.unwrap().call(Request::post("/orders").body("a hat".into()).unwrap()).await;
//! assert_eq!(response.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
//! # assert_eq!(calls.take(), 1);
//!
//! // With a key the server knows it if it sees it twice.
//! let order = Request::post("/orders").header("idempotency-key", "\"5f2a\"").body("a hat".into()).unwrap();
//! let response = client.ready().await.unwrap().call(order).await;
//! assert_eq!(response.unwrap().status(), StatusCode::SERVICE_UNAVAILABLE);
//! # assert_eq!(calls.take(), 3);
//! # }
//! ```
//!
//! # What is sent again
//!
//! | | and again | why, and how to change it |
//! |---|---|---|
//! | GET, HEAD, OPTIONS, TRACE, PUT, DELETE and QUERY, PROPFIND, REPORT, SEARCH | after 408, 425, 429, 500, 502, 503, 504, a 403 that is a rate limit, a 413 with a delay; after a lost connection or a timeout | repeating them changes nothing ([`Idempotency`]). What an outcome means is [`Classifier`]'s: both tables are there, and [`statuses`](Classifier::statuses) |
//! | POST, PATCH and methods unknown | only if it never reached the server: refused connection, `REFUSED_STREAM`, `GOAWAY` with `NO_ERROR` | they might be carried out twice. An `Idempotency-Key`, an [`Idempotent`] extension or [a hook](Idempotency) makes them the like of the others, or a GET the like of these |
//! | CONNECT, requests with `Upgrade` | never | the connection becomes something else |
//! | a body that streams | never | it is gone once it was sent: [`ReplayBodyLayer`](crate::body::ReplayBodyLayer) keeps it while it streams, up to its cap; beyond that the response is handed on |
//! | anything a layer further out is retrying | never | [`Mark`]: `N + M − 1` attempts in all, not `N · M` |
//! | any response from 100 to 399 | never | it is an answer |
//! | any other status | never, unless the server says `x-should-retry: true` (by `false` it forbids what is above, too) | the same would come again |
//!
//! # When, and how often
//!
//! | | by default | changed by |
//! |---|---|---|
//! | attempts | three, the first included | [`.stop(…)`](crate::RetryPolicy::stop) |
//! | pause | the delay the server [asks for](hints), never shortened, spread by a tenth; else [floored jitter](crate::wait::floored_jitter): 0.1 to 0.2 s, then 0.1 to 0.4 s, ten times that after a 429 | [`.wait(…)`](crate::RetryPolicy::wait); [`hints`] |
//! | a server that asks for more than 300 s | is not waited for | [`.max_server_delay(…)`](crate::RetryPolicy::max_server_delay) |
//! | deadline | that of the request, if it [carries one](Deadlines) | [`.timeout(…)`](crate::RetryPolicy::timeout), a [`Deadline`](crate::timeout::Deadline) |
//! | retries of all calls together | a tenth of the successes of the last minute, and two | [`.budget(…)`](crate::RetryPolicy::budget) |
//! | a failed response | is [read to its end](Drain), up to 64 KiB and 250 ms, so that the connection can be used again; the last is handed back unread | [`drain`] |
//! | the request | is kept as a [`FlatCopy`] | [`.keep(…)`](crate::RetryPolicy::keep), [`keep::Cloned`](crate::keep::Cloned) |
//! | what the server is told | nothing | [`attempt_header`] |
//! | settings of one call, or of one route | | [`.per_request(…)`](crate::RetryPolicy::per_request) |
//!
//! What cannot be changed can be left out, as the preset is no more than its parts:
//!
//! ```
//! use tower_tenacity::{RetryPolicy, policy::{budget::Budget, http}};
//!
//! let policy: http::HttpPolicy = RetryPolicy::new()
//!     .classify(http::classify())
//!     .keep(http::FlatCopy)
//!     .budget(Budget::standard())
//!     .hook(http::Idempotency)
//!     .hook(http::Mark)
//!     .hook(http::Deadlines)
//!     .hook(http::drain());
//! # let _ = policy;
//! ```
//!
//! # On a server
//!
//! Requests of axum stream their bodies. `ReplayBodyLayer` keeps them while they do:
//!
//! ```
//! use axum::{Router, body::Body, http::{Request, StatusCode}, routing::put};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_tenacity::{RetryLayer, RetryPolicy, body::ReplayBodyLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! # static CALLS: AtomicU32 = AtomicU32::new(0);
//! async fn proxy(body: String) -> Result<String, StatusCode> {
//!     // Fails twice.
//! #   if CALLS.fetch_add(1, Relaxed) < 2 { return Err(StatusCode::BAD_GATEWAY); }
//!     Ok(body)
//! }
//!
//! let app: Router = Router::new().route("/", put(proxy)).layer(
//!     ServiceBuilder::new()
//!         .layer(ReplayBodyLayer::new(64 * 1024))
//!         .layer(RetryLayer::new(RetryPolicy::http())),
//! );
//! let response = app.oneshot(Request::put("/").body(Body::from("seven")).unwrap()).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! # }
//! ```
//!
//! # One budget per host
//!
//! ```
//! use tower_tenacity::{RetryPolicy, policy::budget::Budget};
//!
//! let per_host = Budget::standard().per(|request: &::http::Request<String>| request.uri().host().map(str::to_owned));
//! let policy = RetryPolicy::http().budget(per_host);
//! # fn check<P: tower_tenacity::Policy<::http::Request<String>, ::http::Response<String>, std::io::Error>>(_: &P) {} check(&policy);
//! ```
//!
//! # The parts
//!
//! * [`classify()`] says what a response or an error means: the table of statuses, and how errors of connections
//!   are told apart.
//! * [`hints`] reads the delay that a response asks for, and whether it asks to be left alone altogether.
//! * [`FlatCopy`] keeps a request; [`Idempotency`], [`Mark`], [`Deadlines`], [`Drain`] and [`attempt_header`] are hooks.
//!
//! (`http` is a crate as well: where both are needed, this one is written `policy::http`, or that one `::http`.)

mod classify;
mod deadline;
mod drain;
mod flat;
pub mod hints;
mod idempotency;
mod mark;
mod preset;
mod status;
pub(crate) mod transport;

pub use classify::{Classifier, classify};
pub use deadline::Deadlines;
pub use drain::{Drain, drain};
pub use flat::{FlatCopy, FlatRequest};
pub use idempotency::{Idempotency, Idempotent};
#[cfg(feature = "gemini")]
pub(crate) use mark::mark_as_sent_before;
pub use mark::{AttemptHeader, Mark, attempt_header};
pub use preset::HttpPolicy;
