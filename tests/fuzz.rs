//! Whatever a server sends, it is read without a panic, into typed answers and typed errors of bounded size without secrets.
//!
//! The inputs are valid ones that were tampered with, and JSON of the right words in the wrong places. They are the same in
//! every run. For longer, or for others:
//!
//! ```text
//! PROPTEST_CASES=100000 PROPTEST_RNG_SEED=7 cargo test --release --all-features --test fuzz
//! ```
#![cfg(feature = "http")]

#[path = "common/property.rs"]
mod property;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use tower_tenacity::policy::http::hints;

/// The last second that a date can name.
const LAST: u64 = 253_402_300_799;

/// What a value asks for under this name, where now is `seconds` after 1970; the bytes have to be fit for a header.
fn hint(name: &'static str, value: &[u8], seconds: u64) -> Option<Duration> {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_bytes(value).ok()?);
    let now: SystemTime = UNIX_EPOCH + Duration::from_secs(seconds);
    hints::retry_after(StatusCode::TOO_MANY_REQUESTS, &headers, || now)
}

fn is_sane(hint: Option<Duration>) -> bool {
    hint.is_none_or(|hint| !hint.is_zero() && hint <= Duration::from_secs(LAST))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` in all three forms of RFC 9110.
fn date_forms(moment: SystemTime) -> [String; 3] {
    let date = httpdate::fmt_http_date(moment);
    let words: Vec<_> = date.split(' ').collect();
    let [day, number, month, year, time, _] = words[..] else { panic!("{date}") };
    let rest = match day {
        "Tue," => "sday",
        "Wed," => "nesday",
        "Thu," => "rsday",
        "Sat," => "urday",
        _ => "day",
    };
    let name = day.trim_end_matches(',');
    let padded = number.strip_prefix('0').map_or(number.to_owned(), |digit| format!(" {digit}"));
    [
        date.clone(),
        format!("{name}{rest}, {number}-{month}-{} {time} GMT", &year[2..]),
        format!("{name} {month} {padded} {time} {year}"),
    ]
}

/// A text with some bytes replaced, and cut.
fn tampered(mut text: Vec<u8>, flips: &[(usize, u8)], cut: Option<usize>) -> Vec<u8> {
    for (at, byte) in flips {
        if !text.is_empty() {
            let at = at % text.len();
            text[at] = *byte;
        }
    }
    if let Some(cut) = cut {
        text.truncate(cut % (text.len() + 1));
    }
    text
}

fn tampering() -> impl Strategy<Value = (Vec<(usize, u8)>, Option<usize>)> {
    let byte = prop_oneof![Just(b'0'), Just(b'9'), Just(b'.'), Just(b'-'), Just(b' '), Just(b','), any::<u8>()];
    (prop::collection::vec((any::<usize>(), byte), 0..4), prop::option::weighted(0.2, any::<usize>()))
}

proptest! {
    #![proptest_config(property::config(300))]

    /// Years with two digits are taken for those up to 2069.
    #[test]
    fn a_date_means_the_same_in_all_forms(now in 0_u64..3_000_000_000, ahead in 1_u64..100_000_000) {
        for date in date_forms(UNIX_EPOCH + Duration::from_secs(now + ahead)) {
            prop_assert_eq!(hint("retry-after", date.as_bytes(), now), Some(Duration::from_secs(ahead)), "{}", date);
            prop_assert_eq!(hint("retry-after", date.as_bytes(), now + ahead), None, "{}", date);
        }
    }

    #[test]
    fn a_date_that_was_tampered_with_is_a_hint_or_none(
        (flips, cut) in tampering(), moment in 0..=LAST, now in 0..=LAST, form in 0_usize..3,
    ) {
        let date = date_forms(UNIX_EPOCH + Duration::from_secs(moment))[form].clone();
        let read = hint("retry-after", &tampered(date.into_bytes(), &flips, cut), now);
        prop_assert!(is_sane(read), "{:?}", read);
    }

    /// To the nanosecond, in any combination of units.
    #[test]
    fn a_duration_is_the_sum_of_its_parts(
        hours in prop::option::of(0_u64..100_000), minutes in prop::option::of(0_u64..100_000),
        (seconds, nanos) in (0_u64..100_000, 0_u32..1_000_000_000), millis in prop::option::of(0_u64..100_000),
    ) {
        let part = |number: Option<u64>, unit| number.map_or(String::new(), |number| format!("{number}{unit}"));
        let text = format!("{}{}{seconds}.{nanos:09}s{}", part(hours, "h"), part(minutes, "m"), part(millis, "ms"));
        let whole = hours.unwrap_or(0) * 3600 + minutes.unwrap_or(0) * 60 + seconds;
        let meant = Duration::new(whole, nanos) + Duration::from_millis(millis.unwrap_or(0));
        let read = hint("x-ratelimit-reset-requests", text.as_bytes(), 0);
        prop_assert_eq!(read, Some(meant).filter(|meant| !meant.is_zero()), "{}", text);
    }

    #[test]
    fn a_duration_that_was_tampered_with_is_a_hint_or_none((flips, cut) in tampering(), seconds in any::<u64>()) {
        for text in [format!("{seconds}.5s"), format!("6m{seconds}s"), format!("1h2m3.5s{seconds}ms"), format!("{seconds}d")] {
            let read = hint("x-ratelimit-reset-tokens", &tampered(text.into_bytes(), &flips, cut), 0);
            prop_assert!(is_sane(read), "{:?}", read);
        }
    }
}

/// What the Gemini client reads: bodies of answers and of errors.
#[cfg(feature = "gemini")]
mod gemini {
    use std::{
        convert::Infallible,
        future::Future,
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use bytes::Bytes;
    use http::{Request, Response};
    use http_body_util::Full;
    use proptest::{sample::select, test_runner::TestCaseError};
    use serde_json::{Value, json};
    use tower::{ServiceExt, service_fn};
    use tower_tenacity::gemini::{self, ErrorKind, Gemini, GenerateContent, GenerateContentResponse, RequestBody};

    use super::*;

    /// Of the length and the looks of a real one.
    const KEY: &str = "AIzaSyD-k3y_0fTh15T3stW1thN0Acc355Xyz";
    /// A piece of it that gives it away.
    const PIECE: usize = 10;

    /// A future that never has to wait.
    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("it waits"),
        }
    }

    fn ask(status: u16, retry_after: &[u8], body: Vec<u8>) -> Result<GenerateContentResponse, gemini::Error> {
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        if let Ok(value) = HeaderValue::from_bytes(retry_after) {
            response.headers_mut().insert("retry-after", value);
        }
        let http = service_fn(move |_: Request<RequestBody>| {
            let response = response.clone();
            async { Ok::<_, Infallible>(response) }
        });
        let gemini = Gemini::with_transport(http, KEY).unwrap();
        now(gemini.oneshot(GenerateContent::new("gemini-2.5-flash").text("?")))
    }

    fn has_piece_of_key(text: &str) -> bool {
        KEY.as_bytes().windows(PIECE).any(|piece| text.contains(std::str::from_utf8(piece).unwrap()))
    }

    /// What must hold of every error, whatever was sent under `status`.
    fn check_error(status: u16, error: &gemini::Error) -> Result<(), TestCaseError> {
        let success = (200..300).contains(&status);
        match error.kind() {
            ErrorKind::Api => {
                let found = error.status().unwrap().as_u16();
                prop_assert!(found == status || success && found >= 400);
            }
            kind => prop_assert!(kind == ErrorKind::Decode && success, "{:?}", kind),
        }
        let (shown, debugged) = (error.to_string(), format!("{error:?}"));
        prop_assert!(shown.chars().count() <= 500, "{} characters", shown.chars().count());
        prop_assert!(!shown.contains(char::is_control), "{:?}", shown);
        for text in [&shown, &debugged, error.message(), &format!("{:#?}", error.details())] {
            prop_assert!(!has_piece_of_key(text), "{}", text);
        }
        let year = Duration::from_secs(366 * 24 * 3600);
        prop_assert!(error.retry_after().is_none_or(|delay| !delay.is_zero() && delay <= year));
        prop_assert!(!error.is_quota_exhausted() || error.is_rate_limited());
        let _ = (error.is_invalid_key(), error.quota_violations().count());
        let class = gemini::classify().class_of(error);
        prop_assert!(class.is_failure());
        Ok(())
    }

    fn check_response(response: &GenerateContentResponse) -> Result<(), TestCaseError> {
        let shown = format!("{response:?} {:?}", response.answer());
        prop_assert!(!has_piece_of_key(&shown), "{}", shown);
        for candidate in response.candidates() {
            for part in candidate.content().map_or(&[][..], |content| content.parts()) {
                let _ = (part.kind(), part.text(), part.thought_signature());
                let _ = part.function_call().map(|call| (call.name(), call.args(), call.id()));
            }
        }
        let usage = response.usage().copied().unwrap_or_default();
        let _ = (usage.total(), (usage + usage).total());
        match response.answer() {
            Ok(answer) => prop_assert_eq!(response.text().unwrap(), answer.text()),
            Err(none) => prop_assert!(none.to_string().len() < 150, "{}", none),
        }
        Ok(())
    }

    fn check(status: u16, retry_after: &[u8], body: Vec<u8>) -> Result<(), TestCaseError> {
        match ask(status, retry_after, body) {
            Err(error) => check_error(status, &error),
            Ok(_) if !(200..300).contains(&status) => Err(TestCaseError::fail("a failure is taken for an answer")),
            Ok(response) => check_response(&response),
        }
    }

    /// What no `Value` can hold, written into JSON where a text of `@` and the number stands.
    fn odd() -> [String; 9] {
        [
            "1e999".to_owned(),
            "-0".to_owned(),
            "123456789012345678901234567890.5".to_owned(),
            "-1e-999".to_owned(),
            format!("{}{}", "[".repeat(100), "]".repeat(100)),
            format!("{}{}", "[".repeat(300), "]".repeat(300)),
            format!("{}7{}", r#"{"error":"#.repeat(140), "}".repeat(140)),
            r#""\ud83d""#.to_owned(),
            r#"{"code":1,"code":"2","text":"a","text":"b"}"#.to_owned(),
        ]
    }

    fn written(json: &Value) -> String {
        odd().iter().enumerate().fold(json.to_string(), |text, (i, odd)| text.replace(&format!("\"@{i}\""), odd))
    }

    const NAMES: &[&str] = &[
        "error",
        "errors",
        "code",
        "message",
        "status",
        "details",
        "@type",
        "retryDelay",
        "seconds",
        "nanos",
        "violations",
        "quotaId",
        "quotaValue",
        "quotaDimensions",
        "reason",
        "metadata",
        "quotaResetDelay",
        "links",
        "fieldViolations",
        "candidates",
        "content",
        "parts",
        "text",
        "thought",
        "thoughtSignature",
        "functionCall",
        "args",
        "role",
        "finishReason",
        "promptFeedback",
        "blockReason",
        "usageMetadata",
        "promptTokenCount",
        "totalTokenCount",
        "modelVersion",
        "safetyRatings",
        "error_description",
        "",
    ];

    const TEXTS: &[&str] = &[
        "",
        "@0",
        "@1",
        "@2",
        "@3",
        "@4",
        "@5",
        "@6",
        "@7",
        "@8",
        "STOP",
        "MAX_TOKENS",
        "429",
        "-1",
        "58s",
        "1e9s",
        "-3s",
        "99999999999999999999999s",
        "0.0000000000000000001s",
        "5h59m59.96s",
        "Please retry in 58.2s. limit: 0",
        "quota will reset after 1d",
        "type.googleapis.com/google.rpc.RetryInfo",
        "type.googleapis.com/google.rpc.QuotaFailure",
        "type.googleapis.com/google.rpc.ErrorInfo",
        "google.rpc.Help",
        "google.rpc.BadRequest",
        "google.rpc.DebugInfo",
        "google.rpc.LocalizedMessage",
        r#"{"error":{"code":503,"message":"inner"}}"#,
        r#"[{"error":{"message":"{\"error\":{}}"}}]"#,
        "<html><title>Bad\u{0}gateway</title>",
        KEY,
        "key=AIzaSyD-k3y_0fTh15T3stW1thN0Acc355Xyz&alt=sse",
        "ａ\u{202e}\u{7f}\u{feff}é",
    ];

    fn json_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            1 => Just(Value::Null),
            1 => any::<bool>().prop_map(Value::from),
            2 => any::<i64>().prop_map(Value::from),
            1 => any::<u64>().prop_map(Value::from),
            1 => any::<f64>().prop_map(Value::from),
            6 => select(TEXTS).prop_map(Value::from),
            1 => "\\PC{0,30}".prop_map(Value::from),
            1 => (1_usize..3_000).prop_map(|n| Value::from("é\n".repeat(n))),
        ];
        leaf.prop_recursive(5, 48, 6, |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
                2 => prop::collection::vec((select(NAMES), inner), 0..6).prop_map(|fields| {
                    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
                }),
            ]
        })
    }

    /// One change to a document; the place is counted from its beginning, and around.
    #[derive(Clone, Debug)]
    enum Edit {
        Remove(usize),
        Replace(usize, Value),
        Insert(usize, &'static str, Value),
        /// The key is appended to whatever text is there.
        Leak(usize),
    }

    fn edits() -> impl Strategy<Value = Vec<Edit>> {
        let edit = prop_oneof![
            any::<usize>().prop_map(Edit::Remove),
            (any::<usize>(), json_value()).prop_map(|(at, value)| Edit::Replace(at, value)),
            (any::<usize>(), select(NAMES), json_value()).prop_map(|(at, name, value)| Edit::Insert(at, name, value)),
            any::<usize>().prop_map(Edit::Leak),
        ];
        prop::collection::vec(edit, 0..5)
    }

    fn pointers(value: &Value, path: &str, all: &mut Vec<String>) {
        all.push(path.to_owned());
        match value {
            Value::Array(values) => {
                values.iter().enumerate().for_each(|(i, value)| pointers(value, &format!("{path}/{i}"), all));
            }
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let name = name.replace('~', "~0").replace('/', "~1");
                pointers(value, &format!("{path}/{name}"), all);
            }),
            _ => {}
        }
    }

    fn place(document: &mut Value, at: usize) -> &mut Value {
        let mut all = Vec::new();
        pointers(document, "", &mut all);
        document.pointer_mut(&all[at % all.len()]).expect("it was there a moment ago")
    }

    fn edited(mut document: Value, edits: Vec<Edit>) -> Value {
        for edit in edits {
            match edit {
                Edit::Remove(at) => match place(&mut document, at) {
                    Value::Array(values) => drop(values.pop()),
                    Value::Object(fields) => drop(fields.keys().next().cloned().map(|name| fields.remove(&name))),
                    other => *other = Value::Null,
                },
                Edit::Replace(at, value) => *place(&mut document, at) = value,
                Edit::Insert(at, name, value) => match place(&mut document, at) {
                    Value::Array(values) => values.push(value),
                    Value::Object(fields) => drop(fields.insert(name.to_owned(), value)),
                    other => *other = json!({ name: value }),
                },
                Edit::Leak(at) => match place(&mut document, at) {
                    Value::String(text) => text.push_str(KEY),
                    Value::Object(fields) => drop(fields.insert(KEY.to_owned(), KEY.into())),
                    other => *other = KEY.into(),
                },
            }
        }
        document
    }

    fn errors() -> [Value; 5] {
        let quota = json!({ "error": { "code": 429, "message": "You exceeded your current quota. Please retry in 58.2s.",
            "status": "RESOURCE_EXHAUSTED", "details": [
                { "@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{
                    "quotaMetric": "generativelanguage.googleapis.com/generate_content_free_tier_requests",
                    "quotaId": "GenerateRequestsPerMinutePerProjectPerModel-FreeTier",
                    "quotaDimensions": { "location": "global", "model": "gemini-2.5-flash" }, "quotaValue": "10" }] },
                { "@type": "type.googleapis.com/google.rpc.Help", "links": [{ "description": "d", "url": "u" }] },
                { "@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "58s" }] } });
        [
            json!([quota.clone()]),
            json!({ "error": { "code": 500, "message": quota.to_string() } }),
            quota,
            json!({ "error": { "code": 400, "message": "API key not valid.", "status": "INVALID_ARGUMENT", "details": [
                { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID",
                  "domain": "googleapis.com", "metadata": { "service": "s", "quotaResetDelay": "3s" } },
                { "@type": "type.googleapis.com/google.rpc.BadRequest",
                  "fieldViolations": [{ "field": "contents", "description": "missing" }] },
                { "@type": "type.googleapis.com/google.rpc.LocalizedMessage", "locale": "en", "message": "no" },
                { "@type": "type.example.com/other", "value": [1, { "deep": ["text"] }] }] } }),
            json!({ "error": { "errors": [{ "message": "legacy", "domain": "usageLimits", "reason": "rateLimitExceeded" }],
                "code": 403, "status": 7 } }),
        ]
    }

    fn answers() -> [Value; 3] {
        [
            json!({ "candidates": [{
                "content": { "role": "model", "parts": [{ "text": "thinking", "thought": true },
                    { "text": "Paris", "thoughtSignature": "c2ln" }] },
                "finishReason": "STOP", "index": 0, "safetyRatings": [{ "category": "C", "probability": "LOW" }],
                "citationMetadata": { "citationSources": [{ "startIndex": 1 }] } }],
              "usageMetadata": { "promptTokenCount": 7, "candidatesTokenCount": "2", "totalTokenCount": 9.0 },
              "modelVersion": "gemini-2.5-flash", "responseId": "r" }),
            json!({ "candidates": [{ "content": { "parts": [{ "functionCall": { "id": "1", "name": "f", "args": { "a": 1 } } }] } }] }),
            json!({ "promptFeedback": { "blockReason": "SAFETY", "safetyRatings": [] }, "usageMetadata": {} }),
        ]
    }

    fn status() -> impl Strategy<Value = u16> {
        prop_oneof![2 => Just(200), 2 => Just(429), 2 => select(vec![400, 401, 403, 404, 500, 503]), 1 => 200_u16..1000]
    }

    proptest! {
        #![proptest_config(property::config(96))]

        #[test]
        fn an_error_that_was_tampered_with_is_an_error(
            which in 0_usize..5, edits in edits(), (flips, cut) in tampering(), status in status(),
            retry_after in prop_oneof![Just(b"7".to_vec()), "[0-9]{1,40}".prop_map(String::into_bytes), any::<Vec<u8>>()],
        ) {
            let body = written(&edited(errors()[which].clone(), edits));
            check(status, &retry_after, body.clone().into_bytes())?;
            // In an event of a stream, and in the hands of another client.
            check(status, &retry_after, format!("event: error\ndata: {body}\n\n").into_bytes())?;
            check(status, &retry_after, json!({ "error": { "message": body } }).to_string().into_bytes())?;
            check(status, &retry_after, tampered(body.replace(KEY, "").into_bytes(), &flips, cut))?;
        }

        #[test]
        fn an_answer_that_was_tampered_with_is_an_answer_or_an_error(
            which in 0_usize..3, edits in edits(), (flips, cut) in tampering(), status in status(),
        ) {
            let document = edited(answers()[which].clone(), edits);
            let body = written(&document);
            check(status, b"", body.clone().into_bytes())?;
            check(status, b"", tampered(body.replace(KEY, "").into_bytes(), &flips, cut))?;
        }

        #[test]
        fn json_of_any_shape_is_read(document in json_value(), status in status()) {
            check(status, b"", written(&document).into_bytes())?;
            check(status, b"", format!("\u{feff}{}", written(&json!({ "error": document }))).into_bytes())?;
            check(status, b"", written(&json!({ "candidates": [{ "content": { "parts": [document] } }] })).into_bytes())?;
        }

        /// A page that repeats the key, wherever it stands.
        #[test]
        fn a_page_gives_no_key_away(
            padding in prop_oneof![0_usize..300, 16_300_usize..16_500, 0_usize..40_000],
            blank in prop_oneof![Just(" "), Just("x"), Just("\n")],
            (start, end) in select(vec![("", ""), ("<html>", ""), ("<html><title>", "</title>"), ("{\"message\":\"", "")]),
            status in status(),
        ) {
            check(status, b"", format!("{start}{}{KEY}{end}", blank.repeat(padding)).into_bytes())?;
        }

        /// What the model said goes back as it came, also what nobody knows of.
        #[test]
        fn a_turn_is_written_back_as_it_came(edits in edits(), which in 0_usize..2) {
            let content = edited(answers()[which]["candidates"][0]["content"].clone(), edits);
            if !content.is_object() {
                return Ok(());
            }
            let text = written(&content);
            let body = format!(r#"{{"candidates":[{{"content":{text}}}]}}"#);
            if let Ok(response) = ask(200, b"", body.into_bytes()) {
                let sent = serde_json::to_string(response.candidates()[0].content().unwrap()).unwrap();
                match (serde_json::from_str::<Value>(&sent), serde_json::from_str::<Value>(&text)) {
                    (Ok(sent), Ok(received)) => prop_assert_eq!(sent, received),
                    (Err(_), Err(_)) => prop_assert_eq!(sent.len(), text.len()),
                    (sent, received) => prop_assert!(false, "{:?} {:?}", sent, received),
                }
            }
        }

        /// No answer is lost because something beside it is not what was promised.
        #[test]
        fn what_stands_beside_an_answer_does_not_spoil_it(
            name in select(vec!["usageMetadata", "promptFeedback", "modelVersion", "responseId", "createTime", "error"]),
            inside in select(vec!["finishMessage", "safetyRatings", "citationMetadata", "index", "avgLogprobs", "tokenCount"]),
            (beside, within) in (json_value(), json_value()),
        ) {
            let mut document = answers()[0].clone();
            // That is for the prompt to be blocked.
            let beside = if beside.get("blockReason").is_some() { Value::Null } else { beside };
            document[name] = beside;
            document["candidates"][0][inside] = within;
            let body = written(&document);
            let response = ask(200, b"", body.into_bytes()).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(response.text().unwrap(), "Paris");
        }

        /// A delay is read to the microsecond, and never as nothing.
        #[test]
        fn a_declared_delay_is_what_was_declared(seconds in 0_u64..10_000_000, nanos in 1_u32..1_000_000_000) {
            let declared = Duration::new(seconds, nanos);
            for delay in [json!(format!("{seconds}.{nanos:09}s")), json!({ "seconds": seconds.to_string(), "nanos": nanos })] {
                let body = json!({ "error": { "details": [{ "@type": "google.rpc.RetryInfo", "retryDelay": delay }] } });
                let error = ask(429, b"", body.to_string().into_bytes()).unwrap_err();
                let read = error.retry_after().unwrap_or_default();
                prop_assert!(read.abs_diff(declared) < Duration::from_micros(1), "{:?} {:?}", read, declared);
            }
        }
    }
}

/// What the extraction makes of answers: texts of the model's own.
#[cfg(feature = "extract")]
mod extract {
    use std::{
        future::Future,
        pin::pin,
        sync::{Arc, Mutex},
        task::{Context, Poll, Waker},
    };

    use proptest::sample::select;
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};
    use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
    use tower_tenacity::{
        extract::{ExtractError, ExtractLayer, Extracted, Failure},
        gemini::{GenerateContent, GenerateContentResponse},
    };

    use super::*;

    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    struct Order {
        id: u64,
        customer: Option<String>,
        lines: Vec<Line>,
        kind: Kind,
    }

    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    struct Line {
        #[schemars(length(max = 20))]
        article: String,
        quantity: u8,
        price: f64,
    }

    #[derive(Clone, Debug, PartialEq, Deserialize, Serialize, JsonSchema)]
    #[serde(rename_all = "snake_case")]
    enum Kind {
        Retail,
        Wholesale { discount: i16 },
    }

    /// In the prompt, and nowhere else.
    const PROMPT: &str = "the launch code is 0000";
    const REASKS: u32 = 2;

    fn order() -> impl Strategy<Value = Order> {
        let line = (".{0,15}", any::<u8>(), -1e9..1e9_f64).prop_map(|(article, quantity, price)| Line {
            article,
            quantity,
            price,
        });
        let kind = prop_oneof![Just(Kind::Retail), any::<i16>().prop_map(|discount| Kind::Wholesale { discount })];
        (any::<u64>(), prop::option::of(".{0,15}"), prop::collection::vec(line, 0..4), kind)
            .prop_map(|(id, customer, lines, kind)| Order { id, customer, lines, kind })
    }

    /// Asks, with the model giving this answer every time; also the questions it was asked.
    fn ask(answer: &str) -> (Result<Extracted<Order>, ExtractError>, Vec<String>) {
        let questions = Arc::<Mutex<Vec<String>>>::default();
        let asked = questions.clone();
        let body = json!({ "candidates": [{ "content": { "parts": [{ "text": answer }] } }],
            "usageMetadata": { "totalTokenCount": 5 } });
        let model = service_fn(move |question: GenerateContent| {
            let question = String::from_utf8(question.to_bytes().unwrap().to_vec()).unwrap();
            asked.lock().unwrap().push(question);
            let response = serde_json::from_value::<GenerateContentResponse>(body.clone());
            async { Ok::<_, BoxError>(response?) }
        });
        let service = ServiceBuilder::new().layer(ExtractLayer::<Order>::new().reasks(REASKS)).service(model);
        let call = service.oneshot(GenerateContent::new("m").text(PROMPT));
        let Poll::Ready(outcome) = pin!(call).poll(&mut Context::from_waker(Waker::noop())) else { panic!("it waits") };
        let questions = questions.lock().unwrap().clone();
        (outcome, questions)
    }

    fn check(answer: &str) -> Result<(), proptest::test_runner::TestCaseError> {
        let (outcome, questions) = ask(answer);
        let first = questions[0].len();
        match outcome {
            // What is taken for a value says the same as what the model said.
            Ok(found) => {
                let value = serde_json::to_string(found.value()).unwrap();
                let text = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
                prop_assert_eq!(&serde_json::from_str::<Order>(text).unwrap(), found.value(), "{}", value);
                prop_assert_eq!(questions.len(), 1);
            }
            Err(error) => {
                prop_assert!(matches!(error.failure(), Failure::Mismatch(_) | Failure::NoAnswer(_)), "{:?}", error);
                prop_assert_eq!(questions.len(), REASKS as usize + 1);
                prop_assert_eq!(error.report().usage().total(), Some(5 * u64::from(REASKS + 1)));
                let shown = error.to_string();
                prop_assert!(shown.len() < 200, "{}", shown);
                let all = format!("{error} {error:?} {error:#?}");
                prop_assert!(!all.contains(PROMPT), "{}", all);
                for answer in error.report().answers() {
                    prop_assert!(answer.failure().is_some_and(|failure| failure.chars().count() < 14_000));
                }
                // A correction quotes the answer once and names at most twenty problems.
                let quoted = serde_json::to_string(answer).unwrap().len();
                for question in &questions[1..] {
                    prop_assert!(question.len() < first + quoted + 80_000, "{}", question.len());
                }
            }
        }
        Ok(())
    }

    proptest! {
        #![proptest_config(property::config(96))]

        #[test]
        fn a_good_answer_is_the_value(order in order(), fence in select(vec!["", "```", "```json"])) {
            let json = serde_json::to_string(&order).unwrap();
            let answer = if fence.is_empty() { json } else { format!("{fence}\n{json}\n```") };
            let (outcome, _) = ask(&answer);
            prop_assert_eq!(outcome.unwrap().into_value(), order);
        }

        #[test]
        fn an_answer_that_was_tampered_with_is_a_value_or_a_mismatch(order in order(), (flips, cut) in tampering()) {
            let json = serde_json::to_string(&order).unwrap();
            check(&String::from_utf8_lossy(&tampered(json.into_bytes(), &flips, cut)))?;
        }

        #[test]
        fn an_answer_of_another_shape_is_a_mismatch(
            (mut order, at) in (order().prop_map(|order| json!(order)), any::<usize>()),
            value in prop_oneof![
                Just(Value::Null), any::<i64>().prop_map(Value::from), any::<f64>().prop_map(Value::from),
                Just(json!([[[]]])), Just(json!({ "wholesale": { "discount": 1e6 } })), ".{0,400}".prop_map(Value::from),
                (0_usize..3000).prop_map(|n| json!(vec!["wrong"; n])),
            ],
        ) {
            let names = ["id", "customer", "lines", "kind", "unknown"];
            order[names[at % names.len()]] = value.clone();
            check(&order.to_string())?;
            check(&value.to_string())?;
        }

        #[test]
        fn prose_is_a_mismatch(answer in "(\\PC|[`{}\\[\\]\"\n]){0,60}", depth in 0_usize..400) {
            check(&answer)?;
            check(&format!("{}{}", "[".repeat(depth), "]".repeat(depth)))?;
            check(&format!("{}1{}", r#"{"lines":"#.repeat(depth), "}".repeat(depth)))?;
        }
    }
}
