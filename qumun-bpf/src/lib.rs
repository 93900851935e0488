//! The in-kernel core of [qumun](https://docs.rs/qumun), its loader and its rings.
//!
//! A scheduler author uses the crate `qumun`; this one is what it stands on:
//!
//! ```text
//!   kernel                                    user space
//!  ┌───────────────┐  qm_events (BPF ring)   ┌────────────────┐
//!  │     core      │ ──────────────────────► │ EventRing      │
//!  │ bpf/core.bpf.c│                         │   agent        │
//!  │  custody,     │ ◄────────────────────── │ DecisionRing   │
//!  │  latch,       │ qm_decisions (user ring)└────────────────┘
//!  │  counters     │ ── view (read-only) ──►  mode, epoch, idle CPUs
//!  └───────────────┘ ◄─ agent page ────────   acknowledged epoch
//! ```
//!
//! * [`wire`]: the records, the same as in `bpf/wire.h`, asserted on both sides.
//! * [`ring`]: both rings, read and written in place through `mmap`, positions published per batch: the kernel's ring
//!   buffers (BPF ring, user ring), or two arrays that both sides map ([`ring::Transport`]).
//! * [`agent`]: what the agent's process holds: the rings, the pages and the SYSCALL programs.
//! * [`probe`]: what this machine can do, and why not.
//! * [`features`] (feature `loader`): which parts of sched_ext the kernel has, in words.
//! * [`stats`]: counters summed over CPUs, the two ledgers, the legs of a wakeup.
//! * [`loader`] (feature `loader`): load, attach, detach. It holds the link that keeps the scheduler.
//! * [`rules`]: what the core does for some tasks where it decides by itself.
//! * [`places`] (feature `loader`): which CPUs share a cache or a core, as the core is told.
//! * [`recorder`] (feature `loader`): what tasks and CPUs do, under any scheduler.

pub mod agent;
#[doc(hidden)] // for tests: loom's, and those of the C side
pub mod array;
mod error;
#[cfg(feature = "loader")]
pub mod features;
#[cfg(feature = "loader")]
pub mod loader;
mod map;
#[cfg(loom)]
#[doc(hidden)]
pub mod model;
#[cfg(feature = "loader")]
mod options;
#[cfg(feature = "loader")]
pub mod places;
pub mod probe;
#[doc(hidden)] // the same
pub mod protocol;
#[cfg(feature = "loader")]
pub mod recorder;
pub mod ring;
pub mod rules;
pub mod stats;
pub mod wire;

pub use error::{Error, ErrorKind, Result};
