use std::time::Duration;

use super::{Classifier, GenerateContent};
use crate::policy::{
    Attempt, CallOptions, RetryPolicy,
    budget::{Budget, Funds},
    hooks::Hooks,
    keep::Cloned,
    stop, wait,
};

/// The type of [`policy`], to be named in a struct field.
pub type Policy =
    RetryPolicy<stop::AfterAttempt, wait::FlooredJitter, Classifier, ((), PerQuestion), Cloned, Funds<Budget>>;

/// How calls to Gemini are retried: at most 5 attempts, floored jitter up to 60 s where the server names no delay, the
/// server's delay where it does, nothing that another attempt does not cure, and no more than a
/// [budget](Budget::standard) pays for, with a reserve of four: a lone client gets its five attempts.
///
/// Five attempts and 60 s are the numbers that Google's own SDKs take once retries are switched on (python-genai,
/// js-genai). Those ignore the delay that comes with a 429; this does not. What each failure means is told by
/// [`classify`](super::classify()). The call ends at the question's [deadline](GenerateContent::deadline), if it has one.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_tenacity::{RetryLayer, gemini::{self, Gemini}};
///
/// # fn main() -> Result<(), gemini::Error> {
/// let gemini = ServiceBuilder::new()
///     .layer(RetryLayer::new(gemini::policy()))
///     .service(Gemini::new("a-key")?);
/// # let _ = gemini; Ok(()) }
/// ```
///
/// Another model, once the first has been overloaded:
///
/// ```
/// use tower_tenacity::{Attempt, gemini::{self, GenerateContent}};
///
/// let policy = gemini::policy().before_attempt(|attempt: &Attempt, question: &mut GenerateContent| {
///     if attempt.number() > 2 { question.set_model("gemini-2.5-flash-lite"); }
/// });
/// # let _ = policy;
/// ```
pub fn policy() -> Policy {
    RetryPolicy::new()
        .stop(stop::after_attempt(5))
        .wait(wait::floored_jitter().max(Duration::from_secs(60)))
        .classify(super::classify())
        .budget(Budget::standard().reserve(4))
        .hook(PerQuestion)
}

/// What belongs to each question, as hooks for [`RetryPolicy::hook`]: its deadline, and a mark from the second attempt on, by which
/// a retry layer further in makes one attempt.
#[derive(Clone, Copy, Debug, Default)]
pub struct PerQuestion;

impl<Kept, Res, E> Hooks<GenerateContent, Kept, Res, E> for PerQuestion {
    fn options(&self, question: &GenerateContent, options: &mut CallOptions) {
        if question.sent_before {
            options.limit_to_once();
        }
        if let Some(deadline) = question.until() {
            *options = options.deadline(deadline);
        }
    }

    fn before_attempt(&self, attempt: &Attempt, question: &mut GenerateContent) {
        question.sent_before |= attempt.number() > 1;
        if let Some(deadline) = attempt.deadline() {
            question.set_deadline(deadline);
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}
