//! tenacity's arithmetic: seconds as `f64`, rounded to the nanosecond at the end.

use std::{fmt, time::Duration};

/// `sys.maxsize / 2` seconds, tenacity's "no maximum".
pub(super) const MAX_WAIT: Duration = Duration::from_secs(1 << 62);

/// A setting of a wait that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InvalidWait {
    exp_base: f64,
}

impl fmt::Display for InvalidWait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the base of an exponential wait must be finite and above zero, not {}", self.exp_base)
    }
}

impl std::error::Error for InvalidWait {}

/// A base that a power can be taken of.
pub(super) fn checked_base(exp_base: f64) -> Result<f64, InvalidWait> {
    if exp_base.is_finite() && exp_base > 0.0 { Ok(exp_base) } else { Err(InvalidWait { exp_base }) }
}

/// The float nearest to this many seconds, which is the one a Python literal gives.
pub(super) fn seconds(duration: Duration) -> f64 {
    let nanos = duration.as_nanos();
    if nanos < 1 << 53 {
        // Exact so far, hence rounded once.
        nanos as f64 / 1e9
    } else {
        duration.as_secs_f64()
    }
}

/// Rounds to the nanosecond; what is too long becomes the longest duration, what is negative zero.
pub(super) fn duration(seconds: f64) -> Duration {
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) } else { Duration::ZERO }
}

/// `multiplier * base ** exponent`.
pub(super) fn power(multiplier: Duration, base: f64, exponent: u32) -> Duration {
    if multiplier.is_zero() {
        // Also where the power is infinite: tenacity multiplies integers there.
        return Duration::ZERO;
    }
    let power = if base == 2.0 && exponent < 1024 {
        // Exact, and no call of a library function.
        f64::from_bits(u64::from(1023 + exponent) << 52)
    } else {
        // Not `powi`: Python's `**` is C's `pow`.
        base.powf(f64::from(exponent))
    };
    duration(seconds(multiplier) * power)
}
