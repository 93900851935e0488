//! `lab path`: how long a wakeup's path is, in instructions, kept under benches/runs/.

use crate::PathArgs;
use crate::guest::{self, GuestSpec};
use crate::initramfs;
use crate::kernel::{self, Cache};
use crate::lab::{build_programs, report};
use crate::qemu::Qemu;
use crate::ui::{Context, Result, capture, error};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::{Command, ExitCode};
use std::time::Duration;

/// One CPU measures the path. With two, both CPUs' instructions count on one clock.
const SMPS: &[&str] = &["1", "2"];
const TIMEOUT: Duration = Duration::from_secs(600);

/// Measures, prints and writes.
pub(crate) fn path(args: &PathArgs) -> Result<ExitCode> {
    build_programs()?;
    let cache = Cache::open()?;
    let kernel = kernel::get(&cache, &args.kernel)?;
    let mut raw = String::from("smp,scheduler,round,ns_per_round_trip\n");
    let mut figures: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    for smp in SMPS {
        let spec = GuestSpec {
            smp: (*smp).into(),
            icount: true,
            timeout: TIMEOUT,
            ..GuestSpec::new(kernel.clone())
        };
        let command = ["lab-guest", "path", "--rounds", &args.rounds.to_string()].map(String::from);
        let outcome = guest::run(&spec, &command, &mut |line| {
            println!("smp={smp} {line}");
            let Some([scheduler, round, ns]) = fields(line) else { return };
            let _ = writeln!(raw, "{smp},{scheduler},{round},{ns}");
            if !order.iter().any(|known| known == scheduler) {
                order.push(scheduler.into());
            }
            if let Ok(ns) = ns.parse() {
                figures.entry(((*smp).into(), scheduler.into())).or_default().push(ns);
            }
        })?;
        let code = report(&spec, &outcome);
        if code != 0 {
            return Ok(ExitCode::from(code));
        }
    }
    let summary = summarize(&order, &mut figures)?;
    print!("{summary}");
    let date = capture(Command::new("date").arg("+%F"))?;
    let folder =
        initramfs::workspace_root()?.join("benches/runs").join(format!("{}-{}", date.trim(), kernel.version));
    fs::create_dir_all(&folder).cannot(format_args!("make {}", folder.display()))?;
    let setup = format!(
        "Path length of `lab-guest path`: a pipe's round trip, two wakeups, {} rounds of 20,000.\n\
         Command: cargo xtask lab path --kernel {} --rounds {}\n\
         Guest: Linux {}, QEMU {} -accel tcg,thread=single -icount shift=1,sleep=off: the clock advances 2 ns an\n\
         instruction, so these are instruction counts, not latencies, and only their ratios mean something.\n\
         \"core alone\" is our core with its agent stopped (degraded mode). The scheduler is asserted around each.\n",
        args.rounds,
        args.kernel,
        args.rounds,
        kernel.release,
        Qemu::find(&cache)?.version()?,
    );
    for (name, text) in [("raw.csv", &raw), ("summary.txt", &summary), ("SETUP.txt", &setup)] {
        let file = folder.join(name);
        fs::write(&file, text).cannot(format_args!("write {}", file.display()))?;
    }
    println!("written to {}", folder.display());
    Ok(ExitCode::SUCCESS)
}

/// SCHEDULER, ROUND and NS of a line that is a measurement.
fn fields(line: &str) -> Option<[&str; 3]> {
    let mut parts = line.strip_prefix("path,")?.split(',');
    let fields = [parts.next()?, parts.next()?, parts.next()?];
    parts.next().is_none().then_some(fields)
}

fn summarize(order: &[String], figures: &mut BTreeMap<(String, String), Vec<f64>>) -> Result<String> {
    let mut text = String::from("smp  scheduler           median ns    ratio to EEVDF   spread %\n");
    for smp in SMPS {
        let mut base = None;
        for scheduler in order {
            let key = ((*smp).to_string(), scheduler.clone());
            let Some(values) = figures.get_mut(&key) else { continue };
            values.sort_by(f64::total_cmp);
            let (median, least, most) = (values[values.len() / 2], values[0], values[values.len() - 1]);
            let base = *base.get_or_insert(median);
            let spread = 100.0 * (most - least) / median;
            let _ = writeln!(
                text,
                "{smp:<4} {scheduler:<17} {median:>11.0} {:>14.2} {spread:>12.2}",
                median / base
            );
        }
    }
    if figures.is_empty() { Err(error("the guest measured nothing")) } else { Ok(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_measurements_are_read() {
        assert_eq!(fields("path,core alone,2,31000"), Some(["core alone", "2", "31000"]));
        for other in ["path,x,1", "path,x,1,2,3", "ok path - 1"] {
            assert_eq!(fields(other), None, "{other}");
        }
    }

    #[test]
    fn ratios_are_of_medians_to_the_first_scheduler() {
        let mut figures = BTreeMap::new();
        figures.insert(("1".to_string(), "EEVDF".to_string()), vec![10.0, 30.0, 20.0]);
        figures.insert(("1".to_string(), "ours".to_string()), vec![30.0, 29.0, 90.0]);
        let text = summarize(&["EEVDF".into(), "ours".into()], &mut figures).unwrap();
        assert!(text.contains("1.00") && text.contains("1.50"), "{text}");
        assert!(summarize(&[], &mut BTreeMap::new()).is_err());
    }
}
