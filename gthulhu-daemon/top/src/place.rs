//! What a cgroup is called, by itself and as a part of something.

use gthulhu_discovery::{Container, Names, Runtime, Unit, UnitKind, Workload};

use crate::format::printable;

/// Of what sort a row is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Root,
    Pod,
    Container,
    Service,
    Scope,
    Slice,
    Unit,
    Cgroup,
    /// All cgroups that have no row of their own.
    Others,
    Thread,
}

impl Kind {
    /// In the JSON object.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::Pod => "pod",
            Self::Container => "container",
            Self::Service => "service",
            Self::Scope => "scope",
            Self::Slice => "slice",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
            Self::Others => "others",
            Self::Thread => "thread",
        }
    }
}

/// Something that a cgroup is or belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Label {
    /// The same for all cgroups that belong to the same.
    pub(crate) key: String,
    pub(crate) name: String,
    pub(crate) kind: Kind,
}

/// A cgroup, as what it belongs to, from small to large.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) cgroup: Label,
    pub(crate) group: Label,
    pub(crate) slice: Label,
}

impl Place {
    /// Of the cgroup with this number. Without a path it was gone before anybody could look.
    pub(crate) fn of(id: u64, path: Option<&str>, names: &dyn Names) -> Self {
        let Some(path) = path else {
            let gone = Label { key: format!("gone {id}"), name: format!("(gone: {id})"), kind: Kind::Cgroup };
            return Self { cgroup: gone.clone(), group: gone.clone(), slice: gone };
        };
        let workload = Workload::of_cgroup(path);
        let group = group(&workload, names);
        let cgroup = cgroup(path, &workload, &group, names);
        Self { cgroup, slice: slice(path), group }
    }

    /// Of all cgroups that found no row free.
    pub(crate) fn others() -> Self {
        let all = Label { key: "others".into(), name: "(cgroups without a row)".into(), kind: Kind::Others };
        Self { cgroup: all.clone(), group: all.clone(), slice: all }
    }
}

fn group(workload: &Workload, names: &dyn Names) -> Label {
    let label = |key: String, name: &str, kind| Label { key, name: printable(name), kind };
    match workload {
        Workload::Pod { uid, .. } => {
            let name = names.pod(uid).map_or_else(|| format!("pod {uid}"), |info| info.to_string());
            label(format!("pod {uid}"), &name, Kind::Pod)
        }
        Workload::Container(container) => {
            label(format!("container {}", container.id), &container_name(container), Kind::Container)
        }
        Workload::Unit(unit) => label(format!("unit {workload}"), &workload.to_string(), unit_kind(unit)),
        Workload::Root => label("/".into(), "/ (the root cgroup)", Kind::Root),
        other => label(other.to_string(), &other.to_string(), Kind::Cgroup),
    }
}

fn cgroup(path: &str, workload: &Workload, group: &Label, names: &dyn Names) -> Label {
    let name = match workload {
        Workload::Pod { container: None, .. } => format!("{} (the pod's own)", group.name),
        Workload::Pod { uid, container: Some(container), .. } => {
            let info = names.pod(uid);
            let called = info.as_ref().and_then(|info| info.container(&container.id));
            format!("{}:{}", group.name, called.unwrap_or(container.id.short()))
        }
        Workload::Root => group.name.clone(),
        _ => path.to_owned(),
    };
    Label { key: path.to_owned(), name: printable(&name), kind: group.kind }
}

/// The deepest slice that is none of a pod's; where there is none, the first folder.
fn slice(path: &str) -> Label {
    let (mut at, mut found) = (0, None);
    for part in path.split_inclusive('/').skip(1) {
        at += part.len();
        let upto = &path[..(at + 1).min(path.len())];
        let upto = upto.trim_end_matches('/');
        if !upto.ends_with(".slice") || Workload::of_cgroup(upto).pod().is_some() {
            break;
        }
        found = Some(upto);
    }
    let first = || path.split('/').nth(1).filter(|name| !name.is_empty()).map(|name| &path[..=name.len()]);
    match found.or_else(first) {
        Some(path) => {
            let kind = if path.ends_with(".slice") { Kind::Slice } else { Kind::Cgroup };
            Label { key: path.to_owned(), name: printable(path), kind }
        }
        None => Label { key: "/".into(), name: "/ (the root cgroup)".into(), kind: Kind::Root },
    }
}

fn container_name(container: &Container) -> String {
    match container.runtime {
        Runtime::Unknown => format!("container {}", container.id.short()),
        runtime => format!("{runtime} {}", container.id.short()),
    }
}

fn unit_kind(unit: &Unit) -> Kind {
    match unit.kind {
        UnitKind::Service => Kind::Service,
        UnitKind::Scope => Kind::Scope,
        UnitKind::Slice => Kind::Slice,
        UnitKind::Other => Kind::Unit,
    }
}

#[cfg(test)]
mod tests {
    use gthulhu_discovery::NoNames;

    use super::*;

    fn place(path: &str) -> Place {
        Place::of(9, Some(path), &NoNames)
    }

    #[test]
    fn containers_of_a_pod_belong_together_and_services_to_their_slices() {
        let pod = "/kubepods.slice/kubepods-burstable.slice/\
            kubepods-burstable-pod0a1b2c3d_1111_2222_3333_444455556666.slice";
        let id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        let one = place(&format!("{pod}/cri-containerd-{id}.scope"));
        let two = place(&format!("{pod}/cri-containerd-{}.scope", id.replace('0', "f")));
        assert_eq!(one.group, two.group);
        assert_eq!(one.group.name, "pod 0a1b2c3d-1111-2222-3333-444455556666");
        assert_ne!(one.cgroup.key, two.cgroup.key);
        assert_eq!(one.cgroup.name, "pod 0a1b2c3d-1111-2222-3333-444455556666:0123456789ab");
        assert_eq!(one.slice.name, "/kubepods.slice/kubepods-burstable.slice");
        let cron = place("/system.slice/cron.service");
        assert_eq!((cron.group.name.as_str(), cron.group.kind), ("cron.service", Kind::Service));
        assert_eq!(
            (cron.slice.name.as_str(), cron.cgroup.name.as_str()),
            ("/system.slice", "/system.slice/cron.service")
        );
        assert_eq!(place("/system.slice").slice.name, "/system.slice");
        assert_eq!(place("/docker/x/y").slice.name, "/docker");
        assert_eq!(place("/").slice, place("/").group);
        assert_eq!(place("/a.slice/b/c.slice").slice.name, "/a.slice");
    }

    #[test]
    fn a_cgroup_that_is_gone_has_a_name_too() {
        assert_eq!(Place::of(9, None, &NoNames).group.name, "(gone: 9)");
    }
}
