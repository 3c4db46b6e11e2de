//! Stop conditions: tenacity's boundary cases, and how conditions combine.
use std::time::Duration;

use proptest::prelude::*;
use tower_tenacity::{
    Attempt,
    policy::stop::{self, Stop},
};

const SECOND: Duration = Duration::from_secs(1);

fn at(number: u32, elapsed: Duration) -> Attempt {
    Attempt::new(number).with_elapsed(elapsed)
}

#[test]
fn zero_attempts_mean_one() {
    for attempts in [0, 1] {
        let stop = stop::after_attempt(attempts);
        assert!(stop.should_stop(&at(1, Duration::ZERO), Duration::ZERO));
        assert!(stop.is_last(1));
    }
}

#[test]
fn the_boundaries_are_those_of_tenacity() {
    let after = stop::after_delay(10 * SECOND);
    assert!(!after.should_stop(&at(1, 10 * SECOND - Duration::from_nanos(1)), 100 * SECOND));
    assert!(after.should_stop(&at(1, 10 * SECOND), Duration::ZERO));

    let before = stop::before_delay(10 * SECOND);
    assert!(!before.should_stop(&at(1, 7 * SECOND), 3 * SECOND - Duration::from_nanos(1)));
    assert!(before.should_stop(&at(1, 7 * SECOND), 3 * SECOND));
    assert!(before.should_stop(&at(1, 10 * SECOND), Duration::ZERO));
    assert!(before.should_stop(&at(1, Duration::MAX), Duration::MAX));

    assert!(!stop::never().should_stop(&at(u32::MAX, Duration::MAX), Duration::MAX));
}

#[test]
fn only_conditions_on_time_are_timed() {
    let attempts = stop::after_attempt(3);
    assert!(!attempts.is_timed() && !stop::never().is_timed());
    assert!(!(attempts | stop::never()).is_timed());
    assert!((attempts | stop::after_delay(SECOND)).is_timed());
    assert!((stop::before_delay(SECOND) & attempts).is_timed());
    assert!(stop::when(|_| true).is_timed());
}

#[test]
fn the_last_attempt_is_known_where_it_can_be() {
    let attempts = stop::after_attempt(3);
    assert!(!attempts.is_last(2) && attempts.is_last(3) && attempts.is_last(u32::MAX));
    assert!((attempts | stop::after_delay(SECOND)).is_last(3));
    assert!(!(attempts & stop::after_delay(SECOND)).is_last(3));
    assert!((attempts & stop::after_attempt(5)).is_last(5));
    assert!(!(attempts & stop::after_attempt(5)).is_last(3));
}

#[test]
fn conditions_nest() {
    let stop = (stop::after_attempt(5) | stop::never())
        & (stop::after_delay(SECOND)
            | stop::when(|attempt: &Attempt| attempt.waited() > SECOND)
            | stop::before_delay(SECOND) & stop::after_attempt(9));
    let stop = stop | stop;
    assert!(!stop.should_stop(&at(5, Duration::ZERO), Duration::ZERO));
    assert!(stop.should_stop(&at(5, SECOND), Duration::ZERO));
    assert!(stop.should_stop(&at(5, Duration::ZERO).with_waited(2 * SECOND), Duration::ZERO));
    assert!(!stop.should_stop(&at(4, SECOND), Duration::ZERO));
    assert!(format!("{stop:?}").contains("AfterAttempt"));
}

#[test]
fn a_condition_can_be_boxed() {
    let boxed: Box<dyn Stop + Send> = Box::new(stop::after_attempt(2));
    let stop = stop::never() | boxed;
    assert!(stop.is_last(2) && !stop.is_timed());
}

#[test]
fn a_count_is_four_bytes() {
    assert_eq!(size_of_val(&stop::after_attempt(3)), 4);
    assert_eq!(size_of_val(&(stop::after_attempt(3) | stop::never())), 4);
}

proptest! {
    #[test]
    fn a_last_attempt_always_stops(
        count in 0u32..20, number in 1u32..30, elapsed in any::<Duration>(), upcoming in any::<Duration>()
    ) {
        let attempt = at(number, elapsed);
        let any = stop::after_attempt(count) | stop::before_delay(SECOND);
        let all = stop::after_attempt(count) & (stop::after_attempt(4) | stop::after_delay(SECOND));
        prop_assert!(!any.is_last(number) || any.should_stop(&attempt, upcoming));
        prop_assert!(!all.is_last(number) || all.should_stop(&attempt, upcoming));
    }
}
