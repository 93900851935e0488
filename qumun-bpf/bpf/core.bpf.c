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
#include "sides.h"

static __always_inline bool events_pending(void)
{
	return bpf_ringbuf_query(&qm_events, BPF_RB_AVAIL_DATA) > 0;
}

/* Is there something that only the agent can do, or is its regular turn due? */
static __always_inline bool agent_wanted(u64 now, bool degraded)
{
	s64 idle_for = now - core.agent_ran_at;

	/* Whoever waits in DSQ_AGENT is no agent any more: let it out. */
	if (!view.agent_pid)
		return true;
	if (degraded)
		return idle_for > (s64)AGENT_PROBE_NS;
	return events_pending() || idle_for > (s64)AGENT_BEAT_NS;
}

/* Gets a CPU for the agent: an idle one if there is one. */
__noinline int call_agent(s32 cpu, u64 now)
{
	s32 last = core.agent_last_cpu;
	u64 preempted;

	if (READ_ONCE(core.agent_cpu) >= 0 || !READ_ONCE(core.agent_queued))
		return 0;
	if (kick_if_idle(last) || kick_if_idle(cpu))
		return 0;
	for (u32 i = 0; i < QM_IDLE_WORDS; i++) {
		u64 word;
		u32 bit = 0;

		if (i * 64 >= config.nr_cpu_ids)
			break;
		word = READ_ONCE(view.idle[i]);
		if (!word)
			continue;
		/* the lowest set bit, by halving */
		if (!(u32)word) { bit += 32; word >>= 32; }
		if (!(word & 0xffff)) { bit += 16; word >>= 16; }
		if (!(word & 0xff)) { bit += 8; word >>= 8; }
		if (!(word & 0xf)) { bit += 4; word >>= 4; }
		if (!(word & 0x3)) { bit += 2; word >>= 2; }
		if (!(word & 0x1)) bit += 1;
		if (kick_if_idle(i * 64 + bit))
			return 0;
	}
	/* All busy. If the agent had no turn for a while, this CPU's task makes room now: one kick of a busy
	 * CPU in this time, however many events there are. */
	preempted = core.preempt_at;
	if ((s64)(now - core.agent_ran_at) > (s64)config.preempt_ns && (s64)(now - preempted) > (s64)config.preempt_ns &&
	    cpu_usable(cpu) && __sync_val_compare_and_swap(&core.preempt_at, preempted, now) == preempted) {
		count()->preempts++;
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	}
	return 0;
}

/* --- a task becomes runnable ------------------------------------------------------------------ */

OPS3(s32, pick_cpu, struct task_struct *, p, s32, prev_cpu, u64, wake_flags)
{
	return prev_cpu;
}

/*
 * Virtual time, within bounds around the clock: credit for sleeping is limited, and so is what a task
 * can owe. Memory reclaim and khugepaged are always at the front: they may hold what others, the agent
 * among them, wait for, and khugepaged's weight is the smallest there is.
 */
static __always_inline u64 settle_vtime(struct task_ctx *t)
{
	u64 clock = READ_ONCE(core.vnow);

	if (t->reclaim || before(t->vtime, clock - LAG_NS))
		t->vtime = clock - LAG_NS;
	else if (before(clock + AHEAD_NS, t->vtime))
		t->vtime = clock + AHEAD_NS;
	return t->vtime;
}

static __always_inline void enqueue_core(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, u64 now)
{
	t->placed_at = now;
	dsq_insert_vtime(p, DSQ_CORE, config.slice_ns, settle_vtime(t), flags);
	kick_for(p, cpu);
}

/* Tasks for which only this CPU is possible. They are never parked: if the CPU goes offline or the
 * agent dies, nobody else could take them. */
static __always_inline void enqueue_pinned(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	if ((p->flags & PF_KTHREAD) || !cpu_usable(cpu)) {
		dsq_insert(p, SCX_DSQ_LOCAL, config.slice_ns, flags);
		return;
	}
	WRITE_ONCE(cc->pinned, 1);
	t->placed_at = now;
	dsq_insert_vtime(p, DSQ_PINNED(cpu), config.slice_ns, settle_vtime(t), flags);
	kick_if_idle(cpu);
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

static __always_inline u64 cgroup_id(struct task_struct *p)
{
	return p->cgroups->dfl_cgrp->kn->id;
}

/* Parks the task and sends the event. Returns false when the ring is full. */
static __always_inline bool offer(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, u64 now)
{
	struct cpu_ctx *here = cpu_ctx(this_cpu());
	struct qm_event *e;

	e = bpf_ringbuf_reserve(&qm_events, sizeof(*e), 0);
	if (!e)
		return false;
	settle_vtime(t);
	t->enqueued_at = now;
	t->sampled = (here->sample++ & 63) == 0;
	bucket_open(t, now);
	/* Last, and in order: who sees this word must find what belongs to it. */
	__sync_lock_test_and_set(&t->custody, ((t->custody >> STATE_BITS) + 1) << STATE_BITS | STATE_PARKED);
	e->enqueued_at = now;
	e->generation = t->custody >> STATE_BITS;
	e->cgroup_id = cgroup_id(p);
	e->enq_flags = flags;
	e->started_at = t->started_at;
	e->stopped_at = t->stopped_at;
	e->exec_runtime = t->exec_runtime;
	e->vtime = t->vtime;
	e->allowed = p->cpus_ptr->bits[0];
	e->pid = p->pid;
	e->tgid = p->tgid;
	e->cpu = cpu;
	e->waker = flags & SCX_ENQ_WAKEUP ? (s32)bpf_get_current_pid_tgid() : 0;
	e->weight = p->scx.weight;
	e->nr_cpus_allowed = p->nr_cpus_allowed;
	e->epoch = view.epoch;
	e->flags = (t->sampled ? QM_EVENT_SAMPLED : 0) | (flags & SCX_ENQ_WAKEUP ? QM_EVENT_WAKEUP : 0) |
		   (p->flags & PF_KTHREAD ? QM_EVENT_KTHREAD : 0);
	e->kind = QM_EVENT_QUEUED;
	e->reserved = 0;
	__builtin_memcpy(e->comm, p->comm, sizeof(e->comm));
	dsq_insert_vtime(p, DSQ_PARK, config.slice_ns, t->vtime, flags);
	count()->ev_sent++;
	/* No wakeup: nobody sleeps on this ring, and the wakeup would be an IPI for each record. */
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
	return true;
}

OPS2(void, enqueue, struct task_struct *, p, u64, flags)
{
	s32 cpu = scx_bpf_task_cpu(p);
	struct task_ctx *t;
	u64 now;

	if (p->pid == view.agent_pid) {
		WRITE_ONCE(core.agent_queued, 1);
		dsq_insert(p, DSQ_AGENT, AGENT_SLICE_NS, flags & ~SCX_ENQ_LAST);
		/* What came while it was on its way out, and found it running. */
		if (is_normal() && events_pending())
			call_agent(cpu, now_ns());
		return;
	}
	t = task_ctx(p);
	if (!t) {
		/* init_task made one for every task; without it there is nothing to keep custody in */
		dsq_insert(p, SCX_DSQ_GLOBAL, config.slice_ns, flags & ~SCX_ENQ_LAST);
		return;
	}
	now = now_ns();
	if (flags & SCX_ENQ_WAKEUP)
		t->exec_runtime = 0;
	if (end_event(t))
		count()->ev_cancelled++;

	if (bound_to_cpu(p)) {
		count()->kernel_direct++;
		enqueue_pinned(p, t, cpu, flags & ~SCX_ENQ_LAST, now);
		return;
	}
	if (flags & SCX_ENQ_LAST) {
		/* Nothing else is here to run: it goes on, and nobody needs to be asked. */
		count()->kept++;
		dsq_insert(p, SCX_DSQ_LOCAL, config.slice_ns, flags & ~SCX_ENQ_LAST);
		return;
	}
	if (t->reclaim || p->tgid == view.agent_tgid) {
		count()->kernel_direct++;
		enqueue_core(p, t, cpu, flags, now);
		return;
	}
	if (latch_check(now)) {
		count()->core_enqueued++;
		enqueue_core(p, t, cpu, flags, now);
		return;
	}
	if (!offer(p, t, cpu, flags, now)) {
		count()->congested++;
		enqueue_core(p, t, cpu, flags, now);
		return;
	}
	call_agent(cpu, now);
}

/* --- a CPU wants work ------------------------------------------------------------------------- */

/*
 * A policy may order tasks as it likes, also so that one never comes first. A placed task that has
 * waited for RESCUE_AFTER_NS moves to the core's queue, where its wait is bounded. The search begins
 * at the far end, where the victims are, and is bounded too.
 */
__noinline int rescue_placed(u64 dsq, u64 now)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *t;
	int i;

	if (!bpf_iter_scx_dsq_new(&it, dsq, SCX_DSQ_ITER_REV)) {
		FOR(i, RESCUE_SCAN) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			t = task_ctx(p);
			if (t && (s64)(now - t->placed_at) > (s64)RESCUE_AFTER_NS &&
			    dsq_move_vtime(&it, p, DSQ_CORE, config.slice_ns, settle_vtime(t)))
				__sync_fetch_and_add(&view.rescued, 1);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return 0;
}

/* The same for one of the core's queues: the first victim found runs here and now. */
__noinline int rescue_queued(u64 dsq, s32 cpu, u64 now)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *t;
	int i, found = 0;

	if (!bpf_iter_scx_dsq_new(&it, dsq, SCX_DSQ_ITER_REV)) {
		FOR(i, RESCUE_SCAN) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			t = task_ctx(p);
			if (!t || (s64)(now - t->placed_at) <= (s64)RESCUE_AFTER_NS ||
			    !bpf_cpumask_test_cpu(cpu, p->cpus_ptr) || is_migration_disabled(p))
				continue;
			if (dsq_move(&it, p, SCX_DSQ_LOCAL, config.slice_ns)) {
				__sync_fetch_and_add(&view.rescued, 1);
				found = 1;
				break;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return found;
}

/*
 * Every RESCUE_EVERY_NS each CPU looks at its own pinned tasks, and one of them at the rest: also at what
 * is placed for other CPUs, which a realtime task may hold. True if it has found a task to run now.
 */
static __always_inline bool rescue(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	u64 last = core.last_rescue;
	int i;

	if (READ_ONCE(cc->pinned) && now - cc->rescued_at > RESCUE_EVERY_NS) {
		cc->rescued_at = now;
		if (rescue_queued(DSQ_PINNED(cpu), cpu, now))
			return true;
	}
	if (now - last < RESCUE_EVERY_NS || __sync_val_compare_and_swap(&core.last_rescue, last, now) != last)
		return false;
	if (READ_ONCE(core.shared))
		rescue_placed(DSQ_SHARED, now);
	FOR(i, RESCUE_CPUS) {
		u32 c = core.rescue_cpu++;

		if (c >= config.nr_cpu_ids) {
			core.rescue_cpu = 0;
			break;
		}
		if (READ_ONCE(cpus[c & (QM_MAX_CPUS - 1)].placed))
			rescue_placed(DSQ_PLACED(c), now);
	}
	return scx_bpf_dsq_nr_queued(DSQ_CORE) > 0 && rescue_queued(DSQ_CORE, cpu, now);
}

OPS2(void, dispatch, s32, cpu, struct task_struct *, prev)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	struct turn turn = { .cpu = cpu, .now = now_ns() };
	bool prev_is_agent = prev && prev->pid == view.agent_pid;
	bool degraded = latch_check(turn.now);

	if (!degraded) {
		turn.local_free = !READ_ONCE(cc->pinned) && !READ_ONCE(cc->placed) && !READ_ONCE(core.shared) &&
				  scx_bpf_dsq_nr_queued(DSQ_CORE) <= 0;
		bool was_free = turn.local_free;

		take_decisions(&turn);
		if (was_free && !turn.local_free)
			return;
	}
	if (rescue(cpu, turn.now))
		return;
	if (prev_is_agent) {
		/* Others first, so that the agent never has a CPU twice in a row while work waits there. */
		if (take_work(cpu, turn.now, degraded))
			return;
		if (!degraded && (prev->scx.flags & SCX_TASK_QUEUED) && events_pending())
			set_slice(prev, AGENT_SLICE_NS);
		return;
	}
	if (core.agent_queued && agent_wanted(turn.now, degraded) && dsq_to_local(DSQ_AGENT)) {
		/* An earlier agent may still be among them. */
		core.agent_queued = scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0;
		return;
	}
	if (take_work(cpu, turn.now, degraded))
		return;
	if (prev && (prev->scx.flags & SCX_TASK_QUEUED)) {
		count()->kept++;
		set_slice(prev, config.slice_ns);
	}
}

/* --- a task runs ------------------------------------------------------------------------------ */

OPS1(void, running, struct task_struct *, p)
{
	struct task_ctx *t;
	u64 now = now_ns(), word;

	start_side(cpu_ctx(this_cpu()), now);
	if (p->pid == view.agent_pid) {
		core.agent_cpu = scx_bpf_task_cpu(p);
		core.agent_last_cpu = core.agent_cpu;
		core.agent_ran_at = now;
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
	if (before(core.vnow, t->vtime))
		core.vnow = t->vtime;
}

OPS2(void, stopping, struct task_struct *, p, bool, runnable)
{
	struct task_ctx *t;
	u64 now = now_ns(), ran;
	u32 weight = p->scx.weight;

	stop_side(cpu_ctx(this_cpu()), now);
	if (p->pid == view.agent_pid) {
		core.agent_cpu = -1;
		return;
	}
	t = task_ctx(p);
	if (!t || !t->started_at)
		return;
	/* By the clock, never by the slice that is left: the kernel refills slices by its own rule. */
	ran = now - t->started_at;
	t->stopped_at = now;
	t->exec_runtime += ran;
	t->vtime += ran * 100 / (weight ? weight : 1);
}

/* Every tick of a running task. When all CPUs are busy this is what bounds the agent's wait. */
OPS1(void, tick, struct task_struct *, p)
{
	u64 now;

	if (p->pid == view.agent_pid)
		return;
	now = now_ns();
	if (latch_check(now)) {
		/* Just degraded: whoever is parked has waited long enough. */
		if (now - view.degraded_since < 20 * MS && scx_bpf_dsq_nr_queued(DSQ_PARK) > 0)
			set_slice(p, 0);
		return;
	}
	if (core.agent_queued && (s64)(now - core.agent_ran_at) > (s64)config.preempt_ns && events_pending()) {
		count()->preempts++;
		set_slice(p, 0);
	}
}

OPS2(void, update_idle, s32, cpu, bool, idle)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	if (!idle) {
		__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
		return;
	}
	/*
	 * A CPU on its way offline ends up idle too. It takes no work, and it must not kick: what it asks for
	 * would be done by an interrupt of its own that never comes, and for that the kernel would wait, for
	 * ever, when the scheduler is removed (seen on 7.3).
	 */
	if (!cpus[c].online)
		return;
	__sync_fetch_and_or(&view.idle[c / 64], 1ULL << (c & 63));
	/* What came after dispatch had looked, and before this CPU was seen as idle. */
	if (cpus[c].placed || cpus[c].pinned)
		scx_bpf_kick_cpu(cpu, 0);
	else if (is_normal() && ((READ_ONCE(core.agent_queued) && events_pending()) || core.decisions_left || cpus[c].kept))
		scx_bpf_kick_cpu(cpu, 0);
}

/* --- a task leaves the queues for a reason of its own ------------------------------------------ */

/* Kernels from 7.1 tell exactly when a task leaves custody; there quiescent is not loaded. */
OPS2(void, dequeue, struct task_struct *, p, u64, flags)
{
	if (ENUM_HAS(scx_deq_flags, SCX_DEQ_SCHED_CHANGE) && (flags & ENUM_VALUE(scx_deq_flags, SCX_DEQ_SCHED_CHANGE)))
		cancel_event(p);
}

OPS2(void, quiescent, struct task_struct *, p, u64, flags)
{
	cancel_event(p);
}

OPS2(s32, init_task, struct task_struct *, p, struct scx_init_task_args *, args)
{
	struct task_ctx *t = bpf_task_storage_get(&qm_tasks, p, NULL, BPF_LOCAL_STORAGE_CREATE);
	char comm[16];

	if (!t)
		return -12; /* ENOMEM */
	/* The clock makes generations unique across the reuse of a pid. */
	t->custody = now_ns() << STATE_BITS;
	if (p->flags & PF_KTHREAD) {
		__builtin_memcpy(comm, p->comm, sizeof(comm));
		t->reclaim = !__builtin_memcmp(comm, "kswapd", 6) || !__builtin_memcmp(comm, "kcompactd", 9) ||
			     !__builtin_memcmp(comm, "khugepaged", 10);
	}
	return 0;
}

OPS1(void, enable, struct task_struct *, p)
{
	struct task_ctx *t = task_ctx(p);

	if (t)
		t->vtime = READ_ONCE(core.vnow);
}

OPS1(void, disable, struct task_struct *, p)
{
	cancel_event(p);
}

OPS2(void, exit_task, struct task_struct *, p, struct scx_exit_task_args *, args)
{
	struct task_ctx *t = task_ctx(p);
	struct qm_event *e;

	if (t && end_event(t))
		count()->ev_dead++;
	if (p->pid == view.agent_pid) {
		view.agent_pid = 0;
		view.agent_tgid = 0;
		core.agent_cpu = -1;
		latch_fall(now_ns(), QM_REASON_EXIT);
		return;
	}
	if (!is_normal() || view.exited)
		return;
	e = bpf_ringbuf_reserve(&qm_events, sizeof(*e), 0);
	if (!e) {
		count()->exit_dropped++;
		return;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = QM_EVENT_EXIT;
	e->pid = p->pid;
	e->tgid = p->tgid;
	/* The last one that the agent was told: a newer task of the same pid has a larger one. */
	e->generation = t ? t->custody >> STATE_BITS : 0;
	e->epoch = view.epoch;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

/* --- CPUs come and go, other classes take them -------------------------------------------------- */

OPS1(void, cpu_online, s32, cpu)
{
	if (!__sync_lock_test_and_set(&cpu_ctx(cpu)->online, 1))
		__sync_fetch_and_add(&core.nr_online, 1);
	debug("cpu %d is online", cpu);
}

/*
 * The first step of a CPU's way offline. cpu_offline comes much later: before it the CPU becomes
 * inactive (from then on the kernel does not let it dispatch) and the kernel waits for RCU. What is
 * queued for that CPU alone in between waits for RCU too, and if that is the RCU thread, for ever. So
 * from here on nothing is. (Reading the mask of active CPUs instead would need its address, for which the
 * loader would have to read all of /proc/kallsyms: 1.5 s more in an emulated guest.)
 */
static __always_inline void leave(u32 cpu)
{
	if (__sync_lock_test_and_set(&cpus[cpu & (QM_MAX_CPUS - 1)].online, 0))
		__sync_fetch_and_add(&core.nr_online, -1);
}

SEC("tp_btf/cpuhp_enter")
int qumun_hotplug(u64 *ctx)
{
	u32 cpu = (u32)ctx[0] & (QM_MAX_CPUS - 1);

	/* The target lies below the step: downwards. If the step fails, the CPU is used again after it
	 * was really offline and is back; until then the kernel's own ways lead to it. */
	if ((s32)ctx[1] < (s32)ctx[2] && cpus[cpu].online) {
		leave(cpu);
		__sync_fetch_and_and(&view.idle[cpu / 64], ~(1ULL << (cpu & 63)));
	}
	return 0;
}

/* Moves what only the dying CPU would take to where others, or the kernel, can take it. */
OPS1(void, cpu_offline, s32, cpu)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *t;
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);
	int i;

	leave(c);
	debug("cpu %d goes offline", cpu);
	__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, DSQ_PINNED(cpu), 0)) {
		FOR(i, 65536) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			/* The kernel runs its global queue on this CPU too, and from there breaks the affinity. */
			dsq_move(&it, p, SCX_DSQ_GLOBAL, config.slice_ns);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (!bpf_iter_scx_dsq_new(&it, DSQ_PLACED(cpu), 0)) {
		FOR(i, 65536) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			t = task_ctx(p);
			dsq_move_vtime(&it, p, DSQ_CORE, config.slice_ns, t ? settle_vtime(t) : 0);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	/* The agent may be bound to this CPU. Where it runs next, the kernel says. */
	if (!bpf_iter_scx_dsq_new(&it, DSQ_AGENT, 0)) {
		FOR(i, 64) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			dsq_move(&it, p, SCX_DSQ_GLOBAL, AGENT_SLICE_NS);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
}

/* A higher class took the CPU: what waits in its local queue goes elsewhere. Kernels before 6.19. */
OPS2(void, cpu_release, s32, cpu, struct scx_cpu_release_args *, args)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
	if (HAS(scx_bpf_reenqueue_local))
		count()->reenqueued += scx_bpf_reenqueue_local();
}

/* The same where cpu_acquire and cpu_release are deprecated. */
SEC("tp_btf/sched_switch")
int qumun_switch(u64 *ctx)
{
	struct task_struct *next = (struct task_struct *)ctx[2];

	if (likely(next->prio >= MAX_RT_PRIO))
		return 0;
	/* A stopper thread (migration/N) is gone again in microseconds. */
	if (next->prio == 0 && (next->flags & PF_KTHREAD))
		return 0;
	if (HAS(scx_bpf_reenqueue_local___v2___q)) {
		count()->reenqueued++;
		scx_bpf_reenqueue_local___v2___q();
	}
	return 0;
}

/* --- SYSCALL programs: what user space may ask ------------------------------------------------- */

/* The calling thread becomes the agent. Whatever an earlier one held is void. */
SEC("syscall")
int qumun_hello(struct qm_hello *args)
{
	u64 id = bpf_get_current_pid_tgid(), now = now_ns();

	view.agent_pid = (s32)id;
	view.agent_tgid = (s32)(id >> 32);
	core.agent_cpu = -1;
	core.agent_last_cpu = -1;
	core.agent_queued = scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0;
	core.agent_ran_at = now;
	if (!latch_fall(now, QM_REASON_HELLO))
		__sync_fetch_and_add(&view.epoch, 1);
	args->epoch = view.epoch;
	return 0;
}

/* Claims idle CPUs for a batch of tasks (qm_agent.requests), the asked CPU first. */
SEC("syscall")
int qumun_select_cpu(struct qm_select *args)
{
	u32 n = args->count, answered = 0;
	int i;

	if (n == 0 || n > QM_SELECT_MAX)
		return -22; /* EINVAL */
	FOR(i, QM_SELECT_MAX) {
		struct qm_request *r;
		struct task_struct *p;
		s32 cpu = -1, first;

		if (i >= n)
			break;
		r = &agent.requests[i & (QM_SELECT_MAX - 1)];
		first = r->cpu;
		p = bpf_task_from_pid(r->pid);
		if (p) {
			bpf_rcu_read_lock();
			if (cpu_usable(first) && bpf_cpumask_test_cpu(first, p->cpus_ptr) &&
			    scx_bpf_test_and_clear_cpu_idle(first))
				cpu = first;
			else
				cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
			bpf_rcu_read_unlock();
			bpf_task_release(p);
		}
		r->cpu = cpu < 0 ? -1 : cpu;
		answered += cpu >= 0;
	}
	args->answered = answered;
	return 0;
}

/* Ends the slice of whatever runs on a CPU. */
SEC("syscall")
int qumun_preempt(struct qm_preempt *args)
{
	s32 cpu = args->cpu;

	if (!cpu_usable(cpu))
		return -22; /* EINVAL */
	count()->preempts++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	return 0;
}

/* --- start, heartbeat, end ---------------------------------------------------------------------- */

struct timer_slot {
	struct bpf_timer timer;
};
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct timer_slot);
} qm_timer SEC(".maps");

/*
 * Every 10 ms. It runs in a soft interrupt and may itself be late, so it is only the last of the
 * three places that check the latch. It wakes idle CPUs if something waits that they would take.
 */
static int heartbeat(void *map, u32 *key, struct timer_slot *slot)
{
	u64 now = now_ns();
	bool degraded = latch_check(now);
	bool waits = core.agent_queued && agent_wanted(now, degraded);
	int i;

	if (!waits)
		waits = scx_bpf_dsq_nr_queued(DSQ_CORE) > 0 || core.shared ||
			(degraded && scx_bpf_dsq_nr_queued(DSQ_PARK) > 0) || (!degraded && core.decisions_left);
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
	u32 key = 0;
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
		core.nr_online += cpus[i & (QM_MAX_CPUS - 1)].online;
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
	slot = bpf_map_lookup_elem(&qm_timer, &key);
	if (!slot)
		return -2; /* ENOENT */
	err = bpf_timer_init(&slot->timer, &qm_timer, CLOCK_MONOTONIC);
	err = err ?: bpf_timer_set_callback(&slot->timer, heartbeat);
	err = err ?: bpf_timer_start(&slot->timer, TIMER_NS, 0);
	return err;
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
	.dequeue = (void *)qumun_dequeue,
	.dispatch = (void *)qumun_dispatch,
	.tick = (void *)qumun_tick,
	.running = (void *)qumun_running,
	.stopping = (void *)qumun_stopping,
	.quiescent = (void *)qumun_quiescent,
	.update_idle = (void *)qumun_update_idle,
	.init_task = (void *)qumun_init_task,
	.exit_task = (void *)qumun_exit_task,
	.enable = (void *)qumun_enable,
	.disable = (void *)qumun_disable,
	.cpu_online = (void *)qumun_cpu_online,
	.cpu_offline = (void *)qumun_cpu_offline,
	.cpu_release = (void *)qumun_cpu_release,
	.init = (void *)qumun_init,
	.exit = (void *)qumun_exit,
	.dispatch_max_batch = BATCH * 2,
	.timeout_ms = 5000,
	.name = "qumun",
};
