//! What user space wants for tasks where the core decides by itself. See `rules.h`.

use super::state::{LAG, MS, Reference, TaskCtx, before};
use crate::rules::{Numbers, RawRule, RawRules, Rules, Whom};
use crate::sim::linux::{Dsq, Linux, Thread};
use crate::{Cpu, Pid};

/// From one rank to the next, in virtual time.
const STEP: u64 = MS;
const MOST_RUN: u64 = 1 << 30;
const MOST_WINDOW: u64 = 1 << 34;
const DEBT: u64 = 100 * MS;
const RANKS: u32 = 11;
/// All who are ahead have 95 % of the machine at most, whatever user space says: 1024 / 0.95, of one CPU.
const FLOOR_PRICE: u32 = 1_078;
const FLOOR_WINDOW: u64 = 100 * MS;
const TICK: u64 = 10 * MS;

/// `struct qm_rules`, and who pays for each rule.
#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) generation: u32,
    tables: [RawRules; 2],
    numbers: Numbers,
    /// By the number of the rule: whose, and until when it has paid.
    pub(super) payers: Vec<(u64, u64)>,
}

/// What a task remembers of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Ruled {
    /// The table that it was looked for in.
    pub(super) table: u32,
    /// The number + 1; 0: there is none.
    pub(super) rule: u32,
    pub(super) comm: [u8; 16],
    pub(super) paid: u64,
    /// It is ahead of others this time; 0: it is not.
    pub(super) rank: u32,
    /// It would be, had it tokens.
    pub(super) favour: u32,
}

/// Where a task stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    pub(super) slice: u64,
    pub(super) vtime: u64,
}

impl Book {
    fn table(&self, generation: u32) -> &RawRules {
        &self.tables[generation as usize & 1]
    }

    fn names(&self, generation: u32) -> bool {
        self.table(generation).targets.keys().any(|whom| matches!(whom, Whom::Comm(_)))
    }

    /// The rule for a task, as long as it holds.
    fn rule(&self, t: &TaskCtx, now: u64) -> Option<RawRule> {
        let number = t.ruled.rule.checked_sub(1)?;
        let rule = self.table(t.ruled.table).rules.get(&number).copied().unwrap_or_default();
        before(now, rule.until).then_some(rule)
    }
}

/// When there are tokens again; now, if there are.
fn tokens_at(paid: u64, window: u64, now: u64) -> u64 {
    let at = paid.wrapping_sub(window.min(MOST_WINDOW));
    if before(now, at) { at } else { now }
}

/// So much was run.
fn pay(to: &mut u64, ran: u64, price: u32, window: u64, now: u64) {
    let window = window.min(MOST_WINDOW);
    let paid = if before(*to, now) { now } else { *to } + ((ran.min(MOST_RUN) * u64::from(price)) >> 10);
    let most = now + window + DEBT;
    *to = if before(most, paid) { most } else { paid };
}

impl Reference {
    pub(super) fn publish_rules(&mut self, rules: &Rules, nr_cpus: u32) {
        self.rules.generation += 1;
        let generation = self.rules.generation as usize;
        self.rules.tables[generation & 1] = rules.raw(&mut self.rules.numbers, nr_cpus);
    }

    fn payer(&mut self, task: Thread, rule: RawRule) -> &mut u64 {
        let at = (self.ctx(task).ruled.rule as usize).saturating_sub(1);
        if rule.each {
            return &mut self.ctx_mut(task).ruled.paid;
        }
        let payers = &mut self.rules.payers;
        if at >= payers.len() {
            payers.resize(at + 1, (0, 0));
        }
        if payers[at].0 != rule.key {
            payers[at] = (rule.key, 0);
        }
        &mut payers[at].1
    }

    fn floor_window(&self, task: Thread) -> u64 {
        self.rules.table(self.ctx(task).ruled.table).floor_window.min(FLOOR_WINDOW)
    }

    fn floor_price(&self, task: Thread) -> u32 {
        let least = FLOOR_PRICE / (self.view.nr_online.max(1) as u32) + 1;
        self.rules.table(self.ctx(task).ruled.table).floor_price.max(least)
    }

    /// What names a task, from what it was told itself to what it has in common with others.
    fn look_up(&mut self, linux: &Linux, task: Thread) {
        let generation = self.rules.generation;
        let t = linux.task(task);
        let targets = &self.rules.table(generation).targets;
        let label = self.ctx(task).label;
        let started = |ns: crate::Nanos| ns.as_u64() / TICK;
        let asks = [
            (label != 0).then_some(Whom::Label(label)),
            Some(Whom::Thread(Pid(t.pid.0), started(t.born))),
            Some(Whom::Process(Pid(t.tgid.0), started(t.process_born))),
            Some(Whom::Cgroup(t.cgroup_id)),
            Some(Whom::Comm(t.comm)),
        ];
        let found = asks.into_iter().flatten().find_map(|whom| targets.get(&whom));
        let rule = found.map_or(0, |number| number + 1);
        let comm = if self.rules.names(generation) { t.comm } else { [0; 16] };
        let ruled = &mut self.ctx_mut(task).ruled;
        (ruled.rule, ruled.table, ruled.comm) = (rule, generation, comm);
    }

    /// Where a task stands that the core puts into a queue.
    pub(super) fn stand(&mut self, linux: &Linux, task: Thread, cpu: Cpu, now: u64) -> Standing {
        let mut s = Standing { slice: self.own_slice(task), vtime: self.settle_vtime(task) };
        let ruled = self.ctx(task).ruled;
        let renamed = ruled.comm != [0; 16] && ruled.comm != linux.task(task).comm;
        if ruled.table != self.rules.generation || renamed {
            self.look_up(linux, task);
        }
        let Some(rule) = self.rules.rule(self.ctx(task), now) else { return s };
        if rule.slice != 0 {
            s.slice = rule.slice.clamp(self.settings.slice_min, self.settings.slice_max);
        }
        if rule.rank == 0 || self.ctx(task).reclaim {
            return s;
        }
        let rank = rule.rank.min(RANKS);
        self.ctx_mut(task).ruled.favour = rank;
        let there = self.cpu(cpu).favour;
        let paid = tokens_at(*self.payer(task, rule), rule.window, now);
        let floor = tokens_at(self.ahead_paid, self.floor_window(task), now);
        if paid == now && (floor == now || there != 0 && there < rank) {
            self.ctx_mut(task).ruled.rank = rank;
            s.vtime = self.vnow.wrapping_sub(LAG).wrapping_sub(u64::from(rank) * STEP);
            self.counters.ahead += 1;
            return s;
        }
        let wait = if before(paid, floor) { floor - now } else { paid - now };
        let waiting = linux.nr_queued(Dsq::Core) as u64;
        let behind = self.vnow.wrapping_add(wait * self.view.nr_online.max(1) / (waiting + 1));
        if before(behind, s.vtime) {
            s.vtime = behind;
            self.ctx_mut(task).vtime = behind;
        }
        s
    }

    /// Charges a run by the rule: for how much of it the task pays itself, and with which weight.
    pub(super) fn charge_by_rule(&mut self, task: Thread, ran: u64, weight: u64, now: u64) -> (u64, u64) {
        let Some(rule) = self.rules.rule(self.ctx(task), now) else { return (ran, weight) };
        let weight = if rule.weight != 0 { weight.min(rule.weight.into()) } else { weight };
        if rule.rank != 0 {
            pay(self.payer(task, rule), ran, rule.price, rule.window, now);
            let (price, window) = (self.floor_price(task), self.floor_window(task));
            pay(&mut self.ahead_paid, ran, price, window, now);
            return (ran, weight);
        }
        if rule.saves == 0 || tokens_at(*self.payer(task, rule), rule.window, now) != now {
            return (ran, weight);
        }
        let saved = (ran.min(MOST_RUN) * u64::from(rule.saves.min(1_024))) >> 10;
        pay(self.payer(task, rule), saved, rule.price, rule.window, now);
        (ran - saved, weight)
    }
}
