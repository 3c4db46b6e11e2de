//! A shortened run of the simulation: what the defaults must achieve in each world. The whole page and its pictures:
//! `cd benches && cargo run --release --bin simulation`.

#[path = "mod.rs"]
mod simulation;

use std::time::Duration;

use simulation::{Player, scenarios};

const PARTIAL: u64 = 30;

#[test]
fn partial_failure_is_amplified_no_more_than_the_bound_says() {
    for (share, success) in [(0.01, 0.999), (0.1, 0.975), (0.2, 0.85), (0.5, 0.5), (1.0, 0.0)] {
        let report = scenarios::partial_failure(Player::Standard, share, PARTIAL, 1);
        // Attempts per call ≤ 1 + r·s + m/(λ·W); within less than a window the reserve counts once.
        let bound = 1.0 + 0.1 * report.success() + 2.0 / (10.0 * PARTIAL as f64);
        assert!(report.amplification() <= bound + 0.001, "{share}: {} > {bound}", report.amplification());
        assert!(report.success() >= success, "{share}: {}", report.success());
    }
}
