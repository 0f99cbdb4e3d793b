//! Static pods as a kubelet shows them: mirrors in the API, marked by annotations (`pkg/kubelet/types`).

use crate::{
    behaviour::Draw,
    clock::Millis,
    options::{SIMULATED, StaticPod},
};
use serde_json::{Value, json};

/// Annotation of a mirror: the hash of its static pod.
pub const MIRROR: &str = "kubernetes.io/config.mirror";
/// Annotation of a static pod: the hash of what the file says.
pub const HASH: &str = "kubernetes.io/config.hash";

/// The hash of a static pod on a node.
#[must_use]
pub fn static_hash(it: &StaticPod, node: &str) -> String {
    let draw = Draw::new(0)
        .word("static")
        .word(node)
        .word(&format!("{it:?}"));
    format!("{:016x}{:016x}", draw.bits(), draw.number(1).bits())
}

/// The mirror of a static pod: owned by the node, so that it goes when the node does.
#[must_use]
pub fn mirror(it: &StaticPod, hash: &str, node: &str, node_uid: &str, now: Millis) -> Value {
    let mut requests = serde_json::Map::new();
    for (name, amount) in [("cpu", &it.cpu), ("memory", &it.memory)] {
        if let Some(amount) = amount {
            requests.insert(name.to_owned(), amount.as_str().into());
        }
    }
    let mut spec = json!({
        "nodeName": node,
        "hostNetwork": it.host_network,
        "restartPolicy": "Always",
        "automountServiceAccountToken": false,
        "tolerations": [{"operator": "Exists", "effect": "NoExecute"}],
        "containers": [{"name": it.name, "image": it.image, "resources": {"requests": requests}}],
    });
    if let Some(class) = &it.priority_class {
        spec["priorityClassName"] = class.as_str().into();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": format!("{}-{node}", it.name),
            "namespace": it.namespace,
            "labels": it.labels,
            "annotations": {
                MIRROR: hash,
                HASH: hash,
                "kubernetes.io/config.seen": now.to_string(),
                "kubernetes.io/config.source": "file",
                SIMULATED: "a static pod of a simulated node",
            },
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Node", "name": node, "uid": node_uid, "controller": true,
            }],
        },
        "spec": spec,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_is_marked_as_kubelets_mark_it() {
        let it = StaticPod {
            name: "kube-proxy".into(),
            image: "registry.k8s.io/kube-proxy:v1.36.0".into(),
            cpu: Some("100m".into()),
            priority_class: Some("system-node-critical".into()),
            ..StaticPod::default()
        };
        let hash = static_hash(&it, "n-1");
        assert_eq!(hash.len(), 32);
        assert_ne!(hash, static_hash(&it, "n-2"));
        let mirror = mirror(&it, &hash, "n-1", "uid-n-1", Millis(1_700_000_000_000));
        let meta = &mirror["metadata"];
        assert_eq!(meta["name"], "kube-proxy-n-1");
        assert_eq!(meta["namespace"], "kube-system");
        assert_eq!(
            (&meta["annotations"][MIRROR], &meta["annotations"][HASH]),
            (&json!(hash), &json!(hash))
        );
        assert_eq!(meta["ownerReferences"][0]["uid"], "uid-n-1");
        assert_eq!(mirror["spec"]["priorityClassName"], "system-node-critical");
        assert_eq!(mirror["spec"]["hostNetwork"], true);
    }
}
