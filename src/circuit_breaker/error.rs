use std::{error::Error, fmt, time::Duration};

use super::{State, state::Refusal};
use crate::{error::rounded, policy::classify};

/// A call that was refused because its circuit does not let calls through; nothing was sent.
///
/// ```
/// use std::time::Duration;
/// use tower::{BoxError, Service, ServiceExt, service_fn};
/// use tower_layer::Layer;
/// use tower_tenacity::circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, CircuitOpen, State};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// let breaker = CircuitBreakerLayer::new(BreakerPolicy::new().consecutive_failures(1)?);
/// let mut service = breaker.layer(service_fn(|_: ()| async { Err::<(), _>("out of order") }));
/// assert_eq!(service.ready().await?.call(()).await.unwrap_err().to_string(), "out of order");
///
/// let error = service.ready().await?.call(()).await.unwrap_err();
/// let open = CircuitOpen::find(&*error).unwrap();
/// assert_eq!(open.state(), State::Open);
/// assert!((5..=10).contains(&open.retry_after().unwrap().as_secs()));
/// # Ok(()) }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CircuitOpen {
    state: State,
    retry_after: Option<Duration>,
}

impl CircuitOpen {
    pub(super) const fn new(refusal: Refusal) -> Self {
        Self { state: refusal.state, retry_after: refusal.retry_after }
    }

    /// How long until the next probe is let through: the circuit is open, or half-open and pausing after dropped probes. `None` if
    /// that does not depend on time alone: all probes are under way, or it is [forced](super::Handle::force_open) open.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// In which state the circuit refused the call: [open](State::Open), [half-open](State::HalfOpen) or
    /// [forced open](State::ForcedOpen).
    #[must_use]
    pub const fn state(&self) -> State {
        self.state
    }

    /// What it means to a layer further out: nothing was sent, and another attempt may be made when the probe is due.
    pub(crate) const fn class(&self) -> classify::Class {
        classify::Class::Unsent { retry_after: self.retry_after }
    }

    /// The refusal in a chain of causes, if there is one, however many layers lie between.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        classify::causes_of(error).next()
    }
}

impl fmt::Display for CircuitOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the circuit is {}", self.state)?;
        match self.retry_after {
            Some(left) => write!(f, ", the next probe is due in {:?}", rounded(left)),
            None => Ok(()),
        }
    }
}

impl Error for CircuitOpen {}
