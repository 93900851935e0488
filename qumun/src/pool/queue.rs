//! First come, first served, with a way out of the middle.

use super::slab::{NIL, Slab};
use super::{AllocError, Handle, SlotId};

/// A queue of fixed capacity. Every operation takes constant time, except [`clear`](Self::clear).
#[derive(Debug)]
pub struct Queue<T> {
    slab: Slab<T>,
    first: u32,
    last: u32,
    len: usize,
}

impl<T> Queue<T> {
    /// An empty queue with room for so many elements.
    ///
    /// # Errors
    /// When the arena has no block of that size.
    pub fn new(pool: &Handle, capacity: usize) -> Result<Self, AllocError> {
        Ok(Self { slab: Slab::new(pool, capacity)?, first: NIL, last: NIL, len: 0 })
    }

    /// Puts an element at the end.
    ///
    /// # Errors
    /// From a full queue, it comes back.
    pub fn push(&mut self, value: T) -> Result<SlotId, T> {
        let id = self.slab.insert(value)?;
        self.link(id.index(), self.last, NIL);
        Ok(id)
    }

    /// Puts an element at the front: one that was popped and could not be sent.
    ///
    /// # Errors
    /// From a full queue, it comes back.
    pub fn push_front(&mut self, value: T) -> Result<SlotId, T> {
        let id = self.slab.insert(value)?;
        self.link(id.index(), NIL, self.first);
        Ok(id)
    }

    /// The first element.
    pub fn peek(&self) -> Option<&T> {
        self.slab.value(self.first)
    }

    /// Takes the first element out.
    pub fn pop(&mut self) -> Option<T> {
        self.take(self.first)
    }

    /// Takes this element out, wherever it is; `None` if it is out already.
    pub fn remove(&mut self, id: SlotId) -> Option<T> {
        self.take(self.slab.find(id)?)
    }

    /// This element, if it is still in the queue.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        self.slab.value(self.slab.find(id)?)
    }

    /// This element, if it is still in the queue.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let index = self.slab.find(id)?;
        self.slab.value_mut(index)
    }

    /// The elements, first to last.
    pub fn iter(&self) -> impl Iterator<Item = &T> + '_ {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let value = self.slab.value(at)?;
            at = self.slab[at].next;
            Some(value)
        })
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        while self.pop().is_some() {}
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many elements there can be.
    pub fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// Would the next one come back?
    pub fn is_full(&self) -> bool {
        self.len == self.capacity()
    }

    fn take(&mut self, index: u32) -> Option<T> {
        if index == NIL {
            return None;
        }
        let (prev, next) = (self.slab[index].prev, self.slab[index].next);
        let value = self.slab.remove(index)?;
        match prev {
            NIL => self.first = next,
            prev => self.slab[prev].next = next,
        }
        match next {
            NIL => self.last = prev,
            next => self.slab[next].prev = prev,
        }
        self.len -= 1;
        Some(value)
    }

    fn link(&mut self, index: u32, prev: u32, next: u32) {
        (self.slab[index].prev, self.slab[index].next) = (prev, next);
        match prev {
            NIL => self.first = index,
            prev => self.slab[prev].next = index,
        }
        match next {
            NIL => self.last = index,
            next => self.slab[next].prev = index,
        }
        self.len += 1;
    }
}
