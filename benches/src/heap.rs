//! What a thread asks the heap for, in a program whose allocator is [`Counting`].

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting.
pub struct Counting;

/// What was asked for so far.
#[derive(Clone, Copy, Debug)]
pub struct Heap {
    pub allocations: u64,
    pub bytes: u64,
    /// Bytes that were not given back.
    pub held: i64,
    /// The most that were held at once since [`reset_peak`].
    pub peak: i64,
}

thread_local! {
    static HEAP: Cell<Heap> = const { Cell::new(Heap { allocations: 0, bytes: 0, held: 0, peak: 0 }) };
}

/// What this thread asked for.
pub fn asked() -> Heap {
    HEAP.get()
}

/// Forgets the peak.
pub fn reset_peak() {
    let heap = asked();
    HEAP.set(Heap { peak: heap.held, ..heap });
}

fn took(bytes: usize) {
    let mut heap = HEAP.get();
    heap.allocations += 1;
    heap.bytes += bytes as u64;
    heap.held += bytes as i64;
    heap.peak = heap.peak.max(heap.held);
    HEAP.set(heap);
}

fn gave(bytes: usize) {
    let heap = HEAP.get();
    HEAP.set(Heap { held: heap.held - bytes as i64, ..heap });
}

// SAFETY: everything is left to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        gave(layout.size());
        took(size);
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        unsafe { System.dealloc(at, layout) }
    }
}
