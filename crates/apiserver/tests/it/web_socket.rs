//! Watches over WebSockets, as browsers open them, and discovery in the encodings that clients ask for.

#![expect(
    clippy::expect_used,
    reason = "helpers of tests, which clippy does not see as tests"
)]

use futures::StreamExt;
use gantry_apiserver::{Config, Server};
use gantry_machinery::protobuf;
use gantry_store::{Options, Store};
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role},
};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";

async fn start() -> (Server, Client) {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    let store = Store::in_memory(Options::default());
    let server = Server::start(config, store).await.expect("it starts");
    let client = server.client();
    (server, client)
}

async fn create(client: &Client, name: &str) {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    let request = Request::post(MAPS)
        .header("content-type", "application/json")
        .body(Body::from(map.to_string().into_bytes()))
        .expect("a request");
    let answer = client.send(request).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::CREATED);
}

/// Opens a WebSocket; the protocol that was agreed on, and the socket.
async fn open(
    client: &Client,
    path: &str,
    headers: &[(&str, &str)],
) -> (String, WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>) {
    let mut request = Request::get(path)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).expect("a request");
    let answer = client.send(request).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
    assert_eq!(
        answer.headers()["sec-websocket-accept"],
        "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    );
    let protocol = answer.headers().get("sec-websocket-protocol");
    let protocol = protocol.and_then(|p| p.to_str().ok()).unwrap_or_default();
    let protocol = protocol.to_owned();
    let upgraded = hyper::upgrade::on(answer).await.expect("upgraded");
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None);
    (protocol, socket.await)
}

#[tokio::test]
async fn a_watch_comes_as_messages() {
    let (server, client) = start().await;
    create(&client, "first").await;
    let watch = format!("{MAPS}?watch=true&fieldSelector=metadata.name!=x");
    let (protocol, mut socket) = open(
        &client,
        &watch,
        &[("sec-websocket-protocol", "base64.binary.k8s.io")],
    )
    .await;
    assert_eq!(protocol, "base64.binary.k8s.io");
    create(&client, "second").await;
    for name in ["first", "second"] {
        let message = socket.next().await.expect("an event").expect("whole");
        let event: Value = serde_json::from_str(message.to_text().expect("text")).expect("JSON");
        assert_eq!(event["type"], "ADDED");
        assert_eq!(event["object"]["metadata"]["name"], name);
    }
    // The end of a watch is the end of the conversation.
    let ended = format!("{MAPS}?watch=true&timeoutSeconds=1&resourceVersion=0");
    let (protocol, mut short) = open(&client, &ended, &[]).await;
    assert_eq!(protocol, "");
    let mut last = None;
    while let Some(Ok(message)) = short.next().await {
        last = Some(message);
    }
    assert!(matches!(last, Some(Message::Close(Some(_)))), "{last:?}");
    server.shutdown().await;
}

#[tokio::test]
async fn protobuf_comes_as_binary_messages() {
    let (server, client) = start().await;
    create(&client, "first").await;
    let accept = "application/vnd.kubernetes.protobuf;stream=watch";
    let watch = format!("{MAPS}?watch=true");
    let (_, mut socket) = open(&client, &watch, &[("accept", accept)]).await;
    let message = socket.next().await.expect("an event").expect("whole");
    let Message::Binary(event) = message else {
        panic!("{message:?}");
    };
    // `WatchEvent`: its type is the first field.
    assert_eq!(&event[..7], b"\x0a\x05ADDED");
    server.shutdown().await;
}

#[tokio::test]
async fn a_handshake_without_a_key_is_refused() {
    let (server, client) = start().await;
    let request = Request::get(format!("{MAPS}?watch=true"))
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .body(Body::empty())
        .expect("a request");
    let answer = client.send(request).await.expect("answered");
    assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    server.shutdown().await;
}

async fn get(client: &Client, path: &str, accept: &str) -> (StatusCode, String, Vec<u8>) {
    let request = Request::get(path).header("accept", accept);
    let request = request.body(Body::empty()).expect("a request");
    let answer = client.send(request).await.expect("answered");
    let status = answer.status();
    let media = answer.headers().get("content-type");
    let media = media.and_then(|m| m.to_str().ok()).unwrap_or_default();
    let media = media.to_owned();
    let body = answer.into_body().collect().await.expect("a body");
    (status, media, body.to_bytes().to_vec())
}

#[tokio::test]
async fn discovery_comes_in_the_encoding_that_is_asked_for() {
    let (server, client) = start().await;
    let form = ";g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    let protobuf = format!("application/vnd.kubernetes.protobuf{form}");
    let (status, media, body) = get(&client, "/apis", &protobuf).await;
    assert_eq!((status, media), (StatusCode::OK, protobuf.clone()));
    let envelope = protobuf::envelope(&body).expect("an envelope");
    assert_eq!(envelope.kind, "APIGroupDiscoveryList");
    assert_eq!(envelope.api_version, "apidiscovery.k8s.io/v2");
    let raw = String::from_utf8_lossy(envelope.raw);
    for name in [
        "deployments",
        "Deployment",
        "Namespaced",
        "Current",
        "deploy",
    ] {
        assert!(raw.contains(name), "{name}");
    }
    // The first that there is, by quality; what nobody has is passed over.
    let json = format!("application/json{form}");
    for (accept, expected) in [
        (format!("{protobuf};q=0.5,{json}"), json.as_str()),
        (format!("text/html,{protobuf},application/json"), &protobuf),
        (format!("application/json;q=0.9,{json}"), &json),
        (format!("application/json,{json};q=0.9"), "application/json"),
        (
            "application/json;g=apidiscovery.k8s.io;v=v9;as=APIGroupDiscoveryList,*/*".to_owned(),
            "application/json",
        ),
        (
            "application/vnd.kubernetes.protobuf".to_owned(),
            "application/vnd.kubernetes.protobuf",
        ),
    ] {
        let (status, media, _) = get(&client, "/apis", &accept).await;
        assert_eq!(
            (status.as_u16(), media.as_str()),
            (200, expected),
            "{accept}"
        );
    }
    for path in [
        "/apis",
        "/api",
        "/apis/apps",
        "/apis/apps/v1",
        "/openapi/v2",
        "/openapi/v3",
    ] {
        let (status, ..) = get(&client, path, "text/html").await;
        assert_eq!(status, StatusCode::NOT_ACCEPTABLE, "{path}");
    }
    server.shutdown().await;
}
