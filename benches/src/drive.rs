//! How calls are driven. What is measured is kept out of line and its future in memory, as in a task.

use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
};

use tokio::runtime::{Builder, Runtime};

use crate::Contender;

/// One call, polled until it is done, without a runtime.
#[inline(never)]
pub fn once<C: Contender>(contender: &mut C, request: u64) -> Result<u64, C::Error> {
    to_the_end(|| contender.call(request))
}

/// Makes a future and polls it until it is done.
#[inline(always)]
pub fn to_the_end<F: Future>(make: impl FnOnce() -> F) -> F::Output {
    // Nobody knows that waking does nothing.
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    let mut call = pin!(make());
    let mut call = black_box(call.as_mut());
    loop {
        if let Poll::Ready(outcome) = call.as_mut().poll(&mut cx) {
            return outcome;
        }
    }
}

/// One call after the other, without a runtime.
pub fn by_hand<C: Contender>(contender: &mut C, calls: u64) {
    for request in 0..calls {
        // The outcome is not looked at: bare, every other call fails.
        let _ = black_box(once(black_box(contender), black_box(request)));
    }
}

/// One call after the other, in a task.
pub async fn in_task<C: Contender>(contender: &mut C, calls: u64) {
    for request in 0..calls {
        let _ = black_box(black_box(&mut *contender).call(black_box(request)).await);
    }
}

/// A runtime of one thread, with a timer.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().build().expect("a runtime")
}
