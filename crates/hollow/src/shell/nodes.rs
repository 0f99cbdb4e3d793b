//! The nodes of the simulation: creating, taking over, keeping alive.

use super::{
    pressure::Most,
    stage::Fate,
    statics::Static,
    timer::{Id, Timer},
    world::{Answer, Due, Subject, World, Write, retry_after},
};
use crate::{
    behaviour::Draw,
    clock::Millis,
    node::{self, Pool, Room},
    object::{NodeCondition, NodeObject, Taint},
    pod::{Images, Volumes},
    scenario::{CLASS, Candidate},
};
use kube::{ResourceExt as _, runtime::watcher::Event};
use rustc_hash::FxHashSet;
use serde_json::{Value, json};
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc, time::Duration};

const NODES: &str = "/api/v1/nodes";
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases";
const TOPOLOGIES: &str = "/apis/topology.node.k8s.io/v1alpha2/noderesourcetopologies";
/// Label of a node that names its zone.
const ZONE: &str = "topology.kubernetes.io/zone";
/// Put on nodes that do not report; the node's own report takes them off.
const LIFECYCLE_TAINTS: [&str; 2] = [
    "node.kubernetes.io/not-ready",
    "node.kubernetes.io/unreachable",
];

/// Annotation of a node, value `true`: it plays dead. Its lease runs out, and its pods stay in the
/// state in which they last were reported, until the annotation goes.
const DOWN: &str = "hollow.gantry.dev/down";

/// Leases are renewed at so many moments of their interval at least,
const BEATS: f64 = 20.0;
/// and this far apart at most.
const LONGEST_BEAT: Duration = Duration::from_millis(500);

/// A node that is acted for.
pub(super) struct NodeEntry {
    pub name: Arc<str>,
    pub zone: Arc<str>,
    /// Of the scenario; empty if it has none.
    pub class: Arc<str>,
    /// What the scenario does to it.
    pub fate: Fate,
    /// What it says of itself beside its conditions has changed.
    pub renamed: bool,
    /// The kubelet's version.
    version: String,
    pub uid: String,
    pub ip: Arc<str>,
    pub pool: Option<Pool>,
    range: Option<String>,
    pub room: Room,
    /// The most that its pods ever use.
    pub most: Most,
    /// Whether it looks at what they use.
    pub looking: bool,
    /// Its static pods.
    pub statics: Vec<Static>,
    pub images: Images,
    /// Files that programs have left on it.
    pub host: Volumes,
    pub pods: FxHashSet<Id>,
    resource_version: String,
    conditions: Vec<NodeCondition>,
    taints: Vec<Taint>,
    pub capacity: BTreeMap<String, String>,
    allocatable: BTreeMap<String, String>,
    /// The range must be written.
    range_due: bool,
    /// The whole status must be written.
    register: bool,
    /// The conditions must be written.
    pub report: bool,
    /// Lifecycle taints must be taken off.
    untaint: bool,
    /// Volumes that are attached to it.
    attached: Vec<String>,
    /// Volumes that it says it uses.
    in_use: Vec<String>,
    /// Volumes that it has to say it uses.
    in_use_due: Option<Vec<String>>,
    /// A write of the node is queued, in flight, or waiting for another try.
    busy: bool,
    leased: bool,
    /// A write of the lease is queued or in flight.
    pub leasing: bool,
    /// When it is renewed next.
    pub lease_wake: Option<Millis>,
    failures: u32,
    lease_failures: u32,
    epoch: u32,
}

impl NodeEntry {
    /// As events choose among nodes.
    pub fn candidate(&self) -> Candidate<'_> {
        Candidate {
            name: &self.name,
            zone: &self.zone,
            class: &self.class,
        }
    }
}

/// A node of the options that does not exist yet.
pub(super) struct Missing {
    pub group: usize,
    pub name: String,
    ip: String,
    range: String,
    failures: u32,
}

impl World {
    /// Takes in what the watch of nodes shows.
    pub fn node_seen(&mut self, event: Event<NodeObject>, now: Millis) {
        match event {
            Event::Init => {
                self.node_epoch = self.node_epoch.wrapping_add(1);
                self.node_list.clear();
            }
            Event::InitApply(node) => self.node_list.push(node),
            Event::Apply(node) => self.node_applied(node, now),
            Event::Delete(node) => {
                if let Some(id) = self.node_ids.get(node.name_any().as_str()).copied() {
                    self.node_gone(id);
                }
            }
            Event::InitDone => {
                // First all addresses that are in use, then the nodes that still need some.
                let list = std::mem::take(&mut self.node_list);
                for node in &list {
                    self.reserve(node);
                }
                for node in list {
                    self.node_applied(node, now);
                }
                for id in self.nodes.ids() {
                    if self
                        .nodes
                        .get(id)
                        .is_some_and(|entry| entry.epoch != self.node_epoch)
                    {
                        self.node_gone(id);
                    }
                }
            }
        }
    }

    /// Queues the creation of the options' nodes that are not there.
    ///
    /// # Errors
    /// When an address range has no room for them.
    pub fn create_missing(&mut self) -> Result<(), node::AddressError> {
        for (index, group) in self.options.groups.iter().enumerate() {
            for name in group.names() {
                if self.node_ids.contains_key(name.as_str()) {
                    continue;
                }
                let ip = Ipv4Addr::from(self.node_addresses.allocate(1)?).to_string();
                let size = range_size(group.pods);
                let first = Ipv4Addr::from(self.pod_ranges.allocate(size)?);
                let range = format!("{first}/{}", 32 - size.trailing_zeros());
                let at = u32::try_from(self.missing.len()).unwrap_or(u32::MAX);
                self.missing.push(Missing {
                    group: index,
                    name,
                    ip,
                    range,
                    failures: 0,
                });
                self.queue.push_back(Due::Create(at));
            }
        }
        Ok(())
    }

    fn reserve(&mut self, node: &NodeObject) {
        if let Some(Ok((first, last))) = node.spec.pod_cidr.as_deref().map(node::parse_cidr) {
            self.pod_ranges.take(first, last);
        }
        let address = node
            .status
            .addresses
            .iter()
            .find(|it| it.type_ == "InternalIP");
        if let Some(Ok(ip)) = address.map(|it| it.address.parse::<Ipv4Addr>()) {
            self.node_addresses.take(ip.into(), ip.into());
        }
    }

    fn node_applied(&mut self, object: NodeObject, now: Millis) {
        let NodeObject {
            metadata,
            spec,
            status,
        } = object;
        let labels = metadata.labels.unwrap_or_default();
        let selected = |(key, value)| labels.get(key) == Some(value);
        let down = metadata
            .annotations
            .is_some_and(|it| it.get(DOWN).is_some_and(|it| it == "true"));
        let ours = !down && self.options.selector.iter().all(selected);
        let name: Arc<str> = metadata.name.unwrap_or_default().into();
        let uid = metadata.uid.unwrap_or_default();
        let known = self.node_ids.get(&name).copied();
        if let Some(id) = known
            && (!ours
                || metadata.deletion_timestamp.is_some()
                || self.nodes.get(id).is_some_and(|it| it.uid != uid))
        {
            self.node_gone(id);
        }
        if !ours || metadata.deletion_timestamp.is_some() {
            return;
        }
        let label = |key: &str| labels.get(key).map_or("", String::as_str);
        let id = match self.node_ids.get(&name).copied() {
            Some(id) => id,
            None => {
                let address = status
                    .addresses
                    .iter()
                    .find(|it| it.type_ == "InternalIP")
                    .map(|it| it.address.as_str());
                let version = status.node_info.kubelet_version.clone();
                let kind = (label(ZONE), label(CLASS));
                self.node_met(name, uid, address, kind, version, now)
            }
        };
        let (epoch, port) = (self.node_epoch, self.options.kubelet_port());
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.epoch = epoch;
        entry.resource_version = metadata.resource_version.unwrap_or_default();
        // What the node will report once it is registered holds from now on: pods may be bound already.
        entry.capacity = if status.capacity.is_empty() {
            usual_capacity()
        } else {
            status.capacity
        };
        let allocatable = if status.allocatable.is_empty() {
            entry.capacity.clone()
        } else {
            status.allocatable
        };
        if entry.allocatable != allocatable {
            entry.room.offer(&allocatable);
            entry.allocatable = allocatable;
        }
        let ready = status
            .conditions
            .iter()
            .any(|it| it.type_ == "Ready" && it.status == "True");
        entry.register = status.node_info.kubelet_version.is_empty()
            || status.daemon_endpoints.kubelet_endpoint.port != port;
        entry.report |= !ready && !entry.register;
        entry.untaint = ready
            && spec
                .taints
                .iter()
                .any(|it| LIFECYCLE_TAINTS.contains(&it.key.as_str()));
        entry.conditions = status.conditions;
        entry.taints = spec.taints;
        entry.attached = status
            .volumes_attached
            .into_iter()
            .map(|it| it.name)
            .collect();
        entry.in_use = status.volumes_in_use;
        self.settle_volumes(id);
        self.settle_range(id, spec.pod_cidr);
        self.queue_node(id);
        self.mirror_statics(id);
    }

    fn node_met(
        &mut self,
        name: Arc<str>,
        uid: String,
        address: Option<&str>,
        (zone, class): (&str, &str),
        version: String,
        now: Millis,
    ) -> Id {
        let given = address
            .and_then(|ip| ip.parse::<Ipv4Addr>().ok())
            .map(u32::from);
        let ip = match given {
            Some(ip) => {
                self.node_addresses.take(ip, ip);
                ip
            }
            None => self.node_addresses.allocate(1).unwrap_or_else(|error| {
                tracing::error!(%error, node = &*name, "no address for the node");
                0
            }),
        };
        let id = self.nodes.insert(NodeEntry {
            name: name.clone(),
            zone: zone.into(),
            class: class.into(),
            fate: Fate::default(),
            renamed: false,
            version: match version.is_empty() {
                true => node::KUBELET_VERSION.into(),
                false => version,
            },
            uid,
            ip: Ipv4Addr::from(ip).to_string().into(),
            pool: None,
            range: None,
            room: Room::default(),
            most: Most::default(),
            looking: false,
            statics: Vec::new(),
            images: Images::default(),
            host: Volumes::default(),
            pods: FxHashSet::default(),
            resource_version: String::new(),
            conditions: Vec::new(),
            taints: Vec::new(),
            capacity: BTreeMap::new(),
            allocatable: BTreeMap::new(),
            range_due: false,
            register: false,
            report: false,
            untaint: false,
            attached: Vec::new(),
            in_use: Vec::new(),
            in_use_due: None,
            busy: false,
            leased: false,
            leasing: true,
            lease_wake: None,
            failures: 0,
            lease_failures: 0,
            epoch: self.node_epoch,
        });
        self.node_ids.insert(name.clone(), id);
        if let (Some(network), Some(entry)) = (&self.options.network, self.nodes.get(id)) {
            network.add_node(&name, &entry.ip);
        }
        if self.strangers.remove(&*name) {
            self.to_list.push(name.to_string());
        }
        self.urgent.push_back(Due::Lease(id));
        let interval = self.options.status_interval;
        let first = interval.mul_f64(Draw::new(0).word("report").word(&name).unit());
        self.timers.at(now.plus(first), Timer::Report(id));
        self.join(id, now);
        self.staff(id);
        id
    }

    /// What is attached is in use as long as there is a pod with claims on the node that has not ended. A
    /// kubelet knows which volume is whose; here that would take a watch of claims and of volumes.
    pub(super) fn settle_volumes(&mut self, id: Id) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        if entry.attached.is_empty() && entry.in_use.is_empty() {
            return;
        }
        let mut pods = entry.pods.iter().filter_map(|id| self.pods.get(*id));
        let used = pods.any(|it| {
            it.pod.spec.claims && !(it.pod.stopped() && (it.pod.killing || it.pod.finished()))
        });
        let wanted = if used { entry.attached.clone() } else { vec![] };
        entry.in_use_due = (wanted != entry.in_use).then_some(wanted);
        self.queue_node(id);
    }

    /// Makes a pool of the node's address range; a node without one gets one.
    fn settle_range(&mut self, id: Id, range: Option<String>) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        if entry.range.is_some() && (range.is_none() || entry.range == range) {
            entry.range_due = range.is_none();
            return;
        }
        if let Some(Ok((first, _))) = entry.range.as_deref().map(node::parse_cidr) {
            // Somebody else was faster to give it one: theirs holds.
            self.pod_ranges.release(first);
        }
        entry.range_due = false;
        let range = match range {
            Some(range) => {
                if let Ok((first, last)) = node::parse_cidr(&range) {
                    self.pod_ranges.take(first, last);
                }
                range
            }
            None => {
                let pods = entry
                    .allocatable
                    .get("pods")
                    .and_then(|pods| pods.parse().ok())
                    .unwrap_or(110);
                let size = range_size(pods);
                match self.pod_ranges.allocate(size) {
                    Ok(first) => {
                        entry.range_due = true;
                        format!("{}/{}", Ipv4Addr::from(first), 32 - size.trailing_zeros())
                    }
                    Err(error) => {
                        tracing::error!(%error, node = &*entry.name, "the node's pods get no addresses");
                        return;
                    }
                }
            }
        };
        match Pool::new(&range) {
            Ok(pool) => entry.pool = Some(pool),
            Err(error) => {
                tracing::error!(%error, node = &*entry.name, "the node's pods get no addresses")
            }
        }
        entry.range = Some(range);
    }

    fn node_gone(&mut self, id: Id) {
        let Some(entry) = self.nodes.remove(id) else {
            return;
        };
        self.node_ids.remove(&entry.name);
        if let Some(network) = &self.options.network {
            network.remove_node(&entry.name, &entry.ip);
        }
        if let Ok(ip) = entry.ip.parse::<Ipv4Addr>() {
            self.node_addresses.release(ip.into());
        }
        if let Some(Ok((first, _))) = entry.range.as_deref().map(node::parse_cidr) {
            self.pod_ranges.release(first);
        }
        // Its pods are left as they are: collecting them is the cluster's business. Should the node
        // come back, they are looked for.
        if !entry.pods.is_empty() {
            self.strangers.insert(entry.name.to_string());
        }
        for pod in entry.pods {
            self.forget(pod);
        }
    }

    pub(super) fn queue_node(&mut self, id: Id) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        let due = entry.in_use_due.is_some()
            || entry.range_due
            || entry.register
            || entry.renamed
            || entry.report
            || entry.untaint;
        if !entry.busy && due && !entry.fate.away() {
            entry.busy = true;
            self.urgent.push_back(Due::Node(id));
        }
    }

    pub(super) fn report_due(&mut self, id: Id, now: Millis) {
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.report = true;
        self.timers
            .at(now.plus(self.options.status_interval), Timer::Report(id));
        self.queue_node(id);
    }

    /// A lease is to be renewed, if that is the time for which it was planned last.
    pub(super) fn lease_due(&mut self, id: Id, at: Millis) {
        if let Some(entry) = self.nodes.get_mut(id)
            && entry.lease_wake == Some(at)
            && !entry.leasing
        {
            entry.leasing = true;
            self.urgent.push_back(Due::Lease(id));
        }
    }

    pub(super) fn lease_write(&mut self, id: Id, now: Millis) -> Option<(Subject, Write)> {
        let entry = self.nodes.get_mut(id)?;
        if entry.fate.away() {
            // Taken up again when it is back.
            entry.leasing = false;
            return None;
        }
        let now = now.shifted(entry.fate.skew);
        Some(if entry.leased {
            let renewal = node::lease_renewal(&entry.name, now);
            (
                Subject::Lease(id),
                Write::Merge(LEASES.into(), entry.name.to_string(), renewal),
            )
        } else {
            (
                Subject::LeaseCreate(id),
                Write::Create(LEASES.into(), node::lease(&entry.name, &entry.uid, now)),
            )
        })
    }

    pub(super) fn create_write(&self, index: u32, now: Millis) -> Option<(Subject, Write)> {
        let it = self.missing.get(index as usize)?;
        let group = self.options.groups.get(it.group)?;
        let body = node::node(
            group,
            &it.name,
            &it.ip,
            (self.options.kubelet_port(), self.options.named()),
            &it.range,
            now,
        );
        Some((Subject::Create(index), Write::Create(NODES.into(), body)))
    }

    pub(super) fn topology_write(&self, index: u32) -> Option<(Subject, Write)> {
        let it = self.missing.get(index as usize)?;
        let body = node::topology(self.options.groups.get(it.group)?, &it.name);
        let write = Write::Create(TOPOLOGIES.into(), body);
        (!self.topology_missed).then_some((Subject::Topology(index), write))
    }

    pub(super) fn node_write(&mut self, id: Id, now: Millis) -> Option<(Subject, Write)> {
        let (port, named) = (self.options.kubelet_port(), self.options.named());
        let entry = self.nodes.get_mut(id)?;
        if entry.fate.away() {
            entry.busy = false;
            return None;
        }
        let pressures = entry.fate.pressures(now);
        let now = now.shifted(entry.fate.skew);
        let name = entry.name.to_string();
        if entry.range_due {
            let patch = json!({"spec": {"podCIDR": entry.range, "podCIDRs": [entry.range]}});
            return Some((
                Subject::NodeRange(id),
                Write::Strategic(NODES.into(), name, None, patch),
            ));
        }
        if entry.register || entry.renamed {
            let who = node::Identity {
                name: &name,
                ip: &entry.ip,
                port,
                version: &entry.version,
                boots: entry.fate.boots,
                named,
            };
            let mut status = node::node_status(
                &who,
                &entry.capacity,
                &entry.allocatable,
                &entry.conditions,
                pressures,
                now,
            );
            if let Some(addresses) = status["addresses"].as_array_mut().filter(|_| !named) {
                addresses.push(json!({"type": "Hostname", "$patch": "delete"}));
            }
            let patch = json!({"status": status});
            return Some((
                Subject::NodeStatus(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if let Some(volumes) = &entry.in_use_due {
            let mut patch = node::heartbeat(&entry.conditions, pressures, now);
            patch["status"]["volumesInUse"] = json!(volumes);
            return Some((
                Subject::NodeVolumes(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if entry.report {
            let patch = node::heartbeat(&entry.conditions, pressures, now);
            return Some((
                Subject::NodeStatus(id),
                Write::Strategic(NODES.into(), name, Some("status"), patch),
            ));
        }
        if entry.untaint {
            // Taints are a list without a key, so it is written whole, on this version only.
            let rest: Vec<&Taint> = entry
                .taints
                .iter()
                .filter(|it| !LIFECYCLE_TAINTS.contains(&it.key.as_str()))
                .collect();
            let taints = if rest.is_empty() {
                Value::Null
            } else {
                json!(rest)
            };
            let patch = json!({
                "metadata": {"resourceVersion": entry.resource_version},
                "spec": {"taints": taints},
            });
            return Some((
                Subject::NodeTaints(id),
                Write::Merge(NODES.into(), name, patch),
            ));
        }
        entry.busy = false;
        None
    }

    pub(super) fn node_answered(&mut self, subject: Subject, answer: &Answer, now: Millis) {
        match subject {
            Subject::Create(index) => {
                if *answer == Answer::Conflict {
                    let name = self.missing.get(index as usize).map(|it| it.name.as_str());
                    tracing::info!(
                        name,
                        "the node exists; it is acted for if it is labelled as simulated"
                    );
                }
                let group = self.missing.get(index as usize).map(|it| it.group);
                let group = group.and_then(|it| self.options.groups.get(it));
                if *answer == Answer::Done && group.is_some_and(|it| it.numa > 0) {
                    self.queue.push_back(Due::Topology(index));
                }
                if let (Answer::Failed(_) | Answer::Missing, Some(it)) =
                    (answer, self.missing.get_mut(index as usize))
                {
                    it.failures += 1;
                    let wait = retry_after(&it.name, it.failures);
                    self.timers.at(now.plus(wait), Timer::Create(index));
                }
            }
            Subject::LeaseNamespace => self.lease_namespace_asked = false,
            Subject::Topology(_) => match answer {
                Answer::Done | Answer::Conflict => {}
                Answer::Missing if !self.topology_missed => {
                    self.topology_missed = true;
                    tracing::warn!(
                        "the cluster knows no NodeResourceTopology: NUMA nodes go untold"
                    );
                }
                Answer::Missing => {}
                Answer::Failed(error) => tracing::warn!(error, "cannot tell of NUMA nodes"),
            },
            Subject::LeaseCreate(id) | Subject::Lease(id) => {
                self.lease_answered(id, subject, answer, now)
            }
            Subject::NodeStatus(id)
            | Subject::NodeVolumes(id)
            | Subject::NodeRange(id)
            | Subject::NodeTaints(id) => {
                let Some(entry) = self.nodes.get_mut(id) else {
                    return;
                };
                if *answer != Answer::Done {
                    // After a conflict the watch brings the version to go by.
                    entry.failures += 1;
                    let wait = retry_after(&entry.name, entry.failures);
                    self.timers.at(now.plus(wait), Timer::NodeWrite(id));
                    return;
                }
                entry.failures = 0;
                match subject {
                    Subject::NodeRange(_) => entry.range_due = false,
                    Subject::NodeTaints(_) => entry.untaint = false,
                    Subject::NodeVolumes(_) => {
                        entry.report = false;
                        if let Some(told) = entry.in_use_due.take() {
                            entry.in_use = told;
                        }
                    }
                    _ => (entry.register, entry.renamed, entry.report) = (false, false, false),
                }
                entry.busy = false;
                self.queue_node(id);
            }
            Subject::PodStatus(_) | Subject::PodDelete(_) | Subject::Mirror(..) => {}
        }
    }

    fn lease_answered(&mut self, id: Id, subject: Subject, answer: &Answer, now: Millis) {
        let interval = self.options.lease_interval;
        let Some(entry) = self.nodes.get_mut(id) else {
            return;
        };
        entry.leasing = false;
        let creating = matches!(subject, Subject::LeaseCreate(_));
        let wait = match answer {
            Answer::Done => {
                // The first renewals spread over the interval, the later ones keep the distance.
                let wait = if creating {
                    interval.mul_f64(Draw::new(0).word(&entry.name).unit())
                } else {
                    interval
                };
                (entry.leased, entry.lease_failures) = (true, 0);
                // Leases that are due together are committed together: the API's disk is written
                // once for some dozens of them.
                let beat = interval.div_f64(BEATS).min(LONGEST_BEAT);
                let at = now.plus(wait).floor(beat);
                entry.lease_wake = Some(at);
                self.timers.at(at, Timer::Lease(id));
                return;
            }
            // It is there: renew it. It is not: create it.
            Answer::Conflict if creating => {
                entry.leased = true;
                Duration::ZERO
            }
            Answer::Missing if !creating => {
                entry.leased = false;
                Duration::ZERO
            }
            other => {
                entry.lease_failures += 1;
                let wait = retry_after(&entry.name, entry.lease_failures).min(interval);
                if creating && *other == Answer::Missing && !self.lease_namespace_asked {
                    self.lease_namespace_asked = true;
                    self.urgent.push_back(Due::LeaseNamespace);
                }
                wait
            }
        };
        let at = now.plus(wait);
        if let Some(entry) = self.nodes.get_mut(id) {
            entry.lease_wake = Some(at);
        }
        self.timers.at(at, Timer::Lease(id));
    }
}

/// Of a node that was created without a word about its size.
fn usual_capacity() -> BTreeMap<String, String> {
    [
        ("cpu", "32"),
        ("memory", "128Gi"),
        ("ephemeral-storage", "200Gi"),
        ("pods", "110"),
    ]
    .map(|(name, text)| (name.to_owned(), text.to_owned()))
    .into()
}

/// Addresses set aside for a node of so many pods: all of them, and as many again on their way out,
/// within a /24 to a /16.
fn range_size(pods: u32) -> u32 {
    pods.saturating_add(3)
        .next_power_of_two()
        .clamp(256, 1 << 16)
}
