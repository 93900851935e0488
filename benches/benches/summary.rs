//! What criterion has measured so far, as one table: `cargo bench -p qumun-benches --bench summary [-- --write FOLDER]`.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use clap::Parser;
use serde_json::Value;

#[derive(Parser)]
#[command(about = "What criterion has measured so far, as one table")]
struct Options {
    /// Write it into this folder as criterion.csv, too
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
    /// What cargo says to every bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// One bench: nanoseconds, with what 95 % of the resampled medians are between.
struct Figure {
    name: String,
    median: f64,
    low: f64,
    high: f64,
    /// For how many things: `median` is for all of them.
    elements: f64,
}

fn main() {
    let options = Options::parse();
    let folder = criterion_folder();
    let mut figures = Vec::new();
    collect(&folder, &mut figures);
    figures.sort_by_cached_key(|figure| natural(&figure.name));
    if figures.is_empty() {
        println!("skipped: summary - criterion has left nothing in {}", folder.display());
        return;
    }
    println!("{:<58} {:>12}  {:>25}", "medians, ns for one thing", "ns", "95 % between");
    let mut csv = String::from("bench,elements,median_ns,low_ns,high_ns,median_ns_per_element\n");
    for f in &figures {
        let per = |ns: f64| ns / f.elements;
        println!("{:<58} {:>12.1}  {:>11.1} .. {:>10.1}", f.name, per(f.median), per(f.low), per(f.high));
        let _ = writeln!(
            csv,
            "\"{}\",{},{:.2},{:.2},{:.2},{:.3}",
            f.name,
            f.elements,
            f.median,
            f.low,
            f.high,
            per(f.median)
        );
    }
    if let Some(folder) = options.write {
        fs::create_dir_all(&folder).expect("the folder can be made");
        fs::write(folder.join("criterion.csv"), csv).expect("the folder can be written to");
        println!("written to {}", folder.join("criterion.csv").display());
    }
}

/// Beside the folder of profiles in which this program is.
fn criterion_folder() -> PathBuf {
    if let Some(home) = std::env::var_os("CRITERION_HOME") {
        return home.into();
    }
    let program = std::env::current_exe().expect("the program knows where it is");
    // TARGET/release/deps/summary-HASH
    program.ancestors().nth(3).expect("cargo puts it there").join("criterion")
}

/// Folders that have a `new` with a result, at any depth.
fn collect(folder: &Path, into: &mut Vec<Figure>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.path().is_dir()) {
        if entry.file_name() == "new" {
            into.extend(read(&entry.path()));
        } else {
            collect(&entry.path(), into);
        }
    }
}

fn read(folder: &Path) -> Option<Figure> {
    let json = |file: &str| -> Option<Value> {
        serde_json::from_str(&fs::read_to_string(folder.join(file)).ok()?).ok()
    };
    let (bench, estimates) = (json("benchmark.json")?, json("estimates.json")?);
    let median = &estimates["median"];
    let interval = &median["confidence_interval"];
    Some(Figure {
        name: bench["full_id"].as_str()?.to_owned(),
        median: median["point_estimate"].as_f64()?,
        low: interval["lower_bound"].as_f64()?,
        high: interval["upper_bound"].as_f64()?,
        elements: bench["throughput"]["Elements"].as_f64().unwrap_or(1.0),
    })
}

/// So that 8 comes before 64.
fn natural(name: &str) -> String {
    name.split_inclusive(|c: char| !c.is_ascii_digit())
        .map(|part| {
            let digits = part.trim_end_matches(|c: char| !c.is_ascii_digit());
            let rest = &part[digits.len()..];
            if digits.is_empty() { rest.to_owned() } else { format!("{digits:0>8}{rest}") }
        })
        .collect()
}
