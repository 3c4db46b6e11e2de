//! How long to wait.
//!
//! tenacity's waits under tenacity's names and with its numbers ([`exponential`], [`random_exponential`],
//! [`exponential_jitter`], [`incrementing`], [`random()`], [`fixed`], [`none`], [`chain`], `+`), and one of our own,
//! [`floored_jitter`], which is the default. [Full](Exponential::full_jitter) and
//! [equal](Exponential::equal_jitter) jitter can be put on any of them.
//!
//! ```
//! use std::time::Duration;
//! use tower_tenacity::policy::wait;
//!
//! let seconds = Duration::from_secs;
//! // 0 to 1, 0 to 2, 0 to 4, … 0 to 10 seconds.
//! let wait = wait::exponential().max(seconds(10)).full_jitter();
//! // tenacity: wait_fixed(3) + wait_random(0, 2)
//! let wait = wait::fixed(seconds(3)) + wait::random(Duration::ZERO, seconds(2));
//! ```

mod basic;
mod combine;
mod exponential;
mod floored;
mod number;

use std::{sync::Arc, time::Duration};

pub use basic::{Fixed, FromOutcome, Incrementing, RandomBetween, fixed, from_outcome, incrementing, none, random};
pub use combine::{Chain, EqualJitter, FullJitter, Seeded, Sum, Then, chain};
pub use exponential::{
    Exponential, ExponentialJitter, RandomExponential, exponential, exponential_jitter, random_exponential,
};
pub use floored::{FlooredJitter, floored_jitter};
pub use number::InvalidWait;

use super::{Attempt, Random, classify::Class};

/// Decides how long to wait before the next attempt.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Random, classify::Class, policy::wait::Wait};
///
/// /// A second per attempt so far, none at all when throttled.
/// struct Linear;
///
/// impl<Res, E> Wait<Res, E> for Linear {
///     fn delay(&self, attempt: &Attempt, class: Class, _: &Result<Res, E>, _: &mut Random) -> Duration {
///         match class {
///             Class::Throttled { .. } => Duration::ZERO,
///             _ => Duration::from_secs(attempt.number().into()),
///         }
///     }
/// }
/// ```
pub trait Wait<Res, E> {
    /// The pause after `attempt`, which ended with `outcome` and was found to be of this class.
    fn delay(&self, attempt: &Attempt, class: Class, outcome: &Result<Res, E>, random: &mut Random) -> Duration;

    /// Whether this looks at [elapsed time](Attempt::elapsed), which is zero for a policy in which nothing does.
    /// Defaults to `false`.
    fn is_timed(&self) -> bool {
        false
    }

    /// The randomness for one decision. A wait with a seed answers with the next stream of that seed; the
    /// default is chance, for which nothing is set up before the first draw.
    fn random(&self) -> Random {
        Random::from_thread()
    }
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<Res, E, W: Wait<Res, E> + ?Sized> Wait<Res, E> for $pointer {
            fn delay(
                &self,
                attempt: &Attempt,
                class: Class,
                outcome: &Result<Res, E>,
                random: &mut Random,
            ) -> Duration {
                (**self).delay(attempt, class, outcome, random)
            }

            fn is_timed(&self) -> bool {
                (**self).is_timed()
            }

            fn random(&self) -> Random {
                (**self).random()
            }
        }
    )+};
}

forward!(&W, Box<W>, Arc<W>);
