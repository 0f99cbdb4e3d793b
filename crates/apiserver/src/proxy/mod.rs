//! Requests that somebody else answers: kubelets (logs, commands, ports), nodes, pods, services.
//!
//! The server checks the request, finds out where it goes ([`location`]), and passes bytes on
//! ([`forward`]) over connections that [`links`] makes. What is spoken after an upgrade (SPDY/3.1,
//! WebSocket) is between client and kubelet: the server is a tunnel.

pub mod authority;
pub mod forward;
pub mod links;
pub mod location;
mod pod;
pub mod rewrite;
mod target;
pub mod tunnel;

use std::sync::Arc;

use gantry_machinery::status::Failure;
use http::{Method, header, request::Parts};

use crate::{
    api::{Api, Cx},
    authn::UserInfo,
    authz::Attributes,
    errors,
    registry::Entry,
    request::{Query, Target},
    respond::Reply,
    route::refused,
};
use forward::BoxBody;

/// A request to be passed on, understood and allowed.
pub struct Asked {
    pub api: Arc<Api>,
    pub entry: Arc<Entry>,
    pub target: Target,
    pub query: Query,
    pub user: Arc<UserInfo>,
}

impl From<Cx> for Asked {
    fn from(cx: Cx) -> Asked {
        Asked {
            api: cx.api,
            entry: cx.entry,
            target: cx.target,
            query: cx.query,
            user: cx.user,
        }
    }
}

/// Whether a subresource is answered by somebody else.
pub fn is_forwarded(subresource: &str) -> bool {
    matches!(
        subresource,
        "log" | "exec" | "attach" | "portforward" | "proxy"
    )
}

/// Passes the request on and gives the answer.
pub async fn connect(asked: Asked, parts: Parts, body: BoxBody) -> Result<Reply, Failure> {
    match asked.target.subresource.as_str() {
        "proxy" => target::proxy(&asked, parts, body).await,
        "log" => pod::log(&asked, parts).await,
        sub => {
            let sub = sub.to_owned();
            authorize_web_socket(&asked, &parts).await?;
            pod::stream(&asked, &sub, parts).await
        }
    }
}

/// A WebSocket can only be opened by GET, yet what it does is what POST does: it takes the right to
/// create too (KEP-4006, AuthorizePodWebsocketUpgradeCreatePermission).
async fn authorize_web_socket(asked: &Asked, parts: &Parts) -> Result<(), Failure> {
    let web_socket = parts
        .headers
        .get(header::UPGRADE)
        .and_then(|v| v.to_str().ok())
        .is_some_and(|v| v.eq_ignore_ascii_case("websocket"));
    if parts.method != Method::GET || !web_socket {
        return Ok(());
    }
    let t = &asked.target;
    let attributes = Attributes {
        verb: "create",
        group: &t.group,
        version: &t.version,
        resource: &t.plural,
        subresource: &t.subresource,
        namespace: &t.namespace,
        name: &t.name,
        path: None,
        ..Attributes::default()
    };
    let decided = asked
        .api
        .authorizer
        .decide(&asked.api.store, &asked.user, &attributes)
        .await;
    match decided {
        Ok(_) => Ok(()),
        Err(no) => Err(refused(&asked.user, &attributes, &no.reason)),
    }
}

impl Asked {
    fn not_found(&self, name: &str) -> Failure {
        errors::not_found(&self.entry.resource, name)
    }
}
