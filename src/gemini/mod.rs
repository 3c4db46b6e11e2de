//! A Gemini client as a tower service.
//!
//! [`Gemini`] takes a [`GenerateContent`] and returns a [`GenerateContentResponse`] or an [`Error`], one HTTP request for
//! one call. It goes to the bottom of a stack; what surrounds it decides about retries ([`classify`] tells which failures
//! deserve one), cool-down and time:
//!
//! ```no_run
//! use tower::ServiceExt;
//! use tower_tenacity::gemini::{Gemini, GenerateContent};
//!
//! # async fn ask() -> Result<(), Box<dyn std::error::Error>> {
//! let gemini = Gemini::from_env()?;
//! let response = gemini.oneshot(GenerateContent::new("gemini-2.5-flash").text("The capital of France?")).await?;
//! println!("{}", response.text()?);
//! # Ok(()) }
//! ```
//!
//! All around it, from the outside in: retries, a pause for all callers of a quota that is used up, a breaker, a limit for each attempt:
//!
//! ```
//! use std::time::Duration;
//! use tower::ServiceBuilder;
//! use tower_tenacity::{
//!     RetryLayer, circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, gemini::{self, Gemini, GenerateContent},
//!     timeout::AttemptTimeoutLayer,
//! };
//!
//! # fn main() -> Result<(), gemini::Error> {
//! let gemini = ServiceBuilder::new()
//!     .layer(RetryLayer::new(gemini::policy()))
//!     .layer(gemini::cooldown())
//!     .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).classify(gemini::classify()))
//!     .layer(AttemptTimeoutLayer::new(Duration::from_secs(60)).deadline(GenerateContent::until))
//!     .service(Gemini::new("a-key")?);
//! # fn check<S: tower::Service<GenerateContent>>(_: &S) {} check(&gemini); Ok(()) }
//! ```
//!
//! A response need not hold an answer: the prompt may be blocked, the answer cut off or empty.
//! [`GenerateContentResponse::answer`] tells before anything is parsed, and [`NoAnswer`] says what came instead.

mod classify;
mod client;
mod cooldown;
mod error;
mod policy;
mod transport;
mod types;

pub use classify::{Classifier, classify};
pub use client::{Gemini, ResponseFuture};
pub use cooldown::{CooldownPerModel, QuotaExhausted, cooldown, quota_exhausted};
pub use error::{Detail, Error, ErrorKind, FieldViolation, HelpLink, QuotaViolation, RpcStatus};
pub use policy::{PerQuestion, Policy, policy};
pub use transport::{HttpClient, HttpClientBuilder, HttpFuture, RequestBody, ResponseBody, TransportError};
pub use types::{
    Answer, BlockReason, Candidate, Content, FinishReason, FunctionCall, GenerateContent, GenerateContentResponse,
    NoAnswer, Part, PromptFeedback, Role, Usage,
};

use crate::BoxError;
