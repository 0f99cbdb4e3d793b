//! Computed defaults of the core group.

use serde_json::{Map, Value, json};

use super::{Compute, set, text};

pub const COMPUTED: &[(&str, Compute)] = &[
    ("core.v1.Pod", pod),
    ("core.v1.PodSpec", pod_spec),
    ("core.v1.Container", container),
    ("core.v1.ImageVolumeSource", image_volume),
    ("core.v1.EphemeralContainer", container),
    ("core.v1.ResourceRequirements", resources),
    ("core.v1.Volume", volume),
    ("core.v1.Service", service),
    ("core.v1.ServiceSpec", service_spec),
    ("core.v1.ServicePort", service_port),
    ("core.v1.LoadBalancerStatus", load_balancer),
    ("core.v1.LimitRangeItem", limit_range_item),
    ("core.v1.NodeStatus", node_status),
    ("core.v1.Namespace", namespace),
    ("core.v1.ReplicationController", replication_controller),
    ("core.v1.Node", node),
];

type Object = Map<String, Value>;

/// Of pods alone, not of templates: requests follow limits, service links are on; the one address
/// of old kubelets is the first of the list.
fn pod(pod: &mut Object) {
    if let Some(Value::Object(status)) = pod.get_mut("status") {
        for (one, all) in [("podIP", "podIPs"), ("hostIP", "hostIPs")] {
            first_of_all(status, one, all);
        }
    }
    let Some(Value::Object(spec)) = pod.get_mut("spec") else {
        return;
    };
    set(spec, "enableServiceLinks", true);
    for list in ["containers", "initContainers"] {
        let containers = spec.get_mut(list).and_then(Value::as_array_mut);
        for container in containers.into_iter().flatten() {
            if let Some(Value::Object(resources)) = container.get_mut("resources") {
                requests_from_limits(resources);
            }
        }
    }
    if let Some(Value::Object(resources)) = spec.get_mut("resources") {
        requests_from_limits(resources);
    }
}

/// Where both are given and differ, the single one is right (`Convert_v1_PodStatus_To_core_PodStatus`).
fn first_of_all(status: &mut Object, one: &str, all: &str) {
    let Some(ip) = status
        .get(one)
        .and_then(Value::as_str)
        .filter(|ip| !ip.is_empty())
    else {
        return;
    };
    let first = status
        .get(all)
        .and_then(|list| list.get(0)?.get("ip")?.as_str());
    if first != Some(ip) && (one == "podIP" || first.is_some()) {
        let list = json!([{"ip": ip}]);
        status.insert(all.to_owned(), list);
    }
}

fn requests_from_limits(resources: &mut Object) {
    let Some(Value::Object(limits)) = resources.get("limits") else {
        return;
    };
    let given = resources.get("requests").and_then(Value::as_object);
    let missing: Vec<(String, Value)> = limits
        .iter()
        .filter(|(name, _)| given.is_none_or(|g| !g.contains_key(*name)))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    if missing.is_empty() {
        return;
    }
    let requests = resources
        .entry("requests")
        .or_insert_with(|| Value::Object(Map::new()));
    if let Value::Object(requests) = requests {
        requests.extend(missing);
    }
}

fn pod_spec(spec: &mut Object) {
    // Once meant at once; the least is a second now.
    let grace = spec.get("terminationGracePeriodSeconds");
    if grace.and_then(Value::as_i64).is_some_and(|s| s < 0) {
        spec.insert("terminationGracePeriodSeconds".into(), 1.into());
    }
    // The old name of the field is kept in step with the new one.
    let name = match text(spec, "serviceAccountName") {
        "" => text(spec, "serviceAccount"),
        name => name,
    };
    if !name.is_empty() {
        let name = name.to_owned();
        spec.insert("serviceAccount".into(), name.clone().into());
        spec.insert("serviceAccountName".into(), name.into());
    }
    if spec.get("hostNetwork") == Some(&Value::Bool(true)) {
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                let ports = container.get_mut("ports").and_then(Value::as_array_mut);
                for port in ports.into_iter().flatten() {
                    if let Value::Object(port) = port
                        && let Some(number) = port.get("containerPort").cloned()
                    {
                        set(port, "hostPort", number);
                    }
                }
            }
        }
    }
}

fn container(container: &mut Object) {
    if !container.contains_key("imagePullPolicy") {
        let policy = pull_policy(text(container, "image"));
        container.insert("imagePullPolicy".into(), policy.into());
    }
}

fn image_volume(source: &mut Object) {
    if text(source, "pullPolicy").is_empty() {
        let policy = pull_policy(text(source, "reference"));
        source.insert("pullPolicy".into(), policy.into());
    }
}

fn pull_policy(image: &str) -> &'static str {
    if floats(image) {
        "Always"
    } else {
        "IfNotPresent"
    }
}

/// Whether the image's tag is `latest`, given or implied; a digest pins it.
fn floats(image: &str) -> bool {
    let (rest, digest) = image.split_once('@').unwrap_or((image, ""));
    let name = rest.rsplit('/').next().unwrap_or(rest);
    match name.split_once(':') {
        Some((_, tag)) => tag == "latest",
        None => digest.is_empty(),
    }
}

/// Quantities of containers are rounded up to thousandths.
fn resources(resources: &mut Object) {
    for list in ["limits", "requests"] {
        let Some(Value::Object(map)) = resources.get_mut(list) else {
            continue;
        };
        for (_, value) in map.iter_mut() {
            let text = value.as_str().unwrap_or("");
            if (text.ends_with('n') || text.ends_with('u'))
                && let Ok(q) = crate::quantity::Quantity::parse(text)
                && !q.is_milli()
            {
                *value = crate::quantity::Quantity::from_milli(q.milli())
                    .to_string()
                    .into();
            }
        }
    }
}

/// A volume without a source is an empty directory.
fn volume(volume: &mut Object) {
    if volume.len() == 1 && volume.contains_key("name") {
        volume.insert("emptyDir".into(), json!({}));
    }
}

fn service(service: &mut Object) {
    let Some(Value::Object(spec)) = service.get_mut("spec") else {
        return;
    };
    if text(spec, "type") == "LoadBalancer" {
        set(spec, "allocateLoadBalancerNodePorts", true);
    }
}

fn service_spec(spec: &mut Object) {
    if text(spec, "sessionAffinity") == "ClientIP" {
        let config = spec
            .entry("sessionAffinityConfig")
            .or_insert_with(|| json!({}));
        if let Value::Object(config) = config {
            let client = config.entry("clientIP").or_insert_with(|| json!({}));
            if let Value::Object(client) = client {
                set(client, "timeoutSeconds", 10_800);
            }
        }
    } else if matches!(text(spec, "sessionAffinity"), "" | "None") {
        spec.remove("sessionAffinityConfig");
    }
    let kind = match text(spec, "type") {
        "" => "ClusterIP",
        kind => kind,
    };
    let external = !spec
        .get("externalIPs")
        .and_then(Value::as_array)
        .is_none_or(Vec::is_empty)
        && kind == "ClusterIP";
    let (external, internal) = (
        external || matches!(kind, "NodePort" | "LoadBalancer"),
        matches!(kind, "NodePort" | "LoadBalancer" | "ClusterIP"),
    );
    if external {
        set(spec, "externalTrafficPolicy", "Cluster");
    }
    if internal {
        set(spec, "internalTrafficPolicy", "Cluster");
    }
}

fn service_port(port: &mut Object) {
    let target = port.get("targetPort");
    if target.is_none_or(|t| t.as_i64() == Some(0) || t.as_str() == Some("")) {
        let number = port.get("port").cloned().unwrap_or(Value::from(0));
        port.insert("targetPort".into(), number);
    }
}

/// An address is a virtual one unless it is said to be a proxy's.
fn load_balancer(status: &mut Object) {
    let entries = status.get_mut("ingress").and_then(Value::as_array_mut);
    for entry in entries.into_iter().flatten() {
        if let Value::Object(entry) = entry
            && !text(entry, "ip").is_empty()
        {
            set(entry, "ipMode", "VIP");
        }
    }
}

/// For containers a missing default is the maximum and a missing default request the default, or
/// the minimum.
fn limit_range_item(item: &mut Object) {
    if text(item, "type") != "Container" {
        return;
    }
    for (from, to) in [
        ("max", "default"),
        ("default", "defaultRequest"),
        ("min", "defaultRequest"),
    ] {
        let Some(Value::Object(source)) = item.get(from).cloned() else {
            continue;
        };
        let target = item.entry(to).or_insert_with(|| Value::Object(Map::new()));
        if let Value::Object(target) = target {
            for (name, value) in source {
                target.entry(name).or_insert(value);
            }
        }
    }
}

fn node_status(status: &mut Object) {
    if !status.contains_key("allocatable")
        && let Some(capacity) = status.get("capacity").cloned()
    {
        status.insert("allocatable".into(), capacity);
    }
}

/// The old single field and the new list say the same.
fn node(node: &mut Object) {
    let Some(Value::Object(spec)) = node.get_mut("spec") else {
        return;
    };
    if let Some(cidr) = spec.get("podCIDR").cloned() {
        set(spec, "podCIDRs", Value::Array(vec![cidr]));
    } else if let Some(first) = spec.get("podCIDRs").and_then(|c| c.get(0)).cloned() {
        spec.insert("podCIDR".into(), first);
    }
}

/// Every namespace can be selected by its name.
fn namespace(namespace: &mut Object) {
    let Some(Value::Object(metadata)) = namespace.get_mut("metadata") else {
        return;
    };
    let Some(name) = metadata.get("name").filter(|n| *n != "").cloned() else {
        return;
    };
    let labels = metadata.entry("labels").or_insert_with(|| json!({}));
    if let Value::Object(labels) = labels {
        labels.entry("kubernetes.io/metadata.name").or_insert(name);
    }
}

fn replication_controller(controller: &mut Object) {
    let template = controller
        .get("spec")
        .and_then(|s| s.get("template"))
        .and_then(|t| t.get("metadata"))
        .and_then(|m| m.get("labels"))
        .cloned();
    let Some(labels) = template else { return };
    if let Some(Value::Object(spec)) = controller.get_mut("spec") {
        set(spec, "selector", labels.clone());
    }
    if let Some(Value::Object(metadata)) = controller.get_mut("metadata") {
        set(metadata, "labels", labels);
    }
}

/// What the server chose for a Service stays when an update leaves it out, so that a client that
/// knows nothing of it does not lose it.
pub fn carry_service(service: &mut Object, old: Option<&Value>) {
    let Some(old) = old.and_then(|o| o.get("spec")).and_then(Value::as_object) else {
        return;
    };
    let Some(Value::Object(spec)) = service.get_mut("spec") else {
        return;
    };
    let kind = |spec: &Object| match text(spec, "type") {
        "" => "ClusterIP".to_owned(),
        kind => kind.to_owned(),
    };
    let (new_kind, old_kind) = (kind(spec), kind(old));
    if old_kind == "ExternalName" {
        return;
    }
    drop_of_type(spec, &new_kind, old, &old_kind);
    let has = |spec: &Object, name: &str| spec.get(name).is_some_and(|v| *v != "");
    if new_kind != "ExternalName" {
        if !has(spec, "clusterIP") && has(old, "clusterIP") {
            let same =
                spec.get("clusterIPs").is_none() || spec.get("clusterIPs") == old.get("clusterIPs");
            if same {
                for name in ["clusterIP", "clusterIPs"] {
                    if let Some(value) = old.get(name) {
                        spec.insert(name.to_owned(), value.clone());
                    }
                }
            }
        } else if spec.get("clusterIP") == old.get("clusterIP") {
            if spec.get("clusterIPs").is_none()
                && let Some(value) = old.get("clusterIPs")
            {
                spec.insert("clusterIPs".into(), value.clone());
            }
        } else if spec.get("clusterIPs") == old.get("clusterIPs")
            && let Some(one) = spec.get("clusterIP").cloned()
        {
            // A client that knows of one address alone changes it.
            spec.insert("clusterIPs".into(), json!([one]));
        }
        for name in ["ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old.get(name) {
                set(spec, name, value.clone());
            }
        }
    }
    // A balancer that wants none gives up those that it leaves out.
    let wants_ports = |spec: &Object, kind: &str| match kind {
        "NodePort" => true,
        "LoadBalancer" => spec.get("allocateLoadBalancerNodePorts") != Some(&Value::Bool(false)),
        _ => false,
    };
    if wants_ports(spec, &new_kind) && wants_ports(old, &old_kind) {
        carry_node_ports(spec, old);
    }
    let balances = |spec: &Object, kind: &str| {
        kind == "LoadBalancer" && text(spec, "externalTrafficPolicy") == "Local"
    };
    if balances(spec, &new_kind)
        && balances(old, &old_kind)
        && let Some(port) = old.get("healthCheckNodePort")
    {
        set(spec, "healthCheckNodePort", port.clone());
    }
}

/// What a Service of its old type had, and one of its new type cannot have, goes with the type, if the
/// client left it as it was.
fn drop_of_type(spec: &mut Object, new_kind: &str, old: &Object, old_kind: &str) {
    let outside = |spec: &Object, kind: &str| {
        matches!(kind, "NodePort" | "LoadBalancer")
            || (kind == "ClusterIP"
                && spec
                    .get("externalIPs")
                    .and_then(Value::as_array)
                    .is_some_and(|all| !all.is_empty()))
    };
    let mut gone: Vec<&str> = vec![];
    if new_kind == "ExternalName" {
        gone.extend(["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"]);
    }
    if old_kind == "LoadBalancer" && new_kind != "LoadBalancer" {
        gone.extend(["healthCheckNodePort", "loadBalancerClass"]);
        gone.push("allocateLoadBalancerNodePorts");
    }
    if outside(old, old_kind) && !outside(spec, new_kind) {
        gone.push("externalTrafficPolicy");
    }
    for name in gone {
        if spec.get(name) == old.get(name) {
            spec.remove(name);
        }
    }
    let ports = |kind: &str| matches!(kind, "NodePort" | "LoadBalancer");
    if ports(old_kind) && !ports(new_kind) {
        let numbers = |spec: &Object| -> Vec<Value> {
            let all = spec.get("ports").and_then(Value::as_array);
            let all = all.into_iter().flatten();
            all.filter_map(|port| port.get("nodePort").cloned())
                .collect()
        };
        if numbers(spec) == numbers(old) {
            let all = spec.get_mut("ports").and_then(Value::as_array_mut);
            for port in all.into_iter().flatten().filter_map(Value::as_object_mut) {
                port.remove("nodePort");
            }
        }
    }
}

fn carry_node_ports(spec: &mut Object, old: &Object) {
    let same = |a: &Value, b: &Value| {
        let protocol = |p: &Value| {
            let p = p.get("protocol").and_then(Value::as_str);
            p.unwrap_or("TCP").to_owned()
        };
        a.get("port") == b.get("port") && protocol(a) == protocol(b)
    };
    let olds: Vec<Value> = old
        .get("ports")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let news = spec.get_mut("ports").and_then(Value::as_array_mut);
    for port in news.into_iter().flatten() {
        let before = olds.iter().find(|o| same(o, port));
        let number = before.and_then(|o| o.get("nodePort")).cloned();
        if let (Value::Object(port), Some(number)) = (port, number) {
            set(port, "nodePort", number);
        }
    }
}
