use std::marker::PhantomData;

use tower_layer::Layer;

use super::{Detailed, Plain, Retry};

/// Wraps services in [`Retry`] with one policy; see the [module](crate::retry).
#[derive(Clone, Copy, Debug)]
pub struct RetryLayer<P, M = Plain> {
    policy: P,
    mode: PhantomData<fn() -> M>,
}

impl<P> RetryLayer<P> {
    /// Retries by `policy`. What comes out is the last response or the last error, unchanged.
    #[must_use]
    pub const fn new(policy: P) -> Self {
        Self { policy, mode: PhantomData }
    }

    /// Makes failed calls tell their story: the error becomes [`RetryError`](super::RetryError), with the number of
    /// attempts, the time spent, the reason for stopping and the errors on the way. The policy's
    /// [timeout](crate::Policy::timeout) then also cuts an attempt that is under way.
    ///
    /// A failure that is a response, as a 503 is, comes back as it is, without a story: why it was not tried again is told to an
    /// [`Observer`](crate::hooks::Observer).
    ///
    /// Over boxed errors, as those of `Buffer` and `Timeout`, `?` needs
    /// [`.map_err(RetryError::erase)`](super::RetryError::erase):
    ///
    /// ```
    /// use tower::{BoxError, Service, ServiceExt, service_fn};
    /// use tower_tenacity::{RetryLayer, RetryPolicy, retry::RetryError};
    /// use tower_layer::Layer;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
    /// let boxed = service_fn(|number: u32| async move { Ok::<_, BoxError>(number + 1) });
    /// let mut service = RetryLayer::new(RetryPolicy::new()).detailed().layer(boxed);
    /// let answer = service.ready().await.map_err(RetryError::erase)?.call(1).await.map_err(RetryError::erase)?;
    /// assert_eq!(answer, 2);
    /// # Ok(())
    /// # }
    /// ```
    #[must_use]
    pub fn detailed(self) -> RetryLayer<P, Detailed> {
        RetryLayer { policy: self.policy, mode: PhantomData }
    }
}

impl<P: Clone, S, M> Layer<S> for RetryLayer<P, M> {
    type Service = Retry<P, S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        Retry::with_mode(self.policy.clone(), inner)
    }
}
