//! Memory that is shared with the kernel.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::OnceLock;

use crate::{Error, Result};

/// The size of a page, asked once: the rings need it for each record.
pub(crate) fn page_size() -> usize {
    static SIZE: OnceLock<usize> = OnceLock::new();
    *SIZE.get_or_init(|| {
        // SAFETY: sysconf has no preconditions.
        let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
        usize::try_from(size).unwrap_or(4096)
    })
}

/// The kind of a map (`enum bpf_map_type`).
pub(crate) fn map_type(fd: BorrowedFd<'_>) -> Result<u32> {
    /// The part of `union bpf_attr` that BPF_OBJ_GET_INFO_BY_FD reads (include/uapi/linux/bpf.h).
    #[repr(C)]
    struct InfoByFd {
        fd: u32,
        len: u32,
        info: u64,
    }
    const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;
    // struct bpf_map_info begins with the type and the id; the kernel writes no more than fits.
    let mut info = [0u32; 2];
    let mut attr = InfoByFd {
        fd: fd.as_raw_fd() as u32,
        len: size_of_val(&info) as u32,
        info: info.as_mut_ptr() as u64,
    };
    // SAFETY: attr is large enough for this command, and info lives until the call returns.
    let ret = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            BPF_OBJ_GET_INFO_BY_FD,
            std::ptr::from_mut(&mut attr),
            size_of::<InfoByFd>(),
        )
    };
    if ret < 0 {
        return Err(Error::system(format!("descriptor {} is no BPF map", fd.as_raw_fd())));
    }
    Ok(info[0])
}

/// A piece of a BPF map, mapped and present in memory until dropped.
#[derive(Debug)]
pub(crate) struct Mapping {
    start: NonNull<u8>,
    len: usize,
    /// From the heap: Miri, which sees every access out of bounds, cannot map.
    #[cfg(test)]
    heap: bool,
}

// SAFETY: the memory belongs to the mapping, is shared with the kernel anyway, and every access goes
// through atomics or volatile copies.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(
        fd: BorrowedFd<'_>,
        len: usize,
        offset: usize,
        writable: bool,
        what: &str,
    ) -> Result<Self> {
        let prot = if writable { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        let offset = libc::off_t::try_from(offset)
            .map_err(|e| Error::new(crate::ErrorKind::Invalid, format!("offset of {what}")).because(e))?;
        // SAFETY: a new mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                prot,
                // Present from the start: the agent must never wait for a page fault.
                libc::MAP_SHARED | libc::MAP_POPULATE,
                fd.as_raw_fd(),
                offset,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(Error::system(format!("cannot map {what} ({len} bytes at {offset})")));
        }
        match NonNull::new(start.cast()) {
            Some(start) => Ok(Self {
                start,
                len,
                #[cfg(test)]
                heap: false,
            }),
            None => Err(Error::new(crate::ErrorKind::System, format!("{what} was mapped at address 0"))),
        }
    }

    /// Zeroed memory of this process, as aligned as a mapping.
    #[cfg(test)]
    pub(crate) fn heap(len: usize) -> Self {
        // SAFETY: the tests ask for more than no bytes.
        let start = unsafe { std::alloc::alloc_zeroed(Self::layout(len)) };
        Self { start: NonNull::new(start).expect("memory for a test"), len, heap: true }
    }

    #[cfg(test)]
    fn layout(len: usize) -> std::alloc::Layout {
        std::alloc::Layout::from_size_align(len, page_size()).expect("a page is a power of two")
    }

    /// A pointer to `size` bytes at `offset`.
    ///
    /// # Panics
    /// When that is outside the mapping: a mistake in this crate, never caused by what is in memory.
    pub(crate) fn at(&self, offset: usize, size: usize) -> *mut u8 {
        assert!(offset.checked_add(size).is_some_and(|end| end <= self.len), "outside the mapping");
        // SAFETY: in bounds by the line above.
        unsafe { self.start.as_ptr().add(offset) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        #[cfg(test)]
        if self.heap {
            // SAFETY: allocated with this layout by `heap`, and nothing refers to it any more.
            return unsafe { std::alloc::dealloc(self.start.as_ptr(), Self::layout(self.len)) };
        }
        // SAFETY: start and len are those of a successful mmap, and nothing refers to it any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.len) };
    }
}

/// Copies a value that the kernel may change meanwhile, word by word. A volatile read of the whole would
/// be a single operation, and the compiler takes many minutes to optimise one of 34 KiB.
///
/// # Safety
/// `from` must be aligned and valid for reads of a `T`, for which every bit pattern is valid.
pub(crate) unsafe fn read_words<T: Copy>(from: *const T) -> T {
    const { assert!(size_of::<T>().is_multiple_of(8) && align_of::<T>() == 8) };
    let mut copy = MaybeUninit::<T>::uninit();
    let to = copy.as_mut_ptr().cast::<u64>();
    for i in 0..size_of::<T>() / 8 {
        // SAFETY: both sides are aligned for a u64 and hold this many of them, by the assertion.
        unsafe { to.add(i).write(from.cast::<u64>().add(i).read_volatile()) };
    }
    // SAFETY: every word was written, and every bit pattern is valid.
    unsafe { copy.assume_init() }
}

/// One value of type `T` in a map, which the kernel may change at any time.
#[derive(Debug)]
pub(crate) struct Shared<T> {
    mapping: Mapping,
    of: PhantomData<T>,
}

impl<T: Copy> Shared<T> {
    pub(crate) fn new(fd: BorrowedFd<'_>, writable: bool, what: &str) -> Result<Self> {
        let len = size_of::<T>().next_multiple_of(page_size());
        Ok(Self { mapping: Mapping::new(fd, len, 0, writable, what)?, of: PhantomData })
    }

    pub(crate) fn ptr(&self) -> *mut T {
        self.mapping.at(0, size_of::<T>()).cast()
    }

    /// A copy of the whole, not atomic over more than a word.
    #[cfg(feature = "loader")]
    pub(crate) fn read(&self) -> T {
        // SAFETY: in bounds and page aligned; T is plain data for which every bit pattern is valid.
        unsafe { read_words(self.ptr()) }
    }
}
