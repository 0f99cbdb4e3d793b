//! The verbs on resources.

pub mod create;
pub mod delete;
pub mod evict;
pub mod frames;
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
        // On the heap, as below: every request would carry room for this.
        if verb == "deletecollection" {
            Box::pin(crd::resume(&cx.api)).await;
        } else {
            Box::pin(crd::settle(&cx.api, &cx.target.name)).await;
        }
    }
    if cx.entry.storage.group == crate::flow::GROUP
        && !matches!(verb, "get" | "list" | "watch")
        && !cx.dry_run()
    {
        Box::pin(crate::flow::settle(&cx.api)).await;
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
    // Each on the heap: a request is to take what its verb needs, and not what the largest does.
    match (verb, sub.as_str()) {
        ("get", "") => Box::pin(get::get(cx)).await,
        ("list", "") => Box::pin(list::list(cx)).await,
        ("watch", "") => Box::pin(watch::watch(cx)).await,
        ("create", "") => create_or_review(cx, body).await,
        ("update", "" | "status" | "finalize" | "ephemeralcontainers" | "resize" | "approval") => {
            Box::pin(update::update(cx, body)).await
        }
        ("patch", "" | "status" | "ephemeralcontainers" | "resize" | "approval") => {
            Box::pin(patch::patch(cx, body)).await
        }
        ("delete", "") => Box::pin(delete::delete(cx, body)).await,
        ("deletecollection", "") => Box::pin(delete::collection(cx, body)).await,
        ("get", "status" | "ephemeralcontainers" | "resize" | "approval") => {
            Box::pin(get::get(cx)).await
        }
        ("get", "scale") => Box::pin(scale::get(cx)).await,
        ("update", "scale") => Box::pin(scale::update(cx, body)).await,
        ("patch", "scale") => Box::pin(scale::patch(cx, body)).await,
        ("create", "binding") => Box::pin(pods::bind(cx, body)).await,
        ("create", "eviction") => Box::pin(evict::evict(cx, body)).await,
        ("create", "token") => Box::pin(token::create(cx, body)).await,
        _ => Err(errors::method_not_allowed()),
    }
}

async fn create_or_review(cx: &mut Cx, body: Bytes) -> Result<Reply, Failure> {
    let resource = cx.resource().clone();
    match (resource.group.as_str(), resource.plural.as_str()) {
        ("authentication.k8s.io" | "authorization.k8s.io", _) => {
            Box::pin(reviews::create(cx, body)).await
        }
        ("", "bindings") => Box::pin(pods::bind(cx, body)).await,
        _ => Box::pin(create::create(cx, body)).await,
    }
}
