//! A mixed load for as long as one likes, with a random drill each second: nothing may be lost, leak or end.

use super::cgroups::Churn;
use super::scene::{Pulse, own_gap};
use super::{PLUGIN, balanced, enable_seq, healthy, stop_well};
use crate::check::{Checks, ensure};
use crate::drill;
use crate::process::Background;
use crate::sched::{Daemon, agent_pid, number};
use crate::stats::Random;
use crate::{Context, Result, sys};
use std::fs;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(50);
const NS: u64 = 1_000_000_000;
/// Between two looks at the daemon, two deaths (more often it would be a crash loop), and two lines of progress.
const LOOK_NS: u64 = 5 * NS;
const DEATH_NS: u64 = 12 * NS;
const LINE_NS: u64 = 60 * NS;
/// Until memory and descriptors must not grow any more: the first agents have been replaced by then.
const WARM_UP_NS: u64 = 30 * NS;
/// Pages come and go a little: lines of a log, a client that asks.
const RSS_SLACK_KB: u64 = 1024;
/// The loads are six busy tasks for two CPUs and hackbench, and an agent may die and be late at the same time.
const GAP: Duration = Duration::from_millis(1500);

pub(super) fn run(checks: &mut Checks, time: Duration) -> Result<()> {
    sys::be_real_time();
    own_gap()?;
    let daemon = Daemon::start(PLUGIN, &[])?;
    let seq = enable_seq()?;
    let mut pulse = Pulse::start();
    let mut soak = Soak::default();
    let held = checks.check("soak.holds", || {
        soak.run(&daemon, seq, &mut pulse, time)?;
        Ok(soak.text())
    });
    checks.check("soak.beat", || pulse.verdict(GAP));
    checks.check("soak.flat", || {
        ensure(held && soak.looks > 0, || "it did not hold until the first look after the warm-up".into())?;
        Ok(format!(
            "supervisor {}; agent {}; {} looks",
            soak.supervisor.text(),
            soak.agent.text(),
            soak.looks
        ))
    });
    drop(pulse);
    checks.check("soak.stop", || {
        let (outcome, text) = stop_well(daemon)?;
        Ok(format!("{text}; {}", balanced(&outcome.report)?))
    });
    Ok(())
}

#[derive(Default)]
struct Soak {
    deaths: u32,
    stops: u32,
    looks: u32,
    most_outstanding: u64,
    most_running: u64,
    churn: String,
    supervisor: Footprint,
    agent: Footprint,
}

impl Soak {
    fn run(&mut self, daemon: &Daemon, seq: u64, pulse: &mut Pulse, time: Duration) -> Result<()> {
        let secs = (time.as_secs() + 60).to_string();
        let _loads = [
            Background::load(&["hogs", "2", "--secs", &secs])?,
            Background::load(&["affinity", "--tasks", "2", "--secs", &secs])?,
            Background::load(&["race", "--secs", &secs, "sleepers:4:work_us=100:sleep_us=5000"])?,
        ];
        let mut churn = Churn::new()?;
        let mut random = Random::new(11);
        let start = sys::now_ns();
        let end = start + time.as_nanos() as u64;
        let (mut look, mut death, mut line, mut drill) =
            (start + LOOK_NS, start + DEATH_NS, start + LINE_NS, start + NS);
        while sys::now_ns() < end {
            churn.step()?;
            sys::sleep(STEP);
            let now = sys::now_ns();
            if now > drill {
                drill = now + NS;
                self.drill(daemon, &mut random, now > death)?;
                if now > death {
                    death = sys::now_ns() + DEATH_NS + random.below(DEATH_NS);
                }
            }
            if now > look {
                look = now + LOOK_NS;
                self.look(daemon, seq, now - start > WARM_UP_NS)?;
            }
            if now > line {
                line += LINE_NS;
                self.churn = churn.text();
                println!(
                    "# soak {} s: {}; gap {} ms",
                    (now - start) / NS,
                    self.text(),
                    drill::ms(pulse.gap()?)
                );
            }
        }
        self.churn = churn.text();
        drop(churn);
        // What the last drill has left must be over before the last look.
        sys::sleep(Duration::from_secs(2));
        self.look(daemon, seq, false)
    }

    fn drill(&mut self, daemon: &Daemon, random: &mut Random, may_kill: bool) -> Result<()> {
        let Some(agent) = daemon.agent_pid()? else { return Ok(()) };
        if may_kill {
            self.deaths += 1;
            return sys::signal(agent, libc::SIGKILL);
        }
        if random.below(4) == 0 {
            self.stops += 1;
            sys::signal(agent, libc::SIGSTOP)?;
            sys::sleep(Duration::from_millis(random.below(400)));
            sys::signal(agent, libc::SIGCONT)?;
        }
        Ok(())
    }

    fn look(&mut self, daemon: &Daemon, seq: u64, is_warm: bool) -> Result<()> {
        let status = healthy(daemon, seq)?;
        let count = |name: &str| number(&status, &format!("/counters/{name}"));
        let ended = count("ev_dispatched")?
            + count("ev_bounced")?
            + count("ev_cancelled")?
            + count("ev_dead")?
            + count("ev_taken_over")?;
        // The counters of several CPUs are not read at one moment: a few events may seem to have ended too early.
        let outstanding = count("ev_sent")?.abs_diff(ended);
        ensure(outstanding < 200, || format!("{outstanding} events outstanding: {}", status["counters"]))?;
        self.most_outstanding = self.most_outstanding.max(outstanding);
        let running = number(&status, "/statistics/nr_running")?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        ensure(running <= cpus, || format!("{running} tasks running on {cpus} CPUs"))?;
        self.most_running = self.most_running.max(running);
        let Some(agent) = agent_pid(&status).filter(|_| is_warm) else { return Ok(()) };
        self.looks += 1;
        self.supervisor.look(daemon.supervisor_pid()).map_err(|e| format!("supervisor: {e}"))?;
        self.agent.look(agent).map_err(|e| format!("agent: {e}"))
    }

    fn text(&self) -> String {
        format!(
            "agent killed {} times, stopped {} times; {}; at most {} events outstanding and {} tasks running at a look",
            self.deaths, self.stops, self.churn, self.most_outstanding, self.most_running
        )
    }
}

/// Memory and open files of a process, or of one process after another in the same place.
#[derive(Default)]
struct Footprint {
    first: Option<(u64, usize)>,
    most: (u64, usize),
}

impl Footprint {
    fn look(&mut self, pid: i32) -> Result<()> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).cannot("read its memory")?;
        let rss =
            status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.split_whitespace().next()?.parse().ok());
        let rss: u64 = rss.ok_or("it tells no VmRSS")?;
        let files = fs::read_dir(format!("/proc/{pid}/fd")).cannot("count its files")?.count();
        let (first_rss, first_files) = *self.first.get_or_insert((rss, files));
        self.most = (self.most.0.max(rss), self.most.1.max(files));
        // One file more: somebody asks for the status at this moment.
        let flat = rss <= first_rss + RSS_SLACK_KB && files <= first_files + 1;
        ensure(flat, || format!("{rss} kB and {files} files, were {first_rss} kB and {first_files}"))
    }

    fn text(&self) -> String {
        let (rss, files) = self.first.unwrap_or_default();
        format!("{rss} kB, {files} files, at most {} kB, {} files", self.most.0, self.most.1)
    }
}
