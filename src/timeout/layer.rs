use std::{fmt, time::Duration};

use tower_layer::Layer;

use super::{AttemptTimeout, NoDeadline};

/// Gives each attempt a limit; see the [module](crate::timeout).
#[derive(Clone, Copy)]
pub struct AttemptTimeoutLayer<D = NoDeadline> {
    limit: Duration,
    deadline: D,
}

impl AttemptTimeoutLayer {
    /// At most `limit` for each attempt: about the slowest answer that is still worth having. Zero is taken for a nanosecond: what is
    /// answered at once passes.
    #[must_use]
    pub const fn new(limit: Duration) -> Self {
        Self { limit: at_least_a_nanosecond(limit), deadline: NoDeadline }
    }

    /// The same for HTTP requests, with the [deadline](super::Deadline) among their extensions.
    #[cfg(feature = "http")]
    #[must_use]
    pub const fn http(limit: Duration) -> AttemptTimeoutLayer<super::InExtensions> {
        AttemptTimeoutLayer { limit: at_least_a_nanosecond(limit), deadline: super::InExtensions }
    }
}

impl<D> AttemptTimeoutLayer<D> {
    /// Reads the [deadline](super::Deadline) of each request: an attempt gets no more time than is left until then. A closure, whose
    /// argument has its type written, or another [`ReadDeadline`](super::ReadDeadline).
    #[must_use]
    pub fn deadline<D2>(self, deadline: D2) -> AttemptTimeoutLayer<D2> {
        AttemptTimeoutLayer { limit: self.limit, deadline }
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

// In an error zero says that the attempt was not begun.
const fn at_least_a_nanosecond(limit: Duration) -> Duration {
    if limit.is_zero() { Duration::from_nanos(1) } else { limit }
}
