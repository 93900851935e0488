//! A policy without a kernel: the core's own rules, in this process, on a clock that a test moves.
//!
//! | | |
//! | --- | --- |
//! | [`Sim`] | simulated time: CPUs that work at the same time, tasks that follow programs, figures |
//! | [`Scenario`] | machine, work and faults of a simulation as a text file |
//! | [`Machine`] | CPUs and tasks that a test moves by hand, step by step; nothing happens by itself |
//! | [`Script`] | no machine at all: events in, decisions out |
//! | [`Replay`] | the work of a recorded [trace](crate::trace), done again |
//! | [`Reference`] | the executable specification of the core, which runs in both |
//! | [`Linux`], [`Host`] | the little of Linux that a core meets, and what Linux does with it |
//!
//! The [`Reference`] is no imitation: in our tests it runs in lock-step with the C core.

mod check;
mod core;
mod engine;
mod host;
mod linux;
mod machine;
mod reference;
mod replay;
mod scenario;
mod script;
mod shapes;
mod values;

pub use core::{Core, ENQ_LAST, ENQ_WAKEUP, KICK_IDLE, KICK_PREEMPT};
pub use engine::{
    Costs, Fault, Group, Histogram, Label, Setup, Sim, Span, Step, TaskFigures, Wire, Workload, jain,
};
pub use host::Host;
pub use linux::{Cgroup, Dsq, Iter, Limit, Linux, Place, Task, Thread};
pub use machine::{Machine, Port};
pub use reference::{Reference, Settings};
pub use replay::Replay;
pub use scenario::{Scenario, ScenarioError};
pub use script::Script;
pub use shapes::Shape;
pub use values::{Config, Counters, Latch, Mode, RawDecision, Reason, Sabotage, Spec};
