//! RBAC over the stored roles and bindings, indexed by subject.
//!
//! The index is rebuilt when a write to one of the four kinds has been committed, by the next
//! question asked. Aggregated ClusterRoles are resolved here, so that they work without a
//! controller that copies their rules.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use gantry_store::Store;
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Attributes;
use crate::{authn::UserInfo, object, rules::Labels};

#[derive(Debug, Clone, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase", default)]
pub struct Rule {
    pub verbs: Vec<String>,
    #[serde(rename = "apiGroups", skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<String>,
    #[serde(rename = "resourceNames", skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Vec::is_empty")]
    pub urls: Vec<String>,
}

fn has(list: &[String], wanted: &str) -> bool {
    list.iter().any(|v| v == "*" || v == wanted)
}

impl Rule {
    pub fn allows(&self, a: &Attributes<'_>) -> bool {
        if !has(&self.verbs, a.verb) {
            return false;
        }
        if let Some(path) = a.path {
            return self.urls.iter().any(|u| {
                u == path
                    || u.strip_suffix('*')
                        .is_some_and(|prefix| path.starts_with(prefix))
            });
        }
        let resource = |r: &String| {
            if r == "*" {
                return true;
            }
            if a.subresource.is_empty() {
                return r == a.resource;
            }
            match r.split_once('/') {
                Some(("*", sub)) => sub == a.subresource,
                Some((res, sub)) => res == a.resource && sub == a.subresource,
                None => false,
            }
        };
        has(&self.groups, a.group)
            && self.resources.iter().any(resource)
            && (self.names.is_empty() || self.names.iter().any(|n| n == a.name))
    }

    /// Kubernetes' printed form, for refusals.
    pub fn describe(&self) -> String {
        let list = |v: &[String]| {
            v.iter()
                .map(|s| format!("{s:?}"))
                .collect::<Vec<_>>()
                .join(" ")
        };
        let mut parts = vec![];
        for (name, values) in [
            ("APIGroups", &self.groups),
            ("Resources", &self.resources),
            ("ResourceNames", &self.names),
            ("NonResourceURLs", &self.urls),
            ("Verbs", &self.verbs),
        ] {
            if !values.is_empty() {
                parts.push(format!("{name}:[{}]", list(values)));
            }
        }
        format!("{{{}}}", parts.join(", "))
    }
}

/// The rules of a Role or ClusterRole object.
pub fn rules_of(role: &Value) -> Vec<Rule> {
    role.get("rules")
        .and_then(|r| serde_json::from_value(r.clone()).ok())
        .unwrap_or_default()
}

#[derive(Debug)]
struct Grant {
    /// Empty for all namespaces.
    namespace: String,
    /// The rules of the role, or that there is none.
    rules: Result<Arc<Vec<Rule>>, String>,
    reason: String,
}

#[derive(Debug, Default)]
struct Index {
    generation: u64,
    by_subject: FxHashMap<String, Vec<Grant>>,
    cluster_roles: FxHashMap<String, Arc<Vec<Rule>>>,
    roles: FxHashMap<String, Arc<Vec<Rule>>>,
}

pub struct Rbac {
    generation: AtomicU64,
    index: Mutex<Arc<Index>>,
}

impl Default for Rbac {
    fn default() -> Rbac {
        Rbac {
            generation: AtomicU64::new(1),
            index: Mutex::default(),
        }
    }
}

pub const GROUP: &str = "rbac.authorization.k8s.io";

impl Rbac {
    /// A role or binding was written.
    pub fn changed(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn index(&self, store: &Store) -> Arc<Index> {
        let generation = self.generation.load(Ordering::Acquire);
        let mut index = self.index.lock();
        if index.generation != generation {
            *index = Arc::new(build(store, generation));
        }
        index.clone()
    }

    /// Why it is allowed, or what keeps it from being known.
    pub fn authorize(
        &self,
        store: &Store,
        user: &UserInfo,
        a: &Attributes<'_>,
    ) -> Result<String, String> {
        let index = self.index(store);
        let mut missing: Vec<&str> = vec![];
        for subject in subjects(user) {
            for grant in index.by_subject.get(&subject).into_iter().flatten() {
                let here = grant.namespace.is_empty()
                    || (a.path.is_none() && grant.namespace == a.namespace);
                if !here {
                    continue;
                }
                match &grant.rules {
                    Ok(rules) if rules.iter().any(|r| r.allows(a)) => {
                        return Ok(grant.reason.clone());
                    }
                    Ok(_) => {}
                    Err(role) => missing.push(role),
                }
            }
        }
        Err(match missing.as_slice() {
            [] => String::new(),
            [one] => format!("RBAC: {one}"),
            many => format!("RBAC: [{}]", many.join(", ")),
        })
    }

    /// All rules that hold for a user in a namespace, and which roles are missing.
    pub fn rules(
        &self,
        store: &Store,
        user: &UserInfo,
        namespace: &str,
    ) -> (Vec<Rule>, Vec<String>) {
        let index = self.index(store);
        let (mut rules, mut missing) = (vec![], vec![]);
        for grant in subjects(user)
            .iter()
            .filter_map(|s| index.by_subject.get(s))
            .flatten()
            .filter(|g| g.namespace.is_empty() || g.namespace == namespace)
        {
            match &grant.rules {
                Ok(held) => rules.extend(held.iter().cloned()),
                Err(role) => missing.push(role.clone()),
            }
        }
        (rules, missing)
    }

    /// The rules of a named role, `None` when there is none.
    pub fn role(
        &self,
        store: &Store,
        namespace: &str,
        kind: &str,
        name: &str,
    ) -> Option<Arc<Vec<Rule>>> {
        let index = self.index(store);
        if kind == "ClusterRole" {
            index.cluster_roles.get(name).cloned()
        } else {
            index.roles.get(&format!("{namespace}/{name}")).cloned()
        }
    }
}

fn subjects(user: &UserInfo) -> Vec<String> {
    let mut all = vec![format!("u:{}", user.name)];
    all.extend(user.groups.iter().map(|g| format!("g:{g}")));
    all
}

fn build(store: &Store, generation: u64) -> Index {
    let objects = |plural: &str| -> Vec<Value> {
        store
            .snapshot(&format!("{GROUP}/{plural}"))
            .iter()
            .filter_map(|s| serde_json::from_slice(&s.value).ok())
            .collect()
    };
    let mut index = Index {
        generation,
        ..Index::default()
    };
    let cluster_roles = objects("clusterroles");
    for role in &cluster_roles {
        let mut rules = rules_of(role);
        for selector in role
            .pointer("/aggregationRule/clusterRoleSelectors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            aggregate(selector, &cluster_roles, &mut rules, 0);
        }
        index
            .cluster_roles
            .insert(object::name(role).to_owned(), Arc::new(rules));
    }
    for role in objects("roles") {
        let id = format!(
            "{}/{}",
            object::meta_text(&role, "namespace"),
            object::name(&role)
        );
        index.roles.insert(id, Arc::new(rules_of(&role)));
    }
    for (plural, kind) in [
        ("clusterrolebindings", "ClusterRoleBinding"),
        ("rolebindings", "RoleBinding"),
    ] {
        for binding in objects(plural) {
            bind(&mut index, kind, &binding);
        }
    }
    index
}

/// Adds the rules of the roles that a selector picks, and of what those aggregate in turn.
fn aggregate(selector: &Value, all: &[Value], rules: &mut Vec<Rule>, depth: usize) {
    let Ok(labels) = Labels::from_label_selector(selector) else {
        return;
    };
    for role in all {
        let of = object::meta(role).and_then(|m| m.get("labels"));
        if !labels.matches(|k| of.and_then(|l| l.get(k)).and_then(Value::as_str)) {
            continue;
        }
        for rule in rules_of(role) {
            if !rules.contains(&rule) {
                rules.push(rule);
            }
        }
        for inner in role
            .pointer("/aggregationRule/clusterRoleSelectors")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            if depth < 4 {
                aggregate(inner, all, rules, depth + 1);
            }
        }
    }
}

fn bind(index: &mut Index, kind: &str, binding: &Value) {
    let namespace = object::meta_text(binding, "namespace").to_owned();
    let name = object::name(binding);
    let role_kind = object::text(binding, "/roleRef/kind").to_owned();
    let role = object::text(binding, "/roleRef/name").to_owned();
    let rules = if role_kind == "ClusterRole" {
        index.cluster_roles.get(&role)
    } else {
        index.roles.get(&format!("{namespace}/{role}"))
    };
    let rules = rules.cloned().ok_or_else(|| {
        let kind = role_kind.to_lowercase();
        format!("{kind}.{GROUP} \"{role}\" not found")
    });
    let full = if namespace.is_empty() {
        name.to_owned()
    } else {
        format!("{name}/{namespace}")
    };
    for subject in binding
        .get("subjects")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let of = object::text(subject, "/name");
        let (key, shown) = match object::text(subject, "/kind") {
            "User" => (format!("u:{of}"), format!("User \"{of}\"")),
            "Group" => (format!("g:{of}"), format!("Group \"{of}\"")),
            "ServiceAccount" => {
                let at = match object::text(subject, "/namespace") {
                    "" => &namespace,
                    at => at,
                };
                (
                    format!("u:system:serviceaccount:{at}:{of}"),
                    format!("ServiceAccount \"{of}/{at}\""),
                )
            }
            _ => continue,
        };
        index.by_subject.entry(key).or_default().push(Grant {
            namespace: namespace.clone(),
            rules: rules.clone(),
            reason: format!(
                "RBAC: allowed by {kind} \"{full}\" of {role_kind} \"{role}\" to {shown}"
            ),
        });
    }
}

/// Rights in `wanted` that none of `held` covers, split as Kubernetes splits them for messages.
pub fn uncovered(held: &[Rule], wanted: &[Rule]) -> Vec<Rule> {
    let mut missing = vec![];
    for rule in wanted {
        for url in &rule.urls {
            for verb in &rule.verbs {
                let covered = held.iter().any(|h| {
                    has(&h.verbs, verb)
                        && h.urls.iter().any(|u| {
                            u == url || u.strip_suffix('*').is_some_and(|p| url.starts_with(p))
                        })
                });
                if !covered {
                    push(
                        &mut missing,
                        Rule {
                            verbs: vec![verb.clone()],
                            urls: vec![url.clone()],
                            ..Rule::default()
                        },
                    );
                }
            }
        }
        for group in &rule.groups {
            for resource in &rule.resources {
                let names: Vec<Option<&String>> = if rule.names.is_empty() {
                    vec![None]
                } else {
                    rule.names.iter().map(Some).collect()
                };
                for name in names {
                    for verb in &rule.verbs {
                        let covered = held.iter().any(|h| {
                            covers(&h.verbs, verb)
                                && covers(&h.groups, group)
                                && covers_resource(&h.resources, resource)
                                && (h.names.is_empty() || name.is_some_and(|n| h.names.contains(n)))
                        });
                        if !covered {
                            push(
                                &mut missing,
                                Rule {
                                    verbs: vec![verb.clone()],
                                    groups: vec![group.clone()],
                                    resources: vec![resource.clone()],
                                    names: name.cloned().into_iter().collect(),
                                    ..Rule::default()
                                },
                            );
                        }
                    }
                }
            }
        }
    }
    missing
}

fn covers(held: &[String], wanted: &str) -> bool {
    held.iter().any(|v| v == "*" || v == wanted)
}

fn covers_resource(held: &[String], wanted: &str) -> bool {
    covers(held, wanted)
        || wanted
            .split_once('/')
            .is_some_and(|(_, sub)| held.iter().any(|h| *h == format!("*/{sub}")))
}

/// Adds a one-verb rule, joining it to the one before when only the verb differs.
fn push(missing: &mut Vec<Rule>, rule: Rule) {
    if let Some(last) = missing.iter_mut().find(|l| {
        l.groups == rule.groups
            && l.resources == rule.resources
            && l.names == rule.names
            && l.urls == rule.urls
    }) {
        last.verbs.extend(rule.verbs);
    } else {
        missing.push(rule);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(verbs: &[&str], groups: &[&str], resources: &[&str]) -> Rule {
        let own = |v: &[&str]| v.iter().map(|s| (*s).to_owned()).collect();
        Rule {
            verbs: own(verbs),
            groups: own(groups),
            resources: own(resources),
            ..Rule::default()
        }
    }

    #[test]
    fn rules_match_as_rbac_does() {
        let ask = |verb, resource, subresource| Attributes {
            verb,
            resource,
            subresource,
            ..Attributes::default()
        };
        let r = rule(&["get"], &[""], &["pods", "pods/log", "*/scale"]);
        assert!(r.allows(&ask("get", "pods", "")));
        assert!(r.allows(&ask("get", "pods", "log")));
        assert!(r.allows(&ask("get", "things", "scale")));
        assert!(!r.allows(&ask("get", "pods", "exec")));
        assert!(!r.allows(&ask("delete", "pods", "")));
        let all = Rule {
            verbs: vec!["get".into()],
            urls: vec!["/healthz/*".into()],
            ..Rule::default()
        };
        assert!(all.allows(&Attributes {
            verb: "get",
            path: Some("/healthz/etcd"),
            ..Attributes::default()
        }));
    }

    #[test]
    fn escalation_names_what_is_missing() {
        let held = [rule(&["get"], &[""], &["pods"])];
        let wanted = [rule(&["get", "delete"], &[""], &["pods"])];
        let missing = uncovered(&held, &wanted);
        assert_eq!(
            missing[0].describe(),
            "{APIGroups:[\"\"], Resources:[\"pods\"], Verbs:[\"delete\"]}"
        );
        assert!(uncovered(&[rule(&["*"], &["*"], &["*"])], &wanted).is_empty());
    }
}
