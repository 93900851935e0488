//! Every older value, and every class against every older form.

use super::*;
use crate::{Budget, ErrorKind};

/// None, the bounds, and what the documentation of the original shows.
const TIMES: [u64; 5] = [0, 10_000, 10_000_000, 20_000_000, 1_000_000_000];
const BAD_TIMES: [u64; 5] = [1, 9_999, 1_000_000_001, u64::MAX >> 32, u64::MAX];

#[test]
fn each_flag_comes_back() {
    for execution_time in TIMES {
        for priority in [false, true] {
            let old = Flag { priority, execution_time };
            let new = Priority::try_from(old).unwrap();
            assert_eq!(new.class, if priority { FRONT } else { Class::Normal });
            assert_eq!(new.slice.map_or(0, Slice::as_nanos), execution_time);
            assert_eq!(Flag::try_from(new), Ok(old));
        }
    }
}

#[test]
fn each_number_of_the_scale_comes_back_and_no_other_is_taken() {
    for execution_time in TIMES {
        for priority in (-1_000..1_000).chain([i64::MIN, i64::MAX, 256, 1 << 32]) {
            let old = Scale { priority, execution_time };
            let new = Priority::try_from(old);
            if !(0..=20).contains(&priority) {
                let error = new.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::OutOfRange);
                let text = error.to_string();
                assert!(
                    text.contains(&format!("of {priority} ")) && text.ends_with("give 0 to 20"),
                    "{text}"
                );
                continue;
            }
            let new = new.unwrap();
            let Class::Latency(level) = new.class else { panic!("{new:?}") };
            assert_eq!(i64::from(level.number()), priority);
            assert_eq!(level.is_preempting(), priority < 10);
            assert_eq!(Scale::try_from(new), Ok(old));
        }
    }
}

#[test]
fn none_and_boosted_of_the_positive_form_come_back() {
    for execution_time in TIMES {
        for priority in (0..1_000).chain([i64::MAX]) {
            let old = Positive { priority, execution_time };
            let new = Priority::try_from(old).unwrap();
            assert_eq!(new.class == Class::Normal, priority == 0);
            let back = Positive::try_from(new).unwrap();
            assert_eq!(back, Positive { priority: priority.min(1), execution_time });
            assert_eq!(Priority::try_from(back), Ok(new), "the meaning is the same");
        }
        for priority in [-1, -20, i64::MIN] {
            let error = Priority::try_from(Positive { priority, execution_time }).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
        }
    }
}

#[test]
fn slices_out_of_bounds_are_named_not_clamped() {
    for execution_time in BAD_TIMES {
        for error in [
            Priority::try_from(Flag { priority: true, execution_time }),
            Priority::try_from(Scale { priority: 0, execution_time }),
            Priority::try_from(Positive { priority: 1, execution_time }),
        ]
        .map(Result::unwrap_err)
        {
            assert_eq!(error.kind(), ErrorKind::OutOfRange);
            assert!(error.to_string().starts_with(&format!("a slice of {execution_time} ns")), "{error}");
        }
    }
}

/// From the new forms to the old: either an older value that means exactly this, or an error.
#[test]
fn nothing_is_lost_silently() {
    let mut refused = [0; 3];
    for class in Class::all() {
        for slice in [None, Some(Slice::MIN)] {
            for budget in [None, Some(Budget::DEFAULT)] {
                let from = Priority { class, slice, budget };
                let back = [
                    Flag::try_from(from).and_then(Priority::try_from),
                    Scale::try_from(from).and_then(Priority::try_from),
                    Positive::try_from(from).and_then(Priority::try_from),
                ];
                for (back, refused) in back.into_iter().zip(&mut refused) {
                    match back {
                        Ok(back) => assert_eq!(back, from),
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::NotExpressible);
                            *refused += 1;
                        }
                    }
                }
            }
        }
    }
    // Of 24 classes, with and without slice and budget: normal and level 10 have a boolean, the 21 levels
    // a number; none has a budget.
    assert_eq!(refused, [96 - 4, 96 - 42, 96 - 4]);
}

#[test]
fn a_refusal_says_what_to_use() {
    let text = |from: Priority| Scale::try_from(from).unwrap_err().to_string();
    let normal = Priority::default();
    assert_eq!(text(normal), "no boost cannot be said in the 0..20 form: leave the entry out");
    assert_eq!(
        text(Priority { slice: Some(Slice::MIN), ..normal }),
        "a slice alone cannot be said in the 0..20 form: use the boolean form with false"
    );
    assert_eq!(
        text(Priority::new(Class::Isolated)),
        "isolated cannot be said in the 0..20 form: use the class"
    );
}
