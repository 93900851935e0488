//! cgroups of any weight that come and go, and tasks that move between them: the machine stays usable for who has nothing
//! to do with it.
//!
//! The drill `cgroups` of the guests, in simulated time. A user's shell is at the root: ten times a second it starts a
//! program and waits for its end. Two busy tasks, each in a cgroup of weight 10,000, leave little to it by the weights. But
//! they must not have the machine for seconds because credits and leads of 100 ms count a hundred times for them.

mod world;

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::sim::{Group, Setup, Sim, Spec, Step, Workload};
use qumun::{Cpu, CpuSet, Nanos, Permit, Topology};
use world::{hog, ms, us};

const CGROUPS: usize = 6;
/// From one change to the next.
const PAUSE: u64 = 50;
/// How exactly the beat is measured.
const LOOK: u64 = 5;
const ROOT: u64 = 1;

#[test]
fn a_shell_at_the_root_stays_usable_while_cgroups_churn() {
    for seed in 1..=4 {
        for (binds, wakeups) in [(false, 0), (true, 0), (false, 8), (true, 8)] {
            let gap = longest_gap(seed, binds, Permit::wakeups(wakeups), ms(20_000));
            let world = format!("the seed {seed}, binds: {binds}, permits of {wakeups}");
            assert!(gap <= ms(1_000), "{gap} without a beat, with {world}");
        }
    }
}

/// The longest time without the end of a program, while one thing after the other changes.
fn longest_gap(seed: u64, binds: bool, permit: Permit, time: Nanos) -> Nanos {
    let mut work = Workload::new();
    let mut movable = Vec::new();
    for _ in 0..2 {
        movable.push(vec![work.group("hog", 1, Spec::default(), hog())]);
        let steps = vec![Step::Run(us(200).into()), Step::Every(ms(2))];
        movable.push(vec![work.group("periodic", 1, Spec::default(), steps)]);
    }
    let (writers, readers) = work.pipes(4, us(50));
    movable.push(vec![writers, readers]);
    let program = work.group("program", 0, Spec::default(), vec![Step::Run(ms(15).into()), Step::Exit]);
    let steps = vec![Step::Every(ms(100)), Step::Run(ms(2).into()), Step::Fork(program), Step::Join];
    let shell = work.group("shell", 1, Spec::default(), steps);

    let mut sim = Sim::new(Setup::new(Topology::flat(2)), &work, Gthulhu::default().permit(permit)).unwrap();
    let mut churn = Churn::new(seed, binds, movable);
    let (end, mut last, mut beats, mut longest) = (sim.now() + time, sim.now(), 0, Nanos::ZERO);
    while sim.now() < end {
        churn.step(&mut sim);
        for _ in 0..PAUSE / LOOK {
            sim.run(ms(LOOK));
            longest = longest.max(sim.now() - last);
            let wakeups = sim.group(shell)[0].wakeups;
            if wakeups != beats {
                (beats, last) = (wakeups, sim.now());
            }
        }
    }
    sim.check().unwrap();
    longest
}

/// cgroups, and who is where.
struct Churn {
    random: Random,
    binds: bool,
    movable: Vec<Movable>,
    cgroups: [Option<Cgroup>; CGROUPS],
    /// No number comes twice.
    next: u64,
}

/// Tasks that move together.
struct Movable {
    groups: Vec<Group>,
    cgroup: u64,
}

#[derive(Clone, Copy)]
struct Cgroup {
    id: u64,
    cpus: CpuSet,
}

const CPUS: CpuSet = CpuSet::first_n(2);

impl Churn {
    fn new(seed: u64, binds: bool, movable: Vec<Vec<Group>>) -> Self {
        let movable = movable.into_iter().map(|groups| Movable { groups, cgroup: ROOT }).collect();
        Self { random: Random::new(seed), binds, movable, cgroups: [None; CGROUPS], next: ROOT + 1 }
    }

    /// One change, as the drill makes it.
    fn step(&mut self, sim: &mut Sim<Gthulhu>) {
        let at = self.random.below(CGROUPS);
        let Some(mut cgroup) = self.cgroups[at] else {
            assert!(sim.make_cgroup(self.next, ROOT, 100));
            self.cgroups[at] = Some(Cgroup { id: self.next, cpus: CPUS });
            self.next += 1;
            return;
        };
        match self.random.below(8) {
            0 => {
                let root = Cgroup { id: ROOT, cpus: CPUS };
                self.movable.iter_mut().filter(|m| m.cgroup == cgroup.id).for_each(|m| m.go(sim, root));
                assert!(sim.remove_cgroup(cgroup.id));
                self.cgroups[at] = None;
            }
            1 | 2 => assert!(sim.set_weight(cgroup.id, 1 + self.random.below(10_000) as u32)),
            3 if self.binds => {
                let cpu = self.random.below(3) as u32;
                cgroup.cpus = if cpu < 2 { CpuSet::of(Cpu(cpu)) } else { CPUS };
                self.cgroups[at] = Some(cgroup);
                self.movable.iter_mut().filter(|m| m.cgroup == cgroup.id).for_each(|m| m.go(sim, cgroup));
            }
            _ => {
                let which = self.random.below(self.movable.len());
                self.movable[which].go(sim, cgroup);
            }
        }
    }
}

impl Movable {
    fn go(&mut self, sim: &mut Sim<Gthulhu>, to: Cgroup) {
        for &group in &self.groups {
            sim.move_group(group, to.id);
            assert!(sim.pin_group(group, to.cpus));
        }
        self.cgroup = to.id;
    }
}

/// That of the drill (xorshift).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % limit as u64) as usize
    }
}
