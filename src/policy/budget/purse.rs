use std::{fmt, hash::Hash};

use tokio::time::Instant;

use super::{
    Budget, KeyedBudget,
    shared::{Hold, LocalBudget, Shared, Taken},
};

/// What a policy pays its retries from: [`NoBudget`] or [`Funds`]. Sealed.
pub trait Purse<Req>: Clone + sealed::Sealed {
    /// The purse of one call.
    #[doc(hidden)]
    fn begin(&self, request: &Req) -> Self;
    /// A call has succeeded.
    #[doc(hidden)]
    fn deposit(&self, now: impl FnOnce() -> Instant);
    /// Takes out what another attempt costs; whether there was enough.
    #[doc(hidden)]
    fn withdraw(&mut self, now: impl FnOnce() -> Instant) -> bool;
    /// The attempt that was decided is sent.
    #[doc(hidden)]
    fn spend(&mut self);
    /// The attempt that was decided will not be sent.
    #[doc(hidden)]
    fn refund(&mut self);
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::NoBudget {}
    impl<B: super::Pays> Sealed for super::Funds<B> {}
    impl Sealed for super::Budget {}
    impl Sealed for &super::Budget {}
    impl<F, K> Sealed for super::KeyedBudget<F, K> {}
}

/// Retries cost nothing; see [`RetryPolicy::without_budget`](crate::RetryPolicy::without_budget).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBudget;

impl<Req> Purse<Req> for NoBudget {
    #[inline]
    fn begin(&self, _: &Req) -> Self {
        Self
    }

    #[inline]
    fn deposit(&self, _: impl FnOnce() -> Instant) {}

    #[inline]
    fn withdraw(&mut self, _: impl FnOnce() -> Instant) -> bool {
        true
    }

    #[inline]
    fn spend(&mut self) {}

    #[inline]
    fn refund(&mut self) {}
}

/// A budget in a policy, or in one of its calls; see [`RetryPolicy::budget`](crate::RetryPolicy::budget).
pub struct Funds<B: Pays>(State<B>);

enum State<B: Pays> {
    All(B),
    Call(B::Hold),
    // A retry was decided and is not sent yet. Dropped, it is given back.
    Decided(Taken<B::Hold>),
}

impl<B: Pays> Funds<B> {
    pub(crate) const fn new(budget: B) -> Self {
        Self(State::All(budget))
    }
}

impl<B: Pays> Clone for Funds<B> {
    /// What was decided for one call is not decided for another.
    fn clone(&self) -> Self {
        Self(match &self.0 {
            State::All(budget) => State::All(budget.clone()),
            State::Call(local) => State::Call(local.clone()),
            State::Decided(taken) => State::Call(taken.local.clone()),
        })
    }
}

impl<B: Pays + fmt::Debug> fmt::Debug for Funds<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (local, decided) = match &self.0 {
            State::All(budget) => return budget.fmt(f),
            State::Call(local) => (local, false),
            State::Decided(taken) => (&taken.local, true),
        };
        f.debug_struct("Funds").field("budget", local.shared()).field("decided", &decided).finish()
    }
}

/// What retries are paid from: a [`Budget`], one that is [leaked](Budget::leak), or one [per key](Budget::per). Sealed.
pub trait Pays: Clone + sealed::Sealed {
    #[doc(hidden)]
    type Hold: Hold;
}

/// Finds the budget of a request.
#[doc(hidden)]
pub trait PaysFor<Req>: Pays {
    #[doc(hidden)]
    fn hold_for(&self, request: &Req) -> Self::Hold;
}

impl Pays for Budget {
    type Hold = LocalBudget;
}

impl<Req> PaysFor<Req> for Budget {
    #[inline]
    fn hold_for(&self, _: &Req) -> LocalBudget {
        self.local()
    }
}

// Not for `'static` alone: in a task the compiler asks whether this holds for any lifetime.
impl<'a> Pays for &'a Budget {
    type Hold = &'a Shared;
}

impl<'a, Req> PaysFor<Req> for &'a Budget {
    #[inline]
    fn hold_for(&self, _: &Req) -> &'a Shared {
        self.shared()
    }
}

impl<F: Clone, K> Pays for KeyedBudget<F, K> {
    type Hold = LocalBudget;
}

impl<Req, F, K> PaysFor<Req> for KeyedBudget<F, K>
where
    F: Fn(&Req) -> K + Clone,
    K: Eq + Hash,
{
    fn hold_for(&self, request: &Req) -> LocalBudget {
        self.local(request, Instant::now)
    }
}

impl<Req, B: PaysFor<Req>> Purse<Req> for Funds<B> {
    #[inline]
    fn begin(&self, request: &Req) -> Self {
        Self(State::Call(match &self.0 {
            State::All(budget) => budget.hold_for(request),
            State::Call(local) => local.clone(),
            State::Decided(taken) => taken.local.clone(),
        }))
    }

    #[inline]
    fn deposit(&self, now: impl FnOnce() -> Instant) {
        match &self.0 {
            // Only calls succeed.
            State::All(_) => {}
            State::Call(local) => local.shared().deposit(now),
            State::Decided(taken) => taken.local.shared().deposit(now),
        }
    }

    fn withdraw(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let taken = match &self.0 {
            State::Call(local) => Taken::of(local, now()),
            // The one before was decided and never sent; in a template nothing is decided.
            State::All(_) | State::Decided(_) => return true,
        };
        let enough = taken.is_some();
        if let Some(taken) = taken {
            self.0 = State::Decided(taken);
        }
        enough
    }

    #[inline]
    fn spend(&mut self) {
        if let State::Decided(taken) = &self.0 {
            let local = taken.local.clone();
            if let State::Decided(taken) = std::mem::replace(&mut self.0, State::Call(local)) {
                taken.spend();
            }
        }
    }

    fn refund(&mut self) {
        if let State::Decided(taken) = &self.0 {
            self.0 = State::Call(taken.local.clone());
        }
    }
}
