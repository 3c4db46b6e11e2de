use std::fmt;

use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)+) => {
        /// What became of a gRPC call: one of the
        /// [seventeen codes](https://github.com/grpc/grpc/blob/master/doc/statuscodes.md) of gRPC, none of which will be
        /// added to.
        ///
        /// ```
        /// use tower_tenacity::policy::grpc::Code;
        ///
        /// assert_eq!(Code::from_number(14), Code::Unavailable);
        /// assert_eq!(Code::Unavailable.number(), 14);
        /// assert_eq!(Code::Unavailable.to_string(), "UNAVAILABLE");
        /// assert_eq!(Code::from_number(99), Code::Unknown);
        /// ```
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum Code {
            $($(#[$doc])* $name = $number,)+
        }

        impl Code {
            pub(super) const ALL: [Self; 17] = [$(Self::$name),+];

            /// The code with this number; [`Unknown`](Self::Unknown) for numbers that are no code, as gRPC has it.
            ///
            /// With tonic: `Code::from_number(tonic_code as i32)`.
            #[must_use]
            pub const fn from_number(number: i32) -> Self {
                match number {
                    $($number => Self::$name,)+
                    _ => Self::Unknown,
                }
            }

            /// The name in the specification, such as `RESOURCE_EXHAUSTED`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)+
                }
            }
        }
    };
}

codes! {
    /// Success.
    Ok = 0, "OK";
    /// Called off, usually by the caller.
    Cancelled = 1, "CANCELLED";
    /// An error of which nothing more is known.
    Unknown = 2, "UNKNOWN";
    /// The request is wrong whatever the state of the system.
    InvalidArgument = 3, "INVALID_ARGUMENT";
    /// The deadline passed; the call may have been carried out all the same.
    DeadlineExceeded = 4, "DEADLINE_EXCEEDED";
    /// What was asked for is not there.
    NotFound = 5, "NOT_FOUND";
    /// What was to be made is there already.
    AlreadyExists = 6, "ALREADY_EXISTS";
    /// The caller may not do this.
    PermissionDenied = 7, "PERMISSION_DENIED";
    /// A quota is used up, or a resource of the server.
    ResourceExhausted = 8, "RESOURCE_EXHAUSTED";
    /// The system has to be put into another state first.
    FailedPrecondition = 9, "FAILED_PRECONDITION";
    /// Lost against a concurrent operation.
    Aborted = 10, "ABORTED";
    /// Past the end of what there is.
    OutOfRange = 11, "OUT_OF_RANGE";
    /// There is no such method.
    Unimplemented = 12, "UNIMPLEMENTED";
    /// Something is broken.
    Internal = 13, "INTERNAL";
    /// The service cannot be reached or is not up to it at the moment.
    Unavailable = 14, "UNAVAILABLE";
    /// Data is gone or corrupted for good.
    DataLoss = 15, "DATA_LOSS";
    /// Nobody knows who the caller is.
    Unauthenticated = 16, "UNAUTHENTICATED";
}

impl Code {
    /// The number on the wire.
    #[must_use]
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// The code in `grpc-status`; [`Unknown`](Self::Unknown) for a value that is none, `None` without the header.
    ///
    /// Also for trailers.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        Some(match headers.get("grpc-status")?.as_bytes() {
            [digit @ b'0'..=b'9'] => Self::from_number(i32::from(digit - b'0')),
            [b'1', digit @ b'0'..=b'9'] => Self::from_number(10 + i32::from(digit - b'0')),
            _ => Self::Unknown,
        })
    }

    /// The code of a response as far as its head tells; `None` if the head is that of a gRPC response whose status is yet to come,
    /// in the trailers.
    ///
    /// Without a `grpc-status` it was not a gRPC server that answered, and the HTTP status decides, by the
    /// [mapping](https://github.com/grpc/grpc/blob/master/doc/http-grpc-status-mapping.md) of the specification. A
    /// status of 200 is left open unless the content type is something else than gRPC.
    ///
    /// ```
    /// use http::{Response, StatusCode};
    /// use tower_tenacity::policy::grpc::Code;
    ///
    /// let refused = Response::builder().header("grpc-status", "8").body(()).unwrap();
    /// assert_eq!(Code::of(&refused), Some(Code::ResourceExhausted));
    ///
    /// let from_a_proxy = Response::builder().status(StatusCode::BAD_GATEWAY).body(()).unwrap();
    /// assert_eq!(Code::of(&from_a_proxy), Some(Code::Unavailable));
    ///
    /// let under_way = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
    /// assert_eq!(Code::of(&under_way), None);
    /// ```
    #[must_use]
    pub fn of<B>(response: &http::Response<B>) -> Option<Self> {
        Self::from_headers(response.headers()).or_else(|| Self::from_http(response.status(), response.headers()))
    }

    fn from_http(status: StatusCode, headers: &HeaderMap) -> Option<Self> {
        Some(match status.as_u16() {
            200 => match headers.get(CONTENT_TYPE) {
                Some(value) if !is_grpc(value.as_bytes()) => Self::Unknown,
                _ => return None,
            },
            400 | 431 => Self::Internal,
            401 => Self::Unauthenticated,
            403 => Self::PermissionDenied,
            404 => Self::Unimplemented,
            429 | 502 | 503 | 504 => Self::Unavailable,
            _ => Self::Unknown,
        })
    }
}

// `application/grpc`, `application/grpc+proto`, `application/grpc-web`: the specification asks for the beginning only.
fn is_grpc(content_type: &[u8]) -> bool {
    const GRPC: &[u8] = b"application/grpc";
    content_type.get(..GRPC.len()).is_some_and(|start| start.eq_ignore_ascii_case(GRPC))
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of codes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Codes(u32);

impl Codes {
    pub(super) const fn only(code: Code) -> Self {
        Self(1 << code as u8)
    }

    pub(super) const fn with(self, code: Code) -> Self {
        Self(self.0 | Self::only(code).0)
    }

    pub(super) const fn without(self, code: Code) -> Self {
        Self(self.0 & !Self::only(code).0)
    }

    pub(super) const fn contains(self, code: Code) -> bool {
        self.0 & Self::only(code).0 != 0
    }
}

impl fmt::Debug for Codes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(Code::ALL.into_iter().filter(|code| self.contains(*code))).finish()
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Response};

    use super::*;

    #[test]
    fn every_code_is_read_back_from_its_number() {
        for (number, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code.number() as usize, number);
            assert_eq!(Code::from_number(code.number()), code);
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from(number));
            assert_eq!(Code::from_headers(&headers), Some(code));
        }
        for number in [-1, 17, i32::MAX, i32::MIN] {
            assert_eq!(Code::from_number(number), Code::Unknown);
        }
    }

    #[test]
    fn a_status_that_is_no_code_is_unknown() {
        for value in [&b""[..], b"17", b"99", b"014", b"1x", b"-1", b" 4", b"UNAVAILABLE", b"\xff", b"100"] {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-status", HeaderValue::from_bytes(value).expect("a header value"));
            assert_eq!(Code::from_headers(&headers), Some(Code::Unknown), "{value:?}");
        }
        assert_eq!(Code::from_headers(&HeaderMap::new()), None);
    }

    #[test]
    fn only_another_content_type_closes_a_200() {
        let code = |content_type: &'static str| {
            Code::of(&Response::builder().header(CONTENT_TYPE, content_type).body(()).expect("a response"))
        };
        for grpc in ["application/grpc", "application/grpc+proto", "Application/gRPC", "application/grpc-web+proto"] {
            assert_eq!(code(grpc), None, "{grpc}");
        }
        for other in ["text/html", "application/json", "", "application/grp"] {
            assert_eq!(code(other), Some(Code::Unknown), "{other}");
        }
        assert_eq!(Code::of(&Response::new(())), None);
    }

    #[test]
    fn sets_hold_what_was_put_in() {
        let set = Codes::only(Code::Unavailable).with(Code::Aborted).with(Code::Ok).without(Code::Ok);
        assert!(set.contains(Code::Aborted) && set.contains(Code::Unavailable) && !set.contains(Code::Ok));
        assert_eq!(format!("{set:?}"), "{Aborted, Unavailable}");
    }
}
