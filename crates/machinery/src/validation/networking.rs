//! Ingresses, network policies, endpoint slices.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    errors::Errors,
    handlers::port_or_name,
    names, selectors, service,
    value::{at, entries, has, int, list, text},
};
use crate::path::Path;

pub fn ingress(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
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
        host(text(rule, "host"), &path.child("host"), e);
        let http = path.child("http");
        let paths = http.child("paths");
        if has(rule, "http") && list(at(rule, "http"), "paths").is_empty() {
            e.required(&paths, "");
        }
        for (i, entry) in list(at(rule, "http"), "paths").iter().enumerate() {
            ingress_path(entry, &paths.index(i), e);
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
    }
    if let Some(class) = at(spec, "ingressClassName").as_str() {
        e.invalid_each(
            &path.child("ingressClassName"),
            class,
            names::dns1123_subdomain(class),
        );
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
        None => e.required(&path.child("pathType"), "pathType must be specified"),
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
        let reference = at(backend, "resource");
        let path = path.child("resource");
        for field in ["kind", "name"] {
            if text(reference, field).is_empty() {
                e.required(&path.child(field), "");
            }
        }
    } else if service {
        let target = at(backend, "service");
        let path = path.child("service");
        let name = text(target, "name");
        if name.is_empty() {
            e.required(&path.child("name"), "");
        } else {
            e.invalid_each(&path.child("name"), name, names::dns1035_label(name));
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

pub fn ingress_class(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let controller = text(spec, "controller");
    let here = path.child("controller");
    if controller.len() > 250 {
        e.too_long(&here, 250);
    }
    let good = controller.split_once('/').is_some_and(|(domain, rest)| {
        !rest.is_empty() && names::dns1123_subdomain(domain).is_empty()
    });
    if controller.is_empty() {
        e.required(&here, "");
    } else if !good {
        e.invalid_text(
            &here,
            controller,
            "must be a domain-prefixed path (such as \"acme.io/foo\")",
        );
    }
    if has(spec, "parameters") {
        let parameters = at(spec, "parameters");
        let path = path.child("parameters");
        for field in ["kind", "name"] {
            if text(parameters, field).is_empty() {
                e.required(&path.child(field), "");
            }
        }
        let scope = text(parameters, "scope");
        match scope {
            "Cluster" => {
                if has(parameters, "namespace") {
                    e.forbidden(
                        &path.child("namespace"),
                        "`parameters.scope` is set to 'Cluster'",
                    );
                }
            }
            "Namespace" => {
                if text(parameters, "namespace").is_empty() {
                    e.required(
                        &path.child("namespace"),
                        "`parameters.scope` is set to 'Namespace'",
                    );
                }
            }
            _ => e.not_supported(&path.child("scope"), scope, &["Cluster", "Namespace"]),
        }
    }
}

pub fn network_policy(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    selectors::label_selector(at(spec, "podSelector"), &path.child("podSelector"), e);
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let here = path.child(direction);
        for (i, rule) in list(spec, direction).iter().enumerate() {
            let path = here.index(i);
            let ports = path.child("ports");
            for (i, port) in list(rule, "ports").iter().enumerate() {
                policy_port(port, &ports.index(i), e);
            }
            let here = path.child(peers);
            for (i, peer) in list(rule, peers).iter().enumerate() {
                policy_peer(peer, &here.index(i), e);
            }
        }
    }
    let types = path.child("policyTypes");
    let given = list(spec, "policyTypes");
    if given.len() > 2 {
        e.invalid(
            &types,
            at(spec, "policyTypes"),
            "may not specify more than two policyTypes",
        );
        return;
    }
    for (i, kind) in given.iter().enumerate() {
        let kind = kind.as_str().unwrap_or("");
        if !matches!(kind, "Ingress" | "Egress") {
            e.not_supported(&types.index(i), kind, &["Ingress", "Egress"]);
        }
    }
}

fn policy_port(port: &Value, path: &Path<'_>, e: &mut Errors) {
    let protocol = text(port, "protocol");
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        e.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
    let number = at(port, "port");
    let end = int(port, "endPort");
    if number.is_null() {
        if let Some(end) = end {
            e.invalid_int(
                &path.child("endPort"),
                end,
                "may not be specified when `port` is not specified",
            );
        }
        return;
    }
    port_or_name(number, &path.child("port"), e);
    if let Some(end) = end {
        let here = path.child("endPort");
        match number.as_i64() {
            None => e.invalid_int(
                &here,
                end,
                "may not be specified when `port` is non-numeric",
            ),
            // The message shows the port, not its end.
            Some(start) if end < start => {
                e.invalid_int(&here, start, "must be greater than or equal to `port`");
            }
            Some(_) => {}
        }
        for fault in names::port(end) {
            e.invalid_int(&here, end, &fault);
        }
    }
}

fn policy_peer(peer: &Value, path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if has(peer, field) {
            count += 1;
            selectors::label_selector(at(peer, field), &path.child(field), e);
        }
    }
    if has(peer, "ipBlock") {
        count += 1;
        ip_block(at(peer, "ipBlock"), &path.child("ipBlock"), e);
    }
    if count == 0 {
        e.required(path, "must specify a peer");
    } else if count > 1 && has(peer, "ipBlock") {
        e.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Value, path: &Path<'_>, e: &mut Errors) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        e.required(&path.child("cidr"), "");
        return;
    }
    e.invalid_each(&path.child("cidr"), cidr, names::cidr(cidr));
    let Some((base, bits)) = names::parse_cidr(cidr) else {
        return;
    };
    let here = path.child("except");
    for (i, except) in list(block, "except").iter().enumerate() {
        let except = except.as_str().unwrap_or("");
        let path = here.index(i);
        let Some((address, length)) = names::parse_cidr(except) else {
            e.invalid_each(&path, except, names::cidr(except));
            continue;
        };
        if length <= bits || !contains(base, bits, address) {
            e.invalid_text(&path, except, "must be a strict subset of `cidr`");
        }
    }
}

/// Whether an address lies in a network.
pub fn contains(base: IpAddr, bits: u8, address: IpAddr) -> bool {
    match (base, address) {
        (IpAddr::V4(a), IpAddr::V4(b)) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            u32::from(a) & mask == u32::from(b) & mask
        }
        (IpAddr::V6(a), IpAddr::V6(b)) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            u128::from(a) & mask == u128::from(b) & mask
        }
        _ => false,
    }
}

pub fn endpoint_slice(object: &Value, e: &mut Errors) {
    let kind = text(object, "addressType");
    let path = Path::new("addressType");
    if kind.is_empty() {
        e.required(&path, "");
    } else if !matches!(kind, "FQDN" | "IPv4" | "IPv6") {
        e.not_supported(&path, kind, &["FQDN", "IPv4", "IPv6"]);
    }
    let path = Path::new("endpoints");
    let all = list(object, "endpoints");
    if all.len() > 1000 {
        e.too_many(&path, all.len(), 1000);
    }
    for (i, endpoint) in all.iter().enumerate() {
        slice_endpoint(kind, endpoint, &path.index(i), e);
    }
    let path = Path::new("ports");
    let ports = list(object, "ports");
    if ports.len() > 100 {
        e.too_many(&path, ports.len(), 100);
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        let path = path.index(i);
        let name = text(port, "name");
        if !name.is_empty() {
            e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        }
        if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        seen.push(name);
        let protocol = text(port, "protocol");
        if protocol.is_empty() {
            e.required(&path.child("protocol"), "");
        } else if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
            e.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
        }
        if let Some(number) = int(port, "port") {
            for fault in names::port(number) {
                e.invalid_int(&path.child("port"), number, &fault);
            }
        }
        if let Some(name) = at(port, "appProtocol").as_str() {
            e.invalid_each(
                &path.child("appProtocol"),
                name,
                names::qualified_name(name),
            );
        }
    }
}

fn slice_endpoint(kind: &str, endpoint: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("addresses");
    let addresses = list(endpoint, "addresses");
    if addresses.is_empty() {
        e.required(&here, "must contain at least 1 address");
    } else if addresses.len() > 100 {
        e.too_many(&here, addresses.len(), 100);
    }
    for (i, address) in addresses.iter().enumerate() {
        let address = address.as_str().unwrap_or("");
        let path = here.index(i);
        match kind {
            "IPv4" | "IPv6" => {
                let before = e.len();
                e.invalid_each(&path, address, names::ip(address));
                if e.len() == before {
                    let four = address.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4());
                    if four != (kind == "IPv4") {
                        let version = if kind == "IPv4" { "IPv4" } else { "IPv6" };
                        e.invalid_text(&path, address, &format!("must be an {version} address"));
                    }
                    service::special_ip(address, &path, e);
                }
            }
            "FQDN" => e.invalid_each(&path, address, names::fully_qualified(address)),
            _ => {}
        }
    }
    if let Some(node) = at(endpoint, "nodeName").as_str() {
        e.invalid_each(
            &path.child("nodeName"),
            node,
            names::dns1123_subdomain(node),
        );
    }
    topology(endpoint, path, e);
    if let Some(host) = at(endpoint, "hostname").as_str() {
        e.invalid_each(&path.child("hostname"), host, names::dns1123_label(host));
    }
}

/// Where an endpoint is, and for whom.
fn topology(endpoint: &Value, path: &Path<'_>, e: &mut Errors) {
    let here = path.child("deprecatedTopology");
    let all = entries(endpoint, "deprecatedTopology");
    if all.len() > 16 {
        e.too_many(&here, all.len(), 16);
    }
    for (key, value) in all {
        e.invalid_each(&here.key(key), key, names::qualified_name(key));
        let value = value.as_str().unwrap_or("");
        e.invalid_each(&here.key(key), value, names::label_value(value));
    }
    let hints = path.child("hints");
    for (field, zones) in [("forZones", true), ("forNodes", false)] {
        let here = hints.child(field);
        let all = list(at(endpoint, "hints"), field);
        if all.len() > 8 {
            e.too_many(&here, all.len(), 8);
            continue;
        }
        for (i, one) in all.iter().enumerate() {
            let path = here.index(i);
            let path = path.child("name");
            let name = text(one, "name");
            if all[..i].iter().any(|o| text(o, "name") == name) {
                e.duplicate_text(&path, name);
            }
            if zones {
                e.invalid_each(&path, name, names::label_value(name));
            } else {
                e.invalid_each(&path, name, names::dns1123_subdomain(name));
            }
        }
    }
}

/// An address that the cluster has given out: named as it is written, with who has it.
pub fn ip_address(object: &Value, e: &mut Errors) {
    let name = text(at(object, "metadata"), "name");
    let metadata = Path::new("metadata");
    e.invalid_each(&metadata.child("name"), name, names::canonical_ip(name));
    let spec = Path::new("spec");
    let path = spec.child("parentRef");
    let parent = at(at(object, "spec"), "parentRef");
    if parent.is_null() {
        e.required(&path, "");
        return;
    }
    for (field, rule) in [
        ("group", names::dns1123_subdomain as fn(&str) -> _),
        ("resource", names::path_segment),
        ("name", names::path_segment),
        ("namespace", names::path_segment),
    ] {
        let value = text(parent, field);
        let here = path.child(field);
        if !value.is_empty() {
            e.invalid_each(&here, value, rule(value));
        } else if matches!(field, "resource" | "name") {
            e.required(&here, "");
        }
    }
}

/// Ranges of addresses for Services: at most one of each family.
pub fn service_cidr(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let spec_path = Path::new("spec");
    let path = spec_path.child("cidrs");
    let all: Vec<&str> = list(spec, "cidrs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if all.is_empty() {
        e.required(&path, "at least one CIDR required");
        return;
    }
    if all.len() > 2 {
        e.invalid(&path, at(spec, "cidrs"), "may only hold up to 2 values");
    }
    if all.len() > 1 && !names::dual_stack(&all) {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        e.invalid(&path, at(spec, "cidrs"), detail);
    }
    for (i, cidr) in all.iter().enumerate() {
        e.invalid_each(&path.index(i), cidr, names::canonical_cidr(cidr));
    }
}

/// Ranges may be added to for the other family, never changed.
pub fn service_cidr_update(new: &Value, old: &Value, e: &mut Errors) {
    let (now, before) = (
        list(at(new, "spec"), "cidrs"),
        list(at(old, "spec"), "cidrs"),
    );
    let spec = Path::new("spec");
    let path = spec.child("cidrs");
    if now.len() < before.len() {
        let shown = at(at(new, "spec"), "cidrs");
        e.invalid(&path, shown, "field is immutable");
    }
    for (i, (now, before)) in now.iter().zip(before).enumerate() {
        if now != before {
            e.invalid(&path.index(i), now, "field is immutable");
        }
    }
}
