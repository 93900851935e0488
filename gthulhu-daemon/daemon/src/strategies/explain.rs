//! `gthulhu-daemon explain PID`: what holds for a thread, and why.

use std::path::Path;
use std::time::Duration;

use gthulhu_model::{Class, Priority, Target};
use serde_json::{Value, json};

use super::book::Entry;
use super::link::now_ns;
use super::local::{ask, object};
use super::resolve::{Look, Thread};
use super::{Service, local};
use crate::Result;
use crate::desk::Ask;

/// By number, as `sched(7)` has them.
const POLICIES: [&str; 8] = [
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
    "SCHED_EXT",
];

impl Service {
    /// All that can be said about a thread.
    pub(super) async fn explain(&mut self, pid: i32) -> std::result::Result<Value, String> {
        let now = now_ns();
        // What has ended by now has faded.
        self.publish(None).await;
        let thread =
            Look::new()?.thread(pid)?.ok_or_else(|| format!("there is no process or thread {pid}"))?;
        let status = match self.caller.ask(Ask::Status) {
            Ok(answer) => tokio::time::timeout(Duration::from_secs(2), answer)
                .await
                .ok()
                .and_then(std::result::Result::ok),
            Err(_) => None,
        };
        let status = status.and_then(std::result::Result::ok).unwrap_or(Value::Null);
        let table = self.table.build();
        let lease = table.find(&thread.subject(), now).copied();
        let is_for = |entry: &&Entry| entry.want.target.matches(&thread.subject());
        let entries: Vec<&Entry> = self.book.entries().iter().filter(is_for).collect();
        let holds = lease.and_then(|lease| {
            let mut same = entries.iter().filter(|entry| entry.id == lease.strategy.id);
            same.find(|entry| entry.want.target == lease.strategy.target).copied()
        });
        let priority = lease.map(|lease| lease.strategy.priority).unwrap_or_default();
        let others: Vec<Value> = entries
            .iter()
            .filter(|entry| !holds.is_some_and(|holds| std::ptr::eq(holds, **entry)))
            .map(|entry| {
                let mut other = object(entry, now);
                other["why"] = weaker(entry, holds).into();
                other
            })
            .collect();
        let (faded, _) = self.book.faded();
        let faded: Vec<Value> = faded
            .rev()
            .filter(is_for)
            .map(|entry| {
                let mut faded = object(entry, now);
                faded["fadedAgoMs"] = (now.saturating_sub(entry.until_ns) / 1_000_000).into();
                faded
            })
            .collect();
        let mut why = reasons(&thread, holds, &priority, &status);
        if holds.is_none()
            && let Some(ago) = faded.first().and_then(|faded| faded["fadedAgoMs"].as_u64())
        {
            why.push(format!(
                "strategy '{}' was for it and has faded {:.1} s ago: nobody confirmed it in time",
                faded[0]["name"].as_str().unwrap_or("-"),
                ago as f64 / 1e3
            ));
        }
        let budget = priority.boost().map(|b| json!({ "millicpu": b.share(), "burstMs": b.burst_ms() }));
        Ok(json!({
            "pid": pid,
            "tgid": thread.process.pid,
            "started": thread.id.started,
            "comm": thread.comm.map(|comm| comm.to_string()),
            "cgroup": thread.cgroup,
            "cgroupId": thread.cgroup_id.map(|id| id.0),
            "policy": thread.policy.map(policy),
            "strategy": holds.map(|entry| local::object(entry, now)),
            "class": priority.class.to_string(),
            "sliceUs": priority.slice.map(|slice| slice.as_nanos() / 1_000),
            "budget": budget,
            "why": why,
            "others": others,
            "faded": faded,
            "mode": status["mode"],
            "plugin": status["plugin"],
            "generation": self.table.generation.0,
            "generationInCore": status["strategies"]["generation_in_core"],
            "generationInAgent": status["strategies"]["generation_in_agent"],
        }))
    }
}

/// One sentence for each thing that matters, the most important first.
fn reasons(thread: &Thread, holds: Option<&Entry>, priority: &Priority, status: &Value) -> Vec<String> {
    let mut why = Vec::new();
    match holds {
        Some(entry) => why.push(format!(
            "strategy '{}' ({}) is for it: {}",
            entry.want.name,
            entry.source.name(),
            meant(&entry.want.target, thread)
        )),
        None => why.push("no strategy is for it: the default, class normal, by its weight".into()),
    }
    match (priority.class, priority.boost()) {
        (Class::Latency(_), Some(budget)) | (Class::Isolated, Some(budget)) => why.push(format!(
            "it is ahead of others while tokens last: {} thousandths of a CPU, {} ms at once, shared by all of the strategy",
            budget.share(),
            budget.burst_ms()
        )),
        (Class::Isolated, None) => why.push("without a budget it is as a normal one on CPUs that it shares".into()),
        (Class::BestEffort, _) => why.push("it runs on what others leave".into()),
        _ => {}
    }
    if let Some(policy @ (1 | 2 | 6)) = thread.policy {
        why.push(format!(
            "but it is {}: above this scheduler, so that no strategy means anything for it",
            self::policy(policy)
        ));
    }
    match status["mode"].as_str() {
        Some("none") => {
            why.push("but nothing of ours schedules now: the kernel does, without strategies".into())
        }
        Some("kernel") => why.push("the core applies it: kernel mode".into()),
        Some("degraded") => why.push("the core applies it: it has taken over from the agent".into()),
        Some(_) if status["strategies"]["generation_in_agent"].is_null() && holds.is_some() => {
            let plugin = status["plugin"].as_str().unwrap_or("-");
            why.push(format!(
                "but plugin {plugin} has not taken a table of strategies, and may follow none; the core applies it where it decides by itself"
            ));
        }
        Some(_) => {}
        None => why.push("the supervisor did not answer: who schedules is not known".into()),
    }
    if thread.kernel {
        why.push("it is a thread of the kernel; with early_processing the core alone places it".into());
    }
    why
}

fn meant(target: &Target, thread: &Thread) -> String {
    match target {
        Target::Task(number) => format!("the kernel's task {}", number.get()),
        Target::Thread(id) => format!("thread {}, started at tick {}", id.pid, id.started),
        Target::Process(id) => format!("all threads of process {}, started at tick {}", id.pid, id.started),
        Target::Cgroup(id) => {
            format!("all threads in cgroup {} ({})", thread.cgroup.as_deref().unwrap_or("-"), id.0)
        }
        Target::Comm(comm) => format!("all threads that are called {comm}"),
    }
}

/// Why another one holds.
fn weaker(entry: &Entry, holds: Option<&Entry>) -> String {
    let Some(holds) = holds else { return "there was no room for it in the core's table".into() };
    let (kind, other) = (kind(&entry.want.target), self::kind(&holds.want.target));
    let name = &holds.want.name;
    if kind != other {
        format!("'{name}' is for {other}, which is more specific than {kind}")
    } else if entry.want.priority.class != holds.want.priority.class {
        format!("'{name}' is for the same and has the stronger class")
    } else {
        format!("'{name}' is for the same, has the same class, and is the older one")
    }
}

fn kind(target: &Target) -> &'static str {
    match target {
        Target::Task(_) | Target::Thread(_) => "one thread",
        Target::Process(_) => "a process",
        Target::Cgroup(_) => "a cgroup",
        Target::Comm(_) => "a name",
    }
}

fn policy(number: u32) -> String {
    POLICIES.get(number as usize).map_or_else(|| format!("policy {number}"), |name| (*name).to_owned())
}

/// `gthulhu-daemon explain`.
pub(crate) fn explain(socket: &Path, pid: i32, as_json: bool) -> Result<String> {
    let o = ask(socket, &format!("explain {pid}"), "")?;
    Ok(if as_json { format!("{o}\n") } else { described(&o) })
}

fn described(o: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let slice = o["sliceUs"].as_u64().map_or("the policy's".into(), |us| format!("{us} us"));
    let budget = &o["budget"];
    let budget = budget["millicpu"]
        .as_u64()
        .map_or("none".into(), |m| format!("{m}m, {} ms at once", budget["burstMs"]));
    let left = match (&o["strategy"]["ttlLeftMs"], o["strategy"].is_null()) {
        (_, true) => "-".into(),
        (Value::Null, _) => "until it is cleared".into(),
        (ms, _) => format!("{:.1} s", ms.as_f64().unwrap_or(0.0) / 1e3),
    };
    let mut out = format!(
        "thread {} of process {} ({}), {}, cgroup {}\n  strategy  {}\n  class     {}\n  slice     {slice}\n  budget    {budget}\n  TTL left  {left}\n",
        o["pid"],
        o["tgid"],
        text(&o["comm"]),
        text(&o["policy"]),
        text(&o["cgroup"]),
        o["strategy"]["name"].as_str().unwrap_or("none"),
        text(&o["class"]),
    );
    for why in o["why"].as_array().into_iter().flatten() {
        out += &format!("  why       {}\n", text(why));
    }
    for other in o["others"].as_array().into_iter().flatten() {
        out += &format!(
            "  not       '{}' ({}): {}\n",
            text(&other["name"]),
            text(&other["class"]),
            text(&other["why"])
        );
    }
    out
}
