//! `cargo xtask`: everything the repository does to a machine or to itself, in one program.
//!
//! `setup` installs what the build and the tests need; `lab` fetches sched_ext kernels and boots them in QEMU;
//! `demo` shows the scheduler at work. It depends on none of the other crates, so it builds on a bare machine.

mod api;
mod apt;
mod compare;
mod cpio;
mod guest;
mod initramfs;
mod kernel;
mod lab;
mod lab_test;
mod licences;
mod modules;
mod new_scheduler;
mod outside;
mod package;
mod path;
mod profile;
mod prometheus;
mod qemu;
mod setup;
mod source;
mod stuck;
mod toolchain;
mod ui;
#[cfg(test)]
mod workspace;

use clap::{Args, Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(
    name = "xtask",
    bin_name = "cargo xtask",
    about = "The repository's own tool",
    max_term_width = 100
)]
struct Cli {
    #[command(subcommand)]
    command: Cmd,
}

#[derive(Subcommand)]
enum Cmd {
    /// Install what the build and the tests need (Debian 12 or later); says nothing when all is there
    Setup {
        /// Only say what is missing, and fail if something is
        #[arg(long)]
        check: bool,
    },
    /// Real sched_ext kernels in QEMU: no special hardware, no root, nothing changed on this machine
    #[command(subcommand)]
    Lab(LabCmd),
    /// Compare the public API of the library crates with qumun/api.txt and qumun-bpf/api.txt
    Api {
        /// Write the golden files instead
        #[arg(long)]
        bless: bool,
    },
    /// Make the packages that would be published, and prove that they build without clang
    Package(PackageArgs),
    /// Compile the library, libbpf and the core for aarch64
    Cross,
    /// Check the licences of all dependencies against deny.toml, by cargo-deny where it is installed
    Deny,
    /// Check the workspace with the oldest Rust that it promises, where that is installed
    Msrv,
    /// Build and test schedulers outside of this workspace: examples/out-of-tree, and one that new-scheduler makes
    Outside,
    /// Make a crate with a scheduler of your own: a policy, a program, tests in simulated time
    NewScheduler {
        /// Its name: small letters, digits, - and _
        name: String,
        /// The folder to make; beside this repository unless told
        #[arg(long, value_name = "FOLDER")]
        path: Option<std::path::PathBuf>,
    },
    /// Build everything and show the scheduler at work, in a guest of two CPUs
    Demo(DemoArgs),
}

#[derive(Subcommand)]
enum LabCmd {
    /// Fetch kernels into the cache and print their versions and paths
    Kernel {
        /// A series (7.3) or a version (7.2.13); the newest 7.x when none is named
        series: Vec<String>,
        /// List what is cached and what the archive has
        #[arg(long)]
        list: bool,
    },
    /// Boot a guest, run a command in it, exit with its status (124: time-out, 125: the guest died)
    Run(RunArgs),
    /// Tier C: run the lab's table of tests on real kernels
    Test(TestArgs),
    /// Tier C on all series that the design names: load, stress and drills, one table at the end
    Matrix(MatrixArgs),
    /// Hours of load in one guest
    Soak(SoakArgs),
    /// Measure the length of a wakeup's path against EEVDF, and keep the figures under benches/runs/
    Path(PathArgs),
    /// Compare our schedulers with the kernel's own and with scx_bpfland and scx_rustland; the figures, a summary and a
    /// page go under benches/runs/. Half an hour or more
    Compare(CompareArgs),
    /// Count the instructions of a wakeup's path, function by function, and keep them under benches/runs/
    Profile(ProfileArgs),
}

/// What `lab run` takes; most of it becomes a [`guest::GuestSpec`].
#[derive(Args)]
struct RunArgs {
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// Virtual CPUs, as QEMU's -smp takes them: 2, or 8,sockets=2,cores=2,threads=2
    #[arg(long, default_value = "2")]
    smp: String,
    /// Memory of the guest
    #[arg(long, default_value = "2G")]
    mem: String,
    /// Count instructions instead of time: repeatable path lengths, no parallelism
    #[arg(long)]
    icount: bool,
    /// Use /dev/kvm. Not probed and not the default: stock kernels do not boot with it on nested hosts
    #[arg(long, conflicts_with = "icount")]
    kvm: bool,
    /// Seconds of wall time before the guest is killed, boot included
    #[arg(long, default_value_t = 120, value_name = "SECS")]
    timeout: u64,
    /// Put a file or folder into the guest: programs in /bin, others in /data, unless a path is given
    #[arg(long, value_name = "PATH[:GUESTPATH]")]
    with: Vec<String>,
    /// Put a program from this machine's PATH into the guest, with its libraries
    #[arg(long, value_name = "NAME")]
    tool: Vec<String>,
    /// Print the end of the guest's dmesg even when the command succeeds
    #[arg(long)]
    dmesg: bool,
    /// The command and its arguments
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// What `lab test` takes.
#[derive(Args)]
struct TestArgs {
    /// Kernel series or version; may be repeated. The newest 7.x and 6.19 when none is named
    #[arg(long)]
    kernel: Vec<String>,
    /// Only the entry of this name, or those whose name contains it; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// How often to run the whole of it: a test is trusted when ten runs agree
    #[arg(long, default_value_t = 1, value_name = "TIMES")]
    repeat: usize,
    /// The long entries too
    #[arg(long)]
    long: bool,
}

/// What `lab matrix` takes.
#[derive(Args)]
struct MatrixArgs {
    /// Only this series or version; may be repeated
    #[arg(long)]
    kernel: Vec<String>,
    /// Only the entry of this name; may be repeated
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
}

/// What `lab soak` takes.
#[derive(Args)]
struct SoakArgs {
    /// Hours of load; 0.5 is half an hour
    #[arg(long)]
    hours: f64,
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// Virtual CPUs, as QEMU's -smp takes them
    #[arg(long, default_value = "4")]
    smp: String,
}

/// What `lab path` takes.
#[derive(Args)]
struct PathArgs {
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// Measurements of each scheduler
    #[arg(long, default_value_t = 3)]
    rounds: u32,
}

/// What `lab compare` takes.
#[derive(Args)]
struct CompareArgs {
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// One short round of a load in each guest: three minutes, to see that it works
    #[arg(long)]
    quick: bool,
    /// Only this load, in each guest that has it; may be repeated
    #[arg(long, value_name = "LOAD")]
    only: Vec<String>,
    /// Only this one, against EEVDF; may be repeated
    #[arg(long, value_name = "NAME")]
    scheduler: Vec<String>,
    /// Measurements of each load under each scheduler; else 5 where instructions count, and 10 pairs in time
    #[arg(long, value_name = "N")]
    rounds: Option<u32>,
    /// Only this guest, path or parallel: what else there is in the folder of the result stays
    #[arg(long, value_name = "NAME")]
    boot: Option<String>,
    /// Measure nothing: summary and page anew of the figures in this folder
    #[arg(long, value_name = "FOLDER", exclusive = true)]
    again: Option<std::path::PathBuf>,
}

/// What `lab profile` takes.
#[derive(Args)]
struct ProfileArgs {
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// Plugins, and EEVDF for the kernel's own scheduler; one boot each
    #[arg(long, num_args = 1.., default_values = ["EEVDF", "simple-fifo", "gthulhu"])]
    scheduler: Vec<String>,
}

/// What `package` takes.
#[derive(Args)]
struct PackageArgs {
    /// Also run the scheduler that was built on the packages, in a guest
    #[arg(long)]
    guest: bool,
    /// Kernel series or version of that guest
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
}

/// What `demo` takes.
#[derive(Args)]
struct DemoArgs {
    /// Kernel series or version
    #[arg(long, default_value = kernel::NEWEST)]
    kernel: String,
    /// On this machine instead of in a guest; needs root and a kernel with sched_ext
    #[arg(long, conflicts_with = "kernel")]
    host: bool,
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Cmd::Setup { check } => setup::setup(check),
        Cmd::Lab(LabCmd::Kernel { list: true, series }) => lab::list(&series),
        Cmd::Lab(LabCmd::Kernel { list: false, series }) => lab::fetch(&series),
        Cmd::Lab(LabCmd::Run(args)) => lab::run(args),
        Cmd::Lab(LabCmd::Path(args)) => path::path(&args),
        Cmd::Lab(LabCmd::Compare(args)) => compare::compare(&args),
        Cmd::Lab(LabCmd::Profile(args)) => profile::profile(&args),
        Cmd::Lab(LabCmd::Test(args)) => lab_test::test(&args),
        Cmd::Api { bless } => api::api(bless),
        Cmd::Lab(LabCmd::Matrix(args)) => lab_test::matrix(&args),
        Cmd::Lab(LabCmd::Soak(args)) => lab_test::soak(&args),
        Cmd::Package(args) => package::package(&args),
        Cmd::Cross => toolchain::cross(),
        Cmd::Deny => licences::deny(),
        Cmd::Msrv => toolchain::msrv(),
        Cmd::Outside => outside::outside(),
        Cmd::NewScheduler { name, path } => new_scheduler::new_scheduler(&name, path.as_deref()),
        Cmd::Demo(args) => lab::demo(&args),
    };
    done.unwrap_or_else(|e| {
        ui::say(&e);
        ExitCode::from(e.code)
    })
}
