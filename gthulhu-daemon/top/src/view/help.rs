//! What the keys and the figures are.

use ratatui::text::Line;

use super::look::{Look, Paint};
use crate::format;

const TEXT: &str = "\
1-4, Tab       groups (pods, services), slices, cgroups, threads
d c w s m      sort by delay, CPU, waiting, switches, migrations; r reverses
up down j k    move; PgUp, PgDn, Home, End; the cursor stays on its row
Enter          one row: histograms, who made it wait
/              show only what has this text in its name or cgroup
p              who schedules: mode, decisions, legs, takeovers
Space          hold the figures
q, Esc         back; at the table: end (Esc clears a filter first)

DELAYp99       99 % of the times from runnable to running are at most this (the
               end of a power of two). Of a thread the mean: DELAYavg.
               From 10 ms on yellow, from 100 ms on red.
CPU%           100 is one CPU, all the time.
WAIT%          100 is one thread, all the time runnable and not running.
SWTCH/s        times that a thread left a CPU; INVOL/s: that wanted to go on
MIGR/s         runs on another CPU than the one before
THROTTL%       100 is one thread, all the time kept back by cpu.max
history        of the column that sorts; the newest is at the right. Delays go
               from 1 us to 1 s in powers of ten, others by the row's own top.
CPU bars       user, system, interrupts; x is what the hypervisor took (stl)";

pub(super) fn lines(look: Look, width: usize) -> Vec<Line<'static>> {
    let title = " gthulhu top: keys and figures; any of q, Esc, ? leads back";
    let mut lines = vec![look.line(Paint::Title, format::left(title, width, look.mark())), Line::default()];
    lines.extend(TEXT.lines().map(|line| Line::raw(format!(" {line}"))));
    lines
}
