//! Pods are bound, wait for what they need, and a scheduler that is started anew goes on.

use super::world::World;
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_are_bound_and_told_so() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert_eq!(
        world.event("p1", "Scheduled").await,
        "Successfully assigned shop/p1 to n1"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pod_that_fits_nowhere_waits_for_a_node_and_for_room() {
    let world = World::new().await;
    world.pod("p1", &json!({})).await;
    assert_eq!(
        world.refused("p1").await,
        "no nodes available to schedule pods"
    );
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}}))
        .await;
    assert_eq!(world.bound("p1").await, "n1");
    // Full now: the next one waits until the first is gone.
    world.pod("p2", &json!({})).await;
    let message = world.refused("p2").await;
    let want = "0/1 nodes are available: 1 Insufficient cpu. preemption: 0/1 nodes are available: 1 No preemption \
                victims found for incoming pod.";
    assert_eq!(message, want);
    assert_eq!(world.event("p2", "FailedScheduling").await, want);
    world
        .pods()
        .delete("p1", &DeleteParams::default().grace_period(0))
        .await
        .expect("deleted");
    assert_eq!(world.bound("p2").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gated_pods_and_those_of_other_schedulers_are_left_alone() {
    let world = World::new().await;
    world.node("n1", &json!({})).await;
    world
        .pod("other", &json!({"spec": {"schedulerName": "another"}}))
        .await;
    world
        .pod(
            "gated",
            &json!({"spec": {"schedulingGates": [{"name": "example.com/wait"}]}}),
        )
        .await;
    // Made last and bound first: the scheduler has passed over both.
    world.pod("plain", &json!({})).await;
    world.bound("plain").await;
    for name in ["other", "gated"] {
        let pod = world.pods().get(name).await.expect("the pod");
        assert_eq!(pod.spec.and_then(|s| s.node_name), None, "{name}");
    }
    let open = Patch::Merge(json!({"spec": {"schedulingGates": null}}));
    world
        .pods()
        .patch("gated", &PatchParams::default(), &open)
        .await
        .expect("gate removed");
    assert_eq!(world.bound("gated").await, "n1");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_scheduler_knows_what_is_placed() {
    let mut world = World::new().await;
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "3"}}}))
        .await;
    for name in ["p1", "p2"] {
        world.pod(name, &json!({})).await;
        world.bound(name).await;
    }
    world.stop().await;
    world.pod("p3", &json!({})).await;
    world.pod("p4", &json!({})).await;
    world.start();
    // One more fits, and no more than one.
    assert_eq!(world.bound("p3").await, "n1");
    assert!(world.refused("p4").await.contains("1 Insufficient cpu"));
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_pods_never_overfills_a_node() {
    let world = World::new().await;
    for i in 0..10 {
        world
            .node(
                &format!("n{i}"),
                &json!({"status": {"allocatable": {"cpu": "5"}}}),
            )
            .await;
    }
    for i in 0..50 {
        world.pod(&format!("p{i}"), &json!({})).await;
    }
    let mut counts = std::collections::BTreeMap::<String, usize>::new();
    for i in 0..50 {
        *counts
            .entry(world.bound(&format!("p{i}")).await)
            .or_default() += 1;
    }
    assert!(
        counts.len() == 10 && counts.values().all(|pods| *pods == 5),
        "{counts:?}"
    );
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn selectors_on_labels_unique_to_each_pod_count() {
    let world = World::new().await;
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let unique =
        |name: &str| json!({"metadata": {"labels": {"statefulset.kubernetes.io/pod-name": name}}});
    world.pod("s-0", &unique("s-0")).await;
    world.pod("s-1", &unique("s-1")).await;
    let (first, second) = (world.bound("s-0").await, world.bound("s-1").await);
    assert_ne!(first, second);
    for (name, beside, node) in [("beside-0", "s-0", first), ("beside-1", "s-1", second)] {
        let term = json!({"topologyKey": "kubernetes.io/hostname",
            "labelSelector": {"matchLabels": {"statefulset.kubernetes.io/pod-name": beside}}});
        let affinity =
            json!({"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}});
        world
            .pod(name, &json!({"spec": {"affinity": affinity}}))
            .await;
        assert_eq!(world.bound(name).await, node);
    }
    world.end().await;
}

/// A client whose requests fail with 503 while `fails` says so.
fn unreliable(
    inner: Client,
    fails: impl Fn(&str) -> bool + Clone + Send + Sync + 'static,
) -> Client {
    let service = tower::service_fn(move |request: http::Request<kube::client::Body>| {
        let (inner, fail) = (inner.clone(), fails(request.uri().path()));
        async move {
            if !fail {
                return inner.send(request).await;
            }
            let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 503,
                "reason": "ServiceUnavailable", "message": "not now"});
            let body = kube::client::Body::from(status.to_string().into_bytes());
            Ok(http::Response::builder()
                .status(503)
                .body(body)
                .expect("a response"))
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_binding_that_fails_is_tried_again_and_its_room_given_back() {
    let mut world = World::new().await;
    world.stop().await;
    world
        .node("n1", &json!({"status": {"allocatable": {"cpu": "1"}}}))
        .await;
    let tried = Arc::new(AtomicUsize::new(0));
    let counter = tried.clone();
    let client = unreliable(world.client.clone(), move |path| {
        path.ends_with("/p1/binding") && counter.fetch_add(1, Ordering::SeqCst) < 1
    });
    world.start_with(client);
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert_eq!(tried.load(Ordering::SeqCst), 2);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scheduler_goes_on_when_the_api_server_is_back() {
    let mut world = World::new().await;
    world.stop().await;
    world.node("n1", &json!({})).await;
    let refused = Arc::new(AtomicUsize::new(0));
    let counter = refused.clone();
    // Every first request of every watch, and some more.
    let client = unreliable(world.client.clone(), move |_| {
        counter.fetch_add(1, Ordering::SeqCst) < 12
    });
    world.start_with(client);
    world.pod("p1", &json!({})).await;
    assert_eq!(world.bound("p1").await, "n1");
    assert!(refused.load(Ordering::SeqCst) > 12);
    world.end().await;
}
