//! The console's certificate: given, or made here and kept.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, KeyPair, SanType};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

/// Where the certificate comes from.
#[derive(Debug, Clone)]
pub enum Tls {
    /// Certificate (with its chain) and private key, PEM files.
    Files(PathBuf, PathBuf),
    /// Made for these addresses, and kept in the folder so that a browser's exception holds.
    Made {
        /// The folder; none: for this run.
        folder: Option<PathBuf>,
        /// Addresses beside localhost.
        addresses: Vec<IpAddr>,
    },
}

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("reading or writing {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It cannot be made.
    #[error("making it")]
    Make(#[from] rcgen::Error),
    /// It cannot be served.
    #[error("using it")]
    Use(#[from] rustls::Error),
    /// It is no PEM file.
    #[error("reading {0}: no PEM file with a certificate and a private key")]
    Pem(String),
}

const CERT: &str = "console.crt";
const KEY: &str = "console.key";
/// Made certificates are replaced when a month is left; the age of the file tells.
const LIFE: std::time::Duration = std::time::Duration::from_secs(397 * 86_400);
const RENEW: std::time::Duration = std::time::Duration::from_secs(367 * 86_400);

impl Tls {
    pub(crate) fn config(&self) -> Result<Arc<ServerConfig>, TlsError> {
        let (cert, key) = self.pair()?;
        let pem = |what: &str| TlsError::Pem(what.to_owned());
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(cert.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|_| pem("the certificate"))?;
        let key =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| pem("the private key"))?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, key)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn pair(&self) -> Result<(String, String), TlsError> {
        match self {
            Self::Files(cert, key) => Ok((read(cert)?, read(key)?)),
            Self::Made { folder, addresses } => {
                if let Some(folder) = folder
                    && let Some(kept) = kept(folder, addresses)
                {
                    return Ok(kept);
                }
                let pair = make(addresses)?;
                if let Some(folder) = folder {
                    write(
                        &folder.join(CERT),
                        &format!("{}{}", mark(addresses), pair.0),
                    )?;
                    write(&folder.join(KEY), &pair.1)?;
                }
                Ok(pair)
            }
        }
    }
}

/// What the certificate was made for, in front of it: PEM lets text stand there.
fn mark(addresses: &[IpAddr]) -> String {
    format!("made by gantry for {addresses:?}\n")
}

fn kept(folder: &Path, addresses: &[IpAddr]) -> Option<(String, String)> {
    let path = folder.join(CERT);
    let age = path.metadata().ok()?.modified().ok()?.elapsed().ok()?;
    let cert = read(&path).ok()?;
    (age < RENEW && cert.starts_with(&mark(addresses))).then_some(())?;
    Some((cert, read(&folder.join(KEY)).ok()?))
}

fn make(addresses: &[IpAddr]) -> Result<(String, String), TlsError> {
    let now = std::time::SystemTime::now();
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "gantry console");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - std::time::Duration::from_secs(86_400)).into();
    params.not_after = (now + LIFE).into();
    let local = [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]),
    ];
    let mut all: Vec<IpAddr> = local.into_iter().chain(addresses.iter().copied()).collect();
    all.retain(|a| !a.is_unspecified());
    all.sort();
    all.dedup();
    params
        .subject_alt_names
        .extend(all.into_iter().map(SanType::IpAddress));
    let key = KeyPair::generate()?;
    Ok((params.self_signed(&key)?.pem(), key.serialize_pem()))
}

fn read(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

fn write(path: &Path, text: &str) -> Result<(), TlsError> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    // Removed first: an old file may be readable by others.
    let _ = std::fs::remove_file(path);
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    file.and_then(|mut f| f.write_all(text.as_bytes()))
        .map_err(|source| TlsError::File {
            path: path.to_owned(),
            source,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_is_kept_for_its_addresses() {
        let folder = tempfile::tempdir().unwrap();
        let made = |addresses: &[[u8; 4]]| {
            let tls = Tls::Made {
                folder: Some(folder.path().to_owned()),
                addresses: addresses.iter().map(|a| IpAddr::from(*a)).collect(),
            };
            tls.config().unwrap();
            tls.pair().unwrap().0
        };
        let first = made(&[[10, 0, 0, 1]]);
        assert_eq!(made(&[[10, 0, 0, 1]]), first);
        assert_ne!(made(&[[10, 0, 0, 2]]), first);
        let missing = Tls::Files("/nowhere.crt".into(), "/nowhere.key".into());
        assert!(matches!(missing.config(), Err(TlsError::File { .. })));
    }
}
