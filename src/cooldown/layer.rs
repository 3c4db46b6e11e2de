use std::{fmt, hash::Hash, num::NonZeroUsize, sync::Arc, time::Duration};

use tokio::time::Instant;
use tower_layer::Layer;

use super::{
    Cooldown, Observer,
    store::Store,
    terms::{Everyone, NeverExhausted, Per, Terms},
};
use crate::{
    hold::{Counted, Leaked},
    policy::{Nanos, wait::FlooredJitter},
    timeout::NoDeadline,
};
#[cfg(feature = "http")]
use crate::{policy::http, timeout::InExtensions};

/// Wraps services in [`Cooldown`]; see the [module](crate::cooldown).
///
/// What callers share, the moment before which nobody calls, belongs to this value: all services made from it and from its
/// clones wait for each other.
#[derive(Clone)]
#[must_use]
pub struct CooldownLayer<C, W = FlooredJitter, P = Everyone, X = NeverExhausted, D = NoDeadline> {
    terms: Terms<C, W, P, X, D>,
}

impl<C> CooldownLayer<C> {
    /// Holds back all callers once `classify` takes an outcome for [throttled](crate::classify::Class::Throttled). Give
    /// it the classifier that the retry layer has.
    pub fn new(classify: C) -> Self {
        Self { terms: Terms::new(classify) }
    }
}

#[cfg(feature = "http")]
impl<M> CooldownLayer<http::Classifier<M>, FlooredJitter, Everyone, NeverExhausted, InExtensions> {
    /// For HTTP: what an outcome means is told by [`policy::http::classify`](http::classify()), and no call is held up to the
    /// [deadline](crate::timeout::Deadline) among the extensions of its request, where [`RetryPolicy::http`](crate::RetryPolicy::http)
    /// puts it. All calls share one quota, as those to one server do; [`per`](Self::per) tells apart several.
    ///
    /// ```
    /// use std::time::Duration;
    /// use http::{Request, Response};
    /// use tokio::time::Instant;
    /// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    /// use tower_tenacity::{RetryLayer, RetryPolicy, cooldown::CooldownLayer};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
    /// let throttled = service_fn(|_: Request<()>| async {
    ///     Response::builder().status(429).header("retry-after", "40").body(String::new()).map_err(BoxError::from)
    /// });
    /// let client = ServiceBuilder::new()
    ///     .layer(RetryLayer::new(RetryPolicy::http().timeout(Duration::from_secs(30))))
    ///     .layer(CooldownLayer::http())
    ///     .service(throttled);
    ///
    /// // Nobody waits 40 s for a call that has 30: not who is refused, nor who comes next.
    /// let begun = Instant::now();
    /// assert_eq!(client.clone().oneshot(Request::new(())).await.unwrap().status(), 429);
    /// assert!(client.oneshot(Request::new(())).await.is_err());
    /// assert_eq!(begun.elapsed(), Duration::ZERO);
    /// # }
    /// ```
    pub fn http() -> Self {
        CooldownLayer::new(http::classify()).deadline(InExtensions)
    }
}

impl<C, W, P, X, D> CooldownLayer<C, W, P, X, D> {
    /// How long to hold calls back where the server does not say. Any [wait](crate::policy::wait) will do; the attempt it
    /// is told of is the number of throttlings in a row. Default:
    /// [`floored_jitter`](crate::policy::wait::floored_jitter), 1 to 2 s at first and up to 20 s.
    ///
    /// Once the time is over one call goes first, and the others wait for what becomes of it.
    pub fn backoff<W2>(self, backoff: W2) -> CooldownLayer<C, W2, P, X, D> {
        CooldownLayer { terms: self.terms.backoff(backoff) }
    }

    /// Tells apart calls that do not share a quota: by model, host, tenant. The closure's argument has its type written.
    /// Default: all calls share one.
    ///
    /// Only keys that are throttled are remembered, and at most 1024 of them at once ([`max_keys`](Self::max_keys)). The key
    /// is made for every call, so it had better be cheap. What was shared before this setting is left to others.
    ///
    /// ```
    /// use tower_tenacity::{classify, cooldown::CooldownLayer};
    ///
    /// struct Job { tenant: u32 }
    ///
    /// let throttled = classify::throttled_if(classify::on_response(|status: &u16| *status == 429));
    /// let layer = CooldownLayer::new(throttled).per(|job: &Job| job.tenant);
    /// assert_eq!(layer.cooling_until(&7), None);
    /// ```
    pub fn per<Req, K, F>(self, key: F) -> CooldownLayer<C, W, Per<F, K>, X, D>
    where
        F: Fn(&Req) -> K,
        K: Eq + Hash,
    {
        CooldownLayer { terms: self.terms.per(key) }
    }

    /// Tells of a failure whether a quota is used up that will not be back soon, and for how long calls are to fail at
    /// once. It is asked about outcomes that the classifier takes for a failure. The closure's argument has its type
    /// written. Default: never.
    ///
    /// Such calls fail with [`CoolingDown`](super::CoolingDown), which is permanent to a retry layer further out. After
    /// that time one call goes first to see.
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_tenacity::{classify, cooldown::CooldownLayer};
    ///
    /// # #[derive(Debug)]
    /// enum ApiError { TooMany, UsedUp }
    ///
    /// let layer = CooldownLayer::new(classify::throttled_if(classify::on_error(|e: &ApiError| matches!(e, ApiError::TooMany))))
    ///     .exhausted_if(|outcome: &Result<String, ApiError>| match outcome {
    ///         Err(ApiError::UsedUp) => Some(Duration::from_secs(15 * 60)),
    ///         _ => None,
    ///     });
    /// # let _ = layer;
    /// ```
    pub fn exhausted_if<X2>(self, exhausted: X2) -> CooldownLayer<C, W, P, X2, D> {
        CooldownLayer { terms: self.terms.exhausted(exhausted) }
    }

    /// Reads the [deadline](crate::timeout::Deadline) of a request, the same way as
    /// [`AttemptTimeoutLayer`](crate::timeout::AttemptTimeoutLayer::deadline) does: a closure, whose argument has its type written, or
    /// `timeout::InExtensions` for HTTP requests. A call that would be held until then or longer fails at once. Default: no deadline.
    ///
    /// ```
    /// use tower_tenacity::{classify, cooldown::CooldownLayer, timeout::Deadline};
    ///
    /// struct Job { deadline: Option<Deadline> }
    ///
    /// let layer = CooldownLayer::new(classify::throttled_if(classify::error_message_contains("429"))).deadline(|job: &Job| job.deadline);
    /// # let _ = layer;
    /// ```
    pub fn deadline<D2>(self, deadline: D2) -> CooldownLayer<C, W, P, X, D2> {
        CooldownLayer { terms: self.terms.deadline(deadline) }
    }

    /// How long a call may be held, from its start. One that would be held longer fails at once with
    /// [`CoolingDown`](super::CoolingDown). Default: 300 s, as the longest delay that a
    /// [retry policy](crate::RetryPolicy::max_server_delay) obeys.
    pub fn max_wait(mut self, max: Duration) -> Self {
        self.terms.max_wait = Nanos::new(max);
        self
    }

    /// Tells `observer` what becomes of calls and quotas: [`CooldownMetrics`](crate::telemetry), or your own [`Observer`]. Observers
    /// add up. Set before the first call, it sees everything.
    pub fn observe<O: Observer + 'static>(self, observer: O) -> Self {
        self.terms.observers.add(Arc::new(observer));
        self
    }

    /// Refuses calls rather than holding them: a `max_wait` of zero.
    pub fn fail_fast(self) -> Self {
        self.max_wait(Duration::ZERO)
    }
}

impl<C, W, X, D> CooldownLayer<C, W, Everyone, X, D> {
    /// The moment before which no call passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self) -> Option<Instant> {
        self.terms.cooling_until(&())
    }
}

impl<C, W, F, K: Eq + Hash, X, D> CooldownLayer<C, W, Per<F, K>, X, D> {
    /// The moment before which no call with this key passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self, key: &K) -> Option<Instant> {
        self.terms.cooling_until(key)
    }

    /// How many keys can be held back at once. Default: 1024.
    ///
    /// Calls with a key beyond that pass as they would without this layer. What is in force is never given up for a
    /// newcomer: a stranger who makes up keys could otherwise end the cool-downs of everybody else. What was shared
    /// before this setting is left to others.
    pub fn max_keys(mut self, keys: NonZeroUsize) -> Self {
        self.terms.scope.store = Arc::new(Store::new(keys, self.terms.observers.clone()));
        self
    }
}

impl<C, W, P, X, D> CooldownLayer<C, W, P, X, D> {
    /// Lets what is shared live as long as the program, so that calls need not count who holds it; see [`hold`](crate::hold). Default: it goes with the
    /// last layer, service and call.
    #[must_use]
    pub fn leak(self) -> LeakedCooldownLayer<C, W, P, X, D> {
        LeakedCooldownLayer { terms: Leaked::new(self.terms) }
    }
}

/// A [`CooldownLayer`] whose state lives as long as the program; made by [`leak`](CooldownLayer::leak).
pub struct LeakedCooldownLayer<C: 'static, W: 'static, P: 'static, X: 'static, D: 'static> {
    terms: Leaked<Terms<C, W, P, X, D>>,
}

impl<C, W, X, D> LeakedCooldownLayer<C, W, Everyone, X, D> {
    /// See [`CooldownLayer::cooling_until`].
    #[must_use]
    pub fn cooling_until(&self) -> Option<Instant> {
        self.terms.cooling_until(&())
    }
}

impl<C, W, F, K: Eq + Hash, X, D> LeakedCooldownLayer<C, W, Per<F, K>, X, D> {
    /// See [`CooldownLayer::cooling_until`].
    #[must_use]
    pub fn cooling_until(&self, key: &K) -> Option<Instant> {
        self.terms.cooling_until(key)
    }
}

impl<C, W, P, X, D> Clone for LeakedCooldownLayer<C, W, P, X, D> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C, W, P, X, D> Copy for LeakedCooldownLayer<C, W, P, X, D> {}

impl<C, W, P, X, D, S> Layer<S> for CooldownLayer<C, W, P, X, D>
where
    C: Clone,
    W: Clone,
    P: Clone,
    X: Clone,
    D: Clone,
{
    type Service = Cooldown<S, Counted<Terms<C, W, P, X, D>>>;

    fn layer(&self, inner: S) -> Self::Service {
        Cooldown::with_terms(inner, Counted::new(Arc::new(self.terms.clone())))
    }
}

impl<C, W, P, X, D, S> Layer<S> for LeakedCooldownLayer<C, W, P, X, D> {
    type Service = Cooldown<S, Leaked<Terms<C, W, P, X, D>>>;

    fn layer(&self, inner: S) -> Self::Service {
        Cooldown::with_terms(inner, self.terms)
    }
}

impl<C, W, P, X, D> fmt::Debug for LeakedCooldownLayer<C, W, P, X, D>
where
    C: fmt::Debug,
    W: fmt::Debug,
    P: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeakedCooldownLayer").field("terms", &self.terms).finish()
    }
}

impl<C, W, P, X, D> fmt::Debug for CooldownLayer<C, W, P, X, D>
where
    C: fmt::Debug,
    W: fmt::Debug,
    P: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CooldownLayer").field("terms", &self.terms).finish()
    }
}
