//! Signatures, as each receiver checks them. All are HMAC-SHA256 in base64.

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::STANDARD};

fn hmac(key: &[u8], text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, key);
    STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

/// The header `webhook-signature` of Standard Webhooks: of id, time in seconds and body. A key that begins with
/// `whsec_` is base64, as they write it; any other is taken as it is.
pub fn standard(key: &str, id: &str, seconds: i64, body: &str) -> String {
    let decoded = key.strip_prefix("whsec_").map(|k| STANDARD.decode(k));
    let bytes = match decoded {
        Some(Ok(bytes)) => bytes,
        _ => key.as_bytes().to_vec(),
    };
    format!("v1,{}", hmac(&bytes, &format!("{id}.{seconds}.{body}")))
}

/// The parameter `sign` of a DingTalk robot, not yet escaped.
pub fn ding_talk(key: &str, milliseconds: i64) -> String {
    hmac(key.as_bytes(), &format!("{milliseconds}\n{key}"))
}

/// The member `sign` of a Feishu bot's message. What others sign is the key here, and nothing is signed.
pub fn feishu(key: &str, seconds: i64) -> String {
    hmac(format!("{seconds}\n{key}").as_bytes(), "")
}
