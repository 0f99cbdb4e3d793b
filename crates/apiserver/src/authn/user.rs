//! Who a request is from, as authorization and audit see it.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

/// The user of a request.
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
pub const NODES: &str = "system:nodes";
/// What the name of a node's user begins with.
pub const NODE_PREFIX: &str = "system:node:";
/// What the name of a ServiceAccount's user begins with.
pub const ACCOUNT_PREFIX: &str = "system:serviceaccount:";
/// Key of `extra` that tells the credential of a user.
pub const CREDENTIAL_ID: &str = "authentication.kubernetes.io/credential-id";

impl UserInfo {
    pub fn new(name: &str, groups: &[&str]) -> UserInfo {
        UserInfo {
            name: name.to_owned(),
            groups: groups.iter().map(|g| (*g).to_owned()).collect(),
            ..UserInfo::default()
        }
    }

    /// The user of a ServiceAccount.
    pub fn account(namespace: &str, name: &str) -> UserInfo {
        UserInfo {
            name: format!("{ACCOUNT_PREFIX}{namespace}:{name}"),
            groups: account_groups(namespace),
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

    /// The node that the user is, by the conventions of kubelets' credentials.
    pub fn node(&self) -> Option<&str> {
        let node = self.name.strip_prefix(NODE_PREFIX)?;
        self.in_group(NODES).then_some(node)
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

pub fn account_groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

/// Namespace and name of the ServiceAccount that a user's name tells.
pub fn account_of(user: &str) -> Option<(&str, &str)> {
    let (namespace, name) = user.strip_prefix(ACCOUNT_PREFIX)?.split_once(':')?;
    (!namespace.is_empty() && !name.is_empty() && !name.contains(':')).then_some((namespace, name))
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
    let one = |name: &str| all(name).into_iter().next().unwrap_or_default();
    let mut user = UserInfo {
        name: one("impersonate-user"),
        uid: one("impersonate-uid"),
        groups: all("impersonate-group"),
        extra: BTreeMap::new(),
    };
    for name in headers.keys() {
        if let Some(key) = name.as_str().strip_prefix("impersonate-extra-") {
            // A key may hold what a header's name may not, escaped as in a URL.
            let key = crate::request::decode(key);
            user.extra.insert(key, all(name.as_str()));
        }
    }
    (user != UserInfo::default()).then_some(user)
}

/// The impersonated user with the groups that Kubernetes adds.
pub fn impersonated(mut user: UserInfo) -> Arc<UserInfo> {
    if user.groups.is_empty()
        && let Some((namespace, _)) = account_of(&user.name)
    {
        user.groups = account_groups(namespace);
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
