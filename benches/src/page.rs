//! A data section of the stand-in, mapped.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;

/// A value of plain words that BPF programs share with us, until dropped.
#[derive(Debug)]
pub(crate) struct Page<T>(NonNull<T>);

impl<T> Page<T> {
    /// Maps the section's map.
    pub(crate) fn new(map: BorrowedFd<'_>) -> std::io::Result<Self> {
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), Self::len(), prot, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Self(NonNull::new(at.cast()).expect("nothing is mapped at address 0")))
    }

    fn len() -> usize {
        size_of::<T>().next_multiple_of(4096)
    }

    /// Where it is. The kernel may write there while a program runs, so it is read and written by volatile access.
    pub(crate) fn at(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Page<T> {
    fn drop(&mut self) {
        // SAFETY: start and length of a successful mmap, to which nothing refers any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::len()) };
    }
}
