//! A simulation as a text file: machine, work, faults.

mod text;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use super::engine::{Fault, Setup, Sim, Workload};
use crate::{Builder, MAX_CPUS, Nanos, Scheduler, Topology};

/// All that a simulation depends on but the policy. The same scenario and the same policy give the same, to the last
/// byte, on any machine.
///
/// It can be read from text and written as text:
///
/// ```
/// use qumun::sim::Scenario;
///
/// let scenario: Scenario = "
///     machine cores=2 threads=2
///     time 500ms
///     group hogs count=6 weight=100
///       run 1s
///     group beat
///       run 1ms
///       every 10ms
///     at 100ms stop 50ms
/// ".parse()?;
/// assert_eq!(scenario.to_string().parse::<Scenario>()?.to_string(), scenario.to_string());
/// # Ok::<(), qumun::sim::ScenarioError>(())
/// ```
///
/// | line | means | unless told |
/// | --- | --- | --- |
/// | `machine cpus=4` | CPUs that have nothing in common | 2 |
/// | `machine packages=1 nodes=1 l3s=2 cores=4 threads=2` | a [synthetic](Topology::synthetic) one: each in one of the next larger | |
/// | `time 2s` | for how long it is run | 1 s |
/// | `seed 7` | of everything random | 1 |
/// | `tick 4ms`, `switch 1.5us`, `kick 3us` | clock interrupt, cost of a context switch and of a kick | these |
/// | `agent turn=700ns event=120ns decision=80ns` | what the agent's turns take | these |
/// | `core slice=5ms late=30ms mode=agent dedicated=1` | the core's default slice; when it takes over; who decides: `agent`, or `kernel`; the CPU that the agent has for itself | these, no such CPU |
/// | `rings events=7281 decisions=9362` | how many records fit | these |
/// | `room tasks=16384 pool=4194304` | tasks that the agent remembers; bytes of its pool | these |
/// | `cgroup 2 parent=1 weight=100 limit=50ms/100ms` | a cgroup: `cpu.weight`, and `cpu.max` (with `+5ms`: its burst); 1 is the root | no limit |
/// | `group NAME count=1 weight=100 cpus=0-3 cgroup=1 label=0 begins=0s kthread` | tasks that do the same; their steps follow | these, all CPUs |
/// | `run T`, `sleep T`, `every T`, `until T` | steps: compute, sleep, sleep until the next multiple of T, until T after the beginning | |
/// | `block`, `wake GROUP`, `wake-all GROUP` | wait for a wake; wake one of a group, or all | |
/// | `fork GROUP`, `join`, `exit` | make a task; wait until all that it made have ended; end | |
/// | `pin 0-3`, `move 2` | change where it may run, move to another cgroup | |
/// | `at T stop T`, `at T kill T` | the agent is stopped for so long; killed, and a new one comes so much later | |
/// | `at T costs turn=T event=T decision=T` | its turns take this from now on | |
/// | `at T garbage N` | it writes so many random decisions | |
/// | `at T mode kernel`, `at T mode agent` | the core decides alone; the agent is asked again | |
/// | `at T offline N`, `at T online N` | a CPU goes, comes back | |
/// | `at T affinity GROUP 0-3`, `at T weight GROUP N`, `at T limit 2 none` | changes from outside | |
///
/// T is `5ms`, `1ms..4ms` (any between, where a step takes it) or `~2ms` (exponential with this mean, likewise). A `#`
/// begins a comment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Scenario {
    machine: String,
    /// For how long it is run.
    pub time: Nanos,
    /// The machine and its manners.
    pub setup: Setup,
    /// For how many tasks the agent remembers the policy's state, if not for the usual number.
    pub tasks: Option<usize>,
    /// Bytes of the agent's pool, if not the usual number.
    pub pool: Option<usize>,
    /// What the tasks do.
    pub work: Workload,
    /// What happens when, from the beginning.
    pub faults: Vec<(Nanos, Fault)>,
}

impl Scenario {
    /// One second on CPUs that have nothing in common, with nothing to do yet.
    ///
    /// # Errors
    /// There must be 1 to 1,024 CPUs.
    pub fn new(cpus: u32) -> Result<Self, String> {
        Self::on(&format!("cpus={cpus}"))
    }

    /// The same on a machine in the words of the line `machine`.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn on(machine: &str) -> Result<Self, String> {
        Ok(Self {
            setup: Setup::new(text::machine(machine)?),
            machine: machine.split_whitespace().collect::<Vec<_>>().join(" "),
            time: Nanos::from_millis(1_000),
            tasks: None,
            pool: None,
            work: Workload::new(),
            faults: Vec::new(),
        })
    }

    /// The machine, as the line `machine` has it.
    pub fn machine(&self) -> &str {
        &self.machine
    }

    /// Puts the same on a machine of so many CPUs that have nothing in common.
    ///
    /// # Errors
    /// There must be 1 to 1,024 CPUs.
    pub fn set_cpus(&mut self, cpus: u32) -> Result<(), String> {
        if !(1..=MAX_CPUS).contains(&cpus) {
            return Err(format!("cpus={cpus}: 1 to {MAX_CPUS} are possible"));
        }
        self.machine = format!("cpus={cpus}");
        self.setup.topology = Topology::flat(cpus);
        Ok(())
    }

    /// Takes a group out, with every step and fault that names it.
    #[cfg(feature = "testkit")]
    pub(crate) fn remove(&mut self, group: super::Group) {
        self.work.remove(group);
        self.faults.retain_mut(|(_, fault)| fault.group_mut().is_none_or(|other| other.moves_up(group)));
    }

    /// Reads it from a file.
    ///
    /// # Errors
    /// The file cannot be read, or the first line of it that makes no sense.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, ScenarioError> {
        let path = path.as_ref();
        let at = |error: ScenarioError| ScenarioError { file: Some(path.display().to_string()), ..error };
        let text = std::fs::read_to_string(path).map_err(|e| at(ScenarioError::new(0, e.to_string())))?;
        text.parse().map_err(at)
    }

    /// The agent's sizes that it asks for.
    pub fn builder(&self) -> Builder {
        let mut builder = crate::builder("sim").topology(self.setup.topology.clone());
        if let Some(tasks) = self.tasks {
            builder = builder.tasks(tasks);
        }
        if let Some(bytes) = self.pool {
            builder = builder.pool(bytes);
        }
        builder
    }

    /// The simulation before its first moment. `make` is called for the first agent and for each that comes after a
    /// killed one.
    ///
    /// # Errors
    /// What is wrong with the work.
    pub fn start<S: Scheduler>(&self, mut make: impl FnMut() -> S + 'static) -> Result<Sim<S>, String> {
        let policy = make();
        let mut sim = Sim::with(self.setup.clone(), &self.work, policy, self.builder())?.successors(make);
        for &(at, fault) in &self.faults {
            sim.fault_at(at, fault);
        }
        Ok(sim)
    }

    /// The simulation after its time.
    ///
    /// # Errors
    /// As [`start`](Self::start). Whether all rules were kept is another question: [`Sim::check`].
    pub fn run<S: Scheduler>(&self, make: impl FnMut() -> S + 'static) -> Result<Sim<S>, String> {
        let mut sim = self.start(make)?;
        sim.run(self.time);
        Ok(sim)
    }
}

impl FromStr for Scenario {
    type Err = ScenarioError;

    fn from_str(text: &str) -> Result<Self, ScenarioError> {
        text::parse(text)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        text::print(self, f)
    }
}

/// A text that is no scenario: where and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScenarioError {
    /// The file, if it came from one.
    pub file: Option<String>,
    /// The line, from 1; 0 if it is about no line.
    pub line: usize,
    /// What is wrong, and what is possible.
    pub why: String,
}

impl ScenarioError {
    fn new(line: usize, why: String) -> Self {
        Self { file: None, line, why }
    }
}

impl fmt::Display for ScenarioError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}: ")?;
        }
        if self.line > 0 {
            write!(f, "line {}: ", self.line)?;
        }
        f.write_str(&self.why)
    }
}

impl std::error::Error for ScenarioError {}
