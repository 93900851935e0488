//! Random histories: for each property such as would show that it does not hold.

use super::Property;
use crate::sim::{Costs, Fault, Scenario, Span, Spec, Step};
use crate::{Cpu, CpuSet, Nanos};

const fn us(n: u64) -> Nanos {
    Nanos::from_micros(n)
}

const fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One of `low..=high`.
    fn of(&mut self, low: u64, high: u64) -> u64 {
        low + self.next() % (high - low + 1)
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.of(0, of.len() as u64 - 1) as usize]
    }
}

const MACHINES: &[&str] = &["cpus=1", "cpus=2", "cpus=4", "cores=2 threads=2", "l3s=2 cores=2 threads=2"];

pub(super) fn history(property: Property, seed: u64) -> Scenario {
    let mut random = Random(seed ^ (property.name().len() as u64) << 40);
    let machines = if property == Property::Affinity { &MACHINES[2..] } else { MACHINES };
    let machine = random.one(machines);
    // All of them are machines: a test sees to that.
    let mut history = Scenario::on(machine).unwrap_or_else(|e| unreachable!("{machine}: {e}"));
    history.setup.seed = random.next() >> 32;
    // Enough for all of them, and quick to make.
    (history.tasks, history.pool) = (Some(512), Some(1 << 18));
    let cpus = u64::from(history.setup.topology.nr_cpus());
    match property {
        Property::Shares => {
            history.time = ms(8_000);
            // With one hog for each CPU at least, weights mean something; some cannot use theirs, if they are heavy.
            let kinds = random.of(1, 4);
            for kind in 0..kinds {
                let weight = random.one(&[50, 100, 100, 200, 400]);
                let count = (random.of(1, 3) * cpus).div_ceil(kinds).max(2);
                hogs(&mut history, &format!("hogs{kind}"), count, weight);
            }
        }
        Property::Work => {
            history.time = ms(1_500);
            // Short of what the machine can do, and beyond it.
            let tasks = random.of(cpus, 3 * cpus);
            let run = random.of(1_000, 4_000);
            let gap = random.of(run / 2, 3 * run);
            let steps = vec![Step::Run(Span::Exponential(us(run))), Step::Sleep(Span::Exponential(us(gap)))];
            history.work.group("sleepers", tasks as usize, Spec::default(), steps);
            hogs(&mut history, "hogs", random.of(1, cpus), 100);
        }
        Property::Waits => {
            history.time = ms(4_000);
            let weights = [50, 100, 200];
            for kind in 0..random.of(1, 3) {
                hogs(&mut history, &format!("hogs{kind}"), random.of(1, 2 * cpus), random.one(&weights));
            }
            sleepers(&mut history, &mut random, cpus);
            if random.of(0, 2) == 0 {
                // New tasks all the time: who gives them credit starves the old ones.
                history.work.fork_storm(random.of(1, cpus) as usize, us(random.of(100, 1_000)));
            }
        }
        Property::Affinity => {
            history.time = ms(600);
            for kind in 0..random.of(1, 3) {
                let first = random.of(0, cpus - 2) as u32;
                let last = random.of(u64::from(first) + 1, cpus - 1) as u32;
                let mut some = CpuSet::EMPTY;
                (first..=last).for_each(|cpu| some.insert(Cpu(cpu)));
                let spec = Spec { cpus: some, ..Spec::default() };
                let steps = vec![Step::Run(Span::Exponential(ms(2))), Step::Sleep(Span::Exponential(ms(2)))];
                history.work.group(&format!("bound{kind}"), random.of(1, cpus) as usize, spec, steps);
            }
            sleepers(&mut history, &mut random, cpus);
            hogs(&mut history, "hogs", random.of(1, cpus), 100);
        }
        Property::Exhaustion => {
            history.time = ms(1_500);
            history.tasks = Some(random.of(2, 8) as usize);
            history.pool = Some(random.one(&[0, 4_096, 16_384]));
            if random.of(0, 1) == 1 {
                history.setup.rings = (random.of(2, 16) as usize, random.of(2, 16) as usize);
            }
            hogs(&mut history, "hogs", random.of(2, 2 * cpus), 100);
            mixture(&mut history, &mut random, cpus);
            let many = vec![Step::Run(Span::Exponential(us(100))), Step::Sleep(Span::Exponential(ms(10)))];
            history.work.group("many", random.of(20, 40) as usize, Spec::default(), many);
        }
        Property::Custody | Property::Determinism | Property::Allocation => {
            history.time = ms(800);
            hogs(&mut history, "hogs", random.of(1, 2 * cpus), random.one(&[50, 100, 300]));
            mixture(&mut history, &mut random, cpus);
        }
        Property::Faults => {
            history.time = ms(2_000);
            hogs(&mut history, "hogs", random.of(1, 2 * cpus), 100);
            mixture(&mut history, &mut random, cpus);
            faults(&mut history, &mut random, cpus as u32);
        }
    }
    history
}

fn hogs(history: &mut Scenario, name: &str, count: u64, weight: u32) {
    let spec = Spec { weight, ..Spec::default() };
    history.work.group(name, count as usize, spec, vec![Step::Run(ms(1_000).into())]);
}

fn sleepers(history: &mut Scenario, random: &mut Random, cpus: u64) {
    let (run, gap) = (random.of(100, 1_000), random.of(1_000, 10_000));
    let steps = vec![Step::Run(Span::Exponential(us(run))), Step::Sleep(Span::Exponential(us(gap)))];
    history.work.group("sleepers", random.of(1, 2 * cpus) as usize, Spec::default(), steps);
}

/// Who wakes whom, who comes and goes, and timers.
fn mixture(history: &mut Scenario, random: &mut Random, cpus: u64) {
    sleepers(history, random, cpus);
    let work = &mut history.work;
    if random.of(0, 1) == 1 {
        work.pipes(random.of(1, cpus) as usize, us(random.of(20, 200)));
    }
    if random.of(0, 1) == 1 {
        work.requests(random.of(1, cpus) as usize, us(random.of(50, 500)), ms(random.of(1, 4)));
    }
    if random.of(0, 1) == 1 {
        work.fork_storm(random.of(1, cpus) as usize, us(random.of(100, 1_000)));
    }
    work.periodic(random.of(1, cpus) as usize, us(random.of(50, 500)), ms(random.of(2, 20)));
}

fn faults(history: &mut Scenario, random: &mut Random, cpus: u32) {
    for _ in 0..random.of(1, 4) {
        let at = ms(random.of(150, 1_500));
        let group = history.work.groups().map(|(group, ..)| group).nth(random.of(0, 1) as usize);
        let group = group.unwrap_or_default();
        match random.of(0, 6) {
            0 => history.faults.push((at, Fault::Stop(ms(random.of(1, 400))))),
            1 => history.faults.push((at, Fault::Kill(ms(random.of(1, 400))))),
            2 => history.faults.push((at, Fault::Garbage(random.of(1, 200) as u32))),
            3 => {
                let slow = Costs { event: us(random.of(50, 3_000)), ..Costs::default() };
                history.faults.push((at, Fault::Costs(slow)));
                history.faults.push((at + ms(random.of(50, 400)), Fault::Costs(Costs::default())));
            }
            4 if cpus > 1 => {
                let cpu = Cpu(random.of(0, u64::from(cpus) - 1) as u32);
                history.faults.push((at, Fault::Offline(cpu)));
                history.faults.push((at + ms(random.of(10, 400)), Fault::Online(cpu)));
            }
            5 if cpus > 1 => {
                history.faults.push((at, Fault::Affinity(group, CpuSet::of(Cpu(0)))));
                history.faults.push((at + ms(random.of(10, 200)), Fault::Affinity(group, CpuSet::ALL)));
            }
            _ => history.faults.push((at, Fault::Weight(group, random.of(20, 500) as u32))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_history_is_a_scenario_that_can_be_written_and_read() {
        for property in Property::ALL {
            for seed in 0..200 {
                let history = history(property, seed);
                history.work.check().unwrap();
                let text = history.to_string();
                let read: Scenario = text.parse().unwrap_or_else(|e| panic!("{e}\n{text}"));
                assert_eq!(read.to_string(), text);
            }
        }
    }
}
