//! What the CPUs do: a line for each, a cell for each, or a mark for each, as there is room.

use ratatui::text::Line;

use super::look::{Look, Paint};
use crate::cpus::Cpu;
use crate::format;
use crate::state::State;

/// Columns of a cell: number, mark, percent.
const CELL: usize = 12;

/// In no more than `most` lines.
pub(super) fn lines(state: &State, look: Look, width: usize, most: usize) -> Vec<Line<'static>> {
    let Some(sample) = &state.sample else { return Vec::new() };
    let cpus = &sample.cpus;
    if cpus.len() <= most {
        return cpus.iter().map(|cpu| one(state, cpu, look, width)).collect();
    }
    let in_line = width / CELL;
    if cpus.len().div_ceil(in_line) <= most {
        return cpus.chunks(in_line).map(|cpus| cells(cpus, look)).collect();
    }
    strip(cpus, look, width, most)
}

fn one(state: &State, cpu: &Cpu, look: Look, width: usize) -> Line<'static> {
    let rest = width.saturating_sub(54);
    let bar = (rest / 2).min(40);
    let spark = (rest - bar).min(crate::history::KEPT);
    let mut line =
        vec![look.span(Paint::Plain, format!(" CPU {:<4} {:>5.1} % ", cpu.cpu, cpu.busy() * 100.0))];
    let mut done = 0;
    let mut upto = 0.0;
    for (share, paint) in
        [(cpu.user, Paint::Good), (cpu.system, Paint::Info), (cpu.irq, Paint::Warn), (cpu.steal, Paint::Bad)]
    {
        upto += share;
        // Without colours the parts would be one: what was stolen is not use.
        let end = ((upto * bar as f64).round() as usize).min(bar);
        let mark = if paint == Paint::Bad { "x" } else { look.mark_of_bar() };
        line.push(look.span(paint, mark.repeat(end - done)));
        done = end;
    }
    line.push(look.span(Paint::Dim, look.empty().repeat(bar - done)));
    let percent = |share: f64| format!("{:>3.0}", share * 100.0);
    line.push(look.span(
        Paint::Plain,
        format!(
            "  usr {} sys {} irq {} stl {}  ",
            percent(cpu.user),
            percent(cpu.system),
            percent(cpu.irq),
            percent(cpu.steal)
        ),
    ));
    line.push(look.span(Paint::Plain, look.spark(&state.history.cpu(cpu.cpu), spark)));
    Line::from(line)
}

fn cells(cpus: &[Cpu], look: Look) -> Line<'static> {
    let cell = |cpu: &Cpu| format!(" {:>4} {} {:>3.0}%", cpu.cpu, look.level(cpu.busy()), cpu.busy() * 100.0);
    Line::raw(cpus.iter().map(cell).collect::<String>())
}

/// Marks, and in front what all of them do together.
fn strip(cpus: &[Cpu], look: Look, width: usize, most: usize) -> Vec<Line<'static>> {
    const LABEL: usize = 12;
    let in_line = width.saturating_sub(LABEL + 1);
    let most = most.max(2) - 1;
    // So many CPUs share a mark, which shows the busiest of them: an average would hide it.
    let share = cpus.len().div_ceil(in_line * most).max(1);
    let marks: Vec<(u32, char)> = cpus
        .chunks(share)
        .map(|some| (some[0].cpu, look.level(some.iter().map(Cpu::busy).fold(0.0, f64::max))))
        .collect();
    let busy = cpus.iter().map(Cpu::busy);
    let (sum, top) = (busy.clone().sum::<f64>(), busy.clone().fold(0.0, f64::max));
    let full = busy.filter(|busy| *busy >= 0.95).count();
    let each = if share > 1 { format!(" (a mark: the busiest of {share})") } else { String::new() };
    let text = format!(
        " {} CPUs  {:.1} % in use, {full} full, busiest {:.0} %{each}",
        cpus.len(),
        sum / cpus.len() as f64 * 100.0,
        top * 100.0
    );
    let mut lines = vec![Line::raw(format::clip(&text, width, look.mark()))];
    for some in marks.chunks(in_line) {
        let label = format!(" from {:<w$}", some[0].0, w = LABEL - 6);
        let marks: String = some.iter().map(|(_, mark)| *mark).collect();
        lines.push(Line::from(vec![look.span(Paint::Plain, label), look.span(Paint::Good, marks)]));
    }
    lines
}
