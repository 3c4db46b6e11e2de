//! Nothing is allocated, neither on success nor on a retry; the future is as small as it says (law 4).

mod common;

use std::{
    future::{Ready, ready},
    io,
    time::Duration,
};

use allocation_counter::measure;
use common::Strict;
use tokio::time::Sleep;
use tower::{Service, ServiceExt, service_fn};
use tower_tenacity::{Retry, RetryPolicy, retry::ResponseFuture, stop, wait};

fn block_on<F: Future>(future: F) -> F::Output {
    // Built outside of what is measured, so that only the call is counted.
    thread_local! {
        static RUNTIME: tokio::runtime::Runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}

#[test]
fn neither_success_nor_retry_allocates() {
    for (failures, wait) in [(0, 0), (2, 0), (2, 10)] {
        let policy = RetryPolicy::new()
            .stop(stop::after_attempt(3) | stop::after_delay(Duration::from_secs(60)))
            .wait(wait::fixed(Duration::from_millis(wait)) + wait::random(Duration::ZERO, Duration::from_nanos(1)));
        let mut count = 0;
        block_on(async {
            let mut failed = 0;
            let inner = std::cell::Cell::new(0);
            let inner = &inner;
            let mut service = Retry::new(
                policy,
                service_fn(move |request: u64| {
                    inner.set(inner.get() + 1);
                    ready(if inner.get() % (failures + 1) == 0 { Ok(request) } else { Err(request) })
                }),
            );
            // Once to warm up what tokio and the random generator keep per thread.
            service.ready().await.unwrap().call(1).await.unwrap();
            let measured = tokio::task::unconstrained(async {
                let mut service = service.clone();
                std::future::poll_fn(|cx| service.poll_ready(cx)).await.unwrap();
                let mut call = std::pin::pin!(service.call(1));
                // Polls are counted one by one: the runtime's own work in between is not ours.
                std::future::poll_fn(|cx| {
                    let mut outcome = std::task::Poll::Pending;
                    count += measure(|| outcome = call.as_mut().poll(cx)).count_total;
                    outcome
                })
                .await
            });
            if measured.await.is_err() {
                failed += 1;
            }
            assert_eq!(failed, 0);
        });
        assert_eq!(count, 0, "{failures} failures, {wait} ms");
    }
}

#[test]
fn making_the_call_does_not_allocate() {
    let mut service = Retry::new(RetryPolicy::new(), service_fn(|request: u64| ready(Ok::<_, io::Error>(request))));
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(service.poll_ready(&mut cx).is_ready());
    let made = measure(|| drop(std::hint::black_box(service.call(1))));
    assert_eq!(made.count_total, 0);
}

#[test]
fn the_future_is_no_larger_than_its_parts() {
    type Policy = RetryPolicy<stop::AfterAttempt, wait::Fixed>;
    // max(inner future, `Sleep`) + kept request + `Retry<P, S>` + 40 B
    let parts = size_of::<Ready<Result<u32, io::Error>>>().max(size_of::<Sleep>())
        + size_of::<u64>()
        + size_of::<Retry<Policy, Strict>>();
    let future = size_of::<ResponseFuture<Policy, Strict, u64>>();
    assert!(future <= parts + 40, "{future} against {parts} + 40");
    println!("future {future} B, parts {parts} B");
}
