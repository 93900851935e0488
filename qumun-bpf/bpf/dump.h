/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Our lines in the kernel's dump: the state of the latch, of each CPU and of each task, as the core sees them.
 */
#ifndef QUMUN_DUMP_H
#define QUMUN_DUMP_H
#include "state.h"

/* A format and up to eight numbers. */
#define dump_line(fmt, ...)                                                                        \
	({                                                                                         \
		static char text_[] = fmt;                                                         \
		u64 args_[] = { __VA_ARGS__ };                                                     \
		scx_bpf_dump_bstr(text_, args_, sizeof(args_));                                    \
	})

OPS1(void, dump, struct scx_dump_ctx *, ctx)
{
	u64 now = now_ns(), since = view.degraded_since;

	dump_line("qumun: mode %llu (0 degraded, 1 normal, 2 falling), epoch %llu, ack %llu, degraded for %llu ms, reason %llu",
		  view.mode, view.epoch, agent.ack, since ? (now - since) / MS : 0, view.reason);
	dump_line("qumun: agent %llu on cpu %lld, queued %llu, ran %llu ms ago, runs %llu",
		  (u64)view.agent_pid, (u64)(s64)core.agent_cpu, (u64)core.agent_queued, (now - core.agent_ran_at) / MS,
		  view.agent_runs);
	dump_line("qumun: parked %lld, shared %lld, core %lld, agent's queue %lld, rescued %llu",
		  (u64)(s64)scx_bpf_dsq_nr_queued(DSQ_PARK), (u64)(s64)scx_bpf_dsq_nr_queued(DSQ_SHARED),
		  (u64)(s64)scx_bpf_dsq_nr_queued(DSQ_CORE), (u64)(s64)scx_bpf_dsq_nr_queued(DSQ_AGENT), view.rescued);
}

OPS3(void, dump_cpu, struct scx_dump_ctx *, ctx, s32, cpu, bool, idle)
{
	struct cpu_ctx *cc = cpu_ctx(cpu);

	if (idle)
		return;
	dump_line("qumun: usable %llu, taken %llu, pinned %llu, placed %llu, kept %llu, clocks %llu %llu ms",
		  (u64)cc->online, (u64)cc->taken, (u64)cc->pinned, (u64)cc->placed, (u64)cc->kept,
		  cc->clock[SIDE_CORE] / MS, cc->clock[SIDE_AGENT] / MS);
}

OPS2(void, dump_task, struct scx_dump_ctx *, ctx, struct task_struct *, p)
{
	struct task_ctx *t = task_ctx(p);
	u64 now = now_ns();

	if (!t)
		return;
	dump_line("qumun: state %llu (0 ours, 1 parked, 2 placed), generation %llu, asked %lld ms ago, queued %lld ms ago, vtime %llu of %llu",
		  t->custody & STATE_MASK, t->custody >> STATE_BITS, t->enqueued_at ? (now - t->enqueued_at) / MS : 0,
		  t->placed_at ? (now - t->placed_at) / MS : 0, t->vtime, core.vnow);
}
#endif
