//! What is wanted on this node, by whom, and until when. Plain state: what time it is comes from outside.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use gthulhu_model::{Label, Lease, Priority, Strategy, StrategyId, Target, Ttl};

/// Where strategies come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    /// The decision maker.
    Maker,
    /// `gthulhu-daemon strategy apply`.
    Local,
}

impl Source {
    pub(crate) const ALL: [Self; 2] = [Self::Maker, Self::Local];

    /// As status and metrics name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Maker => "decision-maker",
            Self::Local => "local",
        }
    }
}

/// What is wanted for somebody.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Want {
    /// Those of one key are one strategy: they share its tokens.
    pub(crate) key: String,
    /// What it is called.
    pub(crate) name: String,
    pub(crate) target: Target,
    pub(crate) priority: Priority,
    /// For how long, from when it was told last; `None`: as long as its source lives, which is this process.
    pub(crate) ttl: Option<Ttl>,
}

/// A want that is in the table, or was.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) source: Source,
    pub(crate) id: StrategyId,
    pub(crate) want: Want,
    /// It holds before this time; `u64::MAX`: until it is cleared.
    pub(crate) until_ns: u64,
}

/// The most strategies and targets that the core has room for, see `qumun::Rules`. A strategy is a target too, by its label.
const MOST_STRATEGIES: usize = 1_000;
const MOST_TARGETS: usize = 4_096;
/// How many of those that faded are remembered, to be able to say why.
const REMEMBERED: usize = 256;

/// All of it.
#[derive(Debug, Default)]
pub(crate) struct Book {
    entries: Vec<Entry>,
    /// Numbers, as long as a source wants the strategy.
    ids: BTreeMap<(Source, String, u64), StrategyId>,
    last_id: u64,
    faded: VecDeque<Entry>,
    faded_total: u64,
    left_out: usize,
}

impl Book {
    /// These and no others are what this source wants now. Returns whether that is anything new.
    pub(crate) fn replace(&mut self, source: Source, wants: Vec<Want>, now_ns: u64) -> bool {
        let mut told = Vec::with_capacity(wants.len());
        for want in wants {
            let until_ns = want.ttl.map_or(u64::MAX, |ttl| now_ns.saturating_add(ttl.as_nanos()));
            let key = (source, want.key.clone(), Label::Priority(want.priority).pack());
            let known = self.ids.get(&key).copied();
            // 60 bits: at a million new ones a second they last for 36,000 years.
            let Some(id) = known.or_else(|| StrategyId::new(self.last_id + 1).ok()) else { continue };
            if known.is_none() {
                self.last_id = id.number();
                self.ids.insert(key, id);
            }
            told.push(Entry { source, id, want, until_ns });
        }
        let before = self.of(source);
        let same = before.len() == told.len() && before.iter().zip(&told).all(|(a, b)| a.want == b.want);
        // The decision maker's first: the order is kept, so that what is left out does not change by chance.
        self.entries.retain(|entry| entry.source != source);
        match source {
            Source::Maker => drop(self.entries.splice(0..0, told)),
            Source::Local => self.entries.extend(told),
        }
        let used: BTreeSet<StrategyId> = self.entries.iter().map(|entry| entry.id).collect();
        self.ids.retain(|_, id| used.contains(id));
        !same
    }

    /// The source has said that all it told holds.
    pub(crate) fn confirm(&mut self, source: Source, now_ns: u64) {
        for entry in self.entries.iter_mut().filter(|entry| entry.source == source) {
            if let Some(ttl) = entry.want.ttl {
                entry.until_ns = now_ns.saturating_add(ttl.as_nanos());
            }
        }
    }

    /// Takes out what has faded, and returns it.
    pub(crate) fn fade(&mut self, now_ns: u64) -> Vec<Entry> {
        let faded: Vec<Entry> = self.entries.extract_if(.., |entry| entry.until_ns <= now_ns).collect();
        self.faded_total += faded.len() as u64;
        for entry in &faded {
            self.faded.retain(|old| (old.source, old.want.target) != (entry.source, entry.want.target));
            self.faded.push_back(entry.clone());
        }
        let over = self.faded.len().saturating_sub(REMEMBERED);
        self.faded.drain(..over);
        faded
    }

    /// When something fades next, if nobody says anything.
    pub(crate) fn next_fade(&self) -> Option<u64> {
        self.entries.iter().map(|entry| entry.until_ns).filter(|until| *until < u64::MAX).min()
    }

    /// What is in force, for the table. What lives as long as this process is leased again and again.
    pub(crate) fn leases(&mut self, now_ns: u64) -> Vec<Lease> {
        let mut ids = BTreeSet::new();
        let mut leases = Vec::new();
        self.left_out = 0;
        for entry in self.entries.iter().filter(|entry| entry.until_ns > now_ns) {
            let new = !ids.contains(&entry.id);
            let targets = leases.len() + ids.len() + 1 + usize::from(new);
            if (new && ids.len() >= MOST_STRATEGIES) || targets > MOST_TARGETS {
                self.left_out += 1;
                continue;
            }
            ids.insert(entry.id);
            let Want { target, priority, ttl, .. } = &entry.want;
            let ttl = ttl.unwrap_or_default();
            let strategy = Strategy { id: entry.id, target: *target, priority: *priority, ttl };
            let until = entry.until_ns.min(now_ns.saturating_add(ttl.as_nanos()));
            leases.push(Lease { strategy, expires_at_ns: until });
        }
        leases
    }

    /// How many there was no room for, the last time.
    pub(crate) fn left_out(&self) -> usize {
        self.left_out
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Those of a source.
    pub(crate) fn of(&self, source: Source) -> Vec<&Entry> {
        self.entries.iter().filter(|entry| entry.source == source).collect()
    }

    /// Those that faded, the latest last, and how many there were in all.
    pub(crate) fn faded(&self) -> (impl DoubleEndedIterator<Item = &Entry>, u64) {
        (self.faded.iter(), self.faded_total)
    }
}

#[cfg(test)]
mod tests {
    use gthulhu_model::{Class, Level, ThreadId};

    use super::*;

    const SEC: u64 = 1_000_000_000;

    fn want(pid: i32, key: &str, ttl: Option<u32>) -> Want {
        let priority = Priority::new(Class::Latency(Level::STRONGEST));
        let ttl = ttl.map(|secs| Ttl::from_secs(secs).expect("a TTL"));
        let target = Target::Process(ThreadId { pid, started: 7 });
        Want { key: key.into(), name: key.into(), target, priority, ttl }
    }

    #[test]
    fn what_is_not_told_again_fades_and_what_is_stays() {
        let mut book = Book::default();
        assert!(book.replace(Source::Maker, vec![want(1, "a", Some(10)), want(2, "b", Some(20))], 0));
        assert!(book.replace(Source::Local, vec![want(3, "c", None)], 0));
        assert_eq!(book.next_fade(), Some(10 * SEC));
        book.confirm(Source::Maker, 5 * SEC);
        assert!(book.fade(14 * SEC).is_empty());
        let faded = book.fade(15 * SEC);
        assert_eq!(faded.iter().map(|e| &*e.want.name).collect::<Vec<_>>(), ["a"]);
        let leases = book.leases(15 * SEC);
        let until: Vec<u64> = leases.iter().map(|lease| lease.expires_at_ns / SEC).collect();
        assert_eq!(
            until,
            [25, 15 + u64::from(Ttl::default().as_secs())],
            "b until its time, c is leased anew"
        );
        assert_eq!((book.faded().0.count(), book.faded().1), (1, 1));
        assert_eq!(book.fade(1000 * SEC).len(), 1);
        assert_eq!(book.entries().len(), 1, "what has no TTL stays");
    }

    #[test]
    fn the_same_again_is_no_news_and_keeps_its_numbers() {
        let mut book = Book::default();
        let wants = || vec![want(1, "a", Some(10)), want(2, "a", Some(10)), want(3, "b", Some(10))];
        assert!(book.replace(Source::Maker, wants(), 0));
        let ids = |book: &mut Book| book.leases(0).iter().map(|l| l.strategy.id.number()).collect::<Vec<_>>();
        assert_eq!(ids(&mut book), [1, 1, 2], "those of one key are one strategy");
        assert!(!book.replace(Source::Maker, wants(), SEC));
        assert_eq!(ids(&mut book), [1, 1, 2]);
        assert!(book.replace(Source::Maker, vec![want(3, "b", Some(10))], SEC));
        assert!(book.replace(Source::Maker, wants(), SEC));
        assert_eq!(ids(&mut book), [3, 3, 2], "a number is not used for another strategy");
        assert!(book.replace(Source::Maker, vec![], SEC) && book.leases(SEC).is_empty());
    }

    #[test]
    fn what_there_is_no_room_for_is_left_out_and_counted() {
        let mut book = Book::default();
        let many = |n: i32, key: fn(i32) -> String| (1..=n).map(|pid| want(pid, &key(pid), None)).collect();
        book.replace(Source::Local, many(1_500, |pid| pid.to_string()), 0);
        assert_eq!((book.leases(0).len(), book.left_out()), (1_000, 500));
        book.replace(Source::Local, many(5_000, |_| "one".into()), 0);
        assert_eq!((book.leases(0).len(), book.left_out()), (4_095, 905));
    }
}
