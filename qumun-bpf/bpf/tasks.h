/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The life of a task under our care: it comes, changes, leaves a queue for a reason of its own, and goes.
 */
#ifndef QUMUN_TASKS_H
#define QUMUN_TASKS_H
#include "cgroups.h"

/*
 * A task comes under our care: it was forked, or the scheduler was loaded. May sleep, so the state is
 * allocated as any memory is and not from what happens to be free.
 */
SEC("struct_ops.s/qumun_init_task")
int qumun_init_task(u64 *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	struct scx_init_task_args *args = (struct scx_init_task_args *)ctx[1];
	struct task_ctx *t = bpf_task_storage_get(&qm_tasks, p, NULL, BPF_LOCAL_STORAGE_CREATE), *from;
	struct task_struct *parent;
	struct qm_event *e;
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
	parent = bpf_get_current_task_btf();
	from = bpf_task_storage_get(&qm_tasks, parent, NULL, 0);
	if ((LIMITS || SUBSCRIBED(QM_EVENT_CGROUPS)) && FIELD_HAS(args->cgroup))
		t->group = slot_by_id(args->cgroup->kn->id, from ? from->group : 0);
	t->safe = args->fork;
	if (!args->fork)
		return 0;
	/* Threads and processes get what was set for their parent here, before they can run. */
	if (from && (from->label || from->slice_ns)) {
		t->label = from->label;
		t->slice_ns = from->slice_ns;
		count()->inherited++;
	}
	if (SUBSCRIBED(QM_EVENT_FORK)) {
		e = note(QM_EVENT_FORK, p, t);
		if (e) {
			e->waker = parent->pid;
			event_submit(e);
		}
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
	struct task_ctx *t = task_ctx(p);

	if (!t)
		return;
	share_ends(t);
	if (end_event(t))
		count()->ev_cancelled++;
}

/* Loaded only for policies that subscribe. */
OPS2(void, set_weight, struct task_struct *, p, u32, weight)
{
	if (SUBSCRIBED(QM_EVENT_WEIGHT))
		note_task(QM_EVENT_WEIGHT, p);
}

OPS2(void, set_cpumask, struct task_struct *, p, const struct cpumask *, mask)
{
	if (SUBSCRIBED(QM_EVENT_AFFINITY))
		note_task(QM_EVENT_AFFINITY, p);
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
		if (config.dedicated)
			view.dedicated = 0;
		latch_fall(now_ns(), QM_REASON_EXIT);
		return;
	}
	e = note(QM_EVENT_EXIT, p, t);
	if (e)
		event_submit(e);
}
#endif
