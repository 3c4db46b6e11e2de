use std::{fmt, sync::Arc, time::Duration};

use super::{State, shared::Shared, state::Force, window::Counts};

/// A look at a circuit, and a hand on it. All handles, services and layers of one circuit share it.
///
/// ```
/// use tower::{BoxError, Service, ServiceExt, service_fn};
/// use tower_layer::Layer;
/// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, CircuitOpen, State};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new());
/// let handle = breaker.handle();
/// let mut service = breaker.layer(service_fn(|number: u32| async move {
///     if number % 4 > 0 { Ok(number) } else { Err("divisible") }
/// }));
///
/// for number in 1..=8 {
///     let _ = service.ready().await?.call(number).await;
/// }
/// assert_eq!(handle.state(), State::Closed);
/// assert_eq!(handle.status().failure_rate(), Some(0.25));
///
/// handle.force_open();   // maintenance
/// let error = service.ready().await?.call(1).await.unwrap_err();
/// assert_eq!(CircuitOpen::find(&*error).unwrap().retry_after(), None);
///
/// handle.reset();
/// assert_eq!(service.ready().await?.call(1).await?, 1);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Handle(Arc<Shared>);

impl Handle {
    pub(super) const fn new(circuit: Arc<Shared>) -> Self {
        Self(circuit)
    }

    /// What the circuit does with calls. An open circuit becomes half-open with the first call after its time, not before.
    #[must_use]
    pub fn state(&self) -> State {
        self.status().state
    }

    /// The state, what is counted, and how long until the next probe, all of one moment.
    #[must_use]
    pub fn status(&self) -> Status {
        let (state, counts, until_probe) = self.0.look();
        Status { state, counts, until_probe }
    }

    /// Refuses all calls until [`reset`](Self::reset): for maintenance, and for tests of what happens then.
    pub fn force_open(&self) {
        self.0.force(Some(Force::Open));
    }

    /// Lets all calls pass until [`reset`](Self::reset). They are counted, so that one can see what the breaker would go by.
    pub fn force_closed(&self) {
        self.0.force(Some(Force::Closed));
    }

    /// Lets all calls pass until [`reset`](Self::reset), and does not even look at them.
    pub fn disable(&self) {
        self.0.force(Some(Force::Disabled));
    }

    /// Closes the circuit with nothing counted and lets it decide for itself again, whatever its state.
    pub fn reset(&self) {
        self.0.force(None);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.status()).finish()
    }
}

/// A circuit at one moment; see [`Handle::status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    state: State,
    counts: Counts,
    until_probe: Option<Duration>,
}

impl Status {
    /// What the circuit does with calls.
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// How many calls are in the window. Of an open circuit, those that opened it, as far as they are young enough.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.counts.calls
    }

    /// How many of them failed.
    #[must_use]
    pub const fn failures(&self) -> u64 {
        self.counts.failed
    }

    /// How many of them were [slow](super::BreakerPolicy::slow_calls).
    #[must_use]
    pub const fn slow_calls(&self) -> u64 {
        self.counts.slow
    }

    /// The share of them that failed, from 0 to 1; `None` if there are none.
    #[must_use]
    pub fn failure_rate(&self) -> Option<f64> {
        self.share(self.counts.failed)
    }

    /// The share of them that were slow, from 0 to 1; `None` if there are none.
    #[must_use]
    pub fn slow_call_rate(&self) -> Option<f64> {
        self.share(self.counts.slow)
    }

    /// How long until an open circuit lets a probe through: zero if the next call is one. `None` in all other states.
    #[must_use]
    pub const fn until_probe(&self) -> Option<Duration> {
        self.until_probe
    }

    fn share(&self, of: u64) -> Option<f64> {
        (self.counts.calls > 0).then(|| of as f64 / self.counts.calls as f64)
    }
}
