//! Retries of HTTP calls: what a status means, what may be repeated, which delays a server asks for.
//!
//! ```
//! use http::{Response, StatusCode};
//! use tower_tenacity::{RetryPolicy, policy::http};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let policy = RetryPolicy::new().classify(http::classify());
//! let response = policy.run(|attempt| async move {
//!     let status = if attempt.number() < 3 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
//!     Response::builder().status(status).header("retry-after", "2").body(())
//! });
//! let before = tokio::time::Instant::now();
//! assert_eq!(response.await.unwrap().status(), StatusCode::OK);
//! assert!(before.elapsed() >= std::time::Duration::from_secs(4), "twice what the server asked for");
//! # }
//! ```
//!
//! * [`classify()`] says what a response or an error means: the table of statuses, and how errors of connections
//!   are told apart.
//! * [`hints`] reads the delay that a response asks for, and whether it asks to be left alone altogether.

mod classify;
pub mod hints;
mod status;
mod transport;

pub use classify::{Classifier, classify};
