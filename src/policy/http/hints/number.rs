//! Numbers and durations as headers spell them, in whole nanoseconds.

use std::time::Duration;

pub(super) const MILLISECOND: u64 = 1_000_000;
pub(super) const SECOND: u64 = 1_000_000_000;

/// From 1970 to the end of the year 9999, the last moment a date can name: longer than that is no delay.
const LONGEST: u128 = 253_402_300_799 * SECOND as u128;

/// More digits than this behind the point only decide whether the nanosecond is rounded up.
const DIGITS: usize = 18;

/// `12` or `1.5`, counted in units of `unit` nanoseconds; what is less than a nanosecond is rounded up. `None` for
/// anything else, and for more than fits.
pub(super) fn scaled(text: &[u8], unit: u64) -> Option<u128> {
    let (whole, fraction) = match text.iter().position(|byte| *byte == b'.') {
        None => (text, None),
        Some(point) => (&text[..point], Some(&text[point + 1..])),
    };
    let whole = digits(whole)?.checked_mul(u128::from(unit))?;
    let Some(fraction) = fraction else { return Some(whole) };
    let (read, rest) = fraction.split_at(fraction.len().min(DIGITS));
    // Below 10^18 · 10^14: it fits.
    let part = digits(read)? * u128::from(unit);
    let base = 10_u128.pow(u32::try_from(read.len()).ok()?);
    let below = match rest {
        [] => false,
        rest => digits_only(rest)?.iter().any(|digit| *digit != b'0'),
    };
    let up = part % base != 0 || below;
    whole.checked_add(part / base + u128::from(up))
}

/// `6m0s`, `20ms`, `1h2m3.5s`: numbers with units, as Go writes them.
pub(super) fn spelled(mut text: &[u8]) -> Option<u128> {
    let mut nanos = 0_u128;
    if text.is_empty() {
        return None;
    }
    while !text.is_empty() {
        let number = text.iter().position(u8::is_ascii_alphabetic)?;
        let (number, rest) = text.split_at(number);
        let unit = rest.iter().position(|byte| !byte.is_ascii_alphabetic()).unwrap_or(rest.len());
        let (unit, rest) = rest.split_at(unit);
        let unit = match unit {
            b"d" => 86_400 * SECOND,
            b"h" => 3_600 * SECOND,
            b"m" => 60 * SECOND,
            b"s" => SECOND,
            b"ms" => MILLISECOND,
            b"us" => 1_000,
            b"ns" => 1,
            _ => return None,
        };
        nanos = nanos.checked_add(scaled(number, unit)?)?;
        text = rest;
    }
    Some(nanos)
}

/// A delay, unless it is none or none that anybody could mean.
pub(super) fn duration(nanos: u128) -> Option<Duration> {
    if nanos == 0 || nanos > LONGEST {
        return None;
    }
    let second = u128::from(SECOND);
    Some(Duration::new(u64::try_from(nanos / second).ok()?, u32::try_from(nanos % second).ok()?))
}

fn digits(text: &[u8]) -> Option<u128> {
    digits_only(text)?
        .iter()
        .try_fold(0_u128, |number, digit| number.checked_mul(10)?.checked_add(u128::from(digit - b'0')))
}

fn digits_only(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty() && text.iter().all(u8::is_ascii_digit)).then_some(text)
}
