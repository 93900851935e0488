//! What may stand at a key: parsing from text, bounds, and the words for both.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Component, Path};

use crate::value::Value;
use crate::{Flag, Mode, Secret, scx, suggest};

/// What may stand at a key.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// `true` or `false`.
    Switch,
    /// A number between two others.
    Number {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
        /// The unit; empty for a plain number.
        unit: &'static str,
    },
    /// The name of a plugin of this daemon, `none` or `scx`.
    Mode,
    /// Pairs of the form NAME=VALUE, each name once.
    Pairs,
    /// What is never shown.
    Secret,
    /// A text.
    Text {
        /// What is allowed, for people.
        allowed: &'static str,
        /// Says what is wrong with it. The empty text stands for "not set".
        check: fn(&str) -> Result<(), String>,
    },
}

/// An absolute path.
pub(crate) const PATH: Kind = Kind::Text { allowed: "an absolute path", check: absolute };
/// An absolute path, or none.
pub(crate) const PATH_OR_NONE: Kind = Kind::Text {
    allowed: "an absolute path",
    check: |text| if text.is_empty() { Ok(()) } else { absolute(text) },
};
/// A path that may be relative to where the daemon was started.
pub(crate) const FILE: Kind = Kind::Text { allowed: "a path", check: |_| Ok(()) };
/// Where state lives.
pub(crate) const STATE: Kind =
    Kind::Text { allowed: "an absolute path of a file, not in a temporary folder", check: lasting };
/// CPU numbers and ranges, as the kernel writes them.
pub(crate) const CPUS: Kind = Kind::Text { allowed: "CPU numbers and ranges, such as 0-3,8", check: cpus };
/// One CPU number, or none.
pub(crate) const CPU: Kind = Kind::Text { allowed: "a CPU number", check: cpu };
/// An upstream scheduler.
pub(crate) const SCX_NAME: Kind = Kind::Text { allowed: scx::NAMES_TEXT, check: scx_name };
/// How events and decisions travel.
pub(crate) const TRANSPORT: Kind = Kind::Text { allowed: "shared or rings", check: transport };
/// An IP address to listen on.
pub(crate) const ADDRESS: Kind = Kind::Text { allowed: "an IP address, such as 127.0.0.1", check: ip };
/// An address and a port to listen on.
pub(crate) const SOCKET_ADDR: Kind = Kind::Text {
    allowed: "ADDRESS:PORT, such as 127.0.0.1:18080; :PORT is all addresses",
    check: |text| if text.is_empty() { Ok(()) } else { socket_addr(text).map(drop) },
};
/// Where an API is.
pub(crate) const URL: Kind = Kind::Text { allowed: "http://HOST[:PORT][/PATH] or https://…", check: url };
/// A certificate in text.
pub(crate) const PEM: Kind = Kind::Text { allowed: "PEM: it begins with -----BEGIN", check: pem };
/// A node in Kubernetes.
pub(crate) const NODE_NAME: Kind =
    Kind::Text { allowed: "a node's name: letters, digits, '-' and '.', at most 253", check: node_name };

impl Kind {
    /// What is allowed, for people. `plugins` are those of this daemon.
    pub fn allowed(&self, plugins: &[String]) -> String {
        self.allowed_in(plugins, None)
    }

    pub(crate) fn allowed_in(&self, plugins: &[String], flag: Option<Flag>) -> String {
        match self {
            Self::Switch => "true or false".into(),
            Self::Number { min, max, unit } => {
                let (scale, unit) = match flag {
                    Some(flag) if !flag.unit.is_empty() => (flag.scale, flag.unit),
                    _ => (1, *unit),
                };
                let text = format!("{} to {} {unit}", min.div_ceil(scale), max / scale);
                text.trim_end().to_owned()
            }
            Self::Mode => format!("none, scx, {}", plugins.join(", ")),
            Self::Pairs => "a list of NAME=VALUE".into(),
            Self::Secret => "a private key as PEM".into(),
            Self::Text { allowed, .. } => (*allowed).into(),
        }
    }

    /// The value that a text means, where all is text: flags, the environment, and plain words in the file. Lists
    /// are given apart, see [`Kind::list`].
    pub(crate) fn parse(&self, text: &str, scale: u64) -> Result<Value, String> {
        match self {
            Self::Switch => match text {
                // What the original's YAML library takes for a bool.
                "true" | "True" | "TRUE" | "on" | "On" | "ON" | "yes" | "Yes" | "YES" => {
                    Ok(Value::Bool(true))
                }
                "false" | "False" | "FALSE" | "off" | "Off" | "OFF" | "no" | "No" | "NO" => {
                    Ok(Value::Bool(false))
                }
                _ => Err(format!("{} is neither true nor false", quoted(text))),
            },
            Self::Number { .. } => number(text, scale),
            Self::Pairs => self.list(if text.is_empty() { Vec::new() } else { vec![text.to_owned()] }),
            Self::Secret => Ok(Value::Secret(Secret::new(text))),
            Self::Mode | Self::Text { .. } => Ok(Value::Text(text.to_owned())),
        }
    }

    /// The same, where a list has to be one text: its parts are between commas.
    pub(crate) fn parse_joined(&self, text: &str) -> Result<Value, String> {
        match self {
            Self::Pairs if !text.is_empty() => self.list(text.split(',').map(str::to_owned).collect()),
            _ => self.parse(text, 1),
        }
    }

    /// The value that several texts mean.
    pub(crate) fn list(&self, texts: Vec<String>) -> Result<Value, String> {
        match (self, <[String; 1]>::try_from(texts)) {
            (Self::Pairs, Ok([one])) => Ok(Value::List(vec![one])),
            (Self::Pairs, Err(texts)) => Ok(Value::List(texts)),
            (_, Ok([one])) => self.parse(&one, 1),
            (_, Err(texts)) => Err(format!("is given {} times", texts.len())),
        }
    }

    /// Says what is wrong with a value of the right shape.
    pub(crate) fn check(&self, value: &Value, plugins: &[String]) -> Result<(), String> {
        match (self, value) {
            (Self::Switch, Value::Bool(_)) => Ok(()),
            (Self::Number { min, max, .. }, Value::Number(n)) if min <= n && n <= max => Ok(()),
            (Self::Number { .. }, Value::Number(n)) => Err(format!("{n} is out of range")),
            (Self::Pairs, Value::List(pairs)) => check_pairs(pairs),
            (Self::Secret, Value::Secret(secret)) => secret.check(),
            (Self::Mode, Value::Text(name)) => mode(name, plugins),
            (Self::Text { check, .. }, Value::Text(text)) => {
                // A line end is for PEM; the rest would hide from whoever looks at a log.
                if text.chars().any(|c| c.is_control() && c != '\n') {
                    return Err(format!("{} has control characters", quoted(text)));
                }
                check(text)
            }
            _ => Err(format!("{} is of the wrong kind", quoted(&value.to_string()))),
        }
    }
}

/// In quotes, control characters visible, and not endless.
pub(crate) fn quoted(text: &str) -> String {
    let shown: String = text.chars().take(80).flat_map(char::escape_debug).collect();
    let more = if text.chars().nth(80).is_some() { "…" } else { "" };
    format!("'{}{more}'", shown.replace("\\'", "'").replace("\\\"", "\""))
}

fn number(text: &str, scale: u64) -> Result<Value, String> {
    let digits: String = text.strip_prefix('+').unwrap_or(text).chars().filter(|c| *c != '_').collect();
    let is_number = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    if digits.strip_prefix('-').is_some_and(is_number) {
        return Err(format!("{text} is out of range"));
    }
    if !is_number(&digits) {
        return Err(format!("{} is no whole number", quoted(text)));
    }
    // Ten to us, eight to YAML 1.1.
    if digits.len() > 1 && digits.starts_with('0') {
        return Err(format!("{} begins with a zero", quoted(text)));
    }
    let scaled = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(scale));
    scaled.map(Value::Number).ok_or_else(|| format!("{} is out of range", short(&digits)))
}

fn short(digits: &str) -> String {
    if digits.len() > 24 {
        format!("{}… ({} digits)", &digits[..24], digits.len())
    } else {
        digits.to_owned()
    }
}

fn mode(name: &str, plugins: &[String]) -> Result<(), String> {
    match Mode::named(name) {
        Mode::Plugin(plugin) if !plugins.contains(&plugin) => {
            let known = ["none", "scx"].into_iter().chain(plugins.iter().map(String::as_str));
            Err(format!("{} is no mode{}", quoted(name), suggest::hint(name, known)))
        }
        _ => Ok(()),
    }
}

fn check_pairs(pairs: &[String]) -> Result<(), String> {
    for (i, pair) in pairs.iter().enumerate() {
        let Some((name, _)) = pair.split_once('=').filter(|(name, _)| !name.is_empty()) else {
            return Err(format!("{} has not the form NAME=VALUE", quoted(pair)));
        };
        if pair.chars().any(char::is_control) {
            return Err(format!("{} has control characters", quoted(pair)));
        }
        if pairs[..i].iter().any(|earlier| earlier.split_once('=').is_some_and(|(n, _)| n == name)) {
            return Err(format!("{} is given twice", quoted(name)));
        }
    }
    Ok(())
}

fn absolute(text: &str) -> Result<(), String> {
    let path = Path::new(text);
    if !path.is_absolute() {
        return Err(format!("{} is no absolute path", quoted(text)));
    }
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(format!("{} has '..' in it", quoted(text)));
    }
    Ok(())
}

/// Folders that are emptied, and where everybody may put a link.
const TEMPORARY: [&str; 3] = ["/tmp", "/var/tmp", "/dev/shm"];

pub(crate) fn is_temporary(path: &Path) -> bool {
    TEMPORARY.iter().any(|folder| path.starts_with(folder))
}

fn lasting(text: &str) -> Result<(), String> {
    absolute(text)?;
    let path = Path::new(text);
    if is_temporary(path) {
        return Err(format!(
            "{} is in a temporary folder: it would be lost, and others can write there",
            quoted(text)
        ));
    }
    if text.ends_with('/') || path.file_name().is_none() {
        return Err(format!("{} names no file", quoted(text)));
    }
    Ok(())
}

/// The kernel's greatest number of CPUs that the core is made for.
const MAX_CPUS: u32 = 1024;

fn cpu(text: &str) -> Result<(), String> {
    if text.contains([',', '-']) { Err(format!("{} is more than one CPU", quoted(text))) } else { cpus(text) }
}

fn cpus(text: &str) -> Result<(), String> {
    let number = |part: &str| -> Result<u32, String> {
        let cpu: u32 = part.trim().parse().map_err(|_| format!("{} is no CPU number", quoted(part)))?;
        if cpu < MAX_CPUS { Ok(cpu) } else { Err(format!("CPU {cpu}: numbers are below {MAX_CPUS}")) }
    };
    if text.is_empty() {
        return Ok(());
    }
    for part in text.split(',') {
        if let Some((first, last)) = part.split_once('-') {
            if number(first)? > number(last)? {
                return Err(format!("{} ends before it begins", quoted(part)));
            }
        } else {
            number(part)?;
        }
    }
    Ok(())
}

fn scx_name(text: &str) -> Result<(), String> {
    if text.is_empty() { Ok(()) } else { scx::known(text).map(drop) }
}

fn transport(text: &str) -> Result<(), String> {
    match crate::Transport::named(text) {
        Some(_) => Ok(()),
        None => Err(format!("{} is no transport{}", quoted(text), suggest::hint(text, ["shared", "rings"]))),
    }
}

fn ip(text: &str) -> Result<(), String> {
    text.parse::<IpAddr>().map(drop).map_err(|_| format!("{} is no IP address", quoted(text)))
}

/// `:PORT` is the original's form for all addresses.
pub(crate) fn socket_addr(text: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("{} is no ADDRESS:PORT", quoted(text));
    let addr = match text.strip_prefix(':') {
        Some(port) => SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), port.parse().map_err(|_| wrong())?),
        None => text.replacen("localhost:", "127.0.0.1:", 1).parse().map_err(|_| wrong())?,
    };
    if addr.port() == 0 { Err(format!("{} has no port", quoted(text))) } else { Ok(addr) }
}

fn url(text: &str) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let Some(rest) = rest else {
        return Err(format!("{} begins neither with http:// nor with https://", quoted(text)));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return Err("has a user name or password in it; a token belongs into api.token_file".into());
    }
    if text.contains(char::is_whitespace) {
        return Err(format!("{} has a space in it", quoted(text)));
    }
    // [::1]:8080
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    if name.is_empty() {
        return Err(format!("{} names no host", quoted(text)));
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_) | Ok(0)) => Err(format!("{} has no port between 1 and 65535", quoted(text))),
        _ => Ok(()),
    }
}

fn pem(text: &str) -> Result<(), String> {
    if text.is_empty() || text.trim_start().starts_with("-----BEGIN ") {
        return Ok(());
    }
    Err(format!("{} is no PEM", quoted(text)))
}

fn node_name(text: &str) -> Result<(), String> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
    if text.len() <= 253 && text.bytes().all(allowed) {
        Ok(())
    } else {
        Err(format!("{} is no node's name", quoted(text)))
    }
}
