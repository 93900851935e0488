//! Limits of cgroups in simulated time, and what a policy hears of cgroups.

use qumun::sim::{
    Dsq, Group, Host, Limit, Linux, Machine, Place, Reference, Settings, Setup, Sim, Span, Spec, Step,
    Thread, Workload,
};
use qumun::{Context, Cpu, CpuSet, Events, Nanos, Note, Queued, Scheduler, Topology, Verdict};

/// Who ran least.
struct Fair;

impl Scheduler for Fair {
    type Task = (u64, Nanos);

    fn enqueue(&mut self, cx: &mut Context<'_, (u64, Nanos)>, task: &Queued) -> Verdict {
        let (vtime, charged) = cx.task(task);
        if task.stopped_at > *charged {
            *vtime += (task.stopped_at - task.started_at).as_u64();
            *charged = task.stopped_at;
        }
        task.anywhere().vtime(*vtime).into()
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn hog() -> Vec<Step> {
    vec![Step::Run(ms(1_000).into())]
}

fn part(quota_ms: u64, period_ms: u64) -> Limit {
    Limit::new(ms(quota_ms), ms(period_ms))
}

fn in_cgroup(cgroup_id: u64) -> Spec {
    Spec { cgroup_id, ..Spec::default() }
}

fn cpus(n: u32) -> Setup {
    Setup::new(Topology::flat(n))
}

/// CPUs that a group has had since it was looked at before.
fn cpus_of<S: Scheduler>(sim: &Sim<S>, group: Group, before: f64, time: Nanos) -> f64 {
    ran(sim, group) / time.as_u64() as f64 - before / time.as_u64() as f64
}

fn ran<S: Scheduler>(sim: &Sim<S>, group: Group) -> f64 {
    sim.group(group).iter().map(|t| t.ran.as_u64() as f64).sum()
}

#[test]
fn a_cgroup_gets_its_limit_whatever_else_runs() {
    // Quota and period in ms, hogs in the group and beside it, CPUs of the machine, and what must come out.
    for (quota, period, inside, beside, machine, want) in [
        (50, 100, 1, 0, 2, 0.5),
        (50, 100, 3, 0, 2, 0.5),
        (50, 100, 2, 4, 4, 0.5),
        (50, 100, 20, 0, 2, 0.5),
        (5, 10, 2, 0, 2, 0.5),
        (1, 2, 2, 0, 2, 0.5),
        (500, 1_000, 2, 1, 2, 0.5),
        (95, 100, 1, 0, 1, 0.95),
        (200, 100, 6, 0, 4, 2.0),
    ] {
        for stopped in [false, true] {
            let mut work = Workload::new();
            let cgroup = work.cgroup(1, 100, part(quota, period));
            let hogs = work.group("hogs", inside, in_cgroup(cgroup), hog());
            work.group("others", beside, Spec::default(), hog());
            let mut sim = Sim::new(cpus(machine), &work, Fair).unwrap();
            if stopped {
                sim.stop_agent(ms(60_000));
            }
            sim.run(ms(1_000));
            let (before, time) = (ran(&sim, hogs), ms(10_000));
            sim.run(time);
            sim.check().unwrap();
            let got = cpus_of(&sim, hogs, before, time);
            let c = sim.counters();
            let what = format!(
                "{quota}/{period} ms, {inside} hogs and {beside}, stopped {stopped}: {got:.4}, {c:?}"
            );
            assert!((got - want).abs() < 0.03 * want.max(1.0), "{what}");
            assert!(c.throttled > 0 && c.limit_overruns == 0, "{what}");
        }
    }
}

#[test]
fn a_cgroup_within_its_limit_is_left_alone() {
    let mut work = Workload::new();
    let cgroup = work.cgroup(1, 100, part(50, 100));
    let periodic = vec![Step::Run(ms(4).into()), Step::Every(ms(10))];
    let tasks = work.group("periodic", 1, in_cgroup(cgroup), periodic);
    let mut sim = Sim::new(cpus(2), &work, Fair).unwrap();
    sim.run(ms(10_000));
    sim.check().unwrap();
    assert!((ran(&sim, tasks) / 10_000e6 - 0.4).abs() < 0.005);
    assert_eq!(sim.counters().throttled, 0);
}

#[test]
fn a_parents_limit_holds_for_all_below_it() {
    let mut work = Workload::new();
    let parent = work.cgroup(1, 100, part(100, 100));
    let children = [(); 2].map(|()| work.cgroup(parent, 100, part(80, 100)));
    // One more level without a limit of its own.
    let below = work.cgroup(children[1], 100, Limit::NONE);
    let groups = [children[0], below].map(|cgroup| work.group("hogs", 2, in_cgroup(cgroup), hog()));
    let mut sim = Sim::new(cpus(4), &work, Fair).unwrap();
    sim.run(ms(10_000));
    sim.check().unwrap();
    for group in groups {
        let got = cpus_of(&sim, group, 0.0, ms(10_000));
        assert!((got - 0.5).abs() < 0.03, "{got}");
    }
}

#[test]
fn a_crowd_under_a_limit_gets_it_too_and_nobody_starves() {
    let mut work = Workload::new();
    let cgroup = work.cgroup(1, 100, part(50, 100));
    let wakers = vec![
        Step::Run(Span::Uniform(Nanos::from_micros(50), ms(2))),
        Step::Sleep(Span::Uniform(ms(1), ms(20))),
    ];
    let crowd = work.group("crowd", 100, in_cgroup(cgroup), wakers);
    let pinned = Spec { cpus: [Cpu(1)].into_iter().collect(), ..in_cgroup(cgroup) };
    let bound = work.group("bound", 3, pinned, hog());
    let mut sim = Sim::new(cpus(2), &work, Fair).unwrap();
    sim.run(ms(20_000));
    sim.check().unwrap();
    let got = cpus_of(&sim, crowd, 0.0, ms(20_000)) + cpus_of(&sim, bound, 0.0, ms(20_000));
    assert!((got - 0.5).abs() < 0.03, "{got}, {:?}", sim.counters());
    for task in sim.group(crowd).iter().chain(&sim.group(bound)) {
        assert!(task.ran > Nanos::ZERO && task.longest_wait < ms(4_000), "{task:?}");
    }
}

#[test]
fn the_smallest_limit_there_is_does_not_get_the_scheduler_removed() {
    for stopped in [false, true] {
        let mut work = Workload::new();
        let cgroup = work.cgroup(1, 100, part(1, 1_000));
        let hogs = work.group("hogs", 20, in_cgroup(cgroup), hog());
        let mut sim = Sim::new(cpus(2), &work, Fair).unwrap();
        if stopped {
            sim.stop_agent(ms(60_000));
        }
        sim.run(ms(30_000));
        sim.check().unwrap();
        let longest = sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap();
        assert!(longest < ms(3_000), "{longest}");
        assert!(sim.counters().limit_overruns > 0, "{:?}", sim.counters());
        // The limit cannot hold then, but its sense does.
        let got = cpus_of(&sim, hogs, 0.0, ms(30_000));
        assert!(got < 0.06, "{got}");
    }
}

#[test]
fn limits_change_while_tasks_are_held_back() {
    let mut work = Workload::new();
    let cgroup = work.cgroup(1, 100, part(1, 1_000));
    let hogs = work.group("hogs", 2, in_cgroup(cgroup), hog());
    let mut sim = Sim::new(cpus(2), &work, Fair).unwrap();
    sim.run(ms(500));
    let held = ran(&sim, hogs);
    assert!(held < 50e6, "{held}");
    // Taken away: they run at once.
    sim.set_limit(cgroup, Limit::NONE);
    sim.run(ms(1_000));
    let free = ran(&sim, hogs) - held;
    assert!(free > 1_960e6, "{free}");
    // Given to tasks that have run for long: that time is not charged.
    sim.set_limit(cgroup, part(50, 100));
    let (before, time) = (ran(&sim, hogs), ms(5_000));
    sim.run(time);
    let got = cpus_of(&sim, hogs, before, time);
    assert!((got - 0.5).abs() < 0.03, "{got}");
    // Moved out of a cgroup that has nothing left.
    sim.set_limit(cgroup, part(1, 1_000));
    sim.run(ms(300));
    let before = ran(&sim, hogs);
    sim.move_group(hogs, 1);
    sim.run(ms(1_000));
    assert!(ran(&sim, hogs) - before > 1_960e6, "{}", ran(&sim, hogs) - before);
    assert!(sim.remove_cgroup(cgroup) && !sim.remove_cgroup(cgroup));
    sim.run(ms(100));
    sim.check().unwrap();
}

#[test]
fn cpus_go_and_the_agent_stops_while_tasks_are_held_back() {
    let mut work = Workload::new();
    let cgroup = work.cgroup(1, 100, part(50, 100));
    let hogs = work.group("hogs", 4, in_cgroup(cgroup), hog());
    let pinned = Spec { cpus: [Cpu(2)].into_iter().collect(), ..in_cgroup(cgroup) };
    work.group("bound", 2, pinned, hog());
    let mut sim = Sim::new(cpus(3), &work, Fair).unwrap();
    for round in 0..20 {
        sim.run(ms(130 + round));
        sim.set_online(Cpu(2), round % 2 == 1);
        sim.run(ms(70));
        sim.stop_agent(ms(250));
        sim.check().unwrap();
    }
    sim.run(ms(3_000));
    sim.check().unwrap();
    assert!(sim.group(hogs).iter().all(|t| t.ran > ms(200)));
}

#[test]
fn without_a_limit_nothing_is_held_back() {
    let mut work = Workload::new();
    let cgroup = work.cgroup(1, 100, Limit::NONE);
    work.group("hogs", 5, in_cgroup(cgroup), hog());
    let mut sim = Sim::new(cpus(2), &work, Fair).unwrap();
    sim.run(ms(2_000));
    sim.check().unwrap();
    let c = sim.counters();
    assert_eq!((c.throttled, c.throttled_ns, c.limit_overruns), (0, 0, 0));
}

/// Writes down what it hears.
#[derive(Default)]
struct Listener {
    heard: Vec<String>,
}

impl Scheduler for Listener {
    type Task = ();
    const EVENTS: Events = Events::CGROUPS;

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        self.heard.push(format!("task in {} weight {}", task.cpu_cgroup_id, task.cgroup_weight));
        task.anywhere().into()
    }

    fn note(&mut self, _: &mut Context<'_, ()>, note: &Note) {
        self.heard.push(match note {
            Note::Cgroup { cgroup_id, parent, weight, limit } => {
                format!("{cgroup_id} in {parent} weight {weight} limit {limit:?}")
            }
            Note::CgroupGone { cgroup_id } => format!("{cgroup_id} gone"),
            other => format!("{other:?}"),
        });
    }
}

#[test]
fn an_agent_is_told_of_all_cgroups_also_one_that_comes_later() {
    let machine = Machine::new(1);
    assert!(machine.make_cgroup(20, 1, 300) && machine.make_cgroup(30, 20, 50));
    assert!(!machine.make_cgroup(30, 20, 50) && !machine.make_cgroup(31, 99, 50));
    let mut agent = qumun::builder("one").agent(machine.backend(), Listener::default());
    // Nothing has happened yet and the core is degraded: it would send no note.
    agent.turn();
    let all =
        ["1 in 0 weight 100 limit None", "20 in 1 weight 300 limit None", "30 in 20 weight 50 limit None"];
    assert_eq!(agent.policy().heard, all);
    machine.set_cgroup_weight(20, 400);
    machine.remove_cgroup(30);
    agent.turn();
    assert_eq!(agent.policy().heard[3..], ["20 in 1 weight 400 limit None", "30 gone"]);
    // Another one after the end of this one.
    drop(agent);
    let mut agent = qumun::builder("two").agent(machine.backend(), Listener::default());
    agent.turn();
    machine.advance(ms(200));
    agent.turn();
    let task = machine.spawn(Spec { cgroup_id: 20, ..Spec::default() });
    machine.dispatch(Cpu(0));
    machine.wake(task);
    machine.make_cgroup(40, 1, 100);
    agent.turn();
    assert_eq!(
        agent.policy().heard,
        [
            "1 in 0 weight 100 limit None",
            "20 in 1 weight 400 limit None",
            "40 in 1 weight 100 limit None",
            "task in 20 weight 400"
        ]
    );
    machine.check().unwrap();
}

#[test]
fn the_simulation_tells_cgroups_before_their_tasks() {
    let mut work = Workload::new();
    let outer = work.cgroup(1, 200, part(50, 100));
    let inner = work.cgroup(outer, 300, Limit::NONE);
    work.group("hog", 1, in_cgroup(inner), hog());
    let mut sim = Sim::new(cpus(1), &work, Listener::default()).unwrap();
    sim.run(ms(500));
    let heard = &sim.agent().policy().heard;
    assert_eq!(heard[1], format!("{outer} in 1 weight 200 limit {:?}", Some((ms(50), ms(100)))));
    assert_eq!(heard[2], format!("{inner} in {outer} weight 300 limit None"));
    assert!(heard[3..].iter().all(|line| *line == format!("task in {inner} weight 300")), "{heard:?}");
}

/// A machine of one CPU, moved by hand, and a task on it whose cgroup has a millisecond in a second.
fn held_by_hand() -> (Host<Reference>, Thread) {
    let linux = Linux::new(Topology::flat(1), 64, 64);
    let mut host = Host::new(linux, Reference::new(Settings::default()));
    assert!(host.make_cgroup(2, 1, 100) && host.set_cgroup_limit(2, part(1, 1_000)));
    let task = host.spawn(&in_cgroup(2), CpuSet::ALL, None);
    host.wake(task, None);
    assert_eq!(host.schedule(Cpu(0)), Some(task));
    (host, task)
}

fn is_held(host: &Host<Reference>, task: Thread) -> bool {
    matches!(host.linux.task(task).place, Place::Queue(Dsq::Throttled(_)))
}

/// A tick, 4 ms after the one before. Is the run over?
fn tick(host: &mut Host<Reference>) -> bool {
    let now = host.linux.now();
    host.set_now(Nanos(now) + ms(4));
    host.tick(Cpu(0), 1_000_000)
}

#[test]
fn a_task_in_the_kernel_has_time_to_come_out() {
    let (mut host, task) = held_by_hand();
    host.linux.in_kernel = true;
    assert!((0..20).all(|_| !tick(&mut host)));
    // Nor does an end of its slice hold it back: it goes on.
    host.linux.set_slice(task, 0);
    assert_eq!(host.schedule(Cpu(0)), Some(task));
    host.linux.in_kernel = false;
    assert!(tick(&mut host));
    assert_eq!(host.schedule(Cpu(0)), None);
    assert!(is_held(&host, task));
    // One that never comes out is held back, too.
    let (mut host, task) = held_by_hand();
    host.linux.in_kernel = true;
    let ticks = (1..100).find(|n| {
        // Ends of its slice in between, with somebody else there, change nothing.
        if n % 5 == 0 {
            host.linux.set_slice(task, 0);
            host.set_weight(task, 50 + n);
            host.schedule(Cpu(0));
        }
        tick(&mut host)
    });
    assert_eq!(ticks, Some(26));
    host.schedule(Cpu(0));
    assert!(is_held(&host, task));
}

#[test]
fn a_task_that_waited_for_a_lock_is_not_held_back_at_its_wakeup() {
    for in_kernel in [true, false] {
        let (mut host, task) = held_by_hand();
        let now = host.linux.now();
        host.set_now(Nanos(now) + ms(3));
        host.linux.in_kernel = in_kernel;
        host.sleep(Cpu(0));
        host.wake(task, None);
        assert_eq!(is_held(&host, task), !in_kernel);
    }
}
