use std::task::{Context, Poll};

use http::Request;
use tower_layer::Layer;
use tower_service::Service;

use super::ReplayBody;

/// Makes the bodies of requests such that they can be sent again; see the [module](crate::body).
///
/// It goes outside the retry layer. What is inside of both sees requests with a [`ReplayBody`].
#[derive(Clone, Copy, Debug)]
pub struct ReplayBodyLayer {
    cap: usize,
}

impl ReplayBodyLayer {
    /// Keeps up to `cap` bytes of each request under way. There is no default: it is what a server can spare per
    /// request, times the requests at once. Linkerd takes 64 KiB.
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { cap }
    }
}

impl<S> Layer<S> for ReplayBodyLayer {
    type Service = ReplayBodyService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        ReplayBodyService::new(inner, self.cap)
    }
}

/// Wraps the bodies of requests in [`ReplayBody`]; see the [module](crate::body).
#[derive(Clone, Copy, Debug)]
pub struct ReplayBodyService<S> {
    inner: S,
    cap: usize,
}

impl<S> ReplayBodyService<S> {
    /// Keeps up to `cap` bytes of each request to `inner`.
    pub const fn new(inner: S, cap: usize) -> Self {
        Self { inner, cap }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, taken out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for ReplayBodyService<S>
where
    S: Service<Request<ReplayBody<B>>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    #[inline]
    fn call(&mut self, request: Request<B>) -> Self::Future {
        let cap = self.cap;
        self.inner.call(request.map(|body| ReplayBody::new(body, cap)))
    }
}
