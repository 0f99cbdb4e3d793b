//! `TestFieldValidation` of Kubernetes' integration tests: what is said of unknown fields, and of fields given twice.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use serde_json::{Value, json};

use crate::asking::{MERGE, ask, ask_raw, start};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const JSON: &str = "application/json";
const YAML: &str = "application/yaml";
const PATCH: &str = "application/json-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

struct Case {
    method: &'static str,
    path: String,
    media: &'static str,
    body: String,
    /// One each, in order.
    warnings: Vec<&'static str>,
    /// How a refusal ends.
    refusal: &'static str,
}

/// Each `fieldValidation`; those that do not refuse are asked as dry runs, so that the next finds the same.
async fn hold(client: &kube::Client, case: &Case) {
    for validation in ["Strict", "Warn", "Ignore", ""] {
        let mut path = format!("{}?dryRun=All&fieldManager=m", case.path);
        if !validation.is_empty() {
            path += &format!("&fieldValidation={validation}");
        }
        let (code, warnings, said) =
            ask_raw(client, case.method, &path, case.media, &case.body).await;
        let place = format!("{} {} {validation}: {said}", case.method, case.media);
        if validation == "Strict" {
            let message = said["message"].as_str().expect("a message");
            assert!(code >= 400 && message.ends_with(case.refusal), "{place}");
            continue;
        }
        assert!(code < 300, "{place}");
        let expected = match validation {
            "Ignore" => vec![],
            _ => case.warnings.clone(),
        };
        assert_eq!(warnings, expected, "{place}");
    }
}

fn case(
    (method, path, media): (&'static str, &str, &'static str),
    body: &str,
    warnings: &[&'static str],
    refusal: &'static str,
) -> Case {
    Case {
        method,
        path: path.to_owned(),
        media,
        body: body.to_owned(),
        warnings: warnings.to_vec(),
        refusal,
    }
}

#[tokio::test]
async fn fields_given_twice_are_told_as_the_format_tells_them() {
    let server = start().await;
    let client = server.client();
    let service = json!({"metadata": {"name": "s"}, "spec": {"ports": [{"port": 1}]}});
    assert_eq!(ask(&client, "POST", SERVICES, service).await.0, 201);
    let one = format!("{SERVICES}/s");
    let json = r#"{"metadata": {"name": "x", "name": "n"}, "spec": {"odd": 1, "odd": 2,
        "type": "NodePort", "type": "ClusterIP", "ports": [{"port": 1, "no": 1}]}}"#;
    let yaml = "metadata:\n  name: x\n  name: z\nspec:\n  odd: 1\n  odd: 2\n  ports: [{port: 1,\n    port: 1}]\n";
    let merge = r#"{"spec": {"odd": 1, "odd": 2, "type": "NodePort", "type": "ClusterIP"}}"#;
    let patch = r#"[{"op": "add", "path": "/spec/odd", "value": 1, "foo": 2},
        {"op": "add", "path": "/spec/a", "path": "/spec/type", "value": "ClusterIP"}]"#;
    let applied = r#"{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"},
        "spec": {"type": "NodePort",
        "type": "ClusterIP"}}"#;
    let of_merge = [
        r#"duplicate field "spec.odd""#,
        r#"duplicate field "spec.type""#,
        r#"unknown field "spec.odd""#,
    ];
    let refused = r#"strict decoding error: duplicate field "spec.odd", duplicate field "spec.type", unknown field "spec.odd""#;
    for case in [
        case(
            ("POST", SERVICES, JSON),
            json,
            &[
                r#"duplicate field "metadata.name""#,
                r#"unknown field "spec.odd""#,
                r#"duplicate field "spec.type""#,
                r#"unknown field "spec.ports[0].no""#,
            ],
            r#"strict decoding error: duplicate field "metadata.name", unknown field "spec.odd", duplicate field "spec.type", unknown field "spec.ports[0].no""#,
        ),
        case(
            ("POST", SERVICES, YAML),
            yaml,
            &[
                r#"line 3: key "name" already set in map"#,
                r#"line 6: key "odd" already set in map"#,
                r#"line 8: key "port" already set in map"#,
                r#"unknown field "spec.odd""#,
            ],
            "strict decoding error: yaml: unmarshal errors:\n  line 3: key \"name\" already set in map\n  line 6: key \"odd\" already set in map\n  line 8: key \"port\" already set in map, unknown field \"spec.odd\"",
        ),
        case(("PATCH", &one, MERGE), merge, &of_merge, refused),
        case(("PATCH", &one, STRATEGIC), merge, &of_merge, refused),
        case(
            ("PATCH", &one, PATCH),
            patch,
            &[
                r#"json patch unknown field "[0].foo""#,
                r#"json patch duplicate field "[1].path""#,
                r#"unknown field "spec.odd""#,
            ],
            r#"strict decoding error: json patch unknown field "[0].foo", json patch duplicate field "[1].path", unknown field "spec.odd""#,
        ),
        case(
            ("PATCH", &one, APPLY),
            applied,
            &[r#"line 3: key "type" already set in map"#],
            "error strict decoding YAML: error converting YAML to JSON: yaml: unmarshal errors:\n  line 3: key \"type\" already set in map",
        ),
    ] {
        hold(&client, &case).await;
    }
    server.shutdown().await;
}

fn definition() -> Value {
    let schema = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {"a": {"type": "string"}}}}});
    json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com", "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}],
        },
    })
}

#[tokio::test]
async fn custom_resources_are_told_of_duplicates_first_and_of_plain_finalizers() {
    let server = start().await;
    let client = server.client();
    let definitions = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    assert_eq!(ask(&client, "POST", definitions, definition()).await.0, 201);
    let path = "/apis/example.com/v1/widgets";
    let body = r#"{"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"odd": 1, "odd": 2, "a": "b"}}"#;
    let twice = [
        r#"duplicate field "spec.odd""#,
        r#"unknown field "spec.odd""#,
    ];
    let refused = r#"strict decoding error: duplicate field "spec.odd", unknown field "spec.odd""#;
    hold(&client, &case(("POST", path, JSON), body, &twice, refused)).await;
    for (finalizers, told) in [
        (json!(["plain", "with.dots", "orphan", "a.b/c"]), 2),
        (json!(["plain", "other", "a.b/d"]), 1),
        (json!(["plain"]), 0),
    ] {
        let body = json!({
            "apiVersion": "example.com/v1", "kind": "Widget",
            "metadata": {"name": "v", "finalizers": finalizers},
        });
        let target = format!("{path}/v?fieldManager=m");
        let (code, warnings, said) =
            ask_raw(&client, "PATCH", &target, APPLY, &body.to_string()).await;
        assert!(code < 300 && warnings.len() == told, "{said} {warnings:?}");
        for warning in warnings {
            let path = warning.contains("with.dots");
            let rest = match path {
                true => "prefer a domain-qualified finalizer name including a path (/) to avoid",
                false => "prefer a domain-qualified finalizer name to avoid",
            };
            assert!(
                warning.starts_with("metadata.finalizers: \"") && warning.contains(rest),
                "{warning}"
            );
        }
    }
    server.shutdown().await;
}

/// `TestClearManagedFieldsWithUpdateEmptyList` of test/integration/apiserver/apply.
#[tokio::test]
async fn an_empty_list_of_owners_ends_the_record() {
    let server = start().await;
    let client = server.client();
    let path = "/api/v1/namespaces/default/configmaps/c";
    let applied = r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": {"a": "b"}}"#;
    let target = format!("{path}?fieldManager=m");
    assert_eq!(
        ask_raw(&client, "PATCH", &target, APPLY, applied).await.0,
        201
    );
    let body = json!({"metadata": {"name": "c", "managedFields": []}, "data": {"a": "b"}});
    assert_eq!(ask(&client, "PUT", path, body).await.0, 200);
    let change = json!({"data": {"a": "c"}});
    let (code, after) = ask(&client, "PATCH", path, change).await;
    assert_eq!(
        (code, after["metadata"].get("managedFields")),
        (200, None),
        "{after}"
    );
    server.shutdown().await;
}
