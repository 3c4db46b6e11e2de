use std::{
    fmt,
    marker::PhantomData,
    task::{Context, Poll},
};

use tower_service::Service;

use super::{Detailed, Plain, ResponseFuture, mode::Mode};
use crate::policy::Policy;

/// Calls a service until a policy is content with the outcome; see the [module](crate::retry).
pub struct Retry<P, S, M = Plain> {
    policy: P,
    inner: S,
    mode: PhantomData<fn() -> M>,
}

impl<P, S> Retry<P, S> {
    /// Retries calls to `inner` by `policy`.
    pub const fn new(policy: P, inner: S) -> Self {
        Self::with_mode(policy, inner)
    }

    /// See [`RetryLayer::detailed`](super::RetryLayer::detailed).
    pub fn detailed(self) -> Retry<P, S, Detailed> {
        Retry::with_mode(self.policy, self.inner)
    }
}

impl<P, S, M> Retry<P, S, M> {
    pub(super) const fn with_mode(policy: P, inner: S) -> Self {
        Self { policy, inner, mode: PhantomData }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it. A call under way keeps the service it started with.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the retries.
    pub fn into_inner(self) -> S {
        self.inner
    }

    /// The policy each call starts from.
    pub const fn policy(&self) -> &P {
        &self.policy
    }
}

impl<P: Clone, S: Clone, M> Clone for Retry<P, S, M> {
    fn clone(&self) -> Self {
        Self::with_mode(self.policy.clone(), self.inner.clone())
    }
}

impl<P: fmt::Debug, S: fmt::Debug, M> fmt::Debug for Retry<P, S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry").field("policy", &self.policy).field("inner", &self.inner).finish()
    }
}

impl<P, S, Req, M> Service<Req> for Retry<P, S, M>
where
    P: Policy<Req, S::Response, S::Error> + Clone,
    S: Service<Req> + Clone,
    M: Mode<S::Response, S::Error>,
{
    type Response = S::Response;
    type Error = M::Error;
    type Future = ResponseFuture<P, S, Req, M>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(M::refused)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        // The instance that was polled ready is the one that is called; the clone readies itself if it is needed.
        ResponseFuture::start(
            &self.policy,
            request,
            &mut self.inner,
            |inner, request| inner.call(request),
            |inner| inner.clone(),
        )
    }
}
