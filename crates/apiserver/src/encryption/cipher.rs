//! One key and what it makes of values: the schemes that Kubernetes' providers of the same names use.

use aws_lc_rs::{
    aead::{self, Aad, LessSafeKey, UnboundKey},
    cipher::{
        self, DecryptionContext, EncryptionContext, PaddedBlockDecryptingKey,
        PaddedBlockEncryptingKey, UnboundCipherKey,
    },
    iv::FixedLength,
    rand,
};

use super::secretbox;

/// A key in its scheme.
pub enum Cipher {
    /// AES in CBC mode, padded by PKCS #7, behind its initialization vector. Nothing tells whether it
    /// was changed.
    Cbc(Box<(PaddedBlockEncryptingKey, PaddedBlockDecryptingKey)>),
    /// AES in GCM mode, behind its nonce; the object's place is authenticated with it.
    Gcm(Box<LessSafeKey>),
    /// XSalsa20 and Poly1305, behind the nonce.
    Secretbox(Box<[u8; secretbox::KEY]>),
}

/// Makes a cipher of a key, where it has the right length.
pub type Make = fn(&[u8]) -> Option<Cipher>;

/// Of AES, in bytes.
const BLOCK: usize = 16;

impl Cipher {
    /// AES-CBC with a key of 16, 24 or 32 bytes.
    pub fn cbc(key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => &cipher::AES_128,
            24 => &cipher::AES_192,
            32 => &cipher::AES_256,
            _ => return None,
        };
        let bound = || UnboundCipherKey::new(algorithm, key);
        let seals = PaddedBlockEncryptingKey::cbc_pkcs7(bound().ok()?).ok()?;
        let opens = PaddedBlockDecryptingKey::cbc_pkcs7(bound().ok()?).ok()?;
        Some(Cipher::Cbc(Box::new((seals, opens))))
    }

    /// AES-GCM with a key of 16, 24 or 32 bytes.
    pub fn gcm(key: &[u8]) -> Option<Cipher> {
        let algorithm = match key.len() {
            16 => &aead::AES_128_GCM,
            24 => &aead::AES_192_GCM,
            32 => &aead::AES_256_GCM,
            _ => return None,
        };
        let key = UnboundKey::new(algorithm, key).ok()?;
        Some(Cipher::Gcm(Box::new(LessSafeKey::new(key))))
    }

    pub fn secretbox(key: &[u8]) -> Option<Cipher> {
        Some(Cipher::Secretbox(Box::new(key.try_into().ok()?)))
    }

    /// A value sealed, after `out`. `place` names the object.
    pub fn seal(&self, place: &[u8], value: &[u8], out: &mut Vec<u8>) -> Option<()> {
        match self {
            Cipher::Cbc(keys) => {
                let iv: [u8; BLOCK] = random()?;
                let mut sealed = value.to_vec();
                let context = EncryptionContext::Iv128(FixedLength::from(iv));
                keys.0.less_safe_encrypt(&mut sealed, context).ok()?;
                out.extend_from_slice(&iv);
                out.extend_from_slice(&sealed);
            }
            Cipher::Gcm(key) => {
                let nonce: [u8; aead::NONCE_LEN] = random()?;
                let mut sealed = value.to_vec();
                let unique = aead::Nonce::assume_unique_for_key(nonce);
                key.seal_in_place_append_tag(unique, Aad::from(place), &mut sealed)
                    .ok()?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&sealed);
            }
            Cipher::Secretbox(key) => {
                let nonce: [u8; secretbox::NONCE] = random()?;
                out.extend_from_slice(&nonce);
                out.extend_from_slice(&secretbox::seal(key, &nonce, value)?);
            }
        }
        Some(())
    }

    /// The value that was sealed, if it was with this key and for this place.
    pub fn open(&self, place: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        match self {
            Cipher::Cbc(keys) => {
                let (iv, sealed) = sealed.split_first_chunk::<BLOCK>()?;
                if sealed.is_empty() || !sealed.len().is_multiple_of(BLOCK) {
                    return None;
                }
                let mut opened = sealed.to_vec();
                let context = DecryptionContext::Iv128(FixedLength::from(*iv));
                let length = keys.1.decrypt(&mut opened, context).ok()?.len();
                opened.truncate(length);
                Some(opened)
            }
            Cipher::Gcm(key) => {
                let (nonce, sealed) = sealed.split_first_chunk::<{ aead::NONCE_LEN }>()?;
                let nonce = aead::Nonce::assume_unique_for_key(*nonce);
                let mut opened = sealed.to_vec();
                let length = key
                    .open_in_place(nonce, Aad::from(place), &mut opened)
                    .ok()?
                    .len();
                opened.truncate(length);
                Some(opened)
            }
            Cipher::Secretbox(key) => {
                let (nonce, sealed) = sealed.split_first_chunk::<{ secretbox::NONCE }>()?;
                secretbox::open(key, nonce, sealed)
            }
        }
    }
}

fn random<const N: usize>() -> Option<[u8; N]> {
    let mut bytes = [0; N];
    rand::fill(&mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_is_opened_with_its_key_alone() {
        let makes: [Make; 3] = [Cipher::cbc, Cipher::gcm, Cipher::secretbox];
        for (which, make) in makes.iter().enumerate() {
            assert!(make(&[1; 15]).is_none());
            for length in [16, 24, 32] {
                let Some(cipher) = make(&vec![7; length]) else {
                    assert_eq!((which, length != 32), (2, true));
                    continue;
                };
                let other = make(&vec![8; length]).expect("a key");
                for value in [&b""[..], b"a", &[0; 16], &[9; 1000]] {
                    let mut sealed = b"head".to_vec();
                    cipher.seal(b"place", value, &mut sealed).expect("sealed");
                    let mut again = b"head".to_vec();
                    cipher.seal(b"place", value, &mut again).expect("sealed");
                    assert_ne!(sealed, again, "never the same twice");
                    let sealed = &sealed[4..];
                    assert_eq!(cipher.open(b"place", sealed).as_deref(), Some(value));
                    assert_ne!(other.open(b"place", sealed).as_deref(), Some(value));
                    assert_eq!(cipher.open(b"place", &sealed[..sealed.len() - 1]), None);
                    if which == 1 {
                        assert_eq!(cipher.open(b"another", sealed), None);
                    }
                }
            }
        }
    }
}
