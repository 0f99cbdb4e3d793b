//! ABAC: policies of a file, one JSON object a line, each of which allows one kind of request.

use serde::Deserialize;

use super::{Attributes, Rule};
use crate::authn::{AUTHENTICATED, UserInfo};

const VERSION: &str = "abac.authorization.kubernetes.io/v1beta1";

/// What a line allows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Policy {
    user: String,
    group: String,
    readonly: bool,
    api_group: String,
    resource: String,
    namespace: String,
    #[serde(rename = "nonResourcePath")]
    path: String,
}

#[derive(Deserialize)]
struct Line {
    #[serde(rename = "apiVersion")]
    api_version: Option<String>,
    kind: Option<String>,
    #[serde(default)]
    spec: Policy,
}

/// The policies of a file.
///
/// # Errors
/// The line that is none, and why.
pub fn parse(text: &str) -> Result<Vec<Policy>, String> {
    let mut policies = vec![];
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let policy = policy(line).map_err(|why| format!("line {}: {why}", i + 1))?;
        policies.push(policy);
    }
    Ok(policies)
}

fn policy(line: &str) -> Result<Policy, String> {
    let read: Line = serde_json::from_str(line).map_err(|e| e.to_string())?;
    let mut policy = match (read.api_version.as_deref(), read.kind.as_deref()) {
        (Some(VERSION), Some("Policy")) => read.spec,
        (None, None) => unversioned(line)?,
        (version, kind) => {
            return Err(format!(
                "{} of {} is not a Policy of {VERSION}",
                kind.unwrap_or("an object without a kind"),
                version.unwrap_or("no version")
            ));
        }
    };
    // Everybody is everybody who is known.
    if policy.user == "*" || policy.group == "*" {
        policy.user = String::new();
        policy.group = AUTHENTICATED.to_owned();
    }
    Ok(policy)
}

/// A line as it was before policies had versions: what is not said is not asked for.
fn unversioned(line: &str) -> Result<Policy, String> {
    let mut policy: Policy = serde_json::from_str(line).map_err(|e| e.to_string())?;
    if policy.user.is_empty() && policy.group.is_empty() {
        policy.group = AUTHENTICATED.to_owned();
    }
    policy.path = String::new();
    if policy.namespace.is_empty() && policy.resource.is_empty() {
        policy.path = "*".to_owned();
    }
    for any in [&mut policy.namespace, &mut policy.resource] {
        if any.is_empty() {
            *any = "*".to_owned();
        }
    }
    policy.api_group = "*".to_owned();
    Ok(policy)
}

impl Policy {
    fn is_about(&self, user: &UserInfo) -> bool {
        let named = self.user.is_empty() || self.user == user.name;
        let grouped = self.group.is_empty() || user.in_group(&self.group);
        named && grouped && !(self.user.is_empty() && self.group.is_empty())
    }

    pub fn allows(&self, user: &UserInfo, a: &Attributes<'_>) -> bool {
        let reads = matches!(a.verb, "get" | "list" | "watch");
        if !self.is_about(user) || self.readonly && !reads {
            return false;
        }
        let fits = |policy: &str, asked: &str| policy == "*" || policy == asked;
        match a.path {
            Some(path) => {
                let prefix = self.path.strip_suffix('*');
                self.path == path || prefix.is_some_and(|p| path.starts_with(p))
            }
            None => {
                fits(&self.namespace, a.namespace)
                    && fits(&self.resource, a.resource)
                    && fits(&self.api_group, a.group)
            }
        }
    }

    /// What it gives a user in a namespace.
    pub fn rules(&self, user: &UserInfo, namespace: &str) -> Vec<Rule> {
        let here = self.namespace == "*" || self.namespace == namespace;
        if !here || !self.is_about(user) {
            return vec![];
        }
        let verbs: &[&str] = match self.readonly {
            true => &["get", "list", "watch"],
            false => &["*"],
        };
        let rule = || Rule {
            verbs: verbs.iter().map(|v| (*v).to_owned()).collect(),
            ..Rule::default()
        };
        let mut rules = vec![];
        if !self.resource.is_empty() {
            rules.push(Rule {
                groups: vec![self.api_group.clone()],
                resources: vec![self.resource.clone()],
                ..rule()
            });
        }
        if !self.path.is_empty() {
            rules.push(Rule {
                urls: vec![self.path.clone()],
                ..rule()
            });
        }
        rules
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = r#"
# Of Kubernetes' documentation.
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "ann", "namespace": "*", "resource": "*", "apiGroup": "*"}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "bob", "namespace": "projects", "resource": "pods", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"group": "dev", "nonResourcePath": "/apis*", "readonly": true}}
{"apiVersion": "abac.authorization.kubernetes.io/v1beta1", "kind": "Policy", "spec": {"user": "*", "nonResourcePath": "/version"}}
{"user": "old", "readonly": true}
"#;

    #[test]
    fn policies_allow_what_they_name() {
        let all = parse(FILE).expect("policies");
        let allowed = |name: &str, group: &str, verb, namespace, path| {
            let user = UserInfo::new(name, &[group, AUTHENTICATED]);
            let a = Attributes {
                verb,
                resource: "pods",
                namespace,
                path,
                ..Attributes::default()
            };
            all.iter().any(|p| p.allows(&user, &a))
        };
        for (name, group, verb, namespace, path, expected) in [
            ("ann", "", "delete", "x", None, true),
            ("ann", "", "get", "", Some("/metrics"), false),
            ("bob", "", "list", "projects", None, true),
            ("bob", "", "create", "projects", None, false),
            ("bob", "", "list", "x", None, false),
            ("cat", "dev", "get", "", Some("/apis/apps"), true),
            ("cat", "dev", "put", "", Some("/apis/apps"), false),
            ("cat", "dev", "get", "", Some("/version"), true),
            ("cat", "ops", "get", "", Some("/apis"), false),
            ("old", "", "watch", "x", None, true),
            ("old", "", "get", "", Some("/metrics"), true),
            ("old", "", "delete", "x", None, false),
        ] {
            let case = format!("{name} {verb} {namespace} {path:?}");
            assert_eq!(
                allowed(name, group, verb, namespace, path),
                expected,
                "{case}"
            );
        }
        let rules = all[1].rules(&UserInfo::new("bob", &[]), "projects");
        assert_eq!(rules[0].verbs, ["get", "list", "watch"]);
        assert!(all[1].rules(&UserInfo::new("bob", &[]), "x").is_empty());
    }

    #[test]
    fn a_line_that_is_no_policy_is_named() {
        for (line, words) in [
            ("{", "line 1"),
            (
                r#"{"apiVersion": "v1", "kind": "Policy"}"#,
                "Policy of v1 is not",
            ),
            (r#"{"kind": "Policy"}"#, "of no version"),
        ] {
            let said = parse(line).expect_err("refused");
            assert!(said.contains(words), "{said}");
        }
    }
}
