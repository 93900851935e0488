//! What the benches share. The benches themselves are in `benches/`, raw figures in `runs/`, and what each of them
//! measures in `README.md`.
//!
//! * [`Stand`]: a stand-in for the core: real BPF rings, records and SYSCALL programs on any kernel from 6.1 on.
//! * [`Single`]: one task at a time through libbpf, as user-space schedulers commonly do it.
//! * [`Fifo`], [`Picking`]: the smallest policies.
//! * [`Endless`]: a backend that never runs out of events.
//! * [`machines`], [`queued`]: synthetic machines and tasks.
//! * [`median`], [`Clocks`]: figures.

mod endless;
mod figures;
mod made_up;
mod page;
mod policies;
mod single;
mod stand;

pub use endless::Endless;
pub use figures::{Clocks, Spent, median, quantile};
pub use made_up::{machines, queued, random, wire_event};
pub use policies::{Fifo, Picking};
pub use single::Single;
pub use stand::{Lane, Stand, SyscallMeter};

/// How long each criterion bench takes: short, since there are some hundred of them.
pub const WARM_UP: std::time::Duration = std::time::Duration::from_millis(200);
/// As [`WARM_UP`].
pub const MEASURE: std::time::Duration = std::time::Duration::from_millis(800);
