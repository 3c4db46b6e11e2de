use std::{fmt, time::Duration};

use tokio::time::Instant;

use super::Nanos;
#[cfg(doc)]
use super::RetryPolicy;
use crate::timeout::Deadline;

/// Settings of one call that go before the policy's own; see [`RetryPolicy::per_request`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct CallOptions {
    // What is set, and at most how many attempts: one word, so that calls that set nothing see it at a glance and all
    // have little to copy.
    set: u64,
    timeout: Nanos,
}

const ENABLED: u64 = 1 << 0;
const DISABLED: u64 = 1 << 1;
const IDEMPOTENT: u64 = 1 << 2;
const NOT_IDEMPOTENT: u64 = 1 << 3;
const TIMEOUT: u64 = 1 << 4;
const ATTEMPTS: u64 = 1 << 5;
// One attempt, which no later setting makes two; see `limit_to_once`.
const ONCE: u64 = 1 << 6;
// A deadline is part of the timeout, which no later setting makes longer.
const DEADLINE: u64 = 1 << 7;
const MAX_ATTEMPTS: u64 = ATTEMPTS | u64::MAX << 32;

impl CallOptions {
    /// Nothing set: the policy's own settings hold.
    pub const fn new() -> Self {
        Self { set: 0, timeout: Nanos::MAX }
    }

    const fn with(mut self, set: u64, instead_of: u64) -> Self {
        self.set = self.set & !instead_of | set;
        self
    }

    /// At most this many attempts, the first included, in place of the policy's stop condition. As with
    /// [`stop::after_attempt`](super::stop::after_attempt), 0 means 1.
    pub const fn max_attempts(self, attempts: u32) -> Self {
        self.with(ATTEMPTS | (if attempts == 0 { 1 } else { attempts as u64 }) << 32, MAX_ATTEMPTS)
    }

    /// See [`RetryPolicy::timeout`]. Where the policy has one too, the shorter counts.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        let timeout = Nanos::new(timeout);
        if self.set & DEADLINE != 0 && self.timeout.whole() <= timeout.whole() {
            return self;
        }
        self.timeout = timeout;
        self.with(if self.timeout.limit().is_some() { TIMEOUT } else { 0 }, TIMEOUT)
    }

    /// The call may take until `deadline`, provided that it is polled as soon as it is made. Where there is a [timeout](Self::timeout) too, the
    /// nearest counts.
    ///
    /// ```
    /// use tower_tenacity::{CallOptions, RetryPolicy, timeout::Deadline};
    ///
    /// struct Job { deadline: Deadline }
    ///
    /// let policy = RetryPolicy::new().per_request(|job: &Job| CallOptions::new().deadline(job.deadline));
    /// # let _ = policy;
    /// ```
    pub fn deadline(self, deadline: Deadline) -> Self {
        let left = Nanos::new(deadline.time_left(Instant::now()));
        Self { timeout: self.timeout.min(left), ..self }.with(TIMEOUT | DEADLINE, TIMEOUT)
    }

    /// See [`RetryPolicy::enabled`].
    pub const fn enabled(self, enabled: bool) -> Self {
        self.with(if enabled { ENABLED } else { DISABLED }, ENABLED | DISABLED)
    }

    /// See [`RetryPolicy::idempotent`].
    pub const fn idempotent(self, idempotent: bool) -> Self {
        self.with(if idempotent { IDEMPOTENT } else { NOT_IDEMPOTENT }, IDEMPOTENT | NOT_IDEMPOTENT)
    }

    #[inline]
    pub(super) const fn is_idempotent(&self) -> bool {
        self.set & NOT_IDEMPOTENT == 0
    }

    #[inline]
    pub(super) const fn is_enabled(&self) -> bool {
        self.set & DISABLED == 0
    }

    /// Whether these leave it to the policy how often and how long a call is tried.
    #[inline]
    pub(super) const fn is_unlimited(&self) -> bool {
        self.set & (DISABLED | TIMEOUT | ATTEMPTS) == 0
    }

    // `None` while it is not set.
    const fn switch(&self, on: u64, off: u64) -> Option<bool> {
        if self.set & (on | off) == 0 { None } else { Some(self.set & on != 0) }
    }

    pub(super) const fn attempts(&self) -> Option<u32> {
        if self.set & ATTEMPTS == 0 { None } else { Some((self.set >> 32) as u32) }
    }

    // How long the call may take, if it is tried again at all.
    #[inline]
    pub(super) const fn limit(&self) -> Option<Duration> {
        if self.set & (TIMEOUT | DISABLED) == TIMEOUT { Some(self.timeout.get()) } else { None }
    }

    // One attempt, hooks and all, which no later setting makes two: for requests that must never be sent again, and for
    // those that are retried further out already.
    #[cfg_attr(not(feature = "http"), allow(dead_code))]
    pub(crate) fn limit_to_once(&mut self) {
        *self = self.max_attempts(1).with(ONCE, ONCE);
    }

    pub(super) fn overlay(&mut self, over: Self) {
        for switch in [ENABLED | DISABLED, IDEMPOTENT | NOT_IDEMPOTENT] {
            if over.set & switch != 0 {
                *self = self.with(over.set & switch, switch);
            }
        }
        if over.set & ATTEMPTS != 0 && self.set & ONCE == 0 {
            *self = self.with(over.set & MAX_ATTEMPTS, MAX_ATTEMPTS);
        }
        if over.set & TIMEOUT != 0 {
            *self =
                Self { timeout: self.timeout.min(over.timeout), ..*self }.with(TIMEOUT | over.set & DEADLINE, TIMEOUT);
        }
    }
}

impl Default for CallOptions {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallOptions")
            .field("enabled", &self.switch(ENABLED, DISABLED))
            .field("idempotent", &self.switch(IDEMPOTENT, NOT_IDEMPOTENT))
            .field("max_attempts", &self.attempts())
            .field("timeout", &self.timeout.limit())
            .finish()
    }
}
