//! Moments as RFC 3339 writes them: `2026-11-26T10:00:00.5+01:00`.

use super::number::{self, SECOND};

/// Nanoseconds since 1970; what is less than one is rounded up. `None` for anything that is not of RFC 3339 §5.6, for a day that is
/// in no calendar, and for a moment before 1970.
pub(super) fn rfc3339(text: &[u8]) -> Option<u128> {
    let (date, rest) = text.split_at_checked(10)?;
    let (b'T' | b't' | b' ', time) = rest.split_first()? else { return None };
    let (whole_minutes, rest) = time.split_at_checked(6)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let (seconds, zone) = rest.split_at(end);

    let [y0, y1, y2, y3, b'-', month @ .., b'-', d0, d1] = date else { return None };
    let (year, month, day) = (digits(&[*y0, *y1, *y2, *y3])?, digits(month)?, digits(&[*d0, *d1])?);
    let [h0, h1, b':', m0, m1, b':'] = whole_minutes else { return None };
    let minutes = minutes(&[*h0, *h1], &[*m0, *m1])?;
    let east = match zone {
        [b'Z' | b'z'] => 0,
        [b'+', h0, h1, b':', m0, m1] => self::minutes(&[*h0, *h1], &[*m0, *m1])?,
        [b'-', h0, h1, b':', m0, m1] => -self::minutes(&[*h0, *h1], &[*m0, *m1])?,
        _ => return None,
    };
    // A leap second is the one after it.
    if digits(seconds.get(..2)?)? > 60 || seconds.get(2).is_some_and(|point| *point != b'.') {
        return None;
    }
    let minutes = u128::try_from(days(year, month, day)? * 24 * 60 + minutes - east).ok()?;
    Some(minutes * 60 * u128::from(SECOND) + number::scaled(seconds, SECOND)?)
}

/// Since 1970.
fn days(year: i64, month: i64, day: i64) -> Option<i64> {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let lengths = [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok()?;
    if !(1..=*lengths.get(before)?).contains(&day) {
        return None;
    }
    let leap_years_before = |year: i64| (year + 3) / 4 - (year + 99) / 100 + (year + 399) / 400;
    let years = 365 * (year - 1970) + leap_years_before(year) - leap_years_before(1970);
    Some(years + lengths[..before].iter().sum::<i64>() + day - 1)
}

fn minutes(hours: &[u8], minutes: &[u8]) -> Option<i64> {
    let (hours, minutes) = (digits(hours)?, digits(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

/// Of at most four digits.
fn digits(text: &[u8]) -> Option<i64> {
    text.iter().try_fold(0, |number, digit| digit.is_ascii_digit().then(|| number * 10 + i64::from(digit - b'0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const fn seconds(seconds: u128) -> Option<u128> {
        Some(seconds * SECOND as u128)
    }

    #[test]
    fn moments_are_read_as_the_rfc_writes_them() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", seconds(0)),
            ("1970-01-01T00:00:00.000000001Z", Some(1)),
            ("1970-01-01T00:00:00.0000000001Z", Some(1)),
            // RFC 3339 §5.8.
            ("1985-04-12T23:20:50.52Z", Some(482_196_050_520_000_000)),
            ("1996-12-19T16:39:57-08:00", seconds(851_042_397)),
            ("1990-12-31T23:59:60Z", seconds(662_688_000)),
            ("1990-12-31T15:59:60-08:00", seconds(662_688_000)),
            ("2026-11-26t10:00:00z", seconds(1_795_687_200)),
            ("2026-11-26 10:00:00-00:00", seconds(1_795_687_200)),
            ("2026-11-26T15:30:00+05:30", seconds(1_795_687_200)),
            ("2024-02-29T00:00:00Z", seconds(1_709_164_800)),
            ("9999-12-31T23:59:59Z", seconds(253_402_300_799)),
        ] {
            assert_eq!(rfc3339(text.as_bytes()), expected, "{text}");
        }
        for text in [
            "",
            "2026-11-26",
            "2026-11-26T10:00:00",
            "2026-11-26T10:00Z",
            "2026-11-26T10:00:00.Z",
            "2026-11-26T10:00:00.5.5Z",
            "2026-11-26T10:00:00,5Z",
            "2026-11-26T10:00:000Z",
            "2026-11-26T10:00:61Z",
            "2026-11-26T10:60:00Z",
            "2026-11-26T24:00:00Z",
            "2026-11-26T10:00:00+1:00",
            "2026-11-26T10:00:00+0100",
            "2026-11-26T10:00:00+24:00",
            "2026-11-26T10:00:00+01:60",
            "2026-11-26T10:00:00Z ",
            "2026-11-26T10:00:00ZZ",
            "2026-11-26_10:00:00Z",
            "2026-13-26T10:00:00Z",
            "2026-00-26T10:00:00Z",
            "2026-11-00T10:00:00Z",
            "2026-11-31T10:00:00Z",
            "2026-02-29T10:00:00Z",
            "1900-02-29T10:00:00Z",
            "2026-11-2６T10:00Z",
            "-026-11-26T10:00:00Z",
            "+026-11-26T10:00:00Z",
            "12026-11-26T10:00:00Z",
            "20261126T100000Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
        ] {
            assert_eq!(rfc3339(text.as_bytes()), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn days_are_counted_as_one_would_on_the_wall(
            (year, month, day) in (1970_i64..10_000, 1_i64..=12, 1_i64..=31),
            (hour, minute, second, nanos) in (0_i64..24, 0_i64..60, 0_i64..60, 0_i64..1_000_000_000),
            east in -1439_i64..1440,
        ) {
            let long = |year: i64| year % 4 == 0 && year % 100 != 0 || year % 400 == 0;
            let length = |month: i64| match month {
                2 => 28 + i64::from(long(year)),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            let mut days: i64 = (1970..year).map(|year| 365 + i64::from(long(year))).sum();
            days += (1..month).map(length).sum::<i64>() + day - 1;
            let moment = days * 86_400 + hour * 3_600 + minute * 60 + second - east * 60;
            let expected = u128::try_from(moment).ok().filter(|_| day <= length(month));
            let sign = if east < 0 { '-' } else { '+' };
            let (hours_east, minutes_east) = (east.abs() / 60, east.abs() % 60);
            let text = format!(
                "{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}{sign}{hours_east:02}:{minutes_east:02}"
            );
            let expected = expected.map(|seconds| seconds * u128::from(SECOND) + u128::try_from(nanos).expect("positive"));
            prop_assert_eq!(rfc3339(text.as_bytes()), expected, "{}", text);
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..40)) {
            rfc3339(&text);
        }

        #[test]
        fn nothing_like_a_moment_makes_it_panic(text in "[0-9]{3,5}-[0-9]{1,3}-[0-9]{1,3}[Tt ][0-9:.]{0,30}[-+Zz]?[0-9:]{0,8}") {
            rfc3339(text.as_bytes());
        }
    }
}
