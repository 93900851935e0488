//! TLS for control over HTTP: rustls, with aws-lc-rs as everywhere in this workspace.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use gthulhu_config::{Config, Secret};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Longer is no certificate.
const FILE_MAX: u64 = 1024 * 1024;

/// The files that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Files {
    cert: PathBuf,
    key: PathBuf,
    /// Who may control: whoever has a certificate of this authority.
    client_ca: Option<PathBuf>,
}

/// What is wrong, and with which key of the configuration.
pub(crate) type Wrong = (&'static str, String);

const CERT: &str = "daemon.tls_cert_file";
const KEY: &str = "daemon.tls_key_file";
const CLIENT_CA: &str = "daemon.client_ca_file";

impl Files {
    /// `None` when TLS is not configured.
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let d = &config.daemon;
        let (cert, key) = d.tls_cert_file.clone().zip(d.tls_key_file.clone())?;
        Some(Self { cert, key, client_ca: d.client_ca_file.clone() })
    }

    /// Reads them all, and checks that they fit together.
    pub(crate) fn load(&self) -> Result<Arc<ServerConfig>, Wrong> {
        let wrong =
            |key, path: &Path, why: &dyn std::fmt::Display| (key, format!("{}: {why}", path.display()));
        let provider: Arc<CryptoProvider> = aws_lc_rs::default_provider().into();
        let certificates = certificates(&self.cert).map_err(|why| wrong(CERT, &self.cert, &why))?;
        let key = Secret::read(&self.key).map_err(|why| (KEY, why))?;
        let key = PrivateKeyDer::from_pem_slice(key.reveal().as_bytes())
            .map_err(|e| wrong(KEY, &self.key, &format_args!("holds no private key as PEM: {e}")))?;
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|e| wrong(CERT, &self.cert, &e))?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for certificate in certificates_of(path)? {
                    roots.add(certificate).map_err(|e| wrong(CLIENT_CA, path, &e))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|e| wrong(CLIENT_CA, path, &e))?)
            }
        };
        let mut config = builder.with_single_cert(certificates, key).map_err(|e| {
            wrong(CERT, &self.cert, &format_args!("does not go with {}: {e}", self.key.display()))
        })?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config.into())
    }

    /// What changes when one of them is replaced, also through a link, as Kubernetes and cert-manager do it.
    pub(crate) fn signature(&self) -> Vec<Option<[i64; 5]>> {
        let of = |path: &PathBuf| {
            let meta = std::fs::metadata(path).ok()?;
            Some([meta.dev() as i64, meta.ino() as i64, meta.size() as i64, meta.mtime(), meta.mtime_nsec()])
        };
        [Some(&self.cert), Some(&self.key), self.client_ca.as_ref()].into_iter().flatten().map(of).collect()
    }

    /// Whether clients have to show a certificate.
    pub(crate) fn asks_clients(&self) -> bool {
        self.client_ca.is_some()
    }
}

fn certificates_of(path: &Path) -> Result<Vec<CertificateDer<'static>>, Wrong> {
    certificates(path).map_err(|why| (CLIENT_CA, format!("{}: {why}", path.display())))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    if !file.metadata().is_ok_and(|meta| meta.is_file()) {
        return Err("is no file".into());
    }
    file.take(FILE_MAX).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match all {
        Ok(all) if all.is_empty() => Err("holds no certificate as PEM".into()),
        Ok(all) => Ok(all),
        Err(e) => Err(format!("holds no certificate as PEM: {e}")),
    }
}
