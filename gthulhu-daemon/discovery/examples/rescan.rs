//! What a look at many processes costs: `cargo run --release --example rescan -- [PROCESSES] [CGROUPS]`.
//!
//! Starts that many sleeping processes in that many cgroups (root), looks at them in both ways, and removes
//! them.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gthulhu_discovery::{Discovery, Options, Proc, Result, Source, Tree};

/// How often each look is repeated; the median is told.
const LOOKS: usize = 32;

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1).map(|argument| argument.parse().unwrap_or(0));
    let processes = arguments.next().unwrap_or(10_000);
    let cgroups = arguments.next().unwrap_or(500).max(1);
    let Some(mount) = Tree::mount(&Proc::host()?)? else {
        eprintln!("cgroup v2 is not mounted");
        return Ok(());
    };
    let crowd =
        Crowd::start(mount.join(format!("gthulhu-rescan-{}", std::process::id())), processes, cgroups);
    println!("{} processes of ours in {cgroups} cgroups", crowd.children.len());
    for source in [Source::Tree, Source::Proc] {
        let mut options = Options::default();
        options.source = source;
        let mut discovery = Discovery::new(options)?;
        let begun = Instant::now();
        let events = discovery.rescan()?.len();
        let first = begun.elapsed();
        let index = discovery.index();
        println!(
            "{source:?}: {} processes, {} threads, {} cgroups; first look {first:?}, {events} events",
            index.processes().len(),
            index.thread_count(),
            index.cgroups().len()
        );
        let mut times = Vec::new();
        for _ in 0..LOOKS {
            let begun = Instant::now();
            discovery.rescan()?;
            times.push(begun.elapsed());
        }
        times.sort();
        println!("{source:?}: later looks, median of {LOOKS}: {:?}", times[LOOKS / 2]);
    }
    Ok(())
}

/// Ends and removes all of itself.
struct Crowd {
    directory: PathBuf,
    cgroups: usize,
    children: Vec<Child>,
}

impl Crowd {
    fn start(directory: PathBuf, processes: usize, cgroups: usize) -> Self {
        let mut crowd = Self { directory, cgroups, children: Vec::new() };
        for number in 0..cgroups {
            let _ = std::fs::create_dir_all(crowd.directory.join(number.to_string()));
        }
        for number in 0..processes {
            let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn();
            let Ok(child) = child else { break };
            let file = crowd.directory.join((number % cgroups).to_string()).join("cgroup.procs");
            let _ = std::fs::write(file, child.id().to_string());
            crowd.children.push(child);
        }
        // Younger than ten seconds, each is read again at every look: the figures are of processes at rest.
        std::thread::sleep(Duration::from_secs(11));
        crowd
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
        }
        for child in &mut self.children {
            let _ = child.wait();
        }
        std::thread::sleep(Duration::from_millis(200));
        for number in 0..self.cgroups {
            let _ = std::fs::remove_dir(self.directory.join(number.to_string()));
        }
        let _ = std::fs::remove_dir(&self.directory);
    }
}
