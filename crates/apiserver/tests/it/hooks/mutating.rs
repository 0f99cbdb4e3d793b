//! Mutating webhooks: patches, their order, and who is asked again.

use serde_json::{Value, json};

use crate::hooks::{
    client::{Cluster, MAPS, map},
    server::{Webhook, patch},
};

/// Adds a datum named as the path: how often it has been there already.
fn note(path: &str, request: &Value) -> Value {
    let name = path.trim_start_matches('/').split('?').next().unwrap_or("");
    let data = &request["object"]["data"];
    if data[name].is_string() || request["operation"] == "DELETE" {
        return json!({"allowed": true});
    }
    let seen = data.as_object().map_or(0, serde_json::Map::len);
    let operation = if data.is_object() {
        json!([{"op": "add", "path": format!("/data/{name}"), "value": seen.to_string()}])
    } else {
        json!([{"op": "add", "path": "/data", "value": {name: "0"}}])
    };
    patch(&operation)
}

#[tokio::test]
async fn each_sees_what_those_before_it_made() {
    let hook = Webhook::start(note).await;
    let cluster = Cluster::start().await;
    let of = |path: &str| json!({"clientConfig": hook.config(path)});
    cluster.configure("Mutating", "b", &[of("/b")]).await;
    cluster
        .configure("Mutating", "a", &[of("/a1"), of("/a2")])
        .await;
    let mut bare = map("x", json!({}));
    bare.as_object_mut().expect("an object").remove("data");
    let made = cluster.post(MAPS, &bare).await.ok();
    assert_eq!(made["data"], json!({"a1": "0", "a2": "1", "b": "2"}));
    assert_eq!(hook.requests().len(), 3, "none asked to be called again");
    // Admission is nobody's: what it adds has no owner.
    let owners = made["metadata"]["managedFields"].to_string();
    assert!(!owners.contains("f:a1"), "{owners}");
    cluster.delete(&format!("{MAPS}/x")).await.ok();
    cluster.stop().await;
}

#[tokio::test]
async fn who_wants_to_is_asked_again_after_a_later_change() {
    let hook = Webhook::start(note).await;
    let cluster = Cluster::start().await;
    let hooks = [
        json!({"clientConfig": hook.config("/first"), "reinvocationPolicy": "IfNeeded"}),
        json!({"clientConfig": hook.config("/never")}),
        json!({"clientConfig": hook.config("/last"), "reinvocationPolicy": "IfNeeded"}),
    ];
    cluster.configure("Mutating", "m", &hooks).await;
    cluster.post(MAPS, &map("x", json!({}))).await.ok();
    assert_eq!(
        hook.paths(),
        [
            "/first?timeout=10s",
            "/never?timeout=10s",
            "/last?timeout=10s",
            "/first?timeout=10s"
        ]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_patched_object_is_defaulted_and_validated() {
    let hook = Webhook::start(|_, request| {
        let image = &request["object"]["spec"]["containers"][0]["image"];
        patch(&json!([
            {"op": "add", "path": "/spec/containers/-", "value": {"name": "side", "image": image}},
            {"op": "add", "path": "/spec/nonsense", "value": 1},
        ]))
    })
    .await;
    let cluster = Cluster::start().await;
    let rules = json!([{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}]);
    let config = json!({"clientConfig": hook.config("/"), "rules": rules});
    cluster.configure("Mutating", "m", &[config]).await;
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |name: &str, container: &str| json!({"metadata": {"generateName": name}, "spec": {"containers": [{"name": container, "image": "i:1"}]}});
    let made = cluster.post(pods, &pod("p-", "c")).await.ok();
    let side = &made["spec"]["containers"][1];
    assert_eq!(side["imagePullPolicy"], "IfNotPresent");
    assert!(made["spec"].get("nonsense").is_none());
    let request = &hook.requests()[0];
    assert!(
        request.get("name").is_none(),
        "no name is made up yet: {request}"
    );
    assert!(request["object"]["metadata"].get("uid").is_none());
    let refused = cluster.post(pods, &pod("p-", "side")).await;
    assert_eq!(refused.code, 422);
    assert!(
        refused.message().contains("Duplicate value: \"side\""),
        "{}",
        refused.message()
    );
    cluster.stop().await;
}

#[tokio::test]
async fn a_deletion_cannot_be_patched_and_a_patch_has_to_fit() {
    let hook = Webhook::start(|_, _| patch(&json!([{"op": "remove", "path": "/data/none"}]))).await;
    let cluster = Cluster::start().await;
    cluster.post(MAPS, &map("x", json!({}))).await.ok();
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Mutating", "m", &[config]).await;
    let refused = cluster.delete(&format!("{MAPS}/x")).await;
    assert_eq!(refused.code, 500);
    assert_eq!(
        refused.message(),
        "Internal error occurred: admission webhook \"h0.m.test\" attempted to modify the object, which is not supported for this operation"
    );
    let refused = cluster.post(MAPS, &map("y", json!({}))).await;
    assert_eq!(refused.code, 500, "{}", refused.body);
    cluster.stop().await;
}

#[tokio::test]
async fn spoilt_ownership_is_put_back() {
    let hook = Webhook::start(|_, _| {
        patch(&json!([
            {"op": "replace", "path": "/metadata/managedFields", "value": [{"manager": "x", "operation": "Nothing"}]},
        ]))
    })
    .await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Mutating", "m", &[config]).await;
    let made = cluster.post(MAPS, &map("x", json!({"a": "1"}))).await;
    assert!(
        made.warnings[0]
            .starts_with(".metadata.managedFields was in an invalid state after admission"),
        "{:?}",
        made.warnings
    );
    let made = made.ok();
    assert_eq!(made["metadata"]["managedFields"][0]["manager"], "test");
    cluster.stop().await;
}

/// `TestMutatingWebhookDuplicateOwnerReferences`.
#[tokio::test]
async fn owners_that_a_hook_names_twice_are_told_apart() {
    let owner = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "1"});
    let owners = json!([owner, owner]);
    let hook = Webhook::start(move |_, _| {
        patch(&json!([{"op": "add", "path": "/metadata/ownerReferences", "value": owners}]))
    })
    .await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/")});
    cluster.configure("Mutating", "m", &[config]).await;
    let made = cluster.post(MAPS, &map("x", json!({}))).await;
    let late = ".metadata.ownerReferences contains duplicate entries after mutating admission happens; API server";
    assert!(
        made.warnings.len() == 1 && made.warnings[0].starts_with(late),
        "{:?}",
        made.warnings
    );
    assert_eq!(made.ok()["metadata"]["ownerReferences"], json!([owner]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_dry_run_asks_and_stores_nothing() {
    let hook = Webhook::start(note).await;
    let cluster = Cluster::start().await;
    let config = json!({"clientConfig": hook.config("/dry")});
    cluster.configure("Mutating", "m", &[config]).await;
    let path = format!("{MAPS}?dryRun=All");
    let made = cluster.post(&path, &map("x", json!({}))).await.ok();
    assert_eq!(made["data"], json!({"dry": "0"}));
    let request = &hook.requests()[0];
    assert_eq!(request["dryRun"], true);
    assert_eq!(request["options"]["dryRun"], json!(["All"]));
    assert_eq!(cluster.get(&format!("{MAPS}/x")).await.code, 404);
    cluster.stop().await;
}
