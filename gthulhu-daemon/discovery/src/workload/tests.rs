//! Paths as they were seen on real machines, with other ids.

use proptest::prelude::*;

use super::*;

const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
const OTHER: &str = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752";
const UID: &str = "0a1b2c3d-1111-2222-3333-444455556666";
const UID_: &str = "0a1b2c3d_1111_2222_3333_444455556666";
/// What the kubelet calls a pod from a file.
const HASH: &str = "c6b5d5f3e1a94c2e8b1f0d7a6e5c4b3a";

/// `{id}`, `{other}`, `{uid}`, `{uid_}` and `{hash}` stand for those above.
fn path(template: &str) -> String {
    template
        .replace("{id}", ID)
        .replace("{other}", OTHER)
        .replace("{uid}", UID)
        .replace("{uid_}", UID_)
        .replace("{hash}", HASH)
}

fn told(template: &str) -> String {
    let workload = Workload::of_cgroup(path(template));
    match &workload {
        Workload::Pod { uid, qos, container } => {
            let uid = uid.as_str().replace(UID, "UID").replace(HASH, "HASH");
            let container = container.as_ref().map(|it| format!(" {} {}", it.runtime, it.id));
            format!("pod {uid} {qos}{}", container.unwrap_or_default())
        }
        Workload::Container(container) => format!("container {} {}", container.runtime, container.id),
        Workload::Unit(unit) => format!("{:?} {workload}", unit.kind).to_lowercase(),
        Workload::Root => "root".into(),
        Workload::Other(path) => format!("other {path}"),
    }
    .replace(ID, "ID")
    .replace(OTHER, "OTHER")
}

/// Each with who writes it.
const PODS: &[(&str, &str, &str)] = &[
    (
        "containerd, systemd driver, v2",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID Burstable containerd ID",
    ),
    (
        "containerd, systemd driver, best effort",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID BestEffort containerd ID",
    ),
    (
        "containerd, systemd driver, guaranteed: no slice for the class",
        "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID Guaranteed containerd ID",
    ),
    ("containerd, cgroupfs driver", "/kubepods/burstable/pod{uid}/{id}", "pod UID Burstable unknown ID"),
    ("containerd, cgroupfs driver, guaranteed", "/kubepods/pod{uid}/{id}", "pod UID Guaranteed unknown ID"),
    (
        "cgroupfs driver of kubelets before 1.9",
        "/kubepods/guaranteed/pod{uid}/{id}",
        "pod UID Guaranteed unknown ID",
    ),
    (
        "the pod's own cgroup",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice",
        "pod UID BestEffort",
    ),
    ("the pod's own cgroup, cgroupfs driver", "/kubepods/besteffort/pod{uid}", "pod UID BestEffort"),
    (
        "a pod from a file",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{hash}.slice/cri-containerd-{id}.scope",
        "pod HASH Burstable containerd ID",
    ),
    (
        "a pod from a file, cgroupfs driver",
        "/kubepods/burstable/pod{hash}/{id}",
        "pod HASH Burstable unknown ID",
    ),
    (
        "CRI-O, systemd driver",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/crio-{id}.scope",
        "pod UID Burstable cri-o ID",
    ),
    (
        "CRI-O with crun, which makes a cgroup in the container's",
        "/kubepods.slice/kubepods-pod{uid_}.slice/crio-{id}.scope/container",
        "pod UID Guaranteed cri-o ID",
    ),
    ("CRI-O, cgroupfs driver", "/kubepods/besteffort/pod{uid}/crio-{id}", "pod UID BestEffort cri-o ID"),
    (
        "CRI-O's helper, which is in the pod and in no container",
        "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/crio-conmon-{id}.scope",
        "pod UID Burstable",
    ),
    (
        "docker through cri-dockerd, systemd driver",
        "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{uid_}.slice/docker-{id}.scope",
        "pod UID BestEffort docker ID",
    ),
    (
        "docker through cri-dockerd, cgroupfs driver",
        "/kubepods/besteffort/pod{uid}/{id}",
        "pod UID BestEffort unknown ID",
    ),
    (
        "containerd that was not told of systemd, under a kubelet that was",
        "/system.slice/containerd.service/kubepods-burstable-pod{uid_}.slice:cri-containerd:{id}",
        "pod UID Burstable containerd ID",
    ),
    (
        "the same, from the root",
        "/kubepods-pod{uid_}.slice:cri-containerd:{id}",
        "pod UID Guaranteed containerd ID",
    ),
    (
        "kind on docker with v1: below the container that plays the node",
        "/docker/{other}/kubelet/kubepods/besteffort/pod{uid}/{id}",
        "pod UID BestEffort unknown ID",
    ),
    (
        "kind on docker with v2 and systemd on the host",
        "/system.slice/docker-{other}.scope/kubelet.slice/kubelet-kubepods.slice/\
         kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID Burstable containerd ID",
    ),
    (
        "kind, from within the node",
        "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID Guaranteed containerd ID",
    ),
    (
        "kind on podman",
        "/machine.slice/libpod-{other}.scope/container/kubelet.slice/kubelet-kubepods.slice/\
         kubelet-kubepods-besteffort.slice/kubelet-kubepods-besteffort-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID BestEffort containerd ID",
    ),
    (
        "from another cgroup namespace",
        "/../../kubepods-burstable.slice/kubepods-burstable-pod{uid_}.slice/cri-containerd-{id}.scope",
        "pod UID Burstable containerd ID",
    ),
    (
        "from another cgroup namespace, cgroupfs driver",
        "/../../../../kubepods/besteffort/pod{uid}/{id}",
        "pod UID BestEffort unknown ID",
    ),
    (
        "a kubelet with a cgroup root of its own",
        "/node.slice/node-kubepods.slice/node-kubepods-burstable.slice/node-kubepods-burstable-pod{uid_}.slice/crio-{id}.scope",
        "pod UID Burstable cri-o ID",
    ),
    (
        "the same, cgroupfs driver",
        "/system/node/kubepods/burstable/pod{uid}/{id}",
        "pod UID Burstable unknown ID",
    ),
    (
        "docker in a pod: what it starts is the pod's container's",
        "/kubepods/burstable/pod{uid}/{id}/docker/{other}",
        "pod UID Burstable unknown ID",
    ),
    (
        "systemd in a container of a pod",
        "/kubepods.slice/kubepods-pod{uid_}.slice/cri-containerd-{id}.scope/system.slice/cron.service",
        "pod UID Guaranteed containerd ID",
    ),
    (
        "Kata Containers: the sandbox around a pod",
        "/kubepods/burstable/pod{uid}/kata_{id}",
        "pod UID Burstable unknown ID",
    ),
    (
        "a dash that systemd escaped",
        r"/kubepods.slice/kubepods-pod0a1b2c3d\x2d1111\x2d2222\x2d3333\x2d444455556666.slice/cri-containerd-{id}.scope",
        "pod UID Guaranteed containerd ID",
    ),
    (
        "upper case",
        "/kubepods/burstable/pod0A1B2C3D-1111-2222-3333-444455556666/{id}",
        "pod UID Burstable unknown ID",
    ),
];

const OTHERS: &[(&str, &str, &str)] = &[
    ("docker, cgroupfs driver", "/docker/{id}", "container docker ID"),
    ("docker, systemd driver", "/system.slice/docker-{id}.scope", "container docker ID"),
    ("docker with a systemd in it", "/docker/{id}/system.slice/sshd.service", "container docker ID"),
    ("docker in docker", "/docker/{id}/docker/{other}", "container docker ID"),
    (
        "rootless docker",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/docker-{id}.scope",
        "container docker ID",
    ),
    ("runc told of systemd by a manager that is not", "/system.slice:docker:{id}", "container docker ID"),
    ("podman", "/machine.slice/libpod-{id}.scope/container", "container podman ID"),
    (
        "rootless podman",
        "/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{id}.scope/container",
        "container podman ID",
    ),
    (
        "a pod of podman",
        "/machine.slice/machine-libpod_pod_{other}.slice/libpod-{id}.scope",
        "container podman ID",
    ),
    ("podman, cgroupfs driver", "/libpod_parent/libpod-{id}", "container podman ID"),
    ("podman's helper", "/machine.slice/libpod-conmon-{id}.scope", "scope libpod-conmon-ID.scope"),
    ("nerdctl", "/system.slice/nerdctl-{id}.scope", "container nerdctl ID"),
    ("containerd's own namespaces", "/default/{id}", "container unknown ID"),
    ("Amazon ECS", "/ecs/task-1/{id}", "container unknown ID"),
    ("CRI-O outside of pods", "/system.slice/crio-{id}.scope", "container cri-o ID"),
    ("a service", "/system.slice/cron.service", "service cron.service"),
    ("an instance", "/system.slice/system-getty.slice/getty@tty1.service", "service getty@tty1.service"),
    (
        "a part of a delegated service",
        "/system.slice/containerd.service/payload",
        "service containerd.service",
    ),
    (
        "a service with systemd's escapes",
        r"/system.slice/system-systemd\x2dcryptsetup.slice/systemd-cryptsetup@sda\x2d1.service",
        r"service systemd-cryptsetup@sda\x2d1.service",
    ),
    (
        "a name that the kernel would take for a file of its own",
        "/system.slice/_cpu.service",
        "service cpu.service",
    ),
    (
        "a service that is called like a container",
        "/system.slice/docker-registry.service",
        "service docker-registry.service",
    ),
    ("docker itself", "/system.slice/docker.service", "service docker.service"),
    ("the kubelet", "/system.slice/kubelet.service", "service kubelet.service"),
    ("init", "/init.scope", "scope init.scope"),
    ("a session", "/user.slice/user-1000.slice/session-3.scope", "scope session-3.scope of user 1000"),
    (
        "a user's systemd",
        "/user.slice/user-1000.slice/user@1000.service/init.scope",
        "scope init.scope of user 1000",
    ),
    (
        "a program of a desktop",
        r"/user.slice/user-1000.slice/user@1000.service/app.slice/app-gnome-org.gnome.Terminal-99.scope",
        "scope app-gnome-org.gnome.terminal-99.scope of user 1000",
    ),
    (
        "a virtual machine",
        r"/machine.slice/machine-qemu\x2d1\x2dvm.scope/libvirt/vcpu0",
        r"scope machine-qemu\x2d1\x2dvm.scope",
    ),
    ("a slice", "/system.slice", "slice system.slice"),
    (
        "the kubelet's slice of all pods",
        "/kubepods.slice/kubepods-burstable.slice",
        "slice kubepods-burstable.slice",
    ),
    ("the kubelet's directory of all pods", "/kubepods/burstable", "other /kubepods/burstable"),
    ("a mount", r"/system.slice/var-lib-x\x2dy.mount", r"other var-lib-x\x2dy.mount"),
    ("the root", "/", "root"),
    ("the root of another namespace", "/../..", "root"),
    ("LXC", "/lxc.payload.web/init.scope", "other /lxc.payload.web/init.scope"),
    ("by hand", "/batch/jobs", "other /batch/jobs"),
    ("a directory that begins like a pod", "/podman/x", "other /podman/x"),
    (
        "a directory like a pod's, but not of the kubelet's",
        "/burstable/pod{uid}",
        "other /burstable/pod0a1b2c3d-1111-2222-3333-444455556666",
    ),
];

#[test]
fn each_runtime_and_driver_is_understood() {
    for (who, path, expected) in PODS.iter().chain(OTHERS) {
        assert_eq!(told(path), *expected, "{who}: {path}");
    }
}

/// Whatever stands above, and below a container, changes nothing.
#[test]
fn nesting_changes_nothing() {
    for (who, path, expected) in PODS {
        let inner = format!("/outer.slice/inner{path}");
        assert_eq!(told(&inner), *expected, "{who}: {inner}");
        if path.contains("{id}") && !path.contains("conmon") {
            let deeper = format!("{path}/init.scope/x");
            assert_eq!(told(&deeper), *expected, "{who}: {deeper}");
        }
    }
}

#[test]
fn uids_have_one_spelling() {
    let uid = PodUid::new(UID).unwrap();
    for spelling in [UID_, &UID.to_uppercase()] {
        assert_eq!(PodUid::new(spelling).as_ref(), Some(&uid));
    }
    assert_eq!(PodUid::new(HASH).unwrap().as_str(), HASH, "a hash gets no dashes");
    for wrong in ["", "-", "a-", "a/b", "a b", "ä", &"a".repeat(65)] {
        assert_eq!(PodUid::new(wrong), None, "{wrong}");
    }
}

#[test]
fn container_ids_lose_the_runtime_in_front() {
    for text in [ID.to_string(), format!("containerd://{ID}"), format!("cri-o://{ID}")] {
        assert_eq!(ContainerId::new(text).unwrap().as_str(), ID);
    }
    assert_eq!(ContainerId::new(ID).unwrap().short(), &ID[..12]);
    assert_eq!(ContainerId::new("containerd://"), None);
    assert_eq!(ContainerId::new("a/b"), None);
}

/// As `systemd-escape` writes it.
fn escape(plain: &str) -> String {
    plain
        .bytes()
        .enumerate()
        .map(|(at, byte)| match byte {
            b'/' => "-".into(),
            b'.' if at == 0 => "\\x2e".into(),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b':' | b'_' | b'.' => char::from(byte).to_string(),
            _ => format!("\\x{byte:02x}"),
        })
        .collect()
}

proptest! {
    #[test]
    fn any_bytes_give_an_answer(path: Vec<u8>) {
        Workload::of_cgroup(path).to_string();
    }

    /// Bytes that come near the grammar, which random ones do not.
    #[test]
    fn parts_of_real_paths_in_any_order_give_an_answer(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "/", "kubepods", ".slice", "-", "pod", "burstable", "besteffort", UID, UID_, ID, HASH, "..", ":",
                "cri-containerd", "crio-conmon-", "docker", ".scope", ".service", "user@1000", "\\x2d", "\\x", "_", "\u{e4}",
            ]),
            0..24,
        ),
    ) {
        let path = parts.concat();
        let workload = Workload::of_cgroup(&path);
        prop_assert_eq!(workload.pod().is_some(), matches!(workload, Workload::Pod { .. }));
        // What is told of a pod stood in the path.
        if let Some((uid, _)) = workload.pod() {
            prop_assert!(path.contains("pod") && path.contains("kubepods"));
            prop_assert!(uid.as_str().chars().all(|c| !c.is_uppercase() && c != '_'));
        }
    }

    #[test]
    fn both_drivers_tell_the_same_pod(uid in "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", class in 0..3usize) {
        let (slice, directory) = [("", ""), ("burstable-", "burstable/"), ("besteffort-", "besteffort/")][class];
        let by_systemd = format!("/kubepods.slice/kubepods-{slice}pod{}.slice", uid.replace('-', "_"));
        let by_cgroupfs = format!("/kubepods/{directory}pod{uid}");
        let pod = Workload::of_cgroup(by_systemd);
        prop_assert_eq!(pod.pod().unwrap().0.as_str(), uid.as_str());
        prop_assert_eq!(pod, Workload::of_cgroup(by_cgroupfs));
    }

    #[test]
    fn what_systemd_escapes_is_unescaped(name in "[^/\0\\x7f-\\x{10ffff}]{1,40}") {
        let escaped = escape(&name);
        prop_assert_eq!(unescape_unit(&escaped), name.as_str());
    }

    #[test]
    fn a_service_of_any_name_is_told_by_it(name in "[a-zA-Z][a-zA-Z0-9 @:.-]{0,40}") {
        let unit = format!("{}.service", escape(&name));
        let workload = Workload::of_cgroup(format!("/system.slice/{unit}"));
        match workload {
            Workload::Unit(found) => prop_assert_eq!(&*found.name, unit.as_str()),
            other => prop_assert!(false, "{:?}", other),
        }
    }
}
