//! How the values are written, and that what is read is checked.
#![allow(missing_docs)]

use gthulhu_model::{
    Budget, Class, Comm, Floor, Level, Priority, Slice, Strategy, StrategyId, Target, TaskNumber, ThreadId,
    Ttl,
};
use serde_json::{Value, from_value, json, to_value};

fn round_trip<T>(value: T, written: Value)
where
    T: serde::Serialize + serde::de::DeserializeOwned + PartialEq + std::fmt::Debug,
{
    assert_eq!(to_value(&value).unwrap(), written);
    assert_eq!(from_value::<T>(written).unwrap(), value);
}

#[test]
fn every_class_comes_back() {
    for class in Class::all() {
        let written = match class {
            Class::BestEffort => json!("bestEffort"),
            Class::Normal => json!("normal"),
            Class::Latency(level) => json!({ "latency": level.number() }),
            Class::Isolated => json!("isolated"),
        };
        round_trip(class, written);
    }
}

#[test]
fn priorities_come_back_and_what_is_not_said_is_not_written() {
    round_trip(Priority::default(), json!({ "class": "normal" }));
    let slice = Some(Slice::MIN);
    round_trip(Priority { slice, ..Priority::default() }, json!({ "class": "normal", "sliceNs": 10_000 }));
    let class = Class::Latency(Level::new(3).unwrap());
    let all = Priority { class, slice, budget: Some(Budget::DEFAULT) };
    let written = json!({
        "class": { "latency": 3 }, "sliceNs": 10_000, "budget": { "millicpu": 200, "burstMs": 20 },
    });
    round_trip(all, written);
    let slice_only: Priority = from_value(json!({ "sliceNs": 10_000 })).unwrap();
    assert_eq!(slice_only.class, Class::Normal);
    let budget: Budget = from_value(json!({ "millicpu": 5 })).unwrap();
    assert_eq!(budget.burst_ms(), Budget::DEFAULT.burst_ms());
}

#[test]
fn strategies_come_back() {
    let id = StrategyId::new(7).unwrap();
    let thread = ThreadId { pid: 12, started: 34 };
    for (target, written) in [
        (Target::Task(TaskNumber::new(9).unwrap()), json!({ "task": 9 })),
        (Target::Thread(thread), json!({ "thread": { "pid": 12, "started": 34 } })),
        (Target::Process(thread), json!({ "process": { "pid": 12, "started": 34 } })),
        (Target::Comm(Comm::new("nginx").unwrap()), json!({ "comm": "nginx" })),
    ] {
        let strategy = Strategy { id, target, priority: Priority::default(), ttl: Ttl::DEFAULT };
        round_trip(
            strategy,
            json!({ "id": 7, "target": written, "priority": { "class": "normal" }, "ttlSecs": 90 }),
        );
    }
    round_trip(Floor::DEFAULT, json!(200));
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_reason() {
    let refused = |written: Value| from_value::<Priority>(written).unwrap_err().to_string();
    for (written, reason) in [
        (json!({ "class": { "latency": 21 } }), "give 0 to 20"),
        (json!({ "sliceNs": 0 }), "give 10000 to"),
        (json!({ "budget": { "millicpu": 0 } }), "give 1 to 32000m"),
        (json!({ "budget": { "millicpu": 1, "burstMs": 0 } }), "give 1 to 1000 ms"),
        (json!({ "bugdet": { "millicpu": 1 } }), "unknown field `bugdet`"),
        (json!({ "budget": { "millicpu": 1, "burst": 0 } }), "unknown field `burst`"),
        (json!({ "class": "urgent" }), "unknown variant"),
    ] {
        let error = refused(written);
        assert!(error.contains(reason), "{error}");
    }
    assert!(from_value::<Ttl>(json!(0)).is_err());
    assert!(from_value::<Floor>(json!(0)).is_err());
    assert!(from_value::<TaskNumber>(json!(0)).is_err());
    assert!(from_value::<StrategyId>(json!(1u64 << 60)).is_err());
    assert!(from_value::<Comm>(json!("sixteen-bytes-xx")).is_err());
    assert!(to_value(Comm::new([0xff]).unwrap()).is_err(), "no text for it");
}
