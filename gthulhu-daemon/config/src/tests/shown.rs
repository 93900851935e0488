//! What is printed: the default file, the reference page, and the table itself.

use super::*;
use crate::Config;

#[test]
fn the_default_file_changes_nothing_and_gives_the_defaults_once_its_keys_are_taken() {
    let folder = Folder::new();
    let text = crate::default_file(["gthulhu", "simple", "simple-fifo"]);
    let load = |text: &str| folder.loader().file(folder.write("c.yaml", text)).load().expect("loaded");
    let untouched = load(&text);
    assert_eq!(*untouched.config(), Config::default());
    assert!(untouched.explain().iter().all(|e| e.source.name() == "default"));

    // "#key: value" is a key; "# text" is a word about it.
    let taken: String = text
        .lines()
        .map(|line| match line.trim_start().strip_prefix('#') {
            Some(rest) if !rest.starts_with(' ') => line.replacen('#', "", 1) + "\n",
            _ => line.to_owned() + "\n",
        })
        .collect();
    let loaded = load(&taken);
    assert_eq!(*loaded.config(), Config::default());
    assert!(loaded.explain().iter().all(|e| e.source.name() == "file"), "{taken}");
    assert!(text.lines().all(|line| line.chars().count() <= 120), "too wide");
}

#[test]
fn the_reference_page_is_current() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md");
    if !path.parent().is_some_and(Path::is_dir) {
        skip("the repository's docs are not here");
        return;
    }
    let now = crate::reference();
    if std::env::var_os("GTHULHU_BLESS").is_some() {
        std::fs::write(&path, &now).expect("written");
    }
    let was = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        was == now,
        "docs/configuration.md is not what the table of keys says: GTHULHU_BLESS=1 cargo test -p gthulhu-config"
    );
}

#[test]
fn the_table_says_everything_about_each_key_and_nothing_twice() {
    let mut seen = std::collections::BTreeSet::new();
    for key in keys() {
        let flag = key.flag.map(|flag| format!("--{}", flag.name));
        let field = key.runtime.map(|field| format!("field {field}"));
        for name in [Some(key.path.to_owned()), flag, field, key.env()].into_iter().flatten() {
            assert!(seen.insert(name.clone()), "{name} is two keys");
        }
        assert!(key.doc().ends_with('.') && key.doc().len() > 10, "{}: {}", key.path, key.doc());
        let plugins = ["gthulhu".to_owned()];
        let default = key.default();
        key.kind.check(&default, &plugins).unwrap_or_else(|e| panic!("{}: its default: {e}", key.path));
        if let Kind::Number { min, max, .. } = key.kind {
            for n in [min, max] {
                assert!(
                    (key.set)(&mut Config::default(), &crate::Value::Number(n)),
                    "{} cannot hold {n}",
                    key.path
                );
            }
            let scale = key.flag.map_or(1, |flag| flag.scale);
            assert_eq!((min % scale, max % scale), (0, 0), "{}: the flag cannot say its bounds", key.path);
        }
        let (mut other, value) =
            (Config::default(), context().accept(key, key.kind.parse(&sample(key, 0), 1), None));
        assert!((key.set)(&mut other, &value.expect("a sample")), "{}", key.path);
        let changed: Vec<&str> =
            keys().iter().filter(|k| k.get(&other) != k.default()).map(|k| k.path).collect();
        assert_eq!(changed, [key.path], "a key is another's field");
    }
}

fn context() -> crate::layer::Context {
    crate::layer::Context { plugins: ["gthulhu", "simple", "simple-fifo"].map(str::to_owned).into() }
}

#[test]
fn every_key_and_field_of_the_original_is_known() {
    let original = "scheduler.slice_ns_default scheduler.slice_ns_min scheduler.mode scheduler.scheduler_name scheduler.kernel_mode \
                    scheduler.max_time_watchdog simple_scheduler.enable_fifo monitor.enabled monitor.bpf_object_path \
                    monitor.collection_interval_sec monitor.monitor_all monitor.stream_events monitor.prometheus_port \
                    monitor.enable_crd_watcher monitor.kubeconfig_path debug early_processing builtin_idle api.url api.interval \
                    api.public_key_path api.enabled api.auth_enabled api.mtls.enable api.mtls.cert_pem api.mtls.key_pem api.mtls.ca_pem";
    for path in original.split_whitespace() {
        let ignored = crate::config::IGNORED.iter().any(|(ignored, _)| *ignored == path);
        assert!(ignored || keys().iter().any(|key| key.path == path), "{path}");
    }
    let fields = "mode schedulerName sliceNsDefault sliceNsMin kernelMode maxTimeWatchdog earlyProcessing builtinIdle schedulerEnabled \
                  monitoringEnabled";
    for field in fields.split_whitespace() {
        assert!(keys().iter().any(|key| key.runtime == Some(field)), "{field}");
    }
    let flags = "plugin slice-us slice-min-us permit permit-us option agent-cpus dedicated-cpu partial numa-local kernel-idle keep-local \
                 early-kthreads limits transport max-run-ms stall-timeout-ms late-ms heartbeat-ms preempt-us dump-len btf debug max-turn-ms \
                 keep-compaction socket report kernel-mode";
    for name in flags.split_whitespace() {
        assert!(keys().iter().any(|key| key.flag.is_some_and(|flag| flag.name == name)), "{name}");
    }
}
