//! The core's table of cgroups, told to a policy as notes.
//!
//! A table can be looked up at any time: by an agent that comes later or again after a crash, and after a time in which
//! the core sent nothing. So what a policy hears is not what the core sent but what it has not been told yet. One look at
//! a counter says whether there is anything; no system call, nothing allocated.

use crate::{Nanos, Note};

/// One slot of the table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Grows with each change; odd: not to be read now.
    pub(crate) version: u64,
    /// 0: free.
    pub(crate) id: u64,
    pub(crate) parent: u64,
    /// The slot of the parent.
    pub(crate) above: u32,
    pub(crate) weight: u32,
    pub(crate) quota_us: u64,
    pub(crate) period_us: u64,
}

/// The table, where it is.
pub(crate) trait Table {
    /// The version of a slot: cheap.
    fn version(&self, slot: usize) -> u64;
    /// A slot, as of one moment.
    fn row(&self, slot: usize) -> Row;
}

/// What an agent has been told.
#[derive(Debug, Default)]
pub(crate) struct Told {
    /// By slot: the version and the id. Empty unless the policy subscribes.
    rows: Vec<(u64, u64)>,
    /// The counter of changes when the present walk began, and where it is.
    seen: Option<u64>,
    at: usize,
}

/// Deeper than this, a parent may be told after its child.
const DEPTH: usize = 64;

impl Told {
    /// Nothing, of a table of so many slots: all that there is will be told.
    pub(crate) fn begin(&mut self, slots: usize) {
        *self = Self { rows: vec![(0, 0); slots], seen: None, at: slots };
    }

    /// Has the policy asked for cgroups?
    #[cfg(feature = "kernel")]
    #[inline]
    pub(crate) fn listens(&self) -> bool {
        !self.rows.is_empty()
    }

    /// What the policy does not know yet. `changes` is the table's counter of changes.
    #[inline]
    pub(crate) fn next(&mut self, changes: u64, table: &impl Table) -> Option<Note> {
        if self.rows.is_empty() || self.at >= self.rows.len() && self.seen == Some(changes) {
            return None;
        }
        self.search(changes, table)
    }

    fn search(&mut self, changes: u64, table: &impl Table) -> Option<Note> {
        let slots = self.rows.len();
        while self.at < slots || self.seen != Some(changes) && slots > 0 {
            if self.at >= slots {
                (self.seen, self.at) = (Some(changes), 0);
            }
            match self.difference(self.at, table) {
                Some(note) => return Some(note),
                None => self.at += 1,
            }
        }
        None
    }

    fn difference(&mut self, mut slot: usize, table: &impl Table) -> Option<Note> {
        if table.version(slot) == self.rows[slot].0 {
            return None;
        }
        let mut row = table.row(slot);
        // Its parent first, if that is new. Of a cgroup that is gone the row still names the slot of its parent, where
        // there may be another one by now.
        for _ in 0..DEPTH {
            let above = row.above as usize;
            if row.id == 0 || row.parent == 0 || above >= self.rows.len() || self.rows[above].1 == row.parent
            {
                break;
            }
            let parent = table.row(above);
            if parent.id != row.parent {
                break;
            }
            (slot, row) = (above, parent);
        }
        if row.version & 1 == 1 {
            // It changes at this moment, and the counter will when that is done.
            return None;
        }
        let (_, old) = self.rows[slot];
        if old != 0 && old != row.id {
            // Not the version: what is there now comes next.
            self.rows[slot] = (if row.id == 0 { row.version } else { 0 }, 0);
            return Some(Note::CgroupGone { cgroup_id: old });
        }
        self.rows[slot] = (row.version, row.id);
        (row.id != 0).then(|| Note::Cgroup {
            cgroup_id: row.id,
            parent: row.parent,
            weight: row.weight,
            limit: (row.quota_us != 0)
                .then_some((Nanos::from_micros(row.quota_us), Nanos::from_micros(row.period_us))),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Table for &[Row] {
        fn version(&self, slot: usize) -> u64 {
            self[slot].version
        }

        fn row(&self, slot: usize) -> Row {
            self[slot]
        }
    }

    fn row(version: u64, id: u64, parent: u64, above: u32) -> Row {
        Row { version, id, parent, above, weight: 100, ..Row::default() }
    }

    fn all(told: &mut Told, changes: u64, table: &[Row]) -> Vec<String> {
        let notes = std::iter::from_fn(|| told.next(changes, &table));
        notes
            .map(|note| match note {
                Note::Cgroup { cgroup_id, parent, weight, .. } => {
                    format!("{cgroup_id} in {parent}: {weight}")
                }
                Note::CgroupGone { cgroup_id } => format!("{cgroup_id} gone"),
                other => panic!("{other:?}"),
            })
            .collect()
    }

    #[test]
    fn a_slot_that_another_cgroup_has_by_now_is_told_once() {
        let mut told = Told::default();
        told.begin(4);
        let before = [row(2, 1, 0, 0), row(2, 40, 1, 0), row(2, 41, 40, 1), Row::default()];
        assert_eq!(all(&mut told, 3, &before), ["1 in 0: 100", "40 in 1: 100", "41 in 40: 100"]);
        // Child and parent are gone, and the parent's slot has a new one: the child's row still points there.
        let after = [row(2, 1, 0, 0), row(6, 50, 1, 0), row(4, 0, 40, 1), Row::default()];
        assert_eq!(all(&mut told, 6, &after), ["40 gone", "50 in 1: 100", "41 gone"]);
        assert_eq!(all(&mut told, 6, &after), [""; 0]);
        // Also for an agent that comes now.
        told.begin(4);
        assert_eq!(all(&mut told, 6, &after), ["1 in 0: 100", "50 in 1: 100"]);
    }

    #[test]
    fn what_is_there_is_told_once_and_parents_first() {
        let mut told = Told::default();
        // The child has taken a slot before its parent's, and a free slot was used once.
        let mut table =
            [row(2, 1, 0, 0), row(2, 40, 30, 3), row(4, 0, 0, 0), row(2, 30, 1, 0), Row::default()];
        assert!(all(&mut told, 7, &table).is_empty(), "nobody has subscribed");
        told.begin(table.len());
        assert_eq!(all(&mut told, 7, &table), ["1 in 0: 100", "30 in 1: 100", "40 in 30: 100"]);
        assert!(all(&mut told, 7, &table).is_empty());
        table[3].weight = 300;
        table[3].version = 4;
        assert!(all(&mut told, 7, &table).is_empty(), "the counter says that nothing has changed");
        assert_eq!(all(&mut told, 8, &table), ["30 in 1: 300"]);
        // One goes, and another one has its slot before anybody looks.
        table[1] = row(6, 50, 30, 3);
        assert_eq!(all(&mut told, 10, &table), ["40 gone", "50 in 30: 100"]);
        table[1] = row(8, 0, 0, 0);
        table[3] = row(6, 0, 0, 0);
        assert_eq!(all(&mut told, 12, &table), ["50 gone", "30 gone"]);
        told.begin(table.len());
        assert_eq!(all(&mut told, 12, &table), ["1 in 0: 100"], "a new agent knows nothing");
    }

    #[test]
    fn a_row_that_changes_now_is_told_later() {
        let mut told = Told::default();
        let mut table = [row(2, 1, 0, 0), row(3, 9, 1, 0)];
        told.begin(2);
        assert_eq!(all(&mut told, 5, &table), ["1 in 0: 100"]);
        table[1].version = 4;
        assert_eq!(all(&mut told, 6, &table), ["9 in 1: 100"]);
    }
}
