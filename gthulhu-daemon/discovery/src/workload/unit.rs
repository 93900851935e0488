//! How systemd spells the names of units, and of their cgroups.

use std::borrow::Cow;

use super::{Unit, UnitKind};

/// The name of a unit without systemd's escapes: `\x2d` is a dash. A backslash that begins no such escape
/// stays, and bytes that are no UTF-8 become a mark.
///
/// ```
/// # use gthulhu_discovery::unescape_unit;
/// assert_eq!(unescape_unit(r"dev-disk-by\x2duuid-1.swap"), "dev-disk-by-uuid-1.swap");
/// assert_eq!(unescape_unit(r"a\x2"), r"a\x2");
/// ```
pub fn unescape_unit(name: &str) -> Cow<'_, str> {
    if !name.contains('\\') {
        return Cow::Borrowed(name);
    }
    Cow::Owned(String::from_utf8_lossy(&unescape(name.as_bytes())).into_owned())
}

pub(super) fn unescape(name: &[u8]) -> Cow<'_, [u8]> {
    if !name.contains(&b'\\') {
        return Cow::Borrowed(name);
    }
    let mut plain = Vec::with_capacity(name.len());
    let mut rest = name;
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                plain.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    Cow::Owned(plain)
}

fn digit(hex: u8) -> u8 {
    // Of a hexadecimal digit.
    char::from(hex).to_digit(16).unwrap_or_default() as u8
}

/// The name of a unit from that of its cgroup: systemd puts an underscore in front of names that the kernel
/// would take for its own files (`cg_escape()`), such as `_cpu.service`.
pub fn unescape_cgroup(name: &[u8]) -> &[u8] {
    name.strip_prefix(b"_").unwrap_or(name)
}

/// The unit that the components of a path lead to. Slices group units; below a service or scope are only
/// its own parts; and a user's systemd (`user@UID.service`) has slices and units of its own.
pub(super) fn unit(components: &[&[u8]]) -> Option<Unit> {
    let mut user = None;
    let mut found = None;
    for component in components {
        let Ok(name) = std::str::from_utf8(unescape_cgroup(component)) else { break };
        let Some(kind) = kind(name) else { break };
        if let Some(uid) = uid(name) {
            user = Some(uid);
        }
        found = Some(Unit { name: name.into(), kind, user });
        let of_users = name.starts_with("user@") && kind == UnitKind::Service;
        if kind != UnitKind::Slice && !of_users {
            break;
        }
    }
    found
}

fn kind(name: &str) -> Option<UnitKind> {
    match name.rsplit_once('.').filter(|(stem, _)| !stem.is_empty())?.1 {
        "service" => Some(UnitKind::Service),
        "scope" => Some(UnitKind::Scope),
        "slice" => Some(UnitKind::Slice),
        "socket" | "mount" | "swap" => Some(UnitKind::Other),
        _ => None,
    }
}

/// The user of `user-1000.slice` or `user@1000.service`.
fn uid(name: &str) -> Option<u32> {
    let slice = |name: &str| name.strip_prefix("user-")?.strip_suffix(".slice")?.parse().ok();
    let service = |name: &str| name.strip_prefix("user@")?.strip_suffix(".service")?.parse().ok();
    slice(name).or_else(|| service(name))
}
