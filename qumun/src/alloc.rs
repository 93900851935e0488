//! Guards for the rule that the agent's thread neither allocates nor takes a page fault.
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
//! A test that wants to know who allocates calls [`abort_on_allocation`] and looks at the core dump or at
//! the backtrace of a debugger.
//!
//! The kernel counts page faults itself; [`FaultGuard`] asks it, at any time and in any binary.
//!
//! [`Agent::run`]: crate::Agent::run

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::Write as _;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

thread_local! {
    // Constants without destructors: reading them allocates nothing, at any time in a thread's life.
    static WATCHED: Cell<bool> = const { Cell::new(false) };
    static COUNT: Cell<u64> = const { Cell::new(0) };
}
static TOTAL: AtomicU64 = AtomicU64::new(0);
static ABORT: AtomicBool = AtomicBool::new(false);

/// The system's allocator, with a count of what watched threads ask of it. Freeing is not counted.
#[derive(Clone, Copy, Debug, Default)]
pub struct CountingAllocator;

/// Allocations (and reallocations) by watched threads since the process began, for readers on other
/// threads. Always zero unless [`CountingAllocator`] is installed.
pub fn total() -> u64 {
    TOTAL.load(Ordering::Relaxed)
}

/// From now on, a watched thread that allocates aborts the process, with a message on standard error;
/// `false` ends that. For tests. Nothing happens unless [`CountingAllocator`] is installed.
pub fn abort_on_allocation(on: bool) {
    ABORT.store(on, Ordering::Relaxed);
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

/// Page faults of a thread.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Faults {
    /// Those that were served from memory, such as the first write to a new page.
    pub minor: u64,
    /// Those that waited for a disk.
    pub major: u64,
}

impl Faults {
    /// All of them.
    pub fn total(&self) -> u64 {
        self.minor + self.major
    }

    /// What the kernel has counted for this thread; nothing where it does not (other than on Linux).
    fn now() -> Self {
        #[cfg(all(target_os = "linux", not(miri)))]
        {
            let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
            // SAFETY: there is room for what is written.
            unsafe { libc::getrusage(libc::RUSAGE_THREAD, usage.as_mut_ptr()) };
            // SAFETY: integers, of which zero is one.
            let usage = unsafe { usage.assume_init() };
            Self { minor: usage.ru_minflt as u64, major: usage.ru_majflt as u64 }
        }
        #[cfg(not(all(target_os = "linux", not(miri))))]
        Self::default()
    }
}

/// Counts the page faults of the present thread. Each look costs a system call.
#[derive(Debug)]
pub struct FaultGuard {
    begin: Faults,
    _not_send: PhantomData<*const ()>,
}

impl FaultGuard {
    /// Begins to count.
    #[must_use = "it tells nothing unless it is asked"]
    pub fn new() -> Self {
        Self { begin: Faults::now(), _not_send: PhantomData }
    }

    /// Page faults of this thread since the guard was made.
    pub fn faults(&self) -> Faults {
        let now = Faults::now();
        Faults { minor: now.minor - self.begin.minor, major: now.major - self.begin.major }
    }
}

impl Default for FaultGuard {
    fn default() -> Self {
        Self::new()
    }
}

fn note(size: usize) {
    if WATCHED.get() {
        COUNT.set(COUNT.get() + 1);
        TOTAL.fetch_add(1, Ordering::Relaxed);
        if ABORT.load(Ordering::Relaxed) {
            abort(size);
        }
    }
}

/// Without `eprintln`, which may take a lock and allocate.
#[cold]
fn abort(size: usize) -> ! {
    let mut text = [0; 96];
    let mut rest = &mut text[..];
    // It fits.
    let _ = writeln!(rest, "qumun: {size} bytes allocated by a thread that must not; aborting");
    let left = rest.len();
    #[cfg(unix)]
    // SAFETY: the bytes up to there are initialised. If nobody reads them, there is nothing to do about it.
    unsafe {
        libc::write(2, text.as_ptr().cast(), text.len() - left)
    };
    #[cfg(not(unix))]
    let _ = left;
    std::process::abort()
}

// SAFETY: every call goes unchanged to `System`, which keeps the contract; `note` neither allocates
// nor unwinds.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: the caller keeps the contract of `alloc_zeroed`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: the caller keeps the contract of `realloc`.
        unsafe { System.realloc(ptr, layout, size) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract of `dealloc`.
        unsafe { System.dealloc(ptr, layout) }
    }
}
