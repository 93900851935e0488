//! Groups that come and go, wait for each other and are throttled, on this machine. Needs root.

mod common;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{Folder, alone, assert_close, assert_not_less, burn, burner_main, counts, start, truth};
use gthulhu_monitor::Counts;

#[test]
#[ignore = "the process that the other tests start"]
fn burner() {
    burner_main();
}

#[test]
fn of_ten_thousand_short_lived_processes_none_is_lost() {
    const FORKS: u64 = 10_000;
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let group = Folder::new(monitor.cgroup_root(), "forks");
    let by_others = children_cpu_ns();
    let mut process = burn(&[&group.0], &format!("- 0 0 {FORKS}"));
    let mut before = Counts::default();
    let mut looks = 0;
    while process.0.try_wait().unwrap().is_none() {
        let snapshot = monitor.snapshot().unwrap();
        if let Some(now) = snapshot.groups.iter().find(|g| g.id == group.id()) {
            assert_not_less("a group", &now.counts, &before);
            before = now.counts.clone();
        }
        assert_eq!(snapshot.own.missed, 0);
        looks += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(20));
    let snapshot = monitor.snapshot().unwrap();
    let ours = counts(&snapshot, group.id());
    assert!(looks > 10, "only {looks} looks");
    // The forked processes and the thread of the test program; its first thread was in the group only afterwards.
    assert_eq!((ours.created, ours.exited), (FORKS + 1, FORKS + 2));
    assert!(ours.runs() > FORKS, "{}", ours.runs());
    // The process waited for all of them, so the kernel has summed them up.
    let cpu_time = children_cpu_ns() - by_others;
    assert!(cpu_time > FORKS * 200_000);
    assert_close("run time", ours.run_ns, cpu_time, 4.0);
    assert_eq!((snapshot.own.missed, snapshot.own.refused), (0, 0));
}

/// Of the processes that this one has waited for.
fn children_cpu_ns() -> u64 {
    // SAFETY: all zero is a valid value, and the pointer lives until the call returns.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &raw mut usage);
        usage
    };
    let ns = |time: libc::timeval| time.tv_sec as u64 * 1_000_000_000 + time.tv_usec as u64 * 1000;
    ns(usage.ru_utime) + ns(usage.ru_stime)
}

#[test]
fn who_made_a_group_wait_is_named() {
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let root = monitor.cgroup_root().to_owned();
    let [hog, victim, bystander] = ["hog", "victim", "bystander"].map(|name| Folder::new(&root, name));
    let _processes = [
        burn(&[&hog.0], "0 2 0"),
        burn(&[&victim.0], "0 0 1"),
        // Where there is but one CPU, this one is a hog, too.
        burn(&[&bystander.0], if common::cpus() > 1 { "1 1 0" } else { "0 0 0" }),
    ];
    std::thread::sleep(Duration::from_millis(500));
    let before = counts(&monitor.snapshot().unwrap(), victim.id()).run_delay_ns();
    std::thread::sleep(Duration::from_secs(3));
    let snapshot = monitor.snapshot().unwrap();
    let by = |ran: u64| {
        let ns = snapshot.blames.iter().filter(|b| b.waited == victim.id() && b.ran == ran).map(|b| b.ns);
        ns.sum::<u64>()
    };
    // Somebody else may be on that CPU, too; among ours it was the hog.
    assert_eq!(by(bystander.id()), 0, "it ran elsewhere");
    assert!(by(hog.id()) > 2 * by(victim.id()), "{} and {}", by(hog.id()), by(victim.id()));
    let ours = snapshot.blames.iter().filter(|blame| blame.waited == victim.id());
    let explained = ours.map(|blame| blame.ns).sum::<u64>();
    let waited = counts(&snapshot, victim.id()).run_delay_ns() - before;
    let share = explained as f64 / waited as f64;
    println!("the victim waited {waited} ns; explained {share:.2}, by the hog {}", by(hog.id()));
    assert!((0.8..1.2).contains(&share), "{share}");
    assert_eq!(snapshot.own.unblamed, 0);
}

/// A group that may use 20 % of a CPU, with the cpu controller of whichever version there is.
struct Quota {
    folder: Option<Folder>,
    stat: PathBuf,
}

impl Quota {
    fn new(v2: &Folder, root: &Path) -> Option<Self> {
        if fs::read_to_string(root.join("cgroup.controllers"))
            .is_ok_and(|all| all.split_whitespace().any(|c| c == "cpu"))
        {
            fs::write(root.join("cgroup.subtree_control"), "+cpu").unwrap();
            fs::write(v2.0.join("cpu.max"), "20000 100000").unwrap();
            return Some(Self { folder: None, stat: v2.0.join("cpu.stat") });
        }
        let v1 = ["/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct"].map(PathBuf::from);
        let v1 = v1
            .iter()
            .find(|path| path.join("cpu.cfs_quota_us").exists() || path.join("cpu.shares").exists())?;
        let folder = Folder::new(v1, "quota");
        fs::write(folder.0.join("cpu.cfs_quota_us"), "20000").unwrap();
        Some(Self { stat: folder.0.join("cpu.stat"), folder: Some(folder) })
    }

    fn number(&self, name: &str) -> Option<u64> {
        let stat = fs::read_to_string(&self.stat).unwrap();
        let line = stat.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
        line.trim().parse().ok()
    }

    /// How long a run queue of the group was throttled.
    fn throttled_ns(&self) -> u64 {
        self.number("throttled_usec").map(|us| us * 1000).or(self.number("throttled_time")).unwrap()
    }

    /// Until it was throttled for so long; on a busy machine, where it has less than its quota, that takes its time.
    fn wait_throttled(&self, ns: u64) {
        let since = std::time::Instant::now();
        while self.throttled_ns() < ns {
            assert!(
                since.elapsed() < Duration::from_secs(90),
                "throttled for {} ns in 90 s",
                self.throttled_ns()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

#[test]
fn being_throttled_is_not_waiting() {
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let group = Folder::new(monitor.cgroup_root(), "throttled");
    let Some(quota) = Quota::new(&group, monitor.cgroup_root()) else {
        println!("skip being_throttled_is_not_waiting - no cgroups with the controller cpu here");
        return;
    };
    let mut groups = vec![group.0.as_path()];
    groups.extend(quota.folder.as_ref().map(|folder| folder.0.as_path()));
    // One thread on one CPU: what it does not run it is throttled, unless somebody else is on that CPU.
    let process = burn(&groups, "0 1 0");
    quota.wait_throttled(2_000_000_000);
    process.stop();
    // A throttled thread stops when it may run again.
    std::thread::sleep(Duration::from_millis(200));
    let ours = counts(&monitor.snapshot().unwrap(), group.id());
    let truth = truth(process.pid());
    println!("{ours:?}");
    assert_close("throttled", ours.throttled_ns, quota.throttled_ns(), 5.0);
    assert_close("throttled and delay", ours.throttled_ns + ours.run_delay_ns(), truth.delay_ns, 2.0);
    // And the histogram has no wait as long as a throttling, which takes 80 ms, but for a few by others.
    let long: u64 = ours.run_delays().counts[15..].iter().sum();
    let throttlings = quota.number("nr_throttled").unwrap();
    assert!(long < throttlings / 2, "{throttlings} times throttled, {:?}", ours.run_delays().counts);
}

#[test]
fn a_sleeper_that_is_throttled_with_others_did_not_wait_either() {
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let group = Folder::new(monitor.cgroup_root(), "throttled");
    let Some(quota) = Quota::new(&group, monitor.cgroup_root()) else {
        println!("skip a_sleeper_that_is_throttled - no cgroups with the controller cpu here");
        return;
    };
    let mut groups = vec![group.0.as_path()];
    groups.extend(quota.folder.as_ref().map(|folder| folder.0.as_path()));
    // Four sleepers want 90 % of a CPU and may use 20 %.
    let process = burn(&groups, "0 0 4");
    quota.wait_throttled(1_000_000_000);
    process.stop();
    std::thread::sleep(Duration::from_millis(200));
    let ours = counts(&monitor.snapshot().unwrap(), group.id());
    let truth = truth(process.pid());
    println!("{} throttled, {} delay, {truth:?}", ours.throttled_ns, ours.run_delay_ns());
    assert_close("throttled and delay", ours.throttled_ns + ours.run_delay_ns(), truth.delay_ns, 2.0);
    // Whenever the group is throttled, more than one of them soon wants to run.
    let throttled = quota.throttled_ns();
    assert!(ours.throttled_ns > throttled, "{} of {throttled}", ours.throttled_ns);
}

#[test]
fn groups_come_and_go_and_no_total_goes_down() {
    let _alone = alone();
    let Some(mut monitor) = start(|options| options.max_groups = Some(6)) else { return };
    let root = monitor.cgroup_root().to_owned();
    let mut before = monitor.snapshot().unwrap().total();
    let (mut seen, mut removed, mut refused) = (0, 0, 0);
    for round in 0..8 {
        // More than there are rows for, every other time.
        let groups: Vec<Folder> =
            (0..if round % 2 == 0 { 3 } else { 9 }).map(|_| Folder::new(&root, "round")).collect();
        let processes: Vec<_> = groups.iter().map(|group| burn(&[&group.0], "- 0 1 0")).collect();
        std::thread::sleep(Duration::from_millis(200));
        let snapshot = monitor.snapshot().unwrap();
        assert_not_less("the total", &snapshot.total(), &before);
        before = snapshot.total();
        let ours: Vec<_> =
            groups.iter().filter_map(|g| snapshot.groups.iter().find(|s| s.id == g.id())).collect();
        assert!(
            ours.iter()
                .zip(&groups)
                .all(|(ours, _)| ours.path.as_ref().is_some_and(|path| path.contains("round")))
        );
        seen += ours.len();
        drop(processes);
        let ids: Vec<u64> = groups.iter().map(Folder::id).collect();
        drop(groups);
        for pause in [20, 1100, 20] {
            std::thread::sleep(Duration::from_millis(pause));
            let snapshot = monitor.snapshot().unwrap();
            assert_not_less("the total", &snapshot.total(), &before);
            removed += snapshot.groups.iter().filter(|g| g.removed && ids.contains(&g.id)).count();
            before = snapshot.total();
            refused = snapshot.own.refused;
        }
    }
    let snapshot = monitor.snapshot().unwrap();
    println!("{seen} seen, {removed} times removed, {refused} refused");
    assert!(seen > 8 * 2, "{seen}");
    assert!(removed >= seen, "{removed} of {seen}");
    assert!(refused > 0);
    assert!(snapshot.other.run_ns > 0, "some had no row");
    assert!(snapshot.gone.run_ns > 0);
    assert_eq!(snapshot.own.missed, 0);
    // The rows are free again, for one.
    let last = Folder::new(&root, "last");
    let _process = burn(&[&last.0], "- 0 1 0");
    std::thread::sleep(Duration::from_millis(200));
    assert!(counts(&monitor.snapshot().unwrap(), last.id()).run_ns > 0);
}

#[test]
fn a_task_that_goes_to_another_group_counts_there() {
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let root = monitor.cgroup_root().to_owned();
    let [one, two] = ["one", "two"].map(|name| Folder::new(&root, name));
    let process = burn(&[&one.0], "- 1 1 0");
    std::thread::sleep(Duration::from_millis(500));
    fs::write(two.0.join("cgroup.procs"), process.pid().to_string()).unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let before = counts(&monitor.snapshot().unwrap(), one.id());
    std::thread::sleep(Duration::from_millis(1000));
    process.stop();
    let snapshot = monitor.snapshot().unwrap();
    let (one, two) = (counts(&snapshot, one.id()), counts(&snapshot, two.id()));
    assert_eq!(one.run_ns, before.run_ns);
    assert_close("both", one.run_ns + two.run_ns, truth(process.pid()).run_ns, 1.0);
    assert!(two.run_ns > 100_000_000, "{}", two.run_ns);
}

#[test]
fn each_move_to_another_cpu_is_one_migration() {
    const MOVES: usize = 40;
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    if common::cpus() < 2 {
        println!("skip each_move_to_another_cpu - there is but one CPU here");
        return;
    }
    let group = Folder::new(monitor.cgroup_root(), "moves");
    let process = burn(&[&group.0], "0 1 0");
    std::thread::sleep(Duration::from_millis(300));
    let mut look = || {
        let threads = monitor.threads(gthulhu_monitor::Which::Process(process.pid())).unwrap();
        let spinner = threads.into_iter().max_by_key(|thread| thread.run_ns).unwrap();
        (spinner.tid, spinner.migrations, counts(&monitor.snapshot().unwrap(), group.id()).migrations)
    };
    let (spinner, before, of_all) = look();
    for turn in 0..MOVES {
        common::bind(spinner, (turn + 1) % 2);
        // Until it has left the CPU again.
        std::thread::sleep(Duration::from_millis(20));
    }
    process.stop();
    let (same, now, of_all_now) = look();
    let moves = now - before;
    println!("{moves} after {MOVES} moves, and of all threads {of_all_now:?}");
    assert_eq!(same, spinner);
    // On a busy machine it may not come to run between two moves.
    assert!(moves <= MOVES as u64 && moves as usize >= MOVES / 2, "{moves}");
    assert!(of_all_now.total() - of_all.total() >= moves);
    if common::cpus() == 2 {
        let kinds = [of_all_now.core, of_all_now.l2, of_all_now.l3, of_all_now.node, of_all_now.numa];
        assert_eq!(kinds.iter().filter(|kind| **kind > 0).count(), 1, "two CPUs are of one distance");
    }
}

#[test]
fn ten_thousand_tasks_in_five_hundred_groups_are_all_counted() {
    const GROUPS: usize = 500;
    const THREADS: u64 = 19;
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let root = monitor.cgroup_root().to_owned();
    let groups: Vec<Folder> = (0..GROUPS).map(|_| Folder::new(&root, "many")).collect();
    let processes: Vec<_> =
        groups.iter().map(|group| burn(&[&group.0], &format!("- 0 0 0 {THREADS}"))).collect();
    let created = |snapshot: &gthulhu_monitor::Snapshot| {
        groups
            .iter()
            .filter_map(|g| snapshot.groups.iter().find(|s| s.id == g.id()))
            .map(|g| g.counts.created)
            .sum::<u64>()
    };
    let end = std::time::Instant::now() + Duration::from_secs(120);
    let wanted = GROUPS as u64 * (THREADS + 1);
    while created(&monitor.snapshot().unwrap()) < wanted {
        assert!(std::time::Instant::now() < end, "they do not begin");
        std::thread::sleep(Duration::from_millis(200));
    }
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(500));
        monitor.snapshot().unwrap();
    }
    let begun = std::time::Instant::now();
    let snapshot = monitor.snapshot().unwrap();
    println!("a snapshot of {} groups took {:?}", snapshot.groups.len(), begun.elapsed());
    let own = &snapshot.own;
    assert_eq!((own.missed, own.refused, own.unblamed), (0, 0, 0), "{own:?}");
    assert_eq!(created(&snapshot), wanted);
    assert_eq!(
        monitor.threads(gthulhu_monitor::Which::Group(groups[7].id())).unwrap().len() as u64,
        THREADS + 2
    );
    // What a process did before it came into its group is not in there: hence differences.
    let sample = [0, 99, GROUPS - 1].map(|at| (&processes[at], groups[at].id()));
    let mut look = || {
        sample.iter().for_each(|(process, _)| process.stop());
        let snapshot = monitor.snapshot().unwrap();
        sample.map(|(process, id)| (counts(&snapshot, id), truth(process.pid())))
    };
    let before = look();
    sample.iter().for_each(|(process, _)| process.signal(libc::SIGCONT));
    std::thread::sleep(Duration::from_secs(3));
    for ((ours, truth), (our_start, true_start)) in look().iter().zip(&before) {
        let ours = ours.since(our_start);
        assert_eq!(ours.runs(), truth.runs - true_start.runs);
        assert_close("run time", ours.run_ns, truth.run_ns - true_start.run_ns, 0.01);
        assert_close("run delay", ours.run_delay_ns(), truth.delay_ns - true_start.delay_ns, 0.01);
    }
}
