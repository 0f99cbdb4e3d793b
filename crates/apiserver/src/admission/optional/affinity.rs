//! LimitPodHardAntiAffinityTopology: pods may keep each other off nodes, not off zones.

use serde_json::Value;

use crate::object;

const ALLOWED: &str = "kubernetes.io/hostname";

pub fn topology(pod: &Value) -> Result<(), String> {
    const TERMS: &str =
        "/spec/affinity/podAntiAffinity/requiredDuringSchedulingIgnoredDuringExecution";
    let terms = pod.pointer(TERMS).and_then(Value::as_array);
    for term in terms.into_iter().flatten() {
        let key = object::text(term, "/topologyKey");
        if key != ALLOWED {
            return Err(format!(
                "affinity.PodAntiAffinity.RequiredDuringScheduling has TopologyKey {key} but only key {ALLOWED} is allowed"
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_nodes_can_be_kept_apart() {
        let pod = |kind: &str, key: &str| json!({"spec": {"affinity": {"podAntiAffinity": {kind: [{"topologyKey": key}]}}}});
        let hard = "requiredDuringSchedulingIgnoredDuringExecution";
        let soft = "preferredDuringSchedulingIgnoredDuringExecution";
        for (pod, allowed) in [
            (json!({"spec": {}}), true),
            (pod(hard, "kubernetes.io/hostname"), true),
            (pod(soft, "zone"), true),
            (pod(hard, "zone"), false),
        ] {
            assert_eq!(topology(&pod).is_ok(), allowed, "{pod}");
        }
    }
}
