use std::{
    error::Error,
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use super::Deadline;
use crate::{error::BoxError, policy::classify};

pin_project! {
    /// The future of an attempt that is cut after a while.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F> {
        #[pin]
        inner: F,
        limit: Duration,
        // Taken into the limit by the first poll.
        deadline: Option<Deadline>,
        // Made when the attempt first has to wait: one without a deadline that is answered at once reads no clock.
        #[pin]
        timer: Option<Sleep>,
    }
}

impl<F> ResponseFuture<F> {
    pub(super) const fn new(inner: F, limit: Duration, deadline: Option<Deadline>) -> Self {
        Self { inner, limit, deadline, timer: None }
    }
}

impl<F> fmt::Debug for ResponseFuture<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<F, Res, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Res, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(deadline) = this.deadline.take() {
            *this.limit = deadline.time_left(Instant::now()).min(*this.limit);
            if this.limit.is_zero() {
                // Nothing can come of it, so nothing is begun.
                return Poll::Ready(Err(TimedOut { limit: Duration::ZERO }.into()));
            }
        }
        if let Poll::Ready(outcome) = this.inner.poll(cx) {
            return Poll::Ready(outcome.map_err(Into::into));
        }
        if this.timer.is_none() {
            this.timer.set(Some(sleep(*this.limit)));
        }
        if let Some(timer) = this.timer.as_pin_mut() {
            ready!(timer.poll(cx));
        }
        Poll::Ready(Err(TimedOut { limit: *this.limit }.into()))
    }
}

/// An attempt took longer than it was allowed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimedOut {
    limit: Duration,
}

impl TimedOut {
    /// How long it was allowed to take: the limit of the layer, or less if the deadline of the request was nearer. Zero if that had
    /// passed already, and nothing was done.
    #[must_use]
    pub const fn limit(&self) -> Duration {
        self.limit
    }
}

impl TimedOut {
    /// Whether this error comes from an attempt that was not begun, as no time was left for it.
    pub(crate) fn had_no_time(error: &(dyn Error + 'static)) -> bool {
        classify::causes_of::<Self>(error).any(|timed_out| timed_out.limit.is_zero())
    }
}

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.limit.is_zero() {
            return f.write_str("no time left for an attempt");
        }
        write!(f, "no answer within {:?}", self.limit)
    }
}

impl Error for TimedOut {}
