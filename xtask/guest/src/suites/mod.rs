//! What is promised, checked against a real kernel.

mod cgroups;
mod control;
mod drills;
mod eject;
mod fair;
mod faulty;
mod freeze;
mod hostile;
mod hotplug;
mod inputs;
mod kill;
mod limits;
mod local;
mod many;
mod memory;
mod mode;
mod options;
mod partial;
mod plugin;
mod record;
mod rt;
mod runtime;
mod scene;
mod smoke;
mod soak;
mod strategies;
mod stress;
mod switch;
mod sysrq;
mod top;

use crate::check::{Checks, ensure};
use crate::sched::{self, Daemon, OPS_PREFIX, Outcome, Scx, number};
use crate::{Result, sys};
use serde_json::Value;
use std::time::Duration;

/// What there is to check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Suite {
    /// Each plugin starts, decides and leaves
    Smoke,
    /// Each plugin, idle and under loads that fork, switch and change their CPUs
    Stress,
    /// Supervisor and agent stopped for a while on a busy machine
    Freeze,
    /// Agent and supervisor killed on a busy machine
    Kill,
    /// An agent that lies and breaks its ring
    Hostile,
    /// CPUs that go and come back
    Hotplug,
    /// What a person or a machine may do wrong
    Inputs,
    /// Forks and wakeups while the event ring is full
    Storm,
    /// A policy that takes a millisecond for each decision
    Slow,
    /// A policy that does not come back
    Stuck,
    /// Bound and free tasks of all weights: nobody starves
    Fair,
    /// A real-time task takes a CPU again and again
    Rt,
    /// cgroups made, left, weighted and removed under load
    Cgroups,
    /// Limits of cgroups, with an agent and without
    Limits,
    /// Shares of threads and cgroups, to the percent
    Exact,
    /// A limit that nobody can live on
    Tiny,
    /// Memory is short
    Memory,
    /// Only tasks that ask for it are ours
    Partial,
    /// Ten thousand tasks
    Many,
    /// A dump, and the end of the scheduler, by magic keys
    Sysrq,
    /// Whether tasks come back to their cache, on a machine with two
    Local,
    /// The recorder: whole traces, shares in the simulator as in the guest, an interrupted one, a full disk
    Record,
    /// A mixed load with random drills, for as long as --secs says
    Soak,
    /// Who decides is changed a hundred times under load
    Mode,
    /// The configuration changed over HTTP, crash loops, and metrics through all of it
    Runtime,
    /// `top` and `events` beside a daemon that schedules
    Top,
    /// What may happen to a daemon, in one boot: kills, garbage, strangers, slow clients, a full disk
    Drills,
    /// The kernel ejects the scheduler
    Eject,
    /// From the kernel's scheduler to ours to another program's, and back
    Switch,
    /// Strategies of a decision maker and of this machine: how fast they hold, what they do, and their end
    Strategies,
    /// Options of `run`, `plugins` and `doctor`
    Options,
    /// A daemon of somebody else's: the program of examples/out-of-tree in LAB_DAEMON
    Plugin,
}

/// The plugins that every suite about scheduling runs.
pub const PLUGINS: [&str; 2] = ["gthulhu", "simple-fifo"];
/// All of the daemon's. `simple` differs from `simple-fifo` by its numbers only: no long loads for it.
const ALL_PLUGINS: [&str; 3] = ["gthulhu", "simple", "simple-fifo"];
/// The one for drills.
const PLUGIN: &str = PLUGINS[0];

/// Why no scheduler at all can be loaded on this kernel, if that is so; by the kernel's fault, not ours.
pub fn useless_kernel() -> Option<String> {
    let doctor =
        std::process::Command::new(sched::daemon_program()).args(["doctor", "--json"]).output().ok()?;
    let said: Value = serde_json::from_slice(&doctor.stdout).ok()?;
    let findings = said["findings"].as_array()?;
    let broken = findings.iter().find(|f| f["id"] == "btf" && f["severity"] == "error")?;
    let text = broken["text"].as_str()?;
    text.contains("type information is broken").then(|| text.to_owned())
}

/// Runs one suite. What it cannot go on without is a failed check too.
pub fn run(suite: Suite, secs: Option<u64>, checks: &mut Checks) {
    let secs = |default| Duration::from_secs(secs.unwrap_or(default));
    let (name, done) = match suite {
        Suite::Smoke => ("smoke", smoke::run(checks)),
        Suite::Stress => ("stress", stress::run(checks, secs(10))),
        Suite::Freeze => ("freeze", freeze::run(checks, secs(9))),
        Suite::Kill => ("kill", kill::run(checks)),
        Suite::Hostile => ("hostile", hostile::run(checks, secs(10))),
        Suite::Hotplug => ("hotplug", hotplug::run(checks, secs(8))),
        Suite::Inputs => ("inputs", inputs::run(checks)),
        Suite::Storm => ("storm", faulty::run(checks, faulty::Fault::Storm, secs(8))),
        Suite::Slow => ("slow", faulty::run(checks, faulty::Fault::Slow, secs(8))),
        Suite::Stuck => ("stuck", faulty::run(checks, faulty::Fault::Stuck, secs(4))),
        Suite::Fair => ("fair", fair::run(checks, secs(6))),
        Suite::Rt => ("rt", rt::run(checks, secs(6))),
        Suite::Cgroups => ("cgroups", cgroups::run(checks, secs(6))),
        Suite::Limits => ("limits", limits::run(checks)),
        Suite::Exact => ("exact", fair::run_exact(checks, secs(10))),
        Suite::Tiny => ("tiny", limits::run_tiny(checks, secs(15))),
        Suite::Memory => ("memory", memory::run(checks, secs(8))),
        Suite::Partial => ("partial", partial::run(checks, secs(5))),
        Suite::Many => ("many", many::run(checks, secs(8))),
        Suite::Sysrq => ("sysrq", sysrq::run(checks)),
        Suite::Local => ("local", local::run(checks, secs(8))),
        Suite::Record => ("record", record::run(checks, secs(8))),
        Suite::Soak => ("soak", soak::run(checks, secs(120))),
        Suite::Mode => ("mode", mode::run(checks, secs(5))),
        Suite::Runtime => ("runtime", runtime::run(checks, secs(5))),
        Suite::Top => ("top", top::run(checks)),
        Suite::Drills => ("drills", drills::run(checks)),
        Suite::Eject => ("eject", eject::run(checks)),
        Suite::Switch => ("switch", switch::run(checks)),
        Suite::Strategies => ("strategies", strategies::run(checks)),
        Suite::Options => ("options", options::run(checks)),
        Suite::Plugin => ("plugin", plugin::run(checks)),
    };
    if let Err(e) = done {
        checks.check(name, || Err(e));
    }
}

/// Fails unless the scheduler that was loaded as number `seq` is at work and has seen nothing wrong.
fn healthy(daemon: &Daemon, seq: u64) -> Result<Value> {
    // Who was removed by the kernel says why only there.
    seems_healthy(daemon, seq).map_err(|e| format!("{e}; the daemon said: {}", daemon.log_tail()))
}

fn seems_healthy(daemon: &Daemon, seq: u64) -> Result<Value> {
    let scx = sched::assert_active(OPS_PREFIX)?;
    ensure(scx.enable_seq == seq, || format!("enable_seq {}, was {seq}", scx.enable_seq))?;
    let status = daemon.status()?;
    let exit = &status["exit"];
    ensure(exit.is_null(), || format!("exit {exit}"))?;
    no_errors(&status)?;
    Ok(status)
}

/// Fails when a counter of things that must not happen is not 0.
fn no_errors(status: &Value) -> Result<()> {
    for pointer in ["/counters/dec_refused", "/counters/ring_errors", "/agent/allocations"] {
        let count = number(status, pointer)?;
        ensure(count == 0, || format!("{pointer} is {count}"))?;
    }
    Ok(())
}

/// Both ledgers of a report, added up here from the counters too: the daemon's own sums could share its mistake.
pub(crate) fn balanced(report: &Value) -> Result<String> {
    let count = |name: &str| number(report, &format!("/counters/{name}"));
    let ends = ["ev_dispatched", "ev_bounced", "ev_cancelled", "ev_dead", "ev_taken_over"];
    let [dispatched, bounced, cancelled, dead, taken_over] = ends.map(count);
    let ended = dispatched? + bounced? + cancelled? + dead? + taken_over?;
    let sent = count("ev_sent")?;
    ensure(sent == ended, || format!("{sent} events sent, {ended} ended: {}", report["counters"]))?;
    let results = ["dec_applied", "dec_bounced", "dec_stale", "dec_refused"];
    let [applied, bounced, stale, refused] = results.map(count);
    let decided = applied? + bounced? + stale? + refused?;
    let drained = count("dec_drained")?;
    ensure(drained == decided, || format!("{drained} drained, {decided} ended: {}", report["counters"]))?;
    for pointer in ["/ledgers/events_outstanding", "/ledgers/decisions_open"] {
        let open = number(report, pointer)?;
        ensure(open == 0, || format!("{pointer} is {open}"))?;
    }
    Ok(format!("{sent} events and {drained} decisions, each ended once"))
}

/// Stops a daemon: exit code 0, the kernel's own scheduler back and at work, no error in the report.
fn stop_well(daemon: Daemon) -> Result<(Outcome, String)> {
    let outcome = daemon.stop()?;
    ensure(outcome.code == 0, || format!("exit code {}: {}", outcome.code, outcome.report["exit"]))?;
    no_errors(&outcome.report)?;
    a_task_runs()?;
    let kind = outcome.report.pointer("/exit/kind").unwrap_or(&Value::Null);
    let text = format!("exit code 0, disabled after {} ms, kind {kind}", outcome.took.as_millis());
    Ok((outcome, text))
}

/// Whether the scheduler of the moment runs a new process, and a sleeper again.
fn a_task_runs() -> Result<()> {
    let said = crate::process::run(&mut std::process::Command::new("/bin/true"), Duration::from_secs(2))?;
    ensure(said.code == 0, || format!("/bin/true ended with {}", said.code))?;
    let start = sys::now_ns();
    (0..10).for_each(|_| sys::sleep(Duration::from_millis(5)));
    let took = Duration::from_nanos(sys::now_ns() - start);
    ensure(took < Duration::from_secs(2), || format!("10 sleeps of 5 ms took {took:?}"))
}

/// How many schedulers were loaded since boot.
fn enable_seq() -> Result<u64> {
    Ok(Scx::read()?.enable_seq)
}
