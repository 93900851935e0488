//! Reads the topology through [hwloc](https://www.open-mpi.org/projects/hwloc/), which knows more
//! machines than sysfs describes, and corrects what some describe wrongly.

use std::path::Path;

use hwlocality::Topology as Hwloc;
use hwlocality::cpu::cpuset::CpuSet as HwlocSet;
use hwlocality::object::types::ObjectType;
use hwlocality::topology::builder::{BuildFlags, TopologyBuilder};

use super::draft::Draft;
use super::{Level, Source, Topology, sysfs};
use crate::{Cpu, CpuSet, Error, ErrorKind, MAX_CPUS, Result};

/// What hwloc calls the levels.
const LEVELS: [(ObjectType, Level); 5] = [
    (ObjectType::Core, Level::Core),
    (ObjectType::L2Cache, Level::L2),
    (ObjectType::L3Cache, Level::L3),
    (ObjectType::NUMANode, Level::Node),
    (ObjectType::Package, Level::Package),
];

impl Topology {
    /// Reads this machine's topology through hwloc, all of it, also where this process may not run
    /// (feature `hwloc`). The environment variables of hwloc (`HWLOC_XMLFILE`, `HWLOC_SYNTHETIC`) make it
    /// tell of another machine. hwloc has no capacities; those of this machine are taken from sysfs.
    ///
    /// # Errors
    /// hwloc refuses, or it tells of CPU numbers of [`MAX_CPUS`] and more, or of no CPU.
    pub fn from_hwloc() -> Result<Self> {
        let machine = build(TopologyBuilder::new())?;
        let capacities = machine.is_this_system().then_some(Path::new("/sys/devices/system/cpu"));
        read(&machine, capacities, Source::Hwloc)
    }

    /// A machine in hwloc's own notation for tests, as `pack:2 l3:1 core:4 pu:2` (see `hwloc(7)`, "Synthetic
    /// topologies").
    ///
    /// # Errors
    /// hwloc does not understand it, or the machine is too large.
    pub fn from_hwloc_synthetic(description: &str) -> Result<Self> {
        let invalid = |error| {
            let what = format!("hwloc: no machine: {}", super::excerpt(description));
            Error::with_source(ErrorKind::InvalidInput, what, error)
        };
        let builder =
            TopologyBuilder::new().from_synthetic(description).map_err(|error| invalid(Box::new(error)))?;
        read(&build(builder)?, None, Source::MadeUp)
    }
}

fn build(builder: TopologyBuilder) -> Result<Hwloc> {
    let failed = |error| Error::with_source(ErrorKind::Other, "hwloc: read the topology", error);
    // Otherwise it tells of the CPUs only that the cgroup of this process may use.
    builder
        .with_flags(BuildFlags::INCLUDE_DISALLOWED)
        .map_err(|error| failed(Box::<dyn std::error::Error + Send + Sync>::from(error)))?
        .build()
        .map_err(|error| failed(error.into()))
}

fn read(machine: &Hwloc, capacities: Option<&Path>, source: Source) -> Result<Topology> {
    let online = cpus(&machine.cpuset())?;
    let possible = cpus(&machine.complete_cpuset())? | online;
    if online.is_empty() {
        return Err(Error::new(ErrorKind::Other, "hwloc: it tells of no CPU"));
    }
    let mut draft = Draft::new(possible, possible, online);
    online.iter().for_each(|cpu| draft.know(cpu));
    for (kind, level) in LEVELS {
        for object in machine.objects_with_type(kind) {
            let Some(shared) = object.cpuset() else { continue };
            let shared = cpus(&shared)?;
            draft.share(level, &shared);
            if let (Level::Node, Some(number)) = (level, object.os_index()) {
                draft.number_node(u32::try_from(number).unwrap_or(u32::MAX), &shared);
            }
        }
    }
    if let Some(dir) = capacities {
        sysfs::read_capacities(&mut draft, dir)?;
    }
    Ok(draft.finish(source))
}

fn cpus(set: &HwlocSet) -> Result<CpuSet> {
    let mut cpus = CpuSet::EMPTY;
    for index in set.iter_set().map(usize::from) {
        if index >= MAX_CPUS as usize {
            return Err(Error::new(ErrorKind::Other, format!("hwloc: CPU {index}: numbers go to 1023")));
        }
        cpus.insert(Cpu(index as u32));
    }
    Ok(cpus)
}
