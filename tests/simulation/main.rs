//! A shortened run of the simulation: what the defaults must achieve in each world, and that what must fail fails.
//!
//! The whole page and its pictures: `cd benches && cargo run --release --bin simulation`.

#[path = "mod.rs"]
mod simulation;

use std::time::Duration;

use simulation::{
    Player,
    engine::{Report, SECOND},
    scenarios::{self, TRIGGERED, contention, spread},
};

#[test]
fn partial_failure_is_amplified_no_more_than_the_bound_says() {
    let seconds = 60;
    for (share, success) in [(0.01, 0.999), (0.1, 0.98), (0.2, 0.86), (0.5, 0.52), (1.0, 0.0)] {
        let report = scenarios::partial_failure(Player::Standard, share, seconds, 1);
        // Attempts per call ≤ 1 + r·s + m/(λ·W).
        let bound = 1.0 + 0.1 * report.success() + 2.0 / (10.0 * seconds as f64);
        assert!(report.amplification() <= bound * 1.01, "{share}: {} > {bound}", report.amplification());
        assert!(report.success() >= success, "{share}: {}", report.success());
        let bare = scenarios::partial_failure(Player::NoRetries, share, seconds, 1);
        assert!(report.success() >= bare.success() - 0.005, "{share}");
    }
}

#[test]
fn a_lone_slow_client_is_served_almost_as_without_a_budget() {
    let success = |player| scenarios::lone_client(player, 20_000, 1).success();
    assert!(success(Player::Standard) >= 0.98);
    assert!(success(Player::Unbudgeted) >= 0.99);
    assert!(success(Player::NoRetries) <= 0.92);
}

#[test]
fn a_blip_of_two_seconds_is_survived_by_most_calls() {
    assert!(scenarios::blip(Player::NoRetries, 1).lost() >= 1300);
    assert!(scenarios::blip(Player::Standard, 1).lost() <= 450);
}

#[test]
fn an_outage_is_not_made_worse() {
    for base in [100, 1000] {
        let report = scenarios::outage(Player::Standard, Duration::from_millis(base), 1);
        assert!(report.amplification_in(60, 65) <= 2.3, "{base} ms: {}", report.amplification_in(60, 65));
        assert!(report.recovery(65, 100).is_some_and(|seconds| seconds <= 2), "{base} ms");
        if base == 100 {
            assert!(report.peak(65, 80) <= 1000, "the default stays below the capacity: {}", report.peak(65, 80));
        }
    }
}

#[test]
fn an_overload_ends_with_the_budget_and_lasts_for_ever_without() {
    let until = TRIGGERED + 70;
    let recovery = |player| scenarios::metastable_until(until, player, 100, 800.0, 3, 1).recovery(TRIGGERED, until);
    assert!(recovery(Player::Standard).is_some_and(|seconds| seconds <= 50));
    assert_eq!(recovery(Player::Unbudgeted), None, "a control that recovers proves nothing");
}

#[test]
fn a_herd_is_spread_out() {
    let report = scenarios::herd(1);
    assert_eq!(report.success(), 1.0);
    assert!(report.amplification() <= 2.7, "{}", report.amplification());
    assert!(report.ended <= 13 * SECOND, "{} s", report.ended / SECOND);
    let first = f64::from(*report.first_retries_at.iter().max().unwrap()) / 5000.0;
    assert!(first <= 0.6, "{first} of the first retries in one second");
    // The 5000 calls themselves arrive at once; after that, in steps of 20 ms.
    let peak = |report: &Report| report.arrivals_20ms.iter().skip(25).copied().max().unwrap();
    assert!(peak(&report) <= peak(&scenarios::herd_without_jitter(1)) / 20, "{}", peak(&report));
}

#[test]
fn contention_takes_fewer_writes_than_full_jitter_and_little_more_time() {
    let waits = scenarios::waits();
    let mean = |index: usize| {
        let runs: Vec<_> = (0..10).map(|seed| contention(100, seed, &*waits[index].1)).collect();
        (spread(runs.iter().map(|run| run.0)).mean, spread(runs.iter().map(|run| run.1 as f64)).mean)
    };
    let (time, writes) = mean(0);
    let (full_time, full_writes) = mean(1);
    assert!(time <= 5300.0 && writes <= 760.0, "{time} ms, {writes}");
    assert!(writes < 0.93 * full_writes && time < 1.1 * full_time, "{full_time} ms, {full_writes}");
}

#[test]
fn where_nothing_fails_the_policy_has_no_effect() {
    let report = scenarios::closed_loop(Player::Standard, 10, 1);
    assert_eq!((report.amplification(), report.success()), (1.0, 1.0));
}

#[test]
fn a_server_that_stays_slow_is_not_flooded() {
    let report = scenarios::slow_server(Player::Standard, 120, 1);
    assert!(report.amplification() <= 1.0 + 0.1 * report.success() + 2.0 / 70.0, "{}", report.amplification());
    assert!(scenarios::slow_server(Player::Unbudgeted, 120, 1).amplification() > 1.8);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let play = |seed| scenarios::partial_failure(Player::Standard, 0.1, 5, seed);
    assert_eq!(play(3).attempts_at, play(3).attempts_at);
    assert_ne!(play(3).attempts_at, play(4).attempts_at);
}
