//! Tokens of ServiceAccounts: issued for a time and an audience, valid as long as the account and
//! the object that they are bound to exist.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use gantry_store::{Key, Store};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    keys::{Jws, PublicKey, Signer, sign},
    proven::{Proven, Token},
    user::{CREDENTIAL_ID, UserInfo},
};
use crate::object;

/// `iss` of the tokens that are kept in Secrets.
pub const LEGACY_ISSUER: &str = "kubernetes/serviceaccount";
/// Clocks may differ so much, and objects may have been gone so long.
const LEEWAY: i64 = 60;
/// A request for so many seconds comes from a kubelet that renews tokens in time. The tokens of
/// pods whose clients do not are made to live longer.
const RENEWED: i64 = 3607;
const YEAR: i64 = 365 * 86_400;

/// The object that a token is bound to.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    pub kind: String,
    pub name: String,
    pub uid: String,
    /// Name and uid of the node of a pod, the uid where the node is known.
    pub node: Option<(String, String)>,
}

/// What a token is asked for.
pub struct Wanted<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub audiences: &'a [String],
    pub issued: i64,
    pub seconds: i64,
    pub bound: Option<&'a Bound>,
}

/// A token that was issued.
pub struct Issued {
    pub token: String,
    /// Its name, which the audit log tells.
    pub id: String,
}

/// A token that is valid, and for whom.
pub struct Valid {
    pub user: UserInfo,
    /// Empty for tokens that are for nobody in particular.
    pub audiences: Vec<String>,
    /// Why the client should have renewed it.
    pub stale: Option<String>,
}

/// The signer and the verifiers of tokens.
pub struct Accounts {
    /// The first is that of new tokens.
    pub issuers: Vec<String>,
    /// What this API is called as the audience of tokens.
    pub audiences: Vec<String>,
    pub signer: Signer,
    /// Beside the signer's own.
    pub keys: Vec<PublicKey>,
    pub extend: bool,
    /// The longest life of a token, in seconds.
    pub longest: Option<i64>,
    /// Tokens that one of the keys has signed.
    pub proven: Proven,
}

impl Accounts {
    pub fn issuer(&self) -> &str {
        self.issuers.first().map_or("", String::as_str)
    }

    fn keys(&self) -> impl Iterator<Item = &PublicKey> {
        let own = &self.signer.public;
        std::iter::once(own).chain(self.keys.iter().filter(move |k| *k != own))
    }

    /// The public keys as a JWK set.
    pub fn jwks(&self) -> Value {
        json!({"keys": self.keys().map(PublicKey::to_jwk).collect::<Vec<_>>()})
    }

    /// The algorithms of the keys, for the discovery document.
    pub fn algorithms(&self) -> Vec<&'static str> {
        let mut all: Vec<_> = self.keys().map(PublicKey::algorithm).collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// A signed token, or `None` when the platform's generator fails.
    pub fn issue(&self, wanted: &Wanted<'_>) -> Option<Issued> {
        let id = uuid::Uuid::new_v4().to_string();
        let mut kubernetes = json!({
            "namespace": wanted.namespace,
            "serviceaccount": {"name": wanted.name, "uid": wanted.uid},
        });
        let mut life = wanted.seconds;
        if let Some(bound) = wanted.bound {
            kubernetes[bound.kind.to_lowercase()] = json!({"name": bound.name, "uid": bound.uid});
            if let Some((name, uid)) = &bound.node {
                kubernetes["node"] = json!({"name": name});
                if !uid.is_empty() {
                    kubernetes["node"]["uid"] = uid.clone().into();
                }
            }
            let ours = wanted.audiences.iter().all(|a| self.audiences.contains(a));
            if self.extend && bound.kind == "Pod" && wanted.seconds == RENEWED && ours {
                kubernetes["warnafter"] = (wanted.issued + RENEWED).into();
                // Longer than tokens may be asked for, too: what shortens that is who signs them.
                life = YEAR;
            }
        }
        let claims = json!({
            "aud": wanted.audiences, "exp": wanted.issued + life, "iat": wanted.issued,
            "nbf": wanted.issued, "iss": self.issuer(), "jti": id, "kubernetes.io": kubernetes,
            "sub": format!("system:serviceaccount:{}:{}", wanted.namespace, wanted.name),
        });
        Some(Issued {
            token: sign(&self.signer, &claims)?,
            id,
        })
    }

    /// A token without an end that a Secret keeps, for the controller of such Secrets.
    pub fn issue_legacy(
        &self,
        (namespace, name, uid): (&str, &str, &str),
        secret: &str,
    ) -> Option<String> {
        let claims = json!({
            "iss": LEGACY_ISSUER,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
            "kubernetes.io/serviceaccount/namespace": namespace,
            "kubernetes.io/serviceaccount/secret.name": secret,
            "kubernetes.io/serviceaccount/service-account.name": name,
            "kubernetes.io/serviceaccount/service-account.uid": uid,
        });
        sign(&self.signer, &claims)
    }

    /// Who a token is of, where it is one of ours and valid.
    pub fn verify(&self, store: &Store, token: &str, digest: &Token) -> Option<Valid> {
        let jws = Jws::parse(token)?;
        let issuer = jws.text("iss");
        let legacy = issuer == LEGACY_ISSUER;
        if !legacy && !self.issuers.iter().any(|i| i == issuer) {
            return None;
        }
        let signed = || jws.verified_by(self.keys());
        if !self.proven.or_prove(digest, signed) {
            return None;
        }
        if legacy {
            return verify_legacy(store, &jws, token);
        }
        let now = jiff::Timestamp::now().as_second();
        if jws.time("exp")? + LEEWAY <= now || jws.time("nbf").is_some_and(|t| t > now + LEEWAY) {
            return None;
        }
        let kubernetes = jws.claims.get("kubernetes.io")?;
        let namespace = object::text(kubernetes, "/namespace");
        let named = |kind: &str| -> Option<(&str, &str)> {
            let part = kubernetes.get(kind)?;
            Some((object::text(part, "/name"), object::text(part, "/uid")))
        };
        let (name, uid) = named("serviceaccount")?;
        let mut user = UserInfo::account(namespace, name);
        if jws.text("sub") != user.name {
            return None;
        }
        let live = |plural: &str, name: &str, uid: &str, namespace: &str| {
            live(store, plural, namespace, name, uid, now)
        };
        live("serviceaccounts", name, uid, namespace)?;
        let mut extra = BTreeMap::new();
        let mut tell = |key: &str, value: &str| {
            let key = format!("authentication.kubernetes.io/{key}");
            extra.insert(key, vec![value.to_owned()]);
        };
        if let Some((name, uid)) = named("secret") {
            live("secrets", name, uid, namespace)?;
        }
        if let Some((name, uid)) = named("pod") {
            live("pods", name, uid, namespace)?;
            tell("pod-name", name);
            tell("pod-uid", uid);
        }
        if let Some((name, uid)) = named("node") {
            // A pod's node may have gone: the pod itself is what the token lives with.
            if kubernetes.get("pod").is_none() {
                live("nodes", name, uid, "")?;
            }
            tell("node-name", name);
            if !uid.is_empty() {
                tell("node-uid", uid);
            }
        }
        let id = jws.text("jti");
        if !id.is_empty() {
            extra.insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
        }
        let stale = kubernetes
            .get("warnafter")
            .and_then(Value::as_i64)
            .filter(|after| *after != 0 && now > *after)
            .map(|after| {
                let seconds = now - after;
                format!(
                    "subject: {}, seconds after warning threshold: {seconds}",
                    user.name
                )
            });
        user.uid = uid.to_owned();
        user.extra = extra;
        Some(Valid {
            user,
            audiences: jws.audiences(),
            stale,
        })
    }
}

fn verify_legacy(store: &Store, jws: &Jws<'_>, token: &str) -> Option<Valid> {
    let claim = |name: &str| {
        jws.text(&format!("kubernetes.io/serviceaccount/{name}"))
            .to_owned()
    };
    let (namespace, secret) = (claim("namespace"), claim("secret.name"));
    let (name, uid) = (claim("service-account.name"), claim("service-account.uid"));
    let mut user = UserInfo::account(&namespace, &name);
    if namespace.is_empty() || secret.is_empty() || name.is_empty() || jws.text("sub") != user.name
    {
        return None;
    }
    let kept = store.get(&Key::new("/secrets", format!("{namespace}/{secret}")))?;
    let kept: Value = serde_json::from_slice(&kept.value).ok()?;
    let held = kept.pointer("/data/token").and_then(Value::as_str)?;
    let withdrawn = kept
        .pointer("/metadata/labels/kubernetes.io~1legacy-token-invalid-since")
        .is_some();
    if object::deleting(&kept) || withdrawn || STANDARD.decode(held).ok()? != token.as_bytes() {
        return None;
    }
    live(
        store,
        "serviceaccounts",
        &namespace,
        &name,
        &uid,
        jiff::Timestamp::now().as_second(),
    )?;
    user.uid = uid;
    Some(Valid {
        user,
        audiences: vec![],
        stale: None,
    })
}

/// The object still exists under the same uid, or has been deleted only just now.
fn live(
    store: &Store,
    plural: &str,
    namespace: &str,
    name: &str,
    uid: &str,
    now: i64,
) -> Option<()> {
    let full = if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{namespace}/{name}")
    };
    let stored = store.get(&Key::new(format!("/{plural}"), full))?;
    let Living { metadata } = serde_json::from_slice(&stored.value).ok()?;
    if let Some(deleted) = metadata.deletion_timestamp {
        let at: jiff::Timestamp = deleted.parse().ok()?;
        if at.as_second() + LEEWAY < now {
            return None;
        }
    }
    (metadata.uid == uid).then_some(())
}

/// What tells whether an object is there.
#[derive(Deserialize)]
struct Living<'a> {
    #[serde(borrow)]
    metadata: LivingMetadata<'a>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LivingMetadata<'a> {
    #[serde(default)]
    uid: &'a str,
    deletion_timestamp: Option<&'a str>,
}
