//! The delay in `grpc-status-details-bin`: base64, in it a `google.rpc.Status`, in it a `google.rpc.RetryInfo`.
//!
//! Only as much of either format as that takes. Fields that are not known are skipped, whatever their type; a message
//! that ends in the middle of a field tells nothing at all.

use std::time::Duration;

use http::HeaderMap;

/// More than a server can send: header lists are limited to 8 or 16 KiB by default.
const LONGEST: usize = 64 * 1024;

/// 10 000 years, the most that a `google.protobuf.Duration` may hold.
const MOST_SECONDS: u64 = 315_576_000_000;

/// The longest delay that the status details ask for. One of zero asks for nothing.
pub(super) fn retry_delay(headers: &HeaderMap) -> Option<Duration> {
    headers
        .get_all("grpc-status-details-bin")
        .into_iter()
        .filter(|value| value.len() <= LONGEST)
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|encoded| in_status(&decode(encoded.trim_ascii())?))
        .max()
}

// Standard alphabet, with or without padding: gRPC asks receivers to take both.
fn decode(text: &[u8]) -> Option<Vec<u8>> {
    let text = match text {
        [unpadded @ .., b'=', b'='] | [unpadded @ .., b'='] if text.len() % 4 == 0 => unpadded,
        _ => text,
    };
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for letter in group {
            bits = bits << 6 | sextet(*letter)?;
        }
        let [_, first, second, third]: [u8; 4] = (bits << (6 * (4 - group.len()))).to_be_bytes();
        match group.len() {
            4 => bytes.extend([first, second, third]),
            3 => bytes.extend([first, second]),
            2 => bytes.push(first),
            _ => return None,
        }
    }
    Some(bytes)
}

fn sextet(letter: u8) -> Option<u32> {
    Some(u32::from(match letter {
        b'A'..=b'Z' => letter - b'A',
        b'a'..=b'z' => letter - b'a' + 26,
        b'0'..=b'9' => letter - b'0' + 52,
        b'+' => 62,
        b'/' => 63,
        _ => return None,
    }))
}

// Status { code = 1, message = 2, repeated Any details = 3 }
fn in_status(status: &[u8]) -> Option<Duration> {
    let mut longest = None;
    each_field(status, |number, value| {
        if let (3, Value::Bytes(any)) = (number, value) {
            longest = longest.max(in_any(any));
        }
    })?;
    longest
}

// Any { type_url = 1, value = 2 }
fn in_any(any: &[u8]) -> Option<Duration> {
    let (mut type_url, mut message): (&[u8], &[u8]) = (&[], &[]);
    each_field(any, |number, value| match (number, value) {
        (1, Value::Bytes(bytes)) => type_url = bytes,
        (2, Value::Bytes(bytes)) => message = bytes,
        _ => {}
    })?;
    // What counts of a type's address is what follows the last slash.
    let name = type_url.rsplit(|byte| *byte == b'/').next()?;
    if name == b"google.rpc.RetryInfo" { in_retry_info(message) } else { None }
}

// RetryInfo { Duration retry_delay = 1 }, Duration { int64 seconds = 1, int32 nanos = 2 }
fn in_retry_info(retry_info: &[u8]) -> Option<Duration> {
    let (mut seconds, mut nanos) = (0, 0_u32);
    let mut malformed = false;
    // If the field comes twice, both are one message.
    each_field(retry_info, |number, value| {
        if let (1, Value::Bytes(delay)) = (number, value) {
            let read = each_field(delay, |number, value| match (number, value) {
                (1, Value::Varint(value)) => seconds = value,
                // The upper half is that of a sign.
                (2, Value::Varint(value)) => nanos = value as u32,
                _ => {}
            });
            malformed |= read.is_none();
        }
    })?;
    // Negative numbers are huge ones here.
    if malformed || seconds > MOST_SECONDS || nanos > 999_999_999 {
        return None;
    }
    let delay = Duration::new(seconds, nanos);
    if delay.is_zero() { None } else { Some(delay) }
}

enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
}

// Calls `visit` with the fields of a protobuf message, without those of a kind that is of no interest here. `None` if the
// message is malformed, which may only come out at its end.
fn each_field<'a>(mut rest: &'a [u8], mut visit: impl FnMut(u64, Value<'a>)) -> Option<()> {
    // Groups, which protobuf gave up long ago, are skipped with all that is in them.
    let mut depth = 0_usize;
    while !rest.is_empty() {
        let key = varint(&mut rest)?;
        if key >> 3 == 0 {
            return None;
        }
        let value = match key & 7 {
            0 => Value::Varint(varint(&mut rest)?),
            2 => {
                let length = varint(&mut rest)?;
                Value::Bytes(take(&mut rest, length)?)
            }
            fixed @ (1 | 5) => {
                take(&mut rest, if fixed == 1 { 8 } else { 4 })?;
                continue;
            }
            3 => {
                depth += 1;
                continue;
            }
            4 => {
                depth = depth.checked_sub(1)?;
                continue;
            }
            _ => return None,
        };
        if depth == 0 {
            visit(key >> 3, value);
        }
    }
    (depth == 0).then_some(())
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if *byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in [
            ("", &b""[..]),
            ("Zg", b"f"),
            ("Zg==", b"f"),
            ("Zm8", b"fo"),
            ("Zm8=", b"fo"),
            ("Zm9v", b"foo"),
            ("Zm9vYg", b"foob"),
            ("Zm9vYmE=", b"fooba"),
            ("Zm9vYmFy", b"foobar"),
            ("+/+/", b"\xfb\xff\xbf"),
        ] {
            assert_eq!(decode(text.as_bytes()).as_deref(), Some(bytes), "{text}");
        }
        for text in ["Z", "Zm9vY", "Zg=", "Zm8==", "Z===", "=", "==", "====", "Zm9v====", "Zg==Zg==", "Zm9-", "Zm 9v"] {
            assert_eq!(decode(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn numbers_of_more_than_ten_bytes_are_malformed() {
        assert_eq!(varint(&mut &b"\x96\x01"[..]), Some(150));
        assert_eq!(varint(&mut &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"[..]), Some(u64::MAX));
        assert_eq!(varint(&mut &[0x80; 11][..]), None);
        assert_eq!(varint(&mut &b"\x80"[..]), None);
        assert_eq!(varint(&mut &b""[..]), None);
    }

    #[test]
    fn a_group_is_skipped_with_all_that_is_in_it() {
        let seen = |message: &[u8]| {
            let mut seen = Vec::new();
            each_field(message, |number, _| seen.push(number)).map(|()| seen)
        };
        // Field 1 = 1; group 2 { field 3 = 1; group 4 {} }; field 5 = 1.
        assert_eq!(seen(b"\x08\x01\x13\x18\x01\x23\x24\x14\x28\x01"), Some(vec![1, 5]));
        assert_eq!(seen(b"\x13\x18\x01"), None, "a group without an end");
        assert_eq!(seen(b"\x14"), None, "an end without a group");
        assert_eq!(seen(b"\x0e"), None, "no such kind of field");
        assert_eq!(seen(b"\x09\0\0\0\0\0\0\0\0\x15\0\0\0\0\x18\x01"), Some(vec![3]), "fixed ones");
    }
}
