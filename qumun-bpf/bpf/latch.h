/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Degraded mode: a latch, never a flicker.
 *
 * It falls when the oldest undecided event is older than config.late_ns (or the agent's thread ends,
 * or a new agent says hello). While it is down no events are sent, the core's own order serves
 * everyone, and the agent gets one bounded turn in 10 ms. It is lifted when the agent has
 * acknowledged the current epoch (having thrown away everything older), nothing is parked any more,
 * and a dwell of 100 ms has passed; the dwell doubles up to 2 s when the last return was less than
 * a second ago. It is checked in enqueue, dispatch, tick and a 10 ms timer. The scheduler starts with
 * it down.
 */
#ifndef QUMUN_LATCH_H
#define QUMUN_LATCH_H
#include "shares.h"

/* The largest age, in buckets, that is looked at: 200 ms. */
#define OLDEST 48

static __always_inline bool is_normal(void)
{
	return READ_ONCE(view.mode) == QM_NORMAL;
}

static __always_inline bool is_kernel_mode(void)
{
	return READ_ONCE(view.mode) == QM_KERNEL;
}

/* The latch falls. Only one CPU wins; the epoch tells the agent that what it holds is void. */
__noinline int latch_fall(u64 now, u64 reason)
{
	if (__sync_val_compare_and_swap(&view.mode, QM_NORMAL, QM_FALLING) != QM_NORMAL)
		return 0;
	__sync_fetch_and_add(&view.epoch, 1);
	park_left(now);
	shares_begin();
	if (view.dwell_ns < DWELL_MIN_NS || now - core.left_at > RELAPSE_NS)
		view.dwell_ns = DWELL_MIN_NS;
	else
		view.dwell_ns = view.dwell_ns * 2 > DWELL_MAX_NS ? DWELL_MAX_NS : view.dwell_ns * 2;
	view.degraded_since = now;
	view.reason = reason;
	if (reason < QM_REASONS)
		view.entered[reason]++;
	/* Only now may it be lifted again: with the new epoch and the new dwell. */
	__sync_lock_test_and_set(&view.mode, QM_DEGRADED);
	debug("degraded, reason %llu, epoch %llu", reason, view.epoch);
	return 1;
}

static __always_inline void latch_try_lift(u64 now)
{
	if (READ_ONCE(view.mode) != QM_DEGRADED || !view.agent_pid || READ_ONCE(agent.ack) != view.epoch || now - view.degraded_since < view.dwell_ns)
		return;
	if (scx_bpf_dsq_nr_queued(DSQ_PARK) > 0)
		return;
	if (__sync_val_compare_and_swap(&view.mode, QM_DEGRADED, QM_FALLING) != QM_DEGRADED)
		return;
	view.left++;
	view.degraded_ns += now - view.degraded_since;
	view.degraded_since = 0;
	core.left_at = now;
	__sync_lock_test_and_set(&view.mode, QM_NORMAL);
	debug("normal, epoch %llu", view.epoch);
}

/*
 * Kernel mode: the core decides because it was told to. The same rule serves as in degraded mode, but nobody looks out for
 * the agent: it gets its regular turn and no other. Back from there the agent has to catch up, as always, without a dwell.
 */
static __always_inline int set_kernel_mode(u64 now, bool on)
{
	u64 mode;

	for (int i = 0; i < 64; i++) {
		mode = READ_ONCE(view.mode);
		if (mode == QM_FALLING)
			continue;
		if ((mode == QM_KERNEL) == on)
			return mode == QM_KERNEL;
		if (__sync_val_compare_and_swap(&view.mode, mode, QM_FALLING) != mode)
			continue;
		__sync_fetch_and_add(&view.epoch, 1);
		if (on && mode == QM_DEGRADED) {
			view.left++;
			view.degraded_ns += now - view.degraded_since;
		}
		if (on) {
			park_left(now);
			if (mode == QM_NORMAL)
				shares_begin();
		} else {
			view.dwell_ns = 0;
			view.reason = QM_REASON_MODE;
			view.entered[QM_REASON_MODE]++;
		}
		view.degraded_since = now;
		__sync_lock_test_and_set(&view.mode, on ? QM_KERNEL : QM_DEGRADED);
		return !on;
	}
	return -16; /* EBUSY: somebody was in between for all that time */
}

/*
 * Is an event older than the limit still undecided? Looks once per bucket of time, and not at the
 * oldest ones: on a CPU that was held up since it read the clock, those are what others call the
 * newest. An event that hides there is seen a little later, when its bucket has come round.
 */
static __always_inline u64 oldest_late(u64 now)
{
	u64 bucket = now >> BUCKET_SHIFT;
	u32 young = (u32)(config.late_ns >> BUCKET_SHIFT) + 1;

	if ((s64)(bucket - READ_ONCE(core.checked)) <= 0)
		return 0;
	WRITE_ONCE(core.checked, bucket);
	for (u32 age = OLDEST; age > 0; age--) {
		if (age < young)
			break;
		if (READ_ONCE(core.undecided[(bucket - age) & (BUCKETS - 1)]) > 0)
			return (u64)age << BUCKET_SHIFT;
	}
	return 0;
}

/* Checks the latch both ways and says whether it is down. */
__noinline int latch_check(u64 now)
{
	if (is_normal()) {
		u64 late = oldest_late(now);

		if (late && latch_fall(now, QM_REASON_LATE) && late > view.longest_late_ns)
			view.longest_late_ns = late;
	} else {
		latch_try_lift(now);
	}
	return !is_normal();
}
/* The same where it is asked most: a bucket of time is looked at once. */
static __always_inline bool latch_is_down(u64 now)
{
	u64 mode = READ_ONCE(view.mode);

	if (mode == QM_KERNEL)
		return true;
	if (mode == QM_NORMAL && (s64)((now >> BUCKET_SHIFT) - READ_ONCE(core.checked)) <= 0)
		return false;
	return latch_check(now);
}
#endif
