//! What a budget does to clients of a server that fails some of its calls: amplification and success, by simulation.

use std::time::Duration;

use tokio::time::Instant;
use tower_tenacity::policy::budget::Budget;

const CLIENTS: usize = 10;
const RATE: f64 = 10.0;
const SECONDS: f64 = 300.0;

struct Seen {
    // Attempts per call, and the share of calls that succeeded in the end.
    amplification: f64,
    success: f64,
}

// Clients of ten calls a second, each with a budget of its own and three attempts at once, for five minutes.
fn simulate(failing: f64, budget: impl Fn() -> Budget) -> Seen {
    let mut random = fastrand::Rng::with_seed(7);
    let birth = Instant::now();
    let (mut calls, mut attempts, mut successes) = (0_u32, 0_u32, 0_u32);
    for budget in (0..CLIENTS).map(|_| budget()) {
        let mut seconds = 0.0;
        while seconds < SECONDS {
            // Poisson arrivals.
            seconds += -(1.0 - random.f64()).ln() / RATE;
            let now = birth + Duration::from_secs_f64(seconds);
            calls += 1;
            for attempt in 1..=3 {
                attempts += 1;
                if random.f64() >= failing {
                    budget.deposit(|| now);
                    successes += 1;
                    break;
                }
                let Some(withdrawal) = (attempt < 3).then(|| budget.withdraw(now)).flatten() else { break };
                withdrawal.spend();
            }
        }
    }
    Seen { amplification: f64::from(attempts) / f64::from(calls), success: f64::from(successes) / f64::from(calls) }
}

#[test]
fn amplification_stays_below_the_closed_form_and_success_above_that_without_retries() {
    for failing in [0.01, 0.05, 0.1, 0.2, 0.5, 0.75, 1.0] {
        let seen = simulate(failing, Budget::standard);
        let bound = 1.0 + 0.1 * seen.success + 2.0 / (RATE * 60.0);
        assert!(seen.amplification <= bound + 0.01, "{failing}: {} attempts per call", seen.amplification);
        assert!(seen.success >= 1.0 - failing - 0.005, "{failing}: {} succeed", seen.success);
    }
}

#[test]
fn a_tenth_of_failures_is_cured_and_a_fifth_only_with_a_ratio_of_its_own() {
    let standard = simulate(0.1, Budget::standard).success;
    assert!(standard >= 0.975, "{standard}");
    let at_a_fifth = [0.1, 0.2].map(|ratio| simulate(0.2, || Budget::new(ratio).expect("a ratio")).success);
    assert!((0.85..0.90).contains(&at_a_fifth[0]), "{at_a_fifth:?}");
    assert!((0.93..0.97).contains(&at_a_fifth[1]), "{at_a_fifth:?}");
}

#[test]
fn a_server_that_is_down_sees_hardly_more_than_the_calls_themselves() {
    let down = simulate(1.0, Budget::standard).amplification;
    assert!(down <= 1.02, "{down}");
    let fleet = simulate(1.0, Budget::fleet).amplification;
    assert!(fleet < down, "{fleet} and {down}");
}

#[tokio::test(start_paused = true)]
async fn a_paused_clock_carries_the_window() {
    let budget = Budget::standard();
    while let Some(withdrawal) = budget.withdraw(Instant::now()) {
        withdrawal.spend();
    }
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(budget.available(Instant::now()), 0);
    tokio::time::advance(Duration::from_millis(1200)).await;
    assert_eq!(budget.available(Instant::now()), 2);
}
