//! One HTML file that shows runs beside each other. It needs nothing else: no network, no other file.

use std::fmt::Write;

use qumun::Nanos;
use qumun::sim::Histogram;
use serde_json::{Value, json};

use crate::compare::{Loss, compare};
use crate::figures::{Run, Slice};
use crate::show::{Better, factor, origin, rows, shown, time};

const TEMPLATE: &str = include_str!("report.html");

/// Slices of one run that a browser gets. Above it neighbours that are short are shown as one.
const MOST_SLICES: usize = 150_000;
/// Points of one counter.
const MOST_POINTS: usize = 4_000;
/// Lines of who lost.
const MOST_LOSERS: usize = 40;

/// A report of runs that are to be compared; against the first, where it says who lost.
pub fn html(title: &str, runs: &[Run]) -> String {
    let data = json!({
        "title": title,
        "runs": runs.iter().map(run).collect::<Vec<_>>(),
        "rows": rows(runs).iter().map(|row| json!({
            "name": row.name,
            "cells": row.values.iter().enumerate().map(|(index, &value)| {
                let (part, sort) = row.change(index).unzip();
                let sort = sort.map(|sort| match sort {
                    Better::More => "better",
                    Better::Less => "worse",
                    Better::Neither => "other",
                });
                let part = part.filter(|part| part.is_finite());
                json!({ "text": (row.show)(value), "value": value, "change": part, "sort": sort })
            }).collect::<Vec<_>>(),
        })).collect::<Vec<_>>(),
        "lost": runs.split_first().map_or(Vec::new(), |(first, others)| {
            others.iter().map(|other| lost(first, other)).collect()
        }),
    });
    // Within a script element only these could end it.
    let data = data.to_string().replace('<', "\\u003c").replace('\u{2028}', "\\u2028");
    let mut safe = String::new();
    for c in title.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            c => safe.push(c),
        }
    }
    let mut out = String::with_capacity(TEMPLATE.len() + data.len());
    let (head, rest) = TEMPLATE.split_once("{{title}}").unwrap_or((TEMPLATE, ""));
    let (middle, tail) = rest.split_once("{{data}}").unwrap_or((rest, ""));
    let _ = write!(out, "{head}{safe}{middle}{data}{tail}");
    out
}

fn lost(first: &Run, other: &Run) -> Value {
    let comparison = compare(first, other);
    let list = |losses: &[Loss]| -> Vec<Value> {
        let one = |loss: &Loss| {
            let [before, after] = shown(loss);
            json!({ "who": loss.who, "factor": factor(loss.factor), "measure": loss.measure.name(),
                    "before": before, "after": after })
        };
        losses.iter().take(MOST_LOSERS).map(one).collect()
    };
    json!({
        "name": other.name, "against": first.name,
        "groups": list(&comparison.groups), "tasks": list(&comparison.tasks),
        "more": comparison.tasks.len().saturating_sub(MOST_LOSERS), "unmatched": comparison.unmatched,
    })
}

fn run(run: &Run) -> Value {
    let (cpus, merged) = lanes(&run.cpus, MOST_SLICES);
    json!({
        "name": run.name, "origin": origin(run), "scheduler": run.header.scheduler,
        "length": run.time.0, "nrcpus": run.header.topology.online().len(), "dropped": run.dropped, "cut": run.cut,
        "merged": merged,
        "fair": run.fairness.1,
        "tasks": run.tasks.iter().map(|task| {
            let group = run.groups.get(task.group).map_or(-1, |_| task.group as i64);
            json!([task.name, task.pid, group, u8::from(task.agent), task.weight])
        }).collect::<Vec<_>>(),
        "groups": run.groups.iter().map(|group| json!({
            "name": group.name, "tasks": group.tasks, "share": group.share, "ran": time(group.ran.0 as f64),
            "slowdown": group.slowdown(), "p50": group.wake_to_run.quantile(0.5).0,
            "p99": group.wake_to_run.quantile(0.99).0, "max": group.wake_to_run.max().0,
            "longest": group.longest_wait.0, "done": group.done_per_second, "hist": histogram(&group.wake_to_run),
        })).collect::<Vec<_>>(),
        "hist": histogram(&run.wake_to_run),
        "cpus": cpus,
        "counters": run.counters.iter().filter(|counter| !counter.points.is_empty()).map(|counter| {
            json!({ "name": counter.name, "points": thin(&counter.points, MOST_POINTS) })
        }).collect::<Vec<_>>(),
    })
}

fn histogram(times: &Histogram) -> Vec<(u64, u64)> {
    times.buckets().map(|(low, count)| (low.0, count)).collect()
}

/// Of each CPU: gap before, length, task; again and again. Second: how long a slice must be to be shown by itself.
fn lanes(cpus: &[Vec<Slice>], most: usize) -> (Vec<Vec<i64>>, u64) {
    let mut shortest = 0u64;
    let end = cpus.iter().filter_map(|slices| slices.last()).map(|slice| slice.start + slice.time).max();
    // A stretch of short slices is cut here, or a regular load would be one block: half of the most, in all.
    let longest = Nanos(2 * end.unwrap_or_default().0 / (most / cpus.len().max(1)).max(1) as u64);
    loop {
        let lanes: Vec<Vec<i64>> = cpus.iter().map(|slices| lane(slices, Nanos(shortest), longest)).collect();
        if lanes.iter().map(|lane| lane.len() / 3).sum::<usize>() <= most {
            return (lanes, shortest);
        }
        shortest = (shortest * 2).max(1_000);
    }
}

/// One or more slices, drawn as one.
struct Drawn {
    start: u64,
    end: u64,
    /// Of this time somebody ran.
    busy: u64,
    /// Who has most of it (the vote of Boyer and Moore, by time), and by how much.
    task: u32,
    lead: u64,
    several: bool,
}

/// Runs of slices, and gaps, that are shorter than this become one of several tasks. The third number of a slice is its
/// task; of several it is below 0: -1 less (101 times the task that has most + how many per cent of the time are busy).
fn lane(slices: &[Slice], shortest: Nanos, longest: Nanos) -> Vec<i64> {
    let mut out: Vec<Drawn> = Vec::new();
    for slice in slices {
        let (start, time) = (slice.start.0, slice.time.0);
        match out.last_mut() {
            Some(last)
                if start - last.end < shortest.0
                    && slice.time < shortest
                    && (last.several || last.end - last.start < shortest.0)
                    && last.end - last.start < longest.0.max(shortest.0) =>
            {
                last.end = start + time;
                last.busy += time;
                last.several = true;
                if last.task == slice.task {
                    last.lead += time;
                } else if last.lead >= time {
                    last.lead -= time;
                } else {
                    (last.task, last.lead) = (slice.task, time - last.lead);
                }
            }
            _ => out.push(Drawn {
                start,
                end: start + time,
                busy: time,
                task: slice.task,
                lead: time,
                several: false,
            }),
        }
    }
    let mut before = 0;
    let mut flat = Vec::with_capacity(out.len() * 3);
    for Drawn { start, end, busy, task, several, .. } in out {
        let length = end - start;
        let task = i64::from(task);
        let percent = (busy * 100 / length.max(1)) as i64;
        flat.extend([
            (start - before) as i64,
            length as i64,
            if several { -1 - (101 * task + percent) } else { task },
        ]);
        before = end;
    }
    flat
}

/// Of many points the last of each stretch, and the highest.
fn thin(points: &[(Nanos, u64)], most: usize) -> Vec<(u64, u64)> {
    if points.len() <= most {
        return points.iter().map(|(at, value)| (at.0, *value)).collect();
    }
    let stretch = points.len().div_ceil(most / 2);
    let mut out = Vec::with_capacity(most + 2);
    for part in points.chunks(stretch) {
        let highest = part.iter().max_by_key(|(_, value)| *value);
        let last = part.last();
        let mut pair: Vec<_> = highest.into_iter().chain(last).map(|(at, value)| (at.0, *value)).collect();
        pair.dedup();
        out.extend(pair);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_slices_become_few_and_none_of_their_time_is_lost() {
        let slices: Vec<Slice> = (0..400_000)
            .map(|n| Slice { start: Nanos(n * 10_000), time: Nanos(9_000), task: n as u32 % 7 })
            .collect();
        let long = Slice { start: Nanos(4_000_000_000), time: Nanos(50_000_000), task: 3 };
        let all: Vec<Slice> = slices.iter().copied().chain([long]).collect();
        let (lanes, shortest) = lanes(&[all], 10_000);
        let lane = &lanes[0];
        assert!(lane.len() / 3 <= 10_000 && shortest > 9_000, "{} {shortest}", lane.len());
        let covered: i64 = lane.chunks(3).map(|slice| slice[0] + slice[1]).sum();
        assert_eq!(covered, 4_050_000_000);
        assert_eq!(lane[lane.len() - 2..], [50_000_000, 3]);
    }

    #[test]
    fn few_points_of_many_keep_the_highest() {
        let points: Vec<(Nanos, u64)> =
            (0..100_000).map(|n| (Nanos(n), if n == 777 { 9 } else { 1 })).collect();
        let few = thin(&points, 1_000);
        assert!(few.len() <= 1_002 && few.contains(&(777, 9)));
    }
}
