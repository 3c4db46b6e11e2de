//! The connections of hyper let go of a body, and the next attempt has it: over loopback, asserting order and counts.
#![cfg(all(feature = "gemini", feature = "testing"))]

#[path = "common/body.rs"]
mod bodies;

use std::{net::SocketAddr, time::Duration};

use axum::body::Body as AxumBody;
use bodies::{Hint, Steps, data};
use http::{Request, Response};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::{TcpListener, TcpStream};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_tenacity::{
    Attempt, Decision, Keep, Policy, RetryLayer, RetryPolicy, StopReason,
    body::{CollectBodyLayer, CollectedBody, RepeatBody, ReplayBody, ReplayBodyLayer},
};

/// Keeps the body, and rebuilds the head.
#[derive(Clone, Copy, Debug)]
struct Put(SocketAddr);

impl<B: RepeatBody> Keep<Request<B>> for Put {
    type Kept = B::Kept;

    fn first(&self, request: Request<B>) -> (Request<B>, Option<B::Kept>) {
        let (head, body) = request.into_parts();
        let (body, kept) = body.keep();
        (Request::from_parts(head, body), kept)
    }

    fn again(&self, kept: B::Kept, last: bool) -> (Request<B>, Option<B::Kept>) {
        let (body, kept) = B::again(kept, last);
        (Request::put(format!("http://{}/", self.0)).body(body).unwrap(), kept)
    }

    fn take_over(&self, kept: &mut B::Kept) -> bool {
        B::take_over(kept).is_ok()
    }
}

impl<B: RepeatBody, Res> Policy<Request<B>, Response<Res>, BoxError> for Put {
    type Keep = Self;

    fn keep(&self) -> Self {
        *self
    }

    fn may_retry(&self, number: u32) -> bool {
        number < 3
    }

    fn decide(
        &mut self,
        attempt: &Attempt,
        kept: Option<&mut B::Kept>,
        outcome: &mut Result<Response<Res>, BoxError>,
    ) -> Decision {
        match (outcome, kept) {
            (Ok(response), _) if response.status().is_success() => Decision::Return,
            (_, Some(_)) if attempt.number() < 3 => Decision::Retry { after: Duration::ZERO },
            _ => Decision::GiveUp(StopReason::Exhausted),
        }
    }
}

fn client(
    address: SocketAddr,
    limit: Duration,
) -> impl Service<Request<AxumBody>, Response = Response<CollectedBody>, Error = BoxError> {
    let client: Client<HttpConnector, ReplayBody<AxumBody>> = Client::builder(TokioExecutor::new()).build_http();
    ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(1 << 20))
        .layer(RetryLayer::new(Put(address)))
        .layer(CollectBodyLayer::new(1024))
        .timeout(limit)
        .service(client)
}

/// Reads the request until it holds `until`, or to the end of its body.
async fn receive(stream: &TcpStream, until: &str) -> String {
    let mut received = Vec::new();
    loop {
        stream.readable().await.unwrap();
        let mut buffer = [0; 4096];
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(length) => received.extend_from_slice(&buffer[..length]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => continue,
            Err(_) => break,
        }
        if String::from_utf8_lossy(&received).contains(until) {
            break;
        }
    }
    String::from_utf8(received).unwrap()
}

async fn respond(stream: &TcpStream, response: &str) {
    stream.writable().await.unwrap();
    assert_eq!(stream.try_write(response.as_bytes()).unwrap(), response.len());
}

/// A body that has its second half only when the first one was sent.
fn slow(gate: tokio::sync::oneshot::Receiver<()>) -> AxumBody {
    struct Slow(Steps, Option<tokio::sync::oneshot::Receiver<()>>);
    impl http_body::Body for Slow {
        type Data = bytes::Bytes;
        type Error = std::io::Error;
        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<bodies::Given<Steps>> {
            let this = &mut *self;
            if this.0.polls().load(std::sync::atomic::Ordering::SeqCst) > 0 {
                if let Some(gate) = &mut this.1 {
                    let _ = std::task::ready!(std::pin::Pin::new(gate).poll(cx));
                    this.1 = None;
                }
            }
            std::pin::Pin::new(&mut this.0).poll_frame(cx)
        }
    }
    AxumBody::new(Slow(Steps::new([data("first half"), data("second half")]), Some(gate)))
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone";
const BUSY: &str = "HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy";

#[tokio::test]
async fn a_body_read_whole_is_sent_again_after_an_error_of_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    for hint in [false, true] {
        let body = Steps::new([data("hello "), data("world")]);
        let body = if hint { body.hint(Hint::Honest) } else { body };
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            let mut seen = Vec::new();
            for (end, response) in [(if hint { "world" } else { "\r\n0\r\n\r\n" }, BUSY), ("world", OK)] {
                let request = receive(&stream, end).await;
                seen.push((request.contains("content-length: 11"), request.contains("chunked")));
                assert!(request.contains("hello ") && request.contains("world"));
                respond(&stream, response).await;
            }
            seen
        };
        let request = Request::put(format!("http://{address}/")).body(AxumBody::new(body)).unwrap();
        let (response, seen) = tokio::join!(client(address, Duration::from_secs(20)).oneshot(request), server);
        assert_eq!(response.unwrap().body().bytes(), "done");
        let framing = if hint { (true, false) } else { (false, true) };
        // By then the length is known, which a chunked request did not say.
        assert_eq!(seen, [framing, (true, false)]);
    }
}

#[tokio::test]
async fn a_half_sent_body_is_taken_over_from_a_connection_that_broke() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, gate) = tokio::sync::oneshot::channel();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        assert!(!receive(&stream, "first half").await.contains("second half"));
        drop(stream);
        let (stream, _) = listener.accept().await.unwrap();
        let _ = open.send(());
        let request = receive(&stream, "\r\n0\r\n\r\n").await;
        respond(&stream, OK).await;
        request
    };
    let request = Request::put(format!("http://{address}/")).body(slow(gate)).unwrap();
    let (response, request) = tokio::join!(client(address, Duration::from_secs(20)).oneshot(request), server);
    assert_eq!(response.unwrap().body().bytes(), "done");
    assert!(request.contains("first half") && request.contains("second half"), "{request}");
}

#[tokio::test]
async fn a_half_sent_body_is_taken_over_from_an_attempt_whose_time_was_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, gate) = tokio::sync::oneshot::channel();
    let server = async {
        let (stalled, _) = listener.accept().await.unwrap();
        assert!(!receive(&stalled, "first half").await.contains("second half"));
        // It never answers, and stays open.
        let (stream, _) = listener.accept().await.unwrap();
        let _ = open.send(());
        let request = receive(&stream, "\r\n0\r\n\r\n").await;
        respond(&stream, OK).await;
        drop(stalled);
        request
    };
    let request = Request::put(format!("http://{address}/")).body(slow(gate)).unwrap();
    let (response, request) = tokio::join!(client(address, Duration::from_secs(2)).oneshot(request), server);
    assert_eq!(response.unwrap().body().bytes(), "done");
    assert!(request.contains("first half") && request.contains("second half"), "{request}");
}

#[tokio::test]
async fn trailers_are_sent_every_time() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        for response in [BUSY, OK] {
            let request = receive(&stream, "checksum: abc\r\n\r\n").await;
            assert!(request.contains("chunked") && request.contains("hello"), "{request}");
            respond(&stream, response).await;
        }
    };
    let client: Client<HttpConnector, ReplayBody<Steps>> = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(1024))
        .layer(RetryLayer::new(RetryPolicy::http()))
        .timeout(Duration::from_secs(5))
        .service(client);
    let body = Steps::new([data("hello"), bodies::Step::Trailers(bodies::trailers())]);
    let request = Request::put(format!("http://{address}/")).header("trailer", "checksum").body(body).unwrap();
    let (response, ()) = tokio::join!(client.oneshot(request), server);
    assert_eq!(response.unwrap().status(), 200);
}

#[tokio::test]
async fn an_early_success_is_handed_on_while_the_upload_goes_on() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, gate) = tokio::sync::oneshot::channel();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        receive(&stream, "first half").await;
        respond(&stream, OK).await;
        stream
    };
    let request = Request::put(format!("http://{address}/")).body(slow(gate)).unwrap();
    let (response, stream) = tokio::join!(client(address, Duration::from_secs(20)).oneshot(request), server);
    assert_eq!(response.unwrap().body().bytes(), "done");
    open.send(()).unwrap();
    assert!(receive(&stream, "second half").await.contains("second half"));
}

#[tokio::test]
async fn an_early_failure_is_tried_again_and_the_upload_under_it_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (open, gate) = tokio::sync::oneshot::channel();
    let server = async {
        let (stream, _) = listener.accept().await.unwrap();
        receive(&stream, "first half").await;
        respond(&stream, BUSY).await;
        // This server would go on reading, as nginx does.
        let reads_on = receive(&stream, "second half");
        let goes_on = async {
            let (stream, _) = listener.accept().await.unwrap();
            receive(&stream, "first half").await;
            open.send(()).unwrap();
            let rest = receive(&stream, "second half").await;
            respond(&stream, OK).await;
            (stream, rest)
        };
        tokio::join!(reads_on, goes_on)
    };
    let request = Request::put(format!("http://{address}/")).body(slow(gate)).unwrap();
    let (response, (old, (_stream, new))) =
        tokio::join!(client(address, Duration::from_secs(20)).oneshot(request), server);
    assert_eq!(response.unwrap().body().bytes(), "done");
    assert!(!old.contains("second half") && new.contains("second half"), "{old:?} {new:?}");
}
