//! Conversion webhooks: custom resources read and written in versions they are not stored in.

use serde_json::{Value, json};

use crate::{client::Cluster, server::Webhook};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// v1 has `hostPort: "h:p"`, v2 has `host` and `port`.
fn convert(_: &str, request: &Value) -> Value {
    let wanted = request["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = request["objects"].as_array().cloned().unwrap_or_default();
    let converted: Vec<Value> = objects
        .into_iter()
        .map(|mut object| {
            object["apiVersion"] = wanted.into();
            let map = object.as_object_mut().expect("an object");
            if wanted.ends_with("/v2") {
                let pair = map.remove("hostPort").unwrap_or_default();
                let (host, port) = pair
                    .as_str()
                    .and_then(|p| p.split_once(':'))
                    .unwrap_or_default();
                map.insert("host".to_owned(), host.into());
                map.insert("port".to_owned(), port.into());
            } else {
                let part = |v: Option<Value>| {
                    v.and_then(|v| v.as_str().map(str::to_owned))
                        .unwrap_or_default()
                };
                let (host, port) = (part(map.remove("host")), part(map.remove("port")));
                map.insert("hostPort".to_owned(), format!("{host}:{port}").into());
            }
            object
        })
        .collect();
    json!({"result": {"status": "Success"}, "convertedObjects": converted})
}

fn definition(config: &Value) -> Value {
    let version = |name: &str, storage: bool, fields: &[&str]| {
        let properties: Value = fields
            .iter()
            .map(|f| ((*f).to_owned(), json!({"type": "string"})))
            .collect::<serde_json::Map<_, _>>()
            .into();
        json!({"name": name, "served": true, "storage": storage,
            "schema": {"openAPIV3Schema": {"type": "object", "properties": properties}}})
    };
    json!({
        "metadata": {"name": "things.x.io"},
        "spec": {
            "group": "x.io", "scope": "Namespaced", "names": {"plural": "things", "kind": "Thing"},
            "versions": [version("v1", true, &["hostPort"]), version("v2", false, &["host", "port"])],
            "conversion": {"strategy": "Webhook", "webhook": {
                "clientConfig": config, "conversionReviewVersions": ["v1"],
            }},
        },
    })
}

#[tokio::test]
async fn objects_are_read_listed_and_written_in_either_version() {
    let hook = Webhook::start(convert).await;
    let cluster = Cluster::start().await;
    cluster
        .post(DEFINITIONS, &definition(&hook.config("/")))
        .await
        .ok();
    let path = |version: &str| format!("/apis/x.io/{version}/namespaces/default/things");
    let (v1, v2) = (path("v1"), path("v2"));
    let thing = |version: &str, name: &str, fields: Value| {
        let mut thing = json!({"kind": "Thing", "apiVersion": format!("x.io/{version}"), "metadata": {"name": name}});
        for (field, value) in fields.as_object().into_iter().flatten() {
            thing[field] = value.clone();
        }
        thing
    };
    let made = cluster
        .post(&v1, &thing("v1", "a", json!({"hostPort": "h:1"})))
        .await
        .ok();
    assert_eq!(hook.requests().len(), 0, "stored as it came");
    let read = cluster.get(&format!("{v2}/a")).await.ok();
    assert_eq!((&read["host"], &read["port"]), (&json!("h"), &json!("1")));
    assert_eq!(read["metadata"]["uid"], made["metadata"]["uid"]);
    let made = cluster
        .post(&v2, &thing("v2", "b", json!({"host": "g", "port": "2"})))
        .await
        .ok();
    assert_eq!(made["host"], "g");
    assert_eq!(
        cluster.get(&format!("{v1}/b")).await.ok()["hostPort"],
        "g:2"
    );
    let before = hook.requests().len();
    let list = cluster.get(&v2).await.ok();
    let hosts: Vec<&Value> = list["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|i| &i["host"])
        .collect();
    assert_eq!(hosts, ["h", "g"]);
    assert_eq!(hook.requests().len(), before + 1, "all in one call");
    let changed = cluster
        .merge(&format!("{v2}/a"), &json!({"port": "9"}))
        .await
        .ok();
    assert_eq!(changed["port"], "9");
    assert_eq!(
        cluster.get(&format!("{v1}/a")).await.ok()["hostPort"],
        "h:9"
    );
    let watched = cluster
        .get(&format!(
            "{v2}?watch=true&timeoutSeconds=1&fieldSelector=metadata.name%3Da&resourceVersion=1"
        ))
        .await;
    assert!(watched.code == 200);
    cluster.stop().await;
}

#[tokio::test]
async fn what_cannot_be_converted_is_an_error_that_says_why() {
    let hook =
        Webhook::start(|_, _| json!({"result": {"status": "Failed", "message": "too hard"}})).await;
    let cluster = Cluster::start().await;
    cluster
        .post(DEFINITIONS, &definition(&hook.config("/")))
        .await
        .ok();
    let thing = json!({"kind": "Thing", "apiVersion": "x.io/v1", "metadata": {"name": "a"}, "hostPort": "h:1"});
    cluster
        .post("/apis/x.io/v1/namespaces/default/things", &thing)
        .await
        .ok();
    let answer = cluster
        .get("/apis/x.io/v2/namespaces/default/things/a")
        .await;
    assert_eq!(answer.code, 500);
    assert_eq!(
        answer.message(),
        "conversion webhook for x.io/v1, Kind=Thing failed: too hard"
    );
    cluster.stop().await;
}
