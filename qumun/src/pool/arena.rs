//! One region, divided by the buddy system.
//!
//! Knowlton's buddy system as in Knuth, The Art of Computer Programming 1, 2.5, algorithms R and S:
//! blocks are powers of two in size and begin at a multiple of it; a block that is too large is halved
//! until it fits, and one that comes back is joined with its other half, its *buddy*, if that is free as
//! a whole. So both ways take at most one step for each size, however the region looks, and there is
//! nothing to search. The price is room: a request is rounded up to a power of two.
//!
//! ```text
//!   | tags: one byte for each smallest block | padding | blocks                              |
//!   ^ page                                             ^ page: `base`
//! ```
//!
//! A tag says what begins at its block: something free or in use of some order (size `MIN_BLOCK << order`),
//! or nothing, as the block is inside another. Free blocks of an order form a list, doubly linked, as a
//! buddy is taken out of the middle; the links are in the blocks.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::Cell;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use allocator_api2::alloc::AllocError;

use super::Handle;
use crate::{Error, ErrorKind, Result};

/// The smallest block, in bytes.
pub const MIN_BLOCK: usize = 32;
/// The granularity of an arena, and the largest alignment it can give, in bytes.
pub const PAGE: usize = 4096;

const NIL: u32 = u32::MAX;
/// Orders that a region of u32 blocks can have.
const ORDERS: usize = 32;

/// What begins at a block; with an order in the low bits unless it is `INSIDE`.
const INSIDE: u8 = 0;
const FREE: u8 = 0x40;
const USED: u8 = 0x80;

/// A region of memory that is taken from the system once and never grows.
///
/// Every page is written to when it is made. The memory goes back to the system when the arena, all its
/// [handles](Self::handle) and all that was made with them are gone.
pub struct Arena {
    inner: Rc<Region>,
}

/// How full an [`Arena`] is. All but the last are bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Fill {
    /// What there is in all.
    pub capacity: usize,
    /// What is in use: whole blocks, so up to twice what was asked for.
    pub in_use: usize,
    /// The largest request that can be met now.
    pub largest_free: usize,
    /// The most that ever was in use.
    pub high_water: usize,
    /// Requests that could not be met.
    pub failures: u64,
}

impl Arena {
    /// Takes so many bytes from the system, rounded up to whole [pages](PAGE), and touches them. A size
    /// that is no power of two is made of several, the largest first. One byte in 33 comes on top, for
    /// the tags.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] if the system does not have it, or for more than 128 GiB.
    pub fn new(bytes: usize) -> Result<Self> {
        Region::new(bytes)
            .map(|region| Self { inner: Rc::new(region) })
            .ok_or_else(|| Error::new(ErrorKind::OutOfMemory, format!("take {bytes} bytes for a pool")))
    }

    /// Locks the arena in memory, until it is dropped: the kernel may neither page it out nor move it to
    /// where an access would fault. Not needed in a process that has called `mlockall`, as the
    /// kernel backend does.
    ///
    /// # Errors
    /// [`ErrorKind::PermissionDenied`] if `RLIMIT_MEMLOCK` is too low, [`ErrorKind::Unsupported`] where
    /// there is no `mlock`.
    pub fn lock(&self) -> Result<()> {
        self.inner.lock()
    }

    /// What collections allocate with.
    pub fn handle(&self) -> Handle {
        Handle::new(self.inner.clone())
    }

    /// How full it is.
    pub fn fill(&self) -> Fill {
        self.inner.fill()
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// The size of the block in which so many bytes at such an alignment are placed; `None` if there can
/// be none.
pub(crate) fn block_size(layout: Layout) -> Option<usize> {
    let size = layout.size().max(layout.align()).max(MIN_BLOCK);
    // `base` is aligned to a page, not to the largest block: that would cost as much again.
    if layout.align() > PAGE { None } else { size.checked_next_power_of_two() }
}

fn order_of(layout: Layout) -> Option<u32> {
    block_size(layout).map(|size| (size / MIN_BLOCK).trailing_zeros())
}

/// The links of a free block; they are block numbers.
#[derive(Clone, Copy)]
struct Links {
    prev: u32,
    next: u32,
}

/// What an arena and its handles share. On one thread, by `Rc`; hence cells, and no lock.
pub(super) struct Region {
    /// The tags; all of it begins here.
    start: NonNull<u8>,
    /// The first block.
    base: NonNull<u8>,
    /// Of the whole, with the tags in front.
    layout: Layout,
    blocks: usize,
    /// The first free block of each order.
    heads: [Cell<u32>; ORDERS],
    /// One bit for each order that has a free block.
    available: Cell<u32>,
    in_use: Cell<usize>,
    high_water: Cell<usize>,
    failures: Cell<u64>,
    locked: Cell<bool>,
}

impl Region {
    fn new(bytes: usize) -> Option<Self> {
        let size = bytes.max(1).checked_next_multiple_of(PAGE)?;
        let blocks = size / MIN_BLOCK;
        if blocks >= NIL as usize {
            return None;
        }
        let tags = blocks.next_multiple_of(PAGE);
        let layout = Layout::from_size_align(tags.checked_add(size)?, PAGE).ok()?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        for page in (0..layout.size()).step_by(PAGE) {
            // Zeroed memory may be one page of zeros, mapped many times, until it is written to.
            // SAFETY: inside the allocation. Volatile, or it would be left out: there is a zero already.
            unsafe { start.add(page).write_volatile(INSIDE) };
        }
        let region = Self {
            start,
            // SAFETY: the tags are less than the allocation.
            base: unsafe { start.add(tags) },
            layout,
            blocks,
            heads: [const { Cell::new(NIL) }; ORDERS],
            available: Cell::new(0),
            in_use: Cell::new(0),
            high_water: Cell::new(0),
            failures: Cell::new(0),
            locked: Cell::new(false),
        };
        // The binary digits of the size, highest first, so that each block begins at a multiple of its
        // own size.
        let mut at = 0;
        while at < blocks {
            let order = (blocks - at).ilog2();
            region.link(at, order);
            at += 1 << order;
        }
        Some(region)
    }

    /// Algorithm R: a block of at least this size, at this alignment.
    pub(super) fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        if layout.size() == 0 {
            return Ok(dangling(layout));
        }
        let reserved = order_of(layout).and_then(|order| Some((self.reserve(order)?, order)));
        let Some((block, order)) = reserved else {
            self.failures.set(self.failures.get() + 1);
            return Err(AllocError);
        };
        self.account(0, MIN_BLOCK << order);
        Ok(self.slice(block, order))
    }

    /// Algorithm S: takes a block back and joins it with its buddies.
    ///
    /// # Safety
    /// `pointer` came from this region for a layout that fits this one, and is not in use any more.
    pub(super) unsafe fn deallocate(&self, pointer: NonNull<u8>, layout: Layout) {
        if layout.size() == 0 {
            return;
        }
        if let Some((block, order)) = self.in_use(pointer, layout) {
            self.account(MIN_BLOCK << order, 0);
            self.liberate(block, order);
        }
    }

    /// Makes a block larger or smaller where it is, if that can be.
    ///
    /// # Safety
    /// As for [`deallocate`](Self::deallocate) with `old`, except that the block may be in use.
    pub(super) unsafe fn resize(&self, at: NonNull<u8>, old: Layout, new: Layout) -> Option<NonNull<[u8]>> {
        if old.size() == 0 || new.size() == 0 {
            return None;
        }
        let want = order_of(new)?;
        let (block, order) = self.in_use(at, old)?;
        // It must be the lower half of all that it shall become, and the upper halves must be free.
        let joins = |order: u32| {
            let upper = block ^ (1_usize << order);
            upper > block && self.is_free(upper, order)
        };
        if !(order..want).all(joins) {
            return None;
        }
        (order..want).for_each(|order| self.unlink(block ^ 1 << order, order));
        (want..order).rev().for_each(|order| self.link(block ^ 1 << order, order));
        self.set_tag(block, USED | want as u8);
        self.account(MIN_BLOCK << order, MIN_BLOCK << want);
        Some(self.slice(block, want))
    }

    pub(super) fn fill(&self) -> Fill {
        Fill {
            capacity: self.blocks * MIN_BLOCK,
            in_use: self.in_use.get(),
            largest_free: self.available.get().checked_ilog2().map_or(0, |order| MIN_BLOCK << order),
            high_water: self.high_water.get(),
            failures: self.failures.get(),
        }
    }

    fn reserve(&self, want: u32) -> Option<usize> {
        let larger = self.available.get() & u32::MAX.checked_shl(want)?;
        if larger == 0 {
            return None;
        }
        let found = larger.trailing_zeros();
        let block = self.heads[found as usize].get() as usize;
        self.unlink(block, found);
        // Keep the lower half each time; the upper one is free.
        (want..found).rev().for_each(|order| self.link(block + (1 << order), order));
        self.set_tag(block, USED | want as u8);
        Some(block)
    }

    fn liberate(&self, mut block: usize, mut order: u32) {
        self.set_tag(block, INSIDE);
        while self.is_free(block ^ 1 << order, order) {
            self.unlink(block ^ 1 << order, order);
            block &= !(1 << order);
            order += 1;
        }
        self.link(block, order);
    }

    /// Is there, inside the region, a free block of exactly this order?
    fn is_free(&self, block: usize, order: u32) -> bool {
        self.tag(block) == FREE | order as u8
    }

    /// Which block this pointer is; `None` if it is none that is in use for such a layout. It costs a
    /// look at a byte that is needed anyway; what was freed twice leaks instead of breaking the lists.
    fn in_use(&self, pointer: NonNull<u8>, layout: Layout) -> Option<(usize, u32)> {
        let order = order_of(layout)?;
        let offset = pointer.addr().get().wrapping_sub(self.base.addr().get());
        let ours = offset.is_multiple_of(MIN_BLOCK) && self.tag(offset / MIN_BLOCK) == USED | order as u8;
        debug_assert!(ours, "{pointer:p} is not a block of {layout:?} in use: freed twice, or not from here");
        ours.then_some((offset / MIN_BLOCK, order))
    }

    fn account(&self, less: usize, more: usize) {
        let now = self.in_use.get() - less + more;
        self.in_use.set(now);
        self.high_water.set(self.high_water.get().max(now));
    }

    fn slice(&self, block: usize, order: u32) -> NonNull<[u8]> {
        NonNull::slice_from_raw_parts(self.pointer(block), MIN_BLOCK << order)
    }

    /// Puts a free block in front of the list of its order.
    fn link(&self, block: usize, order: u32) {
        let head = &self.heads[order as usize];
        let next = head.replace(block as u32);
        self.set_links(block, Links { prev: NIL, next });
        if next != NIL {
            let links = self.links(next as usize);
            self.set_links(next as usize, Links { prev: block as u32, ..links });
        }
        self.available.set(self.available.get() | 1 << order);
        self.set_tag(block, FREE | order as u8);
    }

    /// Takes a free block out of the list of its order.
    fn unlink(&self, block: usize, order: u32) {
        let Links { prev, next } = self.links(block);
        let head = &self.heads[order as usize];
        match prev {
            NIL => head.set(next),
            prev => self.set_links(prev as usize, Links { next, ..self.links(prev as usize) }),
        }
        if next != NIL {
            self.set_links(next as usize, Links { prev, ..self.links(next as usize) });
        }
        if head.get() == NIL {
            self.available.set(self.available.get() & !(1 << order));
        }
        self.set_tag(block, INSIDE);
    }

    /// What begins at a block; nothing does outside the region.
    fn tag(&self, block: usize) -> u8 {
        if block >= self.blocks {
            return INSIDE;
        }
        // SAFETY: as many bytes as there are blocks are at the start, set to zero when they were allocated.
        unsafe { self.start.add(block).read() }
    }

    fn set_tag(&self, block: usize, tag: u8) {
        if block < self.blocks {
            // SAFETY: as for `tag`; nobody else reaches them, and there are no references to them.
            unsafe { self.start.add(block).write(tag) }
        }
    }

    fn pointer(&self, block: usize) -> NonNull<u8> {
        debug_assert!(block < self.blocks);
        // SAFETY: block numbers come from the lists and from `in_use`, and are inside the region.
        unsafe { self.base.add(block * MIN_BLOCK) }
    }

    fn links(&self, block: usize) -> Links {
        // SAFETY: called for free blocks only, whose first bytes `set_links` has written; a block is
        // larger than the links and aligned to more than they need.
        unsafe { self.pointer(block).cast::<Links>().read() }
    }

    fn set_links(&self, block: usize, links: Links) {
        // SAFETY: called for free blocks only, which nobody else reads or writes; see `links`.
        unsafe { self.pointer(block).cast::<Links>().write(links) }
    }

    fn lock(&self) -> Result<()> {
        os::lock(self.start, self.layout.size())?;
        self.locked.set(true);
        Ok(())
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.locked.get() {
            // Or the allocator would have locked pages to give to others. They are whole pages of ours.
            os::unlock(self.start, self.layout.size());
        }
        // SAFETY: allocated in `new` with this layout; whoever has a block has a handle, too, so this was
        // the last.
        unsafe { dealloc(self.start.as_ptr(), self.layout) }
    }
}

impl fmt::Debug for Region {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("fill", &self.fill()).finish_non_exhaustive()
    }
}

/// Where nothing is, at the right alignment.
fn dangling(layout: Layout) -> NonNull<[u8]> {
    let nowhere = NonNull::new(std::ptr::without_provenance_mut(layout.align()));
    NonNull::slice_from_raw_parts(nowhere.unwrap_or(NonNull::dangling()), 0)
}

#[cfg(all(unix, not(miri)))]
mod os {
    use std::ptr::NonNull;

    use crate::{Error, ErrorKind, Result};

    pub(super) fn lock(start: NonNull<u8>, bytes: usize) -> Result<()> {
        // SAFETY: locking changes nothing that a program can see; the kernel checks the range.
        if unsafe { libc::mlock(start.as_ptr().cast(), bytes) } == 0 {
            return Ok(());
        }
        let hint = format!(
            "lock {bytes} bytes of a pool: raise RLIMIT_MEMLOCK (`ulimit -l`, LimitMEMLOCK= in a unit) \
             or give CAP_IPC_LOCK"
        );
        Err(Error::with_source(ErrorKind::PermissionDenied, hint, std::io::Error::last_os_error()))
    }

    pub(super) fn unlock(start: NonNull<u8>, bytes: usize) {
        // SAFETY: as for `lock`.
        unsafe { libc::munlock(start.as_ptr().cast(), bytes) };
    }
}

#[cfg(not(all(unix, not(miri))))]
mod os {
    use std::ptr::NonNull;

    use crate::{Error, ErrorKind, Result};

    pub(super) fn lock(_: NonNull<u8>, _: usize) -> Result<()> {
        Err(Error::new(ErrorKind::Unsupported, "lock a pool: there is no mlock here"))
    }

    pub(super) fn unlock(_: NonNull<u8>, _: usize) {}
}
