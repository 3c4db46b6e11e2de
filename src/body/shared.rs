//! What the attempts of one call have in common.
//!
//! One attempt at a time holds the body and what was read of it, without a lock; when it is dropped, both go back into
//! the slot, for the next attempt to take. A body that was read to its end is out of the slot for good: what was read
//! of it does not change any more, so that any number of attempts can read it at once.

use std::{
    mem,
    sync::{
        Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::{Context, Waker},
};

use http::HeaderMap;
use http_body::SizeHint;

use super::{NotRepeatable, frames::Frames};

pub(super) struct Shared<B> {
    slot: Mutex<Slot<B>>,
    whole: OnceLock<Whole>,
    // The number of the newest attempt; those before it have nothing to read here any more.
    newest: AtomicUsize,
    pub(super) cap: u64,
    // What the body said of its length before it was read.
    pub(super) hint: SizeHint,
}

/// A body that was read to its end.
pub(super) struct Whole {
    pub(super) frames: Frames,
    pub(super) trailers: Option<HeaderMap>,
}

/// A body, and what was read of it so far.
pub(super) struct Part<B> {
    pub(super) frames: Frames,
    pub(super) body: B,
}

enum Slot<B> {
    // An attempt holds it, and the next one may be waiting.
    Held(Option<Waker>),
    Free(Part<B>),
    Refused(NotRepeatable),
}

/// What an attempt finds.
pub(super) enum Found<B> {
    Whole,
    Part(Part<B>),
    Refused(NotRepeatable),
    Held,
}

impl<B> Shared<B> {
    /// For a body that attempt 0 holds.
    pub(super) fn new(cap: u64, hint: SizeHint) -> Self {
        Self { slot: Mutex::new(Slot::Held(None)), whole: OnceLock::new(), newest: AtomicUsize::new(0), cap, hint }
    }

    // Nothing that can panic happens under the lock, save a waker's own code.
    fn lock(&self) -> MutexGuard<'_, Slot<B>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn whole(&self) -> Option<&Whole> {
        self.whole.get()
    }

    pub(super) fn whole_mut(&mut self) -> Option<&mut Whole> {
        self.whole.get_mut()
    }

    /// Begins another attempt, which supersedes the ones before, and tells its number.
    pub(super) fn begin(&self) -> usize {
        self.newest.fetch_add(1, Relaxed).wrapping_add(1)
    }

    /// Whether there is an attempt newer than this one.
    pub(super) fn is_superseded(&self, number: usize) -> bool {
        // What the newer attempt takes over goes through the lock; this is but the sign to let go of it.
        self.newest.load(Relaxed) != number
    }

    pub(super) fn check(&self) -> Result<(), NotRepeatable> {
        if self.whole.get().is_some() {
            return Ok(());
        }
        match *self.lock() {
            Slot::Free(_) => Ok(()),
            Slot::Refused(reason) => Err(reason),
            // It may have been read to its end a moment ago.
            Slot::Held(_) if self.whole.get().is_some() => Ok(()),
            Slot::Held(_) => Err(NotRepeatable::BeingRead),
        }
    }

    /// Takes the body if it is there. If not, the task of `cx` is woken when it is.
    pub(super) fn take(&self, cx: Option<&Context<'_>>) -> Found<B> {
        if self.whole.get().is_some() {
            return Found::Whole;
        }
        let mut slot = self.lock();
        match mem::replace(&mut *slot, Slot::Held(None)) {
            Slot::Free(part) => Found::Part(part),
            Slot::Refused(reason) => {
                *slot = Slot::Refused(reason);
                Found::Refused(reason)
            }
            Slot::Held(_) if self.whole.get().is_some() => Found::Whole,
            Slot::Held(waiting) => {
                let new = cx.map(|cx| cx.waker().clone());
                // An attempt that waited before this one is superseded, and has to be told.
                let (keep, wake) = match (new, waiting) {
                    (Some(new), Some(old)) if new.will_wake(&old) => (Some(new), None),
                    (Some(new), old) => (Some(new), old),
                    (None, old) => (old, None),
                };
                *slot = Slot::Held(keep);
                drop(slot);
                if let Some(waker) = wake {
                    waker.wake();
                }
                Found::Held
            }
        }
    }

    /// Gives back what an attempt did not read to its end.
    pub(super) fn give_back(&self, part: Part<B>) {
        self.put(Slot::Free(part));
    }

    /// The body, held by the caller, is not to be sent again.
    pub(super) fn refuse(&self, reason: NotRepeatable) {
        self.put(Slot::Refused(reason));
    }

    /// The body, held by the caller, was read to its end.
    pub(super) fn finish(&self, whole: Whole) {
        // There is one body, and it ends once.
        let _ = self.whole.set(whole);
        self.put(Slot::Held(None));
    }

    fn put(&self, new: Slot<B>) {
        // The lock is gone before anything is dropped or woken.
        let old = mem::replace(&mut *self.lock(), new);
        if let Slot::Held(Some(waiting)) = old {
            waiting.wake();
        }
    }
}
