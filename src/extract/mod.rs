//! From a Rust type to a validated value of that type.
//!
//! [`ExtractLayer<T>`] sends the JSON Schema of `T` with the question, reads the answer strictly, checks it against the
//! schema, the type and the caller's own rules, and asks again, with what was wrong, when it does not fit.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")] async fn main() -> Result<(), tower::BoxError> {
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_tenacity::extract::{ExtractLayer, Problems};
//! use tower_tenacity::gemini::GenerateContent;
//!
//! #[derive(Debug, Deserialize, JsonSchema)]
//! struct User { name: String, age: u8 }
//!
//! # let answers = std::sync::Arc::new(std::sync::Mutex::new(vec![r#"{"name":"Jason","age":25}"#, r#"{"name":"","age":25}"#]));
//! # let gemini = tower::service_fn(move |_: GenerateContent| {
//! #     let text = answers.lock().unwrap().pop().unwrap();
//! #     let body = serde_json::json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "finishReason": "STOP"}]});
//! #     std::future::ready(serde_json::from_value::<tower_tenacity::gemini::GenerateContentResponse>(body))
//! # });
//! // `gemini` is a `Gemini` service, with retries around it; see `gemini`.
//! let service = ServiceBuilder::new()
//!     .layer(ExtractLayer::<User>::new().reasks(2).check(|user: &User| {
//!         let mut problems = Problems::new();
//!         if user.name.is_empty() { problems.add("name", "must not be empty"); }
//!         problems.into_result()
//!     }))
//!     .service(gemini);
//!
//! let user = service.oneshot(GenerateContent::new("gemini-2.5-flash").text("Jason is 25 years old")).await?;
//! assert_eq!(user.report().answers().len(), 2, "the first answer had no name");
//! let User { name, age } = user.into_value();
//! assert_eq!((name.as_str(), age), ("Jason", 25));
//! # Ok(()) }
//! ```
//!
//! # What belongs where
//!
//! The layer goes *outside* the retry layer: transport failures are retried below it and never use up a reask, and a
//! reask is asked at once, without the transport's backoff. Each has a budget of its own.
//!
//! # Rules of your own
//!
//! [`check`](ExtractLayer::check) is asked once the schema and the type are satisfied; what it finds is a
//! [`Rejected`](Failure::Rejected) answer, what the schema finds a [`Mismatch`](Failure::Mismatch), and the model is told of either in the same
//! words. Rules of validation crates go through it, with the paths as they print them (garde: `for (path, error) in report.iter() {
//! problems.add(path.to_string(), error.message().to_owned()) }`). Note that schemars reads the attributes of `validator` and `garde`,
//! too: what it understands of them is part of the schema already.
//!
//! # What is sent back to the model
//!
//! The caller's question, the model's own turn exactly as it came (thought signatures included; only a missing role is
//! filled in), then one user turn that names paths and problems. No error of the transport, no URL, no key. Only the latest answer is quoted,
//! so the question does not grow with every reask. An answer with a function call is not quoted, since the API wants the
//! function's response after it: the same question is asked again.
//!
//! # Spawning
//!
//! Where the error of the service below is a boxed one, write `tokio::spawn(service.oneshot(question))`: an `async move`
//! block around it hits a limitation of the compiler ("implementation of `From` is not general enough").

mod answer;
mod check;
mod error;
mod layer;
mod problems;
mod report;
mod schema;
mod service;

pub use check::{Check, CheckAsync, CheckFn, NoCheck};
pub use error::{ExtractError, Failure};
pub use layer::ExtractLayer;
pub use problems::{Problem, Problems};
pub use report::{AnswerReport, Extracted, Reask, Report};
pub use schema::SchemaError;
pub use service::{Extract, ResponseFuture};
