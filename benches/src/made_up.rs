//! Machines and tasks that do not exist.

use qumun::kernel::wire;
use qumun::{Cpu, Generation, Nanos, Pid, Queued, TaskId, Topology};

/// The machines on which CPU selection is measured, by name.
pub fn machines() -> Vec<(&'static str, Topology)> {
    let synthetic = Topology::synthetic;
    [
        ("1 CPU", synthetic()),
        ("SMT 8", synthetic().cores(4).threads(2)),
        ("two L3s", synthetic().l3s(2).cores(8).threads(2)),
        ("two nodes", synthetic().packages(2).l3s(2).cores(8).threads(2)),
        ("hybrid", synthetic().cores(6).threads(2).small_clusters(2).small_cores(4)),
        ("1024 CPUs", synthetic().packages(2).l3s(8).cores(32).threads(2)),
    ]
    .into_iter()
    .map(|(name, machine)| (name, machine.build().expect("a machine of 1 to 1,024 CPUs")))
    .collect()
}

/// The event that one of `tasks` tasks woke up on a machine of `cpus` CPUs.
pub fn queued(number: u64, tasks: u64, cpus: u32) -> Queued {
    let pid = Pid(1_000 + (number % tasks.max(1)) as i32);
    let mut task = Queued::new(TaskId { pid, generation: Generation(number + 1) });
    let now = 1_000_000_000 + number * 1_000;
    task.tgid = pid;
    task.cpu = Cpu((number % u64::from(cpus.max(1))) as u32);
    task.wakeup = true;
    task.enqueued_at = Nanos(now);
    task.started_at = Nanos(now - 900);
    task.stopped_at = Nanos(now - 500);
    task.exec_runtime = Nanos(400);
    task.vtime = now;
    task
}

/// A record as the core would send it.
pub fn wire_event(number: u64) -> wire::Event {
    wire::Event {
        enqueued_at: 1_000_000_000 + number,
        generation: number + 1,
        cgroup_id: 1,
        exec_runtime: 300_000,
        vtime: number,
        allowed: u64::MAX,
        pid: 1_000 + (number % 256) as i32,
        tgid: 1_000,
        weight: 100,
        nr_cpus_allowed: 64,
        epoch: 1,
        flags: wire::EVENT_WAKEUP,
        kind: wire::EVENT_QUEUED,
        cgroup_weight: 100,
        comm: *b"bench\0\0\0\0\0\0\0\0\0\0\0",
        ..wire::Event::default()
    }
}

/// Numbers that look random (Marsaglia's xorshift64).
pub fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}
