//! `Gemini<C>`: typed request in, typed response out, over any HTTP service.

mod address;
mod future;

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{HeaderName, HeaderValue, Method, Request, Response, header};
use http_body::Body;
use tower_service::Service;

use self::address::Address;
pub use self::future::ResponseFuture;
use super::{BoxError, Error, GenerateContent, GenerateContentResponse, HttpClient, RequestBody};
use crate::policy::http::mark_as_sent_before;

/// Largest response that is read unless [`Gemini::max_response_bytes`] says otherwise. The longest answer in text is
/// below 1 MiB; answers that hold pictures or sound reach some tens, and a response that goes on for ever must end.
const MAX_RESPONSE_BYTES: usize = 64 * 1024 * 1024;

const API_KEY: HeaderName = HeaderName::from_static("x-goog-api-key");
const USER_AGENT: HeaderValue = HeaderValue::from_static(concat!("tower-tenacity/", env!("CARGO_PKG_VERSION")));

/// A client of the Gemini API as a tower service, over any HTTP service `C`.
///
/// One call is one HTTP request: retries, cool-down and timeouts are layers around it, as the
/// [module](super)'s documentation shows. Clones share their settings and, with [`HttpClient`], their connections.
///
/// The API key travels in a header marked as sensitive, and is never shown.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// use tower::{ServiceExt, service_fn};
/// use tower_tenacity::gemini::{Gemini, GenerateContent, RequestBody};
///
/// // Any HTTP service will do; this one answers out of memory.
/// let http = service_fn(|request: http::Request<RequestBody>| async move {
///     assert_eq!(request.uri().path(), "/v1beta/models/gemini-2.5-flash:generateContent");
///     let body = r#"{"candidates":[{"content":{"parts":[{"text":"Paris"}]},"finishReason":"STOP"}]}"#;
///     Ok::<_, std::convert::Infallible>(http::Response::new(body.to_owned()))
/// });
/// let gemini = Gemini::with_transport(http, "my-key")?;
/// let response = gemini.oneshot(GenerateContent::new("gemini-2.5-flash").text("The capital of France?")).await?;
/// assert_eq!(response.text()?, "Paris");
/// # Ok::<_, Box<dyn std::error::Error>>(()) })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Gemini<C = HttpClient> {
    transport: C,
    settings: Arc<Settings>,
}

#[derive(Clone)]
struct Settings {
    address: Address,
    key: HeaderValue,
    max_response_bytes: usize,
}

impl Gemini<HttpClient> {
    /// A client with the API key of the environment: `GOOGLE_API_KEY`, or else `GEMINI_API_KEY`, as Google's own
    /// clients have it. `GOOGLE_GEMINI_BASE_URL` leads to another server: see [`base_url`](Gemini::base_url).
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](super::ErrorKind::Configuration) when there is no key, or what is there cannot be
    /// used.
    pub fn from_env() -> Result<Self, Error> {
        let settings = Settings::from_lookup(|name| Some(std::env::var_os(name)?.to_string_lossy().into_owned()))?;
        Ok(Self { transport: HttpClient::new()?, settings: Arc::new(settings) })
    }

    /// A client with this API key.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](super::ErrorKind::Configuration) when the key is empty, or has characters that no
    /// key has.
    pub fn new(api_key: impl AsRef<str>) -> Result<Self, Error> {
        Self::with_transport(HttpClient::new()?, api_key)
    }
}

impl<C> Gemini<C> {
    /// A client over an HTTP service of the caller's.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](super::ErrorKind::Configuration) when the key is empty, or has characters that no
    /// key has.
    pub fn with_transport(transport: C, api_key: impl AsRef<str>) -> Result<Self, Error> {
        Ok(Self { transport, settings: Arc::new(Settings::new(api_key.as_ref(), "the API key")?) })
    }

    /// Leads to another server, such as a gateway or a stand-in for tests. A path is kept as a prefix; `/v1beta/…` is
    /// appended to it.
    ///
    /// Plain `http` is accepted for this machine only (`localhost`, 127.0.0.0/8, `[::1]`): anywhere else the key
    /// would travel in the clear.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](super::ErrorKind::Configuration) when it is no such URL.
    pub fn base_url(mut self, url: impl AsRef<str>) -> Result<Self, Error> {
        Arc::make_mut(&mut self.settings).address = Address::parse(url.as_ref(), "the base URL")?;
        Ok(self)
    }

    /// The largest response that is accepted: 64 MiB by default. A larger one is
    /// [`ErrorKind::ResponseTooLarge`](super::ErrorKind::ResponseTooLarge), and no more of it is read.
    #[must_use]
    pub fn max_response_bytes(mut self, bytes: usize) -> Self {
        Arc::make_mut(&mut self.settings).max_response_bytes = bytes;
        self
    }

    /// The HTTP service.
    pub fn get_ref(&self) -> &C {
        &self.transport
    }

    /// The HTTP service, to be changed.
    pub fn get_mut(&mut self) -> &mut C {
        &mut self.transport
    }

    /// The HTTP service, and nothing else.
    pub fn into_inner(self) -> C {
        self.transport
    }
}

impl Settings {
    fn new(key: &str, whence: &str) -> Result<Self, Error> {
        let wrong = |what: &str| {
            Error::configuration(format!("{whence} {what}; get one at https://aistudio.google.com/apikey"))
        };
        if key.trim().is_empty() {
            return Err(wrong("is empty"));
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(wrong("has spaces, line breaks or characters that no key has"));
        }
        let mut key = HeaderValue::from_str(key).map_err(|_| wrong("cannot be used as a header"))?;
        key.set_sensitive(true);
        Ok(Self { address: Address::default(), key, max_response_bytes: MAX_RESPONSE_BYTES })
    }

    /// Reads the environment, or what stands in for it.
    fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, Error> {
        // An empty variable is an unset one, as for Google's clients.
        let get = |name: &'static str| Some((name, lookup(name).filter(|value| !value.is_empty())?));
        let Some((name, key)) = get("GOOGLE_API_KEY").or_else(|| get("GEMINI_API_KEY")) else {
            return Err(Error::configuration(
                "there is no API key: set GEMINI_API_KEY; get one at https://aistudio.google.com/apikey",
            ));
        };
        let mut settings = Self::new(&key, name)?;
        if let Some((_, url)) = get("GOOGLE_GEMINI_BASE_URL") {
            settings.address = Address::parse(&url, "the base URL in GOOGLE_GEMINI_BASE_URL")?;
        }
        Ok(settings)
    }

    fn request(&self, question: &GenerateContent) -> Result<Request<RequestBody>, Error> {
        let mut request = Request::new(RequestBody::new(question.to_bytes()?));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.address.generate_content(question.model())?;
        let headers = request.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(API_KEY, self.key.clone());
        if question.sent_before {
            mark_as_sent_before(request.extensions_mut());
        }
        if let Some(deadline) = question.until() {
            request.extensions_mut().insert(deadline);
        }
        Ok(request)
    }
}

impl<C: fmt::Debug> fmt::Debug for Gemini<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gemini")
            .field("transport", &self.transport)
            .field("base_url", &self.settings.address.to_string())
            .field("max_response_bytes", &self.settings.max_response_bytes)
            .finish_non_exhaustive()
    }
}

impl<C, B> Service<GenerateContent> for Gemini<C>
where
    C: Service<Request<RequestBody>, Response = Response<B>>,
    C::Error: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Response = GenerateContentResponse;
    type Error = Error;
    type Future = ResponseFuture<C::Future, B>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.transport.poll_ready(cx).map_err(|error| Error::transport(error.into()))
    }

    fn call(&mut self, question: GenerateContent) -> Self::Future {
        match self.settings.request(&question) {
            Ok(request) => {
                let settings = &self.settings;
                ResponseFuture::new(self.transport.call(request), settings.key.clone(), settings.max_response_bytes)
            }
            Err(error) => ResponseFuture::failed(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::ErrorKind;
    use super::*;

    fn lookup(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        Settings::from_lookup(|name| Some(variables.iter().find(|(own, _)| *own == name)?.1.to_owned()))
    }

    #[test]
    fn the_environment_is_read_as_by_googles_clients() {
        let key = |variables: &[(&str, &str)]| lookup(variables).ok().map(|settings| settings.key);
        assert_eq!(key(&[("GEMINI_API_KEY", "a"), ("GOOGLE_API_KEY", "b")]).expect("a key"), "b");
        assert_eq!(key(&[("GEMINI_API_KEY", "a"), ("GOOGLE_API_KEY", "")]).expect("a key"), "a");
        assert!(key(&[("GEMINI_API_KEY", "a")]).expect("a key").is_sensitive());
        let settings = lookup(&[("GEMINI_API_KEY", "a"), ("GOOGLE_GEMINI_BASE_URL", "http://localhost:80/x/")]);
        assert_eq!(
            settings.ok().map(|settings| settings.address.to_string()).as_deref(),
            Some("http://localhost:80/x")
        );
        for (variables, wanted) in [
            (&[][..], "set GEMINI_API_KEY"),
            (&[("GEMINI_API_KEY", " ")], "GEMINI_API_KEY is empty"),
            (&[("GOOGLE_API_KEY", "a b")], "GOOGLE_API_KEY has spaces"),
            (&[("GOOGLE_API_KEY", "a\n")], "GOOGLE_API_KEY has spaces"),
            (&[("GOOGLE_API_KEY", "ключ")], "characters"),
            (
                &[("GEMINI_API_KEY", "a"), ("GOOGLE_GEMINI_BASE_URL", "ftp://x")],
                "the base URL in GOOGLE_GEMINI_BASE_URL has to start with https:// (or http:// for this machine)",
            ),
        ] {
            let error = lookup(variables).err().expect("a configuration error");
            assert_eq!(error.kind(), ErrorKind::Configuration);
            assert!(error.to_string().contains(wanted), "{error}");
        }
    }

    #[test]
    fn the_key_is_not_shown() {
        let gemini = Gemini::with_transport((), "secret-key").expect("a client");
        assert!(!format!("{gemini:?}").contains("secret"));
        let request = gemini.settings.request(&GenerateContent::new("m").text("t")).expect("a request");
        assert!(!format!("{request:?}").contains("secret"));
        assert!(!Gemini::with_transport((), "ключ secret").expect_err("no key").to_string().contains("secret"));
    }
}
