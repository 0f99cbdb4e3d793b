//! Bodies in protobuf, as kubectl 1.32 sent them (`protobuf.json`, captured from `kubectl create`
//! of every kind, `autoscale`, `auth`, `create token` and `drain`).

use base64::Engine;
use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::Request;
use kube::{Client, Error};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Captured {
    create: Vec<Post>,
    /// DeleteOptions, with a grace period of one second.
    delete: String,
}

#[derive(Deserialize)]
struct Post {
    path: String,
    body: String,
}

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
fn bytes(text: &str) -> Vec<u8> {
    let engine = base64::engine::general_purpose::STANDARD;
    engine.decode(text).expect("base64")
}

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
fn captured() -> Captured {
    serde_json::from_str(include_str!("../protobuf.json")).expect("valid")
}

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

#[expect(
    clippy::expect_used,
    reason = "a test's helper, which clippy does not see as one"
)]
async fn send(
    client: &Client,
    method: &str,
    path: &str,
    media: &str,
    body: Vec<u8>,
) -> Result<Value, Error> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("Content-Type", media)
        // Answers in protobuf are tested in `protobuf_answers.rs`.
        .header("Accept", "application/json")
        .body(body)
        .expect("a request");
    client.request(request).await
}

#[expect(
    clippy::panic,
    reason = "a test's helper, which clippy does not see as one"
)]
fn refusal(result: Result<Value, Error>) -> (u16, String) {
    match result {
        Err(Error::Api(status)) => (status.code, status.message),
        other => panic!("not refused: {other:?}"),
    }
}

#[tokio::test]
async fn what_kubectl_creates_is_created() {
    let server = start().await;
    let client = server.client();
    let sent = captured().create;
    assert_eq!(sent.len(), 26);
    let mut made = serde_json::Map::new();
    for post in &sent {
        let got = send(&client, "POST", &post.path, PROTOBUF, bytes(&post.body)).await;
        let got = got.unwrap_or_else(|e| panic!("{}: {e}", post.path));
        let last = post.path.rsplit('/').next().unwrap_or_default();
        let name = got.pointer("/metadata/name").and_then(Value::as_str);
        made.insert(format!("{last}/{}", name.unwrap_or_default()), got);
    }
    let holds = |key: &str, pointer: &str, expected: Value| {
        let got = made.get(key).and_then(|o| o.pointer(pointer));
        assert_eq!(got, Some(&expected), "{key}{pointer}");
    };
    holds("namespaces/n1", "/status/phase", json!("Active"));
    holds("configmaps/cm2", "/data", json!({"a": "b"}));
    holds("configmaps/cm2", "/binaryData", json!({"raw": "AP8="}));
    holds("secrets/s1", "/data", json!({"p": "cQ=="}));
    holds(
        "secrets/d1",
        "/type",
        json!("kubernetes.io/dockerconfigjson"),
    );
    holds(
        "serviceaccounts/sa1",
        "/metadata/namespace",
        json!("default"),
    );
    holds("deployments/web", "/spec/replicas", json!(2));
    let containers = "/spec/template/spec/containers/0/image";
    holds("deployments/web", containers, json!("nginx:1"));
    holds("services/c1", "/spec/ports/0/targetPort", json!(8080));
    holds("services/c2", "/spec/type", json!("NodePort"));
    holds("services/c4", "/spec/externalName", json!("x.y"));
    holds(
        "jobs/j1",
        "/spec/template/spec/restartPolicy",
        json!("Never"),
    );
    holds("cronjobs/cj1", "/spec/schedule", json!("* * * * *"));
    holds("roles/r1", "/rules/0/verbs", json!(["get", "list"]));
    holds(
        "clusterroles/cr1",
        "/rules/0/nonResourceURLs",
        json!(["/x"]),
    );
    holds("rolebindings/rb1", "/subjects/0/name", json!("u"));
    holds(
        "resourcequotas/q1",
        "/spec/hard",
        json!({"cpu": "1", "pods": "10"}),
    );
    holds("priorityclasses/pc1", "/value", json!(1000));
    holds(
        "poddisruptionbudgets/pdb1",
        "/spec/minAvailable",
        json!("50%"),
    );
    let service = "/spec/rules/0/http/paths/0/backend/service";
    holds(
        "ingresses/i1",
        service,
        json!({"name": "svc", "port": {"number": 80}}),
    );
    holds(
        "horizontalpodautoscalers/web",
        "/spec/maxReplicas",
        json!(5),
    );
    holds("token/sa1", "/spec/audiences", json!(["z"]));
    holds("selfsubjectaccessreviews/", "/status/allowed", json!(true));
    holds(
        "selfsubjectaccessreviews/",
        "/spec/resourceAttributes/resource",
        json!("pods"),
    );
    // Nothing but what was set and what is defaulted: empty values of Go's encoding are gone.
    let map = made.get("serviceaccounts/sa1").and_then(Value::as_object);
    let fields: Vec<&String> = map.into_iter().flatten().map(|(k, _)| k).collect();
    assert_eq!(fields.len(), 3, "{fields:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn options_of_deletions_count() {
    let server = start().await;
    let client = server.client();
    let pod = json!({
        "metadata": {"name": "p"},
        "spec": {"containers": [{"name": "c", "image": "i:1"}], "nodeName": "n1"},
    });
    let pods = "/api/v1/namespaces/default/pods";
    let pod = pod.to_string().into_bytes();
    send(&client, "POST", pods, "application/json", pod)
        .await
        .expect("created");
    let options = bytes(&captured().delete);
    let path = format!("{pods}/p");
    let marked = send(&client, "DELETE", &path, PROTOBUF, options)
        .await
        .expect("marked");
    assert_eq!(
        marked.pointer("/metadata/deletionGracePeriodSeconds"),
        Some(&json!(1))
    );
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_no_protobuf_or_of_a_custom_kind_is_refused() {
    let server = start().await;
    let client = server.client();
    let maps = "/api/v1/namespaces/default/configmaps";
    let junk = send(&client, "POST", maps, PROTOBUF, b"{}".to_vec()).await;
    let (code, message) = refusal(junk);
    assert_eq!(code, 400, "{message}");
    assert!(message.contains("must be of type ConfigMap"), "{message}");
    let namespace = bytes(&captured().create[0].body);
    let (code, message) = refusal(send(&client, "POST", maps, PROTOBUF, namespace.clone()).await);
    assert_eq!(code, 400, "{message}");
    assert!(message.starts_with("Namespace in version \"v1\" cannot be handled as a ConfigMap"));
    let mut cut = namespace.clone();
    cut.truncate(cut.len() - 6);
    let path = "/api/v1/namespaces";
    let (code, message) = refusal(send(&client, "POST", path, PROTOBUF, cut).await);
    assert_eq!(code, 400, "{message}");
    assert!(message.contains("unexpected EOF"), "{message}");

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "cars.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "cars", "singular": "car", "kind": "Car", "listKind": "CarList"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object"}}}],
        },
    });
    let crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let definition = definition.to_string().into_bytes();
    send(&client, "POST", crds, "application/json", definition)
        .await
        .expect("created");
    let cars = "/apis/example.com/v1/cars";
    let (code, message) = refusal(send(&client, "POST", cars, PROTOBUF, namespace).await);
    assert_eq!(code, 415, "{message}");
    server.shutdown().await;
}
