//! Metrics: one table of what there is ([`METRICS`]), the sums behind it ([`Ledger`]), and how they are written.
//!
//! The table is what the exposition, the dashboards and the alert rules are made from. Nothing here opens a socket.
//!
//! # The original's names
//! `gthulhu_pod_*` have the names and labels of the original. Three meanings were put right:
//! - `wait_time` is run delay: runnable until running, without throttling. The original counted all time off the CPU, sleep
//!   included, so its figures were larger by orders of magnitude.
//! - Every thread counts, not the first of each process only; and the counters do not go down when one ends.
//! - Migrations are told apart by what the two CPUs really share: `smt` a core, `l3` an L3 cache (or an L2) but no core, `numa`
//!   nothing, not even the node. The original took cores of different sockets for the same, and a socket for an L3.

mod accept;
mod ledger;
mod registry;
mod text;

pub use accept::{Format, negotiate};
pub use ledger::{Labels, Ledger, Limits, Pod, Shown};
pub use registry::{Kind, METRICS, Metric, Scope, Unit};
