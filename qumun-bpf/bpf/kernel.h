/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The little of the kernel that the core touches, declared by hand: a vmlinux.h would be 3.6 MB
 * and tied to one architecture. Every struct here is a subset; preserve_access_index makes the
 * loader find each field's real place in the running kernel's BTF (CO-RE). A field that is an
 * enum there must be an enum here, or the relocation fails.
 */
#ifndef QUMUN_KERNEL_H
#define QUMUN_KERNEL_H

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

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define __ksym __attribute__((section(".ksyms")))
#define __weak __attribute__((weak))
#define CORE __attribute__((preserve_access_index))
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

/* Map definitions, as libbpf reads them from BTF. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val) *name
enum { MAP_ARRAY = 2, MAP_RINGBUF = 27, MAP_TASK_STORAGE = 29, MAP_USER_RINGBUF = 31, MAP_CGRP_STORAGE = 32 };
#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_LOCAL_STORAGE_CREATE 1
#define BPF_RB_NO_WAKEUP 1
#define BPF_RB_AVAIL_DATA 0
#define CLOCK_MONOTONIC 1
#define BPF_F_TIMER_CPU_PIN 2

/* Helpers by their stable numbers (include/uapi/linux/bpf.h). */
struct bpf_timer {
	u64 opaque[2];
} __attribute__((aligned(8)));
struct bpf_dynptr {
	u64 opaque[2];
} __attribute__((aligned(8)));
struct task_struct;
struct cgroup;
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static long (*bpf_trace_printk)(const char *fmt, u32 size, ...) = (void *)6;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static u64 (*bpf_get_current_pid_tgid)(void) = (void *)14;
static long (*bpf_probe_read_kernel_str)(void *dst, u32 size, const void *src) = (void *)115;
static void *(*bpf_ringbuf_reserve)(void *map, u64 size, u64 flags) = (void *)131;
static void (*bpf_ringbuf_submit)(void *data, u64 flags) = (void *)132;
static u64 (*bpf_ringbuf_query)(void *map, u64 flags) = (void *)134;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *p, void *value,
				     u64 flags) = (void *)156;
static struct task_struct *(*bpf_get_current_task_btf)(void) = (void *)158;
static void *(*bpf_this_cpu_ptr)(const void *percpu) = (void *)154;
static long (*bpf_timer_init)(struct bpf_timer *t, void *map, u64 flags) = (void *)169;
static long (*bpf_timer_set_callback)(struct bpf_timer *t, void *fn) = (void *)170;
static long (*bpf_timer_start)(struct bpf_timer *t, u64 ns, u64 flags) = (void *)171;
static long (*bpf_dynptr_read)(void *dst, u32 len, const struct bpf_dynptr *src, u32 off,
			       u64 flags) = (void *)201;
static void *(*bpf_cgrp_storage_get)(void *map, struct cgroup *cgrp, void *value, u64 flags) = (void *)210;
static long (*bpf_user_ringbuf_drain)(void *map, void *fn, void *ctx, u64 flags) = (void *)209;

/* Kernel types, only the fields we read. */
struct cpumask {
	unsigned long bits[1];
} CORE;
struct kernfs_node {
	u64 id;
} CORE;
struct cgroup {
	struct kernfs_node *kn;
	int level;
} CORE;
struct css_set {
	struct cgroup *dfl_cgrp;
} CORE;
struct sched_ext_entity {
	u32 flags;
	u32 weight;
	u64 slice;
	u64 dsq_vtime;
	u64 tid;
} CORE;
struct task_struct {
	unsigned int __state;
	u32 flags;
	s32 prio;
	s32 pid;
	s32 tgid;
	int nr_cpus_allowed;
	const struct cpumask *cpus_ptr;
	unsigned short migration_disabled;
	u64 utime;
	u64 start_boottime;
	struct task_struct *group_leader;
	struct css_set *cgroups;
	struct sched_ext_entity scx;
	char comm[16];
} CORE;

enum scx_exit_kind { SCX_EXIT_NONE };
struct scx_exit_info {
	enum scx_exit_kind kind;
	s64 exit_code;
	const char *reason;
	char *msg;
	char *dump;
} CORE;
struct scx_init_task_args {
	bool fork;
	struct cgroup *cgroup;
} CORE;
struct scx_cgroup_init_args {
	u32 weight;
	u64 bw_period_us;
	u64 bw_quota_us;
	u64 bw_burst_us;
} CORE;
struct scx_dump_ctx;
struct scx_exit_task_args;
struct scx_cpu_acquire_args;
struct scx_cpu_release_args;

struct bpf_iter_num {
	u64 opaque[1];
} __attribute__((aligned(8)));
struct bpf_iter_scx_dsq {
	u64 opaque[6];
} __attribute__((aligned(8)));

/*
 * Values the kernel keeps stable across the versions we support; whether a kernel knows a flag
 * at all is asked of its BTF by the loader (ops flags) or here (EXISTS below).
 */
#define SCX_DSQ_GLOBAL 0x8000000000000001ULL
#define SCX_DSQ_LOCAL 0x8000000000000002ULL
#define SCX_DSQ_LOCAL_ON 0xC000000000000000ULL
#define SCX_ENQ_WAKEUP 1ULL
#define SCX_ENQ_LAST (1ULL << 41)
#define SCX_ENQ_PREEMPT (1ULL << 32) /* before all others of a local queue, and now */
#define SCX_KICK_IDLE 1ULL
#define SCX_KICK_PREEMPT 2ULL
#define SCX_TASK_QUEUED 1U
#define SCX_DSQ_ITER_REV 0x10000ULL
#define TASK_UNINTERRUPTIBLE 2
#define PF_EXITING 0x00000004
#define PF_KTHREAD 0x00200000
#define MAX_RT_PRIO 100

enum scx_ops_flags { SCX_OPS_ENQ_MIGRATION_DISABLED = 16 };
#define BPF_ENUMVAL_EXISTS 0
#define BPF_ENUMVAL_VALUE 1
#define ENUM_HAS(type, v) __builtin_preserve_enum_value(*(__typeof__(enum type) *)v, BPF_ENUMVAL_EXISTS)
#define ENUM_VALUE(type, v) __builtin_preserve_enum_value(*(__typeof__(enum type) *)v, BPF_ENUMVAL_VALUE)
#define BPF_FIELD_EXISTS 2
#define FIELD_HAS(field) __builtin_preserve_field_info(field, BPF_FIELD_EXISTS)

/*
 * The operations table. The loader zeroes by name each member that the running kernel does not
 * have (and clears the autoload of its program). MEMBERS in src/loader.rs lists them in this order.
 */
struct sched_ext_ops {
	s32 (*select_cpu)(struct task_struct *p, s32 prev_cpu, u64 wake_flags);
	void (*enqueue)(struct task_struct *p, u64 enq_flags);
	void (*dispatch)(s32 cpu, struct task_struct *prev);
	void (*tick)(struct task_struct *p);
	void (*running)(struct task_struct *p);
	void (*stopping)(struct task_struct *p, bool runnable);
	void (*set_weight)(struct task_struct *p, u32 weight);
	void (*set_cpumask)(struct task_struct *p, const struct cpumask *mask);
	void (*update_idle)(s32 cpu, bool idle);
	s32 (*init_task)(struct task_struct *p, struct scx_init_task_args *args);
	void (*exit_task)(struct task_struct *p, struct scx_exit_task_args *args);
	void (*enable)(struct task_struct *p);
	void (*disable)(struct task_struct *p);
	void (*dump)(struct scx_dump_ctx *ctx);
	void (*dump_cpu)(struct scx_dump_ctx *ctx, s32 cpu, bool idle);
	void (*dump_task)(struct scx_dump_ctx *ctx, struct task_struct *p);
	s32 (*cgroup_init)(struct cgroup *cgrp, struct scx_cgroup_init_args *args);
	void (*cgroup_exit)(struct cgroup *cgrp);
	void (*cgroup_move)(struct task_struct *p, struct cgroup *from, struct cgroup *to);
	void (*cgroup_set_weight)(struct cgroup *cgrp, u32 weight);
	void (*cgroup_set_bandwidth)(struct cgroup *cgrp, u64 period_us, u64 quota_us, u64 burst_us);
	void (*cpu_online)(s32 cpu);
	void (*cpu_offline)(s32 cpu);
	void (*cpu_acquire)(s32 cpu, struct scx_cpu_acquire_args *args);
	void (*cpu_release)(s32 cpu, struct scx_cpu_release_args *args);
	s32 (*init)(void);
	void (*exit)(struct scx_exit_info *ei);
	u64 flags;
	u32 dispatch_max_batch;
	u32 timeout_ms;
	u32 exit_dump_len;
	char name[128];
};

/*
 * Programs get their arguments as an array of u64. These give them names and types; the verifier
 * knows the real types from the operation that the program is attached to.
 */
#define OPS0(ret, name)                                                                            \
	static __always_inline ret name##_(void);                                                  \
	SEC("struct_ops/qumun_" #name) int qumun_##name(u64 *ctx) { return RETURN_##ret(name##_()); } \
	static __always_inline ret name##_(void)
#define OPS1(ret, name, t1, a1)                                                                    \
	static __always_inline ret name##_(t1 a1);                                                 \
	SEC("struct_ops/qumun_" #name)                                                             \
	int qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0])); }                   \
	static __always_inline ret name##_(t1 a1)
#define OPS2(ret, name, t1, a1, t2, a2)                                                            \
	static __always_inline ret name##_(t1 a1, t2 a2);                                          \
	SEC("struct_ops/qumun_" #name)                                                             \
	int qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0], (t2)ctx[1])); }       \
	static __always_inline ret name##_(t1 a1, t2 a2)
#define OPS3(ret, name, t1, a1, t2, a2, t3, a3)                                                    \
	static __always_inline ret name##_(t1 a1, t2 a2, t3 a3);                                   \
	SEC("struct_ops/qumun_" #name)                                                             \
	int qumun_##name(u64 *ctx) { return RETURN_##ret(name##_((t1)ctx[0], (t2)ctx[1], (t3)ctx[2])); } \
	static __always_inline ret name##_(t1 a1, t2 a2, t3 a3)
#define RETURN_void(call) (call, 0)
#define RETURN_s32(call) (call)
#endif
