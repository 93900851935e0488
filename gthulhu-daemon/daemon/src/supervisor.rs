//! The supervisor: holds the scheduler, keeps an agent alive, answers `status`, and goes on when nothing of ours
//! schedules.

use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use gthulhu_config::{Config, Configuration, Mode};
use qumun::kernel::{ExitRecord, LoadedCore};
use serde_json::{Value, json};

use crate::control::{Decider, Order};
use crate::desk::{self, Answer, Ask, Desk};
use crate::keeper::{GOOD_LIFE, SHORT_LIVES};
use crate::limits::{Limits, Scan};
use crate::log::Log;
use crate::notify::Notify;
use crate::registry::Registry;
use crate::scheduled::{Found, Scheduled};
use crate::settings::Settings;
use crate::signals::{Signals, wait};
use crate::status::{Facts, Listener, Off, Snapshot};
use crate::strategies::{self, Published};
use crate::{Error, ExitCode, Result, runtime, status};

/// How often the supervisor looks whether the kernel has removed the scheduler.
const LOOK: Duration = Duration::from_millis(100);

/// Runs until a signal or an ejection. Returns the exit code of the process.
pub(crate) fn run(
    registry: &Registry,
    settings: Settings,
    configuration: Configuration,
    log: Log,
) -> Result<u8> {
    let signals = Signals::new()?;
    let socket = configuration.config().daemon.socket.clone();
    let secrets = runtime::Secrets::of(&configuration)?;
    let mut supervisor = Supervisor::new(registry, settings, log.clone());
    supervisor.check(&supervisor.settings).map_err(|e| Error::new(ExitCode::Usage, e))?;
    if supervisor.wants_scheduler() {
        supervisor.begin()?;
    } else {
        log.info(format_args!("scheduler.mode is none: the kernel's own scheduler is in charge"));
    }
    // After the load: the kernel's answer about another scheduler is the better one.
    let listener = Listener::bind(&socket)?;
    let (desk, caller) = desk::open()?;
    let strategies = strategies::start(configuration.config(), caller.clone(), log.clone())?;
    runtime::start(configuration, secrets, caller, strategies.clone(), log)?;
    let mut notify = Notify::from_env();
    notify.ready(&supervisor.line());
    let end = supervisor.supervise(&signals, &listener, &strategies, &desk, &mut notify);
    notify.stopping();
    supervisor.finish(end)
}

/// Why supervision ended.
enum End {
    Signal,
    Removed(ExitRecord),
}

struct Supervisor<'a> {
    registry: &'a Registry,
    log: Log,
    /// As the configuration has them.
    settings: Settings,
    /// What `mode` said, which may be another than the configuration.
    kernel_mode: bool,
    scheduled: Option<Scheduled>,
    facts: Facts,
    scan: Scan,
    /// What is wanted for whom, whoever schedules.
    table: strategies::Table,
}

impl<'a> Supervisor<'a> {
    fn new(registry: &'a Registry, settings: Settings, log: Log) -> Self {
        let mut facts = Facts::new(settings.policy.plugin.as_deref().unwrap_or("none"));
        facts.off = Some(Off { why: "mode", message: "scheduler.mode is none".into() });
        let kernel_mode = settings.kernel_mode;
        let (scan, table) = (Scan::default(), strategies::Table::default());
        Self { registry, log, settings, kernel_mode, scheduled: None, facts, scan, table }
    }

    fn wants_scheduler(&self) -> bool {
        matches!(self.settings.mode, Mode::Plugin(_))
    }

    /// Says what cannot be run, before anything is changed for it.
    fn check(&self, settings: &Settings) -> std::result::Result<Value, String> {
        match &settings.mode {
            Mode::None => return Ok(json!([])),
            Mode::Scx => {
                return Err("scheduler.mode: scx cannot be run yet; allowed: none or a plugin".into());
            }
            Mode::Plugin(_) => {}
        }
        let plugin = self.registry.find(settings.policy.plugin.as_deref()).map_err(|e| e.to_string())?;
        plugin.check(&settings.policy.plugin_options()?).map_err(|e| e.to_string())?;
        let hears = self.scheduled.as_ref().is_none_or(|scheduled| scheduled.tells(plugin.events));
        let why = format!(
            "plugin '{}' wants to hear of more than the core tells, which was attached for another",
            plugin.name
        );
        Ok(if hears { json!([]) } else { json!([{ "key": "scheduler.mode", "why": why }]) })
    }

    fn begin(&mut self) -> Result<()> {
        let (table, facts) = (&self.table, &mut self.facts);
        let begun =
            Scheduled::begin(self.registry, &self.settings, self.kernel_mode, table, facts, &self.log)?;
        self.scheduled = Some(begun);
        // How the one before ended is in the log.
        (self.facts.off, self.facts.exit) = (None, None);
        Ok(())
    }

    fn supervise(
        &mut self,
        signals: &Signals,
        listener: &Listener,
        strategies: &strategies::Handle,
        desk: &Desk,
        notify: &mut Notify,
    ) -> Result<End> {
        loop {
            let due = self.scheduled.as_ref().and_then(Scheduled::due);
            let until = due.map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
            let agent = self.scheduled.as_ref().map_or(-1, Scheduled::fd);
            wait(&[signals.fd(), listener.listener.as_raw_fd(), desk.fd(), agent], until)?;
            if signals.arrived() {
                return Ok(End::Signal);
            }
            if let Some(scheduled) = &mut self.scheduled {
                match scheduled.look(&self.settings, &self.table, &mut self.facts, &self.log)? {
                    Found::Fine => {}
                    Found::Removed(record) => return Ok(End::Removed(record)),
                    Found::CrashLoop(how) => {
                        self.give_up(&how);
                        notify.status(&self.line());
                    }
                }
            }
            // Before the socket, where a client may take its time.
            while let Some(letter) = desk.next() {
                let answer = self.answer(letter.ask);
                // Whoever asked may have gone away.
                let _ = letter.reply.send(answer);
                notify.status(&self.line());
            }
            listener.answer(strategies, |order| match order {
                Some(order) => self.obey(order).map(|()| self.object()),
                None => Ok(self.object()),
            });
            notify.alive();
        }
    }

    /// Agents do not live: the kernel's own scheduler is in charge, and the daemon goes on.
    fn give_up(&mut self, how: &str) {
        let message = format!(
            "the agent ended {SHORT_LIVES} times in a row within {} s (last: {how}); the kernel's own scheduler is back",
            GOOD_LIFE.as_secs()
        );
        self.detach(Off { why: "crash loop", message: message.clone() });
        self.facts.crash_loops += 1;
        self.log.warn(format_args!("{message}; 'mode agent' or a runtime configuration starts it again"));
    }

    fn detach(&mut self, off: Off) {
        self.facts.off = Some(off);
        if let Some(scheduled) = self.scheduled.take() {
            let (record, core) = scheduled.end(&mut self.facts);
            self.facts.exit = record;
            let last = status::object(&self.facts, &snapshot(&core, &Scan::default()));
            self.log.plain(status::describe(&last).trim_end());
        }
    }

    fn obey(&mut self, order: Order) -> std::result::Result<(), String> {
        let decider = match order {
            Order::Mode(decider) => decider,
            Order::Strategies(_) => return Err("this is answered by the thread of strategies".into()),
        };
        let kernel_mode = decider == Decider::Kernel;
        match &self.scheduled {
            Some(scheduled) => scheduled.set_kernel_mode(kernel_mode).map_err(|e| e.to_string())?,
            None if self.wants_scheduler() => {
                self.kernel_mode = kernel_mode;
                self.begin().map_err(|e| e.to_string())?;
            }
            None => return Err("scheduler.mode is none: there is nobody to decide; set another mode".into()),
        }
        self.kernel_mode = kernel_mode;
        Ok(())
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.object()),
            Ask::Strategies(published) => {
                self.want(*published);
                Ok(Value::Null)
            }
            Ask::Check(config) => self.check(&self.settings.with(&config)),
            Ask::Adopt { config, reattach } => self.adopt(&config, reattach).map_err(|e| {
                self.log.warn(format_args!("a change of the configuration was not made: {e}"));
                e.to_string()
            }),
        }
    }

    /// Makes the configuration so, and says what was done for it. If that fails all is as it was before, as far as the
    /// kernel lets us; else its own scheduler is in charge.
    fn adopt(&mut self, config: &Config, reattach: bool) -> Result<Value> {
        let new = self.settings.with(config);
        let (old, old_mode) = (std::mem::replace(&mut self.settings, new), self.kernel_mode);
        let scheduled = self.scheduled.is_some();
        let error = match self.make_so(&old, reattach) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        (self.settings, self.kernel_mode) = (old, old_mode);
        if scheduled
            && self.scheduled.is_none()
            && let Err(again) = self.begin()
        {
            let message = format!("it cannot be attached again: {again}; the kernel's own scheduler is back");
            self.facts.off = Some(Off { why: "failed", message });
        }
        Err(error)
    }

    fn make_so(&mut self, old: &Settings, reattach: bool) -> Result<Value> {
        let other_mode = old.kernel_mode != self.settings.kernel_mode;
        if other_mode {
            self.kernel_mode = self.settings.kernel_mode;
        }
        if !self.wants_scheduler() {
            let detached = self.scheduled.is_some();
            self.detach(Off { why: "mode", message: "scheduler.mode is none".into() });
            if detached {
                self.log.info("scheduler.mode is none: the kernel's own scheduler is back");
            }
            return Ok(if detached { json!({ "detached": true }) } else { json!({}) });
        }
        match &mut self.scheduled {
            None => {
                self.begin()?;
                Ok(json!({ "attached": true }))
            }
            Some(scheduled) if !reattach => {
                if other_mode {
                    scheduled.set_kernel_mode(self.kernel_mode)?;
                }
                scheduled.adopt(old, &self.settings, &self.table, &mut self.facts, &self.log)?;
                Ok(json!({}))
            }
            Some(_) => self.reattach(),
        }
    }

    /// Detaches and attaches anew, and measures for how long the kernel's own scheduler was in charge.
    fn reattach(&mut self) -> Result<Value> {
        let begun = Instant::now();
        self.detach(Off { why: "re-attach", message: "it is attached anew".into() });
        self.begin()?;
        let gap = begun.elapsed();
        self.facts.reattaches += 1;
        self.facts.gap = Some(gap);
        self.log.info(format_args!(
            "attached anew; the kernel's own scheduler was in charge for {} ms",
            gap.as_millis()
        ));
        Ok(json!({ "reattached": true, "gapMs": gap.as_millis() as u64 }))
    }

    /// Takes what is wanted. While nothing of ours schedules it waits for when something does.
    fn want(&mut self, published: Published) {
        self.facts.strategies.told = published.told;
        let Some(table) = published.table else { return };
        self.table = table;
        if let Some(scheduled) = &mut self.scheduled {
            scheduled.want(&self.table, &mut self.facts, &self.log);
        }
    }

    /// How things stand.
    fn object(&self) -> Value {
        match &self.scheduled {
            Some(scheduled) => status::object(&self.facts, &snapshot(scheduled.core(), &self.scan)),
            None => status::idle(&self.facts),
        }
    }

    /// The same in a few words.
    fn line(&self) -> String {
        match &self.facts.off {
            Some(off) => format!("no scheduler of ours: {}", off.message),
            None => format!("plugin {} schedules", self.facts.plugin),
        }
    }

    /// Detaches, reports, and says how it ended.
    fn finish(mut self, end: Result<End>) -> Result<u8> {
        let ended = self.scheduled.take().map(|scheduled| scheduled.end(&mut self.facts));
        let end = end?;
        let last = match ended {
            Some((record, core)) => {
                self.facts.exit = match &end {
                    End::Removed(record) => Some(record.clone()),
                    End::Signal => record,
                };
                status::object(&self.facts, &snapshot(&core, &Scan::default()))
            }
            None => status::idle(&self.facts),
        };
        if let Some(path) = &self.settings.report {
            std::fs::write(path, format!("{last}\n"))
                .map_err(|e| Error::system(format!("cannot write the report {}", path.display()), &e))?;
        }
        self.log.plain(status::describe(&last).trim_end());
        let End::Removed(record) = end else { return Ok(0) };
        if record.is_error() && !record.dump.is_empty() {
            self.log.plain(format_args!(
                "----- the kernel's dump -----\n{}\n----- end of dump -----",
                record.dump
            ));
        }
        let what = format!("the kernel removed the scheduler: {} ({})", record.reason, record.message);
        if record.is_error() {
            return Err(Error::new(ExitCode::Failed, what));
        }
        self.log.info(what);
        Ok(0)
    }
}

fn snapshot(core: &LoadedCore, scan: &Scan) -> Snapshot {
    let view = core.view();
    let limits = Limits::of(core.enforces_limits(), &view, scan);
    let (page, totals, legs) = (core.agent_page(), core.totals(), core.legs());
    Snapshot { view, page, totals, legs, limits, transport: core.transport().to_string() }
}
