//! What the kernel says about a process.

use std::fs;

/// A moment of a process, from /proc/PID/stat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// `R` running or ready, `S` asleep, `D` in the kernel, `T` stopped, `t` traced, `Z` ended.
    pub(crate) state: char,
    pub(crate) minor_faults: u64,
    pub(crate) major_faults: u64,
    /// CPU time so far, user and system.
    pub(crate) cpu_ms: u64,
}

impl Stat {
    /// Asks about a process. `None`: there is none.
    pub(crate) fn of(pid: u32) -> Option<Self> {
        Self::parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, ticks_per_second())
    }

    /// Fields 3, 10, 12, 14 and 15 (proc_pid_stat(5)); the name in field 2 may hold anything but ends
    /// with ')'.
    fn parse(stat: &str, hz: u64) -> Option<Self> {
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
        Some(Self {
            state: fields.first()?.chars().next()?,
            minor_faults: number(10)?,
            major_faults: number(12)?,
            cpu_ms: (number(14)? + number(15)?) * 1000 / hz.max(1),
        })
    }

    /// Somebody has stopped it, or looks into it with a debugger.
    pub(crate) fn is_stopped(&self) -> bool {
        matches!(self.state, 'T' | 't')
    }
}

fn ticks_per_second() -> u64 {
    // SAFETY: a plain number.
    u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) }).unwrap_or(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_read_behind_any_name() {
        let stat = "12 (a) b) (c) S 1 2 3 4 5 6 77 8 99 10 30 12 0 0";
        let wanted = Stat { state: 'S', minor_faults: 77, major_faults: 99, cpu_ms: 420 };
        assert_eq!(Stat::parse(stat, 100), Some(wanted));
        assert_eq!(Stat::parse("12 (x) S 1", 100), None);
        assert!(Stat::of(std::process::id()).is_some());
    }
}
