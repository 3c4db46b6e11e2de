//! A shortened run of the simulation: what the defaults must achieve in each world, and that what must fail fails.
//!
//! The whole page and its pictures: `cd benches && cargo run --release --features paused --bin simulation`.

#[cfg(feature = "http")]
mod layers_http;
#[path = "mod.rs"]
mod simulation;

use std::time::{Duration, SystemTime};

use simulation::{
    Player,
    engine::{Report, SECOND},
    layers::{self, Caller},
    scenarios::{self, TRIGGERED, contention, spread},
};
use tower_tenacity::{
    Attempt, Decision, Policy, RetryPolicy, StopReason,
    classify::{self, Class},
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
        assert!(report.peak(65, 80) <= 1000, "{base} ms: above the capacity with {}", report.peak(65, 80));
        let unbudgeted = scenarios::outage(Player::Unbudgeted, Duration::from_millis(base), 1);
        assert!(unbudgeted.amplification_in(60, 65) > report.amplification_in(60, 65), "{base} ms");
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

#[test]
fn a_quota_that_is_shared_costs_few_refusals() {
    for (processes, refusals) in [(1, 20), (20, 250)] {
        let shared = layers::quota(Caller::Shared, processes, 1);
        assert!(shared.success() >= 0.98, "{processes}: {}", shared.success());
        assert!(shared.refusals <= refusals, "{processes}: {} refusals", shared.refusals);
        assert_eq!(shared.early, 0, "{processes}");
        let alone = layers::quota(Caller::Obedient, processes, 1);
        assert_eq!(alone.early, 0, "{processes}");
        assert!(alone.refusals > 5 * shared.refusals / if processes == 1 { 1 } else { 4 }, "{}", alone.refusals);
        let deaf = layers::quota(Caller::Deaf, processes, 1);
        assert!(
            deaf.early > 0 && deaf.success() < 0.95,
            "a control that does as well proves nothing: {}",
            deaf.success()
        );
    }
}

#[test]
fn a_hint_beyond_the_deadline_ends_the_call_at_once() {
    let asked = Duration::from_secs(600);
    let (took, attempts, hint) = layers::long_hint(asked, Duration::from_secs(30));
    assert!(took <= Duration::from_millis(6), "{took:?}");
    assert_eq!((attempts, hint), (1, Some(asked)));
    // One that fits is waited for.
    let (took, attempts, hint) = layers::long_hint(Duration::from_secs(10), Duration::from_secs(60));
    assert!(took >= Duration::from_secs(20) && attempts == 3 && hint.is_none(), "{took:?}");
}

#[test]
fn a_breaker_does_to_a_partial_failure_what_its_documentation_says() {
    assert!(layers::breaker(0.35, 300, 1) >= 0.63, "below its rate it loses nothing");
    for (share, most) in [(0.5, 0.05), (0.75, 0.02)] {
        let answered = layers::breaker(share, 600, 1);
        assert!(answered < most, "{share}: {answered}");
    }
}

#[test]
fn half_open_is_not_stuck_when_probes_are_dropped() {
    let (closed_after, dropped) = layers::dropped_probes(1);
    assert!((3..=100).contains(&dropped), "{dropped} probes");
    assert!(closed_after <= Duration::from_secs(61), "{closed_after:?}");
}

#[test]
fn nested_layers_do_not_multiply() {
    let (_, steady) = layers::nested(true, 1);
    assert!(steady <= 1.33, "{steady}");
    let (all, steady) = layers::nested(false, 1);
    assert!(all > 20.0 && steady > 20.0, "without budgets: {all}, {steady}");
    #[cfg(feature = "http")]
    assert_eq!(layers_http::nested_http(1), 7, "three by the innermost layer, then two for each of the others");
}

// 16: whatever a server asks for, the wait is ours or what it asked for.
fn decided(class: Class) -> Option<Duration> {
    let mut policy = RetryPolicy::new().classify(classify::by(move |_: &Result<(), ()>| class));
    match Policy::<(), (), ()>::decide(&mut policy, &Attempt::new(1), Some(&mut ()), &mut Err(())) {
        Decision::Retry { after } => Some(after),
        Decision::GiveUp(StopReason::ServerDelay { .. }) => None,
        other => panic!("{other:?}"),
    }
}

#[test]
fn absurd_hints_are_no_hints() {
    let own = Duration::from_secs(1)..=Duration::from_secs(20);
    for _ in 0..200 {
        assert!(own.contains(&decided(Class::throttled(None)).unwrap()));
        assert!(own.contains(&decided(Class::throttled(Some(Duration::ZERO))).unwrap()));
        let obeyed = decided(Class::throttled(Some(Duration::from_secs(100)))).unwrap();
        assert!((100.0..=110.0).contains(&obeyed.as_secs_f64()), "{obeyed:?}");
    }
    assert_eq!(decided(Class::throttled(Some(Duration::MAX))), None);
}

#[cfg(feature = "http")]
#[test]
fn absurd_headers_and_clocks_that_jump_are_survived() {
    use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
    use tower_tenacity::policy::http::hints;

    let hour = Duration::from_secs(3600);
    // Sunday, 6 November 1994, 08:49:37 GMT.
    let written = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    for now in [written - hour, written, written + hour, SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH - hour] {
        for name in ["retry-after", "retry-after-ms", "x-ratelimit-reset"] {
            for value in [
                "NaN",
                "-1",
                "1e300",
                "-1e300",
                "inf",
                "0",
                "",
                "99999999999999999999",
                "Sun, 06 Nov 1994 08:49:37 GMT",
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
                let hint = hints::retry_after(StatusCode::TOO_MANY_REQUESTS, &headers, || now);
                match decided(Class::throttled(hint)) {
                    Some(wait) => assert!(wait <= Duration::from_secs(330), "{name}: {value}: {wait:?}"),
                    None => {
                        assert!(hint.is_some_and(|hint| hint > Duration::from_secs(300)), "{name}: {value}: {hint:?}");
                    }
                }
            }
        }
    }
}
