// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The core: the part of qumun that runs in the kernel.
 *
 * The life of one wakeup: select_cpu (keeps the last CPU; no idle bypass) -> enqueue (parks the task
 * and writes an event) -> the agent gets a CPU, reads all events, publishes decisions, yields ->
 * dispatch (validates each decision and moves the task) -> running -> stopping (charges by the clock).
 *
 * The core decides by itself in two cases: for tasks that must never wait for user space (kthreads
 * of one CPU, memory reclaim, pinned tasks, the agent's own threads), and while degraded (latch.h).
 */
#include "activation.h"
#include "calls.h"
#include "cgroups.h"
#include "cpus.h"
#include "dedicated.h"
#include "dump.h"
#include "near.h"
#include "permit.h"
#include "rescue.h"
#include "rules.h"
#include "tasks.h"

/* Is there something that only the agent can do, or is its regular turn due? */
static __always_inline bool agent_wanted(u64 now, bool degraded)
{
	s64 idle_for = now - core.agent_ran_at;

	/* Whoever waits in DSQ_AGENT is no agent any more: let it out. */
	if (!view.agent_pid)
		return true;
	if (degraded)
		return idle_for > (s64)(is_kernel_mode() ? config.heartbeat_ns : AGENT_PROBE_NS);
	return events_pending() || idle_for > (s64)config.heartbeat_ns;
}

/*
 * Is this CPU the only one for the task, now? On a machine of one CPU that is true of every task and
 * means nothing: the CPU cannot go away, so the agent may decide for all but the kernel's threads.
 */
static __always_inline bool bound_to_cpu(struct task_struct *p)
{
	if (p->nr_cpus_allowed == 1)
		return config.nr_cpu_ids > 1 || (p->flags & PF_KTHREAD);
	return is_migration_disabled(p);
}

/*
 * Has the task that wants to go on here a place in the policy's order that only the agent knows? The kernel asks for
 * work before it queues that task again, so any other would come first, whatever the order says: two tasks on one CPU
 * would take turns whatever their weights are.
 */
static __always_inline bool competes(struct cpu_ctx *cc, struct task_struct *prev)
{
	return (READ_ONCE(core.shared) || READ_ONCE(cc->placed)) && !bound_to_cpu(prev);
}

/* --- a task becomes runnable ------------------------------------------------------------------ */

static __always_inline void begin_run(struct task_ctx *t)
{
	t->last_run = t->exec_runtime;
	t->exec_runtime = 0;
}

OPS3(s32, pick_cpu, struct task_struct *, p, s32, prev_cpu, u64, wake_flags)
{
	struct task_ctx *t;
	bool idle = false;
	s32 cpu;

	if (!OPTION(BUILTIN_IDLE) || !HAS(scx_bpf_select_cpu_dfl) || p->pid == view.agent_pid)
		return prev_cpu;
	t = task_ctx(p);
	if (t && t->safe && is_dry(p, t, now_ns()))
		return prev_cpu;
	cpu = scx_bpf_select_cpu_dfl(p, prev_cpu, wake_flags, &idle);
	if (!idle || !cpu_open(cpu) || !t)
		return cpu;
	/* enqueue is not called for it. */
	if (end_event(t))
		count()->ev_cancelled++;
	begin_run(t);
	t->order = 0;
	t->rank = 0;
	t->favour = 0;
	t->placed_at = now_ns();
	count()->idle_bypass++;
	dsq_insert(p, SCX_DSQ_LOCAL, own_slice(t), 0);
	return cpu;
}

/* Is there one CPU only, and nothing that waits for it but who runs there now? Then no queue is needed to find an order. */
static __always_inline bool alone(s32 cpu, u64 now, bool degraded)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	return config.nr_cpu_ids == 1 && !READ_ONCE(cc->pinned) && !READ_ONCE(cc->placed) && !shared_waits(now) &&
	       !core_waits(now) && !(degraded && park_waits(now)) && !(core.agent_queued && agent_wanted(now, degraded)) &&
	       scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL) <= 0;
}

/* Before all others on its CPU, whose slice ends now. The kernel sees to that by itself: no interrupt is sent if this is it. */
static __always_inline void insert_first(struct task_struct *p, struct cpu_ctx *cc, u64 slice, u64 flags)
{
	count()->preempts++;
	WRITE_ONCE(cc->given, 1);
	WRITE_ONCE(cc->next_side, SIDE_CORE);
	WRITE_ONCE(cc->next_n, SHARER);
	dsq_insert(p, SCX_DSQ_LOCAL, slice, flags | SCX_ENQ_PREEMPT);
}

/*
 * Charges a task for what it has run since it was put on its CPU, or was charged last.
 */
static __always_inline void charge_run(struct task_struct *p, struct task_ctx *t, u64 now)
{
	u64 ran = now - t->started_at, charged;
	u32 weight = p->scx.weight;

	/* By the clock, never by the slice that is left: the kernel refills slices by its own rule. */
	t->exec_runtime += ran;
	t->ran += ran;
	t->left -= ran < t->left ? ran : t->left;
	charged = t->rule ? charge_by_rule(t, ran, &weight, now) : ran;
	weight = weight ?: 1;
	if (is_counted(t))
		t->vtime += (charged * 100 << 10) / flat_weight(t->group, weight);
	else
		t->vtime += charged * 100 / weight;
}

/* Is a task whose slice has ended the first in the core's order, before those that wait? */
static __noinline bool is_first(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	bool long_on = now - cc->began > GO_ON_NS;
	struct standing s;
	struct head head;

	charge_run(p, t, now);
	t->started_at = now;
	s = stand(p, t, cpu, now);
	if (head_of(DSQ_CORE, &head) && (before(head.vtime, s.vtime) || (long_on && now - head.since > GO_ON_NS)))
		return false;
	if (READ_ONCE(cc->pinned) && head_of(DSQ_PINNED(cpu), &head) &&
	    (before(head.vtime, s.vtime) || (long_on && now - head.since > GO_ON_NS)))
		return false;
	cc->rank = t->rank;
	cc->favour = t->favour;
	if (!t->rank && before(core.vnow, t->vtime))
		core.vnow = t->vtime;
	set_slice(p, s.slice);
	return true;
}

/*
 * May the task that wants to go on here do so, in the core's order? The kernel asks for work before it queues that task
 * again, so any other would come first, whatever the order says: two tasks on one CPU would take turns whatever their
 * weights are. What waits and is not the core's comes first; and who waits has a slice after GO_ON_NS, which bounds the part of
 * the one that goes on. (Counted for that one: were it the wait alone that counts, many who wait would have more than their
 * part.)
 */
static __always_inline bool goes_first(struct task_struct *p, struct cpu_ctx *cc, s32 cpu, u64 now)
{
	struct task_ctx *t;

	if (READ_ONCE(cc->placed) || READ_ONCE(core.shared) || park_waits(now) || (!READ_ONCE(cc->pinned) && !core_waits(now)) ||
	    runs_dry(p, now))
		return false;
	t = task_ctx(p);
	return t && t->started_at && !(p->flags & PF_KTHREAD) && is_first(p, t, cpu, now);
}

/*
 * A task has woken up about which no agent is asked, and its CPU is busy. Nothing else would cut the slice of whoever runs: it
 * would wait for that slice's end each time, however little it runs. If it has credit for having slept, or a rule puts it
 * ahead of that one, it comes next; as often as slices are cut for the agent, on each CPU.
 */
static __always_inline bool is_urgent(struct cpu_ctx *cc, struct task_ctx *t, u64 vtime, u64 now)
{
	u32 there = READ_ONCE(cc->rank);

	if (t->rank < there || (t->rank == there && (there || !before(vtime, READ_ONCE(core.vnow) - LAG_NS / 2))))
		return false;
	return may_cut(cc, now);
}

static __always_inline void enqueue_core(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, bool warm, u64 now)
{
	struct standing s = stand(p, t, cpu, now);
	struct way way = { .slice = s.slice, .flags = flags, .now = now, .warm = warm };

	t->placed_at = now;
	if (insert_idle(p, cpu, &way)) {
		/* Ahead of nobody. */
		t->rank = 0;
		return;
	}
	if ((flags & SCX_ENQ_WAKEUP) && alone(cpu, now, !is_normal()) && !t->rank) {
		dsq_insert(p, SCX_DSQ_LOCAL, way.slice, flags);
		return;
	}
	/* While degraded only by a rule: who is served at once then asks together with all others when the agent is back. */
	if ((flags & SCX_ENQ_WAKEUP) && (t->rank || is_kernel_mode()) && READ_ONCE(core.agent_cpu) != cpu && cpu_open(cpu) &&
	    is_urgent(cpu_ctx(cpu), t, s.vtime, now)) {
		insert_first(p, cpu_ctx(cpu), way.slice, flags);
		return;
	}
	core_filled(now);
	dsq_insert_vtime(p, DSQ_CORE, way.slice, s.vtime, flags);
	kick_for(p, cpu);
}

/* Tasks for which only this CPU is possible. They are never parked: if the CPU goes offline or the
 * agent dies, nobody else could take them. */
static __always_inline void enqueue_pinned(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	struct standing s;

	if (agent_owns(cpu)) {
		/* At once: the agent goes on after it. */
		dsq_insert(p, SCX_DSQ_LOCAL, config.slice_ns, flags & SCX_ENQ_WAKEUP ? flags | SCX_ENQ_PREEMPT : flags);
		return;
	}
	if ((p->flags & PF_KTHREAD) || OPTION(KEEP_LOCAL) || !cpu_usable(cpu)) {
		dsq_insert(p, SCX_DSQ_LOCAL, config.slice_ns, flags);
		return;
	}
	t->placed_at = now;
	s = stand(p, t, cpu, now);
	if ((flags & SCX_ENQ_WAKEUP) && !cpu_is_idle(cpu) && is_urgent(cc, t, s.vtime, now)) {
		if (READ_ONCE(core.agent_cpu) != cpu) {
			insert_first(p, cc, s.slice, flags);
			return;
		}
		/* The agent's turn is short, and others come first after it. */
		WRITE_ONCE(cc->urgent, 1);
	}
	WRITE_ONCE(cc->pinned, 1);
	dsq_insert_vtime(p, DSQ_PINNED(cpu), s.slice, s.vtime, flags);
	kick_if_idle(cpu);
}

OPS2(void, enqueue, struct task_struct *, p, u64, flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	struct task_ctx *t;
	bool warm, asked = false;
	u64 now;

	if (p->pid == view.agent_pid) {
		if (config.dedicated && view.dedicated && view.dedicated != (u64)(u32)cpu + 1)
			view.dedicated = 0;
		if (agent_owns(cpu)) {
			dsq_insert(p, SCX_DSQ_LOCAL, AGENT_SLICE_NS, flags & ~SCX_ENQ_LAST);
			return;
		}
		WRITE_ONCE(core.agent_queued, 1);
		dsq_insert(p, DSQ_AGENT, AGENT_SLICE_NS, flags & ~SCX_ENQ_LAST);
		/* What came while it was on its way out, and found it running. */
		if (is_normal() && events_pending())
			call_agent(cpu, now_ns(), true);
		return;
	}
	t = task_ctx(p);
	if (!t) {
		/* init_task made one for every task; without it there is nothing to keep custody in */
		dsq_insert(p, SCX_DSQ_GLOBAL, config.slice_ns, flags & ~SCX_ENQ_LAST);
		return;
	}
	now = now_ns();
	if (flags & SCX_ENQ_WAKEUP) {
		begin_run(t);
		if (t->stopped_at)
			t->slept += now - t->stopped_at;
	}
	t->order = 0;
	t->rank = 0;
	t->favour = 0;
	if (end_event(t))
		count()->ev_cancelled++;
	if (throttle(p, t, flags & ~SCX_ENQ_LAST, now))
		return;

	if (!is_normal())
		share_begins(p, t);

	if (bound_to_cpu(p)) {
		count()->kernel_direct++;
		enqueue_pinned(p, t, cpu, flags & ~SCX_ENQ_LAST, now);
		return;
	}
	if (config.dedicated && (flags & SCX_ENQ_LAST))
		asked = READ_ONCE(cpu_ctx(cpu)->asked) && is_dedicated();
	if ((flags & SCX_ENQ_LAST) && !asked) {
		/* Nothing else is here to run: it goes on, and nobody needs to be asked. */
		count()->kept++;
		if (config.dedicated)
			WRITE_ONCE(cpu_ctx(cpu)->asked, 0);
		dsq_insert(p, SCX_DSQ_LOCAL, config.slice_ns, flags & ~SCX_ENQ_LAST);
		return;
	}
	if (asked)
		flags &= ~SCX_ENQ_LAST;
	if (never_asked(p, t)) {
		count()->kernel_direct++;
		enqueue_core(p, t, cpu, flags, false, now);
		return;
	}
	warm = (flags & SCX_ENQ_WAKEUP) && t->stopped_at;
	if (latch_is_down(now)) {
		if (is_kernel_mode())
			count()->kernel_mode++;
		else
			count()->core_enqueued++;
		enqueue_core(p, t, cpu, flags, warm, now);
		return;
	}
	if (!asked && has_permit(p, t, flags & SCX_ENQ_WAKEUP, now)) {
		let_in(p, t, cpu, flags, alone(cpu, now, false), now);
		return;
	}
	if (!offer(p, t, cpu, flags, now)) {
		count()->congested++;
		if (config.dedicated)
			WRITE_ONCE(cpu_ctx(cpu)->asked, 0);
		enqueue_core(p, t, cpu, flags, warm, now);
		return;
	}
	/* If the CPU was just given to a task that is bound to it, the agent comes after that one: its turn is short. */
	if (!is_dedicated())
		call_agent(cpu, now, !READ_ONCE(cpu_ctx(cpu)->given));
	else if (flags & SCX_ENQ_WAKEUP)
		make_way(cpu, now);
}

/* --- a CPU wants work ------------------------------------------------------------------------- */

OPS2(void, dispatch, s32, cpu, struct task_struct *, prev)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	u64 now = now_ns();
	bool prev_is_agent = prev && prev->pid == view.agent_pid;
	/* It wants to go on, and is in no queue yet. */
	bool goes_on = prev && !prev_is_agent && (prev->scx.flags & SCX_TASK_QUEUED);
	bool degraded = latch_is_down(now), called = false;

	release(now);
	if (config.dedicated) {
		called = READ_ONCE(cc->called);
		WRITE_ONCE(cc->called, 0);
		not_asking(cpu, cc);
		if (!degraded && agent_owns(cpu)) {
			if (dispatch_own(cpu, prev, prev_is_agent, goes_on, now))
				goto chosen;
			return;
		}
	}
	if (!degraded) {
		bool was_free = !goes_on && !READ_ONCE(cc->pinned) && !READ_ONCE(cc->placed) && !READ_ONCE(core.shared) &&
				  !core_waits(now);

		if (!take_decisions(cpu, now, was_free) && was_free)
			goto chosen;
	}
	if (rescue(cpu, now))
		goto chosen;
	if (READ_ONCE(cc->urgent) && take_urgent(cpu, now))
		goto chosen;
	if (prev_is_agent) {
		/* Others first, so that the agent never has a CPU twice in a row while work waits there. */
		if (take_work(cpu, now, degraded, false))
			goto chosen;
		if (!degraded && (prev->scx.flags & SCX_TASK_QUEUED) && events_pending())
			set_slice(prev, AGENT_SLICE_NS);
		return;
	}
	if (core.agent_queued && !is_dedicated() &&
	    (agent_wanted(now, degraded) || (!degraded && goes_on && competes(cc, prev))) && dsq_to_local(DSQ_AGENT)) {
		/* An earlier agent may still be among them. */
		core.crowd = core.crowd && scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0;
		core.agent_queued = core.crowd;
		goto chosen;
	}
	/*
	 * The agent is at work on another CPU: slices of several CPUs end at one clock interrupt. What waits would come
	 * first, whatever the order says. So the task goes on until the next interrupt, once.
	 */
	if (!degraded && goes_on && is_dedicated()) {
		if (!bound_to_cpu(prev) && asks_first(prev, cc, called, competes(cc, prev), now)) {
			WRITE_ONCE(cc->asked, 1);
			return;
		}
	} else if (!degraded && goes_on && core.agent_cpu >= 0 && !cc->deferred && !READ_ONCE(cc->pinned) &&
	    !core_waits(now) && competes(cc, prev) && !runs_dry(prev, now)) {
		cc->deferred = 1;
		set_slice(prev, config.slice_min_ns);
		return;
	}
	if (degraded && goes_on && goes_first(prev, cc, cpu, now)) {
		count()->kept++;
		return;
	}
	if (take_work(cpu, now, degraded, goes_on))
		goto chosen;
	/* With nothing left in its cgroup it does not: the kernel queues it, and there it is held back. */
	if (goes_on && !runs_dry(prev, now)) {
		count()->kept++;
		set_slice(prev, config.slice_ns);
	}
	return;
chosen:
	cc->stamp = now;
}

/* --- a task runs ------------------------------------------------------------------------------ */

/*
 * The time, read once for a task's choice, its predecessor's end and its beginning: dispatch, stopping and running follow
 * each other without a pause, and reading the clock is a tenth of what they cost. What may come between (a task of another
 * class, an idle CPU, a clock interrupt) makes the stamp void.
 */
static __always_inline u64 switch_time(struct cpu_ctx *cc)
{
	return cc->stamp ?: now_ns();
}

OPS1(void, running, struct task_struct *, p)
{
	struct cpu_ctx *cc = cpu_ctx(this_cpu());
	struct task_ctx *t;
	u64 now = switch_time(cc), word;

	cc->stamp = 0;
	if (HAS(scx_bpf_dsq_reenq) && unlikely(cc->taken))
		WRITE_ONCE(cc->taken, 0);
	start_side(cc, now);
	cc->deferred = 0;
	cc->given = 0;
	count()->running = 1;
	if (p->pid == view.agent_pid) {
		core.agent_cpu = scx_bpf_task_cpu(p);
		cc->order = 0;
		cc->rank = 0;
		cc->favour = 0;
		core.agent_last_cpu = core.agent_cpu;
		core.agent_ran_at = now;
		if (config.preempt_after_ns)
			WRITE_ONCE(core.called_at, 0);
		view.agent_ran_at = now;
		view.agent_runs++;
		count()->activations++;
		return;
	}
	t = task_ctx(p);
	if (!t)
		return;
	count()->runs++;
	word = READ_ONCE(t->custody);
	if (word & STATE_MASK) {
		word = __sync_lock_test_and_set(&t->custody, word & ~STATE_MASK);
		if ((word & STATE_MASK) == STATE_PARKED) {
			bucket_close(t->bucket);
			parked_for(t->enqueued_at, now);
			count()->ev_taken_over++;
		} else if (t->sampled) {
			leg(QM_LEG_RUNNING, t->placed_at, now);
			leg(QM_LEG_TOTAL, t->enqueued_at, now);
		}
	}
	t->started_at = now;
	cc->began = now;
	cc->brief = t->last_run + t->exec_runtime < BRIEF_NS;
	cc->order = t->order;
	cc->rank = t->rank;
	cc->favour = t->favour;
	/* Who is ahead of its turn says nothing about where the others are. */
	if (!t->rank && before(core.vnow, t->vtime))
		core.vnow = t->vtime;
	/* An end of its slice would be seen at the next tick only. */
	if (starts_dry(p, t, now)) {
		set_slice(p, 0);
		if (may_kick())
			scx_bpf_kick_cpu(this_cpu(), SCX_KICK_PREEMPT);
	}
}

OPS2(void, stopping, struct task_struct *, p, bool, runnable)
{
	struct cpu_ctx *cc = cpu_ctx(this_cpu());
	struct task_ctx *t;
	u64 now = switch_time(cc);

	stop_side(cc, now);
	count()->running = 0;
	if (p->pid == view.agent_pid) {
		core.agent_cpu = -1;
		/* What it is owed counts from the end of its turn: a turn ends at a tick, later than its slice. */
		core.agent_ran_at = now;
		return;
	}
	t = task_ctx(p);
	if (!t || !t->started_at)
		return;
	t->stopped_at = now;
	charge_run(p, t, now);
	if (!runnable && t->counted)
		share_ends(t);
	stop_charged(p, t, runnable, now);
}

/*
 * No run is longer than max_run_ns while others wait, whatever slice it was given. A lone spinner is not
 * disturbed: dispatch finds nobody else and lets it go on.
 */
static __always_inline void watch_run(struct task_struct *p, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(this_cpu());
	struct task_ctx *t;

	if (!config.max_run_ns || (s64)(now - cc->overran_at) < (s64)config.max_run_ns)
		return;
	t = task_ctx(p);
	if (!t || (s64)(now - t->started_at) < (s64)config.max_run_ns)
		return;
	cc->overran_at = now;
	if (!READ_ONCE(cc->pinned) && !READ_ONCE(cc->placed) && !READ_ONCE(core.shared) &&
	    !core_waits(now) && scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL) <= 0)
		return;
	count()->overruns++;
	set_slice(p, 0);
}

/* Every tick of a running task. When all CPUs are busy this is what bounds the agent's wait. */
OPS1(void, tick, struct task_struct *, p)
{
	u64 now;

	cpu_ctx(this_cpu())->stamp = 0;
	if (p->pid == view.agent_pid)
		return;
	now = now_ns();
	if (ticks_dry(p, now))
		set_slice(p, 0);
	if (latch_is_down(now)) {
		/* Just degraded: whoever is parked has waited long enough. */
		if (now - view.degraded_since < 20 * MS && scx_bpf_dsq_nr_queued(DSQ_PARK) > 0)
			set_slice(p, 0);
		return;
	}
	/* The agent waits for its own CPU, or what it has decided for one that dispatches. */
	if (is_dedicated() ? (agent_owns(this_cpu()) ? core.agent_queued : decisions_wait()) :
			     core.agent_queued && (s64)(now - core.agent_ran_at) > (s64)config.preempt_ns && events_pending()) {
		count()->preempts++;
		set_slice(p, 0);
		return;
	}
	watch_run(p, now);
}

OPS2(void, update_idle, s32, cpu, bool, idle)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	if (!idle) {
		cpus[c].busy_since = now_ns();
		__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
		return;
	}
	cpus[c].awaited = 0;
	cpus[c].stamp = 0;
	if (HAS(scx_bpf_dsq_reenq))
		WRITE_ONCE(cpus[c].taken, 0);
	/* A CPU on its way offline ends up idle too. It takes no work, and must not kick: see may_kick. */
	if (!cpus[c].online)
		return;
	__sync_fetch_and_or(&view.idle[c / 64], 1ULL << (c & 63));
	if (is_dedicated()) {
		/* A full barrier: what the agent published before it looked whether this CPU is idle is there. */
		u32 asked = __sync_val_compare_and_swap(&cpus[c].asked, 1, 1);

		if (decisions_wait()) {
			scx_bpf_kick_cpu(cpu, 0);
			return;
		}
		if (asked) {
			__sync_fetch_and_or(&view.asking[c / 64], 1ULL << (c & 63));
			return;
		}
	}
	/* What came after dispatch had looked, and before this CPU was seen as idle. */
	if (cpus[c].placed || cpus[c].pinned)
		scx_bpf_kick_cpu(cpu, 0);
	else if (is_normal() && ((READ_ONCE(core.agent_queued) && !is_dedicated() && events_pending()) || core.decisions_left || cpus[c].kept))
		scx_bpf_kick_cpu(cpu, 0);
}

/* --- start, heartbeat, end ---------------------------------------------------------------------- */

/*
 * Every 10 ms. It runs in a soft interrupt and may itself be late, so it is only the last of the
 * three places that check the latch. It wakes idle CPUs if something waits that they would take.
 */
static int heartbeat(void *map, u32 *key, struct timer_slot *slot)
{
	u64 now = now_ns();
	bool degraded = latch_check(now), waits;
	int i;

	/* What this word and the one of DSQ_CORE may have missed: see core_waits and dispatch. */
	if (scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0)
		core.agent_queued = 1;
	waits = core.agent_queued && !is_dedicated() && agent_wanted(now, degraded);
	if (is_dedicated())
		wake_own();
	release(now);
	if (core.leaving)
		let_go();
	watch_taken(now);
	if (scx_bpf_dsq_nr_queued(DSQ_CORE) > 0) {
		core_filled(now);
		waits = true;
	}
	if (scx_bpf_dsq_nr_queued(DSQ_SHARED) > 0)
		WRITE_ONCE(core.shared, 1);
	if (degraded && scx_bpf_dsq_nr_queued(DSQ_PARK) > 0)
		WRITE_ONCE(core.parked, 1);
	if (!waits)
		waits = core.shared ||
			(degraded && scx_bpf_dsq_nr_queued(DSQ_PARK) > 0) || (!degraded && (core.decisions_left || (is_dedicated() && decisions_wait())));
	if (any_idle()) {
		FOR(i, QM_MAX_CPUS) {
			struct cpu_ctx *cc = cpu_ctx(i);

			if (i >= config.nr_cpu_ids)
				break;
			if (waits || cc->placed || cc->pinned || cc->kept)
				kick_if_idle(i);
		}
	}
	bpf_timer_start(&slot->timer, TIMER_NS, 0);
	return 0;
}

SEC("struct_ops.s/qumun_init")
int qumun_init(u64 *ctx)
{
	struct timer_slot *slot;
	const struct cpumask *online;
	u32 key = TIMER_HEARTBEAT;
	s32 err;
	int i;

	err = scx_bpf_create_dsq(DSQ_PARK, -1);
	err = err ?: scx_bpf_create_dsq(DSQ_SHARED, -1);
	err = err ?: scx_bpf_create_dsq(DSQ_CORE, -1);
	err = err ?: scx_bpf_create_dsq(DSQ_AGENT, -1);
	if (err)
		return err;
	online = scx_bpf_get_online_cpumask();
	FOR(i, QM_MAX_CPUS) {
		if (i >= config.nr_cpu_ids)
			break;
		cpus[i & (QM_MAX_CPUS - 1)].online = bpf_cpumask_test_cpu(i, online);
		if (cpus[i & (QM_MAX_CPUS - 1)].online) {
			view.nr_online++;
			view.online[(u32)i / 64 & (QM_IDLE_WORDS - 1)] |= 1ULL << (i & 63);
		}
		err = scx_bpf_create_dsq(DSQ_PINNED(i), -1);
		err = err ?: scx_bpf_create_dsq(DSQ_PLACED(i), -1);
		if (err)
			break;
	}
	scx_bpf_put_cpumask(online);
	if (err)
		return err;
	view.nr_cpu_ids = config.nr_cpu_ids;
	view.degraded_since = now_ns();
	view.dwell_ns = DWELL_MIN_NS;
	view.entered[QM_REASON_START]++;
	core.agent_cpu = -1;
	core.agent_last_cpu = -1;
	core.shares = 1;
	slot = bpf_map_lookup_elem(&qm_timer, &key);
	if (!slot)
		return -2; /* ENOENT */
	err = bpf_timer_init(&slot->timer, &qm_timer, CLOCK_MONOTONIC);
	err = err ?: bpf_timer_set_callback(&slot->timer, heartbeat);
	err = err ?: bpf_timer_start(&slot->timer, TIMER_NS, 0);
	if (err || !config.preempt_after_ns)
		return err;
	key = TIMER_ALARM;
	slot = bpf_map_lookup_elem(&qm_timer, &key);
	if (!slot)
		return -2;
	err = bpf_timer_init(&slot->timer, &qm_timer, CLOCK_MONOTONIC);
	return err ?: bpf_timer_set_callback(&slot->timer, alarm);
}

OPS1(void, exit, struct scx_exit_info *, ei)
{
	int i;

	exit_info.code = ei->exit_code;
	bpf_probe_read_kernel_str(exit_info.reason, sizeof(exit_info.reason), ei->reason);
	bpf_probe_read_kernel_str(exit_info.msg, sizeof(exit_info.msg), ei->msg);
	bpf_probe_read_kernel_str(exit_info.dump, sizeof(exit_info.dump), ei->dump);
	exit_info.kind = ei->kind;
	/* Decisions that still waited for their task: it will not come. */
	FOR(i, QM_MAX_CPUS) {
		if (i >= config.nr_cpu_ids)
			break;
		counters[i & (QM_MAX_CPUS - 1)].dec_stale += cpu_ctx(i)->kept;
		cpu_ctx(i)->kept = 0;
	}
	view.exited = 1;
}

SEC(".struct_ops.link")
struct sched_ext_ops qumun_ops = {
	.select_cpu = (void *)qumun_pick_cpu,
	.enqueue = (void *)qumun_enqueue,
	.dispatch = (void *)qumun_dispatch,
	.tick = (void *)qumun_tick,
	.running = (void *)qumun_running,
	.stopping = (void *)qumun_stopping,
	.set_weight = (void *)qumun_set_weight,
	.set_cpumask = (void *)qumun_set_cpumask,
	.update_idle = (void *)qumun_update_idle,
	.init_task = (void *)qumun_init_task,
	.exit_task = (void *)qumun_exit_task,
	.enable = (void *)qumun_enable,
	.disable = (void *)qumun_disable,
	.dump = (void *)qumun_dump,
	.dump_cpu = (void *)qumun_dump_cpu,
	.dump_task = (void *)qumun_dump_task,
	.cgroup_init = (void *)qumun_cgroup_init,
	.cgroup_exit = (void *)qumun_cgroup_exit,
	.cgroup_move = (void *)qumun_cgroup_move,
	.cgroup_set_weight = (void *)qumun_cgroup_set_weight,
	.cgroup_set_bandwidth = (void *)qumun_cgroup_set_bandwidth,
	.cpu_online = (void *)qumun_cpu_online,
	.cpu_offline = (void *)qumun_cpu_offline,
	.cpu_acquire = (void *)qumun_cpu_acquire,
	.cpu_release = (void *)qumun_cpu_release,
	.init = (void *)qumun_init,
	.exit = (void *)qumun_exit,
	.dispatch_max_batch = BATCH * 2,
	.timeout_ms = 5000,
	.name = "qumun",
};
