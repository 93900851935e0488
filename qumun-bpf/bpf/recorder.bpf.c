// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The recorder: what tasks and CPUs do, as the scheduler's tracepoints tell it, into a ring buffer.
 * It works under any scheduler. What does not fit the ring is counted, never waited for.
 *
 * Tracepoints: include/trace/events/sched.h. They are called with the run queue locked, so the order
 * of records about one task is that in which things happened: who wakes a task writes that down
 * before the lock lets it run.
 */
#include "kernel.h"

#define QR_MAX_WORDS 16 /* 1024 CPUs */
#define QR_KNOWN 65536
#define TASK_DEAD 0x80
#define PF_KTHREAD 0x00200000

/*
 * include/linux/preempt.h: hard and non-maskable interrupts, and a soft interrupt being served. Seen on 7.3: the
 * first two have moved up by 8 bits. No type information tells which it is, so the first clock interrupt does.
 */
#define IN_INTERRUPT 0x00ff0100
#define IN_INTERRUPT_HIGH 0x1f000100
#define HARDIRQ_HIGH 0x0f000000

enum { MAP_HASH = 1 };
enum { REC_TASK = 1, REC_FORK, REC_EXIT, REC_WAKE, REC_SWITCH };
enum { WHY_BLOCKED, WHY_PREEMPTED, WHY_EXITED };
enum { BY_INTERRUPT = -1, BY_UNKNOWN = -2 };

static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static long (*bpf_map_delete_elem)(void *map, const void *key) = (void *)3;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;

struct thread_info___rec {
	u32 cpu;
} CORE;
struct task_struct___rec {
	struct thread_info___rec thread_info;
	unsigned int __state;
	int static_prio;
	unsigned int policy;
} CORE;

/* The same in src/recorder.rs. */
struct head {
	u64 at;
	u8 kind;
	u8 small;
	u16 cpu;
	s32 a;
	s32 b;
	u32 zero;
};

struct task_rec {
	struct head head; /* small: 1 if it was not known; a: pid; b: tgid */
	s32 static_prio;
	s32 prio;
	u32 policy;
	u32 kthread;
	u32 nr_cpus;
	u32 zero;
	u64 cgroup;
	u64 comm[2];
	u64 cpus[QR_MAX_WORDS];
};

_Static_assert(sizeof(struct head) == 24, "head");
_Static_assert(sizeof(struct task_rec) == 24 + 24 + 8 + 16 + 128, "task_rec");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 8 << 20);
} qr_ring SEC(".maps");

/* What user space has been told of a task. */
struct known {
	u64 comm[2];
	u64 cgroup;
	u64 cpus;
	s32 static_prio;
	s32 prio;
	u32 nr_cpus;
	s32 waker;
};

/* Preallocated: nothing may be allocated with a run queue locked. */
struct {
	__uint(type, MAP_HASH);
	__uint(max_entries, QR_KNOWN);
	__type(key, s32);
	__type(value, struct known);
} qr_known SEC(".maps");

/* Each CPU's: 8 words are a cache line, so that counting disturbs no other CPU. */
struct lost {
	u64 count;
	u64 pad[7];
};
struct lost qr_lost[QR_MAX_WORDS * 64] SEC(".bss.qr_lost") __attribute__((aligned(64)));

/* Where the nesting of interrupts is counted on x86, from 6.15 and before that. Elsewhere it is not known. */
extern const int __preempt_count __ksym __weak;
struct pcpu_hot {
	int preempt_count;
} CORE;
extern const struct pcpu_hot pcpu_hot __ksym __weak;

int qr_in_interrupt SEC(".data.qr_layout") = IN_INTERRUPT;
bool qr_layout_known SEC(".bss.qr_layout");

/* Where the kernel does not let programs see that count: interrupts that are being served, as tracepoints tell. */
struct nesting {
	u32 depth;
	u32 pad[15];
};
struct nesting qr_nesting[QR_MAX_WORDS * 64] SEC(".bss.qr_nesting") __attribute__((aligned(64)));

static __always_inline struct nesting *nesting(void)
{
	return &qr_nesting[bpf_get_smp_processor_id() & (QR_MAX_WORDS * 64 - 1)];
}

/* What the idle task wakes, an interrupt wakes. */
static __always_inline s32 waker(void)
{
	s32 pid = (s32)bpf_get_current_pid_tgid();
	int count;

	if (!pid)
		return BY_INTERRUPT;
	if (&__preempt_count)
		count = *(const int *)bpf_this_cpu_ptr(&__preempt_count);
	else if (&pcpu_hot)
		count = ((const struct pcpu_hot *)bpf_this_cpu_ptr(&pcpu_hot))->preempt_count;
	else
		return BY_UNKNOWN;
	return count & qr_in_interrupt ? BY_INTERRUPT : pid;
}

static __always_inline s32 waker_by_trace(void)
{
	s32 pid = (s32)bpf_get_current_pid_tgid();

	return !pid || nesting()->depth ? BY_INTERRUPT : pid;
}

static __always_inline void *room(u32 size)
{
	void *rec = bpf_ringbuf_reserve(&qr_ring, size, 0);

	if (!rec)
		qr_lost[bpf_get_smp_processor_id() & (QR_MAX_WORDS * 64 - 1)].count++;
	return rec;
}

static __always_inline void tell(u8 kind, u8 small, u16 cpu, s32 a, s32 b)
{
	struct head *head = room(sizeof(*head));

	if (!head)
		return;
	head->at = bpf_ktime_get_ns();
	head->kind = kind;
	head->small = small;
	head->cpu = cpu;
	head->a = a;
	head->b = b;
	head->zero = 0;
	bpf_ringbuf_submit(head, BPF_RB_NO_WAKEUP);
}

/* Tells of a task that is new, or not as it was. */
static __noinline int remember(struct task_struct *p, int new_life)
{
	const struct task_struct___rec *r = (const void *)p;
	s32 pid = p->pid;
	struct known now = {}, *known;
	struct task_rec *rec;

	if (!pid)
		return 0;
	bpf_probe_read_kernel(now.comm, sizeof(now.comm), p->comm);
	bpf_probe_read_kernel(&now.cpus, sizeof(now.cpus), p->cpus_ptr);
	now.cgroup = p->cgroups->dfl_cgrp->kn->id;
	now.static_prio = r->static_prio;
	now.prio = p->prio;
	now.nr_cpus = p->nr_cpus_allowed;
	now.waker = BY_UNKNOWN;
	known = bpf_map_lookup_elem(&qr_known, &pid);
	if (known && !new_life && known->comm[0] == now.comm[0] && known->comm[1] == now.comm[1] &&
	    known->cgroup == now.cgroup && known->cpus == now.cpus && known->static_prio == now.static_prio &&
	    known->prio == now.prio && known->nr_cpus == now.nr_cpus)
		return 0;
	rec = room(sizeof(*rec));
	if (!rec)
		return 0;
	rec->head.at = bpf_ktime_get_ns();
	rec->head.kind = REC_TASK;
	rec->head.small = !known || new_life;
	rec->head.cpu = 0;
	rec->head.a = pid;
	rec->head.b = p->tgid;
	rec->head.zero = 0;
	rec->static_prio = now.static_prio;
	rec->prio = now.prio;
	rec->policy = r->policy;
	rec->kthread = !!(p->flags & PF_KTHREAD);
	rec->nr_cpus = now.nr_cpus;
	rec->zero = 0;
	rec->cgroup = now.cgroup;
	rec->comm[0] = now.comm[0];
	rec->comm[1] = now.comm[1];
	/* Larger than the mask on kernels for few CPUs; user space knows how many there are. */
	if (bpf_probe_read_kernel(rec->cpus, sizeof(rec->cpus), p->cpus_ptr))
		rec->cpus[0] = now.cpus;
	bpf_ringbuf_submit(rec, BPF_RB_NO_WAKEUP);
	if (known)
		now.waker = known->waker;
	bpf_map_update_elem(&qr_known, &pid, &now, 0);
	return 0;
}

SEC("tp_btf/sched_process_fork")
int qr_fork(u64 *ctx)
{
	struct task_struct *parent = (struct task_struct *)ctx[0], *child = (struct task_struct *)ctx[1];

	remember(parent, 0);
	remember(child, 1);
	tell(REC_FORK, 0, 0, parent->pid, child->pid);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int qr_exit(u64 *ctx)
{
	tell(REC_EXIT, 0, 0, ((struct task_struct *)ctx[0])->pid, 0);
	return 0;
}

static __always_inline int waking(struct task_struct *p, s32 by)
{
	s32 pid = p->pid;
	struct known *known = bpf_map_lookup_elem(&qr_known, &pid);

	if (known)
		known->waker = by;
	return 0;
}

/* Called where the waker runs. That it runs again is told later, perhaps by an interrupt on another CPU. */
SEC("tp_btf/sched_waking")
int qr_waking(u64 *ctx)
{
	return waking((struct task_struct *)ctx[0], waker());
}

SEC("tp_btf/sched_waking")
int qr_waking_trace(u64 *ctx)
{
	return waking((struct task_struct *)ctx[0], waker_by_trace());
}

static __always_inline int woken(struct task_struct *p, s32 by)
{
	const struct task_struct___rec *r = (const void *)p;

	/* One that runs and wakes itself, or is woken before it has left: nothing follows. */
	if (p->pid == by)
		return 0;
	remember(p, 0);
	tell(REC_WAKE, 0, (u16)r->thread_info.cpu, p->pid, by);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int qr_wakeup(u64 *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	s32 pid = p->pid;
	struct known *known = bpf_map_lookup_elem(&qr_known, &pid);

	return woken(p, known ? known->waker : BY_UNKNOWN);
}

SEC("tp_btf/sched_wakeup_new")
int qr_wakeup_new(u64 *ctx)
{
	return woken((struct task_struct *)ctx[0], waker());
}

SEC("tp_btf/sched_wakeup_new")
int qr_wakeup_new_trace(u64 *ctx)
{
	return woken((struct task_struct *)ctx[0], waker_by_trace());
}

#define ENTRY(tracepoint) \
	SEC("tp_btf/" #tracepoint "_entry") \
	int qr_##tracepoint##_entry(u64 *ctx) \
	{ \
		nesting()->depth++; \
		return 0; \
	} \
	SEC("tp_btf/" #tracepoint "_exit") \
	int qr_##tracepoint##_exit(u64 *ctx) \
	{ \
		/* Begun before we were there. */ \
		if (nesting()->depth) \
			nesting()->depth--; \
		return 0; \
	}

/* A clock interrupt is being served, so the count has one of its bits. */
SEC("tp_btf/local_timer_entry")
int qr_layout(u64 *ctx)
{
	if (qr_layout_known || !&__preempt_count)
		return 0;
	if (*(const int *)bpf_this_cpu_ptr(&__preempt_count) & HARDIRQ_HIGH)
		qr_in_interrupt = IN_INTERRUPT_HIGH;
	qr_layout_known = true;
	return 0;
}

ENTRY(irq_handler)
ENTRY(softirq)
ENTRY(local_timer)

SEC("tp_btf/sched_switch")
int qr_switch(u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1], *next = (struct task_struct *)ctx[2];
	unsigned int state = ((const struct task_struct___rec *)prev)->__state;
	u8 why = WHY_BLOCKED;
	s32 pid = prev->pid;

	/* A task that a signal kept awake has its state back by now, so the argument of the tracepoint is not asked. */
	if (state & TASK_DEAD)
		why = WHY_EXITED;
	else if (ctx[0] || !state)
		why = WHY_PREEMPTED;
	if (!bpf_map_lookup_elem(&qr_known, &pid))
		remember(prev, 0);
	remember(next, 0);
	tell(REC_SWITCH, why, (u16)bpf_get_smp_processor_id(), pid, next->pid);
	if (why == WHY_EXITED)
		bpf_map_delete_elem(&qr_known, &pid);
	return 0;
}

char _license[] SEC("license") = "GPL";
