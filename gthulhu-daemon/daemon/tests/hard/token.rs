//! The token that the daemon makes for itself.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::{Daemon, PROGRAM, wait_for};

const PATH: &str = "/api/v1/runtime-config";
const BODY: &str = r#"{"configVersion": "1", "permit": 1}"#;

/// Code and body of a change with this token.
fn change(daemon: &Daemon, token: Option<&str>) -> (u16, String) {
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let answer =
        daemon.control.ask("POST", PATH, &format!("Content-Type: application/json\r\n{token}"), BODY);
    (answer.code, answer.body)
}

#[test]
fn on_loopback_everybody_may_read_and_only_who_has_the_daemons_token_may_change() {
    let Some(mut daemon) = Daemon::new("own-token", "") else { return };
    let path = daemon.folder.0.join("state/control-token");
    for path in [PATH, "/api/v1/status"] {
        assert_eq!(daemon.control.get(path, "").code, 200);
    }
    let (code, why) = change(&daemon, None);
    assert!(code == 401 && why.contains(path.to_str().expect("a path")), "{code} {why}");
    assert_eq!(change(&daemon, Some("wrong")).0, 401);
    let token = fs::read_to_string(&path).expect("a token").trim().to_owned();
    assert_eq!(token.len(), 64);
    assert_eq!(fs::metadata(&path).expect("there").mode() & 0o7777, 0o600);
    assert_eq!(change(&daemon, Some(&token)).0, 200);
    // It is the same after a restart.
    daemon.restart();
    assert_eq!(fs::read_to_string(&path).expect("a token").trim(), token);
    assert_eq!(change(&daemon, Some(&token)).0, 200);
    // Another one holds once it is there, and the old one no more.
    fs::write(&path, "another\n").expect("written");
    wait_for("the other token", || (change(&daemon, Some("another")).0 == 200).then_some(()));
    assert_eq!(change(&daemon, Some(&token)).0, 401);
    // One that others can read is none: nobody may, and it is said why.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set");
    wait_for("the refusal", || (change(&daemon, Some("another")).0 == 403).then_some(()));
    let why = change(&daemon, Some("another")).1;
    assert!(why.contains("can be read or written by others (mode 0644)"), "{why}");
    let status = daemon.control.get("/api/v1/status", "").json();
    assert!(status["http"]["accessError"].as_str().is_some_and(|why| why.contains("0644")), "{status}");
    fs::remove_file(&path).expect("removed");
    let new = wait_for("a new token", || {
        let _ = change(&daemon, None);
        fs::read_to_string(&path).ok()
    });
    wait_for("that it holds", || (change(&daemon, Some(new.trim())).0 == 200).then_some(()));
}

#[test]
fn without_a_token_where_that_is_said() {
    let Some(daemon) = Daemon::new("no-token", "daemon:\n  require_token: false\n") else { return };
    assert_eq!(change(&daemon, None).0, 200);
    assert!(!daemon.folder.0.join("state/control-token").exists());
    let log = daemon.log();
    assert!(log.contains("daemon.require_token: is off: every user of this machine"), "{log}");
}

#[test]
fn a_token_file_can_be_replaced_while_it_runs() {
    let Some(daemon) = Daemon::new("token-file", "daemon:\n  token_file: TOKEN\n") else { return };
    assert_eq!((change(&daemon, Some("sesame")).0, change(&daemon, None).0), (200, 401));
    let path = daemon.folder.0.join("token");
    fs::write(&path, "").expect("written");
    // Nothing in it: the old one holds, and the trouble is said.
    wait_for("the trouble", || {
        let status = daemon.control.get("/api/v1/status", "Authorization: Bearer sesame\r\n").json();
        status["http"]["accessError"]
            .as_str()
            .filter(|why| why.contains("is empty; the old token holds"))
            .map(drop)
    });
    fs::write(&path, "open\n").expect("written");
    wait_for("the other token", || (change(&daemon, Some("open")).0 == 200).then_some(()));
    assert_eq!(change(&daemon, Some("sesame")).0, 401);
}

#[test]
fn no_address_beyond_loopback_without_a_token_or_certificates() {
    let folder = std::env::temp_dir().join(format!("gthulhu-beyond-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("c.yaml");
    fs::write(&file, "scheduler:\n  mode: none\ndaemon:\n  control_addr: 192.0.2.1:18080\n")
        .expect("written");
    let run = Command::new(PROGRAM).args(["run", "--config"]).arg(&file).output().expect("run");
    let said = String::from_utf8_lossy(&run.stderr).into_owned();
    fs::remove_dir_all(&folder).expect("removed");
    assert_eq!(run.status.code(), Some(64), "{said}");
    assert!(
        said.contains(&format!("{}:4:17: daemon.control_addr: 192.0.2.1:18080", file.display())),
        "{said}"
    );
    assert!(
        said.contains("it needs daemon.token_file or daemon.client_ca_file; or take 127.0.0.1"),
        "{said}"
    );
}
