//! Which requests a webhook or a policy is about: rules, scopes, selectors, as data.

use gantry_machinery::resource::Resource;
use serde_json::Value;

use super::attributes::{Gvr, Operation};
use crate::{object, rules::Labels};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    All,
    Namespaced,
    Cluster,
}

/// One `RuleWithOperations`, with the resource names of a policy's rule.
#[derive(Debug)]
pub struct Rule {
    operations: Vec<String>,
    groups: Vec<String>,
    versions: Vec<String>,
    resources: Vec<String>,
    scope: Scope,
    names: Vec<String>,
}

/// What of a request rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    pub operation: Operation,
    pub resource: &'a Gvr,
    pub subresource: &'a str,
    pub namespaced: bool,
}

impl<'a> Target<'a> {
    pub fn of(
        operation: Operation,
        resource: &Resource,
        gvr: &'a Gvr,
        subresource: &'a str,
    ) -> Target<'a> {
        Target {
            operation,
            resource: gvr,
            subresource,
            namespaced: resource.namespaced(),
        }
    }
}

fn any_or(list: &[String], value: &str) -> bool {
    list.iter().any(|l| l == "*" || l == value)
}

impl Rule {
    fn parse(rule: &Value) -> Rule {
        let list = |field: &str| object::strings(rule.get(field));
        Rule {
            operations: list("operations"),
            groups: list("apiGroups"),
            versions: list("apiVersions"),
            resources: list("resources"),
            scope: match object::text(rule, "/scope") {
                "Namespaced" => Scope::Namespaced,
                "Cluster" => Scope::Cluster,
                _ => Scope::All,
            },
            names: list("resourceNames"),
        }
    }

    /// Whether it is about this resource and operation; names aside.
    fn covers(&self, target: &Target<'_>) -> bool {
        let resource = target.resource;
        let scope = match self.scope {
            Scope::All => true,
            Scope::Namespaced => target.namespaced,
            Scope::Cluster => !target.namespaced,
        };
        scope
            && any_or(&self.operations, target.operation.name())
            && any_or(&self.groups, &resource.group)
            && any_or(&self.versions, &resource.version)
            && self.resources.iter().any(|wanted| {
                let (plural, sub) = wanted.split_once('/').unwrap_or((wanted, ""));
                (plural == "*" || plural == resource.resource)
                    && (sub == "*" || sub == target.subresource)
            })
    }

    fn names(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| n == name)
    }
}

/// Where a request was found to be covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    /// By its own resource.
    Itself,
    /// By another version of the resource, of those given.
    Equivalent(usize),
}

/// The match constraints of a webhook, a policy or a binding.
#[derive(Debug)]
pub struct Matching {
    rules: Vec<Rule>,
    exclude: Vec<Rule>,
    equivalent: bool,
    /// No rules stand for all resources (of a binding).
    open: bool,
    /// `None` selects all.
    pub namespaces: Option<Labels>,
    pub objects: Option<Labels>,
}

/// A label selector; `None` when it selects everything.
fn selector(value: Option<&Value>) -> Option<Labels> {
    let value = value.filter(|v| !v.is_null())?;
    let empty = |field: &str| {
        let part = value.get(field);
        part.is_none_or(|p| {
            p.is_null()
                || p.as_object().is_some_and(serde_json::Map::is_empty)
                || p.as_array().is_some_and(Vec::is_empty)
        })
    };
    if empty("matchLabels") && empty("matchExpressions") {
        return None;
    }
    // What cannot be read was refused when it was written.
    Labels::from_label_selector(value).ok()
}

impl Matching {
    fn parse(value: &Value, rules: &str, open: bool) -> Matching {
        let list = |field: &str| -> Vec<Rule> {
            let all = value.get(field).and_then(Value::as_array);
            all.into_iter().flatten().map(Rule::parse).collect()
        };
        let rules = list(rules);
        Matching {
            open: open && rules.is_empty(),
            rules,
            exclude: list("excludeResourceRules"),
            equivalent: object::text(value, "/matchPolicy") != "Exact",
            namespaces: selector(value.get("namespaceSelector")),
            objects: selector(value.get("objectSelector")),
        }
    }

    /// Of one webhook of a configuration.
    pub fn of_webhook(hook: &Value) -> Matching {
        Matching::parse(hook, "rules", false)
    }

    /// Of `matchConstraints` of a policy or `matchResources` of a binding.
    pub fn of_resources(value: &Value) -> Matching {
        Matching::parse(value, "resourceRules", true)
    }

    fn find(
        &self,
        rules: &[Rule],
        target: &Target<'_>,
        equivalents: &[Gvr],
        name: &str,
    ) -> Option<Found> {
        let named = |r: &Rule| r.names(name);
        if rules.iter().any(|r| r.covers(target) && named(r)) {
            return Some(Found::Itself);
        }
        if !self.equivalent {
            return None;
        }
        for rule in rules {
            for (i, other) in equivalents.iter().enumerate() {
                let as_other = Target {
                    resource: other,
                    ..*target
                };
                if other != target.resource && rule.covers(&as_other) && named(rule) {
                    return Some(Found::Equivalent(i));
                }
            }
        }
        None
    }

    /// Whether the rules cover a request about an object of this name, and as which resource.
    pub fn covers(&self, target: &Target<'_>, equivalents: &[Gvr], name: &str) -> Option<Found> {
        let excluded = self.find(&self.exclude, target, equivalents, name);
        if excluded.is_some() {
            return None;
        }
        if self.open {
            return Some(Found::Itself);
        }
        self.find(&self.rules, target, equivalents, name)
    }

    /// Whether the object, new or old, is selected by its labels.
    pub fn selects_object(&self, object: Option<&Value>, old: Option<&Value>) -> bool {
        let Some(selector) = &self.objects else {
            return true;
        };
        let selected = |object: Option<&Value>| {
            object.is_some_and(|o| {
                let labels = object::meta(o).and_then(|m| m.get("labels"));
                object::meta(o).is_some()
                    && selector.matches(|k| labels.and_then(|l| l.get(k)).and_then(Value::as_str))
            })
        };
        selected(object) || selected(old)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn gvr(text: &str) -> Gvr {
        let parts: Vec<&str> = text.split('/').collect();
        Gvr {
            group: parts[0].to_owned(),
            version: parts[1].to_owned(),
            resource: parts[2].to_owned(),
        }
    }

    fn check(rule: Value, request: &str, expected: Option<Found>) {
        let mut parts = request.split(' ');
        let operation = match parts.next().expect("an operation") {
            "CREATE" => Operation::Create,
            "UPDATE" => Operation::Update,
            "DELETE" => Operation::Delete,
            _ => Operation::Connect,
        };
        let resource = gvr(parts.next().expect("a resource"));
        let subresource = parts.next().expect("a subresource").trim_matches('-');
        let target = Target {
            operation,
            resource: &resource,
            subresource,
            namespaced: !matches!(resource.resource.as_str(), "nodes" | "namespaces"),
        };
        let equivalents = [gvr("x.io/v1/things"), gvr("x.io/v2/things")];
        let equivalents = if resource.group == "x.io" {
            &equivalents[..]
        } else {
            &[]
        };
        let matching = Matching::of_webhook(&rule);
        let found = matching.covers(&target, equivalents, "x");
        assert_eq!(found, expected, "{rule} {request}");
    }

    fn rule(operations: &str, group: &str, version: &str, resource: &str, scope: &str) -> Value {
        json!({"rules": [{
            "operations": operations.split(',').collect::<Vec<_>>(), "apiGroups": [group],
            "apiVersions": [version], "resources": [resource], "scope": scope,
        }]})
    }

    #[test]
    fn rules_cover_operations_groups_versions_resources_and_scopes() {
        let (yes, no) = (Some(Found::Itself), None);
        let pods = |ops: &str| rule(ops, "", "v1", "pods", "*");
        check(pods("CREATE"), "CREATE /v1/pods -", yes);
        check(pods("UPDATE,DELETE"), "CREATE /v1/pods -", no);
        check(pods("*"), "CONNECT /v1/pods -", yes);
        check(pods("*"), "CONNECT /v1/pods exec", no);
        check(pods("*"), "CREATE apps/v1/pods -", no);
        check(pods("*"), "CREATE /v2/pods -", no);
        let all = |resource: &str| rule("*", "*", "*", resource, "*");
        check(all("*"), "CREATE /v1/nodes -", yes);
        check(all("*"), "UPDATE /v1/nodes status", no);
        check(all("*/*"), "UPDATE /v1/nodes status", yes);
        check(all("*/*"), "UPDATE /v1/nodes -", yes);
        check(all("*/status"), "UPDATE /v1/nodes status", yes);
        check(all("*/status"), "UPDATE /v1/nodes -", no);
        check(all("pods/*"), "CONNECT /v1/pods exec", yes);
        check(all("pods/*"), "CREATE /v1/pods -", yes);
        check(all("pods/exec"), "CONNECT /v1/pods attach", no);
        let scoped = |scope: &str| rule("*", "*", "*", "*", scope);
        check(scoped("Namespaced"), "CREATE /v1/pods -", yes);
        check(scoped("Namespaced"), "CREATE /v1/namespaces -", no);
        check(scoped("Cluster"), "CREATE /v1/namespaces -", yes);
        check(scoped("Cluster"), "CREATE /v1/pods -", no);
    }

    #[test]
    fn other_versions_count_where_the_policy_says_so() {
        let v1 = rule("*", "x.io", "v1", "things", "*");
        check(v1.clone(), "CREATE x.io/v1/things -", Some(Found::Itself));
        check(
            v1.clone(),
            "CREATE x.io/v2/things -",
            Some(Found::Equivalent(0)),
        );
        let mut exact = v1;
        exact["matchPolicy"] = "Exact".into();
        check(exact, "CREATE x.io/v2/things -", None);
    }

    #[test]
    fn policies_name_objects_and_exclude_resources() {
        let pods = gvr("/v1/pods");
        let target = Target {
            operation: Operation::Create,
            resource: &pods,
            subresource: "",
            namespaced: true,
        };
        let all = json!({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"]});
        let mut one = all.clone();
        one["resourceNames"] = json!(["a"]);
        for (resources, name, expected) in [
            (json!({"resourceRules": [one]}), "a", true),
            (json!({"resourceRules": [one]}), "b", false),
            (
                json!({"resourceRules": [all], "excludeResourceRules": [one]}),
                "a",
                false,
            ),
            (
                json!({"resourceRules": [all], "excludeResourceRules": [one]}),
                "b",
                true,
            ),
            (json!({}), "b", true),
            (json!({"excludeResourceRules": [all]}), "b", false),
        ] {
            let matching = Matching::of_resources(&resources);
            let found = matching.covers(&target, &[], name).is_some();
            assert_eq!(found, expected, "{resources} {name}");
        }
    }

    #[test]
    fn an_object_is_selected_by_its_new_or_its_old_labels() {
        let hook = json!({"objectSelector": {"matchLabels": {"a": "1"}}});
        let labelled = json!({"metadata": {"labels": {"a": "1"}}});
        let (bare, shapeless) = (json!({"metadata": {}}), json!({"stdin": true}));
        let matching = Matching::of_webhook(&hook);
        assert!(matching.selects_object(Some(&labelled), None));
        assert!(matching.selects_object(Some(&bare), Some(&labelled)));
        assert!(matching.selects_object(None, Some(&labelled)));
        assert!(!matching.selects_object(Some(&bare), None));
        let absent = json!({"objectSelector": {"matchExpressions": [{"key": "a", "operator": "DoesNotExist"}]}});
        let matching = Matching::of_webhook(&absent);
        assert!(matching.selects_object(Some(&bare), None));
        assert!(
            !matching.selects_object(Some(&shapeless), None),
            "it has no metadata"
        );
        assert!(Matching::of_webhook(&json!({"objectSelector": {}})).selects_object(None, None));
    }
}
