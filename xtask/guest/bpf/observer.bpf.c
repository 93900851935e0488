// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The observer: what the scheduler's tracepoints say, under any scheduler, into a ring that is read when all is over.
 * It knows nothing of our core and shares no line with it, so that the two can contradict each other.
 *
 * Everything that follows from the records is worked out afterwards (src/observer/account.rs): here an event costs a clock,
 * a few loads and a copy. Nothing wakes a reader meanwhile.
 */
typedef unsigned char u8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;

#define SEC(name) __attribute__((section(name), used))
#define CORE __attribute__((preserve_access_index))
#define __uint(name, val) int(*name)[val]
#define MAP_RINGBUF 27
#define NO_WAKEUP 1
#define TASK_DEAD 0x80

/* Helpers by their stable numbers (include/uapi/linux/bpf.h). */
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static void *(*bpf_ringbuf_reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;

struct cpumask {
	unsigned long bits[1];
} CORE;
struct task_struct {
	unsigned int __state;
	s32 pid;
	s32 tgid;
	const struct cpumask *cpus_ptr;
	char comm[16];
} CORE;

enum { WAKEUP = 1, SWITCH = 2 };
enum { BLOCKED, RUNNABLE };

/* The same in src/observer/mod.rs. */
struct record {
	u64 at;
	u64 allowed; /* CPUs, of the first 64: of the woken task, or of the one that leaves */
	u32 cpu;
	s32 prev;
	s32 task; /* the woken one, or the next */
	s32 tgid;
	u8 comm[16]; /* of `task` */
	u32 kind;
	u32 prev_state;
};
_Static_assert(sizeof(struct record) == 56, "record");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 64 << 20);
} ob_ring SEC(".maps");

u64 ob_lost SEC(".bss.ob_lost");

static inline __attribute__((always_inline)) struct record *
begin(const struct task_struct *task, const struct task_struct *whose, u32 kind)
{
	struct record *r = bpf_ringbuf_reserve(&ob_ring, sizeof(*r), 0);

	if (!r) {
		__sync_fetch_and_add(&ob_lost, 1);
		return r;
	}
	r->at = bpf_ktime_get_ns();
	r->cpu = bpf_get_smp_processor_id();
	r->task = task->pid;
	r->tgid = task->tgid;
	r->kind = kind;
	/* With migration disabled this points to a mask of one CPU. */
	r->allowed = whose->cpus_ptr->bits[0];
	bpf_probe_read_kernel(r->comm, sizeof(r->comm), task->comm);
	return r;
}

static inline __attribute__((always_inline)) int woken(const struct task_struct *task)
{
	struct record *r = begin(task, task, WAKEUP);

	if (r) {
		r->prev = 0;
		r->prev_state = BLOCKED;
		bpf_ringbuf_submit(r, NO_WAKEUP);
	}
	return 0;
}

SEC("tp_btf/sched_wakeup")
int ob_wakeup(u64 *ctx)
{
	return woken((const struct task_struct *)ctx[0]);
}

SEC("tp_btf/sched_wakeup_new")
int ob_wakeup_new(u64 *ctx)
{
	return woken((const struct task_struct *)ctx[0]);
}

SEC("tp_btf/sched_switch")
int ob_switch(u64 *ctx)
{
	const struct task_struct *prev = (const struct task_struct *)ctx[1];
	const struct task_struct *next = (const struct task_struct *)ctx[2];
	unsigned int state = prev->__state;
	struct record *r = begin(next, prev, SWITCH);

	if (r) {
		r->prev = prev->pid;
		/* A task that a signal kept awake has its state back by now. */
		r->prev_state = !(state & TASK_DEAD) && (ctx[0] || !state) ? RUNNABLE : BLOCKED;
		bpf_ringbuf_submit(r, NO_WAKEUP);
	}
	return 0;
}

char _license[] SEC("license") = "GPL";
