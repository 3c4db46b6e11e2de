use http::HeaderMap;

use crate::body::CollectedBody;

/// A body whose trailers have arrived: one that was collected before its response was handed on.
///
/// With such bodies a classifier [with trailers](super::Classifier::with_trailers) sees the status of a call that failed after its
/// head was sent. A [`CollectBodyLayer`](crate::body::CollectBodyLayer) makes them:
///
/// ```
/// use tower::{BoxError, ServiceBuilder, service_fn};
/// use tower_tenacity::{RetryLayer, RetryPolicy, body::CollectBodyLayer};
/// # use http::{Request, Response};
///
/// # let channel = service_fn(|_: Request<String>| async { Ok::<_, BoxError>(Response::new(String::new())) });
/// let channel = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryPolicy::grpc().with_trailers()))
///     .layer(CollectBodyLayer::new(4 * 1024 * 1024))
///     .service(channel);
/// # fn check<S: tower::Service<Request<String>>>(_: S) {} check(channel);
/// ```
///
/// That is for unary calls only: a stream that is collected is no stream any more.
pub trait Trailers {
    /// The trailers; `None` if there were none.
    fn trailers(&self) -> Option<&HeaderMap>;
}

impl Trailers for CollectedBody {
    fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers()
    }
}
