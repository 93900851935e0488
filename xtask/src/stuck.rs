//! What a guest that hung was doing, in a few lines: the logs of others keep only the end of ours.

/// Functions that say nothing about why.
const COMMON: &[&str] = &[
    "__schedule",
    "schedule",
    "schedule_timeout",
    "__wait_for_common",
    "do_syscall_64",
    "entry_SYSCALL_64_after_hwframe",
    "ret_from_fork",
    "ret_from_fork_asm",
    "kthread",
];
const FRAMES: usize = 6;
const LINES: usize = 12;

/// From the end of a console with the answers of the magic keys: a line for each task that is blocked or on a CPU, with
/// the functions that it is in, the innermost first. Idle CPUs are left out. Without such answers, the last lines.
pub(crate) fn essence(console: &[String]) -> Vec<String> {
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for line in console {
        let line = line.split_once("] ").map_or(line.as_str(), |(_, rest)| rest).trim();
        if let Some(who) = blocked(line).or_else(|| on_cpu(line)) {
            found.push((who, Vec::new()));
        } else if let (Some(function), Some((_, frames))) = (function(line), found.last_mut())
            && frames.len() < FRAMES
            && !COMMON.contains(&function)
            && frames.last().is_none_or(|last| last != function)
        {
            frames.push(function.to_owned());
        }
    }
    found.retain(|(who, frames)| !frames.is_empty() && !who.contains("swapper/"));
    if found.is_empty() {
        return console[console.len().saturating_sub(LINES)..].to_vec();
    }
    found.truncate(LINES);
    found.into_iter().map(|(who, frames)| format!("{who}: {}", frames.join(" < "))).collect()
}

/// `task:gthulhu-daemon  state:D stack:0 …`
fn blocked(line: &str) -> Option<String> {
    let (name, rest) = line.strip_prefix("task:")?.split_once("state:")?;
    Some(format!("{} ({})", name.trim(), rest.split_whitespace().next()?))
}

/// `CPU: 0 UID: 0 PID: 189 Comm: sched_ext_helpe Not tainted …`
fn on_cpu(line: &str) -> Option<String> {
    let (cpu, rest) = line.strip_prefix("CPU: ")?.split_once(' ')?;
    let name = rest.split_once("Comm: ")?.1.split_whitespace().next()?;
    Some(format!("{name} (on CPU {cpu})"))
}

/// `irq_work_sync+0x1e/0x70`, alone or behind `RIP: 0010:`. What the stack only seems to hold begins with `?`.
fn function(line: &str) -> Option<&str> {
    let line = line.strip_prefix("RIP: 0010:").unwrap_or(line);
    let (name, offsets) = line.split_once("+0x")?;
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.');
    (offsets.contains("/0x") && !name.is_empty() && name.chars().all(is_name)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hang_is_a_few_lines() {
        let console = "[   59.505902] sysrq: Show backtrace of all active CPUs\n\
            [   59.506870] CPU: 2 UID: 0 PID: 0 Comm: swapper/2 Not tainted 7.3.4 #1 PREEMPT(lazy)\n\
            [   59.510325]  default_idle+0x9/0x20\n\
            [   59.512866] CPU: 0 UID: 0 PID: 189 Comm: sched_ext_helpe Not tainted 7.3.4 #1 PREEMPT(lazy)\n\
            [   59.513200] RIP: 0010:irq_work_sync+0x1e/0x70\n\
            [   59.514071] Code: 90 90\n\
            [   59.515486]  <TASK>\n\
            [   59.515842]  free_kick_syncs+0x51/0xd0\n\
            [   59.515973]  ? __pfx_scx_disable_workfn+0x10/0x10\n\
            [   59.515998]  ? kthread_worker_fn+0x10/0x10\n\
            [   60.506542] task:gthulhu-daemon  state:D stack:0     pid:187   tgid:187\n\
            [   60.506911]  __schedule+0x52a/0x1080\n\
            [   60.507027]  kthread_flush_work+0xa2/0xe0\n\
            [   60.507055]  bpf_scx_unreg+0x5a/0xa0\n\
            [   60.507572] RIP: 0033:0x7fee71bc89f0";
        let console: Vec<String> = console.lines().map(|line| line.trim().to_owned()).collect();
        assert_eq!(
            essence(&console),
            [
                "sched_ext_helpe (on CPU 0): irq_work_sync < free_kick_syncs",
                "gthulhu-daemon (D): kthread_flush_work < bpf_scx_unreg"
            ]
        );
        let panic: Vec<String> = (0..30).map(|n| format!("[ {n}.0] line {n}")).collect();
        assert_eq!(essence(&panic), panic[18..]);
    }
}
