/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * How the agent gets a CPU when it is wanted: an idle one, or one on which a slice is cut.
 *
 * Where all CPUs are busy, slices are cut once in preempt_ns, and a few times in a row; who comes later waits for the next
 * clock interrupt. With config.preempt_after_ns that wait has an end: a timer fires so long after the oldest event for
 * which the agent was called in vain, and cuts a slice. It runs only while somebody waits.
 */
#ifndef QUMUN_ACTIVATION_H
#define QUMUN_ACTIVATION_H
#include "latch.h"
#include "near.h"
#include "transport.h"

struct timer_slot {
	struct bpf_timer timer;
};
#define TIMER_HEARTBEAT 0
#define TIMER_ALARM 1
struct {
	__uint(type, MAP_ARRAY);
	__uint(max_entries, 2);
	__type(key, u32);
	__type(value, struct timer_slot);
} qm_timer SEC(".maps");

/* Asks an idle CPU to look for work, if there is one: the agent's last one, then @cpu, then any. */
__noinline int kick_any_idle(s32 cpu)
{
	if (!any_idle())
		return 0;
	if (kick_if_idle(core.agent_last_cpu) || kick_if_idle(cpu))
		return 1;
	for (u32 i = 0; i < QM_IDLE_WORDS; i++) {
		u64 word;

		if (i * 64 >= config.nr_cpu_ids)
			break;
		word = READ_ONCE(view.idle[i]);
		if (word && kick_if_idle(i * 64 + lowest_bit(word)))
			return 1;
	}
	return 0;
}

static __always_inline void start_alarm(u64 ns)
{
	u32 key = TIMER_ALARM;
	struct timer_slot *slot;

	if (__sync_val_compare_and_swap(&core.alarm, 0, 1))
		return;
	slot = bpf_map_lookup_elem(&qm_timer, &key);
	if (slot)
		bpf_timer_start(&slot->timer, ns, BPF_F_TIMER_CPU_PIN);
}

/*
 * An event was sent at @now, and no CPU was got for the agent. Only the oldest counts, and where one waits already the timer
 * is on. Both exchanges here and in alarm() are full barriers: either that one sees our time, or we see the timer off.
 */
static __always_inline void await_agent(u64 now)
{
	if (!config.preempt_after_ns || READ_ONCE(core.called_at))
		return;
	__sync_lock_test_and_set(&core.called_at, now);
	start_alarm(config.preempt_after_ns);
}

/* Gets a CPU for the agent: an idle one if there is one, else this one, if it @cuts the slice there. */
__noinline int call_agent(s32 cpu, u64 now, int cuts)
{
	u64 preempted, paid;

	if (READ_ONCE(core.agent_cpu) >= 0 || !READ_ONCE(core.agent_queued))
		return 0;
	if (kick_any_idle(cpu))
		return 0;
	/*
	 * All busy: this CPU's task makes room now. Once in preempt_ns in the long run, however many events there are, and
	 * PREEMPT_BURST times in a row: who wakes up just after a turn does not wait for the next clock interrupt. Kept as
	 * the time at which all that was taken is paid for (generic cell rate algorithm, ITU-T I.371).
	 */
	preempted = READ_ONCE(core.preempt_at);
	paid = before(preempted, now) ? now : preempted;
	if (cuts && paid - now <= (PREEMPT_BURST - 1) * config.preempt_ns && cpu_usable(cpu) && may_kick() &&
	    __sync_val_compare_and_swap(&core.preempt_at, preempted, paid + config.preempt_ns) == preempted) {
		count()->preempts++;
		scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
		return 0;
	}
	await_agent(now);
	return 0;
}

/* Ends the slice of the task that runs there, unless that is none of ours, or one that was put first and is soon over. */
__noinline int make_room(s32 cpu)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	/* As in cpu_usable. */
	asm volatile("" : "+r"(c));
	if (!cpu_usable(cpu) || !READ_ONCE(counters[c].running) || READ_ONCE(cpus[c].given))
		return 0;
	count()->preempts++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_PREEMPT);
	return 1;
}

/* The same on one CPU: the agent's last one, else the first that can. */
__noinline int make_room_anywhere(void)
{
	int done, i;

	if (!may_kick())
		return 0;
	done = make_room(core.agent_last_cpu);
	if (done)
		return 1;
	FOR(i, QM_MAX_CPUS) {
		if (i >= config.nr_cpu_ids)
			break;
		if (make_room(i)) {
			done = 1;
			break;
		}
	}
	return done;
}

/* The timer. An event that is younger has its time still to come: it was sent after the agent's turn. */
static int alarm(void *map, u32 *key, struct timer_slot *slot)
{
	u64 now = now_ns(), since;
	s64 left;

	__sync_lock_test_and_set(&core.alarm, 0);
	since = READ_ONCE(core.called_at);
	if (!since)
		return 0;
	left = since + config.preempt_after_ns - now;
	if (left > 0) {
		start_alarm(left);
		return 0;
	}
	WRITE_ONCE(core.called_at, 0);
	if (!is_normal() || is_dedicated() || READ_ONCE(core.agent_cpu) >= 0 || !READ_ONCE(core.agent_queued) || !events_pending())
		return 0;
	if (!kick_any_idle(core.agent_last_cpu) && !make_room_anywhere())
		await_agent(now);
	return 0;
}
#endif
