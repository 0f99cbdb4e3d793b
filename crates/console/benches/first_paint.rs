//! First paint on the server's side: a console over 10,000 Apps, 100,000 instances and 10,000 nodes.
//!
//! `cargo bench -p gantry-console --bench first_paint`. Each page is asked for twenty times over one kept
//! connection (TLS, gzip); printed are the median and the slowest, and the bytes sent.
#![expect(clippy::unwrap_used, reason = "a benchmark that fails ends")]

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use gantry_api::{App, Cluster, Group, Release};
use gantry_cluster::EmbeddedCluster;
use gantry_console::{
    Console, Options, Tls,
    model::{Instance, Node, State},
};
use http::{Request, header};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use kube::{Config, config::KubeConfigOptions};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::{from_value, json};

const APPS: usize = 10_000;
const INSTANCES_OF_EACH: usize = 10;
const NODES: usize = 10_000;
const MEMBERS: usize = 4;
const CELLS: usize = 3;

fn state() -> State {
    let mut state = State::default();
    let cell = |m: usize, c: usize| format!("m{m}-{}", char::from(b'a' + c as u8));
    for m in 0..MEMBERS {
        let cells: Vec<_> = (0..CELLS).map(|c| json!({"name": cell(m, c)})).collect();
        let cluster: Cluster = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Cluster", "metadata": {"name": format!("m{m}")},
            "spec": {"region": "r", "cells": cells}, "status": {"version": "v1.36.0", "conditions": [{"type": "Ready", "status": "True", "reason": "Reachable",
            "message": "", "lastTransitionTime": "2026-11-21T08:00:00Z"}]}})).unwrap();
        let member = state.members.entry(format!("m{m}")).or_default();
        member.divide(&cluster.spec.cells);
        for n in 0..NODES / MEMBERS {
            member.put_node(Node {
                name: format!("node-{n:05}"),
                labels: [("topology.kubernetes.io/zone".to_owned(), cell(m, n % CELLS))].into(),
                ready: n % 311 != 0,
                cpu: 32_000,
                memory: 128 << 30,
                ..Node::default()
            });
        }
        state.clusters.insert(format!("m{m}"), Arc::new(cluster));
    }
    for a in 0..APPS {
        let (tenant, app) = (format!("tenant-{:03}", a % 200), format!("app-{a:05}"));
        let group = format!("{app}-prod");
        let meta = |name: &str| json!({"name": name, "namespace": tenant, "creationTimestamp": "2026-11-21T08:00:00Z"});
        let object: App = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "App", "metadata": meta(&app), "spec": {}})).unwrap();
        state
            .apps
            .insert((tenant.clone(), app.clone()), Arc::new(object));
        let serving = if a % 97 == 0 {
            INSTANCES_OF_EACH - 1
        } else {
            INSTANCES_OF_EACH
        };
        let object: Group = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": meta(&group),
            "spec": {"app": app, "environment": "prod", "replicas": INSTANCES_OF_EACH, "placement": {"cells": [{"name": cell(a % MEMBERS, 0)}]}, "revision": {"image": "r/a:1"}},
            "status": {"observedGeneration": 1, "current": {"revision": 2, "image": "r/a:2"}, "replicas": INSTANCES_OF_EACH, "ready": serving, "inService": serving,
            "cells": [{"name": cell(a % MEMBERS, 0), "cluster": format!("m{}", a % MEMBERS), "desired": INSTANCES_OF_EACH, "replicas": INSTANCES_OF_EACH, "ready": serving, "inService": serving, "updated": serving}]}})).unwrap();
        state.put_group(object);
        for past in 0..3 {
            let name = format!("{group}-{past}");
            let object: Release = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": meta(&name),
                "spec": {"group": group, "revision": {"image": "r/a:2"}}, "status": {"phase": "Succeeded", "progress": {"updated": "10/10", "batch": "2/2"}, "requestedBy": "ann"}})).unwrap();
            state.put_release(object);
        }
        if a % 1000 == 0 {
            let object: Release = from_value(json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Release", "metadata": meta("running"),
                "spec": {"group": group, "revision": {"image": "r/a:3"}}, "status": {"phase": "Batch", "target": {"revision": 3}, "plan": {"batches": [
                    {"index": 0, "size": 1, "slices": [{"cell": cell(a % MEMBERS, 0), "highest": 999, "lowest": 999}]},
                    {"index": 1, "size": 999, "slices": [{"cell": cell(a % MEMBERS, 0), "highest": 998, "lowest": 0}]}],
                    "replicas": 1000, "maxOut": 100, "tolerance": 0, "method": "InPlace", "strategy": {}}}})).unwrap();
            state.put_release(object);
        }
        if let Some(member) = state.members.get_mut(&format!("m{}", a % MEMBERS)) {
            for n in 0..INSTANCES_OF_EACH {
                member.put(Instance {
                    tenant: tenant.clone(),
                    name: format!("{group}-{}-{n}", cell(a % MEMBERS, 0)),
                    group: group.clone(),
                    app: app.clone(),
                    cell: cell(a % MEMBERS, 0),
                    node: format!("node-{:05}", (a * 7 + n * 131) % (NODES / MEMBERS)),
                    revision: Some(2),
                    ready: true,
                    in_service: n < serving,
                    cpu: 1000,
                    memory: 2 << 30,
                    ..Instance::default()
                });
            }
        }
    }
    state
}

#[tokio::main]
async fn main() {
    let hub = EmbeddedCluster::builder()
        .scheduler(false)
        .nodes(vec![])
        .start()
        .await
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let made = Instant::now();
    let state = state();
    println!(
        "{APPS} apps, {} instances, {NODES} nodes; model made in {:.1}s; {} cores",
        APPS * INSTANCES_OF_EACH,
        made.elapsed().as_secs_f64(),
        std::thread::available_parallelism().unwrap()
    );
    let options = Options {
        address: "127.0.0.1:0".parse().unwrap(),
        tls: Tls::Made {
            folder: Some(folder.path().to_owned()),
            addresses: vec![],
        },
        hub: Config::from_custom_kubeconfig(hub.kubeconfig(), &KubeConfigOptions::default())
            .await
            .unwrap(),
        client: Some(hub.client()),
        door: false,
        records: None,
        oidc: None,
    };
    let console = Console::start_with(options, Some(state)).await.unwrap();
    let pem = std::fs::read(folder.path().join("console.crt")).unwrap();
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_slice(&pem).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap();
    let tls = tokio_rustls::TlsConnector::from(Arc::new(
        tls.with_root_certificates(roots).with_no_client_auth(),
    ));
    let stream = tokio::net::TcpStream::connect(console.address())
        .await
        .unwrap();
    let stream = tls
        .connect(ServerName::try_from("localhost").unwrap(), stream)
        .await
        .unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let token = hub.context().token;
    println!(
        "{:<52} {:>9} {:>9} {:>10}",
        "page", "median ms", "worst ms", "bytes sent"
    );
    for path in [
        "/",
        "/services",
        "/services?q=app-0421",
        "/services?sort=-changed&page=40",
        "/services?sort=health",
        "/services/tenant-042",
        "/groups/tenant-042/app-00042-prod",
        "/releases",
        "/releases?phase=open",
        "/releases/tenant-000/running",
        "/nodes",
        "/nodes?sort=-cpu&page=9",
        "/nodes/m0/node-00007",
        "/api/v1/groups?per=500",
        "/api/v1/search?q=app-0999",
        "/settings",
    ] {
        let (mut times, mut size) = (Vec::new(), 0);
        for _ in 0..20 {
            let request = Request::get(path)
                .header(header::HOST, "localhost")
                .header(header::ACCEPT_ENCODING, "gzip")
                .header(header::AUTHORIZATION, format!("Bearer {token}"))
                .body(Full::new(Bytes::new()))
                .unwrap();
            let start = Instant::now();
            sender.ready().await.unwrap();
            let answer = sender.send_request(request).await.unwrap();
            let status = answer.status();
            let body = answer.into_body().collect().await.unwrap().to_bytes();
            times.push(start.elapsed());
            assert_eq!(status, 200, "{path}: {}", String::from_utf8_lossy(&body));
            size = body.len();
        }
        // The first asks the hub what the user may; it counts as the worst.
        times.sort();
        let ms = |n: usize| times[n].as_secs_f64() * 1000.0;
        println!("{path:<52} {:>9.1} {:>9.1} {size:>10}", ms(10), ms(19));
    }
    console.shutdown().await;
    hub.shutdown().await;
}
