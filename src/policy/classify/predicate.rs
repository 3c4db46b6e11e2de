use std::{
    error::Error,
    fmt,
    marker::PhantomData,
    ops::{BitAnd, BitOr, Not},
};

use super::source::{ErrorChain, any_cause};

/// A question about an outcome.
///
/// Every `Fn(&Result<Res, E>) -> bool` is one; so is what the functions of this module return. Those can be combined
/// with `|`, `&` and `!`; a closure goes inside [`classify::outcome(…)`](outcome) to be combined.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no predicate of a `Result<{Res}, {E}>`",
    label = "no predicate of these responses and errors",
    note = "a predicate takes `&Result<Res, E>`; for errors only write `classify::on_error(|error: &E| …)`"
)]
pub trait Predicate<Res, E> {
    /// Whether it is so.
    fn test(&self, outcome: &Result<Res, E>) -> bool;

    /// Whether it is not so for certain where the outcome is this response: [`test`](Predicate::test) would answer `false`.
    /// Defaults to `false`: not certain. What is ruled out need not be tested, which spares successes a detour.
    fn rules_out(&self, response: &Res) -> bool {
        let _ = response;
        false
    }
}

impl<Res, E, F> Predicate<Res, E> for F
where
    F: Fn(&Result<Res, E>) -> bool,
{
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        self(outcome)
    }
}

/// An error for which the closure holds (tenacity's `retry_if_exception`).
///
/// ```
/// use std::io;
/// use tower_tenacity::classify::{self, Predicate};
///
/// let busy = classify::on_error(|error: &io::Error| error.kind() == io::ErrorKind::WouldBlock);
/// let gone = classify::on_response(|status: &u16| *status == 410);
/// let retry = busy | !gone;
///
/// assert!(retry.test(&Err(io::ErrorKind::WouldBlock.into())));
/// assert!(!retry.test(&Ok(410)));
/// ```
#[must_use]
pub const fn on_error<E, F>(condition: F) -> OnError<F>
where
    F: Fn(&E) -> bool,
{
    OnError { condition }
}

/// A response for which the closure holds (tenacity's `retry_if_result`).
#[must_use]
pub const fn on_response<Res, F>(condition: F) -> OnResponse<F>
where
    F: Fn(&Res) -> bool,
{
    OnResponse { condition }
}

/// An outcome for which the closure holds; unlike the closure itself, this can be combined.
///
/// ```
/// use tower_tenacity::classify::{self, Predicate};
///
/// let odd = classify::outcome(|outcome: &Result<u16, String>| matches!(outcome, Ok(status) if *status > 599));
/// let retry = odd | classify::error_message("busy");
///
/// assert!(retry.test(&Ok(700)));
/// assert!(retry.test(&Err("busy".to_owned())));
/// ```
#[must_use]
pub const fn outcome<Res, E, F>(condition: F) -> Outcome<F>
where
    F: Fn(&Result<Res, E>) -> bool,
{
    Outcome { condition }
}

/// Written `error_type::<T, _>()`: an error of type `T`, or one that was caused by a `T`, however many layers lie
/// between (tenacity's `retry_if_exception_type` and `retry_if_exception_cause_type`).
///
/// The error may be any [`Error`], or a boxed one as tower's layers return it. Looks inside
/// [`io::Error`](std::io::Error)s too. The second parameter is always inferred:
///
/// ```
/// use std::{error::Error, io};
/// use tower_tenacity::classify::{self, Predicate};
///
/// let connection = classify::error_type::<io::Error, _>();
/// let boxed: Result<(), Box<dyn Error + Send + Sync>> = Err(Box::new(io::Error::other("reset")));
/// assert!(connection.test(&boxed));
/// ```
#[must_use]
pub const fn error_type<T: Error + 'static, M>() -> ErrorType<T, M> {
    ErrorType { marker: PhantomData }
}

/// An error of type `T`, or one that was caused by a `T`, for which the closure holds. Finds it as
/// [`error_type`] does.
///
/// ```
/// use std::{error::Error, io};
/// use tower_tenacity::classify::{self, Predicate};
///
/// let reset = classify::on_cause(|error: &io::Error| error.kind() == io::ErrorKind::ConnectionReset);
/// let boxed: Result<(), Box<dyn Error + Send + Sync>> = Err(io::Error::other("odd").into());
/// assert!(!reset.test(&boxed));
/// ```
#[must_use]
pub const fn on_cause<T, M, F>(condition: F) -> OnCause<T, M, F>
where
    T: Error + 'static,
    F: Fn(&T) -> bool,
{
    OnCause { condition, marker: PhantomData }
}

/// An error that displays as exactly this (tenacity's `retry_if_exception_message(message=…)`).
#[must_use]
pub const fn error_message(message: &'static str) -> ErrorMessage {
    ErrorMessage { message, exact: true }
}

/// An error whose display contains this (where tenacity has `retry_if_exception_message(match=…)`).
#[must_use]
pub const fn error_message_contains(part: &'static str) -> ErrorMessage {
    ErrorMessage { message: part, exact: false }
}

/// Any outcome, successes included (tenacity's `retry_always`).
#[must_use]
pub const fn always() -> Always {
    Always
}

/// No outcome (tenacity's `retry_never`).
#[must_use]
pub const fn never() -> Never {
    Never
}

/// An error for which a closure holds; made by [`on_error`].
#[derive(Clone, Copy)]
pub struct OnError<F> {
    condition: F,
}

impl<Res, E, F: Fn(&E) -> bool> Predicate<Res, E> for OnError<F> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        outcome.as_ref().is_err_and(&self.condition)
    }

    #[inline]
    fn rules_out(&self, _: &Res) -> bool {
        true
    }
}

/// A response for which a closure holds; made by [`on_response`].
#[derive(Clone, Copy)]
pub struct OnResponse<F> {
    condition: F,
}

impl<Res, E, F: Fn(&Res) -> bool> Predicate<Res, E> for OnResponse<F> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        outcome.as_ref().is_ok_and(&self.condition)
    }

    #[inline]
    fn rules_out(&self, response: &Res) -> bool {
        !(self.condition)(response)
    }
}

/// An outcome for which a closure holds; made by [`outcome`].
#[derive(Clone, Copy)]
pub struct Outcome<F> {
    condition: F,
}

impl<Res, E, F: Fn(&Result<Res, E>) -> bool> Predicate<Res, E> for Outcome<F> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        (self.condition)(outcome)
    }
}

/// An error of a certain type, or caused by one; made by [`error_type`].
pub struct ErrorType<T, M> {
    marker: PhantomData<fn() -> (T, M)>,
}

impl<T, M> Clone for ErrorType<T, M> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T, M> Copy for ErrorType<T, M> {}

impl<Res, E: ErrorChain<M>, T: Error + 'static, M> Predicate<Res, E> for ErrorType<T, M> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        outcome.as_ref().is_err_and(|error| any_cause(error.outermost(), |_: &T| true))
    }

    #[inline]
    fn rules_out(&self, _: &Res) -> bool {
        true
    }
}

/// An error of a certain type, or caused by one, for which a closure holds; made by [`on_cause`].
pub struct OnCause<T, M, F> {
    condition: F,
    marker: PhantomData<fn() -> (T, M)>,
}

impl<T, M, F: Clone> Clone for OnCause<T, M, F> {
    fn clone(&self) -> Self {
        Self { condition: self.condition.clone(), marker: PhantomData }
    }
}

impl<T, M, F: Copy> Copy for OnCause<T, M, F> {}

impl<Res, E, T, M, F> Predicate<Res, E> for OnCause<T, M, F>
where
    E: ErrorChain<M>,
    T: Error + 'static,
    F: Fn(&T) -> bool,
{
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        outcome.as_ref().is_err_and(|error| any_cause(error.outermost(), &self.condition))
    }

    #[inline]
    fn rules_out(&self, _: &Res) -> bool {
        true
    }
}

/// An error with a certain message; made by [`error_message`] and [`error_message_contains`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ErrorMessage {
    message: &'static str,
    exact: bool,
}

impl<Res, E: fmt::Display> Predicate<Res, E> for ErrorMessage {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        outcome.as_ref().is_err_and(|error| {
            let message = error.to_string();
            if self.exact { message == self.message } else { message.contains(self.message) }
        })
    }

    #[inline]
    fn rules_out(&self, _: &Res) -> bool {
        true
    }
}

/// Any outcome; made by [`always`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Always;

impl<Res, E> Predicate<Res, E> for Always {
    fn test(&self, _: &Result<Res, E>) -> bool {
        true
    }
}

/// No outcome; made by [`never()`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Never;

impl<Res, E> Predicate<Res, E> for Never {
    fn test(&self, _: &Result<Res, E>) -> bool {
        false
    }

    #[inline]
    fn rules_out(&self, _: &Res) -> bool {
        true
    }
}

/// Holds where either predicate does; made by `|`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Any<A, B> {
    first: A,
    second: B,
}

impl<Res, E, A: Predicate<Res, E>, B: Predicate<Res, E>> Predicate<Res, E> for Any<A, B> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        self.first.test(outcome) || self.second.test(outcome)
    }

    #[inline]
    fn rules_out(&self, response: &Res) -> bool {
        self.first.rules_out(response) && self.second.rules_out(response)
    }
}

/// Holds where both predicates do; made by `&`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct All<A, B> {
    first: A,
    second: B,
}

impl<Res, E, A: Predicate<Res, E>, B: Predicate<Res, E>> Predicate<Res, E> for All<A, B> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        self.first.test(outcome) && self.second.test(outcome)
    }

    #[inline]
    fn rules_out(&self, response: &Res) -> bool {
        self.first.rules_out(response) || self.second.rules_out(response)
    }
}

/// Holds where the predicate does not; made by `!`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unless<A> {
    predicate: A,
}

impl<Res, E, A: Predicate<Res, E>> Predicate<Res, E> for Unless<A> {
    fn test(&self, outcome: &Result<Res, E>) -> bool {
        !self.predicate.test(outcome)
    }
}

macro_rules! operators {
    ($($name:ident $(<$($param:ident),+>)?;)+) => {$(
        impl<R $($(, $param)+)?> BitOr<R> for $name $(<$($param),+>)? {
            type Output = Any<Self, R>;

            fn bitor(self, second: R) -> Self::Output {
                Any { first: self, second }
            }
        }

        impl<R $($(, $param)+)?> BitAnd<R> for $name $(<$($param),+>)? {
            type Output = All<Self, R>;

            fn bitand(self, second: R) -> Self::Output {
                All { first: self, second }
            }
        }

        impl $(<$($param),+>)? Not for $name $(<$($param),+>)? {
            type Output = Unless<Self>;

            fn not(self) -> Self::Output {
                Unless { predicate: self }
            }
        }
    )+};
}

operators! {
    OnError<F>;
    OnResponse<F>;
    Outcome<F>;
    ErrorType<T, M>;
    OnCause<T, M, F>;
    ErrorMessage;
    Always;
    Never;
    Any<A, B>;
    All<A, B>;
    Unless<A>;
}

macro_rules! debug {
    ($($name:ident <$($param:ident),+> shows $shown:ident;)+) => {$(
        impl<$($param),+> fmt::Debug for $name<$($param),+> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&std::any::type_name::<$shown>()).finish()
            }
        }
    )+};
}

debug! {
    OnError<F> shows F;
    OnResponse<F> shows F;
    Outcome<F> shows F;
    ErrorType<T, M> shows T;
    OnCause<T, M, F> shows F;
}
