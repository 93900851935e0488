//! Sums by label set, which never go down while the labels are there.

use std::collections::{BTreeMap, HashMap};

use crate::values::{Counts, Own, Snapshot};

/// Whose a cgroup is. Empty: plainly a cgroup.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Labels {
    /// The pod that it belongs to.
    pub pod: Option<Pod>,
    /// The container of it, by name if that is known, else by id.
    pub container: String,
    /// A service, slice or scope of systemd, or whatever else people call the group.
    pub unit: String,
    /// Processes in it now, if somebody counted.
    pub processes: u64,
    /// What of it is exposed.
    pub shown: Shown,
}

/// What of a pod or group is exposed, each by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shown {
    /// Voluntary switches.
    pub voluntary: bool,
    /// Involuntary switches.
    pub involuntary: bool,
    /// Time on a CPU, and the lengths of runs.
    pub cpu_time: bool,
    /// Run delay, throttling, and behind whom it waited.
    pub wait_time: bool,
    /// Runs, and threads that began and ended.
    pub run_count: bool,
    /// Migrations.
    pub migrations: bool,
}

impl Shown {
    /// All of it.
    pub const ALL: Self = Self::each(true);
    /// What nobody has asked for yet.
    const NOTHING: Self = Self::each(false);

    const fn each(on: bool) -> Self {
        Self { voluntary: on, involuntary: on, cpu_time: on, wait_time: on, run_count: on, migrations: on }
    }
}

impl Default for Shown {
    fn default() -> Self {
        Self::ALL
    }
}

/// Whatever either shows: two groups with the same labels.
impl std::ops::BitOr for Shown {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self {
            voluntary: self.voluntary | other.voluntary,
            involuntary: self.involuntary | other.involuntary,
            cpu_time: self.cpu_time | other.cpu_time,
            wait_time: self.wait_time | other.wait_time,
            run_count: self.run_count | other.run_count,
            migrations: self.migrations | other.migrations,
        }
    }
}

/// A pod of Kubernetes.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: a pod of the same name later is another one.
    pub uid: String,
}

/// Bounds of what is exposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Label sets at the same time; more are counted together, in all labels `other`. Each makes about 60 series.
    pub label_sets: usize,
    /// Pairs of groups in "who made me wait".
    pub pairs: usize,
    /// A label set whose cgroups are gone stays for this long, so that its last figures are scraped. In ns.
    pub keep_ns: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { label_sets: 500, pairs: 500, keep_ns: 300_000_000_000 }
    }
}

/// What labels a series of a group has.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    pub(crate) pod: Pod,
    pub(crate) container: String,
    pub(crate) unit: String,
}

impl Key {
    pub(crate) fn other() -> Self {
        let other = || "other".to_owned();
        let pod = Pod { namespace: other(), name: other(), uid: other() };
        Self { pod, container: other(), unit: other() }
    }

    fn of(labels: Labels) -> Self {
        Self { pod: labels.pod.unwrap_or_default(), container: labels.container, unit: labels.unit }
    }

    /// For the other side of a pair: one word that a person understands.
    pub(crate) fn short(&self) -> String {
        match (self.pod.name.as_str(), self.container.as_str()) {
            ("other", "other") => "other".into(),
            ("", _) => self.unit.clone(),
            (pod, "") => format!("{}/{pod}", self.pod.namespace),
            (pod, container) => format!("{}/{pod}/{container}", self.pod.namespace),
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Entry {
    pub(crate) counts: Counts,
    pub(crate) processes: u64,
    /// As long as nobody has its labels: what was shown last.
    pub(crate) shown: Shown,
    seen_ns: u64,
}

impl Entry {
    /// Another group with its labels, in the snapshot of `now`.
    fn meet(&mut self, grown: &Counts, processes: u64, shown: Shown, now: u64) {
        let so_far = if self.seen_ns == now { self.shown } else { Shown::NOTHING };
        self.shown = so_far | shown;
        self.counts.add(grown);
        self.processes += processes;
        self.seen_ns = now;
    }
}

/// Adds up snapshots by labels.
///
/// A group's labels may become known only after it has run for a while: what it did until then is in `other`.
#[derive(Debug)]
pub struct Ledger {
    node: String,
    limits: Limits,
    read: HashMap<u64, Counts>,
    read_other: Counts,
    pub(crate) entries: BTreeMap<Key, Entry>,
    pub(crate) pods: BTreeMap<Pod, Entry>,
    pub(crate) pairs: BTreeMap<(Key, Key), (u64, u64)>,
    pub(crate) own: Own,
}

impl Ledger {
    /// An empty one, for this node.
    pub fn new(node: impl Into<String>, limits: Limits) -> Self {
        Self {
            node: node.into(),
            limits,
            read: HashMap::new(),
            read_other: Counts::default(),
            entries: BTreeMap::from([(Key::other(), Entry::default())]),
            pods: BTreeMap::new(),
            pairs: BTreeMap::new(),
            own: Own::default(),
        }
    }

    pub(crate) fn node(&self) -> &str {
        &self.node
    }

    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds what happened since the last snapshot. `labels` says whose a cgroup is, by its number and path; `None` counts as
    /// `other`. All snapshots must be of one monitor, and none may be left out that had a removed group.
    pub fn update(&mut self, snapshot: &Snapshot, labels: impl Fn(u64, Option<&str>) -> Option<Labels>) {
        let now = snapshot.at_ns;
        self.entries.values_mut().chain(self.pods.values_mut()).for_each(|entry| entry.processes = 0);
        let mut keys = HashMap::new();
        for group in &snapshot.groups {
            let grown = match self.read.insert(group.id, group.counts.clone()) {
                Some(before) => group.counts.since(&before),
                None => group.counts.clone(),
            };
            let labels = labels(group.id, group.path.as_deref());
            let processes = labels.as_ref().map_or(0, |labels| labels.processes);
            let shown = labels.as_ref().map_or(Shown::ALL, |labels| labels.shown);
            let key = self.key(labels);
            if key != Key::other() && !key.pod.uid.is_empty() {
                self.pods.entry(key.pod.clone()).or_default().meet(&grown, processes, shown, now);
            }
            self.entries.entry(key.clone()).or_default().meet(&grown, processes, shown, now);
            keys.insert(group.id, key);
        }
        if let Some(entry) = self.entries.get_mut(&Key::other()) {
            entry.counts.add(&snapshot.other.since(&self.read_other));
            entry.seen_ns = now;
        }
        self.read_other = snapshot.other.clone();
        let there: std::collections::HashSet<u64> = snapshot.groups.iter().map(|group| group.id).collect();
        self.read.retain(|id, _| there.contains(id));
        self.add_pairs(snapshot, &keys);
        self.forget(now);
        self.own = snapshot.own.clone();
    }

    /// Under which labels a group counts.
    fn key(&self, labels: Option<Labels>) -> Key {
        let key = labels.map_or_else(Key::other, Key::of);
        if self.entries.contains_key(&key) || self.entries.len() <= self.limits.label_sets {
            key
        } else {
            Key::other()
        }
    }

    fn add_pairs(&mut self, snapshot: &Snapshot, keys: &HashMap<u64, Key>) {
        for blame in &snapshot.blames {
            let key = |id| keys.get(&id).cloned().unwrap_or_else(Key::other);
            let mut pair = (key(blame.waited), key(blame.ran));
            if !self.pairs.contains_key(&pair) && self.pairs.len() >= self.limits.pairs {
                // The place for whoever else it was is there for each group that waits, but not beyond the limit twice.
                pair.1 = Key::other();
                if !self.pairs.contains_key(&pair) && self.pairs.len() >= 2 * self.limits.pairs {
                    pair.0 = Key::other();
                }
            }
            let sum = self.pairs.entry(pair).or_default();
            sum.0 += blame.ns;
            sum.1 += blame.samples;
        }
    }

    /// Label sets that nobody has had for a while become part of `other`: their series end, and no sum goes down.
    fn forget(&mut self, now: u64) {
        let old = |entry: &Entry| now.saturating_sub(entry.seen_ns) > self.limits.keep_ns;
        let gone: Vec<Key> =
            self.entries.iter().filter(|(_, e)| old(e)).map(|(key, _)| key.clone()).collect();
        self.pods.retain(|_, entry| !old(entry));
        for key in gone {
            if let Some(entry) = self.entries.remove(&key) {
                self.entries.entry(Key::other()).or_default().counts.add(&entry.counts);
            }
            let pairs: Vec<_> = self.pairs.keys().filter(|(a, b)| *a == key || *b == key).cloned().collect();
            for pair in pairs {
                let Some((ns, samples)) = self.pairs.remove(&pair) else { continue };
                let rename = |name: Key| if name == key { Key::other() } else { name };
                let sum = self.pairs.entry((rename(pair.0), rename(pair.1))).or_default();
                sum.0 += ns;
                sum.1 += samples;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::values::{Blame, Group};

    fn snapshot(at_s: u64, groups: &[(u64, u64)]) -> Snapshot {
        let group = |(id, run_ns): &(u64, u64)| Group {
            id: *id,
            path: Some(format!("/{id}")),
            removed: false,
            counts: Counts { run_ns: *run_ns, ..Counts::default() },
        };
        let groups = groups.iter().map(group).collect();
        Snapshot { at_ns: at_s * 1_000_000_000, groups, ..Snapshot::default() }
    }

    /// Groups 10 to 19 are containers of the first pod, 20 to 29 of the second.
    fn labels(id: u64, _: Option<&str>) -> Option<Labels> {
        let pod = Pod {
            namespace: "web".into(),
            name: format!("pod-{}", id / 10),
            uid: format!("uid-{}", id / 10),
        };
        (id >= 10).then(|| Labels {
            pod: Some(pod),
            container: "app".into(),
            unit: String::new(),
            processes: 2,
            ..Labels::default()
        })
    }

    fn run_ns(ledger: &Ledger, name: &str) -> Option<u64> {
        let pod = ledger.pods.iter().find(|(pod, _)| pod.name == name);
        pod.map(|(_, entry)| entry.counts.run_ns)
    }

    #[test]
    fn a_pod_whose_container_starts_again_goes_on_where_it_was() {
        let mut ledger = Ledger::new("node", Limits::default());
        ledger.update(&snapshot(1, &[(10, 100)]), labels);
        ledger.update(&snapshot(2, &[(10, 130)]), labels);
        assert_eq!(run_ns(&ledger, "pod-1"), Some(130));
        ledger.update(&snapshot(3, &[(11, 5)]), labels);
        assert_eq!(run_ns(&ledger, "pod-1"), Some(135));
        ledger.update(&snapshot(4, &[(11, 6), (12, 1)]), labels);
        assert_eq!(run_ns(&ledger, "pod-1"), Some(137));
        assert_eq!(ledger.pods.values().next().unwrap().processes, 4);
    }

    #[test]
    fn beyond_the_limit_all_is_counted_as_other_and_nothing_is_lost() {
        let mut ledger = Ledger::new("node", Limits { label_sets: 1, ..Limits::default() });
        ledger.update(&snapshot(1, &[(1, 7), (10, 100), (20, 50)]), labels);
        assert_eq!(ledger.entries.len(), 2);
        assert_eq!(ledger.entries[&Key::other()].counts.run_ns, 57);
        let long = 10_000;
        ledger.update(&snapshot(long, &[(20, 60)]), labels);
        // The first pod has been gone for long: its place is the other's from now on.
        ledger.update(&snapshot(long + 1, &[(20, 61)]), labels);
        assert_eq!((run_ns(&ledger, "pod-1"), run_ns(&ledger, "pod-2")), (None, Some(1)));
        let all: u64 = ledger.entries.values().map(|entry| entry.counts.run_ns).sum();
        assert_eq!(all, 7 + 100 + 61);
    }

    #[test]
    fn pairs_are_bounded_and_forgotten_with_their_groups() {
        let mut ledger = Ledger::new("node", Limits { pairs: 1, ..Limits::default() });
        let mut first = snapshot(1, &[(10, 1), (20, 1)]);
        first.blames = vec![
            Blame { waited: 10, ran: 20, ns: 5, samples: 1 },
            Blame { waited: 20, ran: 10, ns: 4, samples: 1 },
            Blame { waited: 20, ran: 99, ns: 3, samples: 1 },
        ];
        ledger.update(&first, labels);
        assert_eq!(ledger.pairs.len(), 2);
        ledger.update(&snapshot(10_000, &[(20, 1)]), labels);
        assert!(
            ledger.pairs.keys().all(|(a, b)| a.short() != "web/pod-1/app" && b.short() != "web/pod-1/app")
        );
        assert_eq!(ledger.pairs.values().map(|(ns, _)| ns).sum::<u64>(), 12);
    }
}
