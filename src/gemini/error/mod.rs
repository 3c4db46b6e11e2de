//! `gemini::Error`: what went wrong, what the server said about it, and what to do.

mod details;
mod duration;
mod read;
#[cfg(test)]
mod tests;

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use http::StatusCode;

pub use details::{Detail, FieldViolation, HelpLink, QuotaViolation};
pub(super) use read::{decode, from_response};

use super::BoxError;
use super::types::open_enum;

open_enum! {
    /// Google's name for a kind of failure (`google.rpc.Code`).
    RpcStatus {
        /// The caller, or something on the way, gave up.
        Cancelled = "CANCELLED",
        /// No better name was found.
        Unknown = "UNKNOWN",
        /// The request is wrong; a bad API key is reported like this too.
        InvalidArgument = "INVALID_ARGUMENT",
        /// It took too long.
        DeadlineExceeded = "DEADLINE_EXCEEDED",
        /// There is no such model, file or cache.
        NotFound = "NOT_FOUND",
        /// There is one already.
        AlreadyExists = "ALREADY_EXISTS",
        /// The key is known, but may not do this.
        PermissionDenied = "PERMISSION_DENIED",
        /// A quota or rate limit.
        ResourceExhausted = "RESOURCE_EXHAUSTED",
        /// Not as things stand: an unsupported location, billing not set up.
        FailedPrecondition = "FAILED_PRECONDITION",
        /// Given up because of a conflict.
        Aborted = "ABORTED",
        /// Past the end.
        OutOfRange = "OUT_OF_RANGE",
        /// Not supported.
        Unimplemented = "UNIMPLEMENTED",
        /// The server's fault.
        Internal = "INTERNAL",
        /// Overloaded or down.
        Unavailable = "UNAVAILABLE",
        /// Data was lost.
        DataLoss = "DATA_LOSS",
        /// No valid credentials.
        Unauthenticated = "UNAUTHENTICATED",
    }
}

impl RpcStatus {
    /// By number: that of `google.rpc.Code`, or of HTTP.
    fn from_code(code: u64) -> Option<Self> {
        use RpcStatus::*;
        Some(match code {
            1 | 499 => Cancelled,
            2 => Unknown,
            3 | 400 => InvalidArgument,
            4 | 504 => DeadlineExceeded,
            5 | 404 => NotFound,
            6 | 409 => AlreadyExists,
            7 | 403 => PermissionDenied,
            8 | 429 => ResourceExhausted,
            9 => FailedPrecondition,
            10 => Aborted,
            11 => OutOfRange,
            12 | 501 => Unimplemented,
            13 | 500 => Internal,
            14 | 503 => Unavailable,
            15 => DataLoss,
            16 | 401 => Unauthenticated,
            _ => return None,
        })
    }

    /// The HTTP status it travels under (`google/rpc/code.proto`).
    fn http(&self) -> Option<StatusCode> {
        use RpcStatus::*;
        let code = match self {
            InvalidArgument | FailedPrecondition | OutOfRange => 400,
            Unauthenticated => 401,
            PermissionDenied => 403,
            NotFound => 404,
            AlreadyExists | Aborted => 409,
            ResourceExhausted => 429,
            Cancelled => 499,
            Unknown | Internal | DataLoss => 500,
            Unimplemented => 501,
            Unavailable => 503,
            DeadlineExceeded => 504,
            Other(_) => return None,
        };
        StatusCode::from_u16(code).ok()
    }
}

/// What kind of failure an [`Error`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The client cannot be set up: no API key, a bad base URL.
    Configuration,
    /// The request cannot be sent as it is. Nothing was sent.
    InvalidRequest,
    /// The connection failed before the whole response had arrived.
    Transport,
    /// The response is larger than the client was told to accept.
    ResponseTooLarge,
    /// The response says success, and is not what the API answers.
    Decode,
    /// The API, or something in front of it, refused or failed.
    Api,
}

/// A failed call. What the server said is kept as types: [`details`](Self::details), [`retry_after`](Self::retry_after).
///
/// Neither `Display` nor `Debug` shows the API key, even where the server repeats it. (A key of less than 8 characters is
/// taken for a stand-in in a test, and is not looked for.)
pub struct Error {
    inner: Box<Inner>,
}

struct Inner {
    kind: ErrorKind,
    status: Option<StatusCode>,
    rpc_status: Option<RpcStatus>,
    message: String,
    details: Vec<Detail>,
    retry_after: Option<Duration>,
    quota_exhausted: bool,
    truncated: bool,
    source: Option<BoxError>,
}

impl Error {
    fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            inner: Box::new(Inner {
                kind,
                status: None,
                rpc_status: None,
                message: message.into(),
                details: Vec::new(),
                retry_after: None,
                quota_exhausted: false,
                truncated: false,
                source: None,
            }),
        }
    }

    pub(super) fn configuration(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Configuration, message)
    }

    pub(super) fn invalid_request(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidRequest, message)
    }

    pub(super) fn transport(source: BoxError) -> Self {
        Self::new(ErrorKind::Transport, "the Gemini API could not be reached").because(source)
    }

    pub(super) fn cut_off(status: StatusCode, source: BoxError) -> Self {
        let mut error = Self::new(ErrorKind::Transport, "the connection was lost during the response").because(source);
        error.inner.status = Some(status);
        error.inner.truncated = true;
        error
    }

    pub(super) fn too_large(status: StatusCode, limit: usize) -> Self {
        let message = format!("the response is larger than {limit} bytes; raise the limit with `max_response_bytes`");
        let mut error = Self::new(ErrorKind::ResponseTooLarge, message);
        error.inner.status = Some(status);
        error
    }

    fn undecodable(status: StatusCode, truncated: bool, message: impl Into<String>) -> Self {
        let mut error = Self::new(ErrorKind::Decode, message);
        error.inner.status = Some(status);
        error.inner.truncated = truncated;
        error
    }

    pub(super) fn because(mut self, source: BoxError) -> Self {
        self.inner.source = Some(source);
        self
    }

    /// What kind of failure it is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner.kind
    }

    /// The HTTP status, where a response had begun. For an error inside a successful response it is the one the error
    /// names.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.inner.status
    }

    /// Google's name for the failure, where the server gave one.
    #[must_use]
    pub fn rpc_status(&self) -> Option<&RpcStatus> {
        self.inner.rpc_status.as_ref()
    }

    /// The server's message, at full length; for other kinds than [`ErrorKind::Api`], what went wrong.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.inner.message
    }

    /// What the server added to the message.
    #[must_use]
    pub fn details(&self) -> &[Detail] {
        &self.inner.details
    }

    /// The quotas that were exceeded.
    pub fn quota_violations(&self) -> impl Iterator<Item = &QuotaViolation> {
        self.details().iter().flat_map(|detail| match detail {
            Detail::QuotaFailure { violations } => violations.as_slice(),
            _ => &[],
        })
    }

    /// How long the server asks to be left alone: the largest of all the hints it gave, in details, message or header.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.inner.retry_after
    }

    /// Whether a quota is used up that will not be back soon: a daily one, one of zero, depleted credits.
    ///
    /// Google sends a short delay along with those as well; waiting it out is of no use.
    #[must_use]
    pub fn is_quota_exhausted(&self) -> bool {
        self.inner.quota_exhausted
    }

    /// Whether a quota or rate limit was hit, of whatever kind.
    #[must_use]
    pub fn is_rate_limited(&self) -> bool {
        self.inner.status == Some(StatusCode::TOO_MANY_REQUESTS)
            || self.inner.rpc_status == Some(RpcStatus::ResourceExhausted)
    }

    /// Whether the API key is not accepted. The API reports that as 400 as well as 401 and 403.
    #[must_use]
    pub fn is_invalid_key(&self) -> bool {
        if self.kind() != ErrorKind::Api {
            return false;
        }
        let reason = self.reason().is_some_and(|reason| {
            matches!(
                reason,
                "API_KEY_INVALID" | "API_KEY_EXPIRED" | "CREDENTIALS_MISSING" | "ACCESS_TOKEN_TYPE_UNSUPPORTED"
            )
        });
        let message = self.message().to_ascii_lowercase();
        reason
            || self.status() == Some(StatusCode::UNAUTHORIZED)
            || ["api key not valid", "api key expired", "api key not found", "api key was reported as leaked"]
                .iter()
                .any(|text| message.contains(text))
    }

    /// Whether the response ended before it was whole.
    #[must_use]
    pub fn is_truncated(&self) -> bool {
        self.inner.truncated
    }

    fn reason(&self) -> Option<&str> {
        self.details().iter().find_map(|detail| match detail {
            Detail::ErrorInfo { reason, .. } => reason.as_deref(),
            _ => None,
        })
    }

    /// What the reader of a log can do about it.
    fn advice(&self) -> Option<&'static str> {
        if self.is_invalid_key() {
            return Some("check GOOGLE_API_KEY and GEMINI_API_KEY");
        }
        if self.is_quota_exhausted() {
            return Some("this quota will not be back soon: check plan and billing");
        }
        match self.status()?.as_u16() {
            300..=399 => Some("redirects are not followed: check the base URL"),
            403 if self.reason() == Some("SERVICE_DISABLED") => {
                Some("enable the Generative Language API for the key's project")
            }
            404 => Some("check the name of the model and the base URL"),
            413 => Some("make the request smaller, or upload its files first"),
            _ => None,
        }
    }
}

impl fmt::Debug for Error {
    /// What is known, in the order in which a reader wants it: this is what `unwrap` shows.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Taken apart, so that no field is forgotten.
        let Inner { kind, status, rpc_status, message, details, retry_after, quota_exhausted, truncated, source } =
            &*self.inner;
        let mut shown = f.debug_struct("Error");
        shown.field("kind", kind);
        if !message.is_empty() {
            shown.field("message", message);
        }
        if let Some(status) = status {
            shown.field("status", status);
        }
        if let Some(rpc_status) = rpc_status {
            shown.field("rpc_status", rpc_status);
        }
        if !details.is_empty() {
            shown.field("details", details);
        }
        if let Some(retry_after) = retry_after {
            shown.field("retry_after", retry_after);
        }
        if *quota_exhausted {
            shown.field("quota_exhausted", quota_exhausted);
        }
        if *truncated {
            shown.field("truncated", truncated);
        }
        if let Some(source) = source {
            shown.field("source", source);
        }
        shown.finish()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &*self.inner;
        if inner.kind != ErrorKind::Api {
            return f.write_str(&inner.message);
        }
        f.write_str("the Gemini API answered")?;
        if let Some(status) = inner.status {
            write!(f, " {}", status.as_u16())?;
        }
        if let Some(rpc) = &inner.rpc_status {
            write!(f, " {}", read::cap(rpc.as_str(), 40))?;
        }
        if !inner.message.is_empty() {
            write!(f, ": {}", read::cap(&inner.message, 300))?;
        }
        match self.advice() {
            Some(advice) => write!(f, " ({advice})"),
            None => Ok(()),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.inner.source.as_deref().map(|source| source as _)
    }
}
