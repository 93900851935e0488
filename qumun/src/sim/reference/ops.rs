//! The operations. See `core.bpf.c`, `tasks.h`, `cpus.h` and `calls.h`.

use super::rules::Standing;
use super::sides::{CORE, start_side, stop_side};
use super::state::{
    AGENT_PROBE, AGENT_SLICE, BRIEF, CpuCtx, Custody, LAG, MS, Reference, SHARER, TaskCtx, before, later_by,
};
use crate::sim::core::{Core, ENQ_LAST, ENQ_WAKEUP, KICK_PREEMPT};
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::sim::values::{Counters, Reason, Sabotage};
use crate::{Cpu, CpuSet, Epoch, Events, Note, Pid, Rules};

impl Reference {
    /// Is there something that only the agent can do, or is its regular turn due?
    fn agent_wanted(&self, linux: &Linux, now: u64, degraded: bool) -> bool {
        if self.view.agent_pid == 0 {
            return true;
        }
        if degraded {
            let probe = if self.view.kernel { self.settings.heartbeat } else { AGENT_PROBE };
            return later_by(now, self.agent_ran_at, probe);
        }
        linux.pending_events() > 0 || later_by(now, self.agent_ran_at, self.settings.heartbeat)
    }

    /// Is there one CPU only, and nothing that waits for it but who runs there now?
    fn alone(&mut self, linux: &Linux, cpu: Cpu, now: u64, degraded: bool) -> bool {
        let state = self.cpu(cpu);
        if linux.nr_cpus() > 1 || state.pinned || state.placed {
            return false;
        }
        if self.shared_waits(linux, now) || self.core_waits(linux, now) {
            return false;
        }
        if degraded && self.park_waits(linux, now) {
            return false;
        }
        let wanted = self.agent_queued && self.agent_wanted(linux, now, degraded);
        !wanted && linux.nr_queued(Dsq::Local(cpu)) == 0
    }

    /// Has the task that wants to go on here a place in the policy's order that only the agent knows? While it is in
    /// no queue, any other task would come first.
    fn competes(&self, linux: &Linux, cpu: Cpu, prev: Thread) -> bool {
        (self.shared || self.cpu(cpu).placed) && !bound_to_cpu(linux, prev)
    }

    /// An agent got a CPU. An earlier one may still be among them.
    pub(super) fn agent_taken(&mut self, linux: &Linux) {
        self.crowd = self.crowd && linux.nr_queued(Dsq::Agent) > 0;
        self.agent_queued = self.crowd;
    }

    /// Charges a task for what it has run since it was put on its CPU, or was charged last.
    fn charge_run(&mut self, linux: &Linux, task: Thread, now: u64) {
        let weight = u64::from(linux.task(task).weight);
        let ran = now.wrapping_sub(self.ctx(task).started_at);
        let (charged, weight) = self.charge_by_rule(task, ran, weight, now);
        let t = self.ctx_mut(task);
        t.exec_runtime = t.exec_runtime.wrapping_add(ran);
        t.ran = t.ran.wrapping_add(ran);
        t.left = t.left.saturating_sub(ran);
        let group = t.group;
        let moves = if self.is_counted(task) {
            (charged.wrapping_mul(100) << 10) / self.flat_weight(group, weight.max(1))
        } else {
            charged.wrapping_mul(100) / weight.max(1)
        };
        let t = self.ctx_mut(task);
        t.vtime = t.vtime.wrapping_add(moves);
    }

    /// May the task that wants to go on here do so, in the core's order? Any other would come first, as this one is in no
    /// queue yet.
    fn goes_first(&mut self, linux: &mut Linux, task: Thread, cpu: Cpu, now: u64) -> bool {
        let pinned = self.cpu(cpu).pinned;
        if self.cpu(cpu).placed || self.shared || self.park_waits(linux, now) {
            return false;
        }
        if !pinned && !self.core_waits(linux, now) || self.runs_dry(linux, task, now) {
            return false;
        }
        if self.ctx(task).started_at == 0 || linux.task(task).kthread {
            return false;
        }
        self.charge_run(linux, task, now);
        self.ctx_mut(task).started_at = now;
        let Standing { slice, vtime } = self.stand(linux, task, cpu, now);
        if self.comes_before(linux, Dsq::Core, vtime, now)
            || pinned && self.comes_before(linux, Dsq::Pinned(cpu), vtime, now)
        {
            return false;
        }
        let (ruled, own) = (self.ctx(task).ruled, self.ctx(task).vtime);
        let here = self.cpu_mut(cpu);
        (here.rank, here.favour) = (ruled.rank, ruled.favour);
        if ruled.rank == 0 && before(self.vnow, own) {
            self.vnow = own;
        }
        linux.set_slice(task, slice);
        true
    }

    fn enqueue_core(&mut self, linux: &mut Linux, task: Thread, cpu: Cpu, flags: u64, warm: bool, now: u64) {
        let Standing { slice, vtime } = self.stand(linux, task, cpu, now);
        self.ctx_mut(task).placed_at = now;
        if self.insert_idle(linux, task, cpu, (slice, warm), now) {
            self.ctx_mut(task).ruled.rank = 0;
            return;
        }
        let (woke, ahead) = (flags & ENQ_WAKEUP != 0, self.ctx(task).ruled.rank > 0);
        if woke && self.alone(linux, cpu, now, !self.view.normal) && !ahead {
            return linux.insert(task, Dsq::Own, slice, 0);
        }
        if woke
            && (ahead || self.view.kernel)
            && self.agent_cpu != Some(cpu)
            && self.cpu_open(cpu)
            && self.is_urgent(task, cpu, vtime, now)
        {
            return self.insert_first(linux, task, cpu, slice);
        }
        self.core_filled(now);
        linux.insert(task, Dsq::Core, slice, vtime);
        self.kick_for(linux, task, cpu);
    }

    /// Tasks for which only this CPU is possible. They are never parked.
    fn enqueue_pinned(&mut self, linux: &mut Linux, task: Thread, cpu: Cpu, flags: u64, now: u64) {
        if self.agent_owns(cpu) {
            // At once: the agent goes on after it.
            return match flags & ENQ_WAKEUP != 0 {
                true => linux.insert_first(task, self.settings.slice),
                false => linux.insert(task, Dsq::Own, self.settings.slice, 0),
            };
        }
        if linux.task(task).kthread || self.settings.keep_local || !self.cpu_usable(cpu) {
            return linux.insert(task, Dsq::Own, self.settings.slice, 0);
        }
        self.ctx_mut(task).placed_at = now;
        let Standing { slice, vtime } = self.stand(linux, task, cpu, now);
        if flags & ENQ_WAKEUP != 0 && !self.cpu_is_idle(cpu) && self.is_urgent(task, cpu, vtime, now) {
            if self.agent_cpu != Some(cpu) {
                return self.insert_first(linux, task, cpu, slice);
            }
            self.cpu_mut(cpu).urgent = true;
        }
        self.cpu_mut(cpu).pinned = true;
        linux.insert(task, Dsq::Pinned(cpu), slice, vtime);
        self.kick_if_idle(linux, cpu);
    }

    /// Before all others on its CPU, whose slice ends now.
    fn insert_first(&mut self, linux: &mut Linux, task: Thread, cpu: Cpu, slice: u64) {
        self.counters.preempts += 1;
        let state = self.cpu_mut(cpu);
        (state.next_side, state.next_n, state.given) = (CORE, SHARER, true);
        linux.insert_first(task, slice);
    }

    /// A task has woken up about which no agent is asked, and its CPU is busy: if it has credit, or a rule puts it ahead of who
    /// runs there, it comes next.
    fn is_urgent(&mut self, task: Thread, cpu: Cpu, vtime: u64, now: u64) -> bool {
        let (t, there) = (self.ctx(task), self.cpu(cpu).rank);
        let credit = before(vtime, self.vnow.wrapping_sub(LAG / 2));
        let rank = t.ruled.rank;
        (rank > there || rank == 0 && there == 0 && credit) && self.may_cut(cpu, now)
    }

    /// No run is longer than `max_run` while others wait, whatever slice it was given.
    fn watch_run(&mut self, linux: &mut Linux, task: Thread, now: u64) {
        let (cpu, limit) = (linux.this_cpu(), self.settings.max_run);
        if limit == 0 || (now.wrapping_sub(self.cpu(cpu).overran_at) as i64) < limit as i64 {
            return;
        }
        if (now.wrapping_sub(self.ctx(task).started_at) as i64) < limit as i64 {
            return;
        }
        let state = self.cpu_mut(cpu);
        state.overran_at = now;
        let hinted = state.pinned || state.placed || self.shared;
        if !hinted && !self.core_waits(linux, now) && linux.nr_queued(Dsq::Local(cpu)) == 0 {
            return;
        }
        self.counters.overruns += 1;
        linux.set_slice(task, 0);
    }
}

/// Is its CPU the only one for the task? On a machine of one CPU that means nothing.
fn bound_to_cpu(linux: &Linux, task: Thread) -> bool {
    let task = linux.task(task);
    task.nr_allowed() == 1 && (linux.nr_cpus() > 1 || task.kthread)
}

impl Core for Reference {
    fn init(&mut self, linux: &mut Linux) {
        let now = linux.now();
        self.cpus = vec![CpuCtx::default(); linux.nr_cpus() as usize];
        for cpu in linux.online.iter() {
            self.cpu_mut(cpu).online = true;
            self.view.nr_online += 1;
        }
        self.view.degraded_since = now;
        self.view.dwell = super::latch::DWELL_MIN;
        self.view.entered[Reason::Start as usize] += 1;
    }

    fn init_task(&mut self, linux: &mut Linux, task: Thread, parent: Option<Thread>) {
        let comm = &linux.task(task).comm;
        let is_reclaim =
            ["kswapd", "kcompactd", "khugepaged"].iter().any(|name| comm.starts_with(name.as_bytes()));
        let mut ctx = TaskCtx {
            // The clock makes generations unique across the reuse of a pid.
            generation: linux.now() << 2 >> 2,
            reclaim: linux.task(task).kthread && is_reclaim,
            safe: parent.is_some(),
            ..TaskCtx::default()
        };
        if self.settings.limits || self.events.contains(Events::CGROUPS) {
            ctx.group = self.slot_of(linux.task(task).cgroup_id);
        }
        if let Some(from) = parent.map(|parent| self.ctx(parent))
            && (from.label != 0 || from.slice != 0)
        {
            (ctx.label, ctx.slice) = (from.label, from.slice);
            self.counters.inherited += 1;
        }
        let at = task.0 as usize;
        if at >= self.tasks.len() {
            self.tasks.resize_with(at + 1, TaskCtx::default);
        }
        self.tasks[at] = ctx;
        if let Some(parent) = parent {
            self.note(linux, Events::FORK, |core, linux| {
                let (tgid, parent) = (linux.task(task).tgid, linux.task(parent).pid);
                Note::Fork { task: core.id(linux, task), tgid, parent, label: core.ctx(task).label }
            });
        }
    }

    fn enable(&mut self, _: &mut Linux, task: Thread) {
        self.ctx_mut(task).vtime = self.vnow;
    }

    fn disable(&mut self, _: &mut Linux, task: Thread) {
        self.share_ends(task);
        self.cancel_event(task);
    }

    fn exit_task(&mut self, linux: &mut Linux, task: Thread) {
        if self.end_event(task) {
            self.counters.ev_dead += 1;
        }
        if self.is_agent(linux, task) {
            self.agent_gone(linux.now());
            return;
        }
        self.note_exit(linux, task);
    }

    fn select_cpu(&mut self, linux: &mut Linux, task: Thread, prev: Cpu, _flags: u64) -> Cpu {
        if !self.settings.builtin_idle || self.is_agent(linux, task) {
            return prev;
        }
        if self.ctx(task).safe && self.is_dry(linux, task, linux.now()) {
            return prev;
        }
        let Some(cpu) = linux.claim_near(task, prev) else { return prev };
        if !self.cpu_open(cpu) {
            return cpu;
        }
        if self.end_event(task) {
            self.counters.ev_cancelled += 1;
        }
        let now = linux.now();
        let t = self.ctx_mut(task);
        (t.last_run, t.exec_runtime, t.placed_at, t.order) = (t.exec_runtime, 0, now, 0);
        (t.ruled.rank, t.ruled.favour) = (0, 0);
        self.counters.idle_bypass += 1;
        linux.insert(task, Dsq::Own, self.own_slice(task), 0);
        cpu
    }

    fn enqueue(&mut self, linux: &mut Linux, task: Thread, flags: u64) {
        let cpu = linux.task(task).cpu;
        let now = linux.now();
        if self.is_agent(linux, task) {
            if self.agent_at_home(cpu) {
                return linux.insert(task, Dsq::Own, AGENT_SLICE, 0);
            }
            self.agent_queued = true;
            linux.insert(task, Dsq::Agent, AGENT_SLICE, 0);
            if self.view.normal && linux.pending_events() > 0 {
                self.call_agent(linux, cpu, now, true);
            }
            return;
        }
        let t = self.ctx_mut(task);
        if flags & ENQ_WAKEUP != 0 {
            (t.last_run, t.exec_runtime) = (t.exec_runtime, 0);
            if t.stopped_at != 0 {
                t.slept = t.slept.wrapping_add(now.wrapping_sub(t.stopped_at));
            }
        }
        (t.order, t.ruled.rank, t.ruled.favour) = (0, 0, 0);
        self.cancel_event(task);
        if self.throttle(linux, task, now) {
            return;
        }
        if !self.view.normal {
            self.share_begins(linux, task);
        }
        if bound_to_cpu(linux, task) {
            self.counters.kernel_direct += 1;
            return self.enqueue_pinned(linux, task, cpu, flags, now);
        }
        let asked = flags & ENQ_LAST != 0 && self.cpu(cpu).asked && self.is_dedicated();
        if flags & ENQ_LAST != 0 && !asked {
            self.counters.kept += 1;
            self.cpu_mut(cpu).asked = false;
            return linux.insert(task, Dsq::Own, self.settings.slice, 0);
        }
        let flags = flags & !ENQ_LAST;
        if self.never_asked(linux, task) {
            self.counters.kernel_direct += 1;
            return self.enqueue_core(linux, task, cpu, flags, false, now);
        }
        let warm = flags & ENQ_WAKEUP != 0 && self.ctx(task).stopped_at != 0;
        if self.latch_check(linux, now) && self.sabotage != Sabotage::SendDegraded {
            match self.view.kernel {
                true => self.counters.kernel_mode += 1,
                false => self.counters.core_enqueued += 1,
            }
            return self.enqueue_core(linux, task, cpu, flags, warm, now);
        }
        let woke = flags & ENQ_WAKEUP != 0;
        if !asked && self.has_permit(linux, task, woke, now) {
            let alone = self.alone(linux, cpu, now, false);
            return self.let_in(linux, task, (cpu, alone), woke, now);
        }
        if !self.offer(linux, task, flags, now) {
            self.counters.congested += 1;
            self.cpu_mut(cpu).asked = false;
            if self.sabotage == Sabotage::LoseWhenFull {
                return;
            }
            return self.enqueue_core(linux, task, cpu, flags, warm, now);
        }
        if !self.is_dedicated() {
            let cuts = !self.cpu(cpu).given;
            self.call_agent(linux, cpu, now, cuts);
        } else if woke {
            self.make_way(linux, cpu, now);
        }
    }

    fn dispatch(&mut self, linux: &mut Linux, cpu: Cpu, prev: Option<Thread>) {
        let now = linux.now();
        let prev_is_agent = prev.is_some_and(|prev| self.is_agent(linux, prev));
        let degraded = self.latch_check(linux, now);
        self.release(linux, now);
        let here = self.cpu_mut(cpu);
        let called = std::mem::take(&mut here.called);
        here.asked = false;
        self.view.asking.remove(cpu);
        if !degraded && self.agent_owns(cpu) {
            return self.dispatch_own(linux, cpu, prev, now);
        }
        if !degraded {
            let state = self.cpu(cpu);
            let waits = prev.is_some() && !prev_is_agent;
            let hinted = state.pinned || state.placed || self.shared;
            let was_free = !waits && !hinted && !self.core_waits(linux, now);
            if !self.take_decisions(linux, cpu, now, was_free) && was_free {
                return;
            }
        }
        if self.rescue(linux, cpu, now) {
            return;
        }
        if self.cpu(cpu).urgent && self.take_urgent(linux, cpu, now) {
            return;
        }
        if prev_is_agent {
            if self.take_work(linux, cpu, now, degraded, false) {
                return;
            }
            if let Some(prev) = prev.filter(|_| !degraded && linux.pending_events() > 0) {
                linux.set_slice(prev, AGENT_SLICE);
            }
            return;
        }
        let wanted = self.agent_wanted(linux, now, degraded)
            || !degraded && prev.is_some_and(|prev| self.competes(linux, cpu, prev));
        if self.agent_queued && !self.is_dedicated() && wanted && linux.move_to_local(Dsq::Agent) {
            self.agent_taken(linux);
            return;
        }
        if let Some(prev) = prev
            && !degraded
            && self.is_dedicated()
        {
            let waits = self.competes(linux, cpu, prev);
            if !bound_to_cpu(linux, prev) && self.asks_first(linux, prev, cpu, called, waits) {
                self.cpu_mut(cpu).asked = true;
                return;
            }
        } else if let Some(prev) = prev
            && !degraded
            && self.agent_cpu.is_some()
            && !self.cpu(cpu).deferred
            && !self.cpu(cpu).pinned
            && !self.core_waits(linux, now)
            && self.competes(linux, cpu, prev)
            && !self.runs_dry(linux, prev, now)
        {
            self.cpu_mut(cpu).deferred = true;
            linux.set_slice(prev, self.settings.slice_min);
            return;
        }
        if let Some(prev) = prev
            && degraded
            && self.goes_first(linux, prev, cpu, now)
        {
            self.counters.kept += 1;
            return;
        }
        if self.take_work(linux, cpu, now, degraded, prev.is_some()) {
            return;
        }
        if let Some(prev) = prev
            && !self.runs_dry(linux, prev, now)
        {
            self.counters.kept += 1;
            linux.set_slice(prev, self.settings.slice);
        }
    }

    fn running(&mut self, linux: &mut Linux, task: Thread) {
        let now = linux.now();
        start_side(self.cpu_mut(linux.this_cpu()), now);
        let here = self.cpu_mut(linux.this_cpu());
        (here.deferred, here.given, here.running) = (false, false, true);
        if self.is_agent(linux, task) {
            self.agent_cpu = Some(linux.task(task).cpu);
            self.agent_last_cpu = self.agent_cpu;
            let here = self.cpu_mut(linux.this_cpu());
            (here.order, here.rank, here.favour) = (0, 0, 0);
            self.agent_ran_at = now;
            self.called_at = 0;
            self.view.agent_ran_at = now;
            self.counters.activations += 1;
            return;
        }
        self.counters.runs += 1;
        let t = self.ctx(task);
        let (custody, bucket, enqueued_at) = (t.custody, t.bucket, t.enqueued_at);
        if custody != Custody::None {
            self.ctx_mut(task).custody = Custody::None;
            if custody == Custody::Parked {
                self.bucket_close(bucket);
                self.parked_for(enqueued_at, now);
                self.counters.ev_taken_over += 1;
            }
        }
        let t = self.ctx_mut(task);
        t.started_at = now;
        let brief = t.last_run.wrapping_add(t.exec_runtime) < BRIEF;
        let (vtime, order, ruled) = (t.vtime, t.order, t.ruled);
        let here = self.cpu_mut(linux.this_cpu());
        (here.order, here.rank, here.favour) = (order, ruled.rank, ruled.favour);
        (here.began, here.brief) = (now, brief);
        if ruled.rank == 0 && before(self.vnow, vtime) {
            self.vnow = vtime;
        }
        if self.starts_dry(linux, task, now) {
            linux.set_slice(task, 0);
            if self.may_kick(linux) {
                linux.kick(linux.this_cpu(), KICK_PREEMPT);
            }
        }
    }

    fn stopping(&mut self, linux: &mut Linux, task: Thread, runnable: bool) {
        let now = linux.now();
        let here = self.cpu_mut(linux.this_cpu());
        stop_side(here, now);
        here.running = false;
        if self.is_agent(linux, task) {
            self.agent_cpu = None;
            self.agent_ran_at = now;
            return;
        }
        let t = self.ctx_mut(task);
        if t.started_at == 0 {
            return;
        }
        t.stopped_at = now;
        self.charge_run(linux, task, now);
        if !runnable {
            self.share_ends(task);
        }
        self.stop_charged(linux, task, runnable, now);
    }

    fn tick(&mut self, linux: &mut Linux, task: Thread) {
        if self.is_agent(linux, task) {
            return;
        }
        let now = linux.now();
        if self.ticks_dry(linux, task, now) {
            linux.set_slice(task, 0);
        }
        if self.latch_check(linux, now) {
            if now.wrapping_sub(self.view.degraded_since) < 20 * MS && linux.nr_queued(Dsq::Park) > 0 {
                linux.set_slice(task, 0);
            }
            return;
        }
        // The agent waits for its own CPU, or what it has decided for one that dispatches.
        let wanted = match self.is_dedicated() {
            true if self.agent_owns(linux.this_cpu()) => self.agent_queued,
            true => self.decisions_wait(linux),
            false => {
                self.agent_queued
                    && later_by(now, self.agent_ran_at, self.settings.preempt)
                    && linux.pending_events() > 0
            }
        };
        if wanted {
            self.counters.preempts += 1;
            linux.set_slice(task, 0);
            return;
        }
        self.watch_run(linux, task, now);
    }

    fn update_idle(&mut self, linux: &mut Linux, cpu: Cpu, idle: bool) {
        if !idle {
            self.cpu_mut(cpu).busy_since = linux.now.as_u64();
            self.view.idle.remove(cpu);
            return;
        }
        self.cpu_mut(cpu).awaited = false;
        if !self.cpu(cpu).online {
            return;
        }
        self.view.idle.insert(cpu);
        if self.is_dedicated() {
            if self.decisions_wait(linux) {
                return linux.kick(cpu, 0);
            }
            if self.cpu(cpu).asked {
                self.view.asking.insert(cpu);
                return;
            }
        }
        let state = self.cpu(cpu);
        let wanted = self.agent_queued && !self.is_dedicated() && linux.pending_events() > 0;
        if state.placed
            || state.pinned
            || self.view.normal && (wanted || self.decisions_left > 0 || !state.kept.is_empty())
        {
            linux.kick(cpu, 0);
        }
    }

    fn set_weight(&mut self, linux: &mut Linux, task: Thread) {
        if self.is_agent(linux, task) {
            return;
        }
        self.note(linux, Events::WEIGHT, |core, linux| Note::Weight {
            task: core.id(linux, task),
            weight: linux.task(task).weight,
        });
    }

    fn set_cpumask(&mut self, linux: &mut Linux, task: Thread) {
        if self.is_agent(linux, task) {
            return;
        }
        self.note(linux, Events::AFFINITY, |core, linux| Note::Affinity {
            task: core.id(linux, task),
            allowed: linux.affinity(task),
        });
    }

    fn cgroup_init(&mut self, linux: &mut Linux, id: u64) {
        self.cgroup_begins(linux, id);
    }

    fn cgroup_exit(&mut self, linux: &mut Linux, id: u64) {
        self.cgroup_ends(linux, id);
    }

    fn cgroup_set_weight(&mut self, linux: &mut Linux, id: u64) {
        self.weigh_cgroup(linux, id);
    }

    fn cgroup_set_bandwidth(&mut self, linux: &mut Linux, id: u64) {
        self.limit_cgroup(linux, id);
    }

    fn cgroup_move(&mut self, linux: &mut Linux, task: Thread) {
        let group = self.slot_of(linux.task(task).cgroup_id);
        self.share_ends(task);
        let t = self.ctx_mut(task);
        (t.group, t.permit.left, t.ruled.table) = (group, 0, 0);
        if self.is_agent(linux, task) {
            return;
        }
        self.note(linux, Events::MOVED, |core, linux| Note::Moved {
            task: core.id(linux, task),
            cgroup_id: linux.task(task).cgroup_id,
        });
    }

    fn cpu_leaves(&mut self, _: &mut Linux, cpu: Cpu) {
        if self.cpu(cpu).online {
            self.leave(cpu);
            self.view.idle.remove(cpu);
        }
    }

    fn cpu_offline(&mut self, linux: &mut Linux, cpu: Cpu) {
        self.leave(cpu);
        self.view.idle.remove(cpu);
        let mut iter = linux.iter(Dsq::Pinned(cpu), false);
        while let Some(task) = linux.next(&mut iter) {
            linux.move_task(&iter, task, Dsq::Global, self.settings.slice, 0);
        }
        let mut iter = linux.iter(Dsq::Placed(cpu), false);
        while let Some(task) = linux.next(&mut iter) {
            let vtime = self.settle_vtime(task);
            self.core_filled(linux.now());
            linux.move_task(&iter, task, Dsq::Core, self.settings.slice, vtime);
        }
        let mut iter = linux.iter(Dsq::Agent, false);
        while let Some(task) = linux.next(&mut iter) {
            linux.move_task(&iter, task, Dsq::Global, AGENT_SLICE, 0);
        }
    }

    fn cpu_online(&mut self, _: &mut Linux, cpu: Cpu) {
        let state = self.cpu_mut(cpu);
        if !std::mem::replace(&mut state.online, true) {
            self.view.nr_online += 1;
        }
    }

    /// Wakes idle CPUs if something waits that they would take.
    fn timer(&mut self, linux: &mut Linux) {
        let now = linux.now();
        let degraded = self.latch_check(linux, now);
        self.agent_queued |= linux.nr_queued(Dsq::Agent) > 0;
        let wanted = self.agent_queued && !self.is_dedicated() && self.agent_wanted(linux, now, degraded);
        self.wake_own(linux);
        self.release(linux, now);
        self.shared |= linux.nr_queued(Dsq::Shared) > 0;
        self.parked |= degraded && linux.nr_queued(Dsq::Park) > 0;
        let core_waits = linux.nr_queued(Dsq::Core) > 0;
        if core_waits {
            self.core_filled(now);
        }
        let waits = wanted
            || core_waits
            || self.shared
            || degraded && linux.nr_queued(Dsq::Park) > 0
            || !degraded && self.decisions_left > 0
            || self.is_dedicated() && self.decisions_wait(linux);
        if !self.any_idle() {
            return;
        }
        for cpu in (0..linux.nr_cpus()).map(Cpu) {
            let state = self.cpu(cpu);
            if waits || state.placed || state.pinned || !state.kept.is_empty() {
                self.kick_if_idle(linux, cpu);
            }
        }
    }

    fn alarm(&mut self, linux: &mut Linux) {
        self.alarm_rings(linux);
    }

    fn hello(&mut self, linux: &mut Linux, pid: Pid, tgid: Pid) -> Epoch {
        let now = linux.now();
        (self.view.agent_pid, self.view.agent_tgid) = (pid.0, tgid.0);
        (self.agent_cpu, self.agent_last_cpu) = (None, None);
        self.agent_queued = linux.nr_queued(Dsq::Agent) > 0;
        self.crowd = true;
        self.agent_ran_at = now;
        self.take_for_agent(linux.this_cpu());
        if !self.latch_fall(now, Reason::Hello) {
            self.view.epoch += 1;
        }
        Epoch(self.view.epoch)
    }

    fn acknowledge(&mut self, epoch: Epoch) {
        self.ack = epoch.0;
    }

    fn wake(&mut self, linux: &mut Linux, cpus: CpuSet) -> u32 {
        self.wake_cpus(linux, cpus)
    }

    fn set_rules(&mut self, linux: &Linux, rules: &Rules) {
        self.publish_rules(rules, linux.nr_cpus());
    }

    fn set_kernel_mode(&mut self, linux: &mut Linux, on: bool) -> bool {
        self.kernel_mode(linux.now(), on)
    }

    fn revoke(&mut self, pid: Option<Pid>) {
        self.marks.revoke(pid);
    }

    fn mark(&self, pid: Pid) -> u32 {
        self.marks.of(pid)
    }

    fn subscribe(&mut self, events: Events) {
        self.events = events;
    }

    fn set_label(&mut self, _: &mut Linux, task: Thread, label: u64) -> bool {
        let t = self.ctx_mut(task);
        (t.label, t.ruled.table) = (label, 0);
        true
    }

    fn epoch(&self) -> Epoch {
        Epoch(self.view.epoch)
    }

    fn idle(&self) -> CpuSet {
        self.view.idle
    }

    fn counters(&self) -> Counters {
        self.counters
    }
}

impl Reference {
    fn leave(&mut self, cpu: Cpu) {
        if std::mem::replace(&mut self.cpu_mut(cpu).online, false) {
            self.view.nr_online -= 1;
        }
        if self.view.dedicated == Some(cpu) {
            self.view.dedicated = None;
        }
    }

    /// The agent's thread has ended.
    pub(crate) fn agent_gone(&mut self, now: u64) {
        (self.view.agent_pid, self.view.agent_tgid) = (0, 0);
        self.agent_cpu = None;
        self.view.dedicated = None;
        self.latch_fall(now, Reason::Exit);
    }
}
