//! What does Prometheus see? A service asks an upstream that misbehaves, and exposes what became of it under `/metrics`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::Duration,
};

use ::http::{Request, Response, StatusCode, Uri, header::RETRY_AFTER};
use axum::{Router, extract::State, routing::get};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::task::JoinSet;
use tower::{BoxError, Service, ServiceBuilder, ServiceExt, util::BoxCloneSyncService};
use tower_tenacity::{
    RetryLayer, RetryPolicy,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer},
    cooldown::CooldownLayer,
    policy::{budget::Budget, http},
    telemetry::{BreakerMetrics, CooldownMetrics, Metrics},
    wait,
};

type Prices = BoxCloneSyncService<Request<Full<Bytes>>, Response<Incoming>, BoxError>;

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    // Before anything is observed, as series are registered once.
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &[0.1, 0.5, 1.0, 5.0, 20.0, 60.0])?
        .install_recorder()?;

    let upstream = serve(upstream()).await?;
    let app = Router::new()
        .route("/price", get(price))
        .with_state((prices()?, format!("http://{upstream}/").parse::<Uri>()?))
        .merge(
            Router::new()
                .route("/metrics", get(|recorder: State<PrometheusHandle>| async move { recorder.render() }))
                .with_state(recorder),
        );
    let service = serve(app).await?;

    // Four callers, so that one of them can hold back the others.
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let address = format!("http://{service}/price");
        callers.spawn(async move {
            for _ in 0..20 {
                fetch(&address).await?;
            }
            Ok::<_, BoxError>(())
        });
    }
    while let Some(done) = callers.join_next().await {
        done??;
    }

    let scraped = fetch(&format!("http://{service}/metrics")).await?;
    let mut lines: Vec<_> = scraped.lines().filter(|line| line.starts_with("tower_tenacity")).collect();
    lines.sort_unstable();
    println!(
        "80 requests. Every fifth answer of the upstream is a 503, one a 429 that asks for a second, and from the 50th on all are 503s:"
    );
    println!(
        "a second in which nobody asks, retries that cure the 503s, then an open circuit, and calls that end as it stays open for too long.\n"
    );
    for line in lines {
        println!("{line}");
    }
    Ok(())
}

/// The client, with all of its layers observed under the name `prices`.
fn prices() -> Result<Prices, BoxError> {
    let budget = Budget::standard().reserve(10);
    let policy = RetryPolicy::http()
        .wait(wait::floored_jitter().transient(Duration::from_millis(20)))
        .timeout(Duration::from_secs(3))
        .budget(budget.clone())
        .observe(Metrics::new("prices").budget(&budget));
    let breaker = BreakerPolicy::new().consecutive_failures(5)?;
    let stack = ServiceBuilder::new()
        .layer(RetryLayer::new(policy))
        .layer(CooldownLayer::http().observe(CooldownMetrics::new("prices")))
        .layer(CircuitBreakerLayer::new(breaker).classify(http::classify()).observe(BreakerMetrics::new("prices")))
        .service(Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>());
    Ok(BoxCloneSyncService::new(stack))
}

async fn price(State((mut prices, upstream)): State<(Prices, Uri)>) -> Result<String, StatusCode> {
    let mut request = Request::new(Full::default());
    *request.uri_mut() = upstream;
    let prices = prices.ready().await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    let response = prices.call(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    Ok(response.status().to_string())
}

/// Every fifth request is too much, one asks for a pause, and in the end nothing works any more.
fn upstream() -> Router {
    async fn answer(State(calls): State<Arc<AtomicU32>>) -> Result<&'static str, Response<String>> {
        let refuse = |status: StatusCode, pause: &str| {
            let mut response = Response::new(String::new());
            *response.status_mut() = status;
            response.headers_mut().extend(pause.parse().map(|pause| (RETRY_AFTER, pause)));
            response
        };
        match calls.fetch_add(1, Relaxed) {
            20 => Err(refuse(StatusCode::TOO_MANY_REQUESTS, "1")),
            50.. => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "0")),
            call if call % 5 == 0 => Err(refuse(StatusCode::SERVICE_UNAVAILABLE, "0")),
            _ => Ok("42"),
        }
    }
    Router::new().route("/", get(answer)).with_state(Arc::default())
}

async fn serve(app: Router) -> Result<std::net::SocketAddr, BoxError> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}

async fn fetch(address: &str) -> Result<String, BoxError> {
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let response = client.oneshot(Request::get(address).body(Full::default())?).await?;
    Ok(String::from_utf8(response.into_body().collect().await?.to_bytes().to_vec())?)
}
