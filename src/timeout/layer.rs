use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{AttemptTimeout, Deadline, NoDeadline};

/// Gives each attempt a limit; see the [module](crate::timeout).
#[derive(Clone, Copy)]
pub struct AttemptTimeoutLayer<D = NoDeadline> {
    limit: Duration,
    deadline: D,
}

impl AttemptTimeoutLayer {
    /// At most `limit` for each attempt: about the slowest answer that is still worth having.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit, deadline: NoDeadline }
    }

    /// The same for HTTP requests, with the [`Deadline`] among their extensions.
    #[cfg(feature = "http")]
    #[must_use]
    pub const fn http<B>(limit: Duration) -> AttemptTimeoutLayer<fn(&http::Request<B>) -> Option<Deadline>> {
        AttemptTimeoutLayer { limit, deadline: |request| request.extensions().get().copied() }
    }
}

impl<D> AttemptTimeoutLayer<D> {
    /// Reads the deadline of each request by `f(request)`: an attempt gets no more time than is left until then.
    #[must_use]
    pub fn deadline<F, Req>(self, f: F) -> AttemptTimeoutLayer<F>
    where
        F: Fn(&Req) -> Option<Deadline>,
    {
        AttemptTimeoutLayer { limit: self.limit, deadline: f }
    }
}

impl<D> fmt::Debug for AttemptTimeoutLayer<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AttemptTimeoutLayer").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<S, D: Clone> Layer<S> for AttemptTimeoutLayer<D> {
    type Service = AttemptTimeout<S, D>;

    fn layer(&self, inner: S) -> Self::Service {
        AttemptTimeout::new(inner, self.limit, self.deadline.clone())
    }
}
