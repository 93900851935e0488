//! The first page: who schedules, the CPUs, and the rows.

use ratatui::text::{Line, Span};

use super::look::{Look, Paint};
use super::{cpus, header, scheduler};
use crate::args::{By, Sort};
use crate::format::{self, count, percent, right, time};
use crate::history::KEPT;
use crate::rows::{Load, Row};
use crate::state::State;

pub(super) fn lines(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = above(state, look, width, height);
    let room = height - lines.len() - 1;
    // The cursor is always on the screen.
    let first = (state.cursor() + 1).saturating_sub(room);
    let columns = columns(width);
    if state.rows.is_empty() {
        lines.push(Line::raw(format::clip(&empty(state), width, look.mark())));
    }
    for (at, row) in state.rows.iter().enumerate().skip(first).take(room) {
        lines.push(line(state, row, at == state.cursor(), &columns, look, width));
    }
    lines.resize(height - 1, Line::default());
    lines.push(footer(state, look, width));
    lines
}

/// How many rows fit.
pub(super) fn room(state: &State, width: usize, height: usize) -> usize {
    let look = Look { utf8: true, color: false };
    height.saturating_sub(above(state, look, width, height).len() + 1)
}

/// All above the rows.
fn above(state: &State, look: Look, width: usize, height: usize) -> Vec<Line<'static>> {
    let mut lines = vec![header(state, look, width)];
    lines.extend(scheduler::lines(state, look, width, height < 20));
    lines.extend(cpus::lines(state, look, width, (height / 6).max(2)));
    let sample = state.sample.as_ref();
    if let Some(warning) = sample.and_then(|sample| sample.warning.as_ref()) {
        lines.push(look.line(Paint::Warn, format::clip(&format!(" {warning}"), width, look.mark())));
    }
    if let Some(missed) = sample.map(|sample| sample.missed).filter(|missed| *missed > 0) {
        let text = format!(" {missed} runs were not counted: the kernel had no memory for it");
        lines.push(look.line(Paint::Warn, format::clip(&text, width, look.mark())));
    }
    lines.push(tabs(state, look, width, height.saturating_sub(lines.len() + 3)));
    let columns = columns(width);
    lines.push(head(state, &columns, look));
    lines
}

fn tabs(state: &State, look: Look, width: usize, room: usize) -> Line<'static> {
    let mut spans = Vec::new();
    let mut used = 0;
    for (number, by) in By::ALL.into_iter().enumerate() {
        let (open, close) = if by == state.by { ('[', ']') } else { (' ', ' ') };
        let text = format!("{open}{} {}{close} ", number + 1, by.name());
        used += format::width(&text);
        spans.push(look.span(if by == state.by { Paint::Head } else { Paint::Dim }, text));
    }
    let shown = state.rows.len();
    let left = width.saturating_sub(used + 1);
    let mut rows = match (state.filter.is_empty(), shown > room) {
        (true, false) => format!("{shown} row{}", if shown == 1 { "" } else { "s" }),
        (false, false) => format!("{shown} of {} rows", state.unfiltered),
        (_, true) => {
            let first = (state.cursor() + 1).saturating_sub(room) + 1;
            format!("rows {first}-{} of {shown}", first + room - 1)
        }
    };
    // The filter's text where there is room for enough of it.
    let room = left.saturating_sub(format::width(&rows) + 4);
    if !state.filter.is_empty() && room >= 4 {
        rows = format!("'{}': {rows}", format::fit(&state.filter, room, look.mark()));
    }
    let text = right(&format::fit(&rows, left, look.mark()), left);
    spans.push(look.span(if state.filter.is_empty() { Paint::Dim } else { Paint::Warn }, text));
    Line::from(spans)
}

/// Those that a width has room for; each but the first and the last is a number.
#[derive(Debug)]
struct Columns {
    name: usize,
    numbers: Vec<Column>,
    history: usize,
}

#[derive(Debug, Clone, Copy)]
struct Column {
    title: &'static str,
    /// Of threads, if that is something else.
    of_threads: &'static str,
    width: usize,
    sort: Option<Sort>,
    value: fn(&Load) -> String,
}

const NUMBERS: [Column; 7] = [
    Column {
        title: "DELAYp99",
        of_threads: "DELAYavg",
        width: 9,
        sort: Some(Sort::Delay),
        value: |load| load.delay_ns.map_or("-".to_owned(), time),
    },
    Column {
        title: "CPU%",
        of_threads: "CPU%",
        width: 7,
        sort: Some(Sort::Cpu),
        value: |load| percent(load.cpu),
    },
    Column {
        title: "WAIT%",
        of_threads: "WAIT%",
        width: 7,
        sort: Some(Sort::Wait),
        value: |load| percent(load.waiting),
    },
    Column {
        title: "SWTCH/s",
        of_threads: "SWTCH/s",
        width: 8,
        sort: Some(Sort::Switches),
        value: |load| count(load.switches()),
    },
    Column {
        title: "MIGR/s",
        of_threads: "MIGR/s",
        width: 7,
        sort: Some(Sort::Migrations),
        value: |load| count(load.migrations),
    },
    Column {
        title: "INVOL/s",
        of_threads: "INVOL/s",
        width: 8,
        sort: None,
        value: |load| count(load.involuntary),
    },
    Column {
        title: "THROTTL%",
        of_threads: "THROTTL%",
        width: 9,
        sort: None,
        value: |load| percent(load.throttled),
    },
];

fn columns(width: usize) -> Columns {
    let numbers = match width {
        ..100 => &NUMBERS[..5],
        _ => &NUMBERS[..],
    };
    let used: usize = numbers.iter().map(|column| column.width).sum();
    let left = width.saturating_sub(used + 2);
    // The name matters more than the past.
    let history = if width < 72 { 0 } else { (left / 4).min(KEPT) };
    Columns { name: left - history, numbers: numbers.to_vec(), history }
}

fn head(state: &State, columns: &Columns, look: Look) -> Line<'static> {
    let threads = state.by == By::Threads;
    let name = if threads { "      TID COMMAND" } else { "  NAME" };
    let mut spans = vec![look.span(Paint::Head, format::left(name, columns.name, look.mark()))];
    let down = if state.reverse {
        if look.utf8 { "▲" } else { "^" }
    } else if look.utf8 {
        "▼"
    } else {
        "v"
    };
    for column in &columns.numbers {
        let title = if threads { column.of_threads } else { column.title };
        let sorted = column.sort == Some(state.sort);
        let mut text = right(title, column.width);
        if sorted {
            // In front of it there is always a blank.
            text = right(&format!("{down}{title}"), column.width);
        }
        spans.push(look.span(if sorted { Paint::Info } else { Paint::Head }, text));
    }
    let of = match (state.sort, threads) {
        (Sort::Delay, true) => "DELAYavg",
        (sort, _) => {
            NUMBERS.iter().find(|column| column.sort == Some(sort)).map_or("", |column| column.title)
        }
    };
    let past = format!("  {of} history");
    let past = if format::width(&past) > columns.history + 2 { "  history".to_owned() } else { past };
    if columns.history > 0 {
        spans.push(look.span(Paint::Head, past));
    }
    Line::from(spans)
}

fn line(
    state: &State,
    row: &Row,
    cursor: bool,
    columns: &Columns,
    look: Look,
    width: usize,
) -> Line<'static> {
    let name = match (row.thread, row.name.split_once(' ')) {
        (Some(_), Some((tid, comm))) => format!("{tid:>7} {comm}"),
        _ => row.name.clone(),
    };
    let name = format!("{} {name}", if cursor { '>' } else { ' ' });
    let mut spans = vec![look.span(Paint::Plain, format::left(&name, columns.name, look.mark()))];
    for column in &columns.numbers {
        let paint = if column.sort == Some(Sort::Delay) { of_delay(row.load.delay_ns) } else { Paint::Plain };
        spans.push(look.span(paint, right(&(column.value)(&row.load), column.width)));
    }
    let past = state.history.row(state.by, &row.key, state.sort);
    spans.push(Span::raw("  "));
    spans.push(look.span(Paint::Info, look.spark(&shares(&past, state.sort), columns.history)));
    let mut line = Line::from(spans);
    if cursor {
        // To the end of the line, so that it is seen where a theme makes it faint.
        line.spans.push(Span::raw(" ".repeat(width.saturating_sub(line.width()))));
        line = line.patch_style(look.style(Paint::Title));
    }
    line
}

/// Slow enough for a person to feel it, and slow enough for a service to miss its promises.
pub(super) fn of_delay(ns: Option<f64>) -> Paint {
    match ns {
        Some(ns) if ns >= 100e6 => Paint::Bad,
        Some(ns) if ns >= 10e6 => Paint::Warn,
        _ => Paint::Plain,
    }
}

/// For a sparkline. Delays from 1 µs to 1 s in powers of ten, alike in all rows; the rest by the row's own highest.
pub(super) fn shares(past: &[f64], sort: Sort) -> Vec<f64> {
    let highest = past.iter().copied().fold(0.0, f64::max);
    let share = |value: &f64| match sort {
        _ if *value <= 0.0 => 0.0,
        Sort::Delay => ((value / 1e3).log10() / 6.0).clamp(0.01, 1.0),
        _ => value / highest,
    };
    past.iter().map(share).collect()
}

fn empty(state: &State) -> String {
    match (&state.sample, state.unfiltered) {
        (None, _) => "  The first figures come after one interval.".into(),
        (Some(sample), _) if state.by == By::Threads && sample.threads.is_none() => {
            "  Threads come after one interval.".into()
        }
        (_, 0) => "  Nothing ran.".into(),
        _ => format!("  No row has '{}'. Esc clears the filter.", state.filter),
    }
}

fn footer(state: &State, look: Look, width: usize) -> Line<'static> {
    if state.typing {
        let text = format!(" filter: {}_   Enter keeps it, Esc clears it", state.filter);
        return look.line(Paint::Head, format::fit(&text, width, look.mark()));
    }
    let all = [
        " q quit  ? help  Enter detail  / filter  sort: d delay c cpu w wait s switches m migrations  p scheduler",
        " q quit  ? help  Enter detail  / filter  dcwsm sort  p scheduler  Space hold",
        " q quit  ? help  Enter detail  / filter  dcwsm sort",
    ];
    let text = all.into_iter().find(|text| text.len() <= width).unwrap_or(all[2]);
    look.line(Paint::Dim, format::clip(text, width, look.mark()))
}
