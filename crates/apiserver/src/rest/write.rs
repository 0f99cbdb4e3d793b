//! Committing: from an object in the version of the request to the store, and what follows.

use std::sync::Arc;

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::{CommitError, Expect, Extension, Key, Op, Stored, Write};
use serde_json::Value;

use crate::{
    allocate,
    api::{Api, Cx},
    convert, crd, errors,
    object::{self, View},
    registry::Entry,
    rules,
};

/// Why a commit was not carried out.
pub enum Refused {
    /// The object is not (or no longer) as expected.
    Conflict(Option<Arc<Stored>>),
    Failed(Failure),
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Refused {
        Refused::Failed(failure)
    }
}

/// The stored form, without a revision.
async fn encode(cx: &Cx, object: &Value) -> Result<Bytes, Failure> {
    let entry = &cx.entry;
    if entry.native() {
        return object::encode_with(&entry.head, object, "", &cx.pieces);
    }
    let mut converted = convert::to_storage(&cx.api, entry, object.clone()).await?;
    // What the version of the store has a default for and that of the request does not: an
    // autoscaler without a target, asked for in v1.
    rules::default(&entry.storage, &mut converted, None);
    object::encode(&entry.head, &converted, "")
}

/// Creates or replaces an object.
pub async fn put(
    cx: &Cx,
    key: Key,
    object: &Value,
    expect: Expect,
) -> Result<Arc<Stored>, Refused> {
    let mut value = encode(cx, object).await?;
    if too_large(cx, &value)? {
        // As kube-apiserver does: who owns which field is given up before the object is refused.
        let mut bare = object.clone();
        object::remove_meta(&mut bare, "managedFields");
        value = encode(cx, &bare).await?;
        if too_large(cx, &value)? {
            return Err(errors::object_too_large(OBJECT_LIMIT).into());
        }
    }
    let stamp = Some(object::stamp(&cx.entry.head));
    if cx.entry.is("", "services") {
        return with_addresses(cx, key, expect, Op::Put { value, stamp }, Some(object)).await;
    }
    commit(cx, key, expect, Op::Put { value, stamp }, view(cx, object)).await
}

/// The size that etcd has for a request, where it is not told another.
const OBJECT_LIMIT: usize = 1536 * 1024;

/// Whether an object would be too large for Kubernetes. It stores built-in kinds as protobuf, which has no
/// escapes in texts, and others as JSON.
fn too_large(cx: &Cx, encoded: &Bytes) -> Result<bool, Failure> {
    if encoded.len() <= OBJECT_LIMIT {
        return Ok(false);
    }
    if cx.resource().custom.is_some() {
        return Ok(true);
    }
    let object: Value = serde_json::from_slice(encoded).map_err(errors::internal)?;
    Ok(plain_size(&object) > OBJECT_LIMIT)
}

/// About how many bytes an object has without JSON's escapes and punctuation.
fn plain_size(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 2,
        Value::Number(_) => 4,
        Value::String(text) => text.len() + 2,
        Value::Array(all) => all.iter().map(plain_size).sum(),
        Value::Object(all) => {
            let sizes = all.iter().map(|(key, it)| key.len() + plain_size(it));
            sizes.sum()
        }
    }
}

/// The view of an object about to be stored. It is parsed already: watchers with selectors need not do it
/// again. (An object in another version than it is stored in has its fields elsewhere.)
fn view(cx: &Cx, object: &Value) -> Extension {
    let ext = Extension::new();
    if cx.entry.native() {
        let _ = ext.set(Box::new(View::of(&cx.entry, object)));
    }
    ext
}

/// Removes an object, with the state that watchers see last.
pub async fn remove(
    cx: &Cx,
    key: Key,
    last: &Value,
    expect: Expect,
) -> Result<Arc<Stored>, Refused> {
    let last = encode(cx, last).await?;
    let stamp = Some(object::stamp(&cx.entry.head));
    let op = Op::Delete { last, stamp };
    if cx.entry.is("", "services") {
        return with_addresses(cx, key, expect, op, None).await;
    }
    commit(cx, key, expect, op, Extension::new()).await
}

/// Writes an object's last state and removes it, in one transaction.
pub async fn mark_and_remove(
    cx: &Cx,
    key: Key,
    last: &Value,
    revision: u64,
) -> Result<Arc<Stored>, Refused> {
    let value = encode(cx, last).await?;
    let stamp = Some(object::stamp(&cx.entry.head));
    let writes = vec![
        Write {
            key: key.clone(),
            expect: Expect::At(revision),
            op: Op::Put {
                value: value.clone(),
                stamp,
            },
        },
        Write {
            key,
            expect: Expect::Any,
            op: Op::Delete { last: value, stamp },
        },
    ];
    let committed = cx.store().commit_all_with(writes, view(cx, last)).await;
    let mut stored = committed.map_err(refusal)?;
    let last = stored
        .pop()
        .ok_or_else(|| errors::internal("a transaction without an outcome"))?;
    after(&cx.api, &cx.entry, &last, true);
    Ok(last)
}

fn refusal(e: CommitError) -> Refused {
    match e {
        CommitError::Conflict { current } => Refused::Conflict(current),
        e @ CommitError::Closed => {
            Refused::Failed(Failure::new(503, "ServiceUnavailable", e.to_string()))
        }
        // The words that clients know from etcd, with its code.
        e @ CommitError::Full(_) => {
            tracing::error!(error = %e, "committing a write");
            Refused::Failed(errors::plain_internal(
                "etcdserver: mvcc: database space exceeded: there is no room on the disk of the store; writes are taken again as soon as there is",
            ))
        }
        e => {
            tracing::error!(error = &e as &dyn std::error::Error, "committing a write");
            Refused::Failed(errors::internal(e))
        }
    }
}

async fn commit(
    cx: &Cx,
    key: Key,
    expect: Expect,
    op: Op,
    ext: Extension,
) -> Result<Arc<Stored>, Refused> {
    let deletes = matches!(op, Op::Delete { .. });
    let write = Write { key, expect, op };
    let stored = cx.store().commit_with(write, ext).await.map_err(refusal)?;
    after(&cx.api, &cx.entry, &stored, deletes);
    Ok(stored)
}

/// How often a Service is written again whose addresses' objects have changed meanwhile.
const ATTEMPTS: usize = 8;

/// Commits a Service together with the IPAddresses that tell of it.
async fn with_addresses(
    cx: &Cx,
    key: Key,
    expect: Expect,
    op: Op,
    now: Option<&Value>,
) -> Result<Arc<Stored>, Refused> {
    let mut left = ATTEMPTS;
    let mut committed = loop {
        let beside = allocate::beside(cx, &key, now)?;
        let ext = now.map(|object| view(cx, object)).unwrap_or_default();
        let mut writes = vec![Write {
            key: key.clone(),
            expect,
            op: op.clone(),
        }];
        writes.extend(beside);
        left -= 1;
        match cx.store().commit_all_with(writes, ext).await {
            Ok(committed) => break committed.into_iter(),
            Err(CommitError::Conflict { .. }) if left > 0 && holds(cx, &key, expect) => {}
            Err(error) => return Err(refusal(error)),
        }
    };
    let stored = committed
        .next()
        .ok_or_else(|| errors::internal("a transaction without an outcome"))?;
    for address in committed {
        let name = &address.key.name;
        cx.api.services.noticed(&cx.api.store, name);
    }
    after(&cx.api, &cx.entry, &stored, now.is_none());
    Ok(stored)
}

/// Whether an object is as a write expects it.
fn holds(cx: &Cx, key: &Key, expect: Expect) -> bool {
    let stored = cx.store().get(key);
    match expect {
        Expect::Any => stored.is_some(),
        Expect::Absent => stored.is_none(),
        Expect::At(revision) => stored.is_some_and(|s| s.revision == revision),
    }
}

/// What the server itself keeps in step with its objects.
fn after(api: &Arc<Api>, entry: &Entry, stored: &Stored, deleted: bool) {
    match (entry.storage.group.as_str(), entry.storage.plural.as_str()) {
        (crate::authz::GROUP, _) => api.authorizer.changed(),
        (crate::flow::GROUP, _) => api.flow.reload(&api.store),
        ("apiextensions.k8s.io", "customresourcedefinitions") => crd::reload(api),
        (crate::admission::GROUP, _) => api.hooks.changed(),
        (crate::aggregate::GROUP, _) => api.aggregator.took(&api.store, &stored.key.name),
        ("networking.k8s.io", "servicecidrs") => api.services.read_ranges(&api.store),
        ("networking.k8s.io", "ipaddresses") => {
            api.services.noticed(&api.store, &stored.key.name);
        }
        ("", "services" | "endpoints") | ("discovery.k8s.io", "endpointslices") => {
            if deleted && entry.storage.plural == "services" {
                api.services.release(&stored.value);
            }
            let (namespace, _) = stored.key.name.split_once('/').unwrap_or_default();
            api.aggregator.touched(namespace);
        }
        _ => {}
    }
}

/// The answer's bytes: those stored, in the version of the request.
pub async fn answer(cx: &Cx, stored: &Stored) -> Result<Bytes, Failure> {
    super::get::bytes(&cx.api, &cx.entry, stored).await
}

/// The answer of a dry run: what would have been stored.
pub fn dry_answer(cx: &Cx, object: &Value) -> Result<Bytes, Failure> {
    let resource = cx.resource();
    let version = object::meta_text(object, "resourceVersion").to_owned();
    let whole = object::encode_with(&object::head(resource), object, &version, &cx.pieces)?;
    if !version.is_empty() {
        return Ok(whole);
    }
    let mut value = object::parse(&whole)?;
    object::remove_meta(&mut value, "resourceVersion");
    Ok(value.to_string().into())
}
