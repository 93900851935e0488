//! The agent's loop against a core on another thread, in every order, by [loom](https://docs.rs/loom):
//! `make loom`. The loop, the ring's consumer and the agreement are those of production.
#![cfg(loom)]
#![allow(missing_docs)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use qumun::{
    Agent, Backend, Context, Decision, Epoch, Event, Exit, ExitInfo, Full, Generation, IdleView, Limits,
    Nanos, Pid, Queued, Scheduler, StopHandle, TaskId, Verdict,
};
use qumun_bpf::model::{Pages, Ring, Weak, Word};
use qumun_bpf::protocol::{Agreement, Consumer};

/// A link with the core, as `qumun::kernel::Link` is one. A word is an event: its epoch above, its pid
/// below.
struct Link {
    events: Consumer<Ring>,
    pages: Pages,
    agreement: Agreement,
    idle: IdleView,
    /// Events of an epoch that was no longer the agreed one.
    void: usize,
}

impl Link {
    fn new(ring: Ring, pages: Pages) -> Self {
        Self {
            events: Consumer::new(ring),
            pages,
            agreement: Agreement::default(),
            idle: IdleView::new(2),
            void: 0,
        }
    }
}

impl Backend for Link {
    fn epoch(&self) -> Epoch {
        Epoch(self.agreement.epoch(&self.pages))
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.agreement.acknowledge(&self.pages, epoch.0);
    }

    fn refresh(&mut self) {}

    fn idle(&self) -> &IdleView {
        &self.idle
    }

    fn now(&self) -> Nanos {
        Nanos::ZERO
    }

    fn receive(&mut self) -> Option<Event> {
        loop {
            let Word(word) = self.events.pop()?;
            if self.agreement.covers((word >> 32) as u32) {
                let id = TaskId { pid: Pid(word as i32), generation: Generation(1) };
                return Some(Event::Queued(Queued::new(id)));
            }
            self.void += 1;
        }
    }

    fn send(&mut self, _: &Decision) -> Result<(), Full> {
        Ok(())
    }

    fn publish(&mut self) {
        self.events.release();
    }

    fn rest(&mut self, _: bool) {
        self.events.release();
        thread::yield_now();
    }

    fn exited(&mut self) -> Option<ExitInfo> {
        None
    }
}

/// What happened to a policy, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Saw {
    Reset,
    Task(i32),
}

struct Notes {
    saw: Vec<Saw>,
    /// What the policy holds; the core may look at it once the epoch is acknowledged.
    held: Arc<UnsafeCell<usize>>,
}

impl Notes {
    fn hold(&self, tasks: usize) {
        self.held.with_mut(|held| {
            // SAFETY: loom panics when the other thread looks meanwhile.
            unsafe { *held = tasks }
        });
    }
}

impl Scheduler for Notes {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        self.saw.push(Saw::Task(task.id.pid.0));
        Verdict::Keep
    }

    fn reset(&mut self, _: &mut Context<'_, ()>) {
        self.saw.push(Saw::Reset);
        self.hold(0);
    }
}

fn agent(link: Link, policy: Notes) -> Agent<Link, Notes> {
    let mut limits = Limits::default();
    (limits.tasks, limits.retry, limits.batch) = (4, 1, 4);
    Agent::with_limits(link, policy, limits)
}

const fn event(epoch: u64, pid: u64) -> u64 {
    epoch << 32 | pid
}

/// The core sends, takes over, and after the acknowledgement sends again.
fn takeover(weak: Weak) {
    loom::model(move || {
        let (ring, pages) = (Ring::new(2, weak), Pages::new(weak));
        let held = Arc::new(UnsafeCell::new(0));
        let notes = Notes { saw: Vec::new(), held: Arc::clone(&held) };
        let mut agent = agent(Link::new(ring.clone(), pages.clone()), notes);
        assert!(agent.turn().resynced, "the first epoch is agreed on");
        let core = thread::spawn(move || {
            assert!(ring.send(event(1, 1)));
            let epoch = pages.raise();
            let lifted = pages.acknowledged() == epoch;
            if lifted {
                let held = held.with(|held| {
                    // SAFETY: loom panics when the agent is still throwing away.
                    unsafe { *held }
                });
                assert_eq!(held, 0);
                assert!(ring.send(event(epoch, 2)));
            }
            lifted
        });
        agent.turn();
        let lifted = core.join().unwrap();
        agent.turn();
        agent.turn();

        let (link, notes) = agent.into_parts();
        let tail = if lifted { &[Saw::Reset, Saw::Task(2)][..] } else { &[Saw::Reset] };
        let before = &notes.saw[1..notes.saw.len() - tail.len()];
        assert!(notes.saw.ends_with(tail), "{:?}: nothing old after the reset, nothing lost", notes.saw);
        assert!(before.is_empty() || before == [Saw::Task(1)], "{:?}", notes.saw);
        assert_eq!(link.void, 0, "all that was sent before the epoch is found before it is acknowledged");
    });
}

#[test]
fn nothing_of_an_old_epoch_survives_its_end() {
    takeover(Weak::Nothing);
}

/// Agreement::epoch, Acquire: without, the agent acknowledges before it has found what was sent before.
#[test]
#[should_panic(expected = "found before it is acknowledged")]
fn the_epoch_must_be_acquired() {
    takeover(Weak::Epoch);
}

/// Agreement::acknowledge, Release: without, the core goes on while the agent still throws away.
#[test]
#[should_panic(expected = "Causality violation")]
fn the_acknowledgement_must_be_released() {
    takeover(Weak::Ack);
}

/// A CPU reads the epoch, is held up, and sends after others have agreed on the next one.
#[test]
fn an_event_that_was_held_up_reaches_no_policy() {
    loom::model(|| {
        let (ring, pages) = (Ring::new(2, Weak::Nothing), Pages::new(Weak::Nothing));
        let notes = Notes { saw: Vec::new(), held: Arc::new(UnsafeCell::new(0)) };
        let mut agent = agent(Link::new(ring.clone(), pages.clone()), notes);
        agent.turn();
        let late = thread::spawn(move || assert!(ring.send(event(1, 1))));
        pages.raise();
        agent.turn();
        late.join().unwrap();
        agent.turn();
        let (_, notes) = agent.into_parts();
        assert_eq!(notes.saw, [Saw::Reset, Saw::Reset], "it was sent in epoch 1 and read in epoch 2");
    });
}

/// Two threads stop a run, one through a clone. No order is needed: the flag guards nothing else; what is
/// shown is that it is never lost, nor taken by one reader from another (as a swap would).
#[test]
fn a_run_ends_for_every_reader_whoever_stops_it() {
    loom::model(|| {
        let stop = StopHandle::new();
        let notes = || Notes { saw: Vec::new(), held: Arc::new(UnsafeCell::new(0)) };
        let mut agent = agent(Link::new(Ring::new(2, Weak::Nothing), Pages::new(Weak::Nothing)), notes());
        agent.set_stop_handle(stop.clone());
        let others = [stop.clone(), stop.clone()].map(|stop| thread::spawn(move || stop.stop()));
        assert_eq!(agent.run(), Exit::Stopped);
        assert!(agent.stop_handle().is_stopped(), "once stopped, always stopped");
        for other in others {
            other.join().unwrap();
        }
        assert!(stop.is_stopped());
        assert_eq!(agent.run(), Exit::Stopped, "a run that begins after the stop ends too");
    });
}
