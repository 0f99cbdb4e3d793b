//! Claims to devices: allocated and reserved before the pod is bound, and waited for.

use super::world::{World, create, until_is};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

fn wants(claim: &str) -> Value {
    json!({"spec": {"resourceClaims": [{"name": "gpu", "resourceClaimName": claim}]}})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_given_to_one_pod_each_and_again_when_they_are_given_back() {
    let world = World::new().await;
    let slices = Api::<ResourceSlice>::all(world.client.clone());
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
        create(
            &slices,
            json!({"metadata": {"name": name}, "spec": {"driver": "gpu.io", "nodeName": name,
            "pool": {"name": name, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0", "attributes": {"model": {"string": name}}}]}}),
        )
        .await;
    }
    let claims = Api::<ResourceClaim>::namespaced(world.client.clone(), "shop");
    for (name, model) in [("a", "n1"), ("b", "n1"), ("c", "n2")] {
        let expression = format!("device.attributes['gpu.io'].model == '{model}'");
        create(&claims, json!({"metadata": {"name": name}, "spec": {"devices": {"requests": [{"name": "r",
            "exactly": {"deviceClassName": "gpu", "selectors": [{"cel": {"expression": expression}}]}}]}}}))
        .await;
    }
    world.pod("pa", &wants("a")).await;
    let message = world.refused("pa").await;
    let want = "0/2 nodes are available: request r: device class gpu does not exist.";
    assert!(message.starts_with(want), "{message}");
    let classes = Api::<DeviceClass>::all(world.client.clone());
    create(&classes, json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [{"cel": {"expression": "device.driver == 'gpu.io'"}}]}})).await;
    assert_eq!(world.bound("pa").await, "n1");
    let uid = world.pods().get("pa").await.expect("the pod").metadata.uid;
    let given = until_is(&claims, "a", |c| !c["status"]["allocation"].is_null()).await;
    let status = &given["status"];
    assert_eq!(
        status["reservedFor"],
        json!([{"resource": "pods", "name": "pa", "uid": uid}])
    );
    let allocation = &status["allocation"];
    assert_eq!(
        allocation["devices"]["results"],
        json!([{"request": "r", "driver": "gpu.io", "pool": "n1", "device": "gpu-0"}])
    );
    assert_eq!(
        allocation["nodeSelector"]["nodeSelectorTerms"][0]["matchFields"],
        json!([{"key": "metadata.name", "operator": "In", "values": ["n1"]}])
    );
    assert_eq!(
        given["metadata"]["finalizers"],
        json!(["resource.kubernetes.io/delete-protection"])
    );
    // The other claim wants the same device; a third does not.
    world.pod("pb", &wants("b")).await;
    world.pod("pc", &wants("c")).await;
    assert_eq!(world.bound("pc").await, "n2");
    let message = world.refused("pb").await;
    assert!(
        message.starts_with("0/2 nodes are available: 2 cannot allocate all claims."),
        "{message}"
    );
    // As the controller does when a pod is done.
    let back = Patch::Merge(json!({"status": {"allocation": null, "reservedFor": null}}));
    claims
        .patch_status("a", &PatchParams::default(), &back)
        .await
        .expect("given back");
    assert_eq!(world.bound("pb").await, "n1");
    world.end().await;
}

/// What a driver says of a device of a claim.
async fn told(claims: &Api<ResourceClaim>, claim: &str, pool: &str, kind: &str) {
    let condition = json!({"type": kind, "status": "True", "reason": "Told", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let devices =
        json!([{"driver": "fabric.io", "pool": pool, "device": "d", "conditions": [condition]}]);
    let patch = Patch::Merge(json!({"status": {"devices": devices}}));
    claims
        .patch_status(claim, &PatchParams::default(), &patch)
        .await
        .expect("told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_is_bound_when_drivers_have_made_its_devices_ready() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    let slices = Api::<ResourceSlice>::all(world.client.clone());
    for pool in ["first", "second"] {
        create(
            &slices,
            json!({"metadata": {"name": pool}, "spec": {"driver": "fabric.io", "allNodes": true,
            "pool": {"name": pool, "generation": 1, "resourceSliceCount": 1},
            "devices": [{"name": "d", "bindsToNode": true, "bindingConditions": ["Attached"],
                "bindingFailureConditions": ["Broken"]}]}}),
        )
        .await;
    }
    let classes = Api::<DeviceClass>::all(world.client.clone());
    create(
        &classes,
        json!({"metadata": {"name": "fabric"}, "spec": {}}),
    )
    .await;
    let claims = Api::<ResourceClaim>::namespaced(world.client.clone(), "shop");
    create(
        &claims,
        json!({"metadata": {"name": "c"}, "spec": {"devices": {"requests": [
            {"name": "r", "exactly": {"deviceClassName": "fabric"}}]}}}),
    )
    .await;
    world.pod("p", &wants("c")).await;
    let pool = |claim: &Value| {
        let result = &claim["status"]["allocation"]["devices"]["results"][0];
        result["pool"].as_str().map(ToOwned::to_owned)
    };
    let given = until_is(&claims, "c", |c| pool(c).is_some()).await;
    let first = pool(&given).expect("a device");
    let expected = world.until("p", "expected on a node", |pod| {
        pod.status.as_ref()?.nominated_node_name.clone()
    });
    assert_eq!(expected.await, "n1");
    // It cannot be had: the claim gets the other device. Who looks away meanwhile sees the pod on no node.
    let taint = json!({"spec": {"devices": [{"name": "d", "taints": [{"key": "broken", "effect": "NoSchedule"}],
        "bindsToNode": true, "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"]}]}});
    slices
        .patch(&first, &PatchParams::default(), &Patch::Merge(taint))
        .await
        .expect("tainted");
    told(&claims, "c", &first, "Broken").await;
    let given = until_is(&claims, "c", |c| pool(c).is_some_and(|p| p != first)).await;
    let pods = world.pods();
    let pod = pods.get("p").await.expect("the pod");
    assert_eq!(pod.spec.and_then(|s| s.node_name), None);
    told(&claims, "c", &pool(&given).expect("a device"), "Attached").await;
    assert_eq!(world.bound("p").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn extended_resources_are_served_by_a_claim_that_the_scheduler_makes() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    let slices = Api::<ResourceSlice>::all(world.client.clone());
    create(
        &slices,
        json!({"metadata": {"name": "n1"}, "spec": {"driver": "gpu.io", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "gpu-0"}]}}),
    )
    .await;
    let ask = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"example.com/gpu": "1"}}}]}});
    world.pod("pa", &ask).await;
    let message = world.refused("pa").await;
    let want = "0/1 nodes are available: 1 Insufficient example.com/gpu.";
    assert!(message.starts_with(want), "{message}");
    let classes = Api::<DeviceClass>::all(world.client.clone());
    let class =
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    create(&classes, class).await;
    assert_eq!(world.bound("pa").await, "n1");
    let told = json!(world.pods().get("pa").await.expect("the pod"));
    let status = &told["status"]["extendedResourceClaimStatus"];
    let mappings = json!([{"containerName": "c", "resourceName": "example.com/gpu", "requestName": "container-0-request-0"}]);
    assert_eq!(status["requestMappings"], mappings);
    let name = status["resourceClaimName"].as_str().expect("a claim");
    assert!(name.starts_with("pa-extended-resources-"), "{name}");
    let claims = Api::<ResourceClaim>::namespaced(world.client.clone(), "shop");
    let claim = json!(claims.get(name).await.expect("the claim"));
    let uid = &told["metadata"]["uid"];
    assert_eq!(
        claim["metadata"]["annotations"],
        json!({"resource.kubernetes.io/extended-resource-claim": "true"})
    );
    assert_eq!(
        claim["metadata"]["ownerReferences"],
        json!([{"apiVersion": "v1", "kind": "Pod", "name": "pa", "uid": uid, "controller": true}])
    );
    assert_eq!(
        claim["metadata"]["finalizers"],
        json!(["resource.kubernetes.io/delete-protection"])
    );
    assert_eq!(
        claim["spec"]["devices"]["requests"],
        json!([{"name": "container-0-request-0",
        "exactly": {"deviceClassName": "gpu", "allocationMode": "ExactCount", "count": 1}}])
    );
    assert_eq!(
        claim["status"]["reservedFor"],
        json!([{"resource": "pods", "name": "pa", "uid": uid}])
    );
    assert_eq!(
        claim["status"]["allocation"]["devices"]["results"],
        json!([{"request": "container-0-request-0", "driver": "gpu.io", "pool": "n1", "device": "gpu-0"}])
    );
    // The next waits until it is given back, as it is by a controller when the pod is done.
    world.pod("pb", &ask).await;
    let message = world.refused("pb").await;
    assert!(
        message.starts_with("0/1 nodes are available: 1 cannot allocate all claims."),
        "{message}"
    );
    let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
    claims
        .patch(name, &PatchParams::default(), &free)
        .await
        .expect("unprotected");
    claims
        .delete(name, &Default::default())
        .await
        .expect("deleted");
    assert_eq!(world.bound("pb").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_that_an_attempt_before_has_left_is_taken_away() {
    let world = World::new().await;
    let slices = Api::<ResourceSlice>::all(world.client.clone());
    create(
        &slices,
        json!({"metadata": {"name": "n1"}, "spec": {"driver": "gpu.io", "nodeName": "n1",
            "pool": {"name": "n1", "generation": 1, "resourceSliceCount": 1}, "devices": [{"name": "gpu-0"}]}}),
    )
    .await;
    let classes = Api::<DeviceClass>::all(world.client.clone());
    let class =
        json!({"metadata": {"name": "gpu"}, "spec": {"extendedResourceName": "example.com/gpu"}});
    create(&classes, class).await;
    let ask = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"limits": {"example.com/gpu": "1"}}}]}});
    world.pod("p", &ask).await;
    world.refused("p").await;
    let uid = world.pods().get("p").await.expect("the pod").metadata.uid;
    let claims = Api::<ResourceClaim>::namespaced(world.client.clone(), "shop");
    create(&claims, json!({"metadata": {"name": "left", "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"},
        "finalizers": ["resource.kubernetes.io/delete-protection"],
        "ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": uid, "controller": true}]},
        "spec": {"devices": {"requests": [{"name": "r", "exactly": {"deviceClassName": "gpu"}}]}}}))
    .await;
    until_is(&claims, "left", Value::is_null).await;
    world.node("n1", &json!({})).await;
    assert_eq!(world.bound("p").await, "n1");
    world.end().await;
}
