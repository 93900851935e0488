//! Rows: what was seen, put together as it was asked for.

use std::collections::HashMap;

use gthulhu_monitor::{Counts, Histogram};

use crate::args::{By, Sort};
use crate::place::{Kind, Label};
use crate::sample::{Group, Sample};

/// One line of the table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// Who it is, from one sample to the next.
    pub(crate) key: String,
    pub(crate) kind: Kind,
    pub(crate) name: String,
    /// The cgroups in it; of a thread its own.
    pub(crate) cgroups: Vec<String>,
    /// Their numbers.
    pub(crate) ids: Vec<u64>,
    pub(crate) load: Load,
    /// With the histograms; not of threads, which the kernel's side does not keep apart.
    pub(crate) counts: Option<Counts>,
    pub(crate) thread: Option<ThreadFacts>,
}

/// What only threads have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ThreadFacts {
    pub(crate) tid: i32,
    pub(crate) pid: i32,
    pub(crate) cpu: u32,
    pub(crate) running: bool,
}

/// What is compared and drawn of a row, in one interval.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Load {
    /// CPUs that were used: 1.0 is one of them, all the time.
    pub(crate) cpu: f64,
    /// Threads that were runnable and did not run, on average, throttling apart.
    pub(crate) waiting: f64,
    /// The 99th percentile of run delay: the end of a bucket, so at most this. Of a thread the mean.
    pub(crate) delay_ns: Option<f64>,
    /// Per second.
    pub(crate) voluntary: f64,
    /// Per second.
    pub(crate) involuntary: f64,
    /// Per second.
    pub(crate) migrations: f64,
    /// Threads that cpu.max kept from running, on average.
    pub(crate) throttled: f64,
}

impl Load {
    fn of(counts: &Counts, seconds: f64) -> Self {
        Self {
            cpu: counts.run_ns as f64 / 1e9 / seconds,
            waiting: counts.run_delay_ns() as f64 / 1e9 / seconds,
            delay_ns: counts.run_delays().quantile_ns(0.99).map(|ns| ns as f64),
            voluntary: counts.voluntary() as f64 / seconds,
            involuntary: counts.involuntary() as f64 / seconds,
            migrations: counts.migrations.total() as f64 / seconds,
            throttled: counts.throttled_ns as f64 / 1e9 / seconds,
        }
    }

    pub(crate) fn switches(&self) -> f64 {
        self.voluntary + self.involuntary
    }

    /// What rows are sorted by and the sparkline shows.
    pub(crate) fn by(&self, sort: Sort) -> f64 {
        match sort {
            Sort::Delay => self.delay_ns.unwrap_or(0.0),
            Sort::Cpu => self.cpu,
            Sort::Wait => self.waiting,
            Sort::Switches => self.switches(),
            Sort::Migrations => self.migrations,
        }
    }
}

/// All rows of a sample, in no order.
pub(crate) fn rows(sample: &Sample, by: By) -> Vec<Row> {
    let label: fn(&Group) -> &Label = match by {
        By::Groups => |group| &group.place.group,
        By::Slices => |group| &group.place.slice,
        By::Cgroups => |group| &group.place.cgroup,
        By::Threads => return threads(sample),
    };
    let mut at: HashMap<&str, usize> = HashMap::new();
    let mut rows: Vec<(&Label, Vec<&Group>)> = Vec::new();
    for group in &sample.groups {
        let label = label(group);
        let at = *at.entry(&label.key).or_insert_with(|| {
            rows.push((label, Vec::new()));
            rows.len() - 1
        });
        rows[at].1.push(group);
    }
    rows.into_iter().map(|(label, groups)| row(label, &groups, sample.elapsed.as_secs_f64())).collect()
}

fn row(label: &Label, groups: &[&Group], seconds: f64) -> Row {
    let mut counts = Counts::default();
    groups.iter().for_each(|group| counts.add(&group.counts));
    Row {
        key: label.key.clone(),
        kind: label.kind,
        name: label.name.clone(),
        cgroups: groups.iter().filter_map(|group| group.path.clone()).collect(),
        ids: groups.iter().map(|group| group.id).collect(),
        load: Load::of(&counts, seconds),
        counts: Some(counts),
        thread: None,
    }
}

fn threads(sample: &Sample) -> Vec<Row> {
    let Some(threads) = &sample.threads else { return Vec::new() };
    let seconds = threads.elapsed.as_secs_f64();
    let path: HashMap<u64, &str> =
        sample.groups.iter().filter_map(|group| Some((group.id, group.path.as_deref()?))).collect();
    let row = |thread: &crate::sample::Thread| {
        let switches = thread.voluntary + thread.involuntary;
        Row {
            key: format!("thread {} {}", thread.tid, thread.start_ns),
            kind: Kind::Thread,
            name: format!("{} {}", thread.tid, thread.comm),
            cgroups: path.get(&thread.group).map(|path| (*path).to_owned()).into_iter().collect(),
            ids: vec![thread.group],
            load: Load {
                cpu: thread.run_ns as f64 / 1e9 / seconds,
                waiting: thread.run_delay_ns as f64 / 1e9 / seconds,
                delay_ns: (switches > 0).then(|| thread.run_delay_ns as f64 / switches as f64),
                voluntary: thread.voluntary as f64 / seconds,
                involuntary: thread.involuntary as f64 / seconds,
                migrations: thread.migrations as f64 / seconds,
                throttled: thread.throttled_ns as f64 / 1e9 / seconds,
            },
            counts: None,
            thread: Some(ThreadFacts {
                tid: thread.tid,
                pid: thread.pid,
                cpu: thread.cpu,
                running: thread.running,
            }),
        }
    };
    threads.threads.iter().map(row).collect()
}

/// Those that have this text in their name or a cgroup of theirs, without regard to case; most first, and those that
/// have the same by name.
pub(crate) fn select(rows: &mut Vec<Row>, filter: &str, sort: Sort, reverse: bool) {
    if !filter.is_empty() {
        let wanted = filter.to_lowercase();
        let has = |text: &String| text.to_lowercase().contains(&wanted);
        rows.retain(|row| has(&row.name) || row.cgroups.iter().any(has));
    }
    rows.sort_by(|a, b| {
        let most = b.load.by(sort).total_cmp(&a.load.by(sort));
        let order = most.then_with(|| b.load.cpu.total_cmp(&a.load.cpu));
        if reverse { order.reverse() } else { order }.then_with(|| a.name.cmp(&b.name))
    });
}

/// Who ran while this row waited: names and ns, most first.
pub(crate) fn blamed(sample: &Sample, row: &Row, by: By) -> Vec<(String, u64)> {
    let name_of: HashMap<u64, &Label> = sample
        .groups
        .iter()
        .map(|group| {
            let place = &group.place;
            (
                group.id,
                match by {
                    By::Slices => &place.slice,
                    By::Cgroups => &place.cgroup,
                    By::Groups | By::Threads => &place.group,
                },
            )
        })
        .collect();
    let mut ran: HashMap<String, u64> = HashMap::new();
    for blame in sample.blames.iter().filter(|blame| row.ids.contains(&blame.waited)) {
        let name = match name_of.get(&blame.ran) {
            Some(label) if label.key == row.key => "itself".to_owned(),
            Some(label) => label.name.clone(),
            None => format!("(gone: {})", blame.ran),
        };
        *ran.entry(name).or_default() += blame.ns;
    }
    let mut ran: Vec<(String, u64)> = ran.into_iter().collect();
    ran.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    ran
}

/// The three histograms of a detail, by name.
pub(crate) fn histograms(counts: &Counts) -> [(&'static str, Histogram); 3] {
    [("run delay", counts.run_delays()), ("on CPU", counts.bursts()), ("wake to run", counts.wake_to_run())]
}
