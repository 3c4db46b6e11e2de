use std::{fmt, num::NonZeroU32, time::Duration};

use super::window::Span;
use crate::policy::Random;

/// The longest window of calls. One of them takes a byte.
const MOST_CALLS: u32 = 1_000_000;

/// When a circuit opens, for how long, and what closes it again. A plain value, which says nothing about any one circuit.
///
/// | setting | default | why |
/// |---|---|---|
/// | [`failure_rate`](Self::failure_rate) | 0.5 | what fails less often than that is better [retried](crate::retry), within bounds |
/// | [`minimum_calls`](Self::minimum_calls) | 20 | the fewest of which half is more than bad luck: at 10 % of failures one window in 140,000 |
/// | [`window_time`](Self::window_time) | 10 s | opens within 5 s of a total outage; two calls a second are enough to be judged |
/// | [`slow_calls`](Self::slow_calls) | off | what is slow is known only to you |
/// | [`consecutive_failures`](Self::consecutive_failures) | off | says nothing about a busy service, where ten failures in a row are soon met |
/// | [`probes`](Self::probes) | 3 | one lucky or unlucky call does not decide |
/// | [`open_time`](Self::open_time) | 10 s | half to all of it: Polly's 5 s is the least of it |
/// | [`open_growth`](Self::open_growth) | 2 | a service that is down for long is asked ever less often |
/// | [`max_open_time`](Self::max_open_time) | 60 s | what resilience4j waits every time |
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::circuit_breaker::{BreakerPolicy, InvalidBreaker};
///
/// # fn main() -> Result<(), InvalidBreaker> {
/// let policy = BreakerPolicy::new()
///     .failure_rate(0.6)?
///     .window_calls(100)?
///     .slow_calls(Duration::from_secs(2), 0.9)?
///     .open_time(Duration::from_secs(5))?;
/// assert!(BreakerPolicy::new().failure_rate(60.0).is_err());
/// # let _ = policy; Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use]
pub struct BreakerPolicy {
    pub(super) span: Span,
    minimum: u32,
    pub(super) failure_rate: Option<f64>,
    pub(super) slow: Option<SlowCalls>,
    pub(super) consecutive: Option<NonZeroU32>,
    pub(super) probes: u32,
    open: Duration,
    growth: f64,
    max_open: Duration,
    seed: Option<u64>,
}

/// From when on a call is slow, and which share of such calls is too much.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct SlowCalls {
    pub(super) after: Duration,
    pub(super) rate: f64,
}

impl BreakerPolicy {
    /// Opens at half of at least 20 calls within 10 s, for 5 to 10 s at first and 30 to 60 s in the end; three probes
    /// decide whether it closes. The [table](Self) says why.
    pub const fn new() -> Self {
        Self {
            span: Span::Time(Duration::from_secs(10)),
            minimum: 20,
            failure_rate: Some(0.5),
            slow: None,
            consecutive: None,
            probes: 3,
            open: Duration::from_secs(10),
            growth: 2.0,
            max_open: Duration::from_secs(60),
            seed: None,
        }
    }

    /// Opens once this share of the calls in the window failed, from 0 (any failure) to 1 (all failed). The same
    /// share of failed probes opens it again. Default: 0.5.
    ///
    /// # Errors
    ///
    /// If it is not between 0 and 1.
    pub const fn failure_rate(mut self, rate: f64) -> Result<Self, InvalidBreaker> {
        match checked_rate(rate) {
            Ok(rate) => self.failure_rate = Some(rate),
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// Takes no notice of the share of failures, only of [slow calls](Self::slow_calls) and
    /// [failures in a row](Self::consecutive_failures), if those are set. A single failed probe then opens it again.
    pub const fn without_failure_rate(mut self) -> Self {
        self.failure_rate = None;
        self
    }

    /// Opens once this share of the calls in the window took `after` or longer, from 0 (any of them) to 1 (all of them),
    /// whatever their outcome, throttled ones aside. A call whose future was dropped after that time is one of them. Default: off.
    ///
    /// Calls are timed from `call` to their outcome, which takes two readings of the clock for each.
    ///
    /// # Errors
    ///
    /// If `rate` is not between 0 and 1, or `after` is zero.
    pub const fn slow_calls(mut self, after: Duration, rate: f64) -> Result<Self, InvalidBreaker> {
        if after.is_zero() {
            return Err(InvalidBreaker::zero("the time after which a call is slow"));
        }
        match checked_rate(rate) {
            Ok(rate) => self.slow = Some(SlowCalls { after, rate }),
            Err(error) => return Err(error),
        }
        Ok(self)
    }

    /// Opens after this many failures without a success in between, however few calls there were. Default: off.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub const fn consecutive_failures(mut self, failures: u32) -> Result<Self, InvalidBreaker> {
        match NonZeroU32::new(failures) {
            Some(failures) => self.consecutive = Some(failures),
            None => return Err(InvalidBreaker::zero("the number of consecutive failures")),
        }
        Ok(self)
    }

    /// Looks at the last `calls` calls, however long ago they were. Default: [those of the last 10 s](Self::window_time).
    ///
    /// # Errors
    ///
    /// If it is zero or above 1,000,000. Each of them takes a byte.
    pub const fn window_calls(mut self, calls: u32) -> Result<Self, InvalidBreaker> {
        match calls {
            0 => return Err(InvalidBreaker::zero("the number of calls in the window")),
            1..=MOST_CALLS => self.span = Span::Calls(calls),
            _ => return Err(InvalidBreaker(Problem::TooManyCalls(calls))),
        }
        Ok(self)
    }

    /// Looks at the calls of the last `time`, however many they were. The oldest tenth is forgotten at a time, so that
    /// between nine tenths and all of it count. Default: 10 s.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub const fn window_time(mut self, time: Duration) -> Result<Self, InvalidBreaker> {
        if time.is_zero() {
            return Err(InvalidBreaker::zero("the length of the window"));
        }
        self.span = Span::Time(time);
        Ok(self)
    }

    /// No rate is looked at before there are this many calls in the window. Default: 20. In a window of fewer calls
    /// it is those.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub const fn minimum_calls(mut self, calls: u32) -> Result<Self, InvalidBreaker> {
        if calls == 0 {
            return Err(InvalidBreaker::zero("the minimum of calls"));
        }
        self.minimum = calls;
        Ok(self)
    }

    /// How many calls are let through to find out whether the service is well again. Default: 3. The circuit closes when
    /// that many were answered and not too many of them were bad, and opens as soon as they cannot
    /// be good enough any more.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub const fn probes(mut self, probes: u32) -> Result<Self, InvalidBreaker> {
        if probes == 0 {
            return Err(InvalidBreaker::zero("the number of probes"));
        }
        self.probes = probes;
        Ok(self)
    }

    /// How long it stays open at first: at most this and at least half of it, drawn uniformly, so that many clients of one
    /// service do not probe it at the same moment. Default: 10 s.
    ///
    /// # Errors
    ///
    /// If it is zero.
    pub const fn open_time(mut self, time: Duration) -> Result<Self, InvalidBreaker> {
        if time.is_zero() {
            return Err(InvalidBreaker::zero("the open time"));
        }
        self.open = time;
        Ok(self)
    }

    /// By which factor the open time grows each time the probes fail, or the circuit was closed for a shorter time than it
    /// had been open. Default: 2; 1 lets it stay the same.
    ///
    /// # Errors
    ///
    /// If it is not finite or below 1.
    pub const fn open_growth(mut self, factor: f64) -> Result<Self, InvalidBreaker> {
        if !(factor.is_finite() && factor >= 1.0) {
            return Err(InvalidBreaker(Problem::Growth(factor)));
        }
        self.growth = factor;
        Ok(self)
    }

    /// What the [open time](Self::open_time) grows to, jitter included. Default: 60 s. One below the open time
    /// itself stands for it.
    pub const fn max_open_time(mut self, time: Duration) -> Self {
        self.max_open = time;
        self
    }

    /// Draws the open times from this seed, so that they repeat exactly: the same for every circuit made from this policy.
    /// For tests and simulations. Default: from chance.
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// A window cannot hold more calls than it is long.
    pub(super) fn minimum(&self) -> u32 {
        match self.span {
            Span::Calls(length) => self.minimum.min(length),
            Span::Time(_) => self.minimum,
        }
    }

    /// How long a circuit stays open that has opened `opened` times before, `grown` of them without having been well in
    /// between.
    pub(super) fn open_for(&self, opened: u64, grown: u32, random: &mut Random) -> Duration {
        let max = self.max_open.max(self.open);
        let seconds = self.open.as_secs_f64() * self.growth.powf(f64::from(grown));
        let longest = Duration::try_from_secs_f64(seconds).unwrap_or(max).min(max).max(self.open);
        match self.seed {
            Some(seed) => Random::seeded(seed.wrapping_add(opened)).between(longest / 2, longest),
            None => random.between(longest / 2, longest),
        }
    }
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// A setting of a breaker that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InvalidBreaker(Problem);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Problem {
    Zero(&'static str),
    Rate(f64),
    Growth(f64),
    TooManyCalls(u32),
}

impl InvalidBreaker {
    const fn zero(what: &'static str) -> Self {
        Self(Problem::Zero(what))
    }
}

const fn checked_rate(rate: f64) -> Result<f64, InvalidBreaker> {
    // What is not a number is not in there either.
    if rate >= 0.0 && rate <= 1.0 { Ok(rate) } else { Err(InvalidBreaker(Problem::Rate(rate))) }
}

impl fmt::Display for InvalidBreaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Problem::Zero(what) => write!(f, "{what} must not be zero"),
            Problem::Rate(rate) => write!(f, "a rate must be between 0 and 1, not {rate}"),
            Problem::Growth(factor) => {
                write!(f, "the open time must grow by a finite factor of at least 1, not {factor}")
            }
            Problem::TooManyCalls(calls) => write!(f, "a window holds at most {MOST_CALLS} calls, not {calls}"),
        }
    }
}

impl std::error::Error for InvalidBreaker {}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(policy: BreakerPolicy, grown: u32) -> Vec<Duration> {
        (0..200).map(|opened| policy.open_for(opened, grown, &mut Random::from_thread())).collect()
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_told() {
        let new = BreakerPolicy::new;
        for (wrong, message) in [
            (new().failure_rate(f64::NAN), "a rate must be between 0 and 1, not NaN"),
            (new().failure_rate(-0.1), "a rate must be between 0 and 1, not -0.1"),
            (new().failure_rate(1.000_001), "a rate must be between 0 and 1, not 1.000001"),
            (new().slow_calls(Duration::from_secs(1), f64::INFINITY), "a rate must be between 0 and 1, not inf"),
            (new().slow_calls(Duration::ZERO, 0.5), "the time after which a call is slow must not be zero"),
            (new().consecutive_failures(0), "the number of consecutive failures must not be zero"),
            (new().window_calls(0), "the number of calls in the window must not be zero"),
            (new().window_calls(1_000_001), "a window holds at most 1000000 calls, not 1000001"),
            (new().window_time(Duration::ZERO), "the length of the window must not be zero"),
            (new().minimum_calls(0), "the minimum of calls must not be zero"),
            (new().probes(0), "the number of probes must not be zero"),
            (new().open_time(Duration::ZERO), "the open time must not be zero"),
            (new().open_growth(0.99), "the open time must grow by a finite factor of at least 1, not 0.99"),
            (new().open_growth(f64::NAN), "the open time must grow by a finite factor of at least 1, not NaN"),
            (new().open_growth(f64::INFINITY), "the open time must grow by a finite factor of at least 1, not inf"),
        ] {
            assert_eq!(wrong.expect_err(message).to_string(), message);
        }
        assert!(new().failure_rate(0.0).and_then(|policy| policy.failure_rate(1.0)).is_ok());
    }

    #[test]
    fn settings_can_be_made_at_compile_time() {
        const POLICY: BreakerPolicy = match BreakerPolicy::new().probes(5) {
            Ok(policy) => policy.without_failure_rate().max_open_time(Duration::from_secs(30)).seed(1),
            Err(_) => panic!("five probes are fine"),
        };
        assert_eq!(POLICY.probes, 5);
    }

    #[test]
    fn open_times_are_jittered_from_half_to_all_also_at_the_cap() {
        for (grown, seconds) in [(0, 10.0), (1, 20.0), (2, 40.0), (3, 60.0), (1000, 60.0), (u32::MAX, 60.0)] {
            let lengths = lengths(BreakerPolicy::new(), grown);
            let longest = Duration::from_secs_f64(seconds);
            assert!(lengths.iter().all(|length| (longest / 2..=longest).contains(length)), "{grown}: {lengths:?}");
            assert!(lengths.iter().min() < Some(&longest.mul_f64(0.55)), "{grown}");
            assert!(lengths.iter().max() > Some(&longest.mul_f64(0.95)), "{grown}");
        }
    }

    #[test]
    fn no_length_is_too_long_and_a_cap_below_the_open_time_stands_for_it() {
        let endless = BreakerPolicy::new().open_time(Duration::MAX).unwrap();
        assert!(lengths(endless, u32::MAX).iter().all(|length| *length >= Duration::MAX / 2));
        let capped = BreakerPolicy::new().max_open_time(Duration::ZERO);
        assert!(lengths(capped, 5).iter().all(|length| (5..=10).contains(&length.as_secs())));
        let steady = BreakerPolicy::new().open_growth(1.0).unwrap();
        assert!(lengths(steady, 1_000_000).iter().all(|length| (5..=10).contains(&length.as_secs())));
    }

    #[test]
    fn a_seed_repeats_itself_but_not_one_opening_after_the_other() {
        let seeded = BreakerPolicy::new().seed(7);
        assert_eq!(lengths(seeded, 0), lengths(seeded, 0));
        assert_ne!(lengths(seeded, 0), lengths(seeded.seed(8), 0));
        let mut distinct = lengths(seeded, 0);
        distinct.sort();
        distinct.dedup();
        assert_eq!(distinct.len(), 200);
    }

    #[test]
    fn a_window_cannot_hold_more_calls_than_it_is_long() {
        let policy = BreakerPolicy::new().minimum_calls(100).unwrap();
        assert_eq!(policy.window_calls(30).unwrap().minimum(), 30);
        assert_eq!(policy.window_calls(300).unwrap().minimum(), 100);
        assert_eq!(policy.minimum(), 100);
    }
}
