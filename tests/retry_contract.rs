//! The service contract: readiness, copies, drops and cancellation (laws 1–3, 5–8).

mod common;

use std::{
    future::{Future, ready},
    io,
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::{Counted, Strict};
use tokio::time::{Instant, sleep};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    Keep, Retry, RetryLayer, RetryPolicy, StopReason, classify, hooks::Observer, keep::Nothing, stop, wait,
};

const SECOND: Duration = Duration::from_secs(1);

fn every_second() -> RetryPolicy<stop::AfterAttempt, wait::Fixed> {
    RetryPolicy::new().wait(wait::fixed(SECOND))
}

#[tokio::test(start_paused = true)]
async fn each_attempt_is_preceded_by_exactly_one_readiness() {
    let inner = Strict::failing(2);
    let counts = inner.counts.clone();
    let mut service = Retry::new(every_second(), inner);
    assert_eq!(call(&mut service, 7).await.unwrap(), 3);
    assert_eq!(counts.get(), (3, 3, 1));
    // The same instance serves the next call.
    assert_eq!(call(&mut service, 7).await.unwrap(), 4);
    assert_eq!(counts.get(), (4, 4, 2));
}

#[tokio::test(start_paused = true)]
async fn the_instance_that_was_polled_ready_is_the_one_called() {
    // `Strict` panics otherwise; a clone starts out unready.
    let inner = Strict::failing(0);
    let mut service = tower::Layer::layer(&RetryLayer::new(every_second()), inner).clone();
    assert_eq!(call(&mut service, ()).await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_of_one_is_free_while_the_call_waits() {
    let inner = ServiceBuilder::new().concurrency_limit(1).service(Strict::failing(2));
    let mut other = inner.clone();
    let mut service = Retry::new(every_second(), inner);
    let mut pending = pin!(call(&mut service, ()));
    assert!(poll_once(pending.as_mut()).is_pending());
    // Waiting: the only permit is there for somebody else.
    assert_eq!(call(&mut other, ()).await.unwrap_err().to_string(), "failure 2");
    assert_eq!(pending.await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn retries_pass_through_a_buffer() {
    let inner = Strict::failing(2);
    let counts = inner.counts.clone();
    let inner = ServiceBuilder::new().buffer::<u8>(1).service(inner);
    let mut service = Retry::new(every_second(), inner);
    for _ in 0..5 {
        call(&mut service, 1).await.unwrap();
    }
    assert_eq!(counts.get().1, 7);
}

#[tokio::test(start_paused = true)]
async fn a_load_shed_refusal_in_call_is_an_outcome_like_any_other() {
    // One slot, held by another call for 1.5 s: attempts at 0 s and 1 s are shed, the one at 2 s is served.
    let inner =
        ServiceBuilder::new().load_shed().concurrency_limit(1).service(service_fn(|hold: Duration| async move {
            sleep(hold).await;
            Ok::<_, BoxError>(hold)
        }));
    let mut other = inner.clone();
    let holder = call(&mut other, Duration::from_millis(1500));
    let begun = Instant::now();
    // `oneshot` drops the instance it called; kept, that one would stay first in the queue for the slot.
    let retried = Retry::new(every_second(), inner).oneshot(Duration::ZERO);
    let (held, retried) = tokio::join!(holder, retried);
    assert!(held.is_ok() && retried.is_ok());
    assert_eq!(begun.elapsed(), 2 * SECOND);
}

/// Ready for as many calls as it says, then its `poll_ready` fails.
#[derive(Clone)]
struct Closing(Arc<AtomicU32>);

impl Service<()> for Closing {
    type Response = ();
    type Error = &'static str;
    type Future = std::future::Ready<Result<(), &'static str>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        let left = self.0.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1));
        Poll::Ready(left.map(drop).map_err(|_| "closed"))
    }

    fn call(&mut self, (): ()) -> Self::Future {
        ready(Err("failed"))
    }
}

#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<String>>>);

impl<Res, E: std::fmt::Display> Observer<Res, E> for Ends {
    fn gave_up(&self, attempt: &tower_tenacity::Attempt, _: &Result<Res, E>, reason: StopReason) {
        self.0.lock().unwrap().push(format!("gave up at {}: {reason}", attempt.number()));
    }
    fn not_ready(&self, attempt: &tower_tenacity::Attempt, error: &E) {
        self.0.lock().unwrap().push(format!("not ready for {}: {error}", attempt.number()));
    }
    fn succeeded(&self, attempt: &tower_tenacity::Attempt, _: &Result<Res, E>) {
        self.0.lock().unwrap().push(format!("succeeded at {}", attempt.number()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_readiness_error_on_a_retry_ends_the_call_unchanged_and_is_reported() {
    let ends = Ends::default();
    let mut service = Retry::new(every_second().observe(ends.clone()), Closing(Arc::new(AtomicU32::new(2))));
    assert_eq!(call(&mut service, ()).await, Err("closed"));
    assert_eq!(*ends.0.lock().unwrap(), ["not ready for 3: closed"]);

    let mut detailed = Retry::new(every_second(), Closing(Arc::new(AtomicU32::new(2)))).detailed();
    let error = call(&mut detailed, ()).await.unwrap_err();
    assert_eq!((error.attempts(), error.reason(), error.last()), (2, StopReason::NotReady, Some(&"closed")));
}

/// Something whose drop is seen.
#[derive(Debug)]
struct Guard(Arc<AtomicU32>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn guard(alive: &Arc<AtomicU32>) -> Guard {
    alive.fetch_add(1, SeqCst);
    Guard(alive.clone())
}

#[tokio::test(start_paused = true)]
async fn future_response_and_error_are_dropped_before_the_wait() {
    for respond in [true, false] {
        let alive = Arc::new(AtomicU32::new(0));
        let inside = alive.clone();
        let inner = service_fn(move |()| {
            let (in_future, outcome) = (guard(&inside), guard(&inside));
            async move {
                let _in_future = in_future;
                sleep(SECOND).await;
                if respond { Ok(outcome) } else { Err(outcome) }
            }
        });
        let policy = every_second().classify(classify::retry_if(classify::always()));
        let mut service = Retry::new(policy, inner);
        let mut pending = pin!(call(&mut service, ()));
        assert!(poll_once(pending.as_mut()).is_pending());
        assert_eq!(alive.load(SeqCst), 2, "the first attempt is under way");
        tokio::time::advance(SECOND).await;
        assert!(poll_once(pending.as_mut()).is_pending());
        assert_eq!(alive.load(SeqCst), 0, "waiting, with nothing held");
        let outcome = pending.await;
        assert_eq!(alive.load(SeqCst), 1, "the last outcome is handed back");
        assert_eq!(outcome.is_ok(), respond);
    }
}

#[tokio::test(start_paused = true)]
async fn n_attempts_make_n_minus_one_clones() {
    for attempts in 1..=5 {
        let (request, clones) = Counted::new();
        let inner = Strict::failing(u32::MAX);
        let counts = inner.counts.clone();
        let mut service = Retry::new(every_second().stop(stop::after_attempt(attempts)), inner);
        call(&mut service, request).await.unwrap_err();
        assert_eq!(clones.load(SeqCst), attempts - 1);
        assert_eq!(counts.get(), (attempts, attempts, u32::from(attempts > 1)));
    }
}

#[tokio::test]
async fn a_policy_that_cannot_retry_copies_neither_request_nor_service() {
    let policies = [RetryPolicy::new().stop(stop::after_attempt(1)), RetryPolicy::new().enabled(false)];
    for policy in policies {
        let (request, clones) = Counted::new();
        let inner = Strict::failing(1);
        let counts = inner.counts.clone();
        let mut service = Retry::new(policy, inner);
        call(&mut service, request).await.unwrap_err();
        assert_eq!(clones.load(SeqCst), 0);
        assert_eq!(counts.get(), (1, 1, 0));
    }
}

/// Sends the original first and rebuilds later requests from a number.
#[derive(Clone)]
struct Rebuild(Arc<AtomicU32>);

struct Job {
    number: u32,
    original: bool,
}

impl Keep<Job> for Rebuild {
    type Kept = u32;
    fn first(&self, job: Job) -> (Job, Option<u32>) {
        let kept = job.number;
        (job, Some(kept))
    }
    fn again(&self, number: u32, last: bool) -> (Job, Option<u32>) {
        self.0.fetch_add(1, SeqCst);
        (Job { number, original: false }, (!last).then_some(number))
    }
}

#[tokio::test(start_paused = true)]
async fn another_way_of_keeping_sends_the_original_first() {
    let rebuilt = Arc::new(AtomicU32::new(0));
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    let inner = service_fn(move |job: Job| {
        log.lock().unwrap().push((job.number, job.original));
        ready(Err::<(), _>("failed"))
    });
    let mut service = Retry::new(every_second().keep(Rebuild(rebuilt.clone())), inner);
    call(&mut service, Job { number: 9, original: true }).await.unwrap_err();
    assert_eq!(*seen.lock().unwrap(), [(9, true), (9, false), (9, false)]);
    assert_eq!(rebuilt.load(SeqCst), 2);
}

#[tokio::test]
async fn a_request_that_cannot_be_kept_is_sent_once_and_the_policy_is_told() {
    struct Unique;
    let ends = Ends::default();
    let inner = service_fn(|_: Unique| ready(Err::<(), _>("failed")));
    let mut service = Retry::new(every_second().keep(Nothing).observe(ends.clone()), inner);
    assert_eq!(call(&mut service, Unique).await, Err("failed"));
    assert_eq!(*ends.0.lock().unwrap(), ["gave up at 1: the request cannot be sent again"]);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_calls_over_one_stack_each_get_their_own_attempts() {
    let calls = Arc::new(Mutex::new(std::collections::HashMap::<u32, u32>::new()));
    let log = calls.clone();
    let inner = service_fn(move |id: u32| {
        let attempt = {
            let mut log = log.lock().unwrap();
            *log.entry(id).and_modify(|n| *n += 1).or_insert(1)
        };
        // Call `id` needs `id % 5 + 1` attempts; four are allowed.
        async move { if attempt > id % 5 { Ok(attempt) } else { Err(attempt) } }
    });
    let service = Retry::new(RetryPolicy::new().stop(stop::after_attempt(4)), inner);
    let tasks: Vec<_> = (0..1000).map(|id| tokio::spawn(service.clone().oneshot(id))).collect();
    for (id, task) in (0..).zip(tasks) {
        let needed = id % 5 + 1;
        assert_eq!(task.await.unwrap(), if needed <= 4 { Ok(needed) } else { Err(4) });
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_at_any_point_stops_it_and_frees_all() {
    // Polled in the middle of attempt 1, the wait, readiness, attempt 2.
    for advance in [0, 500, 1500, 2000, 2500] {
        let alive = Arc::new(AtomicU32::new(0));
        let calls = Arc::new(AtomicU32::new(0));
        let (inside, counted) = (alive.clone(), calls.clone());
        let inner = ServiceBuilder::new().concurrency_limit(1).service(service_fn(move |()| {
            counted.fetch_add(1, SeqCst);
            let guard = guard(&inside);
            async move {
                sleep(SECOND).await;
                Err::<(), _>(guard)
            }
        }));
        let mut other = inner.clone();
        let mut service = Retry::new(every_second(), inner);
        let mut pending = Box::pin(call(&mut service, ()));
        let _ = poll_once(pending.as_mut());
        for _ in 0..advance / 500 {
            tokio::time::advance(Duration::from_millis(500)).await;
            let _ = poll_once(pending.as_mut());
        }
        drop(pending);
        assert_eq!(alive.load(SeqCst), 0);
        let made = calls.load(SeqCst);
        assert!(other.ready().await.is_ok(), "the permit is free again");
        sleep(10 * SECOND).await;
        assert_eq!(calls.load(SeqCst), made, "nothing goes on after the drop");
    }
}

#[tokio::test]
async fn a_service_that_fails_at_once_starves_nobody() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let inner = service_fn(move |()| {
        counted.fetch_add(1, SeqCst);
        ready(Err::<(), _>("failed"))
    });
    let mut service = Retry::new(RetryPolicy::new().stop(stop::never()).wait(wait::none()), inner);
    let mut pending = pin!(call(&mut service, ()));
    assert!(poll_once(pending.as_mut()).is_pending());
    assert_eq!(calls.load(SeqCst), 33, "the first attempt and 32 more in one poll");
    assert!(tokio::time::timeout(Duration::from_millis(20), pending).await.is_err());
}

#[test]
fn without_a_delay_no_runtime_is_needed() {
    // No timer is touched and, with a policy that is not timed, no clock read: there is no tokio here at all.
    let mut service = Retry::new(RetryPolicy::new().wait(wait::none()), Strict::failing(2));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::<()>::poll_ready(&mut service, &mut cx).is_ready());
    let mut call = pin!(service.call(()));
    assert!(matches!(call.as_mut().poll(&mut cx), Poll::Ready(Ok(3))));
}

#[tokio::test]
async fn the_inner_service_can_be_reached() {
    let mut service = Retry::new(RetryPolicy::new(), Strict::failing(1));
    assert_eq!(service.get_ref().counts.get(), (0, 0, 0));
    let _ = service.get_mut();
    assert_eq!(service.into_inner().counts.get(), (0, 0, 0));
}

#[tokio::test]
async fn bounds_are_as_weak_as_towers() {
    use std::{cell::Cell, rc::Rc};
    // Neither request, response, error, future nor service is `Send`, `Sync`, `Unpin` or `'static`.
    let local = String::from("borrowed");
    let borrowed = &local;
    let inner = service_fn(move |request: Rc<Cell<u32>>| async move {
        request.set(request.get() + 1);
        let _pinned = std::marker::PhantomPinned;
        if request.get() < 3 { Err(Rc::new(borrowed)) } else { Ok(Rc::new(borrowed)) }
    });
    let mut service = Retry::new(RetryPolicy::new().wait(wait::none()), inner);
    let answer = call(&mut service, Rc::new(Cell::new(0))).await;
    assert_eq!(**answer.unwrap(), "borrowed");

    // And what is `Send` and `Sync` stays so, also with a request that is not `Sync`.
    fn send_sync<T: Send + Sync>(_: &T) {}
    fn send<T: Send>(_: &T) {}
    let service = Retry::new(RetryPolicy::new(), Strict::failing(0));
    send_sync(&service);
    send(&service.clone().oneshot(Cell::new(1)));
    let boxed = Retry::new(RetryPolicy::new().boxed::<Cell<u32>, u32, io::Error>(), Strict::failing(0));
    send_sync(&boxed);
    send(&boxed.oneshot(Cell::new(1)));
}

#[tokio::test(start_paused = true)]
async fn the_layer_is_inferred_through_a_service_builder() {
    let service = ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::new())).service(Strict::failing(2));
    assert_eq!(service.oneshot(1_u8).await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn readiness_is_waited_for_between_attempts() {
    // The clone becomes ready only after three seconds.
    #[derive(Default)]
    struct Slow(Option<std::pin::Pin<Box<tokio::time::Sleep>>>, bool);
    impl Clone for Slow {
        fn clone(&self) -> Self {
            Self(Some(Box::pin(sleep(4 * SECOND))), true)
        }
    }
    impl Service<()> for Slow {
        type Response = ();
        type Error = &'static str;
        type Future = std::future::Ready<Result<(), &'static str>>;
        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
            match &mut self.0 {
                Some(sleep) => sleep.as_mut().poll(cx).map(Ok),
                None => Poll::Ready(Ok(())),
            }
        }
        fn call(&mut self, (): ()) -> Self::Future {
            ready(if self.1 { Ok(()) } else { Err("first") })
        }
    }
    let begun = Instant::now();
    let mut service = Retry::new(every_second(), Slow::default());
    assert_eq!(call(&mut service, ()).await, Ok(()));
    assert_eq!(begun.elapsed(), 4 * SECOND);
}

async fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}
