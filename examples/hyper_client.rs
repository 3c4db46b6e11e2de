//! How does hyper's client outlast an overloaded server and a rate limit?

use std::{
    error::Error,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    http::{Request, Response, StatusCode},
    response::IntoResponse,
    routing::put,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, Error as ClientError, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{ServiceBuilder, ServiceExt};
use tower_tenacity::{Attempt, RetryLayer, RetryPolicy, hooks::Delay};

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let shop = shop().await?;

    let policy = RetryPolicy::http().before_sleep(
        |attempt: &Attempt, outcome: &Result<Response<Incoming>, ClientError>, delay: &Delay| {
            let why = match outcome {
                Ok(response) => response.status().to_string(),
                Err(error) => error.to_string(),
            };
            let asked = if delay.server_hint().is_some() { ", as the server asks" } else { "" };
            println!("attempt {}: {why}, again in {:?}{asked}", attempt.number(), delay.duration());
        },
    );
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let client = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(client);

    // A PUT may be repeated. A POST would not be, unless it has an `Idempotency-Key` or never reached the server.
    let request = Request::put(format!("http://{shop}/baskets/7")).body(Full::from("a hat"))?;
    let response = client.oneshot(request).await?;
    let status = response.status();
    let body = response.into_body().collect().await?.to_bytes();
    println!("{status}: {}", String::from_utf8_lossy(&body));
    Ok(())
}

/// Overloaded at first, then of the opinion that it is asked too often, then content.
async fn shop() -> std::io::Result<SocketAddr> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    async fn basket(item: String) -> impl IntoResponse {
        match CALLS.fetch_add(1, Ordering::Relaxed) {
            0 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            1 => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "1")]).into_response(),
            _ => format!("{item} is in the basket").into_response(),
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/baskets/{number}", put(basket));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
