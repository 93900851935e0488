//! Figures for people in a terminal, and for programs.

use std::fmt::Write;

use qumun::Nanos;
use qumun::sim::Histogram;
use qumun::trace::Origin;
use serde_json::{Value, json};

use crate::compare::{Comparison, Loss, Measure, compare};
use crate::figures::{DISTANCES, Run};

/// Which way is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Better {
    Less,
    More,
    Neither,
}

/// One line of a table.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) better: Better,
    /// Differences below this are noise: a part of the larger value.
    pub(crate) noise: f64,
    pub(crate) values: Vec<f64>,
    pub(crate) show: fn(f64) -> String,
}

impl Row {
    /// Against the first run: how much more, and is that good? `None`: as good as the same.
    pub(crate) fn change(&self, index: usize) -> Option<(f64, Better)> {
        let (old, new) = (self.values[0], self.values[index]);
        let large = old.abs().max(new.abs());
        if index == 0 || large == 0.0 || (new - old).abs() <= self.noise * large {
            return None;
        }
        let sort = match self.better {
            Better::Neither => Better::Neither,
            Better::Less if new < old => Better::More,
            Better::More if new > old => Better::More,
            _ => Better::Less,
        };
        Some(((new - old) / old, sort))
    }
}

pub(crate) fn time(ns: f64) -> String {
    match ns {
        n if n >= 1e9 => format!("{:.2} s", n / 1e9),
        n if n >= 1e6 => format!("{:.2} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.1} us", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

fn percent(part: f64) -> String {
    format!("{:.2} %", part * 100.0)
}

fn count(n: f64) -> String {
    match n {
        n if n >= 1e7 => format!("{:.1} M", n / 1e6),
        n if n >= 1e5 => format!("{:.1} k", n / 1e3),
        n => format!("{n:.0}"),
    }
}

fn index(n: f64) -> String {
    format!("{n:.3}")
}

/// The figures of runs, line by line.
pub(crate) fn rows(runs: &[Run]) -> Vec<Row> {
    let row = |name, better, noise, show, value: &dyn Fn(&Run) -> f64| Row {
        name,
        better,
        noise,
        values: runs.iter().map(value).collect(),
        show,
    };
    let quantile = |part: f64| move |run: &Run| run.wake_to_run.quantile(part).0 as f64;
    let mut rows = vec![
        row("wake to run, p50", Better::Less, 0.1, time, &quantile(0.5)),
        row("wake to run, p99", Better::Less, 0.1, time, &quantile(0.99)),
        row("wake to run, p99.9", Better::Less, 0.15, time, &quantile(0.999)),
        row("wake to run, max", Better::Less, 0.2, time, &|run| run.wake_to_run.max().0 as f64),
        row("longest wait", Better::Less, 0.2, time, &|run| {
            run.groups.iter().map(|group| group.longest_wait.0).max().unwrap_or(0) as f64
        }),
        row("fairness (Jain)", Better::More, 0.005, index, &|run| run.fairness.0),
        row("CPU time used by tasks", Better::More, 0.005, percent, &Run::utilization),
        row("things done per second", Better::More, 0.01, count, &Run::throughput),
        row("idle while work waits", Better::Less, 0.05, percent, &|run| {
            run.wasted.0 as f64 / (run.time.0 as f64 * f64::from(run.header.topology.online().len())).max(1.0)
        }),
        row("agent", Better::Less, 0.05, percent, &|run| {
            run.agent_ran.0 as f64 / (run.time.0 as f64).max(1.0)
        }),
        row("wakeups per second", Better::Neither, 0.01, count, &|run| {
            run.tasks.iter().map(|task| task.wakeups).sum::<u64>() as f64 / run.seconds()
        }),
        row("switches per second", Better::Less, 0.02, count, &|run| run.switches as f64 / run.seconds()),
        row("preemptions per second", Better::Neither, 0.02, count, &|run| {
            run.tasks.iter().filter(|task| !task.agent).map(|task| task.preempted).sum::<u64>() as f64
                / run.seconds()
        }),
    ];
    // Where none of the machines has such a distance there is nothing to tell.
    for (place, name) in (1..DISTANCES.len()).map(|place| (place, MOVES[place])) {
        let line = row(name, Better::Less, 0.05, count, &|run| run.moves()[place] as f64 / run.seconds());
        if line.values.iter().any(|value| *value > 0.0) {
            rows.push(line);
        }
    }
    rows
}

const MOVES: [&str; 6] = [
    "",
    "moves within a core, per second",
    "moves within an L2, per second",
    "moves within an L3, per second",
    "moves within a node, per second",
    "moves between nodes, per second",
];

pub(crate) fn origin(run: &Run) -> String {
    match &run.header.origin {
        Origin::Simulated => "simulated".to_owned(),
        Origin::Kernel(release) => format!("Linux {release}"),
    }
}

/// How many lines of losers and groups.
const MOST: usize = 12;

/// The figures of runs beside each other, and who lost against the first.
pub fn text(runs: &[Run]) -> String {
    let mut out = String::new();
    for run in runs {
        let cpus = run.header.topology.online().len();
        let _ = write!(
            out,
            "{}: {}, scheduler {}, {cpus} CPUs, {}, {} tasks",
            run.name,
            origin(run),
            run.header.scheduler,
            time(run.time.0 as f64),
            run.tasks.iter().filter(|task| task.runs > 0).count()
        );
        if run.dropped > 0 {
            let _ = write!(out, "; {} records lost", run.dropped);
        }
        if let Some(cut) = &run.cut {
            let _ = write!(out, "; read in part, up to {cut}");
        }
        out.push('\n');
    }
    out.push('\n');
    let names: Vec<&str> = runs.iter().map(|run| run.name.as_str()).collect();
    let wide = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(12) + 12;
    let head = names
        .iter()
        .fold(String::new(), |line, name| line + &format!("{:>wide$}", format!("{name}{:10}", "")));
    let _ = writeln!(out, "{:32}{head}", "");
    for row in rows(runs) {
        let _ = write!(out, "{:32}", row.name);
        for (place, value) in row.values.iter().enumerate() {
            let mark = match row.change(place) {
                Some((part, Better::More)) => format!(" + {}", change(part)),
                Some((part, Better::Less)) => format!(" ! {}", change(part)),
                Some((part, Better::Neither)) => format!("   {}", change(part)),
                None => String::new(),
            };
            let cell = format!("{}{mark:10}", (row.show)(*value));
            let _ = write!(out, "{cell:>wide$}");
        }
        out.push('\n');
    }
    let _ = writeln!(out, "\n{:32}{head}", "share of CPU time, by group");
    for group in runs.first().into_iter().flat_map(|run| &run.groups).take(MOST) {
        let _ = write!(out, "  {:30}", shortened(&group.name, 30));
        for run in runs {
            let share = run.groups.iter().find(|other| other.name == group.name).map(|other| other.share);
            let cell = share.map_or("-".to_owned(), percent) + &" ".repeat(10);
            let _ = write!(out, "{cell:>wide$}");
        }
        out.push('\n');
    }
    if let Some((first, others)) = runs.split_first() {
        for run in others {
            losers(&mut out, first, run);
        }
    }
    out
}

fn change(part: f64) -> String {
    match part {
        // From nothing.
        part if !part.is_finite() => "new".to_owned(),
        part if part.abs() < 10.0 => format!("{:+.0}%", part * 100.0),
        part => format!("{:.0}x", part + 1.0),
    }
}

fn losers(out: &mut String, first: &Run, run: &Run) {
    let Comparison { groups, tasks, unmatched } = compare(first, run);
    let _ = writeln!(out, "\nwho lost with {}, against {}:", run.name, first.name);
    if groups.is_empty() && tasks.is_empty() {
        out.push_str("  nobody\n");
    }
    for (sort, list) in [("group", groups), ("task", tasks)] {
        let all = list.len();
        for loss in list.iter().take(MOST) {
            let [old, new] = shown(loss);
            let factor = factor(loss.factor);
            let name = shortened(&loss.who, 30);
            let _ = writeln!(
                out,
                "  {sort:5} {name:30} {factor:>8} worse: {} {old} -> {new}",
                loss.measure.name()
            );
        }
        if all > MOST {
            let _ = writeln!(out, "  and {} more", all - MOST);
        }
    }
    if !unmatched.is_empty() {
        let _ = writeln!(out, "  only in one of the two: {}", unmatched.join(", "));
    }
}

pub(crate) fn factor(factor: f64) -> String {
    if factor.is_finite() { format!("{factor:.1}x") } else { "all".to_owned() }
}

pub(crate) fn shown(loss: &Loss) -> [String; 2] {
    loss.values.map(|value| match loss.measure {
        Measure::Slowdown => format!("{value:.2}"),
        _ => time(value),
    })
}

/// A long path ends with what tells it from others.
fn shortened(name: &str, most: usize) -> String {
    let len = name.chars().count();
    if len <= most {
        name.to_owned()
    } else {
        "…".to_owned() + &name.chars().skip(len + 1 - most).collect::<String>()
    }
}

fn latency(times: &Histogram) -> Value {
    let quantile = |part| times.quantile(part).0;
    json!({
        "count": times.count(), "mean_ns": times.mean().0, "p50_ns": quantile(0.5), "p99_ns": quantile(0.99),
        "p999_ns": quantile(0.999), "max_ns": times.max().0,
    })
}

/// All figures for programs. Keys are kept; new ones may come.
pub fn json(runs: &[Run]) -> Value {
    let losses = |losses: &[Loss]| -> Vec<Value> {
        let one = |loss: &Loss| {
            // JSON has no infinity.
            let factor = loss.factor.is_finite().then_some(loss.factor);
            json!({ "who": loss.who, "measure": loss.measure.name(), "factor": factor,
                    "before": loss.values[0], "after": loss.values[1] })
        };
        losses.iter().map(one).collect()
    };
    let run = |run: &Run| {
        let ns = |time: Nanos| time.0;
        json!({
            "name": run.name, "origin": origin(run), "scheduler": run.header.scheduler, "seed": run.header.seed,
            "cpus": run.header.topology.online().len(), "time_ns": ns(run.time), "dropped": run.dropped, "cut": run.cut,
            "wake_to_run": latency(&run.wake_to_run), "fairness": run.fairness.0, "fairness_tasks": run.fairness.1,
            "utilization": run.utilization(), "done_per_second": run.throughput(), "wasted_ns": ns(run.wasted),
            "agent_ns": ns(run.agent_ran), "switches": run.switches,
            "moves": DISTANCES.iter().zip(run.moves())
                .map(|((_, name), n)| ((*name).to_owned(), n.into())).collect::<serde_json::Map<_, _>>(),
            "groups": run.groups.iter().map(|group| json!({
                "name": group.name, "tasks": group.tasks, "ran_ns": ns(group.ran), "waited_ns": ns(group.waited),
                "share": group.share, "done_per_second": group.done_per_second, "slowdown": group.slowdown(),
                "longest_wait_ns": ns(group.longest_wait), "wake_to_run": latency(&group.wake_to_run),
            })).collect::<Vec<_>>(),
        })
    };
    let comparisons: Vec<Value> = runs.split_first().map_or(Vec::new(), |(first, others)| {
        let one = |other: &Run| {
            let Comparison { groups, tasks, unmatched } = compare(first, other);
            json!({ "before": first.name, "after": other.name, "groups": losses(&groups), "tasks": losses(&tasks),
                    "unmatched": unmatched })
        };
        others.iter().map(one).collect()
    });
    json!({ "version": 1, "runs": runs.iter().map(run).collect::<Vec<_>>(), "lost": comparisons })
}
