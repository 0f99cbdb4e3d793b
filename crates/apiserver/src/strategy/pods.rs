//! What pods get when they are created, beside what admission gives them.

use gantry_machinery::path::At as _;
use serde_json::{Map, Value, json};

/// `matchLabelKeys` and `mismatchLabelKeys` become requirements of the selectors beside them, with
/// what the pod's own labels say (KEP-3633, KEP-3243): schedulers then need not look at them.
pub fn merge_label_keys(pod: &mut Value) {
    let labels = pod.at("/metadata/labels").and_then(Value::as_object);
    let labels = labels.cloned().unwrap_or_default();
    let Some(spec) = pod.get_mut("spec") else {
        return;
    };
    for kind in ["podAffinity", "podAntiAffinity"] {
        let at = format!("/affinity/{kind}");
        let Some(affinity) = spec.pointer_mut(&at) else {
            continue;
        };
        for term in list(affinity, "preferredDuringSchedulingIgnoredDuringExecution") {
            if let Some(term) = term.get_mut("podAffinityTerm") {
                merge(term, &labels);
            }
        }
        for term in list(affinity, "requiredDuringSchedulingIgnoredDuringExecution") {
            merge(term, &labels);
        }
    }
    for constraint in list(spec, "topologySpreadConstraints") {
        merge(constraint, &labels);
    }
}

fn list<'a>(of: &'a mut Value, field: &str) -> impl Iterator<Item = &'a mut Value> {
    let all = of.get_mut(field).and_then(Value::as_array_mut);
    all.into_iter().flatten()
}

/// One selector. Without it nothing matches, whatever the keys.
fn merge(term: &mut Value, labels: &Map<String, Value>) {
    let mut added = vec![];
    for (field, operator) in [("matchLabelKeys", "In"), ("mismatchLabelKeys", "NotIn")] {
        let keys = term.get(field).and_then(Value::as_array);
        for key in keys.into_iter().flatten().filter_map(Value::as_str) {
            if let Some(value) = labels.get(key) {
                added.push(json!({"key": key, "operator": operator, "values": [value]}));
            }
        }
    }
    let selector = term.get_mut("labelSelector").and_then(Value::as_object_mut);
    if let Some(selector) = selector.filter(|_| !added.is_empty()) {
        let all = selector
            .entry("matchExpressions")
            .or_insert_with(|| json!([]));
        if let Some(all) = all.as_array_mut() {
            all.extend(added);
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const REQUIRED: &str = "requiredDuringSchedulingIgnoredDuringExecution";
    const PREFERRED: &str = "preferredDuringSchedulingIgnoredDuringExecution";

    #[rstest]
    #[case(json!({"labelSelector": {}, "matchLabelKeys": ["app", "none"]}), json!({"matchExpressions": [{"key": "app", "operator": "In", "values": ["a"]}]}))]
    #[case(json!({"labelSelector": {"matchExpressions": [{"key": "x", "operator": "Exists"}]}, "mismatchLabelKeys": ["rev"]}),
        json!({"matchExpressions": [{"key": "x", "operator": "Exists"}, {"key": "rev", "operator": "NotIn", "values": ["1"]}]}))]
    #[case::no_selector(json!({"matchLabelKeys": ["app"]}), json!(null))]
    #[case::no_keys(json!({"labelSelector": {"matchLabels": {"a": "b"}}}), json!({"matchLabels": {"a": "b"}}))]
    fn keys_become_requirements(#[case] term: Value, #[case] selector: Value) {
        let preferred = json!([{"weight": 1, "podAffinityTerm": term}]);
        let mut pod = json!({
            "metadata": {"labels": {"app": "a", "rev": "1"}},
            "spec": {
                "affinity": {"podAffinity": {REQUIRED: [term]}, "podAntiAffinity": {PREFERRED: preferred}},
                "topologySpreadConstraints": [term],
            },
        });
        merge_label_keys(&mut pod);
        for at in [
            format!("/spec/affinity/podAffinity/{REQUIRED}/0"),
            format!("/spec/affinity/podAntiAffinity/{PREFERRED}/0/podAffinityTerm"),
            "/spec/topologySpreadConstraints/0".to_owned(),
        ] {
            let term = pod.pointer(&at).unwrap();
            let found = term.get("labelSelector").unwrap_or(&Value::Null);
            assert_eq!(found, &selector, "{at}");
        }
    }
}
