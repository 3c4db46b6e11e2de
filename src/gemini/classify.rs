//! Which failures deserve another attempt, and the delay they ask for.

use std::error::Error as StdError;

use super::{BoxError, Error, ErrorKind};
use crate::{
    classify::{Class, Classify},
    policy::{
        classify::causes_of,
        http::transport::{self, Known},
    },
};

/// Tells what the outcome of a call to Gemini means: see [`classify`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classifier {
    retry_exhausted_quota: bool,
}

/// Tells what the outcome of a call to Gemini means, for retry, cool-down and circuit breaker.
///
/// | outcome | class |
/// |---|---|
/// | 429 | throttled, for as long as the server asks |
/// | 429 for a daily quota, one of zero, depleted credits | permanent |
/// | 408, 499, 500, 502, 503, 504 | transient |
/// | a connection that failed, a response that was cut off | transient; unsent if it was never made, permanent if a certificate is wrong |
/// | anything else that failed | permanent |
/// | any response | success; whether there is an answer in it is [another question](super::NoAnswer) |
///
/// It reads [`Error`](super::Error), and finds it in the source chain of a boxed error. Of a chain without one it says what
/// is [known](crate::policy::http::classify()) of layers and connections, and otherwise nothing.
///
/// ```
/// use tower_tenacity::classify::{Class, Classify};
/// use tower_tenacity::gemini::{self, GenerateContent};
///
/// let error = GenerateContent::new("gemini-2.5-flash").to_bytes().expect_err("there is nothing to ask");
/// assert_eq!(gemini::classify().classify(&Err::<(), _>(error)), Some(Class::Permanent));
/// ```
#[must_use]
pub const fn classify() -> Classifier {
    Classifier { retry_exhausted_quota: false }
}

impl Classifier {
    /// Whether a quota that will not be back soon is throttled like any other. Off by default: the short delay that
    /// comes with it is known to be of no use, and each try counts against other limits.
    #[must_use]
    pub const fn retry_exhausted_quota(mut self, retry: bool) -> Self {
        self.retry_exhausted_quota = retry;
        self
    }

    /// What a failure means.
    #[must_use]
    pub fn class_of(&self, error: &Error) -> Class {
        let retry_after = error.retry_after();
        match error.kind() {
            ErrorKind::Transport => error.source().and_then(known_class).unwrap_or(Class::Transient { retry_after }),
            ErrorKind::Decode if error.is_truncated() => Class::Transient { retry_after },
            ErrorKind::Api => match error.status().map(|status| status.as_u16()) {
                Some(429) if error.is_quota_exhausted() && !self.retry_exhausted_quota => Class::Permanent,
                Some(429) => Class::Throttled { retry_after },
                Some(408 | 499 | 500 | 502 | 503 | 504) => Class::Transient { retry_after },
                _ => Class::Permanent,
            },
            _ => Class::Permanent,
        }
    }
}

fn known_class(error: &(dyn StdError + 'static)) -> Option<Class> {
    match transport::known_class_of(error) {
        Known::Class(class) => Some(class),
        Known::Foreign | Known::Nothing => None,
    }
}

impl<Res> Classify<Res, Error> for Classifier {
    fn classify(&self, outcome: &Result<Res, Error>) -> Option<Class> {
        Some(match outcome {
            Ok(_) => Class::Success,
            Err(error) => self.class_of(error),
        })
    }

    // Whether there is an answer in it is another question.
    #[inline]
    fn accepts(&self, _: &Res) -> bool {
        true
    }
}

impl<Res> Classify<Res, BoxError> for Classifier {
    fn classify(&self, outcome: &Result<Res, BoxError>) -> Option<Class> {
        let Err(error) = outcome else { return Some(Class::Success) };
        match causes_of(&**error).next() {
            Some(error) => Some(self.class_of(error)),
            // Another layer's: of ours, of tower's, of a transport's.
            None => known_class(&**error),
        }
    }

    // Whether there is an answer in it is another question.
    #[inline]
    fn accepts(&self, _: &Res) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc, time::Duration};

    use http::{HeaderMap, StatusCode};

    use super::super::error;
    use super::*;

    fn failure(status: u16, message: &str) -> Error {
        let status = StatusCode::from_u16(status).expect("a status");
        let body = format!(r#"{{"error":{{"message":"{message}"}}}}"#);
        error::from_response(status, &HeaderMap::new(), body.as_bytes(), "key")
    }

    #[test]
    fn statuses_mean_what_the_table_says() {
        let none = None;
        for status in [408, 499, 500, 502, 503, 504] {
            assert_eq!(classify().class_of(&failure(status, "m")), Class::Transient { retry_after: none }, "{status}");
        }
        for status in [301, 400, 401, 403, 404, 413, 501] {
            assert_eq!(classify().class_of(&failure(status, "m")), Class::Permanent, "{status}");
        }
        let retry_after = Some(Duration::from_secs(4));
        assert_eq!(classify().class_of(&failure(429, "retry in 4s")), Class::Throttled { retry_after });
        let gone = failure(429, "limit: 0, retry in 4s");
        assert_eq!(classify().class_of(&gone), Class::Permanent);
        assert_eq!(classify().retry_exhausted_quota(true).class_of(&gone), Class::Throttled { retry_after });
    }

    #[test]
    fn connections_and_cut_responses_are_transient() {
        let lost = || BoxError::from("reset");
        let transient = Class::Transient { retry_after: None };
        assert_eq!(classify().class_of(&Error::transport(lost())), transient);
        assert_eq!(classify().class_of(&Error::cut_off(StatusCode::OK, lost())), transient);
        let decode =
            |body: &[u8]| error::decode(StatusCode::OK, &HeaderMap::new(), body, "key").expect_err("no answer");
        assert_eq!(classify().class_of(&decode(b"{\"candidates\":[")), transient);
        assert_eq!(classify().class_of(&decode(b"<html>")), Class::Permanent);
        assert_eq!(classify().class_of(&Error::too_large(StatusCode::OK, 1)), Class::Permanent);
    }

    #[test]
    fn the_error_is_found_below_others() {
        let boxed: BoxError = Box::new(Error::configuration("outer").because(Box::new(failure(503, "m"))));
        assert_eq!(classify().classify(&Err::<(), _>(boxed)), Some(Class::Permanent));
        // An `io::Error` passes on the source of what it wraps, and so does an `Arc`.
        let transient = Some(Class::Transient { retry_after: None });
        let wrapped: BoxError = Box::new(io::Error::other(failure(503, "m")));
        assert_eq!(classify().classify(&Err::<(), _>(wrapped)), transient);
        let twice: BoxError = Box::new(io::Error::other(io::Error::other(Arc::new(failure(503, "m")))));
        assert_eq!(classify().classify(&Err::<(), _>(twice)), transient);
        assert_eq!(classify().classify(&Err::<(), BoxError>("other".into())), None);
        assert_eq!(classify().classify(&Ok::<_, BoxError>(())), Some(Class::Success));
    }
}
