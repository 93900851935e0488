//! Machines are described once and read through every source.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// The machines on which topology and selection are tested, and what hwloc calls them if it can.
pub(crate) fn machines() -> Vec<(&'static str, Topology, Option<&'static str>)> {
    let build = |machine: Synthetic| machine.build().unwrap();
    let new = Topology::synthetic;
    vec![
        ("one CPU", Topology::flat(1), Some("pack:1 l3:1 l2:1 core:1 pu:1")),
        ("flat", Topology::flat(6), Some("pack:1 l3:1 l2:6 core:1 pu:1")),
        ("SMT", build(new().cores(4).threads(2)), Some("pack:1 l3:1 l2:4 core:1 pu:2")),
        ("SMT, threads apart", build(new().cores(4).threads(2).threads_apart()), None),
        ("SMT4", build(new().l3s(3).cores(3).threads(4)), Some("pack:1 l3:3 l2:3 core:1 pu:4")),
        (
            "two L3s",
            build(new().l3s(2).cores(4).cores_per_l2(2).threads(2)),
            Some("pack:1 l3:2 l2:2 core:2 pu:2"),
        ),
        (
            "two nodes",
            build(new().packages(2).l3s(2).cores(4).cores_per_l2(2)),
            Some("pack:2 l3:2 l2:2 core:2 pu:1"),
        ),
        ("hybrid", build(new().cores(6).threads(2).small_clusters(2).small_cores(4)), None),
        ("holes", holes(), None),
        ("1,024 CPUs", build(new().packages(2).nodes(2).l3s(8).cores(16).threads(2).threads_apart()), None),
        (
            "1,024 CPUs without SMT",
            build(new().packages(4).l3s(16).cores(16).cores_per_l2(4)),
            Some("pack:4 l3:16 l2:4 core:4 pu:1"),
        ),
    ]
}

/// Numbers with holes, one core of three threads, CPUs whose place is not known.
fn holes() -> Topology {
    let cpus = [(1, 0), (2, 1), (5, 0), (63, 1), (64, 2), (70, 3), (130, 0), (299, 4)];
    let infos = cpus.map(|(cpu, core)| CpuInfo {
        cpu: Cpu(cpu),
        core,
        l2: core.saturating_sub(1),
        l3: core / 3,
        node: core / 4,
        package: 0,
        capacity: if core > 2 { 700 } else { 1024 },
    });
    let known: CpuSet = cpus.into_iter().map(|(cpu, _)| Cpu(cpu)).collect();
    let possible = known | set("3,100-101,303");
    Topology::assemble([possible, possible - set("303"), known], &infos, Source::MadeUp)
}

pub(crate) fn set(list: &str) -> CpuSet {
    list.parse().unwrap()
}

/// A directory that goes with the value.
struct Dir(PathBuf);

impl Dir {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("qumun-topology-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // Ten thousand small files: a disk takes a minute for what memory does in a second.
        let memory = Some(PathBuf::from("/dev/shm")).filter(|dir| dir.is_dir());
        let dir = memory.unwrap_or_else(std::env::temp_dir).join(name);
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    /// One `PATH CONTENT` in each line; paths under `devices/system`.
    fn files(lines: &str) -> Self {
        let dir = Self::new();
        for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
            let (path, content) = line.split_once(' ').unwrap_or((line, ""));
            dir.write(path, format!("{content}\n"));
        }
        dir
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join("devices/system").join(path)
    }

    fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self) -> Result<Topology> {
        Topology::from_sysfs_at(&self.0)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The files that the kernel would show of this machine.
fn fake_sysfs(machine: &Topology) -> Dir {
    let dir = Dir::new();
    for (name, cpus) in
        [("possible", machine.possible()), ("present", machine.present()), ("online", machine.online())]
    {
        dir.write(&format!("cpu/{name}"), format!("{cpus}\n"));
    }
    let infos: Vec<CpuInfo> = machine.known().iter().filter_map(|cpu| machine.cpu(cpu)).collect();
    let sharing = |same: &dyn Fn(&CpuInfo) -> bool| -> String {
        format!("{}\n", infos.iter().filter(|info| same(info)).map(|info| info.cpu).collect::<CpuSet>())
    };
    for me in &infos {
        let file = |name: &str, content: &str| dir.write(&format!("cpu/cpu{}/{name}", me.cpu), content);
        file("topology/core_cpus_list", &sharing(&|other| other.core == me.core));
        file("topology/package_cpus_list", &sharing(&|other| other.package == me.package));
        file("cpu_capacity", &format!("{}\n", me.capacity));
        let caches = [
            ("index0", "1", "Data", sharing(&|other| other.core == me.core)),
            ("index1", "1", "Instruction", sharing(&|other| other.core == me.core)),
            ("index2", "2", "Unified", sharing(&|other| other.l2 == me.l2)),
            ("index3", "3", "Unified", sharing(&|other| other.l3 == me.l3)),
        ];
        for (index, level, kind, cpus) in caches {
            file(&format!("cache/{index}/level"), level);
            file(&format!("cache/{index}/type"), kind);
            file(&format!("cache/{index}/shared_cpu_list"), &cpus);
        }
        let cpulist = format!("node/node{}/cpulist", me.node);
        if !dir.path(&cpulist).exists() {
            dir.write(&cpulist, sharing(&|other| other.node == me.node));
        }
    }
    dir
}

/// The same machine, wherever it was read.
fn anywhere(machine: &Topology) -> Topology {
    Topology { source: Source::MadeUp, ..machine.clone() }
}

#[test]
fn every_machine_is_read_back_from_the_files_that_describe_it() {
    for (name, machine, _) in machines() {
        let dir = fake_sysfs(&machine);
        let read = dir.read().unwrap();
        assert_eq!(anywhere(&read), machine, "{name}");
        assert_eq!(read.reread().unwrap(), read, "{name}");
    }
}

#[cfg(feature = "hwloc")]
#[test]
fn every_machine_that_hwloc_can_describe_is_read_back_from_it() {
    for (name, machine, description) in machines() {
        let Some(description) = description else { continue };
        let read = Topology::from_hwloc_synthetic(description).unwrap();
        // Synthetic machines of hwloc have one node, unless told where; sysfs' files tell of it elsewhere.
        let levels = [Level::Core, Level::L2, Level::L3, Level::Package];
        for level in levels {
            assert_eq!(read.domains(level), machine.domains(level), "{name}: {level:?}");
        }
        assert_eq!((read.possible(), read.online()), (machine.possible(), machine.online()), "{name}");
    }
    let numa = Topology::from_hwloc_synthetic("pack:2 [numa] l3:2 l2:2 core:2 pu:1").unwrap();
    let (_, two_nodes, _) = machines().into_iter().find(|(name, ..)| *name == "two nodes").unwrap();
    assert_eq!(numa, two_nodes);
    for wrong in ["", "nonsense", "pack:2 core:", "pack:2000 pu:1", "core:1 pu:4\0"] {
        assert!(Topology::from_hwloc_synthetic(wrong).is_err(), "{wrong}");
    }
}

/// What a machine says of itself differs from kernel to kernel; that both sources agree does not.
#[cfg(feature = "hwloc")]
#[test]
fn hwloc_and_sysfs_agree_on_this_machine() {
    let (hwloc, sysfs) = (Topology::from_hwloc().unwrap(), Topology::from_sysfs().unwrap());
    assert_eq!(hwloc.online(), sysfs.online());
    for level in [Level::Core, Level::Node, Level::Package] {
        assert_eq!(hwloc.domains(level), sysfs.domains(level), "{level:?}");
    }
    assert!(hwloc.reread().is_ok());
}

#[test]
fn this_machine_can_be_read() {
    let machine = Topology::from_sysfs().unwrap();
    assert!(!machine.online().is_empty() && machine.online().is_subset(machine.known()), "{machine}");
    assert!(!machine.is_stale());
}

#[test]
fn what_is_missing_is_made_up_for() {
    // As in some virtual machines and on old kernels: no caches, no nodes, no `present`.
    let bare = Dir::files(
        "cpu/possible 0-5
         cpu/online 0-3
         cpu/cpu0/topology/thread_siblings_list 0-1
         cpu/cpu0/topology/core_siblings_list 0-3
         cpu/cpu1/topology/thread_siblings_list 0-1
         cpu/cpu2/cpufreq/cpuinfo_max_freq 2000000
         cpu/cpu3/cpufreq/cpuinfo_max_freq 3000000",
    )
    .read()
    .unwrap();
    assert_eq!(bare.present(), &set("0-5"));
    assert_eq!(bare.known(), &set("0-3"));
    assert_eq!(bare.domains(Level::Core), [set("0-1"), set("2"), set("3")]);
    assert_eq!(bare.domains(Level::L2), bare.domains(Level::Core));
    for level in [Level::L3, Level::Node, Level::Package] {
        assert_eq!(bare.domains(level), [set("0-3")], "{level:?}");
    }
    assert_eq!([0, 2, 3, 4].map(|cpu| bare.capacity(Cpu(cpu))), [Some(1024), Some(682), Some(1024), None]);
    assert_eq!(bare.cpu(Cpu(4)), None);
    assert_eq!(bare.distance(Cpu(0), Cpu(4)), Distance::Far);
    assert!(bare.smt());

    let only_possible = Dir::files("cpu/possible 2,4").read().unwrap();
    assert_eq!(only_possible.online(), &set("2,4"));
    assert_eq!(only_possible.domains(Level::L3), [set("2,4")]);
}

#[test]
fn a_cpu_without_a_level_3_cache_is_alone_with_its_level_2_cache() {
    // As the low-power cores of some laptops.
    let machine = Dir::files(
        "cpu/possible 0-3
         cpu/cpu0/cache/index3/level 3
         cpu/cpu0/cache/index3/type Unified
         cpu/cpu0/cache/index3/shared_cpu_list 0-1
         cpu/cpu2/cache/index2/level 2
         cpu/cpu2/cache/index2/type Unified
         cpu/cpu2/cache/index2/shared_cpu_list 2-3
         cpu/cpu2/cache/index7/level 2
         cpu/cpu2/cache/index7/type Instruction
         cpu/cpu2/cache/index7/shared_cpu_list 0-3
         cpu/cpu2/cache/index8/shared_cpu_list 0-3
         node/node3/cpulist 0-3
         node/node7/cpulist",
    )
    .read()
    .unwrap();
    assert_eq!(machine.domains(Level::L2), [set("0"), set("1"), set("2-3")]);
    assert_eq!(machine.domains(Level::L3), [set("0-1"), set("2-3")]);
    assert_eq!(machine.cpu(Cpu(2)).unwrap().node, 3);
    assert!(machine.to_string().contains("package 0, node 3, L3 1: [2 3]\n"), "{machine}");
}

#[test]
fn threads_of_a_core_share_what_an_emulator_gives_each_of_them() {
    let mut files = String::from("cpu/possible 0-1\n");
    for cpu in 0..2 {
        files += &format!("cpu/cpu{cpu}/topology/core_cpus_list 0-1\n");
        files += &format!("cpu/cpu{cpu}/cache/index2/level 2\n");
        files += &format!("cpu/cpu{cpu}/cache/index2/shared_cpu_list {cpu}\n");
    }
    let machine = Dir::files(&files).read().unwrap();
    assert_eq!(machine.domains(Level::L2), [set("0-1")]);
    assert_eq!(machine.domains(Level::L3), [set("0-1")]);
}

#[test]
fn lists_that_contradict_each_other_are_united() {
    let machine = Dir::files(
        "cpu/possible 0-3
         cpu/cpu0/topology/core_cpus_list 1
         cpu/cpu1/topology/core_cpus_list 2,900
         cpu/cpu2/topology/core_cpus_list 0
         cpu/cpu3/topology/core_cpus_list",
    )
    .read()
    .unwrap();
    assert_eq!(machine.domains(Level::Core), [set("0-2"), set("3")]);
}

#[test]
fn nonsense_is_refused_with_file_and_content() {
    let good = [
        ("cpu/possible", "0-1"),
        ("cpu/present", "0-1"),
        ("cpu/online", "0-1"),
        ("cpu/cpu0/topology/core_cpus_list", "0-1"),
        ("cpu/cpu0/topology/package_cpus_list", "0-1"),
        ("cpu/cpu0/cache/index2/level", "2"),
        ("cpu/cpu0/cache/index2/shared_cpu_list", "0-1"),
        ("cpu/cpu0/cpu_capacity", "1024"),
        ("cpu/cpu1/cpufreq/cpuinfo_max_freq", "3000000"),
        ("node/node0/cpulist", "0-1"),
    ];
    let tree = || {
        let dir = Dir::new();
        good.iter().for_each(|(path, content)| dir.write(path, content));
        dir
    };
    assert!(tree().read().is_ok());
    let endless = "9".repeat(100_000);
    for (path, _) in good {
        for garbage in ["x", "-5", "0-", "0x3", "\0\0", "4294967296000", &endless] {
            let dir = tree();
            dir.write(path, garbage);
            if let Err(error) = dir.read() {
                let shown = format!("{error:#}");
                assert!(shown.contains(path) && shown.len() < 500, "{path} {garbage}: {shown}");
            } else {
                panic!("{path}: {garbage} was taken");
            }
        }
        let dir = tree();
        dir.write(path, b"\xff\xfe0");
        assert!(dir.read().is_err(), "{path}: bytes");
        let dir = tree();
        fs::remove_file(dir.path(path)).unwrap();
        fs::create_dir(dir.path(path)).unwrap();
        assert!(dir.read().is_err(), "{path}: a directory");
        let dir = tree();
        fs::remove_file(dir.path(path)).unwrap();
        std::os::unix::fs::symlink(dir.path(path), dir.path(path)).unwrap();
        let error = dir.read().unwrap_err();
        assert!(format!("{error:#}").contains(path), "{path}: a link to itself: {error:#}");
    }
    for path in ["cpu/possible", "cpu/present", "cpu/online", "cpu/cpu0/cpu_capacity"] {
        let dir = tree();
        dir.write(path, "");
        assert!(dir.read().is_err(), "{path}: empty");
    }
    for (path, many) in [("cpu/possible", "0-1024"), ("cpu/cpu0/topology/core_cpus_list", "0,70000")] {
        let dir = tree();
        dir.write(path, many);
        let error = dir.read().unwrap_err().to_string();
        assert!(error.contains(path) && error.contains(many), "{error}");
    }
    let error = Topology::from_sysfs_at(Path::new("/nowhere")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("/nowhere/devices/system/cpu/possible"));
}

#[test]
fn capacities_out_of_bounds_are_brought_inside() {
    let machine = Dir::files(
        "cpu/possible 0-3
         cpu/cpu0/cpu_capacity 0
         cpu/cpu1/cpu_capacity 4000000000
         cpu/cpu2/cpufreq/cpuinfo_max_freq 0",
    )
    .read()
    .unwrap();
    let capacities = [0, 1, 2, 3].map(|cpu| machine.capacity(Cpu(cpu)).unwrap());
    assert_eq!(capacities, [1, 1024, 1024, 1024]);
}

#[test]
fn descriptions_that_are_no_machine_are_refused() {
    let of = |cpu| CpuInfo { cpu: Cpu(cpu), ..CpuInfo::default() };
    for cpus in [&[][..], &[of(3), of(3)], &[of(1024)], &[of(u32::MAX)]] {
        assert_eq!(Topology::from_cpus(cpus).unwrap_err().kind(), ErrorKind::InvalidInput);
    }
    let new = Topology::synthetic;
    for wrong in [
        new().cores(1025),
        new().packages(0),
        new().threads(0),
        new().packages(1 << 16).cores(1 << 16),
        new().cores(u32::MAX).threads(0).small_clusters(1),
        new().small_clusters(u32::MAX).small_cores(u32::MAX),
    ] {
        assert_eq!(wrong.build().unwrap_err().kind(), ErrorKind::InvalidInput, "{wrong:?}");
    }
    assert_eq!(new().cores(0).small_clusters(1).small_cores(2).build().unwrap().nr_cpus(), 2);
    assert_eq!((Topology::flat(0).nr_cpus(), Topology::flat(9999).nr_cpus()), (1, 1024));
}

#[test]
fn distances_are_those_of_the_machine() {
    let machine =
        Topology::synthetic().packages(2).l3s(2).cores(4).cores_per_l2(2).threads(2).build().unwrap();
    let from_0 = |cpu| machine.distance(Cpu(0), Cpu(cpu));
    assert_eq!(
        [0, 1, 2, 4, 8, 16, 1000].map(from_0),
        [
            Distance::Same,
            Distance::Core,
            Distance::L2,
            Distance::L3,
            Distance::Node,
            Distance::Far,
            Distance::Far
        ]
    );
    assert!(Distance::Same < Distance::Core && Distance::Node < Distance::Far);
    let closest = |allowed: &str| machine.closest(Cpu(0), &set(allowed)).map(|cpu| cpu.0);
    assert_eq!(
        ["0-31", "1-31", "2-31", "4-31", "9-31", "30", ""].map(closest),
        [Some(0), Some(1), Some(2), Some(4), Some(9), Some(30), None]
    );
    // A lower number that is farther away does not win.
    assert_eq!(machine.closest(Cpu(31), &set("0-29")).map(|cpu| cpu.0), Some(28));
    assert_eq!(machine.closest(Cpu(u32::MAX), &set("7,9")).map(|cpu| cpu.0), Some(7));
}

#[test]
fn the_strongest_is_taken_and_small_differences_do_not_count() {
    let of = |cpu, capacity| CpuInfo { cpu: Cpu(cpu), core: cpu, capacity, ..CpuInfo::default() };
    let machine =
        Topology::from_cpus(&[of(0, 400), of(1, 980), of(2, 1024), of(3, 900), of(4, 410)]).unwrap();
    let strongest = |cpus: &str| machine.strongest(&CpuSet::ALL, &set(cpus)).map(|cpu| cpu.0);
    assert_eq!(strongest("0-4"), Some(1));
    assert_eq!(strongest("2-4"), Some(2));
    assert_eq!(strongest("0,3-4"), Some(3));
    assert_eq!(strongest("0,4"), Some(0));
    assert_eq!(strongest("5-9"), None);
    // Hundreds of capacities: few tiers, and nobody is lost.
    let many: Vec<CpuInfo> = (0..1024).map(|cpu| of(cpu, cpu + 1)).collect();
    let machine = Topology::from_cpus(&many).unwrap();
    assert!(machine.tiers.len() <= 8);
    assert_eq!(machine.tiers.iter().map(CpuSet::len).sum::<u32>(), 1024);
    assert_eq!(machine.strongest(&CpuSet::ALL, &set("0")), Some(Cpu(0)));
}

#[test]
fn cpus_come_and_go() {
    let dir = Dir::files(
        "cpu/possible 0-3
         cpu/present 0-3
         cpu/online 0-1,3
         cpu/cpu0/topology/core_cpus_list 0
         cpu/cpu1/topology/core_cpus_list 1,3
         cpu/cpu3/topology/core_cpus_list 1,3",
    );
    let mut machine = dir.read().unwrap();
    assert_eq!((machine.known(), machine.is_stale()), (&set("0-1,3"), false));
    assert!(machine.to_string().ends_with("offline: 2\nnot known: 2\n"), "{machine}");

    // A thread that is offline does not keep its sibling's core from being idle.
    assert!(!machine.is_core_idle(Cpu(1), &set("0-1")));
    machine.set_online(Cpu(3), false);
    assert!(machine.is_core_idle(Cpu(1), &set("0-1")));
    assert_eq!(machine.idle_cores(&set("0-1,3")), set("0-1"));

    machine.set_online(Cpu(2), true);
    machine.set_online(Cpu(4), true);
    machine.set_online(Cpu(u32::MAX), true);
    assert_eq!(machine.online(), &set("0-2"));
    assert!(machine.is_stale());

    dir.write("cpu/online", "0-3");
    dir.write("cpu/cpu2/topology/core_cpus_list", "0,2");
    let machine = machine.reread().unwrap();
    assert!(!machine.is_stale());
    assert_eq!(machine.domain(Cpu(2), Level::Core), &set("0,2"));
}

#[test]
fn idle_cores_are_those_whose_threads_are_all_idle() {
    let mut state = 1_u64;
    for (name, machine, _) in machines() {
        for _ in 0..200 {
            let idle: CpuSet =
                machine.possible().iter().filter(|_| !random(&mut state).is_multiple_of(4)).collect();
            let whole = |&cpu: &Cpu| {
                let threads = machine.domain(cpu, Level::Core).iter();
                idle.contains(cpu)
                    && threads.filter(|&t| machine.online().contains(t)).all(|t| idle.contains(t))
            };
            let expected: CpuSet = machine.online().iter().filter(whole).collect();
            assert_eq!(machine.idle_cores(&idle), expected, "{name}");
        }
    }
}

/// xorshift64*: the same states in every run.
pub(crate) fn random(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
