//! The HTTP client that is used unless another is given: hyper-util over rustls.

use std::convert::Infallible;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{self, Client, connect::HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tower_service::Service;

use super::Error;

/// The body of a request to Gemini: some bytes, shared with whoever sends them again.
#[derive(Clone, Default)]
pub struct RequestBody(Option<Bytes>);

impl RequestBody {
    pub(super) fn new(bytes: Bytes) -> Self {
        Self(Some(bytes).filter(|bytes| !bytes.is_empty()))
    }

    /// What has not been sent yet.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody")
            .field("bytes", &self.as_bytes().len())
            .finish()
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.as_bytes().len() as u64)
    }
}

/// An HTTP client for [`Gemini`](super::Gemini): HTTP/1.1 and HTTP/2 over TLS, with the root certificates compiled in.
///
/// Clones share one pool of connections. There is no limit on how long a response may take: models think for
/// minutes, so that belongs in a timeout layer around the client.
#[derive(Clone)]
pub struct HttpClient {
    client: Client<HttpsConnector<HttpConnector>, RequestBody>,
}

/// Settings of an [`HttpClient`].
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::gemini::{Gemini, HttpClient};
///
/// let client = HttpClient::builder().connect_timeout(Duration::from_secs(3)).build()?;
/// let gemini = Gemini::with_transport(client, "my-key")?;
/// # Ok::<(), tower_tenacity::gemini::Error>(())
/// ```
#[derive(Clone, Copy, Debug)]
#[must_use = "nothing is built before `build`"]
pub struct HttpClientBuilder {
    connect_timeout: Duration,
    pool_idle_timeout: Duration,
    keep_alive: Duration,
}

impl HttpClientBuilder {
    /// How long it may take to connect to one of the server's addresses: 10 s by default.
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long a connection is kept that nobody uses: 90 s by default, as hyper has it.
    pub const fn pool_idle_timeout(mut self, timeout: Duration) -> Self {
        self.pool_idle_timeout = timeout;
        self
    }

    /// How long a connection may be silent before the server is asked whether it is still there: 30 s by default. It is
    /// what notices, under a call that lasts for minutes, that the network is gone.
    pub const fn keep_alive(mut self, interval: Duration) -> Self {
        self.keep_alive = interval;
        self
    }

    /// Builds the client. It opens no connection.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Configuration`](super::ErrorKind::Configuration) when TLS cannot be set up.
    pub fn build(self) -> Result<HttpClient, Error> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_nodelay(true);
        http.set_connect_timeout(Some(self.connect_timeout));
        http.set_keepalive(Some(self.keep_alive));
        // The provider is named here, so that it does not matter what the process has installed.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(provider)
            .map_err(|error| Error::configuration("TLS cannot be set up").because(Box::new(error)))?
            .https_or_http()
            .enable_http1()
            .enable_http2()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(self.pool_idle_timeout)
            .http2_keep_alive_interval(self.keep_alive)
            .http2_adaptive_window(true)
            .build(connector);
        Ok(HttpClient { client })
    }
}

impl HttpClient {
    /// A client with the defaults.
    ///
    /// # Errors
    ///
    /// See [`HttpClientBuilder::build`].
    pub fn new() -> Result<Self, Error> {
        Self::builder().build()
    }

    /// The settings, to be changed.
    pub const fn builder() -> HttpClientBuilder {
        HttpClientBuilder {
            connect_timeout: Duration::from_secs(10),
            pool_idle_timeout: Duration::from_secs(90),
            keep_alive: Duration::from_secs(30),
        }
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").finish_non_exhaustive()
    }
}

impl Service<Request<RequestBody>> for HttpClient {
    type Response = Response<ResponseBody>;
    type Error = TransportError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), TransportError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<RequestBody>) -> HttpFuture {
        HttpFuture {
            inner: self.client.request(request),
        }
    }
}

/// The future of an [`HttpClient`].
#[must_use = "futures do nothing unless polled"]
pub struct HttpFuture {
    inner: legacy::ResponseFuture,
}

impl Future for HttpFuture {
    type Output = Result<Response<ResponseBody>, TransportError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.inner)
            .poll(cx)
            .map(|outcome| match outcome {
                Ok(response) => Ok(response.map(|inner| ResponseBody { inner })),
                Err(error) => Err(TransportError {
                    connect: error.is_connect(),
                    source: Box::new(error),
                }),
            })
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}

/// The body of a response to an [`HttpClient`].
#[derive(Debug)]
pub struct ResponseBody {
    inner: hyper::body::Incoming,
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        Pin::new(&mut self.inner)
            .poll_frame(cx)
            .map_err(|error| TransportError {
                connect: false,
                source: Box::new(error),
            })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// A connection that could not be made, or was lost.
#[derive(Debug)]
pub struct TransportError {
    connect: bool,
    source: super::BoxError,
}

impl TransportError {
    /// Whether the connection was never made, so that the request cannot have reached the server.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        self.connect
    }
}

impl fmt::Display for TransportError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.connect {
            "no connection could be made"
        } else {
            "the connection was lost"
        })
    }
}

impl StdError for TransportError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.source)
    }
}
