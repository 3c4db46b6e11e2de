use std::{
    fmt,
    task::{Context, Poll, ready},
};

use tower_service::Service;

use super::{
    BreakerPolicy, CircuitBreakerLayer, Handle, ResponseFuture,
    circuits::{Circuits, Everyone},
    shared::{Permit, Shared},
};
use crate::{
    BoxError,
    policy::classify::{Classify, Errors},
};

/// Refuses calls while its circuit is open; see the [module](crate::circuit_breaker).
pub struct CircuitBreaker<S, C = Errors, K = Everyone> {
    inner: S,
    classify: C,
    circuits: K,
    reserved: Reserved,
}

// What the inner instance was asked for since its last call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reserved {
    Nothing,
    // It was asked to become ready and may stand in a queue.
    Maybe,
    // It is ready and may hold a permit.
    Yes,
}

impl<S> CircuitBreaker<S> {
    /// Guards `inner` with a circuit of its own, in which every error is a failure. Where several services share one, or
    /// there is more to set, use the [layer](CircuitBreakerLayer).
    pub fn new(policy: BreakerPolicy, inner: S) -> Self {
        tower_layer::Layer::layer(&CircuitBreakerLayer::new(policy), inner)
    }
}

impl<S, C> CircuitBreaker<S, C> {
    /// A look at the circuit, and a hand on it.
    pub fn handle(&self) -> Handle {
        self.circuits.handle()
    }
}

impl<S, C, K> CircuitBreaker<S, C, K> {
    pub(super) const fn with_circuits(inner: S, classify: C, circuits: K) -> Self {
        Self { inner, classify, circuits, reserved: Reserved::Nothing }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the breaker.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S: Clone, C, K> CircuitBreaker<S, C, K> {
    // Gives back the permit or the place in a queue that the inner instance may hold: nobody will call it.
    #[cold]
    fn release(&mut self) {
        if self.reserved != Reserved::Nothing {
            self.inner = self.inner.clone();
            self.reserved = Reserved::Nothing;
        }
    }
}

impl<S: Clone, C: Clone, K: Clone> Clone for CircuitBreaker<S, C, K> {
    fn clone(&self) -> Self {
        Self::with_circuits(self.inner.clone(), self.classify.clone(), self.circuits.clone())
    }
}

impl<S: fmt::Debug, C: fmt::Debug, K: fmt::Debug> fmt::Debug for CircuitBreaker<S, C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CircuitBreaker")
            .field("inner", &self.inner)
            .field("classify", &self.classify)
            .field("circuits", &self.circuits)
            .finish()
    }
}

impl<S, C, K, Req> Service<Req> for CircuitBreaker<S, C, K>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    K: Circuits<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, Req, S::Future, C, K::Hold>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        if self.circuits.is_gated() {
            // Most calls will be refused, and must not wait for that. A probe makes an instance ready for itself.
            self.release();
            return Poll::Ready(Ok(()));
        }
        self.reserved = Reserved::Maybe;
        let ready = ready!(self.inner.poll_ready(cx));
        self.reserved = Reserved::Yes;
        Poll::Ready(ready.map_err(Into::into))
    }

    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let circuit = self.circuits.pick(&request);
        let era = circuit.era();
        let permit = if era.is_gated() || self.reserved != Reserved::Yes {
            // It does not let calls flow, or did not when readiness was asked for.
            match Shared::admit(circuit) {
                Ok(permit) if self.reserved == Reserved::Yes => permit,
                admitted => {
                    self.release();
                    let classify = self.classify.clone();
                    return match admitted {
                        // It flows by now, or this is a probe.
                        Ok(permit) => ResponseFuture::readying(self.inner.clone(), request, permit, classify),
                        Err(refused) => ResponseFuture::refused(Box::new(refused), classify),
                    };
                }
            }
        } else {
            Permit::new(circuit, era)
        };
        self.reserved = Reserved::Nothing;
        ResponseFuture::calling(self.inner.call(request), permit, self.classify.clone())
    }
}
