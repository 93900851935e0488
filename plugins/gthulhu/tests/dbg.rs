//! debug
mod world;
use qumun::sim::{Sim, Spec, Workload, Step};
use world::*;
#[test]
fn fav() {
    let setup = setups()[0].clone();
    let mut work = Workload::new();
    let named = |comm| Spec { comm, ..Spec::default() };
    let b = work.group("boosted", 4, named("boosted"), hog());
    let h = work.group("background", 1, named("hog"), hog());
    let server = work.group("server", 1, named("server"), vec![Step::Block]);
    let client = work.group("client", 1, named("client"), vec![Step::Block]);
    if let Some(steps) = work.steps(server) {
        *steps = vec![Step::Block, Step::Run(us(300).into()), Step::Wake(client)];
    }
    if let Some(steps) = work.steps(client) {
        *steps = vec![
            Step::Every(ms(1_000)),
            Step::Run(us(200).into()),
            Step::Wake(server),
            Step::Block,
            Step::Run(us(200).into()),
        ];
    }
    let world = World::new().label("boosted", latency(0, 1_000));
    let mut sim = Sim::new(setup, &work, world).unwrap();
    for _ in 0..60 {
        sim.run(ms(100));
        println!("dbg {} {:?} {:?} {:?} {:?} rescued {} entered {}", sim.now(), sim.group(b).iter().map(|t| t.ran.as_u64()/1000000).collect::<Vec<_>>(), sim.group(h).iter().map(|t| t.ran.as_u64()/1000000).collect::<Vec<_>>(), 
        sim.group(server).iter().map(|t| (t.ran.as_u64()/1000, t.runs, t.wakeups)).collect::<Vec<_>>(), sim.group(client).iter().map(|t| (t.ran.as_u64()/1000, t.runs, t.wakeups)).collect::<Vec<_>>(),
        sim.counters().rescued, sim.latch().entered);
    }
    println!("dbg {:?}", sim.counters());
}
