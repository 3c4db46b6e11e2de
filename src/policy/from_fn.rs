use std::fmt;

use super::{Attempt, Decision, Policy, keep::Cloned};

/// A policy from one closure, for requests that are kept by cloning. Each call works on a clone of the closure, so what a `move` closure captures by
/// value begins anew with every call.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{Attempt, Decision, StopReason, policy_fn};
///
/// // Falls back to another host after the first failure.
/// let policy = policy_fn(|attempt: &Attempt, host: &mut &str, outcome: &mut Result<u16, std::io::Error>| {
///     match outcome {
///         Ok(status) if *status < 500 => Decision::Return,
///         _ if attempt.number() == 3 => Decision::GiveUp(StopReason::Exhausted),
///         _ => {
///             *host = "fallback.example";
///             Decision::Retry { after: Duration::from_millis(100) }
///         }
///     }
/// });
/// # fn check<P: tower_tenacity::Policy<&'static str, u16, std::io::Error>>(_: &P) {} check(&policy);
/// ```
pub fn policy_fn<F>(f: F) -> PolicyFn<F> {
    PolicyFn(f)
}

/// The policy returned by [`policy_fn`].
#[derive(Clone, Copy)]
pub struct PolicyFn<F>(F);

impl<F> fmt::Debug for PolicyFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PolicyFn").field(&std::any::type_name::<F>()).finish()
    }
}

impl<F, Req, Res, E> Policy<Req, Res, E> for PolicyFn<F>
where
    Req: Clone,
    F: FnMut(&Attempt, &mut Req, &mut Result<Res, E>) -> Decision,
{
    type Keep = Cloned;

    fn keep(&self) -> Cloned {
        Cloned
    }

    fn decide(&mut self, attempt: &Attempt, kept: Option<&mut Req>, outcome: &mut Result<Res, E>) -> Decision {
        // `Cloned` keeps every request for as long as `may_retry` says yes, which it does here.
        match kept {
            Some(kept) => (self.0)(attempt, kept, outcome),
            None => Decision::Return,
        }
    }
}
