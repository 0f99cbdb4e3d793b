//! Conditions of the common form (`metav1.Condition`), as statuses hold them.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{int, list, text},
};
use crate::path::Path;

const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
const MOST_REASON: usize = 1024;
const MOST_MESSAGE: usize = 32 * 1024;
const REASON: &str = "a condition reason must start with alphabetic character, optionally followed by a string of alphanumeric characters or '_,:', and must end with an alphanumeric character or '_' (e.g. 'my_name',  or 'MY_NAME',  or 'MyName',  or 'ReasonA,ReasonB',  or 'ReasonA:ReasonB', regex used for validation is '[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?')";

/// `conditions` of a status, at `path`.
pub fn conditions(status: &Value, path: &Path<'_>, e: &mut Errors) {
    let all = list(status, "conditions");
    for (i, condition) in all.iter().enumerate() {
        let here = path.index(i);
        let kind = text(condition, "type");
        if all[..i].iter().any(|c| text(c, "type") == kind) {
            e.duplicate_text(&here.child("type"), kind);
        }
        one(condition, &here, e);
    }
}

fn one(condition: &Value, path: &Path<'_>, e: &mut Errors) {
    let kind = text(condition, "type");
    e.invalid_each(&path.child("type"), kind, names::qualified_name(kind));
    let status = text(condition, "status");
    if !STATUSES.contains(&status) {
        e.not_supported(&path.child("status"), status, &STATUSES);
    }
    if let Some(generation) = int(condition, "observedGeneration").filter(|g| *g < 0) {
        let here = path.child("observedGeneration");
        e.invalid_int(&here, generation, "must be greater than or equal to zero");
    }
    if text(condition, "lastTransitionTime").is_empty() {
        e.required(&path.child("lastTransitionTime"), "must be set");
    }
    let reason = text(condition, "reason");
    let here = path.child("reason");
    if reason.is_empty() {
        e.required(&here, "must be set");
    } else {
        if !is_reason(reason) {
            e.invalid_text(&here, reason, REASON);
        }
        if reason.len() > MOST_REASON {
            e.too_long(&here, MOST_REASON);
        }
    }
    if text(condition, "message").len() > MOST_MESSAGE {
        e.too_long(&path.child("message"), MOST_MESSAGE);
    }
}

fn is_reason(reason: &str) -> bool {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = reason.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphabetic)
        && bytes.last().is_some_and(|b| plain(*b))
        && bytes.iter().all(|b| plain(*b) || matches!(b, b',' | b':'))
}
