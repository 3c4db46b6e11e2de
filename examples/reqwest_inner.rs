//! How is reqwest's client retried with the preset for HTTP?

use std::{
    error::Error,
    net::SocketAddr,
    sync::atomic::{AtomicU32, Ordering},
};

use axum::{Router, http::StatusCode, routing::put};
use tower::{ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{Attempt, RetryLayer, RetryPolicy, hooks::Delay};

type Outcome = Result<http::Response<reqwest::Body>, reqwest::Error>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let shop = shop().await?;
    // One of the two repeats, not both; and what answers here is no proxy.
    let client = reqwest::Client::builder().retry(reqwest::retry::never()).no_proxy().build()?;

    let policy = RetryPolicy::http().before_sleep(|attempt: &Attempt, outcome: &Outcome, delay: &Delay| {
        let status = outcome.as_ref().map(http::Response::status);
        println!("attempt {}: {status:?}, again in {:?}", attempt.number(), delay.duration());
    });
    // The requests and responses of the `http` crate outside, reqwest's own inside.
    let service = ServiceBuilder::new().layer(RetryLayer::new(policy)).service(service_fn(
        move |request: http::Request<String>| {
            let client = client.clone();
            async move { client.execute(request.try_into()?).await.map(http::Response::from) }
        },
    ));

    let request = http::Request::put(format!("http://{shop}/baskets/7")).body("a hat".to_owned())?;
    let response = reqwest::Response::from(service.oneshot(request).await?);
    println!("{}: {}", response.status(), response.text().await?);
    Ok(())
}

/// Restarting, for the first two calls.
async fn shop() -> std::io::Result<SocketAddr> {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    async fn basket(item: String) -> Result<String, StatusCode> {
        match CALLS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(StatusCode::BAD_GATEWAY),
            _ => Ok(format!("{item} is in the basket")),
        }
    }
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let app = Router::new().route("/baskets/{number}", put(basket));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
