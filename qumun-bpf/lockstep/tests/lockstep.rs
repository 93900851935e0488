//! The C core and its specification do the same, on random histories.
//!
//! A history is a seed: the machine, the settings, and some dozen steps of everything that may happen to a core. After
//! each step all that either side knows is compared, queues, rings and requests to the kernel included. A failure names
//! the seed and the step; `LOCKSTEP_SEED=N` runs that history alone and prints its steps, `LOCKSTEP_HISTORIES=N` sets
//! how many there are.

use qumun::sim::{
    Core, Counters, Host, Limit, Linux, Place, RawDecision, Reference, Sabotage, Settings, Spec, Task, Thread,
};
use qumun::{Cpu, CpuSet, Epoch, Event, Events, Nanos, Pid, Rule, Rules, TaskId, Topology, Whom};
use qumun_lockstep::Compiled;

/// In a build that is not optimized, a few are enough to see that the test itself is right.
const HISTORIES: u64 = if cfg!(debug_assertions) { 2_000 } else { 120_000 };
const TASKS: usize = 9;

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn of<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

/// Rules for these tasks, and for some of their kind.
fn rules(number: u64, tasks: impl Iterator<Item = Task>) -> Rules {
    let mut random = Random(number);
    let mut rules = Rules::new().floor(random.of(&[0, 50, 200, 1_000]));
    let mut names = std::collections::BTreeSet::new();
    for (key, task) in tasks.enumerate() {
        let whom = match random.below(6) {
            0 => Whom::Label(random.below(3)),
            1 => Whom::Thread(task.pid, task.born.as_u64() / 10_000_000),
            2 => Whom::Process(task.tgid, task.process_born.as_u64() / 10_000_000),
            3 => Whom::Cgroup(task.cgroup_id),
            _ => Whom::Comm(task.comm),
        };
        let burst = Nanos(random.of(&[1, 1_000_000, 20_000_000]));
        let rule = Rule::new(key as u64 + random.below(2) * 10)
            .slice(Nanos(random.of(&[0, 1, 2_000_000, 1 << 40])))
            .at_most(random.of(&[0, 0, 1, 1_000]))
            .ahead(random.of(&[0, 1, 5, 11]))
            .saving(random.of(&[0, 0, 50, 100]))
            .tokens(random.of(&[1, 200, 1_000_000]), burst);
        let rule = if random.one_in(3) { rule.for_each() } else { rule };
        let rule = if random.one_in(6) { rule.until(Nanos(1)) } else { rule };
        rules = rules.with(rule, names.insert(whom).then_some(whom));
    }
    rules
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Spawn {
        weight: u32,
        cpus: u64,
        kthread: bool,
        comm: &'static str,
        cgroup: u64,
    },
    Fork(usize),
    Wake(usize, Option<usize>),
    Sleep(u32),
    Schedule(u32),
    Preempt(u32),
    Tick(u32, u64),
    Timer(u32),
    Alarm(u32),
    Kicks,
    Advance(u64),
    Affinity(usize, u64),
    Weight(usize, u32),
    Cgroup(usize, u64),
    MakeCgroup(u64, u64, u32),
    RemoveCgroup(u64),
    CgroupWeight(u64, u32),
    CgroupLimit(u64, Limit),
    Label(usize, u64),
    Exit(usize),
    /// The end of a task that the kernel has not taken out of its queue: it never does that.
    LateExit(usize),
    Offline(u32),
    Online(u32),
    /// The agent greets: as a task of this machine, or as nobody's.
    Hello(usize),
    Acknowledge(u64),
    /// The agent reads so many events.
    Read(usize),
    /// It answers what it heard so many events ago, with something changed.
    Decide {
        back: usize,
        change: u8,
        number: u64,
        cpu: i32,
    },
    Publish,
    /// It reads all there is and answers each event, all but every so many well.
    Answer {
        wrong: u64,
        number: u64,
    },
    /// An agent comes, if there is none, and keeps its word for long enough.
    Agree,
    /// The agent is a task of this machine, and more wake up than slices are cut for it. Some time later the alarm goes off.
    Crowd {
        agent: usize,
        wait: u64,
        cpu: u32,
    },
    LateInserts(bool),
    InKernel(bool),
    RingBusy(bool),
    Revoke(usize, bool),
    /// Sleeps, and wakes up at once: what a permit is for.
    Nap(u32),
    KernelMode(bool),
    /// Rules for some of the tasks, all from this number.
    Rules(u64),
    Settle,
    /// An agent greets on the CPU that it is to have for itself, and keeps its word.
    Dedicate(usize),
    /// The agent wakes those of these CPUs that are idle.
    WakeCpus(u64),
}

fn step(random: &mut Random, nr_cpus: u32) -> Step {
    let cpu = |random: &mut Random| random.below(u64::from(nr_cpus)) as u32;
    let task = |random: &mut Random| random.below(TASKS as u64) as usize;
    let mask = |random: &mut Random| match random.below(3) {
        0 => u64::MAX,
        1 => 1 << random.below(u64::from(nr_cpus)),
        _ => random.next(),
    };
    let cgroup = |random: &mut Random| random.below(9);
    match random.below(160) {
        0..7 => Step::Spawn {
            weight: random.of(&[1, 50, 100, 100, 300, 10_000]),
            cpus: mask(random),
            kthread: random.one_in(5),
            comm: random.of(&["task", "worker", "kswapd0", "kcompactd0", "khugepaged"]),
            cgroup: cgroup(random),
        },
        7..9 => Step::Fork(task(random)),
        9..24 => Step::Wake(task(random), random.one_in(2).then(|| task(random))),
        24..28 => Step::Sleep(cpu(random)),
        28..44 => Step::Schedule(cpu(random)),
        44..48 => Step::Preempt(cpu(random)),
        48..53 => Step::Tick(cpu(random), random.of(&[0, 1_000_000, 5_000_000])),
        53..56 => Step::Timer(cpu(random)),
        56..60 => Step::Kicks,
        60..68 => Step::Advance(random.of(&[
            1,
            1_000,
            700_000,
            4_000_000,
            11_000_000,
            45_000_000,
            600_000_000,
            2_100_000_000,
        ])),
        68..71 => Step::Affinity(task(random), mask(random)),
        71..72 => Step::Weight(task(random), random.of(&[1, 100, 10_000])),
        72..73 => Step::Cgroup(task(random), cgroup(random)),
        73..74 => Step::Label(task(random), random.next() >> random.of(&[0, 62])),
        74..75 => Step::Exit(task(random)),
        75..76 => Step::LateExit(task(random)),
        76..77 => Step::Offline(cpu(random)),
        77..79 => Step::Online(cpu(random)),
        79..80 => Step::Hello(task(random)),
        80..84 => Step::Acknowledge(random.of(&[0, 0, 0, 1])),
        84..88 => Step::Read(random.below(5) as usize),
        88..95 => Step::Decide {
            back: random.below(4) as usize,
            change: random.below(12) as u8,
            number: random.next() >> random.below(64),
            cpu: random.below(u64::from(nr_cpus) + 4) as i32 - 2,
        },
        95..96 => Step::Publish,
        96..98 => Step::LateInserts(random.one_in(2)),
        98..99 => Step::Settle,
        99..104 => Step::Agree,
        104..107 => Step::MakeCgroup(cgroup(random), cgroup(random), random.of(&[1, 100, 10_000])),
        107..108 => Step::RemoveCgroup(cgroup(random)),
        108..109 => Step::CgroupWeight(cgroup(random), random.of(&[1, 100, 10_000])),
        109..113 => Step::CgroupLimit(cgroup(random), limit(random)),
        113..116 => Step::Cgroup(task(random), cgroup(random)),
        116..118 => Step::InKernel(random.one_in(3)),
        118..120 => Step::RingBusy(random.one_in(3)),
        120..122 => Step::Revoke(task(random), random.one_in(4)),
        122..134 => Step::Nap(random.below(u64::from(nr_cpus)) as u32),
        134..136 => Step::KernelMode(random.one_in(4)),
        150..154 => Step::Rules(random.next()),
        136..140 => Step::Dedicate(task(random)),
        140..143 => Step::WakeCpus(mask(random)),
        154..158 => Step::Alarm(cpu(random)),
        158..160 => Step::Crowd {
            agent: task(random),
            wait: random.of(&[0, 100_000, 1_000_000, 10_000_000]),
            cpu: cpu(random),
        },
        _ => Step::Answer { wrong: random.of(&[2, 5, 1000]), number: random.next() },
    }
}

/// Of a part of a CPU, of several; of periods shorter than a tick and longer than anybody may wait; none; and nonsense.
fn limit(random: &mut Random) -> Limit {
    let mut limit = Limit::NONE;
    if !random.one_in(4) {
        limit.quota_us = random.of(&[1, 1_000, 1_000, 20_000, 150_000, 10_000_000, u64::MAX / 2_000]);
        limit.period_us = random.of(&[0, 1_000, 10_000, 100_000, 1_000_000, u64::MAX / 3]);
        limit.burst_us = random.of(&[0, 0, 5_000, u64::MAX / 5]);
    }
    limit
}

struct World {
    settings: Settings,
    events: Events,
    topology: Topology,
    event_room: usize,
    decision_room: usize,
    /// There from the start: id, parent, limit.
    cgroups: Vec<(u64, u64, Limit)>,
}

impl World {
    fn new(random: &mut Random) -> Self {
        let mut settings = Settings::default();
        settings.builtin_idle = random.one_in(4);
        settings.keep_local = random.one_in(4);
        settings.early_kthreads = random.one_in(4);
        settings.limits = !random.one_in(4);
        settings.shared = random.one_in(2);
        settings.preempt = random.of(&[1_000_000, 1_000_000, 1_000_000_000]);
        settings.preempt_after = random.of(&[0, 1, 200_000, 5_000_000]);
        settings.max_run = random.of(&[0, 50_000_000, 500_000_000]);
        let dedicated = random.one_in(2).then(|| Cpu(random.below(2) as u32));
        let topology = match random.below(4) {
            0 => Topology::flat(1),
            1 => Topology::flat(2),
            2 => Topology::flat(5),
            _ => {
                Topology::synthetic().packages(1).l3s(2).cores(2).threads(2).build().expect("a small machine")
            }
        };
        // With the shared arrays only, and never the only CPU: half of a half, and more below.
        if topology.nr_cpus() > 1 && dedicated.is_some() {
            (settings.shared, settings.dedicated) = (true, dedicated);
        }
        Self {
            settings,
            events: if random.one_in(2) { Events::NONE } else { Events::ALL },
            topology,
            event_room: random.of(&[1, 3, 64]),
            decision_room: random.of(&[2, 200]),
            cgroups: match random.one_in(2) {
                true => (2..7).map(|id| (id, 1 + random.below(id - 1), limit(random))).collect(),
                false => Vec::new(),
            },
        }
    }

    fn linux(&self) -> Linux {
        Linux::new(self.topology.clone(), self.event_room, self.decision_room)
    }

    fn host<C: Core>(&self, core: C) -> Host<C> {
        let mut host = Host::new(self.linux(), core);
        host.core.subscribe(self.events);
        for &(id, parent, limit) in &self.cgroups {
            host.make_cgroup(id, parent, 100);
            host.set_cgroup_limit(id, limit);
        }
        for cpu in (0..host.linux.nr_cpus()).map(Cpu) {
            host.core.update_idle(&mut host.linux, cpu, true);
        }
        host
    }
}

/// One side of a history. What a step refers to is found on each side anew: if the two differ there, they have differed
/// before.
struct Side<C> {
    host: Host<C>,
    /// The CPU that the agent is to have for itself.
    own: Option<Cpu>,
    heard: Vec<TaskId>,
}

impl<C: Core> Side<C> {
    fn task(&self, n: usize) -> Option<Thread> {
        let all: Vec<_> = self.host.linux.threads().map(|(task, _)| task).collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn step(&mut self, step: Step) -> Option<u64> {
        let host = &mut self.host;
        match step {
            Step::Spawn { weight, cpus, kthread, comm, cgroup } => {
                if host.linux.threads().count() < TASKS {
                    let mut set = CpuSet::EMPTY;
                    set.set_word(0, cpus);
                    let spec = Spec { weight, kthread, comm, cgroup_id: cgroup, ..Spec::default() };
                    let task = host.spawn(&spec, set, None);
                    host.wake(task, None);
                }
            }
            Step::Fork(n) => {
                let parent = self.task(n)?;
                let host = &mut self.host;
                if host.linux.threads().count() < TASKS {
                    let cgroup_id = host.linux.task(parent).cgroup_id;
                    host.spawn(&Spec { cgroup_id, ..Spec::default() }, CpuSet::ALL, Some(parent));
                }
            }
            Step::Wake(n, by) => {
                let (task, by) = (self.task(n)?, by.and_then(|by| self.task(by)));
                self.host.wake(task, by);
            }
            Step::Sleep(cpu) => drop(host.sleep(Cpu(cpu))),
            Step::Schedule(cpu) => return host.schedule(Cpu(cpu)).map(|task| task.index() as u64),
            Step::Preempt(cpu) => {
                let task = host.linux.running(Cpu(cpu))?;
                host.linux.set_slice(task, 0);
            }
            Step::Tick(cpu, left) => return Some(u64::from(host.tick(Cpu(cpu), left))),
            Step::Timer(cpu) => host.timer(Cpu(cpu)),
            Step::Alarm(cpu) => return Some(host.alarm(Cpu(cpu)).into()),
            Step::Kicks => {
                let mut wanted = Vec::new();
                host.take_kicks(|cpu| wanted.push(cpu));
                for cpu in wanted {
                    host.schedule(cpu);
                }
            }
            Step::Advance(ns) => {
                let now = host.linux.now();
                host.set_now(Nanos(now + ns));
            }
            Step::Affinity(n, cpus) => {
                let task = self.task(n)?;
                let mut set = CpuSet::EMPTY;
                set.set_word(0, cpus);
                self.host.set_affinity(task, set & CpuSet::first_n(self.host.linux.nr_cpus()));
            }
            Step::Weight(n, weight) => {
                let task = self.task(n)?;
                self.host.set_weight(task, weight);
            }
            Step::Cgroup(n, id) => {
                let task = self.task(n)?;
                self.host.set_cgroup(task, id);
            }
            Step::MakeCgroup(id, parent, weight) => return Some(host.make_cgroup(id, parent, weight).into()),
            Step::RemoveCgroup(id) => return Some(host.remove_cgroup(id).into()),
            Step::CgroupWeight(id, weight) => return Some(host.set_cgroup_weight(id, weight).into()),
            Step::CgroupLimit(id, limit) => return Some(host.set_cgroup_limit(id, limit).into()),
            Step::Label(n, label) => {
                let task = self.task(n)?;
                let Host { linux, core, .. } = &mut self.host;
                core.set_label(linux, task, label);
            }
            Step::Exit(n) => {
                let task = self.task(n)?;
                self.host.exit(task);
            }
            Step::LateExit(n) => {
                let task = self.task(n)?;
                let Host { linux, core, .. } = &mut self.host;
                core.exit_task(linux, task);
                self.host.exit(task);
            }
            Step::Offline(cpu) => {
                if host.linux.online().len() > 1 && host.linux.online().contains(Cpu(cpu)) {
                    host.offline(Cpu(cpu));
                }
            }
            Step::Online(cpu) => {
                if !host.linux.online().contains(Cpu(cpu)) {
                    host.online(Cpu(cpu));
                }
            }
            Step::Hello(n) => {
                let pid = match self.task(n) {
                    Some(task) if n.is_multiple_of(2) => self.host.linux.task(task).pid,
                    _ => Pid(1),
                };
                let cpu = Cpu(n as u32 % self.host.linux.nr_cpus());
                return Some(self.host.hello(cpu, pid, pid).0);
            }
            Step::Dedicate(n) => {
                let (task, own) = (self.task(n)?, self.own?);
                let host = &mut self.host;
                if !host.linux.online().contains(own) {
                    return None;
                }
                let mut here = CpuSet::EMPTY;
                here.insert(own);
                host.set_affinity(task, here);
                host.wake(task, None);
                let pid = host.linux.task(task).pid;
                host.hello(own, pid, pid);
                self.agree();
                // The latch is up. What runs there gives way at the next clock interrupt.
                self.host.tick(own, 0);
                return self.host.schedule(own).map(|task| task.index() as u64);
            }
            Step::WakeCpus(cpus) => {
                let mut set = CpuSet::EMPTY;
                set.set_word(0, cpus);
                let own = self.own.unwrap_or_default();
                return Some(
                    self.host.wake_cpus(own, set & CpuSet::first_n(self.host.linux.nr_cpus())).into(),
                );
            }
            Step::Acknowledge(off) => {
                let epoch = Epoch(host.core.epoch().0.wrapping_sub(off));
                host.core.acknowledge(epoch);
            }
            Step::Read(n) => {
                for _ in 0..n {
                    if let Some(Event::Queued(task)) = host.receive() {
                        self.heard.push(task.id);
                    }
                }
            }
            Step::Decide { back, change, number, cpu } => {
                let id = self.heard.iter().rev().nth(back).copied().unwrap_or_default();
                let mut raw =
                    RawDecision { pid: id.pid.0, generation: id.generation.0, cpu, ..Default::default() };
                match change {
                    0 => raw.pid = number as i32,
                    1 => raw.generation = number,
                    2 => raw.flags = number as u32,
                    3 => raw.cpu = number as i32,
                    4 => raw.slice = number,
                    5 => raw.vtime = number,
                    6..9 => raw.cpu = -1,
                    _ => {}
                }
                host.linux.write_decision(raw);
            }
            Step::Publish => host.linux.publish(),
            Step::Answer { wrong, number } => {
                while let Some(event) = host.receive() {
                    let Event::Queued(task) = event else { continue };
                    self.heard.push(task.id);
                    let mixed = Random(number ^ task.id.generation.0).next();
                    let any = mixed & 1 == 0 || mixed.is_multiple_of(wrong);
                    let cpu = (mixed >> 8) as i32 & 7;
                    host.linux.write_decision(RawDecision {
                        pid: task.id.pid.0,
                        generation: task.id.generation.0,
                        cpu: if any { -1 } else { cpu % host.linux.nr_cpus() as i32 },
                        flags: u32::from(mixed % wrong == 1) | ((mixed >> 16) as u32 & 3) << 16,
                        slice: mixed >> 40,
                        vtime: (mixed >> 20 & 0xff) << (mixed >> 28 & 31),
                        permit: if mixed & 2 == 2 { mixed as u32 >> 12 & 7 } else { 0 },
                        permit_ns: mixed >> 33,
                        rate: mixed as u32 >> 20,
                        mark: host.core.mark(task.id.pid) + u32::from(mixed.is_multiple_of(wrong)),
                    });
                }
                host.linux.publish();
            }
            Step::Agree => {
                let Host { linux, core, .. } = &mut *host;
                if linux.now() & 1 == 0 {
                    core.hello(linux, Pid(1), Pid(1));
                }
                self.agree();
            }
            Step::Crowd { agent, wait, cpu } => {
                let agent = self.task(agent)?;
                let Host { linux, core, .. } = &mut self.host;
                if linux.nr_cpus() > 2 || linux.threads().count() >= TASKS {
                    return None;
                }
                let pid = linux.task(agent).pid;
                core.hello(linux, pid, pid);
                self.agree();
                let host = &mut self.host;
                host.wake(agent, None);
                for n in 0..host.linux.nr_cpus() + 5 {
                    let task = host.spawn(&Spec::default(), CpuSet::ALL, None);
                    host.wake(task, None);
                    if n < host.linux.nr_cpus() && host.linux.running(Cpu(n)).is_none() {
                        host.schedule(Cpu(n));
                    }
                    // Its turn is over, and it wants another one.
                    if let Place::Running(at) = host.linux.task(agent).place {
                        host.linux.set_slice(agent, 0);
                        host.schedule(at);
                    }
                }
                let now = host.linux.now();
                host.set_now(Nanos(now + wait));
                return Some(host.alarm(Cpu(cpu)).into());
            }
            Step::LateInserts(late) => {
                host.settle();
                host.late_inserts = late;
            }
            Step::InKernel(is) => host.linux.in_kernel = is,
            Step::RingBusy(is) => host.linux.ring_busy = is,
            Step::KernelMode(on) => {
                let Host { linux, core, .. } = host;
                return Some(core.set_kernel_mode(linux, on).into());
            }
            Step::Rules(number) => {
                let tasks: Vec<_> = (0..3).filter_map(|n| self.task(n + number as usize % 7)).collect();
                let rules = rules(number, tasks.iter().map(|task| self.host.linux.task(*task)).cloned());
                let Host { linux, core, .. } = &mut self.host;
                core.set_rules(linux, &rules);
            }
            Step::Nap(cpu) => {
                host.schedule(Cpu(cpu));
                if let Some(task) = host.sleep(Cpu(cpu)) {
                    host.wake(task, None);
                }
            }
            Step::Revoke(n, all) => {
                let pid = self.task(n).map(|task| self.host.linux.task(task).pid);
                self.host.core.revoke(pid.filter(|_| !all));
            }
            Step::Settle => host.settle(),
        }
        None
    }

    /// The agent keeps its word: what was parked before comes out, and the dwell passes.
    fn agree(&mut self) {
        let host = &mut self.host;
        host.core.acknowledge(host.core.epoch());
        for _ in 0..3 {
            for cpu in (0..host.linux.nr_cpus()).map(Cpu) {
                host.schedule(cpu);
            }
            let now = host.linux.now();
            host.set_now(Nanos(now + 70_000_001));
            host.timer(Cpu(0));
        }
    }

    /// What the kernel sees, in words.
    fn seen(&self) -> String {
        use std::fmt::Write;
        let linux = &self.host.linux;
        let mut text = String::new();
        for (task, t) in linux.threads() {
            let _ = write!(
                text,
                "{} at {:?} slice {} vtime {} cpu {} runs {} total {}; ",
                task.index(),
                t.place,
                t.slice,
                if t.place == Place::Asleep { 0 } else { t.vtime },
                t.cpu,
                t.runs,
                t.total
            );
        }
        let _ = write!(
            text,
            "\nkicks {:?} alarm {:?} idle {} decisions {} ejected {:?}\nevents {:?}",
            linux.kicks(),
            linux.alarm(),
            linux.idle(),
            linux.decisions_left(),
            linux.ejected(),
            linux.events().collect::<Vec<_>>()
        );
        text
    }
}

/// What is reached at all, over all histories.
#[derive(Default)]
struct Reached {
    counters: Vec<u64>,
    ejected: u64,
    normal: u64,
    /// Steps in which the agent has a CPU for itself, and the histories of machines where it may.
    dedicated: u64,
    own: u64,
    steps: u64,
}

fn totals(c: &Counters) -> Vec<u64> {
    vec![
        c.ev_sent,
        c.ev_dispatched,
        c.ev_bounced,
        c.ev_cancelled,
        c.ev_dead,
        c.ev_taken_over,
        c.dec_drained,
        c.dec_applied,
        c.dec_bounced,
        c.dec_stale,
        c.dec_refused,
        c.congested,
        c.kernel_direct,
        c.core_enqueued,
        c.exit_dropped,
        c.notes_sent,
        c.notes_dropped,
        c.runs,
        c.rescued,
        c.kicks,
        c.preempts,
        c.activations,
        c.kept,
        c.retried,
        c.idle_bypass,
        c.overruns,
        c.inherited,
        c.throttled,
        c.throttled_ns,
        c.limit_overruns,
        c.permitted,
        c.kernel_mode,
        c.resumed,
        c.ahead,
    ]
}

fn history(seed: u64, how: Sabotage, show: bool, reached: &mut Reached) -> Result<(), String> {
    let mut random = Random(seed);
    let world = World::new(&mut random);
    let own = world.settings.dedicated;
    let mut model = Side {
        host: world.host(Reference::new(world.settings.clone()).sabotaged(how)),
        own,
        heard: Vec::new(),
    };
    let mut real =
        Side { host: world.host(Compiled::new(&world.settings, world.events)), own, heard: Vec::new() };
    let nr_cpus = model.host.linux.nr_cpus();
    let steps = 20 + random.below(80);
    for n in 0..steps {
        let step = step(&mut random, nr_cpus);
        if show {
            println!("{n}: {step:?}");
        }
        let (a, b) = (model.step(step), real.step(step));
        same(&model, &real, a, b).map_err(|what| format!("seed {seed}, step {n}, {step:?}: {what}"))?;
        if let Some(why) = model.host.linux.ejected() {
            return Err(format!("seed {seed}, step {n}, {step:?}: both were removed: {why}"));
        }
        let view = model.host.core.view_words(&model.host.linux);
        reached.normal += view[16];
        reached.dedicated += u64::from(view[16] == 1 && view[view.len() - 17] != 0);
    }
    let totals = totals(&model.host.core.counters());
    reached.counters.resize(totals.len(), 0);
    reached.counters.iter_mut().zip(totals).for_each(|(sum, one)| *sum += one);
    reached.steps += steps;
    reached.own += u64::from(own.is_some());
    Ok(())
}

fn same(
    model: &Side<Reference>,
    real: &Side<Compiled>,
    a: Option<u64>,
    b: Option<u64>,
) -> Result<(), String> {
    fn equal<T: PartialEq + std::fmt::Debug>(what: &str, model: T, real: T) -> Result<(), String> {
        if model == real {
            Ok(())
        } else {
            Err(format!("{what}\n  specification: {model:?}\n  C core:        {real:?}"))
        }
    }
    let (spec, c) = (&model.host.core, &real.host.core);
    equal("what the step returned", a, b)?;
    equal("what the kernel sees", model.seen(), real.seen())?;
    equal("counters", spec.counters(), c.counters())?;
    equal("view", spec.view_words(&model.host.linux), c.view())?;
    equal("core_state", spec.state_words(), c.state().to_vec())?;
    for cpu in (0..model.host.linux.nr_cpus()).map(Cpu) {
        equal("cpu_ctx", spec.cpu_words(cpu), c.cpu(cpu).to_vec())?;
    }
    for (slot, row) in (0..).zip(spec.cgroup_words(12)) {
        equal("a cgroup", row, c.slot(slot))?;
    }
    for (task, _) in model.host.linux.threads() {
        equal("task_ctx", spec.task_words(task), c.task(task).to_vec())?;
    }
    Ok(())
}

#[test]
fn the_core_does_what_the_specification_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let mut reached = Reached::default();
    if let Some(seed) = number("LOCKSTEP_SEED") {
        history(seed, Sabotage::None, true, &mut reached).unwrap_or_else(|what| panic!("{what}"));
        return;
    }
    let histories = number("LOCKSTEP_HISTORIES").unwrap_or(HISTORIES);
    for seed in 0..histories {
        history(seed, Sabotage::None, false, &mut reached).unwrap_or_else(|what| panic!("{what}"));
    }
    println!(
        "{histories} histories, {} steps, {} of them normal, {} with a CPU for the agent: {:?}",
        reached.steps, reached.normal, reached.dedicated, reached.counters
    );
    // Without this the two could agree on nothing.
    assert!(reached.counters.iter().all(|&n| n > 0), "a counter never moved: {:?}", reached.counters);
    assert!(reached.normal > reached.steps / 20 && reached.ejected == 0);
    assert!(reached.own > histories / 4, "{} histories with a CPU for the agent", reached.own);
    assert!(reached.dedicated > reached.steps / 40, "and {} such steps", reached.dedicated);
}

/// Whatever rule the specification breaks, the C core is seen to keep it.
#[test]
fn a_difference_is_noticed() {
    for how in [
        Sabotage::KeepGeneration,
        Sabotage::IgnoreAffinity,
        Sabotage::LoseWhenFull,
        Sabotage::StaleEndsEvent,
        Sabotage::NeverLate,
        Sabotage::LeaveParked,
        Sabotage::NoAgentShare,
        Sabotage::SendDegraded,
        Sabotage::NoCharge,
        Sabotage::HoldForEver,
        Sabotage::DeafAlarm,
    ] {
        let found = (0..5_000).find(|&seed| history(seed, how, false, &mut Reached::default()).is_err());
        assert!(found.is_some(), "{how:?} was not noticed");
    }
}
