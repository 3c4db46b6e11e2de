//! The preset for HTTP around hyper-util's client, over loopback, against servers that misbehave: what is sent again, how often,
//! over how many connections, and what the server sees of it (laws 2, 13, 14, 15).
#![cfg(all(feature = "gemini", feature = "testing"))]

#[path = "sockets/one.rs"]
mod one;
#[path = "sockets/two.rs"]
mod two;

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Body as AxumBody;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use one::{Act, Server, answer, busy, ok, silence, status};
use tokio::{
    net::{TcpListener, TcpSocket},
    time::{sleep, timeout},
};
use tower::{BoxError, Service, ServiceBuilder, ServiceExt};
use tower_tenacity::{
    Attempt, RetryLayer, RetryPolicy, StopReason,
    body::{BodyTooLarge, CollectBodyLayer, ReplayBody, ReplayBodyLayer},
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, State},
    classify::Class,
    cooldown::CooldownLayer,
    hooks::{Delay, Observed, Observer},
    policy::{
        budget::{Budget, Funds},
        http::{Classifier, Deadlines, Drain, FlatCopy, Idempotency, Mark, classify, drain},
    },
    stop,
    timeout::{AttemptTimeoutLayer, Deadline, TimedOut},
    wait,
};

// Only a hang gets there.
const LONG: Duration = Duration::from_secs(20);
// For an answer that is there at once, on a machine with other things to do.
const LIMIT: Duration = Duration::from_millis(500);

const TRANSIENT: Event = Event::Again(Class::transient());
const UNSENT: Event = Event::Again(Class::unsent());
const NOT_IDEMPOTENT: Event = Event::GaveUp(StopReason::NotIdempotent);

/// What the policy did.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Event {
    Again(Class),
    GaveUp(StopReason),
    /// With the number of the attempt.
    Done(u32),
}
use Event::{Again, Done, GaveUp};

#[derive(Clone, Debug, Default)]
struct Log(Arc<Mutex<Vec<Event>>>);

impl Log {
    fn push(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }

    fn take(&self) -> Vec<Event> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<Res, E> Observer<Res, E> for Log {
    fn before_sleep(&self, _: &Attempt, _: &Result<Res, E>, delay: &Delay) {
        self.push(Again(delay.class()));
    }

    fn gave_up(&self, _: &Attempt, _: &Result<Res, E>, reason: StopReason) {
        self.push(GaveUp(reason));
    }

    fn succeeded(&self, attempt: &Attempt, _: &Result<Res, E>) {
        self.push(Done(attempt.number()));
    }
}

type Observing<M> = RetryPolicy<
    stop::AfterAttempt,
    wait::Fixed,
    Classifier<M>,
    ((((((), Idempotency), Mark), Deadlines), Drain), Observed<Log>),
    FlatCopy,
    Funds<Budget>,
>;

/// The preset, with short waits.
fn policy<M>(log: &Log) -> Observing<M> {
    RetryPolicy::http().wait(wait::fixed(Duration::from_millis(10))).observe(log.clone())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Speaks {
    One,
    Two,
}

fn client<B>(speaks: Speaks) -> Client<HttpConnector, B>
where
    B: Body<Data: Send> + Send,
{
    Client::builder(TokioExecutor::new()).http2_only(speaks == Speaks::Two).build_http()
}

const BODY: &str = "the body of the request";

fn request(method: Method, uri: &str) -> Request<Full<Bytes>> {
    Request::builder().method(method).uri(uri).body(Full::from(BODY)).unwrap()
}

/// The status and body of an answer; or why its body failed.
#[derive(Debug)]
struct Answer(u16, Result<String, BoxError>);

impl Answer {
    #[track_caller]
    fn is(&self, status: u16, body: &str) {
        assert!(self.0 == status && self.1.as_deref().is_ok_and(|read| read == body), "{self:?}");
    }

    #[track_caller]
    fn is_broken(&self, status: u16) {
        assert!(self.0 == status && self.1.is_err(), "{self:?}");
    }
}

async fn read<B>(response: Response<B>) -> Answer
where
    B: Body<Error: Into<BoxError>>,
{
    let status = response.status().as_u16();
    let read = timeout(LONG, response.into_body().collect()).await.expect("it ends");
    Answer(status, read.map_err(Into::into).map(|body| String::from_utf8(body.to_bytes().to_vec()).unwrap()))
}

/// One call, with a client of its own.
async fn call(log: &Log, speaks: Speaks, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
    ask(ServiceBuilder::new().layer(RetryLayer::new(policy(log))).service(client(speaks)), request).await
}

/// One call, with its body read and each attempt cut after a while.
async fn call_whole(log: &Log, speaks: Speaks, request: Request<Full<Bytes>>) -> Result<Answer, BoxError> {
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy(log)))
        .layer(AttemptTimeoutLayer::http(LIMIT))
        .layer(CollectBodyLayer::new(1 << 20))
        .service(client(speaks));
    ask(service, request).await
}

/// One upload, kept while it streams.
async fn upload(log: &Log, speaks: Speaks, request: Request<AxumBody>) -> Result<Answer, BoxError> {
    let client: Client<HttpConnector, ReplayBody<AxumBody>> = client(speaks);
    let service =
        ServiceBuilder::new().layer(ReplayBodyLayer::new(16 << 20)).layer(RetryLayer::new(policy(log))).service(client);
    ask(service, request).await
}

async fn ask<S, B, Res>(service: S, request: Request<B>) -> Result<Answer, BoxError>
where
    S: Service<Request<B>, Response = Response<Res>, Error: Into<BoxError>>,
    Res: Body<Error: Into<BoxError>>,
{
    let response = timeout(LONG, service.oneshot(request)).await.expect("it ends").map_err(Into::into)?;
    Ok(read(response).await)
}

/// A body that comes in pieces, each after a moment, and cannot be cloned.
fn streamed(pieces: impl IntoIterator<Item = Vec<u8>>) -> AxumBody {
    struct Pieces(std::vec::IntoIter<Vec<u8>>, Option<Pin<Box<tokio::time::Sleep>>>);
    impl Body for Pieces {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            if let Some(pause) = &mut self.1 {
                std::task::ready!(pause.as_mut().poll(cx));
            }
            self.1 = Some(Box::pin(sleep(Duration::from_millis(5))));
            Poll::Ready(self.0.next().map(|piece| Ok(Frame::data(Bytes::from(piece)))))
        }
    }
    AxumBody::new(Pieces(pieces.into_iter().collect::<Vec<_>>().into_iter(), None))
}

/// A body whose source is lost after so many pieces.
fn broken_off(pieces: usize) -> AxumBody {
    struct Broken(usize, Pin<Box<tokio::time::Sleep>>);
    impl Body for Broken {
        type Data = Bytes;
        type Error = io::Error;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
            std::task::ready!(self.1.as_mut().poll(cx));
            self.1 = Box::pin(sleep(Duration::from_millis(20)));
            let Some(left) = self.0.checked_sub(1) else {
                return Poll::Ready(Some(Err(io::ErrorKind::UnexpectedEof.into())));
            };
            self.0 = left;
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"piece")))))
        }
    }
    AxumBody::new(Broken(pieces, Box::pin(sleep(Duration::ZERO))))
}

/// A port that refuses connections until it is told to listen.
fn reserved() -> (TcpSocket, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let uri = format!("http://{}/", socket.local_addr().unwrap());
    (socket, uri)
}

#[tokio::test]
async fn a_request_whose_connection_was_refused_is_sent_again_whatever_it_is() {
    enum Started {
        One(Server),
        Two(two::Server),
    }
    for speaks in [Speaks::One, Speaks::Two] {
        for method in [Method::GET, Method::PUT, Method::POST, Method::PATCH] {
            let (socket, uri) = reserved();
            let (socket, started) = (Arc::new(Mutex::new(Some(socket))), Arc::new(Mutex::new(None)));
            let keep = started.clone();
            let log = Log::default();
            // The server comes up while the client waits.
            let policy = policy(&log).before_sleep(
                move |_: &Attempt, _: &Result<_, hyper_util::client::legacy::Error>, _: &Delay| {
                    let listener: TcpListener = socket.lock().unwrap().take().unwrap().listen(16).unwrap();
                    *keep.lock().unwrap() = Some(match speaks {
                        Speaks::One => Started::One(Server::on(listener, [ok("here")])),
                        Speaks::Two => Started::Two(two::Server::on(listener, [two::ok("here")])),
                    });
                },
            );
            let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client(speaks));
            ask(service, request(method.clone(), &uri)).await.unwrap().is(200, "here");
            assert_eq!(log.take(), [UNSENT, Done(2)], "{speaks:?}, {method}");
            let counts = match started.lock().unwrap().take().unwrap() {
                Started::One(server) => server.counts(),
                Started::Two(server) => server.counts(),
            };
            assert_eq!(counts, (1, 1));
        }
    }
}

#[tokio::test]
async fn three_refused_connections_are_the_error_of_the_last() {
    for speaks in [Speaks::One, Speaks::Two] {
        let (_socket, uri) = reserved();
        let log = Log::default();
        let error = call(&log, speaks, request(Method::POST, &uri)).await.unwrap_err();
        assert!(error.downcast::<hyper_util::client::legacy::Error>().unwrap().is_connect());
        assert_eq!(log.take(), [UNSENT, UNSENT, GaveUp(StopReason::Exhausted)]);
    }
}

/// Ways for a connection to end after the request was received, and before the head of the response was.
fn ends() -> Vec<(&'static str, Act)> {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-le";
    vec![
        ("closed", answer("").then_close()),
        ("reset", answer("").then_reset()),
        ("closed in the head", answer(HALF).then_close()),
        ("closed later in the head", answer("HTTP/1.1 200").and(" OK\r\nvary").then_close()),
        ("reset in the head", answer(HALF).then_reset()),
        ("closed in the status line", answer("HT").then_close()),
        ("closed after 100 Continue", answer("HTTP/1.1 100 Continue\r\n\r\n").then_close()),
        ("reset after 103 Early Hints", answer("HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n").then_reset()),
        ("closed after what is no HTTP", answer("SSH-2.0-OpenSSH_9.6\r\n\r\n").then_close()),
        ("reset half-way through the request", answer("").then_reset().after_reading(BODY.len() / 2)),
        ("closed before the request's body", answer("").then_close().after_reading(0)),
    ]
}

#[tokio::test]
async fn a_connection_that_ends_before_the_response_has_its_request_sent_again() {
    for (what, end) in ends() {
        let server = Server::start([end, ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::One, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
        assert_eq!(log.take(), [TRANSIENT, Done(2)], "{what}");
        assert_eq!(server.counts(), (2, 2), "{what}");
        let seen = server.seen();
        assert_eq!((&*seen[1].method, &*seen[1].path, &*seen[1].body), ("PUT", "/", BODY.as_bytes()), "{what}");
        assert_eq!(seen[1].head, seen[0].head, "{what}: nothing is added to it");
    }
}

#[tokio::test]
async fn but_not_if_it_must_not_be_carried_out_twice() {
    for (what, end) in ends() {
        let server = Server::start([end, ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::One, request(Method::POST, &server.uri)).await.expect_err(what);
        assert_eq!(log.take(), [NOT_IDEMPOTENT], "{what}");
        assert_eq!(server.counts(), (1, 1), "{what}");
    }
}

#[tokio::test]
async fn unless_the_server_would_know_it() {
    for (what, end) in ends() {
        let server = Server::start([end, ok("done")]).await;
        let log = Log::default();
        let mut order = request(Method::POST, &server.uri);
        order.headers_mut().insert("idempotency-key", "\"5f2a\"".parse().unwrap());
        call(&log, Speaks::One, order).await.unwrap().is(200, "done");
        assert_eq!(log.take(), [TRANSIENT, Done(2)], "{what}");
        assert!(server.seen().iter().all(|seen| seen.head.contains("idempotency-key: \"5f2a\"\r\n")), "{what}");
    }
}

#[tokio::test]
async fn one_call_survives_every_way_to_fail() {
    let (names, mut script): (Vec<_>, Vec<_>) = ends().into_iter().unzip();
    script.extend([busy(), ok("done")]);
    let (failures, server) = (script.len() - 1, Server::start(script).await);
    let log = Log::default();
    let generous = Budget::new(1.0).unwrap().reserve(100);
    let policy = policy(&log).stop(stop::after_attempt(20)).budget(generous);
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client(Speaks::One));
    ask(service, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    // The answer with a status leaves a connection that can be used again.
    assert_eq!(server.counts(), (failures + 1, names.len() + 1));
    assert_eq!(log.take().len(), failures + 1);
}

#[tokio::test]
async fn an_idle_connection_that_was_closed_costs_no_call() {
    // As some do before they close it.
    const WORD: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    for method in [Method::GET, Method::PUT, Method::POST] {
        let server = Server::start([ok("one").then_close(), ok("two").and(WORD).then_close(), ok("three")]).await;
        let log = Log::default();
        let service = ServiceBuilder::new().layer(RetryLayer::new(policy(&log))).service(client(Speaks::One));
        for answer in ["one", "two", "three"] {
            ask(service.clone(), request(method.clone(), &server.uri)).await.unwrap().is(200, answer);
            // Long enough for the client to see it.
            sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(log.take(), [Done(1), Done(1), Done(1)]);
        assert_eq!(server.counts(), (3, 3));
    }
}

#[tokio::test]
async fn a_request_on_an_idle_connection_that_is_being_closed_may_have_been_seen() {
    for (method, events, requests) in
        [(Method::PUT, &[Done(1), TRANSIENT, Done(2)][..], 3), (Method::POST, &[Done(1), NOT_IDEMPOTENT][..], 2)]
    {
        for end in [answer("").then_close().after_reading(0), answer("").then_reset().after_reading(0)] {
            let server = Server::start([ok("one"), end, ok("two")]).await;
            let log = Log::default();
            let service = ServiceBuilder::new().layer(RetryLayer::new(policy(&log))).service(client(Speaks::One));
            ask(service.clone(), request(method.clone(), &server.uri)).await.unwrap().is(200, "one");
            let second = ask(service, request(method.clone(), &server.uri)).await;
            assert_eq!(second.is_ok(), method == Method::PUT);
            assert_eq!(log.take(), events);
            let connections: Vec<_> = server.seen().iter().map(|seen| seen.connection).collect();
            assert_eq!(connections, [0, 0, 1][..requests], "the first was used again");
        }
    }
}

#[tokio::test]
async fn an_attempt_that_gets_no_answer_is_cut_and_made_again() {
    let silences = [silence(), answer("HTTP/1.1 200 OK\r\n").then_stall(), silence().after_reading(0)];
    let calls = silences.map(|silence| async move {
        for (method, events) in [(Method::PUT, &[TRANSIENT, Done(2)][..]), (Method::POST, &[NOT_IDEMPOTENT][..])] {
            let server = Server::start([silence.clone(), ok("done")]).await;
            let log = Log::default();
            let service = ServiceBuilder::new()
                .layer(RetryLayer::new(policy(&log)))
                .layer(AttemptTimeoutLayer::http(LIMIT))
                .service(client(Speaks::One));
            let outcome = ask(service, request(method, &server.uri)).await;
            assert_eq!(log.take(), events);
            assert_eq!(server.counts(), (events.len(), events.len()));
            match outcome {
                Ok(answer) => answer.is(200, "done"),
                Err(error) => assert!(error.is::<TimedOut>(), "{error:?}"),
            }
        }
    });
    let [a, b, c] = calls;
    tokio::join!(a, b, c);
}

#[tokio::test]
async fn an_attempt_gets_no_more_time_than_the_call_has_left() {
    let server = Server::start([busy(), silence(), ok("too late")]).await;
    let log = Log::default();
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy(&log)))
        .layer(AttemptTimeoutLayer::http(LONG))
        .service(client(Speaks::One));
    let mut put = request(Method::PUT, &server.uri);
    put.extensions_mut().insert(Deadline::after(Duration::from_millis(500)));
    let error = ask(service, put).await.unwrap_err();
    assert!(error.downcast::<TimedOut>().unwrap().limit() < Duration::from_millis(500));
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, GaveUp(StopReason::Deadline)], (2, 1)));
}

#[tokio::test]
async fn a_call_that_is_dropped_sends_nothing_more() {
    let server = Server::start([busy(), silence(), ok("not asked for")]).await;
    let log = Log::default();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy(&log))).service(client(Speaks::One));
    let call = tokio::spawn(ask(service.clone(), request(Method::PUT, &server.uri)));
    while server.counts().0 < 2 {
        sleep(Duration::from_millis(5)).await;
    }
    call.abort();
    assert!(call.await.unwrap_err().is_cancelled());
    // The connection of the attempt that was under way is closed.
    while server.open() > 0 {
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT], (2, 1)));
    ask(service, request(Method::PUT, &server.uri)).await.unwrap().is(200, "not asked for");
}

/// Ways for a response to break off after its head.
fn breaks() -> Vec<(&'static str, Act)> {
    const TEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n";
    const CHUNKED: &str = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    vec![
        ("closed", answer(format!("{TEN}half")).then_close()),
        ("closed before the first byte", answer(TEN).then_close()),
        ("reset", answer(format!("{TEN}half")).then_reset()),
        ("closed between chunks", answer(format!("{CHUNKED}4\r\nhalf\r\n")).then_close()),
        ("closed in a chunk", answer(CHUNKED).and("4\r\nha").then_close()),
        ("reset before the last chunk", answer(CHUNKED).and("4\r\nhalf\r\n").then_reset()),
        ("no chunk where one should be", answer(CHUNKED).and("no number\r\n").then_close()),
    ]
}

#[tokio::test]
async fn a_response_that_breaks_off_reaches_the_caller() {
    for (what, end) in breaks() {
        let server = Server::start([end, ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::One, request(Method::PUT, &server.uri)).await.expect(what).is_broken(200);
        assert_eq!(log.take(), [Done(1)], "{what}: the head is the answer");
        assert_eq!(server.counts(), (1, 1), "{what}");
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_is_asked_for_again_where_it_is_read_inside() {
    for (what, end) in breaks() {
        for (method, events) in [(Method::PUT, &[TRANSIENT, Done(2)][..]), (Method::POST, &[NOT_IDEMPOTENT][..])] {
            let server = Server::start([end.clone(), ok("done")]).await;
            let log = Log::default();
            let outcome = call_whole(&log, Speaks::One, request(method, &server.uri)).await;
            assert_eq!(log.take(), events, "{what}");
            assert_eq!(server.counts(), (events.len(), events.len()), "{what}");
            match outcome {
                Ok(answer) => answer.is(200, "done"),
                Err(_) => assert_eq!(events, [NOT_IDEMPOTENT], "{what}"),
            }
        }
    }
}

#[tokio::test]
async fn a_response_that_stops_is_asked_for_again_where_it_is_read_inside() {
    let stops = || answer("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").then_stall();
    let server = Server::start([stops(), ok("done")]).await;
    let log = Log::default();
    call_whole(&log, Speaks::One, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));

    // Elsewhere the caller waits for the rest, in whatever way it likes.
    let server = Server::start([stops(), ok("done")]).await;
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy(&log))).service(client(Speaks::One));
    let response = timeout(LONG, service.oneshot(request(Method::PUT, &server.uri))).await.unwrap().unwrap();
    let mut body = response.into_body();
    assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "half");
    timeout(Duration::from_millis(50), body.frame()).await.expect_err("nothing more comes");
    assert_eq!((log.take(), server.counts()), (vec![Done(1)], (1, 1)));
}

#[tokio::test]
async fn interim_responses_are_none() {
    const CONTINUE: &str = "HTTP/1.1 100 Continue\r\n\r\n";
    const HINTS: &str = "HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n";
    let server = Server::start([
        answer(format!("{CONTINUE}HTTP/1.1 503 Busy\r\ncontent-length: 4\r\n\r\nbusy")),
        answer(CONTINUE).and(HINTS).and("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone"),
    ])
    .await;
    let log = Log::default();
    let mut put = request(Method::PUT, &server.uri);
    put.headers_mut().insert("expect", "100-continue".parse().unwrap());
    call(&log, Speaks::One, put).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 1)));
    for seen in server.seen() {
        assert!(seen.head.contains("expect: 100-continue\r\n"));
        assert_eq!(seen.body, BODY.as_bytes());
    }
}

/// More than fits into the buffers of two sockets.
const LARGE: usize = 12 << 20;

fn large(method: Method, uri: &str) -> Request<Full<Bytes>> {
    request(method, uri).map(|_| Full::from(vec![b'x'; LARGE]))
}

#[tokio::test]
async fn an_upload_that_nobody_reads_is_sent_again_when_it_was_answered() {
    let server = Server::start([busy().after_reading(0), ok("done")]).await;
    let log = Log::default();
    call(&log, Speaks::One, large(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));
    assert_eq!(server.seen()[1].body.len(), LARGE);

    let server = Server::start([busy().after_reading(0), ok("done")]).await;
    call(&log, Speaks::One, large(Method::POST, &server.uri)).await.unwrap().is(503, "busy");
    assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)));
}

#[tokio::test]
async fn an_early_answer_may_be_lost_with_its_connection_and_means_the_same() {
    // Closed with the upload unread, the answer may be thrown away with it: a 503, or a reset.
    for end in [busy().then_close(), busy().then_reset()] {
        let server = Server::start([end.clone().after_reading(0), ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::One, large(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
        assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));

        let server = Server::start([end.after_reading(0), ok("done")]).await;
        match call(&log, Speaks::One, large(Method::POST, &server.uri)).await {
            Ok(answer) => answer.is(503, "busy"),
            Err(error) => assert!(error.is::<hyper_util::client::legacy::Error>()),
        }
        assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)));
    }
}

#[tokio::test]
async fn an_upload_that_streams_and_that_nobody_reads_is_not_waited_for_but_sent_again() {
    let server = Server::start([busy().after_reading(0), ok("done")]).await;
    let log = Log::default();
    let body = streamed((0..12).map(|_| vec![b'x'; 1 << 20]));
    upload(&log, Speaks::One, Request::put(&server.uri).body(body).unwrap()).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));
    assert_eq!(server.seen()[1].body.len(), LARGE);
}

/// What the log of a 429 with these headers says.
async fn limited(headers: &str, max: Duration) -> Vec<Event> {
    let server = Server::start([status(429, headers, "slow down"), ok("done")]).await;
    let log = Log::default();
    let policy = policy(&log).max_server_delay(max);
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client(Speaks::One));
    let answer = ask(service, request(Method::PUT, &server.uri)).await.unwrap();
    let events = log.take();
    match events[..] {
        [Again(_), Done(2)] => answer.is(200, "done"),
        _ => answer.is(429, "slow down"),
    }
    assert_eq!(server.counts(), (events.len(), 1), "the connection is used again");
    events
}

#[tokio::test]
async fn a_server_that_asks_for_more_than_there_is_time_for_is_not_waited_for() {
    const DATE: &str = "date: Sun, 06 Nov 1994 08:49:30 GMT\r\n";
    for (headers, seconds) in [
        ("retry-after: 7\r\n".to_owned(), 7),
        (format!("{DATE}retry-after: Sun, 06 Nov 1994 08:49:37 GMT\r\n"), 7),
        (format!("{DATE}retry-after: Sunday, 06-Nov-94 08:49:37 GMT\r\n"), 7),
        (format!("{DATE}retry-after: Sun Nov  6 08:49:37 1994\r\n"), 7),
        ("retry-after-ms: 7000\r\n".to_owned(), 7),
        ("retry-after: 7\r\nretry-after: 9\r\n".to_owned(), 9),
        ("x-ratelimit-reset: 7\r\n".to_owned(), 7),
        (
            "date: Wed, 21 Oct 2015 07:28:00 GMT\r\nx-ratelimit-remaining: 0\r\nx-ratelimit-reset: 1445412487\r\n"
                .to_owned(),
            7,
        ),
        ("x-ratelimit-reset-requests: 7s\r\nx-ratelimit-reset-tokens: 1m2s\r\n".to_owned(), 62),
        ("ratelimit-reset: 7\r\n".to_owned(), 7),
        ("ratelimit: limit=10, remaining=0, reset=7\r\n".to_owned(), 7),
        ("ratelimit: \"default\";r=0;t=7\r\n".to_owned(), 7),
    ] {
        let asked = Duration::from_secs(seconds);
        let long = GaveUp(StopReason::ServerDelay { asked });
        assert_eq!(limited(&headers, asked - Duration::from_millis(1)).await, [long], "{headers}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_little_is_waited_for() {
    let throttled = |millis| Again(Class::throttled(Some(Duration::from_millis(millis))));
    for (headers, millis) in [
        ("retry-after-ms: 30\r\n", 30),
        ("x-ms-retry-after-ms: 30\r\n", 30),
        ("retry-after: 0.03\r\n", 30),
        ("x-ratelimit-reset-requests: 20ms\r\n", 20),
        ("retry-after-ms: 30\r\nretry-after: 1\r\n", 30),
    ] {
        assert_eq!(limited(headers, LONG).await, [throttled(millis), Done(2)], "{headers}");
    }
    // What says nothing is never taken for "at once", and the policy's own wait is used.
    for headers in [
        "",
        "retry-after: 0\r\n",
        "retry-after: -1\r\n",
        "retry-after: soon\r\n",
        "date: Sun, 06 Nov 1994 08:49:37 GMT\r\nretry-after: Sun, 06 Nov 1994 08:49:30 GMT\r\n",
    ] {
        let events = limited(headers, LONG).await;
        assert_eq!(events, [Again(Class::throttled(None)), Done(2)], "{headers}");
    }
}

#[tokio::test]
async fn an_upload_is_the_same_the_second_time() {
    let piece = |index: usize| (0..40_000 + index).map(|at| (at * 31 + index) as u8).collect::<Vec<_>>();
    let sent: Vec<u8> = (0..6).flat_map(piece).collect();
    for (what, end, connections) in [
        ("answered", busy(), 1),
        ("closed", answer("").then_close(), 2),
        ("closed half-way", answer("").then_close().after_reading(100_000), 2),
        ("reset half-way", answer("").then_reset().after_reading(100_000), 2),
        ("reset before its body", answer("").then_reset().after_reading(0), 2),
        ("lost in the head of its response", answer("HTTP/1.1 200 OK\r\n").then_reset(), 2),
    ] {
        let server = Server::start([end, ok("done")]).await;
        let log = Log::default();
        let body = streamed((0..6).map(piece));
        let outcome = upload(&log, Speaks::One, Request::put(&server.uri).body(body).unwrap()).await;
        outcome.expect(what).is(200, "done");
        assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, connections)), "{what}");
        let seen = server.seen();
        assert!(sent.starts_with(&seen[0].body), "{what}");
        assert!(seen[1].body == sent, "{what}: {} of {} bytes", seen[1].body.len(), sent.len());
    }
}

#[tokio::test]
async fn an_upload_that_a_server_stops_reading_is_taken_over_when_its_time_is_up() {
    let piece = |index: usize| (0..10_000 + index).map(|at| (at * 31 + index) as u8).collect::<Vec<_>>();
    let sent: Vec<u8> = (0..20).flat_map(piece).collect();
    let put = |uri: &str| Request::put(uri).body(streamed((0..20).map(piece))).unwrap();
    let one = async {
        // All of it is in the buffers of hyper and of the sockets.
        let server = Server::start([silence().after_reading(5_000), ok("done")]).await;
        let log = Log::default();
        let outcome = upload_in_time(&log, Speaks::One, 3 * LIMIT, put(&server.uri)).await;
        assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));
        outcome.unwrap().is(200, "done");
        assert!(server.seen()[1].body == sent);
    };
    let two = async {
        // Some of it waits for a window that is never opened.
        let server = two::Server::start([act([]).early(), two::ok("done")]).await;
        let log = Log::default();
        let outcome = upload_in_time(&log, Speaks::Two, 3 * LIMIT, put(&server.uri)).await;
        assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 1)));
        outcome.unwrap().is(200, "done");
        assert!(server.seen()[1].body == sent);
    };
    tokio::join!(one, two);
}

#[tokio::test]
async fn an_upload_that_is_stuck_in_a_socket_over_http_1_is_sent_by_the_next_attempt() {
    /// The body of one attempt, which says when it is dropped.
    struct Attempted(ReplayBody<AxumBody>, usize, Arc<Mutex<Vec<usize>>>);
    impl Body for Attempted {
        type Data = Bytes;
        type Error = BoxError;
        fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    impl Drop for Attempted {
        fn drop(&mut self) {
            self.2.lock().unwrap().push(self.1);
        }
    }
    // hyper holds on to a body until what it has written of it has gone out, whoever has stopped waiting for the answer. Of this
    // one most is still to be read when neither hyper nor the sockets have room for more.
    let piece = |index: usize| (0..1 << 20).map(|at| (at * 31 + index) as u8).collect::<Vec<_>>();
    let server = Server::start([silence().after_reading(0), ok("done")]).await;
    let (log, dropped) = (Log::default(), Arc::<Mutex<Vec<usize>>>::default());
    let client: Client<HttpConnector, Attempted> = client(Speaks::One);
    let (mut attempts, drops) = (0, dropped.clone());
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(16 << 20))
        .layer(RetryLayer::new(policy(&log)))
        .layer(AttemptTimeoutLayer::http(3 * LIMIT))
        .map_request(move |request: Request<ReplayBody<AxumBody>>| {
            attempts += 1;
            request.map(|body| Attempted(body, attempts, drops.clone()))
        })
        .service(client);
    let put = Request::put(&server.uri).body(streamed((0..12).map(piece))).unwrap();
    ask(service, put).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));
    assert!(!dropped.lock().unwrap().contains(&1), "the first attempt is still stuck");
    let seen = server.seen();
    assert!(seen[0].body.is_empty(), "{} bytes were read", seen[0].body.len());
    assert!(seen[1].body == (0..12).flat_map(piece).collect::<Vec<_>>(), "{} bytes", seen[1].body.len());
    // It ends when its connection does.
    drop(server);
    let ended = async {
        while !dropped.lock().unwrap().contains(&1) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, ended).await.expect("it lets go of the body");
}

/// One upload, kept while it streams, of which each attempt is cut after a while.
async fn upload_in_time(
    log: &Log,
    speaks: Speaks,
    limit: Duration,
    request: Request<AxumBody>,
) -> Result<Answer, BoxError> {
    let client: Client<HttpConnector, ReplayBody<AxumBody>> = client(speaks);
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(16 << 20))
        .layer(RetryLayer::new(policy(log)))
        .layer(AttemptTimeoutLayer::http(limit))
        .service(client);
    ask(service, request).await
}

#[tokio::test]
async fn an_upload_that_must_not_be_carried_out_twice_is_not() {
    let server = Server::start([answer("").then_reset().after_reading(50_000), ok("done")]).await;
    let log = Log::default();
    let body = streamed((0..6).map(|_| vec![7; 40_000]));
    upload(&log, Speaks::One, Request::post(&server.uri).body(body).unwrap()).await.unwrap_err();
    assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)));
}

/// Requests and connections of a call that fails three times like this.
async fn counts_of(policy: Observing<tower_tenacity::classify::Typed>, page: Act) -> (usize, usize) {
    let server = Server::start([page.clone(), page.clone(), page]).await;
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client(Speaks::One));
    assert_eq!(ask(service, request(Method::PUT, &server.uri)).await.unwrap().0, 503);
    server.counts()
}

#[tokio::test]
async fn a_call_that_is_tried_again_opens_one_connection() {
    let log = Log::default();
    let parts = || {
        RetryPolicy::new()
            .wait(wait::fixed(Duration::from_millis(10)))
            .classify(classify())
            .keep(FlatCopy)
            .budget(Budget::standard())
            .hook(Idempotency)
            .hook(Mark)
            .hook(Deadlines)
    };
    // As long as it takes, on a busy machine.
    let draining = || parts().hook(drain().timeout(LONG)).observe(log.clone());
    let leaving = || parts().hook(drain().max_bytes(0)).observe(log.clone());
    let page = |length: usize| {
        answer(format!("HTTP/1.1 503 Busy\r\ncontent-length: {length}\r\n\r\nbusy")).and(vec![b'x'; length - 4])
    };
    let chunks =
        answer("HTTP/1.1 503 Busy\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbusy\r\n").and("0\r\na: b\r\n\r\n");
    let closing =
        answer("HTTP/1.1 503 Busy\r\nconnection: close\r\ncontent-length: 4\r\n\r\n").and("busy").then_close();

    for page in [page(20 * 1024), page(64 * 1024), chunks] {
        assert_eq!(counts_of(draining(), page.clone()).await, (3, 1));
        assert_eq!(counts_of(leaving(), page).await, (3, 3), "without it each attempt has a connection of its own");
    }
    // What is too long is left, and so is what closes its connection anyway.
    assert_eq!(counts_of(draining(), page(64 * 1024 + 1)).await, (3, 3));
    assert_eq!(counts_of(draining(), closing).await, (3, 3));
    // A page that stops half-way is not waited for.
    let stopping = answer("HTTP/1.1 503 Busy\r\ncontent-length: 8\r\n\r\nbusy").then_stall();
    let server = Server::start([stopping, ok("done")]).await;
    log.take();
    call(&log, Speaks::One, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 2)));
    // What has arrived with its head costs nothing either way.
    assert_eq!(counts_of(policy(&log), busy()).await, (3, 1));
    // And to HEAD there is no body, whatever its head says.
    let head = || answer("HTTP/1.1 503 Busy\r\ncontent-length: 100000\r\n\r\n");
    let server = Server::start([head(), head(), answer("HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")]).await;
    call(&log, Speaks::One, request(Method::HEAD, &server.uri).map(|_| Full::default())).await.unwrap().is(200, "");
    assert_eq!(server.counts(), (3, 1));
}

// HTTP/2.

use two::{CALM, INTERNAL_ERROR, NO_ERROR, Part, REFUSED_STREAM, act};

#[tokio::test]
async fn a_refused_stream_is_opened_again_whatever_it_carries() {
    for method in [Method::PUT, Method::POST] {
        let server = two::Server::start([act([Part::Rst(REFUSED_STREAM)]), two::ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::Two, request(method, &server.uri)).await.unwrap().is(200, "done");
        assert_eq!((log.take(), server.counts()), (vec![UNSENT, Done(2)], (2, 1)), "on the same connection");
        assert!(server.seen().iter().all(|seen| seen.body == BODY.as_bytes()));
    }
}

#[tokio::test]
async fn a_stream_that_ends_early_is_opened_again_if_it_may_be() {
    for (what, parts, class, connections) in [
        ("reset", vec![Part::Rst(INTERNAL_ERROR)], Class::transient(), 1),
        ("reset without an error", vec![Part::Rst(NO_ERROR)], Class::transient(), 1),
        ("too many", vec![Part::Rst(CALM)], Class::throttled(None), 1),
        ("closed", vec![Part::Close], Class::transient(), 2),
        ("closed after it was taken", vec![Part::Goaway(NO_ERROR), Part::Pause, Part::Close], Class::transient(), 2),
        ("the connection failed", vec![Part::GoawayBefore(INTERNAL_ERROR), Part::Close], Class::transient(), 2),
        ("told to calm down", vec![Part::GoawayBefore(CALM), Part::Close], Class::throttled(None), 2),
    ] {
        let server = two::Server::start([act(parts.clone()), two::ok("done")]).await;
        let log = Log::default();
        let outcome = call(&log, Speaks::Two, request(Method::PUT, &server.uri)).await;
        assert_eq!((log.take(), server.counts()), (vec![Again(class), Done(2)], (2, connections)), "{what}");
        outcome.expect(what).is(200, "done");
        assert_eq!(server.seen()[1].body, BODY.as_bytes(), "{what}");

        let server = two::Server::start([act(parts), two::ok("done")]).await;
        call(&log, Speaks::Two, request(Method::POST, &server.uri)).await.expect_err(what);
        assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)), "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_a_server_on_its_way_out_did_not_look_at_goes_to_another_connection() {
    for method in [Method::PUT, Method::POST] {
        let going = act([Part::GoawayBefore(NO_ERROR), Part::Pause, Part::Close]);
        let server = two::Server::start([going, two::ok("done")]).await;
        let log = Log::default();
        call(&log, Speaks::Two, request(method, &server.uri)).await.unwrap().is(200, "done");
        assert_eq!((log.take(), server.counts()), (vec![UNSENT, Done(2)], (2, 2)));
    }
}

#[tokio::test]
async fn a_stream_that_a_server_on_its_way_out_finishes_is_not_repeated() {
    let parts = [
        Part::Goaway(NO_ERROR),
        Part::Pause,
        Part::Head(200, false),
        Part::Goaway(NO_ERROR),
        Part::Data("one", true),
        Part::Pause,
        Part::Close,
    ];
    let server = two::Server::start([act(parts), two::ok("two")]).await;
    let log = Log::default();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy(&log))).service(client(Speaks::Two));
    ask(service.clone(), request(Method::POST, &server.uri)).await.unwrap().is(200, "one");
    ask(service, request(Method::POST, &server.uri)).await.unwrap().is(200, "two");
    assert_eq!((log.take(), server.counts()), (vec![Done(1), Done(1)], (2, 2)));
}

#[tokio::test]
async fn a_stream_that_breaks_off_after_its_head_is_the_callers_or_is_read_inside() {
    for (what, end, connections) in [
        ("reset", vec![Part::Rst(INTERNAL_ERROR)], 1),
        // Too late for that: something of it was answered.
        ("refused", vec![Part::Rst(REFUSED_STREAM)], 1),
        ("closed", vec![Part::Close], 2),
        ("going away, and closed", vec![Part::Goaway(NO_ERROR), Part::Pause, Part::Close], 2),
        ("stopped", vec![], 1),
    ] {
        let parts = [vec![Part::Head(200, false), Part::Data("half", false), Part::Pause], end].concat();
        let log = Log::default();
        if what != "stopped" {
            let server = two::Server::start([act(parts.clone()), two::ok("done")]).await;
            call(&log, Speaks::Two, request(Method::PUT, &server.uri)).await.expect(what).is_broken(200);
            assert_eq!((log.take(), server.counts()), (vec![Done(1)], (1, 1)), "{what}");
        }
        let server = two::Server::start([act(parts.clone()), two::ok("done")]).await;
        call_whole(&log, Speaks::Two, request(Method::PUT, &server.uri)).await.expect(what).is(200, "done");
        assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, connections)), "{what}");

        let server = two::Server::start([act(parts), two::ok("done")]).await;
        call_whole(&log, Speaks::Two, request(Method::POST, &server.uri)).await.expect_err(what);
        assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)), "{what}");
    }
}

#[tokio::test]
async fn a_stream_that_gets_no_answer_is_cut_and_its_connection_kept() {
    let server = two::Server::start([act([]), two::ok("done")]).await;
    let log = Log::default();
    call_whole(&log, Speaks::Two, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 1)));
}

#[tokio::test]
async fn a_failed_response_over_http_2_costs_no_connection() {
    // Neither is ever finished.
    let page = || act([Part::Head(503, false), Part::Data("busy", false)]);
    let server = two::Server::start([page(), page(), two::ok("done")]).await;
    let log = Log::default();
    call(&log, Speaks::Two, request(Method::PUT, &server.uri)).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, TRANSIENT, Done(3)], (3, 1)));
}

#[tokio::test]
async fn an_upload_over_http_2_that_nobody_reads_is_sent_again_when_it_was_answered() {
    // More than the window of a stream, which is never opened further; and the rest is not wanted (RFC 9113 §8.1).
    let early = || act([Part::Head(503, true), Part::Rst(NO_ERROR)]).early();
    let large = |method, uri: &str| request(method, uri).map(|_| Full::from(vec![b'x'; 1 << 20]));
    let server = two::Server::start([early(), act([Part::Head(200, true), Part::Rst(NO_ERROR)]).early()]).await;
    let log = Log::default();
    call(&log, Speaks::Two, large(Method::PUT, &server.uri)).await.unwrap().is(200, "");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 1)));

    let server = two::Server::start([early(), two::ok("done")]).await;
    call(&log, Speaks::Two, large(Method::POST, &server.uri)).await.unwrap().is(503, "");
    assert_eq!((log.take(), server.counts()), (vec![NOT_IDEMPOTENT], (1, 1)));
}

#[tokio::test]
async fn an_upload_over_http_2_that_streams_on_is_not_waited_for_but_sent_again() {
    let server = two::Server::start([act([Part::Head(503, true)]).early(), two::ok("done")]).await;
    let log = Log::default();
    // Answered while there is more to come than its window holds.
    let body = streamed((0..20).map(|_| vec![b'x'; 10_000]));
    upload(&log, Speaks::Two, Request::put(&server.uri).body(body).unwrap()).await.unwrap().is(200, "done");
    assert_eq!((log.take(), server.counts()), (vec![TRANSIENT, Done(2)], (2, 1)));
    assert_eq!(server.seen()[1].body.len(), 200_000);
}

#[tokio::test]
async fn an_upload_over_http_2_is_the_same_the_second_time() {
    let piece = |index: usize| (0..10_000 + index).map(|at| (at * 31 + index) as u8).collect::<Vec<_>>();
    let sent: Vec<u8> = (0..3).flat_map(piece).collect();
    for (what, parts, connections) in [
        ("answered", vec![Part::Head(503, true)], 1),
        ("refused", vec![Part::Rst(REFUSED_STREAM)], 1),
        ("reset", vec![Part::Rst(INTERNAL_ERROR)], 1),
        ("closed", vec![Part::Close], 2),
    ] {
        let server = two::Server::start([act(parts), two::ok("done")]).await;
        let log = Log::default();
        let body = streamed((0..3).map(piece));
        let outcome = upload(&log, Speaks::Two, Request::put(&server.uri).body(body).unwrap()).await;
        outcome.expect(what).is(200, "done");
        assert_eq!(log.take().last(), Some(&Done(2)), "{what}");
        assert_eq!(server.counts(), (2, connections), "{what}");
        assert!(server.seen().iter().all(|seen| seen.body == sent), "{what}");
    }
}

// Who leaves in the middle of an upload.

#[tokio::test]
async fn uploads_that_their_callers_broke_off_are_no_failures_of_the_server() {
    for speaks in [Speaks::One, Speaks::Two] {
        let one = Server::start([]).await;
        let two = two::Server::start([]).await;
        let uri = if speaks == Speaks::One { &one.uri } else { &two.uri };
        let log = Log::default();
        let policy_of_breaker = BreakerPolicy::new().consecutive_failures(3).unwrap();
        let breaker = CircuitBreakerLayer::new(policy_of_breaker).classify(classify());
        let handle = breaker.handle();
        let service = ServiceBuilder::new()
            .layer(ReplayBodyLayer::new(1024))
            .layer(RetryLayer::new(policy(&log)))
            .layer(breaker)
            .service(client::<ReplayBody<AxumBody>>(speaks));
        for _ in 0..3 {
            let request = Request::put(uri).body(broken_off(2)).unwrap();
            timeout(LONG, service.clone().oneshot(request)).await.expect("it ends").expect_err("it fails");
            assert_eq!(log.take(), [GaveUp(StopReason::Permanent)], "{speaks:?}");
        }
        assert_eq!(handle.state(), State::Closed, "{speaks:?}");
    }
}

#[tokio::test]
async fn uploads_that_their_callers_broke_off_close_no_circuit() {
    let server = Server::with(one::bind().await, true, |_| silence());
    let policy = BreakerPolicy::new().consecutive_failures(3).unwrap().open_time(Duration::from_millis(50)).unwrap();
    let breaker = CircuitBreakerLayer::new(policy).classify(classify());
    let handle = breaker.handle();
    let client = client::<AxumBody>(Speaks::One);
    let service = ServiceBuilder::new().layer(breaker).layer(AttemptTimeoutLayer::http(LIMIT)).service(client);
    for _ in 0..3 {
        service.clone().oneshot(Request::get(&server.uri).body(AxumBody::empty()).unwrap()).await.unwrap_err();
    }
    assert_eq!(handle.state(), State::Open);
    sleep(Duration::from_millis(150)).await;
    // Nothing has been heard of the server: it hangs as before.
    for _ in 0..20 {
        service.clone().oneshot(Request::put(&server.uri).body(broken_off(1)).unwrap()).await.unwrap_err();
    }
    assert_eq!(handle.state(), State::HalfOpen);
}

#[tokio::test]
async fn an_upload_that_its_caller_broke_off_ends_no_cool_down() {
    let server = Server::start([status(429, "", ""), silence(), silence(), ok(""), ok(""), ok(""), ok("")]).await;
    let cooldown = CooldownLayer::http().backoff(wait::fixed(Duration::from_millis(100)));
    let service = ServiceBuilder::new().layer(cooldown).service(client::<AxumBody>(Speaks::One));
    let get = || Request::get(&server.uri).body(AxumBody::empty()).unwrap();
    assert_eq!(service.clone().oneshot(get()).await.unwrap().status(), 429);
    sleep(Duration::from_millis(150)).await;
    let upload = Request::put(&server.uri).body(broken_off(10)).unwrap();
    let upload = tokio::spawn(service.clone().oneshot(upload));
    sleep(Duration::from_millis(50)).await;
    let others: Vec<_> = (0..5).map(|_| tokio::spawn(service.clone().oneshot(get()))).collect();
    upload.await.unwrap().unwrap_err();
    sleep(LIMIT).await;
    assert_eq!(server.counts().0, 3, "the 429, the upload, and one that goes first in its place");
    others.iter().for_each(|other| other.abort());
}

#[tokio::test]
async fn an_answer_that_is_too_long_is_asked_for_once() {
    let long = "x".repeat(1000);
    for (script, seen) in [(vec![ok(&long), ok(&long)], 1), (vec![status(503, "", &long), ok(&long)], 2)] {
        let server = Server::start(script).await;
        let service = ServiceBuilder::new()
            .layer(RetryLayer::new(policy(&Log::default())))
            .layer(CollectBodyLayer::new(100))
            .service(client(Speaks::One));
        let error = service.oneshot(request(Method::GET, &server.uri)).await.unwrap_err();
        assert_eq!(error.downcast_ref::<BodyTooLarge>().map(BodyTooLarge::limit), Some(100));
        assert_eq!(server.counts().0, seen);
    }
}
