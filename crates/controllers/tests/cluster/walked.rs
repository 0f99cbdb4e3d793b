//! What Kubernetes' integration tests of its controllers (`test/integration/…`) expect, walked by
//! hand: each test names the file whose cases it takes up.

use super::*;

fn matching_pod(name: &str, labels: &Value, owners: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": labels, "ownerReferences": owners},
        "spec": {"containers": [{"name": "c", "image": "i"}]}})
}

fn replica_set(name: &str, app: &str, replicas: i32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": app}}, "template": {
            "metadata": {"labels": {"app": app}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}})
}

fn owners(object: &DynamicObject) -> Value {
    serde_json::to_value(&object.metadata.owner_references).unwrap()
}

/// `replicaset/replicaset_test.go`: TestAdoption, TestGeneralPodAdoption.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_adopted_whatever_else_owns_them() {
    let rig = Rig::new().await;
    rig.kubelet.abort();
    let (sets, pods) = (rig.apps("ReplicaSet", "replicasets"), rig.pods());
    // References before and after; `SELF` is the set's uid.
    let own = |more: Value| {
        let mut own =
            json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "SET", "uid": "SELF"});
        for (field, value) in more.as_object().unwrap() {
            own[field] = value.clone();
        }
        own
    };
    let controls = own(json!({"controller": true, "blockOwnerDeletion": true}));
    let other = json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "o", "uid": "1", "controller": false});
    let another = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "o", "uid": "1", "controller": true});
    let cases = [
        (json!([own(json!({}))]), json!([controls])),
        (
            json!([own(json!({"controller": false}))]),
            json!([controls]),
        ),
        (json!([]), json!([controls])),
        (
            json!([own(json!({"controller": true}))]),
            json!([own(json!({"controller": true}))]),
        ),
        (
            json!([another, own(json!({}))]),
            json!([another, own(json!({}))]),
        ),
        (json!([other]), json!([other, controls])),
    ];
    for (n, (before, after)) in cases.into_iter().enumerate() {
        let name = format!("set-{n}");
        let labels = json!({"app": name});
        let set = create(&sets, replica_set(&name, &name, 1)).await;
        let uid = set.metadata.uid.unwrap();
        let filled = |value: &Value| -> Value {
            let text = value.to_string();
            serde_json::from_str(&text.replace("SELF", &uid).replace("SET", &name)).unwrap()
        };
        let pod = format!("pod-{n}");
        // The set has made its one pod already, or will: this one is to be the one that stays.
        let mut made = matching_pod(&pod, &labels, &filled(&before));
        made["metadata"]["annotations"] =
            json!({"controller.kubernetes.io/pod-deletion-cost": "1000"});
        create(&pods, made).await;
        let sorted = |value: Value| {
            let mut list = value.as_array().cloned().unwrap_or_default();
            list.sort_by_key(|o| o["uid"].to_string());
            list
        };
        rig.until(
            &pod,
            async || sorted(owners(&pods.get(&pod).await.unwrap())),
            |seen| *seen == sorted(filled(&after)),
        )
        .await;
    }
    rig.end().await;
}

/// `deployment/deployment_test.go`: TestGeneralReplicaSetAdoption,
/// TestReplicaSetOrphaningAndAdoptionWhenLabelsChange.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_sets_are_adopted_and_let_go() {
    let rig = Rig::new().await;
    let (deployments, sets) = (
        rig.apps("Deployment", "deployments"),
        rig.apps("ReplicaSet", "replicasets"),
    );
    let deployment = create(
        &deployments,
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template("one")}}),
    )
    .await;
    let uid = deployment.metadata.uid.unwrap();
    let all = async || sets.list(&ListParams::default()).await.unwrap().items;
    let set = rig
        .until("set", &all, |sets| sets.len() == 1)
        .await
        .remove(0);
    let name = set.metadata.name.unwrap();
    let refers = |kind: &str, uid: &str| json!({"apiVersion": "apps/v1", "kind": kind, "name": "web", "uid": uid, "controller": false});
    for (reference, count) in [
        (refers("StatefulSet", "1"), 2),
        (refers("Deployment", &uid), 1),
    ] {
        merge(
            &sets,
            &name,
            json!({"metadata": {"ownerReferences": [reference]}}),
        )
        .await;
        rig.until(
            "adopted",
            async || owners(&sets.get(&name).await.unwrap()),
            |owners| {
                let owners = owners.as_array().unwrap();
                let controls = |o: &&Value| o["controller"] == true && o["uid"] == *uid;
                owners.len() == count && owners.iter().filter(controls).count() == 1
            },
        )
        .await;
    }
    merge(
        &sets,
        &name,
        json!({"metadata": {"labels": {"app": null, "new": "label"}}}),
    )
    .await;
    rig.until("let go, and a new one", &all, |sets| {
        let is = |s: &&DynamicObject| s.metadata.name.as_deref() == Some(&name);
        sets.len() == 2 && sets.iter().find(is).is_some_and(|s| owners(s).is_null())
    })
    .await;
    rig.until_status(&deployments, "web", json!({"collisionCount": 1}))
        .await;
    merge(
        &sets,
        &name,
        json!({"metadata": {"labels": {"app": "web"}}}),
    )
    .await;
    rig.until(
        "adopted again",
        async || owners(&sets.get(&name).await.unwrap()),
        |owners| owners[0]["uid"] == *uid,
    )
    .await;
    rig.end().await;
}

/// `disruption/disruption_test.go`: TestPDBWithScaleSubresource, TestEmptySelector,
/// TestSelectorsForPodsWithoutLabels, TestPatchCompatibility.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn budgets_by_scales_and_selectors() {
    let rig = Rig::new().await;
    let definitions = rig.api(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
        "customresourcedefinitions",
        "",
    );
    create(
        &definitions,
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": "crds.mygroup.example.com"}, "spec": {
            "group": "mygroup.example.com", "scope": "Namespaced",
            "names": {"plural": "crds", "singular": "crd", "kind": "Crd", "listKind": "CrdList"},
            "versions": [{"name": "v1beta1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
                "subresources": {"scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}}]}}),
    )
    .await;
    let customs = rig.api("mygroup.example.com", "v1beta1", "Crd", "crds", "default");
    let custom = json!({"apiVersion": "mygroup.example.com/v1beta1", "kind": "Crd",
        "metadata": {"name": "resource"}, "spec": {"replicas": 4}});
    rig.until(
        "served",
        async || {
            customs
                .create(&PostParams::default(), &object(custom.clone()))
                .await
        },
        Result::is_ok,
    )
    .await
    .unwrap();
    let uid = customs.get("resource").await.unwrap().metadata.uid.unwrap();
    let owner = json!([{"apiVersion": "mygroup.example.com/v1beta1", "kind": "Crd", "name": "resource",
        "uid": uid, "controller": true}]);
    let pods = rig.pods();
    for n in 0..4 {
        let labels = json!({"app": "test-crd"});
        create(&pods, matching_pod(&format!("pod-{n}"), &labels, &owner)).await;
    }
    let policy = |namespace: &str| {
        let (kind, plural) = ("PodDisruptionBudget", "poddisruptionbudgets");
        rig.api("policy", "v1", kind, plural, namespace)
    };
    let budget = |name: &str, spec: Value| json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": name}, "spec": spec});
    let budgets = policy("default");
    let selector = json!({"matchLabels": {"app": "test-crd"}});
    create(
        &budgets,
        budget("scale", json!({"maxUnavailable": 2, "selector": selector})),
    )
    .await;
    rig.until_status(
        &budgets,
        "scale",
        json!({"expectedPods": 4, "currentHealthy": 4, "desiredHealthy": 2, "disruptionsAllowed": 2}),
    )
    .await;

    // Everything is selected by an empty selector, also what has no labels.
    for (n, selector) in [
        json!({}),
        json!({"matchExpressions": [{"key": "x", "operator": "DoesNotExist"}]}),
    ]
    .into_iter()
    .enumerate()
    {
        let namespace = format!("labels-{n}");
        let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
        create(
            &namespaces,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
        let budgets = policy(&namespace);
        let spec = json!({"minAvailable": 1, "selector": selector});
        create(&budgets, budget("b", spec)).await;
        rig.until_status(
            &budgets,
            "b",
            json!({"observedGeneration": 1, "currentHealthy": 0}),
        )
        .await;
        let accounts = rig.api("", "v1", "ServiceAccount", "serviceaccounts", &namespace);
        rig.until(
            "account",
            async || accounts.get_opt("default").await.unwrap(),
            Option::is_some,
        )
        .await;
        let pods = rig.api("", "v1", "Pod", "pods", &namespace);
        create(&pods, matching_pod("pod", &json!({}), &json!([]))).await;
        rig.until_status(&budgets, "b", json!({"currentHealthy": 1}))
            .await;
    }

    // How a selector takes patches.
    let base = json!({"matchLabels": {"basematch": "true"},
        "matchExpressions": [{"key": "baseexpression", "operator": "In", "values": ["true"]}]});
    let expressions = json!([{"key": "patchexpression", "operator": "In", "values": ["true"]}]);
    let patch = json!({"apiVersion": "policy/v1", "kind": "PodDisruptionBudget",
        "spec": {"selector": {"matchLabels": {"patchmatch": "true"}, "matchExpressions": expressions}}});
    let replaced = json!({"patchmatch": "true"});
    let merged = json!({"basematch": "true", "patchmatch": "true"});
    let cases = [
        (
            Patch::Strategic(patch.clone()),
            PatchParams::default(),
            &replaced,
        ),
        (Patch::Merge(patch.clone()), PatchParams::default(), &merged),
        (
            Patch::Apply(patch),
            PatchParams::apply("test").force(),
            &replaced,
        ),
    ];
    for (patch, params, labels) in cases {
        create(
            &budgets,
            budget("patched", json!({"maxUnavailable": 2, "selector": base})),
        )
        .await;
        let told = budgets.patch("patched", &params, &patch).await.unwrap();
        let wanted = json!({"matchLabels": labels, "matchExpressions": expressions});
        assert_eq!(told.data["spec"]["selector"], wanted);
        budgets
            .delete("patched", &DeleteParams::default())
            .await
            .unwrap();
    }
    rig.end().await;
}

fn service(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec})
}

/// `endpoints/endpoints_test.go`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_are_written_only_where_something_changed() {
    let rig = Rig::new().await;
    rig.kubelet.abort();
    let (services, endpoints, pods) = (
        rig.api("", "v1", "Service", "services", "default"),
        rig.api("", "v1", "Endpoints", "endpoints", "default"),
        rig.pods(),
    );
    let mut pod = matching_pod("test-pod", &json!({"foo": "bar"}), &json!([]));
    pod["spec"]["nodeName"] = "fakenode".into();
    create(&pods, pod).await;
    let status = json!({"status": {"phase": "Running", "podIP": "1.1.1.1",
        "podIPs": [{"ip": "1.1.1.1"}, {"ip": "2001:db8::"}],
        "conditions": [{"type": "Ready", "status": "True"}]}});
    pods.patch_status("test-pod", &PatchParams::default(), &Patch::Merge(status))
        .await
        .unwrap();
    let spec = |more: Value| {
        let mut spec = json!({"selector": {"foo": "bar"}, "ports": [
            {"name": "port-1338", "port": 1338, "targetPort": 1338},
            {"name": "port-1337", "port": 1337, "targetPort": 1337}]});
        for (field, value) in more.as_object().unwrap() {
            spec[field] = value.clone();
        }
        spec
    };
    let there = async |name: &str| {
        let look = async || endpoints.get_opt(name).await.unwrap();
        rig.until(name, look, Option::is_some).await.unwrap()
    };
    create(&services, service("foo1", spec(json!({})))).await;
    let first = there("foo1").await;
    merge(
        &services,
        "foo1",
        json!({"metadata": {"annotations": {"foo": "bar"}}}),
    )
    .await;
    create(&services, service("foo2", spec(json!({})))).await;
    there("foo2").await;
    let again = endpoints.get("foo1").await.unwrap();
    assert_eq!(
        again.metadata.resource_version,
        first.metadata.resource_version
    );

    let named = json!({"type": "ExternalName", "externalName": "google.com"});
    create(&services, service("named", spec(named))).await;
    create(&services, service("foo3", spec(json!({})))).await;
    there("foo3").await;
    assert!(endpoints.get_opt("named").await.unwrap().is_none());
    merge(&services, "named", json!({"spec": {"type": "ClusterIP"}})).await;
    let labels = there("named").await.metadata.labels.unwrap();
    assert!(!labels.contains_key("service.kubernetes.io/headless"));

    // A pod that is leaving is none of them, though it is there.
    let params = DeleteParams {
        grace_period_seconds: Some(300),
        ..DeleteParams::default()
    };
    pods.delete("test-pod", &params).await.unwrap();
    rig.until(
        "left",
        async || endpoints.get("foo1").await.unwrap().data["subsets"].clone(),
        |subsets| subsets.as_array().is_none_or(Vec::is_empty),
    )
    .await;
    assert!(
        pods.get("test-pod")
            .await
            .unwrap()
            .metadata
            .deletion_timestamp
            .is_some()
    );
    rig.end().await;
}

/// `endpointslice/endpointslicemirroring_test.go`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_that_people_write_are_mirrored() {
    let rig = Rig::new().await;
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    let subset = |name: Option<&str>, port: i32, ip: &str| {
        let mut port = json!({"port": port});
        if let Some(name) = name {
            port["name"] = name.into();
        }
        json!({"ports": [port], "addresses": [{"ip": ip}]})
    };
    let plain = json!([subset(None, 80, "10.0.0.1")]);
    let same = json!([
        subset(Some("port1"), 80, "10.0.0.1"),
        subset(Some("port2"), 90, "10.0.0.1")
    ]);
    let other = json!([
        subset(Some("port1"), 80, "10.0.0.1"),
        subset(Some("port2"), 90, "10.0.0.2")
    ]);
    let (own, mirrored) = (
        "endpointslice-controller.k8s.io",
        "endpointslicemirroring-controller.k8s.io",
    );
    let selector = json!({"foo": "bar"});
    // Service's selector, if there is a Service; subsets of Endpoints; slices, and whose they are.
    let cases = [
        (Some(&selector), None, 1, own),
        (Some(&Value::Null), Some(&plain), 1, mirrored),
        (Some(&Value::Null), Some(&same), 1, mirrored),
        (Some(&Value::Null), Some(&other), 2, mirrored),
        (None, Some(&plain), 0, ""),
    ];
    for (n, (selector, subsets, count, manager)) in cases.into_iter().enumerate() {
        let namespace = format!("mirror-{n}");
        create(
            &namespaces,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}),
        )
        .await;
        let services = rig.api("", "v1", "Service", "services", &namespace);
        let endpoints = rig.api("", "v1", "Endpoints", "endpoints", &namespace);
        let slices = rig.api(
            "discovery.k8s.io",
            "v1",
            "EndpointSlice",
            "endpointslices",
            &namespace,
        );
        if let Some(selector) = selector {
            let spec = json!({"ports": [{"port": 80}], "selector": selector});
            create(&services, service("test-123", spec)).await;
        }
        let object = |subsets: &Value, labels: Value, notes: Value| {
            json!({"apiVersion": "v1", "kind": "Endpoints", "subsets": subsets,
                "metadata": {"name": "test-123", "labels": labels, "annotations": notes}})
        };
        if let Some(subsets) = subsets {
            create(&endpoints, object(subsets, json!({}), json!({}))).await;
        }
        let tell = |s: &DynamicObject| {
            let labels = s.metadata.labels.clone().unwrap_or_default();
            labels["endpointslice.kubernetes.io/managed-by"].clone()
        };
        let of = "kubernetes.io/service-name=test-123";
        rig.until_list(&slices, of, tell, &vec![manager; count])
            .await;
        if count != 1 || manager != mirrored {
            continue;
        }
        // Its labels, annotations and addresses follow; the time of the last change does not.
        let two =
            json!([{"ports": [{"port": 80}], "addresses": [{"ip": "1.2.3.4"}, {"ip": "1.2.3.6"}]}]);
        let notes = json!({"foo2": "bar2", "endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"});
        let change = object(&two, json!({"foo": "bar"}), notes);
        merge(&endpoints, "test-123", change).await;
        let tell = |s: &DynamicObject| {
            let ends = s.data["endpoints"].as_array().unwrap();
            let ips: Vec<&str> = ends
                .iter()
                .filter_map(|e| e["addresses"][0].as_str())
                .collect();
            let labels = s.metadata.labels.clone().unwrap_or_default();
            let notes = s.metadata.annotations.clone().unwrap_or_default();
            format!("{} {:?} {notes:?}", ips.join(" "), labels.get("foo"))
        };
        let wanted = r#"1.2.3.4 1.2.3.6 Some("bar") {"foo2": "bar2"}"#;
        rig.until_list(&slices, of, tell, &[wanted]).await;
        // With a selector they are no longer mirrored, without one they are again.
        let mirrored = "kubernetes.io/service-name=test-123,endpointslice.kubernetes.io/managed-by=endpointslicemirroring-controller.k8s.io";
        merge(
            &services,
            "test-123",
            json!({"spec": {"selector": {"foo": "bar"}}}),
        )
        .await;
        rig.until_list(&slices, mirrored, |_| "slice".into(), &[])
            .await;
        merge(&services, "test-123", json!({"spec": {"selector": null}})).await;
        // The controller of Endpoints has emptied them meanwhile.
        merge(&endpoints, "test-123", json!({"subsets": two})).await;
        rig.until_list(&slices, mirrored, |_| "slice".into(), &["slice"])
            .await;
    }
    rig.end().await;
}

/// `statefulset/statefulset_test.go`: TestVolumeTemplateNoopUpdate, TestDeletingAndTerminatingPods,
/// TestAutodeleteOwnerRefs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_sets_replace_what_ended_and_own_claims_as_told() {
    let rig = Rig::new().await;
    let (sets, pods) = (rig.apps("StatefulSet", "statefulsets"), rig.pods());
    let claims = rig.api(
        "",
        "v1",
        "PersistentVolumeClaim",
        "persistentvolumeclaims",
        "default",
    );
    let written = stateful_set(3, "Parallel");
    let mut made = serde_json::to_value(create(&sets, written.clone()).await).unwrap();
    made["spec"] = written["spec"].clone();
    sets.replace("web", &PostParams::default(), &object(made))
        .await
        .unwrap();
    rig.until_status(&sets, "web", json!({"readyReplicas": 3}))
        .await;
    rig.kubelet.abort();
    let uid = async |name: &str| {
        let pod = pods.get_opt(name).await.unwrap();
        pod.and_then(|p| p.metadata.uid)
    };
    let before = [uid("web-0").await, uid("web-1").await, uid("web-2").await];
    merge(
        &pods,
        "web-0",
        json!({"metadata": {"finalizers": ["fake.example.com/blockDeletion"]}}),
    )
    .await;
    pods.delete("web-0", &DeleteParams::default())
        .await
        .unwrap();
    for (name, phase) in [("web-1", "Failed"), ("web-2", "Succeeded")] {
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        pods.patch_status(name, &PatchParams::default(), &status)
            .await
            .unwrap();
    }
    rig.until(
        "replaced",
        async || [uid("web-0").await, uid("web-1").await, uid("web-2").await],
        |now| now[0] == before[0] && (1..3).all(|n| now[n].is_some() && now[n] != before[n]),
    )
    .await;
    merge(&pods, "web-0", json!({"metadata": {"finalizers": null}})).await;
    rig.until(
        "web-0",
        async || uid("web-0").await,
        |now| now.is_some() && *now != before[0],
    )
    .await;

    // Who owns the claims: the set, where they go with it; pods that are too many, where they go
    // with those.
    let policies = [
        ("Retain", "Retain"),
        ("Retain", "Delete"),
        ("Delete", "Retain"),
        ("Delete", "Delete"),
    ];
    for (deleted, scaled) in policies {
        let policy = json!({"whenDeleted": deleted, "whenScaled": scaled});
        let change = json!({"spec": {"persistentVolumeClaimRetentionPolicy": policy}});
        merge(&sets, "web", change).await;
        let wanted = if deleted == "Delete" {
            "StatefulSet"
        } else {
            ""
        };
        let tell = |c: &DynamicObject| {
            let owners = c.metadata.owner_references.iter().flatten();
            owners
                .map(|o| o.kind.as_str())
                .collect::<Vec<_>>()
                .join(" ")
        };
        rig.until_list(&claims, "app=web", tell, &[wanted; 3]).await;
    }
    rig.end().await;
}

/// `daemonset/daemonset_test.go`: TestDaemonSetRollingUpdateWithTolerations,
/// TestDSCUpdatesPodLabelAfterDedupCurHistories.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn daemon_sets_follow_tolerations_and_keep_one_revision_of_a_template() {
    let rig = Rig::new().await;
    let (nodes, sets) = (
        rig.api("", "v1", "Node", "nodes", ""),
        rig.apps("DaemonSet", "daemonsets"),
    );
    for (n, zone) in ["y", "y", "z", "z", "common", "common"].iter().enumerate() {
        create(
            &nodes,
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": format!("node-{n}")},
                "spec": {"taints": [{"key": format!("zone-{zone}"), "effect": "NoSchedule"}]}}),
        )
        .await;
    }
    let tolerations = |zones: &[&str]| {
        let one = |zone: &&str| json!({"key": format!("zone-{zone}"), "operator": "Exists"});
        // The nodes have no kubelets, and are tainted for that soon.
        let own = ["not-ready", "unreachable"]
            .map(|key| json!({"key": format!("node.kubernetes.io/{key}"), "operator": "Exists"}));
        let all: Vec<Value> = zones.iter().map(one).chain(own).collect();
        json!({"spec": {"template": {"spec": {"tolerations": all}}}})
    };
    let mut template = template("one");
    template["spec"]["tolerations"] =
        tolerations(&["y", "common"])["spec"]["template"]["spec"]["tolerations"].clone();
    create(
        &sets,
        json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "foo"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}}, "template": template,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}}}),
    )
    .await;
    let served = async |count: i32| {
        let wanted = json!({"numberReady": count, "desiredNumberScheduled": count,
            "currentNumberScheduled": count, "numberMisscheduled": 0});
        rig.until_status(&sets, "foo", wanted).await;
        rig.until(
            "updated",
            async || {
                sets.get("foo").await.unwrap().data["status"]["updatedNumberScheduled"].clone()
            },
            |updated| updated.as_i64().unwrap_or(0) == i64::from(count),
        )
        .await;
    };
    served(4).await;
    for (zones, count) in [
        (&["z", "common"][..], 4),
        (&["y", "z", "common"], 6),
        (&[], 0),
        (&["common"], 2),
    ] {
        merge(&sets, "foo", tolerations(zones)).await;
        served(count).await;
    }

    // Another revision of the same template, with a higher number: it is kept, and the pods are its.
    let revisions = rig.apps("ControllerRevision", "controllerrevisions");
    let all = async || revisions.list(&ListParams::default()).await.unwrap().items;
    let mut newest = all()
        .await
        .into_iter()
        .max_by_key(|r| r.data["revision"].as_i64())
        .unwrap();
    let twin = "foo-twin";
    newest.metadata.name = Some(twin.into());
    newest.metadata.resource_version = None;
    newest.metadata.uid = None;
    newest.data["revision"] = (newest.data["revision"].as_i64().unwrap() + 1).into();
    let labels = newest.metadata.labels.as_mut().unwrap();
    let before = labels.insert("controller-revision-hash".into(), "twin".into());
    revisions
        .create(&PostParams::default(), &newest)
        .await
        .unwrap();
    let pods = rig.pods();
    let tell = |p: &DynamicObject| {
        let labels = p.metadata.labels.clone().unwrap_or_default();
        labels["controller-revision-hash"].clone()
    };
    rig.until_list(&pods, "app=web", tell, &["twin", "twin"])
        .await;
    rig.until("one of them", all, |revisions| {
        let of = |r: &DynamicObject| {
            r.metadata
                .labels
                .as_ref()?
                .get("controller-revision-hash")
                .cloned()
        };
        let hashes: Vec<_> = revisions.iter().map(of).collect();
        hashes.contains(&Some("twin".into())) && !hashes.contains(&before)
    })
    .await;
    rig.end().await;
}

/// `namespace/ns_conditions_test.go`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_tells_what_it_waits_for() {
    let rig = Rig::new().await;
    let namespaces = rig.api("", "v1", "Namespace", "namespaces", "");
    let made = create(
        &namespaces,
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"generateName": "told-"}}),
    )
    .await;
    let name = made.metadata.name.unwrap();
    assert_eq!(
        made.metadata.labels.unwrap()["kubernetes.io/metadata.name"],
        name
    );
    let deployments = rig.api("apps", "v1", "Deployment", "deployments", &name);
    create(
        &deployments,
        json!({"apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": "web", "finalizers": ["custom.io/finalizer"]}, "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template("one")}}),
    )
    .await;
    namespaces
        .delete(&name, &DeleteParams::default())
        .await
        .unwrap();
    let messages = json!({
        "NamespaceDeletionGroupVersionParsingFailure": "All legacy kube types successfully parsed",
        "NamespaceDeletionDiscoveryFailure": "All resources successfully discovered",
        "NamespaceDeletionContentFailure": "All content successfully deleted, may be waiting on finalization",
        "NamespaceContentRemaining": "Some resources are remaining: deployments.apps has 1 resource instances",
        "NamespaceFinalizersRemaining": "Some content in the namespace has finalizers remaining: custom.io/finalizer in 1 resource instances",
    });
    rig.until(
        "told",
        async || {
            let seen = namespaces.get(&name).await.unwrap();
            let mut told = json!({});
            for one in seen.data["status"]["conditions"]
                .as_array()
                .into_iter()
                .flatten()
            {
                told[one["type"].as_str().unwrap()] = one["message"].clone();
            }
            told
        },
        |told| *told == messages,
    )
    .await;
    merge(
        &deployments,
        "web",
        json!({"metadata": {"finalizers": null}}),
    )
    .await;
    rig.until(
        "gone",
        async || namespaces.get_opt(&name).await.unwrap(),
        Option::is_none,
    )
    .await;
    rig.end().await;
}

/// `ttlcontroller/ttlcontroller_test.go`.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tell_how_long_what_they_read_is_good_for() {
    let rig = Rig::new().await;
    let nodes = rig.api("", "v1", "Node", "nodes", "");
    let node = |n: usize| format!("node-{n}");
    let add = async |range: std::ops::Range<usize>| {
        for n in range {
            let name = node(n);
            create(
                &nodes,
                json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}}),
            )
            .await;
        }
    };
    let remove = async |range: std::ops::Range<usize>| {
        for n in range {
            nodes
                .delete(&node(n), &DeleteParams::default())
                .await
                .unwrap();
        }
    };
    let all = async |count: usize, seconds: &str| {
        rig.until(
            seconds,
            async || {
                let list = nodes.list(&ListParams::default()).await.unwrap().items;
                let told = |n: &DynamicObject| {
                    let notes = n.metadata.annotations.clone().unwrap_or_default();
                    notes.get("node.alpha.kubernetes.io/ttl").cloned()
                };
                list.iter().map(told).collect::<Vec<_>>()
            },
            |told| *told == vec![Some(seconds.to_owned()); count],
        )
        .await;
    };
    add(0..100).await;
    all(100, "0").await;
    add(100..101).await;
    all(101, "15").await;
    remove(90..101).await;
    all(90, "15").await;
    remove(89..90).await;
    all(89, "0").await;
    rig.end().await;
}
