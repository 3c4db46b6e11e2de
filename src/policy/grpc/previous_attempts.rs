use http::{HeaderValue, Request};

use crate::policy::{Attempt, hooks::Hooks};

/// Tells the server, in `grpc-previous-rpc-attempts`, how many attempts went before: 1 with the second, 2 with the third.
/// The first attempt is sent without ([A6]).
///
/// ```
/// use http::Request;
/// use tower::{ServiceExt, service_fn};
/// use tower_tenacity::{RetryPolicy, policy::grpc, retry::Retry};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let policy = RetryPolicy::new().hook(grpc::previous_attempts());
/// let service = service_fn(|request: Request<()>| async move {
///     request.headers().get("grpc-previous-rpc-attempts").cloned().ok_or("a first attempt")
/// });
/// assert_eq!(Retry::new(policy, service).oneshot(Request::new(())).await.unwrap(), "1");
/// # }
/// ```
///
/// [A6]: https://github.com/grpc/proposal/blob/master/A6-client-retries.md#exposed-retry-metadata
pub const fn previous_attempts() -> PreviousAttempts {
    PreviousAttempts(())
}

/// Tells the server how many attempts went before; made by [`previous_attempts`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct PreviousAttempts(());

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for PreviousAttempts {
    fn before_attempt(&self, attempt: &Attempt, request: &mut Request<B>) {
        if attempt.number() > 1 {
            request.headers_mut().insert("grpc-previous-rpc-attempts", HeaderValue::from(attempt.number() - 1));
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}
