//! The strategies of a node, as a decision maker tells them.

use gthulhu_model::{Budget, Class, Priority, Slice, Ttl, legacy};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The answer of [`STRATEGIES`](crate::paths::STRATEGIES). It has no envelope, as in the original.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct StrategyList {
    /// `true`, or the rest means nothing.
    pub success: bool,
    /// For people.
    #[serde(default)]
    pub message: String,
    /// When, by the clock of who answers.
    #[serde(default)]
    pub timestamp: String,
    /// All strategies of the node; `null` for none, as Go writes it. Each is looked at by itself: one that is wrong
    /// does not take the others with it.
    #[serde(default, deserialize_with = "null_is_none")]
    pub scheduling: Vec<Value>,
    /// Which list it is: each that differs from the one before has a greater number. The original has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    /// Who counts the generations: another text after a restart. The original has none.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instance: String,
}

/// What is wanted for a process. Only `pid` is needed; absent, zero and `null` are one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// The process, or one thread of one that is not its first.
    pub pid: i64,
    /// When that was started, in clock ticks (100 a second) since boot: then a pid that was given to another process
    /// meanwhile is not taken for it. The original has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started: Option<u64>,
    /// A number or, as in the first API, a boolean. What it means is in [`Record::priority`].
    #[serde(skip_serializing_if = "Value::is_null")]
    pub priority: Value,
    /// The slice in nanoseconds; 0 for none.
    #[serde(deserialize_with = "null_is_none")]
    pub execution_time: u64,
    /// By which labels its pod was found. For people: they have been followed already.
    #[serde(deserialize_with = "null_is_none", skip_serializing_if = "Vec::is_empty")]
    pub selectors: Vec<Selector>,
    /// By which names its processes were found.
    #[serde(deserialize_with = "null_is_none", skip_serializing_if = "String::is_empty")]
    pub command_regex: String,
    /// Which strategy of the user's it is from. Records of one share a budget. The original has none.
    #[serde(deserialize_with = "null_is_none", skip_serializing_if = "String::is_empty")]
    pub strategy: String,
    /// In place of `priority`. The original has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The original has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<Budget>,
    /// For how long it holds unless it is told again, in seconds. The original has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_sec: Option<Ttl>,
}

/// A label of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Selector {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
}

/// What is in a list.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// What is wanted, and for whom, in the list's order.
    pub records: Vec<(Record, Priority)>,
    /// What makes no sense.
    pub left: Vec<Left>,
}

/// A record that makes no sense, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Left {
    /// Where it stands in `scheduling`.
    pub index: usize,
    /// Which field is wrong, what with it, and what is allowed.
    pub why: String,
}

impl StrategyList {
    /// A list that says more than one node can have is not read to its end.
    pub const MOST: usize = 16_384;

    /// Looks at each record.
    ///
    /// # Errors
    /// When the list as a whole says that it means nothing, or has more than [`MOST`](Self::MOST) records.
    pub fn records(self) -> Result<Found, String> {
        if !self.success {
            let said = crate::envelope::one_line(&self.message, 200);
            return Err(format!("it says success: false ({said})"));
        }
        if self.scheduling.len() > Self::MOST {
            return Err(format!(
                "scheduling has {} records; {} is the most",
                self.scheduling.len(),
                Self::MOST
            ));
        }
        let mut found = Found::default();
        for (index, value) in self.scheduling.into_iter().enumerate() {
            match Record::read(value) {
                Ok(record) => found.records.push(record),
                Err(why) => found.left.push(Left { index, why: format!("scheduling[{index}].{why}") }),
            }
        }
        Ok(found)
    }
}

impl Record {
    /// Field by field, so that what is wrong can be named.
    fn read(value: Value) -> Result<(Self, Priority), String> {
        let Value::Object(fields) = &value else { return Err("pid: is missing: it is no object".into()) };
        for (name, allowed) in [("pid", "1 to 4194304"), ("execution_time", "0 to 1000000000 ns")] {
            let fits = |v: &Value| v.is_null() || v.is_u64();
            if let Some(wrong) = fields.get(name).filter(|v| !fits(v)) {
                let wrong = crate::envelope::one_line(&wrong.to_string(), 60);
                return Err(format!("{name}: {wrong} is not allowed; give {allowed}"));
            }
        }
        let record: Self = serde_json::from_value(value).map_err(|e| {
            crate::envelope::one_line(&format!("pid: cannot be read with the rest: {e}"), 200)
        })?;
        // PID_MAX_LIMIT of the kernel.
        if !(1..=4_194_304).contains(&record.pid) {
            return Err(format!("pid: {} is no process; give 1 to 4194304", record.pid));
        }
        let priority = record.priority()?;
        Ok((record, priority))
    }

    /// What is wanted, in the one meaning that words have here.
    ///
    /// `class` is stronger than `priority`. Of `priority`, a boolean is the first API's; 1 to 20 is the level; 0, absent or `null` is
    /// none, that is the slice only: the original wrote 0 for whatever had not been said, so it cannot be the strongest level,
    /// for which `class` is. See [`legacy`].
    ///
    /// # Errors
    /// Which field is wrong.
    pub fn priority(&self) -> Result<Priority, String> {
        let execution_time = self.execution_time;
        let old = |e: gthulhu_model::Error, field: &str| format!("{field}: {e}");
        let slice = match execution_time {
            0 => None,
            ns => Some(Slice::from_nanos(ns).map_err(|e| old(e, "execution_time"))?),
        };
        let number = |n: i64| match n {
            0 => Ok(Priority::default()),
            n => Priority::try_from(legacy::Scale { priority: n, execution_time: 0 })
                .map_err(|e| old(e, "priority")),
        };
        let base = match (&self.class, &self.priority) {
            (Some(class), _) => Priority::new(*class),
            (None, Value::Null) => Priority::default(),
            (None, Value::Bool(priority)) => {
                Priority::try_from(legacy::Flag { priority: *priority, execution_time: 0 })
                    .map_err(|e| old(e, "priority"))?
            }
            (None, Value::Number(n)) => match n.as_i64() {
                Some(n) => number(n)?,
                None => return Err(format!("priority: {n} is not allowed; give 0 to 20")),
            },
            (None, other) => {
                let other = crate::envelope::one_line(&other.to_string(), 60);
                return Err(format!("priority: {other} is not allowed; give 0 to 20"));
            }
        };
        Ok(Priority { slice, budget: self.budget, ..base })
    }
}

fn null_is_none<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    d: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use gthulhu_model::Level;
    use serde_json::json;

    fn list(scheduling: Value) -> Result<Found, String> {
        serde_json::from_value::<StrategyList>(json!({ "success": true, "scheduling": scheduling }))
            .unwrap()
            .records()
    }

    #[test]
    fn the_original_s_answer_is_understood() {
        let text = r#"{"success":true,"message":"ok","timestamp":"2026-08-17T09:01:01Z","scheduling":[
            {"priority":3,"execution_time":20000000,"pid":12,"selectors":[{"key":"app","value":"web"}],"command_regex":"nginx"},
            {"priority":0,"execution_time":2000000,"pid":13,"selectors":null,"command_regex":""},
            {"priority":true,"pid":14}, {"pid":15, "unknown": {"to": "us"}}]}"#;
        let found = serde_json::from_str::<StrategyList>(text).unwrap().records().unwrap();
        assert_eq!(found.left, []);
        let classes: Vec<_> = found.records.iter().map(|(_, priority)| priority.class).collect();
        let level = |n| Class::Latency(Level::new(n).unwrap());
        assert_eq!(classes, [level(3), Class::Normal, level(10), Class::Normal]);
        assert_eq!(found.records[1].1.slice.map(Slice::as_nanos), Some(2_000_000));
        assert_eq!(found.records[0].0.selectors[0].value, "web");
        let none: StrategyList = serde_json::from_str(r#"{"success":true,"scheduling":null}"#).unwrap();
        assert_eq!(none.records().unwrap(), Found::default());
    }

    #[test]
    fn what_the_original_had_no_word_for_can_be_said() {
        let all = json!([{ "pid": 1, "priority": 7, "class": { "latency": 0 }, "budget": { "millicpu": 500 }, "ttl_sec": 30, "strategy": "a" },
            { "pid": 2, "class": "bestEffort" }]);
        let found = list(all).unwrap();
        let (record, priority) = &found.records[0];
        assert_eq!(
            (priority.class, priority.budget.map(Budget::share)),
            (Class::Latency(Level::STRONGEST), Some(500))
        );
        assert_eq!((record.ttl_sec.map(Ttl::as_secs), &*record.strategy), (Some(30), "a"));
        assert_eq!(found.records[1].1.class, Class::BestEffort);
    }

    #[test]
    fn what_is_wrong_is_left_out_by_its_place_and_field_and_the_rest_is_taken() {
        let wrong = json!([
            7, { "priority": 3 }, { "pid": -4 }, { "pid": "12" }, { "pid": 9, "priority": 21 }, { "pid": 9, "priority": -1 },
            { "pid": 9, "priority": "high" }, { "pid": 9, "execution_time": -5 }, { "pid": 9, "execution_time": 9 },
            { "pid": 9, "priority": 1.5 }, { "pid": 1e300 }, { "pid": 9, "budget": { "millicpu": 0 } }, { "pid": 9, "ttl_sec": 0 },
            { "pid": 9, "class": "urgent" }, { "pid": 8, "priority": 2 }
        ]);
        let found = list(wrong).unwrap();
        assert_eq!(found.records.len(), 1);
        assert_eq!(found.left.iter().map(|left| left.index).collect::<Vec<_>>(), (0..14).collect::<Vec<_>>());
        for (index, words) in [
            (0, "scheduling[0].pid: is missing"),
            (2, "pid: -4 is not allowed; give 1 to 4194304"),
            (3, "pid: \"12\" is not allowed"),
            (4, "priority: a level (0 is the strongest) of 21 is out of range: give 0 to 20"),
            (6, "priority: \"high\" is not allowed; give 0 to 20"),
            (7, "execution_time: -5 is not allowed"),
            (8, "execution_time: a slice of 9 ns is out of range"),
            (13, "urgent"),
        ] {
            assert!(found.left[index].why.contains(words), "{}", found.left[index].why);
        }
        let no: StrategyList =
            serde_json::from_str(r#"{"success":false,"message":"not\nyet","scheduling":[{"pid":1}]}"#)
                .unwrap();
        assert!(no.records().unwrap_err().contains("(not yet)"));
        assert!(
            list(Value::Array(vec![json!(1); StrategyList::MOST + 1]))
                .unwrap_err()
                .contains("16384 is the most")
        );
    }
}
