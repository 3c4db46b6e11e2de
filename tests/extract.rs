//! Typed answers: what is asked, what is asked again, and what a call ends with.
#![cfg(all(feature = "extract", feature = "testing"))]

use std::{
    borrow::Cow,
    cell::Cell,
    collections::HashMap,
    error::Error,
    num::NonZeroU8,
    rc::Rc,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use schemars::JsonSchema;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, timeout},
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    RetryLayer, RetryPolicy,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer},
    cooldown::CooldownLayer,
    extract::{Check, Extract, ExtractError, ExtractLayer, Extracted, Failure, NoCheck, Problems},
    gemini::{self, Content, GenerateContent, GenerateContentResponse, NoAnswer, Role},
    stop,
    testing::{GeminiServer, Reply, Script, Step},
    timeout::{AttemptTimeoutLayer, Deadline},
    wait,
};

type Outcome = Result<GenerateContentResponse, BoxError>;
type Gemini = Script<GenerateContent, GenerateContentResponse, BoxError>;

const GOOD: &str = r#"{"name":"Jason","age":25}"#;
const TOO_OLD: &str = r#"{"name":"Jason","age":300}"#;
const NO_JSON: &str = "Jason is 25 years old";
const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
struct User {
    name: String,
    age: u8,
}

fn jason() -> User {
    User { name: "Jason".to_owned(), age: 25 }
}

fn response(json: &Value) -> Outcome {
    Ok(serde_json::from_str(&json.to_string())?)
}

fn candidate(candidate: &Value) -> Outcome {
    response(&json!({ "candidates": [candidate] }))
}

fn says(text: &str) -> Outcome {
    candidate(&json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP" }))
}

fn ends(reason: &str, text: &str) -> Outcome {
    candidate(&json!({ "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": reason }))
}

fn empty() -> Outcome {
    candidate(&json!({ "content": { "role": "model" }, "finishReason": "STOP" }))
}

fn question() -> GenerateContent {
    GenerateContent::new("m").text("Jason is 25 years old")
}

async fn ask<T, C>(layer: ExtractLayer<T, C>, gemini: &Gemini) -> Result<Extracted<T>, ExtractError>
where
    T: DeserializeOwned,
    C: Check<T> + Clone,
{
    layer.layer(gemini.clone()).oneshot(question()).await
}

fn sent(request: &GenerateContent) -> Value {
    serde_json::from_slice(&request.to_bytes().unwrap()).unwrap()
}

fn roles(request: &GenerateContent) -> Vec<&str> {
    request.contents().iter().map(|turn| turn.role().map_or("", Role::as_str)).collect()
}

fn text(turn: &Content) -> &str {
    assert_eq!(turn.parts().len(), 1);
    turn.parts()[0].text().unwrap()
}

/// The user turn with which the second question ends.
fn correction(gemini: &Gemini) -> String {
    let requests = gemini.requests();
    assert_eq!(roles(&requests[1]), ["user", "model", "user"]);
    text(&requests[1].contents()[2]).to_owned()
}

// What is asked.

#[tokio::test]
async fn a_good_first_answer_is_asked_for_once() {
    let gemini = Gemini::new([says(GOOD)]);
    let user = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    assert_eq!(user.value(), &jason());
    assert_eq!(gemini.calls(), 1);
    assert_eq!(user.report().answers().len(), 1);
    assert_eq!(user.report().answers()[0].failure(), None);
    assert_eq!(user.into_value(), jason());
}

#[tokio::test]
async fn every_question_carries_the_mime_type_and_the_schema() {
    let gemini = Gemini::new([says(NO_JSON), says(GOOD)]);
    let layer = ExtractLayer::<User>::new();
    let schema = layer.schema().unwrap().clone();
    assert_eq!(schema["properties"]["age"]["maximum"], 255);
    ask(layer, &gemini).await.unwrap();
    for request in gemini.requests() {
        let config = &sent(&request)["generationConfig"];
        assert_eq!(config["responseMimeType"], "application/json");
        assert_eq!(config["responseJsonSchema"], schema);
        assert_eq!(request.model(), "m");
    }
}

#[tokio::test]
async fn the_callers_request_is_not_changed() {
    let gemini = Gemini::new([says(NO_JSON), says(GOOD)]);
    let request = question().system("be brief").temperature(0.5).config("topK", 3);
    let before = request.to_bytes().unwrap();
    ExtractLayer::<User>::new().layer(gemini.clone()).oneshot(request.clone()).await.unwrap();
    assert_eq!(request.to_bytes().unwrap(), before);
    assert_eq!(request.contents().len(), 1);
    // What the caller set is in every question.
    for request in gemini.requests() {
        let sent = sent(&request);
        assert_eq!(sent["systemInstruction"]["parts"][0]["text"], "be brief");
        assert_eq!(
            (&sent["generationConfig"]["topK"], &sent["generationConfig"]["temperature"]),
            (&json!(3), &json!(0.5))
        );
    }
}

#[tokio::test]
async fn a_conversation_keeps_its_turns() {
    let gemini = Gemini::new([says(NO_JSON), says(GOOD)]);
    let request = question().content(Content::new(Role::Model, [])).text("So, who?");
    ExtractLayer::<User>::new().layer(gemini.clone()).oneshot(request).await.unwrap();
    let requests = gemini.requests();
    assert_eq!(roles(&requests[0]), ["user", "model", "user"]);
    assert_eq!(roles(&requests[1]), ["user", "model", "user", "model", "user"]);
}

// What is asked again.

#[tokio::test]
async fn a_corrected_question_quotes_the_models_own_turn_unchanged() {
    let parts = [
        r#"{"text":"hm, let me see","thought":true}"#,
        r#"{"text":"no \u006aSON","thoughtSignature":"c2lnbmF0dXJl+/==","newField":1.0,"big":98765432109876543210}"#,
        r#"{"neverSeen":{"b":1,"a":[ 2 ]}}"#,
    ]
    .join(",");
    let body = format!(
        r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model","strange":1.50}},"finishReason":"STOP"}}]}}"#
    );
    let gemini = Gemini::new([Ok(serde_json::from_str(&body).unwrap()), says(GOOD)]);
    ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();

    let requests = gemini.requests();
    assert_eq!(roles(&requests[1]), ["user", "model", "user"]);
    let bytes = requests[1].to_bytes().unwrap();
    let again = std::str::from_utf8(&bytes).unwrap();
    assert!(again.contains(&format!(r#"{{"role":"model","parts":[{parts}],"strange":1.50}}"#)), "{again}");
    assert_eq!(sent(&requests[0])["contents"][0], sent(&requests[1])["contents"][0]);
    assert!(correction(&gemini).contains("not valid JSON"));
}

#[tokio::test]
async fn a_quoted_turn_without_a_role_gets_the_models() {
    for role in ["", r#""role":null,"#, r#""role":"","#] {
        let body = format!(
            r#"{{"candidates":[{{"content":{{{role}"parts":[{{"text":"{{}}","new":1.0}}],"strange":1.50}},"finishReason":"STOP"}}]}}"#
        );
        let gemini = Gemini::new([Ok(serde_json::from_str(&body).unwrap()), says(GOOD)]);
        ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
        let bytes = gemini.requests()[1].to_bytes().unwrap();
        let again = std::str::from_utf8(&bytes).unwrap();
        let wanted = r#"{"role":"model","parts":[{"text":"{}","new":1.0}],"strange":1.50},{"role":"user","#;
        assert!(again.contains(wanted), "{again}");
    }
}

fn calls_a_function(text: Option<&str>) -> Outcome {
    let mut parts = vec![json!({ "functionCall": { "name": "look_up", "args": {} } })];
    parts.extend(text.map(|text| json!({ "text": text })));
    candidate(&json!({ "content": { "role": "model", "parts": parts }, "finishReason": "STOP" }))
}

#[tokio::test]
async fn a_function_call_is_not_quoted() {
    let told = Arc::new(AtomicU32::new(0));
    let layer = ExtractLayer::<User>::new().on_reask({
        let told = told.clone();
        move |reask| {
            told.fetch_add(u32::from(reask.question().is_some()), SeqCst);
        }
    });
    let gemini = Gemini::new([calls_a_function(None), calls_a_function(Some(NO_JSON)), says(GOOD)]);
    let user = ask(layer, &gemini).await.unwrap();
    assert_eq!(user.report().answers()[0].failure(), Some("the answer holds no text"));
    assert!(user.report().answers()[1].failure().unwrap().starts_with("not valid JSON"));
    let requests = gemini.requests();
    for request in &requests[1..] {
        assert_eq!(request.to_bytes().unwrap(), requests[0].to_bytes().unwrap());
    }
    assert_eq!(told.load(SeqCst), 0, "the same question again is announced as such");
}

#[tokio::test]
async fn an_answer_without_text_is_told_so() {
    let picture = json!({ "inlineData": { "mimeType": "image/png", "data": "" } });
    let gemini = Gemini::new([
        candidate(&json!({ "content": { "role": "model", "parts": [picture] }, "finishReason": "STOP" })),
        says(GOOD),
    ]);
    ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    assert!(correction(&gemini).contains("\n- the answer holds no text\n"));
}

#[tokio::test]
async fn no_question_ends_on_a_turn_of_the_models() {
    let gemini = Gemini::new([empty(), says(NO_JSON), empty(), says(TOO_OLD), says(GOOD)]);
    ask(ExtractLayer::<User>::new().reasks(4), &gemini).await.unwrap();
    for request in gemini.requests() {
        assert_eq!(roles(&request).last(), Some(&"user"));
    }
}

#[tokio::test]
async fn only_the_latest_answer_is_quoted() {
    let gemini = Gemini::new((0..8).map(|i| says(&format!("answer number {i}"))));
    let error = ask(ExtractLayer::<User>::new().reasks(7), &gemini).await.unwrap_err();
    assert_eq!(error.report().answers().len(), 8);
    let requests = gemini.requests();
    assert_eq!(requests.len(), 8);
    for (i, request) in requests.iter().enumerate().skip(1) {
        assert_eq!(roles(request), ["user", "model", "user"]);
        assert_eq!(text(&request.contents()[1]), format!("answer number {}", i - 1));
        assert_eq!(request.to_bytes().unwrap().len(), requests[1].to_bytes().unwrap().len());
    }
}

#[tokio::test]
async fn a_violation_of_the_schema_is_named_with_its_path() {
    let gemini = Gemini::new([says(r#"{"name":7,"age":300}"#), says(GOOD)]);
    let user = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    let correction = correction(&gemini);
    assert!(correction.contains("\n- age: 300 is greater than the maximum of 255\n"), "{correction}");
    assert!(correction.contains("\n- name: 7 is not of type \"string\"\n"), "{correction}");
    let failure = user.report().answers()[0].failure().unwrap();
    assert!(failure.contains("age: ") && failure.contains("name: "), "{failure}");
}

#[tokio::test]
async fn a_mismatch_with_the_type_is_named_with_its_path() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Order {
        lines: Vec<Line>,
    }
    // The schema promises less than the type asks for.
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Line {
        #[schemars(with = "i64")]
        quantity: NonZeroU8,
    }
    let gemini = Gemini::new([
        says(r#"{"lines":[{"quantity":1},{"quantity":0}]}"#),
        says(r#"{"lines":[{"quantity":1},{"quantity":2}]}"#),
    ]);
    let order = ask(ExtractLayer::<Order>::new(), &gemini).await.unwrap();
    assert_eq!(order.value().lines[1].quantity.get(), 2);
    let correction = correction(&gemini);
    assert!(correction.contains("\n- lines[1].quantity: invalid value: integer `0`"), "{correction}");
    assert!(!correction.contains("::") && !correction.contains(".rs"), "no Rust paths: {correction}");
}

#[tokio::test]
async fn what_a_check_rejects_is_told_to_the_model() {
    let gemini = Gemini::new([says(r#"{"name":"","age":25}"#), says(GOOD)]);
    let layer = ExtractLayer::<User>::new().check(|user: &User| {
        let mut problems = Problems::new();
        if user.name.is_empty() {
            problems.add("name", "must not be empty");
        }
        problems.into_result()
    });
    assert_eq!(ask(layer, &gemini).await.unwrap().value(), &jason());
    assert!(correction(&gemini).contains("\n- name: must not be empty\n"));
}

#[tokio::test(start_paused = true)]
async fn a_check_may_take_its_time_and_may_reject() {
    let gemini = Gemini::new([says(r#"{"name":"Jason","age":24}"#), says(GOOD)]);
    let layer = ExtractLayer::<User>::new().check_async(|user: User| async move {
        sleep(SECOND).await;
        if user.age == 25 { Ok(user) } else { Err(Problems::from("that is not the age on file")) }
    });
    assert_eq!(ask(layer, &gemini).await.unwrap().value(), &jason());
    assert_eq!(gemini.delays(), [SECOND]);
    assert!(correction(&gemini).contains("\n- that is not the age on file\n"));
}

#[tokio::test]
async fn a_check_may_mend_the_value() {
    let gemini = Gemini::new([says(r#"{"name":"  Jason ","age":25}"#)]);
    let layer = ExtractLayer::<User>::new()
        .check_async(|user: User| async move { Ok(User { name: user.name.trim().to_owned(), ..user }) });
    assert_eq!(ask(layer, &gemini).await.unwrap().value(), &jason());
}

#[tokio::test]
async fn a_check_of_its_own_type_knows_which_answer_it_sees() {
    #[derive(Clone, Debug)]
    struct Patience;
    impl Check<User> for Patience {
        type Future = std::future::Ready<Result<User, Problems>>;
        fn check(&self, value: User, answer: u32) -> Self::Future {
            std::future::ready(if answer < 3 { Err(format!("answer {answer} is too early").into()) } else { Ok(value) })
        }
    }
    let gemini = Gemini::new([says(GOOD), says(GOOD), says(GOOD)]);
    let user = ask(ExtractLayer::<User>::new().check_with(Patience), &gemini).await.unwrap();
    let failures: Vec<_> = user.report().answers().iter().map(|answer| answer.failure()).collect();
    assert_eq!(failures, [Some("answer 1 is too early"), Some("answer 2 is too early"), None]);
}

#[tokio::test]
async fn an_empty_answer_gets_the_same_question_again() {
    let gemini = Gemini::new([empty(), response(&json!({})), says(GOOD)]);
    assert_eq!(ask(ExtractLayer::<User>::new(), &gemini).await.unwrap().value(), &jason());
    let requests = gemini.requests();
    assert_eq!(requests.len(), 3);
    for request in &requests[1..] {
        assert_eq!(request.to_bytes().unwrap(), requests[0].to_bytes().unwrap());
    }
}

#[tokio::test]
async fn empty_answers_use_up_the_reasks() {
    let gemini = Gemini::new((0..9).map(|_| empty()));
    let error = ask(ExtractLayer::<User>::new().reasks(2), &gemini).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::NoAnswer(NoAnswer::Empty)), "{error:?}");
    assert_eq!(gemini.calls(), 3);
}

#[tokio::test]
async fn without_reasks_there_is_one_answer() {
    let gemini = Gemini::new([says(NO_JSON), says(GOOD)]);
    let error = ask(ExtractLayer::<User>::new().reasks(0), &gemini).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Mismatch(_)));
    assert_eq!((gemini.calls(), error.report().answers().len()), (1, 1));
}

#[tokio::test]
async fn the_model_is_asked_again_twice_by_default() {
    let gemini = Gemini::new((0..9).map(|_| says(TOO_OLD)));
    let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
    assert_eq!(gemini.calls(), 3);
    assert_eq!(error.to_string(), "no value after 3 answers: the answer does not fit the type");
    let problems = error.failure().problems().unwrap();
    assert_eq!((problems.list().len(), problems.list()[0].path()), (1, "age"));
}

#[tokio::test]
async fn a_correction_stays_short_whatever_the_model_says() {
    let key = "k\n".repeat(50_000);
    let gemini = Gemini::new([says(&json!({ "counts": { key: "no number" } }).to_string()), says(r#"{"counts":{}}"#)]);
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Counts {
        counts: HashMap<String, u8>,
    }
    assert!(ask(ExtractLayer::<Counts>::new(), &gemini).await.unwrap().value().counts.is_empty());
    let correction = correction(&gemini);
    assert!(correction.len() < 2000, "{} bytes", correction.len());
}

// What is not asked again.

#[tokio::test]
async fn a_hopeless_problem_ends_the_call() {
    let gemini = Gemini::new([says(GOOD), says(GOOD)]);
    let layer = ExtractLayer::<User>::new().check(|_: &User| Err(Problems::hopeless("this is no person")));
    let error = ask(layer, &gemini).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Rejected(problems) if problems.is_hopeless()));
    assert_eq!(gemini.calls(), 1);
    assert_eq!(error.report().answers()[0].failure(), Some("this is no person"));
}

#[tokio::test]
async fn blocked_and_cut_off_answers_are_typed_failures_and_not_asked_for_again() {
    let blocked = response(&json!({ "promptFeedback": { "blockReason": "SAFETY" } }));
    let unsafe_answer = candidate(&json!({ "finishReason": "SAFETY" }));
    // Even where what is there would fit: it is not what was asked for.
    let cut_off = ends("MAX_TOKENS", GOOD);
    for (answer, wanted) in [
        (blocked, "the prompt was blocked (SAFETY)"),
        (unsafe_answer, "the answer was blocked (SAFETY)"),
        (cut_off, "the answer was cut off (MAX_TOKENS)"),
    ] {
        let gemini = Gemini::new([answer, says(GOOD)]);
        let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
        let Failure::NoAnswer(reason) = error.failure() else { panic!("{error:?}") };
        assert_eq!(reason.to_string(), wanted);
        assert!(error.failure().problems().is_none());
        assert_eq!(gemini.calls(), 1, "{wanted}");
        assert_eq!(error.report().answers()[0].failure(), Some(wanted));
        assert_eq!(error.source().unwrap().downcast_ref::<NoAnswer>(), Some(reason));
    }
}

#[tokio::test]
async fn an_answer_that_was_cut_off_is_said_to_be_whether_the_server_says_why_or_not() {
    let half = &GOOD[..15];
    let cases = [
        (ends("MAX_TOKENS", half), "the model did not finish its answer", "the answer was cut off (MAX_TOKENS)"),
        (
            ends("STOP", half),
            "the answer ends too early",
            "not valid JSON: it ends too early (EOF while parsing an object at line 1 column 15)",
        ),
        (
            ends("STOP", NO_JSON),
            "the answer does not fit the type",
            "not valid JSON: expected value at line 1 column 1",
        ),
    ];
    for (answer, failure, cause) in cases {
        let error = ask(ExtractLayer::<User>::new().reasks(0), &Gemini::new([answer])).await.unwrap_err();
        assert_eq!(error.to_string(), format!("no value after 1 answer: {failure}"));
        assert_eq!(error.source().unwrap().to_string(), cause);
    }
    // The model may be able to mend what it stopped at by itself.
    let gemini = Gemini::new([ends("STOP", half), says(GOOD)]);
    ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    assert!(correction(&gemini).contains("it ends too early"));
}

#[tokio::test]
async fn a_malformed_answer_is_not_quoted() {
    let gemini = Gemini::new([ends("MALFORMED_RESPONSE", "{{{"), says(GOOD)]);
    ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    let requests = gemini.requests();
    assert_eq!(requests[0].to_bytes().unwrap(), requests[1].to_bytes().unwrap());
}

#[derive(Debug, Deserialize)]
struct NoText;

impl JsonSchema for NoText {
    fn schema_name() -> Cow<'static, str> {
        "NoText".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "not": { "type": "string" } })
    }
}

#[tokio::test]
async fn a_schema_that_cannot_be_sent_fails_before_anything_is() {
    let gemini = Gemini::new([says("null")]);
    let layer = ExtractLayer::<NoText>::new();
    assert_eq!(layer.schema().unwrap_err().path(), "/not");
    let error = ask(layer, &gemini).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::Schema(error) if error.path() == "/not"));
    assert_eq!((gemini.calls(), error.report().answers().len()), (0, 0));
    assert_eq!(error.to_string(), "no answer was got: the type has no usable schema");
}

#[tokio::test]
async fn a_request_that_hides_turns_or_schema_fails_before_anything_is_sent() {
    for (name, value) in [("contents", json!([])), ("generationConfig", json!(null)), ("generationConfig", json!([]))] {
        let gemini = Gemini::new([says(GOOD)]);
        let request = question().extra(name, value);
        let error = ExtractLayer::<User>::new().layer(gemini.clone()).oneshot(request).await.unwrap_err();
        assert_eq!((gemini.calls(), error.report().answers().len()), (0, 0), "{name}");
        let Failure::Request(cause) = error.failure() else { panic!("{error:?}") };
        assert_eq!(cause.kind(), gemini::ErrorKind::InvalidRequest);
        assert!(cause.to_string().contains(&format!("`{name}`")), "{cause}");
        assert!(error.source().unwrap().is::<gemini::Error>());
        assert_eq!(error.to_string(), "no answer was got: the request overrides what has to be sent");
    }
    let gemini = Gemini::new([says(GOOD)]);
    let request = question().extra("generationConfig", json!({ "topK": 4 })).extra("labels", json!({}));
    ExtractLayer::<User>::new().layer(gemini.clone()).oneshot(request).await.unwrap();
}

#[tokio::test]
async fn a_format_that_is_not_sent_is_checked_on_the_answer() {
    #[derive(Debug, Deserialize, JsonSchema)]
    struct Contact {
        #[schemars(email)]
        email: String,
    }
    let gemini = Gemini::new([says(r#"{"email":"nobody"}"#), says(r#"{"email":"a@example.com"}"#)]);
    let contact = ask(ExtractLayer::<Contact>::new(), &gemini).await.unwrap();
    assert_eq!(contact.value().email, "a@example.com");
    assert!(correction(&gemini).contains("\n- email: "));
}

// The service below.

#[derive(Debug, PartialEq)]
struct Busy(&'static str);

impl std::fmt::Display for Busy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }
}

impl Error for Busy {}

const SECRET: &str = "503 from https://10.0.0.1/?key=AIza-secret";

fn busy() -> Outcome {
    Err(Box::new(Busy(SECRET)))
}

#[tokio::test]
async fn an_error_from_below_is_found_in_the_source_chain() {
    let gemini = Gemini::new([says(NO_JSON), busy(), says(GOOD)]);
    let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
    assert_eq!(gemini.calls(), 2, "the layer does not retry the transport");
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&Busy(SECRET)));
    assert_eq!(error.report().answers().len(), 1, "what came before is reported");
    assert!(error.report().answers()[0].failure().unwrap().starts_with("not valid JSON"));
    assert_eq!(error.to_string(), "no value after 1 answer: the service failed");
    let (failure, report) = error.into_parts();
    assert!(matches!(failure, Failure::Service(error) if error.is::<Busy>()));
    assert_eq!(report.answers().len(), 1);
}

#[tokio::test]
async fn a_service_that_is_not_ready_ends_the_call() {
    let closed = || Box::new(Busy("closed")) as BoxError;
    let gemini = Gemini::new([says(NO_JSON)]).fail_ready_after(1, closed());
    let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&Busy("closed")));
    assert_eq!((gemini.calls(), error.report().answers().len()), (1, 1));

    let gemini = Gemini::new([says(GOOD)]).fail_ready_after(0, closed());
    let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&Busy("closed")));
    assert_eq!((gemini.calls(), error.report().answers().len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn retries_of_the_transport_use_up_no_reask_and_a_reask_does_not_wait() {
    let steps = [
        busy(),
        busy(),
        says(NO_JSON), // the first answer, after two retries
        busy(),
        says(TOO_OLD), // the second, after one
        busy(),
        busy(),
        busy(),
        says(GOOD),
    ];
    let gemini = Gemini::new(steps);
    let policy = RetryPolicy::new().stop(stop::after_attempt(4)).wait(wait::fixed(10 * SECOND));
    let service = ServiceBuilder::new()
        .layer(ExtractLayer::<User>::new().reasks(2))
        .layer(RetryLayer::new(policy))
        .service(gemini.clone());
    let user = service.oneshot(question()).await.unwrap();
    assert_eq!(user.value(), &jason());
    assert_eq!(user.report().answers().len(), 3);
    let delays: Vec<_> = gemini.delays().iter().map(Duration::as_secs).collect();
    assert_eq!(delays, [10, 10, 0, 10, 0, 10, 10, 10]);
    for request in gemini.requests() {
        let bytes = request.to_bytes().unwrap();
        let sent = std::str::from_utf8(&bytes).unwrap();
        assert!(!["503", "10.0.0.1", "secret", "http"].iter().any(|word| sent.contains(word)), "{sent}");
    }
}

#[tokio::test(start_paused = true)]
async fn reasks_are_asked_at_once() {
    let started = Instant::now();
    let gemini = Gemini::new([says(NO_JSON), empty(), says(TOO_OLD), says(GOOD)]);
    ask(ExtractLayer::<User>::new().reasks(3), &gemini).await.unwrap();
    assert_eq!(started.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_asked_after_the_deadline() {
    let asked = AtomicU32::new(0);
    let slow = service_fn(|_: GenerateContent| async {
        asked.fetch_add(1, SeqCst);
        sleep(2 * SECOND).await;
        says(NO_JSON)
    });
    let service = ExtractLayer::<User>::new().reasks(5).layer(slow);
    let error = service.oneshot(question().deadline(Deadline::after(3 * SECOND))).await.unwrap_err();
    // The second answer comes too late for another, and is what the call ends with.
    assert_eq!(asked.load(SeqCst), 2);
    assert!(matches!(error.failure(), Failure::Mismatch(_)));
}

#[tokio::test]
async fn the_only_permit_is_free_again_before_a_reask() {
    let gemini = Gemini::new([says(NO_JSON), says(TOO_OLD), says(GOOD)]);
    let service = ServiceBuilder::new().layer(ExtractLayer::<User>::new()).concurrency_limit(1).service(gemini.clone());
    assert_eq!(service.oneshot(question()).await.unwrap().value(), &jason());
}

#[tokio::test(start_paused = true)]
async fn a_future_dropped_half_way_asks_nothing_more_and_gives_its_permit_back() {
    let gemini = Gemini::new([Step::Respond(says(NO_JSON)), Step::Hang, Step::Respond(says(GOOD))]);
    let mut service =
        ServiceBuilder::new().layer(ExtractLayer::<User>::new()).concurrency_limit(1).service(gemini.clone());
    let call = service.ready().await.unwrap().call(question());
    assert!(timeout(SECOND, call).await.is_err());
    assert_eq!(gemini.calls(), 2);
    let user = timeout(SECOND, service.ready().await.unwrap().call(question())).await.unwrap().unwrap();
    assert_eq!(user.value(), &jason());
    assert_eq!(gemini.calls(), 3);
}

#[tokio::test]
async fn a_future_that_is_not_polled_can_be_dropped_in_any_state() {
    for polls in 0..4 {
        let gemini = Gemini::new((0..9).map(|_| says(NO_JSON)));
        let layer = ExtractLayer::<User>::new().check_async(|user: User| async move {
            tokio::task::yield_now().await;
            Ok(user)
        });
        let mut service = layer.layer(gemini.clone());
        let mut call = by_hand(service.ready().await.unwrap().call(question()));
        for _ in 0..polls {
            let _ = call.poll();
        }
    }
}

#[test]
fn a_service_that_answers_at_once_does_not_keep_the_thread() {
    struct Woken(AtomicU32);
    impl std::task::Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let calls = Arc::new(AtomicU32::new(0));
    let gemini = service_fn({
        let calls = calls.clone();
        move |_: GenerateContent| {
            let good = calls.fetch_add(1, SeqCst) == 99;
            std::future::ready(says(if good { GOOD } else { NO_JSON }))
        }
    });
    let mut call = Box::pin(ExtractLayer::<User>::new().reasks(u32::MAX).layer(gemini).call(question()));
    let woken = Arc::new(Woken(AtomicU32::new(0)));
    let waker = woken.clone().into();
    let mut context = std::task::Context::from_waker(&waker);
    for polls in 1..=3 {
        assert!(call.as_mut().poll(&mut context).is_pending());
        assert_eq!((calls.load(SeqCst), woken.0.load(SeqCst)), (32 * polls, polls));
    }
    assert!(matches!(call.as_mut().poll(&mut context), std::task::Poll::Ready(Ok(_))));
    assert_eq!((calls.load(SeqCst), woken.0.load(SeqCst)), (100, 3));
}

// A future to be polled by hand.
fn by_hand<F: Future>(future: F) -> Task<F> {
    Task(Some(Box::pin(future)))
}

struct Task<F>(Option<std::pin::Pin<Box<F>>>);

impl<F: Future> Task<F> {
    fn poll(&mut self) -> std::task::Poll<()> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        let Some(future) = &mut self.0 else { return std::task::Poll::Ready(()) };
        let ready = future.as_mut().poll(&mut context).map(drop);
        if ready.is_ready() {
            self.0 = None;
        }
        ready
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_calls_over_one_stack_keep_their_own_answers() {
    let gemini = service_fn(|request: GenerateContent| async move {
        tokio::task::yield_now().await;
        let asked = text(&request.contents()[0]).to_owned();
        let age: u32 = asked.parse()?;
        match request.contents().len() {
            // As many wrong answers as the remainder says.
            1 if age % 3 > 0 => says(&format!("wrong {age}")),
            3 if age % 3 > 1 && text(&request.contents()[1]) == format!("wrong {age}") => {
                says(&format!(r#"{{"name":"{age}","age":300}}"#))
            }
            _ => says(&format!(r#"{{"name":"{age}","age":{age}}}"#)),
        }
    });
    let service = ServiceBuilder::new()
        .layer(ExtractLayer::<User>::new())
        .layer(RetryLayer::new(RetryPolicy::new()))
        .concurrency_limit(7)
        .service(gemini);
    let mut calls = JoinSet::new();
    for age in 0..100_u8 {
        calls.spawn(service.clone().oneshot(GenerateContent::new("m").text(age.to_string())));
    }
    let mut ages = Vec::new();
    while let Some(call) = calls.join_next().await {
        let user = call.unwrap().unwrap();
        let User { name, age } = user.value();
        assert_eq!(name, &age.to_string());
        assert_eq!(user.report().answers().len(), usize::from(age % 3) + 1);
        ages.push(*age);
    }
    ages.sort_unstable();
    assert_eq!(ages, (0..100).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_stack_over_a_real_socket_keeps_the_two_budgets_apart() {
    let server = GeminiServer::start([
        Reply::rate_limited(Duration::from_millis(10)),
        Reply::text(NO_JSON),
        Reply::reset(),
        Reply::overloaded(),
        Reply::empty(),
        Reply::json(json!({ "name": "Jason", "age": 25 })),
        Reply::text("not asked for"),
    ])
    .await
    .unwrap();
    let client = gemini::Gemini::new("key").unwrap().base_url(server.url()).unwrap();
    let service = ServiceBuilder::new()
        .layer(ExtractLayer::<User>::new().reasks(2))
        .layer(RetryLayer::new(gemini::policy().stop(stop::after_attempt(3)).wait(wait::none())))
        .service(client);
    let call = tokio::spawn(async move { service.oneshot(question()).await });
    let user = call.await.unwrap().unwrap();
    assert_eq!(user.value(), &jason());
    assert_eq!((user.report().answers().len(), user.report().usage().total), (3, Some(39)));
    let turns: Vec<_> =
        server.requests().iter().map(|request| request.json()["contents"].as_array().unwrap().len()).collect();
    assert_eq!((turns, server.remaining()), (vec![1, 1, 3, 3, 3, 1], 1));
}

#[tokio::test]
async fn the_whole_stack_answers_through_rate_limits_and_bad_answers() {
    let server = GeminiServer::start([
        Reply::rate_limited(Duration::from_millis(10)),
        Reply::overloaded(),
        Reply::text(NO_JSON),
        Reply::json(json!({ "name": "Jason", "age": 25 })),
    ])
    .await
    .unwrap();
    let stack = ServiceBuilder::new()
        .layer(ExtractLayer::<User>::new().reasks(2))
        .layer(RetryLayer::new(gemini::policy().wait(wait::none())))
        .layer(CooldownLayer::new(gemini::classify()))
        .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).classify(gemini::classify()))
        .layer(AttemptTimeoutLayer::new(Duration::from_secs(10)).deadline(GenerateContent::until))
        .service(gemini::Gemini::new("key").unwrap().base_url(server.url()).unwrap());
    let user = tokio::spawn(stack.oneshot(question())).await.unwrap().unwrap();
    assert_eq!(user.value(), &jason());
    assert_eq!((user.report().answers().len(), server.remaining()), (2, 0));
}

// What is reported.

fn spent(text: Option<&str>, usage: &Value) -> Outcome {
    let mut body = json!({ "usageMetadata": usage, "modelVersion": "m-001" });
    match text {
        Some(text) => {
            body["candidates"] =
                json!([{ "content": { "role": "model", "parts": [{ "text": text }] }, "finishReason": "STOP" }]);
        }
        None => body["promptFeedback"] = json!({ "blockReason": "OTHER" }),
    }
    response(&body)
}

#[tokio::test]
async fn tokens_are_summed_over_all_answers() {
    let gemini = Gemini::new([
        spent(Some(NO_JSON), &json!({ "promptTokenCount": 10, "candidatesTokenCount": 4, "totalTokenCount": 14 })),
        says(TOO_OLD),
        spent(Some(GOOD), &json!({ "promptTokenCount": "20", "thoughtsTokenCount": 5, "totalTokenCount": 25 })),
    ]);
    let user = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap();
    let usage = user.report().usage();
    assert_eq!((usage.prompt, usage.candidates, usage.thoughts, usage.total), (Some(30), Some(4), Some(5), Some(39)));
    assert_eq!((usage.cached, usage.tool_use_prompt), (None, None), "unknown is not zero");
    let answers = user.report().answers();
    assert_eq!(answers[1].usage(), None);
    assert_eq!((answers[0].model_version(), answers[1].model_version()), (Some("m-001"), None));
    assert_eq!(answers[2].finish_reason().map(|reason| reason.as_str()), Some("STOP"));
}

#[tokio::test]
async fn tokens_are_reported_on_failure_and_for_what_was_blocked() {
    let gemini = Gemini::new([
        spent(Some(NO_JSON), &json!({ "promptTokenCount": 10, "totalTokenCount": 14 })),
        spent(None, &json!({ "promptTokenCount": 30, "totalTokenCount": 30 })),
    ]);
    let error = ask(ExtractLayer::<User>::new(), &gemini).await.unwrap_err();
    assert!(matches!(error.failure(), Failure::NoAnswer(reason) if reason.is_blocked()));
    let usage = error.report().usage();
    assert_eq!((usage.prompt, usage.candidates, usage.total), (Some(40), None, Some(44)));
    let failures: Vec<_> = error.report().answers().iter().map(|answer| answer.failure().is_some()).collect();
    assert_eq!(failures, [true, true]);
}

#[tokio::test]
async fn each_reask_is_announced_before_it_is_made() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let gemini = Gemini::new([says(NO_JSON), empty(), says(TOO_OLD), says(GOOD)]);
    let layer = ExtractLayer::<User>::new().reasks(3).on_reask({
        let (events, gemini) = (events.clone(), gemini.clone());
        move |reask| {
            let question = reask.question().map(str::to_owned);
            events.lock().unwrap().push((reask.number(), gemini.calls(), reask.failure().to_string(), question));
        }
    });
    ask(layer, &gemini).await.unwrap();
    let events = events.lock().unwrap();
    let short: Vec<_> = events.iter().map(|(number, calls, failure, _)| (*number, *calls, &**failure)).collect();
    assert_eq!(
        short,
        [
            (1, 1, "the answer does not fit the type"),
            (2, 2, "the model gave no answer"),
            (3, 3, "the answer does not fit the type"),
        ]
    );
    let requests = gemini.requests();
    for (i, request) in requests[1..].iter().enumerate() {
        let turn = request.contents().get(2).map(|turn| text(turn).to_owned());
        assert_eq!(events[i].3, turn);
    }
    assert_eq!(events[1].3, None);
}

#[tokio::test]
async fn a_call_that_fails_announces_no_reask_it_does_not_make() {
    let events = Arc::new(AtomicU32::new(0));
    let gemini = Gemini::new((0..9).map(|_| says(NO_JSON)));
    let layer = ExtractLayer::<User>::new().reasks(1).on_reask({
        let events = events.clone();
        move |_| {
            events.fetch_add(1, SeqCst);
        }
    });
    ask(layer, &gemini).await.unwrap_err();
    assert_eq!((events.load(SeqCst), gemini.calls()), (1, 2));
}

#[tokio::test]
async fn neither_prompt_nor_answer_is_shown() {
    let gemini = Gemini::new([says("geheim")]);
    let service = ExtractLayer::<User>::new().reasks(0).layer(gemini);
    let shown = format!("{service:?}");
    assert!(shown.contains("User") && shown.contains("reasks: 0"), "{shown}");
    let error = service.oneshot(question().text("vertraulich")).await.unwrap_err();
    for shown in [error.to_string(), format!("{error:?}")] {
        assert!(!shown.contains("geheim") && !shown.contains("vertraulich"), "{shown}");
    }
}

// Types.

#[test]
fn service_and_future_are_send_and_the_service_is_sync() {
    fn send<T: Send>(_: &T) {}
    fn sync<T: Sync>(_: &T) {}
    let gemini = Gemini::new([says(GOOD)]);
    let layer = ExtractLayer::<User>::new().check(|_: &User| Ok(())).on_reask(|_| {});
    let mut service = layer.layer(gemini);
    send(&layer);
    sync(&layer);
    send(&service);
    sync(&service);
    let _ = service.poll_ready(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    send(&service.call(question()));
    fn name_of(_: &Extract<User, Gemini, NoCheck>) {}
    name_of(&Extract::new(ExtractLayer::new(), service.into_inner()));
}

#[tokio::test]
async fn a_check_need_not_be_send() {
    let seen = Rc::new(Cell::new(0));
    let gemini = Gemini::new([says(GOOD), says(GOOD)]);
    let layer = ExtractLayer::<User>::new().check({
        let seen = seen.clone();
        move |user: &User| {
            seen.set(seen.get() + user.age);
            if seen.get() > 25 { Ok(()) } else { Err("once more".into()) }
        }
    });
    ask(layer, &gemini).await.unwrap();
    assert_eq!(seen.get(), 50);
}

/// What a model may write, and not only what it is told in words.
mod tags {
    #![allow(dead_code)]

    use super::*;

    #[derive(Deserialize, JsonSchema)]
    struct Empty {}
    #[derive(Deserialize, JsonSchema)]
    struct Card {
        number: String,
    }
    #[derive(Deserialize, JsonSchema)]
    struct Wrapped(Card);
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "how")]
    enum Inner {
        Fast(Card),
        Slow { why: String },
    }
    #[derive(Deserialize, JsonSchema)]
    #[serde(tag = "how")]
    #[schemars(inline)]
    enum Inlined {
        Fast(Card),
    }
    #[derive(Deserialize, JsonSchema)]
    struct WithInlined {
        inlined: Inlined,
    }

    fn schema_of<T: JsonSchema + DeserializeOwned>() -> Value {
        ExtractLayer::<T>::new().schema().unwrap().clone()
    }

    // What a model may write, not what it is told in words.
    fn tag(schema: &Value, tag: &str) -> Value {
        assert!(schema.get("$ref").is_none(), "{schema:#}");
        schema["properties"][tag]["enum"].clone()
    }

    #[test]
    fn the_tag_of_a_variant_without_fields_may_be_written() {
        #[derive(Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        enum Command {
            Stop(Empty),
        }
        assert_eq!(tag(&schema_of::<Command>()["oneOf"][0], "kind"), json!(["Stop"]));
    }

    #[test]
    fn the_tag_of_a_variant_with_a_newtype_may_be_written() {
        #[derive(Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        enum Command {
            Pay(Wrapped),
        }
        let variant = &schema_of::<Command>()["oneOf"][0];
        assert_eq!(tag(variant, "kind"), json!(["Pay"]));
        assert_eq!(variant["properties"]["number"], json!({"type": "string"}));
    }

    #[test]
    fn the_tag_of_a_variant_with_another_enum_may_be_written() {
        #[derive(Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        enum Command {
            Pay(Inner),
        }
        let variant = &schema_of::<Command>()["oneOf"][0];
        assert_eq!(tag(variant, "kind"), json!(["Pay"]));
        assert_eq!(tag(&variant["oneOf"][0], "how"), json!(["Fast"]));
        assert_eq!(tag(&variant["oneOf"][1], "how"), json!(["Slow"]));
    }

    #[test]
    fn the_tag_inside_of_a_variant_may_be_written() {
        #[derive(Deserialize, JsonSchema)]
        #[serde(tag = "kind")]
        enum Command {
            Pay(WithInlined),
        }
        let variant = &schema_of::<Command>()["oneOf"][0];
        assert_eq!(tag(&variant["properties"]["inlined"]["oneOf"][0], "how"), json!(["Fast"]));
    }

    struct Circle;
    impl<'de> Deserialize<'de> for Circle {
        fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
            Err(serde::de::Error::custom("only its schema is of interest"))
        }
    }
    impl JsonSchema for Circle {
        fn schema_name() -> std::borrow::Cow<'static, str> {
            "Circle".into()
        }
        fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
            schemars::json_schema!({
                "$defs": {
                    "A": {"type": "object", "properties": {"b": {"$ref": "#/$defs/B", "properties": {"x": {"type": "string"}}}}},
                    "B": {"type": "object", "properties": {"a": {"$ref": "#/$defs/A", "properties": {"y": {"type": "string"}}}}},
                },
                "$ref": "#/$defs/A",
                "properties": {"z": {"type": "string"}},
            })
        }
    }

    #[test]
    fn what_goes_in_circles_comes_to_an_end() {
        let sent = schema_of::<Circle>();
        assert_eq!(tag(&sent["properties"]["b"], "x"), Value::Null);
    }
}
