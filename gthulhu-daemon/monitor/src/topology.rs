//! Where each CPU is, from sysfs, for the distance of a migration.
//!
//! Documentation/ABI/stable/sysfs-devices-system-cpu. Two CPUs share a thing when they have the same number here; the
//! number is that of the first CPU of the thing, so a core of one socket is never taken for one of another.

use std::fs;
use std::path::Path;

/// Each number is one more than that of the first CPU in the same core, L2, L3, node.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) core: u32,
    pub(crate) l2: u32,
    pub(crate) l3: u32,
    pub(crate) node: u32,
}

/// One place for each CPU below `nr_cpus`. What sysfs does not tell (an offline CPU, a machine without an L3) is taken
/// from the next smaller thing: a CPU of which nothing is known is a core by itself.
pub(crate) fn places(root: &Path, nr_cpus: u32) -> Vec<Place> {
    let nodes = nodes(root);
    (0..nr_cpus).map(|cpu| place(root, cpu, &nodes)).collect()
}

fn place(root: &Path, cpu: u32, nodes: &[(u32, Vec<u32>)]) -> Place {
    let dir = root.join(format!("sys/devices/system/cpu/cpu{cpu}"));
    let first = |file: &Path| list(&fs::read_to_string(file).ok()?).first().map(|first| first + 1);
    let topology = |name: &str| first(&dir.join("topology").join(name));
    let mut caches = [None; 2];
    for index in 0..16 {
        let cache = dir.join(format!("cache/index{index}"));
        let Ok(level) = fs::read_to_string(cache.join("level")) else { break };
        // An L2 for instructions alone is no place where data stay warm.
        if fs::read_to_string(cache.join("type")).is_ok_and(|kind| kind.trim() == "Instruction") {
            continue;
        }
        match level.trim() {
            "2" => caches[0] = first(&cache.join("shared_cpu_list")),
            "3" => caches[1] = first(&cache.join("shared_cpu_list")),
            _ => {}
        }
    }
    let core = topology("core_cpus_list").or_else(|| topology("thread_siblings_list")).unwrap_or(cpu + 1);
    let l2 = caches[0].unwrap_or(core);
    let package = || topology("package_cpus_list").or_else(|| topology("core_siblings_list"));
    let l3 = caches[1].or_else(package).unwrap_or(l2);
    let node = nodes.iter().find(|(_, cpus)| cpus.contains(&cpu));
    Place { core, l2, l3, node: node.map_or(0, |(node, _)| node + 1) }
}

fn nodes(root: &Path) -> Vec<(u32, Vec<u32>)> {
    let Ok(dir) = fs::read_dir(root.join("sys/devices/system/node")) else { return Vec::new() };
    dir.flatten()
        .filter_map(|entry| {
            let node = entry.file_name().to_str()?.strip_prefix("node")?.parse().ok()?;
            Some((node, list(&fs::read_to_string(entry.path().join("cpulist")).ok()?)))
        })
        .collect()
}

/// `0-3,8` and the like. What cannot be read is left out.
pub(crate) fn list(text: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        Some(from.trim().parse::<u32>().ok()?..=to.trim().parse::<u32>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

/// Possible CPUs are numbered below this.
pub(crate) fn nr_cpus(root: &Path) -> u32 {
    let possible = fs::read_to_string(root.join("sys/devices/system/cpu/possible")).unwrap_or_default();
    list(&possible).last().map_or(1, |last| last + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(root: &Path, file: &str, text: &str) {
        let file = root.join(file);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }

    #[test]
    fn cores_of_two_sockets_with_the_same_number_are_two_cores() {
        let root = std::env::temp_dir().join(format!("gthulhu-monitor-topology-{}", std::process::id()));
        // Two sockets, each its own node, two cores of two threads each; an L3 by socket.
        for cpu in 0..8u32 {
            let (core, socket) = (cpu / 2 * 2, cpu / 4 * 4);
            let dir = format!("sys/devices/system/cpu/cpu{cpu}");
            write(&root, &format!("{dir}/topology/core_cpus_list"), &format!("{core}-{}\n", core + 1));
            write(&root, &format!("{dir}/topology/core_id"), &format!("{}\n", cpu / 2 % 2));
            write(&root, &format!("{dir}/cache/index0/level"), "1\n");
            for (index, level, first, last) in [(1, 2, core, core + 1), (2, 3, socket, socket + 3)] {
                write(&root, &format!("{dir}/cache/index{index}/level"), &format!("{level}\n"));
                let list = format!("{dir}/cache/index{index}/shared_cpu_list");
                write(&root, &list, &format!("{first}-{last}\n"));
            }
        }
        write(&root, "sys/devices/system/node/node0/cpulist", "0-3\n");
        write(&root, "sys/devices/system/node/node1/cpulist", "4-7\n");
        write(&root, "sys/devices/system/cpu/possible", "0-8\n");
        let places = places(&root, nr_cpus(&root));
        fs::remove_dir_all(&root).unwrap();
        assert_eq!(places[0], Place { core: 1, l2: 1, l3: 1, node: 1 });
        assert_eq!(places[1].core, places[0].core);
        assert_ne!(places[4].core, places[0].core);
        assert_eq!(places[7], Place { core: 7, l2: 7, l3: 5, node: 2 });
        // Of the ninth nothing is known.
        assert_eq!(places[8], Place { core: 9, l2: 9, l3: 9, node: 0 });
    }

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(list("0-3,8\n"), [0, 1, 2, 3, 8]);
        assert_eq!(list(""), []);
    }
}
