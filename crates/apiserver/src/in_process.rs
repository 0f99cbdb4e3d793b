//! Upgrades for clients in this process: the request goes over a pipe, as HTTP/1.1, because only a
//! connection can be upgraded.

use std::{convert::Infallible, sync::Arc};

use http::{Request, Response};
use hyper_util::rt::TokioIo;

use crate::{
    api::Api,
    authn::UserInfo,
    errors,
    handle::handle,
    respond::{self, Body, Reply},
};

/// What each direction of the pipe holds at most.
const PIPE: usize = 64 * 1024;

/// Answers a request that asks for an upgrade; what comes of it can be upgraded by hyper's means.
pub async fn upgraded(
    api: Arc<Api>,
    user: Arc<UserInfo>,
    request: Request<kube::client::Body>,
) -> Result<Reply, Infallible> {
    match through(api, user, request).await {
        Ok(reply) => Ok(reply),
        Err(e) => Ok(respond::failure(&errors::internal(e), None)),
    }
}

async fn through(
    api: Arc<Api>,
    user: Arc<UserInfo>,
    mut request: Request<kube::client::Body>,
) -> Result<Reply, hyper::Error> {
    let (near, far) = tokio::io::duplex(PIPE);
    let service = hyper::service::service_fn(move |mut request: Request<_>| {
        request.extensions_mut().insert(user.clone());
        let api = api.clone();
        async move { Ok::<_, Infallible>(handle(api, request).await) }
    });
    tokio::spawn(
        hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(far), service)
            .with_upgrades(),
    );
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(near)).await?;
    tokio::spawn(connection.with_upgrades());
    // Over a connection a request has a path and a host, not a whole URL.
    let path = request
        .uri()
        .path_and_query()
        .and_then(|p| p.as_str().parse().ok());
    if let Some(path) = path {
        *request.uri_mut() = path;
    }
    let host = http::HeaderValue::from_static("localhost");
    request.headers_mut().insert(http::header::HOST, host);
    let answer: Response<hyper::body::Incoming> = sender.send_request(request).await?;
    Ok(answer.map(Body::Remote))
}
