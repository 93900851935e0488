//! Which source wins, for each key and each set of sources.

use super::*;
use crate::Patch;

const SOURCES: [&str; 4] = ["file", "runtime", "env", "flag"];

/// Loads with the `n`th sample said by the `n`th of the sources that are in `set`.
fn load(folder: &Folder, key: &Key, set: u32) -> Configuration {
    let has = |source: u32| set & 1 << source != 0;
    let mut loader = folder.loader();
    for pair in needed(key.path).iter().filter(|_| set != 0) {
        loader = loader.set(*pair);
    }
    let _ = std::fs::remove_file(folder.state());
    if has(1) {
        let patch = Patch::parse(json(key, &sample(key, 1)).as_bytes(), "request").expect("a patch");
        loader.load().expect("loaded").apply(&patch).expect("applied");
    }
    if has(0) {
        loader = loader.file(folder.write("config.yaml", yaml(key, &sample(key, 0))));
    }
    if has(2) {
        loader = loader.env([(key.env().expect("a variable").into(), sample(key, 2).into())]);
    }
    if has(3) {
        loader = match key.flag {
            // In the flag's unit.
            Some(flag) if flag.scale > 1 => {
                let value: u64 = sample(key, 3).parse().expect("a number");
                loader.flag(flag.name, [(value / flag.scale).to_string()])
            }
            Some(flag) => loader.flag(flag.name, [sample(key, 3)]),
            None => loader.set(format!("{}={}", key.path, sample(key, 3))),
        };
    }
    loader.load().unwrap_or_else(|e| panic!("{} {set:04b}: {e}", key.path))
}

#[test]
fn the_strongest_source_holds_each_key_whatever_the_others_say() {
    let folder = Folder::new();
    let mut cells = 0;
    for key in keys() {
        for set in 0..16_u32 {
            let secret = matches!(key.kind, Kind::Secret);
            let cannot = (set & 2 != 0 && key.runtime.is_none()) || (set & 12 != 0 && secret);
            if cannot {
                continue;
            }
            let (value, source) = shown(&load(&folder, key, set), key);
            let expected = match (0..4_u32).rev().find(|source| set & 1 << source != 0) {
                None => (key.default().to_string(), "default"),
                Some(_) if secret => ("(set)".into(), "file"),
                Some(winner) => (sample(key, winner.into()), SOURCES[winner as usize]),
            };
            assert_eq!((value, source), expected, "{} said by {set:04b}", key.path);
            cells += 1;
        }
    }
    // Each key with and without file; with environment and flags but the private key; and again with runtime where
    // it can.
    let runtime = keys().iter().filter(|key| key.runtime.is_some()).count();
    assert_eq!(cells, 16 * runtime + 8 * (keys().len() - runtime - 1) + 2);
}

#[test]
fn neighbouring_samples_differ_or_the_table_above_proves_nothing() {
    for key in keys() {
        for n in 0..3 {
            assert_ne!(sample(key, n), sample(key, n + 1), "{}", key.path);
        }
        assert_ne!(sample(key, 0), key.default().to_string(), "{}", key.path);
    }
}

#[test]
fn explain_tells_who_was_overridden_and_where_it_stands() {
    let folder = Folder::new();
    let loaded = load(&folder, key("scheduler.slice_ns_default"), 0b1111);
    let text = loaded.explain_text();
    let file = folder.0.join("config.yaml");
    let expected = format!(
        "scheduler.slice_ns_default = 5004000  (flag --slice-us; live)\n    Slice of a task, in nanoseconds: what the policy gives unless \
         it knows better, and what the core gives.\n    overridden: 5003000 (env GTHULHU_SCHEDULER_SLICE_NS_DEFAULT)\n    overridden: \
         5002000 (runtime)\n    overridden: 5001000 ({}:2)\n",
        file.display()
    );
    assert!(text.contains(&expected), "{text}");
    let json = loaded.explain_json();
    let slice = &json["scheduler.slice_ns_default"];
    assert_eq!((slice["value"].as_u64(), slice["source"].as_str()), (Some(5_004_000), Some("flag")));
    assert_eq!(slice["overridden"].as_array().map(Vec::len), Some(3));
    assert_eq!(json.as_object().map(serde_json::Map::len), Some(keys().len()));

    let loaded = load(&folder, key("scheduler.slice_ns_default"), 0b0001);
    let json = loaded.explain_json();
    let place = &json["scheduler.slice_ns_default"]["place"];
    assert_eq!((place["line"].as_u64(), place["column"].as_u64()), (Some(2), Some(21)));
}

#[test]
fn a_missing_file_gives_defaults_and_a_notice() {
    let loaded = Loader::new().without_runtime().file("/does/not/exist.yaml").load().expect("loaded");
    assert_eq!(*loaded.config(), crate::Config::default());
    let notices: Vec<String> = loaded.notices().iter().map(ToString::to_string).collect();
    assert_eq!(notices, ["/does/not/exist.yaml: there is no such file: the defaults hold"]);
    let error = crate::check_file(Path::new("/does/not/exist.yaml"), ["gthulhu"]).expect_err("to be checked");
    assert_eq!(error.to_string(), "/does/not/exist.yaml: there is no such file");
}

#[test]
fn a_list_is_one_text_between_commas_in_the_environment_and_several_flags_on_the_command_line() {
    let options =
        |loader: Loader| loader.without_runtime().load().expect("loaded").config().scheduler.options.clone();
    let two = ["a=1", "b=x=y"];
    assert_eq!(options(Loader::new().env([("GTHULHU_SCHEDULER_OPTIONS".into(), "a=1,b=x=y".into())])), two);
    assert_eq!(options(Loader::new().set("scheduler.options=a=1,b=x=y")), two);
    assert_eq!(options(Loader::new().flag("option", two)), two);
    assert_eq!(options(Loader::new().flag("option", ["a=1,2"])), ["a=1,2"]);
    let folder = Folder::new();
    let file = |text: &str| options(Loader::new().file(folder.write("c.yaml", text)));
    assert_eq!(file("scheduler: {options: {a: 1, b: x=y}}"), two);
    assert_eq!(file("scheduler:\n  options:\n  - a=1\n  - 'b=x=y'\n"), two);
}

#[test]
fn the_first_plugin_is_the_default_also_where_the_mode_is_written_and_empty() {
    let folder = Folder::new();
    let loader = folder.loader().plugins(["mine", "simple"]);
    let shown = |loader: &Loader| shown(&loader.load().expect("loaded"), key("scheduler.mode"));
    assert_eq!(shown(&loader), ("mine".into(), "default"));
    let file = folder.write("config.yaml", "scheduler:\n  mode: \"\"\n");
    assert_eq!(shown(&loader.clone().file(file)), ("mine".into(), "file"));
    let gone = loader.set("scheduler.mode=gthulhu").load().expect_err("not one of these");
    assert_eq!(
        gone.to_string(),
        "--set scheduler.mode: 'gthulhu' is no mode; allowed: none, scx, mine, simple"
    );
}
