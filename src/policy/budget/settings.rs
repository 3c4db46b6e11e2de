use std::{fmt, time::Duration};

use crate::policy::Nanos;

/// A setting of a budget that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InvalidBudget {
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    Ratio(f64),
    Window(Duration),
}

impl fmt::Display for InvalidBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Ratio(ratio) => write!(f, "the ratio of a budget must be between 0 and 1, not {ratio}"),
            Kind::Window(window) => write!(f, "the window of a budget must be a second or more, not {window:?}"),
        }
    }
}

impl std::error::Error for InvalidBudget {}

/// How much a budget allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    // In billionths, so that a ratio of 0.7 is 700 retries per 1000 successes and not 699.
    ratio: u32,
    reserve: u32,
    window: Nanos,
}

const WHOLE: u32 = 1_000_000_000;
// Shorter ones would have slots so short that their numbers run out within a few years.
const SHORTEST: Duration = Duration::from_secs(1);

impl Settings {
    pub(super) const fn new(billionths: u32, reserve: u32) -> Self {
        Self { ratio: billionths, reserve, window: Nanos::new(Duration::from_secs(60)) }
    }

    pub(super) fn with_ratio(self, ratio: f64) -> Result<Self, InvalidBudget> {
        if !(0.0..=1.0).contains(&ratio) {
            return Err(InvalidBudget { kind: Kind::Ratio(ratio) });
        }
        Ok(Self { ratio: (ratio * f64::from(WHOLE)).round() as u32, ..self })
    }

    pub(super) fn with_window(self, window: Duration) -> Result<Self, InvalidBudget> {
        if window < SHORTEST {
            return Err(InvalidBudget { kind: Kind::Window(window) });
        }
        Ok(Self { window: Nanos::new(window), ..self })
    }

    pub(super) const fn with_reserve(self, reserve: u32) -> Self {
        Self { reserve, ..self }
    }

    pub(super) fn describe(&self, f: &mut fmt::DebugStruct<'_, '_>) -> fmt::Result {
        f.field("ratio", &(f64::from(self.ratio) / f64::from(WHOLE)))
            .field("window", &self.window())
            .field("reserve", &self.reserve)
            .finish_non_exhaustive()
    }

    pub(super) const fn window(&self) -> Duration {
        self.window.get()
    }

    /// How many retries a window with that many successes may see, and how many of them in any tenth of it.
    pub(super) fn allowances(&self, successes: u64) -> (u64, u64) {
        let earned = u128::from(successes) * u128::from(self.ratio) / u128::from(WHOLE);
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        let with_reserve = |retries: u64| retries.saturating_add(u64::from(self.reserve));
        (with_reserve(earned), with_reserve(earned.div_ceil(2)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_what_it_says_to_the_last_retry() {
        for thousandths in 0..=1000_u32 {
            let settings = Settings::new(0, 0).with_ratio(f64::from(thousandths) / 1000.0).unwrap();
            assert_eq!(settings.allowances(1000).0, u64::from(thousandths));
            assert_eq!(settings.allowances(1_000_000).0, u64::from(thousandths) * 1000);
        }
        assert_eq!(Settings::new(100_000_000, 2).allowances(9), (2, 2));
        assert_eq!(Settings::new(100_000_000, 2).allowances(10), (3, 3));
        assert_eq!(Settings::new(100_000_000, 2).allowances(20), (4, 3));
        assert_eq!(Settings::new(100_000_000, 2).allowances(50), (7, 5));
        assert_eq!(Settings::new(WHOLE, u32::MAX).allowances(u64::MAX), (u64::MAX, (1 << 63) + u64::from(u32::MAX)));
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        let settings = Settings::new(0, 0);
        for ratio in [-0.1, 1.000_001, f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -f64::MIN_POSITIVE] {
            let error = settings.with_ratio(ratio).unwrap_err();
            assert_eq!(error.to_string(), format!("the ratio of a budget must be between 0 and 1, not {ratio}"));
        }
        for ratio in [0.0, -0.0, 1.0, f64::MIN_POSITIVE, 0.3] {
            assert!(settings.with_ratio(ratio).is_ok());
        }
        let error = settings.with_window(Duration::from_millis(999)).unwrap_err();
        assert_eq!(error.to_string(), "the window of a budget must be a second or more, not 999ms");
        assert!(settings.with_window(Duration::ZERO).is_err());
        assert!(settings.with_window(Duration::from_secs(1)).is_ok());
        assert!(settings.with_window(Duration::MAX).is_ok());
    }
}
