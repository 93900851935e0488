//! What was measured, as a table and as files.

use std::fmt::Write as _;
use std::path::Path;

use qumun_benches::{Spent, median};

use crate::parts::Part;
use crate::ways::{ONE_AT_A_TIME, Policy};
use crate::{Options, WINDOW};

/// Both ways, once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pair {
    pub(crate) setting: &'static str,
    pub(crate) policy: Policy,
    pub(crate) batch: u32,
    pub(crate) pair: u32,
    pub(crate) decisions: u32,
    pub(crate) agent: Spent,
    pub(crate) single: Spent,
}

/// From sent until taken, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Latency {
    pub(crate) way: &'static str,
    pub(crate) batch: u32,
    pub(crate) samples: usize,
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) most: u64,
}

/// System calls by number.
#[derive(Clone, Debug)]
pub(crate) struct Syscalls {
    pub(crate) way: &'static str,
    pub(crate) batch: u32,
    pub(crate) decisions: u64,
    pub(crate) calls: Vec<(usize, u64)>,
}

/// Everything.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) pairs: Vec<Pair>,
    pub(crate) latencies: Vec<Latency>,
    pub(crate) syscalls: Vec<Syscalls>,
    /// Why none were counted.
    pub(crate) uncounted: Option<String>,
    pub(crate) parts: Vec<Part>,
}

/// One line of the table: medians per decision.
struct Line {
    agent: f64,
    single: f64,
    agent_wall: f64,
    single_wall: f64,
    /// Of both ways' CPU time, pair by pair: median, least, most.
    ratio: [f64; 3],
    pairs: usize,
}

impl Report {
    pub(crate) fn print(&self) {
        print!("{}", self.text());
    }

    fn text(&self) -> String {
        let mut text = String::from(
            "CPU time of the loop per decision, ns, and wall time in brackets; medians\n\
             setting  policy   batch       agent            one at a time      agent / other  least .. most\n",
        );
        let mut told = Vec::new();
        for pair in &self.pairs {
            let key = (pair.setting, pair.policy, pair.batch);
            if told.contains(&key) {
                continue;
            }
            told.push(key);
            let line = self.line(key);
            let [ratio, least, most] = line.ratio;
            let _ = writeln!(
                text,
                "{:<8} {:<8} {:>5}  {:>7.1} ({:>7.1})  {:>8.1} ({:>8.1})     1/{:<6.1}      1/{:.1} .. 1/{:.1}",
                key.0,
                key.1,
                key.2,
                line.agent,
                line.agent_wall,
                line.single,
                line.single_wall,
                1.0 / ratio,
                1.0 / most,
                1.0 / least
            );
        }
        text.push_str("\nFrom sent until taken, ns, each batch by itself\nway            batch       p50        p99       most\n");
        for l in &self.latencies {
            let _ =
                writeln!(text, "{:<13}  {:>5}  {:>8}  {:>9}  {:>9}", l.way, l.batch, l.p50, l.p99, l.most);
        }
        text.push_str("\nSystem calls per decision, counted by the kernel\n");
        if let Some(why) = &self.uncounted {
            let _ = writeln!(text, "skipped: {why}");
        }
        for s in &self.syscalls {
            let _ = write!(text, "{:<13}  {:>5}  {:.4} ", s.way, s.batch, s.per_decision());
            let named: Vec<_> = s.calls.iter().map(|&(nr, n)| format!("{} {n}", name(nr))).collect();
            let _ = writeln!(text, " ({} in {} decisions)", named.join(", "), s.decisions);
        }
        text.push_str("\nStep by step, ns of CPU time each\n");
        for (what, ns) in &self.parts {
            let _ = writeln!(text, "{what:<46} {ns:>8.1}");
        }
        text.push_str(&self.verdict());
        text
    }

    fn line(&self, key: (&str, Policy, u32)) -> Line {
        let pairs: Vec<_> =
            self.pairs.iter().filter(|pair| (pair.setting, pair.policy, pair.batch) == key).collect();
        let all = |of: fn(&Pair) -> u64| -> Vec<f64> {
            pairs.iter().map(|pair| of(pair) as f64 / f64::from(pair.decisions)).collect()
        };
        let ratios: Vec<f64> =
            pairs.iter().map(|pair| pair.agent.cpu as f64 / pair.single.cpu as f64).collect();
        let least = ratios.iter().copied().fold(f64::INFINITY, f64::min);
        let most = ratios.iter().copied().fold(0.0, f64::max);
        Line {
            agent: median(&all(|pair| pair.agent.cpu)),
            single: median(&all(|pair| pair.single.cpu)),
            agent_wall: median(&all(|pair| pair.agent.wall)),
            single_wall: median(&all(|pair| pair.single.wall)),
            ratio: [median(&ratios), least, most],
            pairs: pairs.len(),
        }
    }

    /// The two figures that were promised, where they were measured.
    fn verdict(&self) -> String {
        let mut text = String::from("\nWhat was asked for\n");
        let said = |kept: bool| if kept { "kept    " } else { "NOT KEPT" };
        if self.pairs.iter().any(|pair| pair.policy == Policy::Fifo && pair.batch == 64) {
            let line = self.line(("alone", Policy::Fifo, 64));
            let _ = writeln!(
                text,
                "{} CPU per decision at batch 64: 1/{:.1} of one at a time (median of {} pairs); must 1/8, aim 1/15",
                said(line.ratio[0] <= 1.0 / 8.0),
                1.0 / line.ratio[0],
                line.pairs
            );
        }
        let most = self
            .syscalls
            .iter()
            .filter(|s| s.way != ONE_AT_A_TIME && s.batch >= 32)
            .map(Syscalls::per_decision)
            .reduce(f64::max);
        if let Some(most) = most {
            let _ = writeln!(
                text,
                "{} system calls per decision at batches of 32 and more: at most {most:.4}; must 0.1, aim 0.04",
                said(most <= 0.1)
            );
        }
        text
    }

    /// # Panics
    /// When the folder cannot be written.
    pub(crate) fn write(&self, folder: &Path, options: &Options) {
        let mut pairs = String::from("setting,policy,batch,pair,way,decisions,cpu_ns,wall_ns\n");
        for p in &self.pairs {
            for (way, spent) in [("agent", p.agent), (ONE_AT_A_TIME, p.single)] {
                let _ = writeln!(
                    pairs,
                    "{},{},{},{},{way},{},{},{}",
                    p.setting, p.policy, p.batch, p.pair, p.decisions, spent.cpu, spent.wall
                );
            }
        }
        let mut latencies = String::from("way,batch,samples,p50_ns,p99_ns,max_ns\n");
        for l in &self.latencies {
            let _ = writeln!(latencies, "{},{},{},{},{},{}", l.way, l.batch, l.samples, l.p50, l.p99, l.most);
        }
        let mut syscalls = String::from("way,batch,decisions,syscall,count\n");
        for s in &self.syscalls {
            for &(nr, count) in &s.calls {
                let _ = writeln!(syscalls, "{},{},{},{},{count}", s.way, s.batch, s.decisions, name(nr));
            }
        }
        let mut parts = String::from("step,cpu_ns\n");
        for (what, ns) in &self.parts {
            let _ = writeln!(parts, "\"{what}\",{ns:.2}");
        }
        let text = format!("{}\n{}", setup(options), self.text());
        std::fs::create_dir_all(folder).expect("the folder can be made");
        for (file, text) in [
            ("dispatch-pairs.csv", pairs),
            ("dispatch-latency.csv", latencies),
            ("dispatch-syscalls.csv", syscalls),
            ("dispatch-parts.csv", parts),
            ("dispatch.txt", text),
        ] {
            std::fs::write(folder.join(file), text).expect("the folder can be written to");
        }
        println!("written to {}", folder.display());
    }
}

impl Syscalls {
    fn per_decision(&self) -> f64 {
        self.calls.iter().map(|&(_, count)| count).sum::<u64>() as f64 / self.decisions as f64
    }
}

fn setup(o: &Options) -> String {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let cpuinfo = read("/proc/cpuinfo");
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or("").trim();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{} pairs of {} decisions, {} tasks, a view of {} CPUs, at least {WINDOW} decisions between two looks at the clock\n\
         Linux {}, {cpus} CPUs{model}, load {}",
        o.pairs,
        o.decisions,
        o.tasks,
        o.cpus,
        release.trim(),
        read("/proc/loadavg").trim(),
    )
}

fn name(number: usize) -> String {
    match number as libc::c_long {
        libc::SYS_sched_yield => "sched_yield".into(),
        libc::SYS_bpf => "bpf".into(),
        libc::SYS_clock_gettime => "clock_gettime".into(),
        libc::SYS_getrusage => "getrusage".into(),
        libc::SYS_clock_nanosleep => "clock_nanosleep".into(),
        libc::SYS_getcpu => "getcpu".into(),
        other => format!("number {other}"),
    }
}
