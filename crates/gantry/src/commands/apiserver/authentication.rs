//! The flags about who asks, and what they say of the server.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{ArgAction, Args};
use gantry_apiserver::{
    Anonymous, Authentication, ConfigFile, FrontProxyConfig, OIDC_ALGORITHMS, OidcClaim,
    OidcIssuer, parse_authentication_config,
};

use super::{tokens, values};
use crate::failure::{Exit, Failure, Result};

#[derive(Debug, Args)]
#[command(next_help_heading = "Authentication")]
pub struct AuthenticationFlags {
    /// Bearer tokens that are valid as long as the server runs: lines of token,user,uid,"group,group"
    #[arg(long, value_name = "FILE")]
    token_auth_file: Option<PathBuf>,
    /// Authorities of client certificates, PEM: the common name is the user, the organizations are
    /// its groups [default: the authority of --cert-dir, where it was made there]
    #[arg(long, value_name = "FILE")]
    client_ca_file: Option<PathBuf>,
    /// Authorities of authenticating proxies, PEM: who shows a certificate of theirs names the user in
    /// the headers below
    #[arg(long, value_name = "FILE")]
    requestheader_client_ca_file: Option<PathBuf>,
    /// Common names of these proxies [default: any that the authorities have signed]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    requestheader_allowed_names: Vec<String>,
    /// Headers that hold the user's name, such as X-Remote-User
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    requestheader_username_headers: Vec<String>,
    /// Headers that hold the user's uid, such as X-Remote-Uid
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    requestheader_uid_headers: Vec<String>,
    /// Headers that hold the user's groups, such as X-Remote-Group
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    requestheader_group_headers: Vec<String>,
    /// What the names of headers with more about the user begin with, such as X-Remote-Extra-
    #[arg(long, value_name = "PREFIXES", value_delimiter = ',', action = ArgAction::Append)]
    requestheader_extra_headers_prefix: Vec<String>,
    /// Let requests without credentials on, as system:anonymous [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = values::boolean)]
    anonymous_auth: Option<bool>,
    /// Know nodes that join by the tokens in Secrets of type bootstrap.kubernetes.io/token
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "false", default_missing_value = "true", value_parser = values::boolean)]
    enable_bootstrap_token_auth: bool,
    /// What this API is called as the audience of tokens [default: the issuers]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append)]
    api_audiences: Vec<String>,
    /// Issuers of ServiceAccount tokens, the first that of new ones [default:
    /// https://kubernetes.default.svc]
    #[arg(long, value_name = "URL", action = ArgAction::Append)]
    service_account_issuer: Vec<String>,
    /// Private key that signs ServiceAccount tokens, RSA or ECDSA, PEM
    #[arg(long, value_name = "FILE")]
    service_account_signing_key_file: Option<PathBuf>,
    /// Keys that ServiceAccount tokens may be signed with, PEM
    #[arg(long, value_name = "FILE", action = ArgAction::Append)]
    service_account_key_file: Vec<PathBuf>,
    /// The longest life of a ServiceAccount token; 0 is without limit
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = values::duration)]
    service_account_max_token_expiration: Duration,
    /// Make the tokens of pods live longer than their kubelets ask for
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_value = "true", default_missing_value = "true", value_parser = values::boolean)]
    service_account_extend_token_expiration: bool,
    /// Where the keys of ServiceAccount tokens are published, where that is not this server
    #[arg(long, value_name = "URL")]
    service_account_jwks_uri: Option<String>,
    /// An AuthenticationConfiguration: OpenID Connect issuers, what CEL makes of their claims, and
    /// anonymous requests. Read again when it changes
    #[arg(long, value_name = "FILE")]
    authentication_config: Option<PathBuf>,
    /// An OpenID Connect issuer whose ID tokens are taken
    #[arg(long, value_name = "URL")]
    oidc_issuer_url: Option<String>,
    /// The client that its ID tokens must be for
    #[arg(long, value_name = "ID")]
    oidc_client_id: Option<String>,
    /// The authorities that its server is known by, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    oidc_ca_file: Option<PathBuf>,
    /// The claim that is the user's name
    #[arg(long, value_name = "CLAIM", default_value = "sub")]
    oidc_username_claim: String,
    /// What is put before the user's name; - is nothing [default: the issuer and #, nothing for
    /// email]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    oidc_username_prefix: Option<String>,
    /// The claim that holds the user's groups
    #[arg(long, value_name = "CLAIM")]
    oidc_groups_claim: Option<String>,
    /// What is put before the names of groups
    #[arg(long, value_name = "TEXT")]
    oidc_groups_prefix: Option<String>,
    /// A claim that an ID token must have, with its value
    #[arg(long, value_name = "CLAIM=VALUE", value_delimiter = ',', action = ArgAction::Append)]
    oidc_required_claim: Vec<String>,
    /// Signature algorithms that are taken [default: RS256]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', action = ArgAction::Append, value_parser = OIDC_ALGORITHMS)]
    oidc_signing_algs: Vec<String>,
}

fn read(flag: &str, path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|e| {
        Failure::new(
            Exit::Failure,
            format!("{flag}: cannot read {}: {e}", path.display()),
        )
    })
}

/// An AuthenticationConfiguration's file, and what it says of anonymous requests.
type Watched = Option<(ConfigFile, Option<Anonymous>)>;

impl AuthenticationFlags {
    /// How users are known, and the file of it that is to be followed.
    pub fn config(&self) -> Result<(Authentication, Watched)> {
        let default = Authentication::default();
        let mut anonymous = match self.anonymous_auth {
            Some(false) => Anonymous::Never,
            _ => Anonymous::Always,
        };
        let mut oidc: Vec<OidcIssuer> = self.issuer()?.into_iter().collect();
        let mut watched = None;
        if let Some(path) = &self.authentication_config {
            let flag = "--authentication-config";
            if !oidc.is_empty() {
                return Err(Failure::usage(format!(
                    "{flag} and --oidc-* flags are mutually exclusive"
                )));
            }
            let own = match self.service_account_issuer.is_empty() {
                true => &default.issuers,
                false => &self.service_account_issuer,
            };
            let text = read(flag, path)?;
            let (issuers, who) = parse_authentication_config(&text, own)
                .map_err(|why| Failure::usage(format!("{flag}: {}: {why}", path.display())))?;
            oidc = issuers;
            watched = Some((ConfigFile::new(path, &text), who.clone()));
            if let Some(who) = who {
                if self.anonymous_auth.is_some() {
                    return Err(Failure::usage(
                        "--anonymous-auth cannot be set together with `anonymous` of --authentication-config",
                    ));
                }
                anonymous = who;
            }
        }
        let longest =
            i64::try_from(self.service_account_max_token_expiration.as_secs()).unwrap_or(i64::MAX);
        if longest != 0 && !(3600..=1 << 32).contains(&longest) {
            return Err(Failure::usage(
                "--service-account-max-token-expiration must lie between 1 hour and 2^32 seconds",
            ));
        }
        let authentication = Authentication {
            tokens: match &self.token_auth_file {
                Some(file) => tokens::read(file)?,
                None => vec![],
            },
            anonymous,
            client_ca: self.client_ca_file.clone(),
            front_proxy: self.front_proxy()?,
            bootstrap_tokens: self.enable_bootstrap_token_auth,
            issuers: if self.service_account_issuer.is_empty() {
                default.issuers
            } else {
                self.service_account_issuer.clone()
            },
            audiences: self.api_audiences.clone(),
            account_key: self.service_account_signing_key_file.clone(),
            account_keys: self.service_account_key_file.clone(),
            extend_tokens: self.service_account_extend_token_expiration,
            longest_token: Some(longest).filter(|l| *l != 0),
            jwks_uri: self.service_account_jwks_uri.clone(),
            oidc,
        };
        Ok((authentication, watched))
    }

    /// The proxies of the `--requestheader-*` flags.
    fn front_proxy(&self) -> Result<Option<FrontProxyConfig>> {
        let Some(file) = &self.requestheader_client_ca_file else {
            return Ok(None);
        };
        let lists = [
            ("username-headers", &self.requestheader_username_headers),
            ("uid-headers", &self.requestheader_uid_headers),
            ("group-headers", &self.requestheader_group_headers),
            (
                "extra-headers-prefix",
                &self.requestheader_extra_headers_prefix,
            ),
        ];
        for (flag, names) in lists {
            let token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
            if let Some(bad) = names.iter().find(|n| n.is_empty() || !n.chars().all(token)) {
                return Err(Failure::usage(format!(
                    "--requestheader-{flag}: {bad:?} cannot be the name of a header"
                )));
            }
        }
        if self.requestheader_username_headers.is_empty() {
            return Err(Failure::usage(
                "--requestheader-client-ca-file needs --requestheader-username-headers: without a header that names the user no proxy can name one",
            ));
        }
        Ok(Some(FrontProxyConfig {
            client_ca: file.clone(),
            allowed_names: self.requestheader_allowed_names.clone(),
            user_headers: self.requestheader_username_headers.clone(),
            uid_headers: self.requestheader_uid_headers.clone(),
            group_headers: self.requestheader_group_headers.clone(),
            extra_prefixes: self.requestheader_extra_headers_prefix.clone(),
        }))
    }

    /// The issuer of the `--oidc-*` flags.
    fn issuer(&self) -> Result<Option<OidcIssuer>> {
        let (url, client) = match (&self.oidc_issuer_url, &self.oidc_client_id) {
            (Some(url), Some(client)) => (url.clone(), client.clone()),
            (None, None) => return Ok(None),
            _ => {
                return Err(Failure::usage(
                    "--oidc-issuer-url and --oidc-client-id must be specified together",
                ));
            }
        };
        let prefix = match self.oidc_username_prefix.as_deref() {
            Some("-") => String::new(),
            Some(prefix) if !prefix.is_empty() => prefix.to_owned(),
            // Names of other issuers' users must not become those of users here.
            _ if self.oidc_username_claim == "email" => String::new(),
            _ => format!("{url}#"),
        };
        let ca_pem = match &self.oidc_ca_file {
            Some(path) => Some(read("--oidc-ca-file", path)?),
            None => None,
        };
        let required = self.oidc_required_claim.iter().map(|pair| {
            let (claim, value) = pair.split_once('=').ok_or_else(|| {
                Failure::usage(format!("--oidc-required-claim {pair:?} is not CLAIM=VALUE"))
            })?;
            Ok((claim.to_owned(), value.to_owned()))
        });
        Ok(Some(OidcIssuer {
            url,
            discovery_url: None,
            ca_pem,
            audiences: vec![client],
            algorithms: if self.oidc_signing_algs.is_empty() {
                vec!["RS256".to_owned()]
            } else {
                self.oidc_signing_algs.clone()
            },
            username: OidcClaim::Named {
                name: self.oidc_username_claim.clone(),
                prefix,
            },
            groups: self
                .oidc_groups_claim
                .as_ref()
                .map(|name| OidcClaim::Named {
                    name: name.clone(),
                    prefix: self.oidc_groups_prefix.clone().unwrap_or_default(),
                }),
            required: required.collect::<Result<_>>()?,
            ..OidcIssuer::default()
        }))
    }
}
