//! The deciding code on its own: no clock, no service, no waiting (laws 12, 13, 19); and when it is not asked.

use std::time::Duration;

use proptest::prelude::*;
use tower_tenacity::{
    Attempt, BoxPolicy, Decision, Policy, Retry, RetryPolicy, StopReason,
    classify::{self, Class, Classify},
    stop, wait,
};

/// Every failure is throttled, with this hint.
#[derive(Clone, Copy)]
struct Hint(Duration);

impl<Res, E> Classify<Res, E> for Hint {
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        outcome.is_err().then_some(Class::Throttled { retry_after: Some(self.0) })
    }
}

fn decide<P: Policy<(), (), &'static str, Keep = tower_tenacity::keep::Cloned>>(
    policy: &mut P,
    attempt: &Attempt,
) -> Decision {
    policy.decide(attempt, Some(&mut ()), &mut Err("failed"))
}

fn durations() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0_u64..4, 0_u32..1_000_000_000).prop_map(|(secs, nanos)| Duration::new(secs, nanos)),
        (0_u64..100_000).prop_map(Duration::from_secs),
        // As long as settings are told apart: 584 years.
        (0_u64..18_446_744_073).prop_map(Duration::from_secs),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_hint_is_obeyed_within_its_bounds_or_ends_the_call(
        asked in prop_oneof![durations(), any::<u64>().prop_map(Duration::from_secs)], bound in durations(), left in proptest::option::of(durations()), number in 1_u32..=u32::MAX,
    ) {
        let policy = RetryPolicy::new().stop(stop::never()).wait(wait::fixed(Duration::from_millis(7)));
        let mut policy = policy.classify(Hint(asked)).max_server_delay(bound);
        let attempt = Attempt::new(number).with_time_left(left);
        match decide(&mut policy, &attempt) {
            Decision::Retry { after } if asked.is_zero() => prop_assert_eq!(after, Duration::from_millis(7)),
            Decision::Retry { after } => {
                prop_assert!(asked <= bound);
                prop_assert!(after >= asked, "never shortened");
                prop_assert!(after <= asked.saturating_add(asked / 10), "a tenth more at most");
                prop_assert!(left.is_none_or(|left| after < left), "and never past the deadline");
            }
            Decision::GiveUp(StopReason::ServerDelay { asked: said }) => {
                prop_assert_eq!(said, asked);
                prop_assert!(asked > bound || left.is_some_and(|left| asked >= left));
            }
            Decision::GiveUp(StopReason::Deadline) => {
                prop_assert!(asked.is_zero() && left.is_some_and(|left| left <= Duration::from_millis(7)));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn the_waits_of_a_call_never_reach_its_timeout(
        timeout in durations(), multiplier in durations(), took in durations(), seed: u64,
    ) {
        let mut policy = RetryPolicy::new()
            .stop(stop::never())
            .wait(wait::floored_jitter().transient(multiplier).max(Duration::MAX).seed(seed))
            .timeout(timeout);
        let mut elapsed = Duration::ZERO;
        for number in 1..64 {
            elapsed = elapsed.saturating_add(took);
            let attempt = Attempt::new(number).with_elapsed(elapsed).with_time_left(Some(timeout.saturating_sub(elapsed)));
            let Decision::Retry { after } = decide(&mut policy, &attempt) else { break };
            elapsed = elapsed.saturating_add(after);
            prop_assert!(elapsed < timeout);
        }
    }
}

#[test]
fn a_boxed_policy_is_a_policy_of_any_origin() {
    let mut boxed: BoxPolicy<(), (), &'static str> = BoxPolicy::new(RetryPolicy::new());
    let copy = boxed.clone();
    let again = boxed.decide(&Attempt::new(1), None, &mut Err("failed"));
    assert_eq!(again, Decision::GiveUp(StopReason::NotReplayable));
    assert!(copy.may_retry(2) && !copy.may_retry(3));
}

#[test]
fn nobodys_opinion_leaves_ok_a_success_and_err_permanent() {
    let mut policy = RetryPolicy::new().classify(classify::retry_if(classify::never()));
    assert_eq!(decide(&mut policy, &Attempt::new(1)), Decision::GiveUp(StopReason::Permanent));
    let mut fine: Result<(), &str> = Ok(());
    assert_eq!(policy.decide(&Attempt::new(1), Some(&mut ()), &mut fine), Decision::Return);
}

#[test]
fn a_policy_that_is_switched_off_hands_everything_back() {
    let mut policy = RetryPolicy::new().enabled(false).timeout(Duration::from_secs(1));
    assert_eq!(decide(&mut policy, &Attempt::new(1)), Decision::Return);
    assert!(!Policy::<(), (), &str>::may_retry(&policy, 1));
    assert_eq!(Policy::<(), (), &str>::timeout(&policy), None);
    assert!(!Policy::<(), (), &str>::is_timed(&policy));
}

#[test]
fn parts_can_be_named_in_a_struct_field() {
    struct Client {
        plain: RetryPolicy,
        patient: RetryPolicy<stop::AfterAttempt, wait::Exponential>,
        boxed: BoxPolicy<String, u32, std::io::Error>,
    }
    let client = Client {
        plain: RetryPolicy::default(),
        patient: RetryPolicy::new().wait(wait::exponential()),
        boxed: RetryPolicy::new().classify(classify::retry_if(classify::error_type::<std::io::Error, _>())).boxed(),
    };
    assert!(format!("{:?} {:?} {:?}", client.plain, client.patient, client.boxed).contains("AfterAttempt"));
}

#[test]
fn what_is_longer_than_584_years_is_no_limit() {
    let mut policy =
        RetryPolicy::new().classify(Hint(Duration::MAX)).max_server_delay(Duration::MAX).timeout(Duration::MAX);
    assert_eq!(Policy::<(), (), &str>::timeout(&policy), None);
    assert_eq!(decide(&mut policy, &Attempt::new(1)), Decision::Retry { after: Duration::MAX });
}

#[tokio::test]
async fn a_response_that_is_accepted_is_not_decided_about_and_an_error_always_is() {
    use tower::{ServiceExt, service_fn};

    #[derive(Clone)]
    struct AcceptsEven;

    impl Policy<u32, u32, u32> for AcceptsEven {
        type Keep = tower_tenacity::keep::Cloned;

        fn keep(&self) -> Self::Keep {
            tower_tenacity::keep::Cloned
        }

        fn accepts(&mut self, response: &u32) -> bool {
            response % 2 == 0
        }

        fn decide(&mut self, _: &Attempt, _: Option<&mut u32>, outcome: &mut Result<u32, u32>) -> Decision {
            *outcome = outcome.map(|response| response + 100);
            Decision::Return
        }
    }

    let echo = |answer: Result<u32, u32>| Retry::new(AcceptsEven, service_fn(move |_: u32| async move { answer }));
    assert_eq!(echo(Ok(2)).oneshot(0).await, Ok(2));
    assert_eq!(echo(Ok(3)).oneshot(0).await, Ok(103));
    assert_eq!(echo(Err(4)).oneshot(0).await, Err(4));
}

#[tokio::test]
async fn successes_are_told_to_those_who_watch_them() {
    use std::sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    };
    use tower::{ServiceExt, service_fn};
    use tower_tenacity::hooks::Observer;

    #[derive(Clone, Default)]
    struct Successes(Arc<AtomicU32>);

    impl<Res, E> Observer<Res, E> for Successes {
        fn succeeded(&self, _: &Attempt, _: &Result<Res, E>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    let successes = Successes::default();
    let policy = RetryPolicy::new().on_give_up(|_: &Attempt, _: &Result<u32, ()>, _| {}).observe(successes.clone());
    let service = Retry::new(policy, service_fn(|request: u32| async move { Ok::<_, ()>(request) }));
    assert_eq!(service.oneshot(1).await, Ok(1));
    assert_eq!(successes.0.load(Ordering::Relaxed), 1);
}
