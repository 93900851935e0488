//! Virtual time among those who compete with each other: the tasks of a cgroup, and the cgroups beside them.

use qumun::Nanos;

/// Where virtual time begins: far enough from zero that what is behind the clock has a place.
pub(crate) const START: u64 = 1 << 50;
/// How far anybody may be ahead of the clock, whatever its weight and whatever it owes: the end of every wait.
pub(crate) const AHEAD: u64 = 400_000_000;
/// How far one may be behind it that did not sleep.
pub(crate) const BEHIND: u64 = 100_000_000;
/// How long the clock may stand still before it follows what is consumed.
const SLACK: u64 = 50_000_000;
/// A round of those who compute takes this long at least, and ends by a wakeup after `ROUND_MAX` only.
const ROUND_MIN: Nanos = Nanos(20_000_000);
const ROUND_MAX: Nanos = Nanos(200_000_000);

/// One of them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Member {
    /// The time that it ran, divided by its weight.
    pub(crate) vruntime: u64,
    /// Where the clock was when it wanted to run last.
    seen: u64,
    /// What it weighed then.
    weight: u32,
    /// The round in which it was counted last.
    round: u32,
}

/// The virtual time that they have in common: what a member has had who is served now.
///
/// It follows whom is served, as start-time fair queueing does (Goyal, Vin, Cheng 1996). That alone could stand still
/// while there is always somebody in front who gets a new place each time. Then it goes on with what is consumed, at
/// half the pace of an ideal server that gives all members their shares at once: no place in the queue is behind
/// newcomers for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    now: u64,
    /// What goes on with the consumed time. It is no more than [`SLACK`] behind.
    slow: u64,
    /// The weight of those who want to run: of the last whole round, and of this one so far.
    last: u64,
    counted: u64,
    round: u32,
    began: Nanos,
}

impl Default for Clock {
    fn default() -> Self {
        Self { now: START, slow: START - SLACK, last: 0, counted: 0, round: 1, began: Nanos::ZERO }
    }
}

impl Clock {
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// The weight of the members that want to run, as far as it is known: nobody says when a task goes to sleep, but
    /// each one that computes comes back after its slice.
    pub(crate) fn weight(&self) -> u64 {
        self.last.max(self.counted).max(1)
    }

    /// The same, and one task at least.
    pub(crate) fn load(&self) -> u64 {
        self.weight().max(100)
    }

    /// Counts a member that wants to run, once in a round. A round ends when one comes back that was counted in
    /// it.
    pub(crate) fn count(&mut self, member: &mut Member, weight: u32, goes_on: bool, at: Nanos) {
        if member.round == self.round {
            if at - self.began < if goes_on { ROUND_MIN } else { ROUND_MAX } {
                return;
            }
            self.last = std::mem::take(&mut self.counted);
            self.round = self.round.wrapping_add(1).max(1);
            self.began = at;
        }
        member.round = self.round;
        self.counted += u64::from(weight);
    }

    /// Brings a member that wants to run near the clock: credit of `credit` at most, and debt of [`AHEAD`].
    ///
    /// What is owed to a member, or by it, is time on a CPU. So it is another virtual time when the weight changes, as in
    /// EEVDF.
    pub(crate) fn settle(&self, member: &mut Member, weight: u32, credit: u64) {
        if member.weight != weight && !member.is_new() {
            let lag = scale(self.lag(member.vruntime), member.weight.into(), weight);
            member.vruntime = self.now.saturating_add_signed(lag);
        }
        let (low, high) = (self.now.saturating_sub(credit), self.now.saturating_add(AHEAD));
        member.vruntime = member.vruntime.clamp(low, high);
        (member.seen, member.weight) = (self.now, weight);
    }

    /// Makes a member one of these here, with so much that it has had too much.
    pub(crate) fn adopt(&self, member: &mut Member, too_much: i64) {
        member.vruntime = self.now.saturating_add_signed(too_much);
    }

    /// Who has slept pays for what it had too much with what it did not use meanwhile: the part of the machine that its
    /// weight gives. The clock has moved by that, unless boosts held the others up: then one that has
    /// computed once, to start, would be late for seconds.
    pub(crate) fn forgive(&self, member: &mut Member, slept: Nanos, nr_cpus: u32) {
        let share = slept.as_u64().saturating_mul(u64::from(nr_cpus) * 100) / self.load();
        let moved = self.now.saturating_sub(member.seen);
        let paid = member.vruntime.saturating_sub(share.saturating_sub(moved));
        member.vruntime = paid.max(self.now.min(member.vruntime));
    }

    /// How far this is ahead of the clock; below zero: behind it.
    pub(crate) fn lag(&self, vruntime: u64) -> i64 {
        vruntime.wrapping_sub(self.now) as i64
    }

    /// A member was served in its turn, with this.
    pub(crate) fn serve(&mut self, vruntime: u64) {
        self.now = self.now.max(vruntime.min(self.now.saturating_add(AHEAD)));
    }

    /// So much was consumed in turns, or is owed to those who wait for theirs.
    pub(crate) fn go_on(&mut self, time: u64) {
        let half = time.saturating_mul(50) / self.load();
        self.slow = self.slow.max(self.now.saturating_sub(SLACK)).saturating_add(half);
        self.now = self.now.max(self.slow);
    }
}

impl Member {
    /// It never wanted to run.
    pub(crate) fn is_new(&self) -> bool {
        self.weight == 0
    }

    /// It has run.
    pub(crate) fn charge(&mut self, ran: u64, weight: u32) {
        self.vruntime = self.vruntime.saturating_add(per_weight(ran, weight));
    }
}

/// A lag of something of weight `from`, as one of weight `to`.
pub(crate) fn scale(lag: i64, from: u64, to: u32) -> i64 {
    let scaled = i128::from(lag) * i128::from(from) / i128::from(to.max(1));
    scaled.clamp(-(BEHIND as i128), AHEAD as i128) as i64
}

/// Time in the virtual time of this weight.
pub(crate) fn per_weight(time: u64, weight: u32) -> u64 {
    time.saturating_mul(100) / u64::from(weight.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn a_round_counts_each_member_once() {
        let mut clock = Clock::default();
        let mut members = [Member::default(); 3];
        for ms in (0..100).step_by(5) {
            let which = ms as usize / 5 % 3;
            clock.count(&mut members[which], 100 * (which as u32 + 1), true, Nanos::from_millis(ms));
            assert!(ms < 10 || clock.weight() == 600, "{} after {ms} ms", clock.weight());
        }
        // One of them is not seen any more: two rounds later it is not counted.
        for ms in (100..200).step_by(5) {
            clock.count(&mut members[ms as usize / 5 % 2], 100, true, Nanos::from_millis(ms));
        }
        assert_eq!(clock.weight(), 200);
    }

    #[test]
    fn the_clock_goes_on_though_only_newcomers_are_served() {
        let mut clock = Clock::default();
        let mut old = Member { vruntime: START + 50 * MS, ..Member::default() };
        clock.count(&mut old, 100, true, Nanos(1));
        for n in 0..1_000 {
            let mut new = Member::default();
            clock.settle(&mut new, 100, 5 * MS);
            clock.count(&mut new, 100, false, Nanos(n * 5 * MS));
            if new.vruntime > old.vruntime {
                return;
            }
            new.charge(5 * MS, 100);
            clock.go_on(5 * MS);
            let mut again = new;
            clock.count(&mut again, 100, true, Nanos(n * 5 * MS));
        }
        panic!("the old one was passed by for ever");
    }

    #[test]
    fn who_slept_has_paid_as_much_as_its_share_would_have_been() {
        let mut clock = Clock::default();
        (0..4).for_each(|_| clock.count(&mut Member::default(), 100, true, Nanos(1)));
        let mut member = Member { vruntime: START + 300 * MS, ..Member::default() };
        clock.settle(&mut member, 100, 5 * MS);
        // A quarter of two CPUs is half a CPU.
        clock.forgive(&mut member, Nanos(100 * MS), 2);
        assert_eq!(clock.lag(member.vruntime), 250 * MS as i64);
        // What the clock has moved by is no more of it.
        clock.serve(START + 30 * MS);
        clock.forgive(&mut member, Nanos(100 * MS), 2);
        assert_eq!(clock.lag(member.vruntime), 200 * MS as i64);
        // Never to the clock's other side.
        clock.forgive(&mut member, Nanos(10_000 * MS), 2);
        assert_eq!(clock.lag(member.vruntime), 0);
        let mut behind = Member { vruntime: START, seen: START, ..Member::default() };
        clock.forgive(&mut behind, Nanos(10_000 * MS), 2);
        assert_eq!(behind.vruntime, START);
    }

    #[test]
    fn credit_and_debt_are_bounded() {
        let clock = Clock { now: START + 1_000 * MS, ..Clock::default() };
        let mut member = Member::default();
        clock.settle(&mut member, 100, 5 * MS);
        assert_eq!(clock.lag(member.vruntime), -(5 * MS as i64));
        member.vruntime = u64::MAX;
        clock.settle(&mut member, 100, 5 * MS);
        assert_eq!(clock.lag(member.vruntime), AHEAD as i64);
    }

    #[test]
    fn what_is_owed_stays_the_same_time_when_the_weight_changes() {
        let clock = Clock::default();
        let mut member = Member::default();
        clock.adopt(&mut member, 40 * MS as i64);
        for (weight, lag) in
            [(100, 40 * MS), (10_000, 40 * MS / 100), (200, 20 * MS), (50, 80 * MS), (1, AHEAD)]
        {
            clock.settle(&mut member, weight, 5 * MS);
            assert_eq!(clock.lag(member.vruntime), lag as i64, "weight {weight}");
        }
    }
}
