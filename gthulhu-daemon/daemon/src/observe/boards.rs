//! The dashboards: the node with its scheduler, its pods, and every metric there is.

use gthulhu_monitor::metrics::Kind;

use super::Files;
use super::dashboard::{Dashboard, Look, Panel, Unit};
use super::series::{self, Series};

use Look::{Bars, Lines, Number, Table};

/// What every query has: the node that is looked at. Grafana puts in what was chosen.
const NODE: &str = r#"instance=~"$instance""#;
const INSTANCES: (&str, &str, &str) =
    ("instance", "Node", "label_values(gthulhu_supervisor_answers, instance)");
const NAMESPACES: (&str, &str, &str) =
    ("namespace", "Namespace", "label_values(gthulhu_group_cpu_seconds_total, namespace)");
const PODS: (&str, &str, &str) =
    ("pod", "Pod", r#"label_values(gthulhu_group_cpu_seconds_total{namespace=~"$namespace"}, pod)"#);
/// As rates are asked for: Grafana knows how far apart the points are.
const RATE: &str = "$__rate_interval";

/// The files.
pub(super) fn files() -> Files {
    [node(), pods(), everything()]
        .into_iter()
        .map(|board| (format!("{}.json", board.uid), format!("{:#}\n", board.json())))
        .collect()
}

fn rate(series: &str, matchers: &str) -> String {
    let comma = if matchers.is_empty() { "" } else { "," };
    format!("rate({series}{{{NODE}{comma}{matchers}}}[{RATE}])")
}

/// The length that so many of a hundred stay below.
fn quantile(share: &str, by: &str, histogram: &str, matchers: &str) -> String {
    format!(
        "histogram_quantile({share}, sum by ({by}, le) ({}))",
        rate(&format!("{histogram}_bucket"), matchers)
    )
}

fn node() -> Dashboard {
    let value = |series: &str| format!("{series}{{{NODE}}}");
    let now = vec![
        Panel::new(Table, Unit::Switch, "Who decides", "For each node the mode that holds: normal (the policy's agent), \
            kernel (the core alone, as asked), degraded (the core alone, because the agent is late), none (the kernel's own \
            scheduler).")
            .query(format!("gthulhu_scheduler_mode{{{NODE}}} == 1"), "{{instance}} {{mode}}")
            .width(12),
        Panel::new(Table, Unit::Count, "Configuration", "Version and hash of what each node is configured to do. Nodes \
            with one hash do the same.")
            .query(value("gthulhu_config_info"), "{{instance}} {{hash}}")
            .width(12),
        Panel::new(Number, Unit::Switch, "Degraded", "Whether the core schedules by itself now because the agent is late \
            or gone.")
            .query(format!("max(gthulhu_scheduler_mode{{{NODE},mode=\"degraded\"}})"), "degraded"),
        Panel::new(Number, Unit::Count, "Take-overs", "Times in the range that the core took over.")
            .query(format!("sum(increase(gthulhu_scheduler_takeovers_total{{{NODE}}}[$__range]))"), "take-overs"),
        Panel::new(Number, Unit::Count, "Agents restarted", "Agents in the range that ended and were started again.")
            .query(format!("sum(increase(gthulhu_agent_restarts_total{{{NODE}}}[$__range]))"), "restarts"),
        Panel::new(Number, Unit::Count, "Crash loops", "Times in the range that agents did not live, and the kernel's own \
            scheduler took over.")
            .query(format!("sum(increase(gthulhu_scheduler_crash_loops_total{{{NODE}}}[$__range]))"), "crash loops"),
        Panel::new(Number, Unit::Count, "Ejections", "Times in the range that the kernel removed the scheduler.")
            .query(format!("sum(increase(gthulhu_scheduler_ejections_total{{{NODE}}}[$__range]))"), "ejections"),
        Panel::new(Number, Unit::Count, "Limits nobody enforces", "cgroups with a cpu.max that neither the core nor the \
            kernel enforces now.")
            .query(format!("sum(gthulhu_scheduler_limits_unenforced{{{NODE}}})"), "cgroups"),
    ];
    let wakeups = vec![
        Panel::new(
            Lines,
            Unit::PerSecond,
            "Wakeups, by who decided",
            "Tasks put in order by the agent, let in by a permit \
            of an earlier decision, taken over by the core, and placed on an idle CPU by the kernel.",
        )
        .query(rate("gthulhu_scheduler_dec_applied_total", ""), "{{instance}} decided")
        .query(rate("gthulhu_scheduler_permitted_total", ""), "{{instance}} permitted")
        .query(rate("gthulhu_scheduler_core_enqueued_total", ""), "{{instance}} by the core")
        .query(rate("gthulhu_scheduler_idle_bypass_total", ""), "{{instance}} idle CPU"),
        Panel::new(
            Lines,
            Unit::Seconds,
            "Legs of a wakeup, p99",
            "From being queued to running, and its parts: seen by \
            the agent, decided, inserted by the core. Of sampled wakeups, by powers of four.",
        )
        .query(
            quantile("0.99", "instance, leg", "gthulhu_scheduler_leg_seconds", ""),
            "{{instance}} {{leg}}",
        ),
        Panel::new(
            Lines,
            Unit::PerSecond,
            "Take-overs, by reason",
            "The core takes over when the agent is late, has \
            ended, or is another one; start and kernel mode are no accidents.",
        )
        .query(rate("gthulhu_scheduler_takeovers_total", ""), "{{instance}} {{reason}}"),
        Panel::new(
            Lines,
            Unit::Share,
            "Time degraded",
            "The share of time in which the core was in charge without being \
            asked to; periods that have ended.",
        )
        .query(rate("gthulhu_scheduler_degraded_seconds_total", ""), "{{instance}}"),
        Panel::new(
            Lines,
            Unit::PerSecond,
            "Lost and refused",
            "Events that found the ring full, and decisions that were \
            late, senseless or for a CPU that is not allowed. None of these loses a task: the core runs it.",
        )
        .query(rate("gthulhu_scheduler_congested_total", ""), "{{instance}} ring full")
        .query(rate("gthulhu_scheduler_notes_dropped_total", ""), "{{instance}} notes dropped")
        .query(rate("gthulhu_scheduler_dec_stale_total", ""), "{{instance}} stale")
        .query(rate("gthulhu_scheduler_dec_refused_total", ""), "{{instance}} refused")
        .query(rate("gthulhu_scheduler_dec_bounced_total", ""), "{{instance}} bounced"),
        Panel::new(
            Lines,
            Unit::Count,
            "Open in the ledgers",
            "Events and decisions that have not ended yet. They come \
            back to about zero; what grows for ever is a bug.",
        )
        .query(value("gthulhu_scheduler_events_outstanding"), "{{instance}} events")
        .query(value("gthulhu_scheduler_decisions_open"), "{{instance}} decisions"),
    ];
    let own = vec![
        Panel::new(Lines, Unit::Share, "Monitor: rows and label sets in use", "Beyond 1, cgroups and labels count as \
            other: give the monitor more, or select less.")
            .query(format!("gthulhu_monitor_rows_used{{{NODE}}} / gthulhu_monitor_rows{{{NODE}}}"), "{{instance}} rows")
            .query(
                format!("gthulhu_monitor_label_sets{{{NODE}}} / gthulhu_monitor_label_sets_limit{{{NODE}}}"),
                "{{instance}} label sets",
            ),
        Panel::new(Lines, Unit::PerSecond, "Monitor: runs counted and missed", "Runs of tasks that were counted, and \
            those that were not counted when they ended. A missed run loses no time: it is in the thread's next one.")
            .query(rate("gthulhu_monitor_events_total", ""), "{{instance}} counted")
            .query(rate("gthulhu_monitor_missed_events_total", ""), "{{instance}} missed")
            .query(rate("gthulhu_monitor_rows_refused_total", ""), "{{instance}} without a row"),
        Panel::new(Lines, Unit::PerSecond, "Event stream", "Events told to readers of the stream, and events that a \
            reader was too slow for.")
            .query(rate("gthulhu_events_total", ""), "{{instance}} told")
            .query(rate("gthulhu_events_dropped_total", ""), "{{instance}} dropped"),
        Panel::new(Lines, Unit::PerSecond, "Agent: page faults and allocations", "Each may have kept the agent's thread \
            waiting; there should be none after its start.")
            .query(rate("gthulhu_agent_minor_faults_total", ""), "{{instance}} minor")
            .query(rate("gthulhu_agent_major_faults_total", ""), "{{instance}} major")
            .query(rate("gthulhu_agent_allocations_total", ""), "{{instance}} allocations"),
    ];
    Dashboard {
        uid: "gthulhu-node",
        title: "Gthulhu: nodes",
        about: "Who schedules on each node, how long decisions take, what went wrong.",
        variables: vec![INSTANCES],
        rows: vec![("Now".into(), now), ("Decisions".into(), wakeups), ("The daemon itself".into(), own)],
    }
}

fn pods() -> Dashboard {
    const CHOSEN: &str = r#"namespace=~"$namespace",pod=~"$pod""#;
    const GROUP: &str = "namespace, pod, container, unit";
    const LEGEND: &str = "{{namespace}}/{{pod}} {{container}} {{unit}}";
    let top = |inner: String| format!("topk(10, {inner})");
    let sum = |series: &str| format!("sum by ({GROUP}) ({})", rate(series, CHOSEN));
    let waits = vec![
        Panel::new(Lines, Unit::Seconds, "Run delay, p99", "How long threads were runnable before they ran, after a \
            wakeup or a preemption: one of a hundred waited longer. Sleep and throttling are not in it. The ten worst.")
            .query(top(quantile("0.99", GROUP, "gthulhu_group_run_delay_seconds", CHOSEN)), LEGEND),
        Panel::new(Lines, Unit::Seconds, "Wake to run, p99", "The same after wakeups only: what a request feels that \
            arrives at an idle thread. The ten worst.")
            .query(top(quantile("0.99", GROUP, "gthulhu_group_wake_to_run_seconds", CHOSEN)), LEGEND),
        Panel::new(Lines, Unit::SecondsPerSecond, "Waiting for a CPU", "Seconds of run delay in each second, all threads \
            together: how many of them were waiting at any time. The ten with most.")
            .query(top(sum("gthulhu_group_run_delay_seconds_sum")), LEGEND),
        Panel::new(Lines, Unit::SecondsPerSecond, "Throttled", "Seconds in each second in which cpu.max kept threads from \
            running, all threads together. Another scheduler does not help against it: raise the limit. The ten with most.")
            .query(top(sum("gthulhu_group_throttled_seconds_total")), LEGEND),
        Panel::new(Bars, Unit::SecondsPerSecond, "Who made whom wait", "Seconds in each second that threads of the first \
            waited for a CPU while those of the second ran there; estimated from a sample. The ten pairs with most.")
            .query(
                top(format!("sum by (namespace, pod, unit, behind) ({})", rate("gthulhu_group_waited_behind_seconds_total", CHOSEN))),
                "{{namespace}}/{{pod}}{{unit}} behind {{behind}}",
            )
            .width(24),
    ];
    let runs = vec![
        Panel::new(Lines, Unit::SecondsPerSecond, "CPU", "CPUs in use. The ten with most.")
            .query(top(sum("gthulhu_group_cpu_seconds_total")), LEGEND),
        Panel::new(
            Lines,
            Unit::Seconds,
            "Run, median",
            "How long threads ran when they were given a CPU. Short: they wait \
            for something all the time, and each wait may be followed by a run delay. The ten longest.",
        )
        .query(top(quantile("0.5", GROUP, "gthulhu_group_on_cpu_seconds", CHOSEN)), LEGEND),
        Panel::new(
            Lines,
            Unit::PerSecond,
            "Context switches",
            "Times that threads left a CPU: voluntary, to wait for \
            something; involuntary, though they wanted to go on. The ten with most.",
        )
        .query(
            top(format!("sum by ({GROUP}, kind) ({})", rate("gthulhu_group_context_switches_total", CHOSEN))),
            format!("{LEGEND} {{{{kind}}}}"),
        ),
        Panel::new(
            Lines,
            Unit::PerSecond,
            "Migrations",
            "Times that threads ran on another CPU than before, by the closest \
            thing that the two share: from a core (cheap) to nothing, another NUMA node (dear).",
        )
        .query(
            format!("sum by (distance) ({})", rate("gthulhu_group_migrations_total", CHOSEN)),
            "{{distance}}",
        ),
        Panel::new(Lines, Unit::PerSecond, "Threads created", "Threads that began. The ten with most.")
            .query(top(sum("gthulhu_group_threads_created_total")), LEGEND),
        Panel::new(Table, Unit::Count, "Processes", "Processes in each pod now.").query(
            format!("gthulhu_pod_process_count{{{NODE},namespace=~\"$namespace\",pod_name=~\"$pod\"}}"),
            "",
        ),
    ];
    Dashboard {
        uid: "gthulhu-pods",
        title: "Gthulhu: pods and services",
        about: "What scheduling does to each pod, container and service, under any scheduler.",
        variables: vec![INSTANCES, NAMESPACES, PODS],
        rows: vec![("Waiting".into(), waits), ("Running".into(), runs)],
    }
}

/// A panel for each metric, for whoever looks for one that the other dashboards do not have.
fn everything() -> Dashboard {
    let all = series::all();
    let headings = [
        ("pod", "Pods, by the original's names"),
        ("group", "Containers, services and slices"),
        ("pair", "Who waits for whom"),
        ("monitor", "The monitor itself"),
        ("daemon", "Daemon and scheduler"),
    ];
    let rows = headings.map(|(of, heading)| {
        let panels = all.values().filter(|series| series.of == of).map(panel).collect();
        (heading.to_owned(), panels)
    });
    Dashboard {
        uid: "gthulhu-metrics",
        title: "Gthulhu: every metric",
        about: "One panel for each metric of the daemon, as its registry describes it.",
        variables: vec![INSTANCES],
        rows: rows.into(),
    }
}

fn panel(series: &Series) -> Panel {
    let name = &series.name;
    let (expr, unit) = match (series.kind, series.unit) {
        (Kind::Histogram, _) => {
            let by: Vec<&str> =
                std::iter::once("instance").chain(series.labels.iter().map(String::as_str)).collect();
            (quantile("0.99", &by.join(", "), name, ""), Unit::Seconds)
        }
        (Kind::Counter, "seconds") => (rate(name, ""), Unit::SecondsPerSecond),
        (Kind::Counter, "nanoseconds") => (format!("{} / 1e9", rate(name, "")), Unit::SecondsPerSecond),
        (Kind::Counter, _) => (rate(name, ""), Unit::PerSecond),
        (Kind::Gauge, unit) => {
            let unit = match unit {
                "seconds" => Unit::Seconds,
                "nanoseconds" => Unit::Nanoseconds,
                _ => Unit::Count,
            };
            (format!("{name}{{{NODE}}}"), unit)
        }
    };
    let legend: Vec<String> = std::iter::once("instance")
        .chain(series.labels.iter().map(String::as_str).filter(|label| *label != "node_name"))
        .map(|label| format!("{{{{{label}}}}}"))
        .collect();
    let shown = match series.kind {
        Kind::Histogram => "99 of 100 are shorter: ",
        Kind::Counter => "In a second: ",
        Kind::Gauge => "",
    };
    Panel::new(Lines, unit, name, format!("{shown}{}", series.help)).query(expr, legend.join(" ")).width(8)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use serde_json::Value;

    use super::*;

    fn boards() -> Vec<Value> {
        files().values().map(|text| serde_json::from_str(text).expect("JSON")).collect()
    }

    #[test]
    fn each_panel_says_what_it_shows_in_what_unit_and_asks_for_metrics_that_there_are() {
        let all = series::all();
        for board in boards() {
            let variables: HashSet<String> = board["templating"]["list"]
                .as_array()
                .expect("a list")
                .iter()
                .map(|v| format!("${}", v["name"].as_str().expect("a name")))
                .collect();
            for panel in board["panels"].as_array().expect("panels") {
                assert!(panel["title"].as_str().is_some_and(|title| !title.is_empty()));
                if panel["type"] == "row" {
                    continue;
                }
                let about = panel["description"].as_str().expect("a description");
                assert!(about.ends_with('.'), "{}: {about}", panel["title"]);
                assert!(
                    panel["fieldConfig"]["defaults"]["unit"].as_str().is_some_and(|unit| !unit.is_empty())
                );
                let targets = panel["targets"].as_array().expect("targets");
                assert!(!targets.is_empty());
                for target in targets {
                    let expr = target["expr"].as_str().expect("an expression");
                    assert!(series::words(expr).count() > 0, "{expr}");
                    for word in series::words(expr) {
                        assert!(series::named(&all, word).is_some(), "{word} is no metric: {expr}");
                    }
                    let chosen = expr.split("=~\"").skip(1).filter_map(|rest| rest.split('"').next());
                    assert!(chosen.clone().all(|variable| variables.contains(variable)), "{expr}");
                }
            }
        }
    }

    #[test]
    fn panels_have_places_of_their_own_and_every_metric_has_a_panel() {
        for board in boards() {
            let mut taken = HashSet::new();
            for panel in board["panels"].as_array().expect("panels") {
                let at = |name: &str| panel["gridPos"][name].as_u64().expect("a number");
                assert!(at("x") + at("w") <= 24);
                for (x, y) in (at("x")..at("x") + at("w"))
                    .flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
                {
                    assert!(taken.insert((x, y)), "{}: {x}, {y} is taken twice", panel["title"]);
                }
            }
        }
        let text = &files()["gthulhu-metrics.json"];
        for name in series::all().keys() {
            assert!(text.contains(&format!("\"title\": \"{name}\"")), "{name}");
        }
    }
}
