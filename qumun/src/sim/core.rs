//! What a core is to the kernel: the operations that it is called by.

use super::linux::{Linux, Thread};
use super::values::Counters;
use crate::{Cpu, CpuSet, Epoch, Events, Pid, Rules};

/// A task slept before this enqueue (`SCX_ENQ_WAKEUP`).
pub const ENQ_WAKEUP: u64 = 1;
/// Nothing else is there to run on its CPU (`SCX_ENQ_LAST`).
pub const ENQ_LAST: u64 = 1 << 41;
/// Wake the CPU only if it is idle (`SCX_KICK_IDLE`).
pub const KICK_IDLE: u64 = 1;
/// End the slice of what runs there (`SCX_KICK_PREEMPT`).
pub const KICK_PREEMPT: u64 = 2;

/// The operations of a scheduler's kernel side (`struct sched_ext_ops`), its timer, and what user space may ask of
/// it. The [reference](super::Reference) implements them, and so does, in our tests, the C core compiled for the
/// host: the two must do the same.
///
/// [`Linux::this_cpu`] says which CPU a call is made on.
pub trait Core {
    /// The scheduler is loaded; no task was shown yet.
    fn init(&mut self, linux: &mut Linux);
    /// A task came under its care: made by another one, or there before.
    fn init_task(&mut self, linux: &mut Linux, task: Thread, parent: Option<Thread>);
    /// A task may be scheduled from now on.
    fn enable(&mut self, linux: &mut Linux, task: Thread);
    /// A task will not be scheduled any more.
    fn disable(&mut self, linux: &mut Linux, task: Thread);
    /// A task is gone.
    fn exit_task(&mut self, linux: &mut Linux, task: Thread);
    /// Which CPU a task that wakes up is queued on.
    fn select_cpu(&mut self, linux: &mut Linux, task: Thread, prev: Cpu, flags: u64) -> Cpu;
    /// A task wants to run.
    fn enqueue(&mut self, linux: &mut Linux, task: Thread, flags: u64);
    /// A CPU wants work. `prev` has no slice left and wants to go on.
    fn dispatch(&mut self, linux: &mut Linux, cpu: Cpu, prev: Option<Thread>);
    /// A task is put on this CPU.
    fn running(&mut self, linux: &mut Linux, task: Thread);
    /// A task leaves this CPU.
    fn stopping(&mut self, linux: &mut Linux, task: Thread, runnable: bool);
    /// The clock interrupt of a CPU that runs this task.
    fn tick(&mut self, linux: &mut Linux, task: Thread);
    /// A CPU becomes idle, or busy again.
    fn update_idle(&mut self, linux: &mut Linux, cpu: Cpu, idle: bool);
    /// A task's weight has changed.
    fn set_weight(&mut self, linux: &mut Linux, task: Thread);
    /// Where a task may run has changed.
    fn set_cpumask(&mut self, linux: &mut Linux, task: Thread);
    /// A cgroup comes into being, or was there before; a parent before its children.
    fn cgroup_init(&mut self, linux: &mut Linux, id: u64);
    /// A cgroup without tasks and children ends.
    fn cgroup_exit(&mut self, linux: &mut Linux, id: u64);
    /// A cgroup's weight has changed.
    fn cgroup_set_weight(&mut self, linux: &mut Linux, id: u64);
    /// A cgroup's limit has changed.
    fn cgroup_set_bandwidth(&mut self, linux: &mut Linux, id: u64);
    /// A task was moved to another cgroup.
    fn cgroup_move(&mut self, linux: &mut Linux, task: Thread);
    /// The first step of a CPU's way offline.
    fn cpu_leaves(&mut self, linux: &mut Linux, cpu: Cpu);
    /// A CPU is offline.
    fn cpu_offline(&mut self, linux: &mut Linux, cpu: Cpu);
    /// A CPU is back.
    fn cpu_online(&mut self, linux: &mut Linux, cpu: Cpu);
    /// The core's own timer, every 10 ms.
    fn timer(&mut self, linux: &mut Linux);
    /// The time has passed that it asked for ([`Linux::set_alarm`]).
    fn alarm(&mut self, linux: &mut Linux);

    /// A new agent introduces itself: the epoch that it is to acknowledge.
    fn hello(&mut self, linux: &mut Linux, pid: Pid, tgid: Pid) -> Epoch;
    /// The epoch that the agent has acknowledged, as user space wrote it.
    fn acknowledge(&mut self, epoch: Epoch);
    /// The agent, which has a CPU for itself, wakes those of these CPUs that are idle. Returns how many were.
    fn wake(&mut self, linux: &mut Linux, cpus: CpuSet) -> u32;
    /// Lets the core decide alone, or asks the agent again. Returns whether it did before.
    fn set_kernel_mode(&mut self, linux: &mut Linux, on: bool) -> bool;
    /// What user space wants for tasks where the core decides by itself. They were [checked](Rules::check).
    fn set_rules(&mut self, linux: &Linux, rules: &Rules);
    /// The agent ends the permits of a task, or all of them.
    fn revoke(&mut self, pid: Option<Pid>);
    /// What a permit of a task has to carry now.
    fn mark(&self, pid: Pid) -> u32;
    /// What the policy subscribes to; fixed at load in a real core.
    fn subscribe(&mut self, events: Events);
    /// Sets what is kept for a task and its children to come. `false`: there is no such task.
    fn set_label(&mut self, linux: &mut Linux, task: Thread, label: u64) -> bool;

    /// The agreement of this moment.
    fn epoch(&self) -> Epoch;
    /// The CPUs that are idle in the core's own view.
    fn idle(&self) -> CpuSet;
    /// Its counters, all CPUs together.
    fn counters(&self) -> Counters;
}
