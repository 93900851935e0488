//! The alert rules, and what promtool has to see of each: a case in which it fires, and one in which it does not.

use std::fmt::Write;

use super::Files;

/// An alert.
struct Alert {
    name: &'static str,
    /// What is looked at, and when it is too much.
    value: &'static str,
    bound: &'static str,
    /// For how long.
    lasting: &'static str,
    severity: &'static str,
    summary: &'static str,
    /// What it means and what to do.
    description: &'static str,
    /// Series (one sample a minute) with which it fires at a minute, and those with which it does not.
    fires: (&'static [(&'static str, &'static str)], u32),
    silent: &'static [(&'static str, &'static str)],
}

#[rustfmt::skip]
const ALERTS: &[Alert] = &[
    Alert {
        name: "GthulhuDegraded",
        value: r#"max_over_time(gthulhu_scheduler_mode{mode="degraded"}[1m])"#, bound: "== 1", lasting: "2m", severity: "warning",
        summary: "{{ $labels.instance }}: the core schedules alone, the policy is not asked",
        description: "The agent is late or gone. Nothing is lost, but priorities do not hold. gthulhu-daemon status tells why; docs/debugging.md what to do.",
        fires: (&[(r#"gthulhu_scheduler_mode{mode="degraded"}"#, "0 1x9")], 5),
        silent: &[(r#"gthulhu_scheduler_mode{mode="degraded"}"#, "0 1 0x9")],
    },
    Alert {
        name: "GthulhuCrashLoop",
        value: r#"gthulhu_scheduler_off_info{why="crash loop"}"#, bound: "== 1", lasting: "0m", severity: "critical",
        summary: "{{ $labels.instance }}: agents do not live, the kernel's own scheduler is in charge",
        description: "Eight agents in a row lived for less than 10 s. The log has how each ended. 'gthulhu-daemon mode agent' starts it again.",
        fires: (&[(r#"gthulhu_scheduler_off_info{why="crash loop"}"#, "1x9")], 1),
        silent: &[(r#"gthulhu_scheduler_off_info{why="mode"}"#, "1x9")],
    },
    Alert {
        name: "GthulhuEjected",
        value: "increase(gthulhu_scheduler_ejections_total[15m])", bound: "> 0", lasting: "0m", severity: "critical",
        summary: "{{ $labels.instance }}: the kernel removed the scheduler",
        description: "A task waited for longer than scheduler.stall_timeout_ms, or the core did what it must not. Reason and dump are in the daemon's log and in status --json, under ejections.last. Please report it.",
        fires: (&[("gthulhu_scheduler_ejections_total", "0x5 1x9")], 7),
        silent: &[("gthulhu_scheduler_ejections_total", "3x15")],
    },
    Alert {
        name: "GthulhuTakeovers",
        value: r#"sum without (reason) (increase(gthulhu_scheduler_takeovers_total{reason=~"late|agent exit"}[10m]))"#, bound: "> 5", lasting: "0m", severity: "warning",
        summary: "{{ $labels.instance }}: the core took over {{ $value | humanize }} times in 10 minutes",
        description: "The agent is late again and again: its CPUs are taken by real-time tasks, the machine swaps, or a policy computes for too long. Look at the legs of a wakeup and at the agent's page faults.",
        fires: (&[(r#"gthulhu_scheduler_takeovers_total{reason="late"}"#, "0+1x15")], 12),
        silent: &[(r#"gthulhu_scheduler_takeovers_total{reason="late"}"#, "0 1 1x15"), (r#"gthulhu_scheduler_takeovers_total{reason="kernel mode"}"#, "0+9x15")],
    },
    Alert {
        name: "GthulhuEventsDropped",
        value: "rate(gthulhu_scheduler_congested_total[5m]) + rate(gthulhu_scheduler_notes_dropped_total[5m]) + rate(gthulhu_scheduler_exit_dropped_total[5m])", bound: "> 1", lasting: "5m", severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanize }} events a second find no room on the way to the agent",
        description: "The core runs those tasks by its own rule. More wakeups than the agent can decide: a permit lets a decision hold for several (scheduler.permit).",
        fires: (&[("gthulhu_scheduler_congested_total", "0+600x20"), ("gthulhu_scheduler_notes_dropped_total", "0x20"), ("gthulhu_scheduler_exit_dropped_total", "0x20")], 15),
        silent: &[("gthulhu_scheduler_congested_total", "0+6x20"), ("gthulhu_scheduler_notes_dropped_total", "7x20"), ("gthulhu_scheduler_exit_dropped_total", "0x20")],
    },
    Alert {
        name: "GthulhuStreamDropped",
        value: "rate(gthulhu_events_dropped_total[5m])", bound: "> 0.1", lasting: "5m", severity: "info",
        summary: "{{ $labels.instance }}: a reader of the event stream misses {{ $value | humanize }} events a second",
        description: "It reads too slowly, and is told how many it missed.",
        fires: (&[("gthulhu_events_dropped_total", "0+60x20")], 15),
        silent: &[("gthulhu_events_dropped_total", "60x20")],
    },
    Alert {
        name: "GthulhuPodRunDelay",
        value: r#"histogram_quantile(0.99, sum by (namespace, pod, le) (rate(gthulhu_group_run_delay_seconds_bucket{pod!~"|other"}[5m])))"#, bound: "> 0.1", lasting: "10m", severity: "warning",
        summary: "{{ $labels.namespace }}/{{ $labels.pod }}: one wait of a hundred for a CPU takes {{ $value | humanizeDuration }}",
        description: "Its threads are runnable and do not run. Who ran meanwhile: gthulhu_group_waited_behind_seconds_total, or 'gthulhu-daemon top'.",
        fires: (&[(r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="0.1"}"#, "0+10x30"), (r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="1"}"#, "0+100x30"), (r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="+Inf"}"#, "0+100x30")], 20),
        silent: &[(r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="0.1"}"#, "0+100x30"), (r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="1"}"#, "0+100x30"), (r#"gthulhu_group_run_delay_seconds_bucket{namespace="shop",pod="cart",le="+Inf"}"#, "0+100x30")],
    },
    Alert {
        name: "GthulhuThrottled",
        value: "sum by (namespace, pod, unit) (rate(gthulhu_group_throttled_seconds_total[5m])) / (sum by (namespace, pod, unit) (rate(gthulhu_group_throttled_seconds_total[5m])) + sum by (namespace, pod, unit) (rate(gthulhu_group_cpu_seconds_total[5m])))", bound: "> 0.25", lasting: "15m", severity: "info",
        summary: "{{ $labels.namespace }}/{{ $labels.pod }}{{ $labels.unit }}: throttled for {{ $value | humanizePercentage }} of the time that it wants to run",
        description: "cpu.max holds it back. That is no contention, and no scheduler helps: raise the limit, or let it do less.",
        fires: (&[(r#"gthulhu_group_throttled_seconds_total{namespace="shop",pod="cart"}"#, "0+30x30"), (r#"gthulhu_group_cpu_seconds_total{namespace="shop",pod="cart"}"#, "0+30x30")], 25),
        silent: &[(r#"gthulhu_group_throttled_seconds_total{namespace="shop",pod="cart"}"#, "0+1x30"), (r#"gthulhu_group_cpu_seconds_total{namespace="shop",pod="cart"}"#, "0+30x30")],
    },
    Alert {
        name: "GthulhuLimitsUnenforced",
        value: "gthulhu_scheduler_limits_unenforced", bound: "> 0", lasting: "10m", severity: "warning",
        summary: "{{ $labels.instance }}: nobody enforces the cpu.max of {{ $value }} cgroups",
        description: "This kernel does not tell schedulers of limits (before 6.17), or scheduler.limits is off.",
        fires: (&[("gthulhu_scheduler_limits_unenforced", "2x20")], 15),
        silent: &[("gthulhu_scheduler_limits_unenforced", "0x20")],
    },
    Alert {
        name: "GthulhuConfigDrift",
        value: "count by (job) (count by (job, hash) (gthulhu_config_info))", bound: "> 1", lasting: "30m", severity: "warning",
        summary: "{{ $value }} different configurations among the nodes of {{ $labels.job }}",
        description: "gthulhu_config_info has the hash of each node; 'gthulhu-daemon config explain' there shows each key and where its value is from.",
        fires: (&[(r#"gthulhu_config_info{job="g",instance="a",hash="1"}"#, "1x50"), (r#"gthulhu_config_info{job="g",instance="b",hash="2"}"#, "1x50")], 40),
        silent: &[(r#"gthulhu_config_info{job="g",instance="a",hash="1"}"#, "1x50"), (r#"gthulhu_config_info{job="g",instance="b",hash="1"}"#, "1x50")],
    },
    Alert {
        name: "GthulhuConfigRefused",
        value: "gthulhu_config_change_failed", bound: "== 1", lasting: "5m", severity: "warning",
        summary: "{{ $labels.instance }}: a runtime configuration could not be made so",
        description: "What was before holds. lastError in /api/v1/status says why.",
        fires: (&[("gthulhu_config_change_failed", "1x20")], 8),
        silent: &[("gthulhu_config_change_failed", "0x20")],
    },
    Alert {
        name: "GthulhuMonitorFull",
        value: "gthulhu_monitor_rows_used / gthulhu_monitor_rows", bound: "> 0.9", lasting: "10m", severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the monitor's rows are in use",
        description: "When none is free, further cgroups are counted together as 'other'. Nothing is lost, but they cannot be told apart.",
        fires: (&[("gthulhu_monitor_rows_used", "95x20"), ("gthulhu_monitor_rows", "100x20")], 15),
        silent: &[("gthulhu_monitor_rows_used", "89x20"), ("gthulhu_monitor_rows", "100x20")],
    },
    Alert {
        name: "GthulhuMonitorLabelsFull",
        value: "gthulhu_monitor_label_sets / gthulhu_monitor_label_sets_limit", bound: "> 0.9", lasting: "10m", severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanizePercentage }} of the label sets are in use",
        description: "When none is left, further pods and services are counted together as 'other'. Select fewer: monitor.monitor_all, PodSchedulingMetrics.",
        fires: (&[("gthulhu_monitor_label_sets", "480x20"), ("gthulhu_monitor_label_sets_limit", "501x20")], 15),
        silent: &[("gthulhu_monitor_label_sets", "30x20"), ("gthulhu_monitor_label_sets_limit", "501x20")],
    },
    Alert {
        name: "GthulhuMonitorMisses",
        value: "rate(gthulhu_monitor_missed_events_total[5m]) / rate(gthulhu_monitor_events_total[5m])", bound: "> 0.01", lasting: "10m", severity: "warning",
        summary: "{{ $labels.instance }}: {{ $value | humanizePercentage }} of all runs could not be counted when they ended",
        description: "The kernel had no memory for the threads' state. Their time is in their next runs, but histograms are not exact.",
        fires: (&[("gthulhu_monitor_missed_events_total", "0+60x30"), ("gthulhu_monitor_events_total", "0+600x30")], 20),
        silent: &[("gthulhu_monitor_missed_events_total", "5x30"), ("gthulhu_monitor_events_total", "0+600x30")],
    },
    Alert {
        name: "GthulhuMonitorOff",
        value: "gthulhu_monitor_wanted - gthulhu_monitor_running", bound: "> 0", lasting: "5m", severity: "warning",
        summary: "{{ $labels.instance }}: the monitor does not measure, though it is wanted",
        description: "The kernel refused its programs, or it may not load them: monitor.error in /api/v1/status says why. It is tried again.",
        fires: (&[("gthulhu_monitor_wanted", "1x20"), ("gthulhu_monitor_running", "0x20")], 8),
        silent: &[("gthulhu_monitor_wanted", "0x20"), ("gthulhu_monitor_running", "0x20")],
    },
    Alert {
        name: "GthulhuSupervisorSilent",
        value: "gthulhu_supervisor_answers", bound: "== 0", lasting: "2m", severity: "critical",
        summary: "{{ $labels.instance }}: the supervisor does not answer",
        description: "It did not answer within 2 s, several times. The core goes on. systemd's watchdog ends and restarts it; else look where it waits: /proc/PID/stack.",
        fires: (&[("gthulhu_supervisor_answers", "0x20")], 4),
        silent: &[("gthulhu_supervisor_answers", "1 0 1x20")],
    },
];

const RULES: &str = "gthulhu.rules.yaml";
const HEADER: &str = "# Written by 'gthulhu-daemon metrics rules'. Change gthulhu-daemon/daemon/src/observe/rules.rs instead.\n";

/// The files.
pub(super) fn files() -> Files {
    [(RULES.to_owned(), rules()), ("gthulhu.test.yaml".to_owned(), tests())].into()
}

/// A scalar that means the same whatever is in it: YAML takes JSON's.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

fn rules() -> String {
    let mut out = format!("{HEADER}groups:\n- name: gthulhu\n  rules:\n");
    for a in ALERTS {
        let _ = writeln!(out, "  - alert: {}", a.name);
        let _ = writeln!(out, "    expr: {} {}", a.value, a.bound);
        let _ = writeln!(out, "    for: {}\n    labels:\n      severity: {}", a.lasting, a.severity);
        let _ = writeln!(out, "    annotations:\n      summary: {}", quoted(a.summary));
        let _ = writeln!(out, "      description: {}", quoted(a.description));
    }
    out
}

fn tests() -> String {
    let mut out = format!(
        "{HEADER}# promtool test rules gthulhu.test.yaml\nrule_files: [{RULES}]\nevaluation_interval: 1m\ntests:\n"
    );
    for a in ALERTS {
        let at = a.fires.1;
        for (series, count) in [(a.fires.0, 1), (a.silent, 0)] {
            let _ = writeln!(out, "- interval: 1m\n  input_series:");
            for (series, values) in series {
                let _ = writeln!(out, "  - {{ series: {}, values: {} }}", quoted(series), quoted(values));
            }
            // How many of it fire: its labels and texts are in what it looks at.
            let query = quoted(&format!(
                "count(ALERTS{{alertname=\"{}\",alertstate=\"firing\"}}) or vector(0)",
                a.name
            ));
            let _ = writeln!(out, "  promql_expr_test:\n  - expr: {query}\n    eval_time: {at}m");
            let _ = writeln!(out, "    exp_samples: [{{ labels: \"{{}}\", value: {count} }}]");
        }
    }
    out
}

#[cfg(test)]
mod tests_of_rules {
    use super::super::series;
    use super::*;

    #[test]
    fn each_alert_looks_at_metrics_that_there_are_and_says_what_to_do() {
        let all = series::all();
        for a in ALERTS {
            for word in series::words(a.value) {
                assert!(series::named(&all, word).is_some(), "{}: {word} is no metric", a.name);
                let tested =
                    |cases: &[(&str, &str)]| cases.iter().any(|(series, _)| series.starts_with(word));
                assert!(tested(a.fires.0) && tested(a.silent), "{}: no case has {word}", a.name);
            }
            assert!(a.description.ends_with('.') && a.summary.contains("{{"), "{}", a.name);
            assert!(["info", "warning", "critical"].contains(&a.severity), "{}", a.name);
        }
    }

    #[test]
    fn what_the_issue_asks_for_is_there() {
        for name in [
            "Degraded",
            "CrashLoop",
            "Ejected",
            "Takeovers",
            "EventsDropped",
            "PodRunDelay",
            "Throttled",
            "ConfigDrift",
            "MonitorFull",
        ] {
            assert!(ALERTS.iter().any(|alert| alert.name == format!("Gthulhu{name}")), "{name}");
        }
    }
}
