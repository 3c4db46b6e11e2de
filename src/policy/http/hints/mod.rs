//! Which delay a response asks for, and whether it wants another attempt at all.
//!
//! The first of these that asks for a pause is what counts; the order is that of precision, and of the SDKs the headers
//! come from:
//!
//! | | header | means | seen at |
//! |---|---|---|---|
//! | 1 | `retry-after-ms`, `x-ms-retry-after-ms`, `x-amz-retry-after` | milliseconds | OpenAI, Azure, AWS |
//! | 2 | `Retry-After` | seconds, or a date | RFC 9110 §10.2.3; also with decimals, as OpenAI's SDKs read it |
//! | 3 | `x-ratelimit-reset`, `x-rate-limit-reset` | seconds, or a moment | GitHub, X |
//! | | `x-ratelimit-reset-requests`, `x-ratelimit-reset-tokens` | a duration: `6m0s`, `20ms` | OpenAI and its like |
//! | | `anthropic-ratelimit-requests-reset`, and of `tokens`, `input-tokens`, `output-tokens` | a moment: `2026-11-26T10:00:00Z` | Anthropic |
//! | | `RateLimit-Reset` | seconds | IETF draft, until -06 |
//! | | `RateLimit: limit=10, remaining=0, reset=30` | seconds | IETF draft -07 |
//! | | `RateLimit: "default";r=0;t=30` | seconds | IETF draft -08 to -11 |
//!
//! * **Of several values of one row, the largest counts.** A header that is there but says nothing leaves it to the next row:
//!   malformed, negative, not a number, not text, more than a date could say (beyond the year 9999), zero, or a date in the
//!   past. None of those is ever taken for "at once".
//! * **A date is taken against the response's own `Date`**, so that a clock which is wrong does no harm. Only without one is the
//!   caller's clock read. All three forms of RFC 9110 §5.6.7 are understood. A date far away is a hint like any other: what
//!   to do about it is for [`max_server_delay`](crate::RetryPolicy::max_server_delay) to say.
//! * **The third row is read only where the call was refused for it**: on a 429, and on a 403 or 503 that says that nothing
//!   is left. Each of these headers has one beside it with what remains (`x-ratelimit-remaining`, `r=`). A limit of which
//!   something remains is not the one that was hit. Those of which nothing remains go before those of which that is unknown,
//!   and the latter count on a 429 only.
//! * **A number in a reset header is told apart by its size**, as some vendors send how long and others until when: below
//!   10⁹ (31 years) it is seconds from now, below 10¹¹ seconds since 1970, below 10¹⁴ milliseconds since 1970. A moment may also
//!   be written as in RFC 3339, with fractions and offsets, in any of them.
//!
//! Google's `RetryInfo`, which comes in the body, is read by
#![cfg_attr(feature = "gemini", doc = "[`gemini`](crate::gemini).")]
#![cfg_attr(not(feature = "gemini"), doc = "the `gemini` module.")]

mod date;
mod limits;
mod number;

use std::{
    cell::LazyCell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use number::{MILLISECOND, SECOND};

const MILLISECONDS: [&str; 3] = ["retry-after-ms", "x-ms-retry-after-ms", "x-amz-retry-after"];

/// How long a response asks to be left alone, if it does; never zero. The [module](self) says which headers are read.
///
/// `now` is called at most once, and only where a date has no `Date` beside it.
///
/// ```
/// use std::time::{Duration, SystemTime};
/// use http::{HeaderMap, StatusCode};
/// use tower_tenacity::policy::http::hints;
///
/// let mut headers = HeaderMap::new();
/// headers.insert("date", "Wed, 21 Oct 2015 07:28:00 GMT".parse().unwrap());
/// headers.insert("retry-after", "Wed, 21 Oct 2015 07:28:30 GMT".parse().unwrap());
/// let hint = hints::retry_after(StatusCode::SERVICE_UNAVAILABLE, &headers, SystemTime::now);
/// assert_eq!(hint, Some(Duration::from_secs(30)));
/// ```
#[must_use]
pub fn retry_after(status: StatusCode, headers: &HeaderMap, now: impl FnOnce() -> SystemTime) -> Option<Duration> {
    let clock = Clock::new(move || date_of(headers).unwrap_or_else(now));
    let milliseconds = MILLISECONDS
        .into_iter()
        .filter_map(|name| largest(headers, name, |text| number::duration(number::scaled(text, MILLISECOND)?)));
    milliseconds
        .max()
        .or_else(|| {
            largest(headers, header::RETRY_AFTER.as_str(), |text| match number::scaled(text, SECOND) {
                Some(nanos) => number::duration(nanos),
                None => until(httpdate::parse_http_date(std::str::from_utf8(text).ok()?).ok()?, &clock),
            })
        })
        .or_else(|| limits::reset(status, headers, &clock))
}

/// What the server says itself about another attempt, in `x-should-retry: true` or `false` (OpenAI, Anthropic); `None`
/// if it says nothing. Of two that contradict each other, `false` counts.
///
/// ```
/// use http::HeaderMap;
/// use tower_tenacity::policy::http::hints;
///
/// let mut headers = HeaderMap::new();
/// assert_eq!(hints::should_retry(&headers), None);
/// headers.insert("x-should-retry", "false".parse().unwrap());
/// assert_eq!(hints::should_retry(&headers), Some(false));
/// ```
#[must_use]
pub fn should_retry(headers: &HeaderMap) -> Option<bool> {
    let answers = headers.get_all("x-should-retry").iter().filter_map(|value| {
        let text = trimmed(value);
        if text.eq_ignore_ascii_case(b"true") {
            Some(true)
        } else if text.eq_ignore_ascii_case(b"false") {
            Some(false)
        } else {
            None
        }
    });
    answers.min()
}

/// Whether a rate limit says that nothing of it is left.
pub(super) fn nothing_remains(headers: &HeaderMap) -> bool {
    limits::nothing_remains(headers)
}

/// The moment a response was made: what it says itself, or else what the caller's clock says.
type Clock<F> = LazyCell<SystemTime, F>;

fn date_of(headers: &HeaderMap) -> Option<SystemTime> {
    let mut dates = headers.get_all(header::DATE).iter();
    dates.find_map(|value| httpdate::parse_http_date(value.to_str().ok()?).ok())
}

fn largest(headers: &HeaderMap, name: &str, read: impl Fn(&[u8]) -> Option<Duration>) -> Option<Duration> {
    headers.get_all(name).iter().filter_map(|value| read(trimmed(value))).max()
}

fn trimmed(value: &HeaderValue) -> &[u8] {
    value.as_bytes().trim_ascii()
}

/// The time that is left until `moment`, if any is.
fn until<F: FnOnce() -> SystemTime>(moment: SystemTime, clock: &Clock<F>) -> Option<Duration> {
    moment.duration_since(**clock).ok().filter(|left| !left.is_zero())
}

/// `nanos` after 1970.
fn since_1970(nanos: u128) -> Option<SystemTime> {
    UNIX_EPOCH.checked_add(number::duration(nanos)?)
}
