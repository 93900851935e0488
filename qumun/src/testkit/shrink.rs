//! Makes a failing history smaller for as long as it fails.

use super::{Property, check};
use crate::sim::{Scenario, Setup, Span, Step};
use crate::{CpuSet, Nanos, Scheduler};

/// How many smaller histories are tried.
const TRIES: u32 = 400;
const SHORTEST: Nanos = Nanos::from_millis(50);

/// The smallest that was found, and what is wrong in it.
pub(super) fn smallest<S: Scheduler>(
    property: Property,
    mut history: Scenario,
    mut why: String,
    make: &(impl Fn() -> S + Clone + 'static),
) -> (Scenario, String) {
    let mut tries = 0;
    loop {
        let mut smaller = None;
        for candidate in candidates(&history) {
            if tries == TRIES {
                return (history, why);
            }
            tries += 1;
            // Work that cannot be done is no smaller history but none.
            if candidate.work.check().is_err() || candidate.work.groups().count() == 0 {
                continue;
            }
            if let Err(reason) = check(property, &candidate, make) {
                smaller = Some((candidate, reason));
                break;
            }
        }
        match smaller {
            Some(found) => (history, why) = found,
            None => return (history, why),
        }
    }
}

/// All that are one step smaller, the largest steps first.
fn candidates(history: &Scenario) -> Vec<Scenario> {
    let mut all = Vec::new();
    let mut with = |change: &dyn Fn(&mut Scenario)| {
        let mut copy = history.clone();
        change(&mut copy);
        all.push(copy);
    };
    let groups: Vec<_> = history.work.groups().map(|(group, _, count)| (group, count)).collect();
    // First what makes all further tries shorter.
    if history.time > SHORTEST {
        with(&|h| h.time = Nanos((h.time.as_u64() / 2).max(SHORTEST.as_u64())));
    }
    if history.faults.len() > 1 {
        with(&|h| drop(h.faults.drain(..h.faults.len() / 2)));
        with(&|h| h.faults.truncate(h.faults.len() / 2));
    }
    if groups.len() > 1 {
        for &(group, _) in &groups {
            with(&|h| h.remove(group));
        }
    }
    for index in 0..history.faults.len() {
        with(&|h| {
            h.faults.remove(index);
        });
    }
    for &(group, count) in groups.iter().filter(|(_, count)| *count > 1) {
        with(&|h| h.work.set_count(group, count / 2));
        with(&|h| h.work.set_count(group, count - 1));
    }
    let cpus = history.setup.topology.nr_cpus();
    let is_flat = history.machine() == format!("cpus={cpus}");
    if !is_flat {
        with(&|h| drop(h.set_cpus(cpus)));
    } else if cpus > 1 {
        for fewer in [cpus / 2, cpus - 1] {
            let own = history.setup.settings.dedicated;
            let gone = own.is_some_and(|cpu| cpu.0 >= fewer || fewer == 1)
                || history.faults.iter().any(|(_, fault)| fault.cpu().is_some_and(|cpu| cpu.0 >= fewer));
            if !gone {
                with(&|h| drop(h.set_cpus(fewer)));
            }
        }
    }
    for &(group, _) in &groups {
        let steps = history.work.steps_of(group);
        for index in (0..steps.len()).filter(|_| steps.len() > 1) {
            with(&|h| {
                if let Some(steps) = h.work.steps(group) {
                    steps.remove(index);
                }
            });
        }
        for (index, step) in steps.iter().enumerate() {
            if let Step::Run(span) | Step::Sleep(span) = step
                && !matches!(span, Span::Fixed(_))
            {
                let fixed = span.mean().into();
                let step = if matches!(step, Step::Run(_)) { Step::Run(fixed) } else { Step::Sleep(fixed) };
                with(&|h| {
                    if let Some(steps) = h.work.steps(group) {
                        steps[index] = step.clone();
                    }
                });
            }
        }
        if history.work.spec_of(group).is_some_and(|spec| spec.weight != 100 || spec.cpus != CpuSet::ALL) {
            with(&|h| h.work.spec_of_mut(group, |spec| spec.weight = 100));
            with(&|h| h.work.spec_of_mut(group, |spec| spec.cpus = CpuSet::ALL));
        }
    }
    let usual = Setup::new(history.setup.topology.clone());
    if history.setup.rings != usual.rings {
        with(&|h| h.setup.rings = usual.rings);
    }
    if history.pool.is_some() {
        with(&|h| h.pool = None);
    }
    if history.tasks.is_some() {
        with(&|h| h.tasks = None);
    }
    if history.setup.seed != 1 {
        with(&|h| h.setup.seed = 1);
    }
    // What changes nothing is not smaller, and would be tried for ever.
    let now = history.to_string();
    all.retain(|candidate| candidate.to_string() != now);
    all
}
