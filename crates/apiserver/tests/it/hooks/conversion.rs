//! Conversion webhooks: custom resources read and written in versions they are not stored in.

use http::Method;
use serde_json::{Value, json};

use crate::hooks::{
    client::Cluster,
    server::{Webhook, patch},
};

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
    let (v1, v2) = (things("v1"), things("v2"));
    let thing = |version: &str, name: &str, fields: Value| thing(version, name, &fields);
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
    cluster.stop().await;
}

fn thing(version: &str, name: &str, fields: &Value) -> Value {
    let mut thing = json!({
        "kind": "Thing", "apiVersion": format!("x.io/{version}"), "metadata": {"name": name},
    });
    for (field, value) in fields.as_object().into_iter().flatten() {
        thing[field] = value.clone();
    }
    thing
}

fn things(version: &str) -> String {
    format!("/apis/x.io/{version}/namespaces/default/things")
}

#[tokio::test]
async fn a_list_holds_objects_that_are_stored_in_different_versions() {
    let hook = Webhook::start(convert).await;
    let cluster = Cluster::start().await;
    let definition = definition(&hook.config("/"));
    cluster.post(DEFINITIONS, &definition).await.ok();
    let old = thing("v1", "a", &json!({"hostPort": "h:1"}));
    cluster.post(&things("v1"), &old).await.ok();
    let mut versions = definition["spec"]["versions"].clone();
    versions[0]["storage"] = false.into();
    versions[1]["storage"] = true.into();
    let one = format!("{DEFINITIONS}/things.x.io");
    let change = json!({"spec": {"versions": versions}});
    cluster.merge(&one, &change).await.ok();
    let new = thing("v2", "b", &json!({"host": "g", "port": "2"}));
    cluster.post(&things("v2"), &new).await.ok();
    for (version, field, expected) in [
        ("v1", "hostPort", ["h:1", "g:2"]),
        ("v2", "host", ["h", "g"]),
    ] {
        let list = cluster.get(&things(version)).await.ok();
        let items = list["items"].as_array().expect("items");
        let found: Vec<&Value> = items.iter().map(|i| &i[field]).collect();
        assert_eq!(found, expected, "{version}");
        let versions: Vec<&Value> = items.iter().map(|i| &i["apiVersion"]).collect();
        assert_eq!(versions, vec![&json!(format!("x.io/{version}")); 2]);
    }
    // A write brings the old one into the version that is stored now.
    let path = format!("{}/a", things("v1"));
    let changed = cluster.merge(&path, &json!({"hostPort": "h:3"})).await.ok();
    assert_eq!(changed["hostPort"], "h:3");
    let before = hook.requests().len();
    let read = cluster.get(&format!("{}/a", things("v2"))).await.ok();
    assert_eq!(read["port"], "3");
    assert_eq!(hook.requests().len(), before);
    let status = cluster.get(&one).await.ok();
    assert_eq!(status["status"]["storedVersions"], json!(["v1", "v2"]));
    cluster.stop().await;
}

#[tokio::test]
async fn a_watch_shows_changes_in_its_version() {
    let hook = Webhook::start(convert).await;
    let cluster = Cluster::start().await;
    cluster
        .post(DEFINITIONS, &definition(&hook.config("/")))
        .await
        .ok();
    let first = thing("v1", "a", &json!({"hostPort": "h:1"}));
    let made = cluster.post(&things("v1"), &first).await.ok();
    let path = format!("{}/a", things("v1"));
    cluster.merge(&path, &json!({"hostPort": "h:2"})).await.ok();
    cluster.delete(&path).await.ok();
    let since = made["metadata"]["resourceVersion"]
        .as_str()
        .expect("a version");
    let path = format!(
        "{}?watch=true&timeoutSeconds=1&resourceVersion={since}",
        things("v2")
    );
    let events: Vec<(String, Value)> = cluster
        .lines(&path)
        .await
        .into_iter()
        .map(|event| {
            let kind = event["type"].as_str().unwrap_or_default().to_owned();
            (kind, event["object"]["port"].clone())
        })
        .collect();
    let expected = [("MODIFIED", "2"), ("DELETED", "2")].map(|(k, p)| (k.to_owned(), json!(p)));
    assert_eq!(events, expected);
    cluster.stop().await;
}

#[tokio::test]
async fn webhooks_see_the_version_that_their_rules_name() {
    let converter = Webhook::start(convert).await;
    let hook = Webhook::start(|_, request| {
        if request["object"]["host"] == "bad" {
            return json!({"allowed": false, "status": {"message": "a bad host"}});
        }
        patch(&json!([{"op": "replace", "path": "/port", "value": "443"}]))
    })
    .await;
    let cluster = Cluster::start().await;
    let definition = definition(&converter.config("/"));
    cluster.post(DEFINITIONS, &definition).await.ok();
    let rules = json!([{"operations": ["CREATE"], "apiGroups": ["x.io"], "apiVersions": ["v2"], "resources": ["things"]}]);
    let config = json!({"clientConfig": hook.config("/"), "rules": rules});
    cluster.configure("Mutating", "m", &[config]).await;
    let made = cluster
        .post(
            &things("v1"),
            &thing("v1", "a", &json!({"hostPort": "h:1"})),
        )
        .await
        .ok();
    assert_eq!(
        (&made["apiVersion"], &made["hostPort"]),
        (&json!("x.io/v1"), &json!("h:443"))
    );
    let request = &hook.requests()[0];
    assert_eq!(request["object"]["apiVersion"], "x.io/v2");
    assert_eq!(request["kind"]["version"], "v2");
    assert_eq!(request["requestKind"]["version"], "v1");
    assert_eq!(request["resource"]["version"], "v2");
    let refused = cluster
        .post(
            &things("v1"),
            &thing("v1", "b", &json!({"hostPort": "bad:1"})),
        )
        .await;
    assert!(
        refused
            .message()
            .ends_with("denied the request: a bad host"),
        "{}",
        refused.message()
    );
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

#[tokio::test]
async fn managers_of_different_versions_meet_in_each_others_words() {
    let hook = Webhook::start(convert).await;
    let cluster = Cluster::start().await;
    let definition = definition(&hook.config("/"));
    cluster.post(DEFINITIONS, &definition).await.ok();
    let apply = async |version: &str, manager: &str, fields: Value, query: &str| {
        let url = format!("{}/a?fieldManager={manager}{query}", things(version));
        let body = thing(version, "a", &fields);
        let kind = "application/apply-patch+yaml";
        cluster.send(Method::PATCH, &url, kind, &body).await
    };
    let owners = |thing: &Value| -> Vec<String> {
        let entries = thing["metadata"]["managedFields"].as_array();
        let entries = entries.into_iter().flatten();
        entries
            .map(|e| format!("{} {} {}", e["manager"], e["apiVersion"], e["fieldsV1"]))
            .map(|text| text.replace('"', ""))
            .collect()
    };
    apply("v1", "one", json!({"hostPort": "h:1"}), "")
        .await
        .ok();
    // The same said in the other version is shared, and a difference is a conflict.
    let both = apply("v2", "two", json!({"host": "h", "port": "1"}), "")
        .await
        .ok();
    assert_eq!(
        owners(&both),
        [
            "two x.io/v2 {f:host:{},f:port:{}}",
            "one x.io/v1 {f:hostPort:{}}"
        ]
    );
    let refused = apply("v2", "two", json!({"host": "h", "port": "2"}), "").await;
    assert_eq!(refused.code, 409);
    assert_eq!(
        refused.message(),
        "Apply failed with 1 conflict: conflict with \"one\": .hostPort"
    );
    let forced = apply(
        "v2",
        "two",
        json!({"host": "h", "port": "2"}),
        "&force=true",
    );
    assert_eq!(
        owners(&forced.await.ok()),
        ["two x.io/v2 {f:host:{},f:port:{}}"]
    );
    // An update in one version takes what it changes from those who wrote in the other.
    let changed = cluster
        .merge(
            &format!("{}/a?fieldManager=three", things("v1")),
            &json!({"hostPort": "g:2"}),
        )
        .await
        .ok();
    assert_eq!(
        owners(&changed),
        ["two x.io/v2 {f:port:{}}", "three x.io/v1 {f:hostPort:{}}"]
    );
    cluster.stop().await;
}

#[tokio::test]
async fn objects_are_stored_in_a_version_that_is_not_served() {
    let hook = Webhook::start(convert).await;
    let cluster = Cluster::start().await;
    let mut definition = definition(&hook.config("/"));
    definition["spec"]["versions"][0]["served"] = json!(false);
    cluster.post(DEFINITIONS, &definition).await.ok();
    let url = things("v2");
    let body = thing("v2", "a", &json!({"host": "h", "port": "1"}));
    let made = cluster.post(&url, &body).await.ok();
    assert_eq!(made["host"], "h");
    let asked = hook.requests();
    let versions: Vec<&Value> = asked.iter().map(|r| &r["desiredAPIVersion"]).collect();
    assert_eq!(versions[0], "x.io/v1");
    assert_eq!(cluster.get(&format!("{url}/a")).await.ok()["port"], "1");
    assert_eq!(cluster.get(&things("v1")).await.code, 404);
    cluster.stop().await;
}
