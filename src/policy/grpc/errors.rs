//! The codes of failures that have no response: of a stream that was reset, of a time that was up.
//!
//! But for our own, the types belong to crates that are not depended on, so they are recognised by what they display. The texts are those of h2
//! 0.4.20 (`src/error.rs`, `src/frame/reason.rs`), tonic 0.14.5 (`src/status.rs`) and tower 0.5.3.

use std::error::Error;

use super::Code;
use crate::{policy::classify::causes, timeout::TimedOut};

/// A chain that is longer goes in circles.
const DEPTH: usize = 32;

/// The code of the first cause that has one. A stream that was refused has none: it was never looked at, and that is more than a
/// code can say.
#[cold]
pub(super) fn code_of(outermost: &(dyn Error + 'static)) -> Option<Code> {
    causes(outermost).take(DEPTH).find_map(|error| {
        if error.is::<TimedOut>() {
            return Some(Code::DeadlineExceeded);
        }
        let shown = error.to_string();
        match &*shown {
            // tonic's channel, by `grpc-timeout` and `Endpoint::timeout`; tower's `Timeout`.
            "Timeout expired" | "request timed out" => Some(Code::DeadlineExceeded),
            _ => reset(shown.strip_prefix("stream error ")?.split_once(": ")?.1),
        }
    })
}

// https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md#errors, and INTERNAL for what is not in that table.
fn reset(reason: &str) -> Option<Code> {
    match reason {
        "refused stream before processing any application logic" => None,
        "stream no longer needed" => Some(Code::Cancelled),
        "detected excessive load generating behavior" => Some(Code::ResourceExhausted),
        "security properties do not meet minimum requirements" => Some(Code::PermissionDenied),
        _ => Some(Code::Internal),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use super::*;

    // As deep as it has texts.
    #[derive(Debug)]
    struct Shown(&'static str, Option<Box<Shown>>);

    impl Shown {
        fn chain(texts: &[&'static str]) -> Self {
            let (first, rest) = texts.split_first().expect("a text");
            Self(first, (!rest.is_empty()).then(|| Box::new(Self::chain(rest))))
        }
    }

    impl fmt::Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Shown {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(self.1.as_deref()?)
        }
    }

    #[test]
    fn resets_and_timeouts_have_codes_wherever_they_are() {
        for (text, code) in [
            ("Timeout expired", Some(Code::DeadlineExceeded)),
            ("request timed out", Some(Code::DeadlineExceeded)),
            ("stream error received: not a result of an error", Some(Code::Internal)),
            ("stream error received: unexpected internal error encountered", Some(Code::Internal)),
            ("stream error detected: unspecific protocol error detected", Some(Code::Internal)),
            ("stream error received: stream no longer needed", Some(Code::Cancelled)),
            ("stream error received: detected excessive load generating behavior", Some(Code::ResourceExhausted)),
            (
                "stream error received: security properties do not meet minimum requirements",
                Some(Code::PermissionDenied),
            ),
            ("stream error received: refused stream before processing any application logic", None),
            ("stream error ", None),
            ("connection error received: unexpected internal error encountered", None),
            ("tcp connect error", None),
            ("Timeout expired!", None),
            ("", None),
        ] {
            assert_eq!(code_of(&Shown::chain(&[text])), code, "{text}");
            assert_eq!(code_of(&Shown::chain(&["transport error", "http2 error", text])), code, "{text}");
        }
        let both = Shown::chain(&["Timeout expired", "stream error received: stream no longer needed"]);
        assert_eq!(code_of(&both), Some(Code::DeadlineExceeded), "the outermost one");
    }

    #[test]
    fn a_chain_without_an_end_has_one() {
        #[derive(Debug)]
        struct Circle;

        impl fmt::Display for Circle {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("round and round")
            }
        }

        impl Error for Circle {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(self)
            }
        }

        assert_eq!(code_of(&Circle), None);
    }
}
