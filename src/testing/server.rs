//! A Gemini API on a loopback socket.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::AUTHORIZATION;
use http::{HeaderMap, Method, Request, Response, Uri};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep};

use super::reply::{Break, CutShort, Reply, ReplyBody};

const API_KEY: &str = "x-goog-api-key";
const MAX_BODY: usize = 64 * 1024 * 1024;

/// A stand-in for the Gemini API that plays a script of [replies](Reply).
///
/// It speaks HTTP/1.1 on a loopback port of its own and knows one method,
/// `POST /v1beta/models/{model}:generateContent`. Each such request that carries a key gets the next reply of the
/// script; like the real API it refuses a request without a key (403) and knows nothing of other paths (404), and
/// those use up no reply. Every request that arrives whole is recorded, whatever it is answered. When the
/// script is used up the answer is a 400 `FAILED_PRECONDITION` that says so, an error nobody should retry.
///
/// Dropping the server closes its socket and all its connections.
///
/// See the [module](super) for an example.
#[derive(Debug)]
pub struct GeminiServer {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl GeminiServer {
    /// Starts a server that plays these replies, one for each request, in the order the requests arrive.
    ///
    /// # Errors
    ///
    /// If no loopback port can be bound.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime that has its I/O driver enabled.
    pub async fn start<I>(script: I) -> io::Result<Self>
    where
        I: IntoIterator<Item = Reply>,
    {
        let script = script.into_iter().collect();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let addr = listener.local_addr()?;
        let state = State { script, repeat_last: false, requests: Vec::new(), connections: 0 };
        let shared = Arc::new(Shared { state: Mutex::new(state), received: watch::Sender::new(0) });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Ok(Self { addr, shared, accepting })
    }

    /// Repeats the last reply of the script for ever, instead of running out of replies.
    #[must_use]
    pub fn repeat_last(self) -> Self {
        self.shared.lock().repeat_last = true;
        self
    }

    /// What to use instead of `https://generativelanguage.googleapis.com`: `http://127.0.0.1:port`.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// The address the server listens on.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The requests received so far, in the order they were complete.
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.lock().requests.clone()
    }

    /// Waits until `count` requests have been received, those before this call included.
    pub async fn received(&self, count: usize) {
        let mut received = self.shared.received.subscribe();
        // The sender lives in `self`, so this cannot fail.
        let _ = received.wait_for(|received| *received >= count).await;
    }

    /// How many connections were accepted so far.
    pub fn connections(&self) -> usize {
        self.shared.lock().connections
    }

    /// How many replies of the script have not been played yet.
    pub fn remaining(&self) -> usize {
        self.shared.lock().script.len()
    }
}

impl Drop for GeminiServer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// A request that a [`GeminiServer`] received.
///
/// The API key is there to assert on, and `Debug` does not show it.
#[derive(Clone)]
pub struct RecordedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    received_at: Instant,
}

impl RecordedRequest {
    /// The method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// The path, without a query.
    pub fn path(&self) -> &str {
        self.uri.path()
    }

    /// The query, without its question mark. Keys do not belong there, but may be.
    pub fn query(&self) -> Option<&str> {
        self.uri.query()
    }

    /// The model the path names, if it is one of `generateContent`.
    pub fn model(&self) -> Option<&str> {
        let model = self.path().strip_prefix("/v1beta/models/")?.strip_suffix(":generateContent")?;
        (!model.is_empty() && !model.contains(['/', ':'])).then_some(model)
    }

    /// The headers. The API key and `authorization` are marked as sensitive.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// The API key: the header `x-goog-api-key` or, as the real API accepts it too, `key` in the query. `None`
    /// if it is empty.
    pub fn api_key(&self) -> Option<&str> {
        let header = self.headers.get(API_KEY).and_then(|key| key.to_str().ok());
        let in_query = || self.query()?.split('&').find_map(|pair| pair.strip_prefix("key="));
        header.or_else(in_query).filter(|key| !key.is_empty())
    }

    /// The body.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The body as JSON.
    ///
    /// # Panics
    ///
    /// If it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("the request is no JSON: {error}"))
    }

    /// When the request was complete.
    pub fn received_at(&self) -> Instant {
        self.received_at
    }
}

impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // No query, which may hold a key, and of the body only its length.
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.path())
            .field("headers", &self.headers)
            .field("body", &format_args!("{} bytes", self.body.len()))
            .field("received_at", &self.received_at)
            .finish()
    }
}

/// What the server's handle and its tasks share.
struct Shared {
    state: Mutex<State>,
    received: watch::Sender<usize>,
}

struct State {
    script: VecDeque<Reply>,
    repeat_last: bool,
    requests: Vec<RecordedRequest>,
    connections: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a request and picks its reply in one step, so that replies go out in the order of the record.
    fn receive(&self, request: RecordedRequest) -> Reply {
        let mut state = self.lock();
        let reply = refusal(&request).unwrap_or_else(|| state.next_reply());
        state.requests.push(request);
        let count = state.requests.len();
        // Told while the lock is held, so that the count never goes down.
        self.received.send_replace(count);
        reply
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.lock();
        f.debug_struct("Shared")
            .field("requests", &state.requests.len())
            .field("connections", &state.connections)
            .field("remaining", &state.script.len())
            .finish_non_exhaustive()
    }
}

impl State {
    fn next_reply(&mut self) -> Reply {
        let next = match self.script.len() {
            1 if self.repeat_last => self.script.front().cloned(),
            _ => self.script.pop_front(),
        };
        next.unwrap_or_else(|| {
            let message = "script exhausted: the test's Gemini server has no reply left for this request";
            Reply::error(400, "FAILED_PRECONDITION", message, Value::Null)
        })
    }
}

/// What the API itself says of a request, before anything scripted.
fn refusal(request: &RecordedRequest) -> Option<Reply> {
    if request.method != Method::POST || request.model().is_none() {
        let message = format!(
            "{} {} is not found: this Gemini stand-in knows POST /v1beta/models/{{model}}:generateContent",
            request.method,
            request.path()
        );
        return Some(Reply::error(404, "NOT_FOUND", &message, Value::Null));
    }
    if request.api_key().is_none() {
        let message = "Method doesn't allow unregistered callers (callers without established identity). Please use \
            API Key or other form of API consumer identity to call this API.";
        return Some(Reply::error(403, "PERMISSION_DENIED", message, Value::Null));
    }
    None
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    // Dropped with this task, and the connections with it.
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                shared.lock().connections += 1;
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
            // Out of file descriptors, or the peer is gone already: neither is for ever.
            Err(_) => sleep(Duration::from_millis(10)).await,
        }
        while connections.try_join_next().is_some() {}
    }
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<ReplyBody>, CutShort>> + Send>>;

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    let broken = Arc::new(Mutex::new(None));
    let service = hyper::service::service_fn({
        let broken = Arc::clone(&broken);
        move |request| -> Answering {
            let (shared, broken) = (Arc::clone(&shared), Arc::clone(&broken));
            Box::pin(async move {
                answer(request, &shared).await.map_err(|how| {
                    *broken.lock().unwrap_or_else(PoisonError::into_inner) = Some(how);
                    CutShort
                })
            })
        }
    });
    let mut connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    // An error means that the client broke off, or that the script did: hyper has then given up the connection
    // without a word, and all that is left to choose is how the socket ends.
    let _ = poll_fn(|cx| connection.poll_without_shutdown(cx)).await;
    let stream = connection.into_parts().io.into_inner();
    if *broken.lock().unwrap_or_else(PoisonError::into_inner) == Some(Break::Reset) {
        let _ = stream.set_zero_linger();
    }
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<ReplyBody>, Break> {
    let (head, body) = request.into_parts();
    let body = match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => {
            let message = format!("Maximum request body size is {MAX_BODY} bytes.");
            return Reply::error(413, "INVALID_ARGUMENT", &message, json!([])).into_response();
        }
        Err(_) => return Err(Break::Close),
    };
    let mut headers = head.headers;
    for name in [API_KEY, AUTHORIZATION.as_str()] {
        for (_, value) in headers.iter_mut().filter(|(header, _)| header.as_str() == name) {
            value.set_sensitive(true);
        }
    }
    let (method, uri) = (head.method, head.uri);
    let reply = shared.receive(RecordedRequest { method, uri, headers, body, received_at: Instant::now() });
    if !reply.delay().is_zero() {
        sleep(reply.delay()).await;
    }
    reply.into_response()
}
