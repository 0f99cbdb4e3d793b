//! Where pods may run, and which have to give way.

use serde_json::{Value, json};

use crate::conformance::harness::{
    condition, holds, name, on_cluster, on_own_cluster, pod, unique,
};

fn unschedulable(it: &Value) -> bool {
    condition(it, "PodScheduled")["reason"] == "Unschedulable"
}

#[test]
fn pods_wait_for_labels_room_and_ports() {
    on_cluster(async |kube| {
        let node = name(&kube.list("v1", "nodes", "gantry.dev/simulated=true").await[1]);
        let label = unique("e2e.example.com/here");
        kube.merge(
            "v1",
            "nodes",
            &node,
            json!({"metadata": {"labels": {&label: "42"}}}),
        )
        .await;
        let here = json!({"nodeSelector": {&label: "42"}});
        kube.create(
            "v1",
            "pods",
            pod(
                "nowhere",
                json!({}),
                json!({"nodeSelector": {&label: "no"}}),
                json!({}),
            ),
        )
        .await;
        let huge = json!({"resources": {"requests": {"cpu": "1000"}}});
        kube.create("v1", "pods", pod("huge", json!({}), json!({}), huge))
            .await;
        let port = |address: Option<&str>, protocol: &str| json!({"ports": [{"containerPort": 8080, "hostPort": 54322, "hostIP": address, "protocol": protocol}]});
        kube.create(
            "v1",
            "pods",
            pod(
                "one",
                json!({}),
                here.clone(),
                port(Some("127.0.0.1"), "TCP"),
            ),
        )
        .await;
        kube.running("one").await;
        kube.create(
            "v1",
            "pods",
            pod("any", json!({}), here.clone(), port(None, "TCP")),
        )
        .await;
        kube.create(
            "v1",
            "pods",
            pod("udp", json!({}), here, port(Some("127.0.0.1"), "UDP")),
        )
        .await;
        assert_eq!(kube.running("udp").await["spec"]["nodeName"], node);
        for name in ["nowhere", "huge", "any"] {
            kube.until_object("v1", "pods", name, "waiting", unschedulable)
                .await;
        }
        kube.merge(
            "v1",
            "nodes",
            &node,
            json!({"metadata": {"labels": {&label: null}}}),
        )
        .await;
    });
}

#[test]
fn a_pod_of_higher_priority_takes_the_place_of_a_lower_one() {
    on_cluster(async |kube| {
        let classes = [(unique("low"), 1), (unique("high"), 1000)];
        for (name, value) in &classes {
            let class = json!({"metadata": {"name": name}, "value": value});
            kube.create("scheduling.k8s.io/v1", "priorityclasses", class)
                .await;
        }
        let node = name(&kube.list("v1", "nodes", "gantry.dev/simulated=true").await[2]);
        let resource = unique("example.com/fake");
        kube.update("v1", "nodes", &format!("{node}/status"), |it| {
            for of in ["capacity", "allocatable"] {
                it["status"][of][&resource] = "1".into();
            }
        })
        .await;
        let all = json!({"resources": {"requests": {&resource: "1"}, "limits": {&resource: "1"}}});
        let class = |it: &str| json!({"priorityClassName": it});
        let mut victim = pod("victim", json!({}), class(&classes[0].0), all.clone());
        victim["metadata"]["finalizers"] = json!(["example.com/test"]);
        kube.create("v1", "pods", victim).await;
        kube.running("victim").await;
        kube.create(
            "v1",
            "pods",
            pod("preemptor", json!({}), class(&classes[1].0), all),
        )
        .await;
        let seen = kube
            .until_object("v1", "pods", "victim", "preempted", |it| {
                it["metadata"].get("deletionTimestamp").is_some()
            })
            .await;
        assert_eq!(
            condition(&seen, "DisruptionTarget")["reason"],
            "PreemptionByScheduler"
        );
        kube.merge(
            "v1",
            "pods",
            "victim",
            json!({"metadata": {"finalizers": null}}),
        )
        .await;
        kube.running("preemptor").await;
        for (name, _) in &classes {
            kube.delete("scheduling.k8s.io/v1", "priorityclasses", name)
                .await;
        }
    });
}

#[test]
fn a_taint_evicts_pods_when_their_tolerance_ends_and_nodes_come_and_go() {
    on_own_cluster(async |kube| {
        let fake = json!({"metadata": {"name": "fake"}, "spec": {"unschedulable": true},
            "status": {"capacity": {"cpu": "1"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        kube.create("v1", "nodes", fake).await;
        kube.merge(
            "v1",
            "nodes",
            "fake",
            json!({"metadata": {"labels": {"e2e": "fake"}}}),
        )
        .await;
        assert_eq!(kube.list("v1", "nodes", "e2e=fake").await.len(), 1);
        kube.delete("v1", "nodes", "fake").await;
        kube.until_gone("v1", "nodes", "fake").await;

        let node = name(&kube.list("v1", "nodes", "gantry.dev/simulated=true").await[3]);
        let key = unique("e2e.example.com/evict");
        let tolerant = |seconds: i64| {
            json!({"nodeName": node, "tolerations": [{"key": key, "operator": "Exists", "effect": "NoExecute",
                "tolerationSeconds": seconds}]})
        };
        for (name, seconds) in [("soon", 1), ("late", 600)] {
            kube.create(
                "v1",
                "pods",
                pod(name, json!({}), tolerant(seconds), json!({})),
            )
            .await;
            kube.running(name).await;
        }
        let mut watch = kube.watch("v1", "pods", "").await;
        kube.update("v1", "nodes", &node, |it| {
            let taint = json!({"key": key, "effect": "NoExecute"});
            match it["spec"]["taints"].as_array_mut() {
                Some(taints) => taints.push(taint),
                None => it["spec"]["taints"] = json!([taint]),
            }
        })
        .await;
        let gone = watch
            .until("MODIFIED", |it| {
                it["metadata"].get("deletionTimestamp").is_some()
            })
            .await;
        assert_eq!(name(&gone), "soon");
        assert!(holds(&gone, "DisruptionTarget"));
        kube.update("v1", "nodes", &node, |it| {
            if let Some(taints) = it["spec"]["taints"].as_array_mut() {
                taints.retain(|taint| taint["key"] != *key);
            }
        })
        .await;
        assert!(
            kube.get("v1", "pods", "late").await["metadata"]
                .get("deletionTimestamp")
                .is_none()
        );
    });
}

#[test]
fn a_limit_range_fills_in_and_refuses() {
    on_cluster(async |kube| {
        let limits = json!([{"type": "Container", "min": {"cpu": "50m"}, "max": {"cpu": "500m"},
            "default": {"cpu": "500m"}, "defaultRequest": {"cpu": "100m"}}]);
        kube.create(
            "v1",
            "limitranges",
            json!({"metadata": {"name": "l"}, "spec": {"limits": limits}}),
        )
        .await;
        let resources = |it: &Value| it["spec"]["containers"][0]["resources"].clone();
        let seen = kube
            .create("v1", "pods", pod("none", json!({}), json!({}), json!({})))
            .await;
        assert_eq!(
            resources(&seen),
            json!({"limits": {"cpu": "500m"}, "requests": {"cpu": "100m"}})
        );
        let some = json!({"resources": {"limits": {"cpu": "300m"}}});
        let seen = kube
            .create("v1", "pods", pod("some", json!({}), json!({}), some))
            .await;
        assert_eq!(
            resources(&seen),
            json!({"limits": {"cpu": "300m"}, "requests": {"cpu": "300m"}})
        );
        let little = json!({"resources": {"requests": {"cpu": "10m"}}});
        let (code, _) = kube
            .try_create("v1", "pods", &pod("little", json!({}), json!({}), little))
            .await;
        assert_eq!(code, 403);
    });
}
