//! The programs: fitted to the kernel, loaded, attached.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::Ordering;

use libbpf_rs::btf::{Btf, types};
use libbpf_rs::{Link, MapCore, MapFlags, Object, ObjectBuilder, OpenObject, PrintLevel};

use crate::layout::{self, Config, Lane, MAX_CPUS, Row, SharedState, bytes_of};
use crate::memory::Shared;
use crate::monitor::{Options, WaitSource};
use crate::topology;
use crate::values::ProgramCost;
use crate::{Error, ErrorKind, Result};

const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/monitor.bpf.o"));
/// The last to be attached: by then every task has its state.
const SWITCHES: [&str; 2] = ["mon_switch", "mon_own_switch"];
const THREADS: &str = "mon_threads";

/// The programs at work, until dropped.
#[derive(Debug)]
pub(crate) struct Loaded {
    // In the order in which they have to go.
    _links: Vec<Link>,
    threads: Link,
    pub(crate) rows: Shared<Row>,
    pub(crate) groups: Shared<u64>,
    pub(crate) lanes: Shared<Lane>,
    pub(crate) shared: Shared<SharedState>,
    pub(crate) nr_cpus: usize,
    pub(crate) nr_rows: usize,
    pub(crate) own_wait: bool,
    object: Object,
    _measure: Option<OwnedFd>,
}

impl Loaded {
    pub(crate) fn new(options: &Options, v1: bool) -> Result<Self> {
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let release = release.trim();
        let kernel = Kernel::read(release)?;
        let nr_cpus = topology::nr_cpus(Path::new("/"));
        if nr_cpus as usize > MAX_CPUS {
            let what = format!("{nr_cpus} possible CPUs; the monitor serves up to {MAX_CPUS}");
            return Err(Error::new(ErrorKind::Invalid, what));
        }
        let nr_rows = options.rows(nr_cpus)?;
        let own_wait = match options.wait_source {
            WaitSource::Auto => !kernel.keeps_run_delay,
            WaitSource::Wakeups => true,
        };
        let config = Config {
            since: now_ns(),
            nr_cpus,
            by_cpu_controller: v1.into(),
            may_allocate: kernel.allocates_anywhere.into(),
            own_wait: own_wait.into(),
        };
        unlimited_memlock();
        let collected = collect_messages();
        let refused = |what: &str, e: libbpf_rs::Error| {
            let said = collected.tail();
            let kind = match e.kind() {
                libbpf_rs::ErrorKind::PermissionDenied => ErrorKind::Permission,
                _ => ErrorKind::Load,
            };
            let hint = match kind {
                ErrorKind::Permission => "; it needs root, or CAP_BPF and CAP_PERFMON",
                _ => "",
            };
            Error::new(kind, format!("kernel {release} refused {what}{hint}; libbpf said:\n{said}"))
                .because(e)
        };
        let mut open = ObjectBuilder::default()
            .name("gthulhu_monitor")
            .and_then(|builder| builder.open_memory(OBJECT))
            .map_err(|e| Error::new(ErrorKind::Load, "the embedded programs cannot be read").because(e))?;
        prepare(&mut open, &config, nr_rows).map_err(|e| refused("a map's size", e))?;
        let object = open.load().map_err(|e| refused("the monitor", e))?;
        fill(&object, &config, nr_rows).map_err(|e| refused("what the maps begin with", e))?;

        let fd = |name: &str| {
            let map = object.maps().find(|map| map.name().to_string_lossy().ends_with(name));
            map.ok_or_else(|| Error::new(ErrorKind::Load, format!("the object has no map {name}")))
        };
        let rows = nr_rows as usize * nr_cpus as usize;
        let shared = Shared::<SharedState>::map(fd("mon_shared")?.as_fd(), 1, true, "the monitor's state")?;
        let mut links = Vec::new();
        for last in [false, true] {
            if last {
                seed(&object, &shared)
                    .map_err(|e| e.unwrap_or_else(|e| refused("the look at all threads", e)))?;
            }
            for program in object.progs_mut() {
                let name = program.name().to_string_lossy().into_owned();
                if !program.autoload() || name == THREADS || SWITCHES.contains(&name.as_str()) != last {
                    continue;
                }
                links.push(program.attach().map_err(|e| refused(&format!("to attach {name}"), e))?);
            }
        }
        let threads = iterator(&object).map_err(|e| refused("to attach the iterator", e))?;
        drop(collected);
        Ok(Self {
            _links: links,
            threads,
            rows: Shared::map(fd("mon_rows")?.as_fd(), rows, false, "the rows")?,
            groups: Shared::map(fd("mon_groups")?.as_fd(), nr_rows as usize, true, "the table of groups")?,
            lanes: Shared::map(fd("mon_lanes")?.as_fd(), nr_cpus as usize, false, "the CPUs' counters")?,
            shared,
            nr_cpus: nr_cpus as usize,
            nr_rows: nr_rows as usize,
            own_wait,
            object,
            _measure: if options.measure_self { Some(measure()?) } else { None },
        })
    }

    pub(crate) fn map(&self, name: &str) -> Result<libbpf_rs::Map<'_>> {
        let found = self.object.maps().find(|map| map.name() == name);
        found.ok_or_else(|| Error::new(ErrorKind::Load, format!("the object has no map {name}")))
    }

    /// Tasks look up their rows again.
    pub(crate) fn new_epoch(&self) {
        self.shared.word(0, 0).fetch_add(1, Ordering::SeqCst);
    }

    /// What the iterator writes when asked so. One at a time: hence `&mut`.
    pub(crate) fn iterate(&mut self, what: u32, tgid: i32, group: u64) -> Result<Vec<layout::ThreadRecord>> {
        self.ask(what, tgid, group);
        let mut bytes = Vec::new();
        libbpf_rs::Iter::new(&self.threads)
            .map_err(|e| Error::new(ErrorKind::System, "cannot look at the threads").because(e))
            .and_then(|mut iter| {
                std::io::Read::read_to_end(&mut iter, &mut bytes)
                    .map_err(|e| Error::new(ErrorKind::System, "cannot read the list of threads").because(e))
            })?;
        Ok(bytes.chunks_exact(size_of::<layout::ThreadRecord>()).filter_map(layout::from_bytes).collect())
    }

    fn ask(&self, what: u32, tgid: i32, group: u64) {
        ask(&self.shared, what, tgid, group);
    }

    /// What each program has cost while the kernel measured.
    pub(crate) fn costs(&self) -> Vec<ProgramCost> {
        self.object
            .progs()
            .filter(|program| program.autoload())
            .filter_map(|program| {
                // SAFETY: all zero is a valid value of this plain struct.
                let mut info: libbpf_sys::bpf_prog_info = unsafe { std::mem::zeroed() };
                let mut len = size_of_val(&info) as u32;
                let fd = program.as_fd().as_raw_fd();
                // SAFETY: info is as long as len says, and lives until the call returns.
                let failed = unsafe { libbpf_sys::bpf_prog_get_info_by_fd(fd, &raw mut info, &raw mut len) };
                (failed == 0).then(|| ProgramCost {
                    name: program.name().to_string_lossy().into_owned(),
                    runs: info.run_cnt,
                    run_ns: info.run_time_ns,
                })
            })
            .collect()
    }
}

fn ask(shared: &Shared<SharedState>, what: u32, tgid: i32, group: u64) {
    shared.word(0, 24).store(group, Ordering::SeqCst);
    let halves = [what.to_ne_bytes(), tgid.to_ne_bytes()].concat();
    let word = u64::from_ne_bytes(std::array::from_fn(|i| halves[i]));
    shared.word(0, 16).store(word, Ordering::SeqCst);
}

fn iterator(object: &Object) -> libbpf_rs::Result<Link> {
    let program = object.progs_mut().find(|program| program.name() == THREADS);
    program.map_or_else(|| Err(libbpf_rs::Error::from_raw_os_error(libc::ENOENT)), |p| p.attach())
}

/// Notes how far each thread is that is older than the monitor.
fn seed(object: &Object, shared: &Shared<SharedState>) -> Result<(), Result<Error, libbpf_rs::Error>> {
    ask(shared, layout::ITER_SEED, 0, 0);
    let link = iterator(object).map_err(Err)?;
    let mut iter = libbpf_rs::Iter::new(&link).map_err(Err)?;
    std::io::Read::read_to_end(&mut iter, &mut Vec::new())
        .map_err(|e| Ok(Error::new(ErrorKind::System, "cannot look at all threads").because(e)))?;
    Ok(())
}

fn prepare(open: &mut OpenObject, config: &Config, nr_rows: u32) -> libbpf_rs::Result<()> {
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        match name.as_str() {
            "mon_rows" => map.set_max_entries(nr_rows * config.nr_cpus)?,
            "mon_groups" | "mon_slots" | "mon_free" => map.set_max_entries(nr_rows)?,
            name if name.ends_with("mon_config") => {
                if let Some(bytes) = map.initial_value_mut() {
                    let raw = bytes_of(config);
                    bytes[..raw.len()].copy_from_slice(raw);
                }
            }
            _ => {}
        }
    }
    for mut program in open.progs_mut() {
        let own = program.name().to_string_lossy().starts_with("mon_own_");
        let either = program.name() == "mon_switch";
        program.set_autoload(if config.own_wait != 0 { !either } else { !own });
    }
    Ok(())
}

fn fill(object: &Object, config: &Config, nr_rows: u32) -> libbpf_rs::Result<()> {
    for map in object.maps() {
        if map.name() == "mon_places" {
            let places = topology::places(Path::new("/"), config.nr_cpus);
            for (cpu, place) in (0u32..).zip(&places) {
                map.update(&cpu.to_ne_bytes(), bytes_of(place), MapFlags::ANY)?;
            }
        } else if map.name() == "mon_free" {
            for slot in 1..nr_rows {
                map.update(&[], &slot.to_ne_bytes(), MapFlags::ANY)?;
            }
        }
    }
    Ok(())
}

/// What the running kernel's type information says.
struct Kernel {
    keeps_run_delay: bool,
    allocates_anywhere: bool,
}

impl Kernel {
    fn read(release: &str) -> Result<Self> {
        let unreadable = || {
            format!(
                "this kernel ({release}) offers no type information that can be read (/sys/kernel/btf/vmlinux); it \
                 needs CONFIG_DEBUG_INFO_BTF=y"
            )
        };
        let btf = Btf::from_vmlinux().map_err(|e| Error::new(ErrorKind::NoBtf, unreadable()).because(e))?;
        let has = |name: &str, field: &str| {
            btf.type_by_name::<types::Struct<'_>>(name)
                .is_some_and(|s| s.iter().any(|member| member.name.is_some_and(|name| name == field)))
        };
        if !has("task_struct", "pid") {
            return Err(Error::new(ErrorKind::NoBtf, unreadable()));
        }
        Ok(Self {
            keeps_run_delay: has("sched_info", "run_delay"),
            // Since 6.4 task storage comes from an allocator of BPF's own, and since 7.0 or so from one that takes no lock.
            allocates_anywhere: has("bpf_local_storage_map", "bpf_ma")
                || btf.type_by_name::<types::Func<'_>>("bpf_map_kmalloc_nolock").is_some(),
        })
    }
}

/// The kernel measures BPF programs as long as this is open.
fn measure() -> Result<OwnedFd> {
    // SAFETY: no pointer is passed.
    let fd = unsafe { libbpf_sys::bpf_enable_stats(libbpf_sys::BPF_STATS_RUN_TIME) };
    if fd < 0 {
        return Err(Error::system(
            "the kernel does not measure BPF programs for us (it needs CAP_SYS_ADMIN)",
        ));
    }
    // SAFETY: just opened, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `CLOCK_MONOTONIC`, in ns.
pub(crate) fn now_ns() -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid pointer and a clock that every kernel has.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// Before 5.11 BPF memory counted against this limit; some kernels of distributions kept that.
fn unlimited_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid pointer; a failure leaves the limit as it was, and the load says so if it matters.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// What libbpf says meanwhile, for our errors rather than on standard error.
static MESSAGES: Mutex<String> = Mutex::new(String::new());

struct Collected(Option<(PrintLevel, libbpf_rs::PrintCallback)>);

fn collect_messages() -> Collected {
    fn keep(_: PrintLevel, text: String) {
        if let Ok(mut messages) = MESSAGES.lock() {
            messages.push_str(&text);
        }
    }
    if let Ok(mut messages) = MESSAGES.lock() {
        messages.clear();
    }
    Collected(libbpf_rs::set_print(Some((PrintLevel::Info, keep))))
}

impl Collected {
    /// The last lines: the verifier's reason stands at the end of its log.
    fn tail(&self) -> String {
        let messages = MESSAGES.lock().map(|m| m.clone()).unwrap_or_default();
        let lines: Vec<&str> = messages.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        libbpf_rs::set_print(self.0.take());
    }
}
