use std::{fmt, sync::Arc, time::Duration};

use metrics::{Counter, Histogram, counter, histogram};

use crate::cooldown::{CoolingDown, Observer};

/// Counts what a cool-down does; see the [module](crate::telemetry) for the series.
///
/// The recorder has to be installed before this is made. Calls that are neither held nor refused cost nothing more.
///
/// ```
/// use tower_tenacity::{classify, cooldown::CooldownLayer, telemetry::CooldownMetrics};
///
/// let layer = CooldownLayer::new(classify::throttled_if(classify::error_message_contains("429"))).observe(CooldownMetrics::new("gemini"));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct CooldownMetrics {
    series: Arc<Series>,
}

struct Series {
    cooldown: &'static str,
    waits: Counter,
    refused: Counter,
    exhausted: Counter,
    wait: Histogram,
}

impl CooldownMetrics {
    /// Counts under the label `cooldown`, a name of your choice: one per layer, whatever keys it has.
    #[must_use]
    pub fn new(cooldown: &'static str) -> Self {
        let series = Series {
            cooldown,
            waits: counter!("tower_tenacity_cooldown_waits_total", "cooldown" => cooldown),
            refused: counter!("tower_tenacity_cooldown_refused_total", "cooldown" => cooldown),
            exhausted: counter!("tower_tenacity_cooldown_exhausted_total", "cooldown" => cooldown),
            wait: histogram!("tower_tenacity_cooldown_wait_seconds", "cooldown" => cooldown),
        };
        // A series that begins with its first increment hides that one from `increase`.
        for counter in [&series.waits, &series.refused, &series.exhausted] {
            counter.increment(0);
        }
        Self { series: Arc::new(series) }
    }
}

impl Observer for CooldownMetrics {
    fn closed(&self, _: Duration, exhausted: bool) {
        self.series.exhausted.increment(u64::from(exhausted));
    }

    fn waits(&self, _: Duration) {
        self.series.waits.increment(1);
    }

    fn waited(&self, time: Duration) {
        self.series.wait.record(time.as_secs_f64());
    }

    fn refused(&self, _: &CoolingDown) {
        self.series.refused.increment(1);
    }
}

impl fmt::Debug for CooldownMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CooldownMetrics").field("cooldown", &self.series.cooldown).finish_non_exhaustive()
    }
}
