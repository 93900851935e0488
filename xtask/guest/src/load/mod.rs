//! Loads that measure themselves. Each runs for a given time or count and gives one JSON object.

mod affinity;
mod beat;
mod crowd;
mod echo;
mod forks;
mod health;
mod hogs;
mod hop;
mod pipe;
mod race;
mod request;
mod squeeze;
mod wake;

pub use affinity::{Hammer, affinity};
pub use beat::{Beat, beat, longest_gap};
pub use crowd::crowd;
pub use echo::echo;
pub use forks::forks;
pub use health::health;
pub use hogs::{hogs, spin};
pub use hop::hop;
pub use pipe::pipe;
pub use race::{Runners, race};
pub use request::{Request, request};
pub use squeeze::squeeze;
pub use wake::{Wake, wake};
