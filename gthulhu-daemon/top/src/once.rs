//! One interval, as text or as JSON. The fields of the object are documented at the top of this crate.

use std::io::Write;

use gthulhu_monitor::{BUCKETS, Histogram};
use serde_json::{Value, json};

use crate::args::By;
use crate::collect::Collector;
use crate::cpus::Cpu;
use crate::format::{count, percent, time};
use crate::rows::{self, Row};
use crate::sample::Sample;
use crate::scheduler::Daemon;
use crate::{Args, Error, Result};

pub(crate) fn run(args: &Args) -> Result<()> {
    let mut collector = Collector::start(args)?;
    std::thread::sleep(args.interval);
    let sample = collector.sample()?;
    let mut rows = rows::rows(&sample, args.by);
    rows::select(&mut rows, &args.filter, args.sort, false);
    let shown =
        if args.json { format!("{}\n", object(args, &sample, &rows)) } else { text(args, &sample, &rows) };
    match std::io::stdout().write_all(shown.as_bytes()) {
        // A reader that has gone away (| head) is no error.
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => Err(Error::system("cannot print", &e)),
        _ => Ok(()),
    }
}

/// A table for a person or for grep: names are not cut, so they come last.
fn text(args: &Args, sample: &Sample, rows: &[Row]) -> String {
    let delay = if args.by == By::Threads { "DELAYavg" } else { "DELAYp99" };
    let mut lines = Vec::new();
    if let Some(warning) = &sample.warning {
        lines.push(format!("warning: {warning}"));
    }
    for cpu in &sample.cpus {
        lines.push(format!("CPU {:<4} {:>5.1} % in use", cpu.cpu, cpu.busy() * 100.0));
    }
    lines.push(format!(
        "{delay:>8} {:>7} {:>7} {:>8} {:>8} {:>7} {:>9}  NAME",
        "CPU%", "WAIT%", "SWTCH/s", "INVOL/s", "MIGR/s", "THROTTL%"
    ));
    for row in rows {
        let load = &row.load;
        lines.push(format!(
            "{:>8} {:>7} {:>7} {:>8} {:>8} {:>7} {:>9}  {}",
            load.delay_ns.map_or("-".to_owned(), time),
            percent(load.cpu),
            percent(load.waiting),
            count(load.switches()),
            count(load.involuntary),
            count(load.migrations),
            percent(load.throttled),
            row.name
        ));
    }
    lines.join("\n") + "\n"
}

/// For a program.
fn object(args: &Args, sample: &Sample, rows: &[Row]) -> Value {
    let at = sample.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let scheduler = &sample.scheduler;
    json!({
        "host": sample.host,
        "kernel": sample.kernel,
        "at_unix_ms": at.as_millis() as u64,
        "interval_ns": sample.elapsed.as_nanos() as u64,
        "by": args.by.name(),
        "sort": args.sort.name(),
        "cpus": sample.cpus.iter().map(cpu).collect::<Vec<_>>(),
        "scheduler": {
            "sched_ext_state": scheduler.state,
            "ops": scheduler.ops,
            "daemon": scheduler.daemon.as_ref().ok().map(daemon),
            "daemon_error": scheduler.daemon.as_ref().err(),
        },
        "rows": rows.iter().map(|row| self::row(sample, row, args.by)).collect::<Vec<_>>(),
        "monitor": { "missed": sample.missed, "rows_used": sample.rows.0, "rows": sample.rows.1 },
        "warning": sample.warning,
    })
}

fn cpu(cpu: &Cpu) -> Value {
    json!({
        "cpu": cpu.cpu,
        "busy_ratio": cpu.busy(),
        "user_ratio": cpu.user,
        "system_ratio": cpu.system,
        "irq_ratio": cpu.irq,
        "steal_ratio": cpu.steal,
    })
}

fn daemon(daemon: &Daemon) -> Value {
    let legs: Vec<Value> = daemon
        .legs
        .iter()
        .map(
            |leg| json!({ "name": leg.name, "count": leg.count, "p50_ns": leg.p50_ns, "p99_ns": leg.p99_ns }),
        )
        .collect();
    json!({
        "mode": daemon.mode,
        "plugin": daemon.plugin,
        "agent_pid": daemon.agent,
        "restarts": daemon.restarts,
        "takeovers": daemon.takeovers,
        "degraded_ms": daemon.degraded_ms,
        "uptime_ms": daemon.uptime_ms,
        "decided": daemon.totals.by_agent as u64,
        "permitted": daemon.totals.permitted as u64,
        "kernel_mode": daemon.totals.kernel_mode as u64,
        "taken_over": daemon.totals.taken_over as u64,
        "legs": legs,
    })
}

fn row(sample: &Sample, row: &Row, by: By) -> Value {
    let interval = match (&sample.threads, row.thread) {
        (Some(threads), Some(_)) => threads.elapsed,
        _ => sample.elapsed,
    };
    let seconds = interval.as_secs_f64();
    let total = |per_second: f64| (per_second * seconds).round() as u64;
    let ns = |share: f64| (share * seconds * 1e9).round() as u64;
    let load = &row.load;
    let mut object = json!({
        "key": row.key,
        "kind": row.kind.name(),
        "name": row.name,
        "cgroups": row.cgroups,
        "interval_ns": interval.as_nanos() as u64,
        "cpu_ratio": load.cpu,
        "run_ns": ns(load.cpu),
        "waiting_ratio": load.waiting,
        "run_delay_ns": ns(load.waiting),
        "throttled_ns": ns(load.throttled),
        "voluntary_switches": total(load.voluntary),
        "involuntary_switches": total(load.involuntary),
        "migrations": total(load.migrations),
    });
    if let Some(thread) = row.thread {
        object["tid"] = thread.tid.into();
        object["pid"] = thread.pid.into();
        object["cpu"] = thread.cpu.into();
        object["running"] = thread.running.into();
        object["run_delay_mean_ns"] = load.delay_ns.map(|ns| ns.round() as u64).into();
    }
    if let Some(counts) = &row.counts {
        let delays = counts.run_delays();
        object["run_delay_p50_ns"] = delays.quantile_ns(0.5).into();
        object["run_delay_p99_ns"] = delays.quantile_ns(0.99).into();
        object["histograms"] = json!({
            "bucket_ends_ns": (0..BUCKETS).map(Histogram::end_ns).collect::<Vec<_>>(),
            "run_delay": delays.counts,
            "on_cpu_burst": counts.bursts().counts,
            "wake_to_run": counts.wake_to_run().counts,
        });
        let blamed = rows::blamed(sample, row, by);
        object["waited_for"] =
            blamed.iter().map(|(name, ns)| json!({ "name": name, "ns": ns })).collect::<Vec<_>>().into();
    }
    object
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::fixture;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        top: Args,
    }

    fn args(words: &str) -> Args {
        Cli::try_parse_from(words.split_whitespace()).unwrap().top
    }

    fn rows_of(args: &Args, sample: &Sample) -> Vec<Row> {
        let mut rows = rows::rows(sample, args.by);
        rows::select(&mut rows, &args.filter, args.sort, false);
        rows
    }

    #[test]
    fn the_object_has_what_the_documentation_says() {
        let (args, sample) = (args("top --once --json --sort cpu"), fixture::scheduled());
        let object = object(&args, &sample, &rows_of(&args, &sample));
        let pod = &object["rows"][0];
        assert_eq!(
            (pod["kind"].as_str(), pod["name"].as_str()),
            (Some("pod"), Some("shop/cart-7d9c8b6f5-x2x7k"))
        );
        assert_eq!(
            (pod["run_ns"].as_u64(), pod["throttled_ns"].as_u64()),
            (Some(940_000_000), Some(700_000_000))
        );
        assert_eq!(pod["cgroups"].as_array().unwrap().len(), 2);
        assert_eq!(pod["waited_for"][0], json!({ "name": "nginx.service", "ns": 200_000_000 }));
        let ends = pod["histograms"]["bucket_ends_ns"].as_array().unwrap();
        assert_eq!((ends.len(), ends[0].as_u64(), ends[BUCKETS - 1].as_u64()), (BUCKETS, Some(1024), None));
        let switches: u64 =
            pod["histograms"]["on_cpu_burst"].as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum();
        let parts = ["voluntary_switches", "involuntary_switches"].map(|name| pod[name].as_u64().unwrap());
        assert_eq!(switches, parts[0] + parts[1]);
        assert_eq!(object["scheduler"]["daemon"]["taken_over"], 1812);
        assert_eq!(object["scheduler"]["daemon_error"], Value::Null);
        let busy = object["cpus"][0]["busy_ratio"].as_f64().unwrap();
        assert!((busy - 0.8).abs() < 1e-9, "{busy}");
        documented(&object, include_str!("lib.rs"));
    }

    #[test]
    fn threads_have_a_mean_and_no_percentile() {
        let (args, sample) = (args("top --once --json --by threads --filter gc"), fixture::sample());
        let object = object(&args, &sample, &rows_of(&args, &sample));
        assert_eq!(object["rows"].as_array().unwrap().len(), 1);
        let thread = &object["rows"][0];
        assert_eq!((thread["tid"].as_i64(), thread["pid"].as_i64()), (Some(1235), Some(1230)));
        assert!(thread["run_delay_mean_ns"].is_u64() && thread.get("run_delay_p99_ns").is_none());
        documented(&object, include_str!("lib.rs"));
    }

    /// Each field's name stands in the crate's documentation.
    fn documented(value: &Value, docs: &str) {
        match value {
            Value::Object(fields) => fields.iter().for_each(|(name, value)| {
                let ticked =
                    [format!("`{name}`"), format!("`{name}[]`"), format!(".{name}`"), format!("`{name}.")];
                assert!(ticked.iter().any(|name| docs.contains(name)), "{name} is not documented");
                documented(value, docs);
            }),
            Value::Array(values) => values.iter().for_each(|value| documented(value, docs)),
            _ => {}
        }
    }

    #[test]
    fn the_text_has_whole_names() {
        let (args, sample) = (args("top --once"), fixture::sample());
        let text = text(&args, &sample, &rows_of(&args, &sample));
        assert!(
            text.contains("  a-service-with-a-name-that-is-longer-than-a-line-is-wide@instance.service\n"),
            "{text}"
        );
        assert!(text.starts_with("CPU 0     80.0 % in use\n"), "{text}");
        let widths: Vec<Option<usize>> =
            text.lines().skip(2).map(|line| line.get(..62).map(|_| 62)).collect();
        assert!(widths.iter().all(Option::is_some), "{text}");
    }

    #[test]
    fn json_goes_with_once_only() {
        assert!(Cli::try_parse_from(["top", "--json"]).is_err());
        assert!(Cli::try_parse_from(["top", "--by", "pods"]).is_err());
    }
}
