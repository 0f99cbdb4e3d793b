//! OpenID Connect: ID tokens of outside issuers, verified with the keys that they publish.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_machinery::access::Expression;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use parking_lot::RwLock;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{sync::Mutex, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{
    keys::{Jws, PublicKey},
    user::{CREDENTIAL_ID, UserInfo},
};
use crate::object;

/// How an issuer is known and what its claims mean.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Issuer {
    /// `iss` of its tokens.
    pub url: String,
    /// Where its discovery document is, if not where the URL says.
    pub discovery_url: Option<String>,
    /// The authorities that its server is known by, PEM; those of the system where it is not given.
    pub ca_pem: Option<String>,
    /// A token must be for one of these.
    pub audiences: Vec<String>,
    /// Signature algorithms that are taken.
    pub algorithms: Vec<String>,
    pub username: Claim,
    pub groups: Option<Claim>,
    pub uid: Option<Claim>,
    /// More about the user, by key.
    pub extra: Vec<(String, Expression)>,
    /// Claims that a token must have, with these values.
    pub required: BTreeMap<String, String>,
    /// What must be true of its claims.
    pub claim_rules: Vec<Rule>,
    /// What must be true of who they make of the user.
    pub user_rules: Vec<Rule>,
}

/// Where something about a user is taken from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// From a claim, with something put before its value.
    Named { name: String, prefix: String },
    /// From what an expression makes of the claims.
    Expression(Expression),
}

impl Default for Claim {
    fn default() -> Claim {
        Claim::Named {
            name: String::new(),
            prefix: String::new(),
        }
    }
}

/// What must be true, and what is said where it is not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    pub expression: Expression,
    pub message: String,
}

impl Rule {
    fn check(&self, told: &Value) -> Result<(), String> {
        match self.expression.holds(told)? {
            true => Ok(()),
            false => Err(format!(
                "validation expression '{}' failed: {}",
                self.expression.text, self.message
            )),
        }
    }
}

/// Signature algorithms that can be verified.
pub const ALGORITHMS: [&str; 9] = [
    "RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512",
];

/// What is wrong with the description of an issuer.
#[derive(Debug, thiserror::Error)]
pub enum IssuerError {
    #[error("OIDC issuer {0:?}: the certificate authority is not a PEM bundle")]
    Authority(String),
    #[error("OIDC issuer {0:?}: not an https URL without query and fragment")]
    Url(String),
    #[error("OIDC issuer {url:?}: unsupported signing algorithm {algorithm:?}")]
    Algorithm { url: String, algorithm: String },
    #[error("OIDC issuer {0:?}: no audience (client id) is given")]
    Audience(String),
    #[error("OIDC issuer {0:?}: no claim is named for the user's name")]
    Username(String),
    #[error("TLS is not usable")]
    Tls(#[source] rustls::Error),
}

type Https = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The keys of an issuer, as they were last read.
#[derive(Default)]
struct Keys {
    /// Empty until the discovery document has been read.
    uri: String,
    keys: Arc<Vec<PublicKey>>,
}

pub struct Provider {
    issuer: Issuer,
    client: Https,
    keys: RwLock<Keys>,
    /// When keys were last asked for.
    asked: Mutex<Option<Instant>>,
}

/// Time for one answer of an issuer.
const ANSWER_TIME: Duration = Duration::from_secs(30);
/// How soon an issuer that could not be reached is asked again.
const AGAIN: Duration = Duration::from_secs(10);
/// Tokens of unknown keys let the keys be read again, but not more often than this: what anybody
/// may send must not become a load on the issuer.
const KEYS_AGAIN: Duration = Duration::from_secs(1);
const ANSWER_LIMIT: usize = 1 << 20;
const NBF_LEEWAY: i64 = 300;

impl Provider {
    pub fn new(issuer: Issuer) -> Result<Provider, IssuerError> {
        let url = issuer.url.clone();
        if !url.starts_with("https://") || url.contains(['?', '#']) {
            return Err(IssuerError::Url(url));
        }
        if let Some(algorithm) = issuer
            .algorithms
            .iter()
            .find(|a| !ALGORITHMS.contains(&a.as_str()))
        {
            let algorithm = algorithm.clone();
            return Err(IssuerError::Algorithm { url, algorithm });
        }
        if issuer.audiences.is_empty() {
            return Err(IssuerError::Audience(url));
        }
        if matches!(&issuer.username, Claim::Named { name, .. } if name.is_empty()) {
            return Err(IssuerError::Username(url));
        }
        Ok(Provider {
            client: client(&issuer)?,
            issuer,
            keys: RwLock::default(),
            asked: Mutex::default(),
        })
    }

    pub fn url(&self) -> &str {
        &self.issuer.url
    }

    /// Reads the issuer's discovery document and keys, again and again until the deadline.
    ///
    /// # Errors
    /// Why they were not there the last time.
    pub async fn ready(&self, deadline: Instant) -> Result<(), String> {
        loop {
            let tried = tokio::time::timeout_at(deadline, self.discover_once()).await;
            let why = match tried {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(why)) => why,
                Err(_) => "no answer in time".to_owned(),
            };
            if Instant::now() + AGAIN > deadline {
                return Err(why);
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    /// Reads the issuer's discovery document and keys, again and again until it is there.
    pub async fn discover(self: Arc<Self>, stop: CancellationToken) {
        loop {
            match self.discover_once().await {
                Ok(()) => return,
                Err(why) => {
                    tracing::warn!(issuer = %self.issuer.url, %why, "OIDC discovery");
                }
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn discover_once(&self) -> Result<(), String> {
        let base = self.issuer.url.trim_end_matches('/');
        let standard = format!("{base}/.well-known/openid-configuration");
        let url = self.issuer.discovery_url.as_ref().unwrap_or(&standard);
        let document = self.get(url).await?;
        let told = object::text(&document, "/issuer");
        if told != self.issuer.url {
            return Err(format!("{url} is the document of another issuer, {told:?}"));
        }
        let uri = object::text(&document, "/jwks_uri").to_owned();
        if uri.is_empty() {
            return Err(format!("{url} names no jwks_uri"));
        }
        let keys = self.read_keys(&uri).await?;
        *self.keys.write() = Keys { uri, keys };
        Ok(())
    }

    async fn read_keys(&self, uri: &str) -> Result<Arc<Vec<PublicKey>>, String> {
        let set = self.get(uri).await?;
        let keys = set.get("keys").and_then(Value::as_array);
        let keys = keys.ok_or_else(|| format!("{uri} is not a JWK set"))?;
        Ok(Arc::new(
            keys.iter().filter_map(PublicKey::from_jwk).collect(),
        ))
    }

    async fn get(&self, url: &str) -> Result<Value, String> {
        let uri: http::Uri = url.parse().map_err(|e| format!("{url}: {e}"))?;
        let fetched = async {
            let answer = self.client.get(uri).await.map_err(|e| full(&e))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT);
            let body = body.collect().await.map_err(|e| e.to_string())?.to_bytes();
            if !status.is_success() {
                return Err(format!("answered with {status}"));
            }
            serde_json::from_slice(&body).map_err(|e| e.to_string())
        };
        match tokio::time::timeout(ANSWER_TIME, fetched).await {
            Ok(result) => result.map_err(|why| format!("{url}: {why}")),
            Err(_) => Err(format!("{url}: no answer in time")),
        }
    }

    /// The user of a token of this issuer. `None` says that the token is of somebody else, an error
    /// what is wrong with it.
    pub async fn authenticate(&self, token: &str) -> Option<Result<UserInfo, String>> {
        let jws = Jws::parse(token)?;
        if jws.text("iss") != self.issuer.url {
            return None;
        }
        if let Err(why) = self.verify(&jws).await {
            return Some(Err(format!("oidc: verify token: {why}")));
        }
        Some(user(&self.issuer, &jws.claims).map_err(|why| format!("oidc: {why}")))
    }

    async fn verify(&self, jws: &Jws<'_>) -> Result<(), String> {
        let ours = &self.issuer.audiences;
        if !jws.audiences().iter().any(|a| ours.contains(a)) {
            return Err("the token is for another audience".to_owned());
        }
        let now = jiff::Timestamp::now().as_second();
        if jws.time("exp").is_none_or(|exp| exp < now) {
            return Err("token is expired".to_owned());
        }
        if jws.time("nbf").is_some_and(|nbf| nbf > now + NBF_LEEWAY) {
            return Err("the token is not valid yet".to_owned());
        }
        if !self.issuer.algorithms.contains(&jws.algorithm) {
            return Err(format!(
                "signed with unsupported algorithm {:?}",
                jws.algorithm
            ));
        }
        let keys = self.keys.read().keys.clone();
        if jws.verified_by(keys.iter()) || self.with_new_keys(jws, &keys).await? {
            return Ok(());
        }
        Err("failed to verify signature".to_owned())
    }

    /// Tries once more with keys that the issuer has now, if they are others.
    async fn with_new_keys(
        &self,
        jws: &Jws<'_>,
        tried: &Arc<Vec<PublicKey>>,
    ) -> Result<bool, String> {
        let uri = self.keys.read().uri.clone();
        if uri.is_empty() {
            return Err("authenticator not initialized".to_owned());
        }
        // Requests that come together wait for one answer.
        let mut asked = self.asked.lock().await;
        let newer = self.keys.read().keys.clone();
        if !Arc::ptr_eq(&newer, tried) && jws.verified_by(newer.iter()) {
            return Ok(true);
        }
        if asked.is_some_and(|at| at.elapsed() < KEYS_AGAIN) {
            return Ok(false);
        }
        *asked = Some(Instant::now());
        let keys = self.read_keys(&uri).await?;
        self.keys.write().keys = keys.clone();
        Ok(jws.verified_by(keys.iter()))
    }
}

/// An error with all that caused it.
pub fn full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

fn client(issuer: &Issuer) -> Result<Https, IssuerError> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(IssuerError::Tls)?;
    let config = match &issuer.ca_pem {
        Some(pem) => {
            let bad = || IssuerError::Authority(issuer.url.clone());
            let mut roots = RootCertStore::empty();
            for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                roots.add(cert.map_err(|_| bad())?).map_err(|_| bad())?;
            }
            if roots.is_empty() {
                return Err(bad());
            }
            builder.with_root_certificates(roots).with_no_client_auth()
        }
        None => {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            for error in &found.errors {
                tracing::warn!(%error, "reading the certificates of this system's authorities");
            }
            roots.add_parsable_certificates(found.certs);
            builder.with_root_certificates(roots).with_no_client_auth()
        }
    };
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// The user that verified claims tell of.
fn user(issuer: &Issuer, claims: &Value) -> Result<UserInfo, String> {
    let mut user = UserInfo {
        name: username(issuer, claims)?,
        ..UserInfo::default()
    };
    if let Some(from) = &issuer.groups {
        user.groups = groups(from, claims)?;
    }
    user.uid = match &issuer.uid {
        None => String::new(),
        Some(Claim::Named { name, .. }) => text(claims, name, "uid")?,
        Some(Claim::Expression(expression)) => expression
            .one(claims, "uid")
            .map_err(|why| format!("error evaluating uid claim expression: {why}"))?,
    };
    if let Some(id) = claims.get("jti").and_then(Value::as_str)
        && !id.is_empty()
    {
        user.extra
            .insert(CREDENTIAL_ID.to_owned(), vec![format!("JTI={id}")]);
    }
    for (key, expression) in &issuer.extra {
        let values = expression.many(claims).map_err(|why| {
            let text = &expression.text;
            format!("error evaluating extra claim expression: {text}: {why}")
        })?;
        if !values.is_empty() {
            user.extra.insert(key.clone(), values);
        }
    }
    for (name, value) in &issuer.required {
        if claims.get(name).is_none() {
            return Err(format!("required claim {name} not present in ID token"));
        }
        if text(claims, name, "required")? != *value {
            return Err(format!("required claim {name} value does not match"));
        }
    }
    for rule in &issuer.claim_rules {
        rule.check(claims)
            .map_err(|why| format!("error evaluating claim validation expression: {why}"))?;
    }
    if !issuer.user_rules.is_empty() {
        let told = json!({
            "username": user.name, "uid": user.uid, "groups": user.groups, "extra": user.extra,
        });
        for rule in &issuer.user_rules {
            rule.check(&told)
                .map_err(|why| format!("error evaluating user info validation rule: {why}"))?;
        }
    }
    Ok(user)
}

fn text(claims: &Value, name: &str, what: &str) -> Result<String, String> {
    match claims.get(name) {
        None => Err(format!("parse {what} claim {name:?}: claim not present")),
        Some(Value::String(text)) => Ok(text.clone()),
        Some(_) => Err(format!("parse {what} claim {name:?}: not a string")),
    }
}

fn username(issuer: &Issuer, claims: &Value) -> Result<String, String> {
    match &issuer.username {
        Claim::Expression(expression) => {
            let name = expression
                .one(claims, "username")
                .map_err(|why| format!("error evaluating username claim expression: {why}"))?;
            if name.is_empty() {
                return Err("empty username via CEL expression is not allowed".to_owned());
            }
            Ok(name)
        }
        Claim::Named { name, prefix } => {
            let value = text(claims, name, "username")?;
            if name == "email"
                && let Some(verified) = claims.get("email_verified")
            {
                match verified {
                    Value::Bool(true) => {}
                    Value::Bool(false) => return Err("email not verified".to_owned()),
                    _ => return Err("parse 'email_verified' claim: not a boolean".to_owned()),
                }
            }
            Ok(format!("{prefix}{value}"))
        }
    }
}

fn groups(from: &Claim, claims: &Value) -> Result<Vec<String>, String> {
    let (name, prefix) = match from {
        Claim::Expression(expression) => {
            return expression
                .many(claims)
                .map_err(|why| format!("error evaluating group claim expression: {why}"));
        }
        Claim::Named { name, prefix } => (name, prefix),
    };
    let Some(value) = claims.get(name) else {
        return Ok(vec![]);
    };
    let names = match value {
        Value::String(one) => vec![one.clone()],
        Value::Null => vec![],
        Value::Array(all) if all.iter().all(Value::is_string) => object::strings(Some(value)),
        _ => return Err(format!("parse groups claim {name:?}: not strings")),
    };
    Ok(names.iter().map(|n| format!("{prefix}{n}")).collect())
}

#[cfg(test)]
mod tests {
    use gantry_machinery::access::About;

    use super::*;
    use crate::authn::keys::{Signer, sign};

    fn issuer() -> Issuer {
        Issuer {
            url: "https://issuer.test".to_owned(),
            audiences: vec!["me".to_owned()],
            algorithms: vec!["ES256".to_owned()],
            username: Claim::Named {
                name: "email".to_owned(),
                prefix: "oidc:".to_owned(),
            },
            groups: Some(Claim::Named {
                name: "roles".to_owned(),
                prefix: "g:".to_owned(),
            }),
            required: [("hd".to_owned(), "x".to_owned())].into(),
            ..Issuer::default()
        }
    }

    fn told(claims: &Value) -> Result<UserInfo, String> {
        let pem = rcgen::KeyPair::generate().expect("a key").serialize_pem();
        let signer = Signer::from_pem(&pem).expect("usable");
        let token = sign(&signer, claims).expect("signed");
        user(&issuer(), &Jws::parse(&token).expect("a token").claims)
    }

    #[test]
    fn claims_tell_the_user() {
        let user = told(&json!({
            "email": "a@b", "email_verified": true, "roles": ["r"], "hd": "x", "jti": "1",
        }))
        .expect("a user");
        assert_eq!(user.name, "oidc:a@b");
        assert_eq!(user.groups, ["g:r"]);
        assert_eq!(user.extra[CREDENTIAL_ID], ["JTI=1"]);
        let one = told(&json!({"email": "a", "roles": "r", "hd": "x"})).expect("a user");
        assert_eq!(one.groups, ["g:r"]);
        for bad in [
            json!({"email": "a", "email_verified": false, "hd": "x"}),
            json!({"email": "a", "email_verified": "true", "hd": "x"}),
            json!({"email": 1, "hd": "x"}),
            json!({"hd": "x"}),
            json!({"email": "a", "hd": "y"}),
            json!({"email": "a"}),
            json!({"email": "a", "roles": [1], "hd": "x"}),
        ] {
            assert!(told(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn expressions_tell_the_user() {
        let compile = |text: &str| Expression::compile(About::Claims, text).expect("compiles");
        let rule = |about, text: &str| Rule {
            expression: Expression::condition(about, text).expect("compiles"),
            message: "no".to_owned(),
        };
        let issuer = Issuer {
            username: Claim::Expression(compile("claims.tenant + ':' + claims.sub")),
            groups: Some(Claim::Expression(compile(
                "claims.realm.roles.map(r, 'g:' + r)",
            ))),
            uid: Some(Claim::Expression(compile("claims.sub"))),
            extra: vec![
                ("x.test/tenant".to_owned(), compile("claims.tenant")),
                (
                    "x.test/none".to_owned(),
                    compile("claims.?none.orValue('')"),
                ),
            ],
            claim_rules: vec![rule(About::Claims, "claims.tenant != 'closed'")],
            user_rules: vec![rule(About::User, "!user.username.startsWith('system:')")],
            ..Issuer::default()
        };
        let claims =
            |tenant: &str| json!({"sub": "ann", "tenant": tenant, "realm": {"roles": ["a"]}});
        let found = user(&issuer, &claims("t")).expect("a user");
        assert_eq!((&*found.name, &*found.uid), ("t:ann", "ann"));
        assert_eq!(found.groups, ["g:a"]);
        assert_eq!(found.extra.len(), 1);
        assert_eq!(found.extra["x.test/tenant"], ["t"]);
        for (tenant, words) in [
            (
                "closed",
                "claim validation expression: validation expression 'claims.tenant != 'closed'' failed: no",
            ),
            ("system", "user info validation rule"),
        ] {
            let said = user(&issuer, &claims(tenant)).expect_err("refused");
            assert!(said.contains(words), "{said}");
        }
        let said = user(&issuer, &json!({"sub": "a"})).expect_err("refused");
        assert!(
            said.starts_with("error evaluating username claim expression"),
            "{said}"
        );
    }

    #[test]
    fn what_cannot_work_is_refused_at_the_start() {
        assert!(Provider::new(issuer()).is_ok());
        for change in [
            |i: &mut Issuer| i.url = "http://x".to_owned(),
            |i: &mut Issuer| i.audiences.clear(),
            |i: &mut Issuer| i.username = Claim::default(),
            |i: &mut Issuer| i.algorithms = vec!["HS256".to_owned()],
            |i: &mut Issuer| i.ca_pem = Some("x".to_owned()),
        ] {
            let mut bad = issuer();
            change(&mut bad);
            assert!(Provider::new(bad).is_err());
        }
    }
}
