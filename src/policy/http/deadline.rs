use http::Request;

use crate::{
    policy::{Attempt, CallOptions, hooks::Hooks},
    timeout::Deadline,
};

/// Takes the limit of a call from its request, and hands what is left of it to each attempt; hooks for
/// [`RetryPolicy::hook`](crate::RetryPolicy::hook).
///
/// A [`Deadline`] among the extensions of a request ends the call like [`timeout`](crate::RetryPolicy::timeout) does; where there are both, the
/// nearest counts. Each attempt is sent with the nearest among its extensions, where a nested retry layer and
/// [`AttemptTimeoutLayer::http`](crate::timeout::AttemptTimeoutLayer::http) find it. A request without one, under a policy without one, is left as it is.
///
/// ```
/// use std::time::Duration;
/// use ::http::{Request, Response, StatusCode};
/// use tower::{ServiceExt, service_fn};
/// use tower_tenacity::{Retry, RetryPolicy, timeout::Deadline};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let down = service_fn(|_: Request<()>| async {
///     Response::builder().status(StatusCode::SERVICE_UNAVAILABLE).header("retry-after", "10").body(String::new())
/// });
/// let mut request = Request::new(());
/// request.extensions_mut().insert(Deadline::after(Duration::from_secs(15)));
///
/// # let began = tokio::time::Instant::now();
/// // There is time for one pause of ten seconds, not for two: the response is handed back at once.
/// let response = Retry::new(RetryPolicy::http(), down).oneshot(request).await.unwrap();
/// assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
/// # assert!((10..=11).contains(&began.elapsed().as_secs()));
/// # }
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Deadlines;

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for Deadlines {
    #[inline]
    fn options(&self, request: &Request<B>, options: &mut CallOptions) {
        if let Some(deadline) = request.extensions().get::<Deadline>() {
            *options = options.deadline(*deadline);
        }
    }

    #[inline]
    fn before_attempt(&self, attempt: &Attempt, request: &mut Request<B>) {
        let Some(nearest) = attempt.deadline() else { return };
        if request.extensions().get().is_none_or(|given| nearest < *given) {
            request.extensions_mut().insert(nearest);
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}
