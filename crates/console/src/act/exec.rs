//! A terminal in an instance: `GET /exec/CLUSTER/TENANT/INSTANCE`, a WebSocket that goes on to the member's
//! `exec` subresource, as the user. Both sides speak the same protocol (`v5.channel.k8s.io`), so what passes
//! is not looked into.
//!
//! A session opens only once it stands in the records, and its end is recorded with what it took. Where
//! the console keeps no records there are no terminals.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use aws_lc_rs::{digest, rand};
use axum::{
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use gantry_records::{Entry, Object, Outcome, Record, Records, Verb, Via, Who, id};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use kube::client::Body;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tracing::warn;

use super::instance::writer;
use crate::{
    access::Right,
    app::{App, Cx, peer, same_site},
    error::Fail,
    page, session,
    view::Params,
};

/// Versions of the protocol: of four and five what passes is the same, but that with five each side says when
/// its end of standard input is reached.
const PROTOCOLS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// Shells that may be asked for.
pub const SHELLS: [&str; 3] = ["sh", "bash", "ash"];
/// How long a member may take to open a terminal.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often is looked whether the session that opened it still holds.
const RECHECK: Duration = Duration::from_secs(30);
/// Terminals at once.
pub const TERMINALS: usize = 200;

/// The right to run commands in instances.
pub fn right(tenant: &str) -> Right {
    Right::core("create", "pods", tenant).sub("exec")
}

/// Whether someone may open a terminal in an instance: by their rights, and because it can be recorded.
pub async fn may(cx: &Cx, cluster: &str, tenant: &str) -> bool {
    cx.app.records.is_some() && cx.may_on(cluster, right(tenant)).await
}

/// Opens a terminal.
pub async fn open(
    State(app): State<Arc<App>>,
    Path((cluster, tenant, name)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    match opened(&app, &cluster, &tenant, &name, request).await {
        Ok(response) => response,
        Err(fail) => {
            let status = if fail == Fail::Login {
                StatusCode::UNAUTHORIZED
            } else {
                fail.status()
            };
            (status, fail.detail().to_owned()).into_response()
        }
    }
}

/// What a browser's handshake offers: protocols, of which one is the session's token.
fn offered(headers: &HeaderMap) -> Vec<&str> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .map(str::trim)
        .collect()
}

fn wanted(headers: &HeaderMap) -> bool {
    let upgrade = headers.get(header::UPGRADE);
    upgrade.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// What proves that a handshake was understood (RFC 6455, 4.2.2): no secret hangs on the hash.
fn accept(key: &[u8]) -> String {
    let whole = [key, b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"].concat();
    STANDARD.encode(digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, &whole))
}

async fn opened(
    app: &Arc<App>,
    cluster: &str,
    tenant: &str,
    name: &str,
    mut request: Request,
) -> Result<Response, Fail> {
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let headers = request.headers().clone();
    let cx = Cx::of(app, &headers, peer(&request)).await?;
    page::instance_seen(&cx, cluster, tenant, name)?;
    if !may(&cx, cluster, tenant).await {
        return Err(Fail::NotFound);
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY);
    let key = key.filter(|_| wanted(&headers)).ok_or_else(|| {
        Fail::Bad("a terminal is a WebSocket: open it from the instance's page".to_owned())
    })?;
    let offers = offered(&headers);
    // A page of another site can open a WebSocket here; it does not know the token.
    let ours = cx.session.bearer || offers.iter().any(|o| session::same(o, &cx.session.csrf));
    if !same_site(&headers) || !ours {
        return Err(Fail::Forbidden(
            "this terminal was not opened by a page of your session".to_owned(),
        ));
    }
    let turn = app.terminals.clone().try_acquire_owned();
    let turn =
        turn.map_err(|_| Fail::Upstream(format!("{TERMINALS} terminals are open; close one")))?;
    let shell = SHELLS.iter().find(|s| **s == params.get("shell"));
    let shell = shell.copied().unwrap_or(SHELLS[0]);
    let container = params.get("container");
    let (there, protocol) = dial(&cx, cluster, tenant, name, (container, shell)).await?;
    let begun = Begun::write(&cx, cluster, tenant, name, (container, shell)).await?;
    let browser = hyper::upgrade::on(&mut request);
    let (app, headers_then) = (app.clone(), headers.clone());
    let ended = cx.session.ended.clone();
    let stop = app.stop.clone();
    app.tasks.clone().spawn(async move {
        let _turn = turn;
        let passed = Passed::default();
        let relayed = async {
            let browser = TokioIo::new(browser.await.map_err(io::Error::other)?);
            passed.relay(browser, TokioIo::new(there)).await
        };
        let holds = async {
            loop {
                tokio::time::sleep(RECHECK).await;
                if app
                    .sessions
                    .of(&headers_then, &app.hub, None)
                    .await
                    .is_err()
                {
                    return;
                }
            }
        };
        let end = tokio::select! {
            () = stop.cancelled() => Err("the console ended".to_owned()),
            () = ended.cancelled() => Err("the session ended".to_owned()),
            () = holds => Err("the session ended".to_owned()),
            end = relayed => end.map_err(|e| e.to_string()),
        };
        begun.end(end, &passed).await;
    });
    let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
    let answer = response.headers_mut();
    answer.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    answer.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.insert(
        header::SEC_WEBSOCKET_PROTOCOL,
        HeaderValue::from_static(protocol),
    );
    if let Ok(value) = HeaderValue::try_from(accept(key.as_bytes())) {
        answer.insert(header::SEC_WEBSOCKET_ACCEPT, value);
    }
    Ok(response)
}

/// What is asked of the member.
fn asked(container: &str, shell: &str) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.append_pair("command", shell);
    for flag in ["stdin", "stdout", "tty"] {
        query.append_pair(flag, "true");
    }
    if !container.is_empty() {
        query.append_pair("container", container);
    }
    query.finish()
}

/// The member's side, as the user.
async fn dial(
    cx: &Cx,
    cluster: &str,
    tenant: &str,
    name: &str,
    (container, shell): (&str, &str),
) -> Result<(hyper::upgrade::Upgraded, &'static str), Fail> {
    let bad = |why: String| Fail::Upstream(format!("{cluster}: {why}"));
    let client = writer(cx, cluster)?;
    let mut nonce = [0; 16];
    rand::fill(&mut nonce).map_err(|_| bad("no random numbers".to_owned()))?;
    let key = STANDARD.encode(nonce);
    let path = format!(
        "/api/v1/namespaces/{tenant}/pods/{name}/exec?{}",
        asked(container, shell)
    );
    let request = http::Request::get(path)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, PROTOCOLS.join(", "))
        .body(Body::empty())
        .map_err(|e| bad(e.to_string()))?;
    let answer = tokio::time::timeout(PATIENCE, client.send(request))
        .await
        .map_err(|_| bad("no answer in time".to_owned()))??;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        let status = answer.status();
        let body = Limited::new(answer.into_body(), 64 * 1024).collect().await;
        let text = body.map(|b| b.to_bytes()).unwrap_or_default();
        let told: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let why = told["message"]
            .as_str()
            .unwrap_or(status.as_str())
            .to_owned();
        return Err(match status.as_u16() {
            403 => Fail::Forbidden(why),
            404 => Fail::NotFound,
            400 | 422 => Fail::Bad(why),
            _ => bad(why),
        });
    }
    let proof = answer.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if proof.is_none_or(|v| v.as_bytes() != accept(key.as_bytes()).as_bytes()) {
        return Err(bad("it does not speak WebSocket".to_owned()));
    }
    let chosen = offered(answer.headers())
        .first()
        .copied()
        .map(str::to_owned);
    let protocol = PROTOCOLS
        .into_iter()
        .find(|p| Some(*p) == chosen.as_deref())
        .ok_or_else(|| bad("it knows none of our protocols for commands".to_owned()))?;
    let upgraded = hyper::upgrade::on(answer).await;
    Ok((upgraded.map_err(|e| bad(e.to_string()))?, protocol))
}

/// Bytes that passed.
#[derive(Default)]
struct Passed {
    typed: AtomicU64,
    shown: AtomicU64,
}

impl Passed {
    /// Passes on what comes, both ways, until one side ends.
    async fn relay<A, B>(&self, browser: A, there: B) -> io::Result<()>
    where
        A: AsyncRead + AsyncWrite,
        B: AsyncRead + AsyncWrite,
    {
        let (from_browser, to_browser) = tokio::io::split(browser);
        let (from_there, to_there) = tokio::io::split(there);
        let end = tokio::select! {
            end = pass(from_browser, to_there, &self.typed) => end,
            end = pass(from_there, to_browser, &self.shown) => end,
        };
        match end {
            // Whoever goes does not always say so in TLS first.
            Err(error) if GONE.contains(&error.kind()) => Ok(()),
            end => end,
        }
    }
}

/// What a side that has gone looks like.
const GONE: [io::ErrorKind; 4] = [
    io::ErrorKind::UnexpectedEof,
    io::ErrorKind::ConnectionReset,
    io::ErrorKind::ConnectionAborted,
    io::ErrorKind::BrokenPipe,
];

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    count: &AtomicU64,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let n = from.read(&mut buffer).await?;
        if n == 0 {
            return to.shutdown().await;
        }
        to.write_all(&buffer[..n]).await?;
        // Frames are small; what waits would be seen late.
        to.flush().await?;
        count.fetch_add(n as u64, Relaxed);
    }
}

/// A session that stands in the records.
struct Begun {
    store: Arc<dyn Records>,
    record: Record,
}

impl Begun {
    async fn write(
        cx: &Cx,
        cluster: &str,
        tenant: &str,
        name: &str,
        (container, shell): (&str, &str),
    ) -> Result<Self, Fail> {
        let store = cx.app.records.clone().ok_or(Fail::NotFound)?;
        let instance = page::instance_seen(cx, cluster, tenant, name)?;
        let nonce = session::random()?;
        let record = Record {
            id: id::of(cx.now, 0, &["exec", &nonce]),
            at: cx.now,
            who: Who {
                user: cx.session.name().to_owned(),
                groups: cx.session.user.groups.clone().unwrap_or_default(),
                via: Via::Console,
            },
            verb: Verb::Exec,
            object: Object {
                kind: "Pod".to_owned(),
                namespace: tenant.to_owned(),
                name: name.to_owned(),
                uid: String::new(),
                group: instance.group.clone(),
            },
            why: String::new(),
            before: None,
            after: Some(json!({"cluster": cluster, "container": container, "command": shell})),
            outcome: Outcome::Running,
            message: String::new(),
            started: Some(cx.now),
            finished: None,
        };
        let begun = Self { store, record };
        let end = begun.save().await;
        cx.audit("exec", &format!("instance {cluster}/{tenant}/{name}"), &end);
        end?;
        Ok(begun)
    }

    async fn save(&self) -> Result<(), Fail> {
        let entry = Entry {
            records: vec![self.record.clone()],
            seen: None,
        };
        let written = self.store.write(std::slice::from_ref(&entry)).await;
        written.map_err(|e| {
            Fail::Upstream(format!(
                "no terminal without a record, and the records cannot be written: {e}"
            ))
        })
    }

    async fn end(mut self, end: Result<(), String>, passed: &Passed) {
        self.record.finished = Some(Timestamp::now());
        let (typed, shown) = (passed.typed.load(Relaxed), passed.shown.load(Relaxed));
        let much = format!("{typed} bytes typed, {shown} bytes shown");
        (self.record.outcome, self.record.message) = match end {
            Ok(()) => (Outcome::Done, much),
            Err(why) => (Outcome::Aborted, format!("{why}; {much}")),
        };
        if let Err(fail) = self.save().await {
            let why = fail.detail();
            warn!(record = %self.record.id, %why, "the end of a terminal is not recorded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handshakes() {
        // RFC 6455, 1.3.
        assert_eq!(
            accept(b"dGhlIHNhbXBsZSBub25jZQ=="),
            "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
        );
        let mut headers = HeaderMap::new();
        assert!(!wanted(&headers));
        headers.insert(header::UPGRADE, HeaderValue::from_static("WebSocket"));
        headers.insert(
            header::SEC_WEBSOCKET_PROTOCOL,
            HeaderValue::from_static("v5.channel.k8s.io, token"),
        );
        assert!(wanted(&headers));
        assert_eq!(offered(&headers), ["v5.channel.k8s.io", "token"]);
    }
}
