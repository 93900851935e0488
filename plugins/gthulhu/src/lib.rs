//! The Gthulhu policy: weighted shares of tasks and cgroups, bounded boosts, and short waits for who waits for events.
//!
//! All tasks that wait stand on one axis of virtual time, and whoever has the least is served first. The policy
//! decides on each task at once and says where it stands; the core keeps the order. Nothing is held back, so no CPU is
//! idle for a rule.
//!
//! # Shares
//!
//! Each task has a *virtual runtime*: the time it ran, divided by its weight. Each cgroup has one among its siblings, by
//! `cpu.weight`, as in the group scheduling of Linux's CFS; tasks and cgroups of one parent are siblings. The clock of
//! each such family follows whom is served (start-time fair queueing: Goyal, Vin, Cheng 1996). A task's place is its
//! group's, spread by where it stands in the group. So what a group gets follows from what it consumed, however many
//! tasks it has; that nothing has to be known about who sleeps is why this holds with events for wakeups only.
//!
//! Who slept, task or group, keeps one slice of credit. Credit is time on a CPU: the more it weighs, the less virtual time
//! that is. What a task has had goes with it to another cgroup, and stays the same time when a weight changes. Nobody is
//! more than 400 ms of virtual time ahead of the clock: the bound of its wait comes before a weight below about 5. What
//! ran for longer than its slice and a clock interrupt kept nobody waiting, and costs nothing. A cgroup that is not
//! known is a child of the root; if there is no memory for cgroups, tasks share by their own weights.
//!
//! # Short waits
//!
//! Who sleeps more than it computes is put in front of those who only compute, by up to 100 ms on a CPU, found
//! from its sleeps alone (borrowed virtual time: Duda and Cheriton 1999; the measure is that of the sleep average in Linux
//! 2.6). That is a lead, and no share: it is spent when the virtual runtime has caught up. A process that is new
//! has half of what the task that made it has slept for, a thread has none. Who is interrupted in its slice goes on where
//! it was.
//!
//! Who has slept has paid, of what it had too much, what its share would have been meanwhile.
//!
//! There is no call to preempt another task, and none is needed: an event takes a CPU for the agent, and when its
//! turn is over that CPU serves the first on the axis, which is the one that was interrupted if nobody is before it.
//! That is also what makes a level preempt only what is strictly weaker: an equal one stands behind the interrupted. Tasks
//! that may use one CPU only are the core's (`docs/core.md`), which does the same for them.
//!
//! # Boosts
//!
//! What is wanted for a task is said by its label, which children inherit in the core, else by the strategy that is for it
//! ([`gthulhu_model`]). The table of strategies is handed over without a lock and looked at once in a batch.
//!
//! - Latency levels 0 to 9 stand ahead of all others, the stronger the further, while there are tokens: their own bucket
//!   (of the task, or shared by all tasks of a strategy), and the [floor](Floor).
//! - Without tokens of its own such a task stands where the others will be when it has some, and what it owes comes on top;
//!   by its weight, if that is sooner. Boosted time is charged like any other.
//! - The floor is kept as a tag for all boosted work on the same axis: each boosted run moves it by what is due to the
//!   others. Ahead of all others is only boosted work that is behind the tag's due; else it stands at the tag. So
//!   boosts and others share as two weighted flows do, and those who wait for events are before a favourite that
//!   spins. For tasks that may use some CPUs only, each CPU has a bucket of the floor, too.
//! - Levels 10 to 20 pay less for a run while there are tokens, by the percentage of the level.
//! - Best effort has the weight 1. Isolated tasks are normal ones here, or of level 0 if they have a budget.
//! - A slice alone is that slice.
//!
//! # How long a task waits at most
//!
//! A task stands at most 100 ms (handicap) and 400 ms (weight, debt) ahead of the clock, and whoever comes later in its turn
//! at most 5 ms behind it. The clock goes on by half of what the turns consume, divided by the weight `W` of all that
//! want to run, after 50 ms at most in which it stood still; and turns get at least the floor `f` of `C` CPUs. So it waits
//! for at most `(500 + 5 + 50) ms * 2 * W / 100 / (f * C)`, and a slice of each CPU. That is the worst of all at once. One of
//! weight 100 without debt stands at most 100 ms and a slice ahead: with ten such on two CPUs, and boosts that take all they
//! may, that is 8 s by the formula; the worst seen in simulated time against spinning favourites, sleepers and endless
//! newcomers is 0.6 s. After 0.5 s of waiting the core serves a task itself, out of any order (`docs/core.md`, rescue),
//! so that this bound holds first.
//!
//! ```
//! use gthulhu_plugin_gthulhu::Gthulhu;
//! use qumun::sim::{Machine, Spec};
//! use qumun::Nanos;
//!
//! let machine = Machine::new(2);
//! let mut agent = qumun::builder("gthulhu").agent(machine.backend(), Gthulhu::default());
//! let [light, heavy] = [50, 200].map(|weight| [0; 2].map(|_| machine.spawn(Spec { weight, ..Spec::default() })));
//! for task in [light, heavy].concat() {
//!     machine.wake(task);
//! }
//! machine.run(Nanos::from_millis(10_000), || agent.turn());
//! let ratio = machine.run_time(heavy[0]).as_u64() as f64 / machine.run_time(light[0]).as_u64() as f64;
//! assert!((3.7..4.3).contains(&ratio), "{ratio}");
//! ```

#![forbid(unsafe_code)]

mod account;
mod boost;
mod cache;
mod clock;
mod groups;
mod rules;
mod waiting;
mod wishes;

pub use account::Account;
pub use rules::rules;

use account::{Handicap, Manner, Turn};
use boost::{Boosts, Payer, Place};
use clock::{AHEAD, BEHIND, per_weight};
use groups::{Asks, Groups, Run};
use gthulhu_model::{Class, Floor, Level, Reader, StrategyTable, TokenBucket};
use qumun::{Context, Events, Full, Nanos, Note, Permit, Queued, Scheduler, Verdict};
use waiting::{Entry, Waiting, Wants};
use wishes::Wishes;

/// So much longer than its slice is a run at most that kept anybody waiting: clock interrupts are up to 10 ms apart. The
/// rest of it the CPU would have been idle, and it costs nothing.
const LATE: Nanos = Nanos::from_millis(15);
/// Tasks of one batch; those above are sent as they come. Takes 2.5 MiB of the pool; with less, there
/// is room for fewer.
const CAPACITY: usize = 16_384;
/// How many slices a round of all tasks on a CPU takes before they get shorter.
const ROUND: u64 = 8;
/// From one level to the next, in virtual time.
const STEP: u64 = 10_000_000;
/// The same among those whose turn has not come yet.
const SMALL_STEP: u64 = 1_000_000;
/// The weight of best effort: that of the kernel's `SCHED_IDLE`, 3 of 1024, rounded up.
const BEST_EFFORT: u32 = 1;
/// How often in one turn a task may be interrupted and go on where it was. One that yields looks the same as one that was
/// interrupted: it must not come first for ever.
const CUTS: u8 = 8;
/// The golden section of 2^32: its multiples are as far from each other as can be (Knuth, The Art of Computer
/// Programming 3, 6.4, exercise 9).
const GOLDEN: u32 = 0x9e37_79b9;
/// A rest of a turn that is shorter is not worth a switch.
const REST: Nanos = Nanos::from_micros(500);

/// The policy.
#[derive(Debug)]
pub struct Gthulhu {
    slice: Nanos,
    slice_min: Nanos,
    groups: Groups,
    boosts: Boosts,
    wishes: Wishes,
    waiting: Waiting,
    permit: Permit,
    nr_cpus: u32,
    /// Where the next newcomer is put.
    spread: u32,
    /// The time of this batch; zero between batches.
    now: Nanos,
}

/// With slices of 5 ms, and no shorter than 1 ms when many wait.
impl Default for Gthulhu {
    fn default() -> Self {
        Self::new(Nanos::from_millis(5), Nanos::from_millis(1))
    }
}

impl Gthulhu {
    /// With this slice when nobody waits, and this one when many do.
    pub fn new(slice: Nanos, slice_min: Nanos) -> Self {
        let slice = slice.max(Nanos(1));
        Self {
            slice,
            slice_min: slice_min.min(slice),
            groups: Groups::default(),
            boosts: Boosts::new(Floor::DEFAULT),
            wishes: Wishes::default(),
            waiting: Waiting::default(),
            permit: Permit::wakeups(0),
            nr_cpus: 1,
            spread: 0,
            now: Nanos::ZERO,
        }
    }

    /// Follows the strategies of the tables that are handed over. A newer table is taken at the beginning of a batch,
    /// without waiting; what a table says ends when its lease does.
    pub fn strategies(mut self, reader: Reader<StrategyTable>) -> Self {
        self.wishes = Wishes::new(reader);
        self
    }

    /// What all boosts together leave to everything else, of the machine and of each CPU.
    pub fn floor(mut self, floor: Floor) -> Self {
        self.boosts = Boosts::new(floor);
        self
    }

    /// Lets decisions hold for several wakeups, at the place that the task has by then. Not for those that boosts serve, of
    /// which each run is counted.
    #[must_use]
    pub fn permit(mut self, permit: Permit) -> Self {
        self.permit = permit;
        self
    }

    /// How many labels were seen that no value has. Their tasks are taken for normal ones.
    pub fn malformed_labels(&self) -> u64 {
        self.wishes.malformed()
    }

    /// Begins a batch, if none has begun, and says whether it has another table of strategies than the one before.
    fn begin(&mut self, now: impl FnOnce() -> Nanos) -> bool {
        if self.now != Nanos::ZERO {
            return false;
        }
        self.now = now();
        self.wishes.refresh()
    }

    /// Charges a task for its last run, and says how much.
    fn charge(&mut self, account: &mut Account, task: &Queued) -> u64 {
        if task.stopped_at <= account.charged {
            return 0;
        }
        account.charged = task.stopped_at;
        if !account.known {
            return 0;
        }
        // With a permit it has run several times.
        let last = task.stopped_at - task.started_at;
        let each = (account.turn.slice + LATE).as_u64();
        let most = Nanos(each.saturating_mul(u64::from(task.permitted) + 1));
        let ran = if task.permitted > 0 { task.ran } else { last }.min(most);
        account.turn.ran = account.turn.ran + ran;
        let time = ran.as_u64();
        let budget = account.wish.priority.boost().unwrap_or_default();
        let payer = (account.wish.payer, budget);
        let mut charged = time;
        match account.manner {
            Manner::Turn => {}
            Manner::Boost => {
                self.boosts.spend(&mut account.tokens, payer, task.cpu, time, self.now);
                self.boosts.owe(time, self.groups.root().load());
            }
            Manner::Discount(percent) => {
                let saved = time.saturating_mul(percent) / 100;
                self.boosts.spend(&mut account.tokens, payer, task.cpu, saved, self.now);
                charged -= saved.min(charged);
            }
        }
        // Whoever is served in turn stands where the others who compute are by now, less its lead.
        let turn = (account.manner != Manner::Boost)
            .then(|| account.turn.stands.place.saturating_sub(account.turn.lead));
        let run = Run {
            ran: charged,
            turn,
            progress: if turn.is_some() { charged } else { self.boosts.others_part(time) / 2 },
        };
        self.groups.charge(&mut account.member, account.weight, account.cgroup, run);
        account.handicap.ran(time);
        charged
    }

    /// What a child has earned that has woken its parent; `None` if it is not that.
    fn of_child(cx: &mut Context<'_, Account>, task: &Queued) -> Option<u64> {
        let waker = task.waker?;
        // Most tasks have made none, and this is asked at each wakeup.
        cx.known(task.id.pid).filter(|account| account.family.has_children)?;
        let child = cx.known(waker).filter(|child| child.family.parent == task.id.pid)?;
        Some(child.earned())
    }

    /// Finds the place of a task that wants to run.
    fn place(&mut self, account: &mut Account, task: &Queued) -> Entry {
        self.groups.saw(task);
        let charged = self.charge(account, task);
        let is_new = !account.known;
        let changed = self.wishes.of(&mut account.wish, task, self.now);
        let mut slept = Nanos::ZERO;
        if task.wakeup && task.stopped_at > Nanos::ZERO {
            slept = if task.permitted > 0 { task.slept } else { task.enqueued_at - task.stopped_at };
            // For whom it waited before its last sleep is not known: for its own processes, if it has made some.
            let unknown = task.permitted > 0 && account.family.has_children;
            account.slept(slept.as_u64(), if unknown { Some(0) } else { account.waited_for });
        }
        let budget = account.wish.priority.boost();
        if let Some(budget) = budget
            && changed
        {
            // What is seen for the first time with its label has inherited it: with a full bucket, each fork
            // would be worth a burst.
            let now = self.now.as_u64();
            account.tokens =
                if is_new { TokenBucket::empty(budget, now) } else { TokenBucket::full(budget, now) };
        }
        let has_moved = !is_new && account.cgroup != task.cpu_cgroup_id;
        let goes_on = !task.wakeup && !is_new && !changed && !has_moved;
        account.known = true;
        account.cgroup = task.cpu_cgroup_id;
        account.weight = match account.wish.priority.class {
            Class::BestEffort => BEST_EFFORT.min(task.weight),
            _ => task.weight,
        };
        if goes_on && self.resume(account, task) {
            return self.entry(account, task, account.turn.slice - account.turn.ran);
        }

        let slice = match account.wish.priority.slice {
            Some(slice) => Nanos(slice.as_nanos()),
            None => self.slice(account.weight),
        };
        if is_new {
            // Those who come together are spread over a slice: else they would be served together for ever, and whoever
            // comes between would have to wait for all of them.
            self.spread = self.spread.wrapping_add(GOLDEN);
            let part = (u128::from(self.slice.as_u64()) * u128::from(self.spread)) >> 32;
            account.member.vruntime =
                self.groups.newcomer(task.cpu_cgroup_id, per_weight(part as u64, account.weight));
        }
        if has_moved {
            let (stood, ran) = (account.turn.stands, account.turn.ran.as_u64());
            self.groups.join(&mut account.member, account.weight, task.cpu_cgroup_id, stood, ran);
        }
        let counts = account.wish.ahead().is_none();
        let asks = Asks {
            member: &mut account.member,
            weight: account.weight,
            cgroup: task.cpu_cgroup_id,
            woke: task.wakeup || is_new || has_moved,
            slept,
            credit: self.slice.as_u64(),
            just: if task.wakeup { 0 } else { charged },
            counts,
        };
        let stands = self.groups.place(asks, self.now);
        // A lead is so much time on a CPU, whatever the task and the groups above it weigh.
        let lead = stands.worth(account.handicap.lead());
        let vtime = stands.place.saturating_add(Handicap::MOST - lead);
        let mut turn = Turn { vtime, stands, lead, slice, ..Turn::default() };
        account.manner = Manner::Turn;
        if let Some(budget) = budget {
            let payer = (account.wish.payer, budget);
            self.boost(account, &mut turn, payer, task);
        }
        account.turn = turn;
        self.entry(account, task, turn.slice)
    }

    /// A boosted task: ahead of others while there are tokens for it, and else where it will be when there are. In its
    /// turn by weight all the same, if that is sooner, less what it owes.
    fn boost(
        &mut self,
        account: &mut Account,
        turn: &mut Turn,
        payer: (Payer, gthulhu_model::Budget),
        task: &Queued,
    ) {
        let wait = self.boosts.wait(&mut account.tokens, payer, &task.allowed, turn.slice, self.now);
        if let Some(percent) = account.wish.discount() {
            if wait == Nanos::ZERO {
                account.manner = Manner::Discount(percent);
            }
            return;
        }
        let Some(level) = account.wish.ahead() else { return };
        let clock = self.groups.root();
        let others = clock.now().saturating_add(Handicap::MOST);
        let Some(place) = self.boosts.place(others, clock.load()) else { return };
        let above = u64::from(Level::WEAKEST.number() - level.number());
        let front = match place {
            Place::Ahead if wait == Nanos::ZERO => clock.now().saturating_sub(BEHIND + above * STEP),
            Place::At(place) if wait == Nanos::ZERO => {
                place.saturating_sub(above * SMALL_STEP * 100 / clock.load())
            }
            _ => {
                // So far will those be by then who only compute, if nobody else is served.
                let pace = u64::from(self.nr_cpus) * 100;
                let place = if let Place::At(place) = place { place.max(others) } else { others };
                place.saturating_add(wait.as_u64().saturating_mul(pace) / clock.load())
            }
        };
        let debt = self.boosts.debt(&mut account.tokens, payer, self.now);
        let own = turn.vtime.saturating_add(per_weight(debt, account.weight).min(AHEAD));
        if front <= own {
            (turn.vtime, account.manner) = (front, Manner::Boost);
        } else {
            turn.vtime = own;
        }
    }

    /// Was it interrupted in its turn, and has something left of it?
    fn resume(&mut self, account: &mut Account, task: &Queued) -> bool {
        let turn = &mut account.turn;
        turn.cuts = turn.cuts.saturating_add(1);
        if turn.cuts > CUTS || turn.ran + REST > turn.slice {
            return false;
        }
        let Some(budget) = account.wish.priority.boost() else { return true };
        let (payer, rest) = ((account.wish.payer, budget), turn.slice - turn.ran);
        account.manner != Manner::Boost
            || self.boosts.wait(&mut account.tokens, payer, &task.allowed, rest, self.now) == Nanos::ZERO
    }

    fn entry(&self, account: &Account, task: &Queued, slice: Nanos) -> Entry {
        Entry {
            last: task.cpu,
            allowed: task.allowed,
            wants: match account.manner {
                Manner::Boost => Wants::Own,
                // A new one has nothing in a cache yet, and whose turn is over may as well be moved.
                _ if task.wakeup && task.stopped_at > Nanos::ZERO => {
                    Wants::Warm(task.stopped_at - task.started_at)
                }
                _ => Wants::Idle,
            },
            decision: task.anywhere().vtime(account.turn.vtime).slice(slice).permit(self.permit_for(account)),
        }
    }

    /// What the core may do by itself the next time.
    fn permit_for(&self, account: &Account) -> Permit {
        if account.manner != Manner::Turn || account.wish.priority.boost().is_some() {
            return Permit::wakeups(0);
        }
        let left = account.wish.expires_at() - self.now;
        self.permit.at_pace(account.turn.stands.pace()).cutting().lasting(self.permit.get_lasting().min(left))
    }

    /// The slice of a task: shorter where so many want to run that a round of them would take more than [`ROUND`]
    /// slices. Light tasks get less at a time, so that they do not hold up heavy ones.
    fn slice(&self, weight: u32) -> Nanos {
        let each = self.groups.root().weight() / 100 / u64::from(self.nr_cpus.max(1));
        let part = self.slice.as_u64().saturating_mul(ROUND) / each.max(ROUND);
        Nanos(part.saturating_mul(u64::from(weight.clamp(1, 100))) / 100).max(self.slice_min)
    }
}

impl Scheduler for Gthulhu {
    type Task = Account;

    const EVENTS: Events = Events::CGROUPS.and(Events::FORK);

    fn start(&mut self, cx: &mut Context<'_, Account>) {
        self.nr_cpus = cx.idle().nr_cpus();
        self.waiting = Waiting::new(cx.pool(), CAPACITY);
        self.groups = Groups::new(cx.pool(), self.nr_cpus);
        self.boosts.start(cx.pool(), self.nr_cpus, cx.now());
    }

    fn enqueue(&mut self, cx: &mut Context<'_, Account>, task: &Queued) -> Verdict {
        if self.begin(|| cx.now()) {
            // Permits were given by the table before.
            cx.revoke_all();
        }
        let waited_for = Self::of_child(cx, task);
        let account = cx.task(task);
        account.waited_for = waited_for;
        let entry = self.place(account, task);
        match self.waiting.push(task.enqueued_at, entry) {
            Ok(()) => Verdict::Keep,
            Err(entry) => entry.decision.into(),
        }
    }

    fn dispatch(&mut self, cx: &mut Context<'_, Account>) {
        while let Some(entry) = self.waiting.peek() {
            let (decision, pid) = (entry.decision, entry.decision.id().pid);
            let pick = match entry.wants {
                Wants::Own => cx.pick_boosted(pid, entry.last, &entry.allowed),
                Wants::Warm(ran) => cx.pick_warm(entry.last, &entry.allowed, ran),
                Wants::Idle => cx.pick(entry.last, &entry.allowed),
            };
            if let Err(Full(_)) = cx.send(pick.cpu().map_or(decision, |cpu| decision.on(cpu))) {
                break;
            }
            self.waiting.pop();
        }
        self.now = Nanos::ZERO;
    }

    fn note(&mut self, cx: &mut Context<'_, Account>, note: &Note) {
        match *note {
            // Threads have none to begin with: there may be as many as there are CPUs.
            Note::Fork { task, tgid, parent, .. } if task.pid == tgid => {
                if let Some(child) = cx.known(parent).map(|account| account.makes(parent)) {
                    *cx.task(task) = child;
                }
            }
            Note::Cgroup { cgroup_id, parent, weight, .. } => self.groups.tell(cgroup_id, parent, weight),
            Note::CgroupGone { cgroup_id } => self.groups.remove(cgroup_id),
            _ => {}
        }
    }

    fn reset(&mut self, _: &mut Context<'_, Account>) {
        self.waiting.clear();
        self.now = Nanos::ZERO;
    }
}

#[cfg(test)]
mod tests;
