//! Which delay a response asks for: every header, every form, and everything that is none (law 13).
#![cfg(feature = "http")]

use std::{
    cell::Cell,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use proptest::prelude::*;
use tower_tenacity::policy::http::hints;

/// Sun, 06 Nov 1994 08:49:37 GMT, the example of RFC 9110.
const NOW: u64 = 784_111_777;
/// `NOW`, as some write it.
const DATE: (&str, &str) = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
/// Well in the future of `NOW`: Sun, 21 Sep 2025 09:46:40 GMT.
const LATER: (&str, &str) = ("date", "Sun, 21 Sep 2025 09:46:40 GMT");

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn map(headers: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap();
        map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value);
    }
    map
}

/// What is asked for, and whether the clock was read.
fn read(status: u16, headers: &[(&str, &str)]) -> (Option<Duration>, bool) {
    let clock_read = Cell::new(false);
    let hint = hints::retry_after(StatusCode::from_u16(status).unwrap(), &map(headers), || {
        assert!(!clock_read.replace(true), "the clock is read once at most");
        now()
    });
    (hint, clock_read.get())
}

type Row<'a> = (u16, &'a [(&'a str, &'a str)], Option<Duration>);

const fn s(seconds: u64) -> Option<Duration> {
    Some(Duration::from_secs(seconds))
}

const fn ms(milliseconds: u64) -> Option<Duration> {
    Some(Duration::from_millis(milliseconds))
}

const fn ns(nanoseconds: u64) -> Option<Duration> {
    Some(Duration::from_nanos(nanoseconds))
}

fn check(rows: &[Row<'_>], reads_the_clock: bool) {
    for (status, headers, expected) in rows {
        assert_eq!(read(*status, headers), (*expected, reads_the_clock), "{status} {headers:?}");
    }
}

#[test]
fn seconds_are_read() {
    let rows: &[Row<'_>] = &[
        (503, &[("retry-after", "120")], s(120)),
        (429, &[("Retry-After", "1")], s(1)),
        (301, &[("retry-after", "3")], s(3)),
        (413, &[("retry-after", "3600")], s(3600)),
        (503, &[("retry-after", "0007")], s(7)),
        (503, &[("retry-after", " \t5 ")], s(5)),
        (503, &[("retry-after", "1.5")], ms(1500)),
        (503, &[("retry-after", "0.001")], ms(1)),
        (503, &[("retry-after", "64.57")], ms(64_570)),
        (503, &[("retry-after", "2.0")], s(2)),
        // Rounded up, never down and never to nothing.
        (503, &[("retry-after", "0.0000000001")], ns(1)),
        (503, &[("retry-after", "1.0000000001")], ns(1_000_000_001)),
        (503, &[("retry-after", "0.00000000000000000000000000000001")], ns(1)),
        (503, &[("retry-after", "0.5000000000000000000000000000000")], ms(500)),
        // The latest moment a date can name, and that is a delay like any other.
        (503, &[("retry-after", "253402300799")], s(253_402_300_799)),
        (503, &[("retry-after", "4294967296")], s(4_294_967_296)),
    ];
    check(rows, false);
}

#[test]
fn what_is_no_number_is_ignored() {
    for value in [
        "",
        " ",
        "soon",
        "-1",
        "-0",
        "+5",
        "5s",
        "5 seconds",
        "5,6",
        "5;6",
        "1e3",
        "0x10",
        "1_000",
        "NaN",
        "nan",
        "inf",
        "Infinity",
        "-inf",
        ".",
        ".5",
        "5.",
        "1.2.3",
        "1..2",
        "٣",
        "５",
        "null",
        "\u{feff}5",
        "5\u{a0}",
        // No hint is not the same as one of zero, which is none either.
        "0",
        "0.0",
        "000",
        "0.000000000000000000000000000000",
        // Beyond the year 9999, and beyond any integer.
        "253402300800",
        "253402300799.1",
        "18446744073709551615",
        "18446744073709551616",
        "340282366920938463463374607431768211456",
        "99999999999999999999999999999999999999999999999999999999999999999999",
    ] {
        assert_eq!(read(503, &[("retry-after", value)]), (None, false), "{value}");
        assert_eq!(read(429, &[("retry-after", value), ("retry-after", "4")]), (s(4), false), "{value}");
        assert_eq!(read(429, &[("retry-after", value), ("ratelimit-reset", "9")]), (s(9), false), "{value}");
    }
}

#[test]
fn dates_are_taken_against_the_date_of_the_response() {
    let rows: &[Row<'_>] = &[
        // The three forms of RFC 9110.
        (503, &[DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], s(10)),
        (503, &[DATE, ("retry-after", "Sunday, 06-Nov-94 08:49:47 GMT")], s(10)),
        (503, &[DATE, ("retry-after", "Sun Nov  6 08:49:47 1994")], s(10)),
        (503, &[("date", "Sunday, 06-Nov-94 08:49:37 GMT"), ("retry-after", "Sun Nov  6 08:49:38 1994")], s(1)),
        (503, &[("date", "Sun Nov  6 08:49:37 1994"), ("retry-after", "Mon, 07 Nov 1994 08:49:37 GMT")], s(86_400)),
        // Now, and before.
        (503, &[DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:37 GMT")], None),
        (503, &[DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:36 GMT")], None),
        (503, &[DATE, ("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], None),
        // The server's clock is years ahead of ours: what counts is the difference.
        (503, &[LATER, ("retry-after", "Sun, 21 Sep 2025 09:47:00 GMT")], s(20)),
        (503, &[LATER, ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], None),
        // A huge one is a hint: it ends the call.
        (503, &[DATE, ("retry-after", "Fri, 31 Dec 9999 23:59:59 GMT")], s(253_402_300_799 - NOW)),
        // The largest of several, whatever their form.
        (503, &[DATE, ("retry-after", "7"), ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], s(10)),
        (503, &[DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"), ("retry-after", "70")], s(70)),
        // Of several dates the first that is one.
        (503, &[("date", "today"), DATE, ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], s(10)),
    ];
    check(rows, false);
}

#[test]
fn a_date_alone_is_taken_against_the_clock() {
    let rows: &[Row<'_>] = &[
        (503, &[("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], s(10)),
        (429, &[("retry-after", "Sunday, 06-Nov-94 09:49:37 GMT")], s(3600)),
        (503, &[("retry-after", "Sun Nov  6 08:49:37 1994")], None),
        (503, &[("retry-after", "Sun Nov  6 08:49:36 1994")], None),
        (503, &[("date", "yesterday"), ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT")], s(10)),
        // Twice a date, once the clock.
        (
            503,
            &[
                ("retry-after", "Sun, 06 Nov 1994 08:49:47 GMT"),
                ("retry-after", "Sun, 06 Nov 1994 08:49:57 GMT"),
                ("x-ratelimit-reset", "784111787"),
            ],
            s(20),
        ),
    ];
    check(rows, true);
}

#[test]
fn what_is_no_date_is_ignored() {
    for value in [
        "Sun, 06 Nov 1994 08:49:47",
        "Sun, 06 Nov 1994 08:49:47 CET",
        "Sun, 06 Nov 1994 08:49:47 +0000",
        "Mon, 06 Nov 1994 08:49:47 GMT",
        "Sun, 32 Nov 1994 08:49:47 GMT",
        "Sun, 06 Foo 1994 08:49:47 GMT",
        "Sun, 06 Nov 1994 24:00:00 GMT",
        "Sun, 06 Nov 1994 08:49:60 GMT",
        "Sun, 06 Nov 19944 08:49:47 GMT",
        "Sat, 01 Jan 10000 00:00:00 GMT",
        "Sun, 00 Jan 0000 00:00:00 GMT",
        "Sun Nov 31 08:49:47 1994",
        "1994-11-06T08:49:47Z",
        "tomorrow",
    ] {
        assert_eq!(read(503, &[DATE, ("retry-after", value)]), (None, false), "{value}");
        assert_eq!(read(503, &[DATE, ("retry-after", value), ("retry-after", "6")]), (s(6), false), "{value}");
    }
}

#[test]
fn milliseconds_go_first() {
    let rows: &[Row<'_>] = &[
        (429, &[("retry-after-ms", "250")], ms(250)),
        (500, &[("retry-after-ms", "1500.5")], Some(Duration::from_micros(1_500_500))),
        (429, &[("x-ms-retry-after-ms", "17")], ms(17)),
        (503, &[("x-amz-retry-after", "900")], ms(900)),
        (503, &[("x-amz-retry-after", "-900")], None),
        (503, &[("retry-after-ms", "253402300799000")], s(253_402_300_799)),
        (503, &[("retry-after-ms", "253402300799001")], None),
        (503, &[("retry-after-ms", "0.0000001")], ns(1)),
        (429, &[("retry-after-ms", "250"), ("retry-after", "1")], ms(250)),
        (429, &[("retry-after", "1"), ("x-ratelimit-reset", "60"), ("retry-after-ms", "2500")], ms(2500)),
        (429, &[("retry-after-ms", "100"), ("retry-after-ms", "300"), ("retry-after-ms", "200")], ms(300)),
        (429, &[("retry-after-ms", "100"), ("x-amz-retry-after", "101")], ms(101)),
        // One that says nothing leaves it to the next.
        (429, &[("retry-after-ms", "0"), ("retry-after", "1")], s(1)),
        (429, &[("retry-after-ms", "soon"), ("retry-after", "1")], s(1)),
        (429, &[("retry-after-ms", "-3"), ("retry-after", "0"), ("ratelimit-reset", "8")], s(8)),
    ];
    check(rows, false);
}

#[test]
fn a_reset_counts_where_the_limit_was_hit() {
    let reset = ("x-ratelimit-reset", "30");
    let rows: &[Row<'_>] = &[
        (429, &[reset], s(30)),
        (429, &[reset, ("x-ratelimit-remaining", "0")], s(30)),
        (403, &[reset, ("x-ratelimit-remaining", "0")], s(30)),
        (503, &[reset, ("x-ratelimit-remaining", "0")], s(30)),
        (403, &[reset, ("x-ratelimit-remaining", "0.0")], s(30)),
        // Another limit, or none at all.
        (429, &[reset, ("x-ratelimit-remaining", "57")], None),
        (403, &[reset, ("x-ratelimit-remaining", "57")], None),
        (403, &[reset], None),
        (503, &[reset], None),
        (403, &[reset, ("x-ratelimit-remaining", "none")], None),
        (429, &[reset, ("x-ratelimit-remaining", "none")], s(30)),
        (500, &[reset, ("x-ratelimit-remaining", "0")], None),
        (200, &[reset, ("x-ratelimit-remaining", "0")], None),
        (404, &[reset, ("x-ratelimit-remaining", "0")], None),
        // The server's own word goes first.
        (429, &[reset, ("retry-after", "2")], s(2)),
        (403, &[reset, ("retry-after", "2")], s(2)),
        // As X spells it.
        (429, &[("x-rate-limit-reset", "15"), ("x-rate-limit-remaining", "0")], s(15)),
        // The exhausted limit counts, not the longest.
        (429, &[reset, ("x-rate-limit-reset", "15"), ("x-rate-limit-remaining", "0")], s(15)),
        (429, &[reset, ("x-rate-limit-reset", "15")], s(30)),
        (429, &[("x-ratelimit-reset", "-30")], None),
        (429, &[("x-ratelimit-reset", "0"), ("x-ratelimit-remaining", "0")], None),
        (429, &[("x-ratelimit-reset", "5"), ("x-ratelimit-reset", "6")], s(6)),
    ];
    check(rows, false);
}

#[test]
fn a_moment_may_be_written_as_in_rfc_3339() {
    let left = ("x-ratelimit-remaining", "0");
    let reset = |value| ("x-ratelimit-reset", value);
    check(
        &[
            (429, &[LATER, reset("2025-09-21T09:47:40Z")], s(60)),
            (403, &[LATER, left, reset("2025-09-21T11:47:40.25+02:00")], ms(60_250)),
            (403, &[LATER, reset("2025-09-21T09:47:40Z")], None),
            (429, &[LATER, reset("2025-09-21T09:46:40Z")], None),
            (429, &[LATER, reset("2025-09-21T09:47:40")], None),
            (429, &[LATER, reset("2025-09-31T09:47:40Z")], None),
            (429, &[LATER, reset(" 2025-09-21 09:47:40z ")], s(60)),
            (429, &[LATER, reset("2025-09-21T09:47:40Z"), reset("90")], s(90)),
            (429, &[LATER, ("ratelimit", "limit=10, remaining=0, reset=2025-09-21T09:47:40Z")], s(60)),
            (
                429,
                &[
                    LATER,
                    ("anthropic-ratelimit-requests-remaining", "0"),
                    ("anthropic-ratelimit-requests-reset", "2025-09-21T09:46:52Z"),
                    ("anthropic-ratelimit-input-tokens-remaining", "0"),
                    ("anthropic-ratelimit-input-tokens-reset", "2025-09-21T09:47:10Z"),
                    ("anthropic-ratelimit-output-tokens-remaining", "8000"),
                    ("anthropic-ratelimit-output-tokens-reset", "2025-09-21T09:59:00Z"),
                ],
                s(30),
            ),
            (429, &[LATER, ("anthropic-ratelimit-tokens-reset", "2025-09-21T09:46:41Z"), ("retry-after", "7")], s(7)),
            (429, &[LATER, ("anthropic-ratelimit-tokens-reset", "2025-09-21T09:46:41Z")], s(1)),
            (500, &[LATER, left, reset("2025-09-21T09:47:40Z")], None),
        ],
        false,
    );
    check(&[(429, &[reset("1994-11-06T08:50:37Z")], s(60))], true);
}

#[test]
fn a_reset_is_a_time_or_a_moment() {
    let left = ("x-ratelimit-remaining", "0");
    let rows: &[Row<'_>] = &[
        // GitHub: seconds since 1970.
        (403, &[LATER, left, ("x-ratelimit-reset", "1758448060")], s(60)),
        (429, &[LATER, left, ("x-ratelimit-reset", "1758448000")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "1758447999")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "1758448000.25")], ms(250)),
        // Milliseconds since 1970.
        (429, &[LATER, left, ("x-ratelimit-reset", "1758448001500")], ms(1500)),
        (429, &[LATER, left, ("x-ratelimit-reset", "1758447999999")], None),
        // Where one becomes the other.
        (429, &[LATER, left, ("x-ratelimit-reset", "999999999")], s(999_999_999)),
        (429, &[LATER, left, ("x-ratelimit-reset", "1000000000")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "99999999999")], s(99_999_999_999 - 1_758_448_000)),
        (429, &[LATER, left, ("x-ratelimit-reset", "100000000000")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "99999999999999")], ms(99_999_999_999_999 - 1_758_448_000_000)),
        (429, &[LATER, left, ("x-ratelimit-reset", "100000000000000")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "99999999999999999999999999999999999999999")], None),
        (429, &[LATER, left, ("x-ratelimit-reset", "2025-09-21T09:47:40")], None),
    ];
    check(rows, false);
    assert_eq!(read(429, &[left, ("x-ratelimit-reset", "1758448060")]), (s(1_758_448_060 - NOW), true));
}

#[test]
fn durations_are_read_as_openai_writes_them() {
    let requests = "x-ratelimit-reset-requests";
    let tokens = "x-ratelimit-reset-tokens";
    let no_requests = ("x-ratelimit-remaining-requests", "0");
    let no_tokens = ("x-ratelimit-remaining-tokens", "0");
    let rows: &[Row<'_>] = &[
        (429, &[(requests, "1s")], s(1)),
        (429, &[(requests, "6m0s")], s(360)),
        (429, &[(requests, "20ms")], ms(20)),
        (429, &[(requests, "1h2m3.5s")], ms(3_723_500)),
        (429, &[(requests, "2m59.56s")], ms(179_560)),
        (429, &[(requests, "1d")], s(86_400)),
        (429, &[(requests, "17us3ns")], ns(17_003)),
        (429, &[(requests, "0.1ns")], ns(1)),
        (429, &[(requests, "12")], s(12)),
        (429, &[(requests, "0.25")], ms(250)),
        // Which of the two: the exhausted one, or the longer.
        (429, &[(requests, "1s"), (tokens, "6m0s")], s(360)),
        (429, &[(requests, "1s"), (tokens, "6m0s"), no_requests], s(1)),
        (429, &[(requests, "1s"), (tokens, "6m0s"), no_requests, no_tokens], s(360)),
        (429, &[(requests, "1s"), (tokens, "6m0s"), no_tokens], s(360)),
        (429, &[(requests, "8m"), (tokens, "6m0s"), no_tokens], s(360)),
        (429, &[(requests, "1s"), (tokens, "6m0s"), ("x-ratelimit-remaining-tokens", "149984")], s(1)),
        (503, &[(requests, "1s"), (tokens, "6m0s"), no_requests], s(1)),
        (503, &[(requests, "1s"), (tokens, "6m0s")], None),
        // Nothing left, but not said until when: then what else is known.
        (429, &[(requests, "?"), no_requests, (tokens, "6m0s")], s(360)),
        (429, &[(requests, "0s")], None),
        (429, &[(requests, "s")], None),
        (429, &[(requests, "6m0")], None),
        (429, &[(requests, "6x")], None),
        (429, &[(requests, "-6m")], None),
        (429, &[(requests, "1m-1s")], None),
        (429, &[(requests, "6 m")], None),
        (429, &[(requests, "1e3s")], None),
        (429, &[(requests, "5µs")], None),
        (429, &[(requests, "6M")], None),
        (429, &[(requests, "99999999999999999999d")], None),
        (429, &[(requests, "340282366920938463463374607431768211455d")], None),
        (429, &[(requests, "253402300799s1ns")], None),
    ];
    check(rows, false);
}

#[test]
fn the_drafts_of_the_ietf_are_read() {
    let name = "ratelimit";
    let rows: &[Row<'_>] = &[
        // Until -06: three headers.
        (429, &[("ratelimit-limit", "100"), ("ratelimit-remaining", "0"), ("ratelimit-reset", "50")], s(50)),
        (429, &[("RateLimit-Reset", "50")], s(50)),
        (429, &[("ratelimit-remaining", "1"), ("ratelimit-reset", "50")], None),
        (503, &[("ratelimit-remaining", "0"), ("ratelimit-reset", "50")], s(50)),
        // -07: a dictionary.
        (429, &[(name, "limit=100, remaining=0, reset=50")], s(50)),
        (429, &[(name, "limit=100,reset=50,remaining=0")], s(50)),
        (429, &[(name, "reset=50")], s(50)),
        (429, &[(name, "limit=100"), (name, "remaining=0"), (name, "reset=50")], s(50)),
        (429, &[(name, "limit=100, remaining=7, reset=50")], None),
        (403, &[(name, "reset=50")], None),
        (429, &[(name, "remaining=0, reset=50, remaining=7")], None),
        // Since -08: a list.
        (429, &[(name, r#""default";r=0;t=30"#)], s(30)),
        (403, &[(name, r#""default";r=0;t=30"#)], s(30)),
        (429, &[(name, r#""default"; r=0; t=30"#)], s(30)),
        (429, &[(name, r#""default";t=30;r=0;pk=:QXBwLTk5OQ==:"#)], s(30)),
        (429, &[(name, r#"default;r=0;t=30"#)], s(30)),
        (429, &[(name, r#""default";r=50;t=30"#)], None),
        (429, &[(name, r#""burst";r=0;t=30, "daily";r=9;t=3600"#)], s(30)),
        (429, &[(name, r#""burst";r=0;t=30,"daily";r=0;t=3600"#)], s(3600)),
        (429, &[(name, r#""burst";r=0;t=30"#), (name, r#""daily";r=0;t=3600"#)], s(3600)),
        (429, &[(name, r#""a,b;r=0;t=9";r=0;t=30"#)], s(30)),
        (429, &[(name, r#""a\",\"b\\";r=0;t=30"#)], s(30)),
        (429, &[(name, r#""a\";r=9";r=0;t=30"#)], s(30)),
        (429, &[(name, r#""a\\";r=0;t=30"#)], s(30)),
        (429, &[(name, r#""default";r=0"#)], None),
        (429, &[(name, r#""default";r=0;t=0"#)], None),
        (429, &[(name, r#""default";r=0;t=-30"#)], None),
        // Malformed: without what remains, without an end.
        (429, &[(name, r#""default";t=30"#)], None),
        (429, &[(name, r#""default;r=0;t=30"#)], None),
        (429, &[(name, ",,;;==\"")], None),
        (429, &[(name, "")], None),
        (429, &[(name, r#"oops, "daily";r=0;t=60"#)], s(60)),
        (429, &[(name, r#"";r=0;t=30, "daily";r=0;t=60"#)], None),
        (429, &[("ratelimit-policy", r#""default";q=100;w=10"#)], None),
        // The most specific word goes first.
        (429, &[(name, r#""default";r=0;t=30"#), ("retry-after", "40")], s(40)),
        (429, &[(name, r#""default";r=0;t=30"#), ("x-ratelimit-reset", "20")], s(30)),
    ];
    check(rows, false);
}

#[test]
fn what_is_not_text_is_ignored() {
    for bytes in [&b"\xff\xfe"[..], b"5\xff", b"\x80", b"Sun, 06 Nov 1994 08:49:47 GMT\xff"] {
        let value = HeaderValue::from_bytes(bytes).unwrap();
        for name in NAMES {
            let map = HeaderMap::from_iter([(HeaderName::from_static(name), value.clone())]);
            assert_eq!(hints::retry_after(StatusCode::TOO_MANY_REQUESTS, &map, now), None, "{name}: {bytes:?}");
            assert_eq!(hints::should_retry(&map), None, "{name}");
        }
    }
    assert_eq!(read(429, &[]), (None, false));
}

#[test]
fn a_server_may_say_whether_to_try_again() {
    let rows: &[(&[&str], Option<bool>)] = &[
        (&[], None),
        (&["true"], Some(true)),
        (&["false"], Some(false)),
        (&["True"], Some(true)),
        (&[" FALSE "], Some(false)),
        (&["yes"], None),
        (&["1"], None),
        (&["0"], None),
        (&[""], None),
        (&["truefalse"], None),
        (&["maybe", "true"], Some(true)),
        (&["true", "false"], Some(false)),
        (&["false", "true"], Some(false)),
    ];
    for (values, expected) in rows {
        let headers: Vec<_> = values.iter().map(|value| ("x-should-retry", *value)).collect();
        assert_eq!(hints::should_retry(&map(&headers)), *expected, "{values:?}");
    }
}

const NAMES: [&str; 21] = [
    "anthropic-ratelimit-tokens-reset",
    "anthropic-ratelimit-tokens-remaining",
    "date",
    "retry-after",
    "retry-after-ms",
    "x-ms-retry-after-ms",
    "x-amz-retry-after",
    "x-ratelimit-reset",
    "x-ratelimit-remaining",
    "x-rate-limit-reset",
    "x-rate-limit-remaining",
    "x-ratelimit-reset-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-tokens",
    "x-ratelimit-remaining-tokens",
    "ratelimit",
    "ratelimit-reset",
    "ratelimit-remaining",
    "ratelimit-policy",
    "x-should-retry",
    "age",
];

/// Bytes of every kind that a header can hold, and texts that look like what is read.
fn value() -> impl Strategy<Value = Vec<u8>> {
    let visible = |bytes: Vec<u8>| bytes.into_iter().filter(|byte| *byte >= 32 && *byte != 127).collect::<Vec<_>>();
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40).prop_map(visible),
        prop::collection::vec(prop::sample::select(b"0123456789.-+ deinfhmsru\"\\;,=:rt".to_vec()), 0..40),
        "[0-9]{0,45}(\\.[0-9]{0,45})?".prop_map(String::into_bytes),
        "([0-9]{1,20}(\\.[0-9]{1,20})?(ns|us|ms|s|m|h|d)){1,4}".prop_map(String::into_bytes),
        "(Sun|Mon|Sunday), [0-9]{2}[ -](Nov|Dec|Feb)[ -][0-9]{2,5} [0-9]{2}:[0-9]{2}:[0-9]{2} GMT"
            .prop_map(String::into_bytes),
        "[0-9]{4}-(0[1-9]|1[0-3])-[0-3][0-9][T ][0-2][0-9]:[0-5][0-9]:[0-6][0-9](\\.[0-9]{1,30})?(Z|[-+][0-2][0-9]:[0-5][0-9])"
            .prop_map(String::into_bytes),
        "\"[a-z,;=\\\\\"]{0,6}\";r=[0-9]{0,3};t=[0-9]{0,20}".prop_map(String::into_bytes),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn whatever_a_server_sends_is_a_hint_or_none(
        status in 100_u16..1000,
        headers in prop::collection::vec((prop::sample::select(NAMES.to_vec()), value()), 0..6),
        seconds in prop_oneof![Just(0), Just(NOW), any::<u32>().prop_map(u64::from), Just(u64::from(u32::MAX) * 50)],
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name, HeaderValue::from_bytes(&value).unwrap());
        }
        let status = StatusCode::from_u16(status).unwrap();
        let now = UNIX_EPOCH + Duration::from_secs(seconds);
        let hint = hints::retry_after(status, &map, || now);
        prop_assert!(hint.is_none_or(|hint| !hint.is_zero() && hint <= Duration::from_secs(253_402_300_799)));
        let _ = hints::should_retry(&map);
    }

    /// A moment never comes out earlier than it was meant.
    #[test]
    fn a_number_of_seconds_is_exact(seconds in 1_u64..253_402_300_799, nanos in 0_u64..1_000_000_000) {
        let value = format!("{seconds}.{nanos:09}");
        let (hint, _) = read(503, &[("retry-after", &value)]);
        prop_assert_eq!(hint, Some(Duration::new(seconds, u32::try_from(nanos).unwrap())));
    }
}
