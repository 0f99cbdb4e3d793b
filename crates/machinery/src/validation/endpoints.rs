//! Where the pods of Services are: Endpoints and EndpointSlices.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    errors::Errors,
    names,
    value::{at, entries, int, list, text},
};
use crate::path::Path;

pub fn endpoints(object: &Value, e: &mut Errors) {
    let path = Path::new("subsets");
    for (i, subset) in list(object, "subsets").iter().enumerate() {
        let path = path.index(i);
        if list(subset, "addresses").is_empty() && list(subset, "notReadyAddresses").is_empty() {
            e.required(&path, "must specify `addresses` or `notReadyAddresses`");
        }
        for field in ["addresses", "notReadyAddresses"] {
            let here = path.child(field);
            for (i, address) in list(subset, field).iter().enumerate() {
                let here = here.index(i);
                let ip = text(address, "ip");
                let before = e.len();
                e.invalid_each(&here.child("ip"), ip, names::ip(ip));
                if e.len() == before {
                    special_ip(ip, &here.child("ip"), e);
                }
                let host = text(address, "hostname");
                if !host.is_empty() {
                    e.invalid_each(&here.child("hostname"), host, names::dns1123_label(host));
                }
                if let Some(node) = at(address, "nodeName").as_str() {
                    let here = here.child("nodeName");
                    e.invalid_each(&here, node, names::dns1123_subdomain(node));
                }
            }
        }
        let here = path.child("ports");
        let ports = list(subset, "ports");
        for (i, port) in ports.iter().enumerate() {
            let here = here.index(i);
            let name = text(port, "name");
            if name.is_empty() {
                if ports.len() > 1 {
                    e.required(&here.child("name"), "");
                }
            } else {
                e.invalid_each(&here.child("name"), name, names::dns1123_label(name));
            }
            let number = int(port, "port").unwrap_or(0);
            for fault in names::port(number) {
                e.invalid_int(&here.child("port"), number, &fault);
            }
            let protocol = text(port, "protocol");
            if protocol.is_empty() {
                e.required(&here.child("protocol"), "");
            } else if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
                e.not_supported(&here.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
            }
            if let Some(name) = at(port, "appProtocol").as_str() {
                e.invalid_each(
                    &here.child("appProtocol"),
                    name,
                    names::qualified_name(name),
                );
            }
        }
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
    // Of too long a list nothing but its length is looked at.
    if all.len() > 1000 {
        e.too_many(&path, all.len(), 1000);
    } else {
        for (i, endpoint) in all.iter().enumerate() {
            slice_endpoint(kind, endpoint, &path.index(i), e);
        }
    }
    let path = Path::new("ports");
    let ports = list(object, "ports");
    if ports.len() > 100 {
        e.too_many(&path, ports.len(), 100);
        return;
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
                    special_ip(address, &path, e);
                }
            }
            "FQDN" => domain_name(address, &path, e),
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

/// A domain's name with at least two labels; it may end with a dot.
fn domain_name(name: &str, path: &Path<'_>, e: &mut Errors) {
    if name.is_empty() {
        e.required(path, "");
        return;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    let faults = names::dns1123_subdomain(name);
    if !faults.is_empty() {
        e.invalid_text(path, name, &faults.join(","));
    } else if !name.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        e.invalid_text(path, name, detail);
    } else if let Some(label) = name
        .split('.')
        .find(|l| !names::dns1123_label(l).is_empty())
    {
        e.invalid_text(path, label, &names::dns1123_label(label).join(","));
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

/// Addresses that lead nowhere or to oneself are no endpoints.
pub fn special_ip(text: &str, path: &Path<'_>, e: &mut Errors) {
    let Some(ip) = names::parse_ip(text) else {
        return;
    };
    let (local, multicast) = match ip {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets()[..3] == [224, 0, 0]),
        IpAddr::V6(v6) => {
            let first = v6.segments()[0];
            ((first & 0xffc0) == 0xfe80, (first & 0xff0f) == 0xff02)
        }
    };
    if ip.is_unspecified() {
        let detail = format!("may not be unspecified ({text})");
        e.invalid_text(path, text, &detail);
    }
    for (holds, what, ranges) in [
        (ip.is_loopback(), "loopback", "127.0.0.0/8, ::1/128"),
        (local, "link-local", "169.254.0.0/16, fe80::/10"),
        (multicast, "link-local multicast", "224.0.0.0/24, ff02::/10"),
    ] {
        if holds {
            let detail = format!("may not be in the {what} range ({ranges})");
            e.invalid_text(path, text, &detail);
        }
    }
}
