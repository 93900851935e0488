//! The recorder on the running kernel, whatever schedules there.
#![cfg(feature = "loader")]

use std::collections::HashSet;
use std::time::{Duration, Instant};

use qumun_bpf::ErrorKind;
use qumun_bpf::recorder::{Happened, Recorder, What};

/// `None` where it cannot run: then a line says why.
fn start() -> Option<Recorder> {
    match Recorder::start(4 << 20) {
        Ok(recorder) => Some(recorder),
        Err(error) if matches!(error.kind(), ErrorKind::Permission | ErrorKind::NoBtf) => {
            println!("skip recorder - {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_child_that_sleeps_and_ends_is_seen_doing_so() {
    let Some(mut recorder) = start() else { return };
    let child = std::process::Command::new("sleep").arg("0.1").spawn().unwrap();
    let pid = child.id() as i32;
    let mut child = child;
    child.wait().unwrap();
    let (mut seen, begun) = (Vec::new(), Instant::now());
    while begun.elapsed() < Duration::from_millis(200) {
        recorder.drain(|happened: Happened| seen.push(happened)).unwrap();
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(recorder.lost(), 0);
    let has = |test: &dyn Fn(&What) -> bool| seen.iter().any(|happened| test(&happened.what));
    assert!(has(&|what| matches!(what, What::Fork { child, .. } if *child == pid)));
    assert!(has(&|what| matches!(what, What::Exit { pid: p } if *p == pid)));
    assert!(has(&|what| matches!(what, What::Task(task) if task.pid == pid && task.comm == "sleep")));
    // Its timer is an interrupt.
    let by: HashSet<i32> = seen
        .iter()
        .filter_map(|happened| match happened.what {
            What::Wake { pid: p, by, .. } if p == pid => Some(by),
            _ => None,
        })
        .collect();
    assert!(by.contains(&-1), "{by:?}");
    assert!(has(&|what| matches!(what, What::Switch { from, why: 0, .. } if *from == pid)));
    assert!(has(&|what| matches!(what, What::Switch { from, why: 2, .. } if *from == pid)));
}

#[test]
fn sizes_that_no_ring_can_have_are_refused() {
    for bytes in [0, 4096, 3 << 20] {
        assert_eq!(Recorder::start(bytes).unwrap_err().kind(), ErrorKind::Invalid);
    }
}
