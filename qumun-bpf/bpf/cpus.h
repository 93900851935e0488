/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * CPUs come and go, and other scheduling classes take them.
 */
#ifndef QUMUN_CPUS_H
#define QUMUN_CPUS_H
#include "custody.h"

OPS1(void, cpu_online, s32, cpu)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	/* Also when a way offline was given up. */
	WRITE_ONCE(core.leaving, 0);
	if (!__sync_lock_test_and_set(&cpus[c].online, 1)) {
		__sync_fetch_and_add(&view.nr_online, 1);
		__sync_fetch_and_or(&view.online[c / 64], 1ULL << (c & 63));
	}
	debug("cpu %d is online", cpu);
}

/*
 * The first step of a CPU's way offline. cpu_offline comes much later: before it the CPU becomes
 * inactive (from then on the kernel does not let it dispatch) and the kernel waits for RCU. What is
 * queued for that CPU alone in between waits for RCU too, and if that is the RCU thread, for ever. So
 * from here on nothing is. (Reading the mask of active CPUs instead would need its address, for which the
 * loader would have to read all of /proc/kallsyms: 1.5 s more in an emulated guest.)
 */
static __always_inline void leave(u32 cpu)
{
	u32 c = cpu & (QM_MAX_CPUS - 1);

	if (__sync_lock_test_and_set(&cpus[c].online, 0)) {
		__sync_fetch_and_add(&view.nr_online, -1);
		__sync_fetch_and_and(&view.online[c / 64], ~(1ULL << (c & 63)));
	}
	/* Where the agent's thread goes from there, the kernel says. It is an agent like any other then. */
	if (config.dedicated && READ_ONCE(view.dedicated) == (u64)c + 1)
		WRITE_ONCE(view.dedicated, 0);
}

SEC("tp_btf/cpuhp_enter")
int qumun_hotplug(u64 *ctx)
{
	u32 cpu = (u32)ctx[0] & (QM_MAX_CPUS - 1);

	/* The target lies below the step: downwards. If the step fails, the CPU is used again after it
	 * was really offline and is back; until then the kernel's own ways lead to it. */
	if ((s32)ctx[1] < (s32)ctx[2] && cpus[cpu].online) {
		leave(cpu);
		WRITE_ONCE(core.leaving, cpu + 1);
		__sync_fetch_and_and(&view.idle[cpu / 64], ~(1ULL << (cpu & 63)));
	}
	return 0;
}

/*
 * What was queued for that CPU alone before is given to its local queue, which the kernel serves until the end. One of
 * these tasks may be inside a read-side section of RCU: the CPU would wait for it, and it for the CPU. (Seen once: a clock
 * of another process was being read, 6.9 s.) At each heartbeat, from whichever CPU has it: the tracepoint may move nothing.
 */
static __always_inline void let_go(void)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	u32 cpu = (READ_ONCE(core.leaving) - 1) & (QM_MAX_CPUS - 1);
	int i;

	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, DSQ_PINNED(cpu), 0)) {
		FOR(i, 65536) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			dsq_move(&it, p, SCX_DSQ_LOCAL_ON | cpu, config.slice_ns);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
}

/* Moves what only the dying CPU would take to where others, or the kernel, can take it. */
OPS1(void, cpu_offline, s32, cpu)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	struct task_ctx *t;
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);
	u64 now = now_ns();
	int i;

	leave(c);
	WRITE_ONCE(core.leaving, 0);
	debug("cpu %d goes offline", cpu);
	__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
	bpf_rcu_read_lock();
	if (!bpf_iter_scx_dsq_new(&it, DSQ_PINNED(cpu), 0)) {
		FOR(i, 65536) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			/* The kernel runs its global queue on this CPU too, and from there breaks the affinity. */
			dsq_move(&it, p, SCX_DSQ_GLOBAL, config.slice_ns);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	if (!bpf_iter_scx_dsq_new(&it, DSQ_PLACED(cpu), 0)) {
		FOR(i, 65536) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			t = task_ctx(p);
			core_filled(now);
			dsq_move_vtime(&it, p, DSQ_CORE, config.slice_ns, t ? settle_vtime(t) : 0);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	/* The agent may be bound to this CPU. Where it runs next, the kernel says. */
	if (!bpf_iter_scx_dsq_new(&it, DSQ_AGENT, 0)) {
		FOR(i, 64) {
			p = bpf_iter_scx_dsq_next(&it);
			if (!p)
				break;
			dsq_move(&it, p, SCX_DSQ_GLOBAL, AGENT_SLICE_NS);
		}
	}
	bpf_iter_scx_dsq_destroy(&it);
	bpf_rcu_read_unlock();
}

/* A higher class took the CPU: what waits in its local queue goes elsewhere. Kernels before 6.19. */
OPS2(void, cpu_release, s32, cpu, struct scx_cpu_release_args *, args)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	__sync_fetch_and_and(&view.idle[c / 64], ~(1ULL << (c & 63)));
	WRITE_ONCE(cpus[c].taken, 1);
	cpus[c].stamp = 0;
	if (HAS(scx_bpf_reenqueue_local))
		count()->reenqueued += scx_bpf_reenqueue_local();
}

OPS2(void, cpu_acquire, s32, cpu, struct scx_cpu_acquire_args *, args)
{
	WRITE_ONCE(cpu_ctx(cpu)->taken, 0);
}

/*
 * The same where any local queue can be handed back from anywhere (from 7.1): at each heartbeat, from the CPUs that are not
 * idle and run nothing of ours. What was just going to run there is only put in order once more. A tracepoint at each switch
 * would see it at once, for a fortieth of a wakeup's path; and who is preempted for less than 10 ms had better stay.
 */
static __always_inline void watch_taken(u64 now)
{
	struct bpf_iter_scx_dsq it;
	struct task_struct *p;
	int i, n;

	if (!HAS(scx_bpf_dsq_reenq))
		return;
	bpf_rcu_read_lock();
	FOR(i, QM_MAX_CPUS) {
		u32 c = (u32)i & (QM_MAX_CPUS - 1);

		if (i >= config.nr_cpu_ids)
			break;
		if (READ_ONCE(counters[c].running) || cpu_is_idle(i) || !cpu_usable(i))
			continue;
		WRITE_ONCE(cpus[c].taken, 1);
		cpus[c].stamp = 0;
		if (scx_bpf_dsq_nr_queued(SCX_DSQ_LOCAL_ON | c) > 0) {
			count()->reenqueued++;
			scx_bpf_dsq_reenq(SCX_DSQ_LOCAL_ON | c, 0);
		}
		if (!READ_ONCE(cpus[c].placed))
			continue;
		/* What the agent has sent there may run on any other. */
		shared_filled(now);
		if (!bpf_iter_scx_dsq_new(&it, DSQ_PLACED(c), 0)) {
			FOR(n, TAKEN_TASKS) {
				p = bpf_iter_scx_dsq_next(&it);
				if (!p)
					break;
				dsq_move_vtime(&it, p, DSQ_SHARED, p->scx.slice, p->scx.dsq_vtime);
			}
		}
		bpf_iter_scx_dsq_destroy(&it);
	}
	bpf_rcu_read_unlock();
}

/* The same where cpu_acquire and cpu_release are deprecated, and that is not possible (6.19). */
SEC("tp_btf/sched_switch")
int qumun_switch(u64 *ctx)
{
	struct task_struct *next = (struct task_struct *)ctx[2];
	struct cpu_ctx *cc = cpu_ctx(this_cpu());

	if (likely(next->prio >= MAX_RT_PRIO)) {
		if (unlikely(cc->taken))
			WRITE_ONCE(cc->taken, 0);
		return 0;
	}
	/* A stopper thread (migration/N) is gone again in microseconds. */
	if (next->prio == 0 && (next->flags & PF_KTHREAD))
		return 0;
	WRITE_ONCE(cc->taken, 1);
	cc->stamp = 0;
	if (HAS(scx_bpf_reenqueue_local___v2___q)) {
		count()->reenqueued++;
		scx_bpf_reenqueue_local___v2___q();
	}
	return 0;
}
#endif
