//! A client of hyper-util's or reqwest's and a server in another process, over a socket.

use std::{
    fmt::Debug,
    future::Future,
    hint::black_box,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::BodyExt;
use hyper_util::{
    client::legacy::{Client, Error, connect::HttpConnector},
    rt::TokioExecutor,
};
use reqwest_retry::{RetryTransientMiddleware, policies::ExponentialBackoff};
use tokio::runtime::{Builder, Runtime};
use tower::service_fn;
use tower_service::Service;
use tower_tenacity::{
    Retry, RetryPolicy,
    gemini::{self, Gemini, GenerateContent},
    policy::budget::Budget,
    wait,
};

use crate::http::{HttpRequest, VisitGemini, VisitHttp, answer, question, visit, visit_gemini};

/// In the order of the report, each bare before those that are compared with it.
pub const PLAIN: [&str; 6] = crate::http::CONTENDERS;
/// These ask as a Gemini client does.
pub const GEMINI: [&str; 2] = ["gemini-bare", "gemini-ours"];
/// These send with reqwest, the last with reqwest-middleware and reqwest-retry around it.
pub const REQWEST: [&str; 3] = ["reqwest-bare", "reqwest-ours", "reqwest-retry"];

/// Says its port on standard output, and answers until the process is ended.
pub fn serve() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    println!("{}", listener.local_addr().expect("an address"));
    for connection in listener.incoming().flatten() {
        thread::spawn(move || answer_all(connection));
    }
}

// HTTP/1.1 with lengths, which is all that the client speaks.
fn answer_all(mut to: TcpStream) -> std::io::Result<()> {
    to.set_nodelay(true)?;
    let body = answer();
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
    let whole = [head.as_bytes(), &body].concat();
    let mut from = BufReader::new(to.try_clone()?);
    let (mut line, mut sent, mut length) = (String::new(), Vec::new(), 0);
    loop {
        line.clear();
        if from.read_line(&mut line)? == 0 {
            return Ok(());
        }
        if let Some((_, value)) = line.split_once(':').filter(|(name, _)| name.eq_ignore_ascii_case("content-length")) {
            length = value.trim().parse().unwrap_or(0);
        }
        if line == "\r\n" {
            sent.resize(length, 0);
            from.read_exact(&mut sent)?;
            to.write_all(&whole)?;
        }
    }
}

/// So many calls by each of so many tasks; tells how many seconds it took.
#[derive(Clone, Copy)]
pub struct Load {
    pub server: SocketAddr,
    pub tasks: u64,
    pub calls: u64,
}

impl Load {
    /// Runs it with a contender: one task on one thread, more on two workers.
    pub fn run(self, contender: &str) -> f64 {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let builder = Client::builder(TokioExecutor::new());
        match contender.split_once('-') {
            Some(("reqwest", name)) => self.reqwest(name),
            Some(("gemini", name)) => {
                let gemini = Gemini::with_transport(builder.build(connector), "my-key")
                    .and_then(|client| client.base_url(format!("http://{}", self.server)));
                visit_gemini(name, gemini.expect("a client"), self)
            }
            _ => visit(contender, builder.build(connector), Duration::from_millis(10), self),
        }
    }

    // All begin with a request of the `http` crate, and turn it into one of reqwest's once.
    fn reqwest(self, contender: &str) -> f64 {
        let base = Duration::from_millis(10);
        // Of its own retries there are none, and what answers is no proxy.
        let client = reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build().expect("a client");
        let inner = {
            let client = client.clone();
            service_fn(move |request: Request<Bytes>| {
                let client = client.clone();
                async move { client.execute(request.try_into()?).await.map(Response::<reqwest::Body>::from) }
            })
        };
        match contender {
            "bare" => self.post_all(inner),
            "ours" => {
                let wait = wait::floored_jitter().transient(base);
                let budget = Budget::standard().reserve(1_000_000);
                self.post_all(Retry::new(RetryPolicy::http().wait(wait).budget(budget), inner))
            }
            "retry" => {
                let backoff = ExponentialBackoff::builder().retry_bounds(base, Duration::from_secs(20));
                let retry = RetryTransientMiddleware::new_with_policy(backoff.build_with_max_retries(2));
                let client = reqwest_middleware::ClientBuilder::new(client).with(retry).build();
                self.post_all(service_fn(move |request: Request<Bytes>| {
                    let client = client.clone();
                    async move {
                        let request = request.try_into().map_err(reqwest_middleware::Error::Reqwest)?;
                        client.execute(request).await.map(Response::<reqwest::Body>::from)
                    }
                }))
            }
            _ => panic!("no contender is called reqwest-{contender}"),
        }
    }

    // What `B` is made of is the caller's: `Full` for hyper, plain bytes for reqwest.
    fn post_all<S, B, R, E>(self, service: S) -> f64
    where
        S: Service<Request<B>, Response = Response<R>, Error = E, Future: Send> + Clone + Send + 'static,
        B: From<Bytes> + Send + 'static,
        R: Body<Data: Send, Error: Debug> + Send + 'static,
        E: Debug,
    {
        self.time(|calls| {
            let mut service = service.clone();
            async move {
                for _ in 0..calls {
                    let request = black_box(post(self.server, Bytes::from(vec![b'x'; 2048]).into()));
                    let response = service.call(request).await.expect("an answer");
                    black_box(response.collect().await.expect("a body").to_bytes());
                }
            }
        })
    }

    fn runtime(self) -> Runtime {
        let mut builder = if self.tasks == 1 { Builder::new_current_thread() } else { Builder::new_multi_thread() };
        builder.worker_threads(2).enable_all().build().expect("a runtime")
    }

    fn time<F, Fut>(self, task: F) -> f64
    where
        F: Fn(u64) -> Fut,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.runtime().block_on(async {
            let start = Instant::now();
            let tasks: Vec<_> = (0..self.tasks).map(|_| tokio::spawn(task(self.calls))).collect();
            for task in tasks {
                task.await.expect("a task that ends");
            }
            start.elapsed().as_secs_f64()
        })
    }
}

fn post<B>(server: SocketAddr, body: B) -> Request<B> {
    Request::post(format!("http://{server}/v1beta/models/gemini-2.5-flash:generateContent"))
        .header("content-type", "application/json")
        .header("accept", "application/json")
        .header("user-agent", "tower-tenacity-benches/0.0")
        .header("x-goog-api-key", "AIzaSyA-0123456789abcdefghijklmnopqrstu")
        .body(body)
        .expect("a request")
}

impl VisitHttp<hyper::body::Incoming, Error> for Load {
    type Output = f64;

    fn visit<S>(self, service: S) -> f64
    where
        S: Service<HttpRequest, Response = Response<hyper::body::Incoming>, Error = Error, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        self.post_all(service)
    }
}

impl VisitGemini<hyper::body::Incoming> for Load {
    type Output = f64;

    fn visit<S>(self, service: S) -> f64
    where
        S: Service<GenerateContent, Response = gemini::GenerateContentResponse, Error = gemini::Error, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        self.time(|calls| {
            let mut service = service.clone();
            async move {
                for _ in 0..calls {
                    black_box(service.call(black_box(question())).await.expect("an answer"));
                }
            }
        })
    }
}
