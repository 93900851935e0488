//! The two ways from events to decisions.

use std::fmt;

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::kernel::Link;
use qumun::{Agent, Backend, Scheduler, Topology};
use qumun_benches::{Fifo, Lane, Picking, Single, Stand};

/// What decides on the agent's way. The other way has no policy: it answers in the order of the events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Policy {
    /// The library and nothing else.
    Fifo,
    /// With a choice of CPU.
    Picking,
    /// The daemon's policy.
    Gthulhu,
}

impl Policy {
    pub(crate) const ALL: [Self; 3] = [Self::Fifo, Self::Picking, Self::Gthulhu];

    const fn name(self) -> &'static str {
        match self {
            Self::Fifo => "fifo",
            Self::Picking => "picking",
            Self::Gthulhu => "gthulhu",
        }
    }
}

/// The name of the other way.
pub(crate) const ONE_AT_A_TIME: &str = "one at a time";

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One of the two.
pub(crate) enum Way {
    Agent(Policy, Box<dyn Turns>),
    Single(Single),
}

impl Way {
    /// The library's own agent on the library's own rings, with batches of at most this size.
    pub(crate) fn agent(stand: &Stand, policy: Policy, batch: u32) -> Result<Self, String> {
        let turns = match policy {
            Policy::Fifo => turns(stand, Fifo, batch)?,
            Policy::Picking => turns(stand, Picking, batch)?,
            Policy::Gthulhu => turns(stand, Gthulhu::default(), batch)?,
        };
        Ok(Self::Agent(policy, turns))
    }

    pub(crate) fn single(stand: &Stand) -> Result<Self, String> {
        Ok(Self::Single(Single::new(stand)?))
    }

    /// The agent's by its policy.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Agent(policy, _) => policy.name(),
            Self::Single(_) => ONE_AT_A_TIME,
        }
    }

    pub(crate) fn lane(&self) -> Lane {
        match self {
            Self::Agent(..) => Lane::Agent,
            Self::Single(_) => Lane::Single,
        }
    }

    /// Decides on so many tasks, which wait in the ring.
    pub(crate) fn decide(&mut self, tasks: u32) {
        match self {
            Self::Agent(_, agent) => agent.decide(tasks as usize),
            Self::Single(single) => {
                for _ in 0..tasks {
                    assert!(single.step(), "an event is there");
                }
            }
        }
    }
}

/// An agent, whatever its policy.
pub(crate) trait Turns {
    fn decide(&mut self, tasks: usize);
}

impl<S: Scheduler> Turns for Agent<Link, S> {
    /// The body of [`Agent::run`], as often as it takes.
    fn decide(&mut self, tasks: usize) {
        let mut left = tasks;
        while left > 0 {
            assert!(self.backend_mut().exited().is_none(), "nobody ends it");
            let turn = self.turn();
            self.backend_mut().rest(turn.is_idle());
            assert!(turn.decisions > 0 && turn.decisions <= left, "each turn has its batch");
            left -= turn.decisions;
        }
    }
}

fn turns<S: Scheduler + 'static>(stand: &Stand, policy: S, batch: u32) -> Result<Box<dyn Turns>, String> {
    Ok(Box::new(connect(stand, policy, batch)?))
}

/// As [`qumun::kernel::Running::run`] does it.
pub(crate) fn connect<S: Scheduler>(stand: &Stand, policy: S, batch: u32) -> Result<Agent<Link, S>, String> {
    let link = Link::connect(stand.agent_fds()?).map_err(|e| e.to_string())?;
    let mut agent = qumun::builder("bench")
        .topology(Topology::flat(stand.cpus()))
        .batch(batch as usize)
        .try_agent(link, policy)
        .map_err(|e| e.to_string())?;
    agent.backend_mut().start();
    // The first turn acknowledges the core's epoch.
    let first = agent.turn();
    assert!(first.resynced && first.events == 0, "nothing was sent yet");
    Ok(agent)
}
