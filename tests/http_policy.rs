//! The preset for HTTP: what is sent again, and what comes out in the end (laws 2, 13, 14, 15, 18).
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    error::Error,
    fmt,
    future::{Ready, ready},
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::time::Instant;
use tower::{Layer, Service, ServiceExt};
use tower_tenacity::{
    Attempt, CallOptions, Policy, Retry, RetryLayer, RetryPolicy, StopReason,
    body::ReplayBody,
    hooks::Observer,
    policy::budget::Budget,
    policy::http::{self as policy, HttpPolicy, Idempotent},
    wait,
};

type Body = Full<bytes::Bytes>;

/// What a server does with one request.
#[derive(Clone, Copy, Debug)]
enum Act {
    Status(u16),
    /// 503, and come again after so many seconds.
    Later(u64),
    Refuse,
    Reset,
}
use Act::{Later, Refuse, Reset, Status};

/// Acts by its script, the last act for ever, and keeps what it was sent.
#[derive(Clone, Default)]
struct Server {
    script: Arc<Mutex<VecDeque<Act>>>,
    seen: Arc<Mutex<Vec<Request<()>>>>,
    // After so many calls it is not made ready any more.
    ready_for: Option<u32>,
    readied: Arc<AtomicU32>,
}

impl Server {
    fn new(script: impl IntoIterator<Item = Act>) -> Self {
        Self { script: Arc::new(Mutex::new(script.into_iter().collect())), ..Self::default() }
    }

    fn attempts(&self) -> usize {
        self.seen.lock().unwrap().len()
    }

    /// This header of each request.
    fn headers(&self, name: &str) -> Vec<Option<String>> {
        let seen = self.seen.lock().unwrap();
        seen.iter().map(|request| Some(request.headers().get(name)?.to_str().unwrap().to_owned())).collect()
    }
}

/// An error as clients have it: its cause tells what happened.
#[derive(Debug)]
struct ClientError(io::Error, String);

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("client error")
    }
}

impl Error for ClientError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl<B> Service<Request<B>> for Server {
    type Response = Response<Body>;
    type Error = ClientError;
    type Future = Ready<Result<Response<Body>, ClientError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        if self.ready_for.is_some_and(|calls| self.readied.fetch_add(1, Relaxed) >= calls) {
            return Poll::Ready(Err(ClientError(io::Error::other("closed"), "closed".to_owned())));
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, _) = request.into_parts();
        let mut seen = self.seen.lock().unwrap();
        seen.push(Request::from_parts(head, ()));
        let mut script = self.script.lock().unwrap();
        let act = if script.len() > 1 { script.pop_front().unwrap() } else { script[0] };
        let response = Response::builder().header("x-attempt", seen.len());
        let body = Full::from("an error page");
        let failed = |kind: io::ErrorKind| Err(ClientError(kind.into(), format!("failure {}", seen.len())));
        ready(match act {
            Status(status) => Ok(response.status(status).body(body).unwrap()),
            Later(seconds) => Ok(response.status(503).header("retry-after", seconds).body(body).unwrap()),
            Refuse => failed(io::ErrorKind::ConnectionRefused),
            Reset => failed(io::ErrorKind::ConnectionReset),
        })
    }
}

fn request(method: Method) -> Request<Body> {
    Request::builder().method(method).uri("/items/7").header("x-tag", "a").body(Full::from("body")).unwrap()
}

/// The number of attempts, and the status or the error in the end.
async fn outcome(server: &Server, request: Request<Body>) -> (usize, Result<u16, String>) {
    outcome_by(RetryPolicy::http(), server, request).await
}

async fn outcome_by<P>(policy: P, server: &Server, request: Request<Body>) -> (usize, Result<u16, String>)
where
    P: Policy<Request<Body>, Response<Body>, ClientError> + Clone,
{
    let before = server.attempts();
    let outcome = Retry::new(policy, server.clone()).oneshot(request).await;
    let outcome = outcome.map(|response| response.status().as_u16()).map_err(|error| error.1);
    (server.attempts() - before, outcome)
}

fn method(name: &str) -> Method {
    Method::from_bytes(name.as_bytes()).unwrap()
}

/// The preset with a budget that no test here uses up.
fn plenty() -> HttpPolicy {
    RetryPolicy::http().budget(Budget::standard().reserve(1000))
}

#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_and_what_may_not_is_not() {
    let down = Server::new([Status(503)]);
    for name in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY", "PROPFIND", "REPORT", "SEARCH"] {
        assert_eq!(outcome(&down, request(method(name))).await, (3, Ok(503)), "{name}");
    }
    for name in ["POST", "PATCH", "CONNECT", "LOCK", "post", "Get", "BREW"] {
        assert_eq!(outcome(&down, request(method(name))).await, (1, Ok(503)), "{name}");
    }
    let lost = Server::new([Reset]);
    assert_eq!(outcome(&lost, request(Method::GET)).await, (3, Err("failure 3".to_owned())));
    assert_eq!(outcome(&lost, request(Method::POST)).await, (1, Err("failure 4".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn what_never_arrived_may_be_repeated_whatever_it_is() {
    for name in ["POST", "PATCH", "BREW"] {
        let server = Server::new([Refuse, Refuse, Status(201)]);
        assert_eq!(outcome(&server, request(method(name))).await, (3, Ok(201)), "{name}");
        // Once it may have arrived, that is the end.
        let server = Server::new([Refuse, Reset, Status(201)]);
        assert_eq!(outcome(&server, request(method(name))).await, (2, Err("failure 2".to_owned())), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_key_makes_a_request_repeatable() {
    let down = Server::new([Status(503)]);
    for (name, key, attempts) in [
        ("idempotency-key", "\"8e03978e\"", 3),
        ("x-idempotency-key", "8e03978e", 3),
        ("idempotency-key", "", 1),
        ("x-request-id", "8e03978e", 1),
    ] {
        let mut post = request(Method::POST);
        post.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(key));
        assert_eq!(outcome(&down, post).await, (attempts, Ok(503)), "{name}: {key}");
    }
    assert_eq!(down.headers("idempotency-key")[..3], vec![Some("\"8e03978e\"".to_owned()); 3], "the same each time");
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_says_of_a_request_goes_before_method_and_key() {
    let down = Server::new([Status(503)]);
    let says = |method: Method, idempotent| {
        let mut request = request(method);
        request.extensions_mut().insert(Idempotent(idempotent));
        request
    };
    assert_eq!(outcome(&down, says(Method::POST, true)).await.0, 3);
    assert_eq!(outcome(&down, says(Method::GET, false)).await.0, 1);
    let mut keyed = says(Method::POST, false);
    keyed.headers_mut().insert("idempotency-key", HeaderValue::from_static("7"));
    assert_eq!(outcome(&down, keyed).await.0, 1);
    assert_eq!(outcome(&Server::new([Refuse]), says(Method::GET, false)).await.0, 3, "never sent all the same");
}

#[tokio::test(start_paused = true)]
async fn later_hooks_go_before_those_of_the_preset() {
    let down = Server::new([Status(503)]);
    let policy = plenty().per_request(|request: &Request<_>| match request.uri().path() {
        "/search" => CallOptions::new().idempotent(true).max_attempts(5),
        "/ticket" => CallOptions::new().idempotent(false),
        "/off" => CallOptions::new().enabled(false),
        _ => CallOptions::new(),
    });
    for (method, path, attempts) in [
        (Method::POST, "/search", 5),
        (Method::GET, "/ticket", 1),
        (Method::GET, "/off", 1),
        (Method::GET, "/", 3),
        (Method::POST, "/", 1),
    ] {
        let mut request = request(method.clone());
        *request.uri_mut() = path.parse().unwrap();
        assert_eq!(outcome_by(policy.clone(), &down, request).await.0, attempts, "{method} {path}");
    }
}

#[tokio::test(start_paused = true)]
async fn tunnels_and_upgrades_are_sent_once_and_nothing_is_kept_of_them() {
    let upgrade = || {
        let mut request = request(Method::GET);
        request.headers_mut().insert("connection", HeaderValue::from_static("keep-alive, Upgrade"));
        request.headers_mut().insert("upgrade", HeaderValue::from_static("websocket"));
        request
    };
    // Not even when they never arrived, and whatever is said of them later.
    let insistent = || {
        RetryPolicy::http()
            .per_request(|_: &Request<_>| CallOptions::new().idempotent(true).max_attempts(9).enabled(true))
    };
    for act in [Refuse, Reset, Status(503)] {
        let mut post = upgrade();
        *post.method_mut() = Method::POST;
        let mut keyed = request(Method::POST);
        keyed.headers_mut().insert("idempotency-key", HeaderValue::from_static("7"));
        keyed.headers_mut().extend(upgrade().headers().clone());
        for request in [upgrade(), post, keyed, request(Method::CONNECT)] {
            assert_eq!(outcome_by(insistent(), &Server::new([act]), request).await.0, 1, "{act:?}");
        }
    }
    // The answer comes as it is, and the request went as it was.
    let server = Server::new([Status(101)]);
    let seen = Retry::new(RetryPolicy::http(), server.clone()).oneshot(upgrade()).await.unwrap();
    assert_eq!(seen.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert!(server.seen.lock().unwrap()[0].extensions().is_empty());
    assert_eq!(server.seen.lock().unwrap()[0].headers(), upgrade().headers());
    assert!(!may_retry(&insistent(), &upgrade()), "an attempt that is the last keeps nothing");
    assert!(may_retry(&insistent(), &request(Method::POST)));
}

/// Whether something is kept of this request.
fn may_retry(
    policy: &(impl Policy<Request<Body>, Response<Body>, ClientError> + Clone),
    request: &Request<Body>,
) -> bool {
    policy.begin(request).may_retry(1)
}

#[tokio::test(start_paused = true)]
async fn a_server_that_asks_for_a_pause_gets_it() {
    let server = Server::new([Later(7), Later(30), Status(200)]);
    let before = Instant::now();
    assert_eq!(outcome(&server, request(Method::GET)).await, (3, Ok(200)));
    let waited = before.elapsed();
    assert!(waited >= Duration::from_secs(37) && waited <= Duration::from_secs(41), "{waited:?}");

    // What is too long is not waited for, what cannot be repeated is not waited for either.
    let before = Instant::now();
    assert_eq!(outcome(&Server::new([Later(301)]), request(Method::GET)).await, (1, Ok(503)));
    assert_eq!(outcome(&Server::new([Later(3)]), request(Method::POST)).await, (1, Ok(503)));
    assert_eq!(before.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn without_a_hint_the_pause_is_floored_jitter() {
    let before = Instant::now();
    assert_eq!(outcome(&Server::new([Status(502)]), request(Method::GET)).await, (3, Ok(502)));
    let waited = before.elapsed();
    assert!(waited >= Duration::from_millis(200) && waited <= Duration::from_millis(602), "{waited:?}");
}

/// Keeps the reason of the end.
#[derive(Clone, Default)]
struct Reasons(Arc<Mutex<Vec<StopReason>>>);

impl<Res, E> Observer<Res, E> for Reasons {
    fn gave_up(&self, _: &Attempt, _: &Result<Res, E>, reason: StopReason) {
        self.0.lock().unwrap().push(reason);
    }
}

#[tokio::test(start_paused = true)]
async fn whatever_ends_a_call_the_last_outcome_comes_out() {
    let cases = [
        (vec![Status(404)], Method::GET, (1, Ok(404)), StopReason::Permanent),
        (vec![Status(503), Status(502)], Method::GET, (3, Ok(502)), StopReason::Exhausted),
        (vec![Status(503), Reset], Method::GET, (3, Err("failure 3".to_owned())), StopReason::Exhausted),
        (vec![Reset, Status(500)], Method::POST, (1, Err("failure 1".to_owned())), StopReason::NotIdempotent),
        (vec![Status(500)], Method::POST, (1, Ok(500)), StopReason::NotIdempotent),
        (
            vec![Status(500), Later(400)],
            Method::GET,
            (2, Ok(503)),
            StopReason::ServerDelay { asked: Duration::from_secs(400) },
        ),
        (
            vec![Status(500), Later(60)],
            Method::GET,
            (2, Ok(503)),
            StopReason::ServerDelay { asked: Duration::from_secs(60) },
        ),
    ];
    for (script, method, expected, reason) in cases {
        let reasons = Reasons::default();
        let policy = RetryPolicy::http().timeout(Duration::from_secs(60)).observe(reasons.clone());
        let server = Server::new(script.clone());
        assert_eq!(outcome_by(policy, &server, request(method)).await, expected, "{script:?}");
        assert_eq!(*reasons.0.lock().unwrap(), [reason], "{script:?}");
    }
    // The wait itself would end past the deadline.
    let reasons = Reasons::default();
    let policy = RetryPolicy::http().timeout(Duration::from_millis(250)).observe(reasons.clone());
    let policy = policy.wait(wait::fixed(Duration::from_millis(200)));
    assert_eq!(outcome_by(policy, &Server::new([Status(503)]), request(Method::GET)).await, (2, Ok(503)));
    assert_eq!(*reasons.0.lock().unwrap(), [StopReason::Deadline]);
}

#[tokio::test(start_paused = true)]
async fn the_last_response_is_handed_back_unread() {
    let service = Retry::new(RetryPolicy::http(), Server::new([Status(503)]));
    let response = service.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(response.headers()["x-attempt"], "3");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(body, "an error page");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_made_ready_again_ends_the_call_with_its_error() {
    let server = Server { ready_for: Some(2), ..Server::new([Status(503)]) };
    assert_eq!(outcome(&server, request(Method::GET)).await, (2, Err("closed".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn every_attempt_is_the_same_request() {
    let server = Server::new([Status(503)]);
    let mut sent = request(Method::PUT);
    sent.extensions_mut().insert(7_u32);
    sent.headers_mut().append("x-tag", HeaderValue::from_static("b"));
    assert_eq!(outcome(&server, sent.clone()).await.0, 3);
    for seen in server.seen.lock().unwrap().iter() {
        assert_eq!((seen.method(), seen.uri(), seen.version()), (sent.method(), sent.uri(), sent.version()));
        assert_eq!(seen.headers(), sent.headers());
        assert_eq!(seen.extensions().get(), Some(&7_u32));
    }
}

#[tokio::test(start_paused = true)]
async fn nested_layers_add_up_and_do_not_multiply() {
    let server = Server::new([Status(503)]);
    let layer = RetryLayer::new(plenty());
    let service = layer.layer(layer.layer(server.clone()));
    let sent = request(Method::GET);
    for call in 1..=3 {
        // The same request again, from the same caller, is a call like the first.
        let response = service.clone().oneshot(sent.clone()).await.unwrap();
        assert_eq!(response.status(), 503);
        assert_eq!(server.attempts(), call * 5);
    }
    assert!(sent.extensions().is_empty());

    // Three layers, and an inner one that would rather have more.
    let server = Server::new([Status(503)]);
    let eager = plenty().per_request(|_: &Request<_>| CallOptions::new().max_attempts(4).enabled(true));
    let stack = layer.layer(layer.layer(RetryLayer::new(eager).layer(server.clone())));
    stack.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(server.attempts(), 4 + 2 + 2);
}

#[tokio::test(start_paused = true)]
async fn an_inner_layer_makes_its_own_attempts_where_the_outer_needs_none() {
    let server = Server::new([Status(503), Status(503), Status(200)]);
    let layer = RetryLayer::new(plenty());
    let response = layer.layer(layer.layer(server.clone())).oneshot(request(Method::GET)).await.unwrap();
    assert_eq!((response.status().as_u16(), server.attempts()), (200, 3));
}

#[tokio::test(start_paused = true)]
async fn a_marked_request_still_meets_the_hooks_of_the_inner_layer() {
    let server = Server::new([Status(503)]);
    let signing = RetryPolicy::http().before_attempt(|_: &Attempt, request: &mut Request<_>| {
        request.headers_mut().insert("x-signed", HeaderValue::from_static("yes"));
    });
    let stack = RetryLayer::new(RetryPolicy::http()).layer(Retry::new(signing, server.clone()));
    stack.oneshot(request(Method::GET)).await.unwrap();
    assert_eq!(server.headers("x-signed"), vec![Some("yes".to_owned()); 5]);
}

#[tokio::test(start_paused = true)]
async fn other_requests_are_marked_by_two_hooks() {
    #[derive(Clone)]
    struct Query {
        again: bool,
    }
    let policy = || {
        RetryPolicy::new()
            .wait(wait::none())
            .before_attempt(|attempt: &Attempt, query: &mut Query| query.again |= attempt.number() > 1)
            .per_request(|query: &Query| match query.again {
                true => CallOptions::new().max_attempts(1),
                false => CallOptions::new(),
            })
    };
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let inner = tower::service_fn(move |_: Query| {
        counted.fetch_add(1, Relaxed);
        ready(Err::<(), _>("busy"))
    });
    Retry::new(policy(), Retry::new(policy(), inner)).oneshot(Query { again: false }).await.unwrap_err();
    assert_eq!(calls.load(Relaxed), 5);
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_the_number_of_an_attempt_if_asked_for() {
    let server = Server::new([Status(503)]);
    let policy = RetryPolicy::http().hook(policy::attempt_header(HeaderName::from_static("x-retry-attempt")));
    assert_eq!(outcome_by(policy, &server, request(Method::GET)).await.0, 3);
    assert_eq!(server.headers("x-retry-attempt"), [None, Some("2".to_owned()), Some("3".to_owned())]);
    let server = Server::new([Status(503)]);
    assert_eq!(outcome(&server, request(Method::GET)).await.0, 3);
    assert_eq!(server.headers("x-retry-attempt"), [None, None, None]);
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_clone_is_sent_again_if_it_was_kept() {
    let server = Server::new([Reset]);
    let policy: HttpPolicy = RetryPolicy::http();
    let whole = |cap| Request::put("/").body(ReplayBody::new(Body::from("body"), cap)).unwrap();
    // The server drops the body unread with each request, which leaves it whole.
    let service = Retry::new(policy, server.clone());
    service.clone().oneshot(whole(1024)).await.unwrap_err();
    assert_eq!(server.attempts(), 3);
    let error = service.oneshot(whole(1)).await.unwrap_err();
    assert_eq!((server.attempts(), error.1), (4, "failure 4".to_owned()), "longer than its cap");
}

#[tokio::test(start_paused = true)]
async fn the_preset_can_be_boxed_and_be_switched_off() {
    let down = Server::new([Status(503)]);
    let boxed = RetryPolicy::http().boxed::<Request<Body>, Response<Body>, ClientError>();
    assert_eq!(outcome_by(boxed.clone(), &down, request(Method::GET)).await, (3, Ok(503)));
    assert_eq!(outcome_by(boxed, &down, request(Method::POST)).await, (1, Ok(503)));
    let off = RetryPolicy::http().enabled(false);
    for method in [Method::GET, Method::CONNECT] {
        assert_eq!(outcome_by(off.clone(), &down, request(method)).await, (1, Ok(503)));
    }
    let detailed = Retry::new(RetryPolicy::http(), Server::new([Refuse])).detailed();
    let error = detailed.oneshot(request(Method::POST)).await.unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (3, StopReason::Exhausted));
}

#[test]
fn settings_of_the_preset_show() {
    let policy: HttpPolicy = RetryPolicy::http();
    let shown = format!("{policy:?}");
    for part in ["AfterAttempt", "FlooredJitter", "Classifier", "Idempotency", "Mark", "Drain", "FlatCopy"] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
}
