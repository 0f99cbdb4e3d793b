//! Logging in with OpenID Connect: authorization code with PKCE (RFC 7636), from discovery to the ID token,
//! which is then the user's credential at the hub.
//!
//! Who the token is of is the hub's to say: its API server verifies the signature with the issuer's published
//! keys, as it does for kubectl, and the session begins with what it answers. Here is checked what only the
//! one who asked can know: that the answer belongs to this browser (`state`, bound by a cookie), that the
//! token belongs to this login (`nonce`), and that it was made by this issuer for this client. It comes from
//! the issuer itself over TLS (OpenID Connect Core 3.1.3.7).

mod check;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use parking_lot::Mutex;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde_json::Value;

use crate::{credential::Credential, error::Fail, session::random, view::Params};

use check::{Document, Of, basic, challenge, check, claims, discovered};

/// Name of the cookie that binds a login to the browser that began it.
pub const COOKIE: &str = "__Host-gantry-login";
/// Path that the issuer sends browsers back to.
pub const CALLBACK: &str = "/login/oidc/callback";

/// How long someone may take to log in at the issuer.
const PATIENCE: Duration = Duration::from_secs(600);
/// Logins that are under way at once; the oldest gives way.
const PENDING: usize = 1000;
/// How long a discovery document is good for.
const FRESH: Duration = Duration::from_secs(3600);
/// Time for one answer of the issuer.
const ANSWER: Duration = Duration::from_secs(15);
const ANSWER_LIMIT: usize = 1 << 20;
/// How long before its end an ID token is renewed at the earliest: of short ones in their last quarter.
const EARLY: Duration = Duration::from_secs(60);

/// An issuer, and this console as its client.
#[derive(Clone, Debug)]
pub struct Options {
    /// URL of the issuer, as the hub's API server trusts it too.
    pub issuer: String,
    /// What the console is called there.
    pub client_id: String,
    /// Its secret, where it has one: with PKCE it needs none.
    pub client_secret: Option<String>,
    /// The authorities that the issuer's server is known by, PEM; those of the system where not given.
    pub ca_pem: Option<String>,
    /// Scopes beside `openid`.
    pub scopes: Vec<String>,
    /// URL under which browsers reach the console, without a path; what they call it where not given.
    pub url: Option<String>,
}

/// Why an issuer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is no https URL.
    #[error("OIDC issuer {0:?}: an https URL without query and fragment is needed")]
    Issuer(String),
    /// The authorities cannot be read.
    #[error("OIDC issuer: its certificate authorities are no PEM bundle")]
    Authority,
    /// TLS cannot be set up.
    #[error("TLS is not usable")]
    Tls(#[source] rustls::Error),
}

/// Someone who has logged in.
#[derive(Clone)]
pub struct Entered {
    /// What shows it to the hub: the ID token.
    pub credential: Credential,
    /// Who the issuer says it is.
    subject: String,
    /// What gives a new ID token, where the issuer gave it.
    refresh: Option<String>,
    /// How long the ID token is good for.
    life: Duration,
}

impl Entered {
    /// When its ID token is to be renewed, and when it has expired, of one that came at an instant.
    pub fn due(&self, born: Instant) -> (Instant, Instant) {
        let early = (self.life / 4).min(EARLY);
        (born + self.life - early, born + self.life)
    }
}

/// A login that is under way.
#[derive(Clone, Debug)]
struct Pending {
    verifier: String,
    nonce: String,
    next: String,
    redirect: String,
    begun: Instant,
}

/// The issuer, as the console knows it.
pub struct Provider {
    options: Options,
    http: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    document: Mutex<Option<(Document, Instant)>>,
    pending: Mutex<HashMap<String, Pending>>,
}

impl Provider {
    /// Of options.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn new(options: Options) -> Result<Self, Error> {
        if !options.issuer.starts_with("https://") || options.issuer.contains(['?', '#']) {
            return Err(Error::Issuer(options.issuer));
        }
        let mut roots = RootCertStore::empty();
        match &options.ca_pem {
            Some(pem) => {
                for cert in CertificateDer::pem_slice_iter(pem.as_bytes()) {
                    let cert = cert.map_err(|_| Error::Authority)?;
                    roots.add(cert).map_err(|_| Error::Authority)?;
                }
                if roots.is_empty() {
                    return Err(Error::Authority);
                }
            }
            None => {
                let found = rustls_native_certs::load_native_certs();
                roots.add_parsable_certificates(found.certs);
            }
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(Error::Tls)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_only()
            .enable_http1()
            .build();
        Ok(Self {
            options,
            http: Client::builder(TokioExecutor::new()).build(connector),
            document: Mutex::default(),
            pending: Mutex::default(),
        })
    }

    /// The host of the issuer: what the button says.
    pub fn host(&self) -> &str {
        let rest = self.options.issuer.trim_start_matches("https://");
        rest.split(['/', ':']).next().unwrap_or(rest)
    }

    async fn document(&self) -> Result<Document, Fail> {
        if let Some((document, at)) = &*self.document.lock()
            && at.elapsed() < FRESH
        {
            return Ok(document.clone());
        }
        let base = self.options.issuer.trim_end_matches('/');
        let url = format!("{base}/.well-known/openid-configuration");
        let request = Request::get(&url).body(Full::default());
        let told = self.ask(request).await?;
        let document = discovered(&told, &self.options.issuer)?;
        *self.document.lock() = Some((document.clone(), Instant::now()));
        Ok(document)
    }

    async fn ask(&self, request: Result<Request<Full<Bytes>>, http::Error>) -> Result<Value, Fail> {
        let bad = |why: String| Fail::Upstream(format!("the identity provider: {why}"));
        let request = request.map_err(|e| bad(e.to_string()))?;
        let exchange = async {
            let answer = self.http.request(request).await;
            let answer = answer.map_err(|e| bad(crate::error::root(&e)))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), ANSWER_LIMIT);
            let body = body.collect().await.map_err(|e| bad(e.to_string()))?;
            let value: Value = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
            if status.is_success() {
                return Ok(value);
            }
            let said = value["error_description"]
                .as_str()
                .or(value["error"].as_str())
                .unwrap_or_default();
            Err(bad(format!("{status} {said}")))
        };
        tokio::time::timeout(ANSWER, exchange)
            .await
            .map_err(|_| bad("no answer in time".to_owned()))?
    }

    /// Begins a login: where to send the browser, and the cookie's value. `host` is what the browser calls
    /// this console, `next` where it wants to go.
    ///
    /// # Errors
    /// If the issuer does not answer.
    pub async fn begin(&self, host: &str, next: &str) -> Result<(String, String), Fail> {
        let document = self.document().await?;
        let redirect = match &self.options.url {
            Some(url) => format!("{}{CALLBACK}", url.trim_end_matches('/')),
            None => format!("https://{host}{CALLBACK}"),
        };
        let (state, nonce, verifier) = (random()?, random()?, random()?);
        let mut scope = vec!["openid"];
        scope.extend(self.options.scopes.iter().map(String::as_str));
        let query = form_urlencoded::Serializer::new(String::new())
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.options.client_id)
            .append_pair("redirect_uri", &redirect)
            .append_pair("scope", &scope.join(" "))
            .append_pair("state", &state)
            .append_pair("nonce", &nonce)
            .append_pair("code_challenge", &challenge(&verifier))
            .append_pair("code_challenge_method", "S256")
            .finish();
        let join = if document.authorize.contains('?') {
            '&'
        } else {
            '?'
        };
        let place = format!("{}{join}{query}", document.authorize);
        let begun = Pending {
            verifier,
            nonce,
            next: next.to_owned(),
            redirect,
            begun: Instant::now(),
        };
        self.keep(state.clone(), begun);
        Ok((place, state))
    }

    fn keep(&self, state: String, begun: Pending) {
        let mut pending = self.pending.lock();
        pending.retain(|_, p| p.begun.elapsed() < PATIENCE);
        if pending.len() >= PENDING {
            let oldest = pending.iter().min_by_key(|(_, p)| p.begun);
            if let Some(oldest) = oldest.map(|(s, _)| s.clone()) {
                pending.remove(&oldest);
            }
        }
        pending.insert(state, begun);
    }

    /// Ends a login with what the issuer sent the browser back with: who it is of, and where to go.
    ///
    /// # Errors
    /// If it is not this browser's login, or the issuer refuses it.
    pub async fn finish(&self, cookie: &str, params: &Params) -> Result<(Entered, String), Fail> {
        let state = params.get("state");
        if state.is_empty() || !crate::session::same(state, cookie) {
            return Err(Fail::Forbidden(
                "this login was not begun by this browser; begin anew".to_owned(),
            ));
        }
        let begun = self.pending.lock().remove(state);
        let begun = begun
            .filter(|p| p.begun.elapsed() < PATIENCE)
            .ok_or_else(|| Fail::Forbidden("this login took too long; begin anew".to_owned()))?;
        if !params.get("error").is_empty() {
            let why = match params.get("error_description") {
                "" => params.get("error"),
                why => why,
            };
            return Err(Fail::Forbidden(format!("the identity provider: {why}")));
        }
        let document = self.document().await?;
        let told = self.ask(self.exchange(&document, &begun, params)).await?;
        let entered = self.entered(&told, &Of::Login(&begun.nonce))?;
        Ok((entered, begun.next))
    }

    /// A new ID token for one that is about to expire.
    ///
    /// # Errors
    /// If the issuer renews nothing (any more), or does not answer.
    pub async fn renew(&self, old: &Entered) -> Result<Entered, Fail> {
        let refresh = old.refresh.as_deref().ok_or(Fail::Login)?;
        let document = self.document().await?;
        let fields = [("grant_type", "refresh_token"), ("refresh_token", refresh)];
        let told = self.ask(self.posted(&document, &fields)).await?;
        let mut entered = self.entered(&told, &Of::Renewal(&old.subject))?;
        // Not all issuers give a new one each time.
        entered.refresh = entered.refresh.or_else(|| old.refresh.clone());
        Ok(entered)
    }

    /// Who an answer of the token endpoint is of.
    fn entered(&self, told: &Value, of: &Of<'_>) -> Result<Entered, Fail> {
        let token = told["id_token"].as_str().unwrap_or_default();
        let claims = claims(token)
            .ok_or_else(|| Fail::Upstream("the identity provider gave no ID token".to_owned()))?;
        let now = Timestamp::now().as_second();
        let expires = check(&claims, &self.options, of, now).map_err(Fail::Forbidden)?;
        let left = u64::try_from(expires - now).unwrap_or(0);
        Ok(Entered {
            credential: Credential::Token(token.to_owned()),
            subject: claims["sub"].as_str().unwrap_or_default().to_owned(),
            refresh: told["refresh_token"].as_str().map(str::to_owned),
            life: Duration::from_secs(left),
        })
    }

    /// The request that gives a code for a token.
    fn exchange(
        &self,
        document: &Document,
        begun: &Pending,
        params: &Params,
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let fields = [
            ("grant_type", "authorization_code"),
            ("code", params.get("code")),
            ("redirect_uri", &begun.redirect),
            ("code_verifier", &begun.verifier),
        ];
        self.posted(document, &fields)
    }

    /// A form for the token endpoint, with what shows that it is this client's.
    fn posted(
        &self,
        document: &Document,
        fields: &[(&str, &str)],
    ) -> Result<Request<Full<Bytes>>, http::Error> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.extend_pairs(fields)
            .append_pair("client_id", &self.options.client_id);
        let mut request = Request::post(&document.token)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(header::ACCEPT, "application/json");
        match &self.options.client_secret {
            Some(secret) if document.basic => {
                request = request.header(
                    header::AUTHORIZATION,
                    basic(&self.options.client_id, secret),
                );
            }
            Some(secret) => {
                form.append_pair("client_secret", secret);
            }
            None => {}
        }
        request.body(Full::new(Bytes::from(form.finish())))
    }
}

/// The cookie that binds a login to the browser. It has to come along when the issuer sends the browser back
/// from its own site, which `Lax` allows and `Strict` does not.
pub fn set_cookie(state: &str) -> String {
    format!("{COOKIE}={state}; Path=/; Max-Age=600; Secure; HttpOnly; SameSite=Lax")
}

/// The cookie that takes it away.
pub fn clear_cookie() -> String {
    format!("{COOKIE}=; Path=/; Max-Age=0; Secure; HttpOnly; SameSite=Lax")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_issuer_is_reached_by_tls() {
        assert!(matches!(
            Provider::new(Options {
                issuer: "http://id.test".to_owned(),
                ..options()
            }),
            Err(Error::Issuer(_))
        ));
    }

    pub fn options() -> Options {
        Options {
            issuer: "https://id.test".to_owned(),
            client_id: "gantry".to_owned(),
            client_secret: None,
            ca_pem: None,
            scopes: vec!["email".to_owned()],
            url: None,
        }
    }

    #[tokio::test]
    async fn a_login_ends_in_the_browser_that_began_it_and_once() {
        let provider = Provider::new(Options {
            ca_pem: Some(authority()),
            ..options()
        })
        .unwrap();
        let pending = Pending {
            verifier: "v".to_owned(),
            nonce: "n".to_owned(),
            next: "/".to_owned(),
            redirect: "https://c.test".to_owned(),
            begun: Instant::now(),
        };
        provider.keep("s".to_owned(), pending.clone());
        let params = Params::parse("state=s&error=access_denied");
        for cookie in ["", "other"] {
            let end = provider.finish(cookie, &params).await;
            assert!(matches!(end, Err(Fail::Forbidden(_))), "{cookie:?}");
        }
        let Err(Fail::Forbidden(why)) = provider.finish("s", &params).await else {
            panic!("it ended well");
        };
        assert_eq!(why, "the identity provider: access_denied");
        let Err(Fail::Forbidden(why)) = provider.finish("s", &params).await else {
            panic!("it ended twice");
        };
        assert!(why.contains("begin anew"));
        for n in 0..PENDING + 5 {
            provider.keep(n.to_string(), pending.clone());
        }
        assert_eq!(provider.pending.lock().len(), PENDING);
    }

    fn authority() -> String {
        let params = rcgen::CertificateParams::new(vec!["id.test".to_owned()]).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().pem()
    }
}
