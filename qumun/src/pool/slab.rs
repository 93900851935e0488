//! The slots that queues and heaps are made of.

use super::{AllocError, Handle, Vec};

pub(super) const NIL: u32 = u32::MAX;

/// Names an element of one [`Queue`](super::Queue) or [`Heap`](super::Heap), from when it was pushed until
/// it is out. A policy keeps it in its state of the task.
///
/// The default names nothing. An element that is gone is not mistaken for the next one in its slot (until
/// that was used 2^32 times).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SlotId {
    index: u32,
    stamp: u32,
}

impl SlotId {
    /// Names nothing.
    pub const NONE: Self = Self { index: NIL, stamp: 0 };
}

impl Default for SlotId {
    fn default() -> Self {
        Self::NONE
    }
}

#[derive(Debug)]
pub(super) struct Slot<T> {
    /// Changes when the slot is emptied.
    stamp: u32,
    /// What the structure notes: a neighbour, or a place. `next` also links the free slots.
    pub(super) prev: u32,
    pub(super) next: u32,
    value: Option<T>,
}

/// Slots of a fixed number, and a list of the free ones.
#[derive(Debug)]
pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: u32,
}

impl<T> Slab<T> {
    pub(super) fn new(pool: &Handle, capacity: usize) -> Result<Self, AllocError> {
        // Slot numbers must fit, and one of them says that there is none.
        let last = u32::try_from(capacity).ok().filter(|&n| n < NIL).ok_or(AllocError)?;
        let mut slots = pool.vec(capacity)?;
        let next = |i| if i + 1 < last { i + 1 } else { NIL };
        slots.extend((0..last).map(|i| Slot { stamp: 0, prev: NIL, next: next(i), value: None }));
        Ok(Self { slots, free: if last == 0 { NIL } else { 0 } })
    }

    pub(super) fn capacity(&self) -> usize {
        self.slots.len()
    }

    /// Fills a free slot; without one, gives the value back.
    pub(super) fn insert(&mut self, value: T) -> Result<SlotId, T> {
        let index = self.free;
        let Some(slot) = self.slots.get_mut(index as usize) else {
            return Err(value);
        };
        self.free = slot.next;
        slot.value = Some(value);
        Ok(SlotId { index, stamp: slot.stamp })
    }

    /// Empties a slot.
    pub(super) fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slots.get_mut(index as usize)?;
        let value = slot.value.take()?;
        slot.stamp = slot.stamp.wrapping_add(1);
        slot.next = self.free;
        self.free = index;
        Some(value)
    }

    /// The slot of this name, if its element is still there.
    pub(super) fn find(&self, id: SlotId) -> Option<u32> {
        let slot = self.slots.get(id.index as usize)?;
        (slot.stamp == id.stamp && slot.value.is_some()).then_some(id.index)
    }

    pub(super) fn value(&self, index: u32) -> Option<&T> {
        self.slots.get(index as usize)?.value.as_ref()
    }

    pub(super) fn value_mut(&mut self, index: u32) -> Option<&mut T> {
        self.slots.get_mut(index as usize)?.value.as_mut()
    }
}

impl SlotId {
    pub(super) fn index(self) -> u32 {
        self.index
    }
}

impl<T> std::ops::Index<u32> for Slab<T> {
    type Output = Slot<T>;

    fn index(&self, index: u32) -> &Slot<T> {
        &self.slots[index as usize]
    }
}

impl<T> std::ops::IndexMut<u32> for Slab<T> {
    fn index_mut(&mut self, index: u32) -> &mut Slot<T> {
        &mut self.slots[index as usize]
    }
}
