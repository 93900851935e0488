//! The scheduler's own counters as metrics, made from the object of `status`.

use std::fmt::Write;

use gthulhu_monitor::metrics::Format;
use serde_json::Value;

/// What cannot be counted up: the rest of the core's counters only grow.
const GAUGES: [&str; 2] = ["max_parked_ns", "running"];
/// Who may decide, for [`mode`].
const MODES: [&str; 5] = ["normal", "kernel", "degraded", "scx", "none"];

/// All of them, without an end; `status` is `None` when the supervisor did not answer in time.
pub(crate) fn render(status: Option<&Value>, monitor_runs: bool, format: Format) -> String {
    let mut page = Page::new(format);
    page.gauge(
        "gthulhu_supervisor_answers",
        "1 if the supervisor answered in time.",
        u64::from(status.is_some()),
    );
    page.gauge("gthulhu_monitor_running", "1 while the monitor measures.", u64::from(monitor_runs));
    let Some(o) = status else { return page.out };
    page.head("gthulhu_daemon_info", "The daemon and its policy.", "gauge");
    let labels =
        [("version", text(&o["version"])), ("plugin", text(&o["plugin"])), ("kernel", text(&o["kernel"]))];
    page.sample("gthulhu_daemon_info", &labels, "1");
    mode(&mut page, text(&o["mode"]));
    page.head("gthulhu_scheduler_off_info", "Why nothing of ours schedules, if so.", "gauge");
    if o["mode"] == "none" {
        page.sample("gthulhu_scheduler_off_info", &[("why", text(&o["reason"]))], "1");
    }
    let (agent, attaches) = (&o["agent"], &o["attaches"]);
    let running = u64::from(agent["state"] == "running");
    page.gauge("gthulhu_agent_running", "1 while there is an agent that nobody has stopped.", running);
    page.counter(
        "gthulhu_agent_restarts_total",
        "Agents started after another had ended.",
        &agent["restarts"],
    );
    page.counter(
        "gthulhu_agent_replaced_total",
        "Agents replaced for a change of settings.",
        &agent["replaced"],
    );
    let ends = agent["restarts_by_reason"].as_object();
    page.family("gthulhu_agent_ends_total", "Agents that ended, by how.", "reason", ends);
    page.counter(
        "gthulhu_scheduler_attached_total",
        "Times that a core was attached.",
        &attaches["attached"],
    );
    page.counter(
        "gthulhu_scheduler_reattached_total",
        "Times that a core was attached anew for a change of settings.",
        &attaches["reattached"],
    );
    page.counter(
        "gthulhu_scheduler_crash_loops_total",
        "Times that the kernel's own scheduler took over because agents did not live.",
        &attaches["crash_loops"],
    );
    if let Some(ms) = attaches["last_gap_ms"].as_u64() {
        let name = "gthulhu_scheduler_last_gap_seconds";
        page.head(
            name,
            "For how long the kernel's own scheduler was in charge when a core was attached anew.",
            "gauge",
        );
        page.sample(name, &[], &seconds(ms * 1_000_000));
    }
    page.counter(
        "gthulhu_scheduler_ejections_total",
        "Times that the kernel ejected a core of ours.",
        &o["ejections"]["count"],
    );
    page.counter(
        "gthulhu_control_strangers_total",
        "Callers of the control socket who may not ask.",
        &o["control"]["strangers"],
    );
    page.counter(
        "gthulhu_control_garbage_total",
        "Calls on the control socket that were no order.",
        &o["control"]["garbage"],
    );
    strategies(&mut page, &o["strategies"]);
    if o["mode"] == "none" || o["mode"] == "scx" {
        return page.out;
    }
    core(&mut page, o);
    page.out
}

/// What only an attached core has.
fn core(page: &mut Page, o: &Value) {
    for (name, help) in [
        ("minor_faults", "Page faults of the agent that needed no disk."),
        ("major_faults", "Page faults of the agent that needed the disk."),
        ("allocations", "Allocations of the agent's thread since it schedules; there should be none."),
        ("batches", "Times that the agent published decisions."),
        ("ring_full", "Times that the agent found no room for decisions."),
        ("resyncs", "Times that the agent began anew because the core had taken over."),
    ] {
        // They are an agent's, and begin at zero with the next one.
        page.counter(&format!("gthulhu_agent_{name}_total"), help, &o["agent"][name]);
    }
    for (name, value) in o["counters"].as_object().into_iter().flatten() {
        let help = format!("The core's counter {name}; see docs/core.md.");
        if let Some(stem) = name.strip_suffix("_ns") {
            // In seconds, as Prometheus has all times.
            let (kind, end) =
                if GAUGES.contains(&name.as_str()) { ("gauge", "") } else { ("counter", "_total") };
            let name = format!("gthulhu_scheduler_{stem}_seconds{end}");
            page.head(&name, &help, kind);
            page.sample(&name, &[], &seconds(value.as_u64().unwrap_or(0)));
        } else if GAUGES.contains(&name.as_str()) {
            page.gauge(&format!("gthulhu_scheduler_{name}"), &help, value.as_u64().unwrap_or(0));
        } else {
            page.counter(&format!("gthulhu_scheduler_{name}_total"), &help, value);
        }
    }
    for (name, help) in [
        ("events_outstanding", "Events that have not ended yet."),
        ("decisions_open", "Decisions that were taken and have not ended yet."),
    ] {
        let name_of = format!("gthulhu_scheduler_{name}");
        page.head(&name_of, help, "gauge");
        page.sample(&name_of, &[], &o["ledgers"][name].as_i64().unwrap_or(0).to_string());
    }
    let t = &o["transitions"];
    page.family(
        "gthulhu_scheduler_takeovers_total",
        "Times that the core took over, by why.",
        "reason",
        t["entered"].as_object(),
    );
    page.counter("gthulhu_scheduler_handbacks_total", "Times that the core gave back.", &t["left"]);
    let name = "gthulhu_scheduler_degraded_seconds_total";
    page.head(
        name,
        "For how long the core was in charge without being asked to; periods that have ended.",
        "counter",
    );
    page.sample(name, &[], &seconds(t["degraded_ms"].as_u64().unwrap_or(0) * 1_000_000));
    page.counter(
        "gthulhu_scheduler_rescued_total",
        "Tasks served out of turn because they had waited too long.",
        &t["rescued"],
    );
    let l = &o["limits"];
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    page.gauge("gthulhu_scheduler_limits", "cgroups that have a cpu.max.", number(&l["set"]));
    page.gauge(
        "gthulhu_scheduler_limits_unenforced",
        "Those of them in which nobody enforces it.",
        number(&l["unenforced"]),
    );
    legs(page, &o["legs"]);
}

/// What is wanted, by whom, and how long it takes until it holds.
fn strategies(page: &mut Page, o: &Value) {
    let sources = o["sources"].as_object();
    let of = |page: &mut Page, name: &str, help: &str, field: &str| {
        page.head(name, help, "gauge");
        for (source, said) in sources.into_iter().flatten() {
            let number = said[field].as_u64().or_else(|| said[field].as_bool().map(u64::from));
            if let Some(number) = number {
                page.sample(name, &[("source", source)], &number.to_string());
            }
        }
    };
    of(page, "gthulhu_strategy_targets", "Processes, threads, cgroups and names with a strategy.", "targets");
    of(page, "gthulhu_strategy_source_up", "1 while what the source says is heard and understood.", "up");
    let maker = &o["sources"]["decision-maker"];
    let number = |v: &Value| v.as_u64().unwrap_or(0);
    for (name, help, value) in [
        ("source_failures", "Answers of the decision maker that were none.", &maker["failures"]),
        ("lists", "Lists of strategies taken from the decision maker.", &maker["lists"]),
        ("counters_told", "Times that the decision maker took the counters.", &maker["counters_told"]),
        ("faded", "Strategies that nobody confirmed in time, by target.", &o["faded"]),
    ] {
        page.counter(&format!("gthulhu_strategy_{name}_total"), help, value);
    }
    for (name, help, value) in [
        ("generation", "Which table of strategies it is.", &o["generation"]),
        ("generation_in_core", "Which table the core has.", &o["generation_in_core"]),
        ("generation_in_agent", "Which table the agent has.", &o["generation_in_agent"]),
        ("refused", "Strategies that make no sense, in the last list.", &o["refused"]),
        ("left_out", "Targets for which the core has no room.", &o["left_out"]),
    ] {
        page.gauge(&format!("gthulhu_strategy_{name}"), help, number(value));
    }
    let name = "gthulhu_strategy_receipt_seconds";
    page.head(
        name,
        "From the receipt of another list of strategies to the table of the core, or of the agent.",
        "histogram",
    );
    for (to, field) in [("core", "receipt_to_core"), ("agent", "receipt_to_agent")] {
        let times = &o[field];
        let mut so_far = 0;
        for (power, count) in times["log2_us"].as_array().into_iter().flatten().enumerate() {
            so_far += number(count);
            // From 16 us to 17 seconds, and in between every second one.
            if (4..=24).contains(&power) && power % 2 == 0 {
                let le = seconds(1_000 << power);
                page.sample(&format!("{name}_bucket"), &[("to", to), ("le", &le)], &so_far.to_string());
            }
        }
        page.sample(&format!("{name}_bucket"), &[("to", to), ("le", "+Inf")], &so_far.to_string());
        page.sample(&format!("{name}_sum"), &[("to", to)], &seconds(number(&times["sum_us"]) * 1_000));
        page.sample(&format!("{name}_count"), &[("to", to)], &so_far.to_string());
    }
}

fn mode(page: &mut Page, now: &str) {
    page.head("gthulhu_scheduler_mode", "1 for the mode that holds: who decides.", "gauge");
    for mode in MODES {
        page.sample("gthulhu_scheduler_mode", &[("mode", mode)], if mode == now { "1" } else { "0" });
    }
}

/// The legs of a sampled wakeup. The core counts by powers of two and keeps no sum, so there is none.
fn legs(page: &mut Page, legs: &Value) {
    let name = "gthulhu_scheduler_leg_seconds";
    page.head(name, "The legs of sampled wakeups.", "histogram");
    let bucket = format!("{name}_bucket");
    for leg in legs.as_array().into_iter().flatten() {
        let which = text(&leg["name"]);
        let counts: Vec<u64> =
            leg["log2_ns"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let (mut so_far, mut end) = (0, 2u64);
        for count in &counts {
            so_far += count;
            // From a microsecond to 17 seconds, every second one.
            if (1 << 10..=1 << 34).contains(&end) && end.trailing_zeros() % 2 == 0 {
                page.sample(&bucket, &[("leg", which), ("le", &seconds(end))], &so_far.to_string());
            }
            end = end.saturating_mul(2);
        }
        page.sample(&bucket, &[("leg", which), ("le", "+Inf")], &so_far.to_string());
        if page.format == Format::Text {
            page.sample(&format!("{name}_count"), &[("leg", which)], &so_far.to_string());
        }
    }
}

pub(crate) struct Page {
    pub(crate) out: String,
    format: Format,
}

impl Page {
    pub(crate) fn new(format: Format) -> Self {
        Self { out: String::new(), format }
    }

    pub(crate) fn head(&mut self, name: &str, help: &str, kind: &str) {
        let family = match (self.format, kind) {
            // A family of counters is called without the suffix there.
            (Format::OpenMetrics, "counter") => name.strip_suffix("_total").unwrap_or(name),
            _ => name,
        };
        let _ = writeln!(self.out, "# HELP {family} {help}\n# TYPE {family} {kind}");
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.sample(name, &[], &value.to_string());
    }

    pub(crate) fn counter(&mut self, name: &str, help: &str, value: &Value) {
        self.head(name, help, "counter");
        self.sample(name, &[], &value.as_u64().unwrap_or(0).to_string());
    }

    /// A counter with a label for each member.
    fn family(&mut self, name: &str, help: &str, label: &str, of: Option<&serde_json::Map<String, Value>>) {
        self.head(name, help, "counter");
        for (which, value) in of.into_iter().flatten() {
            self.sample(name, &[(label, which)], &value.as_u64().unwrap_or(0).to_string());
        }
    }

    pub(crate) fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: &str) {
        self.out.push_str(name);
        for (at, (label, text)) in labels.iter().enumerate() {
            let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.out, "{}{label}=\"{text}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.out, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}

/// Exact; a whole number has a zero behind the point, as OpenMetrics wants it in `le`.
fn seconds(ns: u64) -> String {
    let text = format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let short = text.trim_end_matches('0');
    if short.ends_with('.') { format!("{short}0") } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::json;

    use super::*;

    fn status() -> Value {
        let mut log2 = vec![0; 64];
        (log2[0], log2[9], log2[40]) = (1, 2, 4);
        json!({
            "plugin": "gthulhu", "mode": "normal", "version": "1", "kernel": "a \"quoted\" one",
            "agent": { "state": "running", "restarts": 3, "replaced": 0, "restarts_by_reason": { "killed": 3 }, "batches": 7 },
            "ejections": { "count": 4 },
            "attaches": { "attached": 1, "reattached": 0, "last_gap_ms": 1500, "crash_loops": 0 },
            "counters": { "ev_sent": 12, "running": 2, "max_parked_ns": 1500, "throttled_ns": 2_000_000_000_u64 },
            "ledgers": { "events_outstanding": -1, "decisions_open": 0 },
            "transitions": { "entered": { "late": 5 }, "left": 5, "degraded_ms": 1250, "rescued": 0 },
            "limits": { "set": 1, "unenforced": 0 },
            "legs": [{ "name": "seen-decided", "log2_ns": log2 }],
        })
    }

    #[test]
    fn each_family_is_there_once_and_each_series_has_one_value() {
        for format in [Format::Text, Format::OpenMetrics] {
            for of in [None, Some(status()), Some(json!({ "mode": "none", "reason": "crash loop" }))] {
                let text = render(of.as_ref(), true, format);
                let (mut families, mut series) = (HashSet::new(), HashSet::new());
                for line in text.lines() {
                    if let Some(family) = line.strip_prefix("# TYPE ") {
                        let (name, kind) = family.split_once(' ').expect("a kind");
                        assert!(families.insert(name.to_owned()), "{name}");
                        let counts = name.ends_with("_total");
                        assert_eq!(counts, kind == "counter" && format == Format::Text, "{line}");
                    } else if !line.starts_with('#') {
                        let (name, value) = line.rsplit_once(' ').expect("a value");
                        assert!(series.insert(name.to_owned()) && value.parse::<f64>().is_ok(), "{line}");
                    }
                }
            }
        }
    }

    #[test]
    fn what_status_says_is_what_is_exposed() {
        let text = render(Some(&status()), true, Format::Text);
        for line in [
            "gthulhu_daemon_info{version=\"1\",plugin=\"gthulhu\",kernel=\"a \\\"quoted\\\" one\"} 1",
            "gthulhu_scheduler_mode{mode=\"normal\"} 1",
            "gthulhu_scheduler_mode{mode=\"none\"} 0",
            "gthulhu_agent_ends_total{reason=\"killed\"} 3",
            "gthulhu_scheduler_ev_sent_total 12",
            "gthulhu_scheduler_running 2",
            "gthulhu_scheduler_max_parked_seconds 0.0000015",
            "gthulhu_scheduler_throttled_seconds_total 2.0",
            "gthulhu_scheduler_ejections_total 4",
            "gthulhu_scheduler_events_outstanding -1",
            "gthulhu_scheduler_takeovers_total{reason=\"late\"} 5",
            "gthulhu_scheduler_degraded_seconds_total 1.25",
            "gthulhu_scheduler_last_gap_seconds 1.5",
            "gthulhu_scheduler_leg_seconds_bucket{leg=\"seen-decided\",le=\"0.000001024\"} 3",
            "gthulhu_scheduler_leg_seconds_bucket{leg=\"seen-decided\",le=\"+Inf\"} 7",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }
}
