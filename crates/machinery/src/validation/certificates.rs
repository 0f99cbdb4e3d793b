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
    const USAGES: [&str; 23] = [
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    ];
    let usages = list(spec, "usages");
    for (i, usage) in usages.iter().enumerate() {
        let here = path.child("usages");
        let here = here.index(i);
        let name = usage.as_str().unwrap_or("");
        if !USAGES.contains(&name) {
            e.not_supported(&here, name, &USAGES);
        }
        if usages[..i].contains(usage) {
            e.duplicate(&here, usage);
        }
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

/// What is asked for does not change, nor does a certificate once there; a request is approved or
/// denied for good, and not both.
pub fn signing_request_update(new: &Value, old: &Value, subresource: &str, e: &mut Errors) {
    let status = Path::new("status");
    let (now, before) = (at(new, "status"), at(old, "status"));
    let spec = Path::new("spec");
    if at(new, "spec") != at(old, "spec") {
        e.invalid(&spec, at(new, "spec"), "field is immutable");
    }
    let certificate = text(before, "certificate");
    if !certificate.is_empty() && text(now, "certificate") != certificate {
        e.forbidden(
            &status.child("certificate"),
            "updates may not set certificate content",
        );
    }
    let path = status.child("conditions");
    for kind in ["Approved", "Denied", "Failed"] {
        let of = |status| -> Vec<&Value> {
            let all = list(status, "conditions").iter();
            all.filter(|c| text(c, "type") == kind).collect()
        };
        let (now, before) = (of(now), of(before));
        if !before.is_empty() && now.is_empty() {
            let detail = format!("updates may not remove a condition of type {kind:?}");
            e.forbidden(&path, &detail);
        }
        let approval = kind != "Failed";
        if now.len() > before.len() && approval && subresource != "approval" {
            let detail = format!("updates may not add a condition of type {kind:?}");
            e.forbidden(&path, &detail);
        }
    }
    conditions(new, &path, e);
}

fn conditions(object: &Value, path: &Path<'_>, e: &mut Errors) {
    let all = list(at(object, "status"), "conditions");
    let mut seen: Vec<&str> = Vec::new();
    for (i, condition) in all.iter().enumerate() {
        let path = path.index(i);
        let (kind, status) = (text(condition, "type"), text(condition, "status"));
        if kind.is_empty() {
            e.required(&path.child("type"), "");
        }
        let here = path.child("status");
        let decided = matches!(kind, "Approved" | "Denied" | "Failed");
        match status {
            "" => e.required(&here, ""),
            "True" => {}
            "False" | "Unknown" if !decided => {}
            _ if decided => e.not_supported(&here, status, &["True"]),
            _ => e.not_supported(&here, status, &["False", "True", "Unknown"]),
        }
        let other = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            _ => "",
        };
        if !other.is_empty() && seen.contains(&other) {
            let here = path.child("type");
            e.invalid_text(
                &here,
                kind,
                "Approved and Denied conditions are mutually exclusive",
            );
        }
        if seen.contains(&kind) {
            e.duplicate_text(&path.child("type"), kind);
        }
        seen.push(kind);
    }
}
