//! Who of two threads may touch which of three slots.

use crate::sync::{AtomicU8, Ordering};

/// One slot belongs to the writer, one to the reader, and one, whose number is here, to whoever takes it.
/// Both only ever exchange their own slot for this one, in a single step: so the three numbers are always
/// different, and no slot ever has two owners.
#[derive(Debug)]
pub struct Middle(AtomicU8);

/// How many slots there are.
pub const SLOTS: usize = 3;
/// The slot that the writer begins with.
pub const WRITER: u8 = 0;
/// The slot that the reader begins with.
pub const READER: u8 = 2;

/// In the word beside the number: the writer has put this slot here, and the reader has not taken it.
const FRESH: u8 = 4;
const SLOT: u8 = 3;

/// The order of both exchanges. Release: what was done to the slot that is given is done before. Acquire: and
/// is seen after by who takes it. Each is the partner of the other side's.
pub const ORDER: Ordering = Ordering::AcqRel;

impl Middle {
    /// With the slot that is neither's.
    pub fn new() -> Self {
        Self(AtomicU8::new(1))
    }

    /// The writer's exchange: gives a filled slot, gets one that the reader has done with, or has never
    /// taken.
    pub fn give(&self, mine: u8, order: Ordering) -> u8 {
        self.0.swap(mine | FRESH, order) & SLOT
    }

    /// Is there a filled slot? Once yes, it stays so until the reader takes it.
    pub fn is_fresh(&self) -> bool {
        // The exchange that follows is what orders memory.
        self.0.load(Ordering::Relaxed) & FRESH != 0
    }

    /// The reader's exchange. Only if the middle [is fresh](Self::is_fresh).
    pub fn take(&self, mine: u8, order: Ordering) -> u8 {
        self.0.swap(mine, order) & SLOT
    }
}
