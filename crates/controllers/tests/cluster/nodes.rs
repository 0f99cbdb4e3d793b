//! A node that falls silent.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_silent_node_is_told_unknown_loses_its_pods_and_comes_back() {
    let rig = Rig::new().await;
    let nodes = rig.api("", "v1", "Node", "nodes", "");
    let node = |name: &str| json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    if namespaces
        .get_opt("kube-node-lease")
        .await
        .unwrap()
        .is_none()
    {
        let own = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-node-lease"}});
        create(&namespaces, own).await;
    }
    let leases = rig.api(
        "coordination.k8s.io",
        "v1",
        "Lease",
        "leases",
        "kube-node-lease",
    );
    for name in ["alive", "silent"] {
        create(&nodes, node(name)).await;
        create(&leases, json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": name},
            "spec": {"holderIdentity": name}}))
        .await;
        nodes
            .patch_status(
                name,
                &PatchParams::default(),
                &Patch::Strategic(ready.clone()),
            )
            .await
            .unwrap();
    }
    // One node keeps on renewing, so that not all are down.
    let renewing = {
        let leases = leases.clone();
        tokio::spawn(async move {
            loop {
                let now = jiff::Timestamp::now()
                    .strftime("%Y-%m-%dT%H:%M:%S%.6fZ")
                    .to_string();
                let renewal = Patch::Merge(json!({"spec": {"renewTime": now}}));
                let _ = leases
                    .patch("alive", &PatchParams::default(), &renewal)
                    .await;
                tokio::time::sleep(Duration::from_millis(300)).await;
            }
        })
    };
    let pod = |name: &str, seconds: Value| {
        let mut spec = template("one")["spec"].clone();
        spec["nodeName"] = "silent".into();
        spec["tolerations"] = json!([{"key": "node.kubernetes.io/unreachable", "operator": "Exists",
            "effect": "NoExecute", "tolerationSeconds": seconds}]);
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
    };
    create(&rig.pods(), pod("soon", json!(0))).await;
    create(&rig.pods(), pod("stays", Value::Null)).await;
    let name = |o: &DynamicObject| o.metadata.name.clone().unwrap();
    rig.until_list(&rig.pods(), "", name, &["stays"]).await;
    let lost = nodes.get("silent").await.unwrap();
    let condition = &lost.data["status"]["conditions"][0];
    assert_eq!(condition["status"], "Unknown");
    assert_eq!(condition["reason"], "NodeStatusUnknown");
    let taints = |node: &DynamicObject| -> Vec<String> {
        let mut taints: Vec<String> = node.data["spec"]["taints"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|t| {
                format!(
                    "{}:{}",
                    t["key"].as_str().unwrap(),
                    t["effect"].as_str().unwrap()
                )
            })
            .collect();
        taints.sort();
        taints
    };
    assert_eq!(
        taints(&lost),
        [
            "node.kubernetes.io/unreachable:NoExecute",
            "node.kubernetes.io/unreachable:NoSchedule"
        ]
    );
    assert!(taints(&nodes.get("alive").await.unwrap()).is_empty());

    // The kubelet is back: it reports, and the taints go.
    leases
        .patch(
            "silent",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"renewTime": "2026-01-01T00:00:00.000000Z"}})),
        )
        .await
        .unwrap();
    nodes
        .patch_status("silent", &PatchParams::default(), &Patch::Strategic(ready))
        .await
        .unwrap();
    rig.until(
        "taints gone",
        async || taints(&nodes.get("silent").await.unwrap()),
        Vec::is_empty,
    )
    .await;
    // What `kubectl describe node` shows of it.
    let events = rig.api("", "v1", "Event", "events", "default");
    let told = async || {
        let all = events.list(&Default::default()).await.unwrap();
        let of_node = |e: &DynamicObject| e.data["involvedObject"]["kind"] == "Node";
        let all = all.items.into_iter().filter(of_node);
        let mut all: Vec<String> = all
            .map(|e| format!("{} {}", e.data["reason"], e.data["message"]).replace('"', ""))
            .filter(|e| e.contains("silent"))
            .collect();
        all.sort();
        all
    };
    nodes.delete("silent", &Default::default()).await.unwrap();
    let all = rig
        .until("its events", told, |all: &Vec<String>| all.len() == 3)
        .await;
    assert_eq!(
        all,
        [
            "NodeNotReady Node silent status is now: NodeNotReady",
            "RegisteredNode Node silent event: Registered Node silent in Controller",
            "RemovingNode Node silent event: Removing Node silent from Controller",
        ]
    );
    renewing.abort();
    rig.end().await;
}
