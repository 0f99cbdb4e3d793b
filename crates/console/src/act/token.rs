//! Tokens for scripts. Kubernetes issues tokens for ServiceAccounts alone (TokenRequest): the user's own, if
//! they are one, or one that they may issue for. Tokens of people come from their identity provider.

use jiff::Timestamp;
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};

use crate::{access::Right, app::Cx, error::Fail, view::Params};

/// The API server issues none that are valid for less than ten minutes; longer than a quarter is no token
/// but a password.
const HOURS: std::ops::RangeInclusive<i64> = 1..=2160;

/// The ServiceAccount that a user name stands for.
pub fn account(user: &str) -> Option<(&str, &str)> {
    let rest = user.strip_prefix("system:serviceaccount:")?;
    rest.split_once(':')
}

/// The right to issue for an account.
pub fn right(namespace: &str, name: &str) -> Right {
    Right::core("create", "serviceaccounts", namespace)
        .named(name)
        .sub("token")
}

/// A token that was issued.
pub struct Issued {
    /// Of which account.
    pub account: String,
    /// The token: shown once.
    pub token: String,
    /// Until when it holds.
    pub until: Timestamp,
}

/// Issues a token, as the user.
///
/// # Errors
/// Which field is wrong, or that the hub refuses it.
pub async fn issue(cx: &Cx, form: &Params) -> Result<Issued, Fail> {
    let text = form.get("account");
    let (namespace, name) = text
        .split_once('/')
        .filter(|(ns, n)| !ns.is_empty() && !n.is_empty() && !n.contains('/'))
        .ok_or_else(|| {
            Fail::Bad(format!(
                "account: {text:?} where NAMESPACE/NAME of a ServiceAccount is expected"
            ))
        })?;
    let hours = form.get("hours").parse::<i64>().ok();
    let hours = hours.filter(|h| HOURS.contains(h)).ok_or_else(|| {
        Fail::Bad(format!(
            "hours: a number from {} to {}",
            HOURS.start(),
            HOURS.end()
        ))
    })?;
    let api: Api<ServiceAccount> = Api::namespaced(cx.session.client.clone(), namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec {
            expiration_seconds: Some(hours * 3600),
            ..TokenRequestSpec::default()
        }),
        ..TokenRequest::default()
    };
    let end = api
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .map_err(Fail::from);
    cx.audit(
        "issue a token",
        &format!("ServiceAccount {namespace}/{name} for {hours} h"),
        &end,
    );
    let status = end?.status;
    let status = status.ok_or_else(|| Fail::Upstream("the hub gave no token".to_owned()))?;
    Ok(Issued {
        account: text.to_owned(),
        token: status.token.unwrap_or_default(),
        until: status.expiration_timestamp.map_or(cx.now, |t| t.0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_a_service_account() {
        assert_eq!(
            account("system:serviceaccount:shop:dev"),
            Some(("shop", "dev"))
        );
        assert_eq!(account("alice"), None);
    }
}
