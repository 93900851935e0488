//! A machine in a few lines.

use std::fmt;

use super::{FULL_CAPACITY, Level, Topology};
use crate::CpuSet;

/// A summary, and one line for each level 3 cache with its cores. Cores in brackets share a level 2
/// cache; `@600` is the capacity of what stands before it, where it is not full. Last, the CPUs that are
/// offline and those whose place is not known, if there are any.
///
/// ```
/// use qumun::Topology;
///
/// let machine = Topology::synthetic().packages(2).l3s(2).cores(2).threads(2).threads_apart().build()?;
/// assert_eq!(
///     machine.to_string(),
///     "16 CPUs, 8 cores with SMT, 4 L3, 2 nodes, 2 packages\n\
///      package 0, node 0, L3 0: 0,8 1,9\n\
///      package 0, node 0, L3 1: 2,10 3,11\n\
///      package 1, node 1, L3 2: 4,12 5,13\n\
///      package 1, node 1, L3 3: 6,14 7,15\n",
/// );
/// # Ok::<(), qumun::Error>(())
/// ```
impl fmt::Display for Topology {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |level| self.domains(level).len();
        let many = |n: usize| if n == 1 { "" } else { "s" };
        let (cpus, cores) = (self.possible.len() as usize, count(Level::Core));
        let smt = if self.smt() { " with SMT" } else { "" };
        write!(f, "{cpus} CPU{}, {cores} core{}{smt}, {} L3", many(cpus), many(cores), count(Level::L3))?;
        for (level, name) in [(Level::Node, "node"), (Level::Package, "package")] {
            write!(f, ", {} {name}{}", count(level), many(count(level)))?;
        }
        writeln!(f)?;
        for (index, l3) in self.domains(Level::L3).iter().enumerate() {
            self.fmt_l3(f, index, l3)?;
        }
        for (name, cpus) in
            [("offline", self.possible - self.online), ("not known", self.possible - self.known)]
        {
            if !cpus.is_empty() {
                writeln!(f, "{name}: {cpus}")?;
            }
        }
        Ok(())
    }
}

impl Topology {
    fn fmt_l3(&self, f: &mut fmt::Formatter<'_>, index: usize, l3: &CpuSet) -> fmt::Result {
        // Usually one number each. With sub-NUMA clustering, a cache spans nodes.
        for (level, name) in [(Level::Package, "package"), (Level::Node, "node")] {
            let here = self.domains(level).iter().enumerate().filter(|(_, domain)| domain.intersects(l3));
            for (which, (number, _)) in here.enumerate() {
                let number = match level {
                    Level::Node => self.node_numbers[number] as usize,
                    _ => number,
                };
                if which == 0 { write!(f, "{name} {number}")? } else { write!(f, "+{number}")? }
            }
            write!(f, ", ")?;
        }
        write!(f, "L3 {index}:")?;
        for l2 in self.domains(Level::L2).iter().filter(|l2| l2.intersects(l3)) {
            self.fmt_l2(f, l2)?;
        }
        writeln!(f)
    }

    fn fmt_l2(&self, f: &mut fmt::Formatter<'_>, l2: &CpuSet) -> fmt::Result {
        let cores = || self.domains(Level::Core).iter().filter(|core| core.intersects(l2));
        let several = cores().nth(1).is_some();
        write!(f, " {}", if several { "[" } else { "" })?;
        for (which, core) in cores().enumerate() {
            write!(f, "{}{core}", if which == 0 { "" } else { " " })?;
        }
        write!(f, "{}", if several { "]" } else { "" })?;
        match l2.first().and_then(|cpu| self.capacity(cpu)) {
            Some(FULL_CAPACITY) | None => Ok(()),
            Some(capacity) => write!(f, "@{capacity}"),
        }
    }
}
