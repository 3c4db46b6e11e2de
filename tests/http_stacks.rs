//! The preset for HTTP fits where people put it: clients, boxed errors, axum, a client of another make.
#![cfg(feature = "http")]

use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::ready,
    pin::Pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body as AxumBody, extract::State, routing};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{
    Retry, RetryLayer, RetryPolicy,
    body::{ReplayBody, ReplayBodyLayer},
    classify::Boxed,
    policy::{self, http::HttpPolicy},
};

type HyperClient = Client<HttpConnector, Full<Bytes>>;

/// The types of a stack can be named, and so its services be kept in a struct.
#[derive(Clone, Debug)]
struct Api {
    client: Retry<HttpPolicy, HyperClient>,
}

#[derive(Debug)]
struct Buffered {
    policy: HttpPolicy<Boxed>,
}

fn api() -> Api {
    let client = Client::builder(TokioExecutor::new()).build_http();
    Api { client: RetryLayer::new(RetryPolicy::http()).layer(client) }
}

fn fits<S, Req>(_: &S)
where
    S: Service<Req> + Clone + Send + Sync + 'static,
    S::Future: Send + 'static,
{
}

/// Answers the first `failures` requests with 503, the others with their body.
fn failing(failures: u32) -> (Router, Arc<AtomicU32>) {
    async fn answer(
        State((failures, calls)): State<(u32, Arc<AtomicU32>)>,
        body: String,
    ) -> Result<String, StatusCode> {
        if calls.fetch_add(1, Relaxed) < failures { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(body) }
    }
    let calls = Arc::new(AtomicU32::new(0));
    let state = (failures, calls.clone());
    (Router::new().route("/", routing::put(answer).post(answer)).with_state(state), calls)
}

/// A body that comes in pieces and cannot be cloned.
fn streamed() -> AxumBody {
    struct Pieces(std::collections::VecDeque<&'static str>);
    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            // Every piece is waited for once.
            match self.0.pop_front() {
                Some("") => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
                piece => Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from_static(piece.as_bytes()))))),
            }
        }
    }
    AxumBody::new(Pieces(["", "one ", "", "two ", "", "three"].into()))
}

async fn text<B: Body<Error: fmt::Debug>>(response: Response<B>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    address
}

#[tokio::test]
async fn around_the_client_of_hyper_util() {
    let (app, calls) = failing(2);
    let address = serve(app).await;
    let mut api = api();
    fits::<_, Request<Full<Bytes>>>(&api.client);
    let put = Request::put(&address).body(Full::from("seven")).unwrap();
    let response: Result<Response<Incoming>, ClientError> = api.client.ready().await.unwrap().call(put).await;
    assert_eq!(text(response.unwrap()).await, (200, "seven".to_owned()));
    assert_eq!(calls.load(Relaxed), 3);
}

#[tokio::test]
async fn an_order_goes_out_once_a_connection_is_made() {
    // A port on which nobody listens.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let client: HyperClient = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::http().wait(tower_tenacity::wait::none())))
        .map_request(move |request: Request<Full<Bytes>>| {
            counted.fetch_add(1, Relaxed);
            request
        })
        .service(client);
    let error = client.oneshot(Request::post(address).body(Full::from("a hat")).unwrap()).await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(attempts.load(Relaxed), 3, "a refused connection proves that the order never arrived");
}

#[tokio::test(start_paused = true)]
async fn above_layers_that_box_their_errors() {
    let policy = Buffered { policy: RetryPolicy::http() };
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let service =
        ServiceBuilder::new().layer(RetryLayer::new(policy.policy)).buffer(8).timeout(Duration::from_secs(1)).service(
            service_fn(move |request: Request<String>| {
                let call = counted.fetch_add(1, Relaxed);
                async move {
                    if call < 2 {
                        std::future::pending::<()>().await;
                    }
                    Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(request.into_body())))
                }
            }),
        );
    fits::<_, Request<String>>(&service);
    let response: Result<_, BoxError> = service.oneshot(Request::put("/").body("seven".to_owned()).unwrap()).await;
    assert_eq!(text(response.unwrap()).await, (200, "seven".to_owned()));
    assert_eq!(calls.load(Relaxed), 3, "two of them were cut short");
}

#[tokio::test(start_paused = true)]
async fn in_the_layers_of_a_router() {
    let stack =
        || ServiceBuilder::new().layer(ReplayBodyLayer::new(64 * 1024)).layer(RetryLayer::new(RetryPolicy::http()));
    for of_routes_alone in [false, true] {
        let (app, calls) = failing(2);
        let app = if of_routes_alone { app.route_layer(stack()) } else { app.layer(stack()) };
        let response = app.clone().oneshot(Request::put("/").body(streamed()).unwrap()).await.unwrap();
        assert_eq!(text(response).await, (200, "one two three".to_owned()));
        assert_eq!(calls.load(Relaxed), 3);
        let response = app.oneshot(Request::put("/none").body(streamed()).unwrap()).await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
    let (app, calls) = failing(1);
    let response = app.layer(stack()).oneshot(Request::post("/").body(streamed()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), calls.load(Relaxed)), (503, 1), "a POST is not repeated");
    let (app, calls) = failing(1);
    let capped =
        app.layer(ServiceBuilder::new().layer(ReplayBodyLayer::new(5)).layer(RetryLayer::new(RetryPolicy::http())));
    let response = capped.oneshot(Request::put("/").body(streamed()).unwrap()).await.unwrap();
    assert_eq!((response.status().as_u16(), calls.load(Relaxed)), (503, 1), "neither is a body that is too long");
}

#[tokio::test]
async fn in_front_of_a_server() {
    let (app, calls) = failing(2);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}/", listener.local_addr().unwrap());
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::http().wait(tower_tenacity::wait::none())))
        // What an application does to its requests, with a body that is not axum's.
        .map_request(|request: Request<ReplayBody<AxumBody>>| request.map(AxumBody::new))
        .service(app);
    let server = tower::make::Shared::new(service);
    tokio::spawn(async move { axum::serve(listener, server).await });

    let client: HyperClient = Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(Request::put(address).body(Full::from("seven")).unwrap()).await.unwrap();
    assert_eq!(text(response).await, (200, "seven".to_owned()));
    assert_eq!(calls.load(Relaxed), 3);
}

/// A client in the manner of reqwest: a request and a body of its own, with `try_clone` for `Clone`, and an error that says little.
#[derive(Clone, Default)]
struct OtherClient {
    calls: Arc<AtomicU32>,
}

struct OtherRequest {
    body: OtherBody,
}

#[derive(Debug)]
struct OtherError(std::io::Error);

enum OtherBody {
    Whole(Bytes),
    Stream(Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>),
}

impl fmt::Display for OtherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("error sending request")
    }
}

impl Error for OtherError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.0)
    }
}

impl<B> From<Request<B>> for OtherRequest
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    fn from(request: Request<B>) -> Self {
        Self { body: OtherBody::Stream(Box::pin(request.into_body().map_err(Into::into))) }
    }
}

impl Service<OtherRequest> for OtherClient {
    type Response = Response<Full<Bytes>>;
    type Error = OtherError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, OtherError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), OtherError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: OtherRequest) -> Self::Future {
        let call = self.calls.fetch_add(1, Relaxed);
        Box::pin(async move {
            let bytes = match request.body {
                OtherBody::Whole(bytes) => bytes,
                OtherBody::Stream(body) => {
                    let read = body.collect().await;
                    read.map_err(|error| OtherError(std::io::Error::other(error)))?.to_bytes()
                }
            };
            match call {
                0 | 1 => Err(OtherError(std::io::ErrorKind::ConnectionReset.into())),
                _ => Ok(Response::new(Full::new(bytes))),
            }
        })
    }
}

#[tokio::test(start_paused = true)]
async fn around_a_client_of_another_make() {
    let client = OtherClient::default();
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::http()))
        .map_request(|request: Request<ReplayBody<AxumBody>>| OtherRequest::from(request))
        .service(client.clone());
    fits::<_, Request<AxumBody>>(&service);
    let response = service.oneshot(Request::put("/").body(streamed()).unwrap()).await.unwrap();
    assert_eq!(text(response).await, (200, "one two three".to_owned()));
    assert_eq!(client.calls.load(Relaxed), 3);

    // Its own requests are no `http::Request`s: a policy of parts, for which a way of keeping them is written.
    #[derive(Clone)]
    struct TryClone;
    impl tower_tenacity::Keep<OtherRequest> for TryClone {
        type Kept = Bytes;
        fn first(&self, request: OtherRequest) -> (OtherRequest, Option<Bytes>) {
            let kept = match &request.body {
                OtherBody::Whole(bytes) => Some(bytes.clone()),
                OtherBody::Stream(_) => None,
            };
            (request, kept)
        }
        fn again(&self, kept: Bytes, last: bool) -> (OtherRequest, Option<Bytes>) {
            (OtherRequest { body: OtherBody::Whole(kept.clone()) }, (!last).then_some(kept))
        }
    }
    let client = OtherClient::default();
    let policy = RetryPolicy::new().classify(policy::http::classify()).keep(TryClone).hook(policy::http::drain());
    let request = OtherRequest { body: OtherBody::Whole(Bytes::from_static(b"seven")) };
    let response = Retry::new(policy, client.clone()).oneshot(request).await.unwrap();
    assert_eq!(text(response).await, (200, "seven".to_owned()));
    assert_eq!(client.calls.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn nothing_has_to_be_send_but_what_the_caller_sends() {
    // Neither the service nor its future nor the bodies are `Send`.
    let calls = Rc::new(std::cell::Cell::new(0));
    let counted = calls.clone();
    let service = service_fn(move |request: Request<Rc<str>>| {
        counted.set(counted.get() + 1);
        let status = if counted.get() < 3 { 503 } else { 200 };
        ready(Response::builder().status(status).body(Local(request.into_body())))
    });
    let request = Request::put("/").body(Rc::from("seven")).unwrap();
    let response = Retry::new(RetryPolicy::http(), service).oneshot(request).await.unwrap();
    assert_eq!((response.status().as_u16(), calls.get()), (200, 3));
    assert_eq!(&*response.body().0, "seven");
}

struct Local(Rc<str>);

impl Body for Local {
    type Data = Bytes;
    type Error = Rc<str>;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Rc<str>>>> {
        Poll::Ready(None)
    }
}
