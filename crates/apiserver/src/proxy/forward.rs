//! One request passed on, and its answer passed back: headers, streamed bodies, upgrades.

use bytes::Bytes;
use gantry_machinery::status::Failure;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header, request::Parts,
};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::rt::TokioIo;

use super::{
    links::{Remote, Stream},
    tunnel,
};
use crate::{
    api::Api,
    errors,
    respond::{Body, Reply},
};

pub type BoxError = Box<dyn std::error::Error + Send + Sync>;
/// The body of a request on its way through.
pub type BoxBody = UnsyncBoxBody<Bytes, BoxError>;

/// Headers that are about one connection, not about the request.
const HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The protocols that the client wants to switch to, when it does.
pub fn upgrade(headers: &HeaderMap) -> Option<HeaderValue> {
    let asked = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .any(|v| v.trim().eq_ignore_ascii_case("upgrade"));
    headers.get(header::UPGRADE).filter(|_| asked).cloned()
}

/// What did not work about reaching the other side.
#[derive(Debug, thiserror::Error)]
pub enum Unreachable {
    #[error("{0}")]
    Connect(std::io::Error),
    /// The same, in words of its own.
    #[error("{0}")]
    Link(String),
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Request(#[from] http::Error),
}

/// Headers of the request as the other side gets them: nothing of this hop, no credentials.
pub fn cleaned(mut headers: HeaderMap) -> HeaderMap {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .flat_map(|v| v.split(','))
        .filter_map(|v| v.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&HOP) {
        headers.remove(name);
    }
    headers.remove(header::AUTHORIZATION);
    headers.remove(header::HOST);
    let others: Vec<HeaderName> = headers
        .keys()
        .filter(|k| k.as_str().starts_with("impersonate-") || k.as_str().starts_with("x-remote-"))
        .cloned()
        .collect();
    for name in others {
        headers.remove(name);
    }
    headers
}

/// Passes a request on. An upgrade that the other side agrees to becomes a tunnel, which lives on
/// after this has returned.
pub async fn forward(
    api: &Api,
    to: &Remote,
    parts: Parts,
    path: &str,
    added: HeaderMap,
    body: BoxBody,
) -> Result<Reply, Unreachable> {
    let opened = api.links.connect(to).await.map_err(Unreachable::Connect)?;
    let host = authority(&to.host, to.port);
    over(api, opened.stream, &host, parts, path, added, body).await
}

/// A host and a port as they stand in a URL.
pub fn authority(host: &str, port: u16) -> String {
    match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    }
}

/// Passes a request on over a connection that is open.
pub async fn over(
    api: &Api,
    stream: Stream,
    host: &str,
    mut parts: Parts,
    path: &str,
    added: HeaderMap,
    body: BoxBody,
) -> Result<Reply, Unreachable> {
    let wanted = upgrade(&parts.headers);
    let client = parts.extensions.remove::<OnUpgrade>();
    parts.headers = cleaned(parts.headers);
    parts.headers.extend(added);
    if let Some(protocol) = &wanted {
        let headers = &mut parts.headers;
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let mut answer = exchange(stream, parts, path, host, body).await?;
    if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
        let remote = hyper::upgrade::on(&mut answer);
        let mut reply = Reply::new(Body::empty());
        *reply.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        *reply.headers_mut() = std::mem::take(answer.headers_mut());
        if let Some(client) = client {
            tokio::spawn(tunnel::run(client, remote, api.stop.clone()));
        }
        return Ok(reply);
    }
    Ok(passed(answer))
}

/// One request over an open connection.
pub async fn exchange(
    stream: Stream,
    parts: Parts,
    path: &str,
    host: &str,
    body: BoxBody,
) -> Result<http::Response<Incoming>, Unreachable> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(async move {
        if let Err(e) = connection.with_upgrades().await {
            tracing::debug!(error = %e, "a forwarded connection");
        }
    });
    let mut request = Request::builder()
        .method(parts.method)
        .uri(path.parse::<Uri>().map_err(http::Error::from)?)
        .body(body)?;
    *request.headers_mut() = parts.headers;
    let host = HeaderValue::try_from(host).map_err(http::Error::from)?;
    request.headers_mut().insert(header::HOST, host);
    Ok(sender.send_request(request).await?)
}

/// An answer as the client gets it: what is about the other connection left out.
pub fn passed(answer: http::Response<Incoming>) -> Reply {
    let (head, body) = answer.into_parts();
    let mut reply = Reply::new(Body::Remote(body));
    *reply.status_mut() = head.status;
    *reply.headers_mut() = head.headers;
    for name in &HOP {
        reply.headers_mut().remove(name);
    }
    reply
}

/// A request of our own for what another side has, without the client's headers.
pub fn plain(method: Method) -> Parts {
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.method = method;
    parts
}

/// 500 as for logs and commands whose kubelet cannot be reached.
pub fn dial_failure(e: &Unreachable) -> Failure {
    errors::plain_internal(format!("error dialing backend: {e}"))
}

/// 503 as for what is proxied.
pub fn unavailable(e: &Unreachable) -> Failure {
    Failure::new(
        503,
        "ServiceUnavailable",
        format!("error trying to reach service: {e}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_and_hop_headers_stay_here() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("authorization", "Bearer x"),
            ("connection", "upgrade, x-only-here"),
            ("upgrade", "websocket"),
            ("x-only-here", "1"),
            ("impersonate-user", "a"),
            ("x-remote-user", "root"),
            ("accept", "text/plain"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        assert_eq!(upgrade(&headers).expect("asked for"), "websocket");
        let kept: Vec<String> = cleaned(headers).keys().map(ToString::to_string).collect();
        assert_eq!(kept, ["accept"]);
    }
}
