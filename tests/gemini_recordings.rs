//! Bodies that were recorded in the field decode and classify as their names and notes say.
//!
//! The recordings are not part of this package; where they are absent, there is nothing to check.
#![cfg(feature = "gemini")]

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use serde_json::Value;
use tower::{ServiceExt, service_fn};
use tower_tenacity::classify::{Class, Classify};
use tower_tenacity::gemini::{self, Content, ErrorKind, Gemini, GenerateContent, GenerateContentResponse, RequestBody};

fn recordings() -> Option<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let found = ["../shared", "../../shared"].map(|shared| root.join(shared).join("gemini-recordings"));
    let found = found.into_iter().find(|path| path.is_dir());
    if found.is_none() {
        println!("the recordings are not here");
    }
    found
}

async fn ask(status: u16, headers: &Value, body: String) -> Result<GenerateContentResponse, gemini::Error> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers.as_object().into_iter().flatten() {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a header");
        let value = HeaderValue::from_str(value.as_str().expect("a text")).expect("a header");
        response.headers_mut().insert(name, value);
    }
    let http = service_fn(move |_: Request<RequestBody>| {
        let response = response.clone();
        async { Ok::<_, Infallible>(response) }
    });
    let gemini = Gemini::with_transport(http, "key1234").expect("a client");
    gemini.oneshot(GenerateContent::new("gemini-2.5-flash").text("?")).await
}

#[tokio::test]
async fn unary_bodies_decode_as_their_names_say() {
    let Some(recordings) = recordings() else {
        return;
    };
    let (mut good, mut bad) = (0, 0);
    for entry in std::fs::read_dir(recordings.join("mock-responses/googleai")).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        if !name.starts_with("unary-") {
            continue;
        }
        let body = std::fs::read_to_string(&path).expect("a body");
        let json: Value = serde_json::from_str(&body).expect("JSON");
        let status = json.pointer("/error/code").and_then(Value::as_u64).unwrap_or(200) as u16;
        let outcome = ask(status, &Value::Null, body.clone()).await;
        if name.starts_with("unary-success-") {
            let response = outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
            let answer = response.answer().unwrap_or_else(|none| panic!("{name}: {none}"));
            assert!(response.usage().is_some_and(|usage| usage.total().is_some()), "{name}");
            let sent: Value = serde_json::to_value(answer.content()).expect("JSON");
            assert_eq!(Some(&sent), json.pointer("/candidates/0/content"), "{name}");
            let _: Content = serde_json::from_value(sent).expect("a turn");
            good += 1;
        } else {
            match outcome {
                Ok(response) => assert!(response.answer().is_err(), "{name}"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Api, "{name}");
                    assert!(error.rpc_status().is_some() && !error.message().is_empty(), "{name}");
                    assert!(!format!("{error} {error:?}").contains("key1234"), "{name}");
                    assert_eq!(error.is_invalid_key(), name.contains("api-key"), "{name}");
                    // The same inside a response that says success.
                    let inside = ask(200, &Value::Null, body).await.expect_err("an error");
                    assert_eq!(inside.status(), error.status(), "{name}");
                }
            }
            bad += 1;
        }
    }
    println!("{good} answers and {bad} failures");
    assert!(good > 0 && bad > 0);
}

#[tokio::test]
async fn error_bodies_classify_as_their_notes_say() {
    let Some(recordings) = recordings() else {
        return;
    };
    let text = std::fs::read_to_string(recordings.join("errors.json")).expect("a file");
    let bodies: Vec<Value> = serde_json::from_str(&text).expect("JSON");
    for recorded in &bodies {
        let id = recorded["id"].as_str().expect("an id");
        let status = recorded["http_status"].as_u64().expect("a status") as u16;
        let body = recorded["body"].as_str().map_or_else(|| recorded["body"].to_string(), str::to_owned);
        let error = ask(status, &recorded["headers"], body).await.expect_err(id);
        let expect = &recorded["expect"];

        assert_eq!(error.kind(), ErrorKind::Api, "{id}");
        let rpc = error.rpc_status().map(gemini::RpcStatus::as_str);
        assert_eq!(rpc, expect["rpc_status"].as_str(), "{id}");
        let code = expect["rpc_code"].as_u64().unwrap_or(status.into());
        assert_eq!(error.status().map(|status| u64::from(status.as_u16())), Some(code), "{id}");
        if let Some(seconds) = expect["min_wait_s"].as_f64() {
            // The notes are rounded to hundredths, up or down.
            let least = Duration::from_secs_f64(seconds - 0.005);
            assert!(error.retry_after().is_some_and(|delay| delay >= least), "{id}: {:?}", error.retry_after());
        }
        assert!(error.to_string().chars().count() < 500, "{id}: {error}");
        let again = expect["retry"] != Value::Bool(false);
        let class = gemini::classify().classify(&Err::<(), _>(error));
        let retried = matches!(class, Some(Class::Transient { .. } | Class::Throttled { .. }));
        assert_eq!(retried, again, "{id}: {class:?}");
    }
    println!("{} errors", bodies.len());
}
