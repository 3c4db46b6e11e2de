//! What users test their own stacks with: a Gemini stand-in on loopback, and a scripted service in memory.
//!
//! [`GeminiServer`] speaks the real wire format over real HTTP and plays a script of [`Reply`]s, well-behaved and not:
//! rate limits, overload, resets, answers that are cut off, blocked or wrong. It records what it was asked.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> std::io::Result<()> {
//! use std::time::Duration;
//! use tower_tenacity::testing::{GeminiServer, Reply};
//!
//! let server = GeminiServer::start([
//!     Reply::rate_limited(Duration::from_millis(200)),
//!     Reply::json(serde_json::json!({"name": "Jason", "age": 25})),
//! ]).await?;
//! // Point the client under test at `server.url()`, let it ask, then look at what arrived.
//! assert!(server.url().starts_with("http://127.0.0.1:"));
//! assert_eq!(server.requests().len(), 0);
//! # Ok(()) }
//! ```
//!
//! [`Script`] is a tower service that plays a list of outcomes. It holds callers to the service contract, and under
//! paused time it shows the delays that a policy chose:
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! use std::time::Duration;
//! use tower::ServiceExt;
//! use tower_tenacity::{Retry, RetryPolicy, testing::Script, wait};
//!
//! let script = Script::new([Err("busy"), Err("busy"), Ok("done")]);
//! let service = Retry::new(RetryPolicy::new().wait(wait::exponential()), script.clone());
//! assert_eq!(service.oneshot("job").await, Ok("done"));
//! assert_eq!(script.delays(), [Duration::from_secs(1), Duration::from_secs(2)]);
//! assert_eq!(script.requests(), ["job", "job", "job"]);
//! # }
//! ```

mod reply;
mod script;
mod server;

pub use reply::Reply;
pub use script::{Script, ScriptFuture, Step};
pub use server::{GeminiServer, RecordedRequest};
