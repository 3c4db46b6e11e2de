//! What happens to a failed response, and to a request that cannot be repeated, before the wait (laws 2, 3, 14).

use std::{
    future::ready,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep};
use tower::{ServiceExt, service_fn};
use tower_tenacity::{
    Attempt, BoxPolicy, CallOptions, Decision, Keep, Policy, Retry, RetryPolicy, StopReason,
    classify::{self, Class},
    hooks::Delay,
    keep::Cloned,
    policy::budget::Budget,
    wait,
};

const SECOND: Duration = Duration::from_secs(1);

type Log = Arc<Mutex<Vec<(&'static str, u64)>>>;

/// A response that takes a second to be read and tells when it is dropped.
struct Slow {
    log: Log,
    began: Instant,
    rest: Pin<Box<Sleep>>,
}

impl Drop for Slow {
    fn drop(&mut self) {
        self.log.lock().unwrap().push(("dropped", self.began.elapsed().as_millis() as u64));
    }
}

/// Two retries with a pause of a second each, after each failed response was read to its end.
#[derive(Clone)]
struct Draining(Log, Instant, Option<Duration>);

impl<Req: Clone> Policy<Req, Slow, ()> for Draining {
    type Keep = Cloned;

    fn keep(&self) -> Cloned {
        Cloned
    }

    fn decide(&mut self, attempt: &Attempt, _: Option<&mut Req>, _: &mut Result<Slow, ()>) -> Decision {
        self.0.lock().unwrap().push(("decided", self.1.elapsed().as_millis() as u64));
        if attempt.number() < 3 { Decision::Retry { after: SECOND } } else { Decision::Return }
    }

    fn poll_drain(&mut self, response: &mut Slow, cx: &mut Context<'_>) -> Poll<()> {
        response.rest.as_mut().poll(cx)
    }

    fn timeout(&self) -> Option<Duration> {
        self.2
    }
}

fn slow_service(
    log: &Log,
    began: Instant,
) -> impl tower::Service<(), Response = Slow, Error = (), Future: Send> + Clone + use<> {
    let log = log.clone();
    service_fn(move |()| {
        let log = log.clone();
        async move { Ok::<_, ()>(Slow { log, began, rest: Box::pin(sleep(SECOND)) }) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_failed_response_is_read_to_its_end_and_dropped_before_the_wait() {
    let (log, began) = (Log::default(), Instant::now());
    let boxed = BoxPolicy::new(Draining(log.clone(), began, None));
    let last = Retry::new(boxed, slow_service(&log, began)).oneshot(()).await.unwrap();
    let expected =
        [("decided", 0), ("dropped", 1000), ("decided", 2000), ("dropped", 3000), ("decided", 4000)].to_vec();
    assert_eq!(*log.lock().unwrap(), expected, "the last response is handed back unread");
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_detailed_call_cuts_the_reading_too() {
    let (log, began) = (Log::default(), Instant::now());
    let policy = Draining(log.clone(), began, Some(Duration::from_millis(500)));
    let result = Retry::new(policy, slow_service(&log, began)).detailed().oneshot(()).await;
    assert_eq!(result.map(drop).unwrap_err().reason(), StopReason::Deadline);
    assert_eq!(*log.lock().unwrap(), [("decided", 0), ("dropped", 500)]);
}

#[tokio::test(start_paused = true)]
async fn a_call_dropped_while_it_reads_drops_the_response() {
    let (log, began) = (Log::default(), Instant::now());
    let call = Retry::new(Draining(log.clone(), began, None), slow_service(&log, began)).oneshot(());
    assert!(tokio::time::timeout(SECOND / 4, call).await.is_err());
    assert_eq!(*log.lock().unwrap(), [("decided", 0), ("dropped", 250)]);
}

/// Keeps numbers, of which only the even ones can be sent again.
#[derive(Clone, Copy)]
struct Even;

impl Keep<u32> for Even {
    type Kept = u32;

    fn first(&self, request: u32) -> (u32, Option<u32>) {
        (request, Some(request))
    }

    fn again(&self, kept: u32, last: bool) -> (u32, Option<u32>) {
        (kept, (!last).then_some(kept))
    }

    fn is_repeatable(&self, kept: &u32) -> bool {
        kept % 2 == 0
    }
}

/// How many attempts were made, and the reason of the end.
async fn attempts<P>(policy: P, request: u32) -> (u32, StopReason)
where
    P: Policy<u32, (), &'static str> + Clone,
{
    let service = service_fn(|_: u32| async { Err::<(), _>("failed") });
    let error = Retry::new(policy, service).detailed().oneshot(request).await.unwrap_err();
    (error.attempts(), error.reason())
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_again_is_not_waited_for() {
    let policy = RetryPolicy::new().wait(wait::none()).keep(Even);
    assert_eq!(attempts(policy.clone(), 2).await, (3, StopReason::Exhausted));
    assert_eq!(attempts(policy.clone(), 1).await, (1, StopReason::NotReplayable));
    assert_eq!(attempts(policy.boxed::<u32, (), &'static str>(), 1).await, (1, StopReason::NotReplayable));
    // Neither is it by a policy that does not look.
    #[derive(Clone)]
    struct Stubborn;
    impl Policy<u32, (), &'static str> for Stubborn {
        type Keep = Even;
        fn keep(&self) -> Even {
            Even
        }
        fn decide(&mut self, _: &Attempt, _: Option<&mut u32>, _: &mut Result<(), &'static str>) -> Decision {
            Decision::Retry { after: SECOND }
        }
    }
    assert_eq!(attempts(Stubborn, 1).await, (1, StopReason::NotReplayable));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_must_not_be_repeated_is_sent_again_only_if_it_never_arrived() {
    let policy = RetryPolicy::new().wait(wait::none()).idempotent(false);
    let unsent = policy.clone().classify(classify::by(|_: &Result<(), &'static str>| Class::unsent()));
    assert_eq!(attempts(policy.clone(), 1).await, (1, StopReason::NotIdempotent));
    assert_eq!(attempts(unsent, 1).await, (3, StopReason::Exhausted));
    let by_request = policy.per_request(|request: &u32| CallOptions::new().idempotent(*request == 7));
    assert_eq!(attempts(by_request.clone(), 7).await, (3, StopReason::Exhausted));
    assert_eq!(attempts(by_request, 8).await, (1, StopReason::NotIdempotent));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_hook_makes_unrepeatable_costs_nothing_and_ends_once() {
    let budget = Budget::standard();
    let ends = Arc::new(Mutex::new(Vec::new()));
    let (slept, gave_up) = (ends.clone(), ends.clone());
    let policy = RetryPolicy::new()
        .keep(Even)
        .budget(budget.clone())
        .amend(|_: &Attempt, kept: &mut u32, _: &Result<(), &str>| *kept += 1)
        .before_sleep(move |_: &Attempt, _: &Result<(), &str>, _: &Delay| slept.lock().unwrap().push("slept"))
        .on_give_up(move |_: &Attempt, _: &Result<(), &str>, reason: StopReason| {
            gave_up.lock().unwrap().push(reason.name());
        });
    let service = Retry::new(policy, service_fn(|_: u32| ready(Err::<(), _>("down")))).detailed();
    assert_eq!(service.oneshot(2).await.unwrap_err().reason(), StopReason::NotReplayable);
    assert_eq!((ends.lock().unwrap().join(" ").as_str(), budget.available(Instant::now())), ("not_replayable", 2));
}
