//! Reading one object.

use std::time::Duration;

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::{Store, Stored};
use tokio::time::Instant;

use crate::{
    api::Cx,
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
    let whole = bytes(&cx.entry, &stored)?;
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

/// A stored object as JSON in the version of the request: the stored bytes, where that is the
/// version they are in.
pub fn bytes(entry: &Entry, stored: &Stored) -> Result<Bytes, Failure> {
    if entry.native() {
        return Ok(stored.value.clone());
    }
    let value = convert::from_storage(entry, object::parse(&stored.value)?);
    let version = object::meta_text(&value, "resourceVersion").to_owned();
    object::encode(&object::head(&entry.resource), &value, &version)
}
