use std::{
    convert::Infallible,
    error::Error,
    fmt,
    future::Future,
    mem,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, Response, StatusCode, response::Parts};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::BoxError;

// A body that always has another frame would never leave `poll`.
const FRAMES_PER_POLL: u32 = 64;

/// Reads the bodies of responses before handing them on, up to a cap.
///
/// Inside a retry layer this makes a failure while the body is read a failure of the attempt, which can be retried, and
/// lets a classifier look into the body. It suits answers that are read as a whole; streams of events would only
/// come out at their end.
///
/// A body longer than the cap fails the call with [`BodyTooLarge`], at once if its length is known beforehand. The
/// body's own error comes out as it is.
///
/// ```
/// use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
///
/// use http::Response;
/// use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
/// use tower_tenacity::{RetryLayer, RetryPolicy, body::{CollectBodyLayer, CollectedBody}, classify};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), BoxError> {
/// // A server that is busy at first, and says so with the status 200.
/// static ASKED: AtomicU32 = AtomicU32::new(0);
/// let server = service_fn(|_: &'static str| async {
///     let answer = if ASKED.fetch_add(1, Relaxed) == 0 { "busy" } else { "42" };
///     Ok::<_, BoxError>(Response::new(String::from(answer)))
/// });
///
/// let says_busy = classify::retry_if(|outcome: &Result<Response<CollectedBody>, BoxError>| match outcome {
///     Ok(response) => response.body().bytes() == "busy",
///     Err(_) => true,
/// });
/// let service = ServiceBuilder::new()
///     .layer(RetryLayer::new(RetryPolicy::new().classify(says_busy)))
///     .layer(CollectBodyLayer::new(1024 * 1024))
///     .service(server);
///
/// assert_eq!(service.oneshot("question").await?.body().bytes(), "42");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct CollectBodyLayer {
    cap: usize,
}

impl CollectBodyLayer {
    /// Holds up to `cap` bytes of each response. There is no default: it is what a client can spare per call.
    #[must_use]
    pub const fn new(cap: usize) -> Self {
        Self { cap }
    }
}

impl<S> Layer<S> for CollectBodyLayer {
    type Service = CollectBody<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CollectBody::new(inner, self.cap)
    }
}

/// Reads the bodies of responses before handing them on; see [`CollectBodyLayer`].
#[derive(Clone, Copy, Debug)]
pub struct CollectBody<S> {
    inner: S,
    cap: usize,
}

impl<S> CollectBody<S> {
    /// Holds up to `cap` bytes of each response of `inner`.
    pub const fn new(inner: S, cap: usize) -> Self {
        Self { inner, cap }
    }

    /// The service inside.
    pub const fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The service inside, to change it.
    pub const fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The service inside, taken out.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, Req, B> Service<Req> for CollectBody<S>
where
    S: Service<Req, Response = Response<B>, Error: Into<BoxError>>,
    B: Body<Error: Into<BoxError>>,
{
    type Response = Response<CollectedBody>;
    type Error = BoxError;
    type Future = CollectFuture<S::Future, B>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        CollectFuture { state: State::Calling { call: self.inner.call(request) }, cap: self.cap }
    }
}

pin_project! {
    /// The future of a call to a [`CollectBody`] service. Nothing in it is boxed.
    #[must_use = "futures do nothing unless polled"]
    pub struct CollectFuture<F, B> {
        #[pin]
        state: State<F, B>,
        cap: usize,
    }
}

pin_project! {
    // Calling -> Reading -> Done.
    #[project = StateProj]
    enum State<F, B> {
        Calling { #[pin] call: F },
        Reading { #[pin] body: B, read: Option<Read> },
        Done,
    }
}

// What there is of the response.
struct Read {
    head: Parts,
    data: Data,
    trailers: Option<HeaderMap>,
}

// One frame is handed on as it is; more are put together.
enum Data {
    Frame(Bytes),
    Gathered(BytesMut),
}

impl Data {
    fn len(&self) -> usize {
        match self {
            Self::Frame(frame) => frame.len(),
            Self::Gathered(gathered) => gathered.len(),
        }
    }

    // `expected` is what the body claims to have left: space for it is made once, and never more than the cap.
    fn push(&mut self, more: Bytes, expected: usize) {
        match self {
            _ if more.is_empty() => {}
            Self::Frame(frame) if frame.is_empty() => *frame = more,
            Self::Frame(frame) => {
                let length = frame.len().saturating_add(more.len());
                let mut gathered = BytesMut::with_capacity(length.saturating_add(expected));
                gathered.extend_from_slice(frame);
                gathered.extend_from_slice(&more);
                *self = Self::Gathered(gathered);
            }
            Self::Gathered(gathered) => gathered.extend_from_slice(&more),
        }
    }
}

impl Read {
    fn push<B: Body>(&mut self, frame: Frame<B::Data>, body: &B, cap: usize) -> Result<(), BodyTooLarge> {
        match frame.into_data() {
            Ok(mut data) => {
                let length = data.remaining();
                if length > cap.saturating_sub(self.data.len()) {
                    return Err(BodyTooLarge { limit: cap, status: self.head.status });
                }
                let data = data.copy_to_bytes(length);
                // At most the room that is left, for all it claims.
                let expected = usize::try_from(body.size_hint().lower()).unwrap_or(cap);
                self.data.push(data, expected.min(cap.saturating_sub(self.data.len()).saturating_sub(length)));
            }
            Err(frame) => {
                if let Ok(trailers) = frame.into_trailers() {
                    self.trailers = Some(trailers);
                }
            }
        }
        Ok(())
    }

    fn finish(self) -> Response<CollectedBody> {
        let data = match self.data {
            Data::Frame(frame) => frame,
            Data::Gathered(gathered) => gathered.freeze(),
        };
        Response::from_parts(self.head, CollectedBody { data, trailers: self.trailers })
    }
}

impl<F, B, E> Future for CollectFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    E: Into<BoxError>,
    B: Body<Error: Into<BoxError>>,
{
    type Output = Result<Response<CollectedBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut frames = 0;
        loop {
            match this.state.as_mut().project() {
                StateProj::Calling { call } => {
                    let response = match ready!(call.poll(cx)) {
                        Ok(response) => response,
                        Err(error) => {
                            this.state.set(State::Done);
                            return Poll::Ready(Err(error.into()));
                        }
                    };
                    let (head, body) = response.into_parts();
                    let read = Read { head, data: Data::Frame(Bytes::new()), trailers: None };
                    if body.size_hint().lower() > *this.cap as u64 {
                        this.state.set(State::Done);
                        return Poll::Ready(Err(BodyTooLarge { limit: *this.cap, status: read.head.status }.into()));
                    }
                    this.state.set(State::Reading { body, read: Some(read) });
                }
                StateProj::Reading { mut body, read } => {
                    if frames == FRAMES_PER_POLL {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    frames += 1;
                    let failed: BoxError = match ready!(body.as_mut().poll_frame(cx)) {
                        None => {
                            let Some(read) = read.take() else { unreachable!("a response is finished once") };
                            this.state.set(State::Done);
                            return Poll::Ready(Ok(read.finish()));
                        }
                        Some(Err(error)) => error.into(),
                        Some(Ok(frame)) => {
                            let Some(read) = read else { unreachable!("it is there until the end") };
                            match read.push(frame, &*body, *this.cap) {
                                Ok(()) => continue,
                                Err(error) => error.into(),
                            }
                        }
                    };
                    this.state.set(State::Done);
                    return Poll::Ready(Err(failed));
                }
                StateProj::Done => panic!("polled after it was ready"),
            }
        }
    }
}

impl<F, B> fmt::Debug for CollectFuture<F, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            State::Calling { .. } => "calling",
            State::Reading { .. } => "reading",
            State::Done => "done",
        };
        f.debug_struct("CollectFuture").field("state", &state).field("cap", &self.cap).finish()
    }
}

/// A body that was read to its end: its data in one piece, and its trailers. Cheap to clone.
#[derive(Clone, Default)]
pub struct CollectedBody {
    data: Bytes,
    trailers: Option<HeaderMap>,
}

impl CollectedBody {
    /// The data that has not been read from this body yet; all of it, unless it was polled.
    #[must_use]
    pub const fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// The trailers, if there were any and they have not been read yet.
    #[must_use]
    pub const fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
    }

    /// The data, taken out.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.data
    }
}

impl From<Bytes> for CollectedBody {
    fn from(data: Bytes) -> Self {
        Self { data, trailers: None }
    }
}

impl Body for CollectedBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let frame = if self.data.is_empty() {
            self.trailers.take().map(Frame::trailers)
        } else {
            Some(Frame::data(mem::take(&mut self.data)))
        };
        Poll::Ready(frame.map(Ok))
    }

    fn is_end_stream(&self) -> bool {
        self.data.is_empty() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        let length = self.data.len() as u64;
        if self.trailers.is_none() {
            return SizeHint::with_exact(length);
        }
        // HTTP/1 sends no trailers with a body whose length is known.
        let mut hint = SizeHint::new();
        hint.set_lower(length);
        hint
    }
}

// Answers are nobody's business but the caller's.
impl fmt::Debug for CollectedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CollectedBody")
            .field("length", &self.data.len())
            .field("trailers", &self.trailers.as_ref().map_or(0, HeaderMap::len))
            .finish()
    }
}

/// A response was longer than [`CollectBodyLayer`] may hold. It is inside the boxed error of the
/// call, for `downcast_ref` to find.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyTooLarge {
    limit: usize,
    status: StatusCode,
}

impl BodyTooLarge {
    /// How many bytes there may be.
    #[must_use]
    pub const fn limit(&self) -> usize {
        self.limit
    }

    /// The status of the response.
    #[must_use]
    pub const fn status(&self) -> StatusCode {
        self.status
    }
}

impl fmt::Display for BodyTooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the body of the response is longer than {} bytes", self.limit)
    }
}

impl Error for BodyTooLarge {}
