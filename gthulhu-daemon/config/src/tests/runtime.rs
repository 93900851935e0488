//! Runtime configuration: refused whole or applied whole, saved before it is made, and found again.

use std::os::unix::fs::MetadataExt;
use std::process::Command;

use super::*;
use crate::{ApplyError, Effect, Patch};

fn patch(body: &str) -> Patch {
    Patch::parse(body.as_bytes(), "request").unwrap_or_else(|e| panic!("{body}: {e}"))
}

#[test]
fn a_bad_patch_is_refused_with_line_column_and_field() {
    for (body, expected) in [
        ("{", "request:1:1: is no JSON object of fields: EOF while parsing an object"),
        ("[]", "request:1:0: is no JSON object of fields: invalid type: sequence, expected an object"),
        ("{} {}", "request:1:4: is no JSON object of fields: trailing characters"),
        ("{}", "request:1:1: configVersion: is missing: which state of the configuration is this?"),
        ("{\"configVersion\": 7}", "request:1:19: configVersion: is a text of 1 to 256 bytes"),
        ("{\"configVersion\": \"\"}", "request:1:19: configVersion: is a text of 1 to 256 bytes"),
        (
            "{\"configVersion\": \"1\",\n  \"kernelMode\": \"yes\"}",
            "request:2:17: kernelMode: is a text; allowed: true or false, or null to take it back",
        ),
        (
            "{\"configVersion\": \"1\",\n  \"kernelMode\": 1}",
            "request:2:17: kernelMode: is a number; allowed: true or false, or null to take it back",
        ),
        (
            "{\"configVersion\": \"1\", \"sliceNsMin\": true}",
            "request:1:38: sliceNsMin: is a bool; allowed: a whole number, or null to take it back",
        ),
        (
            "{\"configVersion\": \"1\", \"sliceNsMin\": 1.5}",
            "request:1:38: sliceNsMin: '1.5' is no whole number",
        ),
        ("{\"configVersion\": \"1\", \"permit\": -1}", "request:1:34: permit: -1 is out of range"),
        (
            "{\"configVersion\": \"1\", \"mode\": [\"none\"]}",
            "request:1:32: mode: is a list; allowed: a text, or null to take it back",
        ),
        (
            "{\"configVersion\": \"1\", \"mode\": \"none\", \"mode\": \"scx\"}",
            "request:1:40: mode: is given twice",
        ),
        (
            "{\"configVersion\": \"1\", \"slice_ns_min\": 1}",
            "request:1:24: slice_ns_min: is no field; did you mean sliceNsMin?",
        ),
        (
            "{\"configVersion\": \"1\", \"api.url\": \"x\"}",
            "request:1:24: api.url: cannot be changed at run time; change the file and restart",
        ),
    ] {
        let error = Patch::parse(body.as_bytes(), "request").expect_err(body).to_string();
        assert_eq!(error, expected.replace(":1:0:", ":1:1:"), "{body}");
    }
    let unknown = Patch::parse(br#"{"configVersion": "1", "kernelmodus": true}"#, "request")
        .expect_err("unknown")
        .to_string();
    assert!(
        unknown.starts_with(
            "request:1:24: kernelmodus: is no field; did you mean kernelMode?; known: configVersion, "
        ),
        "{unknown}"
    );
    let both =
        Patch::parse(br#"{"configVersion": "1", "mode": 1, "nonsense": 2}"#, "request").expect_err("both");
    assert_eq!(both.iter().count(), 2);
}

#[test]
fn a_patch_with_one_wrong_value_changes_nothing() {
    let folder = Folder::new();
    let mut running = folder.loader().load().expect("loaded");
    running.apply(&patch(r#"{"configVersion": "1", "permit": 3}"#)).expect("applied");
    let (config, saved) = (running.config().clone(), std::fs::read(folder.state()).expect("saved"));
    for (body, expected) in [
        (
            r#"{"configVersion": "2", "kernelMode": true, "sliceNsDefault": 0}"#,
            "request:1:62: sliceNsDefault: 0 is out of range; allowed: 100000 to 100000000 ns",
        ),
        (
            r#"{"configVersion": "2", "kernelMode": true, "mode": "scx"}"#,
            "request:1:52: mode: scx needs a scheduler.scheduler_name; allowed: scx_beerland, ",
        ),
        (
            r#"{"configVersion": "2", "mode": "scx", "schedulerName": "lavd"}"#,
            "request:1:56: schedulerName: 'lavd' is no scheduler that is run; did you mean scx_lavd?; allowed: scx_beerland, ",
        ),
        (
            r#"{"configVersion": "2", "mode": "scx", "schedulerName": "../bin/sh"}"#,
            "request:1:56: schedulerName: '../bin/sh' is no scheduler that is run; allowed: ",
        ),
        (
            r#"{"configVersion": "2", "debug": true, "heartbeatMs": 9000}"#,
            "request:1:54: heartbeatMs: 9000 is out of range; allowed: 10 to 2500 ms, half of scheduler.stall_timeout_ms",
        ),
    ] {
        let Err(ApplyError::Refused(problems)) = running.apply(&patch(body)) else {
            panic!("applied: {body}")
        };
        assert!(problems.to_string().starts_with(expected), "{problems}\nshould begin\n{expected}");
        assert_eq!(*running.config(), config);
        assert_eq!(running.applied().map(|a| a.version.as_str()), Some("1"));
        assert_eq!(std::fs::read(folder.state()).expect("saved"), saved);
    }
}

#[test]
fn a_change_tells_from_what_to_what_and_what_it_costs() {
    let folder = Folder::new();
    let loader = folder.loader().flag("permit", ["5"]);
    let mut running = loader.load().expect("loaded");
    let change = running
        .apply(&patch(r#"{"configVersion": "a", "mode": "simple", "sliceNsDefault": 4000000, "permit": 9}"#))
        .expect("applied");
    assert_eq!(change.effect(), Effect::Live);
    assert!(!change.reattaches());
    assert_eq!(
        change.json().to_string(),
        r#"{"changed":[{"effect":"live","from":"gthulhu","key":"scheduler.mode","to":"simple"},{"effect":"live","from":5000000,"key":"scheduler.slice_ns_default","to":4000000}],"shadowed":[{"by":"flag --permit","key":"scheduler.permit","value":5}]}"#
    );
    assert_eq!(running.config().scheduler.permit, 5);
    // Held by the flag only while the flag is there.
    assert_eq!(folder.loader().load().expect("loaded").config().scheduler.permit, 9);

    let detach = running.apply(&patch(r#"{"configVersion": "b", "mode": "none"}"#)).expect("applied");
    assert!(detach.reattaches());
    let back = running.apply(&patch(r#"{"configVersion": "c", "mode": "gthulhu"}"#)).expect("applied");
    assert!(back.reattaches());
    let option = running.apply(&patch(r#"{"configVersion": "d", "partial": true}"#)).expect("applied");
    assert_eq!(option.effect(), Effect::Reattach);
    let same = running.apply(&patch(r#"{"configVersion": "d", "partial": true}"#)).expect("applied");
    assert!(same.is_noop());
    let json = running.runtime_json();
    assert_eq!((json["configVersion"].as_str(), json["mode"].as_str()), (Some("d"), Some("gthulhu")));
    assert_eq!((json["partial"].as_bool(), json["kernelMode"].as_bool()), (Some(true), Some(false)));
}

#[test]
fn nothing_is_detached_for_an_option_of_a_scheduler_that_does_not_run() {
    let folder = Folder::new();
    let mut running = folder.loader().load().expect("loaded");
    let mut effects = |body: &str| -> Vec<(&str, Effect)> {
        let change = running.apply(&patch(body)).expect("applied");
        change.changed.iter().map(|c| (c.path, c.effect)).collect()
    };
    use Effect::{Live, Reattach};
    let steps: [(&str, &[(&str, Effect)]); 8] = [
        (r#"{"configVersion": "1", "schedulerName": "scx_lavd"}"#, &[("scheduler.scheduler_name", Live)]),
        (r#"{"configVersion": "2", "lateMs": 40}"#, &[("scheduler.late_ms", Reattach)]),
        (r#"{"configVersion": "3", "mode": "scx"}"#, &[("scheduler.mode", Reattach)]),
        (r#"{"configVersion": "4", "lateMs": 50}"#, &[("scheduler.late_ms", Live)]),
        (
            r#"{"configVersion": "5", "schedulerName": "scx_rusty"}"#,
            &[("scheduler.scheduler_name", Reattach)],
        ),
        (r#"{"configVersion": "6", "schedulerEnabled": false}"#, &[("scheduler.enabled", Reattach)]),
        (r#"{"configVersion": "7", "mode": "gthulhu"}"#, &[("scheduler.mode", Live)]),
        (r#"{"configVersion": "8", "schedulerEnabled": true}"#, &[("scheduler.enabled", Reattach)]),
    ];
    for (body, expected) in steps {
        assert_eq!(effects(body), expected, "{body}");
    }
}

#[test]
fn a_program_of_mode_scx_is_looked_at_before_anything_is_detached_for_it() {
    let folder = Folder::new();
    let loader = Loader::new().keep_anywhere(folder.state()).set("scheduler.scx_folder=/no-such-folder");
    let mut running = loader.load().expect("loaded");
    let body = r#"{"configVersion": "1", "mode": "scx", "schedulerName": "scx_lavd"}"#;
    let refused = running.apply(&patch(body)).expect_err("refused").to_string();
    assert_eq!(refused, "request:1:56: schedulerName: /no-such-folder: is not there");
    assert_eq!(running.config().effective_mode().to_string(), "gthulhu");
    assert!(folder.names().is_empty());
    // The name alone detaches nothing.
    running.apply(&patch(r#"{"configVersion": "2", "schedulerName": "scx_lavd"}"#)).expect("applied");
}

#[test]
fn a_patch_is_of_a_bounded_length() {
    let body = format!("{{\"configVersion\": \"1\"}}{}", " ".repeat(1 << 16));
    let error = Patch::parse(body.as_bytes(), "request").expect_err("too long").to_string();
    assert_eq!(error, "request:1:65537: is longer than 65536 bytes");
    let deep = format!("{{\"configVersion\": {}", "[".repeat(10_000));
    let error = Patch::parse(deep.as_bytes(), "request").expect_err("too deep").to_string();
    assert!(error.contains("is no JSON object of fields: "), "{error}");
}

#[test]
fn a_look_leaves_a_broken_state_where_it_is() {
    let folder = Folder::new();
    folder.write("runtime.json", "broken");
    let loaded = folder.loader().look_only().load().expect("loaded");
    assert!(
        loaded.notices()[0].message.ends_with("this look leaves it where it is"),
        "{:?}",
        loaded.notices()
    );
    assert_eq!(folder.names(), ["runtime.json"]);
}

#[test]
fn the_state_is_for_its_owner_alone_and_leaves_no_other_file() {
    let folder = Folder::new();
    let mut running = folder.loader().load().expect("loaded");
    // Left over from a daemon that was killed while it wrote.
    folder.write("runtime.json.new", "{");
    running.apply(&patch(r#"{"configVersion": "1", "permit": 3}"#)).expect("applied");
    let mode = std::fs::metadata(folder.state()).expect("there").mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert_eq!(folder.names(), ["runtime.json"]);
}

#[test]
fn a_state_that_cannot_be_used_is_set_aside_and_reported() {
    let long =
        format!("{{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {{}}}}{}", " ".repeat(300_000));
    let cases: [(&[u8], &str); 10] = [
        (b"", "EOF while parsing a value"),
        (b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {\"per", "EOF while parsing a string"),
        (b"\x00\xff\x00", "it is no text in UTF-8"),
        (
            b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {\"permit\": 5000}}",
            "permit: 5000 is out of range",
        ),
        (
            b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {\"unknown\": 1}}",
            "unknown: is no field",
        ),
        (
            b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {\"mode\": \"gone\"}}",
            "'gone' is no mode",
        ),
        (
            b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": {\"mode\": \"scx\"}}",
            "scx needs a scheduler.scheduler_name",
        ),
        (b"{\"configVersion\": \"1\", \"appliedAt\": 1, \"config\": []}", "expected an object"),
        (b"{\"configVersion\": \"1\", \"config\": {}}", "missing field `appliedAt`"),
        (long.as_bytes(), "it is longer than"),
    ];
    for (bytes, why) in cases {
        let folder = Folder::new();
        folder.write("runtime.json", bytes);
        let mut loaded = folder.loader().load().expect("the daemon starts");
        assert_eq!(*loaded.config(), crate::Config::default());
        assert_eq!(loaded.applied(), None);
        let [notice] = loaded.notices() else { panic!("{:?}", loaded.notices()) };
        let text = notice.to_string();
        assert!(
            text.contains("the applied runtime configuration is not used: ") && text.contains(why),
            "{text}\n{why}"
        );
        // The evidence is kept, and the next change is saved.
        let [aside] = &folder.names()[..] else { panic!("{:?}", folder.names()) };
        assert!(aside.starts_with("runtime.json.refused-") && text.ends_with(aside.as_str()), "{text}");
        assert_eq!(std::fs::read(folder.0.join(aside)).expect("kept"), bytes);
        loaded.apply(&patch(r#"{"configVersion": "2", "permit": 3}"#)).expect("applied");
        assert_eq!(folder.loader().load().expect("loaded").config().scheduler.permit, 3);
    }
}

#[test]
fn a_state_that_others_could_have_written_or_read_is_not_used() {
    const GOOD: &str = r#"{"configVersion": "1", "appliedAt": 1, "config": {"permit": 3}}"#;
    let used = |folder: &Folder| {
        let loaded = folder.loader().load().expect("the daemon starts");
        let notices: Vec<String> = loaded.notices().iter().map(ToString::to_string).collect();
        (loaded.config().scheduler.permit == 3, notices.join("\n"))
    };
    let folder = Folder::new();
    folder.write("runtime.json", GOOD);
    assert_eq!(used(&folder), (true, String::new()));
    for mode in [0o644, 0o602, 0o660] {
        let path = folder.write("runtime.json", GOOD);
        chmod(&path, mode);
        let (taken, notice) = used(&folder);
        assert!(
            !taken && notice.contains(&format!("can be read or written by others (mode {mode:04o})")),
            "{notice}"
        );
    }
    let elsewhere = folder.write("elsewhere", GOOD);
    std::os::unix::fs::symlink(&elsewhere, folder.state()).expect("a link");
    let (taken, notice) = used(&folder);
    assert!(!taken && notice.contains("it is a link"), "{notice}");

    let open = Folder::new();
    open.write("runtime.json", GOOD);
    chmod(&open.0, 0o777);
    let (taken, notice) = used(&open);
    assert!(!taken && notice.contains("others may write in"), "{notice}");
    let mut loaded = open.loader().load().expect("loaded");
    let refused = loaded
        .apply(&patch(r#"{"configVersion": "2", "permit": 4}"#))
        .expect_err("not kept there")
        .to_string();
    assert!(refused.contains("others may write in"), "{refused}");

    // Whoever can rename its folder can put another in its place.
    let above = Folder::new();
    let state = above.0.join("lib/runtime.json");
    std::fs::DirBuilder::new().mode(0o700).create(above.0.join("lib")).expect("a folder");
    let mut loaded = Loader::new().keep_anywhere(state.clone()).load().expect("loaded");
    loaded.apply(&patch(r#"{"configVersion": "1", "permit": 3}"#)).expect("applied");
    chmod(&above.0, 0o777);
    let refused = loaded
        .apply(&patch(r#"{"configVersion": "2", "permit": 4}"#))
        .expect_err("not kept there")
        .to_string();
    assert!(refused.contains(&format!("others may write in {} ", above.0.display())), "{refused}");
    let loaded = Loader::new().keep_anywhere(state).load().expect("loaded");
    assert_eq!(loaded.config().scheduler.permit, 64);

    if !is_root() {
        skip("only root can give a file to somebody else");
        return;
    }
    let path = folder.write("runtime.json", GOOD);
    std::os::unix::fs::chown(&path, Some(12_345), None).expect("chown");
    let (taken, notice) = used(&folder);
    assert!(!taken && notice.contains("it belongs to user 12345, not to root"), "{notice}");
}

#[test]
fn a_folder_that_leads_to_a_temporary_one_is_refused_when_it_is_used() {
    let folder = Folder::new();
    if !folder.0.canonicalize().expect("there").starts_with("/tmp") {
        skip("this machine's temporary folder is not /tmp");
        return;
    }
    let store = crate::store::Store::new(folder.state(), true);
    let refused = store.write(b"{}").expect_err("refused").to_string();
    assert!(
        refused.contains("is a temporary folder; choose another daemon.runtime_config_path"),
        "{refused}"
    );
    assert!(folder.names().is_empty());
}

/// A small file system in memory, unmounted afterwards.
struct Small(PathBuf);

impl Small {
    fn mount(folder: &Folder) -> Result<Self, String> {
        if !is_root() {
            return Err("only root can mount a small file system".into());
        }
        let path = folder.0.join("small");
        std::fs::create_dir(&path).expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16k,mode=0700", "small"]).arg(&path);
        match mount.output() {
            Ok(output) if output.status.success() => Ok(Self(path)),
            Ok(output) => Err(format!("mount: {}", String::from_utf8_lossy(&output.stderr).trim())),
            Err(e) => Err(format!("mount: {e}")),
        }
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_refuses_the_change_and_loses_nothing() {
    let folder = Folder::new();
    let small = match Small::mount(&folder) {
        Ok(small) => small,
        Err(why) => {
            skip(&why);
            return;
        }
    };
    let state = small.0.join("runtime.json");
    let loader = Loader::new().keep_anywhere(state.clone());
    let mut running = loader.load().expect("loaded");
    running.apply(&patch(r#"{"configVersion": "1", "permit": 3}"#)).expect("applied");
    let saved = std::fs::read(&state).expect("saved");
    // A page is the least that tmpfs gives.
    let filler = small.0.join("filler");
    std::fs::write(&filler, vec![0_u8; 1 << 20]).expect_err("full");

    let Err(ApplyError::NotSaved(why)) = running.apply(&patch(r#"{"configVersion": "2", "permit": 4}"#))
    else {
        panic!("saved on a full disk")
    };
    let expected = format!("the change cannot be saved in {}, and was not made: ", state.display());
    assert!(why.starts_with(&expected) && why.contains("No space left"), "{why}");
    assert_eq!(
        (running.config().scheduler.permit, running.applied().map(|a| a.version.as_str())),
        (3, Some("1"))
    );
    assert_eq!(std::fs::read(&state).expect("still there"), saved);
    assert!(!small.0.join("runtime.json.new").exists());
    assert_eq!(loader.load().expect("restarted").config().scheduler.permit, 3);

    std::fs::remove_file(filler).expect("room again");
    running.apply(&patch(r#"{"configVersion": "2", "permit": 4}"#)).expect("applied");
    assert_eq!(loader.load().expect("restarted").config().scheduler.permit, 4);
}

#[test]
fn a_folder_that_is_none_refuses_the_change() {
    let folder = Folder::new();
    let file = folder.write("file", "");
    let loader = Loader::new().keep_anywhere(file.join("runtime.json"));
    let mut running = loader.load().expect("loaded");
    let refused = running.apply(&patch(r#"{"configVersion": "2", "permit": 4}"#)).expect_err("no folder");
    assert!(matches!(refused, ApplyError::NotSaved(_)), "{refused}");
    assert_eq!(running.config().scheduler.permit, 64);
}

#[test]
fn a_reload_takes_the_file_of_now_or_leaves_everything() {
    let folder = Folder::new();
    let path = folder.write("c.yaml", "scheduler: {permit: 1}\n");
    let mut running = folder.loader().file(&path).load().expect("loaded");
    running.apply(&patch(r#"{"configVersion": "1", "kernelMode": true}"#)).expect("applied");
    folder.write("c.yaml", "scheduler: {permit: 2}\n");
    let change = running.reload().expect("reloaded");
    assert_eq!(change.changed.iter().map(|c| c.path).collect::<Vec<_>>(), ["scheduler.permit"]);
    folder.write("c.yaml", "scheduler: {permit: 9999}\n");
    running.reload().expect_err("out of range");
    assert_eq!((running.config().scheduler.permit, running.config().scheduler.kernel_mode), (2, true));
}

#[test]
fn a_preview_says_what_would_change_and_changes_nothing() {
    let folder = Folder::new();
    let mut running = folder.loader().load().expect("loaded");
    let wanted = patch(r#"{"configVersion": "1", "permit": 3, "partial": true}"#);
    let before = running.config().clone();
    let (would_be, change) = running.preview(&wanted).expect("fine");
    assert!(change.reattaches() && would_be.scheduler.permit == 3);
    assert_eq!((running.config(), running.applied()), (&before, None));
    assert!(!folder.state().exists(), "nothing is saved");
    assert_eq!(running.apply(&wanted).expect("applied"), change);
    assert_eq!(running.config(), &would_be);
    let wrong = patch(r#"{"configVersion": "2", "permit": 1025}"#);
    assert_eq!(ApplyError::Refused(running.preview(&wrong).unwrap_err()), running.apply(&wrong).unwrap_err());
}
