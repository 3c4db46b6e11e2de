//! More places for the preset for HTTP, beside those of `http_stacks.rs`: erased services, a proxy whose bodies stream both ways,
//! bodies in the manner of tonic, all of the crate's own layers at once, reqwest.
#![cfg(feature = "http")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Router,
    body::Body as AxumBody,
    extract::{Request, State},
    response::IntoResponse,
    routing,
};
use bytes::Bytes;
use http::{HeaderMap, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{
    BodyExt, Empty, Full,
    combinators::{BoxBody, UnsyncBoxBody},
};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::net::{TcpListener, TcpSocket};
use tower::{
    BoxError, Layer, Service, ServiceBuilder, ServiceExt, service_fn,
    util::{BoxCloneService, BoxCloneSyncService, BoxCloneSyncServiceLayer, BoxService},
};
use tower_tenacity::{
    Retry, RetryError, RetryLayer, RetryPolicy,
    body::{CollectBodyLayer, ReplayBody, ReplayBodyLayer, ReplayBodyService},
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer},
    cooldown::CooldownLayer,
    policy::{
        budget::Budget,
        http::{self as http_policy, HttpPolicy},
    },
    timeout::AttemptTimeoutLayer,
    wait,
};

/// A stack whose state is leaked can be called in a task and in a handler, where the compiler asks more of its types.
#[tokio::test(start_paused = true)]
async fn what_is_leaked_can_be_called_in_tasks_and_handlers() {
    let budget: &'static Budget = Budget::standard().leak();
    let client = ServiceBuilder::new()
        .layer(RetryLayer::new(RetryPolicy::http().budget(budget)))
        .layer(CooldownLayer::http().leak())
        .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).classify(http_policy::classify()).leak())
        .service(service_fn(|_: http::Request<String>| async {
            Ok::<_, std::io::Error>(Response::new("here".to_owned()))
        }));
    fits::<_, http::Request<String>>(&client);
    let erased = BoxCloneSyncService::new(client.clone());
    let app = Router::new().route(
        "/",
        routing::get(move || {
            let client = erased.clone();
            async move { client.oneshot(http::Request::default()).await.map(Response::into_body).unwrap_or_default() }
        }),
    );
    let response = app.oneshot(http::Request::new(AxumBody::empty())).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);

    let numbers = Retry::new(
        RetryPolicy::new().budget(budget),
        service_fn(|number: u32| async move { Ok::<_, std::io::Error>(number) }),
    );
    assert_eq!(tokio::spawn(async move { numbers.oneshot(1).await.unwrap() }).await.unwrap(), 1);
    // Whoever holds a budget longer than its policy can lend it.
    let own = Budget::standard();
    let lent = RetryPolicy::new().budget(&own);
    assert!(lent.run(|_| async { Err::<(), _>("down") }).await.is_err());
    assert_eq!(own.available(tokio::time::Instant::now()), 0);
}

fn fits<S, Req>(_: &S)
where
    S: Service<Req> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
}

/// Answers every first and second request of three with 503, the third with its body.
fn thirds<B>() -> (
    impl Service<http::Request<B>, Response = Response<Full<Bytes>>, Error = Infallible, Future: Send> + Clone,
    Arc<AtomicU32>,
)
where
    B: Body<Data = Bytes, Error: fmt::Debug> + Send + 'static,
{
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let service = service_fn(move |request: http::Request<B>| {
        let call = counted.fetch_add(1, Relaxed) + 1;
        async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            let status = if call % 3 == 0 { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Ok(Response::builder().status(status).body(Full::new(body)).unwrap())
        }
    });
    (service, calls)
}

async fn text<B: Body<Error: fmt::Debug>>(response: Response<B>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

fn put<B>(uri: &str, body: B) -> http::Request<B> {
    http::Request::put(uri).body(body).unwrap()
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("http://{address}")
}

#[tokio::test(start_paused = true)]
async fn in_a_service_whose_type_is_erased() {
    let (inner, calls) = thirds();
    let stack = || ServiceBuilder::new().layer(RetryLayer::new(RetryPolicy::http()));
    let cloned: BoxCloneService<http::Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible> =
        BoxCloneService::new(stack().service(inner.clone()));
    let boxed: BoxService<http::Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible> =
        BoxService::new(stack().service(inner.clone()));
    fits::<_, http::Request<Full<Bytes>>>(&cloned);
    assert_eq!(text(cloned.clone().oneshot(put("/", Full::from("one"))).await.unwrap()).await, (200, "one".into()));
    assert_eq!(text(boxed.oneshot(put("/", Full::from("two"))).await.unwrap()).await, (200, "two".into()));
    // The other way round: an erased service inside, and an erased policy.
    let outside = stack().service(cloned);
    assert_eq!(text(outside.oneshot(put("/", Full::from("three"))).await.unwrap()).await, (200, "three".into()));
    let policy = RetryPolicy::http().boxed::<http::Request<Full<Bytes>>, Response<Full<Bytes>>, Infallible>();
    let service = RetryLayer::new(policy).layer(inner);
    assert_eq!(text(service.oneshot(put("/", Full::from("four"))).await.unwrap()).await, (200, "four".into()));
    assert_eq!(calls.load(Relaxed), 12);
}

#[tokio::test]
async fn in_an_erased_service_that_handlers_share() {
    type Shared = BoxCloneSyncService<http::Request<Empty<Bytes>>, Response<Incoming>, BoxError>;
    async fn front(State((client, uri)): State<(Shared, String)>) -> Result<Response<AxumBody>, StatusCode> {
        let request = http::Request::get(uri).body(Empty::new()).unwrap();
        let response = client.oneshot(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
        Ok(response.map(AxumBody::new))
    }
    let (inner, calls) = thirds::<AxumBody>();
    let back = serve(Router::new().route_service("/", inner)).await;
    // A layer whose type is erased as well.
    let layer: BoxCloneSyncServiceLayer<_, http::Request<Empty<Bytes>>, Response<Incoming>, BoxError> =
        BoxCloneSyncServiceLayer::new(
            ServiceBuilder::new()
                .layer(RetryLayer::new(RetryPolicy::http().wait(wait::none())))
                .layer(AttemptTimeoutLayer::http(Duration::from_secs(20))),
        );
    let client: Client<HttpConnector, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let shared: Shared = layer.layer(client);
    let app = Router::new().route("/", routing::get(front)).with_state((shared, format!("{back}/")));
    let response = app.oneshot(http::Request::get("/").body(AxumBody::empty()).unwrap()).await.unwrap();
    assert_eq!((response.status(), calls.load(Relaxed)), (StatusCode::OK, 3));
}

#[tokio::test]
async fn in_a_proxy_whose_bodies_stream_both_ways() {
    type Upstream = ReplayBodyService<Retry<HttpPolicy, Client<HttpConnector, ReplayBody<AxumBody>>>>;
    async fn proxy(State((upstream, to)): State<(Upstream, String)>, mut request: Request) -> axum::response::Response {
        *request.uri_mut() = format!("{to}{}", request.uri()).parse().unwrap();
        match upstream.oneshot(request).await {
            Ok(response) => response.map(AxumBody::new),
            Err(_) => StatusCode::BAD_GATEWAY.into_response(),
        }
    }
    let (inner, calls) = thirds::<AxumBody>();
    let back = serve(Router::new().fallback_service(inner)).await;
    let upstream: Upstream = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::http()))
        .service(Client::builder(TokioExecutor::new()).build_http());
    let front = serve(Router::new().fallback(proxy).with_state((upstream, back))).await;

    let client: Client<HttpConnector, UnsyncBoxBody<Bytes, Infallible>> =
        Client::builder(TokioExecutor::new()).build_http();
    let response = client.request(put(&format!("{front}/a?b=c"), pieces(["one ", "two ", "three"]))).await.unwrap();
    assert_eq!(text(response).await, (200, "one two three".to_owned()));
    assert_eq!(calls.load(Relaxed), 3);
}

/// A body in pieces that cannot be cloned.
fn pieces<const N: usize>(pieces: [&'static str; N]) -> UnsyncBoxBody<Bytes, Infallible> {
    Frames(pieces.map(|piece| Frame::data(Bytes::from(piece))).into()).boxed_unsync()
}

struct Frames(VecDeque<Frame<Bytes>>);

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(Ok))
    }
}

/// What tonic's bodies and errors look like: boxed, not `Sync`, with trailers and an error of its own.
#[derive(Debug)]
struct Status(&'static str);
type GrpcBody = UnsyncBoxBody<Bytes, Status>;

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for Status {}

fn to_grpc<B>(body: B) -> GrpcBody
where
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    body.map_err(|_| Status("the body failed")).boxed_unsync()
}

#[tokio::test(start_paused = true)]
async fn around_a_channel_in_the_manner_of_tonic() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = calls.clone();
    let channel = service_fn(move |request: http::Request<GrpcBody>| {
        let call = counted.fetch_add(1, Relaxed);
        async move {
            let collected = request.into_body().collect().await?;
            let tag = collected.trailers().map(|trailers| trailers["x-tag"].clone());
            let mut response = Response::new(to_grpc(Full::new(collected.to_bytes())));
            response.headers_mut().extend(tag.map(|tag| (http::HeaderName::from_static("x-tag"), tag)));
            if call < 2 {
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            }
            Ok::<_, Status>(response)
        }
    });
    // What tonic's generated clients ask of the service they are given.
    fn generated<S, B>(service: S) -> S
    where
        S: Service<http::Request<GrpcBody>, Response = Response<B>, Error: Into<BoxError>> + Clone + Send + 'static,
        B: Body<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
        S::Future: Send,
    {
        service
    }
    let service = generated(
        ServiceBuilder::new()
            .layer(ReplayBodyLayer::new(64 * 1024))
            .layer(RetryLayer::new(RetryPolicy::http()))
            .map_request(|request: http::Request<ReplayBody<GrpcBody>>| request.map(to_grpc))
            .service(channel),
    );
    let mut trailers = HeaderMap::new();
    trailers.insert("x-tag", "seven".parse().unwrap());
    let frames = [Frame::data(Bytes::from("hello ")), Frame::data(Bytes::from("world")), Frame::trailers(trailers)];
    let mut request = http::Request::post("/shop.Shop/Order").body(to_grpc(Frames(frames.into()))).unwrap();
    request.extensions_mut().insert(http_policy::Idempotent(true));
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.headers()["x-tag"], "seven", "the trailers went along each time");
    assert_eq!(text(response).await, (200, "hello world".to_owned()));
    assert_eq!(calls.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn above_all_the_other_layers() {
    let (inner, calls) = thirds::<ReplayBody<AxumBody>>();
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(1024))
        .layer(RetryLayer::new(RetryPolicy::http()).detailed())
        .layer(CooldownLayer::http())
        .layer(CircuitBreakerLayer::new(BreakerPolicy::new()).classify(http_policy::classify()))
        .layer(AttemptTimeoutLayer::http(Duration::from_secs(1)))
        .layer(CollectBodyLayer::new(1024))
        .buffer(4)
        .load_shed()
        .concurrency_limit(2)
        .timeout(Duration::from_secs(2))
        .service(inner);
    fits::<_, http::Request<AxumBody>>(&service);
    let response = service.oneshot(put("/", AxumBody::from("seven"))).await.map_err(RetryError::erase).unwrap();
    assert_eq!(text(response).await, (200, "seven".to_owned()));
    assert_eq!(calls.load(Relaxed), 3);
}

#[tokio::test(start_paused = true)]
async fn in_a_layer_that_may_be_missing() {
    for (retries, status) in [(true, 200), (false, 503)] {
        let (inner, _) = thirds::<Full<Bytes>>();
        let layer = retries.then(|| RetryLayer::new(RetryPolicy::http()));
        let service = ServiceBuilder::new().option_layer(layer).service(inner);
        fits::<_, http::Request<Full<Bytes>>>(&service);
        let response = service.oneshot(put("/", Full::from("seven"))).await.unwrap();
        assert_eq!(text(response).await, (status, "seven".to_owned()));
    }
}

#[tokio::test]
async fn around_the_client_of_reqwest() {
    // reqwest asks for `Sync`, which axum's own bodies are not.
    type SyncBody = BoxBody<Bytes, Infallible>;
    const FRAMES: [Bytes; 2] = [Bytes::from_static(b"one "), Bytes::from_static(b"two")];
    let client = reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build().unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let service = ServiceBuilder::new()
        .layer(ReplayBodyLayer::new(64 * 1024))
        .layer(RetryLayer::new(RetryPolicy::http().wait(wait::none())))
        .service(service_fn(move |request: http::Request<ReplayBody<SyncBody>>| {
            counted.fetch_add(1, Relaxed);
            let client = client.clone();
            async move {
                let request = reqwest::Request::try_from(request.map(reqwest::Body::wrap))?;
                client.execute(request).await.map(Response::from)
            }
        }));
    fits::<_, http::Request<SyncBody>>(&service);

    let (inner, calls) = thirds::<AxumBody>();
    let back = serve(Router::new().fallback_service(inner)).await;
    let response =
        service.clone().oneshot(put(&back, BodyExt::boxed(Frames(FRAMES.map(Frame::data).into())))).await.unwrap();
    assert_eq!(text(response).await, (200, "one two".to_owned()));
    assert_eq!((attempts.swap(0, Relaxed), calls.load(Relaxed)), (3, 3));
}

#[tokio::test]
async fn an_order_goes_out_through_reqwest_once_a_connection_is_made() {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let uri = format!("http://{}/", socket.local_addr().unwrap());
    let client = reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build().unwrap();
    let attempts = Arc::new(AtomicU32::new(0));
    let counted = attempts.clone();
    let service = RetryLayer::new(RetryPolicy::http().wait(wait::none())).layer(service_fn(
        move |request: http::Request<String>| {
            counted.fetch_add(1, Relaxed);
            let client = client.clone();
            async move { client.execute(request.try_into()?).await.map(Response::from) }
        },
    ));
    let error = service.clone().oneshot(http::Request::post(&uri).body("a hat".to_owned()).unwrap()).await.unwrap_err();
    assert!(error.is_connect());
    assert_eq!(attempts.swap(0, Relaxed), 3, "a refused connection proves that the order never arrived");

    // One that was cut off does not.
    let listener = socket.listen(8).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = tokio::io::AsyncReadExt::read(&mut stream, &mut [0; 1024]).await;
        }
    });
    service.oneshot(http::Request::post(&uri).body("a hat".to_owned()).unwrap()).await.unwrap_err();
    assert_eq!(attempts.load(Relaxed), 1);
}
