//! Control over TLS, with real handshakes and certificates made for the test.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Daemon, PROGRAM, wait_for};

/// An authority that signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What it has signed, with the key.
struct Signed {
    pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("signed"))
    }

    fn sign(&self) -> Signed {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("parameters");
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        Signed { pem: certificate.pem(), der: certificate.der().clone(), key }
    }
}

impl Signed {
    fn write(&self, folder: &Path, name: &str) {
        fs::write(folder.join(format!("{name}.pem")), &self.pem).expect("written");
        let path = folder.join(format!("{name}.key"));
        fs::write(&path, self.key.serialize_pem()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("set");
    }
}

/// A daemon's folder with certificates, the daemon not started yet with them.
struct World {
    daemon: Daemon,
    authority: Authority,
    server: Signed,
}

impl World {
    /// Keys of the configuration are in the environment: the daemon's folder has a name only once it is there.
    fn new(name: &str, client_ca: bool) -> Option<Self> {
        let mut daemon = Daemon::new(name, "")?;
        let folder = daemon.folder.0.clone();
        let authority = Authority::new();
        let server = authority.sign();
        server.write(&folder, "server");
        fs::write(folder.join("ca.pem"), authority.0.pem()).expect("written");
        let file = |name: &str| folder.join(name).to_str().expect("a path").to_owned();
        daemon.env("GTHULHU_DAEMON_TLS_CERT_FILE", &file("server.pem"));
        daemon.env("GTHULHU_DAEMON_TLS_KEY_FILE", &file("server.key"));
        if client_ca {
            daemon.env("GTHULHU_DAEMON_CLIENT_CA_FILE", &file("ca.pem"));
        }
        daemon.restart();
        Some(Self { daemon, authority, server })
    }

    /// Asks over TLS, with a certificate or without. The code of the answer and the server's certificate; or why not.
    fn ask(
        &self,
        request: &str,
        client: Option<&Signed>,
    ) -> Result<(u16, String, CertificateDer<'static>), String> {
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.0.der().clone()).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some(client) => {
                let key = PrivateKeyDer::try_from(client.key.serialize_der()).expect("a key");
                builder.with_client_auth_cert(vec![client.der.clone()], key).expect("a certificate")
            }
        };
        let name = ServerName::try_from("127.0.0.1").expect("a name");
        let connection = ClientConnection::new(config.into(), name).map_err(|e| e.to_string())?;
        let mut stream = StreamOwned::new(connection, self.daemon.control.connect());
        stream.write_all(request.as_bytes()).map_err(|e| e.to_string())?;
        let mut text = String::new();
        // What comes before the end counts: not everybody says good-bye.
        let read = stream.read_to_string(&mut text);
        let code = text.split(' ').nth(1).and_then(|code| code.parse().ok());
        let code = code.ok_or_else(|| format!("no answer: {read:?}"))?;
        let shown =
            stream.conn.peer_certificates().and_then(|all| all.first()).expect("a certificate").clone();
        Ok((code, text, shown.into_owned()))
    }

    fn code(&self, request: &str, client: Option<&Signed>) -> Result<u16, String> {
        self.ask(request, client).map(|(code, ..)| code)
    }
}

const LOOK: &str = "GET /api/v1/status HTTP/1.1\r\nHost: t\r\n\r\n";

fn change(headers: &str) -> String {
    let body = r#"{"configVersion": "1", "permit": 1}"#;
    format!(
        "POST /api/v1/runtime-config HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn with_an_authority_for_clients_its_certificates_and_no_others_control() {
    let Some(world) = World::new("mtls", true) else { return };
    let (friend, stranger) = (world.authority.sign(), Authority::new().sign());
    assert_eq!(world.code(LOOK, Some(&friend)), Ok(200));
    assert_eq!(world.code(&change(""), Some(&friend)), Ok(200), "the certificate is the proof");
    for client in [None, Some(&stranger)] {
        let refused = world.code(LOOK, client);
        assert!(refused.is_err(), "{refused:?}");
    }
    // Who speaks plainly is told so.
    let plain = world.daemon.control.get("/api/v1/status", "");
    assert!(plain.code == 400 && plain.body.contains("ask https://"), "{plain:?}");
    // The metrics have an address of their own.
    assert_eq!(world.daemon.metrics.get("/metrics", "").code, 200);
}

#[test]
fn without_an_authority_for_clients_changes_need_the_token() {
    let Some(world) = World::new("tls", false) else { return };
    assert_eq!(world.code(LOOK, None), Ok(200));
    assert_eq!(world.code(&change(""), None), Ok(401));
    let token = fs::read_to_string(world.daemon.folder.0.join("state/control-token")).expect("a token");
    let header = format!("Authorization: Bearer {}\r\n", token.trim());
    assert_eq!(world.code(&change(&header), None), Ok(200));
}

#[test]
fn certificates_are_read_anew_and_bad_ones_leave_the_old_ones_in_place() {
    let Some(world) = World::new("reload", true) else { return };
    let (folder, friend) = (world.daemon.folder.0.clone(), world.authority.sign());
    let shown = || world.ask(LOOK, Some(&friend)).map(|(_, _, shown)| shown);
    assert_eq!(shown(), Ok(world.server.der.clone()));
    // Half of it: the key does not go with the certificate.
    let next = world.authority.sign();
    fs::write(folder.join("server.pem"), &next.pem).expect("written");
    let trouble = wait_for("the trouble", || {
        let (_, text, shown) = world.ask(LOOK, Some(&friend)).expect("an answer");
        assert_eq!(shown, world.server.der);
        let body = text.split_once("\r\n\r\n").expect("a body").1;
        let status: serde_json::Value = serde_json::from_str(body).expect("JSON");
        status["http"]["accessError"].as_str().map(str::to_owned)
    });
    assert!(
        trouble.contains("server.pem: does not go with") && trouble.contains("the old ones"),
        "{trouble}"
    );
    next.write(&folder, "server");
    wait_for("the new certificate", || (shown() == Ok(next.der.clone())).then_some(()));
    // Another authority for clients: who had a certificate of the old one has none.
    let other = Authority::new();
    fs::write(folder.join("ca.pem"), other.0.pem()).expect("written");
    let newcomer = other.sign();
    wait_for("the new authority", || (world.code(LOOK, Some(&newcomer)) == Ok(200)).then_some(()));
    assert!(world.code(LOOK, Some(&friend)).is_err());
    assert!(world.daemon.log().contains("control over HTTP has new certificates from now on"));
}

#[test]
fn a_slow_handshake_stops_nobody() {
    let Some(world) = World::new("slow-tls", true) else { return };
    let friend = world.authority.sign();
    let silent: Vec<_> = (0..20).map(|_| world.daemon.control.connect()).collect();
    for mut stream in silent.iter().step_by(2) {
        // A record that begins as a handshake.
        let _ = stream.write_all(&[22, 3, 1, 2, 0]);
    }
    assert_eq!(world.code(LOOK, Some(&friend)), Ok(200));
    assert_eq!(world.daemon.status()["mode"], "none");
}

#[test]
fn files_that_do_not_fit_together_are_refused_with_file_line_and_field() {
    let folder = std::env::temp_dir().join(format!("gthulhu-tls-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let authority = Authority::new();
    authority.sign().write(&folder, "a");
    authority.sign().write(&folder, "b");
    fs::write(folder.join("none.pem"), "nothing\n").expect("written");
    let file = folder.join("c.yaml");
    let start = |cert: &str, key: &str| {
        let dir = folder.display();
        let yaml = format!(
            "scheduler:\n  mode: none\ndaemon:\n  tls_cert_file: {dir}/{cert}\n  tls_key_file: {dir}/{key}\n"
        );
        fs::write(&file, yaml).expect("written");
        let run = Command::new(PROGRAM).args(["run", "--config"]).arg(&file).output().expect("run");
        assert_eq!(run.status.code(), Some(64), "{run:?}");
        String::from_utf8_lossy(&run.stderr).into_owned()
    };
    for (cert, key, place, why) in [
        ("a.pem", "b.key", "c.yaml:4:18: daemon.tls_cert_file", "a.pem: does not go with"),
        ("none.pem", "a.key", "c.yaml:4:18: daemon.tls_cert_file", "none.pem: holds no certificate as PEM"),
        ("nowhere.pem", "a.key", "c.yaml:4:18: daemon.tls_cert_file", "nowhere.pem: cannot be read"),
        ("a.pem", "a.pem", "c.yaml:5:17: daemon.tls_key_file", "can be read or written by others"),
    ] {
        let said = start(cert, key);
        assert!(said.contains(place) && said.contains(why), "{said}");
    }
    fs::remove_dir_all(&folder).expect("removed");
}
