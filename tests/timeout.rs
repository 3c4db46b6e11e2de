//! Limits of attempts and of calls: the nearest counts (law 12).

mod common;

use std::{
    future::pending,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use common::Strict;
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    BoxError, CallOptions, Retry, RetryLayer, RetryPolicy, StopReason, stop,
    timeout::{AttemptTimeoutLayer, Deadline, TimedOut},
    wait,
};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn each_attempt_has_the_limit_and_the_last_one_what_is_left() {
    let policy = RetryPolicy::new()
        .stop(stop::never())
        .wait(wait::fixed(SECOND))
        .per_request(|deadline: &Deadline| CallOptions::new().deadline(*deadline));
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy).detailed())
        .layer(AttemptTimeoutLayer::new(3 * SECOND).deadline(|deadline: &Deadline| Some(*deadline)))
        .service(service_fn(|_: Deadline| pending::<Result<(), BoxError>>()));
    let began = Instant::now();
    // Attempts begin at 0, 4 and 8 s; the third one has two seconds.
    let error = stack.oneshot(Deadline::after(10 * SECOND)).await.unwrap_err();
    assert_eq!(began.elapsed(), 10 * SECOND);
    let limits: Vec<_> = error
        .history()
        .filter_map(|attempt| attempt.error().and_then(|error| error.downcast_ref::<TimedOut>()))
        .map(|timed_out| timed_out.limit())
        .collect();
    assert_eq!(limits, [3 * SECOND; 2], "and the third was cut by both at once");
    assert_eq!(error.reason(), StopReason::Deadline);
    assert_eq!(error.attempts(), 3);
}

#[tokio::test(start_paused = true)]
async fn of_two_limits_of_a_call_the_nearest_counts() {
    for (own, given, expected) in [(5, 60, 5), (60, 5, 5), (60, 0, 0)] {
        let policy = RetryPolicy::new()
            .timeout(own * SECOND)
            .wait(wait::fixed(SECOND))
            .stop(stop::never())
            .per_request(|seconds: &u32| CallOptions::new().deadline(Deadline::after(*seconds * SECOND)));
        let failing = service_fn(|_: u32| async {
            sleep(SECOND / 2).await;
            Err::<(), _>("busy")
        });
        let began = Instant::now();
        let error = Retry::new(policy, failing).detailed().oneshot(given).await.unwrap_err();
        assert_eq!(error.reason(), StopReason::Deadline);
        let most = expected * SECOND;
        assert!(began.elapsed() <= most && began.elapsed() + 2 * SECOND > most, "{own} {given}: {:?}", began.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_passes_and_the_readied_instance_is_called() {
    let mut service = tower::Layer::layer(&AttemptTimeoutLayer::new(SECOND), Strict::failing(1));
    let failed = ServiceExt::<()>::ready(&mut service).await.unwrap().call(()).await.unwrap_err();
    assert_eq!(failed.to_string(), "failure 1", "the error of the service passes too");
    assert_eq!(ServiceExt::<()>::ready(&mut service).await.unwrap().call(()).await.unwrap(), 2);

    let almost = service_fn(|()| async {
        sleep(SECOND - Duration::from_millis(1)).await;
        Ok::<_, BoxError>(7)
    });
    assert_eq!(tower::Layer::layer(&AttemptTimeoutLayer::new(SECOND), almost).oneshot(()).await.unwrap(), 7);
}

#[test]
fn deadlines_have_no_edge_to_fall_off() {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
        let far = Deadline::after(Duration::MAX);
        assert!(far.time_left(Instant::now()) > Duration::from_secs(365 * 24 * 3600));
        let passed = Deadline::at(Instant::now());
        sleep(SECOND).await;
        assert_eq!(passed.time_left(Instant::now()), Duration::ZERO);
        let error = tower::Layer::layer(
            &AttemptTimeoutLayer::new(SECOND).deadline(move |(): &()| Some(passed)),
            service_fn(|()| pending::<Result<(), BoxError>>()),
        )
        .oneshot(())
        .await
        .unwrap_err();
        assert_eq!(error.downcast_ref::<TimedOut>().unwrap().limit(), Duration::ZERO);
    });
}

#[tokio::test(start_paused = true)]
async fn with_no_time_left_nothing_is_begun_and_no_permit_is_kept() {
    let begun = Arc::new(AtomicU32::new(0));
    let count = begun.clone();
    let server = service_fn(move |_: Deadline| {
        let count = count.clone();
        async move {
            count.fetch_add(1, SeqCst);
            Ok::<_, BoxError>("at once")
        }
    });
    let mut stack = ServiceBuilder::new()
        .layer(AttemptTimeoutLayer::new(SECOND).deadline(|deadline: &Deadline| Some(*deadline)))
        .concurrency_limit(1)
        .service(server);
    let mut other = stack.clone();
    for late in [0, 1, 60] {
        let deadline = Deadline::after(Duration::ZERO);
        sleep(late * SECOND).await;
        let error = stack.ready().await.unwrap().call(deadline).await.unwrap_err();
        assert_eq!(error.downcast_ref::<TimedOut>().unwrap().limit(), Duration::ZERO);
        assert_eq!(error.to_string(), "no time left for an attempt");
        assert_eq!(begun.load(SeqCst), 0);
        assert!(timeout(SECOND, other.ready()).await.unwrap().is_ok(), "the permit is free");
        // It goes back with the clone that was made ready.
        other = stack.clone();
    }
    assert_eq!(stack.ready().await.unwrap().call(Deadline::after(SECOND)).await.unwrap(), "at once");
    // Called in time, and polled too late.
    let call = stack.ready().await.unwrap().call(Deadline::after(SECOND));
    sleep(SECOND).await;
    assert!(call.await.unwrap_err().is::<TimedOut>());
    assert_eq!(begun.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_limit_of_zero_is_no_deadline_that_has_passed() {
    let begun = AtomicU32::new(0);
    let stack = tower::Layer::layer(
        &AttemptTimeoutLayer::new(Duration::ZERO),
        service_fn(|at_once: bool| {
            let begun = &begun;
            async move {
                begun.fetch_add(1, SeqCst);
                if at_once { Ok::<_, BoxError>(7) } else { pending().await }
            }
        }),
    );
    assert_eq!(stack.clone().oneshot(true).await.unwrap(), 7);
    let error = stack.oneshot(false).await.unwrap_err();
    assert_eq!((begun.load(SeqCst), error.to_string().as_str()), (2, "no answer within 1ns"));
}

/// Compiles: nothing is asked of requests, responses and futures.
#[allow(dead_code)]
fn bounds_are_weak(request: std::rc::Rc<()>) {
    let local = service_fn(|_: std::rc::Rc<()>| async { Ok::<std::rc::Rc<()>, BoxError>(std::rc::Rc::new(())) });
    drop(tower::Layer::layer(&AttemptTimeoutLayer::new(SECOND), local).call(request));
}
