//! `/proc/PID/cgroup`: in which cgroup of each hierarchy a process is.

use crate::Workload;

/// The lines of `/proc/PID/cgroup`.
///
/// cgroup v2 has one hierarchy and one line, `0::/PATH`. v1 has a hierarchy for each controller or group of
/// controllers, and named ones without any (`1:name=systemd:/PATH`); a process may be elsewhere in each. Hybrid
/// systems have both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Membership<'a> {
    lines: Vec<Line<'a>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line<'a> {
    /// Empty for v2.
    controllers: &'a [u8],
    path: &'a [u8],
}

/// Of hierarchies that tell equally much, which is asked first. Runtimes of the v1 time join all of them, but
/// systemd keeps its own truth in `name=systemd`, and CPU time is what all of this is about.
const ORDER: [&[u8]; 5] = [b"", b"name=systemd", b"cpu", b"cpuset", b"memory"];

impl<'a> Membership<'a> {
    /// Reads the file's text. Lines that are none are skipped; no line at all is a process that has ended.
    pub fn parse(text: &'a [u8]) -> Self {
        let lines = text.split(|&byte| byte == b'\n').filter_map(|line| {
            // The path may have colons.
            let mut fields = line.splitn(3, |&byte| byte == b':');
            let number = fields.next()?;
            let controllers = fields.next()?;
            let path = fields.next()?;
            let fine = !number.is_empty() && number.iter().all(u8::is_ascii_digit) && path.starts_with(b"/");
            // Of a process that outlives its cgroup, as a zombie does.
            let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
            fine.then_some(Line { controllers, path })
        });
        Self { lines: lines.collect() }
    }

    /// The path in the v2 hierarchy, if there is one.
    pub fn unified(&self) -> Option<&'a [u8]> {
        self.lines.iter().find(|line| line.controllers.is_empty()).map(|line| line.path)
    }

    /// Whether v2 is the only hierarchy: then the tree of cgroups alone tells everything.
    pub fn is_unified_only(&self) -> bool {
        matches!(self.lines.as_slice(), [line] if line.controllers.is_empty())
    }

    /// The path in the hierarchy of this controller, or of this name (`name=systemd`), of v1.
    pub fn controller(&self, name: &str) -> Option<&'a [u8]> {
        let has = |line: &&Line<'_>| {
            line.controllers.split(|&byte| byte == b',').any(|controller| controller == name.as_bytes())
        };
        self.lines.iter().filter(|line| !line.controllers.is_empty()).find(has).map(|line| line.path)
    }

    /// What the process belongs to: of all paths, that which tells most. On hybrid systems v2 may know
    /// the session only, or nothing, where v1 knows the pod. Among equals v2 comes first, then
    /// `name=systemd`, `cpu`, `cpuset`, `memory`, then the order of the file.
    pub fn workload(&self) -> Workload {
        let order = |line: &Line<'_>| {
            // Splitting nothing gives one part of nothing, which stands for v2.
            let of = |wanted: &&[u8]| line.controllers.split(|&byte| byte == b',').any(|one| one == *wanted);
            ORDER.iter().position(of).unwrap_or(ORDER.len())
        };
        let mut lines: Vec<&Line<'_>> = self.lines.iter().collect();
        lines.sort_by_key(|line| order(line));
        let mut best = Workload::Root;
        for line in lines {
            let workload = Workload::of_cgroup(line.path);
            if workload.rank() > best.rank() {
                best = workload;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Qos, UnitKind};
    use proptest::prelude::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn on_v2_the_one_line_tells_all() {
        let membership = Membership::parse(b"0::/system.slice/cron.service\n");
        assert!(membership.is_unified_only());
        assert_eq!(membership.unified(), Some(&b"/system.slice/cron.service"[..]));
        assert_eq!(membership.controller("cpu"), None);
        assert!(matches!(membership.workload(), Workload::Unit(unit) if &*unit.name == "cron.service"));
    }

    #[test]
    fn on_v1_controllers_that_share_a_hierarchy_share_the_path() {
        let text = format!("4:cpu,cpuacct:/docker/{ID}\n3:memory:/\n1:name=systemd:/\n");
        let membership = Membership::parse(text.as_bytes());
        assert_eq!(membership.unified(), None);
        assert_eq!(membership.controller("cpuacct"), membership.controller("cpu"));
        assert_eq!(membership.controller("memory"), Some(&b"/"[..]));
        assert_eq!(membership.controller("name=systemd"), Some(&b"/"[..]));
        assert_eq!(membership.workload().container().unwrap().id.as_str(), ID);
    }

    /// runc joins v1's hierarchies; v2 has only what systemd made of the session.
    #[test]
    fn on_hybrid_systems_the_hierarchy_that_knows_most_is_believed() {
        let uid = "0a1b2c3d-1111-2222-3333-444455556666";
        let text = format!(
            "9:name=systemd:/user.slice/user-0.slice/session-1.scope\n1:cpu:/kubepods/burstable/pod{uid}/{ID}\n\
             0::/user.slice/user-0.slice/session-1.scope\n"
        );
        let workload = Membership::parse(text.as_bytes()).workload();
        assert_eq!(workload.pod().map(|(uid, qos)| (uid.as_str(), qos)), Some((uid, Qos::Burstable)));
        assert_eq!(workload.container().unwrap().id.as_str(), ID);
    }

    #[test]
    fn among_equals_the_order_is_v2_then_systemd_then_cpu() {
        let text = b"7:pids:/a.service\n6:cpu,cpuacct:/b.service\n1:name=systemd:/c.service\n0::/d.service\n";
        let name = |text: &[u8]| match Membership::parse(text).workload() {
            Workload::Unit(unit) if unit.kind == UnitKind::Service => unit.name.to_string(),
            other => panic!("{other:?}"),
        };
        assert_eq!(name(text), "d.service");
        let lines: Vec<&[u8]> = text.split_inclusive(|&byte| byte == b'\n').collect();
        assert_eq!(name(&lines[..3].concat()), "c.service");
        assert_eq!(name(&lines[..2].concat()), "b.service");
        assert_eq!(name(lines[0]), "a.service");
    }

    #[test]
    fn colons_in_paths_and_cgroups_that_are_gone() {
        let text = b"0::/system.slice/a:b:c.service (deleted)\n";
        assert_eq!(Membership::parse(text).unified(), Some(&b"/system.slice/a:b:c.service"[..]));
        assert_eq!(Membership::parse(b"").workload(), Workload::Root);
        assert_eq!(Membership::parse(b"x::/y\n12\n3:cpu\n4:cpu:relative\n"), Membership::default());
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(text: Vec<u8>) {
            let membership = Membership::parse(&text);
            membership.workload();
            membership.controller("cpu");
        }
    }
}
