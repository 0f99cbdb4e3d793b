//! The nodes of the simulation: creating, taking over, keeping alive.

use super::{
    node_writes::LIFECYCLE_TAINTS,
    pressure::Most,
    stage::Fate,
    statics::Static,
    timer::{Id, Timer},
    world::{Due, World},
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
use std::{collections::BTreeMap, net::Ipv4Addr, sync::Arc};

/// Label of a node that names its zone.
const ZONE: &str = "topology.kubernetes.io/zone";

/// Annotation of a node, value `true`: it plays dead. Its lease runs out, and its pods stay in the
/// state in which they last were reported, until the annotation goes.
const DOWN: &str = "hollow.gantry.dev/down";

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
    pub(super) version: String,
    pub uid: String,
    pub ip: Arc<str>,
    pub pool: Option<Pool>,
    pub(super) range: Option<String>,
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
    pub(super) resource_version: String,
    pub(super) conditions: Vec<NodeCondition>,
    pub(super) taints: Vec<Taint>,
    pub capacity: BTreeMap<String, String>,
    pub(super) allocatable: BTreeMap<String, String>,
    /// The range must be written.
    pub(super) range_due: bool,
    /// The whole status must be written.
    pub(super) register: bool,
    /// The conditions must be written.
    pub report: bool,
    /// Lifecycle taints must be taken off.
    pub(super) untaint: bool,
    /// Volumes that are attached to it.
    pub(super) attached: Vec<String>,
    /// Volumes that it says it uses.
    pub(super) in_use: Vec<String>,
    /// Volumes that it has to say it uses.
    pub(super) in_use_due: Option<Vec<String>>,
    /// A write of the node is queued, in flight, or waiting for another try.
    pub(super) busy: bool,
    pub(super) leased: bool,
    /// A write of the lease is queued or in flight.
    pub leasing: bool,
    /// When it is renewed next.
    pub lease_wake: Option<Millis>,
    pub(super) failures: u32,
    pub(super) lease_failures: u32,
    pub(super) epoch: u32,
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
    pub(super) ip: String,
    pub(super) range: String,
    pub(super) failures: u32,
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
        self.offer_devices(id);
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
