//! Volumes in a whole embedded cluster: claimed, attached to the nodes of those who use them, and gone
//! with them.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails where its helpers do"
)]

use std::time::Duration;

use gantry_cluster::{EmbeddedCluster, NodeGroup};
use k8s_openapi::api::core::v1::{
    Event, Node, PersistentVolume, PersistentVolumeClaim, Pod, ServiceAccount,
};
use k8s_openapi::api::storage::v1::{StorageClass, VolumeAttachment};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;

/// How long anything may take before the test fails. Generous: CI has two slow cores.
const DEADLINE: Duration = Duration::from_secs(120);

/// Asks until there is an answer, or fails.
async fn wait<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let asking = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(DEADLINE, asking)
        .await
        .unwrap_or_else(|_| panic!("waited in vain for {what}"))
}

/// Pods are refused until the namespace has its default service account.
async fn account(client: &Client) {
    let accounts: Api<ServiceAccount> = Api::default_namespaced(client.clone());
    wait("the default service account", async || {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_get_volumes_that_stay_while_they_are_used() {
    let cluster = EmbeddedCluster::builder()
        .nodes(vec![NodeGroup::default()])
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    account(&client).await;
    let classes: Api<StorageClass> = Api::all(client.clone());
    wait("the default class", async || {
        classes.get_opt("standard").await.unwrap()
    })
    .await;
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let claim = serde_json::from_value(json!({"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}))
    .unwrap();
    claims.create(&PostParams::default(), &claim).await.unwrap();
    let phase = async |wanted: &str| {
        wait(&format!("the claim to be {wanted}"), async || {
            let claim = claims.get("data").await.unwrap();
            (claim.status.as_ref()?.phase.as_deref() == Some(wanted)).then_some(claim)
        })
        .await
    };
    let bound = phase("Bound").await;
    let name = bound.spec.unwrap().volume_name.unwrap();
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    wait("the volume to be bound", async || {
        let status = volumes.get(&name).await.unwrap().status?;
        (status.phase.as_deref() == Some("Bound")).then_some(())
    })
    .await;

    // It grows with its claim.
    let more = json!({"spec": {"resources": {"requests": {"storage": "2Gi"}}}});
    claims
        .patch("data", &PatchParams::default(), &Patch::Merge(more))
        .await
        .unwrap();
    wait("two gibibytes", async || {
        let capacity = claims.get("data").await.unwrap().status?.capacity?;
        (capacity["storage"].0 == "2Gi").then_some(())
    })
    .await;

    // A pod that uses it keeps it; with the pod it goes, and its volume with it.
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let pod = serde_json::from_value(json!({"metadata": {"name": "user"}, "spec": {
        "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "registry.example.com/c:1", "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
        "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": "data"}}]}}))
    .unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    wait("the pod to run", async || {
        let status = pods.get("user").await.unwrap().status?;
        (status.phase.as_deref() == Some("Running")).then_some(())
    })
    .await;
    claims
        .delete("data", &DeleteParams::default())
        .await
        .unwrap();
    let held = claims.get("data").await.unwrap();
    assert!(held.metadata.deletion_timestamp.is_some());
    pods.delete("user", &DeleteParams::default()).await.unwrap();
    wait("the claim to go", async || {
        claims
            .get_opt("data")
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    wait("the volume to go", async || {
        volumes
            .get_opt(&name)
            .await
            .unwrap()
            .is_none()
            .then_some(())
    })
    .await;
    cluster.shutdown().await;
}

/// A pod on one node, whose volume comes and goes with it.
fn user(name: &str, node: &str, volume: serde_json::Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 0,
        "containers": [{"name": "c", "image": "registry.example.com/c:1", "volumeMounts": [{"name": "v", "mountPath": "/data"}]}],
        "volumes": [volume]}}))
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn volumes_are_attached_where_they_are_used_and_ephemeral_ones_go_with_their_pods() {
    let nodes = NodeGroup {
        count: 2,
        ..NodeGroup::default()
    };
    let cluster = EmbeddedCluster::builder()
        .nodes(vec![nodes])
        .start()
        .await
        .unwrap();
    let client = cluster.client();
    account(&client).await;
    let classes: Api<StorageClass> = Api::all(client.clone());
    wait("the default class", async || {
        classes.get_opt("standard").await.unwrap()
    })
    .await;
    let nodes: Api<Node> = Api::all(client.clone());
    let names = wait("two nodes", async || {
        let list = nodes.list(&ListParams::default()).await.unwrap();
        let names: Vec<_> = list.into_iter().filter_map(|n| n.metadata.name).collect();
        (names.len() == 2).then_some(names)
    })
    .await;
    let (first, second) = (&names[0], &names[1]);
    let pods: Api<Pod> = Api::default_namespaced(client.clone());
    let claims: Api<PersistentVolumeClaim> = Api::default_namespaced(client.clone());
    let attachments: Api<VolumeAttachment> = Api::all(client.clone());
    let spec =
        json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let template = json!({"metadata": {"labels": {"kind": "scratch"}}, "spec": spec});
    let volume = json!({"name": "v", "ephemeral": {"volumeClaimTemplate": template}});
    let post = PostParams::default();
    pods.create(&post, &user("a", first, volume)).await.unwrap();
    let claim = wait("the ephemeral claim to be bound", async || {
        let claim = claims.get_opt("a-v").await.unwrap()?;
        (claim.status.as_ref()?.phase.as_deref() == Some("Bound")).then_some(claim)
    })
    .await;
    assert_eq!(claim.metadata.labels.unwrap()["kind"], "scratch");
    let volume = claim.spec.unwrap().volume_name.unwrap();
    let attached = async |node: &str| {
        wait(&format!("the volume at {node}"), async || {
            let list = attachments.list(&ListParams::default()).await.unwrap();
            let there = |a: &VolumeAttachment| {
                a.spec.node_name == node && a.status.as_ref().is_some_and(|s| s.attached)
            };
            list.items.into_iter().find(there)
        })
        .await
    };
    let reported = async |node: &str, count: usize| {
        wait(&format!("{count} volumes told of {node}"), async || {
            let status = nodes.get(node).await.unwrap().status?;
            (status.volumes_attached.unwrap_or_default().len() == count).then_some(())
        })
        .await;
    };
    let attachment = attached(first).await;
    assert_eq!(attachment.spec.source.persistent_volume_name, Some(volume));
    reported(first, 1).await;
    pods.delete("a", &DeleteParams::default()).await.unwrap();
    wait("claim and attachment to go with the pod", async || {
        let claim = claims.get_opt("a-v").await.unwrap();
        let left = attachments.list(&ListParams::default()).await.unwrap();
        (claim.is_none() && left.items.is_empty()).then_some(())
    })
    .await;
    reported(first, 0).await;

    // A volume for one node follows its pods from node to node, and waits while it is at another.
    let claim =
        serde_json::from_value(json!({"metadata": {"name": "data"}, "spec": spec})).unwrap();
    claims.create(&post, &claim).await.unwrap();
    let volume = json!({"name": "v", "persistentVolumeClaim": {"claimName": "data"}});
    pods.create(&post, &user("b", first, volume.clone()))
        .await
        .unwrap();
    attached(first).await;
    pods.create(&post, &user("c", second, volume))
        .await
        .unwrap();
    let events: Api<Event> = Api::default_namespaced(client.clone());
    wait("the refusal of the second node", async || {
        let of_pod =
            ListParams::default().fields("involvedObject.name=c,reason=FailedAttachVolume");
        let list = events.list(&of_pod).await.unwrap();
        let message = list.items.into_iter().next()?.message?;
        message.starts_with("Multi-Attach error").then_some(())
    })
    .await;
    pods.delete("b", &DeleteParams::default()).await.unwrap();
    attached(second).await;
    reported(second, 1).await;
    cluster.shutdown().await;
}
