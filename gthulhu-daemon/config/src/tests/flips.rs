//! Every option on and off, by each source and after a restart. In the original several could be turned on only.

use super::*;
use crate::Patch;

fn switches() -> impl Iterator<Item = &'static Key> {
    keys().iter().filter(|key| matches!(key.kind, Kind::Switch))
}

fn needs(loader: Loader, key: &Key) -> Loader {
    needed(key.path).iter().fold(loader, |loader, pair| loader.set(*pair))
}

#[test]
fn the_file_the_environment_and_a_flag_turn_each_switch_on_and_off() {
    let folder = Folder::new();
    for key in switches() {
        for on in [true, false] {
            // The default is one of the two; the weaker source says the opposite, so that the stronger has to be heard.
            let file = folder.write("config.yaml", yaml(key, &(!on).to_string()));
            let base = needs(folder.loader(), key).file(&file);
            let said = on.to_string();
            let by_env = base.clone().env([(key.env().expect("a variable").into(), said.clone().into())]);
            let by_set = base.clone().set(format!("{}={on}", key.path));
            let by_flag = key.flag.map(|flag| base.clone().flag(flag.name, [if on { "on" } else { "off" }]));
            for (loader, source) in [(Some(by_env), "env"), (Some(by_set), "flag"), (by_flag, "flag")] {
                let Some(loader) = loader else { continue };
                let loaded = loader.load().expect("loaded");
                assert_eq!(shown(&loaded, key), (said.clone(), source), "{}", key.path);
            }
            let by_file = base.load().expect("loaded");
            assert_eq!(shown(&by_file, key), ((!on).to_string(), "file"), "{}", key.path);
        }
    }
}

#[test]
fn runtime_configuration_turns_each_switch_on_and_off_and_it_stays_so_after_a_restart() {
    let mut fields = 0;
    for key in switches().filter(|key| key.runtime.is_some()) {
        for first in [true, false] {
            let folder = Folder::new();
            let file = folder.write("config.yaml", yaml(key, &(!first).to_string()));
            let loader = needs(folder.loader(), key).file(&file);
            let mut running = loader.load().expect("loaded");
            for on in [first, !first, first] {
                let patch = Patch::parse(json(key, &on.to_string()).as_bytes(), "request").expect("a patch");
                let change = running.apply(&patch).expect("applied");
                assert_eq!(change.changed.len(), 1, "{} to {on}", key.path);
                assert_eq!(shown(&running, key), (on.to_string(), "runtime"), "{}", key.path);
                let restarted = loader.load().expect("loaded");
                assert_eq!(
                    shown(&restarted, key),
                    (on.to_string(), "runtime"),
                    "{} after a restart",
                    key.path
                );
                assert_eq!(restarted.applied(), running.applied());
            }
            let take_back = json(key, "null");
            let change = running
                .apply(&Patch::parse(take_back.as_bytes(), "request").expect("a patch"))
                .expect("applied");
            assert_eq!(change.changed.len(), 1, "{} taken back", key.path);
            assert_eq!(shown(&running, key), ((!first).to_string(), "file"), "{}", key.path);
            assert_eq!(shown(&loader.load().expect("loaded"), key).1, "file");
        }
        fields += 1;
    }
    // The original's six, and ours.
    assert!(fields >= 14, "{fields}");
}

#[test]
fn zero_is_a_value_and_absent_is_none() {
    let folder = Folder::new();
    let loader = folder.loader();
    let mut running = loader.load().expect("loaded");
    let body = br#"{"configVersion": "1", "permit": 0, "maxRunMs": 0, "dumpLen": 0, "schedulerName": "", "options": []}"#;
    running.apply(&Patch::parse(body, "request").expect("a patch")).expect("applied");
    for loaded in [&running, &loader.load().expect("loaded")] {
        assert_eq!((loaded.config().scheduler.permit, loaded.config().max_run_ms()), (0, 0));
        assert_eq!(shown(loaded, key("scheduler.permit")), ("0".into(), "runtime"));
        assert_eq!(shown(loaded, key("scheduler.dump_len")).1, "runtime");
        assert_eq!(shown(loaded, key("scheduler.late_ms")).1, "default");
    }
    // Absent keeps.
    running.apply(&Patch::parse(br#"{"configVersion": "2"}"#, "request").expect("a patch")).expect("applied");
    assert_eq!(shown(&running, key("scheduler.permit")), ("0".into(), "runtime"));
    assert_eq!(running.applied().map(|a| a.version.as_str()), Some("2"));
}

#[test]
fn the_watchdog_of_long_runs_can_be_turned_off() {
    let folder = Folder::new();
    let file = folder.write("config.yaml", "scheduler:\n  max_time_watchdog: false\n");
    let loaded = folder.loader().file(file).load().expect("loaded");
    assert_eq!(loaded.config().max_run_ms(), 0);
    let limited = folder.loader().load().expect("loaded");
    assert_eq!(limited.config().max_run_ms(), 500);
}

#[test]
fn the_scheduler_can_be_turned_off_in_every_mode() {
    let folder = Folder::new();
    for mode in ["gthulhu", "simple", "simple-fifo", "none", "scx"] {
        let loaded = folder
            .loader()
            .set(format!("scheduler.mode={mode}"))
            .set("scheduler.scheduler_name=scx_lavd")
            .set("scheduler.enabled=false")
            .load()
            .expect("loaded");
        assert_eq!(*loaded.config().effective_mode(), crate::Mode::None);
        assert_eq!(loaded.config().scheduler.mode.to_string(), mode);
    }
}
