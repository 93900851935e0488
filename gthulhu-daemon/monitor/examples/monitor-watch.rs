//! The busiest groups, once a second: `cargo run -p gthulhu-monitor --example monitor-watch [-- SECONDS]`, as root.
//! With `text` or `openmetrics` instead of seconds: the metrics after one second.

use std::collections::HashMap;
use std::time::Duration;

use gthulhu_monitor::metrics::{Format, Labels, Ledger, Limits};
use gthulhu_monitor::{Counts, Monitor, Options};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = std::env::args().nth(1);
    match argument.as_deref() {
        Some("text") => return metrics(Format::Text),
        Some("openmetrics") => return metrics(Format::OpenMetrics),
        _ => {}
    }
    let seconds: u32 = argument.map_or(Ok(u32::MAX), |text| text.parse())?;
    let mut options = Options::default();
    options.measure_self = true;
    let mut monitor = Monitor::start(&options)?;
    let mut before = monitor.snapshot()?;
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        let begun = std::time::Instant::now();
        let now = monitor.snapshot()?;
        let took = begun.elapsed();
        let was: HashMap<u64, &Counts> =
            before.groups.iter().map(|group| (group.id, &group.counts)).collect();
        let none = Counts::default();
        let mut rows: Vec<(&str, Counts)> = now
            .groups
            .iter()
            .map(|group| {
                let path = group.path.as_deref().unwrap_or("(gone)");
                (path, group.counts.since(was.get(&group.id).unwrap_or(&&none)))
            })
            .collect();
        rows.push(("(others)", now.other.since(&before.other)));
        rows.sort_by_key(|(_, counts)| std::cmp::Reverse(counts.run_ns));
        println!(
            "{:>9} {:>9} {:>8} {:>9} {:>9} {:>7} {:>9} {:>9}  group",
            "run ms", "delay ms", "thr ms", "vol", "invol", "migr", "p50 us", "p99 us"
        );
        for (path, counts) in rows.iter().filter(|(_, counts)| counts.runs() > 0).take(15) {
            let delays = counts.run_delays();
            let us = |share| delays.quantile_ns(share).unwrap_or(0) as f64 / 1e3;
            let ms = |ns: u64| ns as f64 / 1e6;
            println!(
                "{:9.1} {:9.1} {:8.1} {:9} {:9} {:7} {:9.0} {:9.0}  {path}",
                ms(counts.run_ns),
                ms(counts.run_delay_ns()),
                ms(counts.throttled_ns),
                counts.voluntary(),
                counts.involuntary(),
                counts.migrations.total(),
                us(0.5),
                us(0.99),
            );
        }
        let name = |id: u64| {
            let group = now.groups.iter().find(|group| group.id == id);
            group.and_then(|group| group.path.as_deref()).unwrap_or("(others)")
        };
        for blame in now.blames.iter().take(5) {
            println!(
                "  {} waited {:.1} ms while {} ran",
                name(blame.waited),
                blame.ns as f64 / 1e6,
                name(blame.ran)
            );
        }
        let own = &now.own;
        let cost: u64 = own.programs.iter().map(|program| program.run_ns).sum();
        println!(
            "  {} runs, {} missed, {} of {} rows, {:.1} ms in BPF so far, snapshot {:.2} ms\n",
            own.events,
            own.missed,
            own.rows_used,
            own.rows,
            cost as f64 / 1e6,
            took.as_secs_f64() * 1e3,
        );
        before = now;
    }
    Ok(())
}

fn metrics(format: Format) -> Result<(), Box<dyn std::error::Error>> {
    let mut monitor = Monitor::start(&Options::default())?;
    std::thread::sleep(Duration::from_secs(1));
    let mut ledger = Ledger::new("here", Limits::default());
    ledger.update(&monitor.snapshot()?, |_, path| {
        Some(Labels { unit: path.unwrap_or("gone").to_owned(), ..Labels::default() })
    });
    print!("{}", ledger.render(format));
    Ok(())
}
