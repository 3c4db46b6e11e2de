use std::{
    fmt,
    hash::Hash,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;
use tower_service::Service;

use super::{
    future::{ResponseFuture, Waiting},
    gate::Waiter,
    terms::{Everyone, Exhausted, Per, Scope, Terms},
};
use crate::{
    BoxError,
    policy::{classify::Classify, wait::Wait},
    timeout::ReadDeadline,
};

/// Holds calls back while their quota cools down; see the [module](crate::cooldown).
pub struct Cooldown<S, C, W, P, X, D> {
    inner: S,
    // Counted up and down by each call, so no two threads should have the same one: that would cost more than all the rest.
    // What is shared lies behind it.
    terms: Arc<Terms<C, W, P, X, D>>,
    home: Home,
}

// Whose terms a service uses. A clone may never be called, as the one that a retry layer keeps for later, or called just once, so
// it gets terms of its own only when it is called again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    Guest,
    Called,
    Own,
}

impl<S, C, W, P, X, D> Cooldown<S, C, W, P, X, D> {
    pub(super) fn with_terms(inner: S, terms: Terms<C, W, P, X, D>) -> Self {
        Self { inner, terms: Arc::new(terms), home: Home::Own }
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

impl<S, C, W, X, D> Cooldown<S, C, W, Everyone, X, D> {
    /// The moment before which no call passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self) -> Option<Instant> {
        self.terms.scope.store.until(&(), Instant::now())
    }
}

impl<S, C, W, F, K: Eq + Hash, X, D> Cooldown<S, C, W, Per<F, K>, X, D> {
    /// The moment before which no call with this key passes, if there is one ahead.
    #[must_use]
    pub fn cooling_until(&self, key: &K) -> Option<Instant> {
        self.terms.scope.store.until(key, Instant::now())
    }
}

impl<S, C, W, P, X, D> Clone for Cooldown<S, C, W, P, X, D>
where
    S: Clone,
{
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), terms: self.terms.clone(), home: Home::Guest }
    }
}

impl<S, C, W, P, X, D> fmt::Debug for Cooldown<S, C, W, P, X, D>
where
    S: fmt::Debug,
    C: fmt::Debug,
    W: fmt::Debug,
    P: fmt::Debug,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cooldown").field("terms", &self.terms).field("inner", &self.inner).finish()
    }
}

impl<S, C, W, P, X, D, Req> Service<Req> for Cooldown<S, C, W, P, X, D>
where
    S: Service<Req, Error: Into<BoxError>> + Clone,
    C: Classify<S::Response, S::Error> + Clone,
    W: Wait<S::Response, S::Error> + Clone,
    P: Scope<Req> + Clone,
    X: Exhausted<S::Response, S::Error> + Clone,
    D: ReadDeadline<Req> + Clone,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = ResponseFuture<S, C, W, P, X, D, Req>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    #[inline]
    fn call(&mut self, request: Req) -> Self::Future {
        if self.home != Home::Own {
            self.settle();
        }
        let key = self.terms.scope.key(&request);
        match self.terms.scope.store().quiet() {
            Some(pass) => ResponseFuture::calling(self.inner.call(request), self.terms.clone(), key, pass),
            None => self.look_first(request, key),
        }
    }
}

impl<S, C: Clone, W: Clone, P: Clone, X: Clone, D: Clone> Cooldown<S, C, W, P, X, D> {
    #[cold]
    fn settle(&mut self) {
        self.home = match self.home {
            Home::Guest => Home::Called,
            Home::Called | Home::Own => {
                self.terms = Arc::new(Terms::clone(&self.terms));
                Home::Own
            }
        };
    }
}

impl<S, C, W, P, X, D> Cooldown<S, C, W, P, X, D> {
    // Something is in force, maybe for this key.
    #[cold]
    fn look_first<Req>(&mut self, request: Req, key: P::Key) -> ResponseFuture<S, C, W, P, X, D, Req>
    where
        S: Service<Req> + Clone,
        P: Scope<Req>,
        D: ReadDeadline<Req>,
    {
        let terms = self.terms.clone();
        let store = terms.scope.store();
        let now = Instant::now();
        let (cell, hold) = match store.enter(&key, now) {
            Ok(pass) => {
                let call = self.inner.call(request);
                return ResponseFuture::calling(call, terms, key, pass);
            }
            Err(held) => held,
        };
        let waiter = Waiter::new(now, terms.max_wait.get(), terms.deadline.deadline(&request));
        // The instance that was polled ready goes, with whatever it holds for the call: a permit, a place in a queue.
        self.inner = self.inner.clone();
        if let Some(error) = waiter.refused(&hold, now) {
            store.refused(&error);
            return ResponseFuture::refused(error, terms);
        }
        store.waits(&hold, now);
        let waiting = Waiting::new(cell, waiter, now, self.inner.clone(), request);
        ResponseFuture::waiting(waiting, terms, key)
    }
}
