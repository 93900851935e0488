//! The policy on the in-process model of the core: no kernel, no privileges.

use mine::Mine;
use qumun::Nanos;
use qumun::sim::{Machine, Spec};

#[test]
fn everybody_gets_a_fair_part_and_nobody_is_lost() {
    let machine = Machine::new(2);
    let mut agent = qumun::builder("mine").agent(machine.backend(), Mine::default());
    let tasks = [(); 6].map(|()| machine.spawn(Spec::default()));
    tasks.iter().for_each(|&task| assert!(machine.wake(task)));
    machine.run(Nanos::from_millis(3_000), || agent.turn());
    for task in tasks {
        let got = machine.run_time(task);
        assert!((Nanos::from_millis(850)..Nanos::from_millis(1_150)).contains(&got), "{got}");
    }
    assert_eq!((machine.check(), machine.latch().entered), (Ok(()), 0));
}

#[test]
fn who_sleeps_much_overtakes_who_computes_but_not_for_ever() {
    let machine = Machine::new(1);
    let mut agent = qumun::builder("mine").agent(machine.backend(), Mine::default());
    let hog = machine.spawn(Spec::default());
    assert!(machine.wake(hog));
    machine.run(Nanos::from_millis(1_000), || agent.turn());
    let sleepers = [(); 3].map(|()| machine.spawn(Spec::default()));
    let before = machine.run_time(hog);
    machine.run(Nanos::from_millis(2_000), || {
        for &task in &sleepers {
            if !machine.wake(task) {
                machine.sleep(task);
            }
        }
        agent.turn();
    });
    assert!(machine.run_time(hog) > before + Nanos::from_millis(100), "the hog starves");
    assert!(sleepers.iter().all(|&task| machine.runs(task) > 50));
    assert_eq!(machine.check(), Ok(()));
}
