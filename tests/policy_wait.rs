//! Waits: tenacity's numbers, bounds for every setting, and jitter where it is promised.
use std::{collections::HashSet, time::Duration};

use proptest::prelude::*;
use tower_tenacity::{
    Attempt, Random,
    classify::Class,
    policy::wait::{self, Wait},
};

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

fn delay_as(wait: &impl Wait<(), ()>, number: u32, class: Class) -> Duration {
    wait.delay(&Attempt::new(number), class, &Err(()), &mut wait.random())
}

fn delay(wait: &impl Wait<(), ()>, number: u32) -> Duration {
    delay_as(wait, number, Class::transient())
}

fn nanos(text: &str) -> Duration {
    let nanos: u128 = text.parse().expect("a whole number");
    let seconds = u64::try_from(nanos / 1_000_000_000).expect("fits");
    Duration::new(seconds, (nanos % 1_000_000_000) as u32)
}

#[test]
fn the_numbers_are_those_of_tenacity() {
    let mut compared = 0;
    for line in include_str!("data/tenacity.tsv").lines() {
        let columns: Vec<&str> = line.split('\t').collect();
        let [kind, first, second, min, max, expected] = columns[..] else {
            assert!(line.starts_with('#'), "{line}");
            continue;
        };
        let (min, max) = (nanos(min), nanos(max));
        let base = || second.parse().expect("a float");
        let wait: Box<dyn Wait<(), ()>> = match kind {
            "exponential" => Box::new(
                wait::exponential().multiplier(nanos(first)).exp_base(base()).expect("valid").min(min).max(max),
            ),
            "exponential_jitter" => Box::new(
                wait::exponential_jitter()
                    .multiplier(nanos(first))
                    .exp_base(base())
                    .expect("valid")
                    .min(min)
                    .max(max)
                    .jitter(Duration::ZERO),
            ),
            "incrementing" => {
                let wait = wait::incrementing().start(nanos(first)).max(max);
                Box::new(match second.strip_prefix('-') {
                    Some(decrement) => wait.decrement(nanos(decrement)),
                    None => wait.increment(nanos(second)),
                })
            }
            "chain" => Box::new(
                wait::chain(3, wait::fixed(3 * SECOND))
                    .then(4, wait::exponential())
                    .then(2, wait::incrementing().start(SECOND).increment(SECOND)),
            ),
            "sum" => Box::new(
                wait::fixed(3 * SECOND)
                    + wait::exponential().max(50 * SECOND)
                    + wait::incrementing().increment(SECOND / 2).max(9 * SECOND),
            ),
            other => panic!("unknown wait {other}"),
        };
        let numbers = (1..=70).chain([1000, 1_000_000, u32::MAX]);
        for (number, expected) in numbers.zip(expected.split(',')) {
            assert_eq!(
                delay(&wait, number),
                nanos(expected),
                "after attempt {number} of {kind} {first} {second}, {min:?} to {max:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 5_000, "{compared}");
}

#[test]
fn the_defaults_are_those_of_tenacity() {
    assert_eq!([1, 2, 3, 11].map(|number| delay(&wait::exponential(), number).as_secs()), [1, 2, 4, 1024]);
    assert_eq!([1, 2, 3].map(|number| delay(&wait::incrementing(), number).as_secs()), [0, 100, 200]);
    assert_eq!(delay(&wait::none(), 9), Duration::ZERO);
    for number in 1..100 {
        let additive = delay(&wait::exponential_jitter(), number);
        let power = delay(&wait::exponential(), number);
        assert!(additive >= power && additive <= power.saturating_add(SECOND));
        assert!(delay(&wait::random_exponential(), number) <= power);
    }
}

#[test]
fn the_default_wait_keeps_its_table() {
    for number in (1..=70).chain([1000, u32::MAX]) {
        for (class, floor) in [(Class::transient(), 100 * MILLISECOND), (Class::throttled(None), SECOND)] {
            let ceiling = floor.saturating_mul(2u32.saturating_pow(number)).min(20 * SECOND);
            for _ in 0..20 {
                let delay = delay_as(&wait::floored_jitter(), number, class);
                assert!(delay >= floor && delay <= ceiling, "{delay:?} after attempt {number}");
            }
        }
    }
}

#[test]
fn bounds_may_come_in_either_order() {
    let random = wait::random(3 * SECOND, SECOND);
    assert!((0..100).all(|_| (SECOND..=3 * SECOND).contains(&delay(&random, 1))));
    let exponential = wait::exponential().min(5 * SECOND).max(SECOND);
    assert_eq!(delay(&exponential, u32::MAX), 5 * SECOND);
}

#[test]
fn a_chain_needs_no_care() {
    let wait = wait::chain(0, wait::fixed(SECOND)).then(0, wait::fixed(2 * SECOND));
    assert_eq!(delay(&wait, 1), 2 * SECOND);
    let wait = wait::chain(u32::MAX, wait::fixed(SECOND)).then(u32::MAX, wait::none()).then(1, wait::none());
    assert_eq!(delay(&wait, u32::MAX), SECOND);
    assert_eq!(delay(&wait::chain(0, wait::fixed(SECOND)), 9), SECOND);
}

#[test]
fn a_wait_can_look_at_the_outcome() {
    let wait = wait::from_outcome(|attempt, outcome: &Result<u64, ()>| {
        SECOND * attempt.number() + Duration::from_secs(outcome.unwrap_or(7))
    }) + wait::fixed(SECOND);
    let delay = wait.delay(&Attempt::new(2), Class::transient(), &Ok(40), &mut Random::from_thread());
    assert_eq!(delay, 43 * SECOND);
    assert!(Wait::<u64, ()>::is_timed(&wait));
    assert!(!Wait::<(), ()>::is_timed(&wait::floored_jitter().equal_jitter()));
}

#[test]
fn a_base_that_is_no_base_is_refused() {
    for base in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        let refused = wait::exponential().exp_base(base).expect_err("no base");
        assert!(refused.to_string().contains("base"), "{refused}");
        assert!(wait::random_exponential().exp_base(base).is_err());
        assert!(wait::exponential_jitter().exp_base(base).is_err());
        assert!(wait::floored_jitter().exp_base(base).is_err());
    }
}

#[test]
fn jitter_survives_at_the_cap() {
    let floored = wait::floored_jitter();
    let delays: HashSet<_> = (0..32).map(|_| delay(&floored, 1000)).collect();
    assert!(delays.len() >= 31);
    assert!(delays.iter().any(|delay| *delay < 15 * SECOND) && delays.iter().any(|delay| *delay > 5 * SECOND));

    let full = wait::exponential().max(10 * SECOND).full_jitter();
    let equal = wait::exponential().max(10 * SECOND).equal_jitter();
    for _ in 0..100 {
        assert!(delay(&full, 1000) <= 10 * SECOND);
        assert!((5 * SECOND..=10 * SECOND).contains(&delay(&equal, 1000)));
    }
}

#[test]
fn calls_that_fail_together_come_back_apart() {
    for base in [1.0, 1.001, 1.5, 2.0, 10.0, 1e300] {
        for multiplier in [MILLISECOND, SECOND, 20 * SECOND, 3600 * SECOND] {
            let wait =
                wait::floored_jitter().transient(multiplier).throttled(multiplier).exp_base(base).expect("valid");
            for class in [Class::transient(), Class::throttled(None)] {
                let delays: HashSet<_> = (0..32).map(|_| delay_as(&wait, 1, class)).collect();
                assert!(delays.len() >= 31, "{} of 32 at {multiplier:?}, {base}", delays.len());
            }
        }
    }
}

#[test]
fn a_seed_repeats_exactly_and_calls_do_not_share_it() {
    let run = |seed| {
        let wait = wait::floored_jitter().seed(seed);
        let copy = wait.clone();
        (1..50).flat_map(|number| [delay(&wait, number), delay(&copy, number)]).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    let first_delays: HashSet<_> = {
        let wait = wait::floored_jitter().seed(7);
        (0..32).map(|_| delay(&wait.clone(), 1)).collect()
    };
    assert!(first_delays.len() >= 31);
}

#[test]
fn a_seed_reaches_every_part_of_a_combination() {
    let run = || {
        let wait = wait::chain(2, wait::random(SECOND, 2 * SECOND) + wait::floored_jitter().seed(3))
            .then(1, wait::exponential().full_jitter())
            .equal_jitter();
        (1..20).map(|number| delay(&wait, number)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn waits_are_small() {
    assert!(size_of_val(&wait::floored_jitter()) <= 72);
    assert!(size_of_val(&wait::exponential()) <= 56);
    assert_eq!(size_of_val(&wait::none()), 16);
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        Just(Duration::ZERO),
        Just(Duration::MAX),
        any::<Duration>(),
        (0u64..100_000_000_000).prop_map(Duration::from_nanos),
    ]
}

fn numbers() -> impl Strategy<Value = u32> {
    prop_oneof![1u32..100, any::<u32>(), Just(u32::MAX)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn every_wait_keeps_its_bounds(
        multiplier in durations(), min in durations(), max in durations(), jitter in durations(),
        base in prop_oneof![Just(2.0), 0.01f64..20.0, Just(f64::MAX), Just(f64::MIN_POSITIVE)],
        number in numbers(),
    ) {
        let upper = max.max(min);
        let exponential = wait::exponential().multiplier(multiplier).min(min).max(max).exp_base(base).expect("valid");
        let ceiling = delay(&exponential, number);
        prop_assert!(ceiling >= min && ceiling <= upper);

        let random = wait::random_exponential().multiplier(multiplier).min(min).max(max).exp_base(base).expect("valid");
        let drawn = delay(&random, number);
        prop_assert!(drawn >= min && drawn <= ceiling);

        let additive = wait::exponential_jitter().multiplier(multiplier).min(min).max(max).jitter(jitter)
            .exp_base(base).expect("valid");
        let drawn = delay(&additive, number);
        prop_assert!(drawn >= ceiling && drawn <= upper);

        let floored = wait::floored_jitter().transient(multiplier).throttled(jitter).max(max).exp_base(base).expect("valid");
        for class in [Class::transient(), Class::throttled(None)] {
            prop_assert!(delay_as(&floored, number, class) <= max);
            // Its settings are kept in 64 bits of nanoseconds.
            let min = min.min(Duration::from_secs(18_446_744_073));
            let drawn = delay_as(&floored.min(min), number, class);
            prop_assert!(drawn >= min && drawn <= upper);
        }

        let incrementing = wait::incrementing().start(multiplier).increment(jitter).max(max);
        prop_assert!(delay(&incrementing, number) <= max);
        prop_assert!(delay(&incrementing.decrement(jitter), number) <= max);

        let between = delay(&wait::random(min, max), number);
        prop_assert!(between >= min.min(max) && between <= upper);

        let full = delay(&exponential.full_jitter(), number);
        prop_assert!(full <= ceiling);
        let equal = delay(&exponential.equal_jitter(), number);
        prop_assert!(equal >= ceiling / 2 && equal <= ceiling);
        let sum = delay(&(wait::fixed(min) + wait::fixed(max)), number);
        prop_assert_eq!(sum, min.saturating_add(max));
    }
}
