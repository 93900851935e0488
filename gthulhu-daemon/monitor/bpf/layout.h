/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* What the programs and user space share. The same in src/layout.rs, which checks the sizes. */
#ifndef MONITOR_LAYOUT_H
#define MONITOR_LAYOUT_H
#include "kernel.h"

/* Bucket 0 is below 1.024 us, bucket i below 1.024 us << i, and the last, from 4.3 s, has no end. */
#define BUCKETS 24
#define FIRST_BUCKET_SHIFT 10
#define DISTANCES 5
#define MAX_CPUS 1024
#define STINTS 16
/* The row that takes what has no row of its own. */
#define OTHER 0

/* Known to the verifier as constants: what is off costs nothing. */
struct config {
	u64 since; /* CLOCK_MONOTONIC, just before the load: older tasks are met in mid-life */
	u32 nr_cpus; /* possible CPUs are numbered below this */
	u32 by_cpu_controller; /* a task's group is its cgroup of the v1 hierarchy "cpu", not that of v2 */
	u32 may_allocate; /* this kernel can make task storage with a run queue locked */
	u32 own_wait; /* waits are measured at wakeups: the kernel keeps no sched_info */
};

/* One cgroup on one CPU, written by that CPU alone (created and exited: atomically). */
struct row {
	u64 run_ns;
	u64 wait_ns[2]; /* after it was preempted, after it was woken */
	u64 throttled_ns;
	/* Where the CPU's run queue of this group stood when it was last seen to have been throttled. */
	u64 throttled_total;
	u64 throttled_at;
	u64 throttled_for;
	u32 migrations[DISTANCES];
	u32 created;
	u32 exited;
	u32 zero;
	u32 runs[2][BUCKETS]; /* by how the run ended: preempted, blocked */
	u32 waits[2][BUCKETS]; /* as wait_ns */
	u64 spare[5];
};

/* One after another on one CPU, all of one group. */
struct stint {
	u64 begin;
	u64 end;
	u64 ran;
	u64 slot;
};

/* One CPU's. */
struct lane {
	u64 short_waits; /* of which some are looked into */
	u64 missed; /* runs not counted yet: there was no memory for the task's state */
	u64 blamed; /* waits that were looked into */
	u64 unblamed; /* of those, what found no room in mon_blame */
	u64 ring_at;
	u64 resolved; /* times that a task's row was looked up */
	u64 own_arrived; /* where the kernel keeps no sched_info: when the task that runs was given the CPU */
	u64 spare;
	struct stint now;
	struct stint ring[STINTS]; /* those before */
};

struct shared {
	u64 epoch; /* changes when a task's row may have */
	u64 refused; /* groups that found no free row */
	u32 iterate; /* what the iterator does */
	s32 tgid; /* ITER_PROCESS: of this one */
	u64 group; /* ITER_GROUP: in this one */
};

enum { ITER_SEED, ITER_RUNNING, ITER_ALL, ITER_PROCESS, ITER_GROUP };

/* A cgroup that has a row. */
struct group {
	u64 id; /* 0: free */
};

/* Where a CPU is; two with the same number share the thing. */
struct place {
	u32 core, l2, l3, node;
};

struct blame_key {
	u64 waited; /* this group */
	u64 ran; /* while this one ran */
};
struct blame {
	u64 ns;
	u64 samples;
};

/* From the iterator. */
struct thread_rec {
	u64 group;
	u64 run_ns; /* since it was born, as are the next four */
	u64 wait_ns;
	u64 voluntary;
	u64 involuntary;
	u64 migrations; /* since the monitor knows it */
	u64 throttled_ns; /* since the monitor knows it */
	u64 pending_run_ns; /* of it, not in the rows yet */
	u64 pending_wait_ns;
	u64 start_ns; /* CLOCK_MONOTONIC */
	s32 pid;
	s32 tgid;
	u32 cpu;
	u32 on_cpu;
	char comm[16];
};

_Static_assert(sizeof(struct config) == 24, "config");
_Static_assert(sizeof(struct row) == 512, "row");
_Static_assert(sizeof(struct lane) == 64 + 32 * (1 + STINTS), "lane");
_Static_assert(sizeof(struct shared) == 32, "shared");
_Static_assert(sizeof(struct thread_rec) == 112, "thread_rec");
#endif
