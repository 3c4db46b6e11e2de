//! How calls are driven. What is measured is kept out of line and its future in memory, as in a task.

use std::hint::black_box;

use tokio::runtime::{Builder, Runtime};

use crate::Contender;

/// Makes a future and polls it until it is done. A macro, as a function would have the future moved.
#[macro_export]
macro_rules! to_the_end {
    ($future:expr) => {{
        // Nobody knows that waking does nothing.
        let mut cx = std::task::Context::from_waker(std::hint::black_box(std::task::Waker::noop()));
        let mut call = std::pin::pin!($future);
        let mut call = std::hint::black_box(call.as_mut());
        loop {
            if let std::task::Poll::Ready(outcome) = std::future::Future::poll(call.as_mut(), &mut cx) {
                break outcome;
            }
        }
    }};
}

/// One call, polled until it is done, without a runtime.
#[inline(never)]
pub fn once<C: Contender>(contender: &mut C, request: u64) -> Result<u64, C::Error> {
    to_the_end!(contender.call(request))
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
