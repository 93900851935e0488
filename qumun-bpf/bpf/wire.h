/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What the core and user space say to each other. The Rust mirror is ../src/wire.rs; both sides
 * assert the same sizes and offsets, so that neither can drift alone.
 *
 * All times are nanoseconds of CLOCK_MONOTONIC (bpf_ktime_get_ns). All records are little endian
 * with natural C alignment and no implicit padding.
 */
#ifndef QUMUN_WIRE_H
#define QUMUN_WIRE_H

#define QM_MAX_CPUS 1024
#define QM_IDLE_WORDS (QM_MAX_CPUS / 64)
/* A decision for no CPU in particular. */
#define QM_CPU_ANY (-1)
/* How many legs of a wakeup are timed, and how many log2(ns) buckets each has. */
#define QM_LEGS 5
#define QM_LEG_BUCKETS 36

/* qm_event.kind */
#define QM_EVENT_QUEUED 1 /* a task wants to run and waits for a decision */
#define QM_EVENT_EXIT 2	  /* a task is gone: forget what was kept about it */
/* Only for a policy that subscribes (qm_config.events); they need no answer. */
#define QM_EVENT_FORK 3		/* a task came into being; waker: its parent */
#define QM_EVENT_AFFINITY 4	/* allowed, nr_cpus_allowed */
#define QM_EVENT_WEIGHT 5	/* weight */
#define QM_EVENT_CGROUP 6	/* cpu_cgroup_id: where the task is now */
#define QM_EVENT_CGROUPS 7 /* never sent, only subscribed to: cgroups are in a table, see qm_cgroup */

/* qm_event.flags */
#define QM_EVENT_SAMPLED 1 /* the legs of this wakeup are timed: stamp the decision */
#define QM_EVENT_WAKEUP 2  /* the task slept before; else it was preempted or its slice ended */
#define QM_EVENT_KTHREAD 4

/* Core to agent: one record of the BPF ring buffer `qm_events`, or one slot of the array of events. */
struct qm_event {
	u64 enqueued_at;
	u64 generation; /* which enqueue of this pid this is: a decision must repeat it */
	u64 cgroup_id;	/* id of the task's cgroup v2 directory (its inode) */
	u64 enq_flags;	/* SCX_ENQ_* as the kernel gave them */
	u64 started_at; /* when the last run on a CPU began */
	u64 stopped_at; /* and ended */
	u64 exec_runtime; /* ns on a CPU since the last sleep */
	u64 vtime;	  /* the core's own virtual time of the task, weight applied */
	u64 allowed;	  /* affinity of CPUs 0..63, one bit each */
	u64 label;	  /* set by user space (qumun_task), inherited; means nothing to the core */
	u64 tid;	  /* the kernel's own number of the task, never used twice; 0 where there is none */
	u64 cpu_cgroup_id; /* the cgroup whose cpu controller it is under; 0 if nobody subscribes */
	u64 born;	   /* ns from the boot of the machine to that of the task, time asleep included */
	u64 process_born;  /* the same of the first thread of its process */
	u64 ran_ns;   /* on CPUs since its last event */
	u64 slept_ns; /* asleep since then */
	s32 pid;
	s32 tgid;
	s32 cpu;   /* where it ran last */
	s32 waker; /* pid of the task that woke it, 0 if none */
	u32 weight; /* 1..10000; 100 is nice 0 */
	u32 nr_cpus_allowed;
	u32 epoch; /* of the agreement between core and agent, see qm_view.epoch */
	u32 flags;
	u32 kind;
	u32 cgroup_weight; /* cpu.weight of its cgroup, if the policy subscribed to it; else 100 */
	u32 permitted; /* times since its last event that a permit let it in: it woke up, or its slice was cut short */
	u32 reserved;
	char comm[16];
};

/* Agent to core: one record of the user ring buffer `qm_decisions`, or one slot of the array of decisions. */
struct qm_decision {
	u64 generation;
	u64 slice_ns; /* 0: the core's default; else clamped to the core's bounds */
	u64 vtime;    /* order among the tasks that wait for the same CPU or for any */
	u64 seen_at;  /* when the agent read the event; 0 if not sampled */
	u64 decided_at;
	u64 permit_ns; /* for how long the permit holds: QM_PERMIT_MAX_NS at most */
	s32 pid;
	s32 cpu;   /* QM_CPU_ANY or a CPU number */
	u32 flags; /* QM_PERMIT_CLOCK, QM_PERMIT_CUTS: anything else is refused */
	u32 permit; /* for how many wakeups it holds: QM_PERMIT_MAX at most; 0: there is none */
	u32 rate;  /* by how much each nanosecond of run moves the task in the policy's order, in parts of 1024 */
	u32 mark;  /* of the words qm_agent.revoked* for this task, when the permit was given */
};

/* qm_decision.flags, of a permit */
#define QM_PERMIT_CLOCK (1U << 16) /* its place in the policy's order is the time when it wakes up */
#define QM_PERMIT_CUTS (1U << 17) /* it may cut the slice of whoever is far behind it in that order */
#define QM_PERMIT_FLAGS (QM_PERMIT_CLOCK | QM_PERMIT_CUTS)
#define QM_PERMIT_MAX 1024
#define QM_PERMIT_MAX_NS 1000000000ULL

/*
 * The other transport, in place of both ring buffers: two arrays that both sides map, see transport.h. A position counts
 * records and is never reduced; its low bits are the slot. What changes on one side only has a cache line of its own.
 */
#define QM_EVENT_SLOTS 8192
#define QM_DECISION_SLOTS 8192
struct qm_event_slot {
	struct qm_event event;
	u64 written; /* how often; the last word to change. The agent reads when it is as large as its own count */
};
/* Written by the core only: user space maps it read-only. */
struct qm_event_array {
	u64 sent; /* events begun */
	u64 pad0[7];
	u64 taken; /* decisions read */
	u64 pad1[7];
	struct qm_event_slot slots[QM_EVENT_SLOTS];
};
/* Written by the agent only: the core believes nothing in it. */
struct qm_decision_array {
	u64 read; /* events */
	u64 pad0[7];
	u64 published; /* decisions */
	u64 pad1[7];
	struct qm_decision slots[QM_DECISION_SLOTS];
};

/* Where each CPU is, told before the load; 0 in cache[] for a CPU about which nothing is known. */
struct qm_places {
	u64 cpus[QM_MAX_CPUS][QM_IDLE_WORDS]; /* of each last cache its CPUs, at the number of the lowest of them */
	u32 cache[QM_MAX_CPUS];	  /* that number + 1 */
	u32 sibling[QM_MAX_CPUS]; /* the next thread of the CPU's core, in a ring; itself if it is alone */
};

/* Argument of the SYSCALL program qumun_hello. */
struct qm_hello {
	u32 epoch; /* out: the epoch to acknowledge first */
	u32 dedicated; /* out: the CPU from which it should greet to have it for itself, + 1; 0: from any */
};

/* Arguments of qumun_select_cpu: how many of qm_agent.requests to answer. */
struct qm_select {
	u32 count;   /* in: 1..QM_SELECT_MAX */
	u32 answered; /* out: how many got an idle CPU */
};

/* Argument of qumun_wake. */
struct qm_wake {
	u32 woken; /* out: how many of qm_agent.wake were idle */
	u32 reserved;
};

/* Argument of qumun_mode. */
struct qm_mode {
	u32 kernel; /* in: whether the core decides alone */
	u32 was;    /* out: whether it did before */
};

/* Argument of qumun_preempt. */
struct qm_preempt {
	s32 cpu;
	u32 reserved;
};

/* Argument of qumun_task: what is kept about one task. */
struct qm_task {
	s32 pid;
	u32 set;      /* in: 1 to set label and slice_ns, 0 to read */
	u64 label;
	u64 slice_ns; /* for this task where a decision names none; 0: the core's default */
	u64 generation;
	u64 state; /* of custody: 0 none, 1 parked, 2 placed */
	u64 tid;
	u64 vtime;
};

#define QM_REVOKE_WORDS 1024
#define QM_SELECT_MAX 64
struct qm_request {
	s32 pid;
	s32 cpu; /* in: where to look first; out: the CPU claimed, or -1 */
};

/* qm_view.mode */
#define QM_DEGRADED 0 /* the core schedules by itself; every scheduler starts here */
#define QM_NORMAL 1   /* the agent decides */
#define QM_FALLING 2  /* on the way from one to the other, for a few instructions: as degraded */
#define QM_KERNEL 3   /* the core decides because it was told to: nobody asks the agent */

/* qm_view.reason: why the last degraded period began. */
#define QM_REASON_START 0
#define QM_REASON_LATE 1  /* the oldest undecided event was older than the limit */
#define QM_REASON_EXIT 2  /* the agent's thread ended */
#define QM_REASON_HELLO 3 /* a new agent introduced itself */
#define QM_REASON_MODE 4 /* back from kernel mode, until the agent has caught up */
#define QM_REASONS 5

/*
 * What the core shows. User space maps it read-only; the core trusts it because nobody else
 * writes it.
 */
struct qm_view {
	u64 idle[QM_IDLE_WORDS]; /* one bit a CPU: idle now */
	u64 mode;
	u64 epoch;
	u64 degraded_since; /* since when the core decides, in kernel mode, too; 0 while normal */
	u64 dwell_ns;	    /* the next return to normal is not before this long */
	u64 agent_runs;	    /* how often the agent was put on a CPU */
	u64 exited;	    /* 1 after the scheduler was removed */
	u64 nr_cpu_ids;
	u64 reason;
	s32 agent_pid;
	s32 agent_tgid;
	u64 entered[QM_REASONS]; /* degraded periods begun, by reason */
	u64 left;		 /* degraded periods ended */
	u64 degraded_ns;	 /* total length of the ended ones */
	u64 longest_late_ns;	 /* largest time by which an event was late when the latch fell */
	u64 rescued;		 /* tasks that had waited too long, served by the core out of turn */
	u64 agent_ran_at;	 /* when the agent was put on a CPU last */
	u64 nr_online;		 /* CPUs that may be used */
	u64 nr_cgroups;		 /* in the table */
	u64 online[QM_IDLE_WORDS]; /* one bit a CPU: it may be used */
	u64 cgroup_changes;	   /* of the table: grows with each */
	u64 cgroups_untold;	   /* that found the table full: they count as a part of their parent */
	u64 nr_limits;		   /* cgroups that have a limit */
	u64 dedicated;		   /* the CPU that the agent has for itself while the mode is normal, + 1; 0: none */
	u64 asking[QM_IDLE_WORDS]; /* one bit a CPU: it is idle until the agent answers for the task that ran there */
};

/*
 * A cgroup that has a cpu controller. User space maps the table of them read-only. A table and not events: what is
 * the case now can be looked up at any time, by an agent that comes later too, and nothing of it can be dropped.
 * Slot 0 is the root. The version is odd while the rest changes.
 */
#define QM_MAX_CGROUPS 4096
struct qm_cgroup {
	u64 version;
	u64 id;	      /* 0: nobody is here */
	u64 parent;   /* 0 for the root */
	u64 quota_us; /* of each period; 0: no limit */
	u64 period_us;
	u64 burst_us;
	u32 weight; /* 1..10000 */
	u32 above;  /* the slot of the parent */
};

/*
 * Rules: what user space wants for tasks where the core decides: in kernel mode, while it has taken over, for tasks that
 * may use one CPU only. User space writes them, so the core bounds each number. There are two tables, of which the one
 * that the lowest bit of the generation names is in force; the other is filled, and then the generation goes on by one. So
 * a table is changed as a whole.
 */
#define QM_RULES 1024
#define QM_TARGETS 8192 /* places; half of them may be taken */
#define QM_PROBES 32	/* a target is found in this many places from where its hash says, or not at all */

/* qm_target.kind, in the order in which they are looked for */
#define QM_TARGET_LABEL 1   /* a: qm_task.label */
#define QM_TARGET_TASK 2    /* a: the kernel's own number of the task */
#define QM_TARGET_THREAD 3  /* a: pid, b: its start in ticks of 10 ms since boot */
#define QM_TARGET_PROCESS 4 /* the same of its first thread */
#define QM_TARGET_CGROUP 5  /* a: id of the cgroup v2 directory that it is in */
#define QM_TARGET_COMM 6    /* a, b: its name */
#define QM_TARGET_KINDS 7
struct qm_target {
	u64 a;
	u64 b;
	u32 kind;
	u32 rule; /* its number + 1; 0: nothing is here */
};

struct qm_rule {
	u64 key;       /* whose tokens: they stay from one table to the next while the key is the same */
	u64 until_ns;  /* from then on it is none */
	u64 slice_ns;  /* 0: as without it */
	u64 window_ns; /* tokens: for how much time the burst would last, if it were all that comes */
	u32 price;     /* and what each ns of run takes of that, in parts of 1024 */
	u32 weight;    /* at most; 0: no bound */
	u32 saves;     /* of what a run is charged this part of 1024 is paid by tokens */
	u32 rank;      /* ahead of all others with a smaller one while there are tokens, up to QM_RANKS; 0: in its turn */
	u32 flags;     /* QM_RULE_* */
	u32 reserved;
};
#define QM_RULE_EACH 1 /* each task has tokens of its own */
#define QM_RANKS 11

struct qm_rule_table {
	u64 floor_window_ns; /* the tokens that all who are ahead of others share, as in qm_rule */
	u32 floor_price;
	u32 flags; /* one bit for each kind of target that is in it */
	struct qm_target targets[QM_TARGETS];
	struct qm_rule rules[QM_RULES];
};
struct qm_rules {
	u64 generation; /* 0: there never were any */
	struct qm_rule_table tables[2];
};

/* What the agent shows. User space writes it, so the core believes nothing in it but `ack`. */
struct qm_agent {
	u64 ack; /* the epoch that the agent has caught up with */
	u64 events;
	u64 discarded;
	u64 published;
	u64 batches;
	u64 ring_full;
	u64 allocations; /* on the agent's thread since it began to schedule */
	u64 resyncs;
	u64 held;	 /* tasks that the policy keeps */
	u64 pool_size;	 /* bytes */
	u64 pool_used;
	u64 minor_faults; /* page faults on the agent's thread since it began to schedule */
	u64 major_faults;
	/*
	 * A permit holds while the sum of the two words of its task is what it was (as far as 32 bits show). Hashed by pid: a
	 * change ends the permits of a few others, too, which costs each of them one event.
	 */
	u64 revoked_all;
	u64 revoked[QM_REVOKE_WORDS];
	struct qm_request requests[QM_SELECT_MAX];
	u64 wake[QM_IDLE_WORDS]; /* one bit a CPU, for qumun_wake */
};

/*
 * Counters, one block a CPU, written only by that CPU. The two ledgers:
 *   ev_sent = ev_dispatched + ev_bounced + ev_cancelled + ev_dead + ev_taken_over + outstanding
 *   dec_drained = dec_applied + dec_bounced + dec_stale + dec_refused
 */
struct qm_counters {
	u64 ev_sent;
	u64 ev_dispatched;
	u64 ev_bounced;
	u64 ev_cancelled;
	u64 ev_dead;
	u64 ev_taken_over;
	u64 dec_drained;
	u64 dec_applied;
	u64 dec_bounced;
	u64 dec_stale;
	u64 dec_refused;
	u64 ring_errors; /* drains that the kernel refused: positions or lengths make no sense */
	u64 congested;	 /* enqueues that found the event ring full; the core took them */
	u64 kernel_direct; /* enqueues that never go to the agent: kthreads, pinned, its own threads */
	u64 core_enqueued; /* enqueues while degraded */
	u64 exit_dropped;  /* exit events that found the ring full */
	u64 kicks;
	u64 preempts;	   /* slices cut short so that the agent gets its turn */
	u64 activations;   /* the agent was put on this CPU */
	u64 runs;	   /* other tasks were put on this CPU */
	u64 kept;	   /* nothing else waited: the running task went on */
	u64 retried;	   /* decisions that came before their task was parked, and waited for it */
	u64 reenqueued;	   /* times another class took the CPU and its local queue was handed back */
	u64 max_parked_ns; /* longest that a task was parked */
	u64 idle_bypass;   /* wakeups placed on an idle CPU by the kernel's own selection */
	u64 overruns;	   /* runs longer than qm_config.max_run_ns that were cut short */
	u64 notes_sent;	   /* events that need no answer */
	u64 notes_dropped; /* those that found the ring full */
	u64 inherited;	   /* tasks that got label and slice from their parent */
	u64 running;	   /* 1 while a task of ours runs here: a state, not a count */
	u64 throttled;	   /* times a task was held back because its cgroup has used up its limit */
	u64 throttled_ns;  /* for how long, those that were let out again */
	u64 limit_overruns; /* those that were let out although the limit was used up, because they waited for too long */
	u64 permitted;	   /* wakeups that a permit let in: decided earlier, not one by one */
	u64 kernel_mode;   /* enqueues in kernel mode */
	u64 resumed;	   /* tasks whose slice was cut short and that a permit let go on with the rest of it */
	u64 ahead;	   /* times the core put a task ahead of others because a rule says so */
};

/* Legs of a sampled wakeup: enqueued, seen, decided, inserted, running; the last is the whole. */
#define QM_LEG_SEEN 0
#define QM_LEG_DECIDED 1
#define QM_LEG_INSERTED 2
#define QM_LEG_RUNNING 3
#define QM_LEG_TOTAL 4
struct qm_legs {
	u64 hist[QM_LEGS][QM_LEG_BUCKETS];
};

#define QM_DUMP_LEN 32768
struct qm_exit {
	s64 code;
	u32 kind;
	u32 reserved;
	char reason[128];
	char msg[1024];
	char dump[QM_DUMP_LEN];
};

/* Settings, fixed at load. */
struct qm_config {
	u64 slice_ns;	  /* default slice */
	u64 slice_min_ns; /* bounds of what a decision may ask for */
	u64 slice_max_ns;
	u64 late_ns;	  /* D: an event undecided for this long makes the core take over */
	u64 preempt_ns;	  /* running slices are cut for the agent once in this time */
	u64 max_run_ns;	  /* no run is longer than this while others wait; 0: no limit but the slice */
	u64 heartbeat_ns; /* the agent gets a turn this often even if nothing happens, or the kernel's watchdog
			     would take it for a stalled task */
	u64 preempt_after_ns; /* a slice is cut for the agent when an event has waited for this long; 0: as the above says */
	u32 nr_cpu_ids;
	u32 debug;
	u32 options; /* QM_OPT_* */
	u32 events;  /* one bit for each kind of event subscribed to: 1 << QM_EVENT_* */
	u32 dedicated; /* the CPU that the agent is to have for itself, + 1; 0: none. With QM_OPT_SHARED only */
	u32 reserved;
};

#define QM_OPT_BUILTIN_IDLE 1  /* an idle CPU found by the kernel's own selection is used at once */
#define QM_OPT_KEEP_LOCAL 2    /* tasks bound to one CPU go to its local queue, ahead of all others */
#define QM_OPT_EARLY_KTHREADS 4 /* kernel threads are never asked about */
#define QM_OPT_NO_LIMITS 8 /* cpu.max of cgroups is not enforced: nobody wants it, or the kernel does not tell */
#define QM_OPT_SHARED 16 /* events and decisions go through shared arrays, not through the kernel's ring buffers */

#define QM_SAME(cond) _Static_assert(cond, #cond)
QM_SAME(sizeof(struct qm_event) == 192);
QM_SAME(__builtin_offsetof(struct qm_event, generation) == 8);
QM_SAME(__builtin_offsetof(struct qm_event, allowed) == 64);
QM_SAME(__builtin_offsetof(struct qm_event, pid) == 128);
QM_SAME(__builtin_offsetof(struct qm_event, weight) == 144);
QM_SAME(__builtin_offsetof(struct qm_event, kind) == 160);
QM_SAME(__builtin_offsetof(struct qm_event, comm) == 176);
QM_SAME(sizeof(struct qm_decision) == 72);
QM_SAME(__builtin_offsetof(struct qm_decision, vtime) == 16);
QM_SAME(__builtin_offsetof(struct qm_decision, pid) == 48);
QM_SAME(__builtin_offsetof(struct qm_decision, flags) == 56);
QM_SAME(sizeof(struct qm_event_slot) == 200);
QM_SAME(__builtin_offsetof(struct qm_event_slot, written) == 192);
QM_SAME(__builtin_offsetof(struct qm_event_array, taken) == 64);
QM_SAME(__builtin_offsetof(struct qm_event_array, slots) == 128);
QM_SAME(__builtin_offsetof(struct qm_decision_array, published) == 64);
QM_SAME(__builtin_offsetof(struct qm_decision_array, slots) == 128);
QM_SAME(sizeof(struct qm_hello) == 8);
QM_SAME(sizeof(struct qm_select) == 8);
QM_SAME(sizeof(struct qm_preempt) == 8);
QM_SAME(sizeof(struct qm_mode) == 8);
QM_SAME(sizeof(struct qm_wake) == 8);
QM_SAME(sizeof(struct qm_request) == 8);
QM_SAME(sizeof(struct qm_view) == 328 + 16 * QM_IDLE_WORDS);
QM_SAME(__builtin_offsetof(struct qm_view, online) == 296);
QM_SAME(sizeof(struct qm_task) == 56);
QM_SAME(__builtin_offsetof(struct qm_view, mode) == 128);
QM_SAME(__builtin_offsetof(struct qm_view, agent_pid) == 192);
QM_SAME(__builtin_offsetof(struct qm_view, left) == 240);
QM_SAME(sizeof(struct qm_agent) == 112 + 8 * (QM_REVOKE_WORDS + QM_SELECT_MAX + QM_IDLE_WORDS));
QM_SAME(sizeof(struct qm_counters) == 37 * 8);
QM_SAME(sizeof(struct qm_legs) == QM_LEGS * QM_LEG_BUCKETS * 8);
QM_SAME(__builtin_offsetof(struct qm_exit, reason) == 16);
QM_SAME(__builtin_offsetof(struct qm_exit, dump) == 1168);
QM_SAME(sizeof(struct qm_config) == 88);
QM_SAME(sizeof(struct qm_target) == 24);
QM_SAME(sizeof(struct qm_rule) == 56);
QM_SAME(__builtin_offsetof(struct qm_rule_table, targets) == 16);
QM_SAME(sizeof(struct qm_rule_table) == 16 + 24 * QM_TARGETS + 56 * QM_RULES);
QM_SAME(sizeof(struct qm_rules) == 8 + 2 * sizeof(struct qm_rule_table));
QM_SAME(sizeof(struct qm_cgroup) == 56);
QM_SAME(__builtin_offsetof(struct qm_cgroup, weight) == 48);
#endif
