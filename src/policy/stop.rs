//! When to give up.
//!
//! The conditions are tenacity's, combined with `|` (the first to be met) and `&` (all of them):
//!
//! ```
//! use std::time::Duration;
//! use tower_tenacity::{Attempt, policy::stop::{self, Stop}};
//!
//! let stop = stop::after_attempt(3) | stop::before_delay(Duration::from_secs(60));
//! let wait = Duration::from_secs(4);
//!
//! assert!(!stop.should_stop(&Attempt::new(2), wait));
//! assert!(stop.should_stop(&Attempt::new(3), wait));
//! // The next attempt would begin 61 s into the call.
//! assert!(stop.should_stop(&Attempt::new(2).with_elapsed(Duration::from_secs(57)), wait));
//! ```
//!
//! A condition of one's own implements [`Stop`] or is a closure in [`when`].

use std::{
    fmt,
    ops::{BitAnd, BitOr},
    sync::Arc,
    time::Duration,
};

use super::Attempt;

/// Decides whether a failed attempt was the last.
pub trait Stop {
    /// Whether to give up after `attempt`. `upcoming` is the wait that would come next (tenacity's
    /// `upcoming_sleep`).
    fn should_stop(&self, attempt: &Attempt, upcoming: Duration) -> bool;

    /// Whether it is certain, whatever time it is, that no attempt can follow attempt `number` (the first is 1).
    /// Nothing is copied for an attempt that is known not to come. Defaults to `false`.
    fn is_last(&self, number: u32) -> bool {
        let _ = number;
        false
    }

    /// Whether this looks at [elapsed time](Attempt::elapsed), which is zero for a policy in which nothing does.
    /// Defaults to `true`.
    fn is_timed(&self) -> bool {
        true
    }
}

/// Stops after this many attempts, the first included; 0 means one attempt, as in tenacity (`stop_after_attempt`).
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, policy::stop::{self, Stop}};
///
/// let stop = stop::after_attempt(3);
/// assert!(!stop.should_stop(&Attempt::new(2), Duration::ZERO));
/// assert!(stop.should_stop(&Attempt::new(3), Duration::ZERO));
/// assert!(stop.is_last(3));
/// ```
#[must_use]
pub const fn after_attempt(attempts: u32) -> AfterAttempt {
    AfterAttempt { attempts }
}

/// Stops once a call has taken this long (tenacity's `stop_after_delay`).
///
/// The time is looked at after an attempt, before its wait: the last attempt begins later than this by up to one
/// wait. [`before_delay`] does not overshoot.
#[must_use]
pub const fn after_delay(delay: Duration) -> AfterDelay {
    AfterDelay { delay }
}

/// Stops if the next attempt would begin at this point of the call or later (tenacity's `stop_before_delay`).
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, policy::stop::{self, Stop}};
///
/// let stop = stop::before_delay(Duration::from_secs(10));
/// let attempt = Attempt::new(1).with_elapsed(Duration::from_secs(7));
/// assert!(!stop.should_stop(&attempt, Duration::from_secs(2)));
/// assert!(stop.should_stop(&attempt, Duration::from_secs(3)));
/// ```
#[must_use]
pub const fn before_delay(delay: Duration) -> BeforeDelay {
    BeforeDelay { delay }
}

/// Never stops (tenacity's `stop_never`, and its default).
#[must_use]
pub const fn never() -> Never {
    Never
}

/// Stops when the closure says so. Any outside signal will do (tenacity's `stop_when_event_set`).
///
/// ```
/// use std::{sync::{Arc, atomic::{AtomicBool, Ordering}}, time::Duration};
/// use tower_tenacity::{Attempt, policy::stop::{self, Stop}};
///
/// let closing = Arc::new(AtomicBool::new(false));
/// let signal = Arc::clone(&closing);
/// let stop = stop::when(move |_| signal.load(Ordering::Relaxed)) | stop::after_attempt(5);
///
/// assert!(!stop.should_stop(&Attempt::new(1), Duration::ZERO));
/// closing.store(true, Ordering::Relaxed);
/// assert!(stop.should_stop(&Attempt::new(1), Duration::ZERO));
/// ```
#[must_use]
pub const fn when<F>(condition: F) -> When<F>
where
    F: Fn(&Attempt) -> bool,
{
    When { condition }
}

/// Stops after a number of attempts; made by [`after_attempt`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterAttempt {
    attempts: u32,
}

impl Stop for AfterAttempt {
    fn should_stop(&self, attempt: &Attempt, _: Duration) -> bool {
        self.is_last(attempt.number())
    }

    fn is_last(&self, number: u32) -> bool {
        number >= self.attempts
    }

    fn is_timed(&self) -> bool {
        false
    }
}

/// Stops once a call has taken long enough; made by [`after_delay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AfterDelay {
    delay: Duration,
}

impl Stop for AfterDelay {
    fn should_stop(&self, attempt: &Attempt, _: Duration) -> bool {
        attempt.elapsed() >= self.delay
    }
}

/// Stops before a wait that would take too long; made by [`before_delay`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BeforeDelay {
    delay: Duration,
}

impl Stop for BeforeDelay {
    fn should_stop(&self, attempt: &Attempt, upcoming: Duration) -> bool {
        attempt.elapsed().saturating_add(upcoming) >= self.delay
    }
}

/// Never stops; made by [`never()`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Never;

impl Stop for Never {
    fn should_stop(&self, _: &Attempt, _: Duration) -> bool {
        false
    }

    fn is_timed(&self) -> bool {
        false
    }
}

/// Stops when a closure says so; made by [`when`].
#[derive(Clone, Copy)]
pub struct When<F> {
    condition: F,
}

impl<F> fmt::Debug for When<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("When").field(&std::any::type_name::<F>()).finish()
    }
}

impl<F: Fn(&Attempt) -> bool> Stop for When<F> {
    fn should_stop(&self, attempt: &Attempt, _: Duration) -> bool {
        (self.condition)(attempt)
    }
}

/// Stops as soon as either condition is met; made by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any<A, B> {
    first: A,
    second: B,
}

impl<A: Stop, B: Stop> Stop for Any<A, B> {
    fn should_stop(&self, attempt: &Attempt, upcoming: Duration) -> bool {
        self.first.should_stop(attempt, upcoming) || self.second.should_stop(attempt, upcoming)
    }

    fn is_last(&self, number: u32) -> bool {
        self.first.is_last(number) || self.second.is_last(number)
    }

    fn is_timed(&self) -> bool {
        self.first.is_timed() || self.second.is_timed()
    }
}

/// Stops when both conditions are met; made by `&`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct All<A, B> {
    first: A,
    second: B,
}

impl<A: Stop, B: Stop> Stop for All<A, B> {
    fn should_stop(&self, attempt: &Attempt, upcoming: Duration) -> bool {
        self.first.should_stop(attempt, upcoming) && self.second.should_stop(attempt, upcoming)
    }

    fn is_last(&self, number: u32) -> bool {
        self.first.is_last(number) && self.second.is_last(number)
    }

    fn is_timed(&self) -> bool {
        self.first.is_timed() || self.second.is_timed()
    }
}

macro_rules! operators {
    ($($name:ident $(<$($param:ident),+>)?;)+) => {$(
        impl<R: Stop $($(, $param)+)?> BitOr<R> for $name $(<$($param),+>)? {
            type Output = Any<Self, R>;

            fn bitor(self, second: R) -> Self::Output {
                Any { first: self, second }
            }
        }

        impl<R: Stop $($(, $param)+)?> BitAnd<R> for $name $(<$($param),+>)? {
            type Output = All<Self, R>;

            fn bitand(self, second: R) -> Self::Output {
                All { first: self, second }
            }
        }
    )+};
}

operators! {
    AfterAttempt;
    AfterDelay;
    BeforeDelay;
    Never;
    When<F>;
    Any<A, B>;
    All<A, B>;
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<S: Stop + ?Sized> Stop for $pointer {
            fn should_stop(&self, attempt: &Attempt, upcoming: Duration) -> bool {
                (**self).should_stop(attempt, upcoming)
            }

            fn is_last(&self, number: u32) -> bool {
                (**self).is_last(number)
            }

            fn is_timed(&self) -> bool {
                (**self).is_timed()
            }
        }
    )+};
}

forward!(&S, Box<S>, Arc<S>);
