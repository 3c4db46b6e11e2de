//! Retries of HTTP calls: what a status means, what may be repeated, which delays a server asks for.

mod drain;
mod flat;
mod idempotency;
mod mark;

pub use drain::{Drain, drain};
pub use flat::{FlatCopy, FlatRequest};
pub use idempotency::{Idempotency, Idempotent};
pub use mark::{AttemptHeader, Mark, attempt_header};

use ::http::{HeaderMap, header::CONNECTION};

// Whether `Connection` names this option (RFC 9110 §7.6.1).
fn has_option(headers: &HeaderMap, option: &str) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|named| named.trim_ascii().eq_ignore_ascii_case(option.as_bytes()))
    })
}
