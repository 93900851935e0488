//! Clocks and medians.

/// Both clocks, at the beginning of what is measured.
#[derive(Clone, Copy, Debug)]
pub struct Clocks {
    cpu: u64,
    wall: u64,
}

/// Nanoseconds that something took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Of this thread's CPU time (`CLOCK_THREAD_CPUTIME_ID`).
    pub cpu: u64,
    /// Of everybody's.
    pub wall: u64,
}

impl Clocks {
    /// Now. Reading the thread's clock is a system call: so few of them, around much.
    pub fn start() -> Self {
        let wall = read(libc::CLOCK_MONOTONIC);
        Self { wall, cpu: read(libc::CLOCK_THREAD_CPUTIME_ID) }
    }

    /// Since then.
    pub fn spent(self) -> Spent {
        let cpu = read(libc::CLOCK_THREAD_CPUTIME_ID) - self.cpu;
        Spent { cpu, wall: read(libc::CLOCK_MONOTONIC) - self.wall }
    }
}

impl std::ops::AddAssign for Spent {
    fn add_assign(&mut self, other: Self) {
        self.cpu += other.cpu;
        self.wall += other.wall;
    }
}

fn read(clock: libc::clockid_t) -> u64 {
    let mut now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: a valid place for the time; both clocks exist on every Linux.
    unsafe { libc::clock_gettime(clock, &raw mut now) };
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

/// The middle one; of an even number, the mean of both in the middle. 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => f64::midpoint(sorted[n / 2 - 1], sorted[n / 2]),
    }
}

/// The value that `part` (0 to 1) of them do not exceed. 0 of none.
pub fn quantile(values: &[u64], part: f64) -> u64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len() as f64 * part).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_quantile_is_one_of_the_values() {
        let values: Vec<u64> = (1..=100).rev().collect();
        assert_eq!([0.5, 0.99, 1.0].map(|part| quantile(&values, part)), [50, 99, 100]);
        assert_eq!(quantile(&[], 0.5), 0);
    }
}
