//! What is checked of an issuer's answers; pure.

use aws_lc_rs::digest;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::Value;

use super::Options;
use crate::error::Fail;

/// By how much clocks may differ, in seconds.
const LEEWAY: i64 = 60;

/// What discovery told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Where logins begin.
    pub authorize: String,
    /// Where codes are exchanged.
    pub token: String,
    /// Whether a client's secret goes into a header.
    pub basic: bool,
}

/// The credentials of a client as RFC 6749 (2.3.1) has them: each encoded as in a form.
pub fn basic(id: &str, secret: &str) -> String {
    let encoded = |t: &str| form_urlencoded::byte_serialize(t.as_bytes()).collect::<String>();
    let pair = format!("{}:{}", encoded(id), encoded(secret));
    format!(
        "Basic {}",
        base64::engine::general_purpose::STANDARD.encode(pair)
    )
}

/// The S256 challenge of a verifier.
pub fn challenge(verifier: &str) -> String {
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, verifier.as_bytes()))
}

/// What the discovery document of an issuer says.
///
/// # Errors
/// If it is another issuer's, or names an endpoint that is not reached by TLS.
pub fn discovered(told: &Value, issuer: &str) -> Result<Document, Fail> {
    let bad = |why: String| Fail::Upstream(format!("the identity provider: {why}"));
    if told["issuer"] != issuer {
        return Err(bad(format!("its document is of {}", told["issuer"])));
    }
    let endpoint = |name: &str| {
        let url = told[name].as_str().unwrap_or_default();
        if url.starts_with("https://") {
            Ok(url.to_owned())
        } else {
            Err(bad(format!("its {name} is no https URL")))
        }
    };
    let methods = told["token_endpoint_auth_methods_supported"].as_array();
    Ok(Document {
        authorize: endpoint("authorization_endpoint")?,
        token: endpoint("token_endpoint")?,
        // What is meant where nothing is said.
        basic: methods.is_none_or(|m| m.iter().any(|m| m == "client_secret_basic")),
    })
}

/// The claims of a token, unverified.
pub fn claims(token: &str) -> Option<Value> {
    let mut parts = token.split('.');
    let (_, payload, _) = (parts.next()?, parts.next()?, parts.next()?);
    let bytes = URL_SAFE_NO_PAD.decode(payload).ok()?;
    serde_json::from_slice(&bytes).ok()
}

/// What is asked of a token beside that it is this issuer's for this client.
pub enum Of<'a> {
    /// A login: its nonce.
    Login(&'a str),
    /// A renewal: who it was before.
    Renewal(&'a str),
}

/// Checks what only the one who asked can know. When the token expires, in seconds.
///
/// # Errors
/// What is wrong with it.
pub fn check(claims: &Value, options: &Options, of: &Of<'_>, now: i64) -> Result<i64, String> {
    let client = options.client_id.as_str();
    if claims["iss"] != options.issuer.as_str() {
        return Err("the ID token is of another issuer".to_owned());
    }
    let several = claims["aud"].as_array();
    let ours = several.map_or(claims["aud"] == client, |all| {
        all.iter().any(|a| a == client)
    });
    let other_party = claims["azp"].as_str().is_some_and(|azp| azp != client);
    if !ours || other_party {
        return Err("the ID token is for another client".to_owned());
    }
    let text = |name: &str| claims[name].as_str().unwrap_or_default();
    match of {
        Of::Login(nonce) if !crate::session::same(text("nonce"), nonce) => {
            return Err("the ID token is of another login".to_owned());
        }
        Of::Renewal(subject) if text("sub") != *subject => {
            return Err("the ID token is of somebody else".to_owned());
        }
        _ => {}
    }
    let expires = claims["exp"].as_f64().unwrap_or_default() as i64;
    if expires + LEEWAY < now {
        return Err("the ID token has expired".to_owned());
    }
    Ok(expires)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::oidc::tests::options;

    #[test]
    fn the_challenge_is_that_of_the_rfc() {
        // RFC 7636, appendix B.
        assert_eq!(
            challenge("dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"),
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    #[test]
    fn tokens_of_others_are_refused() {
        let good = json!({"iss": "https://id.test", "aud": "gantry", "nonce": "n", "exp": 100});
        let with = |name: &str, value: Value| {
            let mut claims = good.clone();
            claims[name] = value;
            check(&claims, &options(), &Of::Login("n"), 90)
        };
        assert_eq!(with("x", json!(1)), Ok(100));
        assert_eq!(with("aud", json!(["other", "gantry"])), Ok(100));
        let renewed = json!({"iss": "https://id.test", "aud": "gantry", "sub": "ann", "exp": 100});
        for (subject, good) in [("ann", true), ("bob", false)] {
            let end = check(&renewed, &options(), &Of::Renewal(subject), 90);
            assert_eq!(end.is_ok(), good, "{subject}");
        }
        for (name, value) in [
            ("iss", json!("https://evil.test")),
            ("aud", json!("other")),
            ("aud", json!(["other"])),
            ("azp", json!("other")),
            ("nonce", json!("m")),
            ("nonce", json!(null)),
            ("exp", json!(20)),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
    }

    #[test]
    fn discovery_has_to_be_of_the_issuer_and_over_tls() {
        let told = json!({"issuer": "https://id.test", "authorization_endpoint": "https://id.test/a",
            "token_endpoint": "https://id.test/t", "token_endpoint_auth_methods_supported": ["client_secret_post"]});
        let read = discovered(&told, "https://id.test").unwrap();
        assert!(!read.basic && read.token == "https://id.test/t");
        assert!(discovered(&told, "https://other.test").is_err());
        let mut plain = told;
        plain["token_endpoint"] = json!("http://id.test/t");
        assert!(discovered(&plain, "https://id.test").is_err());
        assert_eq!(basic("a b", "c:d"), "Basic YStiOmMlM0Fk");
    }
}
