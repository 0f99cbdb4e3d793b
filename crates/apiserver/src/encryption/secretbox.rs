//! NaCl's `secretbox`: XSalsa20 and Poly1305, as D. J. Bernstein describes them (*Extending the Salsa20
//! nonce*, *The Poly1305-AES message-authentication code*). The libraries that this program is made of
//! have neither Salsa20 nor Poly1305 alone; both are short, and take the same time for all keys.

use aws_lc_rs::constant_time::verify_slices_are_equal;

pub const KEY: usize = 32;
pub const NONCE: usize = 24;
pub const TAG: usize = 16;

/// Tag and ciphertext of a message.
pub fn seal(key: &[u8; KEY], nonce: &[u8; NONCE], message: &[u8]) -> Vec<u8> {
    let mut stream = Stream::new(key, nonce);
    let mut sealed = vec![0; TAG + message.len()];
    sealed[TAG..].copy_from_slice(message);
    let one_time = stream.begin(&mut sealed[TAG..]);
    let tag = poly1305(&one_time, &sealed[TAG..]);
    sealed[..TAG].copy_from_slice(&tag);
    sealed
}

/// The message, unless it is not as it was sealed with this key.
pub fn open(key: &[u8; KEY], nonce: &[u8; NONCE], sealed: &[u8]) -> Option<Vec<u8>> {
    let (tag, ciphertext) = sealed.split_at_checked(TAG)?;
    let mut stream = Stream::new(key, nonce);
    let mut message = ciphertext.to_vec();
    let one_time = stream.begin(&mut message);
    verify_slices_are_equal(tag, &poly1305(&one_time, ciphertext)).ok()?;
    Some(message)
}

const SIGMA: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

fn words<const N: usize>(bytes: &[u8]) -> [u32; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
    words
}

/// The key and the middle of Salsa20's matrix.
fn matrix(key: &[u32; 8], middle: &[u32; 4]) -> [u32; 16] {
    let (k, n, s) = (key, middle, &SIGMA);
    [
        s[0], k[0], k[1], k[2], k[3], s[1], n[0], n[1], n[2], n[3], s[2], k[4], k[5], k[6], k[7],
        s[3],
    ]
}

/// Salsa20's twenty rounds.
fn rounds(x: &mut [u32; 16]) {
    let mut quarter = |a: usize, b: usize, c: usize, d: usize| {
        x[b] ^= x[a].wrapping_add(x[d]).rotate_left(7);
        x[c] ^= x[b].wrapping_add(x[a]).rotate_left(9);
        x[d] ^= x[c].wrapping_add(x[b]).rotate_left(13);
        x[a] ^= x[d].wrapping_add(x[c]).rotate_left(18);
    };
    for _ in 0..10 {
        quarter(0, 4, 8, 12);
        quarter(5, 9, 13, 1);
        quarter(10, 14, 2, 6);
        quarter(15, 3, 7, 11);
        quarter(0, 1, 2, 3);
        quarter(5, 6, 7, 4);
        quarter(10, 11, 8, 9);
        quarter(15, 12, 13, 14);
    }
}

/// XSalsa20's key stream.
struct Stream {
    key: [u32; 8],
    nonce: [u32; 2],
    block: u64,
}

impl Stream {
    fn new(key: &[u8; KEY], nonce: &[u8; NONCE]) -> Stream {
        // HSalsa20 makes a key of this one and most of the nonce.
        let mut x = matrix(&words(key), &words(&nonce[..16]));
        rounds(&mut x);
        Stream {
            key: [x[0], x[5], x[10], x[15], x[6], x[7], x[8], x[9]],
            nonce: words(&nonce[16..]),
            block: 0,
        }
    }

    fn next(&mut self) -> [u8; 64] {
        let [low, high] = self.nonce;
        let middle = [low, high, self.block as u32, (self.block >> 32) as u32];
        let start = matrix(&self.key, &middle);
        let mut x = start;
        rounds(&mut x);
        self.block += 1;
        let mut out = [0; 64];
        for ((bytes, x), start) in out.as_chunks_mut::<4>().0.iter_mut().zip(x).zip(start) {
            *bytes = x.wrapping_add(start).to_le_bytes();
        }
        out
    }

    /// Encrypts or decrypts from the stream's beginning; gives the first 32 bytes of the stream, which
    /// are the tag's key.
    fn begin(&mut self, bytes: &mut [u8]) -> [u8; KEY] {
        let first = self.next();
        let (head, tail) = bytes.split_at_mut(bytes.len().min(32));
        xor(head, &first[32..]);
        for chunk in tail.chunks_mut(64) {
            xor(chunk, &self.next());
        }
        let mut one_time = [0; KEY];
        one_time.copy_from_slice(&first[..32]);
        one_time
    }
}

fn xor(bytes: &mut [u8], stream: &[u8]) {
    for (byte, stream) in bytes.iter_mut().zip(stream) {
        *byte ^= stream;
    }
}

const LIMB: u32 = (1 << 26) - 1;

/// Poly1305 with a key that is used once: arithmetic modulo 2^130 - 5 in five limbs of 26 bits.
fn poly1305(key: &[u8; KEY], message: &[u8]) -> [u8; TAG] {
    let r = limbs(&key[..16], 0);
    // Some bits of `r` are always clear.
    let clamp = [
        0x03ff_ffff,
        0x03ff_ff03,
        0x03ff_c0ff,
        0x03f0_3fff,
        0x000f_ffff,
    ];
    let mut r: [u64; 5] = std::array::from_fn(|i| u64::from(r[i] & clamp[i]));
    let five: [u64; 5] = r.map(|limb| limb * 5);
    let mut h = [0_u64; 5];
    for chunk in message.chunks(16) {
        let mut block = [0; 17];
        block[..chunk.len()].copy_from_slice(chunk);
        block[chunk.len()] = 1;
        let m = limbs(&block[..16], block[16]);
        for (h, m) in h.iter_mut().zip(m) {
            *h += u64::from(m);
        }
        let mut product = [0_u64; 5];
        for (i, product) in product.iter_mut().enumerate() {
            for (j, h) in h.iter().enumerate() {
                // What goes beyond 2^130 comes back five times.
                *product += h * if j <= i { r[i - j] } else { five[5 + i - j] };
            }
        }
        h = carried(product);
    }
    r.fill(0);
    tag(carried(h), &key[16..])
}

/// The 16 bytes of a number and a bit above them as limbs.
fn limbs(bytes: &[u8], above: u8) -> [u32; 5] {
    let w: [u32; 4] = words(bytes);
    [
        w[0] & LIMB,
        (w[0] >> 26 | w[1] << 6) & LIMB,
        (w[1] >> 20 | w[2] << 12) & LIMB,
        (w[2] >> 14 | w[3] << 18) & LIMB,
        w[3] >> 8 | u32::from(above) << 24,
    ]
}

/// The same number with limbs of 26 bits (the second may have one more).
fn carried(mut h: [u64; 5]) -> [u64; 5] {
    let limb = u64::from(LIMB);
    for i in 0..4 {
        h[i + 1] += h[i] >> 26;
        h[i] &= limb;
    }
    h[0] += (h[4] >> 26) * 5;
    h[4] &= limb;
    h[1] += h[0] >> 26;
    h[0] &= limb;
    h
}

/// The number modulo 2^130 - 5, and `s` added to it modulo 2^128.
fn tag(h: [u64; 5], s: &[u8]) -> [u8; TAG] {
    let limb = u64::from(LIMB);
    let h = carried(h);
    // The number less the prime; whether that is negative shows in the last limb.
    let mut less = h;
    less[0] += 5;
    for i in 0..4 {
        less[i + 1] += less[i] >> 26;
        less[i] &= limb;
    }
    let at_least = 0_u64.wrapping_sub(less[4] >> 26 & 1);
    less[4] &= limb;
    let h: [u64; 5] = std::array::from_fn(|i| h[i] & !at_least | less[i] & at_least);
    let number = u128::from(h[0])
        | u128::from(h[1]) << 26
        | u128::from(h[2]) << 52
        | u128::from(h[3]) << 78
        | u128::from(h[4]) << 104;
    let s: [u32; 4] = words(s);
    let s = (0..4).fold(0, |all, i| all | u128::from(s[i]) << (32 * i));
    number.wrapping_add(s).to_le_bytes()
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

    /// Of *Cryptography in NaCl*, chapters 10.
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
        let mut sealed = seal(&key, &nonce, &message);
        assert_eq!(sealed, expected);
        assert_eq!(open(&key, &nonce, &sealed), Some(message));
        for at in 0..sealed.len() {
            sealed[at] ^= 1;
            assert_eq!(open(&key, &nonce, &sealed), None, "{at}");
            sealed[at] ^= 1;
        }
        for length in [0, 1, 15, 16, 31, 32, 33, 64, 95, 96, 97, 1000] {
            let message = vec![0xff; length];
            let sealed = seal(&key, &nonce, &message);
            assert_eq!(open(&key, &nonce, &sealed), Some(message), "{length}");
        }
    }

    /// Of RFC 8439, 2.5.2 and appendix A.3 (numbers 7 to 9, where the carry runs).
    #[test]
    fn authenticated_as_the_standard_says() {
        let key = hex("85d6be7857556d337f4452fe42d506a8 0103808afb0db2fd4abff6af4149f51b");
        let key = key.try_into().expect("a key");
        assert_eq!(
            poly1305(&key, b"Cryptographic Forum Research Group").to_vec(),
            hex("a8061dc1305136c6c22b8baf0c0127a9")
        );
        let all = "ffffffffffffffffffffffffffffffff";
        for (r, message, expected) in [
            (
                1,
                format!("{all} f0ffffffffffffffffffffffffffffff 11000000000000000000000000000000"),
                "05000000000000000000000000000000",
            ),
            (
                1,
                format!("{all} fbfefefefefefefefefefefefefefefe 01010101010101010101010101010101"),
                "00000000000000000000000000000000",
            ),
            (
                2,
                "fdffffffffffffffffffffffffffffff".to_owned(),
                "faffffffffffffffffffffffffffffff",
            ),
        ] {
            let mut key = [0; KEY];
            key[0] = r;
            assert_eq!(
                poly1305(&key, &hex(&message)).to_vec(),
                hex(expected),
                "{message}"
            );
        }
    }
}
