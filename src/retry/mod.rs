//! The middleware: calls a service until a [policy](crate::policy) is content with the outcome.
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, classify, wait};
//!
//! #[derive(Debug, PartialEq)]
//! enum ShopError { Busy, SoldOut }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let policy = RetryPolicy::new()
//!     .wait(wait::exponential().multiplier(Duration::from_millis(100)))
//!     .classify(classify::retry_if(|outcome: &Result<_, ShopError>| *outcome == Err(ShopError::Busy)));
//! # let calls = std::sync::atomic::AtomicU32::new(0);
//! # let calls = &calls;
//! let shop = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(service_fn(|item: &'static str| async move {
//!     // Busy twice, then open.
//! #   let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
//! #   if call < 2 { return Err(ShopError::Busy); }
//!     if item == "hat" { Ok("a hat") } else { Err(ShopError::SoldOut) }
//! }));
//! assert_eq!(shop.clone().oneshot("hat").await, Ok("a hat"));
//! assert_eq!(shop.oneshot("gloves").await, Err(ShopError::SoldOut));
//! # }
//! ```
//!
//! What comes out is the last response or the last error, unchanged. Whoever wants the whole story asks for it:
//!
//! ```
//! # use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! # use tower_tenacity::{RetryLayer, RetryPolicy, StopReason};
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let mut service = ServiceBuilder::new()
//!     .layer(RetryLayer::new(RetryPolicy::new()).detailed())
//!     .service(service_fn(|_: u32| async { Err::<(), _>("refused") }));
//! let error = service.ready().await.unwrap().call(1).await.unwrap_err();
//! assert_eq!((error.attempts(), error.reason(), error.last()), (3, StopReason::Exhausted, Some(&"refused")));
//! # }
//! ```
//!
//! # What can be relied on
//!
//! * Each `call` is preceded by exactly one successful `poll_ready` of the instance that is called, for the first
//!   attempt as for every later one. An error from `poll_ready` on the way to a retry ends the call and is returned.
//! * Before a wait starts, the finished attempt, its response and its error have been dropped: no permit, no
//!   connection and no buffer is held while sleeping.
//! * `n` attempts make at most `n − 1` copies of the request; the last permitted attempt takes the original. A policy that
//!   [cannot retry](crate::Policy::may_retry) copies neither the request nor the service.
//! * No allocation, no lock and, for a call that is answered at once, no reading of a clock. A delay of zero does not
//!   touch the timer.
//! * The state of a call lives in its future. Dropping the future at any point cancels the call.
//! * At most 32 retries are made in one poll; then the task yields.
//!
//! # Where it belongs in a stack
//!
//! A timeout *below* the retry layer limits each attempt; one *above* it limits the whole call but ends it with an error
//! of its own. A concurrency limit below is released during waits; above, it is held through them. Errors of layers
//! below such as `Buffer` and `Timeout` are boxed; [`classify::error_type`](crate::classify::error_type) finds the
//! original in a source chain all the same.
//!
//! Over such layers the error of a [detailed](RetryLayer::detailed) layer is a `RetryError<BoxError>`, which is no
//! [`Error`](std::error::Error), as a boxed error is none. For `?` it needs
//! [`.map_err(RetryError::erase)`](RetryError::erase):
//!
//! ```
//! use std::time::Duration;
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::{RetryLayer, RetryPolicy, retry::RetryError};
//!
//! async fn ask() -> Result<String, BoxError> {
//!     let service = ServiceBuilder::new()
//!         .layer(RetryLayer::new(RetryPolicy::new()).detailed())
//!         .timeout(Duration::from_secs(1))
//!         .service(service_fn(|_: &'static str| std::future::pending::<Result<String, BoxError>>()));
//!     let answer = service.oneshot("anybody there?").await.map_err(RetryError::erase)?;
//!     Ok(answer)
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! assert_eq!(ask().await.unwrap_err().to_string(), "gave up after 3 attempts: the attempts are exhausted");
//! # }
//! ```
//!
//! # One retry layer inside another
//!
//! A client retries, and so does the service that uses it: three attempts each are nine requests to a server in trouble. HTTP
//! requests are marked by `policy::http` when they are sent again, and a layer further in makes one attempt of
//! such a request: five in all. For other requests, two settings do the same in both layers:
//!
//! ```
//! use tower::{ServiceExt, service_fn};
//! use tower_tenacity::{Attempt, CallOptions, RetryPolicy, Retry};
//!
//! #[derive(Clone)]
//! struct Query { text: &'static str, again: bool }
//!
//! fn once_within() -> impl tower_tenacity::Policy<Query, (), &'static str> + Clone {
//!     RetryPolicy::new()
//!         .before_attempt(|attempt: &Attempt, query: &mut Query| query.again |= attempt.number() > 1)
//!         .per_request(|query: &Query| {
//!             if query.again { CallOptions::new().max_attempts(1) } else { CallOptions::new() }
//!         })
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! # let queries = std::cell::Cell::new(0);
//! # let queries = &queries;
//! let database = service_fn(|query: Query| async move {
//! #   queries.set(queries.get() + 1);
//!     Err::<(), _>(if query.text.is_empty() { "nothing asked" } else { "busy" })
//! });
//! let client = Retry::new(once_within(), database);
//! let service = Retry::new(once_within(), client);
//! assert_eq!(service.oneshot(Query { text: "select 1", again: false }).await, Err("busy"));
//! # assert_eq!(queries.get(), 5);
//! # }
//! ```
//!
//! # When it does not compile
//!
//! If a part of the policy does not fit the service, the compiler notices only where the service is used: [`Retry`] has
//! no method `ready`, `call` or `oneshot`, as its trait bounds are not satisfied (E0599). End the policy with
//! `.boxed::<Req, Res, E>()` for the time being, with the types of the service, and the compiler says which part does not
//! fit. If it is the request, which has to be `Clone`, there are [other ways](crate::policy::keep) of keeping it.
//!
//! ```
//! use tower_tenacity::{RetryPolicy, classify};
//!
//! # #[derive(PartialEq)]
//! enum MyError { Busy }
//!
//! let policy = RetryPolicy::new()
//!     .classify(classify::retry_if(classify::on_error(|error: &MyError| *error == MyError::Busy)))
//!     .boxed::<String, u32, MyError>();
//! # let _ = policy;
//! ```
//!
//! “The trait bound `Body: Clone` is not satisfied … required for `Body` to implement `RepeatBody`”: the body streams. Put a `ReplayBodyLayer` outside
//! of the retry layer.
//!
//! “Cannot infer type of the type parameter `M`” (E0282) where a ready-made policy gets a classifier of one's own, as in
//! `RetryPolicy::http().classify(mine.or(http::classify()))`: write `RetryPolicy::http::<Typed>()`, or `Boxed` where the errors are boxed
//! ([`classify::Typed`](crate::classify::Typed)).
//!
//! “Implementation of `FnOnce`”, “of `From`” or “`ErrorChain` is not general enough” around an `async move` block in `tokio::spawn` or in a handler: a
//! limitation of the compiler, where errors are boxed by the innermost service, or by a layer below this one (cool-down, breaker and attempt
//! timeout do) while a hook is a closure. Make the hook a `fn` or an [`Observer`](crate::hooks::Observer), write
//! `tokio::spawn(service.oneshot(request))`, or put the stack into tower's `BoxCloneSyncService`.
//!
//! # Panics
//!
//! When a wait is due, outside of a tokio runtime with time enabled.

mod error;
mod future;
mod layer;
mod mode;
mod run;
mod service;

pub use error::{ErasedError, FailedAttempt, RetryError};
pub use future::ResponseFuture;
pub use layer::RetryLayer;
pub use mode::{Detailed, Mode, Plain};
pub use run::run;
pub use service::Retry;
