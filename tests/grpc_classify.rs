//! What gRPC responses mean: codes, server-dictated delays, and bytes from a server that wishes no good.
#![cfg(feature = "http")]

use std::{
    convert::Infallible,
    error::Error,
    io,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use proptest::prelude::*;
use tower_tenacity::{
    Attempt, Decision, Keep, Policy, RetryPolicy, StopReason,
    classify::{Class, Classify},
    policy::grpc::{self, Classifier, Code, Trailers},
    wait,
};

const PUSHBACK: &str = "grpc-retry-pushback-ms";
const DETAILS: &str = "grpc-status-details-bin";

fn response<V: AsRef<[u8]>>(headers: &[(&'static str, V)]) -> Response<()> {
    let mut response = Response::new(());
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_ref()).expect("a header value");
        response.headers_mut().append(HeaderName::from_static(name), value);
    }
    response
}

fn class<V: AsRef<[u8]>>(headers: &[(&'static str, V)]) -> Class {
    Classifier::new().class_of(&response(headers))
}

fn millis(millis: u64) -> Option<Duration> {
    Some(Duration::from_millis(millis))
}

const fn transient(retry_after: Option<Duration>) -> Class {
    Class::Transient { retry_after }
}

// An encoder for the little protobuf that is needed, written without a look at the reader.
fn varint(mut value: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

fn number(field: u64, value: u64) -> Vec<u8> {
    [varint(field << 3), varint(value)].concat()
}

fn message(field: u64, bytes: &[u8]) -> Vec<u8> {
    [&varint(field << 3 | 2)[..], &varint(bytes.len() as u64), bytes].concat()
}

fn duration(seconds: i64, nanos: i32) -> Vec<u8> {
    [number(1, seconds as u64), number(2, i64::from(nanos) as u64)].concat()
}

fn any_message(type_url: &str, value: &[u8]) -> Vec<u8> {
    [message(1, type_url.as_bytes()), message(2, value)].concat()
}

fn retry_info(seconds: i64, nanos: i32) -> Vec<u8> {
    any_message("type.googleapis.com/google.rpc.RetryInfo", &message(1, &duration(seconds, nanos)))
}

fn status(details: &[Vec<u8>]) -> Vec<u8> {
    let mut status = [number(1, 8), message(2, b"too much")].concat();
    for any in details {
        status.extend(message(3, any));
    }
    status
}

fn base64(bytes: &[u8], padded: bool) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let bits = group.iter().chain(&[0; 3]).take(3).fold(0_usize, |bits, byte| bits << 8 | usize::from(*byte));
        for letter in 0..4 {
            if letter <= group.len() {
                text.push(ALPHABET[bits >> (18 - 6 * letter) & 63].into());
            } else if padded {
                text.push('=');
            }
        }
    }
    text
}

fn delay_in(details: &[u8]) -> Option<Duration> {
    class(&[("grpc-status", "14"), (DETAILS, &base64(details, false))]).retry_after()
}

#[test]
fn codes_mean_what_the_table_says() {
    for (code, without, with) in [
        ("0", Class::Success, Class::Success),
        ("14", transient(None), transient(millis(70))),
        ("8", Class::Permanent, Class::throttled(millis(70))),
        // Everything else, and what is no code.
        ("1", Class::Permanent, Class::Permanent),
        ("2", Class::Permanent, Class::Permanent),
        ("3", Class::Permanent, Class::Permanent),
        ("4", Class::Permanent, Class::Permanent),
        ("5", Class::Permanent, Class::Permanent),
        ("6", Class::Permanent, Class::Permanent),
        ("7", Class::Permanent, Class::Permanent),
        ("9", Class::Permanent, Class::Permanent),
        ("10", Class::Permanent, Class::Permanent),
        ("11", Class::Permanent, Class::Permanent),
        ("12", Class::Permanent, Class::Permanent),
        ("13", Class::Permanent, Class::Permanent),
        ("15", Class::Permanent, Class::Permanent),
        ("16", Class::Permanent, Class::Permanent),
        ("17", Class::Permanent, Class::Permanent),
        ("UNAVAILABLE", Class::Permanent, Class::Permanent),
    ] {
        assert_eq!(class(&[("grpc-status", code)]), without, "{code}");
        assert_eq!(class(&[("grpc-status", code), (PUSHBACK, "70")]), with, "{code} with a delay");
    }
}

#[test]
fn a_grpc_status_goes_before_the_http_status() {
    let mut unavailable = response(&[("grpc-status", "14")]);
    *unavailable.status_mut() = http::StatusCode::NOT_FOUND;
    assert_eq!(Classifier::new().class_of(&unavailable), transient(None));
    let mut wrong = response(&[("grpc-status", "3")]);
    *wrong.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    assert_eq!(Classifier::new().class_of(&wrong), Class::Permanent);
}

#[test]
fn without_a_grpc_status_the_http_status_is_mapped() {
    for (status, code) in [
        (200, None),
        (204, Some(Code::Unknown)),
        (302, Some(Code::Unknown)),
        (400, Some(Code::Internal)),
        (401, Some(Code::Unauthenticated)),
        (403, Some(Code::PermissionDenied)),
        (404, Some(Code::Unimplemented)),
        (409, Some(Code::Unknown)),
        (429, Some(Code::Unavailable)),
        (431, Some(Code::Internal)),
        (500, Some(Code::Unknown)),
        (502, Some(Code::Unavailable)),
        (503, Some(Code::Unavailable)),
        (504, Some(Code::Unavailable)),
        (599, Some(Code::Unknown)),
    ] {
        let response = Response::builder().status(status).header("retry-after", "7").body(()).expect("a response");
        assert_eq!(Code::of(&response), code, "{status}");
        let retry_after = millis(7000);
        let class = match status {
            200 => Class::Success,
            429 => Class::Throttled { retry_after },
            502..=504 => Class::Transient { retry_after },
            _ => Class::Permanent,
        };
        assert_eq!(Classifier::new().class_of(&response), class, "{status}");
    }
}

#[test]
fn a_200_of_another_kind_is_no_grpc_answer() {
    let page = response(&[("content-type", "text/html")]);
    assert_eq!(Classifier::new().class_of(&page), Class::Permanent);
    assert_eq!(Classifier::new().also_retry(Code::Unknown).class_of(&page), transient(None));
    assert_eq!(class(&[("content-type", "application/grpc+proto")]), Class::Success);
}

#[test]
fn pushback_is_a_delay_or_a_ban() {
    for (value, retry_after) in [
        ("0", millis(0)),
        ("1", millis(1)),
        ("25", millis(25)),
        ("007", millis(7)),
        ("2147483647", millis(2_147_483_647)),
    ] {
        assert_eq!(class(&[("grpc-status", "14"), (PUSHBACK, value)]), transient(retry_after), "{value}");
    }
    for value in ["-1", "-0", "-2147483648", "2147483648", "", " ", "+5", "1.5", "1e3", "soon", "5s", "\u{665}", "5,6"]
    {
        assert_eq!(class(&[("grpc-status", "14"), (PUSHBACK, value)]), Class::Permanent, "{value:?}");
        assert_eq!(class(&[("grpc-status", "8"), (PUSHBACK, value)]), Class::Permanent, "{value:?}");
    }
    let two = [("grpc-status", "14"), (PUSHBACK, "5"), (PUSHBACK, "5")];
    assert_eq!(class(&two), Class::Permanent, "which of them?");
    assert_eq!(class(&[("grpc-status", "0"), (PUSHBACK, "-1")]), Class::Success);
}

#[test]
fn pushback_goes_before_retry_info_before_retry_after() {
    let details = base64(&status(&[retry_info(3, 0)]), true);
    let all = [("grpc-status", "14"), ("retry-after", "9"), (DETAILS, &details), (PUSHBACK, "1000")];
    assert_eq!(class(&all), transient(millis(1000)));
    assert_eq!(class(&all[..3]), transient(millis(3000)));
    assert_eq!(class(&all[..2]), transient(millis(9000)));
    assert_eq!(class(&all[..1]), transient(None));
    let banned = [("grpc-status", "14"), ("retry-after", "9"), (DETAILS, &details), (PUSHBACK, "-1")];
    assert_eq!(class(&banned), Class::Permanent);
}

#[test]
fn a_malformed_hint_is_no_hint() {
    for value in ["-5", "NaN", "soon", "", "0", "1e300"] {
        assert_eq!(class(&[("grpc-status", "14"), ("retry-after", value)]), transient(None), "{value:?}");
        assert_eq!(class(&[("grpc-status", "8"), ("retry-after", value)]), Class::Permanent, "{value:?}");
    }
    assert_eq!(class(&[("grpc-status", "14"), (DETAILS, "!"), ("retry-after", "2")]), transient(millis(2000)));
}

#[test]
fn a_date_is_taken_against_the_wall_clock() {
    let classify = Classifier::new().wall_clock(|| SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_770));
    let response = response(&[("grpc-status", "14"), ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")]);
    assert_eq!(classify.class_of(&response), transient(millis(7000)));
}

#[test]
fn errors_of_connections_are_classified_whether_boxed_or_not() {
    fn class(error: io::Error) -> Option<Class> {
        grpc::classify().classify(&Err::<Response<()>, _>(error))
    }
    fn boxed(error: impl Into<Box<dyn Error + Send + Sync>>) -> Option<Class> {
        grpc::classify().classify(&Err::<Response<()>, Box<dyn Error + Send + Sync>>(error.into()))
    }
    let error = |kind: io::ErrorKind| io::Error::from(kind);
    for (kind, expected) in [
        (io::ErrorKind::ConnectionRefused, Class::unsent()),
        (io::ErrorKind::ConnectionReset, Class::transient()),
        (io::ErrorKind::InvalidInput, Class::Permanent),
    ] {
        assert_eq!((class(error(kind)), boxed(error(kind))), (Some(expected), Some(expected)), "{kind}");
    }
    // A timeout says nothing about whether the call was carried out.
    assert_eq!(boxed(tower::timeout::error::Elapsed::new()), Some(Class::Permanent));
    let class_of = |classify: Classifier, error: &(dyn Error + 'static)| classify.class_of_error(error);
    let elapsed = tower::timeout::error::Elapsed::new();
    assert_eq!(class_of(Classifier::new().also_retry(Code::DeadlineExceeded), &elapsed), Some(Class::transient()));
    // A connection that was lost is UNAVAILABLE; one that was never made is not even that.
    let never = Classifier::new().never_retry(Code::Unavailable);
    assert_eq!(class_of(never, &error(io::ErrorKind::ConnectionReset)), Some(Class::Permanent));
    assert_eq!(class_of(never, &error(io::ErrorKind::ConnectionRefused)), Some(Class::unsent()));
    // With trailers, errors are the same.
    let reset: Result<Response<Collected>, _> = Err(error(io::ErrorKind::ConnectionReset));
    assert_eq!(grpc::classify().with_trailers().classify(&reset), Some(Class::transient()));
}

#[test]
fn retry_info_as_googles_encoders_write_it() {
    // Made with Google's protobuf runtime for Python and googleapis-common-protos: a RetryInfo of 1.5 s, and one of
    // 45.837906927 s after an ErrorInfo and a QuotaFailure.
    let alone = "CA4SBGJ1c3kaNgoodHlwZS5nb29nbGVhcGlzLmNvbS9nb29nbGUucnBjLlJldHJ5SW5mbxIKCggIARCAyrXuAQ==";
    let quota = "CAgSBXF1b3RhGmUKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5FcnJvckluZm8SOQoTUkFURV9MSU1JVF9FWENFRURFRBIO\
                 Z29vZ2xlYXBpcy5jb20aEgoHc2VydmljZRIHZXhhbXBsZRpICit0eXBlLmdvb2dsZWFwaXMuY29tL2dvb2dsZS5ycGMuUXVvdGFGYWls\
                 dXJlEhkKFwoJcHJvamVjdDoxEgpwZXIgbWludXRlGjYKKHR5cGUuZ29vZ2xlYXBpcy5jb20vZ29vZ2xlLnJwYy5SZXRyeUluZm8SCgoI\
                 CC0Q7+PFjwM=";
    for (details, delay) in [(alone, Duration::from_millis(1500)), (quota, Duration::new(45, 837_906_927))] {
        for details in [details, details.trim_end_matches('=')] {
            let class = class(&[("grpc-status", "8"), (DETAILS, details)]);
            assert_eq!(class, Class::throttled(Some(delay)), "{details}");
        }
    }
}

#[test]
fn the_longest_delay_of_several_counts() {
    assert_eq!(delay_in(&status(&[retry_info(2, 5), retry_info(7, 0), retry_info(-1, 0)])), millis(7000));
    assert_eq!(delay_in(&status(&[])), None);
    // Values of one name may be sent as one, or twice.
    let joined =
        format!("{}, {}", base64(&status(&[retry_info(2, 0)]), true), base64(&status(&[retry_info(4, 0)]), false));
    assert_eq!(class(&[("grpc-status", "14"), (DETAILS, &joined)]), transient(millis(4000)));
    let other = base64(&status(&[retry_info(6, 0)]), true);
    assert_eq!(class(&[("grpc-status", "14"), (DETAILS, &joined), (DETAILS, &other)]), transient(millis(6000)));
}

#[test]
fn delays_out_of_bounds_are_ignored() {
    const YEARS: i64 = 315_576_000_000;
    for (seconds, nanos, delay) in [
        (0, 1, Some(Duration::from_nanos(1))),
        (45, 837_906_927, Some(Duration::new(45, 837_906_927))),
        (1, 999_999_999, Some(Duration::new(1, 999_999_999))),
        (YEARS, 0, Some(Duration::from_secs(YEARS as u64))),
        (0, 0, None),
        (-1, 0, None),
        (0, -1, None),
        (1, -1, None),
        (-1, 500_000_000, None),
        (1, 1_000_000_000, None),
        (YEARS + 1, 0, None),
        (i64::MAX, 0, None),
        (i64::MIN, i32::MIN, None),
    ] {
        assert_eq!(delay_in(&status(&[retry_info(seconds, nanos)])), delay, "{seconds} s, {nanos} ns");
    }
}

#[test]
fn only_retry_info_has_a_delay() {
    let delay = message(1, &duration(5, 0));
    for (type_url, read) in [
        ("type.googleapis.com/google.rpc.RetryInfo", true),
        ("example.com/types/google.rpc.RetryInfo", true),
        ("google.rpc.RetryInfo", true),
        ("type.googleapis.com/google.rpc.QuotaFailure", false),
        ("type.googleapis.com/my.google.rpc.RetryInfo", false),
        ("type.googleapis.com/google.rpc.RetryInfo/", false),
        ("", false),
    ] {
        let read = read.then(|| Duration::from_secs(5));
        assert_eq!(delay_in(&status(&[any_message(type_url, &delay)])), read, "{type_url}");
    }
    // A RetryInfo without a delay, and one whose fields are of other types.
    assert_eq!(delay_in(&status(&[any_message("google.rpc.RetryInfo", b"")])), None);
    assert_eq!(delay_in(&status(&[any_message("google.rpc.RetryInfo", &number(1, 5))])), None);
    let text = message(1, &message(1, b"5"));
    assert_eq!(delay_in(&status(&[any_message("google.rpc.RetryInfo", &text)])), None);
    assert_eq!(delay_in(&number(3, 5)), None);
}

#[test]
fn a_message_cut_anywhere_tells_nothing() {
    let whole = status(&[retry_info(45, 837_906_927)]);
    assert!(delay_in(&whole).is_some());
    for end in 0..whole.len() {
        assert_eq!(delay_in(&whole[..end]), None, "the first {end} bytes");
    }
}

#[test]
fn a_length_beyond_the_end_tells_nothing() {
    for length in [1, 127, u64::from(u32::MAX), u64::MAX] {
        let mut details = status(&[retry_info(5, 0)]);
        details.extend(varint(3 << 3 | 2));
        details.extend(varint(length));
        assert_eq!(delay_in(&details), None, "{length}");
    }
}

#[test]
fn details_too_large_to_be_true_are_not_read() {
    let mut padding = message(99, &[0; 40_000]);
    padding.extend(status(&[retry_info(5, 0)]));
    assert_eq!(delay_in(&padding), millis(5000));
    padding.extend(message(99, &[0; 40_000]));
    assert_eq!(delay_in(&padding), None);
}

#[test]
fn settings_add_and_take_away_codes() {
    let retry_after = millis(5);
    let class = |classify: Classifier, code, pushback: Option<&str>| {
        let mut headers = vec![("grpc-status", code)];
        headers.extend(pushback.map(|value| (PUSHBACK, value)));
        classify.class_of(&response(&headers))
    };
    const MORE: Classifier = grpc::classify()
        .also_retry(Code::Aborted)
        .also_retry(Code::ResourceExhausted)
        .also_retry_on_hint(Code::Internal)
        .also_retry(Code::Ok)
        .never_retry(Code::Unavailable);
    assert_eq!(class(MORE, "10", None), transient(None));
    assert_eq!(class(MORE, "8", None), Class::throttled(None));
    assert_eq!(class(MORE, "13", None), Class::Permanent);
    assert_eq!(class(MORE, "13", Some("5")), transient(retry_after));
    assert_eq!(class(MORE, "10", Some("-5")), Class::Permanent);
    assert_eq!(class(MORE, "14", Some("5")), Class::Permanent);
    assert_eq!(class(MORE, "0", None), Class::Success);
    assert_eq!(class(grpc::classify().never_retry(Code::ResourceExhausted), "8", Some("5")), Class::Permanent);
    assert!(size_of::<Classifier>() <= 16);
    assert_eq!(
        format!("{:?}", Classifier::new()),
        "Classifier { always: {Unavailable}, on_hint: {ResourceExhausted} }"
    );
}

#[test]
fn nothing_is_allocated_for_a_success_or_a_plain_failure() {
    for headers in [
        &[("content-type", "application/grpc")][..],
        &[("grpc-status", "0")],
        &[("grpc-status", "14"), (PUSHBACK, "5")],
        &[("grpc-status", "3"), ("grpc-message", "no")],
    ] {
        let response = response(headers);
        let measured = allocation_counter::measure(|| {
            std::hint::black_box(Classifier::new().class_of(&response));
        });
        assert_eq!(measured.count_total, 0, "{headers:?}");
    }
}

struct Collected(Option<HeaderMap>);

impl Trailers for Collected {
    fn trailers(&self) -> Option<&HeaderMap> {
        self.0.as_ref()
    }
}

#[test]
fn trailers_tell_where_the_head_does_not() {
    let class = |head: &[(&'static str, &str)], trailers: Option<&[(&'static str, &str)]>| {
        let trailers = trailers.map(|trailers| response(trailers).into_parts().0.headers);
        let outcome: Result<_, Infallible> = Ok(response(head).map(|()| Collected(trailers)));
        grpc::classify().with_trailers().classify(&outcome)
    };
    let under_way = &[("content-type", "application/grpc")];
    assert_eq!(class(under_way, Some(&[("grpc-status", "0")])), Some(Class::Success));
    assert_eq!(class(under_way, Some(&[("grpc-status", "14"), (PUSHBACK, "30")])), Some(transient(millis(30))));
    assert_eq!(class(under_way, Some(&[("grpc-status", "14"), (PUSHBACK, "-1")])), Some(Class::Permanent));
    assert_eq!(class(under_way, Some(&[("grpc-status", "3")])), Some(Class::Permanent));
    assert_eq!(class(under_way, Some(&[])), Some(Class::Success));
    assert_eq!(class(under_way, None), Some(Class::Success));
    // What the head says stands.
    assert_eq!(class(&[("grpc-status", "14")], Some(&[("grpc-status", "0")])), Some(transient(None)));
    assert_eq!(class(&[("grpc-status", "0")], Some(&[("grpc-status", "14")])), Some(Class::Success));
}

fn decide<P: Policy<Request<()>, Response<()>, Infallible> + Clone>(
    policy: &P,
    request: &Request<()>,
    attempt: Attempt,
    headers: &[(&'static str, &str)],
) -> Decision {
    let mut call = policy.begin(request);
    let (_, mut kept) = call.keep().first(request.clone());
    call.decide(&attempt.with_time_left(call.timeout()), kept.as_mut(), &mut Ok(response(headers)))
}

#[test]
fn the_preset_makes_three_attempts_and_obeys_the_server() {
    let decide =
        |attempt, headers: &[_]| decide(&RetryPolicy::grpc(), &Request::new(()), Attempt::new(attempt), headers);
    assert!(matches!(decide(1, &[("grpc-status", "14")]), Decision::Retry { .. }));
    assert!(matches!(decide(2, &[("grpc-status", "14")]), Decision::Retry { .. }));
    assert_eq!(decide(3, &[("grpc-status", "14")]), Decision::GiveUp(StopReason::Exhausted));
    assert_eq!(decide(1, &[("grpc-status", "3")]), Decision::GiveUp(StopReason::Permanent));
    assert_eq!(decide(1, &[("grpc-status", "0")]), Decision::Return);
    let Decision::Retry { after } = decide(1, &[("grpc-status", "8"), (PUSHBACK, "60000")]) else {
        panic!("a minute is not too long");
    };
    assert!((Duration::from_secs(60)..=Duration::from_secs(66)).contains(&after), "{after:?}");
    let asked = Duration::from_secs(3600);
    assert_eq!(
        decide(1, &[("grpc-status", "8"), (PUSHBACK, "3600000")]),
        Decision::GiveUp(StopReason::ServerDelay { asked })
    );
}

#[test]
fn permission_to_retry_at_once_means_the_policys_own_wait() {
    let Decision::Retry { after } =
        decide(&RetryPolicy::grpc(), &Request::new(()), Attempt::new(1), &[("grpc-status", "8"), (PUSHBACK, "0")])
    else {
        panic!("it may be retried");
    };
    assert!((Duration::from_secs(1)..=Duration::from_secs(2)).contains(&after), "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_is_cut_is_over_time_and_gets_no_more_than_is_left() {
    let second = Duration::from_secs(1);
    for (policy, calls, seconds) in [
        (RetryPolicy::grpc().wait(wait::none()), 1, 2),
        // The second has two seconds as well, the third what is left of five.
        (RetryPolicy::grpc().also_retry(Code::DeadlineExceeded).wait(wait::none()), 3, 5),
    ] {
        let called = std::cell::Cell::new(0);
        let stuck = tower::service_fn(|_: Request<()>| {
            called.set(called.get() + 1);
            std::future::pending::<Result<Response<()>, Infallible>>()
        });
        let stack = tower::ServiceBuilder::new()
            .layer(tower_tenacity::RetryLayer::new(policy))
            .layer(tower_tenacity::timeout::AttemptTimeoutLayer::http(2 * second))
            .service(stuck);
        let began = tokio::time::Instant::now();
        let request = Request::builder().header("grpc-timeout", "5S").body(()).expect("a request");
        let error = tower::ServiceExt::oneshot(stack, request).await.expect_err("out of time");
        assert!(error.is::<tower_tenacity::timeout::TimedOut>());
        assert_eq!((called.get(), began.elapsed()), (calls, seconds * second));
    }
}

#[test]
fn the_deadline_of_a_request_holds_for_its_call() {
    let request = |timeout| Request::builder().header("grpc-timeout", timeout).body(()).expect("a request");
    let timeout = |policy: &grpc::GrpcPolicy, request: &Request<()>| {
        let call = Policy::<_, Response<()>, Infallible>::begin(policy, request);
        Policy::<Request<()>, Response<()>, Infallible>::timeout(&call)
    };
    let policy = RetryPolicy::grpc();
    assert_eq!(timeout(&policy, &request("2S")), millis(2000));
    assert_eq!(timeout(&policy, &request("two")), None);
    assert_eq!(timeout(&policy, &Request::new(())), None);
    // The shorter of the two.
    let policy = policy.timeout(Duration::from_secs(1));
    assert_eq!(timeout(&policy, &request("2S")), millis(1000));
    assert_eq!(timeout(&policy, &request("200m")), millis(200));
    assert_eq!(timeout(&policy, &Request::new(())), millis(1000));

    let policy = RetryPolicy::grpc().wait(wait::fixed(Duration::from_secs(3)));
    let busy: &[_] = &[("grpc-status", "14")];
    let decision = |timeout| decide(&policy, &request(timeout), Attempt::new(1), busy);
    assert_eq!(decision("4S"), Decision::Retry { after: Duration::from_secs(3) });
    assert_eq!(decision("3S"), Decision::GiveUp(StopReason::Deadline));
    assert_eq!(decision("0S"), Decision::GiveUp(StopReason::Deadline));
}

#[test]
fn each_attempt_is_sent_with_what_is_left_of_the_time() {
    let sent = |policy: &grpc::GrpcPolicy, attempt: Attempt, timeout: Option<&str>| {
        let mut request = Request::new(());
        if let Some(timeout) = timeout {
            request.headers_mut().insert("grpc-timeout", timeout.parse().expect("a header value"));
        }
        let mut call = Policy::<_, Response<()>, Infallible>::begin(policy, &request);
        Policy::<_, Response<()>, Infallible>::before_attempt(&mut call, &attempt, &mut request);
        request.headers().get("grpc-timeout").map(|value| value.to_str().expect("text").to_owned())
    };
    let policy = RetryPolicy::grpc();
    let left = |left| Attempt::new(2).with_time_left(millis(left));
    assert_eq!(sent(&policy, left(1500), Some("2S")).as_deref(), Some("1500000u"));
    assert_eq!(sent(&policy, left(2000), Some("2S")).as_deref(), Some("2S"), "as the caller wrote it");
    assert_eq!(sent(&policy, Attempt::new(2), None), None);
    // A timeout of the policy's own is told to the server, too.
    let timed = policy.clone().timeout(Duration::from_secs(1));
    assert_eq!(sent(&timed, left(700), None).as_deref(), Some("700000u"));
    assert_eq!(sent(&timed, left(700), Some("not a time")).as_deref(), Some("700000u"));
    assert_eq!(sent(&policy.enabled(false), left(700), Some("2S")).as_deref(), Some("2S"));
}

#[test]
fn retries_say_how_many_attempts_went_before() {
    let policy = RetryPolicy::grpc().hook(grpc::previous_attempts());
    for (attempt, header) in [(1, None), (2, Some("1")), (3, Some("2")), (u32::MAX, Some("4294967294"))] {
        let mut request = Request::new(());
        let mut call = policy.clone();
        Policy::<_, Response<()>, Infallible>::before_attempt(&mut call, &Attempt::new(attempt), &mut request);
        let sent = request.headers().get("grpc-previous-rpc-attempts").map(|value| value.to_str().expect("text"));
        assert_eq!(sent, header, "{attempt}");
    }
}

// Bytes that are no protobuf, and some that nearly are.
fn nearly_protobuf() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        (any::<u64>(), any::<u64>()).prop_map(|(field, value)| number(field >> 40, value)),
        (0..5_u64, proptest::collection::vec(any::<u8>(), 0..20)).prop_map(|(field, bytes)| message(field, &bytes)),
        (any::<i64>(), any::<i32>()).prop_map(|(seconds, nanos)| message(3, &retry_info(seconds, nanos))),
        proptest::collection::vec(any::<u8>(), 0..4),
        (0..4_u64, 3..5_u64).prop_map(|(field, group)| varint(field << 3 | group)),
    ];
    proptest::collection::vec(field, 0..6).prop_map(|fields| fields.concat())
}

proptest! {
    #[test]
    fn a_delay_is_read_as_it_was_written(
        seconds in 0..=315_576_000_000_i64,
        nanos in 0..1_000_000_000_i32,
        padded: bool,
        before in proptest::collection::vec((4..2000_u64, any::<u64>()), 0..4),
        after in proptest::collection::vec((4..2000_u64, proptest::collection::vec(any::<u8>(), 0..30)), 0..4),
    ) {
        prop_assume!(seconds > 0 || nanos > 0);
        // Fields nobody knows, before and after.
        let mut details: Vec<u8> = before.into_iter().flat_map(|(field, value)| number(field, value)).collect();
        details.extend(status(&[any_message("google.rpc.Help", b"\xff"), retry_info(seconds, nanos)]));
        details.extend(after.into_iter().flat_map(|(field, bytes)| message(field, &bytes)));
        let headers = [("grpc-status", "8"), (DETAILS, &base64(&details, padded))];
        prop_assert_eq!(class(&headers), Class::throttled(Some(Duration::new(seconds as u64, nanos as u32))));
    }

    #[test]
    fn no_details_panic_and_all_delays_are_in_bounds(details in nearly_protobuf()) {
        if let Some(delay) = delay_in(&details) {
            prop_assert!(!delay.is_zero() && delay < Duration::from_secs(315_576_000_001));
        }
    }

    #[test]
    fn no_header_panics(
        code in 0..17_u8,
        values in proptest::collection::vec((0..3_usize, proptest::collection::vec(0x20..=0xff_u8, 0..40)), 0..4),
        status in 100..1000_u16,
    ) {
        let names = [PUSHBACK, DETAILS, "retry-after"];
        let code = code.to_string();
        let mut response = Response::builder().status(status).header("grpc-status", &code).body(()).expect("a response");
        for (name, value) in values {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                response.headers_mut().append(names[name], value);
            }
        }
        let class = Classifier::new().class_of(&response);
        prop_assert_eq!(class == Class::Success, code == "0");
        prop_assert!(class == Class::Permanent || matches!(code.as_str(), "0" | "8" | "14"));
    }
}
