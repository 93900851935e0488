//! Traces: what is written is read, and what is broken is refused with its place.

use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use qumun::sim::{Replay, Shape};
use qumun::trace::{
    CounterRef, Entry, GroupRef, Header, Origin, Reader, Record, TaskInfo, TaskRef, TraceErrorKind, Waker,
    Why, Writer,
};
use qumun::{Cpu, CpuInfo, CpuSet, Nanos, Topology};

const CPUS: u32 = 70;

fn header() -> Header {
    let topology = Topology::synthetic().nodes(2).cores(CPUS / 2).build().unwrap();
    let mut header = Header::new(Origin::Kernel("6.18.1".into()), "gthulhu", topology);
    header.start = Nanos(1_000_000);
    header
}

/// Two groups, two counters and five tasks are there.
fn beginning() -> Vec<(u64, Record)> {
    let names = ["a", "b"];
    let groups = names.map(|name| Record::Group { id: 7, name: name.into() });
    let counters = names.map(|name| Record::CounterName(name.into()));
    let tasks = (0..5).map(|n| Record::Task(Box::new(TaskInfo::new(100 + n, "task", GroupRef(0)))));
    groups.into_iter().chain(counters).chain(tasks).map(|record| (0, record)).collect()
}

fn cpus() -> impl Strategy<Value = Option<Box<CpuSet>>> {
    prop_oneof![
        Just(None),
        prop::collection::vec(0u32..1024, 1..40)
            .prop_map(|list| Some(Box::new(list.into_iter().map(Cpu).collect()))),
    ]
}

fn record() -> impl Strategy<Value = Record> {
    let task = || (0u32..5).prop_map(TaskRef);
    let other = |task: TaskRef, by: u32| TaskRef((task.0 + 1 + by) % 5);
    let cpu = || (0..CPUS).prop_map(Cpu);
    let maybe = move || prop::option::of(task());
    prop_oneof![
        (any::<u64>(), "[a-z/]{0,40}").prop_map(|(id, name)| Record::Group { id, name }),
        (any::<u32>(), "\\PC{0,15}", 1u32..=10_000, cpus(), any::<[bool; 3]>()).prop_map(
            |(pid, name, weight, cpus, [kthread, agent, realtime])| {
                let info = TaskInfo::new((pid >> 1) as i32, &name, GroupRef(pid & 1));
                Record::Task(Box::new(TaskInfo { weight, cpus, kthread, agent, realtime, ..info }))
            }
        ),
        (maybe(), 0u32..4).prop_map(move |(parent, n)| Record::Fork {
            parent,
            child: parent.map_or(TaskRef(n), |parent| other(parent, n))
        }),
        task().prop_map(|task| Record::Exit { task }),
        (task(), 0u32..6, cpu()).prop_map(move |(task, by, cpu)| {
            let by = match by {
                4 => Waker::Interrupt,
                5 => Waker::Unknown,
                n => Waker::Task(other(task, n)),
            };
            Record::Wake { task, by, cpu }
        }),
        (cpu(), maybe(), 0u32..5, 0u8..3).prop_map(move |(cpu, from, to, why)| {
            let to = match (from, to) {
                (Some(_), 4) => None,
                (Some(from), n) => Some(other(from, n)),
                (None, n) => Some(TaskRef(n)),
            };
            let why = [Why::Blocked, Why::Preempted, Why::Exited][usize::from(why)];
            Record::Switch { cpu, from, why, to }
        }),
        (task(), 1u32..=10_000).prop_map(|(task, weight)| Record::Weight { task, weight }),
        (task(), cpus()).prop_map(|(task, cpus)| Record::Affinity { task, cpus }),
        (task(), 0u32..2).prop_map(|(task, group)| Record::Move { task, group: GroupRef(group) }),
        (task(), "[a-z]{0,15}").prop_map(|(task, name)| Record::Name { task, name }),
        (cpu(), any::<bool>()).prop_map(|(cpu, online)| Record::Online { cpu, online }),
        (0u32..2, any::<u64>())
            .prop_map(|(counter, value)| Record::Counter { counter: CounterRef(counter), value }),
        (0u64..1 << 40).prop_map(|count| Record::Dropped { count }),
        (0u32..2, any::<bool>(), 1u32..=10_000).prop_map(|(group, below, weight)| Record::Cgroup {
            group: GroupRef(group),
            parent: below.then_some(GroupRef(1 - group)),
            weight,
        }),
    ]
}

fn written(records: &[(u64, Record)]) -> Vec<u8> {
    let header = header();
    let (mut writer, mut at) = (Writer::new(Vec::new(), &header).unwrap(), header.start);
    for (passed, record) in records {
        at = at + Nanos(*passed);
        writer.record(at, record).unwrap();
    }
    writer.finish().unwrap().0
}

fn read(bytes: &[u8]) -> Result<Vec<Entry>, qumun::trace::TraceError> {
    Reader::new(bytes)?.collect()
}

/// A trace of more than one block in which all kinds of records occur.
fn sample(n: usize) -> Vec<u8> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tree = prop::collection::vec((0u64..1 << 20, record()), n..n + 1).new_tree(&mut runner).unwrap();
    let mut all = beginning();
    all.extend(tree.current());
    written(&all)
}

proptest! {
    #[test]
    fn what_was_written_is_read(records in prop::collection::vec((0u64..1 << 44, record()), 0..300)) {
        let mut all = beginning();
        all.extend(records);
        let bytes = written(&all);
        let mut at = header().start;
        let entries = read(&bytes).unwrap();
        prop_assert_eq!(entries.len(), all.len());
        for (entry, (passed, record)) in entries.iter().zip(&all) {
            at = at + Nanos(*passed);
            prop_assert_eq!((entry.at, &entry.record), (at, record));
        }
    }

    #[test]
    fn any_bytes_are_records_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(read(&bytes).is_err());
    }
}

#[test]
fn the_header_comes_back() {
    let header = header();
    let bytes = Writer::new(Vec::new(), &header).unwrap().finish().unwrap().0;
    assert_eq!(*Reader::new(bytes.as_slice()).unwrap().header(), header);
    assert!(read(&bytes).unwrap().is_empty());
}

#[test]
fn a_truncated_trace_is_an_error_and_its_whole_blocks_can_be_had() {
    let bytes = sample(20_000);
    let whole = read(&bytes).unwrap();
    let step = bytes.len() / 97;
    for len in (0..bytes.len()).step_by(step).chain([bytes.len() - 1, bytes.len() - 29]) {
        let error = read(&bytes[..len]).unwrap_err();
        assert!(error.offset() <= len as u64, "{len}: {error}");
        let expected = if len < 8 { TraceErrorKind::NotATrace } else { TraceErrorKind::Truncated };
        assert_eq!(error.kind(), expected, "{len}: {error}");
        if let Ok(reader) = Reader::new(&bytes[..len]) {
            let mut reader = reader.partial();
            let part: Vec<_> = reader.by_ref().map(|entry| entry.unwrap()).collect();
            assert_eq!(part, whole[..part.len()], "{len}");
            assert!(reader.cut().is_some());
            assert!(len < 200_000 || !part.is_empty());
        }
    }
}

#[test]
fn one_wrong_bit_is_found() {
    let bytes = sample(400);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1 << (at % 8);
        // Two bytes of the front are reserved and covered by the checksum, too.
        assert!(read(&bad).is_err(), "byte {at}");
    }
}

#[test]
fn a_later_version_is_named() {
    let mut bytes = sample(1);
    bytes[8] = 2;
    let error = read(&bytes).unwrap_err();
    assert_eq!((error.kind(), error.offset()), (TraceErrorKind::Version, 8));
    assert_eq!(error.to_string(), "byte 8: unknown version: 2; this program reads 1 to 1: use a newer one");
}

#[test]
fn machines_that_cannot_be_are_refused() {
    let cpu = |n: u32| CpuInfo { cpu: Cpu(n), core: n, l2: n, capacity: 1024, ..CpuInfo::default() };
    let refused = |cpus: &[CpuInfo]| {
        let topology = Topology::from_cpus(cpus).unwrap();
        let header = Header::new(Origin::Simulated, "x", topology);
        let bytes = Writer::new(Vec::new(), &header).unwrap().finish().unwrap().0;
        let error = Reader::new(bytes.as_slice()).unwrap_err();
        assert_eq!(error.kind(), TraceErrorKind::Impossible);
        error.to_string()
    };
    let two = |change: fn(&mut CpuInfo)| {
        let mut second = CpuInfo { core: 0, l2: 0, ..cpu(1) };
        change(&mut second);
        refused(&[cpu(0), second])
    };
    assert!(two(|second| second.package = 1).contains("one Core"));
    assert!(two(|second| second.l2 = 5).contains("two of L2"));
    assert!(two(|second| (second.core, second.l3) = (9, 9)).contains("one L2"));
}

#[test]
fn records_that_cannot_be_are_not_written() {
    let bad = [
        Record::Wake { task: TaskRef(1), by: Waker::Task(TaskRef(1)), cpu: Cpu(0) },
        Record::Wake { task: TaskRef(9), by: Waker::Interrupt, cpu: Cpu(0) },
        Record::Switch { cpu: Cpu(CPUS), from: None, why: Why::Blocked, to: Some(TaskRef(0)) },
        Record::Switch { cpu: Cpu(0), from: Some(TaskRef(0)), why: Why::Blocked, to: Some(TaskRef(0)) },
        Record::Fork { parent: Some(TaskRef(2)), child: TaskRef(2) },
        Record::Weight { task: TaskRef(0), weight: 0 },
        Record::Counter { counter: CounterRef(2), value: 0 },
        Record::Move { task: TaskRef(0), group: GroupRef(2) },
        Record::Cgroup { group: GroupRef(2), parent: None, weight: 100 },
        Record::Cgroup { group: GroupRef(0), parent: Some(GroupRef(0)), weight: 100 },
        Record::Cgroup { group: GroupRef(0), parent: None, weight: 0 },
    ];
    for record in bad {
        let mut writer = Writer::new(Vec::new(), &header()).unwrap();
        for (_, record) in beginning() {
            writer.record(Nanos(0), &record).unwrap();
        }
        let error = writer.record(Nanos(0), &record).unwrap_err();
        assert_eq!(error.kind(), TraceErrorKind::Impossible, "{record:?}");
    }
}

/// The checksum once more: whoever breaks a trace on purpose puts it right.
fn crc32(bytes: &[u8]) -> u32 {
    let bit = |crc: u32, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(!0, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), bit))
}

/// Puts all checksums right, as far as blocks can be told apart.
fn mend(bytes: &mut [u8]) {
    let word = |bytes: &[u8], at: usize| {
        bytes.get(at..at + 4).map_or(usize::MAX >> 8, |b| u32::from_le_bytes(b.try_into().unwrap()) as usize)
    };
    let fix = |from: usize, to: usize, bytes: &mut [u8]| -> bool {
        if to + 4 > bytes.len() {
            return false;
        }
        let crc = crc32(&bytes[from..to]);
        bytes[to..to + 4].copy_from_slice(&crc.to_le_bytes());
        true
    };
    let mut at = 16 + word(bytes, 12);
    if !fix(0, at, bytes) {
        return;
    }
    at += 4;
    while at < bytes.len() {
        let end = match bytes[at] {
            b'R' => at + 17 + word(bytes, at + 1),
            b'E' => at + 25,
            _ => return,
        };
        if !fix(at, end, bytes) {
            return;
        }
        at = end + 4;
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % n.max(1)
    }
}

fn mutate(bytes: &mut Vec<u8>, dice: &mut Dice) {
    for _ in 0..=dice.below(4) {
        let at = dice.below(bytes.len());
        match dice.below(6) {
            0 => bytes.truncate(at.max(1)),
            1 => bytes[at] = dice.below(256) as u8,
            2 => bytes[at] ^= 1 << dice.below(8),
            3 => bytes.insert(at, dice.below(256) as u8),
            4 => bytes[at] = [0, 0x7f, 0x80, 0xff][dice.below(4)],
            _ => {
                let (from, len) = (dice.below(bytes.len()), dice.below(64));
                let piece = bytes[from..(from + len).min(bytes.len())].to_vec();
                bytes.splice(at..at, piece);
            }
        }
    }
}

/// `QUMUN_FUZZ=600 cargo test --release … fuzz` goes on for ten minutes; two seconds without.
#[test]
fn fuzz_broken_traces_never_panic() {
    let seconds = std::env::var("QUMUN_FUZZ").ok().and_then(|s| s.parse().ok()).unwrap_or(2);
    let real = Shape::ALL.map(simulated::short_trace);
    let seeds: Vec<_> = [sample(0), sample(60), sample(300)].into_iter().chain(real).collect();
    let (mut dice, start) = (Dice(seconds), Instant::now());
    let (mut tried, mut good, mut read_in_part, mut replayed) = (0u64, 0u64, 0u64, 0u64);
    while start.elapsed() < Duration::from_secs(seconds) {
        let mut bytes = seeds[dice.below(seeds.len())].clone();
        mutate(&mut bytes, &mut dice);
        if dice.below(8) > 0 {
            mend(&mut bytes);
        }
        tried += 1;
        let whole = read(&bytes);
        let part = Reader::new(bytes.as_slice()).map(|reader| reader.partial().count());
        if let Err(error) = &whole {
            assert!(error.offset() <= bytes.len() as u64 + 17, "{error}");
        }
        good += u64::from(whole.is_ok());
        let Ok(reader) = Reader::new(bytes.as_slice()) else { continue };
        read_in_part += u64::from(part.is_ok_and(|n| n > 0));
        if let Ok(replay) = Replay::read(reader.partial())
            && replay.time < Nanos::from_millis(20)
        {
            replayed += 1;
            let done = replay.run(replay.setup(), "x", || simulated::Fifo, std::io::sink());
            let (sim, _) = done.unwrap_or_else(|error| panic!("{error}"));
            let _ = sim.check();
        }
    }
    println!("{tried} broken traces, {good} read whole, {read_in_part} in part, {replayed} replayed");
    assert!(tried > 50 && good > 0 && replayed > 0);
}

mod simulated {
    use std::cell::RefCell;
    use std::io::Write;
    use std::rc::Rc;

    use super::*;
    use qumun::sim::{Fault, Scenario, Setup, Sim, Spec, Step, Workload};
    use qumun::{Context, Events, Queued, Scheduler, Verdict};

    pub(crate) struct Fifo;

    impl Scheduler for Fifo {
        type Task = ();

        fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
            task.anywhere().vtime(task.enqueued_at.as_u64()).into()
        }
    }

    /// Who ran least for its weight: shares that hold within a second, whichever slice ends at which moment.
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

    /// Bytes that can be looked at while somebody else has the writer.
    #[derive(Clone, Default)]
    pub(crate) struct Shared(Rc<RefCell<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.borrow_mut().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn scenario(shape: Shape, seed: u64) -> Scenario {
        let mut scenario = Scenario::new(4).unwrap();
        scenario.work = shape.workload(4);
        scenario.setup.seed = seed;
        scenario.time = Nanos::from_millis(500);
        let ms = Nanos::from_millis;
        scenario.faults = vec![
            (ms(200), Fault::Offline(Cpu(1))),
            (ms(250), Fault::Online(Cpu(1))),
            (ms(300), Fault::Kill(ms(20))),
        ];
        scenario
    }

    pub(crate) fn short_trace(shape: Shape) -> Vec<u8> {
        let mut scenario = scenario(shape, 1);
        scenario.time = Nanos::from_millis(2);
        scenario.faults.clear();
        let mut sim = scenario.start(|| Fifo).unwrap();
        sim.run(Nanos::from_millis(200));
        let bytes = Shared::default();
        sim.record("fifo", bytes.clone()).unwrap();
        sim.run(scenario.time);
        sim.end_record().unwrap().unwrap();
        bytes.0.take()
    }

    fn run(shape: Shape, seed: u64, recorded: bool) -> (Vec<u8>, String) {
        let scenario = scenario(shape, seed);
        let mut sim = scenario.start(|| Fifo).unwrap();
        let bytes = Shared::default();
        if recorded {
            sim.record("fifo", bytes.clone()).unwrap();
        }
        sim.run(scenario.time);
        sim.check().unwrap();
        let figures = format!("{:?} {:?} {}", sim.tasks(), sim.counters(), sim.happened());
        if recorded {
            let summary = sim.end_record().unwrap().unwrap();
            assert_eq!(summary.bytes, bytes.0.borrow().len() as u64);
        }
        let bytes = bytes.0.borrow().clone();
        (bytes, figures)
    }

    #[test]
    fn the_same_seed_gives_the_same_bytes_and_recording_changes_nothing() {
        for shape in Shape::ALL {
            let (bytes, figures) = run(shape, 3, true);
            assert!(bytes == run(shape, 3, true).0, "{shape}");
            assert_eq!(figures, run(shape, 3, false).1, "{shape}");
            if shape == Shape::Requests {
                assert!(bytes != run(shape, 4, true).0);
            }
        }
    }

    /// What the trace tells is what the simulator counted.
    #[test]
    fn a_trace_is_consistent_and_agrees_with_the_figures() {
        for shape in Shape::ALL {
            let scenario = scenario(shape, 5);
            let mut sim = scenario.start(|| Fifo).unwrap();
            let bytes = Shared::default();
            sim.record("fifo", bytes.clone()).unwrap();
            sim.run(scenario.time);
            let end = sim.now();
            sim.end_record().unwrap().unwrap();
            let bytes = bytes.0.borrow();
            let (mut names, mut pids) = (Vec::new(), Vec::new());
            let mut on = [None; 4];
            let mut ran = std::collections::BTreeMap::<i32, u64>::new();
            let mut wakes = std::collections::BTreeMap::<i32, u64>::new();
            for entry in Reader::new(bytes.as_slice()).unwrap() {
                let entry = entry.unwrap();
                match entry.record {
                    Record::Task(info) => {
                        pids.push((!info.agent).then_some(info.pid));
                        names.push(info.name);
                    }
                    Record::Wake { task, .. } => {
                        assert!(
                            on.iter().flatten().all(|(other, _)| *other != task),
                            "{shape} {}",
                            entry.offset
                        );
                        if let Some(pid) = pids[task.0 as usize] {
                            *wakes.entry(pid).or_default() += 1;
                        }
                    }
                    Record::Switch { cpu, from, to, .. } => {
                        let place: &mut Option<(TaskRef, Nanos)> = &mut on[cpu.0 as usize];
                        assert_eq!(from, place.map(|(task, _)| task), "{shape} {}", entry.offset);
                        if let Some((task, since)) = *place
                            && let Some(pid) = pids[task.0 as usize]
                        {
                            *ran.entry(pid).or_default() += (entry.at - since).as_u64();
                        }
                        *place = to.map(|task| (task, entry.at));
                    }
                    _ => {}
                }
            }
            for (task, since) in on.into_iter().flatten() {
                if let Some(pid) = pids[task.0 as usize] {
                    *ran.entry(pid).or_default() += (end - since).as_u64();
                }
            }
            for task in sim.tasks() {
                let seen = ran.get(&task.pid.0).copied().unwrap_or(0);
                // A context switch belongs to who comes; the simulator's figure is without it.
                let slack = 1_500 * task.runs + 1;
                let figure = task.ran.as_u64();
                assert!(seen.abs_diff(figure) <= slack, "{shape} {}: {seen} and {figure}", task.pid);
                assert_eq!(
                    wakes.get(&task.pid.0).copied().unwrap_or(0),
                    task.wakeups,
                    "{shape} {}",
                    task.pid
                );
            }
            assert!(names.iter().any(|name| name == "agent"));
        }
    }

    #[test]
    fn a_first_step_that_waits_leaves_no_cpu_alone() {
        let mut work = Workload::new();
        work.group("waits", 3, Spec::default(), vec![Step::Block, Step::Run(Nanos(1_000).into())]);
        let hog = work.group("hog", 1, Spec::default(), vec![Step::Run(Nanos::from_millis(1_000).into())]);
        let mut sim = Sim::new(Setup::new(Topology::flat(1)), &work, Fifo).unwrap();
        sim.run(Nanos::from_millis(1_000));
        sim.check().unwrap();
        assert!(sim.group(hog)[0].ran > Nanos::from_millis(990), "{}", sim.group(hog)[0].ran);
    }

    fn group_shares(bytes: &[u8]) -> std::collections::BTreeMap<String, f64> {
        let (mut groups, mut of, mut on) = (Vec::new(), Vec::new(), vec![None; 64]);
        let mut ran = std::collections::BTreeMap::<String, f64>::new();
        let mut end = Nanos(0);
        let mut add =
            |of: &[Option<GroupRef>], groups: &[String], place: Option<(TaskRef, Nanos)>, now: Nanos| {
                if let Some((task, since)) = place
                    && let Some(GroupRef(group)) = of[task.0 as usize]
                {
                    *ran.entry(groups[group as usize].clone()).or_default() += (now - since).as_u64() as f64;
                }
            };
        for entry in Reader::new(bytes).unwrap() {
            let entry = entry.unwrap();
            end = entry.at;
            match entry.record {
                Record::Group { name, .. } => groups.push(name),
                Record::Task(info) => of.push((!info.agent).then_some(info.group)),
                Record::Switch { cpu, to, .. } => {
                    let place = &mut on[cpu.0 as usize];
                    let before = std::mem::replace(place, to.map(|task| (task, entry.at)));
                    add(&of, &groups, before, entry.at);
                }
                _ => {}
            }
        }
        on.into_iter().for_each(|place| add(&of, &groups, place, end));
        let total: f64 = ran.values().sum();
        ran.into_iter().map(|(name, time)| (name, time / total)).collect()
    }

    fn replay(bytes: &[u8]) -> Result<Replay, qumun::trace::TraceError> {
        Replay::read(Reader::new(bytes)?)
    }

    fn replayed(replay: &Replay) -> Vec<u8> {
        let bytes = Shared::default();
        let (sim, _) = replay.run(replay.setup(), "fair", || Fair, bytes.clone()).unwrap();
        sim.check().unwrap();
        drop(sim);
        bytes.0.take()
    }

    #[test]
    fn a_replay_under_the_same_policy_gives_the_same_shares() {
        for shape in Shape::ALL {
            let mut scenario = Scenario::new(4).unwrap();
            scenario.work = shape.workload(4);
            // The agent decides from the beginning, as in what is replayed.
            let mut sim = scenario.start(|| Fair).unwrap();
            sim.run(Nanos::from_millis(200));
            let bytes = Shared::default();
            sim.record("fair", bytes.clone()).unwrap();
            // A light hog has its turn for 8 ms of each 120.
            sim.run(Nanos::from_millis(if shape == Shape::Hogs { 8_000 } else { 1_000 }));
            sim.end_record().unwrap().unwrap();
            let bytes = bytes.0.borrow();
            let replay = replay(&bytes).unwrap();
            assert_eq!(replay.dropped, 0);
            let again = replayed(&replay);
            assert!(again == replayed(&replay), "{shape}: not the same bytes");
            let (was, is) = (group_shares(&bytes), group_shares(&again));
            for (group, share) in &was {
                let now = is.get(group).copied().unwrap_or(0.0);
                assert!((now - share).abs() <= 0.05 * share.max(0.02), "{shape} {group}: {share} and {now}");
            }
        }
    }

    /// Two CPUs and three tasks; the records, and what is wrong with the last one.
    fn refused(records: &[Record]) -> String {
        let header = Header::new(Origin::Simulated, "x", Topology::flat(2));
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let group = writer.group(1, "g").unwrap();
        for pid in 100..103 {
            writer.task(Nanos(0), &TaskInfo::new(pid, "t", group)).unwrap();
        }
        for (record, at) in records.iter().zip(1..) {
            writer.record(Nanos(at * 1_000), record).unwrap();
        }
        let bytes = writer.finish().unwrap().0;
        let last = Reader::new(bytes.as_slice()).unwrap().last().unwrap().unwrap().offset;
        let error = replay(&bytes).unwrap_err();
        assert_eq!((error.kind(), error.offset()), (TraceErrorKind::Impossible, last), "{error}");
        error.to_string()
    }

    #[test]
    fn what_cannot_have_happened_is_an_error_with_its_place() {
        let [a, b, c] = [0, 1, 2].map(TaskRef);
        let wake = |task, by| Record::Wake { task, by: Waker::Task(by), cpu: Cpu(0) };
        let on = |cpu, from, why, to| Record::Switch { cpu: Cpu(cpu), from, why, to };
        let (blocks, stays, ends) = (Why::Blocked, Why::Preempted, Why::Exited);
        let a_on = on(0, None, blocks, Some(a));
        for (records, words) in [
            (vec![a_on.clone(), on(0, Some(b), blocks, None)], "was there"),
            (vec![a_on.clone(), on(1, None, blocks, Some(a))], "on CPUs 0 and 1"),
            (
                vec![a_on.clone(), on(0, Some(a), blocks, None), on(1, None, blocks, Some(a))],
                "nobody woke it",
            ),
            (vec![a_on.clone(), on(0, Some(a), ends, None), on(1, None, blocks, Some(a))], "after its end"),
            // Two that sleep wake each other: a circle without a beginning.
            (
                vec![
                    a_on.clone(),
                    on(0, Some(a), blocks, Some(b)),
                    on(0, Some(b), blocks, Some(c)),
                    wake(a, b),
                ],
                "which did not run",
            ),
            (vec![a_on.clone(), on(0, Some(a), ends, Some(b)), wake(a, b)], "woken after its end"),
            (vec![a_on.clone(), on(0, Some(a), stays, None), on(1, Some(a), blocks, None)], "was not there"),
            (vec![a_on, Record::Fork { parent: Some(b), child: a }], "was there before"),
        ] {
            let error = refused(&records);
            assert!(error.contains(words), "{words}: {error}");
        }
    }

    /// Who ran least for the weight of its cgroup.
    #[derive(Default)]
    struct ByGroup;

    impl Scheduler for ByGroup {
        type Task = (u64, Nanos);
        const EVENTS: Events = Events::CGROUPS;

        fn enqueue(&mut self, cx: &mut Context<'_, Self::Task>, task: &Queued) -> Verdict {
            let (vtime, charged) = cx.task(task);
            if task.stopped_at > *charged {
                *vtime +=
                    (task.stopped_at - task.started_at).as_u64() * 100 / u64::from(task.cgroup_weight.max(1));
                *charged = task.stopped_at;
            }
            task.anywhere().vtime(*vtime).into()
        }
    }

    #[test]
    fn recorded_cgroups_have_their_weights_in_the_replay() {
        let mut header = Header::new(Origin::Kernel("7.3".into()), "any", Topology::flat(1));
        header.start = Nanos(1_000_000);
        let mut writer = Writer::new(Vec::new(), &header).unwrap();
        let [light, heavy] = ["light", "heavy"].map(|name| writer.group(40, name).unwrap());
        for (group, weight) in [(heavy, 300), (light, 100)] {
            writer.record(header.start, &Record::Cgroup { group, parent: None, weight }).unwrap();
        }
        let tasks = [(100, light), (101, heavy)]
            .map(|(pid, group)| writer.task(header.start, &TaskInfo::new(pid, "hog", group)).unwrap());
        let mut at = header.start;
        for task in tasks {
            writer.record(at, &Record::Wake { task, by: Waker::Interrupt, cpu: Cpu(0) }).unwrap();
        }
        let mut on = None;
        for turn in 0..1_000 {
            let to = Some(tasks[turn % 2]);
            writer.record(at, &Record::Switch { cpu: Cpu(0), from: on, why: Why::Preempted, to }).unwrap();
            (on, at) = (to, at + Nanos::from_millis(5));
        }
        let bytes = writer.finish().unwrap().0;
        let replay = replay(&bytes).unwrap();
        let (sim, _) = replay.run(replay.setup(), "by group", ByGroup::default, std::io::sink()).unwrap();
        sim.check().unwrap();
        let ran = |group: usize| -> f64 {
            sim.tasks().iter().filter(|t| t.group == group).map(|t| t.ran.as_u64() as f64).sum()
        };
        let ratio = ran(1) / ran(0);
        assert!((2.9..3.1).contains(&ratio), "{ratio}");
    }

    #[test]
    fn a_trace_with_a_hole_is_put_right() {
        let (bytes, _) = run(Shape::Requests, 3, true);
        let mut reader = Reader::new(bytes.as_slice()).unwrap();
        let mut writer = Writer::new(Vec::new(), reader.header()).unwrap();
        let mut dice = Dice(5);
        let mut lost = 0;
        for entry in reader.by_ref() {
            let Entry { at, record, .. } = entry.unwrap();
            let keep = matches!(record, Record::Task(_) | Record::Group { .. } | Record::CounterName(_));
            if !keep && dice.below(50) == 0 {
                lost += 1;
                writer.record(at, &Record::Dropped { count: 1 }).unwrap();
            } else {
                writer.record(at, &record).unwrap();
            }
        }
        let bytes = writer.finish().unwrap().0;
        let replay = replay(&bytes).unwrap();
        assert_eq!(replay.dropped, lost);
        assert!(!replayed(&replay).is_empty());
    }

    #[test]
    #[ignore = "a measurement: cargo test --release -p qumun --features sim --test trace -- --ignored --nocapture"]
    fn speed() {
        let mut scenario = Scenario::new(8).unwrap();
        scenario.work = Shape::Requests.workload(8);
        scenario.time = Nanos::from_millis(30_000);
        let bytes = Shared::default();
        let mut sim = scenario.start(|| Fifo).unwrap();
        sim.record("fifo", bytes.clone()).unwrap();
        sim.run(scenario.time);
        let summary = sim.end_record().unwrap().unwrap();
        let bytes = bytes.0.borrow();
        let mut start = Instant::now();
        let mut lap = |what: &str| {
            println!("{what}: {:?}", start.elapsed());
            start = Instant::now();
        };
        println!("{} records, {} bytes", summary.records, summary.bytes);
        assert_eq!(Reader::new(bytes.as_slice()).unwrap().count() as u64, summary.records);
        lap("read");
        let replay = replay(&bytes).unwrap();
        lap("understood");
        replayed(&replay);
        lap("replayed");
    }
}
