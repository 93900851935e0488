//! A policy that subscribes to everything, and the events it should hear of: forks, weights, affinity, cgroups;
//! what is set for a task and inherited by its children; the statistics by name. Prints a verdict for each.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::Mutex;
use std::time::Duration;

use lab_guest::check::{Checks, ensure};
use lab_guest::{Result, sys};
use qumun::kernel::{Link, Running, TaskSettings};
use qumun::{Affinity, Context, Events, Nanos, Note, Pid, Queued, Scheduler, Verdict};

const LABEL: u64 = 0x5eed;
const CGROUP: &str = "/sys/fs/cgroup/listener";
/// How long a note may take on a machine that is busy with other guests.
const PATIENCE: Duration = Duration::from_secs(3);

/// What was heard. The policy's thread must not wait for a lock, so it skips what it cannot note down at once; the
/// other side holds it for a copy only.
static HEARD: Mutex<Vec<Note>> = Mutex::new(Vec::new());
static LABELLED: Mutex<Vec<(i32, u64, u32)>> = Mutex::new(Vec::new());
/// Which threads were seen, and when they and their processes began.
static BORN: Mutex<Vec<[Thread; 2]>> = Mutex::new(Vec::new());
const ROOM: usize = 20_000;

/// A thread, and when it began, in ns since the boot.
type Thread = (Pid, Nanos);

#[derive(Default)]
struct Listener {
    /// What could not be noted down yet. Reserved beforehand.
    late: Vec<Note>,
}

impl Listener {
    fn new() -> Self {
        Self { late: Vec::with_capacity(ROOM) }
    }

    fn note_down(&mut self) {
        if !self.late.is_empty()
            && let Ok(mut heard) = HEARD.try_lock()
        {
            let room = ROOM - heard.len();
            heard.extend(self.late.drain(..).take(room));
        }
    }
}

impl Scheduler for Listener {
    type Task = ();
    const EVENTS: Events = Events::ALL;

    fn enqueue(&mut self, _: &mut Context<'_, ()>, task: &Queued) -> Verdict {
        if task.label != 0
            && let Ok(mut seen) = LABELLED.try_lock()
            && seen.len() < ROOM
        {
            seen.push((task.id.pid.0, task.label, task.cgroup_weight));
        }
        if let Ok(mut born) = BORN.try_lock()
            && born.len() < ROOM
        {
            born.push([(task.id.pid, task.born), (task.tgid, task.process_born)]);
        }
        task.anywhere().into()
    }

    fn note(&mut self, _: &mut Context<'_, ()>, note: &Note) {
        if self.late.len() < ROOM {
            self.late.push(*note);
        }
        self.note_down();
    }

    fn dispatch(&mut self, _: &mut Context<'_, ()>) {
        self.note_down();
    }
}

fn main() -> std::process::ExitCode {
    let mut checks = Checks::default();
    if let Err(e) = listen(&mut checks) {
        checks.check("listener", || Err(e));
    }
    if checks.all_held() { std::process::ExitCode::SUCCESS } else { std::process::ExitCode::FAILURE }
}

fn listen(checks: &mut Checks) -> Result<()> {
    HEARD.lock().map_err(|e| e.to_string())?.reserve(ROOM);
    LABELLED.lock().map_err(|e| e.to_string())?.reserve(ROOM);
    BORN.lock().map_err(|e| e.to_string())?.reserve(ROOM);
    let text = |e: qumun::Error| e.to_string();
    write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu")?;
    // There before the core is.
    let outer = Cgroup::new("/sys/fs/cgroup/before")?;
    write(&format!("{}/cgroup.subtree_control", outer.0), "+cpu")?;
    let inner = Cgroup::new("/sys/fs/cgroup/before/inner")?;
    let running = qumun::builder("gthulhu_listener").events(Listener::EVENTS).load().map_err(text)?;
    let running = running.attach().map_err(text)?;
    let (stop, agent) = start(&running)?;
    checks.check("listener.before", || known(&outer, &inner));
    stop.stop();
    agent.join().map_err(|_| "the agent panicked")??;
    HEARD.lock().map_err(|e| e.to_string())?.clear();
    let (stop, agent) = start(&running)?;
    checks.check("listener.again", || {
        let text = known(&outer, &inner)?;
        let id = inner.id()?;
        drop(inner);
        heard("note of its end", |n| matches!(n, Note::CgroupGone { cgroup_id } if *cgroup_id == id))?;
        Ok(format!("another agent: {text}, and of the end of {id}"))
    });
    drop(outer);
    notes(checks, &running);
    inheritance(checks, &running);
    checks.check("listener.identity", identity);
    cgroups(checks);
    checks.check("listener.statistics", || {
        let s = running.statistics();
        ensure(s.nr_online_cpus == 2 && (1..=2).contains(&s.nr_running), || format!("{s:?}"))?;
        ensure(s.nr_user_dispatches > 0 && s.usersched_last_run_at > 0, || format!("{s:?}"))?;
        let named: Vec<String> = s.original().iter().map(|(name, n)| format!("{name} {n}")).collect();
        Ok(named.join(", "))
    });
    let with = programs();
    stop.stop();
    agent.join().map_err(|_| "the agent panicked")??;
    let (exit, core) = running.detach();
    pruned(checks, with);
    checks.check("listener.ledgers", || {
        let totals = core.totals();
        let ledgers = qumun::kernel::stats::ledgers(&totals);
        ensure(ledgers.events_outstanding == 0 && ledgers.decisions_open == 0, || format!("{ledgers:?}"))?;
        let kind = exit.as_ref().map_or(0, |e| e.kind);
        ensure(kind == 64, || format!("exit {exit:?}"))?;
        Ok(format!(
            "{} events, {} notes, {} of them dropped",
            totals.ev_sent, totals.notes_sent, totals.notes_dropped
        ))
    });
    Ok(())
}

type Agent = std::thread::JoinHandle<Result<()>>;

/// An agent that decides.
fn start(running: &Running) -> Result<(qumun::StopHandle, Agent)> {
    let stop = qumun::StopHandle::new();
    let (fds, agents) = (running.agent_fds().map_err(|e| e.to_string())?, stop.clone());
    let before = running.inner().view().left;
    let agent = std::thread::spawn(move || {
        let link = Link::connect(fds).map_err(|e| e.to_string())?;
        qumun::builder("listener").stop_handle(agents).agent(link, Listener::new()).run();
        Ok::<(), String>(())
    });
    // The mode alone could be that of the agent before.
    let view = || running.inner().view();
    wait("the agent decides", || view().left > before && view().mode == qumun::kernel::wire::NORMAL)?;
    Ok((stop, agent))
}

fn write(path: &str, text: &str) -> Result<()> {
    fs::write(path, text).map_err(|e| format!("write {text:?} to {path}: {e}"))
}

/// A cgroup, removed when dropped.
struct Cgroup(String);

impl Cgroup {
    fn new(path: &str) -> Result<Self> {
        fs::create_dir(path).map_err(|e| format!("create {path}: {e}"))?;
        Ok(Self(path.into()))
    }

    fn id(&self) -> Result<u64> {
        let there = fs::metadata(&self.0).map_err(|e| format!("{}: {e}", self.0))?;
        Ok(std::os::unix::fs::MetadataExt::ino(&there))
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.0);
    }
}

/// Whether an agent that came after two cgroups knows them, the outer one first.
fn known(outer: &Cgroup, inner: &Cgroup) -> Result<String> {
    let (out, id) = (outer.id()?, inner.id()?);
    let place = |id: u64, parent: u64| {
        let is_it = |n: &Note| matches!(n, Note::Cgroup { cgroup_id, parent: p, .. } if (*cgroup_id, *p) == (id, parent));
        HEARD.lock().ok().and_then(|notes| notes.iter().position(is_it))
    };
    wait("notes of cgroups that were there before", || place(out, 1).is_some() && place(id, out).is_some())?;
    ensure(place(1, 0).is_some() && place(out, 1) < place(id, out), || "in a wrong order".into())?;
    Ok(format!("told of the root, {out} and {id}, which were there before"))
}

/// BPF programs that this process holds.
fn programs() -> usize {
    let fds = fs::read_dir("/proc/self/fdinfo").into_iter().flatten().flatten();
    fds.filter(|fd| fs::read_to_string(fd.path()).is_ok_and(|text| text.contains("prog_type"))).count()
}

/// The same core without a subscriber: what tells nobody anything is not loaded.
fn pruned(checks: &mut Checks, with: usize) {
    checks.check("listener.pruned", || {
        // What the first core holds is still counted: the difference is what one load brings.
        let before = programs();
        let core = qumun::builder("gthulhu_deaf").limits(false).load().map_err(|e| e.to_string())?;
        let without = programs() - before;
        drop(core);
        // set_weight, set_cpumask, and at least four about cgroups.
        ensure(without + 6 <= with, || format!("{with} programs with subscriptions, {without} without"))?;
        Ok(format!("{with} programs with subscriptions, {without} without"))
    });
}

/// A process that sleeps, killed when dropped.
struct Sleeper(Child);

impl Sleeper {
    fn new() -> Result<Self> {
        let child = Command::new("/bin/sleep").arg("30").spawn().map_err(|e| format!("start sleep: {e}"))?;
        Ok(Self(child))
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Sleeper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn wait(what: &str, mut is_true: impl FnMut() -> bool) -> Result<()> {
    let tries = PATIENCE.as_millis() / 10;
    for _ in 0..tries {
        if is_true() {
            return Ok(());
        }
        sys::sleep(Duration::from_millis(10));
    }
    Err(format!("{what}: not within {PATIENCE:?}"))
}

fn heard(what: &str, is_it: impl Fn(&Note) -> bool) -> Result<()> {
    wait(what, || HEARD.lock().is_ok_and(|notes| notes.iter().any(&is_it)))
}

fn notes(checks: &mut Checks, running: &Running) {
    checks.check("listener.fork", || {
        let me = Pid(std::process::id() as i32);
        let child = Sleeper::new()?;
        let pid = child.pid();
        heard("note of a fork", |n| {
            matches!(n, Note::Fork { task, tgid, parent, .. } if task.pid.0 == pid && tgid.0 == pid && *parent == me)
        })?;
        let info = running.task(Pid(pid)).map_err(|e| e.to_string())?;
        Ok(format!("pid {pid}, generation {}, the kernel's number {}", info.id.generation.0, info.tid))
    });
    checks.check("listener.weight", || {
        let child = Sleeper::new()?;
        let pid = child.pid();
        // SAFETY: plain numbers.
        ensure(unsafe { libc::setpriority(libc::PRIO_PROCESS, pid as u32, 5) } == 0, || {
            "setpriority".into()
        })?;
        // nice 5 is weight 335 of the kernel's 1024 (sched_prio_to_weight), so 33 of 100.
        heard(
            "note of a weight",
            |n| matches!(n, Note::Weight { task, weight: 32..=34 } if task.pid.0 == pid),
        )?;
        Ok("nice 5 is weight 33".into())
    });
    checks.check("listener.affinity", || {
        let child = Sleeper::new()?;
        let pid = child.pid();
        sys::set_affinity(pid, 0b10).map_err(|e| e.to_string())?;
        heard("note of an affinity", |n| {
            matches!(n, Note::Affinity { task, allowed } if task.pid.0 == pid && *allowed == Affinity::new(0b10, 1, 2))
        })?;
        Ok("CPU 1 only".into())
    });
}

/// What events say about when a thread and its process began is what `/proc` says.
fn identity() -> Result<String> {
    BORN.lock().map_err(|e| e.to_string())?.clear();
    let mut crowd = Command::new("/bin/lab-guest")
        .args(["crowd", "3", "--secs", "1"])
        .stdout(std::process::Stdio::null())
        .spawn()
        .map_err(|e| format!("start lab-guest crowd: {e}"))?;
    // So that its threads do not begin in the tick in which it did.
    sys::sleep(Duration::from_millis(600));
    let process = Pid(crowd.id() as i32);
    let born = BORN.lock().map_err(|e| e.to_string())?.clone();
    let (mut threads, mut later) = (std::collections::BTreeSet::new(), 0);
    for [(thread, began), (leader, process_began)] in born {
        let Some(ticks) = started(leader, thread) else { continue };
        let told = [began, process_began].map(|at| at.as_u64() / 10_000_000);
        let read = [ticks, started(leader, leader).ok_or_else(|| format!("{leader} has no /proc"))?];
        ensure(told == read, || format!("thread {thread} of {leader}: told {told:?}, /proc has {read:?}"))?;
        if leader == process && threads.insert(thread.0) {
            later += u32::from(told[0] > told[1]);
        }
    }
    crowd.wait().map_err(|e| e.to_string())?;
    ensure(threads.len() >= 3, || format!("only {threads:?} of {process} were seen"))?;
    Ok(format!("{} threads of {process}, {later} of them younger than it by a tick or more", threads.len()))
}

/// `starttime`, field 22 of the thread's `stat`, in ticks of 10 ms. The name (2) may contain anything but ends with the
/// last parenthesis.
fn started(process: Pid, thread: Pid) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{process}/task/{thread}/stat")).ok()?;
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

fn inheritance(checks: &mut Checks, running: &Running) {
    let me = Pid(sys::thread_id());
    let set = |settings| running.set_task(me, settings).map_err(|e| e.to_string());
    checks.check("listener.inherited", || {
        set(TaskSettings::label(LABEL).slice(Nanos::from_millis(3)))?;
        // A shell, its child, and a thread: three generations, none of them set by us.
        let mut shell = Command::new("/bin/sh")
            .args(["-c", "sleep 1 & sleep 1; wait"])
            .spawn()
            .map_err(|e| e.to_string())?;
        let thread = std::thread::spawn(sys::thread_id);
        let tid = thread.join().map_err(|_| "the thread panicked")?;
        let of_shell = running.task(Pid(shell.id() as i32)).map_err(|e| e.to_string())?;
        ensure(of_shell.settings == TaskSettings::label(LABEL).slice(Nanos::from_millis(3)), || {
            format!("the shell has {:?}", of_shell.settings)
        })?;
        let shell_pid = shell.id() as i32;
        heard(
            "fork of a labelled thread",
            |n| matches!(n, Note::Fork { task, label: LABEL, .. } if task.pid.0 == tid),
        )?;
        heard(
            "fork by the labelled shell",
            |n| matches!(n, Note::Fork { parent, label: LABEL, .. } if parent.0 == shell_pid),
        )?;
        wait("a labelled task that wants to run", || {
            LABELLED.lock().is_ok_and(|seen| seen.iter().any(|s| s.0 != shell_pid && s.1 == LABEL))
        })?;
        shell.wait().map_err(|e| e.to_string())?;
        set(TaskSettings::default())?;
        let after = Sleeper::new()?;
        let info = running.task(Pid(after.pid())).map_err(|e| e.to_string())?;
        ensure(info.settings == TaskSettings::default(), || format!("taken away, but {info:?}"))?;
        let inherited = running.inner().totals().inherited;
        Ok(format!("{inherited} tasks inherited; a thread and a grandchild among them"))
    });
    checks.check("listener.bounds", || {
        set(TaskSettings::label(1).slice(Nanos(1)))?;
        let short = running.task(me).map_err(|e| e.to_string())?.settings.slice;
        set(TaskSettings::label(1).slice(Nanos::MAX))?;
        let long = running.task(me).map_err(|e| e.to_string())?.settings.slice;
        set(TaskSettings::default())?;
        ensure(running.task(Pid(i32::MAX)).is_err(), || "a task that does not exist has settings".into())?;
        ensure(short == Nanos::from_micros(100) && long == Nanos::from_millis(20), || {
            format!("{short:?} {long:?}")
        })?;
        Ok("a slice of 1 ns becomes 100 us, an endless one 20 ms".into())
    });
}

fn cgroups(checks: &mut Checks) {
    checks.check("listener.cgroup", || {
        fs::create_dir(CGROUP).map_err(|e| format!("create {CGROUP}: {e}"))?;
        let id = std::os::unix::fs::MetadataExt::ino(&fs::metadata(CGROUP).map_err(|e| e.to_string())?);
        heard(
            "note of a new cgroup",
            |n| matches!(n, Note::Cgroup { cgroup_id, parent: 1, weight: 100, .. } if *cgroup_id == id),
        )?;
        write(&format!("{CGROUP}/cpu.weight"), "300")?;
        heard(
            "note of its weight",
            |n| matches!(n, Note::Cgroup { cgroup_id, weight: 300, .. } if *cgroup_id == id),
        )?;
        let child = Sleeper::new()?;
        let pid = child.pid();
        write(&format!("{CGROUP}/cgroup.procs"), &pid.to_string())?;
        heard(
            "note of a move",
            |n| matches!(n, Note::Moved { task, cgroup_id } if task.pid.0 == pid && *cgroup_id == id),
        )?;
        Ok(format!("cgroup {id}: made, weight 300, pid {pid} moved in"))
    });
    if !Path::new(CGROUP).join("cpu.max").exists() || !has_bandwidth() {
        println!("skip listener.limit - this kernel does not tell schedulers about cpu.max");
    } else {
        checks.check("listener.limit", || {
            write(&format!("{CGROUP}/cpu.max"), "20000 100000")?;
            let wanted = (Nanos::from_millis(20), Nanos::from_millis(100));
            heard(
                "note of a limit",
                |n| matches!(n, Note::Cgroup { limit: Some(limit), .. } if *limit == wanted),
            )?;
            write(&format!("{CGROUP}/cpu.max"), "max")?;
            Ok("20 ms of each 100".into())
        });
    }
    let _ = fs::remove_dir(CGROUP);
}

/// Whether the operation exists is asked of the kernel's symbols: BTF has no text to search.
fn has_bandwidth() -> bool {
    let symbols = fs::read_to_string("/proc/kallsyms").unwrap_or_default();
    symbols.contains("scx_group_set_bandwidth")
}
