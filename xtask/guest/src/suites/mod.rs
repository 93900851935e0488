//! Suites.
use crate::check::Checks;
/// S
#[derive(Debug,Clone,Copy,clap::ValueEnum)]
pub enum Suite { /// s
 Smoke }
/// run
pub fn run(_: Suite, _: Option<u64>, _: &mut Checks) {}
