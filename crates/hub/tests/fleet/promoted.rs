//! Promotions, and Groups that follow each other in an order.

use gantry_api::{App, Cluster, Group, Phase, Release};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{object, phase, start, start_hub, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_succeeded_is_promoted_and_groups_follow_each_other() {
    let home = start(&["a", "b"]).await;
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    let hub = start_hub(client.clone());
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&create, &object(json!({"metadata": {"name": "shop"}})))
        .await
        .unwrap();
    let rules = "[{image: 'migrate:*', run: 1s}, {image: 'migrate:broken', run: 1s, exitCode: 3}]";
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "kube-system");
    let map = json!({"metadata": {"name": "hollow-behaviours"}, "data": {"rules.yaml": rules}});
    maps.create(&create, &object(map)).await.unwrap();
    let gantry = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let clusters: Api<Cluster> = Api::all(client.clone());
    let cells = json!({"cells": [{"name": "a"}, {"name": "b"}]});
    clusters
        .create(&create, &object(gantry("Cluster", "home", cells)))
        .await
        .unwrap();
    let apps: Api<App> = Api::namespaced(client.clone(), "shop");
    let app = json!({"environments": [{"name": "test"}, {"name": "prod", "onlyPromoted": true}]});
    apps.create(&create, &object(gantry("App", "cart", app)))
        .await
        .unwrap();
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let digest = |n: u8| format!("cart:{n}@sha256:{}", format!("{n:02x}").repeat(32));
    let quick = json!({"inline": {"bastion": {"instances": 0}, "batches": {"count": 1}, "pause": "Never", "deadlines": {"instance": "20s"}}});
    for (name, environment) in [("cart-test", "test"), ("cart-prod", "prod")] {
        let spec = json!({
            "app": "cart", "environment": environment, "replicas": 2,
            "placement": {"cells": [{"name": "a"}, {"name": "b"}]}, "revision": {"image": digest(1)},
            "strategy": quick,
        });
        groups
            .create(&create, &object(gantry("Group", name, spec)))
            .await
            .unwrap();
    }
    for name in ["cart-test", "cart-prod"] {
        until(&groups, name, "two in service", |g: &Group| {
            g.status.as_ref().is_some_and(|s| s.in_service == 2)
        })
        .await;
    }
    let summary =
        |text: &'static str| move |a: &App| a.status.as_ref().is_some_and(|s| s.summary == text);
    until(
        &apps,
        "cart",
        "the same is everywhere",
        summary("test 1 → prod 1"),
    )
    .await;

    // New images come to prod by promotion alone, and not before test has them.
    let releases: Api<Release> = Api::namespaced(client.clone(), "shop");
    let start_release = async |name: &str, spec: Value| {
        releases
            .create(&create, &object(gantry("Release", name, spec)))
            .await
    };
    let ended = async |name: &str| {
        let release = until(&releases, name, "it ends", |r| phase(r).is_final()).await;
        release.status.unwrap()
    };
    start_release(
        "direct",
        json!({"group": "cart-prod", "revision": {"image": digest(2)}}),
    )
    .await
    .unwrap();
    let direct = ended("direct").await;
    assert_eq!(direct.phase, Phase::Failed);
    assert!(
        direct
            .message
            .contains("takes new images by promotion only"),
        "{}",
        direct.message
    );
    start_release(
        "in-test",
        json!({"group": "cart-test", "revision": {"image": digest(2)}, "paused": false, "strategy": {"inline": {"bastion": {"accept": "Manual"}}}}),
    )
    .await
    .unwrap();
    until(&releases, "in-test", "its bastion waits", |r| {
        phase(r) == Phase::Gate
    })
    .await;
    let promote = json!({"group": "cart-prod", "promote": {"from": "cart-test"}});
    start_release("early", promote.clone()).await.unwrap();
    let early = ended("early").await;
    assert_eq!(
        (early.phase, early.message.as_str()),
        (
            Phase::Failed,
            "cart-test: release in-test has not ended (Gate)"
        )
    );
    let accept = json!({"spec": {"acceptedThrough": 9}});
    releases
        .patch("in-test", &PatchParams::default(), &Patch::Merge(&accept))
        .await
        .unwrap();
    assert_eq!(ended("in-test").await.phase, Phase::Succeeded);
    let behind = until(&apps, "cart", "prod is behind", summary("test 2 → prod 1")).await;
    let prod = behind.status.unwrap().environments.remove(1);
    assert_eq!(
        (prod.behind, prod.message.as_str()),
        (true, "2 of test can be promoted")
    );
    start_release("promoted", promote).await.unwrap();
    let promoted = ended("promoted").await;
    assert_eq!(promoted.phase, Phase::Succeeded, "{}", promoted.message);
    assert_eq!(promoted.target.unwrap().image, digest(2));
    until(
        &apps,
        "cart",
        "the same is everywhere",
        summary("test 2 → prod 2"),
    )
    .await;
    // Overriding is done in one's own name.
    let foreign = json!({"group": "cart-prod", "promote": {"from": "cart-test", "override": {"by": "alice", "reason": "x"}}});
    let said = start_release("foreign", foreign)
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("overridden in one's own name"), "{said}");

    // A migration, then one group after the other; a broken migration stops what depends on it.
    let orders: Api<gantry_api::ReleaseOrder> = Api::namespaced(client.clone(), "shop");
    let nodes = |image: &str| {
        let pod = json!({"restartPolicy": "Never", "containers": [{"name": "m", "image": image}]});
        json!([
            {"name": "prod", "after": ["test"], "release": {"group": "cart-prod", "promote": {"from": "cart-test"}}},
            {"name": "test", "after": ["db"], "release": {"group": "cart-test", "revision": {"image": digest(3)}}},
            {"name": "db", "job": {"cell": "b", "spec": {"backoffLimit": 0, "template": {"spec": pod}}}},
        ])
    };
    let start_order = async |name: &str, nodes: Value| {
        let spec = json!({"nodes": nodes, "requestedBy": "alice"});
        orders
            .create(&create, &object(gantry("ReleaseOrder", name, spec)))
            .await
    };
    let told = |text: &'static str| {
        move |o: &gantry_api::ReleaseOrder| {
            o.status.as_ref().is_some_and(|s| s.message.contains(text))
        }
    };
    let twice =
        json!([{"name": "a", "release": {"group": "cart-test"}, "job": {"cell": "a", "spec": {}}}]);
    let said = start_order("twice", twice).await.unwrap_err().to_string();
    assert!(said.contains("either a release or a job"), "{said}");
    start_order("broken", nodes("migrate:broken"))
        .await
        .unwrap();
    let broken = until(
        &orders,
        "broken",
        "the migration fails",
        told("job broken-db has failed"),
    )
    .await;
    let status = broken.status.unwrap();
    assert_eq!(status.progress.failed, "db");
    assert!(releases.get_opt("broken-test").await.unwrap().is_none());
    start_order("good", nodes("migrate:2")).await.unwrap();
    let good = until(&orders, "good", "it succeeds", |o| {
        o.status.as_ref().is_some_and(|s| s.phase.is_final())
    })
    .await
    .status
    .unwrap();
    assert_eq!(good.message, "all 3 nodes have succeeded");
    assert_eq!(ended("good-prod").await.target.unwrap().image, digest(3));
    // Taken back, the last first.
    let back = json!({"spec": {"rollback": true}});
    orders
        .patch("good", &PatchParams::default(), &Patch::Merge(&back))
        .await
        .unwrap();
    let back = until(&orders, "good", "it is taken back", |o| {
        o.status
            .as_ref()
            .is_some_and(|s| s.phase == gantry_api::order::OrderPhase::RolledBack)
    })
    .await
    .status
    .unwrap();
    assert_eq!(
        back.message,
        "taken back: rollback was asked for; db: left as it is: the job has no undo"
    );
    let (prod, test) = (ended("good-prod-back").await, ended("good-test-back").await);
    assert!(prod.finished.unwrap().0 <= test.started.unwrap().0);
    until(
        &apps,
        "cart",
        "all is as it was",
        summary("test 2 → prod 2"),
    )
    .await;
    hub.end().await;
    home.end().await;
}
