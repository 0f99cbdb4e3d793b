//! Claims to devices: who may read them, who may give devices away, who may tell of devices.
#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use gantry_apiserver::Config;
use kube::Client;
use serde_json::{Value, json};

use super::access::{grant, memory, post, refused, send, start, until_allowed};

const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

async fn patch(client: &Client, path: &str, body: Value) -> Result<Value, (u16, String)> {
    send(client, "PATCH", path, &[], &body).await
}

fn invalid(result: Result<Value, (u16, String)>, words: &str) {
    let (code, message) = result.expect_err("refused");
    assert_eq!(code, 422, "{message}");
    assert!(message.contains(words), "{message}\nlacks: {words}");
}

fn claim(name: &str) -> Value {
    let exactly = json!({"deviceClassName": "gpu"});
    json!({"metadata": {"name": name}, "spec": {"devices":
        {"requests": [{"name": "r", "exactly": exactly}]}}})
}

fn allocation(node: &str) -> Value {
    let term =
        json!({"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]});
    let result = json!({"request": "r", "driver": "gpu.io", "pool": "p", "device": "d"});
    json!({"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": [term]}})
}

#[tokio::test]
async fn a_node_reads_the_claim_for_a_pods_extended_resources() {
    let server = start(Config::default(), memory()).await;
    let admin = server.client();
    let one = server.client_as("system:node:one", &["system:nodes"]);
    let path = format!("{CLAIMS}/c");
    post(&admin, CLAIMS, &claim("c")).await.expect("created");
    let pods = "/api/v1/namespaces/default/pods";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"nodeName": "one", "containers": [
        {"name": "c", "image": "i", "resources": {"limits": {"example.com/gpu": "1"}}}]}});
    post(&admin, pods, &pod).await.expect("created");
    until_allowed(&one, &format!("{pods}/p")).await;
    refused(
        super::access::get(&one, &path).await,
        "no relationship found between node 'one' and this object",
    );
    let mapping =
        json!({"containerName": "c", "resourceName": "example.com/gpu", "requestName": "r"});
    let status = json!({"status": {"extendedResourceClaimStatus":
        {"resourceClaimName": "c", "requestMappings": [mapping]}}});
    patch(&admin, &format!("{pods}/p/status"), status)
        .await
        .expect("patched");
    until_allowed(&one, &path).await;
    server.shutdown().await;
}

#[tokio::test]
async fn who_gives_devices_away_and_who_tells_of_them_has_a_right_of_its_own() {
    let server = start(Config::default(), memory()).await;
    let admin = server.client();
    let scheduler = server.client_as("system:kube-scheduler", &[]);
    post(&scheduler, CLAIMS, &claim("a"))
        .await
        .expect("the scheduler makes claims for extended resources");
    let path = format!("{CLAIMS}/a/status");
    let rules = json!([{"apiGroups": ["resource.k8s.io"],
        "resources": ["resourceclaims/status"], "verbs": ["patch", "update"]}]);
    grant(&admin, "status", "jane", rules).await;
    let jane = server.client_as("jane", &[]);
    let allocated = json!({"status": {"allocation": allocation("one")}});
    invalid(
        patch(&jane, &path, allocated.clone()).await,
        "status: Forbidden: changing status.allocation or status.reservedFor requires resource=\"resourceclaims/binding\", verb=\"patch\" permission: resourceclaims.resource.k8s.io is forbidden: User \"jane\" cannot patch resource \"resourceclaims/binding\" in API group \"resource.k8s.io\" at the cluster scope",
    );
    patch(&scheduler, &path, allocated)
        .await
        .expect("allocated");
    let told = |ready: &str| {
        let condition = json!({"type": "Ready", "status": ready, "reason": "R", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"});
        json!({"status": {"devices": [{"driver": "gpu.io", "pool": "p", "device": "d",
            "conditions": [condition]}]}})
    };
    invalid(
        patch(&scheduler, &path, told("True")).await,
        "status.devices: Forbidden: changing status.devices requires resource=\"resourceclaims/driver\", verb=\"[arbitrary-node:patch]\" permission: resourceclaims.resource.k8s.io \"gpu.io\" is forbidden: User \"system:kube-scheduler\" cannot arbitrary-node:patch resource \"resourceclaims/driver\" in API group \"resource.k8s.io\" in the namespace \"default\"",
    );
    let rules = json!([
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/status"],
            "verbs": ["patch", "update"]},
        {"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/driver"],
            "verbs": ["associated-node:patch"], "resourceNames": ["gpu.io"]},
    ]);
    let account = "system:serviceaccount:default:driver";
    grant(&admin, "driver", account, rules).await;
    let driver = |node: &'static str| {
        let admin = admin.clone();
        let path = path.clone();
        move |body: Value| {
            let (admin, path) = (admin.clone(), path.clone());
            async move {
                let headers = [
                    ("impersonate-user", account),
                    (
                        "impersonate-extra-authentication.kubernetes.io%2Fnode-name",
                        node,
                    ),
                ];
                send(&admin, "PATCH", &path, &headers, &body).await
            }
        }
    };
    invalid(
        driver("two")(told("True")).await,
        "cannot arbitrary-node:patch resource \"resourceclaims/driver\"",
    );
    driver("one")(told("True")).await.expect("its own node");
    let other = json!([{"apiGroups": ["resource.k8s.io"], "resources": ["resourceclaims/driver"],
        "verbs": ["arbitrary-node:patch"], "resourceNames": ["gpu.io"]}]);
    grant(&admin, "far", "jane", other).await;
    patch(&jane, &path, told("False"))
        .await
        .expect("from anywhere");
    // What is given back is told of no more, which is no driver's matter.
    let none = json!({"status": {"allocation": null}});
    let claim = patch(&scheduler, &path, none).await.expect("given back");
    assert_eq!(claim.get("status"), Some(&json!({})), "{claim}");
    // Administrators' access is for namespaces that say so, whoever gives it.
    let mut allocated = allocation("one");
    allocated["devices"]["results"][0]["adminAccess"] = true.into();
    invalid(
        patch(
            &scheduler,
            &path,
            json!({"status": {"allocation": allocated}}),
        )
        .await,
        "status.allocation.devices.results[0].adminAccess: Forbidden: admin access to devices requires",
    );
    server.shutdown().await;
}
