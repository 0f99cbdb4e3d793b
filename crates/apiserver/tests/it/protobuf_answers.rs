//! Answers in protobuf, to those who ask for it.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use gantry_apiserver::{Config, Server};
use gantry_machinery::decode::{self, Format};
use gantry_store::{Options, Store};
use http::{Request, Response, header};
use http_body_util::BodyExt;
use kube::{Client, client::Body};
use serde_json::{Value, json};

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
const BOTH: &str = "application/vnd.kubernetes.protobuf,application/json";
const MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SOON: Duration = Duration::from_secs(20);

async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

async fn open(
    client: &Client,
    method: &str,
    path: &str,
    accept: &str,
    body: Value,
) -> Response<Body> {
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
        .header(header::ACCEPT, accept)
        .body(body.into())
        .expect("a request");
    client.send(request).await.expect("an answer")
}

struct Answer {
    code: u16,
    media: String,
    body: Bytes,
}

impl Answer {
    /// The object, whichever way it is encoded.
    fn object(&self) -> Value {
        match self.media.as_str() {
            PROTOBUF => {
                decode::parse(&self.body, Format::Protobuf)
                    .expect("protobuf")
                    .value
            }
            _ => serde_json::from_slice(&self.body).expect("JSON"),
        }
    }
}

async fn ask(client: &Client, method: &str, path: &str, accept: &str, body: Value) -> Answer {
    let response = open(client, method, path, accept, body).await;
    let media = response.headers().get(header::CONTENT_TYPE);
    let media = media
        .expect("a content type")
        .to_str()
        .expect("text")
        .to_owned();
    let code = response.status().as_u16();
    let body = response
        .into_body()
        .collect()
        .await
        .expect("a body")
        .to_bytes();
    Answer { code, media, body }
}

fn map(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"a": name}}, "data": {"k": "v"},
    })
}

#[tokio::test]
async fn objects_lists_and_failures_are_answered_as_asked() {
    let server = start().await;
    let client = server.client();
    let made = ask(&client, "POST", MAPS, BOTH, map("x")).await;
    assert_eq!((made.code, made.media.as_str()), (201, PROTOBUF));
    assert_eq!(made.object()["metadata"]["name"], "x");
    let path = format!("{MAPS}/x");
    let json = ask(&client, "GET", &path, "application/json", Value::Null).await;
    let got = ask(&client, "GET", &path, PROTOBUF, Value::Null).await;
    assert_eq!(got.media, PROTOBUF);
    let (json, got) = (json.object(), got.object());
    assert_eq!(got["data"], json["data"]);
    assert_eq!(got["metadata"]["uid"], json["metadata"]["uid"]);
    assert_eq!(
        got["metadata"]["managedFields"],
        json["metadata"]["managedFields"]
    );
    let patch = json!({"data": {"k": "w"}});
    let patched = ask(&client, "PATCH", &path, PROTOBUF, patch).await;
    assert_eq!((patched.code, patched.media.as_str()), (200, PROTOBUF));
    assert_eq!(patched.object()["data"]["k"], "w");
    let updated = ask(&client, "PUT", &path, PROTOBUF, map("x")).await;
    assert_eq!((updated.code, updated.media.as_str()), (200, PROTOBUF));

    ask(&client, "POST", MAPS, BOTH, map("y")).await;
    let list = format!("{MAPS}?limit=1");
    let list = ask(&client, "GET", &list, BOTH, Value::Null).await;
    assert_eq!((list.code, list.media.as_str()), (200, PROTOBUF));
    let list = list.object();
    assert_eq!(list["kind"], "ConfigMapList");
    assert_eq!(list["metadata"]["remainingItemCount"], 1);
    assert_ne!(list["metadata"]["continue"], "");
    assert_eq!(list["items"][0]["metadata"]["name"], "x");
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));

    let missing = ask(&client, "GET", &format!("{MAPS}/z"), PROTOBUF, Value::Null).await;
    assert_eq!((missing.code, missing.media.as_str()), (404, PROTOBUF));
    let status = missing.object();
    assert_eq!(status["kind"], "Status");
    assert_eq!(status["reason"], "NotFound");
    assert_eq!(status["details"]["name"], "z");
    let nobody = server.client_as("nobody", &[]);
    let refused = ask(&nobody, "GET", MAPS, BOTH, Value::Null).await;
    assert_eq!((refused.code, refused.media.as_str()), (403, PROTOBUF));
    assert_eq!(refused.object()["reason"], "Forbidden");
    let gone = ask(&client, "DELETE", &path, PROTOBUF, Value::Null).await;
    assert_eq!((gone.code, gone.media.as_str()), (200, PROTOBUF));
    assert_eq!(gone.object()["status"], "Success");
    let none = ask(&client, "GET", MAPS, "text/html", Value::Null).await;
    assert_eq!((none.code, none.media.as_str()), (406, "application/json"));
    assert!(
        none.object()["message"]
            .as_str()
            .is_some_and(|m| m.contains(PROTOBUF))
    );
    server.shutdown().await;
}

#[tokio::test]
async fn the_best_form_that_there_is_is_answered() {
    let server = start().await;
    let client = server.client();
    ask(&client, "POST", MAPS, BOTH, map("x")).await;
    let path = format!("{MAPS}/x");
    for (path, accept, media, kind) in [
        // Tables have no protobuf.
        (
            MAPS,
            "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
            "application/json",
            "ConfigMapList",
        ),
        (
            MAPS,
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            PROTOBUF,
            "PartialObjectMetadataList",
        ),
        (
            MAPS,
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;v=v1beta1;g=meta.k8s.io",
            PROTOBUF,
            "PartialObjectMetadataList",
        ),
        (
            &path,
            "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
            PROTOBUF,
            "PartialObjectMetadata",
        ),
        (
            &path,
            "application/vnd.kubernetes.protobuf;q=0.5,application/json",
            "application/json",
            "ConfigMap",
        ),
        (
            &path,
            "*/*,application/vnd.kubernetes.protobuf",
            PROTOBUF,
            "ConfigMap",
        ),
        ("/api", PROTOBUF, PROTOBUF, "APIVersions"),
        ("/apis", BOTH, PROTOBUF, "APIGroupList"),
        ("/apis/apps", PROTOBUF, PROTOBUF, "APIGroup"),
        ("/apis/apps/v1", PROTOBUF, PROTOBUF, "APIResourceList"),
        ("/api/v1", BOTH, PROTOBUF, "APIResourceList"),
    ] {
        let got = ask(&client, "GET", path, accept, Value::Null).await;
        assert_eq!((got.code, got.media.as_str()), (200, media), "{accept}");
        let object = got.object();
        assert_eq!(object["kind"], kind, "{path} {accept}");
        let name = match kind {
            "PartialObjectMetadataList" => Some(&object["items"][0]["metadata"]["name"]),
            "PartialObjectMetadata" | "ConfigMap" => Some(&object["metadata"]["name"]),
            _ => None,
        };
        assert!(
            name.is_none_or(|n| n == "x" || n == "kube-root-ca.crt"),
            "{object}"
        );
    }
    server.shutdown().await;
}

/// What is no object of the resource's own kind: scales, reviews, statuses, dry runs.
#[tokio::test]
async fn other_answers_are_messages_too() {
    let server = start().await;
    let client = server.client();
    let container = json!({"name": "c", "image": "i:1"});
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"},
        "spec": {
            "replicas": 3, "selector": {"matchLabels": {"a": "b"}},
            "template": {
                "metadata": {"labels": {"a": "b"}}, "spec": {"containers": [container]},
            },
        },
    });
    let deployments = "/apis/apps/v1/namespaces/default/deployments";
    let pod = json!({"metadata": {"name": "p"}, "spec": {"containers": [container]}});
    let pods = "/api/v1/namespaces/default/pods";
    let review = json!({"spec": {"resourceAttributes": {"verb": "get", "resource": "pods"}}});
    let reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    let binding = json!({"target": {"kind": "Node", "name": "n"}});
    let eviction =
        json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "p"}});
    let scale = format!("{deployments}/d/scale");
    for (method, path, body, code, kind, pointer, expected) in [
        (
            "POST",
            deployments,
            deployment,
            201,
            "Deployment",
            "/spec/replicas",
            json!(3),
        ),
        (
            "GET",
            &scale,
            Value::Null,
            200,
            "Scale",
            "/status/selector",
            json!("a=b"),
        ),
        (
            "PATCH",
            &scale,
            json!({"spec": {"replicas": 5}}),
            200,
            "Scale",
            "/spec/replicas",
            json!(5),
        ),
        (
            "POST",
            reviews,
            review,
            201,
            "SelfSubjectAccessReview",
            "/status/allowed",
            json!(true),
        ),
        (
            "POST",
            &format!("{pods}?dryRun=All"),
            pod.clone(),
            201,
            "Pod",
            "/metadata/name",
            json!("p"),
        ),
        (
            "POST",
            pods,
            pod,
            201,
            "Pod",
            "/status/phase",
            json!("Pending"),
        ),
        (
            "POST",
            &format!("{pods}/p/binding"),
            binding,
            201,
            "Status",
            "/status",
            json!("Success"),
        ),
        (
            "POST",
            &format!("{pods}/p/eviction"),
            eviction,
            201,
            "Status",
            "/status",
            json!("Success"),
        ),
        (
            "DELETE",
            deployments,
            Value::Null,
            200,
            "DeploymentList",
            "/items/0/spec/replicas",
            json!(5),
        ),
    ] {
        let got = ask(&client, method, path, PROTOBUF, body).await;
        assert_eq!(
            (got.code, got.media.as_str()),
            (code, PROTOBUF),
            "{method} {path}: {}",
            got.object()
        );
        let object = got.object();
        assert_eq!(
            (&object["kind"], object.pointer(pointer)),
            (&json!(kind), Some(&expected)),
            "{path}"
        );
    }
    server.shutdown().await;
}

#[tokio::test]
async fn custom_resources_are_json_and_their_metadata_is_not() {
    let server = start().await;
    let client = server.client();
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
    let made = ask(&client, "POST", crds, BOTH, definition).await;
    assert_eq!((made.code, made.media.as_str()), (201, PROTOBUF));
    let cars = "/apis/example.com/v1/cars";
    let car = json!({"apiVersion": "example.com/v1", "kind": "Car", "metadata": {"name": "c"}});
    let made = ask(&client, "POST", cars, BOTH, car).await;
    assert_eq!((made.code, made.media.as_str()), (201, "application/json"));
    let refused = ask(&client, "GET", cars, PROTOBUF, Value::Null).await;
    assert_eq!(refused.code, 406);
    let partial = format!("{PROTOBUF};as=PartialObjectMetadataList;v=v1;g=meta.k8s.io");
    let list = ask(&client, "GET", cars, &partial, Value::Null).await;
    assert_eq!((list.code, list.media.as_str()), (200, PROTOBUF));
    assert_eq!(list.object()["items"][0]["metadata"]["name"], "c");
    let gone = ask(&client, "DELETE", &format!("{cars}/c"), BOTH, Value::Null).await;
    assert_eq!((gone.code, gone.media.as_str()), (200, "application/json"));
    server.shutdown().await;
}

/// Reads length-delimited frames off a watch.
struct Frames {
    body: Body,
    read: BytesMut,
}

fn varint(bytes: &mut &[u8]) -> usize {
    let (mut value, mut shift) = (0, 0);
    loop {
        let byte = bytes[0];
        *bytes = &bytes[1..];
        value |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte < 0x80 {
            return value;
        }
    }
}

fn field<'a>(bytes: &mut &'a [u8], tag: u8) -> &'a [u8] {
    assert_eq!(bytes[0], tag);
    *bytes = &bytes[1..];
    let length = varint(bytes);
    let (field, rest) = bytes.split_at(length);
    *bytes = rest;
    field
}

impl Frames {
    async fn next(&mut self) -> (String, Value) {
        let length = |read: &[u8]| {
            let head = read.first_chunk::<4>()?;
            Some(4 + u32::from_be_bytes(*head) as usize)
        };
        while length(&self.read).is_none_or(|l| self.read.len() < l) {
            let frame = tokio::time::timeout(SOON, self.body.frame()).await;
            let frame = frame
                .expect("in time")
                .expect("not the end")
                .expect("a frame");
            self.read
                .extend_from_slice(&frame.into_data().expect("data"));
        }
        let whole = self.read.split_to(length(&self.read).expect("a length"));
        let mut event = &whole[4..];
        let kind = field(&mut event, 0x0a);
        let mut raw = field(&mut event, 0x12);
        assert!(event.is_empty());
        let object = field(&mut raw, 0x0a);
        (
            String::from_utf8(kind.to_vec()).expect("text"),
            decode::parse(object, Format::Protobuf)
                .expect("an object")
                .value,
        )
    }
}

async fn watch(client: &Client, query: &str, accept: &str) -> Frames {
    let path = format!("{MAPS}?watch=true&{query}");
    let response = open(client, "GET", &path, accept, Value::Null).await;
    assert_eq!(response.status(), 200);
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "application/vnd.kubernetes.protobuf;stream=watch"
    );
    Frames {
        body: response.into_body(),
        read: BytesMut::new(),
    }
}

#[tokio::test]
async fn watches_are_frames() {
    let server = start().await;
    let client = server.client();
    ask(&client, "POST", MAPS, BOTH, map("x")).await;
    let initial = "labelSelector=a&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let stream = "application/vnd.kubernetes.protobuf;stream=watch";
    let partial = format!("{PROTOBUF};as=PartialObjectMetadata;v=v1;g=meta.k8s.io");
    let mut whole = watch(&client, initial, stream).await;
    let mut other = watch(&client, initial, PROTOBUF).await;
    let mut metadata = watch(&client, initial, &partial).await;
    for frames in [&mut whole, &mut other, &mut metadata] {
        let (kind, object) = frames.next().await;
        assert_eq!(
            (kind.as_str(), &object["metadata"]["name"]),
            ("ADDED", &json!("x"))
        );
        let (kind, mark) = frames.next().await;
        assert_eq!(kind, "BOOKMARK");
        let notes = &mark["metadata"]["annotations"];
        assert_eq!(notes["k8s.io/initial-events-end"], "true");
    }
    ask(&client, "POST", MAPS, BOTH, map("y")).await;
    let path = format!("{MAPS}/x");
    ask(&client, "PATCH", &path, BOTH, json!({"data": {"k": "w"}})).await;
    let patch = json!({"metadata": {"labels": {"a": null}}});
    ask(&client, "PATCH", &path, BOTH, patch).await;
    let last = ask(&client, "DELETE", &format!("{MAPS}/y"), BOTH, Value::Null).await;
    assert_eq!(last.code, 200);
    for (frames, partial) in [
        (&mut whole, false),
        (&mut other, false),
        (&mut metadata, true),
    ] {
        let mut versions = vec![];
        for (expected, name) in [
            ("ADDED", "y"),
            ("MODIFIED", "x"),
            ("DELETED", "x"),
            ("DELETED", "y"),
        ] {
            let (kind, object) = frames.next().await;
            assert_eq!(
                (kind.as_str(), &object["metadata"]["name"]),
                (expected, &json!(name))
            );
            let shown = if partial {
                "PartialObjectMetadata"
            } else {
                "ConfigMap"
            };
            assert_eq!(object["kind"], shown);
            assert_eq!(object.get("data").is_some(), !partial);
            let version = object["metadata"]["resourceVersion"].as_str();
            versions.push(version.and_then(|v| v.parse::<u64>().ok()));
        }
        assert!(
            versions.is_sorted() && versions[0].is_some(),
            "{versions:?}"
        );
    }
    server.shutdown().await;
}
