//! What the attempts of one call have in common.
//!
//! The body and what was read of it are in a slot. The newest attempt reads on, whoever held it before: a later attempt
//! takes over by having a higher number, and an attempt looks for its number under the lock before it touches
//! the body. So nothing is read by an older attempt once its number has passed and the lock has been free.
//!
//! The lock is held while the body is polled, which is code of somebody else. Nobody waits for it then, as that code may do
//! anything, with other attempts of the same body too: who finds it taken comes back later. A lock that is waited for
//! protects a body that was read to its end and is not polled any more.

use std::{
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, TryLockError,
        atomic::{
            AtomicU64,
            Ordering::{AcqRel, Acquire, Relaxed},
        },
    },
    task::{Context, Waker},
};

use http::HeaderMap;

use super::{NotRepeatable, frames::Frames};

pub(super) struct Shared<B> {
    slot: Mutex<Slot<B>>,
    word: AtomicU64,
    pub(super) cap: u64,
    // Whether the body said how long it is, trailers or not.
    pub(super) exact: bool,
}

pub(super) enum Slot<B> {
    Part(Part<B>),
    Whole(Whole),
    Refused(NotRepeatable),
    // Nobody needs it any more, or the only one who does has taken it.
    Gone,
}

/// A body, and what was read of it so far.
pub(super) struct Part<B> {
    pub(super) frames: Frames,
    pub(super) body: B,
    // Whoever waits for the body, or once did: it is told when a later attempt takes over.
    pub(super) waiting: Option<Waker>,
}

/// A body that was read to its end.
pub(super) struct Whole {
    pub(super) frames: Frames,
    pub(super) trailers: Option<HeaderMap>,
}

/// All there is to know of a body without its lock, in one word: the number of the newest attempt, how many there are who
/// may still send the body, and flags. Attempts that were taken over are not counted, however long they live.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(u64);

// The newest attempt may read on, and is one of those who are counted. It says nothing of a body that was read to its end, which
// nobody takes over.
const READING: u64 = 1;
const WHOLE: u64 = 1 << 1;
const TOO_LONG: u64 = 1 << 2;
const FAILED: u64 = 1 << 3;
const HANDLE: u64 = 1 << 4;
const HANDLES: u64 = NUMBER - HANDLE;
const NUMBER: u64 = 1 << 32;

impl Word {
    /// No word of a body that somebody may send.
    pub(super) const NONE: Self = Self(0);

    pub(super) const fn number(self) -> u32 {
        (self.0 / NUMBER) as u32
    }

    /// Nobody but the one who asks is left who could send the body.
    pub(super) const fn is_alone(self) -> bool {
        self.0 & HANDLES == HANDLE
    }

    const fn is_nobody(self) -> bool {
        self.0 & HANDLES == 0
    }

    const fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    const fn is_read_by(self, number: u32) -> bool {
        self.is(READING) && self.number() == number
    }
}

/// What an attempt begins with.
pub(super) enum Begun {
    /// This is its number. It finds out what there is when it is polled.
    Reading(u32),
    Whole,
}

impl<B> Shared<B> {
    /// For attempt 0 and one who keeps what it reads.
    pub(super) fn new(cap: u64, body: B, exact: bool) -> Self {
        let part = Part { frames: Frames::new(cap), body, waiting: None };
        Self { slot: Mutex::new(Slot::Part(part)), word: AtomicU64::new(READING + 2 * HANDLE), cap, exact }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Relaxed))
    }

    // Says what there is now.
    fn change(&self, change: impl Fn(Word) -> u64) -> Word {
        let mut word = self.word.load(Relaxed);
        loop {
            let new = change(Word(word));
            match self.word.compare_exchange_weak(word, new, AcqRel, Relaxed) {
                Ok(_) => return Word(new),
                Err(other) => word = other,
            }
        }
    }

    /// The slot, unless somebody is busy with it: an attempt on another thread, or the body that calls this.
    #[inline]
    pub(super) fn try_lock(&self) -> Option<MutexGuard<'_, Slot<B>>> {
        match self.slot.try_lock() {
            Ok(slot) => Some(slot),
            Err(TryLockError::WouldBlock) => None,
            Err(TryLockError::Poisoned(slot)) => Some(self.fail(slot.into_inner())),
        }
    }

    /// The slot, if nothing at all is in the way.
    #[inline]
    pub(super) fn lock_at_once(&self) -> Option<MutexGuard<'_, Slot<B>>> {
        self.slot.try_lock().ok()
    }

    // A body that panics may have lost a frame.
    #[cold]
    fn fail<'a>(&self, mut slot: MutexGuard<'a, Slot<B>>) -> MutexGuard<'a, Slot<B>> {
        if let Slot::Part(_) = *slot {
            self.word.fetch_or(FAILED, AcqRel);
            *slot = Slot::Refused(NotRepeatable::Failed);
        }
        slot
    }

    /// The slot of a body that was read to its end. Whoever has it is about to leave it.
    pub(super) fn lock_whole(&self) -> MutexGuard<'_, Slot<B>> {
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether another attempt could send the body now.
    pub(super) fn check(&self) -> Result<(), NotRepeatable> {
        let word = Word(self.word.load(Acquire));
        if word.is(WHOLE) {
            Ok(())
        } else if word.is(TOO_LONG) {
            Err(NotRepeatable::TooLong)
        } else if word.is(FAILED) || self.slot.is_poisoned() {
            Err(NotRepeatable::Failed)
        } else {
            Ok(())
        }
    }

    /// The attempt that may read, if there is one, reads no more. For one who keeps the body.
    pub(super) fn take_over(&self) -> Result<(), NotRepeatable> {
        self.change(|word| match word.is(READING) && !word.is(WHOLE) {
            true => word.0.wrapping_add(NUMBER) - READING - HANDLE,
            false => word.0,
        });
        let waiting = self.try_lock().and_then(|mut slot| match &mut *slot {
            Slot::Part(part) => part.waiting.take(),
            _ => None,
        });
        if let Some(waiting) = waiting {
            waiting.wake();
        }
        self.check()
    }

    /// One more who may send the body, beside the one who asks.
    pub(super) fn hold(&self) {
        self.word.fetch_add(HANDLE, AcqRel);
    }

    /// One less.
    pub(super) fn release(self: &Arc<Self>) {
        // What nobody else can see goes with its last owner.
        if Arc::strong_count(self) > 1 && self.change(|word| word.0 - HANDLE).is_nobody() {
            self.clear();
        }
    }

    /// Begins another attempt for one who keeps the body; for the last time if it is the `last`. It takes over from the attempt
    /// before if that one may still read.
    pub(super) fn begin(&self, last: bool) -> Begun {
        let kept = if last { HANDLE } else { 0 };
        let word = self.change(|word| {
            if word.is(WHOLE) {
                return word.0 + HANDLE - kept;
            }
            let handle = if word.is(READING) { 0 } else { HANDLE };
            (word.0.wrapping_add(NUMBER) | READING) + handle - kept
        });
        if word.is(WHOLE) { Begun::Whole } else { Begun::Reading(word.number()) }
    }

    /// The attempt reads no more, and leaves the rest to a later one.
    pub(super) fn leave(&self, number: u32) {
        let word = self.change(|word| if word.is_read_by(number) { word.0 - READING - HANDLE } else { word.0 });
        if word.is_nobody() {
            self.clear();
        }
    }

    // The attempt, which has the lock, was the last one to read.
    fn end(&self, number: u32, flag: u64) -> Word {
        self.change(|word| (if word.is_read_by(number) { word.0 - READING - HANDLE } else { word.0 }) | flag)
    }

    /// The body was read to its end.
    #[cold]
    pub(super) fn finish(&self, number: u32, mut slot: MutexGuard<'_, Slot<B>>, trailers: Option<&HeaderMap>) {
        let word = self.end(number, WHOLE);
        let Slot::Part(Part { mut frames, body, waiting }) = mem::replace(&mut *slot, Slot::Gone) else { return };
        if !word.is_nobody() {
            frames.settle();
            *slot = Slot::Whole(Whole { frames, trailers: trailers.cloned() });
        }
        // The lock is gone before the body is dropped.
        drop(slot);
        drop((body, waiting));
        // Who went meanwhile found the slot busy.
        if self.word().is_nobody() {
            self.clear();
        }
    }

    /// The body is not to be sent again. It is handed back, to be streamed on.
    #[cold]
    pub(super) fn refuse(
        &self,
        number: u32,
        mut slot: MutexGuard<'_, Slot<B>>,
        reason: NotRepeatable,
    ) -> Option<Part<B>> {
        self.end(number, if reason == NotRepeatable::TooLong { TOO_LONG } else { FAILED });
        match mem::replace(&mut *slot, Slot::Refused(reason)) {
            Slot::Part(part) => Some(part),
            _ => None,
        }
    }

    // Nobody sends the body any more, though an attempt that was taken over may hold on to the slot for long.
    #[cold]
    fn clear(&self) {
        // If it is busy, then with such an attempt, which takes it along, or with one that is just done, which looks again.
        if let Some(mut slot) = self.try_lock() {
            let old = mem::replace(&mut *slot, Slot::Gone);
            drop(slot);
            drop(old);
        }
    }
}

impl<B> Part<B> {
    pub(super) fn wait(&mut self, cx: &Context<'_>) {
        if !self.waiting.as_ref().is_some_and(|waiting| waiting.will_wake(cx.waker())) {
            self.waiting = Some(cx.waker().clone());
        }
    }
}

impl Whole {
    // The trailers come behind the last frame.
    pub(super) fn has_more(&self, next: usize) -> bool {
        next < self.frames.count() + usize::from(self.trailers.is_some())
    }
}
