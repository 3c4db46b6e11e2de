//! One call: the request under way, then the body as it comes in.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;

use crate::gemini::error::{self, Error};
use crate::gemini::{BoxError, GenerateContentResponse};

/// Most of an error page that is read: Google's error bodies are a few KiB.
const MAX_ERROR_BYTES: usize = 1024 * 1024;

/// A body that always has another frame would never leave `poll`.
const FRAMES_PER_POLL: u32 = 64;

/// What is set aside for a body before any of it has come, however large it says it is.
const MAX_RESERVED_BYTES: u64 = 64 * 1024;

pin_project! {
    /// The future of a call to [`Gemini`](crate::gemini::Gemini).
    #[must_use = "futures do nothing unless polled"]
    pub struct ResponseFuture<F, B> {
        #[pin]
        state: State<F, B>,
        key: Option<HeaderValue>,
        limit: usize,
    }
}

pin_project! {
    // Sending -> Reading, or Failed from the start.
    #[project = StateProj]
    enum State<F, B> {
        Sending { #[pin] future: F },
        Reading { #[pin] body: B, received: Received },
        Failed { error: Option<Error> },
    }
}

struct Received {
    status: StatusCode,
    headers: HeaderMap,
    bytes: Vec<u8>,
}

impl<F, B> ResponseFuture<F, B> {
    pub(super) fn new(future: F, key: HeaderValue, limit: usize) -> Self {
        Self { state: State::Sending { future }, key: Some(key), limit }
    }

    pub(super) fn failed(error: Error) -> Self {
        Self { state: State::Failed { error: Some(error) }, key: None, limit: 0 }
    }
}

impl<F, B, E> Future for ResponseFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body,
    B::Error: Into<BoxError>,
{
    type Output = Result<GenerateContentResponse, Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut frames = 0;
        let key = this.key.as_ref().and_then(|key| key.to_str().ok()).unwrap_or_default();
        loop {
            let next = match this.state.as_mut().project() {
                StateProj::Sending { future } => {
                    let response = ready!(future.poll(cx)).map_err(|error| Error::transport(error.into()))?;
                    let (head, body) = response.into_parts();
                    let size = body.size_hint();
                    if head.status.is_success() && size.lower() > *this.limit as u64 {
                        return Poll::Ready(Err(Error::too_large(head.status, *this.limit)));
                    }
                    let bytes = Vec::with_capacity(size.lower().min(MAX_RESERVED_BYTES) as usize);
                    let received = Received { status: head.status, headers: head.headers, bytes };
                    State::Reading { body, received }
                }
                StateProj::Reading { body, received } => {
                    if frames == FRAMES_PER_POLL {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    frames += 1;
                    let frame = ready!(body.poll_frame(cx));
                    match received.add(frame, *this.limit) {
                        Some(failure) => {
                            return Poll::Ready(failure.and_then(|()| received.read(key)));
                        }
                        None => continue,
                    }
                }
                StateProj::Failed { error } => {
                    let error = error.take().expect("a future is not polled again once it is ready");
                    return Poll::Ready(Err(error));
                }
            };
            this.state.set(next);
        }
    }
}

impl Received {
    /// Takes in a frame; `Some` once there is nothing more to wait for.
    fn add<D: Buf, E: Into<BoxError>>(
        &mut self,
        frame: Option<Result<http_body::Frame<D>, E>>,
        limit: usize,
    ) -> Option<Result<(), Error>> {
        let success = self.status.is_success();
        let mut data = match frame {
            None => return Some(Ok(())),
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => data,
                Err(_) => return None,
            },
            // A failure is told by its status; its body only adds to that.
            Some(Err(_)) if !success => return Some(Ok(())),
            Some(Err(error)) => return Some(Err(Error::cut_off(self.status, error.into()))),
        };
        let limit = if success { limit } else { limit.min(MAX_ERROR_BYTES) };
        let full = data.remaining() > limit - self.bytes.len();
        if full && success {
            return Some(Err(Error::too_large(self.status, limit)));
        }
        let mut room = limit - self.bytes.len();
        while data.has_remaining() && room > 0 {
            let chunk = data.chunk();
            let taken = chunk.len().min(room);
            self.bytes.extend_from_slice(&chunk[..taken]);
            data.advance(taken);
            room -= taken;
        }
        full.then_some(Ok(()))
    }

    fn read(&self, key: &str) -> Result<GenerateContentResponse, Error> {
        if self.status.is_success() {
            error::decode(self.status, &self.headers, &self.bytes, key)
        } else {
            Err(error::from_response(self.status, &self.headers, &self.bytes, key))
        }
    }
}

impl<F, B> fmt::Debug for ResponseFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Sending { .. } => "sending",
            State::Reading { .. } => "reading",
            State::Failed { .. } => "failed",
        };
        f.debug_struct("ResponseFuture").field("state", &state).finish_non_exhaustive()
    }
}
