/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The little of the kernel that the monitor reads, declared by hand: each struct is a subset, and
 * preserve_access_index makes the loader find each field's place in the running kernel's BTF (CO-RE).
 */
#ifndef MONITOR_KERNEL_H
#define MONITOR_KERNEL_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int s32;
typedef long long s64;
typedef _Bool bool;
#define NULL ((void *)0)

#define SEC(name) __attribute__((section(name), used))
#define __always_inline inline __attribute__((always_inline))
#define __noinline __attribute__((noinline))
#define CORE __attribute__((preserve_access_index))
#define READ_ONCE(x) (*(volatile __typeof__(x) *)&(x))
#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)
#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define FIELD_HAS(field) __builtin_preserve_field_info(field, 2 /* BPF_FIELD_EXISTS */)
#define ENUM_VALUE(type, v) __builtin_preserve_enum_value(*(__typeof__(enum type) *)v, 1 /* BPF_ENUMVAL_VALUE */)

/* Map definitions, as libbpf reads them from BTF. */
#define __uint(name, val) int(*name)[val]
#define __type(name, val) __typeof__(val) *name
enum { MAP_HASH = 1, MAP_ARRAY = 2, MAP_QUEUE = 22, MAP_TASK_STORAGE = 29 };
#define TASK_DEAD 0x80
#define BPF_ANY 0
#define BPF_NOEXIST 1
#define BPF_F_NO_PREALLOC 1
#define BPF_F_MMAPABLE 1024
#define BPF_LOCAL_STORAGE_CREATE 1

/* Helpers by their stable numbers (include/uapi/linux/bpf.h). */
struct task_struct;
struct seq_file;
static void *(*bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static long (*bpf_map_update_elem)(void *map, const void *key, const void *value, u64 flags) = (void *)2;
static u64 (*bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*bpf_get_smp_processor_id)(void) = (void *)8;
static long (*bpf_map_push_elem)(void *map, const void *value, u64 flags) = (void *)87;
static long (*bpf_map_pop_elem)(void *map, void *value) = (void *)88;
static long (*bpf_probe_read_kernel)(void *dst, u32 size, const void *src) = (void *)113;
static long (*bpf_seq_write)(struct seq_file *m, const void *data, u32 len) = (void *)127;
static void *(*bpf_task_storage_get)(void *map, struct task_struct *p, void *value, u64 flags) = (void *)156;

/* Kernel types, only the fields we read. */
struct kernfs_node {
	u64 id;
} CORE;
struct cgroup {
	struct kernfs_node *kn;
} CORE;
struct cgroup_subsys_state {
	struct cgroup *cgroup;
} CORE;
enum cgroup_subsys_id { cpu_cgrp_id };
struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
} CORE;
/*
 * How long the tasks of a run queue were kept from running by cpu.max, so far, added up when that ends. By the
 * age of the kernel: from 6.6, from 5.19, and before.
 */
struct rq {
	u64 clock;
} CORE;
struct cfs_rq {
	struct rq *rq; /* with CONFIG_FAIR_GROUP_SCHED, which cgroups with CPU shares need */
	u64 throttled_clock_self_time;
	u64 throttled_clock_pelt_time;
	u64 throttled_clock_task_time;
} CORE;
struct sched_entity {
	u64 sum_exec_runtime;
	struct cfs_rq *cfs_rq;
} CORE;
/* Empty without CONFIG_SCHED_INFO, which CONFIG_SCHEDSTATS and CONFIG_TASK_DELAY_ACCT each select. */
struct sched_info {
	u64 run_delay;
	u64 last_arrival;
	u64 last_queued;
} CORE;
struct thread_info {
	u32 cpu;
} CORE;
struct task_struct {
	struct thread_info thread_info;
	unsigned int __state;
	u32 on_cpu; /* an int, and a byte in newer kernels (seen: 7.3): unsigned, or the loader could not fit the size */
	s32 pid;
	s32 tgid;
	struct task_struct *group_leader;
	struct sched_entity se;
	struct sched_info sched_info;
	unsigned long nvcsw;
	unsigned long nivcsw;
	u64 start_time;
	struct css_set *cgroups;
	char comm[16];
} CORE;

/* What an iterator's program gets; the names are those of the kernel. */
struct bpf_iter_meta {
	struct seq_file *seq;
} CORE;
struct bpf_iter__task {
	struct bpf_iter_meta *meta;
	struct task_struct *task;
};

#endif
