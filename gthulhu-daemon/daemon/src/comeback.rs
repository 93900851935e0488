//! When what ended without being asked to is started again: later after each short life, and at last not at all.

use std::time::{Duration, Instant};

/// Who scheduled for this long was a good one: what came before is forgiven.
const GOOD_LIFE: Duration = Duration::from_secs(60);
const FIRST: Duration = Duration::from_millis(500);
/// This many short lives in a row are enough: the kernel's own scheduler stays in charge.
pub(crate) const SHORT_LIVES: u32 = 5;

/// Plans the next start of a scheduler that the kernel has ejected, or of a program that has ended.
#[derive(Debug, Default)]
pub(crate) struct Comeback {
    short_lives: u32,
    due: Option<Instant>,
}

impl Comeback {
    /// Plans the next start after a life of this length, and says how long that is away. `None`: this is a crash loop.
    pub(crate) fn plan(&mut self, life: Duration) -> Option<Duration> {
        self.short_lives = if life >= GOOD_LIFE { 1 } else { self.short_lives + 1 };
        if self.short_lives >= SHORT_LIVES {
            self.due = None;
            return None;
        }
        let wait = FIRST * (1 << (self.short_lives - 1));
        self.due = Some(Instant::now() + wait);
        Some(wait)
    }

    /// When the next start is due, if one is planned.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// Whether it is time now; once.
    pub(crate) fn take(&mut self) -> bool {
        let now = self.due.is_some_and(|due| due <= Instant::now());
        if now {
            self.due = None;
        }
        now
    }

    /// Somebody has decided anew what is to be run.
    pub(crate) fn forget(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_short_life_waits_twice_as_long_and_five_in_a_row_are_enough() {
        let mut comeback = Comeback::default();
        let waits: Vec<_> =
            std::iter::from_fn(|| comeback.plan(Duration::from_secs(1))).map(|w| w.as_millis()).collect();
        assert_eq!(waits, [500, 1000, 2000, 4000]);
        assert!(comeback.due().is_none() && !comeback.take());
        comeback.forget();
        assert_eq!(comeback.plan(Duration::ZERO), Some(FIRST));
        assert!(comeback.due().is_some() && !comeback.take(), "not yet");
    }

    #[test]
    fn a_good_life_forgives() {
        let mut comeback = Comeback::default();
        for _ in 0..100 {
            assert!(comeback.plan(Duration::from_secs(1)).is_some());
            assert_eq!(comeback.plan(GOOD_LIFE), Some(FIRST));
        }
    }
}
