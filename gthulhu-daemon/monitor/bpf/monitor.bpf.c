// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The monitor: what scheduling does to each cgroup. All of it is counted when a task leaves a CPU.
 *
 * The kernel itself keeps, for each thread, how long it has run (se.sum_exec_runtime), how long it has waited in
 * run queues (sched_info.run_delay, include/linux/sched.h: never sleep) and how often it blocked (nvcsw). They
 * only grow. So there is no need to watch wakeups: what a thread did since it was last seen is a difference, and
 * nothing is lost with an event that is not seen. A switch costs one look into the task's storage and no clock.
 * Kernels without sched_info are watched at wakeups (mon_own_*).
 */
#include "count.h"
#include "threads.h"

/* Called before the kernel notes that next has arrived, and after prev's run time was brought up to date. */
SEC("tp_btf/sched_switch")
int mon_switch(u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	struct seen *s;

	if (!prev->pid)
		return 0;
	s = bpf_task_storage_get(&mon_seen, prev, NULL, 0);
	if (unlikely(!s)) {
		s = meet(prev);
		if (!s)
			return 0;
	}
	left(prev, s, 0);
	return 0;
}

/*
 * The same with the wait measured here. That the next task has arrived is noted for the CPU, not for the task: it is
 * looked up once, when it leaves.
 */
SEC("tp_btf/sched_switch")
int mon_own_switch(u64 *ctx)
{
	struct task_struct *prev = (struct task_struct *)ctx[1];
	struct seen *s;
	u64 now;

	if (!prev->pid) {
		this_lane()->own_arrived = queue_clock(prev);
		return 0;
	}
	s = bpf_task_storage_get(&mon_seen, prev, NULL, 0);
	if (unlikely(!s))
		s = meet(prev);
	now = queue_clock(prev);
	if (s) {
		left(prev, s, 1);
		/* Not the tracepoint's argument: a task that a signal kept awake has its state back by now. */
		s->own_queued = prev->__state ? 0 : now;
	}
	this_lane()->own_arrived = now;
	return 0;
}

static __always_inline int woken(struct task_struct *p)
{
	struct seen *s;

	/* One that runs is woken before it has left: it does not wait. */
	if (p->on_cpu)
		return 0;
	s = bpf_task_storage_get(&mon_seen, p, NULL, 0);
	if (s && !s->own_queued)
		s->own_queued = queue_clock(p);
	return 0;
}

SEC("tp_btf/sched_wakeup")
int mon_own_wakeup(u64 *ctx)
{
	return woken((struct task_struct *)ctx[0]);
}

SEC("tp_btf/sched_wakeup_new")
int mon_own_wakeup_new(u64 *ctx)
{
	return woken((struct task_struct *)ctx[0]);
}

/* No lock is held here, so this is where a new task's storage is made. */
SEC("tp_btf/sched_process_fork")
int mon_fork(u64 *ctx)
{
	struct task_struct *child = (struct task_struct *)ctx[1];
	struct seen born = { .woken = 1 }, *s;
	struct row *row;

	s = bpf_task_storage_get(&mon_seen, child, &born, BPF_LOCAL_STORAGE_CREATE);
	if (!s)
		return 0;
	row = row_of(child, s, bpf_get_smp_processor_id());
	if (row)
		__sync_fetch_and_add(&row->created, 1);
	return 0;
}

SEC("tp_btf/sched_process_exit")
int mon_exit(u64 *ctx)
{
	struct task_struct *p = (struct task_struct *)ctx[0];
	struct seen *s = bpf_task_storage_get(&mon_seen, p, NULL, 0);
	struct row *row;

	if (!s)
		return 0;
	row = row_of(p, s, bpf_get_smp_processor_id());
	if (row)
		__sync_fetch_and_add(&row->exited, 1);
	return 0;
}

/* Tasks go to another cgroup: each looks up its row again. */
SEC("tp_btf/cgroup_attach_task")
int mon_attach(u64 *ctx)
{
	__sync_fetch_and_add(&mon_shared.epoch, 1);
	return 0;
}

char _license[] SEC("license") = "GPL";
