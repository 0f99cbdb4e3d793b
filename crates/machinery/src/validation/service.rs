//! Services and Endpoints.

use serde_json::Value;

use super::{
    errors::{Errors, quote, show},
    handlers::port_or_name,
    metadata, names,
    value::{at, blank, has, int, list, text},
};
use crate::path::Path;

pub fn service(object: &Value, e: &mut Errors) {
    let spec = at(object, "spec");
    let path = Path::new("spec");
    let kind = text(spec, "type");
    let headless = text(spec, "clusterIP") == "None";
    let ports = list(spec, "ports");
    if ports.is_empty() && !headless && kind != "ExternalName" {
        e.required(&path.child("ports"), "");
    }
    match kind {
        "LoadBalancer" | "NodePort" if headless => e.invalid_text(
            &path.child("clusterIPs").index(0),
            "None",
            &format!("may not be set to 'None' for {kind} services"),
        ),
        "ExternalName" => {
            if has(spec, "clusterIPs") || !text(spec, "clusterIP").is_empty() {
                e.forbidden(
                    &path.child("clusterIPs"),
                    "may not be set for ExternalName services",
                );
            }
            let name = text(spec, "externalName");
            let name = name.strip_suffix('.').unwrap_or(name);
            if name.is_empty() {
                e.required(&path.child("externalName"), "");
            } else {
                e.invalid_each(
                    &path.child("externalName"),
                    name,
                    names::dns1123_subdomain(name),
                );
            }
        }
        _ => {}
    }
    let here = path.child("ports");
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in ports.iter().enumerate() {
        service_port(
            port,
            ports.len() > 1,
            headless,
            &mut seen,
            &here.index(i),
            e,
        );
    }
    metadata::labels(spec, "selector", &path.child("selector"), e);
    match text(spec, "sessionAffinity") {
        "" => e.required(&path.child("sessionAffinity"), ""),
        "ClientIP" => {
            let seconds = at(at(spec, "sessionAffinityConfig"), "clientIP");
            let seconds = int(seconds, "timeoutSeconds").unwrap_or(10_800);
            if !(1..=86_400).contains(&seconds) {
                let config = path.child("sessionAffinityConfig");
                let client = config.child("clientIP");
                e.invalid_int(
                    &client.child("timeoutSeconds"),
                    seconds,
                    "must be greater than 0 and less than 86400",
                );
            }
        }
        "None" => {
            if has(spec, "sessionAffinityConfig") {
                e.forbidden(
                    &path.child("sessionAffinityConfig"),
                    "must not be set when session affinity is None",
                );
            }
        }
        other => e.not_supported(&path.child("sessionAffinity"), other, &["ClientIP", "None"]),
    }
    addresses(spec, kind, &path, e);
    let external = path.child("externalIPs");
    for (i, ip) in list(spec, "externalIPs").iter().enumerate() {
        let ip = ip.as_str().unwrap_or("");
        e.invalid_each(&external.index(i), ip, names::ip(ip));
    }
    if kind.is_empty() {
        e.required(&path.child("type"), "");
    } else if !matches!(
        kind,
        "ClusterIP" | "ExternalName" | "LoadBalancer" | "NodePort"
    ) {
        e.not_supported(
            &path.child("type"),
            kind,
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        );
    }
    port_conflicts(ports, &here, e);
    balancer(spec, kind, &path, e);
    traffic(spec, kind, &path, e);
}

fn service_port<'a>(
    port: &'a Value,
    named: bool,
    headless: bool,
    seen: &mut Vec<&'a str>,
    path: &Path<'_>,
    e: &mut Errors,
) {
    let name = text(port, "name");
    if name.is_empty() {
        if named {
            e.required(&path.child("name"), "");
        }
    } else {
        e.invalid_each(&path.child("name"), name, names::dns1123_label(name));
        if seen.contains(&name) {
            e.duplicate_text(&path.child("name"), name);
        }
        seen.push(name);
    }
    let number = int(port, "port").unwrap_or(0);
    for fault in names::port(number) {
        e.invalid_int(&path.child("port"), number, &fault);
    }
    let protocol = text(port, "protocol");
    if protocol.is_empty() {
        e.required(&path.child("protocol"), "");
    } else if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
        e.not_supported(&path.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
    }
    port_or_name(at(port, "targetPort"), &path.child("targetPort"), e);
    let application = text(port, "appProtocol");
    if !application.is_empty() {
        e.invalid_each(
            &path.child("appProtocol"),
            application,
            names::qualified_name(application),
        );
    }
    if headless && int(port, "nodePort").is_some_and(|n| n != 0) {
        e.forbidden(
            &path.child("nodePort"),
            "may not be used when `clusterIP` is 'None'",
        );
    }
    let node = int(port, "nodePort").unwrap_or(0);
    if node != 0 && !(30_000..=32_767).contains(&node) {
        e.invalid_int(
            &path.child("nodePort"),
            node,
            "provided port is not in the valid range. The range of valid ports is 30000-32767",
        );
    }
}

fn addresses(spec: &Value, kind: &str, path: &Path<'_>, e: &mut Errors) {
    if kind == "ExternalName" {
        return;
    }
    let first = text(spec, "clusterIP");
    let here = path.child("clusterIPs");
    let all: Vec<&str> = match list(spec, "clusterIPs") {
        [] if first.is_empty() => Vec::new(),
        [] => vec![first],
        all => all.iter().filter_map(Value::as_str).collect(),
    };
    if !first.is_empty() && all.first().is_some_and(|a| *a != first) {
        e.invalid(
            &here,
            at(spec, "clusterIPs"),
            "first value must match `clusterIP`",
        );
    }
    if all.len() > 2 {
        e.invalid(
            &here,
            at(spec, "clusterIPs"),
            "may only hold up to 2 values",
        );
    }
    for (i, ip) in all.iter().enumerate() {
        if *ip == "None" {
            if all.len() > 1 {
                e.invalid(
                    &here,
                    at(spec, "clusterIPs"),
                    "'None' must be the first and only value",
                );
                return;
            }
        } else if !ip.is_empty() {
            e.invalid_each(&here.index(i), ip, names::ip(ip));
        }
    }
    let families = path.child("ipFamilies");
    for (i, family) in list(spec, "ipFamilies").iter().enumerate() {
        let name = family.as_str().unwrap_or("");
        if !matches!(name, "IPv4" | "IPv6") {
            e.not_supported(&families.index(i), name, &["IPv4", "IPv6"]);
        }
        if list(spec, "ipFamilies")[..i].contains(family) {
            e.duplicate(&families.index(i), family);
        }
    }
    let policy = text(spec, "ipFamilyPolicy");
    if !matches!(
        policy,
        "" | "SingleStack" | "PreferDualStack" | "RequireDualStack"
    ) {
        e.not_supported(
            &path.child("ipFamilyPolicy"),
            policy,
            &["PreferDualStack", "RequireDualStack", "SingleStack"],
        );
    }
}

/// The same protocol and number twice, to the outside or at the nodes.
fn port_conflicts(ports: &[Value], path: &Path<'_>, e: &mut Errors) {
    for (i, port) in ports.iter().enumerate() {
        let same = |field: &str| {
            ports[..i].iter().any(|p| {
                text(p, "protocol") == text(port, "protocol") && at(p, field) == at(port, field)
            })
        };
        let protocol = text(port, "protocol");
        let shown = |number: i64, node: i64| {
            format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":{node}}}",
                quote(protocol)
            )
        };
        if int(port, "nodePort").is_some_and(|n| n != 0) && same("nodePort") {
            let node = int(port, "nodePort").unwrap_or(0);
            e.duplicate_shown(&path.index(i).child("nodePort"), &shown(0, node));
        }
        if same("port") {
            let number = int(port, "port").unwrap_or(0);
            e.duplicate_shown(&path.index(i), &shown(number, 0));
        }
    }
}

fn balancer(spec: &Value, kind: &str, path: &Path<'_>, e: &mut Errors) {
    // The path begins with a capital in Kubernetes, and so here.
    let ranges = path.child("LoadBalancerSourceRanges");
    let given = list(spec, "loadBalancerSourceRanges");
    if !given.is_empty() && kind != "LoadBalancer" {
        e.forbidden(&ranges, "may only be used when `type` is 'LoadBalancer'");
    }
    for (i, range) in given.iter().enumerate() {
        let range = range.as_str().unwrap_or("").trim();
        e.invalid_each(&ranges.index(i), range, names::cidr(range));
    }
    if kind != "LoadBalancer" {
        for (field, what) in [
            (
                "allocateLoadBalancerNodePorts",
                "may only be used when `type` is 'LoadBalancer'",
            ),
            (
                "loadBalancerClass",
                "may only be used when `type` is 'LoadBalancer'",
            ),
        ] {
            if has(spec, field) {
                e.forbidden(&path.child(field), what);
            }
        }
    } else if let Some(class) = at(spec, "loadBalancerClass").as_str() {
        e.invalid_each(
            &path.child("loadBalancerClass"),
            class,
            names::qualified_name(class),
        );
    }
}

fn traffic(spec: &Value, kind: &str, path: &Path<'_>, e: &mut Errors) {
    let external = text(spec, "externalTrafficPolicy");
    let reachable = matches!(kind, "NodePort" | "LoadBalancer")
        || (kind == "ClusterIP" && !list(spec, "externalIPs").is_empty());
    let here = path.child("externalTrafficPolicy");
    if !reachable {
        if !external.is_empty() {
            e.invalid_text(
                &here,
                external,
                "may only be set for externally-accessible services",
            );
        }
    } else if external.is_empty() {
        e.required(&here, "");
    } else if !matches!(external, "Cluster" | "Local") {
        e.not_supported(&here, external, &["Cluster", "Local"]);
    }
    if let Some(port) = int(spec, "healthCheckNodePort").filter(|p| *p != 0)
        && !(kind == "LoadBalancer" && external == "Local")
    {
        e.invalid_int(
            &path.child("healthCheckNodePort"),
            port,
            "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'",
        );
    }
    let internal = text(spec, "internalTrafficPolicy");
    let here = path.child("internalTrafficPolicy");
    if matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP") {
        if internal.is_empty() {
            e.required(&here, "");
        } else if !matches!(internal, "Cluster" | "Local") {
            e.not_supported(&here, internal, &["Cluster", "Local"]);
        }
    }
    let distribution = text(spec, "trafficDistribution");
    let known = ["PreferClose", "PreferSameNode", "PreferSameZone"];
    if !distribution.is_empty() && !known.contains(&distribution) {
        e.not_supported(&path.child("trafficDistribution"), distribution, &known);
    }
}

/// Addresses stay once they are set, as long as the Service has any.
pub fn service_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    if text(old, "type") == "ExternalName" || text(new, "type") == "ExternalName" {
        return;
    }
    let path = Path::new("spec");
    let here = path.child("clusterIPs");
    let first = |spec: &Value| {
        let from_list = list(spec, "clusterIPs").first().and_then(Value::as_str);
        from_list.unwrap_or(text(spec, "clusterIP")).to_owned()
    };
    let before = first(old);
    if !before.is_empty() && first(new) != before {
        let shown = match at(new, "clusterIPs") {
            v if blank(v) => format!("[{}]", quote(text(new, "clusterIP"))),
            v => show(v),
        };
        e.invalid_shown(&here.index(0), &shown, "may not change once set");
    }
}

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
            if !matches!(protocol, "TCP" | "UDP" | "SCTP") {
                e.not_supported(&here.child("protocol"), protocol, &["SCTP", "TCP", "UDP"]);
            }
        }
    }
}

/// Addresses that lead nowhere or to oneself are no endpoints.
pub fn special_ip(text: &str, path: &Path<'_>, e: &mut Errors) {
    let Ok(ip) = text.parse::<std::net::IpAddr>() else {
        return;
    };
    if ip.is_unspecified() {
        e.invalid_text(path, text, "may not be unspecified (0.0.0.0 or ::)");
    }
    if ip.is_loopback() {
        e.invalid_text(
            path,
            text,
            "may not be in the loopback range (127.0.0.0/8, ::1/128)",
        );
    }
    let link_local = match ip {
        std::net::IpAddr::V4(v4) => v4.is_link_local(),
        std::net::IpAddr::V6(v6) => (v6.segments()[0] & 0xffc0) == 0xfe80,
    };
    if link_local {
        e.invalid_text(
            path,
            text,
            "may not be in the link-local range (169.254.0.0/16, fe80::/10)",
        );
    }
}
