//! What an error of a connection means.
//!
//! Most types here belong to crates that are not depended on, so they are recognised by what they display, and where that is
//! a common phrase, by what they show when debugged. The texts are those of hyper 1.12.0 (`src/error.rs`), hyper-util
//! 0.1.21 (`src/client/legacy`), h2 0.4.20 (`src/error.rs`, `src/frame/reason.rs`), rustls 0.23.46 (`src/error.rs`),
//! reqwest 0.13.5 (`src/error.rs`) and tower 0.5.3; `tests/http_transport.rs` makes the errors of these crates.
//!
//! A text matches as a whole or from its beginning, never somewhere inside: errors may quote URLs and what a server sent.

use std::{
    error::Error,
    fmt::{self, Write as _},
    io,
    sync::Arc,
    time::SystemTime,
};

use http::HeaderMap;

use super::status;
use crate::{
    body::BodyTooLarge,
    classify::{Class, causes, own_class},
};

/// A chain that is longer goes in circles.
const DEPTH: usize = 32;

/// The class of an error, by the outermost of its causes that says anything; `None` for no opinion.
#[cold]
pub(crate) fn class_of(outermost: &(dyn Error + 'static)) -> Option<Class> {
    match known_class_of(outermost) {
        Known::Class(class) => Some(class),
        Known::Foreign => None,
        Known::Nothing => Some(Class::transient()),
    }
}

/// Whether the body of the request failed while it was sent, whose source is on the caller's side. Such an error tells nothing of the
/// server.
#[cold]
pub(crate) fn has_failed_body(outermost: &(dyn Error + 'static)) -> bool {
    causes(outermost).take(DEPTH).any(|error| {
        let shown = Text::of(format_args!("{error}"));
        matches!(shown.as_str(), FAILED_BODY | ENDED_BODY) || shown.as_str().starts_with(FAILED_BODY_2)
    })
}

/// What is known about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Known {
    Class(Class),
    /// It is a matter for somebody else.
    Foreign,
    Nothing,
}

#[cold]
pub(crate) fn known_class_of(outermost: &(dyn Error + 'static)) -> Known {
    // While a connection is made nothing has been sent, whatever goes wrong.
    let mut connecting = false;
    for error in causes(outermost).take(DEPTH) {
        match Finding::of(error) {
            Finding::Nothing => {}
            Finding::Connecting => connecting = true,
            Finding::Is(Class::Transient { .. }) if connecting => break,
            Finding::Is(class) => return Known::Class(class),
            Finding::Foreign => return Known::Foreign,
        }
    }
    if connecting { Known::Class(Class::unsent()) } else { Known::Nothing }
}

/// What one error in a chain says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing; its cause may.
    Nothing,
    /// A connection was being made.
    Connecting,
    /// All there is to say.
    Is(Class),
    /// It is a matter for somebody else.
    Foreign,
}

/// `WSAHOST_NOT_FOUND`, `WSATRY_AGAIN`, `WSANO_RECOVERY`, `WSANO_DATA`.
const WINDOWS_LOOKUP: std::ops::RangeInclusive<i32> = 11_001..=11_004;

/// hyper's words for a body of a request that failed or was too short; and those of h2, where nothing else is told. hyper resets a stream
/// for that, and for nothing that leaves anybody to hear of it.
const FAILED_BODY: &str = "error from user's Body stream";
const ENDED_BODY: &str = "user body write aborted";
const FAILED_BODY_2: &str = "stream error sent by user: ";

const TRANSIENT: Finding = Finding::Is(Class::transient());
const UNSENT: Finding = Finding::Is(Class::unsent());
const THROTTLED: Finding = Finding::Is(Class::throttled(None));
const PERMANENT: Finding = Finding::Is(Class::Permanent);

impl Finding {
    fn of(error: &(dyn Error + 'static)) -> Self {
        let shown = Text::of(format_args!("{error}"));
        let debugged = Text::of(format_args!("{error:?}"));
        let (shown, debugged) = (shown.as_str(), debugged.as_str());
        let found = [
            io_error(error).map_or(Self::Nothing, |error| input_output(error, shown)),
            own_side(error, shown, debugged),
            client(shown, debugged),
            http(shown, debugged),
            http2(shown),
            tls(shown),
        ];
        found.into_iter().find(|found| *found != Self::Nothing).unwrap_or(Self::Nothing)
    }
}

fn io_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a io::Error> {
    error
        .downcast_ref()
        .or_else(|| error.downcast_ref::<Arc<io::Error>>().map(|error| &**error))
        .or_else(|| error.downcast_ref::<Box<io::Error>>().map(|error| &**error))
}

fn input_output(error: &io::Error, shown: &str) -> Finding {
    use io::ErrorKind as Kind;
    let from_the_system = error.get_ref().is_none();
    match error.kind() {
        // Only `connect` reports this, and it means that there is no connection.
        Kind::ConnectionRefused if from_the_system => UNSENT,
        Kind::PermissionDenied | Kind::InvalidInput | Kind::Unsupported => PERMANENT,
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::UnexpectedEof
        | Kind::TimedOut
        | Kind::HostUnreachable
        | Kind::NetworkUnreachable
        | Kind::NetworkDown
            if from_the_system =>
        {
            TRANSIENT
        }
        // `getaddrinfo` in the standard library. On Windows it is a bare number, whose text is in the user's language; elsewhere no
        // error has such a number.
        _ if shown.starts_with("failed to lookup address information: ") => UNSENT,
        _ if error.raw_os_error().is_some_and(|code| WINDOWS_LOOKUP.contains(&code)) => UNSENT,
        // The same where all that was kept is the text.
        _ if shown == "No such host is known. (os error 11001)" => UNSENT,
        _ => Finding::Nothing,
    }
}

/// Errors of layers of our own stack: refusals, where the request went no further than to them, and answers that are too long.
fn own_side(error: &(dyn Error + 'static), shown: &str, debugged: &str) -> Finding {
    if let Some(class) = own_class(error) {
        return Finding::Is(class);
    }
    if let Some(too_large) = error.downcast_ref::<BodyTooLarge>() {
        // The same answer would be as long the next time; a failure is the failure it is, however long its page.
        return match status::class_of(too_large.status(), &HeaderMap::new(), None, SystemTime::now) {
            Class::Success => PERMANENT,
            class => Finding::Is(class),
        };
    }
    match (shown, debugged) {
        // tower's `LoadShed`. Its error is empty; what somebody else calls overloaded may have come from the server.
        ("service overloaded", "Overloaded") if size_of_val(error) == 0 => UNSENT,
        // tower's `Buffer`, whose worker is gone for good.
        ("buffer's worker closed unexpectedly", "Closed") => PERMANENT,
        _ => Finding::Nothing,
    }
}

/// hyper-util's client and its connectors, and reqwest.
fn client(shown: &str, debugged: &str) -> Finding {
    match shown {
        "client error (Connect)" => Finding::Connecting,
        // Handed back by the connection before anything of it was written.
        "client error (Canceled)" => UNSENT,
        "client error (UserUnsupportedRequestMethod)"
        | "client error (UserUnsupportedVersion)"
        | "client error (UserAbsoluteUriRequired)" => PERMANENT,
        // The connectors, which can be used without the client.
        "invalid URL, scheme is not http" | "invalid URL, scheme is missing" | "invalid URL, host is missing" => {
            PERMANENT
        }
        "tunnel error: proxy authorization required" | "tunnel error: missing destination host" => PERMANENT,
        "missing scheme" => PERMANENT,
        _ if shown.starts_with("unsupported scheme ") => PERMANENT,
        _ if debugged.starts_with("ConnectError(\"dns error\"") || debugged.starts_with("ConnectError(\"tcp ") => {
            Finding::Connecting
        }
        _ => match debugged.strip_prefix("reqwest::Error { kind: ") {
            Some(kind) if ["Builder", "Redirect", "Upgrade"].iter().any(|known| kind.starts_with(known)) => PERMANENT,
            // What `error_for_status` makes of a response; `x-should-retry` and delays are lost in it.
            Some(kind) if kind.starts_with("Status(") => status_of(&kind["Status(".len()..]),
            _ => Finding::Nothing,
        },
    }
}

fn status_of(text: &str) -> Finding {
    match text.get(..3) {
        Some("429") => THROTTLED,
        Some("408" | "425" | "500" | "502" | "503" | "504") => TRANSIENT,
        _ => PERMANENT,
    }
}

/// hyper.
fn http(shown: &str, debugged: &str) -> Finding {
    match shown {
        // A request that was still waiting in the queue of its connection. The same words are used for an upgrade that
        // did not come, which is none of these.
        "operation was canceled" => {
            let queued = ["\"connection was not ready\"", "\"connection closed\"", "hyper::Error("];
            match debugged.split_once("hyper::Error(Canceled, ") {
                Some((_, cause)) if queued.iter().any(|known| cause.starts_with(known)) => UNSENT,
                _ => TRANSIENT,
            }
        }
        // One of the bodies was under way, so no cause can show that the request was not sent.
        "error reading a body from connection" | "error writing a body to connection" => TRANSIENT,
        // The task of the connection is gone, and with it the knowledge of how far it came.
        "dispatch task is gone" => TRANSIENT,
        "connection closed before message completed" | "received unexpected message from connection" => TRANSIENT,
        // What failed is on the caller's side of the request, and so are the causes.
        FAILED_BODY
        | ENDED_BODY
        | "user sent CONNECT request with non-zero body"
        | "error from user's Service"
        | "user sent unexpected header"
        | "no upgrade available"
        | "upgrade expected but low level API in use"
        | "operation aborted by an application callback" => PERMANENT,
        "message head is too large" => PERMANENT,
        // tonic: what a call came to is not for a classifier of HTTP responses to say.
        _ => match debugged.strip_prefix("Status { code: ") {
            Some(code) if code.starts_with(|first: char| first.is_ascii_uppercase()) => Finding::Foreign,
            _ => Finding::Nothing,
        },
    }
}

/// h2.
fn http2(shown: &str) -> Finding {
    match shown {
        "stream error received: refused stream before processing any application logic" => return UNSENT,
        // The connection has no numbers left for streams.
        "user error: stream ID overflowed" => return UNSENT,
        // The stream ended while its body was sent.
        "user error: inactive stream" => return TRANSIENT,
        _ if shown.starts_with("user error: ") => return PERMANENT,
        _ if shown.starts_with(FAILED_BODY_2) => return PERMANENT,
        _ => {}
    }
    let stream = shown.strip_prefix("stream error received: ");
    let connection = shown.strip_prefix("connection error received: ");
    // A connection error may end in what the server wrote beside it.
    let reason = stream.or_else(|| connection.map(|text| text.split_once(" (b\"").map_or(text, |(reason, _)| reason)));
    match reason {
        // h2 fails a stream with the server's `GOAWAY` only where the number of the stream is above the last one the server
        // will look at, and refuses to open one after it; the others end with the connection. (hyper asks whether it may open
        // another stream right after it opened one, and gives that one up if the frame came in between, on another thread.
        // Nothing in the error tells the two apart.)
        Some("not a result of an error") if connection.is_some() => UNSENT,
        Some("detected excessive load generating behavior") => THROTTLED,
        Some("endpoint requires HTTP/1.1" | "security properties do not meet minimum requirements") => PERMANENT,
        Some(_) => TRANSIENT,
        None => Finding::Nothing,
    }
}

/// rustls, and what OpenSSL says of certificates.
fn tls(shown: &str) -> Finding {
    const UNCHANGING: [&str; 8] = [
        "invalid peer certificate: ",
        "invalid certificate revocation list: ",
        "peer sent no certificates",
        "presented server name type wasn't supported",
        "peer is incompatible: ",
        "peer doesn't support any known protocol",
        "invalid dns name",
        "invalid dnsname",
    ];
    // What the server thinks of our certificate, our versions and our ciphers, which are the same the next time.
    const ALERTS: [&str; 16] = [
        "HandshakeFailure",
        "NoCertificate",
        "BadCertificate",
        "UnsupportedCertificate",
        "CertificateRevoked",
        "CertificateExpired",
        "CertificateUnknown",
        "UnknownCA",
        "AccessDenied",
        "ProtocolVersion",
        "InsufficientSecurity",
        "UnrecognisedName",
        "UnknownPSKIdentity",
        "CertificateRequired",
        "NoApplicationProtocol",
        "MissingExtension",
    ];
    let permanent = match shown.strip_prefix("received fatal alert: ") {
        Some(alert) => ALERTS.contains(&alert),
        None => {
            UNCHANGING.iter().any(|text| shown.starts_with(text))
                || (shown.starts_with("error:") && shown.contains(":certificate verify failed:"))
        }
    };
    if permanent { PERMANENT } else { Finding::Nothing }
}

/// The beginning of a text, on the stack: what is further down decides nothing, and may be long.
struct Text {
    bytes: [u8; 256],
    len: usize,
}

impl Text {
    fn of(text: fmt::Arguments<'_>) -> Self {
        let mut beginning = Self { bytes: [0; 256], len: 0 };
        // An error only says that the rest was cut off.
        let _ = beginning.write_fmt(text);
        beginning
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let room = self.bytes.len() - self.len;
        let fits = (0..=text.len().min(room)).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
        self.bytes[self.len..self.len + fits].copy_from_slice(&text.as_bytes()[..fits]);
        self.len += fits;
        if fits == text.len() { Ok(()) } else { Err(fmt::Error) }
    }
}
