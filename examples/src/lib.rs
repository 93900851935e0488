//! Small schedulers, each a different idea. Each is a module here, so that the tests run it in simulated time, and a
//! program in `examples/`, which runs it on the kernel.
//!
//! | | idea |
//! | --- | --- |
//! | [`fifo`] | first come, first served |
//! | [`weighted`] | who ran least for its weight |
//! | [`deadline`] | earliest deadline first, by what a task's label says |
//! | [`shares`] | a clock for each cgroup and not for each task |
//! | [`packing`] | as few CPUs as the work needs |
//! | [`adaptive`] | slices by how many wait |

#![forbid(unsafe_code)]

pub mod adaptive;
pub mod deadline;
pub mod fifo;
pub mod packing;
pub mod shares;
pub mod weighted;

/// The code of the book's chapter is tested with the rest.
#[cfg(doctest)]
#[doc = include_str!("../../docs/writing.md")]
#[derive(Debug)]
pub struct Chapter;
