//! What is drawn: a function of the state and the size of the terminal, and of nothing else.

use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::Line;

use crate::format;
use crate::state::{Page, State};

mod cpus;
mod detail;
mod help;
mod look;
mod scheduler;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use look::Look;
use look::Paint;

/// Less than this shows nothing that could be relied on.
const SMALLEST: (u16, u16) = (60, 12);

/// Draws all of it.
pub(crate) fn draw(frame: &mut Frame<'_>, state: &State, look: Look) {
    let area = frame.area();
    let (width, height) = (area.width, area.height);
    let lines = if width < SMALLEST.0 || height < SMALLEST.1 {
        vec![
            Line::raw(format!("{width} x {height} is too small:")),
            Line::raw(format!("{} x {} at least.", SMALLEST.0, SMALLEST.1)),
        ]
    } else {
        let (width, height) = (usize::from(width), usize::from(height));
        match &state.page {
            Page::Table => table::lines(state, look, width, height),
            Page::Detail(detail) => detail::lines(state, detail, look, width, height),
            Page::Scheduler => scheduler::page(state, look, width),
            Page::Help => help::lines(look, width),
        }
    };
    for (y, line) in (area.y..area.bottom()).zip(lines) {
        frame.render_widget(line, Rect { y, height: 1, ..area });
    }
}

/// How many rows of the table there is room for.
pub(crate) fn page_size(state: &State, width: u16, height: u16) -> usize {
    let (width, height) = (width.max(SMALLEST.0), height.max(SMALLEST.1));
    table::room(state, usize::from(width), usize::from(height))
}

/// Name and time at the top of each page.
fn header(state: &State, look: Look, width: usize) -> Line<'static> {
    let Some(sample) = &state.sample else {
        return look.line(Paint::Title, format::left(" gthulhu top", width, look.mark()));
    };
    let left = format!(" gthulhu top  {}  Linux {}  {} CPUs", sample.host, sample.kernel, sample.cpus.len(),);
    let seconds = sample.at.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs() % 86400;
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let paused = if state.paused { "PAUSED  " } else { "" };
    let elapsed = sample.elapsed.as_secs_f64();
    let right = format!("  {paused}of {elapsed:.1} s  {h:02}:{m:02}:{s:02} UTC ");
    let room = width.saturating_sub(format::width(&right));
    look.line(Paint::Title, format::left(&format::clip(&left, room, look.mark()), room, look.mark()) + &right)
}

/// The last line of each page that is not the table.
fn back(look: Look, width: usize) -> Line<'static> {
    look.line(
        Paint::Dim,
        format::left(" Esc back to the table   p scheduler   ? help   Space pause", width, look.mark()),
    )
}
