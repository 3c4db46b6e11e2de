//! How is a service of one's own retried, and how does one see what happened?

use std::{
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
use tower_tenacity::{Attempt, RetryLayer, RetryPolicy, classify, hooks::Delay, stop, wait};

#[derive(Debug, PartialEq)]
enum ShopError {
    Busy,
    SoldOut,
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let shop = service_fn(|item: &'static str| async move {
        match CALLS.fetch_add(1, Ordering::Relaxed) {
            0 | 1 => Err(ShopError::Busy),
            _ if item == "gloves" => Err(ShopError::SoldOut),
            _ => Ok(format!("one {item}")),
        }
    });

    let policy = RetryPolicy::new()
        .stop(stop::after_attempt(5) | stop::before_delay(Duration::from_secs(10)))
        .wait(wait::exponential().multiplier(Duration::from_millis(50)).max(Duration::from_secs(1)).full_jitter())
        .classify(classify::retry_if(|outcome: &Result<String, ShopError>| *outcome == Err(ShopError::Busy)))
        .before_sleep(|attempt: &Attempt, outcome: &Result<String, ShopError>, delay: &Delay| {
            println!("attempt {}: {outcome:?}, again in {:?}", attempt.number(), delay.duration());
        });
    let mut shop = ServiceBuilder::new().layer(RetryLayer::new(policy).detailed()).service(shop);

    for item in ["hat", "gloves"] {
        let shop = shop.ready().await.expect("a closure is always ready");
        match shop.call(item).await {
            Ok(got) => println!("got {got}"),
            Err(error) => println!("{error}; the last error was {:?}", error.last()),
        }
    }
}
