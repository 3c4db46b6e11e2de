use std::{fmt, time::Duration};

use super::{
    Wait,
    number::{MAX_WAIT, duration, seconds},
};
use crate::policy::{Attempt, Random, classify::Class};

/// The same wait every time (tenacity's `wait_fixed`).
#[must_use]
pub const fn fixed(delay: Duration) -> Fixed {
    Fixed { delay }
}

/// No wait at all (tenacity's `wait_none`, and its default).
#[must_use]
pub const fn none() -> Fixed {
    fixed(Duration::ZERO)
}

/// Drawn uniformly between `min` and `max` (tenacity's `wait_random`, where they default to 0 and 1 s). The bounds may
/// come in either order, as they may there.
#[must_use]
pub const fn random(min: Duration, max: Duration) -> RandomBetween {
    RandomBetween { min, max }
}

/// Grows, or shrinks, by the same amount from attempt to attempt (tenacity's `wait_incrementing`): after attempt `n`, the first
/// being 1, `max(0, min(start + increment · (n − 1), max))`.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Random, classify::Class, policy::wait::{self, Wait}};
///
/// let wait = wait::incrementing().start(Duration::from_secs(10)).decrement(Duration::from_secs(4));
/// let failed: Result<(), ()> = Err(());
/// let seconds = [1, 2, 3, 4].map(|number| {
///     wait.delay(&Attempt::new(number), Class::transient(), &failed, &mut Random::from_thread()).as_secs()
/// });
/// assert_eq!(seconds, [10, 6, 2, 0]);
/// ```
#[must_use]
pub const fn incrementing() -> Incrementing {
    Incrementing { start: Duration::ZERO, step: Duration::from_secs(100), max: MAX_WAIT, shrinks: false }
}

/// Whatever the closure makes of the attempt and its outcome (tenacity's `wait_exception`, or any function given as
/// `wait`).
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::policy::wait;
///
/// # #[derive(Debug)]
/// struct Busy { for_seconds: u64 }
///
/// let wait = wait::from_outcome(|_, outcome: &Result<String, Busy>| match outcome {
///     Err(busy) => Duration::from_secs(busy.for_seconds),
///     Ok(_) => Duration::from_secs(1),
/// });
/// # use wait::Wait;
/// # use tower_tenacity::{Attempt, Random, classify::Class};
/// # let delay = wait.delay(
/// #     &Attempt::new(1), Class::transient(), &Err(Busy { for_seconds: 7 }), &mut Random::from_thread());
/// # assert_eq!(delay, Duration::from_secs(7));
/// ```
#[must_use]
pub const fn from_outcome<Res, E, F>(f: F) -> FromOutcome<F>
where
    F: Fn(&Attempt, &Result<Res, E>) -> Duration,
{
    FromOutcome { f }
}

/// The same wait every time; made by [`fixed`] and [`none`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    delay: Duration,
}

impl<Res, E> Wait<Res, E> for Fixed {
    fn delay(&self, _: &Attempt, _: Class, _: &Result<Res, E>, _: &mut Random) -> Duration {
        self.delay
    }
}

/// A wait between two bounds; made by [`random()`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RandomBetween {
    min: Duration,
    max: Duration,
}

impl<Res, E> Wait<Res, E> for RandomBetween {
    fn delay(&self, _: &Attempt, _: Class, _: &Result<Res, E>, random: &mut Random) -> Duration {
        random.between(self.min.min(self.max), self.max.max(self.min))
    }
}

/// A wait that grows or shrinks evenly; made by [`incrementing`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incrementing {
    start: Duration,
    step: Duration,
    max: Duration,
    shrinks: bool,
}

impl Incrementing {
    /// Sets the first wait. Defaults to zero.
    #[must_use]
    pub const fn start(mut self, start: Duration) -> Self {
        self.start = start;
        self
    }

    /// Sets by how much each wait is longer than the one before. Defaults to 100 s.
    #[must_use]
    pub const fn increment(mut self, increment: Duration) -> Self {
        self.step = increment;
        self.shrinks = false;
        self
    }

    /// Sets by how much each wait is shorter than the one before: a negative `increment` in tenacity.
    #[must_use]
    pub const fn decrement(mut self, decrement: Duration) -> Self {
        self.step = decrement;
        self.shrinks = true;
        self
    }

    /// Sets the longest wait. Defaults to 2⁶² s, which is tenacity's `sys.maxsize / 2`.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = max;
        self
    }
}

impl Default for Incrementing {
    fn default() -> Self {
        incrementing()
    }
}

impl<Res, E> Wait<Res, E> for Incrementing {
    fn delay(&self, attempt: &Attempt, _: Class, _: &Result<Res, E>, _: &mut Random) -> Duration {
        let step = if self.shrinks { -seconds(self.step) } else { seconds(self.step) };
        duration(seconds(self.start) + step * f64::from(attempt.number() - 1)).min(self.max)
    }
}

/// A wait decided by a closure; made by [`from_outcome`].
#[derive(Clone, Copy)]
pub struct FromOutcome<F> {
    f: F,
}

impl<F> fmt::Debug for FromOutcome<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FromOutcome").field(&std::any::type_name::<F>()).finish()
    }
}

impl<Res, E, F> Wait<Res, E> for FromOutcome<F>
where
    F: Fn(&Attempt, &Result<Res, E>) -> Duration,
{
    fn delay(&self, attempt: &Attempt, _: Class, outcome: &Result<Res, E>, _: &mut Random) -> Duration {
        (self.f)(attempt, outcome)
    }

    fn is_timed(&self) -> bool {
        true
    }
}
