//! What the guests said, as it is kept.

use super::BOOTS;
use crate::ui::{Context, Result, error};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// A figure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Value {
    pub(super) boot: &'static str,
    pub(super) load: String,
    pub(super) scheduler: String,
    pub(super) round: u32,
    /// Measured with the observer, which is a load itself.
    pub(super) watched: bool,
    pub(super) key: String,
    pub(super) value: f64,
}

/// Why a figure is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Problem {
    /// `refused`, `ejected`, `failed` or `skipped`.
    pub(super) kind: String,
    pub(super) boot: &'static str,
    /// Empty: all.
    pub(super) load: String,
    /// 0: all.
    pub(super) round: u32,
    /// Empty: all.
    pub(super) scheduler: String,
    pub(super) text: String,
}

impl Problem {
    /// Something that was not even tried.
    pub(super) fn skipped(load: &str, scheduler: &str, text: &str) -> Self {
        Self {
            kind: "skipped".into(),
            boot: "",
            load: load.into(),
            round: 0,
            scheduler: scheduler.into(),
            text: text.replace('\n', " | "),
        }
    }
}

/// How many wakeups ran within less than so many ns, and not within half of that.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Bucket {
    pub(super) boot: &'static str,
    pub(super) load: String,
    pub(super) scheduler: String,
    pub(super) below: u64,
    pub(super) count: u64,
}

/// What ran on a CPU for a while.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Slice {
    pub(super) boot: &'static str,
    pub(super) load: String,
    pub(super) scheduler: String,
    pub(super) cpu: u32,
    pub(super) start: u64,
    pub(super) length: u64,
    pub(super) is_agent: bool,
    pub(super) who: String,
}

/// Everything.
#[derive(Debug, Default)]
pub(super) struct Record {
    pub(super) values: Vec<Value>,
    pub(super) problems: Vec<Problem>,
    pub(super) latencies: Vec<Bucket>,
    pub(super) strips: Vec<Slice>,
    /// What the kernel calls each scheduler.
    pub(super) loaded: BTreeMap<String, String>,
}

impl Record {
    /// Takes a line of a guest; returns what a person should see of it.
    pub(super) fn take(&mut self, boot: &'static str, line: &str) -> Option<String> {
        match line.strip_prefix("compare,").map(|rest| self.understand(boot, rest)) {
            Some(Some(shown)) => shown,
            // Not ours, or ours and broken: neither is thrown away.
            _ => Some(line.to_owned()),
        }
    }

    /// `None`: this is no such line. `Some(None)`: kept, and nothing to see.
    fn understand(&mut self, boot: &'static str, rest: &str) -> Option<Option<String>> {
        let (kind, rest) = rest.split_once(',')?;
        match kind {
            "cell" => {
                let [n, total, load, round, watched, scheduler] = fields(rest)?;
                let how = if watched == "1" { "observed " } else { "" };
                return Some(Some(format!("[{n}/{total}] {boot}: {load} {scheduler} {how}{round}")));
            }
            "value" => {
                let [load, round, watched, key, value, scheduler] = fields(rest)?;
                self.values.push(Value {
                    boot,
                    load: load.into(),
                    scheduler: scheduler.into(),
                    round: round.parse().ok()?,
                    watched: watched == "1",
                    key: key.into(),
                    value: value.parse().ok().filter(|value: &f64| value.is_finite())?,
                });
            }
            "latency" => {
                let [load, below, count, scheduler] = fields(rest)?;
                let (below, count) = (below.parse().ok()?, count.parse().ok()?);
                let (load, scheduler) = (load.into(), scheduler.into());
                self.latencies.push(Bucket { boot, load, scheduler, below, count });
            }
            "strip" => {
                let [load, cpu, start, length, agent, who, scheduler] = fields(rest)?;
                self.strips.push(Slice {
                    boot,
                    load: load.into(),
                    scheduler: scheduler.into(),
                    cpu: cpu.parse().ok()?,
                    start: start.parse().ok()?,
                    length: length.parse().ok()?,
                    is_agent: agent == "1",
                    who: who.into(),
                });
            }
            "problem" => {
                let [kind, load, round, scheduler, text] = fields(rest)?;
                let shown = format!("    {kind}: {text}");
                self.problems.push(Problem {
                    kind: kind.into(),
                    boot,
                    load: load.into(),
                    round: round.parse().ok()?,
                    scheduler: scheduler.into(),
                    text: text.into(),
                });
                return Some(Some(shown));
            }
            "loaded" => {
                let [ops, scheduler] = fields(rest)?;
                self.loaded.insert(scheduler.into(), ops.into());
            }
            _ => return None,
        }
        Some(None)
    }

    /// Adds to the last measurement what the host did to it.
    pub(super) fn host_waited(&mut self, boot: &'static str, percent: f64) {
        const KEY: &str = "host_waited_percent";
        // One that failed has left nothing to add to.
        let last = self.values.last().filter(|last| last.boot == boot && last.key != KEY).cloned();
        self.values.extend(last.map(|last| Value { key: KEY.into(), value: percent, ..last }));
    }

    /// Of all boots and loads those of which there is anything to say, in the same order.
    pub(super) fn order(&self, all: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
        let has = |(boot, load): &(&str, &str)| {
            self.values.iter().any(|v| v.boot == *boot && v.load == *load)
                || self.problems.iter().any(|p| p.load == *load && (p.boot == *boot || p.boot.is_empty()))
        };
        all.iter().copied().filter(has).collect()
    }

    /// Forgets loads of boots.
    pub(super) fn without(&mut self, is_gone: impl Fn(&str, &str) -> bool) {
        self.values.retain(|v| !is_gone(v.boot, &v.load));
        self.problems.retain(|p| !is_gone(p.boot, &p.load));
        self.latencies.retain(|b| !is_gone(b.boot, &b.load));
        self.strips.retain(|s| !is_gone(s.boot, &s.load));
    }

    /// Puts another one behind this one.
    pub(super) fn add(&mut self, other: Self) {
        self.values.extend(other.values);
        self.problems.extend(other.problems);
        self.latencies.extend(other.latencies);
        self.strips.extend(other.strips);
        self.loaded.extend(other.loaded);
    }

    /// What [`Record::csv`] has written into a folder.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let mut all = Self::default();
        for (name, watched) in [(FILES[0], "0"), (FILES[1], "1")] {
            each_line(folder, name, |line, boot| {
                let [_, load, scheduler, round, key, value] = fields(line)?;
                all.understand(boot, &format!("value,{load},{round},{watched},{key},{value},{scheduler}"))
            })?;
        }
        each_line(folder, FILES[2], |line, boot| {
            let [_, load, scheduler, below, count] = fields(line)?;
            all.understand(boot, &format!("latency,{load},{below},{count},{scheduler}"))
        })?;
        each_line(folder, FILES[3], |line, boot| {
            let [_, load, scheduler, cpu, start, length, agent, who] = fields(line)?;
            all.understand(boot, &format!("strip,{load},{cpu},{start},{length},{agent},{who},{scheduler}"))
        })?;
        each_line(folder, FILES[4], |line, boot| {
            let [kind, _, load, scheduler, round, text] = fields(line)?;
            let text = text.trim_matches('"');
            let known = all.understand(boot, &format!("problem,{kind},{load},{round},{scheduler},{text}"));
            known.map(|_| None)
        })?;
        Ok(all)
    }

    /// Names and contents of the files of raw figures.
    pub(super) fn csv(&self) -> [(&'static str, String); 5] {
        let values = |watched: bool| {
            let mut text = String::from("boot,load,scheduler,round,key,value\n");
            for v in self.values.iter().filter(|v| v.watched == watched) {
                let _ =
                    writeln!(text, "{},{},{},{},{},{}", v.boot, v.load, v.scheduler, v.round, v.key, v.value);
            }
            text
        };
        let mut latencies = String::from("boot,load,scheduler,below_ns,wakeups\n");
        for b in &self.latencies {
            let _ = writeln!(latencies, "{},{},{},{},{}", b.boot, b.load, b.scheduler, b.below, b.count);
        }
        let mut strips = String::from("boot,load,scheduler,cpu,start_ns,length_ns,agent,who\n");
        for s in &self.strips {
            let agent = u8::from(s.is_agent);
            let _ = writeln!(
                strips,
                "{},{},{},{},{},{},{agent},{}",
                s.boot, s.load, s.scheduler, s.cpu, s.start, s.length, s.who
            );
        }
        let mut problems = String::from("kind,boot,load,scheduler,round,text\n");
        for p in &self.problems {
            let text = p.text.replace('"', "'");
            let _ =
                writeln!(problems, "{},{},{},{},{},\"{text}\"", p.kind, p.boot, p.load, p.scheduler, p.round);
        }
        [
            (FILES[0], values(false)),
            (FILES[1], values(true)),
            (FILES[2], latencies),
            (FILES[3], strips),
            (FILES[4], problems),
        ]
    }

    /// The figures of one kind, by round.
    pub(super) fn series(&self, of: &Of<'_>) -> Vec<(u32, f64)> {
        let is_it = |v: &&Value| {
            (v.boot, v.load.as_str(), v.scheduler.as_str(), v.key.as_str(), v.watched)
                == (of.boot, of.load, of.scheduler, of.key, of.watched)
        };
        self.values.iter().filter(is_it).map(|v| (v.round, v.value)).collect()
    }
}

/// Which figures.
#[derive(Debug, Clone, Copy)]
pub(super) struct Of<'a> {
    pub(super) boot: &'a str,
    pub(super) load: &'a str,
    pub(super) scheduler: &'a str,
    pub(super) key: &'a str,
    pub(super) watched: bool,
}

const FILES: [&str; 5] = ["raw.csv", "observed.csv", "latency.csv", "strip.csv", "problems.csv"];

/// Gives each line of a file, without the head, to `take`, with the boot that it names.
fn each_line(
    folder: &Path,
    name: &str,
    mut take: impl FnMut(&str, &'static str) -> Option<Option<String>>,
) -> Result<()> {
    let file = folder.join(name);
    let text = fs::read_to_string(&file).cannot(format_args!("read {}", file.display()))?;
    for (number, line) in (2..).zip(text.lines().skip(1)) {
        let boot = line.split(',').take(2).find_map(|field| BOOTS.iter().find(|boot| boot.name == field));
        // Of what was skipped there was no boot.
        let boot = boot.map_or("", |boot| boot.name);
        take(line, boot).ok_or_else(|| {
            error(format!("{}:{number}: not a line that `lab compare` has written: {line}", file.display()))
        })?;
    }
    Ok(())
}

/// So many fields, of which the last may hold commas.
fn fields<const N: usize>(line: &str) -> Option<[&str; N]> {
    let fields: Vec<&str> = line.splitn(N, ',').collect();
    fields.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_and_progress_is_shown() {
        let mut record = Record::default();
        let shown = record.take("path", "compare,cell,3,36,pipe,2,1,core alone").unwrap();
        assert_eq!(shown, "[3/36] path: pipe core alone observed 2");
        assert_eq!(record.take("path", "compare,value,pipe,2,0,round_trip_us,31.5,core alone"), None);
        assert_eq!(record.take("path", "compare,latency,pipe,1024,7,core alone"), None);
        assert_eq!(record.take("path", "compare,strip,pipe,0,5,6,1,a.b,core alone"), None);
        assert_eq!(record.take("path", "compare,loaded,gthulhu,core alone"), None);
        let of =
            Of { boot: "path", load: "pipe", scheduler: "core alone", key: "round_trip_us", watched: false };
        assert_eq!(record.series(&of), [(2, 31.5)]);
        assert!(record.series(&Of { watched: true, ..of }).is_empty());
        assert_eq!(record.latencies[0].below, 1024);
        assert!(record.strips[0].is_agent);
        assert_eq!(
            record.csv()[0].1,
            "boot,load,scheduler,round,key,value\npath,pipe,core alone,2,round_trip_us,31.5\n"
        );
    }

    #[test]
    fn what_is_not_understood_is_shown_and_never_counted() {
        let mut record = Record::default();
        for line in [
            "# the kernel's dump",
            "compare,value,pipe,1,0,x,NaN,EEVDF",
            "compare,value,pipe",
            "compare,new,1",
        ] {
            assert_eq!(record.take("path", line).as_deref(), Some(line));
        }
        assert!(record.values.is_empty());
    }

    #[test]
    fn what_was_kept_can_be_read_again() {
        let folder = std::env::temp_dir().join(format!("xtask-compare-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let mut before = super::super::summary::example();
        before.problems.push(Problem::skipped("ping", "", "no veth"));
        for (name, text) in before.csv() {
            fs::write(folder.join(name), text).unwrap();
        }
        let mut after = Record::read(&folder).unwrap();
        assert_eq!(after.csv(), before.csv());
        assert_eq!((&after.values, &after.problems), (&before.values, &before.problems));
        let all = [("path", "pipe"), ("path", "request"), ("parallel", "ping")];
        assert_eq!(after.order(&all), [("path", "pipe"), ("parallel", "ping")]);
        after.without(|boot, load| (boot, load) == ("path", "pipe"));
        assert!(after.values.is_empty() && after.problems.len() == 1);
        fs::write(folder.join("raw.csv"), "head\nnonsense\n").unwrap();
        assert!(Record::read(&folder).unwrap_err().message.contains("raw.csv:2"));
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_problem_keeps_its_commas() {
        let mut record = Record::default();
        let shown = record.take("path", "compare,problem,ejected,pipe,1,scx_x,failed, \"for\" 5 s").unwrap();
        assert!(shown.contains("ejected: failed, \"for\" 5 s"));
        assert!(record.csv()[4].1.ends_with("ejected,path,pipe,scx_x,1,\"failed, 'for' 5 s\"\n"));
    }
}
