//! The values that the programs share with us. The same in bpf/layout.h.

/// Buckets of a histogram.
pub const BUCKETS: usize = 24;
/// How far apart two CPUs can be.
pub(crate) const DISTANCES: usize = 5;
pub(crate) const MAX_CPUS: usize = 1024;
const STINTS: usize = 1 + 16;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Config {
    pub(crate) since: u64,
    pub(crate) nr_cpus: u32,
    pub(crate) by_cpu_controller: u32,
    pub(crate) may_allocate: u32,
    pub(crate) own_wait: u32,
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Row {
    pub(crate) run_ns: u64,
    pub(crate) wait_ns: [u64; 2],
    pub(crate) throttled_ns: u64,
    throttling: [u64; 3],
    pub(crate) migrations: [u32; DISTANCES],
    pub(crate) created: u32,
    pub(crate) exited: u32,
    zero: u32,
    pub(crate) runs: [[u32; BUCKETS]; 2],
    pub(crate) waits: [[u32; BUCKETS]; 2],
    spare: [u64; 5],
}

impl Row {
    pub(crate) const ZERO: Self = Self {
        run_ns: 0,
        wait_ns: [0; 2],
        throttled_ns: 0,
        throttling: [0; 3],
        migrations: [0; DISTANCES],
        created: 0,
        exited: 0,
        zero: 0,
        runs: [[0; BUCKETS]; 2],
        waits: [[0; BUCKETS]; 2],
        spare: [0; 5],
    };
}

/// The ring of stints behind it is the programs' own.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lane {
    short_waits: u64,
    pub(crate) missed: u64,
    pub(crate) blamed: u64,
    pub(crate) unblamed: u64,
    ring_at: u64,
    pub(crate) resolved: u64,
    own_arrived: u64,
    spare: u64,
    ring: [[u64; 4]; STINTS],
}

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct SharedState {
    pub(crate) epoch: u64,
    pub(crate) refused: u64,
    /// What the iterator does, and of which process: two halves of a word.
    pub(crate) iterate: [u32; 2],
    pub(crate) group: u64,
}

pub(crate) const ITER_SEED: u32 = 0;
pub(crate) const ITER_RUNNING: u32 = 1;
pub(crate) const ITER_ALL: u32 = 2;
pub(crate) const ITER_PROCESS: u32 = 3;
pub(crate) const ITER_GROUP: u32 = 4;

#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThreadRecord {
    pub(crate) group: u64,
    pub(crate) run_ns: u64,
    pub(crate) wait_ns: u64,
    pub(crate) voluntary: u64,
    pub(crate) involuntary: u64,
    pub(crate) migrations: u64,
    pub(crate) throttled_ns: u64,
    pub(crate) pending_run_ns: u64,
    pub(crate) pending_wait_ns: u64,
    pub(crate) start_ns: u64,
    pub(crate) pid: i32,
    pub(crate) tgid: i32,
    pub(crate) cpu: u32,
    pub(crate) on_cpu: u32,
    pub(crate) comm: [u8; 16],
}

const _: () = {
    assert!(size_of::<Config>() == 24);
    assert!(size_of::<Row>() == 512);
    assert!(size_of::<Lane>() == 64 + 32 * STINTS);
    assert!(size_of::<SharedState>() == 32);
    assert!(size_of::<ThreadRecord>() == 112);
};

/// The bytes of plain data without padding, for a map.
pub(crate) fn bytes_of<T: Copy>(value: &T) -> &[u8] {
    // SAFETY: the types here are repr(C) and without padding (their sizes are the sums of their fields).
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(value).cast(), size_of::<T>()) }
}

/// Plain data from the bytes of a map or an iterator; `None` if there are too few.
pub(crate) fn from_bytes<T: Copy>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough, any alignment, and every bit pattern is a value of the types here.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}
