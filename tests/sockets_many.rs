//! Ten thousand calls over two hundred sockets, a fifth of which go wrong: every call ends once, nothing is carried out twice that must
//! not be, and nothing is left behind. Alone in its process, as it counts what the process holds.
#![cfg(all(feature = "gemini", feature = "testing"))]

#[path = "sockets/one.rs"]
mod one;

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{
            AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, Response, Uri};
use http_body_util::Full;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo},
};
use one::{Act, Seen, Server, answer, bind, ok, status};
use tokio::{
    net::TcpStream,
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
    time::{sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_tenacity::{
    Attempt, RetryLayer, RetryPolicy, StopReason,
    body::{CollectBodyLayer, CollectedBody},
    hooks::{Delay, Observer},
    policy::budget::Budget,
    stop, wait,
};

const CALLS: usize = 10_000;
const SOCKETS: usize = 200;
const CALLERS: usize = 150;
// Only a hang gets there.
const LONG: Duration = Duration::from_secs(60);

/// What became of the calls, as the policy saw it.
#[derive(Clone, Default)]
struct Tally(Arc<Counts>);

#[derive(Default)]
struct Counts {
    retries: AtomicUsize,
    succeeded: AtomicUsize,
    not_idempotent: AtomicUsize,
    other: AtomicUsize,
}

impl<Res, E> Observer<Res, E> for Tally {
    fn before_sleep(&self, _: &Attempt, _: &Result<Res, E>, _: &Delay) {
        self.0.retries.fetch_add(1, Relaxed);
    }

    fn gave_up(&self, _: &Attempt, _: &Result<Res, E>, reason: StopReason) {
        let count = if reason == StopReason::NotIdempotent { &self.0.not_idempotent } else { &self.0.other };
        count.fetch_add(1, Relaxed);
    }

    fn succeeded(&self, _: &Attempt, _: &Result<Res, E>) {
        self.0.succeeded.fetch_add(1, Relaxed);
    }

    fn not_ready(&self, _: &Attempt, _: &E) {
        self.0.other.fetch_add(1, Relaxed);
    }
}

/// Opens no more than so many sockets at a time.
#[derive(Clone)]
struct Bounded {
    inner: HttpConnector,
    permits: Arc<Semaphore>,
}

/// A socket that counts as long as it is open.
struct Counted {
    io: TokioIo<TcpStream>,
    _permit: OwnedSemaphorePermit,
}

impl Service<Uri> for Bounded {
    type Response = Counted;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Counted, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self { inner, permits } = self.clone();
        Box::pin(async move {
            let permit = permits.acquire_owned().await?;
            Ok(Counted { io: inner.oneshot(uri).await?, _permit: permit })
        })
    }
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        self.io.connected()
    }
}

impl Read for Counted {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

/// What the server saw of each call.
#[derive(Default)]
struct Arrivals {
    by_id: Vec<AtomicUsize>,
    requests: AtomicUsize,
    faults: AtomicUsize,
}

/// The same for the same request in every run, and even over all of them (splitmix64).
fn scattered(id: usize, arrival: usize) -> usize {
    let mut x = (id * 16 + arrival) as u64;
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (x ^ (x >> 31)) as usize
}

/// A fifth fails, in turn by each of seven ways; some more close the connection behind a good answer, without a word.
fn act(arrivals: &Arrivals, seen: &Seen) -> Act {
    let id: usize = seen.path[1..].parse().unwrap();
    let arrival = arrivals.by_id[id].fetch_add(1, SeqCst);
    arrivals.requests.fetch_add(1, Relaxed);
    let scattered = scattered(id, arrival);
    let good = ok(&format!("{} {id}", seen.method));
    // Nobody has bad luck for ever.
    let luck = if arrival < 5 { scattered % 100 } else { 99 };
    match luck {
        0..20 => {
            arrivals.faults.fetch_add(1, Relaxed);
            match scattered / 100 % 7 {
                0 => status(503, "", "busy"),
                1 => status(429, "retry-after-ms: 1\r\n", "slow down"),
                2 => answer("").then_reset(),
                3 => answer("").then_close(),
                4 => answer("HTTP/1.1 200 OK\r\ncontent-").then_close(),
                5 => answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").then_close(),
                _ => answer("").then_reset().after_reading(0),
            }
        }
        20..25 => good.then_close(),
        _ => good,
    }
}

/// How many files the process has open, where that can be known.
fn files() -> Option<usize> {
    Some(std::fs::read_dir("/proc/self/fd").ok()?.count())
}

/// Goes with each request and whatever is kept of it.
#[derive(Clone)]
struct Token(#[allow(dead_code)] Arc<()>);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_calls_end_once_each_and_leave_nothing_behind() {
    let arrivals =
        Arc::new(Arrivals { by_id: (0..CALLS).map(|_| AtomicUsize::new(0)).collect(), ..Arrivals::default() });
    let seen = arrivals.clone();
    let server = Server::with(bind().await, false, move |request| act(&seen, request));
    let tasks = || Handle::current().metrics().num_alive_tasks();
    let (tasks_before, files_before) = (tasks(), files());

    let tally = Tally::default();
    let token = Arc::new(());
    let permits = Arc::new(Semaphore::new(SOCKETS));
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new())
        // What hyper-util would do by itself is left to the policy.
        .retry_canceled_requests(false)
        .build(Bounded { inner: connector, permits: permits.clone() });
    let policy = RetryPolicy::http()
        .stop(stop::after_attempt(20))
        .wait(wait::fixed(Duration::from_millis(1)))
        .budget(Budget::new(1.0).unwrap().reserve(CALLS as u32))
        .observe(tally.clone());
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(policy)).layer(CollectBodyLayer::new(1024)).service(client);

    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (service, uri, token) = (service.clone(), server.uri.clone(), token.clone());
        callers.spawn(async move {
            let mut outcomes = Vec::new();
            for id in (caller..CALLS).step_by(CALLERS) {
                let request = Request::builder()
                    .method(method(id))
                    .uri(format!("{uri}{id}"))
                    .extension(Token(token.clone()))
                    .body(Full::from(format!("the body of {id}")))
                    .unwrap();
                outcomes.push((id, service.clone().oneshot(request).await));
            }
            outcomes
        });
    }
    let mut outcomes: Vec<Option<Result<Response<CollectedBody>, BoxError>>> = (0..CALLS).map(|_| None).collect();
    let all = async {
        while let Some(caller) = callers.join_next().await {
            for (id, outcome) in caller.unwrap() {
                assert!(outcomes[id].replace(outcome).is_none(), "call {id} ended twice");
            }
        }
    };
    timeout(LONG, all).await.expect("it ends");

    // Each call has one outcome, and each request that may be repeated got through.
    let mut orders_done = 0;
    for (id, outcome) in outcomes.iter().enumerate() {
        let outcome = outcome.as_ref().unwrap_or_else(|| panic!("call {id} was lost"));
        let good = outcome.as_ref().is_ok_and(|response| response.status() == 200);
        if good {
            let answer = outcome.as_ref().unwrap().body().bytes();
            assert_eq!(answer, format!("{} {id}", method(id)).as_bytes(), "somebody else's answer");
        }
        let arrived = arrivals.by_id[id].load(SeqCst);
        if method(id) == Method::POST {
            assert!(arrived <= 1, "order {id} arrived {arrived} times");
            assert!(!good || arrived == 1);
            orders_done += usize::from(good);
        } else {
            assert!(good, "call {id}: {outcome:?}");
        }
    }
    let count = |count: &AtomicUsize| count.load(SeqCst);
    let (succeeded, refused) = (count(&tally.0.succeeded), count(&tally.0.not_idempotent));
    assert_eq!((succeeded + refused, count(&tally.0.other)), (CALLS, 0));
    assert_eq!(succeeded, CALLS / 2 + orders_done);
    // A fifth of them did go wrong, and retries made up for it.
    let (requests, faults) = (count(&arrivals.requests), count(&arrivals.faults));
    assert!((requests * 18..requests * 22).contains(&(faults * 100)), "{faults} of {requests}");
    assert!(count(&tally.0.retries) > CALLS / 10, "{:?}", tally.0.retries);
    drop(outcomes);

    // Nothing is left: no request, no task, no socket on either side, no file.
    drop((service, tally));
    let left = || (Arc::strong_count(&token), SOCKETS - permits.available_permits(), server.open(), tasks(), files());
    let nothing = (1, 0, 0, tasks_before, files_before);
    let cleared = timeout(Duration::from_secs(20), async {
        while left() != nothing {
            sleep(Duration::from_millis(10)).await;
        }
    });
    assert!(cleared.await.is_ok(), "{:?} is left, rather than {nothing:?}", left());
}

/// Every other one is an order.
fn method(id: usize) -> Method {
    if id % 2 == 0 { Method::PUT } else { Method::POST }
}
