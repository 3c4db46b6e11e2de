//! How does an axum service retry what it asks of others?

use std::{
    error::Error,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{
    Router,
    extract::{Path, State},
    http::{Request, StatusCode},
    routing::get,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tower::{Layer, ServiceExt};
use tower_tenacity::{Retry, RetryLayer, RetryPolicy, policy::http::HttpPolicy};

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// What handlers work with. Its clones share connections, and the budget of retries.
#[derive(Clone)]
struct App {
    stock: Retry<HttpPolicy, HttpClient>,
    address: SocketAddr,
}

async fn price(State(app): State<App>, Path(item): Path<String>) -> Result<String, StatusCode> {
    let request = Request::get(format!("http://{}/{item}", app.address)).body(Empty::new());
    let request = request.map_err(|_| StatusCode::BAD_REQUEST)?;
    // Up to three attempts; what comes out is the last response or the last error.
    let response = app.stock.oneshot(request).await.map_err(|_| StatusCode::BAD_GATEWAY)?;
    if !response.status().is_success() {
        return Err(StatusCode::BAD_GATEWAY);
    }
    let amount = response.into_body().collect().await.map_err(|_| StatusCode::BAD_GATEWAY)?.to_bytes();
    Ok(format!("{item} costs {}", String::from_utf8_lossy(&amount)))
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let client: HttpClient = Client::builder(TokioExecutor::new()).build_http();
    let stock = RetryLayer::new(RetryPolicy::http()).layer(client.clone());
    let app = App { stock, address: serve(Router::new().route("/{item}", get(stock_of))).await? };
    let shop = serve(Router::new().route("/prices/{item}", get(price)).with_state(app)).await?;

    for item in ["hat", "glove"] {
        let response = client.request(Request::get(format!("http://{shop}/prices/{item}")).body(Empty::new())?).await?;
        let status = response.status();
        let body = response.into_body().collect().await?.to_bytes();
        println!("the shop: {status}, {}", String::from_utf8_lossy(&body));
    }
    Ok(())
}

/// Restarting, for the first two calls.
async fn stock_of(Path(item): Path<String>) -> Result<&'static str, StatusCode> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
    println!("the stock: call {call}, about {item}");
    if call <= 2 { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok("12.50") }
}

async fn serve(app: Router) -> std::io::Result<SocketAddr> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
