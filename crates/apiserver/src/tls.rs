//! Certificates: one authority and one serving certificate, made at the first start and kept.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("reading or writing {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    #[error("using the serving certificate")]
    Use(#[from] rustls::Error),
    #[error("reading {path}: not a PEM file of the expected kind")]
    Pem { path: String },
}

/// What a server needs to speak TLS and to sign tokens.
pub struct Identity {
    /// Certificate of the authority, PEM: what clients trust.
    pub ca_pem: String,
    pub config: Arc<ServerConfig>,
    /// PKCS#8 of the key that signs ServiceAccount tokens.
    pub account_key: Vec<u8>,
}

struct Pems {
    ca: String,
    cert: String,
    key: String,
    account_key: String,
}

const FILES: [&str; 4] = ["ca.crt", "apiserver.crt", "apiserver.key", "sa.key"];

/// Loads the certificates of a folder, or makes them there; without a folder they live in memory.
/// A certificate that does not name `address` (or ends within a month) is made anew with all
/// else that hangs on it.
pub fn identity(
    dir: Option<&Path>,
    address: IpAddr,
    service: Option<IpAddr>,
) -> Result<Identity, TlsError> {
    let kept = match dir {
        Some(dir) => load(dir, address)?,
        None => None,
    };
    let pems = match kept {
        Some(pems) => pems,
        None => {
            let account = dir.map(|d| d.join(FILES[3])).filter(|p| p.exists());
            let pems = make(address, service, account.as_deref())?;
            if let Some(dir) = dir {
                save(dir, address, &pems)?;
            }
            pems
        }
    };
    let bad = |path: &str| TlsError::Pem {
        path: path.to_owned(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pems.cert.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| bad(FILES[1]))?;
    let key = PrivateKeyDer::from_pem_slice(pems.key.as_bytes()).map_err(|_| bad(FILES[2]))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let account = PrivatePkcs8KeyDer::from_pem_slice(pems.account_key.as_bytes())
        .map_err(|_| bad(FILES[3]))?;
    Ok(Identity {
        ca_pem: pems.ca,
        config: Arc::new(config),
        account_key: account.secret_pkcs8_der().to_vec(),
    })
}

fn make(
    address: IpAddr,
    service: Option<IpAddr>,
    account: Option<&Path>,
) -> Result<Pems, TlsError> {
    let now = std::time::SystemTime::now();
    let day = std::time::Duration::from_secs(86_400);
    let mut authority = CertificateParams::default();
    authority
        .distinguished_name
        .push(DnType::CommonName, "gantry-ca");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.not_before = (now - day).into();
    authority.not_after = (now + 3650 * day).into();
    let ca_key = KeyPair::generate()?;
    let ca = authority.self_signed(&ca_key)?;
    let issuer = Issuer::new(authority, ca_key);

    let mut serving = CertificateParams::new(
        [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    )?;
    serving
        .distinguished_name
        .push(DnType::CommonName, "gantry-apiserver");
    let mut addresses = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    addresses.extend(service);
    if !address.is_unspecified() {
        addresses.push(address);
    }
    addresses.sort();
    addresses.dedup();
    serving
        .subject_alt_names
        .extend(addresses.into_iter().map(SanType::IpAddress));
    serving.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    serving.not_before = (now - day).into();
    serving.not_after = (now + 825 * day).into();
    let key = KeyPair::generate()?;
    let cert = serving.signed_by(&key, &issuer)?;
    let account_key = match account {
        Some(path) => read(path)?,
        None => KeyPair::generate()?.serialize_pem(),
    };
    Ok(Pems {
        ca: ca.pem(),
        cert: cert.pem(),
        key: key.serialize_pem(),
        account_key,
    })
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Names the address that the kept certificate is for.
const ADDRESS_FILE: &str = "apiserver.address";
/// A serving certificate is replaced when its file is this old: a month before it ends.
const RENEW: std::time::Duration = std::time::Duration::from_secs(795 * 86_400);

fn load(dir: &Path, address: IpAddr) -> Result<Option<Pems>, TlsError> {
    let certificate = dir.join(FILES[1]);
    let fresh = fs::metadata(&certificate)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.elapsed().ok())
        .is_some_and(|age| age < RENEW);
    let same = fs::read_to_string(dir.join(ADDRESS_FILE)).is_ok_and(|a| a == address.to_string());
    if !fresh || !same || FILES.iter().any(|f| !dir.join(f).exists()) {
        return Ok(None);
    }
    Ok(Some(Pems {
        ca: read(&dir.join(FILES[0]))?,
        cert: read(&certificate)?,
        key: read(&dir.join(FILES[2]))?,
        account_key: read(&dir.join(FILES[3]))?,
    }))
}

fn save(dir: &Path, address: IpAddr, pems: &Pems) -> Result<(), TlsError> {
    let failed = |path: PathBuf| move |source| TlsError::File { path, source };
    fs::create_dir_all(dir).map_err(failed(dir.to_owned()))?;
    let address = address.to_string();
    let files = [&pems.ca, &pems.cert, &pems.key, &pems.account_key];
    for (name, text) in FILES
        .into_iter()
        .zip(files)
        .chain([(ADDRESS_FILE, &address)])
    {
        let path = dir.join(name);
        write_private(&path, text).map_err(failed(path.clone()))?;
    }
    Ok(())
}

/// Writes a file that only its owner may read, all or nothing.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    let beside = path.with_extension("new");
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&beside)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&beside, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_kept_and_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = identity(Some(dir.path()), address, None).expect("made");
        let again = identity(Some(dir.path()), address, None).expect("loaded");
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_eq!(first.account_key, again.account_key);
        let other: IpAddr = "192.0.2.7".parse().expect("an address");
        let moved = identity(Some(dir.path()), other, None).expect("made anew");
        assert_ne!(first.ca_pem, moved.ca_pem);
        assert_eq!(first.account_key, moved.account_key, "tokens stay valid");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            for file in FILES {
                let mode = fs::metadata(dir.path().join(file))
                    .expect("kept")
                    .permissions();
                assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
            }
        }
    }
}
