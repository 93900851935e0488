//! Both directions across the language border. The layouts here are those of `native/linux.h` and `wire.h`.

use std::cell::RefCell;

use qumun::sim::{Counters, Dsq, Iter, Limit, Linux, RawDecision, Settings as RefSettings, Thread};
use qumun::{
    Affinity, Cpu, CpuSet, Epoch, Event, Events, Generation, Nanos, Note, Pid, Queued, RawRule, RawRules,
    TaskId,
};
use qumun_bpf::rules::{Content, publish};
use qumun_bpf::wire;

const STORAGE: usize = 256;
const VIEW_WORDS: usize = 16 + 41 + 16;
const PF_KTHREAD: u32 = 0x0020_0000;
const TASK_QUEUED: u32 = 1;

/// `struct task_struct` of linux.h.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Native {
    flags: u32,
    prio: i32,
    pid: i32,
    tgid: i32,
    nr_cpus_allowed: i32,
    thread: u32,
    cpus_ptr: *const u64,
    cgroups: *const *const Cgroup,
    scx_flags: u32,
    weight: u32,
    slice: u64,
    dsq_vtime: u64,
    tid: u64,
    storage: [u64; STORAGE / 8],
    mask: u64,
    css: *const Cgroup,
    cgroup: Cgroup,
    has_storage: u32,
    state: u32,
    migration_disabled: u16,
    comm: [u8; 16],
    born: u64,
    process_born: u64,
}

impl Default for Native {
    fn default() -> Self {
        Self {
            flags: 0,
            prio: 120,
            pid: 0,
            tgid: 0,
            nr_cpus_allowed: 0,
            thread: 0,
            cpus_ptr: std::ptr::null(),
            cgroups: std::ptr::null(),
            scx_flags: 0,
            weight: 0,
            slice: 0,
            dsq_vtime: 0,
            tid: 0,
            storage: [0; STORAGE / 8],
            mask: 0,
            css: std::ptr::null(),
            cgroup: Cgroup::default(),
            has_storage: 0,
            state: 0,
            migration_disabled: 0,
            comm: [0; 16],
            born: 0,
            process_born: 0,
        }
    }
}

impl Native {
    /// What the kernel knows of a task, where C looks for it.
    pub(crate) fn follow(&mut self, linux: &Linux, task: Thread) {
        let t = linux.task(task);
        self.flags = if t.kthread { PF_KTHREAD } else { 0 };
        (self.pid, self.tgid) = (t.pid.0, t.tgid.0);
        self.nr_cpus_allowed = t.nr_allowed() as i32;
        self.thread = task.index() as u32;
        self.mask = linux.affinity(task).low();
        self.scx_flags = if t.runnable { TASK_QUEUED } else { 0 };
        (self.weight, self.slice, self.dsq_vtime) = (t.weight, t.slice, t.vtime);
        self.comm = t.comm;
        (self.born, self.process_born) = (t.born.as_u64(), t.process_born.as_u64());
        self.cgroup.follow(t.cgroup_id);
        // TASK_UNINTERRUPTIBLE, TASK_INTERRUPTIBLE; only asked of a task that goes to sleep.
        self.state = if linux.in_kernel { 2 } else { 1 };
        self.css = &raw const self.cgroup;
        self.cgroups = &raw const self.css;
        self.cpus_ptr = &raw const self.mask;
    }

    /// The address of a `struct cgroup` of its own, for one that has no cpu controller.
    pub(crate) fn cgroup(&self) -> u64 {
        &raw const self.cgroup as u64
    }
}

/// `struct cgroup` of linux.h.
#[derive(Debug)]
#[repr(C)]
pub(crate) struct Cgroup {
    kn: *const u64,
    level: i32,
    has_storage: u32,
    parent: *const Cgroup,
    storage: u64,
    node: u64,
}

impl Default for Cgroup {
    fn default() -> Self {
        let (kn, parent) = (std::ptr::null(), std::ptr::null());
        Self { kn, level: 0, has_storage: 0, parent, storage: 0, node: 0 }
    }
}

impl Cgroup {
    /// Where it is now, under its id.
    fn follow(&mut self, id: u64) {
        self.node = id;
        self.kn = &raw const self.node;
    }

    /// One in its own place, below another.
    pub(crate) fn new(id: u64, parent: Option<&Cgroup>) -> Box<Self> {
        let mut cgroup = Box::new(Self::default());
        cgroup.follow(id);
        if let Some(parent) = parent {
            (cgroup.parent, cgroup.level) = (parent, parent.level + 1);
        }
        cgroup
    }

    pub(crate) fn address(&self) -> u64 {
        std::ptr::from_ref(self) as u64
    }
}

/// `struct qm_config`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub(crate) struct Settings {
    slice: u64,
    slice_min: u64,
    slice_max: u64,
    late: u64,
    preempt: u64,
    max_run: u64,
    heartbeat: u64,
    preempt_after: u64,
    nr_cpu_ids: u32,
    debug: u32,
    options: u32,
    events: u32,
    dedicated: u32,
    reserved: u32,
}

impl Settings {
    pub(crate) fn of(s: &RefSettings, events: Events) -> Self {
        let options =
            u32::from(s.builtin_idle) | u32::from(s.keep_local) << 1 | u32::from(s.early_kthreads) << 2;
        let options = options | u32::from(!s.limits) << 3 | u32::from(s.shared) << 4;
        Self {
            slice: s.slice,
            slice_min: s.slice_min,
            slice_max: s.slice_max,
            late: s.late,
            preempt: s.preempt,
            max_run: s.max_run,
            heartbeat: s.heartbeat,
            preempt_after: s.preempt_after,
            nr_cpu_ids: 1,
            debug: 0,
            options,
            events: events.bits(),
            dedicated: s.dedicated.map_or(0, |cpu| cpu.0 + 1),
            reserved: 0,
        }
    }

    pub(crate) fn set_nr_cpus(&mut self, nr: u32) {
        self.nr_cpu_ids = nr;
    }
}

/// `struct qm_event`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct WireEvent {
    enqueued_at: u64,
    generation: u64,
    cgroup_id: u64,
    enq_flags: u64,
    started_at: u64,
    stopped_at: u64,
    exec_runtime: u64,
    vtime: u64,
    allowed: u64,
    label: u64,
    tid: u64,
    cpu_cgroup_id: u64,
    born: u64,
    process_born: u64,
    ran: u64,
    slept: u64,
    pid: i32,
    tgid: i32,
    cpu: i32,
    waker: i32,
    weight: u32,
    nr_cpus_allowed: u32,
    epoch: u32,
    flags: u32,
    kind: u32,
    cgroup_weight: u32,
    permitted: u32,
    reserved: u32,
    comm: [u8; 16],
}

impl WireEvent {
    fn decode(&self, nr_cpus: u32) -> Event {
        let task = TaskId { pid: Pid(self.pid), generation: Generation(self.generation) };
        let allowed = Affinity::new(self.allowed, self.nr_cpus_allowed, nr_cpus);
        match self.kind {
            1 => {
                let mut event = Queued::new(task);
                event.tgid = Pid(self.tgid);
                event.cpu = Cpu(self.cpu as u32);
                event.waker = (self.waker != 0).then_some(Pid(self.waker));
                event.cgroup_id = self.cgroup_id;
                event.cpu_cgroup_id = self.cpu_cgroup_id;
                event.cgroup_weight = self.cgroup_weight;
                event.label = self.label;
                event.tid = self.tid;
                (event.born, event.process_born) = (Nanos(self.born), Nanos(self.process_born));
                event.weight = self.weight;
                event.sampled = self.flags & 1 != 0;
                event.wakeup = self.flags & 2 != 0;
                event.kthread = self.flags & 4 != 0;
                event.enqueued_at = Nanos(self.enqueued_at);
                event.started_at = Nanos(self.started_at);
                event.stopped_at = Nanos(self.stopped_at);
                event.exec_runtime = Nanos(self.exec_runtime);
                (event.ran, event.slept) = (Nanos(self.ran), Nanos(self.slept));
                event.permitted = self.permitted;
                event.vtime = self.vtime;
                event.allowed = allowed;
                event.enq_flags = self.enq_flags;
                event.comm_bytes = self.comm;
                Event::Queued(event)
            }
            2 => Event::Exit(task),
            3 => Event::Note(Note::Fork {
                task,
                tgid: Pid(self.tgid),
                parent: Pid(self.waker),
                label: self.label,
            }),
            4 => Event::Note(Note::Affinity { task, allowed }),
            5 => Event::Note(Note::Weight { task, weight: self.weight }),
            6 => Event::Note(Note::Moved { task, cgroup_id: self.cpu_cgroup_id }),
            kind => panic!("the C core sent an event of kind {kind}"),
        }
    }
}

/// `struct qm_decision`.
#[repr(C)]
struct WireDecision {
    generation: u64,
    slice: u64,
    vtime: u64,
    seen_at: u64,
    decided_at: u64,
    permit_ns: u64,
    pid: i32,
    cpu: i32,
    flags: u32,
    permit: u32,
    rate: u32,
    mark: u32,
}

impl WireDecision {
    fn of(d: &RawDecision) -> Self {
        let RawDecision { pid, generation, cpu, flags, slice, vtime, permit, permit_ns, rate, mark } = *d;
        let (seen_at, decided_at) = (0, 0);
        Self { generation, slice, vtime, seen_at, decided_at, permit_ns, pid, cpu, flags, permit, rate, mark }
    }
}

pub(crate) type Op = unsafe extern "C" fn(*mut u64) -> i64;

#[repr(C)]
struct Hello {
    epoch: u32,
    dedicated: u32,
}

#[derive(Default)]
#[repr(C)]
struct TaskArgs {
    pid: i32,
    set: u32,
    label: u64,
    slice: u64,
    generation: u64,
    state: u64,
    tid: u64,
    vtime: u64,
}

unsafe extern "C" {
    fn native_begin(unread: u64, room: u64, decisions: *const WireDecision, written: u64, published: u64);
    fn native_event_array() -> *mut wire::EventArray;
    fn native_decision_array() -> *mut wire::DecisionArray;
    fn native_arrays(room: u64);
    fn native_take(cpu: u32, n: u32) -> i64;
    fn native_send(number: i32) -> bool;
    fn native_batch(cpu: u32) -> *const WireDecision;
    fn native_place(cpu: u32, lowest: u32, sibling: u32);
    pub(crate) fn qumun_enable(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_disable(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_exit_task(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_pick_cpu(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_enqueue(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_dispatch(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_running(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_stopping(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_tick(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_update_idle(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_set_weight(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_set_cpumask(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_cgroup_move(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_cgroup_set_weight(ctx: *mut u64) -> i64;
    fn native_cgroup_init(ctx: *mut u64) -> i32;
    fn native_cgroup_exit(ctx: *mut u64) -> i32;
    fn native_cgroup_limit(ctx: *mut u64) -> i32;
    fn native_slot(slot: u32, out: *mut u64);
    pub(crate) fn qumun_cpu_offline(ctx: *mut u64) -> i64;
    pub(crate) fn qumun_cpu_online(ctx: *mut u64) -> i64;
    fn native_init_task(ctx: *mut u64) -> i32;
    fn native_hotplug(ctx: *mut u64) -> i32;
    fn native_hello(args: *mut Hello, pid: i32, tgid: i32) -> i32;
    fn native_set(args: *mut TaskArgs) -> i32;
    fn native_reset(settings: *const Settings);
    fn native_timer();
    fn native_alarm();
    fn native_ack(epoch: u64);
    fn native_kernel_mode(on: bool) -> bool;
    fn native_rules() -> *mut wire::Rules;
    fn native_wake(low: u64) -> u32;
    fn native_revoke(pid: i32, all: bool);
    fn native_mark(pid: i32) -> u32;
    fn native_view() -> *const u64;
    fn native_counters(cpu: u32) -> *const u64;
    fn native_state(out: *mut u64);
    fn native_cpu(cpu: u32, out: *mut u64);
    fn native_task(task: *const Native, out: *mut u64);
}

/// The kernel of the call that lasts.
struct Now {
    linux: *mut Linux,
    tasks: *mut Vec<Native>,
    iters: Vec<Option<Iter>>,
}

thread_local! {
    static NOW: RefCell<Option<Now>> = const { RefCell::new(None) };
}

/// Lets C call the kernel while `what` lasts.
pub(crate) fn with<R>(linux: &mut Linux, tasks: *mut Vec<Native>, what: impl FnOnce() -> R) -> R {
    let before = begin(linux);
    NOW.set(Some(Now { linux, tasks, iters: Vec::new() }));
    let result = what();
    NOW.set(None);
    end(linux, before);
    result
}

/// Positions in the shared arrays, the core's.
fn positions() -> (u64, u64) {
    // SAFETY: C's own, which nobody else uses now.
    let array = unsafe { native_event_array() };
    // SAFETY: as above.
    unsafe { ((*array).sent, (*array).taken) }
}

/// What is in the rings of `linux`, in the shared arrays. Where C uses the ring buffers nobody looks there.
fn begin(linux: &Linux) -> (u64, u64) {
    // No call takes more than a batch.
    let decisions: Vec<_> = linux.published().take(64).map(WireDecision::of).collect();
    let (unread, room) = (linux.pending_events() as u64, linux.event_room() as u64);
    let (written, published) = (decisions.len() as u64, linux.published().len() as u64);
    // SAFETY: so many decisions are there.
    unsafe { native_begin(unread, room, decisions.as_ptr(), written, published) };
    positions()
}

/// What C has put into the shared arrays, and taken from there.
fn end(linux: &mut Linux, (sent, taken): (u64, u64)) {
    let (now_sent, now_taken) = positions();
    for at in sent..now_sent {
        let index = at as usize % wire::EVENT_SLOTS;
        // SAFETY: as in `positions`, and in bounds.
        let slot = unsafe { &raw const (*native_event_array()).slots[index] };
        // SAFETY: as above.
        let (event, written) = unsafe { (slot.cast::<WireEvent>().read(), (*slot).written) };
        assert_eq!(written, at / wire::EVENT_SLOTS as u64 + 1, "slot {index} was written so often");
        linux.push_event(event.decode(linux.nr_cpus()));
    }
    for _ in taken..now_taken {
        linux.next_decision().expect("C took what was not there");
    }
}

fn now<R>(what: impl FnOnce(&mut Now, &mut Linux) -> R) -> R {
    NOW.with_borrow_mut(|now| {
        let now = now.as_mut().expect("C calls the kernel only within a call of ours");
        // SAFETY: `with` holds the only reference for as long as NOW is set, and hands it to nobody else; no function
        // below calls back into C.
        let linux = unsafe { &mut *now.linux };
        what(now, linux)
    })
}

fn native(now: &Now, task: Thread) -> *mut Native {
    // SAFETY: the vector outlives the call (`with`), and nobody changes it meanwhile.
    let tasks = unsafe { &mut *now.tasks };
    &raw mut tasks[task.index()]
}

fn thread(task: *const Native) -> Thread {
    // SAFETY: C gives back only pointers that it got from here.
    Thread::at(unsafe { (*task).thread } as usize)
}

/// What a call has changed is seen by C at once.
fn follow(now: &Now, linux: &Linux, task: Thread) {
    // SAFETY: as in `native`; nobody else has a reference now.
    unsafe { &mut *native(now, task) }.follow(linux, task);
}

fn dsq(id: u64, linux: &Linux) -> Dsq {
    let cpu = Cpu(id as u32 & 0xffff);
    match id {
        0x8000_0000_0000_0001 => Dsq::Global,
        0x8000_0000_0000_0002 => Dsq::Local(linux.this_cpu()),
        0x10000 => Dsq::Park,
        0x10001 => Dsq::Shared,
        0x10002 => Dsq::Core,
        0x10003 => Dsq::Agent,
        _ if id >> 62 == 3 => Dsq::Local(cpu),
        _ if id >> 16 == 2 => Dsq::Pinned(cpu),
        _ if id >> 16 == 3 => Dsq::Placed(cpu),
        _ if id >> 16 == 4 => Dsq::Throttled(id as u32 & 0xffff),
        _ => panic!("the C core names a queue {id:#x}"),
    }
}

macro_rules! exports {
    ($($(#[$doc:meta])* fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $($(#[$doc])*
        #[unsafe(no_mangle)]
        extern "C" fn $name($($arg: $type),*) $(-> $ret)? $body)*
    };
}

exports! {
    fn rust_now() -> u64 {
        now(|_, linux| linux.now())
    }
    fn rust_this_cpu() -> u32 {
        now(|_, linux| linux.this_cpu().0)
    }
    fn rust_current() -> *mut Native {
        now(|now, linux| linux.current().map_or(std::ptr::null_mut(), |task| native(now, task)))
    }
    fn rust_find(pid: i32) -> *mut Native {
        now(|now, linux| linux.find(Pid(pid)).map_or(std::ptr::null_mut(), |task| native(now, task)))
    }
    fn rust_task_cpu(p: *const Native) -> i32 {
        now(|_, linux| linux.task(thread(p)).cpu.0 as i32)
    }
    fn rust_nr_queued(id: u64) -> i32 {
        now(|_, linux| linux.nr_queued(dsq(id, linux)) as i32)
    }
    fn rust_kick(cpu: i32, flags: u64) {
        now(|_, linux| linux.kick(Cpu(cpu as u32), flags));
    }
    fn rust_alarm(after: u64) {
        now(|_, linux| linux.set_alarm(after));
    }
    fn rust_claim_idle(cpu: i32) -> bool {
        now(|_, linux| linux.claim_idle(Cpu(cpu as u32)))
    }
    fn rust_pick_idle(p: *const Native) -> i32 {
        now(|_, linux| linux.pick_idle(thread(p)).map_or(-1, |cpu| cpu.0 as i32))
    }
    fn rust_claim_near(p: *const Native, prev: i32) -> i32 {
        now(|_, linux| linux.claim_near(thread(p), Cpu(prev as u32)).map_or(-1, |cpu| cpu.0 as i32))
    }
    fn rust_insert(p: *const Native, id: u64, slice: u64, vtime: u64, first: bool) {
        now(|_, linux| {
            let task = thread(p);
            // In dispatch "local" is that of the CPU, here that of the task.
            let to = if id == 0x8000_0000_0000_0002 { Dsq::Own } else { dsq(id, linux) };
            if first {
                assert_eq!(to, Dsq::Own, "first of another queue");
                return linux.insert_first(task, slice);
            }
            linux.insert(task, to, slice, vtime);
        });
    }
    fn rust_to_local(id: u64) -> bool {
        now(|_, linux| linux.move_to_local(dsq(id, linux)))
    }
    fn rust_iter_new(id: u64, reverse: bool) -> u64 {
        now(|now, linux| {
            now.iters.push(Some(linux.iter(dsq(id, linux), reverse)));
            now.iters.len() as u64 - 1
        })
    }
    fn rust_iter_next(slot: u64) -> *mut Native {
        now(|now, linux| {
            let iter = now.iters[slot as usize].as_mut().expect("the walk was destroyed");
            let next = linux.next(iter);
            next.map_or(std::ptr::null_mut(), |task| {
                follow(now, linux, task);
                native(now, task)
            })
        })
    }
    fn rust_iter_destroy(slot: u64) {
        now(|now, _| now.iters[slot as usize] = None);
    }
    fn rust_move(slot: u64, p: *const Native, id: u64, slice: u64, vtime: u64) -> bool {
        now(|now, linux| {
            let iter = now.iters[slot as usize].expect("the walk was destroyed");
            linux.move_task(&iter, thread(p), dsq(id, linux), slice, vtime)
        })
    }
    fn rust_set_slice(p: *const Native, slice: u64) {
        now(|_, linux| linux.set_slice(thread(p), slice));
    }
    fn rust_event_room() -> bool {
        now(|_, linux| linux.has_event_room())
    }
    fn rust_push_event(event: *const WireEvent) {
        now(|_, linux| {
            // SAFETY: C wrote a whole record into its buffer.
            let event = unsafe { *event }.decode(linux.nr_cpus());
            linux.push_event(event);
        });
    }
    fn rust_pending_events() -> u64 {
        now(|_, linux| linux.pending_events() as u64)
    }
    fn rust_next_decision(record: *mut WireDecision) -> bool {
        now(|_, linux| {
            let Some(d) = linux.next_decision() else { return false };
            // SAFETY: C has room for 128 bytes there.
            unsafe { record.write(WireDecision::of(&d)) };
            true
        })
    }
    fn rust_ring_busy() -> bool {
        // Threads that use the arrays only have no kernel.
        NOW.with_borrow(Option::is_some) && now(|_, linux| linux.ring_busy)
    }

    fn rust_in_kernel() -> bool {
        now(|_, linux| linux.in_kernel)
    }
    fn rust_online(mask: *mut u64) {
        now(|_, linux| {
            // SAFETY: C has a word there.
            unsafe { mask.write(linux.online().words()[0]) };
        });
    }
}

pub(crate) fn call(op: Op, mut ctx: [u64; 4]) -> i64 {
    // SAFETY: an operation of the core with the arguments it takes, within `with`.
    unsafe { op(ctx.as_mut_ptr()) }
}

pub(crate) fn init_task(task: u64, fork: bool, cgroup: u64) {
    let args = [u64::from(fork), cgroup];
    let mut ctx = [task, &raw const args as u64];
    // SAFETY: as in `call`; the second argument points to a struct of a bool, in the lowest byte of a word here, and a
    // pointer.
    let error = unsafe { native_init_task(ctx.as_mut_ptr()) };
    assert_eq!(error, 0, "init_task failed");
}

/// `struct scx_cgroup_init_args`.
#[repr(C)]
struct CgroupArgs {
    weight: u32,
    period_us: u64,
    quota_us: u64,
    burst_us: u64,
}

/// What the kernel says for no limit.
fn quota(limit: Limit) -> u64 {
    if limit.quota_us == 0 { u64::MAX } else { limit.quota_us }
}

pub(crate) fn cgroup_init(cgroup: u64, weight: u32, limit: Limit) {
    let Limit { period_us, burst_us, .. } = limit;
    let args = CgroupArgs { weight, period_us, quota_us: quota(limit), burst_us };
    let mut ctx = [cgroup, &raw const args as u64];
    // SAFETY: as in `call`.
    let error = unsafe { native_cgroup_init(ctx.as_mut_ptr()) };
    assert_eq!(error, 0, "cgroup_init failed");
}

pub(crate) fn cgroup_exit(cgroup: u64) {
    // SAFETY: as in `call`.
    unsafe { native_cgroup_exit([cgroup].as_mut_ptr()) };
}

pub(crate) fn cgroup_limit(cgroup: u64, limit: Limit) {
    let mut ctx = [cgroup, limit.period_us, quota(limit), limit.burst_us];
    // SAFETY: as in `call`.
    unsafe { native_cgroup_limit(ctx.as_mut_ptr()) };
}

pub(crate) fn slot(slot: u32) -> [u64; super::SLOT] {
    let mut out = [0; super::SLOT];
    // SAFETY: C writes so many words.
    unsafe { native_slot(slot, out.as_mut_ptr()) };
    out
}

pub(crate) fn hotplug(cpu: Cpu) {
    let mut ctx = [u64::from(cpu.0), 0, 1];
    // SAFETY: as in `call`.
    unsafe { native_hotplug(ctx.as_mut_ptr()) };
}

pub(crate) fn hello(pid: Pid, tgid: Pid) -> Epoch {
    let mut args = Hello { epoch: 0, dedicated: 0 };
    // SAFETY: as in `call`.
    unsafe { native_hello(&raw mut args, pid.0, tgid.0) };
    Epoch(u64::from(args.epoch))
}

pub(crate) fn set_label(pid: Pid, label: u64) -> bool {
    let mut args = TaskArgs { pid: pid.0, set: 1, label, ..TaskArgs::default() };
    // SAFETY: as in `call`.
    unsafe { native_set(&raw mut args) == 0 }
}

pub(crate) fn reset(settings: &Settings) {
    // SAFETY: the layout is that of struct qm_config; within `with`.
    unsafe { native_reset(settings) };
}

/// Where a CPU is: the lowest one under its cache, and the next thread of its core.
pub(crate) fn place(cpu: Cpu, lowest: Cpu, sibling: Cpu) {
    assert!([cpu, lowest, sibling].iter().all(|cpu| cpu.0 < 64), "the histories have small machines");
    // SAFETY: within `with`, and there is room for so many.
    unsafe { native_place(cpu.0, lowest.0, sibling.0) };
}

pub(crate) fn timer() {
    // SAFETY: within `with`.
    unsafe { native_timer() };
}

pub(crate) fn alarm() {
    // SAFETY: within `with`.
    unsafe { native_alarm() };
}

pub(crate) fn set_kernel_mode(on: bool) -> bool {
    // SAFETY: as in `call`.
    unsafe { native_kernel_mode(on) }
}

pub(crate) fn set_rules(raw: &RawRules) {
    let rules = raw.rules.iter().map(|(&number, rule)| {
        let RawRule { key, until, slice, window, price, weight, saves, rank, each } = *rule;
        let (until_ns, slice_ns, window_ns, flags) = (until, slice, window, u32::from(each));
        let reserved = 0;
        (
            number,
            wire::Rule { key, until_ns, slice_ns, window_ns, price, weight, saves, rank, flags, reserved },
        )
    });
    let targets = raw.targets.iter().map(|(whom, number)| {
        let (kind, a, b) = whom.words();
        wire::Target { a, b, kind, rule: number + 1 }
    });
    let content = Content {
        floor_window_ns: raw.floor_window,
        floor_price: raw.floor_price,
        rules: rules.collect(),
        targets: targets.collect(),
    };
    // SAFETY: C's own, which nobody else uses now.
    unsafe { publish(native_rules(), &content) }.expect("the histories have few rules");
}

/// The histories have small machines.
pub(crate) fn wake(cpus: CpuSet) -> u32 {
    // SAFETY: within `with`; a plain number.
    unsafe { native_wake(cpus.words()[0]) }
}

pub(crate) fn revoke(pid: Option<Pid>) {
    // SAFETY: plain numbers.
    unsafe { native_revoke(pid.unwrap_or_default().0, pid.is_none()) };
}

pub(crate) fn mark(pid: Pid) -> u32 {
    // SAFETY: a plain number.
    unsafe { native_mark(pid.0) }
}

pub(crate) fn acknowledge(epoch: Epoch) {
    // SAFETY: writes a number.
    unsafe { native_ack(epoch.0) };
}

pub(crate) fn view() -> Vec<u64> {
    // SAFETY: the view is so long, and nobody writes it between calls.
    unsafe { std::slice::from_raw_parts(native_view(), VIEW_WORDS) }.to_vec()
}

pub(crate) fn epoch() -> Epoch {
    Epoch(view()[17])
}

pub(crate) fn idle() -> CpuSet {
    let mut set = CpuSet::EMPTY;
    view()[..16].iter().enumerate().for_each(|(index, &word)| set.set_word(index, word));
    set
}

pub(crate) fn state() -> [u64; super::STATE] {
    let mut out = [0; super::STATE];
    // SAFETY: C writes so many words.
    unsafe { native_state(out.as_mut_ptr()) };
    out
}

pub(crate) fn cpu(cpu: Cpu) -> [u64; super::CPU] {
    let mut out = [0; super::CPU];
    // SAFETY: C writes so many words.
    unsafe { native_cpu(cpu.0, out.as_mut_ptr()) };
    out
}

pub(crate) fn task(task: &Native) -> [u64; super::TASK] {
    let mut out = [0; super::TASK];
    // SAFETY: C writes so many words and only reads the task.
    unsafe { native_task(task, out.as_mut_ptr()) };
    out
}

/// The counters of 64 CPUs together.
pub(crate) fn counters() -> Counters {
    let mut sum = [0u64; 37];
    let mut parked = 0;
    for cpu in 0..64 {
        // SAFETY: a block of counters is so long.
        let block = unsafe { std::slice::from_raw_parts(native_counters(cpu), 37) };
        sum.iter_mut().zip(block).for_each(|(sum, one)| *sum += one);
        parked = parked.max(block[23]);
    }
    let mut c = Counters::default();
    [
        (&mut c.ev_sent, 0),
        (&mut c.ev_dispatched, 1),
        (&mut c.ev_bounced, 2),
        (&mut c.ev_cancelled, 3),
        (&mut c.ev_dead, 4),
        (&mut c.ev_taken_over, 5),
        (&mut c.dec_drained, 6),
        (&mut c.dec_applied, 7),
        (&mut c.dec_bounced, 8),
        (&mut c.dec_stale, 9),
        (&mut c.dec_refused, 10),
        (&mut c.congested, 12),
        (&mut c.kernel_direct, 13),
        (&mut c.core_enqueued, 14),
        (&mut c.exit_dropped, 15),
        (&mut c.kicks, 16),
        (&mut c.preempts, 17),
        (&mut c.activations, 18),
        (&mut c.runs, 19),
        (&mut c.kept, 20),
        (&mut c.retried, 21),
        (&mut c.idle_bypass, 24),
        (&mut c.overruns, 25),
        (&mut c.notes_sent, 26),
        (&mut c.notes_dropped, 27),
        (&mut c.inherited, 28),
        (&mut c.throttled, 30),
        (&mut c.throttled_ns, 31),
        (&mut c.limit_overruns, 32),
        (&mut c.permitted, 33),
        (&mut c.kernel_mode, 34),
        (&mut c.resumed, 35),
        (&mut c.ahead, 36),
    ]
    .into_iter()
    .for_each(|(to, at)| *to = sum[at]);
    c.max_parked_ns = parked;
    c.rescued = view()[33];
    c
}

/// The shared arrays, empty, with room for so many events.
pub(crate) fn arrays(room: u64) -> (*mut wire::EventArray, *mut wire::DecisionArray) {
    // SAFETY: no history runs, and no thread uses the arrays.
    unsafe { native_arrays(room) };
    // SAFETY: as above.
    unsafe { (native_event_array(), native_decision_array()) }
}

pub(crate) fn send(number: i32) -> bool {
    // SAFETY: as threads of the core do; after `arrays`.
    unsafe { native_send(number) }
}

pub(crate) fn take(cpu: u32, n: u32) -> i64 {
    assert!(cpu < 64, "the tests have small machines");
    // SAFETY: as above; one thread for each CPU.
    unsafe { native_take(cpu, n) }
}

pub(crate) fn batch(cpu: u32) -> *const wire::Decision {
    // SAFETY: as above.
    unsafe { native_batch(cpu) }.cast()
}
