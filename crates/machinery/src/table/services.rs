//! Rows of services, endpoints, ingresses and policies of the network.

use jiff::Timestamp;
use serde_json::Value;

use super::cells::{labels, name, old, or, selector};
use crate::validation::value::{at, down, has, int, list, text};

pub fn service(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let address = match list(spec, "clusterIPs").first().and_then(Value::as_str) {
        Some(ip) => ip,
        None => or(text(spec, "clusterIP"), "<none>"),
    };
    let ports: Vec<String> = list(spec, "ports")
        .iter()
        .map(|p| {
            let node = int(p, "nodePort").filter(|n| *n > 0);
            let node = node.map_or(String::new(), |n| format!(":{n}"));
            let port = int(p, "port").unwrap_or(0);
            format!("{port}{node}/{}", text(p, "protocol"))
        })
        .collect();
    vec![
        name(o),
        text(spec, "type").into(),
        address.into(),
        external(o).into(),
        or(&ports.join(","), "<none>").into(),
        old(o, now),
        labels(spec, "selector").into(),
    ]
}

fn external(o: &Value) -> String {
    let spec = at(o, "spec");
    let given: Vec<&str> = list(spec, "externalIPs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_owned(),
        "LoadBalancer" => {
            let mut all = ingress_points(down(o, &["status", "loadBalancer"]));
            all.extend(given.iter().map(|ip| (*ip).to_owned()));
            or(&all.join(","), "<pending>").to_owned()
        }
        _ => or(&given.join(","), "<none>").to_owned(),
    }
}

/// Addresses of a load balancer.
fn ingress_points(balancer: &Value) -> Vec<String> {
    let mut all: Vec<String> = list(balancer, "ingress")
        .iter()
        .map(|i| or(text(i, "ip"), text(i, "hostname")).to_owned())
        .filter(|a| !a.is_empty())
        .collect();
    all.dedup();
    all
}

/// At most three, then how many more there are.
fn some_of(all: &[String]) -> String {
    match all.len() {
        0 => "<none>".into(),
        1..=3 => all.join(","),
        n => format!("{} + {} more...", all[..3].join(","), n - 3),
    }
}

pub fn endpoints(o: &Value, now: Timestamp) -> Vec<Value> {
    let mut all = Vec::new();
    for subset in list(o, "subsets") {
        let addresses = list(subset, "addresses");
        if list(subset, "ports").is_empty() {
            all.extend(addresses.iter().map(|a| text(a, "ip").to_owned()));
        }
        for port in list(subset, "ports") {
            let port = int(port, "port").unwrap_or(0);
            all.extend(addresses.iter().map(|a| match text(a, "ip") {
                ip if ip.contains(':') => format!("[{ip}]:{port}"),
                ip => format!("{ip}:{port}"),
            }));
        }
    }
    vec![name(o), some_of(&all).into(), old(o, now)]
}

pub fn endpoint_slice(o: &Value, now: Timestamp) -> Vec<Value> {
    let ports = list(o, "ports");
    let ports = if ports.is_empty() {
        "<unset>".to_owned()
    } else {
        let all: Vec<String> = ports
            .iter()
            .map(|p| int(p, "port").map_or("*".to_owned(), |n| n.to_string()))
            .collect();
        some_of(&all)
    };
    let addresses: Vec<String> = list(o, "endpoints")
        .iter()
        .flat_map(|e| list(e, "addresses"))
        .filter_map(|a| a.as_str().map(str::to_owned))
        .collect();
    let addresses = if addresses.is_empty() {
        "<unset>".to_owned()
    } else {
        some_of(&addresses)
    };
    vec![
        name(o),
        text(o, "addressType").into(),
        ports.into(),
        addresses.into(),
        old(o, now),
    ]
}

pub fn ingress(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let mut hosts: Vec<String> = Vec::new();
    for rule in list(spec, "rules") {
        let host = text(rule, "host");
        if !host.is_empty() && !hosts.iter().any(|h| h == host) {
            hosts.push(host.to_owned());
        }
    }
    let hosts = if hosts.is_empty() {
        "*".to_owned()
    } else {
        some_of(&hosts)
    };
    let ports = if list(spec, "tls").is_empty() {
        "80"
    } else {
        "80, 443"
    };
    let class = match text(spec, "ingressClassName") {
        "" => {
            let annotations = down(o, &["metadata", "annotations"]);
            or(text(annotations, "kubernetes.io/ingress.class"), "<none>")
        }
        class => class,
    };
    let address = ingress_points(down(o, &["status", "loadBalancer"])).join(",");
    vec![
        name(o),
        class.into(),
        hosts.into(),
        address.into(),
        ports.into(),
        old(o, now),
    ]
}

pub fn ingress_class(o: &Value, now: Timestamp) -> Vec<Value> {
    let spec = at(o, "spec");
    let parameters = at(spec, "parameters");
    let shown = if has(spec, "parameters") {
        let group = text(parameters, "apiGroup");
        let kind = text(parameters, "kind");
        let kind = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        format!("{kind}/{}", text(parameters, "name"))
    } else {
        "<none>".into()
    };
    vec![
        name(o),
        text(spec, "controller").into(),
        shown.into(),
        old(o, now),
    ]
}

pub fn network_policy(o: &Value, now: Timestamp) -> Vec<Value> {
    let pods = selector(down(o, &["spec", "podSelector"]));
    vec![name(o), pods.into(), old(o, now)]
}

pub fn ip_address(o: &Value, _: Timestamp) -> Vec<Value> {
    let parent = down(o, &["spec", "parentRef"]);
    let parts = ["group", "resource", "namespace", "name"].map(|f| text(parent, f));
    let parts: Vec<&str> = parts.into_iter().filter(|p| !p.is_empty()).collect();
    vec![name(o), parts.join("/").into()]
}

pub fn service_cidr(o: &Value, now: Timestamp) -> Vec<Value> {
    let cidrs: Vec<&str> = list(at(o, "spec"), "cidrs")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    vec![name(o), cidrs.join(",").into(), old(o, now)]
}
