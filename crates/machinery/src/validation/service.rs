//! Services.

use serde_json::Value;

use super::{
    endpoints::special_ip,
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
            for field in ["ipFamilies", "ipFamilyPolicy"] {
                if !blank(at(spec, field)) {
                    let detail = "may not be set for ExternalName services";
                    e.forbidden(&path.child(field), detail);
                }
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
        service_port(port, ports.len() > 1, &mut seen, &here.index(i), e);
    }
    metadata::labels(spec, "selector", &path.child("selector"), e);
    match text(spec, "sessionAffinity") {
        "" => e.required(&path.child("sessionAffinity"), ""),
        "ClientIP" => affinity_timeout(spec, &path.child("sessionAffinityConfig"), e),
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
        let here = external.index(i);
        if names::parse_ip(ip).is_some() {
            special_ip(ip, &here, e);
        } else {
            e.invalid_each(&here, ip, names::ip(ip));
        }
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
    if kind == "ClusterIP" {
        for (i, port) in ports.iter().enumerate() {
            if int(port, "nodePort").is_some_and(|n| n != 0) {
                e.forbidden(
                    &here.index(i).child("nodePort"),
                    "may not be used when `type` is 'ClusterIP'",
                );
            }
        }
    }
    port_conflicts(ports, &here, e);
    balancer(spec, kind, &path, e);
    traffic(spec, kind, &path, e);
}

/// How long a client keeps to its pod.
fn affinity_timeout(spec: &Value, path: &Path<'_>, e: &mut Errors) {
    const NEEDED: &str = "when session affinity type is ClientIP";
    let config = at(spec, "sessionAffinityConfig");
    let client = at(config, "clientIP");
    let client_path = path.child("clientIP");
    let here = client_path.child("timeoutSeconds");
    match int(client, "timeoutSeconds") {
        _ if config.is_null() => e.required(path, NEEDED),
        _ if client.is_null() => e.required(&client_path, NEEDED),
        None => e.required(&here, NEEDED),
        Some(seconds) if !(1..=86_400).contains(&seconds) => {
            let detail = "must be greater than 0 and less than 86400";
            e.invalid_int(&here, seconds, detail);
        }
        Some(_) => {}
    }
}

fn service_port<'a>(
    port: &'a Value,
    named: bool,
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
    let shown = at(spec, "clusterIPs");
    let all: Vec<&str> = match list(spec, "clusterIPs") {
        // What is given in one field is filled into the other before this.
        [] if first.is_empty() => Vec::new(),
        [] => vec![first],
        all => all.iter().filter_map(Value::as_str).collect(),
    };
    if first.is_empty() && !all.is_empty() {
        let detail = "must be empty when `clusterIP` is not specified";
        e.invalid(&here, shown, detail);
    } else if all.first().is_some_and(|a| *a != first) {
        e.invalid(&here, shown, "first value must match `clusterIP`");
    }
    let families = list(spec, "ipFamilies");
    let families_path = path.child("ipFamilies");
    for (i, family) in families.iter().enumerate() {
        let name = family.as_str().unwrap_or("");
        if !matches!(name, "IPv4" | "IPv6") {
            e.not_supported(&families_path.index(i), name, &["IPv4", "IPv6"]);
        }
        if families[..i].contains(family) {
            e.duplicate(&families_path.index(i), family);
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
    let mut bad = false;
    for (i, ip) in all.iter().enumerate() {
        if i == 0 && *ip == "None" {
            if all.len() > 1 {
                bad = true;
                e.invalid(&here, shown, "'None' must be the first and only value");
            }
            continue;
        }
        if i == 0 && ip.is_empty() && all.len() == 1 {
            continue;
        }
        let faults = names::ip(ip);
        bad |= !faults.is_empty();
        e.invalid_each(&here.index(i), ip, faults);
    }
    if all.len() > 2 {
        e.invalid(&here, shown, "may only hold up to 2 values");
    }
    if bad {
        return;
    }
    if all.len() > 1 && !names::dual_stack(&all[..2]) {
        let detail = "may specify no more than one IP for each IP family";
        e.invalid(&here, shown, detail);
    }
    for (i, (ip, family)) in all.iter().zip(families).enumerate() {
        let Some(address) = names::parse_ip(ip) else {
            continue;
        };
        let family = family.as_str().unwrap_or("");
        if matches!(family, "IPv4" | "IPv6") && address.is_ipv4() != (family == "IPv4") {
            let detail = format!("expected an {family} value as indicated by `ipFamilies[{i}]`");
            e.invalid_text(&here.index(i), ip, &detail);
        }
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
        let shown = |number: i64| {
            format!(
                "{{\"Name\":\"\",\"Protocol\":{},\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}",
                quote(protocol)
            )
        };
        if int(port, "nodePort").is_some_and(|n| n != 0) && same("nodePort") {
            let node = at(port, "nodePort");
            e.duplicate(&path.index(i).child("nodePort"), node);
        }
        if same("port") {
            let number = int(port, "port").unwrap_or(0);
            e.duplicate_shown(&path.index(i), &shown(number));
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
        return;
    }
    if !has(spec, "allocateLoadBalancerNodePorts") {
        e.required(&Path::new("allocateLoadBalancerNodePorts"), "");
    }
    if let Some(class) = at(spec, "loadBalancerClass").as_str() {
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

/// Addresses and families stay once they are set, as long as the Service has any; a second one of
/// each may come and go.
pub fn service_update(new: &Value, old: &Value, e: &mut Errors) {
    let (new, old) = (at(new, "spec"), at(old, "spec"));
    let path = Path::new("spec");
    let kinds = (text(new, "type"), text(old, "type"));
    if kinds.0 != "ExternalName" && kinds.1 != "ExternalName" {
        primaries(new, old, &path, e);
    }
    if kinds == ("LoadBalancer", "LoadBalancer")
        && at(new, "loadBalancerClass") != at(old, "loadBalancerClass")
    {
        let here = path.child("loadBalancerClass");
        e.invalid(
            &here,
            at(new, "loadBalancerClass"),
            "may not change once set",
        );
    }
    let checked = |spec| {
        text(spec, "type") == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if checked(new)
        && checked(old)
        && int(new, "healthCheckNodePort") != int(old, "healthCheckNodePort")
    {
        e.forbidden(&path.child("healthCheckNodePort"), "field is immutable");
    }
}

fn primaries(new: &Value, old: &Value, path: &Path<'_>, e: &mut Errors) {
    let addresses = |spec| -> Vec<Value> {
        match list(spec, "clusterIPs") {
            [] if text(spec, "clusterIP").is_empty() => vec![],
            [] => vec![at(spec, "clusterIP").clone()],
            all => all.to_vec(),
        }
    };
    let (now, before) = (addresses(new), addresses(old));
    let headless = |all: &[Value]| matches!(all, [one] if one == "None");
    if headless(&now) && headless(&before) {
        return;
    }
    kept("clusterIPs", "clusterIP", &now, &before, new, path, e);
    if headless(&now) || headless(&before) {
        return;
    }
    let families = |spec| list(spec, "ipFamilies").to_vec();
    let (now, before) = (families(new), families(old));
    kept("ipFamilies", "ipFamily", &now, &before, new, path, e);
}

/// The first of a list stays, the second may come and, by a policy that says so, go.
fn kept(
    field: &str,
    one: &str,
    now: &[Value],
    before: &[Value],
    spec: &Value,
    path: &Path<'_>,
    e: &mut Errors,
) {
    const STAYS: &str = "may not change once set";
    let here = path.child(field);
    let shown = match now {
        [] => "null".to_owned(),
        all => show(&all.into()),
    };
    if now.len() == before.len() {
        for (i, _) in now
            .iter()
            .zip(before)
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            // Families are all reported as the first.
            let i = if field == "ipFamilies" { 0 } else { i };
            e.invalid_shown(&here.index(i), &shown, STAYS);
        }
        return;
    }
    match (now.first(), before.first()) {
        (None, Some(_)) => {
            e.invalid_shown(
                &here.index(0),
                &shown,
                &format!("primary {one} can not be unset"),
            );
        }
        (Some(a), Some(b)) if a != b => e.invalid_shown(&here.index(0), &shown, STAYS),
        _ => {}
    }
    let policy = text(spec, "ipFamilyPolicy");
    if now.len() == 1 && before.len() > 1 && policy != "SingleStack" {
        e.invalid(
            &path.child("ipFamilyPolicy"),
            at(spec, "ipFamilyPolicy"),
            &format!("must be set to 'SingleStack' when releasing the secondary {one}"),
        );
    }
}

/// What a balancer says where a Service is reached.
pub fn balancer_status(status: &Value, path: &Path<'_>, e: &mut Errors) {
    let path = path.child("ingress");
    for (i, point) in list(status, "ingress").iter().enumerate() {
        let here = path.index(i);
        let (ip, mode) = (text(point, "ip"), at(point, "ipMode").as_str());
        if !ip.is_empty() {
            e.invalid_each(&here.child("ip"), ip, names::ip(ip));
        }
        let mode_path = here.child("ipMode");
        match mode {
            None if !ip.is_empty() => {
                e.required(&mode_path, "must be specified when `ip` is set");
            }
            Some(_) if ip.is_empty() => {
                e.forbidden(&mode_path, "may not be specified when `ip` is not set");
            }
            Some(mode) if !matches!(mode, "VIP" | "Proxy") => {
                e.not_supported(&mode_path, mode, &["Proxy", "VIP"]);
            }
            _ => {}
        }
        balancer_host(text(point, "hostname"), &here.child("hostname"), e);
    }
}

/// The name of a balancer, where it has one.
pub fn balancer_host(host: &str, path: &Path<'_>, e: &mut Errors) {
    if host.is_empty() {
        return;
    }
    e.invalid_each(path, host, names::dns1123_subdomain(host));
    if names::parse_ip(host).is_some() {
        e.invalid_text(path, host, "must be a DNS name, not an IP address");
    }
}
