//! NaCl's `secretbox`: XSalsa20 and Poly1305, the tag before the ciphertext.

use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305, aead::Aead as _};

pub const KEY: usize = 32;
pub const NONCE: usize = 24;

/// Tag and ciphertext of a message; `None` for one that is too long for the cipher.
pub fn seal(key: &[u8; KEY], nonce: &[u8; NONCE], message: &[u8]) -> Option<Vec<u8>> {
    let cipher = XSalsa20Poly1305::new(key.into());
    cipher.encrypt(nonce.into(), message).ok()
}

/// The message, unless it is not as it was sealed with this key.
pub fn open(key: &[u8; KEY], nonce: &[u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
    let cipher = XSalsa20Poly1305::new(key.into());
    cipher.decrypt(nonce.into(), sealed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text
            .bytes()
            .filter(|b| !b.is_ascii_whitespace())
            .map(|b| (b as char).to_digit(16).expect("a digit") as u8)
            .collect();
        digits
            .as_chunks::<2>()
            .0
            .iter()
            .map(|[a, b]| a << 4 | b)
            .collect()
    }

    /// Of *Cryptography in NaCl*, chapter 10.
    #[test]
    fn sealed_as_nacl_does() {
        let key = hex("1b27556473e985d4 62cd51197a9a46c7 6009549eac6474f2 06c4ee0844f68389");
        let nonce = hex("69696ee955b62b73 cd62bda875fc73d6 8219e0036b7a0b37");
        let message = hex(
            "be075fc53c81f2d5 cf141316ebeb0c7b 5228c52a4c62cbd4 4b66849b64244ffc
             e5ecbaaf33bd751a 1ac728d45e6c6129 6cdc3c01233561f4 1db66cce314adb31
             0e3be8250c46f06d ceea3a7fa1348057 e2f6556ad6b1318a 024a838f21af1fde
             048977eb48f59ffd 4924ca1c60902e52 f0a089bc76897040 e082f93776384864
             5e0705",
        );
        let expected = hex(
            "f3ffc7703f9400e5 2a7dfb4b3d3305d9 8e993b9f48681273 c29650ba32fc76ce
             48332ea7164d96a4 476fb8c531a1186a c0dfc17c98dce87b 4da7f011ec48c972
             71d2c20f9b928fe2 270d6fb863d51738 b48eeee314a7cc8a b932164548e526ae
             90224368517acfea bd6bb3732bc0e9da 99832b61ca01b6de 56244a9e88d5f9b3
             7973f622a43d14a6 599b1f654cb45a74 e355a5",
        );
        let key = key.try_into().expect("a key");
        let nonce = nonce.try_into().expect("a nonce");
        let mut sealed = seal(&key, &nonce, &message).unwrap();
        assert_eq!(sealed, expected);
        assert_eq!(open(&key, &nonce, &sealed), Some(message));
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert_eq!(open(&key, &nonce, &sealed), None, "{at}");
            sealed[at] ^= 1;
        }
        for length in [0, 1, 15, 16, 31, 32, 33, 64, 95, 96, 97, 1000] {
            let message = vec![0xff; length];
            let sealed = seal(&key, &nonce, &message).unwrap();
            assert_eq!(open(&key, &nonce, &sealed), Some(message), "{length}");
        }
    }
}
