//! What is remembered by number, in memory that is taken once: a cache of sets, as processors have them.

use qumun::pool::{Handle, Vec};

/// Places in a set.
const WAYS: usize = 8;

/// Values by key. A number that finds its set full takes the place of the one that was not used for longest.
#[derive(Debug)]
pub(crate) struct Cache<T> {
    /// None where the pool had no memory.
    slots: Option<Vec<Slot<T>>>,
    /// Grows with each use.
    uses: u64,
}

#[derive(Clone, Debug, Default)]
struct Slot<T> {
    key: u64,
    /// 0: free.
    used: u64,
    value: T,
}

/// An empty cache of no size.
impl<T> Default for Cache<T> {
    fn default() -> Self {
        Self { slots: None, uses: 0 }
    }
}

impl<T: Default + Clone> Cache<T> {
    /// With room for so many (a power of two), or for as many as the pool has memory for.
    pub(crate) fn new(pool: &Handle, capacity: usize) -> Self {
        let sizes = std::iter::successors(Some(capacity.next_power_of_two()), |n| Some(n / 2));
        let slots = sizes.take_while(|&n| n >= WAYS).find_map(|n| {
            let mut slots = pool.vec(n).ok()?;
            slots.resize(n, Slot::default());
            Some(slots)
        });
        Self { slots, uses: 0 }
    }

    /// Where this number is.
    pub(crate) fn find(&mut self, key: u64) -> Option<usize> {
        let slots = self.slots.as_mut()?;
        let set = set_of(key, slots.len());
        let at = set + slots[set..set + WAYS].iter().position(|slot| slot.used > 0 && slot.key == key)?;
        self.uses += 1;
        slots[at].used = self.uses;
        Some(at)
    }

    /// Where it is, or from now on is, with a new value; `None` if there is no memory at all. The second says
    /// whether it was there.
    pub(crate) fn find_or_insert(&mut self, key: u64) -> Option<(usize, bool)> {
        if let Some(at) = self.find(key) {
            return Some((at, true));
        }
        let slots = self.slots.as_mut()?;
        let set = set_of(key, slots.len());
        let at = (set..set + WAYS).min_by_key(|&at| slots[at].used)?;
        self.uses += 1;
        slots[at] = Slot { key, used: self.uses, value: T::default() };
        Some((at, false))
    }

    /// Forgets a number.
    pub(crate) fn remove(&mut self, key: u64) {
        if let Some(at) = self.find(key)
            && let Some(slots) = &mut self.slots
        {
            slots[at].used = 0;
        }
    }

    /// The value at a place that [`find`](Self::find) gave.
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut T> {
        Some(&mut self.slots.as_mut()?.get_mut(at)?.value)
    }
}

/// The first place of its set. Multiplied by the golden ratio, as numbers of one kind are mostly neighbours (Knuth,
/// The Art of Computer Programming 3, 6.4).
fn set_of(key: u64, len: usize) -> usize {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    hash as usize % (len / WAYS).max(1) * WAYS
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use qumun::pool::Arena;
    use std::collections::BTreeMap;

    #[test]
    fn without_memory_nothing_is_found_and_nothing_breaks() {
        let arena = Arena::new(0).unwrap();
        let mut small = Cache::<[u64; 16]>::new(&arena.handle(), 1 << 20);
        assert!(small.find(1).is_none() && small.find_or_insert(1).is_some());
        let mut none = Cache::<u64>::default();
        assert_eq!((none.find(1), none.find_or_insert(1), none.get_mut(0)), (None, None, None));
    }

    proptest! {
        #[test]
        fn it_is_a_map_that_may_forget(keys in proptest::collection::vec((0..40u64, any::<bool>()), 0..400)) {
            let arena = Arena::new(1 << 16).unwrap();
            let mut cache = Cache::<u64>::new(&arena.handle(), 16);
            let mut naive = BTreeMap::new();
            for (n, (key, remove)) in (1..).zip(keys) {
                if remove && n % 5 == 0 {
                    cache.remove(key);
                    naive.remove(&key);
                    prop_assert_eq!(cache.find(key), None);
                    continue;
                }
                let (at, known) = cache.find_or_insert(key).unwrap();
                let value = cache.get_mut(at).unwrap();
                // What is there is what was put there last.
                prop_assert_eq!(*value, if known { naive[&key] } else { 0 });
                *value = n;
                naive.insert(key, n);
                prop_assert_eq!(cache.find(key), Some(at));
            }
        }
    }
}
