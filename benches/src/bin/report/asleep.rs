//! Heap bytes of calls that sleep between two attempts, the task of each included.

use std::time::Duration;

use ::http::Response;
use bytes::Bytes;
use tower_service::Service;
use tower_tenacity_benches::{
    Behaviour, Contender, Visit, drive, heap,
    http::{self, HttpRequest, Server, VisitHttp, request},
    visit,
};

const CALLS: u64 = 100_000;
const HOUR: Duration = Duration::from_secs(3600);

struct Asleep;

impl Visit for Asleep {
    type Output = f64;

    fn visit<C: Contender>(self, mut contender: C) -> f64 {
        drive::runtime().block_on(async {
            let mut tasks = Vec::with_capacity(CALLS as usize);
            let before = heap::asked().held;
            for number in 0..CALLS {
                // The attempt fails, and the call that follows does not.
                let call = contender.call(number);
                tasks.push(tokio::spawn(call));
                tokio::task::yield_now().await;
                let _ = contender.call(number).await;
            }
            let held = (heap::asked().held - before) as f64 / CALLS as f64;
            assert!(tasks.iter().all(|task| !task.is_finished()), "a call does not sleep");
            held
        })
    }
}

impl<B: Send + 'static, E: Send + 'static> VisitHttp<B, E> for Asleep {
    type Output = f64;

    fn visit<S>(self, mut service: S) -> f64
    where
        S: Service<HttpRequest, Response = Response<B>, Error = E, Future: Send> + Clone + Send + 'static,
    {
        let body = Bytes::from(vec![b'x'; 2048]);
        let _shared = body.clone();
        drive::runtime().block_on(async {
            let mut tasks = Vec::with_capacity(CALLS as usize);
            let before = heap::asked().held;
            for number in 0..CALLS {
                let call = service.call(request(number, body.clone()));
                tasks.push(tokio::spawn(call));
                if number % 64 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            tokio::task::yield_now().await;
            let held = (heap::asked().held - before) as f64 / CALLS as f64;
            assert!(tasks.iter().all(|task| !task.is_finished()), "a call does not sleep");
            held
        })
    }
}

pub fn numbers(name: &str) -> f64 {
    visit(name, Behaviour { fails: true, ..Behaviour::default() }.service(), HOUR, Asleep)
}

pub fn http(name: &str) -> f64 {
    http::visit(name, Server { fails: true }, HOUR, Asleep)
}
