//! Signatures (JWS, HS256) whose content is sent apart.

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

/// The signature of a content with a token, without the content.
pub fn detached(content: &[u8], id: &str, secret: &[u8]) -> String {
    let header = json!({"alg": "HS256", "kid": id}).to_string();
    let header = URL_SAFE_NO_PAD.encode(header);
    let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(content));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{header}..{}", URL_SAFE_NO_PAD.encode(signature))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The case of Kubernetes' own test of its signer.
    #[test]
    fn signs_as_kubernetes_does() {
        let content = b"Hello from the other side. I must have called a thousand times.";
        assert_eq!(
            detached(content, "joshua", b"my voice is my passcode"),
            "eyJhbGciOiJIUzI1NiIsImtpZCI6Impvc2h1YSJ9..VShe2taLd-YTrmWuRkcL_8QTNDHYxQIEBsAYYiIj1_8"
        );
    }
}
