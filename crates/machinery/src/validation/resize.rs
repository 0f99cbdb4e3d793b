//! What the subresources `resize` and `ephemeralcontainers` may change of a pod.

use serde_json::Value;

use super::{
    errors::Errors,
    value::{at, entries, has, list, same, text},
};
use crate::{path::Path, qos::qos_class};

const MIRROR: &str = "kubernetes.io/config.mirror";

fn of_kubelet(pod: &Value) -> bool {
    has(at(at(pod, "metadata"), "annotations"), MIRROR)
}

/// Why pods of a kind are not resized at all.
pub fn never_resized(old: &Value) -> Option<&'static str> {
    if of_kubelet(old) {
        return Some("static pods cannot be resized");
    }
    let windows = text(at(at(old, "spec"), "os"), "name") == "windows";
    windows.then_some("windows pods cannot be resized")
}

/// Why pods of a kind get no ephemeral containers.
pub fn never_debugged(old: &Value) -> Option<&'static str> {
    of_kubelet(old).then_some("static pods do not support ephemeral containers")
}

/// A resize (KEP-1287): CPU and memory of containers change, and of the pod as a whole (KEP-5419);
/// nothing is removed, the class stays.
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
    if !same_containers(new, old, &path, e) {
        return;
    }
    removed(new, old, &path, e);
    // Sidecars before containers: so Kubernetes looks at what is taken away.
    for field in ["initContainers", "containers"] {
        let here = path.child(field);
        for (i, (new, old)) in list(new, field).iter().zip(list(old, field)).enumerate() {
            if field == "containers" || sidecar(old) {
                removed(new, old, &here.index(i), e);
            }
        }
    }
    let before = e.len();
    for (new, old) in list(new, "containers").iter().zip(list(old, "containers")) {
        if !only_amounts(new, old) {
            e.forbidden(&path, "only cpu and memory resources are mutable");
        }
    }
    for (new, old) in list(new, "initContainers")
        .iter()
        .zip(list(old, "initContainers"))
    {
        if sidecar(old) {
            if !only_amounts(new, old) {
                let detail = "only cpu and memory resources for sidecar containers are mutable";
                e.forbidden(&path, detail);
            }
        } else if !same(at(new, "resources"), at(old, "resources")) {
            let detail = "resources for non-sidecar init containers are immutable";
            e.forbidden(&path, detail);
        }
    }
    if e.len() == before && !only_amounts(new, old) {
        e.forbidden(&path, "only cpu and memory resources are mutable");
    }
}

fn sidecar(container: &Value) -> bool {
    text(container, "restartPolicy") == "Always"
}

/// Whether the containers are the same, in the same order.
fn same_containers(new: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) -> bool {
    let before = e.len();
    for field in ["containers", "initContainers"] {
        let here = path.child(field);
        let (new, old) = (list(new, field), list(old, field));
        if new.len() != old.len() {
            let detail = format!("{field} may not be added or removed on resize");
            e.forbidden(&here, &detail);
            continue;
        }
        for (i, (new, old)) in new.iter().zip(old).enumerate() {
            if text(new, "name") != text(old, "name") {
                let item = here.index(i);
                let detail = format!("{field} may not be renamed or reordered on resize");
                e.forbidden(&item.child("name"), &detail);
            }
        }
    }
    e.len() == before
}

/// What a container (or a pod) requests or is limited to stays, whatever the amount.
fn removed(new: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("resources");
    let (new, old) = (at(new, "resources"), at(old, "resources"));
    for (kind, gone) in [
        ("requests", "resource requests cannot be removed"),
        ("limits", "resource limits cannot be removed"),
    ] {
        let kept = |name: &str| at(new, kind).get(name).is_some();
        if !entries(old, kind).into_iter().all(|(name, _)| kept(name)) {
            e.forbidden(&here.child(kind), gone);
        }
    }
}

/// Whether nothing but CPU and memory differs.
fn only_amounts(new: &Value, old: &Value) -> bool {
    let (new, old) = (at(new, "resources"), at(old, "resources"));
    let others = |v: &Value, kind: &str| -> Vec<(String, Value)> {
        entries(v, kind)
            .into_iter()
            .filter(|(name, _)| !matches!(*name, "cpu" | "memory"))
            .map(|(name, value)| (name.to_owned(), value.clone()))
            .collect()
    };
    let kinds = ["requests", "limits"];
    kinds
        .iter()
        .all(|kind| others(new, kind) == others(old, kind))
        && same(at(new, "claims"), at(old, "claims"))
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
    fn a_resize_leaves_all_else() {
        let amount = |cpu: &str| json!({"requests": {"cpu": cpu}});
        let one = |name: &str, cpu: &str| json!({"name": name, "resources": amount(cpu)});
        let sidecar =
            |cpu: &str| json!({"name": "s", "restartPolicy": "Always", "resources": amount(cpu)});
        let pod = |spec: Value| json!({ "spec": spec });
        let cases = [
            (
                json!({"containers": [one("a", "1"), one("b", "1")]}),
                json!({"containers": [one("b", "1"), one("a", "1")]}),
                vec![
                    "spec.containers[0].name: Forbidden: containers may not be renamed or reordered on resize",
                    "spec.containers[1].name: Forbidden: containers may not be renamed or reordered on resize",
                ],
            ),
            (
                json!({"containers": [one("a", "1")], "initContainers": [one("i", "1")]}),
                json!({"containers": [one("a", "1")], "initContainers": []}),
                vec![
                    "spec.initContainers: Forbidden: initContainers may not be added or removed on resize",
                ],
            ),
            (
                json!({"containers": [one("a", "1")], "initContainers": [one("i", "1")]}),
                json!({"containers": [one("a", "2")], "initContainers": [one("i", "2")]}),
                vec!["spec: Forbidden: resources for non-sidecar init containers are immutable"],
            ),
            (
                json!({"containers": [one("a", "1")], "initContainers": [sidecar("1")]}),
                json!({"containers": [one("a", "1")], "initContainers": [sidecar("2")]}),
                vec![],
            ),
            (
                json!({"containers": [one("a", "1")], "resources": amount("1")}),
                json!({"containers": [one("a", "1")], "resources": amount("2")}),
                vec![],
            ),
            (
                json!({"containers": [one("a", "1")], "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}),
                json!({"containers": [one("a", "1")], "resources": amount("2")}),
                vec!["spec.resources.requests: Forbidden: resource requests cannot be removed"],
            ),
        ];
        for (old, new, expected) in cases {
            assert_eq!(faults(resize, pod(new), pod(old)), expected);
        }
    }

    #[test]
    fn pods_of_kubelets_and_of_windows_are_left_alone() {
        let mirror = json!({"metadata": {"annotations": {MIRROR: "x"}}});
        assert_eq!(
            never_resized(&mirror),
            Some("static pods cannot be resized")
        );
        assert!(never_debugged(&mirror).is_some());
        let windows = json!({"spec": {"os": {"name": "windows"}}});
        assert_eq!(
            never_resized(&windows),
            Some("windows pods cannot be resized")
        );
        assert_eq!(never_debugged(&windows), None);
        assert_eq!(never_resized(&json!({})), None);
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
