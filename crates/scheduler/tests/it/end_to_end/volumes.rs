//! Volumes that are bound late.

use super::world::{World, create, until_is};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

/// The test plays the volume controller and the provisioner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volumes_that_are_bound_late_are_reserved_or_asked_for_and_awaited() {
    let world = World::new().await;
    let hostname = |name: &str| json!({"metadata": {"labels": {"kubernetes.io/hostname": name}}});
    for name in ["n1", "n2"] {
        world.node(name, &hostname(name)).await;
    }
    let classes = Api::<StorageClass>::all(world.client.clone());
    for (name, provisioner) in [
        ("local", "kubernetes.io/no-provisioner"),
        ("made", "csi.example.com"),
    ] {
        create(
            &classes,
            json!({"metadata": {"name": name}, "provisioner": provisioner,
            "volumeBindingMode": "WaitForFirstConsumer"}),
        )
        .await;
    }
    let volumes = Api::<PersistentVolume>::all(world.client.clone());
    create(
        &volumes,
        json!({"metadata": {"name": "disk"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "local", "local": {"path": "/d"},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["n2"]}]}]}}}}),
    )
    .await;
    let available = Patch::Merge(json!({"status": {"phase": "Available"}}));
    volumes
        .patch_status("disk", &PatchParams::default(), &available)
        .await
        .expect("available");
    let claims = Api::<PersistentVolumeClaim>::namespaced(world.client.clone(), "shop");
    for (name, class) in [("static", "local"), ("dynamic", "made")] {
        create(
            &claims,
            json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"],
            "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}}}),
        )
        .await;
    }
    let mounts = json!({"spec": {"volumes": [
        {"name": "a", "persistentVolumeClaim": {"claimName": "static"}},
        {"name": "b", "persistentVolumeClaim": {"claimName": "dynamic"}}]}});
    world.pod("p1", &mounts).await;
    until_is(&volumes, "disk", |v| {
        v["spec"]["claimRef"]["name"] == "static"
    })
    .await;
    let selected =
        |c: &Value| c["metadata"]["annotations"]["volume.kubernetes.io/selected-node"] == "n2";
    until_is(&claims, "dynamic", selected).await;
    // Not before both are bound.
    let pod = world.pods().get("p1").await.expect("the pod");
    assert_eq!(pod.spec.and_then(|s| s.node_name), None);
    create(&volumes, json!({"metadata": {"name": "fresh"}, "spec": {"capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"], "storageClassName": "made", "csi": {"driver": "csi.example.com", "volumeHandle": "h"},
        "claimRef": {"namespace": "shop", "name": "dynamic"}}}))
    .await;
    for (claim, volume) in [("static", "disk"), ("dynamic", "fresh")] {
        let bound = json!({"metadata": {"annotations": {"pv.kubernetes.io/bind-completed": "yes"}},
            "spec": {"volumeName": volume}});
        claims
            .patch(claim, &PatchParams::default(), &Patch::Merge(bound))
            .await
            .expect("bound");
    }
    assert_eq!(world.bound("p1").await, "n2");
    world.end().await;
}
