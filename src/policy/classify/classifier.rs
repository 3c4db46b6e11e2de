use std::{fmt, sync::Arc};

use super::{Class, Classify, Predicate};

/// Outcomes for which the predicate holds are transient failures, successes included; no opinion on others.
///
/// This is tenacity's `retry=`, with its predicates. `!` turns an answer around for every outcome: `!error_type::<T, _>()` holds for all
/// successes too, as tenacity's `retry_unless_exception_type` does, and would have them tried again. Its
/// `retry_if_not_exception_type`, which leaves successes alone, is `!error_type::<T, _>() & on_error(|_: &E| true)`.
///
/// Where only errors matter, the closure goes inside [`on_error`](super::on_error):
///
/// ```
/// use tower_tenacity::classify::{Class, Classify, on_error, retry_if};
///
/// # #[derive(Debug)]
/// enum MyError { Busy, Gone }
///
/// let classify = retry_if(on_error(|error: &MyError| matches!(error, MyError::Busy)));
/// # let class = |outcome: Result<u16, MyError>| classify.classify(&outcome);
/// # assert_eq!(class(Err(MyError::Busy)), Some(Class::transient()));
/// # assert_eq!(class(Err(MyError::Gone)), None);
/// ```
///
/// A closure of its own is asked about the whole outcome:
///
/// ```
/// use tower_tenacity::classify::{self, Class, Classify};
///
/// # #[derive(Debug)]
/// enum MyError { Busy, Gone }
///
/// let classify = classify::retry_if(|outcome: &Result<u16, MyError>| matches!(outcome, Err(MyError::Busy)));
/// assert_eq!(classify.classify(&Err(MyError::Busy)), Some(Class::transient()));
/// assert_eq!(classify.classify(&Err(MyError::Gone)), None);
/// ```
#[must_use]
pub const fn retry_if<P>(predicate: P) -> RetryIf<P> {
    RetryIf { predicate }
}

/// Outcomes for which the predicate holds were throttled; no opinion on others. Where the server says for how long, [`by`] can
/// pass that on.
#[must_use]
pub const fn throttled_if<P>(predicate: P) -> ThrottledIf<P> {
    ThrottledIf { predicate }
}

/// Outcomes for which the predicate holds are permanent failures; no opinion on others.
#[must_use]
pub const fn permanent_if<P>(predicate: P) -> PermanentIf<P> {
    PermanentIf { predicate }
}

/// Outcomes for which the predicate holds are successes, errors included; no opinion on others.
#[must_use]
pub const fn success_if<P>(predicate: P) -> SuccessIf<P> {
    SuccessIf { predicate }
}

/// A classifier from a closure that returns a [`Class`], or an `Option` of one.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::classify::{self, Class, Classify};
///
/// # #[derive(Debug)]
/// struct Limited { seconds: u64 }
///
/// let classify = classify::by(|outcome: &Result<u16, Limited>| match outcome {
///     Err(limited) => Some(Class::throttled(Some(Duration::from_secs(limited.seconds)))),
///     Ok(500..) => Some(Class::transient()),
///     Ok(_) => None,
/// });
/// let class = classify.classify(&Err(Limited { seconds: 7 }));
/// assert_eq!(class.and_then(|class| class.retry_after()), Some(Duration::from_secs(7)));
/// ```
#[must_use]
pub const fn by<Res, E, O, F>(f: F) -> By<F>
where
    F: Fn(&Result<Res, E>) -> O,
    O: Into<Option<Class>>,
{
    By { f }
}

/// Every `Err` is transient and every `Ok` a success: the default.
#[must_use]
pub const fn errors() -> Errors {
    Errors
}

/// A classifier from a closure; made by [`by`].
#[derive(Clone, Copy)]
pub struct By<F> {
    f: F,
}

impl<F> fmt::Debug for By<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("By").field(&std::any::type_name::<F>()).finish()
    }
}

impl<Res, E, O, F> Classify<Res, E> for By<F>
where
    F: Fn(&Result<Res, E>) -> O,
    O: Into<Option<Class>>,
{
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        (self.f)(outcome).into()
    }
}

/// Every `Err` is transient and every `Ok` a success; made by [`errors`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Errors;

impl<Res, E> Classify<Res, E> for Errors {
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        Some(match outcome {
            Ok(_) => Class::Success,
            Err(_) => Class::transient(),
        })
    }

    #[inline]
    fn accepts(&self, _: &Res) -> bool {
        true
    }
}

/// The second classifier's opinion where the first has none; made by [`or`](Errors::or).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Or<A, B> {
    first: A,
    second: B,
}

impl<A, B> Or<A, B> {
    pub(crate) const fn new(first: A, second: B) -> Self {
        Self { first, second }
    }
}

impl<Res, E, A: Classify<Res, E>, B: Classify<Res, E>> Classify<Res, E> for Or<A, B> {
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
        self.first.classify(outcome).or_else(|| self.second.classify(outcome))
    }

    #[inline]
    fn accepts(&self, response: &Res) -> bool {
        self.first.accepts(response) || (self.first.ignores(response) && self.second.accepts(response))
    }

    #[inline]
    fn ignores(&self, response: &Res) -> bool {
        self.first.ignores(response) && self.second.ignores(response)
    }
}

macro_rules! conditional {
    ($($(#[$meta:meta])* $name:ident => $class:expr;)+) => {$(
        $(#[$meta])*
        #[derive(Clone, Copy)]
        pub struct $name<P> {
            predicate: P,
        }

        impl<P> fmt::Debug for $name<P> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&std::any::type_name::<P>()).finish()
            }
        }

        impl<Res, E, P: Predicate<Res, E>> Classify<Res, E> for $name<P> {
            fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
                self.predicate.test(outcome).then_some($class)
            }

            #[inline]
            fn ignores(&self, response: &Res) -> bool {
                self.predicate.rules_out(response)
            }
        }
    )+};
}

conditional! {
    /// Makes some outcomes transient failures; made by [`retry_if`].
    RetryIf => Class::transient();
    /// Makes some outcomes throttled calls; made by [`throttled_if`].
    ThrottledIf => Class::throttled(None);
    /// Makes some outcomes permanent failures; made by [`permanent_if`].
    PermanentIf => Class::Permanent;
    /// Makes some outcomes successes; made by [`success_if`].
    SuccessIf => Class::Success;
}

macro_rules! chains {
    ($($name:ident $(<$($param:ident),+>)?;)+) => {$(
        impl $(<$($param),+>)? $name $(<$($param),+>)? {
            /// Asks another classifier where this one has no opinion.
            #[must_use]
            pub const fn or<C>(self, other: C) -> Or<Self, C> {
                Or::new(self, other)
            }
        }
    )+};
}

chains! {
    RetryIf<P>;
    ThrottledIf<P>;
    PermanentIf<P>;
    SuccessIf<P>;
    By<F>;
    Errors;
    Or<A, B>;
}

macro_rules! forward {
    ($($pointer:ty),+) => {$(
        impl<Res, E, C: Classify<Res, E> + ?Sized> Classify<Res, E> for $pointer {
            fn classify(&self, outcome: &Result<Res, E>) -> Option<Class> {
                (**self).classify(outcome)
            }

            #[inline]
            fn accepts(&self, response: &Res) -> bool {
                (**self).accepts(response)
            }

            #[inline]
            fn ignores(&self, response: &Res) -> bool {
                (**self).ignores(response)
            }
        }
    )+};
}

forward!(&C, Box<C>, Arc<C>);
