//! Charts as inline SVG. Colours are classes of the page's style, so that they follow light and dark.

use super::super::SCHEDULERS;
use super::super::record::{Record, Slice};
use super::super::summary::{Better, Line, Metric, short};
use super::{escaped, judged};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Of all charts, in their own units.
const WIDTH: f64 = 560.0;
const ROW: f64 = 24.0;
const LABEL: f64 = 100.0;
/// For the figure at the end of a row.
const FIGURE: f64 = 118.0;

/// A bar for each scheduler, from 1 to its ratio on a logarithmic scale, with the least and the most.
pub(super) fn bars(out: &mut String, metric: &Metric, lines: &[Line]) {
    let ratios = || lines.iter().filter_map(|line| line.ratio);
    let least = ratios().map(|[_, least, _]| least).fold(1.0, f64::min).max(1e-3);
    let most = ratios().map(|[_, _, most]| most).fold(1.0, f64::max).min(1e3);
    // A little room, and never less than a fifth each way, or noise would fill the chart.
    let (from, to) = ((least * 0.92).min(0.8).log2(), (most * 1.08).max(1.25).log2());
    let x = |ratio: f64| {
        let part = (ratio.max(1e-3).log2().clamp(from, to) - from) / (to - from);
        LABEL + part * (WIDTH - LABEL - FIGURE)
    };
    let height = ROW * lines.len() as f64 + 22.0;
    let way = if metric.better == Better::Less { "less is better" } else { "more is better" };
    let _ = writeln!(
        out,
        "<figure><figcaption>{} <span class=\"note\">{}, {way}; ratio to {}</span></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{}\">",
        escaped(metric.title),
        escaped(metric.unit),
        SCHEDULERS[0],
        escaped(metric.title)
    );
    for tick in ticks(from, to) {
        let (at, class) = (x(tick), if tick == 1.0 { "one" } else { "tick" });
        let _ = write!(
            out,
            "<line class=\"{class}\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{:.1}\"/>\
             <text class=\"axis mid\" x=\"{at:.1}\" y=\"{:.1}\">{tick}</text>",
            height - 18.0,
            height - 4.0
        );
    }
    for (row, line) in lines.iter().enumerate() {
        let middle = ROW * (row as f64 + 0.5);
        let text = middle + 4.0;
        let _ = write!(out, "<text x=\"0\" y=\"{text:.1}\">{}</text>", escaped(line.scheduler));
        if let Some([ratio, least, most]) = line.ratio {
            let (one, at) = (x(1.0), x(ratio));
            let _ = write!(
                out,
                "<rect class=\"{}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"12\" rx=\"2\"><title>{}</title></rect>",
                judged(line, metric.better),
                one.min(at),
                middle - 6.0,
                (one - at).abs().max(1.5),
                escaped(&format!("{ratio:.3}, {least:.3} to {most:.3} in {} rounds", line.count))
            );
            if most / least > 1.01 {
                let (a, b) = (x(least), x(most));
                let _ = write!(
                    out,
                    "<path class=\"whisker\" d=\"M{a:.1} {:.1}v7M{a:.1} {middle:.1}H{b:.1}M{b:.1} {:.1}v7\"/>",
                    middle - 3.5,
                    middle - 3.5
                );
            }
        }
        let ratio = line.ratio.map_or(String::new(), |[ratio, ..]| format!("{ratio:.2}"));
        let _ = write!(
            out,
            "<text class=\"num\" x=\"{:.1}\" y=\"{text:.1}\">{ratio}</text>\
             <text class=\"num dim\" x=\"{WIDTH}\" y=\"{text:.1}\">{} {}</text>",
            WIDTH - 74.0,
            short(line.median),
            escaped(metric.unit)
        );
    }
    out.push_str("</svg></figure>\n");
}

/// Powers of two, or halves of them where there is room.
fn ticks(from: f64, to: f64) -> Vec<f64> {
    if to - from < 1.6 {
        return [0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0, 2.5]
            .into_iter()
            .filter(|tick: &f64| (from..=to).contains(&tick.log2()))
            .collect();
    }
    let step = ((to - from) / 6.0).ceil().max(1.0) as i32;
    let all = (from.ceil() as i32..=to.floor() as i32).filter(|power| power % step == 0);
    all.map(|power| f64::from(power).exp2()).collect()
}

/// How many wakeups waited longer than a time, both on logarithmic scales: the tails are what differs.
pub(super) fn tails(out: &mut String, all: &Record, boot: &str, load: &str) {
    const HEIGHT: f64 = 190.0;
    const LEFT: f64 = 48.0;
    const BOTTOM: f64 = 22.0;
    /// One wakeup in so many is the bottom of the chart: powers of ten.
    const DEPTH: f64 = 4.0;
    let mut curves: Vec<(usize, Vec<(f64, f64)>)> = Vec::new();
    for (place, scheduler) in SCHEDULERS.iter().enumerate() {
        let mut buckets: BTreeMap<u64, u64> = BTreeMap::new();
        let is_it = |b: &&super::super::record::Bucket| {
            (b.boot, b.load.as_str(), b.scheduler.as_str()) == (boot, load, scheduler)
        };
        for bucket in all.latencies.iter().filter(is_it) {
            *buckets.entry(bucket.below).or_default() += bucket.count;
        }
        let total: u64 = buckets.values().sum();
        if total == 0 {
            continue;
        }
        let first = *buckets.keys().next().unwrap_or(&1) as f64 / 2.0;
        let (mut left, mut curve) = (total, vec![(first.max(1.0), 1.0)]);
        for (below, count) in buckets {
            left -= count;
            curve.push((below as f64, left as f64 / total as f64));
        }
        curves.push((place, curve));
    }
    if curves.is_empty() {
        return;
    }
    let ends = || curves.iter().flat_map(|(_, curve)| curve).map(|(ns, _)| *ns);
    let (from, to) = (ends().fold(f64::INFINITY, f64::min).log10(), ends().fold(10.0, f64::max).log10());
    let x = |ns: f64| LEFT + (ns.log10() - from) / (to - from).max(0.1) * (WIDTH - LEFT - 6.0);
    let y = |share: f64| {
        let depth = if share > 0.0 { -share.log10() } else { DEPTH };
        6.0 + depth.min(DEPTH) / DEPTH * (HEIGHT - BOTTOM - 6.0)
    };
    out.push_str(
        "<figure><figcaption>wakeups that waited longer <span class=\"note\">seen by the observer</span></figcaption>",
    );
    let _ = writeln!(
        out,
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"wakeups that waited longer\">"
    );
    for (share, name) in [(1.0, "100 %"), (0.1, "10 %"), (0.01, "1 %"), (0.001, "0.1 %"), (1e-4, "0.01 %")] {
        let at = y(share);
        let _ = write!(
            out,
            "<line class=\"tick\" x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text class=\"axis num\" x=\"{:.1}\" y=\"{:.1}\">{name}</text>",
            LEFT - 6.0,
            at + 4.0
        );
    }
    for power in from.ceil() as i32..=to.floor() as i32 {
        let at = x(10f64.powi(power));
        let _ = write!(
            out,
            "<line class=\"tick\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"6\" y2=\"{:.1}\"/>\
             <text class=\"axis mid\" x=\"{at:.1}\" y=\"{:.1}\">{}</text>",
            HEIGHT - BOTTOM,
            HEIGHT - 6.0,
            time(10f64.powi(power))
        );
    }
    for (place, curve) in &curves {
        let points: String =
            curve.iter().map(|(ns, share)| format!("{:.1},{:.1} ", x(*ns), y(*share))).collect();
        let _ = write!(
            out,
            "<polyline class=\"line s{place}\" points=\"{}\"><title>{}</title></polyline>",
            points.trim_end(),
            escaped(SCHEDULERS[*place])
        );
    }
    out.push_str("</svg><div class=\"legend\">");
    for (place, _) in &curves {
        let _ = write!(out, "<span><i class=\"s{place}\"></i>{}</span>", escaped(SCHEDULERS[*place]));
    }
    out.push_str("</div></figure>\n");
}

fn time(ns: f64) -> String {
    match ns {
        n if n >= 1e9 => format!("{:.0} s", n / 1e9),
        n if n >= 1e6 => format!("{:.0} ms", n / 1e6),
        n if n >= 1e3 => format!("{:.0} us", n / 1e3),
        n => format!("{n:.0} ns"),
    }
}

/// What ran on each CPU for a moment, of all schedulers for the same time.
pub(super) fn strips(out: &mut String, all: &Record, boot: &str, load: &str) {
    const LANE: f64 = 11.0;
    const WIDE: f64 = 1180.0;
    /// As many slices of a CPU as the guest tells: then it has cut.
    const CUT: usize = 300;
    let of = |scheduler: &str| -> Vec<&Slice> {
        let is_it = |s: &&Slice| (s.boot, s.load.as_str(), s.scheduler.as_str()) == (boot, load, scheduler);
        all.strips.iter().filter(is_it).collect()
    };
    let lanes: Vec<(&str, Vec<&Slice>)> =
        SCHEDULERS.iter().map(|name| (*name, of(name))).filter(|(_, slices)| !slices.is_empty()).collect();
    if lanes.is_empty() {
        return;
    }
    let cpus = lanes.iter().flat_map(|(_, slices)| slices).map(|s| s.cpu).max().unwrap_or(0) + 1;
    // Where one CPU was cut, all end.
    let mut window = u64::MAX;
    let mut longest = 0;
    for (_, slices) in &lanes {
        for cpu in 0..cpus {
            let own = || slices.iter().filter(|s| s.cpu == cpu);
            let end = own().map(|s| s.start + s.length).max().unwrap_or(0);
            longest = longest.max(end);
            if own().count() >= CUT {
                window = window.min(end);
            }
        }
    }
    let window = window.min(longest).max(1);
    let mut by_name: BTreeMap<&str, u64> = BTreeMap::new();
    for slice in lanes.iter().flat_map(|(_, slices)| slices).filter(|s| !s.is_agent && s.who != "idle") {
        *by_name.entry(family(&slice.who)).or_default() += slice.length.min(window);
    }
    let mut names: Vec<(&str, u64)> = by_name.into_iter().collect();
    names.sort_by_key(|(_, time)| std::cmp::Reverse(*time));
    let names: Vec<&str> = names.into_iter().take(4).map(|(name, _)| name).collect();
    let _ = writeln!(
        out,
        "<details><summary>Timeline <span class=\"note\">{:.1} ms from the middle, each row a CPU</span></summary>",
        window as f64 / 1e6
    );
    for (scheduler, slices) in &lanes {
        let height = LANE * f64::from(cpus) + 3.0 * f64::from(cpus - 1);
        let _ = write!(
            out,
            "<div class=\"strip\"><span>{}</span><svg viewBox=\"0 0 {WIDE} {height}\" preserveAspectRatio=\"none\">",
            escaped(scheduler)
        );
        for cpu in 0..cpus {
            let top = f64::from(cpu) * (LANE + 3.0);
            let _ =
                write!(out, "<rect class=\"lane\" x=\"0\" y=\"{top}\" width=\"{WIDE}\" height=\"{LANE}\"/>");
            for slice in slices.iter().filter(|s| s.cpu == cpu && s.who != "idle" && s.start < window) {
                let x = |ns: u64| ns.min(window) as f64 / window as f64 * WIDE;
                let (from, to) = (x(slice.start), x(slice.start + slice.length));
                let class = match names.iter().position(|name| *name == family(&slice.who)) {
                    _ if slice.is_agent => "agent".to_owned(),
                    Some(place) => format!("w{place}"),
                    None => "others".to_owned(),
                };
                let _ = write!(
                    out,
                    "<rect class=\"{class}\" x=\"{from:.2}\" y=\"{top}\" width=\"{:.2}\" height=\"{LANE}\"/>",
                    (to - from).max(0.15)
                );
            }
        }
        out.push_str("</svg></div>\n");
    }
    out.push_str("<div class=\"legend\"><span><i class=\"agent\"></i>the agent</span>");
    for (place, name) in names.iter().enumerate() {
        let _ = write!(out, "<span><i class=\"w{place}\"></i>{}</span>", escaped(name));
    }
    out.push_str("<span><i class=\"others\"></i>others</span><span><i class=\"lane\"></i>idle</span></div></details>\n");
}

/// `kworker/0:1` and `kworker/u9:0` are of one kind.
fn family(name: &str) -> &str {
    name.split(['/', ':']).next().filter(|first| !first.is_empty()).unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_always_a_tick() {
        for (from, to) in [(0.8, 1.25), (0.01, 1.25), (0.8, 50.0), (0.2, 900.0), (0.5, 2.2)] {
            let ticks = ticks(f64::log2(from), f64::log2(to));
            assert!(ticks.contains(&1.0) && ticks.len() < 9, "{from} to {to}: {ticks:?}");
        }
    }

    #[test]
    fn numbers_of_threads_do_not_make_names() {
        assert_eq!(family("kworker/0_1"), "kworker");
        assert_eq!(family("perf"), "perf");
        assert_eq!(family("/x"), "/x");
    }
}
