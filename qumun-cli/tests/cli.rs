//! The program, as it is called.

use std::path::PathBuf;
use std::process::{Command, Output};

struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("qumun-cli-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn qumun(args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        Command::new(env!("CARGO_BIN_EXE_qumun")).args(args).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

/// A trace of 300 ms of work, and where it is.
fn recorded(place: &Place, shape: &str) -> String {
    let file = place.file("a.trace");
    let (code, _, stderr) =
        qumun(&["sim", "--shape", shape, "--time-ms", "300", "-p", "simple-fifo", "-o", &file]);
    assert_eq!(code, 0, "{stderr}");
    file
}

#[test]
fn a_trace_is_replayed_and_compared() {
    let place = Place::new("replay");
    let trace = recorded(&place, "containers");
    let (html, perfetto) = (place.file("r.html"), place.file("r.perfetto"));
    let (code, out, stderr) =
        qumun(&["replay", &trace, "-p", "gthulhu", "-p", "simple", "--html", &html, "--perfetto", &perfetto]);
    assert_eq!(code, 0, "{stderr}");
    for words in [
        "wake to run, p99",
        "fairness",
        "idle while work waits",
        "who lost with gthulhu",
        "share of CPU time",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let html = std::fs::read_to_string(html).unwrap();
    assert!(html.starts_with("<!doctype html>") && html.trim_end().ends_with("</html>"));
    // It needs no other file and no network.
    for outside in ["http://", "https://", "<link", "src=", "@import"] {
        assert!(!html.contains(outside), "{outside}");
    }
    assert!(std::fs::metadata(perfetto).unwrap().len() > 10_000);
}

#[test]
fn the_json_has_what_programs_need_and_is_always_the_same() {
    let place = Place::new("json");
    let trace = recorded(&place, "requests");
    let args = ["replay", &trace, "-p", "gthulhu", "--json"];
    let (code, out, _) = qumun(&args);
    assert_eq!(code, 0);
    assert_eq!(out, qumun(&args).1);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(json["version"], 1);
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for run in runs {
        assert!(run["wake_to_run"]["p99_ns"].as_u64().unwrap() > 0);
        let shares: f64 =
            run["groups"].as_array().unwrap().iter().map(|g| g["share"].as_f64().unwrap()).sum();
        assert!((shares - 1.0).abs() < 1e-6, "{shares}");
    }
    assert!(json["lost"][0]["tasks"].is_array());
}

#[test]
fn the_same_policy_again_has_the_same_shares() {
    let place = Place::new("same");
    // Long against the first 100 ms, in which the core decides.
    let trace = place.file("long.trace");
    let args = ["sim", "--shape", "hogs", "--time-ms", "10000", "-p", "simple", "-o", &trace];
    assert_eq!(qumun(&args).0, 0);
    let (_, out, _) = qumun(&["replay", &trace, "-p", "simple", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    let [was, is] = [0, 1].map(|run| &json["runs"][run]["groups"]);
    for group in was.as_array().unwrap() {
        let again = is.as_array().unwrap().iter().find(|other| other["name"] == group["name"]).unwrap();
        let [a, b] = [group, again].map(|group| group["share"].as_f64().unwrap());
        assert!((a - b).abs() < 0.05 * a, "{}: {a} and {b}", group["name"]);
    }
}

#[test]
fn who_lost_is_named() {
    let place = Place::new("lost");
    let file = place.file("x.trace");
    let args =
        ["sim", "--shape", "hogs", "--time-ms", "2000", "-p", "simple", "-p", "simple-fifo", "-o", &file];
    assert_eq!(qumun(&args).0, 0);
    let (code, out, _) = qumun(&["diff", &place.file("x-simple.trace"), &place.file("x-simple-fifo.trace")]);
    assert_eq!(code, 0);
    // Weights mean nothing any more: the heaviest lose.
    let lost: Vec<&str> = out.lines().skip_while(|line| !line.starts_with("who lost")).collect();
    assert!(lost[1].contains("group w400") && lost[2].contains("group w200"), "{out}");
    assert!(!out.contains("group w50"), "{out}");
}

#[test]
fn errors_say_what_and_where() {
    let place = Place::new("errors");
    let trace = recorded(&place, "pipes");
    let bytes = std::fs::read(&trace).unwrap();
    let bad = |name: &str, bytes: &[u8]| {
        let file = place.file(name);
        std::fs::write(&file, bytes).unwrap();
        file
    };
    let cut = bad("cut", &bytes[..bytes.len() - 40]);
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 16;
    let flipped = bad("flipped", &flipped);
    let mut later = bytes;
    later[8] = 9;
    let later = bad("later", &later);
    let text = bad("text", b"hello\n");
    let scenario = bad("wrong.scn", b"machine cpus=2\ngroup a\n  jump 5ms\n");
    let bomb = bad("round.scn", b"group a\n  wake a\n  block\n");
    for (args, code, words) in [
        (vec!["replay", &cut], 65, vec!["cut: byte ", "truncated"]),
        (vec!["show", &flipped], 65, vec!["flipped: byte ", "checksum", "--partial"]),
        (vec!["diff", &trace, &later], 65, vec!["byte 8", "unknown version: 9", "newer"]),
        (vec!["replay", &text], 65, vec!["byte 0", "not a trace"]),
        (vec!["replay", "/nowhere"], 66, vec!["/nowhere"]),
        (vec!["sim", "/nowhere"], 66, vec!["/nowhere"]),
        (vec!["sim", &scenario], 65, vec!["line 3"]),
        (vec!["sim", &bomb], 1, vec!["group a", "no time passes"]),
        (vec!["replay", &trace, "-p", "cfs"], 64, vec!["known are: gthulhu"]),
        (vec!["sim", "--shape", "square"], 64, vec!["there is no shape"]),
        (vec!["sim", "--shape", "hogs", "--machine", "cpus=0"], 64, vec!["cpus=0"]),
        (vec!["show", &trace, "--html", "/nowhere/x.html"], 1, vec!["cannot write /nowhere/x.html"]),
    ] {
        let (got, _, stderr) = qumun(&args);
        assert_eq!(got, code, "{args:?}: {stderr}");
        for word in words {
            assert!(stderr.contains(word), "{args:?}: '{word}' is not in: {stderr}");
        }
    }
    let (code, out, _) = qumun(&["show", "--partial", &cut]);
    assert_eq!(code, 0);
    assert!(out.contains("read in part"), "{out}");
}
