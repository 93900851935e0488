//! Mode `scx` runs what root put there, and nothing else.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;

use super::*;
use crate::{SCX_NAMES, ScxChoice};

#[test]
fn names_outside_the_list_and_folders_that_are_relative_are_refused() {
    for (folder, name, expected) in [
        ("/usr/bin", "sh", "/usr/bin: 'sh' is no scheduler that is run"),
        ("/usr/bin", "lavd", "/usr/bin: 'lavd' is no scheduler that is run; did you mean scx_lavd?"),
        (
            "/usr/bin",
            "scx_lavdd",
            "/usr/bin: 'scx_lavdd' is no scheduler that is run; did you mean scx_lavd?",
        ),
        ("/usr/bin", "", "/usr/bin: '' is no scheduler that is run"),
        ("/usr/bin", "../bin/scx_lavd", "/usr/bin: '../bin/scx_lavd' is no scheduler that is run"),
        ("/usr/bin", "/usr/bin/scx_lavd", "/usr/bin: '/usr/bin/scx_lavd' is no scheduler that is run"),
        (
            "/usr/bin",
            "scx_lavd\0",
            "/usr/bin: 'scx_lavd\\0' is no scheduler that is run; did you mean scx_lavd?",
        ),
        ("bin", "scx_lavd", "bin: the folder of the schedulers is an absolute path without '..'"),
        ("", "scx_lavd", ": the folder of the schedulers is an absolute path without '..'"),
        (
            "/usr/../tmp",
            "scx_lavd",
            "/usr/../tmp: the folder of the schedulers is an absolute path without '..'",
        ),
    ] {
        let error = ScxChoice::new(Path::new(folder), name).expect_err(name);
        assert_eq!(error.to_string(), expected);
    }
    for name in SCX_NAMES {
        assert_eq!(
            ScxChoice::new(Path::new("/opt/scx"), name).expect(name).path(),
            Path::new("/opt/scx").join(name)
        );
    }
}

#[test]
fn arguments_are_those_of_the_program_that_runs_and_of_known_programs_only() {
    let folder = Folder::new();
    let file = folder.write(
        "c.yaml",
        "scheduler:\n  mode: scx\n  scheduler_name: scx_lavd\n  scx_args: {scx_lavd: --performance  -v, scx_rusty: -k}\n",
    );
    let loaded = folder.loader().file(&file).load().expect("loaded");
    let args = |name: &str| loaded.config().scx_args(name);
    assert_eq!((args("scx_lavd"), args("scx_flash").len()), (vec!["--performance".into(), "-v".into()], 0));
    let file = folder.write("c.yaml", "scheduler:\n  scx_args:\n    scx_lavdd: -v\n");
    let error = folder.loader().file(&file).load().expect_err("no such program").to_string();
    let place =
        format!("{}:3:5: scheduler.scx_args: 'scx_lavdd' is no scheduler that is run", file.display());
    assert!(
        error.starts_with(&place) && error.contains("did you mean scx_lavd?; allowed: scx_beerland, "),
        "{error}"
    );
}

#[test]
fn a_program_that_is_not_to_be_trusted_is_refused_with_its_place() {
    let folder = Folder::new();
    let file =
        folder.write("c.yaml", "scheduler:\n  mode: scx\n  scheduler_name: scx_lavd\n  scx_folder: /tmp\n");
    let error = folder.loader().file(&file).load().expect("loaded").check_scx().expect_err("not trusted");
    let expected = format!("{}:3:19: scheduler.scheduler_name: /tmp", file.display());
    assert!(error.to_string().starts_with(&expected), "{error}");
}

#[test]
fn the_text_of_the_names_is_the_list() {
    assert_eq!(crate::scx::NAMES_TEXT, SCX_NAMES.join(", "));
}

/// A root of its own, with a scheduler that is a copy of `true`; `None` where a test cannot make root's files.
fn root() -> Option<(Folder, OwnedFd)> {
    if !is_root() {
        skip("only root can make what only root may write");
        return None;
    }
    let folder = Folder::new();
    std::fs::create_dir_all(folder.0.join("opt/scx")).expect("folders");
    for part in ["opt", "opt/scx"] {
        chmod(&folder.0.join(part), 0o755);
    }
    let program = folder.0.join("opt/scx/scx_lavd");
    std::fs::copy("/bin/true", &program).expect("a copy");
    chmod(&program, 0o755);
    let fd =
        rustix::fs::open(&folder.0, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).expect("opened");
    Some((folder, fd))
}

fn open(root: &OwnedFd, folder: &str) -> Result<crate::ScxProgram, String> {
    let choice = ScxChoice::new(Path::new(folder), "scx_lavd").expect("a choice");
    choice.open_below(root.as_fd()).map_err(|e| e.to_string())
}

#[test]
fn what_was_opened_is_what_runs_whatever_happens_to_the_name() {
    let Some((folder, root)) = root() else { return };
    let program = open(&root, "/opt/scx").expect("opened");
    // Whoever could replace it now is too late.
    let path = folder.0.join("opt/scx/scx_lavd");
    std::fs::remove_file(&path).expect("removed");
    std::fs::copy("/bin/false", &path).expect("replaced");
    let status = program.command().status().expect("it runs");
    assert!(status.success(), "another program ran");
    let (name, flags) = (program.name(), rustix::io::fcntl_getfd(&program).expect("a descriptor"));
    assert_eq!((name, flags), ("scx_lavd", rustix::io::FdFlags::CLOEXEC));
}

#[test]
fn links_foreign_owners_and_open_permissions_are_refused_on_every_step() {
    let Some((folder, root)) = root() else { return };
    let at = |part: &str| folder.0.join(part);
    let refused = |expected: &str, folder: &str| {
        assert_eq!(open(&root, folder).expect_err(expected), expected);
    };
    for (part, mode, shown) in [
        ("opt", 0o777, "/opt"),
        ("opt", 0o1777, "/opt"),
        ("opt/scx", 0o775, "/opt/scx"),
        ("opt/scx/scx_lavd", 0o757, "/opt/scx/scx_lavd"),
    ] {
        chmod(&at(part), mode);
        refused(&format!("{shown}: others than root may write it (mode {mode:04o})"), "/opt/scx");
        chmod(&at(part), 0o755);
        std::os::unix::fs::chown(at(part), Some(1000), None).expect("chown");
        refused(&format!("{shown}: belongs to user 1000, not to root"), "/opt/scx");
        std::os::unix::fs::chown(at(part), Some(0), None).expect("chown");
    }
    open(&root, "/opt/scx").expect("all is well again");

    symlink("opt", at("link")).expect("a link");
    refused("/link: is a link; name the real path", "/link/scx");
    symlink("scx", at("opt/link")).expect("a link");
    refused("/opt/link: is a link; name the real path", "/opt/link");
    std::fs::rename(at("opt/scx/scx_lavd"), at("opt/scx/other")).expect("moved");
    symlink("other", at("opt/scx/scx_lavd")).expect("a link");
    refused("/opt/scx/scx_lavd: is a link; name the real path", "/opt/scx");
    std::fs::remove_file(at("opt/scx/scx_lavd")).expect("removed");
    refused("/opt/scx/scx_lavd: is not there", "/opt/scx");
    refused("/nowhere: is not there", "/nowhere");
    refused("/opt/scx/other: is no folder", "/opt/scx/other");

    std::fs::create_dir(at("opt/scx/scx_lavd")).expect("a folder");
    chmod(&at("opt/scx/scx_lavd"), 0o755);
    refused("/opt/scx/scx_lavd: is no file", "/opt/scx");
    std::fs::remove_dir(at("opt/scx/scx_lavd")).expect("removed");
    std::fs::write(at("opt/scx/scx_lavd"), "#!/bin/sh\n").expect("a script");
    chmod(&at("opt/scx/scx_lavd"), 0o644);
    refused("/opt/scx/scx_lavd: cannot be run; chmod 755 it", "/opt/scx");
    chmod(&at("opt/scx/scx_lavd"), 0o755);
    refused(
        "/opt/scx/scx_lavd: is no ELF program: a script would be looked up by its name again",
        "/opt/scx",
    );
}

#[test]
fn the_temporary_folder_is_refused_from_the_real_root() {
    let folder = Folder::new();
    let choice = ScxChoice::new(&folder.0, "scx_lavd").expect("a choice");
    let error = choice.open().expect_err("everybody may write there").to_string();
    assert!(error.contains("others than root may write it") || error.contains("belongs to user"), "{error}");
}
