/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * In place of kernel.h and kfuncs.h: the same names, for a core that is compiled for the host. The kernel is on the
 * Rust side (src/lib.rs): functions that begin with "rust_".
 */
#ifndef QUMUN_NATIVE_LINUX_H
#define QUMUN_NATIVE_LINUX_H
/* In place of these two. */
#define QUMUN_KERNEL_H
#define QUMUN_KFUNCS_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef _Bool bool;
#define true 1
#define false 0
#define NULL ((void *)0)

/* Settings are fixed at load there, and set before each history here. */
#define const

#define SEC(name) __attribute__((used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val) *name
enum { MAP_ARRAY = 2, MAP_RINGBUF = 27, MAP_TASK_STORAGE = 29, MAP_USER_RINGBUF = 31, MAP_CGRP_STORAGE = 32 };
#define BPF_F_NO_PREALLOC 1
#define BPF_LOCAL_STORAGE_CREATE 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_AVAIL_DATA 0
#define CLOCK_MONOTONIC 1
#define BPF_F_TIMER_CPU_PIN 2

struct bpf_timer {
	u64 opaque[2];
};
struct bpf_dynptr {
	void *data;
};
struct cpumask {
	u64 bits[1];
};
struct kernfs_node {
	u64 id;
};
/* The Rust side has the same (Cgroup). */
struct cgroup {
	struct kernfs_node *kn;
	int level;
	u32 has_storage;
	struct cgroup *parent;
	u8 storage[8];
	struct kernfs_node node;
};
struct css_set {
	struct cgroup *dfl_cgrp;
};
struct sched_ext_entity {
	u32 flags;
	u32 weight;
	u64 slice;
	u64 dsq_vtime;
	u64 tid;
};
#define STORAGE 256
/* The Rust side has the same (Native). */
struct task_struct {
	u32 flags;
	s32 prio;
	s32 pid;
	s32 tgid;
	s32 nr_cpus_allowed;
	u32 thread;
	struct cpumask *cpus_ptr;
	struct css_set *cgroups;
	struct sched_ext_entity scx;
	u8 storage[STORAGE];
	struct cpumask mask;
	struct css_set css;
	struct cgroup cgroup;
	u32 has_storage;
	u32 __state;
	u16 migration_disabled;
	char comm[16];
	u64 start_boottime;
	u64 leader_start_boottime;
};

struct scx_exit_info {
	u32 kind;
	s64 exit_code;
	char *reason;
	char *msg;
	char *dump;
};
struct scx_init_task_args {
	bool fork;
	struct cgroup *cgroup;
};
struct scx_cgroup_init_args {
	u32 weight;
	u64 bw_period_us;
	u64 bw_quota_us;
	u64 bw_burst_us;
};
struct scx_dump_ctx;
struct scx_exit_task_args;
struct scx_cpu_acquire_args;
struct scx_cpu_release_args;
struct bpf_iter_scx_dsq {
	u64 slot;
};

#define SCX_DSQ_GLOBAL 0x8000000000000001ULL
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_DSQ_LOCAL_ON 0xC000000000000000ULL
#define SCX_ENQ_WAKEUP 1ULL
#define SCX_ENQ_LAST (1ULL << 41)
#define SCX_ENQ_PREEMPT (1ULL << 32)
#define SCX_KICK_IDLE 1ULL
#define SCX_KICK_PREEMPT 2ULL
#define SCX_TASK_QUEUED 1U
#define SCX_DSQ_ITER_REV 0x10000ULL
#define TASK_UNINTERRUPTIBLE 2
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000
#define MAX_RT_PRIO 100
/* A kernel that has everything but what the Rust side does not model: the task's own number, disabled migration. */
#define ENUM_HAS(type, v) 1
#define ENUM_VALUE(type, v) (v)
#define FIELD_HAS(field) (!__builtin_strcmp(#field, "args->cgroup") || !__builtin_strcmp(#field, "args->bw_quota_us"))
#define HAS(f) HAS_##f
#define HAS_scx_bpf_select_cpu_dfl 1
#define HAS_scx_bpf_reenqueue_local 0
#define HAS_scx_bpf_reenqueue_local___v2___q 0
#define HAS_scx_bpf_dsq_reenq 0

/* The Rust side. */
u64 rust_now(void);
u32 rust_this_cpu(void);
struct task_struct *rust_current(void);
struct task_struct *rust_find(s32 pid);
s32 rust_task_cpu(struct task_struct *p);
s32 rust_nr_queued(u64 dsq);
void rust_kick(s32 cpu, u64 flags);
void rust_alarm(u64 after);
bool rust_claim_idle(s32 cpu);
s32 rust_pick_idle(struct task_struct *p);
s32 rust_claim_near(struct task_struct *p, s32 prev);
void rust_insert(struct task_struct *p, u64 dsq, u64 slice, u64 vtime, bool first);
bool rust_to_local(u64 dsq);
u64 rust_iter_new(u64 dsq, bool reverse);
struct task_struct *rust_iter_next(u64 slot);
void rust_iter_destroy(u64 slot);
bool rust_move(u64 slot, struct task_struct *p, u64 dsq, u64 slice, u64 vtime);
void rust_set_slice(struct task_struct *p, u64 slice);
bool rust_event_room(void);
void rust_push_event(void *event);
u64 rust_pending_events(void);
bool rust_next_decision(void *decision);
void rust_online(struct cpumask *mask);
bool rust_ring_busy(void);
bool rust_in_kernel(void);

struct qm_event;
struct qm_decision;
extern u8 event_buffer[];

/* Of the shared arrays (transport.h): how many events may be unread, as many as the Rust side has room for; and whether
 * another CPU is always faster. */
static u64 event_room;
#define EVENT_ROOM event_room
#define CLAIM_DECISIONS(at, n)                                                                     \
	(!rust_ring_busy() && __sync_val_compare_and_swap(&event_array.taken, at, (at) + (n)) == (at))

static u64 bpf_ktime_get_ns(void) { return rust_now(); }
static u32 bpf_get_smp_processor_id(void) { return rust_this_cpu(); }
/* Who calls in place of a task; 0: nobody does. */
static u64 greeting;
static u64 bpf_get_current_pid_tgid(void)
{
	struct task_struct *p = rust_current();

	if (greeting)
		return greeting;
	return p ? (u64)(u32)p->tgid << 32 | (u32)p->pid : 0;
}
static struct task_struct nobody;
static struct task_struct *bpf_get_current_task_btf(void) { return rust_current() ?: &nobody; }
/* Of the core's timers only the second one can be started: the first is the Rust side's, which needs no asking. */
static struct bpf_timer alarm_slot;
static void *bpf_map_lookup_elem(void *map, void *key) { return *(u32 *)key == 1 ? &alarm_slot : NULL; }
static long bpf_trace_printk(char *fmt, u32 size, ...) { return 0; }
static long bpf_probe_read_kernel_str(void *dst, u32 size, void *src) { return 0; }
static void *bpf_ringbuf_reserve(void *map, u64 size, u64 flags) { return rust_event_room() ? event_buffer : NULL; }
static void bpf_ringbuf_submit(void *data, u64 flags) { rust_push_event(data); }
static u64 bpf_ringbuf_query(void *map, u64 flags) { return rust_pending_events(); }
static void *bpf_task_storage_get(void *map, struct task_struct *p, void *value, u64 flags)
{
	if (!p->has_storage) {
		if (!(flags & BPF_LOCAL_STORAGE_CREATE))
			return NULL;
		__builtin_memset(p->storage, 0, sizeof(p->storage));
		p->has_storage = 1;
	}
	return p->storage;
}
static void *bpf_cgrp_storage_get(void *map, struct cgroup *cgrp, void *value, u64 flags)
{
	if (!cgrp->has_storage) {
		if (!(flags & BPF_LOCAL_STORAGE_CREATE))
			return NULL;
		__builtin_memset(cgrp->storage, 0, sizeof(cgrp->storage));
		cgrp->has_storage = 1;
	}
	return cgrp->storage;
}
static long bpf_timer_init(struct bpf_timer *t, void *map, u64 flags) { return 0; }
static long bpf_timer_set_callback(struct bpf_timer *t, void *fn) { return 0; }
static long bpf_timer_start(struct bpf_timer *t, u64 ns, u64 flags)
{
	if (t == &alarm_slot)
		rust_alarm(ns);
	return 0;
}
static long bpf_dynptr_read(void *dst, u32 len, struct bpf_dynptr *src, u32 off, u64 flags)
{
	__builtin_memcpy(dst, (char *)src->data + off, len);
	return 0;
}
/* Kernel: from the consumer's to the producer's position, until the callback returns non-zero. One CPU at a time. */
static long bpf_user_ringbuf_drain(void *map, void *fn, void *ctx, u64 flags)
{
	long (*callback)(struct bpf_dynptr *, void *) = fn;
	u64 record[16];
	struct bpf_dynptr data = { record };
	long n = 0;

	if (rust_ring_busy())
		return -16;
	while (rust_next_decision(record)) {
		n++;
		if (callback(&data, ctx))
			break;
	}
	return n;
}

static struct task_struct *bpf_task_from_pid(s32 pid) { return rust_find(pid); }
static void bpf_task_release(struct task_struct *p) {}
static bool bpf_cpumask_test_cpu(u32 cpu, struct cpumask *mask) { return cpu < 64 && mask->bits[0] >> cpu & 1; }
static void bpf_rcu_read_lock(void) {}
static void bpf_rcu_read_unlock(void) {}
static void bpf_cgroup_release(struct cgroup *cgrp) {}
/* Only init_task asks, for the one in its arguments. */
static struct cgroup *cgroup_asked;
static struct cgroup *bpf_cgroup_from_id(u64 id) { return cgroup_asked; }
static struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level)
{
	while (cgrp && cgrp->level > level)
		cgrp = cgrp->parent;
	return cgrp;
}
static s32 scx_bpf_create_dsq(u64 id, s32 node) { return 0; }
static s32 scx_bpf_dsq_nr_queued(u64 id) { return rust_nr_queued(id); }
static s32 scx_bpf_task_cpu(struct task_struct *p) { return rust_task_cpu(p); }
static void scx_bpf_kick_cpu(s32 cpu, u64 flags) { rust_kick(cpu, flags); }
static bool scx_bpf_test_and_clear_cpu_idle(s32 cpu) { return rust_claim_idle(cpu); }
/* Which task it is for is known by its mask, which is its own. */
static s32 scx_bpf_pick_idle_cpu(struct cpumask *allowed, u64 flags)
{
	return rust_pick_idle((void *)((char *)allowed - __builtin_offsetof(struct task_struct, mask)));
}
static struct cpumask online_mask;
static struct cpumask *scx_bpf_get_online_cpumask(void)
{
	rust_online(&online_mask);
	return &online_mask;
}
static void scx_bpf_put_cpumask(struct cpumask *mask) {}
static s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev, u64 flags, bool *is_idle)
{
	s32 cpu = rust_claim_near(p, prev);

	*is_idle = cpu >= 0;
	return cpu >= 0 ? cpu : prev;
}
static s32 claim_near(struct task_struct *p, s32 prev) { return rust_claim_near(p, prev); }
static void scx_bpf_dump_bstr(char *fmt, unsigned long long *data, u32 size) {}
static u32 scx_bpf_reenqueue_local(void) { return 0; }
static void scx_bpf_reenqueue_local___v2___q(void) {}
static void scx_bpf_dsq_reenq(u64 id, u64 flags) {}
static int bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 id, u64 flags)
{
	it->slot = rust_iter_new(id, (flags & SCX_DSQ_ITER_REV) != 0);
	return 0;
}
static struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it) { return rust_iter_next(it->slot); }
static void bpf_iter_scx_dsq_destroy(struct bpf_iter_scx_dsq *it) { rust_iter_destroy(it->slot); }
static void dsq_insert(struct task_struct *p, u64 id, u64 slice, u64 flags) 
{
	rust_insert(p, id, slice, 0, flags & SCX_ENQ_PREEMPT);
}
static void dsq_insert_vtime(struct task_struct *p, u64 id, u64 slice, u64 vtime, u64 flags)
{
	rust_insert(p, id, slice, vtime, false);
}
static bool dsq_to_local(u64 id) { return rust_to_local(id); }
static bool dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 id, u64 slice)
{
	return rust_move(it->slot, p, id, slice, 0);
}
static bool dsq_move_vtime(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 id, u64 slice, u64 vtime)
{
	return rust_move(it->slot, p, id, slice, vtime);
}
static u64 process_born(struct task_struct *p) { return p->leader_start_boottime; }
static bool was_in_user_space(struct task_struct *p, u64 *seen) { return !rust_in_kernel(); }
static void set_slice(struct task_struct *p, u64 slice) { rust_set_slice(p, slice); }

#define FOR(i, n) for ((i) = 0; (i) < (int)(n); (i)++)

/* As in kernel.h, and reachable from the Rust side. */
#define EXPORT __attribute__((visibility("default")))
#define OPS1(ret, name, t1, a1)                                                                    \
	static __always_inline ret name##_(t1 a1);                                                 \
	EXPORT s64 qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0])); }            \
	static __always_inline ret name##_(t1 a1)
#define OPS2(ret, name, t1, a1, t2, a2)                                                            \
	static __always_inline ret name##_(t1 a1, t2 a2);                                          \
	EXPORT s64 qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0], (t2)ctx[1])); } \
	static __always_inline ret name##_(t1 a1, t2 a2)
#define OPS3(ret, name, t1, a1, t2, a2, t3, a3)                                                    \
	static __always_inline ret name##_(t1 a1, t2 a2, t3 a3);                                   \
	EXPORT s64 qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0], (t2)ctx[1], (t3)ctx[2])); } \
	static __always_inline ret name##_(t1 a1, t2 a2, t3 a3)
#define RETURN_void(call) (call, 0)
#define RETURN_s32(call) (call)

/* Nobody calls through it here. */
struct sched_ext_ops {
	void *select_cpu, *enqueue, *dispatch, *tick, *running, *stopping, *set_weight,
		*set_cpumask, *update_idle, *init_task, *exit_task, *enable, *disable, *dump, *dump_cpu, *dump_task,
		*cgroup_init, *cgroup_exit, *cgroup_move, *cgroup_set_weight,
		*cgroup_set_bandwidth, *cpu_online, *cpu_offline, *cpu_acquire, *cpu_release, *init, *exit;
	u64 flags;
	u32 dispatch_max_batch;
	u32 timeout_ms;
	u32 exit_dump_len;
	char name[128];
};
#endif
