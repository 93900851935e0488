//! What is to happen, in order, and chance.

use std::cmp::Ordering;

use super::program::Span;
use crate::Cpu;
use crate::sim::linux::Thread;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Happening {
    /// A task's timer rings; the number tells one life of a place in the table from the next.
    Wake(Thread, u32),
    /// A step or a slice ends on a CPU, if nothing has happened there meanwhile.
    Cpu(Cpu, u32),
    /// A CPU was asked to look for work.
    Kick(Cpu),
    /// The clock interrupt.
    Tick,
    /// The core's timer.
    Timer,
    /// The core's second timer.
    Alarm,
    /// Has anybody waited for too long?
    Watchdog,
    /// A stopped agent goes on.
    AgentWakes,
    /// A new agent comes after one that was killed.
    AgentComes,
    /// Something goes wrong: its place in the list.
    Fault(u32),
}

/// The first comes out of the heap first; of those at one time the one that was put in first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due {
    pub(super) at: u64,
    pub(super) order: u64,
    pub(super) what: Happening,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.order).cmp(&(self.at, self.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and good enough for arrivals.
#[derive(Clone, Copy, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// In ns, at least 1.
    pub(super) fn span(&mut self, span: Span) -> u64 {
        match span {
            Span::Fixed(time) => time.0.max(1),
            Span::Uniform(low, high) => {
                low.0.saturating_add(self.next() % (high.0.saturating_sub(low.0)).max(1)).max(1)
            }
            Span::Exponential(mean) => {
                // 53 bits, never 0.
                let unit = ((self.next() >> 11) + 1) as f64 / (1u64 << 53) as f64;
                ((-unit.ln() * mean.0 as f64) as u64).max(1)
            }
        }
    }
}
