use std::{error::Error, io, sync::Arc};

use crate::BoxError;

/// Marks an error type that is itself an [`Error`].
#[derive(Clone, Copy, Debug)]
pub enum Typed {}

/// Marks a boxed error, which is no [`Error`] itself.
#[derive(Clone, Copy, Debug)]
pub enum Boxed {}

/// An error with causes: any [`Error`], and the boxed ones, which are none.
///
/// The marker keeps the two apart, as nothing else can: the standard library might make `Box<dyn Error>` an `Error` one day. It is always
/// inferred.
pub trait ErrorChain<M> {
    /// The outermost error.
    fn outermost(&self) -> &(dyn Error + 'static);
}

impl<E: Error + 'static> ErrorChain<Typed> for E {
    fn outermost(&self) -> &(dyn Error + 'static) {
        self
    }
}

impl ErrorChain<Boxed> for BoxError {
    fn outermost(&self) -> &(dyn Error + 'static) {
        &**self
    }
}

impl ErrorChain<Boxed> for Box<dyn Error> {
    fn outermost(&self) -> &(dyn Error + 'static) {
        &**self
    }
}

/// Whether an error of type `T` for which `test` holds is anywhere in the chain of causes.
pub(super) fn any_cause<T: Error + 'static>(outermost: &(dyn Error + 'static), test: impl Fn(&T) -> bool) -> bool {
    causes_of(outermost).any(test)
}

/// The errors of type `T` among an error and all that caused it, outermost first.
pub(crate) fn causes_of<'a, T: Error + 'static>(outermost: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a T> {
    causes(outermost).filter_map(|error| {
        error
            .downcast_ref::<T>()
            // Both pass on the source of what they hold, not what they hold.
            .or_else(|| error.downcast_ref::<Arc<T>>().map(|error| &**error))
            .or_else(|| error.downcast_ref::<Box<T>>().map(|error| &**error))
    })
}

/// The error itself and all that caused it, outermost first.
pub(crate) fn causes<'a>(outermost: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(outermost), |error| cause(*error))
}

fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    // What is shared, or boxed, passes on the source of what is inside it, which is thereby skipped.
    if let Some(shared) = error.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        return Some(&**shared);
    }
    if let Some(shared) = error.downcast_ref::<Arc<io::Error>>() {
        return Some(&**shared);
    }
    if let Some(boxed) = error.downcast_ref::<Box<io::Error>>() {
        return Some(&**boxed);
    }
    // The source of an `io::Error` is the source of the error inside it, which is thereby skipped.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}
