//! Requests that an authenticating proxy passes on: it shows a certificate of an authority of its own
//! and names the user in headers.

use std::{collections::BTreeMap, path::PathBuf};

use http::{HeaderMap, HeaderName};

use super::{
    certificate::{ClientCertificates, Shown},
    user::UserInfo,
};
use crate::request;

/// Which proxies are believed, and in which headers they name the user.
#[derive(Debug, Clone)]
pub struct FrontProxyConfig {
    /// Bundle of the authorities that sign the proxies' certificates, PEM.
    pub client_ca: PathBuf,
    /// Common names of the proxies; any that the authorities have signed where there is none.
    pub allowed_names: Vec<String>,
    /// The first of these that says something is the user's name.
    pub user_headers: Vec<String>,
    /// The first of these that says something is the user's uid.
    pub uid_headers: Vec<String>,
    /// All values of all of these are groups.
    pub group_headers: Vec<String>,
    /// What the names of headers with more about the user begin with.
    pub extra_prefixes: Vec<String>,
}

pub(super) struct FrontProxy {
    pub trusted: ClientCertificates,
    pub config: FrontProxyConfig,
    /// The bundle itself.
    pub pem: String,
}

impl FrontProxy {
    /// The user that a proxy names; `None` where the connection is not a proxy's, or it names none.
    pub fn user(&self, shown: &Shown, headers: &HeaderMap) -> Option<UserInfo> {
        let name = first(headers, &self.config.user_headers)?;
        let proxy = shown.proxy(&self.trusted)?;
        let allowed = &self.config.allowed_names;
        if !allowed.is_empty() && !allowed.contains(&proxy.name) {
            return None;
        }
        Some(named(name, &self.config, headers).authenticated())
    }
}

fn first(headers: &HeaderMap, names: &[String]) -> Option<String> {
    let mut values = names
        .iter()
        .filter_map(|name| headers.get(name)?.to_str().ok());
    values.find(|value| !value.is_empty()).map(str::to_owned)
}

fn named(name: String, config: &FrontProxyConfig, headers: &HeaderMap) -> UserInfo {
    let texts = |name: &HeaderName| -> Vec<String> {
        let values = headers.get_all(name).iter();
        values
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect()
    };
    let groups = config.group_headers.iter();
    let groups = groups.filter_map(|name| HeaderName::try_from(name).ok());
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for header in headers.keys() {
        for prefix in &config.extra_prefixes {
            // Names of headers are lower case here, as Kubernetes makes keys of them.
            if let Some(key) = header.as_str().strip_prefix(&prefix.to_ascii_lowercase()) {
                extra
                    .entry(request::decode(key))
                    .or_default()
                    .extend(texts(header));
            }
        }
    }
    UserInfo {
        name,
        uid: first(headers, &config.uid_headers).unwrap_or_default(),
        groups: groups.flat_map(|name| texts(&name)).collect(),
        extra,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_tell_the_user() {
        let list = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        let config = FrontProxyConfig {
            client_ca: PathBuf::new(),
            allowed_names: vec![],
            user_headers: list(&["X-Other-User", "X-Remote-User"]),
            uid_headers: list(&["X-Remote-Uid"]),
            group_headers: list(&["X-Remote-Group"]),
            extra_prefixes: list(&["X-Remote-Extra-"]),
        };
        let mut headers = HeaderMap::new();
        assert_eq!(first(&headers, &config.user_headers), None);
        for (name, value) in [
            ("x-other-user", ""),
            ("x-remote-user", "ann"),
            ("x-remote-uid", "u-1"),
            ("x-remote-group", "a"),
            ("x-remote-group", "b"),
            ("x-remote-extra-example.com%2fteam", "x"),
            ("x-remote-extra-example.com%2fteam", "y"),
            ("x-elsewhere", "z"),
        ] {
            headers.append(
                HeaderName::from_static(name),
                http::HeaderValue::from_static(value),
            );
        }
        let name = first(&headers, &config.user_headers).expect("a name");
        let user = named(name, &config, &headers);
        assert_eq!(
            (user.name.as_str(), user.uid.as_str(), user.groups),
            ("ann", "u-1", list(&["a", "b"]))
        );
        assert_eq!(
            user.extra,
            BTreeMap::from([("example.com/team".to_owned(), list(&["x", "y"]))])
        );
    }
}
