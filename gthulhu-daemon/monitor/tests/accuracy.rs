//! What the monitor says against what the kernel says, on this machine. Needs root.

mod common;

use std::time::Duration;

use common::{Folder, alone, assert_close, burn, burner_main, counts, start, truth};
use gthulhu_monitor::{Monitor, WaitSource, Which};

#[test]
#[ignore = "the process that the other tests start"]
fn burner() {
    burner_main();
}

fn agrees(mut monitor: Monitor, percent: f64) {
    let group = Folder::new(monitor.cgroup_root(), "loops");
    // On one CPU they wait for each other; the two on any CPU make sure that migrations do no harm.
    let processes = [burn(&[&group.0], "0 3 2"), burn(&[&group.0], "- 2 1")];
    // Enough to compare, however busy this machine is.
    let begun = std::time::Instant::now();
    while processes.iter().map(|process| truth(process.pid()).run_ns).sum::<u64>() < 2_500_000_000 {
        assert!(begun.elapsed() < Duration::from_secs(90), "too little was done to compare");
        std::thread::sleep(Duration::from_millis(100));
    }
    processes.iter().for_each(|process| process.stop());
    let ours = counts(&monitor.snapshot().unwrap(), group.id());
    let truths = processes.each_ref().map(|process| truth(process.pid()));
    let sum = |what: fn(&common::Truth) -> u64| truths.iter().map(what).sum::<u64>();
    let run_ns = sum(|truth| truth.run_ns);
    assert_close("run time", ours.run_ns, run_ns, percent);
    assert_close("run delay", ours.run_delay_ns(), sum(|truth| truth.delay_ns), percent);
    assert_close("runs", ours.runs(), sum(|truth| truth.runs), percent);
    assert_close("voluntary switches", ours.voluntary(), sum(|truth| truth.voluntary), percent);
    assert_close("involuntary switches", ours.involuntary(), sum(|truth| truth.involuntary), percent);
    // Each run is in one bucket, and so is the wait before it.
    assert_eq!(ours.bursts().count(), ours.runs());
    assert_eq!(ours.run_delays().count(), ours.runs());
    assert_eq!(ours.throttled_ns, 0);

    let pid = processes[0].pid();
    let threads = monitor.threads(Which::Process(pid)).unwrap();
    assert!(threads.len() >= 6 && threads.iter().all(|thread| thread.pid == pid));
    assert_close("a process", threads.iter().map(|thread| thread.run_ns).sum(), truths[0].run_ns, 0.01);
    if !monitor.watches_wakeups() {
        assert_close(
            "its delay",
            threads.iter().map(|thread| thread.wait_ns).sum(),
            truths[0].delay_ns,
            0.01,
        );
    }
    let in_group = monitor.threads(Which::Group(group.id())).unwrap();
    assert!(in_group.len() > threads.len() && in_group.iter().all(|thread| thread.group == group.id()));
    let bound: u64 = threads.iter().map(|thread| thread.migrations).sum();
    assert!(ours.migrations.total() >= bound);
}

#[test]
fn busy_threads_ran_and_waited_as_long_as_the_kernel_says() {
    let _alone = alone();
    let Some(monitor) = start(|_| {}) else { return };
    agrees(monitor, 2.0);
}

#[test]
fn so_they_did_where_wakeups_have_to_be_watched() {
    let _alone = alone();
    let Some(monitor) = start(|options| options.wait_source = WaitSource::Wakeups) else { return };
    assert!(monitor.watches_wakeups());
    agrees(monitor, 2.0);
}

#[test]
fn a_run_that_does_not_end_is_seen_all_the_same() {
    let _alone = alone();
    let Some(mut monitor) = start(|_| {}) else { return };
    let group = Folder::new(monitor.cgroup_root(), "long");
    let process = burn(&[&group.0], "- 1 0");
    let mut before = 0;
    for _ in 0..30 {
        std::thread::sleep(Duration::from_millis(100));
        let now =
            monitor.snapshot().unwrap().groups.iter().find(|g| g.id == group.id()).map(|g| g.counts.run_ns);
        let now = now.unwrap_or(0);
        assert!(now >= before);
        before = now;
    }
    assert_close("run time so far", before, truth(process.pid()).run_ns, 2.0);
}

#[test]
fn tasks_that_were_there_before_are_counted_from_the_start_on_only() {
    let _alone = alone();
    let Some(monitor) = start(|_| {}) else { return };
    let group = Folder::new(monitor.cgroup_root(), "before");
    drop(monitor);
    let process = burn(&[&group.0], "0 2 1");
    std::thread::sleep(Duration::from_secs(1));
    // Loading takes a while, in which they go on: it begins somewhere between these two.
    let before = truth(process.pid());
    let Some(mut monitor) = start(|_| {}) else { return };
    let after = truth(process.pid());
    std::thread::sleep(Duration::from_secs(2));
    process.stop();
    let ours = counts(&monitor.snapshot().unwrap(), group.id());
    let now = truth(process.pid());
    for (what, ours, now, before, after) in [
        ("run time", ours.run_ns, now.run_ns, before.run_ns, after.run_ns),
        ("run delay", ours.run_delay_ns(), now.delay_ns, before.delay_ns, after.delay_ns),
    ] {
        let (least, most) = (now - after, now - before);
        println!("{what}: {ours}, and the kernel says {least} to {most}");
        assert!(ours as f64 >= least as f64 * 0.98, "{what}: {ours} of {least} at least");
        assert!(ours as f64 <= most as f64 * 1.02, "{what}: {ours} of {most} at most");
    }
}
