//! Network policies, addresses of Services.

use std::net::IpAddr;

use serde_json::Value;

use super::{
    errors::Errors,
    handlers::port_or_name,
    names, selectors,
    value::{at, has, int, list, text},
};
use crate::path::Path;

/// A network policy. Networks that `old` names stay allowed as they are written.
pub fn network_policy(object: &Value, old: Option<&Value>, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let known = old.map(networks).unwrap_or_default();
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
                policy_peer(peer, &known, &here.index(i), e);
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

/// All networks that a policy names.
fn networks(policy: &Value) -> Vec<&str> {
    let spec = at(policy, "spec");
    let mut all = vec![];
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let rules = list(spec, direction).iter();
        for peer in rules.flat_map(|rule| list(rule, peers)) {
            let block = at(peer, "ipBlock");
            all.push(text(block, "cidr"));
            all.extend(list(block, "except").iter().filter_map(Value::as_str));
        }
    }
    all
}

fn policy_port(port: &Value, path: &Path<'_>, e: &mut Errors) {
    let protocol = text(port, "protocol");
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        e.not_supported(&path.child("protocol"), protocol, &["TCP", "UDP", "SCTP"]);
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

fn policy_peer(peer: &Value, known: &[&str], path: &Path<'_>, e: &mut Errors) {
    let mut count = 0;
    for field in ["podSelector", "namespaceSelector"] {
        if has(peer, field) {
            count += 1;
            selectors::label_selector(at(peer, field), &path.child(field), e);
        }
    }
    if has(peer, "ipBlock") {
        count += 1;
        ip_block(at(peer, "ipBlock"), known, &path.child("ipBlock"), e);
    }
    if count == 0 {
        e.required(path, "must specify a peer");
    } else if count > 1 && has(peer, "ipBlock") {
        e.forbidden(path, "may not specify both ipBlock and another peer");
    }
}

fn ip_block(block: &Value, known: &[&str], path: &Path<'_>, e: &mut Errors) {
    let cidr = text(block, "cidr");
    if cidr.is_empty() {
        e.required(&path.child("cidr"), "");
        return;
    }
    if !known.contains(&cidr) {
        e.invalid_each(&path.child("cidr"), cidr, names::cidr(cidr));
    }
    let Some((base, bits)) = names::parse_cidr(cidr) else {
        return;
    };
    let here = path.child("except");
    for (i, except) in list(block, "except").iter().enumerate() {
        let except = except.as_str().unwrap_or("");
        let path = here.index(i);
        let Some((address, length)) = names::parse_cidr(except) else {
            if !known.contains(&except) {
                e.invalid_each(&path, except, names::cidr(except));
            }
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

/// An address that the cluster has given out: named as it is written, with who has it.
pub fn ip_address(object: &Value, e: &mut Errors) {
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
        let shown = super::security::internal(spec, &[("CIDRs", "cidrs")]);
        e.invalid_shown(&path, &shown, "may only hold up to 2 values");
        return;
    }
    for (i, cidr) in all.iter().enumerate() {
        e.invalid_each(&path.index(i), cidr, names::canonical_cidr(cidr));
    }
    let families: Vec<bool> = all
        .iter()
        .filter_map(|cidr| names::parse_cidr(cidr))
        .map(|(address, _)| address.is_ipv4())
        .collect();
    if families == [true, true] || families == [false, false] {
        let detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64";
        e.invalid(&path, at(spec, "cidrs"), detail);
    }
}

/// One range may be added for the other family; else they stay.
pub fn service_cidr_update(new: &Value, old: &Value, e: &mut Errors) {
    const STAYS: &str = "field is immutable";
    let (now, before) = (
        list(at(new, "spec"), "cidrs"),
        list(at(old, "spec"), "cidrs"),
    );
    let spec = Path::new("spec");
    let path = spec.child("cidrs");
    let added = (before.len(), now.len()) == (1, 2);
    if now.len() != before.len() && !added {
        e.invalid(&path, at(at(new, "spec"), "cidrs"), STAYS);
        return;
    }
    for (i, (now, before)) in now.iter().zip(before).enumerate() {
        if now != before {
            e.invalid(&path.index(i), now, STAYS);
        }
    }
    if added {
        service_cidr(new, e);
    }
}
