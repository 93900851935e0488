//! The part of a look that is about cgroups.

use std::collections::HashSet;
use std::sync::Arc;

use gthulhu_model::CgroupId;

use super::{Discovery, Event};
use crate::{Cgroup, Result};

/// A cgroup and the threads in it, where those are asked for.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) cgroup: Arc<Cgroup>,
    pub(super) threads: Vec<i32>,
}

impl Discovery {
    /// Looks at the cgroup of this path and those below it. `None`: there is none.
    pub(super) fn look_at_cgroups(
        &mut self,
        path: &str,
        events: &mut Vec<Event>,
    ) -> Result<Option<Vec<Found>>> {
        // What is told by `/proc` is looked for there when everything is.
        let with_threads = self.by_tree || path != "/";
        self.visit(path, true, with_threads, events)
    }

    /// Looks at this one cgroup.
    pub(super) fn look_at_cgroup(&mut self, path: &str, events: &mut Vec<Event>) -> Result<Option<Found>> {
        let found = self.visit(path, false, true, events)?;
        Ok(found.and_then(|found| found.into_iter().next()))
    }

    fn visit(
        &mut self,
        path: &str,
        deep: bool,
        with_threads: bool,
        events: &mut Vec<Event>,
    ) -> Result<Option<Vec<Found>>> {
        let Self { tree: Some(tree), watch, not_watching, index, limits, .. } = self else { return Ok(None) };
        let mut found = Vec::new();
        let was_there = tree.walk(path, limits.cgroups, deep, &mut |visit| {
            // Watched before its threads and children are read: what comes after that is told.
            if !index.cgroups.contains_key(&visit.cgroup.id)
                && let Some(Err(error)) =
                    watch.as_mut().map(|watch| watch.add(&visit.directory(), visit.cgroup))
            {
                *watch = None;
                *not_watching = Some(error);
            }
            let threads = if with_threads { visit.threads()? } else { Vec::new() };
            found.push(Found { cgroup: Arc::clone(visit.cgroup), threads });
            Ok(())
        })?;
        for found in &found {
            self.take_cgroup(&found.cgroup, events);
        }
        Ok(was_there.then_some(found))
    }

    fn take_cgroup(&mut self, cgroup: &Arc<Cgroup>, events: &mut Vec<Event>) {
        if self.index.cgroups.contains_key(&cgroup.id) {
            return;
        }
        // One that was removed and made anew has another id.
        if let Some(old) = self.index.cgroup_at(&cgroup.path).cloned() {
            self.drop_cgroup(&old, events);
        }
        let new_pod = self.index.link_cgroup(cgroup);
        if let (true, Some((uid, _))) = (new_pod, cgroup.workload.pod()) {
            events.push(Event::PodAdded(uid.clone()));
        }
        events.push(Event::CgroupAdded(Arc::clone(cgroup)));
    }

    fn drop_cgroup(&mut self, cgroup: &Arc<Cgroup>, events: &mut Vec<Event>) {
        if let Some(tree) = &mut self.tree {
            tree.forget(cgroup);
        }
        let pod = self.index.unlink_cgroup(cgroup);
        events.push(Event::CgroupRemoved(Arc::clone(cgroup)));
        events.extend(pod.map(Event::PodRemoved));
    }

    /// What was not found is gone, if it was not made since.
    pub(super) fn drop_cgroups_but(&mut self, found: &[Found], events: &mut Vec<Event>) {
        let there: HashSet<CgroupId> = found.iter().map(|found| found.cgroup.id).collect();
        let gone: Vec<Arc<Cgroup>> =
            self.index.cgroups.values().filter(|cgroup| !there.contains(&cgroup.id)).cloned().collect();
        self.drop_gone(gone, events);
    }

    /// A cgroup can be removed only when there is none below it; but notices may be read late.
    pub(super) fn drop_cgroups_below(&mut self, path: &str, events: &mut Vec<Event>) {
        let is_below = |known: &str| {
            known.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let gone: Vec<Arc<Cgroup>> =
            self.index.cgroups.values().filter(|cgroup| is_below(&cgroup.path)).cloned().collect();
        self.drop_gone(gone, events);
    }

    fn drop_gone(&mut self, cgroups: Vec<Arc<Cgroup>>, events: &mut Vec<Event>) {
        for cgroup in cgroups {
            if self.tree.as_ref().and_then(|tree| tree.id_at(&cgroup.path)) != Some(cgroup.id) {
                self.drop_cgroup(&cgroup, events);
            }
        }
    }
}
