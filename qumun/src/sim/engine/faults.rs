//! What may go wrong while a machine works.

use super::Sim;
use super::clock::Happening;
use super::program::Group;
use crate::sim::core::Core;
use crate::sim::linux::{Limit, Place, Thread};
use crate::sim::values::RawDecision;
use crate::sim::{Costs, Wire};
use crate::{Cpu, CpuSet, Nanos, Result, Rules, Scheduler};

/// Something that goes wrong, or changes from outside. See [`Sim::fault_at`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The agent is stopped for so long, as by SIGSTOP.
    Stop(Nanos),
    /// The agent is killed, and so much later there is a new one.
    Kill(Nanos),
    /// From now on the agent's turns take this: a slow agent, or a good one again.
    Costs(Costs),
    /// The agent writes so many random decisions into its ring.
    Garbage(u32),
    /// A CPU goes. The last one stays.
    Offline(Cpu),
    /// It comes back.
    Online(Cpu),
    /// The tasks of a group may run here only, from now on.
    Affinity(Group, CpuSet),
    /// The tasks of a group get this weight.
    Weight(Group, u32),
    /// A cgroup's `cpu.max` is changed.
    Limit(u64, Limit),
    /// Kernel mode is turned on or off: see [`Sim::set_kernel_mode`].
    KernelMode(bool),
}

#[cfg_attr(not(feature = "testkit"), allow(dead_code, reason = "only the testkit asks"))]
impl Fault {
    /// For how long it goes on by itself.
    pub(crate) fn lasts(&self) -> Nanos {
        match self {
            Self::Stop(time) | Self::Kill(time) => *time,
            _ => Nanos::ZERO,
        }
    }

    /// The CPU that it is about.
    pub(crate) fn cpu(&self) -> Option<Cpu> {
        match self {
            Self::Offline(cpu) | Self::Online(cpu) => Some(*cpu),
            _ => None,
        }
    }

    /// The group that it is about.
    pub(crate) fn group_mut(&mut self) -> Option<&mut Group> {
        match self {
            Self::Affinity(group, _) | Self::Weight(group, _) => Some(group),
            _ => None,
        }
    }
}

/// A place in the table that no task has.
pub(super) const NOBODY: Thread = Thread(u32::MAX);

impl<S: Scheduler> Sim<S> {
    /// Lets this happen so long after the beginning, or at once if that is over.
    pub fn fault_at(&mut self, at: Nanos, fault: Fault) {
        let index = self.faults.len() as u32;
        self.faults.push(fault);
        self.at((self.began + at).max(self.now()), Happening::Fault(index));
    }

    /// Where the policy of a new agent comes from after [`Fault::Kill`]. Without it nobody comes, and the core goes on by
    /// itself.
    #[must_use]
    pub fn successors(mut self, make: impl FnMut() -> S + 'static) -> Self {
        self.successor = Some(Box::new(make));
        self
    }

    pub(super) fn fault(&mut self, index: u32) {
        match self.faults[index as usize] {
            Fault::Stop(time) => self.stop_agent(time),
            Fault::Kill(time) => self.kill_agent(time),
            Fault::Costs(costs) => self.set_costs(costs),
            Fault::Garbage(count) => (0..count).for_each(|_| self.garbage()),
            Fault::Offline(cpu) => drop(self.set_online(cpu, false)),
            Fault::Online(cpu) => drop(self.set_online(cpu, true)),
            Fault::KernelMode(on) => drop(self.set_kernel_mode(on)),
            Fault::Limit(cgroup, limit) => drop(self.set_limit(cgroup, limit)),
            Fault::Affinity(group, cpus) => {
                for task in self.members.get(group.0).cloned().unwrap_or_default() {
                    self.pin(task, cpus);
                }
            }
            Fault::Weight(group, weight) => {
                for task in self.members.get(group.0).cloned().unwrap_or_default() {
                    self.renice(task, weight);
                }
            }
        }
    }

    /// Kernel mode: the core decides alone, by its own order and the [rules](Self::set_rules), and the policy is not asked.
    /// Off, it is asked again as soon as its agent has caught up. Returns whether it was on.
    pub fn set_kernel_mode(&mut self, on: bool) -> bool {
        let was = self.host.core.set_kernel_mode(&mut self.host.linux, on);
        self.arm();
        was
    }

    /// What is wanted for tasks where the core decides by itself.
    ///
    /// # Errors
    /// What is wrong with the rules.
    pub fn set_rules(&mut self, rules: &Rules) -> Result<()> {
        rules.check()?;
        self.host.core.set_rules(&self.host.linux, rules);
        Ok(())
    }

    /// Stops the agent for some time, as SIGSTOP does.
    pub fn stop_agent(&mut self, time: Nanos) {
        if self.agent_dead || std::mem::replace(&mut self.agent_stopped, true) {
            return;
        }
        self.account_agent();
        self.host.stop(self.agent_task);
        let back = self.now() + time;
        self.at(back, Happening::AgentWakes);
        self.see_to_kicks();
        self.arm();
    }

    pub(super) fn agent_goes_on(&mut self) {
        if std::mem::take(&mut self.agent_stopped) {
            self.host.wake(self.agent_task, None);
            self.see_to_kicks();
        }
    }

    /// Kills the agent. A [successor](Self::successors), if there is a source of them, comes so much later.
    pub fn kill_agent(&mut self, time: Nanos) {
        if std::mem::replace(&mut self.agent_dead, true) {
            return;
        }
        self.account_agent();
        self.tape_exit(self.agent_task);
        self.host.exit(self.agent_task);
        self.tape_gone();
        (self.agent_task, self.agent_left, self.agent_stopped) = (NOBODY, None, false);
        if self.successor.is_some() {
            let comes = self.now() + time;
            self.at(comes, Happening::AgentComes);
        }
        self.see_to_kicks();
        self.arm();
    }

    pub(super) fn agent_comes(&mut self) {
        let Some(make) = &mut self.successor else { return };
        let policy = make();
        let mut wire = Wire::new(self.lanes.len() as u32);
        for cpu in (0..self.lanes.len() as u32).map(Cpu) {
            wire.set_online(cpu, self.host.linux.online().contains(cpu));
        }
        self.agent = self.builder.agent(wire, policy);
        let cpus = self.setup.agent_cpus(&self.host.linux);
        self.agent_task = self.host.spawn(&super::agent_spec(), cpus, None);
        self.agent_dead = false;
        self.tape_task(self.agent_task, None);
        self.greet();
    }

    /// What the agent has had of its CPU, before it is taken off.
    fn account_agent(&mut self) {
        if let Place::Running(cpu) = self.host.linux.task(self.agent_task).place {
            self.account(cpu);
        }
    }

    /// What turns take from now on: a slow agent.
    pub fn set_costs(&mut self, costs: Costs) {
        self.setup.costs = costs;
    }

    fn garbage(&mut self) {
        let [a, b, c] = [(); 3].map(|()| self.chaos.next());
        let pid = match a % 4 {
            0 => (b >> 32) as i32,
            _ => 1 + (b % (2 * self.actors.len() as u64 + 2)) as i32,
        };
        self.send_raw(RawDecision {
            pid,
            generation: c,
            cpu: (a >> 40) as i32 % (2 * self.lanes.len() as i32),
            flags: u32::from(a & 4 == 0),
            slice: b >> 20,
            vtime: c ^ a,
            permit: (b as u32) & 0xff,
            permit_ns: c >> 30,
            rate: a as u32,
            mark: 0,
        });
    }

    /// Writes any bytes to the decision ring, as a broken agent may. `false` if it is full.
    pub fn send_raw(&mut self, decision: RawDecision) -> bool {
        let sent = self.host.linux.write_decision(decision);
        self.host.linux.publish();
        sent
    }

    /// Changes a cgroup's `cpu.max`. `false` if there is none of this id, or it is the root.
    pub fn set_limit(&mut self, cgroup: u64, limit: Limit) -> bool {
        let done = self.host.set_cgroup_limit(cgroup, limit);
        self.arm();
        done
    }

    /// Changes a cgroup's `cpu.weight`. `false` if there is none of this id.
    pub fn set_weight(&mut self, cgroup: u64, weight: u32) -> bool {
        self.host.set_cgroup_weight(cgroup, weight)
    }

    /// Makes a cgroup, empty and without a limit. `false` if it is there, or its parent is not.
    pub fn make_cgroup(&mut self, id: u64, parent: u64, weight: u32) -> bool {
        self.host.make_cgroup(id, parent, weight)
    }

    /// Removes a cgroup in which nothing is. `false` if that is not possible.
    pub fn remove_cgroup(&mut self, id: u64) -> bool {
        self.host.remove_cgroup(id)
    }

    /// Moves all tasks of a group to another cgroup.
    pub fn move_group(&mut self, group: Group, cgroup: u64) {
        for task in self.members.get(group.0).cloned().unwrap_or_default() {
            self.move_task(task, cgroup);
        }
        self.see_to_kicks();
        self.arm();
    }

    /// Changes where all tasks of a group may run, as a cpuset does to who is in it. `false` if none of these CPUs exists.
    pub fn pin_group(&mut self, group: Group, cpus: CpuSet) -> bool {
        let cpus = cpus & CpuSet::first_n(self.lanes.len() as u32);
        if cpus.is_empty() {
            return false;
        }
        for task in self.members.get(group.0).cloned().unwrap_or_default() {
            self.pin(task, cpus);
        }
        self.arm();
        true
    }

    pub(super) fn move_task(&mut self, task: Thread, cgroup: u64) {
        self.account_of(task);
        let ran = matches!(self.host.linux.task(task).place, Place::Running(_));
        self.host.set_cgroup(task, cgroup);
        self.see_to_kicks();
        if ran && !matches!(self.host.linux.task(task).place, Place::Running(_)) {
            self.put_off(task);
        }
    }

    /// Takes a CPU away or brings it back. `false` if there is no such CPU or it would be the last.
    pub fn set_online(&mut self, cpu: Cpu, online: bool) -> bool {
        let now = *self.host.linux.online();
        if cpu.0 >= self.lanes.len() as u32
            || now.contains(cpu) == online
            || !online && now.single() == Some(cpu)
        {
            return false;
        }
        if online {
            self.host.online(cpu);
        } else {
            self.account(cpu);
            let running = self.host.linux.running(cpu);
            self.host.offline(cpu);
            self.lanes[cpu.0 as usize].turn += 1;
            if let Some(task) = running {
                self.put_off(task);
            }
        }
        self.tape_online(cpu, online);
        self.agent.backend_mut().set_online(cpu, online);
        self.count_idle(cpu);
        self.see_to_kicks();
        self.arm();
        true
    }

    pub(super) fn pin(&mut self, task: Thread, cpus: CpuSet) {
        self.account_of(task);
        let ran = matches!(self.host.linux.task(task).place, Place::Running(_));
        self.host.set_affinity(task, cpus);
        self.tape_change(task);
        self.see_to_kicks();
        if ran && !matches!(self.host.linux.task(task).place, Place::Running(_)) {
            self.put_off(task);
        }
    }

    fn renice(&mut self, task: Thread, weight: u32) {
        self.account_of(task);
        self.host.set_weight(task, weight);
        self.tape_change(task);
        let weight = self.host.linux.task(task).weight;
        if let Some(actor) = self.actor(task) {
            actor.figures.weight = weight;
        }
        self.see_to_kicks();
    }

    fn account_of(&mut self, task: Thread) {
        if let Place::Running(cpu) = self.host.linux.task(task).place {
            self.account(cpu);
        }
    }
}
