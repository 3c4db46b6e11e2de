use std::{
    collections::VecDeque,
    convert::Infallible,
    fmt, io,
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinSet,
    time::Instant,
};

use super::{Reply, reply::Action};

// A test that sends more than this is after something else.
const MAX_REQUEST: usize = 64 * 1024 * 1024;

/// A Gemini stand-in on loopback that plays a script; see the [module](crate::testing). Dropping it closes everything.
#[derive(Debug)]
pub struct GeminiServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    received: watch::Receiver<usize>,
    // Aborted, with every connection, when dropped.
    _task: JoinSet<()>,
}

struct Shared {
    log: Mutex<Log>,
    received: watch::Sender<usize>,
}

#[derive(Default)]
struct Log {
    replies: VecDeque<Reply>,
    requests: Vec<RecordedRequest>,
    connections: usize,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let log = self.log();
        f.debug_struct("Shared")
            .field("replies", &log.replies.len())
            .field("requests", &log.requests.len())
            .finish_non_exhaustive()
    }
}

impl GeminiServer {
    /// Listens on a free port of 127.0.0.1 and answers each `generateContent` with the next reply.
    ///
    /// When the script has been played, requests get a 400 that says so. A request without a key, or to another
    /// path, gets the error that Google gives, and uses up no reply.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn start(replies: impl IntoIterator<Item = Reply>) -> io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, received) = watch::channel(0);
        let log = Log { replies: replies.into_iter().collect(), ..Log::default() };
        let shared = Arc::new(Shared { log: Mutex::new(log), received: sender });
        let mut task = JoinSet::new();
        task.spawn(accept(listener, shared.clone()));
        Ok(Self { address, shared, received, _task: task })
    }

    /// Where it listens: `http://127.0.0.1:port`, the base URL for a client.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Adds a reply to the end of the script.
    pub fn push(&self, reply: Reply) {
        self.shared.log().replies.push_back(reply);
    }

    /// What it was asked so far, refused requests included.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.log().requests.clone()
    }

    /// How many connections were opened.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.log().connections
    }

    /// How many replies have not been played.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.shared.log().replies.len()
    }

    /// Waits until `n` requests have arrived in all.
    pub async fn received(&self, n: usize) {
        // The sender lives as long as `self`.
        let _ = self.received.clone().wait_for(|received| *received >= n).await;
    }
}

/// One request that arrived.
#[derive(Clone)]
pub struct RecordedRequest {
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
    at: Instant,
}

impl RecordedRequest {
    /// Its method.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Its path, and query if there is one.
    #[must_use]
    pub fn path(&self) -> &str {
        self.uri.path_and_query().map_or("", |path| path.as_str())
    }

    /// Its headers. The key is among them: do not print it.
    #[must_use]
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Its body.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Its body as JSON; `null` if it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// When its body was complete.
    #[must_use]
    pub fn at(&self) -> Instant {
        self.at
    }
}

/// Without the headers, where the key is, and without the body, where the prompt is.
impl fmt::Debug for RecordedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordedRequest")
            .field("method", &self.method)
            .field("path", &self.uri.path())
            .field("body", &self.body.len())
            .finish_non_exhaustive()
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    // Out of sockets, perhaps: the test will see that nobody answers.
    while let Ok((stream, _)) = listener.accept().await {
        shared.log().connections += 1;
        connections.spawn(serve(stream, shared.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    let hangup = Notify::new();
    // hyper owns the stream while it serves; a second handle to the socket lets it be reset.
    let Ok(stream) = stream.into_std() else { return };
    let Ok(handle) = stream.try_clone() else { return };
    let Ok(stream) = TcpStream::from_std(stream) else { return };
    let connection = http1::Builder::new().serve_connection(
        TokioIo::new(stream),
        service_fn(|request| async {
            let reply = answer(request, &shared).await;
            tokio::time::sleep(reply.after).await;
            match reply.action {
                Action::Respond { status, headers, body, cut } => {
                    let mut response = Response::new(Script { left: Some(body), cut, flushed: false });
                    *response.status_mut() = status;
                    *response.headers_mut() = headers;
                    Ok::<_, Infallible>(response)
                }
                Action::Hangup { reset } => {
                    if reset {
                        // Closing a socket that must not linger sends a reset.
                        let _ = socket2::SockRef::from(&handle).set_linger(Some(std::time::Duration::ZERO));
                    }
                    hangup.notify_one();
                    std::future::pending().await
                }
            }
        }),
    );
    tokio::select! {
        // Clients break connections, and so do we.
        _ = connection => {}
        () = hangup.notified() => {}
    }
}

// The next reply, or the error that Google gives to what is no proper question.
async fn answer(request: Request<Incoming>, shared: &Shared) -> Reply {
    let (parts, body) = request.into_parts();
    let Ok(body) = Limited::new(body, MAX_REQUEST).collect().await else {
        return Reply::close();
    };
    let path = parts.uri.path().to_owned();
    let has_key = parts.headers.get("x-goog-api-key").is_some_and(|key| !key.is_empty());
    let body = body.to_bytes();
    let is_json = serde_json::from_slice::<Value>(&body).is_ok();
    let request =
        RecordedRequest { method: parts.method, uri: parts.uri, headers: parts.headers, body, at: Instant::now() };
    let is_question =
        request.method == Method::POST && path.starts_with("/v1beta/") && path.ends_with(":generateContent");
    let mut log = shared.log();
    log.requests.push(request);
    shared.received.send_replace(log.requests.len());
    if !is_question {
        let message = "The requested URL was not found: this stand-in knows POST /v1beta/models/…:generateContent.";
        return Reply::error(StatusCode::NOT_FOUND, "NOT_FOUND", message, Value::Null);
    }
    if !has_key {
        let message = "Method doesn't allow unregistered callers (callers without established identity). \
                       Please use API Key or other form of API consumer identity to call this API.";
        return Reply::error(StatusCode::FORBIDDEN, "PERMISSION_DENIED", message, Value::Null);
    }
    if !is_json {
        let message = "Invalid JSON payload received.";
        return Reply::error(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT", message, Value::Null);
    }
    log.replies.pop_front().unwrap_or_else(|| {
        let message = "The stand-in has no reply left: the script has been played.";
        Reply::error(StatusCode::BAD_REQUEST, "FAILED_PRECONDITION", message, Value::Null)
    })
}

// A body that may break off half-way.
struct Script {
    left: Option<Bytes>,
    cut: bool,
    flushed: bool,
}

impl Body for Script {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        match self.left.take() {
            Some(body) if self.cut && body.len() > 1 => {
                self.left = Some(Bytes::new());
                Poll::Ready(Some(Ok(Frame::data(body.slice(..body.len() / 2)))))
            }
            // An error ends the connection with what has not been written yet: let hyper write first.
            Some(body) if self.cut && !self.flushed => {
                self.left = Some(body);
                self.flushed = true;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(_) if self.cut => Poll::Ready(Some(Err(io::Error::other("cut by the script")))),
            Some(body) if !body.is_empty() => Poll::Ready(Some(Ok(Frame::data(body)))),
            _ => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left.as_ref().map_or(0, |body| body.len() as u64))
    }
}
