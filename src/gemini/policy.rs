use std::time::Duration;

use super::Classifier;
use crate::policy::{RetryPolicy, stop, wait};

/// The type of [`policy`], to be named in a struct field.
pub type Policy = RetryPolicy<stop::AfterAttempt, wait::FlooredJitter, Classifier>;

/// How calls to Gemini are retried: at most 5 attempts, floored jitter up to 60 s where the server names no delay, the
/// server's delay where it does, nothing that another attempt does not cure.
///
/// Five attempts and 60 s are the numbers that Google's own SDKs take once retries are switched on (python-genai,
/// js-genai). Those ignore the delay that comes with a 429; this does not. What each failure means is told by
/// [`classify`](super::classify()).
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_tenacity::{RetryLayer, gemini::{self, Gemini}};
///
/// # fn main() -> Result<(), gemini::Error> {
/// let gemini = ServiceBuilder::new()
///     .layer(RetryLayer::new(gemini::policy()))
///     .service(Gemini::new("my-key")?);
/// # let _ = gemini; Ok(()) }
/// ```
pub fn policy() -> Policy {
    RetryPolicy::new()
        .stop(stop::after_attempt(5))
        .wait(wait::floored_jitter().max(Duration::from_secs(60)))
        .classify(super::classify())
}
