//! Gates, switches and paces that hold a release.

use gantry_api::{App, Cluster, Group, Phase, Release};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::sync::{Arc, Mutex};

use crate::{object, phase, release, start, start_hub_with, until, whoami};

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
