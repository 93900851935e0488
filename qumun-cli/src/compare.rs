//! Who lost: the same tasks and groups in two runs.

use std::collections::HashMap;

use qumun::Nanos;
use qumun::sim::Histogram;

use crate::figures::Run;

/// Differences of latency below this are noise.
const LATENCY: Nanos = Nanos::from_micros(50);
/// Differences of CPU time below this part of the run are.
const CPU_TIME: f64 = 0.005;
/// Nobody who lost less than this is named. The buckets of a histogram are an eighth wide, two of them are noise.
const LEAST: f64 = 1.1;
const LEAST_LATENCY: f64 = 1.27;

/// In what somebody lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Measure {
    /// CPU time.
    CpuTime,
    /// The 99th percentile of wakeup to run.
    Latency,
    /// Time until done, against the time alone.
    Slowdown,
}

impl Measure {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::CpuTime => "CPU time",
            Self::Latency => "p99 wake to run",
            Self::Slowdown => "slowdown",
        }
    }
}

/// One who is worse off.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Loss {
    /// A task or a group.
    pub who: String,
    /// In what it lost most.
    pub measure: Measure,
    /// How many times worse; infinite if it got nothing at all.
    pub factor: f64,
    /// Before and after: ns, or a plain number for [`Measure::Slowdown`].
    pub values: [f64; 2],
}

/// Two runs beside each other.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Comparison {
    /// Groups that lost, the worst first.
    pub groups: Vec<Loss>,
    /// Tasks that lost, the worst first: those that are in both runs, by number and name.
    pub tasks: Vec<Loss>,
    /// Groups that are in one of them only.
    pub unmatched: Vec<String>,
}

/// What one has of which less or more is worse.
struct Having<'a> {
    ran: Nanos,
    latency: &'a Histogram,
    slowdown: f64,
}

/// Who is worse off in the second run. Groups are matched by name, tasks by number and name.
pub fn compare(before: &Run, after: &Run) -> Comparison {
    let noise = CPU_TIME * before.time.0.min(after.time.0) as f64;
    // Runs of different length: CPU time counts by the second.
    let scale = before.seconds() / after.seconds();
    let mut comparison = Comparison::default();
    for old in &before.groups {
        match after.groups.iter().find(|new| new.name == old.name) {
            Some(new) => {
                let [a, b] = [old, new].map(|group| Having {
                    ran: group.ran,
                    latency: &group.wake_to_run,
                    slowdown: group.slowdown(),
                });
                comparison.groups.extend(loss(&old.name, &a, &b, scale, noise));
            }
            None => comparison.unmatched.push(old.name.clone()),
        }
    }
    let there = |name: &str| before.groups.iter().any(|old| old.name == name);
    let new = after.groups.iter().filter(|new| !there(&new.name));
    comparison.unmatched.extend(new.map(|new| new.name.clone()));
    let mut known: HashMap<(i32, &str), usize> = HashMap::new();
    for (task, index) in after.tasks.iter().zip(0..) {
        known.insert((task.pid, task.name.as_str()), index);
    }
    for old in before.tasks.iter().filter(|task| !task.agent && task.runs > 0) {
        if let Some(&index) = known.get(&(old.pid, old.name.as_str())) {
            let [a, b] = [old, &after.tasks[index]].map(|task| Having {
                ran: task.ran,
                latency: &task.wake_to_run,
                slowdown: task.slowdown(),
            });
            comparison.tasks.extend(loss(&format!("{} ({})", old.name, old.pid), &a, &b, scale, noise));
        }
    }
    let worst_first = |a: &Loss, b: &Loss| b.factor.total_cmp(&a.factor).then_with(|| a.who.cmp(&b.who));
    comparison.groups.sort_by(worst_first);
    comparison.tasks.sort_by(worst_first);
    comparison
}

fn loss(who: &str, before: &Having<'_>, after: &Having<'_>, scale: f64, noise: f64) -> Option<Loss> {
    let ran = [before.ran.0 as f64, after.ran.0 as f64 * scale];
    let p99 = [before, after].map(|having| having.latency.quantile(0.99).0 as f64);
    let slow = [before.slowdown, after.slowdown];
    let enough = before.latency.count() >= 10 && after.latency.count() >= 10;
    let candidates = [
        (Measure::CpuTime, ran, ran[0] / ran[1], ran[0] - ran[1] > noise),
        (
            Measure::Latency,
            p99,
            p99[1] / p99[0].max(1_000.0),
            enough && p99[1] - p99[0] > LATENCY.0 as f64 && p99[1] > LEAST_LATENCY * p99[0],
        ),
        (Measure::Slowdown, slow, slow[1] / slow[0], (slow[1] - slow[0]) * ran[0].min(ran[1]) > noise),
    ];
    candidates
        .into_iter()
        .filter(|(_, _, factor, counts)| *counts && *factor >= LEAST)
        .max_by(|a, b| a.2.total_cmp(&b.2))
        .map(|(measure, values, factor, _)| Loss { who: who.to_owned(), measure, factor, values })
}
