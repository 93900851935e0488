//! The executable specification of the core: what `qumun-bpf/bpf/*.h` does, in Rust.
//!
//! Each file here stands beside one there, and each function beside one of the same name. In our tests the C core is
//! compiled for the host and runs in lock-step with this one on random histories (`qumun-bpf/lockstep`); a change to
//! either side alone fails there. What differs by design: one CPU at a time runs code here, so that a step of the C core
//! that guards against another CPU in between has nothing to guard against.

mod activation;
mod cgroups;
mod custody;
mod dedicated;
mod events;
mod latch;
mod limits;
mod near;
mod ops;
mod permit;
mod rescue;
mod rules;
mod shares;
mod sides;
mod state;

pub(super) use cgroups::MAX_CGROUPS;
pub(super) use latch::{DWELL_MAX, DWELL_MIN};
pub use state::{Reference, Settings};
