/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Permits: a decision that holds for several wakeups.
 *
 * With a decision the policy may allow the core to do the same again when the task wakes up next: so many times, for so
 * long, with the same slice, and at a place in the policy's order that moves on as the task runs. No event is sent then,
 * and the agent gets no turn; the next event says how often the task was let in, how long it ran and how long it slept.
 * The end of a slice is always an event. One that was cut short, for the agent or for another task, has not ended: the task
 * goes on with the rest of it, where its place is by now. (Else each cut is an event, each event a turn of the agent, and
 * each turn a cut: half of all of hackbench's.)
 *
 * A permit ends with its count, its time, the agreement (whenever the core takes over), the next event, when the task has
 * another weight or cgroup than it was decided for, when anything changes about any cgroup, and whenever the agent says so: a word in its page, of which the permit has kept the value. There is no message that could come late:
 * once the agent has changed the word, no wakeup is let in.
 */
#ifndef QUMUN_PERMIT_H
#define QUMUN_PERMIT_H
#include "events.h"
#include "near.h"
#include "sides.h"

static __always_inline u32 revoked(s32 pid)
{
	return (u32)(READ_ONCE(agent.revoked_all) + READ_ONCE(agent.revoked[(u32)pid & (QM_REVOKE_WORDS - 1)]));
}

static __always_inline bool has_permit(struct task_struct *p, struct task_ctx *t, bool woke, u64 now)
{
	if (!t->permit || (!woke && t->left < REST_NS))
		return false;
	if (t->permit_epoch == permit_epoch() && before(now, t->permit_until) && t->permit_mark == revoked(p->pid) &&
	    t->permit_weight == p->scx.weight)
		return true;
	t->permit = 0;
	return false;
}

/* May a slice be cut here for a task that wakes up? As often as slices are cut for the agent, on each CPU. */
static __always_inline bool may_cut(struct cpu_ctx *cc, u64 now)
{
	u64 cut = READ_ONCE(cc->cut_at), paid = before(cut, now) ? now : cut;

	if (paid - now > (PREEMPT_BURST - 1) * config.preempt_ns)
		return false;
	WRITE_ONCE(cc->cut_at, paid + config.preempt_ns);
	return true;
}

struct way {
	u64 slice;
	u64 flags;
	u64 now;
	bool warm; /* it has run here and wakes up */
};

/*
 * To an idle CPU, where its cache is warm or near it, if there is one. The kernel wakes that CPU; the queue for all would
 * be served by whoever looks first. Claimed, as our view lags: of two tasks that wake up at once for one CPU, the second
 * would wait there for a slice while others are idle.
 */
static __noinline int insert_idle(struct task_struct *p, s32 cpu, struct way *way)
{
	s32 near;

	if (cpu_is_idle(cpu) && cpu_open(cpu) && scx_bpf_test_and_clear_cpu_idle(cpu)) {
		dsq_insert(p, SCX_DSQ_LOCAL, way->slice, way->flags);
		return 1;
	}
	if (!any_idle())
		return 0;
	near = near_cpu(p, cpu, way->warm, way->now);
	if (near < 0 || !cpu_open(near))
		return 0;
	dsq_insert(p, SCX_DSQ_LOCAL_ON | near, way->slice, way->flags);
	return 1;
}

/* Lets a task in that has woken up, or whose slice was cut short. @alone: nothing else waits for its CPU, the only one there is. */
static __always_inline void let_in(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, bool alone, u64 now)
{
	bool woke = flags & SCX_ENQ_WAKEUP;
	struct way way = { .flags = flags, .now = now, .warm = woke };
	struct cpu_ctx *cc = cpu_ctx(cpu);

	if (woke) {
		t->left = t->permit_slice;
		count()->permitted++;
	} else {
		count()->resumed++;
	}
	way.slice = t->left;
	t->permit--;
	t->permitted++;
	t->placed_at = now;
	t->order = t->permit_flags & QM_PERMIT_CLOCK ? now : t->permit_vtime + (t->ran * t->permit_rate >> 10);
	if (insert_idle(p, cpu, &way))
		return;
	if (alone && woke) {
		dsq_insert(p, SCX_DSQ_LOCAL, way.slice, flags);
		return;
	}
	/* Before whom has its place far behind: nobody else would cut that one's slice. */
	if (woke && (t->permit_flags & QM_PERMIT_CUTS) && READ_ONCE(core.agent_cpu) != cpu && cpu_open(cpu) && READ_ONCE(cc->order) &&
	    before(t->order + CUT_LEAD_NS, READ_ONCE(cc->order)) && may_cut(cc, now)) {
		count()->preempts++;
		WRITE_ONCE(cc->given, 1);
		WRITE_ONCE(cc->next_side, SIDE_AGENT);
		WRITE_ONCE(cc->next_n, SHARER);
		dsq_insert(p, SCX_DSQ_LOCAL, way.slice, flags | SCX_ENQ_PREEMPT);
		return;
	}
	shared_filled(now);
	dsq_insert_vtime(p, DSQ_SHARED, way.slice, t->order, flags);
	kick_for(p, cpu);
}
#endif
