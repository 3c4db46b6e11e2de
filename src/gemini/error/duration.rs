//! Delays as Google writes them.

use std::time::Duration;

use serde_json::Value;

/// Beyond a year nobody waits: such a hint is a mistake.
const LONGEST: f64 = 366.0 * 24.0 * 3600.0;

/// `"58s"`, `"0.539477544s"`, `"900.2ms"`, `"5h59m59.96s"`. `None` for whatever is malformed, negative or absurd, and
/// for zero, which asks for nothing.
pub(super) fn parse(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let scale = match unit {
            "d" => 86_400.0,
            "h" => 3_600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" => 1e-6,
            "ns" => 1e-9,
            _ => return None,
        };
        seconds += number.parse::<f64>().ok()? * scale;
        rest = tail;
    }
    from_seconds(seconds)
}

/// A `google.protobuf.Duration`: a string, or in some gateways an object of seconds and nanoseconds.
pub(super) fn from_json(value: &Value) -> Option<Duration> {
    match value {
        Value::String(text) => parse(text),
        Value::Object(fields) => {
            let number = |name: &str| match fields.get(name) {
                None => Some(0.0),
                Some(Value::String(text)) => text.parse().ok(),
                Some(value) => value.as_f64(),
            };
            from_seconds(number("seconds")? + number("nanos")? / 1e9)
        }
        _ => None,
    }
}

/// The longest delay a message asks for in prose: "Please retry in 58.2s.", "will reset after 5h59m59s."
pub(super) fn in_message(message: &str) -> Option<Duration> {
    let lower = message.to_ascii_lowercase();
    let delays = ["retry in ", "reset after ", "retry after "].into_iter().flat_map(|phrase| {
        lower.match_indices(phrase).filter_map(|(at, phrase)| {
            let word = lower[at + phrase.len()..].split_whitespace().next()?;
            parse(word.trim_end_matches(['.', ',', ';', ')', '"', '\'']))
        })
    });
    delays.max()
}

/// Whether a server can mean to be left alone for so long.
pub(super) fn is_believable(delay: &Duration) -> bool {
    delay.as_secs_f64() <= LONGEST
}

fn from_seconds(seconds: f64) -> Option<Duration> {
    if seconds > 0.0 && seconds <= LONGEST { Duration::try_from_secs_f64(seconds).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn delays_are_read_as_google_writes_them() {
        for (text, nanos) in [
            ("58s", 58_000_000_000),
            ("0.539477544s", 539_477_544),
            ("900.2ms", 900_200_000),
            ("58.217843437s", 58_217_843_437),
            ("5h59m59.96s", 21_599_960_000_000),
            ("1d", 86_400_000_000_000),
        ] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
        for text in
            ["", "s", "5", "-3s", "1e9s", "NaNs", "inf", "1.2.3s", "0s", "99999999999999999999s", "5x", "3ſ", "５s"]
        {
            assert_eq!(parse(text), None, "{text}");
        }
        assert_eq!(from_json(&json!({ "seconds": "3", "nanos": 500_000_000 })), Some(Duration::from_millis(3500)));
        for value in [json!(3), json!(null), json!({ "seconds": -1 }), json!({ "seconds": [] }), json!("soon")] {
            assert_eq!(from_json(&value), None);
        }
    }

    #[test]
    fn the_longest_delay_in_a_message_counts() {
        let message = "Please retry in 900.2ms. Your quota will reset after 5h59m59s.";
        assert_eq!(in_message(message), Some(Duration::from_secs(21_599)));
        assert_eq!(in_message("İ Please retry in 2s."), Some(Duration::from_secs(2)));
        assert_eq!(in_message("Your quota will reset after 0s."), None);
        assert_eq!(in_message("retry in a while, or retry in "), None);
    }
}
