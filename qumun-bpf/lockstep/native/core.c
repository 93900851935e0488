/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The C core, word for word, over a kernel that is a model (linux.h), and what a test wants to see of it.
 */
#include "linux.h"
#include "../../bpf/core.bpf.c"

_Static_assert(sizeof(struct task_ctx) <= STORAGE, "room for struct task_ctx");
_Static_assert(sizeof(struct cgroup_ctx) <= sizeof(((struct cgroup *)0)->storage), "room for struct cgroup_ctx");
/* More cgroups than any history makes. */
#define SLOTS 64
/* More rules than any history has. */
#define PAYERS 4
u8 event_buffer[sizeof(struct qm_event)] __attribute__((aligned(8)));

/* Everything as after a load with these settings. */
EXPORT void native_reset(struct qm_config *settings)
{
	config = *settings;
	__builtin_memset(&view, 0, sizeof(view));
	__builtin_memset(&agent, 0, sizeof(agent));
	__builtin_memset(&exit_info, 0, sizeof(exit_info.code) + sizeof(exit_info.kind));
	for (u32 i = 0; i < 64; i++) {
		__builtin_memset(&counters[i], 0, sizeof(counters[i]));
		__builtin_memset(&cpus[i], 0, sizeof(cpus[i]));
	}
	__builtin_memset(places.cache, 0, sizeof(places.cache));
	__builtin_memset(places.cpus, 0, 64 * sizeof(places.cpus[0]));
	__builtin_memset(&core, 0, sizeof(core));
	__builtin_memset(cgroups, 0, SLOTS * sizeof(cgroups[0]));
	__builtin_memset(groups, 0, SLOTS * sizeof(groups[0]));
	__builtin_memset(held, 0, sizeof(held));
	__builtin_memset(&rules, 0, sizeof(rules));
	__builtin_memset(payers, 0, sizeof(payers));
	qumun_init(NULL);
}

/*
 * The shared arrays before a call: so many events are unread, there is room for so many, and so many decisions are
 * published, of which the first are written. Positions are never reset: a history begins where the last one ended.
 */
EXPORT void native_begin(u64 unread, u64 room, struct qm_decision *decisions, u64 written, u64 published)
{
	event_room = room;
	decision_array.read = event_array.sent - unread;
	decision_array.published = event_array.taken + published;
	for (u64 i = 0; i < written; i++)
		decision_array.slots[(event_array.taken + i) & (QM_DECISION_SLOTS - 1)] = decisions[i];
}

EXPORT struct qm_event_array *native_event_array(void) { return &event_array; }

EXPORT struct qm_decision_array *native_decision_array(void) { return &decision_array; }

/* Nothing unread, nothing published, and the settings that make the core use them. */
EXPORT void native_arrays(u64 room)
{
	config.options |= QM_OPT_SHARED;
	native_begin(0, room, NULL, 0, 0);
}

EXPORT s64 native_take(u32 cpu, u32 n) { return (s32)take_from_array(cpu, n); }

EXPORT struct qm_decision *native_batch(u32 cpu) { return batches[cpu].decision; }

/* As enqueue does, with nothing but a number in it. */
EXPORT bool native_send(s32 pid)
{
	struct qm_event *e = event_reserve();

	if (!e)
		return false;
	e->pid = pid;
	e->generation = ~(u64)pid;
	event_submit(e);
	return true;
}

EXPORT void native_place(u32 cpu, u32 lowest, u32 sibling)
{
	places.cache[cpu] = lowest + 1;
	places.sibling[cpu] = sibling;
	places.cpus[lowest][cpu / 64] |= 1ULL << (cpu & 63);
}

EXPORT void native_timer(void)
{
	struct timer_slot slot;

	heartbeat(NULL, NULL, &slot);
}

EXPORT void native_alarm(void) { alarm(NULL, NULL, NULL); }

EXPORT void native_ack(u64 epoch) { agent.ack = epoch; }

EXPORT bool native_kernel_mode(bool on)
{
	struct qm_mode args = { .kernel = on };

	qumun_mode(&args);
	return args.was;
}

EXPORT u32 native_wake(u64 low)
{
	struct qm_wake args = {};

	agent.wake[0] = low;
	qumun_wake(&args);
	return args.woken;
}

EXPORT void native_revoke(s32 pid, bool all)
{
	if (all)
		agent.revoked_all++;
	else
		agent.revoked[(u32)pid & (QM_REVOKE_WORDS - 1)]++;
}

EXPORT u32 native_mark(s32 pid) { return revoked(pid); }

EXPORT struct qm_rules *native_rules(void) { return &rules; }

EXPORT struct qm_view *native_view(void) { return &view; }

EXPORT struct qm_counters *native_counters(u32 cpu) { return &counters[cpu]; }

/* In the order of STATE in src/lib.rs. */
EXPORT void native_state(u64 *out)
{
	*out++ = core.vnow;
	*out++ = core.checked;
	*out++ = core.left_at;
	*out++ = core.last_rescue;
	*out++ = core.rescue_cpu;
	*out++ = core.agent_ran_at;
	*out++ = (u64)(s64)core.agent_cpu;
	*out++ = (u64)(s64)core.agent_last_cpu;
	*out++ = core.agent_queued;
	*out++ = core.decisions_left;
	*out++ = core.shared;
	*out++ = core.filled;
	*out++ = core.filled_at;
	*out++ = core.shared_at;
	*out++ = core.parked;
	*out++ = core.parked_at;
	*out++ = core.preempt_at;
	*out++ = core.called_at;
	*out++ = core.alarm;
	*out++ = core.ahead_paid;
	*out++ = core.waited_at;
	*out++ = core.shares;
	*out++ = core.rivals;
	for (u32 i = 0; i < PAYERS; i++) {
		*out++ = payers[i].key;
		*out++ = payers[i].paid;
	}
	*out++ = core.released_at;
	*out++ = core.held;
	*out++ = core.release_word;
	for (u32 i = 0; i < BUCKETS; i++)
		*out++ = (u64)core.undecided[i];
}

EXPORT void native_cpu(u32 cpu, u64 *out)
{
	struct cpu_ctx *cc = &cpus[cpu];

	*out++ = cc->served_at[0];
	*out++ = cc->served_at[1];
	*out++ = cc->clock[0];
	*out++ = cc->clock[1];
	*out++ = cc->charged_at;
	*out++ = cc->side;
	*out++ = cc->side_n;
	*out++ = cc->next_side;
	*out++ = cc->next_n;
	*out++ = cc->sample;
	*out++ = cc->pinned;
	*out++ = cc->placed;
	*out++ = cc->online;
	*out++ = cc->turn;
	*out++ = cc->deferred;
	*out++ = cc->urgent | cc->given << 1;
	*out++ = cc->cut_at;
	*out++ = cc->busy_since;
	*out++ = cc->awaited | cc->brief << 1 | cc->called << 2 | cc->asked << 3;
	*out++ = cc->began;
	*out++ = cc->rescued_at;
	*out++ = cc->overran_at;
	*out++ = cc->kept;
	*out++ = cc->order;
	*out++ = cc->rank | (u64)cc->favour << 32;
}

EXPORT void native_task(struct task_struct *p, u64 *out)
{
	struct task_ctx *t = task_ctx(p);

	*out++ = t->custody >> STATE_BITS;
	*out++ = t->custody & STATE_MASK;
	*out++ = t->vtime;
	*out++ = t->exec_runtime;
	*out++ = t->last_run;
	*out++ = t->started_at;
	*out++ = t->stopped_at;
	*out++ = t->enqueued_at;
	*out++ = t->placed_at;
	*out++ = t->label;
	*out++ = t->slice_ns;
	*out++ = t->bucket;
	*out++ = t->sampled;
	*out++ = t->reclaim;
	*out++ = t->charged_at;
	*out++ = t->group;
	*out++ = t->pass;
	*out++ = t->safe;
	*out++ = t->dry_ticks;
	*out++ = t->ran;
	*out++ = t->slept;
	*out++ = t->order;
	*out++ = t->permit;
	*out++ = t->permitted;
	*out++ = t->permit_until;
	*out++ = t->permit_vtime;
	*out++ = t->permit_slice;
	*out++ = t->left;
	*out++ = t->permit_rate;
	*out++ = t->permit_flags;
	*out++ = t->permit_mark;
	*out++ = t->permit_epoch;
	*out++ = t->permit_weight;
	*out++ = t->rule_table;
	*out++ = t->rule;
	*out++ = t->rule_paid;
	*out++ = t->rank | (u64)t->favour << 32;
	*out++ = t->counted | (u64)t->counted_weight << 32;
}

/* A slot of the table and what belongs to it. */
EXPORT void native_slot(u32 slot, u64 *out)
{
	struct qm_cgroup *c = &cgroups[slot];
	struct group *g = &groups[slot];

	*out++ = c->version;
	*out++ = c->id;
	*out++ = c->parent;
	*out++ = c->quota_us;
	*out++ = c->period_us;
	*out++ = c->burst_us;
	*out++ = c->weight;
	*out++ = c->above;
	*out++ = g->quota;
	*out++ = (u64)g->budget;
	*out++ = g->period;
	*out++ = g->refilled_at;
	*out++ = g->most;
	*out++ = g->debt;
	*out++ = g->since;
	*out++ = g->held_at;
	*out++ = g->parent;
	*out++ = g->weight;
	*out++ = g->rivals;
	*out++ = g->competing;
	*out++ = held[slot / 64] >> (slot & 63) & 1;
}

EXPORT int native_cgroup_init(u64 *ctx) { return qumun_cgroup_init(ctx); }

EXPORT int native_cgroup_exit(u64 *ctx) { return qumun_cgroup_exit(ctx); }

EXPORT int native_cgroup_limit(u64 *ctx) { return qumun_cgroup_set_bandwidth(ctx); }

EXPORT int native_init_task(u64 *ctx)
{
	cgroup_asked = ((struct scx_init_task_args *)ctx[1])->cgroup;
	return qumun_init_task(ctx);
}

EXPORT int native_hotplug(u64 *ctx) { return qumun_hotplug(ctx); }

EXPORT int native_set(struct qm_task *args) { return qumun_task(args); }

/* The greeting comes from the agent's thread, which is no task of the model's. */
EXPORT int native_hello(struct qm_hello *args, s32 pid, s32 tgid)
{
	greeting = (u64)(u32)tgid << 32 | (u32)pid;
	int err = qumun_hello(args);

	greeting = 0;
	return err;
}
