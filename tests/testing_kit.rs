//! The test kit is tested with the plainest of clients: a blocking socket, and a service called by hand.
#![cfg(feature = "testing")]

use std::future::Future;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};
use tower::{Service, ServiceExt};
use tower_tenacity::testing::{GeminiServer, Reply, Script, ScriptFuture, Step};

const PATH: &str = "/v1beta/models/gemini-2.5-flash:generateContent";
const KEY: &str = "x-goog-api-key: very-secret\r\n";
const SECOND: Duration = Duration::from_secs(1);

/// All bytes of an answer, and how the connection ended.
struct Heard {
    bytes: Vec<u8>,
    end: io::Result<()>,
}

impl Heard {
    fn text(&self) -> &str {
        std::str::from_utf8(&self.bytes).expect("answers are UTF-8")
    }

    fn status(&self) -> u16 {
        self.text().split(' ').nth(1).expect("a status line").parse().expect("a status")
    }

    fn head(&self) -> String {
        self.text().split("\r\n\r\n").next().expect("a head").to_ascii_lowercase()
    }

    fn body(&self) -> &str {
        self.text().split_once("\r\n\r\n").expect("a head").1
    }

    fn json(&self) -> Value {
        serde_json::from_str(self.body()).expect("a JSON body")
    }

    fn promised(&self) -> usize {
        let head = self.head();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        length.expect("a content-length").parse().expect("a number")
    }
}

async fn say(addr: SocketAddr, bytes: impl Into<Vec<u8>>) -> Heard {
    let bytes = bytes.into();
    let talk = move || {
        let mut stream = match TcpStream::connect(addr) {
            Ok(stream) => stream,
            Err(error) => {
                return Heard { bytes: Vec::new(), end: Err(error) };
            }
        };
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        let _ = stream.write_all(&bytes);
        let mut bytes = Vec::new();
        let end = stream.read_to_end(&mut bytes).map(drop);
        Heard { bytes, end }
    };
    tokio::task::spawn_blocking(talk).await.expect("the client does not panic")
}

fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn ask(server: &GeminiServer) -> Heard {
    say(server.addr(), request("POST", PATH, KEY, r#"{"contents":[]}"#)).await
}

async fn play(reply: Reply) -> Heard {
    let server = GeminiServer::start([reply]).await.expect("a loopback port");
    ask(&server).await
}

#[tokio::test]
async fn answers_have_the_shape_of_the_api() {
    let text = play(Reply::text("Hello").usage(7, 2).header("x-trace", "t1")).await;
    assert_eq!(text.status(), 200);
    assert!(text.head().contains("content-type: application/json; charset=utf-8"));
    assert!(text.head().contains("x-trace: t1"));
    let text = text.json();
    assert_eq!(text["candidates"][0]["content"], json!({ "role": "model", "parts": [{ "text": "Hello" }] }));
    assert_eq!(text["candidates"][0]["finishReason"], "STOP");
    assert_eq!(
        text["usageMetadata"],
        json!({ "promptTokenCount": 7, "candidatesTokenCount": 2, "totalTokenCount": 9 })
    );

    let structured = play(Reply::json(json!({ "age": 25 }))).await.json();
    assert_eq!(structured["candidates"][0]["content"]["parts"][0]["text"], r#"{"age":25}"#);

    let cut_off = play(Reply::cut_off("{\"age\":")).await.json();
    assert_eq!(cut_off["candidates"][0]["finishReason"], "MAX_TOKENS");
    assert_eq!(cut_off["candidates"][0]["content"]["parts"][0]["text"], "{\"age\":");

    let empty = play(Reply::empty()).await.json();
    assert_eq!(empty["candidates"][0]["content"], json!({ "role": "model" }));

    let blocked = play(Reply::blocked().usage(3, 0)).await.json();
    assert_eq!(blocked["promptFeedback"]["blockReason"], "PROHIBITED_CONTENT");
    assert!(blocked.get("candidates").is_none());
    assert_eq!(blocked["usageMetadata"], json!({ "promptTokenCount": 3, "totalTokenCount": 3 }));

    assert_eq!(play(Reply::response(json!({}))).await.json(), json!({}));
    let raw = play(Reply::body(418, "text/plain", "short and stout")).await;
    assert_eq!((raw.status(), raw.body()), (418, "short and stout"));
}

#[tokio::test]
async fn errors_have_the_shape_of_the_api() {
    let limited = play(Reply::rate_limited(Duration::from_millis(2217))).await;
    assert_eq!(limited.status(), 429);
    assert!(!limited.head().contains("retry-after"));
    let error = &limited.json()["error"];
    assert_eq!((&error["code"], &error["status"]), (&json!(429), &json!("RESOURCE_EXHAUSTED")));
    assert!(error["message"].as_str().expect("a message").ends_with("Please retry in 2.217s."));
    let quota_id = error["details"][0]["violations"][0]["quotaId"].as_str().expect("a quota");
    assert!(quota_id.contains("PerMinute"), "{quota_id}");
    assert_eq!(error["details"][2]["retryDelay"], "2s");

    let briefly = play(Reply::rate_limited(Duration::from_micros(900_200))).await.json();
    assert!(briefly["error"]["message"].as_str().expect("a message").ends_with("Please retry in 900.2ms."));
    assert_eq!(briefly["error"]["details"][2]["retryDelay"], "0.9002s");

    let daily = play(Reply::daily_quota()).await.json();
    assert!(daily["error"]["details"].to_string().contains("PerDay"));
    let zero = play(Reply::quota_zero()).await.json();
    assert!(zero["error"]["message"].as_str().expect("a message").contains("limit: 0,"));

    for (reply, status, rpc) in [
        (Reply::overloaded(), 503, "UNAVAILABLE"),
        (Reply::internal(), 500, "INTERNAL"),
        (Reply::error(499, "CANCELLED", "The operation was cancelled.", Value::Null), 499, "CANCELLED"),
    ] {
        let heard = play(reply).await;
        assert_eq!((heard.status(), &heard.json()["error"]["status"]), (status, &json!(rpc)));
        assert!(heard.json()["error"].get("details").is_none());
    }

    let html = play(Reply::html(502)).await;
    assert_eq!(html.status(), 502);
    assert!(html.head().contains("content-type: text/html") && html.body().contains("Bad Gateway"));
}

#[tokio::test]
async fn connections_break_as_scripted() {
    let reset = play(Reply::reset()).await;
    assert_eq!(reset.end.expect_err("a reset").kind(), ErrorKind::ConnectionReset);
    assert!(reset.bytes.is_empty());

    let closed = play(Reply::close()).await;
    assert!(closed.end.is_ok() && closed.bytes.is_empty());

    for size in [1, 2, 15, 4096] {
        let cut = play(Reply::body(200, "text/plain", "x".repeat(size)).truncated()).await;
        assert!(cut.end.is_ok());
        assert_eq!((cut.status(), cut.promised(), cut.body().len()), (200, size, size / 2));
    }
    let cut = play(Reply::truncated(Reply::text("Hello"))).await;
    assert!(cut.body().len() < cut.promised());
    let reset = play(Reply::reset().truncated()).await;
    assert!(reset.end.is_err() && reset.bytes.is_empty());
}

#[tokio::test]
async fn a_slow_answer_is_overtaken_by_the_next() {
    let script = [Reply::text("slow").after(Duration::from_millis(300)), Reply::text("fast")];
    let server = GeminiServer::start(script).await.expect("a loopback port");
    let order = std::sync::Mutex::new(Vec::new());
    let first = async {
        assert!(ask(&server).await.body().contains("slow"));
        order.lock().expect("no panic").push("slow");
    };
    let second = async {
        server.received(1).await;
        assert!(ask(&server).await.body().contains("fast"));
        order.lock().expect("no panic").push("fast");
    };
    tokio::join!(first, second);
    assert_eq!(*order.lock().expect("no panic"), ["fast", "slow"]);
    assert_eq!(server.connections(), 2);
}

#[tokio::test]
async fn requests_are_recorded_without_showing_the_key() {
    let server = GeminiServer::start([Reply::text("a"), Reply::text("b")]).await.expect("a loopback port");
    // The same connection carries both.
    let first = request("POST", PATH, KEY, r#"{"n":1}"#).replace("connection: close\r\n", "");
    let second = request("POST", &format!("{PATH}?key=in-the-url"), "authorization: Bearer token\r\n", "not json");
    let heard = say(server.addr(), first + &second).await;
    assert_eq!(heard.text().matches("HTTP/1.1 200").count(), 2);

    server.received(2).await;
    let requests = server.requests();
    assert_eq!((requests.len(), server.connections(), server.remaining()), (2, 1, 0));
    assert_eq!((requests[0].method().as_str(), requests[0].path()), ("POST", PATH));
    assert_eq!(requests[0].model(), Some("gemini-2.5-flash"));
    assert_eq!(requests[0].headers()["host"], "localhost");
    assert_eq!(requests[0].json(), json!({ "n": 1 }));
    assert_eq!(requests[0].api_key(), Some("very-secret"));
    assert_eq!(requests[1].api_key(), Some("in-the-url"));
    assert_eq!(&requests[1].body()[..], b"not json");
    assert!(requests[0].received_at() <= requests[1].received_at());

    let shown = format!("{requests:?} {server:?}");
    assert!(shown.contains("Sensitive"), "{shown}");
    for secret in ["very-secret", "in-the-url", "token"] {
        assert!(!shown.contains(secret), "{shown}");
    }
}

#[tokio::test]
async fn other_paths_and_missing_keys_are_refused_and_use_up_no_reply() {
    let server = GeminiServer::start([Reply::text("the only one")]).await.expect("a loopback port");
    for (method, path, headers, status, rpc) in [
        ("GET", PATH, KEY, 404, "NOT_FOUND"),
        ("POST", "/", KEY, 404, "NOT_FOUND"),
        ("POST", "/v1beta/models/:generateContent", KEY, 404, "NOT_FOUND"),
        ("POST", "/v1beta/models/gemini-2.5-flash:countTokens", KEY, 404, "NOT_FOUND"),
        ("POST", PATH, "", 403, "PERMISSION_DENIED"),
        ("POST", PATH, "x-goog-api-key: \r\n", 403, "PERMISSION_DENIED"),
    ] {
        let heard = say(server.addr(), request(method, path, headers, "{}")).await;
        let error = &heard.json()["error"];
        assert_eq!((heard.status(), &error["code"], &error["status"]), (status, &json!(status), &json!(rpc)), "{path}");
    }
    assert!(ask(&server).await.body().contains("the only one"));
    assert_eq!(server.requests().len(), 7);
}

#[tokio::test]
async fn a_used_up_script_says_so_unless_its_last_reply_repeats() {
    let server = GeminiServer::start([Reply::overloaded(), Reply::text("done")]).await.expect("a loopback port");
    assert_eq!([ask(&server).await.status(), ask(&server).await.status()], [503, 200]);
    for _ in 0..2 {
        let exhausted = ask(&server).await;
        assert_eq!((exhausted.status(), &exhausted.json()["error"]["status"]), (400, &json!("FAILED_PRECONDITION")));
        assert!(exhausted.body().contains("script exhausted"));
    }

    let script = [Reply::overloaded(), Reply::text("done")];
    let server = GeminiServer::start(script).await.expect("a loopback port").repeat_last();
    let mut statuses = Vec::new();
    for _ in 0..4 {
        statuses.push(ask(&server).await.status());
    }
    assert_eq!(statuses, [503, 200, 200, 200]);

    let server = GeminiServer::start([]).await.expect("a loopback port").repeat_last();
    assert_eq!(ask(&server).await.status(), 400);
}

#[tokio::test]
async fn garbage_and_half_requests_leave_the_server_standing() {
    let server = GeminiServer::start([Reply::text("still here")]).await.expect("a loopback port");
    let mut seed = 0x2545_F491_4F6C_DD1D_u64;
    for length in [0, 1, 7, 100, 5000] {
        let mut noise: Vec<u8> = std::iter::repeat_with(|| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed.to_le_bytes()[0]
        })
        .take(length)
        .collect();
        noise.extend(b"\r\n\r\n");
        let _ = say_and_hang_up(server.addr(), noise).await;
    }
    for bytes in [
        "POST",
        "GET / HTTP/9.9\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        "POST / HTTP/1.1\r\ncontent-length: 99\r\n\r\nless",
        "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        "CONNECT example.org:443 HTTP/1.1\r\n\r\n",
    ] {
        let _ = say_and_hang_up(server.addr(), bytes.as_bytes().to_vec()).await;
    }
    assert!(ask(&server).await.body().contains("still here"));
    assert!(server.requests().iter().filter(|request| request.model().is_some()).count() == 1);
}

async fn say_and_hang_up(addr: SocketAddr, bytes: Vec<u8>) -> io::Result<Vec<u8>> {
    let talk = move || {
        let mut stream = TcpStream::connect(addr)?;
        stream.set_read_timeout(Some(Duration::from_secs(20)))?;
        stream.write_all(&bytes)?;
        stream.shutdown(Shutdown::Write)?;
        let mut heard = Vec::new();
        stream.read_to_end(&mut heard)?;
        Ok(heard)
    };
    tokio::task::spawn_blocking(talk).await.expect("the client does not panic")
}

#[tokio::test]
async fn a_dropped_server_is_gone_and_so_are_its_connections() {
    let server = GeminiServer::start([Reply::text("late").after(Duration::from_secs(3600))]).await.expect("a port");
    let addr = server.addr();
    assert_eq!(server.url(), format!("http://{addr}"));
    let waiting = tokio::spawn(say(addr, request("POST", PATH, KEY, "{}")));
    server.received(1).await;
    drop(server);
    assert!(waiting.await.expect("no panic").bytes.is_empty());
    let refused = ask_until_refused(addr);
    assert!(timeout(Duration::from_secs(20), refused).await.is_ok());
}

async fn ask_until_refused(addr: SocketAddr) {
    while say(addr, "").await.end.map_err(|error| error.kind()) != Err(ErrorKind::ConnectionRefused) {
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn wrong_replies_are_refused_where_they_are_written() {
    for wrong in [
        || Reply::html(42),
        || Reply::body(100, "text/plain", ""),
        || Reply::body(200, "text/\n", ""),
        || Reply::empty().header("no spaces", "x"),
        || Reply::empty().header("x", "no\nlines"),
    ] {
        assert!(std::panic::catch_unwind(wrong).is_err());
    }
}

// The scripted service.

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_order_and_everything_is_logged() {
    let script = Script::new([Err("busy"), Ok(1), Ok(2)]);
    let mut service = script.clone();
    let start = Instant::now();
    assert_eq!(service.ready().await.expect("ready").call("a").await, Err("busy"));
    sleep(SECOND).await;
    assert_eq!(service.ready().await.expect("ready").call("b").await, Ok(1));
    sleep(2 * SECOND).await;
    assert_eq!(service.clone().oneshot("c").await, Ok(2));

    assert_eq!((script.calls(), script.remaining()), (3, 0));
    assert_eq!(script.requests(), ["a", "b", "c"]);
    assert_eq!(script.call_times(), [start, start + SECOND, start + 3 * SECOND]);
    assert_eq!(script.delays(), [SECOND, 2 * SECOND]);
    assert_eq!(script.take_requests(), ["a", "b", "c"]);
    assert_eq!((script.requests().len(), script.calls()), (0, 3));
}

#[tokio::test(start_paused = true)]
async fn latency_applies_to_plain_outcomes_only() {
    let steps =
        [Step::Respond(Ok(())), Step::After(5 * SECOND, Err(())), Step::After(Duration::ZERO, Ok(())), Step::Hang];
    let script = Script::new(steps).latency(SECOND);
    let mut took = Vec::new();
    for _ in 0..3 {
        let start = Instant::now();
        let _ = script.clone().oneshot(()).await;
        took.push(start.elapsed());
    }
    assert_eq!(took, [SECOND, 5 * SECOND, Duration::ZERO]);
    assert!(timeout(1000 * SECOND, script.clone().oneshot(())).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn readiness_fails_as_scripted_and_once_each() {
    let script = Script::new([Ok(1), Ok(2)]).fail_ready_after(2, "last").fail_ready_after(0, "first");
    let mut service = script.clone();
    assert_eq!(service.ready().await.err(), Some("first"));
    assert_eq!(service.ready().await.expect("ready").call(()).await, Ok(1));
    assert_eq!(service.ready().await.expect("ready").call(()).await, Ok(2));
    assert_eq!(service.ready().await.err(), Some("last"));
    assert!(service.ready().await.is_ok());
}

#[tokio::test]
async fn readied_instances_are_counted_until_they_are_called_or_dropped() {
    let script = Script::<(), (), ()>::new([Ok(())]);
    let (mut one, mut two) = (script.clone(), script.clone());
    one.ready().await.expect("ready");
    one.ready().await.expect("ready");
    two.ready().await.expect("ready");
    assert_eq!(script.readied(), 2);
    assert_eq!(one.call(()).await, Ok(()));
    assert_eq!(script.readied(), 1);
    drop(two);
    assert_eq!(script.readied(), 0);
}

#[tokio::test]
#[should_panic(expected = "called before ready")]
async fn an_instance_that_was_not_polled_ready_panics() {
    let _ = Script::<(), (), ()>::new([Ok(())]).call(()).await;
}

#[tokio::test]
#[should_panic(expected = "called before ready")]
async fn a_clone_of_a_ready_instance_is_not_ready() {
    let mut script = Script::<(), (), ()>::new([Ok(())]);
    script.ready().await.expect("ready");
    let _ = script.clone().call(()).await;
}

#[tokio::test]
#[should_panic(expected = "called before ready")]
async fn one_readiness_is_good_for_one_call() {
    let mut script = Script::<(), (), ()>::new([Ok(()), Ok(())]);
    let _ = script.ready().await.expect("ready").call(()).await;
    let _ = script.call(()).await;
}

#[tokio::test]
#[should_panic(expected = "script exhausted: call 2 has no step, the script had 1")]
async fn a_used_up_script_panics() {
    let script = Script::<(), (), ()>::new([Ok(())]);
    let _ = script.clone().oneshot(()).await;
    let _ = script.clone().oneshot(()).await;
}

#[tokio::test]
async fn nothing_is_asked_of_the_types() {
    // Neither Send nor Clone nor Debug.
    struct Bare(Rc<()>);
    let script = Script::<Bare, Bare, Bare>::new([Ok(Bare(Rc::new(())))]);
    assert!(script.clone().oneshot(Bare(Rc::new(()))).await.is_ok_and(|answer| Rc::strong_count(&answer.0) == 1));
    assert_eq!(script.take_requests().len(), 1);
    assert_eq!(format!("{script:?}"), "Script { calls: 1, remaining: 0, ready: false }");
}

#[test]
fn the_kit_crosses_threads() {
    fn check<T: Send + Sync + 'static>() {}
    check::<GeminiServer>();
    check::<Reply>();
    check::<Script<String, String, io::Error>>();
    check::<ScriptFuture<String, io::Error>>();
    fn check_future(_: impl Future<Output = io::Result<GeminiServer>> + Send) {}
    check_future(GeminiServer::start([]));
}
