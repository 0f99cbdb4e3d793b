//! What the subresources `resize` and `ephemeralcontainers` may change of a pod.

use serde_json::Value;

use super::{
    errors::Errors,
    value::{at, list, same, text},
};
use crate::{path::Path, qos::qos_class};

/// A resize (KEP-1287): CPU and memory of containers change, nothing is removed, the class stays.
pub fn resize(new: &Value, old: &Value, e: &mut Errors) {
    let path = Path::new("spec");
    let class = qos_class(old);
    if qos_class(new) != class {
        e.invalid_text(
            &path,
            class,
            "Pod QOS Class may not change as a result of resizing",
        );
    }
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let mut only = true;
    for field in ["containers", "initContainers"] {
        let here = path.child(field);
        for (i, (new, old)) in list(new, field).iter().zip(list(old, field)).enumerate() {
            let item = here.index(i);
            let here = item.child("resources");
            let (new, old) = (at(new, "resources"), at(old, "resources"));
            for (kind, gone) in [
                ("requests", "resource requests cannot be removed"),
                ("limits", "resource limits cannot be removed"),
            ] {
                let (new, old) = (at(new, kind), at(old, kind));
                let names = |v: &Value| -> Vec<String> {
                    v.as_object()
                        .into_iter()
                        .flatten()
                        .map(|(k, _)| k.clone())
                        .collect()
                };
                if names(old).iter().any(|name| new.get(name).is_none()) {
                    e.forbidden(&here.child(kind), gone);
                }
                only &= names(new)
                    .iter()
                    .all(|n| matches!(n.as_str(), "cpu" | "memory") || new.get(n) == old.get(n));
            }
            only &= same(at(new, "claims"), at(old, "claims"));
        }
    }
    if !only {
        e.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

/// Ephemeral containers are added, never changed nor removed.
pub fn ephemeral(new: &Value, old: &Value, e: &mut Errors) {
    let spec = Path::new("spec");
    let path = spec.child("ephemeralContainers");
    let now = list(at(new, "spec"), "ephemeralContainers");
    for before in list(at(old, "spec"), "ephemeralContainers") {
        let name = text(before, "name");
        let fate = match now.iter().find(|c| text(c, "name") == name) {
            None => "removed",
            Some(after) if after != before => "changed",
            Some(_) => continue,
        };
        let detail = format!("existing ephemeral containers {name:?} may not be {fate}\n");
        e.forbidden(&path, &detail);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn faults(check: fn(&Value, &Value, &mut Errors), new: Value, old: Value) -> Vec<String> {
        let mut errors = Errors::default();
        check(&new, &old, &mut errors);
        let show = |c: crate::status::Cause| format!("{}: {}", c.field, c.message);
        errors.into_causes().into_iter().map(show).collect()
    }

    #[test]
    fn a_resize_keeps_the_class_and_removes_nothing() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let some = json!({"requests": {"cpu": "1", "memory": "1Gi"}});
        let more = json!({"requests": {"cpu": "2", "memory": "1Gi"}});
        let cases = [
            (some.clone(), more.clone(), vec![]),
            (
                some.clone(),
                json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "1", "memory": "1Gi"}}),
                vec![
                    "spec: Invalid value: \"Burstable\": Pod QOS Class may not change as a result of resizing",
                ],
            ),
            (
                some,
                json!({"requests": {"cpu": "1"}}),
                vec![
                    "spec.containers[0].resources.requests: Forbidden: resource requests cannot be removed",
                ],
            ),
            (
                more,
                json!({"requests": {"cpu": "2", "memory": "1Gi", "example.com/x": "1"}}),
                vec!["spec: Forbidden: only cpu and memory resources are mutable"],
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(faults(resize, pod(new), pod(old)), expected);
        }
    }

    #[test]
    fn ephemeral_containers_stay() {
        let pod = |list: Value| json!({"spec": {"ephemeralContainers": list}});
        let (a, b) = (json!({"name": "a", "image": "x"}), json!({"name": "b"}));
        assert!(faults(ephemeral, pod(json!([b, a])), pod(json!([a]))).is_empty());
        assert_eq!(
            faults(ephemeral, pod(json!([])), pod(json!([a]))),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be removed\n"
            ]
        );
        let other = json!({"name": "a", "image": "y"});
        assert_eq!(
            faults(ephemeral, pod(json!([other])), pod(json!([a]))),
            [
                "spec.ephemeralContainers: Forbidden: existing ephemeral containers \"a\" may not be changed\n"
            ]
        );
    }
}
