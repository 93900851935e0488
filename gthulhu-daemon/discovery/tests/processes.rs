//! Real processes and threads: found with all of them, matched by what they run, told apart when a pid is used
//! again. Most of it needs no root; what does is skipped visibly without.
#![allow(missing_docs)]

mod support;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use gthulhu_discovery::{Discovery, Event, Field, Forked, Options, Pattern, Proc, Source};
use gthulhu_model::{Comm, ThreadId};
use support::until;

/// Not a test: what others start, to have a process with threads. Ends when its standard input does.
#[test]
#[ignore = "started by other tests"]
fn process_with_threads() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::Builder::new().name(format!("worker-{number}")).spawn(std::thread::park).unwrap()
        })
        .collect();
    println!("ready");
    let mut line = String::new();
    // One line: one worker ends. End of file: all do, with the process.
    while std::io::stdin().read_line(&mut line).unwrap() > 0 {
        threads[0].thread().unpark();
    }
    std::process::exit(0);
}

/// A process with eight workers.
struct Workers(Child);

impl Workers {
    fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "process_with_threads", "--ignored", "--nocapture", "--test-threads=1"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let lines = BufReader::new(child.stdout.as_mut().unwrap()).lines();
        assert!(lines.map_while(Result::ok).any(|line| line.ends_with("ready")));
        Self(child)
    }

    fn pid(&self) -> i32 {
        self.0.id() as i32
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn discovery(source: Source) -> Discovery {
    let mut options = Options::default();
    (options.source, options.watch) = (source, false);
    Discovery::new(options).unwrap()
}

/// Both ways of learning where threads are, if this machine has a tree of v2.
fn sources() -> Vec<Source> {
    let mut options = Options::default();
    options.source = Source::Tree;
    match Discovery::new(options) {
        Ok(_) => vec![Source::Proc, Source::Tree],
        Err(error) => {
            println!("skip Source::Tree - {error}");
            vec![Source::Proc]
        }
    }
}

#[test]
fn every_thread_of_a_process_is_found_and_told() {
    use std::io::Write;
    for source in sources() {
        let mut workers = Workers::start();
        let pid = workers.pid();
        let mut discovery = discovery(source);
        discovery.rescan().unwrap();
        let process = discovery.index().process(pid).unwrap();
        let names: Vec<String> =
            process.threads().iter().filter_map(|thread| Some(thread.comm?.to_string())).collect();
        for number in 0..8 {
            assert!(names.contains(&format!("worker-{number}")), "{source:?}: {names:?}");
        }
        let count = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap().count();
        assert_eq!(process.threads().len(), count, "{source:?}: {names:?}");
        let worker =
            process.threads().iter().find(|it| it.comm == Comm::new("worker-0").ok()).copied().unwrap();
        let subject = discovery.index().subject(worker.id.pid).unwrap();
        assert_eq!((subject.thread, subject.process), (Some(worker.id), Some(process.id)));
        assert_eq!(worker.cgroup, process.cgroup);

        // One ends: only that one is told.
        writeln!(workers.0.stdin.as_mut().unwrap()).unwrap();
        let mut events = Vec::new();
        until("the worker is gone", || {
            events.extend(discovery.rescan().unwrap());
            discovery.index().thread(worker.id).is_none()
        });
        let id = discovery.index().process(pid).unwrap().id;
        let of_process: Vec<&Event> = events
            .iter()
            .filter(|event| match event {
                Event::ThreadAdded { process, .. } | Event::ThreadRemoved { process, .. } => *process == id,
                Event::ProcessRemoved { process, .. } => *process == id,
                _ => false,
            })
            .collect();
        assert_eq!(of_process, [&Event::ThreadRemoved { process: id, thread: worker.id }], "{source:?}");
        drop(workers);
        let events = discovery.rescan().unwrap();
        let ended = |event: &&Event| matches!(event, Event::ThreadRemoved { process, .. } if *process == id);
        assert_eq!(events.iter().filter(ended).count(), count - 1, "{source:?}");
    }
}

#[test]
fn commands_are_matched_by_name_file_and_arguments() {
    // Its arguments are nobody else's.
    let mark = format!("120.{:07}", std::process::id());
    let mut child = Command::new("sleep").arg(&mark).spawn().unwrap();
    let mut discovery = discovery(Source::Proc);
    let pid = child.id() as i32;
    until("it runs sleep", || {
        discovery.rescan().unwrap();
        discovery.index().process(pid).is_some_and(|process| process.command.comm == Comm::new("sleep").ok())
    });
    let found = |pattern: &str| -> Vec<(i32, Field)> {
        let pattern = Pattern::new(pattern).unwrap();
        let find =
            |process: &gthulhu_discovery::Process| Some((process.id.pid, pattern.find(&process.command)?));
        discovery.index().processes().filter_map(find).collect()
    };
    let by_arguments = found(&format!("^sleep {}$", mark.replace('.', r"\.")));
    let (by_name, by_file) = (found("^sleep$"), found("/(sleep|coreutils|busybox)$"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(by_arguments, [(pid, Field::Cmdline)]);
    assert!(by_name.contains(&(pid, Field::Comm)));
    assert!(by_file.iter().any(|(found, field)| *found == pid && *field == Field::Exe));
}

/// The command is that of the new program, also between two looks.
#[test]
fn a_process_that_runs_another_program_is_told() {
    let mut child =
        Command::new("sh").args(["-c", "read line; exec sleep 120"]).stdin(Stdio::piped()).spawn().unwrap();
    let pid = child.id() as i32;
    let mut discovery = discovery(Source::Proc);
    discovery.rescan().unwrap();
    let id = discovery.index().process(pid).unwrap().id;
    drop(child.stdin.take());
    let mut events = Vec::new();
    until("it was told that another program runs", || {
        events.extend(discovery.executed(pid).unwrap());
        discovery.index().process(pid).unwrap().command.comm == Comm::new("sleep").ok()
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(events.contains(&Event::ProcessChanged(id)));
    let (process, thread) = discovery.index().thread(id).expect("exec changes nobody's identity");
    assert_eq!((process.id, thread.comm), (id, Comm::new("sleep").ok()));
    assert!(process.command.exe.as_ref().unwrap().is_absolute() && process.command.cmdline == b"sleep 120");
}

/// The kernel gives the next pid after this file's number: so a pid can be had again.
#[test]
fn a_pid_that_is_used_again_is_another_process() {
    const LAST: &str = "/proc/sys/kernel/ns_last_pid";
    for source in sources() {
        let mut discovery = discovery(source);
        let mut first = Command::new("sleep").arg("120").spawn().unwrap();
        let pid = first.id() as i32;
        discovery.rescan().unwrap();
        let old = discovery.index().process(pid).unwrap().id;
        first.kill().unwrap();
        first.wait().unwrap();
        // Start times have 10 ms.
        std::thread::sleep(std::time::Duration::from_millis(30));
        let mut second = None;
        for _ in 0..200 {
            if let Err(error) = std::fs::write(LAST, (pid - 1).to_string()) {
                println!("skip: a pid cannot be had again ({LAST}: {error})");
                return;
            }
            let mut child = Command::new("sleep").arg("120").spawn().unwrap();
            if child.id() as i32 == pid {
                second = Some(child);
                break;
            }
            // Somebody else was faster.
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let Some(mut second) = second else {
            println!("skip: pid {pid} could not be had again in 200 attempts");
            return;
        };
        let events = discovery.rescan();
        let index = discovery.index();
        let new = index.process(pid).map(|process| process.id);
        let by_old = index.thread(old).is_some();
        second.kill().unwrap();
        second.wait().unwrap();
        let (events, new) = (events.unwrap(), new.unwrap());
        assert!(new.pid == old.pid && new.started > old.started, "{new:?} after {old:?}");
        assert!(!by_old, "the old identity means nobody");
        let gone = |event: &Event| matches!(event, Event::ProcessRemoved { process, .. } if *process == old);
        let at_gone = events.iter().position(gone).unwrap();
        let at_new = events.iter().position(|event| *event == Event::ProcessAdded(new)).unwrap();
        assert!(at_gone < at_new, "first the one goes, then the other comes");
    }
}

/// What a BPF program tells is known at once, and the next look finds the same.
#[test]
fn forks_that_are_told_agree_with_what_is_found_later() {
    for source in sources() {
        let mut discovery = discovery(source);
        let us = std::process::id() as i32;
        discovery.rescan().unwrap();
        let workers = Workers::start();
        let pid = workers.pid();
        let proc = Proc::host().unwrap();
        let entry = proc.entry(pid).unwrap().unwrap();
        let threads = entry.threads().unwrap();
        let process = ThreadId { pid, started: entry.stat().unwrap().unwrap().started };
        for (thread, comm) in &threads {
            let fork = Forked { thread: *thread, process: pid, parent: us, cgroup: None, comm: *comm };
            let events = discovery.forked(&fork).unwrap();
            assert!(events.contains(&Event::ThreadAdded { process, thread: *thread }), "{events:?}");
            assert_eq!(discovery.forked(&fork).unwrap(), [], "told twice");
        }
        let known = discovery.index().process(pid).unwrap();
        assert_eq!(known.workload, discovery.index().process(us).unwrap().workload, "where its parent is");
        assert_eq!(known.threads().len(), threads.len());
        discovery.executed(pid).unwrap();

        let events = discovery.rescan().unwrap();
        let about_it = |event: &&Event| match event {
            Event::ThreadAdded { process: of, .. } | Event::ThreadRemoved { process: of, .. } => {
                *of == process
            }
            Event::ProcessAdded(of) | Event::ProcessChanged(of) => *of == process,
            _ => false,
        };
        assert_eq!(events.iter().filter(about_it).collect::<Vec<_>>(), [] as [&Event; 0], "{source:?}");

        let worker = threads.iter().find(|(thread, _)| thread.pid != pid).unwrap().0;
        assert_eq!(discovery.exited(worker), [Event::ThreadRemoved { process, thread: worker }]);
        assert_eq!(discovery.exited(worker), []);
        let other = ThreadId { pid, started: process.started + 1 };
        assert_eq!(discovery.exited(other), [], "that is another process");
    }
}

#[test]
fn a_thread_of_an_unknown_process_is_left_for_the_next_look() {
    let mut discovery = discovery(Source::Proc);
    let thread = ThreadId { pid: 2_000_001, started: 1 };
    let fork = Forked { thread, process: 2_000_000, parent: 1_999_999, cgroup: None, comm: None };
    assert_eq!(discovery.forked(&fork).unwrap(), []);
    assert_eq!(discovery.executed(2_000_000).unwrap(), []);
    assert_eq!(discovery.renamed(thread, Comm::new("x").unwrap()), []);
}

/// Ten looks while processes come and go as fast as they can.
#[test]
fn processes_that_vanish_while_they_are_read_are_no_error() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        for source in sources() {
            let mut discovery = discovery(source);
            for _ in 0..10 {
                let looked = discovery.rescan();
                if looked.is_err() {
                    stop.store(true, Ordering::Relaxed);
                }
                looked.unwrap();
            }
            // Each thread belongs to a process, and both know of each other.
            let index = discovery.index();
            let threads: usize = index.processes().map(|process| process.threads().len()).sum();
            assert_eq!(threads, index.thread_count());
            for process in index.processes() {
                for thread in process.threads() {
                    assert_eq!(index.thread_of(thread.id.pid).map(|(of, _)| of.id), Some(process.id));
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
}

/// An empty answer would read as "nothing runs here" (the original's X9).
#[test]
fn what_is_no_proc_is_an_error_and_not_an_empty_answer() {
    let empty = std::env::temp_dir().join(format!("gthulhu-no-proc-{}", std::process::id()));
    std::fs::create_dir_all(&empty).unwrap();
    let error = Proc::at(&empty).unwrap().pids().unwrap_err().to_string();
    std::fs::remove_dir(&empty).unwrap();
    assert!(error.contains("shows no process: give the path of a proc file system"), "{error}");
    let error = Proc::at(&empty).unwrap_err().to_string();
    assert!(error.starts_with(&format!("cannot open {}", empty.display())), "{error}");
}
