//! `gantry instance move --to-node` with the real binary, on an embedded fleet.

use gantry_api::{App, Group};
use k8s_openapi::api::core::v1::{Namespace, Node};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::fleet::client;
use crate::support::{Fleet, Up, wait};

const SHOP: [&str; 2] = ["-n", "shop"];

fn instance(up: &Up, name: &str) -> Value {
    let all = up.json(&["get", "instances", "cart", "-n", "shop", "-o", "json"]);
    let all = all.as_array().cloned().unwrap();
    all.into_iter()
        .find(|i| i["name"] == name)
        .unwrap_or_default()
}

fn said(up: &Up, args: &[&str], code: i32) -> String {
    let output = up.run(&[args, &SHOP[..]].concat());
    assert_eq!(output.status.code(), Some(code), "{args:?}: {output:#?}");
    let text = [output.stdout, output.stderr].concat();
    String::from_utf8(text).unwrap()
}

#[test]
fn an_instance_is_moved_to_a_node_and_the_records_tell_it() {
    let folder = tempfile::tempdir().unwrap();
    let size = [
        "--port",
        "0",
        "--clusters",
        "1",
        "--cells",
        "1",
        "--nodes",
        "3",
    ];
    let up = Up::start(folder.path(), &size);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let nodes: Api<Node> = runtime.block_on(async {
        let hub = client(up.kubeconfig(), None).await;
        let post = PostParams::default();
        let shop = json!({"metadata": {"name": "shop"}});
        let namespaces: Api<Namespace> = Api::all(hub.clone());
        namespaces.create(&post, &serde_json::from_value(shop).unwrap()).await.unwrap();
        let app = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "App", "metadata": {"name": "cart"}, "spec": {}});
        let apps: Api<App> = Api::namespaced(hub.clone(), "shop");
        apps.create(&post, &serde_json::from_value(app).unwrap()).await.unwrap();
        let spec = json!({
            "app": "cart", "replicas": 2, "placement": {"cells": [{"name": "sh-a"}]},
            "revision": {"image": "cart:1", "resources": {"requests": {"cpu": "100m"}}},
        });
        let group = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart"}, "spec": spec});
        let groups: Api<Group> = Api::namespaced(hub, "shop");
        groups.create(&post, &serde_json::from_value(group).unwrap()).await.unwrap();
        Api::all(client(up.kubeconfig(), Some("sh".into())).await)
    });
    wait("two instances in service", || {
        let group = up.json(&["get", "groups", "cart", "-n", "shop", "-o", "json"]);
        (group["status"]["inService"] == 2).then_some(())
    });
    let name = "cart-sh-a-1";
    let node = |name: &str| instance(&up, name)["node"].as_str().unwrap().to_owned();
    let from = node(name);
    let all = runtime.block_on(nodes.list(&Default::default())).unwrap();
    let all: Vec<String> = all
        .items
        .into_iter()
        .filter_map(|n| n.metadata.name)
        .collect();
    let other = node("cart-sh-a-0");
    let to = all.iter().find(|n| **n != from && **n != other).unwrap();

    // What cannot be is refused, and leaves nothing behind.
    let go = ["instance", "move", name, "--to-node"];
    let cordon = |is: bool| {
        let patch = Patch::Merge(json!({"spec": {"unschedulable": is}}));
        runtime
            .block_on(nodes.patch(to, &PatchParams::default(), &patch))
            .unwrap();
    };
    cordon(true);
    for (name, node, why) in [
        (name, "nowhere", "cell sh-a has no node nowhere"),
        (name, to.as_str(), "is cordoned: kubectl uncordon"),
        ("cart-sh-a-7", to, "sh-a has 2 instances only"),
        (
            "cart-sh-z-0",
            to,
            "no group of shop has an instance cart-sh-z-0",
        ),
    ] {
        let text = said(&up, &["instance", "move", name, "--to-node", node], 1);
        assert!(text.contains(why), "{text}");
    }
    said(&up, &["instance", "move", name], 2);
    said(&up, &[&go[..], &[to, "--to", "sh-b"]].concat(), 2);
    let group = up.json(&["get", "groups", "cart", "-n", "shop", "-o", "json"]);
    assert_eq!(group["spec"]["instances"], json!([]), "{group:#}");
    assert_eq!(
        (instance(&up, name)["inService"].clone(), node(name)),
        (json!(true), from.clone())
    );
    cordon(false);

    let text = said(&up, &[&go[..], &[to, "--dry-run"]].concat(), 0);
    assert!(
        text.contains(&format!("{name} goes from {from} to {to}")),
        "{text}"
    );
    let text = said(
        &up,
        &[&go[..], &[to, "--watch", "--reason", "hot"]].concat(),
        0,
    );
    assert!(
        text.contains(&format!("{name}: is ready on {to}")),
        "{text}"
    );
    assert_eq!(node(name), *to);
    wait("it to serve there", || {
        (instance(&up, name)["inService"] == true).then_some(())
    });
    let text = said(&up, &[&go[..], &[to]].concat(), 0);
    assert!(
        text.contains(&format!("{name} is on {to} already")),
        "{text}"
    );

    // Who, why, from where, to where.
    let record = wait("the move to be recorded", || {
        let text = up.ok(&["history", "cart", "-n", "shop", "-o", "json"]);
        let mut records = text
            .lines()
            .map(|l| serde_json::from_str::<Value>(l).unwrap());
        records.find(|r| r["why"] == "hot")
    });
    assert_eq!(
        record["before"],
        json!({"instance": name, "node": from}),
        "{record:#}"
    );
    assert_eq!(
        record["after"],
        json!({"instance": name, "node": to}),
        "{record:#}"
    );
    assert_eq!(
        (&record["who"]["user"], &record["who"]["via"]),
        (&json!("admin"), &json!("cli"))
    );
    assert_eq!(up.interrupt(), Some(0));
}
