//! Real processes in hand-made cgroups of every runtime and driver. Tier B: root; any kernel with cgroup v2.
#![allow(missing_docs)]

mod support;

use std::fs;

use gthulhu_discovery::{Discovery, Event, Options, Qos, Runtime, Source, UnitKind, Workload};
use support::{Sandbox, until};

const ID: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";
/// Not a test: what others start. The thread of the test is the second one. Ends by itself if nobody ends it.
#[test]
#[ignore = "started by other tests"]
fn process_of_two_threads() {
    std::thread::sleep(std::time::Duration::from_secs(120));
}

/// Each runtime and driver, each with a pod of its own: where the process is put, and what is to be told.
fn spellings(sandbox: &Sandbox) -> Vec<(String, String, Qos, Runtime)> {
    use {Qos::*, Runtime::*};
    let uids: Vec<String> = (0..7).map(|number| sandbox.uid(number)).chain([sandbox.hash()]).collect();
    let slices = |class: &str, uid: &str| {
        let dash = if class.is_empty() { "" } else { "-" };
        let between = if class.is_empty() { String::new() } else { format!("/kubepods-{class}.slice") };
        format!("/kubepods.slice{between}/kubepods{dash}{class}-pod{}.slice", uid.replace('-', "_"))
    };
    let [a, b, c, d, e, f, g, h] = &uids[..] else { unreachable!() };
    let kind = format!(
        "/docker/{ID}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{}.slice",
        g.replace('-', "_")
    );
    let paths = [
        (format!("{}/cri-containerd-{ID}.scope", slices("burstable", a)), Burstable, Containerd),
        (format!("/kubepods/besteffort/pod{b}/{ID}"), BestEffort, Unknown),
        (format!("{}/crio-{ID}.scope/container", slices("", c)), Guaranteed, CriO),
        (format!("/kubepods/burstable/pod{d}/crio-{ID}"), Burstable, CriO),
        (format!("{}/docker-{ID}.scope", slices("besteffort", e)), BestEffort, Docker),
        (format!("/kubepods/pod{f}/{ID}"), Guaranteed, Unknown),
        (format!("{kind}/cri-containerd-{ID}.scope"), Guaranteed, Containerd),
        // A pod from a file.
        (format!("{}/cri-containerd-{ID}.scope", slices("burstable", h)), Burstable, Containerd),
    ];
    std::iter::zip(paths, uids.clone()).map(|((path, qos, runtime), uid)| (path, uid, qos, runtime)).collect()
}

#[test]
fn processes_of_each_runtime_and_driver_are_attributed() {
    let Some(mut sandbox) = support::unified() else { return };
    let placed: Vec<_> = spellings(&sandbox)
        .into_iter()
        .map(|(path, uid, qos, runtime)| (sandbox.sleep(&path), path, uid, qos, runtime))
        .collect();
    for source in [Source::Tree, Source::Proc] {
        let mut discovery = sandbox.discovery(source);
        let events = discovery.rescan().unwrap();
        let index = discovery.index();
        for (pid, path, uid, qos, runtime) in &placed {
            let process =
                index.process(*pid as i32).unwrap_or_else(|| panic!("{source:?}: no process in {path}"));
            let (found, class) =
                process.workload.pod().unwrap_or_else(|| panic!("{source:?}: no pod in {path}"));
            assert_eq!((found.as_str(), class), (uid.as_str(), *qos), "{source:?}: {path}");
            let container = process.workload.container().unwrap();
            assert_eq!((container.id.as_str(), container.runtime), (ID, *runtime), "{source:?}: {path}");
            // From the pod to its processes, and from an event's cgroup id to the pod.
            let pod = index.pod(uid).unwrap();
            assert_eq!(index.processes_of(pod).map(|process| process.id).collect::<Vec<_>>(), [process.id]);
            assert_eq!(index.containers_of(pod).len(), 1);
            let cgroup = index.cgroup(process.cgroup.unwrap()).unwrap();
            assert_eq!(*cgroup.path, *sandbox.path(path));
            assert_eq!(cgroup.workload, process.workload);
            assert!(events.contains(&Event::PodAdded(found.clone())));
            assert!(events.contains(&Event::ProcessAdded(process.id)));
        }
    }
}

#[test]
fn services_and_plain_cgroups_are_told_too() {
    let Some(mut sandbox) = support::unified() else { return };
    let paths = ["/system.slice/web.service", "/user.slice/user-1000.slice/session-3.scope", "/batch"];
    let pids = paths.map(|path| sandbox.sleep(path) as i32);
    let mut discovery = sandbox.discovery(Source::Tree);
    discovery.rescan().unwrap();
    let told = pids.map(|pid| Workload::clone(&discovery.index().process(pid).unwrap().workload));
    // Below a cgroup that is none of systemd's nothing is systemd's: that the test's own cgroup is on top is
    // seen here, and what the paths mean by themselves is tested with the parser.
    assert!(told.iter().zip(paths).all(|(told, path)| *told == Workload::Other(sandbox.path(path).into())));
    let init = discovery.index().process(1).unwrap();
    assert!(!init.kernel && init.command.comm.is_some());
    let kernel = discovery.index().process(2).filter(|process| process.kernel);
    if let Some(kthreadd) = kernel {
        assert_eq!((&*kthreadd.workload, &kthreadd.command.exe), (&Workload::Root, &None));
    }
}

/// v1: each controller has paths of its own, and the pod may be in one hierarchy only.
#[test]
fn pods_that_live_in_v1_alone_are_found() {
    for controller in ["cpu", "name=systemd", "pids"] {
        let Some(mut sandbox) = support::v1(controller) else { continue };
        let (uid, other) = (sandbox.uid(0), sandbox.uid(1));
        let pid = sandbox.sleep(&format!("/kubepods/burstable/pod{uid}/{ID}"));
        let mut discovery = sandbox.discovery(Source::Auto);
        assert_eq!(discovery.source(), Source::Proc, "with v1 about, the tree of v2 is not believed alone");
        discovery.rescan().unwrap();
        let process = discovery.index().process(pid as i32).unwrap();
        assert_eq!(process.workload.pod().unwrap().0.as_str(), uid, "{controller}");
        assert_eq!(discovery.index().pods().filter(|pod| pod.uid.as_str() == uid).count(), 1);
        // Moved to another pod, it is seen there at the next look.
        sandbox.make(&format!("/kubepods/pod{other}/{ID}"));
        sandbox.put(pid, &format!("/kubepods/pod{other}/{ID}"));
        let events = discovery.rescan().unwrap();
        let moved = |event: &Event| match event {
            Event::ProcessMoved { process, from, to } if process.pid == pid as i32 => {
                from.pod().unwrap().0.as_str() == uid && to.pod().unwrap().0.as_str() == other
            }
            _ => false,
        };
        assert!(events.iter().any(moved), "{events:?}");
        assert!(discovery.index().pod(&uid).is_none(), "nothing is left of the first pod");
    }
}

/// What the tests above cannot show, for their cgroups have one above: systemd's names from the root.
#[test]
fn slices_of_this_machine_are_slices() {
    let Some(sandbox) = support::unified() else { return };
    let mut discovery = sandbox.discovery(Source::Tree);
    discovery.rescan().unwrap();
    for cgroup in discovery.index().cgroups() {
        match &*cgroup.workload {
            Workload::Root => assert_eq!(&*cgroup.path, "/"),
            Workload::Unit(unit) if unit.kind == UnitKind::Slice => {
                assert!(cgroup.path.ends_with(&*unit.name))
            }
            _ => {}
        }
    }
    assert!(discovery.index().cgroup_at(&sandbox.path("")).is_some());
}

/// A file handle of a cgroup holds the number that BPF programs get from bpf_get_current_cgroup_id().
#[test]
fn the_id_of_a_cgroup_is_that_which_bpf_programs_see() {
    #[repr(C)]
    struct Handle {
        bytes: u32,
        kind: i32,
        id: [u8; 128],
    }
    let Some(sandbox) = support::unified() else { return };
    sandbox.make("/a");
    let mut discovery = sandbox.discovery(Source::Tree);
    discovery.rescan().unwrap();
    let cgroup = discovery.index().cgroup_at(&sandbox.path("/a")).unwrap();
    let directory = discovery.tree().unwrap().directory(cgroup);
    let path = std::ffi::CString::new(directory.to_str().unwrap()).unwrap();
    let mut handle = Handle { bytes: 128, kind: 0, id: [0; 128] };
    let mut mount = 0;
    // SAFETY: the handle has room for 128 bytes, as it says.
    let done = unsafe {
        let handle = std::ptr::from_mut(&mut handle).cast::<libc::file_handle>();
        libc::name_to_handle_at(libc::AT_FDCWD, path.as_ptr(), handle, &mut mount, 0)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
    assert_eq!(handle.bytes, 8);
    assert_eq!(cgroup.id.0, u64::from_ne_bytes(handle.id[..8].try_into().unwrap()));
}

/// Without looking at everything: by what inotify tells.
#[test]
fn new_cgroups_and_what_moves_into_them_are_told_at_once() {
    let Some(mut sandbox) = support::unified() else { return };
    for (which, source) in [Source::Tree, Source::Proc].into_iter().enumerate() {
        let mut discovery = sandbox.discovery(source);
        discovery.rescan().unwrap();
        assert!(discovery.watch_fd().is_some(), "{:?}", discovery.not_watching());
        let (path, uid, ..) = spellings(&sandbox).swap_remove(which);
        let pid = sandbox.sleep(&path) as i32;
        let mut events = Vec::new();
        until("the process is known, with its pod", || {
            events.extend(discovery.poll().unwrap());
            discovery.index().process(pid).is_some_and(|process| process.workload.pod().is_some())
        });
        assert!(events.iter().any(|event| matches!(event, Event::PodAdded(pod) if pod.as_str() == uid)));
        let cgroup = std::sync::Arc::clone(discovery.index().cgroup_at(&sandbox.path(&path)).unwrap());
        assert!(events.contains(&Event::CgroupAdded(std::sync::Arc::clone(&cgroup))));

        // A second process, into a cgroup that is known already.
        let second = sandbox.sleep(&path) as i32;
        until("the second is known", || {
            discovery.poll().unwrap();
            discovery.index().process(second).is_some_and(|process| process.cgroup == Some(cgroup.id))
        });

        sandbox.end(pid as u32);
        sandbox.end(second as u32);
        until("the cgroup can be removed", || fs::remove_dir(sandbox.directory(&path)).is_ok());
        let mut events = Vec::new();
        until("the cgroup is gone", || {
            events.extend(discovery.poll().unwrap());
            discovery.index().cgroup(cgroup.id).is_none()
        });
        assert!(events.contains(&Event::CgroupRemoved(cgroup)));
        events.extend(discovery.rescan().unwrap());
        let ended =
            |event: &Event| matches!(event, Event::ProcessRemoved { process, .. } if process.pid == pid);
        assert!(events.iter().any(ended));
        assert_eq!(discovery.index().thread_of(pid).map(|(process, _)| process.id), None);
        // The pod's own cgroup is still there, and so is the pod.
        assert!(
            discovery.index().pod(&uid).is_some_and(|pod| discovery.index().processes_of(pod).count() == 0)
        );
    }
}

/// Removed and made again by the same name, a cgroup is another one.
#[test]
fn a_cgroup_of_the_same_name_is_not_the_same() {
    let Some(sandbox) = support::unified() else { return };
    sandbox.make("/a.service");
    let mut options = Options::default();
    (options.source, options.watch) = (Source::Tree, false);
    let mut discovery = Discovery::new(options).unwrap();
    discovery.rescan().unwrap();
    assert!(discovery.watch_fd().is_none() && discovery.not_watching().is_none());
    let old = std::sync::Arc::clone(discovery.index().cgroup_at(&sandbox.path("/a.service")).unwrap());
    fs::remove_dir(sandbox.directory("/a.service")).unwrap();
    sandbox.make("/a.service");
    assert!(discovery.poll().unwrap().is_empty(), "nothing is told without a watch");
    let events = discovery.rescan().unwrap();
    let new = std::sync::Arc::clone(discovery.index().cgroup_at(&sandbox.path("/a.service")).unwrap());
    assert_ne!(old.id, new.id);
    assert!(discovery.index().cgroup(old.id).is_none());
    assert!(events.contains(&Event::CgroupRemoved(old)) && events.contains(&Event::CgroupAdded(new)));
}

/// v2 lets threads of one process be in several cgroups, below one that all of them are in.
#[test]
fn a_thread_that_was_moved_by_itself_is_found_there() {
    let Some(mut sandbox) = support::unified() else { return };
    let pid = sandbox.workers("/vm.service");
    sandbox.make("/vm.service/io");
    if let Err(error) = fs::write(sandbox.directory("/vm.service/io").join("cgroup.type"), "threaded") {
        println!("skip: no threaded cgroups here ({error})");
        return;
    }
    let mut discovery = sandbox.discovery(Source::Tree);
    discovery.rescan().unwrap();
    let whole = discovery.index().process(pid as i32).unwrap();
    let (process, home) = (whole.id, whole.cgroup.unwrap());
    let worker = whole.threads().last().unwrap().id;
    assert_ne!(worker, process);
    fs::write(sandbox.directory("/vm.service/io").join("cgroup.threads"), worker.pid.to_string()).unwrap();
    let mut events = Vec::new();
    until("the thread is known there, by what inotify tells", || {
        events.extend(discovery.poll().unwrap());
        discovery.index().thread(worker).is_some_and(|(_, thread)| thread.cgroup != Some(home))
    });
    let index = discovery.index();
    let there = index.cgroup_at(&sandbox.path("/vm.service/io")).unwrap().id;
    assert_eq!(index.thread(worker).unwrap().1.cgroup, Some(there));
    assert_eq!(index.subject(worker.pid).unwrap().cgroup, Some(there));
    assert_eq!(index.process(pid as i32).unwrap().cgroup, Some(home), "its process stays");
    assert!(events.contains(&Event::ThreadMoved { thread: worker, from: Some(home), to: Some(there) }));
    let events = discovery.rescan().unwrap();
    assert!(
        !events.iter().any(|event| matches!(event, Event::ThreadMoved { thread, .. } if *thread == worker))
    );
}

/// Truncated, it would tell the rest as gone.
#[test]
fn more_than_the_limit_is_an_error() {
    let Some(sandbox) = support::unified() else { return };
    (0..4).for_each(|number| sandbox.make(&format!("/{number}")));
    for (cgroups, threads, message) in
        [(3, 100_000, "raise Limits::cgroups"), (100_000, 3, "raise Limits::threads")]
    {
        let mut options = Options::default();
        (options.limits.cgroups, options.limits.threads) = (cgroups, threads);
        let mut discovery = Discovery::new(options).unwrap();
        let error = discovery.rescan().unwrap_err();
        assert!(error.to_string().ends_with(message), "{error}");
    }
}
