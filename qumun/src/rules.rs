//! What the core does for some tasks where it decides by itself.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Error, ErrorKind, Nanos, Pid, Result};

/// Rules for tasks, for the times when the core decides by itself: in kernel mode, while it has taken over from an agent
/// that is late or dead, and for tasks that may use one CPU only, about which no policy is asked.
///
/// A table is changed as a whole. A task is looked for once in each, by who it is, from what was said of it alone to what it
/// has in common with others, in the order of [`Whom`]; the first answer holds.
///
/// ```
/// use qumun::{Nanos, Rule, Rules, Whom};
///
/// let web = Rule::new(7).ahead(3).tokens(500, Nanos::from_millis(20)).slice(Nanos::from_millis(2));
/// let rules = Rules::new().with(web, [Whom::Cgroup(4242), Whom::comm("nginx")]);
/// assert!(rules.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "rules do nothing until the core has them"]
pub struct Rules {
    floor: u16,
    rules: Vec<Rule>,
    targets: Vec<(Whom, usize)>,
}

/// Whom a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Whom {
    /// Tasks that carry this label, see `TaskSettings`: set for them, or for who made them.
    Label(u64),
    /// One thread, by the kernel's own number ([`Queued::tid`](crate::Queued::tid)).
    Task(u64),
    /// One thread: its pid, and when it was started, in clock ticks (100 a second) since boot, as in
    /// `/proc/PID/task/TID/stat`.
    Thread(Pid, u64),
    /// All threads of a process, by its first one.
    Process(Pid, u64),
    /// All threads in this very cgroup (v2), by its inode.
    Cgroup(u64),
    /// All threads of this name.
    Comm([u8; 16]),
}

/// What is done for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "a rule does nothing until it is in a table"]
pub struct Rule {
    key: u64,
    until: Nanos,
    slice: Nanos,
    weight: u32,
    rank: u32,
    millicpu: u32,
    burst: Nanos,
    each: bool,
    percent: u32,
}

impl Rule {
    /// The highest rank.
    pub const MOST_AHEAD: u32 = 11;
    /// The most that tokens can come to: 1,000 CPUs.
    const MOST_MILLICPU: u32 = 1_000_000;

    /// A rule that changes nothing yet. The key says whose tokens it spends: they stay from one table to the next.
    pub const fn new(key: u64) -> Self {
        Self {
            key,
            until: Nanos(u64::MAX >> 1),
            slice: Nanos::ZERO,
            weight: 0,
            rank: 0,
            millicpu: 200,
            burst: Nanos::from_millis(20),
            each: false,
            percent: 0,
        }
    }

    /// Not from this time on, of `CLOCK_MONOTONIC`.
    pub const fn until(mut self, time: Nanos) -> Self {
        self.until = time;
        self
    }

    /// This slice, within the core's bounds.
    pub const fn slice(mut self, slice: Nanos) -> Self {
        self.slice = slice;
        self
    }

    /// This weight at most.
    pub const fn at_most(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// Ahead of all tasks of a smaller rank while there are tokens, and of those it may cut slices. 1 to
    /// [`MOST_AHEAD`](Self::MOST_AHEAD); 0: in its turn.
    pub const fn ahead(mut self, rank: u32) -> Self {
        self.rank = rank;
        self
    }

    /// Of what a run costs in its turn, this part is paid by tokens while there are some.
    pub const fn saving(mut self, percent: u32) -> Self {
        self.percent = percent;
        self
    }

    /// Tokens: thousandths of a CPU, and how much CPU time at once after a rest. 200 and 20 ms unless told. All tasks of the
    /// rule share them.
    pub const fn tokens(mut self, millicpu: u32, burst: Nanos) -> Self {
        (self.millicpu, self.burst) = (millicpu, burst);
        self
    }

    /// Each task has tokens of its own.
    pub const fn for_each(mut self) -> Self {
        self.each = true;
        self
    }

    fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
        let key = self.key;
        if self.rank > Self::MOST_AHEAD {
            return wrong(format!("rule {key}: rank {} is above {}", self.rank, Self::MOST_AHEAD));
        }
        if !(1..=Self::MOST_MILLICPU).contains(&self.millicpu) || self.burst == Nanos::ZERO {
            let (cpu, burst) = (self.millicpu, self.burst);
            return wrong(format!(
                "rule {key}: {cpu}m and {burst} of tokens; 1 to 1000000m, and more than none"
            ));
        }
        if self.percent > 100 {
            return wrong(format!("rule {key}: saves {} %", self.percent));
        }
        Ok(())
    }
}

impl Whom {
    /// All threads of this name, of which the kernel keeps 15 bytes.
    pub fn comm(name: &str) -> Self {
        let mut comm = [0; 16];
        comm.iter_mut().zip(name.bytes().take(15)).for_each(|(to, byte)| *to = byte);
        Self::Comm(comm)
    }

    /// As the core names it: the kind, and two words.
    #[doc(hidden)] // the same
    pub fn words(self) -> (u32, u64, u64) {
        let half = |comm: [u8; 16], at: usize| {
            u64::from_ne_bytes(std::array::from_fn(|i| comm.get(at + i).copied().unwrap_or(0)))
        };
        match self {
            Self::Label(label) => (1, label, 0),
            Self::Task(number) => (2, number, 0),
            Self::Thread(pid, started) => (3, pid.0 as u32 as u64, started),
            Self::Process(pid, started) => (4, pid.0 as u32 as u64, started),
            Self::Cgroup(id) => (5, id, 0),
            Self::Comm(comm) => (6, half(comm, 0), half(comm, 8)),
        }
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self::new()
    }
}

impl Rules {
    /// The most rules in a table.
    pub const MOST: usize = 1_024;
    /// The most tasks and groups of tasks that are named in one.
    pub const MOST_TARGETS: usize = 4_096;
    /// Over which time the floor holds.
    const WINDOW: u64 = 10_000_000;

    /// No rules. Those who are ahead leave a fifth of the machine to all others.
    pub const fn new() -> Self {
        Self { floor: 200, rules: Vec::new(), targets: Vec::new() }
    }

    /// All who are ahead leave so many thousandths of the machine to the others; the core sees to 50 at least.
    pub const fn floor(mut self, per_mille: u16) -> Self {
        self.floor = per_mille;
        self
    }

    /// With one more rule, for these.
    pub fn with(mut self, rule: Rule, targets: impl IntoIterator<Item = Whom>) -> Self {
        let number = self.rules.len();
        self.targets.extend(targets.into_iter().map(|whom| (whom, number)));
        self.rules.push(rule);
        self
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether the core can have them.
    ///
    /// # Errors
    /// Too many, a key or a target given twice, a number out of bounds: it says which.
    pub fn check(&self) -> Result<()> {
        let wrong = |what: String| Err(Error::new(ErrorKind::InvalidInput, what));
        if self.rules.len() > Self::MOST {
            return wrong(format!("{} rules; {} is the most", self.rules.len(), Self::MOST));
        }
        if self.targets.len() > Self::MOST_TARGETS {
            return wrong(format!(
                "rules for {} targets; {} is the most",
                self.targets.len(),
                Self::MOST_TARGETS
            ));
        }
        if self.floor > 1_000 {
            return wrong(format!("a floor of {} thousandths", self.floor));
        }
        let mut keys = BTreeSet::new();
        for rule in &self.rules {
            rule.check()?;
            if !keys.insert(rule.key) {
                return wrong(format!("rule {} is given twice", rule.key));
            }
        }
        let mut targets = BTreeSet::new();
        match self.targets.iter().find(|(whom, _)| !targets.insert(*whom)) {
            Some((whom, _)) => wrong(format!("two rules are for {whom:?}")),
            None => Ok(()),
        }
    }

    /// As the core has them, for a machine of so many CPUs. `numbers` is kept from one table to the next.
    #[doc(hidden)] // for who writes them into a core
    pub fn raw(&self, numbers: &mut Numbers, cpus: u32) -> RawRules {
        let places = numbers.give(self.rules.iter().map(|rule| rule.key));
        // Thousandths of a CPU that come, against parts of 1024 that a nanosecond of run takes.
        let price = |millicpu: u64| u32::try_from(1_024_000 / millicpu.max(1)).unwrap_or(u32::MAX).max(1);
        let rest = u64::from(1_000 - self.floor.min(1_000)) * u64::from(cpus.max(1));
        let rules = places.iter().zip(&self.rules).map(|(&place, rule)| {
            let raw = RawRule {
                key: rule.key,
                until: rule.until.as_u64(),
                slice: rule.slice.as_u64(),
                window: rule.burst.as_u64().saturating_mul(1_000) / u64::from(rule.millicpu.max(1)),
                price: price(rule.millicpu.into()),
                weight: rule.weight,
                saves: rule.percent.min(100) * 1_024 / 100,
                rank: rule.rank,
                each: rule.each,
            };
            (place, raw)
        });
        RawRules {
            rules: rules.collect(),
            targets: self.targets.iter().map(|&(whom, rule)| (whom, places[rule])).collect(),
            floor_window: Self::WINDOW,
            floor_price: if rest == 0 { u32::MAX } else { price(rest) },
        }
    }
}

/// Rules, in the core's own numbers (`struct qm_rule_table`).
#[doc(hidden)]
#[derive(Clone, Debug, Default)]
pub struct RawRules {
    /// The rules, by number.
    pub rules: BTreeMap<u32, RawRule>,
    /// Whom they are for.
    pub targets: BTreeMap<Whom, u32>,
    /// `floor_window_ns`.
    pub floor_window: u64,
    /// `floor_price`.
    pub floor_price: u32,
}

/// `struct qm_rule`.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, Default)]
pub struct RawRule {
    /// `key`.
    pub key: u64,
    /// `until_ns`.
    pub until: u64,
    /// `slice_ns`.
    pub slice: u64,
    /// `window_ns`.
    pub window: u64,
    /// `price`.
    pub price: u32,
    /// `weight`.
    pub weight: u32,
    /// `saves`.
    pub saves: u32,
    /// `rank`.
    pub rank: u32,
    /// `QM_RULE_EACH`.
    pub each: bool,
}

#[doc(hidden)]
/// Which rule has which number: as long as its key is in use, the same.
#[derive(Clone, Debug, Default)]
pub struct Numbers(BTreeMap<u64, u32>);

impl Numbers {
    fn give(&mut self, keys: impl Iterator<Item = u64>) -> Vec<u32> {
        let keys: Vec<u64> = keys.collect();
        let used: BTreeSet<u64> = keys.iter().copied().collect();
        self.0.retain(|key, _| used.contains(key));
        let taken: BTreeSet<u32> = self.0.values().copied().collect();
        let mut free = (0..).filter(|number| !taken.contains(number));
        keys.iter().map(|key| *self.0.entry(*key).or_insert_with(|| free.next().unwrap_or(0))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Nanos {
        Nanos::from_millis(ms)
    }

    #[test]
    fn a_rule_keeps_its_number_while_its_key_is_in_use() {
        let mut numbers = Numbers::default();
        let table =
            |keys: &[u64]| keys.iter().fold(Rules::new(), |rules, &key| rules.with(Rule::new(key), []));
        let mut of = |keys: &[u64]| {
            let raw = table(keys).raw(&mut numbers, 2);
            keys.iter()
                .map(|key| *raw.rules.iter().find(|(_, rule)| rule.key == *key).unwrap().0)
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&[10, 20, 30]), [0, 1, 2]);
        assert_eq!(of(&[30, 40, 20]), [2, 0, 1]);
        assert_eq!(of(&[50, 10, 30]), [0, 1, 2]);
    }

    #[test]
    fn tokens_are_prices_and_windows() {
        let rule = Rule::new(1).ahead(2).tokens(500, ms(20)).saving(50);
        let raw = Rules::new().with(rule, [Whom::comm("a")]).raw(&mut Numbers::default(), 4);
        let raw_rule = raw.rules[&0];
        // Half a CPU: each nanosecond of run is paid for in two, and the burst lasts for 40 ms.
        assert_eq!((raw_rule.price, raw_rule.window, raw_rule.saves), (2 * 1024, 40_000_000, 512));
        // 0.8 of 4 CPUs.
        assert_eq!((raw.floor_price, raw.floor_window), (320, 10_000_000));
    }

    #[test]
    fn what_is_wrong_is_said() {
        let one = |rule: Rule| Rules::new().with(rule, []).check().map_err(|error| error.to_string());
        assert!(one(Rule::new(5)).is_ok());
        assert!(one(Rule::new(5).ahead(12)).unwrap_err().contains("rule 5: rank 12 is above 11"));
        assert!(one(Rule::new(5).tokens(0, ms(1))).unwrap_err().contains("rule 5: 0m"));
        assert!(one(Rule::new(5).saving(101)).unwrap_err().contains("rule 5: saves 101 %"));
        let twice = Rules::new().with(Rule::new(1), []).with(Rule::new(1), []);
        assert!(twice.check().unwrap_err().to_string().contains("rule 1 is given twice"));
        let both = Rules::new().with(Rule::new(1), [Whom::Cgroup(4)]).with(Rule::new(2), [Whom::Cgroup(4)]);
        assert!(both.check().unwrap_err().to_string().contains("two rules are for Cgroup(4)"));
        let many = (0..=1_024).fold(Rules::new(), |rules, key| rules.with(Rule::new(key), []));
        assert!(many.check().unwrap_err().to_string().contains("1025 rules"));
        let many = Rules::new().with(Rule::new(1), (0..4_097).map(Whom::Cgroup));
        assert!(many.check().unwrap_err().to_string().contains("4097 targets"));
    }
}
