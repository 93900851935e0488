//! What each row did in the last intervals.

use std::collections::{HashMap, VecDeque};

use crate::args::{By, Sort};
use crate::rows::{Load, Row};
use crate::sample::Sample;

/// Intervals that are kept: as many as a wide terminal shows.
pub(crate) const KEPT: usize = 64;

/// By row, and by CPU.
#[derive(Debug, Clone, Default)]
pub(crate) struct History {
    rows: HashMap<(By, String), Past>,
    cpus: HashMap<u32, VecDeque<f32>>,
    taken: u64,
}

#[derive(Debug, Clone, Default)]
struct Past {
    /// The last is the newest: a value for each [`Sort`].
    values: VecDeque<[f32; Sort::ALL.len()]>,
    last: u64,
}

impl Past {
    fn push(&mut self, load: &Load) {
        if self.values.len() == KEPT {
            self.values.pop_front();
        }
        self.values.push_back(Sort::ALL.map(|sort| load.by(sort) as f32));
    }
}

impl History {
    pub(crate) fn take(&mut self, sample: &Sample, by_rows: &[(By, Vec<Row>)]) {
        self.taken += 1;
        for (by, rows) in by_rows {
            for row in rows {
                let past = self.rows.entry((*by, row.key.clone())).or_default();
                past.push(&row.load);
                past.last = self.taken;
            }
        }
        let looked_at = |by: By| by_rows.iter().any(|(looked_at, _)| *looked_at == by);
        for ((by, _), past) in &mut self.rows {
            // One that is not there did nothing; nobody knows it of one that was not looked at.
            if past.last != self.taken && looked_at(*by) {
                past.push(&Load::default());
            }
        }
        let taken = self.taken;
        self.rows.retain(|_, past| taken - past.last < KEPT as u64);
        for cpu in &sample.cpus {
            let past = self.cpus.entry(cpu.cpu).or_default();
            if past.len() == KEPT {
                past.pop_front();
            }
            past.push_back(cpu.busy() as f32);
        }
    }

    /// The newest is the last.
    pub(crate) fn row(&self, by: By, key: &str, sort: Sort) -> Vec<f64> {
        let past = self.rows.get(&(by, key.to_owned()));
        past.into_iter()
            .flat_map(|past| &past.values)
            .map(|values| f64::from(values[sort as usize]))
            .collect()
    }

    /// The newest is the last: shares of an interval.
    pub(crate) fn cpu(&self, cpu: u32) -> Vec<f64> {
        self.cpus.get(&cpu).into_iter().flatten().map(|busy| f64::from(*busy)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::rows::rows;

    #[test]
    fn a_row_that_is_away_did_nothing_and_is_forgotten_after_a_while() {
        let sample = fixture::sample();
        let all = rows(&sample, By::Groups);
        let key = all[0].key.clone();
        let mut history = History::default();
        history.take(&sample, &[(By::Groups, all.clone())]);
        history.take(&sample, &[(By::Groups, all[1..].to_vec())]);
        let cpu = history.row(By::Groups, &key, Sort::Cpu);
        assert_eq!(cpu.len(), 2);
        assert!(cpu[0] > 0.0 && cpu[1] == 0.0, "{cpu:?}");
        for _ in 0..KEPT + 3 {
            history.take(&sample, &[(By::Groups, all[1..].to_vec())]);
        }
        assert!(history.row(By::Groups, &key, Sort::Cpu).is_empty());
        assert_eq!(history.row(By::Groups, &all[1].key, Sort::Cpu).len(), KEPT);
        assert_eq!(history.cpu(sample.cpus[0].cpu).len(), KEPT);
    }
}
