//! A real tonic client and server on loopback, with the retry layer between the client and its channel.
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    future::Future,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::{Buf, BufMut, Bytes};
use http::HeaderMap;
use http_body::Frame;
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::{BoxError, Service, ServiceBuilder, service_fn};
use tower_tenacity::{
    Attempt, CallOptions, Policy, RetryLayer, RetryPolicy,
    body::{CollectBodyLayer, ReplayBody, ReplayBodyLayer},
    hooks::{self, Delay, Observer},
    policy::{
        budget::{Budget, Funds},
        grpc,
        http::{Deadlines, FlatCopy, Mark},
    },
    stop, wait,
};

// Messages are plain text: no code generation, no protobuf.
#[derive(Clone, Copy, Default)]
struct Text;

impl Codec for Text {
    type Encode = String;
    type Decode = String;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Text {
    type Item = String;
    type Error = Status;

    fn encode(&mut self, text: String, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(text.as_bytes());
        Ok(())
    }
}

impl Decoder for Text {
    type Item = String;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<String>, Status> {
        let bytes = buffer.copy_to_bytes(buffer.remaining());
        String::from_utf8(bytes.into()).map(Some).map_err(|_| Status::invalid_argument("not text"))
    }
}

const LOOPBACK: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));

/// Answers with a script, then greets, and remembers what it was sent.
#[derive(Clone, Default)]
struct Greeter {
    script: Arc<Mutex<VecDeque<Status>>>,
    seen: Arc<Mutex<Vec<(HeaderMap, String)>>>,
}

impl Greeter {
    fn failing(script: impl IntoIterator<Item = Status>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() }
    }

    async fn start(&self) -> Channel {
        channel(self.serve(TcpIncoming::bind(LOOPBACK).expect("a port")))
    }

    fn serve(&self, incoming: TcpIncoming) -> SocketAddr {
        let greeter = self.clone();
        serve(incoming, move |request: http::Request<Body>| {
            let greeter = greeter.clone();
            let headers = request.headers().clone();
            async move {
                let greet = service_fn(move |request: Request<String>| {
                    let name = request.into_inner();
                    greeter.seen.lock().unwrap().push((headers.clone(), name.clone()));
                    let failure = greeter.script.lock().unwrap().pop_front();
                    std::future::ready(match failure {
                        Some(status) => Err(status),
                        None => Ok(Response::new(format!("hello {name}"))),
                    })
                });
                Ok::<_, Infallible>(tonic::server::Grpc::new(Text).unary(greet, request).await)
            }
        })
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(headers, _)| Some(headers.get(name)?.to_str().unwrap().to_owned())).collect()
    }
}

fn serve<F, Fut, E>(incoming: TcpIncoming, answer: F) -> SocketAddr
where
    F: FnMut(http::Request<Body>) -> Fut + Clone + Send + 'static,
    Fut: Future<Output = Result<http::Response<Body>, E>> + Send + 'static,
    E: Into<BoxError> + Send + 'static,
{
    let address = incoming.local_addr().expect("an address");
    tokio::spawn(Server::builder().serve_with_incoming(service_fn(answer), incoming));
    address
}

fn endpoint(address: SocketAddr) -> Endpoint {
    Endpoint::from_shared(format!("http://{address}")).expect("an address")
}

fn channel(address: SocketAddr) -> Channel {
    endpoint(address).connect_lazy()
}

/// Notes the delays that the server asked for.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<Option<Duration>>>>);

impl<Res, E> Observer<Res, E> for Log {
    fn before_sleep(&self, _: &Attempt, _: &Result<Res, E>, delay: &Delay) {
        self.0.lock().unwrap().push(delay.server_hint());
    }
}

impl Log {
    fn hints(&self) -> Vec<Option<Duration>> {
        self.0.lock().unwrap().clone()
    }
}

type Watched = ((((((), Deadlines), grpc::Deadline), Mark), grpc::PreviousAttempts), hooks::Observed<Log>);
type Retried = http::Request<ReplayBody<Body>>;

fn policy(
    log: &Log,
) -> RetryPolicy<stop::AfterAttempt, wait::Fixed, grpc::Classifier, Watched, FlatCopy, Funds<Budget>> {
    RetryPolicy::grpc().wait(wait::fixed(Duration::from_millis(1))).hook(grpc::previous_attempts()).observe(log.clone())
}

async fn greet(log: &Log, channel: Channel, request: Request<String>) -> Result<String, Status> {
    greet_by(policy(log), channel, request).await
}

async fn greet_by<P>(policy: P, channel: Channel, request: Request<String>) -> Result<String, Status>
where
    P: Policy<Retried, http::Response<Body>, tonic::transport::Error> + Clone,
{
    let channel = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(policy))
        .map_request(|request: Retried| request.map(Body::new))
        .service(channel);
    unary(channel, request).await
}

async fn unary<S, B>(channel: S, request: Request<String>) -> Result<String, Status>
where
    S: Service<http::Request<Body>, Response = http::Response<B>, Error: Into<BoxError>>,
    B: http_body::Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.into().to_string()))?;
    let path = http::uri::PathAndQuery::from_static("/greeter.Greeter/Greet");
    client.unary(request, path, Text).await.map(Response::into_inner)
}

fn with_header(code: Code, name: &'static str, value: &str) -> Status {
    let mut metadata = MetadataMap::new();
    metadata.insert(name, value.parse().expect("a header value"));
    Status::with_metadata(code, "busy", metadata)
}

// Status { details: [Any { type_url, value: RetryInfo { retry_delay: Duration { nanos } } }] }, of less than 128 bytes each.
fn with_retry_info(code: Code, millis: u8) -> Status {
    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
    }
    let mut nanos = u32::from(millis) * 1_000_000;
    let mut duration = vec![2 << 3];
    while nanos >= 0x80 {
        duration.push(nanos as u8 | 0x80);
        nanos >>= 7;
    }
    duration.push(nanos as u8);
    let type_url = field(1, b"type.googleapis.com/google.rpc.RetryInfo");
    let any = [type_url, field(2, &field(1, &duration))].concat();
    Status::with_details(code, "busy", field(3, &any).into())
}

const fn millis(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

#[tokio::test]
async fn a_server_that_is_unavailable_twice_is_asked_three_times() {
    let greeter = Greeter::failing([
        with_header(Code::Unavailable, "grpc-retry-pushback-ms", "5"),
        with_retry_info(Code::Unavailable, 7),
    ]);
    let log = Log::default();
    let answer = greet(&log, greeter.start().await, name()).await;
    assert_eq!(answer.unwrap(), "hello Ada");
    assert_eq!(log.hints(), [millis(5), millis(7)]);
    let names: Vec<_> = greeter.seen.lock().unwrap().iter().map(|(_, name)| name.clone()).collect();
    assert_eq!(names, ["Ada", "Ada", "Ada"]);
    let previous = greeter.headers("grpc-previous-rpc-attempts");
    assert_eq!(previous, [None, Some("1".to_owned()), Some("2".to_owned())]);
}

#[tokio::test]
async fn the_last_status_comes_out_with_its_message_and_details() {
    let greeter = Greeter::failing((1..=4).map(|millis| with_retry_info(Code::Unavailable, millis)));
    let log = Log::default();
    let status = greet(&log, greeter.start().await, name()).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "busy"));
    assert_eq!(status.details(), with_retry_info(Code::Unavailable, 3).details());
    assert_eq!((greeter.calls(), log.hints()), (3, vec![millis(1), millis(2)]));
}

#[tokio::test]
async fn an_exhausted_resource_is_retried_only_if_the_server_says_when() {
    for (status, calls) in [
        (Status::resource_exhausted("quota"), 1),
        (with_retry_info(Code::ResourceExhausted, 3), 2),
        (with_header(Code::ResourceExhausted, "grpc-retry-pushback-ms", "3"), 2),
    ] {
        let greeter = Greeter::failing([status]);
        let log = Log::default();
        let answer = greet(&log, greeter.start().await, name()).await;
        assert_eq!(answer.is_ok(), calls == 2);
        assert_eq!((greeter.calls(), log.hints()), (calls, vec![millis(3); calls - 1]));
    }
}

#[tokio::test]
async fn what_is_permanent_is_asked_once() {
    for status in [
        Status::invalid_argument("no name"),
        Status::aborted("lost a race"),
        Status::internal("bug"),
        with_retry_info(Code::Aborted, 1),
        with_header(Code::Unavailable, "grpc-retry-pushback-ms", "-1"),
    ] {
        let greeter = Greeter::failing([status.clone()]);
        let log = Log::default();
        let answer = greet(&log, greeter.start().await, name()).await.unwrap_err();
        assert_eq!((answer.code(), answer.message()), (status.code(), status.message()));
        assert_eq!((greeter.calls(), log.hints()), (1, vec![]), "{status}");
    }
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left_of_the_deadline() {
    let greeter = Greeter::failing([Status::unavailable("busy"), Status::unavailable("busy")]);
    let mut request = name();
    request.set_timeout(Duration::from_secs(30));
    let answer = greet(&Log::default(), greeter.start().await, request).await;
    assert_eq!(answer.unwrap(), "hello Ada");
    let told: Vec<_> = {
        let seen = greeter.seen.lock().unwrap();
        seen.iter().map(|(headers, _)| grpc::timeout(headers).expect("a timeout")).collect()
    };
    assert_eq!((told.len(), told[0]), (3, Duration::from_secs(30)));
    assert!(told[0] > told[1] && told[1] > told[2] && told[2] > Duration::from_secs(20), "{told:?}");
}

#[tokio::test]
async fn a_pause_longer_than_the_deadline_ends_the_call_at_once() {
    let greeter = Greeter::failing([with_header(Code::Unavailable, "grpc-retry-pushback-ms", "60000")]);
    let mut request = name();
    request.set_timeout(Duration::from_secs(30));
    let status = greet(&Log::default(), greeter.start().await, request).await.unwrap_err();
    assert_eq!((status.code(), greeter.calls()), (Code::Unavailable, 1));
}

fn name() -> Request<String> {
    Request::new("Ada".to_owned())
}

#[tokio::test]
async fn a_server_that_is_down_is_tried_three_times() {
    let nobody = std::net::TcpListener::bind(LOOPBACK).expect("a port").local_addr().expect("an address");
    let log = Log::default();
    let status = greet(&log, channel(nobody), name()).await.unwrap_err();
    assert_eq!((status.code(), log.hints()), (Code::Unavailable, vec![None, None]));
    // It is not even a matter of codes: nothing was sent.
    let log = Log::default();
    let never = policy(&log).never_retry(grpc::Code::Unavailable);
    greet_by(never, channel(nobody), name()).await.unwrap_err();
    assert_eq!(log.hints(), [None, None]);
}

#[tokio::test]
async fn what_must_not_be_repeated_is_sent_again_only_if_it_never_arrived() {
    let once = |log: &Log| policy(log).per_request(|_: &Retried| CallOptions::new().idempotent(false));
    let greeter = Greeter::failing([Status::unavailable("busy")]);
    let log = Log::default();
    let status = greet_by(once(&log), greeter.start().await, name()).await.unwrap_err();
    assert_eq!((status.code(), greeter.calls(), log.hints()), (Code::Unavailable, 1, vec![]));
    let nobody = std::net::TcpListener::bind(LOOPBACK).expect("a port").local_addr().expect("an address");
    greet_by(once(&log), channel(nobody), name()).await.unwrap_err();
    assert_eq!(log.hints(), [None, None]);
}

#[tokio::test]
async fn a_message_longer_than_what_is_kept_is_sent_once_and_whole() {
    let greeter = Greeter::failing([Status::unavailable("busy")]);
    let log = Log::default();
    let long = "Ada".repeat(64 * 1024);
    let status = greet(&log, greeter.start().await, Request::new(long.clone())).await.unwrap_err();
    assert_eq!((status.code(), status.message(), log.hints()), (Code::Unavailable, "busy", vec![]));
    assert_eq!(*greeter.seen.lock().unwrap().iter().map(|(_, name)| name).collect::<Vec<_>>(), [&long]);
}

#[tokio::test]
async fn a_server_that_answers_nobody_gets_two_retries_in_all() {
    let greeter = Greeter::failing((0..9).map(|_| Status::unavailable("busy")));
    let (log, channel) = (Log::default(), greeter.start().await);
    let shared = policy(&log);
    for calls in [3, 4, 5] {
        greet_by(shared.clone(), channel.clone(), name()).await.unwrap_err();
        assert_eq!(greeter.calls(), calls);
    }
}

#[tokio::test]
async fn nested_layers_do_not_multiply() {
    let greeter = Greeter::failing((0..9).map(|_| Status::unavailable("busy")));
    let log = Log::default();
    let channel = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(policy(&log)))
        .layer(RetryLayer::new(policy(&log)))
        .map_request(|request: Retried| request.map(Body::new))
        .service(greeter.start().await);
    unary(channel, name()).await.unwrap_err();
    assert_eq!(greeter.calls(), 3 + 3 - 1);
}

#[tokio::test]
async fn a_connection_that_is_lost_is_made_anew() {
    let listener = tokio::net::TcpListener::bind(LOOPBACK).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let greeter = Greeter::default();
    let server = greeter.clone();
    tokio::spawn(async move {
        for _ in 0..2 {
            drop(listener.accept().await);
        }
        server.serve(TcpIncoming::from(listener));
    });
    let log = Log::default();
    let answer = greet(&log, channel(address), name()).await;
    assert_eq!(answer.unwrap(), "hello Ada");
    assert_eq!((greeter.calls(), log.hints()), (1, vec![None, None]));
}

#[tokio::test]
async fn a_stream_that_is_reset_is_not_retried() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    // A service that fails has its stream reset with INTERNAL_ERROR.
    let address = serve(TcpIncoming::bind(LOOPBACK).expect("a port"), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::ready(Err::<http::Response<Body>, BoxError>("broken".into()))
    });
    let status = greet(&Log::default(), channel(address), name()).await.unwrap_err();
    assert_eq!((status.code(), calls.load(Ordering::Relaxed)), (Code::Internal, 1));
    let also = policy(&Log::default()).also_retry(grpc::Code::Internal);
    greet_by(also, channel(address), name()).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 3);
}

#[tokio::test]
async fn a_call_that_timed_out_is_not_retried_unless_one_says_so() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let address = serve(TcpIncoming::bind(LOOPBACK).expect("a port"), move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        std::future::pending::<Result<http::Response<Body>, BoxError>>()
    });
    let channel = endpoint(address).timeout(Duration::from_millis(20)).connect_lazy();
    greet(&Log::default(), channel.clone(), name()).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    let also = policy(&Log::default()).also_retry(grpc::Code::DeadlineExceeded);
    greet_by(also, channel, name()).await.unwrap_err();
    assert_eq!(calls.load(Ordering::Relaxed), 1 + 3);
}

#[tokio::test]
async fn a_proxy_that_answers_instead_is_understood() {
    for (status, calls) in [(503, 3), (429, 3), (404, 1), (500, 1)] {
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let address = serve(TcpIncoming::bind(LOOPBACK).expect("a port"), move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            let page = Body::new(axum::body::Body::from("<html>"));
            std::future::ready(http::Response::builder().status(status).body(page))
        });
        greet(&Log::default(), channel(address), name()).await.unwrap_err();
        assert_eq!(count.load(Ordering::Relaxed), calls, "{status}");
    }
}

/// A response that has begun, and ends with a status.
struct Late(Option<HeaderMap>);

impl http_body::Body for Late {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }
}

#[tokio::test]
async fn a_status_in_the_trailers_is_seen_if_the_response_is_collected() {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = count.clone();
    let address = serve(TcpIncoming::bind(LOOPBACK).expect("a port"), move |request: http::Request<Body>| {
        let late = counted.fetch_add(1, Ordering::Relaxed) % 3 != 2;
        async move {
            if late {
                let status = with_header(Code::Unavailable, "grpc-retry-pushback-ms", "4");
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers).expect("a header");
                let response = http::Response::builder().header("content-type", "application/grpc");
                return response.body(Body::new(Late(Some(trailers))));
            }
            let greet = service_fn(|request: Request<String>| async move { Ok(Response::new(request.into_inner())) });
            Ok(tonic::server::Grpc::new(Text).unary(greet, request).await)
        }
    });

    let log = Log::default();
    let status = greet(&log, channel(address), name()).await.unwrap_err();
    assert_eq!((status.code(), log.hints()), (Code::Unavailable, vec![]), "by the head alone, it is under way");

    count.store(0, Ordering::Relaxed);
    let policy = RetryPolicy::grpc().observe(log.clone()).with_trailers();
    let channel = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(policy))
        .layer(CollectBodyLayer::new(64 * 1024))
        .map_request(|request: Retried| request.map(Body::new))
        .service(channel(address));
    assert_eq!(unary(channel, name()).await.unwrap(), "Ada");
    assert_eq!((count.load(Ordering::Relaxed), log.hints()), (3, vec![millis(4), millis(4)]));
}
