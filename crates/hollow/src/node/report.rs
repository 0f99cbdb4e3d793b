//! What a simulated node says of itself: the Node, its status, its Lease.

use crate::{
    behaviour::Draw,
    clock::Millis,
    object::{NodeCondition, parse_quantity},
    options::{NodeGroup, SIMULATED},
    scenario::CLASS,
};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// The kubelet whose behaviour is simulated.
pub const KUBELET_VERSION: &str = "v1.36.0";
/// Names the runtime as what it is.
const RUNTIME_VERSION: &str = concat!("simulated://", env!("CARGO_PKG_VERSION"));
/// Seconds for which a lease holds, as a kubelet's.
const LEASE_SECONDS: u32 = 40;

/// A node to be created.
#[must_use]
pub fn node(
    group: &NodeGroup,
    name: &str,
    ip: &str,
    (port, named): (u16, bool),
    pod_cidr: &str,
    now: Millis,
) -> Value {
    let mut labels = group.labels.clone();
    let usual = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", "linux"),
        ("kubernetes.io/arch", "amd64"),
        ("topology.kubernetes.io/zone", &group.cell),
        ("topology.kubernetes.io/region", &group.region),
        (SIMULATED, "true"),
    ];
    labels.extend(usual.map(|(key, value)| (key.to_owned(), value.to_owned())));
    if let Some(class) = &group.class {
        labels.insert(CLASS.to_owned(), class.clone());
    }
    let mut offered = BTreeMap::from([
        ("cpu".to_owned(), group.cpu.clone()),
        ("memory".to_owned(), group.memory.clone()),
        ("ephemeral-storage".to_owned(), group.disk.clone()),
        ("pods".to_owned(), group.pods.to_string()),
    ]);
    offered.extend(group.resources.clone());
    let mut spec = json!({"podCIDR": pod_cidr, "podCIDRs": [pod_cidr]});
    if !group.taints.is_empty() {
        spec["taints"] = json!(group.taints);
    }
    json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {SIMULATED: "a simulated node of Gantry: pods bound to it report as if they ran, and run nowhere"},
        },
        "spec": spec,
        "status": node_status(
            &Identity {
                name,
                ip,
                port,
                version: group.kubelet_version.as_deref().unwrap_or(KUBELET_VERSION),
                boots: 0,
                named,
            },
            &offered,
            &offered,
            &[],
            [false; 3],
            now,
        ),
    })
}

/// The NUMA nodes of a node, as topology exporters tell of them: its CPUs and memory in equal parts. What
/// is free of them does not follow the pods.
#[must_use]
pub fn topology(group: &NodeGroup, name: &str) -> Value {
    let part = |resource: &str, whole: &str| {
        let amount = parse_quantity(resource, whole).unwrap_or(0) / i64::from(group.numa.max(1));
        let amount = match resource {
            "cpu" => format!("{amount}m"),
            _ => amount.to_string(),
        };
        json!({"name": resource, "capacity": amount, "allocatable": amount, "available": amount})
    };
    let zones: Vec<Value> = (0..group.numa)
        .map(|zone| {
            let costs: Vec<Value> = (0..group.numa)
                .map(|other| json!({"name": format!("node-{other}"), "value": if other == zone { 10 } else { 20 }}))
                .collect();
            json!({
                "name": format!("node-{zone}"), "type": "Node", "costs": costs,
                "resources": [part("cpu", &group.cpu), part("memory", &group.memory)],
            })
        })
        .collect();
    json!({
        "apiVersion": "topology.node.k8s.io/v1alpha2",
        "kind": "NodeResourceTopology",
        "metadata": {"name": name, "labels": {SIMULATED: "true"}},
        "attributes": [{"name": "topologyManagerPolicy", "value": "none"}, {"name": "topologyManagerScope", "value": "container"}],
        "zones": zones,
    })
}

/// Who a node says that it is.
#[derive(Clone, Copy, Debug)]
pub struct Identity<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its address.
    pub ip: &'a str,
    /// The kubelet's port.
    pub port: u16,
    /// The kubelet's version.
    pub version: &'a str,
    /// How often it has been switched on again.
    pub boots: u32,
    /// Whether its name leads to it.
    pub named: bool,
}

/// Whether it is short of memory, disk, process ids.
pub type Pressures = [bool; 3];

/// The status of a node as first reported.
#[must_use]
pub fn node_status(
    who: &Identity<'_>,
    capacity: &BTreeMap<String, String>,
    allocatable: &BTreeMap<String, String>,
    before: &[NodeCondition],
    pressures: Pressures,
    now: Millis,
) -> Value {
    let Identity { name, ip, port, .. } = *who;
    let boot = match who.boots {
        0 => "boot".to_owned(),
        boots => format!("boot {boots}"),
    };
    let id = |what: &str| {
        let draw = Draw::new(0).word(what).word(name);
        format!("{:016x}{:016x}", draw.bits(), draw.number(1).bits())
    };
    let mut addresses = vec![json!({"type": "InternalIP", "address": ip})];
    if who.named {
        addresses.push(json!({"type": "Hostname", "address": name}));
    }
    json!({
        "capacity": capacity,
        "allocatable": allocatable,
        "addresses": addresses,
        "conditions": conditions(before, pressures, now),
        "daemonEndpoints": {"kubeletEndpoint": {"Port": port}},
        "nodeInfo": {
            "architecture": "amd64",
            "bootID": id(&boot),
            "containerRuntimeVersion": RUNTIME_VERSION,
            "kernelVersion": "simulated",
            "kubeProxyVersion": "",
            "kubeletVersion": who.version,
            "machineID": id("machine"),
            "operatingSystem": "linux",
            "osImage": "Gantry simulated node",
            "systemUUID": id("system"),
        },
    })
}

/// The conditions of a kubelet. The transition time of one that held already stays.
fn conditions(before: &[NodeCondition], pressures: Pressures, now: Millis) -> Value {
    let one = |name: &str, holds: bool, (reason, message): (&str, &str)| {
        let status = if holds { "True" } else { "False" };
        let same = before
            .iter()
            .find(|it| it.type_ == name && it.status == status);
        let since = same
            .and_then(|it| it.last_transition_time.clone())
            .unwrap_or_else(|| now.to_string());
        json!({
            "type": name, "status": status, "reason": reason, "message": message,
            "lastHeartbeatTime": now.to_string(), "lastTransitionTime": since,
        })
    };
    let [memory, disk, pids] = pressures;
    let word = |holds, yes, no| if holds { yes } else { no };
    json!([
        one(
            "MemoryPressure",
            memory,
            word(
                memory,
                (
                    "KubeletHasInsufficientMemory",
                    "kubelet has insufficient memory available"
                ),
                (
                    "KubeletHasSufficientMemory",
                    "kubelet has sufficient memory available"
                ),
            )
        ),
        one(
            "DiskPressure",
            disk,
            word(
                disk,
                ("KubeletHasDiskPressure", "kubelet has disk pressure"),
                ("KubeletHasNoDiskPressure", "kubelet has no disk pressure"),
            )
        ),
        one(
            "PIDPressure",
            pids,
            word(
                pids,
                (
                    "KubeletHasInsufficientPID",
                    "kubelet has insufficient PID available"
                ),
                (
                    "KubeletHasSufficientPID",
                    "kubelet has sufficient PID available"
                ),
            )
        ),
        one(
            "Ready",
            true,
            (
                "KubeletReady",
                "kubelet is posting ready status (simulated)"
            )
        ),
    ])
}

/// The patch of a status that has not changed: conditions merge by type.
#[must_use]
pub fn heartbeat(before: &[NodeCondition], pressures: Pressures, now: Millis) -> Value {
    json!({"status": {"conditions": conditions(before, pressures, now)}})
}

/// The node's lease, owned by the node so that it goes when the node does.
#[must_use]
pub fn lease(name: &str, uid: &str, now: Millis) -> Value {
    json!({
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {
            "name": name,
            "ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}],
        },
        "spec": {"holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now.micro_time()},
    })
}

/// The patch that renews a lease; takes it over from whoever held it.
#[must_use]
pub fn lease_renewal(name: &str, now: Millis) -> Value {
    let mut spec = Map::new();
    spec.insert("holderIdentity".into(), name.into());
    spec.insert("leaseDurationSeconds".into(), LEASE_SECONDS.into());
    spec.insert("renewTime".into(), now.micro_time().into());
    json!({"spec": spec})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_labelled_for_what_it_is() {
        let group = NodeGroup::new("east", "sh-a", 2);
        let names: Vec<_> = group.names().collect();
        assert_eq!(names, ["sh-a-001", "sh-a-002"]);
        let mut node = node(
            &group,
            "sh-a-001",
            "172.16.0.1",
            (0, true),
            "10.64.0.0/24",
            Millis(1_700_000_000_000),
        );
        let runtime = node["status"]["nodeInfo"]["containerRuntimeVersion"].take();
        assert!(
            runtime
                .as_str()
                .is_some_and(|it| it.starts_with("simulated://")),
            "{runtime}"
        );
        insta::assert_json_snapshot!(node);
    }

    #[test]
    fn a_condition_that_held_keeps_its_time() {
        let held = NodeCondition {
            type_: "Ready".into(),
            status: "True".into(),
            last_transition_time: Some("2020-01-01T00:00:00Z".into()),
        };
        let ready = |before: &[NodeCondition]| {
            heartbeat(before, [false; 3], Millis(1_700_000_000_000))["status"]["conditions"][3]["lastTransitionTime"].clone()
        };
        assert_eq!(ready(std::slice::from_ref(&held)), "2020-01-01T00:00:00Z");
        let unknown = NodeCondition {
            status: "Unknown".into(),
            ..held
        };
        assert_eq!(ready(&[unknown]), "2023-11-14T22:13:20Z");
    }
}
