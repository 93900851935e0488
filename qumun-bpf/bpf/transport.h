/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * How events get to the agent, and decisions back: through the kernel's two ring buffers, or through two arrays that both
 * sides map (QM_OPT_SHARED). Which is a constant to the verifier, which drops the other; its maps are not made.
 *
 * The arrays. A CPU takes the next slot by adding to a counter, writes the event, and counts the slot as written. The
 * agent reads slots in turn for as long as they were written as often as it has come round, and publishes how far it came
 * once a batch. Decisions are written by the agent alone and published once a batch; whichever CPU wants them copies what
 * there is and then claims it with one compare-and-swap. So nobody holds a lock, and there is none to wait for.
 *
 * The words of the agent are read, compared, and believed in nothing: whatever they say, work is bounded, and the worst is
 * that no event is sent and no decision found, as from an agent that is dead.
 */
#ifndef QUMUN_TRANSPORT_H
#define QUMUN_TRANSPORT_H
#include "state.h"

struct qm_event_array event_array SEC(".bss.qm_eslots") __attribute__((aligned(64)));
struct qm_decision_array decision_array SEC(".bss.qm_dslots") __attribute__((aligned(64)));

#define SHARED OPTION(SHARED)

/*
 * Events that may be unread. Not all slots: between the look at the agent's position and the claim of a slot other CPUs
 * may claim some, each one for itself and one for an interrupt. (Where a fork is interrupted there too it could be more.
 * Then an event that was not read is overwritten. The agent sees that by the count, and the latch falls: see latch.h.)
 */
#ifndef EVENT_ROOM
#define EVENT_ROOM (QM_EVENT_SLOTS - 2 * config.nr_cpu_ids)
#endif

/* Room for one event, NULL if there is none. Whoever gets it submits it. */
static __always_inline struct qm_event *event_reserve(void)
{
	if (SHARED) {
		u64 at = READ_ONCE(event_array.sent);

		/* An agent that claims to have read what was not sent is no better off: the difference is huge. */
		if (at - READ_ONCE(decision_array.read) >= EVENT_ROOM)
			return NULL;
		at = __sync_fetch_and_add(&event_array.sent, 1);
		return &event_array.slots[at & (QM_EVENT_SLOTS - 1)].event;
	}
	return bpf_ringbuf_reserve(&qm_events, sizeof(struct qm_event), 0);
}

/* No wakeup: nobody sleeps on these, and the wakeup would be an IPI for each event. */
static __always_inline void event_submit(struct qm_event *e)
{
	if (SHARED) {
		struct qm_event_slot *slot = (void *)e;
		u64 before = __sync_fetch_and_add(&slot->written, 1);

		/* An addition whose result is used is a full barrier (Documentation/atomic_t.txt); one that nobody looks at would
		 * be compiled to another instruction, which is none. */
		asm volatile("" ::"r"(before));
		return;
	}
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

static __always_inline bool events_pending(void)
{
	if (SHARED)
		return READ_ONCE(event_array.sent) != READ_ONCE(decision_array.read);
	return bpf_ringbuf_query(&qm_events, BPF_RB_AVAIL_DATA) > 0;
}

/* As the kernel answers for its ring buffer. */
#define EBUSY 16
#define E2BIG 7
/* Another CPU was faster so often: somebody looks again later. */
#define CLAIM_TRIES 3

#ifndef CLAIM_DECISIONS
#define CLAIM_DECISIONS(at, n) (__sync_val_compare_and_swap(&event_array.taken, at, (at) + (n)) == (at))
#endif

/*
 * Copies decisions behind the first @n of this CPU's batch, until that is full. Returns how many, or a negative error.
 * The checks come later, on the copy: the agent may write while we read. Global, so that the verifier checks it once.
 */
__noinline int take_from_array(u32 in_cpu, u32 n)
{
	u32 cpu = in_cpu & (QM_MAX_CPUS - 1);
	struct batch *batch = &batches[cpu];

	for (u32 tries = 0; tries < CLAIM_TRIES; tries++) {
		u64 at = READ_ONCE(event_array.taken), there = READ_ONCE(decision_array.published) - at;
		u32 i;

		/* Behind: left by an agent that is gone, until the next one says hello. */
		if ((s64)there <= 0)
			return 0;
		if (there > QM_DECISION_SLOTS)
			return -E2BIG;
		if (n >= BATCH)
			return 0;
		if (there > BATCH - n)
			there = BATCH - n;
		/* Changes nothing. A full barrier: what was published before we looked is there. */
		__sync_val_compare_and_swap(&event_array.taken, at, at);
		for (i = 0; i < BATCH; i++) {
			if (i >= there)
				break;
			batch->decision[(n + i) & (BATCH - 1)] =
				decision_array.slots[(at + i) & (QM_DECISION_SLOTS - 1)];
		}
		/* Only now may the agent write there again. */
		if (CLAIM_DECISIONS(at, there)) {
			counters[cpu].dec_drained += there;
			return there;
		}
	}
	return -EBUSY;
}

struct drain {
	u32 cpu;
	u32 n;
	u32 seen;
};
/* Records looked at in one drain, the useless ones included: interrupts are off. What an agent marks
 * as discarded is skipped by the kernel, which stops after 2^17. */
#define SEEN_MAX (4 * BATCH)

/*
 * Copies one record out of the ring. Non-zero stops the drain: only when the batch is full. The read
 * comes before any other call: verifiers before 7.0 cannot keep a dynptr across one.
 */
static long take_record(struct bpf_dynptr *record, struct drain *drain)
{
	u32 cpu = drain->cpu & (QM_MAX_CPUS - 1);
	long bad = bpf_dynptr_read(&batches[cpu].decision[drain->n & (BATCH - 1)], sizeof(struct qm_decision),
				   record, 0, 0);

	counters[cpu].dec_drained++;
	drain->seen++;
	if (bad) {
		counters[cpu].dec_refused++;
		return drain->seen >= SEEN_MAX;
	}
	drain->n++;
	return drain->n >= BATCH || drain->seen >= SEEN_MAX;
}

/* Copies decisions into the batch. -EBUSY: another CPU is at it. Another error: what the agent wrote makes no sense. */
static __always_inline long drain_decisions(struct drain *drain)
{
	long got;

	if (SHARED) {
		/* Mostly nothing is there: no call for that. */
		if (READ_ONCE(event_array.taken) == READ_ONCE(decision_array.published))
			return 0;
		got = take_from_array(drain->cpu, drain->n);
		if (got > 0) {
			drain->n += got;
			drain->seen += got;
		}
		return got;
	}
	return bpf_user_ringbuf_drain(&qm_decisions, take_record, drain, BPF_RB_NO_WAKEUP);
}
#endif
