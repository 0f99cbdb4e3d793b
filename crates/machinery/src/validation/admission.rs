//! Webhook configurations, and what they share with admission policies: rules and conditions.

use serde_json::Value;

use super::{
    errors::Errors,
    names, selectors,
    value::{at, has, int, list, text},
};
use crate::{
    path::Path,
    policy::{Compiler, Wanted},
};

pub(super) const FAILURE_POLICIES: &[&str] = &["Fail", "Ignore"];
pub(super) const REINVOCATION_POLICIES: &[&str] = &["IfNeeded", "Never"];
const MATCH_POLICIES: &[&str] = &["Equivalent", "Exact"];
const OPERATIONS: &[&str] = &["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
const SCOPES: &[&str] = &["*", "Cluster", "Namespaced"];
const SIDE_EFFECTS: &[&str] = &["None", "NoneOnDryRun"];
/// The versions of AdmissionReview that a webhook may be asked in.
const REVIEWS: [&str; 2] = ["v1", "v1beta1"];
const MOST_CONDITIONS: usize = 64;

/// Mutating and validating webhook configurations. What an old one got away with, its updates may
/// keep.
pub fn webhooks(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let before = old.map_or(&[][..], |old| list(old, "webhooks"));
    let names_unique = !twice(before);
    let effects_known = before
        .iter()
        .all(|hook| SIDE_EFFECTS.contains(&text(hook, "sideEffects")));
    let hooks = list(object, "webhooks");
    let path = Path::new("webhooks");
    let mut seen: Vec<&str> = Vec::new();
    for (i, hook) in hooks.iter().enumerate() {
        let path = path.index(i);
        let name = text(hook, "name");
        e.fully_qualified(&path.child("name"), name);
        for (j, rule) in list(hook, "rules").iter().enumerate() {
            rule_with_operations(rule, &path.child("rules").index(j), e);
        }
        one_of(hook, "failurePolicy", FAILURE_POLICIES, &path, e);
        one_of(hook, "matchPolicy", MATCH_POLICIES, &path, e);
        let effects = text(hook, "sideEffects");
        if effects.is_empty() {
            e.required(
                &path.child("sideEffects"),
                "must specify one of None, NoneOnDryRun",
            );
        } else if effects_known && !SIDE_EFFECTS.contains(&effects) {
            e.not_supported(&path.child("sideEffects"), effects, SIDE_EFFECTS);
        }
        if let Some(seconds) = int(hook, "timeoutSeconds")
            && !(1..=30).contains(&seconds)
        {
            e.invalid_int(
                &path.child("timeoutSeconds"),
                seconds,
                "the timeout value must be between 1 and 30 seconds",
            );
        }
        for selector in ["namespaceSelector", "objectSelector"] {
            selectors::label_selector(at(hook, selector), &path.child(selector), e);
        }
        one_of(hook, "reinvocationPolicy", REINVOCATION_POLICIES, &path, e);
        client(at(hook, "clientConfig"), &path.child("clientConfig"), e);
        let same = before
            .get(i)
            .is_some_and(|o| at(o, "matchConditions") == at(hook, "matchConditions"));
        if !same || before.len() != hooks.len() {
            conditions(hook, false, &path.child("matchConditions"), e);
        }
        let field = "admissionReviewVersions";
        let missing = "must specify one of v1, v1beta1";
        review_versions(at(hook, field), missing, &path.child(field), e);
        if names_unique && !name.is_empty() {
            if seen.contains(&name) {
                e.duplicate_text(&path.child("name"), name);
            }
            seen.push(name);
        }
    }
}

fn twice(hooks: &[Value]) -> bool {
    let names: Vec<&str> = hooks.iter().map(|hook| text(hook, "name")).collect();
    (1..names.len()).any(|i| names[..i].contains(&names[i]))
}

/// A field that, when given, is one of these.
pub(super) fn one_of(
    value: &Value,
    field: &str,
    supported: &[&str],
    path: &Path<'_>,
    e: &mut Errors,
) {
    let given = text(value, field);
    if has(value, field) && !supported.contains(&given) {
        e.not_supported(&path.child(field), given, supported);
    }
}

/// The versions of reviews that a webhook takes.
fn review_versions(given: &Value, missing: &str, path: &Path<'_>, e: &mut Errors) {
    let all = given.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return e.required(path, missing);
    }
    let mut seen = vec![];
    for (i, version) in all.iter().enumerate() {
        let version = version.as_str().unwrap_or_default();
        if seen.contains(&version) {
            e.invalid_text(&path.index(i), version, "duplicate version");
            continue;
        }
        seen.push(version);
        e.invalid_each(&path.index(i), version, names::dns1035_label(version));
    }
    if !seen.iter().any(|v| REVIEWS.contains(v)) {
        e.invalid(path, given, "must include at least one of v1, v1beta1");
    }
}

/// `matchConditions` of a webhook or a policy.
pub(super) fn conditions(value: &Value, params: bool, path: &Path<'_>, e: &mut Errors) {
    let all = list(value, "matchConditions");
    if all.len() > MOST_CONDITIONS {
        e.too_many(path, all.len(), MOST_CONDITIONS);
    }
    let compiler = Compiler::new(params);
    let mut seen = vec![];
    for (i, condition) in all.iter().enumerate() {
        let path = path.index(i);
        let expression = text(condition, "expression").trim();
        if expression.is_empty() {
            e.required(&path.child("expression"), "");
        } else if let Err(why) = compiler.compile(expression, Wanted::Bool, true) {
            e.invalid_text(&path.child("expression"), expression, &why);
        }
        let name = text(condition, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
            continue;
        }
        e.invalid_each(&path.child("name"), name, names::qualified_name(name));
        if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        seen.push(name);
    }
}

/// A rule of a webhook or a policy.
pub(super) fn rule_with_operations(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    let wild = |field: &str| list(rule, field).iter().any(|v| v == "*");
    let operations = list(rule, "operations");
    let at_operations = path.child("operations");
    if operations.is_empty() {
        e.required(&at_operations, "");
    }
    if operations.len() > 1 && wild("operations") {
        e.invalid(
            &at_operations,
            at(rule, "operations"),
            "if '*' is present, must not specify other operations",
        );
    }
    for (i, operation) in operations.iter().enumerate() {
        let operation = operation.as_str().unwrap_or_default();
        if !OPERATIONS.contains(&operation) {
            e.not_supported(&at_operations.index(i), operation, OPERATIONS);
        }
    }
    for (field, others) in [
        (
            "apiGroups",
            "if '*' is present, must not specify other API groups",
        ),
        (
            "apiVersions",
            "if '*' is present, must not specify other API versions",
        ),
    ] {
        let all = list(rule, field);
        let path = path.child(field);
        if all.is_empty() {
            e.required(&path, "");
        }
        if all.len() > 1 && wild(field) {
            e.invalid(&path, at(rule, field), others);
        }
        if field == "apiVersions" {
            for (i, _) in all.iter().enumerate().filter(|(_, v)| *v == "") {
                e.required(&path.index(i), "");
            }
        }
    }
    resources(rule, &path.child("resources"), e);
    one_of(rule, "scope", SCOPES, path, e);
}

fn resources(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    let all = list(rule, "resources");
    if all.is_empty() {
        e.required(path, "");
    }
    // Resources of which all subresources are named, and subresources named of all resources.
    let (mut whole, mut everywhere) = (vec![], vec![]);
    let (mut double, mut single, mut plain) = (false, false, false);
    for (i, resource) in all.iter().enumerate() {
        let resource = resource.as_str().unwrap_or_default();
        if resource.is_empty() {
            e.required(&path.index(i), "");
            continue;
        }
        double |= resource == "*/*";
        single |= resource == "*";
        let Some((of, sub)) = resource.split_once('/') else {
            plain = resource != "*";
            continue;
        };
        if whole.contains(&of) {
            e.invalid_text(
                &path.index(i),
                resource,
                &format!("if '{of}/*' is present, must not specify {resource}"),
            );
        }
        if everywhere.contains(&sub) {
            e.invalid_text(
                &path.index(i),
                resource,
                &format!("if '*/{sub}' is present, must not specify {resource}"),
            );
        }
        if sub == "*" {
            whole.push(of);
        }
        if of == "*" {
            everywhere.push(sub);
        }
    }
    if all.len() > 1 && double {
        e.invalid(
            path,
            at(rule, "resources"),
            "if '*/*' is present, must not specify other resources",
        );
    }
    if single && plain {
        e.invalid(
            path,
            at(rule, "resources"),
            "if '*' is present, must not specify other resources without subresources",
        );
    }
}

/// `matchConstraints` of a policy, `matchResources` of a binding.
pub(super) fn match_resources(value: &Value, path: &Path<'_>, e: &mut Errors) {
    if !has(value, "matchPolicy") {
        e.required(&path.child("matchPolicy"), "");
    }
    one_of(value, "matchPolicy", MATCH_POLICIES, path, e);
    for selector in ["namespaceSelector", "objectSelector"] {
        if has(value, selector) {
            selectors::label_selector(at(value, selector), &path.child(selector), e);
        } else {
            e.required(&path.child(selector), "");
        }
    }
    for field in ["resourceRules", "excludeResourceRules"] {
        for (i, rule) in list(value, field).iter().enumerate() {
            let path = path.child(field);
            let path = path.index(i);
            let mut seen = vec![];
            for (j, name) in list(rule, "resourceNames").iter().enumerate() {
                let name = name.as_str().unwrap_or_default();
                let path = path.child("resourceNames");
                e.invalid_each(&path.index(j), name, names::path_segment(name));
                if seen.contains(&name) {
                    e.duplicate_text(&path.index(j), name);
                }
                seen.push(name);
            }
            rule_with_operations(rule, &path, e);
        }
    }
}

/// The webhook that converts between versions of a definition: `spec.conversion.webhook`.
pub(crate) fn conversion(webhook: &Value, path: &Path<'_>, e: &mut Errors) {
    let at_client = path.child("webhookClientConfig");
    client(at(webhook, "clientConfig"), &at_client, e);
    let field = "conversionReviewVersions";
    review_versions(at(webhook, field), "", &path.child(field), e);
}

const FORM: &str = "; desired format: https://host[/path]";

/// Where a webhook is called: exactly one of a URL and a Service.
fn client(config: &Value, path: &Path<'_>, e: &mut Errors) {
    match (has(config, "url"), has(config, "service")) {
        (true, true) | (false, false) => {
            e.required(path, "exactly one of url or service is required");
        }
        (false, true) => service(at(config, "service"), &path.child("service"), e),
        (true, false) => url(text(config, "url"), &path.child("url"), e),
    }
}

fn url(url: &str, path: &Path<'_>, e: &mut Errors) {
    let (rest, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (scheme, rest) = rest.split_once("://").unwrap_or(("", rest));
    let authority = if scheme.is_empty() {
        ""
    } else {
        rest.split('/').next().unwrap_or_default()
    };
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if scheme != "https" {
        e.invalid_text(
            path,
            scheme,
            &format!("'https' is the only allowed URL scheme{FORM}"),
        );
    }
    if host.is_empty() {
        e.invalid_text(path, host, &format!("host must be specified{FORM}"));
    }
    if let Some(user) = user {
        e.invalid_text(path, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        e.invalid_text(path, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        e.invalid_text(path, query, "query parameters are not permitted in the URL");
    }
}

fn service(service: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["name", "namespace"] {
        if text(service, field).is_empty() {
            e.required(&path.child(field), &format!("service {field} is required"));
        }
    }
    let port = int(service, "port").unwrap_or(443);
    let faults = names::port(port);
    if !faults.is_empty() {
        let faults = faults.join(", ");
        e.invalid_int(
            &path.child("port"),
            port,
            &format!("port is not valid: {faults}"),
        );
    }
    let whole = text(service, "path");
    let path = path.child("path");
    if matches!(whole, "" | "/") {
        return;
    }
    if whole == "//" {
        return e.invalid_text(&path, whole, "segment[0] may not be empty");
    }
    if !whole.starts_with('/') {
        e.invalid_text(&path, whole, "must start with a '/'");
    }
    let steps = whole.get(1..).unwrap_or_default();
    let steps = steps.strip_suffix('/').unwrap_or(steps);
    for (i, step) in steps.split('/').enumerate() {
        if step.is_empty() {
            e.invalid_text(&path, whole, &format!("segment[{i}] may not be empty"));
            continue;
        }
        for fault in names::dns1123_subdomain(step) {
            e.invalid_text(&path, whole, &format!("segment[{i}]: {fault}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(change: impl FnOnce(&mut Value)) -> Vec<String> {
        let mut hook = json!({
            "name": "a.example.com", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": {"url": "https://example.com/x"},
            "rules": [{"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["pods"]}],
        });
        change(&mut hook);
        let mut errors = Errors::default();
        webhooks(&json!({"webhooks": [hook]}), None, &mut errors);
        let causes = errors.into_causes();
        causes
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect()
    }

    #[test]
    fn what_is_wrong_with_a_webhook_is_said_as_kubernetes_says_it() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
        let cases: [(&str, Value, &str); 16] = [
            (
                "/name",
                json!("a.b"),
                "name: Invalid value: \"a.b\": should be a domain with at least three segments separated by dots",
            ),
            (
                "/sideEffects",
                json!("Some"),
                "sideEffects: Unsupported value: \"Some\": supported values: \"None\", \"NoneOnDryRun\"",
            ),
            (
                "/admissionReviewVersions",
                json!(["v9"]),
                "admissionReviewVersions: Invalid value: [\"v9\"]: must include at least one of v1, v1beta1",
            ),
            (
                "/admissionReviewVersions",
                json!(["v1", "v1"]),
                "admissionReviewVersions[1]: Invalid value: \"v1\": duplicate version",
            ),
            (
                "/timeoutSeconds",
                json!(31),
                "timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
            ),
            (
                "/clientConfig",
                json!({}),
                "clientConfig: Required value: exactly one of url or service is required",
            ),
            (
                "/clientConfig",
                json!({"url": "http://x"}),
                "clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
            ),
            (
                "/clientConfig",
                json!({"url": "https://u@x?a=b"}),
                "clientConfig.url: Invalid value: \"u\": user information is not permitted in the URL",
            ),
            (
                "/clientConfig",
                json!({"service": {"name": "s"}}),
                "clientConfig.service.namespace: Required value: service namespace is required",
            ),
            (
                "/clientConfig",
                json!({"service": {"name": "s", "namespace": "n", "path": "/a//b"}}),
                "clientConfig.service.path: Invalid value: \"/a//b\": segment[1] may not be empty",
            ),
            (
                "/clientConfig",
                json!({"service": {"name": "s", "namespace": "n", "port": 0}}),
                "clientConfig.service.port: Invalid value: 0: port is not valid: must be between 1 and 65535, inclusive",
            ),
            (
                "/rules/0/operations",
                json!(["*", "CREATE"]),
                "rules[0].operations: Invalid value: [\"*\",\"CREATE\"]: if '*' is present, must not specify other operations",
            ),
            (
                "/rules/0/resources",
                json!(["pods/*", "pods/exec"]),
                "rules[0].resources[1]: Invalid value: \"pods/exec\": if 'pods/*' is present, must not specify pods/exec",
            ),
            (
                "/rules/0/resources",
                json!(["*", "pods"]),
                "rules[0].resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without subresources",
            ),
            (
                "/rules/0/apiVersions",
                json!([]),
                "rules[0].apiVersions: Required value",
            ),
            (
                "/matchConditions",
                json!([{"name": "c", "expression": "1"}]),
                "matchConditions[0].expression: Invalid value: \"1\": must evaluate to bool but got int",
            ),
        ];
        for (pointer, value, expected) in cases {
            let found = faults(|hook| match pointer.rsplit_once('/') {
                Some(("", field)) => hook[field] = value.clone(),
                _ => {
                    if let Some(there) = hook.pointer_mut(pointer) {
                        *there = value.clone();
                    }
                }
            });
            let expected = format!("webhooks[0].{expected}");
            assert!(found.contains(&expected), "{expected}\n{found:#?}");
        }
    }

    #[test]
    fn an_update_may_keep_what_was_wrong_before() {
        let hook = |name: &str| {
            json!({
                "name": name, "sideEffects": "Some", "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://example.com"},
            })
        };
        let twice = json!({"webhooks": [hook("a.example.com"), hook("a.example.com")]});
        let mut errors = Errors::default();
        webhooks(&twice, Some(&twice), &mut errors);
        assert_eq!(errors.len(), 0);
        webhooks(&twice, None, &mut errors);
        assert_eq!(errors.len(), 3);
    }

    #[test]
    fn a_conversion_webhook_must_be_reachable_and_speak() {
        let webhook = json!({"clientConfig": {"url": "http://x"}, "conversionReviewVersions": []});
        let mut errors = Errors::default();
        let spec = Path::new("spec");
        conversion(&webhook, &spec.child("conversion"), &mut errors);
        let found: Vec<String> = errors
            .into_causes()
            .into_iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        assert_eq!(
            found,
            [
                "spec.conversion.webhookClientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; desired format: https://host[/path]",
                "spec.conversion.conversionReviewVersions: Required value",
            ]
        );
    }
}
