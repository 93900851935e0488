//! The policies that can be run, by name.

use std::cell::RefCell;
use std::fmt;
use std::io::{self, Write};
use std::rc::Rc;
use std::str::FromStr;

use gthulhu_plugin_gthulhu::Gthulhu;
use gthulhu_plugin_simple::{Mode, Simple};
use gthulhu_plugin_simple_fifo::SimpleFifo;
use qumun::sim::{Replay, Scenario};
use qumun::{Nanos, Scheduler};

/// A policy and its options: `gthulhu`, `simple:fifo=true`, `simple-fifo:slice-us=3000`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    name: &'static str,
    slice: Nanos,
    slice_min: Nanos,
    fifo: bool,
    text: String,
}

impl Policy {
    /// The names that are known, and what is behind each.
    pub const KNOWN: [(&'static str, &'static str); 3] = [
        ("gthulhu", "virtual deadlines: weights respected, tasks that sleep much come first"),
        (
            "simple",
            "weighted virtual time: weights respected, no favourites; fifo=true: first come, first served",
        ),
        ("simple-fifo", "first come, first served"),
    ];

    /// Runs a scenario. The answer is its trace.
    ///
    /// # Errors
    /// What is wrong with the scenario; a rule of the core that was broken; a trace that could not be written.
    pub fn simulate(&self, scenario: &Scenario) -> Result<Vec<u8>, String> {
        struct Task<'a>(&'a Scenario, &'a str);
        impl Use for Task<'_> {
            fn with<S: Scheduler>(self, make: impl FnMut() -> S + 'static) -> Result<Vec<u8>, String> {
                let Self(scenario, name) = self;
                let mut sim = scenario.start(make)?;
                let bytes = Buffer::default();
                sim.record(name, bytes.clone()).map_err(|error| error.to_string())?;
                sim.run(scenario.time);
                sim.end_record().transpose().map_err(|error| error.to_string())?;
                sim.check().map_err(|broken| format!("a rule was broken: {broken}"))?;
                Ok(bytes.take())
            }
        }
        self.used(Task(scenario, &self.text))
    }

    /// Does the work of a trace again. The answer is the trace of that.
    ///
    /// # Errors
    /// As [`simulate`](Self::simulate).
    pub fn replay(&self, replay: &Replay, seed: u64) -> Result<Vec<u8>, String> {
        struct Task<'a>(&'a Replay, &'a str, u64);
        impl Use for Task<'_> {
            fn with<S: Scheduler>(self, make: impl FnMut() -> S + 'static) -> Result<Vec<u8>, String> {
                let Self(replay, name, seed) = self;
                let bytes = Buffer::default();
                let mut setup = replay.setup();
                setup.seed = seed;
                let (sim, _) = replay.run(setup, name, make, bytes.clone())?;
                sim.check().map_err(|broken| format!("a rule was broken: {broken}"))?;
                Ok(bytes.take())
            }
        }
        self.used(Task(replay, &self.text, seed))
    }

    fn used(&self, what: impl Use) -> Result<Vec<u8>, String> {
        let Self { slice, slice_min, fifo, .. } = *self;
        match self.name {
            "gthulhu" => what.with(move || Gthulhu::new(slice, slice_min)),
            "simple" => {
                let mode = if fifo { Mode::Fifo } else { Mode::Weighted };
                what.with(move || Simple::new(slice).mode(mode))
            }
            _ => what.with(move || SimpleFifo::new(slice)),
        }
    }
}

/// Something to do with a policy, whichever it is.
trait Use {
    fn with<S: Scheduler>(self, make: impl FnMut() -> S + 'static) -> Result<Vec<u8>, String>;
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.text)
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, options) = text.split_once(':').unwrap_or((text, ""));
        let Some((name, _)) = Self::KNOWN.into_iter().find(|(known, _)| *known == name) else {
            let known = Self::KNOWN.map(|(name, _)| name).join(", ");
            return Err(format!("there is no policy '{name}'; known are: {known}"));
        };
        let ms = Nanos::from_millis;
        let mut policy = Self { name, slice: ms(5), slice_min: ms(1), fifo: false, text: text.to_owned() };
        for option in options.split(',').filter(|option| !option.is_empty()) {
            let (key, value) = option.split_once('=').unwrap_or((option, "true"));
            let us = || match value.parse() {
                Ok(us @ 100..=100_000u64) => Ok(Nanos::from_micros(us)),
                _ => Err(format!("{name}: {key} is 100 to 100000 microseconds, not '{value}'")),
            };
            match (name, key) {
                (_, "slice-us") => policy.slice = us()?,
                ("gthulhu", "slice-min-us") => policy.slice_min = us()?,
                ("simple", "fifo") => match value {
                    "true" | "on" => policy.fifo = true,
                    "false" | "off" => policy.fifo = false,
                    _ => return Err(format!("{name}: fifo is true or false, not '{value}'")),
                },
                _ => {
                    let own = match name {
                        "gthulhu" => "slice-us, slice-min-us",
                        "simple" => "slice-us, fifo",
                        _ => "slice-us",
                    };
                    return Err(format!("{name} has no option '{key}'; known are: {own}"));
                }
            }
        }
        policy.slice_min = policy.slice_min.min(policy.slice);
        Ok(policy)
    }
}

/// Bytes that can be taken after the writer of them is gone.
#[derive(Clone, Debug, Default)]
pub struct Buffer(Rc<RefCell<Vec<u8>>>);

impl Buffer {
    /// All that was written.
    pub fn take(&self) -> Vec<u8> {
        self.0.take()
    }
}

impl Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_are_named_with_their_options() {
        let policy: Policy = "gthulhu:slice-us=2000,slice-min-us=500".parse().unwrap();
        assert_eq!((policy.slice, policy.slice_min), (Nanos::from_millis(2), Nanos::from_micros(500)));
        assert!("simple:fifo".parse::<Policy>().unwrap().fifo);
        for (wrong, words) in [
            ("cfs", "known are: gthulhu, simple, simple-fifo"),
            ("simple:slice-us=1", "100 to 100000"),
            ("simple-fifo:fifo=true", "known are: slice-us"),
            ("simple:fifo=perhaps", "true or false"),
        ] {
            assert!(wrong.parse::<Policy>().unwrap_err().contains(words), "{wrong}");
        }
    }
}
