//! Instances are moved to nodes of their cell, through the API alone.

use std::collections::BTreeMap;

use gantry_api::{App, Cluster, Group, labels};
use gantry_hub::group::nodes;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Namespace, Node, Pod, Secret},
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{PATIENCE, object, start, start_hub, until, whoami};

fn made<K: serde::de::DeserializeOwned>(kind: &str, name: &str, spec: Value) -> K {
    object(
        json!({"apiVersion": "gantry.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}),
    )
}

/// What is wished for one instance: that it goes to a node.
fn wish(instance: &str, by: &str, from: &str, node: &str) -> Value {
    let before = Time(Timestamp::now() + SignedDuration::from_secs(1));
    json!({"spec": {"instances": [
        {"name": instance, "by": by, "toNode": {"name": node, "from": from, "before": before}},
    ]}})
}

fn says<'a>(instance: &'a str, state: &'a str) -> impl Fn(&Group) -> bool + use<'a> {
    move |group| {
        let status = group.status.as_ref();
        let seen = status.and_then(|s| s.observed_generation) == group.metadata.generation;
        let mut notes = status.into_iter().flat_map(|s| &s.instances);
        seen && notes.any(|n| n.name == instance && n.state == state)
    }
}

fn on(pod: &Pod) -> String {
    pod.spec.clone().unwrap().node_name.unwrap_or_default()
}

fn ready(pod: &Pod) -> bool {
    let conditions = pod
        .status
        .iter()
        .flat_map(|s| s.conditions.iter().flatten());
    let mut ready = conditions.filter(|c| c.type_ == "Ready" && c.status == "True");
    ready.next().is_some()
}

async fn gone(maps: &Api<ConfigMap>, name: &str) {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while maps.get_opt(name).await.unwrap().is_some() {
        assert!(tokio::time::Instant::now() < deadline, "{name} never goes");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_moved_to_a_node_and_keeps_its_name() {
    let home = start(&[]).await;
    let east = start(&["sh-a", "sh-b"]).await;
    let client = home.server.client();
    gantry_hub::install(&client).await.unwrap();
    let hub = start_hub(client.clone());

    let create = PostParams::default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let shop = object(json!({"metadata": {"name": "shop"}}));
    namespaces.create(&create, &shop).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), "shop");
    let secret =
        json!({"metadata": {"name": "sh"}, "stringData": {"kubeconfig": east.kubeconfig()}});
    secrets.create(&create, &object(secret)).await.unwrap();
    let clusters: Api<Cluster> = Api::all(client.clone());
    let access = json!({"kubeconfigSecret": {"namespace": "shop", "name": "sh"}});
    let spec =
        json!({"region": "sh", "access": access, "cells": [{"name": "sh-a"}, {"name": "sh-b"}]});
    clusters
        .create(&create, &made("Cluster", "sh", spec))
        .await
        .unwrap();
    let apps: Api<App> = Api::namespaced(client.clone(), "shop");
    apps.create(&create, &made("App", "cart", json!({})))
        .await
        .unwrap();
    let groups: Api<Group> = Api::namespaced(client.clone(), "shop");
    let spec = json!({
        "app": "cart", "replicas": 3, "placement": {"cells": [{"name": "sh-a"}]},
        "revision": {"image": "cart:1", "resources": {"requests": {"cpu": "1"}}},
        "availability": {"maxUnavailable": 1},
    });
    groups
        .create(&create, &made("Group", "cart", spec))
        .await
        .unwrap();
    until(&groups, "cart", "three in service", |g| {
        g.status.as_ref().is_some_and(|s| s.in_service == 3)
    })
    .await;

    let member = east.server.client();
    let pods: Api<Pod> = Api::namespaced(member.clone(), "shop");
    let maps: Api<ConfigMap> = Api::namespaced(member.clone(), "shop");
    let all: Api<Node> = Api::all(member.clone());
    let (name, notes) = ("cart-sh-a-1", nodes::notes_name("cart"));
    let old = pods.get(name).await.unwrap();
    let mut of_cell = vec![];
    let mut elsewhere = String::new();
    for node in all.list(&ListParams::default()).await.unwrap() {
        let it = node.name_any();
        if !it.contains("sh-a") {
            elsewhere = it;
        } else if it != on(&old) {
            of_cell.push(it);
        }
    }
    let (there, third) = (&of_cell[0], &of_cell[1]);
    let patch = PatchParams::default();
    let by = whoami(&client).await;
    let asked = async |from: &str, node: &str| {
        let wish = Patch::Merge(wish(name, &by, from, node));
        groups.patch("cart", &patch, &wish).await.unwrap();
    };

    // What cannot be is said, and nothing is touched.
    for (node, why) in [
        (elsewhere.as_str(), "cell sh-a has no node"),
        ("nowhere", "cell sh-a has no node nowhere: choose one"),
    ] {
        asked(&on(&old), node).await;
        let group = until(&groups, "cart", "it is refused", says(name, "Refused")).await;
        let told = &group.status.unwrap().instances[0].message;
        assert!(told.contains(why), "{told}");
    }
    let big = json!({
        "metadata": {"name": "big"},
        "spec": {"nodeName": there, "containers": [{"name": "it", "image": "big:1"}]},
    });
    let mut big: Pod = object(big);
    let node = all.get(there).await.unwrap();
    let cpu = &node.status.unwrap().allocatable.unwrap()["cpu"];
    // One is asked for by the group's instance there: the node is full with it.
    let rest = Quantity((cpu.0.parse::<i32>().unwrap() - 1).to_string());
    let requests = BTreeMap::from([("cpu".to_owned(), rest)]);
    let resources = k8s_openapi::api::core::v1::ResourceRequirements {
        requests: Some(requests),
        ..Default::default()
    };
    big.spec.as_mut().unwrap().containers[0].resources = Some(resources);
    pods.create(&create, &big).await.unwrap();
    asked(&on(&old), there).await;
    let group = until(&groups, "cart", "it has no room", says(name, "Refused")).await;
    let told = &group.status.unwrap().instances[0].message;
    assert!(
        told.contains(&format!(
            "instances[{name}].toNode.name: node {there} has 0 of"
        )) && told.contains("cpu left"),
        "{told}"
    );
    let kept = pods.get(name).await.unwrap();
    assert_eq!((kept.uid(), ready(&kept)), (old.uid(), true));
    assert!(maps.get_opt(&notes).await.unwrap().is_none());

    // There is room again: the wish stands, and it goes.
    let at_once = DeleteParams::default().grace_period(0);
    pods.delete("big", &at_once).await.unwrap();
    until(&groups, "cart", "it is moved", says(name, "Moved")).await;
    let moved = pods.get(name).await.unwrap();
    assert_ne!(moved.uid(), old.uid());
    assert_eq!(
        (on(&moved), moved.annotations()[labels::MOVED_TO].clone()),
        (there.clone(), there.clone())
    );
    until(&pods, name, "it is in service", ready).await;
    gone(&maps, &notes).await;

    // A pod that is made later is no longer held to the node.
    pods.delete(name, &DeleteParams::default()).await.unwrap();
    let free = until(&pods, name, "a new pod is ready", |p| {
        p.uid() != moved.uid() && ready(p)
    })
    .await;
    assert!(!free.annotations().contains_key(labels::MOVED_TO));
    assert!(
        free.spec
            .clone()
            .unwrap()
            .affinity
            .is_none_or(|a| a.node_affinity.is_none())
    );

    // A cordoned one refuses; the hub ends, and another one does it.
    let target = if on(&free) == *third { there } else { third };
    let cordon = |is: bool| Patch::Merge(json!({"spec": {"unschedulable": is}}));
    all.patch(target, &patch, &cordon(true)).await.unwrap();
    asked(&on(&free), target).await;
    let group = until(&groups, "cart", "it is refused", says(name, "Refused")).await;
    let told = &group.status.unwrap().instances[0].message;
    assert!(told.contains("is cordoned: kubectl uncordon"), "{told}");
    hub.end().await;
    // What a hub that was killed has left: a note that nobody asks for any more.
    let pins = BTreeMap::from([("cart-sh-a-0".to_owned(), target.clone())]);
    let left: ConfigMap = object(nodes::notes("cart", "shop", &pins));
    maps.create(&create, &left).await.unwrap();
    let hub = start_hub(client.clone());
    gone(&maps, &notes).await;
    all.patch(target, &patch, &cordon(false)).await.unwrap();
    until(&groups, "cart", "it is moved", says(name, "Moved")).await;
    assert_eq!(on(&pods.get(name).await.unwrap()), *target);
    gone(&maps, &notes).await;

    hub.end().await;
    home.end().await;
    east.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_narrows_down_what_a_pod_asks_of_nodes() {
    let member = start(&[]).await;
    let client = member.server.client();
    let create = PostParams::default();
    for policy in nodes::policy() {
        let kind = policy["kind"].as_str().unwrap();
        let kind = kube::core::GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", kind);
        let kind = kube::core::ApiResource::from_gvk(&kind);
        let api: Api<kube::core::DynamicObject> = Api::all_with(client.clone(), &kind);
        api.create(&create, &object(policy)).await.unwrap();
    }
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let pins = BTreeMap::from([("cart-0".to_owned(), "n2".to_owned())]);
    let notes = object(nodes::notes("cart", "default", &pins));
    maps.create(&create, &notes).await.unwrap();
    let field = json!({"key": "metadata.name", "operator": "In", "values": ["n2"]});
    let zone = json!({"key": "zone", "operator": "In", "values": ["a"]});
    let other = json!({"key": "metadata.name", "operator": "NotIn", "values": ["n1"]});
    let terms = |terms: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}});
    let preferred = json!([{"weight": 1, "preference": {"matchExpressions": [zone]}}]);
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let placed = async |name: &str, labels: Value, affinity: Value| -> Value {
        let pod = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"containers": [{"name": "it", "image": "it:1"}], "affinity": affinity},
        });
        let made: Pod = pods.create(&dry, &object(pod)).await.unwrap();
        serde_json::to_value(made.spec.unwrap()).unwrap()["affinity"].clone()
    };
    let ours = json!({labels::GROUP: "cart"});
    let alone = terms(json!([{"matchFields": [field]}]));
    let mut beside = alone.clone();
    beside["preferredDuringSchedulingIgnoredDuringExecution"] = preferred.clone();
    for (has, wanted) in [
        (json!(null), alone.clone()),
        (json!({}), alone.clone()),
        (json!({"nodeAffinity": {}}), alone),
        (
            json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": preferred}}),
            beside,
        ),
        (
            json!({"nodeAffinity": terms(json!([{"matchExpressions": [zone]}, {"matchFields": [other]}]))}),
            terms(
                json!([{"matchExpressions": [zone], "matchFields": [field]}, {"matchFields": [other, field]}]),
            ),
        ),
    ] {
        let got = placed("cart-0", ours.clone(), has.clone()).await;
        assert_eq!(got["nodeAffinity"], wanted, "{has}");
    }
    // Others, and those that are no instances, are let be.
    assert_eq!(placed("cart-1", ours, json!(null)).await, json!(null));
    assert_eq!(placed("cart-0", json!({}), json!(null)).await, json!(null));
    member.end().await;
}
