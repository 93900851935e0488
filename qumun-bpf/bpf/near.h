/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * An idle CPU whose cache is warm, where the core chooses by itself.
 *
 * The kernel's own selection takes a wholly idle core anywhere before an idle thread under the same cache. On a
 * machine where most cores have something to do, it sends tasks to and fro between caches, and the policy, which
 * knows better (Reach::Cache), never gets them back.
 */
#ifndef QUMUN_NEAR_H
#define QUMUN_NEAR_H
#include "state.h"

/* The lowest bit that is set, by halving; there is one. */
static __always_inline u32 lowest_bit(u64 word)
{
	u32 bit = 0;

	if (!(u32)word) { bit += 32; word >>= 32; }
	if (!(word & 0xffff)) { bit += 16; word >>= 16; }
	if (!(word & 0xff)) { bit += 8; word >>= 8; }
	if (!(word & 0xf)) { bit += 4; word >>= 4; }
	if (!(word & 0x3)) { bit += 2; word >>= 2; }
	if (!(word & 0x1)) bit += 1;
	return bit;
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
			if (cpu_usable(c) && bpf_cpumask_test_cpu(c, p->cpus_ptr) && scx_bpf_test_and_clear_cpu_idle(c))
				return c;
		}
	}
	return -1;
}

/* Claims an idle CPU near @cpu, which is not idle: under its cache, else where the kernel says. */
static __always_inline s32 claim_idle(struct task_struct *p, s32 cpu)
{
	s32 near = claim_in_cache(p, cpu, true);

	if (near < 0)
		near = claim_in_cache(p, cpu, false);
	return near >= 0 ? near : claim_near(p, cpu);
}
#endif
