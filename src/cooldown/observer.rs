use std::time::Duration;

use super::CoolingDown;

/// Is told what cool-downs do, without the keys they have; see [`observe`](super::CooldownLayer::observe).
///
/// Every method does nothing by default. They are called by whoever caused what they tell, often in the middle of a poll, so
/// they should be quick. No lock is held meanwhile.
///
/// ```
/// use std::{sync::{Arc, Mutex}, time::Duration};
/// use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
/// use tower_tenacity::{classify::{self, Class}, cooldown::{CooldownLayer, CoolingDown, Observer}};
///
/// #[derive(Clone, Default)]
/// struct Log(Arc<Mutex<Vec<String>>>);
///
/// impl Observer for Log {
///     fn closed(&self, delay: Duration, _: bool) {
///         self.0.lock().unwrap().push(format!("nobody for {delay:?}"));
///     }
///
///     fn refused(&self, error: &CoolingDown) {
///         self.0.lock().unwrap().push(error.to_string());
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let log = Log::default();
/// let classify = classify::by(|_: &Result<(), BoxError>| Class::throttled(Some(Duration::from_secs(40))));
/// let mut service = ServiceBuilder::new()
///     .layer(CooldownLayer::new(classify).fail_fast().observe(log.clone()))
///     .service_fn(|_: &str| async { Err::<(), BoxError>("429".into()) });
/// for job in ["one", "another"] {
///     service.ready().await.unwrap().call(job).await.unwrap_err();
/// }
/// let log = log.0.lock().unwrap();
/// assert_eq!(log[0], "nobody for 40s");
/// assert_eq!(log[1], "cooling down after a rate limit, no calls for another 40s");
/// # }
/// ```
pub trait Observer: Send + Sync {
    /// Calls of a quota are held back from now on, for `delay`; `exhausted` if it will not be back soon. Told again when that
    /// becomes so, but not when calls that are held back already are held for longer.
    fn closed(&self, delay: Duration, exhausted: bool) {
        let _ = (delay, exhausted);
    }

    /// A call waits. Its quota is closed for `delay` from now; it may wait longer than that, or less where that was our guess.
    fn waits(&self, delay: Duration) {
        let _ = delay;
    }

    /// A call has waited for `time`: it is made now, or was refused, or dropped. Each that [waits](Self::waits) ends here.
    fn waited(&self, time: Duration) {
        let _ = time;
    }

    /// A call was refused, at once or after it had waited.
    fn refused(&self, error: &CoolingDown) {
        let _ = error;
    }
}
