//! Who may control, and whether each switch goes on and off: the daemon in mode `none`, on this machine's own kernel.

mod socket;
mod switches;
mod tls;
mod token;

use super::{Daemon, PROGRAM, wait_for};
