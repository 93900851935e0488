//! What `status` tells while no core of ours is attached: why not, who schedules instead, and what was ejected.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use qumun::kernel::{ExitRecord, Probe};
use serde_json::{Value, json};

use crate::status::{Facts, attaches, control, ends, exit};
use crate::upstream::Upstream;

/// What the kernel has removed without being asked to, and what comes of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ejections {
    /// How often.
    pub(crate) count: u64,
    /// The last one.
    pub(crate) last: Option<Ejection>,
    /// When it is started again, if so.
    pub(crate) again: Option<Instant>,
}

/// An ejection, with the kernel's record of it.
#[derive(Clone, Debug)]
pub(crate) struct Ejection {
    /// Who was ejected, as the kernel called it.
    pub(crate) ops: String,
    pub(crate) at: SystemTime,
    /// For how long it had scheduled.
    pub(crate) life: Duration,
    pub(crate) record: ExitRecord,
}

impl Ejections {
    /// For `status`.
    pub(crate) fn json(&self) -> Value {
        let last = self.last.as_ref().map(|e| {
            json!({
                "ops": e.ops,
                "unix_s": e.at.duration_since(UNIX_EPOCH).map_or(0, |t| t.as_secs()),
                "after_ms": e.life.as_millis() as u64,
                "kind": e.record.kind,
                "code": e.record.code,
                "reason": e.record.reason,
                "message": e.record.message,
                "dump": e.record.dump,
            })
        });
        let again = self.again.map(|at| at.saturating_duration_since(Instant::now()).as_millis() as u64);
        json!({ "count": self.count, "last": last, "again_in_ms": again })
    }
}

/// A program of another project's, over all of its lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Others {
    /// How often one was started after another had ended.
    pub(crate) restarts: u64,
    /// How the last one ended, and all that is kept of its words.
    pub(crate) last_end: Option<(String, String)>,
}

/// The object of `status` while no core of ours is attached.
pub(crate) fn object(facts: &Facts, upstream: Option<&Upstream>) -> Value {
    let probe = Probe::here();
    let (end, words) = facts.others.last_end.clone().unzip();
    json!({
        "plugin": facts.plugin,
        "mode": if upstream.is_some() { "scx" } else { "none" },
        "reason": facts.off.as_ref().map(|off| off.why),
        "message": facts.off.as_ref().map(|off| off.message.as_str()),
        "ops": probe.ops,
        "state": probe.state,
        "enable_seq": probe.enable_seq,
        "kernel": probe.release,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": facts.started.elapsed().as_millis() as u64,
        "supervisor_pid": std::process::id(),
        "agent": {
            "pid": null,
            "state": null,
            "restarts": facts.restarts,
            "restarts_by_reason": ends(facts),
            "replaced": facts.replaced,
        },
        "upstream": upstream.map(Upstream::json),
        "upstream_restarts": facts.others.restarts,
        "upstream_last_end": end,
        "upstream_last_words": words,
        "strategies": facts.strategies.json(),
        "attaches": attaches(facts),
        "ejections": facts.ejections.json(),
        "control": control(facts),
        "last": facts.last.as_ref().map(|o| json!({ "counters": o["counters"], "ledgers": o["ledgers"] })),
        "exit": exit(facts),
    })
}

/// The same for a person.
pub(crate) fn describe(o: &Value) -> String {
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let mut lines = Vec::new();
    if o["mode"] == "scx" {
        let u = &o["upstream"];
        lines.push(format!(
            "{} on Linux {}: {} {}, pid {}; the kernel calls it {}, state {}",
            text(&u["name"]),
            text(&o["kernel"]),
            text(&u["path"]),
            text(&u["state"]),
            u["pid"],
            text(&u["ops"]),
            text(&o["state"]),
        ));
    } else {
        lines.push(format!("no scheduler of ours on Linux {}: {}", text(&o["kernel"]), text(&o["message"])));
    }
    lines.push(format!(
        "supervisor {}, agent restarts {}{}, restarts of programs of mode scx {}",
        o["supervisor_pid"],
        o["agent"]["restarts"],
        crate::status::reasons(&o["agent"]["restarts_by_reason"]),
        o["upstream_restarts"],
    ));
    if let Some(end) = o["upstream_last_end"].as_str() {
        lines.push(format!("its last program {end}"));
    }
    lines.extend(ejected(o));
    lines.join("\n") + "\n"
}

/// A line about ejections, if there were any.
pub(crate) fn ejected(o: &Value) -> Option<String> {
    let (e, last) = (&o["ejections"], &o["ejections"]["last"]);
    let count = e["count"].as_u64().filter(|count| *count > 0)?;
    let text = |v: &Value| v.as_str().unwrap_or("-").to_owned();
    let again = match e["again_in_ms"].as_u64() {
        Some(ms) => format!("; it is attached again in {ms} ms"),
        None => String::new(),
    };
    Some(format!(
        "ejected by the kernel {count} times; last {} after {} ms: {} ({}); its dump is in status --json{again}",
        text(&last["ops"]),
        last["after_ms"],
        text(&last["reason"]),
        text(&last["message"]),
    ))
}
