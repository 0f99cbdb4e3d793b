//! Gangs, quotas and reservations.

use super::world::{World, create, make};
use k8s_openapi::api::scheduling::v1::PriorityClass;
use kube::Api;
use kube::api::DeleteParams;
use serde_json::{Value, json};
use std::time::Duration;

#[tokio::test]
async fn gangs_quotas_and_reservations_hold() {
    let mut world = World::new().await;
    world.stop().await;
    gantry_scheduler::install(&world.client)
        .await
        .expect("installed");
    world.start();
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let two = json!({"spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": "2"}}}]}});
    // A gang of three waits for its third, and is bound as a whole.
    let group = json!({"apiVersion": "scheduling.x-k8s.io/v1alpha1", "kind": "PodGroup", "metadata": {"name": "ring"},
        "spec": {"minMember": 3, "scheduleTimeoutSeconds": 30}});
    make(
        &world.client,
        "/apis/scheduling.x-k8s.io/v1alpha1/namespaces/shop/podgroups",
        group,
    )
    .await;
    let mut member = two.clone();
    member["metadata"] = json!({"labels": {"scheduling.x-k8s.io/pod-group": "ring"}});
    world.pod("r0", &member).await;
    world.pod("r1", &member).await;
    world
        .until("r1", "told to wait", |pod| {
            let conditions = pod.status.as_ref()?.conditions.as_ref()?;
            let message = conditions
                .iter()
                .find(|c| c.type_ == "PodScheduled")?
                .message
                .as_ref()?;
            message.contains("pod group ring").then_some(())
        })
        .await;
    world.pod("r2", &member).await;
    for name in ["r0", "r1", "r2"] {
        world.bound(name).await;
    }
    for name in ["r0", "r1", "r2"] {
        world
            .pods()
            .delete(name, &DeleteParams::default().grace_period(0))
            .await
            .expect("deleted");
    }
    // Room that is held is for its owners.
    let reservation = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Reservation", "metadata": {"name": "surge"},
        "spec": {"replicas": 2, "requests": {"cpu": "3"}, "owners": {"matchLabels": {"app": "own"}}, "ttl": "10m"}});
    let path = "/apis/gantry.dev/v1alpha1/namespaces/shop/reservations";
    make(&world.client, path, reservation).await;
    let reservations = Api::<gantry_api::Reservation>::namespaced(world.client.clone(), "shop");
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let held = async |held: i32, used: i32| loop {
        let status = reservations
            .get("surge")
            .await
            .expect("the reservation")
            .status
            .unwrap_or_default();
        if (status.held, status.used) == (held, used) {
            return;
        }
        assert!(tokio::time::Instant::now() < deadline, "{status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    held(2, 0).await;
    world.pod("stranger", &two).await;
    assert!(
        world
            .refused("stranger")
            .await
            .contains("2 Insufficient cpu")
    );
    let mut own = two.clone();
    own["metadata"] = json!({"labels": {"app": "own"}});
    world.pod("own", &own).await;
    world.bound("own").await;
    held(1, 1).await;
    // What the slot held beyond the pod is free: the stranger fits.
    world.bound("stranger").await;
    // A tenant over its quota is told so.
    let quota = json!({"apiVersion": "scheduling.sigs.k8s.io/v1alpha1", "kind": "ElasticQuota", "metadata": {"name": "shop"},
        "spec": {"min": {"cpu": "1"}, "max": {"cpu": "7500m"}}});
    make(
        &world.client,
        "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces/shop/elasticquotas",
        quota,
    )
    .await;
    let quotas = "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces/shop/elasticquotas/shop";
    // 2 + 2 by pods, 3 held for the tenant.
    loop {
        let request = http::Request::get(quotas)
            .body(Vec::new())
            .expect("a request");
        let seen: Value = world.client.request(request).await.expect("the quota");
        if seen["status"]["used"]["cpu"] == "7" {
            break;
        }
        assert!(
            tokio::time::Instant::now() < deadline + Duration::from_secs(60),
            "{seen}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world
        .pod(
            "more",
            &json!({"spec": {"nodeSelector": {"kubernetes.io/os": "linux"}}}),
        )
        .await;
    let told = world.refused("more").await;
    assert!(
        told.contains("pod would exceed quota shop: 7 of at most 7500m cpu are used"),
        "{told}"
    );
    world.end().await;
}

/// A quota is full of pods on two nodes, neither of which has enough to give way for one of high priority: the least
/// important of both go, and no more of them than have to.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn place_in_a_full_quota_is_made_on_several_nodes() {
    let mut world = World::new().await;
    world.stop().await;
    gantry_scheduler::install(&world.client)
        .await
        .expect("installed");
    world.start();
    for name in ["n1", "n2"] {
        world.node(name, &json!({})).await;
    }
    let quota = json!({"apiVersion": "scheduling.sigs.k8s.io/v1alpha1", "kind": "ElasticQuota", "metadata": {"name": "shop"},
        "spec": {"min": {"cpu": "4"}, "max": {"cpu": "4"}}});
    let quotas = "/apis/scheduling.sigs.k8s.io/v1alpha1/namespaces/shop/elasticquotas";
    make(&world.client, quotas, quota).await;
    let classes = Api::<PriorityClass>::all(world.client.clone());
    let pod = |class: &str, cpu: &str, node: Option<&str>| {
        let mut pod = json!({"spec": {"priorityClassName": class, "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}]}});
        if let Some(node) = node {
            pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
        }
        pod
    };
    for (at, node) in ["n1", "n2", "n2", "n1"].into_iter().enumerate() {
        let name = format!("p{at}");
        create(
            &classes,
            json!({"metadata": {"name": name}, "value": 10 * at}),
        )
        .await;
        world.pod(&name, &pod(&name, "1", Some(node))).await;
        assert_eq!(world.bound(&name).await, node);
    }
    create(
        &classes,
        json!({"metadata": {"name": "high"}, "value": 1000}),
    )
    .await;
    world.pod("high", &pod("high", "3", None)).await;
    for name in ["p0", "p1", "p2"] {
        let told = world.event(name, "Preempted").await;
        assert!(told.starts_with("Preempted by pod "), "{told}");
        // As their kubelets do at the end.
        let now = DeleteParams::default().grace_period(0);
        world.pods().delete(name, &now).await.ok();
    }
    world.bound("high").await;
    let left = world.pods().list(&Default::default()).await.expect("pods");
    let left = left.items.into_iter();
    let left: Vec<_> = left.filter_map(|pod| pod.metadata.name).collect();
    assert_eq!(left, ["high", "p3"]);
    world.end().await;
}
