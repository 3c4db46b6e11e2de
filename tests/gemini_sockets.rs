//! The Gemini client over real sockets: what each kind of failure turns into, and a whole stack on top (laws 13, 21–24, 28).
#![cfg(all(feature = "gemini", feature = "testing"))]

use std::{error::Error as _, fmt::Write as _, time::Duration};

use http::StatusCode;
use serde_json::json;
use tokio::{net::TcpListener, time::timeout};
use tower::{Service, ServiceBuilder, ServiceExt};
use tower_tenacity::{
    RetryLayer,
    gemini::{self, Error, ErrorKind, Gemini, GenerateContent, GenerateContentResponse, NoAnswer},
    testing::{GeminiServer, Reply},
    wait,
};

const KEY: &str = "AIza-the-secret-key";
// Only a hang gets there.
const LONG: Duration = Duration::from_secs(20);

fn client(server: &GeminiServer) -> Gemini {
    Gemini::new(KEY).unwrap().base_url(server.url()).unwrap()
}

fn question() -> GenerateContent {
    GenerateContent::new("gemini-2.5-flash").text("The capital of France?")
}

async fn ask(server: &GeminiServer) -> Result<GenerateContentResponse, Error> {
    timeout(LONG, client(server).oneshot(question())).await.expect("it ends")
}

/// What becomes of one reply; one request was made.
async fn outcome(reply: Reply) -> Result<GenerateContentResponse, Error> {
    let server = GeminiServer::start([reply, Reply::text("not asked for")]).await.unwrap();
    let outcome = ask(&server).await;
    assert_eq!((server.requests().len(), server.remaining()), (1, 1), "one call is one request");
    outcome
}

async fn failure(reply: Reply) -> Error {
    let error = outcome(reply).await.unwrap_err();
    assert_no_key(&error);
    error
}

/// The error and all that it comes from.
fn shown(error: &Error) -> String {
    let mut shown = format!("{error} {error:?} {error:#?}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = write!(shown, " {error} {error:?}");
        cause = error.source();
    }
    shown
}

fn assert_no_key(error: &Error) {
    assert!(!shown(error).contains(KEY), "{error}");
}

#[tokio::test]
async fn a_question_is_answered() {
    let server = GeminiServer::start([Reply::text("Paris")]).await.unwrap();
    let response = ask(&server).await.unwrap();
    assert_eq!(response.text().unwrap(), "Paris");
    assert_eq!(response.usage().unwrap().total, Some(13));
    let request = &server.requests()[0];
    assert_eq!(request.method(), "POST");
    assert_eq!(request.path(), "/v1beta/models/gemini-2.5-flash:generateContent");
    assert_eq!(request.headers()["content-type"], "application/json");
    assert_eq!(request.body(), &question().to_bytes().unwrap());
}

#[tokio::test]
async fn calls_one_after_the_other_share_a_connection() {
    let server = GeminiServer::start([Reply::text("a"), Reply::overloaded(), Reply::text("c")]).await.unwrap();
    let mut client = client(&server);
    assert!(client.ready().await.unwrap().call(question()).await.is_ok());
    assert!(client.ready().await.unwrap().call(question()).await.is_err());
    // A clone has the same connections.
    assert!(client.clone().oneshot(question()).await.is_ok());
    assert_eq!((server.requests().len(), server.connections()), (3, 1));
}

#[tokio::test]
async fn the_key_is_in_its_header_and_nowhere_else() {
    let server = GeminiServer::start([Reply::text("a")]).await.unwrap();
    let client = client(&server);
    for shown in [format!("{client:?}"), format!("{client:#?}"), format!("{:?}", question())] {
        assert!(!shown.contains(KEY), "{shown}");
    }
    client.oneshot(question()).await.unwrap();
    let request = &server.requests()[0];
    for (name, value) in request.headers() {
        assert_eq!(value.to_str().unwrap().contains(KEY), name == "x-goog-api-key", "{name}");
    }
    assert_eq!(request.headers()["x-goog-api-key"], KEY);
    assert!(!request.path().contains(KEY) && !request.path().contains('?'));
    assert!(!std::str::from_utf8(request.body()).unwrap().contains(KEY));
}

#[tokio::test]
async fn a_key_that_the_server_repeats_is_not_shown() {
    let echo = format!("API key {KEY} is not valid");
    let details = json!([
        { "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID", "metadata": { "key": KEY } },
        { "@type": "type.googleapis.com/google.rpc.DebugInfo", "detail": KEY },
        { "@type": "x", "key": [KEY] },
    ]);
    let error = failure(Reply::error(400, "INVALID_ARGUMENT", &echo, details)).await;
    assert!(error.is_invalid_key() && error.message().contains("[api key]"));
    let page = format!("<html><title>no {KEY}</title>");
    failure(Reply::body(502, "text/html", page)).await;
    failure(Reply::body(200, "text/plain", KEY)).await;
    failure(Reply::response(json!({ "error": { "code": 500, "message": echo } }))).await;
}

#[tokio::test]
async fn a_rate_limit_tells_when_to_come_back() {
    // To the nanosecond, as the message has it; `RetryInfo` says less.
    for millis in [200, 1_999, 58_217] {
        let delay = Duration::from_millis(millis);
        let error = failure(Reply::rate_limited(delay)).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Api, Some(StatusCode::TOO_MANY_REQUESTS)));
        assert_eq!(error.retry_after(), Some(delay));
        assert!(error.is_rate_limited() && !error.is_quota_exhausted());
    }
    let error = failure(Reply::overloaded().header("retry-after", "7")).await;
    assert_eq!(error.retry_after(), Some(Duration::from_secs(7)));
}

#[tokio::test]
async fn a_quota_of_the_day_is_exhausted() {
    for reply in [Reply::daily_quota(), Reply::quota_zero()] {
        let error = failure(reply).await;
        assert!(error.is_rate_limited() && error.is_quota_exhausted());
        assert!(error.retry_after().is_some(), "the hint can be read all the same");
        assert!(error.quota_violations().next().is_some());
    }
}

#[tokio::test]
async fn failures_of_the_server_have_their_status() {
    for (reply, status) in [
        (Reply::overloaded(), 503),
        (Reply::internal(), 500),
        (Reply::invalid_key(), 400),
        (Reply::html(502), 502),
        (Reply::html(404), 404),
        // The status stands though the body broke off.
        (Reply::overloaded().truncated(), 503),
        (Reply::body(503, "text/plain", ""), 503),
    ] {
        let error = failure(reply).await;
        assert_eq!((error.kind(), error.status().unwrap().as_u16()), (ErrorKind::Api, status), "{error}");
    }
    let error = failure(Reply::html(502)).await;
    assert!(error.message().starts_with("an HTML page"), "{error}");
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_of_the_transport() {
    for reply in [Reply::reset(), Reply::close()] {
        let error = failure(reply).await;
        assert_eq!((error.kind(), error.status(), error.is_truncated()), (ErrorKind::Transport, None, false));
        assert!(error.source().is_some());
    }
    let error = failure(Reply::text("Paris").truncated()).await;
    assert_eq!((error.kind(), error.is_truncated()), (ErrorKind::Transport, true));
}

#[tokio::test]
async fn a_connection_that_is_refused_is_a_failure_of_the_transport() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let client = Gemini::new(KEY).unwrap().base_url(url).unwrap();
    let error = timeout(LONG, client.oneshot(question())).await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Transport);
    assert_no_key(&error);
    assert!(shown(&error).contains("refused"), "{}", shown(&error));
}

#[tokio::test]
async fn what_says_success_and_is_no_answer_cannot_be_decoded() {
    for body in [&b""[..], b"\xff\xfe\x00", b"Paris", b"<html></html>", b"[1]", b"null", b"{\"candidates\":7}"] {
        let error = failure(Reply::body(200, "application/json", body)).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Decode, Some(StatusCode::OK)), "{body:?}: {error}");
        assert!(!error.message().contains("Paris"), "an answer is not quoted");
    }
    let error = failure(Reply::body(200, "application/json", &b"{\"candidates\":["[..])).await;
    assert!(error.kind() == ErrorKind::Decode && error.is_truncated());
}

#[tokio::test]
async fn a_blocked_prompt_is_a_response_without_an_answer() {
    let response = outcome(Reply::blocked()).await.unwrap();
    assert!(matches!(response.answer(), Err(NoAnswer::PromptBlocked { reason: Some(_) })));
    assert_eq!(response.usage().unwrap().prompt, Some(8));
    for (reply, wanted) in [
        (Reply::withheld(), "the answer was blocked (SAFETY)"),
        (Reply::cut_off("Par"), "the answer was cut off (MAX_TOKENS)"),
        (Reply::empty(), "the answer is empty"),
    ] {
        assert_eq!(outcome(reply).await.unwrap().text().unwrap_err().to_string(), wanted);
    }
}

#[tokio::test]
async fn a_response_that_is_too_large_is_refused() {
    let size = serde_json::to_vec(&json!({ "text": "x".repeat(100_000) })).unwrap().len();
    let server = GeminiServer::start((0..3).map(|_| Reply::text("x".repeat(100_000)))).await.unwrap();
    let error = client(&server).max_response_bytes(1_000).oneshot(question()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ResponseTooLarge);
    assert!(error.message().contains("1000 bytes"), "{error}");
    assert!(client(&server).max_response_bytes(size - 1).oneshot(question()).await.is_err());
    assert!(client(&server).max_response_bytes(2 * size).oneshot(question()).await.is_ok());
}

#[tokio::test]
async fn a_large_error_page_is_still_an_error_of_the_api() {
    let server = GeminiServer::start([Reply::body(502, "text/plain", "x".repeat(100_000))]).await.unwrap();
    let error = client(&server).max_response_bytes(100).oneshot(question()).await.unwrap_err();
    assert_eq!((error.kind(), error.status()), (ErrorKind::Api, Some(StatusCode::BAD_GATEWAY)));
    assert!(error.to_string().len() < 1_000);
}

#[tokio::test]
async fn a_question_that_cannot_be_sent_is_not() {
    let server = GeminiServer::start([]).await.unwrap();
    for question in
        [GenerateContent::new("m"), GenerateContent::new("../m").text("x"), question().temperature(f32::NAN)]
    {
        let error = client(&server).oneshot(question).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidRequest);
    }
    assert_eq!(server.connections(), 0);
}

#[test]
fn plain_http_is_for_this_machine_only() {
    for url in ["http://example.com", "http://10.0.0.1:8080", "http://0.0.0.0", "http://localhost.example.com"] {
        let error = Gemini::new(KEY).unwrap().base_url(url).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Configuration);
        assert!(error.to_string().contains("plain http"), "{error}");
        assert_no_key(&error);
    }
    for url in ["http://localhost:1", "http://127.0.0.1:1", "http://[::1]:1", "https://example.com/gateway"] {
        assert!(Gemini::new(KEY).unwrap().base_url(url).is_ok(), "{url}");
    }
}

#[tokio::test]
async fn a_gateways_path_is_kept() {
    let server = GeminiServer::start([]).await.unwrap();
    let client = Gemini::new(KEY).unwrap().base_url(format!("{}/gateway/", server.url())).unwrap();
    client.oneshot(question()).await.unwrap_err();
    assert_eq!(server.requests()[0].path(), "/gateway/v1beta/models/gemini-2.5-flash:generateContent");
}

// With retries on top.

fn stack(
    server: &GeminiServer,
) -> impl Service<GenerateContent, Response = GenerateContentResponse, Error = Error, Future: Send> + Clone + Send + 'static
{
    ServiceBuilder::new().layer(RetryLayer::new(gemini::policy().wait(wait::none()))).service(client(server))
}

#[tokio::test]
async fn a_stack_gets_through_limits_overload_resets_and_broken_answers() {
    let server = GeminiServer::start([
        Reply::rate_limited(Duration::from_millis(10)),
        Reply::overloaded(),
        Reply::reset(),
        Reply::text("Lyon, or").truncated(),
        Reply::text("Paris"),
        Reply::text("not asked for"),
    ])
    .await
    .unwrap();
    let response = timeout(LONG, stack(&server).oneshot(question())).await.expect("it ends").unwrap();
    assert_eq!(response.text().unwrap(), "Paris");
    let requests = server.requests();
    assert_eq!((requests.len(), server.remaining()), (5, 1));
    for request in &requests {
        assert_eq!(request.body(), requests[0].body(), "a retry sends the same bytes");
        assert_eq!(request.path(), requests[0].path());
        assert_eq!(request.headers(), requests[0].headers());
    }
    assert!(requests.windows(2).all(|pair| pair[0].received_at() <= pair[1].received_at()));
    // The two that were broken cannot be used again.
    assert_eq!(server.connections(), 3);
}

#[tokio::test]
async fn the_fifth_failure_is_the_last() {
    let server = GeminiServer::start((0..9).map(|_| Reply::overloaded())).await.unwrap();
    let error = stack(&server).oneshot(question()).await.unwrap_err();
    assert_eq!(error.status(), Some(StatusCode::SERVICE_UNAVAILABLE));
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn permanent_failures_make_one_request() {
    for reply in [
        Reply::daily_quota(),
        Reply::quota_zero(),
        Reply::invalid_key(),
        Reply::html(404),
        Reply::body(200, "text/html", "<html></html>"),
        Reply::rate_limited(Duration::from_secs(3_600)),
    ] {
        let server = GeminiServer::start([reply, Reply::text("not asked for")]).await.unwrap();
        timeout(LONG, stack(&server).oneshot(question())).await.expect("it ends").unwrap_err();
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_blocked_prompt_is_not_retried() {
    let server = GeminiServer::start([Reply::blocked(), Reply::text("not asked for")]).await.unwrap();
    assert!(stack(&server).oneshot(question()).await.unwrap().answer().is_err());
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn a_call_that_is_dropped_asks_nothing_more() {
    let slow = || Reply::overloaded().after(Duration::from_millis(100));
    let server = GeminiServer::start([slow(), slow(), Reply::text("Paris")]).await.unwrap();
    let service = stack(&server);
    tokio::select! {
        _ = service.clone().oneshot(question()) => panic!("it is slow"),
        () = server.received(2) => {}
    }
    // Somebody else gets the next answer, and nothing comes in between.
    assert_eq!(service.oneshot(question()).await.unwrap().text().unwrap(), "Paris");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!((server.requests().len(), server.remaining()), (3, 0));
}

#[tokio::test]
async fn many_calls_over_one_client_get_an_answer_each() {
    let replies = (0..40).flat_map(|i| [Reply::overloaded(), Reply::text(i.to_string())]);
    let server = GeminiServer::start(replies).await.unwrap();
    let policy = gemini::policy().wait(wait::none()).stop(tower_tenacity::stop::after_attempt(100));
    let policy = policy.budget(tower_tenacity::policy::budget::Budget::standard().reserve(1000));
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client(&server));
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..40 {
        calls.spawn(service.clone().oneshot(question()));
    }
    let mut answers = Vec::new();
    while let Some(call) = calls.join_next().await {
        answers.push(call.unwrap().unwrap().text().unwrap().parse::<u32>().unwrap());
    }
    answers.sort_unstable();
    assert_eq!(answers, (0..40).collect::<Vec<_>>());
    assert_eq!(server.requests().len(), 80);
}
