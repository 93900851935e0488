//! The arena, the queue and the heap against the simplest that does the same.

use std::alloc::Layout;
use std::cmp::Reverse;
use std::ptr::NonNull;

use allocator_api2::alloc::Allocator;
use proptest::prelude::*;

use super::*;

/// As told by the environment; under Miri, what ends within minutes.
pub(crate) fn config() -> ProptestConfig {
    let told = ProptestConfig::default();
    if cfg!(miri) { ProptestConfig { cases: 4, failure_persistence: None, ..told } } else { told }
}

const STEPS: usize = if cfg!(miri) { 60 } else { 400 };
const CAPACITY: usize = 16 << 10;

/// A block in use, filled with a byte of its own.
#[derive(Clone, Copy)]
struct Block {
    at: NonNull<u8>,
    len: usize,
    layout: Layout,
    mark: u8,
}

impl Block {
    fn fill(block: NonNull<[u8]>, layout: Layout, mark: u8) -> Self {
        // SAFETY: the block was just allocated.
        unsafe { block.cast::<u8>().write_bytes(mark, block.len()) };
        Self { at: block.cast(), len: block.len(), layout, mark }
    }

    fn is_intact(&self, bytes: usize) -> bool {
        // SAFETY: the block is in use and was filled.
        let bytes = unsafe { std::slice::from_raw_parts(self.at.as_ptr(), bytes.min(self.len)) };
        // By chunks, which Miri compares at once.
        bytes.chunks(256).all(|chunk| chunk == &[self.mark; 256][..chunk.len()])
    }
}

#[derive(Clone, Debug)]
enum Step {
    Allocate(usize, u32),
    Resize(usize, usize),
    Free(usize),
}

fn steps() -> impl Strategy<Value = std::vec::Vec<Step>> {
    let size = || prop_oneof![4 => 0..200usize, 2 => 0..3_000usize, 1 => 0..20_000usize];
    let step = prop_oneof![
        3 => (size(), prop_oneof![5 => 0..5u32, 1 => 0..14u32]).prop_map(|(size, align)| Step::Allocate(size, align)),
        1 => (any::<usize>(), size()).prop_map(|(which, size)| Step::Resize(which, size)),
        2 => any::<usize>().prop_map(Step::Free),
    ];
    proptest::collection::vec(step, 1..STEPS)
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn blocks_are_aligned_apart_and_joined_again(steps in steps(), odd in 0..3usize) {
        // One that is a power of two, and some that are made of several.
        let capacity = CAPACITY + odd * PAGE;
        let arena = Arena::new(capacity).unwrap();
        let handle = arena.handle();
        let whole = arena.fill();
        prop_assert_eq!((whole.capacity, whole.largest_free), (capacity, CAPACITY));
        let mut blocks = std::vec::Vec::<Block>::new();
        let (mut failures, mut high_water) = (0, 0);
        for (step, mark) in steps.into_iter().zip((1..=255u8).cycle()) {
            let before = arena.fill();
            match step {
                Step::Allocate(size, align) => {
                    let layout = Layout::from_size_align(size, 1 << align).unwrap();
                    match handle.allocate(layout) {
                        Ok(block) => {
                            prop_assert!(block.len() >= size && block.cast::<u8>().addr().get() % layout.align() == 0);
                            if size > 0 {
                                let within = block.len().min(PAGE);
                                prop_assert!(block.len() < 2 * size.max(layout.align()).max(MIN_BLOCK));
                                prop_assert_eq!(block.cast::<u8>().addr().get() % within, 0);
                            }
                            blocks.push(Block::fill(block, layout, mark));
                        }
                        Err(AllocError) => {
                            failures += 1;
                            let needs = block_size(layout).unwrap_or(usize::MAX);
                            prop_assert!(needs > before.largest_free);
                            prop_assert_eq!(arena.fill(), Fill { failures, ..before });
                        }
                    }
                }
                Step::Resize(which, size) if !blocks.is_empty() => {
                    let which = which % blocks.len();
                    let old = blocks[which];
                    let new = Layout::from_size_align(size, old.layout.align()).unwrap();
                    // SAFETY: the block is in use, and this is its layout.
                    let block = unsafe {
                        if size >= old.layout.size() {
                            handle.grow(old.at, old.layout, new)
                        } else {
                            handle.shrink(old.at, old.layout, new)
                        }
                    };
                    match block {
                        Ok(block) => {
                            let moved = Block { at: block.cast(), len: block.len(), layout: new, mark: old.mark };
                            prop_assert!(block.len() >= size && moved.is_intact(size.min(old.layout.size())));
                            blocks[which] = Block::fill(block, new, mark);
                        }
                        Err(AllocError) => {
                            failures += 1;
                            prop_assert!(old.is_intact(usize::MAX));
                        }
                    }
                }
                Step::Free(which) if !blocks.is_empty() => {
                    let block = blocks.swap_remove(which % blocks.len());
                    prop_assert!(block.is_intact(usize::MAX));
                    // SAFETY: the block is in use, and this is its layout.
                    unsafe { handle.deallocate(block.at, block.layout) };
                }
                _ => {}
            }
            let fill = arena.fill();
            high_water = high_water.max(fill.in_use);
            prop_assert_eq!(fill.in_use, blocks.iter().map(|b| b.len).sum::<usize>());
            // While a block is copied, there are two.
            prop_assert!(fill.high_water >= high_water && fill.high_water <= capacity);
            prop_assert_eq!(fill.failures, failures);
            prop_assert!(blocks.iter().all(|b| b.is_intact(1)));
            let mut places: std::vec::Vec<_> =
                blocks.iter().filter(|b| b.len > 0).map(|b| (b.at.addr().get(), b.len)).collect();
            places.sort_unstable();
            prop_assert!(places.windows(2).all(|w| w[0].0 + w[0].1 <= w[1].0));
        }
        for block in blocks {
            prop_assert!(block.is_intact(usize::MAX));
            // SAFETY: the block is in use, and this is its layout.
            unsafe { handle.deallocate(block.at, block.layout) };
        }
        let end = arena.fill();
        prop_assert_eq!((end.in_use, end.largest_free), (0, CAPACITY));
        let all = handle.vec::<u8>(CAPACITY);
        prop_assert!(all.is_ok());
    }

    #[test]
    fn a_queue_is_a_list(capacity in 0..6usize, steps in proptest::collection::vec((0..7u8, any::<usize>()), 1..STEPS)) {
        let arena = Arena::new(CAPACITY).unwrap();
        let mut queue = Queue::new(&arena.handle(), capacity).unwrap();
        let (mut naive, mut ids) = (std::vec::Vec::<(SlotId, usize)>::new(), vec![SlotId::NONE]);
        for (value, (step, which)) in steps.into_iter().enumerate() {
            let id = ids[which % ids.len()];
            let at = naive.iter().position(|e| e.0 == id);
            match step {
                0..=2 => match if step == 0 { queue.push_front(value) } else { queue.push(value) } {
                    Ok(id) => {
                        naive.insert(if step == 0 { 0 } else { naive.len() }, (id, value));
                        prop_assert!(!ids.contains(&id));
                        ids.push(id);
                    }
                    Err(back) => prop_assert!(back == value && naive.len() == capacity),
                },
                3 => prop_assert_eq!(queue.pop(), (!naive.is_empty()).then(|| naive.remove(0).1)),
                4 | 5 => prop_assert_eq!(queue.remove(id), at.map(|at| naive.remove(at).1)),
                _ => {
                    prop_assert_eq!(queue.get(id).copied(), at.map(|at| naive[at].1));
                    if let (Some(value), Some(at)) = (queue.get_mut(id), at) {
                        (*value, naive[at].1) = (which, which);
                    }
                }
            }
            prop_assert!(queue.iter().eq(naive.iter().map(|e| &e.1)));
            prop_assert_eq!((queue.len(), queue.is_full()), (naive.len(), naive.len() == capacity));
            prop_assert_eq!((queue.is_empty(), queue.peek()), (naive.is_empty(), naive.first().map(|e| &e.1)));
        }
        queue.clear();
        prop_assert!(queue.is_empty() && ids.iter().all(|&id| queue.get(id).is_none()));
        prop_assert_eq!((0..10).map_while(|i| queue.push(i).ok()).count(), capacity);
    }

    #[test]
    fn a_heap_is_a_sorted_list(capacity in 0..20usize, steps in proptest::collection::vec((0..8u8, any::<usize>(), 0..9u64), 1..STEPS)) {
        let arena = Arena::new(CAPACITY).unwrap();
        let mut heap = Heap::new(&arena.handle(), capacity).unwrap();
        // In the order of arrival; the first of the lowest is the next.
        let (mut naive, mut ids) = (std::vec::Vec::<(SlotId, u64, usize)>::new(), vec![SlotId::NONE]);
        for (value, (step, which, key)) in steps.into_iter().enumerate() {
            let id = ids[which % ids.len()];
            let at = naive.iter().position(|e| e.0 == id);
            let lowest = naive.iter().enumerate().min_by_key(|(at, e)| (e.1, *at)).map(|(at, _)| at);
            match step {
                0..=2 => match heap.push(key, value) {
                    Ok(id) => {
                        naive.push((id, key, value));
                        prop_assert!(!ids.contains(&id));
                        ids.push(id);
                    }
                    Err(back) => prop_assert!(back == value && naive.len() == capacity),
                },
                3 => {
                    prop_assert_eq!(heap.peek().map(|(k, v)| (k, *v)), lowest.map(|at| (naive[at].1, naive[at].2)));
                    let lowest = lowest.map(|at| naive.remove(at));
                    prop_assert_eq!(heap.pop(), lowest.map(|e| (e.1, e.2)));
                }
                4 => prop_assert_eq!(heap.remove(id), at.map(|at| naive.remove(at)).map(|e| (e.1, e.2))),
                5 | 6 => {
                    prop_assert_eq!(heap.update(id, key), at.is_some());
                    if let Some(at) = at {
                        let (id, _, value) = naive.remove(at);
                        naive.push((id, key, value));
                    }
                }
                _ => {
                    prop_assert_eq!(heap.key(id), at.map(|at| naive[at].1));
                    prop_assert_eq!(heap.get(id).copied(), at.map(|at| naive[at].2));
                    if let (Some(value), Some(at)) = (heap.get_mut(id), at) {
                        (*value, naive[at].2) = (which, which);
                    }
                }
            }
            prop_assert_eq!((heap.len(), heap.is_empty()), (naive.len(), naive.is_empty()));
            prop_assert_eq!(heap.is_full(), naive.len() == capacity);
        }
        let mut all: std::vec::Vec<_> = heap.iter().map(|(key, value)| (key, *value)).collect();
        all.sort_unstable();
        let mut expected: std::vec::Vec<_> = naive.iter().map(|e| (e.1, e.2)).collect();
        expected.sort_unstable();
        prop_assert_eq!(all, expected);
        heap.clear();
        prop_assert!(heap.is_empty() && ids.iter().all(|&id| heap.get(id).is_none()));
        prop_assert_eq!((0..30).map_while(|i| heap.push(i, 0).ok()).count(), capacity);
    }
}

#[test]
fn what_is_exhausted_says_so_and_goes_on() {
    let arena = Arena::new(PAGE).unwrap();
    let pool = arena.handle();
    let mut numbers = Vec::<u32>::new_in(pool.clone());
    let pushed = (0..10_000).map_while(|i| numbers.try_push(i).ok()).count();
    assert_eq!((pushed, arena.fill().in_use, arena.fill().largest_free), (PAGE / 4, PAGE, 0));
    assert!(numbers.iter().copied().eq(0..pushed as u32));
    assert_eq!(pool.boxed("back").unwrap_err(), "back");
    assert!(pool.vec::<u8>(1).is_err() && Queue::<u8>::new(&pool, 1).is_err());
    assert!(Heap::<u8>::new(&pool, 1).is_err());
    let failures = arena.fill().failures;
    assert!(failures >= 5, "{failures}");
    drop(numbers);
    assert_eq!(pool.boxed(5).map(|five| *five), Ok(5));
    assert_eq!(
        arena.fill(),
        Fill { in_use: 0, largest_free: PAGE, high_water: PAGE, failures, capacity: PAGE }
    );
}

#[test]
fn a_size_that_nobody_has_is_an_error() {
    for bytes in [usize::MAX, usize::MAX - PAGE, 1 << 62, 200 << 30] {
        assert_eq!(Arena::new(bytes).unwrap_err().kind(), crate::ErrorKind::OutOfMemory, "{bytes}");
    }
    let arena = Arena::new(0).unwrap();
    assert_eq!(arena.fill().capacity, PAGE);
    let pool = arena.handle();
    assert!(pool.vec::<u64>(usize::MAX).is_err() && pool.vec::<u64>(usize::MAX / 16).is_err());
    assert!(Queue::<()>::new(&pool, u32::MAX as usize).is_err());
}

#[test]
fn a_block_grows_where_it_is_if_there_is_room_above() {
    let arena = Arena::new(PAGE).unwrap();
    let mut bytes = arena.handle().vec::<u8>(MIN_BLOCK).unwrap();
    let at = bytes.as_ptr();
    bytes.reserve_exact(PAGE);
    assert_eq!((bytes.as_ptr(), arena.fill().high_water), (at, PAGE));
    bytes.push(1);
    bytes.shrink_to_fit();
    assert_eq!((bytes.as_ptr(), arena.fill().in_use, bytes[0]), (at, MIN_BLOCK, 1));
}

#[test]
fn memory_outlives_the_arena_as_long_as_it_is_used() {
    let arena = Arena::new(PAGE).unwrap();
    let mut queue = Queue::new(&arena.handle(), 2).unwrap();
    let boxed = arena.handle().boxed(String::from("still here")).unwrap();
    drop(arena);
    queue.push(Reverse(1)).unwrap();
    assert_eq!((queue.pop(), boxed.as_str()), (Some(Reverse(1)), "still here"));
}

#[test]
fn elements_are_dropped_once() {
    let arena = Arena::new(CAPACITY).unwrap();
    let counted = std::rc::Rc::new(());
    let mut queue = Queue::new(&arena.handle(), 10).unwrap();
    let mut heap = Heap::new(&arena.handle(), 10).unwrap();
    for key in 0..10u64 {
        queue.push(counted.clone()).unwrap();
        heap.push(key, counted.clone()).unwrap();
    }
    heap.pop();
    queue.pop();
    assert_eq!(std::rc::Rc::strong_count(&counted), 19);
    heap.clear();
    assert_eq!(std::rc::Rc::strong_count(&counted), 10);
    drop(queue);
    assert_eq!(std::rc::Rc::strong_count(&counted), 1);
}

#[test]
fn zeroed_memory_is_zero_after_others_have_used_it() {
    let arena = Arena::new(PAGE).unwrap();
    let pool = arena.handle();
    let mut dirty = pool.vec::<u8>(PAGE).unwrap();
    dirty.resize(PAGE, 0xff);
    drop(dirty);
    let [small, large] = [100, 1_000].map(|size| Layout::from_size_align(size, 8).unwrap());
    // SAFETY: each block is freed or grown with its own layout, and read where it was written.
    unsafe {
        let block = pool.allocate_zeroed(small).unwrap();
        let block = pool.grow_zeroed(block.cast(), small, large).unwrap();
        assert!(
            std::slice::from_raw_parts(block.cast::<u8>().as_ptr(), large.size()).iter().all(|&b| b == 0)
        );
        pool.deallocate(block.cast(), large);
    }
}

#[cfg(debug_assertions)]
mod misuse {
    use super::*;

    #[test]
    #[should_panic(expected = "freed twice, or not from here")]
    fn a_double_free_is_detected() {
        let pool = Arena::new(PAGE).unwrap().handle();
        let layout = Layout::new::<u64>();
        let block = pool.allocate(layout).unwrap().cast();
        // SAFETY: the second is not allowed, and does not touch memory: it panics.
        unsafe {
            pool.deallocate(block, layout);
            pool.deallocate(block, layout);
        }
    }

    #[test]
    #[should_panic(expected = "freed twice, or not from here")]
    fn a_foreign_pointer_is_detected() {
        let pool = Arena::new(PAGE).unwrap().handle();
        let mut local = 0u64;
        // SAFETY: not allowed, and does not touch memory: it panics.
        unsafe { pool.deallocate(NonNull::from(&mut local).cast(), Layout::new::<u64>()) };
    }
}

#[cfg(all(target_os = "linux", not(miri)))]
#[test]
fn a_locked_arena_is_locked_until_it_is_dropped() {
    let locked = || {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmLck:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    // Smaller than what any system allows. Other tests of this process lock nothing.
    let arena = Arena::new(4 * PAGE).unwrap();
    match arena.lock() {
        Ok(()) => assert_eq!(locked(), 5 * PAGE as u64 / 1024),
        Err(error) => return assert!(format!("{error:#}").contains("RLIMIT_MEMLOCK"), "{error:#}"),
    }
    drop(arena);
    assert_eq!(locked(), 0);
}
