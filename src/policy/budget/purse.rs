use tokio::time::Instant;

use super::{Budget, LocalBudget, Withdrawal};

/// The budget in a policy: that of all calls in the template, a handle to it in each call.
#[derive(Debug, Default)]
pub(crate) enum Purse {
    /// Retries cost nothing.
    #[default]
    None,
    All(Budget),
    Call(LocalBudget),
    /// A retry was decided and is not sent yet. Dropped, it is given back.
    Decided(Withdrawal),
}

impl Purse {
    /// The purse of one call.
    #[inline]
    pub(crate) fn begin(&self) -> Self {
        match self {
            Self::None => Self::None,
            Self::All(budget) => Self::Call(budget.local()),
            Self::Call(local) => Self::Call(local.clone()),
            Self::Decided(withdrawal) => Self::Call(withdrawal.local.clone()),
        }
    }

    /// A call has succeeded.
    #[inline]
    pub(crate) fn deposit(&self, now: impl FnOnce() -> Instant) {
        match self {
            Self::None => {}
            Self::All(budget) => budget.deposit(now),
            Self::Call(local) => local.deposit(now),
            Self::Decided(withdrawal) => withdrawal.local.deposit(now),
        }
    }

    /// Takes out what another attempt costs; whether there was enough.
    pub(crate) fn withdraw(&mut self, now: impl FnOnce() -> Instant) -> bool {
        let withdrawal = match self {
            Self::None => return true,
            Self::All(budget) => budget.withdraw(now()),
            Self::Call(local) => local.withdraw(now()),
            // The one before was decided and never sent.
            Self::Decided(_) => return true,
        };
        match withdrawal {
            Some(withdrawal) => {
                *self = Self::Decided(withdrawal);
                true
            }
            None => false,
        }
    }

    /// The attempt that was decided is sent.
    #[inline]
    pub(crate) fn spend(&mut self) {
        if let Self::Decided(withdrawal) = self {
            let local = withdrawal.local.clone();
            if let Self::Decided(withdrawal) = std::mem::replace(self, Self::Call(local)) {
                withdrawal.spend();
            }
        }
    }

    /// The attempt that was decided will not be sent.
    pub(crate) fn refund(&mut self) {
        if let Self::Decided(withdrawal) = self {
            *self = Self::Call(withdrawal.local.clone());
        }
    }
}

impl Clone for Purse {
    /// What was decided for one call is not decided for another.
    fn clone(&self) -> Self {
        match self {
            Self::All(budget) => Self::All(budget.clone()),
            other => other.begin(),
        }
    }
}
