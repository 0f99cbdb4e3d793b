//! FlowSchemas: which requests one is about.

use std::sync::Arc;

use http::HeaderValue;
use serde::Deserialize;
use serde_json::Value;

use super::{Level, Tally, uid};
use crate::{authn::UserInfo, authz::Attributes, object};

pub struct Schema {
    pub name: String,
    pub uid: HeaderValue,
    pub precedence: i64,
    pub level: Arc<Level>,
    pub tally: Arc<Tally>,
    by: By,
    rules: Vec<Rules>,
}

/// What tells the flows of a schema apart.
enum By {
    Nothing,
    User,
    Namespace,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Rules {
    subjects: Vec<Subject>,
    resource_rules: Vec<ResourceRule>,
    non_resource_rules: Vec<PathRule>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Subject {
    kind: String,
    user: Named,
    group: Named,
    service_account: Named,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Named {
    namespace: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ResourceRule {
    verbs: Vec<String>,
    api_groups: Vec<String>,
    resources: Vec<String>,
    namespaces: Vec<String>,
    cluster_scope: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PathRule {
    verbs: Vec<String>,
    #[serde(rename = "nonResourceURLs")]
    urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|v| v == "*" || v == wanted)
}

impl Schema {
    pub fn of(object: &Value, level: Arc<Level>) -> Schema {
        let rules = object.pointer("/spec/rules").and_then(Value::as_array);
        let rules = rules.into_iter().flatten();
        let precedence = object.pointer("/spec/matchingPrecedence");
        Schema {
            name: object::name(object).to_owned(),
            uid: uid(object),
            precedence: precedence.and_then(Value::as_i64).unwrap_or(1000),
            level,
            tally: Arc::default(),
            by: match object::text(object, "/spec/distinguisherMethod/type") {
                "ByUser" => By::User,
                "ByNamespace" => By::Namespace,
                _ => By::Nothing,
            },
            // A rule that cannot be read matches nothing.
            rules: rules.filter_map(|r| Rules::deserialize(r).ok()).collect(),
        }
    }

    /// The flow of a request that matches.
    pub fn flow(&self, user: &UserInfo, asked: &Attributes<'_>) -> String {
        let of = match self.by {
            By::Nothing => "",
            By::User => &user.name,
            By::Namespace => asked.namespace,
        };
        format!("{}/{of}", self.name)
    }

    pub fn matches(&self, user: &UserInfo, asked: &Attributes<'_>) -> bool {
        self.rules.iter().any(|rules| {
            rules.subjects.iter().any(|s| s.is(user))
                && match asked.path {
                    Some(path) => {
                        let mut all = rules.non_resource_rules.iter();
                        all.any(|r| has(&r.verbs, asked.verb) && r.covers(path))
                    }
                    None => rules.resource_rules.iter().any(|r| r.covers(asked)),
                }
        })
    }
}

impl Subject {
    fn is(&self, user: &UserInfo) -> bool {
        match self.kind.as_str() {
            "User" => self.user.name == "*" || self.user.name == user.name,
            "Group" => self.group.name == "*" || user.in_group(&self.group.name),
            "ServiceAccount" => {
                let of = &self.service_account;
                let account = user.name.strip_prefix("system:serviceaccount:");
                let account = account.and_then(|a| a.split_once(':'));
                account.is_some_and(|(namespace, name)| {
                    namespace == of.namespace && (of.name == "*" || of.name == name)
                })
            }
            _ => false,
        }
    }
}

impl PathRule {
    fn covers(&self, path: &str) -> bool {
        self.urls.iter().any(|url| {
            url == "*"
                || url == path
                || url
                    .strip_suffix('*')
                    .is_some_and(|prefix| prefix.ends_with('/') && path.starts_with(prefix))
        })
    }
}

impl ResourceRule {
    fn covers(&self, asked: &Attributes<'_>) -> bool {
        let resource = |wanted: &String| {
            wanted == "*"
                || match wanted.split_once('/') {
                    None => asked.subresource.is_empty() && wanted == asked.resource,
                    Some((resource, sub)) => resource == asked.resource && sub == asked.subresource,
                }
        };
        let place = match asked.namespace {
            "" => self.cluster_scope,
            namespace => has(&self.namespaces, namespace),
        };
        place
            && has(&self.verbs, asked.verb)
            && has(&self.api_groups, asked.group)
            && self.resources.iter().any(resource)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        authn::MASTERS,
        flow::{LEVELS, SCHEMAS, objects},
    };

    #[test]
    fn requests_are_classified_as_kubernetes_classifies_them() {
        let level = objects::built_in(LEVELS, "system").expect("built in");
        let level = Arc::new(Level::of(&level, 1, 1));
        let mut schemas: Vec<Schema> = objects::all(SCHEMAS)
            .iter()
            .map(|o| Schema::of(o, level.clone()))
            .collect();
        schemas.sort_by_key(|s| s.precedence);
        let asked = |verb, group, resource, subresource, namespace| Attributes {
            verb,
            group,
            resource,
            subresource,
            namespace,
            ..Attributes::default()
        };
        let path = |path| Attributes {
            verb: "get",
            path: Some(path),
            ..Attributes::default()
        };
        let coordination = "coordination.k8s.io";
        let account = "system:serviceaccount:kube-system:endpoint-controller";
        for (user, group, asked, schema) in [
            ("root", MASTERS, asked("list", "", "pods", "", ""), "exempt"),
            ("ann", "", path("/healthz"), "probes"),
            ("ann", "", path("/healthz/etcd"), "global-default"),
            (
                "ann",
                "",
                asked("get", "apps", "deployments", "scale", "n"),
                "global-default",
            ),
            (
                "system:node:a",
                "system:nodes",
                asked("update", "", "nodes", "status", ""),
                "system-node-high",
            ),
            (
                "system:node:a",
                "system:nodes",
                asked("update", coordination, "leases", "", "kube-node-lease"),
                "system-node-high",
            ),
            (
                "system:node:a",
                "system:nodes",
                asked("update", "", "pods", "status", "n"),
                "system-nodes",
            ),
            (
                "system:kube-scheduler",
                "",
                asked("update", coordination, "leases", "", "kube-system"),
                "system-leader-election",
            ),
            (
                "system:kube-scheduler",
                "",
                asked("create", "", "pods", "binding", "n"),
                "kube-scheduler",
            ),
            (
                "system:kube-controller-manager",
                "",
                asked("create", "", "pods", "", "n"),
                "kube-controller-manager",
            ),
            (
                account,
                "system:serviceaccounts",
                asked("update", "", "endpoints", "", "n"),
                "endpoint-controller",
            ),
            (
                account,
                "system:serviceaccounts",
                asked("list", "", "pods", "", ""),
                "kube-system-service-accounts",
            ),
            (
                "system:serviceaccount:n:default",
                "system:serviceaccounts",
                asked("list", "", "pods", "", "n"),
                "service-accounts",
            ),
        ] {
            let user = UserInfo::new(user, &[group]).authenticated();
            let found = schemas.iter().find(|s| s.matches(&user, &asked));
            assert_eq!(
                found.map(|s| s.name.as_str()),
                Some(schema),
                "{user:?} {asked:?}"
            );
        }
    }
}
