use std::hash::Hash;

use tokio::time::Instant;

use super::{Budget, KeyedBudget, LocalBudget, Withdrawal};

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
    impl<B> Sealed for super::Funds<B> {}
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
#[derive(Debug)]
pub struct Funds<B>(State<B>);

#[derive(Debug)]
enum State<B> {
    All(B),
    Call(LocalBudget),
    // A retry was decided and is not sent yet. Dropped, it is given back.
    Decided(Withdrawal),
}

impl<B> Funds<B> {
    pub(crate) const fn new(budget: B) -> Self {
        Self(State::All(budget))
    }
}

impl<B: Clone> Clone for Funds<B> {
    /// What was decided for one call is not decided for another.
    fn clone(&self) -> Self {
        Self(match &self.0 {
            State::All(budget) => State::All(budget.clone()),
            State::Call(local) => State::Call(local.clone()),
            State::Decided(withdrawal) => State::Call(withdrawal.local.clone()),
        })
    }
}

/// Finds the budget of a request.
#[doc(hidden)]
pub trait PaysFor<Req>: Clone {
    #[doc(hidden)]
    #[allow(private_interfaces)]
    fn local_for(&self, request: &Req) -> LocalBudget;
}

#[allow(private_interfaces)]
impl<Req> PaysFor<Req> for Budget {
    #[inline]
    fn local_for(&self, _: &Req) -> LocalBudget {
        self.local()
    }
}

#[allow(private_interfaces)]
impl<Req, F, K> PaysFor<Req> for KeyedBudget<F, K>
where
    F: Fn(&Req) -> K + Clone,
    K: Eq + Hash,
{
    fn local_for(&self, request: &Req) -> LocalBudget {
        self.local(request, Instant::now)
    }
}

impl<Req, B: PaysFor<Req>> Purse<Req> for Funds<B> {
    #[inline]
    fn begin(&self, request: &Req) -> Self {
        Self(State::Call(match &self.0 {
            State::All(budget) => budget.local_for(request),
            State::Call(local) => local.clone(),
            State::Decided(withdrawal) => withdrawal.local.clone(),
        }))
    }

    #[inline]
    fn deposit(&self, now: impl FnOnce() -> Instant) {
        match &self.0 {
            // Only calls succeed.
            State::All(_) => {}
            State::Call(local) => local.deposit(now),
            State::Decided(withdrawal) => withdrawal.local.deposit(now),
        }
    }

    fn withdraw(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let withdrawal = match &self.0 {
            State::Call(local) => local.withdraw(now()),
            // The one before was decided and never sent; in a template nothing is decided.
            State::All(_) | State::Decided(_) => return true,
        };
        let enough = withdrawal.is_some();
        if let Some(withdrawal) = withdrawal {
            self.0 = State::Decided(withdrawal);
        }
        enough
    }

    #[inline]
    fn spend(&mut self) {
        if let State::Decided(withdrawal) = &self.0 {
            let local = withdrawal.local.clone();
            if let State::Decided(withdrawal) = std::mem::replace(&mut self.0, State::Call(local)) {
                withdrawal.spend();
            }
        }
    }

    fn refund(&mut self) {
        if let State::Decided(withdrawal) = &self.0 {
            self.0 = State::Call(withdrawal.local.clone());
        }
    }
}
