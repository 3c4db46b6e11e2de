use http::HeaderMap;

/// A body whose trailers have arrived: one that was collected before its response was handed on.
///
/// With such bodies a classifier [with trailers](super::Classifier::with_trailers) sees the status of a call that failed after its
/// head was sent. That is for unary calls only: a stream that is collected is no stream any more.
///
/// ```
/// use std::convert::Infallible;
/// use http::{HeaderMap, HeaderValue, Response};
/// use tower_tenacity::{classify::{Class, Classify}, policy::grpc::{self, Trailers}};
///
/// struct Collected { trailers: HeaderMap }
///
/// impl Trailers for Collected {
///     fn trailers(&self) -> Option<&HeaderMap> { Some(&self.trailers) }
/// }
///
/// let unavailable = HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static("14"))]);
/// let response: Result<_, Infallible> = Ok(Response::new(Collected { trailers: unavailable }));
/// assert_eq!(grpc::classify().with_trailers().classify(&response), Some(Class::transient()));
/// assert_eq!(grpc::classify().classify(&response), Some(Class::Success));
/// ```
pub trait Trailers {
    /// The trailers; `None` if there were none.
    fn trailers(&self) -> Option<&HeaderMap>;
}
