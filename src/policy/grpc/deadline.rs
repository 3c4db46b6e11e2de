use std::time::Duration;

use http::{HeaderMap, HeaderValue, Request};

use crate::policy::{Attempt, CallOptions, hooks::Hooks};

const TIMEOUT: &str = "grpc-timeout";

const UNITS: [(u8, Duration); 6] = [
    (b'n', Duration::from_nanos(1)),
    (b'u', Duration::from_micros(1)),
    (b'm', Duration::from_millis(1)),
    (b'S', Duration::from_secs(1)),
    (b'M', Duration::from_secs(60)),
    (b'H', Duration::from_secs(3600)),
];

/// The time a call may take, as its request says it in `grpc-timeout`; `None` if it does not, or says it wrong.
///
/// At most eight digits and one of the units `H`, `M`, `S`, `m`, `u` and `n`, from hours to nanoseconds
/// ([PROTOCOL-HTTP2](https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#requests)). Zero is read as zero: the
/// time is up already.
///
/// As a setting of one call:
///
/// ```
/// use std::time::Duration;
/// use http::Request;
/// use tower_tenacity::{CallOptions, RetryPolicy, policy::grpc};
///
/// let policy = RetryPolicy::new().per_request(|request: &Request<String>| {
///     let options = CallOptions::new();
///     match grpc::timeout(request.headers()) {
///         Some(timeout) => options.timeout(timeout),
///         None => options.timeout(Duration::from_secs(30)),
///     }
/// });
/// # let _ = policy;
/// let request = Request::builder().header("grpc-timeout", "250m").body(()).unwrap();
/// assert_eq!(grpc::timeout(request.headers()), Some(Duration::from_millis(250)));
/// ```
///
/// [`deadline`] does that and passes on what is left of the time, too.
#[must_use]
pub fn timeout(headers: &HeaderMap) -> Option<Duration> {
    let (unit, digits) = headers.get(TIMEOUT)?.as_bytes().split_last()?;
    if !matches!(digits.len(), 1..=8) || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = digits.iter().fold(0, |number, digit| number * 10 + u32::from(digit - b'0'));
    let (_, size) = UNITS.iter().find(|(name, _)| name == unit)?;
    Some(*size * number)
}

// The time in the finest unit that takes eight digits, never more than there is, and never none.
fn header_value(left: Duration) -> Option<HeaderValue> {
    let nanos = left.as_nanos().max(1);
    let (number, unit) = UNITS
        .iter()
        .map(|(unit, size)| (nanos / size.as_nanos(), char::from(*unit)))
        .find(|(number, _)| *number <= 99_999_999)
        .unwrap_or((99_999_999, 'H'));
    HeaderValue::try_from(format!("{number}{unit}")).ok()
}

/// Takes a call's deadline from its request and tells the server, with each attempt, what is left of it.
///
/// A gRPC deadline holds for all attempts together. `grpc-timeout` becomes the call's
/// [timeout](crate::RetryPolicy::timeout), unless the policy's own is shorter; every attempt is sent with the time that is left.
/// The server keeps to that, and on this side tonic's channel does: it cuts an attempt that is under way. (What is left is also
/// among the extensions of each attempt by [`http::Deadlines`](crate::policy::http::Deadlines), which is in
/// [`RetryPolicy::grpc`](crate::RetryPolicy::grpc), for [`AttemptTimeoutLayer::http`](crate::timeout::AttemptTimeoutLayer::http).) Where
/// a [`per_request`](crate::RetryPolicy::per_request) sets a timeout as well, the shorter counts.
///
/// ```
/// use std::time::Duration;
/// use http::{Request, Response};
/// use tower::{ServiceExt, service_fn};
/// use tower_tenacity::{RetryPolicy, policy::grpc, retry::Retry, wait};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let policy = RetryPolicy::new().wait(wait::fixed(Duration::from_secs(2))).hook(grpc::deadline());
/// let service = service_fn(|request: Request<()>| async move {
///     let left = grpc::timeout(request.headers()).unwrap();
///     if left < Duration::from_secs(5) { Ok(left) } else { Err("not yet") }
/// });
/// let request = Request::builder().header("grpc-timeout", "6S").body(()).unwrap();
/// assert_eq!(Retry::new(policy, service).oneshot(request).await, Ok(Duration::from_secs(4)));
/// # }
/// ```
pub const fn deadline() -> Deadline {
    Deadline(())
}

/// Takes a call's deadline from its request; made by [`deadline`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Deadline(());

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for Deadline {
    fn options(&self, request: &Request<B>, options: &mut CallOptions) {
        if let Some(timeout) = timeout(request.headers()) {
            options.overlay(CallOptions::new().timeout(timeout));
        }
    }

    fn before_attempt(&self, attempt: &Attempt, request: &mut Request<B>) {
        let Some(left) = attempt.time_left() else { return };
        if timeout(request.headers()).is_some_and(|told| told <= left) {
            return;
        }
        if let Some(value) = header_value(left) {
            request.headers_mut().insert(TIMEOUT, value);
        }
    }

    fn is_timed(&self) -> bool {
        // A call that has a timeout is timed anyway.
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &[u8]) -> Option<Duration> {
        let mut headers = HeaderMap::new();
        headers.insert(TIMEOUT, HeaderValue::from_bytes(value).ok()?);
        timeout(&headers)
    }

    #[test]
    fn a_timeout_is_up_to_eight_digits_and_a_unit() {
        for (text, timeout) in [
            ("1H", Duration::from_secs(3600)),
            ("2M", Duration::from_secs(120)),
            ("30S", Duration::from_secs(30)),
            ("250m", Duration::from_millis(250)),
            ("82u", Duration::from_micros(82)),
            ("00000005n", Duration::from_nanos(5)),
            ("0S", Duration::ZERO),
            ("99999999H", Duration::from_secs(3600 * 99_999_999)),
        ] {
            assert_eq!(read(text.as_bytes()), Some(timeout), "{text}");
        }
        for text in ["", "S", "5", "5s", "123456789n", "-5S", "+5S", "1.5S", " 5S", "5 S", "5SS", "5\u{fc}", "\u{665}S"]
        {
            assert_eq!(read(text.as_bytes()), None, "{text}");
        }
        assert_eq!(timeout(&HeaderMap::new()), None);
    }

    #[test]
    fn a_timeout_is_written_in_the_finest_unit_that_fits() {
        for (left, text) in [
            (Duration::ZERO, "1n"),
            (Duration::from_nanos(99_999_999), "99999999n"),
            (Duration::from_nanos(100_000_000), "100000u"),
            (Duration::from_nanos(100_000_999), "100000u"),
            (Duration::from_secs(100), "100000m"),
            (Duration::from_secs(100_000), "100000S"),
            (Duration::from_secs(100_000_000), "1666666M"),
            (Duration::from_secs(6_000_000_000), "1666666H"),
            (Duration::MAX, "99999999H"),
        ] {
            assert_eq!(header_value(left).expect("a value"), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back_and_never_longer(secs in 0_u64..1 << 60, nanos in 0_u32..1_000_000_000) {
            let left = Duration::new(secs, nanos);
            let read = read(header_value(left).expect("a value").as_bytes()).expect("a timeout");
            prop_assert!(read <= left.max(Duration::from_nanos(1)));
            // All but the last of eight digits are kept.
            let most = Duration::from_secs(3600 * 99_999_999);
            prop_assert!(read >= left.min(most).mul_f64(1.0 - 2e-5), "{left:?} became {read:?}");
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..12)) {
            if let Some(timeout) = read(&bytes) {
                prop_assert!(timeout <= Duration::from_secs(3600 * 99_999_999));
            }
        }
    }
}
