use std::{
    error::Error,
    fmt,
    marker::PhantomData,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, Response, StatusCode};

use super::{
    Trailers,
    code::{Code, Codes},
    details, errors,
};
use crate::policy::{
    classify::{Class, Classify, ErrorChain, Typed},
    http::{Classifier as OverHttp, hints},
};

/// Tells what a response to a gRPC call means, or a failed connection.
///
/// It serves every [`http::Response`], and every error that is an [`Error`] or a boxed one as tower's layers
/// return it; its parameter keeps those two apart and is inferred in a layer. ([`Classifier::new`] is for those who ask
/// [it](Classifier::class_of) [themselves](Classifier::class_of_error).)
///
/// # Responses
///
/// The code is taken from `grpc-status` in the head of the response: that is where gRPC servers put the status of a
/// call that fails before its first message ("Trailers-Only"). Without one it is derived from the
/// [HTTP status](Code::of).
///
/// | code | class | why |
/// |---|---|---|
/// | `OK`, or a status yet to come | success | once there are messages the call is committed ([A6]) |
/// | `UNAVAILABLE` | transient; throttled if it stands for HTTP 429 | the one code that is retried by default ([AIP-194]) |
/// | `RESOURCE_EXHAUSTED` with a delay | throttled | a rate limit that names its end |
/// | `RESOURCE_EXHAUSTED` without | permanent | a quota that may take a day, or a message that is too large |
/// | `ABORTED` | permanent | what is to be repeated is the whole transaction, not its last call |
/// | `DEADLINE_EXCEEDED` | permanent | the time is up, and the call may have been carried out |
/// | `INTERNAL` | permanent | a bug |
/// | `UNKNOWN`, `CANCELLED` | permanent | nobody can say that repeating it helps, or is safe |
/// | all others | permanent | another attempt is answered the same |
///
/// The delay is the first of these that is there:
///
/// 1. `grpc-retry-pushback-ms`, in milliseconds ([A6]); **negative or unreadable means: do not retry**, whatever the code is.
///    Zero is a permission to retry without a delay of the server's: the policy waits its own.
/// 2. `google.rpc.RetryInfo` in `grpc-status-details-bin`; malformed, negative or absurd ones are ignored.
/// 3. `Retry-After` and its [relatives](hints), from proxies.
///
/// A delay says when, not whether: for a code that is permanent by the table it is not looked at.
///
/// # Errors of connections
///
/// | error | class | why |
/// |---|---|---|
/// | an HTTP/2 stream refused by the server | never sent | it was not looked at |
/// | an HTTP/2 stream reset for another reason | that of the code it stands for: `INTERNAL`, `CANCELLED`, … | the server had begun; that is no lost connection |
/// | a timeout, tonic's, tower's or that of an [attempt](crate::timeout) | that of `DEADLINE_EXCEEDED` | the call may have been carried out |
/// | anything else | as in [`http::classify`](crate::policy::http::classify); transient errors only with `UNAVAILABLE` | a lost connection is `UNAVAILABLE` in gRPC |
///
/// ```
/// use std::{convert::Infallible, time::Duration};
/// use http::Response;
/// use tower_tenacity::{classify::{Class, Classify}, policy::grpc::{self, Code}};
///
/// let class = |classify: grpc::Classifier, code: &str, pushback: &str| {
///     let response = Response::builder().header("grpc-status", code).header("grpc-retry-pushback-ms", pushback);
///     classify.classify(&Ok::<_, Infallible>(response.body(()).unwrap()))
/// };
/// let half_a_second = Some(Duration::from_millis(500));
/// assert_eq!(class(grpc::classify(), "14", "500"), Some(Class::Transient { retry_after: half_a_second }));
/// assert_eq!(class(grpc::classify(), "8", "500"), Some(Class::throttled(half_a_second)));
/// assert_eq!(class(grpc::classify(), "14", "-1"), Some(Class::Permanent));
/// assert_eq!(class(grpc::classify(), "10", "500"), Some(Class::Permanent));
///
/// // Calls to this service can be aborted and repeated one by one.
/// let classify = grpc::classify().also_retry(Code::Aborted);
/// assert_eq!(class(classify, "10", "500"), Some(Class::Transient { retry_after: half_a_second }));
/// ```
///
/// [A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md
/// [AIP-194]: https://google.aip.dev/194
pub struct Classifier<M = Typed> {
    // Whatever else the server says, and only if it says when.
    always: Codes,
    on_hint: Codes,
    now: fn() -> SystemTime,
    marker: PhantomData<fn() -> M>,
}

/// Tells what a response to a gRPC call means, or a failed connection: see [`Classifier`] for the tables.
///
/// ```
/// use http::Response;
/// use tower_tenacity::{RetryPolicy, policy::grpc::{self, Code}};
///
/// let policy = RetryPolicy::new().classify(grpc::classify().also_retry(Code::Aborted));
/// # fn check<P: tower_tenacity::Policy<(), Response<()>, std::io::Error>>(_: &P) {} check(&policy);
/// # let policy = RetryPolicy::new().classify(grpc::classify());
/// # fn boxed<P: tower_tenacity::Policy<(), Response<()>, Box<dyn std::error::Error + Send + Sync>>>(_: &P) {} boxed(&policy);
/// ```
#[must_use]
pub const fn classify<M>() -> Classifier<M> {
    Classifier {
        always: Codes::only(Code::Unavailable),
        on_hint: Codes::only(Code::ResourceExhausted),
        now: SystemTime::now,
        marker: PhantomData,
    }
}

impl Classifier {
    /// A classifier to be asked directly; for a layer there is [`classify()`].
    #[must_use]
    pub const fn new() -> Self {
        classify()
    }
}

impl<M> Classifier<M> {
    /// Also retries calls that end with `code`. It has to be safe to repeat them: gRPC has no mark for that.
    ///
    /// Without effect for [`Code::Ok`].
    #[must_use]
    pub const fn also_retry(mut self, code: Code) -> Self {
        self.always = self.always.with(code);
        self
    }

    /// Also retries calls that end with `code`, if the server says when. By default that is
    /// [`Code::ResourceExhausted`].
    ///
    /// Without effect for [`Code::Ok`].
    #[must_use]
    pub const fn also_retry_on_hint(mut self, code: Code) -> Self {
        self.on_hint = self.on_hint.with(code);
        self
    }

    /// Does not retry calls that end with `code`, whatever the server says.
    #[must_use]
    pub const fn never_retry(mut self, code: Code) -> Self {
        self.always = self.always.without(code);
        self.on_hint = self.on_hint.without(code);
        self
    }

    /// Where the time of day comes from. Default: [`SystemTime::now`].
    ///
    /// It is asked only for a `Retry-After` that is a date and has no `Date` beside it.
    #[must_use]
    pub const fn wall_clock(mut self, now: fn() -> SystemTime) -> Self {
        self.now = now;
        self
    }

    /// Also looks for the status in the trailers, of bodies that have been [collected](Trailers).
    pub const fn with_trailers(self) -> TrailersClassifier<M> {
        TrailersClassifier { head: self }
    }

    /// What a response means, by its head.
    #[must_use]
    #[inline]
    pub fn class_of<B>(&self, response: &Response<B>) -> Class {
        match Code::of(response) {
            None | Some(Code::Ok) => Class::Success,
            Some(code) => self.failure(code, response.status(), response.headers()),
        }
    }

    /// What an error means, or `None` for no opinion.
    #[must_use]
    pub fn class_of_error(&self, error: &(dyn Error + 'static)) -> Option<Class> {
        match errors::code_of(error) {
            Some(code) if !self.always.contains(code) => Some(Class::Permanent),
            Some(Code::ResourceExhausted) => Some(Class::throttled(None)),
            Some(_) => Some(Class::transient()),
            None => match OverHttp::new().class_of_error(error)? {
                // A lost connection is UNAVAILABLE.
                Class::Transient { .. } | Class::Throttled { .. } if !self.always.contains(Code::Unavailable) => {
                    Some(Class::Permanent)
                }
                class => Some(class),
            },
        }
    }

    // Out of the way of success.
    #[cold]
    fn failure(&self, code: Code, status: StatusCode, headers: &HeaderMap) -> Class {
        let always = self.always.contains(code);
        if !always && !self.on_hint.contains(code) {
            return Class::Permanent;
        }
        let Ok(retry_after) = self.delay(status, headers) else { return Class::Permanent };
        if !always && retry_after.is_none() {
            return Class::Permanent;
        }
        // A proxy's 429 has no code of its own.
        if code == Code::ResourceExhausted || (code == Code::Unavailable && status == StatusCode::TOO_MANY_REQUESTS) {
            Class::Throttled { retry_after }
        } else {
            Class::Transient { retry_after }
        }
    }

    fn delay(&self, status: StatusCode, headers: &HeaderMap) -> Result<Option<Duration>, Forbidden> {
        if let Some(pushback) = pushback(headers)? {
            return Ok(Some(pushback));
        }
        Ok(details::retry_delay(headers).or_else(|| hints::retry_after(status, headers, self.now)))
    }
}

impl<B, E: ErrorChain<M>, M> Classify<Response<B>, E> for Classifier<M> {
    #[inline]
    fn classify(&self, outcome: &Result<Response<B>, E>) -> Option<Class> {
        match outcome {
            Ok(response) => Some(self.class_of(response)),
            Err(error) => self.class_of_error(error.outermost()),
        }
    }
}

// Not derived: that would ask the same of the marker.
impl<M> Clone for Classifier<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for Classifier<M> {}

impl<M> Default for Classifier<M> {
    fn default() -> Self {
        classify()
    }
}

impl<M> fmt::Debug for Classifier<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Classifier").field("always", &self.always).field("on_hint", &self.on_hint).finish()
    }
}

/// Tells what a response to a gRPC call means, by its head and its trailers; made by
/// [`with_trailers`](Classifier::with_trailers).
#[must_use]
pub struct TrailersClassifier<M = Typed> {
    head: Classifier<M>,
}

impl<M> TrailersClassifier<M> {
    /// What a response means.
    #[must_use]
    pub fn class_of<B: Trailers>(&self, response: &Response<B>) -> Class {
        let in_trailers = || {
            let trailers = response.body().trailers()?;
            Some((Code::from_headers(trailers)?, trailers))
        };
        match (Code::of(response), in_trailers()) {
            (None, Some((Code::Ok, _))) => Class::Success,
            (None, Some((code, trailers))) => self.head.failure(code, response.status(), trailers),
            _ => self.head.class_of(response),
        }
    }
}

impl<B: Trailers, E: ErrorChain<M>, M> Classify<Response<B>, E> for TrailersClassifier<M> {
    fn classify(&self, outcome: &Result<Response<B>, E>) -> Option<Class> {
        match outcome {
            Ok(response) => Some(self.class_of(response)),
            Err(error) => self.head.class_of_error(error.outermost()),
        }
    }
}

impl<M> Clone for TrailersClassifier<M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<M> Copy for TrailersClassifier<M> {}

impl<M> fmt::Debug for TrailersClassifier<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrailersClassifier").field("head", &self.head).finish()
    }
}

/// The server forbids to retry.
struct Forbidden;

// "An ASCII encoded signed 32-bit integer"; what is negative or anything else forbids, and so do two of them.
fn pushback(headers: &HeaderMap) -> Result<Option<Duration>, Forbidden> {
    let mut values = headers.get_all("grpc-retry-pushback-ms").into_iter();
    let Some(value) = values.next() else { return Ok(None) };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|digits| digits.parse::<i32>().ok()).map(u64::try_from) {
        Some(Ok(millis)) if values.next().is_none() => Ok(Some(Duration::from_millis(millis))),
        _ => Err(Forbidden),
    }
}
