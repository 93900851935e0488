/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A stand-in for the core, for any kernel from 6.1 on: it sends events and takes decisions, through rings, records and
 * pages of the core's own layout, but no task waits behind them. So an agent meets here what it meets on a kernel
 * with sched_ext, at the speed of this machine and without a scheduler to load.
 *
 * There are three lanes, each with its own rings: the agent's, through shared arrays; the same through the kernel's ring
 * buffers; and that of the way that it is compared with. Each event
 * must be answered once; what else comes is counted as wrong, so that a bench cannot be fast by being careless.
 */
#include "kernel.h"
#include "wire.h"

static long (*bpf_loop)(u32 n, void *step, void *context, u64 flags) = (void *)181;

char LICENSE[] SEC("license") = "GPL";

/* As in the core: the agent maps these. */
struct qm_view view SEC(".bss.qm_view");
struct qm_agent agent SEC(".bss.qm_agent");
struct qm_cgroup cgroups[QM_MAX_CGROUPS] SEC(".bss.qm_table");

#define RING(name, kind, bytes)                                                                    \
	struct {                                                                                   \
		__uint(type, kind);                                                                \
		__uint(max_entries, bytes);                                                        \
	} name SEC(".maps")
RING(qm_events, MAP_RINGBUF, 1 << 20);
RING(qm_decisions, MAP_USER_RINGBUF, 1 << 19);
RING(single_events, MAP_RINGBUF, 1 << 20);
RING(single_answers, MAP_USER_RINGBUF, 1 << 19);

/* Events whose answer is kept: more than fit a ring. */
#define OPEN 8192
#define FIRST_PID 1000
#define ANSWERED (1ULL << 63)
struct lane {
	u64 sent;     /* the generation of the last event */
	u64 answered;
	u64 wrong;    /* decisions that answer no open event */
	u64 tasks;    /* that the events are about, in turn */
	u64 open[OPEN]; /* by generation: when it was sent, and then ANSWERED and how long that took */
};
struct lane lanes[3] SEC(".bss.lanes");

/* Argument of the programs that send and take. */
struct batch {
	u32 n; /* in: how many; out: how many there were */
	u32 tasks;
};

/* As in transport.h, but for the claims: one CPU at a time sends here, and takes. */
struct qm_event_array event_array SEC(".bss.qm_eslots");
struct qm_decision_array decision_array SEC(".bss.qm_dslots");

static __always_inline struct qm_event *slot_reserve(void)
{
	u64 at = READ_ONCE(event_array.sent);

	if (at - READ_ONCE(decision_array.read) >= QM_EVENT_SLOTS)
		return NULL;
	at = __sync_fetch_and_add(&event_array.sent, 1);
	return &event_array.slots[at & (QM_EVENT_SLOTS - 1)].event;
}

static __always_inline void slot_submit(struct qm_event *e)
{
	struct qm_event_slot *slot = (void *)e;

	__sync_fetch_and_add(&slot->written, 1);
}

static __always_inline void fill(struct qm_event *e, struct lane *lane)
{
	u64 now, generation;

	now = bpf_ktime_get_ns();
	generation = ++lane->sent;
	__builtin_memset(e, 0, sizeof(*e));
	e->enqueued_at = now;
	e->generation = generation;
	e->cgroup_id = 1;
	e->started_at = now - 2000000;
	e->stopped_at = now - 1000000;
	e->exec_runtime = 300000;
	e->vtime = now;
	e->allowed = ~0ULL;
	e->pid = FIRST_PID + (lane->tasks ? generation % lane->tasks : 0);
	e->tgid = e->pid;
	e->tid = e->pid;
	e->cpu = view.nr_cpu_ids ? generation % view.nr_cpu_ids : 0;
	e->weight = 100;
	e->nr_cpus_allowed = view.nr_cpu_ids;
	e->epoch = view.epoch;
	/* As the core samples. */
	e->flags = QM_EVENT_WAKEUP | ((generation & 63) == 0 ? QM_EVENT_SAMPLED : 0);
	e->kind = QM_EVENT_QUEUED;
	e->cgroup_weight = 100;
	e->comm[0] = 'b';
	lane->open[generation & (OPEN - 1)] = now;
}

static __always_inline void answer(struct qm_decision *d, struct lane *lane)
{
	u64 *open = &lane->open[d->generation & (OPEN - 1)];

	if (d->generation == 0 || d->generation > lane->sent || lane->sent - d->generation >= OPEN ||
	    *open & ANSWERED || d->flags ||
	    d->pid != FIRST_PID + (lane->tasks ? d->generation % lane->tasks : 0)) {
		lane->wrong++;
		return;
	}
	*open = ANSWERED | (bpf_ktime_get_ns() - *open);
	lane->answered++;
}

static __always_inline void take(struct bpf_dynptr *record, struct lane *lane)
{
	struct qm_decision d = {};

	if (bpf_dynptr_read(&d, sizeof(d), record, 0, 0)) {
		lane->wrong++;
		return;
	}
	answer(&d, lane);
}

#define SEND(name, number, reserve, submit)                                                        \
	static long send_to_##name(u32 i, u32 *made)                                               \
	{                                                                                          \
		struct qm_event *e = reserve;                                                      \
                                                                                                   \
		if (!e)                                                                            \
			return 1;                                                                  \
		fill(e, &lanes[number]);                                                           \
		submit;                                                                            \
		++*made;                                                                           \
		return 0;                                                                          \
	}                                                                                          \
	SEC("syscall") int bench_send_##name(struct batch *args)                                   \
	{                                                                                          \
		u32 made = 0;                                                                      \
                                                                                                   \
		lanes[number].tasks = args->tasks;                                                 \
		bpf_loop(args->n, send_to_##name, &made, 0);                                       \
		args->n = made;                                                                    \
		return 0;                                                                          \
	}

#define RINGS(name, number, events, decisions)                                                     \
	SEND(name, number, bpf_ringbuf_reserve(&events, sizeof(*e), 0), bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP)) \
	static long take_from_##name(struct bpf_dynptr *record, void *unused)                      \
	{                                                                                          \
		take(record, &lanes[number]);                                                      \
		return 0;                                                                          \
	}                                                                                          \
	SEC("syscall") int bench_take_##name(struct batch *args)                                   \
	{                                                                                          \
		long n = bpf_user_ringbuf_drain(&decisions, take_from_##name, NULL, BPF_RB_NO_WAKEUP); \
                                                                                                   \
		if (n < 0)                                                                         \
			return n;                                                                  \
		args->n = n;                                                                       \
		return 0;                                                                          \
	}
SEND(agent, 0, slot_reserve(), slot_submit(e))
RINGS(rings, 1, qm_events, qm_decisions)
RINGS(single, 2, single_events, single_answers)

static long take_from_agent(u32 i, void *unused)
{
	u64 at = event_array.taken + i;
	struct qm_decision d = decision_array.slots[at & (QM_DECISION_SLOTS - 1)];

	answer(&d, &lanes[0]);
	return 0;
}

SEC("syscall") int bench_take_agent(struct batch *args)
{
	u64 n = READ_ONCE(decision_array.published) - event_array.taken;

	if (n > QM_DECISION_SLOTS)
		return -7; /* E2BIG */
	bpf_loop(n, take_from_agent, NULL, 0);
	__sync_fetch_and_add(&event_array.taken, n);
	args->n = n;
	return 0;
}

/* As qumun_hello, as far as there is something to greet. */
SEC("syscall") int bench_hello(struct qm_hello *args)
{
	u64 id = bpf_get_current_pid_tgid();

	view.agent_pid = (s32)id;
	view.agent_tgid = (s32)(id >> 32);
	args->epoch = view.epoch;
	return 0;
}

/*
 * Which CPU one task gets: what a scheduler that asks the kernel for each task pays for a call. It looks at one bit,
 * much less than a true selection does, so the comparison errs in favour of that way.
 */
struct question {
	s32 pid;
	s32 cpu; /* in: where the task ran last; out: an idle CPU, or -1 */
};
SEC("syscall") int bench_select(struct question *args)
{
	u32 cpu = args->cpu;

	if (cpu < QM_MAX_CPUS && view.idle[(cpu / 64) & (QM_IDLE_WORDS - 1)] >> (cpu & 63) & 1)
		return 0;
	args->cpu = -1;
	return 0;
}

/* Does nothing: what a call of any program costs. */
SEC("syscall") int bench_empty(struct question *args)
{
	return 0;
}

/* System calls of one thread while its gate is open, by number, as the kernel sees them. */
#define CALLS 512
struct meter {
	u32 open;
	s32 tid;
	u64 calls[CALLS];
};
struct meter meter SEC(".bss.meter");

SEC("raw_tp/sys_enter") int bench_meter(u64 *ctx)
{
	if (!READ_ONCE(meter.open) || (s32)bpf_get_current_pid_tgid() != meter.tid)
		return 0;
	meter.calls[ctx[1] & (CALLS - 1)]++;
	return 0;
}
