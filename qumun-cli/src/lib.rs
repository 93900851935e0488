//! Traces of schedulers, understood: figures, comparisons, reports.
//!
//! The program `qumun` is made of this, and whoever measures schedulers may use it: [`Run::read`] takes a trace, from
//! the simulator or a kernel; [`compare()`] says who lost; [`text`], [`json`] and [`html`] show it to people and programs,
//! [`perfetto()`] to the Perfetto viewer.
//!
//! ```
//! use qumun::Nanos;
//! use qumun::sim::{Scenario, Shape};
//! use qumun::trace::Reader;
//! use qumun_cli::{Buffer, Policy, Run};
//!
//! let mut scenario = Scenario::new(2)?;
//! scenario.work = Shape::Requests.workload(2);
//! let runs = ["gthulhu", "simple-fifo"].map(|name| {
//!     let policy: Policy = name.parse().unwrap();
//!     let trace = policy.simulate(&scenario).unwrap();
//!     Run::read(name, Reader::new(trace.as_slice()).unwrap()).unwrap()
//! });
//! assert!(runs[0].wake_to_run.count() > 100);
//! assert!(qumun_cli::html("Two policies", &runs).starts_with("<!doctype html>"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod compare;
mod figures;
mod perfetto;
mod policy;
mod report;
mod show;

pub use compare::{Comparison, Loss, Measure, compare};
pub use figures::{By, Counter, DISTANCES, GroupFigures, Place, Run, Slice, TaskFigures};
pub use perfetto::perfetto;
pub use policy::{Buffer, Policy};
pub use report::html;
pub use show::{json, text};
