//! Certificate signing requests.

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{at, int, list, text},
};
use crate::path::Path;

pub fn signing_request(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    if text(spec, "request").is_empty() {
        e.required(&path.child("request"), "");
    }
    if list(spec, "usages").is_empty() {
        e.required(&path.child("usages"), "usages must be provided");
    }
    let signer = text(spec, "signerName");
    let here = path.child("signerName");
    match signer.split_once('/') {
        _ if signer.is_empty() => e.required(&here, ""),
        None => e.invalid_text(
            &here,
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        ),
        Some((domain, _)) => e.invalid_each(&here, domain, names::fully_qualified(domain)),
    }
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < 600) {
        e.invalid_int(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}
