//! Threads by number, and counters of which each is written by one thread.
//!
//! What all calls write to is what makes two cores slower than one. So what calls count while nothing is wrong is counted by each
//! thread for itself: a plain addition to a word in a cache line of its own, which others only read.

use std::{
    cell::Cell,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread,
};

/// More places would only be more to look through.
const MOST: usize = 64;

/// A cache line of its own (or two, on the machines that fetch pairs).
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// How many places there are for the threads of this machine: twice as many as can run at once, and the first.
pub(crate) fn places() -> usize {
    static PLACES: OnceLock<usize> = OnceLock::new();
    // Asks the operating system, hence once.
    *PLACES.get_or_init(|| (2 * thread::available_parallelism().map_or(1, usize::from)).min(MOST) + 1)
}

/// Where this thread counts: a place of its own, where no other thread that lives counts, or else the first, which all threads without
/// one share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place<'a, T> {
    Own(&'a T),
    Shared(&'a T),
}

impl<'a, T> Place<'a, T> {
    /// The place of this thread. There has to be one at least.
    #[inline]
    pub(crate) fn among(places: &'a [T]) -> Self {
        // No thread has the number zero.
        match places.get(number()) {
            Some(own) => Self::Own(own),
            None => Self::Shared(&places[0]),
        }
    }

    pub(crate) const fn get(self) -> &'a T {
        match self {
            Self::Own(place) | Self::Shared(place) => place,
        }
    }
}

/// Where a thread without a place of its own counts.
const NOBODY: usize = usize::MAX;

/// A number that no other thread has at the same time, from 1 on. The numbers of threads that ended are given away again, the
/// lowest first.
#[inline]
fn number() -> usize {
    NUMBER.with(|number| match number.get() {
        0 => first_number(number),
        number => number,
    })
}

thread_local! {
    // Zero: not numbered yet. Without a destructor, so that reading it is but a load.
    static NUMBER: Cell<usize> = const { Cell::new(0) };
    static GUARD: Numbered = Numbered(take());
}

/// Gives its number back when its thread ends.
struct Numbered(usize);

static NEXT: AtomicUsize = AtomicUsize::new(1);
static FREE: Mutex<Vec<usize>> = Mutex::new(Vec::new());

fn take() -> usize {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    // Sorted, the lowest last.
    free.pop().unwrap_or_else(|| NEXT.fetch_add(1, Relaxed))
}

impl Drop for Numbered {
    fn drop(&mut self) {
        // From here on this thread, which is about to end, counts where nobody is alone.
        let _ = NUMBER.try_with(|number| number.set(NOBODY));
        let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
        let at = free.partition_point(|other| *other > self.0);
        free.insert(at, self.0);
    }
}

#[cold]
#[inline(never)]
fn first_number(number: &Cell<usize>) -> usize {
    let first = GUARD.try_with(|guard| guard.0).unwrap_or(NOBODY);
    number.set(first);
    first
}

#[cfg(all(test, not(interleavings)))]
mod tests {
    use std::{collections::HashSet, sync::Barrier};

    use super::*;

    #[test]
    fn threads_that_live_at_the_same_time_never_share_a_number() {
        for _ in 0..20 {
            let all_here = Barrier::new(8);
            let numbers: Vec<_> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            let mine = number();
                            all_here.wait();
                            assert_eq!(number(), mine);
                            mine
                        })
                    })
                    .collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(numbers.iter().collect::<HashSet<_>>().len(), 8, "{numbers:?}");
            assert!(numbers.iter().all(|number| *number > 0));
        }
    }

    #[test]
    fn numbers_are_given_away_again() {
        let most = (0..200).map(|_| thread::spawn(number).join().unwrap()).max().unwrap();
        // Other tests run meanwhile, and have some.
        assert!(most < 100, "{most}");
    }

    #[test]
    fn a_thread_beyond_all_places_shares_the_first() {
        let mine = number();
        let places: Vec<_> = (0..=mine).collect();
        assert_eq!(Place::among(&places), Place::Own(&mine));
        assert_eq!(Place::among(&places[..mine]), Place::Shared(&0));
        assert_eq!(Place::among(&places[..1]), Place::Shared(&0));
    }

    #[test]
    fn a_thread_that_ends_counts_where_it_is_not_alone() {
        thread_local!(
            static LAST: Last = const { Last };
        );
        struct Last;
        static SEEN: AtomicUsize = AtomicUsize::new(0);
        impl Drop for Last {
            fn drop(&mut self) {
                // Whatever was torn down before, this neither panics nor has a number that is free.
                let number = number();
                let is_free = FREE.lock().unwrap_or_else(PoisonError::into_inner).contains(&number);
                SEEN.store(1 + usize::from(is_free), Relaxed);
            }
        }
        thread::spawn(|| {
            LAST.with(|_| ());
            number();
        })
        .join()
        .unwrap();
        assert_eq!(SEEN.load(Relaxed), 1);
    }
}
