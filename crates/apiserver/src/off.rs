//! Fields of features that are off by default in Kubernetes 1.36, and so here: what a client writes into them is dropped,
//! unless the stored object has something there. Only of what schedulers and drivers of devices read.

use serde_json::Value;

use crate::api::Cx;

/// Where a pod's template is.
const TEMPLATE: &str = "spec/template/spec/";
/// GenericWorkload.
const GROUP: &str = "schedulingGroup";

/// The fields by group and plural; `*` is each element.
fn fields(group: &str, plural: &str) -> &'static [&'static str] {
    match (group, plural) {
        ("", "pods") => &[
            "spec/schedulingGroup",
            // DRANodeAllocatableResources
            "status/nodeAllocatableResourceClaimStatuses",
        ],
        // DRAListTypeAttributes, DRANodeAllocatableResources
        ("resource.k8s.io", "resourceslices") => &[
            "spec/devices/*/attributes/*/bools",
            "spec/devices/*/attributes/*/ints",
            "spec/devices/*/attributes/*/strings",
            "spec/devices/*/attributes/*/versions",
            "spec/devices/*/nodeAllocatableResourceMappings",
        ],
        // VolumeLimitScaling
        ("storage.k8s.io", "csidrivers") => &["spec/preventPodSchedulingIfMissing"],
        _ => &[],
    }
}

/// Where a kind has a template of pods.
fn template(group: &str, plural: &str) -> Option<&'static str> {
    match (group, plural) {
        ("", "replicationcontrollers")
        | ("apps", "deployments" | "statefulsets" | "daemonsets" | "replicasets")
        | ("batch", "jobs") => Some(TEMPLATE),
        ("batch", "cronjobs") => Some("spec/jobTemplate/spec/template/spec/"),
        ("", "podtemplates") => Some("template/spec/"),
        _ => None,
    }
}

/// Whether there is something at a path.
fn used(value: &Value, path: &str) -> bool {
    let (first, rest) = match path.split_once('/') {
        Some((first, rest)) => (first, rest),
        None => return value.get(path).is_some_and(|v| !v.is_null()),
    };
    match (first, value) {
        ("*", Value::Array(all)) => all.iter().any(|v| used(v, rest)),
        ("*", Value::Object(all)) => all.values().any(|v| used(v, rest)),
        _ => value.get(first).is_some_and(|v| used(v, rest)),
    }
}

fn remove(value: &mut Value, path: &str) {
    let Some((first, rest)) = path.split_once('/') else {
        if let Some(map) = value.as_object_mut() {
            map.remove(path);
        }
        return;
    };
    match (first, value) {
        ("*", Value::Array(all)) => all.iter_mut().for_each(|v| remove(v, rest)),
        ("*", Value::Object(all)) => all.values_mut().for_each(|v| remove(v, rest)),
        (_, value) => {
            if let Some(inner) = value.get_mut(first) {
                remove(inner, rest);
            }
        }
    }
}

/// Drops what is of features that are off.
pub fn drop(cx: &Cx, object: &mut Value, old: Option<&Value>) {
    let resource = cx.resource();
    of(&resource.group, &resource.plural, object, old);
}

fn of(group: &str, plural: &str, object: &mut Value, old: Option<&Value>) {
    let mut one = |path: &str| {
        if used(object, path) && !old.is_some_and(|old| used(old, path)) {
            remove(object, path);
        }
    };
    for path in fields(group, plural) {
        one(path);
    }
    if let Some(template) = template(group, plural) {
        one(&format!("{template}{GROUP}"));
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::json;

    use super::*;

    #[rstest]
    #[case("", "pods", json!({"spec": {"schedulingGroup": {"podGroupName": "g"}, "a": 1}}), json!({"spec": {"a": 1}}))]
    #[case("", "pods", json!({"status": {"nodeAllocatableResourceClaimStatuses": []}}), json!({"status": {}}))]
    #[case("apps", "deployments", json!({"spec": {"template": {"spec": {"schedulingGroup": {}}}}}),
        json!({"spec": {"template": {"spec": {}}}}))]
    #[case("batch", "cronjobs", json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {"schedulingGroup": {}}}}}}}),
        json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {}}}}}}))]
    #[case("resource.k8s.io", "resourceslices",
        json!({"spec": {"devices": [{"name": "d", "nodeAllocatableResourceMappings": {"cpu": {}},
            "attributes": {"a": {"ints": [1, 2]}, "b": {"int": 1}}}]}}),
        json!({"spec": {"devices": [{"name": "d", "attributes": {"a": {}, "b": {"int": 1}}}]}}))]
    #[case("storage.k8s.io", "csidrivers", json!({"spec": {"preventPodSchedulingIfMissing": true}}), json!({"spec": {}}))]
    #[case("", "configmaps", json!({"spec": {"schedulingGroup": {}}}), json!({"spec": {"schedulingGroup": {}}}))]
    fn what_is_off_is_dropped_unless_it_is_there(
        #[case] group: &str,
        #[case] plural: &str,
        #[case] object: Value,
        #[case] want: Value,
    ) {
        let mut new = object.clone();
        of(group, plural, &mut new, None);
        assert_eq!(new, want);
        let mut again = object.clone();
        of(group, plural, &mut again, Some(&object));
        assert_eq!(again, object);
    }
}
