//! A failed response is read to its end, within bounds, and its connection is used again (law 2).
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::{pending, ready},
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Poll, Waker, ready as ready_or_return},
    time::Duration,
};

use allocation_counter::measure;
use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo},
};
use tokio::{
    net::TcpListener,
    time::{Instant, Sleep, sleep},
};
use tower::{ServiceExt, service_fn};
use tower_tenacity::{
    Policy, Retry, RetryPolicy,
    hooks::Hooks,
    policy::http::{Drain, FlatCopy, classify, drain},
    wait,
};

/// One step of a body.
#[derive(Clone, Debug)]
enum Step {
    Data(usize),
    Trailers,
    Fail,
    Pause(u64),
    Stall,
}
use Step::{Data, Fail, Pause, Stall, Trailers};

/// A body by its script that counts what was read of it.
struct Script {
    steps: VecDeque<Step>,
    pause: Option<Pin<Box<Sleep>>>,
    read: Arc<AtomicUsize>,
    frames: Arc<AtomicUsize>,
    known: Option<u64>,
}

impl Script {
    fn new(steps: impl IntoIterator<Item = Step>) -> Self {
        let steps = steps.into_iter().collect();
        Self { steps, pause: None, read: Arc::default(), frames: Arc::default(), known: None }
    }

    fn of_length(self, length: u64) -> Self {
        Self { known: Some(length), ..self }
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(pause) = &mut self.pause {
            ready_or_return!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let step = self.steps.pop_front();
        let step = match step {
            Some(Pause(millis)) => {
                self.pause = Some(Box::pin(sleep(Duration::from_millis(millis))));
                return self.poll_frame(cx);
            }
            Some(Stall) => {
                self.steps.push_front(Stall);
                return Poll::Pending;
            }
            step => step,
        };
        self.frames.fetch_add(1, Relaxed);
        Poll::Ready(match step {
            Some(Data(length)) => {
                self.read.fetch_add(length, Relaxed);
                Some(Ok(Frame::data(Bytes::from(vec![b'x'; length]))))
            }
            Some(Trailers) => Some(Ok(Frame::trailers(http::HeaderMap::new()))),
            Some(Fail) => Some(Err(io::Error::other("cut off"))),
            _ => None,
        })
    }

    fn size_hint(&self) -> SizeHint {
        self.known.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

fn response(steps: impl IntoIterator<Item = Step>) -> Response<Script> {
    Response::new(Script::new(steps))
}

fn poll<B: Body + Unpin>(hook: &mut Drain, response: &mut Response<B>) -> Poll<()> {
    let mut cx = Context::from_waker(Waker::noop());
    Hooks::<(), (), Response<B>, ()>::poll_drain(hook, response, &mut cx)
}

async fn drained(hook: &mut Drain, response: &mut Response<Script>) -> (usize, Duration) {
    let before = Instant::now();
    std::future::poll_fn(|cx| Hooks::<(), (), Response<Script>, ()>::poll_drain(hook, response, cx)).await;
    (response.body().read.load(Relaxed), before.elapsed())
}

const KIB: usize = 1024;

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[tokio::test(start_paused = true)]
async fn a_body_is_read_to_its_end() {
    let mut hook = drain();
    for (steps, read, took) in [
        (vec![], 0, 0),
        (vec![Data(10), Data(0), Data(5), Trailers], 15, 0),
        (vec![Data(10), Pause(100), Data(10), Pause(100), Data(10)], 30, 200),
        (vec![Data(10), Fail, Data(10)], 10, 0),
        (vec![Data(64 * KIB)], 64 * KIB, 0),
    ] {
        let mut response = response(steps.clone());
        assert_eq!(drained(&mut hook, &mut response).await, (read, millis(took)), "{steps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_too_slow_is_left() {
    // More than the cap: by a frame at most.
    assert_eq!(drained(&mut drain(), &mut response(vec![Data(KIB); 100])).await, (65 * KIB, Duration::ZERO));
    let mut small = drain().max_bytes(20);
    assert_eq!(drained(&mut small, &mut response([Data(8), Data(8), Data(8)])).await.0, 16);
    assert_eq!(drained(&mut drain().max_bytes(0), &mut response([Data(8)])).await.0, 0);
    // Known to be more than the cap.
    let known = |length| response(vec![Data(KIB); 100]).map(|body| body.of_length(length));
    assert_eq!(drained(&mut drain(), &mut known(64 * KIB as u64 + 1)).await.0, 0);
    assert_eq!(drained(&mut drain(), &mut known(100)).await.0, 65 * KIB, "what lies is found out");
    // Frames without data do not go on for ever.
    let mut empty = response(vec![Data(0); 100_000]);
    drained(&mut drain(), &mut empty).await;
    assert!(empty.body().frames.load(Relaxed) <= 64 * KIB / 16 + 1);
    // Too slow, once and for each response anew.
    let mut hook = drain();
    for _ in 0..2 {
        assert_eq!(drained(&mut hook, &mut response([Data(8), Stall])).await, (8, millis(250)));
        assert_eq!(drained(&mut hook, &mut response([Data(8), Pause(249), Data(8)])).await, (16, millis(249)));
    }
    let dripping: Vec<_> = (0..100).flat_map(|_| [Data(1), Pause(10)]).collect();
    assert_eq!(drained(&mut drain().timeout(millis(95)), &mut response(dripping)).await, (10, millis(95)));
}

#[tokio::test(start_paused = true)]
async fn what_need_not_be_read_is_not() {
    for version in [Version::HTTP_2, Version::HTTP_3] {
        let mut response = response([Data(8)]);
        *response.version_mut() = version;
        assert_eq!(drained(&mut drain(), &mut response).await.0, 0, "{version:?}");
    }
    for (connection, read) in [("close", 0), ("keep-alive, Close", 0), ("keep-alive", 8), ("x-close", 8)] {
        let mut response = response([Data(8)]);
        response.headers_mut().insert("connection", connection.parse().unwrap());
        assert_eq!(drained(&mut drain(), &mut response).await.0, read, "{connection}");
    }
}

#[test]
fn a_body_that_has_arrived_costs_neither_timer_nor_allocation() {
    // Outside of a runtime: a timer would panic.
    let mut hook = drain();
    let mut response = Response::new(Full::new(Bytes::from_static(&[b'x'; 4096])));
    let counted = measure(|| assert!(poll(&mut hook, &mut response).is_ready()));
    assert_eq!(counted.count_total, 0);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_not_arrived_costs_one_allocation() {
    let mut hook = drain();
    let mut waiting = response([Stall]);
    let counted = measure(|| assert!(poll(&mut hook, &mut waiting).is_pending()));
    assert_eq!(counted.count_total, 1);
    let counted = measure(|| assert!(poll(&mut hook, &mut waiting).is_pending()));
    assert_eq!(counted.count_total, 0);
    // A clone has a response of its own to read, and its own time.
    tokio::time::advance(millis(200)).await;
    let mut clone = hook.clone();
    assert!(poll(&mut clone, &mut response([Stall])).is_pending());
    tokio::time::advance(millis(51)).await;
    assert!(poll(&mut hook, &mut waiting).is_ready());
    assert!(poll(&mut clone, &mut response([Stall])).is_pending());
}

#[tokio::test(start_paused = true)]
async fn the_wait_begins_when_the_reading_has_ended() {
    let began = Instant::now();
    let seen: Arc<Mutex<Vec<u128>>> = Arc::default();
    let log = seen.clone();
    let policy = RetryPolicy::new()
        .classify(classify())
        .wait(wait::fixed(millis(1000)))
        .keep(FlatCopy)
        .hook(drain().timeout(millis(500)));
    let service = service_fn(move |_: Request<String>| {
        log.lock().unwrap().push(began.elapsed().as_millis());
        let mut response = response([Pause(300), Data(8), Stall]);
        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        ready(Ok::<_, Infallible>(response))
    });
    let last = Retry::new(policy, service).oneshot(Request::new(String::new())).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), [0, 1500, 3000]);
    assert_eq!(last.body().read.load(Relaxed), 0, "the last is handed back unread");
}

/// A server on loopback that answers 503, most of the answer after a moment, and counts its connections.
async fn slow_to_refuse() -> (String, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counted = (connections.clone(), requests.clone());
    tokio::spawn(async move {
        loop {
            let Ok((socket, _)) = listener.accept().await else { return pending().await };
            counted.0.fetch_add(1, Relaxed);
            let requests = counted.1.clone();
            let answer = hyper::service::service_fn(move |_: Request<hyper::body::Incoming>| {
                requests.fetch_add(1, Relaxed);
                let page = Script::new([Data(100), Pause(20), Data(20 * KIB), Pause(5), Data(100)]);
                ready(Ok::<_, Infallible>(Response::builder().status(503).body(page).unwrap()))
            });
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), answer));
        }
    });
    (address, connections, requests)
}

async fn connections_of<P>(policy: P) -> (usize, usize)
where
    P: Policy<Request<Full<Bytes>>, Response<hyper::body::Incoming>, hyper_util::client::legacy::Error> + Clone,
{
    let (address, connections, requests) = slow_to_refuse().await;
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let request = Request::put(address).body(Full::from("body")).unwrap();
    let response = Retry::new(policy, client).oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    (requests.load(Relaxed), connections.load(Relaxed))
}

#[tokio::test]
async fn a_connection_is_used_again_after_a_failed_response() {
    let policy = RetryPolicy::new().classify(classify()).wait(wait::fixed(millis(150))).keep(FlatCopy);
    assert_eq!(connections_of(policy.clone()).await, (3, 3), "without it each attempt has a connection of its own");
    // As long as it takes, on a busy machine.
    assert_eq!(connections_of(policy.hook(drain().timeout(Duration::from_secs(20)))).await, (3, 1));
    let preset = RetryPolicy::http().hook(drain().timeout(Duration::from_secs(20))).wait(wait::fixed(millis(150)));
    assert_eq!(connections_of(preset).await, (3, 1));
}
