//! Signing: from a request and the authority's certificate and key to a certificate.
//!
//! The subject and the alternative names are taken over byte by byte, so that nothing of who is
//! certified is lost or changed on the way.

use std::fmt;
use std::net::IpAddr;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, RSA_PKCS1_SHA256};
use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::pem::{PemObject, SectionKind};
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::oid_registry::{
    OID_X509_COMMON_NAME, OID_X509_EXT_SUBJECT_ALT_NAME, OID_X509_ORGANIZATION_NAME,
};
use x509_parser::prelude::FromDer;
use yasna::models::{GeneralizedTime, ObjectIdentifier, UTCTime};
use yasna::{DERWriter, Tag};

/// Clocks of those who check may be behind.
const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// How long a certificate is good for, at most.
const LIFE: SignedDuration = SignedDuration::from_hours(8760);

const ECDSA_SHA256: &[u64] = &[1, 2, 840, 10045, 4, 3, 2];
const RSA_SHA256: &[u64] = &[1, 2, 840, 113549, 1, 1, 11];

enum Key {
    Ecdsa(Box<EcdsaKeyPair>),
    Rsa(Box<rsa::KeyPair>),
}

/// The authority that signs certificates of a cluster.
pub struct Authority {
    key: Key,
    /// Its name, DER.
    name: Vec<u8>,
    key_id: Option<Vec<u8>>,
    ends: Timestamp,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

/// Why something cannot be signed, or signed with.
#[derive(Debug, thiserror::Error)]
pub enum SignError {
    #[error("the authority's certificate is not a certificate in PEM form")]
    Certificate,
    #[error("the authority's key is neither an ECDSA key on P-256 nor an RSA key, in PEM form")]
    Key,
    #[error("unable to parse csr: {0}")]
    Request(String),
    #[error("unrecognized usages: {0:?}")]
    Usage(String),
    #[error("the platform's random generator failed")]
    Random,
    #[error("a time outside of what certificates can tell")]
    Time,
}

fn section(pem: &str, wanted: &[SectionKind]) -> Option<(SectionKind, Vec<u8>)> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes())
        .filter_map(Result::ok)
        .find(|(kind, _)| wanted.contains(kind))
}

impl Authority {
    /// From certificate and private key, PEM.
    pub fn new(certificate: &str, key: &str) -> Result<Authority, SignError> {
        let (_, der) =
            section(certificate, &[SectionKind::Certificate]).ok_or(SignError::Certificate)?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|_| SignError::Certificate)?;
        let kinds = [
            SectionKind::PrivateKey,
            SectionKind::EcPrivateKey,
            SectionKind::RsaPrivateKey,
        ];
        let (kind, secret) = section(key, &kinds).ok_or(SignError::Key)?;
        let ecdsa = EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_ASN1_SIGNING, &secret);
        let key = match (ecdsa, kind) {
            (Ok(pair), _) => Key::Ecdsa(Box::new(pair)),
            (Err(_), SectionKind::RsaPrivateKey) => Key::Rsa(Box::new(
                rsa::KeyPair::from_der(&secret).map_err(|_| SignError::Key)?,
            )),
            (Err(_), _) => Key::Rsa(Box::new(
                rsa::KeyPair::from_pkcs8(&secret).map_err(|_| SignError::Key)?,
            )),
        };
        let key_id = parsed
            .iter_extensions()
            .find_map(|e| match e.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0.to_vec()),
                _ => None,
            });
        let ends = parsed.validity().not_after.timestamp();
        Ok(Authority {
            key,
            name: parsed.subject().as_raw().to_vec(),
            key_id,
            ends: Timestamp::from_second(ends).map_err(|_| SignError::Time)?,
        })
    }

    /// A certificate for what a request asks, with these usages, good for `seconds` or as long as
    /// certificates are; PEM.
    pub fn sign(
        &self,
        request: &Request,
        usages: &[String],
        seconds: Option<i64>,
        now: Timestamp,
    ) -> Result<String, SignError> {
        let from = now - BACKDATE;
        let life = match seconds {
            Some(seconds) => SignedDuration::from_secs(seconds.max(600)).min(LIFE),
            None => LIFE,
        };
        let until = (from + life).min(self.ends);
        let (bits, extended) = of_usages(usages)?;
        let serial: [u8; 16] = rand::random();
        let validity = [time(from)?, time(until)?];
        let algorithm = match &self.key {
            Key::Ecdsa(_) => ECDSA_SHA256,
            Key::Rsa(_) => RSA_SHA256,
        };
        let identifier = |w: DERWriter<'_>| {
            w.write_sequence(|w| {
                w.next().write_oid(&ObjectIdentifier::from_slice(algorithm));
                if algorithm == RSA_SHA256 {
                    w.next().write_null();
                }
            });
        };
        let body = yasna::construct_der(|w| {
            w.write_sequence(|w| {
                w.next().write_tagged(Tag::context(0), |w| w.write_u8(2));
                w.next().write_bigint_bytes(&positive(serial), true);
                identifier(w.next());
                w.next().write_der(&self.name);
                w.next().write_sequence(|w| {
                    for time in &validity {
                        w.next().write_der(time);
                    }
                });
                w.next().write_der(&request.subject);
                w.next().write_der(&request.key);
                w.next().write_tagged(Tag::context(3), |w| {
                    w.write_sequence(|w| self.extensions(w, request, bits, &extended));
                });
            });
        });
        let random = SystemRandom::new();
        let signature = match &self.key {
            Key::Ecdsa(pair) => {
                let signature = pair.sign(&random, &body).map_err(|_| SignError::Random)?;
                signature.as_ref().to_vec()
            }
            Key::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, &body, &mut signature)
                    .map_err(|_| SignError::Random)?;
                signature
            }
        };
        let whole = yasna::construct_der(|w| {
            w.write_sequence(|w| {
                w.next().write_der(&body);
                identifier(w.next());
                w.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        });
        Ok(pem(&whole))
    }

    fn extensions(
        &self,
        w: &mut yasna::DERWriterSeq<'_>,
        request: &Request,
        bits: u16,
        extended: &[&[u64]],
    ) {
        let mut add = |oid: &[u64], critical: bool, value: Vec<u8>| {
            w.next().write_sequence(|w| {
                w.next().write_oid(&ObjectIdentifier::from_slice(oid));
                if critical {
                    w.next().write_bool(true);
                }
                w.next().write_bytes(&value);
            });
        };
        if bits != 0 {
            let length = 16 - bits.trailing_zeros() as usize;
            let bytes = bits.to_be_bytes();
            let value = yasna::construct_der(|w| {
                w.write_bitvec_bytes(&bytes[..length.div_ceil(8)], length);
            });
            add(&[2, 5, 29, 15], true, value);
        }
        if !extended.is_empty() {
            let value = yasna::construct_der(|w| {
                w.write_sequence(|w| {
                    for oid in extended {
                        w.next().write_oid(&ObjectIdentifier::from_slice(oid));
                    }
                });
            });
            add(&[2, 5, 29, 37], false, value);
        }
        // Not an authority.
        add(
            &[2, 5, 29, 19],
            true,
            yasna::construct_der(|w| w.write_sequence(|_| ())),
        );
        if let Some(id) = &self.key_id {
            let value = yasna::construct_der(|w| {
                w.write_sequence(|w| {
                    w.next()
                        .write_tagged_implicit(Tag::context(0), |w| w.write_bytes(id));
                });
            });
            add(&[2, 5, 29, 35], false, value);
        }
        if let Some((critical, value)) = &request.alternatives {
            add(&[2, 5, 29, 17], *critical, value.clone());
        }
    }
}

/// Twenty bytes at most, above zero.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    serial[0] = serial[0] & 0x7f | 0x40;
    serial
}

fn time(at: Timestamp) -> Result<Vec<u8>, SignError> {
    let year = at.to_zoned(jiff::tz::TimeZone::UTC).year();
    let text = at.strftime("%Y%m%d%H%M%SZ").to_string();
    if year < 2050 {
        let short = UTCTime::parse(&text.as_bytes()[2..]).ok_or(SignError::Time)?;
        return Ok(yasna::construct_der(|w| w.write_utctime(&short)));
    }
    let long = GeneralizedTime::parse(text.as_bytes()).ok_or(SignError::Time)?;
    Ok(yasna::construct_der(|w| w.write_generalized_time(&long)))
}

fn pem(der: &[u8]) -> String {
    use base64::Engine;
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let mut out = String::from("-----BEGIN CERTIFICATE-----\n");
    for line in text.as_bytes().chunks(64) {
        out.extend(line.iter().map(|b| char::from(*b)));
        out.push('\n');
    }
    out.push_str("-----END CERTIFICATE-----\n");
    out
}

/// The bits of the key's usage, the first one highest, and the names of its extended usage.
fn of_usages(usages: &[String]) -> Result<(u16, Vec<&'static [u64]>), SignError> {
    const PURPOSE: [u64; 8] = [1, 3, 6, 1, 5, 5, 7, 3];
    const fn purpose(n: u64) -> [u64; 9] {
        let p = PURPOSE;
        [p[0], p[1], p[2], p[3], p[4], p[5], p[6], p[7], n]
    }
    static EXTENDED: [(&str, [u64; 9]); 10] = [
        ("server auth", purpose(1)),
        ("client auth", purpose(2)),
        ("code signing", purpose(3)),
        ("email protection", purpose(4)),
        ("s/mime", purpose(4)),
        ("ipsec end system", purpose(5)),
        ("ipsec tunnel", purpose(6)),
        ("ipsec user", purpose(7)),
        ("timestamping", purpose(8)),
        ("ocsp signing", purpose(9)),
    ];
    static OTHERS: [(&str, &[u64]); 3] = [
        ("any", &[2, 5, 29, 37, 0]),
        ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
        ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
    ];
    const BITS: [(&str, u16); 10] = [
        ("signing", 0),
        ("digital signature", 0),
        ("content commitment", 1),
        ("key encipherment", 2),
        ("data encipherment", 3),
        ("key agreement", 4),
        ("cert sign", 5),
        ("crl sign", 6),
        ("encipher only", 7),
        ("decipher only", 8),
    ];
    let mut bits = 0;
    let mut extended: Vec<&[u64]> = vec![];
    for usage in usages {
        let bit = BITS.iter().find(|(name, _)| name == usage);
        let purpose = EXTENDED.iter().find(|(name, _)| name == usage);
        let other = OTHERS.iter().find(|(name, _)| name == usage);
        match (bit, purpose, other) {
            (Some((_, bit)), _, _) => bits |= 0x8000 >> bit,
            (_, Some((_, oid)), _) if !extended.contains(&&oid[..]) => extended.push(oid),
            (_, Some(_), _) => {}
            (_, _, Some((_, oid))) => extended.push(oid),
            _ => return Err(SignError::Usage(usage.clone())),
        }
    }
    extended.sort_unstable();
    Ok((bits, extended))
}

/// What a signing request asks for.
pub struct Request {
    subject: Vec<u8>,
    key: Vec<u8>,
    /// The alternative names as they stand in the request.
    alternatives: Option<(bool, Vec<u8>)>,
    pub common_name: String,
    pub organizations: Vec<String>,
    pub dns_names: Vec<String>,
    pub addresses: Vec<IpAddr>,
    /// How many alternative names are of other kinds.
    pub other_names: usize,
}

impl Request {
    /// Reads the PEM of a request; its signature must be right.
    pub fn parse(pem: &[u8]) -> Result<Request, SignError> {
        let bad = |why: &dyn fmt::Display| SignError::Request(why.to_string());
        let first = <(SectionKind, Vec<u8>)>::pem_slice_iter(pem).next();
        let Some(Ok((SectionKind::Csr, der))) = first else {
            return Err(bad(&"PEM block type must be CERTIFICATE REQUEST"));
        };
        let (_, parsed) = X509CertificationRequest::from_der(&der).map_err(|e| bad(&e))?;
        parsed.verify_signature().map_err(|e| bad(&e))?;
        let info = &parsed.certification_request_info;
        let texts = |oid| -> Vec<String> {
            let all = info.subject.iter_by_oid(oid);
            all.filter_map(|a| a.as_str().ok().map(str::to_owned))
                .collect()
        };
        let mut request = Request {
            subject: info.subject.as_raw().to_vec(),
            key: info.subject_pki.raw.to_vec(),
            alternatives: None,
            common_name: texts(&OID_X509_COMMON_NAME).pop().unwrap_or_default(),
            organizations: texts(&OID_X509_ORGANIZATION_NAME),
            dns_names: vec![],
            addresses: vec![],
            other_names: 0,
        };
        for attribute in info.iter_attributes() {
            let x509_parser::cri_attributes::ParsedCriAttribute::ExtensionRequest(asked) =
                attribute.parsed_attribute()
            else {
                continue;
            };
            for extension in &asked.extensions {
                if extension.oid != OID_X509_EXT_SUBJECT_ALT_NAME {
                    continue;
                }
                request.alternatives = Some((extension.critical, extension.value.to_vec()));
                let ParsedExtension::SubjectAlternativeName(names) = extension.parsed_extension()
                else {
                    return Err(bad(&"malformed alternative names"));
                };
                for name in &names.general_names {
                    request.add(name);
                }
            }
        }
        Ok(request)
    }

    fn add(&mut self, name: &GeneralName<'_>) {
        match name {
            GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
            GeneralName::IPAddress(bytes) => {
                let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from);
                match v4.or_else(|_| <[u8; 16]>::try_from(*bytes).map(IpAddr::from)) {
                    Ok(address) => self.addresses.push(address),
                    Err(_) => self.other_names += 1,
                }
            }
            _ => self.other_names += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, DnValue, IsCa, KeyPair};

    use super::*;

    fn authority() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "ca");
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let cert = params.self_signed(&key).unwrap();
        Authority::new(&cert.pem(), &key.serialize_pem()).unwrap()
    }

    fn request() -> Vec<u8> {
        let key = KeyPair::generate().unwrap();
        let mut params =
            CertificateParams::new(vec!["node-1".to_owned(), "10.0.0.1".to_owned()]).unwrap();
        params
            .distinguished_name
            .push(DnType::OrganizationName, "first");
        // Several organizations: what a library that keeps one of each kind would lose.
        let second = DnType::CustomDnType(vec![2, 5, 4, 10]);
        params
            .distinguished_name
            .push(second, DnValue::Utf8String("second".to_owned()));
        params.distinguished_name.push(DnType::CommonName, "ann");
        let request = params.serialize_request(&key).unwrap();
        request.pem().unwrap().into_bytes()
    }

    #[test]
    fn a_certificate_says_what_the_request_and_the_usages_say() {
        let request = Request::parse(&request()).unwrap();
        assert_eq!(request.organizations, ["first", "second"]);
        assert_eq!(request.dns_names, ["node-1"]);
        assert_eq!(request.addresses.len(), 1);
        let usages = ["client auth", "digital signature", "key encipherment"].map(str::to_owned);
        let now = Timestamp::now();
        let pem = authority()
            .sign(&request, &usages, Some(3600), now)
            .unwrap();
        let (_, der) = section(&pem, &[SectionKind::Certificate]).unwrap();
        let (rest, cert) = x509_parser::parse_x509_certificate(&der).unwrap();
        assert!(rest.is_empty());
        assert_eq!(cert.subject().as_raw(), request.subject);
        assert_eq!(cert.public_key().raw, request.key);
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && usage.key_encipherment() && !usage.key_cert_sign());
        let extended = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(extended.client_auth && !extended.server_auth);
        let names = cert.subject_alternative_name().unwrap().unwrap();
        assert_eq!(names.value.general_names.len(), 2);
        assert!(!cert.is_ca());
        let life = cert.validity().not_after.timestamp() - cert.validity().not_before.timestamp();
        assert_eq!(life, 3600);
    }

    #[test]
    fn what_cannot_be_signed_is_refused() {
        assert!(Request::parse(b"x").is_err());
        let mut broken = request();
        let at = broken.len() - 60;
        broken[at] = if broken[at] == b'A' { b'B' } else { b'A' };
        assert!(Request::parse(&broken).is_err());
        let usages = ["no such usage".to_owned()];
        let request = Request::parse(&request()).unwrap();
        let signed = authority().sign(&request, &usages, None, Timestamp::now());
        assert!(matches!(signed, Err(SignError::Usage(_))));
    }
}
