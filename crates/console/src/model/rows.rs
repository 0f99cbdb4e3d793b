//! What is kept of each object: what pages show and sort by, and no more.

use gantry_api::labels;
use gantry_hub::{slim, thousandths, world::Gate};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde::Serialize;
use std::collections::BTreeMap;

/// Namespace and name.
pub type Key = (String, String);

/// An instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Instance {
    /// Tenant: the pod's namespace.
    pub tenant: String,
    /// Name.
    pub name: String,
    /// Its Group.
    pub group: String,
    /// Its App.
    pub app: String,
    /// Its cell.
    pub cell: String,
    /// Node, once placed.
    pub node: String,
    /// Address, once it has one.
    pub address: String,
    /// The revision it runs.
    pub revision: Option<i64>,
    /// Whether its containers are ready.
    pub ready: bool,
    /// Whether it receives traffic.
    pub in_service: bool,
    /// Why it is held out of traffic, in the hub's word.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub held: String,
    /// Restarts of its containers.
    pub restarts: i32,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether it is going.
    pub terminating: bool,
    /// What keeps it from being ready, in one line.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trouble: String,
    /// Requested CPU, thousandths of a core.
    pub cpu: i64,
    /// Requested memory, bytes.
    pub memory: i64,
}

/// Thousandths of a core, and bytes.
pub fn amounts(list: &BTreeMap<String, Quantity>) -> (i64, i64) {
    let of = |name: &str| list.get(name).and_then(thousandths).unwrap_or(0);
    let whole = |n: i128| i64::try_from(n).unwrap_or(i64::MAX);
    (whole(of("cpu")), whole(of("memory") / 1000))
}

impl Instance {
    /// From a pod.
    pub fn of(pod: &slim::Pod) -> Self {
        let meta = &pod.metadata;
        let label = |key: &str| {
            let value = meta.labels.as_ref().and_then(|l| l.get(key));
            value.cloned().unwrap_or_default()
        };
        let view = pod.view();
        let ready = view.ready_since.is_some() && !view.terminating;
        let (mut cpu, mut memory) = (0, 0);
        for container in &pod.spec.containers {
            let (c, m) = amounts(&container.resources.requests);
            cpu += c;
            memory += m;
        }
        Self {
            tenant: meta.namespace.clone().unwrap_or_default(),
            group: label(labels::GROUP),
            app: label(labels::APP),
            cell: label(labels::CELL),
            node: pod.spec.node_name.clone(),
            address: pod.status.pod_ip.clone(),
            revision: view.revision,
            ready,
            in_service: ready && view.gate == Gate::In,
            held: match view.gate {
                Gate::Out { reason, .. } => reason,
                _ => String::new(),
            },
            restarts: view.containers.values().map(|c| c.restarts).sum(),
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            terminating: view.terminating,
            trouble: view.trouble,
            cpu,
            memory,
            name: view.name,
        }
    }
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Name.
    pub name: String,
    /// The cell it belongs to; empty where none holds it.
    pub cell: String,
    /// Its zone, as its label says: the cell's name where a cell has no selector of its own.
    #[serde(skip)]
    pub labels: BTreeMap<String, String>,
    /// Whether it is Ready.
    pub ready: bool,
    /// Whether it takes no new pods.
    pub cordoned: bool,
    /// What is wrong with it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<String>,
    /// Allocatable CPU, thousandths of a core.
    pub cpu: i64,
    /// Allocatable memory, bytes.
    pub memory: i64,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Whether no real machine stands behind it.
    pub simulated: bool,
}

impl Node {
    /// From a node.
    pub fn of(node: &slim::Node) -> Self {
        let meta = &node.metadata;
        let (cpu, memory) = amounts(&node.status.allocatable);
        let conditions = &node.status.conditions;
        let ready = conditions
            .iter()
            .any(|c| c.kind == "Ready" && c.status == "True");
        // Ready is good when True, all others when they are not.
        let wrong = |c: &&slim::PodCondition| (c.kind == "Ready") != (c.status == "True");
        let problems = conditions
            .iter()
            .filter(wrong)
            .map(|c| {
                let what = if c.kind == "Ready" {
                    "NotReady"
                } else {
                    &c.kind
                };
                if c.message.is_empty() {
                    what.to_owned()
                } else {
                    format!("{what}: {}", c.message)
                }
            })
            .collect();
        let labels = meta.labels.clone().unwrap_or_default();
        Self {
            name: meta.name.clone().unwrap_or_default(),
            cell: String::new(),
            ready,
            cordoned: node.spec.unschedulable,
            problems,
            cpu,
            memory,
            created: meta.creation_timestamp.as_ref().map(|t| t.0),
            simulated: labels.contains_key(labels::SIMULATED),
            labels,
        }
    }
}

/// What instances ask of a node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Requested CPU, thousandths of a core.
    pub cpu: i64,
    /// Requested memory, bytes.
    pub memory: i64,
    /// Instances.
    pub instances: i32,
}

impl Load {
    /// One instance more (or, with −1, one less).
    pub fn add(&mut self, instance: &Instance, sign: i64) {
        self.cpu += sign * instance.cpu;
        self.memory += sign * instance.memory;
        self.instances += sign as i32;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pod_becomes_an_instance() {
        let pod: slim::Pod = serde_json::from_value(json!({
            "metadata": {"name": "cart-sh-a-0", "namespace": "shop",
                "labels": {"gantry.dev/group": "cart", "gantry.dev/cell": "sh-a", "gantry.dev/app": "cart", "gantry.dev/revision": "3"}},
            "spec": {"nodeName": "n1", "containers": [{"name": "cart", "image": "cart:3",
                "resources": {"requests": {"cpu": "250m", "memory": "1Gi"}}}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [
                {"type": "ContainersReady", "status": "True", "lastTransitionTime": "2026-11-21T08:00:00Z"},
                {"type": "gantry.dev/in-service", "status": "False", "reason": "Bastion", "lastTransitionTime": "2026-11-21T08:00:00Z"}],
                "containerStatuses": [{"name": "cart", "restartCount": 2, "ready": true}]},
        }))
        .unwrap();
        let row = Instance::of(&pod);
        assert_eq!(
            (
                row.node.as_str(),
                row.address.as_str(),
                row.revision,
                row.restarts
            ),
            ("n1", "10.0.0.1", Some(3), 2)
        );
        assert_eq!(
            (row.ready, row.in_service, row.held.as_str()),
            (true, false, "Bastion")
        );
        assert_eq!((row.cpu, row.memory), (250, 1 << 30));
        let mut load = Load::default();
        load.add(&row, 1);
        load.add(&row, -1);
        assert_eq!(load, Load::default());
    }

    #[test]
    fn a_node_tells_what_is_wrong_with_it() {
        let node: slim::Node = serde_json::from_value(json!({
            "metadata": {"name": "n1", "labels": {"topology.kubernetes.io/zone": "sh-a"}},
            "spec": {"unschedulable": true},
            "status": {"allocatable": {"cpu": "4"}, "conditions": [
                {"type": "Ready", "status": "Unknown", "message": "kubelet stopped"},
                {"type": "DiskPressure", "status": "False"},
                {"type": "MemoryPressure", "status": "True"}]},
        }))
        .unwrap();
        let row = Node::of(&node);
        assert_eq!(
            row.problems,
            ["NotReady: kubelet stopped", "MemoryPressure"]
        );
        assert!(row.cordoned && !row.ready && row.cpu == 4000);
    }
}
