//! Requests that nobody in their right mind sends: the server refuses them, it does not fail.
//!
//! `GANTRY_HOSTILE_RUNS` says how many generated requests are sent, `GANTRY_HOSTILE_SEED` which.

#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a test's helpers, which clippy does not see as such"
)]

mod bodies;
mod definitions;
mod expressions;
mod generate;
mod generated;
mod socket;

use std::time::Duration;

use gantry_apiserver::{Config, Server};
use gantry_store::{Options, Store};
use http::{Request, header};
use http_body_util::BodyExt;
use kube::Client;

async fn start() -> Server {
    let config = Config {
        disabled_admission: vec!["ServiceAccount".to_owned()],
        ..Config::default()
    };
    Server::start(config, Store::in_memory(Options::default()))
        .await
        .expect("the server starts")
}

#[derive(Debug, Clone)]
struct Hostile {
    method: &'static str,
    uri: String,
    media: String,
    accept: String,
    body: Vec<u8>,
}

impl Hostile {
    fn shown(&self) -> String {
        let mut body = String::from_utf8_lossy(&self.body).into_owned();
        if body.len() > 2000 {
            body = body.chars().take(2000).collect::<String>() + "…";
        }
        format!(
            "{} {}\nContent-Type: {}\nAccept: {}\n\n{body}",
            self.method, self.uri, self.media, self.accept
        )
    }
}

/// How a request was answered. Fails on a panic, on what the server calls its own fault, and on
/// what takes too long.
async fn send(client: &Client, hostile: &Hostile) -> Option<u16> {
    let request = Request::builder()
        .method(hostile.method)
        .uri(&hostile.uri)
        .header(header::CONTENT_TYPE, &hostile.media)
        .header(header::ACCEPT, &hostile.accept)
        .body(hostile.body.clone().into());
    // Not all that is generated is a URI or a header at all.
    let request = request.ok()?;
    let client = client.clone();
    let answered = tokio::spawn(async move {
        let response = client.send(request).await.expect("an answer");
        let code = response.status();
        let kind = response.headers().get(header::CONTENT_TYPE).cloned();
        let watch = kind.is_some_and(|k| k.as_bytes().ends_with(b"stream=watch"));
        let mut body = response.into_body();
        let mut read = vec![];
        // A watch does not end: its first frames are enough.
        while let Ok(Some(Ok(frame))) =
            tokio::time::timeout(Duration::from_millis(200), body.frame()).await
        {
            read.extend_from_slice(&frame.into_data().unwrap_or_default());
            if watch {
                break;
            }
        }
        (code.as_u16(), read)
    });
    let answer = tokio::time::timeout(Duration::from_secs(60), answered).await;
    let Ok(answer) = answer else {
        panic!("no answer: {}", hostile.shown());
    };
    let Ok((code, body)) = answer else {
        panic!("a panic: {}", hostile.shown());
    };
    let body = String::from_utf8_lossy(&body);
    // Kubernetes answers some bad requests with a 500 of its own, which has no reason.
    let fault = code == 500 && (body.contains("InternalError") || body.contains("panicked"));
    assert!(!fault, "{body}\n{}", hostile.shown());
    Some(code)
}

fn number(name: &str, default: u64) -> u64 {
    let given = std::env::var(name).ok();
    given.and_then(|v| v.parse().ok()).unwrap_or(default)
}
