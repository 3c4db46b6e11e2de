mod breaker;
mod cooldown;

pub use breaker::BreakerMetrics;
pub use cooldown::CooldownMetrics;

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use crate::{
    hooks::{Delay, Observer},
    policy::{Attempt, StopReason, budget::Budget, classify::Class},
};

/// Counts what a policy does; see the [module](super) for the series.
///
/// The recorder has to be installed before this is made, as series are registered once and not per call. Counting takes a few shared
/// writes per call, which a policy without it does not.
///
/// ```
/// use tower_tenacity::{RetryPolicy, telemetry::Metrics};
///
/// let policy = RetryPolicy::new().observe(Metrics::new("prices"));
/// # let _ = policy;
/// ```
pub struct Metrics {
    series: Arc<Series>,
    // Whether the call that this copy belongs to is under way.
    running: AtomicBool,
}

struct Series {
    policy: &'static str,
    success: Counter,
    dropped: Counter,
    attempts: Counter,
    transient: Counter,
    unsent: Counter,
    throttled: Counter,
    delay: Histogram,
    budget: Option<(Budget, Gauge)>,
}

// Registered from the start: a series that begins with its first increment hides that one from `increase`.
const REASONS: [StopReason; 9] = [
    StopReason::Permanent,
    StopReason::Exhausted,
    StopReason::Deadline,
    StopReason::ServerDelay { asked: std::time::Duration::ZERO },
    StopReason::HeldBack { delay: std::time::Duration::ZERO },
    StopReason::NotReplayable,
    StopReason::NotIdempotent,
    StopReason::Budget,
    StopReason::NotReady,
];

impl Metrics {
    /// Counts under the label `policy`, a name of your choice: one per policy, not one per request.
    #[must_use]
    pub fn new(policy: &'static str) -> Self {
        Self::with_budget(policy, None)
    }

    /// Also shows the balance of `budget` whenever a retry was decided, or suppressed.
    ///
    /// Budgets [per key](crate::policy::budget::KeyedBudget) have no balance that is shown: it would be a series for each key. What they
    /// refuse is counted, as what any budget does, among the suppressed retries, and the balance of a key that matters is read by
    /// [`get`](crate::policy::budget::KeyedBudget::get).
    #[must_use]
    pub fn budget(self, budget: &Budget) -> Self {
        Self::with_budget(self.series.policy, Some(budget.clone()))
    }

    fn with_budget(policy: &'static str, budget: Option<Budget>) -> Self {
        let retries =
            |class: &'static str| counter!("tower_tenacity_retries_total", "policy" => policy, "class" => class);
        let series = Series {
            policy,
            success: calls(policy, "success"),
            dropped: calls(policy, "dropped"),
            attempts: counter!("tower_tenacity_attempts_total", "policy" => policy),
            transient: retries(Class::transient().name()),
            unsent: retries(Class::unsent().name()),
            throttled: retries(Class::throttled(None).name()),
            delay: histogram!("tower_tenacity_retry_delay_seconds", "policy" => policy),
            budget: budget.map(|budget| (budget, gauge!("tower_tenacity_budget_balance", "policy" => policy))),
        };
        for reason in REASONS {
            calls(policy, reason.name()).increment(0);
            if reason != StopReason::Permanent && reason != StopReason::NotReady {
                suppressed(policy, reason.name()).increment(0);
            }
        }
        Self { series: Arc::new(series), running: AtomicBool::new(false) }
    }

    fn ended(&self, outcome: &'static str) {
        self.running.store(false, Relaxed);
        calls(self.series.policy, outcome).increment(1);
    }

    fn show_budget(&self, attempt: &Attempt) {
        if let Some((budget, gauge)) = &self.series.budget {
            gauge.set(budget.available(attempt.now()) as f64);
        }
    }
}

fn calls(policy: &'static str, outcome: &'static str) -> Counter {
    counter!("tower_tenacity_calls_total", "policy" => policy, "outcome" => outcome)
}

fn suppressed(policy: &'static str, reason: &'static str) -> Counter {
    counter!("tower_tenacity_retries_suppressed_total", "policy" => policy, "reason" => reason)
}

impl Clone for Metrics {
    /// Counts in the same series, for another call.
    fn clone(&self) -> Self {
        Self { series: self.series.clone(), running: AtomicBool::new(false) }
    }
}

impl Drop for Metrics {
    fn drop(&mut self) {
        if *self.running.get_mut() {
            self.series.dropped.increment(1);
        }
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("policy", &self.series.policy).finish_non_exhaustive()
    }
}

impl<Res, E> Observer<Res, E> for Metrics {
    fn before_attempt(&self, _: &Attempt) {
        self.running.store(true, Relaxed);
        self.series.attempts.increment(1);
    }

    fn before_sleep(&self, attempt: &Attempt, _: &Result<Res, E>, delay: &Delay) {
        match delay.class() {
            Class::Throttled { .. } => self.series.throttled.increment(1),
            Class::Unsent { .. } => self.series.unsent.increment(1),
            _ => self.series.transient.increment(1),
        }
        self.series.delay.record(delay.duration().as_secs_f64());
        self.show_budget(attempt);
    }

    fn gave_up(&self, attempt: &Attempt, _: &Result<Res, E>, reason: StopReason) {
        if reason != StopReason::Permanent {
            suppressed(self.series.policy, reason.name()).increment(1);
        }
        self.show_budget(attempt);
        self.ended(reason.name());
    }

    fn not_ready(&self, _: &Attempt, _: &E) {
        self.ended(StopReason::NotReady.name());
    }

    fn timed_out(&self, _: &Attempt) {
        self.ended(StopReason::Deadline.name());
    }

    fn succeeded(&self, _: &Attempt, _: &Result<Res, E>) {
        self.running.store(false, Relaxed);
        self.series.success.increment(1);
    }
}
