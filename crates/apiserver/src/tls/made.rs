//! Certificates that are made here: an authority, serving and client certificates that it signs.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

const DAY: Duration = Duration::from_secs(86_400);
/// How long a serving certificate is good for.
pub const SERVING_LIFE: Duration = Duration::from_secs(825 * 86_400);

/// A certificate and its private key, PEM.
#[derive(Clone)]
pub struct Pair {
    pub cert: String,
    pub key: String,
}

fn authority_params() -> CertificateParams {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "gantry-ca");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    params.not_before = (now - DAY).into();
    params.not_after = (now + 3650 * DAY).into();
    params
}

/// A new authority.
pub fn authority() -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let cert = authority_params().self_signed(&key)?;
    Ok(Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}

/// An authority as the issuer of other certificates: one of [`authority`], or one of another name
/// that somebody has put in its place.
fn issuer(authority: &Pair) -> Result<Issuer<'static, KeyPair>, rcgen::Error> {
    Issuer::from_ca_cert_pem(&authority.cert, KeyPair::from_pem(&authority.key)?)
}

/// A serving certificate for this machine, the names of the Service `kubernetes`, and `addresses`.
pub fn serving(authority: &Pair, addresses: &[IpAddr]) -> Result<Pair, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::new(
        [
            "localhost",
            "kubernetes",
            "kubernetes.default",
            "kubernetes.default.svc",
            "kubernetes.default.svc.cluster.local",
        ]
        .map(str::to_owned),
    )?;
    params
        .distinguished_name
        .push(DnType::CommonName, "gantry-apiserver");
    let mut all = vec![
        IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(Ipv6Addr::LOCALHOST),
    ];
    all.extend(addresses.iter().filter(|a| !a.is_unspecified()));
    all.sort();
    all.dedup();
    params
        .subject_alt_names
        .extend(all.into_iter().map(SanType::IpAddress));
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.not_before = (now - DAY).into();
    params.not_after = (now + SERVING_LIFE).into();
    signed(params, authority)
}

/// A client certificate for this process: a user's name, and its groups as organizations.
pub fn client(authority: &Pair, name: &str, groups: &[&str]) -> Result<Pair, rcgen::Error> {
    let now = SystemTime::now();
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    for group in groups {
        params
            .distinguished_name
            .push(DnType::OrganizationName, *group);
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.not_before = (now - DAY).into();
    params.not_after = (now + 3650 * DAY).into();
    signed(params, authority)
}

fn signed(params: CertificateParams, authority: &Pair) -> Result<Pair, rcgen::Error> {
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, &issuer(authority)?)?;
    Ok(Pair {
        cert: cert.pem(),
        key: key.serialize_pem(),
    })
}
