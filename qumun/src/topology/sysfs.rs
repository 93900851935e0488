//! Reads the topology from the files of the kernel, `/sys/devices/system/{cpu,node}`
//! (Documentation/ABI/stable/sysfs-devices-system-cpu, Documentation/admin-guide/cputopology.rst).

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::draft::Draft;
use super::{FULL_CAPACITY, Level, Source, Topology, excerpt};
use crate::{Cpu, CpuSet, Error, ErrorKind, Result};

/// Of no file more is read. Those of sysfs have a page, lists of CPUs may have a few.
const MOST_BYTES: u64 = 64 * 1024;

impl Topology {
    /// Reads this machine's topology from `/sys`.
    ///
    /// # Errors
    /// See [`from_sysfs_at`](Self::from_sysfs_at).
    pub fn from_sysfs() -> Result<Self> {
        Self::from_sysfs_at(Path::new("/sys"))
    }

    /// Reads the topology from a sysfs that is mounted, or copied, somewhere else.
    ///
    /// Only `devices/system/cpu/possible` must be there. What else is missing is made up for:
    /// [`Level`] says how, [`capacity`](Self::capacity) says how for capacities; without `present` all
    /// possible CPUs are present, without `online` all those that are present are online. Numbers of CPUs
    /// that are not possible are left out of all other lists; lists that contradict each other are
    /// united.
    ///
    /// # Errors
    /// A file that cannot be read, is empty where a list of CPUs must be, or says what it cannot mean, CPU
    /// numbers of [`MAX_CPUS`](crate::MAX_CPUS) and more among them. The error tells the file and its
    /// content.
    pub fn from_sysfs_at(root: &Path) -> Result<Self> {
        let system = root.join("devices/system");
        let dir = system.join("cpu");
        let Some(possible) = some_cpus(&dir.join("possible"))? else {
            let what = format!("{}: not there; is this a sysfs?", dir.join("possible").display());
            return Err(Error::new(ErrorKind::Unsupported, what));
        };
        let present = some_cpus(&dir.join("present"))?.unwrap_or(possible);
        let online = some_cpus(&dir.join("online"))?.unwrap_or(present);
        let mut draft = Draft::new(possible, present, online);
        for cpu in possible.iter() {
            read_cpu(&mut draft, &dir, cpu, online.contains(cpu))?;
        }
        for (number, node) in numbered(&system.join("node"), "node")? {
            // A node of memory only has an empty list.
            let cpus = cpu_list(&node.join("cpulist"))?.unwrap_or_default();
            draft.share(Level::Node, &cpus);
            draft.number_node(number, &cpus);
        }
        read_capacities(&mut draft, &dir)?;
        Ok(draft.finish(Source::Sysfs(root.to_owned())))
    }
}

fn read_cpu(draft: &mut Draft, dir: &Path, cpu: Cpu, online: bool) -> Result<()> {
    let dir = dir.join(format!("cpu{cpu}"));
    // The names from before 5.3 come second.
    let core = either(&dir, ["topology/core_cpus_list", "topology/thread_siblings_list"])?;
    // The files of a CPU that is offline are gone, or their lists are without it.
    if !online && !core.is_some_and(|core| core.contains(cpu)) {
        return Ok(());
    }
    draft.know(cpu);
    let with_itself = |mut cpus: CpuSet| {
        cpus.insert(cpu);
        cpus
    };
    draft.share(Level::Core, &with_itself(core.unwrap_or_default()));
    if let Some(package) = either(&dir, ["topology/package_cpus_list", "topology/core_siblings_list"])? {
        draft.share(Level::Package, &with_itself(package));
    }
    for (_, cache) in numbered(&dir.join("cache"), "index")? {
        let level = match number(&cache.join("level"))? {
            Some(2) => Level::L2,
            Some(3) => Level::L3,
            _ => continue,
        };
        let is_for_code = text(&cache.join("type"))?.is_some_and(|kind| kind.trim() == "Instruction");
        if let (false, Some(cpus)) = (is_for_code, cpu_list(&cache.join("shared_cpu_list"))?) {
            draft.share(level, &with_itself(cpus));
        }
    }
    Ok(())
}

/// The kernel's own figure, else the highest frequency against that of the fastest CPU. hwloc has
/// neither, so its reader comes here, too.
pub(super) fn read_capacities(draft: &mut Draft, dir: &Path) -> Result<()> {
    let mut frequencies = Vec::new();
    for cpu in draft.known().iter() {
        let dir = dir.join(format!("cpu{cpu}"));
        if let Some(capacity) = number(&dir.join("cpu_capacity"))? {
            draft.set_capacity(cpu, capacity);
        } else if let Some(khz) = number(&dir.join("cpufreq/cpuinfo_max_freq"))?.filter(|&khz| khz > 0) {
            frequencies.push((cpu, khz));
        }
    }
    let fastest = frequencies.iter().map(|&(_, khz)| khz).max().unwrap_or(1);
    for (cpu, khz) in frequencies {
        let share = u64::from(khz) * u64::from(FULL_CAPACITY) / u64::from(fastest);
        draft.set_capacity(cpu, share as u32);
    }
    Ok(())
}

/// The directories `PREFIX0`, `PREFIX1`, ... with their numbers, in ascending order; none if there is no
/// such place.
fn numbered(dir: &Path, prefix: &str) -> Result<Vec<(u32, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(error) if is_absent(&error) => return Ok(Vec::new()),
        Err(error) => return Err(cannot_read(dir, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| cannot_read(dir, error))?;
        let name = entry.file_name();
        let digits = name.to_str().and_then(|name| name.strip_prefix(prefix));
        if let Some(number) = digits.and_then(|digits| digits.parse().ok()) {
            found.push((number, entry.path()));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn either(dir: &Path, files: [&str; 2]) -> Result<Option<CpuSet>> {
    match cpu_list(&dir.join(files[0]))? {
        None => cpu_list(&dir.join(files[1])),
        cpus => Ok(cpus),
    }
}

fn some_cpus(file: &Path) -> Result<Option<CpuSet>> {
    match cpu_list(file)? {
        Some(cpus) if cpus.is_empty() => Err(nonsense(file, "no CPU in it")),
        cpus => Ok(cpus),
    }
}

fn cpu_list(file: &Path) -> Result<Option<CpuSet>> {
    let parse =
        |content: String| content.parse::<CpuSet>().map_err(|error| nonsense(file, &error.to_string()));
    text(file)?.map(parse).transpose()
}

fn number(file: &Path) -> Result<Option<u32>> {
    let parse = |content: String| {
        let not_one = |_| nonsense(file, &format!("no number: {}", excerpt(content.trim())));
        content.trim().parse::<u32>().map_err(not_one)
    };
    text(file)?.map(parse).transpose()
}

/// The content of a file, `None` if it is not there. What is no text is shown as such, and then refused
/// by whoever wanted a number.
fn text(file: &Path) -> Result<Option<String>> {
    let mut bytes = Vec::new();
    match File::open(file).and_then(|f| f.take(MOST_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if is_absent(&error) => Ok(None),
        Err(error) => Err(cannot_read(file, error)),
    }
}

fn is_absent(error: &io::Error) -> bool {
    // What a file of sysfs answers when its CPU goes while it is open.
    const ENODEV: i32 = 19;
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
        || error.raw_os_error() == Some(ENODEV)
}

fn cannot_read(path: &Path, error: io::Error) -> Error {
    let kind = match error.kind() {
        io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
        _ => ErrorKind::Kernel,
    };
    Error::with_source(kind, format!("read {}", path.display()), error)
}

fn nonsense(file: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Kernel, format!("{}: {what}", file.display()))
}
