//! A seeded simulation of retries under failure: our own deciding code and what others do, in the same worlds.
//!
//! It shows orderings and bounds. It does not show absolute seconds, which depend on the model: Poisson arrivals, one
//! server with exponential service times, a network that takes 5 ms and loses nothing.
#![allow(dead_code, unreachable_pub)]

pub mod contention;
pub mod engine;
pub mod layers;
pub mod ours;
pub mod rivals;
pub mod scenarios;

use std::time::Duration;

use engine::{Report, World, run};
use ours::Ours;
use tower_tenacity::{RetryPolicy, policy::budget::Budget, stop, wait};

/// A row of the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Player {
    /// The defaults of the ready-made presets.
    Standard,
    /// The same for many small clients.
    Fleet,
    /// The defaults with a ratio of 0.2.
    Generous,
    /// The defaults without a budget.
    Unbudgeted,
    NoRetries,
    Tenacity,
    Grpc,
    Aws,
    Tower,
    Envoy,
}

impl Player {
    pub const ALL: [Self; 10] = [
        Self::Standard,
        Self::Fleet,
        Self::Generous,
        Self::NoRetries,
        Self::Unbudgeted,
        Self::Tenacity,
        Self::Grpc,
        Self::Aws,
        Self::Tower,
        Self::Envoy,
    ];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Standard => "ours, standard budget",
            Self::Fleet => "ours, fleet budget",
            Self::Generous => "ours, ratio 0.2",
            Self::NoRetries => "no retries",
            Self::Unbudgeted => "ours, no budget",
            Self::Tenacity => "tenacity-like, 3 attempts",
            Self::Grpc => "gRPC A6, 10 / 0.1",
            Self::Aws => "AWS 2.1",
            Self::Tower => "tower TpsBudget",
            Self::Envoy => "Envoy, 20 % / 3",
        }
    }

    /// Plays `world` once. `base` is the multiplier of our wait, `attempts` the number of all attempts.
    pub fn play_with(self, world: &World, seed: u64, base: Duration, attempts: u32) -> Report {
        // Where no seed is set, the crate draws from here.
        fastrand::seed(seed);
        let policy =
            || RetryPolicy::new().stop(stop::after_attempt(attempts)).wait(wait::floored_jitter().transient(base));
        let ours = |budget: Budget| Ours::new(policy().budget(budget));
        let of = |client: usize| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(client as u64);
        match self {
            Self::Standard => run(world, seed, |_| ours(Budget::standard())),
            Self::Fleet => run(world, seed, |_| ours(Budget::fleet())),
            Self::Generous => run(world, seed, |_| ours(Budget::new(0.2).expect("a share"))),
            Self::Unbudgeted => run(world, seed, |_| Ours::new(policy())),
            Self::NoRetries => run(world, seed, |client| rivals::no_retries(of(client))),
            Self::Tenacity => run(world, seed, |client| rivals::tenacity(of(client))),
            Self::Grpc => run(world, seed, |client| rivals::grpc(of(client))),
            Self::Aws => run(world, seed, |client| rivals::aws(of(client))),
            Self::Tower => run(world, seed, |client| rivals::tower(of(client))),
            Self::Envoy => run(world, seed, |client| rivals::envoy(of(client))),
        }
    }

    pub fn play(self, world: &World, seed: u64) -> Report {
        self.play_with(world, seed, Duration::from_millis(100), 3)
    }
}
