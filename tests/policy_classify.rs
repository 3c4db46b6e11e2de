//! Predicates and classifiers, for errors and boxed errors.
use std::{error::Error, fmt, io, sync::Arc, time::Duration};

use tower_tenacity::classify::{self, Class, Classify, Predicate};

type BoxError = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
struct Root(u32);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "root {}", self.0)
    }
}

impl Error for Root {}

#[derive(Debug)]
struct Outer(BoxError);

impl fmt::Display for Outer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("outer")
    }
}

impl Error for Outer {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

fn classified<Res, E>(classify: &impl Classify<Res, E>, outcome: &Result<Res, E>) -> Option<Class> {
    classify.classify(outcome)
}

fn chains() -> Vec<Outer> {
    vec![
        Outer(Root(7).into()),
        Outer(Outer(Root(7).into()).into()),
        Outer(io::Error::other(Root(7)).into()),
        Outer(io::Error::other(io::Error::other(Root(7))).into()),
        Outer(io::Error::other(Outer(Root(7).into())).into()),
        Outer(Box::new(Arc::new(Root(7)))),
        Outer(Box::new(Box::new(Root(7)))),
    ]
}

#[test]
fn a_cause_is_found_wherever_it_hides() {
    for error in chains() {
        let text = format!("{error:?}");
        let outcome: Result<(), Outer> = Err(error);
        assert!(classify::error_type::<Root, _>().test(&outcome), "{text}");
        assert!(classify::on_cause(|root: &Root| root.0 == 7).test(&outcome), "{text}");
        assert!(!classify::on_cause(|root: &Root| root.0 == 8).test(&outcome), "{text}");
        assert!(!classify::error_type::<fmt::Error, _>().test(&outcome), "{text}");
    }
}

#[test]
fn a_cause_is_found_in_boxed_errors_too() {
    for error in chains() {
        let outcome: Result<(), BoxError> = Err(error.into());
        assert!(classify::error_type::<Root, _>().test(&outcome));
        assert!(classify::error_type::<Outer, _>().test(&outcome));
    }
    let outcome: Result<(), Box<dyn Error>> = Err(Box::new(Root(1)));
    assert!(classify::error_type::<Root, _>().test(&outcome));
    assert!(!classify::error_type::<Root, _>().test(&Ok::<(), BoxError>(())));
}

#[test]
fn the_error_type_is_inferred_through_a_classifier() {
    struct Policy<C>(C);
    impl Policy<classify::Errors> {
        fn classify<C>(self, classify: C) -> Policy<C> {
            Policy(classify)
        }
    }
    fn layer<E, C: Classify<u8, E>>(policy: &Policy<C>, error: E) -> Option<Class> {
        policy.0.classify(&Err(error))
    }

    // Each policy serves one error type, which it learns from where it is used.
    let typed = Policy(classify::errors()).classify(
        classify::retry_if(classify::error_type::<Root, _>() & !classify::error_message("root 2"))
            .or(classify::permanent_if(classify::always())),
    );
    assert_eq!(layer(&typed, Root(1)), Some(Class::transient()));
    assert_eq!(layer(&typed, Root(2)), Some(Class::Permanent));

    let boxed = Policy(classify::errors()).classify(
        classify::retry_if(classify::error_type::<Root, _>() & !classify::error_message("root 2"))
            .or(classify::permanent_if(classify::always())),
    );
    assert_eq!(layer::<BoxError, _>(&boxed, Root(1).into()), Some(Class::transient()));
    assert_eq!(layer::<BoxError, _>(&boxed, Root(2).into()), Some(Class::Permanent));

    let policy = Policy(classify::errors()).classify(classify::retry_if(|outcome: &Result<_, Root>| outcome.is_err()));
    assert_eq!(layer(&policy, Root(1)), Some(Class::transient()));
}

#[test]
fn predicates_combine() {
    let odd = classify::on_response(|n: &u32| n % 2 == 1);
    let big = classify::outcome(|outcome: &Result<u32, Root>| matches!(outcome, Ok(100..)));
    let root = classify::on_error(|root: &Root| root.0 == 1);
    let either = !odd & big | root;
    assert!(either.test(&Ok(100)) && !either.test(&Ok(101)) && !either.test(&Ok(2)));
    assert!(either.test(&Err(Root(1))) && !either.test(&Err(Root(2))));
    assert!(format!("{either:?}").contains("OnError"));
    assert!((classify::always() & !classify::never()).test(&Ok::<(), ()>(())));
}

#[test]
fn messages_match_exactly_or_in_part() {
    let outcome: Result<(), BoxError> = Err("connection reset by peer".into());
    assert!(classify::error_message("connection reset by peer").test(&outcome));
    assert!(!classify::error_message("reset").test(&outcome));
    assert!(classify::error_message_contains("reset").test(&outcome));
    assert!(!classify::error_message_contains("").test(&Ok::<(), BoxError>(())));
}

#[test]
fn the_first_opinion_wins() {
    let classify = classify::success_if(classify::on_error(|root: &Root| root.0 == 404))
        .or(classify::throttled_if(classify::on_response(|n: &u16| *n == 429)))
        .or(classify::by(|outcome: &Result<u16, Root>| match outcome {
            Err(Root(n @ 500..)) => Some(Class::throttled(Some(Duration::from_secs(u64::from(*n))))),
            _ => None,
        }))
        .or(classify::errors());
    assert_eq!(classified(&classify, &Err(Root(404))), Some(Class::Success));
    assert_eq!(classified(&classify, &Ok(429)), Some(Class::throttled(None)));
    assert_eq!(classified(&classify, &Err(Root(503))), Some(Class::throttled(Some(Duration::from_secs(503)))));
    assert_eq!(classified(&classify, &Err(Root(1))), Some(Class::transient()));
    assert_eq!(classified(&classify, &Ok(200)), Some(Class::Success));
}

#[test]
fn a_closure_may_always_have_an_opinion() {
    let classify =
        classify::by(|outcome: &Result<(), ()>| if outcome.is_ok() { Class::Success } else { Class::Permanent });
    assert_eq!(classified(&classify, &Err(())), Some(Class::Permanent));
    assert_eq!(classified(&classify::retry_if(classify::never()), &Err::<(), ()>(())), None);
}

#[test]
fn classes_answer_for_themselves() {
    let hint = Some(Duration::from_secs(3));
    assert_eq!(Class::throttled(hint).retry_after(), hint);
    assert_eq!(Class::Transient { retry_after: hint }.retry_after(), hint);
    assert_eq!(Class::Permanent.retry_after(), None);
    assert!(Class::transient().is_retryable() && Class::throttled(None).is_retryable());
    assert!(!Class::Permanent.is_retryable() && !Class::Success.is_retryable());
    assert!(Class::Permanent.is_failure() && !Class::Success.is_failure());
}

#[test]
fn what_is_accepted_or_ignored_unseen_is_what_would_be_said_of_it() {
    fn check(classify: impl Classify<u16, io::Error>, expected: [&str; 3]) {
        let said = [200, 429, 503].map(|status| {
            let class = classify.classify(&Ok(status));
            let (accepts, ignores) = (classify.accepts(&status), classify.ignores(&status));
            assert!(!accepts || class == Some(Class::Success), "{status}");
            assert!(!ignores || class.is_none(), "{status}");
            if accepts {
                "accepted"
            } else if ignores {
                "ignored"
            } else {
                "asked"
            }
        });
        assert_eq!(said, expected);
    }
    const IGNORED: [&str; 3] = ["ignored"; 3];
    let busy = || classify::on_error(|_: &io::Error| true);
    let down = || classify::on_response(|status: &u16| *status == 503);
    check(classify::errors(), ["accepted"; 3]);
    check(classify::by(|_: &Result<u16, io::Error>| None), ["asked"; 3]);
    check(classify::retry_if(|_: &Result<u16, io::Error>| false), ["asked"; 3]);
    check(classify::retry_if(busy()), IGNORED);
    check(classify::throttled_if(classify::error_message("slow down")), IGNORED);
    check(classify::permanent_if(classify::error_type::<io::Error, _>() | classify::never()), IGNORED);
    check(classify::retry_if(classify::on_cause(|_: &io::Error| true) & classify::always()), IGNORED);
    check(classify::retry_if(down()), ["ignored", "ignored", "asked"]);
    check(classify::retry_if(busy() | down()), ["ignored", "ignored", "asked"]);
    check(classify::retry_if(busy() & down()), IGNORED);
    check(classify::retry_if(!busy()), ["asked"; 3]);
    // A chain knows what its parts know, in their order.
    check(classify::retry_if(busy()).or(classify::errors()), ["accepted"; 3]);
    check(classify::retry_if(down()).or(classify::errors()), ["accepted", "accepted", "asked"]);
    check(classify::by(|_: &Result<u16, io::Error>| None).or(classify::errors()), ["asked"; 3]);
    check(classify::retry_if(busy()).or(classify::throttled_if(busy())), IGNORED);
    check(Arc::new(classify::errors()), ["accepted"; 3]);
}

#[test]
fn what_is_shared_is_looked_into() {
    let root = classify::error_type::<Root, _>;
    assert!(root().test(&Err::<(), _>(Arc::new(io::Error::other(Root(7))))));
    let shared: Arc<dyn Error + Send + Sync> = Arc::new(Root(7));
    assert!(root().test(&Err::<(), _>(shared.clone())));
    assert!(root().test(&Err::<(), _>(Outer(Box::new(shared)))));
    assert!(root().test(&Err::<(), _>(Outer(Box::new(Box::new(io::Error::other(Root(7))))))));
}

// tenacity's retry_if_not_exception_type.
#[test]
fn not_an_error_of_a_type_leaves_successes_alone_if_it_is_told_to() {
    let not_root = !classify::error_type::<Root, _>() & classify::on_error(|_: &Outer| true);
    assert!(not_root.test(&Err::<(), _>(Outer("other".into()))));
    assert!(!not_root.test(&Err::<(), _>(Outer(Root(7).into()))));
    assert!(!not_root.test(&Ok::<(), Outer>(())));
    assert!((!classify::error_type::<Root, _>()).test(&Ok::<(), Outer>(())));
}
