//! What a person shows to log in, and the client that acts with it.
//!
//! A token, a client certificate with its key, or a kubeconfig that holds one of these is taken as text.
//! Whatever in a kubeconfig would run a program, read a file or name another server is not: the text
//! comes from a browser, and the server is always the hub.

use base64::Engine as _;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, UserInfo};
use kube::{
    Api, Client, Config,
    api::PostParams,
    config::{AuthInfo, Kubeconfig},
};

use crate::error::Fail;

/// A kubeconfig of a whole company is smaller.
pub const LONGEST: usize = 256 * 1024;

/// What shows who one is. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// A bearer token.
    Token(String),
    /// A client certificate and its private key, PEM.
    Certificate(String, String),
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Token(_) => "Token",
            Self::Certificate(..) => "Certificate",
        })
    }
}

impl Credential {
    /// Reads what was pasted.
    ///
    /// # Errors
    /// What to paste instead.
    pub fn read(text: &str) -> Result<Self, Fail> {
        let text = text.trim();
        let bad = |what: &str| Err(Fail::Bad(what.to_owned()));
        if text.is_empty() || text.len() > LONGEST {
            return bad("paste a token, a client certificate with its key, or a kubeconfig");
        }
        if text.contains("-----BEGIN") && !text.contains("apiVersion") {
            return certificate(text);
        }
        if text.lines().count() == 1 && !text.contains(char::is_whitespace) {
            return Ok(Self::Token(text.to_owned()));
        }
        match Kubeconfig::from_yaml(text) {
            Ok(kubeconfig) => of_kubeconfig(&kubeconfig),
            Err(_) => bad("this is neither a token nor PEM nor a kubeconfig"),
        }
    }

    /// What authenticates with it; nothing of `hub`'s own.
    pub fn auth(&self) -> AuthInfo {
        let engine = base64::engine::general_purpose::STANDARD;
        match self {
            Self::Token(token) => AuthInfo {
                token: Some(token.clone().into()),
                ..AuthInfo::default()
            },
            Self::Certificate(cert, key) => AuthInfo {
                client_certificate_data: Some(engine.encode(cert)),
                client_key_data: Some(engine.encode(key).into()),
                ..AuthInfo::default()
            },
        }
    }

    /// A client of the hub that acts with it.
    ///
    /// # Errors
    /// If it is of no use, as a key that does not belong to its certificate.
    pub fn client(&self, hub: &Config) -> Result<Client, Fail> {
        let mut config = hub.clone();
        config.auth_info = self.auth();
        config.headers.clear();
        Client::try_from(config)
            .map_err(|_| Fail::Bad("this certificate and key cannot be used".to_owned()))
    }
}

fn certificate(text: &str) -> Result<Credential, Fail> {
    let mut certs = String::new();
    let mut key = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("-----BEGIN ") {
        let block = &rest[start..];
        let label_end = block[11..].find("-----").map_or(block.len(), |n| 11 + n);
        let label = &block[11..label_end];
        let mark = format!("-----END {label}-----");
        let Some(end) = block.find(&mark).map(|n| n + mark.len()) else {
            break;
        };
        if label == "CERTIFICATE" {
            certs.push_str(&block[..end]);
            certs.push('\n');
        } else if label.ends_with("PRIVATE KEY") && key.is_empty() {
            key = format!("{}\n", &block[..end]);
        }
        rest = &block[end..];
    }
    if certs.is_empty() || key.is_empty() {
        return Err(Fail::Bad(
            "a client certificate needs its private key: paste both PEM blocks".to_owned(),
        ));
    }
    Ok(Credential::Certificate(certs, key))
}

/// The credential of the current context's user.
fn of_kubeconfig(kubeconfig: &Kubeconfig) -> Result<Credential, Fail> {
    let bad = |what: &str| Fail::Bad(what.to_owned());
    let current = kubeconfig.current_context.as_deref();
    let context = kubeconfig
        .contexts
        .iter()
        .find(|c| Some(c.name.as_str()) == current);
    let context = context
        .or(kubeconfig.contexts.first())
        .and_then(|c| c.context.as_ref());
    let user = context.and_then(|c| c.user.as_deref());
    let auth = kubeconfig
        .auth_infos
        .iter()
        .find(|a| Some(a.name.as_str()) == user)
        .and_then(|a| a.auth_info.as_ref())
        .ok_or_else(|| bad("the kubeconfig's current context names no user"))?;
    // Read as JSON: secrets have no other way out.
    let auth = serde_json::to_value(auth).map_err(|_| bad("the kubeconfig cannot be read"))?;
    let field = |name: &str| {
        auth[name]
            .as_str()
            .filter(|t| !t.is_empty())
            .map(str::to_owned)
    };
    if let Some(token) = field("token") {
        return Ok(Credential::Token(token));
    }
    let engine = base64::engine::general_purpose::STANDARD;
    let pem = |name: &str| {
        let bytes = engine.decode(field(name)?).ok()?;
        String::from_utf8(bytes).ok()
    };
    if let (Some(cert), Some(key)) = (pem("client-certificate-data"), pem("client-key-data")) {
        return certificate(&format!("{cert}\n{key}"));
    }
    Err(bad(
        "the kubeconfig's user has neither a token nor client-certificate-data: files and exec plugins \
         of your machine cannot be used here; try `kubectl config view --raw --flatten --minify`, or paste a token",
    ))
}

/// Who the hub says this is.
///
/// # Errors
/// If it knows nobody by it.
pub async fn who(client: &Client) -> Result<UserInfo, Fail> {
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await?;
    let user = review.status.and_then(|s| s.user_info).unwrap_or_default();
    match user.username.as_deref() {
        None | Some("" | "system:anonymous") => Err(Fail::Login),
        Some(_) => Ok(user),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CERT: &str = "-----BEGIN CERTIFICATE-----\nYQ==\n-----END CERTIFICATE-----";
    const KEY: &str = "-----BEGIN EC PRIVATE KEY-----\nYg==\n-----END EC PRIVATE KEY-----";

    #[test]
    fn what_is_taken() {
        assert_eq!(
            Credential::read("  abc.def \n"),
            Ok(Credential::Token("abc.def".into()))
        );
        let both = format!("{KEY}\nBag attributes\n{CERT}\n{CERT}");
        let Ok(Credential::Certificate(certs, key)) = Credential::read(&both) else {
            panic!("not taken");
        };
        assert_eq!(
            (certs.matches("BEGIN").count(), key.matches("BEGIN").count()),
            (2, 1)
        );
        for bad in ["", CERT, KEY, "two words", "-----BEGIN "] {
            assert!(
                matches!(Credential::read(bad), Err(Fail::Bad(_))),
                "{bad:?}"
            );
        }
        assert_eq!(format!("{:?}", Credential::Token("secret".into())), "Token");
    }

    fn kubeconfig(user: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: a\ncontexts:\n- name: a\n  context: {{cluster: c, user: u}}\n\
             clusters:\n- name: c\n  cluster: {{server: 'https://evil.example'}}\nusers:\n- name: u\n  user: {user}\n"
        )
    }

    #[test]
    fn a_kubeconfig_gives_its_secret_and_nothing_that_acts_here() {
        assert_eq!(
            Credential::read(&kubeconfig("{token: t0k}")),
            Ok(Credential::Token("t0k".into()))
        );
        let engine = base64::engine::general_purpose::STANDARD;
        let user = format!(
            "{{client-certificate-data: {}, client-key-data: {}}}",
            engine.encode(CERT),
            engine.encode(KEY)
        );
        assert!(matches!(
            Credential::read(&kubeconfig(&user)),
            Ok(Credential::Certificate(..))
        ));
        for user in [
            "{exec: {apiVersion: client.authentication.k8s.io/v1, command: touch, args: [/tmp/owned]}}",
            "{tokenFile: /etc/passwd}",
            "{client-certificate: /etc/passwd, client-key: /etc/passwd}",
            "{username: a, password: b}",
        ] {
            assert!(
                matches!(Credential::read(&kubeconfig(user)), Err(Fail::Bad(_))),
                "{user}"
            );
        }
    }
}
