//! Who waits for events is found without being told, in simulated time.

mod world;

use gthulhu_plugin_gthulhu::Gthulhu;
use qumun::sim::{Limit, Span, Spec, Step, Workload};
use qumun::{Cpu, CpuSet, Nanos};
use world::{hog, ms, ran, run, setups, us};

/// Free to run anywhere, and bound to a CPU, where no policy is asked.
#[test]
fn a_sleeper_among_hogs_runs_when_it_wakes() {
    let bound = [CpuSet::ALL, CpuSet::from_iter([Cpu(0)])];
    for (setup, cpus) in setups().into_iter().flat_map(|setup| bound.map(|cpus| (setup.clone(), cpus))) {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 8, Spec::default(), hog());
        let steps = vec![Step::Every(ms(2)), Step::Run(us(20).into())];
        let timer = work.group("timer", 1, Spec { cpus, ..Spec::default() }, steps);
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let waits = &sim.group(timer)[0].wake_to_run;
        let total = ran(&sim.group(hogs)) / 40.0;
        assert!(waits.quantile(0.99) < us(890), "p99 {}", waits.quantile(0.99));
        assert!(total > 0.95, "hogs have {total:.3}");
    }
}

/// So many wake up that slices cut once in a millisecond are too few: who comes then waits for the next one, or for the clock
/// interrupt; or not for longer than was said.
#[test]
fn a_decision_comes_when_the_agent_has_been_waited_for_long_enough() {
    for setup in setups() {
        let longest = |after: Nanos| {
            let mut setup = setup.clone();
            setup.settings.preempt_after = after.as_u64();
            let mut work = Workload::new();
            work.group("hogs", 4, Spec::default(), hog());
            let steps = vec![Step::Run(us(20).into()), Step::Sleep(Span::Exponential(ms(3)))];
            work.group("sleepers", 10, Spec::default(), steps);
            let sim = run(setup, &work, Gthulhu::default(), ms(10_000));
            (Nanos(sim.counters().max_parked_ns), sim.counters().preempts)
        };
        let [(never, some), (soon, more)] = [Nanos::ZERO, us(200)].map(longest);
        // An event may come during a turn of the agent, and what it says comes at the end of the next one.
        assert!(never > us(900) && soon < us(240), "{never} without it, {soon} with it");
        assert!(more > some, "{some} slices were cut without it, {more} with it");
    }
}

/// Its lead is a hundredth of others' in virtual time, and enough.
#[test]
fn a_sleeper_in_a_heavy_cgroup_runs_when_it_wakes() {
    for setup in setups() {
        let mut work = Workload::new();
        let heavy = work.cgroup(1, 10_000, Limit::NONE);
        let inside = Spec { cgroup_id: heavy, ..Spec::default() };
        work.group("beside", 8, Spec::default(), hog());
        work.group("inside", 4, inside.clone(), hog());
        let steps = vec![Step::Every(ms(2)), Step::Run(us(20).into())];
        let timer = work.group("timer", 1, inside, steps);
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let waits = &sim.group(timer)[0].wake_to_run;
        assert!(waits.quantile(0.99) < us(890), "p99 {}", waits.quantile(0.99));
    }
}

#[test]
fn what_a_shell_starts_is_ahead_of_those_who_compute() {
    for setup in setups() {
        let mut work = Workload::new();
        work.group("hogs", 8, Spec::default(), hog());
        let steps = vec![Step::Run(ms(25).into()), Step::Exit];
        let program = work.group("program", 0, Spec::default(), steps);
        let steps = vec![Step::Every(ms(200)), Step::Run(ms(1).into()), Step::Fork(program), Step::Join];
        work.group("shell", 1, Spec::default(), steps);
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let waits = sim.group(program).into_iter().map(|t| t.waited.as_u64()).collect::<Vec<_>>();
        let mean = Nanos(waits.iter().sum::<u64>() / waits.len() as u64);
        // In turn, each of its five slices would wait for eight others on two CPUs: 100 ms.
        assert!(waits.len() > 90 && mean < ms(25), "{} programs waited for {mean}", waits.len());
    }
}

#[test]
fn who_starts_programs_without_end_has_no_more_than_a_share_for_each() {
    for setup in setups() {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 4, Spec::default(), hog());
        let (_, programs) = work.fork_storm(4, ms(5));
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let [h, p] = [hogs, programs].map(|g| ran(&sim.group(g)) / 40.0);
        let longest = sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap_or(Nanos::ZERO);
        assert!(h > 0.40 && longest < ms(150), "hogs {h:.3}, programs {p:.3}, {longest}");
    }
}

#[test]
fn a_request_that_computes_a_little_is_ahead_of_those_who_only_compute() {
    for setup in setups() {
        let mut work = Workload::new();
        work.group("hogs", 8, Spec::default(), hog());
        let steps = vec![Step::Sleep(ms(40).into()), Step::Run(ms(5).into())];
        let server = work.group("server", 1, Spec::default(), steps);
        let sim = run(setup.clone(), &work, Gthulhu::default(), ms(20_000));
        let waits = &sim.group(server)[0].wake_to_run;
        assert!(waits.quantile(0.95) <= setup.tick + ms(1), "{}", waits.quantile(0.95));
    }
}

#[test]
fn sleeping_for_a_moment_is_worth_nothing() {
    for setup in setups() {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 4, Spec::default(), hog());
        let steps = vec![Step::Run(ms(4).into()), Step::Sleep(us(50).into())];
        let cheats = work.group("cheats", 4, Spec::default(), steps);
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let [h, c] = [hogs, cheats].map(|g| ran(&sim.group(g)) / 40.0);
        assert!((c / h) < 1.1, "cheats {c:.3}, hogs {h:.3}");
        let longest = sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap_or(Nanos::ZERO);
        assert!(longest < ms(150), "{longest}");
    }
}

#[test]
fn who_is_interactive_gets_no_more_than_its_share_in_the_end() {
    for setup in setups() {
        let mut work = Workload::new();
        let hogs = work.group("hogs", 4, Spec::default(), hog());
        // They sleep as long as they run: among eight that would be twice what is theirs.
        let steps = vec![Step::Run(ms(10).into()), Step::Sleep(ms(11).into())];
        work.group("greedy", 4, Spec::default(), steps);
        let sim = run(setup, &work, Gthulhu::default(), ms(20_000));
        let share = ran(&sim.group(hogs)) / 40.0;
        let longest = sim.group(hogs).iter().map(|t| t.longest_wait).max().unwrap_or(Nanos::ZERO);
        assert!(share > 0.45 && longest < ms(300), "hogs {share:.3}, {longest}");
    }
}
