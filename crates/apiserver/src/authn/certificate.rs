//! Client certificates: the common name is the user, the organizations are the groups.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, UnixTime, pem::PemObject};
use sha2::{Digest, Sha256};
use x509_parser::{certificate::X509Certificate, oid_registry::Oid, prelude::FromDer};

use super::{
    user::{CREDENTIAL_ID, UserInfo},
    version_1,
};

/// The attribute of a subject that holds the user's uid: 1.3.6.1.4.1.57683.2.
const UID: &[u64] = &[1, 3, 6, 1, 4, 1, 57683, 2];

/// Takes any client certificate at the handshake, once its owner has shown that he has its key.
///
/// Whether it is trusted is decided for each request ([`Shown::user`]): one that is
/// not is answered with 401, not with a broken connection, as kube-apiserver does.
#[derive(Debug)]
struct Any {
    hints: Vec<DistinguishedName>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Any {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        version_1::tls12(message, cert, dss, algorithms)
            .unwrap_or_else(|| verify_tls12_signature(message, cert, dss, algorithms))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        version_1::tls13(message, cert, dss, algorithms)
            .unwrap_or_else(|| verify_tls13_signature(message, cert, dss, algorithms))
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// The authorities whose certificates users are known by.
#[derive(Clone)]
pub struct ClientCertificates {
    trusted: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

/// What is wrong with a bundle of authorities.
#[derive(Debug, thiserror::Error)]
#[error("no certificate of an authority that can be used")]
pub struct BundleError;

impl ClientCertificates {
    /// The authorities of a PEM bundle.
    pub fn new(bundle: &str) -> Result<ClientCertificates, BundleError> {
        let mut roots = RootCertStore::empty();
        for cert in CertificateDer::pem_slice_iter(bundle.as_bytes()) {
            roots
                .add(cert.map_err(|_| BundleError)?)
                .map_err(|_| BundleError)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let roots = Arc::new(roots);
        let trusted = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|_| BundleError)?;
        Ok(ClientCertificates {
            trusted,
            roots,
            provider,
        })
    }

    /// What the TLS handshake asks of clients.
    pub fn at_handshake(&self) -> Arc<dyn ClientCertVerifier> {
        Arc::new(Any {
            hints: self.trusted.root_hint_subjects().to_vec(),
            provider: self.provider.clone(),
        })
    }

    /// The user of a certificate; `None` when it is not trusted, not for clients, or out of date.
    fn user(&self, chain: &[CertificateDer<'_>], now: UnixTime) -> Option<UserInfo> {
        let (leaf, rest) = chain.split_first()?;
        if self.trusted.verify_client_cert(leaf, rest, now).is_err() {
            let algorithms = &self.provider.signature_verification_algorithms;
            version_1::trusted(leaf, now, &self.roots, algorithms).then_some(())?;
        }
        let (_, cert) = X509Certificate::from_der(leaf).ok()?;
        let subject = cert.subject();
        // Of several common names the last one counts, as in Go's pkix.Name.
        let name = subject.iter_common_name().last()?.as_str().ok()?.to_owned();
        if name.is_empty() {
            return None;
        }
        let groups = subject
            .iter_organization()
            .filter_map(|o| o.as_str().ok().map(str::to_owned))
            .collect();
        let oid = Oid::from(UID).ok()?;
        let mut uids = subject.iter_by_oid(&oid);
        let uid = match uids.next() {
            Some(uid) => uid.as_str().ok().filter(|u| !u.is_empty())?.to_owned(),
            None => String::new(),
        };
        if uids.next().is_some() {
            return None;
        }
        let digest: String = Sha256::digest(leaf)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        Some(UserInfo {
            name,
            uid,
            groups,
            extra: BTreeMap::from([(
                CREDENTIAL_ID.to_owned(),
                vec![format!("X509SHA256={digest}")],
            )]),
        })
    }
}

/// The certificate that a connection's client has shown, with what it sent along.
#[derive(Clone)]
pub struct Shown(Arc<Inner>);

struct Inner {
    chain: Vec<CertificateDer<'static>>,
    /// Whose it was found to be, and how long that holds: the requests of one connection do not
    /// verify the same signatures again and again.
    known: RwLock<Option<Known>>,
    /// The same, where it was looked at as a front proxy's.
    proxy: RwLock<Option<Known>>,
}

struct Known {
    user: Arc<UserInfo>,
    /// The second, since 1970, with which the first certificate runs out.
    until: u64,
}

impl Shown {
    pub fn new(chain: Vec<CertificateDer<'static>>) -> Shown {
        Shown(Arc::new(Inner {
            chain,
            known: RwLock::default(),
            proxy: RwLock::default(),
        }))
    }

    /// The user that it tells, by these authorities, which are a server's all its life.
    pub fn user(&self, trusted: &ClientCertificates) -> Option<Arc<UserInfo>> {
        self.known_at(&self.0.known, trusted, UnixTime::now())
    }

    /// The front proxy that it tells, by these authorities, which are a server's all its life.
    pub fn proxy(&self, trusted: &ClientCertificates) -> Option<Arc<UserInfo>> {
        self.known_at(&self.0.proxy, trusted, UnixTime::now())
    }

    fn known_at(
        &self,
        kept: &RwLock<Option<Known>>,
        trusted: &ClientCertificates,
        now: UnixTime,
    ) -> Option<Arc<UserInfo>> {
        if let Some(known) = &*kept.read()
            && now.as_secs() <= known.until
        {
            return Some(known.user.clone());
        }
        let user = Arc::new(trusted.user(&self.0.chain, now)?.authenticated());
        let ends = self.0.chain.iter().map(|cert| {
            let (_, cert) = X509Certificate::from_der(cert).ok()?;
            u64::try_from(cert.validity().not_after.timestamp()).ok()
        });
        let until = ends.min().flatten().unwrap_or(0);
        let known = user.clone();
        *kept.write() = Some(Known { user: known, until });
        Some(user)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{
        BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    };

    use super::*;

    /// The certificates of an authority and of a client of it, which ends after 2030.
    fn authority(client: &str) -> (ClientCertificates, CertificateDer<'static>) {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = params.self_signed(&key).expect("signed");
        let mut leaf = CertificateParams::default();
        leaf.distinguished_name.push(DnType::CommonName, client);
        leaf.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let of_leaf = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&params, &key);
        let leaf = leaf.signed_by(&of_leaf, &issuer).expect("signed");
        let trusted = ClientCertificates::new(&ca.pem()).expect("a bundle");
        (trusted, leaf.der().clone())
    }

    /// Seconds from 1970 to the beginning of a year, leap days counted.
    fn year(year: u64) -> UnixTime {
        let days = (year - 1970) * 365 + (year - 1969) / 4;
        UnixTime::since_unix_epoch(Duration::from_secs(days * 86_400))
    }

    #[test]
    fn a_connections_certificate_is_verified_once_and_ends_when_it_ends() {
        let (trusted, leaf) = authority("ann");
        let (stranger, _) = authority("ann");
        let shown = Shown::new(vec![leaf.clone()]);
        let at = |shown: &Shown, trusted, now| shown.known_at(&shown.0.known, trusted, now);
        let first = at(&shown, &trusted, year(2030)).expect("trusted");
        assert_eq!(first.name, "ann");
        let second = at(&shown, &trusted, year(2030)).expect("trusted");
        assert!(Arc::ptr_eq(&first, &second));
        assert_eq!(at(&shown, &trusted, year(2032)), None);
        assert_eq!(at(&Shown::new(vec![leaf]), &stranger, year(2030)), None);
    }
}
