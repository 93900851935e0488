//! Rules: what the core does for some tasks where it decides by itself. See `bpf/rules.h`.

use std::ptr;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use crate::wire::{PROBES, RULES, Rule, RuleTable, Rules, TARGETS, Target};
use crate::{Error, ErrorKind, Result};

/// What a table is to hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// See [`RuleTable::floor_window_ns`].
    pub floor_window_ns: u64,
    /// See [`RuleTable::floor_price`].
    pub floor_price: u32,
    /// The rules, with their numbers.
    pub rules: Vec<(u32, Rule)>,
    /// Whom they are for: each refers to one of the rules.
    pub targets: Vec<Target>,
}

/// Where the search for a target begins. As in `bpf/rules.h`.
fn hash(target: &Target) -> u64 {
    let h = target.a.wrapping_add(target.kind.into()).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        ^ target.b.wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let h = (h ^ h >> 32).wrapping_mul(0x94d0_49bb_1331_11eb);
    h ^ h >> 32
}

/// Puts each target where the core looks for it.
fn place(targets: &[Target]) -> Result<Vec<Target>> {
    if targets.len() > TARGETS / 2 {
        let text =
            format!("{} targets are more than the {} that there is room for", targets.len(), TARGETS / 2);
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    let mut places = vec![Target::default(); TARGETS];
    for target in targets {
        let first = hash(target) as usize;
        let free = (0..PROBES).map(|i| (first + i) % TARGETS).find(|&at| places[at].rule == 0);
        let at = free.ok_or_else(|| {
            let text = format!("no place for the target {}:{}:{}", target.kind, target.a, target.b);
            Error::new(ErrorKind::Invalid, text)
        })?;
        places[at] = *target;
    }
    Ok(places)
}

/// Fills the table that is not in force and puts it in force. Returns its generation. On an error nothing has changed.
///
/// # Errors
/// When there are too many rules or targets.
///
/// # Safety
/// `rules` is valid for reads and writes, and nobody else writes it meanwhile.
pub unsafe fn publish(rules: *mut Rules, content: &Content) -> Result<u64> {
    let places = place(&content.targets)?;
    if let Some((number, _)) = content.rules.iter().find(|(number, _)| *number as usize >= RULES) {
        let text = format!("rule {number}: there is room for {RULES} rules");
        return Err(Error::new(ErrorKind::Invalid, text));
    }
    // SAFETY: valid, as promised; aligned for the kernel, too.
    let generation = unsafe { AtomicU64::from_ptr(&raw mut (*rules).generation) };
    // The core keeps 32 bits of it, of which 0 means that there are no rules.
    let mut next = generation.load(Ordering::Relaxed) + 1;
    if next as u32 == 0 {
        next += 2;
    }
    // SAFETY: one of two tables.
    let table: *mut RuleTable = unsafe { &raw mut (*rules).tables[(next & 1) as usize] };
    // Also those that are no more: a task that has not been looked up since knows its rule by a number of an earlier table.
    let mut all = vec![Rule::default(); RULES];
    content.rules.iter().for_each(|(number, rule)| all[*number as usize] = *rule);
    let flags = content.targets.iter().fold(0, |flags, target| flags | 1 << (target.kind & 7));
    // SAFETY: valid, and each index is in bounds. Volatile: the kernel reads it.
    unsafe {
        (&raw mut (*table).flags).write_volatile(0);
        fence(Ordering::SeqCst);
        for (number, rule) in all.into_iter().enumerate() {
            (&raw mut (*table).rules[number]).write_volatile(rule);
        }
        ptr::copy_nonoverlapping(places.as_ptr(), (&raw mut (*table).targets).cast(), TARGETS);
        (&raw mut (*table).floor_window_ns).write_volatile(content.floor_window_ns);
        (&raw mut (*table).floor_price).write_volatile(content.floor_price);
        (&raw mut (*table).flags).write_volatile(flags);
    }
    generation.store(next, Ordering::SeqCst);
    Ok(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(a: u64) -> Target {
        Target { a, b: a / 3, kind: 1 + (a % 6) as u32, rule: 1 }
    }

    fn empty() -> Box<Rules> {
        // SAFETY: numbers only, for which zeros are valid; on the stack it would take half a MiB.
        unsafe { Box::<Rules>::new_zeroed().assume_init() }
    }

    #[test]
    fn all_targets_for_which_there_is_room_find_a_place() {
        for step in [1, 3, 1 << 13, 0x9e37_79b9] {
            let targets: Vec<_> = (0..TARGETS as u64 / 2).map(|n| target(n * step)).collect();
            let places = place(&targets).unwrap();
            assert_eq!(places.iter().filter(|place| place.rule != 0).count(), TARGETS / 2);
        }
        let many: Vec<_> = (0..=TARGETS as u64 / 2).map(target).collect();
        assert!(place(&many).unwrap_err().to_string().contains("4097"));
    }

    #[test]
    fn tables_take_turns_and_what_is_wrong_changes_nothing() {
        let mut rules = empty();
        let content = |a| Content {
            rules: vec![(7, Rule { key: a, ..Rule::default() })],
            targets: vec![Target { a, b: 0, kind: 5, rule: 8 }],
            ..Content::default()
        };
        for (generation, a) in [(1, 11), (2, 12), (3, 13)] {
            // SAFETY: ours alone.
            assert_eq!(unsafe { publish(&raw mut *rules, &content(a)) }.unwrap(), generation);
            let table = &rules.tables[(generation & 1) as usize];
            assert_eq!((table.flags, table.rules[7].key), (1 << 5, a));
            assert_eq!(table.targets.iter().filter(|t| t.rule == 8).map(|t| t.a).collect::<Vec<_>>(), [a]);
        }
        let wrong = Content { rules: vec![(1024, Rule::default())], ..Content::default() };
        // SAFETY: as above.
        assert!(unsafe { publish(&raw mut *rules, &wrong) }.is_err());
        assert_eq!((rules.generation, rules.tables[0].rules[7].key), (3, 12));
        rules.generation = u64::from(u32::MAX);
        // SAFETY: as above.
        assert_eq!(unsafe { publish(&raw mut *rules, &content(1)) }.unwrap(), (1 << 32) + 2);
        // What is not in the table any more is gone from it.
        for _ in 0..2 {
            // SAFETY: as above.
            unsafe { publish(&raw mut *rules, &Content::default()) }.unwrap();
        }
        assert!(rules.tables.iter().all(|table| table.rules[7] == Rule::default()));
    }
}
