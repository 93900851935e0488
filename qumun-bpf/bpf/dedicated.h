/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A CPU for the agent alone (config.dedicated): its thread is bound to that CPU, polls the events and never sleeps.
 *
 * What that changes. Nobody has to get a CPU for the agent, and a decision takes no switch: the task's event is read while
 * the CPU that sent it goes on. What no turn of the agent does any more is the rest of this file:
 *
 * - Decisions are seen by whoever dispatches. A CPU that is idle does not, so the agent wakes it (qumun_wake), once a
 *   batch and only where our view says idle. Both sides write first and look then, with a full barrier in between: either
 *   the agent sees the CPU idle, or the CPU sees the decision (update_idle).
 * - A task whose slice ends has a place in the policy's order that only the agent knows (competes). It is queued, the agent
 *   is asked, and its CPU is idle for the moment until the answer wakes it: cpu_ctx.asked. The answer may also come before
 *   the CPU is idle: whoever applies it takes the word away, and the CPU does not wait then. If none comes, the timer ends it.
 * - A slice is cut for who wakes up, as it is for the agent elsewhere: so often, on the task's CPU (make_way). The agent
 *   decides meanwhile on another one.
 *
 * The agent's CPU takes nobody but tasks that are bound to it, which run there at once, and whom nobody else serves. While
 * the core decides it is a CPU like any other, and the agent gets its bounded turn: so an agent that is stopped or dead
 * costs no CPU. When it goes offline, or the agent's thread is somewhere else, the agent is one like any other until the next
 * one says hello.
 */
#ifndef QUMUN_DEDICATED_H
#define QUMUN_DEDICATED_H
#include "activation.h"
#include "permit.h"
#include "rescue.h"

/* Were decisions published that nobody has taken? Whatever the agent says, what is asked here for can be taken. */
static __always_inline bool decisions_wait(void)
{
	u64 there = READ_ONCE(decision_array.published) - READ_ONCE(event_array.taken);

	return there && there <= QM_DECISION_SLOTS;
}

/* Tasks about which no agent is ever asked, wherever they may run. */
static __always_inline bool never_asked(struct task_struct *p, struct task_ctx *t)
{
	return t->reclaim || p->tgid == view.agent_tgid || (OPTION(EARLY_KTHREADS) && (p->flags & PF_KTHREAD));
}

/* Is the agent at work on its own CPU, so that a question is answered soon? */
static __always_inline bool agent_at_hand(void)
{
	return is_dedicated() && READ_ONCE(core.agent_cpu) >= 0;
}

/* A CPU that waited for an answer looks for work itself. */
static __always_inline void not_asking(s32 cpu, struct cpu_ctx *cc)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	WRITE_ONCE(cc->asked, 0);
	/* As in cpu_usable. */
	asm volatile("" : "+r"(c));
	if (READ_ONCE(view.asking[c / 64]) >> (c & 63) & 1)
		__sync_fetch_and_and(&view.asking[c / 64], ~(1ULL << (c & 63)));
}

/* What runs on the agent's own CPU beside it: what is bound to it, or was sent there before, and who waits too long. */
__noinline int take_own(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	cc->next_n = 0;
	if (take_hinted(DSQ_PINNED(cpu), &cc->pinned) || take_hinted(DSQ_PLACED(cpu), &cc->placed))
		return 1;
	if (now - cc->rescued_at <= RESCUE_EVERY_NS)
		return 0;
	cc->rescued_at = now;
	return rescue_queued(DSQ_SHARED, cpu, now) || rescue_queued(DSQ_CORE, cpu, now);
}

/* The agent's own CPU wants work. Returns whether somebody was chosen who waited. */
static __always_inline bool dispatch_own(s32 cpu, struct task_struct *prev, bool prev_is_agent, bool goes_on, u64 now)
{
	u64 taken = READ_ONCE(event_array.taken) + 1;

	/* Decisions that no other CPU took for a whole slice: they run for long. */
	if (taken == core.own_taken && decisions_wait())
		take_decisions(cpu, now, 0);
	core.own_taken = taken;
	if (!prev_is_agent && core.agent_queued && dsq_to_local(DSQ_AGENT)) {
		core.crowd = core.crowd && scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0;
		core.agent_queued = core.crowd;
		return true;
	}
	if (take_own(cpu, now))
		return true;
	if (prev_is_agent) {
		if (!(prev->scx.flags & SCX_TASK_QUEUED))
			return false;
		core.agent_ran_at = now;
		view.agent_ran_at = now;
		set_slice(prev, AGENT_SLICE_NS);
	} else if (goes_on && !runs_dry(prev, now)) {
		count()->kept++;
		set_slice(prev, config.slice_min_ns);
	}
	return false;
}

/* The agent waits for its own CPU, which is idle: the latch was lifted after that CPU had looked. */
static __always_inline void wake_own(void)
{
	s32 cpu = (s32)READ_ONCE(view.dedicated) - 1;

	if (!core.agent_queued || !cpu_is_idle(cpu) || !cpu_usable(cpu) || !may_kick())
		return;
	count()->kicks++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
}

/* A task has woken up and its CPU is busy: that CPU is there for the answer. As often as slices are cut for the agent. */
static __always_inline void make_way(s32 cpu, u64 now)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	if (any_idle() || !cpu_open(cpu) || READ_ONCE(cc->given) || !may_kick() || !may_cut(cc, now))
		return;
	WRITE_ONCE(cc->called, 1);
	count()->preempts++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
}

/*
 * Does somebody wait on any CPU, or did so lately? Elsewhere the agent's turns come to all CPUs then, and who runs there is asked
 * about: four equal tasks on three CPUs would else have a CPU each, but for two.
 */
static __always_inline bool rivals_wait(u64 now)
{
	return now - READ_ONCE(core.waited_at) < 2 * config.slice_ns;
}

/*
 * Has a task that wants to go on to be asked about first? @called: its slice was cut for another one, about which the agent
 * is asked now. @waits: others wait for the same CPU. What is the core's own has an order of its own, see sides.h.
 */
static __always_inline bool asks_first(struct task_struct *prev, struct cpu_ctx *cc, bool called, bool waits, u64 now)
{
	struct task_ctx *t;

	if (!agent_at_hand() || !(called || waits || rivals_wait(now)) || READ_ONCE(cc->pinned) || core_waits(now) || runs_dry(prev, now))
		return false;
	t = task_ctx(prev);
	return t && !never_asked(prev, t);
}
#endif
