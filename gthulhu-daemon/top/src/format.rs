//! Numbers and names for a person: short, and never cut so that they mean something else.

use ratatui::text::Span;

/// Without what could move the cursor or change colours: names come from whoever names a thread or a cgroup.
pub(crate) fn printable(text: &str) -> String {
    // The second range: marks that change the direction of what follows.
    let fine = |c: char| {
        !c.is_control()
            && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().map(|c| if fine(c) { c } else { '?' }).collect()
}

/// Columns that a text takes.
pub(crate) fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A time in six columns at most: `512ns`, `1.0us`, `262us`, `33ms`, `4.3s`.
pub(crate) fn time(ns: f64) -> String {
    let (value, unit) = match ns {
        ns if ns < 999.5 => return format!("{ns:.0}ns"),
        ns if ns < 999.5e3 => (ns / 1e3, "us"),
        ns if ns < 999.5e6 => (ns / 1e6, "ms"),
        ns => (ns / 1e9, "s"),
    };
    if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
}

/// How many, in five columns at most: `0`, `0.4`, `12`, `999`, `1.2k`, `123k`, `4.5M`.
pub(crate) fn count(value: f64) -> String {
    let scaled = |value: f64, unit: &str| {
        if value < 9.95 { format!("{value:.1}{unit}") } else { format!("{value:.0}{unit}") }
    };
    match value {
        v if v < 0.05 => "0".to_owned(),
        v if v < 999.5 => scaled(v, "").trim_end_matches(".0").to_owned(),
        v if v < 999.5e3 => scaled(v / 1e3, "k"),
        v if v < 999.5e6 => scaled(v / 1e6, "M"),
        v => scaled(v / 1e9, "G"),
    }
}

/// A share as percent, in six columns at most: `0.0`, `99.9`, `153.2`, `12800`.
pub(crate) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent < 999.95 { format!("{percent:.1}") } else { format!("{percent:.0}") }
}

/// A span of time for reading: `34 s`, `2 min`, `3 h 20 min`, `12 d`.
pub(crate) fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d", seconds / 86400),
    }
}

/// In this many columns: what does not fit loses its middle, and shows that it did. The ends of names tell most.
pub(crate) fn fit(text: &str, columns: usize, mark: char) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(1) else { return String::new() };
    let head = take(text.chars(), room / 3);
    let tail = take(text.chars().rev(), room - width(&head));
    head + mark.encode_utf8(&mut [0; 4]) + &tail.chars().rev().collect::<String>()
}

/// In this many columns: what does not fit ends after a whole word, and shows that it did.
pub(crate) fn clip(text: &str, columns: usize, mark: char) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let Some(room) = columns.checked_sub(2) else { return String::new() };
    let head = take(text.chars(), room);
    let words = match text[head.len()..].starts_with(' ') {
        true => head.as_str(),
        false => head.rsplit_once(' ').map_or(head.as_str(), |(words, _)| words),
    };
    format!("{words} {mark}")
}

/// The first of these that fit.
fn take(chars: impl Iterator<Item = char>, columns: usize) -> String {
    let mut taken = String::new();
    for c in chars {
        taken.push(c);
        if width(&taken) > columns {
            taken.pop();
            break;
        }
    }
    taken
}

/// `text` and blanks behind it.
pub(crate) fn left(text: &str, columns: usize, mark: char) -> String {
    let text = fit(text, columns, mark);
    let blanks = columns - width(&text);
    text + &" ".repeat(blanks)
}

/// `text` behind blanks. A number that does not fit becomes marks: half of a number is another number.
pub(crate) fn right(text: &str, columns: usize) -> String {
    match columns.checked_sub(width(text)) {
        Some(blanks) => " ".repeat(blanks) + text,
        None => "#".repeat(columns),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_to_their_columns_over_the_whole_range() {
        let mut value = 0.001;
        while value < 5e11 {
            for v in [value, value * 0.9995, value * 1.0005] {
                assert!(count(v).len() <= 5, "{v}: {}", count(v));
                assert!(time(v).len() <= 6, "{v}: {}", time(v));
            }
            value *= 10.0 / 9.0;
        }
        for (ns, text) in
            [(0.0, "0ns"), (1024.0, "1.0us"), (262_144.0, "262us"), (999_600.0, "1.0ms"), (4.3e9, "4.3s")]
        {
            assert_eq!(time(ns), text);
        }
        for (n, text) in
            [(0.0, "0"), (0.44, "0.4"), (7.0, "7"), (999.6, "1.0k"), (123_456.0, "123k"), (4.5e6, "4.5M")]
        {
            assert_eq!(count(n), text);
        }
        assert_eq!(
            (percent(0.9999), percent(1.532), percent(128.0)),
            ("100.0".into(), "153.2".into(), "12800".into())
        );
    }

    #[test]
    fn a_name_that_is_cut_says_so_and_keeps_both_ends() {
        assert_eq!(fit("short", 5, '~'), "short");
        assert_eq!(fit("shop/cart-7d9c:app", 10, '~'), "sho~9c:app");
        assert_eq!(fit("日本語日本語", 7, '~'), "日~本語");
        for columns in 0..12 {
            assert!(width(&fit("日本語日本語", columns, '~')) <= columns);
        }
        assert_eq!(clip("mode normal, restarts 12", 23, '~'), "mode normal, restarts ~");
        assert_eq!(clip("mode normal, restarts 12", 13, '~'), "mode ~");
        assert_eq!(clip("mode normal, restarts 12", 24, '~'), "mode normal, restarts 12");
        assert_eq!(right("12345", 4), "####");
        assert_eq!(left("ab", 4, '~'), "ab  ");
    }

    #[test]
    fn names_cannot_draw() {
        assert_eq!(printable("a\x1b[2Jb\u{202e}c\n"), "a?[2Jb?c?");
    }
}
