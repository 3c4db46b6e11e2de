//! What several tests need: a service that checks its contract.
#![allow(dead_code, unreachable_pub)]

use std::{
    future::{Ready, ready},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    task::{Context, Poll},
};

use tower_service::Service;

/// Fails the first `failures` calls, counts everything, and panics when it is called without having been polled ready.
#[derive(Debug)]
pub struct Strict {
    pub counts: Arc<Counts>,
    failures: u32,
    ready: bool,
}

#[derive(Debug, Default)]
pub struct Counts {
    pub ready: AtomicU32,
    pub calls: AtomicU32,
    pub clones: AtomicU32,
}

impl Counts {
    pub fn get(&self) -> (u32, u32, u32) {
        (self.ready.load(SeqCst), self.calls.load(SeqCst), self.clones.load(SeqCst))
    }
}

impl Strict {
    pub fn failing(failures: u32) -> Self {
        Self { counts: Arc::default(), failures, ready: false }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        self.counts.clones.fetch_add(1, SeqCst);
        Self { counts: self.counts.clone(), failures: self.failures, ready: false }
    }
}

impl<Req> Service<Req> for Strict {
    type Response = u32;
    type Error = std::io::Error;
    type Future = Ready<Result<u32, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        assert!(!self.ready, "polled ready again without a call in between");
        self.ready = true;
        self.counts.ready.fetch_add(1, SeqCst);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        assert!(std::mem::take(&mut self.ready), "called without being ready");
        let call = self.counts.calls.fetch_add(1, SeqCst) + 1;
        ready(if call > self.failures { Ok(call) } else { Err(std::io::Error::other(format!("failure {call}"))) })
    }
}

/// A request that counts its clones.
#[derive(Debug, Default)]
pub struct Counted(pub Arc<AtomicU32>);

impl Counted {
    pub fn new() -> (Self, Arc<AtomicU32>) {
        let request = Self::default();
        let clones = request.0.clone();
        (request, clones)
    }
}

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, SeqCst);
        Self(self.0.clone())
    }
}
