/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * cgroups: what their cpu controller is set to, for policies that subscribe. Without a subscriber none of
 * this is loaded.
 */
#ifndef QUMUN_CGROUPS_H
#define QUMUN_CGROUPS_H
#include "events.h"

/* Tells the agent what a cgroup's cpu controller is set to now. */
static __always_inline void note_cgroup(struct cgroup *cgrp, struct cgroup_ctx *c)
{
	struct qm_event *e = note(QM_EVENT_CGROUP_WEIGHT, NULL, NULL);

	if (!e)
		return;
	e->cgroup_id = cgrp->kn->id;
	e->cgroup_weight = c->weight;
	/* Of the limit: microseconds of each period, and the period; 0 for no limit. */
	e->exec_runtime = c->quota_us;
	e->vtime = c->period_us;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline struct cgroup_ctx *cgroup_ctx(struct cgroup *cgrp)
{
	return bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, 0);
}

SEC("struct_ops.s/qumun_cgroup_init")
int qumun_cgroup_init(u64 *ctx)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0];
	struct scx_cgroup_init_args *args = (struct scx_cgroup_init_args *)ctx[1];
	struct cgroup_ctx *c = bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, BPF_LOCAL_STORAGE_CREATE);

	if (!c)
		return -12; /* ENOMEM */
	c->weight = args->weight;
	if (FIELD_HAS(args->bw_quota_us)) {
		c->quota_us = args->bw_quota_us == ~0ULL ? 0 : args->bw_quota_us;
		c->period_us = args->bw_period_us;
	}
	__sync_fetch_and_add(&view.nr_cgroups, 1);
	if (SUBSCRIBED(QM_EVENT_CGROUP_WEIGHT))
		note_cgroup(cgrp, c);
	return 0;
}

SEC("struct_ops.s/qumun_cgroup_exit")
int qumun_cgroup_exit(u64 *ctx)
{
	/* The storage goes with the cgroup. */
	__sync_fetch_and_add(&view.nr_cgroups, -1);
	return 0;
}

/* A move is announced, and then happens or not; no policy has a say in it. */
SEC("struct_ops.s/qumun_cgroup_prep_move")
int qumun_cgroup_prep_move(u64 *ctx)
{
	struct task_ctx *t = bpf_task_storage_get(&qm_tasks, (struct task_struct *)ctx[0], NULL, 0);

	if (t)
		t->moving = 1;
	return 0;
}

OPS3(void, cgroup_move, struct task_struct *, p, struct cgroup *, from, struct cgroup *, to)
{
	struct task_ctx *t = task_ctx(p);
	struct qm_event *e;

	if (t)
		t->moving = 0;
	if (!SUBSCRIBED(QM_EVENT_CGROUP) || p->pid == view.agent_pid)
		return;
	e = note(QM_EVENT_CGROUP, p, t);
	if (!e)
		return;
	e->cgroup_id = to->kn->id;
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

OPS3(void, cgroup_cancel_move, struct task_struct *, p, struct cgroup *, from, struct cgroup *, to)
{
	struct task_ctx *t = task_ctx(p);

	if (t)
		t->moving = 0;
}

OPS2(void, cgroup_set_weight, struct cgroup *, cgrp, u32, weight)
{
	struct cgroup_ctx *c = cgroup_ctx(cgrp);

	if (!c)
		return;
	c->weight = weight;
	if (SUBSCRIBED(QM_EVENT_CGROUP_WEIGHT))
		note_cgroup(cgrp, c);
}

/* Kernels that tell it leave the limit to the scheduler; we pass it on, and say in `status` that it is not
 * enforced unless the policy does. */
SEC("struct_ops/qumun_cgroup_set_bandwidth")
int qumun_cgroup_set_bandwidth(u64 *ctx)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0];
	struct cgroup_ctx *c = cgroup_ctx(cgrp);

	if (!c)
		return 0;
	c->period_us = ctx[1];
	c->quota_us = ctx[2] == ~0ULL ? 0 : ctx[2];
	if (SUBSCRIBED(QM_EVENT_CGROUP_WEIGHT))
		note_cgroup(cgrp, c);
	return 0;
}
#endif
