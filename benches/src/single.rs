//! One task at a time through libbpf.

use std::cell::Cell;
use std::rc::Rc;

use libbpf_rs::{ProgramMut, RingBuffer, RingBufferBuilder, UserRingBuffer};
use qumun::kernel::wire;

use crate::stand::run;
use crate::{Lane, Stand};

/// A scheduler's loop as it is commonly written on libbpf, and as `scx_rustland` has it: for each task, one record
/// taken by a callback, one SYSCALL program that says which CPU, one record reserved and submitted, one
/// `sched_yield`. First come, first served; it remembers nothing about tasks, so what it does beside those four steps
/// is less than what any agent does.
pub struct Single {
    events: RingBuffer<'static>,
    event: Rc<Cell<wire::Event>>,
    answers: UserRingBuffer,
    select: ProgramMut<'static>,
}

impl std::fmt::Debug for Single {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Single").finish_non_exhaustive()
    }
}

/// `struct question`
#[repr(C)]
#[derive(Clone, Copy)]
struct Question {
    pid: i32,
    cpu: i32,
}

impl Single {
    /// On the stand-in's second lane.
    ///
    /// # Errors
    /// When libbpf cannot map the rings.
    pub fn new(stand: &Stand) -> Result<Self, String> {
        let [events, answers] = stand.rings(Lane::Single)?;
        let event = Rc::new(Cell::new(wire::Event::default()));
        let seen = Rc::clone(&event);
        let mut builder = RingBufferBuilder::new();
        let added = builder.add(&events, move |bytes: &[u8]| {
            if bytes.len() == size_of::<wire::Event>() {
                // SAFETY: that many bytes, and any bits are an event.
                seen.set(unsafe { bytes.as_ptr().cast::<wire::Event>().read_unaligned() });
            }
            0
        });
        added.map_err(|e| format!("cannot map the ring of events: {e}"))?;
        Ok(Self {
            events: builder.build().map_err(|e| format!("cannot map the ring of events: {e}"))?,
            event,
            answers: UserRingBuffer::new(&answers)
                .map_err(|e| format!("cannot map the ring of answers: {e}"))?,
            select: stand.select()?,
        })
    }

    /// Takes one task and decides on it; `false` if there is none.
    pub fn step(&self) -> bool {
        let Some(event) = self.receive() else { return false };
        let cpu = self.select_cpu(&event);
        self.send(&wire::Decision { cpu, ..Self::answer(&event) });
        qumun_bpf::agent::yield_now();
        true
    }

    /// First come, first served, anywhere.
    pub fn answer(event: &wire::Event) -> wire::Decision {
        wire::Decision {
            generation: event.generation,
            vtime: event.enqueued_at,
            pid: event.pid,
            cpu: wire::CPU_ANY,
            ..wire::Decision::default()
        }
    }

    /// The next record.
    pub fn receive(&self) -> Option<wire::Event> {
        (self.events.consume_raw_n(1) == 1).then(|| self.event.get())
    }

    /// All records that there are, each through the callback; how many there were.
    pub fn receive_all(&self) -> i32 {
        self.events.consume_raw()
    }

    /// Asks the kernel for a CPU.
    ///
    /// # Panics
    /// When the kernel refuses to run the program.
    pub fn select_cpu(&self, event: &wire::Event) -> i32 {
        let mut question = Question { pid: event.pid, cpu: event.cpu };
        run(&self.select, &mut question);
        question.cpu
    }

    /// Reserves and submits one record.
    ///
    /// # Panics
    /// When the ring is full: the bench is wrong then.
    pub fn send(&self, decision: &wire::Decision) {
        let mut sample = self.answers.reserve(size_of::<wire::Decision>()).expect("room in the ring");
        // SAFETY: a decision is plain words without padding.
        let bytes = unsafe {
            std::slice::from_raw_parts(std::ptr::from_ref(decision).cast::<u8>(), size_of::<wire::Decision>())
        };
        sample.copy_from_slice(bytes);
        self.answers.submit(sample).expect("submitting does not fail");
    }
}
