//! A fleet is released, scaled and cleaned; the hub ends in the middle.

use gantry_api::{App, Cluster, Group, Phase, Release, labels};
use k8s_openapi::api::{
    apps::v1::StatefulSet,
    core::v1::{ConfigMap, Namespace, Secret, Service},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::time::Duration;

use crate::{PATIENCE, object, phase, pods, release, start, start_hub, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_is_released_scaled_and_cleaned() {
    let home = start(&[]).await;
    let (east, west) = (
        start(&["sh-a", "sh-b"]).await,
        start(&["bj-a", "bj-b"]).await,
    );
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    let hub = start_hub(client.clone());

    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&create, &object(json!({"metadata": {"name": "shop"}})))
        .await
        .unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
    let clusters: Api<Cluster> = Api::all(client.clone());
    for (name, member, cells) in [
        ("sh", &east, ["sh-a", "sh-b"]),
        ("bj", &west, ["bj-a", "bj-b"]),
    ] {
        let rules = "[{image: '*:broken', ready: never, message: cannot reach the database}]";
        let maps: Api<ConfigMap> = Api::namespaced(member.server.client(), "kube-system");
        maps.create(
            &create,
            &object(
                json!({"metadata": {"name": "hollow-behaviours"}, "data": {"rules.yaml": rules}}),
            ),
        )
        .await
        .unwrap();
        secrets.create(&create, &object(json!({"metadata": {"name": name}, "stringData": {"kubeconfig": member.kubeconfig()}}))).await.unwrap();
        let spec = json!({
            "region": name,
            "access": {"kubeconfigSecret": {"namespace": "shop", "name": name}},
            "cells": [{"name": cells[0]}, {"name": cells[1]}],
        });
        clusters.create(&create, &object(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": name}, "spec": spec}))).await.unwrap();
    }
    let apps: Api<App> = Api::namespaced(client.clone(), "shop");
    let app = json!({"ports": [{"name": "http", "port": 80, "containerPort": 8080}]});
    apps.create(&create, &object(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "App", "metadata": {"name": "cart"}, "spec": app}))).await.unwrap();
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let spec = json!({
        "app": "cart", "environment": "prod", "replicas": 6,
        "placement": {"cells": [{"name": "sh-a", "weight": 2}, {"name": "sh-b"}, {"name": "bj-a", "weight": 2}, {"name": "bj-b"}]},
        "revision": {"image": "cart:1"}, "availability": {"maxUnavailable": 2},
    });
    groups.create(&create, &object(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart"}, "spec": spec}))).await.unwrap();

    // The group comes up, each instance let into service by the hub.
    let in_service = |n: i32| {
        move |g: &Group| {
            g.status
                .as_ref()
                .is_some_and(|s| s.in_service == n && s.replicas == n && s.message.is_empty())
        }
    };
    until(&groups, "cart", "six instances in service", in_service(6)).await;
    until(&clusters, "sh", "six ready nodes", |c: &Cluster| {
        c.status.as_ref().is_some_and(|s| s.nodes_ready == "6/6")
    })
    .await;
    let before = pods(&[&east, &west]).await;
    assert_eq!(before.len(), 6);
    let services: Api<Service> = Api::namespaced(east.server.client(), "shop");
    assert_eq!(
        services
            .get("cart")
            .await
            .unwrap()
            .spec
            .unwrap()
            .selector
            .unwrap()[labels::GROUP],
        "cart"
    );

    // A good release: bastion, accepted, batches; the hub ends and comes back while the bastion waits.
    let releases: Api<Release> = Api::namespaced(client.clone(), "shop");
    releases
        .create(
            &create,
            &release(
                "two",
                "cart:2",
                json!({"batches": {"count": 2}, "deadlines": {"instance": "30s"}}),
            ),
        )
        .await
        .unwrap();
    let waiting = until(&releases, "two", "the bastion waits", |r| {
        phase(r) == Phase::Gate
    })
    .await;
    assert_eq!(
        waiting.status.unwrap().message,
        "bastion cart-sh-a-1 is ready and out of traffic: accept it to go on"
    );
    let held = pods(&[&east, &west]).await;
    assert_eq!(
        held.values()
            .filter(|p| p.spec.as_ref().unwrap().containers[0].image.as_deref() == Some("cart:2"))
            .count(),
        1
    );
    hub.end().await;
    let accept = json!({"spec": {"acceptedThrough": 0}});
    releases
        .patch("two", &PatchParams::default(), &Patch::Merge(&accept))
        .await
        .unwrap();
    let hub = start_hub(client.clone());
    let done = until(&releases, "two", "it ends", |r| phase(r).is_final())
        .await
        .status
        .unwrap();
    assert_eq!(done.phase, Phase::Succeeded, "{}", done.message);
    assert_eq!(
        (
            done.progress.batch.as_str(),
            done.progress.updated.as_str(),
            done.requested_by.as_str()
        ),
        ("2/2", "6/6", "alice")
    );
    let after = pods(&[&east, &west]).await;
    for (name, pod) in &after {
        assert_eq!(pod.uid(), before[name].uid(), "{name} was updated in place");
        assert_eq!(
            pod.spec.as_ref().unwrap().containers[0].image.as_deref(),
            Some("cart:2")
        );
        assert_eq!(pod.labels()[labels::REVISION], "2");
    }
    let group = until(&groups, "cart", "it is settled on revision 2", |g| {
        g.spec.revision.image == "cart:2" && in_service(6)(g)
    })
    .await;
    assert_eq!(group.status.unwrap().current.unwrap().revision, 2);

    // A broken one stops at the bastion and goes back by itself.
    let careful = json!({"deadlines": {"instance": "3s"}, "onFailure": "Rollback"});
    releases
        .create(&create, &release("three", "cart:broken", careful))
        .await
        .unwrap();
    let back = until(&releases, "three", "it ends", |r| phase(r).is_final())
        .await
        .status
        .unwrap();
    assert_eq!(back.phase, Phase::RolledBack, "{}", back.message);
    assert!(
        back.message.starts_with(
            "back on revision 2: bastion cart-sh-a-1 never became ready in 3s: readiness probe"
        ),
        "{}",
        back.message
    );
    assert!(back.batches.iter().skip(1).all(|b| b.started.is_none()));
    for (name, pod) in &pods(&[&east, &west]).await {
        assert_eq!(
            pod.spec.as_ref().unwrap().containers[0].image.as_deref(),
            Some("cart:2"),
            "{name}"
        );
        assert_eq!(pod.uid(), before[name].uid(), "{name}");
    }

    // What images alone do not do takes new pods of the same names.
    let mut recreate = release(
        "four",
        "cart:2",
        json!({"bastion": {"accept": "Auto"}, "batches": {"count": 1}}),
    );
    recreate.spec.revision.args = Some(vec!["--fast".into()]);
    releases.create(&create, &recreate).await.unwrap();
    let done = until(&releases, "four", "it ends", |r| phase(r).is_final())
        .await
        .status
        .unwrap();
    assert_eq!(done.phase, Phase::Succeeded, "{}", done.message);
    let replaced = pods(&[&east, &west]).await;
    assert!(
        replaced.keys().eq(before.keys())
            && replaced
                .iter()
                .all(|(name, p)| p.uid() != before[name].uid())
    );

    // Scaling through the scale subresource, then removal.
    until(&groups, "cart", "six in service again", in_service(6)).await;
    groups
        .patch_scale(
            "cart",
            &PatchParams::default(),
            &Patch::Merge(&json!({"spec": {"replicas": 9}})),
        )
        .await
        .unwrap();
    until(&groups, "cart", "nine instances", in_service(9)).await;
    groups
        .delete("cart", &DeleteParams::default())
        .await
        .unwrap();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while groups.get_opt("cart").await.unwrap().is_some() {
        assert!(
            tokio::time::Instant::now() < deadline,
            "the group never goes: {:?}",
            groups.get("cart").await.unwrap().status
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for member in [&east, &west] {
        let sets: Api<StatefulSet> = Api::namespaced(member.server.client(), "shop");
        assert!(
            sets.list(&ListParams::default())
                .await
                .unwrap()
                .items
                .is_empty()
        );
        let services: Api<Service> = Api::namespaced(member.server.client(), "shop");
        assert!(
            services
                .list(&ListParams::default())
                .await
                .unwrap()
                .items
                .is_empty()
        );
    }
    hub.end().await;
    for running in [home, east, west] {
        running.end().await;
    }
}
