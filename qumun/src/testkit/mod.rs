//! Does a policy keep its promises? One line in a test of yours asks:
//!
//! ```
//! # use qumun::{Context, Queued, Scheduler, Verdict};
//! # #[derive(Default)]
//! # struct Fifo;
//! # impl Scheduler for Fifo {
//! #     type Task = ();
//! #     fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
//! #         task.anywhere().vtime(task.enqueued_at.as_u64()).into()
//! #     }
//! # }
//! use qumun::testkit::{Property, Suite};
//!
//! Suite::new("fifo", Fifo::default).without(Property::Shares, "first come, first served").assert();
//! ```
//!
//! Each [`Property`] is tried on random histories in simulated time ([`Sim`](crate::sim::Sim)): machines, tasks, faults. When one fails, it
//! is made smaller for as long as it still fails, and written as a [`Scenario`] to a file: `target/testkit`, or where
//! `QUMUN_TESTKIT` says. [`replay`] tries such a file again, and so does `qumun sim FILE`.
//!
//! What the core does by itself (it lets no task get lost and checks every decision) does not hide what a policy does
//! wrong here: that the core had to step in is the failure.

mod histories;
mod properties;
mod quiet;
mod shrink;

use std::fmt;
use std::path::{Path, PathBuf};

pub use properties::{Property, check};

use crate::sim::Scenario;
use crate::{Cpu, Scheduler};

/// What is to be tried on a policy. Everything, unless told.
#[must_use = "a suite does nothing until it runs"]
pub struct Suite<F> {
    name: String,
    make: F,
    histories: u32,
    seed: u64,
    only: Option<Property>,
    without: Vec<(Property, &'static str)>,
    kernel_mode: bool,
    dedicated: bool,
}

impl<F> fmt::Debug for Suite<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, histories, seed, only, without, kernel_mode, dedicated, make: _ } = self;
        f.debug_struct("Suite")
            .field("name", name)
            .field("histories", histories)
            .field("seed", seed)
            .field("only", only)
            .field("without", without)
            .field("kernel_mode", kernel_mode)
            .field("dedicated", dedicated)
            .finish_non_exhaustive()
    }
}

impl<S: Scheduler, F: Fn() -> S + Clone + 'static> Suite<F> {
    /// For the policy that `make` makes: a new one for each history.
    pub fn new(name: impl Into<String>, make: F) -> Self {
        let (name, without) = (name.into(), Vec::new());
        Self { name, make, histories: 12, seed: 1, only: None, without, kernel_mode: false, dedicated: false }
    }

    /// Leaves a property out that the policy does not promise. The report says why.
    pub fn without(mut self, property: Property, why: &'static str) -> Self {
        self.without.push((property, why));
        self
    }

    /// In kernel mode: the core decides alone, and keeps the promises. `make` makes what subscribes to events and reads
    /// those that are left.
    pub fn kernel_mode(mut self) -> Self {
        self.kernel_mode = true;
        self
    }

    /// The agent has a CPU for itself and polls, on all machines that have more than one
    /// ([`Builder::dedicated_cpu`](crate::Builder::dedicated_cpu)).
    pub fn dedicated(mut self) -> Self {
        self.dedicated = true;
        self
    }

    /// Tries this property alone, while you work on it. The report has no line for the others.
    pub fn only(mut self, property: Property) -> Self {
        self.only = Some(property);
        self
    }

    /// How many histories for each property; 12 unless told.
    pub fn histories(mut self, count: u32) -> Self {
        self.histories = count.max(1);
        self
    }

    /// Other histories: they depend on this number only.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Tries all.
    pub fn run(&self) -> Report {
        let wanted =
            Property::ALL.into_iter().filter(|property| self.only.is_none_or(|only| only == *property));
        let lines = wanted.map(|property| {
            let outcome = match self.without.iter().find(|(left_out, _)| *left_out == property) {
                Some((_, why)) => Outcome::LeftOut(why),
                None => self.try_one(property),
            };
            (property, outcome)
        });
        Report { name: self.name.clone(), lines: lines.collect() }
    }

    /// Tries all, and panics with the report if anything fails.
    ///
    /// # Panics
    /// If anything fails.
    pub fn assert(&self) {
        let report = self.run();
        assert!(report.is_ok(), "{report}");
    }

    fn try_one(&self, property: Property) -> Outcome {
        if property == Property::Allocation && !quiet::counts_allocations() {
            return Outcome::LeftOut("the test does not install qumun::alloc::CountingAllocator");
        }
        for number in 0..self.histories {
            let seed = self.seed.wrapping_mul(0x1_0000).wrapping_add(u64::from(number));
            let mut history = histories::history(property, seed);
            history.setup.kernel_mode = self.kernel_mode;
            let nr_cpus = history.setup.topology.nr_cpus();
            if self.dedicated && nr_cpus > 1 {
                history.setup.settings.dedicated = Some(Cpu(seed as u32 % nr_cpus));
            }
            let Err(why) = check(property, &history, &self.make) else { continue };
            let (history, why) = shrink::smallest(property, history, why, &self.make);
            let file = write(&self.name, property, &history, &why);
            return Outcome::Failed(Box::new(Failure { property, why, history, file }));
        }
        Outcome::Held(self.histories)
    }
}

/// How one property did.
#[derive(Debug)]
enum Outcome {
    Held(u32),
    LeftOut(&'static str),
    Failed(Box<Failure>),
}

/// A property that a policy does not have.
#[derive(Debug)]
#[non_exhaustive]
pub struct Failure {
    /// Which.
    pub property: Property,
    /// What happened.
    pub why: String,
    /// The smallest history that was found in which it does.
    pub history: Scenario,
    /// Where it was written, or why it was not.
    pub file: Result<PathBuf, String>,
}

/// How all of them did. As text it is a table, with the smallest failing histories below.
#[derive(Debug)]
#[must_use = "a report may say that something failed"]
pub struct Report {
    name: String,
    lines: Vec<(Property, Outcome)>,
}

impl Report {
    /// Nothing failed.
    pub fn is_ok(&self) -> bool {
        self.failures().next().is_none()
    }

    /// What failed.
    pub fn failures(&self) -> impl Iterator<Item = &Failure> {
        self.lines.iter().filter_map(|(_, outcome)| match outcome {
            Outcome::Failed(failure) => Some(&**failure),
            _ => None,
        })
    }

    /// Properties that held.
    pub fn held(&self) -> impl Iterator<Item = Property> {
        self.lines.iter().filter(|(_, outcome)| matches!(outcome, Outcome::Held(_))).map(|(p, _)| *p)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "conformance of {}", self.name)?;
        for (property, outcome) in &self.lines {
            let name = property.name();
            match outcome {
                Outcome::Held(count) => writeln!(f, "  ok       {name:<12} {count} histories")?,
                Outcome::LeftOut(why) => writeln!(f, "  left out {name:<12} {why}")?,
                Outcome::Failed(failure) => writeln!(f, "  FAILED   {name:<12} {}", failure.why)?,
            }
        }
        for failure in self.failures() {
            let (name, promise) = (failure.property.name(), failure.property.promise());
            writeln!(f, "\n{name}: {promise}\n{}", failure.why)?;
            match &failure.file {
                Ok(path) => writeln!(f, "the smallest history that shows it, also in {}:\n", path.display())?,
                Err(why) => writeln!(f, "the smallest history that shows it (not written: {why}):\n")?,
            }
            for line in failure.history.to_string().lines() {
                writeln!(f, "    {line}")?;
            }
        }
        Ok(())
    }
}

/// Tries a file again that a failed suite has written.
///
/// # Errors
/// The file is none, or what the policy does wrong in it.
pub fn replay<S: Scheduler>(
    path: impl AsRef<Path>,
    make: impl Fn() -> S + Clone + 'static,
) -> Result<(), String> {
    let path = path.as_ref();
    let history = Scenario::read(path).map_err(|e| e.to_string())?;
    let text = std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))?;
    let named = text.lines().find_map(|line| line.strip_prefix("# property: ")).map(str::trim);
    let property = Property::ALL.into_iter().find(|property| Some(property.name()) == named);
    let property = property.ok_or_else(|| {
        let names = Property::ALL.map(Property::name).join(", ");
        format!("{}: no line \"# property: NAME\"; there are {names}", path.display())
    })?;
    check(property, &history, &make)
}

/// Into a file with its own name, next to it first: two tests may fail at the same time.
fn write(name: &str, property: Property, history: &Scenario, why: &str) -> Result<PathBuf, String> {
    let target = Path::new("target");
    let dir = match std::env::var_os("QUMUN_TESTKIT") {
        Some(dir) => PathBuf::from(dir),
        None if target.is_dir() => target.join("testkit"),
        None => std::env::temp_dir().join("qumun-testkit"),
    };
    let word = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let file = format!("{}-{}.scn", name.chars().map(word).collect::<String>(), property.name());
    let path = dir.join(&file);
    let why = why.replace('\n', "\n# ");
    let text = format!("# policy: {name}\n# property: {}\n# {why}\n{history}", property.name());
    let part = dir.join(format!("{file}.{}", std::process::id()));
    std::fs::create_dir_all(&dir)
        .and_then(|()| std::fs::write(&part, text))
        .and_then(|()| std::fs::rename(&part, &path))
        .map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path)
}
