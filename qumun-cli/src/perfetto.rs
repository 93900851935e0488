//! The trace format of Perfetto (protobuf, `protos/perfetto/trace/trace_packet.proto`), written by hand: the few fields
//! that tracks, slices, counters and flows need.

use std::collections::HashMap;

use qumun::Nanos;

use crate::figures::Run;

/// Field numbers.
mod field {
    pub(super) mod packet {
        pub(crate) const TIMESTAMP: u32 = 8;
        pub(crate) const SEQUENCE: u32 = 10;
        pub(crate) const TRACK_EVENT: u32 = 11;
        pub(crate) const TRACK: u32 = 60;
    }
    pub(super) mod track {
        pub(crate) const UUID: u32 = 1;
        pub(crate) const NAME: u32 = 2;
        pub(crate) const PARENT: u32 = 5;
        pub(crate) const COUNTER: u32 = 8;
        /// How children are ordered: 3 is by rank.
        pub(crate) const CHILD_ORDERING: u32 = 11;
        pub(crate) const RANK: u32 = 12;
    }
    pub(super) mod event {
        pub(crate) const TYPE: u32 = 9;
        pub(crate) const TRACK: u32 = 11;
        pub(crate) const CATEGORY: u32 = 22;
        pub(crate) const NAME: u32 = 23;
        pub(crate) const COUNTER_VALUE: u32 = 30;
        pub(crate) const FLOW: u32 = 47;
        pub(crate) const FLOW_ENDS: u32 = 48;
    }
}

const BEGIN: u64 = 1;
const END: u64 = 2;
const INSTANT: u64 = 3;
const COUNTER: u64 = 4;
const BY_RANK: u64 = 3;
/// One writer of packets.
const SEQUENCE: u64 = 1;

#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3);
        self.varint(value);
    }

    fn fixed(&mut self, field: u32, value: u64) {
        self.varint(u64::from(field) << 3 | 1);
        self.0.extend(value.to_le_bytes());
    }

    fn bytes(&mut self, field: u32, bytes: &[u8]) {
        self.varint(u64::from(field) << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }
}

/// Runs as one Perfetto trace: each a group of tracks, one for each CPU with a slice for each time a task was on it, one for
/// the agent, one for each counter, and arrows from wakers to the woken. Open it in <https://ui.perfetto.dev>.
pub fn perfetto(runs: &[Run]) -> Vec<u8> {
    let mut out = Message::default();
    let mut next = 1;
    let mut flow = 1;
    for (run, rank) in runs.iter().zip(0..) {
        one(&mut out, run, rank, &mut next, &mut flow);
    }
    out.0
}

fn track(out: &mut Message, uuid: u64, name: &str, parent: Option<u64>, rank: u64, counter: bool) {
    let mut track = Message::default();
    track.number(field::track::UUID, uuid);
    track.bytes(field::track::NAME, name.as_bytes());
    match parent {
        Some(parent) => track.number(field::track::PARENT, parent),
        None => track.number(field::track::CHILD_ORDERING, BY_RANK),
    }
    track.number(field::track::RANK, rank);
    if counter {
        track.bytes(field::track::COUNTER, &[]);
    }
    let mut packet = Message::default();
    packet.number(field::packet::SEQUENCE, SEQUENCE);
    packet.bytes(field::packet::TRACK, &track.0);
    out.bytes(1, &packet.0);
}

fn event(out: &mut Message, at: Nanos, track: u64, sort: u64, fill: impl FnOnce(&mut Message)) {
    let mut event = Message::default();
    event.number(field::event::TYPE, sort);
    event.number(field::event::TRACK, track);
    fill(&mut event);
    let mut packet = Message::default();
    packet.number(field::packet::TIMESTAMP, at.0);
    packet.number(field::packet::SEQUENCE, SEQUENCE);
    packet.bytes(field::packet::TRACK_EVENT, &event.0);
    out.bytes(1, &packet.0);
}

/// What happens on one track at one moment: ends first.
enum Mark {
    End(u64),
    Begin(u64, u32),
    Wakes(u64, u32),
    Value(u64, u64),
}

fn one(out: &mut Message, run: &Run, rank: u64, next: &mut u64, flow: &mut u64) {
    let mut new = |out: &mut Message, name: &str, parent, rank, counter| {
        let uuid = *next;
        *next += 1;
        track(out, uuid, name, parent, rank, counter);
        uuid
    };
    let all = new(out, &format!("{} ({})", run.name, run.header.scheduler), None, rank, false);
    let mut marks: Vec<(Nanos, u8, Mark)> = Vec::new();
    let cpus: Vec<u64> = (0..run.cpus.len())
        .map(|cpu| new(out, &format!("CPU {cpu}"), Some(all), 1 + cpu as u64, false))
        .collect();
    let agent = new(out, "agent", Some(all), 2_000, false);
    for (slices, &cpu) in run.cpus.iter().zip(&cpus) {
        // What took no time cannot be drawn: its end would come before its beginning.
        for slice in slices.iter().filter(|slice| slice.time > Nanos::ZERO) {
            let end = slice.start + slice.time;
            let tracks = [Some(cpu), run.tasks[slice.task as usize].agent.then_some(agent)];
            for track in tracks.into_iter().flatten() {
                marks.push((slice.start, 1, Mark::Begin(track, slice.task)));
                marks.push((end, 0, Mark::End(track)));
            }
        }
    }
    for wake in &run.wakes {
        marks.push((wake.at, 2, Mark::Wakes(cpus[wake.cpu.0 as usize], wake.woken)));
    }
    for (counter, rank) in run.counters.iter().zip(3_000..) {
        let track = new(out, &counter.name, Some(all), rank, true);
        marks.extend(counter.points.iter().map(|&(at, value)| (at, 3, Mark::Value(track, value))));
    }
    marks.sort_by_key(|(at, order, _)| (*at, *order));
    let start = run.header.start;
    // Woken, and not on a CPU yet: the flow that leads there.
    let mut flows: HashMap<u32, u64> = HashMap::new();
    for (at, _, mark) in marks {
        let at = start + at;
        match mark {
            Mark::End(track) => event(out, at, track, END, |_| {}),
            Mark::Begin(track, task) => {
                let figures = &run.tasks[task as usize];
                let arrow = flows.remove(&task);
                event(out, at, track, BEGIN, |event| {
                    event.bytes(field::event::NAME, format!("{} {}", figures.name, figures.pid).as_bytes());
                    let group = run.groups.get(figures.group).map_or("agent", |group| group.name.as_str());
                    event.bytes(field::event::CATEGORY, group.as_bytes());
                    if let Some(arrow) = arrow {
                        event.fixed(field::event::FLOW_ENDS, arrow);
                    }
                });
            }
            Mark::Wakes(track, task) => {
                *flow += 1;
                flows.insert(task, *flow);
                let name = format!("wakes {}", run.tasks[task as usize].name);
                event(out, at, track, INSTANT, |event| {
                    event.bytes(field::event::NAME, name.as_bytes());
                    event.fixed(field::event::FLOW, *flow);
                });
            }
            Mark::Value(track, value) => event(out, at, track, COUNTER, |event| {
                event.number(field::event::COUNTER_VALUE, value);
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use qumun::sim::{Scenario, Shape};
    use qumun::trace::Reader;

    use super::*;
    use crate::Policy;

    /// Fields of a message: number, and a varint, eight bytes, or bytes.
    fn fields(mut bytes: &[u8]) -> Vec<(u64, u64, &[u8])> {
        fn varint(bytes: &mut &[u8]) -> u64 {
            let mut value = 0;
            for shift in (0..).step_by(7) {
                let byte = bytes[0];
                *bytes = &bytes[1..];
                value |= u64::from(byte & 0x7f) << shift;
                if byte < 0x80 {
                    break;
                }
            }
            value
        }
        let mut all = Vec::new();
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            match key & 7 {
                0 => all.push((key >> 3, varint(&mut bytes), &[][..])),
                1 => {
                    all.push((key >> 3, u64::from_le_bytes(bytes[..8].try_into().unwrap()), &[][..]));
                    bytes = &bytes[8..];
                }
                2 => {
                    let len = varint(&mut bytes) as usize;
                    all.push((key >> 3, 0, &bytes[..len]));
                    bytes = &bytes[len..];
                }
                wire => panic!("wire type {wire}"),
            }
        }
        all
    }

    #[test]
    fn tracks_slices_and_flows_are_those_of_the_run() {
        let mut scenario = Scenario::new(2).unwrap();
        scenario.work = Shape::Requests.workload(2);
        scenario.time = Nanos::from_millis(300);
        let trace = "gthulhu".parse::<Policy>().unwrap().simulate(&scenario).unwrap();
        let run = Run::read("run", Reader::new(trace.as_slice()).unwrap()).unwrap();
        let bytes = perfetto(std::slice::from_ref(&run));
        let (mut names, mut open, mut sums) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let (mut begun, mut ended) = (0, 0);
        let mut before = 0;
        for (number, _, packet) in fields(&bytes) {
            assert_eq!(number, 1);
            let packet = fields(packet);
            let get = |fields: &[(u64, u64, &[u8])], wanted: u32| {
                fields.iter().find(|(number, ..)| *number == u64::from(wanted)).map(|(_, value, _)| *value)
            };
            if let Some((_, _, track)) = packet.iter().find(|(n, ..)| *n == u64::from(field::packet::TRACK)) {
                let track = fields(track);
                let name = track.iter().find(|(n, ..)| *n == u64::from(field::track::NAME)).unwrap().2;
                names.insert(
                    get(&track, field::track::UUID).unwrap(),
                    String::from_utf8(name.to_vec()).unwrap(),
                );
                continue;
            }
            let at = get(&packet, field::packet::TIMESTAMP).unwrap();
            assert!(at >= before);
            before = at;
            let event = packet.iter().find(|(n, ..)| *n == u64::from(field::packet::TRACK_EVENT)).unwrap().2;
            let event = fields(event);
            let track = get(&event, field::event::TRACK).unwrap();
            assert!(names.contains_key(&track));
            begun += u32::from(get(&event, field::event::FLOW).is_some());
            ended += u32::from(get(&event, field::event::FLOW_ENDS).is_some());
            match get(&event, field::event::TYPE).unwrap() {
                BEGIN => assert!(open.insert(track, at).is_none(), "two on {}", names[&track]),
                END => {
                    let sum: &mut u64 = sums.entry(names[&track].clone()).or_default();
                    *sum += at - open.remove(&track).expect("an end of nothing");
                }
                _ => {}
            }
        }
        assert!(open.is_empty());
        for (slices, cpu) in run.cpus.iter().zip(0..) {
            let sum: u64 = slices.iter().map(|slice| slice.time.0).sum();
            assert_eq!(sums[&format!("CPU {cpu}")], sum);
        }
        assert_eq!(sums["agent"], run.agent_ran.0);
        assert!(names.values().any(|name| name == "parked"));
        assert!(begun >= ended && ended > 100, "{begun} flows, {ended} arrive");
    }
}
