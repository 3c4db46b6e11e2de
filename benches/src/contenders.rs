//! Three attempts and a jittered backoff that starts between `base` and twice as much, by several hands.

use std::{
    future::{Future, Ready, ready},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use backon::{BackoffBuilder, ExponentialBuilder, Retryable};
use tokio::time::Instant;
use tower::retry::{
    Policy as TowerPolicy, Retry as TowerRetry,
    backoff::{Backoff, ExponentialBackoff, ExponentialBackoffMaker, MakeBackoff},
    budget::{Budget as _, TpsBudget},
};
use tower_layer::Layer;
use tower_resilience_retry::{ExponentialRandomBackoff, RetryLayer as ResilienceLayer};
use tower_service::Service;
use tower_tenacity::{
    Attempt, Decision, Keep, Policy, Retry, RetryLayer, RetryPolicy,
    circuit_breaker::{self, BreakerPolicy, CircuitBreakerLayer},
    classify,
    cooldown::CooldownLayer,
    policy::budget::{Budget, KeyedBudget},
    telemetry::{BreakerMetrics, CooldownMetrics, Metrics},
    wait,
};

use crate::{Answer, Failed, Inner};

/// In the order of the report. `ours-static` is ours with its policy behind a reference; `tower-min` has attempts only: no delay, no budget.
pub const CONTENDERS: [&str; 7] = ["bare", "ours", "ours-static", "tower-min", "tower-tps", "resilience", "backon"];

/// Makes a service ready and calls it.
pub trait Contender: Send + 'static {
    type Error: Send + 'static;
    type Future: Future<Output = Result<u64, Self::Error>> + Send;

    fn call(&mut self, request: u64) -> Self::Future;
    fn again(&self) -> Self;
    /// The size of the service itself.
    fn size(&self) -> usize {
        size_of_val(self)
    }
}

/// Something to be done with a contender, whatever its type.
pub trait Visit {
    type Output;

    fn visit<C: Contender>(self, contender: C) -> Self::Output;
}

/// Hands the contender of that name to the visitor.
pub fn visit<V: Visit>(name: &str, inner: Inner, base: Duration, visitor: V) -> V::Output {
    match name {
        "bare" => visitor.visit(Stacked(inner)),
        "ours" => {
            let policy = RetryPolicy::new().wait(wait::floored_jitter().transient(base));
            visitor.visit(Stacked(Retry::new(policy, inner)))
        }
        "ours-static" => {
            let policy = Box::leak(Box::new(RetryPolicy::new().wait(wait::floored_jitter().transient(base))));
            visitor.visit(Stacked(Retry::new(Static(&*policy), inner)))
        }
        "tower-min" => visitor.visit(Stacked(TowerRetry::new(Attempts::new(), inner))),
        "tower-tps" => visitor.visit(Stacked(TowerRetry::new(Tps::new(base), inner))),
        "resilience" => {
            let backoff = ExponentialRandomBackoff::new(base.mul_f64(1.5), 1.0 / 3.0).expect("a valid factor");
            let layer = ResilienceLayer::<u64, u64, Failed>::builder().max_attempts(3).backoff(backoff).build();
            visitor.visit(Stacked(layer.layer(inner)))
        }
        "backon" => {
            let builder = ExponentialBuilder::default().with_min_delay(base).with_max_times(2).with_jitter();
            visitor.visit(ByFunction { inner, builder, call: backon_call })
        }
        _ => protected(name, inner, base, visitor),
    }
}

struct Stacked<S>(S);

impl<S> Contender for Stacked<S>
where
    S: Service<u64, Response = u64, Error: Send + 'static, Future: Send> + Clone + Send + 'static,
{
    type Error = S::Error;
    type Future = S::Future;

    #[inline]
    fn call(&mut self, request: u64) -> S::Future {
        match self.0.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => self.0.call(request),
            _ => unreachable!("the service is always ready"),
        }
    }

    fn again(&self) -> Self {
        Self(self.0.clone())
    }
}

// backon retries functions: what stands for a service is a clone of it for every attempt.
#[derive(Clone)]
struct ByFunction<B, F> {
    inner: Inner,
    builder: B,
    call: F,
}

impl<B, F, Fut> Contender for ByFunction<B, F>
where
    B: BackoffBuilder + Clone + Send + 'static,
    F: Fn(B, Inner, u64) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<u64, Failed>> + Send,
{
    type Error = Failed;
    type Future = Fut;

    #[inline]
    fn call(&mut self, request: u64) -> Fut {
        (self.call)(self.builder.clone(), self.inner, request)
    }

    fn again(&self) -> Self {
        self.clone()
    }
}

#[inline]
fn backon_call(
    builder: ExponentialBuilder,
    inner: Inner,
    request: u64,
) -> impl Future<Output = Result<u64, Failed>> + Send {
    let attempt = move || {
        let mut inner = inner;
        inner.call(request)
    };
    attempt.retry(builder)
}

// A policy that calls look at where it is, instead of each having a copy of it. Knows no settings per request.
#[derive(Debug)]
struct Static<P: 'static>(&'static P);

impl<P> Clone for Static<P> {
    fn clone(&self) -> Self {
        Self(self.0)
    }
}

impl<P, Req, Res, E> Policy<Req, Res, E> for Static<P>
where
    P: Policy<Req, Res, E> + Clone,
{
    type Keep = P::Keep;

    #[inline]
    fn keep(&self) -> P::Keep {
        self.0.keep()
    }

    #[inline]
    fn decide(
        &mut self,
        attempt: &Attempt,
        kept: Option<&mut <P::Keep as Keep<Req>>::Kept>,
        outcome: &mut Result<Res, E>,
    ) -> Decision {
        match outcome {
            Ok(_) => Decision::Return,
            Err(_) => self.0.clone().decide(attempt, kept, outcome),
        }
    }

    #[inline]
    fn accepts(&mut self, _: &Res) -> bool {
        true
    }

    #[inline]
    fn may_retry(&self, number: u32) -> bool {
        self.0.may_retry(number)
    }

    #[inline]
    fn timeout(&self) -> Option<Duration> {
        self.0.timeout()
    }

    #[inline]
    fn is_timed(&self) -> bool {
        self.0.is_timed()
    }
}

/// tower's retry with attempts only.
#[derive(Clone)]
pub struct Attempts {
    left: u32,
}

impl Attempts {
    /// Three of them.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Self {
        Self { left: 2 }
    }
}

impl<Req: Clone, Res, E> TowerPolicy<Req, Res, E> for Attempts {
    type Future = Ready<()>;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Ready<()>> {
        if result.is_ok() || self.left == 0 {
            return None;
        }
        self.left -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// tower's retry with its backoff and its budget.
#[derive(Clone)]
pub struct Tps {
    left: u32,
    backoff: ExponentialBackoff,
    budget: Arc<TpsBudget>,
}

impl Tps {
    /// Waits between `base` and twice as much.
    pub fn new(base: Duration) -> Self {
        let most = base.max(Duration::from_secs(20)) * 2;
        let backoff = ExponentialBackoffMaker::new(base, most, 1.0, Default::default());
        let backoff = backoff.expect("valid bounds").make_backoff();
        // So large that it never refuses: what is compared is its price, not its effect.
        let budget = Arc::new(TpsBudget::new(Duration::from_secs(10), 100_000, 1000.0));
        Self { left: 2, backoff, budget }
    }
}

impl<Req: Clone, Res, E> TowerPolicy<Req, Res, E> for Tps {
    type Future = <ExponentialBackoff as Backoff>::Future;

    fn retry(&mut self, _: &mut Req, result: &mut Result<Res, E>) -> Option<Self::Future> {
        if result.is_ok() {
            self.budget.deposit();
            return None;
        }
        if self.left == 0 || !self.budget.withdraw() {
            return None;
        }
        self.left -= 1;
        Some(self.backoff.next_backoff())
    }

    fn clone_request(&mut self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }
}

/// Retries with what protects the service from them, all closed and quiet, and each part alone.
pub const PROTECTED: [&str; 16] = [
    "bare",
    "ours",
    "ours+budget",
    "budget, leaked",
    "cooldown",
    "cooldown, leaked",
    "breaker",
    "breaker, leaked",
    "stack",
    "stack, leaked",
    "budget/key",
    "cooldown/key",
    "breaker/key",
    "stack/key",
    "tower-tps",
    "resilience",
];

/// With metrics attached that nobody records, beside the same without.
pub const SEEN: [&str; 7] = ["bare", "ours", "ours, seen", "cooldown", "cooldown, seen", "breaker", "breaker, seen"];

// Eight keys, as of models or hosts.
fn key(request: &u64) -> u64 {
    request % 8
}

fn protected<V: Visit>(name: &str, inner: Inner, base: Duration, visitor: V) -> V::Output {
    let policy = RetryPolicy::new().wait(wait::floored_jitter().transient(base));
    let cooldown = CooldownLayer::new(classify::errors());
    let breaker = CircuitBreakerLayer::new(BreakerPolicy::new());
    let retry = RetryLayer::new(
        policy.clone().budget(Budget::standard()).classify(classify::refusals().or(classify::errors())),
    );
    match name {
        "ours+budget" => visitor.visit(Stacked(Retry::new(policy.budget(Budget::standard()), inner))),
        "budget, leaked" => visitor.visit(Stacked(Retry::new(policy.budget(Budget::standard().leak()), inner))),
        "cooldown" => visitor.visit(Stacked(cooldown.layer(inner))),
        "breaker" => visitor.visit(Stacked(breaker.layer(inner))),
        "stack" => visitor.visit(Stacked(retry.layer(cooldown.layer(breaker.layer(inner))))),
        "stack, leaked" => {
            let policy = policy.budget(Budget::standard().leak());
            let retry = RetryLayer::new(policy.classify(classify::refusals().or(classify::errors())));
            visitor.visit(Stacked(retry.layer(cooldown.leak().layer(breaker.leak().layer(inner)))))
        }
        "cooldown, leaked" => visitor.visit(Stacked(cooldown.leak().layer(inner))),
        "breaker, leaked" => visitor.visit(Stacked(breaker.leak().layer(inner))),
        "ours, seen" => visitor.visit(Stacked(Retry::new(policy.observe(Metrics::new("benches")), inner))),
        "cooldown, seen" => visitor.visit(Stacked(cooldown.observe(CooldownMetrics::new("benches")).layer(inner))),
        "breaker, seen" => visitor.visit(Stacked(breaker.observe(BreakerMetrics::new("benches")).layer(inner))),
        "budget/key" => visitor.visit(Stacked(Funded { budgets: Budget::standard().per(key), inner })),
        "cooldown/key" => visitor.visit(Stacked(cooldown.per(key).layer(inner))),
        "breaker/key" => visitor.visit(Stacked(breaker.per(key).layer(inner))),
        "stack/key" => visitor.visit(Stacked(retry.layer(cooldown.per(key).layer(breaker.per(key).layer(inner))))),
        _ => panic!("no contender is called {name}"),
    }
}

// Finds the budget of a request's key and pays into it.
#[derive(Clone)]
struct Funded<F> {
    budgets: KeyedBudget<F, u64>,
    inner: Inner,
}

impl<F: Fn(&u64) -> u64> Service<u64> for Funded<F> {
    type Response = u64;
    type Error = Failed;
    type Future = Answer;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: u64) -> Answer {
        self.budgets.of(&request, Instant::now).deposit(Instant::now);
        self.inner.call(request)
    }
}
