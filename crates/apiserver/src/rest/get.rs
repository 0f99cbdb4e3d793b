//! Reading one object.

use bytes::Bytes;
use gantry_machinery::status::Failure;
use gantry_store::Stored;

use crate::{
    api::Cx,
    convert, errors, object,
    registry::Entry,
    respond::{self, Reply},
};

pub fn get(cx: &mut Cx) -> Result<Reply, Failure> {
    version(cx)?;
    let stored = cx
        .store()
        .get(&cx.key(&cx.target.name))
        .ok_or_else(|| cx.not_found())?;
    let whole = bytes(&cx.entry, &stored)?;
    respond::object_reply(cx, 200, whole)
}

/// Reads `resourceVersion`; a read of the newest state satisfies any that is reached.
fn version(cx: &Cx) -> Result<(), Failure> {
    let wanted = parse_version(cx.query.text("resourceVersion"))?;
    let current = cx.store().revision();
    if wanted > current {
        return Err(errors::version_too_large(wanted, current));
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
