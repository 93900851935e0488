//! What the loop promises to policies and to the core, on a backend that a test controls in full.

use std::collections::VecDeque;

use qumun::alloc::{CountingAllocator, Guard};
use qumun::sim::{Machine, Script, Spec};
use qumun::{
    Agent, Builder, Context, Cpu, CpuSet, Decision, Epoch, Event, Events, Exit, ExitInfo, Full, Generation,
    Nanos, Note, Pid, Queued, Scheduler, TaskId, Verdict,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A ring with so much room.
fn script(room: usize) -> Script {
    Script { room, ..Script::new(2) }
}

/// Decides at once, or keeps what has an odd pid and sends it in `dispatch`.
#[derive(Default)]
struct Policy {
    keep_odd: bool,
    kept: VecDeque<Decision>,
    exits: Vec<(i32, u32)>,
    resets: usize,
}

impl Scheduler for Policy {
    /// How often the task was queued.
    type Task = u32;

    fn enqueue(&mut self, cx: &mut Context<'_, u32>, task: &Queued) -> Verdict {
        *cx.task(task) += 1;
        if self.keep_odd && task.id.pid.0 % 2 == 1 {
            self.kept.push_back(task.anywhere());
            return Verdict::Keep;
        }
        task.anywhere().into()
    }
    fn dispatch(&mut self, cx: &mut Context<'_, u32>) {
        while let Some(decision) = self.kept.pop_front() {
            if let Err(Full(decision)) = cx.send(decision) {
                return self.kept.push_front(decision);
            }
        }
    }
    fn exit(&mut self, _: &mut Context<'_, u32>, pid: Pid, queued: &mut u32) {
        self.exits.push((pid.0, *queued));
    }
    fn reset(&mut self, _: &mut Context<'_, u32>) {
        self.resets += 1;
        self.kept.clear();
    }
}

fn id(pid: i32, generation: u64) -> TaskId {
    TaskId { pid: Pid(pid), generation: Generation(generation) }
}

fn options() -> Builder {
    qumun::builder("test").tasks(8).retry(2).batch(100)
}

fn task(pid: i32, generation: u64) -> Queued {
    Queued::new(id(pid, generation))
}

/// An agent that has made its first agreement.
fn agent(script: Script, policy: Policy) -> Agent<Script, Policy> {
    let mut agent = options().agent(script, policy);
    assert!(agent.turn().resynced);
    agent
}

#[test]
fn a_batch_is_published_once() {
    let mut agent = agent(script(100), Policy::default());
    (1..=5).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    let turn = agent.turn();
    assert_eq!((turn.events, turn.decisions, turn.is_idle()), (5, 5, false));
    assert_eq!((agent.backend().publishes, agent.backend().published), (1, 5));
    assert!(agent.turn().is_idle());
    assert_eq!(agent.backend().publishes, 1);
}

#[test]
fn a_full_ring_loses_nothing_and_keeps_the_order() {
    let mut agent = agent(script(3), Policy::default());
    (1..=9).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    agent.turn();
    // Three are in the ring, two wait in the agent, the others are still events.
    assert_eq!(agent.backend().pids(), [1, 2, 3]);
    assert_eq!(agent.backend().events.len(), 4);
    assert_eq!(agent.turn().events, 0);
    agent.backend_mut().room = 6;
    agent.turn();
    assert_eq!(agent.backend().pids(), [1, 2, 3, 4, 5, 6]);
    agent.backend_mut().room = 100;
    agent.turn();
    assert_eq!(agent.backend().pids(), [1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(agent.backend().published, 9);
}

#[test]
fn what_a_policy_sends_does_not_overtake_what_waits() {
    let mut agent = agent(script(1), Policy { keep_odd: true, ..Policy::default() });
    [2, 4, 1].into_iter().for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    agent.turn();
    assert_eq!(agent.backend().pids(), [2]);
    agent.backend_mut().room = 100;
    agent.turn();
    assert_eq!(agent.backend().pids(), [2, 4, 1]);
}

#[test]
fn a_turn_takes_a_limited_batch() {
    let mut agent = options().batch(3).agent(script(100), Policy::default());
    agent.turn();
    (1..=7).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    let events: Vec<_> = (0..4).map(|_| agent.turn().events).collect();
    assert_eq!(events, [3, 3, 1, 0]);
}

#[test]
fn a_new_epoch_voids_everything_and_is_acknowledged() {
    let mut agent = agent(script(1), Policy { keep_odd: true, ..Policy::default() });
    assert_eq!((agent.backend().acknowledged.as_slice(), agent.policy().resets), (&[Epoch(1)][..], 1));
    (1..=4).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    agent.turn();
    let script = agent.backend_mut();
    assert_eq!(script.pids(), [2]);
    script.queue(task(6, 1));
    script.events.push_back(Event::Exit(id(2, 1)));
    script.epoch = Epoch(2);
    script.room = 100;
    let turn = agent.turn();
    assert!(turn.resynced && turn.decisions == 0);
    assert_eq!(agent.backend().pids(), [2]);
    assert_eq!(
        (agent.backend().acknowledged.as_slice(), agent.policy().resets),
        (&[Epoch(1), Epoch(2)][..], 2)
    );
    // An end is an end in every epoch; states are kept.
    assert_eq!(agent.policy().exits, [(2, 1)]);
    assert_eq!((agent.stats().discarded, agent.stats().resyncs, agent.nr_tasks()), (1, 2, 3));
    agent.backend_mut().queue(task(4, 2));
    agent.turn();
    assert_eq!(agent.backend().pids(), [2, 4]);
}

#[test]
fn a_state_lives_as_long_as_its_task() {
    let mut agent = agent(script(100), Policy::default());
    let exit = |pid, generation| Event::Exit(id(pid, generation));
    agent.backend_mut().queue(task(1, 1));
    agent.backend_mut().queue(task(1, 2));
    agent.backend_mut().events.push_back(exit(1, 2));
    agent.backend_mut().events.push_back(exit(9, 1));
    agent.turn();
    assert_eq!((agent.policy().exits.as_slice(), agent.nr_tasks()), (&[(1, 2)][..], 0));
    // The pid comes back, and its end is not reported: generation and thread group tell.
    agent.backend_mut().queue(task(1, 5));
    agent.backend_mut().queue(task(1, 3));
    agent.backend_mut().events.push_back(exit(1, 3));
    let mut other = Queued::new(id(2, 4));
    agent.backend_mut().events.push_back(Event::Queued(other));
    (other.tgid, other.id.generation) = (Pid(77), Generation(5));
    agent.backend_mut().events.push_back(Event::Queued(other));
    agent.backend_mut().events.push_back(exit(2, 5));
    agent.turn();
    assert_eq!(agent.policy().exits, [(1, 2), (1, 1), (2, 1)]);
}

#[test]
fn too_many_tasks_are_counted_and_nothing_else() {
    let mut agent = agent(script(100), Policy::default());
    (1..=20).for_each(|pid| agent.backend_mut().queue(task(pid, 1)));
    assert_eq!(agent.turn().decisions, 20);
    assert_eq!((agent.nr_tasks(), agent.stats().recycled, agent.stats().exhausted), (8, 12, 0));

    // Tasks that the policy keeps cannot be recycled.
    let mut agent = agent_that_keeps();
    (0..20).for_each(|i| agent.backend_mut().queue(task(2 * i + 1, 1)));
    agent.turn();
    assert_eq!((agent.nr_tasks(), agent.stats().recycled, agent.stats().exhausted), (8, 0, 12));
    agent.backend_mut().room = 100;
    assert_eq!(agent.turn().decisions, 20);
    agent.backend_mut().queue(task(2, 1));
    agent.turn();
    assert_eq!((agent.nr_tasks(), agent.stats().recycled, agent.stats().exhausted), (8, 1, 12));
}

fn agent_that_keeps() -> Agent<Script, Policy> {
    agent(script(0), Policy { keep_odd: true, ..Policy::default() })
}

#[test]
fn sampled_wakeups_are_stamped_and_others_are_not() {
    let mut agent = agent(script(100), Policy { keep_odd: true, ..Policy::default() });
    agent.backend_mut().queue(task(1, 1));
    for pid in [2, 3] {
        let mut task = Queued::new(id(pid, 1));
        task.sampled = true;
        agent.backend_mut().events.push_back(Event::Queued(task));
    }
    agent.turn();
    let stamps = |d: &Decision| (d.id().pid.0, d.seen_at().0, d.decided_at().0);
    let stamps: Vec<_> = agent.backend().sent.iter().map(stamps).collect();
    assert_eq!(stamps, [(2, 1_001, 1_002), (1, 0, 0), (3, 1_003, 1_004)]);
}

#[test]
fn a_run_ends_when_asked_and_when_removed() {
    let mut backend = script(100);
    backend.removed_after = 3;
    backend.queue(task(1, 1));
    let mut agent = agent(backend, Policy::default());
    agent.backend_mut().queue(task(1, 2));
    assert_eq!(agent.run(), Exit::Removed(ExitInfo::default()));
    assert_eq!(agent.backend().rests, [false, true, true]);

    let mut agent = options().agent(script(1), Policy::default());
    agent.stop_handle().stop();
    assert_eq!(agent.run(), Exit::Stopped);
}

/// Asks for each CPU in turn and remembers nothing.
struct Spread(u32);

impl Scheduler for Spread {
    type Task = u64;

    fn enqueue(&mut self, cx: &mut Context<'_, u64>, task: &Queued) -> Verdict {
        *cx.task(task) += 1;
        self.0 = (self.0 + 1) % 4;
        task.on(Cpu(self.0)).into()
    }
}

#[test]
fn turns_do_not_allocate() {
    let machine = Machine::new(4);
    let mut agent = qumun::builder("spread").tasks(16).agent(machine.backend(), Spread(0));
    // More tasks than states, so that recycling is seen, too.
    for i in 0..40 {
        machine.wake(machine.spawn(Spec { weight: 50 + i, ..Spec::default() }));
    }
    let (mut turns, mut allocations) = (0, 0);
    machine.run(Nanos::from_millis(2_000), || {
        let guard = Guard::new();
        turns += usize::from(!agent.turn().is_idle());
        allocations += guard.count();
    });
    assert!(turns > 300 && agent.stats().recycled > 100, "{turns} turns, {:?}", agent.stats());
    assert_eq!(allocations, 0);
    let guard = Guard::new();
    drop(Box::new(1));
    assert_eq!(guard.count(), 1, "the allocator is not installed");
}

/// The core's own queues and what the agent places have no common order, and share each CPU all the same.
#[test]
fn tasks_bound_to_a_cpu_and_others_get_the_same() {
    let machine = Machine::new(2);
    let mut agent = qumun::builder("fifo").agent(machine.backend(), Policy::default());
    let bound = [0, 0, 1, 1].map(|cpu| machine.spawn(Spec { cpus: CpuSet::of(Cpu(cpu)), ..Spec::default() }));
    let free = [(); 4].map(|()| machine.spawn(Spec::default()));
    for task in bound.into_iter().chain(free) {
        machine.wake(task);
    }
    machine.run(Nanos::from_millis(4_000), || agent.turn());
    for task in bound.into_iter().chain(free) {
        let ran = machine.run_time(task).as_u64() / 1_000_000;
        assert!((800..=1_200).contains(&ran), "task {task:?} ran {ran} ms of 1000");
    }
    assert_eq!(machine.check(), Ok(()));
}

/// What a policy subscribes to reaches it, and nothing else does.
#[test]
fn notes_reach_who_subscribed() {
    #[derive(Default)]
    struct Listener(Vec<Note>);
    impl Scheduler for Listener {
        type Task = ();
        const EVENTS: Events = Events::FORK.and(Events::WEIGHT).and(Events::MOVED);

        fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
            task.anywhere().into()
        }

        fn note(&mut self, _: &mut Context<'_, ()>, note: &Note) {
            self.0.push(*note);
        }
    }
    let machine = Machine::new(2);
    let mut agent = qumun::builder("listener").agent(machine.backend(), Listener::default());
    let parent = machine.spawn(Spec::default());
    machine.set_label(parent, 7);
    machine.run(Nanos::from_millis(200), || agent.turn());
    let child = machine.fork(parent).expect("the parent is there");
    machine.set_weight(child, 200);
    machine.set_affinity(child, CpuSet::of(Cpu(0)));
    machine.set_cgroup(child, 42);
    machine.wake(parent);
    agent.turn();
    let notes = &agent.policy().0;
    assert!(
        matches!(notes[0], Note::Fork { task, parent: p, label: 7, .. } if task.pid == child && p == parent)
    );
    assert!(matches!(notes[1], Note::Weight { weight: 200, .. }), "{notes:?}");
    assert!(matches!(notes[2], Note::Moved { cgroup_id: 42, .. }), "{notes:?}");
    assert_eq!(notes.len(), 3, "affinity was not asked for");
    assert_eq!(agent.stats().notes, 3);
}
