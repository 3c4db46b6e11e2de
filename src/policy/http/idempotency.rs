use http::{HeaderMap, HeaderName, Method, Request, header::UPGRADE};

use crate::policy::{CallOptions, hooks::Hooks};

static IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
static X_IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("x-idempotency-key");

/// Says whether a request may be sent again when the server may have seen it, whatever its method: put into the request's
/// extensions, and kept there by [`Idempotency`].
///
/// ```
/// use http::Request;
/// use tower_tenacity::policy::http::Idempotent;
///
/// // A search, though it is a POST.
/// let mut search = Request::post("/search").body("{}").unwrap();
/// search.extensions_mut().insert(Idempotent(true));
///
/// // Each of these takes a number from a queue, though it is a GET.
/// let ticket = Request::get("/ticket").extension(Idempotent(false)).body("").unwrap();
/// # let _ = ticket;
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Idempotent(
    /// Whether it may be sent again.
    pub bool,
);

/// Tells of each request whether it may be sent again when the server may have seen it already; hooks for
/// [`RetryPolicy::hook`](crate::RetryPolicy::hook).
///
/// It may if the first of these that applies says so:
///
/// 1. an [`Idempotent`] among its extensions, put there by the caller;
/// 2. a header `Idempotency-Key` that is not empty ([draft-ietf-httpapi-idempotency-key-header]), or
///    `X-Idempotency-Key`, its name at several payment services and the one Go's `net/http` looks for as well: the server knows
///    a request it has seen;
/// 3. its method: GET, HEAD, OPTIONS, TRACE, PUT and DELETE are idempotent ([RFC 9110 §9.2.2]), and so are QUERY, PROPFIND,
///    REPORT and SEARCH, registered as safe; POST, PATCH and methods unknown are not.
///
/// One that may not is sent again only if it [never reached](crate::classify::Class::Unsent) the server.
///
/// CONNECT and requests for an upgrade (RFC 9110 §7.8, §9.3.6) turn the connection into something else. They are sent once and
/// nothing is kept of them, which no later setting changes.
///
/// What one's own routes are is said by a later hook, which goes before this one:
///
/// ```
/// use tower_tenacity::{CallOptions, RetryPolicy, policy::http};
///
/// let policy = RetryPolicy::new().keep(http::FlatCopy).hook(http::Idempotency).per_request(|request: &::http::Request<_>| {
///     match request.uri().path() {
///         "/search" => CallOptions::new().idempotent(true),
///         "/ticket" => CallOptions::new().idempotent(false),
///         _ => CallOptions::new(),
///     }
/// });
/// # fn check<P: tower_tenacity::Policy<::http::Request<&'static str>, (), ()>>(_: &P) {} check(&policy);
/// ```
///
/// [draft-ietf-httpapi-idempotency-key-header]: https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/
/// [RFC 9110 §9.2.2]: https://www.rfc-editor.org/rfc/rfc9110#section-9.2.2
#[derive(Clone, Copy, Debug, Default)]
pub struct Idempotency;

impl<B, Kept, Res, E> Hooks<Request<B>, Kept, Res, E> for Idempotency {
    #[inline]
    fn options(&self, request: &Request<B>, options: &mut CallOptions) {
        let (method, headers) = (request.method(), request.headers());
        let said = request.extensions().get().map(|Idempotent(idempotent)| *idempotent);
        let idempotent = said.unwrap_or_else(|| is_idempotent(method));
        // The keys of a request matter where nothing else makes it idempotent; they are looked for together with what
        // makes it a tunnel.
        let found = if idempotent || said.is_some() {
            Found { upgrade: headers.contains_key(UPGRADE), key: false }
        } else {
            Found::among(headers)
        };
        if found.upgrade || *method == Method::CONNECT {
            // The connection is to become something else.
            options.limit_to_once();
        }
        if !(idempotent || found.key && has_key(headers)) {
            *options = options.idempotent(false);
        }
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}

#[inline]
fn is_idempotent(method: &Method) -> bool {
    method.is_idempotent()
        || (*method != Method::POST && matches!(method.as_str(), "QUERY" | "PROPFIND" | "REPORT" | "SEARCH"))
}

fn has_key(headers: &HeaderMap) -> bool {
    [&IDEMPOTENCY_KEY, &X_IDEMPOTENCY_KEY].into_iter().any(|name| headers.get(name).is_some_and(|key| !key.is_empty()))
}

/// What one look at all names finds.
#[derive(Default)]
struct Found {
    upgrade: bool,
    key: bool,
}

impl Found {
    fn among(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        for name in headers.keys() {
            match name.as_str() {
                "upgrade" => found.upgrade = true,
                "idempotency-key" | "x-idempotency-key" => found.key = true,
                _ => {}
            }
        }
        found
    }
}
