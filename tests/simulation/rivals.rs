//! What others do, written for this simulation only. Sources and versions: see each.

use super::engine::{Client, MILLISECOND, Outcome, SECOND};

fn failed(outcome: Outcome) -> bool {
    outcome != Outcome::Answered
}

fn full_jitter(random: &mut fastrand::Rng, base: u64, cap: u64, retry: u32) -> u64 {
    let ceiling = base.saturating_mul(1 << (retry - 1).min(30)).min(cap);
    (random.f64() * ceiling as f64) as u64
}

/// A budget, and a wait: most rivals are that. `attempts` in all, the first included.
#[derive(Clone, Debug)]
pub struct Rival<B> {
    pub attempts: u32,
    pub wait: Wait,
    pub budget: B,
    random: fastrand::Rng,
}

#[derive(Clone, Copy, Debug)]
pub enum Wait {
    /// Uniform below `base · 2^(retry − 1)`, at most the cap.
    Full { base: u64, cap: u64 },
    /// `base · 2^(retry − 1)`, at most the cap: no jitter.
    Exponential { base: u64, cap: u64 },
    /// ± 20 % around `base · 2^(retry − 1)`.
    Fifth { base: u64, cap: u64 },
}

/// What decides whether a retry is paid for.
pub trait Purse {
    fn called(&mut self, now: u64);
    fn settled(&mut self, now: u64, outcome: Outcome, retried: bool);
    fn pay(&mut self, now: u64, outcome: Outcome) -> bool;
    fn ended(&mut self) {}
}

impl<B: Purse> Rival<B> {
    pub fn new(attempts: u32, wait: Wait, budget: B, seed: u64) -> Self {
        Self { attempts, wait, budget, random: fastrand::Rng::with_seed(seed) }
    }
}

impl<B: Purse> Client for Rival<B> {
    type Call = ();

    fn begin(&mut self, now: u64) {
        self.budget.called(now);
    }

    fn after(&mut self, (): &mut (), now: u64, attempt: u32, _: u64, outcome: Outcome) -> Option<u64> {
        self.budget.settled(now, outcome, attempt > 1);
        if !failed(outcome) || attempt >= self.attempts || !self.budget.pay(now, outcome) {
            return None;
        }
        let power = |base: u64, cap: u64| base.saturating_mul(1 << (attempt - 1).min(30)).min(cap);
        Some(match self.wait {
            Wait::Full { base, cap } => full_jitter(&mut self.random, base, cap, attempt),
            Wait::Exponential { base, cap } => power(base, cap),
            Wait::Fifth { base, cap } => (power(base, cap) as f64 * (0.8 + 0.4 * self.random.f64())) as u64,
        })
    }

    fn end(&mut self, (): &mut ()) {
        self.budget.ended();
    }
}

/// Every retry is paid for.
#[derive(Clone, Debug)]
pub struct Unlimited;

impl Purse for Unlimited {
    fn called(&mut self, _: u64) {}
    fn settled(&mut self, _: u64, _: Outcome, _: bool) {}
    fn pay(&mut self, _: u64, _: Outcome) -> bool {
        true
    }
}

/// gRPC A6, retry throttling: tokens up to `max`; a failure takes one, a success gives `ratio`; retries only above half.
#[derive(Clone, Debug)]
pub struct GrpcThrottle {
    pub max: f64,
    pub ratio: f64,
    pub tokens: f64,
}

impl GrpcThrottle {
    pub fn example() -> Self {
        Self { max: 10.0, ratio: 0.1, tokens: 10.0 }
    }
}

impl Purse for GrpcThrottle {
    fn called(&mut self, _: u64) {}

    fn settled(&mut self, _: u64, outcome: Outcome, _: bool) {
        let change = if failed(outcome) { -1.0 } else { self.ratio };
        self.tokens = (self.tokens + change).clamp(0.0, self.max);
    }

    fn pay(&mut self, _: u64, _: Outcome) -> bool {
        self.tokens > self.max / 2.0
    }
}

/// AWS 2.1: a quota of 500, a retry costs 14; a success gives back what its last retry cost, or 1.
#[derive(Clone, Debug)]
pub struct AwsQuota {
    pub tokens: u32,
}

impl AwsQuota {
    pub fn new() -> Self {
        Self { tokens: 500 }
    }
}

impl Purse for AwsQuota {
    fn called(&mut self, _: u64) {}

    fn settled(&mut self, _: u64, outcome: Outcome, retried: bool) {
        if !failed(outcome) {
            self.tokens = (self.tokens + if retried { 14 } else { 1 }).min(500);
        }
    }

    fn pay(&mut self, _: u64, _: Outcome) -> bool {
        let enough = self.tokens >= 14;
        if enough {
            self.tokens -= 14;
        }
        enough
    }
}

/// Finagle's budget and tower's `TpsBudget::default()`: ten seconds, 20 % of calls and ten retries a second.
#[derive(Clone, Debug)]
pub struct TpsBudget {
    // By the second: calls · 0.2 − retries.
    slots: [(u64, f64); 10],
}

impl TpsBudget {
    pub fn new() -> Self {
        Self { slots: [(u64::MAX, 0.0); 10] }
    }

    fn slot(&mut self, now: u64) -> &mut f64 {
        let second = now / SECOND;
        let slot = &mut self.slots[(second % 10) as usize];
        if slot.0 != second {
            *slot = (second, 0.0);
        }
        &mut slot.1
    }
}

impl Purse for TpsBudget {
    fn called(&mut self, now: u64) {
        *self.slot(now) += 0.2;
    }

    fn settled(&mut self, _: u64, _: Outcome, _: bool) {}

    fn pay(&mut self, now: u64, _: Outcome) -> bool {
        let second = now / SECOND;
        let sum: f64 = self.slots.iter().filter(|(at, _)| *at != u64::MAX && at + 10 > second).map(|slot| slot.1).sum();
        let enough = 10.0 * 10.0 + sum >= 1.0;
        if enough {
            *self.slot(now) -= 1.0;
        }
        enough
    }
}

/// Envoy: retries under way are at most 20 % of the calls under way, and at least three.
#[derive(Clone, Debug, Default)]
pub struct Concurrent {
    calls: i64,
    retries: i64,
}

impl Purse for Concurrent {
    fn called(&mut self, _: u64) {
        self.calls += 1;
    }

    fn settled(&mut self, _: u64, _: Outcome, retried: bool) {
        if retried {
            self.retries -= 1;
        }
    }

    fn pay(&mut self, _: u64, _: Outcome) -> bool {
        let allowed = (self.calls / 5).max(3);
        let enough = self.retries < allowed;
        if enough {
            self.retries += 1;
        }
        enough
    }

    fn ended(&mut self) {
        self.calls -= 1;
    }
}

/// A retry costs a token of a bucket that successes fill (Brooker 2022): `ratio` each, up to `cap`.
#[derive(Clone, Debug)]
pub struct TokenBucket {
    pub ratio: f64,
    pub cap: f64,
    pub tokens: f64,
}

impl TokenBucket {
    pub fn new(ratio: f64, cap: f64) -> Self {
        Self { ratio, cap, tokens: cap }
    }
}

impl Purse for TokenBucket {
    fn called(&mut self, _: u64) {}

    fn settled(&mut self, _: u64, outcome: Outcome, _: bool) {
        if !failed(outcome) {
            self.tokens = (self.tokens + self.ratio).min(self.cap);
        }
    }

    fn pay(&mut self, _: u64, _: Outcome) -> bool {
        let enough = self.tokens >= 1.0;
        if enough {
            self.tokens -= 1.0;
        }
        enough
    }
}

pub fn no_retries(seed: u64) -> Rival<Unlimited> {
    Rival::new(1, Wait::Full { base: 0, cap: 0 }, Unlimited, seed)
}

/// Three attempts, full jitter from 100 ms, no budget: the control that must fail.
pub fn unbudgeted(seed: u64) -> Rival<Unlimited> {
    Rival::new(3, Wait::Full { base: 100 * MILLISECOND, cap: 20 * SECOND }, Unlimited, seed)
}

/// tenacity as its README shows it: `wait_exponential(multiplier=1, max=…)`, no jitter, three attempts.
pub fn tenacity(seed: u64) -> Rival<Unlimited> {
    Rival::new(3, Wait::Exponential { base: SECOND, cap: 100 * SECOND }, Unlimited, seed)
}

pub fn grpc(seed: u64) -> Rival<GrpcThrottle> {
    Rival::new(3, Wait::Fifth { base: 100 * MILLISECOND, cap: 20 * SECOND }, GrpcThrottle::example(), seed)
}

pub fn aws(seed: u64) -> Rival<AwsQuota> {
    Rival::new(3, Wait::Full { base: 50 * MILLISECOND, cap: 20 * SECOND }, AwsQuota::new(), seed)
}

pub fn tower(seed: u64) -> Rival<TpsBudget> {
    Rival::new(3, Wait::Full { base: 100 * MILLISECOND, cap: 20 * SECOND }, TpsBudget::new(), seed)
}

pub fn envoy(seed: u64) -> Rival<Concurrent> {
    Rival::new(3, Wait::Full { base: 25 * MILLISECOND, cap: 250 * MILLISECOND }, Concurrent::default(), seed)
}
