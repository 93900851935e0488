/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Kernel functions in every spelling that 6.12 to 7.3 have. All of them are weak: the loader
 * resolves those the running kernel has, the verifier drops the branches of those it has not.
 *
 *   6.12                          6.13 and later
 *   scx_bpf_dispatch              scx_bpf_dsq_insert          (from 6.19 also …___v2, returns bool)
 *   scx_bpf_dispatch_vtime        scx_bpf_dsq_insert_vtime    (from 6.19 also __…, arguments in a struct)
 *   scx_bpf_consume               scx_bpf_dsq_move_to_local   (from 7.1 also …___v2, with flags)
 *   scx_bpf_dispatch_from_dsq*    scx_bpf_dsq_move*
 *   p->scx.slice = …              scx_bpf_task_set_slice      (from 6.19; writing warns there)
 *
 * libbpf takes the last "___suffix" off a name before it looks it up, so a kernel name that itself
 * ends in ___v2 is written here with one more suffix.
 */
#ifndef QUMUN_KFUNCS_H
#define QUMUN_KFUNCS_H

#define KFUNC __ksym __weak
#define HAS(f) (!!(f))

extern int bpf_iter_num_new(struct bpf_iter_num *it, int start, int end) __ksym;
extern int *bpf_iter_num_next(struct bpf_iter_num *it) __ksym;
extern void bpf_iter_num_destroy(struct bpf_iter_num *it) __ksym;
extern struct task_struct *bpf_task_from_pid(s32 pid) __ksym;
extern void bpf_task_release(struct task_struct *p) __ksym;
extern bool bpf_cpumask_test_cpu(u32 cpu, const struct cpumask *mask) __ksym;
extern void bpf_rcu_read_lock(void) __ksym;
extern void bpf_rcu_read_unlock(void) __ksym;

extern s32 scx_bpf_create_dsq(u64 id, s32 node) __ksym;
extern s32 scx_bpf_dsq_nr_queued(u64 id) __ksym;
extern s32 scx_bpf_task_cpu(const struct task_struct *p) __ksym;
extern void scx_bpf_kick_cpu(s32 cpu, u64 flags) __ksym;
extern bool scx_bpf_test_and_clear_cpu_idle(s32 cpu) __ksym;
extern s32 scx_bpf_pick_idle_cpu(const struct cpumask *allowed, u64 flags) __ksym;
extern u32 scx_bpf_nr_cpu_ids(void) __ksym;
extern const struct cpumask *scx_bpf_get_online_cpumask(void) __ksym;
extern void scx_bpf_put_cpumask(const struct cpumask *mask) __ksym;
extern int bpf_iter_scx_dsq_new(struct bpf_iter_scx_dsq *it, u64 id, u64 flags) __ksym;
extern struct task_struct *bpf_iter_scx_dsq_next(struct bpf_iter_scx_dsq *it) __ksym;
extern void bpf_iter_scx_dsq_destroy(struct bpf_iter_scx_dsq *it) __ksym;

extern void scx_bpf_dsq_insert(struct task_struct *p, u64 id, u64 slice, u64 flags) KFUNC;
extern bool scx_bpf_dsq_insert___v2___q(struct task_struct *p, u64 id, u64 slice, u64 flags) KFUNC;
extern void scx_bpf_dispatch(struct task_struct *p, u64 id, u64 slice, u64 flags) KFUNC;
extern void scx_bpf_dsq_insert_vtime(struct task_struct *p, u64 id, u64 slice, u64 vtime, u64 flags) KFUNC;
struct scx_bpf_dsq_insert_vtime_args {
	u64 dsq_id;
	u64 slice;
	u64 vtime;
	u64 enq_flags;
} CORE;
extern bool __scx_bpf_dsq_insert_vtime(struct task_struct *p, struct scx_bpf_dsq_insert_vtime_args *args) KFUNC;
extern void scx_bpf_dispatch_vtime(struct task_struct *p, u64 id, u64 slice, u64 vtime, u64 flags) KFUNC;
extern bool scx_bpf_dsq_move_to_local(u64 id) KFUNC;
extern bool scx_bpf_dsq_move_to_local___v2___q(u64 id, u64 flags) KFUNC;
extern bool scx_bpf_consume(u64 id) KFUNC;
extern bool scx_bpf_dsq_move(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 id, u64 flags) KFUNC;
extern bool scx_bpf_dispatch_from_dsq(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 id,
				      u64 flags) KFUNC;
extern bool scx_bpf_dsq_move_vtime(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 id,
				   u64 flags) KFUNC;
extern bool scx_bpf_dispatch_vtime_from_dsq(struct bpf_iter_scx_dsq *it__iter, struct task_struct *p, u64 id,
					    u64 flags) KFUNC;
extern void scx_bpf_dsq_move_set_slice(struct bpf_iter_scx_dsq *it__iter, u64 slice) KFUNC;
extern void scx_bpf_dispatch_from_dsq_set_slice(struct bpf_iter_scx_dsq *it__iter, u64 slice) KFUNC;
extern void scx_bpf_dsq_move_set_vtime(struct bpf_iter_scx_dsq *it__iter, u64 vtime) KFUNC;
extern void scx_bpf_dispatch_from_dsq_set_vtime(struct bpf_iter_scx_dsq *it__iter, u64 vtime) KFUNC;
extern bool scx_bpf_task_set_slice(struct task_struct *p, u64 slice) KFUNC;
extern s32 scx_bpf_select_cpu_dfl(struct task_struct *p, s32 prev_cpu, u64 wake_flags, bool *is_idle) KFUNC;
struct scx_bpf_select_cpu_and_args {
	s32 prev_cpu;
	u64 wake_flags;
	u64 flags;
} CORE;
extern s32 __scx_bpf_select_cpu_and(struct task_struct *p, const struct cpumask *cpus_allowed,
				    struct scx_bpf_select_cpu_and_args *args) KFUNC;
extern s32 scx_bpf_select_cpu_and(struct task_struct *p, s32 prev_cpu, u64 wake_flags,
				  const struct cpumask *cpus_allowed, u64 flags) KFUNC;
extern struct cgroup *bpf_cgroup_from_id(u64 id) KFUNC;
extern struct cgroup *bpf_cgroup_ancestor(struct cgroup *cgrp, int level) KFUNC;
extern void bpf_cgroup_release(struct cgroup *cgrp) KFUNC;
extern void scx_bpf_dump_bstr(char *fmt, unsigned long long *data, u32 data__sz) __ksym;
extern u32 scx_bpf_reenqueue_local(void) KFUNC;
extern void scx_bpf_reenqueue_local___v2___q(void) KFUNC;
extern void scx_bpf_dsq_reenq(u64 dsq_id, u64 reenq_flags) KFUNC;

/*
 * Was this task in user space when the clock interrupted it? The kernel has just accounted the tick, to the task's time in
 * user space or in the kernel (account_process_tick comes before sched_tick in update_process_times): @seen is what it was
 * at the task's last tick. Where time is accounted at each way into the kernel (nohz_full), true if any of it was in user
 * space since.
 */
static __always_inline bool was_in_user_space(struct task_struct *p, u64 *seen)
{
	u64 utime = p->utime, before = *seen;

	*seen = utime;
	return utime != before;
}

/* When its process began. */
static __always_inline u64 process_born(struct task_struct *p)
{
	return p->group_leader->start_boottime;
}

/* A bounded loop that the verifier checks once, not once per round (open-coded iterator, 6.4). */
#define FOR(i, n)                                                                                  \
	for (struct bpf_iter_num it_##i __attribute__((aligned(8), cleanup(bpf_iter_num_destroy))),   \
	     *once_##i __attribute__((unused)) = (bpf_iter_num_new(&it_##i, 0, (n)),               \
						  (void)bpf_iter_num_destroy, (void *)0);          \
	     ({                                                                                    \
		     int *v_##i = bpf_iter_num_next(&it_##i);                                      \
		     (v_##i) ? ((i) = *v_##i, 1) : 0;                                              \
	     });)

static __always_inline void dsq_insert(struct task_struct *p, u64 id, u64 slice, u64 flags)
{
	if (HAS(scx_bpf_dsq_insert___v2___q))
		scx_bpf_dsq_insert___v2___q(p, id, slice, flags);
	else if (HAS(scx_bpf_dsq_insert))
		scx_bpf_dsq_insert(p, id, slice, flags);
	else
		scx_bpf_dispatch(p, id, slice, flags);
}

static __always_inline void dsq_insert_vtime(struct task_struct *p, u64 id, u64 slice, u64 vtime, u64 flags)
{
	if (HAS(__scx_bpf_dsq_insert_vtime)) {
		struct scx_bpf_dsq_insert_vtime_args args = {
			.dsq_id = id, .slice = slice, .vtime = vtime, .enq_flags = flags,
		};
		__scx_bpf_dsq_insert_vtime(p, &args);
	} else if (HAS(scx_bpf_dsq_insert_vtime)) {
		scx_bpf_dsq_insert_vtime(p, id, slice, vtime, flags);
	} else {
		scx_bpf_dispatch_vtime(p, id, slice, vtime, flags);
	}
}

static __always_inline bool dsq_to_local(u64 id)
{
	if (HAS(scx_bpf_dsq_move_to_local___v2___q))
		return scx_bpf_dsq_move_to_local___v2___q(id, 0);
	if (HAS(scx_bpf_dsq_move_to_local))
		return scx_bpf_dsq_move_to_local(id);
	return scx_bpf_consume(id);
}

/* Moves one task out of the iterator's queue. The iterator must be older than the checks on @p. */
static __always_inline bool dsq_move(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 id, u64 slice)
{
	if (HAS(scx_bpf_dsq_move)) {
		scx_bpf_dsq_move_set_slice(it, slice);
		return scx_bpf_dsq_move(it, p, id, 0);
	}
	scx_bpf_dispatch_from_dsq_set_slice(it, slice);
	return scx_bpf_dispatch_from_dsq(it, p, id, 0);
}

static __always_inline bool dsq_move_vtime(struct bpf_iter_scx_dsq *it, struct task_struct *p, u64 id, u64 slice,
					   u64 vtime)
{
	if (HAS(scx_bpf_dsq_move_vtime)) {
		scx_bpf_dsq_move_set_slice(it, slice);
		scx_bpf_dsq_move_set_vtime(it, vtime);
		return scx_bpf_dsq_move_vtime(it, p, id, 0);
	}
	scx_bpf_dispatch_from_dsq_set_slice(it, slice);
	scx_bpf_dispatch_from_dsq_set_vtime(it, vtime);
	return scx_bpf_dispatch_vtime_from_dsq(it, p, id, 0);
}

/* Claims an idle CPU for @p, by the kernel's own rule: near @prev. -1 if there is none, or the kernel (before 6.16)
 * does not let enqueue ask. */
static __always_inline s32 claim_near(struct task_struct *p, s32 prev)
{
	if (HAS(__scx_bpf_select_cpu_and)) {
		struct scx_bpf_select_cpu_and_args args = { .prev_cpu = prev };

		return __scx_bpf_select_cpu_and(p, p->cpus_ptr, &args);
	}
	if (HAS(scx_bpf_select_cpu_and))
		return scx_bpf_select_cpu_and(p, prev, 0, p->cpus_ptr, 0);
	return -1;
}

static __always_inline void set_slice(struct task_struct *p, u64 slice)
{
	if (HAS(scx_bpf_task_set_slice))
		scx_bpf_task_set_slice(p, slice);
	else
		p->scx.slice = slice;
}
#endif
