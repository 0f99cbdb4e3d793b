//! What the integration tests of apiextensions-apiserver ask, as far as walking through them found it missing.

use std::time::Duration;

use serde_json::{Value, json};

use crate::asking::{ask, ask_raw, start};

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const WIDGETS: &str = "/apis/example.com/v1/widgets";

fn definition(plural: &str, kind: &str, schema: Value) -> Value {
    json!({
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": plural, "kind": kind, "shortNames": ["wd"]},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

fn widget(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": name}, "spec": spec})
}

fn free() -> Value {
    json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// `TestNameConflict`.
#[tokio::test]
async fn a_definition_gets_its_names_when_another_gives_them_up() {
    let server = start().await;
    let client = server.client();
    for (plural, kind) in [("widgets", "Widget"), ("widgets2", "Widget2")] {
        let body = definition(plural, kind, free());
        assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    }
    let accepted = async || {
        let path = format!("{DEFINITIONS}/widgets2.example.com");
        let (_, definition) = ask(&client, "GET", &path, Value::Null).await;
        let all = definition["status"]["conditions"].as_array().cloned();
        let mut all = all.unwrap_or_default().into_iter();
        all.find(|c| c["type"] == "NamesAccepted")
            .map(|c| c["status"].clone())
    };
    assert_eq!(accepted().await, Some(json!("False")));
    let path = format!("{DEFINITIONS}/widgets.example.com");
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let wait = async {
        while accepted().await != Some(json!("True")) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait)
        .await
        .expect("the names are given to the other");
    server.shutdown().await;
}

/// `TestFinalizationAndDeletion` and `TestApplyCRDuringCRDFinalization`.
#[tokio::test]
async fn no_object_is_created_while_its_definition_goes() {
    let server = start().await;
    let client = server.client();
    let body = definition("widgets", "Widget", free());
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    let mut held = widget("held", json!({}));
    held["metadata"]["finalizers"] = json!(["a.b/c"]);
    assert_eq!(ask(&client, "POST", WIDGETS, held).await.0, 201);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    assert_eq!(ask(&client, "DELETE", &path, Value::Null).await.0, 200);
    let why = "create not allowed while custom resource definition is terminating";
    let (code, said) = ask(&client, "POST", WIDGETS, widget("w", json!({}))).await;
    assert!(
        code == 403 && said["message"].to_string().contains(why),
        "{said}"
    );
    let body = widget("w", json!({})).to_string();
    let target = format!("{WIDGETS}/w?fieldManager=m&dryRun=All");
    let media = "application/apply-patch+yaml";
    let (code, _, said) = ask_raw(&client, "PATCH", &target, media, &body).await;
    assert!(
        code == 403 && said["message"].to_string().contains(why),
        "{said}"
    );
    // What is there can be changed, so that it can go.
    let change = json!({"metadata": {"finalizers": null}});
    let path = format!("{WIDGETS}/held");
    assert_eq!(ask(&client, "PATCH", &path, change).await.0, 200);
    server.shutdown().await;
}

/// `TestEmbeddedResources`.
#[tokio::test]
async fn objects_inside_objects_have_kinds_and_names() {
    let server = start().await;
    let client = server.client();
    let inner = json!({"type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": inner}}}});
    let body = definition("widgets", "Widget", schema);
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    for (inside, code, words) in [
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}}),
            201,
            &[][..],
        ),
        (
            json!({"apiVersion": "a/b/c", "kind": "%", "metadata": {"name": "..", "labels": {"x": "x y"}}}),
            422,
            &[
                "spec.a.apiVersion: Invalid value: \"a/b/c\"",
                "spec.a.kind: Invalid value: \"%\"",
                "spec.a.metadata.name: Invalid value: \"..\"",
                "spec.a.metadata.labels: Invalid value: \"x y\"",
            ],
        ),
        (
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": 42}}),
            400,
            &["spec.a.metadata: Invalid value: "],
        ),
    ] {
        let (found, said) = ask(&client, "POST", WIDGETS, widget("w", json!({"a": inside}))).await;
        assert_eq!(found, code, "{said}");
        for word in words {
            assert!(
                said["message"].as_str().is_some_and(|m| m.contains(word)),
                "{word}: {said}"
            );
        }
    }
    server.shutdown().await;
}

/// `TestApplyNullToObject`.
#[tokio::test]
async fn null_is_applied_only_where_the_schema_allows_it() {
    let server = start().await;
    let client = server.client();
    let inner = |nullable: bool| json!({"type": "object", "nullable": nullable, "properties": {"x": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object",
        "properties": {"may": inner(true), "not": inner(false)}}}});
    let body = definition("widgets", "Widget", schema);
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    let target = format!("{WIDGETS}/w?fieldManager=m");
    let media = "application/apply-patch+yaml";
    for (spec, code) in [
        (json!({"may": {"x": "1"}, "not": {"x": "1"}}), 201),
        (json!({"may": null, "not": {"x": "1"}}), 200),
        (json!({"may": {"x": "1"}, "not": null}), 422),
    ] {
        let body = widget("w", spec).to_string();
        let (found, _, said) = ask_raw(&client, "PATCH", &target, media, &body).await;
        assert_eq!(found, code, "{said}");
        if code == 422 {
            let words = "must be of type object: \\\"null\\\"";
            assert!(said["message"].to_string().contains(words), "{said}");
        }
    }
    server.shutdown().await;
}

/// `TestScaleSubresource` and `TestSubresourcesDiscovery`.
#[tokio::test]
async fn replicas_are_small_and_the_status_is_listed_first() {
    let server = start().await;
    let client = server.client();
    let mut body = definition("widgets", "Widget", free());
    body["spec"]["versions"][0]["subresources"] = json!({
        "status": {},
        "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"},
    });
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    for (replicas, code) in [(json!(i64::MAX), 422), (json!("x"), 422), (json!(3), 201)] {
        let body = widget("w", json!({"replicas": replicas}));
        let (found, said) = ask(&client, "POST", WIDGETS, body).await;
        assert_eq!(found, code, "{said}");
    }
    let (_, list) = ask(&client, "GET", "/apis/example.com/v1", Value::Null).await;
    let all = list["resources"].as_array().cloned().unwrap_or_default();
    let names: Vec<_> = all.iter().map(|r| &r["name"]).collect();
    assert_eq!(names, ["widgets", "widgets/status", "widgets/scale"]);
    server.shutdown().await;
}

/// `TestCustomResourceDefaulting…`: what is read has the defaults of the version it is stored in.
#[tokio::test]
async fn defaults_of_the_stored_version_are_read_in_all() {
    let server = start().await;
    let client = server.client();
    let version = |name: &str, storage: bool, default: Option<&str>| {
        let mut field = json!({"type": "string"});
        if let Some(default) = default {
            field["default"] = json!(default);
        }
        let spec = json!({"type": "object", "properties": {"c": field}});
        let schema = json!({"type": "object", "properties": {"spec": spec}});
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": schema}})
    };
    let with = |v1: Option<&str>, v2: Option<&str>| {
        let mut body = definition("widgets", "Widget", free());
        body["spec"]["versions"] = json!([version("v1", false, v1), version("v2", true, v2)]);
        body
    };
    assert_eq!(
        ask(&client, "POST", DEFINITIONS, with(None, None)).await.0,
        201
    );
    let created = ask(&client, "POST", WIDGETS, widget("w", json!({}))).await;
    assert_eq!(created.0, 201, "{}", created.1);
    let path = format!("{DEFINITIONS}/widgets.example.com");
    for (v1, v2, read) in [
        (None, Some("two"), Some(json!("two"))),
        (Some("one"), None, None),
        (Some("one"), Some("two"), Some(json!("two"))),
    ] {
        let versions = json!({"spec": {"versions": with(v1, v2)["spec"]["versions"]}});
        assert_eq!(ask(&client, "PATCH", &path, versions).await.0, 200);
        let (_, one) = ask(&client, "GET", &format!("{WIDGETS}/w"), Value::Null).await;
        let (_, list) = ask(&client, "GET", WIDGETS, Value::Null).await;
        for object in [&one, &list["items"][0]] {
            assert_eq!(
                object["spec"].get("c"),
                read.as_ref(),
                "{v1:?} {v2:?} {object}"
            );
        }
    }
    server.shutdown().await;
}

/// `TestCustomResourceDeprecation` and `TestHandlerScope`.
#[tokio::test]
async fn old_versions_name_a_newer_one_and_scopes_are_kept_apart() {
    let server = start().await;
    let client = server.client();
    let version = |name: &str, served: bool, deprecated: bool| {
        json!({"name": name, "served": served, "storage": name == "v1", "deprecated": deprecated,
            "schema": {"openAPIV3Schema": free()}})
    };
    let mut body = definition("widgets", "Widget", free());
    body["spec"]["scope"] = json!("Namespaced");
    body["spec"]["versions"] = json!([
        version("v1", false, false),
        version("v1beta3", true, false),
        version("v1beta2", true, false),
        version("v1alpha1", true, true),
    ]);
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    let path = "/apis/example.com/v1alpha1/widgets";
    let (code, warnings, _) = ask_raw(&client, "GET", path, "application/json", "").await;
    let expected = "example.com/v1alpha1 Widget is deprecated; use example.com/v1beta3 Widget";
    assert_eq!((code, warnings), (200, vec![expected.to_owned()]));
    for method in ["POST", "DELETE"] {
        let body = widget("w", json!({}));
        let path = "/apis/example.com/v1beta3/widgets";
        assert_eq!(ask(&client, method, path, body).await.0, 404, "{method}");
    }
    server.shutdown().await;
}
