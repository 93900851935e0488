//! What the daemon tells about itself: one JSON object, over a Unix socket or to a file.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use qumun::kernel::{ExitRecord, Probe, stats, wire};
use serde_json::{Value, json};

use crate::limits::Limits;
use crate::process::Stat;
use crate::standby::{self, Ejections, Others};
use crate::strategies;
use crate::{Error, ExitCode, Result};

/// Where the daemon listens unless told otherwise.
pub(crate) const SOCKET: &str = "/run/gthulhu/daemon.sock";

/// What the supervisor knows besides the core's own counters.
#[derive(Debug)]
pub(crate) struct Facts {
    pub(crate) plugin: String,
    pub(crate) started: Instant,
    pub(crate) agent: Option<u32>,
    pub(crate) restarts: u64,
    /// How often an agent ended, by [`END_REASONS`].
    ends: [u64; END_REASONS.len()],
    pub(crate) exit: Option<ExitRecord>,
    /// The last core's status after it was detached.
    pub(crate) last: Option<Value>,
    /// Why nothing of ours schedules, if so.
    pub(crate) off: Option<Off>,
    /// How often a core was attached, how often of that anew for a change, and how long the last such gap was.
    pub(crate) attached: u64,
    pub(crate) reattaches: u64,
    pub(crate) gap: Option<Duration>,
    /// How often an agent was replaced for a change.
    pub(crate) replaced: u64,
    pub(crate) crash_loops: u64,
    /// What the kernel has ejected, and programs of others that ended.
    pub(crate) ejections: Ejections,
    pub(crate) others: Others,
    /// Callers of the control socket that were refused: strangers, and what was no order.
    pub(crate) refused: (u64, u64),
    pub(crate) strategies: strategies::Facts,
}

/// Why nothing of ours schedules.
#[derive(Debug, Clone)]
pub(crate) struct Off {
    /// `mode`, `crash loop`, `re-attach`, `failed`, `ejected`, `removed` or `ended`.
    pub(crate) why: &'static str,
    pub(crate) message: String,
}

/// Why agents end: by themselves, by a signal of somebody else, and by us because a call of the policy
/// computes or waits for too long.
pub(crate) const END_REASONS: [&str; 4] = ["exited", "killed", "stuck", "blocked"];

impl Facts {
    pub(crate) fn new(plugin: &str) -> Self {
        Self {
            plugin: plugin.to_owned(),
            started: Instant::now(),
            agent: None,
            restarts: 0,
            ends: [0; END_REASONS.len()],
            exit: None,
            last: None,
            off: None,
            attached: 0,
            reattaches: 0,
            gap: None,
            replaced: 0,
            crash_loops: 0,
            ejections: Ejections::default(),
            others: Others::default(),
            refused: (0, 0),
            strategies: strategies::Facts::default(),
        }
    }

    /// Counts the end of an agent.
    pub(crate) fn ended(&mut self, reason: &str) {
        if let Some(i) = END_REASONS.iter().position(|r| *r == reason) {
            self.ends[i] += 1;
        }
    }
}

/// One moment of the core.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) view: wire::View,
    pub(crate) page: wire::AgentPage,
    pub(crate) totals: wire::Counters,
    pub(crate) legs: [stats::Leg; wire::LEGS],
    pub(crate) limits: Limits,
    pub(crate) transport: String,
}

/// Under the names of the original, and what it did not have.
fn statistics(now: &Snapshot) -> Value {
    let s = stats::Statistics::new(&now.totals, &now.view, &now.page);
    let mut named: serde_json::Map<String, Value> =
        s.original().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let more = [
        ("taken_over", s.taken_over),
        ("degraded", s.degraded),
        ("rescued", s.rescued),
        ("throttled", s.throttled),
        ("throttled_ns", s.throttled_ns),
        ("limit_overruns", s.limit_overruns),
        ("permitted", s.permitted),
        ("limits_set", now.limits.set),
        ("limits_unenforced", now.limits.unenforced),
        ("pool_size", s.pool_size),
        ("pool_used", s.pool_used),
        ("allocations", s.allocations),
        ("minor_faults", s.minor_faults),
        ("major_faults", s.major_faults),
    ];
    named.extend(more.map(|(name, value)| (name.to_owned(), json!(value))));
    Value::Object(named)
}

/// The object that `status --json` prints.
pub(crate) fn object(facts: &Facts, now: &Snapshot) -> Value {
    let probe = Probe::here();
    let ledgers = stats::ledgers(&now.totals);
    let stat = facts.agent.and_then(Stat::of);
    let ends = ends(facts);
    let counters: serde_json::Map<String, Value> =
        stats::named(&now.totals).into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    let entered: serde_json::Map<String, Value> =
        wire::REASONS.iter().zip(now.view.entered).map(|(name, n)| ((*name).to_owned(), json!(n))).collect();
    let legs: Vec<Value> = wire::LEG_NAMES
        .iter()
        .zip(&now.legs)
        .map(|(name, leg)| {
            let (count, p50, p99) = (leg.count(), leg.quantile(0.5), leg.quantile(0.99));
            // How many took less than 2^(i + 1) ns and no less than the one before.
            json!({ "name": name, "count": count, "p50_ns": p50, "p99_ns": p99, "log2_ns": leg.buckets.to_vec() })
        })
        .collect();
    json!({
        "plugin": facts.plugin,
        "mode": mode(now.view.mode),
        "reason": wire::REASONS.get(now.view.reason as usize),
        "ops": probe.ops,
        "state": probe.state,
        "enable_seq": probe.enable_seq,
        "kernel": probe.release,
        "version": env!("CARGO_PKG_VERSION"),
        "transport": now.transport,
        "epoch": now.view.epoch,
        "uptime_ms": facts.started.elapsed().as_millis() as u64,
        "supervisor_pid": std::process::id(),
        "agent": {
            "pid": (now.view.agent_pid != 0).then_some(now.view.agent_pid),
            "state": stat.map(|s| if s.is_stopped() { "stopped" } else { "running" }),
            "restarts": facts.restarts,
            "restarts_by_reason": ends,
            "replaced": facts.replaced,
            "minor_faults": stat.map(|s| s.minor_faults),
            "major_faults": stat.map(|s| s.major_faults),
            "cpu_ms": stat.map(|s| s.cpu_ms),
            "allocations": now.page.allocations,
            "events": now.page.events,
            "discarded": now.page.discarded,
            "published": now.page.published,
            "batches": now.page.batches,
            "ring_full": now.page.ring_full,
            "resyncs": now.page.resyncs,
        },
        "transitions": {
            "entered": entered,
            "left": now.view.left,
            "degraded_ms": now.view.degraded_ns / 1_000_000,
            "longest_late_us": now.view.longest_late_ns / 1_000,
            "rescued": now.view.rescued,
        },
        "limits": {
            "enforced": now.limits.enforced,
            "set": now.limits.set,
            "unenforced": now.limits.unenforced,
            "throttled": now.totals.throttled,
            "throttled_ms": now.totals.throttled_ns / 1_000_000,
            "overruns": now.totals.limit_overruns,
        },
        "statistics": statistics(now),
        "counters": counters,
        "ledgers": {
            "events_outstanding": ledgers.events_outstanding,
            "decisions_open": ledgers.decisions_open,
        },
        "legs": legs,
        "strategies": facts.strategies.json(),
        "attaches": attaches(facts),
        "ejections": facts.ejections.json(),
        "control": control(facts),
        "exit": exit(facts),
    })
}

/// Who decides, by the core's word for it.
pub(crate) fn mode(word: u64) -> &'static str {
    match word {
        wire::NORMAL => "normal",
        wire::KERNEL => "kernel",
        _ => "degraded",
    }
}

pub(crate) fn ends(facts: &Facts) -> serde_json::Map<String, Value> {
    END_REASONS.iter().zip(facts.ends).map(|(reason, n)| ((*reason).to_owned(), json!(n))).collect()
}

pub(crate) fn attaches(facts: &Facts) -> Value {
    json!({
        "attached": facts.attached,
        "reattached": facts.reattaches,
        "last_gap_ms": facts.gap.map(|gap| gap.as_millis() as u64),
        "crash_loops": facts.crash_loops,
    })
}

pub(crate) fn control(facts: &Facts) -> Value {
    json!({ "strangers": facts.refused.0, "garbage": facts.refused.1 })
}

pub(crate) fn exit(facts: &Facts) -> Value {
    facts.exit.as_ref().map_or(Value::Null, |e| {
        json!({ "kind": e.kind, "code": e.code, "reason": e.reason, "message": e.message, "dump": e.dump })
    })
}

/// `gthulhu-daemon status`.
pub(crate) fn ask(socket: &Path, as_json: bool) -> Result<()> {
    let object = fetch(socket)?;
    if let Some(why) = object["error"].as_str() {
        return Err(Error::new(ExitCode::NoPermission, why.to_owned()));
    }
    let mut out = std::io::stdout().lock();
    let shown = if as_json { format!("{object}\n") } else { describe(&object) };
    // A closed pipe (| head) is no error.
    let _ = out.write_all(shown.as_bytes());
    Ok(())
}

/// The object of a running daemon.
pub(crate) fn fetch(socket: &Path) -> Result<Value> {
    fetch_after(socket, |_| Ok(()))
}

/// To a running daemon.
pub(crate) fn connect(socket: &Path) -> Result<UnixStream> {
    UnixStream::connect(socket).map_err(|e| {
        let what =
            format!("no daemon answers on {} ({e}); is 'gthulhu-daemon run' running?", socket.display());
        let code = if e.kind() == std::io::ErrorKind::PermissionDenied {
            ExitCode::NoPermission
        } else {
            ExitCode::NoDaemon
        };
        Error::new(code, what)
    })
}

/// The same after an order.
pub(crate) fn fetch_after(
    socket: &Path,
    order: impl FnOnce(&mut UnixStream) -> std::io::Result<()>,
) -> Result<Value> {
    let mut stream = connect(socket)?;
    // A change that re-attaches takes a while.
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    let said = order(&mut stream).and_then(|()| stream.shutdown(std::net::Shutdown::Write));
    said.map_err(|e| Error::system("cannot speak to the daemon", &e))?;
    let mut text = String::new();
    stream.read_to_string(&mut text).map_err(|e| Error::system("the daemon did not answer", &e))?;
    serde_json::from_str(&text)
        .map_err(|e| Error::new(ExitCode::Failed, format!("the daemon's answer is no JSON ({e})")))
}

/// The same for a person.
pub(crate) fn describe(o: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    if o["mode"] == "none" || o["mode"] == "scx" {
        return standby::describe(o);
    }
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let c = &o["counters"];
    let decided = number(&c["ev_dispatched"]);
    let taken = number(&c["ev_taken_over"]) + number(&c["core_enqueued"]);
    let (permitted, kernel) = (number(&c["permitted"]), number(&c["kernel_mode"]));
    let all = decided + permitted + kernel + taken + number(&c["congested"]) + number(&c["ev_bounced"]);
    let share = |part: u64| if all == 0 { 0.0 } else { 100.0 * part as f64 / all as f64 };
    let batches = number(&o["agent"]["batches"]).max(1);
    let each = |what: &Value| number(what) as f64 / decided.max(1) as f64;
    let mut lines = vec![
        format!(
            "{} {} on Linux {}, mode {}",
            text(&o["ops"]),
            text(&o["state"]),
            text(&o["kernel"]),
            text(&o["mode"])
        ),
        format!(
            "supervisor {}, agent {}{} (restarts {}{}, page faults {}+{}, allocations {})",
            number(&o["supervisor_pid"]),
            o["agent"]["pid"].as_i64().map_or("none".into(), |p| p.to_string()),
            if o["agent"]["state"] == "stopped" { ", STOPPED by somebody" } else { "" },
            number(&o["agent"]["restarts"]),
            reasons(&o["agent"]["restarts_by_reason"]),
            number(&o["agent"]["minor_faults"]),
            number(&o["agent"]["major_faults"]),
            number(&o["agent"]["allocations"]),
        ),
        format!(
            "decided by the agent {decided} ({:.1} %), let in by permits {permitted} ({:.1} %), taken over by the core \
             {taken} ({:.1} %), in kernel mode {kernel}; never asked {}",
            share(decided),
            share(permitted),
            share(taken),
            number(&c["kernel_direct"])
        ),
        format!(
            "{} batches, {:.2} decisions each; {} turns of the agent; of each decision {:.2} kicks, {:.2} cut slices; \
             refused {}, stale {}, bounced {}",
            number(&o["agent"]["batches"]),
            number(&o["agent"]["published"]) as f64 / batches as f64,
            number(&c["activations"]),
            each(&c["kicks"]),
            each(&c["preempts"]),
            number(&c["dec_refused"]),
            number(&c["dec_stale"]),
            number(&c["dec_bounced"]),
        ),
        format!(
            "degraded {} times for {} ms; longest parked {:.1} ms; rescued {}",
            o["transitions"]["left"],
            number(&o["transitions"]["degraded_ms"]),
            number(&c["max_parked_ns"]) as f64 / 1e6,
            number(&o["transitions"]["rescued"]),
        ),
    ];
    lines.extend(limits(&o["limits"]));
    lines.extend(strategies::line(&o["strategies"]));
    for leg in o["legs"].as_array().into_iter().flatten() {
        lines.push(format!(
            "  {:<17} p50 <= {:>8.1} us   p99 <= {:>8.1} us   ({} sampled)",
            text(&leg["name"]),
            number(&leg["p50_ns"]) as f64 / 1e3,
            number(&leg["p99_ns"]) as f64 / 1e3,
            number(&leg["count"]),
        ));
    }
    lines.extend(standby::ejected(o));
    if let Some(reason) = o["exit"]["reason"].as_str() {
        lines.push(format!("ended: {reason} {}", text(&o["exit"]["message"])));
    }
    lines.join("\n") + "\n"
}

/// What a person should know about limits, if there is any.
fn limits(o: &Value) -> Option<String> {
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    let (set, unenforced) = (number(&o["set"]), number(&o["unenforced"]));
    let held = format!(
        "held back {} times for {} ms, let out too early {}",
        number(&o["throttled"]),
        number(&o["throttled_ms"]),
        number(&o["overruns"])
    );
    if unenforced > 0 {
        let why = if o["enforced"] == true {
            "there are more cgroups than the core has room for"
        } else {
            "see 'gthulhu-daemon doctor' and --limits"
        };
        return Some(format!(
            "cpu.max: NOT ENFORCED in {unenforced} of {set} cgroups that have it: {why}; {held}"
        ));
    }
    (set > 0 || number(&o["throttled"]) > 0).then(|| format!("cpu.max: enforced in {set} cgroups; {held}"))
}

/// `: killed 2, stuck 1`, without those that did not happen.
pub(crate) fn reasons(counts: &Value) -> String {
    let some = counts.as_object().into_iter().flatten().filter(|(_, n)| n.as_u64() != Some(0));
    let list: Vec<String> = some.map(|(reason, n)| format!("{reason} {n}")).collect();
    if list.is_empty() { String::new() } else { format!(": {}", list.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_reason_and_shown_when_there_were_some() {
        let mut facts = Facts::new("p");
        ["stuck", "killed", "stuck"].into_iter().for_each(|reason| facts.ended(reason));
        assert_eq!(facts.ends, [0, 1, 2, 0]);
        assert_eq!(reasons(&json!({ "exited": 0, "killed": 1, "stuck": 2 })), ": killed 1, stuck 2");
        assert_eq!(reasons(&json!({ "exited": 0 })), "");
        let stopped = json!({ "agent": { "pid": 7, "state": "stopped" } });
        assert!(describe(&stopped).contains("agent 7, STOPPED"));
    }

    #[test]
    fn limits_that_do_not_hold_are_said_loudly() {
        let lost = limits(&json!({ "enforced": false, "set": 3, "unenforced": 3 })).expect("a line");
        assert!(lost.contains("NOT ENFORCED in 3 of 3") && lost.contains("doctor"), "{lost}");
        let held =
            limits(&json!({ "enforced": true, "set": 2, "unenforced": 0, "throttled": 7 })).expect("a line");
        assert!(held.contains("enforced in 2 cgroups; held back 7 times"), "{held}");
        assert_eq!(limits(&json!({ "enforced": true, "set": 0, "unenforced": 0 })), None);
    }

    #[test]
    fn decided_permitted_and_taken_over_are_told_apart() {
        let counters = json!({ "ev_dispatched": 200, "permitted": 700, "core_enqueued": 100, "kicks": 50, "preempts": 10,
            "activations": 190 });
        let text = describe(&json!({ "counters": counters }));
        for expected in [
            "agent 200 (20.0 %), let in by permits 700 (70.0 %), taken over by the core 100 (10.0 %)",
            "190 turns of the agent; of each decision 0.25 kicks, 0.05 cut slices",
        ] {
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_person_gets_numbers_also_from_an_empty_object() {
        assert!(describe(&json!({})).contains("agent none"));
    }
}
