/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * A CPU whose cache is warm, where the core chooses by itself.
 *
 * The kernel's own selection takes a wholly idle core anywhere before an idle thread under the same cache. On a
 * machine where most cores have something to do, it sends tasks to and fro between caches, and the policy, which
 * knows better (Reach::Cache), never gets them back.
 */
#ifndef QUMUN_NEAR_H
#define QUMUN_NEAR_H
#include "state.h"

/* The lowest bit that is set; there is one. Counts the ones below it by adding neighbours (Knuth, The Art of Computer
 * Programming 4A, 7.1.3): a verifier would follow each branch of a search. */
static __always_inline u32 lowest_bit(u64 word)
{
	u64 ones = (word & -word) - 1;

	ones -= (ones >> 1) & 0x5555555555555555ULL;
	ones = (ones & 0x3333333333333333ULL) + ((ones >> 2) & 0x3333333333333333ULL);
	ones = (ones + (ones >> 4)) & 0x0f0f0f0f0f0f0f0fULL;
	return (ones * 0x0101010101010101ULL) >> 56;
}

/* Claims an idle CPU under the last cache of @cpu, @whole: one whose core is idle. -1 if there is none. */
static __noinline s32 claim_in_cache(struct task_struct *p, s32 cpu, bool whole)
{
	u32 cache = places.cache[(u32)cpu & (QM_MAX_CPUS - 1)];
	int i, n;

	/* Not told: a CPU that came later. */
	if (!cache)
		return -1;
	cache = (cache - 1) & (QM_MAX_CPUS - 1);
	FOR(i, QM_IDLE_WORDS) {
		u64 word;

		if (i * 64 >= config.nr_cpu_ids)
			break;
		word = READ_ONCE(view.idle[i & (QM_IDLE_WORDS - 1)]) & places.cpus[cache][i & (QM_IDLE_WORDS - 1)];
		FOR(n, 64) {
			s32 c;

			if (!word)
				break;
			c = i * 64 + lowest_bit(word);
			word &= word - 1;
			if (whole && !cpu_is_idle(places.sibling[(u32)c & (QM_MAX_CPUS - 1)]))
				continue;
			if (cpu_open(c) && bpf_cpumask_test_cpu(c, p->cpus_ptr) && scx_bpf_test_and_clear_cpu_idle(c))
				return c;
		}
	}
	return -1;
}

/* Is a CPU idle that is not under this cache? */
static __always_inline bool is_idle_beyond(u32 cache)
{
	int i;

	FOR(i, QM_IDLE_WORDS) {
		if (i * 64 >= config.nr_cpu_ids)
			break;
		if (READ_ONCE(view.idle[i & (QM_IDLE_WORDS - 1)]) & ~places.cpus[cache & (QM_MAX_CPUS - 1)][i & (QM_IDLE_WORDS - 1)])
			return true;
	}
	return false;
}

/*
 * A CPU under the last cache of @cpu that was idle less than a slice ago, or is on its way out, and where nobody waits
 * since and nobody runs who runs for long: it comes free soon. The one that is busy for longest; -1 if there is none.
 */
static __noinline s32 soon_in_cache(struct task_struct *p, s32 cpu, u64 now)
{
	u32 cache = places.cache[(u32)cpu & (QM_MAX_CPUS - 1)];
	u64 first = now + 1;
	s32 soon = -1;
	int i, n;

	if (!cache)
		return -1;
	cache = (cache - 1) & (QM_MAX_CPUS - 1);
	/* There is no other to prefer it to: whoever comes free first is the best. */
	if (!is_idle_beyond(cache))
		return -1;
	FOR(i, QM_IDLE_WORDS) {
		u64 word;

		if (i * 64 >= config.nr_cpu_ids)
			break;
		word = places.cpus[cache][i & (QM_IDLE_WORDS - 1)];
		FOR(n, 64) {
			struct cpu_ctx *cc;
			u64 since;
			s32 c;

			if (!word)
				break;
			c = i * 64 + lowest_bit(word);
			word &= word - 1;
			cc = cpu_ctx(c);
			since = cpu_is_idle(c) ? now : cc->busy_since;
			if (cc->awaited || !cc->brief || !before(since, first) || !before(now, since + config.slice_ns))
				continue;
			if (!cpu_open(c) || !bpf_cpumask_test_cpu(c, p->cpus_ptr))
				continue;
			first = since;
			soon = c;
		}
	}
	if (soon >= 0)
		cpu_ctx(soon)->awaited = 1;
	return soon;
}

/*
 * A CPU near @cpu, which is not idle: an idle one under its cache, which is claimed. If @warm, the task has run here and
 * wakes up: then one that comes free soon, as the policy has it (Context::pick_warm), or none: whoever comes first may
 * take it. Else one that the kernel claims, near or far.
 */
static __always_inline s32 near_cpu(struct task_struct *p, s32 cpu, bool warm, u64 now)
{
	s32 near = claim_in_cache(p, cpu, true);

	if (near < 0)
		near = claim_in_cache(p, cpu, false);
	if (near < 0)
		near = warm ? soon_in_cache(p, cpu, now) : claim_near(p, cpu);
	return near;
}
#endif
