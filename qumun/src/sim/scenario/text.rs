//! Scenarios as text, and back.

use std::fmt;

use super::{Scenario, ScenarioError};
use crate::sim::engine::{Costs, Fault, Group, Members, Span, Step};
use crate::sim::linux::Limit;
use crate::sim::values::Spec;
use crate::{Cpu, CpuSet, MAX_CPUS, Nanos, Topology};

/// More tasks than any machine has.
const MOST_TASKS: usize = 1_000_000;
/// Eleven days: far from where nanoseconds since the start would overflow.
const LONGEST: Nanos = Nanos(1_000_000_000_000_000);

/// `KEY=VALUE` words, and words without a value.
struct Words<'a> {
    words: Vec<(&'a str, &'a str)>,
}

impl<'a> Words<'a> {
    fn of(text: &'a str) -> Self {
        let words = text.split_whitespace().map(|word| word.split_once('=').unwrap_or((word, "")));
        Self { words: words.collect() }
    }

    fn take(&mut self, key: &str) -> Option<&'a str> {
        let index = self.words.iter().position(|(k, _)| *k == key)?;
        Some(self.words.remove(index).1)
    }

    fn number<T: std::str::FromStr>(&mut self, key: &str) -> Result<Option<T>, String> {
        self.take(key).map(|value| number(value).map_err(|e| format!("{key}={value}: {e}"))).transpose()
    }

    fn time(&mut self, key: &str) -> Result<Option<Nanos>, String> {
        self.take(key).map(|value| time(value).map_err(|e| format!("{key}={value}: {e}"))).transpose()
    }

    /// Anything that is left makes no sense here.
    fn end(self, known: &str) -> Result<(), String> {
        match self.words.first() {
            Some((key, _)) => Err(format!("\"{key}\" is not known here; there are {known}")),
            None => Ok(()),
        }
    }
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.replace('_', "").parse().map_err(|_| "no number that fits".to_owned())
}

/// `1.5ms`, exact to the nanosecond.
fn time(text: &str) -> Result<Nanos, String> {
    let wrong = || format!("\"{text}\" is no time; one is 250us, 1.5ms or 2s");
    let split = text.find(|c: char| c.is_ascii_alphabetic()).ok_or_else(wrong)?;
    let (value, unit) = text.split_at(split);
    let unit: u64 = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        _ => return Err(wrong()),
    };
    let (whole, part) = value.split_once('.').unwrap_or((value, ""));
    if whole.is_empty() || !(whole.chars().chain(part.chars())).all(|c| c.is_ascii_digit()) || part.len() > 9
    {
        return Err(wrong());
    }
    let whole: u64 = whole.parse().map_err(|_| wrong())?;
    let scale = 10u64.pow(part.len() as u32);
    let part: u64 = if part.is_empty() { 0 } else { part.parse().map_err(|_| wrong())? };
    if !(part * unit).is_multiple_of(scale) {
        return Err(format!("\"{text}\" is finer than a nanosecond"));
    }
    let sum = whole.checked_mul(unit).and_then(|ns| ns.checked_add(part * unit / scale));
    match sum.map(Nanos) {
        Some(time) if time <= LONGEST => Ok(time),
        _ => Err(format!("\"{text}\" is longer than {LONGEST}")),
    }
}

fn span(text: &str) -> Result<Span, String> {
    if let Some(mean) = text.strip_prefix('~') {
        return Ok(Span::Exponential(time(mean)?));
    }
    match text.split_once("..") {
        Some((low, high)) => Ok(Span::Uniform(time(low)?, time(high)?)),
        None => Ok(Span::Fixed(time(text)?)),
    }
}

fn cpu_list(text: &str) -> Result<CpuSet, String> {
    if text == "all" {
        return Ok(CpuSet::ALL);
    }
    let set: CpuSet = text.parse().map_err(|e| format!("{e:#}"))?;
    if set.is_empty() { Err("no CPU is left".to_owned()) } else { Ok(set) }
}

/// The line `machine`.
pub(super) fn machine(text: &str) -> Result<Topology, String> {
    let mut words = Words::of(text);
    if let Some(cpus) = words.number::<u32>("cpus")? {
        words.end("cpus, alone")?;
        return match cpus {
            1..=MAX_CPUS => Ok(Topology::flat(cpus)),
            _ => Err(format!("cpus={cpus}: 1 to {MAX_CPUS} are possible")),
        };
    }
    let mut synthetic = Topology::synthetic();
    let mut all = 1u64;
    for (key, set) in [
        ("packages", crate::topology::Synthetic::packages as fn(_, u32) -> _),
        ("nodes", crate::topology::Synthetic::nodes),
        ("l3s", crate::topology::Synthetic::l3s),
        ("cores", crate::topology::Synthetic::cores),
        ("threads", crate::topology::Synthetic::threads),
    ] {
        if let Some(n) = words.number::<u32>(key)? {
            all = all.saturating_mul(u64::from(n));
            synthetic = set(synthetic, n);
        }
    }
    if let Some(n) = words.number("l2")? {
        synthetic = synthetic.cores_per_l2(n);
    }
    words.end("cpus, or packages, nodes, l3s, cores, threads, l2 (cores for each)")?;
    if !(1..=u64::from(MAX_CPUS)).contains(&all) {
        return Err(format!("{all} CPUs: 1 to {MAX_CPUS} are possible"));
    }
    synthetic.build().map_err(|e| format!("{e:#}"))
}

/// A step or a fault whose group is known by name only yet.
struct Named<'a> {
    line: usize,
    group: &'a str,
}

pub(super) fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    let mut scenario = Scenario::new(2).map_err(|why| ScenarioError::new(0, why))?;
    let mut lines: Vec<(usize, &str)> = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or("").trim();
        if !line.is_empty() {
            lines.push((number, line));
        }
    }
    // First the groups, as steps and faults may name one that comes later.
    for &(line, words) in &lines {
        let fails = |why: String| ScenarioError::new(line, format!("\"{words}\": {why}"));
        let (head, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        if head == "cgroup" {
            cgroup(&mut scenario, rest).map_err(fails)?;
        } else if head == "group" {
            group(&mut scenario, rest).map_err(fails)?;
        } else if head == "machine" {
            let topology = machine(rest).map_err(fails)?;
            scenario.machine = rest.split_whitespace().collect::<Vec<_>>().join(" ");
            scenario.setup.topology = topology;
        }
    }
    let mut open = None;
    for &(line, words) in &lines {
        let fails = |why: String| ScenarioError::new(line, format!("\"{words}\": {why}"));
        let (head, rest) = words.split_once(char::is_whitespace).unwrap_or((words, ""));
        let rest = rest.trim();
        match head {
            "machine" | "cgroup" => {}
            "group" => {
                let name = rest.split_whitespace().next().unwrap_or("");
                open = scenario.work.named(name);
            }
            "at" => fault(&mut scenario, line, rest).map_err(fails)?,
            "time" | "seed" | "tick" | "switch" | "kick" | "agent" | "core" | "rings" | "room" => {
                setting(&mut scenario, head, rest).map_err(fails)?;
            }
            _ => {
                let step = step(&scenario, line, head, rest).map_err(fails)?;
                let steps = open.and_then(|open| scenario.work.steps(open));
                let steps = steps.ok_or_else(|| fails("a step before the first group".to_owned()))?;
                steps.push(step);
            }
        }
    }
    scenario.work.check().map_err(|why| ScenarioError::new(0, why))?;
    Ok(scenario)
}

fn group(scenario: &mut Scenario, text: &str) -> Result<(), String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    if name.is_empty() || name.contains('=') {
        return Err("a group needs a name".to_owned());
    }
    if scenario.work.named(name).is_some() {
        return Err(format!("there is a group {name} already"));
    }
    let mut words = Words::of(rest);
    let count: usize = words.number("count")?.unwrap_or(1);
    let begins = words.time("begins")?.unwrap_or_default();
    let mut spec = Spec::default();
    if let Some(weight) = words.number("weight")? {
        spec.weight = weight;
    }
    if !(1..=10_000).contains(&spec.weight) {
        return Err(format!("weight={}: 1 to 10000 are possible", spec.weight));
    }
    if let Some(list) = words.take("cpus") {
        spec.cpus = cpu_list(list).map_err(|e| format!("cpus={list}: {e}"))?;
    }
    if let Some(cgroup) = words.number("cgroup")? {
        spec.cgroup_id = cgroup;
    }
    spec.label = words.number("label")?.unwrap_or(0);
    spec.kthread = words.take("kthread").is_some();
    words.end("count, weight, cpus, cgroup, label, begins, kthread")?;
    let total: usize = scenario.work.groups().map(|(_, _, count)| count).sum();
    if total.saturating_add(count) > MOST_TASKS {
        return Err(format!("count={count}: {MOST_TASKS} tasks in all are possible"));
    }
    scenario.work.group_at(begins, name, count, spec, Vec::new());
    Ok(())
}

/// `50ms/100ms`, or `none`.
fn limit(text: &str) -> Result<Limit, String> {
    if text == "none" {
        return Ok(Limit::NONE);
    }
    let wrong = || {
        format!("\"{text}\" is no limit; one is 50ms/100ms (in each 100 ms of time, 50 of CPU time), or none")
    };
    let (quota, rest) = text.split_once('/').ok_or_else(wrong)?;
    let (period, burst) = rest.split_once('+').unwrap_or((rest, "0us"));
    let [quota, period, burst] = [quota, period, burst].map(|part| time(part).map(|t| t.as_u64() / 1_000));
    let (quota_us, period_us, burst_us) = (quota?, period?, burst?);
    // The kernel's own bounds (cpu.max).
    if quota_us < 1_000 || !(1_000..=1_000_000).contains(&period_us) || burst_us > quota_us {
        return Err(format!("{}: at least 1ms, in 1ms to 1s, with a burst of no more", wrong()));
    }
    Ok(Limit { quota_us, period_us, burst_us })
}

fn cgroup(scenario: &mut Scenario, text: &str) -> Result<(), String> {
    let (id, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let next = scenario.work.cgroups.len() as u64 + 2;
    if number::<u64>(id) != Ok(next) {
        return Err(format!("cgroups are numbered as they come, and this is cgroup {next} (1 is the root)"));
    }
    let mut words = Words::of(rest);
    let parent = words.number("parent")?.unwrap_or(1);
    let weight = words.number("weight")?.unwrap_or(100);
    if !(1..=10_000).contains(&weight) {
        return Err(format!("weight={weight}: 1 to 10000 are possible"));
    }
    if !(1..next).contains(&parent) {
        return Err(format!("parent={parent}: it is not made before"));
    }
    let limit = words.take("limit").map_or(Ok(Limit::NONE), limit)?;
    words.end("parent, weight, limit")?;
    scenario.work.cgroup(parent, weight, limit);
    Ok(())
}

fn setting(scenario: &mut Scenario, key: &str, text: &str) -> Result<(), String> {
    let setup = &mut scenario.setup;
    let more_than_none =
        |time: Nanos| if time == Nanos::ZERO { Err("it is zero".to_owned()) } else { Ok(time) };
    let mut words = Words::of(text);
    match key {
        "time" => scenario.time = time(text)?,
        "seed" => setup.seed = number(text)?,
        "tick" => setup.tick = more_than_none(time(text)?)?,
        "switch" => setup.switch = time(text)?,
        "kick" => setup.kick = time(text)?,
        "agent" => setup.costs = costs(text, setup.costs)?,
        "core" => {
            if let Some(slice) = words.time("slice")? {
                setup.settings.slice = more_than_none(slice)?.0;
            }
            if let Some(late) = words.time("late")? {
                setup.settings.late = more_than_none(late)?.0;
            }
            match words.take("mode") {
                None | Some("agent") => setup.kernel_mode = false,
                Some("kernel") => setup.kernel_mode = true,
                Some(other) => return Err(format!("mode={other}: agent or kernel are possible")),
            }
            if let Some(cpu) = words.number("dedicated")? {
                setup.settings.dedicated = Some(Cpu(cpu));
            }
            words.end("slice, late, mode, dedicated")?;
        }
        "rings" => {
            let one =
                |n: usize| if n == 0 { Err("a ring has room for one at least".to_owned()) } else { Ok(n) };
            if let Some(n) = words.number("events")? {
                setup.rings.0 = one(n)?;
            }
            if let Some(n) = words.number("decisions")? {
                setup.rings.1 = one(n)?;
            }
            words.end("events, decisions")?;
        }
        _ => {
            scenario.tasks = words.number("tasks")?;
            scenario.pool = words.number("pool")?;
            // The agent would refuse it anyway, but by then it is a panic of a test.
            if scenario.tasks.is_some_and(|n| n > 16 * MOST_TASKS)
                || scenario.pool.is_some_and(|n| n > 1 << 32)
            {
                return Err(format!("{} tasks and 4294967296 bytes are possible", 16 * MOST_TASKS));
            }
            words.end("tasks, pool")?;
        }
    }
    Ok(())
}

fn costs(text: &str, mut costs: Costs) -> Result<Costs, String> {
    let mut words = Words::of(text);
    costs.turn = words.time("turn")?.unwrap_or(costs.turn);
    costs.event = words.time("event")?.unwrap_or(costs.event);
    costs.decision = words.time("decision")?.unwrap_or(costs.decision);
    words.end("turn, event, decision")?;
    Ok(costs)
}

/// A cgroup that the scenario has, but for the root.
fn cgroup_id(scenario: &Scenario, text: &str) -> Result<u64, String> {
    let last = scenario.work.cgroups.len() as u64 + 1;
    match number::<u64>(text) {
        Ok(id) if (2..=last).contains(&id) => Ok(id),
        _ => Err(format!("there is no cgroup {text} (1 is the root, which has no limit)")),
    }
}

fn named(scenario: &Scenario, name: &Named<'_>) -> Result<Group, String> {
    let Named { line, group } = name;
    scenario
        .work
        .named(group)
        .ok_or_else(|| format!("line {line} names a group \"{group}\" that is not there"))
}

fn step(scenario: &Scenario, line: usize, head: &str, rest: &str) -> Result<Step, String> {
    let group = || named(scenario, &Named { line, group: rest });
    let alone = |step| if rest.is_empty() { Ok(step) } else { Err(format!("\"{rest}\" is too much")) };
    match head {
        "run" => Ok(Step::Run(span(rest)?)),
        "sleep" => Ok(Step::Sleep(span(rest)?)),
        "every" => Ok(Step::Every(time(rest)?)),
        "until" => Ok(Step::Until(time(rest)?)),
        "pin" => Ok(Step::Pin(cpu_list(rest)?)),
        "move" => Ok(Step::Move(number(rest)?)),
        "wake" => Ok(Step::Wake(group()?)),
        "wake-all" => Ok(Step::WakeAll(group()?)),
        "fork" => Ok(Step::Fork(group()?)),
        "block" => alone(Step::Block),
        "join" => alone(Step::Join),
        "exit" => alone(Step::Exit),
        _ => {
            Err("no such line; there are machine, time, seed, tick, switch, kick, agent, core, rings, room, \
                  cgroup, group, at, and the steps run, sleep, every, until, block, wake, wake-all, fork, join, pin, move, \
                  exit"
                .to_owned())
        }
    }
}

fn fault(scenario: &mut Scenario, line: usize, text: &str) -> Result<(), String> {
    let mut words = text.split_whitespace();
    let mut next = |what: &str| words.next().ok_or_else(|| format!("{what} is missing"));
    let at = time(next("the time")?)?;
    let kind = next("what happens")?;
    let nr_cpus = scenario.setup.topology.nr_cpus();
    let cpu = |text: &str| match number::<u32>(text)? {
        n if n < nr_cpus => Ok(Cpu(n)),
        n => Err(format!("CPU {n}: the machine has 0 to {}", nr_cpus - 1)),
    };
    let fault = match kind {
        "stop" => Fault::Stop(time(next("for how long")?)?),
        "kill" => Fault::Kill(time(next("when the next one comes")?)?),
        "mode" => match next("agent or kernel")? {
            "agent" => Fault::KernelMode(false),
            "kernel" => Fault::KernelMode(true),
            other => return Err(format!("mode {other}: agent or kernel are possible")),
        },
        "garbage" => Fault::Garbage(number(next("how many")?)?),
        "offline" => Fault::Offline(cpu(next("the CPU")?)?),
        "online" => Fault::Online(cpu(next("the CPU")?)?),
        "affinity" => {
            let group = named(scenario, &Named { line, group: next("the group")? })?;
            Fault::Affinity(group, cpu_list(next("the list of CPUs")?)?)
        }
        "weight" => {
            let group = named(scenario, &Named { line, group: next("the group")? })?;
            let weight = number(next("the weight")?)?;
            if !(1..=10_000).contains(&weight) {
                return Err(format!("weight {weight}: 1 to 10000 are possible"));
            }
            Fault::Weight(group, weight)
        }
        "limit" => {
            let id = cgroup_id(scenario, next("the cgroup")?)?;
            Fault::Limit(id, limit(next("the limit")?)?)
        }
        "costs" => {
            let rest: Vec<&str> = words.by_ref().collect();
            Fault::Costs(costs(&rest.join(" "), Costs::default())?)
        }
        _ => {
            return Err(format!(
                "\"{kind}\" does not happen; there are stop, kill, costs, garbage, offline, online, affinity, weight, \
                 limit"
            ));
        }
    };
    match words.next() {
        Some(word) => Err(format!("\"{word}\" is too much")),
        None => {
            scenario.faults.push((at, fault));
            Ok(())
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) => write!(f, "{time}"),
            Self::Uniform(low, high) => write!(f, "{low}..{high}"),
            Self::Exponential(mean) => write!(f, "~{mean}"),
        }
    }
}

fn list(cpus: &CpuSet) -> String {
    if *cpus == CpuSet::ALL { "all".to_owned() } else { cpus.to_string() }
}

pub(super) fn print(scenario: &Scenario, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Scenario { machine, time, setup, tasks, pool, work, faults } = scenario;
    writeln!(f, "machine {machine}\ntime {time}\nseed {}", setup.seed)?;
    writeln!(f, "tick {}\nswitch {}\nkick {}", setup.tick, setup.switch, setup.kick)?;
    writeln!(f, "agent {}", Shown(&setup.costs))?;
    let mode = if setup.kernel_mode { " mode=kernel" } else { "" };
    write!(f, "core slice={} late={}{mode}", Nanos(setup.settings.slice), Nanos(setup.settings.late))?;
    setup.settings.dedicated.iter().try_for_each(|cpu| write!(f, " dedicated={cpu}"))?;
    writeln!(f)?;
    writeln!(f, "rings events={} decisions={}", setup.rings.0, setup.rings.1)?;
    if tasks.is_some() || pool.is_some() {
        write!(f, "room")?;
        tasks.iter().try_for_each(|n| write!(f, " tasks={n}"))?;
        pool.iter().try_for_each(|n| write!(f, " pool={n}"))?;
        writeln!(f)?;
    }
    for (cgroup, id) in work.cgroups.iter().zip(2..) {
        write!(f, "cgroup {id} parent={} weight={}", cgroup.parent, cgroup.weight)?;
        writeln!(
            f,
            "{}",
            if cgroup.limit == Limit::NONE { String::new() } else { format!(" limit={}", Max(cgroup.limit)) }
        )?;
    }
    let name = |group: &Group| work.groups.get(group.0).map_or("?", |members| members.name.as_str());
    for members in &work.groups {
        print_group(members, &name, f)?;
    }
    for (at, fault) in faults {
        write!(f, "at {at} ")?;
        match fault {
            Fault::Stop(time) => writeln!(f, "stop {time}"),
            Fault::Kill(time) => writeln!(f, "kill {time}"),
            Fault::Costs(costs) => writeln!(f, "costs {}", Shown(costs)),
            Fault::Garbage(n) => writeln!(f, "garbage {n}"),
            Fault::KernelMode(on) => writeln!(f, "mode {}", if *on { "kernel" } else { "agent" }),
            Fault::Offline(cpu) => writeln!(f, "offline {cpu}"),
            Fault::Online(cpu) => writeln!(f, "online {cpu}"),
            Fault::Affinity(group, cpus) => writeln!(f, "affinity {} {}", name(group), list(cpus)),
            Fault::Limit(id, limit) => writeln!(f, "limit {id} {}", Max(*limit)),
            Fault::Weight(group, weight) => writeln!(f, "weight {} {weight}", name(group)),
        }?;
    }
    Ok(())
}

fn print_group<'a>(
    members: &Members,
    name: &impl Fn(&Group) -> &'a str,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    let Members { name: own, count, spec, begins, steps } = members;
    write!(f, "group {own} count={count} weight={} cgroup={}", spec.weight, spec.cgroup_id)?;
    if spec.cpus != CpuSet::ALL {
        write!(f, " cpus={}", spec.cpus)?;
    }
    if spec.label != 0 {
        write!(f, " label={}", spec.label)?;
    }
    if *begins > Nanos::ZERO {
        write!(f, " begins={begins}")?;
    }
    writeln!(f, "{}", if spec.kthread { " kthread" } else { "" })?;
    for step in steps {
        match step {
            Step::Run(span) => writeln!(f, "  run {span}"),
            Step::Sleep(span) => writeln!(f, "  sleep {span}"),
            Step::Every(period) => writeln!(f, "  every {period}"),
            Step::Until(time) => writeln!(f, "  until {time}"),
            Step::Block => writeln!(f, "  block"),
            Step::Wake(group) => writeln!(f, "  wake {}", name(group)),
            Step::WakeAll(group) => writeln!(f, "  wake-all {}", name(group)),
            Step::Fork(group) => writeln!(f, "  fork {}", name(group)),
            Step::Join => writeln!(f, "  join"),
            Step::Pin(cpus) => writeln!(f, "  pin {}", list(cpus)),
            Step::Move(cgroup) => writeln!(f, "  move {cgroup}"),
            Step::Exit => writeln!(f, "  exit"),
        }?;
    }
    Ok(())
}

/// `cpu.max` as a scenario has it.
struct Max(Limit);

impl fmt::Display for Max {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Limit { quota_us, period_us, burst_us } = self.0;
        if self.0 == Limit::NONE {
            return f.write_str("none");
        }
        write!(f, "{}/{}", Nanos::from_micros(quota_us), Nanos::from_micros(period_us))?;
        if burst_us > 0 {
            write!(f, "+{}", Nanos::from_micros(burst_us))?;
        }
        Ok(())
    }
}

struct Shown<'a>(&'a Costs);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Costs { turn, event, decision } = self.0;
        write!(f, "turn={turn} event={event} decision={decision}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_exact() {
        for (text, ns) in
            [("1ns", 1), ("1.5us", 1_500), ("0.25ms", 250_000), ("2s", 2_000_000_000), ("0s", 0)]
        {
            assert_eq!(time(text), Ok(Nanos(ns)), "{text}");
            assert_eq!(time(&Nanos(ns).to_string()), Ok(Nanos(ns)));
        }
        for text in
            ["", "5", "ms", ".5ms", "1.5", "1m", "1.5ns", "-1ms", "1e3ms", "99999999999s", "1.0000000001s"]
        {
            assert!(time(text).is_err(), "{text}");
        }
    }

    #[test]
    fn whatever_is_wrong_is_said_with_its_line() {
        for (text, line, why) in [
            ("machine cpus=0", 1, "1 to 1024"),
            ("machine cpus=4 cores=2", 1, "\"cores\" is not known here"),
            ("machine cores=64 threads=64", 1, "4096 CPUs"),
            ("time 5", 1, "is no time"),
            ("\n# x\nrun 5ms", 3, "before the first group"),
            ("group a\n  runn 5ms", 2, "no such line"),
            ("group a\n  run 5ms\n  wake b", 3, "a group \"b\""),
            ("group a weight=0\n run 1s", 1, "1 to 10000"),
            ("group a\n run 1s\ngroup a\n run 1s", 3, "already"),
            ("group a cpus=7-3\n run 1s", 1, "backwards"),
            ("group a count=2000000\n run 1s", 1, "1000000 tasks"),
            ("group a\n run 1s\nat 5ms offline 2", 3, "0 to 1"),
            ("group a\n run 1s\nat 5ms explode", 3, "does not happen"),
            ("group a\n run 1s\nat 5ms stop", 3, "for how long is missing"),
            ("group a\n run 1s\nat 5ms stop 1s 2s", 3, "too much"),
            ("group a\n block now", 2, "too much"),
            ("group a", 0, "has no step"),
            ("group a\n pin 0", 0, "without ever taking time"),
            ("cgroup 3", 1, "this is cgroup 2"),
            ("cgroup 2 limit=50ms", 1, "no limit; one is"),
            ("cgroup 2 parent=2", 1, "not made before"),
            ("group a\n run 1s\nat 1s limit 2 none", 3, "no cgroup 2"),
            ("group a\n run 1s\n move 2", 0, "no cgroup 2"),
            ("rings events=0", 1, "room for one"),
            ("tick 0s", 1, "zero"),
        ] {
            let error = text.parse::<Scenario>().unwrap_err();
            assert!(error.line == line && error.why.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn a_text_comes_back_as_it_was() {
        let text = "machine packages=1 l3s=2 cores=2 threads=2\ntime 1.5s\nseed 9\ntick 1ms\nswitch 0ns\nkick 2us\n\
            agent turn=1us event=0ns decision=3ns\ncore slice=3ms late=20ms\nrings events=64 decisions=32\n\
            room tasks=50 pool=65536\ncgroup 2 parent=1 weight=300\ncgroup 3 parent=2 \
            weight=100 limit=50ms/100ms+5ms\ngroup a count=3 weight=200 cgroup=3 cpus=0-3 label=9 begins=5ms kthread\n  run 1ms..2ms\n  \
            sleep ~3ms\n  every 10ms\n  block\n  wake b\n  wake-all b\n  fork b\n  join\n  pin all\n  move 1\n  exit\n\
            group b count=0 weight=100 cgroup=1\n  run 1us\n  exit\nat 1ms stop 2ms\nat 2ms kill 3ms\nat 3ms costs \
            turn=1us event=2us decision=3us\nat 4ms garbage 5\nat 5ms offline 1\nat 6ms online 1\nat 7ms affinity a \
            0,2\nat 8ms weight b 300\nat 9ms limit 3 none\nat 10ms limit 2 1ms/1s\n";
        assert_eq!(text.parse::<Scenario>().unwrap().to_string(), text);
    }
}
