//! A backend that never runs out of events.

use std::cell::Cell;
use std::hint::black_box;

use qumun::{Backend, Cpu, Decision, Epoch, Event, ExitInfo, Full, Generation, IdleView, Nanos, Queued};

use crate::queued;

/// Wakeups without a machine behind them: `left` events about tasks in turn, each later than the last, and decisions
/// that go nowhere. What a turn costs on it is the policy and the library, not a ring, and not a simulated machine.
#[derive(Clone, Debug)]
pub struct Endless {
    tasks: Vec<Queued>,
    next: usize,
    now: Cell<u64>,
    idle: IdleView,
    /// How many events there are; a bench sets it before each turn.
    pub left: usize,
}

impl Endless {
    /// So many tasks on so many CPUs, every other one idle.
    pub fn new(tasks: u32, cpus: u32) -> Self {
        let mut idle = IdleView::new(cpus);
        (0..cpus).step_by(2).for_each(|cpu| idle.set(Cpu(cpu), true));
        let tasks = (0..u64::from(tasks)).map(|n| queued(n, u64::from(tasks), cpus)).collect();
        Self { tasks, next: 0, now: Cell::new(2_000_000_000), idle, left: 0 }
    }
}

impl Backend for Endless {
    fn epoch(&self) -> Epoch {
        Epoch(1)
    }

    fn acknowledge(&mut self, _: Epoch) {}

    fn refresh(&mut self) {}

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn now(&self) -> Nanos {
        self.now.set(self.now.get() + 1);
        Nanos(self.now.get())
    }

    fn receive(&mut self) -> Option<Event> {
        self.left = self.left.checked_sub(1)?;
        let now = self.now.get() + 1_000;
        self.now.set(now);
        let number = self.next;
        self.next = (number + 1) % self.tasks.len();
        let task = &mut self.tasks[number];
        // It ran for 50 us since it was queued last, and slept.
        task.id.generation = Generation(task.id.generation.0 + 1);
        task.started_at = task.enqueued_at;
        task.stopped_at = task.enqueued_at + Nanos(50_000).min(Nanos(now - task.enqueued_at.0));
        task.enqueued_at = Nanos(now);
        task.vtime = now;
        Some(Event::Queued(*task))
    }

    fn send(&mut self, decision: &Decision) -> Result<(), Full> {
        black_box(decision);
        Ok(())
    }

    fn publish(&mut self) {}

    fn rest(&mut self, _: bool) {}

    fn exited(&mut self) -> Option<ExitInfo> {
        None
    }
}
