//! Client certificates of version 1, which `openssl x509 -req` makes where it is told of no
//! extensions. webpki knows none but version 3; Go, and so kube-apiserver, takes them. They can only
//! be leaves here, signed by a trusted authority itself.

use rustls::{
    DigitallySignedStruct, Error, RootCertStore,
    client::danger::HandshakeSignatureValid,
    crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key},
};
use rustls_pki_types::{
    CertificateDer, SignatureVerificationAlgorithm, SubjectPublicKeyInfoDer, UnixTime,
};
use x509_parser::{
    certificate::X509Certificate, prelude::FromDer, time::ASN1Time, x509::X509Version,
};

/// A certificate, where it is of version 1.
fn read<'a>(der: &'a CertificateDer<'_>) -> Option<X509Certificate<'a>> {
    let (rest, cert) = X509Certificate::from_der(der).ok()?;
    (rest.is_empty() && cert.version() == X509Version::V1).then_some(cert)
}

/// The content of a DER element and what follows it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = der.get(1..)?.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 | 0x82 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes
                .iter()
                .fold(0_usize, |all, b| all << 8 | usize::from(*b));
            (length, rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The algorithm and the bits of the content of a SubjectPublicKeyInfo.
fn key(info: &[u8]) -> Option<(&[u8], &[u8])> {
    let (algorithm, rest) = element(info)?;
    let (bits, _) = element(rest)?;
    // The first byte tells how many of the last bits do not count: none.
    let (&0, bits) = bits.split_first()? else {
        return None;
    };
    Some((algorithm, bits))
}

/// Whether one of these algorithms, which is for such a key, finds the message signed by it.
fn signed<'a>(
    mut algorithms: impl Iterator<Item = &'a &'static dyn SignatureVerificationAlgorithm>,
    info: &[u8],
    message: &[u8],
    signature: &[u8],
) -> bool {
    key(info).is_some_and(|(algorithm, bits)| {
        algorithms.any(|a| {
            a.public_key_alg_id().as_ref() == algorithm
                && a.verify_signature(bits, message, signature).is_ok()
        })
    })
}

/// Whether a certificate is of version 1, in date, and signed by one of the authorities.
pub fn trusted(
    der: &CertificateDer<'_>,
    now: UnixTime,
    roots: &RootCertStore,
    algorithms: &WebPkiSupportedAlgorithms,
) -> bool {
    let check = || {
        let cert = read(der)?;
        let now = ASN1Time::from_timestamp(i64::try_from(now.as_secs()).ok()?).ok()?;
        if !cert.validity().is_valid_at(now) {
            return None;
        }
        let (whole, _) = element(der)?;
        let (_, after) = element(whole)?;
        let (signed_with, _) = element(after)?;
        let (issuer, _) = element(cert.issuer().as_raw())?;
        let message = cert.tbs_certificate.as_ref();
        let signature = cert.signature_value.data.as_ref();
        let of =
            |a: &&&dyn SignatureVerificationAlgorithm| a.signature_alg_id().as_ref() == signed_with;
        // An authority that may only sign some names is not one for a certificate that has none.
        let mut issuers = roots
            .roots
            .iter()
            .filter(|r| r.name_constraints.is_none() && r.subject.as_ref() == issuer);
        let found = issuers.any(|root| {
            let info = &root.subject_public_key_info;
            signed(algorithms.all.iter().filter(of), info, message, signature)
        });
        found.then_some(())
    };
    check().is_some()
}

/// Whether the owner of a certificate of version 1 has shown that he has its key, with TLS 1.3.
pub fn tls13(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<Result<HandshakeSignatureValid, Error>> {
    let cert = read(cert)?;
    let info = SubjectPublicKeyInfoDer::from(cert.public_key().raw);
    Some(verify_tls13_signature_with_raw_key(
        message, &info, dss, algorithms,
    ))
}

/// The same with TLS 1.2.
pub fn tls12(
    message: &[u8],
    cert: &CertificateDer<'_>,
    dss: &DigitallySignedStruct,
    algorithms: &WebPkiSupportedAlgorithms,
) -> Option<Result<HandshakeSignatureValid, Error>> {
    let cert = read(cert)?;
    let (info, _) = element(cert.public_key().raw)?;
    let mut known = algorithms.mapping.iter();
    let (_, all) = known.find(|(scheme, _)| *scheme == dss.scheme)?;
    Some(match signed(all.iter(), info, message, dss.signature()) {
        true => Ok(HandshakeSignatureValid::assertion()),
        false => Err(rustls::CertificateError::BadSignature.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, SigningKey};

    use super::*;

    fn wrap(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = u16::try_from(content.len()).expect("short").to_be_bytes();
        [&[tag, 0x82], length.as_slice(), content].concat()
    }

    /// A certificate of version 3 made one of version 1, signed with this key.
    fn version_1(cert: &[u8], by: &KeyPair) -> CertificateDer<'static> {
        let (whole, _) = element(cert).expect("a certificate");
        let (tbs, after) = element(whole).expect("what is signed");
        let (algorithm, _) = element(after).expect("an algorithm");
        let mut fields: Vec<&[u8]> = vec![];
        let mut rest = tbs;
        while !rest.is_empty() {
            let (_, next) = element(rest).expect("a field");
            fields.push(&rest[..rest.len() - next.len()]);
            rest = next;
        }
        // Neither the version, [0], nor extensions, [3].
        fields.retain(|field| !matches!(field[0], 0xa0 | 0xa3));
        let tbs = wrap(0x30, &fields.concat());
        let signature = by.sign(&tbs).expect("signed");
        let bits = wrap(0x03, &[&[0], signature.as_slice()].concat());
        CertificateDer::from(wrap(0x30, &[tbs, wrap(0x30, algorithm), bits].concat()))
    }

    #[test]
    fn a_certificate_of_version_1_is_trusted_by_its_authority_alone_and_in_its_time() {
        let authority = || {
            let mut params = CertificateParams::default();
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            let key = KeyPair::generate().expect("a key");
            let cert = params.self_signed(&key).expect("signed");
            let mut roots = RootCertStore::empty();
            roots.add(cert.der().clone()).expect("an authority");
            (params, key, roots)
        };
        let (params, by, roots) = authority();
        // Of the same name, with another key.
        let (_, other, strangers) = authority();
        let mut leaf = CertificateParams::default();
        leaf.not_before = rcgen::date_time_ymd(2020, 1, 1);
        leaf.not_after = rcgen::date_time_ymd(2031, 1, 1);
        let own = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&params, &by);
        let modern = leaf.signed_by(&own, &issuer).expect("signed");
        let old = version_1(modern.der(), &by);
        let forged = version_1(modern.der(), &other);
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let algorithms = &provider.signature_verification_algorithms;
        let year =
            |year: u64| UnixTime::since_unix_epoch(Duration::from_secs((year - 1970) * 31_557_600));
        for (cert, now, roots, expected) in [
            (&old, 2025, &roots, true),
            (&old, 2019, &roots, false),
            (&old, 2032, &roots, false),
            (&old, 2025, &strangers, false),
            (&forged, 2025, &roots, false),
            // Not ours to judge.
            (modern.der(), 2025, &roots, false),
        ] {
            let found = trusted(cert, year(now), roots, algorithms);
            assert_eq!(found, expected, "{now}");
        }
    }
}
