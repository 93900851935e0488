//! Simulated time: who gets what, what goes wrong, and whether it is the same each time.

use qumun::sim::{
    Costs, Mode, RawDecision, Scenario, Setup, Shape, Sim, Span, Spec, Step, TaskFigures, Workload, jain,
};
use qumun::{Context, Cpu, CpuSet, Nanos, Queued, Scheduler, Topology, Verdict};

/// First come, first served.
struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

/// Who ran least for its weight.
struct Fair;

impl Scheduler for Fair {
    type Task = (u64, Nanos);

    fn enqueue(&mut self, cx: &mut Context<'_, (u64, Nanos)>, task: &Queued) -> Verdict {
        let (vtime, charged) = cx.task(task);
        if task.stopped_at > *charged {
            *vtime += (task.stopped_at - task.started_at).as_u64() * 100 / u64::from(task.weight);
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

fn two_cpus() -> Setup {
    Setup::new(Topology::flat(2))
}

#[test]
fn hogs_share_two_cpus() {
    let mut work = Workload::new();
    let hogs = work.group("hogs", 7, Spec::default(), hog());
    let mut sim = Sim::new(two_cpus(), &work, Fair).unwrap();
    sim.run(ms(10_000));
    sim.check().unwrap();
    let shares: Vec<f64> = sim.group(hogs).iter().map(|t| t.ran.as_u64() as f64).collect();
    let total: f64 = shares.iter().sum();
    assert!(jain(shares.iter().copied()) >= 0.99, "{shares:?}");
    assert!(total / 20_000e6 > 0.995, "{} of two CPUs", total / 10_000e6);
    assert!(sim.wasted() < ms(30), "{} wasted", sim.wasted());
    assert_eq!(sim.latch().mode, Mode::Normal);
}

#[test]
fn weights_hold_within_three_percent() {
    let mut work = Workload::new();
    let groups =
        [50, 100, 200, 400].map(|weight| work.group("w", 2, Spec { weight, ..Spec::default() }, hog()));
    let mut sim = Sim::new(two_cpus(), &work, Fair).unwrap();
    sim.run(ms(20_000));
    sim.check().unwrap();
    let sum = |g| sim.group(g).iter().map(|t| t.ran.as_u64() as f64).sum::<f64>();
    let sums = groups.map(sum);
    let total: f64 = sums.iter().sum();
    for (sum, part) in sums.iter().zip([1.0, 2.0, 4.0, 8.0]) {
        let ratio = sum / total / (part / 15.0);
        assert!((ratio - 1.0).abs() < 0.03, "{part}: {ratio}");
    }
}

#[test]
fn programs_do_what_they_say() {
    let mut work = Workload::new();
    let periodic =
        work.group("periodic", 2, Spec::default(), vec![Step::Run(ms(1).into()), Step::Every(ms(10))]);
    // Two who wake each other in turn.
    let ping = work.group("ping", 1, Spec::default(), vec![Step::Run(ms(1).into())]);
    let pong =
        work.group("pong", 1, Spec::default(), vec![Step::Block, Step::Run(ms(2).into()), Step::Wake(ping)]);
    *work.steps(ping).unwrap() = vec![Step::Run(ms(1).into()), Step::Wake(pong), Step::Block];
    // A shell that makes children one after the other and waits for each.
    let child = work.group("child", 0, Spec::default(), vec![Step::Run(ms(3).into()), Step::Exit]);
    let shell =
        work.group("shell", 1, Spec::default(), vec![Step::Run(ms(1).into()), Step::Fork(child), Step::Join]);
    let bound = work.group(
        "bound",
        1,
        Spec::default(),
        vec![Step::Pin(CpuSet::of(Cpu(3))), Step::Run(ms(5).into()), Step::Sleep(ms(5).into())],
    );
    let mut sim = Sim::new(Setup::new(Topology::flat(8)), &work, Fifo).unwrap();
    sim.run(ms(3_000));
    sim.check().unwrap();
    let ran = |g| sim.group(g).iter().map(|t| t.ran.as_u64() / 1_000_000).sum::<u64>();
    assert!((595..=602).contains(&ran(periodic)), "{}", ran(periodic));
    // 1 ms of every 3, and 2 of every 3, less the ways to and fro.
    assert!(
        (960..=1_000).contains(&ran(ping)) && (1_930..=2_000).contains(&ran(pong)),
        "{} {}",
        ran(ping),
        ran(pong)
    );
    assert!(
        (700..=750).contains(&ran(shell)) && (2_100..=2_250).contains(&ran(child)),
        "{} {}",
        ran(shell),
        ran(child)
    );
    assert!(sim.group(child).len() > 700);
    assert!((1_450..=1_510).contains(&ran(bound)), "{}", ran(bound));
    let waits = &sim.group(ping)[0].wake_to_run;
    assert!(waits.count() > 900 && waits.quantile(0.99) < Nanos::from_micros(60), "{}", waits.quantile(0.99));
}

#[test]
fn a_stopped_agent_is_a_non_event() {
    let mut work = Workload::new();
    let hogs = work.group("hogs", 4, Spec::default(), hog());
    let beat = work.group("beat", 1, Spec::default(), vec![Step::Run(ms(1).into()), Step::Every(ms(100))]);
    let mut sim = Sim::new(two_cpus(), &work, Fair).unwrap();
    sim.run(ms(1_000));
    assert_eq!((sim.latch().mode, sim.latch().entered), (Mode::Normal, 0));
    sim.stop_agent(ms(9_000));
    sim.run(ms(8_000));
    assert_eq!((sim.latch().mode, sim.latch().entered), (Mode::Degraded, 1));
    sim.run(ms(3_000));
    sim.check().unwrap();
    assert_eq!((sim.latch().mode, sim.latch().entered, sim.latch().left), (Mode::Normal, 1, 2));
    let parked = Nanos(sim.counters().max_parked_ns);
    assert!(parked <= ms(55), "parked for {parked}");
    assert!(sim.group(beat)[0].longest_wait <= ms(60), "{}", sim.group(beat)[0].longest_wait);
    let total: u64 = sim.group(hogs).iter().map(|t| t.ran.as_u64()).sum();
    assert!(total > 2 * 11_900_000_000, "{total}");
}

#[test]
fn without_an_agent_tasks_stay_under_their_cache() {
    // Two caches of four threads; the kernel alone would send a task to a wholly idle core of the other one.
    let machine = Topology::synthetic().l3s(2).cores(2).threads(2).build().unwrap();
    let mut work = Workload::new();
    let nap = vec![Step::Run(Span::Exponential(ms(1))), Step::Sleep(Span::Exponential(ms(1)))];
    let tasks = work.group("tasks", 4, Spec::default(), nap);
    // Who runs short, often, and wherever: now and then it has the CPU to which another one comes back.
    let brief = vec![Step::Run(Span::Exponential(Nanos::from_micros(50))), Step::Exit];
    let brief = work.group("brief", 0, Spec::default(), brief);
    work.group("makers", 2, Spec::default(), vec![Step::Run(ms(1).into()), Step::Fork(brief), Step::Join]);
    let mut sim = Sim::new(Setup::new(machine), &work, Fifo).unwrap();
    sim.stop_agent(ms(20_000));
    sim.run(ms(1_000));
    let moves = |sim: &Sim<Fifo>| {
        sim.group(tasks).iter().fold([0; 6], |sum, t| std::array::from_fn(|i| sum[i] + t.moves[i]))
    };
    let before = moves(&sim);
    sim.run(ms(10_000));
    sim.check().unwrap();
    assert_eq!(sim.latch().mode, Mode::Degraded);
    let after: [u64; 6] = std::array::from_fn(|i| moves(&sim)[i] - before[i]);
    let (near, far) = (after[1..4].iter().sum::<u64>(), after[4] + after[5]);
    assert!(near > 10 && far * 10 < near, "{near} near and {far} far: {after:?}");
}

/// Sends each task where [`Context::pick`], or [`Context::pick_warm`], says.
struct Picks {
    warm: bool,
}

impl Scheduler for Picks {
    type Task = ();

    fn enqueue(&mut self, cx: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        let pick = match self.warm && task.wakeup {
            true => cx.pick_warm(task.cpu, &task.allowed, task.stopped_at - task.started_at),
            false => cx.pick(task.cpu, &task.allowed),
        };
        pick.cpu().map_or(task.anywhere(), |cpu| task.anywhere().on(cpu)).into()
    }
}

/// Of five tasks that are brief on two caches of two CPUs: wakeups under another cache and all, in 10 s. And what they got.
fn far_wakeups(policy: Picks, stopped: bool) -> (u64, u64, u64) {
    let machine = Topology::synthetic().l3s(2).cores(2).build().unwrap();
    let mut work = Workload::new();
    let brief = vec![
        Step::Run(Span::Exponential(Nanos::from_micros(500))),
        Step::Sleep(Span::Exponential(Nanos::from_micros(1_500))),
    ];
    let tasks = work.group("brief", 5, Spec::default(), brief);
    let mut sim = Sim::new(Setup::new(machine), &work, policy).unwrap();
    if stopped {
        sim.stop_agent(ms(20_000));
        sim.run(ms(100));
    }
    sim.run(ms(10_000));
    sim.check().unwrap();
    let sum = |of: &dyn Fn(&TaskFigures) -> u64| sim.group(tasks).iter().map(of).sum::<u64>();
    (sum(&|t| t.moves[4] + t.moves[5]), sum(&|t| t.moves.iter().sum()), sum(&|t| t.ran.as_u64()))
}

#[test]
fn a_task_that_wakes_up_waits_for_its_cache_rather_than_leave_it() {
    let (far, _, ran) = far_wakeups(Picks { warm: false }, false);
    let (warm, all, ran_warm) = far_wakeups(Picks { warm: true }, false);
    assert!(far > 100 && warm * 10 < far, "{far} by the chart, {warm} of {all}");
    assert!(ran_warm * 100 > ran * 97, "{ran_warm} of {ran}");
    let (far, all, ran_core) = far_wakeups(Picks { warm: false }, true);
    assert!(far * 100 < all, "without an agent {far} of {all}");
    assert!(ran_core * 100 > ran * 97, "{ran_core} of {ran}");
}

#[test]
fn a_slow_agent_degrades_and_a_good_one_gets_the_machine_back() {
    let mut work = Workload::new();
    let sleeper =
        vec![Step::Run(Span::Exponential(Nanos::from_micros(300))), Step::Sleep(Span::Exponential(ms(2)))];
    work.group("sleepers", 60, Spec::default(), sleeper);
    let mut sim = Sim::new(two_cpus(), &work, Fifo).unwrap();
    sim.run(ms(500));
    let mut slow = Costs::default();
    slow.event = ms(2);
    sim.set_costs(slow);
    sim.run(ms(3_000));
    assert!(sim.latch().entered > 0);
    sim.set_costs(Costs::default());
    sim.run(ms(4_000));
    sim.check().unwrap();
    assert_eq!(sim.latch().mode, Mode::Normal);
}

#[test]
fn garbage_in_the_ring_and_cpus_that_go_break_nothing() {
    let mut work = Workload::new();
    work.group("hogs", 6, Spec::default(), hog());
    work.group(
        "sleepers",
        6,
        Spec::default(),
        vec![Step::Run(Nanos::from_micros(200).into()), Step::Sleep(ms(1).into())],
    );
    let mut sim = Sim::new(Setup::new(Topology::flat(4)), &work, Fair).unwrap();
    let mut random = 1u64;
    for round in 0..2_000u64 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        sim.send_raw(RawDecision {
            pid: 100 + (random >> 60) as i32,
            generation: random,
            cpu: (random >> 32) as i32 % 8,
            flags: u32::from(random & 4 == 0),
            slice: random >> 20,
            vtime: random,
            permit: (random >> 8) as u32 & 7,
            permit_ns: random >> 16,
            rate: (random >> 40) as u32,
            mark: 0,
        });
        if round % 50 == 0 {
            sim.set_online(Cpu((round / 50 % 3) as u32), round % 100 == 0);
        }
        sim.run(ms(1));
        sim.check().unwrap_or_else(|e| panic!("round {round}: {e}"));
    }
    assert!(sim.counters().dec_refused > 0 && sim.counters().dec_stale > 0);
}

#[test]
fn the_same_seed_gives_the_same() {
    let run = |seed| {
        let mut work = Workload::new();
        work.group(
            "s",
            40,
            Spec::default(),
            vec![
                Step::Run(Span::Exponential(Nanos::from_micros(200))),
                Step::Sleep(Span::Uniform(ms(1), ms(4))),
            ],
        );
        let mut setup = Setup::new(Topology::flat(4));
        setup.seed = seed;
        let mut sim = Sim::new(setup, &work, Fair).unwrap();
        sim.run(ms(2_000));
        format!("{:?} {:?} {}", sim.tasks(), sim.counters(), sim.happened())
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
}

#[test]
fn a_killed_agent_has_a_successor() {
    let text = "machine cpus=2
        time 6s
        group hogs count=4
          run 1s
        group beat
          run 1ms
          every 20ms
        at 1s kill 1s
        at 1.5s garbage 500
        at 3s stop 200ms
        at 4s affinity hogs 0
        at 5s weight hogs 300
        at 5.5s affinity hogs all";
    let scenario: Scenario = text.parse().unwrap();
    let sim = scenario.run(|| Fair).unwrap();
    sim.check().unwrap();
    assert_eq!(sim.latch().mode, Mode::Normal, "{:?}", sim.latch());
    assert!(sim.latch().entered >= 2 && sim.counters().dec_stale + sim.counters().dec_refused > 400);
    let tasks = sim.tasks();
    assert!(tasks.iter().all(|t| t.longest_wait < ms(150)), "{tasks:?}");
    assert!(tasks.iter().filter(|t| t.weight == 300).count() == 4);
    // Without a successor the core goes on by itself.
    let mut sim = Sim::new(two_cpus(), &scenario.work, Fair).unwrap();
    sim.run(ms(500));
    sim.kill_agent(ms(1));
    sim.run(ms(2_000));
    sim.check().unwrap();
    assert_eq!((sim.latch().mode, sim.agent_pid()), (Mode::Degraded, None));
    assert!(sim.tasks().iter().all(|t| t.longest_wait < ms(100)));
}

#[test]
fn every_shape_is_work_that_can_be_done() {
    for shape in Shape::ALL {
        let mut sim = Sim::new(Setup::new(Topology::flat(4)), &shape.workload(4), Fair).unwrap();
        sim.run(ms(1_000));
        sim.check().unwrap_or_else(|e| panic!("{shape}: {e}"));
        let ran: u64 = sim.tasks().iter().map(|t| t.ran.as_u64()).sum();
        assert!(ran > 400_000_000, "{shape}: {}", Nanos(ran));
        assert_eq!((sim.latch().mode, sim.latch().entered), (Mode::Normal, 0), "{shape}");
    }
    assert!("hog".parse::<Shape>().unwrap_err().contains("fork-storm"));
}

#[test]
fn work_that_never_ends_is_found() {
    let mut work = Workload::new();
    let ring = work.group("ring", 1, Spec::default(), vec![Step::Exit]);
    *work.steps(ring).unwrap() = vec![Step::Wake(ring), Step::Block];
    let mut sim = Sim::new(two_cpus(), &work, Fifo).unwrap();
    sim.run(ms(100));
    assert!(sim.check().unwrap_err().contains("(group ring) goes round and round"));
    let mut work = Workload::new();
    work.group("alone", 1, Spec::default(), vec![Step::Join]);
    let mut sim = Sim::new(two_cpus(), &work, Fifo).unwrap();
    sim.run(ms(100));
    assert!(sim.check().unwrap_err().contains("(group alone)"));
}

#[test]
fn work_that_cannot_be_done_is_an_error() {
    let errors: Vec<_> = [
        vec![],
        vec![Step::Pin(CpuSet::ALL)],
        vec![Step::Run(Nanos::ZERO.into())],
        vec![Step::Every(Nanos::ZERO), Step::Run(ms(1).into())],
        vec![Step::Run(Span::Uniform(ms(2), ms(1)))],
    ]
    .into_iter()
    .map(|steps| {
        let mut work = Workload::new();
        work.group("bad", 1, Spec::default(), steps);
        Sim::new(two_cpus(), &work, Fifo).unwrap_err()
    })
    .collect();
    assert!(errors.iter().all(|e| e.contains("group 0 (bad)")), "{errors:?}");
    // A group that another workload made.
    let mut other = Workload::new();
    let group = (0..3).map(|_| other.group("x", 0, Spec::default(), hog())).last().unwrap();
    let mut work = Workload::new();
    work.group("bad", 1, Spec::default(), vec![Step::Run(ms(1).into()), Step::Wake(group)]);
    assert!(Sim::new(two_cpus(), &work, Fifo).unwrap_err().contains("step 1: there is no group 2"));
}

#[test]
fn a_task_whose_first_step_is_to_wait_leaves_its_cpu_to_others() {
    let mut work = Workload::new();
    let hogs = work.group("hogs", 4, Spec::default(), hog());
    work.group("waits", 6, Spec::default(), vec![Step::Block]);
    let mut sim = Sim::new(two_cpus(), &work, Fifo).unwrap();
    sim.run(ms(2_000));
    sim.check().unwrap();
    let ran: u64 = sim.group(hogs).iter().map(|task| task.ran.as_u64()).sum();
    assert!(ran > 3_900_000_000, "{ran} ns of 4 s");
}

#[test]
#[ignore = "a measurement: cargo test --release -p qumun --features sim --test sim -- --ignored --nocapture"]
fn speed() {
    // Half of the CPUs are busy on the average, and the agent can keep up: an event includes the policy's call.
    for (cpus, tasks, run, sleep, time) in
        [(8u32, 200usize, 50, 2_500, 4_000u64), (1024, 100_000, 500, 100_000, 2_000)]
    {
        let mut work = Workload::new();
        let [run, sleep] = [run, sleep].map(|us| Span::Exponential(Nanos::from_micros(us)));
        work.group("sleepers", tasks, Spec::default(), vec![Step::Run(run), Step::Sleep(sleep)]);
        let builder = qumun::builder("speed").tasks(tasks + 10);
        let mut sim = Sim::with(Setup::new(Topology::flat(cpus)), &work, Fifo, builder).unwrap();
        sim.run(ms(300));
        let (before, start) = (sim.happened(), std::time::Instant::now());
        sim.run(ms(time));
        let took = start.elapsed();
        sim.check().unwrap();
        assert_eq!((sim.latch().mode, sim.latch().entered), (Mode::Normal, 0), "the agent could not keep up");
        let n = sim.happened() - before;
        println!(
            "{cpus} CPUs, {tasks} tasks: {n} events in {took:?}, {:.2} million a second",
            n as f64 / took.as_secs_f64() / 1e6
        );
    }
}
