use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{CircuitOpen, shared::Permit};
use crate::{
    BoxError,
    policy::classify::{Class, Classify},
};

pin_project! {
    /// The future of a call to a [`CircuitBreaker`](super::CircuitBreaker).
    ///
    /// It tells the circuit what became of the call. Dropped before that, it gives its permit back.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, F, C> {
        // Before the permit: by the time that is given back, the call is over.
        #[pin]
        state: State<S, Req, F>,
        permit: Permit,
        classify: C,
    }
}

pin_project! {
    // Readying -> Calling for a probe; other calls come here as they are.
    #[project = StateProj]
    enum State<S, Req, F> {
        Calling { #[pin] attempt: F },
        Readying { service: S, request: Option<Req> },
        Refused { error: Option<CircuitOpen> },
    }
}

impl<S, Req, F, C> ResponseFuture<S, Req, F, C> {
    #[inline]
    pub(super) const fn calling(attempt: F, permit: Permit, classify: C) -> Self {
        Self { state: State::Calling { attempt }, permit, classify }
    }

    #[cold]
    pub(super) const fn readying(service: S, request: Req, permit: Permit, classify: C) -> Self {
        Self { state: State::Readying { service, request: Some(request) }, permit, classify }
    }

    #[cold]
    pub(super) const fn refused(error: CircuitOpen, classify: C) -> Self {
        Self { state: State::Refused { error: Some(error) }, permit: Permit::unwatched(), classify }
    }
}

impl<S, Req, F, C, Res, E> Future for ResponseFuture<S, Req, F, C>
where
    S: Service<Req, Response = Res, Error = E, Future = F>,
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let outcome = loop {
            match this.state.as_mut().project() {
                StateProj::Calling { attempt } => break ready!(attempt.poll(cx)),
                StateProj::Readying { service, request } => {
                    if let Err(error) = ready!(service.poll_ready(cx)) {
                        break Err(error);
                    }
                    let request = request.take().unwrap_or_else(|| panic!("polled after it was done"));
                    let attempt = service.call(request);
                    this.state.set(State::Calling { attempt });
                }
                StateProj::Refused { error } => {
                    let error = error.take().unwrap_or_else(|| panic!("polled after it was done"));
                    return Poll::Ready(Err(error.into()));
                }
            }
        };
        this.permit.finish(this.classify.classify(&outcome).unwrap_or(match outcome {
            Ok(_) => Class::Success,
            Err(_) => Class::Permanent,
        }));
        Poll::Ready(outcome.map_err(Into::into))
    }
}

impl<S, Req, F, C> fmt::Debug for ResponseFuture<S, Req, F, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
