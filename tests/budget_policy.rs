//! The budget in a policy: what it pays for, what it gets back, and what is seen of it (laws 1, 5, 6, 16).

use std::{
    future::{pending, ready},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_tenacity::{
    BoxPolicy, Retry, RetryLayer, RetryPolicy, StopReason, classify,
    keep::Cloned,
    policy::budget::{Budget, Funds},
    stop, wait,
};

const SECOND: Duration = Duration::from_secs(1);

type Budgeted = RetryPolicy<stop::AfterAttempt, wait::Fixed, classify::Errors, (), Cloned, Funds<Budget>>;

fn policy(budget: &Budget) -> Budgeted {
    RetryPolicy::new().wait(wait::fixed(SECOND)).budget(budget.clone())
}

/// How many attempts a call makes that fails for good.
async fn failing(policy: &Budgeted) -> (u32, StopReason) {
    let service = service_fn(|()| ready(Err::<(), _>("down")));
    let error = Retry::new(policy.clone(), service).detailed().oneshot(()).await.unwrap_err();
    (error.attempts(), error.reason())
}

#[tokio::test(start_paused = true)]
async fn successes_pay_for_retries_and_the_reserve_for_the_first() {
    let budget = Budget::standard();
    let policy = policy(&budget);
    assert_eq!(failing(&policy).await, (3, StopReason::Exhausted));
    assert_eq!(failing(&policy).await, (1, StopReason::Budget));
    let fine = Retry::new(policy.clone(), service_fn(|()| ready(Ok::<_, &str>(()))));
    for _ in 0..10 {
        fine.clone().oneshot(()).await.unwrap();
    }
    assert_eq!(failing(&policy).await, (2, StopReason::Budget), "ten successes are worth one retry");
    // What was spent comes back, and what was earned goes, after a window.
    advance(62 * SECOND).await;
    assert_eq!(failing(&policy).await, (3, StopReason::Exhausted));
    assert_eq!(failing(&policy).await, (1, StopReason::Budget));
}

#[tokio::test(start_paused = true)]
async fn everything_made_from_one_policy_shares_it() {
    let policy = policy(&Budget::standard());
    let boxed: BoxPolicy<(), (), &str> = policy.clone().boxed();
    let layer = RetryLayer::new(policy.clone());
    assert_eq!(failing(&policy).await.0, 3);
    let counted = Arc::new(AtomicU32::new(0));
    let calls = counted.clone();
    let service = service_fn(move |()| {
        calls.fetch_add(1, SeqCst);
        ready(Err::<(), _>("down"))
    });
    layer.layer(service.clone()).clone().oneshot(()).await.unwrap_err();
    RetryLayer::new(boxed).layer(service.clone()).oneshot(()).await.unwrap_err();
    policy.run(|_| ready(Err::<(), _>("down"))).await.unwrap_err();
    assert_eq!(counted.load(SeqCst), 2, "none of them was tried again");
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_was_never_sent_is_given_back() {
    let budget = Budget::standard();
    let service = Retry::new(policy(&budget), service_fn(|()| ready(Err::<(), _>("down"))));
    // Dropped in its wait.
    assert!(tokio::time::timeout(SECOND / 2, service.clone().oneshot(())).await.is_err());
    assert_eq!(budget.available(Instant::now()), 2);
    // Dropped in its second wait: the first retry was sent.
    assert!(tokio::time::timeout(SECOND * 3 / 2, service.oneshot(())).await.is_err());
    assert_eq!(budget.available(Instant::now()), 1);
}

/// Ready once; then an error, or never again.
#[derive(Clone)]
struct Once(Arc<AtomicBool>, bool);

impl Service<()> for Once {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match (self.0.swap(true, SeqCst), self.1) {
            (false, _) => Poll::Ready(Ok(())),
            (true, true) => Poll::Ready(Err("closed")),
            (true, false) => Poll::Pending,
        }
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Err("down"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_become_ready_again_costs_nothing() {
    for fails in [true, false] {
        let budget = Budget::standard();
        let service = Retry::new(policy(&budget), Once(Arc::default(), fails));
        let outcome = tokio::time::timeout(5 * SECOND, service.oneshot(())).await;
        assert_eq!(outcome.ok(), fails.then_some(Err("closed")));
        assert_eq!(budget.available(Instant::now()), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_not_retried_for_another_reason_is_not_charged() {
    let budget = Budget::standard();
    let base = policy(&budget);
    let down = || service_fn(|()| ready(Err::<(), _>("down")));
    let permanent = base.clone().classify(classify::permanent_if(classify::always()));
    Retry::new(permanent, down()).oneshot(()).await.unwrap_err();
    Retry::new(base.clone().stop(stop::after_attempt(1)), down()).oneshot(()).await.unwrap_err();
    Retry::new(base.clone().timeout(SECOND), down()).oneshot(()).await.unwrap_err();
    Retry::new(base.clone().idempotent(false), down()).oneshot(()).await.unwrap_err();
    Retry::new(base.enabled(false), down()).oneshot(()).await.unwrap_err();
    assert_eq!(budget.available(Instant::now()), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_cannot_be_repeated_earns_all_the_same() {
    let budget = Budget::standard();
    let policy = policy(&budget).stop(stop::after_attempt(1)).idempotent(false);
    let fine = Retry::new(policy, service_fn(|()| ready(Ok::<_, &str>(()))));
    for _ in 0..20 {
        fine.clone().oneshot(()).await.unwrap();
    }
    // Two retries more, one of them at once.
    assert_eq!(budget.available(Instant::now()), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_calls_at_once_do_not_get_more_than_the_bound() {
    let budget = Budget::standard();
    let attempts = Arc::new(Mutex::new((0_u64, 0_u64)));
    let seen = attempts.clone();
    let service = service_fn(move |number: u32| {
        let mut seen = seen.lock().unwrap();
        seen.0 += 1;
        let fails = !number.is_power_of_two() && number % 3 == 0;
        seen.1 += u64::from(!fails);
        ready(if fails { Err("down") } else { Ok(()) })
    });
    let retry = Retry::new(RetryPolicy::new().wait(wait::none()).budget(budget), service);
    let calls: Vec<_> = (0..3000).map(|number| tokio::spawn(retry.clone().oneshot(number))).collect();
    for call in calls {
        let _ = call.await.unwrap();
    }
    let (attempts, successes) = *attempts.lock().unwrap();
    let retries = attempts - 3000;
    assert!(retries <= successes / 10 + 2, "{retries} retries for {successes} successes");
    assert!(retries >= successes / 10 / 2, "and most of what is allowed is used: {retries} for {successes}");
}

#[tokio::test(start_paused = true)]
async fn a_call_under_way_does_not_hold_the_budget_back() {
    let budget = Budget::standard();
    let hanging = Retry::new(policy(&budget), service_fn(|()| pending::<Result<(), &str>>()));
    let call = tokio::spawn(hanging.oneshot(()));
    tokio::task::yield_now().await;
    assert_eq!(failing(&policy(&budget)).await.0, 3);
    call.abort();
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_budget_of_its_own() {
    let made = Arc::new(AtomicU32::new(0));
    let counted = made.clone();
    let service = service_fn(move |_: &'static str| {
        counted.fetch_add(1, SeqCst);
        ready(Err::<(), _>("down"))
    });
    let policy = RetryPolicy::new().wait(wait::none()).budget(Budget::standard().per(|host: &&'static str| *host));
    let layer = RetryLayer::new(policy.clone());
    for (host, attempts) in [("a", 3), ("a", 1), ("b", 3), ("a", 1), ("b", 1)] {
        layer.layer(service.clone()).oneshot(host).await.unwrap_err();
        assert_eq!(made.swap(0, SeqCst), attempts, "{host}");
    }
    let unbudgeted = RetryLayer::new(policy.without_budget());
    unbudgeted.layer(service).oneshot("a").await.unwrap_err();
    assert_eq!(made.load(SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn a_retry_that_the_deadline_cuts_before_it_is_sent_is_given_back_at_once() {
    #[derive(Clone)]
    struct Once(bool);
    impl Service<()> for Once {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;
        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
            if std::mem::take(&mut self.0) { Poll::Ready(Ok(())) } else { Poll::Pending }
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(Err("down"))
        }
    }
    let budget = Budget::standard();
    let mut service = Retry::new(policy(&budget).timeout(3 * SECOND), Once(true)).detailed();
    service.ready().await.unwrap();
    let mut call = std::pin::pin!(service.call(()));
    let error = call.as_mut().await.unwrap_err();
    // The future is still there.
    assert_eq!((error.reason(), budget.available(Instant::now())), (StopReason::Deadline, 2));
}
