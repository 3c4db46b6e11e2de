//! `http CONTENDER N` makes `N` calls with an http request of six headers that was just made, to be run by callgrind with N
//! and 2N. `http allocs` prints what one call allocates, and what one takes that is asleep between two attempts.

use std::{
    alloc::{GlobalAlloc, Layout, System},
    env,
    future::{Future, Ready, ready},
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body_util::Full;
use tower::retry::{Policy as TowerPolicy, Retry as TowerRetry};
use tower_service::Service;
use tower_tenacity::{Retry, RetryPolicy, policy::http as ours, wait};

const CONTENDERS: [&str; 5] = ["bare", "flat", "ours", "cloned", "tower-min"];

type Answer = Result<Response<Full<Bytes>>, std::io::Error>;

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static BYTES: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is the system's.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.store(ALLOCATIONS.load(Relaxed) + 1, Relaxed);
        BYTES.store(BYTES.load(Relaxed) + layout.size() as u64, Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.store(ALLOCATIONS.load(Relaxed) + 1, Relaxed);
        BYTES.store(BYTES.load(Relaxed) + size as u64, Relaxed);
        FREED.store(FREED.load(Relaxed) + layout.size() as u64, Relaxed);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        FREED.store(FREED.load(Relaxed) + layout.size() as u64, Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[derive(Clone, Copy)]
struct Server;

impl Service<Request<Full<Bytes>>> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = std::io::Error;
    type Future = Ready<Answer>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Full<Bytes>>) -> Ready<Answer> {
        drop(black_box(request));
        ready(Ok(Response::new(Full::new(Bytes::new()))))
    }
}

// Like one from a client: what is common to all requests is static, the rest was just written.
fn request(number: u64) -> Request<Full<Bytes>> {
    let mut key = HeaderValue::from_bytes(black_box(b"AIzaSyA-0123456789abcdefghijklmnopqrstu")).expect("letters");
    key.set_sensitive(true);
    let value = |text: &str| HeaderValue::from_str(black_box(text)).expect("letters");
    Request::put(black_box("https://generativelanguage.example.com/v1beta/models/gemini-2.5-flash:generateContent"))
        .header("content-type", value("application/json"))
        .header("accept", value("application/json, text/event-stream"))
        .header("user-agent", value("tower-tenacity-benches/0.0"))
        .header("x-goog-api-key", key)
        .header("x-request-id", HeaderValue::from(number))
        .header("traceparent", value("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .body(Full::new(Bytes::from(vec![b'x'; 512])))
        .expect("a request")
}

// Heap bytes of a call in a task that sleeps between two attempts, the task included. The body is shared by all.
fn asleep() -> f64 {
    const CALLS: u64 = 1000;
    let down = tower::service_fn(|request: Request<Full<Bytes>>| {
        drop(black_box(request));
        let answer = Response::builder().status(503).body(Full::new(Bytes::new())).map_err(std::io::Error::other);
        ready(answer)
    });
    let body = Full::new(Bytes::from(vec![b'x'; 2048]));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
    runtime.block_on(async {
        let policy = RetryPolicy::http().wait(wait::fixed(Duration::from_secs(3600)));
        let service = Retry::new(policy, down);
        let held = || BYTES.load(Relaxed) - FREED.load(Relaxed);
        let mut tasks = Vec::with_capacity(CALLS as usize);
        let before = held();
        for number in 0..CALLS {
            let (body, mut service) = (body.clone(), service.clone());
            let request = request(number).map(|_| body);
            tasks.push(tokio::spawn(service.call(request)));
        }
        tokio::task::yield_now().await;
        (held() - before) as f64 / CALLS as f64
    })
}

#[derive(Clone)]
struct Attempts(u32);

impl<E> TowerPolicy<Request<Full<Bytes>>, Response<Full<Bytes>>, E> for Attempts {
    type Future = Ready<()>;

    fn retry(
        &mut self,
        _: &mut Request<Full<Bytes>>,
        result: &mut Result<Response<Full<Bytes>>, E>,
    ) -> Option<Ready<()>> {
        if result.is_ok() || self.0 == 0 {
            return None;
        }
        self.0 -= 1;
        Some(ready(()))
    }

    fn clone_request(&mut self, request: &Request<Full<Bytes>>) -> Option<Request<Full<Bytes>>> {
        Some(request.clone())
    }
}

#[inline(never)]
fn once<S>(service: &mut S, request: Request<Full<Bytes>>) -> Answer
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = std::io::Error>,
{
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    let mut call = pin!(service.call(request));
    let mut call = black_box(call.as_mut());
    loop {
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut cx) {
            return outcome;
        }
    }
}

fn run<S>(mut service: S, calls: u64) -> usize
where
    S: Service<Request<Full<Bytes>>, Response = Response<Full<Bytes>>, Error = std::io::Error>,
{
    for number in 0..calls {
        let _ = black_box(once(black_box(&mut service), black_box(request(black_box(number)))));
    }
    size_of::<S::Future>()
}

fn visit(contender: &str, calls: u64) -> usize {
    let policy = RetryPolicy::new();
    match contender {
        "bare" => run(Server, calls),
        "cloned" => run(Retry::new(policy, Server), calls),
        "flat" => run(Retry::new(policy.keep(ours::FlatCopy), Server), calls),
        "ours" => run(Retry::new(RetryPolicy::http(), Server), calls),
        "tower-min" => run(TowerRetry::new(Attempts(2), Server), calls),
        _ => panic!("no contender is called {contender}"),
    }
}

fn main() {
    let args: Vec<String> = env::args().skip(1).collect();
    match &args[..] {
        [allocs] if allocs == "allocs" => {
            for contender in CONTENDERS {
                visit(contender, 10);
                let before = (ALLOCATIONS.load(Relaxed), BYTES.load(Relaxed));
                let future = visit(contender, 100);
                let allocations = (ALLOCATIONS.load(Relaxed) - before.0) as f64 / 100.0;
                let bytes = (BYTES.load(Relaxed) - before.1) as f64 / 100.0;
                println!("{contender}: {allocations} allocations, {bytes} bytes a call; future {future} bytes");
            }
            println!("asleep: {} bytes a call", asleep());
        }
        [contender, calls] => {
            visit(contender, calls.parse().expect("a number"));
        }
        _ => panic!("usage: http allocs, or http CONTENDER N"),
    }
}
