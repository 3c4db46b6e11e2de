use std::{
    fmt,
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Buf;
use http::{HeaderMap, Response, Version, header::CONNECTION};
use http_body::Body;
use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep};

use crate::policy::{Nanos, hooks::Hooks};

// What a frame counts for at least, so that frames without data come to an end, too.
const FRAME: u64 = 16;

/// Reads failed responses to their end before the wait for the next attempt, so that their HTTP/1 connections can be used
/// again; hooks for [`RetryPolicy::hook`](crate::RetryPolicy::hook).
///
/// A connection of HTTP/1 is of no more use once a response on it was dropped half-read, and a new one costs a handshake or
/// two, from a server that has trouble enough. The rest of an error page is cheaper, up to
/// [a length](Drain::max_bytes) and [a time](Drain::timeout); after that the response is dropped as it is.
///
/// Not read at all: a body that is known to be longer, a response with `Connection: close`, and one of HTTP/2 or later, where
/// dropping it costs the connection nothing. A body that has arrived is read without a timer; one that has
/// not takes one allocation. The wait for the next attempt begins when the reading has ended, so that a call with a
/// [timeout](crate::RetryPolicy::timeout) may begin its next attempt late by as much as was read for.
///
/// ```
/// use std::time::Duration;
/// use tower_tenacity::{RetryPolicy, policy::http};
///
/// let patient = RetryPolicy::new().hook(http::drain().max_bytes(1 << 20).timeout(Duration::from_secs(2)));
/// # let _ = patient;
/// ```
#[must_use]
pub const fn drain() -> Drain {
    Drain { max_bytes: 64 * 1024, timeout: Nanos::new(Duration::from_millis(250)), reading: None }
}

/// Reads failed responses to their end; made by [`drain`].
pub struct Drain {
    max_bytes: u64,
    timeout: Nanos,
    // Of one response of one call, so no clone has it.
    reading: Option<Pin<Box<Reading>>>,
}

pin_project! {
    struct Reading {
        #[pin]
        limit: Sleep,
        read: u64,
    }
}

impl Drain {
    /// Reads no more than this many bytes of one response, give or take a frame. 0 reads none. Default: 64 KiB.
    ///
    /// That much reaches the caller in three round trips of a connection that has only begun (RFC 6928), in about the time
    /// of a new connection with TLS, and holds most error pages. Go reads 2 KiB of a redirect, and since 1.27 up to 256 KiB of a
    /// response that was closed early, in the background and for 50 ms.
    #[must_use]
    pub const fn max_bytes(mut self, max: u64) -> Self {
        self.max_bytes = max;
        self
    }

    /// Reads one response for no longer than this. Default: 250 ms, about what a new connection with TLS takes to a server
    /// at the other end of a continent. It is spent only where a server stalls in the middle of a response.
    #[must_use]
    pub const fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Nanos::new(timeout);
        self
    }
}

impl Clone for Drain {
    fn clone(&self) -> Self {
        Self { max_bytes: self.max_bytes, timeout: self.timeout, reading: None }
    }
}

impl fmt::Debug for Drain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Drain").field("max_bytes", &self.max_bytes).field("timeout", &self.timeout.get()).finish()
    }
}

impl<B, Req, Kept, E> Hooks<Req, Kept, Response<B>, E> for Drain
where
    B: Body + Unpin,
{
    fn poll_drain(&mut self, response: &mut Response<B>, cx: &mut Context<'_>) -> Poll<()> {
        let mut read = match &self.reading {
            Some(reading) => reading.read,
            None if is_worth_it(response, self.max_bytes) => 0,
            None => return Poll::Ready(()),
        };
        if poll_read(response.body_mut(), &mut read, self.max_bytes, cx).is_pending() {
            let reading =
                self.reading.get_or_insert_with(|| Box::pin(Reading { limit: sleep(self.timeout.get()), read }));
            let reading = reading.as_mut().project();
            *reading.read = read;
            std::task::ready!(reading.limit.poll(cx));
        }
        // What comes later is another response.
        self.reading = None;
        Poll::Ready(())
    }

    fn is_timed(&self) -> bool {
        false
    }

    fn sees_success(&self) -> bool {
        false
    }
}

fn is_worth_it<B: Body>(response: &Response<B>, max_bytes: u64) -> bool {
    response.version() <= Version::HTTP_11
        && response.body().size_hint().lower() <= max_bytes
        && max_bytes > 0
        && !is_closing(response.headers())
}

// Whether the connection ends with the response (RFC 9112 §9.6).
fn is_closing(headers: &HeaderMap) -> bool {
    headers.get_all(CONNECTION).iter().any(|value| {
        let mut options = value.as_bytes().split(|byte| *byte == b',');
        options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
    })
}

// Until the body ends in one way or another, or more than `max` has been read of it.
fn poll_read<B: Body + Unpin>(body: &mut B, read: &mut u64, max: u64, cx: &mut Context<'_>) -> Poll<()> {
    while *read <= max && !body.is_end_stream() {
        match std::task::ready!(Pin::new(&mut *body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                let data = frame.data_ref().map_or(0, Buf::remaining);
                *read = read.saturating_add(FRAME.max(data as u64));
            }
            Some(Err(_)) | None => break,
        }
    }
    Poll::Ready(())
}
