//! Claims for devices, templates of claims, and classes.

use serde_json::Value;

use super::{MOST, fully_qualified, items, label, opaque, selectors, tolerations, unique};
use crate::{
    path::Path,
    validation::{
        errors::Errors,
        metadata, names, resources,
        value::{at, has, int, list, same, text},
    },
};

const ONE_KIND: &str = "exactly one of `exactly` or `firstAvailable` is required";

/// A claim about to be created; its spec never changes after.
pub fn claim(object: &Value, e: &mut Errors) {
    devices(at(object, "spec"), &Path::new("spec"), e);
}

pub fn template(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let (inner, here) = (at(spec, "metadata"), path.child("metadata"));
    metadata::annotations(inner, &here.child("annotations"), e);
    metadata::labels(inner, "labels", &here.child("labels"), e);
    devices(at(spec, "spec"), &path.child("spec"), e);
}

/// A class; selectors and configurations that stay as they were are good.
pub fn class(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let kept = |field: &str| old.is_some_and(|o| same(at(at(o, "spec"), field), at(spec, field)));
    selectors(spec, kept("selectors"), &path, e);
    let here = path.child("config");
    for (i, config) in items(spec, "config", MOST, &path, e).iter().enumerate() {
        opaque(config, kept("config"), &here.index(i), e);
    }
    if let Some(name) = at(spec, "extendedResourceName").as_str()
        && !resources::is_extended(name)
    {
        let here = path.child("extendedResourceName");
        e.invalid_text(&here, name, "must be a valid extended resource name");
    }
}

/// `devices` of a claim's spec.
fn devices(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    let claim = at(spec, "devices");
    let path = path.child("devices");
    let here = path.child("requests");
    let requests = items(claim, "requests", MOST, &path, e);
    for (i, one) in requests.iter().enumerate() {
        request(one, &here.index(i), e);
    }
    unique(requests.iter().map(|r| text(r, "name")), &here, e);
    let here = path.child("constraints");
    for (i, one) in items(claim, "constraints", MOST, &path, e)
        .iter()
        .enumerate()
    {
        constraint(one, claim, &here.index(i), e);
    }
    let here = path.child("config");
    for (i, config) in items(claim, "config", MOST, &path, e).iter().enumerate() {
        let here = here.index(i);
        references(config, claim, &here, e);
        opaque(config, false, &here, e);
    }
}

fn request(request: &Value, path: &Path<'_>, e: &mut Errors) {
    label(request, "name", path, e);
    let alternatives = !list(request, "firstAvailable").is_empty();
    match (has(request, "exactly"), alternatives) {
        (false, false) => e.required(path, ONE_KIND),
        (true, true) => {
            let detail = format!("{ONE_KIND}, but multiple fields are set");
            e.invalid_shown(path, "null", &detail);
        }
        (true, false) => exact(at(request, "exactly"), &path.child("exactly"), e),
        (false, true) => {
            let here = path.child("firstAvailable");
            let all = items(request, "firstAvailable", 8, path, e);
            for (i, one) in all.iter().enumerate() {
                let here = here.index(i);
                label(one, "name", &here, e);
                exact(one, &here, e);
            }
            unique(all.iter().map(|r| text(r, "name")), &here, e);
        }
    }
}

/// What is asked for exactly, or as one alternative.
fn exact(request: &Value, path: &Path<'_>, e: &mut Errors) {
    let class = text(request, "deviceClassName");
    let here = path.child("deviceClassName");
    if class.is_empty() {
        e.required(&here, "");
    } else {
        e.invalid_each(&here, class, names::dns1123_subdomain(class));
    }
    selectors(request, false, path, e);
    let count = int(request, "count").unwrap_or(0);
    let here = path.child("count");
    match text(request, "allocationMode") {
        "All" if count != 0 => {
            let detail = "must not be specified when allocationMode is 'All'";
            e.invalid_int(&here, count, detail);
        }
        "All" => {}
        "ExactCount" if count <= 0 => e.invalid_int(&here, count, "must be greater than zero"),
        "ExactCount" => {}
        mode => e.not_supported(&path.child("allocationMode"), mode, &["All", "ExactCount"]),
    }
    tolerations(request, path, e);
}

fn constraint(constraint: &Value, claim: &Value, path: &Path<'_>, e: &mut Errors) {
    references(constraint, claim, path, e);
    for field in ["matchAttribute", "distinctAttribute"] {
        if let Some(name) = at(constraint, field).as_str() {
            fully_qualified(name, &path.child(field), e);
            return;
        }
    }
    e.required(
        path,
        "exactly one of \"matchAttribute\" or \"distinctAttribute\" is required, but multiple fields are set",
    );
}

/// `requests`: names of requests of the claim.
pub fn references(of: &Value, claim: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("requests");
    let names = items(of, "requests", MOST, path, e);
    for (i, name) in names.iter().enumerate() {
        reference(name.as_str().unwrap_or(""), claim, &here.index(i), e);
    }
    unique(names.iter().map(|n| n.as_str().unwrap_or("")), &here, e);
}

/// `request` or `request/alternative`.
pub fn reference(name: &str, claim: &Value, path: &Path<'_>, e: &mut Errors) {
    const FORM: &str = "must be the name of a request in the claim or the name of a request and a subrequest separated by '/'";
    let parts: Vec<&str> = name.split('/').collect();
    if parts.len() > 2 {
        e.invalid_text(path, name, FORM);
        return;
    }
    for part in &parts {
        e.invalid_each(path, part, names::dns1123_label(part));
    }
    let named = |all: &'_ [Value], name: &str| all.iter().any(|r| text(r, "name") == name);
    let requests = list(claim, "requests");
    let known = match parts[..] {
        [request, alternative] => requests
            .iter()
            .filter(|r| text(r, "name") == request)
            .any(|r| named(list(r, "firstAvailable"), alternative)),
        _ => named(requests, name),
    };
    if !known {
        e.invalid_text(path, name, FORM);
    }
}
