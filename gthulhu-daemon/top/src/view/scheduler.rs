//! Who schedules: in a few lines, and on a page.

use ratatui::text::Line;

use super::look::{Look, Paint};
use super::{back, header};
use crate::format::{self, count, span, time};
use crate::scheduler::{Daemon, Decided, Scheduler};
use crate::state::State;

/// In one line, or in four.
pub(super) fn lines(state: &State, look: Look, width: usize, short: bool) -> Vec<Line<'static>> {
    let Some(sample) = &state.sample else { return Vec::new() };
    let scheduler = &sample.scheduler;
    let mut lines = vec![named("Scheduler", kernel(scheduler), look, width)];
    if short {
        return lines;
    }
    match &scheduler.daemon {
        Err(why) => lines.push(named("Daemon", (Paint::Plain, why.clone()), look, width)),
        Ok(daemon) => {
            lines.push(named("Daemon", about(daemon), look, width));
            lines.push(named("Decided", (Paint::Plain, decided(daemon)), look, width));
            let legs: Vec<String> = daemon
                .legs
                .iter()
                .map(|leg| format!("{} {}", short_leg(&leg.name), time(leg.p99_ns as f64)))
                .collect();
            let name = format!("Legs p99{}", look.at_most());
            lines.push(named(&name, (Paint::Plain, legs.join("  ")), look, width));
        }
    }
    lines
}

fn named(name: &str, (paint, text): (Paint, String), look: Look, width: usize) -> Line<'static> {
    let text = format::clip(&text, width.saturating_sub(13), look.mark());
    Line::from(vec![look.span(Paint::Head, format!(" {name:<10} ")), look.span(paint, text)])
}

/// What the kernel says.
fn kernel(scheduler: &Scheduler) -> (Paint, String) {
    let Some(state) = &scheduler.state else {
        return (Paint::Plain, "the kernel's own; this kernel has no sched_ext".into());
    };
    let Some(ops) = &scheduler.ops else {
        return (Paint::Plain, format!("the kernel's own; sched_ext is {state}"));
    };
    let whose = match &scheduler.daemon {
        Ok(daemon) if daemon.ops == *ops => "ours",
        Ok(_) => "not that of our daemon",
        Err(_) => "no daemon of ours answers",
    };
    let paint = if state == "enabled" { Paint::Good } else { Paint::Warn };
    (paint, format!("sched_ext: {ops} {state} ({whose})"))
}

fn about(daemon: &Daemon) -> (Paint, String) {
    if let Some(why) = &daemon.ended {
        return (Paint::Bad, format!("its scheduler ended: {why}"));
    }
    let agent = match daemon.agent {
        None => "no agent".to_owned(),
        Some(pid) if daemon.agent_stopped => format!("agent {pid} STOPPED"),
        Some(pid) => format!("agent {pid}"),
    };
    let limits = match daemon.unenforced {
        0 => String::new(),
        some => format!(", cpu.max NOT ENFORCED in {some} cgroups"),
    };
    let reason = if daemon.mode == "degraded" { format!(" ({})", daemon.reason) } else { String::new() };
    let text = format!(
        "mode {}{reason}, plugin {}, {agent}, restarts {}, up {}{limits}",
        daemon.mode,
        daemon.plugin,
        daemon.restarts,
        span(daemon.uptime_ms / 1000)
    );
    let fine = daemon.mode != "degraded" && !daemon.agent_stopped && daemon.unenforced == 0;
    (if fine { Paint::Good } else { Paint::Warn }, text)
}

fn decided(daemon: &Daemon) -> String {
    let (d, unit) = daemon.per_second.map_or((daemon.totals, " in all"), |rate| (rate, "/s"));
    let Decided { by_agent, permitted, kernel_mode, taken_over } = d;
    format!(
        "agent {}{unit}, permits {}, kernel mode {}, core {}; takeovers {}",
        count(by_agent),
        count(permitted),
        count(kernel_mode),
        count(taken_over),
        daemon.takeovers
    )
}

/// `enqueued-seen` is `seen`: each leg begins where the one before ended, but for the last, which is all.
fn short_leg(name: &str) -> &str {
    if name == "enqueued-running" { "all" } else { name.rsplit('-').next().unwrap_or(name) }
}

/// All that is known.
pub(super) fn page(state: &State, look: Look, width: usize) -> Vec<Line<'static>> {
    let mut lines = vec![header(state, look, width), Line::default()];
    let Some(sample) = &state.sample else { return lines };
    let scheduler = &sample.scheduler;
    lines.push(named("Scheduler", kernel(scheduler), look, width));
    match &scheduler.daemon {
        Err(why) => {
            lines.push(named("Daemon", (Paint::Plain, why.clone()), look, width));
            lines.push(Line::default());
            let hint = " Start one with 'gthulhu-daemon run', or name its socket with --socket.";
            lines.push(Line::raw(format::clip(hint, width, look.mark())));
        }
        Ok(daemon) => lines.extend(all(daemon, look, width)),
    }
    lines.push(Line::default());
    lines.push(back(look, width));
    lines
}

fn all(daemon: &Daemon, look: Look, width: usize) -> Vec<Line<'static>> {
    let plain = |name: &str, text: String| named(name, (Paint::Plain, text), look, width);
    let mut lines = vec![
        named("Daemon", about(daemon), look, width),
        plain("", format!("version {}, decisions over {}", daemon.version, daemon.transport)),
        plain(
            "Takeovers",
            format!("{} times degraded, {} ms together", daemon.takeovers, daemon.degraded_ms),
        ),
        Line::default(),
        look.line(Paint::Head, format!(" {:<26}{:>12}{:>14}", "Who let tasks run", "per second", "in all")),
    ];
    type Part = fn(&Decided) -> f64;
    let parts: [(&str, Part); 4] = [
        ("decided by the agent", |d| d.by_agent),
        ("let in by permits", |d| d.permitted),
        ("in kernel mode", |d| d.kernel_mode),
        ("taken over by the core", |d| d.taken_over),
    ];
    for (name, part) in parts {
        let rate = daemon.per_second.map_or("-".to_owned(), |rate| count(part(&rate)));
        lines.push(Line::raw(format!(" {name:<26}{rate:>12}{:>14}", count(part(&daemon.totals)))));
    }
    lines.push(Line::default());
    let head = format!(" {:<26}{:>12}{:>14}{:>14}", "Leg, since the start", "p50", "p99", "sampled");
    lines.push(look.line(Paint::Head, head));
    for leg in &daemon.legs {
        let bound = |ns: u64| format!("{} {}", look.at_most(), time(ns as f64));
        lines.push(Line::raw(format!(
            " {:<26}{:>12}{:>14}{:>14}",
            format::fit(&leg.name, 25, look.mark()),
            bound(leg.p50_ns),
            bound(leg.p99_ns),
            count(leg.count as f64)
        )));
    }
    lines
}
