//! A whole fleet in one process: a hub and two members with everything a cluster needs, releases
//! through the API alone, and the hub ended and started again in the middle of one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a helper fails the test that calls it"
)]

use std::{collections::BTreeMap, fmt::Debug, time::Duration};

use gantry_api::{App, Cluster, Group, Phase, Release, labels};
use gantry_apiserver::{Authentication, Config, Server};
use gantry_hollow::NodeGroup;
use gantry_store::Store;
use k8s_openapi::{
    ByteString,
    api::{
        apps::v1::StatefulSet,
        core::v1::{ConfigMap, Namespace, Pod, Secret, Service},
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(60);

/// An API server with the controllers, scheduler and simulated nodes of a cluster.
struct Running {
    server: Server,
    tasks: JoinSet<()>,
    stop: CancellationToken,
}

async fn start(cells: &[&str]) -> Running {
    let token = gantry_apiserver::StaticToken {
        token: "sesame".into(),
        user: "hub".into(),
        uid: String::new(),
        groups: vec!["system:masters".into()],
    };
    let config = Config {
        authentication: Authentication {
            tokens: vec![token],
            ..Authentication::default()
        },
        disabled_admission: vec!["ServiceAccount".into()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
        .await
        .unwrap();
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    let hollow = gantry_hollow::Options {
        groups: cells
            .iter()
            .map(|cell| NodeGroup::new("east", *cell, 3))
            .collect(),
        time_scale: 10.0,
        ..gantry_hollow::Options::default()
    };
    let (client, ends) = (server.client(), stop.clone());
    tasks.spawn(async move {
        gantry_controllers::run(client, gantry_controllers::Options::default(), ends)
            .await
            .unwrap()
    });
    if !cells.is_empty() {
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move {
            gantry_scheduler::run(client, gantry_scheduler::Options::default(), ends)
                .await
                .unwrap()
        });
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move { gantry_hollow::run(client, hollow, ends).await.unwrap() });
    }
    Running {
        server,
        tasks,
        stop,
    }
}

impl Running {
    fn kubeconfig(&self) -> String {
        let ca =
            serde_json::to_value(ByteString(self.server.ca_pem().as_bytes().to_vec())).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("https://{}", self.server.address()), "certificate-authority-data": ca}}],
            "users": [{"name": "it", "user": {"token": "sesame"}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
        .to_string()
    }

    async fn end(mut self) {
        self.stop.cancel();
        while let Some(task) = self.tasks.join_next().await {
            task.unwrap();
        }
        self.server.shutdown().await;
    }
}

struct HubTask {
    stop: CancellationToken,
    task: tokio::task::JoinHandle<Result<(), gantry_hub::Error>>,
}

fn start_hub(client: Client) -> HubTask {
    let stop = CancellationToken::new();
    let task = tokio::spawn(gantry_hub::run(
        client,
        gantry_hub::Options::default(),
        stop.clone(),
    ));
    HubTask { stop, task }
}

impl HubTask {
    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).unwrap()
}

/// Polls one object until something holds of it.
async fn until<K>(api: &Api<K>, name: &str, what: &str, holds: impl Fn(&K) -> bool) -> K
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let seen = api.get_opt(name).await.unwrap();
        if let Some(seen) = &seen
            && holds(seen)
        {
            return seen.clone();
        }
        if tokio::time::Instant::now() >= deadline {
            let value = serde_json::to_value(&seen).unwrap();
            panic!(
                "{name} never: {what}\n{}",
                serde_json::to_string_pretty(&value["status"]).unwrap()
            );
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn pods(members: &[&Running]) -> BTreeMap<String, Pod> {
    let mut all = BTreeMap::new();
    for member in members {
        let api: Api<Pod> = Api::namespaced(member.server.client(), "shop");
        for pod in api
            .list(&ListParams::default().labels(labels::GROUP))
            .await
            .unwrap()
        {
            all.insert(pod.name_any(), pod);
        }
    }
    all
}

fn phase(release: &Release) -> Phase {
    release.status.as_ref().map(|s| s.phase).unwrap_or_default()
}

fn release(name: &str, image: &str, strategy: Value) -> Release {
    object(json!({
        "apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": {"name": name},
        "spec": {"group": "cart", "revision": {"image": image}, "requestedBy": "alice", "strategy": {"inline": strategy}},
    }))
}

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
