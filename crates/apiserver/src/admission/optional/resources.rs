//! ExtendedResourceToleration: who asks for a device may go where only those are let who do.

use std::collections::BTreeSet;

use serde_json::{Value, json};

/// Whether a resource is neither Kubernetes' own nor a quota's `requests.`.
fn extended(name: &str) -> bool {
    name.contains('/')
        && !name.starts_with("requests.")
        && !name
            .split('/')
            .next()
            .is_some_and(|domain| domain == "kubernetes.io" || domain.ends_with(".kubernetes.io"))
}

pub fn tolerate(pod: &mut Value) {
    let mut wanted = BTreeSet::new();
    for list in ["initContainers", "containers"] {
        let containers = pod.pointer(&format!("/spec/{list}"));
        for container in containers.and_then(Value::as_array).into_iter().flatten() {
            let requests = container.pointer("/resources/requests");
            let names = requests.and_then(Value::as_object).into_iter().flatten();
            wanted.extend(names.map(|(name, _)| name.clone()).filter(|n| extended(n)));
        }
    }
    let Some(spec) = pod.get_mut("spec").filter(|_| !wanted.is_empty()) else {
        return;
    };
    if spec.get("tolerations").is_none_or(Value::is_null) {
        spec["tolerations"] = json!([]);
    }
    let Some(own) = spec["tolerations"].as_array_mut() else {
        return;
    };
    for key in wanted {
        let toleration = json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        if !own.contains(&toleration) {
            own.push(toleration);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_tolerated_by_their_names() {
        let of = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
        for (requests, given, expected) in [
            (json!({"cpu": "1"}), json!(null), json!(null)),
            (
                json!({"hugepages-2Mi": "1", "requests.x.io/a": "1"}),
                json!(null),
                json!(null),
            ),
            (
                json!({"kubernetes.io/a": "1", "x.kubernetes.io/b": "1"}),
                json!(null),
                json!(null),
            ),
            (
                json!({"x.io/b": "1", "a.io/gpu": "2"}),
                json!(null),
                json!([of("a.io/gpu"), of("x.io/b")]),
            ),
            (
                json!({"a.io/gpu": "2"}),
                json!([of("a.io/gpu")]),
                json!([of("a.io/gpu")]),
            ),
        ] {
            let mut pod = json!({"spec": {
                "containers": [{"resources": {"requests": requests}}], "tolerations": given}});
            tolerate(&mut pod);
            assert_eq!(pod["spec"]["tolerations"], expected, "{requests}");
        }
    }
}
