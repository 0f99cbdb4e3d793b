//! Which cipher suites connections may use, under Go's names.

use rustls::{CipherSuite, SupportedCipherSuite, crypto::CryptoProvider};

/// The suites of TLS 1.2 that may be used; without any, all that there are. Those of TLS 1.3 always
/// may, as with Go.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ciphers(Vec<CipherSuite>);

const KNOWN: [(&str, CipherSuite); 11] = [
    (
        "TLS_AES_128_GCM_SHA256",
        CipherSuite::TLS13_AES_128_GCM_SHA256,
    ),
    (
        "TLS_AES_256_GCM_SHA384",
        CipherSuite::TLS13_AES_256_GCM_SHA384,
    ),
    (
        "TLS_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    // Go's older names.
    (
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
    (
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305",
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ),
];

impl Ciphers {
    /// Reads names, separated by commas.
    ///
    /// # Errors
    /// The name of one that is not offered.
    pub fn parse(text: &str) -> Result<Ciphers, String> {
        let names = text.split(',').map(str::trim).filter(|n| !n.is_empty());
        let found = names.map(|name| {
            let suite = KNOWN.iter().find(|(known, _)| *known == name);
            suite.map(|(_, suite)| *suite).ok_or_else(|| {
                let offered: Vec<&str> = KNOWN[..9].iter().map(|(name, _)| *name).collect();
                format!("{name} is not offered; these are: {}", offered.join(", "))
            })
        });
        found.collect::<Result<_, _>>().map(Ciphers)
    }

    /// The cryptography of a server that keeps to them.
    pub fn provider(&self) -> CryptoProvider {
        let mut provider = rustls::crypto::aws_lc_rs::default_provider();
        if !self.0.is_empty() {
            provider.cipher_suites.retain(|suite| match suite {
                SupportedCipherSuite::Tls13(_) => true,
                SupportedCipherSuite::Tls12(_) => self.0.contains(&suite.suite()),
            });
        }
        provider
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_of_tls_1_2_are_chosen() {
        let left = |text: &str| {
            let provider = Ciphers::parse(text).expect(text).provider();
            let suites = provider.cipher_suites.into_iter();
            let chosen = suites.filter(|s| matches!(s, SupportedCipherSuite::Tls12(_)));
            chosen.map(|s| s.suite()).collect::<Vec<_>>()
        };
        assert_eq!(left("").len(), 6);
        assert_eq!(left("TLS_AES_128_GCM_SHA256"), []);
        let one = CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256;
        assert_eq!(left("TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305"), [one]);
        let why = Ciphers::parse("TLS_RSA_WITH_AES_128_CBC_SHA").expect_err("weak");
        assert!(
            why.starts_with("TLS_RSA_WITH_AES_128_CBC_SHA is not"),
            "{why}"
        );
    }
}
