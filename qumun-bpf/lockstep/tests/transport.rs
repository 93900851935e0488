//! The C side of the shared arrays: against an agent that writes anything there, and with several CPUs at once beside the
//! agent's own code.
#![allow(missing_docs)]

use std::sync::atomic::Ordering;

use qumun_bpf::array::{Reader, Writer};
use qumun_bpf::protocol::Position::{Consumer, Producer};
use qumun_bpf::wire::{DECISION_SLOTS, Decision, EVENT_SLOTS, Event};
use qumun_lockstep::{AgentEvents, Arrays, BATCH, Decisions};

const E2BIG: i64 = -7;
const CASES: u64 = if cfg!(debug_assertions) { 100_000 } else { 2_000_000 };
/// Records through the arrays by threads: many times round.
const RECORDS: u64 = if cfg!(debug_assertions) { 100_000 } else { 1_000_000 };

/// xorshift64* (Vigna, 2016).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    /// A position as an agent might leave it: near the core's, a round away, behind, or anything.
    fn position(&mut self, at: u64, slots: u64) -> u64 {
        match self.below(8) {
            0 => self.next(),
            1 => u64::MAX - self.below(3),
            2 => at.wrapping_sub(self.below(70)),
            3 => at.wrapping_add(slots).wrapping_add(self.below(5)).wrapping_sub(2),
            4 => at.wrapping_add(1 << 63).wrapping_add(self.below(5)).wrapping_sub(2),
            _ => at.wrapping_add(self.below(70)),
        }
    }
}

#[test]
fn whatever_is_published_a_bounded_number_is_copied_to_its_place() {
    let (arrays, mut random) = (Arrays::new(64), Random(0x9e37_79b9_7f4a_7c15));
    let mark = |slot: u64| Decision { generation: slot, pid: 1, ..Decision::default() };
    (0..DECISION_SLOTS as u64).for_each(|slot| {
        // SAFETY: nobody else uses the arrays now.
        unsafe { arrays.slot(slot).write(mark(slot)) }
    });
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..CASES {
        let at = arrays.core(Consumer).load(Ordering::Relaxed);
        let published = random.position(at, DECISION_SLOTS as u64);
        arrays.agent(Producer).store(published, Ordering::Relaxed);
        // More than fits a batch: no caller says that, and nothing must come of it.
        let n = random.below(BATCH as u64 + 3) as u32;
        let before = arrays.batch(3);
        let got = arrays.take(3, n);
        let (there, room) = (published.wrapping_sub(at) as i64, i64::from((BATCH as u32).saturating_sub(n)));
        let wanted = match there {
            ..=0 => 0,
            n if n > DECISION_SLOTS as i64 => E2BIG,
            n => n.min(room),
        };
        assert_eq!(got, wanted, "{published} published, {at} taken, {n} in the batch");
        assert_eq!(arrays.core(Consumer).load(Ordering::Relaxed), at + got.max(0) as u64);
        for (i, (was, is)) in before.iter().zip(&arrays.batch(3)).enumerate() {
            match (i as i64 - i64::from(n), got) {
                (new, got) if (0..got).contains(&new) => {
                    assert_eq!(*is, mark((at + new as u64) % DECISION_SLOTS as u64));
                }
                _ => assert_eq!(was, is, "only what was taken is written"),
            }
        }
        (taken, refused) = (taken + got.max(0), refused + i64::from(got < 0));
    }
    assert!(taken as u64 > CASES && refused as u64 > CASES / 10, "{taken} taken, {refused} refused");
}

#[test]
fn whatever_was_read_events_are_sent_into_their_slot_or_not_at_all() {
    const ROOM: u64 = 100;
    let (arrays, mut random) = (Arrays::new(ROOM), Random(0xd1b5_4a32_d192_ed03));
    let (mut sent, mut full) = (0, 0);
    for case in 0..CASES {
        let at = arrays.core(Producer).load(Ordering::Relaxed);
        let read = match random.below(4) {
            0 => random.position(at, EVENT_SLOTS as u64),
            1 => at.wrapping_sub(ROOM).wrapping_add(random.below(4)),
            _ => at.wrapping_sub(random.below(ROOM)),
        };
        arrays.agent(Consumer).store(read, Ordering::Relaxed);
        let is_sent = arrays.send(case as i32);
        assert_eq!(is_sent, at.wrapping_sub(read) < ROOM, "{at} sent, {read} read");
        assert_eq!(arrays.core(Producer).load(Ordering::Relaxed), at + u64::from(is_sent));
        if is_sent {
            arrays.agent(Consumer).store(at, Ordering::Relaxed);
            let event: Option<Event> = Reader::new(AgentEvents(&arrays)).pop();
            assert_eq!(event.map(|e| (e.pid, e.generation)), Some((case as i32, !case)));
        }
        (sent, full) = (sent + u64::from(is_sent), full + u64::from(!is_sent));
    }
    assert!(sent > CASES / 10 && full > CASES / 10, "{sent} sent, {full} found no room");
}

/// Two CPUs send, the agent reads: nothing is lost, doubled or torn, and each CPU's events stay in order.
#[test]
fn events_of_two_cpus_arrive_once_and_whole() {
    let arrays = Arrays::new(EVENT_SLOTS as u64 - 4);
    let each = RECORDS as i32 / 2;
    std::thread::scope(|scope| {
        for cpu in 0..2 {
            let arrays = &arrays;
            scope.spawn(move || {
                for n in 0..each {
                    while !arrays.send(n * 2 + cpu) {
                        std::thread::yield_now();
                    }
                }
            });
        }
        let mut reader = Reader::new(AgentEvents(&arrays));
        let mut next = [0, 1];
        for read in 1.. {
            let Some(event) = reader.pop::<Event>() else {
                reader.release();
                if next == [each * 2, each * 2 + 1] {
                    break;
                }
                std::thread::yield_now();
                continue;
            };
            assert_eq!(event.generation, !(event.pid as u64), "a torn event");
            let next = &mut next[event.pid as usize & 1];
            assert_eq!(event.pid, *next, "in order, none lost, none twice");
            *next += 2;
            if read % 61 == 0 {
                reader.release();
            }
        }
        assert_eq!(reader.corrupted(), 0);
    });
}

/// The agent publishes batches, two CPUs take: each decision goes to one of them, whole, in order.
#[test]
fn decisions_are_taken_by_one_cpu_each() {
    let arrays = Arrays::new(64);
    let seen: Vec<Vec<u64>> = std::thread::scope(|scope| {
        let cpus = [0, 1].map(|cpu| {
            let arrays = &arrays;
            scope.spawn(move || {
                let mut seen = Vec::new();
                while seen.last() != Some(&(RECORDS - 1)) {
                    // Decisions that wait for their task are in front of the batch, sometimes.
                    let n = seen.len() as u32 % 7;
                    let got = arrays.take(cpu, n);
                    assert!(got >= 0 || got == -16, "error {got}");
                    if got <= 0 {
                        if arrays.core(Consumer).load(Ordering::Relaxed)
                            == arrays.agent(Producer).load(Ordering::Relaxed)
                            && arrays.agent(Consumer).load(Ordering::Acquire) == 1
                        {
                            break;
                        }
                        std::thread::yield_now();
                    }
                    for d in arrays.batch(cpu).iter().skip(n as usize).take(got.max(0) as usize) {
                        assert_eq!((d.vtime, d.decided_at), (!d.generation, d.generation), "a torn decision");
                        seen.push(d.generation);
                    }
                }
                seen
            })
        });
        let mut writer = Writer::new(Decisions(&arrays));
        arrays.agent(Consumer).store(0, Ordering::Relaxed);
        writer.resync();
        for n in 0..RECORDS {
            let decision = Decision { generation: n, vtime: !n, decided_at: n, ..Decision::default() };
            while !writer.push(&decision) {
                writer.publish();
                std::thread::yield_now();
            }
            if n % 17 == 0 {
                writer.publish();
            }
        }
        writer.publish();
        // The position in the events is not used here: it says that no more will come.
        arrays.agent(Consumer).store(1, Ordering::Release);
        cpus.map(|cpu| cpu.join().expect("no panic")).into()
    });
    let mut all: Vec<u64> = seen.iter().flatten().copied().collect();
    assert!(seen.iter().all(|one| one.is_sorted()), "in order on each CPU");
    all.sort_unstable();
    assert!(all.iter().copied().eq(0..RECORDS), "each once: {} of {RECORDS}", all.len());
}
