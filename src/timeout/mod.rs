//! A limit for each attempt, and never more than the time the call has left.
//!
//! tower's own `Timeout` gives every attempt the same time. Near the end of a call that is too much: an attempt of ten seconds
//! that starts two seconds before the deadline keeps a server busy with an answer that nobody waits for. [`AttemptTimeoutLayer`]
//! takes the shorter of its own limit and what is left until the request's [`Deadline`]. Where nothing is left, nothing is sent: the service
//! inside is called, as whoever made it ready has to, but its future is dropped without having been polled, and the error is
//! [`TimedOut`] with a limit of zero.
//!
//! ```text
//! RetryLayer ── AttemptTimeoutLayer ── service
//! ```
//!
//! How a request carries its deadline is up to the request: a closure reads it. HTTP requests carry a [`Deadline`] among their extensions:
//! [`RetryPolicy::http`](crate::RetryPolicy) takes the call's limit from there and puts the nearest one back for each attempt, and
#![cfg_attr(feature = "http", doc = "[`AttemptTimeoutLayer::http`] reads it.")]
#![cfg_attr(not(feature = "http"), doc = "`AttemptTimeoutLayer::http` reads it (feature `http`).")]
//!
//! ```
//! use std::time::Duration;
//! use tokio::time::Instant;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_tenacity::timeout::{AttemptTimeoutLayer, Deadline, TimedOut};
//!
//! struct Question { deadline: Option<Deadline> }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let slow = ServiceBuilder::new()
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(10)).deadline(|question: &Question| question.deadline))
//!     .service(service_fn(|_: Question| std::future::pending::<Result<(), std::io::Error>>()));
//!
//! let began = Instant::now();
//! let hurried = Question { deadline: Some(Deadline::after(Duration::from_secs(2))) };
//! let error = slow.clone().oneshot(hurried).await.unwrap_err();
//! assert_eq!(error.downcast::<TimedOut>().unwrap().limit(), Duration::from_secs(2));
//! assert_eq!(began.elapsed().as_secs(), 2);
//!
//! slow.oneshot(Question { deadline: None }).await.unwrap_err();
//! assert_eq!(began.elapsed().as_secs(), 12);
//! # }
//! ```

mod deadline;
mod future;
mod layer;
mod service;

#[cfg(feature = "http")]
pub use deadline::InExtensions;
pub use deadline::{Deadline, NoDeadline, ReadDeadline};
pub use future::{ResponseFuture, TimedOut};
pub use layer::AttemptTimeoutLayer;
pub use service::AttemptTimeout;
