//! What operators see: metrics, flow control, compressed answers.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use std::io::Read;

use bytes::Bytes;
use flate2::read::GzDecoder;
use gantry_apiserver::{Browsers, Config, RuntimeConfig, Server};
use gantry_store::{Options, Store};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::{Value, json};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const FLOWS: &str = "/apis/flowcontrol.apiserver.k8s.io/v1";

async fn start(seats: u32) -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        seats,
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

async fn ask(
    client: &Client,
    method: &str,
    path: &str,
    coding: &str,
    body: Value,
) -> (StatusCode, HeaderMap, Bytes) {
    let body = match body {
        Value::Null => vec![],
        body => body.to_string().into_bytes(),
    };
    let media = match method {
        "PATCH" => "application/merge-patch+json",
        _ => "application/json",
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .header(header::ACCEPT_ENCODING, coding)
        .body(body.into())
        .expect("a request");
    let response = client.send(request).await.expect("an answer");
    let (parts, body) = response.into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    (parts.status, parts.headers, body)
}

async fn json_of(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let (code, _, body) = ask(client, method, path, "identity", body).await;
    (code.as_u16(), serde_json::from_slice(&body).expect("JSON"))
}

pub async fn metrics(client: &Client) -> String {
    let (code, headers, body) = ask(client, "GET", "/metrics", "identity", Value::Null).await;
    assert_eq!(code, 200);
    assert!(
        headers[header::CONTENT_TYPE]
            .as_bytes()
            .starts_with(b"text/plain; version=0.0.4")
    );
    String::from_utf8(body.to_vec()).expect("text")
}

/// The value of the one series whose line begins so and has all these labels.
fn value(text: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let mut found = text.lines().filter(|l| {
        let named = l
            .strip_prefix(name)
            .is_some_and(|r| r.starts_with(['{', ' ']));
        named && labels.iter().all(|label| l.contains(label))
    });
    let line = found.next()?;
    assert_eq!(found.next(), None, "{name}");
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test]
async fn requests_and_objects_are_counted() {
    let server = start(600).await;
    let client = server.client();
    for name in ["a", "b"] {
        let map = json!({"metadata": {"name": name}});
        assert_eq!(json_of(&client, "POST", MAPS, map).await.0, 201);
    }
    let map = json!({"metadata": {"name": "a"}});
    assert_eq!(json_of(&client, "POST", MAPS, map).await.0, 409);
    json_of(&client, "GET", MAPS, Value::Null).await;
    json_of(&client, "GET", "/api/v1/configmaps", Value::Null).await;
    json_of(&client, "GET", "/api/v1/nosuch", Value::Null).await;
    json_of(&client, "GET", &format!("{MAPS}/a"), Value::Null).await;
    let watch = Request::get(format!("{MAPS}?watch=1&labelSelector=x"));
    let watch = watch.body(Vec::new().into()).expect("a request");
    let watch = client.send(watch).await.expect("a watch");
    let text = metrics(&client).await;
    let maps = [
        "resource=\"configmaps\"",
        "version=\"v1\"",
        "group=\"\"",
        "component=\"apiserver\"",
    ];
    let total = |more: &[&str]| {
        value(
            &text,
            "apiserver_request_total",
            &[&maps[..], more].concat(),
        )
    };
    // What is created is one object, though its path names none.
    let one = "scope=\"resource\"";
    assert_eq!(total(&["verb=\"POST\"", "code=\"201\"", one]), Some(2.0));
    assert_eq!(total(&["verb=\"POST\"", "code=\"409\""]), Some(1.0));
    assert_eq!(total(&["verb=\"LIST\"", "scope=\"namespace\""]), Some(1.0));
    assert_eq!(total(&["verb=\"LIST\"", "scope=\"cluster\""]), Some(1.0));
    assert_eq!(
        total(&["verb=\"GET\"", "scope=\"resource\"", "code=\"200\""]),
        Some(1.0)
    );
    let post = [&maps[..], &["verb=\"POST\""]].concat();
    let count = value(&text, "apiserver_request_duration_seconds_count", &post);
    assert_eq!(count, Some(3.0));
    let running = [&maps[..], &["verb=\"WATCH\""]].concat();
    assert_eq!(
        value(&text, "apiserver_longrunning_requests", &running),
        Some(1.0)
    );
    // This request is itself under way.
    let reading = ["request_kind=\"readOnly\""];
    assert_eq!(
        value(&text, "apiserver_current_inflight_requests", &reading),
        Some(1.0)
    );
    let stored = ["resource=\"configmaps\""];
    let objects = value(&text, "apiserver_storage_objects", &stored);
    assert_eq!(objects, Some(3.0), "one is the server's own");
    let roles = ["resource=\"clusterroles.rbac.authorization.k8s.io\""];
    assert!(value(&text, "apiserver_storage_objects", &roles).is_some_and(|n| n > 10.0));
    assert!(value(&text, "gantry_store_writes_total", &[]).is_some_and(|n| n > 10.0));
    assert!(
        value(
            &text,
            "kubernetes_build_info",
            &["major=\"1\"", "minor=\"36\""]
        )
        .is_some()
    );
    assert!(!text.contains("nosuch"), "names of the client's making");
    #[cfg(target_os = "linux")]
    assert!(value(&text, "process_resident_memory_bytes", &[]).is_some_and(|n| n > 0.0));
    drop(watch);
    let text = metrics(&client).await;
    assert_eq!(
        value(&text, "apiserver_longrunning_requests", &running),
        Some(0.0)
    );
    let nobody = server.client_as("nobody", &[]);
    assert_eq!(
        json_of(&nobody, "GET", "/metrics", Value::Null).await.0,
        403
    );
    server.shutdown().await;
}

#[tokio::test]
async fn big_answers_are_compressed() {
    let server = start(600).await;
    let client = server.client();
    let map = json!({"metadata": {"name": "big"}, "data": {"a": "x".repeat(500_000)}});
    assert_eq!(json_of(&client, "POST", MAPS, map).await.0, 201);
    let (_, _, plain) = ask(&client, "GET", MAPS, "identity", Value::Null).await;
    let (code, headers, body) = ask(&client, "GET", MAPS, "gzip", Value::Null).await;
    assert_eq!(
        (code.as_u16(), &headers[header::CONTENT_ENCODING]),
        (200, &"gzip".parse().expect("a header"))
    );
    assert!(body.len() < 50_000);
    let mut read = vec![];
    GzDecoder::new(&*body).read_to_end(&mut read).expect("gzip");
    assert!(read == plain);
    let (_, headers, _) = ask(&client, "GET", "/api/v1/namespaces", "gzip", Value::Null).await;
    assert!(headers.get(header::CONTENT_ENCODING).is_none());
    server.shutdown().await;
}

#[tokio::test]
async fn flow_control_has_its_objects_and_shows_them() {
    let server = start(600).await;
    let client = server.client();
    let schemas = format!("{FLOWS}/flowschemas");
    let levels = format!("{FLOWS}/prioritylevelconfigurations");
    let (_, list) = json_of(&client, "GET", &schemas, Value::Null).await;
    let items = list["items"].as_array().expect("items");
    assert_eq!(items.len(), 13);
    for item in items {
        let condition = &item["status"]["conditions"][0];
        assert_eq!(
            (&condition["type"], &condition["status"]),
            (&json!("Dangling"), &json!("False")),
            "{item}"
        );
        assert_eq!(
            item["metadata"]["annotations"]["apf.kubernetes.io/autoupdate-spec"],
            "true"
        );
    }
    let (_, list) = json_of(&client, "GET", &levels, Value::Null).await;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(8));

    let uid = async |path: String| {
        let (code, object) = json_of(&client, "GET", &path, Value::Null).await;
        assert_eq!(code, 200, "{object}");
        object["metadata"]["uid"]
            .as_str()
            .expect("a uid")
            .to_owned()
    };
    let ann = server.client_as("ann", &[]);
    // Refused, but classified before that.
    let (code, headers, _) = ask(&ann, "GET", MAPS, "identity", Value::Null).await;
    assert_eq!(code, 403);
    let default = uid(format!("{schemas}/global-default")).await;
    assert_eq!(headers["x-kubernetes-pf-flowschema-uid"], default);
    let default = uid(format!("{levels}/global-default")).await;
    assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], default);

    let dangling = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema",
        "metadata": {"name": "x"},
        "spec": {
            "priorityLevelConfiguration": {"name": "x"}, "matchingPrecedence": 50,
            "rules": [{
                "subjects": [{"kind": "User", "user": {"name": "ann"}}],
                "resourceRules": [{"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"]}],
            }],
        },
    });
    assert_eq!(json_of(&client, "POST", &schemas, dangling).await.0, 201);
    let condition = async || {
        let (_, schema) = json_of(&client, "GET", &format!("{schemas}/x"), Value::Null).await;
        schema["status"]["conditions"][0]["status"].clone()
    };
    assert_eq!(condition().await, "True");
    let level = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "PriorityLevelConfiguration",
        "metadata": {"name": "x"},
        "spec": {"type": "Limited", "limited": {"nominalConcurrencyShares": 1, "limitResponse": {"type": "Reject"}}},
    });
    assert_eq!(json_of(&client, "POST", &levels, level).await.0, 201);
    assert_eq!(condition().await, "False");
    let (_, headers, _) = ask(&ann, "GET", MAPS, "identity", Value::Null).await;
    let own = uid(format!("{levels}/x")).await;
    assert_eq!(headers["x-kubernetes-pf-prioritylevel-uid"], own);
    // What the server cannot do without comes back.
    let gone = format!("{schemas}/catch-all");
    assert_eq!(json_of(&client, "DELETE", &gone, Value::Null).await.0, 200);
    assert_eq!(json_of(&client, "GET", &gone, Value::Null).await.0, 200);
    let text = metrics(&client).await;
    let seats = value(
        &text,
        "apiserver_flowcontrol_nominal_limit_seats",
        &["priority_level=\"x\""],
    );
    assert_eq!(seats, Some(3.0), "1 of 246 shares of 600 seats");
    let denied = ["flow_schema=\"x\"", "priority_level=\"x\""];
    let dispatched = value(
        &text,
        "apiserver_flowcontrol_dispatched_requests_total",
        &denied,
    );
    assert_eq!(dispatched, Some(1.0));
    server.shutdown().await;
}

/// client-go asks for protobuf alone.
#[tokio::test]
async fn openapi_is_answered_in_both_forms() {
    let server = start(600).await;
    let client = server.client();
    let get_at = async |path: &str, accept: &str, tag: Option<&str>| {
        let mut request = Request::get(path).header(header::ACCEPT, accept);
        if let Some(tag) = tag {
            request = request.header(header::IF_NONE_MATCH, tag);
        }
        let request = request.body(Vec::new().into()).expect("a request");
        let (parts, body) = client.send(request).await.expect("an answer").into_parts();
        let body = body.collect().await.expect("a body").to_bytes();
        (parts.status.as_u16(), parts.headers, body)
    };
    let get = async |accept: &str, tag: Option<&str>| get_at("/openapi/v2", accept, tag).await;
    let protobuf = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let (code, headers, message) = get(protobuf, None).await;
    assert_eq!(code, 200);
    let media = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
    assert_eq!(headers[header::CONTENT_TYPE], media);
    assert!(message.starts_with(b"\x0a\x032.0"));
    let tag = headers[header::ETAG].to_str().expect("text");
    assert_eq!(get(protobuf, Some(tag)).await.0, 304);
    let (code, _, json) = get("application/json", None).await;
    assert_eq!(code, 200);
    let json: Value = serde_json::from_slice(&json).expect("JSON");
    assert_eq!(json["swagger"], "2.0");
    assert_eq!(get("text/html", None).await.0, 406);
    let (_, index) = json_of(&client, "GET", "/openapi/v3", Value::Null).await;
    let apps = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str();
    let apps = apps.expect("a link");
    let (code, headers, _) = ask(&client, "GET", apps, "identity", Value::Null).await;
    assert_eq!(code, 200);
    assert_eq!(headers[header::CACHE_CONTROL], "public, immutable");
    // The documents of version 3 in both forms have one hash.
    let protobuf = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf";
    let (code, headers, message) = get_at(apps, protobuf, None).await;
    assert_eq!(code, 200);
    let media = "application/com.github.proto-openapi.spec.v3.v1.0+protobuf";
    assert_eq!(headers[header::CONTENT_TYPE], media);
    assert_eq!(headers[header::VARY], "Accept");
    assert!(message.starts_with(b"\x0a\x053.0.0"));
    let tag = headers[header::ETAG].to_str().expect("text");
    assert!(apps.ends_with(tag.trim_matches('"')), "{tag}");
    assert_eq!(get_at(apps, protobuf, Some(tag)).await.0, 304);
    let either = format!("application/json, {protobuf}");
    let (_, headers, _) = get_at(apps, &either, None).await;
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(get_at("/openapi/v3", protobuf, None).await.0, 406);
    assert_eq!(get_at("/openapi/v3/apis/x/v1", protobuf, None).await.0, 404);
    let old = "/openapi/v3/apis/apps/v1?hash=OLD";
    let (code, headers, _) = ask(&client, "GET", old, "identity", Value::Null).await;
    assert_eq!(
        (code.as_u16(), headers[header::LOCATION].as_bytes()),
        (301, apps.as_bytes())
    );
    let maps = format!("{MAPS}?pretty=true");
    let (_, _, body) = ask(&client, "GET", &maps, "identity", Value::Null).await;
    assert!(body.starts_with(b"{\n  \"kind\": \"ConfigMapList\",\n"));
    server.shutdown().await;
}

#[tokio::test]
async fn what_is_switched_off_is_not_served_and_not_shown() {
    let config = Config {
        runtime: RuntimeConfig::parse("batch/v1=false,apps/v1/daemonsets=false").expect("read"),
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts");
    let client = server.client();
    let get = async |path: &str| {
        let request = Request::get(path).body(vec![]).expect("a request");
        client
            .request_text(request)
            .await
            .map_err(|e| e.to_string())
    };
    let apis = get("/apis").await.expect("groups");
    assert!(
        apis.contains("\"apps\"") && !apis.contains("\"batch\""),
        "{apis}"
    );
    let apps = get("/apis/apps/v1").await.expect("resources");
    assert!(
        apps.contains("deployments") && !apps.contains("daemonsets"),
        "{apps}"
    );
    for path in [
        "/apis/batch/v1",
        "/apis/batch/v1/jobs",
        "/apis/apps/v1/namespaces/default/daemonsets",
    ] {
        let answer = get(path).await.expect_err(path);
        assert!(answer.contains("404"), "{path}: {answer}");
    }
    server.shutdown().await;
}

#[tokio::test]
async fn browsers_are_told_who_may_read_and_to_come_over_tls() {
    let directives = ["max-age=31536000", "includeSubDomains", "preload"].map(str::to_owned);
    let browsers = Browsers::new(
        &["^https://console\\.example\\.com$".to_owned()],
        &directives,
    );
    let config = Config {
        browsers: browsers.expect("understood"),
        ..Config::default()
    };
    let server = Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts");
    let nobody = server.client_as("nobody", &[]);
    let sent = async |method: &str, path: &str, origin: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::ORIGIN, origin)
            .body(Vec::new().into())
            .expect("a request");
        let (parts, _) = nobody.send(request).await.expect("an answer").into_parts();
        let told = parts.headers.get(header::STRICT_TRANSPORT_SECURITY);
        let told = told.and_then(|it| it.to_str().ok());
        assert_eq!(told, Some("max-age=31536000; includeSubDomains; preload"));
        let allowed = parts.headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        (
            parts.status.as_u16(),
            allowed.map(|it| it.to_str().expect("text").to_owned()),
        )
    };
    let (console, other) = ("https://console.example.com", "https://example.org");
    let known = || Some(console.to_owned());
    // Who is asked first answers before it is known who asks.
    assert_eq!(sent("OPTIONS", MAPS, console).await, (204, known()));
    assert_eq!(sent("GET", "/version", console).await, (200, known()));
    assert_eq!(sent("GET", MAPS, console).await, (403, known()));
    assert_eq!(sent("GET", "/version", other).await, (200, None));
    assert_ne!(sent("OPTIONS", MAPS, other).await.0, 204);
    server.shutdown().await;
}
