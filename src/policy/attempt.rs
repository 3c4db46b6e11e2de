use std::time::Duration;

use tokio::time::Instant;

use super::Nanos;
#[cfg(feature = "http")]
use crate::timeout::Deadline;

/// One attempt of a call, as everything that decides sees it. Times are kept up to 584 years, to the nanosecond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    number: u32,
    elapsed: Nanos,
    waited: Nanos,
    // `MAX` for no limit.
    time_left: Nanos,
    now: Option<Instant>,
}

impl Attempt {
    /// The attempt with this number, the first being 1 (0 is read as 1), in a call that has only begun.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        let number = if number == 0 { 1 } else { number };
        Self { number, elapsed: Nanos::ZERO, waited: Nanos::ZERO, time_left: Nanos::MAX, now: None }
    }

    /// Sets how long the call has been under way.
    #[must_use]
    pub const fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = Nanos::new(elapsed);
        self
    }

    /// Sets how much of the elapsed time was spent waiting between attempts.
    #[must_use]
    pub const fn with_waited(mut self, waited: Duration) -> Self {
        self.waited = Nanos::new(waited);
        self
    }

    /// Sets how much time is left until the call's deadline.
    #[must_use]
    pub const fn with_time_left(mut self, time_left: Option<Duration>) -> Self {
        self.time_left = match time_left {
            Some(left) => Nanos::new(left),
            None => Nanos::MAX,
        };
        self
    }

    /// Sets the moment at which this is decided about.
    #[must_use]
    pub const fn with_now(mut self, now: Instant) -> Self {
        self.now = Some(now);
        self
    }

    // As `with_waited`, from what is counted already.
    #[inline(always)]
    pub(crate) const fn with_waited_nanos(mut self, waited: Nanos) -> Self {
        self.waited = waited;
        self
    }

    /// The number of this attempt; the first is 1.
    #[must_use]
    pub const fn number(&self) -> u32 {
        self.number
    }

    /// How long the call has been under way: since the first attempt first had to wait, or failed.
    ///
    /// A call that is answered at once never reads a clock; neither does a policy that is not
    /// [timed](crate::Policy::is_timed), for which this is zero.
    #[must_use]
    pub const fn elapsed(&self) -> Duration {
        self.elapsed.get()
    }

    /// The pauses begun so far in this call, added up (tenacity's `idle_for`, which in `before_sleep` has the coming one in it already;
    /// here that is told by [`Delay`](super::hooks::Delay)).
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// The moment at which this is decided about. Where nobody said it, which is so in calls whose policies do not
    /// look at elapsed time, the clock is read now.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now.unwrap_or_else(Instant::now)
    }

    /// The moment at which the time left is over; beyond what the clock can count there is none to speak of.
    #[cfg(feature = "http")]
    pub(crate) fn deadline(&self) -> Option<Deadline> {
        self.time_left().and_then(|left| self.now().checked_add(left)).map(Deadline::at)
    }

    /// What is left of the policy's [timeout](crate::Policy::timeout), if it has one.
    #[must_use]
    pub const fn time_left(&self) -> Option<Duration> {
        self.time_left.limit()
    }
}
