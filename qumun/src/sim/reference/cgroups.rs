//! The table of cgroups. See `cgroups.h`.

use super::state::{Reference, Shown};
use crate::sim::linux::{Cgroup, Linux};

/// Slots of the table.
pub(in crate::sim) const MAX_CGROUPS: usize = 4096;
const ROOT: u64 = 1;

impl Reference {
    /// The slot of a cgroup, or the one that stands in for it.
    pub(super) fn slot_of(&self, id: u64) -> u32 {
        self.slots.get(&id).map_or(0, |(slot, _)| *slot)
    }

    fn own_slot(&self, id: u64) -> Option<u32> {
        self.slots.get(&id).filter(|(_, own)| *own).map(|(slot, _)| *slot)
    }

    fn free_slot(&self) -> Option<u32> {
        let free =
            self.shown.iter().skip(1).position(|row| row.id == 0).map_or(self.shown.len(), |at| at + 1);
        (free < MAX_CGROUPS).then_some(free as u32)
    }

    /// Changes a slot, so that everybody sees it.
    fn change(&mut self, slot: u32, what: impl FnOnce(&mut Shown)) {
        let row = &mut self.shown[slot as usize];
        row.version += 2;
        what(row);
        self.view.cgroup_changes += 1;
    }

    pub(super) fn cgroup_begins(&mut self, linux: &Linux, id: u64) {
        let Some(&Cgroup { parent, weight, limit }) = linux.cgroup(id) else { return };
        let (mut slot, mut above, mut of) = (0, 0, 0);
        if id != ROOT {
            above = self.slot_of(parent);
            of = self.shown[above as usize].id;
            let Some(free) = self.free_slot() else {
                self.slots.insert(id, (above, false));
                self.view.cgroups_untold += 1;
                return;
            };
            slot = free;
        }
        self.slots.insert(id, (slot, true));
        let slots = self.shown.len().max(slot as usize + 1);
        self.shown.resize_with(slots, Shown::default);
        self.groups.resize_with(slots, Default::default);
        let group = &mut self.groups[slot as usize];
        (group.rivals, group.competing) = (0, 0);
        self.change(slot, |row| {
            (row.id, row.parent, row.above, row.weight, row.limit) = (id, of, above, weight, limit.shown());
        });
        if self.settings.limits {
            self.set_limit(slot, above, linux.now());
        }
        self.view.nr_cgroups += 1;
    }

    pub(super) fn cgroup_ends(&mut self, linux: &Linux, id: u64) {
        let Some((slot, own)) = self.slots.remove(&id) else { return };
        if !own {
            self.view.cgroups_untold -= 1;
            return;
        }
        self.change(slot, |row| (row.id, row.weight, row.limit) = (0, 100, [0; 3]));
        if self.settings.limits {
            self.set_limit(slot, 0, linux.now());
        }
        self.view.nr_cgroups -= 1;
    }

    pub(super) fn weigh_cgroup(&mut self, linux: &Linux, id: u64) {
        if let (Some(slot), Some(cgroup)) = (self.own_slot(id), linux.cgroup(id)) {
            self.change(slot, |row| row.weight = cgroup.weight);
            self.reweigh(slot, cgroup.weight);
        }
    }

    pub(super) fn limit_cgroup(&mut self, linux: &Linux, id: u64) {
        let (Some(slot), Some(cgroup)) = (self.own_slot(id), linux.cgroup(id)) else { return };
        self.change(slot, |row| row.limit = cgroup.limit.shown());
        if self.settings.limits {
            let above = self.shown[slot as usize].above;
            self.set_limit(slot, above, linux.now());
        }
    }
}
