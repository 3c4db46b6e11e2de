//! What a status means, and what the headers beside it add.

use std::time::SystemTime;

use http::{HeaderMap, StatusCode};

use super::hints;
use crate::classify::Class;

/// The class of a response; `meant` is what somebody else says that its status means, where they have an opinion.
#[cold]
pub(super) fn class_of(
    status: StatusCode,
    headers: &HeaderMap,
    meant: Option<Class>,
    now: impl FnOnce() -> SystemTime,
) -> Class {
    if matches!(meant, Some(Class::Success | Class::Permanent)) || (meant.is_none() && is_answer(status)) {
        return meant.unwrap_or(Class::Success);
    }
    let should_retry = hints::should_retry(headers);
    if should_retry == Some(false) {
        return Class::Permanent;
    }
    let hint = hints::retry_after(status, headers, now);
    match (meant, status.as_u16()) {
        (Some(Class::Transient { retry_after }), _) => Class::Transient { retry_after: retry_after.or(hint) },
        (Some(Class::Throttled { retry_after }), _) => Class::throttled(retry_after.or(hint)),
        (Some(class), _) => class,
        (None, 408 | 425 | 500 | 502 | 503 | 504) => Class::Transient { retry_after: hint },
        (None, 429) => Class::throttled(hint),
        (None, 403) if hint.is_some() || hints::nothing_remains(headers) => Class::throttled(hint),
        (None, 413) if hint.is_some() => Class::Transient { retry_after: hint },
        (None, _) if should_retry == Some(true) => Class::Transient { retry_after: hint },
        (None, _) => Class::Permanent,
    }
}

/// Whether a status is an answer rather than a failure.
pub(super) fn is_answer(status: StatusCode) -> bool {
    status.as_u16() < 400
}
