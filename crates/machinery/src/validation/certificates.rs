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
        e.required(&path.child("usages"), "");
    }
    let signer = text(spec, "signerName");
    signer_name(signer, &path.child("signerName"), e);
    if let Some(seconds) = int(spec, "expirationSeconds").filter(|s| *s < 600) {
        e.invalid_int(
            &path.child("expirationSeconds"),
            seconds,
            "may not specify a duration less than 600 seconds (10 minutes)",
        );
    }
}

/// `example.com/path`: whose certificates are meant.
pub fn signer_name(signer: &str, path: &Path<'_>, e: &mut Errors) {
    if signer.is_empty() {
        e.required(path, "");
        return;
    }
    let parts: Vec<&str> = signer.split('/').collect();
    let [domain, rest] = parts[..] else {
        e.invalid_text(
            path,
            signer,
            "must be a fully qualified domain and path of the form 'example.com/signer-name'",
        );
        return;
    };
    e.invalid_each(path, domain, names::dns1123_subdomain(domain));
    if domain.split('.').count() < 2 {
        let detail = "should be a domain with at least two segments separated by dots";
        e.invalid_text(path, domain, detail);
    }
    for part in rest.split('.') {
        let lower = part.to_lowercase();
        e.invalid_each(path, part, names::dns1123_label(&lower));
    }
    if signer.len() > 571 {
        e.too_long(path, 571);
    }
}
