//! What responses and errors mean to HTTP (laws 13, 14): the tables, and the classifier in a stack.
#![cfg(feature = "http")]

use std::{
    cell::Cell,
    convert::Infallible,
    error::Error,
    fmt, io,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use tokio::time::Instant;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    Attempt, Policy, RetryLayer, RetryPolicy, StopReason,
    classify::{self, Boxed, Class, Classify, Typed},
    policy::http::{self as policy, Classifier},
};

const UNSENT: Class = Class::unsent();

fn class_with(classify: &Classifier, status: u16, headers: &[(&str, &str)]) -> Class {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap());
    }
    let status = StatusCode::from_u16(status).unwrap();
    classify.class_of_response(status, &map, || panic!("no clock is needed"))
}

fn class(status: u16, headers: &[(&str, &str)]) -> Class {
    class_with(&Classifier::new(), status, headers)
}

fn transient(seconds: u64) -> Class {
    Class::Transient { retry_after: Some(Duration::from_secs(seconds)) }
}

fn throttled(seconds: u64) -> Class {
    Class::throttled(Some(Duration::from_secs(seconds)))
}

#[test]
fn every_status_has_a_class() {
    for status in 100..1000 {
        let expected = match status {
            100..400 => Class::Success,
            408 | 425 | 500 | 502 | 503 | 504 => Class::transient(),
            429 => Class::throttled(None),
            _ => Class::Permanent,
        };
        assert_eq!(class(status, &[]), expected, "{status}");
    }
}

#[test]
fn headers_add_to_a_status() {
    let delay = ("retry-after", "7");
    for status in [408, 413, 425, 500, 502, 503, 504] {
        assert_eq!(class(status, &[delay]), transient(7), "{status}");
    }
    assert_eq!(class(429, &[delay]), throttled(7));
    // Answers and other failures stay what they are.
    for status in [200, 202, 301, 304, 307] {
        assert_eq!(class(status, &[delay, ("x-should-retry", "true")]), Class::Success, "{status}");
    }
    for status in [400, 401, 404, 409, 410, 422, 501, 505, 529] {
        assert_eq!(class(status, &[delay]), Class::Permanent, "{status}");
    }
}

#[test]
fn a_refusal_for_a_rate_limit_is_throttled_whatever_its_status() {
    let nothing = ("x-ratelimit-remaining", "0");
    let date = ("date", "Sun, 21 Sep 2025 09:46:40 GMT");
    assert_eq!(class(403, &[]), Class::Permanent);
    assert_eq!(class(403, &[("retry-after", "60")]), throttled(60));
    assert_eq!(class(403, &[nothing]), Class::throttled(None));
    assert_eq!(class(403, &[nothing, date, ("x-ratelimit-reset", "1758448060")]), throttled(60));
    assert_eq!(class(403, &[("x-ratelimit-remaining", "4999"), ("x-ratelimit-reset", "30")]), Class::Permanent);
    assert_eq!(class(403, &[("ratelimit", r#""daily";r=0;t=30"#)]), throttled(30));
    assert_eq!(class(403, &[("ratelimit", r#""daily";r=0"#)]), Class::throttled(None));
    assert_eq!(class(403, &[("ratelimit", r#""daily";r=1;t=30"#)]), Class::Permanent);
    assert_eq!(class(403, &[("retry-after", "0")]), Class::Permanent);
    // 503 is the server's overload, also where it says when a limit is reset.
    assert_eq!(class(503, &[nothing, ("x-ratelimit-reset", "30")]), transient(30));
    assert_eq!(class(413, &[("retry-after", "soon")]), Class::Permanent);
}

#[test]
fn the_server_has_the_last_word_on_its_failures() {
    let (yes, no) = (("x-should-retry", "true"), ("x-should-retry", "false"));
    let delay = ("retry-after", "7");
    for status in [403, 408, 409, 429, 500, 503, 529] {
        assert_eq!(class(status, &[no, delay]), Class::Permanent, "{status}");
        assert_eq!(class(status, &[no, yes]), Class::Permanent, "{status}");
    }
    for status in [400, 401, 404, 409, 501, 529, 600] {
        assert_eq!(class(status, &[yes]), Class::transient(), "{status}");
        assert_eq!(class(status, &[yes, delay]), transient(7), "{status}");
    }
    assert_eq!(class(429, &[yes, delay]), throttled(7));
    assert_eq!(class(200, &[no]), Class::Success);
}

#[test]
fn the_meaning_of_statuses_can_be_changed() {
    let classify = Classifier::new().statuses(|status| match status.as_u16() {
        202 | 409 => Some(Class::transient()),
        404 => Some(Class::Success),
        418 => Some(throttled(3)),
        419 => Some(transient(4)),
        425 => Some(UNSENT),
        500 => Some(Class::Permanent),
        520..=529 => Some(Class::throttled(None)),
        _ => None,
    });
    let class = |status, headers: &[_]| class_with(&classify, status, headers);
    let (yes, no, delay) = (("x-should-retry", "true"), ("x-should-retry", "false"), ("retry-after", "7"));
    assert_eq!(class(202, &[]), Class::transient());
    assert_eq!(class(409, &[delay]), transient(7));
    assert_eq!(class(404, &[delay, no]), Class::Success);
    assert_eq!(class(418, &[delay]), throttled(3));
    assert_eq!(class(419, &[delay]), transient(4));
    assert_eq!(class(425, &[delay]), UNSENT);
    assert_eq!(class(500, &[delay, yes]), Class::Permanent);
    assert_eq!(class(529, &[delay]), throttled(7));
    assert_eq!(class(409, &[no]), Class::Permanent);
    // What it leaves alone stays.
    assert_eq!(class(200, &[]), Class::Success);
    assert_eq!(class(503, &[delay]), transient(7));
    assert_eq!(class(410, &[]), Class::Permanent);
}

#[test]
fn the_time_of_day_is_asked_for_where_only_it_can_tell() {
    let asked = Cell::new(0);
    let now = || {
        asked.set(asked.get() + 1);
        UNIX_EPOCH + Duration::from_secs(784_111_777)
    };
    let mut headers = HeaderMap::new();
    headers.insert("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT".parse().unwrap());
    let class = |status, headers: &_| Classifier::new().class_of_response(status, headers, now);
    assert_eq!(class(StatusCode::OK, &headers), Class::Success);
    assert_eq!(asked.get(), 0);
    assert_eq!(class(StatusCode::SERVICE_UNAVAILABLE, &headers), transient(10));
    assert_eq!(asked.get(), 1);
    headers.insert("date", "Sun, 06 Nov 1994 08:49:37 GMT".parse().unwrap());
    assert_eq!(class(StatusCode::SERVICE_UNAVAILABLE, &headers), transient(10));
    assert_eq!(asked.get(), 1);

    fn then() -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(784_111_767)
    }
    let mut response = Response::builder().status(503).body(()).unwrap();
    response.headers_mut().insert("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT".parse().unwrap());
    let outcome = Ok::<_, Infallible>(response);
    assert_eq!(policy::classify().wall_clock(then).classify(&outcome), Some(transient(20)));
    assert_eq!(policy::classify().classify(&outcome), Some(Class::transient()), "it is long past");
}

#[test]
fn a_classifier_is_a_small_plain_value() {
    const MINE: Classifier = policy::classify();
    const fn check<T: Copy + Send + Sync + Unpin + 'static>(_: &T) {}
    check(&MINE);
    assert_eq!(size_of::<Classifier<Typed>>(), 16);
    assert_eq!(size_of::<Classifier<Boxed>>(), 16);
    assert_eq!(format!("{MINE:?}"), "Classifier { own_statuses: false, .. }");
    let copy = MINE.statuses(|_| None);
    assert_eq!(format!("{copy:?}"), "Classifier { own_statuses: true, .. }");
    let _ = <Classifier<Boxed>>::default();
}

/// An error of some other crate: what it displays, what it shows when debugged, and what caused it.
struct Other(&'static str, &'static str, Option<BoxError>);

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl fmt::Debug for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.1)
    }
}

impl Error for Other {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.2.as_ref().map(|error| &**error as _)
    }
}

fn of(error: impl Into<BoxError>) -> Option<Class> {
    Classifier::new().class_of_error(&*error.into())
}

fn io(kind: io::ErrorKind) -> BoxError {
    io::Error::from(kind).into()
}

fn below(text: &'static str, cause: impl Into<BoxError>) -> Other {
    Other(text, text, Some(cause.into()))
}

#[test]
fn errors_of_the_system_are_told_apart() {
    use io::ErrorKind::*;
    assert_eq!(of(io(ConnectionRefused)), Some(UNSENT));
    for kind in [
        ConnectionReset,
        ConnectionAborted,
        BrokenPipe,
        UnexpectedEof,
        TimedOut,
        NotConnected,
        HostUnreachable,
        NetworkUnreachable,
        NetworkDown,
        WriteZero,
        Interrupted,
        AddrNotAvailable,
        Other,
    ] {
        assert_eq!(of(io(kind)), Some(Class::transient()), "{kind:?}");
    }
    for kind in [PermissionDenied, InvalidInput, Unsupported] {
        assert_eq!(of(io(kind)), Some(Class::Permanent), "{kind:?}");
    }
    // What is inside says more than the kind.
    let certificate = below("invalid peer certificate: Expired", "x");
    assert_eq!(of(io::Error::new(ConnectionAborted, certificate)), Some(Class::Permanent));
    // Somebody's own words for something else.
    let refused = io::Error::new(ConnectionRefused, "the peer hung up after the greeting");
    assert_eq!(of(refused), Some(Class::transient()));
    let lookup = io::Error::other("failed to lookup address information: Name or service not known");
    assert_eq!(of(lookup), Some(UNSENT));
    assert_eq!(of(below("a header: failed to lookup address information: no", "x")), Some(Class::transient()));
}

#[test]
fn a_cause_is_found_wherever_it_hides() {
    use io::ErrorKind::ConnectionRefused;
    assert_eq!(of(below("outer", below("inner", io(ConnectionRefused)))), Some(UNSENT));
    assert_eq!(of(io::Error::other(io::Error::from(ConnectionRefused))), Some(UNSENT));
    assert_eq!(of(io::Error::other(below("outer", io(ConnectionRefused)))), Some(UNSENT));
    assert_eq!(of(Arc::new(io::Error::from(ConnectionRefused))), Some(UNSENT));
    assert_eq!(of(Box::new(io::Error::from(ConnectionRefused))), Some(UNSENT));
    assert_eq!(of(below("outer", Arc::new(io::Error::other(below("deep", io(ConnectionRefused)))))), Some(UNSENT));
}

#[test]
fn what_is_unknown_is_transient_but_never_unsent() {
    assert_eq!(of("what?"), Some(Class::transient()));
    assert_eq!(of(fmt::Error), Some(Class::transient()));
    assert_eq!(of(tokio_elapsed()), Some(Class::transient()));
    assert_eq!(of(tower::timeout::error::Elapsed::new()), Some(Class::transient()));
    assert_eq!(of(below("outer", tower::timeout::error::Elapsed::new())), Some(Class::transient()));
}

fn tokio_elapsed() -> tokio::time::error::Elapsed {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let elapsed = async { tokio::time::timeout(Duration::ZERO, std::future::pending::<()>()).await };
    runtime.block_on(elapsed).unwrap_err()
}

#[test]
fn a_text_counts_as_a_whole_only() {
    let texts = [
        "error sending request for url (http://a/client error (Connect))",
        "the server said: client error (Connect)",
        "client error (Connect) or so",
        "client error (connect)",
        "a stream error received: refused stream before processing any application logic",
        "stream error received: refused stream before processing any application logic, or not",
        "connection error received: not a result of an error at all",
        "connection error received: unexpected internal error encountered (b\"not a result of an error\")",
        "connection error sent by user: not a result of an error",
        "connection error detected: not a result of an error",
        "stream error received: not a result of an error",
        "dns error",
        "tcp connect error",
        "operation was canceled",
        "service overloaded",
        "the certificate is printed: invalid peer certificate: no",
        "http://x/user error: 1",
        "",
    ];
    for text in texts {
        assert_eq!(of(below(text, io(io::ErrorKind::ConnectionReset))), Some(Class::transient()), "{text}");
        assert_eq!(of(Other(text, "", None)), Some(Class::transient()), "{text}");
    }
    // An error of the same name and words, which however comes from the server.
    #[derive(Debug)]
    #[expect(dead_code, reason = "it makes the error as large as an enum of two")]
    enum Api {
        Overloaded,
        Gone,
    }
    impl fmt::Display for Api {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("service overloaded")
        }
    }
    impl Error for Api {}
    assert_eq!(of(Api::Overloaded), Some(Class::transient()));
    assert_eq!(of(tower::load_shed::error::Overloaded::new()), Some(UNSENT));
}

#[test]
fn connecting_makes_unsent_unless_it_never_will() {
    let connect = |cause: BoxError| Other("client error (Connect)", "", Some(cause));
    for kind in [io::ErrorKind::TimedOut, io::ErrorKind::ConnectionReset, io::ErrorKind::NotFound] {
        assert_eq!(of(connect(io(kind))), Some(UNSENT), "{kind:?}");
    }
    assert_eq!(of(connect("anything".into())), Some(UNSENT));
    assert_eq!(of(connect(io(io::ErrorKind::PermissionDenied))), Some(Class::Permanent));
    assert_eq!(of(connect(below("invalid URL, scheme is not http", "x").into())), Some(Class::Permanent));
    assert_eq!(of(connect(io::Error::other("unsupported scheme gopher").into())), Some(Class::Permanent));
    assert_eq!(of(connect(below("tunnel error: unsuccessful", "x").into())), Some(UNSENT));
    assert_eq!(of(connect(below("tunnel error: proxy authorization required", "x").into())), Some(Class::Permanent));
    let openssl = "error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                   ../ssl/statem/statem_clnt.c:1889:";
    assert_eq!(of(connect(Other(openssl, "", None).into())), Some(Class::Permanent));
    // Below an error of the caller's own there is somebody else's connection.
    let proxied = below("error from user's Body stream", connect(io(io::ErrorKind::ConnectionRefused)));
    assert_eq!(of(proxied), Some(Class::Permanent));
    for body in ["error reading a body from connection", "error writing a body to connection"] {
        assert_eq!(of(below(body, io(io::ErrorKind::ConnectionRefused))), Some(Class::transient()), "{body}");
    }
}

#[test]
fn what_hyper_canceled_was_never_sent_unless_it_was_an_upgrade() {
    for (debugged, expected) in [
        (r#"hyper::Error(Canceled, "connection was not ready")"#, UNSENT),
        (r#"hyper::Error(Canceled, "connection closed")"#, UNSENT),
        (r#"hyper::Error(Canceled, hyper::Error(Io, Kind(ConnectionReset)))"#, UNSENT),
        (r#"Wrapped(hyper::Error(Canceled, "connection closed"))"#, UNSENT),
        ("hyper::Error(Canceled, UpgradeExpected)", Class::transient()),
        ("hyper::Error(Canceled)", Class::transient()),
        ("Canceled", Class::transient()),
    ] {
        assert_eq!(of(Other("operation was canceled", debugged, None)), Some(expected), "{debugged}");
    }
    assert_eq!(of(Other("client error (Canceled)", "", None)), Some(UNSENT));
}

#[test]
fn what_reqwest_says_is_understood() {
    let url = r#", url: "http://a/" }"#;
    let shown = |kind: &str| -> &'static str { format!("reqwest::Error {{ kind: {kind}{url}").leak() };
    for (kind, expected) in [
        ("Request", Class::transient()),
        ("Body", Class::transient()),
        ("Builder", Class::Permanent),
        ("Redirect", Class::Permanent),
        ("Upgrade", Class::Permanent),
        ("Status(404, None)", Class::Permanent),
        ("Status(429, None)", Class::throttled(None)),
        ("Status(503, None)", Class::transient()),
        ("Status(", Class::Permanent),
    ] {
        assert_eq!(of(Other("an error", shown(kind), None)), Some(expected), "{kind}");
    }
    let connect = below("client error (Connect)", io(io::ErrorKind::ConnectionRefused));
    let refused = Other("error sending request for url (http://a/)", shown("Request"), Some(connect.into()));
    assert_eq!(of(refused), Some(UNSENT));
}

#[test]
fn a_grpc_status_is_somebody_elses_matter() {
    let status = r#"Status { code: Unavailable, message: "tcp connect error" }"#;
    assert_eq!(of(Other("code: 'The service is currently unavailable'", status, None)), None);
    assert_eq!(of(below("transport", Other("x", status, None))), None);
    assert_eq!(of(Other("x", "Status { code: 503 }", None)), Some(Class::transient()));
}

#[test]
fn no_error_is_too_long_or_too_deep() {
    let deep = (0..20).fold(io(io::ErrorKind::ConnectionRefused), |cause, _| below("layer", cause).into());
    assert_eq!(of(deep), Some(UNSENT));
    let long: &'static str = "é€😀".repeat(500).leak();
    assert_eq!(of(Other(long, long, None)), Some(Class::transient()));
    for offset in 0..9 {
        let shifted: &'static str = format!("{}{long}", "x".repeat(250 + offset)).leak();
        assert_eq!(of(Other(shifted, shifted, None)), Some(Class::transient()));
    }

    #[derive(Debug)]
    struct Circle;
    impl fmt::Display for Circle {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("circle")
        }
    }
    impl Error for Circle {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self)
        }
    }
    assert_eq!(of(Circle), Some(Class::transient()));
}

#[derive(Debug, PartialEq)]
struct Failure(&'static str);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Failure {}

fn response(status: u16) -> Response<&'static str> {
    Response::builder().status(status).header("retry-after", "5").body("body").unwrap()
}

/// Answers with these outcomes, one after the other.
fn script<E: Clone + Send + 'static>(
    outcomes: Vec<Result<u16, E>>,
) -> impl Service<Request<()>, Response = Response<&'static str>, Error = E, Future: Send> + Clone {
    let outcomes = Arc::new(Mutex::new(outcomes.into_iter()));
    service_fn(move |_: Request<()>| {
        let next = outcomes.lock().unwrap().next().expect("no further attempt");
        async move { next.map(response) }
    })
}

#[tokio::test(start_paused = true)]
async fn a_policy_serves_typed_errors() {
    let policy = RetryPolicy::new().classify(policy::classify());
    let service = script(vec![Ok(503), Err(Arc::new(Failure("lost"))), Ok(200)]);
    let before = Instant::now();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(service);
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 200);
    assert!(before.elapsed() >= Duration::from_secs(5), "the delay the server asked for");
}

#[tokio::test(start_paused = true)]
async fn a_policy_serves_boxed_errors() {
    let policy = RetryPolicy::new().classify(policy::classify());
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .buffer(8)
        .timeout(Duration::from_secs(60))
        .service(script(vec![Err(Arc::new(Failure("lost"))), Ok(429), Ok(200)]));
    let before = Instant::now();
    assert_eq!(service.oneshot(Request::new(())).await.unwrap().status(), 200);
    assert!(before.elapsed() >= Duration::from_secs(5), "the delay the server asked for");
}

/// The one call that is made for an answer that is not tried again, and why it is not.
async fn given_up(status: u16, retry_after: &'static str) -> StopReason {
    let reasons = Arc::new(Mutex::new(Vec::new()));
    let seen = reasons.clone();
    let policy = RetryPolicy::new().classify(policy::classify()).on_give_up(
        move |_: &Attempt, _: &Result<Response<&'static str>, Failure>, reason| seen.lock().unwrap().push(reason),
    );
    let calls = Arc::new(Mutex::new(0));
    let counted = calls.clone();
    let service = service_fn(move |_: Request<()>| {
        *counted.lock().unwrap() += 1;
        let response = Response::builder().status(status).header("retry-after", retry_after).body("body");
        async move { Ok::<_, Failure>(response.unwrap()) }
    });
    let before = Instant::now();
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(service);
    let answer = service.oneshot(Request::new(())).await.unwrap();
    assert_eq!((answer.status().as_u16(), *answer.body()), (status, "body"), "it is handed back as it is");
    assert_eq!((*calls.lock().unwrap(), before.elapsed()), (1, Duration::ZERO));
    let reasons = reasons.lock().unwrap();
    assert_eq!(reasons.len(), 1);
    reasons[0]
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_is_permanent_is_handed_back_and_counted() {
    assert_eq!(given_up(404, "5").await, StopReason::Permanent);
}

#[tokio::test(start_paused = true)]
async fn a_date_far_away_ends_the_call_at_once() {
    let reason = given_up(503, "Fri, 31 Dec 9999 23:59:59 GMT").await;
    let years = Duration::from_secs(7_000 * 365 * 86_400);
    assert!(matches!(reason, StopReason::ServerDelay { asked } if asked > years), "{reason:?}");
}

#[test]
fn a_preset_with_it_can_be_named() {
    struct Client {
        typed: RetryPolicy<tower_tenacity::stop::AfterAttempt, tower_tenacity::wait::FlooredJitter, Classifier>,
        boxed: RetryPolicy<tower_tenacity::stop::AfterAttempt, tower_tenacity::wait::FlooredJitter, Classifier<Boxed>>,
    }
    fn check<E>(_: &impl Policy<Request<()>, Response<()>, E>) {}
    let client = Client {
        typed: RetryPolicy::new().classify(policy::classify()),
        boxed: RetryPolicy::new().classify(policy::classify()),
    };
    check::<io::Error>(&client.typed);
    check::<Infallible>(&client.typed);
    check::<BoxError>(&client.boxed);
    check::<Box<dyn Error>>(&client.boxed);
    // One that stands behind another's opinion, for either.
    check::<io::Error>(&RetryPolicy::new().classify(classify::retry_if(classify::never()).or(policy::classify())));
    check::<BoxError>(&RetryPolicy::new().classify(classify::retry_if(classify::never()).or(policy::classify())));
}

#[test]
fn what_is_accepted_unseen_is_what_would_be_a_success() {
    for status in (100..1000).filter_map(|status| StatusCode::from_u16(status).ok()) {
        let response = Response::builder().status(status).header("retry-after", "1").body(()).unwrap();
        let plain = Classifier::new();
        let accepted = Classify::<_, std::io::Error>::accepts(&plain, &response);
        let overridden = plain.statuses(|status| (status == StatusCode::ACCEPTED).then(Class::transient));
        assert!(!Classify::<_, std::io::Error>::accepts(&overridden, &response), "{status}");
        let success = plain.classify(&Ok::<_, std::io::Error>(response)) == Some(Class::Success);
        assert_eq!(accepted, success, "{status}");
    }
}
