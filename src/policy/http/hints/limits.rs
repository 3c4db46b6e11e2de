//! Headers that say when a rate limit is reset.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, StatusCode};

use super::{
    Clock, date, largest,
    number::{self, SECOND},
    since_1970, trimmed, until,
};

/// What remains of a limit, and when it is reset.
const LIMITS: [(&str, &str); 9] = [
    ("x-ratelimit-remaining", "x-ratelimit-reset"),
    ("x-rate-limit-remaining", "x-rate-limit-reset"),
    ("ratelimit-remaining", "ratelimit-reset"),
    ("x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    ("anthropic-ratelimit-requests-remaining", "anthropic-ratelimit-requests-reset"),
    ("anthropic-ratelimit-tokens-remaining", "anthropic-ratelimit-tokens-reset"),
    ("anthropic-ratelimit-input-tokens-remaining", "anthropic-ratelimit-input-tokens-reset"),
    ("anthropic-ratelimit-output-tokens-remaining", "anthropic-ratelimit-output-tokens-reset"),
];

/// How long until the limit that was hit is reset, where a response says that one was.
pub(super) fn reset<F>(status: StatusCode, headers: &HeaderMap, clock: &Clock<F>) -> Option<Duration>
where
    F: FnOnce() -> SystemTime,
{
    let throttled = match status {
        StatusCode::TOO_MANY_REQUESTS => true,
        StatusCode::FORBIDDEN | StatusCode::SERVICE_UNAVAILABLE => false,
        _ => return None,
    };
    let (mut exhausted, mut unknown) = (None, None);
    let mut see = |remaining, reset| match remaining {
        Some(Remaining::Nothing) => exhausted = exhausted.max(reset),
        Some(Remaining::Something) => {}
        None => unknown = unknown.max(reset),
    };
    for (remaining, reset) in LIMITS {
        let reset = largest(headers, reset, |text| self::moment(text, clock));
        if reset.is_some() {
            see(self::remaining(headers, remaining), reset);
        }
    }
    fields(headers, |remaining, reset| see(remaining, reset.and_then(|text| self::moment(text, clock))));
    exhausted.or(if throttled { unknown } else { None })
}

/// Whether any limit is used up.
pub(super) fn nothing_remains(headers: &HeaderMap) -> bool {
    let mut nothing =
        LIMITS.into_iter().any(|(remaining, _)| self::remaining(headers, remaining) == Some(Remaining::Nothing));
    fields(headers, |remaining, _| nothing |= remaining == Some(Remaining::Nothing));
    nothing
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Remaining {
    Something,
    Nothing,
}

impl Remaining {
    fn parse(text: &[u8]) -> Option<Self> {
        number::scaled(text, 1).map(|left| if left == 0 { Self::Nothing } else { Self::Something })
    }
}

fn remaining(headers: &HeaderMap, name: &str) -> Option<Remaining> {
    headers.get_all(name).iter().filter_map(|value| Remaining::parse(trimmed(value))).max()
}

/// A duration, a date, or a number: how long, or until when.
fn moment<F: FnOnce() -> SystemTime>(text: &[u8], clock: &Clock<F>) -> Option<Duration> {
    let Some(nanos) = number::scaled(text, SECOND) else {
        return match number::spelled(text) {
            Some(nanos) => number::duration(nanos),
            None => until(since_1970(date::rfc3339(text)?)?, clock),
        };
    };
    match nanos / u128::from(SECOND) {
        0..1_000_000_000 => number::duration(nanos),
        1_000_000_000..100_000_000_000 => until(since_1970(nanos)?, clock),
        // Milliseconds, read as seconds.
        100_000_000_000..100_000_000_000_000 => until(since_1970(nanos / 1_000)?, clock),
        _ => None,
    }
}

/// The limits in `RateLimit`, be they written as in draft -07, `limit=10, remaining=0, reset=30`, or as since draft -08,
/// `"burst";r=0;t=30, "daily";r=7;t=3600`.
fn fields<'a>(headers: &'a HeaderMap, mut see: impl FnMut(Option<Remaining>, Option<&'a [u8]>)) {
    let (mut left, mut reset) = (None, None);
    for value in headers.get_all("ratelimit") {
        for member in (Split { text: Some(value.as_bytes()), at: b',' }) {
            let mut parts = Split { text: Some(member), at: b';' };
            let name = parts.next().unwrap_or_default();
            match parameter(name) {
                Some((b"remaining", text)) => left = Remaining::parse(text),
                Some((b"reset", text)) => reset = Some(text),
                Some(_) => {}
                None => {
                    let (mut left, mut reset) = (None, None);
                    for part in parts {
                        match parameter(part) {
                            Some((b"r", text)) => left = Remaining::parse(text),
                            Some((b"t", text)) => reset = Some(text),
                            _ => {}
                        }
                    }
                    // An item without what remains is malformed, and as such to be ignored.
                    if left.is_some() {
                        see(left, reset);
                    }
                }
            }
        }
    }
    if left.is_some() || reset.is_some() {
        see(left, reset);
    }
}

/// `key=value`, unless it is a quoted string.
fn parameter(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = text.iter().position(|byte| matches!(byte, b'=' | b'"'))?;
    (text[equals] == b'=').then(|| (text[..equals].trim_ascii(), text[equals + 1..].trim_ascii()))
}

/// The pieces between separators that stand outside quotes, without the blanks around them.
struct Split<'a> {
    text: Option<&'a [u8]>,
    at: u8,
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let text = self.text.take()?;
        let (mut quoted, mut escaped) = (false, false);
        let end = text.iter().position(|byte| {
            let plain = !std::mem::take(&mut escaped);
            match byte {
                b'\\' if quoted && plain => escaped = true,
                b'"' if plain => quoted = !quoted,
                _ => return !quoted && *byte == self.at,
            }
            false
        });
        let piece = match end {
            None => text,
            Some(end) => {
                self.text = Some(&text[end + 1..]);
                &text[..end]
            }
        };
        Some(piece.trim_ascii())
    }
}
