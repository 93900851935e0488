//! One row: how long it waits, runs and takes to run, and who made it wait.

use gthulhu_monitor::{BUCKETS, Histogram};
use ratatui::text::{Line, Span};

use super::look::{Look, Paint};
use super::table::{of_delay, shares};
use super::{back, header};
use crate::args::Sort;
use crate::format::{self, count, percent, right, span, time};
use crate::place::Kind;
use crate::rows;
use crate::state::{Detail, State};

pub(super) fn lines(
    state: &State,
    detail: &Detail,
    look: Look,
    width: usize,
    height: usize,
) -> Vec<Line<'static>> {
    let mut lines = vec![header(state, look, width)];
    lines.extend(about(state, detail, look, width));
    let blamed = who(detail, look, width, if height < 30 { 3 } else { 8 });
    // The two heads of the histograms, the line at the end.
    let room = height.saturating_sub(lines.len() + blamed.len() + 3);
    lines.extend(histograms(detail, look, width, room));
    lines.extend(blamed);
    lines.resize(height - 1, Line::default());
    lines.push(back(look, width));
    lines
}

fn about(state: &State, detail: &Detail, look: Look, width: usize) -> Vec<Line<'static>> {
    let row = &detail.row;
    let fit = |text: String| format::fit(&text, width, look.mark());
    let mut title = format!(" {}: {}", row.kind.name(), row.name);
    if let Some(thread) = row.thread {
        let does = if thread.running { "on" } else { "last on" };
        title += &format!("  of process {}, {does} CPU {}", thread.pid, thread.cpu);
    }
    if detail.gone {
        title += "  (gone; what it did last)";
    }
    let more = match row.cgroups.len() {
        0 | 1 => String::new(),
        some => format!("  and {} more", some - 1),
    };
    let path = row.cgroups.first().map_or("gone before its path was read", String::as_str);
    let path =
        format!(" cgroup {}{more}", format::fit(path, width.saturating_sub(8 + more.len()), look.mark()));
    let load = &row.load;
    let delay = load.delay_ns.map_or("-".to_owned(), time);
    let name = if row.kind == Kind::Thread { "mean" } else { "p99" };
    let mut lines = vec![look.line(Paint::Head, fit(title)), Line::raw(path)];
    lines.push(Line::from(vec![
        Span::raw(format!(
            " CPU {} %  waiting {} %  run delay {name} ",
            percent(load.cpu),
            percent(load.waiting)
        )),
        look.span(of_delay(load.delay_ns), delay),
        Span::raw(format!("  throttled {} %", percent(load.throttled))),
    ]));
    let switches = format!(
        " switches {}/s ({} involuntary)  {}",
        count(load.switches()),
        count(load.involuntary),
        migrations(detail)
    );
    lines.push(Line::raw(format::clip(&switches, width, look.mark())));
    for (name, sort) in [("run delay", Sort::Delay), ("CPU", Sort::Cpu)] {
        let past = state.history.row(state.by, &row.key, sort);
        let spark = look.spark(&shares(&past, sort), (width - 30).min(crate::history::KEPT));
        let highest = past.iter().copied().fold(0.0, f64::max);
        let highest = if sort == Sort::Cpu { percent(highest) + " %" } else { time(highest) };
        lines.push(Line::from(vec![
            Span::raw(format!(" {name:<10}")),
            look.span(Paint::Info, spark),
            Span::raw(format!("  highest {highest}")),
        ]));
    }
    lines
}

fn migrations(detail: &Detail) -> String {
    let rate = count(detail.row.load.migrations);
    let m = &detail.row.counts.as_ref().map(|counts| counts.migrations);
    let Some(m) = m else { return format!("migrations {rate}/s") };
    let parts = [("SMT", m.core), ("L2", m.l2), ("L3", m.l3), ("node", m.node), ("NUMA", m.numa)];
    let parts: Vec<String> =
        parts.iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name} {n}")).collect();
    if parts.is_empty() {
        format!("migrations {rate}/s")
    } else {
        format!("migrations {rate}/s ({})", parts.join(", "))
    }
}

fn histograms(detail: &Detail, look: Look, width: usize, room: usize) -> Vec<Line<'static>> {
    const LABEL: usize = 9;
    const NUMBER: usize = 6;
    let three = rows::histograms(&detail.counts);
    let whose =
        if detail.row.kind == Kind::Thread { " of its cgroup (threads are not kept apart)" } else { "" };
    let since = span(detail.seconds.round() as u64);
    let mut lines = vec![look.line(
        Paint::Head,
        format::fit(&format!(" Histograms{whose}, {since}: how many took less than"), width, look.mark()),
    )];
    let column = (width - LABEL) / three.len();
    let head = |(name, histogram): &(&str, Histogram)| {
        let p99 = histogram.quantile_ns(0.99).map_or("-".to_owned(), |ns| time(ns as f64));
        format::left(&format!(" {name}, p99 {p99}"), column, look.mark())
    };
    lines.push(Line::raw(" ".repeat(LABEL) + &three.iter().map(head).collect::<String>()));
    let used = |bucket: &usize| three.iter().any(|(_, histogram)| histogram.counts[*bucket] > 0);
    let (Some(first), Some(last)) = ((0..BUCKETS).find(used), (0..BUCKETS).rev().find(used)) else {
        lines.push(Line::raw(" Nothing ran."));
        return lines;
    };
    // Where there is no room for all, neighbours share a line.
    let together = (last - first + 1).div_ceil(room.max(1));
    let folded = |histogram: &Histogram| -> Vec<u64> {
        histogram.counts[first..=last].chunks(together).map(|some| some.iter().sum()).collect()
    };
    let folded: Vec<(Vec<u64>, Paint)> = three
        .iter()
        .zip([Paint::Warn, Paint::Good, Paint::Info])
        .map(|((_, histogram), paint)| (folded(histogram), paint))
        .collect();
    for at in 0..folded[0].0.len() {
        let end = (first + (at + 1) * together - 1).min(last);
        let label = match Histogram::end_ns(end) {
            Some(ns) => time(ns as f64),
            None => "longer".to_owned(),
        };
        let mut spans = vec![Span::raw(right(&label, LABEL))];
        for (counts, paint) in &folded {
            let most = counts.iter().copied().max().unwrap_or(0).max(1);
            let number = if counts[at] == 0 { String::new() } else { count(counts[at] as f64) };
            let room = column - NUMBER - 2;
            let bar = look.bar(counts[at] as f64 / most as f64, room);
            spans.push(Span::raw(format!(" {} ", right(&number, NUMBER))));
            spans.push(look.span(*paint, format::left(&bar, room, look.mark())));
        }
        lines.push(Line::from(spans));
    }
    lines
}

fn who(detail: &Detail, look: Look, width: usize, most: usize) -> Vec<Line<'static>> {
    let whose = if detail.row.kind == Kind::Thread { "its cgroup" } else { "it" };
    let mut lines = vec![look.line(Paint::Head, format!(" Who ran while {whose} waited (sampled)"))];
    let all: u64 = detail.blamed.iter().map(|(_, ns)| ns).sum();
    if all == 0 {
        lines.push(Line::raw(" Nobody that was seen."));
    }
    for (name, ns) in detail.blamed.iter().take(most).filter(|(_, ns)| *ns > 0) {
        let share = *ns as f64 / all as f64;
        let figures = format!("{} %{}  ", right(&percent(share), 6), right(&time(*ns as f64), 8));
        let bar = (width / 4).min(30);
        let room = width.saturating_sub(figures.len() + bar + 4);
        lines.push(Line::from(vec![
            Span::raw(format!(" {figures}")),
            look.span(Paint::Bad, format::left(&look.bar(share, bar), bar, look.mark())),
            Span::raw(format!("  {}", format::fit(name, room, look.mark()))),
        ]));
    }
    if detail.blamed.len() > most {
        lines.push(Line::raw(format!(" and {} more", detail.blamed.len() - most)));
    }
    lines
}
