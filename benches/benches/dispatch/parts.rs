//! Where the time goes: each step of both ways by itself.

use qumun::{Backend, Event, Queued};
use qumun_benches::{Clocks, Fifo, Lane, Single, Stand, median};

use crate::WINDOW;
use crate::ways::connect;

/// A step, and nanoseconds of CPU time that it takes once.
pub(crate) type Part = (&'static str, f64);

const ROUNDS: usize = 101;

/// Steps of the agent first, then of the other way.
pub(crate) fn measure(stand: &Stand, tasks: u32) -> Result<Vec<Part>, String> {
    let n = f64::from(WINDOW);
    let mut agent = connect(stand, Fifo, WINDOW)?;
    let mut link_read = Vec::new();
    let mut link_write = Vec::new();
    let mut whole = Vec::new();
    let mut events = Vec::with_capacity(WINDOW as usize);
    for _ in 0..ROUNDS {
        stand.send(Lane::Agent, WINDOW, tasks);
        link_read.push(time(|| {
            while let Some(event) = agent.backend_mut().receive() {
                events.push(event);
            }
        }));
        link_write.push(time(|| {
            for event in events.drain(..) {
                if let Event::Queued(task) = event {
                    let _ = agent.backend_mut().send(&answer(&task));
                }
            }
        }));
        agent.backend_mut().publish();
        stand.take(Lane::Agent);
        stand.send(Lane::Agent, WINDOW, tasks);
        whole.push(time(|| _ = agent.turn()));
        stand.take(Lane::Agent);
    }
    let per_task = |times: &[f64]| median(times) / n;
    let (read, write, whole) = (per_task(&link_read), per_task(&link_write), per_task(&whole));
    let empty = many(|| _ = agent.turn());
    let mut parts = vec![
        ("agent: an event read and understood", read),
        ("agent: a decision written", write),
        ("agent: its state found, the policy, the rest", whole - read - write - empty / n),
        ("agent: a turn without an event", empty),
        ("agent: a rest (sched_yield)", many(|| agent.backend_mut().rest(false))),
    ];
    stand.check(Lane::Agent)?;

    let single = Single::new(stand)?;
    let [mut read, mut ask, mut write] = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        stand.send(Lane::Single, WINDOW, tasks);
        let mut events = Vec::with_capacity(WINDOW as usize);
        read.push(time(|| {
            while let Some(event) = single.receive() {
                events.push(event);
            }
        }));
        ask.push(time(|| events.iter().for_each(|event| _ = single.select_cpu(event))));
        let answers: Vec<_> = events.iter().map(Single::answer).collect();
        write.push(time(|| answers.iter().for_each(|answer| single.send(answer))));
        stand.take(Lane::Single);
    }
    stand.check(Lane::Single)?;
    parts.extend([
        ("one at a time: an event consumed", per_task(&read)),
        ("one at a time: a program asked for a CPU", per_task(&ask)),
        ("one at a time: an answer reserved, submitted", per_task(&write)),
        ("one at a time: a yield", many(qumun_bpf::agent::yield_now)),
        ("a call of an empty program", many(stand.empty_call()?)),
    ]);
    Ok(parts)
}

fn answer(task: &Queued) -> qumun::Decision {
    task.anywhere().vtime(task.enqueued_at.as_u64())
}

fn time(work: impl FnOnce()) -> f64 {
    let clocks = Clocks::start();
    work();
    clocks.spent().cpu as f64
}

/// The median time of one of many.
fn many(mut work: impl FnMut()) -> f64 {
    let rounds: Vec<f64> = (0..ROUNDS).map(|_| time(|| (0..WINDOW).for_each(|_| work()))).collect();
    median(&rounds) / f64::from(WINDOW)
}
