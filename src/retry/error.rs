use std::{collections::VecDeque, error::Error, fmt, time::Duration};

use crate::{
    BoxError,
    policy::{Attempt, StopReason},
};

// The latest failures are the telling ones; a call that is retried for days must not grow without bound.
const HISTORY: usize = 16;

/// A call that failed, with its story; the error of a [detailed](super::RetryLayer::detailed) layer.
///
/// It is an [`Error`] if `E` is one. In a stack whose errors are boxed, [`erase`](RetryError::erase) makes it one.
///
/// ```
/// use std::io;
/// use tower::{Service, ServiceBuilder, ServiceExt};
/// use tower_tenacity::{RetryLayer, RetryPolicy, StopReason, wait};
///
/// # #[tokio::main(flavor = "current_thread")] async fn main() {
/// let mut service = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryPolicy::new().wait(wait::none())).detailed())
///     .service_fn(|_: u32| async { Err::<(), _>(io::Error::other("out of paper")) });
///
/// let error = service.ready().await.unwrap().call(1).await.unwrap_err();
/// assert_eq!(error.to_string(), "gave up after 3 attempts: the attempts are exhausted");
/// assert_eq!(error.reason(), StopReason::Exhausted);
/// assert_eq!(error.last().unwrap().to_string(), "out of paper");
/// assert_eq!(error.history().count(), 2);
/// # }
/// ```
pub struct RetryError<E>(Box<Inner<E>>);

struct Inner<E> {
    attempts: u32,
    elapsed: Duration,
    waited: Duration,
    reason: StopReason,
    last: Option<E>,
    story: Story<E>,
}

impl<E> RetryError<E> {
    /// How many attempts were made, or begun.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.0.attempts
    }

    /// How long the call took, from when it first had to wait or failed.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed
    }

    /// How much of that was spent waiting between attempts: the pauses that were decided, the last one whole even if it was cut.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.waited
    }

    /// Why there was no further attempt.
    #[must_use]
    pub fn reason(&self) -> StopReason {
        self.0.reason
    }

    /// The error of the last attempt; `None` if the deadline cut it short.
    #[must_use]
    pub fn last(&self) -> Option<&E> {
        self.0.last.as_ref()
    }

    /// The error of the last attempt, taken out.
    #[must_use]
    pub fn into_last(self) -> Option<E> {
        self.0.last
    }

    /// The failed attempts before the last one, oldest first; at most the latest 16 of them.
    pub fn history(&self) -> impl ExactSizeIterator<Item = &FailedAttempt<E>> {
        self.0.story.failures.iter()
    }

    /// How many earlier attempts the [history](Self::history) no longer holds.
    #[must_use]
    pub fn forgotten(&self) -> u32 {
        self.0.story.forgotten
    }

    /// The same story with every error boxed, which is an [`Error`] also where `E` is a box itself.
    #[must_use]
    pub fn erase(self) -> RetryError<ErasedError>
    where
        E: Into<BoxError>,
    {
        let Inner { attempts, elapsed, waited, reason, last, story } = *self.0;
        let erase = |error: E| ErasedError(error.into());
        let failures = story.failures.into_iter().map(|failed| FailedAttempt {
            number: failed.number,
            elapsed: failed.elapsed,
            delay: failed.delay,
            error: failed.error.map(erase),
        });
        let story = Story { failures: failures.collect(), forgotten: story.forgotten };
        RetryError(Box::new(Inner { attempts, elapsed, waited, reason, last: last.map(erase), story }))
    }
}

impl<E: fmt::Debug> fmt::Debug for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryError")
            .field("attempts", &self.0.attempts)
            .field("elapsed", &self.0.elapsed)
            .field("waited", &self.0.waited)
            .field("reason", &self.0.reason)
            .field("last", &self.0.last)
            .field("history", &self.0.story.failures)
            .field("forgotten", &self.0.story.forgotten)
            .finish()
    }
}

impl<E> fmt::Display for RetryError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let attempts = self.0.attempts;
        let s = if attempts == 1 { "" } else { "s" };
        write!(f, "gave up after {attempts} attempt{s}: {}", self.0.reason)
    }
}

impl<E: Error + 'static> Error for RetryError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.0.last.as_ref().map(|error| error as _)
    }
}

/// One failed attempt of a call that was tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedAttempt<E> {
    number: u32,
    elapsed: Duration,
    delay: Duration,
    error: Option<E>,
}

impl<E> FailedAttempt<E> {
    pub(super) fn new(attempt: &Attempt, delay: Duration, error: Option<E>) -> Self {
        Self { number: attempt.number(), elapsed: attempt.elapsed(), delay, error }
    }

    /// The number of the attempt; the first is 1.
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// When it failed, counted from when the call first had to wait or failed; see [`Attempt::elapsed`].
    pub const fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The pause that was made after it.
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// Its error; `None` if it was a response that the policy took for a failure.
    pub const fn error(&self) -> Option<&E> {
        self.error.as_ref()
    }
}

// What a call remembers of its failed attempts. Allocates nothing until there is one.
#[derive(Debug)]
#[doc(hidden)]
pub struct Story<E> {
    failures: VecDeque<FailedAttempt<E>>,
    forgotten: u32,
}

impl<E> Default for Story<E> {
    fn default() -> Self {
        Self { failures: VecDeque::new(), forgotten: 0 }
    }
}

impl<E> Story<E> {
    pub(super) fn push(&mut self, failed: FailedAttempt<E>) {
        if self.failures.len() == HISTORY {
            self.failures.pop_front();
            self.forgotten = self.forgotten.saturating_add(1);
        }
        self.failures.push_back(failed);
    }

    pub(super) fn into_error(self, attempt: &Attempt, reason: StopReason, last: Option<E>) -> RetryError<E> {
        // An attempt that the service was not ready for was never made.
        let attempts = attempt.number() - u32::from(reason == StopReason::NotReady);
        RetryError(Box::new(Inner {
            attempts,
            elapsed: attempt.elapsed(),
            waited: attempt.waited(),
            reason,
            last,
            story: self,
        }))
    }
}

/// An error of any type; see [`RetryError::erase`]. It shows and sources exactly as the error inside.
pub struct ErasedError(BoxError);

impl ErasedError {
    /// The error inside, to downcast.
    #[must_use]
    pub fn get_ref(&self) -> &(dyn Error + Send + Sync + 'static) {
        &*self.0
    }

    /// The error inside.
    #[must_use]
    pub fn into_inner(self) -> BoxError {
        self.0
    }
}

impl fmt::Debug for ErasedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for ErasedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

impl Error for ErasedError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        // Itself first, so that a look along the chain finds the type inside.
        Some(&*self.0)
    }
}
