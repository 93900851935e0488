//! How a new table comes to the agent's thread.

use std::fmt;
use std::sync::{PoisonError, TryLockError};

use crate::middle::{Middle, ORDER, READER, SLOTS, WRITER};
use crate::sync::{Arc, Mutex, MutexGuard};

/// Two ends of a hand-over: one thread publishes tables, another one reads the newest.
///
/// The reader never waits, and neither allocates nor frees: to see that there is nothing new takes one load,
/// to take a new table two exchanges of a word each, whatever the other side does meanwhile. What it
/// had before goes back the same way, and is freed by the writer when it publishes next. What
/// the reader was too slow for is skipped. At most three tables exist at a time.
///
/// ```
/// use gthulhu_model::{Generation, StrategyTable, handover};
///
/// let (mut publisher, mut reader) = handover();
/// assert!(reader.get().is_none());
/// let agent = std::thread::spawn(move || {
///     // Once in each turn.
///     while !reader.refresh() {
///         std::thread::yield_now();
///     }
///     reader.get().map(StrategyTable::generation)
/// });
/// publisher.publish(StrategyTable::builder(Generation(1)).build());
/// assert_eq!(agent.join().unwrap(), Some(Generation(1)));
/// ```
///
/// # How
///
/// There are three slots. One belongs to the writer, one to the reader, and the third is exchanged: the writer
/// fills its own and exchanges it for the third; the reader, if that is fresh, puts its old table into its own
/// and exchanges it. So each slot has one owner at any time. It is a mutex only because safe Rust
/// asks for one: nobody else ever holds it, so it is taken at the first try and nobody has to be woken.
pub fn handover<T>() -> (Publisher<T>, Reader<T>) {
    let slots: [_; SLOTS] = std::array::from_fn(|_| Mutex::new(None));
    let shared = Arc::new(Shared { slots, middle: Middle::new() });
    (Publisher { shared: Arc::clone(&shared), mine: WRITER }, Reader { shared, mine: READER, current: None })
}

struct Shared<T> {
    slots: [Mutex<Option<T>>; SLOTS],
    middle: Middle,
}

/// The end that publishes. Not for the agent's thread: it frees what the reader has done with.
pub struct Publisher<T> {
    shared: Arc<Shared<T>>,
    /// The slot that is its own, empty.
    mine: u8,
}

/// The end that reads.
pub struct Reader<T> {
    shared: Arc<Shared<T>>,
    /// The slot that is its own, empty.
    mine: u8,
    current: Option<T>,
}

impl<T> Publisher<T> {
    /// Makes this the newest table. An older one that was given back, or never taken, is dropped here.
    pub fn publish(&mut self, table: T) {
        self.swap(Some(table));
        self.mine = self.shared.middle.give(self.mine, ORDER);
        drop(self.swap(None));
    }

    fn swap(&self, content: Option<T>) -> Option<T> {
        let mut slot = self.shared.slot(self.mine)?;
        std::mem::replace(&mut *slot, content)
    }
}

impl<T> Reader<T> {
    /// Takes the newest table, if there is one that was not taken yet.
    pub fn refresh(&mut self) -> bool {
        if !self.shared.middle.is_fresh() {
            return false;
        }
        // Swapped, never assigned: an assignment could drop what is there.
        self.swap();
        self.mine = self.shared.middle.take(self.mine, ORDER);
        self.swap();
        true
    }

    /// The table that was taken last; `None` before the first.
    pub fn get(&self) -> Option<&T> {
        self.current.as_ref()
    }

    fn swap(&mut self) {
        if let Some(mut slot) = self.shared.slot(self.mine) {
            std::mem::swap(&mut *slot, &mut self.current);
        }
    }
}

impl<T> Shared<T> {
    /// The content of a slot, for its owner. `None` cannot happen: nobody else looks at it.
    fn slot(&self, owned: u8) -> Option<MutexGuard<'_, Option<T>>> {
        match self.slots.get(usize::from(owned))?.try_lock() {
            Ok(content) => Some(content),
            // Nothing that can panic runs while it is held, and a table is whole or not there.
            Err(TryLockError::Poisoned(poison)) => Some(PoisonError::into_inner(poison)),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

impl<T> fmt::Debug for Publisher<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Publisher").finish_non_exhaustive()
    }
}

impl<T: fmt::Debug> fmt::Debug for Reader<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reader").field("current", &self.current).finish_non_exhaustive()
    }
}
