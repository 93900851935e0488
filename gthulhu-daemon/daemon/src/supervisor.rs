//! The supervisor: holds what schedules, keeps it alive, answers `status`, and goes on when nothing of ours schedules.
//!
//! Three may schedule: our core with its agent ([`Scheduled`]), another project's program ([`Upstream`]), or the kernel
//! alone. Neither the kernel's ejection of the first nor the end of the second ends the daemon: it is reported, and tried
//! again a few times ([`Comeback`]); then the kernel's own scheduler stays in charge.

mod recovery;

use std::os::fd::{AsRawFd, RawFd};
use std::time::{Duration, Instant};

use gthulhu_config::{Config, Configuration, Mode};
use qumun::kernel::{LoadedCore, Probe, wire};
use serde_json::{Value, json};

use crate::access::Access;
use crate::clerk::Clerk;
use crate::comeback::Comeback;
use crate::control::{Decider, Order};
use crate::desk::{self, Answer, Ask, Desk};
use crate::events::{Hub, Transitions};
use crate::limits::{Limits, Scan};
use crate::listener::Listener;
use crate::log::Log;
use crate::notify::Notify;
use crate::registry::Registry;
use crate::scheduled::{Found, Prepared, Remains, Scheduled};
use crate::settings::Settings;
use crate::signals::{Signals, wait};
use crate::status::{Facts, Off, Snapshot};
use crate::strategies::{self, Published};
use crate::upstream::{self, Upstream};
use crate::{Error, ExitCode, Result, configure, runtime, standby, status};

/// How often the supervisor looks whether the kernel has removed the scheduler.
const LOOK: Duration = Duration::from_millis(100);
/// Runs until a signal. Returns the exit code of the process.
pub(crate) fn run(
    registry: &Registry,
    settings: Settings,
    configuration: Configuration,
    log: Log,
) -> Result<u8> {
    let signals = Signals::new()?;
    let socket = configuration.config().daemon.socket.clone();
    configuration.check_scx().map_err(|problems| configure::refused(&problems))?;
    let access = Access::new(&configuration, &log)?;
    let mut supervisor = Supervisor::new(registry, settings, log.clone());
    supervisor.check(&supervisor.settings).map_err(|e| Error::new(ExitCode::Usage, e))?;
    if supervisor.settings.mode == Mode::None {
        log.info(format_args!("scheduler.mode is none: the kernel's own scheduler is in charge"));
    } else {
        supervisor.begin()?;
    }
    // After the load: the kernel's answer about another scheduler is the better one.
    let listener = Listener::bind(&socket, &log)?;
    let (desk, caller) = desk::open()?;
    let (hub, sockets) = Hub::new(configuration.config().monitor.stream_events);
    let strategies = strategies::start(configuration.config(), caller.clone(), log.clone())?;
    let (wanted, garbage) = (strategies.clone(), listener.garbage());
    let clerk = runtime::start(configuration, access, caller, wanted, garbage, (hub.clone(), sockets), log)?;
    let mut notify = Notify::from_env();
    notify.ready(&supervisor.line());
    let end = supervisor.supervise(&signals, &listener, (&clerk, &strategies), &desk, &hub, &mut notify);
    notify.stopping();
    supervisor.finish(end)
}

/// Who schedules, besides the kernel.
enum Work {
    Nobody,
    Ours(Box<Scheduled>),
    Upstream(Upstream),
}

/// Who is to, ready to begin as soon as whoever does it now has gone.
enum Next {
    Ours(Box<Prepared>),
    Upstream,
}

struct Supervisor<'a> {
    registry: &'a Registry,
    log: Log,
    /// As the configuration has them.
    settings: Settings,
    /// What `mode` said, which may be another than the configuration.
    kernel_mode: bool,
    work: Work,
    comeback: Comeback,
    facts: Facts,
    scan: Scan,
    /// Since when the kernel's own scheduler is in charge for a change that is not finished yet.
    gap_since: Option<Instant>,
    /// What is wanted for whom, whoever schedules.
    table: strategies::Table,
}

impl<'a> Supervisor<'a> {
    fn new(registry: &'a Registry, settings: Settings, log: Log) -> Self {
        let mut facts = Facts::new(settings.policy.plugin.as_deref().unwrap_or("none"));
        facts.off = Some(Off { why: "mode", message: "scheduler.mode is none".into() });
        let kernel_mode = settings.kernel_mode;
        Self {
            registry,
            log,
            settings,
            kernel_mode,
            work: Work::Nobody,
            comeback: Comeback::default(),
            facts,
            scan: Scan::default(),
            gap_since: None,
            table: strategies::Table::default(),
        }
    }

    /// Says what cannot be run, before anything is changed for it.
    fn check(&self, settings: &Settings) -> std::result::Result<Value, String> {
        match &settings.mode {
            Mode::None => return Ok(json!([])),
            Mode::Scx => {
                let (choice, _) = settings.scx.as_ref().ok_or("scheduler.scheduler_name names no program")?;
                choice.open().map_err(|e| format!("scheduler.scheduler_name: {e}"))?;
                Probe::here().check_machine().map_err(|e| e.to_string())?;
                return Ok(json!([]));
            }
            Mode::Plugin(_) => {}
        }
        let plugin = self.registry.find(settings.policy.plugin.as_deref()).map_err(|e| e.to_string())?;
        plugin.check(&settings.policy.plugin_options()?).map_err(|e| e.to_string())?;
        let hears = match &self.work {
            Work::Ours(scheduled) => scheduled.tells(plugin.events),
            _ => true,
        };
        let why = format!(
            "plugin '{}' wants to hear of more than the core tells, which was attached for another",
            plugin.name
        );
        Ok(if hears { json!([]) } else { json!([{ "key": "scheduler.mode", "why": why }]) })
    }

    /// Begins with what the settings say, when nobody schedules.
    fn begin(&mut self) -> Result<()> {
        let next = self.prepare()?;
        self.start(next, upstream::PATIENCE)
    }

    /// Does what can be done while somebody else still schedules.
    fn prepare(&self) -> Result<Next> {
        match self.settings.mode {
            Mode::Scx => Ok(Next::Upstream),
            _ => {
                let beside = self.facts.attached > 0 || matches!(self.work, Work::Upstream(_));
                Ok(Next::Ours(Box::new(Prepared::load(self.registry, &self.settings, beside)?)))
            }
        }
    }

    /// Lets it begin. A program of others is waited for as long as somebody has the patience for.
    fn start(&mut self, next: Next, patience: Duration) -> Result<()> {
        self.work = match (next, self.settings.scx.clone()) {
            (Next::Ours(prepared), _) => Work::Ours(Box::new(Scheduled::begin(
                *prepared,
                &self.settings,
                self.kernel_mode,
                &self.table,
                &mut self.facts,
                &self.log,
            )?)),
            (Next::Upstream, Some((choice, args))) => {
                Probe::here().check_free().map_err(qumun::Error::from)?;
                let upstream = Upstream::begin(choice, args, patience, &self.log)?;
                self.facts.plugin = upstream.name().to_owned();
                self.log.info(match upstream.loaded() {
                    Some((ops, took)) => {
                        format!("{} schedules as {ops}, after {} ms", upstream.name(), took.as_millis())
                    }
                    None => format!("{} does not schedule yet; it is waited for", upstream.name()),
                });
                Work::Upstream(upstream)
            }
            (Next::Upstream, None) => {
                return Err(Error::new(ExitCode::Usage, "scheduler.scheduler_name names no program"));
            }
        };
        // How the one before ended is in the log, and an ejection in `status`.
        (self.facts.off, self.facts.exit, self.facts.ejections.again) = (None, None, None);
        Ok(())
    }

    fn fd(&self) -> RawFd {
        match &self.work {
            Work::Nobody => -1,
            Work::Ours(scheduled) => scheduled.fd(),
            Work::Upstream(upstream) => upstream.fd(),
        }
    }

    fn due(&self) -> Option<Instant> {
        match &self.work {
            Work::Ours(scheduled) => scheduled.due(),
            _ => self.comeback.due(),
        }
    }

    fn view(&self) -> Option<wire::View> {
        match &self.work {
            Work::Ours(scheduled) => Some(scheduled.core().view()),
            _ => None,
        }
    }

    fn supervise(
        &mut self,
        signals: &Signals,
        listener: &Listener,
        (clerk, strategies): (&Clerk, &strategies::Handle),
        desk: &Desk,
        events: &Hub,
        notify: &mut Notify,
    ) -> Result<()> {
        let mut transitions = Transitions::default();
        loop {
            let until =
                self.due().map_or(LOOK, |due| due.saturating_duration_since(Instant::now()).min(LOOK));
            wait(&[signals.fd(), listener.listener.as_raw_fd(), desk.fd(), self.fd()], until)?;
            if signals.arrived() {
                return Ok(());
            }
            if self.look() {
                notify.status(&self.line());
            }
            transitions.tell(events, &self.facts, self.view());
            self.facts.refused = listener.refused();
            // Before the socket, where a client may take its time.
            while let Some(letter) = desk.next() {
                // What is wanted for whom changes nothing of who schedules.
                let told = !matches!(letter.ask, Ask::Strategies(_));
                let answer = self.answer(letter.ask);
                // Whoever asked may have gone away.
                let _ = letter.reply.send(answer);
                if told {
                    notify.status(&self.line());
                }
            }
            listener.answer((clerk, strategies), events, |order| match order {
                Some(order) => self.obey(order).map(|()| self.object()),
                None => Ok(self.object()),
            });
            notify.alive();
        }
    }

    /// Looks after whoever schedules; true when that is somebody else now.
    fn look(&mut self) -> bool {
        match &mut self.work {
            Work::Ours(scheduled) => {
                match scheduled.look(&self.settings, &self.table, &mut self.facts, &self.log) {
                    Found::Fine => return false,
                    Found::Removed(record) => self.removed(record),
                    Found::CrashLoop(how) => self.give_up(&how),
                }
            }
            Work::Upstream(upstream) => match upstream.look() {
                upstream::Found::Fine => return false,
                upstream::Found::Schedules => {
                    let (ops, took) = upstream.loaded().cloned().unwrap_or_default();
                    let name = upstream.name();
                    self.log.info(format_args!("{name} schedules as {ops}, after {} ms", took.as_millis()));
                    self.close_gap();
                }
                upstream::Found::Ended(how) => self.ended(&how),
            },
            Work::Nobody if self.comeback.take() => self.come_back(),
            Work::Nobody => return false,
        }
        true
    }

    /// Ends whoever schedules. What is left of it is better dropped when somebody else schedules again.
    fn detach(&mut self, off: Off) -> Option<Remains> {
        self.facts.off = Some(off);
        let Work::Ours(scheduled) = std::mem::replace(&mut self.work, Work::Nobody) else { return None };
        let (record, remains) = (*scheduled).end(&mut self.facts);
        self.facts.exit = record;
        let last = status::object(&self.facts, &snapshot(&remains.core, &Scan::default()));
        self.log.plain(status::describe(&last).trim_end());
        self.facts.last = Some(last);
        Some(remains)
    }

    fn obey(&mut self, order: Order) -> std::result::Result<(), String> {
        let Order::Mode(decider) = order else { return Err("this is not for the supervisor".into()) };
        let kernel_mode = decider == Decider::Kernel;
        match (&self.settings.mode, &self.work) {
            (Mode::None, _) => {
                return Err("scheduler.mode is none: there is nobody to decide; set another mode".into());
            }
            (Mode::Scx, _) => {
                return Err(
                    "scheduler.mode is scx: another project's program decides; set another mode".into()
                );
            }
            (_, Work::Ours(scheduled)) => {
                scheduled.set_kernel_mode(kernel_mode).map_err(|e| e.to_string())?;
            }
            _ => {
                self.comeback.forget();
                self.kernel_mode = kernel_mode;
                self.begin().map_err(|e| e.to_string())?;
            }
        }
        self.kernel_mode = kernel_mode;
        Ok(())
    }

    fn answer(&mut self, ask: Ask) -> Answer {
        match ask {
            Ask::Status => Ok(self.object()),
            Ask::Mode(decider) => self.obey(Order::Mode(decider)).map(|()| self.object()),
            Ask::Strategies(published) => {
                self.want(*published);
                Ok(Value::Null)
            }
            Ask::Check(config) => self.check(&Settings::new(&config)),
            Ask::Adopt { config, reattach } => self.adopt(&config, reattach).map_err(|e| {
                self.log.warn(format_args!("a change of the configuration was not made: {e}"));
                e.to_string()
            }),
        }
    }

    /// Makes the configuration so, and says what was done for it. If that fails all is as it was before, as far as the
    /// kernel lets us; else its own scheduler is in charge.
    fn adopt(&mut self, config: &Config, reattach: bool) -> Result<Value> {
        let new = Settings::new(config);
        let (old, old_mode) = (std::mem::replace(&mut self.settings, new), self.kernel_mode);
        let at_work = !matches!(self.work, Work::Nobody);
        let error = match self.make_so(&old, reattach) {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        (self.settings, self.kernel_mode) = (old, old_mode);
        if at_work
            && matches!(self.work, Work::Nobody)
            && let Err(again) = self.begin()
        {
            let message = format!("it cannot be attached again: {again}; the kernel's own scheduler is back");
            self.facts.off = Some(Off { why: "failed", message });
        }
        self.gap_since = None;
        Err(error)
    }

    fn make_so(&mut self, old: &Settings, reattach: bool) -> Result<Value> {
        let other_mode = old.kernel_mode != self.settings.kernel_mode;
        if other_mode {
            self.kernel_mode = self.settings.kernel_mode;
        }
        match (&self.settings.mode, &mut self.work) {
            (Mode::None, work) => {
                let detached = !matches!(work, Work::Nobody);
                self.comeback.forget();
                self.facts.ejections.again = None;
                self.detach(Off { why: "mode", message: "scheduler.mode is none".into() });
                if detached {
                    self.log.info("scheduler.mode is none: the kernel's own scheduler is back");
                }
                Ok(if detached { json!({ "detached": true }) } else { json!({}) })
            }
            (Mode::Plugin(_), Work::Ours(scheduled)) if !reattach => {
                if other_mode {
                    scheduled.set_kernel_mode(self.kernel_mode)?;
                }
                scheduled.adopt(old, &self.settings, &self.table, &mut self.facts, &self.log)?;
                Ok(json!({}))
            }
            (Mode::Scx, Work::Upstream(upstream))
                if self.settings.scx.as_ref().is_some_and(|(choice, args)| upstream.is(choice, args)) =>
            {
                Ok(json!({}))
            }
            _ => self.switch(),
        }
    }

    /// From whoever schedules to what the settings say, and measures for how long the kernel's own scheduler was in charge.
    /// Our core is loaded before the other one goes: that is most of the time that a start takes.
    fn switch(&mut self) -> Result<Value> {
        let begun = Instant::now();
        let next = self.prepare()?;
        self.comeback.forget();
        if matches!(self.work, Work::Nobody) {
            self.start(next, upstream::PATIENCE)?;
            return Ok(json!({ "attached": true }));
        }
        let prepared = begun.elapsed();
        let off = Instant::now();
        let remains = self.detach(Off { why: "re-attach", message: "it is attached anew".into() });
        self.gap_since = Some(off);
        self.start(next, upstream::PATIENCE)?;
        self.facts.reattaches += 1;
        let mut done = json!({ "reattached": true, "loadMs": prepared.as_millis() as u64 });
        match &self.work {
            // It loads for longer than anybody waits: `look` will see it.
            Work::Upstream(upstream) if upstream.loaded().is_none() => done["loading"] = true.into(),
            _ => done["gapMs"] = self.close_gap().into(),
        }
        drop(remains);
        Ok(done)
    }

    /// Somebody other than the kernel schedules again.
    fn close_gap(&mut self) -> u64 {
        let Some(since) = self.gap_since.take() else { return 0 };
        let gap = since.elapsed();
        self.facts.gap = Some(gap);
        self.log.info(format_args!(
            "attached anew; the kernel's own scheduler was in charge for {} ms",
            gap.as_millis()
        ));
        gap.as_millis() as u64
    }

    /// Takes what is wanted. While nothing of ours schedules it waits for when something does.
    fn want(&mut self, published: Published) {
        self.facts.strategies.told = published.told;
        let Some(table) = published.table else { return };
        self.table = table;
        if let Work::Ours(scheduled) = &mut self.work {
            scheduled.want(&self.table, &mut self.facts, &self.log);
        }
    }

    /// How things stand.
    fn object(&self) -> Value {
        match &self.work {
            Work::Ours(scheduled) => status::object(&self.facts, &snapshot(scheduled.core(), &self.scan)),
            Work::Upstream(upstream) => standby::object(&self.facts, Some(upstream)),
            Work::Nobody => standby::object(&self.facts, None),
        }
    }

    /// The same in a few words.
    fn line(&self) -> String {
        match (&self.facts.off, &self.work) {
            (Some(off), _) => format!("no scheduler of ours: {}", off.message),
            (None, Work::Upstream(upstream)) => format!("{} schedules", upstream.name()),
            (None, _) => format!("plugin {} schedules", self.facts.plugin),
        }
    }

    /// Detaches, reports, and says how it ended.
    fn finish(mut self, end: Result<()>) -> Result<u8> {
        let last = match std::mem::replace(&mut self.work, Work::Nobody) {
            Work::Ours(scheduled) => {
                let (record, remains) = (*scheduled).end(&mut self.facts);
                self.facts.exit = record;
                status::object(&self.facts, &snapshot(&remains.core, &Scan::default()))
            }
            Work::Upstream(upstream) => {
                let last = standby::object(&self.facts, Some(&upstream));
                drop(upstream);
                last
            }
            Work::Nobody => standby::object(&self.facts, None),
        };
        end?;
        if let Some(path) = &self.settings.report {
            std::fs::write(path, format!("{last}\n"))
                .map_err(|e| Error::system(format!("cannot write the report {}", path.display()), &e))?;
        }
        self.log.plain(status::describe(&last).trim_end());
        Ok(0)
    }
}

fn snapshot(core: &LoadedCore, scan: &Scan) -> Snapshot {
    let view = core.view();
    let limits = Limits::of(core.enforces_limits(), &view, scan);
    let (page, totals, legs) = (core.agent_page(), core.totals(), core.legs());
    Snapshot { view, page, totals, legs, limits, transport: core.transport().to_string() }
}
