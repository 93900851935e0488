/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Bounded waits that no policy, and no queue of the core's, can break.
 */
#ifndef QUMUN_RESCUE_H
#define QUMUN_RESCUE_H
#include "events.h"
#include "sides.h"

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
			if (!t || (s64)(now - t->placed_at) <= (s64)RESCUE_AFTER_NS)
				continue;
			core_filled(now);
			if (dsq_move_vtime(&it, p, DSQ_CORE, config.slice_ns, settle_vtime(t)))
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
	return core_waits(now) && rescue_queued(DSQ_CORE, cpu, now);
}
#endif
