//! Streaming bodies, read as a client reads them.

use std::{
    convert::Infallible,
    hint::black_box,
    pin::Pin,
    task::{Context, Poll, Waker},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use tower_tenacity::body::{RepeatBody, ReplayBody};

/// `once` is a first attempt with a body that is kept, `twice` has another after it.
pub const CONTENDERS: [&str; 3] = ["bare", "once", "twice"];

/// Names, frames, and bytes in each.
pub const SHAPES: [(&str, usize, usize); 4] =
    [("empty", 0, 0), ("1KiB", 1, 1 << 10), ("1MiB", 1, 1 << 20), ("64x16KiB", 64, 16 << 10)];

const CAP: usize = 2 << 20;

/// A buffer that is handed out piece by piece, as hyper hands out what it has read.
struct Pieces {
    rest: Bytes,
    size: usize,
}

impl Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.rest.is_empty() {
            return Poll::Ready(None);
        }
        let size = self.size;
        Poll::Ready(Some(Ok(Frame::data(self.rest.split_to(size)))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty()
    }
}

/// Frames that were just made, without end or length known before.
struct Upload {
    left: usize,
    size: usize,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= 1;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from(vec![b'x'; self.size])))))
    }
}

#[inline(never)]
fn read<B: Body<Data = Bytes> + Unpin>(mut body: B) -> usize {
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    let mut body = black_box(Pin::new(&mut body));
    let mut bytes = 0;
    // As hyper does, which asks for the end before it asks for a frame.
    while !body.is_end_stream() {
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Ready(Some(Ok(frame))) => bytes += black_box(frame).data_ref().map_or(0, Bytes::len),
            _ => break,
        }
    }
    bytes
}

/// Reads so many bodies of a shape.
pub fn run(shape: &str, contender: &str, bodies: u64) {
    let shape = SHAPES.iter().find(|(name, ..)| *name == shape);
    let (_, frames, size) = *shape.unwrap_or_else(|| panic!("no such shape"));
    let all = Bytes::from(vec![b'x'; frames * size]);
    // Shared before it is measured.
    let _shared = all.clone();
    for _ in 0..bodies {
        let body = black_box(Pieces { rest: all.clone(), size });
        if contender == "bare" {
            assert_eq!(read(body), frames * size);
            continue;
        }
        let (first, kept) = ReplayBody::new(body, CAP).keep();
        assert_eq!(read(first), frames * size);
        if contender == "twice" {
            let (second, _) = ReplayBody::again(kept.expect("a body that can be kept"), true);
            assert_eq!(read(second), frames * size);
        }
    }
}

/// Reads a kept upload of so many frames of 16 KiB, with a cap of 1 MiB.
pub fn upload(frames: usize) {
    let size = 16 << 10;
    let (first, _kept) = ReplayBody::new(Upload { left: frames, size }, 1 << 20).keep();
    assert_eq!(read(first), frames * size);
}
