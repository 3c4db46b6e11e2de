//! Scenario 13 for HTTP requests, which carry a mark.
#![allow(unreachable_pub)]

use std::{cell::Cell, rc::Rc};

use http::{Request, Response, StatusCode};
use tower::{Layer, ServiceExt, service_fn};
use tower_tenacity::{RetryLayer, RetryPolicy, policy::budget::Budget};

use super::simulation::layers::play;

/// 13 for HTTP: the attempts that one call makes through three layers of three attempts, of which the inner ones see that the
/// request is marked. The budgets pay for everything.
#[allow(unreachable_pub)]
pub fn nested_http(seed: u64) -> u32 {
    play(seed, || async {
        let sent = Rc::new(Cell::new(0));
        let seen = sent.clone();
        let api = service_fn(move |_: Request<String>| {
            seen.set(seen.get() + 1);
            async {
                let mut response = Response::new(String::new());
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                Ok::<_, std::io::Error>(response)
            }
        });
        let layer = || RetryLayer::new(RetryPolicy::http().budget(Budget::standard().reserve(1000)));
        let stack = layer().layer(layer().layer(layer().layer(api)));
        let response = stack.oneshot(Request::new(String::new())).await.expect("a response");
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        sent.get()
    })
}
