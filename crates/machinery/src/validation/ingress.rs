//! Ingresses and their classes.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    errors::Errors,
    names, service,
    value::{at, has, int, list, text},
};
use crate::path::Path;

const CLASS: &str = "kubernetes.io/ingress.class";

/// An ingress. What is wrong with `old` already may stay wrong in two places.
pub fn ingress(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let before = old.map(|o| at(o, "spec"));
    if list(spec, "rules").is_empty() && !has(spec, "defaultBackend") {
        e.invalid_shown(
            &path,
            "null",
            "either `defaultBackend` or `rules` must be specified",
        );
    }
    if has(spec, "defaultBackend") {
        backend(at(spec, "defaultBackend"), &path.child("defaultBackend"), e);
    }
    let rules = path.child("rules");
    for (i, rule) in list(spec, "rules").iter().enumerate() {
        let path = rules.index(i);
        let name = text(rule, "host");
        host(name, &path.child("host"), e);
        if !name.contains('*') || !before.is_some_and(wrong_wildcards) {
            rule_value(rule, &path, e);
        }
    }
    let tls = path.child("tls");
    for (i, entry) in list(spec, "tls").iter().enumerate() {
        let path = tls.index(i);
        let hosts = path.child("hosts");
        for (i, name) in list(entry, "hosts").iter().enumerate() {
            let name = name.as_str().unwrap_or("");
            let faults = if name.contains('*') {
                names::wildcard_subdomain(name)
            } else {
                names::dns1123_subdomain(name)
            };
            e.invalid_each(&hosts.index(i), name, faults);
        }
        let secret = text(entry, "secretName");
        if !before.is_some_and(wrong_secrets) {
            e.invalid_each(&path.child("secretName"), secret, secret_name(secret));
        }
    }
    if let Some(class) = at(spec, "ingressClassName").as_str() {
        e.invalid_each(
            &path.child("ingressClassName"),
            class,
            names::dns1123_subdomain(class),
        );
        let annotations = at(at(object, "metadata"), "annotations");
        let annotated = at(annotations, CLASS).as_str();
        if let Some(other) = annotated.filter(|a| old.is_none() && *a != class) {
            // Kubernetes leaves `metadata` out of the path.
            let path = Path::new("annotations");
            let detail = "must match `ingressClassName` when both are specified";
            e.invalid_text(&path.child(CLASS), other, detail);
        }
    }
}

fn secret_name(name: &str) -> Vec<String> {
    if name.is_empty() {
        return vec![];
    }
    names::dns1123_subdomain(name)
}

fn wrong_secrets(spec: &Value) -> bool {
    let mut all = list(spec, "tls").iter();
    all.any(|tls| !secret_name(text(tls, "secretName")).is_empty())
}

fn wrong_wildcards(spec: &Value) -> bool {
    list(spec, "rules").iter().any(|rule| {
        let mut faults = Errors::default();
        rule_value(rule, &Path::ROOT, &mut faults);
        text(rule, "host").contains('*') && !faults.is_empty()
    })
}

fn rule_value(rule: &Value, path: &Path<'_>, e: &mut Errors) {
    let http = path.child("http");
    let paths = http.child("paths");
    if has(rule, "http") && list(at(rule, "http"), "paths").is_empty() {
        e.required(&paths, "");
    }
    for (i, entry) in list(at(rule, "http"), "paths").iter().enumerate() {
        ingress_path(entry, &paths.index(i), e);
    }
}

/// Where an ingress is reached.
pub fn ingress_status(new: &Value, e: &mut Errors) {
    let status = Path::new("status");
    let balancer = status.child("loadBalancer");
    let path = balancer.child("ingress");
    let points = list(at(at(new, "status"), "loadBalancer"), "ingress");
    for (i, point) in points.iter().enumerate() {
        let here = path.index(i);
        let ip = text(point, "ip");
        if !ip.is_empty() {
            e.invalid_each(&here.child("ip"), ip, names::ip(ip));
        }
        service::balancer_host(text(point, "hostname"), &here.child("hostname"), e);
    }
}

fn host(host: &str, path: &Path<'_>, e: &mut Errors) {
    if host.is_empty() {
        return;
    }
    if host.parse::<IpAddr>().is_ok() {
        e.invalid_text(path, host, "must be a DNS name, not an IP address");
    }
    let faults = if host.contains('*') {
        names::wildcard_subdomain(host)
    } else {
        names::dns1123_subdomain(host)
    };
    e.invalid_each(path, host, faults);
}

fn ingress_path(entry: &Value, path: &Path<'_>, e: &mut Errors) {
    let kind = at(entry, "pathType").as_str();
    let file = text(entry, "path");
    let here = path.child("path");
    match kind {
        None => {
            e.required(&path.child("pathType"), "pathType must be specified");
            return;
        }
        Some("Exact" | "Prefix") => {
            if !file.starts_with('/') {
                e.invalid_text(&here, file, "must be an absolute path");
            }
            for part in ["//", "/./", "/../", "%2f", "%2F"] {
                if file.contains(part) {
                    e.invalid_text(&here, file, &format!("must not contain '{part}'"));
                }
            }
            for end in ["/..", "/."] {
                if file.ends_with(end) {
                    e.invalid_text(&here, file, &format!("cannot end with '{end}'"));
                }
            }
        }
        Some("ImplementationSpecific") => {
            if !file.is_empty() && !file.starts_with('/') {
                e.invalid_text(&here, file, "must be an absolute path");
            }
        }
        Some(other) => e.not_supported(
            &path.child("pathType"),
            other,
            &["Exact", "ImplementationSpecific", "Prefix"],
        ),
    }
    backend(at(entry, "backend"), &path.child("backend"), e);
}

fn backend(backend: &Value, path: &Path<'_>, e: &mut Errors) {
    let (service, resource) = (has(backend, "service"), has(backend, "resource"));
    if resource && service {
        e.invalid_text(path, "", "cannot set both resource and service backends");
    } else if resource {
        object_reference(at(backend, "resource"), &path.child("resource"), e);
    } else if service {
        let target = at(backend, "service");
        let path = path.child("service");
        let name = text(target, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        let port = at(target, "port");
        let (name, number) = (text(port, "name"), int(port, "number").unwrap_or(0));
        let here = path.child("port");
        if !name.is_empty() && number != 0 {
            e.invalid_text(&path, "", "cannot set both port name & port number");
        } else if !name.is_empty() {
            e.invalid_each(&here.child("name"), name, names::port_name(name));
        } else if number != 0 {
            for fault in names::port(number) {
                e.invalid_int(&here.child("number"), number, &fault);
            }
        } else {
            e.required(&path, "port name or number is required");
        }
    } else {
        e.invalid_text(path, "", "resource or service backend is required");
    }
}

/// An object of some kind, by its group, kind and name.
fn object_reference(reference: &Value, path: &Path<'_>, e: &mut Errors) {
    if let Some(group) = at(reference, "apiGroup").as_str() {
        let faults = names::dns1123_subdomain(group);
        e.invalid_each(&path.child("apiGroup"), group, faults);
    }
    for field in ["kind", "name"] {
        let value = text(reference, field);
        if value.is_empty() {
            e.required(&path.child(field), "");
        } else {
            e.invalid_each(&path.child(field), value, names::path_segment(value));
        }
    }
}

pub fn ingress_class(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let controller = text(spec, "controller");
    let here = path.child("controller");
    if controller.len() > 250 {
        e.too_long(&here, 250);
    }
    if controller.is_empty() {
        e.required(&here, "");
    } else {
        e.invalid_each(&here, controller, names::qualified_path(controller));
    }
    if has(spec, "parameters") {
        let parameters = at(spec, "parameters");
        let path = path.child("parameters");
        object_reference(parameters, &path, e);
        let scope = text(parameters, "scope");
        match scope {
            _ if !has(parameters, "scope") => e.required(&path.child("scope"), ""),
            "Cluster" => {
                if has(parameters, "namespace") {
                    e.forbidden(
                        &path.child("namespace"),
                        "`parameters.scope` is set to 'Cluster'",
                    );
                }
            }
            "Namespace" => {
                let here = path.child("namespace");
                match at(parameters, "namespace").as_str() {
                    None => e.required(&here, "`parameters.scope` is set to 'Namespace'"),
                    Some(name) => e.invalid_each(&here, name, names::dns1123_label(name)),
                }
            }
            _ => e.not_supported(&path.child("scope"), scope, &["Cluster", "Namespace"]),
        }
    }
}
