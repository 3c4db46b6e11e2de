//! Request bodies that can be sent again, and what that costs in memory.
//!
//! A retry sends the body of a request twice, so something has to remain of it when the first attempt has read it.
//!
//! | body | how it is kept | memory per call, beside the body |
//! |---|---|---|
//! | `Clone`: `Full<Bytes>`, `Empty`, strings | as a clone | none: the clone shares its bytes (a `String` is copied) |
//! | streaming, up to the cap: axum's `Body`, hyper's `Incoming`, tonic's | in a [`ReplayBody`], while it is streamed | what was read of it, in the same buffers; 32 bytes for each frame |
//! | streaming, longer than the cap | not at all once that is known: it is sent once | none |
//! | streaming, empty | there is nothing to keep | none |
//!
//! [`ReplayBodyLayer`] makes streaming bodies replayable. It goes around the retry layer, whose way of
//! [keeping](crate::Keep) requests keeps the body by [`RepeatBody`]; what is inside sees a
//! `Request<ReplayBody<B>>`. A service that insists on axum's `Body` is given one by
//! `.map_request(|request: Request<ReplayBody<Body>>| request.map(Body::new))` below the retry layer; a `Router` needs nothing.
//!
//! ```
//! use axum::{Router, body::{Body, to_bytes}, http::{Request, StatusCode}, routing::post};
//! use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
//! use tower::{ServiceBuilder, ServiceExt};
//! # use axum::response::Response;
//! # use std::{convert::Infallible, time::Duration};
//! use tower_tenacity::{Keep, RetryLayer, RetryPolicy, body::{RepeatBody, ReplayBodyLayer}, classify, wait};
//!
//! /// Keeps what a request is made of: the head as a clone, the body in its own way.
//! #[derive(Clone)]
//! struct HeadAndBody;
//!
//! impl<B: RepeatBody> Keep<Request<B>> for HeadAndBody {
//!     type Kept = (Request<()>, B::Kept);
//!
//!     fn first(&self, request: Request<B>) -> (Request<B>, Option<Self::Kept>) {
//!         let (head, body) = request.into_parts();
//!         let (body, kept) = body.keep();
//!         let kept = kept.map(|kept| (Request::from_parts(head.clone(), ()), kept));
//!         (Request::from_parts(head, body), kept)
//!     }
//!
//!     fn again(&self, (head, kept): Self::Kept, last: bool) -> (Request<B>, Option<Self::Kept>) {
//!         let (body, kept) = B::again(kept, last);
//!         (head.clone().map(|()| body), kept.map(|kept| (head, kept)))
//!     }
//!
//!     fn is_repeatable(&self, (_, kept): &Self::Kept) -> bool {
//!         B::check(kept).is_ok()
//!     }
//!
//!     fn take_over(&self, (_, kept): &mut Self::Kept) -> bool {
//!         B::take_over(kept).is_ok()
//!     }
//! }
//!
//! /// A handler that is overloaded at first.
//! async fn echo(body: String) -> Result<String, StatusCode> {
//!     static CALLS: AtomicU32 = AtomicU32::new(0);
//!     if CALLS.fetch_add(1, Relaxed) == 0 { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok(body) }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() -> Result<(), axum::Error> {
//! let policy = RetryPolicy::new()
//!     .keep(HeadAndBody)
//!     .classify(classify::retry_if(|outcome: &Result<Response, Infallible>| {
//!         outcome.as_ref().is_ok_and(|response| response.status().is_server_error())
//!     }));
//! let app: Router = Router::new()
//!     .route("/", post(echo))
//!     .layer(ServiceBuilder::new().layer(ReplayBodyLayer::new(64 * 1024)).layer(RetryLayer::new(policy)));
//!
//! let request = Request::post("/").body(Body::from("once more")).unwrap();
//! let response = app.oneshot(request).await.unwrap();
//! assert_eq!(to_bytes(response.into_body(), 1024).await?, "once more");
//! # Ok(())
//! # }
//! ```
//!
//! # What a replayed body can be relied on for
//!
//! * **An attempt sends what the caller sent, or fails; it is never cut short.** Data, trailers, length
//!   ([`size_hint`](http_body::Body::size_hint)) and end are those of the original. Empty frames are passed on, but not kept.
//! * **Nothing is copied.** `Bytes` are shared between the attempts; other data is converted to `Bytes` once. (Beyond
//!   the first 1024 frames of a body those below 64 bytes are gathered, as their handles would outgrow them.)
//! * **Up to the cap, and not a byte more.** A body of which more was read is streamed on without being kept, what was
//!   kept of it is dropped at once, and [`RepeatBody::check`] answers [`TooLong`](NotRepeatable::TooLong). A body that
//!   says beforehand that it is longer is not kept at all. Trailers are not counted. A frame holds on to the
//!   buffer it was cut from, which can be larger than the frame.
//! * **The cap counts what was read, not what there is.** An attempt that fails early leaves the rest to the next one,
//!   which sends what was kept and then streams on.
//! * **One attempt at a time reads on, the newest.** An attempt may have ended before its body was read to the end: it was cut, or answered
//!   early, by a server that goes on reading as nginx does. A connection may hold on to its body, too: hyper does over HTTP/1,
//!   until what it has written has gone out to a server that may have stopped reading. Once a retry is decided
//!   ([`take_over`](RepeatBody::take_over)), and before its wait, the old attempt reads nothing more, whoever holds it, and fails when it is polled; one that waits
//!   for the body is woken for that. Until then an upload that was answered early goes on, also under a response that is handed on. What is
//!   kept is kept by those who may still send it, not by whoever was taken over. A body that was read to its end is shared,
//!   whoever holds it.
//! * **A body that fails is not sent again.** Whoever sends it is at fault, and its error has been handed on. One that panics has failed.
//! * **What nobody can repeat is not kept.** The last attempt, and an upload that outlives its call, give their frames
//!   away; a layer whose policy allows no retry only passes on.
//! * **A body that lies is sent as it is.** A wrong length never cuts it or panics; one that says that it is over is over, for
//!   all attempts; trailers are its end.
//!
//! Half of all this is of no use if the answer breaks off: [`CollectBodyLayer`] reads the *response* inside the attempt.

mod collect;
mod frames;
mod layer;
mod repeat;
mod replay;
mod shared;

pub use collect::{BodyTooLarge, CollectBody, CollectBodyLayer, CollectFuture, CollectedBody};
pub use layer::{ReplayBodyLayer, ReplayBodyService};
pub use repeat::{NotRepeatable, RepeatBody};
pub use replay::{KeptBody, ReplayBody};
