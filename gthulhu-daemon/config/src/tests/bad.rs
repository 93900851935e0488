//! What is wrong is refused, with the place, the field, and what is allowed.

use super::*;

/// The error about a file with this text, without the folder's name.
fn error(text: impl AsRef<[u8]>) -> String {
    let folder = Folder::new();
    let path = folder.write("c.yaml", text);
    match crate::check_file(&path, ["gthulhu", "simple", "simple-fifo"]) {
        Ok(_) => "accepted".into(),
        Err(problems) => problems.to_string().replace(&format!("{}/", folder.0.display()), ""),
    }
}

#[test]
fn a_wrong_value_is_refused_with_place_key_and_range() {
    for (text, expected) in [
        (
            "scheduler:\n  slice_ns_default: 0\n",
            "c.yaml:2:21: scheduler.slice_ns_default: 0 is out of range; allowed: 100000 to 100000000 ns",
        ),
        (
            "monitor:\n  prometheus_port: 70000",
            "c.yaml:2:20: monitor.prometheus_port: 70000 is out of range; allowed: 1 to 65535",
        ),
        (
            "monitor: {prometheus_port: 0}",
            "c.yaml:1:28: monitor.prometheus_port: 0 is out of range; allowed: 1 to 65535",
        ),
        ("api:\n  interval: -1\n", "c.yaml:2:13: api.interval: -1 is out of range; allowed: 1 to 3600 s"),
        (
            "api:\n  interval: 5s\n",
            "c.yaml:2:13: api.interval: '5s' is no whole number; allowed: 1 to 3600 s",
        ),
        (
            "api: {url: \"https://me:pw@host\"}",
            "c.yaml:1:12: api.url: has a user name or password in it; a token belongs into api.token_file; allowed: http://HOST[:PORT][/PATH] or https://…",
        ),
        (
            "api: {url: \"http://:80\"}",
            "c.yaml:1:12: api.url: 'http://:80' names no host; allowed: http://HOST[:PORT][/PATH] or https://…",
        ),
        (
            "api:\n  interval: 010\n",
            "c.yaml:2:13: api.interval: '010' begins with a zero; allowed: 1 to 3600 s",
        ),
        (
            "api:\n  interval: 1.5\n",
            "c.yaml:2:13: api.interval: '1.5' is no whole number; allowed: 1 to 3600 s",
        ),
        (
            "api:\n  interval: \"5\"\n",
            "c.yaml:2:13: api.interval: \"5\" is a text; write it without quotes; allowed: 1 to 3600 s",
        ),
        (
            "api:\n  interval: 99999999999999999999999999\n",
            "c.yaml:2:13: api.interval: 999999999999999999999999… (26 digits) is out of range; allowed: 1 to 3600 s",
        ),
        ("debug: maybe", "c.yaml:1:8: debug: 'maybe' is neither true nor false; allowed: true or false"),
        ("debug: [true]", "c.yaml:1:8: debug: is a list; allowed: true or false"),
        ("debug: {a: b}", "c.yaml:1:8: debug: is a section; allowed: true or false"),
        (
            "scheduler: {mode: simpel}",
            "c.yaml:1:19: scheduler.mode: 'simpel' is no mode; did you mean simple?; allowed: none, scx, gthulhu, simple, simple-fifo",
        ),
        (
            "scheduler:\n  transport: ring\n",
            "c.yaml:2:14: scheduler.transport: 'ring' is no transport; did you mean rings?; allowed: shared or rings",
        ),
        (
            "scheduler:\n  agent_cpus: 3-1\n",
            "c.yaml:2:15: scheduler.agent_cpus: '3-1' ends before it begins; allowed: CPU numbers and ranges, such as 0-3,8",
        ),
        (
            "scheduler:\n  agent_cpus: 1024\n",
            "c.yaml:2:15: scheduler.agent_cpus: CPU 1024: numbers are below 1024; allowed: CPU numbers and ranges, such as 0-3,8",
        ),
        (
            "scheduler:\n  options: [fifo]\n",
            "c.yaml:2:12: scheduler.options: 'fifo' has not the form NAME=VALUE; allowed: a list of NAME=VALUE",
        ),
        (
            "scheduler:\n  options: [a=1, a=2]\n",
            "c.yaml:2:12: scheduler.options: 'a' is given twice; allowed: a list of NAME=VALUE",
        ),
        (
            "daemon:\n  socket: gthulhu.sock\n",
            "c.yaml:2:11: daemon.socket: 'gthulhu.sock' is no absolute path; allowed: an absolute path",
        ),
        (
            "daemon:\n  socket: /run/../tmp/s\n",
            "c.yaml:2:11: daemon.socket: '/run/../tmp/s' has '..' in it; allowed: an absolute path",
        ),
        (
            "daemon:\n  runtime_config_path: /tmp/gthulhu/runtime-config.yaml\n",
            "c.yaml:2:24: daemon.runtime_config_path: '/tmp/gthulhu/runtime-config.yaml' is in a temporary folder: it would be lost, and \
             others can write there; allowed: an absolute path of a file, not in a temporary folder",
        ),
        (
            "api:\n  url: ftp://x\n",
            "c.yaml:2:8: api.url: 'ftp://x' begins neither with http:// nor with https://; allowed: http://HOST[:PORT][/PATH] or https://…",
        ),
        (
            "api:\n  url: http://x:99999\n",
            "c.yaml:2:8: api.url: 'http://x:99999' has no port between 1 and 65535; allowed: http://HOST[:PORT][/PATH] or https://…",
        ),
        (
            "daemon:\n  control_addr: \"127.0.0.1\"\n",
            "c.yaml:2:17: daemon.control_addr: '127.0.0.1' is no ADDRESS:PORT; allowed: ADDRESS:PORT, such as 127.0.0.1:18080; :PORT is all \
             addresses",
        ),
        (
            "api:\n  mtls:\n    cert_pem: nonsense\n",
            "c.yaml:3:15: api.mtls.cert_pem: 'nonsense' is no PEM; allowed: PEM: it begins with -----BEGIN",
        ),
        (
            "monitor:\n  node_name: \"a\\tb\"\n",
            "c.yaml:2:14: monitor.node_name: 'a\\tb' has control characters; allowed: a node's name: letters, digits, '-' and '.', at most 253",
        ),
    ] {
        assert_eq!(error(text), expected, "{text}");
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let starts = [
        (
            "scheduler:\n  slice_ns_defualt: 1\n",
            "c.yaml:2:3: scheduler.slice_ns_defualt: is no key; did you mean scheduler.slice_ns_default?; known in scheduler: enabled, mode",
        ),
        (
            "scheduler:\n  sliceNsDefault: 1\n",
            "c.yaml:2:3: scheduler.sliceNsDefault: is no key; did you mean scheduler.slice_ns_default?",
        ),
        (
            "Scheduler:\n  mode: none\n",
            "c.yaml:1:1: Scheduler: is no key; did you mean scheduler?; known at the top: debug, early_processing, builtin_idle, scheduler, monitor, api, daemon",
        ),
        ("mode: none\n", "c.yaml:1:1: mode: is no key; did you mean scheduler.mode?"),
        ("scheduler:\n  debug: on\n", "c.yaml:2:3: scheduler.debug: is no key; did you mean debug?"),
        (
            "scheduler:\n  slice_us: 4000\n",
            "c.yaml:2:3: scheduler.slice_us: is no key; the key of --slice-us is scheduler.slice_ns_default, and not in us",
        ),
        (
            "early_kthreads: on\n",
            "c.yaml:1:1: early_kthreads: is no key; the key of --early-kthreads is early_processing; known at the top",
        ),
        (
            "api:\n  mtls:\n    enabled: on\n",
            "c.yaml:3:5: api.mtls.enabled: is no key; did you mean api.mtls.enable?; known in api.mtls: enable, cert_pem",
        ),
        ("xyzzy: 1\n", "c.yaml:1:1: xyzzy: is no key; known at the top: "),
        ("\"a\\x01b\": 1\n", "c.yaml:1:1: a\\u{1}b: is no key"),
    ];
    for (text, start) in starts {
        let error = error(text);
        assert!(error.starts_with(start), "{error}\nshould begin\n{start}");
    }
}

#[test]
fn what_is_no_yaml_is_refused_with_its_place() {
    for (text, expected) in [
        ("a: b: c", "c.yaml:1:5: is no YAML: "),
        ("scheduler:\n\tmode: none\n", "c.yaml:2:2: is no YAML: "),
        ("scheduler: {mode: none", "c.yaml:"),
        ("just words", "c.yaml:1:1: a configuration begins with a key, such as scheduler:"),
        ("- a\n", "c.yaml:1:1: a configuration begins with a key, such as scheduler:"),
        ("scheduler: on\n", "c.yaml:1:12: scheduler: is a section; known in it: enabled, mode"),
        ("debug: on\ndebug: off\n", "c.yaml:2:1: debug: is given twice; the first is in line 1"),
        ("a: &x 1\n", "c.yaml:1:7: anchors (&) and aliases (*) are not taken here; write the value out"),
        ("debug: !!bool on\n", "c.yaml:1:15: tags (!) are not taken here; write the value without one"),
        (
            "debug: on\n---\ndebug: off\n",
            "c.yaml:2:1: a second document (---) begins; a configuration is one",
        ),
        ("? [a]\n: b\n", "c.yaml:1:3: the name of a key is a plain word"),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}\nshould begin\n{expected}");
    }
    assert_eq!(error(b"debug: on\nx: \xff\n"), "c.yaml:2:4: is no text in UTF-8");
    assert_eq!(error("a: [".to_owned() + &"[".repeat(10_000)).lines().count(), 1);
}

#[test]
fn a_pipe_is_no_configuration_and_is_not_waited_for() {
    let folder = Folder::new();
    let path = folder.0.join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo");
    assert!(made.success());
    let refused = folder.loader().file(&path).load().expect_err("refused").to_string();
    assert_eq!(refused, format!("{}: is no file", path.display()));
}

#[test]
fn forms_that_mean_the_same_are_held_in_one() {
    for (text, path, held) in [
        ("daemon: {control_addr: \":18080\", token_file: /t}", "daemon.control_addr", "0.0.0.0:18080"),
        ("daemon: {control_addr: \"localhost:80\"}", "daemon.control_addr", "127.0.0.1:80"),
        ("daemon: {control_addr: \"[::1]:80\"}", "daemon.control_addr", "[::1]:80"),
        ("daemon: {control_addr: \"\"}", "daemon.control_addr", "(not set)"),
        ("monitor: {prometheus_address: \"::\"}", "monitor.prometheus_address", "::"),
        ("api: {url: \"http://[::1]:8080/x\"}", "api.url", "http://[::1]:8080/x"),
        ("scheduler: {slice_ns_default: 20_000_000}", "scheduler.slice_ns_default", "20000000"),
        ("scheduler: {slice_ns_default: +20000000}", "scheduler.slice_ns_default", "20000000"),
        ("scheduler: {limits: No}", "scheduler.limits", "false"),
        ("scheduler: {partial: yes}", "scheduler.partial", "true"),
        ("scheduler: {agent_cpus: 3}", "scheduler.agent_cpus", "3"),
        ("\"scheduler\": {'mode': \"none\"}", "scheduler.mode", "none"),
        ("{\"scheduler\": {\"mode\": \"none\", \"permit\": 0}}", "scheduler.permit", "0"),
        ("scheduler:\n  mode:\n", "scheduler.mode", "gthulhu"),
        ("scheduler: ~\napi:\n", "scheduler.mode", "gthulhu"),
        ("# nothing\n", "debug", "false"),
        ("", "debug", "false"),
    ] {
        let folder = Folder::new();
        let loaded = folder.loader().file(folder.write("c.yaml", text)).load();
        let loaded = loaded.unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(shown(&loaded, key(path)).0, held, "{text}");
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_in_the_order_of_the_file() {
    let all = error("debug: perhaps\nscheduler:\n  permit: 1025\n  nonsense: 1\napi:\n  interval: 0\n");
    let fields: Vec<&str> = all.lines().filter_map(|line| line.split(": ").nth(1)).collect();
    assert_eq!(fields, ["debug", "scheduler.permit", "scheduler.nonsense", "api.interval"]);
}

#[test]
fn keys_that_need_or_exclude_each_other_are_checked_where_they_stand() {
    for (text, expected) in [
        (
            "scheduler:\n  mode: scx\n",
            "c.yaml:2:9: scheduler.mode: scx needs a scheduler.scheduler_name; allowed: scx_beerland, ",
        ),
        (
            "scheduler:\n  heartbeat_ms: 3000\n",
            "c.yaml:2:17: scheduler.heartbeat_ms: 3000 is out of range; allowed: 10 to 2500 ms, half of scheduler.stall_timeout_ms",
        ),
        ("api:\n  enabled: true\n", "c.yaml:2:12: api.enabled: needs api.url, such as http://127.0.0.1:8080"),
        (
            "api: {enabled: true, auth_enabled: true, url: \"http://127.0.0.1:8080\"}",
            "c.yaml:1:36: api.auth_enabled: needs api.token_file or api.public_key_path",
        ),
        (
            "api:\n  mtls: {enable: true}\n",
            "c.yaml:2:18: api.mtls.enable: TLS needs api.mtls.cert_file or api.mtls.cert_pem\n",
        ),
        (
            "daemon:\n  control_addr: :18080\n",
            "c.yaml:2:17: daemon.control_addr: 0.0.0.0:18080 can be reached from outside: it needs daemon.token_file or daemon.client_ca_file; \
             or take 127.0.0.1",
        ),
        ("daemon: {tls_key_file: /k}", "c.yaml:1:24: daemon.tls_key_file: needs daemon.tls_cert_file"),
        (
            "monitor: {prometheus_port: 18080}",
            "c.yaml:1:28: monitor.prometheus_port: 18080 is the port of daemon.control_addr too",
        ),
    ] {
        let error = error(text);
        assert!(error.starts_with(expected), "{error}\nshould begin\n{expected}");
    }
}

#[test]
fn wrong_flags_and_variables_are_refused_by_their_names() {
    let message = |loader: Loader| loader.without_runtime().load().expect_err("wrong").to_string();
    let env = |name: &str, value: &str| Loader::new().env([(name.into(), value.into())]);
    for (loader, expected) in [
        (Loader::new().flag("slice-us", ["99"]), "--slice-us: 99 is out of range; allowed: 100 to 100000 us"),
        (
            Loader::new().flag("slice-us", ["x"]),
            "--slice-us: 'x' is no whole number; allowed: 100 to 100000 us",
        ),
        (
            Loader::new().flag("slice-us", ["18446744073709551615"]),
            "--slice-us: 18446744073709551615 is out of range; allowed: 100 to 100000 us",
        ),
        (Loader::new().flag("late-ms", ["7"]), "--late-ms: 7 is out of range; allowed: 8 to 200 ms"),
        (Loader::new().flag("late-ms", ["8", "9"]), "--late-ms: is given 2 times; allowed: 8 to 200 ms"),
        (Loader::new().flag("slice-su", ["1"]), "--slice-su: is no flag of a key; did you mean slice-us?"),
        (
            Loader::new().set("scheduler.mod=none"),
            "--set scheduler.mod: 'scheduler.mod' is no key; did you mean scheduler.mode?",
        ),
        (Loader::new().set("scheduler.mode"), "--set scheduler.mode: has the form --set PATH=VALUE"),
        (
            Loader::new().flag("late-ms", ["8"]).set("scheduler.late_ms=9"),
            "--set scheduler.late_ms: was said before, by --late-ms",
        ),
        (
            Loader::new().set("api.mtls.key_pem=x"),
            "--set api.mtls.key_pem: a private key cannot be given on the command line, which everybody can see",
        ),
        (env("GTHULHU_DEBUG", "2"), "GTHULHU_DEBUG: '2' is neither true nor false; allowed: true or false"),
        (
            env("GTHULHU_MONITOR_PROMETHEUS_PORT", "tcp://10.0.0.1:9090"),
            "GTHULHU_MONITOR_PROMETHEUS_PORT: 'tcp://10.0.0.1:9090' is no whole number; allowed: 1 to 65535. Kubernetes sets such variables \
             for services: enableServiceLinks: false in the pod",
        ),
    ] {
        assert_eq!(message(loader), expected);
    }
    let odd = Loader::new().env([
        ("GTHULHU_SHEDULER_MODE".into(), "none".into()),
        ("GTHULHU_PROMETHEUS_PORT".into(), "9091".into()),
        ("GTHULHU_MANAGER_SERVICE_HOST".into(), "10.0.0.1".into()),
        ("GTHULHU_MANAGER_PORT".into(), "tcp://10.0.0.1:80".into()),
        ("GTHULHU_MANAGER_PORT_80_TCP_PROTO".into(), "tcp".into()),
        ("PATH".into(), "/bin".into()),
    ]);
    let notices: Vec<String> =
        odd.without_runtime().load().expect("loaded").notices().iter().map(ToString::to_string).collect();
    assert_eq!(
        notices,
        [
            "GTHULHU_SHEDULER_MODE: is no variable of a key, and has no effect; did you mean GTHULHU_SCHEDULER_MODE?",
            "GTHULHU_PROMETHEUS_PORT: is no variable of a key, and has no effect"
        ]
    );
}

#[test]
fn the_original_s_own_file_is_taken_and_its_dead_keys_are_explained() {
    let folder = Folder::new();
    let text = "monitor:\n  enabled: true\n  bpf_object_path: sched_monitor.bpf.o\n  collection_interval_sec: 10\n  monitor_all: false\n  \
                stream_events: false\n  prometheus_port: 9090\n  enable_crd_watcher: true\n  kubeconfig_path: \"\"\nscheduler:\n  \
                slice_ns_default: 20000000\n  slice_ns_min: 1000000\n  mode: gthulhu\n  scheduler_name: \"\"\n  kernel_mode: true\n  \
                max_time_watchdog: true\nsimple_scheduler:\n  enable_fifo: true\ndebug: false\nearly_processing: false\nbuiltin_idle: \
                true\napi:\n  url: http://127.0.0.1:8080\n  interval: 5\n  public_key_path: ./api/config/jwt_public_key.pem\n  enabled: \
                true\n  auth_enabled: true\n  mtls:\n    enable: false\n    cert_pem: \"\"\n    key_pem: \"\"\n    ca_pem: \"\"\n";
    let path = folder.write("c.yaml", text);
    let loaded = folder.loader().file(&path).env([("NODE_NAME".into(), "n1".into())]).load().expect("taken");
    let config = loaded.config();
    assert_eq!((config.scheduler.slice_ns_default, config.scheduler.kernel_mode), (20_000_000, true));
    assert_eq!((config.monitor.node_name.as_deref(), config.monitor.enable_crd_watcher), (Some("n1"), true));
    let notices: Vec<String> = loaded.notices().iter().map(|n| n.field.clone()).collect();
    assert_eq!(notices, ["monitor.bpf_object_path", "simple_scheduler.enable_fifo"]);
    assert_eq!(loaded.notices()[0].place.as_ref().map(|p| (p.line, p.column)), Some((3, 3)));
}

#[test]
fn a_file_that_everybody_may_write_is_refused_and_so_is_toml() {
    let folder = Folder::new();
    let path = folder.write("c.yaml", "debug: on\n");
    chmod(&path, 0o666);
    let shown = path.display();
    let refused = folder.loader().file(&path).load().expect_err("refused").to_string();
    assert_eq!(refused, format!("{shown}: everybody may write it (mode 0666); chmod o-w {shown}"));
    let toml = folder.loader().file(folder.write("c.toml", "")).load().expect_err("refused").to_string();
    assert!(toml.ends_with("c.toml: the node's configuration is YAML, as the original's; TOML is for the manager and the decision maker"));
    if is_root() {
        let path = folder.write("d.yaml", "");
        std::os::unix::fs::chown(&path, Some(12_345), Some(0)).expect("chown");
        let notices = folder.loader().file(&path).load().expect("loaded").notices().to_vec();
        assert_eq!(notices.len(), 1);
        assert_eq!(notices[0].message, "user 12345 may write it, and so decides what root runs");
        std::os::unix::fs::chown(&path, Some(0), Some(12_345)).expect("chown");
        chmod(&path, 0o660);
        let notices = folder.loader().file(&path).load().expect("loaded").notices().to_vec();
        assert_eq!(notices[0].message, "group 12345 may write it, and so decides what root runs");
    } else {
        skip("only root can give a file to somebody else");
    }
    let folder_itself = folder.loader().file(&folder.0).load().expect_err("refused").to_string();
    assert!(folder_itself.ends_with(": is no file"), "{folder_itself}");
    let long = folder
        .loader()
        .file(folder.write("l.yaml", "#".repeat(1 << 21)))
        .load()
        .expect_err("refused")
        .to_string();
    assert!(long.ends_with("is longer than 1048576 bytes"), "{long}");
}
