use std::{
    fmt,
    future::Future,
    hint::black_box,
    pin::Pin,
    sync::atomic::{AtomicU32, Ordering},
    task::{Context, Poll},
};

use tower_service::Service;

// One for all clones; touched only where attempts are to fail, and never by two threads.
static CALLS: AtomicU32 = AtomicU32::new(0);

/// A service that answers numbers, with a little work in it. A handle, as most services are.
#[derive(Clone, Copy, Debug)]
pub struct Inner(&'static Behaviour);

/// What calls to a service go through.
#[derive(Clone, Copy, Debug, Default)]
pub struct Behaviour {
    /// How many polls of a call find it pending.
    pub pending: u32,
    /// Whether a pending call wakes its task at once.
    pub wakes: bool,
    /// Whether every other call, the first included, fails.
    pub fails: bool,
}

impl Behaviour {
    /// The service that behaves like this, for the rest of the program.
    pub fn service(self) -> Inner {
        Inner(Box::leak(Box::new(self)))
    }
}

/// What a call to [`Inner`] is.
#[derive(Debug)]
pub struct Answer {
    value: u64,
    pending: u32,
    wakes: bool,
    fails: bool,
}

/// The error of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failed(pub u64);

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed: {}", self.0)
    }
}

impl std::error::Error for Failed {}

impl Service<u64> for Inner {
    type Response = u64;
    type Error = Failed;
    type Future = Answer;

    #[inline]
    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        Poll::Ready(Ok(()))
    }

    #[inline]
    fn call(&mut self, request: u64) -> Answer {
        let Behaviour { pending, wakes, fails } = *self.0;
        let fails = fails && {
            let calls = CALLS.load(Ordering::Relaxed);
            CALLS.store(calls.wrapping_add(1), Ordering::Relaxed);
            calls.is_multiple_of(2)
        };
        Answer { value: request, pending, wakes, fails }
    }
}

impl Future for Answer {
    type Output = Result<u64, Failed>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        // Nothing is known about it from one poll to the next.
        let this = black_box(&mut *self);
        if this.pending > 0 {
            this.pending -= 1;
            if this.wakes {
                cx.waker().wake_by_ref();
            }
            return Poll::Pending;
        }
        for _ in 0..3 {
            this.value ^= this.value << 13;
            this.value = black_box(this.value);
        }
        Poll::Ready(if this.fails { Err(Failed(this.value)) } else { Ok(this.value) })
    }
}
