//! The client against a decision maker that is slow, lies, is silent, or gone; tokens; and TLS with certificates.

mod server;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use gthulhu_api::client::{Auth, Client, ErrorKind, Message, Options, Tls};
use gthulhu_api::{Counters, paths};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use server::{Server, begin_stream, event, hang, reply};

const LIST: &str = r#"{"success":true,"message":"","timestamp":"","scheduling":[{"pid":1,"priority":3}]}"#;
/// For what is to time out.
const SHORT: Duration = Duration::from_millis(300);

fn wait<T>(what: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(what)
}

fn client(url: String) -> Client {
    Client::new(Options { url, time: SHORT * 10, silence: SHORT * 10, ..Options::default() })
        .expect("a client")
}

fn hasty(url: String) -> Client {
    Client::new(Options { url, time: SHORT, silence: SHORT, ..Options::default() }).expect("a client")
}

#[test]
fn strategies_are_asked_for_and_counters_told_at_the_original_s_paths() {
    let server = Server::new(|asked, out| match (asked.method.as_str(), asked.path.as_str()) {
        ("GET", paths::STRATEGIES) => reply(out, 200, LIST),
        ("POST", paths::METRICS) => reply(out, 200, "{}"),
        _ => reply(out, 404, ""),
    });
    let client = client(server.url());
    let list = wait(client.strategies()).expect("a list").records().expect("records");
    assert_eq!(list.records[0].0.pid, 1);
    let mut counters = Counters { nr_queued: 7, ..Counters::default() };
    counters.more.insert("permitted".into(), 9);
    wait(client.tell(&counters)).expect("told");
    let asked = server.asked.lock().expect("no panic");
    let body: serde_json::Value = serde_json::from_str(&asked[1].body).expect("JSON");
    assert_eq!((&body["nr_queued"], &body["permitted"]), (&7.into(), &9.into()));
    assert_eq!(body.as_object().map(serde_json::Map::len), Some(12));
}

#[test]
fn whatever_is_wrong_with_an_answer_is_an_error_in_time() {
    let cases: [(&str, u16, ErrorKind); 9] = [
        ("not JSON at all \u{1b}[31m", 200, ErrorKind::Garbage),
        ("", 200, ErrorKind::Garbage),
        (r#"{"success":"yes"}"#, 200, ErrorKind::Garbage),
        (r#"{"success":true,"scheduling":{"pid":1}}"#, 200, ErrorKind::Garbage),
        (r#"{"success":true,"scheduling":[],"generation":-1}"#, 200, ErrorKind::Garbage),
        (r#"{"success":false,"error":"who are you?"}"#, 401, ErrorKind::Denied),
        ("", 404, ErrorKind::NotOffered),
        ("<html>", 500, ErrorKind::Status),
        ("", 302, ErrorKind::Status),
    ];
    for (body, code, kind) in cases {
        let server = Server::new(move |_, out| reply(out, code, body));
        let error = wait(client(server.url()).strategies()).expect_err(body);
        assert_eq!(error.kind(), kind, "{body}: {error}");
        assert!(!error.to_string().contains(char::is_control), "{error:?}");
        assert!(code != 401 || error.to_string().contains("who are you?"), "{error}");
    }
    let deep = format!("{{\"success\":true,\"scheduling\":{}", "[".repeat(100_000));
    let server = Server::new(move |_, out| reply(out, 200, &deep));
    assert_eq!(wait(client(server.url()).strategies()).expect_err("deep").kind(), ErrorKind::Garbage);
}

#[test]
fn bodies_without_end_are_cut_and_slow_ones_given_up() {
    let endless = Server::new(|_, out| {
        out.write_all(b"HTTP/1.1 200 X\r\nContent-Type: application/json\r\n\r\n[")?;
        loop {
            out.write_all(&[b' '; 65_536])?;
        }
    });
    let error = wait(client(endless.url()).strategies()).expect_err("too long");
    assert!(error.kind() == ErrorKind::Garbage && error.to_string().contains("longer than"), "{error}");
    // A byte at a time: each comes soon, the whole never.
    let slow = Server::new(|_, out| {
        out.write_all(b"HTTP/1.1 200 X\r\nContent-Length: 1000\r\n\r\n")?;
        loop {
            out.write_all(b" ")?;
            out.flush()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    let silent = Server::new(|_, _| {
        hang();
        Ok(())
    });
    for server in [&slow, &silent] {
        let begun = Instant::now();
        assert_eq!(wait(hasty(server.url()).strategies()).expect_err("late").kind(), ErrorKind::Timeout);
        assert!(begun.elapsed() < SHORT * 10, "{:?}", begun.elapsed());
    }
    let gone = Server::new(|_, _| Ok(()));
    assert_eq!(wait(hasty(gone.url()).strategies()).expect_err("hung up").kind(), ErrorKind::Unreachable);
    let address = gone.url();
    drop(gone);
    let refused = wait(async {
        loop {
            // Until its thread has gone, too.
            match hasty(address.clone()).strategies().await {
                Err(e) if e.to_string().contains("refused") => return e,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        }
    });
    assert_eq!(refused.kind(), ErrorKind::Unreachable);
}

#[test]
fn a_stream_tells_changes_and_that_it_lives() {
    let server = Server::new(|asked, out| {
        assert_eq!(asked.path, paths::STREAM);
        begin_stream(out)?;
        event(out, "strategies", LIST)?;
        event(out, "something else", "")?;
        event(out, "alive", "")?;
        event(out, "strategies", "{}")
    });
    wait(async {
        let mut stream = client(server.url()).stream().await.expect("a stream");
        assert!(matches!(stream.next().await, Ok(Message::Strategies(list)) if list.scheduling.len() == 1));
        assert_eq!(stream.next().await.expect("alive"), Message::Alive);
        assert_eq!(stream.next().await.expect_err("no list").kind(), ErrorKind::Garbage);
    });
}

#[test]
fn a_stream_that_is_none_silent_endless_or_over_is_given_up() {
    let kind = |server: &Server| {
        wait(async {
            match hasty(server.url()).stream().await {
                Err(e) => e.kind(),
                Ok(mut stream) => loop {
                    if let Err(e) = stream.next().await {
                        return e.kind();
                    }
                },
            }
        })
    };
    assert_eq!(kind(&Server::new(|_, out| reply(out, 200, LIST))), ErrorKind::NotOffered);
    assert_eq!(kind(&Server::new(|_, out| reply(out, 404, ""))), ErrorKind::NotOffered);
    let silent = Server::new(|_, out| {
        begin_stream(out)?;
        hang();
        Ok(())
    });
    assert_eq!(kind(&silent), ErrorKind::Timeout);
    // It sends, but never what it is there for.
    let chatty = Server::new(|_, out| {
        begin_stream(out)?;
        loop {
            write!(out, ": comment\n\n")?;
            out.flush()?;
            std::thread::sleep(Duration::from_millis(20));
        }
    });
    assert_eq!(kind(&chatty), ErrorKind::Timeout);
    let endless = Server::new(|_, out| {
        begin_stream(out)?;
        loop {
            writeln!(out, "data: {}", "x".repeat(60_000))?;
        }
    });
    assert!(matches!(kind(&endless), ErrorKind::Garbage | ErrorKind::Timeout));
    let over = Server::new(|_, out| {
        begin_stream(out)?;
        event(out, "alive", "")
    });
    assert_eq!(kind(&over), ErrorKind::Unreachable);
}

#[test]
fn a_token_is_had_once_and_renewed_before_it_expires_or_when_it_is_refused() {
    let given = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&given);
    let unix = || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let server = Server::new(move |asked, out| match asked.path.as_str() {
        paths::TOKEN => {
            assert!(asked.body.contains("\"public_key\":\"PEM\""), "{}", asked.body);
            let n = counter.fetch_add(1, Ordering::SeqCst) + 1;
            // The second one lives for two seconds.
            let until = unix() + if n == 2 { 2 } else { 3600 };
            let data = format!(r#"{{"token":"t{n}","expired_at":{until}}}"#);
            reply(out, 200, &format!(r#"{{"success":true,"data":{data},"timestamp":""}}"#))
        }
        // The first one is not good for everything.
        paths::METRICS if asked.token() == Some("t1") => reply(out, 401, ""),
        _ if asked.token().is_some() => reply(out, 200, LIST),
        _ => reply(out, 401, ""),
    });
    let auth = Auth::Key("PEM".into());
    let client = Client::new(Options { url: server.url(), auth, ..Options::default() }).expect("a client");
    wait(async {
        let (a, b) = tokio::join!(client.strategies(), client.strategies());
        assert!(a.is_ok() && b.is_ok());
        assert_eq!(given.load(Ordering::SeqCst), 1, "once, for both");
        client.tell(&Counters::default()).await.expect("with another token");
        assert_eq!(given.load(Ordering::SeqCst), 2);
        // Until it is old.
        let end = Instant::now() + Duration::from_secs(10);
        while given.load(Ordering::SeqCst) < 3 {
            assert!(Instant::now() < end, "it is not renewed");
            client.strategies().await.expect("never refused");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let wrong = Server::new(|_, out| reply(out, 401, r#"{"success":false,"error":"another key"}"#));
    let auth = Auth::Key("PEM".into());
    let client = Client::new(Options { url: wrong.url(), auth, ..Options::default() }).expect("a client");
    assert_eq!(wait(client.strategies()).expect_err("refused").kind(), ErrorKind::Denied);
    assert_eq!((wrong.count(paths::TOKEN), wrong.count(paths::STRATEGIES)), (1, 0));
}

/// A certificate and its key.
struct Pair {
    cert: String,
    key: String,
}

struct Authority {
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let mut params = rcgen::CertificateParams::new(Vec::<String>::new()).expect("parameters");
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("signed").pem();
        Self { pem, issuer: rcgen::Issuer::new(params, key) }
    }

    fn signs(&self, name: &str) -> Pair {
        let params = rcgen::CertificateParams::new(vec![name.to_owned()]).expect("parameters");
        let key = rcgen::KeyPair::generate().expect("a key");
        let cert = params.signed_by(&key, &self.issuer).expect("signed").pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

#[test]
fn tls_wants_the_right_authority_on_both_sides() {
    let (ours, others) = (Authority::new(), Authority::new());
    let (server_pair, client_pair, stranger) =
        (ours.signs("localhost"), ours.signs("node"), others.signs("node"));
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(ours.pem.as_bytes()).expect("PEM")).expect("a root");
    let verifier =
        rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()
            .expect("a verifier");
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_slice(server_pair.cert.as_bytes()).expect("PEM")],
            PrivateKeyDer::from_pem_slice(server_pair.key.as_bytes()).expect("PEM"),
        )
        .expect("a certificate");
    let server = Server::tls(config, |_, out| reply(out, 200, LIST));
    let ask = |ca: &str, pair: Option<&Pair>| {
        let tls = Tls {
            ca_pem: Some(ca.to_owned()),
            cert_pem: pair.map(|pair| pair.cert.clone()),
            key_pem: pair.map(|pair| pair.key.clone()),
        };
        let client =
            Client::new(Options { url: server.https(), tls, ..Options::default() }).expect("a client");
        wait(client.strategies())
    };
    assert!(ask(&ours.pem, Some(&client_pair)).is_ok());
    for (what, ca, pair) in [
        ("no certificate", &ours.pem, None),
        ("a stranger's certificate", &ours.pem, Some(&stranger)),
        ("another authority", &others.pem, Some(&client_pair)),
    ] {
        let error = ask(ca, pair).expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{what}: {error}");
    }
    assert_eq!(server.count(paths::STRATEGIES), 1, "nobody else was heard");
    let tls = Tls { cert_pem: Some(client_pair.cert), key_pem: Some("nonsense".into()), ..Tls::default() };
    let wrong = Client::new(Options { url: server.https(), tls, ..Options::default() });
    assert_eq!(wrong.expect_err("no key").kind(), ErrorKind::Invalid);
}
