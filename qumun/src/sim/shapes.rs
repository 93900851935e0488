//! Work as it is found on real machines, in its classic shapes.

use std::fmt;
use std::str::FromStr;

use super::engine::{Group, Span, Step, Workload};
use super::values::Spec;
use crate::Nanos;

const fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// Work of one shape, in a size that keeps a machine of so many CPUs busy. The parts that they are made of are methods
/// of [`Workload`].
///
/// ```
/// use qumun::sim::Shape;
///
/// let work = "pipes".parse::<Shape>()?.workload(4);
/// assert_eq!(work.groups().map(|(_, name, count)| (name, count)).collect::<Vec<_>>(), [("writer", 4), ("reader", 4)]);
/// # Ok::<(), String>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Shape {
    /// More tasks that compute than CPUs, at four weights.
    Hogs,
    /// Timers of 1 to 16 ms among tasks that compute.
    Periodic,
    /// Requests that arrive at random and workers that answer them, at 80 % load.
    Requests,
    /// Pairs of tasks that wake each other in turn (`perf bench sched pipe`).
    Pipes,
    /// Shells that start short-lived processes, one after the other.
    ForkStorm,
    /// A parallel build: compilers that compute and read, a linker at the end of each round.
    Make,
    /// What a node of a cluster runs: a service, a database, a batch job, agents that look around.
    Containers,
}

impl Shape {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Hogs,
        Self::Periodic,
        Self::Requests,
        Self::Pipes,
        Self::ForkStorm,
        Self::Make,
        Self::Containers,
    ];

    /// Its name on a command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hogs => "hogs",
            Self::Periodic => "periodic",
            Self::Requests => "requests",
            Self::Pipes => "pipes",
            Self::ForkStorm => "fork-storm",
            Self::Make => "make",
            Self::Containers => "containers",
        }
    }

    /// The work, for so many CPUs.
    pub fn workload(self, cpus: u32) -> Workload {
        let n = cpus.max(1) as usize;
        let mut work = Workload::new();
        match self {
            Self::Hogs => {
                for (name, weight) in [("w50", 50), ("w100", 100), ("w200", 200), ("w400", 400)] {
                    let spec = Spec { weight, ..Spec::default() };
                    work.group(name, n, spec, vec![Step::Run(ms(1_000).into())]);
                }
            }
            Self::Periodic => {
                work.hogs(n + n.div_ceil(2));
                for (name, period) in [("1ms", 1), ("4ms", 4), ("16ms", 16)] {
                    let (run, period) = (us(period * 1_000 / 20), ms(period));
                    work.group(name, n, Spec::default(), vec![Step::Run(run.into()), Step::Every(period)]);
                }
            }
            Self::Requests => drop(work.requests(2 * n, us(400), us(1_000))),
            Self::Pipes => drop(work.pipes(n, us(5))),
            Self::ForkStorm => drop(work.fork_storm(2 * n, us(500))),
            Self::Make => drop(work.make(2 * n)),
            Self::Containers => {
                work.requests(2 * n, us(200), us(2_000));
                work.group(
                    "database",
                    n,
                    Spec { weight: 200, ..Spec::default() },
                    vec![
                        Step::Run(Span::Exponential(us(300))),
                        Step::Sleep(Span::Exponential(us(700))),
                        Step::Run(Span::Uniform(us(20), us(80))),
                        Step::Sleep(Span::Exponential(ms(2))),
                    ],
                );
                let batch = Spec { weight: 20, ..Spec::default() };
                work.group("batch", 2 * n, batch, vec![Step::Run(ms(1_000).into())]);
                let agents = vec![Step::Run(Span::Uniform(us(50), ms(2))), Step::Every(ms(100))];
                work.group("agents", n, Spec::default(), agents);
            }
        }
        work
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|shape| shape.name() == name).ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no shape \"{name}\"; there are {names}")
        })
    }
}

/// Classic shapes, one by one.
impl Workload {
    /// Tasks that compute and never sleep.
    pub fn hogs(&mut self, count: usize) -> Group {
        self.group("hogs", count, Spec::default(), vec![Step::Run(ms(1_000).into())])
    }

    /// Tasks that compute for `run` once in each `period`, on timers that do not drift.
    pub fn periodic(&mut self, count: usize, run: Nanos, period: Nanos) -> Group {
        self.group("periodic", count, Spec::default(), vec![Step::Run(run.into()), Step::Every(period)])
    }

    /// Requests that arrive independently of each other, at `gap` on the average for each client, and a worker for each
    /// client that computes for `run` on the average. Returns the clients and the workers.
    pub fn requests(&mut self, workers: usize, run: Nanos, gap: Nanos) -> (Group, Group) {
        let answer = vec![Step::Block, Step::Run(Span::Exponential(run))];
        let worker = self.group("worker", workers, Spec::default(), answer);
        let ask = vec![Step::Sleep(Span::Exponential(gap)), Step::Run(us(5).into()), Step::Wake(worker)];
        (self.group("client", workers, Spec::default(), ask), worker)
    }

    /// Pairs of tasks that wake each other in turn and compute for `run` in between. Returns writers and readers.
    pub fn pipes(&mut self, pairs: usize, run: Nanos) -> (Group, Group) {
        let writer = self.group("writer", pairs, Spec::default(), vec![Step::Block]);
        let read = vec![Step::Block, Step::Run(run.into()), Step::Wake(writer)];
        let reader = self.group("reader", pairs, Spec::default(), read);
        if let Some(steps) = self.steps(writer) {
            *steps = vec![Step::Run(run.into()), Step::Wake(reader), Step::Block];
        }
        (writer, reader)
    }

    /// Shells that make a child that computes for `run` on the average, wait for it, and make the next. Returns shells and
    /// children.
    pub fn fork_storm(&mut self, shells: usize, run: Nanos) -> (Group, Group) {
        let child = vec![Step::Run(Span::Exponential(run)), Step::Exit];
        let child = self.group("child", 0, Spec::default(), child);
        let shell = vec![Step::Run(us(100).into()), Step::Fork(child), Step::Join];
        (self.group("shell", shells, Spec::default(), shell), child)
    }

    /// A build with so many jobs at a time: each is a compiler that reads and computes; after a round a linker computes
    /// alone. Returns the compilers and the linker.
    pub fn make(&mut self, jobs: usize) -> (Group, Group) {
        let compile = vec![
            Step::Run(Span::Exponential(ms(2))),
            Step::Sleep(Span::Exponential(us(300))),
            Step::Run(Span::Exponential(ms(15))),
            Step::Exit,
        ];
        let compiler = self.group("compiler", 0, Spec::default(), compile);
        let linker = self.group("linker", 0, Spec::default(), vec![Step::Run(ms(20).into()), Step::Exit]);
        let mut round = vec![Step::Run(us(200).into())];
        round.extend((0..jobs).map(|_| Step::Fork(compiler)));
        round.extend([Step::Join, Step::Fork(linker), Step::Join]);
        self.group("make", 1, Spec::default(), round);
        (compiler, linker)
    }
}
