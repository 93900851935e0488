//! A set of CPUs that fits on the stack.

use std::fmt;
use std::ops::{BitAnd, BitAndAssign, BitOr, BitOrAssign, Sub, SubAssign};
use std::str::FromStr;

use crate::{Affinity, Cpu, Error, ErrorKind, IdleView, MAX_CPUS, Result};

const WORDS: usize = MAX_CPUS as usize / 64;

/// A set of CPU numbers below [`MAX_CPUS`].
///
/// It is a plain value of 128 bytes, and every operation goes over its 16 words, never over single
/// CPUs: the questions of a placement ("an idle CPU that shares the cache, where the task may run") are
/// a few `&` and a count of zeros. Numbers that do not fit are never members: taking one in or out does
/// nothing.
///
/// It is written and read as the kernel does (`/sys/devices/system/cpu/online`, `Cpus_allowed_list`):
///
/// ```
/// use qumun::{Cpu, CpuSet};
///
/// let allowed: CpuSet = "0-3,8,10-11".parse()?;
/// let idle: CpuSet = [Cpu(1), Cpu(9), Cpu(10)].into_iter().collect();
/// assert_eq!((allowed & idle).to_string(), "1,10");
/// assert_eq!(allowed.first_in(&idle), Some(Cpu(1)));
/// # Ok::<(), qumun::Error>(())
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CpuSet {
    words: [u64; WORDS],
}

impl CpuSet {
    /// No CPU.
    pub const EMPTY: Self = Self { words: [0; WORDS] };
    /// Every number below [`MAX_CPUS`].
    pub const ALL: Self = Self { words: [u64::MAX; WORDS] };

    /// CPUs 0 to `nr_cpus - 1`, at most [`MAX_CPUS`] of them.
    pub const fn first_n(nr_cpus: u32) -> Self {
        let mut set = Self::EMPTY;
        let mut index = 0;
        while index < WORDS {
            let below = nr_cpus.saturating_sub(index as u32 * 64);
            set.words[index] = if below >= 64 { u64::MAX } else { (1 << below) - 1 };
            index += 1;
        }
        set
    }

    /// This CPU alone.
    pub fn of(cpu: Cpu) -> Self {
        let mut set = Self::EMPTY;
        set.insert(cpu);
        set
    }

    /// Is it a member?
    pub const fn contains(&self, cpu: Cpu) -> bool {
        cpu.0 < MAX_CPUS && self.words[cpu.0 as usize / 64] >> (cpu.0 % 64) & 1 == 1
    }

    /// Takes a CPU in.
    pub const fn insert(&mut self, cpu: Cpu) {
        if cpu.0 < MAX_CPUS {
            self.words[cpu.0 as usize / 64] |= 1 << (cpu.0 % 64);
        }
    }

    /// Takes a CPU out.
    pub const fn remove(&mut self, cpu: Cpu) {
        if cpu.0 < MAX_CPUS {
            self.words[cpu.0 as usize / 64] &= !(1 << (cpu.0 % 64));
        }
    }

    /// [Takes it in](Self::insert) or [out](Self::remove).
    pub const fn set(&mut self, cpu: Cpu, member: bool) {
        if member { self.insert(cpu) } else { self.remove(cpu) }
    }

    /// Has it no member?
    pub const fn is_empty(&self) -> bool {
        self.is_subset(&Self::EMPTY)
    }

    /// The number of members.
    pub const fn len(&self) -> u32 {
        let (mut index, mut len) = (0, 0);
        while index < WORDS {
            len += self.words[index].count_ones();
            index += 1;
        }
        len
    }

    /// The lowest member.
    pub const fn first(&self) -> Option<Cpu> {
        self.first_in(&Self::ALL)
    }

    /// The highest member.
    pub fn last(&self) -> Option<Cpu> {
        let (index, word) = self.words.iter().enumerate().rfind(|(_, word)| **word != 0)?;
        Some(Cpu(index as u32 * 64 + 63 - word.leading_zeros()))
    }

    /// The member of a set that has one only.
    pub const fn single(&self) -> Option<Cpu> {
        if self.len() == 1 { self.first() } else { None }
    }

    /// The lowest member that the other set has, too.
    pub const fn first_in(&self, other: &Self) -> Option<Cpu> {
        self.first_in_both(other, &Self::ALL)
    }

    /// The lowest member that both others have, too.
    pub const fn first_in_both(&self, other: &Self, third: &Self) -> Option<Cpu> {
        let mut index = 0;
        while index < WORDS {
            let word = self.words[index] & other.words[index] & third.words[index];
            if word != 0 {
                return Some(Cpu(index as u32 * 64 + word.trailing_zeros()));
            }
            index += 1;
        }
        None
    }

    /// Have the two a member in common?
    pub const fn intersects(&self, other: &Self) -> bool {
        self.first_in(other).is_some()
    }

    /// Are all members in the other set?
    pub const fn is_subset(&self, other: &Self) -> bool {
        let mut index = 0;
        while index < WORDS {
            if self.words[index] & !other.words[index] != 0 {
                return false;
            }
            index += 1;
        }
        true
    }

    /// The members, lowest first.
    pub fn iter(&self) -> impl Iterator<Item = Cpu> + '_ {
        self.words.iter().enumerate().flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros();
                rest &= rest.wrapping_sub(1);
                (bit < 64).then_some(Cpu(index as u32 * 64 + bit))
            })
        })
    }

    /// The bits: CPU `n` is bit `n % 64` of word `n / 64`, as in the kernel's `struct cpumask`.
    pub const fn words(&self) -> &[u64; WORDS] {
        &self.words
    }

    /// Replaces the bits of CPUs `64 * index` to `64 * index + 63`; an index that is too large is ignored.
    pub const fn set_word(&mut self, index: usize, bits: u64) {
        if index < WORDS {
            self.words[index] = bits;
        }
    }

    /// Every member's number plus `by`; those that do not fit drop out.
    pub(crate) const fn up(&self, by: u32) -> Self {
        let (skip, bits) = (by as usize / 64, by % 64);
        let mut set = Self::EMPTY;
        let mut index = skip;
        while index < WORDS {
            set.words[index] = self.words[index - skip] << bits;
            if bits > 0 && index > skip {
                set.words[index] |= self.words[index - skip - 1] >> (64 - bits);
            }
            index += 1;
        }
        set
    }

    /// Every member's number minus `by`; those that were below drop out.
    pub(crate) const fn down(&self, by: u32) -> Self {
        let (skip, bits) = (by as usize / 64, by % 64);
        let mut set = Self::EMPTY;
        let mut index = 0;
        while index + skip < WORDS {
            set.words[index] = self.words[index + skip] >> bits;
            if bits > 0 && index + skip + 1 < WORDS {
                set.words[index] |= self.words[index + skip + 1] << (64 - bits);
            }
            index += 1;
        }
        set
    }

    // Plain loops here and above: compilers make the same of iterators, but not in the builds in which
    // policies are tested.
    fn zip(mut self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut index = 0;
        while index < WORDS {
            self.words[index] = f(self.words[index], other.words[index]);
            index += 1;
        }
        self
    }
}

/// What both have.
impl BitAnd for CpuSet {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }
}

/// What either has.
impl BitOr for CpuSet {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }
}

/// What the first has and the second has not.
impl Sub for CpuSet {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }
}

impl BitAndAssign for CpuSet {
    fn bitand_assign(&mut self, other: Self) {
        *self = *self & other;
    }
}

impl BitOrAssign for CpuSet {
    fn bitor_assign(&mut self, other: Self) {
        *self = *self | other;
    }
}

impl SubAssign for CpuSet {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}

impl FromIterator<Cpu> for CpuSet {
    fn from_iter<I: IntoIterator<Item = Cpu>>(cpus: I) -> Self {
        let mut set = Self::EMPTY;
        set.extend(cpus);
        set
    }
}

impl Extend<Cpu> for CpuSet {
    fn extend<I: IntoIterator<Item = Cpu>>(&mut self, cpus: I) {
        cpus.into_iter().for_each(|cpu| self.insert(cpu));
    }
}

/// Where a task may run, as far as its event tells: exact for CPUs 0..63 and for tasks without
/// restriction, and never more than the truth, see [`Affinity`].
impl From<Affinity> for CpuSet {
    fn from(allowed: Affinity) -> Self {
        let mut set = if allowed.is_unrestricted() { Self::ALL } else { Self::EMPTY };
        set.words[0] = allowed.low();
        set
    }
}

impl From<&IdleView> for CpuSet {
    fn from(idle: &IdleView) -> Self {
        *idle.cpus()
    }
}

/// As the kernel writes it: ascending, a run of two or more as `first-last`, nothing for the empty set.
impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut cpus = self.iter().peekable();
        let mut comma = "";
        while let Some(first) = cpus.next() {
            let mut last = first;
            while let Some(next) = cpus.next_if(|next| next.0 == last.0 + 1) {
                last = next;
            }
            write!(f, "{comma}{first}")?;
            if last > first {
                write!(f, "-{last}")?;
            }
            comma = ",";
        }
        Ok(())
    }
}

impl fmt::Debug for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CpuSet({self})")
    }
}

/// Reads what the kernel writes; white space around the list is ignored, nothing is the empty set.
/// Ranges may come in any order and overlap. The strides that the kernel takes as input (`0-31:2/4`) are
/// not read, since it never writes them.
impl FromStr for CpuSet {
    type Err = Error;

    fn from_str(list: &str) -> Result<Self> {
        let list = list.trim();
        let mut set = Self::EMPTY;
        if list.is_empty() {
            return Ok(set);
        }
        for range in list.split(',') {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            let (Some(first), Some(last)) = (number(first), number(last)) else {
                return Err(no_list(list, range, "it is no number and no range"));
            };
            if first > last {
                return Err(no_list(list, range, "it runs backwards"));
            }
            if last >= MAX_CPUS {
                return Err(no_list(list, range, "CPU numbers go to 1023"));
            }
            set |= Self::first_n(last + 1) - Self::first_n(first);
        }
        Ok(set)
    }
}

/// Digits only: Rust's own parser takes a sign, too. A number beyond 32 bits is just a very large one.
fn number(digits: &str) -> Option<u32> {
    let is_number = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u32::MAX))
}

fn no_list(list: &str, range: &str, why: &str) -> Error {
    let (list, range) = (super::excerpt(list), super::excerpt(range));
    Error::new(ErrorKind::InvalidInput, format!("no list of CPUs: {list}: at {range}, {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(list: &str) -> CpuSet {
        list.parse().unwrap()
    }

    #[test]
    fn lists_are_read_and_written_as_the_kernel_does() {
        for list in ["", "0", "0-1", "0-3,8,10-11", "63-64", "0-1023", "1023", "0,2,4,127-129"] {
            assert_eq!(set(list).to_string(), list);
        }
        assert_eq!(set(" 3,1-2,2\n").to_string(), "1-3");
        assert_eq!(set("\n"), CpuSet::EMPTY);
    }

    #[test]
    fn what_is_no_list_is_refused_with_the_reason() {
        for list in ["x", "1-", "-1", "1--2", "1,,2", ",", "1,", "+1", "0x1", "1 2", "0-7:2/4", "\0"] {
            let error = list.parse::<CpuSet>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("no number"), "{error}");
        }
        assert!("5-2".parse::<CpuSet>().unwrap_err().to_string().contains("backwards"));
        for list in ["1024", "0-1024", "0-4294967295", "99999999999999999999"] {
            assert!(list.parse::<CpuSet>().unwrap_err().to_string().contains("1023"), "{list}");
        }
        let long = "7,".repeat(10_000);
        assert!(long.parse::<CpuSet>().unwrap_err().to_string().len() < 300);
    }

    #[test]
    fn operations_agree_with_those_of_a_plain_set() {
        let (a, b) = (set("0-3,8,62-66,200,1023"), set("2-5,63,66-70,1023"));
        let plain = |s: CpuSet| s.iter().map(|cpu| cpu.0).collect::<std::collections::BTreeSet<_>>();
        let (x, y) = (plain(a), plain(b));
        assert_eq!(plain(a & b), &x & &y);
        assert_eq!(plain(a | b), &x | &y);
        assert_eq!(plain(a - b), &x - &y);
        assert_eq!(a.len() as usize, x.len());
        assert_eq!((a.first(), a.last()), (Some(Cpu(0)), Some(Cpu(1023))));
        assert_eq!(a.first_in(&b), Some(Cpu(2)));
        assert_eq!(a.first_in_both(&b, &set("60-70")), Some(Cpu(63)));
        assert_eq!(a.first_in_both(&b, &set("4")), None);
        assert!(a.intersects(&b) && !a.intersects(&set("4-7")) && !CpuSet::EMPTY.intersects(&a));
        assert!((a & b).is_subset(&a) && !a.is_subset(&b) && CpuSet::EMPTY.is_subset(&b));
        assert_eq!((set("9").single(), a.single(), CpuSet::EMPTY.single()), (Some(Cpu(9)), None, None));
        assert_eq!((CpuSet::EMPTY.first(), CpuSet::EMPTY.last()), (None, None));
    }

    #[test]
    fn shifting_moves_every_member() {
        let all = set("0-3,8,62-66,127-129,200,1000,1023");
        for by in [0, 1, 7, 63, 64, 65, 128, 500, 1023, 1024, 5000] {
            let up: CpuSet = all.iter().map(|cpu| Cpu(cpu.0 + by)).collect();
            let down: CpuSet = all.iter().filter_map(|cpu| cpu.0.checked_sub(by)).map(Cpu).collect();
            assert_eq!((all.up(by), all.down(by)), (up, down), "by {by}");
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_never_members() {
        let mut s = CpuSet::EMPTY;
        s.insert(Cpu(1024));
        s.insert(Cpu(u32::MAX));
        s.set_word(16, 1);
        assert!(s.is_empty() && !CpuSet::ALL.contains(Cpu(1024)));
        s.set(Cpu(1023), true);
        s.remove(Cpu(u32::MAX));
        assert_eq!(s, CpuSet::of(Cpu(1023)));
        for n in [0, 1, 63, 64, 65, 1023, 1024, 5000] {
            assert_eq!(CpuSet::first_n(n).len(), n.min(1024));
        }
        assert_eq!(CpuSet::first_n(1024), CpuSet::ALL);
    }

    #[test]
    fn an_affinity_becomes_the_set_that_it_stands_for() {
        assert_eq!(CpuSet::from(Affinity::ANY), CpuSet::ALL);
        assert_eq!(CpuSet::from(Affinity::new(0b101, 2, 8)), set("0,2"));
        assert_eq!(CpuSet::from(Affinity::new(0b101, 5, 128)), set("0,2"));
        for affinity in [Affinity::ANY, Affinity::new(7, 7, 7), Affinity::new(6, 4, 100)] {
            let cpus = CpuSet::from(affinity);
            assert!((0..1024).map(Cpu).all(|cpu| cpus.contains(cpu) == affinity.allows(cpu)));
        }
    }
}
