//! Reading one object.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::{Store, Stored};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    api::{Api, Cx},
    convert, errors, object,
    registry::Entry,
    respond::{self, Reply},
};

pub async fn get(cx: &mut Cx) -> Result<Reply, Failure> {
    let wanted = parse_version(cx.query.text("resourceVersion"))?;
    reached(cx.store(), wanted).await?;
    let stored = cx
        .store()
        .get(&cx.key(&cx.target.name))
        .ok_or_else(|| cx.not_found())?;
    let whole = bytes(&cx.api, &cx.entry, &stored).await?;
    respond::object_reply(cx, 200, whole)
}

/// How long a read waits for a resourceVersion that is not reached yet.
const WAIT: Duration = Duration::from_secs(3);

/// A read of the newest state satisfies any version that is reached; one that is not may be soon.
pub async fn reached(store: &Store, wanted: u64) -> Result<(), Failure> {
    let deadline = Instant::now() + WAIT;
    while store.revision() < wanted {
        if Instant::now() >= deadline {
            return Err(errors::version_too_large(wanted, store.revision()));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// A resourceVersion of a query; empty is 0.
pub fn parse_version(text: &str) -> Result<u64, Failure> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        errors::plain_internal(format!(
            "resourceVersion: Invalid value: {text:?}: strconv.ParseUint: parsing {text:?}: invalid syntax"
        ))
    })
}

/// Whether stored bytes are what a request is answered: in its version, with all defaults.
pub fn as_stored(entry: &Entry, stored: &Stored) -> bool {
    if entry.resource.custom.is_none() {
        return entry.native();
    }
    // A definition may have changed the version it stores after this object was written.
    stored.value.starts_with(entry.served_head.as_bytes())
        && stored.revision >= entry.defaulted_since
}

/// A stored object as JSON in the version of the request: the stored bytes, where that is the
/// version they are in.
pub async fn bytes(api: &Api, entry: &Entry, stored: &Stored) -> Result<Bytes, Failure> {
    if as_stored(entry, stored) {
        return Ok(stored.value.clone());
    }
    let object = object::parse(&stored.value)?;
    let converted = convert::from_storage(api, entry, vec![object]).await?;
    let object = converted.into_iter().next().unwrap_or_default();
    encode(entry, &object)
}

/// The same of many, converted together.
pub async fn all(api: &Api, entry: &Entry, stored: &[Arc<Stored>]) -> Result<Vec<Bytes>, Failure> {
    let mut whole: Vec<Bytes> = stored.iter().map(|s| s.value.clone()).collect();
    let (mut places, mut objects) = (vec![], vec![]);
    for (i, stored) in stored.iter().enumerate() {
        if !as_stored(entry, stored) {
            places.push(i);
            objects.push(object::parse(&stored.value)?);
        }
    }
    if !objects.is_empty() {
        let converted = convert::from_storage(api, entry, objects).await?;
        for (place, object) in places.into_iter().zip(converted) {
            whole[place] = encode(entry, &object)?;
        }
    }
    Ok(whole)
}

fn encode(entry: &Entry, object: &Value) -> Result<Bytes, Failure> {
    let version = object::meta_text(object, "resourceVersion").to_owned();
    object::encode(&entry.served_head, object, &version)
}
