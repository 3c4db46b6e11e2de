use std::{error::Error, fmt, time::Duration};

use tokio::time::Instant;

use crate::{
    error::rounded,
    policy::classify::{Class, causes_of},
};

/// A call that was not made, because its quota is cooling down for longer than the call can wait; found in the boxed error of
/// a [`Cooldown`](super::Cooldown).
///
/// ```
/// use std::time::Duration;
/// use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
/// use tower_tenacity::{classify::{self, Class}, cooldown::{CooldownLayer, CoolingDown}};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let classify = classify::by(|_: &Result<(), BoxError>| Class::throttled(Some(Duration::from_secs(40))));
/// let mut service = ServiceBuilder::new()
///     .layer(CooldownLayer::new(classify).fail_fast())
///     .service_fn(|_: &str| async { Err::<(), BoxError>("429".into()) });
///
/// assert_eq!(service.ready().await.unwrap().call("one").await.unwrap_err().to_string(), "429");
/// let error = service.ready().await.unwrap().call("another").await.unwrap_err();
/// let cooling = error.downcast_ref::<CoolingDown>().unwrap();
/// assert_eq!(cooling.retry_after(), Duration::from_secs(40));
/// assert!(!cooling.is_exhausted());
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoolingDown {
    until: Instant,
    retry_after: Duration,
    exhausted: bool,
}

impl CoolingDown {
    pub(super) fn new(now: Instant, until: Instant, exhausted: bool) -> Self {
        Self { until, retry_after: until.saturating_duration_since(now), exhausted }
    }

    /// The moment before which no call passes. Where no server named one this is our guess, and one call will go
    /// first to see.
    #[must_use]
    pub const fn until(&self) -> Instant {
        self.until
    }

    /// How long that was from the moment the call was refused. Zero if the wait was over by then, but the
    /// [deadline](super::CooldownLayer::deadline) of the call as well: the clock has jumped, or the service inside was long in getting
    /// ready.
    #[must_use]
    pub const fn retry_after(&self) -> Duration {
        self.retry_after
    }

    /// Whether the quota is used up and will not be back soon, rather than called upon too often.
    #[must_use]
    pub const fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    /// The refusal in a chain of causes, if there is one, however many layers lie between.
    #[must_use]
    pub fn find<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a Self> {
        causes_of(error).next()
    }

    /// What this means to layers further out: permanent if the quota is exhausted or the deadline has passed, else throttled for as
    /// long as is left.
    #[must_use]
    pub const fn class(&self) -> Class {
        if self.exhausted || self.is_late() {
            Class::Permanent
        } else {
            Class::Throttled { retry_after: Some(self.retry_after) }
        }
    }

    const fn is_late(&self) -> bool {
        self.retry_after.is_zero()
    }
}

impl fmt::Display for CoolingDown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_late() {
            return f.write_str("held back by a rate limit until the deadline of the call had passed");
        }
        let what = if self.exhausted { "the quota is exhausted" } else { "cooling down after a rate limit" };
        write!(f, "{what}, no calls for another {:?}", rounded(self.retry_after))
    }
}

impl Error for CoolingDown {}
