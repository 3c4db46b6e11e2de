//! What an outcome means.
//!
//! A classifier sorts outcomes into [classes](Class) or has no opinion, and the next one is asked:
//!
//! ```
//! use std::io;
//! use tower_tenacity::classify::{self, Class, Classify};
//!
//! let classify = classify::permanent_if(classify::error_message_contains("certificate"))
//!     .or(classify::throttled_if(classify::on_response(|status: &u16| *status == 429)))
//!     .or(classify::retry_if(classify::error_type::<io::Error, _>()));
//!
//! let class = |outcome: Result<u16, io::Error>| classify.classify(&outcome);
//! assert_eq!(class(Err(io::Error::other("bad certificate"))), Some(Class::Permanent));
//! assert_eq!(class(Err(io::Error::other("reset"))), Some(Class::transient()));
//! assert_eq!(class(Ok(429)), Some(Class::throttled(None)));
//! assert_eq!(class(Ok(200)), None);
//! ```
//!
//! Which outcomes are meant is said by a [`Predicate`]: a closure, or one of the functions here. What the functions
//! return is combined with `|`, `&` and `!`; a closure goes inside [`classify::outcome(…)`](outcome) to be combined.

mod classifier;
#[cfg(feature = "http")]
mod own;
mod predicate;
mod refusals;
mod source;

use std::time::Duration;

pub use classifier::{
    By, Errors, Or, PermanentIf, RetryIf, SuccessIf, ThrottledIf, by, errors, permanent_if, retry_if, success_if,
    throttled_if,
};
#[cfg(feature = "http")]
pub(crate) use own::own_class;
pub use predicate::{
    All, Always, Any, ErrorMessage, ErrorType, Never, OnCause, OnError, OnResponse, Outcome, Predicate, Unless, always,
    error_message, error_message_contains, error_type, never, on_cause, on_error, on_response, outcome,
};
pub use refusals::{Refusals, refusals};
#[cfg(feature = "http")]
pub(crate) use source::causes;
pub(crate) use source::causes_of;
pub use source::{Boxed, ErrorChain, Typed};

#[cfg(feature = "http")]
pub(crate) use super::http::transport::has_failed_body;

// No other request has a body that could fail.
#[cfg(not(feature = "http"))]
pub(crate) fn has_failed_body(_: &(dyn std::error::Error + 'static)) -> bool {
    false
}

/// What an outcome is for the layers that act on it.
///
/// The kinds matter beyond "retry or not": a throttled call holds back its neighbours, a transient failure counts
/// against a breaker, a permanent one does neither.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// What the caller wanted.
    Success,
    /// A failure that the next attempt may well not see: a lost connection, an overloaded server.
    Transient {
        /// How long the server asked to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// A transient failure of a request that provably never reached the server: a refused connection, a stream the
    /// server says it did not process, a circuit that is open. It may be sent again even if it must not be carried out twice.
    Unsent {
        /// How long to leave the server alone, if that is known.
        retry_after: Option<Duration>,
    },
    /// A refusal because the caller sends too much: a rate limit, a quota that will be back soon.
    Throttled {
        /// How long the server asked to be left alone, if it said so.
        retry_after: Option<Duration>,
    },
    /// A failure that another attempt does not cure.
    Permanent,
}

/// Tells what an outcome means.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not classify a `Result<{Res}, {E}>`",
    label = "no classifier for these responses and errors",
    note = "wrap a predicate in `classify::retry_if(…)`, and a closure that returns a `Class` in `classify::by(…)`"
)]
pub trait Classify<Res, E> {
    /// The class of `outcome`, or `None` for no opinion. Where nobody has one, `Ok` is a success and `Err` is
    /// permanent.
    fn classify(&self, outcome: &Result<Res, E>) -> Option<Class>;

    /// Whether `response` is a success for certain. One for which this answers `true` need not be shown to
    /// [`classify`](Classify::classify), which spares the common case a detour. Defaults to `false`: not certain.
    fn accepts(&self, response: &Res) -> bool {
        let _ = response;
        false
    }

    /// Whether there is no opinion on `response` for certain: [`classify`](Classify::classify) would answer `None`. Defaults to
    /// `false`: not certain.
    ///
    /// Most classifiers look at errors only. One that says so here lets a [chain](Errors::or) of them accept a response unseen.
    fn ignores(&self, response: &Res) -> bool {
        let _ = response;
        false
    }
}

/// Whether `response` is a success for certain, told without the whole decision: where nobody has an opinion, a response is one.
#[inline]
pub(crate) fn passes<Res, E>(classify: &impl Classify<Res, E>, response: &Res) -> bool {
    classify.accepts(response) || classify.ignores(response)
}

impl Class {
    /// One word for events and metrics, in snake case.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Transient { .. } => "transient",
            Self::Unsent { .. } => "unsent",
            Self::Throttled { .. } => "throttled",
            Self::Permanent => "permanent",
        }
    }

    /// A transient failure without a hint.
    #[must_use]
    pub const fn transient() -> Self {
        Self::Transient { retry_after: None }
    }

    /// A failure of a request that was never sent, without a hint.
    #[must_use]
    pub const fn unsent() -> Self {
        Self::Unsent { retry_after: None }
    }

    /// A throttled call, with the delay the server asked for, if it did.
    #[must_use]
    pub const fn throttled(retry_after: Option<Duration>) -> Self {
        Self::Throttled { retry_after }
    }

    /// How long the server asked to be left alone, or is to be left alone, if that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after } | Self::Unsent { retry_after } | Self::Throttled { retry_after } => {
                *retry_after
            }
            Self::Success | Self::Permanent => None,
        }
    }

    /// Whether this is anything but a success.
    #[must_use]
    pub const fn is_failure(&self) -> bool {
        !matches!(self, Self::Success)
    }

    /// Whether another attempt may help: transient, never sent or throttled.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Transient { .. } | Self::Unsent { .. } | Self::Throttled { .. })
    }
}
