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
        node_selector_term(term, true, &terms_path.index(i), e);
    }
}

/// `strict` where values must be ones that labels can have.
fn node_selector_term(term: &Value, strict: bool, path: &Path<'_>, e: &mut Errors) {
    let expressions = path.child("matchExpressions");
    for (i, requirement) in list(term, "matchExpressions").iter().enumerate() {
        node_requirement(requirement, strict, &expressions.index(i), e);
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

fn node_requirement(requirement: &Value, strict: bool, path: &Path<'_>, e: &mut Errors) {
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
    for (i, value) in values.iter().enumerate().filter(|_| strict) {
        let value = value.as_str().unwrap_or("");
        e.invalid_each(&values_path.index(i), value, names::label_value(value));
    }
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
        node_selector_term(at(term, "preference"), false, &path.child("preference"), e);
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
    // The path is Kubernetes': in the singular, without position.
    let namespaces = path.child("namespace");
    for name in list(term, "namespaces") {
        let name = name.as_str().unwrap_or("");
        e.invalid_each(&namespaces, name, names::dns1123_label(name));
    }
    label_keys(term, path, e);
    let key = text(term, "topologyKey");
    if key.is_empty() {
        e.required(&path.child("topologyKey"), "can not be empty");
    }
    e.invalid_each(&path.child("topologyKey"), key, names::qualified_name(key));
}

fn keys<'a>(term: &'a Value, field: &str) -> impl Iterator<Item = (usize, &'a str)> {
    let all = list(term, field).iter().enumerate();
    all.map(|(i, key)| (i, key.as_str().unwrap_or("")))
}

/// `matchLabelKeys` and `mismatchLabelKeys` need a selector, and no key may be in both.
fn label_keys(term: &Value, path: &Path<'_>, e: &mut Errors) {
    for field in ["matchLabelKeys", "mismatchLabelKeys"] {
        if list(term, field).is_empty() {
            continue;
        }
        let path = path.child(field);
        if !has(term, "labelSelector") {
            e.forbidden(&path, "must not be specified when labelSelector is not set");
            continue;
        }
        for (i, key) in keys(term, field) {
            e.invalid_each(&path.index(i), key, names::qualified_name(key));
        }
    }
    // The keys were added to the selector already: what is there twice was given as well.
    let selector = at(term, "labelSelector");
    let mut seen: Vec<&str> = entries(selector, "matchLabels")
        .iter()
        .map(|(k, _)| *k)
        .collect();
    for expression in list(selector, "matchExpressions") {
        let key = text(expression, "key");
        let place = keys(term, "matchLabelKeys").find(|(_, k)| *k == key);
        if let Some((i, _)) = place
            && seen.contains(&key)
        {
            let detail = "exists in both matchLabelKeys and labelSelector";
            e.invalid_text(&path.index(i), key, detail);
        }
        seen.push(key);
    }
    let here = path.child("matchLabelKeys");
    for (i, key) in keys(term, "matchLabelKeys") {
        if keys(term, "mismatchLabelKeys").any(|(_, k)| k == key) {
            let detail = "exists in both matchLabelKeys and mismatchLabelKeys";
            e.invalid_text(&here.index(i), key, detail);
        }
    }
}

/// `matchLabelKeys` of a spread constraint.
pub fn spread_keys(constraint: &Value, path: &Path<'_>, e: &mut Errors) {
    if list(constraint, "matchLabelKeys").is_empty() {
        return;
    }
    let selector = at(constraint, "labelSelector");
    if selector.is_null() {
        e.forbidden(path, "must not be specified when labelSelector is not set");
    }
    for (i, key) in keys(constraint, "matchLabelKeys") {
        let here = path.index(i);
        e.invalid_each(&here, key, names::qualified_name(key));
        let expressions = list(selector, "matchExpressions");
        // Also these keys were added, as requirements of one value: what stands among the labels,
        // or twice, was given as well.
        let twice = expressions.iter().filter(|x| text(x, "key") == key).count() > 1;
        if twice || at(selector, "matchLabels").get(key).is_some() {
            let detail = "exists in both matchLabelKeys and labelSelector";
            e.invalid_text(&here, key, detail);
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
                let faults = names::label_value(value);
                if !faults.is_empty() {
                    e.invalid_text(&path.child("operator"), value, &faults.join(";"));
                }
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
        let faults = names::label_value(value);
        if !faults.is_empty() {
            e.invalid_text(&path.child("value"), value, &faults.join(";"));
        }
        if effect.is_empty() {
            e.required(&path.child("effect"), "");
        } else if !EFFECTS.contains(&effect) {
            e.not_supported(&path.child("effect"), effect, &EFFECTS);
        }
        if seen.contains(&(key, effect)) {
            let shown = super::security::internal(
                taint,
                &[
                    ("Key", "key"),
                    ("Value", "value"),
                    ("Effect", "effect"),
                    ("TimeAdded", "timeAdded"),
                ],
            );
            let detail = "taints must be unique by key and effect pair";
            e.duplicate_detailed(&path, &shown, detail);
            continue;
        }
        seen.push((key, effect));
    }
}
