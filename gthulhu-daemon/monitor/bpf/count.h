/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Rows, and how a run that has ended is counted into one. */
#ifndef MONITOR_COUNT_H
#define MONITOR_COUNT_H
#include "layout.h"

/* A wait of this length is always looked into, shorter ones one time in so many: time is what counts. */
#define LONG_WAIT_NS 1000000
#define SAMPLE_ONE_IN 64

const volatile struct config mon_config SEC(".rodata.mon_config");
struct shared mon_shared SEC(".bss.mon_shared") __attribute__((aligned(64)));
struct lane mon_lanes[MAX_CPUS] SEC(".bss.mon_lanes") __attribute__((aligned(64)));

/* What was known of a thread when it last left a CPU. */
struct seen {
	u64 css; /* its css_set then: as long as this and the epoch are the same, so is its row */
	u64 epoch;
	u32 base; /* of its row: that of CPU 0 */
	u32 slot;
	u64 ran;
	u64 waited;
	u64 blocked;
	u64 throttled; /* of the run queue that it was in */
	u32 cpu; /* where it was, plus one; 0 if it never was */
	u32 woken; /* its next wait begins with a wakeup */
	u64 migrations;
	u64 throttled_ns;
	/* Where the kernel keeps no sched_info: since when it waits, or waited before its run now; 0: it sleeps. */
	u64 own_queued;
};

struct {
	__uint(type, MAP_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct seen);
} mon_seen SEC(".maps");

/* slot * nr_cpus + cpu; user space sets the size, reads it in place and never writes it. */
struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct row);
} mon_rows SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct group);
} mon_groups SEC(".maps");

/* Preallocated: nothing may be allocated with a run queue locked. */
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 1);
	__type(key, u64);
	__type(value, u32);
} mon_slots SEC(".maps");

/* Free slots: user space puts them in, and gives back those of groups that are gone. */
struct {
	__uint(type, MAP_QUEUE);
	__uint(max_entries, 1);
	__type(value, u32);
} mon_free SEC(".maps");

struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, MAX_CPUS);
	__type(key, u32);
	__type(value, struct place);
} mon_places SEC(".maps");

struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, 65536);
	__type(key, struct blame_key);
	__type(value, struct blame);
} mon_blame SEC(".maps");

static __always_inline struct lane *this_lane(void)
{
	return &mon_lanes[bpf_get_smp_processor_id() & (MAX_CPUS - 1)];
}

/*
 * The clock of the run queue that a task is in, which the kernel has just brought up to date where this is asked: a
 * switch or a wakeup. It is what sched_info would be measured by, and three loads where bpf_ktime_get_ns() is a call
 * and a reading of the hardware.
 */
static __always_inline u64 queue_clock(struct task_struct *p)
{
	if (FIELD_HAS(p->se.cfs_rq->rq->clock))
		return p->se.cfs_rq->rq->clock;
	return bpf_ktime_get_ns();
}

static __always_inline u64 group_of(struct task_struct *p)
{
	struct cgroup_subsys_state *css = NULL;

	if (!mon_config.by_cpu_controller)
		return p->cgroups->dfl_cgrp->kn->id;
	bpf_probe_read_kernel(&css, sizeof(css), &p->cgroups->subsys[ENUM_VALUE(cgroup_subsys_id, cpu_cgrp_id)]);
	if (css) {
		struct cgroup *cgroup = NULL;
		struct kernfs_node *kn = NULL;
		u64 id = 0;

		bpf_probe_read_kernel(&cgroup, sizeof(cgroup), __builtin_preserve_access_index(&css->cgroup));
		bpf_probe_read_kernel(&kn, sizeof(kn), __builtin_preserve_access_index(&cgroup->kn));
		bpf_probe_read_kernel(&id, sizeof(id), __builtin_preserve_access_index(&kn->id));
		return id;
	}
	return 0;
}

static __always_inline u32 slot_of(u64 id)
{
	u32 *known = bpf_map_lookup_elem(&mon_slots, &id), slot = OTHER;
	struct group *group;

	if (known)
		return *known;
	if (bpf_map_pop_elem(&mon_free, &slot)) {
		__sync_fetch_and_add(&mon_shared.refused, 1);
		return OTHER;
	}
	group = bpf_map_lookup_elem(&mon_groups, &slot);
	if (!group)
		return OTHER;
	group->id = id;
	if (!bpf_map_update_elem(&mon_slots, &id, &slot, BPF_NOEXIST))
		return slot;
	/* Another CPU was faster, or the map has no element to spare at this moment. */
	group->id = 0;
	bpf_map_push_elem(&mon_free, &slot, BPF_ANY);
	known = bpf_map_lookup_elem(&mon_slots, &id);
	return known ? *known : OTHER;
}

static __noinline int resolve(struct task_struct *p, struct seen *s)
{
	/* Before the look: a slot that is taken away meanwhile is seen by the next comparison. */
	u64 epoch = READ_ONCE(mon_shared.epoch);
	u32 slot = slot_of(group_of(p));

	s->css = (u64)p->cgroups;
	s->epoch = epoch;
	s->slot = slot;
	s->base = slot * mon_config.nr_cpus;
	this_lane()->resolved++;
	return 0;
}

static __always_inline struct row *row_of(struct task_struct *p, struct seen *s, u32 cpu)
{
	u32 key;

	/*
	 * A css_set that a task has left may be freed and its place taken by another one that the task then goes
	 * to: hence the epoch. A css_set that stays has the same cgroup always.
	 */
	if (unlikely(s->css != (u64)p->cgroups || s->epoch != READ_ONCE(mon_shared.epoch)))
		resolve(p, s);
	key = s->base + cpu;
	return bpf_map_lookup_elem(&mon_rows, &key);
}

static __always_inline u64 throttled_total(struct task_struct *p)
{
	if (FIELD_HAS(p->se.cfs_rq->throttled_clock_self_time))
		return p->se.cfs_rq->throttled_clock_self_time;
	if (FIELD_HAS(p->se.cfs_rq->throttled_clock_pelt_time))
		return p->se.cfs_rq->throttled_clock_pelt_time;
	if (FIELD_HAS(p->se.cfs_rq->throttled_clock_task_time))
		return p->se.cfs_rq->throttled_clock_task_time;
	return 0;
}

/*
 * How much of its last wait, which ended at `arrived`, a task was kept from running by cpu.max. The total of its
 * run queue has grown by the time that the queue was throttled; no event tells when that was. A preempted task was
 * in the queue all along, so that is its own time. A woken one may have slept through it: only what the last
 * throttling, which ended before the first run of the group since, has in common with its wait.
 */
static __noinline u64 throttled(struct seen *s, struct row *row, u64 total, u64 waited, u64 arrived)
{
	bool preempted = !s->woken && s->cpu == bpf_get_smp_processor_id() + 1;
	u64 before = s->throttled, from, until, begin;

	s->throttled = total;
	if (total != row->throttled_total) {
		u64 base = row->throttled_total;

		/* Not of this group's life: the row had another one before, or is new. */
		if (!base || base > total)
			base = preempted ? before : total;
		row->throttled_for = total - base;
		row->throttled_at = arrived;
		row->throttled_total = total;
	}
	if (preempted) {
		from = total - before;
		return (s64)from < 0 ? 0 : from < waited ? from : waited;
	}
	until = row->throttled_at < arrived ? row->throttled_at : arrived;
	from = arrived - waited;
	begin = row->throttled_at - row->throttled_for;
	if (begin > from)
		from = begin;
	return until > from ? until - from : 0;
}

/* By hand: a table of log2 for 8 bits makes three paths for the verifier and a handful of instructions. */
#define T2(n) n, n
#define T4(n) T2(n), T2(n)
#define T8(n) T4(n), T4(n)
#define T16(n) T8(n), T8(n)
#define T32(n) T16(n), T16(n)
#define T64(n) T32(n), T32(n)
#define T128(n) T64(n), T64(n)
static const u8 log2_of[256] = { 0, 0, T2(1), T4(2), T8(3), T16(4), T32(5), T64(6), T128(7) };

static __always_inline u32 bucket(u64 ns)
{
	u64 twice = ns >> (FIRST_BUCKET_SHIFT - 1) | 1;
	u32 n;

	if (twice < 256)
		n = log2_of[twice];
	else if (twice < 65536)
		n = 8 + log2_of[twice >> 8 & 255];
	else if (twice < 1 << 24)
		n = 16 + log2_of[twice >> 16 & 255];
	else
		n = BUCKETS - 1;
	return n < BUCKETS ? n : BUCKETS - 1;
}

static __noinline int moved(struct seen *s, struct row *row, u32 cpu)
{
	u32 was = s->cpu - 1;
	struct place *from, *to;
	u32 distance;

	s->cpu = cpu + 1;
	if (was == (u32)-1)
		return 0;
	s->migrations++;
	from = bpf_map_lookup_elem(&mon_places, &was);
	to = bpf_map_lookup_elem(&mon_places, &cpu);
	if (!from || !to)
		return 0;
	if (from->core == to->core)
		distance = 0;
	else if (from->l2 == to->l2)
		distance = 1;
	else if (from->l3 == to->l3)
		distance = 2;
	else if (from->node == to->node)
		distance = 3;
	else
		distance = 4;
	row->migrations[distance]++;
	return 0;
}

static __noinline int charge(struct lane *lane, u32 waited, u32 ran, u64 ns)
{
	struct group *who = bpf_map_lookup_elem(&mon_groups, &waited), *by = bpf_map_lookup_elem(&mon_groups, &ran);
	struct blame_key key;
	struct blame *blame, first = { ns, 1 };

	if (!who || !by)
		return 0;
	key.waited = who->id;
	key.ran = by->id;
	blame = bpf_map_lookup_elem(&mon_blame, &key);
	if (!blame && !bpf_map_update_elem(&mon_blame, &key, &first, BPF_NOEXIST))
		return 0;
	/* Another CPU may have been faster. */
	if (!blame)
		blame = bpf_map_lookup_elem(&mon_blame, &key);
	if (!blame) {
		/* No room: it was one of the others, then. */
		lane->unblamed++;
		key.ran = 0;
		blame = bpf_map_lookup_elem(&mon_blame, &key);
	}
	if (!blame) {
		bpf_map_update_elem(&mon_blame, &key, &first, BPF_NOEXIST);
		return 0;
	}
	__sync_fetch_and_add(&blame->ns, ns);
	__sync_fetch_and_add(&blame->samples, 1);
	return 0;
}

/* Who ran on this CPU while a task of `slot` waited for it, the last before `arrived` first. */
static __noinline int blame(struct lane *lane, u32 slot, u64 arrived, u64 waited)
{
	u64 from = arrived - waited, weight = waited < LONG_WAIT_NS ? SAMPLE_ONE_IN : 1;

	lane->blamed++;
	for (u32 i = 0; i <= STINTS; i++) {
		struct stint *one = i ? &lane->ring[(lane->ring_at - i + 1) & (STINTS - 1)] : &lane->now;
		u64 begin = one->begin > from ? one->begin : from;
		u64 end = one->end < arrived ? one->end : arrived;

		if (end <= begin)
			break;
		end -= begin;
		charge(lane, slot, (u32)one->slot, (end < one->ran ? end : one->ran) * weight);
	}
	return 0;
}

/* A group's turn on the CPU is over: the ring remembers it, and the next one begins. */
static __noinline int turn(struct lane *lane, u32 slot, u64 begin)
{
	lane->ring[++lane->ring_at & (STINTS - 1)] = lane->now;
	lane->now.begin = begin;
	lane->now.slot = slot;
	lane->now.ran = 0;
	return 0;
}

/* All that a task has waited for that was given a CPU at `arrived`. */
static __always_inline u64 own_waited(struct seen *s, u64 arrived)
{
	/* The clocks of two CPUs may differ a little. */
	return s->waited + (s->own_queued && arrived > s->own_queued ? arrived - s->own_queued : 0);
}

/*
 * A task has left the CPU on which it ran since `arrived` (by the run queue's clock), and has waited for `waited`
 * in its life so far. The lookups come first: what is loaded before a call has to be put away for it.
 *
 * Measured by ourselves, a wait is over when the CPU was given away last, and is added up only now: so whoever is given
 * a CPU needs no look into its storage.
 */
static __always_inline void left(struct task_struct *p, struct seen *s, bool own)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct row *row = row_of(p, s, cpu);
	struct lane *lane = &mon_lanes[cpu & (MAX_CPUS - 1)];
	u64 ran = p->se.sum_exec_runtime, run = ran - s->ran;
	u64 arrived = own ? lane->own_arrived : p->sched_info.last_arrival;
	u64 waited = own ? own_waited(s, arrived) : p->sched_info.run_delay, wait = waited - s->waited;
	u64 total = throttled_total(p), blocked = p->nvcsw;
	u32 kind, ended;

	if (!row)
		return;
	s->ran = ran;
	s->waited = waited;
	if (unlikely(total != s->throttled)) {
		u64 part = throttled(s, row, total, wait, arrived);

		row->throttled_ns += part;
		s->throttled_ns += part;
		wait -= part;
	}
	if (unlikely(s->cpu != cpu + 1))
		moved(s, row, cpu);
	kind = s->woken & 1;
	row->wait_ns[kind] += wait;
	row->waits[kind][bucket(wait)]++;
	if (unlikely(wait >> FIRST_BUCKET_SHIFT && (wait >= LONG_WAIT_NS || !(lane->short_waits++ % SAMPLE_ONE_IN))))
		blame(lane, s->slot, arrived, wait);
	ended = blocked != s->blocked;
	s->blocked = blocked;
	s->woken = ended;
	row->run_ns += run;
	row->runs[ended][bucket(run)]++;
	if (unlikely(lane->now.slot != s->slot))
		turn(lane, s->slot, arrived);
	lane->now.end = arrived + run;
	lane->now.ran += run;
}

/* As it is now: what it did before is not counted. */
static __always_inline void as_now(struct task_struct *p, struct seen *s)
{
	s->ran = p->se.sum_exec_runtime;
	if (!mon_config.own_wait)
		s->waited = p->sched_info.run_delay;
	else if (!p->on_cpu && !p->__state)
		s->own_queued = queue_clock(p);
	s->blocked = p->nvcsw;
	s->throttled = throttled_total(p);
	s->woken = !!p->__state;
	s->cpu = p->thread_info.cpu + 1;
}

/* A task without storage leaves a CPU: one that the seeding did not come to yet, or for which there was no memory. */
static __noinline struct seen *meet(struct task_struct *p)
{
	struct seen now = { .woken = 1 }, *s;

	if (p->start_time < mon_config.since)
		as_now(p, &now);
	/* Before the kernel had an allocator for this, an allocation here could have to wake kswapd: a deadlock. */
	s = mon_config.may_allocate ? bpf_task_storage_get(&mon_seen, p, &now, BPF_LOCAL_STORAGE_CREATE) : NULL;
	/* The last switch of a thread that had ended before the monitor began is no loss. */
	if (!s && !(p->start_time < mon_config.since && p->__state & TASK_DEAD))
		this_lane()->missed++;
	return s;
}
#endif
