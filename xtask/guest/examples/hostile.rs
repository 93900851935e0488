//! An agent that lies: it loads the core, answers events with every kind of nonsense, then breaks the
//! ring itself, and at last behaves. Prints one JSON line per phase. The suite `hostile` watches.
//! `hostile SECONDS [rings]`: through the kernel's ring buffers instead of the shared arrays.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use qumun::kernel::{Link, LoadedCore, Probe, Running, stats, wire};
use qumun::{Backend, Context, Event, Queued, Scheduler, Transport, Verdict};

/// What the monitoring thread waits for.
static PHASE: AtomicU32 = AtomicU32::new(0);
const DONE: u32 = 4;
/// Records written until the first report, how many of them no core may take for a decision, and how many named a
/// task that was asked about earlier, by its generation of now.
static WRITTEN: AtomicU64 = AtomicU64::new(0);
static NONSENSE: AtomicU64 = AtomicU64::new(0);
static FOREIGN: AtomicU64 = AtomicU64::new(0);
/// On a machine that is slow the lies go on until there were so many.
const ENOUGH: u64 = 4_000;

fn main() -> qumun::Result<()> {
    let secs = std::env::args().nth(1).and_then(|s| s.parse().ok()).unwrap_or(10);
    let transport = match std::env::args().nth(2).as_deref() {
        Some("rings") => Transport::Rings,
        _ => Transport::Shared,
    };
    let running = qumun::builder("gthulhu_hostile").transport(transport).load()?.attach()?;
    let (fds, again) = (running.agent_fds()?, running.agent_fds()?);
    let stop = qumun::StopHandle::new();
    let stop_agent = stop.clone();
    let liar = std::thread::spawn(move || -> qumun::Result<()> {
        let mut link = Link::connect(fds)?;
        link.start();
        ask(&mut link)?;
        PHASE.store(1, Ordering::SeqCst);
        lie(&mut link, Duration::from_secs(secs));
        PHASE.store(2, Ordering::SeqCst);
        // The report, before anything else is written.
        std::thread::sleep(Duration::from_millis(300));
        break_ring(&mut link, Duration::from_secs(3));
        drop(link);
        PHASE.store(3, Ordering::SeqCst);
        // A new agent on the same core: what was broken must not outlive its breaker.
        let mut agent = qumun::builder("honest").stop_handle(stop_agent).agent(Link::connect(again)?, Honest);
        agent.run();
        Ok(())
    });
    for phase in 1..=3 {
        while PHASE.load(Ordering::SeqCst) < phase && !liar.is_finished() {
            std::thread::sleep(Duration::from_millis(10));
        }
        if phase > 1 {
            report(&running, phase - 1);
        }
    }
    // The dwell after so many relapses is up to 2 s.
    let before = running.inner().totals().dec_applied;
    let recovered = Instant::now();
    while recovered.elapsed() < Duration::from_secs(6) {
        std::thread::sleep(Duration::from_millis(50));
        let core = running.inner();
        if core.view().mode == wire::NORMAL && core.totals().dec_applied > before + 10 {
            break;
        }
    }
    report(&running, 3);
    stop.stop();
    let ended = liar.join();
    PHASE.store(DONE, Ordering::SeqCst);
    let (exit, core) = running.detach();
    line(&core, 4, exit.map(|e| (e.kind, e.reason + &e.message)));
    match ended {
        Ok(result) => result,
        Err(_) => Err(qumun::Error::new(qumun::ErrorKind::Other, "the hostile thread panicked")),
    }
}

fn report(running: &Running, phase: u32) {
    line(running.inner(), phase, running.exited().map(|e| (e.kind, e.reason + &e.message)));
}

fn line(core: &LoadedCore, phase: u32, exit: Option<(u32, String)>) {
    let (totals, view, probe) = (core.totals(), core.view(), Probe::here());
    let ledgers = stats::ledgers(&totals);
    let counters: Vec<String> = stats::named(&totals).iter().map(|(n, v)| format!("\"{n}\":{v}")).collect();
    let exit = exit.map_or("null".into(), |(kind, text)| format!("\"{kind} {}\"", text.replace('"', "'")));
    println!(
        "{{\"phase\":{phase},\"state\":\"{}\",\"enable_seq\":{},\"normal\":{},\"left\":{},\"outstanding\":{},\
         \"open\":{},\"written\":{},\"nonsense\":{},\"foreign\":{},\"exit\":{exit},\"counters\":{{{}}}}}",
        probe.state.unwrap_or_default(),
        probe.enable_seq.unwrap_or(0),
        view.mode == wire::NORMAL,
        view.left,
        ledgers.events_outstanding,
        ledgers.decisions_open,
        WRITTEN.load(Ordering::SeqCst),
        NONSENSE.load(Ordering::SeqCst),
        FOREIGN.load(Ordering::SeqCst),
        counters.join(",")
    );
}

/// The SYSCALL programs, with good and with bad arguments. Fails unless each answers as it should.
fn ask(link: &mut Link) -> qumun::Result<()> {
    let wrong = |what: &str| Err(qumun::Error::new(qumun::ErrorKind::Other, what.to_owned()));
    let me = std::process::id() as i32;
    let agent = link.raw();
    if agent.view_is_writable() {
        return wrong("the core's view can be written by an agent");
    }
    for cpu in [-1, 77, i32::MAX, i32::MIN] {
        if agent.preempt(cpu).is_ok() {
            return wrong("qumun_preempt took a CPU that is none");
        }
    }
    agent.preempt(0)?;
    let ask = |pid, cpu| wire::Request { pid, cpu };
    if agent.select_cpus(&mut []).is_ok() {
        return wrong("qumun_select_cpu took an empty batch");
    }
    // An idle CPU is there sooner or later, in one batch also for tasks and CPUs that do not exist.
    let mut claimed = 0;
    for _ in 0..200 {
        let mut batch = [ask(me, 0), ask(i32::MAX, 0), ask(me, 77), ask(-1, -1)];
        agent.select_cpus(&mut batch)?;
        if batch[1].cpu != -1 || batch[3].cpu != -1 {
            return wrong("qumun_select_cpu claimed a CPU for a task that does not exist");
        }
        claimed += batch.iter().filter(|r| (0..1024).contains(&r.cpu)).count();
        std::thread::sleep(Duration::from_millis(1));
    }
    if claimed == 0 {
        return wrong("qumun_select_cpu never found an idle CPU on an idle machine");
    }
    Ok(())
}

/// First come, first served.
struct Honest;

impl Scheduler for Honest {
    type Task = ();

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        task.anywhere().into()
    }
}

/// Answers each event in a wrong way first and then, mostly, in the right one: an agent that only lies
/// is degraded within 30 ms and has nothing more to lie about. At the end it waits until the core has read
/// all that was written, so that what was written and what was counted can be compared.
fn lie(link: &mut Link, time: Duration) {
    // The load comes two seconds after the attach.
    std::thread::sleep(Duration::from_secs(2));
    let (end, mut random) = (Instant::now() + time, Random(0x9e37_79b9_7f4a_7c15));
    let cpus = u64::from(link.idle().nr_cpus());
    let mut epoch = None;
    let mut pen = Pen { at: link.raw().decisions.consumer_position() };
    // Tasks that were asked about lately: theirs is the generation that the core has, and no question is open.
    let mut asked = [(0, 0); 8];
    let settled = end + Duration::from_secs(30);
    let enough = || WRITTEN.load(Ordering::SeqCst) >= ENOUGH;
    while Instant::now() < end
        || (!enough() && Instant::now() < settled)
        || (pen.at != link.raw().decisions.consumer_position() && Instant::now() < settled)
    {
        agree(link, &mut epoch);
        let is_honest = Instant::now() >= end && enough();
        while let Some(event) = link.receive() {
            let Event::Queued(task) = event else { continue };
            let honest = wire::Decision {
                generation: task.id.generation.0,
                slice_ns: random.next(),
                vtime: random.next(),
                pid: task.id.pid.0,
                cpu: wire::CPU_ANY,
                ..wire::Decision::default()
            };
            if is_honest {
                pen.write(link, &honest, false);
                continue;
            }
            let (pid, generation) = asked[(random.next() % 8) as usize];
            let other = pid != 0 && pid != honest.pid;
            let wrong = match random.next() % 18 {
                0 => wire::Decision { cpu: 77, ..honest },
                1 => wire::Decision { cpu: i32::MAX, ..honest },
                2 => wire::Decision { cpu: i32::MIN, ..honest },
                3 => wire::Decision { cpu: 1023, ..honest },
                4 => wire::Decision { generation: honest.generation - 1, ..honest },
                5 => wire::Decision { generation: random.next(), ..honest },
                6 => wire::Decision { pid: (random.next() % 400) as i32, ..honest },
                7 => wire::Decision { pid: random.next() as i32, generation: 0, ..honest },
                8 => wire::Decision { flags: random.next() as u32 | 1, ..honest },
                // For any number of wakeups, any time, at any pace; every other one holds.
                9 => wire::Decision {
                    permit: random.next() as u32,
                    permit_ns: random.next(),
                    rate: random.next() as u32,
                    flags: random.next() as u32 & (wire::PERMIT_CLOCK | wire::PERMIT_CUTS),
                    mark: link.raw().mark(honest.pid).wrapping_add(random.next() as u32 & 1),
                    ..honest
                },
                // Perhaps one that it may not use: it must bounce.
                10..=12 => wire::Decision { cpu: (random.next() % cpus) as i32, ..honest },
                16.. if other => wire::Decision { pid, generation, ..honest },
                _ => honest,
            };
            asked[(random.next() % 8) as usize] = (honest.pid, honest.generation);
            FOREIGN.fetch_add(u64::from(wrong.pid == pid && other), Ordering::SeqCst);
            let is_cpu = wrong.cpu == wire::CPU_ANY || (0..cpus as i32).contains(&wrong.cpu);
            let is_nonsense = !is_cpu || wrong.flags & !(wire::PERMIT_CLOCK | wire::PERMIT_CUTS) != 0;
            if random.next().is_multiple_of(8) {
                let bytes = random.bytes::<96>();
                let len = (random.next() % 96) as usize;
                // Too short, or with flags and a CPU that are none.
                pen.write_raw(link, &bytes[..len]);
            }
            pen.write(link, &wrong, is_nonsense);
            if random.next().is_multiple_of(4) {
                pen.write(link, &wrong, is_nonsense); // twice
            }
            if !random.next().is_multiple_of(20_000) {
                pen.write(link, &honest, false);
            }
        }
        link.publish();
        link.rest(true);
    }
}

/// Counts what is written.
struct Pen {
    /// Where the next record goes.
    at: u64,
}

impl Pen {
    fn write(&mut self, link: &mut Link, decision: &wire::Decision, is_nonsense: bool) {
        let decisions = &mut link.raw().decisions;
        if decisions.push(decision).is_ok() {
            let (step, _) = decisions.step(size_of::<wire::Decision>());
            self.wrote(step, is_nonsense);
        }
    }

    /// Any bytes. Where all records have one length, what is there already is the rest of this one: whole, then, and with
    /// flags, so that the count of nonsense is right.
    fn write_raw(&mut self, link: &mut Link, bytes: &[u8]) {
        let decisions = &mut link.raw().decisions;
        let (step, _) = decisions.step(bytes.len());
        let mut whole = [0xff; size_of::<wire::Decision>()];
        let bytes = if step == 1 {
            let len = bytes.len().min(whole.len() - 8);
            whole[..len].copy_from_slice(&bytes[..len]);
            &whole
        } else {
            bytes
        };
        if decisions.push_raw(bytes).is_ok() {
            self.wrote(step, true);
        }
    }

    fn wrote(&mut self, step: u64, is_nonsense: bool) {
        self.at += step;
        WRITTEN.fetch_add(1, Ordering::SeqCst);
        NONSENSE.fetch_add(u64::from(is_nonsense), Ordering::SeqCst);
    }
}

/// Overwrites headers, payloads and positions of the live ring.
fn break_ring(link: &mut Link, time: Duration) {
    let (end, mut random) = (Instant::now() + time, Random(42));
    let mut epoch = None;
    while Instant::now() < end {
        agree(link, &mut epoch);
        while link.receive().is_some() {}
        let decisions = &mut link.raw().decisions;
        let at = decisions.consumer_position();
        let (step, bytes) = decisions.step(size_of::<wire::Decision>());
        let here = at as usize / step as usize * bytes;
        for i in 0..64 {
            decisions.scribble(here.wrapping_add(i * bytes), &random.bytes::<64>()[..bytes.min(64)], None);
        }
        let to = match random.next() % 4 {
            0 => random.next(),
            1 => at + random.next() % 4096 * step.div_ceil(64),
            2 => at + (random.next() % 512) * step.div_ceil(8),
            // More than there are slots; of a ring buffer, no position at all.
            _ if step == 1 => at + (1 << 40),
            _ => u64::MAX,
        };
        decisions.scribble(0, &[], Some(to));
        link.rest(true);
    }
}

fn agree(link: &mut Link, agreed: &mut Option<qumun::Epoch>) {
    let epoch = link.epoch();
    if *agreed != Some(epoch) {
        while link.receive().is_some() {}
        link.acknowledge(epoch);
        *agreed = Some(epoch);
    }
}

/// xorshift64*: any sequence will do, as long as it is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.next() as u8)
    }
}
