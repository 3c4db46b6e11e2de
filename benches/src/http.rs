//! Calls with `http::Request`s, and questions to Gemini, over services that answer out of memory.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    io,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::retry::Retry as TowerRetry;
use tower_layer::Layer;
use tower_service::Service;
use tower_tenacity::{
    Retry, RetryLayer, RetryPolicy,
    gemini::{self, Gemini, GenerateContent, RequestBody},
    policy::{budget::Budget, http as ours},
    wait,
};

use crate::{
    contenders::{Attempts, Tps},
    to_the_end,
};

/// In the order of the report. `flat` keeps requests by `FlatCopy`, `ours` is `RetryPolicy::http()`, `cloned` is `RetryPolicy::new()`.
pub const CONTENDERS: [&str; 6] = ["bare", "flat", "ours", "cloned", "tower-min", "tower-tps"];

/// What is sent.
pub type HttpRequest = Request<Full<Bytes>>;

/// Something to be done with a stack over a service that answers with a body `B` or fails with `E`.
pub trait VisitHttp<B, E> {
    type Output;

    fn visit<S>(self, service: S) -> Self::Output
    where
        S: Service<HttpRequest, Response = Response<B>, Error = E, Future: Send> + Clone + Send + 'static;
}

/// Hands the contender of that name, around `inner`, to the visitor. Its first pause is at least `base`.
pub fn visit<S, B, E, V>(name: &str, inner: S, base: Duration, visitor: V) -> V::Output
where
    S: Service<HttpRequest, Response = Response<B>, Error = E, Future: Send> + Clone + Send + 'static,
    B: Body<Data: Send> + Unpin + Send + 'static,
    E: std::error::Error + Send + Sync + 'static,
    V: VisitHttp<B, E>,
{
    let wait = wait::floored_jitter().transient(base);
    let plain = RetryPolicy::new().wait(wait);
    match name {
        "bare" => visitor.visit(inner),
        "flat" => visitor.visit(Retry::new(plain.keep(ours::FlatCopy), inner)),
        "ours" => {
            // So large that it never refuses.
            let budget = Budget::standard().reserve(1_000_000);
            visitor.visit(Retry::new(RetryPolicy::http().wait(wait).budget(budget), inner))
        }
        "cloned" => visitor.visit(Retry::new(plain, inner)),
        "tower-min" => visitor.visit(TowerRetry::new(Attempts::new(), inner)),
        "tower-tps" => visitor.visit(TowerRetry::new(Tps::new(base), inner)),
        _ => panic!("no contender is called {name}"),
    }
}

/// Answers at once with nothing, or fails.
#[derive(Clone, Copy)]
pub struct Server {
    pub fails: bool,
}

impl Service<HttpRequest> for Server {
    type Response = Response<Full<Bytes>>;
    type Error = io::Error;
    type Future = Ready<Result<Self::Response, io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: HttpRequest) -> Self::Future {
        drop(black_box(request));
        ready(if self.fails {
            Err(io::ErrorKind::ConnectionReset.into())
        } else {
            Ok(Response::new(Full::new(Bytes::new())))
        })
    }
}

/// One like those from a client: what is common to all is static, the rest was just written.
pub fn request(number: u64, body: Bytes) -> HttpRequest {
    let mut key = HeaderValue::from_bytes(black_box(b"AIzaSyA-0123456789abcdefghijklmnopqrstu")).expect("letters");
    key.set_sensitive(true);
    let value = |text: &str| HeaderValue::from_str(black_box(text)).expect("letters");
    Request::put(black_box("https://generativelanguage.example.com/v1beta/models/gemini-2.5-flash:generateContent"))
        .header("content-type", value("application/json"))
        .header("accept", value("application/json, text/event-stream"))
        .header("user-agent", value("tower-tenacity-benches/0.0"))
        .header("x-goog-api-key", key)
        .header("x-request-id", HeaderValue::from(number))
        .header("traceparent", value("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"))
        .body(Full::new(body))
        .expect("a request")
}

// Out of line, as `drive::once`.
#[inline(never)]
fn once<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    to_the_end!(service.call(request))
}

/// So many calls with a fresh request of six headers and 512 bytes, one after the other; tells the size of their future.
pub struct Calls(pub u64);

impl<B, E> VisitHttp<B, E> for Calls {
    type Output = usize;

    fn visit<S>(self, mut service: S) -> usize
    where
        S: Service<HttpRequest, Response = Response<B>, Error = E, Future: Send> + Clone + Send + 'static,
    {
        for number in 0..self.0 {
            let request = black_box(request(black_box(number), Bytes::from(vec![b'x'; 512])));
            let _ = black_box(once(black_box(&mut service), request));
        }
        size_of::<S::Future>()
    }
}

/// An answer of Gemini's, of about 1 KB.
pub fn answer() -> Bytes {
    let text = "Paris is the capital of France. ".repeat(30);
    format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}},"finishReason":"STOP"}}]}}"#).into()
}

/// A question of 2 KiB.
pub fn question() -> GenerateContent {
    GenerateContent::new("gemini-2.5-flash").text("What is the capital of France? ".repeat(66))
}

/// Something to be done with a Gemini client, with or without retries.
pub trait VisitGemini<B> {
    type Output;

    fn visit<S>(self, service: S) -> Self::Output
    where
        S: Service<GenerateContent, Response = gemini::GenerateContentResponse, Error = gemini::Error, Future: Send>
            + Clone
            + Send
            + 'static;
}

/// `bare` is the client alone, `ours` with `gemini::policy()`.
pub fn visit_gemini<C, B, E, V>(name: &str, client: Gemini<C>, visitor: V) -> V::Output
where
    C: Service<Request<RequestBody>, Response = Response<B>, Error = E, Future: Send> + Clone + Send + 'static,
    B: Body<Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Send + 'static,
    E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    V: VisitGemini<B>,
{
    match name {
        "bare" => visitor.visit(client),
        "ours" => visitor.visit(RetryLayer::new(gemini::policy()).layer(client)),
        _ => panic!("no contender is called {name}"),
    }
}

#[derive(Clone)]
struct Model(Bytes);

impl Service<Request<RequestBody>> for Model {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> Self::Future {
        drop(black_box(request));
        ready(Ok(Response::new(Full::new(self.0.clone()))))
    }
}

/// So many questions to a model that answers out of memory.
pub fn ask(name: &str, calls: u64) {
    let client = Gemini::with_transport(Model(answer()), "my-key").expect("a client");
    visit_gemini(name, client, Questions(calls));
}

struct Questions(u64);

impl<B> VisitGemini<B> for Questions {
    type Output = ();

    fn visit<S>(self, mut service: S)
    where
        S: Service<GenerateContent, Response = gemini::GenerateContentResponse, Error = gemini::Error, Future: Send>
            + Clone
            + Send
            + 'static,
    {
        for _ in 0..self.0 {
            let question = black_box(question());
            black_box(once(black_box(&mut service), question)).expect("an answer");
        }
    }
}
