//! A file of strategies for this node: `gthulhu-daemon strategy apply -f FILE`.

use std::path::Path;
use std::sync::Arc;

use gthulhu_model::{Budget, Class, Comm, Level, Priority, Slice, Ttl};
use serde::{Deserialize, Serialize};

use crate::kind::quoted;
use crate::tree::{self, Name, Node, What};
use crate::{Place, Problem, Problems, file, suggest};

/// A strategy as somebody wrote it down: for whom, what, and for how long.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct LocalStrategy {
    /// What it is called; how it was given where it has no name.
    pub name: String,
    /// Where it was written, as `FILE:LINE`.
    pub place: String,
    /// Processes, or single threads of some.
    pub pids: Vec<i32>,
    /// Names of threads.
    pub comms: Vec<Comm>,
    /// cgroups (v2), by their paths below the mount.
    pub cgroups: Vec<String>,
    /// What they get.
    pub priority: Priority,
    /// For how long; `None`: until it is replaced or cleared.
    pub ttl: Option<Ttl>,
}

const FIELDS: [&str; 11] =
    ["name", "pid", "pids", "comm", "comms", "cgroup", "cgroups", "class", "slice_us", "budget", "ttl_sec"];
const BUDGET: [&str; 2] = ["millicpu", "burst_ms"];
/// As `Class` prints them.
const CLASSES: &str = "best-effort, normal, latency 0 (the strongest) to latency 20, isolated";

/// Reads a file of strategies.
///
/// # Errors
/// All that is wrong with it, each with file, line, column and field.
pub fn read_strategies(path: &Path) -> Result<Vec<LocalStrategy>, Problems> {
    let name: Arc<str> = path.to_string_lossy().into();
    let missing =
        || Problem { place: None, field: name.to_string(), message: "there is no such file".into() };
    let text = file::read(path)?.ok_or_else(missing)?;
    parse(&text.bytes, &name)
}

fn parse(bytes: &[u8], name: &Arc<str>) -> Result<Vec<LocalStrategy>, Problems> {
    let text = std::str::from_utf8(bytes).map_err(|e| {
        let place = Some(tree::place_of(bytes, e.valid_up_to(), name));
        Problem { place, field: String::new(), message: "is no text in UTF-8".into() }
    })?;
    let mut reader = Reader { problems: Vec::new() };
    let list = tree::parse(text, name)?.map(|root| reader.root(root)).unwrap_or_default();
    Problems::check(reader.problems)?;
    Ok(list)
}

struct Reader {
    problems: Vec<Problem>,
}

/// What of a strategy has been read.
#[derive(Default)]
struct Draft {
    name: Option<String>,
    pids: Vec<i32>,
    comms: Vec<Comm>,
    cgroups: Vec<String>,
    priority: Priority,
    ttl: Option<Ttl>,
}

impl Reader {
    fn wrong(&mut self, place: &Place, field: &str, message: impl Into<String>) {
        self.problems.push(Problem {
            place: Some(place.clone()),
            field: field.into(),
            message: message.into(),
        });
    }

    fn root(&mut self, root: Node) -> Vec<LocalStrategy> {
        let help = "a file of strategies is a list below strategies:";
        let What::Map(entries) = &root.what else {
            self.wrong(&root.place, "", help);
            return Vec::new();
        };
        let mut all = Vec::new();
        for (name, node) in entries {
            match (name.text.as_str(), &node.what) {
                ("strategies", What::List(items)) => {
                    all = items.iter().enumerate().filter_map(|(i, item)| self.strategy(i, item)).collect();
                }
                ("strategies", What::Null) => {}
                ("strategies", _) => self.wrong(&node.place, "strategies", "is no list"),
                (other, _) => self.wrong(&name.place, &shown(other), help),
            }
        }
        all
    }

    fn strategy(&mut self, index: usize, node: &Node) -> Option<LocalStrategy> {
        let before = self.problems.len();
        let path = format!("strategies[{index}]");
        let What::Map(entries) = &node.what else {
            self.wrong(&node.place, &path, format!("is no strategy; known in one: {}", FIELDS.join(", ")));
            return None;
        };
        let mut draft = Draft::default();
        for (name, value) in entries {
            if let Err((place, message)) = draft.field(name, value, &path, self) {
                self.wrong(&place, &format!("{path}.{}", shown(&name.text)), message);
            }
        }
        let Draft { name, pids, comms, cgroups, priority, ttl } = draft;
        if self.problems.len() == before && pids.is_empty() && comms.is_empty() && cgroups.is_empty() {
            self.wrong(&node.place, &path, "is for nobody: give pid, comm or cgroup");
        }
        if self.problems.len() > before {
            return None;
        }
        let name = name.unwrap_or_else(|| path.clone());
        let place = format!("{}:{}", node.place.file, node.place.line);
        Some(LocalStrategy { name, place, pids, comms, cgroups, priority, ttl })
    }
}

type Wrong = (Place, String);

impl Draft {
    fn field(&mut self, name: &Name, node: &Node, path: &str, reader: &mut Reader) -> Result<(), Wrong> {
        let at = |message: String| (node.place.clone(), message);
        match name.text.as_str() {
            "name" => self.name = Some(text(node)?.to_owned()),
            "pid" | "pids" => {
                for item in items(node) {
                    let pid = number(item, "a pid", 1, 4_194_304)?;
                    self.pids.push(i32::try_from(pid).unwrap_or(i32::MAX));
                }
            }
            "comm" | "comms" => {
                for item in items(node) {
                    let comm = Comm::new(text(item)?).map_err(|e| (item.place.clone(), e.to_string()))?;
                    self.comms.push(comm);
                }
            }
            "cgroup" | "cgroups" => {
                for item in items(node) {
                    let path = text(item)?;
                    if !path.starts_with('/') || path.split('/').any(|part| part == "..") {
                        let why = format!(
                            "{} is no path of a cgroup, such as /system.slice/cron.service",
                            quoted(path)
                        );
                        return Err((item.place.clone(), why));
                    }
                    self.cgroups.push(path.to_owned());
                }
            }
            "class" => self.priority.class = class(text(node)?).map_err(at)?,
            "slice_us" => {
                let us = number(node, "a slice in microseconds", 10, 1_000_000)?;
                self.priority.slice = Some(Slice::from_nanos(us * 1000).map_err(|e| at(e.to_string()))?);
            }
            "ttl_sec" => {
                let secs = number(node, "a TTL in seconds", 1, Ttl::MAX.as_secs().into())?;
                let secs = u32::try_from(secs).unwrap_or(u32::MAX);
                self.ttl = Some(Ttl::from_secs(secs).map_err(|e| at(e.to_string()))?);
            }
            "budget" => self.budget(node, path, reader)?,
            other => {
                let hint = suggest::hint(other, FIELDS);
                let message = format!("is no field of a strategy{hint}; known: {}", FIELDS.join(", "));
                return Err((name.place.clone(), message));
            }
        }
        Ok(())
    }

    fn budget(&mut self, node: &Node, path: &str, reader: &mut Reader) -> Result<(), Wrong> {
        let What::Map(entries) = &node.what else {
            return Err((node.place.clone(), "is a section of millicpu and burst_ms".into()));
        };
        let mut budget = Budget::DEFAULT;
        for (name, value) in entries {
            let said = match name.text.as_str() {
                "millicpu" => {
                    number(value, "a share in thousandths of a CPU", 1, Budget::MAX_MILLICPU.into()).and_then(
                        |n| {
                            let share = Budget::millicpu(n as u16)
                                .map_err(|e| (value.place.clone(), e.to_string()))?;
                            share
                                .with_burst_ms(budget.burst_ms())
                                .map_err(|e| (value.place.clone(), e.to_string()))
                        },
                    )
                }
                "burst_ms" => number(value, "a burst in milliseconds", 1, Budget::MAX_BURST_MS.into())
                    .and_then(|n| {
                        budget.with_burst_ms(n as u16).map_err(|e| (value.place.clone(), e.to_string()))
                    }),
                other => {
                    let hint = suggest::hint(other, BUDGET);
                    Err((
                        name.place.clone(),
                        format!("is no field of a budget{hint}; known: {}", BUDGET.join(", ")),
                    ))
                }
            };
            match said {
                Ok(said) => budget = said,
                Err((place, message)) => {
                    reader.wrong(&place, &format!("{path}.budget.{}", shown(&name.text)), message);
                }
            }
        }
        self.priority.budget = Some(budget);
        Ok(())
    }
}

fn class(text: &str) -> Result<Class, String> {
    let wrong = || format!("{} is no class; there are: {CLASSES}", quoted(text));
    match text {
        "best-effort" => Ok(Class::BestEffort),
        "normal" => Ok(Class::Normal),
        "isolated" => Ok(Class::Isolated),
        "latency" => Ok(Class::Latency(Level::FIRST_DISCOUNTING)),
        _ => {
            let level = text.strip_prefix("latency ").ok_or_else(wrong)?.trim();
            let level: u8 = level.parse().map_err(|_| wrong())?;
            Level::new(level).map(Class::Latency).map_err(|e| e.to_string())
        }
    }
}

/// One, or a list of them.
fn items(node: &Node) -> &[Node] {
    match &node.what {
        What::List(items) => items,
        _ => std::slice::from_ref(node),
    }
}

fn text(node: &Node) -> Result<&str, Wrong> {
    match &node.what {
        What::Plain(text) | What::Quoted(text) if !text.is_empty() => Ok(text),
        _ => Err((node.place.clone(), "is no text".into())),
    }
}

fn number(node: &Node, what: &str, min: u64, max: u64) -> Result<u64, Wrong> {
    let wrong =
        |shown: &str| Err((node.place.clone(), format!("{shown} is not {what}: give {min} to {max}")));
    match &node.what {
        What::Plain(text) => match text.parse() {
            Ok(n) if (min..=max).contains(&n) => Ok(n),
            _ => wrong(&quoted(text)),
        },
        _ => wrong("what is given"),
    }
}

fn shown(name: &str) -> String {
    let quoted = quoted(name);
    quoted[1..quoted.len() - 1].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Result<Vec<LocalStrategy>, String> {
        parse(text.as_bytes(), &"s.yaml".into()).map_err(|e| e.to_string())
    }

    #[test]
    fn a_strategy_has_targets_a_class_and_what_else_it_wants() {
        let text = "strategies:\n- name: web\n  pids: [12, 13]\n  comm: nginx\n  cgroup: /system.slice/nginx.service\n  class: latency 3\n  \
                    slice_us: 2000\n  budget: {millicpu: 500, burst_ms: 40}\n  ttl_sec: 60\n- pid: 9\n  class: best-effort\n";
        let all = said(text).unwrap();
        let web = &all[0];
        assert_eq!(
            (&*web.name, &*web.place, &web.pids[..], web.comms.len()),
            ("web", "s.yaml:2", &[12, 13][..], 1)
        );
        assert_eq!(web.priority.class, Class::Latency(Level::new(3).unwrap()));
        assert_eq!(web.priority.slice.map(Slice::as_nanos), Some(2_000_000));
        assert_eq!(web.priority.budget.map(|b| (b.share(), b.burst_ms())), Some((500, 40)));
        assert_eq!((web.ttl.map(Ttl::as_secs), all[1].ttl), (Some(60), None));
        assert_eq!((&*all[1].name, all[1].priority.class), ("strategies[1]", Class::BestEffort));
        assert_eq!((said(""), said("strategies:\n")), (Ok(vec![]), Ok(vec![])));
    }

    #[test]
    fn what_is_wrong_is_said_with_line_and_field() {
        for (text, wanted) in [
            ("- pid: 1", "s.yaml:1:1: a file of strategies is a list below strategies:"),
            ("strategy: 1", "s.yaml:1:1: strategy: a file of strategies is a list"),
            ("strategies:\n- pid: 0", "s.yaml:2:8: strategies[0].pid: '0' is not a pid: give 1 to 4194304"),
            ("strategies:\n- pids: [1, x]", "s.yaml:2:13: strategies[0].pids: 'x' is not a pid"),
            ("strategies:\n- class: normal", "s.yaml:2:3: strategies[0]: is for nobody"),
            (
                "strategies:\n- pid: 1\n  clas: normal",
                "s.yaml:3:3: strategies[0].clas: is no field of a strategy; did you mean class?",
            ),
            (
                "strategies:\n- pid: 1\n  class: urgent",
                "s.yaml:3:10: strategies[0].class: 'urgent' is no class; there are: best-effort",
            ),
            ("strategies:\n- pid: 1\n  class: latency 21", "of 21 is out of range: give 0 to 20"),
            (
                "strategies:\n- pid: 1\n  slice_us: 1",
                "strategies[0].slice_us: '1' is not a slice in microseconds: give 10 to 1000000",
            ),
            ("strategies:\n- pid: 1\n  ttl_sec: 0", "strategies[0].ttl_sec"),
            ("strategies:\n- comm: sixteen-bytes-xx", "strategies[0].comm: thread name is too long"),
            ("strategies:\n- cgroup: a/b", "strategies[0].cgroup: 'a/b' is no path of a cgroup"),
            ("strategies:\n- cgroup: /a/../b", "is no path of a cgroup"),
            (
                "strategies:\n- pid: 1\n  budget: {millicpu: 0}",
                "s.yaml:3:22: strategies[0].budget.millicpu: '0' is not a share",
            ),
            ("strategies:\n- pid: 1\n  budget: 5", "strategies[0].budget: is a section"),
        ] {
            let error = said(text).expect_err(text);
            assert!(error.contains(wanted), "{text}: {error}");
        }
        let two = said("strategies:\n- pid: -1\n- pid: 1\n  ttl_sec: x").expect_err("wrong");
        assert_eq!(two.lines().count(), 2, "{two}");
    }
}
