//! `top` in a terminal of 80 x 24: it takes keys, and gives the terminal back. Needs root.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A pseudo terminal with this test program at work on it, as `top`.
struct Screen {
    keyboard: File,
    said: Arc<Mutex<Vec<u8>>>,
    child: Child,
}

impl Screen {
    fn start() -> Self {
        let (mut master, mut slave) = (0, 0);
        let size = libc::winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        // SAFETY: both numbers and the size live through the call; no name and no modes are asked for.
        let opened = unsafe {
            libc::openpty(
                &raw mut master,
                &raw mut slave,
                std::ptr::null_mut(),
                std::ptr::null(),
                &raw const size,
            )
        };
        assert_eq!(opened, 0);
        // SAFETY: just opened, and nobody else's.
        let (master, slave) = unsafe { (File::from_raw_fd(master), OwnedFd::from_raw_fd(slave)) };
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "top_itself", "--ignored", "--nocapture"])
            .env("LANG", "C.UTF-8")
            .env("TERM", "xterm")
            .stdin(slave.try_clone().unwrap())
            .stdout(slave.try_clone().unwrap())
            .stderr(slave);
        // SAFETY: between fork and exec only setsid and ioctl are called, which are async-signal-safe.
        unsafe {
            command.pre_exec(|| {
                libc::setsid();
                libc::ioctl(0, libc::TIOCSCTTY, 0);
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        // Its copies of the terminal must go, or the reader would never see an end.
        drop(command);
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut reader, heard) = (master.try_clone().unwrap(), Arc::clone(&said));
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                heard.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { keyboard: master, said, child }
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// Waits until this was written.
    #[track_caller]
    fn wait_for(&self, what: &str) {
        let end = Instant::now() + Duration::from_secs(30);
        while !self.said().contains(what) {
            assert!(Instant::now() < end, "no {what:?} in {:?}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until it ends, and looks whether the cursor is back and the first screen, too.
    #[track_caller]
    fn end(mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        self.wait_for("\x1b[?1049l");
        let said = self.said();
        let last = |what: &str| said.rfind(what);
        assert!(last("\x1b[?25h") > last("\x1b[?25l"), "no cursor: {said:?}");
        assert!(last("\x1b[?1049l") > last("\x1b[?1049h"), "the other screen stays: {said:?}");
        // SAFETY: all zero is a valid value, and the pointer lives until the call returns.
        let modes = unsafe {
            let mut modes: libc::termios = std::mem::zeroed();
            libc::tcgetattr(std::os::fd::AsRawFd::as_raw_fd(&self.keyboard), &raw mut modes);
            modes
        };
        assert_eq!(modes.c_lflag & (libc::ICANON | libc::ECHO), libc::ICANON | libc::ECHO, "still raw");
        status
    }
}

#[test]
#[ignore = "the process that the other tests start"]
fn top_itself() {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        top: gthulhu_top::Args,
    }
    let cli = <Cli as clap::Parser>::parse_from(["top", "--interval", "0.3", "--filter", "no row has this"]);
    if let Err(error) = gthulhu_top::run(&cli.top) {
        eprintln!("top: {error}");
        std::process::exit(1);
    }
    std::process::exit(0);
}

#[test]
fn keys_are_taken_and_the_terminal_is_given_back_whatever_ends_it() {
    // SAFETY: no arguments, cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        println!("skip terminal - watching needs root");
        return;
    }
    let mut screen = Screen::start();
    let end = Instant::now() + Duration::from_secs(30);
    while !screen.said().contains("DELAYp99") {
        if screen.said().contains("type information") || screen.said().contains("no cgroups") {
            println!("skip terminal - {}", screen.said());
            let _ = screen.child.wait();
            return;
        }
        assert!(Instant::now() < end, "{:?}", screen.said());
        std::thread::sleep(Duration::from_millis(20));
    }
    screen.press("?");
    // Only what changes is written, and there the table, which has no rows, has nothing.
    screen.wait_for("hypervisor");
    screen.press("q");
    std::thread::sleep(Duration::from_millis(200));
    screen.press("q");
    assert_eq!(screen.end().code(), Some(0));
    for signal in [libc::SIGTERM, libc::SIGINT] {
        let screen = Screen::start();
        screen.wait_for("DELAYp99");
        // SAFETY: no pointer is passed; the child is not reaped, so the pid is its own.
        unsafe { libc::kill(screen.child.id() as i32, signal) };
        assert_eq!(screen.end().signal(), Some(signal));
    }
}
