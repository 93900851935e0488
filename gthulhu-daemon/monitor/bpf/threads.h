/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Over all threads, when user space asks: to meet those that are older than the monitor, and to look at some. */
#ifndef MONITOR_THREADS_H
#define MONITOR_THREADS_H
#include "count.h"

static __always_inline bool wanted(struct task_struct *p, struct thread_rec *rec)
{
	switch (mon_shared.iterate) {
	case ITER_RUNNING:
		return p->on_cpu;
	case ITER_ALL:
		return 1;
	case ITER_PROCESS:
		return p->tgid == mon_shared.tgid;
	case ITER_GROUP:
		return rec->group == mon_shared.group;
	}
	return 0;
}

SEC("iter/task")
int mon_threads(struct bpf_iter__task *ctx)
{
	struct task_struct *p = ctx->task;
	struct thread_rec rec = {};
	struct seen *s;

	if (!p)
		return 0;
	if (mon_shared.iterate == ITER_SEED) {
		struct seen now = {};

		as_now(p, &now);
		s = bpf_task_storage_get(&mon_seen, p, &now, BPF_LOCAL_STORAGE_CREATE);
		return 0;
	}
	rec.group = group_of(p);
	if (!wanted(p, &rec))
		return 0;
	rec.run_ns = p->se.sum_exec_runtime;
	s = bpf_task_storage_get(&mon_seen, p, NULL, 0);
	if (!mon_config.own_wait)
		rec.wait_ns = p->sched_info.run_delay;
	else if (s)
		rec.wait_ns = p->on_cpu ? own_waited(s, mon_lanes[p->thread_info.cpu & (MAX_CPUS - 1)].own_arrived) : s->waited;
	if (s) {
		u64 ran = s->ran, waited = s->waited;

		/* It may leave its CPU at any moment. */
		rec.pending_run_ns = rec.run_ns > ran ? rec.run_ns - ran : 0;
		rec.pending_wait_ns = rec.wait_ns > waited ? rec.wait_ns - waited : 0;
		rec.migrations = s->migrations;
		rec.throttled_ns = s->throttled_ns;
	}
	rec.voluntary = p->nvcsw;
	rec.involuntary = p->nivcsw;
	rec.start_ns = p->start_time;
	rec.pid = p->pid;
	rec.tgid = p->tgid;
	rec.cpu = p->thread_info.cpu;
	rec.on_cpu = p->on_cpu;
	bpf_probe_read_kernel(rec.comm, sizeof(rec.comm), p->comm);
	bpf_seq_write(ctx->meta->seq, &rec, sizeof(rec));
	return 0;
}
#endif
