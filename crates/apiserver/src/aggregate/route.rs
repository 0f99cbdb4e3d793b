//! Requests to extension API servers, passed on.

use std::{error::Error as _, sync::Arc, time::Duration};

use futures::StreamExt;
use gantry_machinery::status::Failure;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Uri, header, request::Parts};
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::{
    backend::{LinkError, Transport},
    headers,
    state::{Known, Remote},
};
use crate::{
    api::Api,
    audit::Peer,
    authn::UserInfo,
    errors,
    proxy::forward::{self, BoxBody, Unreachable},
    respond::{self, Body, Reply},
    webhook::cause,
};

/// How long the answer to a request that does not run on may take to begin.
const PATIENCE: Duration = Duration::from_secs(60);

/// Whose a path is, when it is somebody else's: `/apis/GROUP/VERSION…`, and that group version's
/// OpenAPI document.
pub fn whose(api: &Api, path: &str) -> Option<Arc<Known>> {
    let state = api.aggregator.state();
    if !state.has_remotes() {
        return None;
    }
    let rest = path
        .strip_prefix("/apis/")
        .or_else(|| path.strip_prefix("/openapi/v3/apis/"))?;
    let mut slashes = rest.match_indices('/').map(|(at, _)| at);
    slashes.next()?;
    let end = slashes.next().unwrap_or(rest.len());
    state.elsewhere(rest.get(..end)?).cloned()
}

/// An error as Go's `http.Error` words it.
fn plain(code: u16, message: &str) -> Reply {
    let mut reply = respond::bytes(code, respond::TEXT, format!("{message}\n"));
    let headers = reply.headers_mut();
    headers.remove(header::CACHE_CONTROL);
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    reply
}

/// A request that has been authorized, and by whom it is.
pub struct Passing<'a> {
    pub user: &'a UserInfo,
    /// Its name in the audit log.
    pub id: &'a str,
    /// It goes on until one of both sides ends it.
    pub watches: bool,
}

/// Passes a request on to the server whose it is.
///
/// # Errors
/// 504 when it does not answer in time; what else goes wrong is a plain answer, as in Kubernetes.
pub async fn pass(
    api: &Arc<Api>,
    known: &Known,
    passing: &Passing<'_>,
    mut parts: Parts,
    body: BoxBody,
) -> Result<Reply, Failure> {
    let Some(remote) = known.remote.as_ref().filter(|_| known.available) else {
        return Ok(plain(503, NOWHERE));
    };
    let transport = match &remote.backend.transport {
        Ok(transport) => transport,
        Err(why) => return Ok(plain(500, why)),
    };
    let added = match added(passing, &parts) {
        Ok(added) => added,
        Err(e) => return Ok(plain(503, &e.to_string())),
    };
    if forward::upgrade(&parts.headers).is_some() {
        return Ok(upgraded(api, remote, transport, parts, added, body).await);
    }
    parts.headers = forward::cleaned(parts.headers);
    parts.headers.extend(added);
    let exchange = exchange(remote, transport, parts, body);
    let answer = if passing.watches {
        exchange.await
    } else {
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .map_err(|_| errors::timed_out())?
    };
    Ok(match answer {
        Ok(reply) if passing.watches => until_stopped(reply, api.stop.clone()),
        Ok(reply) => reply,
        Err(why) => plain(503, &why),
    })
}

const NOWHERE: &str = "service unavailable";

/// Why there is no answer, as the client is told.
fn failed(e: &hyper_util::client::legacy::Error) -> String {
    let mut at = e.source();
    while let Some(source) = at {
        if let Some(LinkError::Nowhere(_)) = source.downcast_ref() {
            return NOWHERE.to_owned();
        }
        at = source.source();
    }
    cause(e)
}

/// What the other side is told beyond what the client says: who asks, by which name, from where.
fn added(passing: &Passing<'_>, parts: &Parts) -> Result<HeaderMap, http::Error> {
    let mut added = headers::naming(passing.user)?;
    let id = HeaderName::from_static("audit-id");
    added.insert(id, HeaderValue::from_str(passing.id)?);
    if let Some(Peer(peer)) = parts.extensions.get::<Peer>() {
        let name = HeaderName::from_static("x-forwarded-for");
        let mut chain: Vec<String> = parts
            .headers
            .get_all(&name)
            .iter()
            .filter_map(|v| v.to_str().ok().map(str::to_owned))
            .collect();
        chain.push(peer.ip().to_string());
        added.insert(name, HeaderValue::from_str(&chain.join(", "))?);
    }
    Ok(added)
}

async fn exchange(
    remote: &Remote,
    transport: &Transport,
    parts: Parts,
    body: BoxBody,
) -> Result<Reply, String> {
    let service = &remote.backend.service;
    let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
    let uri: Uri = format!("https://{}:{}{path}", service.host(), service.port)
        .parse()
        .map_err(|e: http::uri::InvalidUri| e.to_string())?;
    let mut request = Request::new(body);
    *request.method_mut() = parts.method;
    *request.uri_mut() = uri;
    *request.headers_mut() = parts.headers;
    let answer = transport.pool.request(request).await;
    answer.map(forward::passed).map_err(|e| failed(&e))
}

async fn upgraded(
    api: &Arc<Api>,
    remote: &Remote,
    transport: &Transport,
    parts: Parts,
    added: HeaderMap,
    body: BoxBody,
) -> Reply {
    let through = async {
        let link = transport.single.open().await.map_err(|e| match e {
            LinkError::Connect(why) => Unreachable::Link(why),
            LinkError::Nowhere(_) => Unreachable::Link(NOWHERE.to_owned()),
        })?;
        let service = &remote.backend.service;
        let path = parts.uri.path_and_query().map_or("/", |p| p.as_str());
        let path = path.to_owned();
        let host = format!("{}:{}", service.host(), service.port);
        let stream = link.into_stream();
        forward::over(api, stream, &host, parts, &path, added, body).await
    };
    match through.await {
        Ok(reply) => reply,
        Err(e) => plain(503, &e.to_string()),
    }
}

/// An answer that goes on, ended when the server stops.
fn until_stopped(mut reply: Reply, stop: CancellationToken) -> Reply {
    if !reply.status().is_success() {
        return reply;
    }
    reply.headers_mut().remove(header::CONTENT_LENGTH);
    let body = std::mem::replace(reply.body_mut(), Body::empty());
    let data = body.into_data_stream();
    let pieces = data.scan((), |(), piece| std::future::ready(piece.ok()));
    *reply.body_mut() = Body::Stream(Box::pin(pieces.take_until(stop.cancelled_owned())));
    reply
}
