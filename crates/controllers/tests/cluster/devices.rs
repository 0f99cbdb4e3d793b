//! Claims to devices, from the template to the end of their pods.

use super::*;

const RESOURCES: &str = "resource.k8s.io";

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_made_for_pods_and_let_go_when_they_are_done() {
    let rig = Rig::new().await;
    let claims = rig.api(
        RESOURCES,
        "v1",
        "ResourceClaim",
        "resourceclaims",
        "default",
    );
    let templates = rig.api(
        RESOURCES,
        "v1",
        "ResourceClaimTemplate",
        "resourceclaimtemplates",
        "default",
    );
    let pods = rig.pods();
    let spec =
        json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    create(
        &templates,
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaimTemplate",
        "metadata": {"name": "one"}, "spec": {"spec": spec}}),
    )
    .await;
    create(&claims, json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
        "metadata": {"name": "shared", "finalizers": ["resource.kubernetes.io/delete-protection"]}, "spec": spec})).await;
    create(&pods, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "one"}],
        "resourceClaims": [{"name": "own", "resourceClaimTemplateName": "one"}, {"name": "other", "resourceClaimName": "shared"}]}}))
    .await;
    let look =
        async || pods.get("p").await.unwrap().data["status"]["resourceClaimStatuses"].clone();
    let told = rig
        .until("statuses", look, |told| {
            told[0]["resourceClaimName"].is_string()
        })
        .await;
    assert_eq!(told[0]["name"], "own");
    let own = told[0]["resourceClaimName"].as_str().unwrap().to_owned();
    assert!(own.starts_with("p-own-"), "{own}");
    let made = claims.get(&own).await.unwrap();
    assert_eq!(made.metadata.owner_references.unwrap()[0].name, "p");
    // What the scheduler would write.
    let uid = pods.get("p").await.unwrap().metadata.uid.unwrap();
    let given = json!({"status": {"allocation": {"devices": {"results": [
        {"request": "r", "driver": "gpu.io", "pool": "a", "device": "gpu-0"}]}},
        "reservedFor": [{"resource": "pods", "name": "p", "uid": uid}]}});
    claims
        .patch_status("shared", &PatchParams::default(), &Patch::Merge(&given))
        .await
        .unwrap();
    let now = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete("p", &now).await.unwrap();
    rig.until(
        "own claim",
        async || claims.get_opt(&own).await.unwrap(),
        Option::is_none,
    )
    .await;
    let shared = rig
        .until(
            "shared claim",
            async || claims.get("shared").await.unwrap(),
            |claim| {
                let status = &claim.data["status"];
                status["allocation"].is_null()
                    && status["reservedFor"].is_null()
                    && claim.metadata.finalizers.as_ref().is_none_or(Vec::is_empty)
            },
        )
        .await;
    assert!(
        shared.metadata.deletion_timestamp.is_none(),
        "it is nobody's own"
    );
    rig.end().await;
}

/// Pods leave a device that its driver taints, one that tolerates it for a time after that.
#[tokio::test(flavor = "multi_thread")]
async fn tainted_devices_are_left() {
    let rig = Rig::new().await;
    let (pods, events) = (rig.pods(), rig.api("", "v1", "Event", "events", "default"));
    let of = |kind, plural, namespace| rig.api(RESOURCES, "v1", kind, plural, namespace);
    let claims = of("ResourceClaim", "resourceclaims", "default");
    let slices = of("ResourceSlice", "resourceslices", "");
    let slice = |taints: Value| {
        json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"},
            "spec": {"driver": "gpu.io", "nodeName": "n", "pool": {"name": "a", "generation": 1, "resourceSliceCount": 1},
                "devices": [{"name": "gpu-0"}, {"name": "gpu-1", "taints": taints}]}})
    };
    create(&slices, slice(json!([]))).await;
    let nodes = rig.api("", "v1", "Node", "nodes", "");
    create(
        &nodes,
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n"}}),
    )
    .await;
    let request =
        json!({"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}});
    let tolerates = |seconds: Value| json!([{"key": "broken", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]);
    for (name, device, tolerations) in [
        ("untouched", "gpu-0", json!([])),
        ("leaves", "gpu-1", json!([])),
        ("waits", "gpu-1", tolerates(1.into())),
        ("stays", "gpu-1", tolerates(Value::Null)),
    ] {
        create(
            &claims,
            json!({"apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {"name": name}, "spec": request}),
        )
        .await;
        let pod = create(&pods, json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {
            "nodeName": "n", "terminationGracePeriodSeconds": 0, "tolerations": [{"operator": "Exists"}],
            "containers": [{"name": "c", "image": "one"}],
            "resourceClaims": [{"name": "r", "resourceClaimName": name}]}})).await;
        let given = json!({"status": {"allocation": {"devices": {"results": [
            {"request": "r", "driver": "gpu.io", "pool": "a", "device": device, "tolerations": tolerations}]}},
            "reservedFor": [{"resource": "pods", "name": name, "uid": pod.metadata.uid}]}});
        let params = PatchParams::default();
        claims
            .patch_status(name, &params, &Patch::Merge(&given))
            .await
            .unwrap();
    }
    merge(
        &slices,
        "s",
        json!({"spec": slice(json!([{"key": "broken", "effect": "NoExecute"}]))["spec"]}),
    )
    .await;
    for name in ["leaves", "waits"] {
        rig.until(
            name,
            async || pods.get_opt(name).await.unwrap(),
            Option::is_none,
        )
        .await;
        let told = async || {
            let all = events.list(&ListParams::default()).await.unwrap().items;
            all.iter().any(|event| {
                event.data["reason"] == "DeviceTaintManagerEviction"
                    && event.data["involvedObject"]["name"] == name
            })
        };
        rig.until("event", told, |told| *told).await;
    }
    for name in ["untouched", "stays"] {
        assert!(
            pods.get(name)
                .await
                .unwrap()
                .metadata
                .deletion_timestamp
                .is_none(),
            "{name}"
        );
    }
    rig.end().await;
}
