//! Bootstrap tokens: Secrets in `kube-system` by which a new node first speaks to the server.

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_store::{Key, Store};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::user::UserInfo;
use crate::object;

const GROUP: &str = "system:bootstrappers";

fn letters(text: &str, length: usize) -> bool {
    text.len() == length
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
}

/// The user of a token of the form `abcdef.0123456789abcdef` whose Secret allows it.
pub fn authenticate(store: &Store, token: &str) -> Option<UserInfo> {
    let (id, secret) = token.split_once('.')?;
    if !letters(id, 6) || !letters(secret, 16) {
        return None;
    }
    let stored = store.get(&Key::new(
        "/secrets",
        format!("kube-system/bootstrap-token-{id}"),
    ))?;
    let object: Value = serde_json::from_slice(&stored.value).ok()?;
    if object::deleting(&object)
        || object::text(&object, "/type") != "bootstrap.kubernetes.io/token"
    {
        return None;
    }
    let field = |name: &str| -> Option<String> {
        let encoded = object.get("data")?.get(name)?.as_str()?;
        String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
    };
    // Digests are compared: how long it takes tells nothing about how much of a guess was right.
    if Sha256::digest(field("token-secret")?) != Sha256::digest(secret) || field("token-id")? != id
    {
        return None;
    }
    if let Some(ends) = field("expiration").filter(|e| !e.is_empty()) {
        let ends: jiff::Timestamp = ends.parse().ok()?;
        if ends <= jiff::Timestamp::now() {
            return None;
        }
    }
    if field("usage-bootstrap-authentication").as_deref() != Some("true") {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    for extra in field("auth-extra-groups").unwrap_or_default().split(',') {
        if extra.is_empty() {
            continue;
        }
        if !group(extra) {
            return None;
        }
        groups.push(extra.to_owned());
    }
    Some(UserInfo {
        name: format!("system:bootstrap:{id}"),
        groups,
        ..UserInfo::default()
    })
}

/// `system:bootstrappers:` and up to 256 letters, digits, colons and dashes, none of the last two
/// at the end.
fn group(name: &str) -> bool {
    name.strip_prefix(GROUP)
        .and_then(|rest| rest.strip_prefix(':'))
        .is_some_and(|rest| {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            rest.len() <= 256
                && rest.bytes().all(|b| plain(b) || b == b':' || b == b'-')
                && rest.bytes().last().is_some_and(plain)
        })
}
