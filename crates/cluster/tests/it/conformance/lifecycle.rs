//! The lifecycle of one object of many kinds: created, read, listed, watched, patched, updated, its status
//! changed, deleted alone and together.

use serde_json::{Value, json};

use crate::conformance::harness::{Kube, condition, name, on_cluster, uid, unique};

/// A kind, an object of it without a name, and a condition that its status takes, if any.
fn kinds() -> Vec<(&'static str, &'static str, &'static str, Value, bool)> {
    let template = json!({"spec": {"containers": [{"name": "c", "image": "nginx"}]}});
    let job = json!({"template": {"spec": {"restartPolicy": "OnFailure",
        "containers": [{"name": "c", "image": "busybox"}]}}});
    let nowhere = json!({"namespaceSelector": {"matchLabels": {"nowhere": "true"}}, "resourceRules": [{
        "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]});
    let hook = json!({"webhooks": [{"name": "x.k8s.io", "sideEffects": "None",
        "admissionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/x"},
        "rules": [{"apiGroups": ["nowhere.example.com"], "apiVersions": ["v1"], "operations": ["CREATE"],
            "resources": ["nothings"]}],
        "matchConditions": [{"name": "one", "expression": "object.metadata.namespace == 'x'"}]}]});
    let rule = json!({"subjects": [{"kind": "User", "user": {"name": "nobody-e2e"}}],
        "nonResourceRules": [{"verbs": ["*"], "nonResourceURLs": ["*"]}]});
    let backend = json!({"service": {"name": "b", "port": {"number": 80}}});
    let admission = "admissionregistration.k8s.io/v1";
    let flow = "flowcontrol.apiserver.k8s.io/v1";
    let network = "networking.k8s.io/v1";
    let storage = "storage.k8s.io/v1";
    vec![
        (
            flow,
            "flowschemas",
            "FlowSchema",
            json!({"spec": {"matchingPrecedence": 9000,
            "priorityLevelConfiguration": {"name": "global-default"}, "rules": [rule]}}),
            true,
        ),
        (
            flow,
            "prioritylevelconfigurations",
            "PriorityLevelConfiguration",
            json!({"spec": {"type": "Limited",
            "limited": {"nominalConcurrencyShares": 2, "limitResponse": {"type": "Reject"}}}}),
            true,
        ),
        (
            admission,
            "validatingadmissionpolicies",
            "ValidatingAdmissionPolicy",
            json!({"spec": {"matchConstraints": nowhere, "validations": [{"expression": "true"}]}}),
            true,
        ),
        (
            admission,
            "validatingadmissionpolicybindings",
            "ValidatingAdmissionPolicyBinding",
            json!({"spec": {"policyName": "no-such-policy", "validationActions": ["Deny"]}}),
            false,
        ),
        (
            admission,
            "mutatingwebhookconfigurations",
            "MutatingWebhookConfiguration",
            hook.clone(),
            false,
        ),
        (
            admission,
            "validatingwebhookconfigurations",
            "ValidatingWebhookConfiguration",
            hook,
            false,
        ),
        (
            "batch/v1",
            "cronjobs",
            "CronJob",
            json!({"spec": {"schedule": "0 0 1 1 *", "suspend": true,
            "jobTemplate": {"spec": job}}}),
            false,
        ),
        (
            "policy/v1",
            "poddisruptionbudgets",
            "PodDisruptionBudget",
            json!({"spec": {"minAvailable": 1, "selector": {"matchLabels": {"a": "b"}}}}),
            true,
        ),
        (
            "discovery.k8s.io/v1",
            "endpointslices",
            "EndpointSlice",
            json!({"addressType": "IPv4", "endpoints": [{"addresses": ["192.0.2.1"]}]}),
            false,
        ),
        (
            network,
            "ingresses",
            "Ingress",
            json!({"spec": {"defaultBackend": backend}}),
            false,
        ),
        (
            network,
            "ingressclasses",
            "IngressClass",
            json!({"spec": {"controller": "example.com/x"}}),
            false,
        ),
        (
            network,
            "networkpolicies",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}}}),
            false,
        ),
        (
            "node.k8s.io/v1",
            "runtimeclasses",
            "RuntimeClass",
            json!({"handler": "e2e"}),
            false,
        ),
        (
            "coordination.k8s.io/v1",
            "leases",
            "Lease",
            json!({"spec": {"holderIdentity": "x"}}),
            false,
        ),
        (
            "v1",
            "podtemplates",
            "PodTemplate",
            json!({"template": template}),
            false,
        ),
        (
            "v1",
            "configmaps",
            "ConfigMap",
            json!({"data": {"a": "b"}}),
            false,
        ),
        (
            "v1",
            "secrets",
            "Secret",
            json!({"data": {"a": "Yg=="}}),
            false,
        ),
        ("v1", "serviceaccounts", "ServiceAccount", json!({}), false),
        (
            "v1",
            "limitranges",
            "LimitRange",
            json!({"spec": {"limits": [{"type": "Container",
            "max": {"cpu": "500m"}}]}}),
            false,
        ),
        (
            "v1",
            "resourcequotas",
            "ResourceQuota",
            json!({"spec": {"hard": {"cpu": "1"}}}),
            false,
        ),
        (
            "v1",
            "endpoints",
            "Endpoints",
            json!({"subsets": [{"addresses": [{"ip": "192.0.2.1"}],
            "ports": [{"port": 80}]}]}),
            false,
        ),
        (
            "v1",
            "services",
            "Service",
            json!({"spec": {"ports": [{"port": 80}]}}),
            true,
        ),
        (
            storage,
            "csistoragecapacities",
            "CSIStorageCapacity",
            json!({"storageClassName": "e2e",
            "capacity": "1Gi"}),
            false,
        ),
        (
            storage,
            "csidrivers",
            "CSIDriver",
            json!({"spec": {"volumeLifecycleModes": ["Ephemeral"]}}),
            false,
        ),
        (
            storage,
            "csinodes",
            "CSINode",
            json!({"spec": {"drivers": []}}),
            false,
        ),
        (
            storage,
            "storageclasses",
            "StorageClass",
            json!({"provisioner": "e2e"}),
            false,
        ),
        (
            storage,
            "volumeattachments",
            "VolumeAttachment",
            json!({"spec": {"attacher": "e2e",
            "nodeName": "nowhere", "source": {"persistentVolumeName": "none"}}}),
            false,
        ),
        (
            "scheduling.k8s.io/v1",
            "priorityclasses",
            "PriorityClass",
            json!({"value": 10}),
            false,
        ),
        (
            "apps/v1",
            "controllerrevisions",
            "ControllerRevision",
            json!({"revision": 1, "data": {"a": 1}}),
            false,
        ),
    ]
}

async fn walk(
    kube: &Kube,
    version: &str,
    plural: &str,
    kind: &str,
    body: &Value,
    conditions: bool,
) {
    let label = unique("walk");
    let labels = format!("e2e={label}");
    let mut all = vec![];
    let mut watch = kube.watch(version, plural, &labels).await;
    for _ in 0..3 {
        let mut object = body.clone();
        object["apiVersion"] = version.into();
        object["kind"] = kind.into();
        object["metadata"] = json!({"name": unique("walk"), "labels": {"e2e": label}});
        all.push(kube.create(version, plural, object).await);
    }
    let first = name(&all[0]);
    assert_eq!(uid(&kube.get(version, plural, &first).await), uid(&all[0]));
    assert_eq!(
        kube.list(version, plural, &labels).await.len(),
        3,
        "{plural}"
    );

    let annotated = |key: &str, object: &Value| object["metadata"]["annotations"][key] == "true";
    let patch = json!({"metadata": {"annotations": {"patched": "true"}}});
    let patched = kube.merge(version, plural, &first, patch).await;
    assert!(annotated("patched", &patched), "{patched:#}");
    kube.update(version, plural, &first, |it| {
        it["metadata"]["annotations"]["updated"] = "true".into();
    })
    .await;
    watch.until("MODIFIED", |it| annotated("patched", it)).await;
    watch.until("MODIFIED", |it| annotated("updated", it)).await;

    if conditions {
        let part = format!("{first}/status");
        assert_eq!(uid(&kube.get(version, plural, &part).await), uid(&all[0]));
        let added = |kind: &str| {
            json!({"type": kind, "status": "True", "reason": "E2E", "message": "by a test",
                "lastTransitionTime": "2026-01-01T00:00:00Z"})
        };
        let patch = json!({"metadata": {"annotations": {"patchedstatus": "true"}},
            "status": {"conditions": [added("StatusPatched")]}});
        let seen = kube.merge(version, plural, &part, patch).await;
        assert_eq!(
            condition(&seen, "StatusPatched")["reason"],
            "E2E",
            "{seen:#}"
        );
        assert!(annotated("patchedstatus", &seen), "{seen:#}");
        let seen = kube
            .update(version, plural, &part, |it| {
                it["status"]["conditions"] = json!([added("StatusUpdated")]);
            })
            .await;
        assert_eq!(
            condition(&seen, "StatusUpdated")["reason"],
            "E2E",
            "{seen:#}"
        );
    }
    kube.delete(version, plural, &first).await;
    watch.until("DELETED", |it| name(it) == first).await;
    kube.until_gone(version, plural, &first).await;
    kube.delete_all(version, plural, &labels).await;
    let rest = async || kube.list(version, plural, &labels).await.len();
    kube.until("a collection gone", rest, |left| *left == 0)
        .await;
}

#[test]
fn objects_of_many_kinds_live_and_go() {
    on_cluster(async |kube| {
        for (version, plural, kind, body, conditions) in kinds() {
            walk(&kube, version, plural, kind, &body, conditions).await;
        }
    });
}

#[test]
fn a_namespace_has_finalizers_and_a_status() {
    on_cluster(async |kube| {
        let own = kube.namespace.clone();
        let seen = kube.get("v1", "namespaces", &format!("{own}/status")).await;
        assert_eq!(seen["status"]["phase"], "Active");
        let fake = "e2e.example.com/fake";
        let part = format!("{own}/finalize");
        let seen = kube
            .update("v1", "namespaces", &part, |it| {
                it["spec"]["finalizers"]
                    .as_array_mut()
                    .unwrap()
                    .push(fake.into());
            })
            .await;
        assert_eq!(seen["spec"]["finalizers"], json!(["kubernetes", fake]));
        let seen = kube
            .update("v1", "namespaces", &part, |it| {
                it["spec"]["finalizers"] = json!(["kubernetes"])
            })
            .await;
        assert_eq!(seen["spec"]["finalizers"], json!(["kubernetes"]));
    });
}

#[test]
fn claims_and_volumes_keep_what_clients_say_of_them() {
    on_cluster(async |kube| {
        let class = unique("e2e");
        let (volume, claim) = (unique("pv"), unique("pvc"));
        kube.create("v1", "persistentvolumes", json!({"metadata": {"name": volume}, "spec": {
            "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "persistentVolumeReclaimPolicy": "Retain", "csi": {"driver": "e2e", "volumeHandle": "x"}}}))
            .await;
        kube.create(
            "v1",
            "persistentvolumeclaims",
            json!({"metadata": {"name": claim}, "spec": {
            "accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .await;
        let claims = "persistentvolumeclaims";
        kube.until_object("v1", claims, &claim, "bound", |it| {
            it["status"]["phase"] == "Bound"
        })
        .await;
        let seen = kube
            .merge(
                "v1",
                claims,
                &format!("{claim}/status"),
                json!({"status": {"conditions": [
                {"type": "StatusPatched", "status": "True", "reason": "E2E"}]}}),
            )
            .await;
        assert_eq!(condition(&seen, "StatusPatched")["reason"], "E2E");
        let seen = kube
            .merge(
                "v1",
                "persistentvolumes",
                &format!("{volume}/status"),
                json!({"status": {"message": "StatusPatched", "reason": "E2E"}}),
            )
            .await;
        assert_eq!(seen["status"]["message"], "StatusPatched");
        kube.delete("v1", claims, &claim).await;
        kube.until_gone("v1", claims, &claim).await;
        kube.delete("v1", "persistentvolumes", &volume).await;
        kube.until_gone("v1", "persistentvolumes", &volume).await;
    });
}
