/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Who runs next on a CPU: a task of the core's own queues, or one that the agent has placed?
 *
 * The two sides have no common order: the agent's virtual time is the policy's own. So each side has a
 * clock per CPU that counts the CPU time it has had, divided by how many tasks shared it, and the side
 * whose clock is behind comes first: fair queueing of two queues (start-time fair queueing, Goyal et
 * al. 1996, with the number of tasks as weight). A side that had nothing to run is owed SIDE_LAG_NS at
 * most. Memory reclaim comes first whatever the clocks say. And whatever anything says, a side that was
 * not looked at for SHARE_NS is.
 */
#ifndef QUMUN_SIDES_H
#define QUMUN_SIDES_H
#include "custody.h"

/* The first task of a queue. */
struct head {
	u64 vtime;
	u64 since; /* when it came into the queue */
	bool reclaim;
};

/* False when the queue is empty. */
static __always_inline bool head_of(u64 dsq, struct head *head)
{
	struct bpf_iter_scx_dsq it;
	bool found = false;

	if (!bpf_iter_scx_dsq_new(&it, dsq, 0)) {
		struct task_struct *p = bpf_iter_scx_dsq_next(&it);

		if (p) {
			struct task_ctx *t = task_ctx(p);

			head->vtime = p->scx.dsq_vtime;
			head->since = t ? t->placed_at : 0;
			head->reclaim = t && t->reclaim;
			found = true;
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	return found;
}

/* Takes from a queue whose hint says that it may hold something, and keeps the hint true. */
static __always_inline bool take_hinted(u64 dsq, u32 *hint)
{
	if (!READ_ONCE(*hint))
		return false;
	if (dsq_to_local(dsq))
		return true;
	/* Cleared before the second look, so that an insert in between sets it again. */
	__sync_lock_test_and_set(hint, 0);
	if (scx_bpf_dsq_nr_queued(dsq) > 0)
		WRITE_ONCE(*hint, 1);
	return false;
}

/* The same from DSQ_SHARED, where a permit inserts a little after it has said so. */
static __always_inline bool take_shared(u64 now)
{
	if (!READ_ONCE(core.shared))
		return false;
	if (dsq_to_local(DSQ_SHARED))
		return true;
	if (!is_stale(READ_ONCE(core.shared_at), now))
		return false;
	__sync_lock_test_and_set(&core.shared, 0);
	if (!is_stale(READ_ONCE(core.shared_at), now) || scx_bpf_dsq_nr_queued(DSQ_SHARED) > 0)
		WRITE_ONCE(core.shared, 1);
	return false;
}

/* The core's own queues: tasks pinned to this CPU and DSQ_CORE, by virtual time. */
__noinline int take_core(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	struct head pinned, shared;

	cc->served_at[SIDE_CORE] = now;
	if (READ_ONCE(cc->pinned) && core_waits(now) &&
	    head_of(DSQ_PINNED(cpu), &pinned) && head_of(DSQ_CORE, &shared) && before(shared.vtime, pinned.vtime) && dsq_to_local(DSQ_CORE))
		return 1;
	if (take_hinted(DSQ_PINNED(cpu), &cc->pinned))
		return 1;
	return dsq_to_local(DSQ_CORE);
}

/* The first of the tasks that are bound to this CPU, one of which comes next; see urge. */
__noinline int take_urgent(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	WRITE_ONCE(cc->urgent, 0);
	if (!take_hinted(DSQ_PINNED(cpu), &cc->pinned))
		return 0;
	cc->served_at[SIDE_CORE] = now;
	cc->next_side = SIDE_CORE;
	cc->next_n = SHARER;
	return 1;
}

/* What the agent has placed for this CPU or for any, in turns. */
__noinline int take_agents(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	cc->served_at[SIDE_AGENT] = now;
	if (cc->turn++ & 1)
		return take_hinted(DSQ_PLACED(cpu), &cc->placed) || take_shared(now);
	return take_shared(now) || take_hinted(DSQ_PLACED(cpu), &cc->placed);
}

/* Charges what ran since the last charge to its side. */
static __always_inline void charge_side(struct cpu_ctx *cc, u64 now)
{
	if (!cc->side_n)
		return;
	if (before(cc->charged_at, now))
		cc->clock[cc->side & 1] += (now - cc->charged_at) * SHARER / cc->side_n;
	cc->charged_at = now;
}

/*
 * How many tasks share what a side gets here, in parts of SHARER: its own queue, this CPU's part of the common
 * one, and the task that just ran, if it wants to go on: it is in no queue yet.
 */
static __always_inline u32 sharers(u64 own, u64 common, bool one_more)
{
	s32 here = scx_bpf_dsq_nr_queued(own), all = scx_bpf_dsq_nr_queued(common);
	u32 cpus_ = (u32)view.nr_online ?: 1;

	return ((here > 0 ? here : 0) + one_more) * SHARER + (all > 0 ? all : 0) * SHARER / cpus_;
}

/* Both sides have tasks. Which comes first? */
__noinline int first_side(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	u64 core_waits = now - cc->served_at[SIDE_CORE], agents_wait = now - cc->served_at[SIDE_AGENT];
	u64 *mine = &cc->clock[SIDE_CORE], *theirs = &cc->clock[SIDE_AGENT];
	struct head head;

	charge_side(cc, now);
	if (before(*mine, *theirs - SIDE_LAG_NS))
		*mine = *theirs - SIDE_LAG_NS;
	if (before(*theirs, *mine - SIDE_LAG_NS))
		*theirs = *mine - SIDE_LAG_NS;
	if (core_waits > SHARE_NS || agents_wait > SHARE_NS)
		return core_waits >= agents_wait ? SIDE_CORE : SIDE_AGENT;
	if (head_of(DSQ_CORE, &head) && head.reclaim)
		return SIDE_CORE;
	return before(*theirs, *mine) ? SIDE_AGENT : SIDE_CORE;
}

/* A task that dispatch has chosen begins to run, or ends. */
static __always_inline void start_side(struct cpu_ctx *cc, u64 now)
{
	cc->side_n = cc->next_n;
	cc->side = cc->next_side;
	cc->charged_at = now;
	cc->next_n = 0;
}

static __always_inline void stop_side(struct cpu_ctx *cc, u64 now)
{
	charge_side(cc, now);
	cc->side_n = 0;
}

/* One task for this CPU's local queue, if any waits that may run here. @again: the last one wants to go on. */
static __always_inline bool take_work(s32 cpu, u64 now, bool degraded, bool again)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);
	u32 side, n;

	cc->next_n = 0;
	cc->next_side = SIDE_AGENT;
	/* Parked tasks are a finite lot while degraded, and have waited longest: strictly first. */
	if (degraded && park_waits(now) && dsq_to_local(DSQ_PARK))
		return true;
	/* Mostly only one side has something, and then there is nothing to share. */
	if (!READ_ONCE(cc->pinned) && !core_waits(now))
		return take_agents(cpu, now);
	if (!READ_ONCE(cc->placed) && !READ_ONCE(core.shared)) {
		cc->next_side = SIDE_CORE;
		return take_core(cpu, now);
	}
	side = first_side(cpu, now);
	for (int i = 0; i < 2; i++, side ^= 1) {
		n = side == SIDE_CORE ? sharers(DSQ_PINNED(cpu), DSQ_CORE, again && cc->side == side) :
					sharers(DSQ_PLACED(cpu), DSQ_SHARED, again && cc->side == side);
		if (side == SIDE_CORE ? take_core(cpu, now) : take_agents(cpu, now)) {
			cc->next_side = side;
			cc->next_n = n ?: 1;
			return true;
		}
	}
	return false;
}
#endif
