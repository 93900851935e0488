//! The stand-in for the core says so when it is not answered as it should be. As root, on a kernel from 6.1 on.

use qumun_benches::{Lane, Single, Stand};

/// Nothing to test where BPF cannot be loaded; cargo shows the reason with `--nocapture`.
fn stand() -> Option<Stand> {
    Stand::load(2).map_err(|why| println!("skipped: {why}")).ok()
}

#[test]
fn each_event_must_be_answered_once() {
    let Some(stand) = stand() else { return };
    let single = Single::new(&stand).expect("the rings can be mapped");
    stand.send(Lane::Single, 3, 2);
    assert!(stand.check(Lane::Single).is_err(), "nothing is answered yet");
    for _ in 0..3 {
        assert!(single.step());
    }
    assert!(!single.step(), "there were three");
    assert_eq!(stand.take(Lane::Single), 3);
    stand.check(Lane::Single).expect("each was answered once");
    assert_eq!(stand.latencies(Lane::Single, 3).filter(|&ns| ns > 0).count(), 3);
}

#[test]
fn an_answer_too_many_and_one_to_another_task_are_wrong() {
    let Some(stand) = stand() else { return };
    let single = Single::new(&stand).expect("the rings can be mapped");
    stand.send(Lane::Single, 2, 2);
    let [first, second] = [(); 2].map(|()| Single::answer(&single.receive().expect("an event")));
    single.send(&first);
    single.send(&first);
    single.send(&qumun::kernel::wire::Decision { pid: second.pid + 1, ..second });
    assert_eq!(stand.take(Lane::Single), 3);
    let told = stand.check(Lane::Single).expect_err("two of them are wrong");
    assert_eq!(told, "2 events, 1 answered, 2 decisions that answer none");
}

#[test]
fn system_calls_are_counted_while_the_gate_is_open() {
    let Some(stand) = stand() else { return };
    let meter = match stand.meter() {
        Ok(meter) => meter,
        Err(why) => return println!("skipped: {why}"),
    };
    qumun_bpf::agent::yield_now();
    meter.count(true);
    (0..5).for_each(|_| qumun_bpf::agent::yield_now());
    meter.count(false);
    qumun_bpf::agent::yield_now();
    assert_eq!(meter.take(), [(libc::SYS_sched_yield as usize, 5)]);
    assert_eq!(meter.take(), [], "it begins anew");
}
