//! "Did you mean": the nearest of the words that are known.

/// `; did you mean 'x'?`, or nothing when none is near.
pub(crate) fn hint<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    nearest(word, known).map(|near| format!("; did you mean {near}?")).unwrap_or_default()
}

/// The known word that needs the fewest changes, if they are few.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A whole paragraph is near to nothing, and comparing it would take its length squared.
    if word.len() > 64 {
        return None;
    }
    let plain = plain(word);
    let far = |candidate: &&str| strsim::osa_distance(&plain, &self::plain(candidate));
    let best = known.into_iter().min_by_key(far)?;
    (far(&best) <= (plain.chars().count() / 3).clamp(1, 3)).then_some(best)
}

/// `sliceNsDefault`, `slice-ns-default` and `slice_ns_default` are one word.
pub(crate) fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["mode", "slice_ns_default", "slice_ns_min", "partial"];
        for (word, near) in [
            ("mod", Some("mode")),
            ("Mode", Some("mode")),
            ("sliceNsMin", Some("slice_ns_min")),
            ("slice_ns_defualt", Some("slice_ns_default")),
            ("parital", Some("partial")),
            ("zzzz", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known), near, "{word}");
        }
        assert_eq!(nearest(&"m".repeat(100), known), None);
        assert_eq!(nearest("mode", []), None);
    }
}
