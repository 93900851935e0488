/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Rules: what user space wants for tasks where the core decides by itself.
 *
 * A rule is found by who the task is, once for each table, and then remembered. It may name a slice, bound the weight by
 * which the task is charged, let tokens pay a part of that, and put the task ahead of all others: by rank, while it has
 * tokens, and while all who are ahead have some together, so that a favourite that spins leaves the others their part.
 * Without tokens it stands in its turn, or where the others will be when it has some, if that is sooner.
 *
 * Tokens are kept as the time at which all that was taken is paid for, as the agent's turns are (call_agent).
 */
#ifndef QUMUN_RULES_H
#define QUMUN_RULES_H
#include "permit.h"

#define RULE_NAMES (1U << QM_TARGET_COMM)

/* Whatever user space says: all who are ahead have 95 % of the machine at most, as real-time tasks do (sched_rt_runtime_us). */
#define FLOOR_PRICE 1078 /* 1024 / 0.95, of one CPU */
#define FLOOR_WINDOW_NS (100 * MS)

/* Who pays for each rule, and until when it has paid. Only the core writes it. */
struct payer {
	u64 key;
	u64 paid;
};
struct payer payers[QM_RULES] SEC(".bss.qm_payers");

/* Where a task stands. */
struct standing {
	u64 slice;
	u64 vtime;
};

static __always_inline struct qm_rule_table *rule_table(u32 generation)
{
	return &rules.tables[generation & 1];
}

/* As in qumun-bpf's rules.rs. The factors are odd: the golden section of 2^64, and the finalizer of SplitMix64. */
static __always_inline u64 target_hash(u32 kind, u64 a, u64 b)
{
	u64 h = (a + kind) * 0x9e3779b97f4a7c15ULL ^ b * 0xbf58476d1ce4e5b9ULL;

	h = (h ^ h >> 32) * 0x94d049bb133111ebULL;
	return h ^ h >> 32;
}

/* The number of the rule for a target, + 1; 0: there is none. Global, so that the verifier checks it once. */
__noinline int find_rule(u32 generation, u32 kind, u64 a, u64 b)
{
	struct qm_rule_table *table = rule_table(generation);
	u32 at = (u32)target_hash(kind, a, b);
	int i;

	if (!(READ_ONCE(table->flags) & 1U << (kind & 7)))
		return 0;
	FOR(i, QM_PROBES) {
		struct qm_target *target = &table->targets[(at + i) & (QM_TARGETS - 1)];
		u32 rule = READ_ONCE(target->rule);

		if (!rule)
			return 0;
		if (target->kind == kind && target->a == a && target->b == b)
			return rule <= QM_RULES ? rule : 0;
	}
	return 0;
}

static __always_inline u64 comm_word(struct task_struct *p, u32 which)
{
	u64 words[2];

	__builtin_memcpy(words, p->comm, sizeof(words));
	return words[which];
}

static __always_inline u64 ticks(u64 ns)
{
	return ns / (10 * MS);
}

/* What names a task, from what it was told itself to what it has in common with others. */
static __noinline void look_up(struct task_struct *p, struct task_ctx *t, u32 generation)
{
	u32 names = READ_ONCE(rule_table(generation)->flags) & RULE_NAMES;
	u64 tid = task_id(p);
	int rule = 0;

	if (t->label)
		rule = find_rule(generation, QM_TARGET_LABEL, t->label, 0);
	if (!rule && tid)
		rule = find_rule(generation, QM_TARGET_TASK, tid, 0);
	if (!rule)
		rule = find_rule(generation, QM_TARGET_THREAD, (u32)p->pid, ticks(p->start_boottime));
	if (!rule)
		rule = find_rule(generation, QM_TARGET_PROCESS, (u32)p->tgid, ticks(process_born(p)));
	if (!rule)
		rule = find_rule(generation, QM_TARGET_CGROUP, cgroup_id(p), 0);
	if (!rule && names)
		rule = find_rule(generation, QM_TARGET_COMM, comm_word(p, 0), comm_word(p, 1));
	t->rule = rule;
	t->rule_table = generation;
	t->rule_comm = names ? target_hash(0, comm_word(p, 0), comm_word(p, 1)) : 0;
}

/* The rule for a task, as long as it holds. */
static __always_inline struct qm_rule *rule_of(struct task_ctx *t, u64 now)
{
	u32 number = (t->rule - 1) & (QM_RULES - 1);
	struct qm_rule *rule = &rule_table(t->rule_table)->rules[number];

	if (!t->rule || !before(now, READ_ONCE(rule->until_ns)))
		return NULL;
	return rule;
}

/* Where it is kept what a task that has this rule takes. */
static __always_inline u64 *paid_by(struct task_ctx *t, struct qm_rule *rule)
{
	struct payer *payer = &payers[(t->rule - 1) & (QM_RULES - 1)];
	u64 key = READ_ONCE(rule->key);

	if (READ_ONCE(rule->flags) & QM_RULE_EACH)
		return &t->rule_paid;
	if (READ_ONCE(payer->key) != key) {
		/* Another one had this number before. */
		WRITE_ONCE(payer->paid, 0);
		WRITE_ONCE(payer->key, key);
	}
	return &payer->paid;
}

static __always_inline u64 floor_window(struct qm_rule_table *table)
{
	u64 window = READ_ONCE(table->floor_window_ns);

	return window < FLOOR_WINDOW_NS ? window : FLOOR_WINDOW_NS;
}

static __always_inline u32 floor_price(struct qm_rule_table *table)
{
	u32 price = READ_ONCE(table->floor_price), least = FLOOR_PRICE / ((u32)view.nr_online ?: 1) + 1;

	return price > least ? price : least;
}

/* When there are tokens again; now, if there are. */
static __always_inline u64 tokens_at(u64 paid, u64 window, u64 now)
{
	u64 at = paid - (window < RULE_WINDOW_NS ? window : RULE_WINDOW_NS);

	return before(now, at) ? at : now;
}

/* So much was run. What is owed has a bound: what was run while nobody else wanted to harmed nobody. */
static __always_inline void pay(u64 *to, u64 ran, u32 price, u64 window, u64 now)
{
	u64 paid = READ_ONCE(*to), most;

	if (window > RULE_WINDOW_NS)
		window = RULE_WINDOW_NS;
	most = now + window + RULE_DEBT_NS;
	if (before(paid, now))
		paid = now;
	paid += (ran < RULE_RUN_NS ? ran : RULE_RUN_NS) * price >> 10;
	WRITE_ONCE(*to, before(most, paid) ? most : paid);
}

static __noinline void stand_by_rule(struct task_ctx *t, struct standing *s, s32 cpu, u64 now)
{
	struct qm_rule_table *table = rule_table(t->rule_table);
	struct qm_rule *rule = rule_of(t, now);
	u64 slice, behind, paid, floor;
	u32 rank, there;
	s32 waiting;

	if (!rule)
		return;
	slice = READ_ONCE(rule->slice_ns);
	if (slice)
		s->slice = slice < config.slice_min_ns ? config.slice_min_ns :
			   slice > config.slice_max_ns ? config.slice_max_ns :
							 slice;
	rank = READ_ONCE(rule->rank);
	if (!rank || t->reclaim)
		return;
	rank = rank < QM_RANKS ? rank : QM_RANKS;
	t->favour = rank;
	there = READ_ONCE(cpu_ctx(cpu)->favour);
	paid = tokens_at(READ_ONCE(*paid_by(t, rule)), READ_ONCE(rule->window_ns), now);
	floor = tokens_at(READ_ONCE(core.ahead_paid), floor_window(table), now);
	/* In place of one that is wanted less, nobody else pays for it. */
	if (paid == now && (floor == now || (there && there < rank))) {
		t->rank = rank;
		s->vtime = READ_ONCE(core.vnow) - LAG_NS - t->rank * RULE_STEP_NS;
		count()->ahead++;
		return;
	}
	/* It is behind others until there are tokens: so far do they come by then who wait with it. */
	if (before(paid, floor))
		paid = floor;
	waiting = scx_bpf_dsq_nr_queued(DSQ_CORE);
	behind = READ_ONCE(core.vnow) + (paid - now) * ((u32)view.nr_online ?: 1) / (waiting > 0 ? waiting + 1 : 1);
	if (before(behind, s->vtime))
		t->vtime = s->vtime = behind;
}

/* Where a task stands that the core puts into a queue. */
static __always_inline struct standing stand(struct task_struct *p, struct task_ctx *t, s32 cpu, u64 now)
{
	struct standing s = { .slice = own_slice(t), .vtime = settle_vtime(t) };
	u32 generation = (u32)READ_ONCE(rules.generation);

	if (generation != t->rule_table ||
	    (t->rule_comm && t->rule_comm != target_hash(0, comm_word(p, 0), comm_word(p, 1))))
		look_up(p, t, generation);
	if (t->rule)
		stand_by_rule(t, &s, cpu, now);
	return s;
}

/* Charges a run by the rule: returns for how much of it the task pays itself, and bounds its weight. */
static __noinline u64 charge_by_rule(struct task_ctx *t, u64 ran, u32 *weight, u64 now)
{
	struct qm_rule_table *table = rule_table(t->rule_table);
	struct qm_rule *rule = rule_of(t, now);
	u64 *to, window, saved;
	u32 most, price, saves, rank;

	if (!rule)
		return ran;
	most = READ_ONCE(rule->weight);
	if (most && most < *weight)
		*weight = most;
	saves = READ_ONCE(rule->saves);
	rank = READ_ONCE(rule->rank);
	if (!rank && !saves)
		return ran;
	to = paid_by(t, rule);
	price = READ_ONCE(rule->price);
	window = READ_ONCE(rule->window_ns);
	if (rank) {
		/* In its turn, too: it has what tokens give or what its weight gives, whichever is more, and not both. */
		pay(to, ran, price, window, now);
		pay(&core.ahead_paid, ran, floor_price(table), floor_window(table), now);
		return ran;
	}
	if (tokens_at(READ_ONCE(*to), window, now) != now)
		return ran;
	saved = (ran < RULE_RUN_NS ? ran : RULE_RUN_NS) * (saves < 1024 ? saves : 1024) >> 10;
	pay(to, saved, price, window, now);
	return ran - saved;
}
#endif
