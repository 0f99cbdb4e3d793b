//! An instance's logs, streamed as text. Read only, but not from the models: the member is asked.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{Path, Request, State},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{AsyncReadExt, stream};
use http::{HeaderValue, StatusCode, header};
use http_body_util::StreamBody;
use hyper::body::Frame;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};

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
    if !cx.may(Right::core("get", "pods", tenant).sub("log")).await {
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
