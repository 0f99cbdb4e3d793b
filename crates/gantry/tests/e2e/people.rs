//! The guide to people and records: its commands, in its order, on an embedded fleet.

use std::path::Path;

use gantry_api::{App, Group};
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::{Value, json};

use crate::fleet::client;
use crate::support::{Fleet, Up, wait};

/// The commands of a guide: lines that are indented by four blanks, outside of fences.
fn commands(guide: &str) -> Vec<Vec<String>> {
    let mut fenced = false;
    let mut commands = vec![];
    for line in guide.lines() {
        fenced ^= line.starts_with("```");
        if let Some(command) = line.strip_prefix("    gantry ").filter(|_| !fenced) {
            commands.push(words(command));
        }
    }
    commands
}

/// Words as a shell splits them; double quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut quoted) = (vec![String::new()], false);
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words.retain(|w| !w.is_empty());
    words
}

/// A Group of two instances in the tenant's namespace, in service.
fn set_up(up: &Up) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let client = client(up.kubeconfig(), None).await;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        while namespaces.get_opt("shop").await.unwrap().is_none() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let post = PostParams::default();
        let app = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "App", "metadata": {"name": "cart"}, "spec": {}});
        let apps: Api<App> = Api::namespaced(client.clone(), "shop");
        apps.create(&post, &serde_json::from_value(app).unwrap()).await.unwrap();
        let spec = json!({
            "app": "cart", "replicas": 2, "placement": {"cells": [{"name": "sh-a"}]},
            "revision": {"image": "registry.example.com/shop/cart:1", "resources": {"requests": {"cpu": "100m"}}},
        });
        let group = json!({"apiVersion": "gantry.dev/v1alpha1", "kind": "Group", "metadata": {"name": "cart-prod"}, "spec": spec});
        let groups: Api<Group> = Api::namespaced(client, "shop");
        groups.create(&post, &serde_json::from_value(group).unwrap()).await.unwrap();
    });
    wait("two instances in service", || {
        let group = up.json(&["get", "groups", "cart-prod", "-n", "shop", "-o", "json"]);
        (group["status"]["inService"] == 2).then_some(())
    });
}

/// Waits until what was wished for the tenant is so.
fn settled(up: &Up) {
    wait("the tenant to be ready", || {
        let tenant = up.json(&["tenant", "get", "shop", "-o", "json"]);
        let ready = tenant["status"]["conditions"].as_array()?.iter().any(|c| {
            c["type"] == "Ready"
                && c["status"] == "True"
                && c["observedGeneration"] == tenant["metadata"]["generation"]
        });
        ready.then_some(())
    });
}

/// Records that a history prints as JSON.
fn history(up: &Up, more: &[&str]) -> Vec<Value> {
    let lines = up.ok(&[&["history", "--all", "-o", "json"], more].concat());
    lines
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect()
}

#[test]
fn the_guide_to_people_and_records_does_as_it_says() {
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/people-and-records.md");
    let commands = commands(&std::fs::read_to_string(guide).unwrap());
    assert!(commands.len() > 12, "{commands:?}");
    let folder = tempfile::tempdir().unwrap();
    let up = Up::start(folder.path(), &["--nodes", "8"]);
    let mut made = false;
    for command in &commands {
        if !made && command.iter().any(|w| w == "cart-prod") {
            set_up(&up);
            made = true;
        }
        let words: Vec<&str> = command.iter().map(String::as_str).collect();
        let said = up.ok(&words);
        assert!(!said.trim().is_empty(), "{words:?} says nothing");
        if words[0] == "tenant" {
            settled(&up);
        }
        if words.contains(&"release") {
            // Its end is recorded a moment after it is seen.
            wait("the release to be recorded", || {
                (history(&up, &["--outcome", "succeeded"]).len() == 1).then_some(())
            });
        }
    }

    let described = up.ok(&["tenant", "describe", "shop"]);
    assert!(
        described.contains("vera") && !described.contains("shop-releasers"),
        "{described}"
    );
    assert!(described.contains("requests.cpu"), "{described}");
    let release = &history(&up, &["--verb", "release"])[0];
    assert_eq!(release["who"]["user"], "rita", "{release}");
    assert_eq!(
        (&release["who"]["via"], &release["why"]),
        (&json!("cli"), &json!("new prices"))
    );
    let verbs: Vec<Value> = history(&up, &["--kind", "Tenant"])
        .iter()
        .map(|r| r["verb"].clone())
        .collect();
    assert_eq!(
        verbs,
        ["go", "freeze", "revoke", "grant", "grant", "create"],
        "newest first"
    );
    // A viewer may look, and not release.
    up.ok(&["--as", "vera", "get", "groups", "-n", "shop"]);
    let image = ["--image", "registry.example.com/shop/cart:3"];
    let refused = up.run(
        &[
            &[
                "--as",
                "vera",
                "release",
                "start",
                "cart-prod",
                "-n",
                "shop",
            ],
            &image[..],
        ]
        .concat(),
    );
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        !refused.status.success() && said.contains("forbidden"),
        "{said}"
    );

    // The process is killed; what was recorded is there, and nothing twice.
    let before = history(&up, &[]);
    let up = up.crash();
    up.ok(&["scale", "cart-prod", "-n", "shop", "--replicas", "3"]);
    wait("the scale to be recorded", || {
        (!history(&up, &["--verb", "scale"]).is_empty()).then_some(())
    });
    let after = history(&up, &[]);
    let ids = |records: &[Value]| -> Vec<String> {
        records.iter().map(|r| r["id"].to_string()).collect()
    };
    let mut once = ids(&after);
    once.sort();
    once.dedup();
    assert_eq!(once.len(), after.len(), "each once");
    assert!(
        ids(&before).iter().all(|id| once.contains(id)),
        "nothing lost"
    );
    assert_eq!(up.interrupt(), Some(0));
}
