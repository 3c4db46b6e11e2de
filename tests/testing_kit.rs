//! What users test with, tested: the Gemini stand-in byte by byte, and the scripted service.
#![cfg(feature = "testing")]

use std::{io, time::Duration};

use http::{HeaderName, HeaderValue, StatusCode};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tower::{Service, ServiceExt};
use tower_tenacity::testing::{GeminiServer, Reply, Script, Step};

const PATH: &str = "/v1beta/models/m:generateContent";
const BODY: &str = r#"{"contents":[]}"#;
// Only a hang gets there.
const LONG: Duration = Duration::from_secs(20);

async fn connect(server: &GeminiServer) -> TcpStream {
    TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap()
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What comes until `done` or the end.
async fn read(stream: &TcpStream, done: impl Fn(&[u8]) -> bool) -> io::Result<Vec<u8>> {
    let mut all = Vec::new();
    let mut buffer = [0; 4096];
    while !done(&all) {
        timeout(LONG, stream.readable()).await.expect("something comes")?;
        match stream.try_read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => all.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(all)
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

struct Answer {
    status: u16,
    head: String,
    body: Vec<u8>,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
    fn text(&self) -> String {
        self.json()["candidates"][0]["content"]["parts"][0]["text"].as_str().unwrap().to_owned()
    }
    fn message(&self) -> String {
        self.json()["error"]["message"].as_str().unwrap().to_owned()
    }
}

fn parse(bytes: &[u8]) -> Answer {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n").expect("a head") + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    Answer { status, head, body: bytes[end..].to_vec() }
}

async fn exchange(server: &GeminiServer, request: &str) -> io::Result<Vec<u8>> {
    let stream = connect(server).await;
    write(&stream, request.as_bytes()).await?;
    read(&stream, |_| false).await
}

const KEY: &str = "x-goog-api-key: secret\r\nconnection: close\r\n";

async fn ask(server: &GeminiServer) -> Answer {
    parse(&exchange(server, &request("POST", PATH, KEY, BODY)).await.unwrap())
}

async fn reply(reply: Reply) -> Answer {
    let server = GeminiServer::start([reply]).await.unwrap();
    let answer = ask(&server).await;
    assert_eq!((server.remaining(), server.requests().len()), (0, 1));
    if let Some(length) = answer.header("content-length") {
        assert_eq!(length.parse(), Ok(answer.body.len()));
    }
    answer
}

const JSON: Option<&str> = Some("application/json; charset=UTF-8");

#[tokio::test]
async fn answers_have_the_shape_of_googles() {
    let answer = reply(Reply::text("Paris")).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    let body = answer.json();
    assert_eq!(body["candidates"][0]["content"], json!({ "role": "model", "parts": [{ "text": "Paris" }] }));
    assert_eq!(body["candidates"][0]["finishReason"], "STOP");
    assert_eq!(body["usageMetadata"]["totalTokenCount"], 20);

    let answer = reply(Reply::json(json!({ "name": "Jason", "age": 25 }))).await;
    assert_eq!(serde_json::from_str::<Value>(&answer.text()).unwrap(), json!({ "name": "Jason", "age": 25 }));

    let answer = reply(Reply::cut_off("Par")).await;
    assert_eq!((answer.status, answer.text().as_str()), (200, "Par"));
    assert_eq!(answer.json()["candidates"][0]["finishReason"], "MAX_TOKENS");

    let body = reply(Reply::empty()).await.json();
    assert_eq!(body["candidates"][0]["content"], json!({ "role": "model" }));

    let body = reply(Reply::unsafe_answer()).await.json();
    assert_eq!(body["candidates"], json!([{ "finishReason": "SAFETY", "index": 0 }]));

    let answer = reply(Reply::blocked()).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, JSON));
    assert!(answer.json().get("candidates").is_none());
    assert_eq!(answer.json()["promptFeedback"]["blockReason"], "SAFETY");
    assert_eq!(answer.json()["usageMetadata"]["promptTokenCount"], 12);

    assert_eq!(reply(Reply::response(json!([1, null]))).await.json(), json!([1, null]));
}

#[tokio::test]
async fn errors_have_googles_envelope() {
    for (made, status, name) in [
        (Reply::overloaded(), 503, "UNAVAILABLE"),
        (Reply::internal(), 500, "INTERNAL"),
        (Reply::invalid_key(), 400, "INVALID_ARGUMENT"),
        (Reply::rate_limited(Duration::from_secs(1)), 429, "RESOURCE_EXHAUSTED"),
        (Reply::daily_quota(), 429, "RESOURCE_EXHAUSTED"),
        (Reply::no_quota(), 429, "RESOURCE_EXHAUSTED"),
        (Reply::error(StatusCode::NOT_FOUND, "NOT_FOUND", "gone", json!([])), 404, "NOT_FOUND"),
    ] {
        let answer = reply(made).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, JSON), "{name}");
        let error = &answer.json()["error"];
        assert_eq!((&error["code"], &error["status"]), (&json!(status), &json!(name)));
        assert!(!answer.message().is_empty());
    }
    assert!(reply(Reply::overloaded()).await.json()["error"].get("details").is_none());
    assert_eq!(reply(Reply::invalid_key()).await.json()["error"]["details"][0]["reason"], "API_KEY_INVALID");
}

#[tokio::test]
async fn the_message_has_the_exact_delay_and_retry_info_whole_seconds() {
    for (delay, message, hint) in [
        (Duration::from_nanos(58_217_843_437), "58.217843437s", "58s"),
        (Duration::from_millis(1_999), "1.999s", "1s"),
        (Duration::from_secs(7), "7s", "7s"),
        (Duration::from_millis(200), "0.2s", "0.2s"),
        (Duration::from_millis(10), "0.01s", "0.01s"),
    ] {
        let answer = reply(Reply::rate_limited(delay)).await;
        assert!(answer.message().ends_with(&format!("Please retry in {message}.")), "{}", answer.message());
        let details = answer.json()["error"]["details"].clone();
        let info = &details[2];
        assert_eq!(info["@type"], "type.googleapis.com/google.rpc.RetryInfo");
        assert_eq!(info["retryDelay"], hint);
        assert_eq!(details[1]["violations"][0]["quotaId"], "GenerateRequestsPerMinutePerProjectPerModel-FreeTier");
    }
    let daily = reply(Reply::daily_quota()).await.json();
    let violation = &daily["error"]["details"][1]["violations"][0];
    assert_eq!(violation["quotaId"], "GenerateRequestsPerDayPerProjectPerModel-FreeTier");
    assert_eq!(violation["quotaValue"], "20");
    assert!(reply(Reply::no_quota()).await.message().contains("limit: 0,"));
}

#[tokio::test]
async fn pages_bodies_and_headers_are_sent_as_they_are() {
    let answer = reply(Reply::html(StatusCode::BAD_GATEWAY)).await;
    assert_eq!((answer.status, answer.header("content-type")), (502, Some("text/html; charset=UTF-8")));
    assert!(answer.body.starts_with(b"<!DOCTYPE html>"));

    let odd = Reply::body(StatusCode::IM_A_TEAPOT, "application/octet-stream", &b"\xff\x00"[..])
        .header(HeaderName::from_static("retry-after"), HeaderValue::from_static("3"));
    let answer = reply(odd).await;
    assert_eq!((answer.status, answer.body.as_slice()), (418, &b"\xff\x00"[..]));
    assert_eq!(answer.header("retry-after"), Some("3"));

    let answer = reply(Reply::body(StatusCode::OK, "text/plain", "")).await;
    assert_eq!((answer.status, answer.body.len()), (200, 0));
}

#[tokio::test]
async fn a_reset_is_a_reset_and_a_close_is_an_end() {
    let server = GeminiServer::start([Reply::reset(), Reply::close(), Reply::text("later")]).await.unwrap();
    let question = request("POST", PATH, KEY, BODY);
    let error = exchange(&server, &question).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(exchange(&server, &question).await.unwrap(), b"");
    assert_eq!(ask(&server).await.text(), "later");
    assert_eq!((server.connections(), server.requests().len()), (3, 3));
}

#[tokio::test]
async fn a_truncated_body_is_shorter_than_promised() {
    for full in [Reply::text("x".repeat(1000)), Reply::overloaded(), Reply::body(StatusCode::OK, "text/plain", "x")] {
        let server = GeminiServer::start([full.truncated()]).await.unwrap();
        let answer = ask(&server).await;
        let promised: usize = answer.header("content-length").unwrap().parse().unwrap();
        assert!(answer.body.len() < promised, "{} of {promised}", answer.body.len());
        assert_eq!(answer.body.len(), promised / 2);
    }
    // A hang-up stays what it is.
    let server = GeminiServer::start([Reply::close().truncated()]).await.unwrap();
    assert_eq!(exchange(&server, &request("POST", PATH, KEY, BODY)).await.unwrap(), b"");
}

#[tokio::test]
async fn what_is_no_question_is_refused_and_uses_up_no_reply() {
    let server = GeminiServer::start([Reply::text("kept")]).await.unwrap();
    let close = "connection: close\r\n";
    for (question, status, name) in [
        (request("POST", PATH, close, BODY), 403, "PERMISSION_DENIED"),
        (request("POST", PATH, &format!("x-goog-api-key: \r\n{close}"), BODY), 403, "PERMISSION_DENIED"),
        (request("POST", &format!("{PATH}?key=secret"), close, BODY), 403, "PERMISSION_DENIED"),
        (request("POST", "/v1/models/m:generateContent", KEY, BODY), 404, "NOT_FOUND"),
        (request("POST", "/v1beta/models/m:countTokens", KEY, BODY), 404, "NOT_FOUND"),
        (request("GET", PATH, KEY, ""), 404, "NOT_FOUND"),
        (request("POST", PATH, KEY, "{"), 400, "INVALID_ARGUMENT"),
    ] {
        let answer = parse(&exchange(&server, &question).await.unwrap());
        assert_eq!((answer.status, answer.header("content-type")), (status, JSON));
        assert_eq!(answer.json()["error"]["status"], name);
    }
    assert_eq!((server.remaining(), server.requests().len()), (1, 7));
    assert_eq!(ask(&server).await.text(), "kept");
}

#[tokio::test]
async fn a_script_that_has_been_played_says_so() {
    let server = GeminiServer::start([]).await.unwrap();
    let answer = ask(&server).await;
    assert_eq!(answer.status, 400);
    assert!(answer.message().contains("no reply left"));
    server.push(Reply::text("one more"));
    assert_eq!(ask(&server).await.text(), "one more");
}

#[tokio::test]
async fn a_slow_reply_is_overtaken_by_a_fast_one() {
    let server = GeminiServer::start([Reply::text("slow").after(Duration::from_millis(300)), Reply::text("fast")])
        .await
        .unwrap();
    let slow = async {
        let answer = ask(&server).await.text();
        (answer, Instant::now())
    };
    let fast = async {
        server.received(1).await;
        let answer = ask(&server).await.text();
        (answer, Instant::now())
    };
    let ((slow, slow_at), (fast, fast_at)) = tokio::join!(slow, fast);
    assert_eq!((slow.as_str(), fast.as_str()), ("slow", "fast"));
    assert!(fast_at < slow_at);
}

#[tokio::test]
async fn a_slow_hang_up_comes_after_its_delay() {
    let server = GeminiServer::start([Reply::reset().after(Duration::from_millis(50))]).await.unwrap();
    let error = exchange(&server, &request("POST", PATH, KEY, BODY)).await.unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    assert!(server.requests()[0].at() <= Instant::now());
}

#[tokio::test]
async fn requests_are_recorded_in_order_and_as_they_came() {
    let server = GeminiServer::start([Reply::text("1"), Reply::text("2")]).await.unwrap();
    let stream = connect(&server).await;
    for body in [r#"{"a": 1}"#, r#"{"b":2.50}"#] {
        let question = request("POST", &format!("{PATH}?alt=json"), "x-goog-api-key: secret\r\nx-own: yes\r\n", body);
        write(&stream, question.as_bytes()).await.unwrap();
        read(&stream, |bytes| bytes.ends_with(b"}")).await.unwrap();
    }
    let requests = server.requests();
    assert_eq!(server.connections(), 1, "the connection is kept");
    assert_eq!(
        requests.iter().map(|request| request.body().as_ref()).collect::<Vec<_>>(),
        [&br#"{"a": 1}"#[..], &br#"{"b":2.50}"#[..]]
    );
    assert_eq!(requests[0].json(), json!({ "a": 1 }));
    assert_eq!(requests[0].path(), format!("{PATH}?alt=json"));
    assert_eq!(requests[0].method(), "POST");
    assert_eq!(requests[0].headers()["x-own"], "yes");
    assert!(requests[0].at() <= requests[1].at());
}

#[tokio::test]
async fn whoever_waits_for_requests_is_told_when_they_have_come() {
    let server = GeminiServer::start((0..3).map(|_| Reply::text("x"))).await.unwrap();
    timeout(LONG, server.received(0)).await.expect("none is there at once");
    let waiting = async {
        server.received(3).await;
        server.requests().len()
    };
    let asking = async {
        for _ in 0..3 {
            ask(&server).await;
        }
    };
    let (seen, ()) = tokio::join!(waiting, asking);
    assert_eq!(seen, 3);
    timeout(LONG, server.received(2)).await.expect("two were there long ago");
}

#[tokio::test]
async fn a_server_that_is_dropped_closes_everything() {
    let server = GeminiServer::start([Reply::text("never").after(LONG)]).await.unwrap();
    let address = server.url();
    let address = address.strip_prefix("http://").unwrap();
    let (idle, busy) = (connect(&server).await, connect(&server).await);
    write(&busy, request("POST", PATH, KEY, BODY).as_bytes()).await.unwrap();
    server.received(1).await;
    drop(server);
    for stream in [idle, busy] {
        let end = read(&stream, |_| false).await;
        assert!(end.map_or_else(|error| error.kind() == io::ErrorKind::ConnectionReset, |bytes| bytes.is_empty()));
    }
    let mut tries = 0;
    while TcpStream::connect(address).await.is_ok() {
        tries += 1;
        assert!(tries < 100, "still listening");
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn garbage_does_not_bring_it_down() {
    let server = GeminiServer::start([Reply::text("well")]).await.unwrap();
    let long = "x".repeat(1 << 20);
    for garbage in ["\0\u{1}\u{2}\r\n\r\n", "GET\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", &long] {
        let stream = connect(&server).await;
        // It may hang up before all of it was sent.
        let _ = write(&stream, garbage.as_bytes()).await;
        let _ = read(&stream, |_| false).await;
    }
    // One who leaves in the middle of a question, one who never asks it.
    let stream = connect(&server).await;
    write(&stream, &request("POST", PATH, KEY, BODY).as_bytes()[..40]).await.unwrap();
    drop(stream);
    let _silent = connect(&server).await;
    assert_eq!(ask(&server).await.text(), "well");
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn many_at_once_get_one_reply_each() {
    let server = GeminiServer::start((0..50).map(|i| Reply::text(i.to_string()))).await.unwrap();
    let mut answers = Vec::new();
    let mut streams = Vec::new();
    for _ in 0..50 {
        let stream = connect(&server).await;
        write(&stream, request("POST", PATH, KEY, BODY).as_bytes()).await.unwrap();
        streams.push(stream);
    }
    for stream in streams {
        answers.push(parse(&read(&stream, |_| false).await.unwrap()).text().parse::<u32>().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..50).collect::<Vec<_>>());
}

#[tokio::test]
async fn neither_key_nor_body_is_shown() {
    let server = GeminiServer::start([Reply::text("confidential")]).await.unwrap();
    let question = request("POST", &format!("{PATH}?key=secret"), KEY, r#"{"prompt":"private"}"#);
    parse(&exchange(&server, &question).await.unwrap());
    server.push(Reply::text("confidential"));
    for shown in [format!("{server:?}"), format!("{:?}", server.requests())] {
        assert!(!["secret", "private", "confidential"].iter().any(|word| shown.contains(word)), "{shown}");
    }
}

// The scripted service.

type Echo = Script<u32, &'static str, &'static str>;

#[tokio::test]
#[should_panic(expected = "without having been polled ready")]
async fn a_call_without_readiness_panics() {
    let mut script = Echo::new([Ok("a")]);
    drop(script.call(1));
}

#[tokio::test]
#[should_panic(expected = "without having been polled ready")]
async fn readiness_is_good_for_one_call() {
    let mut script = Echo::new([Ok("a"), Ok("b")]);
    drop(script.ready().await.unwrap().call(1));
    drop(script.call(2));
}

#[tokio::test]
#[should_panic(expected = "without having been polled ready")]
async fn a_clone_starts_out_unready() {
    let mut script = Echo::new([Ok("a")]);
    script.ready().await.unwrap();
    drop(script.clone().call(1));
}

#[tokio::test]
#[should_panic(expected = "no step left for call 2")]
async fn a_call_beyond_the_script_panics() {
    let mut script = Echo::new([Ok("a")]);
    drop(script.ready().await.unwrap().call(1));
    drop(script.ready().await.unwrap().call(2));
}

#[tokio::test]
async fn a_panic_does_not_hide_the_record() {
    let script = Echo::new([Ok("a")]);
    let mut own = script.clone();
    let end = tokio::spawn(async move {
        drop(own.ready().await.unwrap().call(1));
        drop(own.ready().await.unwrap().call(2));
    });
    assert!(end.await.unwrap_err().is_panic());
    assert_eq!(script.requests()[0], 1);
    assert_eq!(format!("{:?}", Echo::new([Ok("a")])), "Script { calls: 0, remaining: 1 }");
}

#[tokio::test]
async fn outcomes_come_in_order_over_all_clones() {
    let script = Echo::new([Ok("a"), Err("b"), Ok("c")]);
    assert_eq!(script.clone().oneshot(1).await, Ok("a"));
    assert_eq!(script.remaining(), 2);
    assert_eq!(script.clone().oneshot(2).await, Err("b"));
    assert_eq!(script.clone().oneshot(3).await, Ok("c"));
    assert_eq!((script.calls(), script.requests(), script.remaining()), (3, vec![1, 2, 3], 0));
}

#[tokio::test(start_paused = true)]
async fn delays_are_kept_to_the_millisecond_and_seen_in_the_record() {
    let delay = Duration::from_secs(3);
    let script = Echo::new([Step::After(delay, Ok("late")), Step::Respond(Ok("now"))]);
    let started = Instant::now();
    let mut late = tokio::spawn(script.clone().oneshot(1));
    assert!(timeout(delay - Duration::from_millis(1), &mut late).await.is_err());
    assert_eq!(late.await.unwrap(), Ok("late"));
    assert_eq!(started.elapsed(), delay);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(script.clone().oneshot(2).await, Ok("now"));
    assert_eq!(script.delays(), [Duration::from_secs(5)]);
    assert_eq!(script.call_times(), [started, started + Duration::from_secs(5)]);
}

#[tokio::test(start_paused = true)]
async fn a_hang_never_ends() {
    let script = Echo::new([Step::Hang]);
    let hang = timeout(Duration::from_secs(3_600), script.clone().oneshot(1));
    assert!(hang.await.is_err());
    assert_eq!(script.calls(), 1);
}

#[tokio::test]
async fn not_ready_fails_before_there_is_a_call() {
    let script = Echo::new([Step::NotReady("closed"), Step::Respond(Ok("open"))]);
    assert_eq!(script.clone().oneshot(1).await, Err("closed"));
    assert_eq!((script.calls(), script.remaining()), (0, 1));
    assert_eq!(script.clone().oneshot(2).await, Ok("open"));
    assert_eq!(script.requests(), [2]);
}

#[test]
fn kit_is_send_and_sync() {
    fn both<T: Send + Sync>() {}
    both::<GeminiServer>();
    both::<Reply>();
    both::<Echo>();
}
