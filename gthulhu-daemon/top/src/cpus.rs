//! What the CPUs do, from `/proc/stat` (proc_stat(5)).

/// Clock ticks of one CPU since boot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ticks {
    pub(crate) cpu: u32,
    user: u64,
    system: u64,
    irq: u64,
    steal: u64,
    idle: u64,
}

/// What one CPU did in an interval, as shares of it.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Cpu {
    pub(crate) cpu: u32,
    pub(crate) user: f64,
    pub(crate) system: f64,
    pub(crate) irq: f64,
    /// The hypervisor ran somebody else.
    pub(crate) steal: f64,
}

impl Cpu {
    /// Neither idle nor taken away by the hypervisor.
    pub(crate) fn busy(&self) -> f64 {
        self.user + self.system + self.irq
    }
}

/// The lines of the CPUs that are online.
pub(crate) fn parse(stat: &str) -> Vec<Ticks> {
    stat.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Ticks> {
    let mut words = line.split_ascii_whitespace();
    let cpu = words.next()?.strip_prefix("cpu")?.parse().ok()?;
    let mut next = || words.next().and_then(|word| word.parse::<u64>().ok()).unwrap_or(0);
    let (user, nice, system, idle, iowait) = (next(), next(), next(), next(), next());
    let (irq, softirq, steal) = (next(), next(), next());
    // The time of guests, which follows, is in that of users already.
    Some(Ticks { cpu, user: user + nice, system, irq: irq + softirq, steal, idle: idle + iowait })
}

/// What they did between two looks. One that was not there before is left out this time.
pub(crate) fn between(before: &[Ticks], now: &[Ticks]) -> Vec<Cpu> {
    let one = |now: &Ticks| {
        let before = before.iter().find(|before| before.cpu == now.cpu)?;
        // Idle time of a CPU that was offline may go back (kernel/sched/cputime.c): that is no time, then.
        let grown = |part: fn(&Ticks) -> u64| part(now).saturating_sub(part(before)) as f64;
        let [user, system, irq, steal, idle] =
            [grown(|t| t.user), grown(|t| t.system), grown(|t| t.irq), grown(|t| t.steal), grown(|t| t.idle)];
        let all = (user + system + irq + steal + idle).max(1.0);
        Some(Cpu { cpu: now.cpu, user: user / all, system: system / all, irq: irq / all, steal: steal / all })
    };
    now.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_what_passed_on_that_cpu() {
        let before =
            parse("cpu  9 9 9 9\ncpu0 100 0 50 800 50 0 0 0 0 0\ncpu2 0 0 0 0 0 0 0 0 0 0\nintr 5\n");
        let now = parse("cpu0 120 10 60 830 60 5 5 10 77 0\ncpu2 0 0 0 0 0 0 0 0 0 0\ncpu3 1 1 1 1\n");
        let cpus = between(&before, &now);
        assert_eq!(cpus.iter().map(|cpu| cpu.cpu).collect::<Vec<_>>(), [0, 2]);
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9, "{a} {b}");
        close(cpus[0].user, 0.3);
        close(cpus[0].system, 0.1);
        close(cpus[0].irq, 0.1);
        close(cpus[0].steal, 0.1);
        close(cpus[0].busy(), 0.5);
        close(cpus[1].busy(), 0.0);
    }
}
