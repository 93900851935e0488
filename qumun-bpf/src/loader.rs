//! Loads the core, attaches it, and reads what it counts.
//!
//! The object is embedded. What the running kernel lacks is taken out before the load: operations by
//! name (their programs' autoload with them), flags that its BTF does not know. Kernel functions in
//! their several spellings are weak symbols in the core, so nothing has to be chosen here by version.

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::sync::Mutex;

use libbpf_rs::btf::{Btf, types};
use libbpf_rs::{AsRawLibbpf, Link, MapCore, Object, ObjectBuilder, OpenObject, PrintLevel};

use crate::agent::{self, AgentFds};
use crate::map::{Mapping, Shared, page_size, read_words};
pub use crate::options::{Options, Switches};
use crate::probe::Probe;
use crate::ring::Transport;
use crate::stats::{self, Leg, Statistics};
use crate::wire::{
    AgentPage, Config, Counters, EVENT_AFFINITY, EVENT_CGROUP, EVENT_CGROUPS, EVENT_WEIGHT, Exit, LEGS, Legs,
    OPT_NO_LIMITS, View,
};
use crate::{Error, ErrorKind, Result, features, rules, wire};

/// The compiled core.
const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/core.bpf.o"));

/// Functions of `struct sched_ext_ops` in the order of `bpf/kernel.h`, with their programs.
const MEMBERS: [(&str, &str); 27] = [
    ("select_cpu", "qumun_pick_cpu"),
    ("enqueue", "qumun_enqueue"),
    ("dispatch", "qumun_dispatch"),
    ("tick", "qumun_tick"),
    ("running", "qumun_running"),
    ("stopping", "qumun_stopping"),
    ("set_weight", "qumun_set_weight"),
    ("set_cpumask", "qumun_set_cpumask"),
    ("update_idle", "qumun_update_idle"),
    ("init_task", "qumun_init_task"),
    ("exit_task", "qumun_exit_task"),
    ("enable", "qumun_enable"),
    ("disable", "qumun_disable"),
    ("dump", "qumun_dump"),
    ("dump_cpu", "qumun_dump_cpu"),
    ("dump_task", "qumun_dump_task"),
    ("cgroup_init", "qumun_cgroup_init"),
    ("cgroup_exit", "qumun_cgroup_exit"),
    ("cgroup_move", "qumun_cgroup_move"),
    ("cgroup_set_weight", "qumun_cgroup_set_weight"),
    ("cgroup_set_bandwidth", "qumun_cgroup_set_bandwidth"),
    ("cpu_online", "qumun_cpu_online"),
    ("cpu_offline", "qumun_cpu_offline"),
    ("cpu_acquire", "qumun_cpu_acquire"),
    ("cpu_release", "qumun_cpu_release"),
    ("init", "qumun_init"),
    ("exit", "qumun_exit"),
];
/// Offsets of the plain members behind them.
const FLAGS_AT: usize = MEMBERS.len() * 8;
const TIMEOUT_AT: usize = FLAGS_AT + 12;
const DUMP_LEN_AT: usize = FLAGS_AT + 16;
const NAME_AT: usize = FLAGS_AT + 20;
const NAME_LEN: usize = 128;

/// Does the core have this operation, on kernels that know it?
pub fn uses_operation(member: &str) -> bool {
    MEMBERS.iter().any(|(name, _)| *name == member)
}

/// Sets and reads what is kept about a task.
const TASK_PROGRAM: &str = "qumun_task";
/// Lets the core decide alone, or asks the agent again.
const MODE_PROGRAM: &str = "qumun_mode";
const SWITCH_PROGRAM: &str = "qumun_switch";
/// The map of rules.
const RULES: &str = "qm_rules";
/// The map of the table of cgroups.
const TABLE: &str = "qm_table";
/// The other program on a tracepoint, which every kernel needs.
const HOTPLUG_PROGRAM: &str = "qumun_hotplug";

/// The core, loaded into the kernel and not yet scheduling.
#[derive(Debug)]
pub struct Loaded {
    object: Object,
    maps: Maps,
    probe: Probe,
    watches_switch: bool,
    enforces_limits: bool,
    transport: Transport,
}

/// The core, scheduling. Dropping it gives the machine back to the kernel's own scheduler.
#[derive(Debug)]
pub struct Attached {
    // Order matters: the link goes first.
    link: Option<Link>,
    traces: Vec<Link>,
    loaded: Loaded,
}

#[derive(Debug)]
struct Maps {
    view: Shared<View>,
    agent: Shared<AgentPage>,
    exit: Shared<Exit>,
    counters: Mapping,
    legs: Mapping,
    rules: Mutex<Shared<wire::Rules>>,
}

/// Loads the core after asking the machine whether it can.
///
/// # Errors
/// The first obstacle ([`Probe::check`]), or what the kernel said when it refused.
pub fn load(options: &Options) -> Result<Loaded> {
    let probe = Probe::here();
    probe.check_machine()?;
    if !options.beside {
        probe.check_free()?;
    }
    check_name(&options.name)?;
    options.check()?;
    unlimited_memlock();

    let kernel = Kernel::read()?;
    let collected = collect_messages();
    let mut builder = ObjectBuilder::default();
    if let Some(path) = &options.custom_btf {
        check_btf(path)?;
        builder.btf_custom_path(path).map_err(|e| {
            Error::new(ErrorKind::Invalid, format!("{} is no path", path.display())).because(e)
        })?;
    }
    let mut open = builder
        .name("qumun")
        .and_then(|builder| builder.open_memory(OBJECT))
        .map_err(|e| Error::new(ErrorKind::Load, "the embedded core cannot be read").because(e))?;
    let limits = kernel.tells_limits() && !options.switches.no_limits;
    let config = Config {
        nr_cpu_ids: probe.nr_cpu_ids,
        options: options.config.options | options.bits() | if limits { 0 } else { OPT_NO_LIMITS },
        ..options.config
    };
    check_config(&config)?;
    check_dedicated(&config, options.transport)?;
    prepare(&mut open, options, &config, &kernel)?;
    let object = open.load().map_err(|e| {
        Error::new(
            ErrorKind::Load,
            format!("kernel {} refused the core; it said:\n{}", probe.release, collected.tail()),
        )
        .because(e)
    })?;
    drop(collected);
    freeze(&object, "qm_view")?;
    freeze(&object, TABLE)?;
    if options.transport == Transport::Shared {
        freeze(&object, options.transport.maps()[0])?;
    }
    let maps = Maps::map(&object)?;
    let watches_switch = kernel.watches_switch();
    let transport = options.transport;
    Ok(Loaded { object, maps, probe, watches_switch, enforces_limits: limits, transport })
}

fn check_name(name: &str) -> Result<()> {
    let fits = (1..NAME_LEN).contains(&name.len());
    if fits && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.')) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!("'{name}' is no name for a scheduler: 1 to {} letters, digits, '_' or '.'", NAME_LEN - 1),
    ))
}

/// libbpf would say only that a relocation failed.
fn check_btf(path: &Path) -> Result<()> {
    let _quiet = collect_messages();
    Btf::from_path(path).map(drop).map_err(|e| {
        Error::new(ErrorKind::Invalid, format!("{} holds no type information (BTF)", path.display()))
            .because(e)
    })
}

fn check_config(c: &Config) -> Result<()> {
    if c.slice_min_ns == 0 || c.slice_min_ns > c.slice_ns || c.slice_ns > c.slice_max_ns {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "slices must be ordered 0 < min <= default <= max, not {} / {} / {} ns",
                c.slice_min_ns, c.slice_ns, c.slice_max_ns
            ),
        ));
    }
    // The buckets in which undecided events are counted span 268 ms.
    if !(8_000_000..=200_000_000).contains(&c.late_ns) {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("an event can be late after 8 to 200 ms, not {} ns", c.late_ns),
        ));
    }
    Ok(())
}

/// A CPU for the agent alone: it has to be there, and not to be the only one.
fn check_dedicated(c: &Config, transport: Transport) -> Result<()> {
    let Some(cpu) = c.dedicated.checked_sub(1) else { return Ok(()) };
    let refuse =
        |why: String| Err(Error::new(ErrorKind::Invalid, format!("CPU {cpu} for the agent alone: {why}")));
    if transport != Transport::Shared {
        return refuse("it polls the shared arrays; the transport has to be 'shared'".into());
    }
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").map_err(|e| {
        Error::new(ErrorKind::System, "cannot read /sys/devices/system/cpu/online").because(e)
    })?;
    let online = cpus_of(online.trim());
    if !online.contains(&cpu) {
        return refuse(format!(
            "it is not online; these are: {}. Name one of them, or bring it online with \
             'echo 1 > /sys/devices/system/cpu/cpu{cpu}/online'",
            online.iter().map(u32::to_string).collect::<Vec<_>>().join(",")
        ));
    }
    if online.len() < 2 {
        return refuse(
            "it is the only one that is online, and nobody else could run; leave the option out".into(),
        );
    }
    Ok(())
}

/// A list as the kernel writes it: `0-3,8`. What makes no sense is no CPU.
fn cpus_of(list: &str) -> Vec<u32> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u32>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().collect()
}

/// Before 5.11 BPF memory counted against this limit, and mlockall still does.
pub(crate) fn unlimited_memlock() {
    let limit = libc::rlimit { rlim_cur: libc::RLIM_INFINITY, rlim_max: libc::RLIM_INFINITY };
    // SAFETY: a valid pointer; a failure leaves the limit as it was, and the load says so if it matters.
    unsafe { libc::setrlimit(libc::RLIMIT_MEMLOCK, &raw const limit) };
}

/// What the running kernel's BTF says.
struct Kernel {
    members: BTreeSet<String>,
    flags: Vec<(String, u64)>,
    reenqueue_anywhere: bool,
    reenqueue_any: bool,
}

impl Kernel {
    fn read() -> Result<Self> {
        let btf = Btf::from_vmlinux().map_err(|e| {
            Error::new(ErrorKind::NoBtf, "cannot read the kernel's type information").because(e)
        })?;
        if features::is_broken(&btf) {
            return Err(Error::new(ErrorKind::NoBtf, features::BROKEN));
        }
        let members = btf
            .type_by_name::<types::Struct<'_>>("sched_ext_ops")
            .map(|s| s.iter().filter_map(|m| Some(m.name?.to_string_lossy().into_owned())).collect())
            .unwrap_or_default();
        Ok(Self {
            members,
            flags: enum_values(&btf, "scx_ops_flags"),
            reenqueue_anywhere: btf.type_by_name::<types::Func<'_>>("scx_bpf_reenqueue_local___v2").is_some(),
            reenqueue_any: btf.type_by_name::<types::Func<'_>>("scx_bpf_dsq_reenq").is_some(),
        })
    }

    fn flag(&self, name: &str) -> u64 {
        self.flags.iter().find(|(n, _)| n == name).map_or(0, |(_, v)| *v)
    }

    /// Kernels that let us hand back a local queue from anywhere warn about cpu_release.
    fn deprecates_cpu_release(&self) -> bool {
        self.reenqueue_anywhere
    }

    /// And where that is possible from this CPU only, each switch has to be seen. Else the timer sees to it.
    fn watches_switch(&self) -> bool {
        self.reenqueue_anywhere && !self.reenqueue_any
    }

    /// Without it a scheduler does not learn of `cpu.max` (before 6.17).
    fn tells_limits(&self) -> bool {
        self.members.contains("cgroup_set_bandwidth")
    }

    /// Operations not to be used here: missing ones, of two that tell the same, one, and those that only tell
    /// what nobody has subscribed to.
    fn unwanted(&self, member: &str, config: &Config) -> bool {
        let unheard = |kinds: &[u32]| kinds.iter().all(|kind| config.events & (1 << kind) == 0);
        match member {
            "set_weight" if unheard(&[EVENT_WEIGHT]) => true,
            "set_cpumask" if unheard(&[EVENT_AFFINITY]) => true,
            name if name.starts_with("cgroup_")
                && config.options & OPT_NO_LIMITS != 0
                && unheard(&[EVENT_CGROUP, EVENT_CGROUPS]) =>
            {
                true
            }
            "cpu_acquire" | "cpu_release" if self.deprecates_cpu_release() => true,
            other => !self.members.contains(other),
        }
    }
}

fn enum_values(btf: &Btf<'_>, name: &str) -> Vec<(String, u64)> {
    if let Some(e) = btf.type_by_name::<types::Enum64<'_>>(name) {
        return e
            .iter()
            .filter_map(|v| Some((v.name?.to_string_lossy().into_owned(), v.value as u64)))
            .collect();
    }
    let Some(e) = btf.type_by_name::<types::Enum<'_>>(name) else { return Vec::new() };
    e.iter().filter_map(|v| Some((v.name?.to_string_lossy().into_owned(), v.value as u64))).collect()
}

/// Fits the object to the kernel: settings, name, flags, and without what is not there.
fn prepare(open: &mut OpenObject, options: &Options, config: &Config, kernel: &Kernel) -> Result<()> {
    let mut dropped = BTreeSet::new();
    let other = match options.transport {
        Transport::Rings => Transport::Shared,
        Transport::Shared => Transport::Rings,
    };
    for mut map in open.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if other.maps().iter().any(|suffix| name.ends_with(suffix)) {
            // No memory for what is not used. What refers to it is dead to the verifier, to which the settings are constants.
            map.set_autocreate(false)
                .map_err(|e| Error::new(ErrorKind::Load, format!("cannot leave out {name}")).because(e))?;
        } else if name.ends_with("qm_config") || name.starts_with(".rodata.qm_co") {
            let bytes = map.initial_value_mut().ok_or_else(|| incomplete("settings"))?;
            // SAFETY: Config is repr(C) plain data without padding.
            let raw = unsafe {
                std::slice::from_raw_parts(std::ptr::from_ref(config).cast::<u8>(), size_of::<Config>())
            };
            bytes.get_mut(..raw.len()).ok_or_else(|| incomplete("settings"))?.copy_from_slice(raw);
        } else if let (true, Some(places)) = (name.ends_with("qm_places"), &options.places) {
            let (bytes, raw) = (map.initial_value_mut(), places.as_bytes());
            let bytes =
                bytes.and_then(|bytes| bytes.get_mut(..raw.len())).ok_or_else(|| incomplete("places"))?;
            bytes.copy_from_slice(raw);
        } else if name == "qumun_ops" {
            let ops = map.initial_value_mut().ok_or_else(|| incomplete("operations"))?;
            if ops.len() < NAME_AT + NAME_LEN {
                return Err(incomplete("operations"));
            }
            for (i, (member, program)) in MEMBERS.iter().enumerate() {
                if kernel.unwanted(member, config) {
                    ops[i * 8..(i + 1) * 8].fill(0);
                    dropped.insert(*program);
                }
            }
            let mut flags = kernel.flag("SCX_OPS_KEEP_BUILTIN_IDLE") | kernel.flag("SCX_OPS_ENQ_LAST");
            if options.partial {
                flags |= kernel.flag("SCX_OPS_SWITCH_PARTIAL");
            }
            ops[FLAGS_AT..FLAGS_AT + 8].copy_from_slice(&flags.to_ne_bytes());
            ops[TIMEOUT_AT..TIMEOUT_AT + 4].copy_from_slice(&options.timeout_ms.to_ne_bytes());
            ops[DUMP_LEN_AT..DUMP_LEN_AT + 4].copy_from_slice(&options.exit_dump_len.to_ne_bytes());
            ops[NAME_AT..NAME_AT + NAME_LEN].fill(0);
            ops[NAME_AT..NAME_AT + options.name.len()].copy_from_slice(options.name.as_bytes());
        }
    }
    if !kernel.watches_switch() {
        dropped.insert(SWITCH_PROGRAM);
    }
    for mut program in open.progs_mut() {
        if dropped.contains(&*program.name().to_string_lossy()) {
            program.set_autoload(false);
        }
    }
    Ok(())
}

/// From now on only the core writes this map. The agent gets a descriptor of it, which would otherwise allow
/// more than the mapping that it makes of it. (A descriptor for reading only cannot be mapped: see
/// tests/map_rights.rs.) libbpf's own mapping is made anew, because a map that is mapped for writing cannot be frozen.
fn freeze(object: &Object, suffix: &str) -> Result<()> {
    let map = object.maps().find(|m| m.name().to_string_lossy().ends_with(suffix));
    let map = map.ok_or_else(|| incomplete(&format!("map {suffix}")))?;
    let mut size = 0;
    // SAFETY: a map of a loaded object, and a valid place for the size.
    let at = unsafe { libbpf_sys::bpf_map__initial_value(map.as_libbpf_object().as_ptr(), &raw mut size) };
    if !at.is_null() {
        let len = (size as usize).next_multiple_of(page_size());
        let (flags, fd) = (libc::MAP_SHARED | libc::MAP_FIXED, map.as_fd().as_raw_fd());
        // SAFETY: in the place, and of the length, of libbpf's mapping of the same map; nothing here refers to it.
        let new = unsafe { libc::mmap(at, len, libc::PROT_READ, flags, fd, 0) };
        if new != at {
            return Err(Error::system(format!("cannot map {suffix} for reading")));
        }
    }
    // SAFETY: an open descriptor.
    match unsafe { libbpf_sys::bpf_map_freeze(map.as_fd().as_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::system(format!("cannot freeze {suffix}"))),
    }
}

fn incomplete(what: &str) -> Error {
    Error::new(ErrorKind::Load, format!("the embedded core has no {what}: it was built wrongly"))
}

impl Maps {
    fn map(object: &Object) -> Result<Self> {
        let fd = |suffix: &str| {
            object
                .maps()
                .find(|m| m.name().to_string_lossy().ends_with(suffix))
                .ok_or_else(|| incomplete(&format!("map {suffix}")))
        };
        let cpus = crate::wire::MAX_CPUS;
        let area = |suffix: &str, each: usize, what: &str| {
            let len = (each * cpus).next_multiple_of(page_size());
            Mapping::new(fd(suffix)?.as_fd(), len, 0, false, what)
        };
        Ok(Self {
            view: Shared::new(fd("qm_view")?.as_fd(), false, "the core's view")?,
            agent: Shared::new(fd("qm_agent")?.as_fd(), false, "the agent's page")?,
            exit: Shared::new(fd("qm_exit")?.as_fd(), false, "the exit record")?,
            counters: area("qm_count", size_of::<Counters>(), "the counters")?,
            legs: area("qm_legs", size_of::<Legs>(), "the legs")?,
            rules: Mutex::new(Shared::new(fd(RULES)?.as_fd(), true, "the rules")?),
        })
    }

    fn per_cpu<T: Copy>(mapping: &Mapping, cpus: usize) -> Vec<T> {
        (0..cpus)
            .map(|cpu| {
                let at = mapping.at(cpu * size_of::<T>(), size_of::<T>()).cast::<T>();
                // SAFETY: in bounds; T is plain data; the kernel writes it, hence volatile.
                unsafe { read_words(at) }
            })
            .collect()
    }
}

impl Loaded {
    /// Starts to schedule. Until an agent introduces itself the core does it alone.
    ///
    /// # Errors
    /// When the kernel refuses, most often because another scheduler was loaded meanwhile.
    pub fn attach(mut self) -> Result<Attached> {
        let collected = collect_messages();
        let link = self
            .object
            .maps_mut()
            .find(|m| m.name() == "qumun_ops")
            .ok_or_else(|| incomplete("operations"))?
            .attach_struct_ops()
            .map_err(|e| {
                Error::new(
                    ErrorKind::Load,
                    format!("the kernel did not start the scheduler\n{}", collected.tail()),
                )
                .because(e)
            })?;
        drop(collected);
        let mut attached = Attached { link: Some(link), traces: Vec::new(), loaded: self };
        let wanted = |name: &str| {
            name == HOTPLUG_PROGRAM || (attached.loaded.watches_switch && name == SWITCH_PROGRAM)
        };
        for program in attached.loaded.object.progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if wanted(&name) {
                let link = program
                    .attach()
                    .map_err(|e| Error::new(ErrorKind::Load, format!("cannot attach {name}")).because(e))?;
                attached.traces.push(link);
            }
        }
        Ok(attached)
    }

    /// What this machine said before the load.
    pub fn probe(&self) -> &Probe {
        &self.probe
    }

    /// Descriptors for an agent, duplicated: the caller owns them.
    ///
    /// # Errors
    /// When there are no descriptors left.
    pub fn agent_fds(&self) -> Result<AgentFds> {
        let own = |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd> {
            fd.try_clone_to_owned()
                .map_err(|e| Error::new(ErrorKind::System, "cannot duplicate a descriptor").because(e))
        };
        let map = |suffix: &str| {
            let found = self.object.maps().find(|m| m.name().to_string_lossy().ends_with(suffix));
            own(found.ok_or_else(|| incomplete(suffix))?.as_fd())
        };
        let program = |name: &str| {
            let found = self.object.progs().find(|p| p.name() == name);
            own(found.ok_or_else(|| incomplete(name))?.as_fd())
        };
        let [events, decisions] = self.transport.maps();
        Ok(AgentFds {
            events: map(events)?,
            decisions: map(decisions)?,
            view: map("qm_view")?,
            agent: map("qm_agent")?,
            hello: program("qumun_hello")?,
            select_cpu: program("qumun_select_cpu")?,
            preempt: program("qumun_preempt")?,
            cgroups: map(TABLE)?,
            wake: program("qumun_wake")?,
        })
    }

    /// Sets or reads what the core keeps about one task, by `qumun_task`.
    ///
    /// # Errors
    /// When there is no such task.
    pub fn task(&self, mut task: wire::Task) -> Result<wire::Task> {
        let program = self.object.progs().find(|p| p.name() == TASK_PROGRAM);
        let program = program.ok_or_else(|| incomplete(TASK_PROGRAM))?;
        agent::run(program.as_fd(), &mut task, TASK_PROGRAM)
            .map_err(|e| Error::new(ErrorKind::Invalid, format!("task {}", task.pid)).because(e))?;
        Ok(task)
    }

    /// Lets the core decide alone, without asking the agent, or asks it again; nothing is detached for it. Returns whether it
    /// did before.
    ///
    /// # Errors
    /// When the program cannot be run.
    pub fn set_kernel_mode(&self, on: bool) -> Result<bool> {
        let program = self.object.progs().find(|p| p.name() == MODE_PROGRAM);
        let program = program.ok_or_else(|| incomplete(MODE_PROGRAM))?;
        let mut mode = wire::Mode { kernel: on.into(), was: 0 };
        agent::run(program.as_fd(), &mut mode, MODE_PROGRAM)?;
        Ok(mode.was != 0)
    }

    /// Makes these the rules by which the core treats tasks where it decides by itself, all at once. Returns how many tables
    /// there were so far. On an error nothing has changed.
    ///
    /// # Errors
    /// When there are too many.
    pub fn set_rules(&self, content: &rules::Content) -> Result<u64> {
        let shared = self.maps.rules.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // SAFETY: mapped for writing for as long as `shared` lives; whoever else writes holds the lock.
        unsafe { rules::publish(shared.ptr(), content) }
    }

    /// The statistics, by name.
    pub fn statistics(&self) -> Statistics {
        Statistics::new(&self.totals(), &self.view(), &self.agent_page())
    }

    /// What the core shows now.
    pub fn view(&self) -> View {
        self.maps.view.read()
    }

    /// Are the limits of cgroups (`cpu.max`) enforced? Not before Linux 6.17, and not if it was not wanted.
    pub fn enforces_limits(&self) -> bool {
        self.enforces_limits
    }

    /// How events get to the agent, and decisions back.
    pub fn transport(&self) -> Transport {
        self.transport
    }

    /// What the agent shows now.
    pub fn agent_page(&self) -> AgentPage {
        self.maps.agent.read()
    }

    /// Counters of each CPU.
    pub fn counters(&self) -> Vec<Counters> {
        Maps::per_cpu(&self.maps.counters, self.probe.nr_cpu_ids as usize)
    }

    /// Counters of all CPUs.
    pub fn totals(&self) -> Counters {
        stats::sum(&self.counters())
    }

    /// The legs of sampled wakeups.
    pub fn legs(&self) -> [Leg; LEGS] {
        Leg::sum(&Maps::per_cpu::<Legs>(&self.maps.legs, self.probe.nr_cpu_ids as usize))
    }
}

impl std::ops::Deref for Attached {
    type Target = Loaded;

    fn deref(&self) -> &Loaded {
        &self.loaded
    }
}

impl Attached {
    /// Was the scheduler removed, by the kernel or by us?
    pub fn exited(&self) -> Option<ExitRecord> {
        if self.view().exited == 0 {
            return None;
        }
        let exit = self.maps.exit.read();
        let text = |bytes: &[u8]| {
            let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
            String::from_utf8_lossy(&bytes[..end]).trim_end().to_owned()
        };
        Some(ExitRecord {
            kind: exit.kind,
            code: exit.code,
            reason: text(&exit.reason),
            message: text(&exit.msg),
            dump: text(&exit.dump),
        })
    }

    /// Stops scheduling and returns what the kernel recorded, with the object for the last counters.
    pub fn detach(mut self) -> (Option<ExitRecord>, Loaded) {
        self.traces.clear();
        // Dropping the link returns when every task is back with the kernel's own scheduler.
        self.link = None;
        let exit = self.exited();
        (exit, self.loaded)
    }
}

/// Why the scheduler was removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExitRecord {
    /// `enum scx_exit_kind`: 64 by user space, 65 by BPF, 66 by the kernel, 67 SysRq, from 1024 an error.
    pub kind: u32,
    /// `SCX_ECODE_*`.
    pub code: i64,
    /// In the kernel's words.
    pub reason: String,
    /// What exactly.
    pub message: String,
    /// The kernel's dump of queues and tasks, when it ejected us.
    pub dump: String,
}

impl ExitRecord {
    /// Did the kernel have to remove us?
    pub fn is_error(&self) -> bool {
        self.kind >= 1024
    }
}

/// What libbpf and the verifier said, kept for the error message.
static MESSAGES: Mutex<String> = Mutex::new(String::new());

pub(crate) struct Collected(Option<(PrintLevel, libbpf_rs::PrintCallback)>);

/// From here until dropped libbpf says nothing on stderr.
pub(crate) fn collect_messages() -> Collected {
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
    pub(crate) fn tail(&self) -> String {
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
