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
