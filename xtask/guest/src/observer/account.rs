//! What follows from the records, worked out when all is over.

use super::{RUNNABLE, Record, SWITCH, WAKEUP};
use crate::stats::Sorted;
use std::collections::HashMap;
use std::ops::Range;

/// A stretch of one CPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// Which.
    pub cpu: u32,
    /// ns since the start of the observation.
    pub start: u64,
    /// ns.
    pub length: u64,
    /// The name of who ran; empty: idle.
    pub who: String,
    /// Whether that was the agent.
    pub is_agent: bool,
}

/// The figures of one measurement.
#[derive(Debug, Clone, Default)]
pub struct Account {
    /// How long was looked, ns.
    pub length: u64,
    /// Records that did not fit: with any, the other figures are too low.
    pub lost: u64,
    /// Times that a task became runnable; those of the agent are not counted.
    pub wakeups: u64,
    /// From each of these until the task ran, ns.
    pub latency: Sorted,
    /// Context switches.
    pub switches: u64,
    /// Those to the agent's thread.
    pub to_agent: u64,
    /// How long that thread ran, ns.
    pub agent_ran: u64,
    /// Wakeups between which and the task's turn the agent ran.
    pub after_agent: u64,
    /// CPU time without a task, ns.
    pub idle: u64,
    /// The part of it in which a task waited that may run there, ns.
    pub idle_while_waiting: u64,
    /// The part of that in stretches longer than 100 us, ns.
    pub idle_long_while_waiting: u64,
    /// The longest such stretch, ns.
    pub longest_idle_while_waiting: u64,
    /// When that ended, ns since the start.
    pub longest_idle_ended: u64,
    /// What ran on each CPU in 40 ms, or less, from the middle on.
    pub strip: Vec<Slice>,
}

/// A CPU that sleeps needs an interrupt to notice that there is work, and in an emulated machine that takes its time. No
/// scheduler can help that; a CPU that still idles after this was not told.
const NOTICED: u64 = 100_000;
/// How much of a measurement is drawn, and how many slices of a CPU at most.
const STRIP: u64 = 40_000_000;
const SLICES: usize = 300;

#[derive(Debug, Default)]
struct Task {
    /// Where it runs.
    on: Option<u32>,
    /// The CPUs that it waits for.
    waits_for: Option<u64>,
    woken: Option<Woken>,
}

#[derive(Debug, Clone, Copy)]
struct Woken {
    at: u64,
    agent_turns: u64,
}

#[derive(Debug, Default, Clone)]
struct Cpu {
    /// Idle since. Unknown until its first switch, and then taken as busy.
    idle: Option<u64>,
    /// Tasks that wait and may run here.
    waiting: u32,
    /// Idle although somebody waits, since.
    wasting: Option<u64>,
    /// Who runs, since when.
    runs: Option<(u64, String, bool)>,
}

struct Books {
    account: Account,
    tasks: HashMap<i32, Task>,
    cpus: Vec<Cpu>,
    agent: Option<i32>,
    /// Since when the agent runs.
    agent_runs: Option<u64>,
    latency: Vec<u64>,
    strip: Range<u64>,
    start: u64,
}

impl Account {
    /// Of records in the order of time, on so many CPUs.
    pub fn of(records: &[Record], time: Range<u64>, agent: Option<i32>, cpus: usize, lost: u64) -> Self {
        let length = time.end.saturating_sub(time.start);
        let middle = time.start + length / 2;
        let mut books = Books {
            account: Self { length, lost, ..Self::default() },
            tasks: HashMap::new(),
            cpus: vec![Cpu::default(); cpus.min(64)],
            agent,
            agent_runs: None,
            latency: Vec::new(),
            strip: middle..middle + STRIP,
            start: time.start,
        };
        let mut has_begun = false;
        for record in records.iter().take_while(|record| record.at < time.end) {
            if !has_begun && record.at >= time.start {
                has_begun = true;
                books.begin(time.start);
            }
            match record.kind {
                WAKEUP => books.woken(record),
                SWITCH => books.switched(record),
                _ => {}
            }
        }
        books.close(time.end);
        let Books { mut account, latency, .. } = books;
        account.latency = Sorted::new(latency);
        for slice in &mut account.strip {
            slice.start = slice.start.saturating_sub(middle);
        }
        account
    }

    /// `idle_while_waiting` as a part of all CPU time.
    pub fn wasted_share(&self, cpus: usize) -> f64 {
        self.idle_while_waiting as f64 / (self.length.max(1) as f64 * cpus.max(1) as f64)
    }
}

impl Books {
    /// What was seen until now says who is where; it is not counted.
    fn begin(&mut self, start: u64) {
        let Account { length, lost, .. } = self.account;
        // A running agent has had its switch.
        let to_agent = u64::from(self.agent_runs.is_some());
        self.agent_runs = self.agent_runs.map(|_| start);
        self.account = Account { length, lost, to_agent, ..Account::default() };
        self.latency.clear();
        for task in self.tasks.values_mut() {
            task.woken = None;
        }
        for cpu in &mut self.cpus {
            cpu.idle = cpu.idle.map(|_| start);
            cpu.wasting = cpu.wasting.map(|_| start);
        }
    }

    fn woken(&mut self, record: &Record) {
        let task = self.tasks.entry(record.task).or_default();
        // Who is woken while it still runs, or waits already, does not begin to wait.
        if record.task == 0 || task.on.is_some() || task.waits_for.is_some() {
            return;
        }
        if self.agent != Some(record.task) {
            self.account.wakeups += 1;
            // An agent that runs already decides without a switch to it.
            let running = u64::from(self.agent_runs.is_some());
            task.woken =
                Some(Woken { at: record.at, agent_turns: self.account.to_agent.wrapping_sub(running) });
        }
        self.waits(record.task, record.allowed, record.at);
    }

    fn switched(&mut self, record: &Record) {
        let Record { at, cpu, prev, task: next, .. } = *record;
        self.account.switches += 1;
        self.runs_until(cpu, at);
        if prev != 0 {
            let task = self.tasks.entry(prev).or_default();
            task.on = None;
            if self.agent == Some(prev) {
                self.account.agent_ran += self.agent_runs.take().map_or(0, |since| at - since);
            }
            if record.prev_state == RUNNABLE {
                self.waits(prev, record.allowed, at);
            }
        }
        if self.agent == Some(next) {
            self.account.to_agent += 1;
            self.agent_runs = Some(at);
        }
        if next != 0 {
            let task = self.tasks.entry(next).or_default();
            task.on = Some(cpu);
            if let Some(woken) = task.woken.take() {
                self.latency.push(at.saturating_sub(woken.at));
                self.account.after_agent += u64::from(self.account.to_agent != woken.agent_turns);
            }
            if let Some(cpus) = task.waits_for.take() {
                self.count(cpus, at, |waiting| waiting.saturating_sub(1));
            }
        }
        let Some(here) = self.cpus.get_mut(cpu as usize) else { return };
        let name = if next == 0 { String::new() } else { record.name() };
        here.runs = Some((at, name, self.agent == Some(next)));
        if next == 0 {
            here.idle = Some(at);
        } else if let Some(since) = here.idle.take() {
            self.account.idle += at - since;
        }
        self.look(cpu as usize, at);
    }

    fn waits(&mut self, task: i32, allowed: u64, at: u64) {
        self.tasks.entry(task).or_default().waits_for = Some(allowed);
        self.count(allowed, at, |waiting| waiting + 1);
    }

    fn count(&mut self, allowed: u64, at: u64, change: impl Fn(u32) -> u32) {
        for cpu in (0..self.cpus.len()).filter(|cpu| allowed & 1 << cpu != 0) {
            self.cpus[cpu].waiting = change(self.cpus[cpu].waiting);
            self.look(cpu, at);
        }
    }

    /// Whether this CPU idles now although somebody waits for it.
    fn look(&mut self, cpu: usize, at: u64) {
        let here = &mut self.cpus[cpu];
        match (here.idle.is_some() && here.waiting > 0, here.wasting) {
            (true, None) => here.wasting = Some(at),
            (false, Some(since)) => {
                here.wasting = None;
                let wasted = at - since;
                self.account.idle_while_waiting += wasted;
                self.account.idle_long_while_waiting += if wasted > NOTICED { wasted } else { 0 };
                if wasted > self.account.longest_idle_while_waiting {
                    self.account.longest_idle_while_waiting = wasted;
                    self.account.longest_idle_ended = at.saturating_sub(self.start);
                }
            }
            _ => {}
        }
    }

    fn runs_until(&mut self, cpu: u32, at: u64) {
        let Some((start, who, is_agent)) = self.cpus.get_mut(cpu as usize).and_then(|here| here.runs.take())
        else {
            return;
        };
        let (start, end) = (start.max(self.strip.start), at.min(self.strip.end));
        let is_room = || self.account.strip.iter().filter(|slice| slice.cpu == cpu).count() < SLICES;
        if start < end && is_room() {
            self.account.strip.push(Slice { cpu, start, length: end - start, who, is_agent });
        }
    }

    fn close(&mut self, end: u64) {
        self.account.agent_ran += self.agent_runs.take().map_or(0, |since| end.saturating_sub(since));
        for cpu in 0..self.cpus.len() {
            self.runs_until(cpu as u32, end);
            if let Some(since) = self.cpus[cpu].idle.take() {
                self.account.idle += end.saturating_sub(since);
            }
            self.look(cpu, end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wakeup(at: u64, task: i32, allowed: u64) -> Record {
        Record { at, task, allowed, kind: WAKEUP, ..Record::default() }
    }

    fn switch(at: u64, cpu: u32, prev: i32, prev_state: u32, task: i32) -> Record {
        Record { at, cpu, prev, prev_state, task, allowed: 0b11, kind: SWITCH, ..Record::default() }
    }

    fn account(records: &[Record], agent: Option<i32>) -> Account {
        Account::of(records, 0..1000, agent, 2, 0)
    }

    #[test]
    fn a_wakeup_lasts_until_the_task_runs() {
        let a = account(&[wakeup(10, 7, 0b11), switch(35, 0, 0, RUNNABLE, 7), switch(40, 0, 7, 0, 0)], None);
        assert_eq!((a.wakeups, a.latency.max(), a.switches), (1, 25, 2));
    }

    #[test]
    fn only_a_cpu_that_the_task_may_use_wastes_its_time() {
        // Both CPUs idle from 0 on; 7 may use CPU 1 only, and gets it at 60.
        let records =
            [switch(0, 0, 5, 0, 0), switch(0, 1, 6, 0, 0), wakeup(20, 7, 0b10), switch(60, 1, 0, 1, 7)];
        let a = account(&records, None);
        assert_eq!((a.idle_while_waiting, a.longest_idle_while_waiting), (40, 40));
        assert_eq!(a.idle, 1000 + 60);
        assert!((a.wasted_share(2) - 0.02).abs() < 1e-9);
        assert_eq!(a.idle_long_while_waiting, 0, "a CPU needs a moment to notice");
    }

    #[test]
    fn a_preempted_task_waits_and_is_not_woken() {
        let records = [
            switch(0, 1, 9, 0, 0),
            switch(10, 0, 1, 0, 7),
            switch(20, 0, 7, RUNNABLE, 8),
            switch(50, 0, 8, 0, 7),
        ];
        let a = account(&records, None);
        assert_eq!((a.wakeups, a.idle_while_waiting), (0, 30), "CPU 1 idled while 7 waited");
    }

    #[test]
    fn who_is_woken_while_it_runs_does_not_wait() {
        let records = [switch(0, 1, 9, 0, 0), switch(10, 0, 1, 0, 7), wakeup(20, 7, 0b11)];
        let a = account(&records, None);
        assert_eq!((a.wakeups, a.idle_while_waiting), (0, 0));
    }

    #[test]
    fn wakeups_after_which_the_agent_ran_are_told_apart() {
        let agent = 100;
        let records = [
            // The agent sleeps, runs, and then the task does.
            wakeup(10, 7, 0b11),
            switch(15, 0, 0, 0, agent),
            switch(20, 0, agent, 0, 7),
            switch(25, 0, 7, 0, 0),
            // No agent in between.
            wakeup(30, 7, 0b11),
            switch(35, 0, 0, 0, 7),
            // The agent runs on the other CPU already.
            switch(36, 1, 0, 0, agent),
            switch(40, 0, 7, 0, 0),
            wakeup(50, 7, 0b11),
            switch(55, 0, 0, 0, 7),
        ];
        let a = account(&records, Some(agent));
        assert_eq!((a.wakeups, a.to_agent, a.after_agent), (3, 2, 2));
        assert_eq!(a.agent_ran, 5 + (1000 - 36));
    }

    #[test]
    fn what_was_before_the_start_is_known_and_not_counted() {
        let records = [
            switch(10, 0, 5, 0, 0),
            wakeup(20, 7, 0b01),
            // CPU 0 idles, and 7 waits for it.
            switch(540, 0, 0, 0, 7),
        ];
        let a = Account::of(&records, 500..1000, None, 1, 0);
        assert_eq!((a.wakeups, a.switches, a.idle), (0, 1, 40));
        assert_eq!((a.idle_while_waiting, a.longest_idle_ended), (40, 40));
    }

    #[test]
    fn the_strip_is_cut_to_its_window() {
        let records = [switch(100, 0, 0, 0, 7), switch(700, 0, 7, 0, 0)];
        let a = account(&records, None);
        let slices: Vec<_> = a.strip.iter().map(|s| (s.cpu, s.start, s.length)).collect();
        assert_eq!(slices, [(0, 0, 200), (0, 200, 300)], "from 500 to the end");
    }
}
