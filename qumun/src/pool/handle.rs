//! The arena as the allocator of collections.

use std::alloc::Layout;
use std::fmt;
use std::ptr::NonNull;
use std::rc::Rc;

use allocator_api2::alloc::{AllocError, Allocator};

use super::Fill;
use super::arena::Region;

/// A vector on an arena. `push` and its like abort the process when the arena is exhausted; see
/// [`TryPush`] and [`try_reserve`](allocator_api2::vec::Vec::try_reserve).
pub type Vec<T> = allocator_api2::vec::Vec<T, Handle>;
/// A value on an arena. Made by [`Handle::boxed`].
pub type Box<T> = allocator_api2::boxed::Box<T, Handle>;

/// What collections allocate with; they keep a clone. It costs as much as a reference count.
///
/// It stays on the thread that made the arena, which so needs no lock.
///
/// ```compile_fail
/// fn must_be_send<T: Send>() {}
/// must_be_send::<qumun::pool::Handle>();
/// ```
#[derive(Clone)]
pub struct Handle {
    region: Rc<Region>,
}

impl Handle {
    pub(super) fn new(region: Rc<Region>) -> Self {
        Self { region }
    }

    /// An empty vector with room for so many elements.
    ///
    /// # Errors
    /// When the arena has no block of that size.
    pub fn vec<T>(&self, capacity: usize) -> Result<Vec<T>, AllocError> {
        let mut vec = Vec::new_in(self.clone());
        vec.try_reserve_exact(capacity).map_err(|_| AllocError)?;
        Ok(vec)
    }

    /// Puts a value on the arena.
    ///
    /// # Errors
    /// When the arena is exhausted, the value comes back.
    pub fn boxed<T>(&self, value: T) -> Result<Box<T>, T> {
        match Box::try_new_uninit_in(self.clone()) {
            Ok(place) => Ok(Box::write(place, value)),
            Err(AllocError) => Err(value),
        }
    }

    /// How full the arena is.
    pub fn fill(&self) -> Fill {
        self.region.fill()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.region).finish()
    }
}

/// Growth that can fail.
pub trait TryPush<T> {
    /// Appends an element, growing if need be.
    ///
    /// # Errors
    /// When the arena has no larger block, the element comes back and nothing has changed.
    fn try_push(&mut self, value: T) -> Result<(), T>;
}

impl<T> TryPush<T> for Vec<T> {
    fn try_push(&mut self, value: T) -> Result<(), T> {
        if self.try_reserve(1).is_err() {
            return Err(value);
        }
        self.push(value);
        Ok(())
    }
}

// SAFETY: blocks do not overlap and stay where they are until they are freed; the region lives as long as
// any clone of the handle; clones share the region, so each can free what another has allocated.
unsafe impl Allocator for Handle {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        self.region.allocate(layout)
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.region.deallocate(ptr, layout) }
    }

    unsafe fn grow(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: `ptr` is a block for `old`, by contract; `new` is not smaller.
        unsafe { self.reallocate(ptr, old, new) }
    }

    unsafe fn grow_zeroed(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: as for `grow`.
        let block = unsafe { self.reallocate(ptr, old, new)? };
        // SAFETY: the block has at least the size of `new`, which is not less than that of `old`; what
        // is above `old` was nobody's.
        unsafe { block.cast::<u8>().add(old.size()).write_bytes(0, block.len() - old.size()) };
        Ok(block)
    }

    unsafe fn shrink(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: `ptr` is a block for `old`, by contract.
        unsafe { self.reallocate(ptr, old, new) }
    }
}

impl Handle {
    /// # Safety
    /// `ptr` is a block in use of this arena, for a layout that `old` fits.
    unsafe fn reallocate(
        &self,
        ptr: NonNull<u8>,
        old: Layout,
        new: Layout,
    ) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: by contract.
        if let Some(block) = unsafe { self.region.resize(ptr, old, new) } {
            return Ok(block);
        }
        let block = self.region.allocate(new)?;
        // SAFETY: two blocks in use, so they do not overlap, of at least these sizes; the old one is not
        // used any more after it was copied.
        unsafe {
            block.cast::<u8>().copy_from_nonoverlapping(ptr, old.size().min(new.size()));
            self.region.deallocate(ptr, old);
        }
        Ok(block)
    }
}
