use std::time::Duration;

/// The randomness of one decision, handed to a [`Wait`](super::wait::Wait).
///
/// Drawn afresh from the thread's generator for every wait, so that two calls never share a sequence, or from
/// a seed, so that tests and simulations repeat exactly.
#[derive(Debug)]
pub struct Random(fastrand::Rng);

impl Random {
    /// A generator whose sequence depends on nothing but chance.
    #[must_use]
    pub fn from_thread() -> Self {
        Self(fastrand::Rng::new())
    }

    /// The generator that yields the same sequence for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self(fastrand::Rng::with_seed(seed))
    }

    /// A number drawn uniformly from `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.0.f64()
    }

    /// A duration drawn uniformly from `low..=high`, to the nanosecond; `low` if `high` is below it.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low).as_nanos();
        match u64::try_from(span) {
            Ok(u64::MAX) | Err(_) => low
                .saturating_add(
                    // Beyond 584 years the grain of a float is fine enough.
                    Duration::try_from_secs_f64(self.unit() * (high - low).as_secs_f64()).unwrap_or(Duration::MAX),
                )
                .min(high),
            Ok(span) => low + Duration::from_nanos(self.0.u64(0..=span)),
        }
    }
}
