//! Retries of gRPC calls: what a status means, the delay a server asks for, the deadline of a call.
//!
//! Nothing here knows a gRPC library. A gRPC call is an HTTP request, and the status of a call that failed is in the
//! head of its response; so the retry layer goes between a generated client and its channel, where
//! both are at hand:
//!
//! ```
//! use std::{convert::Infallible, time::Duration};
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, policy::grpc};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # let calls = std::sync::atomic::AtomicU32::new(0);
//! # let calls = &calls;
//! // Busy twice, with a delay, then well. With tonic this is a `Channel`.
//! let channel = service_fn(|_: Request<&'static str>| async move {
//! #   if calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 2 {
//! #       return Ok::<_, Infallible>(Response::builder().header("content-type", "application/grpc").body("hello").unwrap());
//! #   }
//!     // …
//!     Ok(Response::builder().header("grpc-status", "14").header("grpc-retry-pushback-ms", "2000").body("").unwrap())
//! });
//!
//! // `GreeterClient::new(channel)` takes what comes out of this.
//! let channel = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::grpc())).service(channel);
//!
//! let before = tokio::time::Instant::now();
//! assert_eq!(channel.oneshot(Request::new("Ada")).await.unwrap().into_body(), "hello");
//! assert!(before.elapsed() >= Duration::from_secs(4), "twice what the server asked for");
//! # }
//! ```
//!
//! * [`classify()`] has the table of codes. Out of itself it retries `UNAVAILABLE` and, with a delay of the server's,
//!   `RESOURCE_EXHAUSTED`; more of them by [`also_retry`](Classifier::also_retry).
//! * **Which method was called makes no difference**: gRPC has no mark for what may be repeated, and by its convention
//!   `UNAVAILABLE` may be, whatever the method ([AIP-194](https://google.aip.dev/194)). Of a method for which that is not so,
//!   only what never reached the server is sent again by
//!   `.per_request(|request: &Request<_>| CallOptions::new().idempotent(request.uri().path() != "/shop.Till/Pay"))`.
//! * [`deadline()`] makes `grpc-timeout` the limit of the whole call and tells each attempt what is left;
//!   [`timeout()`] only reads it. Below a policy for gRPC, [`AttemptTimeoutLayer::http`](crate::timeout::AttemptTimeoutLayer::http) knows what is left,
//!   too; an attempt that it cuts is `DEADLINE_EXCEEDED`, and not made again unless that is asked for.
//! * [`previous_attempts()`] tells the server that it is asked again.
//!
//! # With tonic
//!
//! The body of tonic's requests is a stream, so it is kept by a [`ReplayBodyLayer`](crate::body::ReplayBodyLayer), and made into
//! one of tonic's again below the retry layer: `.map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))`,
//! then the `Channel`. `examples/tonic.rs` is such a stack, with a server to talk to.
//!
//! A channel that is [connected lazily](https://docs.rs/tonic/0.14/tonic/transport/struct.Endpoint.html#method.connect_lazy)
//! reports a server that is down as the error of a call, which is retried; others report it once, before there are calls.
//!
//! # With what protects the server
//!
//! The whole stack, over any channel. To a [breaker](crate::circuit_breaker) a failure is what its classifier would have tried again, so
//! it is told that a time that is up, and a bug, count as well:
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{
//!     RetryLayer, RetryPolicy, circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, cooldown::CooldownLayer,
//!     policy::grpc::{self, Code}, timeout::AttemptTimeoutLayer,
//! };
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), tower::BoxError> {
//! # let channel = service_fn(|request: Request<&'static str>| async move { Ok::<_, std::io::Error>(Response::new(request.into_body())) });
//! let failures = grpc::classify().also_retry(Code::DeadlineExceeded).also_retry(Code::Internal);
//! let channel = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::grpc().timeout(Duration::from_secs(30))))
//!     .layer(CooldownLayer::new(grpc::classify()))
//!     .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).classify(failures))
//!     .layer(AttemptTimeoutLayer::http(Duration::from_secs(10)))
//!     .service(channel);
//! assert_eq!(channel.oneshot(Request::new("Ada")).await?.into_body(), "Ada");
//! # Ok(()) }
//! ```
//!
//! # Streams
//!
//! A response that has begun is never retried: with the first message the call is committed, and a status that comes after it, in the
//! trailers, is the caller's to see. For a unary call that is rarely a loss, as servers send a failure in the head. For those that do
//! not, there is [`Classifier::with_trailers`], over a layer that [collects](crate::body::CollectBodyLayer) the response.
//!
//! A call with a stream of requests is retried if the stream can be kept; an endless one cannot be.

mod classify;
mod code;
mod deadline;
mod details;
mod errors;
mod policy;
mod previous_attempts;
mod trailers;

pub use classify::{Classifier, TrailersClassifier, classify};
pub use code::Code;
pub use deadline::{Deadline, deadline, timeout};
pub use policy::GrpcPolicy;
pub use previous_attempts::{PreviousAttempts, previous_attempts};
pub use trailers::Trailers;
