use std::{
    fmt,
    future::{Future, Ready, ready},
};

use super::Problems;

/// Business rules: what must hold of a value beyond its type and schema.
///
/// May be asynchronous, and may mend the value: what it returns is what the caller gets. Most checks are
/// closures, through [`ExtractLayer::check`](super::ExtractLayer::check) and
/// [`check_async`](super::ExtractLayer::check_async).
pub trait Check<T> {
    /// The verdict to come.
    type Future: Future<Output = Result<T, Problems>>;

    /// Checks the value of answer number `answer`, the first being 1.
    fn check(&self, value: T, answer: u32) -> Self::Future;
}

/// Every value is accepted.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoCheck;

impl<T> Check<T> for NoCheck {
    type Future = Ready<Result<T, Problems>>;

    fn check(&self, value: T, _: u32) -> Self::Future {
        ready(Ok(value))
    }
}

/// A closure that looks at the value; see [`ExtractLayer::check`](super::ExtractLayer::check).
#[derive(Clone, Copy)]
pub struct CheckFn<F>(pub(super) F);

impl<T, F> Check<T> for CheckFn<F>
where
    F: Fn(&T) -> Result<(), Problems>,
{
    type Future = Ready<Result<T, Problems>>;

    fn check(&self, value: T, _: u32) -> Self::Future {
        ready((self.0)(&value).map(|()| value))
    }
}

impl<F> fmt::Debug for CheckFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckFn").field(&std::any::type_name::<F>()).finish()
    }
}

/// An asynchronous closure; see [`ExtractLayer::check_async`](super::ExtractLayer::check_async).
#[derive(Clone, Copy)]
pub struct CheckAsync<F>(pub(super) F);

impl<T, F, Fut> Check<T> for CheckAsync<F>
where
    F: Fn(T) -> Fut,
    Fut: Future<Output = Result<T, Problems>>,
{
    type Future = Fut;

    fn check(&self, value: T, _: u32) -> Fut {
        (self.0)(value)
    }
}

impl<F> fmt::Debug for CheckAsync<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CheckAsync").field(&std::any::type_name::<F>()).finish()
    }
}
