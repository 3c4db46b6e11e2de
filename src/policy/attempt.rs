use std::time::Duration;

/// One attempt of a call, as everything that decides sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempt {
    number: u32,
    elapsed: Duration,
    waited: Duration,
    time_left: Option<Duration>,
}

impl Attempt {
    /// The attempt with this number, the first being 1 (0 is read as 1), in a call that has only begun.
    #[must_use]
    pub const fn new(number: u32) -> Self {
        let number = if number == 0 { 1 } else { number };
        Self { number, elapsed: Duration::ZERO, waited: Duration::ZERO, time_left: None }
    }

    /// Sets how long the call has been under way.
    #[must_use]
    pub const fn with_elapsed(mut self, elapsed: Duration) -> Self {
        self.elapsed = elapsed;
        self
    }

    /// Sets how much of the elapsed time was spent waiting between attempts.
    #[must_use]
    pub const fn with_waited(mut self, waited: Duration) -> Self {
        self.waited = waited;
        self
    }

    /// Sets how much time is left until the call's deadline.
    #[must_use]
    pub const fn with_time_left(mut self, time_left: Option<Duration>) -> Self {
        self.time_left = time_left;
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
        self.elapsed
    }

    /// The pauses decided so far in this call, added up (tenacity's `idle_for`).
    #[must_use]
    pub const fn waited(&self) -> Duration {
        self.waited
    }

    /// What is left of the policy's [timeout](crate::Policy::timeout), if it has one.
    #[must_use]
    pub const fn time_left(&self) -> Option<Duration> {
        self.time_left
    }
}
