//! The crate's own deciding code as a client of the simulation: nothing of it is copied here.

use std::time::Duration;

use tokio::time::Instant;
use tower_tenacity::{
    Attempt, Decision, Policy, RetryPolicy,
    classify::{self, Class},
    keep::Cloned,
    policy::budget::Purse,
    stop, wait,
};

use super::engine::{Client, Outcome};

type Classify = fn(&Result<(), Outcome>) -> Class;
type Settings<B> = RetryPolicy<stop::AfterAttempt, wait::FlooredJitter, classify::By<Classify>, (), Cloned, B>;

fn class(outcome: &Result<(), Outcome>) -> Class {
    if outcome.is_ok() { Class::Success } else { Class::transient() }
}

/// A process with one policy.
pub struct Ours<B> {
    policy: Settings<B>,
    epoch: Instant,
}

impl<B> Ours<B> {
    pub fn new(policy: RetryPolicy<stop::AfterAttempt, wait::FlooredJitter, classify::Errors, (), Cloned, B>) -> Self {
        Self { policy: policy.classify(classify::by(class as Classify)), epoch: Instant::now() }
    }
}

impl<B: Purse<()>> Client for Ours<B> {
    type Call = Settings<B>;

    fn begin(&mut self, _: u64) -> Settings<B> {
        Policy::<(), (), Outcome>::begin(&self.policy, &())
    }

    fn after(&mut self, call: &mut Settings<B>, now: u64, attempt: u32, elapsed: u64, outcome: Outcome) -> Option<u64> {
        let attempt = Attempt::new(attempt)
            .with_elapsed(Duration::from_nanos(elapsed))
            .with_now(self.epoch + Duration::from_nanos(now));
        let mut outcome = if outcome == Outcome::Answered { Ok(()) } else { Err(outcome) };
        match Policy::<(), _, _>::decide(call, &attempt, Some(&mut ()), &mut outcome) {
            Decision::Retry { after } => Some(after.as_nanos() as u64),
            Decision::Return | Decision::GiveUp(_) => None,
        }
    }

    fn resend(&mut self, call: &mut Settings<B>) {
        Policy::<(), (), Outcome>::before_attempt(call, &Attempt::new(2), &mut ());
    }
}
