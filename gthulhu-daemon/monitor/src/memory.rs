//! Maps of the kernel's, in this process's memory: reading them costs no system call.

use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use crate::{Error, ErrorKind, Result};

/// An array of `T` that the kernel may change at any time.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    start: NonNull<T>,
    count: usize,
    bytes: usize,
}

// SAFETY: the memory belongs to the mapping, and every access is a volatile copy or an atomic.
unsafe impl<T> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// `T` must be plain data of 8-byte words for which every bit pattern is valid: those of `layout`.
    pub(crate) fn map(fd: BorrowedFd<'_>, count: usize, writable: bool, what: &str) -> Result<Self> {
        const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
        // SAFETY: sysconf has no preconditions.
        let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4096);
        let bytes = (count * size_of::<T>()).next_multiple_of(page);
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), bytes, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if start == libc::MAP_FAILED {
            return Err(Error::system(format!("cannot map {what} ({bytes} bytes)")));
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self { start, count, bytes }),
            None => Err(Error::new(ErrorKind::System, format!("{what} was mapped at address 0"))),
        }
    }

    fn at(&self, index: usize) -> *mut T {
        assert!(index < self.count, "outside the mapping");
        // SAFETY: in bounds by the line above.
        unsafe { self.start.as_ptr().add(index) }
    }

    /// A copy, not atomic over more than a word.
    pub(crate) fn read(&self, index: usize) -> T {
        let from = self.at(index).cast::<u64>();
        let mut copy = MaybeUninit::<T>::uninit();
        let to = copy.as_mut_ptr().cast::<u64>();
        for word in 0..size_of::<T>() / 8 {
            // SAFETY: both sides are aligned for a u64 and hold this many of them, by the assertion in `map`.
            unsafe { to.add(word).write(from.add(word).read_volatile()) };
        }
        // SAFETY: every word was written, and every bit pattern is valid.
        unsafe { copy.assume_init() }
    }

    /// A word of one of them, to be written.
    pub(crate) fn word(&self, index: usize, offset: usize) -> &AtomicU64 {
        assert!(offset.is_multiple_of(8) && offset + 8 <= size_of::<T>(), "outside the value");
        // SAFETY: in bounds, aligned, and everyone who writes it does so atomically.
        unsafe { AtomicU64::from_ptr(self.at(index).cast::<u8>().add(offset).cast()) }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // SAFETY: start and bytes are those of a successful mmap, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
