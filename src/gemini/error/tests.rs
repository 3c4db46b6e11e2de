use std::time::Duration;

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::*;

const KEY: &str = "AIza-secret-key";

fn failure(status: u16, body: &str) -> Error {
    let status = StatusCode::from_u16(status).expect("a status");
    from_response(status, &HeaderMap::new(), body.as_bytes(), KEY)
}

fn success(body: &str) -> Result<super::super::GenerateContentResponse, Error> {
    decode(StatusCode::OK, &HeaderMap::new(), body.as_bytes(), KEY)
}

#[test]
fn the_error_is_found_in_every_wrapping() {
    let error = r#"{"code":503,"message":"busy","status":"UNAVAILABLE"}"#;
    let text = format!(r#"{{"error":{error}}}"#).replace('"', "\\\"");
    for body in [
        format!(r#"{{"error":{error}}}"#),
        format!("\u{feff} {{\"error\":{error}}}\r\n"),
        format!(r#"[{{"error":{error}}}]"#),
        format!(r#"[{{}}, {{"error":{error}}}]"#),
        format!("data: {{\"error\":{error}}}\r\n\r\n"),
        format!(r#"{{"error":{{"code":503,"message":"{text}","status":"Service Unavailable"}}}}"#),
    ] {
        for found in [failure(503, &body), success(&body).expect_err("an error")] {
            assert_eq!(found.kind(), ErrorKind::Api, "{body}");
            assert_eq!(found.status(), Some(StatusCode::SERVICE_UNAVAILABLE), "{body}");
            assert_eq!((found.rpc_status(), found.message()), (Some(&RpcStatus::Unavailable), "busy"), "{body}");
        }
    }
    assert_eq!(failure(503, error).message(), "busy");
}

#[test]
fn odd_shapes_lose_only_what_is_odd() {
    let error = failure(
        429,
        r#"{"error":{"code":"429","message":"m","status":8,"details":[
            7, {"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":[1]},
            {"@type":"type.googleapis.com/google.rpc.DebugInfo","detail":"AIza-secret-key"},
            {"@type":"type.googleapis.com/google.rpc.QuotaFailure","violations":[1,{"quotaId":"PerMinute","quotaDimensions":"[MaxDepth]","quotaValue":5}]},
            {"retryDelay":"3s"}, {"@type":"type.googleapis.com/google.rpc.Future","x":"AIza-secret-key"}]}}"#,
    );
    assert_eq!(error.rpc_status(), Some(&RpcStatus::ResourceExhausted));
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    let violation = error.quota_violations().next().expect("a violation");
    assert_eq!((violation.id.as_deref(), violation.value.as_deref()), (Some("PerMinute"), Some("5")));
    assert_eq!(error.details().len(), 5, "{error:?}");
    assert!(!error.is_quota_exhausted());
    let legacy = failure(403, r#"{"error":{"errors":[{"message":"old","domain":"global","reason":"r"}]}}"#);
    assert_eq!((legacy.message(), legacy.rpc_status()), ("old", None));
    assert_eq!(failure(400, r#"{"error":"invalid_grant","error_description":"d"}"#).message(), "d");
}

#[test]
fn the_largest_hint_counts() {
    let body = r#"{"error":{"message":"Please retry in 51.5s.","details":[
        {"@type":"x/google.rpc.RetryInfo","retryDelay":"14s"},
        {"@type":"x/google.rpc.RetryInfo","retryDelay":"-1s"},
        {"@type":"x/google.rpc.ErrorInfo","metadata":{"quotaResetDelay":"900ms"}}]}}"#;
    assert_eq!(failure(429, body).retry_after(), Some(Duration::from_millis(51_500)));
    let headers = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("60"))]);
    let error = from_response(StatusCode::TOO_MANY_REQUESTS, &headers, body.as_bytes(), KEY);
    assert_eq!(error.retry_after(), Some(Duration::from_secs(60)));
    assert_eq!(failure(429, r#"{"error":{"message":"Please retry in NaNs."}}"#).retry_after(), None);
}

#[test]
fn what_is_around_an_error_in_an_error_counts_as_well() {
    let inner = r#"{"error":{"message":"slow down","details":[{"@type":"google.rpc.RetryInfo","retryDelay":"3s"}]}}"#;
    let around = |details: &str| {
        failure(429, &format!(r#"{{"error":{{"message":{},"details":[{details}]}}}}"#, serde_json::Value::from(inner)))
    };
    let longer = around(r#"{"@type":"google.rpc.RetryInfo","retryDelay":"58s"}"#);
    assert_eq!((longer.message(), longer.retry_after()), ("slow down", Some(Duration::from_secs(58))));
    let shorter = around(r#"{"@type":"google.rpc.RetryInfo","retryDelay":"1s"}"#);
    assert_eq!(shorter.retry_after(), Some(Duration::from_secs(3)));
    let per_day = r#"{"@type":"google.rpc.QuotaFailure","violations":[{"quotaId":"RequestsPerDayPerProject"}]}"#;
    assert!(around(per_day).is_quota_exhausted());
}

#[test]
fn headers_are_read_as_those_of_any_http_server() {
    let date = ("date", "Wed, 21 Oct 2015 07:28:00 GMT");
    for (headers, seconds) in [
        (vec![("retry-after", " 7 ")], 7.0),
        (vec![("retry-after", "7.5")], 7.5),
        (vec![date, ("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT")], 30.0),
        (vec![date, ("retry-after", "Wednesday, 21-Oct-15 07:28:30 GMT")], 30.0),
        (vec![date, ("retry-after", "Wed Oct 21 07:28:30 2015")], 30.0),
        (vec![date, ("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], 3.0),
        // Two of them: the larger, as of all hints.
        (vec![("retry-after", "2"), ("retry-after", "9")], 9.0),
        (vec![("retry-after", "2")], 3.0),
        (vec![("retry-after-ms", "3250")], 3.25),
        (vec![date, ("x-ratelimit-reset", "2015-10-21T07:28:10Z")], 10.0),
        // Nobody means that.
        (vec![("retry-after", "40000000")], 3.0),
        (vec![("retry-after", "999999999999999999999999")], 3.0),
        (vec![("retry-after", "-7")], 3.0),
        (vec![("retry-after", "1e3")], 3.0),
    ] {
        let mut map = HeaderMap::new();
        for (name, value) in &headers {
            map.append(*name, HeaderValue::from_static(value));
        }
        let body = r#"{"error":{"message":"Please retry in 3s."}}"#;
        let error = from_response(StatusCode::TOO_MANY_REQUESTS, &map, body.as_bytes(), KEY);
        assert_eq!(error.retry_after(), Some(Duration::from_secs_f64(seconds)), "{headers:?}");
    }
    // A page of a proxy's, or an error inside a success.
    let map = HeaderMap::from_iter([(http::header::RETRY_AFTER, HeaderValue::from_static("5"))]);
    let page = from_response(StatusCode::SERVICE_UNAVAILABLE, &map, b"<html>", KEY);
    assert_eq!(page.retry_after(), Some(Duration::from_secs(5)));
    let inside = decode(StatusCode::OK, &map, br#"{"error":{"code":503,"message":"busy"}}"#, KEY).unwrap_err();
    assert_eq!(inside.retry_after(), Some(Duration::from_secs(5)));
}

#[test]
fn a_quota_that_is_gone_is_told_from_one_that_will_be_back() {
    let message = |text: &str| failure(429, &format!(r#"{{"error":{{"message":"{text}"}}}}"#)).is_quota_exhausted();
    for gone in ["limit: 0, model: x", "LIMIT:0", "limit:  0", "limit: 0.", "Your prepayment credits are depleted."] {
        assert!(message(gone), "{gone}");
    }
    for back in ["limit: 5", "limit: 0.5", "limit: 05", "limit: 10", "limit", "Resource has been exhausted"] {
        assert!(!message(back), "{back}");
    }
    let detail =
        |json: &str| failure(429, &format!(r#"{{"error":{{"message":"","details":[{json}]}}}}"#)).is_quota_exhausted();
    assert!(detail(
        r#"{"@type":"google.rpc.QuotaFailure","violations":[{"quotaId":"XPerMinute"},{"quotaId":"RequestsPerDayX"}]}"#
    ));
    assert!(detail(r#"{"@type":"google.rpc.ErrorInfo","reason":"QUOTA_EXHAUSTED"}"#));
    assert!(detail(r#"{"@type":"google.rpc.ErrorInfo","metadata":{"quota_limit":"PerDayPerUser"}}"#));
    assert!(detail(r#"{"@type":"google.rpc.ErrorInfo","metadata":{"quota_limit_value":"0"}}"#));
    assert!(!detail(r#"{"@type":"google.rpc.ErrorInfo","reason":"RATE_LIMIT_EXCEEDED"}"#));
    assert!(!failure(400, r#"{"error":{"message":"limit: 0"}}"#).is_quota_exhausted());
}

#[test]
fn the_key_is_shown_nowhere() {
    let long = format!("{}{KEY}", "x".repeat(190));
    for body in [
        format!(r#"{{"error":{{"message":"bad {KEY}","status":"{KEY}","details":[{{"{KEY}":"{KEY}"}}]}}}}"#),
        format!(
            r#"{{"error":{{"details":[{{"@type":"google.rpc.ErrorInfo","reason":"{KEY}","metadata":{{"{KEY}":"{KEY}"}}}}]}}}}"#
        ),
        format!("<html><title>{KEY}</title>"),
        format!("denied: {KEY}"),
        long,
    ] {
        let shown = format!("{0} {0:?} {0:#?}", failure(403, &body));
        assert!(!shown.contains("AIza") && shown.contains("403"), "{shown}");
    }
}

#[test]
fn the_key_is_shown_in_no_response_either() {
    for body in [
        format!(r#"{{"modelVersion":"gemini-{KEY}","responseId":"{KEY}","promptFeedback":{{"blockReason":"{KEY}"}}}}"#),
        format!(r#"{{"modelVersion":"\u0041{}","candidates":[{{"finishReason":"{KEY}"}}]}}"#, &KEY[1..]),
        format!(r#"{{"candidates":[{{"content":{{"role":"{KEY}","parts":[{{"{KEY}":{{}}}}]}}}}]}}"#),
        format!(
            r#"{{"candidates":[{{}},{{"content":{{"parts":[{{"functionCall":{{"id":"{KEY}","name":"{KEY}"}}}}]}}}}]}}"#
        ),
    ] {
        let response = success(&body).expect("a response");
        let calls: Vec<_> = response.candidates().iter().filter_map(|candidate| candidate.content()).collect();
        let calls: Vec<_> = calls.iter().flat_map(|content| content.parts()).map(|part| part.function_call()).collect();
        let shown = format!("{response:?} {:?} {calls:?}", response.answer());
        assert!(!shown.contains("AIza") && shown.contains("[api key]"), "{shown}");
    }
    // What the model said is its own, and is sent back as it came.
    let body = format!(r#"{{"candidates":[{{"content":{{"role":"model","parts":[{{"text":"{KEY}"}}]}}}}]}}"#);
    let response = success(&body).expect("a response");
    assert_eq!(response.text().as_deref(), Ok(KEY));
    assert!(!format!("{response:?}").contains("AIza"));
}

#[test]
fn half_a_key_is_shown_nowhere() {
    // A body that is cut off in the midst of it, and a page of which only the beginning is read.
    for body in [format!("denied: {}", &KEY[..10]), format!("denied: {}{KEY}", " ".repeat(16 * 1024 - 8 - 10))] {
        assert_eq!(failure(403, &body).message(), "denied: [api key]");
    }
    assert_eq!(failure(403, "denied: AIza").message(), "denied: AIza");
}

#[test]
fn a_key_too_short_to_be_one_garbles_nothing() {
    let body = r#"{"error":{"message":"quota exceeded for project a"}}"#;
    let message =
        |key: &str| from_response(StatusCode::FORBIDDEN, &HeaderMap::new(), body.as_bytes(), key).message().to_owned();
    assert_eq!(message("a"), "quota exceeded for project a");
    assert_eq!(message("project"), "quota exceeded for project a");
    assert_eq!(message("exceeded"), "quota [api key] for project a");
    let page = from_response(StatusCode::FORBIDDEN, &HeaderMap::new(), b"<html><title>a title</title>", "t");
    assert_eq!(page.message(), "an HTML page: a title");
}

#[test]
fn debug_is_flat_and_shows_what_there_is() {
    let error = failure(
        429,
        r#"{"error":{"message":"slow down","status":"RESOURCE_EXHAUSTED","details":[{"@type":"google.rpc.RetryInfo","retryDelay":"3s"}]}}"#,
    );
    assert_eq!(
        format!("{error:?}"),
        "Error { kind: Api, message: \"slow down\", status: 429, rpc_status: ResourceExhausted, \
         details: [RetryInfo { retry_delay: Some(3s) }], retry_after: 3s }"
    );
    let error = Error::invalid_request("the name of the model is empty");
    assert_eq!(format!("{error:?}"), r#"Error { kind: InvalidRequest, message: "the name of the model is empty" }"#);
    let error = Error::cut_off(StatusCode::OK, "reset".into());
    assert_eq!(
        format!("{error:?}"),
        "Error { kind: Transport, message: \"the connection was lost during the response\", status: 200, \
         truncated: true, source: \"reset\" }"
    );
    let error = failure(429, r#"{"error":{"message":"","status":"X","details":[]}}"#);
    assert_eq!(format!("{error:?}"), r#"Error { kind: Api, status: 429, rpc_status: Other("X") }"#);
}

#[test]
fn display_is_short_and_says_what_to_do() {
    for (status, body, wanted) in [
        (
            400,
            r#"{"error":{"message":"API key not valid. Please pass a valid API key.","status":"INVALID_ARGUMENT"}}"#,
            "GEMINI_API_KEY",
        ),
        (404, r#"{"error":{"message":"models/x is not found","status":"NOT_FOUND"}}"#, "name of the model"),
        (
            403,
            r#"{"error":{"message":"m","details":[{"@type":"google.rpc.ErrorInfo","reason":"SERVICE_DISABLED"}]}}"#,
            "enable",
        ),
        (
            502,
            "<!DOCTYPE html>\n<html><head><TITLE>\n Bad gateway\n</TITLE><style>x</style>",
            "502: an HTML page: Bad gateway",
        ),
        (302, "", "check the base URL"),
    ] {
        let shown = failure(status, body).to_string();
        assert!(shown.contains(wanted), "{shown}");
    }
    let long = failure(500, &format!(r#"{{"error":{{"message":"{}"}}}}"#, "é".repeat(100_000)));
    assert!(long.to_string().chars().count() < 400);
    assert_eq!(long.message().chars().count(), 100_000);
    assert!(failure(400, r#"{"error":{"message":"API key not valid."}}"#).is_invalid_key());
}

#[test]
fn a_success_that_is_none_says_what_came() {
    for (body, wanted, truncated) in [
        ("", "no body", true),
        (" \n", "no body", true),
        ("<html></html>", "an HTML page", false),
        ("OK", "text that is not JSON", false),
        (r#"{"candidates":[{"content":{"parts":[{"text":"secr"#, "ends too early", true),
        (r#"{"candidates":7}"#, "another shape", false),
        ("[]", "another shape", false),
        ("data: {\"candidates\":[]}\n\n", "an event stream", false),
    ] {
        let error = success(body).expect_err("no answer");
        assert_eq!((error.kind(), error.is_truncated()), (ErrorKind::Decode, truncated), "{body}");
        assert!(error.to_string().contains(wanted), "{error}");
        assert!(!format!("{error:?}").contains("secr"), "{error:?}");
    }
    let binary = decode(StatusCode::OK, &HeaderMap::new(), b"\x1f\x8b\xff\x00", KEY).expect_err("no answer");
    assert!(binary.to_string().contains("not text"), "{binary}");
    let deep = "[".repeat(100_000);
    assert_eq!(success(&deep).expect_err("no answer").kind(), ErrorKind::Decode);
    assert_eq!(failure(500, &deep).kind(), ErrorKind::Api);
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let names = || {
        prop::sample::select(vec![
            "error",
            "code",
            "message",
            "status",
            "details",
            "@type",
            "retryDelay",
            "violations",
            "quotaId",
            "metadata",
            "candidates",
            "content",
            "parts",
            "text",
            "role",
            "functionCall",
            "finishReason",
            "promptFeedback",
            "usageMetadata",
            "promptTokenCount",
            "args",
            "errors",
            "links",
        ])
    };
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~]{0,12}".prop_map(Value::from),
        prop::sample::select(vec![
            "google.rpc.RetryInfo",
            "google.rpc.ErrorInfo",
            "{\"error\":{}}",
            "retry in 1e5s",
            "STOP"
        ])
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec((names().prop_map(str::to_owned), inner), 0..6)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

fn survives(body: &[u8]) {
    if let Ok(response) = decode(StatusCode::OK, &HeaderMap::new(), body, KEY) {
        let _ = (response.text().is_ok(), format!("{response:?}"));
    }
    let error = from_response(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), body, KEY);
    let _ = (error.to_string(), error.retry_after(), error.is_quota_exhausted(), error.is_invalid_key());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
        survives(&body);
    }

    #[test]
    fn no_text_makes_it_panic(body in "\\PC{0,80}", title in "<html><title>\\PC{0,40}") {
        survives(body.as_bytes());
        survives(title.as_bytes());
    }

    #[test]
    fn no_json_makes_it_panic(body in json(), cut in 0_usize..200) {
        let body = body.to_string();
        survives(body.as_bytes());
        survives(&body.as_bytes()[..cut.min(body.len())]);
    }
}
