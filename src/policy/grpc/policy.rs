use super::{Classifier, Code, Deadline, TrailersClassifier, classify, deadline};
use crate::policy::{
    RetryPolicy,
    budget::{Budget, Funds},
    classify::Typed,
    http::{Deadlines, FlatCopy, Mark},
    stop, wait,
};

/// The type of [`RetryPolicy::grpc`], to be named in a struct field.
///
/// Its parameter is about the error of the service: left out where that is an [`Error`](std::error::Error) itself, as that of a
/// tonic channel is, [`Boxed`](crate::classify::Boxed) where it is a boxed one, as below tower's `Buffer` and `Timeout`.
pub type GrpcPolicy<M = Typed> = RetryPolicy<
    stop::AfterAttempt,
    wait::FlooredJitter,
    Classifier<M>,
    ((((), Deadlines), Deadline), Mark),
    FlatCopy,
    Funds<Budget>,
>;

impl RetryPolicy {
    /// How unary gRPC calls are retried: three attempts, [floored jitter](wait::floored_jitter) where the server names no delay
    /// and the server's delay where it does, within the deadline that comes with the request, as [`grpc-timeout`](deadline()) or
    /// among its [extensions](Deadlines). What is
    /// retried is said by the [`Classifier`]: `UNAVAILABLE`, whichever method was called, lost connections, and
    /// `RESOURCE_EXHAUSTED` if the server says when.
    ///
    /// Requests are kept as a [flat copy](FlatCopy), and an attempt of an outer retry layer is [marked](Mark), so that an inner one does
    /// not multiply it.
    ///
    /// All calls of services made from this value share a [budget](Budget::standard): of the last minute, no more retries than a tenth of
    /// the successes and two. (gRPC's own throttle gives up where a tenth of the calls fail; this then only slows down.)
    ///
    /// Official gRPC clients do not retry unless configured to, and never make more than five attempts
    /// ([A6](https://github.com/grpc/proposal/blob/master/A6-client-retries.md)); three is what [`RetryPolicy::new`] takes.
    ///
    /// ```
    /// use http::{Request, Response};
    /// use tower::{BoxError, ServiceBuilder, service_fn};
    /// use tower_tenacity::{RetryLayer, RetryPolicy, policy::grpc::{self, Code}, stop};
    ///
    /// struct Client {
    ///     policy: grpc::GrpcPolicy,
    /// }
    ///
    /// let client = Client { policy: RetryPolicy::grpc().also_retry(Code::Aborted) };
    /// # let _ = client.policy;
    ///
    /// let policy = RetryPolicy::grpc().stop(stop::after_attempt(5)).hook(grpc::previous_attempts());
    /// let channel = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(service_fn(
    ///     |request: Request<String>| async move { Ok::<_, BoxError>(Response::new(request.into_body())) },
    /// ));
    /// # fn check<S: tower::Service<Request<String>>>(_: S) {} check(channel);
    /// ```
    ///
    /// Where the policy gets a [classifier](RetryPolicy::classify) of another kind, the parameter has to be written:
    /// `RetryPolicy::grpc::<Typed>()`, with whichever [marker](crate::classify::Typed).
    pub fn grpc<M>() -> GrpcPolicy<M> {
        Self::new()
            .classify(classify())
            .keep(FlatCopy)
            .hook(Deadlines)
            .hook(deadline())
            .hook(Mark)
            .budget(Budget::standard())
    }
}

/// Settings of a policy with the classifier of gRPC.
impl<S, W, H, K, B, M> RetryPolicy<S, W, Classifier<M>, H, K, B> {
    /// See [`grpc::Classifier::also_retry`](Classifier::also_retry).
    pub fn also_retry(self, code: Code) -> Self {
        self.map_classify(|classify| classify.also_retry(code))
    }

    /// See [`grpc::Classifier::also_retry_on_hint`](Classifier::also_retry_on_hint).
    pub fn also_retry_on_hint(self, code: Code) -> Self {
        self.map_classify(|classify| classify.also_retry_on_hint(code))
    }

    /// See [`grpc::Classifier::never_retry`](Classifier::never_retry).
    pub fn never_retry(self, code: Code) -> Self {
        self.map_classify(|classify| classify.never_retry(code))
    }

    /// See [`grpc::Classifier::with_trailers`](Classifier::with_trailers). What else there is to say about codes comes before.
    pub fn with_trailers(self) -> RetryPolicy<S, W, TrailersClassifier<M>, H, K, B> {
        self.map_classify(Classifier::with_trailers)
    }
}
