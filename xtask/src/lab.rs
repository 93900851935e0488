//! The lab's commands: fetch a kernel, list them, run one command in a guest, the demonstration.

use crate::guest::{self, GuestOutcome, GuestSpec};
use crate::kernel::{self, Cache};
use crate::ui::{Context, Result, error, run as run_child, say};
use crate::{DemoArgs, RunArgs, apt, initramfs};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Duration;

/// The command ran out of time, as timeout(1) says it.
const TIMED_OUT: u8 = 124;
/// The guest died before the command had a status.
const GUEST_DIED: u8 = 125;
/// This machine cannot do it: the configuration is wrong (EX_CONFIG), as the daemon says it.
const CANNOT_HERE: u8 = 78;
const DEMO_TIMEOUT: Duration = Duration::from_secs(240);

/// `lab kernel`.
pub(crate) fn fetch(series: &[String]) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let newest = [kernel::NEWEST.to_string()];
    for wanted in if series.is_empty() { &newest } else { series } {
        let kernel = kernel::get(&cache, wanted)?;
        println!("{} {}", kernel.version, kernel.image.display());
    }
    Ok(ExitCode::SUCCESS)
}

/// `lab kernel --list`.
pub(crate) fn list(series: &[String]) -> Result<ExitCode> {
    let cache = Cache::open()?;
    let series = series.iter().map(|s| kernel::parse(s)).collect::<Result<Vec<_>>>()?;
    let is_wanted = |v: &kernel::Version| series.is_empty() || series.iter().any(|s| v.is_of(s));
    if !apt::fresh(&cache)
        && let Err(e) = apt::refresh(&cache)
    {
        say(format_args!("{e}; showing what is known"));
    }
    let cached = kernel::cached(&cache);
    let known = apt::known(&cache);
    for kernel in cached.iter().filter(|k| is_wanted(&k.version)) {
        println!("{:<10} cached     {}", kernel.version.to_string(), kernel.release);
    }
    let is_new = |v: &kernel::Version| cached.iter().all(|k| k.version != *v);
    for release in known.iter().filter(|r| is_wanted(&r.version) && is_new(&r.version)) {
        println!("{:<10} available  {}", release.version.to_string(), release.name);
    }
    Ok(ExitCode::SUCCESS)
}

/// `lab run`.
pub(crate) fn run(args: RunArgs) -> Result<ExitCode> {
    let files = args.with.iter().map(|with| parse_with(with)).collect::<Result<Vec<_>>>()?;
    let spec = GuestSpec {
        kernel: kernel::get(&Cache::open()?, &args.kernel)?,
        smp: args.smp,
        mem: args.mem,
        icount: args.icount,
        kvm: args.kvm,
        timeout: Duration::from_secs(args.timeout),
        files,
        tools: args.tool,
        dmesg: args.dmesg,
    };
    let outcome = guest::run(&spec, &args.command, &mut print_line)?;
    Ok(ExitCode::from(report(&spec, &outcome)))
}

/// `demo`.
pub(crate) fn demo(args: &DemoArgs) -> Result<ExitCode> {
    if args.host && !Path::new("/sys/kernel/sched_ext").exists() {
        say(
            "this machine's kernel has no sched_ext (no /sys/kernel/sched_ext); without --host a guest's is used",
        );
        return Ok(ExitCode::from(CANNOT_HERE));
    }
    build_programs()?;
    if args.host {
        let status = Command::new(initramfs::release_dir()?.join("lab-guest")).arg("demo").status();
        let code = status.cannot("start lab-guest")?.code();
        return Ok(ExitCode::from(code.and_then(|c| u8::try_from(c).ok()).unwrap_or(GUEST_DIED)));
    }
    let kernel = kernel::get(&Cache::open()?, &args.kernel)?;
    say(format_args!("booting Linux {} with 2 CPUs, emulated", kernel.version));
    let spec = GuestSpec { timeout: DEMO_TIMEOUT, ..GuestSpec::new(kernel) };
    let outcome = guest::run(&spec, &["lab-guest".into(), "demo".into()], &mut print_line)?;
    Ok(ExitCode::from(report(&spec, &outcome)))
}

/// Builds what runs in guests: all programs and examples of the workspace but this one.
pub(crate) fn build_programs() -> Result<()> {
    say("building the programs (release)");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let what = ["build", "--quiet", "--release", "--workspace", "--exclude", "xtask", "--bins", "--examples"];
    run_child(Command::new(cargo).args(what).current_dir(initramfs::workspace_root()?))
}

/// Says on stderr how a guest ended, with what is needed to see why, and gives the exit status for it.
pub(crate) fn report(spec: &GuestSpec, outcome: &GuestOutcome) -> u8 {
    let seconds = outcome.wall.as_secs_f32();
    let code = match outcome.status {
        Some(status) => {
            if !outcome.dmesg.is_empty() {
                block("the end of the guest's dmesg", &outcome.dmesg);
            }
            if status != 0 {
                say(format_args!("Linux {}: status {status} after {seconds:.1} s", spec.kernel.release));
            }
            return u8::try_from(status).unwrap_or(GUEST_DIED);
        }
        None if outcome.timed_out => TIMED_OUT,
        None => GUEST_DIED,
    };
    block("the end of the guest's console", &outcome.console_tail);
    let release = &spec.kernel.release;
    match code {
        TIMED_OUT => say(format_args!("Linux {release}: killed, the time-out of {:?} is over", spec.timeout)),
        _ => say(format_args!(
            "Linux {release}: the guest panicked or powered off after {seconds:.1} s, without a status"
        )),
    }
    code
}

fn block(title: &str, lines: &[String]) {
    let mut err = std::io::stderr().lock();
    let _ = writeln!(err, "----- {title} -----");
    for line in lines {
        let _ = writeln!(err, "{line}");
    }
    let _ = writeln!(err, "----- end -----");
}

fn print_line(line: &str) {
    // A reader that has gone away must not stop the run: its status still counts.
    let _ = writeln!(std::io::stdout(), "{line}");
}

fn parse_with(with: &str) -> Result<(PathBuf, Option<String>)> {
    let (path, guest_path) = match with.split_once(':') {
        Some((path, guest_path)) => (path, Some(guest_path)),
        None => (with, None),
    };
    if guest_path.is_some_and(|p| !p.starts_with('/')) {
        return Err(error(format!("--with {with}: the path in the guest must start with /")));
    }
    // The folder, not the file, is made canonical: a link keeps the name by which it was asked for.
    let path = std::path::absolute(path).cannot(format_args!("find {path}"))?;
    path.metadata().cannot(format_args!("read {}", path.display()))?;
    Ok((path, guest_path.map(str::to_string)))
}
