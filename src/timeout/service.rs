use std::{
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use tower_service::Service;

use super::{ReadDeadline, ResponseFuture};
use crate::error::BoxError;

/// A service whose calls are cut after a while; made by [`AttemptTimeoutLayer`](super::AttemptTimeoutLayer).
#[derive(Clone)]
pub struct AttemptTimeout<S, D> {
    inner: S,
    limit: Duration,
    deadline: D,
}

impl<S, D> AttemptTimeout<S, D> {
    pub(super) const fn new(inner: S, limit: Duration, deadline: D) -> Self {
        Self { inner, limit, deadline }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the limit.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: fmt::Debug, D> fmt::Debug for AttemptTimeout<S, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptTimeout").field("limit", &self.limit).field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl<S, D, Req> Service<Req> for AttemptTimeout<S, D>
where
    S: Service<Req, Error: Into<BoxError>>,
    D: ReadDeadline<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let deadline = self.deadline.deadline(&request);
        ResponseFuture::new(self.inner.call(request), self.limit, deadline)
    }
}
