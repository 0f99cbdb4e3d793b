//! The quality-of-service class of a pod.

use crate::path::At as _;
use serde_json::Value;

use crate::quantity::Quantity;

/// A pod's class (`k8s.io/component-helpers/…/qos`): Guaranteed when every container has equal
/// limits and requests of CPU and memory, BestEffort when none has any. Where the pod itself has
/// resources, these alone count.
pub fn qos_class(pod: &Value) -> &'static str {
    let (mut any, mut guaranteed) = (false, true);
    let whole = pod.get("spec").filter(|s| s.get("resources").is_some());
    let containers = ["/spec/containers", "/spec/initContainers"]
        .iter()
        .filter(|_| whole.is_none())
        .filter_map(|p| pod.at(p).and_then(Value::as_array))
        .flatten()
        .chain(whole);
    for container in containers {
        for resource in ["cpu", "memory"] {
            let get = |kind: &str| {
                let text = container
                    .get("resources")?
                    .get(kind)?
                    .get(resource)?
                    .as_str()?;
                Quantity::parse(text).ok().filter(|q| !q.is_zero())
            };
            let (request, limit) = (get("requests"), get("limits"));
            any |= request.is_some() || limit.is_some();
            guaranteed &= limit.is_some() && (request.is_none() || request == limit);
        }
    }
    match (any, guaranteed) {
        (false, _) => "BestEffort",
        (true, true) => "Guaranteed",
        (true, false) => "Burstable",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn follows_requests_and_limits() {
        let pod = |resources: Value| json!({"spec": {"containers": [{"resources": resources}]}});
        let full = json!({"cpu": "1", "memory": "1Gi"});
        let same = json!({"cpu": "1000m", "memory": "1024Mi"});
        assert_eq!(qos_class(&pod(json!({}))), "BestEffort");
        assert_eq!(
            qos_class(&pod(json!({"limits": full, "requests": same}))),
            "Guaranteed"
        );
        assert_eq!(qos_class(&pod(json!({"requests": full}))), "Burstable");
        let whole = |resources: Value| json!({"spec": {"resources": resources, "containers": [{"resources": {"requests": {"cpu": "1"}}}]}});
        let equal = json!({"limits": full, "requests": full});
        assert_eq!(qos_class(&whole(equal)), "Guaranteed");
        assert_eq!(qos_class(&whole(json!({"requests": full}))), "Burstable");
        let none = json!({"cpu": "0", "memory": "0"});
        assert_eq!(qos_class(&pod(json!({"requests": none}))), "BestEffort");
    }
}
