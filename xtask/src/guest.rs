//! One guest: boots a kernel in QEMU, runs one command, streams its output, tells how it ended.
//!
//! The kernel's console is the first serial port and goes to a file. The command's output is the second one and
//! goes to the sink, line by line. A line that starts with a random token ends it: `TOKEN exit STATUS`, before
//! that perhaps `TOKEN dmesg` and the end of the kernel log. No such line: the guest died.

use crate::initramfs;
use crate::kernel::{Cache, Kernel};
use crate::qemu::Qemu;
use crate::ui::{Context, Result};
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};

/// Lines of the console that an outcome keeps, and how many when the kernel was asked why it hangs.
const CONSOLE_LINES: usize = 60;
const WHY_LINES: usize = 400;

/// Files of a run, in its own folder.
const INITRD: &str = "initramfs";
const CONSOLE: &str = "console";
const COMPLAINTS: &str = "complaints";
const MONITOR: &str = "monitor";

/// How to boot, and what with.
#[derive(Debug, Clone)]
pub(crate) struct GuestSpec {
    /// The kernel.
    pub(crate) kernel: Kernel,
    /// QEMU's `-smp`, word by word.
    pub(crate) smp: String,
    /// QEMU's `-m`.
    pub(crate) mem: String,
    /// The clock counts instructions (2 ns each) instead of time, one vCPU thread for all.
    pub(crate) icount: bool,
    /// Use /dev/kvm instead of emulation.
    pub(crate) kvm: bool,
    /// Wall time, boot included.
    pub(crate) timeout: Duration,
    /// Files and folders to put in, and where (see `--with`).
    pub(crate) files: Vec<(PathBuf, Option<String>)>,
    /// Programs of this machine's PATH to put in.
    pub(crate) tools: Vec<String>,
    /// Fetch the kernel log even when the command succeeds.
    pub(crate) dmesg: bool,
}

impl GuestSpec {
    /// Two vCPUs, 2 GiB, two minutes.
    pub(crate) fn new(kernel: Kernel) -> Self {
        Self {
            kernel,
            smp: "2".into(),
            mem: "2G".into(),
            icount: false,
            kvm: false,
            timeout: Duration::from_secs(120),
            files: Vec::new(),
            tools: Vec::new(),
            dmesg: false,
        }
    }
}

/// How it ended.
#[derive(Debug, Clone)]
pub(crate) struct GuestOutcome {
    /// The command's exit status; `None` when the guest died or ran out of time before telling.
    pub(crate) status: Option<i32>,
    /// The time was over.
    pub(crate) timed_out: bool,
    /// The end of the kernel's console, and what QEMU itself complained about.
    pub(crate) console_tail: Vec<String>,
    /// The end of the kernel log, when the command failed or the spec asked for it.
    pub(crate) dmesg: Vec<String>,
    /// From the start of QEMU to the end of the command.
    pub(crate) wall: Duration,
}

/// Boots, runs, waits. Each line of the command's output goes to `sink`, without its newline, as it comes.
///
/// QEMU dies with the thread that calls this, however that ends.
pub(crate) fn run(spec: &GuestSpec, command: &[String], sink: &mut dyn FnMut(&str)) -> Result<GuestOutcome> {
    run_in(spec, command, &mut |line, _| sink(line))
}

/// The same; with each line the sink gets the socket of QEMU's monitor.
pub(crate) fn run_in(
    spec: &GuestSpec,
    command: &[String],
    sink: &mut dyn FnMut(&str, &Path),
) -> Result<GuestOutcome> {
    let cache = Cache::open()?;
    let found = Qemu::find(&cache)?;
    let scratch = cache.scratch()?;
    let dir = &scratch.0;
    initramfs::build(&dir.join(INITRD), spec, command)?;
    let token = token()?;
    let start = Instant::now();
    let monitor = dir.join(MONITOR);
    let sink = &mut |line: &str| sink(line, &monitor);
    let mut qemu = Running(start_qemu(&found, spec, dir, &token)?);
    let deadline = start + spec.timeout;

    let output = read_all(qemu.0.stdout.take());
    let mut lines = Lines::new(token);
    let timed_out = loop {
        match output.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(bytes) => lines.feed(&bytes, sink),
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
        if lines.status.is_some() {
            break false;
        }
    };
    let wall = start.elapsed();
    lines.finish(sink);
    if timed_out {
        ask_why(dir);
    }
    drop(qemu);

    let mut console_tail = tail(&dir.join(CONSOLE), if timed_out { WHY_LINES } else { CONSOLE_LINES });
    console_tail
        .extend(tail(&dir.join(COMPLAINTS), CONSOLE_LINES).into_iter().map(|line| format!("qemu: {line}")));
    Ok(GuestOutcome {
        status: lines.status,
        timed_out: timed_out && lines.status.is_none(),
        console_tail,
        dmesg: lines.dmesg.unwrap_or_default(),
        wall,
    })
}

/// The process; killed and reaped on drop. After the last line nothing in it is worth waiting for.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start_qemu(found: &Qemu, spec: &GuestSpec, dir: &Path, token: &str) -> Result<Child> {
    // no_timer_check: on a busy host the emulated timer can be late for the kernel's test of it, which panics
    // ("IO-APIC + timer doesn't work", seen on 6.12).
    let mut append = format!("console=ttyS0 panic=-1 quiet no_timer_check lab.token={token}");
    append.push_str(if spec.dmesg { " lab.dmesg" } else { "" });
    append.push_str(if spec.icount { " lab.icount" } else { "" });
    let (accel, cpu) = match (spec.kvm, spec.icount) {
        (true, _) => ("kvm", "host"),
        (_, icount) if icount || !found.sound => ("tcg,thread=single", "max"),
        _ => ("tcg,thread=multi", "max"),
    };
    let mut qemu = found.command();
    qemu.args(["-nodefaults", "-no-user-config", "-no-reboot", "-display", "none", "-net", "none"]);
    qemu.args(["-accel", accel, "-cpu", cpu, "-smp", &spec.smp, "-m", &spec.mem, "-append", &append]);
    if spec.icount {
        qemu.args(["-icount", "shift=1,sleep=off"]);
    }
    // Names relative to the folder: a socket's path has a short limit, and a comma in one would need quoting.
    qemu.current_dir(dir).arg("-kernel").arg(&spec.kernel.image).args(["-initrd", INITRD]);
    qemu.args(["-chardev", &format!("file,id=console,path={CONSOLE}")]);
    qemu.args(["-chardev", "stdio,id=command,signal=off"]);
    qemu.args(["-serial", "chardev:console", "-serial", "chardev:command"]);
    qemu.args(["-monitor", &format!("unix:{MONITOR},server=on,wait=off")]);
    let errors = File::create(dir.join(COMPLAINTS)).cannot("write in the cache")?;
    qemu.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(errors);
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe and touches no memory.
    unsafe {
        qemu.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(std::io::Error::last_os_error()),
        });
    }
    qemu.spawn().cannot("start QEMU")
}

/// Reads on a thread of its own, so that a slow sink never holds the guest's serial port up.
fn read_all(from: Option<impl Read + Send + 'static>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let Some(mut from) = from else { return };
        let mut buffer = [0; 1 << 16];
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            if sender.send(buffer[..n].to_vec()).is_err() {
                return;
            }
        }
    });
    receiver
}

/// 128 random bits: no output of a command contains them by chance.
fn token() -> Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom").and_then(|mut f| f.read_exact(&mut bytes)).cannot("read /dev/urandom")?;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
}

/// Has a guest that hangs print, by magic keys: what runs on each CPU, who is blocked, the state of sched_ext.
fn ask_why(dir: &Path) {
    let Ok(mut monitor) = UnixStream::connect(dir.join(MONITOR)) else { return };
    for key in ["8", "l", "w", "shift-d"] {
        let _ = writeln!(monitor, "sendkey alt-sysrq-{key}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

fn tail(file: &Path, count: usize) -> Vec<String> {
    let bytes = std::fs::read(file).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().map(|line| line.trim_end_matches('\r')).collect();
    lines[lines.len().saturating_sub(count)..].iter().map(ToString::to_string).collect()
}

/// Cuts the stream into lines and takes our own out of it.
#[derive(Debug)]
struct Lines {
    token: String,
    rest: Vec<u8>,
    dmesg: Option<Vec<String>>,
    status: Option<i32>,
}

impl Lines {
    fn new(token: String) -> Self {
        Self { token, rest: Vec::new(), dmesg: None, status: None }
    }

    fn feed(&mut self, bytes: &[u8], sink: &mut dyn FnMut(&str)) {
        self.rest.extend_from_slice(bytes);
        let mut start = 0;
        while let Some(length) = self.rest[start..].iter().position(|b| *b == b'\n') {
            let line = String::from_utf8_lossy(&self.rest[start..start + length]).into_owned();
            start += length + 1;
            self.line(&line, sink);
        }
        self.rest.drain(..start);
    }

    /// What is left when the guest is gone: a last line without a newline.
    fn finish(&mut self, sink: &mut dyn FnMut(&str)) {
        let rest = std::mem::take(&mut self.rest);
        if !rest.is_empty() && self.status.is_none() {
            self.line(&String::from_utf8_lossy(&rest), sink);
        }
    }

    fn line(&mut self, line: &str, sink: &mut dyn FnMut(&str)) {
        if self.status.is_some() {
            return;
        }
        let Some((before, ours)) = line.split_once(&self.token) else {
            match &mut self.dmesg {
                Some(dmesg) => dmesg.push(line.to_string()),
                None => sink(line),
            }
            return;
        };
        // The command's last line may lack its newline.
        if !before.is_empty() {
            match &mut self.dmesg {
                Some(dmesg) => dmesg.push(before.to_string()),
                None => sink(before),
            }
        }
        match ours.trim().split_once(' ') {
            Some(("exit", status)) => self.status = status.parse().ok(),
            _ => self.dmesg = Some(Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `text` in pieces of each size and returns what the sink saw, the log and the status.
    fn feed(text: &str) -> (Vec<String>, Option<Vec<String>>, Option<i32>) {
        let mut results = (1..=text.len()).map(|size| {
            let (mut lines, mut seen) = (Lines::new("TOKEN".into()), Vec::new());
            let mut sink = |line: &str| seen.push(line.to_string());
            text.as_bytes().chunks(size).for_each(|piece| lines.feed(piece, &mut sink));
            lines.finish(&mut sink);
            (seen, lines.dmesg, lines.status)
        });
        let first = results.next().unwrap();
        assert!(results.all(|r| r == first), "the size of the pieces must not matter");
        first
    }

    #[test]
    fn output_log_and_status_are_told_apart() {
        let (seen, dmesg, status) = feed("a\n\nb\nTOKEN dmesg\n[1] x\nTOKEN exit 3\nlate\n");
        assert_eq!((seen.as_slice(), status), (&["a", "", "b"].map(String::from)[..], Some(3)));
        assert_eq!(dmesg.unwrap(), ["[1] x"]);
    }

    #[test]
    fn a_last_line_without_newline_is_kept() {
        assert_eq!(feed("a\nbTOKEN exit 0\n"), (vec!["a".into(), "b".into()], None, Some(0)));
    }

    #[test]
    fn a_guest_that_dies_has_no_status() {
        assert_eq!(feed("a\nhalf a li"), (vec!["a".into(), "half a li".into()], None, None));
    }
}
