//! A loader whose first agent has a fault: `faulty storm|slow|stuck SECONDS`. The agent is a process of its own;
//! after SECONDS it is killed, and a sound one takes over for a while. Prints one JSON line for each of three
//! phases. The suites `storm`, `slow` and `stuck` watch.

use std::time::{Duration, Instant};

use lab_guest::sys;
use qumun::kernel::{Link, LoadedCore, Probe, Running, stats, wire};
use qumun::{Backend, Context, Event, Queued, Scheduler, Verdict};

/// Until a killed agent's successor decides: 2 s is the longest dwell.
const RECOVERY: Duration = Duration::from_secs(6);
/// The storm's agent gives room back when it has heard nothing for so long, that is, when the ring was full for so
/// long; the ring is full and free in turn.
const RELEASE: Duration = Duration::from_secs(1);
/// The storm goes on until so many enqueues have found the ring full, or for so long: how long it takes to fill a ring
/// is a question of the machine.
const CONGESTED: u64 = 2_000;
const FULL_LIMIT: Duration = Duration::from_secs(40);
/// A stuck agent answers so many events first.
const GOOD_EVENTS: u64 = 60;
/// CPU time of one slow decision.
const SLOWNESS: Duration = Duration::from_millis(1);

fn main() -> qumun::Result<()> {
    let mut args = std::env::args().skip(1);
    let fault = args.next().unwrap_or_default();
    let secs = args.next().and_then(|s| s.parse().ok()).unwrap_or(8);
    let running = qumun::builder(format!("gthulhu_{fault}")).load()?.attach()?;
    let bad = start(&running, |link| match fault.as_str() {
        "storm" => keep_room(link),
        "slow" => run(link, Slow),
        _ => run(link, Stuck { left: GOOD_EVENTS }),
    })?;
    std::thread::sleep(Duration::from_secs(secs));
    let patience = Instant::now() + FULL_LIMIT;
    while fault == "storm" && running.inner().totals().congested < CONGESTED && Instant::now() < patience {
        std::thread::sleep(Duration::from_millis(100));
    }
    report(&running, 1, cpu_time(bad));
    sys::reap(bad);

    let killed = Instant::now();
    let before = running.inner().totals().dec_applied;
    let good = start(&running, |link| run(link, Honest))?;
    while killed.elapsed() < RECOVERY {
        std::thread::sleep(Duration::from_millis(20));
        let core = running.inner();
        if core.view().mode == wire::NORMAL && core.totals().dec_applied > before + 10 {
            break;
        }
    }
    let took = killed.elapsed();
    report(&running, 2, took);
    sys::reap(good);
    let over = sys::now_ns();
    let (exit, core) = running.detach();
    line(&core, 3, took, over, exit.map(|e| (e.kind, e.reason + &e.message)));
    Ok(())
}

/// An agent in a process of its own. It may use what this one has, which has one thread and waits.
fn start(running: &Running, work: impl FnOnce(Link)) -> qumun::Result<i32> {
    let fds = running.agent_fds()?;
    let child = sys::fork(|| match Link::connect(fds) {
        Ok(link) => work(link),
        Err(error) => eprintln!("faulty: {error}"),
    });
    child.map_err(|what| qumun::Error::new(qumun::ErrorKind::Other, what))
}

fn run(link: Link, policy: impl Scheduler) {
    let exit = qumun::builder("faulty").agent(link, policy).run();
    eprintln!("faulty: the agent ended: {exit}");
}

/// First come, first served.
struct Honest;

impl Scheduler for Honest {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().into()
    }
}

/// The same, one millisecond later.
struct Slow;

impl Scheduler for Slow {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let start = sys::thread_cpu_ns();
        while sys::thread_cpu_ns() - start < SLOWNESS.as_nanos() as u64 {}
        task.anywhere().into()
    }
}

/// The same, until it does not come back.
struct Stuck {
    left: u64,
}

impl Scheduler for Stuck {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        if self.left == 0 {
            loop {
                std::hint::spin_loop();
            }
        }
        self.left -= 1;
        task.anywhere().into()
    }
}

/// Answers each event, but says only now and then that it has read them: the ring is full for the core, although
/// nothing in it is undecided.
fn keep_room(mut link: Link) {
    link.start();
    let mut agreed = None;
    let mut heard = Instant::now();
    loop {
        let epoch = link.epoch();
        if agreed != Some(epoch) {
            while link.receive().is_some() {}
            link.acknowledge(epoch);
            agreed = Some(epoch);
        }
        while let Some(event) = link.receive() {
            heard = Instant::now();
            let Event::Queued(task) = event else { continue };
            let decision = wire::Decision {
                generation: task.id.generation.0,
                pid: task.id.pid.0,
                cpu: wire::CPU_ANY,
                ..wire::Decision::default()
            };
            let _ = link.raw().decisions.push(&decision);
        }
        link.raw().decisions.publish();
        if heard.elapsed() > RELEASE {
            link.raw().events.release();
            heard = Instant::now();
        }
        std::thread::yield_now();
    }
}

/// What a process has had of a CPU: the first word of its schedstat.
fn cpu_time(pid: i32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    Duration::from_nanos(text.split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0))
}

/// `took` is the bad agent's CPU time at first, then the time until the good one decided.
fn report(running: &Running, phase: u32, took: Duration) {
    line(
        running.inner(),
        phase,
        took,
        sys::now_ns(),
        running.exited().map(|e| (e.kind, e.reason + &e.message)),
    );
}

/// `at` is the moment that the phase ended.
fn line(core: &LoadedCore, phase: u32, took: Duration, at: u64, exit: Option<(u32, String)>) {
    let (totals, view, probe) = (core.totals(), core.view(), Probe::here());
    let ledgers = stats::ledgers(&totals);
    let since = if view.degraded_since == 0 { 0 } else { sys::now_ns() - view.degraded_since };
    let counters: serde_json::Map<String, serde_json::Value> =
        stats::named(&totals).into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    let what = serde_json::json!({
        "phase": phase,
        "state": probe.state,
        "enable_seq": probe.enable_seq,
        "normal": view.mode == wire::NORMAL,
        "entered": view.entered.iter().sum::<u64>(),
        "left": view.left,
        "since_ms": since / 1_000_000,
        "late_ms": view.longest_late_ns / 1_000_000,
        "degraded_ms": view.degraded_ns / 1_000_000,
        "took_ms": took.as_millis() as u64,
        "at_ns": at,
        "outstanding": ledgers.events_outstanding,
        "open": ledgers.decisions_open,
        "exit": exit.map(|(kind, text)| format!("{kind} {text}")),
        "counters": counters,
    });
    println!("{what}");
}
