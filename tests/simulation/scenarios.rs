//! The scenarios, their numbers, and what is expected of the defaults.

use std::time::Duration;

use super::{
    Player,
    contention::contend,
    engine::{Load, MILLISECOND, Report, SECOND, Span, World, run},
    rivals,
};
use tower_tenacity::{
    Attempt, Random,
    classify::Class,
    wait::{self, Wait},
};

/// Mean and worst over seeds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub mean: f64,
    pub least: f64,
    pub most: f64,
}

pub fn spread(values: impl IntoIterator<Item = f64>) -> Spread {
    let (mut sum, mut count) = (0.0, 0.0);
    let (mut least, mut most) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values {
        sum += value;
        count += 1.0;
        least = least.min(value);
        most = most.max(value);
    }
    Spread { mean: sum / count, least, most }
}

/// 1: 100 clients of 10 calls a second each, of which `share` fail at once; the server has no limits.
pub fn partial_failure(player: Player, share: f64, seconds: u64, seed: u64) -> Report {
    let mut world = World::new(100, Load::Open(1000.0), seconds);
    world.workers = None;
    world.failing = (share, Span::secs(0, u64::MAX / SECOND));
    player.play(&world, seed)
}

/// 2: one client with a call every five seconds, of which a tenth fails.
pub fn lone_client(player: Player, seconds: u64, seed: u64) -> Report {
    let mut world = World::new(1, Load::Open(0.2), seconds);
    world.workers = None;
    world.failing = (0.1, Span::secs(0, u64::MAX / SECOND));
    player.play(&world, seed)
}

/// 3: everything fails at once for two seconds, after a minute in which all is well.
pub fn blip(player: Player, seed: u64) -> Report {
    let mut world = World::new(100, Load::Open(700.0), 80);
    world.failing = (1.0, Span::secs(60, 62));
    player.play_with(&world, seed, Duration::from_secs(1), 3)
}

/// 4: everything fails at once for five seconds.
pub fn outage(player: Player, base: Duration, seed: u64) -> Report {
    let mut world = World::new(100, Load::Open(700.0), 100);
    world.queue = 500;
    world.failing = (1.0, Span::secs(60, 65));
    player.play_with(&world, seed, base, 3)
}

/// When the trigger of [`metastable`] ends, in seconds.
pub const TRIGGERED: usize = 140;
/// How long [`metastable`] goes on.
pub const WATCHED: usize = 500;

/// 5 and 6: the server does 30 % of its work for ten seconds and goes on with what nobody waits for any more.
pub fn metastable(player: Player, clients: usize, load: f64, attempts: u32, seed: u64) -> Report {
    metastable_until(WATCHED, player, clients, load, attempts, seed)
}

/// The same for a while.
pub fn metastable_until(until: usize, player: Player, clients: usize, load: f64, attempts: u32, seed: u64) -> Report {
    let mut world = World::new(clients, Load::Open(load), until as u64);
    world.slowed = (0.3, Span::secs(TRIGGERED as u64 - 10, TRIGGERED as u64));
    player.play_with(&world, seed, Duration::from_millis(100), attempts)
}

fn herd_world() -> World {
    let mut world = World::new(5000, Load::Herd(5000), 1);
    world.queue = 200;
    world.failing = (1.0, Span { from: 0, until: SECOND / 2 });
    world.deadline = 600 * SECOND;
    world.attempt_timeout = 10 * SECOND;
    world
}

/// 7: 5000 calls at once, to a server that is down for half a second; up to 30 attempts, our wait, no budget.
pub fn herd(seed: u64) -> Report {
    Player::Unbudgeted.play_with(&herd_world(), seed, Duration::from_secs(2), 30)
}

/// The same without jitter, up to 8 s.
pub fn herd_without_jitter(seed: u64) -> Report {
    let wait = rivals::Wait::Exponential { base: 2 * SECOND, cap: 8 * SECOND };
    run(&herd_world(), seed, |_| rivals::Rival::new(30, wait, rivals::Unlimited, seed))
}

/// How long to wait after this many failures.
pub type Delay = dyn Fn(u32, &mut Random) -> Duration;

/// 8: clients that write the same thing; milliseconds until all are done, and writes.
pub fn contention(clients: usize, seed: u64, delay: &Delay) -> (f64, u64) {
    // Where no seed is set, the crate draws from here.
    fastrand::seed(seed);
    contend(clients, seed, |failures| delay(failures, &mut Random::from_thread()).as_nanos() as u64)
}

/// The waits of 8, with AWS's numbers: the first ceiling is 10 ms, the cap 2 s.
pub fn waits() -> Vec<(&'static str, Box<Delay>)> {
    fn of(wait: impl Wait<(), ()> + 'static) -> Box<Delay> {
        Box::new(move |failures, random| wait.delay(&Attempt::new(failures), Class::transient(), &Err(()), random))
    }
    let exponential = || wait::exponential().multiplier(Duration::from_millis(10)).max(Duration::from_secs(2));
    let ours = wait::floored_jitter().transient(Duration::from_millis(10));
    vec![
        ("ours, floored jitter", of(ours.min(Duration::from_millis(5)).max(Duration::from_secs(2)))),
        ("full jitter", of(exponential().full_jitter())),
        ("equal jitter", of(exponential().equal_jitter())),
        ("no jitter", of(exponential())),
    ]
}

/// 14: 200 workers with one call at a time; the server is what limits them.
pub fn closed_loop(player: Player, seconds: u64, seed: u64) -> Report {
    player.play(&World::new(200, Load::Closed(200), seconds), seed)
}

/// 15: the server becomes twenty times as slow for good, and answers in the end.
pub fn slow_server(player: Player, seconds: u64, seed: u64) -> Report {
    let mut world = World::new(100, Load::Open(700.0), seconds);
    world.slowed = (0.05, Span::secs(60, u64::MAX / SECOND));
    world.service = 10 * MILLISECOND;
    player.play(&world, seed)
}
