//! One pod's filters, with their counters at hand.

use crate::core::class::{Class, ClassId};
use crate::core::cluster::Cluster;
use crate::core::counters::{CounterId, Counters};
use crate::core::devices::DeviceNeeds;
use crate::core::diagnosis::Reason;
use crate::core::load::Limits;
use crate::core::nodes::{NodeId, Nodes};
use crate::core::numa::Misfit;
use crate::core::overlay::{Overlay, Pull, Tally};
use crate::core::profile::{Rule, Rules};
use crate::core::seats::Seats;
use crate::core::symbols::Symbols;
use crate::core::topology::{KeyId, NONE, Topology};
use crate::core::volumes::Needs;

/// One pod's filters with their counters at hand.
pub struct Check<'a> {
    cluster: &'a Cluster,
    /// What the decider has decided that is not known yet.
    pub(super) overlay: &'a Overlay,
    nodes: &'a Nodes,
    pub(super) seats: Seats<'a>,
    topology: &'a Topology,
    symbols: &'a Symbols,
    pub(in crate::core) class: &'a Class,
    pub(in crate::core) rules: &'a Rules,
    /// What its volumes ask of the node.
    pub(in crate::core) needs: Needs<'a>,
    /// What its claims to devices ask of the node.
    pub(in crate::core) devices: Option<Box<DeviceNeeds<'a>>>,
    /// The placement that is tried: the class's own, or that of one of its pools.
    pub(super) placement: u32,
    /// Bounds of usage, where there are such.
    limits: Option<Limits>,
    /// Some node may score for having the pod's images.
    pub(in crate::core) images: bool,
    pub(super) affinity: Vec<Tally<'a>>,
    /// No pod matches the required affinity yet and the pod matches it itself: any node with the labels will do.
    pub(super) first: bool,
    anti_affinity: Vec<Tally<'a>>,
    /// Placed pods' anti-affinity terms that match this pod.
    forbidden: Vec<Pull<'a>>,
    /// Placed pods' preferences that match this pod.
    pub(in crate::core) attracted: Vec<Pull<'a>>,
    hard: Vec<Hard<'a>>,
}

struct Hard<'a> {
    key: KeyId,
    counter: Tally<'a>,
    /// The highest count that still takes the pod.
    most: i64,
}

/// Which filter of those that look at other pods rules a node out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Neighbours {
    SpreadLabel,
    Spread,
    Affinity,
    AntiAffinity,
    ExistingAntiAffinity,
}

impl Neighbours {
    /// The same as a reason.
    #[must_use]
    pub const fn reason(self) -> Reason {
        use Reason;
        match self {
            Self::SpreadLabel => Reason::SpreadLabel,
            Self::Spread => Reason::Spread,
            Self::Affinity => Reason::Affinity,
            Self::AntiAffinity => Reason::AntiAffinity,
            Self::ExistingAntiAffinity => Reason::ExistingAntiAffinity,
        }
    }
}

impl<'a> Check<'a> {
    /// A counter, with what the decider has added.
    pub(in crate::core) fn tally(&self, id: CounterId) -> Tally<'a> {
        self.overlay.tally(id, &self.cluster.counters)
    }

    /// The class that is checked.
    pub(in crate::core) const fn class(&self) -> &'a Class {
        self.class
    }

    /// Gathers what the class's filters read.
    #[must_use]
    pub fn new(cluster: &'a Cluster, id: ClassId) -> Self {
        let placement = cluster.classes[id.0 as usize].placement;
        Self::within(cluster, &cluster.nothing, id, placement)
    }

    /// As [`Check::new`], within one of the class's pools, and with what a worker has decided.
    pub(in crate::core) fn within(
        cluster: &'a Cluster,
        overlay: &'a Overlay,
        id: ClassId,
        placement: u32,
    ) -> Self {
        let class = &cluster.classes[id.0 as usize];
        let Counters {
            matchers, groups, ..
        } = &cluster.counters;
        let counter = |id: &CounterId| overlay.tally(*id, &cluster.counters);
        let affinity: Vec<_> = class.affinity.iter().map(counter).collect();
        let rules = cluster.rules(id);
        let aloof = !rules.profile.pod_affinity
            || rules.weight(Rule::PodAffinity) == 0
            || rules.profile.ignore_preferences_of_placed && class.preferred.is_empty();
        let (mut forbidden, mut attracted) = (Vec::new(), Vec::new());
        for matcher in &groups[class.group.0 as usize].matchers {
            for carrier in &matchers[matcher.0 as usize].carriers {
                let carrier = overlay.pull(*carrier, &cluster.counters);
                let total = carrier.total();
                if total.forbids > 0 && rules.profile.pod_affinity {
                    forbidden.push(carrier);
                }
                let seeks = total.seeks > 0 && rules.profile.hard_affinity_weight > 0;
                if !aloof && (seeks || total.weight > 0) {
                    attracted.push(carrier);
                }
            }
        }
        let hard = class.hard.iter().map(|rule| {
            let counter = counter(&rule.counter);
            let enough = i64::try_from(counter.domains()).unwrap_or(i64::MAX) >= rule.min_domains;
            let min = if enough { i64::from(counter.min()) } else { 0 };
            Hard {
                key: rule.key,
                counter,
                most: rule.max_skew + min - rule.own,
            }
        });
        let request = &class.request;
        Self {
            cluster,
            overlay,
            nodes: &cluster.nodes,
            seats: overlay.seats(&cluster.nodes),
            topology: &cluster.topology,
            symbols: &cluster.compiler.symbols,
            needs: cluster.volumes.needs_with(&request.claims, &request.disks),
            devices: cluster.device_needs(request, ""),
            placement,
            limits: cluster.placements[placement as usize].limits,
            images: rules.weight(Rule::Images) > 0
                && cluster.images.matter(&request.images, cluster.nodes.known),
            rules,
            first: class.own_affinity && affinity.iter().all(|c| c.is_empty()),
            affinity,
            anti_affinity: class.anti_affinity.iter().map(counter).collect(),
            forbidden,
            attracted,
            hard: hard.collect(),
            class,
        }
    }

    /// Whether a whole domain of a topology key is ruled out by the pods in it.
    pub(super) fn domain_fits(&self, key: KeyId, domain: u32) -> bool {
        let there = domain != NONE;
        self.hard
            .iter()
            .filter(|h| h.key == key)
            .all(|h| there && i64::from(h.counter.count(domain)) <= h.most)
            && self
                .affinity
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| there && (self.first || c.count(domain) > 0))
            && self
                .anti_affinity
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| !there || c.count(domain) == 0)
            && self
                .forbidden
                .iter()
                .filter(|c| c.key() == key)
                .all(|c| !there || c.at(domain).forbids == 0)
    }

    /// Whether the pods around a node let it in; constraints on `done` have been checked already.
    fn neighbours_fit(&self, node: u32, done: Option<KeyId>) -> bool {
        let domain = |key: KeyId| self.topology.domain(key, node);
        let open = |key: KeyId| Some(key) != done;
        self.hard.iter().filter(|h| open(h.key)).all(|h| {
            let domain = domain(h.key);
            domain != NONE && i64::from(h.counter.count(domain)) <= h.most
        }) && self.affinity.iter().filter(|c| open(c.key())).all(|c| {
            let domain = domain(c.key());
            domain != NONE && (self.first || c.count(domain) > 0)
        }) && self
            .anti_affinity
            .iter()
            .filter(|c| open(c.key()))
            .all(|c| {
                let domain = domain(c.key());
                domain == NONE || c.count(domain) == 0
            })
            && self.forbidden.iter().filter(|c| open(c.key())).all(|c| {
                let domain = domain(c.key());
                domain == NONE || c.at(domain).forbids == 0
            })
    }

    /// The first filter, in Kubernetes' order, by which the pods around rule the node out.
    #[must_use]
    pub fn neighbours_reject(&self, node: u32) -> Option<Neighbours> {
        for hard in &self.hard {
            let domain = self.topology.domain(hard.key, node);
            if domain == NONE {
                return Some(Neighbours::SpreadLabel);
            }
            if i64::from(hard.counter.count(domain)) > hard.most {
                return Some(Neighbours::Spread);
            }
        }
        for counter in &self.affinity {
            let domain = self.topology.domain(counter.key(), node);
            if domain == NONE || !(self.first || counter.count(domain) > 0) {
                return Some(Neighbours::Affinity);
            }
        }
        for counter in &self.anti_affinity {
            let domain = self.topology.domain(counter.key(), node);
            if domain != NONE && counter.count(domain) > 0 {
                return Some(Neighbours::AntiAffinity);
            }
        }
        for carrier in &self.forbidden {
            let domain = self.topology.domain(carrier.key(), node);
            if domain != NONE && carrier.at(domain).forbids > 0 {
                return Some(Neighbours::ExistingAntiAffinity);
            }
        }
        None
    }

    /// The resource, if any, of which the node would use too much.
    pub(in crate::core) fn too_hot(&self, node: u32) -> Option<usize> {
        let limits = self.limits.as_ref()?;
        self.seats.too_hot(node, &self.class.request.shape, limits)
    }

    /// What the node's kubelet could not align, if it insists on it.
    pub(in crate::core) fn misfit(&self, node: u32) -> Option<Misfit> {
        let request = &self.class.request;
        if !request.numa && (request.asks.is_none() || self.cluster.numa.is_empty()) {
            return None;
        }
        self.cluster
            .misfit(NodeId(node), request.asks.as_deref(), request.numa)
    }

    /// The filter, if any, by which the pod's volumes rule the node out.
    pub(in crate::core) fn volumes_reject(&self, node: u32) -> Option<Reason> {
        if self.needs.none() {
            return None;
        }
        self.needs
            .reject(node, &self.nodes.all[node as usize], self.symbols)
    }

    /// Why the node cannot serve the pod's claims to devices.
    pub(in crate::core) fn devices_reject(&self, node: u32) -> Option<Reason> {
        let needs = self.devices.as_ref()?;
        let node = &self.nodes.all[node as usize];
        needs.reject(node, self.symbols).map(Reason::Devices)
    }

    /// What keeps the pod from any node at all, whatever else there is.
    pub(in crate::core) fn blocked(&self) -> Option<Reason> {
        let devices = self.devices.as_ref().and_then(|devices| devices.blocked());
        self.needs.blocked.or(devices.map(Reason::DevicesBlocked))
    }

    /// Fit, ports, volumes, neighbours and devices.
    pub(in crate::core) fn fits(&self, node: u32, fit_known: bool, done: Option<KeyId>) -> bool {
        let request = &self.class.request;
        (fit_known || self.seats.fits(node, &request.shape) && self.too_hot(node).is_none())
            && (request.ports.is_empty() || self.nodes.ports_free(node, &request.ports))
            && self.volumes_reject(node).is_none()
            && self.misfit(node).is_none()
            // A node may be in several pools: what is placed there counts in the first of them.
            && (self.class.pool_quotas.is_empty()
                || self.cluster.quota_refusal_at(self.class, NodeId(node)).is_none())
            && self.neighbours_fit(node, done)
            && self.devices_reject(node).is_none()
    }

    /// Whether pods around, or images, change the order of nodes.
    pub(in crate::core) fn scores(&self) -> bool {
        !self.class.soft.is_empty()
            || !self.class.preferred.is_empty()
            || !self.attracted.is_empty()
            || self.images
            || self.by_service()
            || self.by_numa()
            || self.by_devices()
    }

    /// Whether nodes are told apart by the alternatives that they can serve.
    pub(in crate::core) fn by_devices(&self) -> bool {
        let prefers = self.devices.as_ref().is_some_and(|needs| needs.prefers());
        prefers && self.rules.weight(Rule::Devices) > 0
    }

    /// Whether nodes are told apart by their NUMA nodes.
    pub(in crate::core) fn by_numa(&self) -> bool {
        self.rules.weight(Rule::Numa) > 0
            && self.class.request.asks.is_some()
            && !self.cluster.numa.is_empty()
    }

    /// Whether nodes are told apart by the hours of their services.
    pub(in crate::core) const fn by_service(&self) -> bool {
        self.class.service.is_some() && self.rules.weight(Rule::Services) > 0
    }
}
