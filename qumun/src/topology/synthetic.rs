//! Machines that do not exist, for tests and for the simulator.

use super::{CpuInfo, FULL_CAPACITY, Topology};
use crate::{Cpu, Error, ErrorKind, MAX_CPUS, Result};

/// A regular machine, described by how many of each thing are in the next larger one; everything is 1
/// unless told. Made by [`Topology::synthetic`].
///
/// ```
/// use qumun::Topology;
///
/// // Six cores with two threads, eight smaller ones in two clusters that share a level 2 cache each.
/// let hybrid = Topology::synthetic().cores(6).threads(2).small_clusters(2).small_cores(4).build()?;
/// assert_eq!(
///     hybrid.to_string(),
///     "20 CPUs, 14 cores with SMT, 1 L3, 1 node, 1 package\n\
///      package 0, node 0, L3 0: 0-1 2-3 4-5 6-7 8-9 10-11 [12 13 14 15]@512 [16 17 18 19]@512\n",
/// );
/// # Ok::<(), qumun::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a description is no machine until it is built"]
pub struct Synthetic {
    packages: u32,
    nodes: u32,
    l3s: u32,
    cores: u32,
    cores_per_l2: u32,
    threads: u32,
    small_clusters: u32,
    small_cores: u32,
    small_capacity: u32,
    threads_apart: bool,
}

impl Topology {
    /// Begins the description of a machine.
    pub fn synthetic() -> Synthetic {
        Synthetic {
            packages: 1,
            nodes: 1,
            l3s: 1,
            cores: 1,
            cores_per_l2: 1,
            threads: 1,
            small_clusters: 0,
            small_cores: 1,
            small_capacity: FULL_CAPACITY / 2,
            threads_apart: false,
        }
    }
}

impl Synthetic {
    /// Packages in the machine.
    pub fn packages(mut self, packages: u32) -> Self {
        self.packages = packages;
        self
    }

    /// NUMA nodes in a package.
    pub fn nodes(mut self, nodes: u32) -> Self {
        self.nodes = nodes;
        self
    }

    /// Level 3 caches in a node.
    pub fn l3s(mut self, l3s: u32) -> Self {
        self.l3s = l3s;
        self
    }

    /// Cores at a level 3 cache, without the small ones.
    pub fn cores(mut self, cores: u32) -> Self {
        self.cores = cores;
        self
    }

    /// How many neighbouring cores share a level 2 cache.
    pub fn cores_per_l2(mut self, cores: u32) -> Self {
        self.cores_per_l2 = cores;
        self
    }

    /// Threads in a core.
    pub fn threads(mut self, threads: u32) -> Self {
        self.threads = threads;
        self
    }

    /// Clusters of small cores at a level 3 cache; 0 unless told. A cluster shares a level 2 cache.
    pub fn small_clusters(mut self, clusters: u32) -> Self {
        self.small_clusters = clusters;
        self
    }

    /// Small cores in such a cluster. They have one thread each.
    pub fn small_cores(mut self, cores: u32) -> Self {
        self.small_cores = cores;
        self
    }

    /// The capacity of a small core; half of [`FULL_CAPACITY`] unless told.
    pub fn small_capacity(mut self, capacity: u32) -> Self {
        self.small_capacity = capacity;
        self
    }

    /// Numbers all first threads before all second ones, as most x86 servers do; otherwise the threads
    /// of a core are neighbours.
    pub fn threads_apart(mut self) -> Self {
        self.threads_apart = true;
        self
    }

    /// Makes the machine.
    ///
    /// # Errors
    /// It would have no CPU, or more than [`MAX_CPUS`].
    pub fn build(&self) -> Result<Topology> {
        let nr_cpus = self.nr_cpus().filter(|n| (1..=MAX_CPUS).contains(n));
        if nr_cpus.is_none() {
            let what = format!("a machine has 1 to {MAX_CPUS} CPUs, this would not: {self:?}");
            return Err(Error::new(ErrorKind::InvalidInput, what));
        }
        let mut cpus = Vec::new();
        let mut core = 0;
        for l3 in 0..self.packages * self.nodes * self.l3s {
            let node = l3 / self.l3s;
            let here = CpuInfo { l3, node, package: node / self.nodes, ..CpuInfo::default() };
            for number in 0..self.cores + self.small_clusters * self.small_cores {
                let small = number.checked_sub(self.cores);
                let first_of_l2 = match small {
                    None => number % self.cores_per_l2.max(1),
                    Some(small) => small % self.small_cores,
                };
                let l2 = core - first_of_l2;
                let capacity = if small.is_some() { self.small_capacity } else { FULL_CAPACITY };
                let threads = if small.is_some() { 1 } else { self.threads };
                cpus.extend((0..threads).map(|thread| (thread, CpuInfo { core, l2, capacity, ..here })));
                core += 1;
            }
        }
        if self.threads_apart {
            cpus.sort_by_key(|&(thread, _)| thread);
        }
        let number = |(cpu, (_, info)): (u32, _)| CpuInfo { cpu: Cpu(cpu), ..info };
        Topology::from_cpus(&(0..).zip(cpus).map(number).collect::<Vec<_>>())
    }

    /// `None` if it is too large a number.
    fn nr_cpus(&self) -> Option<u32> {
        let big = self.cores.checked_mul(self.threads)?;
        let small = self.small_clusters.checked_mul(self.small_cores)?;
        let l3s = self.packages.checked_mul(self.nodes)?.checked_mul(self.l3s)?;
        // A core without threads has no CPU, but would have to be counted.
        let cores = if self.threads == 0 { self.cores } else { 0 };
        l3s.checked_mul(big.checked_add(small)?).filter(|_| cores == 0)
    }
}
