//! Weights of cgroups, where the core decides. See `shares.h`.

use super::state::Reference;
use crate::sim::linux::{Linux, Thread};

/// cgroups above a task that are looked at.
const DEPTH: usize = 24;

impl Reference {
    /// Nobody is counted, from here on.
    pub(super) fn shares_begin(&mut self) {
        self.shares = self.shares.wrapping_add(1).max(1);
        self.rivals = 0;
        for group in &mut self.groups {
            (group.rivals, group.competing) = (0, 0);
        }
    }

    pub(super) fn is_counted(&self, task: Thread) -> bool {
        let counted = self.ctx(task).counted;
        counted != 0 && counted == self.shares
    }

    pub(super) fn share_begins(&mut self, linux: &Linux, task: Thread) {
        if self.view.nr_cgroups <= 1 || self.is_counted(task) {
            return;
        }
        let (weight, shares) = (linux.task(task).weight, self.shares);
        let t = self.ctx_mut(task);
        (t.counted, t.counted_weight) = (shares, weight);
        let (mut slot, mut weight) = (t.group as usize, i64::from(weight));
        self.rivals += weight;
        for _ in 0..DEPTH {
            let group = &mut self.groups[slot];
            group.rivals += weight;
            group.competing += 1;
            if group.competing != 1 || slot == 0 {
                break;
            }
            group.weight = self.shown[slot].weight;
            weight = group.weight.into();
            slot = self.shown[slot].above as usize;
        }
    }

    pub(super) fn share_ends(&mut self, task: Thread) {
        let counted = self.is_counted(task);
        let t = self.ctx_mut(task);
        t.counted = 0;
        if !counted {
            return;
        }
        let (mut slot, mut weight) = (t.group as usize, i64::from(t.counted_weight));
        self.rivals -= weight;
        for _ in 0..DEPTH {
            let group = &mut self.groups[slot];
            group.rivals -= weight;
            group.competing -= 1;
            if group.competing != 0 || slot == 0 {
                break;
            }
            weight = group.weight.into();
            slot = self.shown[slot].above as usize;
        }
    }

    /// A cgroup has another weight.
    pub(super) fn reweigh(&mut self, slot: u32, weight: u32) {
        let above = self.shown[slot as usize].above as usize;
        let group = &mut self.groups[slot as usize];
        if slot == 0 || group.competing <= 0 {
            return;
        }
        let more = i64::from(weight) - i64::from(group.weight);
        group.weight = weight;
        self.groups[above].rivals += more;
    }

    /// The weight of a task of this one in this cgroup, in the flat order, in parts of 1024.
    pub(super) fn flat_weight(&self, slot: u32, weight: u64) -> u64 {
        let at_least = |n: i64, least: u64| if n > least as i64 { n as u64 } else { least };
        let mut part = (at_least(self.rivals, weight) * weight) << 10;
        let (mut slot, mut own) = (slot as usize, weight);
        for _ in 0..DEPTH {
            let group = &self.groups[slot];
            part /= at_least(group.rivals, own.max(1));
            if slot == 0 {
                break;
            }
            own = group.weight.into();
            part *= own;
            slot = self.shown[slot].above as usize;
        }
        part.max(1)
    }
}
