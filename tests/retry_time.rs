//! When attempts are made: delays, hints, deadlines and the order of the hooks (laws 9, 11–13).

mod common;

use std::{
    fmt::Display,
    future::ready,
    sync::{Arc, Mutex},
    time::Duration,
};

use common::Strict;
use tokio::time::{Instant, sleep};
use tower::{Service, ServiceExt, service_fn};
use tower_tenacity::{
    Attempt, CallOptions, Decision, Policy, Random, Retry, RetryPolicy, StopReason,
    classify::{self, Class},
    hooks::{Delay, Observer},
    keep::Cloned,
    policy_fn, stop,
    timeout::Deadline,
    wait,
};

const SECOND: Duration = Duration::from_secs(1);

async fn call<S: Service<Req>, Req>(service: &mut S, request: Req) -> Result<S::Response, S::Error> {
    service.ready().await?.call(request).await
}

/// Every event of a call as a line.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn push(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }
    fn lines(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl<Res, E: Display> Observer<Res, E> for Log {
    fn before_attempt(&self, attempt: &Attempt) {
        self.push(format!("before {}", attempt.number()));
    }
    fn after_attempt(&self, attempt: &Attempt, _: &Result<Res, E>) {
        self.push(format!("after {}", attempt.number()));
    }
    fn before_sleep(&self, attempt: &Attempt, _: &Result<Res, E>, delay: &Delay) {
        self.push(format!("sleep {} for {:?}", attempt.number(), delay.duration()));
    }
    fn gave_up(&self, attempt: &Attempt, _: &Result<Res, E>, reason: StopReason) {
        self.push(format!("gave up {}: {reason}", attempt.number()));
    }
    fn timed_out(&self, attempt: &Attempt) {
        self.push(format!("timed out {}", attempt.number()));
    }
    fn succeeded(&self, attempt: &Attempt, _: &Result<Res, E>) {
        self.push(format!("succeeded {}", attempt.number()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_is_pending_until_the_delay_is_over_and_woken_at_it() {
    let inner = Strict::failing(1);
    let counts = inner.counts.clone();
    let service = Retry::new(RetryPolicy::new().wait(wait::fixed(SECOND)), inner);
    let task = tokio::spawn(service.oneshot(()));
    sleep(Duration::from_millis(999)).await;
    assert_eq!(counts.get().1, 1);
    sleep(Duration::from_millis(1)).await;
    tokio::task::yield_now().await;
    assert_eq!(counts.get().1, 2);
    assert_eq!(task.await.unwrap().unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn hooks_run_in_tenacitys_order_with_its_numbers() {
    // `after` → wait → stop → `before_sleep` → sleep → `before`; `after` also for the last failure.
    let log = Log::default();
    let policy = RetryPolicy::new().stop(stop::after_attempt(3)).wait(wait::exponential()).observe(log.clone());
    call(&mut Retry::new(policy, Strict::failing(9)), ()).await.unwrap_err();
    assert_eq!(
        log.lines(),
        [
            "before 1",
            "after 1",
            "sleep 1 for 1s",
            "before 2",
            "after 2",
            "sleep 2 for 2s",
            "before 3",
            "after 3",
            "gave up 3: the attempts are exhausted",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn success_and_permanent_failure_end_the_story_once() {
    let log = Log::default();
    let policy = RetryPolicy::new().observe(log.clone());
    call(&mut Retry::new(policy, Strict::failing(0)), ()).await.unwrap();
    assert_eq!(log.lines(), ["before 1", "succeeded 1"]);
    let policy = RetryPolicy::new().classify(classify::retry_if(classify::never())).observe(log.clone());
    call(&mut Retry::new(policy, Strict::failing(9)), ()).await.unwrap_err();
    assert_eq!(log.lines(), ["before 1", "gave up 1: the failure is permanent"]);
}

#[tokio::test(start_paused = true)]
async fn each_closure_hook_is_called_at_its_moment() {
    let log = Log::default();
    let [a, b, c, d] = [log.clone(), log.clone(), log.clone(), log.clone()];
    let policy = RetryPolicy::new()
        .wait(wait::fixed(SECOND))
        .before_attempt(move |attempt: &Attempt, request: &mut u32| {
            *request += attempt.number();
            a.push(format!("before {request}"));
        })
        .after_attempt(move |attempt: &Attempt, outcome: &Result<u32, std::io::Error>| {
            b.push(format!("after {} {}", attempt.number(), outcome.is_err()));
        })
        .before_sleep(move |_: &Attempt, _: &Result<u32, std::io::Error>, delay: &Delay| {
            c.push(format!("sleep {:?} {:?}", delay.duration(), delay.server_hint()));
        })
        .on_give_up(move |attempt: &Attempt, _: &Result<u32, std::io::Error>, reason| {
            d.push(format!("gave up {} {reason:?}", attempt.number()));
        });
    call(&mut Retry::new(policy, Strict::failing(9)), 10_u32).await.unwrap_err();
    assert_eq!(
        log.lines(),
        [
            "before 11",
            "after 1 true",
            "sleep 1s None",
            "before 12",
            "after 2 true",
            "sleep 1s None",
            "before 13",
            "after 3 true",
            "gave up 3 Exhausted",
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn amend_changes_what_later_attempts_are_made_from() {
    let seen = Log::default();
    let log = seen.clone();
    let inner = service_fn(move |model: String| {
        log.push(model.clone());
        ready(if model == "small" { Ok(model) } else { Err("overloaded") })
    });
    let policy = RetryPolicy::new().wait(wait::none()).amend(
        |_: &Attempt, model: &mut String, outcome: &Result<String, &str>| {
            if *outcome == Err("overloaded") {
                *model = "small".to_owned();
            }
        },
    );
    assert_eq!(call(&mut Retry::new(policy, inner), "large".to_owned()).await, Ok("small".to_owned()));
    assert_eq!(seen.lines(), ["large", "small"]);
}

fn hinted(hint: Duration) -> impl classify::Classify<u32, std::io::Error> + Clone + std::fmt::Debug {
    #[derive(Clone, Debug)]
    struct Hinted(Duration);
    impl<Res, E> classify::Classify<Res, E> for Hinted {
        fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
            outcome.is_err().then_some(Class::Throttled { retry_after: Some(self.0) })
        }
    }
    Hinted(hint)
}

#[tokio::test(start_paused = true)]
async fn a_server_delay_is_obeyed_never_shortened_and_spread_a_little() {
    let mut delays = Vec::new();
    for _ in 0..32 {
        let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).classify(hinted(10 * SECOND));
        let begun = Instant::now();
        call(&mut Retry::new(policy, Strict::failing(1)), ()).await.unwrap();
        delays.push(begun.elapsed());
    }
    assert!(delays.iter().all(|delay| (10 * SECOND..=11 * SECOND + Duration::from_millis(1)).contains(delay)));
    delays.sort();
    delays.dedup();
    assert!(delays.len() >= 20, "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn the_delay_of_a_request_that_was_never_sent_is_obeyed_like_a_servers() {
    let unsent = |outcome: &Result<u32, std::io::Error>| match outcome {
        Ok(_) => Class::Success,
        Err(_) => Class::Unsent { retry_after: Some(10 * SECOND) },
    };
    let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).classify(classify::by(unsent));
    let begun = Instant::now();
    call(&mut Retry::new(policy, Strict::failing(1)), ()).await.unwrap();
    assert!((10 * SECOND..=11 * SECOND + Duration::from_millis(1)).contains(&begun.elapsed()));
}

#[tokio::test(start_paused = true)]
async fn a_hint_of_zero_leaves_the_wait_to_the_policy() {
    let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).classify(hinted(Duration::ZERO));
    let begun = Instant::now();
    call(&mut Retry::new(policy, Strict::failing(1)), ()).await.unwrap();
    assert_eq!(begun.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_server_delay_beyond_the_bound_or_the_deadline_ends_the_call_at_once() {
    let begun = Instant::now();
    for (hint, policy) in [
        (301, RetryPolicy::new()),
        (11, RetryPolicy::new().max_server_delay(10 * SECOND)),
        (10, RetryPolicy::new().timeout(10 * SECOND)),
        (u64::MAX, RetryPolicy::new()),
    ] {
        let log = Log::default();
        let asked = Duration::from_secs(hint);
        let mut service =
            Retry::new(policy.classify(hinted(asked)).observe(log.clone()), Strict::failing(9)).detailed();
        let error = call(&mut service, ()).await.unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (1, StopReason::ServerDelay { asked }));
        assert_eq!(log.lines().len(), 3);
    }
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn the_bound_of_the_wait_does_not_cut_a_server_delay() {
    let policy = RetryPolicy::new().wait(wait::exponential().max(SECOND)).classify(hinted(200 * SECOND));
    let begun = Instant::now();
    call(&mut Retry::new(policy, Strict::failing(1)), ()).await.unwrap();
    assert!(begun.elapsed() >= 200 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn no_wait_is_started_that_would_end_at_or_past_the_deadline() {
    // Attempts at 0, 2, 4, …: with 7 s the wait that would end at 8 s is not made; with exactly 6 s, nor is that to 6 s.
    for (limit, attempts) in [(7, 4), (6, 3), (1, 1), (0, 1)] {
        let policy = RetryPolicy::new().stop(stop::never()).wait(wait::fixed(2 * SECOND)).timeout(limit * SECOND);
        let begun = Instant::now();
        let error = call(&mut Retry::new(policy, Strict::failing(99)).detailed(), ()).await.unwrap_err();
        assert_eq!((error.attempts(), error.reason()), (attempts, StopReason::Deadline));
        assert_eq!(error.last().unwrap().to_string(), format!("failure {attempts}"));
        assert_eq!(begun.elapsed(), 2 * (attempts - 1) * SECOND);
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_left_is_handed_to_each_attempt() {
    let log = Log::default();
    let seen = log.clone();
    let policy = RetryPolicy::new().wait(wait::fixed(2 * SECOND)).timeout(10 * SECOND).before_attempt(
        move |attempt: &Attempt, _: &mut ()| seen.push(format!("{:?} {:?}", attempt.elapsed(), attempt.time_left())),
    );
    let inner = service_fn(|()| async {
        sleep(SECOND).await;
        Err::<(), _>("failed")
    });
    call(&mut Retry::new(policy, inner), ()).await.unwrap_err();
    assert_eq!(log.lines(), ["0ns Some(10s)", "3s Some(7s)", "6s Some(4s)"]);
}

#[tokio::test(start_paused = true)]
async fn a_detailed_call_is_cut_at_its_deadline_with_its_story() {
    let log = Log::default();
    let inner = service_fn(|n: u32| async move {
        sleep(4 * SECOND).await;
        Err::<(), _>(format!("late {n}"))
    });
    let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).timeout(7 * SECOND).observe(log.clone());
    let begun = Instant::now();
    let error = call(&mut Retry::new(policy, inner).detailed(), 5).await.unwrap_err();
    assert_eq!(begun.elapsed(), 7 * SECOND);
    assert_eq!((error.attempts(), error.reason(), error.last()), (2, StopReason::Deadline, None));
    assert_eq!((error.elapsed(), error.waited()), (7 * SECOND, SECOND));
    let history: Vec<_> = error.history().map(|f| (f.number(), f.elapsed(), f.delay(), f.error())).collect();
    assert_eq!(history, [(1, 4 * SECOND, SECOND, Some(&"late 5".to_owned()))]);
    assert_eq!(log.lines(), ["before 1", "after 1", "sleep 1 for 1s", "before 2", "timed out 2"]);
}

#[tokio::test(start_paused = true)]
async fn a_detailed_call_is_cut_in_a_wait_that_ignores_its_deadline() {
    #[derive(Clone)]
    struct Careless;
    impl<Req: Clone, Res, E> Policy<Req, Res, E> for Careless {
        type Keep = Cloned;
        fn keep(&self) -> Cloned {
            Cloned
        }
        fn decide(&mut self, _: &Attempt, _: Option<&mut Req>, _: &mut Result<Res, E>) -> Decision {
            Decision::Retry { after: 60 * SECOND }
        }
        fn timeout(&self) -> Option<Duration> {
            Some(5 * SECOND)
        }
    }
    let begun = Instant::now();
    let error = call(&mut Retry::new(Careless, Strict::failing(9)).detailed(), ()).await.unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, StopReason::Deadline));
    assert_eq!(begun.elapsed(), 5 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn a_plain_call_is_not_cut() {
    let inner = service_fn(|()| async {
        sleep(60 * SECOND).await;
        Ok::<_, ()>("late")
    });
    let mut service = Retry::new(RetryPolicy::new().timeout(SECOND), inner);
    assert_eq!(call(&mut service, ()).await, Ok("late"));
}

#[tokio::test(start_paused = true)]
async fn the_history_is_bounded() {
    let policy = RetryPolicy::new().stop(stop::after_attempt(100)).wait(wait::none());
    let error = call(&mut Retry::new(policy, Strict::failing(999)).detailed(), ()).await.unwrap_err();
    assert_eq!((error.attempts(), error.history().count(), error.forgotten()), (100, 16, 83));
    assert_eq!(error.history().last().unwrap().number(), 99);
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert_eq!(source, "failure 100");
}

#[tokio::test(start_paused = true)]
async fn a_boxed_error_keeps_its_story_and_its_type() {
    let inner = service_fn(|()| ready(Err::<(), tower::BoxError>(std::io::Error::other("pipe").into())));
    let mut service = Retry::new(RetryPolicy::new().wait(wait::none()), inner).detailed();
    let error: tower::BoxError = call(&mut service, ()).await.unwrap_err().erase().into();
    let mut chain = std::iter::successors(error.source(), |error| error.source());
    assert!(chain.any(|error| error.is::<std::io::Error>()));
}

#[tokio::test(start_paused = true)]
async fn one_request_can_have_its_own_settings() {
    let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).per_request(|attempts: &u32| match attempts {
        0 => CallOptions::new().enabled(false),
        1 => CallOptions::new(),
        n => CallOptions::new().max_attempts(*n),
    });
    for (request, calls) in [(0, 1), (1, 3), (2, 2), (7, 7)] {
        let inner = Strict::failing(99);
        let counts = inner.counts.clone();
        call(&mut Retry::new(policy.clone(), inner), request).await.unwrap_err();
        assert_eq!(counts.get().1, calls);
    }
    let policy = RetryPolicy::new().wait(wait::fixed(SECOND)).per_request(|_: &u32| CallOptions::new().timeout(SECOND));
    let error = call(&mut Retry::new(policy, Strict::failing(99)).detailed(), 1).await.unwrap_err();
    assert_eq!((error.attempts(), error.reason()), (1, StopReason::Deadline));
}

#[tokio::test(start_paused = true)]
async fn no_timeout_makes_a_deadline_later() {
    let deadline = Deadline::after(5 * SECOND);
    for (options, limit) in [
        (CallOptions::new().deadline(deadline).timeout(60 * SECOND), 5),
        (CallOptions::new().timeout(60 * SECOND).deadline(deadline), 5),
        (CallOptions::new().deadline(deadline).timeout(Duration::MAX), 5),
        (CallOptions::new().deadline(deadline).timeout(2 * SECOND), 2),
        (CallOptions::new().timeout(2 * SECOND).timeout(60 * SECOND), 60),
    ] {
        let policy = RetryPolicy::new().per_request(move |_: &()| options);
        let call = Policy::<(), (), &str>::begin(&policy, &());
        assert_eq!(Policy::<(), (), &str>::timeout(&call), Some(limit * SECOND));
    }
}

#[tokio::test(start_paused = true)]
async fn a_boxed_policy_decides_as_the_one_inside() {
    let log = Log::default();
    let policy = RetryPolicy::new().wait(wait::exponential()).timeout(60 * SECOND).observe(log.clone());
    let begun = Instant::now();
    let boxed = policy.boxed::<String, u32, std::io::Error>();
    assert!(format!("{boxed:?}").contains("RetryPolicy"));
    assert_eq!(call(&mut Retry::new(boxed, Strict::failing(2)), "x".to_owned()).await.unwrap(), 3);
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!(log.lines().last().unwrap(), "succeeded 3");
}

#[tokio::test(start_paused = true)]
async fn a_custom_policy_is_a_trait_or_a_closure() {
    #[derive(Clone)]
    struct Twice;
    impl<Req: Clone, Res, E> Policy<Req, Res, E> for Twice {
        type Keep = Cloned;
        fn keep(&self) -> Cloned {
            Cloned
        }
        fn decide(&mut self, attempt: &Attempt, _: Option<&mut Req>, outcome: &mut Result<Res, E>) -> Decision {
            match outcome {
                Err(_) if attempt.number() < 2 => Decision::Retry { after: SECOND },
                _ => Decision::Return,
            }
        }
    }
    assert_eq!(call(&mut Retry::new(Twice, Strict::failing(1)), 1_u8).await.unwrap(), 2);

    let policy = policy_fn(|attempt: &Attempt, request: &mut u8, outcome: &mut Result<u32, std::io::Error>| {
        *request += 1;
        match outcome {
            Ok(_) => Decision::Return,
            Err(_) if attempt.waited() < 3 * SECOND => Decision::Retry { after: SECOND },
            Err(_) => Decision::GiveUp(StopReason::Other("waited long enough")),
        }
    });
    let error = call(&mut Retry::new(policy, Strict::failing(9)).detailed(), 1_u8).await.unwrap_err();
    assert_eq!(error.to_string(), "gave up after 4 attempts: waited long enough");
    assert_eq!(error.waited(), 3 * SECOND);
}

#[tokio::test(start_paused = true)]
async fn run_retries_a_closure() {
    let begun = Instant::now();
    let numbers = Mutex::new(Vec::new());
    let policy = RetryPolicy::new().wait(wait::exponential());
    let answer = policy
        .run(|attempt| {
            numbers.lock().unwrap().push((attempt.number(), attempt.waited()));
            async move { if attempt.number() < 3 { Err("no") } else { Ok("yes") } }
        })
        .await;
    assert_eq!(answer, Ok("yes"));
    assert_eq!(begun.elapsed(), 3 * SECOND);
    assert_eq!(*numbers.lock().unwrap(), [(1, Duration::ZERO), (2, SECOND), (3, 3 * SECOND)]);
    let boxed = RetryPolicy::new().wait(wait::none()).boxed();
    assert_eq!(tower_tenacity::retry::run(boxed, |_| ready(Err::<(), _>("never"))).await, Err("never"));
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_needs_no_time_is_not_given_any() {
    // `elapsed` is where a clock reading would show.
    let policy = policy_fn(|attempt: &Attempt, _: &mut (), _: &mut Result<u32, std::io::Error>| {
        assert_eq!(attempt.elapsed(), Duration::from_secs(u64::from(attempt.number() - 1)));
        if attempt.number() < 3 { Decision::Retry { after: SECOND } } else { Decision::Return }
    });
    call(&mut Retry::new(policy, Strict::failing(9)), ()).await.unwrap_err();
    let plain = RetryPolicy::new();
    assert!(!Policy::<(), u32, std::io::Error>::is_timed(&plain));
    assert!(Policy::<(), u32, std::io::Error>::is_timed(&plain.clone().timeout(SECOND)));
    assert!(Policy::<(), u32, std::io::Error>::is_timed(&plain.stop(stop::after_delay(SECOND))));
}

#[tokio::test(start_paused = true)]
async fn the_first_delays_of_32_calls_are_distinct() {
    let service = Retry::new(RetryPolicy::new(), Strict::failing(u32::MAX));
    let mut delays = Vec::new();
    for _ in 0..32 {
        let error = call(&mut service.clone().detailed(), ()).await.unwrap_err();
        delays.push(error.history().next().unwrap().delay());
    }
    assert!(delays.iter().all(|d| (Duration::from_millis(100)..=Duration::from_millis(200)).contains(d)));
    delays.sort();
    delays.dedup();
    assert!(delays.len() >= 31, "{delays:?}");
}

#[tokio::test(start_paused = true)]
async fn a_seeded_policy_repeats_exactly() {
    let run = || async {
        let service = Retry::new(RetryPolicy::new().wait(wait::floored_jitter().seed(7)), Strict::failing(u32::MAX));
        let mut delays = Vec::new();
        for _ in 0..4 {
            let error = call(&mut service.clone().detailed(), ()).await.unwrap_err();
            delays.extend(error.history().map(|failed| failed.delay()));
        }
        delays
    };
    let (first, second) = (run().await, run().await);
    assert_eq!(first, second);
    let distinct: std::collections::HashSet<_> = first.iter().collect();
    assert_eq!(distinct.len(), first.len(), "two calls never share a sequence");
    assert_eq!(Random::seeded(1).unit(), Random::seeded(1).unit());
}
