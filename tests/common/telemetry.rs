//! Services that answer as they are told, and what their answers mean.
#![allow(dead_code, unreachable_pub)]

use std::{
    collections::BTreeMap,
    future::pending,
    sync::{Arc, Mutex},
    time::Duration,
};

use tower::{BoxError, Service, ServiceExt, service_fn};
use tower_tenacity::classify::Class;

/// The request says how it goes: what comes of each attempt, in letters.
pub fn service() -> impl Service<&'static str, Response = (), Error = char, Future: Send> + Clone {
    let calls = Arc::new(Mutex::new(BTreeMap::<&str, usize>::new()));
    service_fn(move |script: &'static str| {
        let mut calls = calls.lock().unwrap();
        let call = calls.entry(script).or_default();
        let letter = script.chars().nth(*call).expect("an attempt that was not expected");
        *call += 1;
        async move {
            match letter {
                '.' => Ok(()),
                'w' => pending().await,
                letter => Err(letter),
            }
        }
    })
}

pub fn class(outcome: &Result<(), char>) -> Class {
    match outcome {
        Ok(()) => Class::Success,
        Err('t') => Class::throttled(Some(Duration::from_secs(2))),
        Err('l') => Class::throttled(Some(Duration::from_secs(2000))),
        Err('u') => Class::unsent(),
        Err('p') => Class::Permanent,
        Err(_) => Class::transient(),
    }
}

/// A service that answers as it is told.
pub fn answering() -> impl Service<&'static str, Response = (), Error = BoxError, Future: Send> + Clone {
    service_fn(|answer: &'static str| async move {
        tokio::task::yield_now().await;
        match answer {
            "fine" => Ok(()),
            answer => Err(BoxError::from(answer)),
        }
    })
}

pub fn meaning(outcome: &Result<(), BoxError>) -> Class {
    let Err(error) = outcome else { return Class::Success };
    match &*error.to_string() {
        "429" => Class::throttled(None),
        "429 for 10 s" => Class::throttled(Some(Duration::from_secs(10))),
        "429 for 20 s" => Class::throttled(Some(Duration::from_secs(20))),
        _ => Class::transient(),
    }
}

pub fn used_up(outcome: &Result<(), BoxError>) -> Option<Duration> {
    matches!(outcome, Err(error) if error.to_string() == "out").then_some(Duration::from_secs(900))
}

pub async fn call<S>(service: &mut S, answer: &'static str) -> Result<(), BoxError>
where
    S: Service<&'static str, Response = (), Error = BoxError>,
{
    service.ready().await?.call(answer).await
}
