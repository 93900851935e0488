//! What ended without being asked to: it is reported, and begun again where that makes sense.

use std::time::{Duration, SystemTime};

use gthulhu_config::Mode;
use qumun::kernel::ExitRecord;

use super::{Supervisor, Work};
use crate::comeback;
use crate::keeper::{GOOD_LIFE, SHORT_LIVES};
use crate::standby::Ejection;
use crate::status::Off;

/// `SCX_ECODE_ACT_RESTART`: the kernel wants the same scheduler again, as after a CPU has come or gone.
const RESTART: i64 = 1 << 48;
/// What a person is told who wants it back.
const AGAIN: &str = "a runtime configuration, or 'mode agent', starts it again";

impl Supervisor<'_> {
    /// The kernel has removed our core. When somebody wanted that, it stays away; else it is tried again.
    pub(super) fn removed(&mut self, record: ExitRecord) {
        let Work::Ours(scheduled) = &self.work else { return };
        let (ops, life) = scheduled.ops();
        let (ops, what) = (ops.to_owned(), format!("{} ({})", record.reason, record.message));
        let restart = record.code & RESTART != 0;
        if !record.is_error() && !restart {
            let message = format!("the kernel removed {ops}: {what}; somebody wanted it");
            self.log.warn(format_args!("{message}; {AGAIN}"));
            self.detach(Off { why: "removed", message });
            self.facts.exit = Some(record);
            return;
        }
        self.log.warn(format_args!("the kernel ejected {ops} after {} s: {what}", life.as_secs()));
        if !record.dump.is_empty() {
            self.log.plain(format_args!(
                "----- the kernel's dump -----\n{}\n----- end of dump -----",
                record.dump
            ));
        }
        self.detach(Off { why: "ejected", message: format!("the kernel ejected {ops}: {what}") });
        self.facts.exit = Some(record.clone());
        self.facts.ejections.count += 1;
        self.facts.ejections.last = Some(Ejection { ops, at: SystemTime::now(), life, record });
        self.try_again(life, "it was ejected");
    }

    /// A program of mode scx has ended.
    pub(super) fn ended(&mut self, how: &str) {
        let Work::Upstream(upstream) = &self.work else { return };
        let (name, life, words) = (upstream.name(), upstream.life(), upstream.words());
        self.facts.others.last_end = Some((how.to_owned(), words));
        self.log.warn(format_args!("{name} {how} (after {} s)", life.as_secs()));
        self.detach(Off { why: "ended", message: format!("{name} {how}") });
        self.try_again(life, "it ended");
    }

    /// Plans another start, or leaves it at that.
    fn try_again(&mut self, life: Duration, what: &str) {
        match self.comeback.plan(life) {
            Some(wait) => {
                self.facts.ejections.again = self.comeback.due();
                self.log.info(format_args!(
                    "the kernel's own scheduler is in charge; another start in {} ms",
                    wait.as_millis()
                ));
            }
            None => {
                let before = self.facts.off.take().map(|off| off.message).unwrap_or_default();
                let message = format!(
                    "{what} {} times in a row, the last time: {before}; the kernel's own scheduler is back",
                    comeback::SHORT_LIVES
                );
                self.log.warn(format_args!("{message}; {AGAIN}"));
                self.facts.off = Some(Off { why: "crash loop", message });
                self.facts.ejections.again = None;
                self.facts.crash_loops += 1;
            }
        }
    }

    pub(super) fn come_back(&mut self) {
        self.facts.ejections.again = None;
        let (exit, others) = (self.facts.exit.clone(), self.settings.mode == Mode::Scx);
        // Nobody asked for it, so nobody waits.
        match self.prepare().and_then(|next| self.start(next, Duration::ZERO)) {
            Ok(()) if others => self.facts.others.restarts += 1,
            Ok(()) => {}
            Err(error) => {
                self.log.warn(format_args!("it cannot be started again: {error}"));
                self.facts.exit = exit;
                let message = format!("it cannot be started again: {error}");
                self.facts.off = Some(Off { why: "failed", message });
                self.try_again(Duration::ZERO, "it could not be started");
            }
        }
    }

    /// Agents do not live: the kernel's own scheduler is in charge, and the daemon goes on.
    pub(super) fn give_up(&mut self, how: &str) {
        let message = format!(
            "the agent ended {SHORT_LIVES} times in a row within {} s (last: {how}); the kernel's own scheduler is back",
            GOOD_LIFE.as_secs()
        );
        self.detach(Off { why: "crash loop", message: message.clone() });
        self.facts.crash_loops += 1;
        self.log.warn(format_args!("{message}; {AGAIN}"));
    }
}
