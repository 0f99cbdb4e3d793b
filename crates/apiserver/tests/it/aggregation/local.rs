//! APIServices of what the server serves itself.

use http::StatusCode;
use serde_json::{Value, json};

use super::Cluster;

const ALL: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const LABEL: &str = "kube-aggregator.kubernetes.io/automanaged";

#[tokio::test]
async fn built_in_groups_have_theirs_from_the_start() {
    let cluster = Cluster::start().await;
    let (_, list) = cluster.get(ALL).await;
    let items = list["items"].as_array().unwrap();
    let named = |name: &str| items.iter().find(|i| i["metadata"]["name"] == name);
    let apps = named("v1.apps").unwrap();
    assert_eq!(
        apps["spec"],
        json!({"group": "apps", "version": "v1", "groupPriorityMinimum": 17_800, "versionPriority": 15})
    );
    assert_eq!(apps["metadata"]["labels"], json!({LABEL: "onstart"}));
    let condition = &apps["status"]["conditions"][0];
    assert_eq!(
        (&condition["type"], &condition["status"]),
        (&json!("Available"), &json!("True"))
    );
    assert_eq!(
        condition["message"],
        "Local APIServices are always available"
    );
    assert!(named("v1.").is_some_and(|core| core["spec"].get("group").is_none()));
    assert!(named("v1.apiregistration.k8s.io").is_none());
    let (_, map) = cluster
        .get("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication")
        .await;
    let data = map["data"].as_object().unwrap();
    assert_eq!(
        data["requestheader-allowed-names"],
        "[\"front-proxy-client\"]"
    );
    assert_eq!(
        data["requestheader-username-headers"],
        "[\"X-Remote-User\"]"
    );
    assert_eq!(
        data["requestheader-extra-headers-prefix"],
        "[\"X-Remote-Extra-\"]"
    );
    assert_eq!(data["client-ca-file"], cluster.server.ca_pem());
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn custom_groups_have_theirs_as_long_as_they_are_served() {
    let cluster = Cluster::start().await;
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "jobs.run.example.com"},
        "spec": {"group": "run.example.com", "scope": "Namespaced",
            "names": {"plural": "jobs", "singular": "job", "kind": "Job"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}]}});
    cluster.post(definitions, &definition).await;
    let path = format!("{ALL}/v1.run.example.com");
    let made = cluster
        .until(&path, |status, _| status == StatusCode::OK)
        .await;
    assert_eq!(made["metadata"]["labels"], json!({LABEL: "true"}));
    assert_eq!(made["spec"]["groupPriorityMinimum"], 1000);
    assert_eq!(made["spec"]["versionPriority"], 100);
    // What somebody changes about it is set right, and it comes back.
    cluster
        .patch(&path, &json!({"spec": {"versionPriority": 7}}))
        .await;
    cluster
        .until(&path, |_, o| o["spec"]["versionPriority"] == 100)
        .await;
    let uid = made["metadata"]["uid"].clone();
    cluster.delete(&path).await;
    cluster
        .until(&path, |status, o| {
            status == StatusCode::OK && o["metadata"]["uid"] != uid
        })
        .await;
    cluster
        .delete(&format!("{definitions}/jobs.run.example.com"))
        .await;
    cluster
        .until(&path, |status, _| status == StatusCode::NOT_FOUND)
        .await;
    cluster.server.shutdown().await;
}

#[tokio::test]
async fn an_api_service_is_checked() {
    let cluster = Cluster::start().await;
    let object = json!({"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": "v1.other.example.com"},
        "spec": {"group": "a.example.com", "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1,
            "insecureSkipTLSVerify": true, "caBundle": "YQ==", "service": {"namespace": "a", "name": "b"}}});
    let request = http::Request::post(ALL).header("content-type", "application/json");
    let request = request.body(object.to_string().into_bytes()).unwrap();
    let (status, said) = cluster.text(request).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let said: Value = serde_json::from_str(&said).unwrap();
    let fields: Vec<&Value> = said["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| &c["field"])
        .collect();
    assert_eq!(fields, ["metadata.name", "spec.insecureSkipTLSVerify"]);
    cluster.server.shutdown().await;
}
