//! Keys of signed tokens: reading them from PEM, signing, verifying, and showing them as JWKs.

use aws_lc_rs::{
    encoding::AsDer,
    rand::SystemRandom,
    rsa,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED,
        ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED, ECDSA_P521_SHA512_FIXED_SIGNING,
        EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair, RSA_PKCS1_2048_8192_SHA256,
        RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PKCS1_SHA256,
        RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512,
        RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use rustls_pki_types::pem::{PemObject, SectionKind};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use x509_parser::{prelude::FromDer, public_key, x509::SubjectPublicKeyInfo};

/// Why a key of tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a key in PEM form")]
    Pem,
    #[error("neither an RSA key (of 2048 bits or more) nor an ECDSA key (P-256, P-384 or P-521)")]
    Kind,
    #[error("reading {path}")]
    File {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
}

/// What signs tokens.
enum Secret {
    Rsa(Box<rsa::KeyPair>),
    Ec(Box<EcdsaKeyPair>),
}

/// A private key that signs tokens.
pub struct Signer {
    secret: Secret,
    pub public: PublicKey,
}

const CURVES: [(&EcdsaSigningAlgorithm, &str); 3] = [
    (&ECDSA_P256_SHA256_FIXED_SIGNING, "ES256"),
    (&ECDSA_P384_SHA384_FIXED_SIGNING, "ES384"),
    (&ECDSA_P521_SHA512_FIXED_SIGNING, "ES512"),
];

impl Signer {
    /// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC 1.
    pub fn from_pem(pem: &str) -> Result<Signer, KeyError> {
        sections(pem)
            .find_map(|(kind, der)| private(kind, &der))
            .ok_or(if sections(pem).next().is_some() {
                KeyError::Kind
            } else {
                KeyError::Pem
            })
    }

    /// The signature of a JWS, or `None` when the platform's generator fails.
    pub fn sign(&self, message: &[u8]) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match &self.secret {
            Secret::Ec(pair) => Some(pair.sign(&random, message).ok()?.as_ref().to_vec()),
            Secret::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature)
                    .ok()?;
                Some(signature)
            }
        }
    }
}

fn sections(pem: &str) -> impl Iterator<Item = (SectionKind, Vec<u8>)> {
    <(SectionKind, Vec<u8>)>::pem_slice_iter(pem.as_bytes()).filter_map(Result::ok)
}

fn private(kind: SectionKind, der: &[u8]) -> Option<Signer> {
    let rsa = match kind {
        SectionKind::RsaPrivateKey => rsa::KeyPair::from_der(der).ok(),
        SectionKind::PrivateKey => rsa::KeyPair::from_pkcs8(der).ok(),
        SectionKind::EcPrivateKey => None,
        _ => return None,
    };
    if let Some(pair) = rsa {
        let spki = pair.public_key().as_der().ok()?;
        return Some(Signer {
            public: PublicKey::from_spki(spki.as_ref())?,
            secret: Secret::Rsa(Box::new(pair)),
        });
    }
    let pair = CURVES
        .iter()
        .find_map(|(curve, _)| EcdsaKeyPair::from_private_key_der(curve, der).ok())?;
    let spki = AsDer::as_der(pair.public_key()).ok()?;
    Some(Signer {
        public: PublicKey::from_spki(spki.as_ref())?,
        secret: Secret::Ec(Box::new(pair)),
    })
}

/// The numbers of a public key.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Numbers {
    Rsa {
        n: Vec<u8>,
        e: Vec<u8>,
    },
    /// `algorithm` is the JWS algorithm that belongs to the curve.
    Ec {
        algorithm: &'static str,
        point: Vec<u8>,
    },
}

/// A public key that tokens are verified with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    numbers: Numbers,
    /// Empty where the key's owner gave it no name.
    pub id: String,
}

/// Length of a curve's coordinates by the JWS algorithm.
fn coordinate(algorithm: &str) -> usize {
    match algorithm {
        "ES256" => 32,
        "ES384" => 48,
        _ => 66,
    }
}

impl PublicKey {
    /// All keys of a PEM text: public ones, certificates', and the public halves of private ones.
    pub fn all_from_pem(pem: &str) -> Result<Vec<PublicKey>, KeyError> {
        let mut keys = vec![];
        for (kind, der) in sections(pem) {
            let key = match kind {
                SectionKind::PublicKey => PublicKey::from_spki(&der),
                SectionKind::Certificate => {
                    x509_parser::certificate::X509Certificate::from_der(&der)
                        .ok()
                        .and_then(|(_, cert)| PublicKey::from_spki(cert.public_key().raw))
                }
                _ => private(kind, &der).map(|signer| signer.public),
            };
            keys.push(key.ok_or(KeyError::Kind)?);
        }
        if keys.is_empty() {
            return Err(KeyError::Pem);
        }
        Ok(keys)
    }

    /// A key in PKIX form; its name is the digest of that, as Kubernetes names keys.
    pub fn from_spki(spki: &[u8]) -> Option<PublicKey> {
        let (_, info) = SubjectPublicKeyInfo::from_der(spki).ok()?;
        let numbers = match info.parsed().ok()? {
            public_key::PublicKey::RSA(key) => Numbers::Rsa {
                n: trimmed(key.modulus),
                e: trimmed(key.exponent),
            },
            public_key::PublicKey::EC(point) => {
                let data = point.data();
                let algorithm = match data.len() {
                    65 => "ES256",
                    97 => "ES384",
                    133 => "ES512",
                    _ => return None,
                };
                Numbers::Ec {
                    algorithm,
                    point: data.to_vec(),
                }
            }
            _ => return None,
        };
        Some(PublicKey {
            numbers,
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(spki)),
        })
    }

    /// A key of a JWK set; `None` for kinds that are not used and for keys that do not sign.
    pub fn from_jwk(jwk: &Value) -> Option<PublicKey> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let bytes = |name: &str| {
            URL_SAFE_NO_PAD
                .decode(text(name)?.trim_end_matches('='))
                .ok()
        };
        if text("use").is_some_and(|u| u != "sig") {
            return None;
        }
        let numbers = match text("kty")? {
            "RSA" => Numbers::Rsa {
                n: trimmed(&bytes("n")?),
                e: trimmed(&bytes("e")?),
            },
            "EC" => {
                let algorithm = match text("crv")? {
                    "P-256" => "ES256",
                    "P-384" => "ES384",
                    "P-521" => "ES512",
                    _ => return None,
                };
                let size = coordinate(algorithm);
                let mut point = vec![4];
                for part in [bytes("x")?, bytes("y")?] {
                    let missing = size.checked_sub(part.len())?;
                    point.extend(std::iter::repeat_n(0, missing));
                    point.extend(part);
                }
                Numbers::Ec { algorithm, point }
            }
            _ => return None,
        };
        Some(PublicKey {
            numbers,
            id: text("kid").unwrap_or_default().to_owned(),
        })
    }

    /// The algorithm that Kubernetes signs with where it has this key.
    pub fn algorithm(&self) -> &'static str {
        match &self.numbers {
            Numbers::Rsa { .. } => "RS256",
            Numbers::Ec { algorithm, .. } => algorithm,
        }
    }

    /// Whether a signature of this algorithm is right; never for an algorithm of another kind of key.
    pub fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> bool {
        match &self.numbers {
            Numbers::Rsa { n, e } => {
                let parameters = match algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    "PS256" => &RSA_PSS_2048_8192_SHA256,
                    "PS384" => &RSA_PSS_2048_8192_SHA384,
                    "PS512" => &RSA_PSS_2048_8192_SHA512,
                    _ => return false,
                };
                RsaPublicKeyComponents { n, e }
                    .verify(parameters, message, signature)
                    .is_ok()
            }
            Numbers::Ec {
                algorithm: own,
                point,
            } => {
                if *own != algorithm {
                    return false;
                }
                let parameters: &'static dyn VerificationAlgorithm = match *own {
                    "ES256" => &ECDSA_P256_SHA256_FIXED,
                    "ES384" => &ECDSA_P384_SHA384_FIXED,
                    _ => &ECDSA_P521_SHA512_FIXED,
                };
                UnparsedPublicKey::new(parameters, point)
                    .verify(message, signature)
                    .is_ok()
            }
        }
    }

    pub fn to_jwk(&self) -> Value {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match &self.numbers {
            Numbers::Rsa { n, e } => json!({
                "use": "sig", "kty": "RSA", "kid": self.id, "alg": "RS256",
                "n": text(n), "e": text(e),
            }),
            Numbers::Ec { algorithm, point } => {
                let curve = match *algorithm {
                    "ES256" => "P-256",
                    "ES384" => "P-384",
                    _ => "P-521",
                };
                let (x, y) = point[1..].split_at(coordinate(algorithm));
                json!({
                    "use": "sig", "kty": "EC", "kid": self.id, "crv": curve, "alg": algorithm,
                    "x": text(x), "y": text(y),
                })
            }
        }
    }
}

/// A number without leading zeros.
fn trimmed(number: &[u8]) -> Vec<u8> {
    let start = number.iter().take_while(|b| **b == 0).count();
    number[start..].to_vec()
}

/// A signed token in its compact form, taken apart; nothing of it is verified.
pub struct Jws<'a> {
    pub algorithm: String,
    pub key_id: String,
    pub claims: Value,
    signed: &'a str,
    signature: Vec<u8>,
}

impl<'a> Jws<'a> {
    pub fn parse(token: &'a str) -> Option<Jws<'a>> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (header, claims) = signed.split_once('.')?;
        let part = |text: &str| -> Option<Value> {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()
        };
        let header = part(header)?;
        // An extension that must be understood is not.
        if header.get("crit").is_some() {
            return None;
        }
        let text = |name: &str| {
            let value = header.get(name).and_then(Value::as_str);
            value.unwrap_or_default().to_owned()
        };
        Some(Jws {
            algorithm: text("alg"),
            key_id: text("kid"),
            claims: part(claims).filter(Value::is_object)?,
            signed,
            signature: URL_SAFE_NO_PAD.decode(signature).ok()?,
        })
    }

    /// Whether one of these keys has signed it: those of its key's name, or, where the token or a
    /// key has no name, any.
    pub fn verified_by<'k>(&self, mut keys: impl Iterator<Item = &'k PublicKey>) -> bool {
        keys.any(|key| {
            (self.key_id.is_empty() || key.id.is_empty() || key.id == self.key_id)
                && key.verify(&self.algorithm, self.signed.as_bytes(), &self.signature)
        })
    }

    /// The claim `aud`, one or several.
    pub fn audiences(&self) -> Vec<String> {
        match self.claims.get("aud") {
            Some(Value::String(one)) => vec![one.clone()],
            many => crate::object::strings(many),
        }
    }

    /// A claim that tells seconds since 1970.
    pub fn time(&self, claim: &str) -> Option<i64> {
        let value = self.claims.get(claim)?;
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time with a fraction is its second"
        )]
        value.as_i64().or_else(|| value.as_f64().map(|f| f as i64))
    }

    pub fn text(&self, claim: &str) -> &str {
        let value = self.claims.get(claim).and_then(Value::as_str);
        value.unwrap_or_default()
    }
}

/// A token with these claims.
pub fn sign(signer: &Signer, claims: &Value) -> Option<String> {
    let header = json!({"alg": signer.public.algorithm(), "kid": signer.public.id});
    let signed = format!(
        "{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(claims.to_string())
    );
    let signature = signer.sign(signed.as_bytes())?;
    Some(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys() -> Vec<Signer> {
        let mut all = vec![];
        for (curve, name) in CURVES {
            let der = EcdsaKeyPair::generate_pkcs8(curve, &SystemRandom::new()).expect("a key");
            let signer = private(SectionKind::PrivateKey, der.as_ref()).expect("usable");
            assert_eq!(signer.public.algorithm(), name);
            all.push(signer);
        }
        let pair = rsa::KeyPair::generate(rsa::KeySize::Rsa2048).expect("a key");
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&pair).expect("encoded");
        all.push(private(SectionKind::PrivateKey, der.as_ref()).expect("usable"));
        all
    }

    #[test]
    fn tokens_are_verified_by_the_key_that_signed_them_and_by_no_other() {
        let keys = keys();
        for (i, signer) in keys.iter().enumerate() {
            let token = sign(signer, &json!({"sub": "x"})).expect("signed");
            let jws = Jws::parse(&token).expect("a token");
            for (j, other) in keys.iter().enumerate() {
                assert_eq!(jws.verified_by([&other.public].into_iter()), i == j);
                // Through a JWK set, with the key's name left out.
                let mut jwk = other.public.to_jwk();
                jwk["kid"] = "".into();
                let key = PublicKey::from_jwk(&jwk).expect("a key");
                assert_eq!(jws.verified_by([&key].into_iter()), i == j);
            }
            let (head, signature) = token.rsplit_once('.').expect("three parts");
            let (header, _) = head.split_once('.').expect("three parts");
            let claims = URL_SAFE_NO_PAD.encode(json!({"sub": "y"}).to_string());
            let forged = format!("{header}.{claims}.{signature}");
            let forged = Jws::parse(&forged).expect("a token");
            assert!(!forged.verified_by([&signer.public].into_iter()));
        }
    }

    #[test]
    fn what_is_no_token_is_none() {
        for bad in ["", "a", "a.b", "a.b.c", "e30.e30.", "..", "e30.W10.AA"] {
            let signed = Jws::parse(bad)
                .is_some_and(|jws| jws.verified_by(keys().iter().map(|signer| &signer.public)));
            assert!(!signed, "{bad}");
        }
    }
}
