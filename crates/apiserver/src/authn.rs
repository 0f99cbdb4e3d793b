//! Who asks: static bearer tokens, ServiceAccount tokens (signed JWTs), impersonation.

use std::{collections::BTreeMap, sync::Arc};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
        UnparsedPublicKey,
    },
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use gantry_store::{Key, Store};
use rustc_hash::FxHashMap;
use rustls_pki_types::{PrivatePkcs8KeyDer, pem::PemObject};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::object;

/// The user of a request, as authorization and audit see it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserInfo {
    pub name: String,
    pub uid: String,
    pub groups: Vec<String>,
    pub extra: BTreeMap<String, Vec<String>>,
}

pub const ANONYMOUS: &str = "system:anonymous";
pub const AUTHENTICATED: &str = "system:authenticated";
pub const UNAUTHENTICATED: &str = "system:unauthenticated";
pub const MASTERS: &str = "system:masters";
/// Issuer and audience of ServiceAccount tokens where nothing else is configured.
pub const ISSUER: &str = "https://kubernetes.default.svc";

impl UserInfo {
    pub fn new(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    pub fn anonymous() -> UserInfo {
        UserInfo::new(ANONYMOUS, &[UNAUTHENTICATED])
    }

    pub fn is_anonymous(&self) -> bool {
        self.name == ANONYMOUS
    }

    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// Adds the group of all authenticated users, as every authenticator does.
    pub fn authenticated(mut self) -> UserInfo {
        if !self.is_anonymous() && !self.in_group(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.to_owned());
        }
        self
    }

    /// As `status.user` of a TokenReview shows it.
    pub fn to_value(&self) -> Value {
        let mut user = json!({});
        if !self.name.is_empty() {
            user["username"] = self.name.clone().into();
        }
        if !self.uid.is_empty() {
            user["uid"] = self.uid.clone().into();
        }
        if !self.groups.is_empty() {
            user["groups"] = self.groups.clone().into();
        }
        if !self.extra.is_empty() {
            user["extra"] = json!(self.extra);
        }
        user
    }
}

/// A bearer token that is valid as long as the server runs.
#[derive(Clone)]
pub struct StaticToken {
    pub token: String,
    pub user: String,
    pub uid: String,
    pub groups: Vec<String>,
}

impl std::fmt::Debug for StaticToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StaticToken")
            .field("user", &self.user)
            .field("groups", &self.groups)
            .finish_non_exhaustive()
    }
}

/// What a ServiceAccount token is bound to.
#[derive(Debug, Clone, Default)]
pub struct Bound {
    pub kind: String,
    pub name: String,
    pub uid: String,
}

/// Why the key of ServiceAccount tokens cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("not a private key in PEM form")]
    Pem,
    #[error("the key is refused")]
    Rejected(#[from] aws_lc_rs::error::KeyRejected),
}

pub struct Authenticator {
    /// Issuer of ServiceAccount tokens, and the audience that this API is.
    pub issuer: String,
    /// By SHA-256 of the token: looking up a digest tells nothing about how much of a guess was
    /// right, which is what comparing in constant time is for.
    tokens: FxHashMap<[u8; 32], UserInfo>,
    signer: EcdsaKeyPair,
    key_id: String,
}

impl Authenticator {
    /// `key` is the ECDSA P-256 key that signs ServiceAccount tokens, PKCS#8 in PEM.
    pub fn new(tokens: &[StaticToken], issuer: &str, key: &str) -> Result<Authenticator, KeyError> {
        let key = PrivatePkcs8KeyDer::from_pem_slice(key.as_bytes()).map_err(|_| KeyError::Pem)?;
        let signer =
            EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key.secret_pkcs8_der())?;
        let key_id = URL_SAFE_NO_PAD.encode(&Sha256::digest(signer.public_key().as_ref())[..16]);
        let tokens = tokens
            .iter()
            .map(|t| {
                let user = UserInfo {
                    name: t.user.clone(),
                    uid: t.uid.clone(),
                    groups: t.groups.clone(),
                    extra: BTreeMap::new(),
                };
                (
                    Sha256::digest(t.token.as_bytes()).into(),
                    user.authenticated(),
                )
            })
            .collect();
        Ok(Authenticator {
            issuer: issuer.to_owned(),
            tokens,
            signer,
            key_id,
        })
    }

    /// The user of a token, `None` when it is not valid here.
    pub fn authenticate(&self, store: &Store, token: &str, audience: &str) -> Option<UserInfo> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.tokens.get(&digest) {
            return (audience == self.issuer).then(|| user.clone());
        }
        self.verify(store, token, audience)
    }

    /// The public half of the signing key as a JWK set.
    pub fn jwks(&self) -> Value {
        let point = self.signer.public_key().as_ref();
        let (x, y) = (point.get(1..33), point.get(33..65));
        json!({"keys": [{
            "use": "sig", "kty": "EC", "kid": self.key_id, "crv": "P-256", "alg": "ES256",
            "x": URL_SAFE_NO_PAD.encode(x.unwrap_or_default()),
            "y": URL_SAFE_NO_PAD.encode(y.unwrap_or_default()),
        }]})
    }

    /// A signed token for a ServiceAccount, or `None` when the platform's generator fails.
    #[expect(
        clippy::too_many_arguments,
        reason = "the claims of a token, each once"
    )]
    pub fn issue(
        &self,
        namespace: &str,
        name: &str,
        uid: &str,
        audiences: &[String],
        issued: i64,
        expires: i64,
        bound: Option<&Bound>,
    ) -> Option<String> {
        let mut kubernetes = json!({
            "namespace": namespace,
            "serviceaccount": {"name": name, "uid": uid},
        });
        if let Some(bound) = bound {
            kubernetes[bound.kind.to_lowercase()] = json!({"name": bound.name, "uid": bound.uid});
        }
        let claims = json!({
            "aud": audiences, "exp": expires, "iat": issued, "nbf": issued, "iss": self.issuer,
            "jti": uuid::Uuid::new_v4().to_string(), "kubernetes.io": kubernetes,
            "sub": format!("system:serviceaccount:{namespace}:{name}"),
        });
        let header = json!({"alg": "ES256", "kid": self.key_id});
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self
            .signer
            .sign(&SystemRandom::new(), signed.as_bytes())
            .ok()?;
        Some(format!(
            "{signed}.{}",
            URL_SAFE_NO_PAD.encode(signature.as_ref())
        ))
    }

    fn verify(&self, store: &Store, token: &str, audience: &str) -> Option<UserInfo> {
        let (signed, signature) = token.rsplit_once('.')?;
        let (_, claims) = signed.split_once('.')?;
        let key = UnparsedPublicKey::new(
            &ECDSA_P256_SHA256_FIXED,
            self.signer.public_key().as_ref().to_vec(),
        );
        key.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).ok()?)
            .ok()?;
        let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).ok()?).ok()?;
        let now = jiff::Timestamp::now().as_second();
        let at = |name: &str| claims.get(name).and_then(Value::as_i64);
        let valid = object::text(&claims, "/iss") == self.issuer
            && at("exp")? > now
            && at("nbf")? <= now + 5
            && object::strings(claims.get("aud"))
                .iter()
                .any(|a| a == audience);
        if !valid {
            return None;
        }
        let kubernetes = claims.get("kubernetes.io")?;
        let namespace = object::text(kubernetes, "/namespace");
        let name = object::text(kubernetes, "/serviceaccount/name");
        let uid = object::text(kubernetes, "/serviceaccount/uid");
        live(store, "/serviceaccounts", namespace, name, uid)?;
        let mut extra = BTreeMap::from([(
            "authentication.kubernetes.io/credential-id".to_owned(),
            vec![format!("JTI={}", object::text(&claims, "/jti"))],
        )]);
        if let Some(pod) = kubernetes.get("pod") {
            let (name, uid) = (object::text(pod, "/name"), object::text(pod, "/uid"));
            live(store, "/pods", namespace, name, uid)?;
            for (key, value) in [("pod-name", name), ("pod-uid", uid)] {
                extra.insert(
                    format!("authentication.kubernetes.io/{key}"),
                    vec![value.to_owned()],
                );
            }
        }
        if let Some(secret) = kubernetes.get("secret") {
            let (name, uid) = (object::text(secret, "/name"), object::text(secret, "/uid"));
            live(store, "/secrets", namespace, name, uid)?;
        }
        Some(
            UserInfo {
                name: format!("system:serviceaccount:{namespace}:{name}"),
                uid: uid.to_owned(),
                groups: vec![
                    "system:serviceaccounts".to_owned(),
                    format!("system:serviceaccounts:{namespace}"),
                ],
                extra,
            }
            .authenticated(),
        )
    }
}

/// The object still exists under the same uid and is not being deleted.
fn live(store: &Store, bucket: &str, namespace: &str, name: &str, uid: &str) -> Option<()> {
    let stored = store.get(&Key {
        bucket: bucket.into(),
        name: format!("{namespace}/{name}").into(),
    })?;
    let object: Value = serde_json::from_slice(&stored.value).ok()?;
    (object::meta_text(&object, "uid") == uid && !object::deleting(&object)).then_some(())
}

/// What a request asks to be seen as, by its Impersonate-* headers.
pub fn impersonation(headers: &http::HeaderMap) -> Option<UserInfo> {
    let all = |name: &str| -> Vec<String> {
        headers
            .get_all(name)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect()
    };
    let mut user = UserInfo {
        name: all("impersonate-user")
            .into_iter()
            .next()
            .unwrap_or_default(),
        uid: all("impersonate-uid")
            .into_iter()
            .next()
            .unwrap_or_default(),
        groups: all("impersonate-group"),
        extra: BTreeMap::new(),
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            user.extra.insert(key.to_owned(), all(name.as_str()));
        }
    }
    (user != UserInfo::default()).then_some(user)
}

/// The impersonated user with the groups that Kubernetes adds.
pub fn impersonated(mut user: UserInfo) -> Arc<UserInfo> {
    if user.groups.is_empty()
        && let Some(account) = user.name.strip_prefix("system:serviceaccount:")
    {
        let namespace = account.split(':').next().unwrap_or_default();
        user.groups = vec![
            "system:serviceaccounts".to_owned(),
            format!("system:serviceaccounts:{namespace}"),
        ];
    }
    if user.is_anonymous() {
        if !user.in_group(UNAUTHENTICATED) {
            user.groups.push(UNAUTHENTICATED.to_owned());
        }
    } else if !user.in_group(UNAUTHENTICATED) {
        user = user.authenticated();
    }
    Arc::new(user)
}
