//! A server to be asked, and asking it: one request at a time, with what its answer says.

#![expect(
    clippy::expect_used,
    reason = "a test's helpers, which clippy does not see as such"
)]

use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::{HeaderMap, Request, header};
use http_body_util::BodyExt;
use kube::Client;
use serde_json::Value;

pub const MERGE: &str = "application/merge-patch+json";

pub async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

/// One request, with the media types of its body and of the answer.
pub async fn ask_as(
    client: &Client,
    method: &str,
    path: &str,
    (media, accept): (&str, &str),
    body: Value,
) -> (u16, HeaderMap, Value) {
    let body = match body {
        Value::Null => vec![],
        body => body.to_string().into_bytes(),
    };
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .header(header::ACCEPT, accept)
        .body(body.into())
        .expect("a request");
    let (parts, body) = client.send(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    let value = serde_json::from_slice(&body).unwrap_or_default();
    (parts.status.as_u16(), parts.headers, value)
}

pub async fn ask(client: &Client, method: &str, path: &str, body: Value) -> (u16, Value) {
    let media = match (method, body.is_array()) {
        ("PATCH", true) => "application/json-patch+json",
        ("PATCH", false) => MERGE,
        _ => "application/json",
    };
    let (code, _, value) = ask_as(client, method, path, (media, "application/json"), body).await;
    (code, value)
}

/// A body as it is, with its media type; the code of the answer, its warnings, and its body.
pub async fn ask_raw(
    client: &Client,
    method: &str,
    path: &str,
    media: &str,
    body: &str,
) -> (u16, Vec<String>, Value) {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::CONTENT_TYPE, media)
        .body(body.as_bytes().to_vec().into())
        .expect("a request");
    let (parts, body) = client.send(request).await.expect("an answer").into_parts();
    let body = body.collect().await.expect("a body").to_bytes();
    // `299 - "the text"`
    let warning = |value: &header::HeaderValue| {
        let text = value.to_str().unwrap_or_default();
        let quoted = text
            .strip_prefix("299 - \"")
            .and_then(|text| text.strip_suffix('"'));
        quoted.expect("a warning in quotes").replace("\\\"", "\"")
    };
    let warnings = parts.headers.get_all(header::WARNING);
    (
        parts.status.as_u16(),
        warnings.iter().map(warning).collect(),
        serde_json::from_slice(&body).unwrap_or_default(),
    )
}
