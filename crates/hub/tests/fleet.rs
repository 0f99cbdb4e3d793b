//! A whole fleet in one process: a hub and two members with everything a cluster needs, releases
//! through the API alone, and the hub ended and started again in the middle of one.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "what goes wrong in a helper fails the test that calls it"
)]

#[path = "fleet/people.rs"]
mod people;

use std::{
    collections::BTreeMap,
    fmt::Debug,
    sync::{Arc, Mutex},
    time::Duration,
};

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
    let token = |token: &str, user: &str| gantry_apiserver::StaticToken {
        token: token.into(),
        user: user.into(),
        uid: String::new(),
        groups: vec!["system:masters".into()],
    };
    let config = Config {
        authentication: Authentication {
            tokens: vec![token("sesame", "hub"), token("bobs", "bob")],
            ..Authentication::default()
        },
        disabled_admission: vec!["ServiceAccount".into()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(gantry_store::Options::default()))
        .await
        .unwrap();
    let mut running = Running::of(server);
    let (server, tasks, stop) = (&running.server, &mut running.tasks, &running.stop);
    let hollow = gantry_hollow::Options {
        groups: cells
            .iter()
            .map(|cell| NodeGroup::new("east", *cell, 3))
            .collect(),
        time_scale: 10.0,
        ..gantry_hollow::Options::default()
    };
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
    running
}

impl Running {
    /// A server with the controllers that make it a cluster.
    fn of(server: Server) -> Self {
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let (client, ends) = (server.client(), stop.clone());
        tasks.spawn(async move {
            gantry_controllers::run(client, gantry_controllers::Options::default(), ends)
                .await
                .unwrap()
        });
        Self {
            server,
            tasks,
            stop,
        }
    }

    fn kubeconfig(&self) -> String {
        self.kubeconfig_of("sesame")
    }

    fn kubeconfig_of(&self, token: &str) -> String {
        let ca =
            serde_json::to_value(ByteString(self.server.ca_pem().as_bytes().to_vec())).unwrap();
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": format!("https://{}", self.server.address()), "certificate-authority-data": ca}}],
            "users": [{"name": "it", "user": {"token": token}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        })
        .to_string()
    }

    /// A client of the user whose token it is.
    async fn client_of(&self, token: &str) -> Client {
        let config = kube::config::Kubeconfig::from_yaml(&self.kubeconfig_of(token)).unwrap();
        let options = kube::config::KubeConfigOptions::default();
        let config = kube::Config::from_custom_kubeconfig(config, &options)
            .await
            .unwrap();
        Client::try_from(config).unwrap()
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
    start_hub_with(client, gantry_hub::Options::default())
}

fn start_hub_with(client: Client, options: gantry_hub::Options) -> HubTask {
    let stop = CancellationToken::new();
    let task = tokio::spawn(gantry_hub::run(client, options, stop.clone()));
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

/// What the API says to something that it refuses.
async fn refused<K>(api: &Api<K>, name: &str, spec: Value) -> String
where
    K: kube::Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    let value = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": K::kind(&()), "metadata": {"name": name}, "spec": spec});
    match api
        .create(&PostParams::default(), &Raw(value).into_object())
        .await
    {
        Err(kube::Error::Api(status)) => status.message.clone(),
        other => panic!("{name} was not refused: {other:?}"),
    }
}

/// Something that may break the rules of its type.
struct Raw(Value);

impl Raw {
    fn into_object<K: DeserializeOwned>(self) -> K {
        serde_json::from_value(self.0).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_refuses_what_is_impossible_and_says_where_and_why() {
    let home = start(&[]).await;
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "shop"}})),
        )
        .await
        .unwrap();
    let strategies: Api<gantry_api::Strategy> = Api::namespaced(client.clone(), "shop");
    let metric = |more: Value| {
        let mut metric = json!({"address": "http://prom", "query": "up"});
        for (key, value) in more.as_object().unwrap() {
            metric[key] = value.clone();
        }
        json!({"gates": [{"name": "g", "metric": metric}]})
    };
    let refusals = [
        (
            json!({"maxUnavailable": 0}),
            "spec.maxUnavailable",
            "allow at least 1",
        ),
        (
            json!({"maxUnavailable": "0%"}),
            "spec.maxUnavailable",
            "allow at least 1",
        ),
        (
            json!({"bastion": {"instances": 3}, "maxUnavailable": 2}),
            "spec.bastion",
            "cannot have more instances than maxUnavailable",
        ),
        (
            json!({"batches": {"sizes": [1, "0%"]}}),
            "spec.batches",
            "a batch of no instances never ends",
        ),
        (
            json!({"batches": {"sizes": ["120%"]}}),
            "spec.batches.sizes[0]",
            "should match",
        ),
        (
            json!({"deadlines": {"instance": "10m", "batch": "5m"}}),
            "spec.deadlines",
            "deadlines.batch is shorter than deadlines.instance",
        ),
        (
            json!({"deadlines": {"batch": "1h", "total": "30m"}}),
            "spec.deadlines",
            "deadlines.total is shorter",
        ),
        (
            json!({"gates": [{"name": "g"}]}),
            "spec.gates",
            "exactly one of wait, metric, webhook and approval",
        ),
        (metric(json!({})), "spec.gates", "no bound to keep"),
        (
            metric(json!({"min": 2, "max": 1})),
            "spec.gates",
            "min is above its max",
        ),
        (
            metric(json!({"compare": {"maxRatio": 2}})),
            "spec.gates",
            "compare needs {{pods}}",
        ),
        (
            json!({"gates": [{"name": "g", "approval": {"count": 2, "users": ["bob"]}}]}),
            "spec.gates",
            "asks for more people than it names",
        ),
        (
            json!({"windows": [{"from": "09:00", "until": "09:00"}]}),
            "spec.windows",
            "would never be open",
        ),
        (
            json!({"windows": [{"from": "9", "until": "17:00"}]}),
            "spec.windows[0].from",
            "should match",
        ),
    ];
    for (index, (spec, field, why)) in refusals.into_iter().enumerate() {
        let said = refused(&strategies, &format!("s{index}"), spec).await;
        assert!(said.contains(field) && said.contains(why), "{said}");
    }
    // The same strategy written into a Group.
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let said = refused(
        &groups,
        "g",
        json!({"app": "a", "placement": {"cells": [{"name": "c"}]}, "revision": {"image": "i"}, "strategy": {"inline": {"maxUnavailable": 0}}}),
    )
    .await;
    assert!(
        said.contains("spec.strategy.inline.maxUnavailable"),
        "{said}"
    );

    // A release stays what it is; its buttons do not come back up.
    let releases: Api<Release> = Api::namespaced(client.clone(), "shop");
    let said = refused(
        &releases,
        "r",
        json!({"group": "g", "revision": {"to": 2, "image": "cart:2"}}),
    )
    .await;
    assert!(
        said.contains("spec.revision.to") && said.contains("nothing else"),
        "{said}"
    );
    releases
        .create(&PostParams::default(), &release("r", "cart:2", json!({})))
        .await
        .unwrap();
    let press = async |spec: Value| {
        releases
            .patch(
                "r",
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await
    };
    press(json!({"rollback": true, "retry": 2})).await.unwrap();
    for (spec, field) in [
        (json!({"rollback": false}), "spec.rollback"),
        (json!({"retry": 1}), "spec.retry"),
        (json!({"group": "other"}), "spec.group"),
        (json!({"revision": {"image": "cart:3"}}), "spec.revision"),
        (json!({"pace": {"maxUnavailable": 0}}), "spec.pace"),
    ] {
        let said = press(spec).await.unwrap_err().to_string();
        assert!(said.contains(field), "{said}");
    }

    // Nobody speaks in another's name.
    let approval = |by: &str, groups: &[&str]| json!({"approvals": [{"gate": "people", "by": by, "groups": groups}]});
    let bob: Api<Release> = Api::namespaced(home.client_of("bobs").await, "shop");
    let say = async |spec: Value| {
        bob.patch(
            "r",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": spec})),
        )
        .await
    };
    // A policy holds a moment after it has been written.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    let said = loop {
        match say(approval("alice", &[])).await {
            Err(error) => break error.to_string(),
            Ok(_) => {
                assert!(
                    tokio::time::Instant::now() < deadline,
                    "anyone speaks as alice"
                );
                releases
                    .delete("r", &DeleteParams::default())
                    .await
                    .unwrap();
                releases
                    .create(&PostParams::default(), &release("r", "cart:2", json!({})))
                    .await
                    .unwrap();
            }
        }
    };
    assert!(
        said.contains("an approval is given in one's own name"),
        "{said}"
    );
    let said = say(approval("bob", &["sre"]))
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("groups among the user's groups"), "{said}");
    say(approval("bob", &["system:masters"])).await.unwrap();
    let emergency = json!({"emergency": {"reason": "fire", "by": "alice"}});
    let said = say(emergency).await.unwrap_err().to_string();
    assert!(
        said.contains("an emergency is declared in one's own name"),
        "{said}"
    );
    // What has been said stays said, and others may still press buttons.
    let said = say(json!({"approvals": []})).await.unwrap_err().to_string();
    assert!(said.contains("approvals are only added"), "{said}");
    press(json!({"paused": true})).await.unwrap();
    home.end().await;
}

/// A server that is Prometheus at one path and a smoke test at another; what it answers can be changed.
async fn outside(errors: Arc<Mutex<String>>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let errors = errors.clone();
            let answer = move |request: http::Request<hyper::body::Incoming>| {
                let errors = errors.lock().unwrap().clone();
                async move {
                    let text = if request.uri().path() == "/api/v1/query" {
                        json!({"status": "success", "data": {"resultType": "vector", "result": [{"metric": {}, "value": [1, errors]}]}}).to_string()
                    } else {
                        String::new()
                    };
                    let body = http_body_util::Full::new(bytes::Bytes::from(text));
                    Ok::<_, std::convert::Infallible>(http::Response::new(body))
                }
            };
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                hyper_util::rt::TokioIo::new(stream),
                hyper::service::service_fn(answer),
            ));
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gates_switches_and_paces_hold_a_release() {
    let home = start(&["a", "b"]).await;
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    // Webhooks reach public addresses, and what is named.
    let options = gantry_hub::Options {
        notify_allowed: vec!["127.0.0.1".parse().unwrap()],
        ..gantry_hub::Options::default()
    };
    let hub = start_hub_with(client.clone(), options);
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces
        .create(&create, &object(json!({"metadata": {"name": "shop"}})))
        .await
        .unwrap();
    let gantry = |kind: &str, name: &str, spec: Value| json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    let clusters: Api<Cluster> = Api::all(client.clone());
    let cells = json!({"cells": [{"name": "a"}, {"name": "b"}]});
    clusters
        .create(&create, &object(gantry("Cluster", "home", cells)))
        .await
        .unwrap();
    let apps: Api<App> = Api::namespaced(client.clone(), "shop");
    apps.create(&create, &object(gantry("App", "cart", json!({}))))
        .await
        .unwrap();
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let spec = json!({
        "app": "cart", "replicas": 4, "placement": {"cells": [{"name": "a"}, {"name": "b"}]},
        "revision": {"image": "cart:1"}, "availability": {"maxUnavailable": 1},
    });
    groups
        .create(&create, &object(gantry("Group", "cart", spec)))
        .await
        .unwrap();
    until(&groups, "cart", "four in service", |g: &Group| {
        g.status.as_ref().is_some_and(|s| s.in_service == 4)
    })
    .await;

    let errors = Arc::new(Mutex::new("NaN".to_owned()));
    let address = outside(errors.clone()).await;
    let strategy = json!({
        "bastion": {"accept": "Auto"}, "batches": {"sizes": [1, 2]},
        "gates": [
            {"name": "errors", "at": ["Bastion"], "metric": {"address": address, "query": "rate(errors{pod=~\"{{pods}}\"}[1m])", "max": 0.5, "interval": "100ms"}},
            {"name": "smoke", "at": ["Bastion", "End"], "webhook": {"url": format!("{address}/smoke")}},
            {"name": "people", "at": ["Batch"], "approval": {"users": ["bob"]}},
        ],
    });
    let releases: Api<Release> = Api::namespaced(client.clone(), "shop");
    releases
        .create(&create, &release("two", "cart:2", strategy))
        .await
        .unwrap();
    // A value that is none holds the bastion back; a good one lets it in.
    let told = |text: &'static str| {
        move |r: &Release| r.status.as_ref().is_some_and(|s| s.message.contains(text))
    };
    let held = until(&releases, "two", "no answer", told("the value is NaN")).await;
    assert_eq!(phase(&held), Phase::Gate);
    assert_eq!(held.status.unwrap().batches[1].started, None);
    // The line is stopped: even with its gates open the release stands still, and says by whom.
    let lines: Api<gantry_api::StopLine> = Api::all(client.clone());
    let switch = json!({"tenants": ["shop"], "reason": "incident 4711", "by": "system:admin"});
    let mut switch: gantry_api::StopLine = object(gantry("StopLine", "incident", switch));
    switch.spec.by = whoami(&client).await;
    lines.create(&create, &switch).await.unwrap();
    let stopped = format!(
        "{} has stopped the line of tenant shop: incident 4711",
        switch.spec.by
    );
    until(&releases, "two", "the line is stopped", |r: &Release| {
        phase(r) == Phase::Paused && r.status.as_ref().unwrap().message == stopped
    })
    .await;
    "0.25".clone_into(&mut errors.lock().unwrap());
    lines
        .delete("incident", &DeleteParams::default())
        .await
        .unwrap();
    // Between the batches people are asked, and only bob may answer.
    let asked = until(
        &releases,
        "two",
        "people are asked",
        told("waits for 1 of 1 approvals of bob"),
    )
    .await;
    let status = asked.status.unwrap();
    let gates: Vec<(&str, i32, &str)> = status
        .gates
        .iter()
        .map(|g| (g.name.as_str(), g.batch, g.value.as_str()))
        .collect();
    assert_eq!(
        gates,
        [("errors", 0, "0.25"), ("smoke", 0, ""), ("people", 1, "")]
    );
    let times = status.batches[1].times.clone().unwrap();
    assert_eq!((times.instances, times.slowest.is_empty()), (1, false));
    let bob: Api<Release> = Api::namespaced(home.client_of("bobs").await, "shop");
    let yes = json!({"spec": {"approvals": [{"gate": "people", "by": "bob"}], "pace": {"maxUnavailable": 2}}});
    bob.patch("two", &PatchParams::default(), &Patch::Merge(&yes))
        .await
        .unwrap();
    let done = until(&releases, "two", "it ends", |r| phase(r).is_final())
        .await
        .status
        .unwrap();
    assert_eq!(done.phase, Phase::Succeeded, "{}", done.message);
    assert_eq!(done.max_out, 2);
    let last = done.gates.last().unwrap();
    assert_eq!((last.name.as_str(), last.batch), ("smoke", 2));
    hub.end().await;
    home.end().await;
}

async fn whoami(client: &Client) -> String {
    use k8s_openapi::api::authentication::v1::SelfSubjectReview;
    let api: Api<SelfSubjectReview> = Api::all(client.clone());
    let review = api
        .create(&PostParams::default(), &SelfSubjectReview::default())
        .await
        .unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}

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
