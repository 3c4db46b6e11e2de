//! The Gemini client over in-memory transports and a real socket.
#![cfg(feature = "gemini")]

use std::convert::Infallible;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicU32, Ordering::Relaxed},
};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use tokio::time::Instant;
use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::classify::{Class, Classify};
use tower_tenacity::gemini::{
    self, ErrorKind, Gemini, GenerateContent, GenerateContentResponse, HttpClient, RequestBody, RpcStatus,
};
use tower_tenacity::{RetryLayer, policy::budget::Budget, stop, timeout::Deadline};

const ANSWER: &str =
    r#"{"candidates":[{"content":{"role":"model","parts":[{"text":"Paris"}]},"finishReason":"STOP"}]}"#;

fn question() -> GenerateContent {
    GenerateContent::new("gemini-2.5-flash").text("The capital of France?")
}

/// A body in pieces, which may end in an error.
struct Pieces(Vec<Result<&'static [u8], &'static str>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.0.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Ready(Some(self.0.remove(0).map(|piece| Frame::data(Bytes::from_static(piece))).map_err(Into::into)))
    }
}

async fn ask_pieces(
    status: u16,
    limit: usize,
    pieces: &[Result<&'static [u8], &'static str>],
) -> Result<GenerateContentResponse, gemini::Error> {
    let pieces = pieces.to_vec();
    let http = service_fn(move |_: Request<RequestBody>| {
        let mut response = Response::new(Pieces(pieces.clone()));
        *response.status_mut() = StatusCode::from_u16(status).expect("a status");
        async { Ok::<_, Infallible>(response) }
    });
    Gemini::with_transport(http, "my-key").expect("a client").max_response_bytes(limit).oneshot(question()).await
}

#[tokio::test]
async fn the_request_is_what_the_api_expects() {
    let http = service_fn(|request: Request<RequestBody>| async move {
        assert_eq!(request.method(), "POST");
        assert_eq!(
            request.uri(),
            "https://generativelanguage.googleapis.com/v1beta/models/gemini-2.5-flash:generateContent"
        );
        let headers = request.headers();
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["x-goog-api-key"], "my-key");
        assert!(headers["x-goog-api-key"].is_sensitive());
        assert!(headers["user-agent"].to_str().is_ok_and(|agent| agent.starts_with("tower-tenacity/")));
        assert!(!headers.contains_key("x-server-timeout"));
        assert_eq!(request.body().size_hint().exact(), Some(request.body().as_bytes().len() as u64));
        assert_eq!(
            request.body().as_bytes(),
            br#"{"contents":[{"role":"user","parts":[{"text":"The capital of France?"}]}]}"#
        );
        Ok::<_, Infallible>(Response::new(ANSWER.to_owned()))
    });
    let gemini = Gemini::with_transport(http, "my-key").expect("a client");
    assert_eq!(gemini.oneshot(question()).await.expect("a response").text().as_deref(), Ok("Paris"));
}

#[tokio::test]
async fn a_request_that_cannot_be_sent_is_not_sent() {
    let http =
        service_fn(|_: Request<RequestBody>| async { panic!("it was sent") as Result<Response<String>, Infallible> });
    let gemini = Gemini::with_transport(http, "my-key").expect("a client");
    for question in
        [GenerateContent::new("m"), GenerateContent::new("../m").text("t"), question().temperature(f32::NAN)]
    {
        let error = gemini.clone().oneshot(question).await.expect_err("it is refused");
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
        assert_eq!(gemini::classify().classify(&Err::<(), _>(error)), Some(Class::Permanent));
    }
}

#[test]
fn a_body_that_never_ends_does_not_keep_the_thread() {
    // Empty frames, which no limit of bytes counts.
    struct Endless(Arc<AtomicU32>);
    impl Body for Endless {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            assert!(self.0.fetch_add(1, Relaxed) < 10_000, "it never ends");
            Poll::Ready(Some(Ok(Frame::data(Bytes::new()))))
        }
    }
    let polls = Arc::<AtomicU32>::default();
    let counted = polls.clone();
    let http = service_fn(move |_: Request<RequestBody>| {
        let body = Endless(counted.clone());
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let mut gemini = Gemini::with_transport(http, "my-key").expect("a client");
    let mut call = std::pin::pin!(gemini.call(question()));
    let cx = &mut Context::from_waker(std::task::Waker::noop());
    for round in 1..=3 {
        assert!(call.as_mut().poll(cx).is_pending());
        assert!(polls.load(Relaxed) <= round * 64);
    }
}

#[test]
fn content_of_another_type_is_none() {
    for content in ["[]", "[1,{\"parts\":[]}]", "null", "true", "7", "-7", "7.5", "\"text\""] {
        let answer = format!(
            r#"{{"candidates":[{{"content":{content},"finishReason":"SAFETY"}}],"usageMetadata":{{"totalTokenCount":7}}}}"#
        );
        let response: GenerateContentResponse = serde_json::from_str(&answer).expect(content);
        let blocked = gemini::NoAnswer::Blocked { reason: gemini::FinishReason::Safety };
        assert_eq!(response.answer().expect_err(content), blocked);
        assert_eq!(response.usage().and_then(|usage| usage.total), Some(7));
    }
}

#[tokio::test]
async fn a_body_comes_in_pieces_and_may_be_cut_off() {
    let (start, end) = ANSWER.as_bytes().split_at(20);
    let whole = ask_pieces(200, 1000, &[Ok(start), Ok(b""), Ok(end)]).await.expect("a response");
    assert_eq!(whole.text().as_deref(), Ok("Paris"));

    let cut = ask_pieces(200, 1000, &[Ok(start), Err("connection reset")]).await.expect_err("cut off");
    assert_eq!((cut.kind(), cut.status()), (ErrorKind::Transport, Some(StatusCode::OK)));
    assert!(std::error::Error::source(&cut).is_some_and(|source| source.to_string() == "connection reset"));
    assert_eq!(gemini::classify().classify(&Err::<(), _>(cut)), Some(Class::Transient { retry_after: None }));

    let short = ask_pieces(200, 1000, &[Ok(start)]).await.expect_err("cut off");
    assert!(short.is_truncated() && short.kind() == ErrorKind::Decode);
    assert_eq!(gemini::classify().classify(&Err::<(), _>(short)), Some(Class::Transient { retry_after: None }));

    // The status of a failure outlives its body.
    let failed = ask_pieces(503, 1000, &[Ok(b"{\"err"), Err("connection reset")]).await.expect_err("a failure");
    assert_eq!((failed.kind(), failed.status()), (ErrorKind::Api, Some(StatusCode::SERVICE_UNAVAILABLE)));
}

#[tokio::test]
async fn a_response_may_not_be_larger_than_agreed() {
    let size = ANSWER.len();
    assert!(ask_pieces(200, size, &[Ok(ANSWER.as_bytes())]).await.is_ok());
    // The piece after the limit is never asked for.
    let error = ask_pieces(200, size - 1, &[Ok(ANSWER.as_bytes()), Err("read on")]).await.expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::ResponseTooLarge);
    assert_eq!(gemini::classify().classify(&Err::<(), _>(error)), Some(Class::Permanent));
    let failed = ask_pieces(429, 8, &[Ok(b"no more of"), Err("read on")]).await.expect_err("a failure");
    assert_eq!((failed.kind(), failed.message()), (ErrorKind::Api, "no more"));
}

#[tokio::test]
async fn neither_send_nor_static_is_asked_of_the_transport() {
    let answers = std::rc::Rc::new(ANSWER.to_owned());
    let borrowed: &String = &answers;
    let http = service_fn(move |_: Request<RequestBody>| {
        let answers = std::rc::Rc::new(borrowed.clone());
        async move { Ok::<_, Infallible>(Response::new(answers.to_string())) }
    });
    let response = Gemini::with_transport(http, "my-key").expect("a client").oneshot(question()).await;
    assert!(response.is_ok());
}

#[test]
fn what_is_shared_can_be_sent() {
    fn check<T: Send + Sync + 'static>() {}
    check::<Gemini<HttpClient>>();
    check::<GenerateContent>();
    check::<GenerateContentResponse>();
    check::<gemini::Error>();
    fn send<S: Service<GenerateContent>>(_: &S)
    where
        S::Future: Send,
    {
    }
    send(&Gemini::new("my-key").expect("a client"));
    assert_eq!(size_of::<gemini::Error>(), size_of::<usize>());
}

#[tokio::test]
async fn a_transport_that_never_gets_ready_is_told() {
    let http = service_fn(|_: Request<RequestBody>| async { Err::<Response<String>, _>("refused") });
    let error =
        Gemini::with_transport(http, "my-key").expect("a client").oneshot(question()).await.expect_err("refused");
    assert_eq!((error.kind(), error.status()), (ErrorKind::Transport, None));
    assert_eq!(error.to_string(), "the Gemini API could not be reached");
}

/// Reads one request and answers it, on a thread of its own.
fn serve(answer: String) -> (String, std::thread::JoinHandle<String>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/gateway/", listener.local_addr().expect("an address"));
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut request = Vec::new();
        let mut buffer = [0; 4096];
        while !request.ends_with(b"}") {
            let read = stream.read(&mut buffer).expect("a request");
            request.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8(request).expect("a request in text")
    });
    (url, server)
}

#[tokio::test]
async fn the_http_client_talks_to_a_socket() {
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", ANSWER.len());
    let (url, server) = serve(format!("{head}{ANSWER}"));
    let gemini = Gemini::new("my-key").and_then(|gemini| gemini.base_url(url)).expect("a client");
    assert_eq!(gemini.clone().oneshot(question()).await.expect("a response").text().as_deref(), Ok("Paris"));
    let request = server.join().expect("it served").to_ascii_lowercase();
    assert!(
        request.starts_with("post /gateway/v1beta/models/gemini-2.5-flash:generatecontent http/1.1\r\n"),
        "{request}"
    );
    assert!(request.contains("x-goog-api-key: my-key\r\n"), "{request}");

    // The server is gone now.
    let error = gemini.oneshot(question()).await.expect_err("nobody listens");
    let source = std::error::Error::source(&error).and_then(|source| source.downcast_ref::<gemini::TransportError>());
    assert!(source.is_some_and(gemini::TransportError::is_connect), "{error:?}");
    assert!(!format!("{error:?}").contains("my-key"));
}

#[tokio::test]
async fn a_socket_that_closes_early_is_transient() {
    let (url, server) = serve("HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"candidates\":".to_owned());
    let client = HttpClient::builder().connect_timeout(Duration::from_secs(2)).build().expect("a client");
    let gemini = Gemini::with_transport(client, "my-key").and_then(|gemini| gemini.base_url(url)).expect("a client");
    let error = gemini.oneshot(question()).await.expect_err("cut off");
    server.join().expect("it served");
    assert_eq!((error.kind(), error.is_truncated()), (ErrorKind::Transport, true));
    assert_eq!(gemini::classify().classify(&Err::<(), _>(error)), Some(Class::Transient { retry_after: None }));
}

#[tokio::test]
async fn the_classifier_sees_through_tower() {
    let http = service_fn(|_: Request<RequestBody>| async {
        let body = r#"{"error":{"code":429,"message":"Please retry in 2.5s.","status":"RESOURCE_EXHAUSTED"}}"#;
        let mut response = Response::new(body.to_owned());
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        Ok::<_, Infallible>(response)
    });
    let gemini = Gemini::with_transport(http, "my-key").expect("a client");
    let stack = tower::timeout::Timeout::new(gemini, Duration::from_secs(5));
    let outcome = stack.oneshot(question()).await;
    let class = gemini::classify().classify(&outcome);
    assert_eq!(class, Some(Class::Throttled { retry_after: Some(Duration::from_millis(2500)) }));
    let error = outcome.expect_err("throttled").downcast::<gemini::Error>().expect("the error");
    assert_eq!(error.rpc_status(), Some(&RpcStatus::ResourceExhausted));
}

#[tokio::test(start_paused = true)]
async fn the_deadline_of_a_question_bounds_its_call_and_reaches_each_attempt() {
    let left = Arc::new(Mutex::new(Vec::new()));
    let seen = left.clone();
    let transport = service_fn(move |request: http::Request<RequestBody>| {
        let deadline = request.extensions().get::<Deadline>().copied();
        seen.lock().unwrap().push(deadline.map(|deadline| deadline.time_left(Instant::now()).as_secs()));
        async {
            let body = r#"{"error":{"code":503,"message":"retry in 20s"}}"#.to_owned();
            http::Response::builder().status(503).body(body)
        }
    });
    let gemini = ServiceBuilder::new()
        .layer(RetryLayer::new(gemini::policy()))
        .service(Gemini::with_transport(transport, "my-key").unwrap());
    let question = || GenerateContent::new("m").text("?");
    let began = Instant::now();
    let error =
        gemini.clone().oneshot(question().deadline(Deadline::after(Duration::from_secs(50)))).await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(503));
    assert!((40..=44).contains(&began.elapsed().as_secs()), "two pauses of 20 s to 22 s, no third");
    let times: Vec<_> = left.lock().unwrap().drain(..).flatten().collect();
    assert_eq!(times.len(), 3);
    assert!(times[0] == 50 || times[0] == 49, "{times:?}");
    assert!(times[1] <= 30 && times[2] <= 10, "{times:?}");
}

#[tokio::test(start_paused = true)]
async fn one_retry_layer_inside_another_makes_five_attempts_of_three_and_three() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let transport = service_fn(move |_: http::Request<RequestBody>| {
        counted.fetch_add(1, Relaxed);
        async { http::Response::builder().status(503).body(String::new()) }
    });
    let three = || gemini::policy().stop(stop::after_attempt(3)).budget(Budget::new(1.0).unwrap().reserve(100));
    let gemini = ServiceBuilder::new()
        .layer(RetryLayer::new(three()))
        .layer(RetryLayer::new(three()))
        .service(Gemini::with_transport(transport, "my-key").unwrap());
    let question = GenerateContent::new("m").text("?");
    gemini.clone().oneshot(question.clone()).await.unwrap_err();
    assert_eq!(calls.swap(0, Relaxed), 5);
    gemini.oneshot(question).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 5, "the caller's own question was not marked");
}
