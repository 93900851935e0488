//! Loads that measure themselves. Each runs for a given time or count and gives one JSON object.

mod affinity;
mod beat;
mod hogs;
mod pipe;
mod wake;

pub use affinity::{Hammer, affinity};
pub use beat::{Beat, beat, longest_gap};
pub use hogs::{hogs, spin};
pub use pipe::pipe;
pub use wake::{Wake, wake};
