//! Who asks: client certificates, static bearer tokens, ServiceAccount tokens, bootstrap tokens,
//! ID tokens of OpenID Connect issuers, front proxies, impersonation.

pub mod accounts;
mod bootstrap;
pub mod certificate;
mod config;
mod front_proxy;
pub mod keys;
pub mod oidc;
mod proven;
mod user;
mod version_1;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use gantry_store::Store;
use parking_lot::RwLock;
use rustc_hash::FxHashMap;
use sha2::{Digest, Sha256};
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use accounts::Accounts;
use certificate::{ClientCertificates, Shown};
use front_proxy::FrontProxy;
use http::HeaderMap;
use keys::{PublicKey, Signer};
use proven::{Proven, Token};

pub use config::parse as parse_config;
pub use front_proxy::FrontProxyConfig;
pub use keys::KeyError;
pub use user::*;

/// Issuer and audience of ServiceAccount tokens where nothing else is configured.
pub const ISSUER: &str = "https://kubernetes.default.svc";

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

/// Where requests without credentials are let on, as `system:anonymous`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Anonymous {
    #[default]
    Always,
    Never,
    /// To these paths alone.
    Paths(Vec<String>),
}

/// How users are known.
#[derive(Debug, Clone)]
pub struct Authentication {
    pub tokens: Vec<StaticToken>,
    pub anonymous: Anonymous,
    /// Bundle of the authorities that sign client certificates, PEM. Where it is not given, the
    /// server's own authority, if it has one.
    pub client_ca: Option<PathBuf>,
    /// The authenticating proxies whose word is taken, if any.
    pub front_proxy: Option<FrontProxyConfig>,
    pub bootstrap_tokens: bool,
    /// `iss` of ServiceAccount tokens; the first that of new ones.
    pub issuers: Vec<String>,
    /// What this API is called as the audience of tokens; the issuers where none is given.
    pub audiences: Vec<String>,
    /// Private key of ServiceAccount tokens, PEM; one is made and kept where it is not given.
    pub account_key: Option<PathBuf>,
    /// Keys that ServiceAccount tokens may be signed with beside that, PEM.
    pub account_keys: Vec<PathBuf>,
    /// Whether tokens of pods are made to live longer than their kubelet asks for.
    pub extend_tokens: bool,
    /// The longest life of a ServiceAccount token, in seconds.
    pub longest_token: Option<i64>,
    /// Where the keys of ServiceAccount tokens are published, if not here.
    pub jwks_uri: Option<String>,
    pub oidc: Vec<oidc::Issuer>,
}

impl Default for Authentication {
    fn default() -> Authentication {
        Authentication {
            tokens: vec![],
            anonymous: Anonymous::Always,
            client_ca: None,
            front_proxy: None,
            bootstrap_tokens: true,
            issuers: vec![ISSUER.to_owned()],
            audiences: vec![],
            account_key: None,
            account_keys: vec![],
            extend_tokens: true,
            longest_token: None,
            jwks_uri: None,
            oidc: vec![],
        }
    }
}

/// Why users cannot be known as configured.
#[derive(Debug, thiserror::Error)]
pub enum AuthenticationError {
    #[error("loading a key of ServiceAccount tokens")]
    Key(#[from] KeyError),
    #[error("reading {path}")]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("using {path}")]
    Bundle {
        path: PathBuf,
        #[source]
        source: certificate::BundleError,
    },
    #[error("configuring OpenID Connect")]
    Oidc(#[from] oidc::IssuerError),
}

/// A token's user and whom it is for, of those that were asked for.
pub struct Authenticated {
    pub user: Arc<UserInfo>,
    pub audiences: Vec<String>,
}

pub struct Authenticator {
    pub accounts: Accounts,
    pub anonymous: Anonymous,
    /// Where the keys of ServiceAccount tokens are said to be.
    pub jwks_uri: Option<String>,
    pub certificates: Option<ClientCertificates>,
    front_proxy: Option<FrontProxy>,
    /// By SHA-256 of the token: looking up a digest tells nothing about how much of a guess was
    /// right, which is what comparing in constant time is for.
    tokens: FxHashMap<Token, Arc<UserInfo>>,
    bootstrap_tokens: bool,
    providers: RwLock<Arc<Providers>>,
}

/// The OpenID Connect issuers whose tokens are taken.
#[derive(Default)]
struct Providers {
    all: Vec<Arc<oidc::Provider>>,
    /// Ends the search for their keys.
    stop: CancellationToken,
}

/// Why the issuers cannot be replaced by these.
#[derive(Debug, thiserror::Error)]
pub enum ReplaceError {
    #[error(transparent)]
    Issuer(#[from] oidc::IssuerError),
    /// May be otherwise later.
    #[error("OIDC issuer {url:?} is not ready: {why}")]
    NotReady { url: String, why: String },
}

fn read(path: &PathBuf) -> Result<String, AuthenticationError> {
    std::fs::read_to_string(path).map_err(|source| AuthenticationError::File {
        path: path.clone(),
        source,
    })
}

impl Authenticator {
    /// `own_key` signs ServiceAccount tokens and `own_ca` client certificates where nothing else
    /// is configured.
    pub fn new(
        config: &Authentication,
        own_key: &str,
        own_ca: Option<&str>,
    ) -> Result<Authenticator, AuthenticationError> {
        let signer = match &config.account_key {
            Some(path) => Signer::from_pem(&read(path)?)?,
            None => Signer::from_pem(own_key)?,
        };
        let mut account_keys = vec![];
        for path in &config.account_keys {
            account_keys.extend(PublicKey::all_from_pem(&read(path)?)?);
        }
        let bundle = |path: &PathBuf, pem: &str| {
            ClientCertificates::new(pem).map_err(|source| AuthenticationError::Bundle {
                path: path.clone(),
                source,
            })
        };
        let certificates = match (&config.client_ca, own_ca) {
            (Some(path), _) => Some(bundle(path, &read(path)?)?),
            (None, Some(pem)) => Some(bundle(&PathBuf::from("ca.crt"), pem)?),
            (None, None) => None,
        };
        let front_proxy = match &config.front_proxy {
            Some(config) => {
                let pem = read(&config.client_ca)?;
                Some(FrontProxy {
                    trusted: bundle(&config.client_ca, &pem)?,
                    config: config.clone(),
                    pem,
                })
            }
            None => None,
        };
        let audiences = if config.audiences.is_empty() {
            config.issuers.clone()
        } else {
            config.audiences.clone()
        };
        let providers = providers(config.oidc.clone())?;
        Ok(Authenticator {
            accounts: Accounts {
                issuers: config.issuers.clone(),
                audiences,
                signer,
                keys: account_keys,
                extend: config.extend_tokens,
                longest: config.longest_token,
                proven: Proven::default(),
            },
            anonymous: config.anonymous.clone(),
            jwks_uri: config.jwks_uri.clone(),
            certificates,
            front_proxy,
            tokens: config.tokens.iter().map(digested).collect(),
            bootstrap_tokens: config.bootstrap_tokens,
            providers: RwLock::new(Arc::new(Providers {
                all: providers,
                stop: CancellationToken::new(),
            })),
        })
    }

    /// Starts to read the keys of OpenID Connect issuers.
    pub fn start(&self, tasks: &TaskTracker, stop: &CancellationToken) {
        let mut now = self.providers.write();
        let stop = stop.child_token();
        for provider in &now.all {
            tasks.spawn(provider.clone().discover(stop.clone()));
        }
        *now = Arc::new(Providers {
            all: now.all.clone(),
            stop,
        });
    }

    /// Takes the tokens of these OpenID Connect issuers from now on, and of no others, once the keys of
    /// all are there.
    ///
    /// # Errors
    /// An issuer is described wrongly, or its keys are not there in time: the tokens of those from before
    /// are taken on.
    pub async fn replace(
        &self,
        issuers: Vec<oidc::Issuer>,
        patience: Duration,
    ) -> Result<(), ReplaceError> {
        let all = providers(issuers)?;
        let deadline = Instant::now() + patience;
        for provider in &all {
            provider
                .ready(deadline)
                .await
                .map_err(|why| ReplaceError::NotReady {
                    url: provider.url().to_owned(),
                    why,
                })?;
        }
        let stop = CancellationToken::new();
        let before = std::mem::replace(
            &mut *self.providers.write(),
            Arc::new(Providers { all, stop }),
        );
        before.stop.cancel();
        Ok(())
    }

    /// Whose certificates the TLS handshake asks for: users', where they are known by any.
    pub fn asked_for(&self) -> Option<&ClientCertificates> {
        let proxies = self.front_proxy.as_ref().map(|p| &p.trusted);
        self.certificates.as_ref().or(proxies)
    }

    /// The front proxies that are believed, and the bundle of their authorities.
    pub fn front_proxy(&self) -> Option<(&FrontProxyConfig, &str)> {
        let proxy = self.front_proxy.as_ref()?;
        Some((&proxy.config, &proxy.pem))
    }

    /// The user that a front proxy names.
    pub fn proxied(&self, shown: &Shown, headers: &HeaderMap) -> Option<Arc<UserInfo>> {
        let proxy = self.front_proxy.as_ref()?;
        proxy.user(shown, headers).map(Arc::new)
    }

    /// The user of a client certificate.
    pub fn certificate(&self, shown: &Shown) -> Option<Arc<UserInfo>> {
        shown.user(self.certificates.as_ref()?)
    }

    /// The user of a token that is for one of these audiences, or why it is not valid. Without any,
    /// it must be for this API.
    pub async fn token(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
    ) -> Result<Authenticated, String> {
        let here = &self.accounts.audiences;
        let wanted = if audiences.is_empty() {
            here
        } else {
            audiences
        };
        // What is for nobody in particular is for this API.
        let ours = || -> Vec<String> {
            let common = here.iter().filter(|a| wanted.contains(a));
            common.cloned().collect()
        };
        let wrong = || "invalid bearer token".to_owned();
        let answer = |user: Arc<UserInfo>, audiences: Vec<String>| {
            if audiences.is_empty() {
                return Err(wrong());
            }
            Ok(Authenticated { user, audiences })
        };
        let known = |user: UserInfo| Arc::new(user.authenticated());
        let digest: Token = Sha256::digest(token.as_bytes()).into();
        if let Some(user) = self.tokens.get(&digest) {
            return answer(user.clone(), ours());
        }
        if let Some(valid) = self.accounts.verify(store, token, &digest) {
            if let Some(stale) = &valid.stale {
                tracing::info!(%stale, "a ServiceAccount token should have been renewed");
            }
            let common = if valid.audiences.is_empty() {
                ours()
            } else {
                let common = valid.audiences.iter().filter(|a| wanted.contains(a));
                common.cloned().collect()
            };
            return answer(known(valid.user), common);
        }
        if self.bootstrap_tokens
            && let Some(user) = bootstrap::authenticate(store, token)
        {
            return answer(known(user), ours());
        }
        let providers = self.providers.read().clone();
        for provider in &providers.all {
            match provider.authenticate(token).await {
                None => {}
                Some(Ok(user)) => return answer(known(user), ours()),
                Some(Err(why)) => {
                    tracing::debug!(%why, "a token is refused");
                    return Err(format!("[{}, {why}]", wrong()));
                }
            }
        }
        Err(wrong())
    }

    /// Whether an audience is what this API is called.
    pub fn is_here(&self, audience: &str) -> bool {
        self.accounts.audiences.iter().any(|a| a == audience)
    }

    /// Whether a request without credentials may go on to this path.
    pub fn lets_on(&self, path: &str) -> bool {
        match &self.anonymous {
            Anonymous::Always => true,
            Anonymous::Never => false,
            Anonymous::Paths(paths) => paths.iter().any(|p| p == path),
        }
    }
}

fn providers(issuers: Vec<oidc::Issuer>) -> Result<Vec<Arc<oidc::Provider>>, oidc::IssuerError> {
    let made = issuers.into_iter().map(oidc::Provider::new);
    made.map(|p| p.map(Arc::new)).collect()
}

fn digested(token: &StaticToken) -> (Token, Arc<UserInfo>) {
    let user = UserInfo {
        name: token.user.clone(),
        uid: token.uid.clone(),
        groups: token.groups.clone(),
        extra: BTreeMap::new(),
    };
    (
        Sha256::digest(token.token.as_bytes()).into(),
        Arc::new(user.authenticated()),
    )
}
