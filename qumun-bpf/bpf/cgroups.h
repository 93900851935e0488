/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * cgroups: what their cpu controller is set to. Not loaded where nobody subscribes and limits are not enforced.
 */
#ifndef QUMUN_CGROUPS_H
#define QUMUN_CGROUPS_H
#include "events.h"
#include "limits.h"

static __always_inline struct qm_cgroup *shown(u32 slot)
{
	return &cgroups[slot & (QM_MAX_CGROUPS - 1)];
}

/* The kernel changes one cgroup at a time. Whoever reads meanwhile sees an odd version and reads again. */
static __always_inline void change_begins(struct qm_cgroup *c)
{
	__sync_fetch_and_add(&c->version, 1);
}

static __always_inline void change_ends(struct qm_cgroup *c)
{
	__sync_fetch_and_add(&c->version, 1);
	__sync_fetch_and_add(&view.cgroup_changes, 1);
}

/* The slot of a cgroup, or the one that stands in for it. */
static __always_inline u32 slot_of(struct cgroup *cgrp)
{
	struct cgroup_ctx *c = cgrp ? bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, 0) : NULL;

	return c ? c->slot & (QM_MAX_CGROUPS - 1) : 0;
}

/* The same by its id, of which verifiers take the pointer in init_task's arguments for nothing more than the way to it.
 * @like is the slot where it most likely is: that of the task which forks. */
static __always_inline u32 slot_by_id(u64 id, u32 like)
{
	struct cgroup *cgrp;
	u32 slot;

	if (shown(like)->id == id)
		return like;
	cgrp = bpf_cgroup_from_id(id);
	if (!cgrp)
		return 0;
	slot = slot_of(cgrp);
	bpf_cgroup_release(cgrp);
	return slot;
}

/* The first free slot; 0: there is none. */
static __always_inline u32 free_slot(void)
{
	int i;

	FOR(i, QM_MAX_CGROUPS) {
		if (i > 0 && !cgroups[i & (QM_MAX_CGROUPS - 1)].id)
			return i;
	}
	return 0;
}

static __always_inline void show_limit(struct qm_cgroup *c, u64 period_us, u64 quota_us, u64 burst_us)
{
	bool has = quota_us && quota_us != ~0ULL && period_us;

	c->quota_us = has ? quota_us : 0;
	c->period_us = has ? period_us : 0;
	c->burst_us = has ? burst_us : 0;
}

SEC("struct_ops.s/qumun_cgroup_init")
int qumun_cgroup_init(u64 *ctx)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0], *parent;
	struct scx_cgroup_init_args *args = (struct scx_cgroup_init_args *)ctx[1];
	struct cgroup_ctx *own = bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, BPF_LOCAL_STORAGE_CREATE);
	u32 slot = 0, above = 0;
	struct qm_cgroup *c;
	u64 id = 0;
	s32 err;

	if (!own)
		return -12; /* ENOMEM */
	if (cgrp->level > 0) {
		parent = bpf_cgroup_ancestor(cgrp, cgrp->level - 1);
		if (parent) {
			above = slot_of(parent);
			bpf_cgroup_release(parent);
		}
		id = shown(above)->id;
		slot = free_slot();
		if (!slot) {
			own->slot = above;
			__sync_fetch_and_add(&view.cgroups_untold, 1);
			return 0;
		}
	}
	if (LIMITS) {
		err = scx_bpf_create_dsq(DSQ_THROTTLED(slot), -1);
		if (err && err != -17 /* EEXIST: it is there, of an earlier cgroup */)
			return err;
	}
	own->slot = slot;
	own->own = 1;
	if (core.slots <= slot)
		core.slots = slot + 1;
	groups[slot & (QM_MAX_CGROUPS - 1)].rivals = 0;
	groups[slot & (QM_MAX_CGROUPS - 1)].competing = 0;
	c = shown(slot);
	change_begins(c);
	c->id = cgrp->kn->id;
	c->parent = id;
	c->above = above;
	c->weight = args->weight;
	if (FIELD_HAS(args->bw_quota_us)) {
		show_limit(c, args->bw_period_us, args->bw_quota_us, args->bw_burst_us);
		if (LIMITS)
			set_limit(slot, above, c);
	}
	__sync_fetch_and_add(&view.nr_cgroups, 1);
	change_ends(c);
	return 0;
}

SEC("struct_ops.s/qumun_cgroup_exit")
int qumun_cgroup_exit(u64 *ctx)
{
	struct cgroup *cgrp = (struct cgroup *)ctx[0];
	struct cgroup_ctx *own = bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, 0);
	struct qm_cgroup *c;
	u32 slot;

	if (!own)
		return 0;
	if (!own->own) {
		__sync_fetch_and_add(&view.cgroups_untold, -1);
		return 0;
	}
	slot = own->slot;
	own->slot = 0;
	own->own = 0;
	c = shown(slot);
	change_begins(c);
	c->id = 0;
	c->weight = 100;
	show_limit(c, 0, 0, 0);
	if (LIMITS)
		set_limit(slot, 0, c);
	__sync_fetch_and_add(&view.nr_cgroups, -1);
	change_ends(c);
	return 0;
}

OPS3(void, cgroup_move, struct task_struct *, p, struct cgroup *, from, struct cgroup *, to)
{
	struct task_ctx *t = task_ctx(p);
	struct qm_event *e;

	if (t) {
		share_ends(t);
		t->group = slot_of(to);
		t->permit = 0;
		t->rule_table = 0;
	}
	if (!SUBSCRIBED(QM_EVENT_CGROUP) || p->pid == view.agent_pid)
		return;
	e = note(QM_EVENT_CGROUP, p, t);
	if (!e)
		return;
	e->cpu_cgroup_id = to->kn->id;
	event_submit(e);
}

static __always_inline struct cgroup_ctx *own_slot(struct cgroup *cgrp)
{
	struct cgroup_ctx *own = bpf_cgrp_storage_get(&qm_cgroups, cgrp, NULL, 0);

	return own && own->own ? own : NULL;
}

OPS2(void, cgroup_set_weight, struct cgroup *, cgrp, u32, weight)
{
	struct cgroup_ctx *own = own_slot(cgrp);
	struct qm_cgroup *c;

	if (!own)
		return;
	c = shown(own->slot);
	change_begins(c);
	c->weight = weight;
	change_ends(c);
	reweigh(own->slot, weight);
}

/* Kernels that tell it leave the limit to the scheduler. */
SEC("struct_ops/qumun_cgroup_set_bandwidth")
int qumun_cgroup_set_bandwidth(u64 *ctx)
{
	struct cgroup_ctx *own = own_slot((struct cgroup *)ctx[0]);
	struct qm_cgroup *c;

	if (!own)
		return 0;
	c = shown(own->slot);
	change_begins(c);
	show_limit(c, ctx[1], ctx[2], ctx[3]);
	if (LIMITS)
		set_limit(own->slot, c->above, c);
	change_ends(c);
	return 0;
}
#endif
