//! ConfigMaps, Secrets, Namespaces, LimitRanges and ResourceQuotas.

use base64::Engine;
use serde_json::Value;

use super::{
    errors::{Errors, quote, show},
    names, resources,
    value::{at, blank, entries, flag, has, list, map, text},
};
use crate::{path::Path, quantity::Quantity};

/// Of a ConfigMap's or Secret's contents together.
const MOST: usize = 1024 * 1024;

fn decoded_len(text: &str) -> usize {
    base64::engine::general_purpose::STANDARD
        .decode(text)
        .map_or(text.len(), |d| d.len())
}

pub fn config_map(object: &Value, e: &mut Errors) {
    let mut size = 0;
    let path = Path::new("data");
    let binary = at(object, "binaryData");
    for (key, value) in entries(object, "data") {
        e.invalid_each(&path.key(key), key, names::config_key(key));
        if binary.get(key).is_some() {
            e.invalid_text(
                &path.key(key),
                key,
                "duplicate of key present in binaryData",
            );
        }
        size += value.as_str().map_or(0, str::len);
    }
    let path = Path::new("binaryData");
    for (key, value) in entries(object, "binaryData") {
        e.invalid_each(&path.key(key), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MOST {
        e.too_long_object(MOST);
    }
}

/// What may not change of one that is immutable.
pub fn config_map_update(new: &Value, old: &Value, e: &mut Errors) {
    frozen(new, old, &["data", "binaryData"], e);
}

fn frozen(new: &Value, old: &Value, fields: &[&str], e: &mut Errors) {
    if !flag(old, "immutable") {
        return;
    }
    const DETAIL: &str = "field is immutable when `immutable` is set";
    if !flag(new, "immutable") {
        e.forbidden(&Path::new("immutable"), DETAIL);
    }
    for field in fields {
        let (new, old) = (at(new, field), at(old, field));
        if new != old && !(blank(new) && blank(old)) {
            e.forbidden(&Path::new(field), DETAIL);
        }
    }
}

pub fn secret_update(new: &Value, old: &Value, e: &mut Errors) {
    if text(new, "type") != text(old, "type") {
        e.invalid_text(&Path::new("type"), text(new, "type"), "field is immutable");
    }
    frozen(new, old, &["data"], e);
}

pub fn secret(object: &Value, e: &mut Errors) {
    let path = Path::new("data");
    let mut size = 0;
    for (key, value) in entries(object, "data") {
        e.invalid_each(&path.key(key), key, names::config_key(key));
        size += value.as_str().map_or(0, decoded_len);
    }
    if size > MOST {
        e.too_long(&path, MOST);
    }
    let data = at(object, "data");
    let lacks = |key: &str| data.get(key).is_none();
    match text(object, "type") {
        "kubernetes.io/service-account-token" => {
            let annotations = at(at(object, "metadata"), "annotations");
            if text(annotations, ACCOUNT).is_empty() {
                let metadata = Path::new("metadata");
                e.required(&metadata.child("annotations").key(ACCOUNT), "");
            }
        }
        "kubernetes.io/dockercfg" => json(data, ".dockercfg", &path, e),
        "kubernetes.io/dockerconfigjson" => json(data, ".dockerconfigjson", &path, e),
        "kubernetes.io/basic-auth" if lacks("username") && lacks("password") => {
            e.required(&path.key("username"), "");
            e.required(&path.key("password"), "");
        }
        "kubernetes.io/ssh-auth" if text(data, "ssh-privatekey").is_empty() => {
            e.required(&path.key("ssh-privatekey"), "");
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"] {
                if lacks(key) {
                    e.required(&path.key(key), "");
                }
            }
        }
        _ => {}
    }
}

const ACCOUNT: &str = "kubernetes.io/service-account.name";

fn json(data: &Value, key: &str, path: &Path<'_>, e: &mut Errors) {
    let path = path.key(key);
    let Some(encoded) = data.get(key).and_then(Value::as_str) else {
        e.required(&path, "");
        return;
    };
    let bytes = base64::engine::general_purpose::STANDARD
        .decode(encoded)
        .unwrap_or_default();
    if let Err(fault) = serde_json::from_slice::<serde_json::Map<String, Value>>(&bytes) {
        e.invalid_text(
            &path,
            "<secret contents redacted>",
            &json_fault(&bytes, &fault),
        );
    }
}

/// The fault in the words of Go's decoder, for its commonest cases.
fn json_fault(bytes: &[u8], fault: &serde_json::Error) -> String {
    if fault.is_eof() {
        return "unexpected end of JSON input".into();
    }
    let first = bytes.iter().position(|b| !b.is_ascii_whitespace());
    let rest = first.map_or(&[][..], |at| &bytes[at..]);
    for word in ["null", "true", "false"] {
        if rest.first() == word.as_bytes().first() {
            let wrong = rest.iter().zip(word.as_bytes()).position(|(a, b)| a != b);
            if let Some(i) = wrong {
                return format!(
                    "invalid character '{}' in literal {word} (expecting '{}')",
                    char::from(rest[i]),
                    char::from(word.as_bytes()[i])
                );
            }
        }
    }
    match rest.first() {
        Some(b) if !b"{[\"-0123456789".contains(b) => format!(
            "invalid character '{}' looking for beginning of value",
            char::from(*b)
        ),
        _ => fault.to_string(),
    }
}

pub fn namespace(object: &Value, e: &mut Errors) {
    let path = Path::new("spec");
    let path = path.child("finalizers");
    for finalizer in list(at(object, "spec"), "finalizers") {
        let name = finalizer.as_str().unwrap_or("");
        e.invalid_each(&path, name, names::qualified_name(name));
        if !name.contains('/') && name != "kubernetes" {
            e.invalid_text(
                &path,
                name,
                "name is neither a standard finalizer name nor is it fully qualified",
            );
        }
    }
}

pub fn limit_range(object: &Value, e: &mut Errors) {
    let path = Path::new("spec");
    let path = path.child("limits");
    let mut kinds: Vec<&str> = Vec::new();
    for (i, limit) in list(at(object, "spec"), "limits").iter().enumerate() {
        let path = path.index(i);
        let kind = text(limit, "type");
        e.invalid_each(&path.child("type"), kind, limit_type(kind));
        if kinds.contains(&kind) {
            e.duplicate_text(&path.child("type"), kind);
        }
        kinds.push(kind);
        limit_item(kind, limit, &path, e);
    }
}

fn limit_type(kind: &str) -> Vec<String> {
    let mut faults = names::qualified_name(kind);
    if faults.is_empty()
        && !kind.contains('/')
        && !matches!(kind, "Pod" | "Container" | "PersistentVolumeClaim")
    {
        faults.push("must be a standard limit type or fully qualified".into());
    }
    faults
}

fn limit_item(kind: &str, limit: &Value, path: &Path<'_>, e: &mut Errors) {
    if kind == "Pod" {
        for field in ["default", "defaultRequest"] {
            if map(limit, field).is_some_and(|m| !m.is_empty()) {
                e.forbidden(
                    &path.child(field),
                    "may not be specified when `type` is 'Pod'",
                );
            }
        }
    }
    if kind == "PersistentVolumeClaim" {
        let given = |f: &str| limit.get(f).is_some_and(|m| m.get("storage").is_some());
        if !given("min") && !given("max") {
            e.required(
                &path.child("limits"),
                "either minimum or maximum storage value is required, but neither was provided",
            );
        }
    }
    let mut all: Vec<&str> = Vec::new();
    for field in [
        "max",
        "min",
        "default",
        "defaultRequest",
        "maxLimitRequestRatio",
    ] {
        let here = path.child(field);
        for (name, _) in entries(limit, field) {
            if kind == "Pod" && field.starts_with("default") {
                continue;
            }
            if matches!(kind, "Pod" | "Container") {
                resources::container_name(name, &here.key(name), e);
            } else {
                resources::name(name, &here.key(name), e);
            }
            if !all.contains(&name) {
                all.push(name);
            }
        }
    }
    for name in all {
        let quantity = |field: &str| at(limit, field).get(name).map(resources::parse);
        let (max, min) = (quantity("max"), quantity("min"));
        let (default, request) = (quantity("default"), quantity("defaultRequest"));
        let ratio = quantity("maxLimitRequestRatio");
        // Each line: what is too large, and what it shows of it (Kubernetes is not careful here).
        let mut over = |field: &str, shown: Option<Quantity>, detail: String| {
            let here = path.child(field);
            let shown = quote(&shown.map_or("0".into(), |q| q.to_string()));
            e.invalid_shown(&here.key(name), &shown, &detail);
        };
        let greater = |a: Option<Quantity>, b: Option<Quantity>| match (a, b) {
            (Some(a), Some(b)) if a > b => Some((a, b)),
            _ => None,
        };
        if let Some((a, b)) = greater(min, max) {
            over(
                "min",
                min,
                format!("min value {a} is greater than max value {b}"),
            );
        }
        if let Some((a, b)) = greater(min, request) {
            over(
                "defaultRequest",
                request,
                format!("min value {a} is greater than default request value {b}"),
            );
        }
        if let Some((a, b)) = greater(request, max) {
            over(
                "defaultRequest",
                request,
                format!("default request value {a} is greater than max value {b}"),
            );
        }
        if let Some((a, b)) = greater(request, default) {
            over(
                "defaultRequest",
                request,
                format!("default request value {a} is greater than default limit value {b}"),
            );
        }
        if let Some((a, b)) = greater(min, default) {
            over(
                "default",
                min,
                format!("min value {a} is greater than default value {b}"),
            );
        }
        if let Some((a, b)) = greater(default, max) {
            over(
                "default",
                max,
                format!("default value {a} is greater than max value {b}"),
            );
        }
        if let Some(ratio) = ratio {
            let one = Quantity::from_milli(1000);
            if ratio < one {
                over(
                    "maxLimitRequestRatio",
                    Some(ratio),
                    format!("ratio {ratio} is less than 1"),
                );
            }
            if let (Some(min), Some(max)) = (min, max) {
                let most = max.as_f64() / min.as_f64();
                if ratio.as_f64() > most {
                    over(
                        "maxLimitRequestRatio",
                        Some(ratio),
                        format!("ratio {ratio} is greater than max/min = {most:.6}"),
                    );
                }
            }
        }
        if let (Some(default), Some(asked)) = (default, request)
            && default != asked
            && !resources::overcommits(name)
        {
            over(
                "defaultRequest",
                request,
                format!(
                    "default value {default} must equal to defaultRequest value {asked} in {name}"
                ),
            );
        }
    }
}

pub fn resource_quota(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let hard = path.child("hard");
    for (name, value) in entries(spec, "hard") {
        let path = hard.key(name);
        resources::quota_name(name, &path, e);
        resources::amount(name, value, &path, e);
    }
    let scopes = list(spec, "scopes");
    let here = path.child("scopes");
    for scope in scopes {
        let name = scope.as_str().unwrap_or("");
        if !SCOPES.contains(&name) {
            e.invalid(&here, at(spec, "scopes"), "unsupported scope");
        }
        for (resource, _) in entries(spec, "hard") {
            if !scope_fits(name, resource) {
                let detail = "unsupported scope applied to resource";
                e.invalid(&here, at(spec, "scopes"), detail);
            }
        }
    }
    conflicts(spec, |name| scopes.iter().any(|s| s == name), &here, e);
    if has(spec, "scopeSelector") {
        scope_selector(spec, &path.child("scopeSelector"), e);
    }
}

const SCOPES: [&str; 7] = [
    "BestEffort",
    "CrossNamespacePodAffinity",
    "NotBestEffort",
    "NotTerminating",
    "PriorityClass",
    "Terminating",
    "VolumeAttributesClass",
];

/// Whether a quota of the scope can limit the resource: most are about pods, one about claims.
fn scope_fits(scope: &str, resource: &str) -> bool {
    if resource.contains('/') || !resources::is_quota(resource) {
        return true;
    }
    let of_pods = || {
        matches!(resource, "pods" | "cpu" | "memory" | "ephemeral-storage")
            || resource.split_once('.').is_some_and(|(kind, rest)| {
                matches!(kind, "requests" | "limits")
                    && (matches!(rest, "cpu" | "memory" | "ephemeral-storage")
                        || resources::is_hugepages(rest))
            })
            || resources::is_hugepages(resource)
    };
    match scope {
        "BestEffort" => resource == "pods",
        "VolumeAttributesClass" => {
            matches!(resource, "persistentvolumeclaims" | "requests.storage")
        }
        "Terminating"
        | "NotTerminating"
        | "NotBestEffort"
        | "PriorityClass"
        | "CrossNamespacePodAffinity" => of_pods(),
        _ => true,
    }
}

fn conflicts(spec: &Value, holds: impl Fn(&str) -> bool, path: &Path<'_>, e: &mut Errors) {
    for (a, b) in [
        ("BestEffort", "NotBestEffort"),
        ("Terminating", "NotTerminating"),
    ] {
        if holds(a) && holds(b) {
            e.invalid(path, at(spec, "scopes"), "conflicting scopes");
        }
    }
}

fn scope_selector(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let expressions = path.child("matchExpressions");
    let requirements = list(at(spec, "scopeSelector"), "matchExpressions");
    for requirement in requirements {
        let (operator, values) = (text(requirement, "operator"), list(requirement, "values"));
        let scope = text(requirement, "scopeName");
        if !SCOPES.contains(&scope) {
            e.invalid_text(&expressions.child("scopeName"), scope, "unsupported scope");
        }
        for (resource, _) in entries(spec, "hard") {
            if !scope_fits(scope, resource) {
                let detail = "unsupported scope applied to resource";
                e.invalid(&expressions, at(spec, "scopeSelector"), detail);
            }
        }
        let valued = matches!(scope, "PriorityClass" | "VolumeAttributesClass");
        if SCOPES.contains(&scope) && !valued && operator != "Exists" {
            e.invalid_text(
                &expressions.child("operator"),
                operator,
                "must be 'Exists' when scope is any of ResourceQuotaScopeTerminating, ResourceQuotaScopeNotTerminating, ResourceQuotaScopeBestEffort, ResourceQuotaScopeNotBestEffort or ResourceQuotaScopeCrossNamespacePodAffinity",
            );
        }
        match operator {
            "In" | "NotIn" if values.is_empty() => e.required(
                &expressions.child("values"),
                "must be at least one value when `operator` is 'In' or 'NotIn' for scope selector",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => e.invalid_shown(
                &expressions.child("values"),
                &show(at(requirement, "values")),
                "must be no value when `operator` is 'Exist' or 'DoesNotExist' for scope selector",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => e.invalid_text(
                &expressions.child("operator"),
                operator,
                "not a valid selector operator",
            ),
        }
    }
    let holds = |name: &str| requirements.iter().any(|r| text(r, "scopeName") == name);
    conflicts(spec, holds, &expressions, e);
}

/// What a quota's status says.
pub fn quota_status(object: &Value, e: &mut Errors) {
    let status = Path::new("status");
    for field in ["hard", "used"] {
        let here = status.child(field);
        for (name, value) in entries(at(object, "status"), field) {
            let path = here.key(name);
            resources::quota_name(name, &path, e);
            resources::amount(name, value, &path, e);
        }
    }
}

/// A namespace's phase follows from whether it is being deleted.
pub fn namespace_status(object: &Value, e: &mut Errors) {
    let phase = text(at(object, "status"), "phase");
    let deleting = has(at(object, "metadata"), "deletionTimestamp");
    let status = Path::new("status");
    let path = status.child("Phase");
    if deleting && phase != "Terminating" {
        let detail = "may only be 'Terminating' if `deletionTimestamp` is not empty";
        e.invalid_text(&path, phase, detail);
    } else if !deleting && phase != "Active" {
        let detail = "may only be 'Active' if `deletionTimestamp` is empty";
        e.invalid_text(&path, phase, detail);
    }
}
