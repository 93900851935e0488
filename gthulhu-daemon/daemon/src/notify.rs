//! Readiness and watchdog, as systemd wants them: datagrams to `$NOTIFY_SOCKET` (sd_notify(3)).

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

/// Who is told, if anybody.
#[derive(Debug)]
pub(crate) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    every: Option<Duration>,
    last: Option<Instant>,
}

impl Notify {
    /// From the environment of this process.
    pub(crate) fn from_env() -> Self {
        let var = |name: &str| std::env::var(name).ok();
        let ours = var("WATCHDOG_PID").is_none_or(|pid| pid == std::process::id().to_string());
        Self::new(var("NOTIFY_SOCKET").as_deref(), var("WATCHDOG_USEC").filter(|_| ours).as_deref())
    }

    fn new(socket: Option<&str>, watchdog_us: Option<&str>) -> Self {
        let address = socket.and_then(|name| match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name).ok(),
            None => SocketAddr::from_pathname(name).ok(),
        });
        let socket = address.and_then(|address| {
            let socket = UnixDatagram::unbound().ok()?;
            // A manager that does not read must not hold us.
            socket.set_nonblocking(true).ok()?;
            Some((socket, address))
        });
        // Half of the time, as sd_watchdog_enabled(3) recommends.
        let every = watchdog_us.and_then(|us| us.parse().ok()).map(|us: u64| Duration::from_micros(us / 2));
        Self { socket, every, last: None }
    }

    /// The daemon is up.
    pub(crate) fn ready(&self, status: &str) {
        self.tell(&format!("READY=1\nSTATUS={status}"));
    }

    /// What `systemctl status` shows.
    pub(crate) fn status(&self, status: &str) {
        self.tell(&format!("STATUS={status}"));
    }

    /// It ends by itself.
    pub(crate) fn stopping(&self) {
        self.tell("STOPPING=1");
    }

    /// The supervisor has looked at everything: to be called at each round, and told when it is time.
    pub(crate) fn alive(&mut self) {
        let Some(every) = self.every else { return };
        if self.last.is_none_or(|last| last.elapsed() >= every) {
            self.last = Some(Instant::now());
            self.tell("WATCHDOG=1");
        }
    }

    fn tell(&self, text: &str) {
        if let Some((socket, address)) = &self.socket {
            let _ = socket.send_to_addr(text.as_bytes(), address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_hears_readiness_and_a_heartbeat_no_more_often_than_needed() {
        let path = std::env::temp_dir().join(format!("gthulhu-notify-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let manager = UnixDatagram::bind(&path).unwrap();
        manager.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut notify = Notify::new(path.to_str(), Some("60000000"));
        notify.ready("well");
        notify.alive();
        notify.alive();
        notify.stopping();
        let mut heard = Vec::new();
        for _ in 0..3 {
            let mut bytes = [0; 64];
            let n = manager.recv(&mut bytes).unwrap();
            heard.push(String::from_utf8_lossy(&bytes[..n]).into_owned());
        }
        assert_eq!(heard, ["READY=1\nSTATUS=well", "WATCHDOG=1", "STOPPING=1"]);
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn without_a_manager_nobody_is_told() {
        let mut notify = Notify::new(None, None);
        notify.ready("");
        notify.alive();
        assert!(notify.last.is_none());
    }
}
