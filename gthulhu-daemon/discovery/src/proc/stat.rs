//! `/proc/PID/stat`.

use gthulhu_model::Comm;

/// What `/proc/PID/stat` says of identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// The name of the thread.
    pub comm: Option<Comm>,
    /// The pid of the process that made it.
    pub parent: i32,
    /// `R` running or ready, `S` asleep, `D` in the kernel, `T` stopped, `Z` ended and not yet waited for.
    pub state: char,
    /// Whether it is one of the kernel's own (`PF_KTHREAD`).
    pub kernel: bool,
    /// When it was started, in clock ticks since boot: with the pid, its identity.
    pub started: u64,
}

/// include/linux/sched.h
const PF_KTHREAD: u64 = 0x0020_0000;

impl Stat {
    /// Fields 2, 3, 4, 9 and 22 of proc_pid_stat(5). The name in field 2 may hold anything, blanks and
    /// parentheses too; it ends with the last ')' of the line. `None` for other text.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let open = text.iter().position(|&byte| byte == b'(')?;
        let close = text.iter().rposition(|&byte| byte == b')')?;
        let comm = text.get(open + 1..close)?;
        let rest = std::str::from_utf8(&text[close + 1..]).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(9 - 5)?.parse().ok()?;
        let started = fields.nth(22 - 10)?.parse().ok()?;
        Some(Self { comm: shown(comm), parent, state, kernel: flags & PF_KTHREAD != 0, started })
    }
}

/// The name from what /proc shows: of the kernel's own threads that is more than the 15 bytes that they are
/// called (`proc_task_name()` in fs/proc/array.c adds what a worker works on).
fn shown(comm: &[u8]) -> Option<Comm> {
    Comm::new(&comm[..comm.len().min(Comm::CAPACITY - 1)]).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Read on a real machine; the name is ours.
    const LINE: &str =
        "4711 (a) (b c) S 17 4711 17 34816 4711 4194304 105 0 0 0 1 2 0 0 20 0 1 0 120034 8 9 0";

    #[test]
    fn fields_are_found_behind_any_name() {
        let stat = Stat::parse(LINE.as_bytes()).unwrap();
        assert_eq!(stat.comm, Some(Comm::new("a) (b c").unwrap()));
        assert_eq!((stat.parent, stat.state, stat.kernel, stat.started), (17, 'S', false, 120_034));
        assert!(Stat::parse(LINE.replace("4194304", "2129984").as_bytes()).unwrap().kernel);
    }

    #[test]
    fn our_own_line_can_be_read() {
        let text = std::fs::read("/proc/self/stat").unwrap();
        let stat = Stat::parse(&text).unwrap();
        assert_eq!(stat.parent, std::os::unix::process::parent_id() as i32);
        assert!(stat.started > 0 && !stat.kernel);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_answer(text: Vec<u8>) {
            Stat::parse(&text);
        }

        #[test]
        fn a_line_that_is_cut_gives_no_wrong_start(end in 0..LINE.len()) {
            if let Some(stat) = Stat::parse(&LINE.as_bytes()[..end]) {
                // What is cut within the number cannot be told; the kernel's line is longer than that.
                prop_assert!("120034".starts_with(&stat.started.to_string()));
            }
        }
    }
}
