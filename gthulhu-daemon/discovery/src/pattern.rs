//! Patterns over what a process runs.

use std::fmt;
use std::os::unix::ffi::OsStrExt;

use regex::bytes::{Regex, RegexBuilder};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{Command, Error, ErrorKind, Result};

/// A regular expression over the name, the file and the command line of processes: compiled once, and bounded.
///
/// The syntax is that of the [`regex`] crate, which is close to that of Go's and RE2: no look-around and no
/// back references, so that the time is linear in the text, whatever the pattern. It may match anywhere; `^`
/// and `$` hold it to an end. It is asked of each of the three by itself; the first that matches is told.
///
/// ```
/// # use gthulhu_discovery::{Command, Field, Pattern};
/// let pattern: Pattern = "^(nginx|envoy)$".parse()?;
/// let command = Command { exe: Some("/usr/sbin/nginx".into()), cmdline: b"nginx: worker".into(),
/// ..Command::default() }; assert_eq!(pattern.find(&command), None); let pattern: Pattern = "/nginx$".parse()?;
/// assert_eq!(pattern.find(&command), Some(Field::Exe));
/// # Ok::<(), gthulhu_discovery::Error>(())
/// ```
#[derive(Clone)]
pub struct Pattern(Regex);

/// Of what a process runs, which a pattern matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// The name: at most 15 bytes.
    Comm,
    /// The path of the program.
    Exe,
    /// The arguments with blanks between them.
    Cmdline,
}

impl Pattern {
    /// Bytes of a pattern.
    pub const MAX_LEN: usize = 1024;
    /// Bytes that a compiled pattern may take, and as many for its cache: repetitions of large classes, such
    /// as `\w{500}`, are what needs them.
    pub const MAX_SIZE: usize = 1 << 20;
    /// How deep groups may nest.
    pub const MAX_NEST: u32 = 32;

    /// Compiles a pattern.
    ///
    /// # Errors
    /// It is longer than [`MAX_LEN`](Self::MAX_LEN), deeper than [`MAX_NEST`](Self::MAX_NEST) or larger than
    /// [`MAX_SIZE`](Self::MAX_SIZE), or is no pattern: then the error says at which character.
    pub fn new(pattern: &str) -> Result<Self> {
        let refused = |why: String| {
            let shown: String = pattern.chars().take(80).collect();
            let dots = if shown.len() < pattern.len() { "…" } else { "" };
            Error::new(ErrorKind::Pattern, format!("command pattern `{shown}{dots}`: {why}"))
        };
        if pattern.len() > Self::MAX_LEN {
            let why = format!("has {} bytes: give at most {}", pattern.len(), Self::MAX_LEN);
            return Err(refused(why));
        }
        // For the place of a mistake, which the regex crate tells only in a drawing.
        let mut parser = regex_syntax::ast::parse::ParserBuilder::new().nest_limit(Self::MAX_NEST).build();
        if let Err(error) = parser.parse(pattern) {
            let at = error.span().start.offset;
            let character = pattern.get(..at).map_or(at, |before| before.chars().count()) + 1;
            return Err(refused(format!("{}, at character {character}", error.kind())));
        }
        let built = RegexBuilder::new(pattern)
            .size_limit(Self::MAX_SIZE)
            .dfa_size_limit(Self::MAX_SIZE)
            .nest_limit(Self::MAX_NEST)
            .build();
        match built {
            Ok(regex) => Ok(Self(regex)),
            Err(regex::Error::CompiledTooBig(limit)) => {
                Err(refused(format!("needs more than {limit} bytes: repeat less, or smaller classes")))
            }
            // What is well formed and still means nothing, such as an unknown class: the last line says it.
            Err(error) => {
                let text = error.to_string();
                let line = text.lines().last().unwrap_or_default();
                Err(refused(line.trim_start_matches("error: ").into()))
            }
        }
    }

    /// The pattern as it was given.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The first of name, file and command line that it matches; the bounds of those are the time's.
    pub fn find(&self, command: &Command) -> Option<Field> {
        let comm = command.comm.as_ref().is_some_and(|comm| self.0.is_match(comm.as_bytes()));
        let exe = || command.exe.as_ref().is_some_and(|exe| self.0.is_match(exe.as_os_str().as_bytes()));
        if comm {
            Some(Field::Comm)
        } else if exe() {
            Some(Field::Exe)
        } else {
            self.0.is_match(&command.cmdline).then_some(Field::Cmdline)
        }
    }

    /// Whether it matches any of them.
    pub fn matches(&self, command: &Command) -> bool {
        self.find(command).is_some()
    }

    /// Whether it matches the name of a thread.
    pub fn matches_name(&self, comm: &gthulhu_model::Comm) -> bool {
        self.0.is_match(comm.as_bytes())
    }
}

impl std::str::FromStr for Pattern {
    type Err = Error;

    fn from_str(pattern: &str) -> Result<Self> {
        Self::new(pattern)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pattern(`{self}`)")
    }
}

/// By the text: two spellings of the same are two patterns.
impl PartialEq for Pattern {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Pattern {}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use gthulhu_model::Comm;
    use proptest::prelude::*;
    use std::time::{Duration, Instant};

    fn command(comm: &str, exe: &str, cmdline: &str) -> Command {
        let exe = (!exe.is_empty()).then(|| exe.into());
        Command { comm: Comm::new(comm).ok(), exe, cmdline: cmdline.into() }
    }

    #[test]
    fn each_field_can_match_and_the_first_is_told() {
        let java = command("java", "/opt/jdk/bin/java", "java -Xmx1g -jar /srv/orders.jar");
        let found = |pattern: &str| Pattern::new(pattern).unwrap().find(&java);
        assert_eq!(found("^java$"), Some(Field::Comm));
        assert_eq!(found("^/opt/"), Some(Field::Exe));
        assert_eq!(found(r"orders\.jar$"), Some(Field::Cmdline));
        assert_eq!(found(""), Some(Field::Comm), "nothing is asked");
        assert_eq!(found("^orders"), None);
    }

    #[test]
    fn names_that_are_no_text_can_be_matched() {
        let mut odd = command("x", "", "");
        odd.comm = Some(Comm::new([b'a', 0xff, b'z']).unwrap());
        assert!(Pattern::new("^a").unwrap().matches(&odd));
        assert!(Pattern::new(r"(?-u)^a\xffz$").unwrap().matches(&odd));
    }

    #[test]
    fn a_mistake_is_told_with_its_place() {
        for (pattern, message) in [
            ("ab(c", "unclosed group, at character 3"),
            ("ä[z-a]", "invalid character class range, the start must be <= the end, at character 3"),
            ("a**", ""),
            ("(?=x)", "look-around, including look-ahead and look-behind, is not supported, at character 1"),
            (r"(a)\1", "backreferences are not supported, at character 4"),
            (r"\p{Nonsense}", "Unicode property not found"),
        ] {
            match Pattern::new(pattern) {
                Ok(_) => assert_eq!(message, "", "{pattern} is accepted"),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Pattern);
                    assert_eq!(error.to_string(), format!("command pattern `{pattern}`: {message}"));
                }
            }
        }
    }

    #[test]
    fn what_is_long_deep_or_large_is_refused() {
        let deep = format!("{}x{}", "(".repeat(40), ")".repeat(40));
        for (pattern, message) in [
            ("x".repeat(1025), "has 1025 bytes: give at most 1024"),
            (deep, "exceed the maximum number of nested parentheses/brackets (32)"),
            (r"\w{400}".into(), "needs more than 1048576 bytes"),
            (r"((a{100}){100}){100}".into(), "needs more than 1048576 bytes"),
        ] {
            let error = Pattern::new(&pattern).unwrap_err().to_string();
            assert!(error.contains(message) && error.len() < 300, "{error}");
        }
    }

    /// What hangs engines that go back: `(a+)+b` over many a's.
    #[test]
    fn no_pattern_hangs() {
        let long = command("x", "", &"a".repeat(crate::MAX_CMDLINE));
        let pattern = Pattern::new(r"(a+)+b|(a|aa)+$x|(.*)(.*)(.*)(.*)(.*)=q").unwrap();
        let begun = Instant::now();
        assert!(!pattern.matches(&long));
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    }

    proptest! {
        #[test]
        fn any_text_is_a_pattern_or_an_error(text in ".{0,60}", cmdline: Vec<u8>) {
            if let Ok(pattern) = Pattern::new(&text) {
                pattern.matches(&Command { cmdline, ..Command::default() });
            }
        }

        #[test]
        fn a_quoted_text_is_found_where_it_stands(text in "[ -~]{1,20}", before in "[ -~]{0,20}") {
            let pattern = Pattern::new(&regex::escape(&text)).unwrap();
            let cmdline = before + &text;
            prop_assert!(pattern.matches(&command("", "", &cmdline)));
        }
    }
}
