//! Per-task states: a slab on an arena, an index by pid, and an order of disuse.
//!
//! Tasks are made and forgotten by the thousand each second on the thread that may not allocate, and
//! the end of a task may go unreported when the event ring is full. So the slab has a fixed size, and
//! when it is full the state that was not used for longest makes room. States of tasks that the
//! policy keeps are not in that order and cannot be taken away.
//!
//! The index is open addressing with linear probing and deletion by shifting back (Knuth, The Art of
//! Computer Programming 3, 6.4, algorithm R): no tombstones, so that it does not degrade with age.

use std::alloc::Layout;

use crate::pool::{self, AllocError, Handle};
use crate::{Generation, Pid, Queued, Stats, TaskId};

const NIL: u32 = u32::MAX;

#[derive(Debug)]
struct Slot<T> {
    pid: Pid,
    tgid: Pid,
    /// Of the last event; zero if none was seen.
    generation: Generation,
    /// The kernel's own number of the task, where it has one.
    tid: u64,
    kept: bool,
    /// Neighbours in the order of use; `next` also links the free slots.
    prev: u32,
    next: u32,
    value: T,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct TaskPool<T> {
    /// One more than the capacity: the last is lent out when nothing can be recycled.
    slots: pool::Vec<Slot<T>>,
    index: pool::Vec<u32>,
    free: u32,
    newest: u32,
    oldest: u32,
    len: usize,
    /// How many of them the policy keeps.
    held: u64,
}

impl<T: Default> TaskPool<T> {
    /// For so many tasks; 0 counts as 1.
    ///
    /// # Errors
    /// If the arena has less than [`bytes`](Self::bytes).
    pub(crate) fn new(capacity: usize, pool: &Handle) -> Result<Self, AllocError> {
        let (capacity, entries) = sizes(capacity);
        let mut slots = pool.vec(capacity as usize + 1)?;
        slots.extend((0..=capacity).map(|i| Slot {
            pid: Pid(-1),
            tgid: Pid(0),
            generation: Generation(0),
            tid: 0,
            kept: false,
            prev: NIL,
            next: if i + 1 < capacity { i + 1 } else { NIL },
            value: T::default(),
        }));
        let mut index = pool.vec(entries)?;
        index.resize(entries, NIL);
        Ok(Self { slots, index, free: 0, newest: NIL, oldest: NIL, len: 0, held: 0 })
    }

    /// How large an arena must be for it, in bytes.
    pub(crate) fn bytes(capacity: usize) -> Option<usize> {
        let (capacity, entries) = sizes(capacity);
        let slots = Layout::array::<Slot<T>>(capacity as usize + 1).ok()?;
        let index = Layout::array::<u32>(entries).ok()?;
        pool::block_size(slots)?.checked_add(pool::block_size(index)?)
    }

    /// How many tasks have a state.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// How many of them the policy keeps.
    pub(crate) fn held(&self) -> u64 {
        self.held
    }

    pub(crate) fn get(&mut self, pid: Pid) -> Option<&mut T> {
        let slot = self.find(pid)?;
        Some(&mut self.slots[slot as usize].value)
    }

    pub(crate) fn get_or_insert(&mut self, pid: Pid, stats: &mut Stats) -> &mut T {
        let slot = self.slot(pid, stats);
        &mut self.slots[slot as usize].value
    }

    /// Notes an event: makes the state the most recently used one, and a new one if the pid now
    /// belongs to another task.
    pub(crate) fn saw(&mut self, task: &Queued, stats: &mut Stats) {
        let i = self.slot(task.id.pid, stats);
        let slot = &mut self.slots[i as usize];
        // The end of the former owner of this pid was not reported. A generation never goes back
        // within the life of a task.
        let other = slot.tid != task.tid || slot.tgid != task.tgid || task.id.generation < slot.generation;
        let new = slot.generation != Generation(0) && other;
        if new {
            slot.value = T::default();
        }
        slot.tgid = task.tgid;
        slot.tid = task.tid;
        slot.generation = task.id.generation;
        if !slot.kept && i != self.spare() {
            self.unlink(i);
            self.link(i);
        }
    }

    /// The policy keeps the task.
    pub(crate) fn keeps(&mut self, pid: Pid) {
        if let Some(i) = self.find(pid)
            && !self.slots[i as usize].kept
        {
            self.unlink(i);
            self.slots[i as usize].kept = true;
            self.held += 1;
        }
    }

    /// The policy has decided on the task; not if that was about an older enqueue.
    pub(crate) fn released(&mut self, id: TaskId) {
        if let Some(i) = self.find(id.pid)
            && self.slots[i as usize].kept
            && self.slots[i as usize].generation == id.generation
        {
            self.slots[i as usize].kept = false;
            self.held -= 1;
            self.link(i);
        }
    }

    /// The policy keeps nothing any more.
    pub(crate) fn release_all(&mut self) {
        for i in 0..self.spare() {
            if self.slots[i as usize].kept {
                self.slots[i as usize].kept = false;
                self.held -= 1;
                self.link(i);
            }
        }
    }

    /// Forgets the task and returns its last state.
    ///
    /// An end that is reported late, when a new task has the pid already, is not that task's.
    pub(crate) fn remove(&mut self, id: TaskId) -> Option<T> {
        let i = self.find(id.pid)?;
        let newest = self.slots[i as usize].generation;
        if id.generation != Generation(0) && id.generation < newest {
            return None;
        }
        if !self.slots[i as usize].kept {
            self.unlink(i);
        } else {
            self.held -= 1;
        }
        Some(self.release(i))
    }

    fn spare(&self) -> u32 {
        self.slots.len() as u32 - 1
    }

    /// The slot of this task, found or made.
    fn slot(&mut self, pid: Pid, stats: &mut Stats) -> u32 {
        if let Some(found) = self.find(pid) {
            return found;
        }
        if self.free == NIL && self.oldest != NIL {
            let oldest = self.oldest;
            self.unlink(oldest);
            self.release(oldest);
            stats.recycled += 1;
        }
        let i = self.free;
        if i == NIL {
            let spare = self.spare();
            let slot = &mut self.slots[spare as usize];
            if slot.pid != pid {
                slot.pid = pid;
                slot.generation = Generation(0);
                slot.value = T::default();
                stats.exhausted += 1;
            }
            return spare;
        }
        self.free = self.slots[i as usize].next;
        self.slots[i as usize].pid = pid;
        self.index_insert(i);
        self.link(i);
        self.len += 1;
        i
    }

    /// Puts an unlinked slot back among the free ones.
    fn release(&mut self, i: u32) -> T {
        self.index_remove(self.slots[i as usize].pid);
        self.len -= 1;
        let slot = &mut self.slots[i as usize];
        slot.pid = Pid(-1);
        slot.generation = Generation(0);
        slot.kept = false;
        slot.next = self.free;
        self.free = i;
        std::mem::take(&mut slot.value)
    }

    fn link(&mut self, i: u32) {
        let newest = self.newest;
        let slot = &mut self.slots[i as usize];
        (slot.prev, slot.next) = (NIL, newest);
        match newest {
            NIL => self.oldest = i,
            n => self.slots[n as usize].prev = i,
        }
        self.newest = i;
    }

    fn unlink(&mut self, i: u32) {
        let Slot { prev, next, .. } = self.slots[i as usize];
        match prev {
            NIL => self.newest = next,
            p => self.slots[p as usize].next = next,
        }
        match next {
            NIL => self.oldest = prev,
            n => self.slots[n as usize].prev = prev,
        }
    }

    fn home(&self, pid: Pid) -> usize {
        // Fibonacci hashing: pids are dense and consecutive.
        let hash = (pid.0 as u32).wrapping_mul(0x9e37_79b9);
        (hash >> (32 - self.index.len().trailing_zeros())) as usize
    }

    /// Where in the index the pid is, or the empty place where it would be.
    fn place(&self, pid: Pid) -> usize {
        let mask = self.index.len() - 1;
        let mut at = self.home(pid);
        // Ends: at most half of the entries are in use.
        while self.index[at] != NIL && self.slots[self.index[at] as usize].pid != pid {
            at = (at + 1) & mask;
        }
        at
    }

    fn find(&self, pid: Pid) -> Option<u32> {
        let found = self.index[self.place(pid)];
        (found != NIL).then_some(found)
    }

    fn index_insert(&mut self, i: u32) {
        let at = self.place(self.slots[i as usize].pid);
        self.index[at] = i;
    }

    fn index_remove(&mut self, pid: Pid) {
        let mask = self.index.len() - 1;
        let mut hole = self.place(pid);
        let mut at = hole;
        self.index[hole] = NIL;
        loop {
            at = (at + 1) & mask;
            let i = self.index[at];
            if i == NIL {
                return;
            }
            let home = self.home(self.slots[i as usize].pid);
            // May this entry move into the hole? Not if its home is between the two.
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(hole) & mask {
                self.index[hole] = i;
                self.index[at] = NIL;
                hole = at;
            }
        }
    }
}

/// The number of slots but the spare one, and that of entries in the index: at most half are in use.
fn sizes(capacity: usize) -> (u32, usize) {
    // Slot numbers and twice as many index entries must fit u32.
    let capacity = capacity.clamp(1, 1 << 30);
    (capacity as u32, (capacity * 2).next_power_of_two())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pool::Arena;

    /// A pool on an arena that is exactly large enough.
    fn pool(capacity: usize) -> TaskPool<u32> {
        let arena = Arena::new(TaskPool::<u32>::bytes(capacity).unwrap()).unwrap();
        TaskPool::new(capacity, &arena.handle()).unwrap()
    }

    #[test]
    fn the_bytes_of_a_pool_are_enough_for_it() {
        for capacity in [0, 1, 2, 31, 32, 100, 1_000, 1_024, 5_000] {
            pool(capacity);
        }
        let small = Arena::new(TaskPool::<u32>::bytes(1_024).unwrap() / 2).unwrap();
        assert!(TaskPool::<u32>::new(1_024, &small.handle()).is_err());
    }

    /// The same in the simplest way: a list, most recently used first.
    #[derive(Default)]
    struct Naive(Vec<(Pid, bool, u32)>);

    impl Naive {
        fn saw(&mut self, pid: Pid, capacity: usize) -> Option<&mut u32> {
            if let Some(at) = self.0.iter().position(|t| t.0 == pid) {
                let entry = self.0.remove(at);
                self.0.insert(0, entry);
            } else {
                if self.0.len() == capacity {
                    let oldest = self.0.iter().rposition(|t| !t.1)?;
                    self.0.remove(oldest);
                }
                self.0.insert(0, (pid, false, 0));
            }
            Some(&mut self.0[0].2)
        }
    }

    fn event(pid: i32, generation: u64) -> Queued {
        Queued::new(TaskId { pid: Pid(pid), generation: Generation(generation) })
    }

    proptest! {
        #![proptest_config(crate::pool::tests::config())]

        #[test]
        fn the_pool_is_a_map_that_forgets_the_least_recently_seen(
            capacity in 1usize..12,
            steps in proptest::collection::vec((0..5u8, 0..20i32), 1..300),
        ) {
            let mut pool = self::pool(capacity);
            let mut naive = Naive::default();
            let mut stats = Stats::default();
            for (generation, (step, pid)) in (1..).zip(steps) {
                // Distant pids, too, and such as share a home in the index.
                let pid = Pid(if pid % 2 == 0 { pid } else { pid << 24 });
                match step {
                    0 | 1 => {
                        pool.saw(&event(pid.0, generation), &mut stats);
                        let value = pool.get_or_insert(pid, &mut stats);
                        *value += 1;
                        if let Some(expected) = naive.saw(pid, capacity) {
                            *expected += 1;
                            prop_assert_eq!(value, expected);
                        }
                    }
                    2 => {
                        pool.keeps(pid);
                        naive.0.iter_mut().filter(|t| t.0 == pid).for_each(|t| t.1 = true);
                    }
                    3 => {
                        let found = pool.find(pid).map(|i| pool.slots[i as usize].generation);
                        pool.released(TaskId { pid, generation: found.unwrap_or_default() });
                        if let Some(at) = naive.0.iter().position(|t| t.0 == pid && t.1) {
                            let (pid, _, value) = naive.0.remove(at);
                            naive.0.insert(0, (pid, false, value));
                        }
                    }
                    _ => {
                        let at = naive.0.iter().position(|t| t.0 == pid);
                        prop_assert_eq!(pool.remove(TaskId { pid, generation: Generation(0) }), at.map(|at| naive.0.remove(at).2));
                    }
                }
                prop_assert_eq!(pool.len(), naive.0.len());
                for (pid, _, value) in &naive.0 {
                    prop_assert_eq!(pool.get(*pid).copied(), Some(*value));
                }
            }
        }
    }

    #[test]
    fn an_answer_to_an_older_enqueue_releases_nothing() {
        let mut stats = Stats::default();
        let mut pool = self::pool(1);
        pool.saw(&event(1, 1), &mut stats);
        pool.keeps(Pid(1));
        pool.saw(&event(1, 2), &mut stats);
        pool.released(event(1, 1).id);
        pool.saw(&event(2, 3), &mut stats);
        assert_eq!((pool.get(Pid(1)).is_some(), stats.exhausted), (true, 1));
        pool.release_all();
        pool.saw(&event(2, 4), &mut stats);
        assert_eq!((pool.get(Pid(1)).is_some(), stats.recycled), (false, 1));
    }
}
