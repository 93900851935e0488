//! What the core knows of the machine: which CPUs share a cache, and a core.

use std::fmt;
use std::mem::offset_of;

use crate::wire::MAX_CPUS;

/// `struct qm_places`, given to the core before it is loaded. So the core finds an idle CPU whose cache is warm where it
/// decides without an agent. What is not told here, it leaves to the kernel's own selection.
#[repr(C)]
#[derive(Clone)]
pub struct Places {
    cpus: [[u64; MAX_CPUS / 64]; MAX_CPUS],
    cache: [u32; MAX_CPUS],
    sibling: [u32; MAX_CPUS],
}

const _: () = {
    assert!(offset_of!(Places, cache) == MAX_CPUS * MAX_CPUS / 8);
    assert!(offset_of!(Places, sibling) == MAX_CPUS * MAX_CPUS / 8 + MAX_CPUS * 4);
    assert!(size_of::<Places>() == MAX_CPUS * MAX_CPUS / 8 + MAX_CPUS * 8);
};

impl Places {
    /// Nothing is known.
    pub fn new() -> Box<Self> {
        let mut places = Box::<Self>::new_uninit();
        // SAFETY: a value of numbers only, for which zeros are valid. On the stack it would take 136 KiB.
        let mut places = unsafe {
            places.as_mut_ptr().write_bytes(0, 1);
            places.assume_init()
        };
        places.sibling.iter_mut().zip(0..).for_each(|(sibling, cpu)| *sibling = cpu);
        places
    }

    /// These CPUs have one last cache. Numbers that no CPU has are left out.
    pub fn share_cache(&mut self, cpus: &[u32]) {
        let cpus = || cpus.iter().map(|&cpu| cpu as usize).filter(|&cpu| cpu < MAX_CPUS);
        let Some(lowest) = cpus().min() else { return };
        for cpu in cpus() {
            self.cpus[lowest][cpu / 64] |= 1 << (cpu % 64);
            self.cache[cpu] = lowest as u32 + 1;
        }
    }

    /// These CPUs are the threads of one core.
    pub fn share_core(&mut self, cpus: &[u32]) {
        let known = |&&cpu: &&u32| (cpu as usize) < MAX_CPUS;
        let next = cpus.iter().filter(known).cycle().skip(1);
        for (&cpu, &next) in cpus.iter().filter(known).zip(next) {
            self.sibling[cpu as usize] = next;
        }
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        // SAFETY: numbers only, without padding (see the sizes above).
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }
}

impl fmt::Debug for Places {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = self.cache.iter().filter(|&&cache| cache > 0).count();
        f.debug_struct("Places").field("known", &known).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn caches_are_found_by_their_lowest_cpu_and_threads_in_a_ring() {
        let mut places = Places::new();
        places.share_cache(&[70, 2, 3, 5000]);
        places.share_cache(&[]);
        places.share_core(&[2, 3, 70]);
        assert_eq!([places.cache[2], places.cache[3], places.cache[70], places.cache[4]], [3, 3, 3, 0]);
        assert_eq!(places.cpus[2][..2], [0b1100, 1 << 6]);
        assert_eq!([2, 3, 70, 4].map(|cpu: usize| places.sibling[cpu]), [3, 70, 2, 4]);
    }
}
