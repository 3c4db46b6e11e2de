//! One caller's 429 holds back everyone who shares the quota (laws 1, 5, 6, 13, 17).

mod common;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll, Waker},
    time::Duration,
};

use common::Strict;
use proptest::prelude::*;
use tokio::time::{Instant, advance, sleep, timeout};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer},
    classify::{self, Class, Classify},
    cooldown::{self, CooldownLayer, CoolingDown},
    stop,
    timeout::{AttemptTimeoutLayer, Deadline},
    wait,
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
#[derive(Clone, Debug)]
struct Server(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    begun: Instant,
    script: VecDeque<Reply>,
    calls: Vec<(u32, Duration)>,
    takes: Duration,
    told: Vec<(Duration, Duration)>,
}

impl Server {
    fn new(script: impl IntoIterator<Item = Reply>) -> Self {
        let script = script.into_iter().collect();
        Self(Arc::new(Mutex::new(State {
            begun: Instant::now(),
            script,
            calls: Vec::new(),
            takes: Duration::ZERO,
            told: Vec::new(),
        })))
    }

    /// Answers after that long.
    fn takes(self, duration: Duration) -> Self {
        self.0.lock().unwrap().takes = duration;
        self
    }

    fn add(&self, replies: impl IntoIterator<Item = Reply>) {
        self.0.lock().unwrap().script.extend(replies);
    }

    /// Who called when, since the server was made.
    fn calls(&self) -> Vec<(u32, Duration)> {
        self.0.lock().unwrap().calls.clone()
    }

    /// When it told a caller to wait, and until when.
    fn told(&self) -> Vec<(Duration, Duration)> {
        self.0.lock().unwrap().told.clone()
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
        drop(state);
        let server = self.clone();
        Box::pin(async move {
            if !takes.is_zero() {
                sleep(takes).await;
            }
            if let Reply::TooMany(Some(hint)) = reply {
                let mut state = server.0.lock().unwrap();
                let now = state.begun.elapsed();
                state.told.push((now, now.saturating_add(hint)));
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
            None => CoolingDown::find(&**error).map(CoolingDown::class),
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

async fn call<S: Service<u32> + Clone>(service: &S, request: u32) -> Result<S::Response, S::Error> {
    service.clone().oneshot(request).await
}

async fn ready<S: Service<()>>(service: &mut S) -> &mut S {
    assert!(service.ready().await.is_ok());
    service
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
async fn a_leaked_layer_means_the_same_quota_for_all_of_its_services() {
    let (counted, server) = (layer(), Server::new([hint(10)]));
    let leaked = counted.clone().leak();
    let (one, other) = (leaked.layer(server.clone()), leaked.layer(server.clone()));
    call(&one, 1).await.unwrap_err();
    assert_eq!(leaked.cooling_until(), Some(Instant::now() + 10 * SECOND));
    // What was shared before, stays shared.
    assert_eq!(counted.cooling_until(), leaked.cooling_until());
    let begun = Instant::now();
    assert_eq!(call(&other, 2).await.unwrap(), 2);
    assert!(begun.elapsed() >= 10 * SECOND);
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

#[tokio::test(start_paused = true)]
async fn a_call_that_passes_freely_clones_nothing_and_calls_the_readied_instance() {
    let inner = Strict::failing(0);
    let counts = inner.counts.clone();
    let mut service = CooldownLayer::new(classify::errors()).layer(inner);
    for number in 1..=3 {
        assert_eq!(ready(&mut service).await.call(()).await.unwrap(), number);
    }
    assert_eq!(counts.get(), (3, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_held_call_drops_the_readied_instance_and_readies_another() {
    let inner = Strict::failing(1);
    let counts = inner.counts.clone();
    let throttled = classify::by(|outcome: &Result<u32, std::io::Error>| match outcome {
        Ok(_) => Class::Success,
        Err(_) => Class::throttled(Some(5 * SECOND)),
    });
    let mut service = CooldownLayer::new(throttled).layer(inner);
    ready(&mut service).await.call(()).await.unwrap_err();
    let held = ready(&mut service).await.call(());
    // One for the service that stays, one to be made ready after the wait.
    assert_eq!(counts.get(), (2, 1, 2));
    assert_eq!(held.await.unwrap(), 2);
    assert_eq!(counts.get(), (3, 2, 2));
    // The service that stayed is not ready, and is not called unready.
    assert_eq!(ready(&mut service).await.call(()).await.unwrap(), 3);
    assert_eq!(counts.get(), (4, 3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_concurrency_limit_of_one_is_free_while_calls_are_held_or_refused() {
    let server = Server::new([hint(5)]);
    let inner = ServiceBuilder::new().concurrency_limit(1).service(server.clone());
    let mut service = layer().layer(inner.clone());
    let mut refusing = layer().fail_fast().layer(inner.clone());
    for service in [&mut service, &mut refusing] {
        server.0.lock().unwrap().script = [hint(5)].into();
        service.ready().await.unwrap().call(1).await.unwrap_err();
        let held = service.ready().await.unwrap().call(2);
        // Neither the service nor the call holds the only permit.
        assert!(inner.clone().oneshot(3).await.is_ok());
        drop(held);
    }

    server.0.lock().unwrap().script = [hint(5)].into();
    let service = layer().layer(inner.clone());
    call(&service, 1).await.unwrap_err();
    // Ten at once through the one permit, all of them in the end.
    let ends = herd(&service, 10).await;
    assert!(ends.iter().all(|(end, when)| end.is_ok() && *when >= 5 * SECOND));
}

#[tokio::test(start_paused = true)]
async fn held_calls_pass_through_a_buffer() {
    let server = Server::new([hint(5)]).takes(10 * MS);
    let buffered = ServiceBuilder::new().buffer::<u32>(1).service(server.clone());
    let service = CooldownLayer::new(classify::by(boxed_class)).layer(buffered.clone());
    call(&service, 1).await.unwrap_err();
    let mut one = service.clone();
    let held = one.ready().await.unwrap().call(2);
    // The only place in the queue is free.
    assert!(timeout(SECOND, buffered.clone().oneshot(3)).await.unwrap().is_ok());
    assert_eq!(held.await.unwrap(), 2);
    assert!(herd(&service, 10).await.iter().all(|(end, _)| end.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_while_the_service_gets_ready_is_seen() {
    let server = Server::new([hint(5)]);
    let inner = ServiceBuilder::new().concurrency_limit(1).service(server.clone());
    let layer = layer();
    let service = layer.layer(inner.clone());
    call(&service, 1).await.unwrap_err();
    let begun = Instant::now();
    let held = tokio::spawn(service.clone().oneshot(2));
    sleep(SECOND).await;
    // Somebody has the only permit when the moment is there …
    let mut permit = inner.clone();
    permit.ready().await.unwrap();
    sleep(5 * SECOND).await;
    // … and calls are throttled again before it is free.
    call(&layer.layer(Server::new([hint(20)])), 3).await.unwrap_err();
    drop(permit);
    sleep(SECOND).await;
    assert!(timeout(SECOND, inner.oneshot(4)).await.unwrap().is_ok(), "the permit is not held while waiting");
    held.await.unwrap().unwrap();
    assert!(begun.elapsed() >= 26 * SECOND && begun.elapsed() <= 28 * SECOND + MS);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_at_once_and_tell_the_moment() {
    let server = Server::new([hint(400)]);
    let service = layer().layer(server.clone());
    call(&service, 1).await.unwrap_err();
    let moment = Instant::now() + 400 * SECOND;
    let begun = Instant::now();
    // Longer than 300 s.
    let error = call(&service, 2).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!((cooling(&error).until(), cooling(&error).retry_after()), (moment, 400 * SECOND));
    assert!(!cooling(&error).is_exhausted());
    assert_eq!(error.to_string(), "cooling down after a rate limit, no calls for another 400s");
    // 100 s later it is near enough.
    sleep(100 * SECOND).await;
    let begun = Instant::now();
    assert!(call(&service, 3).await.is_ok());
    // The distance to others is cut where the call may not wait for longer.
    assert_eq!(begun.elapsed(), 300 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn no_call_waits_to_its_deadline() {
    let server = Server::new([hint(10)]);
    let begun = Instant::now();
    let deadline = move |seconds: &u32| (*seconds > 0).then(|| Deadline::at(begun + SECOND * *seconds));
    let service = layer().deadline(deadline).layer(server.clone());
    call(&service, 0).await.unwrap_err();
    for seconds in [1, 9, 10] {
        assert!(!cooling(&call(&service, seconds).await.unwrap_err()).is_exhausted());
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
    call(&service, 11).await.unwrap();
    assert!(begun.elapsed() >= 10 * SECOND && begun.elapsed() < 11 * SECOND);
    // While nothing is in force, nobody looks at deadlines: that is for others to see to.
    assert!(call(&service, 1).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_call_that_wakes_past_its_deadline_is_not_made() {
    let server = Server::new([hint(10)]);
    let begun = Instant::now();
    let deadline = move |seconds: &u32| (*seconds > 0).then(|| Deadline::at(begun + SECOND * *seconds));
    let service = layer().deadline(deadline).max_wait(20 * SECOND).layer(server.clone());
    call(&service, 0).await.unwrap_err();
    let held = [15, 60].map(|seconds| tokio::spawn(service.clone().oneshot(seconds)));
    tokio::task::yield_now().await;
    // Nobody runs until long after the moment, and beyond the longest wait.
    advance(30 * SECOND).await;
    let [late, fine] = held;
    let error = late.await.unwrap().unwrap_err();
    assert_eq!((cooling(&error).until(), cooling(&error).retry_after()), (Instant::now(), Duration::ZERO));
    assert_eq!(error.to_string(), "held back by a rate limit until the deadline of the call had passed");
    assert_eq!(
        CoolingDown::find(&*error).map(CoolingDown::class),
        Some(Class::Permanent),
        "another attempt comes later still"
    );
    // The longest wait bounds waiting, and that is over.
    assert!(fine.await.unwrap().is_ok());
    assert_eq!(server.count(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_past_the_deadline_is_not_called() {
    let server = Server::new([hint(10)]);
    let inner = ServiceBuilder::new().concurrency_limit(1).service(server.clone());
    let deadline = Deadline::after(15 * SECOND);
    let service = layer().deadline(move |who: &u32| (*who == 2).then_some(deadline)).layer(inner.clone());
    call(&service, 1).await.unwrap_err();
    let held = tokio::spawn(service.clone().oneshot(2));
    // Somebody has the only permit when the moment is there, and until it is too late.
    tokio::task::yield_now().await;
    let mut permit = inner.clone();
    permit.ready().await.unwrap();
    sleep(16 * SECOND).await;
    drop(permit);
    assert!(cooling(&held.await.unwrap().unwrap_err()).retry_after().is_zero());
    assert_eq!(server.count(), 1);
    assert!(timeout(SECOND, inner.oneshot(3)).await.unwrap().is_ok(), "the permit is free");
}

#[cfg(feature = "http")]
#[tokio::test(start_paused = true)]
async fn the_deadline_of_an_http_request_is_among_its_extensions() {
    use http::{Request, Response};

    let throttled = service_fn(|_: Request<()>| async {
        Response::builder().status(429).header("retry-after", "10").body(()).map_err(BoxError::from)
    });
    let service = CooldownLayer::http().layer(throttled);
    let ask = |seconds: u32| {
        let mut request = Request::new(());
        request.extensions_mut().insert(Deadline::after(seconds * SECOND));
        service.clone().oneshot(request)
    };
    let begun = Instant::now();
    assert_eq!(ask(60).await.unwrap().status(), 429);
    assert_eq!(cooling(&ask(9).await.unwrap_err()).retry_after(), 10 * SECOND);
    assert_eq!(begun.elapsed(), Duration::ZERO);
    assert_eq!(ask(60).await.unwrap().status(), 429, "it has the time to wait");
    assert!(begun.elapsed() >= 10 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_quota_that_is_used_up_fails_at_once_and_one_call_goes_first_after_it() {
    let server = Server::new([Reply::UsedUp]).takes(SECOND);
    let used_up = |outcome: &Result<u32, Reply>| matches!(outcome, Err(Reply::UsedUp)).then_some(600 * SECOND);
    let service = layer().exhausted_if(used_up).layer(server.clone());
    call(&service, 1).await.unwrap_err();
    let error = call(&service, 2).await.unwrap_err();
    assert!(cooling(&error).is_exhausted());
    assert_eq!(cooling(&error).retry_after(), 600 * SECOND);
    assert_eq!(error.to_string(), "the quota is exhausted, no calls for another 600s");
    assert_eq!(CoolingDown::find(&*error).map(CoolingDown::class), Some(Class::Permanent));

    sleep(600 * SECOND).await;
    server.add([Reply::UsedUp]);
    let ends = herd(&service, 20).await;
    assert_eq!(server.count(), 2, "one went to see, nobody followed");
    assert!(ends.iter().all(|(end, when)| end.is_err() && *when == SECOND));
    sleep(600 * SECOND).await;
    assert!(herd(&service, 20).await.iter().all(|(end, _)| end.is_ok()));
}

#[tokio::test(start_paused = true)]
async fn each_key_has_a_quota_of_its_own() {
    let server = Server::new([hint(10)]);
    let layer = layer().per(|request: &u32| request % 10).fail_fast();
    let service = layer.layer(server.clone());
    call(&service, 13).await.unwrap_err();
    assert!(call(&service, 23).await.is_err());
    assert!(call(&service, 24).await.is_ok());
    assert_eq!(layer.cooling_until(&3), Some(Instant::now() + 10 * SECOND));
    assert_eq!((layer.cooling_until(&4), service.cooling_until(&3).is_some()), (None, true));
}

#[tokio::test(start_paused = true)]
async fn keys_beyond_the_bound_pass_and_end_no_cooldown() {
    let server = Server::new((0..100).map(|_| hint(10)));
    let keys = std::num::NonZeroUsize::new(2).unwrap();
    let service = layer().per(|request: &u32| *request).max_keys(keys).fail_fast().layer(server.clone());
    for key in 0..100 {
        assert!(call(&service, key).await.unwrap_err().is::<Reply>());
    }
    let held = async |key| call(&service, key).await.is_err_and(|error| error.is::<CoolingDown>());
    assert!(held(0).await && held(1).await && !held(2).await);
    // A minute after their time they make room.
    sleep(10 * SECOND + 60 * SECOND).await;
    server.add([hint(10)]);
    call(&service, 3).await.unwrap_err();
    assert!(held(3).await);
}

#[tokio::test(start_paused = true)]
async fn where_the_server_names_no_moment_one_call_goes_first() {
    let server = Server::new([Reply::TooMany(None)]).takes(100 * MS);
    let service = guessing().layer(server.clone());
    call(&service, 100).await.unwrap_err();
    let ends = herd(&service, 50).await;
    assert!(ends.iter().all(|(end, _)| end.is_ok()));
    let calls: Vec<_> = server.calls().into_iter().skip(1).map(|(_, when)| when).collect();
    let probe = 1100 * MS;
    assert_eq!(calls[0], probe);
    // All others after it succeeded, over as long as the backoff lasted.
    assert!(calls[1..].iter().all(|when| (probe + 100 * MS..=probe + 1101 * MS).contains(when)), "{calls:?}");
    assert!(*calls.last().unwrap() > probe + 600 * MS);
    assert_eq!(service.cooling_until(), None);
}

#[tokio::test(start_paused = true)]
async fn a_throttled_probe_lets_the_backoff_grow_and_a_success_ends_that() {
    let server = Server::new([Reply::TooMany(None); 4]).takes(100 * MS);
    let service = layer().backoff(wait::exponential().multiplier(SECOND)).layer(server.clone());
    // Ten together count as one: 1 s, then 2, 4 and 8 for the probes.
    let tenfold: Vec<_> = herd(&service, 10).await;
    assert_eq!(tenfold.iter().filter(|(end, _)| end.is_err()).count(), 4);
    assert_eq!(service.cooling_until(), Some(Instant::now() + SECOND));

    let server = Server::new([Reply::TooMany(None); 4]).takes(100 * MS);
    let service = layer().backoff(wait::exponential().multiplier(SECOND)).layer(server.clone());
    call(&service, 0).await.unwrap_err();
    let ends = herd(&service, 4).await;
    assert_eq!(ends.iter().filter(|(end, _)| end.is_err()).count(), 3);
    let calls: Vec<_> = server.calls().into_iter().map(|(_, when)| when.as_millis()).collect();
    assert_eq!(calls, [0, 1100, 3200, 7300, 15400]);

    server.add([Reply::TooMany(None)]);
    call(&service, 0).await.unwrap_err();
    assert_eq!(service.cooling_until(), Some(Instant::now() + SECOND));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_any_other_kind_opens_the_gate() {
    for reply in [Reply::Wrong, Reply::Broken] {
        let server = Server::new([Reply::TooMany(None), reply]);
        let service = guessing().layer(server.clone());
        call(&service, 0).await.unwrap_err();
        let ends = herd(&service, 10).await;
        assert_eq!(ends.iter().filter(|(end, _)| end.is_err()).count(), 1, "the probe's own answer");
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_is_dropped_gives_back_its_role() {
    #[derive(Clone, Copy, Debug)]
    enum How {
        Unpolled,
        Polled,
        Panicked,
    }
    for how in [How::Unpolled, How::Polled, How::Panicked] {
        let server = Server::new([Reply::TooMany(None), Reply::Never]);
        let service = guessing().layer(server.clone());
        call(&service, 0).await.unwrap_err();
        sleep(SECOND).await;
        let mut one = service.clone();
        let mut probe = Box::pin(one.ready().await.unwrap().call(1));
        if !matches!(how, How::Unpolled) {
            assert!(poll_once(probe.as_mut()).is_pending());
        }
        let waiting = tokio::spawn(herd_of(service.clone(), 5));
        sleep(10 * MS).await;
        assert_eq!(server.count(), 2, "they wait for the probe");
        match how {
            How::Panicked => {
                let task = tokio::spawn(async move {
                    let _probe = probe;
                    panic!("on purpose");
                });
                task.await.unwrap_err();
            }
            _ => drop(probe),
        }
        let ends = waiting.await.unwrap();
        assert!(ends.iter().all(|(end, when)| end.is_ok() && *when <= 1011 * MS), "{how:?}: {ends:?}");
    }
}

async fn herd_of<S>(service: S, calls: u32) -> Vec<(Result<u32, BoxError>, Duration)>
where
    S: Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    herd(&service, calls).await
}

#[tokio::test(start_paused = true)]
async fn a_probe_without_end_holds_nobody_for_long() {
    let server = Server::new([Reply::TooMany(None), Reply::Never, Reply::Never]);
    let service = guessing().layer(server.clone());
    call(&service, 0).await.unwrap_err();
    let ends = herd_of_patient(&service, 6).await;
    assert_eq!(ends.iter().filter(|end| end.is_none()).count(), 2, "those the server never answers");
    let calls: Vec<_> = server.calls().into_iter().map(|(_, when)| when.as_secs()).collect();
    // One goes every five seconds, until one is answered.
    assert_eq!(calls[..4], [0, 1, 6, 11]);
    assert!(calls[4..].iter().all(|when| (11..=12).contains(when)), "{calls:?}");
}

/// Each with a minute of patience.
async fn herd_of_patient<S>(service: &S, calls: u32) -> Vec<Option<Result<u32, BoxError>>>
where
    S: Service<u32, Response = u32, Error = BoxError, Future: Send> + Clone + Send + 'static,
{
    let tasks: Vec<_> =
        (0..calls).map(|number| tokio::spawn(timeout(60 * SECOND, service.clone().oneshot(number)))).collect();
    let mut ends = Vec::new();
    for task in tasks {
        ends.push(task.await.unwrap().ok());
    }
    ends
}

#[tokio::test(start_paused = true)]
async fn while_a_probe_is_out_impatient_calls_are_refused() {
    let server = Server::new([Reply::TooMany(None), Reply::Never]);
    let service = guessing().fail_fast().layer(server.clone());
    call(&service, 0).await.unwrap_err();
    assert_eq!(cooling(&call(&service, 0).await.unwrap_err()).retry_after(), SECOND);
    sleep(SECOND).await;
    let mut one = service.clone();
    let _probe = one.ready().await.unwrap().call(1);
    let error = call(&service, 2).await.unwrap_err();
    assert_eq!(cooling(&error).retry_after(), 5 * SECOND);
    assert_eq!(CoolingDown::find(&*error).map(CoolingDown::class), Some(Class::throttled(Some(5 * SECOND))));
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_that_are_dropped_leave_nothing_stuck() {
    let server = Server::new([Reply::TooMany(None)]).takes(100 * MS);
    let service = guessing().layer(server.clone());
    call(&service, 0).await.unwrap_err();
    // Dropped before a poll, while waiting for the moment, and while waiting for the probe.
    drop(service.clone().ready().await.unwrap().call(1));
    assert!(timeout(500 * MS, call(&service, 2)).await.is_err());
    let begun = Instant::now();
    let ends = tokio::join!(call(&service, 3), timeout(550 * MS, call(&service, 4)), call(&service, 5));
    assert!(ends.0.is_ok() && ends.1.is_err() && ends.2.is_ok());
    assert!(begun.elapsed() < 2 * SECOND);
    assert_eq!(service.cooling_until(), None);
    assert_eq!(format!("{service:?}").matches("quotas: 1").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_that_is_dropped_leaves_no_waker_behind() {
    struct Nothing;
    impl std::task::Wake for Nothing {
        fn wake(self: Arc<Self>) {}
    }
    let service = layer().layer(Server::new([hint(10)]));
    call(&service, 0).await.unwrap_err();
    let mut one = service.clone();
    let mut held = Box::pin(one.ready().await.unwrap().call(1));
    let wakers = [Arc::new(Nothing), Arc::new(Nothing)];
    for known in &wakers {
        assert!(held.as_mut().poll(&mut Context::from_waker(&Waker::from(known.clone()))).is_pending());
        // By the gate and by the timer.
        assert_eq!(Arc::strong_count(known), 3);
    }
    drop(held);
    assert_eq!(wakers.map(|known| Arc::strong_count(&known)), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn odd_delays_are_taken_for_none_or_for_what_they_are() {
    let year = Duration::from_secs(365 * 86_400);
    for odd in [Duration::ZERO, year, Duration::MAX] {
        let server = Server::new([Reply::TooMany(Some(odd))]);
        let service = guessing().layer(server.clone());
        call(&service, 0).await.unwrap_err();
        assert_eq!(service.cooling_until(), Some(Instant::now() + SECOND), "{odd:?}");
    }
    // A quota that is used up for no time at all is not.
    let service = layer().exhausted_if(|_: &Result<u32, Reply>| Some(Duration::ZERO)).layer(Server::new([hint(10)]));
    call(&service, 0).await.unwrap_err();
    assert_eq!(service.cooling_until(), Some(Instant::now() + 10 * SECOND));
    // What is one's own is taken as it is.
    for (own, refused) in [(Duration::ZERO, false), (year, true), (Duration::MAX, true)] {
        let server = Server::new([Reply::TooMany(None)]);
        let service = layer().backoff(wait::fixed(own)).layer(server.clone());
        call(&service, 0).await.unwrap_err();
        assert_eq!(call(&service, 1).await.is_err(), refused, "{own:?}");
        let patient =
            layer().backoff(wait::fixed(own)).max_wait(Duration::MAX).layer(Server::new([Reply::TooMany(None)]));
        call(&patient, 0).await.unwrap_err();
        assert_eq!(timeout(86_400 * SECOND, call(&patient, 1)).await.is_err(), refused, "{own:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_retry_layer_further_out_does_not_wait_twice() {
    let server = Server::new([hint(10), hint(7)]);
    let policy = RetryPolicy::new().classify(classify::by(boxed_class));
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(layer()).service(server.clone());
    let begun = Instant::now();
    assert!(call(&service, 1).await.is_ok());
    let calls: Vec<_> = server.calls().into_iter().map(|(_, when)| when).collect();
    assert_eq!(calls.len(), 3);
    assert!(calls[1] >= 10 * SECOND && calls[1] <= 11 * SECOND + MS);
    assert!(calls[2] >= calls[1] + 7 * SECOND && calls[2] <= calls[1] + 7700 * MS + MS);
    assert_eq!(begun.elapsed(), calls[2]);
}

#[tokio::test(start_paused = true)]
async fn refusals_mean_to_a_retry_layer_what_they_say() {
    // Exhausted: not tried again. Held for too long: the delay is beyond what a policy obeys.
    let used_up = |outcome: &Result<u32, Reply>| matches!(outcome, Err(Reply::UsedUp)).then_some(600 * SECOND);
    let server = Server::new([Reply::UsedUp]);
    let policy = RetryPolicy::new().classify(classify::by(boxed_class));
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(layer().exhausted_if(used_up))
        .service(server.clone());
    let begun = Instant::now();
    call(&service, 1).await.unwrap_err();
    assert!(cooling(&call(&service, 2).await.unwrap_err()).is_exhausted());
    assert_eq!((begun.elapsed(), server.count()), (Duration::ZERO, 1));

    // Refused for a while: the retry waits for as long.
    let server = Server::new([hint(10)]);
    let policy = RetryPolicy::new().classify(classify::by(boxed_class));
    let inner = layer().fail_fast().layer(server.clone());
    call(&inner, 0).await.unwrap_err();
    let service = RetryLayer::new(policy).layer(inner);
    assert!(call(&service, 1).await.is_ok());
    assert_eq!(server.count(), 2);
}

#[test]
fn refusals_are_found_below_other_errors() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let error = runtime.block_on(async {
        let service = layer().fail_fast().layer(Server::new([hint(10)]));
        call(&service, 1).await.unwrap_err();
        *call(&service, 2).await.unwrap_err().downcast::<CoolingDown>().unwrap()
    });
    let throttled = Some(Class::throttled(Some(10 * SECOND)));
    assert_eq!(CoolingDown::find(&error).map(CoolingDown::class), throttled);
    assert_eq!(CoolingDown::find(&std::io::Error::other(error.clone())).map(CoolingDown::class), throttled);
    assert_eq!(CoolingDown::find(&std::io::Error::other(Arc::new(error.clone()))).map(CoolingDown::class), throttled);
    assert_eq!(CoolingDown::find(&std::io::Error::other("something else")).map(CoolingDown::class), None);
    assert_eq!(classify::refusals().classify(&Err::<(), _>(std::io::Error::other(error.clone()))), throttled);
    assert_eq!(classify::refusals().classify(&Err::<(), BoxError>(Box::new(error))), throttled);
    assert_eq!(classify::refusals().classify(&Err::<(), BoxError>("something else".into())), None);
}

/// The quota of the survey behind the cool-down: 60 calls per fixed window of 60 s, refused with the time that is left of it.
#[derive(Clone)]
struct Window {
    state: Arc<Mutex<Counts>>,
    told: bool,
    begun: Instant,
}

#[derive(Debug, Default)]
struct Counts {
    window: u64,
    used: u32,
    refused: u32,
}

impl Window {
    fn new(told: bool) -> Self {
        Self { state: Arc::default(), told, begun: Instant::now() }
    }
}

impl Service<u32> for Window {
    type Response = u32;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        let Self { state, told, begun } = self.clone();
        Box::pin(async move {
            sleep(25 * MS).await;
            let reply = {
                let mut state = state.lock().unwrap();
                let now = begun.elapsed();
                let window = now.as_secs() / 60;
                if window != state.window {
                    (state.window, state.used) = (window, 0);
                }
                if state.used < 60 {
                    state.used += 1;
                    Ok(request)
                } else {
                    state.refused += 1;
                    let left = Duration::from_secs(60 * (window + 1)) - now;
                    Err(BoxError::from(Reply::TooMany(told.then_some(left))))
                }
            };
            sleep(25 * MS).await;
            reply
        })
    }
}

/// 180 calls at once and then one a second for two minutes, each tried 6 times at most: how many fail, how many 429s.
async fn quota(cooldown: bool, told: bool) -> (usize, u32, Duration) {
    let server = Window::new(told);
    let policy = RetryPolicy::new()
        .stop(stop::after_attempt(6))
        .wait(wait::floored_jitter().max(60 * SECOND))
        .classify(classify::by(boxed_class));
    let bare = RetryLayer::new(policy.clone()).layer(server.clone());
    let cooled = RetryLayer::new(policy).layer(CooldownLayer::new(classify::by(boxed_class)).layer(server.clone()));
    let begun = Instant::now();
    let tasks: Vec<_> = (0..300)
        .map(|number: u32| {
            let (bare, cooled) = (bare.clone(), cooled.clone());
            tokio::spawn(async move {
                sleep(SECOND * number.saturating_sub(180)).await;
                if cooldown { cooled.oneshot(number).await } else { bare.oneshot(number).await }
            })
        })
        .collect();
    let mut failed = 0;
    for task in tasks {
        failed += usize::from(task.await.unwrap().is_err());
    }
    let refused = server.state.lock().unwrap().refused;
    (failed, refused, begun.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_shared_moment_saves_nearly_all_429s() {
    // 180 at once where 60 are let in: 120 are refused before anybody can know.
    const UNAVOIDABLE: u32 = 120;
    let (failed, refused, _) = quota(false, true).await;
    assert!(failed == 0 && refused > UNAVOIDABLE + 300, "each finds out for itself: {refused}");
    let (failed, refused, took) = quota(true, true).await;
    assert!(failed == 0 && refused <= UNAVOIDABLE + 20, "{failed} failed, {refused} refused");
    // As long as it takes to let 300 calls in, 60 a minute.
    assert!(took < 250 * SECOND, "{took:?}");

    // The server does not say for how long: without the cool-down half of the calls use up their attempts.
    let (failed, refused, _) = quota(false, false).await;
    assert!(failed > 100 && refused > 1000, "{failed} failed, {refused} refused");
    let (failed, refused, took) = quota(true, false).await;
    assert!(failed == 0 && refused <= UNAVOIDABLE + 80, "{failed} failed, {refused} refused");
    assert!(took < 270 * SECOND, "{took:?}");
}

/// A call of a random story: when it begins, and after how long it is dropped.
type Plan = (u64, Option<u64>);

fn replies() -> impl Strategy<Value = Vec<Reply>> {
    let reply = prop_oneof![
        2 => Just(Reply::Fine),
        2 => Just(Reply::TooMany(None)),
        2 => (1u64..4000).prop_map(|ms| Reply::TooMany(Some(Duration::from_millis(ms)))),
        1 => Just(Reply::Broken),
        1 => Just(Reply::Wrong),
        1 => Just(Reply::UsedUp),
    ];
    prop::collection::vec(reply, 0..25)
}

fn plans() -> impl Strategy<Value = Vec<Plan>> {
    prop::collection::vec((0u64..20_000, prop::option::weighted(0.3, 0u64..6000)), 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn nobody_calls_before_the_moment_and_nobody_waits_for_ever(
        script in replies(),
        plans in plans(),
        takes in prop_oneof![Just(0u64), 1u64..3000],
        limit in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let server = Server::new(script).takes(MS * takes as u32);
            let used_up = |outcome: &Result<u32, Reply>| matches!(outcome, Err(Reply::UsedUp)).then_some(2 * SECOND);
            let layer = guessing().exhausted_if(used_up);
            // With a limit, calls also queue for their turn while the gate opens and closes.
            let tasks: Vec<_> = if limit {
                let service = layer.layer(ServiceBuilder::new().concurrency_limit(2).service(server.clone()));
                plans.iter().map(|plan| tokio::spawn(follow(service.clone(), *plan))).collect()
            } else {
                let service = layer.layer(server.clone());
                plans.iter().map(|plan| tokio::spawn(follow(service.clone(), *plan))).collect()
            };
            for task in tasks {
                // Forty calls, at worst each a probe that ends in another backoff.
                assert!(task.await.unwrap() < 300 * SECOND + MS * takes as u32 * 40);
            }
            for (moment, until) in server.told() {
                for (_, when) in server.calls() {
                    assert!(when <= moment || when >= until, "told at {moment:?} to wait until {until:?}, called at {when:?}");
                }
            }
            // Whatever was left behind, the next calls are served.
            server.0.lock().unwrap().script.clear();
            let service = layer.layer(server.clone());
            let used_up = layer.cooling_until().map(|until| sleep(until - Instant::now()));
            if let Some(over) = used_up {
                over.await;
            }
            let begun = Instant::now();
            assert!(herd(&service, 3).await.iter().all(|(end, _)| end.is_ok()));
            assert!(begun.elapsed() <= 6 * SECOND + 2 * MS * takes as u32, "{:?}", begun.elapsed());
            assert_eq!(layer.cooling_until(), None);
        });
    }
}

/// Makes one call as planned; how long it took.
async fn follow<S>(service: S, (begins, dropped): Plan) -> Duration
where
    S: Service<u32, Response = u32, Error = BoxError>,
{
    sleep(Duration::from_millis(begins)).await;
    let begun = Instant::now();
    let patience = dropped.map_or(Duration::MAX, Duration::from_millis);
    let _ = timeout(patience, service.oneshot(0)).await;
    begun.elapsed()
}

#[test]
fn services_and_futures_are_send_and_sync_where_what_they_hold_is() {
    fn send_sync<T: Send + Sync>(_: &T) {}
    fn send<T: Send>(_: &T) {}
    let layer = layer().per(|request: &u32| request.to_string()).deadline(|_: &u32| None);
    send_sync(&layer);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let mut service = layer.layer(Server::new([]));
        send_sync(&service);
        send(&service.ready().await.unwrap().call(1));
    });
    // Neither is asked for: an error that is not `Clone`, a request that is neither `Send` nor `Clone`.
    let service =
        service_fn(|request: std::rc::Rc<u32>| async move { Err::<(), _>(std::io::Error::other(request.to_string())) });
    let mut service = CooldownLayer::new(classify::errors()).layer(service);
    let mut future = Box::pin(service.call(std::rc::Rc::new(1)));
    assert!(matches!(poll_once(future.as_mut()), Poll::Ready(Err(error)) if error.to_string() == "1"));
}

#[test]
fn a_call_that_passes_freely_allocates_nothing() {
    let mut service = CooldownLayer::new(classify::errors())
        .layer(service_fn(|request: u64| std::future::ready(Ok::<_, std::io::Error>(request))));
    let mut outcome = Poll::Pending;
    let measured = allocation_counter::measure(|| outcome = poll_once(std::pin::pin!(service.call(7))));
    assert!(matches!(outcome, Poll::Ready(Ok(7))));
    assert_eq!(measured.count_total, 0);
    // A clone is made without allocating, uses what the original has at first, and something of its own when called again.
    let mut counts = Vec::new();
    let mut clone = None;
    counts.push(allocation_counter::measure(|| clone = Some(service.clone())).count_total);
    let mut clone = clone.unwrap();
    for _ in 0..3 {
        counts.push(allocation_counter::measure(|| drop(poll_once(std::pin::pin!(clone.call(7))))).count_total);
    }
    assert_eq!(counts, [0, 0, 1, 0]);
    // The inner future, the way back to the store, what the call saw, and no timer.
    assert!(size_of_val(&service.call(7)) <= size_of::<std::future::Ready<Result<u64, std::io::Error>>>() + 40);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn threads_that_call_and_give_up_at_random_leave_nothing_stuck() {
    for seed in 0..8 {
        let mut random = fastrand::Rng::with_seed(seed);
        let replies = [Reply::TooMany(None), Reply::TooMany(Some(MS)), Reply::Broken, Reply::Wrong, Reply::Fine];
        let script: Vec<_> = (0..400).map(|_| replies[random.usize(..replies.len())]).collect();
        let server = Server::new(script);
        let service = layer().backoff(wait::fixed(MS)).per(|request: &u32| request % 3).layer(server.clone());
        let tasks: Vec<_> = (0..40u32)
            .map(|task| {
                let (mut service, patience) = (service.clone(), random.u64(..20));
                tokio::spawn(async move {
                    for call in 0..25 {
                        let call = service.ready().await.unwrap().call(task * 25 + call);
                        // Some go all the way, some are dropped while held, some while they go first.
                        let _ = if task % 2 == 0 { timeout(MS * patience as u32, call).await } else { Ok(call.await) };
                    }
                })
            })
            .collect();
        for task in tasks {
            timeout(60 * SECOND, task).await.expect("stuck").unwrap();
        }
        server.0.lock().unwrap().script.clear();
        for key in 0..3 {
            timeout(60 * SECOND, call(&service, key)).await.expect("stuck").unwrap();
            assert_eq!(service.cooling_until(&key), None);
        }
    }
}

/// How many of fifty calls reach a server that throttles for good, after the probe of its cool-down has come back from a circuit
/// that was open for it, or had no time left.
async fn herd_after(never_sent: &str) -> usize {
    let class =
        || classify::refusals().or(classify::throttled_if(classify::error_message("429"))).or(classify::errors());
    let breaker = CircuitBreakerLayer::new(BreakerPolicy::new()).classify(class());
    let handle = breaker.handle();
    let reached = Arc::new(Mutex::new(0));
    let seen = reached.clone();
    let service = ServiceBuilder::new()
        .layer(CooldownLayer::new(class()).backoff(wait::fixed(SECOND)))
        .layer(breaker)
        .layer(AttemptTimeoutLayer::new(60 * SECOND).deadline(|deadline: &Deadline| Some(*deadline)))
        .service(service_fn(move |_: Deadline| {
            let seen = seen.clone();
            async move {
                *seen.lock().unwrap() += 1;
                sleep(100 * MS).await;
                Err::<(), _>(BoxError::from("429"))
            }
        }));
    let in_time = Deadline::after(1000 * SECOND);
    assert_eq!(service.clone().oneshot(in_time).await.unwrap_err().to_string(), "429");
    sleep(SECOND).await;
    let probe = if never_sent == "late" {
        service.clone().oneshot(Deadline::after(Duration::ZERO)).await.unwrap_err()
    } else {
        handle.force_open();
        service.clone().oneshot(in_time).await.unwrap_err()
    };
    assert!(!probe.is::<CoolingDown>(), "it was let in");
    handle.reset();
    *reached.lock().unwrap() = 0;
    let calls: Vec<_> = (0..50).map(|_| tokio::spawn(service.clone().oneshot(in_time))).collect();
    sleep(50 * MS).await;
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    *reached.lock().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_was_never_sent_hands_on_its_role() {
    assert_eq!(herd_after("late").await, 1);
    assert_eq!(herd_after("refused").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_when_it_is_refused_however_long_its_future_is_kept() {
    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<&'static str>>>);
    impl cooldown::Observer for Log {
        fn waits(&self, _: Duration) {
            self.0.lock().unwrap().push("waits");
        }
        fn waited(&self, _: Duration) {
            self.0.lock().unwrap().push("waited");
        }
        fn refused(&self, _: &CoolingDown) {
            self.0.lock().unwrap().push("refused");
        }
    }
    let log = Log::default();
    let hint = Arc::new(Mutex::new(10));
    let told = hint.clone();
    let class = move |_: &Result<(), BoxError>| Class::throttled(Some(*told.lock().unwrap() * SECOND));
    let layer = CooldownLayer::new(classify::by(class)).max_wait(20 * SECOND).observe(log.clone());
    let mut service = layer.layer(service_fn(|takes: u32| async move {
        sleep(takes * SECOND).await;
        Err::<(), _>(BoxError::from("429"))
    }));
    let slow = tokio::spawn(service.clone().oneshot(5));
    tokio::task::yield_now().await;
    service.ready().await.unwrap().call(0).await.unwrap_err();
    service.ready().await.unwrap();
    let mut held = std::pin::pin!(service.call(0));
    // The slow one is told to stay away for longer than anybody waits.
    *hint.lock().unwrap() = 100;
    assert!(held.as_mut().await.unwrap_err().is::<CoolingDown>());
    slow.await.unwrap().unwrap_err();
    assert_eq!(*log.0.lock().unwrap(), ["waits", "refused", "waited"]);
}
