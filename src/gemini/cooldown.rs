use std::{sync::Arc, time::Duration};

use super::{BoxError, Classifier, Error, GenerateContent};
use crate::{
    cooldown::{CooldownLayer, Exhausted, Per},
    policy::{classify::causes_of, wait::FlooredJitter},
    timeout::Deadline,
};

/// The type of [`cooldown`], to be named in a struct field.
pub type CooldownPerModel =
    CooldownLayer<Classifier, FlooredJitter, Per<ModelOf, Arc<str>>, QuotaExhausted, DeadlineOf>;

type ModelOf = fn(&GenerateContent) -> Arc<str>;
type DeadlineOf = fn(&GenerateContent) -> Option<Deadline>;

/// The cool-down for Gemini: one 429 holds back all calls of that model for as long as the server asks; a daily quota that is used
/// up fails calls of that model at once for five minutes, and then one call goes first to see.
///
/// Google counts per project and model. Five minutes because credits can be topped up at any moment, and twelve refused calls an
/// hour are nothing; another time is said with `.exhausted_if(gemini::quota_exhausted(…))`. A question that would be held up to its
/// [deadline](GenerateContent::deadline) fails at once. It goes below the retry layer:
///
/// ```
/// use tower::ServiceBuilder;
/// use tower_tenacity::{RetryLayer, gemini::{self, Gemini}};
///
/// # fn main() -> Result<(), gemini::Error> {
/// let gemini = ServiceBuilder::new()
///     .layer(RetryLayer::new(gemini::policy()))
///     .layer(gemini::cooldown())
///     .service(Gemini::new("a-key")?);
/// # let _ = gemini; Ok(()) }
/// ```
pub fn cooldown() -> CooldownPerModel {
    CooldownLayer::new(super::classify())
        .per(GenerateContent::shared_model as ModelOf)
        .exhausted_if(quota_exhausted(Duration::from_secs(300)))
        .deadline(GenerateContent::until as DeadlineOf)
}

/// Failures for which [`Error::is_quota_exhausted`] holds, in a boxed error's source chain as well: calls are to fail at once for
/// `duration`. For [`CooldownLayer::exhausted_if`].
#[must_use]
pub const fn quota_exhausted(duration: Duration) -> QuotaExhausted {
    QuotaExhausted { duration }
}

/// Tells of a failure whether a quota of Gemini's is used up; made by [`quota_exhausted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuotaExhausted {
    duration: Duration,
}

impl<Res> Exhausted<Res, Error> for QuotaExhausted {
    fn exhausted(&self, outcome: &Result<Res, Error>) -> Option<Duration> {
        outcome.as_ref().err()?.is_quota_exhausted().then_some(self.duration)
    }
}

impl<Res> Exhausted<Res, BoxError> for QuotaExhausted {
    fn exhausted(&self, outcome: &Result<Res, BoxError>) -> Option<Duration> {
        let error: &Error = causes_of(&**outcome.as_ref().err()?).next()?;
        error.is_quota_exhausted().then_some(self.duration)
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, StatusCode};
    use tokio::time::Instant;
    use tower::{Layer, ServiceExt, service_fn};

    use super::super::error;
    use super::*;
    use crate::{
        classify::{Class, Classify},
        cooldown::CoolingDown,
    };

    fn refusal(message: &str) -> Error {
        let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        error::from_response(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body.as_bytes(), "key")
    }

    #[tokio::test(start_paused = true)]
    async fn each_model_has_a_quota_of_its_own_and_one_that_is_used_up_fails_at_once() {
        let layer = cooldown();
        // Two services of one layer, over typed and over boxed errors.
        let limited = layer.layer(service_fn(|_: GenerateContent| async { Err::<(), _>(refusal("retry in 4s")) }));
        let gone = layer.layer(service_fn(|_: GenerateContent| async {
            Err::<(), _>(BoxError::from(std::io::Error::other(refusal("limit: 0, retry in 4s"))))
        }));
        let ask = GenerateContent::new;
        assert!(limited.clone().oneshot(ask("flash")).await.unwrap_err().is::<Error>());
        assert!(gone.clone().oneshot(ask("pro")).await.unwrap_err().is::<std::io::Error>());
        let now = Instant::now();
        let until = |model: &str| layer.cooling_until(&Arc::from(model)).map(|until| until - now);
        assert_eq!(until("flash"), Some(Duration::from_secs(4)));
        assert_eq!(until("pro"), Some(Duration::from_secs(300)));
        assert_eq!(until("lite"), None);

        let error = limited.oneshot(ask("pro")).await.unwrap_err();
        assert!(error.downcast_ref::<CoolingDown>().unwrap().is_exhausted());
        assert_eq!(super::super::classify().classify(&Err::<(), BoxError>(error)), Some(Class::Permanent));
    }

    #[tokio::test(start_paused = true)]
    async fn no_question_is_held_up_to_its_deadline() {
        let limited =
            cooldown().layer(service_fn(|_: GenerateContent| async { Err::<(), _>(refusal("retry in 40s")) }));
        let ask = |seconds| GenerateContent::new("flash").deadline(Deadline::after(Duration::from_secs(seconds)));
        assert!(limited.clone().oneshot(ask(30)).await.unwrap_err().is::<Error>());
        let begun = Instant::now();
        let error = limited.clone().oneshot(ask(30)).await.unwrap_err();
        assert_eq!(error.downcast_ref::<CoolingDown>().unwrap().retry_after(), Duration::from_secs(40));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        assert!(limited.oneshot(ask(60)).await.unwrap_err().is::<Error>(), "it has the time to wait");
        assert!(begun.elapsed() >= Duration::from_secs(40));
    }
}
