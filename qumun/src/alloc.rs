//! A guard for the rule that the agent's thread does not allocate.
//!
//! Install [`CountingAllocator`] in a binary or a test. It passes everything on to the system's
//! allocator and counts what a thread does while it holds a [`Guard`]; [`Agent::run`] holds one.
//!
//! ```
//! use qumun::alloc::{CountingAllocator, Guard};
//!
//! #[global_allocator]
//! static ALLOCATOR: CountingAllocator = CountingAllocator;
//!
//! let guard = Guard::new();
//! assert_eq!(guard.count(), 0);
//! drop(Box::new(1));
//! assert_eq!(guard.count(), 1);
//! ```
//!
//! [`Agent::run`]: crate::Agent::run

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    // Constants without destructors: reading them allocates nothing, at any time in a thread's life.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}
static TOTAL: AtomicU64 = AtomicU64::new(0);

/// The system's allocator, with a count of what watched threads ask of it. Freeing is not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// Allocations (and reallocations) by watched threads since the process began, for readers on other
/// threads. Always zero unless [`CountingAllocator`] is installed.
pub fn total() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// Marks the present thread as one that should not allocate, until dropped.
#[derive(Debug)]
pub struct Guard {
    begin: u64,
    before: bool,
    // It belongs to the thread that made it.
    _not_send: PhantomData<*const ()>,
}

impl Guard {
    /// Begins to watch this thread.
    #[must_use = "the thread is watched until the guard is dropped"]
    pub fn new() -> Self {
        let before = WATCHED.replace(true);
        Self { begin: COUNT.get(), before, _not_send: PhantomData }
    }

    /// Allocations on this thread since the guard was made.
    pub fn count(&self) -> u64 {
        COUNT.get() - self.begin
    }
}

impl Default for Guard {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        WATCHED.set(self.before);
    }
}

fn note() {
    if WATCHED.get() {
        COUNT.set(COUNT.get() + 1);
        TOTAL.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: every call goes unchanged to `System`, which keeps the contract; `note` neither allocates
// nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}
