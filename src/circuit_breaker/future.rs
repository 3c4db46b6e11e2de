use std::{
    fmt,
    future::Future,
    ops::Deref,
    pin::Pin,
    task::{Context, Poll, ready},
};

use pin_project_lite::pin_project;
use tower_service::Service;

use super::{
    CircuitOpen,
    shared::{Permit, Shared},
};
use crate::{
    BoxError,
    hold::Counting,
    policy::classify::{self, Class, Classify},
    timeout::TimedOut,
};

pin_project! {
    /// The future of a call to a [`CircuitBreaker`](super::CircuitBreaker).
    ///
    /// It tells the circuit what became of the call. Dropped before that, it gives its permit back.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, Req, F, C, H = Counting<Shared>>
    where
        H: Deref<Target = Shared>,
    {
        // Before the permit: by the time that is given back, the call is over.
        #[pin]
        state: State<S, Req, F>,
        permit: Permit<H>,
        classify: C,
    }
}

pin_project! {
    // Readying -> Calling for a probe; other calls come here as they are.
    #[project = StateProj]
    enum State<S, Req, F> {
        Calling { #[pin] attempt: F },
        // Boxed, so that calls that pass need no room for the rest.
        Readying { probe: Box<Probe<S, Req>> },
        Refused { error: Option<Box<CircuitOpen>> },
    }
}

struct Probe<S, Req> {
    service: S,
    request: Option<Req>,
}

impl<S, Req, F, C, H: Deref<Target = Shared>> ResponseFuture<S, Req, F, C, H> {
    #[inline]
    pub(super) const fn calling(attempt: F, permit: Permit<H>, classify: C) -> Self {
        Self { state: State::Calling { attempt }, permit, classify }
    }

    #[inline]
    pub(super) fn readying(service: S, request: Req, permit: Permit<H>, classify: C) -> Self {
        let probe = Box::new(Probe { service, request: Some(request) });
        Self { state: State::Readying { probe }, permit, classify }
    }

    #[inline]
    pub(super) const fn refused(error: Box<CircuitOpen>, classify: C) -> Self {
        Self { state: State::Refused { error: Some(error) }, permit: Permit::none(), classify }
    }
}

impl<S, Req, F, C, H, Res, E> Future for ResponseFuture<S, Req, F, C, H>
where
    H: Deref<Target = Shared>,
    S: Service<Req, Response = Res, Error = E, Future = F>,
    F: Future<Output = Result<Res, E>>,
    C: Classify<Res, E>,
    E: Into<BoxError>,
{
    type Output = Result<Res, BoxError>;

    #[inline(always)]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let this = self.as_mut().project();
            if let StateProj::Calling { attempt } = this.state.project() {
                let outcome = ready!(attempt.poll(cx));
                let classify = this.classify;
                return Poll::Ready(match outcome {
                    Ok(response) if classify::passes(classify, &response) => {
                        this.permit.succeed();
                        Ok(response)
                    }
                    outcome => conclude(this.permit, classify, outcome),
                });
            }
            ready!(self.as_mut().poll_called(cx))?;
        }
    }
}

impl<S, Req, F, C, H> ResponseFuture<S, Req, F, C, H>
where
    H: Deref<Target = Shared>,
    C: Classify<S::Response, S::Error>,
    S: Service<Req, Future = F, Error: Into<BoxError>>,
{
    // All that is not an attempt under way; ready when there is one.
    #[cold]
    #[inline(never)]
    fn poll_called(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let mut this = self.project();
        match this.state.as_mut().project() {
            StateProj::Calling { .. } => {}
            StateProj::Readying { probe } => {
                let Probe { service, request } = &mut **probe;
                if let Err(error) = ready!(service.poll_ready(cx)) {
                    return Poll::Ready(conclude(this.permit, this.classify, Err(error)).map(drop));
                }
                let request = request.take().unwrap_or_else(|| panic!("polled after it was done"));
                let attempt = service.call(request);
                this.state.set(State::Calling { attempt });
            }
            StateProj::Refused { error } => {
                let error = error.take().unwrap_or_else(|| panic!("polled after it was done"));
                return Poll::Ready(Err(error as BoxError));
            }
        }
        Poll::Ready(Ok(()))
    }
}

// Tells the circuit of an outcome that is not a success for certain.
#[cold]
#[inline(never)]
fn conclude<H, C, Res, E>(permit: &mut Permit<H>, classify: &C, outcome: Result<Res, E>) -> Result<Res, BoxError>
where
    H: Deref<Target = Shared>,
    C: Classify<Res, E>,
    E: Into<BoxError>,
{
    let class = classify.classify(&outcome).unwrap_or(match outcome {
        Ok(_) => Class::Success,
        Err(_) => Class::Permanent,
    });
    let outcome = outcome.map_err(Into::into);
    match &outcome {
        // The caller was late, and nobody has learned anything of the service.
        Err(error) if TimedOut::had_no_time(&**error) => permit.give_back(),
        // The caller broke off, and nobody waits for the outcome.
        Err(error) if class == Class::Permanent && classify::has_failed_body(&**error) => *permit = Permit::none(),
        _ => permit.finish(class),
    }
    outcome
}

impl<S, Req, F, C, H: Deref<Target = Shared>> fmt::Debug for ResponseFuture<S, Req, F, C, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
