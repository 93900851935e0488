//! What the pool costs: the arena against the system's allocator and against a buddy allocator without
//! tags, and the heap against the standard library's. `cargo bench -p qumun-benches --bench pool`.

// What criterion's macros make.
#![allow(missing_docs)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::ptr::NonNull;
use std::time::Duration;

use allocator_api2::alloc::{AllocError, Allocator, Global};
use allocator_api2::vec::Vec as VecIn;
use buddy_system_allocator::Heap as BuddyHeap;
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use qumun::pool::{Arena, Heap};

const BYTES: usize = 4 << 20;

/// The other buddy allocator, for one thread, as ours is.
struct Buddy<'a>(&'a RefCell<BuddyHeap<32>>);

impl<'a> Buddy<'a> {
    fn heap(memory: &mut [u64]) -> RefCell<BuddyHeap<32>> {
        let mut heap = BuddyHeap::new();
        // SAFETY: the memory is written, and nobody uses it otherwise as long as it is borrowed in `main`.
        unsafe { heap.init(memory.as_mut_ptr().expose_provenance(), size_of_val(memory)) };
        RefCell::new(heap)
    }
}

// SAFETY: the heap hands out blocks that do not overlap; it lives as long as it is borrowed.
unsafe impl Allocator for Buddy<'_> {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        let block = self.0.borrow_mut().alloc(layout).map_err(|()| AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { self.0.borrow_mut().dealloc(ptr, layout) }
    }
}

/// The system's allocator, by this interface.
struct Libc;

// SAFETY: `System` keeps the same contract; no layout here is of size zero.
unsafe impl Allocator for Libc {
    fn allocate(&self, layout: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the size is not zero.
        let block = NonNull::new(unsafe { System.alloc(layout) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, layout.size()))
    }

    unsafe fn deallocate(&self, ptr: NonNull<u8>, layout: Layout) {
        // SAFETY: the caller keeps the same contract.
        unsafe { System.dealloc(ptr.as_ptr(), layout) }
    }

    unsafe fn grow(&self, ptr: NonNull<u8>, old: Layout, new: Layout) -> Result<NonNull<[u8]>, AllocError> {
        // SAFETY: the caller keeps the same contract; alignments are equal here.
        let block =
            NonNull::new(unsafe { System.realloc(ptr.as_ptr(), old, new.size()) }).ok_or(AllocError)?;
        Ok(NonNull::slice_from_raw_parts(block, new.size()))
    }
}

/// Numbers that look random (Marsaglia's xorshift64).
fn random(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// 1,000 steps on 256 places: an empty one gets a block of 16 to 2,063 bytes, another one is freed.
fn mixed(allocator: &impl Allocator) {
    let mut places: [Option<(NonNull<u8>, Layout)>; 256] = [None; 256];
    let mut state = 0x9e37_79b9_7f4a_7c15;
    let free = |(block, layout)| {
        // SAFETY: allocated below with this layout, and freed once.
        unsafe { allocator.deallocate(block, layout) }
    };
    for _ in 0..1_000 {
        let dice = random(&mut state);
        let place = &mut places[dice as usize % 256];
        match place.take() {
            Some(block) => free(block),
            None => {
                let size = 16 + (dice >> 32) as usize % (1 << (4 + (dice >> 16) % 8));
                let layout = Layout::from_size_align(size, 8).unwrap();
                let block = allocator.allocate(layout).unwrap().cast::<u8>();
                // SAFETY: the block is at least 16 bytes.
                unsafe { block.write(1) };
                *place = Some((block, layout));
            }
        }
    }
    places.into_iter().flatten().for_each(free);
}

/// Allocates 64 bytes and frees them, with nothing else around.
fn pair(allocator: &impl Allocator) {
    let layout = Layout::new::<[u64; 8]>();
    for _ in 0..1_000 {
        let block = black_box(allocator.allocate(layout).unwrap());
        // SAFETY: just allocated with this layout.
        unsafe { allocator.deallocate(block.cast(), layout) };
    }
}

/// Four vectors that grow by turns to 4,096 numbers each.
fn growth<A: Allocator>(allocator: impl Fn() -> A) {
    let mut vectors = [0; 4].map(|_| VecIn::<u64, A>::new_in(allocator()));
    for i in 0..4_096 {
        vectors.iter_mut().for_each(|v| v.push(i));
    }
    black_box(&vectors);
}

fn allocators(c: &mut Criterion) {
    let arena = Arena::new(BYTES).unwrap();
    let pool = arena.handle();
    let mut memory = vec![1u64; BYTES / 8];
    let buddy = Buddy::heap(&mut memory);

    let mut group = c.benchmark_group("mixed");
    group.bench_function("arena", |b| b.iter(|| mixed(&pool)));
    group.bench_function("system", |b| b.iter(|| mixed(&Libc)));
    group.bench_function("buddy_system_allocator", |b| b.iter(|| mixed(&Buddy(&buddy))));
    group.finish();

    let mut group = c.benchmark_group("pair");
    group.bench_function("arena, empty", |b| b.iter(|| pair(&pool)));
    // A neighbour of that size that stays: nothing to join.
    let neighbour = pool.vec::<u64>(8).unwrap();
    group.bench_function("arena, not empty", |b| b.iter(|| pair(&pool)));
    drop(neighbour);
    group.bench_function("system", |b| b.iter(|| pair(&Libc)));
    group.bench_function("buddy_system_allocator", |b| b.iter(|| pair(&Buddy(&buddy))));
    group.finish();

    let mut group = c.benchmark_group("growth");
    group.bench_function("arena", |b| b.iter(|| growth(|| pool.clone())));
    group.bench_function("system", |b| b.iter(|| growth(|| Global)));
    group.bench_function("buddy_system_allocator", |b| b.iter(|| growth(|| Buddy(&buddy))));
    group.finish();
}

/// As large as what the Gthulhu policy keeps about a task that waits.
type Element = [u64; 10];

/// 1,000 elements in, in random order, and out.
fn heaps(c: &mut Criterion) {
    let arena = Arena::new(BYTES).unwrap();
    let mut ours = Heap::<Element>::new(&arena.handle(), 1_000).unwrap();
    let mut std = BinaryHeap::with_capacity(1_000);
    let mut state = 1;
    let keys: Vec<u64> = (0..1_000).map(|_| random(&mut state)).collect();

    let mut group = c.benchmark_group("heap");
    group.bench_function("pool::Heap", |b| {
        b.iter(|| {
            for &key in &keys {
                let _ = black_box(ours.push(key, [key; 10]));
            }
            while let Some(element) = ours.pop() {
                black_box(element);
            }
        });
    });
    group.bench_function("BinaryHeap", |b| {
        b.iter(|| {
            keys.iter().for_each(|&key| std.push(Reverse((key, [key; 10]))));
            while let Some(element) = std.pop() {
                black_box(element);
            }
        });
    });
    group.bench_function("pool::Heap, out of the middle", |b| {
        b.iter_batched_ref(
            || (),
            |()| {
                let mut ids = [qumun::pool::SlotId::NONE; 1_000];
                for (id, &key) in ids.iter_mut().zip(&keys) {
                    *id = ours.push(key, [key; 10]).unwrap_or_default();
                }
                for &id in &ids {
                    black_box(ours.remove(id));
                }
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

criterion_group! {
    name = pool;
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = allocators, heaps
}
criterion_main!(pool);
