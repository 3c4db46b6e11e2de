use std::time::Duration;

use super::{
    InvalidWait, Wait,
    number::{checked_base, power},
};
use crate::policy::{Attempt, Nanos, Random, classify::Class};

/// Full jitter with a floor, the default wait: drawn uniformly between `min` and `min(max, multiplier·base^n)` after
/// attempt `n`, the first being 1.
///
/// The ceiling is that of one attempt later than in classic full jitter, so even the first wait is spread out; the floor
/// keeps a retry from following at once. In the contention simulation of AWS's
/// [Exponential Backoff And Jitter](https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/) this takes a
/// tenth fewer calls than full jitter does, in about the same time. The cap applies before the draw, so that waits at the cap are as
/// random as others.
///
/// | after attempt | transient | throttled |
/// |---|---|---|
/// | 1 | 0.1 to 0.2 s | 1 to 2 s |
/// | 2 | 0.1 to 0.4 s | 1 to 4 s |
/// | 5 | 0.1 to 3.2 s | 1 to 20 s |
/// | 8 and later | 0.1 to 20 s | 1 to 20 s |
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Random, classify::Class, policy::wait::{self, Wait}};
///
/// let wait = wait::floored_jitter().max(Duration::from_secs(5));
/// let failed: Result<(), ()> = Err(());
/// let delay = wait.delay(&Attempt::new(40), Class::throttled(None), &failed, &mut Random::from_thread());
/// assert!(delay >= Duration::from_secs(1) && delay <= Duration::from_secs(5));
/// ```
#[must_use]
pub const fn floored_jitter() -> FlooredJitter {
    FlooredJitter {
        transient: Nanos::new(Duration::from_millis(100)),
        throttled: Nanos::new(Duration::from_secs(1)),
        min: Nanos::MAX,
        max: Nanos::new(Duration::from_secs(20)),
        exp_base: 2.0,
    }
}

/// Full jitter with a floor; made by [`floored_jitter`]. Settings are kept up to 584 years.
#[derive(Copy, Debug, PartialEq)]
pub struct FlooredJitter {
    transient: Nanos,
    throttled: Nanos,
    // `MAX` while it is not set.
    min: Nanos,
    max: Nanos,
    exp_base: f64,
}

impl FlooredJitter {
    /// Sets the multiplier for transient failures. Defaults to 100 ms.
    #[must_use]
    pub const fn transient(mut self, multiplier: Duration) -> Self {
        self.transient = Nanos::bounded(multiplier);
        self
    }

    /// Sets the multiplier for throttled calls. Defaults to 1 s: who is told to slow down should.
    #[must_use]
    pub const fn throttled(mut self, multiplier: Duration) -> Self {
        self.throttled = Nanos::bounded(multiplier);
        self
    }

    /// Sets the shortest wait, for both classes. It wins over [`max`](Self::max).
    ///
    /// Defaults to the multiplier of the class in question, but at most half the ceiling, so that there is always
    /// room for jitter. A `min` above the first ceiling leaves none: raise the multipliers instead.
    #[must_use]
    pub const fn min(mut self, min: Duration) -> Self {
        self.min = Nanos::bounded(min);
        self
    }

    /// Sets the longest wait. Defaults to 20 s, as in the AWS SDKs.
    #[must_use]
    pub const fn max(mut self, max: Duration) -> Self {
        self.max = Nanos::bounded(max);
        self
    }

    /// Sets the factor by which the ceiling grows from attempt to attempt. Defaults to 2.
    ///
    /// # Errors
    ///
    /// If it is not finite and above zero.
    pub fn exp_base(mut self, exp_base: f64) -> Result<Self, InvalidWait> {
        self.exp_base = checked_base(exp_base)?;
        Ok(self)
    }
}

// Every call has a copy of its own. Copied as one block of memory, which is what a derived `Clone` comes to, the settings
// go into the call by way of the stack; field by field they pass through registers. The sum keeps the compiler from seeing
// through that early on, and costs nothing.
#[allow(clippy::non_canonical_clone_impl)]
impl Clone for FlooredJitter {
    #[inline]
    fn clone(&self) -> Self {
        Self {
            transient: self.transient.saturating_add(Nanos::ZERO),
            throttled: self.throttled,
            min: self.min,
            max: self.max,
            exp_base: self.exp_base,
        }
    }
}

impl FlooredJitter {
    // The least and the most to wait after attempt `number`.
    fn bounds(&self, multiplier: Nanos, number: u32) -> (Duration, Duration) {
        let multiplier = multiplier.get();
        let ceiling = power(multiplier, self.exp_base, number).min(self.max.get());
        let floor = self.min.limit().unwrap_or_else(|| multiplier.min(ceiling / 2));
        (floor, ceiling)
    }

    // The same without floats, for base 2 and ceilings below 2^52 ns (52 days): so far a float of seconds is off by less
    // than half a nanosecond and comes back to the whole number it was made from.
    fn bounds_in_whole_nanos(&self, multiplier: Nanos, number: u32) -> Option<(Duration, Duration)> {
        const EXACT: u64 = 1 << 52;
        let multiplier = multiplier.whole();
        if self.exp_base != 2.0 || number >= 52 || multiplier >= EXACT >> number {
            return None;
        }
        let ceiling = (multiplier << number).min(self.max.whole());
        let floor = if self.min == Nanos::MAX { multiplier.min(ceiling / 2) } else { self.min.whole() };
        Some((Duration::from_nanos(floor), Duration::from_nanos(ceiling)))
    }
}

impl Default for FlooredJitter {
    fn default() -> Self {
        floored_jitter()
    }
}

impl<Res, E> Wait<Res, E> for FlooredJitter {
    #[inline]
    fn delay(&self, attempt: &Attempt, class: Class, _: &Result<Res, E>, random: &mut Random) -> Duration {
        let multiplier = match class {
            Class::Throttled { .. } => self.throttled,
            _ => self.transient,
        };
        if multiplier == Nanos::ZERO && self.min == Nanos::MAX {
            return Duration::ZERO;
        }
        let (floor, ceiling) = match self.bounds_in_whole_nanos(multiplier, attempt.number()) {
            Some(bounds) => bounds,
            None => self.bounds(multiplier, attempt.number()),
        };
        random.between(floor, ceiling)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn whole_nanoseconds_and_floats_agree(
            multiplier in prop_oneof![0..5_000_000_000_u64, 0..1_u64 << 52, any::<u64>()],
            min in prop_oneof![Just(None), (0..20_000_000_000_u64).prop_map(Some), any::<u64>().prop_map(Some)],
            max in prop_oneof![0..100_000_000_000_u64, any::<u64>()],
            number in prop_oneof![1..12_u32, 1..70_u32, any::<u32>()],
        ) {
            let nanos = Duration::from_nanos;
            let wait = floored_jitter().max(nanos(max));
            let wait = min.map_or(wait, |min| wait.min(nanos(min)));
            let multiplier = Nanos::bounded(nanos(multiplier));
            if let Some(bounds) = wait.bounds_in_whole_nanos(multiplier, number) {
                prop_assert_eq!(bounds, wait.bounds(multiplier, number));
            }
        }
    }

    #[test]
    fn common_waits_need_no_floats() {
        for number in 1..20 {
            assert!(floored_jitter().bounds_in_whole_nanos(Nanos::new(Duration::from_secs(1)), number).is_some());
        }
        assert!(floored_jitter().bounds_in_whole_nanos(Nanos::new(Duration::from_secs(1)), 40).is_none());
        let tripling = floored_jitter().exp_base(3.0).unwrap();
        assert!(tripling.bounds_in_whole_nanos(Nanos::new(Duration::from_secs(1)), 1).is_none());
    }
}
