//! Label selectors, node selectors, tolerations, taints and affinity.

use serde_json::Value;

use super::{
    errors::Errors,
    metadata, names,
    value::{at, entries, has, int, list, text},
};
use crate::path::Path;

/// A `LabelSelector`.
pub fn label_selector(selector: &Value, path: &Path<'_>, e: &mut Errors) {
    if selector.is_null() {
        return;
    }
    metadata::labels(selector, "matchLabels", &path.child("matchLabels"), e);
    let expressions = path.child("matchExpressions");
    for (i, requirement) in list(selector, "matchExpressions").iter().enumerate() {
        let path = expressions.index(i);
        let values = list(requirement, "values");
        let operator = text(requirement, "operator");
        match operator {
            "In" | "NotIn" if values.is_empty() => e.required(
                &path.child("values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "Exists" | "DoesNotExist" if !values.is_empty() => e.forbidden(
                &path.child("values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => e.invalid_text(
                &path.child("operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        let key = text(requirement, "key");
        e.invalid_each(&path.child("key"), key, names::qualified_name(key));
        let values_path = path.child("values");
        for (i, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or("");
            e.invalid_each(&values_path.index(i), value, names::label_value(value));
        }
    }
}

/// Whether nothing is asked: such a selector matches everything.
pub fn is_empty(selector: &Value) -> bool {
    entries(selector, "matchLabels").is_empty() && list(selector, "matchExpressions").is_empty()
}

/// Whether labels fulfil a selector.
pub fn matches(selector: &Value, labels: &Value) -> bool {
    let has_all = entries(selector, "matchLabels")
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    has_all
        && list(selector, "matchExpressions").iter().all(|r| {
            let found = labels.get(text(r, "key"));
            let among = found.is_some_and(|v| list(r, "values").contains(v));
            match text(r, "operator") {
                "In" => among,
                "NotIn" => !among,
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}

/// A `NodeSelector`: terms of which one must hold.
pub fn node_selector(selector: &Value, path: &Path<'_>, e: &mut Errors) {
    let terms_path = path.child("nodeSelectorTerms");
    let terms = list(selector, "nodeSelectorTerms");
    if terms.is_empty() {
        e.required(&terms_path, "must have at least one node selector term");
        return;
    }
    for (i, term) in terms.iter().enumerate() {
        node_selector_term(term, &terms_path.index(i), e);
    }
}

fn node_selector_term(term: &Value, path: &Path<'_>, e: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(requirement, &expressions.index(i), e);
    }
    let fields = path.child("matchFields");
    for (i, requirement) in list(term, "matchFields").iter().enumerate() {
        let path = fields.index(i);
        let (operator, values) = (text(requirement, "operator"), list(requirement, "values"));
        match operator {
            "In" | "NotIn" if values.len() != 1 => e.required(
                &path.child("values"),
                "must be only one value when `operator` is 'In' or 'NotIn' for node field selector",
            ),
            "In" | "NotIn" => {}
            _ => e.invalid_text(
                &path.child("operator"),
                operator,
                "not a valid selector operator",
            ),
        }
        let key = text(requirement, "key");
        if key != "metadata.name" {
            e.invalid_text(&path.child("key"), key, "not a valid field selector key");
        } else {
            let path = path.child("values");
            for (i, value) in values.iter().enumerate() {
                let value = value.as_str().unwrap_or("");
                e.invalid_each(&path.index(i), value, names::dns1123_subdomain(value));
            }
        }
    }
}

fn node_requirement(requirement: &Value, path: &Path<'_>, e: &mut Errors) {
    let values = list(requirement, "values");
    let operator = text(requirement, "operator");
    let values_path = path.child("values");
    match operator {
        "In" | "NotIn" => {
            if values.is_empty() {
                e.required(
                    &values_path,
                    "must be specified when `operator` is 'In' or 'NotIn'",
                );
            }
        }
        "Exists" | "DoesNotExist" => {
            if !values.is_empty() {
                e.forbidden(
                    &values_path,
                    "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
                );
            }
        }
        "Gt" | "Lt" => {
            if values.len() != 1 {
                e.required(
                    &values_path,
                    "must be specified single value when `operator` is 'Lt' or 'Gt'",
                );
            }
        }
        _ => e.invalid_text(
            &path.child("operator"),
            operator,
            "not a valid selector operator",
        ),
    }
    let key = text(requirement, "key");
    e.invalid_each(&path.child("key"), key, names::qualified_name(key));
}

/// `spec.affinity`
pub fn affinity(affinity: &Value, path: &Path<'_>, e: &mut Errors) {
    let node_path = path.child("nodeAffinity");
    let node = at(affinity, "nodeAffinity");
    if has(node, REQUIRED) {
        node_selector(at(node, REQUIRED), &node_path.child(REQUIRED), e);
    }
    let preferred = node_path.child(PREFERRED);
    for (i, term) in list(node, PREFERRED).iter().enumerate() {
        let path = preferred.index(i);
        weight(term, &path, e);
        node_selector_term(at(term, "preference"), &path.child("preference"), e);
    }
    for kind in ["podAffinity", "podAntiAffinity"] {
        let pods = at(affinity, kind);
        let path = path.child(kind);
        let required = path.child(REQUIRED);
        for (i, term) in list(pods, REQUIRED).iter().enumerate() {
            pod_affinity_term(term, &required.index(i), e);
        }
        let preferred = path.child(PREFERRED);
        for (i, term) in list(pods, PREFERRED).iter().enumerate() {
            let path = preferred.index(i);
            weight(term, &path, e);
            pod_affinity_term(
                at(term, "podAffinityTerm"),
                &path.child("podAffinityTerm"),
                e,
            );
        }
    }
}

const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

fn weight(term: &Value, path: &Path<'_>, e: &mut Errors) {
    let weight = int(term, "weight").unwrap_or(0);
    if !(1..=100).contains(&weight) {
        e.invalid_int(&path.child("weight"), weight, "must be in the range 1-100");
    }
}

fn pod_affinity_term(term: &Value, path: &Path<'_>, e: &mut Errors) {
    label_selector(at(term, "labelSelector"), &path.child("labelSelector"), e);
    label_selector(
        at(term, "namespaceSelector"),
        &path.child("namespaceSelector"),
        e,
    );
    let namespaces = path.child("namespaces");
    for name in list(term, "namespaces") {
        let name = name.as_str().unwrap_or("");
        e.invalid_each(&namespaces, name, names::dns1123_label(name));
    }
    label_keys(term, path, e);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        e.required(&path.child("topologyKey"), "can not be empty");
    } else {
        e.invalid_each(&path.child("topologyKey"), key, names::qualified_name(key));
    }
}

/// `matchLabelKeys` and `mismatchLabelKeys` need a selector and may not repeat its keys.
fn label_keys(term: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        let keys = list(term, field);
        if keys.is_empty() {
            continue;
        }
        let path = path.child(field);
        if !has(term, "labelSelector") {
            e.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys.iter().enumerate() {
            let key = key.as_str().unwrap_or("");
            e.invalid_each(&path.index(i), key, names::qualified_name(key));
        }
    }
}

const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

/// `spec.tolerations`
pub fn tolerations(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    for (i, toleration) in list(spec, "tolerations").iter().enumerate() {
        let path = path.index(i);
        let (key, operator) = (text(toleration, "key"), text(toleration, "operator"));
        let (value, effect) = (text(toleration, "value"), text(toleration, "effect"));
        if !key.is_empty() {
            e.invalid_each(&path.child("key"), key, names::qualified_name(key));
        } else if operator != "Exists" {
            e.invalid_text(
                &path.child("operator"),
                operator,
                "operator must be Exists when `key` is empty, which means \"match all values and all keys\"",
            );
        }
        if has(toleration, "tolerationSeconds") && effect != "NoExecute" {
            e.invalid_text(
                &path.child("effect"),
                effect,
                "effect must be 'NoExecute' when `tolerationSeconds` is set",
            );
        }
        match operator {
            "" | "Equal" => {
                e.invalid_each(&path.child("operator"), value, names::label_value(value));
            }
            "Exists" => {
                if !value.is_empty() {
                    e.invalid_text(
                        &path.child("operator"),
                        value,
                        "value must be empty when `operator` is 'Exists'",
                    );
                }
            }
            _ => e.not_supported(&path.child("operator"), operator, &["Equal", "Exists"]),
        }
        if !effect.is_empty() && !EFFECTS.contains(&effect) {
            e.not_supported(&path.child("effect"), effect, &EFFECTS);
        }
    }
}

/// A node's taints.
pub fn taints(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut seen: Vec<(&str, &str)> = Vec::new();
    for (i, taint) in list(spec, "taints").iter().enumerate() {
        let path = path.index(i);
        let (key, value) = (text(taint, "key"), text(taint, "value"));
        let effect = text(taint, "effect");
        e.invalid_each(&path.child("key"), key, names::qualified_name(key));
        e.invalid_each(&path.child("value"), value, names::label_value(value));
        if effect.is_empty() {
            e.required(&path.child("effect"), "");
        } else if !EFFECTS.contains(&effect) {
            e.not_supported(&path.child("effect"), effect, &EFFECTS);
        }
        if seen.contains(&(key, effect)) {
            e.duplicate_shown(&path, &super::errors::show(taint));
        }
        seen.push((key, effect));
    }
}
