//! A machine for the tests.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gthulhu_discovery::{Labels, Names, PodInfo, PodUid, Result};
use gthulhu_monitor::{BUCKETS, Blame, Counts, Migrations};

use crate::cpus::Cpu;
use crate::place::Place;
use crate::sample::{Group, Sample, Thread, Threads};
use crate::scheduler::{Daemon, Decided, Leg, Scheduler};

const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";
const POD: &str = "/kubepods.slice/kubepods-burstable.slice/\
    kubepods-burstable-pod0a1b2c3d_1111_2222_3333_444455556666.slice";

/// Knows one pod.
#[derive(Debug)]
struct One;

impl Names for One {
    fn pod(&self, uid: &PodUid) -> Option<Arc<PodInfo>> {
        (uid.as_str() == UID).then(|| {
            Arc::new(PodInfo {
                uid: uid.clone(),
                namespace: "shop".into(),
                name: "cart-7d9c8b6f5-x2x7k".into(),
                labels: Labels::default(),
                node: None,
                containers: BTreeMap::new(),
            })
        })
    }

    fn pods(&self) -> Vec<Arc<PodInfo>> {
        Vec::new()
    }

    fn refresh(&mut self) -> Result<bool> {
        Ok(false)
    }

    fn generation(&self) -> u64 {
        0
    }
}

fn counts(run_ms: u64, wait_ms: u64, p99: usize, runs: u64) -> Counts {
    let mut counts = Counts {
        run_ns: run_ms * 1_000_000,
        ended_runs_ns: run_ms * 1_000_000,
        wakeup_wait_ns: wait_ms * 1_000_000,
        migrations: Migrations { core: runs / 50, l3: runs / 20, ..Migrations::default() },
        ..Counts::default()
    };
    for i in 0..BUCKETS {
        let near = |at: usize, n: u64| n >> i.abs_diff(at).min(63);
        counts.wakeup_waits[i] = near(p99 / 2, runs / 2);
        counts.preempted_waits[i] = near(p99, runs / 50);
        counts.blocked_runs[i] = near(p99 / 2 + 2, runs / 2);
        counts.preempted_runs[i] = near(p99, runs / 50);
    }
    counts
}

fn group(id: u64, path: &str, counts: Counts) -> Group {
    Group { id, path: Some(path.into()), place: Place::of(id, Some(path), &One), counts }
}

fn thread(tid: i32, comm: &str, group: u64, run_ms: u64, delay_ms: u64) -> Thread {
    Thread {
        tid,
        pid: tid / 10 * 10,
        start_ns: 5,
        comm: comm.into(),
        group,
        cpu: 1,
        running: run_ms > 500,
        run_ns: run_ms * 1_000_000,
        run_delay_ns: delay_ms * 1_000_000,
        throttled_ns: 0,
        voluntary: run_ms,
        involuntary: 3,
        migrations: delay_ms,
    }
}

/// Two CPUs, a pod of two containers, services and others; one second.
pub(crate) fn sample() -> Sample {
    let id = |letter: &str| letter.repeat(64);
    let mut throttled = counts(200, 40, 15, 900);
    throttled.throttled_ns = 700_000_000;
    let groups = vec![
        group(1, "/", counts(31, 2, 4, 2200)),
        group(20, &format!("{POD}/cri-containerd-{}.scope", id("a")), counts(740, 310, 17, 5200)),
        group(21, &format!("{POD}/cri-containerd-{}.scope", id("b")), throttled),
        group(30, "/system.slice/nginx.service", counts(455, 12, 9, 12_500)),
        group(
            31,
            "/system.slice/a-service-with-a-name-that-is-longer-than-a-line-is-wide@instance.service",
            counts(3, 1, 6, 40),
        ),
        group(32, "/user.slice/user-1000.slice/session-3.scope", counts(0, 0, 1, 2)),
        group(33, &format!("/system.slice/docker-{}.scope", id("c")), counts(120, 55, 20, 77)),
        group(34, "/made-by-hand", counts(60, 5, 11, 500)),
    ];
    let cpu = |cpu, user, system, irq| Cpu { cpu, user, system, irq, steal: 0.02 };
    Sample {
        at: SystemTime::UNIX_EPOCH + Duration::from_secs(45_296),
        host: "node-1".into(),
        kernel: "6.18.2".into(),
        cpus: vec![cpu(0, 0.55, 0.2, 0.05), cpu(1, 0.9, 0.05, 0.0)],
        elapsed: Duration::from_secs(1),
        groups,
        threads: Some(Threads {
            elapsed: Duration::from_secs(1),
            threads: vec![
                thread(1234, "java", 20, 640, 290),
                thread(1235, "GC Thread#0", 20, 100, 20),
                thread(77, "nginx", 30, 455, 12),
                thread(8, "rcu_preempt", 1, 1, 0),
            ],
        }),
        blames: vec![
            Blame { waited: 20, ran: 30, ns: 200_000_000, samples: 90 },
            Blame { waited: 20, ran: 21, ns: 70_000_000, samples: 30 },
            Blame { waited: 21, ran: 33, ns: 30_000_000, samples: 9 },
            Blame { waited: 20, ran: 99, ns: 9_000_000, samples: 1 },
            Blame { waited: 30, ran: 20, ns: 8_000_000, samples: 8 },
        ],
        scheduler: Scheduler { state: Some("disabled".into()), ops: None, daemon: Err("not running".into()) },
        warning: None,
        missed: 0,
        rows: (9, 256),
    }
}

/// The same with our daemon at work.
pub(crate) fn scheduled() -> Sample {
    let leg = |name: &str, p50_ns, p99_ns| Leg { name: name.into(), count: 12_345, p50_ns, p99_ns };
    let daemon = Daemon {
        mode: "normal".into(),
        reason: "start".into(),
        plugin: "gthulhu".into(),
        ops: "gthulhu".into(),
        version: "0.1.0".into(),
        transport: "rings".into(),
        uptime_ms: 12_000_000,
        agent: Some(4711),
        totals: Decided { by_agent: 1.25e6, permitted: 3.5e7, kernel_mode: 0.0, taken_over: 1812.0 },
        per_second: Some(Decided {
            by_agent: 1850.0,
            permitted: 12_400.0,
            kernel_mode: 0.0,
            taken_over: 0.4,
        }),
        takeovers: 3,
        degraded_ms: 412,
        legs: vec![
            leg("enqueued-seen", 8192, 65_536),
            leg("seen-decided", 1024, 4096),
            leg("decided-inserted", 4096, 32_768),
            leg("inserted-running", 16_384, 1_048_576),
            leg("enqueued-running", 32_768, 2_097_152),
        ],
        ..Daemon::default()
    };
    let scheduler =
        Scheduler { state: Some("enabled".into()), ops: Some("gthulhu".into()), daemon: Ok(daemon) };
    Sample { scheduler, ..sample() }
}

/// A machine of so many CPUs.
pub(crate) fn with_cpus(cpus: u32) -> Sample {
    let cpu = |cpu: u32| Cpu { cpu, user: f64::from(cpu * 37 % 101) / 100.0, ..Cpu::default() };
    Sample { cpus: (0..cpus).map(cpu).collect(), ..sample() }
}
