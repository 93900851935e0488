//! Strategies as rules of the core: what holds of them where no policy is asked.

use std::collections::BTreeMap;

use gthulhu_model::{Class, Floor, Label, Lease, Priority, StrategyTable, Target};
use qumun::{Nanos, Pid, Rule, Rules, Whom};

use crate::BEST_EFFORT;

/// What the core is to do for the tasks of these strategies, and for those that carry one of these labels, in kernel mode,
/// while it has taken over, and for tasks that may use one CPU only.
///
/// It means the same as to the policy: who is ahead of whom, for how much of a CPU, what is left to the others. Weights
/// of cgroups mean nothing to the core. Strategies that have expired are left out; of several for one target the strongest
/// that holds now is taken, until its end and no further, so the table is to be made anew then.
pub fn rules(
    table: Option<&StrategyTable>,
    labels: impl IntoIterator<Item = Label>,
    floor: Floor,
    now: Nanos,
) -> Rules {
    let mut all: BTreeMap<u64, (Rule, Vec<Whom>)> = BTreeMap::new();
    for lease in table.into_iter().flat_map(|table| table.in_force(now.as_u64())) {
        let id = lease.strategy.id.number();
        let rule = of_lease(lease);
        // Mostly one rule for all targets of a strategy: they share its tokens.
        let mut key = id;
        while all.get(&key).is_some_and(|(other, _)| *other != rule(key)) {
            key = key.wrapping_add(1 << 56);
        }
        let (_, targets) = all.entry(key).or_insert_with(|| (rule(key), Vec::new()));
        targets.push(whom(lease.strategy.target));
        let label = Whom::Label(Label::Strategy(lease.strategy.id).pack());
        if key == id && !targets.contains(&label) {
            targets.push(label);
        }
    }
    for label in labels {
        if let Label::Priority(priority) = label {
            // Each of them pays for itself, as the policy has it. The highest bit is no strategy's.
            let packed = label.pack();
            let key = packed | 1 << 63;
            all.insert(key, (of_priority(key, &priority).for_each(), vec![Whom::Label(packed)]));
        }
    }
    let rules = Rules::new().floor(floor.share());
    all.into_values().fold(rules, |rules, (rule, targets)| rules.with(rule, targets))
}

fn of_lease(lease: &Lease) -> impl Fn(u64) -> Rule {
    let (priority, until) = (lease.strategy.priority, Nanos(lease.expires_at_ns.min(u64::MAX >> 1)));
    move |key| of_priority(key, &priority).until(until)
}

fn of_priority(key: u64, priority: &Priority) -> Rule {
    let mut rule = Rule::new(key);
    if let Some(slice) = priority.slice {
        rule = rule.slice(Nanos(slice.as_nanos()));
    }
    if let Some(budget) = priority.boost() {
        rule = rule.tokens(budget.share().into(), Nanos(budget.burst_ns()));
        match priority.class {
            Class::Isolated => return rule.ahead(Rule::MOST_AHEAD),
            Class::Latency(level) => {
                return match level.discount_percent() {
                    None => rule.ahead(Rule::MOST_AHEAD - 1 - u32::from(level.number())),
                    Some(percent) => rule.saving(percent.into()),
                };
            }
            Class::Normal | Class::BestEffort => {}
        }
    }
    if priority.class == Class::BestEffort { rule.at_most(BEST_EFFORT) } else { rule }
}

fn whom(target: Target) -> Whom {
    match target {
        Target::Task(number) => Whom::Task(number.get()),
        Target::Thread(id) => Whom::Thread(Pid(id.pid), id.started),
        Target::Process(id) => Whom::Process(Pid(id.pid), id.started),
        Target::Cgroup(id) => Whom::Cgroup(id.0),
        Target::Comm(comm) => {
            let mut name = [0; 16];
            name.iter_mut().zip(comm.as_bytes()).for_each(|(to, byte)| *to = *byte);
            Whom::Comm(name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gthulhu_model::{Budget, CgroupId, Comm, Generation, Level, Slice, Strategy, StrategyId, Ttl};

    fn lease(id: u64, target: Target, class: Class) -> Lease {
        let priority = Priority { class, slice: None, budget: None };
        Strategy { id: StrategyId::new(id).unwrap(), target, priority, ttl: Ttl::default() }.lease(0)
    }

    fn latency(level: u8) -> Class {
        Class::Latency(Level::new(level).unwrap())
    }

    #[test]
    fn each_class_has_a_rule_and_levels_keep_their_order() {
        let of = |class| of_priority(1, &Priority { class, slice: None, budget: None });
        let plain = Rule::new(1).tokens(200, Nanos::from_millis(20));
        assert_eq!(of(Class::Normal), plain);
        assert_eq!(of(Class::BestEffort), plain.at_most(1));
        assert_eq!(of(latency(0)), plain.ahead(10));
        assert_eq!(of(latency(9)), plain.ahead(1));
        assert_eq!(of(latency(10)), plain.saving(50));
        assert_eq!(of(latency(20)), plain.saving(5));
        // Without a budget it is a normal one.
        assert_eq!(of(Class::Isolated), plain);
        let budget = Some(Budget::millicpu(500).unwrap());
        let slice = Some(Slice::from_nanos(2_000_000).unwrap());
        let all = Priority { class: Class::Isolated, slice, budget };
        let wanted = Rule::new(1).slice(Nanos(2_000_000)).tokens(500, Nanos::from_millis(20)).ahead(11);
        assert_eq!(of_priority(1, &all), wanted);
    }

    #[test]
    fn targets_of_a_strategy_share_a_rule_and_what_is_over_has_none() {
        let [web, db] = ["web", "db"].map(|name| Target::Comm(Comm::new(name).unwrap()));
        let mut table = StrategyTable::builder(Generation(1));
        table.add(lease(7, web, latency(3))).add(lease(7, Target::Cgroup(CgroupId(5)), latency(3)));
        // The same target twice: the stronger one holds.
        table.add(lease(8, db, latency(9))).add(lease(9, db, latency(4)));
        let table = table.build();
        let label = Label::Priority(Priority { class: Class::BestEffort, slice: None, budget: None });
        let made = rules(Some(&table), [label], Floor::DEFAULT, Nanos(1));
        assert!(made.check().is_ok());
        let text = format!("{made:?}");
        assert!(text.contains("key: 7") && text.contains("key: 9") && !text.contains("key: 8"), "{text}");
        let later = rules(Some(&table), [], Floor::DEFAULT, Nanos(Ttl::default().as_nanos()));
        assert!(later.is_empty(), "{later:?}");
    }
}
