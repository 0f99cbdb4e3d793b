//! Certificates: the ones that are given, or one authority and one serving certificate that are
//! made at the first start and kept.

mod ciphers;
mod made;

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

pub use ciphers::Ciphers;
use made::Pair;
use rcgen::KeyPair;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::{authn::certificate::ClientCertificates, proxy::links};

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

/// Where certificates come from.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// Folder of what is made; `None` keeps it in memory for this run. An `apiserver.crt` and
    /// `apiserver.key` that were put there by somebody else are served as they are.
    pub dir: Option<PathBuf>,
    /// Serving certificate (with its chain) and private key, PEM.
    pub serving: Option<(PathBuf, PathBuf)>,
}

/// A version of TLS that connections have at least.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsVersion {
    #[default]
    Tls12,
    Tls13,
}

/// What a server needs to speak TLS and to sign tokens.
pub struct Identity {
    /// Certificate of the authority, PEM: what clients trust.
    pub ca_pem: String,
    /// Private key of the authority, PEM, where it was made here.
    pub ca_key: Option<String>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    /// The key that signs ServiceAccount tokens, PEM.
    pub account_key: String,
}

const CA: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const CERT: &str = "apiserver.crt";
const KEY: &str = "apiserver.key";
const ACCOUNT_KEY: &str = "sa.key";
/// Names the addresses that the kept certificate is for; its absence tells that the certificate
/// is not of our making.
const ADDRESS_FILE: &str = "apiserver.address";
/// A serving certificate is replaced a month before it ends, by the age of its file.
const RENEW_BEFORE: std::time::Duration = std::time::Duration::from_secs(30 * 86_400);

/// Loads the certificates that are given or kept, or makes them. A kept serving certificate that
/// is not for these addresses (or ends within a month) is replaced; the authority stays.
pub fn identity(files: &Files, addresses: &[IpAddr]) -> Result<Identity, TlsError> {
    let dir = files.dir.as_deref();
    let given = match (&files.serving, dir) {
        (Some(pair), _) => Some(pair.clone()),
        (None, Some(dir)) if foreign(dir) => Some((dir.join(CERT), dir.join(KEY))),
        _ => None,
    };
    let (ca_pem, ca_key, pair) = match given {
        Some((cert, key)) => {
            let pair = Pair {
                cert: read(&cert)?,
                key: read(&key)?,
            };
            // The last of the chain is the nearest to an authority that there is.
            let last = pair.cert.rfind("-----BEGIN").unwrap_or_default();
            (pair.cert[last..].to_owned(), None, pair)
        }
        None => {
            let authority = authority(dir)?;
            let pair = serving(dir, &authority, addresses)?;
            (authority.cert, Some(authority.key), pair)
        }
    };
    let bad = |path: &str| TlsError::Pem {
        path: path.to_owned(),
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(pair.cert.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|_| bad(CERT))?;
    let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).map_err(|_| bad(KEY))?;
    Ok(Identity {
        ca_pem,
        ca_key,
        chain,
        key,
        account_key: account_key(dir)?,
    })
}

impl Identity {
    /// The authority that signs client certificates where none is named: our own, if there is one.
    pub fn client_ca(&self) -> Option<&str> {
        self.ca_key.as_ref().map(|_| self.ca_pem.as_str())
    }

    /// A client certificate of our own authority, if there is one, and that authority's: for what knows
    /// this cluster's clients.
    pub fn client(
        &self,
        name: &str,
        groups: &[&str],
    ) -> Result<Option<(links::Identity, String)>, TlsError> {
        let Some(key) = &self.ca_key else {
            return Ok(None);
        };
        let authority = Pair {
            cert: self.ca_pem.clone(),
            key: key.clone(),
        };
        let Pair { cert, key } = made::client(&authority, name, groups)?;
        Ok(Some((links::Identity { cert, key }, self.ca_pem.clone())))
    }

    /// How connections are secured: clients may show certificates where some are trusted.
    pub fn config(
        &self,
        clients: Option<&ClientCertificates>,
        least: TlsVersion,
        ciphers: &Ciphers,
    ) -> Result<Arc<ServerConfig>, TlsError> {
        let provider = Arc::new(ciphers.provider());
        let versions: &[_] = match least {
            TlsVersion::Tls12 => rustls::DEFAULT_VERSIONS,
            TlsVersion::Tls13 => &[&rustls::version::TLS13],
        };
        let builder =
            ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
        let builder = match clients {
            Some(clients) => builder.with_client_cert_verifier(clients.at_handshake()),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain.clone(), self.key.clone_key())?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// Whether a folder holds a serving certificate that was not made here.
fn foreign(dir: &Path) -> bool {
    dir.join(CERT).exists() && dir.join(KEY).exists() && !dir.join(ADDRESS_FILE).exists()
}

fn authority(dir: Option<&Path>) -> Result<Pair, TlsError> {
    let Some(dir) = dir else {
        return Ok(made::authority()?);
    };
    let (cert, key) = (dir.join(CA), dir.join(CA_KEY));
    if cert.exists() && key.exists() {
        return Ok(Pair {
            cert: read(&cert)?,
            key: read(&key)?,
        });
    }
    let pair = made::authority()?;
    save(dir, CA_KEY, &pair.key)?;
    save(dir, CA, &pair.cert)?;
    Ok(pair)
}

fn serving(dir: Option<&Path>, authority: &Pair, addresses: &[IpAddr]) -> Result<Pair, TlsError> {
    let Some(dir) = dir else {
        return Ok(made::serving(authority, addresses)?);
    };
    let (cert, key) = (dir.join(CERT), dir.join(KEY));
    // The authority's own certificate is part of what the kept certificate is for: both go together.
    let addresses_text: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let mark = format!("{}\n{}", addresses_text.join("\n"), authority.cert);
    let fresh = fs::metadata(&cert)
        .and_then(|m| m.modified())
        .ok()
        .and_then(|t| t.elapsed().ok())
        .is_some_and(|age| age < made::SERVING_LIFE - RENEW_BEFORE);
    let same = fs::read_to_string(dir.join(ADDRESS_FILE)).is_ok_and(|kept| kept == mark);
    if fresh && same && key.exists() {
        return Ok(Pair {
            cert: read(&cert)?,
            key: read(&key)?,
        });
    }
    let pair = made::serving(authority, addresses)?;
    // Before the certificate: a crash in between must not make it look like somebody else's.
    save(dir, ADDRESS_FILE, "")?;
    save(dir, KEY, &pair.key)?;
    save(dir, CERT, &pair.cert)?;
    save(dir, ADDRESS_FILE, &mark)?;
    Ok(pair)
}

fn account_key(dir: Option<&Path>) -> Result<String, TlsError> {
    if let Some(path) = dir.map(|d| d.join(ACCOUNT_KEY)).filter(|p| p.exists()) {
        return read(&path);
    }
    let key = KeyPair::generate()?.serialize_pem();
    if let Some(dir) = dir {
        save(dir, ACCOUNT_KEY, &key)?;
    }
    Ok(key)
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::File {
        path: path.to_owned(),
        source,
    })
}

/// Writes a file that only its owner may read, all or nothing.
fn save(dir: &Path, name: &str, text: &str) -> Result<(), TlsError> {
    let path = dir.join(name);
    fs::create_dir_all(dir)
        .and_then(|()| write_private(&path, text))
        .map_err(|source| TlsError::File { path, source })
}

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
    use std::net::Ipv4Addr;

    use super::*;

    fn files(dir: &Path) -> Files {
        Files {
            dir: Some(dir.to_owned()),
            serving: None,
        }
    }

    #[test]
    fn certificates_are_kept_and_private() {
        let dir = tempfile::tempdir().expect("a folder");
        let address = [IpAddr::V4(Ipv4Addr::LOCALHOST)];
        let kept = |name: &str| fs::read_to_string(dir.path().join(name)).expect("kept");
        let first = identity(&files(dir.path()), &address).expect("made");
        let cert = kept(CERT);
        let again = identity(&files(dir.path()), &address).expect("loaded");
        assert_eq!(first.ca_pem, again.ca_pem);
        assert_eq!(first.account_key, again.account_key);
        assert_eq!(cert, kept(CERT));
        let other: IpAddr = "192.0.2.7".parse().expect("an address");
        let moved = identity(&files(dir.path()), &[other]).expect("made anew");
        assert_ne!(cert, kept(CERT), "for the other address");
        assert_eq!(first.ca_pem, moved.ca_pem, "clients go on trusting it");
        assert_eq!(first.account_key, moved.account_key, "tokens stay valid");
        #[cfg(unix)]
        for file in [CA, CA_KEY, CERT, KEY, ACCOUNT_KEY] {
            use std::os::unix::fs::PermissionsExt;
            let mode = fs::metadata(dir.path().join(file))
                .expect("kept")
                .permissions();
            assert_eq!(mode.mode() & 0o777, 0o600, "{file}");
        }
    }

    #[test]
    fn an_authority_of_somebody_else_signs_in_its_own_name() {
        use rcgen::{
            BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair,
        };

        let dir = tempfile::tempdir().expect("a folder");
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "corp");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let authority = params.self_signed(&key).expect("signed");
        fs::write(dir.path().join(CA), authority.pem()).expect("written");
        fs::write(dir.path().join(CA_KEY), key.serialize_pem()).expect("written");
        let identity = identity(&files(dir.path()), &[]).expect("made");
        let client = identity.client("ann", &[]).expect("signed");
        let (client, by) = client.expect("by an authority");
        assert_eq!(by, authority.pem());
        let serving = fs::read_to_string(dir.path().join(CERT)).expect("kept");
        for pem in [serving, client.cert] {
            let (_, pem) = x509_parser::pem::parse_x509_pem(pem.as_bytes()).expect("PEM");
            let cert = pem.parse_x509().expect("a certificate");
            assert_eq!(cert.issuer().to_string(), "CN=corp");
        }
    }

    #[test]
    fn a_certificate_of_somebody_else_is_served_as_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let authority = made::authority().expect("an authority");
        let theirs = made::serving(&authority, &[]).expect("a certificate");
        fs::write(dir.path().join(CERT), &theirs.cert).expect("written");
        fs::write(dir.path().join(KEY), &theirs.key).expect("written");
        let identity = identity(&files(dir.path()), &[]).expect("used");
        assert_eq!(identity.ca_pem, theirs.cert);
        assert_eq!(
            fs::read_to_string(dir.path().join(CERT)).expect("kept"),
            theirs.cert
        );
        assert!(!dir.path().join(CA).exists());
    }
}
