use std::{
    any::Any,
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use super::{Attempt, Decision, Keep, Policy};

/// A policy whose type is hidden: for a struct field, a configuration chosen at run time, a long build-up.
///
/// Costs one allocation per call for the policy and one for the kept request. Code that is no service is retried with
/// [`retry::run`](crate::retry::run), as there is no method `run` here.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{BoxPolicy, RetryPolicy, wait};
///
/// fn policy(patient: bool) -> BoxPolicy<String, u32, std::io::Error> {
///     let policy = RetryPolicy::new();
///     if patient { policy.wait(wait::fixed(Duration::from_secs(30))).boxed() } else { policy.boxed() }
/// }
/// # policy(true);
/// ```
pub struct BoxPolicy<Req, Res, E>(Box<dyn Erased<Req, Res, E>>);

impl<Req, Res, E> BoxPolicy<Req, Res, E> {
    /// Hides the type of `policy`.
    pub fn new<P>(policy: P) -> Self
    where
        P: Policy<Req, Res, E> + Clone + Send + Sync + 'static,
        P::Keep: Send + Sync + 'static,
        <P::Keep as Keep<Req>>::Kept: Send + 'static,
    {
        Self(Box::new(policy))
    }
}

impl<Req, Res, E> Clone for BoxPolicy<Req, Res, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone_box())
    }
}

impl<Req, Res, E> fmt::Debug for BoxPolicy<Req, Res, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("BoxPolicy").field(&self.0.type_name()).finish()
    }
}

impl<Req, Res, E> Policy<Req, Res, E> for BoxPolicy<Req, Res, E> {
    type Keep = BoxKeep<Req>;

    fn keep(&self) -> BoxKeep<Req> {
        self.0.keep()
    }

    fn decide(&mut self, attempt: &Attempt, kept: Option<&mut BoxKept>, outcome: &mut Result<Res, E>) -> Decision {
        self.0.decide(attempt, kept, outcome)
    }

    fn begin(&self, request: &Req) -> Self {
        Self(self.0.begin_box(request))
    }

    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll_drain(response, cx)
    }

    fn may_retry(&self, number: u32) -> bool {
        self.0.may_retry(number)
    }

    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Req) {
        self.0.before_attempt(attempt, request);
    }

    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<Res, E>) {
        self.0.not_replayable(attempt, outcome);
    }

    fn not_ready(&mut self, attempt: &Attempt, error: &E) {
        self.0.not_ready(attempt, error);
    }

    fn timed_out(&mut self, attempt: &Attempt) {
        self.0.timed_out(attempt);
    }

    fn timeout(&self) -> Option<Duration> {
        self.0.timeout()
    }

    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }
}

/// What a [`BoxPolicy`] keeps of a request.
pub struct BoxKept(Box<dyn Any + Send>);

impl fmt::Debug for BoxKept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKept")
    }
}

/// How a [`BoxPolicy`] keeps a request.
pub struct BoxKeep<Req>(Box<dyn ErasedKeep<Req>>);

impl<Req> fmt::Debug for BoxKeep<Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxKeep")
    }
}

impl<Req> Keep<Req> for BoxKeep<Req> {
    type Kept = BoxKept;

    fn first(&self, request: Req) -> (Req, Option<BoxKept>) {
        self.0.first(request)
    }

    fn again(&self, kept: BoxKept, last: bool) -> (Req, Option<BoxKept>) {
        self.0.again(kept, last)
    }

    fn is_repeatable(&self, kept: &BoxKept) -> bool {
        self.0.is_repeatable(kept)
    }

    fn take_over(&self, kept: &mut BoxKept) -> bool {
        self.0.take_over(kept)
    }
}

trait ErasedKeep<Req>: Send + Sync {
    fn first(&self, request: Req) -> (Req, Option<BoxKept>);
    fn again(&self, kept: BoxKept, last: bool) -> (Req, Option<BoxKept>);
    fn is_repeatable(&self, kept: &BoxKept) -> bool;
    fn take_over(&self, kept: &mut BoxKept) -> bool;
}

// A kept value only ever returns to the policy that made it: both live in one call.
const SAME_POLICY: &str = "a kept request goes back to the policy that kept it";

impl<K, Req> ErasedKeep<Req> for K
where
    K: Keep<Req, Kept: Send + 'static> + Send + Sync,
{
    fn first(&self, request: Req) -> (Req, Option<BoxKept>) {
        let (request, kept) = Keep::first(self, request);
        (request, kept.map(|kept| BoxKept(Box::new(kept))))
    }

    fn again(&self, kept: BoxKept, last: bool) -> (Req, Option<BoxKept>) {
        let kept = kept.0.downcast::<K::Kept>().expect(SAME_POLICY);
        let (request, kept) = Keep::again(self, *kept, last);
        (request, kept.map(|kept| BoxKept(Box::new(kept))))
    }

    fn is_repeatable(&self, kept: &BoxKept) -> bool {
        Keep::is_repeatable(self, kept.0.downcast_ref().expect(SAME_POLICY))
    }

    fn take_over(&self, kept: &mut BoxKept) -> bool {
        Keep::take_over(self, kept.0.downcast_mut().expect(SAME_POLICY))
    }
}

trait Erased<Req, Res, E>: Send + Sync {
    fn clone_box(&self) -> Box<dyn Erased<Req, Res, E>>;
    fn type_name(&self) -> &'static str;
    fn keep(&self) -> BoxKeep<Req>;
    fn decide(&mut self, attempt: &Attempt, kept: Option<&mut BoxKept>, outcome: &mut Result<Res, E>) -> Decision;
    fn begin_box(&self, request: &Req) -> Box<dyn Erased<Req, Res, E>>;
    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()>;
    fn may_retry(&self, number: u32) -> bool;
    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Req);
    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<Res, E>);
    fn not_ready(&mut self, attempt: &Attempt, error: &E);
    fn timed_out(&mut self, attempt: &Attempt);
    fn timeout(&self) -> Option<Duration>;
    fn is_timed(&self) -> bool;
}

impl<P, Req, Res, E> Erased<Req, Res, E> for P
where
    P: Policy<Req, Res, E> + Clone + Send + Sync + 'static,
    P::Keep: Send + Sync + 'static,
    <P::Keep as Keep<Req>>::Kept: Send + 'static,
{
    fn clone_box(&self) -> Box<dyn Erased<Req, Res, E>> {
        Box::new(self.clone())
    }

    fn type_name(&self) -> &'static str {
        std::any::type_name::<P>()
    }

    fn keep(&self) -> BoxKeep<Req> {
        BoxKeep(Box::new(Policy::keep(self)))
    }

    fn decide(&mut self, attempt: &Attempt, kept: Option<&mut BoxKept>, outcome: &mut Result<Res, E>) -> Decision {
        let kept = kept.map(|kept| kept.0.downcast_mut().expect(SAME_POLICY));
        Policy::decide(self, attempt, kept, outcome)
    }

    fn begin_box(&self, request: &Req) -> Box<dyn Erased<Req, Res, E>> {
        Box::new(Policy::begin(self, request))
    }

    fn poll_drain(&mut self, response: &mut Res, cx: &mut Context<'_>) -> Poll<()> {
        Policy::poll_drain(self, response, cx)
    }

    fn may_retry(&self, number: u32) -> bool {
        Policy::may_retry(self, number)
    }

    fn before_attempt(&mut self, attempt: &Attempt, request: &mut Req) {
        Policy::before_attempt(self, attempt, request);
    }

    fn not_replayable(&mut self, attempt: &Attempt, outcome: &Result<Res, E>) {
        Policy::not_replayable(self, attempt, outcome);
    }

    fn not_ready(&mut self, attempt: &Attempt, error: &E) {
        Policy::not_ready(self, attempt, error);
    }

    fn timed_out(&mut self, attempt: &Attempt) {
        Policy::timed_out(self, attempt);
    }

    fn timeout(&self) -> Option<Duration> {
        Policy::timeout(self)
    }

    fn is_timed(&self) -> bool {
        Policy::is_timed(self)
    }
}
