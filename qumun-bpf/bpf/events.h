/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the core tells the agent: tasks that wait for a decision, and, to a policy that subscribes, what else
 * happens to tasks and cgroups.
 */
#ifndef QUMUN_EVENTS_H
#define QUMUN_EVENTS_H
#include "custody.h"

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

static __always_inline u64 cgroup_id(struct task_struct *p)
{
	return p->cgroups->dfl_cgrp->kn->id;
}

/* The kernel's own number of the task, never used twice; 0 where it has none. */
static __always_inline u64 task_id(struct task_struct *p)
{
	return FIELD_HAS(p->scx.tid) ? p->scx.tid : 0;
}

/*
 * Tells the agent something that needs no answer. Not while degraded: an agent that is late has enough
 * to read, and whatever it missed stands in the next event of the task. What a policy did not subscribe
 * to is no code at all: the settings are constants to the verifier.
 */
static __always_inline struct qm_event *note(u32 kind, struct task_struct *p, struct task_ctx *t)
{
	struct qm_event *e;

	if (!is_normal() || view.exited)
		return NULL;
	e = event_reserve();
	if (!e) {
		if (kind == QM_EVENT_EXIT)
			count()->exit_dropped++;
		else
			count()->notes_dropped++;
		return NULL;
	}
	__builtin_memset(e, 0, sizeof(*e));
	e->kind = kind;
	e->enqueued_at = now_ns();
	e->epoch = view.epoch;
	if (p) {
		e->pid = p->pid;
		e->tgid = p->tgid;
		e->cpu = scx_bpf_task_cpu(p);
		e->weight = p->scx.weight;
		e->allowed = p->cpus_ptr->bits[0];
		e->nr_cpus_allowed = p->nr_cpus_allowed;
		e->flags = p->flags & PF_KTHREAD ? QM_EVENT_KTHREAD : 0;
		e->tid = task_id(p);
		__builtin_memcpy(e->comm, p->comm, sizeof(e->comm));
	}
	if (t) {
		/* The last one that the agent was told: a newer task of the same pid has a larger one. */
		e->generation = READ_ONCE(t->custody) >> STATE_BITS;
		e->label = t->label;
		e->vtime = t->vtime;
		e->exec_runtime = t->exec_runtime;
	}
	count()->notes_sent++;
	return e;
}

static __always_inline void note_task(u32 kind, struct task_struct *p)
{
	struct qm_event *e;

	if (p->pid == view.agent_pid)
		return;
	e = note(kind, p, task_ctx(p));
	if (!e)
		return;
	event_submit(e);
}

/* Parks the task and sends the event. Returns false when the ring is full. */
static __always_inline bool offer(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 flags, u64 now)
{
	struct cpu_ctx *here = cpu_ctx(this_cpu());
	struct qm_event *e;

	e = event_reserve();
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
	e->ran_ns = t->ran;
	e->slept_ns = t->slept;
	e->permitted = t->permitted;
	e->reserved = 0;
	t->ran = 0;
	t->slept = 0;
	t->permitted = 0;
	t->permit = 0;
	e->epoch = view.epoch;
	e->flags = (t->sampled ? QM_EVENT_SAMPLED : 0) | (flags & SCX_ENQ_WAKEUP ? QM_EVENT_WAKEUP : 0) |
		   (p->flags & PF_KTHREAD ? QM_EVENT_KTHREAD : 0);
	e->kind = QM_EVENT_QUEUED;
	e->cgroup_weight = 100;
	e->cpu_cgroup_id = 0;
	if (SUBSCRIBED(QM_EVENT_CGROUPS)) {
		e->cgroup_weight = cgroups[t->group & (QM_MAX_CGROUPS - 1)].weight;
		e->cpu_cgroup_id = cgroups[t->group & (QM_MAX_CGROUPS - 1)].id;
	}
	e->label = t->label;
	e->tid = task_id(p);
	e->born = p->start_boottime;
	e->process_born = process_born(p);
	__builtin_memcpy(e->comm, p->comm, sizeof(e->comm));
	dsq_insert_vtime(p, DSQ_PARK, config.slice_ns, t->vtime, flags);
	count()->ev_sent++;
	event_submit(e);
	return true;
}
#endif
