use std::{
    future::Future,
    hash::Hash,
    ops::Deref,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep_until};
use tower_service::Service;

use super::{
    error::CoolingDown,
    gate::{Report, Step, Waiter},
    store::{Cell, Pass, Store},
    terms::{Exhausted, Scope, Terms},
};
use crate::{
    BoxError,
    circuit_breaker::CircuitOpen,
    policy::{
        classify::{Class, Classify, has_failed_body},
        wait::Wait,
    },
    timeout::TimedOut,
};

pin_project! {
    /// The future of a call to a [`Cooldown`](super::Cooldown) service. Dropping it cancels the call, and gives back the role
    /// of going first if it had that.
    // The bound stands on the struct, as the future inside is named by the service.
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<S, H, K, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S::Future, S, Req>,
        terms: H,
        key: Option<K>,
        pass: Pass,
    }
}

pin_project! {
    // Waiting -> Calling, or Refused; most calls begin as Calling.
    #[project = StateProj]
    enum State<F, S, Req> {
        Calling { #[pin] call: F },
        // Boxed, so that calls that pass need no room for the rest.
        Waiting { waiting: Pin<Box<Waiting<S, Req>>> },
        Refused { error: Option<Box<CoolingDown>> },
    }
}

pin_project! {
    // A call that is held, or makes its service ready afterwards.
    pub(super) struct Waiting<S, Req> {
        #[pin]
        sleep: Option<Sleep>,
        place: Place,
        waiter: Waiter,
        service: S,
        // Whether the service has been asked to get ready.
        readying: bool,
        request: Option<Req>,
    }
}

/// What becomes of a call that does not pass: it waits, or is refused.
pub(super) type Held<S, Req> = Result<Pin<Box<Waiting<S, Req>>>, Box<CoolingDown>>;

// A place among those who wait at a gate, given up when dropped.
struct Place {
    cell: Arc<Cell>,
    ticket: Option<u64>,
    since: Instant,
}

impl Place {
    // Whether nothing has changed since this call last looked. One that only keeps its distance looks when that is over.
    fn is_undisturbed(&self, cx: &Context<'_>) -> bool {
        self.ticket.is_none_or(|ticket| self.cell.is_waiting(ticket, cx.waker()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket {
            self.cell.forget(ticket);
        }
        self.cell.waited(self.since);
    }
}

impl<S, Req> Waiting<S, Req> {
    pub(super) fn new(cell: Arc<Cell>, waiter: Waiter, since: Instant, service: S, request: Req) -> Self {
        Self {
            sleep: None,
            place: Place { cell, ticket: None, since },
            waiter,
            service,
            readying: false,
            request: Some(request),
        }
    }
}

impl<S, H, K, Req> ResponseFuture<S, H, K, Req>
where
    S: Service<Req>,
{
    #[inline]
    pub(super) fn calling(call: S::Future, terms: H, key: K, pass: Pass) -> Self {
        Self { state: State::Calling { call }, terms, key: Some(key), pass }
    }

    #[inline]
    pub(super) fn held(held: Held<S, Req>, terms: H, key: K) -> Self {
        let state = match held {
            Ok(waiting) => State::Waiting { waiting },
            Err(error) => State::Refused { error: Some(error) },
        };
        Self { state, terms, key: Some(key), pass: Pass::default() }
    }
}

impl<S, H, C, W, P, X, D, K, Req> Future for ResponseFuture<S, H, K, Req>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    H: Deref<Target = Terms<C, W, P, X, D>>,
    C: Classify<S::Response, S::Error>,
    W: Wait<S::Response, S::Error>,
    P: Scope<Req, Key = K>,
    K: Eq + Hash,
    X: Exhausted<S::Response, S::Error>,
{
    type Output = Result<S::Response, BoxError>;

    #[inline(always)]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { call } => {
                    let outcome = ready!(call.poll(cx));
                    if !this.pass.is_watched() && this.terms.accepts(&outcome) {
                        return Poll::Ready(outcome.map_err(Into::into));
                    }
                    let failure = this.terms.failure(&outcome);
                    if failure.is_some() || this.pass.is_watched() {
                        let (key, pass) = (this.key.take(), std::mem::take(this.pass));
                        return Poll::Ready(report(this.terms, this.terms.scope.store(), key, pass, failure, outcome));
                    }
                    return Poll::Ready(outcome.map_err(Into::into));
                }
                StateProj::Waiting { waiting } => {
                    match ready!(waiting.as_mut().poll_call(this.terms, cx)) {
                        Ok((call, pass)) => {
                            *this.pass = pass;
                            this.state.set(State::Calling { call });
                        }
                        Err(error) => {
                            // Its wait is over, however long the future is kept.
                            this.state.set(State::Refused { error: None });
                            return Poll::Ready(Err(error));
                        }
                    }
                }
                StateProj::Refused { error } => {
                    let error = error.take().expect("polled after completion");
                    return Poll::Ready(Err(error as BoxError));
                }
            }
        }
    }
}

impl<S: Clone, Req> Waiting<S, Req> {
    // Waits until the gate is open, makes the service ready, and calls it if the gate is open still.
    fn poll_call<C, W, P, X, D>(
        self: Pin<&mut Self>,
        terms: &Terms<C, W, P, X, D>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(S::Future, Pass), BoxError>>
    where
        S: Service<Req, Error: Into<BoxError>>,
        W: Wait<S::Response, S::Error>,
        P: Scope<Req>,
    {
        let mut this = self.project();
        loop {
            let gate = Self::poll_gate(this.sleep.as_mut(), this.place, this.waiter, terms, cx);
            if *this.readying && !matches!(gate, Poll::Ready(Ok(()))) {
                // The gate closed meanwhile: nothing that is ready, or about to be, is held while waiting.
                *this.service = this.service.clone();
                *this.readying = false;
            }
            if let Err(error) = ready!(gate) {
                terms.scope.store().refused(&error);
                return Poll::Ready(Err(error.into()));
            }
            *this.readying = true;
            ready!(this.service.poll_ready(cx)).map_err(Into::into)?;
            // Late or held again, it finds out at the gate.
            let now = Instant::now();
            if this.waiter.late(now).is_some() {
                continue;
            }
            if let Ok(pass) = this.place.cell.enter(now) {
                let request = this.request.take().expect("a call is made once");
                return Poll::Ready(Ok((this.service.call(request), pass)));
            }
        }
    }

    // Ready when the gate is open, and this call has kept its distance from the others.
    fn poll_gate<C, W, P, X, D>(
        mut sleep: Pin<&mut Option<Sleep>>,
        place: &mut Place,
        waiter: &mut Waiter,
        terms: &Terms<C, W, P, X, D>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CoolingDown>>
    where
        S: Service<Req>,
        W: Wait<S::Response, S::Error>,
    {
        loop {
            if let Some(timer) = sleep.as_mut().as_pin_mut() {
                let over = timer.poll(cx).is_ready();
                if !over && place.is_undisturbed(cx) {
                    return Poll::Pending;
                }
            }
            let now = Instant::now();
            let look = place.cell.look(now, &mut place.ticket, cx.waker());
            match waiter.step(look, now, &mut terms.random()) {
                Step::Sleep(moment) => sleep.set(Some(sleep_until(moment))),
                Step::Proceed => {
                    sleep.set(None);
                    return Poll::Ready(waiter.late(now).map_or(Ok(()), Err));
                }
                Step::Refuse(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

// A call that went wrong, or that the gate watches, has ended.
#[cold]
fn report<K: Eq + Hash, Res, E, C, W, P, X, D>(
    terms: &Terms<C, W, P, X, D>,
    store: &Store<K>,
    key: Option<K>,
    pass: Pass,
    failure: Option<Class>,
    outcome: Result<Res, E>,
) -> Result<Res, BoxError>
where
    E: Into<BoxError>,
    W: Wait<Res, E>,
    X: Exhausted<Res, E>,
{
    let Some(key) = key else { return outcome.map_err(Into::into) };
    let report = failure.map_or(Report::Passed, |class| terms.report(class, &outcome));
    if !matches!(report, Report::Passed | Report::Unknown) {
        store.report(key, pass, report, Instant::now(), |streak| terms.guess(streak, &outcome));
        return outcome.map_err(Into::into);
    }
    let outcome = outcome.map_err(Into::into);
    // Whoever did not come as far as the service, or broke off, has learned nothing: the role of going first, if that was theirs, is
    // handed on.
    let came_back = |error: &BoxError| {
        TimedOut::had_no_time(&**error) || CircuitOpen::find(&**error).is_some() || has_failed_body(&**error)
    };
    if pass.has_news(report) && !outcome.as_ref().is_err_and(came_back) {
        store.report(key, pass, report, Instant::now(), |_| Duration::ZERO);
    }
    outcome
}
