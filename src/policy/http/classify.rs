use std::{error::Error, fmt, marker::PhantomData, time::SystemTime};

use http::{HeaderMap, Response, StatusCode};

use super::{status, transport};
use crate::classify::{Class, Classify, ErrorChain, Typed};

/// Tells what an HTTP response or a failed connection means, for retry, cool-down and circuit breaker.
///
/// It serves every [`http::Response`], and every error that is an [`Error`] or a boxed one as tower's
/// layers return it; its parameter keeps those two apart and is inferred in a layer. Those who have no
/// [`http::Response`] start from [`Classifier::new`] and ask for [`class_of_response`](Self::class_of_response) and
/// [`class_of_error`](Self::class_of_error) themselves.
///
/// It says what an outcome means, and not what may be repeated: **with this classifier alone a `POST` is sent again as
/// well**.
///
/// What an application knows better goes before it:
///
/// ```
/// use http::{Response, StatusCode};
/// use tower_tenacity::{classify::{self, Class, Classify}, policy};
///
/// let classify = classify::permanent_if(classify::on_response(|response: &Response<()>| {
///     response.headers().contains_key("x-out-of-credit")
/// })).or(policy::http::classify());
///
/// let mut outcome = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).body(());
/// assert_eq!(classify.classify(&outcome), Some(Class::throttled(None)));
/// outcome.as_mut().unwrap().headers_mut().insert("x-out-of-credit", "1".parse().unwrap());
/// assert_eq!(classify.classify(&outcome), Some(Class::Permanent));
/// ```
///
/// # Statuses
///
/// | status | class | why |
/// |---|---|---|
/// | 1xx, 2xx, 3xx | success | an answer; whoever wants redirects followed has a layer for it |
/// | 408 Request Timeout | transient | the server gave up waiting; RFC 9110 lets the client repeat the request |
/// | 425 Too Early | transient | refused as it might be a replay (RFC 8470); it is not when it is sent again |
/// | 429 Too Many Requests | throttled | |
/// | 403 with a delay, or with nothing left of a rate limit | throttled | how GitHub says 429 |
/// | 413 with a delay | transient | RFC 9110: a delay says that the condition is temporary |
/// | 500 Internal Server Error | transient | what is left of a crash, a deadlock, a lost database: most often gone the next time. Clients of AWS and Google retry it too |
/// | 502 Bad Gateway | transient | the server behind was lost, often while it restarts |
/// | 503 Service Unavailable | transient, also with a delay | overload or maintenance of the server, no fault of the caller's rate |
/// | 504 Gateway Timeout | transient | the server behind was too slow this time |
/// | any other from 400 on | permanent | the same request gets the same answer, 404 included |
///
/// The delay the server asks for comes with the class: see [`hints`](super::hints). The server's own word goes before the table:
/// `x-should-retry: false` makes a failure permanent, and `true` makes an unknown one transient (a 529 of Anthropic's). Neither says
/// that a request may be carried out twice.
///
/// *Permanent* for a response is no error: it is handed back like any other, but as a failure that was not
/// tried again, for those who count.
///
/// # Errors of connections
///
/// Errors are recognised by type, or where the type belongs to a crate that is not depended on, by what it displays;
/// wherever they are in the chain of causes:
///
/// | error | class |
/// |---|---|
/// | no connection was made: refused, timed out, name not found, TLS handshake failed | never sent |
/// | hyper's and hyper-util's "canceled", a request that was still in the queue when the connection closed | never sent |
/// | an HTTP/2 stream reset with `REFUSED_STREAM`, or abandoned with `GOAWAY` and `NO_ERROR` | never sent |
/// | tower's `LoadShed` is overloaded | never sent |
/// | `ENHANCE_YOUR_CALM` | throttled |
/// | a certificate that is not accepted, no TLS version in common, an unfit URL or protocol, a proxy that wants a password | permanent |
/// | the caller's own part: its request body failed, the request cannot be sent like this | permanent |
/// | a response that is longer than a [`CollectBodyLayer`](crate::body::CollectBodyLayer) holds | permanent for an answer, else that of its status |
/// | a connection that was reset or closed, a response that was cut off, a timeout | transient |
/// | this crate's `CircuitOpen`; `CoolingDown`; `TimedOut` | never sent; throttled, or permanent where a quota is used up or the deadline has passed; transient |
/// | a gRPC status | no opinion, which is permanent |
/// | **anything else** | **transient** |
///
/// *Never sent* lets a request be sent again that must not be carried out twice, so it is claimed only where it is known. Anything
/// unknown is transient, as most of what goes wrong with a connection is: a new wording in some library then costs the knowledge
/// that a request was never sent, and not all retries. Errors of an application's own layers are better known to the application; its
/// opinion goes first, as above. A name that is not found may be found a moment later: resolvers do not tell a typing
/// mistake from an outage.
///
/// One case is as certain as it gets, and no more: hyper reports a `GOAWAY` also for a stream that it opened in the very moment the
/// frame arrived, of which the server may then have seen the head.
///
/// **A layer that follows redirects belongs above the retry layer, not below**: below, a connection that is refused may be that of the
/// second hop, while the first request did reach its server.
///
/// Read in hyper 1.12.0, hyper-util 0.1.21, h2 0.4.20, rustls 0.23.46, tokio-rustls 0.26.6, reqwest 0.13.5 and tower 0.5.3.
pub struct Classifier<M = Typed> {
    statuses: Option<fn(StatusCode) -> Option<Class>>,
    now: fn() -> SystemTime,
    marker: PhantomData<fn() -> M>,
}

/// Tells what an HTTP response or a failed connection means: see [`Classifier`] for both tables.
///
/// ```
/// use http::Response;
/// use tower_tenacity::{RetryPolicy, policy};
///
/// let policy = RetryPolicy::new().classify(policy::http::classify());
/// # fn check<P: tower_tenacity::Policy<(), Response<()>, std::io::Error>>(_: &P) {} check(&policy);
/// # let policy = RetryPolicy::new().classify(policy::http::classify());
/// # fn boxed<P: tower_tenacity::Policy<(), Response<()>, Box<dyn std::error::Error + Send + Sync>>>(_: &P) {} boxed(&policy);
/// ```
#[must_use]
pub const fn classify<M>() -> Classifier<M> {
    Classifier { statuses: None, now: SystemTime::now, marker: PhantomData }
}

impl Classifier {
    /// A classifier to be asked directly; for a layer there is [`classify()`].
    #[must_use]
    pub const fn new() -> Self {
        classify()
    }
}

impl<M> Classifier<M> {
    /// What statuses mean where that differs from the [table](Classifier#statuses); `None` leaves it to the table.
    ///
    /// The delay the server asks for is added where a transient or throttled class comes without one.
    ///
    /// ```
    /// use std::time::{Duration, SystemTime};
    /// use http::{HeaderMap, StatusCode};
    /// use tower_tenacity::{classify::Class, policy::http::Classifier};
    ///
    /// let classify = Classifier::new().statuses(|status| match status.as_u16() {
    ///     202 | 409 => Some(Class::transient()),
    ///     500 => Some(Class::Permanent),
    ///     _ => None,
    /// });
    /// let class = |status, headers: &_| classify.class_of_response(status, headers, SystemTime::now);
    /// let mut headers = HeaderMap::new();
    /// assert_eq!(class(StatusCode::INTERNAL_SERVER_ERROR, &headers), Class::Permanent);
    /// headers.insert("retry-after", "7".parse().unwrap());
    /// let retry_after = Some(Duration::from_secs(7));
    /// assert_eq!(class(StatusCode::ACCEPTED, &headers), Class::Transient { retry_after });
    /// assert_eq!(class(StatusCode::BAD_GATEWAY, &headers), Class::Transient { retry_after });
    /// ```
    #[must_use]
    pub const fn statuses(mut self, meaning: fn(StatusCode) -> Option<Class>) -> Self {
        self.statuses = Some(meaning);
        self
    }

    /// Where the time of day comes from. Default: [`SystemTime::now`].
    ///
    /// It is asked only for a date that comes without a `Date` beside it.
    #[must_use]
    pub const fn wall_clock(mut self, now: fn() -> SystemTime) -> Self {
        self.now = now;
        self
    }

    /// What a response means. For clients whose response is no [`http::Response`], but has a status and headers.
    ///
    /// `now` is called at most once, and only for a date that comes without a `Date` beside it.
    #[inline]
    #[must_use]
    pub fn class_of_response(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        now: impl FnOnce() -> SystemTime,
    ) -> Class {
        match self.statuses {
            None if status::is_answer(status) => Class::Success,
            meaning => status::class_of(status, headers, meaning.and_then(|meaning| meaning(status)), now),
        }
    }

    /// What an error means, or `None` for no opinion.
    ///
    /// ```
    /// use std::io;
    /// use tower_tenacity::{classify::Class, policy::http::Classifier};
    ///
    /// let reset = io::Error::from(io::ErrorKind::ConnectionReset);
    /// assert_eq!(Classifier::new().class_of_error(&reset), Some(Class::transient()));
    /// ```
    #[must_use]
    pub fn class_of_error(&self, error: &(dyn Error + 'static)) -> Option<Class> {
        transport::class_of(error)
    }
}

impl<B, E: ErrorChain<M>, M> Classify<Response<B>, E> for Classifier<M> {
    #[inline]
    fn classify(&self, outcome: &Result<Response<B>, E>) -> Option<Class> {
        match outcome {
            Ok(response) => Some(self.class_of_response(response.status(), response.headers(), self.now)),
            Err(error) => self.class_of_error(error.outermost()),
        }
    }

    #[inline]
    fn accepts(&self, response: &Response<B>) -> bool {
        self.statuses.is_none() && status::is_answer(response.status())
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
        f.debug_struct("Classifier").field("own_statuses", &self.statuses.is_some()).finish_non_exhaustive()
    }
}
