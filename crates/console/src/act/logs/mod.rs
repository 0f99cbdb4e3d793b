//! Logs, streamed as text: of an instance, or of all of a Group's, merged by time over its members. Read
//! only, but not from the models: the members are asked.

mod tail;

use std::{collections::HashSet, sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::stream;
use http::{HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use parking_lot::Mutex;
use tokio::sync::mpsc;

use self::tail::Tail;
use crate::{
    access::Right,
    app::{App, Cx, peer},
    error::Fail,
    model::Key,
    page,
    view::Params,
};

/// `GET /logs/CLUSTER/TENANT/INSTANCE?tail=N&follow=0&container=NAME&previous=1`
pub async fn stream(
    State(app): State<Arc<App>>,
    Path((cluster, tenant, name)): Path<(String, String, String)>,
    request: Request,
) -> Response {
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let (headers, peer) = (request.headers().clone(), peer(&request));
    drop(request);
    let cx = Cx::of(&app, &headers, peer).await;
    let opened = match cx {
        Ok(cx) => open(&cx, &cluster, &tenant, &name, &params).await,
        Err(fail) => Err(fail),
    };
    answer(opened)
}

fn answer(opened: Result<Body, Fail>) -> Response {
    match opened {
        Ok(body) => {
            let mut response = body.into_response();
            let headers = response.headers_mut();
            headers.insert(
                header::CONTENT_TYPE,
                HeaderValue::from_static("text/plain; charset=utf-8"),
            );
            headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
            response
        }
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

/// The stream of a log.
///
/// # Errors
/// If there is no such instance, or the user may not read its log.
pub async fn open(
    cx: &Cx,
    cluster: &str,
    tenant: &str,
    name: &str,
    params: &Params,
) -> Result<Body, Fail> {
    page::instance_seen(cx, cluster, tenant, name)?;
    if !cx
        .may_on(cluster, Right::core("get", "pods", tenant).sub("log"))
        .await
    {
        return Err(Fail::NotFound);
    }
    let text = |name: &str| Some(params.get(name).to_owned()).filter(|t| !t.is_empty());
    let asked = LogParams {
        container: text("container"),
        follow: params.get("follow") != "0",
        previous: params.get("previous") == "1",
        tail_lines: Some(params.number("tail").unwrap_or(500).min(100_000) as i64),
        ..LogParams::default()
    };
    let times = params.get("timestamps") == "1";
    let api: Api<Pod> = Api::namespaced(page::reader(cx, cluster)?, tenant);
    let mut tail = Tail::open(api, name, asked).await?;
    let (sender, receiver) = mpsc::channel(WAITING);
    let there = there(cx, cluster, tenant, name);
    reading(cx, sender.clone(), async move || {
        while let Some((time, text)) = tail.next(&there).await {
            let line = if times {
                format!("{time} {text}\n")
            } else {
                format!("{text}\n")
            };
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let mut lines = Vec::new();
        let some = receiver.recv_many(&mut lines, WAITING).await > 0;
        some.then(|| (chunk(&lines), receiver))
    });
    Ok(Body::new(StreamBody::new(chunks)))
}

fn chunk(lines: &[String]) -> std::io::Result<Frame<Bytes>> {
    Ok(Frame::data(Bytes::from(lines.concat())))
}

/// Whether there is such an instance, asked while its log is followed.
fn there(cx: &Cx, cluster: &str, tenant: &str, name: &str) -> impl Fn() -> bool + Send + 'static {
    let (app, cluster) = (cx.app.clone(), cluster.to_owned());
    let key = (tenant.to_owned(), name.to_owned());
    move || {
        let state = app.model.read();
        let member = state.members.get(&cluster);
        member.is_some_and(|m| m.instances.contains_key(&key))
    }
}

/// Reads beside the answer, until the console or the session ends or nobody listens any more.
fn reading<F>(cx: &Cx, sender: mpsc::Sender<String>, read: impl FnOnce() -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (stop, ended, read) = (cx.app.stop.clone(), cx.session.ended.clone(), read());
    cx.app.tasks.spawn(async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = ended.cancelled() => {}
            // A quiet log would not notice.
            () = sender.closed() => {}
            () = read => {}
        }
    });
}

/// Instances of a Group whose logs are merged, at most.
pub const MERGED: usize = 40;
/// Lines are gathered this long and sorted by time before they are sent on.
const GATHER: Duration = Duration::from_millis(300);
/// How often instances that have come since are looked for.
const JOIN: Duration = Duration::from_secs(2);
/// Lines that may wait to be sorted.
const WAITING: usize = 4096;

/// `GET /logs/TENANT/GROUP?tail=N&follow=0`: the logs of a Group's instances, over all members.
pub async fn of_group(
    State(app): State<Arc<App>>,
    Path((tenant, group)): Path<(String, String)>,
    request: Request,
) -> Response {
    let params = Params::parse(request.uri().query().unwrap_or_default());
    let (headers, peer) = (request.headers().clone(), peer(&request));
    drop(request);
    let opened = match Cx::of(&app, &headers, peer).await {
        Ok(cx) => merged(&cx, &tenant, &group, &params).await,
        Err(fail) => Err(fail),
    };
    answer(opened)
}

async fn merged(cx: &Cx, tenant: &str, group: &str, params: &Params) -> Result<Body, Fail> {
    page::group::seen(cx, tenant, group).await?;
    let key = (tenant.to_owned(), group.to_owned());
    if !cx
        .may_on_any(&key, Right::core("get", "pods", tenant).sub("log"))
        .await
    {
        return Err(Fail::NotFound);
    }
    let asked = LogParams {
        follow: params.get("follow") != "0",
        tail_lines: Some(params.number("tail").unwrap_or(100).min(10_000) as i64),
        ..LogParams::default()
    };
    let (sender, receiver) = mpsc::channel(WAITING);
    let open = Arc::default();
    if asked.follow {
        // Instances that come while one looks are followed too.
        let (own, sender) = (cx.clone(), sender.clone());
        reading(cx, sender.clone(), async move || {
            loop {
                join(&own, &key, &asked, &open, &sender);
                tokio::time::sleep(JOIN).await;
            }
        });
    } else {
        join(cx, &key, &asked, &open, &sender);
    }
    drop(sender);
    let chunks = stream::unfold(receiver, |mut receiver| async move {
        let mut lines = vec![receiver.recv().await?];
        let gather = async {
            while lines.len() < WAITING {
                match receiver.recv().await {
                    Some(line) => lines.push(line),
                    None => return,
                }
            }
        };
        let _ = tokio::time::timeout(GATHER, gather).await;
        lines.sort();
        Some((chunk(&lines), receiver))
    });
    Ok(Body::new(StreamBody::new(chunks)))
}

/// Instances whose logs are open: cluster and name.
type Open = Arc<Mutex<HashSet<(String, String)>>>;

/// Begins to read the logs of a Group's instances that are not read yet.
fn join(cx: &Cx, group: &Key, asked: &LogParams, open: &Open, sender: &mpsc::Sender<String>) {
    let new: Vec<(String, String)> = {
        let state = cx.app.model.read();
        let mut open = open.lock();
        let all = state.instances(group);
        let mut new = Vec::new();
        for (cluster, instance) in all {
            let key = (cluster.to_owned(), instance.name.clone());
            if open.len() < MERGED && open.insert(key.clone()) {
                new.push(key);
            }
        }
        new
    };
    for (cluster, name) in new {
        let Ok(client) = page::reader(cx, &cluster) else {
            continue;
        };
        let api: Api<Pod> = Api::namespaced(client, &group.0);
        let there = there(cx, &cluster, &group.0, &name);
        let (open, asked, lines) = (open.clone(), asked.clone(), sender.clone());
        reading(cx, sender.clone(), async move || {
            // One that does not run yet is tried again when instances are looked for the next time.
            if let Ok(mut tail) = Tail::open(api, &name, asked).await {
                while let Some((time, text)) = tail.next(&there).await {
                    // The time stands first, so that lines sort by it.
                    if lines.send(format!("{time} {name} {text}\n")).await.is_err() {
                        return;
                    }
                }
            }
            open.lock().remove(&(cluster, name));
        });
    }
}
