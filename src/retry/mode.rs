use std::{
    convert::Infallible,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

use super::error::{FailedAttempt, RetryError, Story};
use crate::policy::{Attempt, StopReason};

/// What comes out of a failed call: [`Plain`] or [`Detailed`]. Sealed.
pub trait Mode<Res, E>: sealed::Sealed {
    /// The error of the service.
    type Error;
    #[doc(hidden)]
    type Story: Default;
    #[doc(hidden)]
    type Limit: Limit;
    #[doc(hidden)]
    const TIMED: bool;

    #[doc(hidden)]
    fn refused(error: E) -> Self::Error;
    #[doc(hidden)]
    fn discard(story: &mut Self::Story, attempt: &Attempt, after: Duration, error: Option<E>);
    #[doc(hidden)]
    fn finish(
        story: &mut Self::Story,
        attempt: &Attempt,
        reason: Option<StopReason>,
        outcome: Result<Res, E>,
    ) -> Result<Res, Self::Error>;
    #[doc(hidden)]
    fn expire(story: &mut Self::Story, attempt: &Attempt) -> Result<Res, Self::Error>;
}

/// A timer for the whole call, where there is an error to end it with.
#[doc(hidden)]
pub trait Limit: Default {
    fn poll_passed(self: Pin<&mut Self>, started: Instant, timeout: Duration, cx: &mut Context<'_>) -> Poll<()>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Plain {}
    impl Sealed for super::Detailed {}
}

/// Errors stay what they are: what comes out is the last error, unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Plain(Infallible);

/// Errors become [`RetryError`], which tells the story of the call.
#[derive(Clone, Copy, Debug)]
pub struct Detailed(Infallible);

impl<Res, E> Mode<Res, E> for Plain {
    type Error = E;
    type Story = ();
    type Limit = NoLimit;
    const TIMED: bool = false;

    #[inline]
    fn refused(error: E) -> E {
        error
    }

    #[inline]
    fn discard((): &mut (), _: &Attempt, _: Duration, _: Option<E>) {}

    #[inline]
    fn finish((): &mut (), _: &Attempt, _: Option<StopReason>, outcome: Result<Res, E>) -> Result<Res, E> {
        outcome
    }

    fn expire((): &mut (), _: &Attempt) -> Result<Res, E> {
        unreachable!("a plain call has no limit that could expire")
    }
}

impl<Res, E> Mode<Res, E> for Detailed {
    type Error = RetryError<E>;
    type Story = Story<E>;
    type Limit = Timer;
    const TIMED: bool = true;

    fn refused(error: E) -> RetryError<E> {
        Story::default().into_error(&Attempt::new(1), StopReason::NotReady, Some(error))
    }

    fn discard(story: &mut Story<E>, attempt: &Attempt, after: Duration, error: Option<E>) {
        story.push(FailedAttempt::new(attempt, after, error));
    }

    fn finish(
        story: &mut Story<E>,
        attempt: &Attempt,
        reason: Option<StopReason>,
        outcome: Result<Res, E>,
    ) -> Result<Res, RetryError<E>> {
        // A custom policy may hand an error back as if it were what the caller wanted.
        let reason = reason.unwrap_or(StopReason::Permanent);
        outcome.map_err(|error| std::mem::take(story).into_error(attempt, reason, Some(error)))
    }

    fn expire(story: &mut Story<E>, attempt: &Attempt) -> Result<Res, RetryError<E>> {
        Err(std::mem::take(story).into_error(attempt, StopReason::Deadline, None))
    }
}

/// No timer.
#[doc(hidden)]
#[derive(Debug, Default)]
pub struct NoLimit;

impl Limit for NoLimit {
    fn poll_passed(self: Pin<&mut Self>, _: Instant, _: Duration, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

pin_project_lite::pin_project! {
    /// A timer that is made when it is first needed.
    #[doc(hidden)]
    #[derive(Debug, Default)]
    pub struct Timer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl Limit for Timer {
    fn poll_passed(self: Pin<&mut Self>, started: Instant, timeout: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let mut sleep = self.project().sleep;
        if sleep.is_none() {
            let Some(deadline) = started.checked_add(timeout) else { return Poll::Pending };
            sleep.set(Some(sleep_until(deadline)));
        }
        match sleep.as_pin_mut() {
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}
