use std::{fmt, num::NonZeroU32, time::Duration};

use tokio::time::Instant;

use super::Nanos;
#[cfg(doc)]
use super::RetryPolicy;
use crate::timeout::Deadline;

/// Settings of one call that go before the policy's own; see [`RetryPolicy::per_request`].
#[derive(Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct CallOptions {
    // `MAX` while it is not set.
    pub(super) timeout: Nanos,
    pub(super) max_attempts: Option<NonZeroU32>,
    enabled: Switch,
    idempotent: Switch,
}

// Two are as wide as their neighbour: a policy is copied into every call, and padding is copied piece by piece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
enum Switch {
    Unset,
    On,
    Off,
    // On, but for one attempt only; see `limit_to_once`.
    Once,
}

impl CallOptions {
    /// Nothing set: the policy's own settings hold.
    pub const fn new() -> Self {
        Self { timeout: Nanos::MAX, max_attempts: None, enabled: Switch::Unset, idempotent: Switch::Unset }
    }

    /// At most this many attempts, the first included, in place of the policy's stop condition. As with
    /// [`stop::after_attempt`](super::stop::after_attempt), 0 means 1.
    pub const fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = Some(match NonZeroU32::new(attempts) {
            Some(attempts) => attempts,
            None => NonZeroU32::MIN,
        });
        self
    }

    /// See [`RetryPolicy::timeout`]. Where the policy has one too, the shorter counts.
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Nanos::new(timeout);
        self
    }

    /// The call may take until `deadline`. Where there is a [timeout](Self::timeout) too, the nearest counts.
    ///
    /// ```
    /// use tower_tenacity::{CallOptions, RetryPolicy, timeout::Deadline};
    ///
    /// struct Job { deadline: Deadline }
    ///
    /// let policy = RetryPolicy::new().per_request(|job: &Job| CallOptions::new().deadline(job.deadline));
    /// # let _ = policy;
    /// ```
    pub fn deadline(mut self, deadline: Deadline) -> Self {
        self.timeout = self.timeout.min(Nanos::new(deadline.time_left(Instant::now())));
        self
    }

    /// See [`RetryPolicy::enabled`].
    pub const fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = if enabled { Switch::On } else { Switch::Off };
        self
    }

    /// See [`RetryPolicy::idempotent`].
    pub const fn idempotent(mut self, idempotent: bool) -> Self {
        self.idempotent = if idempotent { Switch::On } else { Switch::Off };
        self
    }

    #[inline]
    pub(super) const fn is_idempotent(&self) -> bool {
        !matches!(self.idempotent, Switch::Off)
    }

    #[inline]
    pub(super) const fn is_enabled(&self) -> bool {
        !matches!(self.enabled, Switch::Off)
    }

    // One attempt, hooks and all, which no later setting makes two: for requests that must never be sent again, and for
    // those that are retried further out already.
    #[cfg(feature = "http")]
    pub(super) fn limit_to_once(&mut self) {
        self.max_attempts = Some(NonZeroU32::MIN);
        if self.is_enabled() {
            self.enabled = Switch::Once;
        }
    }

    pub(super) fn overlay(&mut self, over: Self) {
        let once = matches!(self.enabled, Switch::Once);
        if over.enabled != Switch::Unset && !(once && over.enabled == Switch::On) {
            self.enabled = over.enabled;
        }
        if over.idempotent != Switch::Unset {
            self.idempotent = over.idempotent;
        }
        if !once {
            self.max_attempts = over.max_attempts.or(self.max_attempts);
        }
        self.timeout = self.timeout.min(over.timeout);
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
            .field("enabled", &self.enabled)
            .field("idempotent", &self.idempotent)
            .field("max_attempts", &self.max_attempts)
            .field("timeout", &self.timeout.limit())
            .finish()
    }
}
