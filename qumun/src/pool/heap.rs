//! The lowest key first, with a way out of the middle.
//!
//! A binary heap (Knuth, The Art of Computer Programming 3, 5.2.3) of small nodes, so that a step moves
//! a key and a number, not the element; each element knows where its node is.

use super::slab::Slab;
use super::{AllocError, Handle, SlotId, Vec};

/// A priority queue of fixed capacity: the lowest key comes out first, equal ones as they came in.
///
/// All that changes it takes time in proportion to the logarithm of its length, except
/// [`clear`](Self::clear).
#[derive(Debug)]
pub struct Heap<T, K = u64> {
    slab: Slab<T>,
    /// No node is less than its parent; the children of `i` are `2 * i + 1` and the next.
    nodes: Vec<Node<K>>,
    pushed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Node<K> {
    key: K,
    /// Among equals, who came first. No two are the same.
    sequence: u64,
    slot: u32,
}

impl<T, K: Ord + Copy> Heap<T, K> {
    /// An empty heap with room for so many elements.
    ///
    /// # Errors
    /// When the arena has no block of that size.
    pub fn new(pool: &Handle, capacity: usize) -> Result<Self, AllocError> {
        Ok(Self { slab: Slab::new(pool, capacity)?, nodes: pool.vec(capacity)?, pushed: 0 })
    }

    /// Puts an element in.
    ///
    /// # Errors
    /// From a full heap, it comes back.
    pub fn push(&mut self, key: K, value: T) -> Result<SlotId, T> {
        let id = self.slab.insert(value)?;
        let node = Node { key, sequence: self.next(), slot: id.index() };
        // There is room: as much as there are slots.
        self.nodes.push(node);
        self.rise(self.nodes.len() - 1, node);
        Ok(id)
    }

    /// The element with the lowest key.
    pub fn peek(&self) -> Option<(K, &T)> {
        let node = self.nodes.first()?;
        Some((node.key, self.slab.value(node.slot)?))
    }

    /// Takes the element with the lowest key out.
    pub fn pop(&mut self) -> Option<(K, T)> {
        self.take(0)
    }

    /// Takes this element out, wherever it is; `None` if it is out already.
    pub fn remove(&mut self, id: SlotId) -> Option<(K, T)> {
        self.take(self.place(id)?)
    }

    /// Gives this element another key; `false` if it is out already. It comes after those that had this
    /// key before.
    pub fn update(&mut self, id: SlotId, key: K) -> bool {
        let Some(at) = self.place(id) else {
            return false;
        };
        let node = Node { key, sequence: self.next(), slot: id.index() };
        self.settle(at, node);
        true
    }

    /// The key of this element, if it is still in the heap.
    pub fn key(&self, id: SlotId) -> Option<K> {
        Some(self.nodes[self.place(id)?].key)
    }

    /// This element, if it is still in the heap.
    pub fn get(&self, id: SlotId) -> Option<&T> {
        self.slab.value(self.slab.find(id)?)
    }

    /// This element, if it is still in the heap.
    pub fn get_mut(&mut self, id: SlotId) -> Option<&mut T> {
        let index = self.slab.find(id)?;
        self.slab.value_mut(index)
    }

    /// Keys and elements, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (K, &T)> + '_ {
        self.nodes.iter().filter_map(|node| Some((node.key, self.slab.value(node.slot)?)))
    }

    /// Takes everything out.
    pub fn clear(&mut self) {
        while let Some(node) = self.nodes.pop() {
            self.slab.remove(node.slot);
        }
    }

    /// How many elements there are.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// How many elements there can be.
    pub fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// Would the next one come back?
    pub fn is_full(&self) -> bool {
        self.len() == self.capacity()
    }

    fn next(&mut self) -> u64 {
        // At a thousand million a second, it wraps after 584 years.
        self.pushed = self.pushed.wrapping_add(1);
        self.pushed
    }

    /// Where the node of an element is; its slot knows.
    fn place(&self, id: SlotId) -> Option<usize> {
        self.slab.find(id).map(|index| self.slab[index].prev as usize)
    }

    fn take(&mut self, at: usize) -> Option<(K, T)> {
        let node = *self.nodes.get(at)?;
        let last = self.nodes.pop()?;
        if at < self.nodes.len() {
            self.settle(at, last);
        }
        Some((node.key, self.slab.remove(node.slot)?))
    }

    /// Puts a node where there is a hole, and then where it belongs.
    fn settle(&mut self, hole: usize, node: Node<K>) {
        if hole > 0 && node < self.nodes[(hole - 1) / 2] {
            self.rise(hole, node);
        } else {
            self.sink(hole, node);
        }
    }

    fn rise(&mut self, mut hole: usize, node: Node<K>) {
        while hole > 0 {
            let parent = (hole - 1) / 2;
            if self.nodes[parent] < node {
                break;
            }
            self.put(hole, self.nodes[parent]);
            hole = parent;
        }
        self.put(hole, node);
    }

    fn sink(&mut self, mut hole: usize, node: Node<K>) {
        loop {
            let left = 2 * hole + 1;
            let Some(mut child) = self.nodes.get(left).map(|_| left) else {
                break;
            };
            if self.nodes.get(left + 1).is_some_and(|right| *right < self.nodes[left]) {
                child = left + 1;
            }
            if node < self.nodes[child] {
                break;
            }
            self.put(hole, self.nodes[child]);
            hole = child;
        }
        self.put(hole, node);
    }

    fn put(&mut self, at: usize, node: Node<K>) {
        self.nodes[at] = node;
        self.slab[node.slot].prev = at as u32;
    }
}
