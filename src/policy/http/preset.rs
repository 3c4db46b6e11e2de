use super::{Classifier, Deadlines, Drain, FlatCopy, Idempotency, Mark, classify, drain};
use crate::{
    classify::Typed,
    policy::{
        RetryPolicy,
        budget::{Budget, Funds},
        stop, wait,
    },
};

/// The type of [`RetryPolicy::http`], to be named in a struct field.
///
/// Its first parameter is about the error of the service: left out where that is an [`Error`](std::error::Error) itself,
/// [`Boxed`](crate::classify::Boxed) where it is a boxed one, as below tower's `Buffer` and `Timeout`. The second is its budget.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{RetryPolicy, classify::Boxed, policy::{budget::Budget, http::HttpPolicy}};
///
/// struct Client { policy: HttpPolicy }
/// struct Buffered { policy: HttpPolicy<Boxed> }
/// struct Frugal { policy: HttpPolicy<Boxed, &'static Budget> }
///
/// let client = Client { policy: RetryPolicy::http().timeout(Duration::from_secs(30)) };
/// let buffered = Buffered { policy: RetryPolicy::http() };
/// let frugal = Frugal { policy: RetryPolicy::http().budget(Budget::fleet().leak()) };
/// # let _ = (client.policy, buffered.policy, frugal.policy);
/// ```
pub type HttpPolicy<M = Typed, B = Budget> = RetryPolicy<
    stop::AfterAttempt,
    wait::FlooredJitter,
    Classifier<M>,
    (((((), Idempotency), Mark), Deadlines), Drain),
    FlatCopy,
    Funds<B>,
>;

impl RetryPolicy {
    /// For HTTP: three attempts, [floored jitter](wait::floored_jitter) between them or the delay the server asks for, only what
    /// may be repeated, and no more than the [standard budget](Budget::standard) pays for. See [`http`](super) for what is in it and how to change each.
    ///
    /// It serves `http::Request`s whose body [can be sent again](crate::body::RepeatBody), with any `http::Response`
    /// whose body is `Unpin`.
    ///
    /// Where the policy gets a [classifier](RetryPolicy::classify) of another kind, the parameter has to be written:
    /// `RetryPolicy::http::<Typed>()`, with whichever [marker](crate::classify::Typed).
    ///
    /// ```
    /// use http::{Request, Response, StatusCode};
    /// use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use tower_tenacity::{RetryLayer, RetryPolicy};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// # let calls = std::sync::atomic::AtomicU32::new(0);
    /// # let calls = &calls;
    /// let client = ServiceBuilder::new()
    ///     .layer(RetryLayer::new(RetryPolicy::http()))
    ///     .service(service_fn(|request: Request<String>| async move {
    ///         // Restarting, then up again.
    /// #       let call = calls.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    ///         let status = if call < 2 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::OK };
    ///         Response::builder().status(status).body(request.into_body())
    ///     }));
    /// let response = client.oneshot(Request::put("/items/7").body("seven".to_owned()).unwrap()).await.unwrap();
    /// assert_eq!((response.status(), &**response.body()), (StatusCode::OK, "seven"));
    /// # }
    /// ```
    pub fn http<M>() -> HttpPolicy<M> {
        Self::new()
            .classify(classify())
            .keep(FlatCopy)
            .budget(Budget::standard())
            .hook(Idempotency)
            .hook(Mark)
            .hook(Deadlines)
            .hook(drain())
    }
}
