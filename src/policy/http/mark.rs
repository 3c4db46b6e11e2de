use http::{HeaderName, HeaderValue, Request};

use crate::policy::{Attempt, CallOptions, hooks::Hooks};

// In the extensions of a request that some layer has sent before.
#[derive(Clone, Copy)]
struct SentBefore;

/// Marks a request that was sent before, or is made from one that was.
pub(crate) fn mark_as_sent_before(extensions: &mut http::Extensions) {
    extensions.insert(SentBefore);
}

/// Keeps nested retry layers from multiplying; hooks for [`RetryPolicy::hook`](crate::RetryPolicy::hook).
///
/// From the second attempt on a request carries a mark among its extensions, and a request that comes with the mark is
/// sent once: of layers with `N` and `M` attempts, one inside the other, come at most `N + M − 1` attempts, not `N · M`.
/// Attempts of an outer layer that are marked find the inner layer's hooks, classifier and observers as they are. No later
/// setting makes two attempts of one.
///
/// The mark goes no further than the process, and the next call of the same caller begins without it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mark;

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for Mark {
    #[inline]
    fn options(&self, request: &Request<B>, options: &mut CallOptions) {
        if request.extensions().get::<SentBefore>().is_some() {
            options.limit_to_once();
        }
    }

    #[inline]
    fn before_attempt(&self, attempt: &Attempt, request: &mut Request<B>) {
        if attempt.number() > 1 {
            mark_as_sent_before(request.extensions_mut());
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}

/// Tells the server the number of each attempt from the second on, in the header `name`; a hook for
/// [`RetryPolicy::hook`](crate::RetryPolicy::hook).
///
/// A first attempt is left as it is, so that the header's presence alone tells retries in an access log. The field has no
/// common name: Envoy sends `x-envoy-attempt-count: 2`, the AWS SDKs `amz-sdk-request: attempt=2; max=3`, both from the
/// first attempt on.
///
/// ```
/// use ::http::{HeaderName, Request};
/// use tower::{ServiceExt, service_fn};
/// use tower_tenacity::{Retry, RetryPolicy, policy::http};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let policy = RetryPolicy::new()
///     .keep(http::FlatCopy)
///     .hook(http::attempt_header(HeaderName::from_static("x-retry-attempt")));
/// let server = service_fn(|request: Request<&'static str>| async move {
///     match request.headers().get("x-retry-attempt") {
///         None => Err("connection reset"),
///         Some(number) => Ok(number.clone()),
///     }
/// });
/// let answer = Retry::new(policy, server).oneshot(Request::new("hello")).await;
/// assert_eq!(answer.unwrap(), "2");
/// # }
/// ```
#[must_use]
pub const fn attempt_header(name: HeaderName) -> AttemptHeader {
    AttemptHeader { name }
}

/// Tells the server the number of each attempt; made by [`attempt_header`].
#[derive(Clone, Debug)]
pub struct AttemptHeader {
    name: HeaderName,
}

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for AttemptHeader {
    #[inline]
    fn before_attempt(&self, attempt: &Attempt, request: &mut Request<B>) {
        if attempt.number() > 1 {
            request.headers_mut().insert(&self.name, HeaderValue::from(attempt.number()));
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}
