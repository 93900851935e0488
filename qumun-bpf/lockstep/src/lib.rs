//! The C core, compiled for this machine, as a [`Core`]: so that it can run beside its specification
//! ([`qumun::sim::Reference`]) on the same histories.
//!
//! The C side has one state per process, so there is one [`Compiled`] at a time ([`Compiled::new`] waits for the one
//! before). What it calls of the kernel ends in the functions `rust_…` below, on the [`Linux`] of the call.

mod arrays;
mod native;

pub use arrays::{Arrays, BATCH, Decisions, Events as AgentEvents};

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use native::{Cgroup, Native, Settings as NativeSettings};
use qumun::sim::{Core, Counters, Linux, Settings, Thread};
use qumun::{Cpu, CpuSet, Epoch, Events, Level, Numbers, Pid, Rules};

static ONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The C core.
#[derive(Debug)]
pub struct Compiled {
    settings: NativeSettings,
    // C keeps their addresses while a call lasts, and no longer.
    tasks: Vec<Native>,
    // In boxes, because C does keep theirs: in the storage of tasks and of each other.
    cgroups: BTreeMap<u64, Box<Cgroup>>,
    numbers: Numbers,
    _alone: MutexGuard<'static, ()>,
}

/// The state of the core that is one for the machine, in the order of `native_state`.
pub const STATE: usize = 26 + 8 + 64;
/// What it keeps for a CPU, in the order of `native_cpu`.
pub const CPU: usize = 25;
/// What it keeps for a task, in the order of `native_task`.
pub const TASK: usize = 38;
/// What it keeps for a cgroup, in the order of `native_slot`.
pub const SLOT: usize = 21;

impl Compiled {
    /// A core with these settings and subscriptions.
    pub fn new(settings: &Settings, events: Events) -> Self {
        let alone = alone();
        Self {
            settings: NativeSettings::of(settings, events),
            tasks: Vec::new(),
            cgroups: BTreeMap::new(),
            numbers: Numbers::default(),
            _alone: alone,
        }
    }

    /// See [`STATE`].
    pub fn state(&self) -> [u64; STATE] {
        native::state()
    }

    /// See [`CPU`].
    pub fn cpu(&self, cpu: Cpu) -> [u64; CPU] {
        native::cpu(cpu)
    }

    /// See [`TASK`].
    pub fn task(&self, task: Thread) -> [u64; TASK] {
        native::task(&self.tasks[task.index()])
    }

    /// See [`SLOT`].
    pub fn slot(&self, slot: u32) -> [u64; SLOT] {
        native::slot(slot)
    }

    /// The cgroup of a task, or one of its own that has no cpu controller.
    fn cgroup_of(&self, linux: &Linux, task: Thread) -> u64 {
        let known = self.cgroups.get(&linux.task(task).cgroup_id);
        known.map_or_else(|| self.tasks[task.index()].cgroup(), |cgroup| cgroup.address())
    }

    fn with_cgroup(&mut self, linux: &mut Linux, id: u64, what: impl FnOnce(u64)) {
        let address = self.cgroups.get(&id).map(|cgroup| cgroup.address());
        if let Some(address) = address {
            self.call(linux, |_| what(address));
        }
    }

    /// `qm_view`, as words.
    pub fn view(&self) -> Vec<u64> {
        native::view()
    }

    fn call<R>(&mut self, linux: &mut Linux, what: impl FnOnce(&mut Self) -> R) -> R {
        for (task, _) in linux.threads() {
            self.tasks[task.index()].follow(linux, task);
        }
        let tasks: *mut Vec<Native> = &raw mut self.tasks;
        native::with(linux, tasks, || what(self))
    }

    fn pointer(&mut self, task: Thread) -> u64 {
        std::ptr::from_mut(&mut self.tasks[task.index()]) as u64
    }

    fn op(&mut self, linux: &mut Linux, task: Thread, op: native::Op, rest: u64) -> i64 {
        self.call(linux, |core| {
            let p = core.pointer(task);
            native::call(op, [p, rest, 0, 0])
        })
    }
}

impl Core for Compiled {
    fn init(&mut self, linux: &mut Linux) {
        self.settings.set_nr_cpus(linux.nr_cpus());
        let settings = self.settings;
        let topology = linux.topology().clone();
        self.call(linux, |_| {
            native::reset(&settings);
            for cpu in topology.known().iter() {
                let core: Vec<Cpu> = topology.domain(cpu, Level::Core).iter().collect();
                let sibling = core.iter().find(|other| **other > cpu).unwrap_or(&core[0]);
                let lowest = topology.domain(cpu, Level::L3).first().unwrap_or(cpu);
                native::place(cpu, lowest, *sibling);
            }
        });
    }

    fn init_task(&mut self, linux: &mut Linux, task: Thread, parent: Option<Thread>) {
        while self.tasks.len() <= task.index() {
            self.tasks.push(Native::default());
        }
        self.tasks[task.index()] = Native::default();
        let cgroup = self.cgroup_of(linux, task);
        self.call(linux, |core| {
            let p = core.pointer(task);
            native::init_task(p, parent.is_some(), cgroup);
        });
    }

    fn enable(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_enable, 0);
    }

    fn disable(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_disable, 0);
    }

    fn exit_task(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_exit_task, 0);
    }

    fn select_cpu(&mut self, linux: &mut Linux, task: Thread, prev: Cpu, flags: u64) -> Cpu {
        let cpu = self.call(linux, |core| {
            let p = core.pointer(task);
            native::call(native::qumun_pick_cpu, [p, u64::from(prev.0), flags, 0])
        });
        Cpu(cpu as u32)
    }

    fn enqueue(&mut self, linux: &mut Linux, task: Thread, flags: u64) {
        self.op(linux, task, native::qumun_enqueue, flags);
    }

    fn dispatch(&mut self, linux: &mut Linux, cpu: Cpu, prev: Option<Thread>) {
        self.call(linux, |core| {
            let prev = prev.map_or(0, |prev| core.pointer(prev));
            native::call(native::qumun_dispatch, [u64::from(cpu.0), prev, 0, 0])
        });
    }

    fn running(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_running, 0);
    }

    fn stopping(&mut self, linux: &mut Linux, task: Thread, runnable: bool) {
        self.op(linux, task, native::qumun_stopping, u64::from(runnable));
    }

    fn tick(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_tick, 0);
    }

    fn update_idle(&mut self, linux: &mut Linux, cpu: Cpu, idle: bool) {
        self.call(linux, |_| {
            native::call(native::qumun_update_idle, [u64::from(cpu.0), u64::from(idle), 0, 0])
        });
    }

    fn set_weight(&mut self, linux: &mut Linux, task: Thread) {
        let weight = u64::from(linux.task(task).weight);
        self.op(linux, task, native::qumun_set_weight, weight);
    }

    fn set_cpumask(&mut self, linux: &mut Linux, task: Thread) {
        self.op(linux, task, native::qumun_set_cpumask, 0);
    }

    fn cgroup_init(&mut self, linux: &mut Linux, id: u64) {
        let Some(&of) = linux.cgroup(id) else { return };
        let parent = self.cgroups.get(&of.parent).map(|parent| &**parent);
        let cgroup = Cgroup::new(id, parent);
        self.cgroups.insert(id, cgroup);
        self.with_cgroup(linux, id, |cgroup| native::cgroup_init(cgroup, of.weight, of.limit));
    }

    fn cgroup_exit(&mut self, linux: &mut Linux, id: u64) {
        self.with_cgroup(linux, id, native::cgroup_exit);
        self.cgroups.remove(&id);
    }

    fn cgroup_set_weight(&mut self, linux: &mut Linux, id: u64) {
        let weight = linux.cgroup(id).map_or(0, |cgroup| u64::from(cgroup.weight));
        self.with_cgroup(linux, id, |cgroup| {
            native::call(native::qumun_cgroup_set_weight, [cgroup, weight, 0, 0]);
        });
    }

    fn cgroup_set_bandwidth(&mut self, linux: &mut Linux, id: u64) {
        let limit = linux.cgroup(id).map(|cgroup| cgroup.limit).unwrap_or_default();
        self.with_cgroup(linux, id, |cgroup| native::cgroup_limit(cgroup, limit));
    }

    fn cgroup_move(&mut self, linux: &mut Linux, task: Thread) {
        let to = self.cgroup_of(linux, task);
        self.call(linux, |core| {
            let p = core.pointer(task);
            native::call(native::qumun_cgroup_move, [p, 0, to, 0])
        });
    }

    fn cpu_leaves(&mut self, linux: &mut Linux, cpu: Cpu) {
        // Downwards: the target lies below the step.
        self.call(linux, |_| native::hotplug(cpu));
    }

    fn cpu_offline(&mut self, linux: &mut Linux, cpu: Cpu) {
        self.call(linux, |_| native::call(native::qumun_cpu_offline, [u64::from(cpu.0), 0, 0, 0]));
    }

    fn cpu_online(&mut self, linux: &mut Linux, cpu: Cpu) {
        self.call(linux, |_| native::call(native::qumun_cpu_online, [u64::from(cpu.0), 0, 0, 0]));
    }

    fn timer(&mut self, linux: &mut Linux) {
        self.call(linux, |_| native::timer());
    }

    fn alarm(&mut self, linux: &mut Linux) {
        self.call(linux, |_| native::alarm());
    }

    fn hello(&mut self, linux: &mut Linux, pid: Pid, tgid: Pid) -> Epoch {
        self.call(linux, |_| native::hello(pid, tgid))
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        native::acknowledge(epoch);
    }

    fn set_kernel_mode(&mut self, linux: &mut Linux, on: bool) -> bool {
        self.call(linux, |_| native::set_kernel_mode(on))
    }

    fn wake(&mut self, linux: &mut Linux, cpus: CpuSet) -> u32 {
        self.call(linux, |_| native::wake(cpus))
    }

    fn set_rules(&mut self, linux: &Linux, rules: &Rules) {
        native::set_rules(&rules.raw(&mut self.numbers, linux.nr_cpus()));
    }

    fn revoke(&mut self, pid: Option<Pid>) {
        native::revoke(pid);
    }

    fn mark(&self, pid: Pid) -> u32 {
        native::mark(pid)
    }

    fn subscribe(&mut self, _: Events) {
        // Fixed at load.
    }

    fn set_label(&mut self, linux: &mut Linux, task: Thread, label: u64) -> bool {
        let pid = linux.task(task).pid;
        self.call(linux, |_| native::set_label(pid, label))
    }

    fn epoch(&self) -> Epoch {
        native::epoch()
    }

    fn idle(&self) -> CpuSet {
        native::idle()
    }

    fn counters(&self) -> Counters {
        native::counters()
    }
}
