use std::time::Duration;

use super::{
    InvalidWait, Wait,
    number::{MAX_WAIT, checked_base, power},
};
use crate::policy::{Attempt, Random, classify::Class};

/// Exponential backoff (tenacity's `wait_exponential`): after attempt `n`, the first being 1,
/// `max(min, min(multiplier · exp_base^(n − 1), max))`.
///
/// There is no jitter in it: callers that fail together come back together. Add some with
/// [`full_jitter`](Exponential::full_jitter) unless there is only one caller.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Random, classify::Class, policy::wait::{self, Wait}};
///
/// let wait = wait::exponential()
///     .multiplier(Duration::from_secs(2)).min(Duration::from_secs(2)).max(Duration::from_secs(100));
///
/// let failed: Result<(), ()> = Err(());
/// let seconds = [1, 2, 3, 6, 7, 1_000_000].map(|number| {
///     wait.delay(&Attempt::new(number), Class::transient(), &failed, &mut Random::from_thread()).as_secs()
/// });
/// assert_eq!(seconds, [2, 4, 8, 64, 100, 100]);
/// ```
#[must_use]
pub const fn exponential() -> Exponential {
    Exponential { multiplier: Duration::from_secs(1), exp_base: 2.0, min: Duration::ZERO, max: MAX_WAIT }
}

/// Full jitter below an exponential ceiling (tenacity's `wait_random_exponential`): drawn uniformly between `min` and
/// what [`exponential`] gives for the same settings.
///
/// While the ceiling is not above `min`, nothing is random: with `min` = `multiplier` every first retry comes at
/// the same moment. [`floored_jitter`](super::floored_jitter) does not have that flaw.
#[must_use]
pub const fn random_exponential() -> RandomExponential {
    RandomExponential { ceiling: exponential() }
}

/// Exponential backoff with a random amount added (tenacity's `wait_exponential_jitter`): after attempt `n`, the first being 1,
/// `max(min, min(multiplier · exp_base^(n − 1) + U(0, jitter), max))`.
///
/// As in tenacity, the maximum applies after the draw, so that nothing is random once it is reached.
#[must_use]
pub const fn exponential_jitter() -> ExponentialJitter {
    ExponentialJitter { exponential: exponential(), jitter: Duration::from_secs(1) }
}

/// Exponential backoff; made by [`exponential`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Exponential {
    multiplier: Duration,
    exp_base: f64,
    min: Duration,
    max: Duration,
}

impl Exponential {
    /// Before the bounds are applied.
    fn power(&self, number: u32) -> Duration {
        power(self.multiplier, self.exp_base, number.saturating_sub(1))
    }

    fn bound(&self, delay: Duration) -> Duration {
        delay.min(self.max).max(self.min)
    }

    fn after(&self, number: u32) -> Duration {
        self.bound(self.power(number))
    }
}

impl<Res, E> Wait<Res, E> for Exponential {
    fn delay(&self, attempt: &Attempt, _: Class, _: &Result<Res, E>, _: &mut Random) -> Duration {
        self.after(attempt.number())
    }
}

/// Full jitter below an exponential ceiling; made by [`random_exponential`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RandomExponential {
    ceiling: Exponential,
}

impl<Res, E> Wait<Res, E> for RandomExponential {
    fn delay(&self, attempt: &Attempt, _: Class, _: &Result<Res, E>, random: &mut Random) -> Duration {
        random.between(self.ceiling.min, self.ceiling.after(attempt.number()))
    }
}

/// Exponential backoff with a random amount added; made by [`exponential_jitter`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ExponentialJitter {
    exponential: Exponential,
    jitter: Duration,
}

impl ExponentialJitter {
    /// Sets the multiplier by its old name in tenacity; the same as [`multiplier`](Self::multiplier).
    #[must_use]
    pub const fn initial(self, initial: Duration) -> Self {
        self.multiplier(initial)
    }

    /// Sets the most that is added. Defaults to 1 s.
    #[must_use]
    pub const fn jitter(mut self, jitter: Duration) -> Self {
        self.jitter = jitter;
        self
    }
}

impl<Res, E> Wait<Res, E> for ExponentialJitter {
    fn delay(&self, attempt: &Attempt, _: Class, _: &Result<Res, E>, random: &mut Random) -> Duration {
        let power = self.exponential.power(attempt.number());
        let jitter =
            if power < self.exponential.max { random.between(Duration::ZERO, self.jitter) } else { Duration::ZERO };
        self.exponential.bound(power.saturating_add(jitter))
    }
}

macro_rules! settings {
    ($($name:ident $(in $field:ident)? = $default:ident;)+) => {$(
        impl $name {
            /// Sets what the power is multiplied with, which is the first wait. Defaults to 1 s.
            #[must_use]
            pub const fn multiplier(mut self, multiplier: Duration) -> Self {
                self $(.$field)? .multiplier = multiplier;
                self
            }

            /// Sets the factor from one attempt to the next. Defaults to 2.
            ///
            /// # Errors
            ///
            /// If it is not finite and above zero.
            pub fn exp_base(mut self, exp_base: f64) -> Result<Self, InvalidWait> {
                self $(.$field)? .exp_base = checked_base(exp_base)?;
                Ok(self)
            }

            /// Sets the shortest wait, which wins over [`max`](Self::max). Defaults to zero.
            #[must_use]
            pub const fn min(mut self, min: Duration) -> Self {
                self $(.$field)? .min = min;
                self
            }

            /// Sets the longest wait. Defaults to 2⁶² s, which is tenacity's `sys.maxsize / 2`.
            #[must_use]
            pub const fn max(mut self, max: Duration) -> Self {
                self $(.$field)? .max = max;
                self
            }
        }

        impl Default for $name {
            fn default() -> Self {
                $default()
            }
        }
    )+};
}

settings! {
    Exponential = exponential;
    RandomExponential in ceiling = random_exponential;
    ExponentialJitter in exponential = exponential_jitter;
}
