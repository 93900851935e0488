/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Weights of cgroups, where the core decides: in kernel mode, and while it has taken over.
 *
 * There is one order for all tasks. What a task runs moves it there by its weight, and that is its part of its cgroup's,
 * which has its part of the cgroup's above, and so on: the tree of weights is made flat for each charge, from who is
 * runnable now. (As the kernel's fair class does with a tree of queues; flat because our queues are, and because a place in
 * one order needs no walk to be found.) A tree of one level is the plain rule.
 *
 * So for each cgroup the core adds up the weights of those who compete directly in it: its runnable tasks and the cgroups
 * below with any. A task is counted when it is enqueued, until it sleeps. In normal mode nobody counts, since the policy
 * has its own order; each time the latch falls counting begins anew, and until a task is counted its own weight holds.
 */
#ifndef QUMUN_SHARES_H
#define QUMUN_SHARES_H
#include "state.h"

/* Nobody is counted, from here on. For one CPU only: whoever made the latch fall. */
static __always_inline void shares_begin(void)
{
	int i;

	/* One that counts just now adds to the old count or to the new one: at worst a weight too much, until the next time. */
	core.shares = core.shares + 1 ?: 1;
	core.rivals = 0;
	FOR(i, QM_MAX_CGROUPS) {
		struct group *g = &groups[i & (QM_MAX_CGROUPS - 1)];

		if (i >= core.slots)
			break;
		g->rivals = 0;
		g->competing = 0;
	}
}

static __always_inline bool is_counted(struct task_ctx *t)
{
	return t->counted && t->counted == READ_ONCE(core.shares);
}

/* A task of this weight is runnable in a cgroup: there are more who compete in it, and if it is the first, in the one above. */
__noinline int count_in(u32 slot, u32 weight)
{
	__sync_fetch_and_add(&core.rivals, weight);
	for (int i = 0; i < CGROUP_DEPTH; i++) {
		struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];

		__sync_fetch_and_add(&g->rivals, weight);
		if (__sync_fetch_and_add(&g->competing, 1) || !slot)
			break;
		weight = READ_ONCE(cgroups[slot & (QM_MAX_CGROUPS - 1)].weight);
		WRITE_ONCE(g->weight, weight);
		slot = cgroups[slot & (QM_MAX_CGROUPS - 1)].above;
	}
	return 0;
}

/* It is not any more. */
__noinline int count_out(u32 slot, u32 weight)
{
	__sync_fetch_and_add(&core.rivals, -(s64)weight);
	for (int i = 0; i < CGROUP_DEPTH; i++) {
		struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];

		__sync_fetch_and_add(&g->rivals, -(s64)weight);
		if (__sync_fetch_and_add(&g->competing, -1) != 1 || !slot)
			break;
		/* With the weight with which it came. */
		weight = READ_ONCE(g->weight);
		slot = cgroups[slot & (QM_MAX_CGROUPS - 1)].above;
	}
	return 0;
}

/* A cgroup has another weight. */
static __always_inline void reweigh(u32 slot, u32 weight)
{
	struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];
	u32 was = READ_ONCE(g->weight);

	if (!slot || READ_ONCE(g->competing) <= 0)
		return;
	WRITE_ONCE(g->weight, weight);
	__sync_fetch_and_add(&groups[cgroups[slot & (QM_MAX_CGROUPS - 1)].above & (QM_MAX_CGROUPS - 1)].rivals,
			     (s64)weight - was);
}

static __always_inline void share_begins(struct task_struct *p, struct task_ctx *t)
{
	if (view.nr_cgroups <= 1 || is_counted(t))
		return;
	t->counted = READ_ONCE(core.shares);
	t->counted_weight = p->scx.weight;
	count_in(t->group, t->counted_weight);
}

static __always_inline void share_ends(struct task_ctx *t)
{
	if (is_counted(t))
		count_out(t->group, t->counted_weight);
	t->counted = 0;
}

static __always_inline u64 at_least(s64 n, u64 least)
{
	return n > (s64)least ? n : least;
}

/*
 * The weight of a task of this one in this cgroup, in the flat order, in parts of 1024: its part of all, times the weights of
 * all. So where all are in one cgroup it is its own weight.
 */
__noinline u64 flat_weight(u32 slot, u32 weight)
{
	u64 part = (at_least(READ_ONCE(core.rivals), weight) * weight) << 10;
	u64 own = weight;

	for (int i = 0; i < CGROUP_DEPTH; i++) {
		struct group *g = &groups[slot & (QM_MAX_CGROUPS - 1)];

		part /= at_least(READ_ONCE(g->rivals), own ?: 1);
		if (!slot)
			break;
		own = READ_ONCE(g->weight);
		part *= own;
		slot = cgroups[slot & (QM_MAX_CGROUPS - 1)].above;
	}
	return part ?: 1;
}
#endif
