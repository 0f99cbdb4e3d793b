//! What the integration tests of apiextensions-apiserver ask, as far as walking through them found it missing.

use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
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

/// `TestSelectableFields` and `TestFieldSelectorOpenAPI`: fields are those of the version that is asked for, also of what
/// was written before they could be asked for.
#[tokio::test]
async fn fields_are_selected_in_the_version_that_is_asked_for() {
    let server = start().await;
    let client = server.client();
    let mut body = definition("widgets", "Widget", free());
    let spec = json!({"type": "object", "properties": {"color": {"type": "string"}, "hue": {"type": "string"}}});
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": spec}}});
    body["spec"]["versions"] = json!([
        {"name": "v1", "served": true, "storage": true, "schema": schema},
        {"name": "v2", "served": true, "storage": false, "schema": schema},
    ]);
    let (code, body) = ask(&client, "POST", DEFINITIONS, body).await;
    assert_eq!(code, 201, "{body}");
    for (name, hue) in [("a", "blue"), ("b", "green"), ("c", "blue"), ("d", "blue")] {
        let body = widget(name, json!({"color": "red", "hue": hue}));
        assert_eq!(ask(&client, "POST", WIDGETS, body).await.0, 201);
    }
    // Their labels have been looked at.
    let path = format!("{WIDGETS}?labelSelector=a");
    assert_eq!(ask(&client, "GET", &path, Value::Null).await.0, 200);

    let named = format!("{DEFINITIONS}/widgets.example.com");
    let change = json!([
        {"op": "add", "path": "/spec/versions/0/selectableFields", "value": [{"jsonPath": ".spec.color"}]},
        {"op": "add", "path": "/spec/versions/1/selectableFields", "value": [{"jsonPath": ".spec.hue"}]},
    ]);
    assert_eq!(ask(&client, "PATCH", &named, change).await.0, 200);

    let list = async |query: &str| {
        let path = format!("/apis/example.com/{query}");
        let (code, list) = ask(&client, "GET", &path, Value::Null).await;
        let names = list["items"].as_array().into_iter().flatten();
        let names: Vec<String> = names.map(|i| i["metadata"]["name"].to_string()).collect();
        let next = list["metadata"]["continue"].as_str();
        let next = next.filter(|n| !n.is_empty()).map(str::to_owned);
        (code, names.join(" ").replace('"', ""), next)
    };
    for (query, code, names) in [
        ("v1/widgets?fieldSelector=spec.color%3Dred", 200, "a b c d"),
        ("v1/widgets?fieldSelector=spec.color%3Dblue", 200, ""),
        ("v2/widgets?fieldSelector=spec.hue%3Dblue", 200, "a c d"),
        ("v2/widgets?fieldSelector=spec.hue!%3Dblue", 200, "b"),
        (
            "v2/widgets?fieldSelector=spec.hue%3Dblue,metadata.name%3Dc",
            200,
            "c",
        ),
        ("v1/widgets?fieldSelector=spec.hue%3Dblue", 400, ""),
    ] {
        let found = list(query).await;
        assert_eq!((found.0, &*found.1), (code, names), "{query}");
    }
    let page = "v2/widgets?fieldSelector=spec.hue%3Dblue&limit=2";
    let (_, names, next) = list(page).await;
    assert_eq!(names, "a c");
    let rest = format!("{page}&continue={}", next.expect("a second page"));
    let (_, names, next) = list(&rest).await;
    assert_eq!((&*names, next), ("d", None));

    for version in ["v1", "v2"] {
        let path = format!("/openapi/v3/apis/example.com/{version}");
        let (_, document) = ask(&client, "GET", &path, Value::Null).await;
        let name = format!("com.example.{version}.Widget");
        let field = if version == "v1" {
            "spec.color"
        } else {
            "spec.hue"
        };
        assert_eq!(
            document["components"]["schemas"][name]["x-kubernetes-selectable-fields"],
            json!([{"fieldPath": field}]),
        );
    }
    server.shutdown().await;
}

/// `TestChangeCRD`: watches end when what they show becomes another thing, and not before all of it is shown.
#[tokio::test]
async fn watches_end_when_their_definition_changes() {
    let server = start().await;
    let client = server.client();
    let body = definition("widgets", "Widget", free());
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    let body = widget("a", json!({}));
    assert_eq!(ask(&client, "POST", WIDGETS, body).await.0, 201);
    // The head of the answer says that the watch has begun.
    let watch = async || {
        let request = Request::get(format!("{WIDGETS}?watch=1"));
        let request = request.body(kube::client::Body::empty()).unwrap();
        let (parts, body) = client.send(request).await.unwrap().into_parts();
        assert_eq!(parts.status, 200);
        body
    };
    let ends = async |body: kube::client::Body| {
        let whole = tokio::time::timeout(Duration::from_secs(20), body.collect()).await;
        let whole = whole.expect("the watch ends").unwrap().to_bytes();
        String::from_utf8(whole.to_vec()).unwrap()
    };
    let named = format!("{DEFINITIONS}/widgets.example.com");
    let body = watch().await;
    // An annotation changes nothing that is shown: what comes after it is shown still.
    let note = json!({"metadata": {"annotations": {"a": "b"}}});
    assert_eq!(ask(&client, "PATCH", &named, note).await.0, 200);
    let after = widget("b", json!({}));
    assert_eq!(ask(&client, "POST", WIDGETS, after).await.0, 201);
    let change = json!([{"op": "add", "path": "/spec/names/categories", "value": ["all"]}]);
    assert_eq!(ask(&client, "PATCH", &named, change).await.0, 200);
    let seen = ends(body).await;
    assert!(seen.contains(r#""name":"b""#), "{seen}");
    // So they do when it goes.
    let body = watch().await;
    assert_eq!(ask(&client, "DELETE", &named, Value::Null).await.0, 200);
    ends(body).await;
    server.shutdown().await;
}

/// `TestRatchetingFunctionality`: "Map Type List Reordering Grandfathers Invalid Key".
#[tokio::test]
async fn items_with_keys_may_change_places_in_a_list_that_became_too_long() {
    let server = start().await;
    let client = server.client();
    let schema = |more: Value, rules: Value| {
        let item = json!({"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "port": {"type": "integer"}}});
        let mut ports = json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item});
        if !more.is_null() {
            ports["maxItems"] = more;
        }
        let spec = json!({"type": "object", "properties": {"ports": ports}, "x-kubernetes-validations": rules});
        json!({"type": "object", "properties": {"spec": spec}})
    };
    let body = definition("widgets", "Widget", schema(Value::Null, json!([])));
    assert_eq!(ask(&client, "POST", DEFINITIONS, body).await.0, 201);
    let port = |name: &str, port: u16| json!({"name": name, "port": port});
    let spec = |ports: &[Value]| json!({"ports": ports});
    let body = widget("w", spec(&[port("a", 1), port("b", 2), port("c", 3)]));
    assert_eq!(ask(&client, "POST", WIDGETS, body).await.0, 201);
    let rule = json!([{"rule": "self.ports.all(p, p.port > 1)"}]);
    for (most, rules) in [(json!(2), json!([])), (json!(9), rule)] {
        let path = format!("{DEFINITIONS}/widgets.example.com");
        let schema = schema(most, rules);
        let change = json!([{"op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
        assert_eq!(ask(&client, "PATCH", &path, change).await.0, 200);
        let path = format!("{WIDGETS}/w");
        for (ports, code) in [
            ([port("c", 3), port("a", 1), port("b", 2)], 200),
            ([port("c", 4), port("a", 1), port("b", 2)], 422),
        ] {
            let change = json!({"spec": {"ports": ports}});
            let (answered, said) = ask(&client, "PATCH", &path, change).await;
            assert_eq!(answered, code, "{ports:?}: {said}");
        }
    }
    server.shutdown().await;
}
