//! The flow chart, case by case, and against a second version of it that shares no code.

use super::*;
use crate::CpuInfo;
use crate::topology::tests::{machines, random, set};

fn machine(name: &str) -> Topology {
    machines().into_iter().find(|(n, ..)| *n == name).unwrap_or_else(|| panic!("no machine {name}")).1
}

/// `CPU kind`, or `busy`.
fn shown(pick: Pick) -> String {
    match pick {
        Pick::Cpu { cpu, kind } => format!("{cpu} {kind}"),
        Pick::Busy => "busy".to_owned(),
    }
}

/// Each line: previous CPU, allowed, idle, what is picked. `-` is the empty list.
fn table(selector: &Selector, boosted: bool, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.split_whitespace();
        let mut word = || words.next().unwrap();
        let prev = Cpu(word().parse().unwrap());
        let mut list = || set(word().trim_matches('-'));
        let (allowed, idle) = (list(), list());
        let request = Request { boosted, ..Request::new(prev, &allowed) };
        let expected = words.collect::<Vec<_>>().join(" ");
        assert_eq!(shown(selector.pick(&request, &idle)), expected, "{line}");

        let mut left = idle;
        let pick = selector.claim(&request, &mut left);
        assert_eq!(shown(pick), expected);
        assert_eq!(left, idle - pick.cpu().map(CpuSet::of).unwrap_or_default(), "{line}");
    }
}

#[test]
fn one_cpu() {
    let selector = Selector::new(machine("one CPU"));
    table(
        &selector,
        false,
        "0 0-1023 0   0 only
         0 0-1023 -   busy
         0 -      0   busy
         9 0      0   0 only
         0 1      0-1 busy",
    );
}

#[test]
fn smt() {
    // Cores 0-1 2-3 4-5 6-7, one L3.
    let selector = Selector::new(machine("SMT"));
    table(
        &selector,
        false,
        "3 3   3         3 only
         3 3   0-2,4-7   busy
         1 3   3         3 only
         3 0-7 0-7       3 prev-core
         3 0-7 0-1,3     0 core-l3
         3 0-7 0,3,6-7   6 core-l3
         3 0-7 0,3,6     3 prev
         3 0-7 0,2,6     2 l2
         3 0-7 0,6       0 l3
         3 0-7 -         busy
         3 1,5 0-7       1 prev-core
         3 5,7 0-3,5     5 prev
         3 5,7 0-3,7     7 l3
         3 0-1 2-7       busy
         9 4-7 5-7       6 core-l3
         9 4-7 4-7       4 prev-core",
    );
    // Cores 0,4 1,5 2,6 3,7.
    let selector = Selector::new(machine("SMT, threads apart"));
    table(
        &selector,
        false,
        "5 0-7 0-3,5     5 prev-core
         5 0-7 0,2,4-5   0 core-l3
         5 0-7 0,5       5 prev
         5 0-7 0-1       1 l2
         5 0-7 1,4       1 l2",
    );
}

#[test]
fn without_smt() {
    let selector = Selector::new(machine("flat"));
    table(
        &selector,
        false,
        "2 0-5 0-5   2 prev
         2 0-5 0,4   0 l3
         2 3-5 0,4   4 l3
         2 3-5 0-2   busy",
    );
}

#[test]
fn two_l3s() {
    // [0-1 2-3] [4-5 6-7] | [8-9 10-11] [12-13 14-15]
    let selector = Selector::new(machine("two L3s"));
    table(
        &selector,
        false,
        "12 0-15 0-15             12 prev-core
         12 0-15 0-11,14-15       14 core-l2
         12 0-15 0-3,8-9,12,14    8 core-l3
         12 0-15 0-3,8,12,14      0 core-any
         12 0-15 0,8,12,14        12 prev
         12 0-15 0,8,14           14 l2
         12 0-15 0,8              8 l3
         12 0-15 0,2              0 any
         12 0-15 0-7              0 core-any
         12 0-7  0-15             0 prev-core
         12 2,9  0-15             9 prev-core",
    );
}

#[test]
fn two_nodes() {
    // [0 1] [2 3] | [4 5] [6 7] || [8 9] [10 11] | [12 13] [14 15]
    let lines = "12 0-15 0-15       12 prev
         12 0-15 0-11,13-15 13 l2
         12 0-15 0-11,14    14 l3
         12 0-15 0-9        8 any";
    let selector = Selector::new(machine("two nodes"));
    table(&selector, false, lines);
    table(&selector, false, "12 0-15 0-7 0 any\n12 0-7 1-7 1 l2\n12 3,8 0-7 3 any");
    let selector = selector.with_reach(Reach::Node);
    table(&selector, false, lines);
    table(&selector, false, "12 0-15 0-7 busy\n12 0-7 1-7 1 l2\n12 3,8 0-7 busy\n12 3 3 3 only");
    // From nowhere: the lowest allowed CPU, and its node.
    table(&selector, false, "99 6-15 9-15 busy\n99 6-15 7-15 7 l2");
}

#[test]
fn hybrid() {
    // 0-1 2-3 4-5 6-7 8-9 10-11 [12 13 14 15] [16 17 18 19], the clusters at half capacity.
    let selector = Selector::new(machine("hybrid"));
    table(
        &selector,
        false,
        "13 0-19  0-19         13 prev-core
         13 0-19  0-12,14-19   12 core-l2
         13 0-19  0-11,16-19   0 core-l3
         13 0-19  0,16-19      16 core-l3
         2  0-19  4,12-19      12 core-l3
         2  0-19  0,2,4        2 prev
         2  0-19  4,6          4 l3
         2  12-19 0-19         12 prev-core
         19 0-19  4,6          4 l3",
    );
    // Prefers the strong one even when the weak one has the lower number.
    let cpus = [(0, 400), (1, 400), (2, 1024), (3, 1024)].map(|(cpu, capacity)| CpuInfo {
        cpu: Cpu(cpu),
        core: cpu,
        l2: cpu,
        capacity,
        ..CpuInfo::default()
    });
    let selector = Selector::new(Topology::from_cpus(&cpus).unwrap());
    table(&selector, false, "0 0-3 1-3 2 l3\n0 0-3 1 1 l3\n0 0-3 0-3 0 prev");
}

#[test]
fn a_thousand_cpus() {
    // Core n has the threads n and n + 512; 16 cores at an L3, 8 L3s in a node, two nodes in a package.
    let selector = Selector::new(machine("1,024 CPUs"));
    table(
        &selector,
        false,
        "1023 0-1023 0-1023            1023 prev-core
         1023 0-1023 0-510,512-1023    496 core-l3
         1023 0-1023 0-495,512-1007    384 core-any
         1023 0-1023 0-300,512-1023    0 core-any
         1023 0-1023 0-300,400,512-1023 400 core-any
         1023 0-1023 1,512-1023        1 core-any
         1023 0-1023 512-1023          1023 prev
         1023 0-1023 1000-1022         1008 l3
         1023 0-1023 511-1022          511 l2
         1023 0-1023 600-700           600 any
         1023 1000   1000              1000 only",
    );
}

#[test]
fn ordinary_work_avoids_cores_with_boosted_work_while_others_are_free() {
    // Cores 0-1 2-3 4-5 6-7.
    let mut selector = Selector::new(machine("SMT"));
    selector.mark_boosted(Cpu(2), true);
    selector.mark_boosted(Cpu(5), true);
    table(
        &selector,
        false,
        "2 0-7 0-7     0 core-l3
         2 0-7 2-5     3 l2
         2 0-7 2,4-5   4 l3
         2 0-7 2,5     2 prev
         2 2-3 2-3     3 l2
         2 2,5 2,4-5   5 core-l3
         2 2,5 4-5     5 core-l3
         2 2   2       2 only
         4 4-5 4-5     4 prev
         4 5-7 5-7     6 core-l3",
    );
    table(
        &selector,
        true,
        "2 0-7 0-7     2 prev-core
         2 0-7 2-5     2 prev-core
         2 0-7 2,4-5   4 core-l3
         2 0-7 2,5     2 prev",
    );
    selector.mark_boosted(Cpu(2), false);
    selector.mark_boosted(Cpu(9999), true);
    assert_eq!(selector.boosted(), &set("5"));
    table(&selector, false, "2 0-7 0-7 2 prev-core");
}

#[test]
fn what_goes_offline_is_not_picked_and_what_comes_is() {
    let mut selector = Selector::new(machine("SMT"));
    selector.topology_mut().set_online(Cpu(3), false);
    table(
        &selector,
        false,
        "3 0-7 0-7   2 prev-core
         2 2-4 2-3   2 prev-core
         3 3   3     busy
         3 2-3 0-7   2 only
         3 3-7 5     5 l2",
    );
    let old = selector.replace_topology(machine("flat"));
    assert!(!old.online().contains(Cpu(3)) && selector.topology().online().contains(Cpu(3)));

    // CPUs whose place is not known: last choice, but a choice.
    let mut selector = Selector::new(machine("holes")).with_reach(Reach::Node);
    selector.topology_mut().set_online(Cpu(100), true);
    table(
        &selector,
        false,
        "1    0-1023 100        busy
         100  0-1023 100        100 prev-core
         100  0-1023 1,5        1 any
         100  0-1023 1,5,130    1 core-any",
    );
    let selector = selector.with_reach(Reach::Machine);
    table(
        &selector,
        false,
        "1 0-1023 64,100 64 core-l3\n1 0-1023 70,100 70 core-any\n1 0-1023 100 100 core-any",
    );
}

#[test]
fn kinds_are_found_by_their_number() {
    for (index, kind) in PickKind::ALL.into_iter().enumerate() {
        assert_eq!(kind as usize, index);
    }
}

/// The chart again: slow, CPU by CPU, from the machine's description instead of its domains.
struct Chart {
    // By number; `None` for a CPU whose place is not known or that does not exist.
    infos: Vec<Option<CpuInfo>>,
    // The threads of each CPU's core.
    threads: Vec<Vec<usize>>,
    smt: bool,
    // Strong ones first, then by number. (All weak CPUs of the machines here are much weaker.)
    order: Vec<usize>,
}

struct State<'a> {
    prev: usize,
    allowed: &'a [u64; 16],
    idle: &'a [u64; 16],
    online: &'a [u64; 16],
    reach: Reach,
}

fn has(set: &[u64; 16], cpu: usize) -> bool {
    set[cpu / 64] >> (cpu % 64) & 1 == 1
}

type Answer = Option<(usize, PickKind)>;

impl Chart {
    fn new(machine: &Topology) -> Self {
        let infos: Vec<_> = (0..machine.nr_cpus()).map(|cpu| machine.cpu(Cpu(cpu))).collect();
        let threads = |me: usize| {
            let same = |&other: &usize| {
                other == me || infos[me].zip(infos[other]).is_some_and(|(a, b)| a.core == b.core)
            };
            (0..infos.len()).filter(same).collect()
        };
        let mut order: Vec<usize> = (0..infos.len()).collect();
        order.sort_by_key(|&cpu| std::cmp::Reverse(infos[cpu].map_or(0, |info| info.capacity)));
        let threads: Vec<Vec<usize>> = (0..infos.len()).map(threads).collect();
        Self { smt: threads.iter().any(|threads| threads.len() > 1), threads, infos, order }
    }

    fn same(&self, a: usize, b: usize, domain: fn(&CpuInfo) -> u32) -> bool {
        match (self.infos.get(a), self.infos.get(b)) {
            (Some(Some(a)), Some(Some(b))) => domain(a) == domain(b),
            _ => false,
        }
    }

    fn answer(&self, s: &State<'_>, marked: Option<&[u64; 16]>) -> Answer {
        let both: [u64; 16] = std::array::from_fn(|word| s.allowed[word] & s.online[word]);
        let usable = || (0..self.infos.len()).filter(|&cpu| has(&both, cpu));
        // Only one CPU allowed?
        if let (Some(only), None) = (usable().next(), usable().nth(1)) {
            return has(s.idle, only).then_some((only, PickKind::Only));
        }
        let near = |domain| usable().find(|&cpu| self.same(s.prev, cpu, domain));
        let prev = (s.prev < self.infos.len() && has(&both, s.prev)).then_some(s.prev);
        let prev = prev.or_else(|| near(|i| i.l2)).or_else(|| near(|i| i.l3)).or_else(|| near(|i| i.node));
        let prev = prev.or_else(|| usable().next())?;
        let without = marked.and_then(|marked| {
            let mut unmarked = *s.idle;
            (0..16).for_each(|word| unmarked[word] &= !marked[word]);
            self.chart(prev, &State { idle: &unmarked, ..*s })
        });
        without.or_else(|| self.chart(prev, s))
    }

    fn chart(&self, prev: usize, s: &State<'_>) -> Answer {
        let everywhere = s.reach == Reach::Machine || self.infos[prev].is_none();
        let mut free = Vec::new();
        for &cpu in &self.order {
            let free_one = has(s.idle, cpu) && has(s.allowed, cpu) && has(s.online, cpu);
            if free_one && (everywhere || self.same(prev, cpu, |i| i.node)) {
                free.push(cpu);
            }
        }
        let first = |cpus: &[usize], domain| cpus.iter().copied().find(|&cpu| self.same(prev, cpu, domain));
        // SMT system?
        if self.smt {
            let mut cores = free.clone();
            cores.retain(|&cpu| self.threads[cpu].iter().all(|&t| !has(s.online, t) || has(s.idle, t)));
            // The previous CPU's core is fully idle?
            if cores.contains(&prev) {
                return Some((prev, PickKind::PrevCore));
            }
            // A fully idle CPU in the L2 cache?
            if let Some(cpu) = first(&cores, |i| i.l2) {
                return Some((cpu, PickKind::CoreL2));
            }
            // In the L3 cache?
            if let Some(cpu) = first(&cores, |i| i.l3) {
                return Some((cpu, PickKind::CoreL3));
            }
            // Any fully idle core?
            if let Some(cpu) = first(&cores, |i| i.node).or(cores.first().copied()) {
                return Some((cpu, PickKind::CoreAny));
            }
        }
        // The previous CPU idle?
        if free.contains(&prev) {
            return Some((prev, PickKind::Prev));
        }
        // Any idle CPU in the L2 cache?
        if let Some(cpu) = first(&free, |i| i.l2) {
            return Some((cpu, PickKind::L2));
        }
        // In the L3 cache?
        if let Some(cpu) = first(&free, |i| i.l3) {
            return Some((cpu, PickKind::L3));
        }
        // Any idle CPU?
        first(&free, |i| i.node).or(free.first().copied()).map(|cpu| (cpu, PickKind::Any))
    }
}

/// A set as dense or sparse as chance has it.
fn some_cpus(state: &mut u64, machine: &Topology) -> CpuSet {
    let one = |state: &mut u64| Cpu((random(state) % u64::from(machine.nr_cpus())) as u32);
    let mut cpus = CpuSet::EMPTY;
    match random(state) % 8 {
        0 => return CpuSet::ALL,
        1 => cpus.insert(one(state)),
        2 => cpus.extend((0..4).map(|_| one(state)).collect::<Vec<_>>()),
        3 => cpus |= *machine.domain(one(state), Level::L3),
        4 => cpus |= *machine.domain(one(state), Level::Node),
        5 => {}
        density => {
            for index in 0..16 {
                let (a, b) = (random(state), random(state));
                cpus.set_word(index, if density == 6 { a | b } else { a & b });
            }
        }
    }
    if random(state).is_multiple_of(4) {
        cpus |= *machine.domain(one(state), Level::Core);
    }
    cpus
}

/// How often each box of the chart was reached. `QUMUN_STATES` is the number of states for each machine,
/// 100,000 unless told.
fn agrees_with_the_chart(which: impl Fn(&str) -> bool) -> [u64; PickKind::ALL.len()] {
    let states = std::env::var("QUMUN_STATES").ok().and_then(|n| n.parse().ok()).unwrap_or(100_000_u64);
    let mut kinds = [0; PickKind::ALL.len()];
    for (name, topology, _) in machines().into_iter().filter(|(name, ..)| which(name)) {
        let chart = Chart::new(&topology);
        let original = *topology.online();
        let nr_cpus = topology.nr_cpus();
        let mut selector = Selector::new(topology);
        let mut seed = 0x9e37_79b9_7f4a_7c15 ^ u64::from(nr_cpus);
        for round in 0..states {
            if round % 64 == 0 {
                change_the_machine(&mut seed, &mut selector, original);
            }
            let topology = selector.topology();
            let (allowed, idle) = (some_cpus(&mut seed, topology), some_cpus(&mut seed, topology));
            let prev = match random(&mut seed) % 32 {
                0 => Cpu(u32::MAX),
                _ => Cpu((random(&mut seed) % u64::from(nr_cpus + 1)) as u32),
            };
            let boosted = random(&mut seed).is_multiple_of(2);
            let request = Request { boosted, ..Request::new(prev, &allowed) };

            let pick = selector.pick(&request, &idle);
            let online = topology.online();
            let answer = match pick {
                Pick::Cpu { cpu, kind } => {
                    let fine = allowed.contains(cpu) && idle.contains(cpu) && online.contains(cpu);
                    assert!(fine, "{name}: {cpu}");
                    kinds[kind as usize] += 1;
                    Some((cpu.0 as usize, kind))
                }
                Pick::Busy => {
                    let none = !(allowed & *online).intersects(&idle);
                    assert!(none || selector.reach == Reach::Node, "{name}: busy, but {allowed} & {idle}");
                    None
                }
            };
            let state = State {
                prev: prev.0 as usize,
                allowed: allowed.words(),
                idle: idle.words(),
                online: online.words(),
                reach: selector.reach,
            };
            let marked = (!boosted).then_some(selector.boosted.words());
            assert_eq!(
                answer,
                chart.answer(&state, marked),
                "{name}, state {round}: idle {idle}, online {online}, {request:?}, marked {}, {:?}",
                selector.boosted,
                selector.reach,
            );
        }
    }
    kinds
}

/// Mostly all CPUs are online; sometimes some are gone, sometimes some have come that are not known.
fn change_the_machine(seed: &mut u64, selector: &mut Selector, original: CpuSet) {
    let online = match random(seed) % 4 {
        0 => some_cpus(seed, selector.topology()),
        _ => original,
    };
    for cpu in selector.topology().possible().to_owned().iter() {
        selector.topology_mut().set_online(cpu, online.contains(cpu));
    }
    selector.boosted = some_cpus(seed, selector.topology());
    selector.reach = if random(seed).is_multiple_of(2) { Reach::Machine } else { Reach::Node };
}

#[test]
fn agrees_with_the_chart_on_small_machines() {
    let kinds = agrees_with_the_chart(|name| !name.starts_with("1,024") && name != "holes");
    // A generator that never leads to some box tests nothing there.
    let boxes = &kinds[..PickKind::Soon as usize];
    assert!(boxes.iter().all(|&times| times > 0), "{kinds:?}");
}

#[test]
fn agrees_with_the_chart_on_a_machine_with_holes() {
    agrees_with_the_chart(|name| name == "holes");
}

#[test]
fn agrees_with_the_chart_on_a_large_machine() {
    agrees_with_the_chart(|name| name == "1,024 CPUs");
}

#[test]
fn agrees_with_the_chart_on_a_large_machine_without_smt() {
    agrees_with_the_chart(|name| name == "1,024 CPUs without SMT");
}

/// [`Reach::Cache`] against [`Reach::Machine`]: the own cache is left only when nothing in it is idle, and then the
/// chart decides alone.
#[test]
fn the_cache_is_left_only_when_nothing_in_it_is_idle() {
    let seed = &mut 0x5eed_u64;
    let mut left = [0; 2];
    for name in ["two L3s", "two nodes", "hybrid"] {
        let mut selector = Selector::new(machine(name));
        for _ in 0..20_000 {
            selector.boosted = some_cpus(seed, selector.topology());
            let allowed = some_cpus(seed, selector.topology());
            let idle = some_cpus(seed, selector.topology());
            let prev = Cpu((random(seed) % u64::from(selector.topology().nr_cpus())) as u32);
            let mut request = Request::new(prev, &allowed);
            if random(seed).is_multiple_of(2) {
                request = request.boosted();
            }
            let chart = selector.clone().with_reach(Reach::Machine).pick(&request, &idle);
            let near = selector.clone().with_reach(Reach::Cache).pick(&request, &idle);
            let Some(from) = selector.topology().closest(prev, &allowed) else { continue };
            let own = *selector.topology().domain(from, Level::L3);
            let marked = if request.boosted { CpuSet::EMPTY } else { selector.boosted };
            // Who avoids boosted CPUs does so first, and looks for what is near then.
            let unmarked = (allowed & idle) - marked;
            let free = if unmarked.is_empty() { allowed & idle } else { unmarked };
            match near {
                Pick::Busy => assert_eq!(chart, Pick::Busy),
                Pick::Cpu { cpu, .. } if own.contains(cpu) => left[0] += 1,
                Pick::Cpu { cpu, .. } => {
                    assert!(!free.intersects(&own), "{name}: {cpu:?} though {free} & {own}");
                    assert_eq!(near, chart, "{name}");
                    left[1] += 1;
                }
            }
        }
    }
    assert!(left.iter().all(|&times| times > 100), "{left:?}");
}
