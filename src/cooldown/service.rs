use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_service::Service;

use super::{
    future::{Held, ResponseFuture, Waiting},
    gate::{self, Waiter},
    store::{Cell, Pass, Store},
    terms::{Everyone, Exhausted, Per, Scope, Terms},
};
use crate::{
    BoxError,
    hold::{Counted, Hold},
    policy::{classify::Classify, wait::Wait},
    timeout::ReadDeadline,
};

/// Holds calls back while their quota cools down; see the [module](crate::cooldown). `H` is how it [holds](crate::hold) what it shares.
#[derive(Clone)]
pub struct Cooldown<S, H> {
    inner: S,
    terms: H,
}

impl<S, H> Cooldown<S, H> {
    pub(super) const fn with_terms(inner: S, terms: H) -> Self {
        Self { inner, terms }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it. A call that waits keeps the service it started with.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, without the cool-down.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, C, W, X, D> Cooldown<S, Counted<Terms<C, W, Everyone, X, D>>> {
    /// The moment before which no call passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self) -> Option<Instant> {
        self.terms.get().cooling_until(&())
    }
}

impl<S, C, W, F, K: Eq + Hash, X, D> Cooldown<S, Counted<Terms<C, W, Per<F, K>, X, D>>> {
    /// The moment before which no call with this key passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self, key: &K) -> Option<Instant> {
        self.terms.get().cooling_until(key)
    }
}

impl<S: fmt::Debug, H: fmt::Debug> fmt::Debug for Cooldown<S, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cooldown").field("terms", &self.terms).field("inner", &self.inner).finish()
    }
}

impl<S, H, C, W, P, X, D, Req> Service<Req> for Cooldown<S, H>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    H: Hold<Shared = Terms<C, W, P, X, D>>,
    C: Classify<S::Response, S::Error>,
    W: Wait<S::Response, S::Error>,
    P: Scope<Req>,
    X: Exhausted<S::Response, S::Error>,
    D: ReadDeadline<Req>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, H::Call, P::Key, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    // Always, as in all that calls go through: what is returned in memory is read back in other pieces than it was written, which makes a processor wait.
    #[inline(always)]
    fn call(&mut self, request: Req) -> Self::Future {
        let terms = self.terms.call();
        let key = terms.scope.key(&request);
        let pass = match terms.scope.store().quiet() {
            Some(pass) => pass,
            // Something is in force, maybe for this key.
            None => match enter(terms.scope.store(), &key) {
                Ok(pass) => pass,
                Err(closed) => {
                    let held = hold_back(&mut self.inner, &*terms, request, *closed);
                    return ResponseFuture::held(held, terms, key);
                }
            },
        };
        ResponseFuture::calling(self.inner.call(request), terms, key, pass)
    }
}

// What holds a call, since when.
struct Closed {
    cell: Arc<Cell>,
    hold: gate::Hold,
    since: Instant,
}

// Boxed, so that what most calls never see is not moved with each of them.
#[cold]
#[inline(never)]
fn enter<K: Eq + Hash>(store: &Store<K>, key: &K) -> Result<Pass, Box<Closed>> {
    let since = Instant::now();
    store.enter(key, since).map_err(|(cell, hold)| Box::new(Closed { cell, hold, since }))
}

#[cold]
#[inline(never)]
fn hold_back<S, C, W, P, X, D, Req>(
    service: &mut S,
    terms: &Terms<C, W, P, X, D>,
    request: Req,
    closed: Closed,
) -> Held<S, Req>
where
    S: Service<Req> + Clone,
    P: Scope<Req>,
    D: ReadDeadline<Req>,
{
    let Closed { cell, hold, since } = closed;
    let store = terms.scope.store();
    let waiter = Waiter::new(since, terms.max_wait.get(), terms.deadline.deadline(&request));
    // The instance that was polled ready goes, with whatever it holds for the call: a permit, a place in a queue.
    *service = service.clone();
    if let Some(error) = waiter.refused(&hold, since) {
        store.refused(&error);
        return Err(Box::new(error));
    }
    store.waits(&hold, since);
    Ok(Box::pin(Waiting::new(cell, waiter, since, service.clone(), request)))
}
