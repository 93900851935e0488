//! Keys and tokens: read only where nobody else can, and never shown.

use super::*;
use crate::Secret;

const KEY: &str =
    "-----BEGIN PRIVATE KEY-----\\nMC4CAQAwBQYDK2VwBCIEIMOSTSECRETTEXT\\n-----END PRIVATE KEY-----\\n";
const HIDDEN: &str = "MOSTSECRETTEXT";

#[test]
fn a_private_key_in_the_file_is_never_shown() {
    let folder = Folder::new();
    let text = format!(
        "api:\n  mtls:\n    enable: true\n    key_pem: \"{KEY}\"\n    cert_pem: \"-----BEGIN CERTIFICATE-----\"\n    ca_pem: \"-----BEGIN \
         CERTIFICATE-----\"\n"
    );
    let loaded = folder.loader().file(folder.write("c.yaml", &text)).load().expect("loaded");
    let key = &loaded.config().api.mtls.key_pem;
    assert!(key.reveal().contains(HIDDEN) && key.is_set());
    assert_eq!(loaded.secrets().expect("read").api_key.as_ref(), Some(key));
    let shown = [
        loaded.explain_text(),
        loaded.explain_json().to_string(),
        loaded.config().to_yaml(),
        format!("{loaded:?}"),
        format!("{:?}", loaded.explain()),
        loaded.runtime_json().to_string(),
    ];
    for text in &shown {
        assert!(!text.contains(HIDDEN), "{text}");
    }
    assert!(shown[0].contains("api.mtls.key_pem = (set)"), "{}", shown[0]);
    assert!(shown[2].contains("# key_pem: (set)"), "{}", shown[2]);
}

#[test]
fn a_private_key_in_a_file_that_others_can_read_is_refused_without_showing_it() {
    let folder = Folder::new();
    let path = folder.write("c.yaml", format!("api:\n  mtls:\n    key_pem: \"{KEY}\"\n"));
    chmod(&path, 0o640);
    let error = folder.loader().file(&path).load().expect_err("refused").to_string();
    let shown = path.display();
    assert_eq!(
        error,
        format!(
            "{shown}:3:14: api.mtls.key_pem: a private key is in a file that others can read (mode 0640): chmod 600 {shown}, or put the key \
             into a file of its own and name that in api.mtls.key_file"
        )
    );
    let no_key = folder.write("d.yaml", format!("api:\n  mtls:\n    key_pem: \"{HIDDEN}\"\n"));
    let error = folder.loader().file(no_key).load().expect_err("no key").to_string();
    assert!(
        error.contains("what is given (not shown) is no private key as PEM") && !error.contains(HIDDEN),
        "{error}"
    );
}

#[test]
fn a_token_is_read_only_from_a_file_that_is_private() {
    let folder = Folder::new();
    let path = folder.write("token", "  s3cret\n");
    assert_eq!(Secret::read(&path).expect("read").reveal(), "s3cret");
    // As Kubernetes mounts it.
    std::os::unix::fs::symlink("token", folder.0.join("link")).expect("a link");
    assert_eq!(Secret::read(&folder.0.join("link")).expect("read").reveal(), "s3cret");
    let shown = path.display();
    for (mode, why) in [(0o644, "0644"), (0o640, "0640"), (0o620, "0620")] {
        chmod(&path, mode);
        let error = Secret::read(&path).expect_err("refused");
        let expected = format!(
            "{shown} can be read or written by others (mode {why}): chown root {shown} && chmod 600 {shown}"
        );
        assert_eq!(error, expected);
    }
    folder.write("token", " \n");
    assert_eq!(Secret::read(&path).expect_err("empty"), format!("{shown} is empty"));
    folder.write("token", "x".repeat(70_000));
    assert_eq!(Secret::read(&path).expect_err("long"), format!("{shown} is longer than 65536 bytes"));
    assert!(Secret::read(&folder.0).expect_err("a folder").ends_with("is no file"));
    if !is_root() {
        skip("only root can give a file to somebody else");
        return;
    }
    folder.write("token", "x");
    std::os::unix::fs::chown(&path, Some(12_345), None).expect("chown");
    assert!(Secret::read(&path).expect_err("foreign").contains("belongs to user 12345, not to root"));
}

#[test]
fn a_secret_that_cannot_be_read_is_an_error_where_it_is_named() {
    let folder = Folder::new();
    let path = folder
        .write("c.yaml", "api:\n  token_file: /does/not/exist\ndaemon:\n  token_file: /neither/does/this\n");
    let loaded = folder.loader().file(&path).load().expect("loaded");
    let error = loaded.secrets().expect_err("missing").to_string();
    let shown = path.display();
    assert_eq!(
        error,
        format!(
            "{shown}:2:15: api.token_file: cannot read /does/not/exist: No such file or directory (os error 2)\n{shown}:4:15: \
             daemon.token_file: cannot read /neither/does/this: No such file or directory (os error 2)"
        )
    );
}
