use std::time::Duration;

/// The randomness of one decision, handed to a [`Wait`](super::wait::Wait).
///
/// Drawn afresh from the thread's generator for every wait, so that two calls never share a sequence, or from
/// a seed, so that tests and simulations repeat exactly. A decision that draws nothing pays for no generator.
#[derive(Debug)]
pub struct Random {
    /// `None` until the first draw from chance.
    rng: Option<fastrand::Rng>,
}

impl Random {
    /// A generator whose sequence depends on nothing but chance. It is set up at the first draw.
    #[must_use]
    #[inline]
    pub const fn from_thread() -> Self {
        Self { rng: None }
    }

    /// The generator that yields the same sequence for the same seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { rng: Some(fastrand::Rng::with_seed(seed)) }
    }

    /// This generator if it is seeded, else the other. Meant for generators from which nothing was drawn.
    pub(super) fn or(self, other: impl FnOnce() -> Self) -> Self {
        if self.rng.is_some() { self } else { other() }
    }

    fn rng(&mut self) -> &mut fastrand::Rng {
        self.rng.get_or_insert_with(fastrand::Rng::new)
    }

    /// A number drawn uniformly from `0.0..1.0`.
    pub fn unit(&mut self) -> f64 {
        self.rng().f64()
    }

    /// A duration drawn uniformly from `low..=high`, to the nanosecond; `low`, without a draw, if `high` is not
    /// above it.
    pub fn between(&mut self, low: Duration, high: Duration) -> Duration {
        let span = high.saturating_sub(low);
        if span.is_zero() {
            return low;
        }
        match u64::try_from(span.as_nanos()) {
            Ok(span) => low.saturating_add(Duration::from_nanos(self.rng().u64(0..=span))),
            // Beyond 584 years the grain of a float is fine enough.
            Err(_) => low
                .saturating_add(Duration::try_from_secs_f64(self.unit() * span.as_secs_f64()).unwrap_or(Duration::MAX))
                .min(high),
        }
    }
}
