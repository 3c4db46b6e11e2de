use std::time::Duration;

/// A duration in whole nanoseconds, half the size of a [`Duration`] that holds 584 years at most. Policies are copied into
/// every call, so their settings are kept small.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Nanos(u64);

impl Nanos {
    pub(crate) const ZERO: Self = Self(0);
    /// Longer than anything lives: also "no limit".
    pub(crate) const MAX: Self = Self(u64::MAX);

    pub(crate) const fn new(duration: Duration) -> Self {
        let nanos = duration.as_nanos();
        Self(if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 })
    }

    /// The duration, or the longest one that is not taken for "no limit".
    pub(crate) const fn bounded(duration: Duration) -> Self {
        let Self(nanos) = Self::new(duration);
        Self(if nanos == u64::MAX { u64::MAX - 1 } else { nanos })
    }

    /// The duration; the longest there is for [`Nanos::MAX`].
    pub(crate) const fn get(self) -> Duration {
        if self.0 == u64::MAX { Duration::MAX } else { Duration::from_nanos(self.0) }
    }

    /// The number of nanoseconds.
    pub(crate) const fn whole(self) -> u64 {
        self.0
    }

    /// The duration, unless it stands for no limit.
    pub(crate) const fn limit(self) -> Option<Duration> {
        if self.0 == u64::MAX { None } else { Some(Duration::from_nanos(self.0)) }
    }

    pub(crate) const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_survive_up_to_584_years() {
        for duration in [Duration::ZERO, Duration::from_nanos(1), Duration::from_secs(18_446_744_073)] {
            assert_eq!(Nanos::new(duration).get(), duration);
            assert_eq!(Nanos::new(duration).limit(), Some(duration));
        }
        assert_eq!(Nanos::new(Duration::from_secs(18_446_744_074)), Nanos::MAX);
        assert_eq!((Nanos::MAX.get(), Nanos::MAX.limit()), (Duration::MAX, None));
        assert_eq!(Nanos::MAX.saturating_add(Nanos::new(Duration::from_secs(1))), Nanos::MAX);
    }
}
