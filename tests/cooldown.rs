//! One caller's 429 holds back everyone who shares the quota (laws 1, 5, 6, 13, 17).

mod common;

use std::{
    collections::VecDeque,
    future::Future,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::Strict;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy,
    classify::{self, Class},
    cooldown::{self, Cooldown, CooldownLayer, CoolingDown},
    stop, wait,
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

/// What a scripted server answers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Reply {
    Fine,
    TooMany(Option<Duration>),
    UsedUp,
    Broken,
    Wrong,
    Never,
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{self:?}")
    }
}

impl std::error::Error for Reply {}

const fn hint(seconds: u64) -> Reply {
    Reply::TooMany(Some(Duration::from_secs(seconds)))
}

/// Answers as scripted, and fine after that; notes who called when.
#[derive(Clone)]
struct Server(Arc<Mutex<State>>);

struct State {
    begun: Instant,
    script: VecDeque<Reply>,
    calls: Vec<(u32, Duration)>,
    takes: Duration,
}

impl Server {
    fn new(script: impl IntoIterator<Item = Reply>) -> Self {
        let script = script.into_iter().collect();
        Self(Arc::new(Mutex::new(State { begun: Instant::now(), script, calls: Vec::new(), takes: Duration::ZERO })))
    }

    /// Answers after that long.
    fn takes(self, duration: Duration) -> Self {
        self.0.lock().unwrap().takes = duration;
        self
    }

    fn then(&self, replies: impl IntoIterator<Item = Reply>) {
        self.0.lock().unwrap().script.extend(replies);
    }

    /// Who called when, since the server was made.
    fn calls(&self) -> Vec<(u32, Duration)> {
        self.0.lock().unwrap().calls.clone()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().calls.len()
    }
}

impl Service<u32> for Server {
    type Response = u32;
    type Error = Reply;
    type Future = Pin<Box<dyn Future<Output = Result<u32, Reply>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Reply>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let mut state = self.0.lock().unwrap();
        let when = state.begun.elapsed();
        state.calls.push((request, when));
        let reply = state.script.pop_front().unwrap_or(Reply::Fine);
        let takes = state.takes;
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            match reply {
                Reply::Fine => Ok(request),
                Reply::Never => std::future::pending().await,
                refused => Err(refused),
            }
        })
    }
}

fn class(outcome: &Result<u32, Reply>) -> Class {
    match outcome {
        Ok(_) => Class::Success,
        Err(Reply::TooMany(hint)) => Class::throttled(*hint),
        Err(Reply::Broken) => Class::transient(),
        Err(_) => Class::Permanent,
    }
}

fn boxed_class(outcome: &Result<u32, BoxError>) -> Option<Class> {
    match outcome {
        Ok(_) => Some(Class::Success),
        Err(error) => match error.downcast_ref() {
            Some(reply) => Some(class(&Err(*reply))),
            None => cooldown::class_of(&**error),
        },
    }
}

// The type of `layer`, without its closure.
type Classifier = classify::By<fn(&Result<u32, Reply>) -> Class>;

fn layer() -> CooldownLayer<Classifier> {
    CooldownLayer::new(classify::by(class as fn(&Result<u32, Reply>) -> Class))
}

/// One second each time, so that probes go at whole seconds.
fn guessing() -> CooldownLayer<Classifier, wait::Fixed> {
    layer().backoff(wait::fixed(SECOND))
}

async fn call<S: Service<u32>>(service: &S, request: u32) -> Result<S::Response, S::Error>
where
    S: Clone,
{
    service.clone().oneshot(request).await
}

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn cooling(error: &BoxError) -> &CoolingDown {
    error.downcast_ref().unwrap_or_else(|| panic!("refused by the cool-down, not {error}"))
}

/// Calls `service` with 0, 1, 2, … at once, each in a task of its own; how each ended and when.
async fn herd<S, R>(service: &S, calls: u32) -> Vec<(Result<R, BoxError>, Duration)>
where
    S: Service<u32, Response = R, Error = BoxError, Future: Send> + Clone + Send + 'static,
    R: Send + 'static,
{
    let begun = Instant::now();
    let tasks: Vec<_> = (0..calls)
        .map(|number| {
            let service = service.clone();
            tokio::spawn(async move { (service.oneshot(number).await, begun.elapsed()) })
        })
        .collect();
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.unwrap());
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn one_429_holds_back_everybody_until_the_servers_moment() {
    let server = Server::new([hint(10)]);
    let service = layer().layer(server.clone());
    assert_eq!(*call(&service, 1).await.unwrap_err().downcast::<Reply>().unwrap(), hint(10));
    assert_eq!(service.cooling_until(), Some(Instant::now() + 10 * SECOND));

    sleep(4 * SECOND).await;
    let ends = herd(&service, 100).await;
    assert!(ends.iter().all(|(end, _)| end.is_ok()));
    let calls: Vec<_> = server.calls().split_off(1).into_iter().map(|(_, when)| when).collect();
    assert_eq!(calls.len(), 100);
    // Never early, and spread over a tenth of what the server asked for.
    assert!(calls.iter().all(|when| (10 * SECOND..=11 * SECOND + MS).contains(when)), "{calls:?}");
    let mut distinct = calls.clone();
    distinct.dedup();
    assert!(distinct.len() > 80, "a herd: {calls:?}");
    assert!(calls.iter().max().unwrap().saturating_sub(10 * SECOND) > SECOND / 2);
    assert_eq!(service.cooling_until(), None);
}

#[tokio::test(start_paused = true)]
async fn who_comes_after_the_moment_does_not_wait() {
    let server = Server::new([hint(10)]);
    let service = layer().layer(server.clone());
    call(&service, 1).await.unwrap_err();
    sleep(10 * SECOND).await;
    let begun = Instant::now();
    call(&service, 2).await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn one_layer_means_one_quota_for_all_of_its_services() {
    let layer = layer();
    let server = Server::new([hint(10)]);
    let one = layer.layer(server.clone());
    let other = layer.clone().fail_fast().layer(server.clone());
    call(&one, 1).await.unwrap_err();
    let error = call(&other, 2).await.unwrap_err();
    assert_eq!(cooling(&error).retry_after(), 10 * SECOND);
    assert_eq!(layer.cooling_until(), Some(Instant::now() + 10 * SECOND));
    // Another layer, another quota.
    assert!(call(&self::layer().layer(server.clone()), 3).await.is_ok());
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_later_moment_counts_and_an_earlier_one_does_not() {
    let server = Server::new([hint(5), hint(20), hint(10)]).takes(SECOND);
    let service = layer().layer(server.clone());
    for (end, when) in herd(&service, 3).await {
        assert!(end.is_err());
        assert_eq!(when, SECOND);
    }
    assert_eq!(service.cooling_until(), Some(Instant::now() + 20 * SECOND));
}
