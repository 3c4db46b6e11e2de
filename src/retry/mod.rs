//! The middleware: calls a service until a [policy](crate::policy) is content with the outcome.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt};
//! use tower_tenacity::{RetryLayer, RetryPolicy, stop, wait};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let policy = RetryPolicy::new()
//!     .stop(stop::after_attempt(3) | stop::before_delay(Duration::from_secs(60)))
//!     .wait(wait::exponential().multiplier(Duration::from_secs(2)).max(Duration::from_secs(100)));
//!
//! let mut failures = 2;
//! let (mut service, mut server) = tower_test::mock::spawn_layer::<u32, &str, _>(RetryLayer::new(policy
//!     // tower-test's errors are boxed; ours is any type.
//!     .classify(tower_tenacity::classify::errors())));
//! # let _ = (&mut service, &mut server, &mut failures);
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
//! * At most 32 attempts are made in one poll; then the task yields.
//!
//! # Where it belongs in a stack
//!
//! A timeout *below* the retry layer limits each attempt; one *above* it limits the whole call but ends it with an error
//! of its own. A concurrency limit below is released during waits; above, it is held through them. Errors of layers
//! below such as `Buffer` and `Timeout` are boxed; [`classify::error_type`](crate::classify::error_type) finds the
//! original in a source chain all the same.
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
