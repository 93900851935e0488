/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * SYSCALL programs: what user space may ask of the core. The context is as long as each argument's struct
 * (BPF_PROG_RUN wants ctx_size_in).
 */
#ifndef QUMUN_CALLS_H
#define QUMUN_CALLS_H
#include "custody.h"
#include "near.h"

/* The calling thread becomes the agent. Whatever an earlier one held is void. */
SEC("syscall")
int qumun_hello(struct qm_hello *args)
{
	u64 id = bpf_get_current_pid_tgid(), now = now_ns();

	view.agent_pid = (s32)id;
	view.agent_tgid = (s32)(id >> 32);
	core.agent_cpu = -1;
	core.agent_last_cpu = -1;
	core.agent_queued = scx_bpf_dsq_nr_queued(DSQ_AGENT) > 0;
	core.crowd = 1;
	core.agent_ran_at = now;
	/* Its thread is bound to that CPU, or it is no more there soon: see enqueue. */
	if (config.dedicated)
		view.dedicated = this_cpu() + 1 == config.dedicated && cpu_usable(this_cpu()) ? config.dedicated : 0;
	if (!latch_fall(now, QM_REASON_HELLO))
		__sync_fetch_and_add(&view.epoch, 1);
	args->epoch = view.epoch;
	args->dedicated = config.dedicated && !view.dedicated ? config.dedicated : 0;
	return 0;
}

/* Claims idle CPUs for a batch of tasks (qm_agent.requests), the asked CPU first. */
SEC("syscall")
int qumun_select_cpu(struct qm_select *args)
{
	u32 n = args->count, answered = 0;
	int i;

	if (n == 0 || n > QM_SELECT_MAX)
		return -22; /* EINVAL */
	FOR(i, QM_SELECT_MAX) {
		struct qm_request *r;
		struct task_struct *p;
		s32 cpu = -1, first;

		if (i >= n)
			break;
		r = &agent.requests[i & (QM_SELECT_MAX - 1)];
		first = r->cpu;
		p = bpf_task_from_pid(r->pid);
		if (p) {
			bpf_rcu_read_lock();
			if (cpu_open(first) && bpf_cpumask_test_cpu(first, p->cpus_ptr) &&
			    scx_bpf_test_and_clear_cpu_idle(first))
				cpu = first;
			else
				cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
			if (cpu >= 0 && agent_owns(cpu))
				cpu = -1;
			bpf_rcu_read_unlock();
			bpf_task_release(p);
		}
		r->cpu = cpu < 0 ? -1 : cpu;
		answered += cpu >= 0;
	}
	args->answered = answered;
	return 0;
}

/* Lets the core decide alone, or asks the agent again. */
SEC("syscall")
int qumun_mode(struct qm_mode *args)
{
	int was = set_kernel_mode(now_ns(), args->kernel != 0);

	if (was < 0)
		return was;
	args->was = was;
	return 0;
}

/* Wakes those of some CPUs (qm_agent.wake) that are idle: the agent has a CPU for itself, and what it decided is for them. */
SEC("syscall")
int qumun_wake(struct qm_wake *args)
{
	u32 woken = 0;
	int i, n;

	FOR(i, QM_IDLE_WORDS) {
		u64 word;

		if (i * 64 >= config.nr_cpu_ids)
			break;
		word = READ_ONCE(agent.wake[i & (QM_IDLE_WORDS - 1)]) & READ_ONCE(view.idle[i & (QM_IDLE_WORDS - 1)]);
		FOR(n, 64) {
			if (!word)
				break;
			woken += kick_if_idle(i * 64 + lowest_bit(word));
			word &= word - 1;
		}
	}
	args->woken = woken;
	return 0;
}

/* Ends the slice of whatever runs on a CPU. */
SEC("syscall")
int qumun_preempt(struct qm_preempt *args)
{
	s32 cpu = args->cpu;

	if (!cpu_usable(cpu))
		return -22; /* EINVAL */
	count()->preempts++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	return 0;
}


/*
 * Sets or reads what is kept about one task. Its children and threads get the same when they are made.
 * What may be set is bounded here as everything from user space is.
 */
SEC("syscall")
int qumun_task(struct qm_task *args)
{
	struct task_struct *p = bpf_task_from_pid(args->pid);
	struct task_ctx *t;
	int err = 0;

	if (!p)
		return -3; /* ESRCH */
	t = bpf_task_storage_get(&qm_tasks, p, NULL, 0);
	if (!t) {
		err = -3;
		goto out;
	}
	if (args->set) {
		t->label = args->label;
		t->rule_table = 0;
		t->slice_ns = args->slice_ns && args->slice_ns < config.slice_min_ns ? config.slice_min_ns :
			      args->slice_ns > config.slice_max_ns		     ? config.slice_max_ns :
										       args->slice_ns;
	}
	args->label = t->label;
	args->slice_ns = t->slice_ns;
	args->generation = t->custody >> STATE_BITS;
	args->state = t->custody & STATE_MASK;
	args->tid = FIELD_HAS(p->scx.tid) ? p->scx.tid : 0;
	args->vtime = t->vtime;
out:
	bpf_task_release(p);
	return err;
}
#endif
