//! Arbitrary input does not panic, and what is written is read back.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::layer::Context;
use crate::{Config, Patch, file};

fn context() -> Context {
    Context { plugins: ["gthulhu", "simple", "simple-fifo"].map(str::to_owned).into() }
}

/// Pieces of configurations, so that random texts get past the parser.
fn pieces() -> impl Strategy<Value = String> {
    let words = keys().iter().flat_map(|key| key.path.split('.')).map(str::to_owned).collect::<Vec<_>>();
    let piece = prop_oneof![
        prop::sample::select(words),
        prop::sample::select(vec![
            ": ",
            "\n",
            "\n  ",
            "\n    ",
            "- ",
            "{",
            "}",
            "[",
            "]",
            ",",
            "\"",
            "'",
            "#",
            "&a ",
            "*a",
            "!",
            "|\n",
            ">",
            "---\n",
            "? ",
            "\t",
            "-1",
            "0",
            "1e9",
            "18446744073709551616",
            "true",
            "~",
            "on",
            "\\",
            "%",
            "\u{feff}",
            "\u{85}",
            "é",
            "configVersion",
            "null"
        ])
        .prop_map(str::to_owned),
        ".{0,4}",
    ];
    prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

fn read(bytes: &[u8]) {
    let name: Arc<str> = "x".into();
    let said = file::interpret(bytes, 0o600, &name, &context());
    for problem in said.problems.iter().chain(&said.notices) {
        let place = problem.place.as_ref().expect("what stands in a file has a place");
        let lines = bytes.split(|b| *b == b'\n').count();
        // YAML also ends lines with a carriage return.
        let returns = bytes.iter().filter(|b| **b == b'\r').count();
        assert!((1..=lines + returns + 1).contains(&place.line) && place.column >= 1, "{problem}");
    }
    if let Err(problems) = Patch::parse(bytes, "x") {
        assert!(
            problems.iter().all(|p| p.place.as_ref().is_some_and(|p| p.line >= 1 && p.column >= 1)),
            "{problems}"
        );
    }
    let mut loaded = Loader::new().without_runtime().load().expect("defaults");
    let _ = loaded.take_over(bytes, "x");
}

/// A configuration with any values that are allowed.
fn any_config() -> impl Strategy<Value = Config> {
    let value = |key: &'static Key| -> BoxedStrategy<Option<String>> {
        let text = |s: &'static str| s.prop_map(Some).boxed();
        let some = match (&key.kind, key.path) {
            (Kind::Switch, _) => any::<bool>().prop_map(|on| Some(on.to_string())).boxed(),
            (Kind::Number { min, max, .. }, _) => (*min..=*max).prop_map(|n| Some(n.to_string())).boxed(),
            (Kind::Pairs, _) => text("[a-z\"'#: é\u{2028}]{1,5}=[^\\p{Cc}]{0,8}"),
            (Kind::Secret, _) => Just(None).boxed(),
            (Kind::Text { .. }, "api.mtls.cert_pem" | "api.mtls.ca_pem") => {
                text("-----BEGIN [A-Z \n:#'\"\\\\é]{0,30}")
            }
            (Kind::Text { .. }, "api.public_key_path" | "daemon.report") => text("[^\\p{Cc}]{0,12}"),
            (Kind::Text { .. }, "api.url") => {
                text("https?://[a-z]{1,9}(:[1-9][0-9]{0,3})?(/[a-z#'\"]{0,4})?")
            }
            (Kind::Text { .. }, _) if sample(key, 0).starts_with('/') => text("/[a-zé#: '\"]{1,12}[a-z]"),
            _ => (0..4_u64).prop_map(move |n| Some(sample(key, n))).boxed(),
        };
        prop_oneof![1 => Just(None), 3 => some].boxed()
    };
    let values: Vec<_> = keys().iter().map(value).collect();
    values.prop_map(|values| {
        let mut config = Config::default();
        for (key, value) in keys().iter().zip(values) {
            let Some(value) = value else { continue };
            let value = context()
                .accept(key, key.kind.parse(&value, 1), None)
                .unwrap_or_else(|e| panic!("{}: {e}", key.path));
            assert!((key.set)(&mut config, &value), "{}", key.path);
        }
        config
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        read(&bytes);
    }

    #[test]
    fn arbitrary_pieces_of_configurations_never_panic(text in pieces()) {
        read(text.as_bytes());
    }

    #[test]
    fn a_configuration_that_is_written_is_read_back_the_same(config in any_config()) {
        let text = config.to_yaml();
        let said = file::interpret(text.as_bytes(), 0o600, &"x".into(), &context());
        prop_assert!(said.problems.is_empty(), "{:?}\n{text}", said.problems);
        let layers = crate::layer::Layers { file: said.layer, ..Default::default() };
        prop_assert_eq!(layers.resolve(&context()), config);
    }
}
