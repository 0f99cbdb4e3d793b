//! The verbs on resources.

pub mod create;
pub mod delete;
pub mod evict;
pub mod get;
pub mod input;
pub mod list;
pub mod patch;
pub mod pods;
pub mod reviews;
pub mod scale;
pub mod token;
pub mod update;
pub mod watch;
pub mod write;

use bytes::Bytes;
use gantry_machinery::status::Failure;

use crate::{
    admission::{self, policies},
    api::Cx,
    crd, errors,
    respond::Reply,
};

/// Carries out a request that is understood and allowed. Writes go on when the client goes away:
/// what follows a commit must not be left undone.
pub async fn dispatch(cx: &mut Cx, verb: &'static str, body: Bytes) -> Result<Reply, Failure> {
    let reply = verbs(cx, verb, body).await?;
    if cx.entry.is(crd::GROUP, "customresourcedefinitions")
        && !matches!(verb, "get" | "list" | "watch")
        && !cx.dry_run()
    {
        if verb == "deletecollection" {
            crd::resume(&cx.api).await;
        } else {
            crd::settle(&cx.api, &cx.target.name).await;
        }
    }
    if cx.entry.storage.group == crate::flow::GROUP
        && !matches!(verb, "get" | "list" | "watch")
        && !cx.dry_run()
    {
        crate::flow::settle(&cx.api).await;
    }
    let policies = policies::status::PLURAL;
    if cx.entry.is(admission::GROUP, policies)
        && matches!(verb, "create" | "update" | "patch")
        && cx.target.subresource.is_empty()
        && !cx.dry_run()
    {
        policies::status::settle(&cx.api, &cx.target.name);
    }
    Ok(reply)
}

async fn verbs(cx: &mut Cx, verb: &'static str, body: Bytes) -> Result<Reply, Failure> {
    let sub = cx.target.subresource.clone();
    match (verb, sub.as_str()) {
        ("get", "") => get::get(cx).await,
        ("list", "") => list::list(cx).await,
        ("watch", "") => watch::watch(cx).await,
        ("create", "") => create_or_review(cx, body).await,
        ("update", "" | "status" | "finalize" | "ephemeralcontainers" | "resize" | "approval") => {
            update::update(cx, body).await
        }
        ("patch", "" | "status" | "ephemeralcontainers" | "resize" | "approval") => {
            patch::patch(cx, body).await
        }
        ("delete", "") => delete::delete(cx, body).await,
        ("deletecollection", "") => delete::collection(cx, body).await,
        ("get", "status" | "ephemeralcontainers" | "resize" | "approval") => get::get(cx).await,
        ("get", "scale") => scale::get(cx).await,
        ("update", "scale") => scale::update(cx, body).await,
        ("patch", "scale") => scale::patch(cx, body).await,
        ("create", "binding") => pods::bind(cx, body).await,
        ("create", "eviction") => evict::evict(cx, body).await,
        ("create", "token") => token::create(cx, body).await,
        _ => Err(errors::method_not_allowed()),
    }
}

async fn create_or_review(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let resource = cx.resource().clone();
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("authentication.k8s.io" | "authorization.k8s.io", _) => reviews::create(cx, body).await,
        ("", "bindings") => pods::bind(cx, body).await,
        _ => create::create(cx, body).await,
    }
}
