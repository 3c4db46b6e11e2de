use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use metrics::{Counter, Gauge, counter, gauge};

use crate::circuit_breaker::{CircuitOpen, Observer, State};

/// Shows the state of a circuit breaker and counts its refusals; see the [module](crate::telemetry) for the series.
///
/// The recorder has to be installed before this is made. Calls that pass cost nothing more.
///
/// ```
/// use tower_tenacity::{circuit_breaker::{BreakerPolicy, CircuitBreakerLayer}, telemetry::BreakerMetrics};
///
/// let layer = CircuitBreakerLayer::new(BreakerPolicy::new()).observe(BreakerMetrics::new("prices"));
/// # let _ = layer;
/// ```
#[derive(Clone)]
pub struct BreakerMetrics {
    series: Arc<Series>,
}

struct Series {
    breaker: &'static str,
    refused: Counter,
    // Under the lock, so that the last to look at the numbers is the last to show them.
    state: Mutex<Shown>,
}

struct Shown {
    open: u64,
    half_open: u64,
    gauge: Gauge,
}

impl BreakerMetrics {
    /// Counts under the label `breaker`, a name of your choice: one per layer, whatever [keys](crate::circuit_breaker::CircuitBreakerLayer::per)
    /// it has. Of many circuits the worst state is shown.
    #[must_use]
    pub fn new(breaker: &'static str) -> Self {
        let gauge = gauge!("tower_tenacity_breaker_state", "breaker" => breaker);
        let refused = counter!("tower_tenacity_breaker_refused_total", "breaker" => breaker);
        // A series that begins with its first increment hides that one from `increase`.
        refused.increment(0);
        gauge.set(0.0);
        let state = Mutex::new(Shown { open: 0, half_open: 0, gauge });
        Self { series: Arc::new(Series { breaker, refused, state }) }
    }

    fn moved(&self, from: State, to: Option<State>) {
        let mut shown = self.series.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(number) = shown.number(from) {
            // What was so before this began to look was not counted.
            *number = number.saturating_sub(1);
        }
        if let Some(number) = to.and_then(|to| shown.number(to)) {
            *number += 1;
        }
        let worst = match (shown.open, shown.half_open) {
            (1.., _) => 1.0,
            (0, 1..) => 0.5,
            (0, 0) => 0.0,
        };
        shown.gauge.set(worst);
    }
}

impl Shown {
    // How many circuits are in this state, if calls do not flow in it.
    const fn number(&mut self, state: State) -> Option<&mut u64> {
        match state {
            State::Open | State::ForcedOpen => Some(&mut self.open),
            State::HalfOpen => Some(&mut self.half_open),
            State::Closed | State::ForcedClosed | State::Disabled => None,
        }
    }
}

impl Observer for BreakerMetrics {
    fn changed(&self, from: State, to: State) {
        self.moved(from, Some(to));
    }

    fn refused(&self, _: &CircuitOpen) {
        self.series.refused.increment(1);
    }

    fn gone(&self, state: State) {
        self.moved(state, None);
    }
}

impl fmt::Debug for BreakerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BreakerMetrics").field("breaker", &self.series.breaker).finish_non_exhaustive()
    }
}
