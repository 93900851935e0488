//! The scheduler while it is attached: the core and its agent.

use std::os::fd::RawFd;
use std::time::{Duration, Instant};

use qumun::Events;
use qumun::kernel::{ExitRecord, Loaded, LoadedCore, Probe, Running};

use crate::compaction::LockedPagesStay;
use crate::keeper::{Agent, Restart};
use crate::log::Log;
use crate::registry::Registry;
use crate::settings::Settings;
use crate::status::Facts;
use crate::strategies::{Table, now_ns};
use crate::{Error, ExitCode, Result};

/// After a detach the kernel may still be busy with it for a moment.
const BUSY: Duration = Duration::from_secs(2);

/// A core that schedules, and its agent.
#[derive(Debug)]
pub(crate) struct Scheduled {
    running: Running,
    ops: String,
    since: Instant,
    /// What the core tells of: it cannot be changed while it is attached.
    events: Events,
    agent: Option<Agent>,
    restart: Restart,
    pages: Option<LockedPagesStay>,
}

/// What a look at it found.
#[derive(Debug)]
pub(crate) enum Found {
    /// It schedules.
    Fine,
    /// The kernel has removed it.
    Removed(ExitRecord),
    /// Its agents do not live, the last one because of this.
    CrashLoop(String),
}

/// A core that is loaded and does not schedule yet.
#[derive(Debug)]
pub(crate) struct Prepared {
    loaded: Loaded,
    name: String,
    ops: String,
    events: Events,
}

impl Prepared {
    /// Loads the core, which is what takes time; `beside` another that still schedules and is to go.
    pub(crate) fn load(registry: &Registry, settings: &Settings, beside: bool) -> Result<Self> {
        let plugin = registry.find(settings.policy.plugin.as_deref())?;
        let options = settings.policy.plugin_options().map_err(|e| Error::new(ExitCode::Usage, e))?;
        plugin.check(&options)?;
        let ops = plugin.ops_name();
        let builder = settings.policy.builder(ops.clone()).events(plugin.events).beside(beside);
        let loaded = settings.core.apply(builder).load()?;
        Ok(Self { loaded, name: plugin.name.clone(), ops, events: plugin.events })
    }
}

impl Scheduled {
    /// Attaches the core, and starts the agent.
    pub(crate) fn begin(
        prepared: Prepared,
        settings: &Settings,
        kernel_mode: bool,
        table: &Table,
        facts: &mut Facts,
        log: &Log,
    ) -> Result<Self> {
        let Prepared { loaded, name, ops, events } = prepared;
        let begun = Instant::now();
        // Whoever schedules now has its name in the error.
        while let Err(error) = Probe::here().check_free() {
            if facts.attached == 0 || begun.elapsed() >= BUSY {
                return Err(qumun::Error::from(error).into());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        let running = loaded.attach()?;
        if kernel_mode {
            running.set_kernel_mode(true)?;
        }
        facts.attached += 1;
        facts.plugin = name;
        log.info(format_args!("{ops} schedules, supervisor {}", std::process::id()));
        let pages = (!settings.keep_compaction).then(LockedPagesStay::begin);
        if pages.as_ref().is_some_and(LockedPagesStay::changed) {
            log.info("vm.compact_unevictable_allowed is 0 while it runs");
        }
        let since = Instant::now();
        let mut new = Self { running, ops, since, events, agent: None, restart: Restart::default(), pages };
        new.tell_core(table, facts, log);
        new.start_agent(settings, table, facts)?;
        Ok(new)
    }

    /// As the kernel calls it, and for how long it has been attached.
    pub(crate) fn ops(&self) -> (&str, Duration) {
        (&self.ops, self.since.elapsed())
    }

    fn start_agent(&mut self, settings: &Settings, table: &Table, facts: &mut Facts) -> Result<u32> {
        let mut agent = Agent::start(settings, &self.running)?;
        facts.strategies.agent = None;
        agent.want(table);
        let pid = agent.pid();
        facts.agent = Some(pid);
        self.agent = Some(agent);
        Ok(pid)
    }

    /// Puts a table of strategies into the core, and hands it to the agent.
    pub(crate) fn want(&mut self, table: &Table, facts: &mut Facts, log: &Log) {
        self.tell_core(table, facts, log);
        if let Some(agent) = &mut self.agent {
            agent.want(table);
        }
    }

    fn tell_core(&self, table: &Table, facts: &mut Facts, log: &Log) {
        let now = qumun::Nanos(now_ns());
        let rules =
            gthulhu_plugin_gthulhu::rules(Some(&table.build()), [], gthulhu_model::Floor::DEFAULT, now);
        match self.running.set_rules(&rules) {
            Ok(_) => {
                // Not again for the next core.
                let new = facts.strategies.core != Some(table.generation);
                if let Some(received) = table.received_ns.filter(|_| new) {
                    facts.strategies.to_core.count(now_ns().saturating_sub(received));
                }
                facts.strategies.core = Some(table.generation);
                facts.strategies.error = None;
            }
            Err(error) => {
                log.warn(format_args!(
                    "the core does not take the strategies: {error}; those before stay until they fade"
                ));
                facts.strategies.error = Some(error.to_string());
            }
        }
    }

    /// Becomes readable when the agent ends; negative when there is none.
    pub(crate) fn fd(&self) -> RawFd {
        self.agent.as_ref().map_or(-1, Agent::fd)
    }

    /// When the next agent is due, if one is.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.restart.due
    }

    /// The core, to be asked.
    pub(crate) fn core(&self) -> &LoadedCore {
        self.running.inner()
    }

    /// Whether a policy that wants to hear of this can run on this core. One that is told more than it asked for passes
    /// over it.
    pub(crate) fn tells(&self, events: Events) -> bool {
        self.events.contains(events)
    }

    /// Looks after the agent.
    pub(crate) fn look(&mut self, settings: &Settings, table: &Table, facts: &mut Facts, log: &Log) -> Found {
        if let Some(record) = self.running.exited() {
            return Found::Removed(record);
        }
        if let Some(has) = self.agent.as_mut().and_then(Agent::has) {
            let new = facts.strategies.agent.is_some_and(|before| before < has.generation);
            if let Some(received) = table.received_ns.filter(|_| new && has.generation == table.generation) {
                facts.strategies.to_agent.count(has.at_ns.saturating_sub(received));
            }
            facts.strategies.agent = Some(has.generation);
        }
        if let Some(hang) = self.agent.as_mut().and_then(|a| a.look(self.running.inner())) {
            log.warn(format_args!(
                "the agent makes no progress ({}): its turn lasts longer than {} ms; it is ended",
                hang.name(),
                settings.max_turn.as_millis()
            ));
        }
        if let Some((how, reason)) = self.agent.as_mut().and_then(Agent::ended) {
            facts.agent = None;
            facts.ended(reason);
            let life = self.agent.take().map_or(Duration::ZERO, |a| a.started.elapsed());
            log.warn(format_args!(
                "the agent ended ({how}) after {:.1} s; the core goes on",
                life.as_secs_f64()
            ));
            if !self.restart.plan(life) {
                return Found::CrashLoop(how);
            }
        }
        if self.restart.due.is_some_and(|due| due <= Instant::now()) {
            self.restart.due = None;
            match self.start_agent(settings, table, facts) {
                Ok(pid) => {
                    facts.restarts += 1;
                    log.info(format_args!("agent {pid} started (restart {})", facts.restarts));
                }
                // No memory, no processes: the core goes on, and it may be another matter in a moment.
                Err(error) => {
                    log.warn(format_args!("{error}; the core goes on"));
                    if !self.restart.plan(Duration::ZERO) {
                        return Found::CrashLoop(error.to_string());
                    }
                }
            }
        }
        Found::Fine
    }

    /// Who decides from now on.
    pub(crate) fn set_kernel_mode(&self, on: bool) -> Result<()> {
        Ok(self.running.set_kernel_mode(on).map(drop)?)
    }

    /// Makes other settings so that need no other core.
    pub(crate) fn adopt(
        &mut self,
        old: &Settings,
        new: &Settings,
        table: &Table,
        facts: &mut Facts,
        log: &Log,
    ) -> Result<()> {
        if old.keep_compaction != new.keep_compaction {
            // The setting is put back before it is made anew.
            self.pages = None;
            self.pages = (!new.keep_compaction).then(LockedPagesStay::begin);
        }
        if old.policy.to_args() == new.policy.to_args() && old.max_turn == new.max_turn {
            return Ok(());
        }
        // The core goes on by its own rule meanwhile, as after any other end of an agent.
        self.agent = None;
        self.restart = Restart::default();
        facts.agent = None;
        let pid = self.start_agent(new, table, facts)?;
        facts.replaced += 1;
        if let Some(name) = &new.policy.plugin {
            facts.plugin.clone_from(name);
        }
        log.info(format_args!("agent {pid} started with other settings; the core stays attached"));
        Ok(())
    }

    /// Stops scheduling. The agent outlives the scheduler: if it cannot be waited for, the machine is free all the same.
    /// It and the core's memory go with what is returned, which takes longer than the detaching itself.
    pub(crate) fn end(self, facts: &mut Facts) -> (Option<ExitRecord>, Remains) {
        let (record, core) = self.running.detach();
        facts.agent = None;
        (facts.strategies.core, facts.strategies.agent) = (None, None);
        (record, Remains { core, _agent: self.agent })
    }
}

/// What is left of a scheduler that was detached.
#[derive(Debug)]
pub(crate) struct Remains {
    /// With its last counters.
    pub(crate) core: LoadedCore,
    _agent: Option<Agent>,
}
