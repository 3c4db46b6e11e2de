//! Scenarios 9, 10, 11 and 13: the layers themselves, under a clock that is paused.

use std::{cell::RefCell, future::Future, rc::Rc, time::Duration};

use tokio::{
    runtime::Builder,
    task::{JoinSet, LocalSet},
    time::{Instant, sleep, sleep_until, timeout},
};
use tower::{BoxError, Layer, Service, ServiceExt, service_fn};
use tower_tenacity::{
    Retry, RetryError, RetryLayer, RetryPolicy, StopReason,
    circuit_breaker::{BreakerPolicy, CircuitBreakerLayer, State},
    classify::{self, Class},
    cooldown::CooldownLayer,
    policy::budget::Budget,
    wait,
};

const ROUND_TRIP: Duration = Duration::from_millis(5);

/// Runs it in virtual time; what the crate leaves to chance is drawn from `seed`.
pub fn play<F: Future>(seed: u64, f: impl FnOnce() -> F) -> F::Output {
    fastrand::seed(seed);
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let local = LocalSet::new();
    local.block_on(&runtime, async { f().await })
}

/// Who waits how in [`quota`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller {
    NoRetries,
    /// Three attempts, with our own wait instead of the server's.
    Deaf,
    /// Three attempts after the delay the server asks for.
    Obedient,
    /// The same, with a cool-down inside that all calls of a process share.
    Shared,
}

impl Caller {
    pub const ALL: [Self; 4] = [Self::NoRetries, Self::Deaf, Self::Obedient, Self::Shared];

    pub const fn name(self) -> &'static str {
        match self {
            Self::NoRetries => "no retries",
            Self::Deaf => "3 attempts, deaf to the hint",
            Self::Obedient => "3 attempts, as the server asks",
            Self::Shared => "3 attempts and a cool-down",
        }
    }
}

/// What a server with a quota saw.
#[derive(Debug, Default)]
pub struct Quota {
    pub calls: u64,
    pub answered: u64,
    /// Attempts answered with a 429.
    pub refusals: u64,
    /// Retries that came before the moment their own refusal had named.
    pub early: u64,
    /// Refusals by the second.
    pub refusals_at: Vec<u32>,
    window: u64,
    served: u32,
    not_before: Vec<Option<Instant>>,
}

#[derive(Debug)]
struct TooMany {
    retry_after: Duration,
}

impl std::fmt::Display for TooMany {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("429")
    }
}

impl std::error::Error for TooMany {}

fn class(outcome: &Result<(), BoxError>) -> Class {
    match outcome {
        Ok(()) => Class::Success,
        Err(error) => match error.downcast_ref::<TooMany>() {
            Some(refused) => Class::throttled(Some(refused.retry_after)),
            None => Class::Permanent,
        },
    }
}

fn deaf(outcome: &Result<(), BoxError>) -> Class {
    if class(outcome) == Class::Success { Class::Success } else { Class::throttled(None) }
}

/// Windows of a minute for 60 calls each.
const WINDOW: u64 = 60;
const ALLOWED: u32 = 60;
/// How long [`quota`] goes on: six bursts, and the time to catch up.
pub const QUOTA_SECONDS: u64 = 1800;

/// 9: a quota of 60 calls in each window of 60 s, with a `Retry-After` to its end in whole seconds. One call every two
/// seconds, and for 25 s of every five minutes three a second, three times what the quota allows; a deadline of 180 s.
pub fn quota(caller: Caller, processes: usize, seed: u64) -> Quota {
    play(seed, || async move {
        let server = Rc::new(RefCell::new(Quota::default()));
        let begun = Instant::now();
        let seen = server.clone();
        let api = service_fn(move |call: usize| {
            let server = seen.clone();
            async move {
                sleep(ROUND_TRIP / 2).await;
                let answer = server.borrow_mut().answer(call, begun);
                sleep(ROUND_TRIP / 2).await;
                answer.map_err(|retry_after| BoxError::from(TooMany { retry_after }))
            }
        });
        let patient = || RetryPolicy::new().wait(wait::floored_jitter()).timeout(Duration::from_secs(180));
        let mut calls = JoinSet::new();
        let mut random = fastrand::Rng::with_seed(seed);
        let shared: Vec<_> = (0..processes)
            .map(|_| CooldownLayer::new(classify::by(class)).max_wait(Duration::from_secs(180)).layer(api.clone()))
            .collect();
        let (mut at, mut number) = (Duration::ZERO, 0);
        loop {
            let burst = (60..85).contains(&(at.as_secs() % 300));
            let rate = if burst { 3.0 } else { 0.5 };
            at += Duration::from_secs_f64(-(1.0 - random.f64()).ln() / rate);
            if at.as_secs() >= QUOTA_SECONDS {
                break;
            }
            let (api, shared, call) = (api.clone(), shared[random.usize(..processes)].clone(), number);
            number += 1;
            calls.spawn_local(async move {
                sleep_until(begun + at).await;
                match caller {
                    Caller::NoRetries => api.oneshot(call).await,
                    Caller::Deaf => Retry::new(patient().classify(classify::by(deaf)), api).oneshot(call).await,
                    Caller::Obedient => Retry::new(patient().classify(classify::by(class)), api).oneshot(call).await,
                    Caller::Shared => Retry::new(patient().classify(classify::by(class)), shared).oneshot(call).await,
                }
                .is_ok_and(|()| begun.elapsed() - at <= Duration::from_secs(180))
            });
        }
        let answered = calls.join_all().await.into_iter().filter(|answered| *answered).count();
        Quota { calls: number as u64, answered: answered as u64, ..server.take() }
    })
}

impl Quota {
    fn answer(&mut self, call: usize, begun: Instant) -> Result<(), Duration> {
        let now = Instant::now();
        let elapsed = now - begun;
        if self.not_before.len() <= call {
            self.not_before.resize(call + 1, None);
        }
        self.early += u64::from(self.not_before[call].is_some_and(|moment| now < moment));
        let window = elapsed.as_secs() / WINDOW;
        if window != self.window {
            (self.window, self.served) = (window, 0);
        }
        if self.served < ALLOWED {
            self.served += 1;
            return Ok(());
        }
        let left = (Duration::from_secs((window + 1) * WINDOW) - elapsed).as_secs_f64().ceil();
        let retry_after = Duration::from_secs_f64(left);
        self.not_before[call] = Some(now + retry_after);
        self.refusals += 1;
        let second = elapsed.as_secs() as usize;
        if self.refusals_at.len() <= second {
            self.refusals_at.resize(second + 1, 0);
        }
        self.refusals_at[second] += 1;
        Err(retry_after)
    }

    /// The share of calls answered within their deadline.
    pub fn success(&self) -> f64 {
        self.answered as f64 / self.calls.max(1) as f64
    }
}

/// 10: the server asks for `hint`, the caller has `deadline`. How long the call took, attempts, and the hint that is read
/// from the error.
pub fn long_hint(hint: Duration, deadline: Duration) -> (Duration, u32, Option<Duration>) {
    play(1, || async move {
        let throttled = move |_: &Result<(), &str>| Class::throttled(Some(hint));
        let api = service_fn(|()| async {
            sleep(ROUND_TRIP).await;
            Err::<(), _>("429")
        });
        let policy = RetryPolicy::new().timeout(deadline).classify(classify::by(throttled));
        let begun = Instant::now();
        let error: RetryError<&str> =
            RetryLayer::new(policy).detailed().layer(api).oneshot(()).await.expect_err("a 429");
        let asked = match error.reason() {
            StopReason::ServerDelay { asked } => Some(asked),
            _ => None,
        };
        (begun.elapsed(), error.attempts(), asked)
    })
}

/// 11: a hundred calls a second for `seconds`, of which `share` fail at once: the share that succeeds through a breaker with
/// its defaults.
pub fn breaker(share: f64, seconds: u64, seed: u64) -> f64 {
    play(seed, || async move {
        let api = service_fn(|failed: bool| async move { if failed { Err::<(), _>("broken") } else { Ok(()) } });
        let mut service = CircuitBreakerLayer::new(BreakerPolicy::new()).layer(api);
        let mut random = fastrand::Rng::with_seed(seed);
        let (mut answered, calls) = (0, seconds * 100);
        for _ in 0..calls {
            let failed = random.f64() < share;
            answered += u64::from(service.ready().await.expect("ready").call(failed).await.is_ok());
            sleep(Duration::from_millis(10)).await;
        }
        answered as f64 / calls as f64
    })
}

/// 11: the service fails, then hangs so that every probe is dropped by its caller, then is well again. How long after that
/// the circuit is closed, and how many probes were dropped.
pub fn dropped_probes(seed: u64) -> (Duration, u64) {
    play(seed, || async move {
        let begun = Instant::now();
        let hung = Rc::new(RefCell::new(0));
        let count = hung.clone();
        let api = service_fn(move |()| {
            let count = count.clone();
            async move {
                match begun.elapsed().as_secs() {
                    0..10 => return Err("broken"),
                    10..130 => {
                        *count.borrow_mut() += 1;
                        std::future::pending::<()>().await;
                    }
                    _ => {}
                }
                Ok(())
            }
        });
        let layer = CircuitBreakerLayer::new(BreakerPolicy::new());
        let handle = layer.handle();
        let mut service = layer.layer(api);
        while begun.elapsed() < Duration::from_secs(400) {
            let call = service.ready().await.expect("ready").call(());
            let _ = timeout(Duration::from_millis(50), call).await;
            if begun.elapsed() >= Duration::from_secs(130) && handle.state() == State::Closed {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let hung = *hung.borrow();
        (begun.elapsed().saturating_sub(Duration::from_secs(130)), hung)
    })
}

/// 13: three layers around each other, each with three attempts and a standard budget of its own (or none); ten calls a second,
/// all well for a minute, then all failing for five. Attempts per call while all fails, and in the last minute of it.
pub fn nested(budget: bool, seed: u64) -> (f64, f64) {
    play(seed, || async move {
        let begun = Instant::now();
        let sent = Rc::new(RefCell::new(Vec::<Duration>::new()));
        let seen = sent.clone();
        let api = service_fn(move |()| {
            let seen = seen.clone();
            async move {
                seen.borrow_mut().push(begun.elapsed());
                if begun.elapsed() < Duration::from_secs(60) { Ok(()) } else { Err("down") }
            }
        });
        let policy = || {
            let policy = RetryPolicy::new().wait(wait::floored_jitter());
            let bottomless = || Budget::new(1.0).expect("a share").reserve(u32::MAX);
            policy.budget(if budget { Budget::standard() } else { bottomless() })
        };
        let layer = || RetryLayer::new(policy());
        let stack = layer().layer(layer().layer(layer().layer(api)));
        let mut calls = JoinSet::new();
        for number in 0..3600 {
            let stack = stack.clone();
            calls.spawn_local(async move {
                sleep_until(begun + Duration::from_millis(number * 100)).await;
                stack.oneshot(()).await.is_ok()
            });
        }
        calls.join_all().await;
        let sent = sent.borrow();
        let since = |second: u64| sent.iter().filter(|at| **at >= Duration::from_secs(second)).count() as f64;
        (since(60) / 3000.0, since(300) / 600.0)
    })
}
