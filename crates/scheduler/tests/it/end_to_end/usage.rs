//! Real usage.

use super::world::{World, make, scheduler};
use gantry_scheduler::Options;
use gantry_scheduler::core::Profile;
use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::json;
use std::sync::atomic::Ordering;
use std::time::Duration;

#[tokio::test]
async fn hot_nodes_take_no_pods_until_their_measurement_is_too_old() {
    use gantry_scheduler::core::load::{LoadArgs, Source};
    let mut world = World::new().await;
    world.stop().await;
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "nodemetrics.slo.koordinator.sh"}, "spec": {"group": "slo.koordinator.sh", "scope": "Cluster",
        "names": {"kind": "NodeMetric", "listKind": "NodeMetricList", "plural": "nodemetrics", "singular": "nodemetric"},
        "versions": [{"name": "v1alpha1", "served": true, "storage": true, "schema": {"openAPIV3Schema": anything}}]}});
    make(
        &world.client,
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        definition,
    )
    .await;
    world.node("n1", &json!({})).await;
    // Young enough for the scheduler to start and refuse the pod, and then too old.
    let ahead = jiff::SignedDuration::from_secs(8);
    let now = (jiff::Timestamp::now() + ahead).to_string();
    let metric = json!({"apiVersion": "slo.koordinator.sh/v1alpha1", "kind": "NodeMetric", "metadata": {"name": "n1"},
        "spec": {}, "status": {"updateTime": now, "nodeMetric": {"nodeUsage": {"resources": {"cpu": "3900m", "memory": "1Gi"}}}}});
    make(
        &world.client,
        "/apis/slo.koordinator.sh/v1alpha1/nodemetrics",
        metric,
    )
    .await;
    let profile = Profile {
        load: Some(LoadArgs {
            expiry: 4,
            source: Source::NodeMetric,
            ..LoadArgs::default()
        }),
        ..Profile::default()
    };
    let options = Options {
        profiles: vec![profile],
        ..Options::default()
    };
    let metrics = options.metrics.clone();
    world.scheduler = Some(scheduler(world.client.clone(), options));
    world.pod("a", &json!({})).await;
    let told = world.refused("a").await;
    assert!(
        told.contains("1 node(s) cpu usage exceed threshold"),
        "{told}"
    );
    // Nobody measures it any more: it counts by requests, and that is said once.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    while world
        .pods()
        .get("a")
        .await
        .expect("the pod")
        .spec
        .and_then(|s| s.node_name)
        .is_none()
    {
        assert!(tokio::time::Instant::now() < deadline, "still refused");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(metrics.stale_nodes.load(Ordering::Relaxed), 1);
    let events = Api::<Event>::namespaced(world.client.clone(), "default");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        let list = events.list(&ListParams::default()).await.expect("events");
        let stale = list
            .items
            .iter()
            .filter(|e| e.reason.as_deref() == Some("StaleUsage"));
        if stale.count() == 1 {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "no event");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.end().await;
}
