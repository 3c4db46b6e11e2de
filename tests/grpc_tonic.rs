//! A real tonic client and server on loopback, with the retry layer between the client and its channel.
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::{Buf, BufMut};
use http::{HeaderMap, request::Parts};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    metadata::MetadataMap,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::{ServiceBuilder, service_fn};
use tower_tenacity::{
    Attempt, Keep, RetryLayer, RetryPolicy,
    body::{RepeatBody, ReplayBody, ReplayBodyLayer},
    hooks::{Delay, Observer},
    policy::grpc,
    wait,
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
        let incoming = TcpIncoming::bind(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
        let address = incoming.local_addr().expect("an address");
        let greeter = self.clone();
        let service = service_fn(move |request: http::Request<Body>| {
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
        });
        tokio::spawn(Server::builder().serve_with_incoming(service, incoming));
        channel(address)
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|(headers, _)| Some(headers.get(name)?.to_str().unwrap().to_owned())).collect()
    }
}

fn channel(address: SocketAddr) -> Channel {
    Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
}

/// Keeps a request whose body can be kept.
#[derive(Clone, Copy)]
struct KeepRequest;

impl<B: RepeatBody> Keep<http::Request<B>> for KeepRequest {
    type Kept = (Parts, B::Kept);

    fn first(&self, request: http::Request<B>) -> (http::Request<B>, Option<Self::Kept>) {
        let (parts, body) = request.into_parts();
        let (body, kept) = body.keep();
        (http::Request::from_parts(parts.clone(), body), kept.map(|kept| (parts, kept)))
    }

    fn again(&self, (parts, kept): Self::Kept, last: bool) -> (http::Request<B>, Option<Self::Kept>) {
        let (body, kept) = B::again(kept, last);
        (http::Request::from_parts(parts.clone(), body), kept.map(|kept| (parts, kept)))
    }
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

type Retried = http::Request<ReplayBody<Body>>;

fn policy(log: &Log) -> RetryPolicy<impl Stop + Copy, wait::Fixed, grpc::Classifier, impl Watch, KeepRequest> {
    RetryPolicy::grpc()
        .wait(wait::fixed(Duration::from_millis(1)))
        .hook(grpc::previous_attempts())
        .observe(log.clone())
        .keep(KeepRequest)
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
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| Status::unknown(error.to_string()))?;
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
    let answer = greet(&log, greeter.start().await, Request::new("Ada".to_owned())).await;
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
    let status = greet(&log, greeter.start().await, Request::new("Ada".to_owned())).await.unwrap_err();
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
        let answer = greet(&log, greeter.start().await, Request::new("Ada".to_owned())).await;
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
        let answer = greet(&log, greeter.start().await, Request::new("Ada".to_owned())).await.unwrap_err();
        assert_eq!((answer.code(), answer.message()), (status.code(), status.message()));
        assert_eq!((greeter.calls(), log.hints()), (1, vec![]), "{status}");
    }
}

#[tokio::test]
async fn each_attempt_is_told_what_is_left_of_the_deadline() {
    let greeter = Greeter::failing([Status::unavailable("busy"), Status::unavailable("busy")]);
    let mut request = Request::new("Ada".to_owned());
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
    let mut request = Request::new("Ada".to_owned());
    request.set_timeout(Duration::from_secs(30));
    let status = greet(&Log::default(), greeter.start().await, request).await.unwrap_err();
    assert_eq!((status.code(), greeter.calls()), (Code::Unavailable, 1));
}
