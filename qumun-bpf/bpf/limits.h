/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Limits of cgroups (cpu.max), where the kernel tells them.
 *
 * Each limited cgroup has a budget. A period that is over adds the quota; what a task runs is taken away, from its cgroup
 * and all above it, by the clock: at each tick and when it stops. So a budget may fall below zero, by a tick on each CPU,
 * and the next periods pay that back: over time a cgroup gets its quota, not a tick more.
 *
 * A task whose cgroup, or one above it, has nothing left waits in DSQ_THROTTLED, which is no business of the agent's:
 * there is no event to be late. It waits there from its next enqueue on; one that is put on a CPU from another queue is
 * taken off again at once. dispatch and the timer let tasks out. What has waited for LIMIT_WAIT_NS is let out in any
 * case, for one run, or the kernel's watchdog would remove the scheduler for the sake of a limit.
 *
 * A task in the kernel may hold a lock that anybody waits for: the file that every process maps, the one that every fork
 * takes. (Seen: no fork in the whole machine for 4 s, because one of twenty tasks that shared 0.1 % of a CPU was held
 * back while it mapped a file.) So only a task is held back that a tick has found in user space, that slept as user
 * space asks for it, interruptibly, or that is new. The others have LIMIT_KERNEL_TICKS to get there.
 */
#ifndef QUMUN_LIMITS_H
#define QUMUN_LIMITS_H
#include "events.h"

#define LIMITS (!OPTION(NO_LIMITS))

/* Adds the quota of the periods that are over. */
static __always_inline void refill(struct group *g, u64 now)
{
	u64 at = READ_ONCE(g->refilled_at), period = READ_ONCE(g->period), n;
	s64 left, add;

	if (!period || (s64)(now - at) < (s64)period)
		return;
	n = (now - at) / period;
	/* One CPU adds them. */
	if (__sync_val_compare_and_swap(&g->refilled_at, at, at + n * period) != at)
		return;
	if (n > 65536)
		n = 65536;
	left = READ_ONCE(g->budget);
	add = n * g->quota;
	if (left + add > (s64)g->most)
		add = (s64)g->most - left;
	if (left + add < -(s64)g->debt)
		add = -(s64)g->debt - left;
	__sync_fetch_and_add(&g->budget, add);
}

/*
 * Charges a run from @from to @now to a cgroup and all above it. Returns how many slices the tightest of them has left,
 * RELEASE_TASKS at most; 0: nothing.
 */
__noinline int spend(u32 slot, u64 from, u64 now)
{
	s64 room = RELEASE_TASKS;

	for (int i = 0; i < CGROUP_DEPTH; i++) {
		struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];

		if (READ_ONCE(g->quota)) {
			u64 since = READ_ONCE(g->since), ran = now - (before(from, since) ? since : from);
			s64 left;

			refill(g, now);
			if ((s64)ran > 0)
				__sync_fetch_and_add(&g->budget, -(s64)ran);
			left = READ_ONCE(g->budget);
			if (left <= 0)
				room = 0;
			else if ((u64)left < config.slice_ns * RELEASE_TASKS && (s64)((u64)left / config.slice_ns) + 1 < room)
				room = (u64)left / config.slice_ns + 1;
		}
		if (!slot)
			break;
		slot = g->parent;
	}
	return room;
}

/* Is it one that limits may hold back? The agent's process and the kernel's threads have work to do for others, and
 * whoever is on its way out is gone soon. */
static __always_inline bool is_limited(struct task_struct *p)
{
	return LIMITS && READ_ONCE(view.nr_limits) && !(p->flags & (PF_KTHREAD | PF_EXITING)) &&
	       p->tgid != view.agent_tgid;
}

/* Has the cgroup of a task that does not run nothing left? */
static __always_inline bool is_dry(struct task_struct *p, struct task_ctx *t, u64 now)
{
	return is_limited(p) && !t->pass && !spend(t->group, now, now);
}

/* Charges a task that runs. Returns whether its cgroup has nothing left. */
static __always_inline bool charge(struct task_ctx *t, u64 now)
{
	u64 from = t->charged_at;

	if (before(from, t->started_at))
		from = t->started_at;
	t->charged_at = now;
	return !spend(t->group, from, now);
}

/* Must a task make room that has used up its slice? */
static __always_inline bool runs_dry(struct task_struct *p, u64 now)
{
	struct task_ctx *t;

	if (!is_limited(p))
		return false;
	t = task_ctx(p);
	return t && t->started_at && charge(t, now) && t->safe;
}

/* The same at a tick. One that was let out may use its slice, which is short. */
static __always_inline bool ticks_dry(struct task_struct *p, u64 now)
{
	struct task_ctx *t;
	bool user;

	if (!is_limited(p))
		return false;
	t = task_ctx(p);
	if (!t || !t->started_at)
		return false;
	user = was_in_user_space(p, &t->utime);
	if (!charge(t, now)) {
		t->dry_ticks = 0;
		return false;
	}
	if (user || ++t->dry_ticks > LIMIT_KERNEL_TICKS)
		t->safe = 1;
	return t->safe && !t->pass;
}

/* It begins to run. Must it make room at once, because it was queued before its cgroup had used up its limit? */
static __always_inline bool starts_dry(struct task_struct *p, struct task_ctx *t, u64 now)
{
	if (!LIMITS)
		return false;
	if (t->safe && is_dry(p, t, now))
		return true;
	t->safe = 0;
	return false;
}

/* It stops. */
static __always_inline void stop_charged(struct task_struct *p, struct task_ctx *t, bool runnable, u64 now)
{
	if (!LIMITS)
		return;
	if (!runnable)
		t->safe = !(p->__state & TASK_UNINTERRUPTIBLE);
	if (READ_ONCE(view.nr_limits)) {
		charge(t, now);
		t->pass = 0;
	}
}

/* Holds a task back if its cgroup has nothing left. */
static __always_inline bool throttle(struct task_struct *p, struct task_ctx *t, u64 flags, u64 now)
{
	u32 slot = t->group & (QM_MAX_CGROUPS - 1);

	if (!LIMITS || !t->safe || !is_dry(p, t, now))
		return false;
	t->placed_at = now;
	t->dry_ticks = 0;
	count()->throttled++;
	dsq_insert(p, DSQ_THROTTLED(slot), own_slice(t), flags);
	/* In this order, see forget: the task is in the queue only after we have returned. */
	WRITE_ONCE(groups[slot].held_at, now);
	__sync_fetch_and_or(&held[slot / 64], 1ULL << (slot & 63));
	if (!READ_ONCE(core.held))
		__sync_lock_test_and_set(&core.held, 1);
	return true;
}

/* Nobody is held back in this cgroup any more. */
static __always_inline void forget(u32 slot, u64 now)
{
	struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];
	u64 *word = &held[slot / 64 & (QM_MAX_CGROUPS / 64 - 1)];

	if (scx_bpf_dsq_nr_queued(DSQ_THROTTLED(slot)) > 0 || (s64)(now - READ_ONCE(g->held_at)) <= (s64)LIMIT_WAIT_NS)
		return;
	__sync_fetch_and_and(word, ~(1ULL << (slot & 63)));
	/* One that came meanwhile has set the time before the bit. */
	if ((s64)(now - READ_ONCE(g->held_at)) <= (s64)LIMIT_WAIT_NS)
		__sync_fetch_and_or(word, 1ULL << (slot & 63));
}

/* Where a task goes on that is let out: it is the core's for one run. */
static __always_inline bool let_out(struct bpf_iter_scx_dsq *it, struct task_struct *p, struct task_ctx *t)
{
	u64 slice = t->pass ? config.slice_min_ns : own_slice(t);
	s32 cpu = scx_bpf_task_cpu(p);
	struct cpu_ctx *cc = cpu_ctx(cpu);

	if (p->nr_cpus_allowed != 1 || config.nr_cpu_ids == 1) {
		core_filled(t->placed_at);
		if (!dsq_move_vtime(it, p, DSQ_CORE, slice, settle_vtime(t)))
			return false;
		kick_for(p, cpu);
		return true;
	}
	if (!cpu_usable(cpu))
		return dsq_move(it, p, SCX_DSQ_GLOBAL, slice);
	if (!dsq_move_vtime(it, p, DSQ_PINNED(cpu), slice, settle_vtime(t)))
		return false;
	__sync_lock_test_and_set(&cc->pinned, 1);
	kick_if_idle(cpu);
	return true;
}

/* Lets out as many tasks of a cgroup as it has slices left, and whoever has waited for too long. */
__noinline int release_group(u32 slot, u64 now)
{
	int room = spend(slot, now, now), i;
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *t;

	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, DSQ_THROTTLED(slot), 0)) {
		FOR(i, RELEASE_TASKS) {
			u64 since;
			bool late;

			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			t = task_ctx(p);
			if (!t)
				break;
			since = t->placed_at;
			late = (s64)(now - since) > (s64)LIMIT_WAIT_NS;
			/* The oldest come first. */
			if (i >= room && !late)
				break;
			/* Before the move: it may run at once. */
			t->pass = !room;
			t->placed_at = now;
			if (let_out(&it, p, t)) {
				count()->throttled_ns += now - since;
				if (!room)
					count()->limit_overruns++;
			}
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
	forget(slot, now);
	return 0;
}

/* The cgroups of one word of held[]. */
__noinline int release_word(u32 at, u64 now)
{
	u64 word = READ_ONCE(held[at & (QM_MAX_CGROUPS / 64 - 1)]);
	int bit;

	if (!word)
		return 0;
	FOR(bit, 64) {
		if (!(word >> (bit & 63) & 1))
			continue;
		/* Counted in memory, so that the verifier sees one loop and not one state per count. */
		WRITE_ONCE(core.release_seen, READ_ONCE(core.release_seen) + 1);
		release_group((at & (QM_MAX_CGROUPS / 64 - 1)) * 64 + (bit & 63), now);
	}
	return 1;
}

/* Some cgroups in which tasks are held back, in turn. */
__noinline int release_some(u64 now)
{
	u64 last = core.released_at;
	u32 at;
	int i;

	if (now - last < RELEASE_EVERY_NS || __sync_val_compare_and_swap(&core.released_at, last, now) != last)
		return 0;
	at = core.release_word;
	WRITE_ONCE(core.release_seen, 0);
	FOR(i, QM_MAX_CGROUPS / 64) {
		u32 w = (at + i) & (QM_MAX_CGROUPS / 64 - 1);

		if (READ_ONCE(core.release_seen) < RELEASE_GROUPS) {
			release_word(w, now);
		} else if (READ_ONCE(held[w])) {
			core.release_word = w;
			return 1;
		}
	}
	if (READ_ONCE(core.release_seen))
		return 1;
	/* None: in this order, see throttle. */
	__sync_lock_test_and_set(&core.held, 0);
	FOR(i, QM_MAX_CGROUPS / 64) {
		if (READ_ONCE(held[i & (QM_MAX_CGROUPS / 64 - 1)]))
			WRITE_ONCE(core.held, 1);
	}
	return 0;
}

static __always_inline void release(u64 now)
{
	if (LIMITS && READ_ONCE(core.held))
		release_some(now);
}

/* Sets a limit as the table shows it. It begins with a whole quota. */
static __always_inline void set_limit(u32 slot, u32 above, struct qm_cgroup *c)
{
	struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];
	/* 2^30 us are 18 minutes: the products below stay far from 2^63. */
	u64 most = 1ULL << 30, quota = (c->quota_us < most ? c->quota_us : most) * 1000;
	u64 period = (c->period_us < most ? c->period_us : most) * 1000;
	u64 burst = (c->burst_us < most ? c->burst_us : most) * 1000, now = now_ns();

	if (g->quota)
		__sync_fetch_and_add(&view.nr_limits, -1);
	/* Off while it changes. */
	__sync_lock_test_and_set(&g->quota, 0);
	g->parent = above;
	if (!quota || !period)
		return;
	g->period = period;
	g->refilled_at = now;
	g->since = now;
	g->most = quota + burst + quota * (LIMIT_CARRY_NS / 1000) / (period / 1000);
	g->debt = quota + quota * (LIMIT_DEBT_NS / 1000000) / (period / 1000000 ?: 1);
	g->budget = quota;
	__sync_lock_test_and_set(&g->quota, quota);
	__sync_fetch_and_add(&view.nr_limits, 1);
}
#endif
