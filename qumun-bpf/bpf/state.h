/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the core knows: maps, settings, per-CPU and per-task state, and the small helpers on them.
 */
#ifndef QUMUN_STATE_H
#define QUMUN_STATE_H
#include "kernel.h"
#include "kfuncs.h"
#include "wire.h"

/* Scheduler queues (DSQs). All but DSQ_AGENT are ordered by virtual time. */
#define DSQ_PARK 0x10000ULL   /* in the agent's custody: an event was sent, no decision has come */
#define DSQ_SHARED 0x10001ULL /* placed by the agent for any CPU, in the policy's order */
#define DSQ_CORE 0x10002ULL   /* the core's own, in the order of its own virtual time */
#define DSQ_AGENT 0x10003ULL  /* the agent's thread, while it waits for its turn */
#define DSQ_PINNED(cpu) (0x20000ULL + (u32)(cpu)) /* may run on this CPU only; the core's order */
#define DSQ_PLACED(cpu) (0x30000ULL + (u32)(cpu)) /* placed by the agent for this CPU */
#define DSQ_THROTTLED(slot) (0x40000ULL + (u32)(slot)) /* of a cgroup that has used up its limit; in order of arrival */

#define MS 1000000ULL
/* How far behind the clock of virtual time a task may wake up: its credit for having slept. */
#define LAG_NS (20 * MS)
/* And how far ahead of it a task may be queued. Without this bound a task of small weight, whose virtual
 * time runs fast, would wait for seconds behind a few busy ones. */
#define AHEAD_NS (100 * MS)
#define AGENT_SLICE_NS (4 * MS)
/* Slices cut for the agent in a row. */
#define PREEMPT_BURST 4
/* While degraded: one bounded turn of the agent in this time. */
#define AGENT_PROBE_NS (10 * MS)
#define TIMER_NS (10 * MS)
#define HINT_NS (10 * MS)
/* A task that a permit lets in cuts the slice of one that is so far behind it in the policy's order. */
#define CUT_LEAD_NS MS
/* Less of a slice is not worth a turn: then it is over. */
#define REST_NS (500 * MS / 1000)
#define DWELL_MIN_NS (100 * MS)
#define DWELL_MAX_NS (2000 * MS)
#define RELAPSE_NS (1000 * MS)
/* Bounded waits that no policy can break. */
#define BRIEF_NS (1 * MS) /* who ran for less the last time is expected to do so again (PATIENCE in placement.rs) */
#define GO_ON_NS (100 * MS) /* a task that is first in the order goes on, for so long while another one waits */
#define SHARE_NS (40 * MS)	   /* both sides' queues are looked at this often on each CPU */
#define SHARER 16 /* a task, as sides count them */
#define SIDE_LAG_NS (20 * MS)	   /* what a side may be owed that had nothing to run for a while */
#define RESCUE_AFTER_NS (500 * MS) /* a task that waits longer than this is served out of turn */
#define RESCUE_EVERY_NS (50 * MS)
#define RESCUE_SCAN 64
#define RESCUE_CPUS 32 /* queues of CPUs searched at a time */
/* Rules, and bounds of what they say. */
#define RULE_STEP_NS MS	   /* from one rank to the next, in virtual time */
#define RULE_RUN_NS (1ULL << 30)  /* no run counts for more */
#define RULE_WINDOW_NS (1ULL << 34)
#define RULE_DEBT_NS (100 * MS)
/* Limits of cgroups. */
#define LIMIT_WAIT_NS (2000 * MS) /* whoever waits for longer is let out: the kernel's watchdog allows 5 s */
#define LIMIT_CARRY_NS (20 * MS)  /* what comes in this time and is not used is not lost: our clocks are coarse */
#define LIMIT_DEBT_NS (10000 * MS) /* and no debt is larger than what comes in this time */
#define LIMIT_KERNEL_TICKS 25 /* that a task gets for its way out of the kernel */
#define RELEASE_EVERY_NS MS
#define RELEASE_GROUPS 64 /* looked at in one pass */
#define RELEASE_TASKS 64  /* let out of one group in one pass */
/* Tasks sent elsewhere from a CPU that another class has, at one heartbeat. */
#define TAKEN_TASKS 64
/* Decisions taken from the ring in one dispatch. */
#define BATCH 32

char LICENSE[] SEC("license") = "GPL";

const volatile struct qm_config config SEC(".rodata.qm_config") = {
	.slice_ns = 5 * MS,
	.slice_min_ns = 100000,
	.slice_max_ns = 20 * MS,
	.late_ns = 30 * MS,
	.preempt_ns = MS,
	.heartbeat_ns = 500 * MS,
	.nr_cpu_ids = 1,
};

#define OPTION(o) (config.options & QM_OPT_##o)
#define SUBSCRIBED(kind) (config.events & 1U << (kind))

struct qm_rules rules SEC(".bss.qm_rules");
struct qm_places places SEC(".bss.qm_places");
struct qm_view view SEC(".bss.qm_view");
struct qm_agent agent SEC(".bss.qm_agent");
struct qm_counters counters[QM_MAX_CPUS] SEC(".bss.qm_count");
struct qm_legs legs[QM_MAX_CPUS] SEC(".bss.qm_legs");
struct qm_exit exit_info SEC(".bss.qm_exit");

struct {
	__uint(type, MAP_RINGBUF);
	__uint(max_entries, 1 << 20);
} qm_events SEC(".maps");

struct {
	__uint(type, MAP_USER_RINGBUF);
	__uint(max_entries, 1 << 19);
} qm_decisions SEC(".maps");

/*
 * Per task. `custody` holds the generation and the state in one word, so that each event ends
 * exactly once: whoever changes PARKED by compare-and-swap counts how it ended.
 */
#define STATE_NONE 0ULL	  /* running, asleep, or in one of the core's own queues */
#define STATE_PARKED 1ULL /* the event is undecided */
#define STATE_PLACED 2ULL /* decided, waiting for a CPU */
#define STATE_BITS 2
#define STATE_MASK 3ULL
struct task_ctx {
	u64 custody;
	u64 vtime;
	u64 exec_runtime; /* on CPUs since it woke up */
	u64 last_run;	  /* the same, when it woke up last */
	u64 started_at;
	u64 stopped_at;
	u64 enqueued_at;
	u64 label;     /* set by user space, inherited by children */
	u64 slice_ns;  /* the same; 0: the default */
	u64 placed_at; /* when it came into the queue where it waits now */
	u64 charged_at; /* until when its run is charged to its cgroup */
	u64 utime; /* its time in user space, as of its last tick under a limit */
	u64 ran;   /* on CPUs since its last event */
	u64 slept; /* and asleep */
	u64 order; /* its place in the policy's order, as of the last time it was placed by that; 0: by none */
	u64 permit_until;
	u64 permit_vtime; /* its place when the permit was given */
	u64 permit_slice;
	u64 left; /* of the slice of its decision */
	u32 permit; /* wakeups for which it still holds */
	u32 permitted; /* wakeups since its last event */
	u32 permit_rate;
	u32 permit_flags;
	u32 permit_mark;
	u32 permit_epoch;
	u32 permit_weight;
	u32 rule_table; /* the generation of rules by which the next was found; 0: by none */
	u64 rule_comm; /* and the name, hashed */
	u64 rule_paid; /* when all that it took ahead of others is paid for, if it pays for itself */
	u32 rule; /* number + 1 of the rule for it; 0: there is none */
	u32 rank; /* it is ahead of others this time; 0: it is not */
	u32 favour; /* it would be, had it tokens */
	u32 counted; /* core.shares, when it was counted as runnable; 0: it is not */
	u32 counted_weight; /* with this one */
	u32 bucket; /* which of core.undecided[] counts the open event */
	u32 group; /* slot of its cgroup */
	u8 sampled;
	u8 reclaim; /* kswapd and its kind: the agent's memory may depend on it */
	u8 pass; /* let out although its cgroup has used up its limit */
	u8 safe; /* it holds nothing that others may wait for: it may be held back */
	u8 dry_ticks; /* ticks in the kernel since its cgroup had nothing left */
	u8 pad[3];
};

struct {
	__uint(type, MAP_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_ctx);
} qm_tasks SEC(".maps");

/* Where a cgroup is in the table. */
struct cgroup_ctx {
	u32 slot;
	u32 own; /* 0: it found the table full, and this is its parent's */
};
struct {
	__uint(type, MAP_CGRP_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct cgroup_ctx);
} qm_cgroups SEC(".maps");

struct qm_cgroup cgroups[QM_MAX_CGROUPS] SEC(".bss.qm_table");

/* cgroups above a task that are looked at. */
#define CGROUP_DEPTH 24

/* What the core keeps beside the table: no user space needs to see it. First what a limit leaves; times are CPU time. */
struct group {
	u64 quota;	 /* ns of each period; 0: no limit */
	s64 budget;	 /* what is left; below 0: what it owes */
	u64 period;
	u64 refilled_at; /* end of the last period that was added to the budget */
	u64 most;	 /* the budget is never more */
	u64 debt;	 /* nor less than minus this */
	u64 since;	 /* when the limit was set: what ran before is not charged */
	u64 held_at;	 /* when a task was held back last */
	u32 parent;
	u32 weight;    /* what it counts for above, since it has runnable tasks */
	s64 rivals;    /* weights of those who compete directly in it, see shares.h */
	s64 competing; /* and how many they are */
};
struct group groups[QM_MAX_CGROUPS] SEC(".bss.qm_groups");
/* One bit a cgroup: DSQ_THROTTLED may hold a task. */
u64 held[QM_MAX_CGROUPS / 64] SEC(".bss.qm_held");

/* On whose side a waiting task is. */
enum { SIDE_CORE, SIDE_AGENT, SIDES };

/* Per CPU, also read and written from other CPUs where it says so. */
struct cpu_ctx {
	/* The two sides, see sides.h. */
	u64 served_at[SIDES]; /* when the queues of each were looked at here last */
	u64 clock[SIDES];     /* CPU time each has had, by the number of tasks that share it */
	u64 charged_at;
	u32 side;   /* whose task runs here, and for how many its time counts; 0: for none */
	u32 side_n;
	u32 next_side; /* the same for the one that dispatch has just chosen */
	u32 next_n;
	u64 sample;
	u32 pinned; /* DSQ_PINNED may hold a task; set before each insert */
	u32 placed; /* DSQ_PLACED may hold a task; set after each move, by any CPU */
	u32 online;
	u32 taken; /* by a realtime or deadline task */
	u32 turn; /* which of the agent's queues goes first */
	u32 urgent; /* the first of DSQ_PINNED comes next */
	u32 given; /* a task that is bound to it was put before all others, and has not begun yet */
	u64 cut_at; /* when all slices that were cut for it are paid for */
	u32 deferred; /* the task that runs here goes on because the agent was at work elsewhere */
	u32 kept; /* decisions in this CPU's batch that came before their task */
	u32 batch; /* how many decisions are in it */
	u64 rescued_at; /* when its own queue was searched for long waiters */
	u64 overran_at; /* when a run was last cut short for its length */
	u64 busy_since; /* when it was idle last */
	u64 order; /* the place in the policy's order of the task that runs here; 0: it has none */
	u32 rank;  /* of the task that runs here, see rules.h */
	u32 favour;
	u64 stamp; /* when dispatch chose the task that comes next here; 0: it chose none, or the task runs */
	u32 awaited; /* a task was sent here since, to wait for the CPU */
	u32 brief;   /* who runs here slept soon the last time */
	u64 began;   /* when who runs here came, see goes_first */
	u32 called; /* its slice was cut for a task about which the agent is asked; see dedicated.h */
	u32 asked;  /* it is to wait for what the agent says of the task that ran here */
};
struct cpu_ctx cpus[QM_MAX_CPUS] SEC(".bss.qm_cpus");

/*
 * Undecided events, counted by the time they were sent in. A bucket is 2^22 ns (4.2 ms) wide; 64 of
 * them are 268 ms. The oldest undecided event is late when an old bucket is not empty.
 */
#define BUCKET_SHIFT 22
#define BUCKETS 64

struct core_state {
	u64 vnow; /* largest virtual time that ever ran */
	u64 checked;
	u64 left_at;
	u64 last_probe;
	u64 last_rescue;
	u64 agent_ran_at;
	s32 agent_cpu;	  /* where it runs now, -1 if it does not */
	s32 agent_last_cpu;
	u32 agent_queued; /* it waits in DSQ_AGENT */
	u32 decisions_left; /* not 0: a drain stopped at its limit, or found another CPU at it */
	u32 shared;	  /* DSQ_SHARED may hold a task */
	u32 filled;	  /* DSQ_CORE may hold a task; see core_waits */
	u32 crowd;	  /* DSQ_AGENT may hold an earlier agent beside this one */
	u64 filled_at;
	u32 parked;    /* DSQ_PARK may hold a task that nobody will decide on: see park_waits */
	u32 pad;
	u64 parked_at;
	u64 shared_at; /* when a permit let a task into DSQ_SHARED last */
	u32 leaving;	  /* 1 + the CPU that is on its way offline; see let_go */
	u32 rescue_cpu;	  /* whose queue is searched for long waiters next */
	u64 preempt_at;	  /* when all slices that were cut for the agent are paid for */
	u64 called_at;	  /* when the agent was first called in vain since its last turn; 0: it was not. See activation.h */
	u32 alarm;	  /* the timer is on that ends that wait */
	u32 pad2;
	u32 shares; /* how often counting has begun, see shares.h */
	u32 slots;  /* of the table, that were ever used */
	s64 rivals; /* weights of all runnable tasks */
	u64 ahead_paid;	  /* when all that tasks took ahead of others is paid for, see rules.h */
	u64 released_at;  /* when tasks were looked for that limits hold back */
	u32 held;	  /* there may be some */
	u32 release_word; /* of held[], where that goes on */
	u32 release_seen; /* cgroups looked at in this pass */
	u64 waited_at;	  /* when a task was sent to a CPU to wait there; kept where the agent has one for itself */
	u64 own_taken;	  /* decisions taken, as the agent's own CPU saw it last, + 1; see dedicated.h */
	u64 printed_at;
	s64 undecided[BUCKETS];
};
struct core_state core SEC(".bss.qm_core");

struct batch {
	struct qm_decision decision[BATCH];
};
struct batch batches[QM_MAX_CPUS] SEC(".bss.qm_batch");

static __always_inline u64 now_ns(void)
{
	return bpf_ktime_get_ns();
}

static __always_inline u32 this_cpu(void)
{
	return bpf_get_smp_processor_id() & (QM_MAX_CPUS - 1);
}

static __always_inline struct qm_counters *count(void)
{
	return &counters[this_cpu()];
}

static __always_inline struct cpu_ctx *cpu_ctx(s32 cpu)
{
	return &cpus[(u32)cpu & (QM_MAX_CPUS - 1)];
}

static __always_inline struct task_ctx *task_ctx(struct task_struct *p)
{
	return bpf_task_storage_get(&qm_tasks, p, NULL, 0);
}

/* The slice of a task for which no decision names one. */
static __always_inline u64 own_slice(struct task_ctx *t)
{
	return t->slice_ns ?: config.slice_ns;
}

static __always_inline bool before(u64 a, u64 b)
{
	return (s64)(a - b) < 0;
}

/*
 * Is a word about a queue of no worth any more, that was set at @since? On a machine of one CPU an insert is over before anything
 * else is asked there.
 */
static __always_inline bool is_stale(u64 since, u64 now)
{
	return config.nr_cpu_ids == 1 || now - since > HINT_NS;
}

/*
 * May DSQ_CORE hold a task? Every dispatch asks, and the queue is mostly empty: a look at one word instead of a search for
 * the queue. A task is inserted a little after enqueue has said so here, which is why the word is believed for HINT_NS; the
 * timer corrects it where even that was too short.
 */
static __always_inline bool core_waits(u64 now)
{
	if (!READ_ONCE(core.filled))
		return false;
	if (scx_bpf_dsq_nr_queued(DSQ_CORE) > 0)
		return true;
	if (is_stale(READ_ONCE(core.filled_at), now)) {
		__sync_lock_test_and_set(&core.filled, 0);
		/* One that came meanwhile has set the time before the word. */
		if (!is_stale(READ_ONCE(core.filled_at), now))
			WRITE_ONCE(core.filled, 1);
	}
	return false;
}

static __always_inline void core_filled(u64 now)
{
	WRITE_ONCE(core.filled_at, now);
	if (!READ_ONCE(core.filled))
		__sync_lock_test_and_set(&core.filled, 1);
}

/* The same for DSQ_PARK, while the core decides. */
static __always_inline bool park_waits(u64 now)
{
	if (!READ_ONCE(core.parked))
		return false;
	if (scx_bpf_dsq_nr_queued(DSQ_PARK) > 0)
		return true;
	if (is_stale(READ_ONCE(core.parked_at), now))
		WRITE_ONCE(core.parked, 0);
	return false;
}

static __always_inline void park_left(u64 now)
{
	WRITE_ONCE(core.parked_at, now);
	WRITE_ONCE(core.parked, 1);
}

/* The same for DSQ_SHARED, where a permit inserts. Only looks; for who takes from it see take_shared. */
static __always_inline bool shared_waits(u64 now)
{
	if (!READ_ONCE(core.shared))
		return false;
	return !is_stale(READ_ONCE(core.shared_at), now) || scx_bpf_dsq_nr_queued(DSQ_SHARED) > 0;
}

static __always_inline void shared_filled(u64 now)
{
	WRITE_ONCE(core.shared_at, now);
	if (!READ_ONCE(core.shared))
		__sync_lock_test_and_set(&core.shared, 1);
}

/* Is this a CPU that a kfunc may see? A number that is none ejects the scheduler. */
static __always_inline bool cpu_usable(s32 cpu)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	/* Else the compiler drops the mask where it knows the range, and the verifier does not. */
	asm volatile("" : "+r"(c));
	return cpu >= 0 && (u32)cpu < config.nr_cpu_ids && (u32)cpu < QM_MAX_CPUS && cpus[c].online;
}

static __always_inline bool cpu_is_idle(s32 cpu)
{
	u32 c = (u32)cpu & (QM_MAX_CPUS - 1);

	/* As in cpu_usable. */
	asm volatile("" : "+r"(c));
	return READ_ONCE(view.idle[c / 64]) >> (c & 63) & 1;
}

/* Has the agent a CPU for itself now? While the core decides it has none. See dedicated.h. */
static __always_inline bool is_dedicated(void)
{
	return config.dedicated && READ_ONCE(view.dedicated) && READ_ONCE(view.mode) == QM_NORMAL;
}

static __always_inline bool agent_owns(s32 cpu)
{
	return is_dedicated() && READ_ONCE(view.dedicated) == (u64)(u32)cpu + 1;
}

/* May a task be sent here that may run elsewhere, too? */
static __always_inline bool cpu_open(s32 cpu)
{
	return cpu_usable(cpu) && !agent_owns(cpu);
}

/*
 * A kick is done by an interrupt that this CPU sends to itself. On the last steps of its way offline none comes any
 * more, and wakeups still do: whoever waits for the CPU's end is told from there. Such a kick is lost, so is every later
 * one from this CPU, and the kernel waits for it, for ever, when the scheduler is removed (7.3). The timer wakes those
 * CPUs instead.
 */
static __always_inline bool may_kick(void)
{
	return cpus[this_cpu()].online;
}

/* Wakes @cpu if our own view says that it is idle. A kick of a busy CPU costs an IPI for nothing. */
__noinline int kick_if_idle(s32 cpu)
{
	if (!cpu_is_idle(cpu) || !cpu_open(cpu) || !may_kick())
		return 0;
	count()->kicks++;
	scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	return 1;
}

__noinline int any_idle(void)
{
	u64 seen = 0;

	for (u32 i = 0; i < QM_IDLE_WORDS; i++) {
		if (i * 64 >= config.nr_cpu_ids)
			break;
		seen |= READ_ONCE(view.idle[i]);
	}
	return seen != 0;
}

/* Wakes one idle CPU that may run @p, its last one if possible. */
static __always_inline void kick_for(struct task_struct *p, s32 last)
{
	s32 cpu;

	if (kick_if_idle(last) || !any_idle())
		return;
	cpu = scx_bpf_pick_idle_cpu(p->cpus_ptr, 0);
	if (cpu >= 0 && cpu_open(cpu) && may_kick()) {
		count()->kicks++;
		scx_bpf_kick_cpu(cpu, SCX_KICK_IDLE);
	}
}

/* Debug lines into trace_pipe: off by default, at most 20 a second. */
#define debug(fmt, ...)                                                                            \
	({                                                                                         \
		if (config.debug) {                                                                \
			static const char text[] = "qumun: " fmt;                                  \
			u64 t_ = now_ns();                                                         \
			if (t_ - core.printed_at > 50 * MS) {                                      \
				core.printed_at = t_;                                              \
				bpf_trace_printk(text, sizeof(text), ##__VA_ARGS__);               \
			}                                                                          \
		}                                                                                  \
	})
#endif
