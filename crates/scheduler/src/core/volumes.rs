//! Volumes: claims, persistent volumes, storage classes, and how many volumes each node can attach.
//!
//! A pod's claims are bound (then its volume says which nodes can reach it), are bound late (then the scheduler
//! chooses a volume or has one made near the node that it chose), or hold the pod back. What was chosen for a decided
//! pod is *assumed* here until the API shows it, so that no volume is given away twice.

use super::diagnosis::Reason;
use super::object;
use super::request::{ClaimUse, amount};
use super::selector::{NodeTerm, Selector};
use super::symbols::{Labels, Symbol, Symbols, value_of};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use rustc_hash::FxHashMap;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Annotation of a claim that has been bound for good.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// Annotation of a claim with the node that its volume is to be made for.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// The class names that an annotation may still give.
const CLASS_ANNOTATION: &str = "volume.beta.kubernetes.io/storage-class";
/// A class with it has volumes made by hand only.
const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
const EXCLUSIVE: &str = "ReadWriteOncePod";
/// Labels by which volumes may say where they are, with what replaces them on nodes.
const ZONES: [(&str, &str); 4] = [
    (
        "failure-domain.beta.kubernetes.io/zone",
        "topology.kubernetes.io/zone",
    ),
    (
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
    ("topology.kubernetes.io/zone", "topology.kubernetes.io/zone"),
    (
        "topology.kubernetes.io/region",
        "topology.kubernetes.io/region",
    ),
];

/// A claim.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    pub uid: Arc<str>,
    /// Named by the claim; whether the two are bound for good says `bound`.
    volume: Option<Symbol>,
    bound: bool,
    lost: bool,
    leaving: bool,
    class: Option<Symbol>,
    selected: Option<Symbol>,
    exclusive: bool,
    modes: Vec<String>,
    block: bool,
    size: i64,
    selector: Option<Selector>,
    owner: Option<Arc<str>>,
}

/// A persistent volume.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// The claim it is bound to or reserved for, and the claim's uid if it is bound.
    claim: Option<(Symbol, Option<Arc<str>>)>,
    class: Option<Symbol>,
    modes: Vec<String>,
    block: bool,
    capacity: i64,
    labels: Labels,
    affinity: Option<Vec<NodeTerm>>,
    zones: Vec<(Symbol, Symbol, Vec<Symbol>)>,
    attaches: Option<(Symbol, Symbol)>,
    available: bool,
    leaving: bool,
}

/// A storage class.
#[derive(Clone, Debug, PartialEq)]
pub struct StorageClass {
    provisioner: Symbol,
    /// Volumes can be made.
    provisions: bool,
    delayed: bool,
    /// Terms of (label, values) of which one must hold for the node; none means anywhere.
    topologies: Vec<Vec<(Symbol, Vec<Symbol>)>>,
}

#[derive(Clone, Debug, PartialEq)]
struct Capacity {
    class: Symbol,
    nodes: Option<Selector>,
    limit: i64,
}

/// All that is known of volumes.
#[derive(Default)]
pub struct Volumes {
    claims: FxHashMap<Symbol, Claim>,
    volumes: FxHashMap<Symbol, Volume>,
    by_class: FxHashMap<Option<Symbol>, Vec<Symbol>>,
    classes: FxHashMap<Symbol, StorageClass>,
    /// By node name: driver, how many.
    limits: FxHashMap<Symbol, Vec<(Symbol, usize)>>,
    /// Drivers that tell their capacity.
    tell: FxHashMap<Symbol, ()>,
    capacities: BTreeMap<(String, String), Capacity>,
    /// Volumes given to claims of decided pods, and nodes chosen for claims, not yet seen in the API.
    assumed_volumes: FxHashMap<Symbol, Symbol>,
    assumed_nodes: FxHashMap<Symbol, Symbol>,
    /// Placed pods by claim, and claims by node.
    users: FxHashMap<Symbol, u32>,
    on_node: FxHashMap<u32, FxHashMap<Symbol, u32>>,
}

/// What has to be written before a pod whose claims are bound late can start on its node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Assumed {
    /// Volume, claim.
    pub bind: Vec<(Symbol, Symbol)>,
    /// Claims for which volumes are to be made.
    pub provision: Vec<Symbol>,
}

impl Assumed {
    /// Whether nothing has to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bind.is_empty() && self.provision.is_empty()
    }
}

/// How far the claims of a decided pod are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    Bound,
    Waiting,
    /// The provisioner gave the claim back, or claim or volume went.
    Failed,
}

fn bytes(quantity: Option<&Quantity>) -> i64 {
    quantity.map_or(0, |q| amount("storage", q))
}

fn is_block(mode: Option<&String>) -> bool {
    mode.is_some_and(|m| m == "Block")
}

fn nonempty(text: Option<&String>) -> Option<&String> {
    text.filter(|t| !t.is_empty())
}

impl Claim {
    fn compile(claim: &object::Claim, symbols: &mut Symbols) -> Self {
        let (meta, spec) = (&claim.metadata, &claim.spec);
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|a| a.get(key));
        let volume = nonempty(spec.volume_name.as_ref()).map(|v| symbols.intern(v));
        let phase = claim.status.phase.as_deref();
        let complete = annotation(BIND_COMPLETED).is_some() || phase == Some("Bound");
        let class = annotation(CLASS_ANNOTATION).or(spec.storage_class_name.as_ref());
        let owner = meta
            .owner_references
            .iter()
            .flatten()
            .find(|o| o.controller == Some(true));
        Self {
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            bound: volume.is_some() && complete,
            volume,
            lost: phase == Some("Lost"),
            leaving: meta.deletion_timestamp.is_some(),
            class: nonempty(class).map(|c| symbols.intern(c)),
            selected: nonempty(annotation(SELECTED_NODE)).map(|n| symbols.intern(n)),
            exclusive: spec.access_modes.iter().any(|m| m == EXCLUSIVE),
            modes: spec.access_modes.clone(),
            block: is_block(spec.volume_mode.as_ref()),
            size: bytes(spec.resources.requests.get("storage")),
            selector: spec
                .selector
                .as_ref()
                .map(|s| Selector::compile(Some(s), symbols)),
            owner: owner.map(|o| o.uid.as_str().into()),
        }
    }
}

impl Volume {
    fn compile(volume: &object::PersistentVolume, symbols: &mut Symbols) -> Self {
        let spec = &volume.spec;
        let labels = volume.metadata.labels.as_ref();
        let required = spec
            .node_affinity
            .as_ref()
            .and_then(|a| a.required.as_ref());
        let zones = ZONES.iter().filter_map(|(key, modern)| {
            let value = labels?.get(*key)?;
            // Several zones are written with two underscores between.
            let values: Option<Vec<_>> = value
                .split("__")
                .map(|zone| (!zone.trim().is_empty()).then(|| symbols.intern(zone.trim())))
                .collect();
            Some((symbols.intern(key), symbols.intern(modern), values?))
        });
        let zones = zones.collect();
        Self {
            claim: spec.claim_ref.as_ref().map(|r| {
                let (namespace, name) = (&r.namespace, &r.name);
                let key = format!(
                    "{}/{}",
                    namespace.as_deref().unwrap_or_default(),
                    name.as_deref().unwrap_or_default()
                );
                let uid = nonempty(r.uid.as_ref()).map(|u| u.as_str().into());
                (symbols.intern(&key), uid)
            }),
            class: nonempty(spec.storage_class_name.as_ref()).map(|c| symbols.intern(c)),
            modes: spec.access_modes.clone(),
            block: is_block(spec.volume_mode.as_ref()),
            capacity: bytes(spec.capacity.get("storage")),
            labels: symbols.labels(labels.into_iter().flatten()),
            affinity: required.map(|r| {
                r.node_selector_terms
                    .iter()
                    .map(|t| NodeTerm::compile(t, symbols))
                    .collect()
            }),
            zones,
            attaches: spec.csi.as_ref().map(|csi| {
                (
                    symbols.intern(&csi.driver),
                    symbols.intern(&csi.volume_handle),
                )
            }),
            available: volume.status.phase.as_deref() == Some("Available"),
            leaving: volume.metadata.deletion_timestamp.is_some(),
        }
    }

    fn reaches(&self, node: &super::nodes::Node, symbols: &Symbols) -> bool {
        self.affinity.as_ref().is_none_or(|terms| {
            terms
                .iter()
                .any(|t| t.matches(node.name, &node.labels, symbols))
        })
    }

    fn is_for(&self, claim: Symbol, uid: &str) -> bool {
        self.claim
            .as_ref()
            .is_some_and(|(key, bound)| *key == claim && bound.as_ref().is_none_or(|b| **b == *uid))
    }

    /// The labels that a node must have, where every term names a value: the narrowest way to its nodes.
    fn pins(&self) -> Option<Vec<(Symbol, Symbol)>> {
        let terms = self.affinity.as_ref()?;
        let mut pins = Vec::new();
        for term in terms {
            pins.extend(term.labels.certain_values()?);
        }
        Some(pins)
    }
}

impl Volumes {
    // What the API says. Each returns whether anything changed.

    /// A claim came or changed.
    pub fn set_claim(&mut self, claim: &object::Claim, symbols: &mut Symbols) -> bool {
        let meta = &claim.metadata;
        let key = key(meta.namespace.as_deref(), meta.name.as_deref());
        let key = symbols.intern(&key);
        let fresh = Claim::compile(claim, symbols);
        if self
            .assumed_nodes
            .get(&key)
            .is_some_and(|n| fresh.selected == Some(*n))
            || fresh.bound
        {
            self.assumed_nodes.remove(&key);
        }
        let changed = self.claims.get(&key) != Some(&fresh);
        self.claims.insert(key, fresh);
        changed
    }

    /// A claim went.
    pub fn remove_claim(&mut self, namespace: &str, name: &str, symbols: &mut Symbols) -> bool {
        let key = symbols.intern(&key(Some(namespace), Some(name)));
        self.assumed_nodes.remove(&key);
        self.claims.remove(&key).is_some()
    }

    /// A volume came or changed.
    pub fn set_volume(&mut self, volume: &object::PersistentVolume, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(volume.metadata.name.as_deref().unwrap_or_default());
        let fresh = Volume::compile(volume, symbols);
        if fresh.claim.is_some() {
            self.assumed_volumes.remove(&name);
        }
        let old = self.volumes.get(&name);
        let changed = old != Some(&fresh);
        if old.is_none_or(|old| old.class != fresh.class) {
            if let Some(old) = old.map(|old| old.class) {
                self.unlist(name, old);
            }
            self.by_class.entry(fresh.class).or_default().push(name);
        }
        self.volumes.insert(name, fresh);
        changed
    }

    fn unlist(&mut self, name: Symbol, class: Option<Symbol>) {
        if let Some(list) = self.by_class.get_mut(&class) {
            list.retain(|other| *other != name);
        }
    }

    /// A volume went.
    pub fn remove_volume(&mut self, name: &str, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(name);
        self.assumed_volumes.remove(&name);
        let old = self.volumes.remove(&name);
        if let Some(old) = &old {
            self.unlist(name, old.class);
        }
        old.is_some()
    }

    /// A storage class came or changed.
    pub fn set_class(&mut self, class: &object::StorageClass, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(class.metadata.name.as_deref().unwrap_or_default());
        let topologies = class.allowed_topologies.iter().map(|term| {
            let labels = term.match_label_expressions.iter().flatten();
            labels
                .map(|l| {
                    let values = l.values.iter().map(|v| symbols.intern(v)).collect();
                    (symbols.intern(&l.key), values)
                })
                .collect()
        });
        let topologies = topologies.collect();
        let provisioner = class.provisioner.as_str();
        let fresh = StorageClass {
            provisions: !matches!(provisioner, "" | NO_PROVISIONER),
            provisioner: symbols.intern(provisioner),
            delayed: class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer"),
            topologies,
        };
        let changed = self.classes.get(&name) != Some(&fresh);
        self.classes.insert(name, fresh);
        changed
    }

    /// A storage class went.
    pub fn remove_class(&mut self, name: &str, symbols: &mut Symbols) -> bool {
        self.classes.remove(&symbols.intern(name)).is_some()
    }

    /// How many volumes a node can attach came or changed.
    pub fn set_limits(&mut self, node: &object::CsiNode, symbols: &mut Symbols) -> bool {
        let name = symbols.intern(node.metadata.name.as_deref().unwrap_or_default());
        let limits: Vec<_> = node
            .spec
            .drivers
            .iter()
            .filter_map(|d| Some((&d.name, usize::try_from(d.allocatable.count?).ok()?)))
            .map(|(driver, count)| (symbols.intern(driver), count))
            .collect();
        let changed = self.limits.get(&name) != Some(&limits);
        self.limits.insert(name, limits);
        changed
    }

    /// What a node can attach is no longer told: nothing limits it.
    pub fn remove_limits(&mut self, node: &str, symbols: &mut Symbols) -> bool {
        self.limits.remove(&symbols.intern(node)).is_some()
    }

    /// A driver came or changed (`None`: went): does it tell how much room there is?
    pub fn set_driver(
        &mut self,
        name: &str,
        driver: Option<&object::CsiDriver>,
        symbols: &mut Symbols,
    ) -> bool {
        let name = symbols.intern(name);
        if driver.is_some_and(|d| d.spec.storage_capacity == Some(true)) {
            self.tell.insert(name, ()).is_none()
        } else {
            self.tell.remove(&name).is_some()
        }
    }

    /// What room there is came, changed or (`None`) went.
    pub fn set_capacity(
        &mut self,
        namespace: &str,
        name: &str,
        capacity: Option<&object::StorageCapacity>,
        symbols: &mut Symbols,
    ) -> bool {
        let key = (namespace.to_owned(), name.to_owned());
        let Some(capacity) = capacity else {
            return self.capacities.remove(&key).is_some();
        };
        let limit = capacity
            .maximum_volume_size
            .as_ref()
            .or(capacity.capacity.as_ref());
        let fresh = Capacity {
            class: symbols.intern(&capacity.storage_class_name),
            nodes: capacity
                .node_topology
                .as_ref()
                .map(|s| Selector::compile(Some(s), symbols)),
            limit: limit.map_or(-1, |q| bytes(Some(q))),
        };
        self.capacities.insert(key, fresh.clone()) != Some(fresh)
    }

    // Placed pods.

    /// A pod with these claims came to a node (`sign` 1) or left it (-1).
    pub fn book(&mut self, node: u32, claims: &[ClaimUse], sign: i32) {
        for claim in claims {
            change(&mut self.users, claim.key, sign);
            let here = self.on_node.entry(node).or_default();
            change(here, claim.key, sign);
            if here.is_empty() {
                self.on_node.remove(&node);
            }
        }
    }

    // Decisions.

    /// What keeps a pod with these claims from any node at all, if anything does.
    fn blocked(&self, claims: &[ClaimUse]) -> Option<Reason> {
        let (mut unbound, mut missing) = (None, None);
        for wanted in claims {
            let Some(claim) = self.claims.get(&wanted.key) else {
                return Some(match wanted.pod {
                    Some(_) => Reason::EphemeralClaim(wanted.key),
                    None => Reason::MissingClaim(wanted.key),
                });
            };
            if claim.lost {
                return Some(Reason::LostClaim(wanted.key, claim.volume));
            }
            if claim.leaving {
                return Some(Reason::LeavingClaim(wanted.key));
            }
            if wanted.pod.is_some() && wanted.pod != claim.owner {
                return Some(Reason::ForeignClaim(wanted.key));
            }
            let late = self.delayed(claim) && claim.volume.is_none();
            if !claim.bound && !late {
                unbound = Some(Reason::UnboundClaim);
            }
            if let Some(volume) = claim
                .volume
                .filter(|v| claim.bound && !self.volumes.contains_key(v))
            {
                missing = missing.or(Some(Reason::MissingVolume(volume)));
            }
        }
        unbound.or(missing)
    }

    fn delayed(&self, claim: &Claim) -> bool {
        claim
            .class
            .and_then(|c| self.classes.get(&c))
            .is_some_and(|c| c.delayed)
    }

    /// Gathers what a pod with these claims needs of its node.
    #[must_use]
    pub fn needs<'a>(&'a self, claims: &'a [ClaimUse]) -> Needs<'a> {
        let mut needs = Needs {
            of: self,
            blocked: self.blocked(claims),
            bound: Vec::new(),
            late: Vec::new(),
            taken: false,
            attaches: Vec::new(),
        };
        for wanted in claims {
            let Some(claim) = self.claims.get(&wanted.key) else {
                continue;
            };
            needs.taken |= claim.exclusive && self.users.contains_key(&wanted.key);
            if claim.bound {
                needs
                    .bound
                    .extend(claim.volume.and_then(|v| self.volumes.get(&v)));
            } else {
                needs.late.push((wanted.key, claim));
            }
            needs.attaches.extend(self.attachment(wanted.key));
        }
        needs.late.sort_by_key(|(_, claim)| claim.size);
        needs
    }

    /// The driver and handle of a claim's volume; for one still to be made, the claim stands for it.
    fn attachment(&self, key: Symbol) -> Option<(Symbol, Symbol)> {
        let claim = self.claims.get(&key)?;
        match claim.volume {
            Some(volume) => self.volumes.get(&volume)?.attaches,
            None => {
                let class = self.classes.get(&claim.class?)?;
                class.provisions.then_some((class.provisioner, key))
            }
        }
    }

    fn room(
        &self,
        class: Symbol,
        provisioner: Symbol,
        size: i64,
        labels: &Labels,
        symbols: &Symbols,
    ) -> bool {
        size == 0
            || !self.tell.contains_key(&provisioner)
            || self.capacities.values().any(|c| {
                c.class == class
                    && c.limit >= size
                    && c.nodes.as_ref().is_some_and(|s| s.matches(labels, symbols))
            })
    }

    // Assumptions.

    /// Holds volumes, and the node, for the late claims of a pod that was decided. `None` if they cannot be served there
    /// (any more).
    pub fn assume(
        &mut self,
        claims: &[ClaimUse],
        node: &super::nodes::Node,
        symbols: &Symbols,
    ) -> Option<Assumed> {
        let assumed = self.needs(claims).choose(node, symbols).ok()?;
        for (volume, claim) in &assumed.bind {
            self.assumed_volumes.insert(*volume, *claim);
        }
        for claim in &assumed.provision {
            self.assumed_nodes.insert(*claim, node.name);
        }
        Some(assumed)
    }

    /// Lets go what was held for a pod.
    pub fn release(&mut self, assumed: &Assumed) {
        for (volume, _) in &assumed.bind {
            self.assumed_volumes.remove(volume);
        }
        for claim in &assumed.provision {
            self.assumed_nodes.remove(claim);
        }
    }

    /// How far claims are whose pod was decided for a node.
    #[must_use]
    pub fn progress(&self, claims: &[ClaimUse], node: Symbol, assumed: &Assumed) -> Progress {
        let mut progress = Progress::Bound;
        for wanted in claims {
            let Some(claim) = self
                .claims
                .get(&wanted.key)
                .filter(|c| !c.lost && !c.leaving)
            else {
                return Progress::Failed;
            };
            if claim.bound {
                continue;
            }
            progress = Progress::Waiting;
            let held = self.assumed_nodes.contains_key(&wanted.key);
            if assumed.provision.contains(&wanted.key) && !held && claim.selected != Some(node) {
                return Progress::Failed;
            }
        }
        progress
    }

    /// The uid of a claim, for preconditions.
    #[must_use]
    pub fn claim_uid(&self, key: Symbol) -> Option<Arc<str>> {
        self.claims.get(&key).map(|c| c.uid.clone())
    }
}

fn key(namespace: Option<&str>, name: Option<&str>) -> String {
    format!(
        "{}/{}",
        namespace.unwrap_or_default(),
        name.unwrap_or_default()
    )
}

fn change(counts: &mut FxHashMap<Symbol, u32>, at: Symbol, sign: i32) {
    let count = counts.entry(at).or_default();
    *count = count.saturating_add_signed(sign);
    if *count == 0 {
        counts.remove(&at);
    }
}

/// What one pod's claims need of its node.
pub struct Needs<'a> {
    of: &'a Volumes,
    /// No node will do.
    pub blocked: Option<Reason>,
    bound: Vec<&'a Volume>,
    /// Claims to be bound now, smallest first.
    late: Vec<(Symbol, &'a Claim)>,
    /// Another pod uses a claim that is for one pod only.
    taken: bool,
    attaches: Vec<(Symbol, Symbol)>,
}

impl Needs<'_> {
    /// The first filter, in kube-scheduler's order, by which volumes rule the node out.
    #[must_use]
    pub fn reject(&self, at: u32, node: &super::nodes::Node, symbols: &Symbols) -> Option<Reason> {
        if self.taken {
            return Some(Reason::ExclusiveClaim);
        }
        if self.too_many(at, node.name) {
            return Some(Reason::VolumeLimit);
        }
        if !self.bound.iter().all(|v| v.reaches(node, symbols)) {
            return Some(Reason::VolumeAffinity);
        }
        if let Err(reason) = self.choose(node, symbols) {
            return Some(reason);
        }
        (!self.zones_match(node, symbols)).then_some(Reason::VolumeZone)
    }

    /// Whether there is nothing to look at.
    #[must_use]
    pub fn none(&self) -> bool {
        self.bound.is_empty() && self.late.is_empty() && !self.taken && self.attaches.is_empty()
    }

    fn too_many(&self, at: u32, name: Symbol) -> bool {
        let (Some(limits), false) = (self.of.limits.get(&name), self.attaches.is_empty()) else {
            return false;
        };
        limits.iter().any(|(driver, limit)| {
            let of_driver = |(d, handle): (Symbol, Symbol)| (d == *driver).then_some(handle);
            let mut new: Vec<Symbol> = self
                .attaches
                .iter()
                .copied()
                .filter_map(of_driver)
                .collect();
            if new.is_empty() {
                return false;
            }
            let here = self.of.on_node.get(&at);
            let mut there: Vec<Symbol> = here
                .into_iter()
                .flat_map(|claims| claims.keys())
                .filter_map(|claim| self.of.attachment(*claim))
                .filter_map(of_driver)
                .collect();
            there.sort_unstable();
            there.dedup();
            new.sort_unstable();
            new.dedup();
            new.retain(|handle| there.binary_search(handle).is_err());
            !new.is_empty() && there.len() + new.len() > *limit
        })
    }

    fn zones_match(&self, node: &super::nodes::Node, symbols: &Symbols) -> bool {
        let mut zones = self.bound.iter().flat_map(|v| &v.zones).peekable();
        if zones.peek().is_none() {
            return true;
        }
        // A node that says nothing of zones is in a cluster that has none.
        let told = ZONES
            .iter()
            .filter_map(|(key, _)| symbols.known(key))
            .any(|key| value_of(&node.labels, key).is_some());
        !told
            || zones.all(|(key, modern, values)| {
                value_of(&node.labels, *key)
                    .or_else(|| value_of(&node.labels, *modern))
                    .is_some_and(|zone| values.contains(&zone))
            })
    }

    /// Volumes for the late claims on a node, as kube-scheduler chooses: smallest claim first, each the smallest
    /// volume that will do; where there is none, one is to be made.
    fn choose(&self, node: &super::nodes::Node, symbols: &Symbols) -> Result<Assumed, Reason> {
        let mut assumed = Assumed::default();
        for (key, claim) in &self.late {
            let selected = self.of.assumed_nodes.get(key).copied().or(claim.selected);
            if let Some(selected) = selected {
                if selected != node.name {
                    return Err(Reason::NoVolumeToBind);
                }
            } else if let Some(volume) = self.find(*key, claim, node, &assumed, symbols) {
                assumed.bind.push((volume, *key));
                continue;
            }
            let class = claim
                .class
                .and_then(|name| Some((name, self.of.classes.get(&name)?)));
            let Some((name, class)) = class.filter(|(_, class)| class.provisions) else {
                return Err(Reason::NoVolumeToBind);
            };
            let there = class.topologies.is_empty()
                || class.topologies.iter().any(|term| {
                    term.iter().all(|(label, values)| {
                        value_of(&node.labels, *label).is_some_and(|v| values.contains(&v))
                    })
                });
            if !there {
                return Err(Reason::NoVolumeToBind);
            }
            if !self
                .of
                .room(name, class.provisioner, claim.size, &node.labels, symbols)
            {
                return Err(Reason::NoStorage);
            }
            assumed.provision.push(*key);
        }
        Ok(assumed)
    }

    fn find(
        &self,
        key: Symbol,
        claim: &Claim,
        node: &super::nodes::Node,
        assumed: &Assumed,
        symbols: &Symbols,
    ) -> Option<Symbol> {
        let mut best: Option<(i64, Symbol)> = None;
        for name in self.of.by_class.get(&claim.class).into_iter().flatten() {
            let Some(volume) = self.of.volumes.get(name) else {
                continue;
            };
            let given = self
                .of
                .assumed_volumes
                .get(name)
                .is_some_and(|to| *to != key)
                || assumed.bind.iter().any(|(v, _)| v == name);
            if given
                || volume.claim.is_some() && !volume.is_for(key, &claim.uid)
                || volume.capacity < claim.size
                || volume.block != claim.block
            {
                continue;
            }
            let reaches = volume.reaches(node, symbols);
            if volume.claim.is_some() {
                return reaches.then_some(*name);
            }
            let fits = reaches
                && volume.available
                && !volume.leaving
                && claim
                    .selector
                    .as_ref()
                    .is_none_or(|s| s.matches(&volume.labels, symbols))
                && claim.modes.iter().all(|m| volume.modes.contains(m));
            if fits && best.is_none_or(|(least, _)| volume.capacity < least) {
                best = Some((volume.capacity, *name));
            }
        }
        best.map(|(_, name)| name)
    }

    /// Label values of which every node that will do has one, where the pod's volumes name such: the way to few nodes.
    #[must_use]
    pub fn pins(&self) -> Vec<Vec<(Symbol, Symbol)>> {
        self.bound.iter().filter_map(|v| v.pins()).collect()
    }

    /// The one node that will do, where a claim's volume is being made for it already.
    #[must_use]
    pub fn selected(&self) -> Option<Symbol> {
        let assumed = &self.of.assumed_nodes;
        self.late
            .iter()
            .find_map(|(key, claim)| assumed.get(key).copied().or(claim.selected))
    }
}
