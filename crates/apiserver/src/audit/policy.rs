//! What is recorded of which request: an audit policy, `Policy` of `audit.k8s.io`.

use serde::Deserialize;

use crate::{authn::UserInfo, authz::Attributes};

/// How much is recorded of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Deserialize, serde::Serialize)]
pub enum Level {
    None,
    Metadata,
    Request,
    RequestResponse,
}

/// When something is recorded of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
pub enum Stage {
    RequestReceived,
    ResponseStarted,
    ResponseComplete,
    Panic,
}

/// The rules, of which the first that a request matches counts.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Policy {
    api_version: String,
    kind: String,
    #[serde(default)]
    #[expect(dead_code, reason = "a policy may have metadata; it says nothing")]
    metadata: serde_json::Value,
    #[serde(default)]
    rules: Vec<Rule>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    #[serde(default)]
    omit_managed_fields: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Rule {
    level: Level,
    #[serde(default)]
    users: Vec<String>,
    #[serde(default)]
    user_groups: Vec<String>,
    #[serde(default)]
    verbs: Vec<String>,
    #[serde(default)]
    resources: Vec<Resources>,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default, rename = "nonResourceURLs")]
    urls: Vec<String>,
    #[serde(default)]
    omit_stages: Vec<Stage>,
    omit_managed_fields: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Resources {
    #[serde(default)]
    group: String,
    #[serde(default)]
    resources: Vec<String>,
    #[serde(default)]
    resource_names: Vec<String>,
}

/// What a policy says about one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    pub level: Level,
    pub omitted: Vec<Stage>,
    pub without_managed_fields: bool,
}

impl Policy {
    /// Reads the YAML or JSON of a policy, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Policy, String> {
        let policy: Policy = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
        if policy.api_version != "audit.k8s.io/v1" || policy.kind != "Policy" {
            return Err(format!(
                "{} of {} is not a Policy of audit.k8s.io/v1",
                policy.kind, policy.api_version
            ));
        }
        if policy.rules.is_empty() {
            return Err("loaded illegal policy with 0 rules".to_owned());
        }
        for (i, rule) in policy.rules.iter().enumerate() {
            let wrong = |why: String| Err(format!("rules[{i}].{why}"));
            let of_resources = !rule.resources.is_empty() || !rule.namespaces.is_empty();
            if !rule.urls.is_empty() && of_resources {
                return wrong("nonResourceURLs: Invalid value: rules cannot apply to both regular resources and non-resource URLs".to_owned());
            }
            for url in &rule.urls {
                let star = url.find('*');
                if url != "*" && !url.starts_with('/') {
                    return wrong(format!(
                        "nonResourceURLs: Invalid value: {url:?}: non-resource URL rules must begin with a '/' character"
                    ));
                }
                if star.is_some_and(|at| at + 1 != url.len()) {
                    return wrong(format!(
                        "nonResourceURLs: Invalid value: {url:?}: non-resource URL wildcards '*' must be the final character of the rule"
                    ));
                }
            }
            for resources in &rule.resources {
                if !resources.resource_names.is_empty() && resources.resources.is_empty() {
                    return wrong("resources: Invalid value: using resourceNames requires at least one resource".to_owned());
                }
            }
        }
        Ok(policy)
    }

    /// What is to be recorded of a request.
    pub fn judge(&self, user: Option<&UserInfo>, a: &Attributes<'_>) -> Verdict {
        match self.rules.iter().find(|rule| rule.matches(user, a)) {
            Some(rule) => Verdict {
                level: rule.level,
                omitted: [&self.omit_stages[..], &rule.omit_stages].concat(),
                without_managed_fields: rule
                    .omit_managed_fields
                    .unwrap_or(self.omit_managed_fields),
            },
            None => Verdict {
                level: Level::None,
                omitted: self.omit_stages.clone(),
                without_managed_fields: self.omit_managed_fields,
            },
        }
    }
}

impl Rule {
    fn matches(&self, user: Option<&UserInfo>, a: &Attributes<'_>) -> bool {
        let has = |list: &[String], value: &str| list.iter().any(|v| v == value);
        if !self.users.is_empty() && user.is_none_or(|u| !has(&self.users, &u.name)) {
            return false;
        }
        if !self.user_groups.is_empty()
            && user.is_none_or(|u| !u.groups.iter().any(|g| has(&self.user_groups, g)))
        {
            return false;
        }
        if !self.verbs.is_empty() && !has(&self.verbs, a.verb) {
            return false;
        }
        if !self.namespaces.is_empty() || !self.resources.is_empty() {
            return a.path.is_none()
                && (self.namespaces.is_empty() || has(&self.namespaces, a.namespace))
                && (self.resources.is_empty() || self.resources.iter().any(|r| r.matches(a)));
        }
        if self.urls.is_empty() {
            return true;
        }
        a.path.is_some_and(|path| {
            self.urls.iter().any(|url| {
                url == path || url.strip_suffix('*').is_some_and(|p| path.starts_with(p))
            })
        })
    }
}

impl Resources {
    fn matches(&self, a: &Attributes<'_>) -> bool {
        if self.group != a.group && self.group != "*" {
            return false;
        }
        if self.resources.is_empty() {
            return true;
        }
        if !self.resource_names.is_empty() && !self.resource_names.iter().any(|n| n == a.name) {
            return false;
        }
        self.resources.iter().any(|resource| {
            let (of, sub) = match resource.split_once('/') {
                Some((of, sub)) => (of, Some(sub)),
                None => (resource.as_str(), None),
            };
            match sub {
                None if of == "*" => true,
                None => a.subresource.is_empty() && of == a.resource,
                Some("*") => of == a.resource,
                Some(sub) => {
                    !a.subresource.is_empty()
                        && sub == a.subresource
                        && (of == "*" || of == a.resource)
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &str) -> Policy {
        let head = "apiVersion: audit.k8s.io/v1\nkind: Policy\nomitStages: [RequestReceived]\n";
        Policy::parse(&format!("{head}rules:\n{rules}")).expect("a policy")
    }

    fn level(policy: &Policy, verb: &str, resource: &str, subresource: &str, name: &str) -> Level {
        let user = UserInfo::new("ann", &["dev"]);
        let a = Attributes {
            verb,
            resource,
            subresource,
            name,
            namespace: "shop",
            ..Attributes::default()
        };
        policy.judge(Some(&user), &a).level
    }

    #[test]
    fn the_first_rule_that_matches_counts() {
        let policy = policy(
            "- {level: None, users: [bob]}\n\
             - {level: Metadata, resources: [{group: '', resources: [secrets, 'pods/*']}]}\n\
             - {level: Request, verbs: [get], namespaces: [other]}\n\
             - {level: RequestResponse, userGroups: [dev], resources: [{resources: ['*/status']}], omitManagedFields: true}\n\
             - {level: None, resources: [{resources: [configmaps], resourceNames: [leader]}]}\n\
             - {level: Request}\n",
        );
        for (verb, resource, sub, name, expected) in [
            ("get", "secrets", "", "x", Level::Metadata),
            ("get", "secrets", "x", "x", Level::Request),
            ("create", "pods", "exec", "x", Level::Metadata),
            ("create", "pods", "", "x", Level::Metadata),
            ("update", "nodes", "status", "x", Level::RequestResponse),
            ("update", "configmaps", "", "leader", Level::None),
            ("update", "configmaps", "", "other", Level::Request),
        ] {
            assert_eq!(
                level(&policy, verb, resource, sub, name),
                expected,
                "{verb} {resource} {sub} {name}"
            );
        }
    }

    #[test]
    fn paths_are_matched_apart_from_resources() {
        let policy = policy(
            "- {level: None, nonResourceURLs: ['/healthz*', /version]}\n\
             - {level: Metadata, nonResourceURLs: ['*']}\n",
        );
        let of = |path| {
            let a = Attributes {
                verb: "get",
                path: Some(path),
                ..Attributes::default()
            };
            policy.judge(None, &a)
        };
        assert_eq!(of("/healthz/etcd").level, Level::None);
        assert_eq!(of("/version").level, Level::None);
        assert_eq!(of("/metrics").level, Level::Metadata);
        assert_eq!(of("/metrics").omitted, [Stage::RequestReceived]);
        assert_eq!(level(&policy, "get", "pods", "", "x"), Level::None);
    }

    #[test]
    fn wrong_policies_are_refused() {
        for bad in [
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: []",
            "apiVersion: audit.k8s.io/v9\nkind: Policy\nrules: [{level: None}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: All}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: [a]}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, nonResourceURLs: ['/a'], namespaces: [b]}]",
            "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: None, omitStages: [Never]}]",
        ] {
            assert!(Policy::parse(bad).is_err(), "{bad}");
        }
    }
}
