//! Many groups and releases at once over many clusters: the hub itself against API servers in the same
//! process, in memory, with their controllers, scheduler and simulated nodes.
//!
//! `cargo bench -p gantry-hub --bench releases -- [GROUPS] [RELEASES] [CLUSTERS] [INSTANCES]`, 5000, 200,
//! 10 and 4 (of each group, over two cells) when left out; three groups to an App. Prints the hub's
//! processor time (its threads alone: the home API server's work on its calls is part of it, being in the
//! same process), its API calls by kind, calls per instance updated, and the time from "continue" to the
//! first patch of an instance. The hub reaches its members through a proxy that counts; the proxy's time is
//! not the hub's.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    error::Error,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, TryStreamExt as _};
use gantry_api::{App, Cluster, Group, Phase, Release};
use gantry_apiserver::{Config, Server};
use gantry_hollow::NodeGroup;
use gantry_store::Store;
use http_body_util::BodyExt as _;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, PostParams},
    client::Body,
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Cells of a group.
const CELLS: usize = 2;
/// Groups of an App: as many as it has environments.
const GROUPS_OF_APP: usize = 3;
/// Name of the hub's threads, by which their processor time is found.
const THREADS: &str = "the-hub";

/// Calls by method and resource; by group, when "continue" was pressed and how long after that an
/// instance was first patched.
#[derive(Default)]
struct Calls {
    count: BTreeMap<String, u64>,
    pressed: BTreeMap<String, Instant>,
    first: BTreeMap<String, Duration>,
}

type Counted = Arc<Mutex<Calls>>;

fn note(calls: &Counted, method: &http::Method, uri: &http::Uri) {
    let parts: Vec<&str> = uri.path().split('/').filter(|p| !p.is_empty()).collect();
    let rest: &[&str] = match parts.first() {
        Some(&"api") => parts.get(2..).unwrap_or_default(),
        Some(&"apis") => parts.get(3..).unwrap_or_default(),
        _ => &parts,
    };
    let (resource, name, sub) = match rest {
        ["namespaces", _, resource, tail @ ..] => (*resource, tail.first(), tail.get(1)),
        [resource, tail @ ..] => (*resource, tail.first(), tail.get(1)),
        [] => ("", None, None),
    };
    let watch = uri.query().is_some_and(|q| q.contains("watch="));
    let verb = if watch { "WATCH" } else { method.as_str() };
    let sub = sub.map(|s| format!("/{s}")).unwrap_or_default();
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    *calls
        .count
        .entry(format!("{verb} {resource}{sub}"))
        .or_default() += 1;
    if let ("pods", "PATCH", Some(name)) = (resource, verb, name) {
        let group = name.split("-cell-").next().unwrap_or_default();
        if let Some(pressed) = calls.pressed.get(group).copied() {
            calls
                .first
                .entry(group.to_owned())
                .or_insert(pressed.elapsed());
        }
    }
}

/// "Continue" is pressed for a group's release.
fn press(calls: &Counted, group: String) {
    let mut calls = calls.lock().unwrap_or_else(PoisonError::into_inner);
    calls.pressed.insert(group, Instant::now());
}

/// The calls since `before`.
fn since(calls: &Counted, before: &BTreeMap<String, u64>) -> BTreeMap<String, u64> {
    let now = counts(calls);
    now.into_iter()
        .map(|(k, n)| (k.clone(), n - before.get(&k).copied().unwrap_or(0)))
        .filter(|(_, n)| *n > 0)
        .collect()
}

fn counts(calls: &Counted) -> BTreeMap<String, u64> {
    calls
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .count
        .clone()
}

/// A client whose calls are counted.
fn counted(client: Client, calls: &Counted) -> Client {
    let calls = calls.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        note(&calls, request.method(), request.uri());
        let client = client.clone();
        async move { client.send(request).await }
    });
    Client::new(service, "default")
}

/// A plain HTTP address that leads to `client`.
async fn proxy(client: Client) -> Outcome<String> {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let client = client.clone();
            let answer = move |request: http::Request<hyper::body::Incoming>| {
                let client = client.clone();
                async move {
                    let (head, body) = request.into_parts();
                    let body = body.collect().await.map(|b| b.to_bytes().to_vec());
                    let body = Body::from(body.unwrap_or_default());
                    let answer = client.send(http::Request::from_parts(head, body)).await;
                    Ok::<_, Infallible>(answer.unwrap_or_else(|error| {
                        let mut gone =
                            http::Response::new(Body::from(error.to_string().into_bytes()));
                        *gone.status_mut() = http::StatusCode::BAD_GATEWAY;
                        gone
                    }))
                }
            };
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(
                hyper_util::rt::TokioIo::new(stream),
                hyper::service::service_fn(answer),
            ));
        }
    });
    Ok(address)
}

async fn server() -> Outcome<Server> {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".into()],
        ..Config::default()
    };
    Ok(Server::start(config, Store::in_memory(gantry_store::Options::default())).await?)
}

/// A member with what makes it a cluster.
async fn member(cell: &str, nodes: u32, stop: &CancellationToken) -> Outcome<Server> {
    let server = server().await?;
    let (client, ends) = (server.client(), stop.clone());
    tokio::spawn(gantry_controllers::run(
        client,
        gantry_controllers::Options::default(),
        ends,
    ));
    let (client, ends) = (server.client(), stop.clone());
    tokio::spawn(gantry_scheduler::run(
        client,
        gantry_scheduler::Options::default(),
        ends,
    ));
    let hollow = gantry_hollow::Options {
        groups: vec![NodeGroup::new("bench", cell, nodes)],
        time_scale: 10.0,
        ..gantry_hollow::Options::default()
    };
    let (client, ends) = (server.client(), stop.clone());
    tokio::spawn(gantry_hollow::run(client, hollow, ends));
    Ok(server)
}

/// Processor time of the hub's threads, in seconds. Linux alone tells.
fn hub_seconds() -> f64 {
    const TICKS: f64 = 100.0;
    let Ok(tasks) = std::fs::read_dir("/proc/self/task") else {
        return 0.0;
    };
    let mut ticks = 0.0;
    for task in tasks.flatten() {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        if read("comm").trim() != THREADS {
            continue;
        }
        // After the name in brackets: state is the first, user and system time the 12th and 13th.
        let stat = read("stat");
        let fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        ticks += fields
            .skip(11)
            .take(2)
            .filter_map(|t| t.parse::<f64>().ok())
            .sum::<f64>();
    }
    ticks / TICKS
}

fn memory_mb() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status
        .lines()
        .find(|l| l.starts_with("VmRSS"))
        .unwrap_or_default();
    let kb = line
        .split_whitespace()
        .nth(1)
        .and_then(|n| n.parse::<u64>().ok());
    kb.unwrap_or(0) / 1024
}

fn object<K: DeserializeOwned>(kind: &str, name: &str, spec: Value) -> Outcome<K> {
    let value = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec});
    Ok(serde_json::from_value(value)?)
}

/// Waits until `done` says so of the list; the list.
async fn until<K>(api: &Api<K>, what: &str, done: impl Fn(&[K]) -> (usize, bool)) -> Outcome<Vec<K>>
where
    K: Clone + std::fmt::Debug + DeserializeOwned,
{
    let start = Instant::now();
    let mut told = Instant::now();
    loop {
        let list = api.list(&ListParams::default()).await?.items;
        let (count, enough) = done(&list);
        if enough {
            return Ok(list);
        }
        if told.elapsed() > Duration::from_secs(10) {
            eprintln!(
                "  {what}: {count} after {:.0} s",
                start.elapsed().as_secs_f64()
            );
            told = Instant::now();
        }
        if start.elapsed() > Duration::from_secs(1200) {
            return Err(format!("never: {what}; {count}").into());
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

fn tell(what: &str, clock: Instant, cpu: f64, calls: &BTreeMap<String, u64>) {
    let sum: u64 = calls.values().sum();
    println!(
        "{what}: {:.1} s, hub {:.2} s of processor time, {sum} API calls, {} MB in the process",
        clock.elapsed().as_secs_f64(),
        hub_seconds() - cpu,
        memory_mb()
    );
    let mut calls: Vec<(&String, &u64)> = calls.iter().collect();
    calls.sort_by_key(|(_, n)| std::cmp::Reverse(**n));
    for (call, n) in calls.into_iter().take(12) {
        println!("    {n:>8}  {call}");
    }
}

fn main() -> Outcome<()> {
    let mut sizes = std::env::args().skip(1).filter(|it| !it.starts_with("--"));
    let groups: usize = sizes.next().map_or(Ok(5000), |it| it.parse())?;
    let releases: usize = sizes.next().map_or(Ok(200), |it| it.parse())?;
    let clusters: usize = sizes.next().map_or(Ok(10), |it| it.parse())?;
    let instances: usize = sizes.next().map_or(Ok(4), |it| it.parse())?;
    println!(
        "{groups} groups of {instances} instances, {releases} releases, {clusters} clusters, {} cores",
        std::thread::available_parallelism()?
    );
    let rest = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let hub = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name(THREADS)
        .enable_all()
        .build()?;
    let size = Size {
        groups,
        releases: releases.min(groups),
        clusters: clusters.max(CELLS),
        instances,
    };
    rest.block_on(run(hub.handle(), size))
}

/// How much there is of everything.
struct Size {
    groups: usize,
    releases: usize,
    clusters: usize,
    /// Of each group.
    instances: usize,
}

async fn run(hub: &tokio::runtime::Handle, size: Size) -> Outcome<()> {
    let Size {
        groups,
        releases,
        clusters,
        instances,
    } = size;
    let stop = CancellationToken::new();
    let calls = Counted::default();
    let home = server().await?;
    let client = home.client();
    gantry_hub::install(&client).await?;
    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop = serde_json::from_value(json!({"metadata": {"name": "shop"}}))?;
    namespaces.create(&create, &shop).await?;
    let nodes = u32::try_from(groups * instances / clusters / 80 + 2)?;
    let mut members = Vec::new();
    for n in 0..clusters {
        let member = member(&format!("cell-{n}"), nodes, &stop).await?;
        let address = proxy(counted(member.client(), &calls)).await?;
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "it",
            "clusters": [{"name": "it", "cluster": {"server": address}}],
            "users": [{"name": "it", "user": {}}],
            "contexts": [{"name": "it", "context": {"cluster": "it", "user": "it"}}],
        });
        let name = format!("c{n}");
        let secret = json!({"metadata": {"name": name}, "stringData": {"kubeconfig": kubeconfig.to_string()}});
        let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
        secrets
            .create(&create, &serde_json::from_value(secret)?)
            .await?;
        let spec = json!({"access": {"kubeconfigSecret": {"namespace": "shop", "name": name}}, "cells": [{"name": format!("cell-{n}")}]});
        let api: Api<Cluster> = Api::all(client.clone());
        api.create(&create, &object("Cluster", &name, spec)?)
            .await?;
        members.push(member);
    }
    let apps: Api<App> = Api::namespaced(client.clone(), "shop");
    for n in 0..groups.div_ceil(GROUPS_OF_APP) {
        let spec = json!({"ports": [{"name": "http", "port": 80}]});
        apps.create(&create, &object("App", &format!("app-{n}"), spec)?)
            .await?;
    }
    let api: Api<Group> = Api::namespaced(client.clone(), "shop");

    let (clock, before) = (Instant::now(), counts(&calls));
    hub.spawn(gantry_hub::run(
        counted(client.clone(), &calls),
        gantry_hub::Options::default(),
        stop.clone(),
    ));
    futures::stream::iter(0..groups)
        .map(|n| {
            let api = &api;
            async move {
                let cells: Vec<Value> = (0..CELLS)
                    .map(|c| json!({"name": format!("cell-{}", (n + c) % clusters)}))
                    .collect();
                let spec = json!({
                    "app": format!("app-{}", n / GROUPS_OF_APP), "replicas": instances, "placement": {"cells": cells},
                    "revision": {"image": "cart:1"}, "availability": {"maxUnavailable": 1},
                });
                api.create(
                    &PostParams::default(),
                    &object("Group", &format!("g{n}"), spec)?,
                )
                .await?;
                Outcome::Ok(())
            }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
    let serving = |g: &Group| {
        g.status
            .as_ref()
            .is_some_and(|s| s.in_service as usize >= instances)
    };
    until(&api, "groups in service", |all| {
        let up = all.iter().filter(|g| serving(g)).count();
        (up, up >= groups)
    })
    .await?;
    tell("all groups in service", clock, 0.0, &since(&calls, &before));

    let (clock, cpu, before) = (Instant::now(), hub_seconds(), counts(&calls));
    tokio::time::sleep(Duration::from_secs(15)).await;
    tell("at rest", clock, cpu, &since(&calls, &before));

    let (clock, cpu, before) = (Instant::now(), hub_seconds(), counts(&calls));
    let running: Api<Release> = Api::namespaced(client.clone(), "shop");
    let strategy = json!({"inline": {"bastion": {"instances": 1}, "batches": {"count": 1}, "pause": "AfterBastion"}});
    for n in 0..releases {
        let spec = json!({"group": format!("g{n}"), "revision": {"image": "cart:2"}, "strategy": strategy});
        running
            .create(&create, &object("Release", &format!("r{n}"), spec)?)
            .await?;
    }
    let phase = |r: &Release| r.status.as_ref().map(|s| s.phase).unwrap_or_default();
    until(&running, "bastions ready", |all| {
        let ready = all.iter().filter(|r| phase(r) == Phase::Gate).count();
        (ready, ready >= releases)
    })
    .await?;
    tell("every bastion waits", clock, cpu, &since(&calls, &before));

    // The buttons of all at once: how long until the first instance of each is patched.
    let (go, cpu_go) = (Instant::now(), hub_seconds());
    futures::stream::iter(0..releases)
        .map(|n| {
            let (running, calls) = (&running, &calls);
            async move {
                press(calls, format!("g{n}"));
                let patch = json!({"spec": {"acceptedThrough": 0}});
                running
                    .patch(
                        &format!("r{n}"),
                        &PatchParams::default(),
                        &Patch::Merge(patch),
                    )
                    .await?;
                Outcome::Ok(())
            }
        })
        .buffer_unordered(16)
        .try_collect::<Vec<()>>()
        .await?;
    until(&running, "releases ended", |all| {
        let ended = all.iter().filter(|r| phase(r) == Phase::Succeeded).count();
        (ended, ended >= releases)
    })
    .await?;
    tell("continued to the end", go, cpu_go, &BTreeMap::new());
    let all = since(&calls, &before);
    let sum: u64 = all.values().sum();
    let writes: u64 = all
        .iter()
        .filter(|(call, _)| {
            ["PATCH", "POST", "PUT", "DELETE"]
                .iter()
                .any(|v| call.starts_with(v))
        })
        .map(|(_, n)| n)
        .sum();
    let updated = (releases * instances) as f64;
    tell("releases from beginning to end", clock, cpu, &all);
    println!(
        "per instance updated: {:.2} calls, {:.2} writes; the least an instance takes is 3 (out of service, image, into service)",
        sum as f64 / updated,
        writes as f64 / updated
    );
    let mut first: Vec<Duration> = {
        let seen = calls.lock().unwrap_or_else(PoisonError::into_inner);
        seen.first.values().copied().collect()
    };
    first.sort();
    let at = |share: f64| {
        let index = (first.len() as f64 * share) as usize;
        first
            .get(index.min(first.len().saturating_sub(1)))
            .copied()
            .unwrap_or_default()
    };
    println!(
        "from \"continue\" to the first patch, {} releases continued at once: p50 {:?}, p99 {:?}, max {:?}",
        first.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
    stop.cancel();
    Ok(())
}
