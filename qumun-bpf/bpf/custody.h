/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Custody: who may run a task now, and how an event ends.
 *
 * enqueue parks a task in DSQ_PARK and sends an event. From there it leaves by a decision (here), by
 * a CPU that takes it because the agent is late (seen in running), or because it is dequeued. A task that is
 * dequeued while it waits is queued again at once, where that is seen, or it leaves our care (disable,
 * exit_task): there is no need to listen to each dequeue, of which every sleep is one. The custody word makes
 * sure that each event is counted exactly once.
 */
#ifndef QUMUN_CUSTODY_H
#define QUMUN_CUSTODY_H
#include "latch.h"
#include "transport.h"

static __always_inline void bucket_open(struct task_ctx *t, u64 now)
{
	t->bucket = (u32)(now >> BUCKET_SHIFT) & (BUCKETS - 1);
	__sync_fetch_and_add(&core.undecided[t->bucket & (BUCKETS - 1)], 1);
}

static __always_inline void bucket_close(u32 bucket)
{
	__sync_fetch_and_add(&core.undecided[bucket & (BUCKETS - 1)], -1);
}

static __always_inline void parked_for(u64 from, u64 now)
{
	u64 wait = now - from;

	if ((s64)wait > 0 && wait > count()->max_parked_ns)
		count()->max_parked_ns = wait;
}

/*
 * The task is in no queue of the agent's any more, or has never been: the word becomes NONE. Returns
 * true if that ended an open event; to one caller only.
 *
 * PLACED becomes NONE too. A CPU may be between its claim (PARKED to PLACED) and a move that will
 * fail; it must not find PLACED then and reopen an event whose task is elsewhere by now. It will find
 * NONE, and account for the event itself.
 *
 * The bucket is read before the exchange: as soon as the word says that the event has ended, the
 * task may be enqueued again on another CPU, with another bucket.
 */
static __always_inline bool end_event(struct task_ctx *t)
{
	u64 word = READ_ONCE(t->custody);
	u32 bucket = READ_ONCE(t->bucket);

	if (!(word & STATE_MASK))
		return false;
	word = __sync_lock_test_and_set(&t->custody, word & ~STATE_MASK);
	if ((word & STATE_MASK) != STATE_PARKED)
		return false;
	bucket_close(bucket);
	return true;
}

/* Global, so that the verifier checks it once and not on every path that leads here. */
__noinline int leg(u32 which, u64 from, u64 to)
{
	u64 ns = to - from;
	u32 bucket = 0;

	if (!from || (s64)ns < 0 || which >= QM_LEGS)
		return 0;
	/* log2 by halving: six fixed steps, no loop */
	if (ns >> 32) { bucket += 32; ns >>= 32; }
	if (ns >> 16) { bucket += 16; ns >>= 16; }
	if (ns >> 8) { bucket += 8; ns >>= 8; }
	if (ns >> 4) { bucket += 4; ns >>= 4; }
	if (ns >> 2) { bucket += 2; ns >>= 2; }
	if (ns >> 1) bucket += 1;
	if (bucket >= QM_LEG_BUCKETS)
		bucket = QM_LEG_BUCKETS - 1;
	legs[this_cpu()].hist[which][bucket]++;
	return 1;
}

/*
 * Must this task stay where it is? A migration-disabled task may run on its present CPU only.
 * Kernels that know SCX_OPS_ENQ_MIGRATION_DISABLED handle such tasks themselves unless asked not
 * to. Before (6.12), the count has to be read, and while a BPF program runs the count of the
 * current task is one too high, because the trampoline itself disables migration.
 */
static __always_inline bool is_migration_disabled(struct task_struct *p)
{
	u32 n;

	if (ENUM_HAS(scx_ops_flags, SCX_OPS_ENQ_MIGRATION_DISABLED))
		return false;
	if (!FIELD_HAS(p->migration_disabled))
		return false;
	n = p->migration_disabled;
	if (n == 1)
		return bpf_get_current_task_btf()->pid != p->pid;
	return n > 1;
}

/* The agreement in which a permit was given, and what cgroups were then: both numbers only grow. */
static __always_inline u32 permit_epoch(void)
{
	return (u32)(view.epoch + READ_ONCE(view.cgroup_changes));
}

/* As a decision on this task says, see permit.h. Before it is moved: from there it may run. */
static __always_inline void grant(struct task_struct *p, struct task_ctx *t, struct qm_decision *d, u64 slice, u64 now)
{
	t->order = d->vtime;
	t->left = slice;
	t->permit = d->permit < QM_PERMIT_MAX ? d->permit : QM_PERMIT_MAX;
	if (!t->permit)
		return;
	t->permit_flags = d->flags;
	t->permit_until = now + (d->permit_ns < QM_PERMIT_MAX_NS ? d->permit_ns : QM_PERMIT_MAX_NS);
	t->permit_vtime = d->vtime;
	t->permit_slice = slice;
	t->permit_rate = d->rate;
	t->permit_mark = d->mark;
	t->permit_epoch = permit_epoch();
	t->permit_weight = p->scx.weight;
}

/* The agent has decided on a task whose CPU may wait for that, see dedicated.h. Wherever it goes, the wait is over. */
static __always_inline void answered(s32 cpu)
{
	if (cpu >= 0 && __sync_lock_test_and_set(&cpu_ctx(cpu)->asked, 0))
		kick_if_idle(cpu);
}

/* One decision against one parked task. */
struct turn {
	s32 cpu;	/* the CPU in dispatch */
	bool local_free; /* its local queue is empty and nothing else waits for it */
	u64 now;
};
enum { SETTLED, EARLY };

/*
 * Checks and applies one decision. The order matters: the iterator is older than every check
 * here, so that a task which is dequeued and queued again in between (an affinity change) is newer
 * than the iterator and the move fails, instead of moving it to a CPU that it may no longer use;
 * such a move would eject the scheduler.
 */
static __always_inline int apply(struct bpf_iter_scx_dsq *it, struct qm_decision *d, struct turn *turn)
{
	struct qm_counters *c = count();
	u64 parked = d->generation << STATE_BITS | STATE_PARKED;
	u64 placed = d->generation << STATE_BITS | STATE_PLACED;
	u64 slice = d->slice_ns, word, enqueued_at;
	struct task_struct *p;
	struct task_ctx *t;
	s32 cpu = d->cpu, from = -1;
	int ret = SETTLED;
	bool moved, sampled;
	u32 bucket;

	if ((d->flags & ~QM_PERMIT_FLAGS) || (cpu != QM_CPU_ANY && (cpu < 0 || (u32)cpu >= config.nr_cpu_ids))) {
		c->dec_refused++;
		return SETTLED;
	}
	p = bpf_task_from_pid(d->pid);
	if (!p) {
		c->dec_stale++;
		return SETTLED;
	}
	t = task_ctx(p);
	if (!t || READ_ONCE(t->custody) != parked) {
		c->dec_stale++;
		goto out;
	}
	if (!slice)
		slice = t->slice_ns;
	if (!slice)
		slice = config.slice_ns;
	else if (slice < config.slice_min_ns)
		slice = config.slice_min_ns;
	else if (slice > config.slice_max_ns)
		slice = config.slice_max_ns;

	/*
	 * What belongs to this event, read while it is certain to: once the task is moved it may run and
	 * be enqueued again on another CPU before this one has gone on.
	 */
	bucket = READ_ONCE(t->bucket);
	enqueued_at = READ_ONCE(t->enqueued_at);
	sampled = READ_ONCE(t->sampled);
	if (is_dedicated())
		from = scx_bpf_task_cpu(p);
	/* From here on this CPU alone answers for the event. */
	if (__sync_val_compare_and_swap(&t->custody, parked, placed) != parked) {
		c->dec_stale++;
		goto out;
	}
	t->placed_at = turn->now;
	grant(p, t, d, slice, turn->now);
	/* A CPU that a realtime task holds now runs nothing of ours: whoever is free first may take it. */
	if (cpu != QM_CPU_ANY && (READ_ONCE(cpu_ctx(cpu)->taken) || agent_owns(cpu)))
		cpu = QM_CPU_ANY;
	if (cpu != QM_CPU_ANY && (!cpu_usable(cpu) || !bpf_cpumask_test_cpu(cpu, p->cpus_ptr))) {
		t->permit = 0;
		t->order = 0;
		core_filled(turn->now);
		if (dsq_move_vtime(it, p, DSQ_CORE, config.slice_ns, t->vtime)) {
			bucket_close(bucket);
			parked_for(enqueued_at, turn->now);
			c->ev_bounced++;
			c->dec_bounced++;
			answered(from);
			kick_for(p, scx_bpf_task_cpu(p));
			goto out;
		}
		goto failed;
	}
	if (turn->local_free && (cpu == turn->cpu || (cpu == QM_CPU_ANY && bpf_cpumask_test_cpu(turn->cpu, p->cpus_ptr)))) {
		moved = dsq_move(it, p, SCX_DSQ_LOCAL, slice);
		if (moved)
			turn->local_free = false;
	} else if (cpu == QM_CPU_ANY) {
		moved = dsq_move_vtime(it, p, DSQ_SHARED, slice, d->vtime);
		if (moved) {
			__sync_lock_test_and_set(&core.shared, 1);
			kick_for(p, scx_bpf_task_cpu(p));
		}
	} else {
		moved = dsq_move_vtime(it, p, DSQ_PLACED(cpu), slice, d->vtime);
		if (moved) {
			/* A full barrier: either we see the CPU idle, or it sees the hint (update_idle). */
			__sync_lock_test_and_set(&cpu_ctx(cpu)->placed, 1);
			if (is_dedicated())
				WRITE_ONCE(core.waited_at, turn->now);
			kick_if_idle(cpu);
		}
	}
	if (moved) {
		answered(from);
		bucket_close(bucket);
		parked_for(enqueued_at, turn->now);
		c->ev_dispatched++;
		c->dec_applied++;
		if (sampled) {
			leg(QM_LEG_SEEN, enqueued_at, d->seen_at);
			leg(QM_LEG_DECIDED, d->seen_at, d->decided_at);
			leg(QM_LEG_INSERTED, d->decided_at, turn->now);
		}
		goto out;
	}
failed:
	/*
	 * The task is not in DSQ_PARK. Either it is not there yet: the kernel inserts it only after
	 * enqueue has returned, and the event may be answered sooner. Then the event is open again and
	 * the decision waits. Or somebody else took it, and how the event ended is seen in the word.
	 */
	word = __sync_val_compare_and_swap(&t->custody, placed, parked);
	if (word == placed) {
		ret = EARLY;
	} else {
		bucket_close(bucket);
		if (word >> STATE_BITS == d->generation)
			c->ev_taken_over++;
		else
			c->ev_cancelled++;
		c->dec_stale++;
	}
out:
	bpf_task_release(p);
	return ret;
}

/*
 * Takes what the agent has decided and moves the tasks. Decisions that came before their task was
 * parked stay in the batch and go first the next time: the insert they wait for is a few hundred
 * instructions away on another CPU. Each round needs a new iterator, because an iterator does not
 * see what is inserted after it was made.
 *
 * Returns whether the local queue is still empty. Global, so that the verifier checks it once and not for each
 * way through dispatch.
 */
__noinline int take_decisions(s32 in_cpu, u64 now, int local_free)
{
	struct turn on_stack = { .cpu = in_cpu, .now = now, .local_free = local_free }, *turn = &on_stack;
	u32 me = (u32)in_cpu & (QM_MAX_CPUS - 1);
	struct cpu_ctx *cc = &cpus[me];
	struct batch *batch = &batches[me];
	struct drain drain = { .cpu = me, .n = cc->kept };
	struct bpf_iter_scx_dsq it;
	u32 n, left = READ_ONCE(core.decisions_left);
	long got = 0;
	int round, k;

	if (drain.n < BATCH)
		got = drain_decisions(&drain);
	/*
	 * EBUSY: another CPU drains. It may have looked for the last time before what we came for was published, so somebody
	 * has to look again; that CPU sees another number than the one it began with, and leaves it.
	 */
	if (got == -EBUSY)
		__sync_fetch_and_add(&core.decisions_left, 1);
	else if (got < 0)
		count()->ring_errors++;
	else if (drain.n >= BATCH || drain.seen >= SEEN_MAX)
		WRITE_ONCE(core.decisions_left, left ?: 1);
	else if (left)
		__sync_val_compare_and_swap(&core.decisions_left, left, 0);
	n = drain.n;
	if (n == 0)
		return local_free;
	WRITE_ONCE(cc->batch, n);
	FOR(round, 3) {
		/* Counted in memory, so that the verifier sees one loop and not one state per count. */
		cc->kept = 0;
		if (!bpf_iter_scx_dsq_new(&it, DSQ_PARK, 0)) {
			FOR(k, BATCH) {
				struct qm_decision *d;

				if (k >= READ_ONCE(cc->batch))
					break;
				d = &batch->decision[k & (BATCH - 1)];
				if (apply(&it, d, turn) == EARLY) {
					batch->decision[READ_ONCE(cc->kept) & (BATCH - 1)] = *d;
					WRITE_ONCE(cc->kept, READ_ONCE(cc->kept) + 1);
				}
			}
		}
		bpf_iter_scx_dsq_destroy(&it);
		if (!READ_ONCE(cc->kept))
			break;
		count()->retried += cc->kept;
		WRITE_ONCE(cc->batch, READ_ONCE(cc->kept));
	}
	return turn->local_free;
}
#endif
