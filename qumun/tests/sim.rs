//! Simulated time: who gets what, and whether it is the same each time.

use qumun::sim::{Setup, Sim, Spec, Step, Workload, jain};
use qumun::{Context, Nanos, Queued, Scheduler, Topology, Verdict};

struct Fifo;

impl Scheduler for Fifo {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().vtime(task.enqueued_at.as_u64()).into()
    }
}

fn ms(n: u64) -> Nanos {
    Nanos::from_millis(n)
}

fn hog() -> Vec<Step> {
    vec![Step::Run(ms(1_000).into())]
}

#[test]
fn hogs_share_two_cpus() {
    let mut work = Workload::new();
    let hogs = work.group("hogs", 7, Spec::default(), hog());
    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, Fifo).unwrap();
    sim.run(ms(10_000));
    sim.check().unwrap();
    let shares: Vec<f64> = sim.group(hogs).iter().map(|t| t.ran.as_u64() as f64).collect();
    let total: f64 = shares.iter().sum();
    println!("{shares:?} {:?} agent {} wasted {} happened {}", sim.counters(), sim.agent_ran(), sim.wasted(), sim.happened());
    assert!(jain(shares) >= 0.99);
    assert!(total / 20_000e6 > 0.97, "{}", total / 20_000e6);
}

#[test]
#[ignore = "a measurement"]
fn speed() {
    for (cpus, tasks, time) in [(8, 200, 2_000), (1024, 100_000, 200)] {
        let mut work = Workload::new();
        work.group("sleepers", tasks, Spec::default(), vec![
            Step::Run(qumun::sim::Span::Exponential(Nanos::from_micros(50))),
            Step::Sleep(qumun::sim::Span::Exponential(Nanos::from_micros(50 * tasks as u64 / cpus as u64 * 2))),
        ]);
        let builder = qumun::builder("x").tasks(tasks as usize + 10);
        let mut sim = Sim::with(Setup::new(Topology::flat(cpus)), &work, Fifo, builder).unwrap();
        sim.run(ms(150));
        let before = sim.happened();
        let start = std::time::Instant::now();
        sim.run(ms(time));
        let took = start.elapsed();
        sim.check().unwrap();
        let n = sim.happened() - before;
        println!("{cpus} CPUs, {tasks} tasks: {n} events in {took:?}: {:.2} million a second; {:?} {:?}", n as f64 / took.as_secs_f64() / 1e6, sim.latch(), sim.counters());
    }
}
