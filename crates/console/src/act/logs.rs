//! Logs, streamed as text: of an instance, or of all of a Group's, merged by time over its members. Read
//! only, but not from the models: the members are asked.

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{AsyncBufReadExt, AsyncReadExt, StreamExt, stream};
use http::{HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use tokio::sync::mpsc;

use crate::{
    access::Right,
    app::{App, Cx, peer},
    error::Fail,
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
        timestamps: params.get("timestamps") == "1",
        ..LogParams::default()
    };
    let api: Api<Pod> = Api::namespaced(page::reader(cx, cluster)?, tenant);
    let reader = Box::pin(api.log_stream(name, &asked).await?);
    let stop = cx.app.stop.clone();
    let chunks = stream::unfold((reader, stop), |(mut reader, stop)| async move {
        let mut buffer = vec![0; 16 * 1024];
        let read = tokio::select! {
            () = stop.cancelled() => return None,
            read = reader.read(&mut buffer) => read,
        };
        match read {
            Ok(0) => None,
            Ok(n) => {
                buffer.truncate(n);
                Some((
                    Ok::<_, std::io::Error>(Frame::data(Bytes::from(buffer))),
                    (reader, stop),
                ))
            }
            Err(error) => Some((Err(error), (reader, stop))),
        }
    });
    Ok(Body::new(StreamBody::new(chunks)))
}

/// Instances of a Group whose logs are merged, at most.
const MERGED: usize = 40;
/// Lines are gathered this long and sorted by time before they are sent on.
const GATHER: Duration = Duration::from_millis(300);
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
    let instances: Vec<(String, String)> = {
        let state = cx.app.model.read();
        let all = state
            .instances(&key)
            .map(|(c, i)| (c.to_owned(), i.name.clone()));
        all.take(MERGED).collect()
    };
    let asked = LogParams {
        follow: params.get("follow") != "0",
        tail_lines: Some(params.number("tail").unwrap_or(100).min(10_000) as i64),
        timestamps: true,
        ..LogParams::default()
    };
    let (sender, receiver) = mpsc::channel::<String>(WAITING);
    for (cluster, name) in instances {
        let api: Api<Pod> = Api::namespaced(page::reader(cx, &cluster)?, tenant);
        let (sender, asked, stop) = (sender.clone(), asked.clone(), cx.app.stop.clone());
        cx.app.tasks.spawn(async move {
            let read = async {
                let Ok(log) = api.log_stream(&name, &asked).await else {
                    return;
                };
                let mut lines = log.lines();
                while let Some(Ok(line)) = lines.next().await {
                    // The time stands first, so that lines sort by it.
                    let (time, rest) = line.split_once(' ').unwrap_or((&line, ""));
                    if sender
                        .send(format!("{time} {name} {rest}\n"))
                        .await
                        .is_err()
                    {
                        return;
                    }
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                // Nobody reads any more: a quiet log would not notice.
                () = sender.closed() => {}
                () = read => {}
            }
        });
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
        Some((
            Ok::<_, std::io::Error>(Frame::data(Bytes::from(lines.concat()))),
            receiver,
        ))
    });
    Ok(Body::new(StreamBody::new(chunks)))
}
