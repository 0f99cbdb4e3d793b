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

#[tokio::test]
async fn what_is_off_in_kubernetes_is_dropped_or_refused() {
    let server = start(Config::default(), memory()).await;
    let client = server.client();
    let pods = "/api/v1/namespaces/default/pods";
    let pod = |more: Value| {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [
            {"name": "c", "image": "i"}]}});
        if let Some(spec) = more.as_object() {
            for (key, value) in spec {
                pod["spec"][key] = value.clone();
            }
        }
        pod
    };
    // TaintTolerationComparisonOperators
    let toleration = json!({"key": "k", "operator": "Gt", "value": "5", "effect": "NoSchedule"});
    invalid(
        post(&client, pods, &pod(json!({"tolerations": [toleration]}))).await,
        "spec.tolerations[0].operator: Unsupported value: \"Gt\": supported values: \"Equal\", \"Exists\"",
    );
    // GenericWorkload
    let group = json!({"schedulingGroup": {"podGroupName": "g"}});
    let made = post(&client, pods, &pod(group)).await.expect("created");
    assert!(made["spec"].get("schedulingGroup").is_none(), "{made}");
    // DRANodeAllocatableResources
    let told = json!({"resourceClaimName": "c", "containers": ["c"], "resources": {"cpu": "1"}});
    let status = json!({"status": {"nodeAllocatableResourceClaimStatuses": [told]}});
    let patched = patch(&client, &format!("{pods}/p/status"), status).await;
    let patched = patched.expect("patched");
    let field = "nodeAllocatableResourceClaimStatuses";
    assert!(patched["status"].get(field).is_none(), "{patched}");
    // DRAListTypeAttributes: what is left of the attribute has no value.
    let slice = json!({"metadata": {"name": "s"}, "spec": {
        "driver": "gpu.example.com", "nodeName": "n",
        "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1},
        "devices": [{"name": "d", "attributes": {"a": {"ints": [1, 2]}}}],
    }});
    let path = "/apis/resource.k8s.io/v1/resourceslices";
    invalid(
        post(&client, path, &slice).await,
        "spec.devices[0].attributes[a]: Invalid value: \"\": exactly one value must be specified",
    );
    // DeviceTaintRules, Workloads and PodGroups are not served.
    for path in [
        "/apis/resource.k8s.io/v1beta2/devicetaintrules",
        "/apis/scheduling.k8s.io/v1alpha2/podgroups",
    ] {
        let answer = super::access::get(&client, path).await;
        assert_eq!(answer.expect_err("not served").0, 404);
    }
    // VolumeLimitScaling
    let driver = json!({"metadata": {"name": "csi.example.com"}, "spec": {"preventPodSchedulingIfMissing": true}});
    let made = post(&client, "/apis/storage.k8s.io/v1/csidrivers", &driver).await;
    let made = made.expect("created");
    let field = "preventPodSchedulingIfMissing";
    assert!(made["spec"].get(field).is_none(), "{made}");
    server.shutdown().await;
}
