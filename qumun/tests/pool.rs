//! A policy with collections of its own, on the memory that the framework gives it.

use std::collections::hash_map::DefaultHasher;
use std::hash::BuildHasherDefault;

use qumun::alloc::{CountingAllocator, FaultGuard, Guard, abort_on_allocation};
use qumun::pool::{self, Arena, Handle, Heap, Queue, SlotId, TryPush};
use qumun::sim::{Machine, Script, Spec};
use qumun::{
    Agent, Backend, Builder, Context, Decision, Exit, ExitInfo, Full, Generation, Nanos, Pid, Queued,
    Scheduler, TaskId, Verdict,
};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

type Map<K, V> = hashbrown::HashMap<K, V, BuildHasherDefault<DefaultHasher>, Handle>;

/// What a real policy might keep: who waits, by deadline or by arrival; totals by thread group; a log.
struct Own {
    heap: Heap<Decision>,
    queue: Queue<Decision>,
    runs: Map<Pid, u64>,
    log: pool::Vec<Pid>,
}

#[derive(Default)]
struct Policy {
    own: Option<Own>,
    started: usize,
    /// Decisions on tasks for which there was no room.
    at_once: usize,
}

impl Scheduler for Policy {
    type Task = SlotId;

    fn start(&mut self, cx: &mut Context<'_, SlotId>) {
        self.started += 1;
        let own = |pool: &Handle| {
            let runs = Map::with_hasher_in(Default::default(), pool.clone());
            Ok::<_, pool::AllocError>(Own {
                heap: Heap::new(pool, 32)?,
                queue: Queue::new(pool, 4)?,
                runs,
                log: pool.vec(2)?,
            })
        };
        self.own = own(cx.pool()).ok();
    }

    fn enqueue(&mut self, cx: &mut Context<'_, SlotId>, task: &Queued) -> Verdict {
        let Some(own) = &mut self.own else {
            self.at_once += 1;
            return task.anywhere().into();
        };
        if own.runs.contains_key(&task.tgid) || own.runs.try_reserve(1).is_ok() {
            *own.runs.entry(task.tgid).or_default() += 1;
        }
        // Grows and begins anew: an allocation and a free, every now and then.
        if own.log.len() == 100 {
            own.log.clear();
            own.log.shrink_to_fit();
        }
        let _ = own.log.try_push(task.id.pid);
        let decision = task.anywhere();
        if task.wakeup {
            match own.queue.push(decision) {
                Ok(_) => return Verdict::Keep,
                Err(decision) => {
                    self.at_once += 1;
                    return decision.into();
                }
            }
        }
        own.heap.remove(*cx.task(task));
        match own.heap.push(task.exec_runtime.as_u64(), decision) {
            Ok(id) => {
                *cx.task(task) = id;
                Verdict::Keep
            }
            Err(decision) => {
                self.at_once += 1;
                decision.into()
            }
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_, SlotId>) {
        let Some(own) = &mut self.own else { return };
        while let Some(&decision) = own.queue.peek() {
            if let Err(Full(_)) = cx.send(decision) {
                return;
            }
            own.queue.pop();
        }
        while let Some((_, &decision)) = own.heap.peek() {
            if let Err(Full(_)) = cx.send(decision) {
                return;
            }
            own.heap.pop();
        }
    }

    fn reset(&mut self, _: &mut Context<'_, SlotId>) {
        if let Some(own) = &mut self.own {
            own.heap.clear();
            own.queue.clear();
        }
    }
}

fn options() -> Builder {
    qumun::builder("pool").tasks(16)
}

fn task(pid: i32) -> Queued {
    Queued::new(TaskId { pid: Pid(pid), generation: Generation(1) })
}

/// As the kernel backend does: else the machine takes pages away from the test and gives them back, which are faults too.
fn lock_memory() -> bool {
    #[cfg(not(miri))]
    // SAFETY: changes nothing that Rust knows of.
    return unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) } == 0;
    #[cfg(miri)]
    return true;
}

#[test]
fn a_policy_with_collections_on_the_pool_does_not_allocate() {
    let locked = lock_memory();
    let machine = Machine::new(4);
    let mut agent = options().pool(64 << 10).agent(machine.backend(), Policy::default());
    for i in 0..40 {
        machine.wake(machine.spawn(Spec { weight: 50 + i, ..Spec::default() }));
    }
    let (mut turns, mut allocations, mut faults) = (0, 0, 0);
    // The core keeps the first 100. Under Miri, what ends within a minute.
    let (time, enough) = if cfg!(miri) { (250, 10) } else { (2_000, 300) };
    machine.run(Nanos::from_millis(time), || {
        let (guard, fault_guard) = (Guard::new(), FaultGuard::new());
        let idle = agent.turn().is_idle();
        // The first turns touch the code.
        turns += usize::from(!idle);
        allocations += guard.count();
        faults += if turns > 100 { fault_guard.faults().total() } else { 0 };
    });
    assert_eq!(machine.check(), Ok(()));
    assert!(turns > enough, "{turns} turns, {:?}", agent.stats());
    if locked {
        assert_eq!(faults, 0, "page faults in {turns} turns");
    } else {
        println!(
            "{faults} page faults in {turns} turns, not looked at: this user may not lock memory (ulimit -l)"
        );
    }
    assert_eq!(allocations, 0);
    let (stats, policy) = (agent.stats(), agent.policy());
    assert_eq!((policy.started, stats.pool_capacity), (1, 64 << 10));
    assert!(stats.pool_in_use > 2_000 && stats.pool_high_water >= stats.pool_in_use, "{stats:?}");
    assert_eq!(stats.pool_failures, 0);
    let own = policy.own.as_ref().unwrap();
    assert!(own.runs.len() == 40 && !own.log.is_empty());
    let guard = Guard::new();
    drop(Box::new(1));
    assert_eq!(guard.count(), 1, "the allocator is not installed");
}

#[test]
fn without_memory_a_policy_still_places_every_task() {
    // A page, all of which the heap alone needs.
    for (bytes, has_any) in [(0, false), (16 << 10, true)] {
        let mut agent = options().pool(bytes).agent(Script::new(2), Policy::default());
        agent.turn();
        assert_eq!(agent.policy().own.is_some(), has_any);
        (1..=50).for_each(|pid| agent.backend_mut().queue(task(pid)));
        let before = agent.stats().pool_failures;
        assert_eq!(agent.turn().decisions, 50);
        let room = if has_any { 32 } else { 0 };
        assert_eq!((agent.policy().at_once, before > 0), (50 - room, !has_any));
    }
}

#[test]
fn a_policy_is_started_before_the_thread_is_watched_and_once() {
    struct Starts(usize, bool);
    impl Scheduler for Starts {
        type Task = ();
        fn start(&mut self, _: &mut Context<'_, ()>) {
            self.0 += 1;
            self.1 = std::hint::black_box(Box::new([0u8; 100])).len() == 100;
        }
        fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
            task.anywhere().into()
        }
    }
    let mut script = Script::new(2);
    script.removed_after = 3;
    script.rests.reserve(10);
    script.acknowledged.reserve(10);
    let mut agent = options().agent(script, Starts(0, false));
    let watched = qumun::alloc::total();
    assert_eq!(agent.run(), Exit::Removed(ExitInfo::default()));
    assert_eq!(agent.run(), Exit::Removed(ExitInfo::default()));
    assert_eq!((agent.policy().0, agent.policy().1), (1, true));
    // Other tests of this process may count here too, but only what they provoke.
    assert!(qumun::alloc::total() - watched < 5);
}

#[test]
fn memory_that_nobody_has_is_an_error() {
    let made = options().pool(usize::MAX).try_agent(Script::new(1), Policy::default());
    let error = made.map(|agent: Agent<Script, Policy>| agent.backend().epoch()).unwrap_err();
    assert_eq!(error.kind(), qumun::ErrorKind::OutOfMemory);
    assert!(format!("{error:#}").starts_with("the memory of the policy: take "), "{error:#}");
}

#[test]
fn memory_of_an_arena_is_touched_when_it_is_made() {
    let arena = Arena::new(4 << 20).unwrap();
    let mut bytes = arena.handle().vec::<u8>(4 << 20).unwrap();
    let faults = FaultGuard::new();
    bytes.resize(4 << 20, 1);
    let seen = faults.faults().total();
    assert!(seen < 64, "{seen} page faults in 1,024 pages");

    // And the guard sees some where there are some.
    if cfg!(target_os = "linux") {
        let faults = FaultGuard::new();
        let fresh = std::hint::black_box(vec![1u8; 4 << 20]);
        assert!(faults.faults().minor > 0, "{} bytes without a fault", fresh.len());
    }
}

/// Runs itself once more, as the one that is aborted.
#[test]
fn a_watched_thread_that_allocates_aborts_if_told_so() {
    const CHILD: &str = "QUMUN_TEST_ABORTS";
    if std::env::var_os(CHILD).is_some() {
        abort_on_allocation(true);
        let unwatched = Box::new(1);
        let _guard = Guard::new();
        drop(unwatched);
        std::hint::black_box(vec![0u8; 1234]);
        return;
    }
    let name = "a_watched_thread_that_allocates_aborts_if_told_so";
    let program = std::env::current_exe().unwrap();
    let child = std::process::Command::new(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&child.stderr);
    assert!(said.contains("qumun: 1234 bytes allocated by a thread that must not"), "{said}");
    #[cfg(unix)]
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&child.status), Some(6), "{:?}", child.status);
    assert!(!child.status.success());
}
