//! Medians, ratios to the first scheduler of the same boot, and how far they spread.

use super::SCHEDULERS;
use super::record::{Of, Record};
use std::fmt::Write as _;

/// Which way is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Better {
    Less,
    More,
}

/// A figure of a load.
#[derive(Debug, Clone, Copy)]
pub(super) struct Metric {
    pub(super) load: &'static str,
    pub(super) key: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: &'static str,
    pub(super) better: Better,
}

/// What a load is, for people.
pub(super) fn describe(load: &str) -> &'static str {
    match load {
        "pipe" => "perf bench sched pipe: two processes wake each other, 20,000 round trips",
        "request" => "a messenger and two workers for each CPU (the form of schbench)",
        "periodic" => "a thread with a timer of 2 ms among four hogs for each CPU (the form of cyclictest)",
        "hogs" => "what four hogs for each CPU get done beside a thread with a timer of 2 ms",
        "hackbench-processes" => "hackbench, 2 groups of 20 processes",
        "hackbench-threads" => "hackbench, 2 groups of 20 threads",
        "forks" => "fork, exec and wait, in two processes for each CPU",
        "ping" => {
            "1,000 pings over a pair of veth under stress-ng with two hogs for each CPU; the kernel answers"
        }
        "ping-process" => "the same pings, answered by a process: two wakeups for each",
        _ => "",
    }
}

const fn metric(
    load: &'static str,
    key: &'static str,
    title: &'static str,
    unit: &'static str,
    better: Better,
) -> Metric {
    Metric { load, key, title, unit, better }
}

use Better::{Less, More};

/// In the order in which they are shown.
pub(super) const METRICS: &[Metric] = &[
    metric("pipe", "round_trip_us", "round trip", "us", Less),
    metric("request", "per_second", "requests per second", "/s", More),
    metric("request", "wake_p50_us", "wake to run, p50", "us", Less),
    metric("request", "wake_p99_us", "wake to run, p99", "us", Less),
    metric("periodic", "wake_p50_us", "wake to run, p50", "us", Less),
    metric("periodic", "wake_p99_us", "wake to run, p99", "us", Less),
    metric("periodic", "wake_max_us", "wake to run, max", "us", Less),
    metric("hackbench-processes", "seconds", "time", "s", Less),
    metric("hackbench-threads", "seconds", "time", "s", Less),
    metric("hogs", "per_second", "units of work per second", "/s", More),
    metric("forks", "per_second", "children per second", "/s", More),
    metric("ping", "rtt_p50_us", "round trip, p50", "us", Less),
    metric("ping", "rtt_p99_us", "round trip, p99", "us", Less),
    metric("ping", "rtt_max_us", "round trip, max", "us", Less),
    metric("ping-process", "rtt_p50_us", "round trip, p50", "us", Less),
    metric("ping-process", "rtt_p99_us", "round trip, p99", "us", Less),
    metric("ping-process", "rtt_max_us", "round trip, max", "us", Less),
];

/// One scheduler at one metric.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Line {
    pub(super) scheduler: &'static str,
    pub(super) count: usize,
    /// Of the figures.
    pub(super) median: f64,
    /// Of the ratios to the first scheduler in the same round: median, least, most. `None`: there was no pair.
    pub(super) ratio: Option<[f64; 3]>,
    /// The part of these ratios that lies on the median's side of 1.
    pub(super) agree: f64,
    /// (most - least) / median of the figures.
    pub(super) spread: f64,
}

impl Line {
    /// Whether the ratio's direction is more than chance: nine pairs of ten, which coins do once in fifty times.
    pub(super) fn is_sure(&self) -> bool {
        const SURE: f64 = 0.9;
        self.agree >= SURE - 1e-9
    }
}

/// The middle one, or the mean of the two in the middle; `None` of nothing.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        n if n % 2 == 1 => Some(sorted[middle]),
        _ => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
    }
}

/// All schedulers at a metric; those without a figure are left out.
pub(super) fn lines(all: &Record, boot: &str, metric: &Metric) -> Vec<Line> {
    let series =
        |scheduler| all.series(&Of { boot, load: metric.load, scheduler, key: metric.key, watched: false });
    let base = series(SCHEDULERS[0]);
    let line = |scheduler: &'static str| {
        let figures = series(scheduler);
        let values: Vec<f64> = figures.iter().map(|(_, value)| *value).collect();
        let median_value = median(&values)?;
        let of_round = |round| base.iter().find(|(other, value)| *other == round && *value > 0.0);
        let ratios: Vec<f64> =
            figures.iter().filter_map(|(round, value)| Some(value / of_round(*round)?.1)).collect();
        let [least, most] = ends(&values);
        let middle = median(&ratios).unwrap_or(1.0);
        let agreeing = ratios.iter().filter(|ratio| (**ratio < 1.0) == (middle < 1.0)).count();
        Some(Line {
            agree: agreeing as f64 / ratios.len().max(1) as f64,
            scheduler,
            count: values.len(),
            median: median_value,
            ratio: median(&ratios).map(|middle| {
                let [least, most] = ends(&ratios);
                [middle, least, most]
            }),
            spread: if median_value > 0.0 { (most - least) / median_value } else { 0.0 },
        })
    };
    SCHEDULERS.iter().filter_map(|scheduler| line(scheduler)).collect()
}

fn ends(values: &[f64]) -> [f64; 2] {
    [
        values.iter().copied().fold(f64::INFINITY, f64::min),
        values.iter().copied().fold(f64::NEG_INFINITY, f64::max),
    ]
}

/// What the observer saw of one scheduler under one load: medians of its rounds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    pub(super) scheduler: &'static str,
    pub(super) wakeups_per_second: f64,
    pub(super) p50_us: f64,
    pub(super) p99_us: f64,
    pub(super) idle_percent: f64,
    pub(super) waiting_percent: f64,
    pub(super) untold_percent: f64,
    pub(super) longest_us: f64,
    pub(super) agent_switches: f64,
    /// Of one CPU's time.
    pub(super) agent_percent: Option<f64>,
    pub(super) after_agent_percent: f64,
    /// What our daemon counts in the same rounds: decisions, and activations of the agent.
    pub(super) own: Option<(f64, f64)>,
    pub(super) lost: f64,
    /// Of the time of the guest's CPUs, what the host kept them waiting.
    pub(super) host_percent: Option<f64>,
}

/// The bound of docs/lab.md for idle CPUs while work waits, per cent. In an emulated guest the first scheduler can exceed
/// it by the host's doing: then what is more than that one's counts.
pub(super) const IDLE_BOUND: f64 = 1.0;

impl Seen {
    pub(super) fn is_beyond(&self, base: Option<&Self>) -> bool {
        self.untold_percent > IDLE_BOUND + base.map_or(0.0, |base| base.untold_percent)
    }
}

pub(super) fn seen(all: &Record, boot: &str, load: &str) -> Vec<Seen> {
    let one = |scheduler: &'static str| {
        let get = |key: &str| {
            let figures = all.series(&Of { boot, load, scheduler, key, watched: true });
            median(&figures.iter().map(|(_, value)| *value).collect::<Vec<_>>())
        };
        Some(Seen {
            scheduler,
            wakeups_per_second: get("seen_wakeups")? / get("seen_seconds")?.max(1e-9),
            p50_us: get("seen_wake_p50_us")?,
            p99_us: get("seen_wake_p99_us")?,
            idle_percent: get("seen_idle_percent")?,
            waiting_percent: get("seen_idle_while_waiting_percent")?,
            untold_percent: get("seen_idle_untold_percent")?,
            longest_us: get("seen_idle_while_waiting_max_us")?,
            agent_switches: get("seen_agent_switches")?,
            agent_percent: get("seen_agent_percent"),
            after_agent_percent: get("seen_after_agent_percent")?,
            own: get("own_decisions").zip(get("own_activations")),
            lost: get("seen_lost")?,
            host_percent: get("host_waited_percent"),
        })
    };
    SCHEDULERS.iter().filter_map(|scheduler| one(scheduler)).collect()
}

/// A number with three digits that mean something.
pub(super) fn short(value: f64) -> String {
    match value.abs() {
        a if a >= 1e6 => format!("{:.2} M", value / 1e6),
        a if a >= 1e4 => format!("{:.1} k", value / 1e3),
        a if a >= 100.0 => format!("{value:.0}"),
        a if a >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// The summary as text.
pub(super) fn text(all: &Record, order: &[(&'static str, &'static str)]) -> String {
    let mut text = String::new();
    for (boot, load) in order {
        let _ = writeln!(text, "\n{boot}, {load}: {}", describe(load));
        let mut has_figures = false;
        for metric in METRICS.iter().filter(|metric| metric.load == *load) {
            let lines = lines(all, boot, metric);
            if lines.is_empty() {
                continue;
            }
            has_figures = true;
            let way = if metric.better == Less { "less is better" } else { "more is better" };
            let _ = writeln!(
                text,
                "  {:<24}{:>12}{:>16}{:>18}{:>10}{:>4}",
                format!("{} ({way})", metric.title).chars().take(40).collect::<String>(),
                metric.unit,
                "ratio",
                "least..most",
                "spread %",
                "n"
            );
            for line in lines {
                let doubt = if line.is_sure() { "" } else { "  ~" };
                let (ratio, range) = line.ratio.map_or(("-".into(), "-".into()), |[middle, least, most]| {
                    (format!("{middle:.2}"), format!("{least:.2}..{most:.2}"))
                });
                let _ = writeln!(
                    text,
                    "    {:<32}{:>10}{ratio:>8}{range:>18}{:>10.1}{:>4}{doubt}",
                    line.scheduler,
                    short(line.median),
                    100.0 * line.spread,
                    line.count
                );
            }
        }
        if !has_figures {
            let _ = writeln!(text, "  NOT MEASURED; why is below");
        }
        let seen = seen(all, boot, load);
        if !seen.is_empty() {
            let _ = writeln!(
                text,
                "  observer: {:<14}{:>11}{:>9}{:>9}{:>8}{:>9}{:>10}{:>9}{:>9}{:>8}{:>8}{:>10}{:>7}",
                "",
                "wakeups/s",
                "p50 us",
                "p99 us",
                "idle %",
                "waits %",
                ">100us %",
                "agent",
                "own",
                "agent %",
                "after %",
                "dec/turn",
                "host %"
            );
        }
        let base = seen.first().filter(|seen| seen.scheduler == SCHEDULERS[0]);
        for one in &seen {
            let own = one.own.map_or("-".into(), |(_, activations)| short(activations));
            let per_turn = match one.own {
                Some((decisions, _)) if one.agent_switches > 0.0 => short(decisions / one.agent_switches),
                _ => "-".into(),
            };
            let mark = if one.is_beyond(base) { " !" } else { "" };
            let lost = if one.lost > 0.0 { " LOST RECORDS: figures too low" } else { "" };
            let host = one.host_percent.map_or("-".into(), |percent| format!("{percent:.1}"));
            let agent = one.agent_percent.map_or("-".into(), |percent| format!("{percent:.1}"));
            let _ = writeln!(
                text,
                "    {:<20}{:>11}{:>9}{:>9}{:>8.2}{:>9.2}{:>10.2}{:>9}{own:>9}{agent:>8}{:>8.1}{per_turn:>10}{host:>7}{mark}{lost}",
                one.scheduler,
                short(one.wakeups_per_second),
                short(one.p50_us),
                short(one.p99_us),
                one.idle_percent,
                one.waiting_percent,
                one.untold_percent,
                short(one.agent_switches),
                one.after_agent_percent
            );
        }
    }
    let _ = writeln!(
        text,
        "\nratio: median of the ratios to {} in the same round; ~: fewer than nine pairs of ten are on its side of 1.\nidle, waits: of the time of \
         all CPUs; waits: idle while a task waits that may run there; >100us: the part of it in\nstretches longer than that (a CPU that was not told; \
         ! marks more than {IDLE_BOUND} % beyond {}'s).\nagent: context switches to the agent's thread, own: activations by \
         the daemon's own count; agent %: its share of\none CPU; after: wakeups between which and the task's turn the agent ran; dec/turn: \
         the daemon's decisions for each of those\nswitches; host: time in which the host kept the guest's CPUs waiting, per cent of one CPU.",
        SCHEDULERS[0], SCHEDULERS[0]
    );
    text.push_str(&problems(all));
    text
}

/// What is missing, and why.
fn problems(all: &Record) -> String {
    if all.problems.is_empty() {
        return String::from("\nNothing was skipped, refused or ejected.\n");
    }
    let mut text = format!("\n{} measurements or parts are missing:\n", all.problems.len());
    for problem in &all.problems {
        let who = if problem.scheduler.is_empty() { "all schedulers" } else { &problem.scheduler };
        let load = if problem.load.is_empty() { "all loads" } else { &problem.load };
        let round = if problem.round == 0 { String::new() } else { format!(", round {}", problem.round) };
        let boot = if problem.boot.is_empty() { String::new() } else { format!("{}, ", problem.boot) };
        let _ = writeln!(text, "  {}: {boot}{load}, {who}{round}: {}", problem.kind, problem.text);
    }
    text
}

#[cfg(test)]
pub(super) fn example() -> Record {
    let mut record = Record::default();
    for line in [
        "value,pipe,1,0,round_trip_us,10,EEVDF",
        "value,pipe,2,0,round_trip_us,20,EEVDF",
        "value,pipe,3,0,round_trip_us,30,EEVDF",
        "value,pipe,1,0,round_trip_us,20,gthulhu",
        "value,pipe,2,0,round_trip_us,30,gthulhu",
        "value,pipe,3,0,round_trip_us,120,gthulhu",
        "value,pipe,9,0,round_trip_us,1,gthulhu",
        "value,pipe,1,1,seen_wakeups,500,gthulhu",
        "value,pipe,1,1,seen_seconds,2,gthulhu",
        "value,pipe,1,1,seen_wake_p50_us,7,gthulhu",
        "value,pipe,1,1,seen_wake_p99_us,9,gthulhu",
        "value,pipe,1,1,seen_idle_percent,50,gthulhu",
        "value,pipe,1,1,seen_idle_while_waiting_percent,3,gthulhu",
        "value,pipe,1,1,seen_idle_untold_percent,2,gthulhu",
        "value,pipe,1,1,seen_idle_while_waiting_max_us,300,gthulhu",
        "value,pipe,1,1,seen_agent_switches,100,gthulhu",
        "value,pipe,1,1,seen_after_agent_percent,98,gthulhu",
        "value,pipe,1,1,seen_lost,0,gthulhu",
        "value,pipe,1,1,own_decisions,250,gthulhu",
        "value,pipe,1,1,own_activations,101,gthulhu",
        "latency,pipe,1024,10,gthulhu",
        "latency,pipe,8192,30,gthulhu",
        "strip,pipe,0,0,5000,1,gthulhu-daemon,gthulhu",
        "strip,pipe,0,5000,700,0,perf<x>,gthulhu",
        "problem,ejected,pipe,2,scx_bpfland,runnable task <stall>, 5 s",
    ] {
        assert_eq!(record.take("path", &format!("compare,{line}")).is_some(), line.starts_with("problem"));
    }
    record
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_are_of_even_and_odd_numbers() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn ratios_are_of_pairs_in_one_round() {
        let all = example();
        let lines = lines(&all, "path", &METRICS[0]);
        assert_eq!(lines.len(), 2, "who has no figure is not shown as one");
        assert_eq!(lines[0].ratio, Some([1.0, 1.0, 1.0]));
        // 20/10, 30/20, 120/30; round 9 has no partner.
        assert_eq!(lines[1].ratio, Some([2.0, 1.5, 4.0]));
        assert_eq!((lines[1].count, lines[1].median), (4, 25.0));
        assert!(lines[1].is_sure(), "three of three");
        assert!(!Line { agree: 0.8, ..lines[1].clone() }.is_sure());
        assert!(lines_of_nothing(&all).is_empty());
    }

    fn lines_of_nothing(all: &Record) -> Vec<Line> {
        lines(all, "parallel", &METRICS[0])
    }

    #[test]
    fn the_summary_says_what_is_missing_and_what_is_beyond_its_bound() {
        let text = text(&example(), &[("path", "pipe"), ("path", "request")]);
        for expected in [
            "2.00",
            "1.50..4.00",
            "NOT MEASURED",
            "ejected: path, pipe, scx_bpfland, round 2: runnable task",
            " 2.50",
            " !",
        ] {
            assert!(text.contains(expected), "{expected}: {text}");
        }
        let nothing = super::text(&Record::default(), &[]);
        assert!(nothing.contains("Nothing was skipped"));
    }

    #[test]
    fn a_bound_is_beyond_what_the_base_has() {
        let seen = seen(&example(), "path", "pipe").remove(0);
        assert_eq!(seen.wakeups_per_second, 250.0);
        assert!(seen.is_beyond(None));
        let base = Seen { untold_percent: 1.5, ..seen.clone() };
        assert!(!seen.is_beyond(Some(&base)));
    }

    #[test]
    fn every_metric_is_of_a_load_that_has_words() {
        assert!(METRICS.iter().all(|metric| !describe(metric.load).is_empty()));
        let loads = || super::super::BOOTS.iter().flat_map(|boot| boot.loads);
        assert!(loads().all(|load| METRICS.iter().any(|metric| metric.load == *load)));
    }
}
