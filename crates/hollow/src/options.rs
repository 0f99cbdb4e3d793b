//! What a simulation is started with.

use crate::{
    behaviour::{Defaults, Span},
    clock::Clock,
    kubelet::{KUBELET_PORT, Network},
    node::parse_cidr,
    object::Taint,
    scenario::Scenario,
};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

/// Label of every simulated node, value `true`: the only nodes that are ever acted for.
pub const SIMULATED: &str = "gantry.dev/simulated";

/// Options of a simulation. [`Default`] creates no nodes, and takes over those that are there.
#[derive(Clone, Debug)]
pub struct Options {
    /// Makes everything left to chance the same again.
    pub seed: u64,
    /// Nodes to create where they do not exist yet.
    pub groups: Vec<NodeGroup>,
    /// Labels that simulated nodes must carry beside [`SIMULATED`] to be taken over; empty: all are.
    /// For sharing a cluster's simulated nodes among several processes. Created nodes carry them too.
    pub selector: BTreeMap<String, String>,
    /// Time between two renewals of a node's lease. A kubelet's is 10 s.
    pub lease_interval: Duration,
    /// Time between two reports of a node's status when nothing changes. A kubelet's is 5 min.
    pub status_interval: Duration,
    /// How many simulated seconds pass in one of the clock's. Leases and reports keep to the clock.
    pub time_scale: f64,
    /// How containers behave where no rule says otherwise.
    pub defaults: Defaults,
    /// Addresses of pods, shared out in ranges to nodes that have none, as `podCIDR`. Processes that
    /// share a cluster need ranges of their own.
    pub pod_cidr: String,
    /// Addresses of nodes.
    pub node_cidr: String,
    /// Writes in flight at most, events not counted.
    pub concurrency: usize,
    /// Events a second at most; the rest are dropped, normal ones first. Zero: no events.
    pub events_per_second: u32,
    /// Where kubelets and pods can be reached; without, nodes announce no kubelet.
    pub network: Option<Network>,
    /// Whether clients are led to a simulated metrics server in the network: only sound where the API
    /// server is in it, too.
    pub metrics: bool,
    /// What happens: behaviours, images and events. Its nodes are among the groups only if put there.
    pub scenario: Option<Arc<Scenario>>,
    /// What time it is.
    pub clock: Clock,
}

impl Options {
    /// The port that kubelets announce.
    #[must_use]
    pub fn kubelet_port(&self) -> u16 {
        self.network.as_ref().map_or(0, |_| KUBELET_PORT)
    }

    /// Whether nodes are known by their names to whoever reaches their kubelets. Over a network of the
    /// machine's they are known by their addresses alone, and API servers try a name that they are told first.
    #[must_use]
    pub fn named(&self) -> bool {
        self.network.is_none() || self.metrics
    }

    /// The address of the simulated metrics server: the last of the nodes' that can be given.
    #[must_use]
    pub fn metrics_address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().filter(|_| self.metrics)?;
        let (first, last) = parse_cidr(&self.node_cidr).ok()?;
        (last - first >= 16).then(|| Ipv4Addr::from(last - 1))
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            seed: 0,
            groups: Vec::new(),
            selector: BTreeMap::new(),
            lease_interval: Duration::from_secs(10),
            status_interval: Duration::from_secs(300),
            time_scale: 1.0,
            defaults: Defaults::default(),
            pod_cidr: "10.64.0.0/10".into(),
            node_cidr: "172.16.0.0/12".into(),
            concurrency: 64,
            events_per_second: 200,
            network: None,
            metrics: true,
            scenario: None,
            clock: Clock::Wall,
        }
    }
}

/// How often a machine fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failures {
    /// From its coming up to its failure.
    pub after: Span,
    /// From its failure to its coming up.
    pub repair: Span,
}

/// Equal nodes of one cell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeGroup {
    /// Their zone, `topology.kubernetes.io/zone`.
    pub cell: String,
    /// Their region, `topology.kubernetes.io/region`.
    pub region: String,
    /// Names are this, a dash and a number from 001 on; the cell when `None`.
    pub prefix: Option<String>,
    /// How many.
    pub count: u32,
    /// CPUs of each, a quantity.
    pub cpu: String,
    /// Memory of each, a quantity.
    pub memory: String,
    /// Disk for pods of each, a quantity.
    pub disk: String,
    /// Pods of each at most.
    pub pods: u32,
    /// Extended resources of each, quantities by name.
    pub resources: BTreeMap<String, String>,
    /// NUMA nodes of each; above 0 the node gets a NodeResourceTopology, where the cluster knows that kind.
    pub numa: u32,
    /// The kubelet's version; the simulated one's if `None`.
    pub kubelet_version: Option<String>,
    /// The scenario's class of nodes, which events name; put down as a label.
    pub class: Option<String>,
    /// How often one fails by itself.
    pub failures: Option<Failures>,
    /// Labels beside the usual ones.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<Taint>,
    /// Pods that each runs by itself, known by its class.
    pub static_pods: Vec<StaticPod>,
    /// Devices that each has, known by its class.
    pub devices: Vec<Devices>,
}

/// Equal devices of a node, as a driver offers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Devices {
    /// The driver.
    pub driver: String,
    /// Names are this, a dash and a number from 0 on.
    pub name: String,
    /// How many.
    pub count: u32,
    /// What can be asked of them, as written: truth values and whole numbers are such, versions too.
    pub attributes: BTreeMap<String, String>,
    /// What they have, quantities by name.
    pub capacity: BTreeMap<String, String>,
    /// Whether several claims may have parts of one.
    pub shared: bool,
}

/// A pod that a file on the node describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaticPod {
    /// Its name, and that of its container; the node's name is added to it in the API.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its image.
    pub image: String,
    /// CPUs that it asks for, a quantity.
    pub cpu: Option<String>,
    /// Memory that it asks for, a quantity.
    pub memory: Option<String>,
    /// Whether it has the node's address.
    pub host_network: bool,
    /// Its priority class.
    pub priority_class: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Default for StaticPod {
    fn default() -> Self {
        Self {
            name: String::new(),
            namespace: "kube-system".into(),
            image: String::new(),
            cpu: None,
            memory: None,
            host_network: true,
            priority_class: None,
            labels: BTreeMap::new(),
        }
    }
}

impl Default for NodeGroup {
    fn default() -> Self {
        Self {
            cell: "sim-a".into(),
            region: "sim".into(),
            prefix: None,
            count: 1,
            cpu: "32".into(),
            memory: "128Gi".into(),
            disk: "200Gi".into(),
            pods: 110,
            resources: BTreeMap::new(),
            numa: 0,
            kubelet_version: None,
            class: None,
            failures: None,
            labels: BTreeMap::new(),
            taints: Vec::new(),
            static_pods: Vec::new(),
            devices: Vec::new(),
        }
    }
}

impl NodeGroup {
    /// Nodes of a cell, of the usual size.
    #[must_use]
    pub fn new(region: impl Into<String>, cell: impl Into<String>, count: u32) -> Self {
        Self {
            cell: cell.into(),
            region: region.into(),
            count,
            ..Self::default()
        }
    }

    /// Names of the nodes.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        let prefix = self.prefix.as_deref().unwrap_or(&self.cell);
        (1..=self.count).map(move |number| format!("{prefix}-{number:03}"))
    }
}
