//! From the components of a path to what runs there.

use std::borrow::Cow;

use super::unit::{unescape, unescape_cgroup, unit};
use super::{Container, ContainerId, PodUid, Qos, Runtime, Workload};

/// What runtimes write in front of an id, and who they are. `conmon` comes first: it is the runtime's helper
/// beside the container, not in it. A `None` runtime is such a helper.
const PREFIXES: [(&[u8], Option<Runtime>); 10] = [
    (b"crio-conmon-", None),
    (b"libpod-conmon-", None),
    (b"cri-containerd-", Some(Runtime::Containerd)),
    (b"containerd-", Some(Runtime::Containerd)),
    (b"crio-", Some(Runtime::CriO)),
    (b"docker-", Some(Runtime::Docker)),
    (b"libpod-", Some(Runtime::Podman)),
    (b"nerdctl-", Some(Runtime::Nerdctl)),
    // The sandbox of Kata Containers: the virtual machine around the pod's containers.
    (b"kata_", Some(Runtime::Unknown)),
    (b"kata-", Some(Runtime::Unknown)),
];

/// See [`Workload::of_cgroup`].
pub(super) fn workload(path: &[u8]) -> Workload {
    // In a cgroup namespace the paths of those outside begin with `/..`, once for each level.
    let components: Vec<&[u8]> = path
        .split(|&byte| byte == b'/')
        .filter(|name| !name.is_empty())
        .skip_while(|name| *name == b"..")
        .collect();
    if components.is_empty() {
        return Workload::Root;
    }
    if let Some(pod) = pod(&components) {
        return pod;
    }
    if let Some(container) = container_without_pod(&components) {
        return Workload::Container(container);
    }
    if let Some(unit) = unit(&components) {
        return Workload::Unit(unit);
    }
    Workload::Other(String::from_utf8_lossy(path).into())
}

/// The first pod on the way, and the first container below it.
fn pod(components: &[&[u8]]) -> Option<Workload> {
    for (at, component) in components.iter().enumerate() {
        let parents = &components[..at];
        // containerd that was not told of systemd takes `SLICE:cri-containerd:ID` for the name of a directory.
        let (slice, colons) = match component.iter().position(|&byte| byte == b':') {
            Some(colon) => (&component[..colon], Some(&component[colon + 1..])),
            None => (*component, None),
        };
        let found = pod_slice(slice).or_else(|| pod_directory(slice, parents));
        if let Some((uid, qos)) = found {
            let below = components[at + 1..].iter().copied();
            let container = match colons.map(container_of_colons) {
                Some(container) => container,
                None => below.map_while(not_a_helper).find_map(in_pod),
            };
            return Some(Workload::Pod { uid, qos, container });
        }
    }
    None
}

/// `None` ends the search: what is below a helper is the helper's.
fn not_a_helper(name: &[u8]) -> Option<&[u8]> {
    let helper = |(prefix, runtime): &(&[u8], Option<Runtime>)| runtime.is_none() && name.starts_with(prefix);
    (!PREFIXES.iter().any(helper)).then_some(name)
}

/// The kubelet's systemd driver: `kubepods-burstable-podUID.slice`. `kind` and `--cgroup-root` put more names
/// in front: `kubelet-kubepods-besteffort-podUID.slice`. systemd escapes dashes within a part as `\x2d`.
fn pod_slice(name: &[u8]) -> Option<(PodUid, Qos)> {
    let stem = unescape_cgroup(name).strip_suffix(b".slice")?;
    let parts: Vec<Cow<'_, [u8]>> = stem.split(|&byte| byte == b'-').map(unescape).collect();
    let (last, parents) = parts.split_last()?;
    let parents: Vec<&[u8]> = parents.iter().map(AsRef::as_ref).collect();
    Some((PodUid::new(last.strip_prefix(b"pod")?)?, qos(&parents)?))
}

/// The cgroupfs driver: `kubepods/burstable/podUID`.
fn pod_directory(name: &[u8], parents: &[&[u8]]) -> Option<(PodUid, Qos)> {
    let uid = name.strip_prefix(b"pod")?;
    // With systemd's slices above a directory of a pod: CRI-O with its cgroup manager set to cgroupfs.
    let parents: Vec<&[u8]> = parents
        .iter()
        .map(|name| match name.strip_suffix(b".slice") {
            Some(stem) => stem.rsplit(|&byte| byte == b'-').next().unwrap_or(stem),
            None => name,
        })
        .collect();
    Some((PodUid::new(uid)?, qos(&parents)?))
}

/// The class by what stands above a pod; `None` where that is not the kubelet's.
fn qos(parents: &[&[u8]]) -> Option<Qos> {
    match parents {
        [.., b"kubepods"] => Some(Qos::Guaranteed),
        [.., b"kubepods", b"burstable"] => Some(Qos::Burstable),
        [.., b"kubepods", b"besteffort"] => Some(Qos::BestEffort),
        // Kubelets before 1.9 with the cgroupfs driver.
        [.., b"kubepods", b"guaranteed"] => Some(Qos::Guaranteed),
        _ => None,
    }
}

/// Below a pod the runtime is the kubelet's, so that names without digits are believed too.
fn in_pod(name: &[u8]) -> Option<Container> {
    let name = plain(name);
    prefixed(&name).map(|(container, _)| container).or_else(|| bare(&name))
}

/// `cri-containerd:ID`, behind the slice.
fn container_of_colons(text: &[u8]) -> Option<Container> {
    let colon = text.iter().rposition(|&byte| byte == b':')?;
    let prefix = [&text[..colon], b"-"].concat();
    let runtime = PREFIXES.iter().find(|(known, _)| **known == prefix[..]).map(|(_, runtime)| *runtime);
    let runtime = match runtime {
        Some(None) => return None,
        Some(Some(runtime)) => runtime,
        None => Runtime::Unknown,
    };
    Some(Container { id: ContainerId::new(&text[colon + 1..])?, runtime })
}

/// A container by itself. Anybody may call a directory `docker-x`, and `docker-registry.service` is none: so
/// here only whole ids count.
fn container_without_pod(components: &[&[u8]]) -> Option<Container> {
    let mut parent: &[u8] = b"";
    for component in components {
        not_a_helper(component)?;
        if let Some(colon) = component.iter().position(|&byte| byte == b':') {
            // `system.slice:docker:ID`, of runc told of systemd by a manager that is not.
            let found = container_of_colons(&component[colon + 1..]);
            if let Some(container) = found.filter(|container| is_whole(container.id.as_str().as_bytes())) {
                return Some(container);
            }
        }
        let name = plain(component);
        if let Some((container, true)) = prefixed(&name) {
            return Some(container);
        }
        if let Some(mut container) = bare(&name) {
            if parent == b"docker" {
                container.runtime = Runtime::Docker;
            }
            return Some(container);
        }
        parent = component;
    }
    None
}

/// Without what systemd adds.
fn plain(name: &[u8]) -> Cow<'_, [u8]> {
    let name = unescape_cgroup(name);
    unescape(name.strip_suffix(b".scope").unwrap_or(name))
}

/// `docker-ID`, and whether the id is one that a runtime made.
fn prefixed(name: &[u8]) -> Option<(Container, bool)> {
    let (prefix, runtime) = PREFIXES.iter().find(|(prefix, _)| name.starts_with(prefix))?;
    let id = &name[prefix.len()..];
    Some((Container { id: ContainerId::new(id)?, runtime: (*runtime)? }, is_whole(id)))
}

/// The id alone.
fn bare(name: &[u8]) -> Option<Container> {
    is_whole(name).then(|| ContainerId::new(name))?.map(|id| Container { id, runtime: Runtime::Unknown })
}

/// 64 hexadecimal digits: what every runtime here makes.
fn is_whole(id: &[u8]) -> bool {
    id.len() == 64 && id.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
